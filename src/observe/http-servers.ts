/**
 * The two HTTP servers with kube-proxy's ports and pages: health (10256), which load balancers and the kubelet ask,
 * and metrics (10249), which Prometheus and operators ask. `http-routes.ts` has what they say, `http-listener.ts`
 * how they bind and end.
 */
import type { Logger } from '../log.ts';
import { HttpListener } from './http-listener.ts';
import { type HealthSource, type MetricsSource, healthRoutes, metricsRoutes } from './http-routes.ts';

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
}

export class HttpServers {
  readonly #health: HttpListener | undefined;
  readonly #metrics: HttpListener | undefined;

  /** @throws ProxyError `ERR_FLAG_VALUE` when an address is neither empty nor `IP:port`. */
  constructor(deps: HttpServersDeps, options: HttpServersOptions) {
    const { log } = deps;
    const isHardFail = options.bindAddressHardFail;
    if (options.healthzBindAddress !== '') {
      this.#health = new HttpListener(
        { log, routes: healthRoutes(deps) },
        { address: options.healthzBindAddress, flag: '--healthz-bind-address', isHardFail },
      );
    }
    if (options.metricsBindAddress !== '') {
      this.#metrics = new HttpListener(
        { log, routes: metricsRoutes(deps) },
        { address: options.metricsBindAddress, flag: '--metrics-bind-address', isHardFail },
      );
    }
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

  /** Ends both servers and every connection to them. Idempotent; never rejects. */
  async close(): Promise<void> {
    await Promise.all([this.#health?.close(), this.#metrics?.close()]);
  }
}
