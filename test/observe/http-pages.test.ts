/** What the two servers answer, asked over real loopback sockets. */
import { once } from 'node:events';
import { connect } from 'node:net';
import { beforeEach, expect, test } from 'vitest';
import { parsePrometheusText, sampleValue } from '../support/prometheus-text.ts';
import { HttpFixture, START_TEXT, TIMEOUT_MS } from './http-fixture.ts';

let fixture: HttpFixture;

beforeEach(() => {
  fixture = new HttpFixture();
});

test("a healthy proxy answers /healthz with 200 and kube-proxy's newest body", async () => {
  const { healthAddress } = await fixture.startServers();

  const reply = await fixture.ask(healthAddress, '/healthz');

  expect(reply.status).toBe(200);
  expect(reply.headers['content-type']).toBe('application/json');
  expect(reply.headers['x-content-type-options']).toBe('nosniff');
  expect(JSON.parse(reply.body)).toMatchObject({
    lastUpdated: START_TEXT,
    currentTime: START_TEXT,
    nodeEligible: true,
    healthy: true,
  });
  expect(Object.keys(JSON.parse(reply.body) as object)).toEqual([
    'lastUpdated',
    'currentTime',
    'nodeEligible',
    'healthy',
    'status',
  ]);
});

test('the body of /healthz tells each family the node programs, byte for byte', async () => {
  const { healthAddress } = await fixture.startServers();
  fixture.health.setFamilies(['IPv4']);
  fixture.health.syncStarted();
  fixture.health.syncSucceeded();

  const { body } = await fixture.ask(healthAddress, '/healthz');

  expect(body).toBe(
    `{"lastUpdated":"${START_TEXT}","currentTime":"${START_TEXT}","nodeEligible":true,"healthy":true,` +
      `"status":{"IPv4":{"lastUpdated":"${START_TEXT}","healthy":true}}}`,
  );
});

test('a change that waits too long makes /healthz and /livez 503, and says that there never was a sync', async () => {
  const { healthAddress } = await fixture.startServers();
  fixture.health.setFamilies(['IPv4']);
  fixture.health.updateQueued();
  fixture.elapsed = TIMEOUT_MS;

  const healthz = await fixture.ask(healthAddress, '/healthz');
  const livez = await fixture.ask(healthAddress, '/livez');

  const late = `"healthy":false,"status":{"IPv4":{"lastUpdated":"0001-01-01T00:00:00Z","healthy":false}}}`;
  const times = '"lastUpdated":"0001-01-01T00:00:00Z","currentTime":"2026-11-21T06:31:00.000Z"';
  expect(healthz.status).toBe(503);
  expect(healthz.body).toBe(`{${times},"nodeEligible":true,${late}`);
  expect(livez.status).toBe(503);
  expect(livez.body).toBe(`{${times},${late}`);
});

test('a proxy that stops answers /healthz with 503 and /livez with 200', async () => {
  const { healthAddress } = await fixture.startServers();
  fixture.health.syncStarted();
  fixture.health.syncSucceeded();
  fixture.health.stop();

  const healthz = await fixture.ask(healthAddress, '/healthz');
  const livez = await fixture.ask(healthAddress, '/livez');

  expect(healthz.status).toBe(503);
  expect(JSON.parse(healthz.body)).toMatchObject({ nodeEligible: false, healthy: true });
  expect(livez.status).toBe(200);
  expect(JSON.parse(livez.body)).not.toHaveProperty('nodeEligible');
});

test('/readyz is 503 until the first sync, then 200', async () => {
  const { healthAddress } = await fixture.startServers();

  const before = await fixture.ask(healthAddress, '/readyz');
  fixture.health.syncStarted();
  fixture.health.syncSucceeded();
  const after = await fixture.ask(healthAddress, '/readyz');

  expect(before.status).toBe(503);
  expect(before.body).toBe(`{"currentTime":"${START_TEXT}","ready":false}`);
  expect(after.status).toBe(200);
  expect(after.body).toBe(`{"currentTime":"${START_TEXT}","ready":true}`);
});

test('answers of /healthz and /livez are counted by their code, those of the metrics server are not', async () => {
  const { healthAddress, metricsAddress } = await fixture.startServers();
  await fixture.ask(healthAddress, '/healthz');
  await fixture.ask(healthAddress, '/livez');
  fixture.health.stop();
  await fixture.ask(healthAddress, '/healthz');
  await fixture.ask(metricsAddress, '/healthz');

  const families = parsePrometheusText((await fixture.ask(metricsAddress, '/metrics')).body);

  expect(sampleValue(families, 'kubeproxy_proxy_healthz_total', { code: '200' })).toBe(1);
  expect(sampleValue(families, 'kubeproxy_proxy_healthz_total', { code: '503' })).toBe(1);
  expect(sampleValue(families, 'kubeproxy_proxy_livez_total', { code: '200' })).toBe(1);
  expect(sampleValue(families, 'kubeproxy_proxy_livez_total', { code: '503' })).toBe(0);
});

test.each([
  { path: '/healthz', type: 'text/plain; charset=utf-8', body: 'ok' },
  { path: '/healthz?verbose', type: 'text/plain; charset=utf-8', body: '[+]ping ok\nhealthz check passed\n' },
  { path: '/proxyMode', type: 'text/plain; charset=utf-8', body: 'userspace' },
  { path: '/configz', type: 'application/json', body: '{"kubeproxy.config.k8s.io":{"mode":"userspace"}}' },
])('the metrics server answers $path as kube-proxy does', async ({ path, type, body }) => {
  const { metricsAddress } = await fixture.startServers();

  const reply = await fixture.ask(metricsAddress, path);

  expect(reply.status).toBe(200);
  expect(reply.headers['content-type']).toBe(type);
  expect(reply.headers['x-content-type-options']).toBe('nosniff');
  expect(reply.headers['content-length']).toBe(String(Buffer.byteLength(body)));
  expect(reply.body).toBe(body);
});

test('/metrics is valid Prometheus text with its content type', async () => {
  fixture.metrics.addServicePort((name) => (name.namespace = 'größe')).sessionsTotal = 3;
  const { metricsAddress } = await fixture.startServers();

  const reply = await fixture.ask(metricsAddress, '/metrics');

  expect(reply.status).toBe(200);
  expect(reply.headers['content-type']).toBe('text/plain; version=0.0.4; charset=utf-8');
  const connections = parsePrometheusText(reply.body).get('userspace_proxy_connections_total');
  expect(connections?.samples.map((sample) => sample.value)).toEqual([3]);
});

test.each(['/', '/metrics/', '/livez', '/readyz', '/metrics/slis', '/debug/pprof/', '//metrics', '/%zz'])(
  'the metrics server knows no %s',
  async (path) => {
    const { metricsAddress } = await fixture.startServers();

    const reply = await fixture.ask(metricsAddress, path);

    expect(reply.status).toBe(404);
    expect(reply.body).toBe('404 page not found\n');
  },
);

test.each(['/', '/metrics', '/proxyMode', '/configz'])('the health server knows no %s', async (path) => {
  const { healthAddress } = await fixture.startServers();

  expect((await fixture.ask(healthAddress, path)).status).toBe(404);
});

test('HEAD has the headers of GET and no body', async () => {
  const { metricsAddress } = await fixture.startServers();

  const reply = await fixture.ask(metricsAddress, '/proxyMode', 'HEAD');

  expect(reply.status).toBe(200);
  expect(reply.headers['content-length']).toBe('9');
  expect(reply.body).toBe('');
});

test.each(['/healthz', '/livez', '/unknown'])('POST %s is 405 and is not counted', async (path) => {
  const { healthAddress } = await fixture.startServers();

  const reply = await fixture.ask(healthAddress, path, 'POST');

  expect(reply.status).toBe(405);
  expect(reply.headers['allow']).toBe('GET, HEAD');
  const families = await fixture.metrics.scrape();
  expect(sampleValue(families, 'kubeproxy_proxy_healthz_total', { code: '200' })).toBe(0);
});

test('a scrape that fails is 500 and one log line, and the next one works', async () => {
  const { metricsAddress } = await fixture.startServers();
  fixture.metrics.fault = new Error('secret detail');

  const failed = await fixture.ask(metricsAddress, '/metrics');
  fixture.metrics.fault = undefined;
  const next = await fixture.ask(metricsAddress, '/metrics');

  expect(failed.status).toBe(500);
  expect(failed.body).toBe('Internal Server Error\n');
  expect(fixture.sink.withMessage('Cannot answer HTTP request')).toMatchObject([
    { level: 'error', path: '/metrics', error: { message: 'secret detail' } },
  ]);
  expect(next.status).toBe(200);
});

test('a configuration that cannot be shown is 500 on /configz and harms nothing else', async () => {
  fixture.configz = { self: 1n };
  const { metricsAddress } = await fixture.startServers();

  expect((await fixture.ask(metricsAddress, '/configz')).status).toBe(500);
  expect((await fixture.ask(metricsAddress, '/healthz')).status).toBe(200);
});

test('clients that talk nonsense or vanish in the middle of a scrape harm nobody', async () => {
  const { metricsAddress = '' } = await fixture.startServers();
  const port = Number(metricsAddress.split(':')[1]);
  for (const text of [
    '\0\0\0\r\n\r\n',
    'GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n',
    'CONNECT x:1 HTTP/1.1\r\n\r\n',
  ]) {
    const client = connect(port, '127.0.0.1');
    client.on('error', () => {});
    await once(client, 'connect');
    client.write(text, () => client.resetAndDestroy());
    await once(client, 'close');
  }

  expect((await fixture.ask(metricsAddress, '/metrics')).status).toBe(200);
});
