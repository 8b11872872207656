/**
 * The tracer agrees with a real kernel about what generated rules do, packet by packet and rule by rule, in 500 random
 * worlds: both ways of capture, both families loaded in each. What the same packets ought to come to is
 * iptables/intent.test.ts.
 *
 * KUP_TEST_SEED repeats one world; KUP_TEST_LONG=1 tries ten times as many.
 */
import { afterAll, beforeAll, describe, test } from 'vitest';
import type { IntentPacket } from '../../support/intent.ts';
import { KernelFate, disagreements } from '../../support/kernel-fate.ts';
import { canMakeNamespaces, createLab, type Lab } from '../../support/netns-lab.ts';
import { packetsFor } from '../../support/probe-plan.ts';
import { type ProbeWorld, batchesOf, describeWorld, randomWorld } from '../../support/probe-world.ts';
import type { Probe } from '../../support/probe.ts';
import { seeds } from '../../support/random.ts';

const WORLDS = process.env['KUP_TEST_LONG'] === '1' ? 5000 : 500;
const WORLDS_PER_TEST = 50;
/** A test takes six seconds or so. */
const TIMEOUT_MS = 60_000;

describe.skipIf(canMakeNamespaces() !== undefined)('tracer and kernel agree on the rules', () => {
  let lab: Lab;
  let kernel: KernelFate;
  let addedAddresses: readonly string[] = [];

  beforeAll(async () => {
    lab = await createLab({ pods: 1, podLinks: 'bridged' });
    kernel = await KernelFate.open(lab);
    // A host asks for its neighbour from the address it sends from, if that is its own; otherwise from its link-local
    // one, which is not ready in a new lab, and what waits for the answer would be lost.
    const probes = [lab.pod(1), lab.ext].flatMap((from) =>
      [lab.node.ipv4, lab.node.ipv6].map((dst): Probe => ({ from, dst, dport: 9, protocol: 'udp' })),
    );
    await kernel.probe({}, probes);
  });
  afterAll(async () => {
    await kernel?.[Symbol.asyncDispose]();
    await lab?.close();
  });

  async function giveNode(addresses: readonly string[]): Promise<void> {
    if (addresses.join() === addedAddresses.join()) return;
    const change = (verb: string, address: string): string =>
      address.includes(':')
        ? `ip address ${verb} ${address}/128 dev lo${verb === 'add' ? ' nodad' : ''}`
        : `ip address ${verb} ${address}/32 dev lo`;
    const script = [
      ...addedAddresses.map((address) => change('delete', address)),
      ...addresses.map((address) => change('add', address)),
    ];
    await lab.node.run(['sh', '-ec', script.join('\n')]);
    addedAddresses = addresses;
  }

  function probeOf({ from, src, dst, dport, protocol, isInvalid }: IntentPacket): Probe {
    const host = { pod: lab.pod(1), ext: lab.ext, node: lab.node }[from];
    return { from: host, src, dst, dport, protocol, isInvalid };
  }

  async function check(world: ProbeWorld): Promise<void> {
    let differences: readonly string[];
    try {
      await giveNode(world.addedAddresses);
      differences = await disagreements(kernel, world.rules, packetsFor(world).map(probeOf));
    } catch (error: unknown) {
      throw new Error(describeWorld(world), { cause: error });
    }
    if (differences.length > 0) {
      const some = differences.slice(0, 5).join('\n');
      throw new Error(`${differences.length} disagreements\n${some}\n${describeWorld(world)}`);
    }
  }

  test.each(batchesOf(seeds(WORLDS), WORLDS_PER_TEST))(
    'of worlds $first to $last',
    { timeout: TIMEOUT_MS },
    async ({ batch }) => {
      const worlds = batch.map((seed) => randomWorld(seed));
      const byAddresses = Map.groupBy(worlds, (world) => world.addedAddresses.join());
      for (const world of [...byAddresses.values()].flat()) await check(world);
    },
  );
});
