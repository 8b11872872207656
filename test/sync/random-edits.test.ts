/**
 * A live proxy through a random sequence of edits: in memory, with failing restores, ports that clash, rules that others
 * flush and addresses that come and go on the way. At every step the tables are what a first load would make of them,
 * and at the end nothing is different from a proxy that is started from the final state.
 *
 * KUP_TEST_SEED repeats one sequence; KUP_TEST_LONG=1 runs many.
 */
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { buildDesiredState } from '../../src/desired/desired-state.ts';
import { buildNodeView } from '../../src/desired/node-view.ts';
import { IP_FAMILIES, type IpFamily } from '../../src/model/address.ts';
import { nodeInfoFromNode } from '../../src/model/node.ts';
import { snapshotFromObjects } from '../../src/model/snapshot.ts';
import type { NodeAddresses } from '../../src/sync/family-sync.ts';
import { type ClusterState, randomClusterState } from '../support/random-cluster.ts';
import { type BackendsReport, backendsOf } from '../support/random-edits-backends.ts';
import {
  GRACE_PERIOD_MS,
  MemoryProxy,
  type MemoryProxyOptions,
  PORT_RANGE,
} from '../support/random-edits-memory.ts';
import { randomSettings } from '../support/random-edits-settings.ts';
import { randomEdit } from '../support/random-edits.ts';
import { oneIn } from '../support/random-service.ts';
import { Random, seeds } from '../support/random.ts';
import { type NameOfPort, namedRules } from '../support/rule-names.ts';

const EDITS = 200;
const SEEDS = seeds(process.env['KUP_TEST_LONG'] === '1' ? 60 : 6);
/** A sequence takes about a second. */
const TIMEOUT_MS = 60_000;

const ADDRESS_CHOICES: readonly NodeAddresses[] = [
  ['192.168.77.2', 'fd00:77::2'],
  ['192.168.77.2', 'fd00:77::2', '10.244.1.1', 'fd00:244:1::1'],
  ['192.168.77.2'],
  ['10.244.1.1', 'fd00:77::2'],
].map((own) => {
  const all = ['127.0.0.1', '::1', ...own];
  const isIPv6 = (address: string): boolean => address.includes(':');
  return { all, redirect: { IPv4: all.filter((one) => !isIPv6(one)), IPv6: all.filter(isIPv6) } };
});

/** Everything at once that a sequence is made of. */
interface Run {
  readonly random: Random;
  readonly live: MemoryProxy;
  readonly options: MemoryProxyOptions;
  state: ClusterState;
  /** The latest edits, for messages. */
  readonly done: string[];
}

function startRun(seed: number): Run {
  const random = new Random(seed);
  const { settings } = randomSettings(random);
  const capture = random.pick(['redirect', 'link-local'] as const);
  const options = { settings, capture, seed, addresses: random.pick(ADDRESS_CHOICES) };
  const state = randomClusterState(random);
  const live = new MemoryProxy(options);
  live.update(state);
  return { random, live, options, state, done: ['the start'] };
}

interface Disturbance {
  readonly what: string;
  readonly happen: (run: Run) => Promise<void>;
  /** After the next edit; undefined where nothing is left to be done. */
  readonly end?: (run: Run) => Promise<void>;
}

/** What is no edit of an object: faults, and changes of the node itself. */
const DISTURBANCES: readonly (Disturbance | undefined)[] = [
  ...Array.from({ length: 8 }, () => undefined),
  {
    what: 'restores fail',
    happen: async ({ random, live }) => {
      live.restores = random.pick(['fail', 'half']);
    },
    end: async ({ live }) => {
      await live.sync();
      live.restores = 'work';
    },
  },
  {
    what: 'no listener can be opened',
    happen: async ({ live }) => {
      for (let port = PORT_RANGE.first; port <= PORT_RANGE.last; port += 1)
        live.engine.faults.set(port, 'EMFILE');
    },
    end: async ({ live }) => {
      await live.sync();
      live.engine.faults.clear();
    },
  },
  {
    what: 'somebody flushes a chain',
    happen: async ({ random, live }) => {
      // An edit that writes the same chain before anybody has looked would hide it.
      await live.settle();
      const tables = live.kernel.tables[random.pick(IP_FAMILIES)];
      const own = tables.chains('nat').filter((chain) => chain.startsWith('USERSPACE-PROXY-'));
      if (own.length > 0) tables.load(`*nat\n:${random.pick(own)} - [0:0]\nCOMMIT\n`);
      // Whoever comes now goes past us, and is remembered so.
      live.flows.lapse(random);
      live.flows.send(live.addresses.all);
    },
    end: async ({ live }) => void (await live.sync({ isPeriodic: true })),
  },
  {
    what: 'another program takes ports',
    happen: async ({ random, live }) => {
      live.engine.held.clear();
      for (let count = 0; count < 20; count += 1) {
        const port = PORT_RANGE.first + random.below(PORT_RANGE.last - PORT_RANGE.first + 1);
        if (!live.engine.ports.includes(port)) live.engine.held.add(`:${port}`);
      }
      // Also ports of ours, on addresses that may yet come.
      const elsewhere = random.pick(ADDRESS_CHOICES).all.filter((one) => !live.addresses.all.includes(one));
      for (const address of elsewhere)
        if (live.engine.ports.length > 0)
          live.engine.held.add(`${address}:${random.pick(live.engine.ports)}`);
    },
  },
  {
    what: 'the addresses of the node change',
    happen: async ({ random, live }) => live.changeAddresses(random.pick(ADDRESS_CHOICES)),
  },
  { what: 'a periodic look', happen: async ({ live }) => void (await live.sync({ isPeriodic: true })) },
];

async function elapse(live: MemoryProxy, ms: number): Promise<void> {
  live.clock.advance(ms);
  await vi.advanceTimersByTimeAsync(ms);
}

/** One edit, which may come while a sync is under way, and may have to share its sync with the next. */
async function step(run: Run): Promise<void> {
  const { random, live } = run;
  const disturbance = random.pick(DISTURBANCES);
  if (disturbance !== undefined) run.done.push(disturbance.what);
  await disturbance?.happen(run);
  const edit = randomEdit(random, run.state);
  run.state = edit.state;
  run.done.push(edit.what);
  const syncing = oneIn(random, 2) ? live.sync() : undefined;
  for (let turns = random.below(30); turns > 0; turns -= 1) await Promise.resolve();
  live.update(run.state);
  await syncing;
  await disturbance?.end?.(run);
  await elapse(live, random.pick([0, 0, 10, 400, GRACE_PERIOD_MS]));
}

/** What must hold whenever nothing is left to be done. */
function expectInvariants({ live, state, options }: Run): void {
  expect(live.faults).toEqual([]);
  for (const family of IP_FAMILIES) expect(live.saved(family)).toBe(live.rendered(family));
  const node = buildNodeView(options.settings, {
    families: IP_FAMILIES,
    addresses: live.addresses.all,
    node: state.node && nodeInfoFromNode(state.node),
  });
  expect(live.proxier.desired).toEqual(buildDesiredState(snapshotFromObjects(state), node));
  expect(new Set(live.listeners.proxyPorts().keys())).toEqual(new Set(live.proxier.desired.listeners.keys()));
  if (options.capture === 'redirect') expectFollowedAddresses(live);
  expect(live.health.checks).toEqual(live.proxier.desired.healthChecks);
  expect(live.flows.send(live.addresses.all)).toEqual([]);
}

/** REDIRECT chooses an address of the interface: UDP must be on each. */
function expectFollowedAddresses({ engine, listeners, proxier, addresses }: MemoryProxy): void {
  for (const [key, { family, servicePort }] of proxier.desired.listeners) {
    const port = listeners.proxyPorts().get(key);
    const { protocol } = servicePort.name;
    const spec = [...engine.listeners.values()].find(
      (one) => one.port === port && one.family === family && one.protocol === protocol,
    );
    const wanted = protocol === 'UDP' ? addresses.redirect[family] : spec?.addresses;
    expect({ key, addresses: spec?.addresses }).toEqual({ key, addresses: wanted });
  }
}

function namesOf(proxy: MemoryProxy): NameOfPort {
  return ({ family, protocol, port }) =>
    [...proxy.openListeners()].find(
      ([, { spec }]) =>
        spec.family === family && spec.protocol.toLowerCase() === protocol && spec.port === port,
    )?.[0];
}

interface Outcome {
  readonly rules: Readonly<Record<IpFamily, readonly string[]>>;
  readonly listeners: readonly object[];
  readonly backends: BackendsReport;
  readonly [other: string]: unknown;
}

/** Everything that anybody could see of a proxy, apart from the numbers of its ports. */
function outcomeOf(proxy: MemoryProxy): Outcome {
  const name = namesOf(proxy);
  const rules = (family: IpFamily): readonly string[] =>
    namedRules({ family, saved: proxy.saved(family) }, name);
  const inOrder = [...proxy.openListeners()].sort(([a], [b]) => (a < b ? -1 : 1));
  return {
    rules: { IPv4: rules('IPv4'), IPv6: rules('IPv6') },
    listeners: inOrder.map(([key, { spec }]) => ({ key, ...spec, port: 'any' })),
    guarded: proxy.listeners.guardedPorts().length,
    taken: proxy.ports.takenCount,
    draining: proxy.listeners.drainingCount,
    remembered: [...(proxy.portStore.saved?.keys() ?? [])].sort(),
    healthChecks: proxy.health.checks,
    problems: proxy.proxier.problems.countByCode(),
    noLocalEndpoints: proxy.proxier.desired.noLocalEndpoints,
    told: IP_FAMILIES.map((family) => {
      const last = proxy.observer.families.findLast((sync) => sync.family === family);
      return { family, noLocalEndpoints: last?.noLocalEndpoints };
    }),
    backends: backendsOf(proxy),
  };
}

async function freshOf(
  { live, options, state }: Run,
  remembered: MemoryProxyOptions['remembered'],
): Promise<MemoryProxy> {
  const addresses = live.addresses;
  const seed = options.seed + 1;
  const fresh = new MemoryProxy({ ...options, addresses, seed, ...(remembered && { remembered }) });
  fresh.update(state);
  await fresh.settle();
  return fresh;
}

/** Lets everything come to its end first. A comparison leaves traces, as any traffic does. */
async function expectSameAsFresh(run: Run): Promise<void> {
  const { live } = run;
  live.engine.held.clear();
  await live.settle();
  await elapse(live, 2 * GRACE_PERIOD_MS);
  await live.settle();
  expectInvariants(run);
  const twin = await freshOf(run, live.listeners.proxyPorts());
  for (const family of IP_FAMILIES) expect(live.saved(family)).toBe(twin.saved(family));
  const fresh = await freshOf(run, undefined);
  expect(outcomeOf(live)).toEqual(outcomeOf(fresh));
  for (const proxy of [twin, fresh]) proxy.close();
}

beforeEach(() => {
  vi.useFakeTimers();
});
afterEach(() => {
  vi.useRealTimers();
});

test.for(SEEDS)(
  'a live proxy never drifts and ends as a fresh one would, through 200 edits (seed %i)',
  { timeout: TIMEOUT_MS },
  async (seed) => {
    const run = startRun(seed);
    const { random, live } = run;
    try {
      for (let count = 0; count < EDITS; count += 1) {
        await step(run);
        if (oneIn(random, 3)) continue;
        await live.settle();
        expectInvariants(run);
        if (oneIn(random, 60)) await expectSameAsFresh(run);
      }
      await expectSameAsFresh(run);
      live.close();
    } catch (error: unknown) {
      const story = run.done.slice(-12).join('\n  ');
      throw new Error(`KUP_TEST_SEED=${seed}, after ${run.done.length} steps, the last:\n  ${story}`, {
        cause: error,
      });
    }
  },
);
