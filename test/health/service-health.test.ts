/**
 * The answers of kube-proxy's TestServer (`pkg/proxy/healthcheck/healthcheck_test.go`), to the byte, and when which
 * count is told.
 */
import { describe, expect, test } from 'vitest';
import { ServiceHealth, healthCheckAnswer } from '../../src/health/service-health.ts';
import { makeHealthCheck } from './make-health-check.ts';

describe('the answer', () => {
  test("of a Service with endpoints here is 200 and kube-proxy's body, with tabs and no newline at its end", () => {
    const answer = healthCheckAnswer(makeHealthCheck({ namespace: 'ns', name: 'svc' }), true);

    expect(answer.status).toBe(200);
    expect(answer.body).toBe(
      '{\n\t"service": {\n\t\t"namespace": "ns",\n\t\t"name": "svc"\n\t},\n' +
        '\t"localEndpoints": 1,\n\t"serviceProxyHealthy": true\n}',
    );
  });

  test.each([
    { name: 'endpoints and a healthy proxy', localEndpoints: 18, isHealthy: true, status: 200 },
    { name: 'no endpoint', localEndpoints: 0, isHealthy: true, status: 503 },
    { name: 'a proxy that is not healthy', localEndpoints: 18, isHealthy: false, status: 503 },
    { name: 'neither', localEndpoints: 0, isHealthy: false, status: 503 },
  ])('with $name is $status, and has the same headers', ({ localEndpoints, isHealthy, status }) => {
    const answer = healthCheckAnswer(makeHealthCheck({ localEndpoints }), isHealthy);

    expect(answer.status).toBe(status);
    expect(answer.headers).toEqual({
      'Content-Type': 'application/json',
      'X-Content-Type-Options': 'nosniff',
      'X-Load-Balancing-Endpoint-Weight': String(localEndpoints),
    });
    expect(JSON.parse(answer.body)).toEqual({
      service: { namespace: 'default', name: 'web' },
      localEndpoints,
      serviceProxyHealthy: isHealthy,
    });
  });
});

describe('what is served', () => {
  const one = makeHealthCheck();
  const three = makeHealthCheck({ localEndpoints: 3 });
  const none = makeHealthCheck({ localEndpoints: 0 });

  test('is nothing before rules were written', () => {
    const health = new ServiceHealth();

    health.update([three]);

    expect(health.checks).toEqual([]);
  });

  test('is what the rules were written for', () => {
    const health = new ServiceHealth();
    health.update([three]);

    health.programmed([three]);

    expect(health.checks).toEqual([three]);
  });

  test('falls with the endpoints at once', () => {
    const health = new ServiceHealth();
    health.programmed([three]);

    health.update([none]);

    expect(health.checks).toEqual([none]);
  });

  test('rises with the endpoints only when the rules are in', () => {
    const health = new ServiceHealth();
    health.programmed([one]);

    health.update([three]);
    const before = health.checks;
    health.programmed([three]);

    expect(before).toEqual([one]);
    expect(health.checks).toEqual([three]);
  });

  test('that fell rises again only when the rules are in', () => {
    const health = new ServiceHealth();
    health.programmed([three]);
    health.update([none]);

    health.update([three]);
    const before = health.checks;
    health.programmed([three]);

    expect(before).toEqual([none]);
    expect(health.checks).toEqual([three]);
  });

  test('that fell while older rules were being written does not rise with them', () => {
    const health = new ServiceHealth();
    health.update([three]);
    health.update([none]);

    health.programmed([three]);

    expect(health.checks).toEqual([none]);
  });

  test('that rose while older rules were being written does not rise with them', () => {
    const health = new ServiceHealth();
    health.update([one]);
    health.update([three]);

    health.programmed([one]);

    expect(health.checks).toEqual([one]);
  });

  test('stays while its Service is gone or has another port, until the rules are in', () => {
    const health = new ServiceHealth();
    const api = makeHealthCheck({ name: 'api', port: 32_001 });
    const moved = { ...api, port: 32_002 };
    health.programmed([three, api]);

    health.update([moved]);
    const before = health.checks;
    health.programmed([moved]);

    expect(before).toEqual([three, api]);
    expect(health.checks).toEqual([moved]);
  });

  test('falls at once also when its port or addresses are about to change, on those it still has', () => {
    const health = new ServiceHealth();
    health.programmed([three]);

    health.update([{ ...one, port: 32_005, addresses: ['192.0.2.1'] }]);

    expect(health.checks).toEqual([one]);
  });

  test('is told apart by family, namespace and name', () => {
    const health = new ServiceHealth();
    const others = [
      makeHealthCheck({ family: 'IPv6', addresses: ['::'], localEndpoints: 3 }),
      makeHealthCheck({ namespace: 'other', port: 32_001, localEndpoints: 3 }),
      makeHealthCheck({ name: 'api', port: 32_002, localEndpoints: 3 }),
    ];
    health.programmed([three, ...others]);

    health.update([none, ...others]);

    expect(health.checks).toEqual([none, ...others]);
  });

  test('is the same array for as long as nothing falls', () => {
    const health = new ServiceHealth();
    health.programmed([one]);
    const before = health.checks;

    health.update([three]);
    expect(health.checks).toBe(before);

    health.update([none]);
    expect(health.checks).not.toBe(before);
  });
});
