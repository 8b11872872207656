/**
 * Whatever was loaded before, an update ends in the rules that a first start would load: for pairs of worlds that have
 * nothing to do with each other, so that nearly every chain comes, goes or says something else. (Small steps, with faults
 * on the way, are sync/random-edits.test.ts; a real kernel is netns/once/rules-agree-updates.test.ts.)
 *
 * KUP_TEST_SEED repeats one pair; KUP_TEST_LONG=1 tries ten times as many.
 */
import { expect, test } from 'vitest';
import { RuleInstaller } from '../../src/iptables/installer.ts';
import { Iptables } from '../../src/iptables/iptables.ts';
import { IP_FAMILIES, type IpFamily } from '../../src/model/address.ts';
import { KernelExec } from '../support/fake-exec.ts';
import { NetfilterTables } from '../support/netfilter-tables.ts';
import { type ProbeWorld, batchesOf, describeWorld, randomWorld } from '../support/probe-world.ts';
import { seeds } from '../support/random.ts';
import { withoutWrites } from '../support/rule-fixture.ts';

const WORLDS = process.env['KUP_TEST_LONG'] === '1' ? 10_000 : 1000;
const WORLDS_PER_TEST = 100;
/** A test takes about a second. */
const TIMEOUT_MS = 60_000;

function saved(tables: NetfilterTables): string {
  return withoutWrites(['nat', 'filter'].map((table) => tables.save(table)).join(''));
}

async function expectSameRules(family: IpFamily, before: ProbeWorld, world: ProbeWorld): Promise<void> {
  const kernel = new KernelExec();
  const installer = new RuleInstaller(new Iptables(family, kernel.exec), { generation: () => 1 });
  await installer.install(before.ruleSets[family]);
  const { kind } = await installer.install(world.ruleSets[family]);
  expect(kind).not.toBe('full');
  const fresh = new NetfilterTables(family === 'IPv4' ? 4 : 6);
  fresh.load(world.rules[family]);
  expect(saved(kernel.tables[family])).toBe(saved(fresh));
}

test.each(batchesOf(seeds(WORLDS), WORLDS_PER_TEST))(
  'from each of worlds $first to $last an update to the world after next ends in the rules of its first start',
  { timeout: TIMEOUT_MS },
  async ({ batch }) => {
    for (const seed of batch) {
      // The next one is captured in the other way, which no update leads to.
      const [before, world] = [randomWorld(seed), randomWorld(seed + 2)];
      try {
        for (const family of IP_FAMILIES) await expectSameRules(family, before, world);
      } catch (error: unknown) {
        throw new Error(`from\n${describeWorld(before)}\nto\n${describeWorld(world)}`, { cause: error });
      }
    }
  },
);
