/**
 * Generated rules do what the objects ask for: what the tracer says becomes of a packet is what the oracle says ought to
 * become of it, in thousands of random worlds. (That the tracer says what a kernel does: netns/once/rules-agree.test.ts.)
 *
 * KUP_TEST_SEED repeats one world; KUP_TEST_LONG=1 tries ten times as many.
 */
import { describe, expect, test } from 'vitest';
import { intendedOutcome, outcomeByRules, traceIn } from '../support/intent-outcome.ts';
import { familyOf } from '../support/intent-objects.ts';
import { type Intent, type IntentPacket, Oracle } from '../support/intent.ts';
import { describePacket, packetsFor } from '../support/probe-plan.ts';
import { type ProbeWorld, batchesOf, describeWorld, randomWorld } from '../support/probe-world.ts';
import { seeds } from '../support/random.ts';

const WORLDS = process.env['KUP_TEST_LONG'] === '1' ? 20_000 : 2000;
const WORLDS_PER_TEST = 100;
/** A test takes about a second. */
const TIMEOUT_MS = 30_000;

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

/** What worlds and packets must have among them, or nothing is said about it. */
describe('among the packets of the first 500 worlds, about which a kernel is asked too,', () => {
  const worlds = Array.from({ length: 500 }, (_, index) => randomWorld(index + 1));
  const asked = worlds.flatMap((world) => {
    const oracle = new Oracle(world);
    return packetsFor(world).map((packet) => ({ world, packet, intent: oracle.intentFor(packet) }));
  });

  /** `nodePort, local, from a pod`. */
  function caseOf(intent: Intent, { from, isInvalid }: IntentPacket): string {
    if (intent.kind === 'left alone') return 'left alone';
    const what = intent.kind === 'carried' ? intent.policy : intent.kind;
    const portal = intent.because === 'a proxy port' ? intent.because : intent.because.kind;
    return `${portal}, ${isInvalid ? 'stray' : what}, from ${from}`;
  }

  const senders = ['pod', 'ext', 'node'] as const;
  const external = ['nodePort', 'loadBalancerIP', 'externalIP'];
  const whats = ['cluster', 'local', 'rejected', 'dropped', 'stray'];
  /** The node is inside: it always has the cluster's endpoints, and only source ranges keep it out. */
  const neverFromNode = ['nodePort, local', 'nodePort, dropped', 'loadBalancerIP, local', 'externalIP, local'];
  const cases = [
    ...['clusterIP', ...external].flatMap((kind) =>
      whats.flatMap((what) => senders.map((from) => `${kind}, ${what}, from ${from}`)),
    ),
    ...senders.flatMap((from) => [`a proxy port, rejected, from ${from}`, `a proxy port, stray, from ${from}`]),
    'left alone',
  ].filter(
    (one) => ![...neverFromNode, 'externalIP, dropped'].some((never) => one === `${never}, from node`),
  );

  test.each(
    (['redirect', 'link-local'] as const).flatMap((capture) =>
      (['IPv4', 'IPv6'] as const).map((family) => ({ capture, family })),
    ),
  )('is every portal with every outcome from everybody ($capture, $family)', ({ capture, family }) => {
    const met = asked
      .filter(({ world, packet }) => world.capture === capture && familyOf(packet.dst) === family)
      .map(({ intent, packet }) => caseOf(intent, packet));
    expect([...new Set(met)].toSorted()).toEqual(cases.toSorted());
  });

  test('are some that meet each kind of chain', () => {
    const chains = new Set(
      asked.flatMap(({ world, packet }) =>
        traceIn(world, packet).path.flatMap((rule) => {
          const [, table = '', chain = ''] = /^(\w+) -A USERSPACE-PROXY-(\S+) /.exec(rule) ?? [];
          return chain === '' ? [] : [`${table} ${kindOfChain(chain)}`];
        }),
      ),
    );
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

/** Without what is different from world to world. */
function kindOfChain(chain: string): string {
  return chain
    .replace(/-[TU]\d+$/, '')
    .replace(/^([EF])[0-9a-f]{11}$/, '$1')
    .replace(/^([RX]?)(?:\d+\.\d+\.\d+|[0-9a-f]{11,12})$/, (_, set: string) => `${set} of addresses`.trim());
}
