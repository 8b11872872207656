/**
 * What load balancers hear on the health check node ports of Services with `externalTrafficPolicy: Local`: may this
 * node get their traffic? The answers are kube-proxy's to the byte (`pkg/proxy/healthcheck/service_health.go`). Bad
 * news is told at once, good news once the rules are in, so that nobody is sent here for traffic that is not taken
 * yet. Pure.
 */
import type { HealthCheck } from '../model/health-check.ts';

export interface HealthCheckAnswer {
  readonly status: 200 | 503;
  /** Without Content-Length. */
  readonly headers: Readonly<Record<string, string>>;
  /** JSON, indented with tabs, without a newline at its end. */
  readonly body: string;
}

/**
 * 200 when the Service has endpoints here and the proxy is healthy, else 503. The weight goes with both: it is the
 * number of endpoints, whatever the proxy's health.
 */
export function healthCheckAnswer(check: HealthCheck, isProxyHealthy: boolean): HealthCheckAnswer {
  const { namespace, name, localEndpoints } = check;
  const body = { service: { namespace, name }, localEndpoints, serviceProxyHealthy: isProxyHealthy };
  return {
    status: localEndpoints > 0 && isProxyHealthy ? 200 : 503,
    headers: {
      'Content-Type': 'application/json',
      'X-Content-Type-Options': 'nosniff',
      'X-Load-Balancing-Endpoint-Weight': String(localEndpoints),
    },
    body: JSON.stringify(body, undefined, '\t'),
  };
}

/** The health checks as they are to be served at this moment. */
export class ServiceHealth {
  #checks: readonly HealthCheck[] = [];
  /** Of the newest update, which may be ahead of the rules that a sync has just written. */
  #newestCountByKey: ReadonlyMap<string, number> = new Map();

  /** Those of the last `programmed`, in its order. The same array for as long as nothing changes. */
  get checks(): readonly HealthCheck[] {
    return this.#checks;
  }

  /** The endpoints have changed: counts that fell count from now on, everything else waits for the rules. */
  update(checks: readonly HealthCheck[]): void {
    this.#newestCountByKey = new Map(checks.map((check) => [keyOf(check), check.localEndpoints]));
    const next = this.#checks.map((check) => this.#withFall(check));
    if (next.some((check, index) => check !== this.#checks[index])) this.#checks = next;
  }

  /**
   * The rules are those of `checks`: new ones appear, gone ones go, all counts are current, but for those that a
   * later `update` saw fall while the rules were being written. Whatever comes here has been through `update`.
   */
  programmed(checks: readonly HealthCheck[]): void {
    this.#checks = checks.map((check) => this.#withFall(check));
  }

  #withFall(check: HealthCheck): HealthCheck {
    const newest = this.#newestCountByKey.get(keyOf(check));
    return newest === undefined || newest >= check.localEndpoints
      ? check
      : { ...check, localEndpoints: newest };
  }
}

function keyOf({ family, namespace, name }: HealthCheck): string {
  return `${family}/${namespace}/${name}`;
}
