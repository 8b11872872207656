/** How the two servers bind, wait for a port in use, and end. */
import { once } from 'node:events';
import { type AddressInfo, type Server, type Socket, connect, createServer } from 'node:net';
import { afterEach, beforeEach, expect, onTestFinished, test, vi } from 'vitest';
import { waitFor } from '../support/wait.ts';
import { HttpFixture } from './http-fixture.ts';

/** A server of somebody else on a port that we then want. */
async function occupyPort(): Promise<{ server: Server; address: string }> {
  const server = createServer();
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  onTestFinished(() => {
    server.close();
  });
  return { server, address: `127.0.0.1:${(server.address() as AddressInfo).port}` };
}

let fixture: HttpFixture;

beforeEach(() => {
  fixture = new HttpFixture();
});

afterEach(() => {
  vi.useRealTimers();
});

test('an empty address disables that server and leaves the other', async () => {
  const servers = await fixture.startServers({ healthzBindAddress: '' });

  expect(servers.healthAddress).toBeUndefined();
  expect((await fixture.ask(servers.metricsAddress, '/healthz')).body).toBe('ok');
});

test('an IPv6 address is bound and told in brackets', async () => {
  const { healthAddress } = await fixture.startServers({ healthzBindAddress: '[::1]:0' });

  expect(healthAddress).toMatch(/^\[::1\]:\d+$/);
  expect((await fixture.ask(healthAddress, '/livez')).status).toBe(200);
});

test.each([
  'localhost:10249',
  '127.0.0.1',
  '::1:10249',
  '[127.0.0.1]:10249',
  '127.0.0.1:65536',
  ':10249',
  '1.2.3.4:x',
])('the address %s is refused with the name of its flag', (metricsBindAddress) => {
  expect(() => fixture.makeServers({ metricsBindAddress })).toThrow(
    expect.objectContaining({
      code: 'ERR_FLAG_VALUE',
      message: expect.stringContaining(`--metrics-bind-address: "${metricsBindAddress}"`) as string,
    }) as Error,
  );
});

test('a port in use is one coded log line, and is taken within 5 s of becoming free', async () => {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
  const { server, address } = await occupyPort();
  const servers = await fixture.startServers({ metricsBindAddress: address });

  expect(servers.metricsAddress).toBeUndefined();
  expect(fixture.sink.withMessage('Cannot bind HTTP server, will try again')).toMatchObject([
    {
      level: 'error',
      flag: '--metrics-bind-address',
      address,
      error: {
        code: 'ERR_HTTP_BIND',
        message: expect.stringContaining(`${address} (--metrics-bind-address)`) as unknown,
        cause: { code: 'EADDRINUSE' },
      },
    },
  ]);
  expect((await fixture.ask(servers.healthAddress, '/healthz')).status).toBe(200);

  vi.advanceTimersByTime(5000);
  await waitFor(() => fixture.sink.withMessage('Still cannot bind HTTP server')[0], {
    timeoutMs: 5000,
    what: 'the second attempt to fail',
  });
  server.close();
  await once(server, 'close');
  vi.advanceTimersByTime(4999);
  expect(servers.metricsAddress).toBeUndefined();
  vi.advanceTimersByTime(1);
  await waitFor(() => servers.metricsAddress, { timeoutMs: 5000, what: 'the third attempt to succeed' });

  expect(servers.metricsAddress).toBe(address);
  expect((await fixture.ask(address, '/proxyMode')).body).toBe('userspace');
  expect(fixture.sink.lines.filter((line) => line['level'] === 'error')).toHaveLength(1);
});

test('with bindAddressHardFail a port in use rejects the start, and the other server is closed again', async () => {
  const { address } = await occupyPort();
  const servers = fixture.makeServers({ metricsBindAddress: address, bindAddressHardFail: true });

  await expect(servers.start()).rejects.toMatchObject({
    code: 'ERR_HTTP_BIND',
    message: expect.stringContaining(address) as unknown,
    cause: { code: 'EADDRINUSE' },
  });

  expect(servers.healthAddress).toBeUndefined();
});

test('with bindAddressHardFail free ports start as ever', async () => {
  const servers = await fixture.startServers({ bindAddressHardFail: true });

  expect((await fixture.ask(servers.healthAddress, '/healthz')).status).toBe(200);
});

test('close ends the retries', async () => {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
  const { address } = await occupyPort();
  const servers = await fixture.startServers({ metricsBindAddress: address, healthzBindAddress: '' });
  expect(vi.getTimerCount()).toBe(1);

  await servers.close();

  expect(vi.getTimerCount()).toBe(0);
});

test('close is not held up by keep-alive connections or half-sent requests, and frees the port', async () => {
  const servers = await fixture.startServers();
  const { metricsAddress = '' } = servers;
  await fixture.ask(metricsAddress, '/healthz');
  const client = connect(Number(metricsAddress.split(':')[1]), '127.0.0.1');
  client.on('error', () => {});
  await once(client, 'connect');
  client.write('GET /metrics HTTP/1.1\r\n');
  const clientClosed = new Promise((resolve) => client.once('close', resolve));

  await Promise.all([servers.close(), servers.close()]);
  await servers.close();
  await clientClosed;

  await expect(fixture.ask(metricsAddress, '/healthz')).rejects.toThrow(/ECONNREFUSED/);
});

test('close during the start leaves nothing bound, and a start after close does nothing', async () => {
  const servers = fixture.makeServers();
  const started = servers.start();
  await servers.close();
  await started;
  expect(servers.metricsAddress).toBeUndefined();

  await servers.start();

  expect(servers.metricsAddress).toBeUndefined();
});

test('whoever holds connections keeps nobody out: the oldest is displaced', async () => {
  const servers = await fixture.startServers({ maxConnections: 2 });
  const address = servers.healthAddress ?? '';
  const port = Number(address.split(':')[1]);
  const held = [connect(port, '127.0.0.1'), connect(port, '127.0.0.1')];
  const [oldest] = held;
  await Promise.all(held.map(async (socket) => once(socket, 'connect')));
  onTestFinished(() => held.forEach((socket) => socket.destroy()));

  const displaced = once(oldest as Socket, 'close');
  expect((await fixture.ask(address, '/livez')).status).toBe(200);
  await displaced;
});
