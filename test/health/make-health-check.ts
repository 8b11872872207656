/** Builder of health checks for the tests of what is answered and of who answers. */
import type { HealthCheck } from '../../src/model/health-check.ts';

/** Of Service `default/web` on 0.0.0.0:32000 with one local endpoint, unless tweaked. */
export function makeHealthCheck(tweak: Partial<HealthCheck> = {}): HealthCheck {
  return {
    namespace: 'default',
    name: 'web',
    family: 'IPv4',
    port: 32_000,
    addresses: ['0.0.0.0'],
    localEndpoints: 1,
    ...tweak,
  };
}
