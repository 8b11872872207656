/**
 * Generated rules do what the objects ask for: what the tracer says becomes of a packet is what the oracle says ought to
 * become of it, in thousands of random worlds. (That the tracer says what a kernel does: netns/once/rules-agree.test.ts.)
 *
 * KUP_TEST_SEED repeats one world; KUP_TEST_LONG=1 tries ten times as many.
 */
import { beforeAll, describe, expect, test } from 'vitest';
import { intendedOutcome, outcomeByRules, traceIn } from '../support/intent-outcome.ts';
import { familyOf } from '../support/intent-objects.ts';
import { type Intent, type IntentPacket, Oracle } from '../support/intent.ts';
import { describePacket, packetsFor } from '../support/probe-plan.ts';
import { type ProbeWorld, batchesOf, describeWorld, randomWorld } from '../support/probe-world.ts';
import { seeds } from '../support/random.ts';

const WORLDS = process.env['KUP_TEST_LONG'] === '1' ? 20_000 : 2000;
const WORLDS_PER_TEST = 100;
/** A test takes about a second. */
const TIMEOUT_MS = 60_000;

/** One text for each packet of which the rules make something else than they ought to. */
function faultsIn(world: ProbeWorld): readonly string[] {
  const oracle = new Oracle(world);
  return packetsFor(world).flatMap((packet) => {
    const wanted = intendedOutcome(oracle.intentFor(packet), packet);
    const seen = outcomeByRules(world, packet);
    if (seen === wanted) return [];
    const path = traceIn(world, packet).path.map((rule) => `  ${rule}`);
    return [[`${describePacket(packet)}\nought to be ${wanted}\nand is ${seen}, by`, ...path].join('\n')];
  });
}

test.each(batchesOf(seeds(WORLDS), WORLDS_PER_TEST))(
  'the rules of worlds $first to $last do with every packet what their objects ask for',
  { timeout: TIMEOUT_MS },
  ({ batch }) => {
    for (const seed of batch) {
      const world = randomWorld(seed);
      const faults = faultsIn(world);
      if (faults.length > 0)
        throw new Error(`${faults.length} faults\n${faults.slice(0, 5).join('\n')}\n${describeWorld(world)}`);
    }
  },
);

/** `nodePort, local, from pod`. */
function caseOf(intent: Intent, { from, isInvalid }: IntentPacket): string {
  if (intent.kind === 'left alone') return 'left alone';
  const what = intent.kind === 'carried' ? intent.policy : intent.kind;
  const portal = intent.because === 'a proxy port' ? intent.because : intent.because.kind;
  return `${portal}, ${isInvalid ? 'stray' : what}, from ${from}`;
}

/** All that there are. */
function everyCase(): readonly string[] {
  const senders = ['pod', 'ext', 'node'] as const;
  const whats = ['cluster', 'local', 'rejected', 'dropped', 'stray'];
  const possible = [
    ...['clusterIP', 'nodePort', 'loadBalancerIP', 'externalIP'].flatMap((kind) =>
      whats.flatMap((what) => senders.map((from) => `${kind}, ${what}, from ${from}`)),
    ),
    ...senders.map((from) => `a proxy port, rejected, from ${from}`),
    ...senders.map((from) => `a proxy port, stray, from ${from}`),
    'left alone',
  ];
  // The node is inside: the cluster's endpoints are there for it, and nothing but source ranges keeps it out.
  const never = [
    'nodePort, local',
    'nodePort, dropped',
    'loadBalancerIP, local',
    'externalIP, local',
    'externalIP, dropped',
  ].map((what) => `${what}, from node`);
  return possible.filter((one) => !never.includes(one)).toSorted();
}

/** Without what is different from world to world. */
function kindOfChain(chain: string): string {
  return chain
    .replace(/-[TU]\d+$/, '')
    .replace(/^([EF])[0-9a-f]{11}$/, '$1')
    .replace(/^([RX]?)(?:\d+\.\d+\.\d+|[0-9a-f]{11,12})$/, (_, set: string) => `${set} of addresses`.trim());
}

/** What worlds or packets lacked, nobody would be asked about, neither here nor in a kernel. */
describe('among the packets of the first 500 worlds, about which a kernel is asked too,', () => {
  /** By way of capture and family. */
  const cases = new Map<string, Set<string>>();
  const chains = new Set<string>();

  beforeAll(() => {
    for (let seed = 1; seed <= 500; seed += 1) {
      const world = randomWorld(seed);
      const oracle = new Oracle(world);
      for (const packet of packetsFor(world)) {
        const key = `${world.capture}, ${familyOf(packet.dst)}`;
        const met = cases.get(key) ?? new Set();
        cases.set(key, met.add(caseOf(oracle.intentFor(packet), packet)));
        for (const rule of traceIn(world, packet).path) {
          const [, table = '', chain = ''] = /^(\w+) -A USERSPACE-PROXY-(\S+) /.exec(rule) ?? [];
          if (chain !== '') chains.add(`${table} ${kindOfChain(chain)}`);
        }
      }
    }
  }, TIMEOUT_MS);

  test.each(['redirect, IPv4', 'redirect, IPv6', 'link-local, IPv4', 'link-local, IPv6'])(
    'is every portal with every outcome from everybody: %s',
    (key) => {
      expect([...(cases.get(key) ?? [])].toSorted()).toEqual(everyCase());
    },
  );

  test('are some that meet each kind of chain', () => {
    expect([...chains].toSorted()).toEqual([
      'filter FORWARD',
      'filter G',
      'filter H',
      'filter INPUT',
      'filter INVALID',
      'filter NO-ENDPT',
      'filter NO-ENDPT-X',
      'filter NO-ENDPT-XN',
      'filter NODEPORTS',
      'filter NP',
      'filter R of addresses',
      'filter REFUSE',
      'filter X of addresses',
      'filter XNP',
      'filter of addresses',
      'nat E',
      'nat F',
      'nat NODEPORTS',
      'nat NP',
      'nat SERVICES',
      'nat of addresses',
    ]);
  });
});
