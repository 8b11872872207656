/**
 * Who answers at every place that any random Service may have, asked of a lab from a pod, from the node, and from
 * outside the cluster: by new clients, and by UDP clients that have kept their source port through all edits.
 */
import type { Host, Lab } from './netns-lab.ts';
import { CLUSTER_IPS, EXTERNAL_IPS, LOAD_BALANCER_IPS, NODE_PORTS, SERVICE_PORTS } from './random-service.ts';

const PROTOCOLS = ['TCP', 'UDP'] as const;

/** Who has not answered by then is asked again: what is dropped is not told from what a busy machine left lying. */
const ANSWER_MS = 400;
export const LATE_ANSWER_MS = 2_000;
/** For each place that is answered: more than a Service has endpoints, so that those who take turns all get one. */
const TRIES = 12;
/** Of one vantage; what is dropped waits together. */
const AT_A_TIME = 24;
/** From here on, one for each place, in every vantage: UDP clients that keep their port. */
const FIRST_LASTING_PORT = 11_000;

export type Vantage = 'pod' | 'node' | 'outside';

export interface Place {
  readonly host: string;
  readonly port: number;
  readonly protocol: (typeof PROTOCOLS)[number];
}

export interface Reach {
  readonly from: Vantage;
  readonly place: Place;
  /** Whether the source port is one that was used during the edits; only UDP. */
  readonly isLasting: boolean;
  /** `answered`, or the errno of the first try. */
  readonly outcome: string;
  /** Who answered, of all tries, sorted. */
  readonly names: readonly string[];
}

export class EditsProbes {
  readonly #lab: Lab;
  readonly #places: Readonly<Record<Vantage, readonly Place[]>>;

  constructor(lab: Lab) {
    this.#lab = lab;
    this.#places = {
      pod: placesFrom(lab, 'pod'),
      node: placesFrom(lab, 'node'),
      outside: placesFrom(lab, 'outside'),
    };
  }

  /** The UDP clients that keep their source port send a datagram to every place, and wait for nothing. */
  async stir(): Promise<void> {
    await this.#fromEverywhere(async (from) => this.#lasting(from, 5));
  }

  /** Every place from every vantage; many times where there is a portal. It takes some seconds. */
  async reach(isPortal: (place: Place) => boolean): Promise<readonly Reach[]> {
    const lasting = await this.#fromEverywhere(async (from) =>
      this.#lasting(from, ANSWER_MS, LATE_ANSWER_MS),
    );
    const fresh = await this.#fromEverywhere(async (from) =>
      inTurn(this.#places[from], async (place) => this.#ask(from, place, isPortal(place) ? TRIES : 1)),
    );
    return [...lasting, ...fresh];
  }

  async #fromEverywhere<T>(ask: (from: Vantage) => Promise<readonly T[]>): Promise<readonly T[]> {
    const all = await Promise.all((['pod', 'node', 'outside'] as const).map(ask));
    return all.flat();
  }

  #host(from: Vantage): Host {
    return { pod: this.#lab.pod(4), node: this.#lab.node, outside: this.#lab.ext }[from];
  }

  /** Asks once for each of these times, until there is an answer. */
  async #lasting(from: Vantage, ...timesMs: readonly number[]): Promise<readonly Reach[]> {
    const agent = await this.#host(from).agent();
    const places = this.#places[from]
      .filter(({ protocol }) => protocol === 'UDP')
      .map((place, index) => ({ place, localPort: FIRST_LASTING_PORT + index }));
    return inTurn(places, async ({ place, localPort }) => {
      const { host, port } = place;
      const socket = { host, port, localPort, sameSocket: true, connected: true };
      const answers = await untilAnswered(timesMs, async (timeoutMs) =>
        agent.udpIdentify({ ...socket, count: 1, timeoutMs }),
      );
      return reachOf({ from, place, isLasting: true }, answers);
    });
  }

  async #ask(from: Vantage, place: Place, tries: number): Promise<Reach> {
    const agent = await this.#host(from).agent();
    const { host, port, protocol } = place;
    const ask = async (count: number, timeoutMs: number): Promise<readonly Answer[]> => {
      const dial = { host, port, count, timeoutMs };
      return protocol === 'TCP'
        ? agent.tcpIdentify(dial)
        : agent.udpIdentify({ ...dial, sameSocket: false, connected: true });
    };
    const times = [ANSWER_MS, LATE_ANSWER_MS];
    const first = await untilAnswered(times, async (timeoutMs) => ask(1, timeoutMs));
    const rest = first[0]?.ok === true && tries > 1 ? await ask(tries - 1, LATE_ANSWER_MS) : [];
    return reachOf({ from, place, isLasting: false }, [...first, ...rest]);
  }
}

/** A few at a time: hundreds at once would be a test of the machine. */
async function inTurn<T, R>(items: readonly T[], ask: (item: T) => Promise<R>): Promise<readonly R[]> {
  const results: R[] = [];
  const waiting = [...items.entries()];
  const work = async (): Promise<void> => {
    for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) {
      const [index, item] = next;
      results[index] = await ask(item);
    }
  };
  await Promise.all(Array.from({ length: AT_A_TIME }, work));
  return results;
}

interface Answer {
  readonly ok: boolean;
  readonly name?: string;
  readonly errno?: string;
}

async function untilAnswered(
  timesMs: readonly number[],
  ask: (timeoutMs: number) => Promise<readonly Answer[]>,
): Promise<readonly Answer[]> {
  let answers: readonly Answer[] = [];
  for (const timeMs of timesMs) {
    answers = await ask(timeMs);
    if (answers[0]?.errno !== 'TIMEOUT') break;
  }
  return answers;
}

function reachOf(at: Pick<Reach, 'from' | 'place' | 'isLasting'>, answers: readonly Answer[]): Reach {
  const failed = answers.find(({ ok }) => !ok);
  const names = answers.flatMap(({ ok, name }) => (ok && name !== undefined ? [name] : []));
  return {
    ...at,
    outcome: failed === undefined ? 'answered' : (failed.errno ?? 'no answer'),
    names: [...new Set(names)].sort(),
  };
}

/** Addresses that are nobody's in the lab but the host's beyond it. */
export function elsewhere(): readonly string[] {
  return [
    ...new Set(
      [CLUSTER_IPS, EXTERNAL_IPS, LOAD_BALANCER_IPS].flatMap(({ IPv4, IPv6 }) => [...IPv4, ...IPv6]),
    ),
  ];
}

/** Everywhere where a random Service may be, or may have been. */
function placesFrom(lab: Lab, from: Vantage): readonly Place[] {
  const at = (hosts: readonly string[], ports: readonly number[]): readonly Place[] =>
    hosts.flatMap((host) => ports.flatMap((port) => PROTOCOLS.map((protocol) => ({ host, port, protocol }))));
  const own = [lab.node.ipv4, lab.node.ipv6];
  const others = ['10.9.0.1', 'fd09::1', ...(from === 'node' ? ['127.0.0.1', '::1'] : [])];
  return [
    ...at(elsewhere(), SERVICE_PORTS),
    ...at(own, [...new Set<number>([...SERVICE_PORTS, ...NODE_PORTS])]),
    ...at(others, NODE_PORTS),
  ];
}
