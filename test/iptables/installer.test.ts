/** RuleInstaller: how often it starts a program, and what it trusts. */
import { beforeEach, describe, expect, test } from 'vitest';
import { RuleInstaller } from '../../src/iptables/installer.ts';
import { Iptables } from '../../src/iptables/iptables.ts';
import type { RuleSet } from '../../src/iptables/rule.ts';
import { KernelExec } from '../support/fake-exec.ts';
import { makeService, makeSlice } from '../support/objects.ts';
import { NetfilterTables } from '../support/netfilter-tables.ts';
import { desiredFrom, firstLoadOf, ruleSetOf } from '../support/rule-fixture.ts';

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
  installer = new RuleInstaller(new Iptables('IPv4', kernel.exec));
});

function expectKernelToHold(rules: RuleSet): void {
  const fresh = new NetfilterTables(4);
  fresh.load(firstLoadOf(rules));
  for (const table of ['nat', 'filter']) expect(kernel.tables.IPv4.save(table)).toBe(fresh.save(table));
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
    const successor = new RuleInstaller(new Iptables('IPv4', kernel.exec));
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
  test('is false, and reads nothing, while nothing is installed', async () => {
    expect(await installer.verify()).toBe(false);
    expect(kernel.calls).toEqual([]);
  });

  test('is false while the kernel holds what was installed, and the next install writes nothing', async () => {
    await installer.install(rulesFor('web'));
    expect(await installer.verify()).toBe(false);
    expect((await installer.install(rulesFor('web'))).kind).toBe('unchanged');
  });

  test.each([
    { name: 'a flush', change: '*nat\n:USERSPACE-PROXY-SERVICES - [0:0]\nCOMMIT\n' },
    {
      name: 'a jump that was removed',
      change: '*nat\n-D OUTPUT -m comment --comment "Service portals" -j USERSPACE-PROXY-SERVICES\nCOMMIT\n',
    },
    {
      name: 'kube-proxy before us',
      change: '*nat\n:KUBE-SERVICES - [0:0]\n-I PREROUTING 1 -j KUBE-SERVICES\nCOMMIT\n',
    },
    {
      name: 'a rule of theirs in a chain of ours',
      change: '*filter\n-A USERSPACE-PROXY-INPUT -j ACCEPT\nCOMMIT\n',
    },
    {
      name: 'our chain gone altogether',
      change:
        '*nat\n:USERSPACE-PROXY-SERVICES - [0:0]\n:USERSPACE-PROXY-10.96.0 - [0:0]\n-X USERSPACE-PROXY-10.96.0\nCOMMIT\n',
    },
  ])('is true after $name, and the next install mends it', async ({ change }) => {
    await installer.install(rulesFor('web'));
    kernel.tables.IPv4.load(change);
    expect(await installer.verify()).toBe(true);
    expect((await installer.install(rulesFor('web'))).kind).toBe('full');
    expect(await installer.verify()).toBe(false);
  });

  test('is false after changes to rules that are not ours', async () => {
    await installer.install(rulesFor('web'));
    kernel.tables.IPv4.load(
      '*filter\n:DOCKER-USER - [0:0]\n-A FORWARD -j DOCKER-USER\n-A INPUT -j ACCEPT\nCOMMIT\n',
    );
    expect(await installer.verify()).toBe(false);
  });
});
