/**
 * A lab of two nodes with a proxy on each, both over the same manifests, as upstream's end-to-end tests have a
 * cluster; and the question those tests ask: who answers there, five times in a row, or how is one turned away?
 *
 * Every pod serves its name on `POD_PORT`, TCP and UDP, and so does every node on `HOST_NETWORK_PORT`. The last pod of
 * a node is meant to be a client.
 */
import type { Target } from './agent-protocol.ts';
import type { Family } from './dual-stack.ts';
import { createLab, type Host, type Lab } from './netns-lab.ts';
import { manifestText } from './objects.ts';
import { ProxyProcess } from './proxy-process.ts';
import { FAMILIES, HOST_NETWORK_PORT, type NodeName, POD_PORT, type Spot } from './two-nodes-objects.ts';
import { waitFor } from './wait.ts';

export interface TwoNodesOptions {
  /** Pods on each node; 2 unless told, the last one being a client. */
  readonly pods?: number;
  /** Further flags of both proxies. */
  readonly args?: readonly string[];
  /** What there is before the proxies start. */
  readonly objects?: (lab: Lab) => readonly object[];
}

/**
 * The names of all who answered, sorted, joined by a `+`; `refused` by a reset or an ICMP error; `silence`; else the
 * name of another error.
 */
export type Outcome = string;

/** Who asks where, and what becomes of it: over both families the same unless told apart. */
export type Row = readonly [from: Host, spot: Spot, outcome: Outcome | Readonly<Record<Family, Outcome>>];

export interface AskOptions {
  /** TCP unless told. */
  readonly protocol?: 'TCP' | 'UDP';
  /** All at once; unless told 5, and more where several names are to answer. */
  readonly tries?: number;
  readonly timeoutMs?: number;
}

/** Upstream asks five times. */
const TRIES = 5;
/** No Service of these tests has as many endpoints. */
const TRIES_FOR_SEVERAL = 8;
/** How long silence must last to count as such; an answer gets five seconds. */
const SILENCE_MS = 700;
const APPLY_TIMEOUT_MS = 10_000;
const FILE = 'e2e.yaml';

export class TwoNodes implements AsyncDisposable {
  readonly lab: Lab;
  readonly #proxies: Record<NodeName, ProxyProcess>;

  private constructor(lab: Lab, proxies: Record<NodeName, ProxyProcess>) {
    this.lab = lab;
    this.#proxies = proxies;
  }

  /** Rejects, leaving nothing, when it cannot be built. */
  static async start({ pods = 2, args = [], objects }: TwoNodesOptions = {}): Promise<TwoNodes> {
    const lab = await createLab({ nodes: 2, pods });
    try {
      const manifests = { [FILE]: manifestText(...(objects?.(lab) ?? [])) };
      const start = async (node: Host, nodeName: NodeName): Promise<ProxyProcess> =>
        ProxyProcess.start(node, { manifests, args, nodeName });
      const [node1, node2] = await Promise.all([
        start(lab.node, 'node1'),
        start(lab.node2, 'node2'),
        serveNames([...lab.pods, ...lab.pods2], POD_PORT),
        serveNames([lab.node, lab.node2], HOST_NETWORK_PORT),
      ]);
      return new TwoNodes(lab, { node1, node2 });
    } catch (error: unknown) {
      await lab.close();
      throw error;
    }
  }

  /** The first node's pod that only asks. */
  get client(): Host {
    return this.lab.pod(this.lab.pods.length);
  }

  get clientOn2(): Host {
    return this.lab.podOn2(this.lab.pods2.length);
  }

  proxy(name: NodeName): ProxyProcess {
    return this.#proxies[name];
  }

  /** Starts a node's proxy anew with these flags, over the same manifests. */
  async restart(name: NodeName, args: readonly string[]): Promise<void> {
    const { directory } = this.#proxies[name];
    await this.#proxies[name].stop();
    const host = name === 'node1' ? this.lab.node : this.lab.node2;
    this.#proxies[name] = await ProxyProcess.start(host, { directory, args, nodeName: name });
  }

  /** Replaces all objects, on both nodes, without waiting for anything. */
  async write(...objects: readonly object[]): Promise<void> {
    const text = manifestText(...objects);
    await Promise.all(Object.values(this.#proxies).map(async (proxy) => proxy.writeManifest(FILE, text)));
  }

  /** As `write`, and waits until both proxies have programmed it. Some Service or slice must be different. */
  async apply(...objects: readonly object[]): Promise<void> {
    const proxies = Object.values(this.#proxies);
    const before = await Promise.all(proxies.map(changesOf));
    await this.write(...objects);
    await waitFor(
      async () => {
        const now = await Promise.all(proxies.map(changesOf));
        return now.every(({ seen, pending }, index) => seen > (before[index]?.seen ?? 0) && pending === 0);
      },
      { timeoutMs: APPLY_TIMEOUT_MS, what: 'both proxies to have programmed the manifests' },
    );
  }

  /**
   * Asks every row over both families; rejects with all that came out otherwise. Rows where several are to answer are
   * asked one after another: two that share a listener in turns can each get the same endpoint every time.
   */
  async expect(rows: readonly Row[], options: AskOptions = {}): Promise<void> {
    const questions = rows.flatMap((row) => FAMILIES.map((family) => ({ row, family })));
    const { alone = [], together = [] } = Object.groupBy(questions, ({ row, family }) =>
      isForSeveral(outcomeFor(row, family)) ? 'alone' : 'together',
    );
    const faults = await Promise.all(together.map(async ({ row, family }) => faultOf(row, family, options)));
    for (const { row, family } of alone) faults.push(await faultOf(row, family, options));
    const found = faults.filter((fault) => fault !== '');
    if (found.length > 0) throw new Error(found.join('; '));
  }

  /** Waits until every row comes out so: for what is applied without a change of Services or slices. */
  async eventually(rows: readonly Row[], options: AskOptions = {}): Promise<void> {
    await waitFor(async () => this.expect(rows, { timeoutMs: SILENCE_MS, ...options }).then(() => true), {
      timeoutMs: APPLY_TIMEOUT_MS,
      what: 'the answers to change',
    });
  }

  /** Makes traffic from outside to that address go to this node. */
  async routeOutside(address: string, via: Host): Promise<void> {
    const gateway = address.includes(':') ? via.ipv6 : via.ipv4;
    await this.lab.ext.run(['ip', 'route', 'replace', address, 'via', gateway]);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(Object.values(this.#proxies).map(async (proxy) => proxy[Symbol.asyncDispose]()));
    await this.lab.close();
  }
}

function outcomeFor([, , outcome]: Row, family: Family): Outcome {
  return typeof outcome === 'string' ? outcome : outcome[family];
}

function isForSeveral(outcome: Outcome): boolean {
  return outcome.includes('+');
}

/** Empty when it came out as it should. */
async function faultOf(row: Row, family: Family, options: AskOptions): Promise<string> {
  const [from, spot] = row;
  const expected = outcomeFor(row, family);
  const patience = expected === 'silence' ? { timeoutMs: SILENCE_MS } : {};
  const tries = isForSeveral(expected) ? { tries: TRIES_FOR_SEVERAL } : {};
  const found = await ask(from, spot.at(family), { ...patience, ...tries, ...options });
  return found === expected ? '' : `${from.name} asks ${spot.text} over ${family}: ${found}, not ${expected}`;
}

/** What becomes of a host's question. */
export async function ask(
  from: Host,
  target: Target,
  { protocol = 'TCP', tries = TRIES, timeoutMs }: AskOptions = {},
): Promise<Outcome> {
  const agent = await from.agent();
  const params = { ...target, ...(timeoutMs === undefined ? {} : { timeoutMs }) };
  const results =
    protocol === 'TCP'
      ? await agent.tcpIdentify({ ...params, count: tries, concurrency: tries })
      : await Promise.all(
          Array.from({ length: tries }, async () =>
            agent.udpIdentify({ ...params, count: 1, sameSocket: false, connected: true }),
          ),
        );
  const outcomes = results.flat().map((result) => outcomeOf(result));
  return [...new Set(outcomes)].toSorted().join('+');
}

function outcomeOf({
  ok,
  name,
  errno,
}: {
  readonly ok: boolean;
  readonly name?: string;
  readonly errno?: string;
}): string {
  if (ok) return name ?? 'nobody';
  if (errno === 'TIMEOUT') return 'silence';
  return errno === 'ECONNREFUSED' ? 'refused' : (errno ?? 'failed');
}

async function serveNames(hosts: readonly Host[], port: number): Promise<void> {
  await Promise.all(
    hosts.map(async (host) => {
      const agent = await host.agent();
      await agent.serveTcp({ port, mode: 'identify', name: host.name });
      await agent.serveUdp({ port, mode: 'identify', name: host.name });
    }),
  );
}

async function changesOf(proxy: ProxyProcess): Promise<{ readonly seen: number; readonly pending: number }> {
  const families = await proxy.metrics();
  const value = (what: string): number =>
    families.get(`kubeproxy_sync_proxy_rules_${what}`)?.samples[0]?.value ?? 0;
  return {
    seen: value('service_changes_total') + value('endpoint_changes_total'),
    pending: value('service_changes_pending') + value('endpoint_changes_pending'),
  };
}
