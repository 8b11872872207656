/**
 * A lab in which a live proxy is edited, and the two questions that are asked of a proxy there: what has it made of the
 * node, and who answers at every place that any random Service may have.
 *
 * Whatever is left alone is answered too: a host beyond the node has every address of the address plan and answers
 * `elsewhere` on all ports. Each probe is thus answered, refused or dropped, and none of these takes the place of
 * another.
 */
import { join } from 'node:path';
import { readFile } from 'node:fs/promises';
import type { ClusterState } from './random-cluster.ts';
import {
  CLUSTER_IPS,
  EXTERNAL_IPS,
  HEALTH_CHECK_PORTS,
  LOAD_BALANCER_IPS,
  NODE_PORTS,
  SERVICE_PORTS,
} from './random-service.ts';
import { TARGET_PORTS } from './random-service-slices.ts';
import { type Host, type Lab, createLab } from './netns-lab.ts';
import { manifestText } from './objects.ts';
import type { ProxyProcess } from './proxy-process.ts';
import { type NameOfPort, namedRules } from './rule-names.ts';

const MAIN = new URL('../../src/main.ts', import.meta.url).pathname;
const FAMILIES = ['IPv4', 'IPv6'] as const;
const PROTOCOLS = ['TCP', 'UDP'] as const;

/** Who has not answered by then is asked again: what is dropped is not told from what a busy machine left lying. */
const ANSWER_MS = 400;
const LATE_ANSWER_MS = 2_000;
/** For each place that is answered: more than a Service has endpoints, so that those who take turns all get one. */
const TRIES = 12;
/** Of one vantage; what is dropped waits together. */
const AT_A_TIME = 24;
/** From here on, one for each place, in every vantage: UDP clients that keep their port. */
const FIRST_LASTING_PORT = 11_000;

/** A kernel says only six times a second to one address that nobody is there: the rest would look like silence. */
const UNLIMITED_ICMP = `
  echo 0 >/proc/sys/net/ipv4/icmp_ratelimit
  echo 0 >/proc/sys/net/ipv6/icmp/ratelimit
  for limit in per_sec burst; do
    file=/proc/sys/net/ipv4/icmp_msgs_$limit
    [ ! -e $file ] || echo 1000000 >$file
  done`;

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

/** What can be read off a node. */
export interface NodeReport {
  readonly rules: Readonly<Record<(typeof FAMILIES)[number], readonly string[]>>;
  /** `udp 127.0.0.1 <name>` of every socket of the proxy that listens, sorted. */
  readonly sockets: readonly string[];
  /** Status and body by address and port; `closed` where nobody answers. */
  readonly healthChecks: readonly string[];
  readonly metrics: Readonly<Record<string, number>>;
}

export class EditsLab implements AsyncDisposable {
  readonly lab: Lab;
  readonly #places: Readonly<Record<Vantage, readonly Place[]>>;

  private constructor(lab: Lab) {
    this.lab = lab;
    this.#places = {
      pod: placesFrom(lab, 'pod'),
      node: placesFrom(lab, 'node'),
      outside: placesFrom(lab, 'outside'),
    };
  }

  static async create(): Promise<EditsLab> {
    const lab = await createLab();
    try {
      const beyond = await lab.attach({
        name: 'beyond',
        nodeInterface: 'eth9',
        nodeAddresses: ['10.9.0.1/24', 'fd09::1/64'],
        hostAddresses: ['10.9.0.2/24', 'fd09::2/64'],
        hostRoutes: ['default via 10.9.0.1', 'default via fd09::1'],
        nodeRoutes: elsewhere().map(
          (address) => `${address} via ${address.includes(':') ? 'fd09::2' : '10.9.0.2'}`,
        ),
      });
      await lab.node.run(['sh', '-ec', UNLIMITED_ICMP]);
      await Promise.all([serveElsewhere(beyond), ...[...lab.pods, lab.node].map(serveEndpoint)]);
      return new EditsLab(lab);
    } catch (error: unknown) {
      await lab.close();
      throw error;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.lab.close();
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

  /** Of a proxy with nothing left to do. */
  async report(proxy: ProxyProcess): Promise<NodeReport> {
    const name = await listenerNames(proxy);
    const [IPv4 = '', IPv6 = ''] = await Promise.all(
      ['iptables-save', 'ip6tables-save'].map(async (program) => this.lab.node.run([program])),
    );
    const metric = async (suffix: string): Promise<number> => proxy.metric(`userspace_proxy_${suffix}`);
    return {
      rules: {
        IPv4: namedRules({ family: 'IPv4', saved: IPv4 }, name),
        IPv6: namedRules({ family: 'IPv6', saved: IPv6 }, name),
      },
      sockets: await this.#sockets(proxy, name),
      healthChecks: await this.#healthChecks(),
      metrics: {
        listeners: await metric('listeners'),
        missing: await metric('listeners_missing'),
        draining: await metric('listeners_draining'),
        problems: await metric('invalid_objects'),
      },
    };
  }

  /** As an operator removes a proxy that has ended. */
  async cleanUp(): Promise<void> {
    await this.lab.node.run([process.execPath, MAIN, '--cleanup', '--state-dir', '']);
  }

  async #fromEverywhere<T>(ask: (from: Vantage) => Promise<readonly T[]>): Promise<readonly T[]> {
    const all = await Promise.all((['pod', 'node', 'outside'] as const).map(ask));
    return all.flat();
  }

  #host(from: Vantage): Host {
    return { pod: this.lab.pod(4), node: this.lab.node, outside: this.lab.ext }[from];
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

  async #sockets({ pid }: ProxyProcess, name: NameOfPort): Promise<readonly string[]> {
    const listed = await this.lab.node.run(['ss', '-Hlntup']);
    return listed
      .split('\n')
      .filter((line) => line.includes(`pid=${pid},`))
      .map((line) => {
        const [protocol = '', , , , local = ''] = line.split(/\s+/);
        const [, address = '', port = ''] = /^(.*):(\d+)$/.exec(local) ?? [];
        const family = address.includes('[') ? 'IPv6' : 'IPv4';
        const known = name({ family, protocol: protocol === 'udp' ? 'udp' : 'tcp', port: Number(port) });
        return `${protocol} ${address} ${known ?? port}`;
      })
      .sort();
  }

  async #healthChecks(): Promise<readonly string[]> {
    const agent = await this.lab.ext.agent();
    const places = [this.lab.node.ipv4, this.lab.node.ipv6].flatMap((host) =>
      HEALTH_CHECK_PORTS.map((port) => ({ host, port })),
    );
    return Promise.all(
      places.map(async (place) => {
        const answer = await agent
          .httpGet({ ...place, path: '/', timeoutMs: LATE_ANSWER_MS })
          .then(({ status, body }) => `${status} ${body.replaceAll(/\s+/g, ' ')}`)
          .catch(() => 'closed');
        return `${place.host} ${place.port}: ${answer}`;
      }),
    );
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
function elsewhere(): readonly string[] {
  return [
    ...new Set(
      [CLUSTER_IPS, EXTERNAL_IPS, LOAD_BALANCER_IPS].flatMap(({ IPv4, IPv6 }) => [...IPv4, ...IPv6]),
    ),
  ];
}

async function serveElsewhere(host: Host): Promise<void> {
  const name = 'elsewhere';
  for (const address of elsewhere())
    await host.addAddress(`${address}/${address.includes(':') ? 128 : 32}`, 'lo');
  const agent = await host.agent();
  const ports = [...new Set<number>([...SERVICE_PORTS, ...TARGET_PORTS, ...NODE_PORTS])];
  await Promise.all(ports.map(async (port) => agent.serveTcp({ port, mode: 'identify', name })));
  // Each on its address: the reply must come from there.
  for (const address of elsewhere())
    await Promise.all(ports.map(async (port) => agent.serveUdp({ port, mode: 'identify', name, address })));
}

/** A pod, or the node as one in the host's network. */
async function serveEndpoint(host: Host): Promise<void> {
  const agent = await host.agent();
  const { name } = host;
  for (const port of TARGET_PORTS) {
    await agent.serveTcp({ port, mode: 'identify', name });
    for (const address of [host.ipv4, host.ipv6])
      await agent.serveUdp({ port, mode: 'identify', name, address });
  }
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

/** By what the proxy remembers of its ports: those of its listeners. */
async function listenerNames({ directory }: ProxyProcess): Promise<NameOfPort> {
  const text = await readFile(join(directory, 'state', 'ports.json'), 'utf8');
  const { ports } = JSON.parse(text) as { readonly ports: Readonly<Record<string, number>> };
  const names = new Map(
    Object.entries(ports).map(([key, port]) => {
      // `default/web:http/TCP/IPv4/cluster`, and maybe an address.
      const [, protocol = '', family = ''] = /\/(TCP|UDP)\/(IPv[46])\//.exec(key) ?? [];
      return [`${family}/${protocol.toLowerCase()}/${port}`, key] as const;
    }),
  );
  return ({ family, protocol, port }) => names.get(`${family}/${protocol}/${port}`);
}

/** One file for each object, so that a broken one harms no other: text by file name. */
export function manifestFiles({ services, endpointSlices, node }: ClusterState): ReadonlyMap<string, string> {
  const objects = [...services, ...endpointSlices, ...(node === undefined ? [] : [node])];
  return new Map(
    objects.map((object) => {
      const { kind, metadata } = object;
      const name = [kind, metadata?.namespace, metadata?.name].join('-').toLowerCase();
      return [`${name}.yaml`, manifestText(object)] as const;
    }),
  );
}
