/** RuleInstaller: how often it starts a program, and what it trusts. */
import { beforeEach, describe, expect, test } from 'vitest';
import type { Exec } from '../../src/host/exec.ts';
import { CANARY } from '../../src/iptables/canary.ts';
import { highestGeneration } from '../../src/iptables/generation.ts';
import { RuleInstaller } from '../../src/iptables/installer.ts';
import { Iptables } from '../../src/iptables/iptables.ts';
import { type RuleSet, type TableName, renderRuleSpec } from '../../src/iptables/rule.ts';
import { KernelExec } from '../support/fake-exec.ts';
import { makeService, makeSlice } from '../support/objects.ts';
import { NetfilterTables } from '../support/netfilter-tables.ts';
import { desiredFrom, firstLoadOf, ruleSetOf, withoutWrites } from '../support/rule-fixture.ts';

function rulesFor(...names: readonly string[]): RuleSet {
  const services = names.map((name, index) =>
    makeService(name, ({ spec }) => void (spec.clusterIP = `10.96.${index}.10`)),
  );
  return ruleSetOf(
    desiredFrom(
      services,
      names.map((name) => makeSlice(name, ['10.244.1.1'])),
    ),
  );
}

let kernel: KernelExec;
let installer: RuleInstaller;

beforeEach(() => {
  kernel = new KernelExec();
  installer = new RuleInstaller(new Iptables('IPv4', kernel.exec), { generation: () => 1 });
});

function expectKernelToHold(rules: RuleSet, generation = 1): void {
  const fresh = new NetfilterTables(4);
  fresh.load(firstLoadOf(rules).replaceAll('"generation 1,', `"generation ${generation},`));
  for (const table of ['nat', 'filter']) {
    expect(withoutWrites(kernel.tables.IPv4.save(table))).toBe(withoutWrites(fresh.save(table)));
  }
}

describe('install', () => {
  test('at first reads both tables, and writes them with one restore, nat before filter', async () => {
    const installed = await installer.install(rulesFor('web'));
    expect(installed.kind).toBe('full');
    expect(installed.rulesWritten.nat).toBeGreaterThan(0);
    expect(kernel.reads).toBe(2);
    expect(kernel.restores).toHaveLength(1);
    expect(kernel.restores[0]?.match(/^\*\w+$/gm)).toEqual(['*nat', '*filter']);
    expectKernelToHold(rulesFor('web'));
  });

  test('starts no program when nothing changed', async () => {
    await installer.install(rulesFor('web'));
    const calls = kernel.calls.length;
    expect(await installer.install(rulesFor('web'))).toEqual({
      kind: 'unchanged',
      rulesWritten: { nat: 0, filter: 0 },
    });
    expect(kernel.calls).toHaveLength(calls);
  });

  test('writes what changed with one restore, without reading again', async () => {
    await installer.install(rulesFor('web'));
    const { kind } = await installer.install(rulesFor('web', 'zoo'));
    expect(kind).toBe('partial');
    expect(kernel.reads).toBe(2);
    expect(kernel.restores).toHaveLength(2);
    expectKernelToHold(rulesFor('web', 'zoo'));
  });

  test('of one table leaves the other alone until it is asked for', async () => {
    const untouched = kernel.tables.IPv4.save('nat');
    await installer.install(rulesFor('web'), ['filter']);
    expect(kernel.tables.IPv4.save('nat')).toBe(untouched);
    const { kind } = await installer.install(rulesFor('web'));
    expect(kind).toBe('full');
    expect(kernel.restores[1]).not.toContain('*filter');
    expectKernelToHold(rulesFor('web'));
  });

  test('takes over what an earlier instance left', async () => {
    await installer.install(rulesFor('web', 'old'));
    const successor = new RuleInstaller(new Iptables('IPv4', kernel.exec), { generation: () => 1 });
    expect((await successor.install(rulesFor('web'))).kind).toBe('full');
    expectKernelToHold(rulesFor('web'));
  });
});

describe('after a restore that failed', () => {
  let failure: unknown;

  beforeEach(async () => {
    await installer.install(rulesFor('web'));
    kernel.restoreFault = { exitCode: 1, stdout: '', stderr: 'iptables-restore: line 1 failed\n' };
    failure = await installer.install(rulesFor('web', 'zoo')).catch((error: unknown) => error);
    kernel.restoreFault = undefined;
  });

  test('the caller knows', () => {
    expect(failure).toMatchObject({ code: 'ERR_IPTABLES_RESTORE' });
  });

  test('the kernel is read again and every chain of ours is rewritten', async () => {
    const reads = kernel.reads;
    const { kind } = await installer.install(rulesFor('web', 'zoo'));
    expect(kind).toBe('full');
    expect(kernel.reads).toBe(reads + 2);
    expect(kernel.restores.at(-1)).toContain(':USERSPACE-PROXY-10.96.0 - [0:0]');
    expectKernelToHold(rulesFor('web', 'zoo'));
  });

  test('even what was installed before is written anew', async () => {
    expect((await installer.install(rulesFor('web'))).kind).toBe('full');
    expectKernelToHold(rulesFor('web'));
  });
});

describe('verify', () => {
  test('finds nothing, and reads nothing, while nothing is installed', async () => {
    expect(await installer.verify()).toBeUndefined();
    expect(kernel.calls).toEqual([]);
  });

  test('finds nothing while the kernel holds what was installed, and the next install writes nothing', async () => {
    await installer.install(rulesFor('web'));
    expect(await installer.verify()).toBeUndefined();
    expect((await installer.install(rulesFor('web'))).kind).toBe('unchanged');
  });

  test.each([
    { name: 'a flush of nat', finds: 'flush', change: flushOf('nat') },
    { name: 'a flush of filter', finds: 'flush', change: flushOf('filter') },
    {
      name: 'a jump that was removed',
      finds: 'jump',
      change: '*nat\n-D OUTPUT -m comment --comment "Service portals" -j USERSPACE-PROXY-SERVICES\nCOMMIT\n',
    },
    {
      name: 'a jump that is for one interface only',
      finds: 'jump',
      change:
        '*nat\n-D PREROUTING -m comment --comment "Service portals" -j USERSPACE-PROXY-SERVICES\n-I PREROUTING 1 -i eth0 -j USERSPACE-PROXY-SERVICES\nCOMMIT\n',
    },
    {
      name: 'kube-proxy before us',
      finds: 'jump',
      change: '*nat\n:KUBE-SERVICES - [0:0]\n-I PREROUTING 1 -j KUBE-SERVICES\nCOMMIT\n',
    },
    {
      name: 'a rule of theirs in a chain of ours',
      finds: 'rules',
      change: '*filter\n-A USERSPACE-PROXY-INPUT -j ACCEPT\nCOMMIT\n',
    },
    {
      name: 'a chain of ours that lost its rules',
      finds: 'rules',
      change: '*nat\n:USERSPACE-PROXY-SERVICES - [0:0]\nCOMMIT\n',
    },
    {
      name: 'a rule of ours in the place of which there is another',
      finds: 'rules',
      change:
        '*nat\n:USERSPACE-PROXY-10.96.0 - [0:0]\n-A USERSPACE-PROXY-10.96.0 -d 10.96.0.10/32 -p tcp -m tcp --dport 80 -j REDIRECT --to-ports 1\nCOMMIT\n',
    },
    {
      name: 'a rule of theirs beside the canary',
      finds: 'rules',
      change: '*nat\n-A USERSPACE-PROXY-CANARY -j ACCEPT\nCOMMIT\n',
    },
    {
      name: 'a chain with our prefix that is none of ours',
      finds: 'rules',
      change: '*nat\n:USERSPACE-PROXY-OTHER - [0:0]\nCOMMIT\n',
    },
    {
      name: 'our chain gone altogether',
      finds: 'flush',
      change:
        '*nat\n:USERSPACE-PROXY-SERVICES - [0:0]\n:USERSPACE-PROXY-10.96.0 - [0:0]\n-X USERSPACE-PROXY-10.96.0\nCOMMIT\n',
    },
  ] as const)('finds $finds after $name, and the next install mends it', async ({ change, finds }) => {
    await installer.install(rulesFor('web'));
    kernel.tables.IPv4.load(change);
    expect(await installer.verify()).toBe(finds);
    expect(await installer.install(rulesFor('web'))).toMatchObject({ kind: 'full', reason: finds });
    expect(await installer.verify()).toBeUndefined();
  });

  test('finds the gravest of several changes', async () => {
    await installer.install(rulesFor('web'));
    kernel.tables.IPv4.load('*nat\n-A USERSPACE-PROXY-SERVICES -j ACCEPT\nCOMMIT\n');
    kernel.tables.IPv4.load(flushOf('filter'));
    expect(await installer.verify()).toBe('flush');
  });

  test('finds nothing after changes to rules that are not ours', async () => {
    await installer.install(rulesFor('web'));
    kernel.tables.IPv4.load(
      '*filter\n:DOCKER-USER - [0:0]\n-A FORWARD -j DOCKER-USER\n-A INPUT -j ACCEPT\nCOMMIT\n',
    );
    expect(await installer.verify()).toBeUndefined();
  });

  test('knows how many rules of others stand before each of our jumps', async () => {
    await installer.install(rulesFor('web'));
    expect(installer.rulesAhead.map(({ count }) => count)).toEqual([0, 0, 0, 0, 0]);
    kernel.tables.IPv4.load('*filter\n:cali - [0:0]\n-I INPUT 1 -j cali\n-I INPUT 1 -j ACCEPT\nCOMMIT\n');
    expect(await installer.verify()).toBeUndefined();
    expect(installer.rulesAhead).toContainEqual({
      table: 'filter',
      hook: 'INPUT',
      count: 2,
      first: '-j ACCEPT',
    });
    expect(installer.rulesAhead.filter(({ count }) => count > 0)).toHaveLength(1);
    const successor = new RuleInstaller(new Iptables('IPv4', kernel.exec), { generation: () => 2 });
    await successor.install(rulesFor('web'));
    expect(successor.rulesAhead).toEqual(installer.rulesAhead);
  });
});

/** As `iptables -F` leaves it: every chain, none with a rule. */
function flushOf(table: TableName): string {
  const rules = rulesFor('web')[table];
  const jumps = rules.hooks.map(({ hook, rule }) => `-D ${hook} ${renderRuleSpec(rule, 'IPv4')}`);
  const chains = [CANARY, ...rules.chains.keys()].map((chain) => `:${chain} - [0:0]`);
  return [`*${table}`, ...jumps, ...chains, 'COMMIT', ''].join('\n');
}

describe('with an iptables that prints rules in another way than they are written', () => {
  /** Addresses before protocols become protocols before addresses. */
  const reorder = (text: string): string => text.replaceAll(/(-d \S+) (-p \S+)/g, '$2 $1');

  beforeEach(() => {
    const exec: Exec = async (...call) => {
      const result = await kernel.exec(...call);
      return { ...result, stdout: reorder(result.stdout) };
    };
    installer = new RuleInstaller(new Iptables('IPv4', exec), { generation: () => 1 });
  });

  test('rules are written twice at most, and never again while nothing changes', async () => {
    await installer.install(rulesFor('web'));
    expect(await installer.verify()).toBe('rules');
    await installer.install(rulesFor('web'));
    for (let look = 0; look < 3; look += 1) expect(await installer.verify()).toBeUndefined();
  });

  test('a change of ours is no change of theirs, and one of theirs is found', async () => {
    await installer.install(rulesFor('web'));
    await installer.verify();
    await installer.install(rulesFor('web'));
    await installer.install(rulesFor('web', 'zoo'));
    expect(await installer.verify()).toBeUndefined();
    kernel.tables.IPv4.load(
      '*nat\n:USERSPACE-PROXY-10.96.1 - [0:0]\n-A USERSPACE-PROXY-10.96.1 -j RETURN\nCOMMIT\n',
    );
    expect(await installer.verify()).toBe('rules');
  });
});

describe('what the kernel refuses because somebody has changed it', () => {
  test.each([
    { name: 'nat was flushed', finds: 'flush', change: flushOf('nat') },
    { name: 'filter was flushed', finds: 'flush', change: flushOf('filter') },
  ] as const)('is written anew at once, and told: $name', async ({ finds, change }) => {
    await installer.install(rulesFor('web'));
    kernel.tables.IPv4.load(change);
    expect(await installer.install(rulesFor('web', 'zoo'))).toMatchObject({ kind: 'full', reason: finds });
    expectKernelToHold(rulesFor('web', 'zoo'));
  });

  test('in one table, and the other is looked at by the next install', async () => {
    await installer.install(rulesFor('web'));
    for (const table of ['nat', 'filter'] as const) kernel.tables.IPv4.load(flushOf(table));
    expect(await installer.install(rulesFor('web', 'zoo'), ['filter'])).toMatchObject({ reason: 'flush' });
    expect(await installer.install(rulesFor('web', 'zoo'))).toMatchObject({ kind: 'full', reason: 'flush' });
    expectKernelToHold(rulesFor('web', 'zoo'));
  });
});

describe('of two instances', () => {
  let older: RuleInstaller;
  let newer: RuleInstaller;
  const lost = expect.objectContaining({ code: 'ERR_OWNERSHIP_LOST' }) as Error;
  const contents = (): string => kernel.tables.IPv4.save('nat') + kernel.tables.IPv4.save('filter');

  beforeEach(async () => {
    older = new RuleInstaller(new Iptables('IPv4', kernel.exec), { generation: () => 7 });
    newer = new RuleInstaller(new Iptables('IPv4', kernel.exec), { generation: () => 8 });
    await older.install(rulesFor('web'));
  });

  test('the older one is refused by the kernel, learns why, and has changed nothing', async () => {
    await newer.install(rulesFor('zoo'));
    const before = contents();
    await expect(older.install(rulesFor('web', 'late'))).rejects.toThrow(lost);
    await expect(older.install(rulesFor('web', 'late'))).rejects.toThrow(lost);
    expect(contents()).toBe(before);
  });

  test('the older one learns it by looking, too', async () => {
    await newer.install(rulesFor('zoo'));
    await expect(older.verify()).rejects.toThrow(lost);
  });

  test('the older one can write neither table after the first write of the newer one', async () => {
    await newer.install(rulesFor('zoo'), ['filter']);
    const before = contents();
    for (const table of ['nat', 'filter'] as const)
      await expect(older.install(rulesFor('web', 'late'), [table])).rejects.toThrow(lost);
    expect(contents()).toBe(before);
  });

  test('one that had read the kernel before the newer one wrote is refused all the same', async () => {
    const late = new RuleInstaller(
      new Iptables('IPv4', async (command, args, options) => {
        // Between its reading and its writing.
        if (command.endsWith('-restore')) await newer.install(rulesFor('zoo'));
        return kernel.exec(command, args, options);
      }),
      { generation: () => 6 },
    );
    kernel.tables.IPv4.load(flushOf('nat'));
    kernel.tables.IPv4.load(flushOf('filter'));
    await expect(late.install(rulesFor('late'))).rejects.toThrow(lost);
    expectKernelToHold(rulesFor('zoo'), 8);
  });

  test('the newer one takes over what it finds, and the older one with a newer generation takes it back', async () => {
    expect(await newer.install(rulesFor('web'))).toMatchObject({ kind: 'full', reason: 'start' });
    expectKernelToHold(rulesFor('web'), 8);
    let generation = 7;
    const back = new RuleInstaller(new Iptables('IPv4', kernel.exec), { generation: () => generation });
    await expect(back.install(rulesFor('web'))).rejects.toThrow(lost);
    generation = 9;
    await back.install(rulesFor('web'));
    await new RuleInstaller(new Iptables('IPv4', kernel.exec), { generation: () => 10 }).install(
      rulesFor('zoo'),
    );
    generation = 11;
    expect(await back.verify(), 'nobody has done anything to our rules').toBeUndefined();
    expect(await back.install(rulesFor('web'))).toMatchObject({ kind: 'full', reason: 'start' });
    expectKernelToHold(rulesFor('web'), 11);
    expect(
      await highestGeneration([new Iptables('IPv4', kernel.exec), new Iptables('IPv6', kernel.exec)]),
    ).toBe(11);
  });
});
