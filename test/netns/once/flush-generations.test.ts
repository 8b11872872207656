/** One writer: of two instances over the same kernel the older one writes nothing any more, whatever it had decided. */
import { existsSync } from 'node:fs';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { isProxyError } from '../../../src/errors.ts';
import type { Exec } from '../../../src/host/exec.ts';
import { removeRulesOfAll } from '../../../src/iptables/cleanup.ts';
import { highestGeneration } from '../../../src/iptables/generation.ts';
import { RuleInstaller } from '../../../src/iptables/installer.ts';
import { type Flavour, Iptables } from '../../../src/iptables/iptables.ts';
import type { RuleSet } from '../../../src/iptables/rule.ts';
import type { IpFamily } from '../../../src/model/address.ts';
import { type Lab, canMakeNamespaces, createLab } from '../../support/netns-lab.ts';
import { makeService, makeSlice } from '../../support/objects.ts';
import { Random } from '../../support/random.ts';
import { desiredFrom, ruleSetOf, withoutWrites } from '../../support/rule-fixture.ts';

const FLAVOURS: readonly Flavour[] = existsSync('/usr/sbin/iptables-legacy') ? ['nft', 'legacy'] : ['nft'];
const VARIANTS = FLAVOURS.flatMap((flavour) =>
  (['IPv4', 'IPv6'] as const).map((family) => ({ flavour, family, name: `${flavour}, ${family}` })),
);
const TABLES = ['nat', 'filter'] as const;
const RACES = 3;
/** Of the older one in a race. */
const WRITES = 6;
const OLDER = 7;
const NEWER = 8;

function rulesFor(family: IpFamily, ...numbers: readonly number[]): RuleSet {
  const services = numbers.map((number) =>
    makeService(`s${number}`, ({ spec }) => {
      spec.clusterIPs = [`10.96.${number}.10`, `fd00:96::${number}:10`];
    }),
  );
  const address = family === 'IPv4' ? '10.244.1.1' : 'fd00:244:1::1';
  return ruleSetOf(
    desiredFrom(
      services,
      // The last one has no endpoints: a change of nat is one of filter too.
      numbers.slice(1).map((number) => makeSlice(`s${number}`, [address])),
    ),
    family,
  );
}

const lost = expect.objectContaining({ code: 'ERR_OWNERSHIP_LOST' }) as Error;

describe.skipIf(canMakeNamespaces() !== undefined)('on a real kernel', () => {
  let lab: Lab;
  beforeAll(async () => {
    lab = await createLab({ pods: 0, podLinks: 'bridged' });
  });
  afterAll(async () => {
    await lab?.close();
  });

  const exec: Exec = async (command, args, { input, timeoutMs }) =>
    lab.node.exec([command, ...args], { timeoutMs, ...(input === undefined ? {} : { input }) });

  async function contentsOf(iptables: Iptables): Promise<string> {
    const tables = await Promise.all(TABLES.map(async (table) => iptables.save(table)));
    return withoutWrites(tables.join(''))
      .split('\n')
      .filter((line) => line.includes('USERSPACE-PROXY-'))
      .toSorted()
      .join('\n');
  }

  describe.each(VARIANTS)('($name)', ({ flavour, family }) => {
    let iptables: Iptables;
    let older: RuleInstaller;
    let newer: RuleInstaller;

    beforeEach(async () => {
      iptables = new Iptables(family, exec, { flavour });
      older = new RuleInstaller(iptables, { generation: () => OLDER });
      newer = new RuleInstaller(iptables, { generation: () => NEWER });
      await older.install(rulesFor(family, 1, 2));
    });
    afterEach(async () => {
      await removeRulesOfAll([iptables]);
    });

    // What the newer one has is more than what the older one had: by itself no change of the older one would fail.
    test('the older one is refused, learns why, and has changed nothing of either table', async () => {
      await newer.install(rulesFor(family, 1, 2, 3));
      const before = await contentsOf(iptables);
      for (const tables of [['nat', 'filter'], ['filter', 'nat'], ['nat'], ['filter']] as const) {
        await expect(older.install(rulesFor(family, 1, 2, 5), tables)).rejects.toThrow(lost);
        expect(await older.verify()).toBeUndefined();
      }
      expect(await contentsOf(iptables)).toBe(before);
      expect(await highestGeneration([iptables])).toBe(NEWER);
    });

    test.for([
      { name: 'a change', hasInstalled: true },
      { name: 'everything', hasInstalled: false },
    ])(
      'the older one that was about to write $name when the newer one wrote is refused',
      async ({ hasInstalled }) => {
        let isArmed = false;
        const late = new Iptables(
          family,
          async (command, args, options) => {
            // All that it knows of the kernel is from before.
            if (isArmed && command.endsWith('-restore')) await newer.install(rulesFor(family, 1, 2, 3));
            return exec(command, args, options);
          },
          { flavour },
        );
        const installer = new RuleInstaller(late, { generation: () => OLDER });
        if (hasInstalled) await installer.install(rulesFor(family, 1, 2));
        isArmed = true;
        await expect(installer.install(rulesFor(family, 1, 2, 5))).rejects.toThrow(lost);
        const after = await contentsOf(iptables);
        await new RuleInstaller(iptables, { generation: () => NEWER }).install(rulesFor(family, 1, 2, 3));
        expect(after).toBe(await contentsOf(iptables));
      },
    );

    test('two that write at the same time end in the rules of the newer one', async () => {
      const random = new Random(1);
      const late = rulesFor(family, 1, 201);
      for (let race = 0; race < RACES; race += 1) {
        await removeRulesOfAll([iptables]);
        older = new RuleInstaller(iptables, { generation: () => OLDER });
        newer = new RuleInstaller(iptables, { generation: () => NEWER });
        await older.install(rulesFor(family, 1, 2));
        await Promise.all([
          writeSome(older, family, random),
          installed(newer, rulesFor(family, 3, 4), random.below(3)),
        ]);
        await expect(older.install(late)).rejects.toThrow(lost);
        const raced = await contentsOf(iptables);
        await removeRulesOfAll([iptables]);
        await new RuleInstaller(iptables, { generation: () => NEWER }).install(rulesFor(family, 3, 4));
        expect(raced).toBe(await contentsOf(iptables));
      }
    });
  });

  test.runIf(FLAVOURS.length === 2)(
    'one that uses the other iptables takes the rules out of this one, and keeps its writer out',
    async () => {
      const legacy = new Iptables('IPv4', exec, { flavour: 'legacy' });
      const older = new RuleInstaller(legacy, { generation: () => OLDER });
      await older.install(rulesFor('IPv4', 1, 2));
      const nft = new Iptables('IPv4', exec, { flavour: 'nft', former: legacy });
      expect(await highestGeneration([nft])).toBe(OLDER);
      const newer = new RuleInstaller(nft, { generation: () => NEWER });

      await newer.install(rulesFor('IPv4', 3, 4), ['filter']);
      expect(await contentsOf(legacy), 'the old rules stay until the new ones are whole').toContain(
        '10.96.2',
      );
      await newer.install(rulesFor('IPv4', 3, 4));

      expect((await contentsOf(legacy)).match(/^-A .*/gm)).toEqual([
        `-A USERSPACE-PROXY-CANARY -m comment --comment "generation ${NEWER}" -j RETURN`,
        `-A USERSPACE-PROXY-CANARY -m comment --comment "generation ${NEWER}" -j RETURN`,
      ]);
      await expect(older.install(rulesFor('IPv4', 1, 2, 5))).rejects.toThrow(lost);
      await expect(older.install(rulesFor('IPv4', 1, 2, 5))).rejects.toThrow(lost);
      expect(await contentsOf(nft)).toContain('10.96.4');
      expect(await removeRulesOfAll([nft, legacy])).toBe(true);
      expect(await contentsOf(legacy)).toBe('');
      expect(await contentsOf(nft)).toBe('');
    },
  );
});

/** Changes its mind a few times; that it is not the owner, or that the other one was in its way, is of the race. */
async function writeSome(installer: RuleInstaller, family: IpFamily, random: Random): Promise<void> {
  for (let write = 0; write < WRITES; write += 1) {
    const tables = random.pick([['nat', 'filter'], ['filter', 'nat'], ['filter']] as const);
    try {
      await installer.install(rulesFor(family, 1, 2 + random.below(200)), tables);
    } catch (error) {
      if (isProxyError(error, 'ERR_OWNERSHIP_LOST')) return;
      if (!isProxyError(error, 'ERR_IPTABLES_RESTORE')) throw error;
    }
  }
}

/** As the runner does: a pass that fails is made again. */
async function installed(installer: RuleInstaller, rules: RuleSet, passes: number): Promise<void> {
  for (let pass = 0; pass <= passes; ) {
    try {
      await installer.install(rules, pass < passes ? ['filter'] : TABLES);
      pass += 1;
    } catch (error) {
      if (!isProxyError(error, 'ERR_IPTABLES_RESTORE')) throw error;
    }
  }
}
