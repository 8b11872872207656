/** One attempt to get the socket of the owner, in dialogue with whoever has it. Decides what a silence means. */
import type { Clock } from '../clock.ts';
import type { OwnershipNetwork } from './ownership-network.ts';
import type { OwnershipPeer } from './ownership-peer.ts';
import type { OpenPort } from './ownership-protocol.ts';

/** Between two tries while the socket is on its way from one instance to another. */
const RETRY_MS = 100;
/** Between two tries where none can be made, for want of descriptors say. */
const FAULT_RETRY_MS = 1000;

export interface Claim {
  /** `takeover` asks the owner to yield; `standby` only takes what nobody has. */
  readonly intent: 'takeover' | 'standby';
  /** Nothing is taken before. */
  readonly patienceMs: number;
  readonly answerTimeoutMs: number;
  /** Told to whoever we stand by for. */
  readonly openPorts: () => readonly OpenPort[];
  /** It is void: somebody has decided otherwise meanwhile. */
  readonly isVoid: () => boolean;
}

export type Claimed =
  | { readonly kind: 'bound' | 'void' }
  /** There is an owner, and it waits for its end. */
  | { readonly kind: 'waiting'; readonly peer: OwnershipPeer }
  /** Somebody has the socket and does not yield it. */
  | { readonly kind: 'unheard'; readonly peer: OwnershipPeer | undefined }
  /** Nobody can be found: no such socket can be made here. Only of a takeover: who stands by tries again. */
  | { readonly kind: 'alone'; readonly error: unknown };

/** Never rejects. */
export async function claimSocket(
  { clock, network }: { readonly clock: Clock; readonly network: OwnershipNetwork },
  { intent, patienceMs, answerTimeoutMs, openPorts, isVoid }: Claim,
): Promise<Claimed> {
  const startedAt = clock.now();
  let yielded: OwnershipPeer | undefined;
  let yields = 0;
  while (!isVoid()) {
    const elapsedMs = clock.now() - startedAt;
    let retryMs = RETRY_MS;
    try {
      const isBound = elapsedMs >= patienceMs && (await network.bind());
      if (isBound && !isVoid()) return { kind: 'bound' };
    } catch (error) {
      if (intent === 'takeover') return { kind: 'alone', error };
      // Whoever gave up here would leave the node without an owner for ever.
      retryMs = FAULT_RETRY_MS;
    }
    if (isVoid()) break;
    // Who said that he yields has kept the name.
    yielded?.close();
    const asked = await network.ask(
      intent === 'takeover' ? { type: intent } : { type: intent, ports: openPorts() },
      answerTimeoutMs,
    );
    if (isVoid()) break;
    if (intent === 'standby' && (asked.kind === 'accepted' || asked.kind === 'silent')) {
      return { kind: 'waiting', peer: asked.peer };
    }
    if (intent === 'takeover' && asked.kind === 'silent') return { kind: 'unheard', peer: asked.peer };
    // Somebody who takes connections and ends them, or takes none.
    const isHopeless = intent === 'takeover' && elapsedMs > answerTimeoutMs;
    if (isHopeless) return { kind: 'unheard', peer: undefined };
    yielded = asked.kind === 'gone' ? undefined : asked.peer;
    if (asked.kind === 'yielded') yields += 1;
    if (asked.kind !== 'yielded' || yields > 1) await network.pause(retryMs);
  }
  return { kind: 'void' };
}
