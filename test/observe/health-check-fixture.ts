/** Builder for the tests of the health check node ports: real servers on loopback addresses of their own. */
import { randomInt } from 'node:crypto';
import { once } from 'node:events';
import { type AddressInfo, type Server, createServer } from 'node:net';
import { Agent, request } from 'undici';
import { onTestFinished } from 'vitest';
import type { HealthCheck } from '../../src/model/health-check.ts';
import { HealthCheckServers } from '../../src/observe/health-check-servers.ts';
import { createLogger } from '../../src/observe/log.ts';
import { makeHealthCheck } from '../health/make-health-check.ts';
import { LogSink } from '../support/log-sink.ts';
import type { TcpPeer } from '../support/loopback-tcp.ts';
import { waitFor } from '../support/wait.ts';

export type Method = 'GET' | 'HEAD' | 'POST' | 'PUT' | 'PATCH' | 'DELETE' | 'OPTIONS';

interface Reply {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly body: string;
}

/** One of 127/8 that nobody else picks: a port that the kernel has just given back there stays free. */
export function loopbackAddress(): string {
  return `127.${randomInt(1, 255)}.${randomInt(0, 255)}.${randomInt(1, 255)}`;
}

/** Listens for somebody else, until the test ends or closes it. */
export async function occupyPort(
  address: string,
): Promise<{ readonly server: Server; readonly port: number }> {
  const server = createServer();
  server.listen({ host: address, port: 0, ipv6Only: true });
  await once(server, 'listening');
  onTestFinished(() => {
    server.close();
  });
  return { server, port: (server.address() as AddressInfo).port };
}

export async function freePort(address: string): Promise<number> {
  const { server, port } = await occupyPort(address);
  server.close();
  await once(server, 'close');
  return port;
}

/**
 * On the wildcard addresses of both families. Below the ephemeral ports: among them any connection of another test can
 * have it, in one of the families.
 */
export async function freeWildcardPort(): Promise<number> {
  for (;;) {
    const port = randomInt(20_000, 30_000);
    const servers = ['0.0.0.0', '::'].map((host) => createServer().listen({ host, port, ipv6Only: true }));
    const isFree = await Promise.all(
      servers.map(async (server) =>
        once(server, 'listening').then(
          () => true,
          () => false,
        ),
      ),
    );
    await Promise.all(
      servers.filter((_, index) => isFree[index]).map(async (server) => once(server.close(), 'close')),
    );
    if (!isFree.includes(false)) return port;
  }
}

/** Resolves when the server has ended the connection, in order or (with a request unread) by a reset. */
export async function severed(peer: TcpPeer): Promise<void> {
  await waitFor(() => peer.hasEnded || peer.errno !== undefined, {
    timeoutMs: 5000,
    what: 'the server to end a connection',
  });
}

export class HealthCheckFixture {
  readonly sink = new LogSink();
  readonly address = loopbackAddress();
  isProxyHealthy = (): boolean => true;
  readonly servers = new HealthCheckServers({
    logger: createLogger({ verbosity: 4, destination: this.sink }),
    isProxyHealthy: () => this.isProxyHealthy(),
  });
  readonly #dispatcher = new Agent();

  /** Closed when the test ends. */
  constructor() {
    onTestFinished(async () => {
      await this.#dispatcher.destroy();
      await this.servers.close();
    });
  }

  /** On the fixture's own address and a port that is free there, unless tweaked. */
  async makeCheck(tweak: Partial<HealthCheck> = {}): Promise<HealthCheck> {
    return makeHealthCheck({ addresses: [this.address], port: await freePort(this.address), ...tweak });
  }

  /** A change and its sync. Resolves when every port is open or known to have failed. */
  async program(...checks: readonly HealthCheck[]): Promise<void> {
    this.servers.update(checks);
    this.servers.programmed(checks);
    const wanted = checks.reduce((sum, { addresses }) => sum + addresses.length, 0);
    await waitFor(() => this.servers.counts.listening + this.servers.counts.failed === wanted, {
      timeoutMs: 5000,
      what: `${wanted} servers to have tried to bind`,
    });
  }

  /** On a connection that is kept for the next request. */
  async ask(
    { addresses: [address = ''], port }: HealthCheck,
    { path = '/', method = 'GET' }: { readonly path?: string; readonly method?: Method } = {},
  ): Promise<Reply> {
    const host = address.includes(':') ? `[${address}]` : address;
    const reply = await request(`http://${host}:${port}${path}`, { method, dispatcher: this.#dispatcher });
    return { status: reply.statusCode, headers: reply.headers, body: await reply.body.text() };
  }
}
