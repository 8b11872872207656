/**
 * The two HTTP servers with kube-proxy's ports and pages: health (10256), which load balancers and the kubelet ask,
 * and metrics (10249), which Prometheus and operators ask. `http-routes.ts` has what they say, `http-listener.ts`
 * how they bind and end.
 */
import type { Logger } from '../log.ts';
import { HttpListener } from './http-listener.ts';
import {
  type HealthSource,
  type MetricsSource,
  type Routes,
  healthRoutes,
  metricsRoutes,
} from './http-routes.ts';

export interface HttpServersDeps {
  readonly log: Logger;
  readonly health: HealthSource;
  readonly metrics: MetricsSource;
  /** The KubeProxyConfiguration that `/configz` shows. */
  readonly configz: object;
}

export interface HttpServersOptions {
  /** `address:port`, or '' for no health server. */
  readonly healthzBindAddress: string;
  /** `address:port`, or '' for no metrics server. */
  readonly metricsBindAddress: string;
  /** False: an address that cannot be bound is logged and retried. True: `start` rejects. */
  readonly bindAddressHardFail: boolean;
  /** Of each server at a time; those above displace the oldest. */
  readonly maxConnections: number;
}

export class HttpServers {
  readonly #build: (isHardFail: boolean) => readonly [HttpListener | undefined, HttpListener | undefined];
  #health: HttpListener | undefined;
  #metrics: HttpListener | undefined;
  #isClosed = false;
  /** What of the next three was asked for last: one after the other, or a server would be forgotten that still has the port. */
  #turn: Promise<void> = Promise.resolve();

  /** @throws ProxyError `ERR_FLAG_VALUE` when an address is neither empty nor `IP:port`. */
  constructor(deps: HttpServersDeps, options: HttpServersOptions) {
    const { log } = deps;
    const { maxConnections } = options;
    const build = (routes: Routes, address: string, flag: string, isHardFail: boolean) =>
      address === ''
        ? undefined
        : new HttpListener({ log, routes }, { address, flag, isHardFail, maxConnections });
    this.#build = (isHardFail) => [
      build(healthRoutes(deps), options.healthzBindAddress, '--healthz-bind-address', isHardFail),
      build(metricsRoutes(deps), options.metricsBindAddress, '--metrics-bind-address', isHardFail),
    ];
    [this.#health, this.#metrics] = this.#build(options.bindAddressHardFail);
  }

  /** `address:port` of the health server as bound; undefined while it is not, or when it is disabled. */
  get healthAddress(): string | undefined {
    return this.#health?.boundAddress;
  }

  /** `address:port` of the metrics server as bound; undefined while it is not, or when it is disabled. */
  get metricsAddress(): string | undefined {
    return this.#metrics?.boundAddress;
  }

  /**
   * Resolves after the first attempt to bind both; what failed is tried again every 5 s until `close`.
   * @throws ProxyError `ERR_HTTP_BIND` with `bindAddressHardFail`; both servers are closed by then.
   */
  async start(): Promise<void> {
    const results = await Promise.allSettled([this.#health?.start(), this.#metrics?.start()]);
    const failed = results.find((result) => result.status === 'rejected');
    if (failed === undefined) return;
    await this.close();
    throw failed.reason;
  }

  /** Leaves the addresses to another instance, until `reopen`. Never rejects. */
  async retire(): Promise<void> {
    return this.#inTurn(async () => this.#closeBoth());
  }

  /** Begins anew, without waiting for the next attempt to bind; a fault is retried. Nothing after `close`. */
  async reopen(): Promise<void> {
    return this.#inTurn(async () => {
      await this.#closeBoth();
      if (this.#isClosed) return;
      [this.#health, this.#metrics] = this.#build(false);
      await this.start();
    });
  }

  /** Ends both servers and every connection to them. Idempotent; never rejects. */
  async close(): Promise<void> {
    this.#isClosed = true;
    await this.retire();
  }

  async #inTurn(action: () => Promise<void>): Promise<void> {
    const done = this.#turn.then(action);
    this.#turn = done.catch(() => undefined);
    return done;
  }

  async #closeBoth(): Promise<void> {
    await Promise.all([this.#health?.close(), this.#metrics?.close()]);
  }
}
