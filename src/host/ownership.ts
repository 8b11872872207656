/**
 * Which of the instances on this node writes rules: exactly one, the owner (decision 5).
 *
 *     candidate ──► owner ◄──────────────┐
 *         (first sync)│                  │ the owner ended, and we were not told to stop
 *                     └──► stand-by ─────┘
 *      another instance asks, or the kernel holds a newer generation
 *
 * The owner holds a socket (`ownership-socket.ts`) whose name the kernel frees however the process ends. A newcomer
 * asks it to yield and takes over with a higher generation; the one that yielded goes on serving what it has and stands
 * by until one of the two ends. An owner that does not answer is passed over: the newer generation in the kernel keeps
 * it from writing when it wakes. Only who starts asks, so two instances never take the rules from each other in turn.
 *
 * Anything in the node's network namespace can reach the socket. So a newcomer that has not put a newer generation
 * into the kernel in time has not taken over, and the rules are taken back.
 */
import type { MonotonicMs } from '../clock.ts';
import { claimSocket } from './ownership-claim.ts';
import { OwnGeneration } from './ownership-generation.ts';
import { OwnershipNetwork } from './ownership-network.ts';
import type { OwnershipPeer } from './ownership-peer.ts';
import { type OpenPort, type OwnershipMessage, portsWithout, unionOfPorts } from './ownership-protocol.ts';
import { OWNERSHIP_DEFAULTS, type OwnershipDeps, type OwnershipOptions } from './ownership-deps.ts';

type Role = 'candidate' | 'owner' | 'standby' | 'closed';

export class Ownership {
  readonly #deps: OwnershipDeps;
  readonly #options: OwnershipOptions;
  readonly #network: OwnershipNetwork;
  readonly #own: OwnGeneration;
  #role: Role = 'candidate';
  /** Counts up with every decision about the role: what was begun before it is void. */
  #epoch = 0;
  #changes = 0;
  /** Who owns the rules while we stand by, if we are in touch. */
  #owner: OwnershipPeer | undefined;
  #isStopping = false;
  #refusesUntil: MonotonicMs = Number.NEGATIVE_INFINITY;

  constructor(deps: OwnershipDeps, options: Partial<OwnershipOptions> = {}) {
    this.#deps = deps;
    this.#options = { ...OWNERSHIP_DEFAULTS, ...options };
    this.#own = new OwnGeneration(deps);
    this.#network = new OwnershipNetwork(this.#options.socketName, {
      onMessage: (peer, message) => this.#heard(peer, message),
      onEnd: (peer, ended) => this.#ended(peer, ended),
    });
  }

  get isOwner(): boolean {
    return this.#role === 'owner';
  }

  /** What our rules carry; of the last time while we are not the owner. 0: never was. */
  get generation(): number {
    return this.#own.current;
  }

  /** How often this instance became the owner, or ceased to be. */
  get changes(): number {
    return this.#changes;
  }

  /** What other living instances have open: not to be taken, and to be guarded. */
  get peerPorts(): readonly OpenPort[] {
    return portsWithout(this.#network.ports, this.#deps.openPorts());
  }

  /**
   * Whether this instance may write; to be asked before every pass. The first call makes it the owner, which takes as long
   * as another one needs to yield. Rejects as `highestGeneration` does; to be called again then.
   */
  async ensure(): Promise<boolean> {
    if (this.#role === 'candidate') await this.#claim('takeover');
    return this.#role === 'owner';
  }

  /** A pass has ended well; `version` counts up with every change of `openPorts`. */
  synced(version: number): void {
    if (this.#role === 'owner') this.#network.announce(version, this.#deps.openPorts);
  }

  /** The kernel has refused our write: somebody has a newer generation. */
  lost(): void {
    if (this.#role !== 'owner') return;
    this.#deps.logger.warn(
      { generation: this.generation },
      'Another instance has taken the rules over, standing by: connections and proxy ports stay',
    );
    void this.#withdraw(this.#standBy(undefined));
  }

  /** We are about to end: never the owner again. If somebody stands by, the rules are theirs from now on. */
  stop(): void {
    if (this.#isStopping) return;
    this.#isStopping = true;
    this.#network.broadcast({ type: 'stopping' });
    const heir = this.#network.peers.find(({ isStandby, isStopping }) => isStandby && !isStopping);
    if (this.#role === 'owner' && heir !== undefined) void this.#yieldTo(heir);
  }

  /** Ends every connection, by which the others see that we are gone. Idempotent. */
  close(): void {
    this.#role = 'closed';
    this.#epoch += 1;
    this.#network.close();
  }

  /** Until we are the owner, or stand by for somebody. */
  async #claim(intent: 'takeover' | 'standby', patienceMs = 0): Promise<void> {
    const epoch = ++this.#epoch;
    const { clock, openPorts } = this.#deps;
    const { answerTimeoutMs } = this.#options;
    const claimed = await claimSocket(
      { clock, network: this.#network },
      { intent, patienceMs, answerTimeoutMs, openPorts, isVoid: () => epoch !== this.#epoch },
    );
    switch (claimed.kind) {
      case 'bound':
        return this.#become(epoch);
      case 'unheard':
        return this.#passOver(epoch, claimed.peer);
      case 'alone':
        // The generation in the kernel is there all the same: who started last writes.
        this.#deps.logger.warn({ error: claimed.error }, 'Instances on this node cannot find each other');
        return this.#become(epoch);
      case 'waiting':
        this.#owner = claimed.peer;
        return;
      case 'void':
    }
  }

  /** The owner cannot be asked: our newer generation keeps it from writing. */
  async #passOver(epoch: number, peer: OwnershipPeer | undefined): Promise<void> {
    this.#deps.logger.warn(
      { timeoutMs: this.#options.answerTimeoutMs },
      'Another instance owns the rules and does not yield them, taking them over without it',
    );
    // Which ports it has open it has not told.
    if (peer?.ports.length === 0) this.#toldPorts(peer, this.#deps.rememberedPorts());
    await this.#become(epoch);
  }

  async #become(epoch: number): Promise<void> {
    await this.#own.rise(this.#network.isBound, () => epoch !== this.#epoch);
    if (epoch !== this.#epoch) return;
    const isRegained = this.#role === 'standby';
    this.#role = 'owner';
    this.#owner = undefined;
    this.#changes += 1;
    this.#network.beginTenure();
    this.#deps.logger.info({ generation: this.generation }, 'This instance writes the rules');
    if (isRegained) this.#deps.onRegained();
    if (!this.#network.isBound) void this.#bindLater(epoch);
  }

  async #bindLater(epoch: number): Promise<void> {
    while (epoch === this.#epoch && !(await this.#network.bind().catch(() => false))) {
      await this.#network.pause(this.#options.rebindMs);
    }
  }

  /** The new epoch. */
  #standBy(owner: OwnershipPeer | undefined): number {
    if (this.#role === 'owner') this.#changes += 1;
    this.#role = 'standby';
    this.#owner = owner;
    return ++this.#epoch;
  }

  /** After the kernel has refused us. Whoever did that may have asked before and still wait to be heard. */
  async #withdraw(epoch: number): Promise<void> {
    await this.#deps.quiesce();
    await this.#deps.retire();
    if (this.#network.isBound) await this.#network.pause(this.#options.queueMs);
    if (epoch !== this.#epoch) return;
    this.#network.unbind();
    await this.#claimAgain(this.#options.patienceMs);
  }

  /** The owner has ended, or is out of reach. */
  async #claimAgain(patienceMs = 0): Promise<void> {
    if (this.#isStopping) return;
    try {
      await this.#claim('standby', patienceMs);
    } catch (error) {
      this.#deps.logger.error({ error }, 'Cannot take the rules over, trying again');
      await this.#network.pause(this.#options.rebindMs);
      if (this.#role === 'standby' && this.#owner === undefined) await this.#claimAgain();
    }
  }

  async #yieldTo(peer: OwnershipPeer): Promise<void> {
    const epoch = this.#standBy(peer);
    this.#deps.logger.info(
      { generation: this.generation },
      'Another instance takes the rules over, standing by: connections and proxy ports stay',
    );
    await this.#deps.quiesce();
    if (epoch !== this.#epoch) return;
    this.#network.unbind();
    const ports = unionOfPorts([this.#deps.openPorts(), this.peerPorts]);
    peer.send({ type: 'yielded', generation: this.generation, ports });
    let isSucceeded: boolean | undefined;
    do {
      await this.#network.pause(this.#options.proofTimeoutMs);
      isSucceeded = await this.#own.isSucceeded();
      // While nobody can tell, nobody can write either.
    } while (isSucceeded === undefined && epoch === this.#epoch);
    if (isSucceeded === false && epoch === this.#epoch && !this.#isStopping) await this.#takeBack(peer);
  }

  async #takeBack(peer: OwnershipPeer): Promise<void> {
    const { clock, logger } = this.#deps;
    logger.warn({}, 'Whoever took the rules over has written none, taking them back');
    this.#refusesUntil = clock.now() + this.#options.refusalMs;
    const epoch = this.#standBy(undefined);
    this.#own.overtake();
    peer.close();
    await this.#network.bind().catch(() => false);
    if (epoch !== this.#epoch) return;
    await this.#become(epoch).catch(async () => this.#claimAgain());
  }

  #heard(peer: OwnershipPeer, message: OwnershipMessage): void {
    switch (message.type) {
      case 'takeover':
        return this.#asked(peer);
      case 'standby':
        peer.isStandby = true;
        this.#toldPorts(peer, message.ports);
        if (this.#role !== 'owner') return peer.close();
        peer.send({ type: 'accepted' });
        if (this.#isStopping) void this.#yieldTo(peer);
        return;
      case 'yielded':
        this.#own.told(message.generation);
        peer.isStandby = true;
        this.#toldPorts(peer, message.ports);
        // Late: it could not be waited for.
        if (this.#role === 'owner') void this.#network.bind().catch(() => false);
        if (this.#role === 'owner' && this.#network.hasAnnounced) peer.send({ type: 'programmed' });
        // Unasked: it is about to end.
        if (peer === this.#owner && !this.#isStopping) void this.#claimAgain();
        return;
      case 'programmed':
        if (peer === this.#owner) void this.#proven(peer);
        return;
      case 'retired':
        return this.#deps.onPredecessorRetired();
      case 'ports':
        return this.#toldPorts(peer, message.ports);
      case 'stopping':
        peer.isStopping = true;
        return;
      case 'refused':
        this.#deps.logger.warn({ reason: message.reason }, 'The owner of the rules refuses to yield them');
        return;
      case 'accepted':
    }
  }

  #asked(peer: OwnershipPeer): void {
    if (this.#deps.clock.now() < this.#refusesUntil) {
      peer.send({ type: 'refused', reason: 'the last one that was yielded to wrote no rules' });
    } else if (this.#role === 'standby' && this.#owner !== undefined) {
      // Somebody was faster, and will have the socket.
      peer.close();
    } else {
      void this.#yieldTo(peer);
    }
  }

  async #proven(peer: OwnershipPeer): Promise<void> {
    if (!(await this.#own.isSucceeded()) || peer !== this.#owner) return;
    peer.isProven = true;
    await this.#deps.retire();
    peer.send({ type: 'retired' });
  }

  #toldPorts(peer: OwnershipPeer, ports: readonly OpenPort[]): void {
    peer.ports = ports;
    this.#deps.onPeerPorts([]);
  }

  #ended(peer: OwnershipPeer, ended: readonly OpenPort[]): void {
    if (this.#role === 'closed') return;
    const closed = portsWithout(ended, this.#deps.openPorts());
    if (closed.length > 0) this.#deps.onPeerPorts(closed);
    if (this.#role !== 'standby' || peer !== this.#owner) return;
    this.#owner = undefined;
    if (this.#isStopping) return;
    // Whoever asks and hangs up could do so for ever.
    if (!peer.isProven) this.#refusesUntil = this.#deps.clock.now() + this.#options.hangUpRefusalMs;
    this.#deps.logger.warn({ generation: this.generation }, 'The instance that wrote the rules has ended');
    void this.#claimAgain();
  }
}
