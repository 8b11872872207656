/** What a proxy holds, by its metrics, its rules and /proc; and whether that has come back to what it was. */
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { Host } from './netns-host.ts';
import type { ProxyProcess } from './proxy-process.ts';

const MIB = 1_048_576;

/** In the order in which a table shows them. */
export const COUNTS = [
  'descriptors',
  'tcpSessions',
  'udpSessions',
  'affinityEntries',
  'listeners',
  'drainingListeners',
  'proxyPorts',
  'rules',
  'servicePorts',
  'ejected',
] as const;
export type CountName = (typeof COUNTS)[number];
export type Counts = Readonly<Record<CountName, number>>;

export interface Vitals {
  readonly counts: Counts;
  /** Garbage included, unless it has just been collected. */
  readonly heapMiB: number;
  readonly rssMiB: number;
}

export async function readVitals(proxy: ProxyProcess): Promise<Vitals> {
  // Before the scrape, which takes a descriptor itself.
  const descriptors = await countDescriptors(proxy.pid);
  const rules = (await proxy.rules('IPv4')).length + (await proxy.rules('IPv6')).length;
  const families = await proxy.metrics();
  const samples = (name: string) => families.get(name)?.samples ?? [];
  const sum = (name: string, protocol?: string): number =>
    samples(name)
      .filter(({ labels }) => protocol === undefined || labels['protocol'] === protocol)
      .reduce((total, { value }) => total + value, 0);
  return {
    counts: {
      descriptors,
      tcpSessions: sum('userspace_proxy_connections_active', 'TCP'),
      udpSessions: sum('userspace_proxy_connections_active', 'UDP'),
      affinityEntries: sum('userspace_proxy_affinity_entries'),
      listeners: sum('userspace_proxy_listeners'),
      drainingListeners: sum('userspace_proxy_listeners_draining'),
      proxyPorts: sum('userspace_proxy_proxy_ports_allocated'),
      rules,
      servicePorts: samples('userspace_proxy_connections_active').length,
      ejected: sum('userspace_proxy_endpoints_ejected'),
    },
    heapMiB: sum('nodejs_heap_size_used_bytes') / MIB,
    rssMiB: sum('process_resident_memory_bytes') / MIB,
  };
}

/** As `readVitals`, after the garbage was collected. */
export async function readVitalsWithoutGarbage(host: Host, proxy: ProxyProcess): Promise<Vitals> {
  const { NODE_OPTIONS: _ignored, ...env } = process.env;
  const program = join(import.meta.dirname, 'load-garbage.ts');
  const printed = await host.run([process.execPath, program, String(proxy.pid)], {
    env: { ...env } as Record<string, string>,
    timeoutMs: 60_000,
  });
  const memory = JSON.parse(printed) as { readonly heapUsed: number; readonly rss: number };
  const { counts } = await readVitals(proxy);
  return { counts, heapMiB: memory.heapUsed / MIB, rssMiB: memory.rss / MIB };
}

async function countDescriptors(pid: number): Promise<number> {
  return (await readdir(`/proc/${pid}/fd`)).length;
}

export interface Comparison {
  readonly what: string;
  readonly before: number;
  readonly after: number;
  readonly isBack: boolean;
}

/** What memory may have grown by: a part of what it was, and so many MiB. */
export interface Tolerance {
  readonly heap: readonly [part: number, mib: number];
  readonly rss: readonly [part: number, mib: number];
}

/**
 * After a warm-up of a minute or more:
 *
 * - Heap: V8 goes on to compile and to learn types of paths that the warm-up took rarely, and histograms and strings of
 *   the program vary a little. A leak of 10 octets a request is more after 20 minutes.
 * - RSS: the allocator and V8 keep the pages of the busiest moment, and a longer run has a busier one.
 */
export const AFTER_LONG_WARM_UP: Tolerance = { heap: [0.1, 1], rss: [0.5, 32] };

/** After one of seconds: half a MiB is compiled after it, and what 5,000 sessions leave behind is 3 MiB and more. */
export const AFTER_SHORT_WARM_UP: Tolerance = { heap: [0, 2], rss: [0.5, 64] };

/**
 * An ejected endpoint stays so until a connection tries it, and at rest there are none: everything else that is counted
 * must be what it was, to the last one.
 */
const MUST_COME_BACK = COUNTS.filter((count) => count !== 'ejected');

/** What nothing to do means. The one tie is that of the client that asks after all others have run out. */
const AT_REST: Partial<Counts> = { tcpSessions: 0, udpSessions: 0, affinityEntries: 1, drainingListeners: 0 };

export function isAtRest({ counts }: Vitals): boolean {
  return COUNTS.every((count) => AT_REST[count] === undefined || counts[count] === AT_REST[count]);
}

export function compareVitals(before: Vitals, after: Vitals, tolerance: Tolerance): readonly Comparison[] {
  const memory = (what: string, was: number, is: number, [part, mib]: Tolerance['heap']): Comparison => ({
    what,
    before: was,
    after: is,
    isBack: is <= was * (1 + part) + mib,
  });
  return [
    ...MUST_COME_BACK.map((what) => ({
      what,
      before: before.counts[what],
      after: after.counts[what],
      // Pipes that the native engine had lent out by then may have been closed since.
      isBack:
        what === 'descriptors'
          ? after.counts[what] <= before.counts[what]
          : after.counts[what] === (AT_REST[what] ?? before.counts[what]),
    })),
    memory('heap in MiB', before.heapMiB, after.heapMiB, tolerance.heap),
    memory('RSS in MiB', before.rssMiB, after.rssMiB, tolerance.rss),
  ];
}
