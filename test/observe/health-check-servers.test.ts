/** How health check node ports open and close, and what happens when they cannot. */
import { once } from 'node:events';
import { beforeEach, describe, expect, test } from 'vitest';
import { connectTcp } from '../support/loopback-tcp.ts';
import { waitFor } from '../support/wait.ts';
import {
  HealthCheckFixture,
  freeWildcardPort,
  loopbackAddress,
  occupyPort,
  severed,
} from './health-check-fixture.ts';

const FAILED = 'Cannot open health check port, will try again';
const REFUSED = 'Health check port is that of another Service';

let fixture: HealthCheckFixture;

beforeEach(() => {
  fixture = new HealthCheckFixture();
});

describe('ports', () => {
  test('open when the rules are in and not before', async () => {
    const check = await fixture.makeCheck();

    fixture.servers.update([check]);
    await expect(fixture.ask(check)).rejects.toThrow(/ECONNREFUSED/);
    await fixture.program(check);

    expect((await fixture.ask(check)).status).toBe(200);
    expect(fixture.servers.counts).toEqual({ listening: 1, failed: 0 });
  });

  test('stay when their Service leaves Local, and close at once when the rules are in', async () => {
    const check = await fixture.makeCheck();
    await fixture.program(check);

    fixture.servers.update([]);
    const before = await fixture.ask(check);
    fixture.servers.programmed([]);

    expect(before.status).toBe(200);
    await expect(connectTcp({ address: fixture.address, port: check.port })).rejects.toThrow(/ECONNREFUSED/);
    expect(fixture.servers.counts).toEqual({ listening: 0, failed: 0 });
  });

  test('that close end the connections that were kept, and answer nothing more on them', async () => {
    const check = await fixture.makeCheck();
    await fixture.program(check);
    const kept = await connectTcp({ address: fixture.address, port: check.port });
    kept.send('GET / HTTP/1.1\r\nHost: x\r\n\r\n');
    const half = await connectTcp({ address: fixture.address, port: check.port });
    half.send('GET / HTTP/1.1\r\n');
    await waitFor(() => kept.received.toString().endsWith('}'), { timeoutMs: 5000, what: 'an answer' });
    const { receivedBytes } = kept;

    kept.send('GET / HTTP/1.1\r\nHost: x\r\n\r\n');
    await fixture.program();
    await Promise.all([severed(kept), severed(half)]);

    expect(kept.receivedBytes).toBe(receivedBytes);
    expect(half.receivedBytes).toBe(0);
  });

  test('follow spec.healthCheckNodePort', async () => {
    const check = await fixture.makeCheck();
    const moved = await fixture.makeCheck();
    await fixture.program(check);

    await fixture.program(moved);

    expect((await fixture.ask(moved)).status).toBe(200);
    await expect(fixture.ask(check)).rejects.toThrow(/ECONNREFUSED/);
  });

  test('follow the addresses, and those that stay are not closed in between', async () => {
    const [gone, kept, added] = [loopbackAddress(), fixture.address, loopbackAddress()];
    const check = await fixture.makeCheck({ addresses: [gone, kept] });
    await fixture.program(check);
    const peer = await connectTcp({ address: kept, port: check.port });

    await fixture.program({ ...check, addresses: [kept, added] });
    peer.send('GET / HTTP/1.1\r\nHost: x\r\n\r\n');
    await peer.bytes(1);

    expect((await fixture.ask({ ...check, addresses: [added] })).status).toBe(200);
    await expect(fixture.ask({ ...check, addresses: [gone] })).rejects.toThrow(/ECONNREFUSED/);
  });

  test('that pass to another Service answer for it from the same moment', async () => {
    const check = await fixture.makeCheck();
    await fixture.program(check);

    const heir = { ...check, name: 'heir', localEndpoints: 7 };
    fixture.servers.update([heir]);
    fixture.servers.programmed([heir]);

    const { body } = await fixture.ask(check);
    expect(JSON.parse(body)).toMatchObject({ service: { name: 'heir' }, localEndpoints: 7 });
  });

  test.each([
    { name: 'open', isOpen: true, opened: 2 },
    { name: 'about to open', isOpen: false, opened: 1 },
  ])('that are $name, and go and come within one moment, are open in the end', async ({ isOpen, opened }) => {
    const check = await fixture.makeCheck();
    if (isOpen) await fixture.program(check);
    else fixture.servers.programmed([check]);

    fixture.servers.programmed([]);
    fixture.servers.programmed([check]);
    fixture.servers.programmed([]);
    await fixture.program(check);

    expect((await fixture.ask(check)).status).toBe(200);
    expect(fixture.servers.counts).toEqual({ listening: 1, failed: 0 });
    expect(fixture.sink.withMessage(FAILED)).toEqual([]);
    expect(fixture.sink.withMessage('Health check port open')).toHaveLength(opened);
  });

  test('of IPv4 and of IPv6 do not meet on the wildcard addresses', async () => {
    const port = await freeWildcardPort();
    const v4 = await fixture.makeCheck({ port, addresses: ['0.0.0.0'], localEndpoints: 4 });
    const v6 = await fixture.makeCheck({ port, addresses: ['::'], family: 'IPv6', localEndpoints: 6 });

    await fixture.program(v6, v4);

    const weightAt = async (address: string): Promise<unknown> => {
      const { headers } = await fixture.ask({ ...v4, addresses: [address] });
      return headers['x-load-balancing-endpoint-weight'];
    };
    expect(await weightAt('127.0.0.1')).toBe('4');
    expect(await weightAt('::1')).toBe('6');
  });
});

describe('a port in use', () => {
  test('is one coded log line with the Service, the port and the errno, and is counted', async () => {
    const { port } = await occupyPort(fixture.address);
    const check = await fixture.makeCheck({ port });

    await fixture.program(check);
    await fixture.program(check);

    expect(fixture.servers.counts).toEqual({ listening: 0, failed: 1 });
    expect(fixture.sink.withMessage(FAILED)).toMatchObject([
      {
        level: 'error',
        service: 'default/web',
        port,
        healthCheck: `${fixture.address}:${port}`,
        errno: 'EADDRINUSE',
        error: {
          code: 'ERR_HTTP_BIND',
          message: expect.stringContaining(`Service default/web on ${fixture.address}:${port}`) as unknown,
          cause: { code: 'EADDRINUSE' },
        },
      },
    ]);
  });

  test('is tried again with every sync, and told again when it fails after it had been well', async () => {
    const first = await occupyPort(fixture.address);
    const check = await fixture.makeCheck({ port: first.port });
    await fixture.program(check);
    first.server.close();
    await once(first.server, 'close');

    await fixture.program(check);
    expect((await fixture.ask(check)).status).toBe(200);
    expect(fixture.sink.withMessage('Health check port open')).toMatchObject([{ level: 'info' }]);

    await fixture.program();
    first.server.listen({ host: fixture.address, port: first.port });
    await once(first.server, 'listening');
    await fixture.program(check);
    expect(fixture.sink.withMessage(FAILED)).toHaveLength(2);
  });

  test('harms neither the other addresses of its Service nor other Services', async () => {
    const other = loopbackAddress();
    const { port } = await occupyPort(fixture.address);
    const check = await fixture.makeCheck({ port, addresses: [fixture.address, other] });
    const api = await fixture.makeCheck({ name: 'api' });

    await fixture.program(check, api);

    expect(fixture.servers.counts).toEqual({ listening: 2, failed: 1 });
    expect((await fixture.ask({ ...check, addresses: [other] })).status).toBe(200);
    expect((await fixture.ask(api)).status).toBe(200);
  });

  test('is told for the next Service too that wants it, and forgotten when nobody does', async () => {
    const { port } = await occupyPort(fixture.address);
    const check = await fixture.makeCheck({ port });
    await fixture.program(check);

    await fixture.program({ ...check, name: 'heir' });
    await fixture.program();

    expect(fixture.sink.withMessage(FAILED).map((line) => line['service'])).toEqual([
      'default/web',
      'default/heir',
    ]);
    expect(fixture.servers.counts).toEqual({ listening: 0, failed: 0 });
  });

  test('on an address that is not of this node is told with its errno', async () => {
    await fixture.program(await fixture.makeCheck({ addresses: ['192.0.2.1'] }));

    expect(fixture.sink.withMessage(FAILED)).toMatchObject([{ errno: 'EADDRNOTAVAIL' }]);
  });
});

describe('two Services with one port', () => {
  test('leave it to the first by name; the other is told once and counted as failed', async () => {
    const web = await fixture.makeCheck();
    const api = { ...web, name: 'api', localEndpoints: 5 };

    await fixture.program(web, api);
    await fixture.program(web, api);

    expect(JSON.parse((await fixture.ask(web)).body)).toMatchObject({ service: { name: 'api' } });
    expect(fixture.servers.counts).toEqual({ listening: 1, failed: 1 });
    expect(fixture.sink.withMessage(REFUSED)).toMatchObject([
      {
        level: 'error',
        service: 'default/web',
        port: web.port,
        holder: 'default/api',
        error: { code: 'ERR_HTTP_BIND' },
      },
    ]);
    await fixture.servers.close();
    expect(fixture.servers.counts).toEqual({ listening: 0, failed: 0 });
  });

  test('are one again when the first has gone, and the falls of each are its own', async () => {
    const web = await fixture.makeCheck();
    const api = { ...web, name: 'api', localEndpoints: 5 };
    await fixture.program(web, api);

    fixture.servers.update([{ ...web, localEndpoints: 0 }, api]);
    expect((await fixture.ask(web)).status).toBe(200);
    await fixture.program(web);

    expect(JSON.parse((await fixture.ask(web)).body)).toMatchObject({ service: { name: 'web' } });
    expect(fixture.servers.counts).toEqual({ listening: 1, failed: 0 });
  });
});

describe('close', () => {
  test('frees the ports whatever clients do, more than once, and for good', async () => {
    const check = await fixture.makeCheck();
    await fixture.program(check);
    await fixture.ask(check);
    const half = await connectTcp({ address: fixture.address, port: check.port });
    half.send('GET / HTTP/1.1\r\n');

    await Promise.all([fixture.servers.close(), fixture.servers.close()]);
    fixture.servers.update([check]);
    fixture.servers.programmed([check]);
    await fixture.servers.close();

    await severed(half);
    await expect(fixture.ask(check)).rejects.toThrow(/ECONNREFUSED/);
    expect(fixture.servers.counts).toEqual({ listening: 0, failed: 0 });
  });

  test('leaves nothing bound that was about to open', async () => {
    const check = await fixture.makeCheck();
    fixture.servers.programmed([check]);

    await fixture.servers.close();

    await expect(fixture.ask(check)).rejects.toThrow(/ECONNREFUSED/);
  });

  test('waits for ports that were given up just before', async () => {
    const check = await fixture.makeCheck();
    await fixture.program(check);
    const peer = await connectTcp({ address: fixture.address, port: check.port });
    fixture.servers.programmed([]);

    await fixture.servers.close();

    await severed(peer);
    await expect(fixture.ask(check)).rejects.toThrow(/ECONNREFUSED/);
  });
});
