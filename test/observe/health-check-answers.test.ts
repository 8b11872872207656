/** What health check node ports answer, and when, over real loopback sockets. */
import { beforeEach, expect, test } from 'vitest';
import { NodeHealth } from '../../src/health/node-health.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { connectTcp } from '../support/loopback-tcp.ts';
import { waitFor } from '../support/wait.ts';
import { HealthCheckFixture, type Method } from './health-check-fixture.ts';

let fixture: HealthCheckFixture;

beforeEach(() => {
  fixture = new HealthCheckFixture();
});

test("a Service with endpoints here is answered for with kube-proxy's 200, byte for byte", async () => {
  const check = await fixture.makeCheck({ namespace: 'ns', name: 'svc', localEndpoints: 2 });
  await fixture.program(check);

  const reply = await fixture.ask(check);

  const body =
    '{\n\t"service": {\n\t\t"namespace": "ns",\n\t\t"name": "svc"\n\t},\n' +
    '\t"localEndpoints": 2,\n\t"serviceProxyHealthy": true\n}';
  expect(reply.status).toBe(200);
  expect(reply.body).toBe(body);
  expect(reply.headers).toMatchObject({
    'content-type': 'application/json',
    'x-content-type-options': 'nosniff',
    'x-load-balancing-endpoint-weight': '2',
    'content-length': String(Buffer.byteLength(body)),
  });
});

test('a Service without endpoints here is 503, and has a weight all the same', async () => {
  const check = await fixture.makeCheck({ localEndpoints: 0 });
  await fixture.program(check);

  const reply = await fixture.ask(check);

  expect(reply.status).toBe(503);
  expect(reply.headers['x-load-balancing-endpoint-weight']).toBe('0');
  expect(JSON.parse(reply.body)).toMatchObject({ localEndpoints: 0, serviceProxyHealthy: true });
});

test('a proxy that is not healthy is 503 with the weight as it is, until it is healthy again', async () => {
  const check = await fixture.makeCheck({ localEndpoints: 2 });
  await fixture.program(check);

  fixture.isProxyHealthy = () => false;
  const ill = await fixture.ask(check);
  fixture.isProxyHealthy = () => true;
  const well = await fixture.ask(check);

  expect(ill.status).toBe(503);
  expect(ill.headers['x-load-balancing-endpoint-weight']).toBe('2');
  expect(JSON.parse(ill.body)).toMatchObject({ localEndpoints: 2, serviceProxyHealthy: false });
  expect(well.status).toBe(200);
});

test('a proxy that drains is 503, so that load balancers move on', async () => {
  const health = new NodeHealth({ clock: new FakeClock() }, { timeoutMs: 60_000, hasNodeObject: true });
  fixture.isProxyHealthy = () => health.isProxyHealthy();
  const check = await fixture.makeCheck();
  await fixture.program(check);

  const before = await fixture.ask(check);
  health.stop();
  const draining = await fixture.ask(check);

  expect(before.status).toBe(200);
  expect(draining.status).toBe(503);
});

test.each<{ method: Method; path: string }>([
  { method: 'GET', path: '/healthz' },
  { method: 'GET', path: '/any/other?verbose' },
  { method: 'GET', path: '//%zz' },
  { method: 'POST', path: '/' },
  { method: 'PUT', path: '/' },
  { method: 'PATCH', path: '/' },
  { method: 'DELETE', path: '/' },
  { method: 'OPTIONS', path: '/' },
])('$method $path is answered as any other request', async ({ method, path }) => {
  const check = await fixture.makeCheck();
  await fixture.program(check);
  const { body } = await fixture.ask(check);

  const reply = await fixture.ask(check, { method, path });

  expect(reply.status).toBe(200);
  expect(reply.body).toBe(body);
});

test('HEAD has the headers of GET and no body', async () => {
  const check = await fixture.makeCheck({ localEndpoints: 0 });
  await fixture.program(check);
  const { headers } = await fixture.ask(check);

  const reply = await fixture.ask(check, { method: 'HEAD' });

  expect(reply.status).toBe(503);
  expect(reply.headers['content-length']).toBe(headers['content-length']);
  expect(reply.headers['x-load-balancing-endpoint-weight']).toBe('0');
  expect(reply.body).toBe('');
});

test('on a kept connection the last endpoint to go is 503 at once, and the next to come 200 after the sync', async () => {
  const check = await fixture.makeCheck();
  await fixture.program(check);
  const peer = await connectTcp({ address: fixture.address, port: check.port });
  const statuses = async (count: number): Promise<string[]> => {
    const all = (): string[] =>
      [...peer.received.toString().matchAll(/HTTP\/1\.1 (\d+)/g)].map(([, code = '']) => code);
    await waitFor(() => all().length === count, { timeoutMs: 5000, what: `${count} answers` });
    return all();
  };
  const ask = (): void => peer.send('GET / HTTP/1.1\r\nHost: x\r\n\r\n');

  ask();
  expect(await statuses(1)).toEqual(['200']);
  fixture.servers.update([{ ...check, localEndpoints: 0 }]);
  ask();
  expect(await statuses(2)).toEqual(['200', '503']);
  fixture.servers.update([check]);
  ask();
  expect(await statuses(3)).toEqual(['200', '503', '503']);
  fixture.servers.programmed([check]);
  ask();
  expect(await statuses(4)).toEqual(['200', '503', '503', '200']);
});

test('an endpoint that goes while older rules are being written is not answered for when they are in', async () => {
  const check = await fixture.makeCheck({ localEndpoints: 2 });
  fixture.servers.update([check]);
  fixture.servers.update([{ ...check, localEndpoints: 0 }]);

  fixture.servers.programmed([check]);
  await waitFor(() => fixture.servers.counts.listening === 1, { timeoutMs: 5000, what: 'the port to open' });

  expect((await fixture.ask(check)).status).toBe(503);
});

test('each Service and each family is answered for itself', async () => {
  const web = await fixture.makeCheck({ localEndpoints: 3 });
  const api = await fixture.makeCheck({ name: 'api', localEndpoints: 0 });
  await fixture.program(web, api);

  expect(JSON.parse((await fixture.ask(web)).body)).toMatchObject({ service: { name: 'web' } });
  expect((await fixture.ask(api)).status).toBe(503);
});

test('clients that talk nonsense or vanish harm nobody', async () => {
  const check = await fixture.makeCheck();
  await fixture.program(check);
  for (const text of [
    '\0\0\0\r\n\r\n',
    'GET / HTTP/1.1\r\nHost: x\r\n\r\n',
    'CONNECT x:1 HTTP/1.1\r\n\r\n',
  ]) {
    const peer = await connectTcp({ address: fixture.address, port: check.port });
    peer.send(text);
    peer.reset();
  }

  expect((await fixture.ask(check)).status).toBe(200);
});
