/** Builder for the tests of the HTTP servers: real NodeHealth, Metrics and logger behind real loopback sockets. */
import { Agent, request } from 'undici';
import { onTestFinished } from 'vitest';
import { NodeHealth } from '../../src/health/node-health.ts';
import { HttpServers, type HttpServersOptions } from '../../src/observe/http-servers.ts';
import { createLogger } from '../../src/observe/log.ts';
import { LogSink } from '../support/log-sink.ts';
import { MetricsFixture } from './metrics-fixture.ts';

export const TIMEOUT_MS = 60_000;
const START = Date.UTC(2026, 10, 21, 6, 30);
export const START_TEXT = '2026-11-21T06:30:00.000Z';

interface Reply {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly body: string;
}

export class HttpFixture {
  readonly sink = new LogSink();
  readonly metrics = new MetricsFixture();
  /** Milliseconds since the start, on both clocks. */
  elapsed = 0;
  readonly health = new NodeHealth(
    { clock: { now: () => this.elapsed, wallTime: () => START + this.elapsed } },
    { timeoutMs: TIMEOUT_MS, hasNodeObject: false },
  );
  configz: object = { mode: 'userspace' };
  readonly #dispatcher = new Agent();

  /** Not started; closed when the test ends. */
  makeServers(tweak: Partial<HttpServersOptions> = {}): HttpServers {
    const servers = new HttpServers(
      {
        log: createLogger({ verbosity: 4, destination: this.sink }),
        health: this.health,
        metrics: this.metrics.metrics,
        configz: this.configz,
      },
      {
        healthzBindAddress: '127.0.0.1:0',
        metricsBindAddress: '127.0.0.1:0',
        bindAddressHardFail: false,
        maxConnections: 64,
        ...tweak,
      },
    );
    onTestFinished(async () => servers.close());
    onTestFinished(async () => this.#dispatcher.destroy());
    return servers;
  }

  async startServers(tweak: Partial<HttpServersOptions> = {}): Promise<HttpServers> {
    const servers = this.makeServers(tweak);
    await servers.start();
    return servers;
  }

  async ask(
    address: string | undefined,
    path: string,
    method: 'GET' | 'HEAD' | 'POST' = 'GET',
  ): Promise<Reply> {
    if (address === undefined) throw new Error('the server is not bound');
    const reply = await request(`http://${address}${path}`, { method, dispatcher: this.#dispatcher });
    return { status: reply.statusCode, headers: reply.headers, body: await reply.body.text() };
  }
}
