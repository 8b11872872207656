/**
 * Asks a real kernel what its rules do with packets: loads nat and filter into a lab's node, sends probes, and reads
 * from nf_tables' own trace which rules each of them met, where it ended and where it was delivered. Nobody has to
 * listen and nothing has to time out: every probe ends in one of these, and the kernel says so at once.
 *
 *     raw PREROUTING, OUTPUT    -j TRACE what has the source port of a probe
 *     nat, filter               the rules in question
 *     security INPUT            empty; who is seen here was delivered
 *     mangle POSTROUTING        empty; who is seen here, on any interface but lo, has left the node
 *
 * Rule numbers become texts by the kernel's own list and what iptables-save prints, not by what was loaded.
 */
import { join } from 'node:path';
import type { IpFamily } from '../../src/model/address.ts';
import { differenceBetween, fateFromTrace } from './fate.ts';
import { FramedProcess } from './framed-process.ts';
import { type KernelAnswer, type ProbedNode, answerFor, sourceOf } from './kernel-answer.ts';
import { HandleList, RuleTexts } from './kernel-rules.ts';
import type { Host } from './netns-host.ts';
import type { Lab } from './netns-lab.ts';
import { type TraceEvent, buildRuleRequest, parseNftMessages } from './nft-netlink.ts';
import { tracerOf } from './packet-tracer.ts';
import { type Probe, buildProbePacket, describeProbe, ipFamilyOfProbe } from './probe.ts';
import { ProbeJourney } from './probe-journey.ts';

/** Ports of probes: clear of proxy ports and NodePorts, which answers come from. */
const [FIRST_PORT, LAST_PORT] = [40_000, 64_999];
const FAMILIES = [4, 6] as const;

export interface KernelFateOptions {
  /** How long a probe may take to its end, and the kernel to list its rules; 5,000 unless told. */
  readonly deadlineMs?: number;
}

/** `iptables-restore` text for nat and filter, as for `--noflush`; a family that is left out gets no rules. */
export type KernelState = Readonly<Partial<Record<IpFamily, string>>>;

export class KernelFate implements AsyncDisposable {
  readonly #node: Host;
  readonly #deadlineMs: number;
  readonly #resources = new AsyncDisposableStack();
  readonly #senders = new Map<Host, Promise<FramedProcess>>();
  /** By source port. */
  readonly #underWay = new Map<number, ProbeJourney>();
  /** Of packets of probes in a hook, by the family and id of their trace. */
  readonly #tracedById = new Map<string, ProbeJourney>();
  readonly #faults = Promise.withResolvers<never>();
  #handles = new HandleList();
  #tracer: FramedProcess | undefined;
  #nextPort = FIRST_PORT;

  private constructor(node: Host, deadlineMs: number) {
    this.#node = node;
    this.#deadlineMs = deadlineMs;
    // Whoever waits is told; a fault while nobody waits is told to the next.
    this.#faults.promise.catch(() => undefined);
  }

  /** Takes the node's tables for itself: nat and filter are replaced by every `probe`. The caller disposes of it. */
  static async open(
    lab: Pick<Lab, 'node'>,
    { deadlineMs = 5_000 }: KernelFateOptions = {},
  ): Promise<KernelFate> {
    const kernel = new KernelFate(lab.node, deadlineMs);
    try {
      kernel.#tracer = await kernel.#openHelper(lab.node, 'trace-packets.pl', (datagram) =>
        kernel.#receive(datagram),
      );
      await Promise.all(FAMILIES.map(async (family) => kernel.#restore(family, OBSERVERS)));
      return kernel;
    } catch (error: unknown) {
      await kernel[Symbol.asyncDispose]();
      throw error;
    }
  }

  /**
   * Loads the state and sends all probes at once; the answers come in their order. Rejects when the kernel refuses the
   * rules, or when what became of a probe is not seen in time: it never reached the node, or was lost in routing.
   * One call at a time.
   */
  async probe(state: KernelState, probes: readonly Probe[]): Promise<readonly KernelAnswer[]> {
    const [node, ...saved] = await Promise.all([
      this.#readNode(),
      ...FAMILIES.map(async (family) =>
        this.#restore(family, inFull(state[family === 4 ? 'IPv4' : 'IPv6'] ?? '')),
      ),
    ]);
    const texts = new RuleTexts(await this.#readHandles(), { 4: saved[0] ?? '', 6: saved[1] ?? '' });
    const journeys = await this.#prepare(probes, node);
    await this.#send(journeys);
    return journeys.map((journey) => answerFor(journey, { texts, node }));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#resources.disposeAsync();
  }

  async #openHelper(
    host: Host,
    script: string,
    onMessage?: (message: Buffer) => void,
  ): Promise<FramedProcess> {
    const helper = await FramedProcess.open(host, {
      argv: ['perl', join(import.meta.dirname, script)],
      onMessage: (message) => onMessage?.(message),
      onFault: (error) => this.#faults.reject(error),
    });
    return this.#resources.use(helper);
  }

  /** Resolves with what the kernel holds then, as iptables-save prints it. */
  async #restore(family: 4 | 6, input: string): Promise<string> {
    const iptables = family === 4 ? 'iptables-nft' : 'ip6tables-nft';
    return this.#node.run(['sh', '-ec', `${iptables}-restore\n${iptables}-save`], { input });
  }

  async #readNode(): Promise<ProbedNode> {
    const listed = JSON.parse(await this.#node.run(['ip', '-json', 'address'])) as {
      readonly ifindex: number;
      readonly ifname: string;
      readonly addr_info: readonly { readonly local: string }[];
    }[];
    return {
      host: this.#node,
      addresses: new Set(listed.flatMap(({ addr_info }) => addr_info.map(({ local }) => local))),
      interfaceByIndex: new Map(listed.map(({ ifindex, ifname }) => [ifindex, ifname])),
    };
  }

  async #readHandles(): Promise<HandleList> {
    this.#handles = new HandleList();
    // One dump after the other: the kernel refuses a second one on a socket while the first goes on.
    for (const family of FAMILIES) {
      const done = this.#handles.expect();
      this.#tracer?.send([buildRuleRequest(family)]);
      await this.#inTime(done, () => `the ${family} rules`);
    }
    return this.#handles;
  }

  async #prepare(probes: readonly Probe[], node: ProbedNode): Promise<readonly ProbeJourney[]> {
    const targets = new Set(probes.map(({ dport }) => dport));
    if (this.#nextPort + probes.length + targets.size > LAST_PORT) {
      this.#nextPort = FIRST_PORT;
      // Flows of earlier probes with the same ports would not be new.
      await this.#node.run(['conntrack', '-F']);
    }
    return probes.map((probe) => {
      // What answers a probe comes from the port it was sent to, and is no probe.
      while (targets.has(this.#nextPort)) this.#nextPort += 1;
      const journey = new ProbeJourney(probe, { src: sourceOf(probe, node), sport: this.#nextPort });
      this.#nextPort += 1;
      return journey;
    });
  }

  /** Resolves when all have ended. */
  async #send(journeys: readonly ProbeJourney[]): Promise<void> {
    const packetsByHost = Map.groupBy(journeys, ({ probe }) => probe.from);
    const senders = await Promise.all(
      [...packetsByHost].map(async ([host, own]) => ({ sender: await this.#senderOn(host), own })),
    );
    for (const journey of journeys) this.#underWay.set(journey.source.sport, journey);
    try {
      for (const { sender, own } of senders)
        sender.send(own.map(({ probe, source }) => buildProbePacket(probe, source)));
      await this.#inTime(Promise.all(journeys.map(async ({ ended }) => ended)), () => {
        const open = journeys.filter(({ hasEnded }) => !hasEnded);
        return `the end of ${open.map((one) => `${describeProbe(one.probe)} (${one.lastSeen})`).join(', ')}`;
      });
    } finally {
      this.#underWay.clear();
      this.#tracedById.clear();
    }
  }

  async #senderOn(host: Host): Promise<FramedProcess> {
    const known = this.#senders.get(host);
    if (known !== undefined) return known;
    const sender = this.#openHelper(host, 'send-packets.pl');
    this.#senders.set(host, sender);
    return sender;
  }

  #receive(datagram: Buffer): void {
    for (const message of parseNftMessages(datagram)) {
      if (message.kind === 'trace') this.#follow(message.event);
      else this.#handles.add(message);
    }
  }

  /** Answers are traced too, when they come from a port in the range of the probes; they are nobody's. */
  #follow(event: TraceEvent): void {
    const key = `${event.family}/${event.id}`;
    if (event.packet !== undefined) {
      this.#tracedById.delete(key);
      const journey = this.#underWay.get(event.packet.sport);
      if (journey?.source.src === event.packet.src) this.#tracedById.set(key, journey);
    }
    this.#tracedById.get(key)?.add(event);
  }

  async #inTime<T>(promise: Promise<T>, what: () => string): Promise<T> {
    const late = Promise.withResolvers<never>();
    const timer = setTimeout(
      () => late.reject(new Error(`waited ${this.#deadlineMs} ms for ${what()}`)),
      this.#deadlineMs,
    );
    try {
      return await Promise.race([promise, late.promise, this.#faults.promise]);
    } finally {
      clearTimeout(timer);
    }
  }
}

/**
 * The comparison itself: the same rules and the same probes to the tracer and to the kernel. Resolves with one text for
 * each probe on which they differ, so none is what a test expects.
 */
export async function disagreements(
  kernel: KernelFate,
  state: KernelState,
  probes: readonly Probe[],
): Promise<readonly string[]> {
  const tracers = { IPv4: tracerOf(state.IPv4 ?? '', 4), IPv6: tracerOf(state.IPv6 ?? '', 6) };
  const answers = await kernel.probe(state, probes);
  return answers.flatMap(({ probe, fate, question: { hook, packet } }) => {
    const traced = fateFromTrace(tracers[ipFamilyOfProbe(probe)].trace(hook, packet));
    const difference = differenceBetween(traced, fate);
    return difference === undefined ? [] : [`${describeProbe(probe)}: ${difference}`];
  });
}

const TRACE_PROBES = ['PREROUTING', 'OUTPUT'].flatMap((hook) =>
  ['tcp', 'udp'].map(
    (protocol) => `-A ${hook} -p ${protocol} -m ${protocol} --sport ${FIRST_PORT}:${LAST_PORT} -j TRACE`,
  ),
);
const OBSERVERS = [
  '*raw',
  ...TRACE_PROBES,
  'COMMIT',
  '*mangle\n:POSTROUTING ACCEPT [0:0]\nCOMMIT',
  '*security\n:INPUT ACCEPT [0:0]\nCOMMIT',
  '',
].join('\n');

/** Nothing of what was loaded before stays: a table that is restored without `--noflush` is emptied first. */
function inFull(text: string): string {
  const foreign = /^\*(?!nat$|filter$).*$/m.exec(text)?.[0];
  if (foreign !== undefined) throw new Error(`${foreign} is not to be loaded: only nat and filter are`);
  const missing = ['nat', 'filter'].filter((table) => !new RegExp(`^\\*${table}$`, 'm').test(text));
  return `${text}${missing.map((table) => `*${table}\nCOMMIT\n`).join('')}`;
}
