/** What a sync tells whoever counts (metrics) or judges (health). Declared here, implemented in `observe/` and `health/`. */
import type { RewriteReason, TableRulesAhead } from '../iptables/installer.ts';
import type { IpFamily } from '../model/address.ts';

/** `full` rewrites every chain; `partial` writes only the chains that changed; `endpoints` wrote nothing at all. */
export type SyncKind = 'full' | 'partial' | 'endpoints';

/** Rules of other programs before one of our jumps. */
export type RulesAheadOfOurs = TableRulesAhead;

/** Why every rule was written: `start`, `failure` (of the sync before), and what somebody else had done to our rules. */
export type ResyncReason = RewriteReason;

export interface RuleCounts {
  readonly nat: number;
  readonly filter: number;
}

export interface FamilySync {
  readonly family: IpFamily;
  readonly kind: SyncKind;
  readonly durationSeconds: number;
  /** Rules of ours that are in the kernel now. */
  readonly rulesTotal: RuleCounts;
  /** Rules that this sync wrote. */
  readonly rulesWritten: RuleCounts;
  /** Service ports whose policy is Local and that have endpoints, but none on this node. */
  readonly noLocalEndpoints: { readonly internal: number; readonly external: number };
}

export interface SyncObserver {
  /** A change waits for a sync. Called for every change; the oldest unserved one counts. */
  updateQueued(): void;
  /** A pass begins: it serves everything that was queued before. */
  syncStarted(): void;
  familySynced(sync: FamilySync): void;
  restoreFailed(family: IpFamily, kind: SyncKind): void;
  /** A full rewrite was due for another reason than a change of ours. */
  resynced(reason: ResyncReason): void;
  /** The rules of others that stand before each of our jumps, none included. */
  rulesAhead(family: IpFamily, rules: readonly RulesAheadOfOurs[]): void;
  /** Seconds from a change in the cluster to the moment when traffic follows it (an EndpointSlice's trigger time). */
  networkProgrammed(family: IpFamily, durationSeconds: number): void;
  /** A whole pass has ended well: everything that was queued before it began is served. */
  syncSucceeded(): void;
}
