/** What `ownership.ts` needs of the rest of the program, and how long it waits for what. */
import type { Clock } from '../clock.ts';
import type { Logger } from '../log.ts';
import type { GenerationDeps } from './ownership-generation.ts';
import type { OpenPort } from './ownership-protocol.ts';
import { OWNERSHIP_SOCKET } from './ownership-socket.ts';

export interface OwnershipDeps extends GenerationDeps {
  readonly clock: Clock;
  readonly logger: Logger;
  /** No longer the owner: resolves when the write that was under way has ended. */
  readonly quiesce: () => Promise<void>;
  /** What this instance has open. */
  readonly openPorts: () => readonly OpenPort[];
  /** What the state directory says that the last instance had open: for one that does not answer. */
  readonly rememberedPorts: () => readonly OpenPort[];
  /** Somebody else is the owner for certain: gives up what only one instance can have. Resolves when it is free. */
  readonly retire: () => Promise<void>;
  /** We are the owner again, after we stood by: everything is to be written anew. */
  readonly onRegained: () => void;
  /** The predecessor has retired. */
  readonly onPredecessorRetired: () => void;
  /** `peerPorts` may be different; `ended`: those that are closed for good, because their instance has ended. */
  readonly onPeerPorts: (ended: readonly OpenPort[]) => void;
}

export interface OwnershipOptions {
  readonly socketName: string;
  /** For an owner to finish its write and answer. */
  readonly answerTimeoutMs: number;
  /** For a newcomer to write rules; then they are taken back. */
  readonly proofTimeoutMs: number;
  /** After rules had to be taken back, nobody is yielded to for so long. */
  readonly refusalMs: number;
  /** After one that was yielded to has ended without having written, nobody is yielded to for so long. */
  readonly hangUpRefusalMs: number;
  /** For what waits on the socket of an instance that was stopped meanwhile. */
  readonly queueMs: number;
  /** How long an owner that lost by a newer generation leaves the socket to others. */
  readonly patienceMs: number;
  /** Between two tries to bind the socket that a silent instance still has. */
  readonly rebindMs: number;
}

export const OWNERSHIP_DEFAULTS: OwnershipOptions = {
  socketName: OWNERSHIP_SOCKET,
  answerTimeoutMs: 5000,
  proofTimeoutMs: 60_000,
  refusalMs: 600_000,
  hangUpRefusalMs: 10_000,
  queueMs: 1000,
  patienceMs: 5000,
  rebindMs: 1000,
};
