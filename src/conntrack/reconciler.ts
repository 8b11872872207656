/**
 * Makes conntrack forget the flows that go on the old way: UDP, and TCP connections to which nobody has answered yet.
 * One dump of the table for each family and protocol, however many portals have moved, and deletions of what is
 * stale. Beside the syncs, one at a time; what is asked for meanwhile is done together afterwards.
 */
import type { Clock } from '../clock.ts';
import type { ExecEachLine } from '../host/exec.ts';
import type { Logger } from '../log.ts';
import { IP_FAMILIES, type IpFamily } from '../model/address.ts';
import { ConntrackProgram, type FlowClass, isProgramMissing } from './conntrack-program.ts';
import { type MovedPortal, mergeMoved } from './moved-portal.ts';
import { StaleFlows } from './stale-flows.ts';

/** Whoever counts. */
export interface ReconcilerObserver {
  /** The flows of one family were looked through, and so many of them deleted. */
  flowsReconciled(
    family: IpFamily,
    result: { readonly durationSeconds: number; readonly deleted: number },
  ): void;
}

export interface ReconcilerDeps {
  readonly clock: Pick<Clock, 'now'>;
  readonly exec: ExecEachLine;
  readonly logger: Logger;
  readonly observer: ReconcilerObserver;
}

const PROTOCOLS = ['UDP', 'TCP'] as const;
/** Each deletion goes through the whole table. After so many it is looked at again: much has ended by itself. */
const DELETIONS_PER_ROUND = 64;
/** A portal whose flows are stale again after so many rounds is let be: something makes them so. */
const MAX_ROUNDS = 64;

export class ConntrackReconciler {
  readonly #deps: ReconcilerDeps;
  readonly #program: ConntrackProgram;
  /** Portals that nobody has looked at the flows of since they moved, by place. */
  readonly #waiting = new Map<string, MovedPortal>();
  /** Portals that had more stale flows than a round deletes: served after those that wait. */
  readonly #left = new Map<string, { readonly portal: MovedPortal; readonly rounds: number }>();
  readonly #over = new AbortController();
  #work: Promise<void> | undefined;
  #isUnavailable = false;

  constructor(deps: ReconcilerDeps) {
    this.#deps = deps;
    this.#program = new ConntrackProgram(deps.exec);
  }

  /** Returns at once. What fails is logged, and done with what is asked for next, or by `retry`. */
  forget(portals: readonly MovedPortal[]): void {
    if (this.#isUnavailable || this.#over.signal.aborted) return;
    for (const portal of portals) this.#wait(portal);
    this.retry();
  }

  /** To be called from time to time: takes up what failed. Returns at once. */
  retry(): void {
    if (this.#waiting.size + this.#left.size === 0 || this.#work !== undefined) return;
    this.#work = this.#workOff().finally(() => (this.#work = undefined));
  }

  /** Resolves when everything asked so far has been done, or has failed. */
  async settled(): Promise<void> {
    await this.#work;
  }

  /** Ends what is under way. Idempotent. */
  async close(): Promise<void> {
    this.#over.abort();
    this.#waiting.clear();
    this.#left.clear();
    await this.#work;
  }

  #wait(portal: MovedPortal): void {
    const key = keyOf(portal);
    const before = this.#waiting.get(key) ?? this.#left.get(key)?.portal;
    this.#left.delete(key);
    this.#waiting.set(key, before === undefined ? portal : mergeMoved(before, portal));
  }

  async #workOff(): Promise<void> {
    while (this.#waiting.size + this.#left.size > 0) {
      const portals = [...this.#waiting.values(), ...this.#left.values().map(({ portal }) => portal)];
      this.#waiting.clear();
      let isDone = true;
      for (const family of IP_FAMILIES) {
        const ofFamily = portals.filter((portal) => portal.family === family);
        if (ofFamily.length > 0) isDone = (await this.#reconcile(family, ofFamily)) && isDone;
      }
      if (!isDone) return;
    }
  }

  /** False: it failed, and trying again at once makes no sense. */
  async #reconcile(family: IpFamily, portals: readonly MovedPortal[]): Promise<boolean> {
    const { clock, observer } = this.#deps;
    const startedAt = clock.now();
    let isDone = true;
    let deleted = 0;
    for (const protocol of PROTOCOLS) {
      const some = portals.filter((portal) => portal.protocol === protocol);
      if (some.length === 0 || this.#isUnavailable || this.#over.signal.aborted) continue;
      try {
        deleted += await this.#deleteStale({ family, protocol }, some);
      } catch (error) {
        this.#failed(error, some);
        isDone = false;
      }
    }
    observer.flowsReconciled(family, { durationSeconds: (clock.now() - startedAt) / 1000, deleted });
    return isDone;
  }

  async #deleteStale(flows: FlowClass, portals: readonly MovedPortal[]): Promise<number> {
    const { signal } = this.#over;
    const stale = new StaleFlows(portals);
    await this.#program.list(flows, (flow) => stale.add(flow), signal);
    const { chosen, left } = stale.selections(DELETIONS_PER_ROUND);
    this.#leave(portals, left);
    return this.#program.delete(flows, chosen, signal);
  }

  #leave(served: readonly MovedPortal[], left: ReadonlySet<MovedPortal>): void {
    for (const portal of served) {
      const key = keyOf(portal);
      const rounds = (this.#left.get(key)?.rounds ?? 0) + 1;
      this.#left.delete(key);
      // What has been asked for since has its turn anyway.
      if (left.has(portal) && rounds < MAX_ROUNDS && !this.#waiting.has(key))
        this.#left.set(key, { portal, rounds });
    }
  }

  #failed(error: unknown, portals: readonly MovedPortal[]): void {
    if (this.#over.signal.aborted) return;
    this.#deps.logger.warn(
      { error },
      'Clients that keep one source port, and connections not yet answered, may stay with an old proxy port',
    );
    this.#isUnavailable ||= isProgramMissing(error);
    if (this.#isUnavailable) {
      this.#waiting.clear();
      this.#left.clear();
      return;
    }
    // What has come since is newer.
    const since = [...this.#waiting.values()];
    this.#waiting.clear();
    for (const portal of [...portals, ...since]) this.#wait(portal);
  }
}

function keyOf({ family, protocol, address, port }: MovedPortal): string {
  return `${family} ${protocol} ${address ?? ''} ${port}`;
}
