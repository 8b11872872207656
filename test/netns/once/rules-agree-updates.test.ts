/**
 * What the product's own updates leave in a real kernel, from one random world to the next that has nothing to do with
 * it: every rule that a first start in the latest one would load, in the same words and order, and nothing else. And when
 * the product looks whether somebody has changed its rules, it sees that nobody has, or it would write them for ever.
 *
 * KUP_TEST_SEED loads one world alone; KUP_TEST_LONG=1 tries ten times as many.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { RuleInstaller } from '../../../src/iptables/installer.ts';
import { Iptables } from '../../../src/iptables/iptables.ts';
import { IP_FAMILIES, type IpFamily } from '../../../src/model/address.ts';
import { NetfilterTables } from '../../support/netfilter-tables.ts';
import { canMakeNamespaces, createLab, type Lab } from '../../support/netns-lab.ts';
import { type ProbeWorld, batchesOf, describeWorld, randomWorld } from '../../support/probe-world.ts';
import { seeds } from '../../support/random.ts';
import { withoutWrites } from '../../support/rule-fixture.ts';

const WORLDS = process.env['KUP_TEST_LONG'] === '1' ? 1000 : 100;
const WORLDS_PER_TEST = 50;
/** A test takes about six seconds. */
const TIMEOUT_MS = 60_000;
const SAVE = { IPv4: 'iptables-save', IPv6: 'ip6tables-save' } as const;

describe.skipIf(canMakeNamespaces() !== undefined)('updates in a real kernel', () => {
  let lab: Lab;
  let installers: readonly RuleInstaller[] = [];

  beforeAll(async () => {
    lab = await createLab({ pods: 0, podLinks: 'bridged' });
    installers = IP_FAMILIES.map(
      (family) =>
        new RuleInstaller(
          new Iptables(family, async (command, args, options) =>
            lab.node.exec([command, ...args], { timeoutMs: options.timeoutMs, input: options.input ?? '' }),
          ),
          { generation: () => 1 },
        ),
    );
  });
  afterAll(async () => {
    await lab?.close();
  });

  async function expectSameRules(installer: RuleInstaller, world: ProbeWorld): Promise<void> {
    const { family } = installer;
    await installer.install(world.ruleSets[family]);
    const saved = await lab.node.run([SAVE[family]]);
    expect(chainsOf(saved)).toEqual(chainsOf(freshOf(world, family)));
    expect(await installer.verify(), 'somebody else has changed the rules').toBeUndefined();
  }

  test.each(batchesOf(seeds(WORLDS), WORLDS_PER_TEST))(
    'end in the rules of a first start, through worlds $first to $last',
    { timeout: TIMEOUT_MS },
    async ({ batch }) => {
      for (const seed of batch) {
        const world = randomWorld(seed);
        try {
          await Promise.all(installers.map(async (installer) => expectSameRules(installer, world)));
        } catch (error: unknown) {
          throw new Error(`after that of the seed before\n${describeWorld(world)}`, { cause: error });
        }
      }
    },
  );
});

function freshOf(world: ProbeWorld, family: IpFamily): string {
  const fresh = new NetfilterTables(family === 'IPv4' ? 4 : 6);
  fresh.load(world.rules[family]);
  return `${fresh.save('nat')}${fresh.save('filter')}`;
}

/** The rules of each chain, as `nat USERSPACE-PROXY-…`: in which order chains are printed is the kernel's business. */
function chainsOf(saved: string): Record<string, readonly string[]> {
  const chains: Record<string, string[]> = {};
  let table = '';
  for (const line of withoutWrites(saved).split('\n')) {
    if (line.startsWith('*')) table = line.slice(1);
    const [, sign, chain = '', rule = ''] = /^(:|-A )(\S+) (.*)$/.exec(line) ?? [];
    const key = `${table} ${chain}`;
    if (sign === ':') chains[key] = [];
    else if (sign !== undefined) chains[key]?.push(rule);
  }
  // Which empty built-in chains are printed depends on the kind of iptables.
  return Object.fromEntries(
    Object.entries(chains).filter(([key]) => key.includes('USERSPACE') || (chains[key]?.length ?? 0) > 0),
  );
}
