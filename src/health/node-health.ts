/**
 * Node health as kube-proxy judges it (`pkg/proxy/healthcheck/proxy_health.go`): unhealthy when the oldest
 * change that waits for a sync has waited longer than the time-out. A proxy with nothing queued is healthy,
 * also while it starts; a proxy that is being stopped is not.
 */
import type { Clock, MonotonicMs } from '../clock.ts';
import { IP_FAMILIES, type IpFamily, type PerFamily } from '../model/address.ts';

export interface FamilyHealth {
  readonly healthy: boolean;
  /** Milliseconds since the epoch; of the last completed sync while unhealthy, of now while healthy. 0: never. */
  readonly lastUpdated: number;
}

export interface NodeHealthReport {
  /** What `/healthz` answers: every family is synced and the node is to take traffic. */
  readonly healthy: boolean;
  /** What `/livez` answers: as `healthy`, without regard to `nodeEligible`. */
  readonly alive: boolean;
  /** False while the node is to take no new traffic: its Node object is gone or on the way, or the proxy stops. */
  readonly nodeEligible: boolean;
  readonly lastUpdated: number;
  readonly currentTime: number;
  readonly status: Readonly<Partial<Record<IpFamily, FamilyHealth>>>;
}

interface FamilyState {
  /** The oldest change that no pass has taken up yet. */
  oldestQueued: MonotonicMs | undefined;
  /** The oldest change of the passes since the last one that ended well. */
  oldestServed: MonotonicMs | undefined;
  lastSynced: number;
}

export interface NodeHealthOptions {
  /** Longest acceptable wait of a change; kube-proxy takes twice the sync period. */
  readonly timeoutMs: number;
  /** Somebody will call `setNodeEligible`; until then the node is not eligible, as in the newest kube-proxy. */
  readonly hasNodeObject: boolean;
}

export class NodeHealth {
  readonly #clock: Clock;
  readonly #timeoutMs: number;
  readonly #families: PerFamily<FamilyState> = {
    IPv4: { oldestQueued: undefined, oldestServed: undefined, lastSynced: 0 },
    IPv6: { oldestQueued: undefined, oldestServed: undefined, lastSynced: 0 },
  };
  #served: readonly IpFamily[] = IP_FAMILIES;
  #stopping = false;
  #isNodeEligible: boolean;
  #everSynced = false;

  constructor(deps: { readonly clock: Clock }, options: NodeHealthOptions) {
    this.#clock = deps.clock;
    this.#timeoutMs = options.timeoutMs;
    this.#isNodeEligible = !options.hasNodeObject;
  }

  /** The families this node programs; the others are left out of the verdict and of the report. */
  setFamilies(families: readonly IpFamily[]): void {
    this.#served = families;
  }

  updateQueued(): void {
    for (const family of this.#served) this.#families[family].oldestQueued ??= this.#clock.now();
  }

  /** A pass begins; what is queued from here on is for the next one. */
  syncStarted(): void {
    for (const family of this.#served) {
      const state = this.#families[family];
      state.oldestServed ??= state.oldestQueued;
      state.oldestQueued = undefined;
    }
  }

  syncSucceeded(): void {
    this.#everSynced = true;
    for (const family of this.#served) {
      this.#families[family].oldestServed = undefined;
      this.#families[family].lastSynced = this.#clock.wallTime();
    }
  }

  /** May load balancers send new connections to this node? Says nothing about the proxy: `/livez` does not mind. */
  setNodeEligible(isEligible: boolean): void {
    this.#isNodeEligible = isEligible;
  }

  /** From here on `/healthz` and `/readyz` say no for good, while we drain. */
  stop(): void {
    this.#stopping = true;
  }

  /** May traffic rely on this proxy? From the first completed sync to the stop, while healthy. */
  isReady(): boolean {
    return this.#everSynced && this.isProxyHealthy();
  }

  /**
   * What Services' health check node ports say of the proxy: no change waits too long, and it is not being stopped, so
   * that load balancers move on while it drains. As in kube-proxy, whether the node is eligible is not asked.
   */
  isProxyHealthy(): boolean {
    return !this.#stopping && this.#isSynced();
  }

  report(): NodeHealthReport {
    const currentTime = this.#clock.wallTime();
    const status: Partial<Record<IpFamily, FamilyHealth>> = {};
    for (const family of this.#served) {
      const healthy = this.#isFamilySynced(family);
      status[family] = { healthy, lastUpdated: healthy ? currentTime : this.#families[family].lastSynced };
    }
    const alive = this.#isSynced();
    const nodeEligible = this.#isNodeEligible && !this.#stopping;
    const lastUpdated = Math.min(currentTime, ...Object.values(status).map((family) => family.lastUpdated));
    return {
      healthy: alive && nodeEligible,
      alive,
      nodeEligible,
      lastUpdated,
      currentTime,
      status,
    };
  }

  #isSynced(): boolean {
    return this.#served.every((family) => this.#isFamilySynced(family));
  }

  #isFamilySynced(family: IpFamily): boolean {
    const { oldestServed, oldestQueued } = this.#families[family];
    const oldest = oldestServed ?? oldestQueued;
    return oldest === undefined || this.#clock.now() - oldest < this.#timeoutMs;
  }
}
