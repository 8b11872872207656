/** One probe on its way through a kernel: the steps that nf_tables tells of it, up to the one with which it ends. */
import type { TraceEvent, TracedPacket } from './nft-netlink.ts';
import type { Probe, ProbeSource } from './probe.ts';

/** The interface `lo` in every namespace: a packet that leaves by it comes in again. */
const LOOPBACK_INDEX = 1;

/** The hooks that the tracer walks too, as `table chain`. */
const WALKED_HOOKS = ['nat PREROUTING', 'nat OUTPUT', 'filter INPUT', 'filter FORWARD', 'filter OUTPUT'];
const DELIVERED = 'security INPUT';
const LEFT = 'mangle POSTROUTING';

export interface JourneyEnd {
  readonly kind: 'refused' | 'delivered' | 'left';
  /** Of a refusal: not by a rule. */
  readonly isPolicy: boolean;
  /** As it was then. */
  readonly packet: TracedPacket;
}

/** A way through one hook: the packet as it came, and the hook's table and chain. */
interface Passage {
  readonly packet: TracedPacket;
  readonly hook: string;
}

export class ProbeJourney {
  readonly probe: Probe;
  readonly source: ProbeSource;
  /** The rules that matched, in the hooks that the tracer walks. */
  readonly path: TraceEvent[] = [];
  /** The number of the interface by which it came to the node; 0 if the node sent it. */
  inIndex = 0;
  readonly #ended = Promise.withResolvers<void>();
  #passage: Passage | undefined;
  #end: JourneyEnd | undefined;

  constructor(probe: Probe, source: ProbeSource) {
    this.probe = probe;
    this.source = source;
  }

  /** Resolves when it has. */
  get ended(): Promise<void> {
    return this.#ended.promise;
  }

  get hasEnded(): boolean {
    return this.#end !== undefined;
  }

  /** Throws before it has ended. */
  get end(): JourneyEnd {
    if (this.#end === undefined) throw new Error('the probe is still under way');
    return this.#end;
  }

  /** Was it addressed to somebody else when it ended? */
  get isTranslated(): boolean {
    const { dst, dport } = this.end.packet;
    return dst !== this.probe.dst || dport !== this.probe.dport;
  }

  /** For messages: where it was last. */
  get lastSeen(): string {
    return this.#passage === undefined ? 'never seen' : `last seen in ${this.#passage.hook}`;
  }

  add(event: TraceEvent): void {
    if (this.hasEnded) return;
    if (event.packet !== undefined) {
      if (this.#passage === undefined) this.inIndex = event.packet.inIndex;
      this.#passage = { packet: event.packet, hook: `${event.table} ${event.chain}` };
    }
    if (this.#passage === undefined)
      throw new Error(`a step before the first: ${event.table} ${event.chain}`);
    const { hook, packet } = this.#passage;
    if (event.handle !== undefined && WALKED_HOOKS.includes(hook)) this.path.push(event);
    const { isPolicy } = event;
    if (event.isDrop) this.#finish({ kind: 'refused', isPolicy, packet });
    else if (hook === DELIVERED) this.#finish({ kind: 'delivered', isPolicy, packet });
    else if (hook === LEFT && packet.outIndex !== LOOPBACK_INDEX)
      this.#finish({ kind: 'left', isPolicy, packet });
  }

  #finish(end: JourneyEnd): void {
    this.#end = end;
    this.#ended.resolve();
  }
}
