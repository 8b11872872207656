/**
 * What others do to our rules, in either iptables: it is noticed, mended within the sync period and five seconds, and
 * counted by what it was, while established connections go on.
 */
import { existsSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { ForeignChange } from '../../../src/iptables/foreign-change.ts';
import { type Family, clusterIP, dualStackObjects } from '../../support/dual-stack.ts';
import { canMakeNamespaces, createLab, type Lab } from '../../support/netns-lab.ts';
import { manifestText } from '../../support/objects.ts';
import { ProxyProcess } from '../../support/proxy-process.ts';
import { withoutWrites } from '../../support/rule-fixture.ts';
import { waitFor } from '../../support/wait.ts';

const SYNC_PERIOD_MS = 2_000;
/** `--iptables-sync-period` and five seconds. */
const MENDED_MS = SYNC_PERIOD_MS + 5_000;
const hasLegacy = existsSync('/usr/sbin/iptables-legacy');

type Flavour = 'nft' | 'legacy';
const FLAVOURS: readonly Flavour[] = hasLegacy ? ['nft', 'legacy'] : ['nft'];
const FAMILIES: readonly Family[] = ['IPv4', 'IPv6'];

interface Damage {
  readonly name: string;
  readonly counted: ForeignChange;
  /** Arguments of iptables, one call each; for both families. */
  readonly calls?: readonly (readonly string[])[];
  /** What iptables-restore reads, without `--noflush`. */
  readonly restore?: string;
  /** Takes away what is not ours. */
  readonly undo?: readonly (readonly string[])[];
}

const nat = (...args: readonly string[]): readonly string[] => ['-t', 'nat', ...args];
const JUMP = ['-m', 'comment', '--comment', 'Service portals', '-j', 'USERSPACE-PROXY-SERVICES'];

const DAMAGES: readonly Damage[] = [
  { name: 'nat is flushed', counted: 'flush', calls: [nat('-F')] },
  { name: 'filter is flushed', counted: 'flush', calls: [['-F']] },
  {
    name: 'both are flushed and all our chains deleted',
    counted: 'flush',
    restore: '*nat\nCOMMIT\n*filter\nCOMMIT\n',
  },
  { name: 'only the jump for pods is deleted', counted: 'jump', calls: [nat('-D', 'PREROUTING', ...JUMP)] },
  {
    name: 'our jump stands behind kube-proxy’s',
    counted: 'jump',
    calls: [nat('-N', 'KUBE-SERVICES'), nat('-I', 'OUTPUT', '1', '-j', 'KUBE-SERVICES')],
    undo: [nat('-D', 'OUTPUT', '-j', 'KUBE-SERVICES'), nat('-X', 'KUBE-SERVICES')],
  },
  {
    name: 'the guard’s last rule is replaced by another',
    counted: 'rules',
    calls: [['-R', 'USERSPACE-PROXY-REFUSE', '3', '-j', 'ACCEPT']],
  },
];

/** What nft can flush of ours: to iptables-legacy's rules it does nothing. */
const FLUSHED_BY_NFT: Readonly<Record<Flavour, readonly (readonly [readonly string[]])[]>> = {
  nft: [[['ruleset']]],
  legacy: [],
};

describe.skipIf(canMakeNamespaces() !== undefined).each(FLAVOURS)('with iptables-%s', (flavour) => {
  let lab: Lab;
  let proxy: ProxyProcess;
  const held: number[] = [];

  const program = (family: Family, verb: '' | '-save' | '-restore' = ''): string =>
    `${family === 'IPv4' ? 'iptables' : 'ip6tables'}-${flavour}${verb}`;

  beforeAll(async () => {
    lab = await createLab({ pods: 2 });
    // As the kubelet does it: this is how the proxy knows which one to use.
    await lab.node.run([program('IPv4'), '-t', 'mangle', '-N', 'KUBE-IPTABLES-HINT']);
    await (await lab.pod(1).agent()).serveTcp({ port: 8080, mode: 'identify-echo', name: 'pod1' });
    const objects = dualStackObjects({
      name: 'web',
      number: 10,
      ports: [{ name: 'http', port: 80, targetPort: 8080 }],
      backends: [lab.pod(1)],
    });
    proxy = await ProxyProcess.start(lab.node, {
      manifests: { 'web.yaml': manifestText(...objects) },
      args: [`--iptables-sync-period=${SYNC_PERIOD_MS}ms`],
    });
    const client = await lab.pod(2).agent();
    for (const family of FAMILIES) {
      const group = await client.tcpHold({ host: clusterIP(10, family), port: 80, count: 1, named: true });
      if (group.byName['pod1'] !== 1) throw new Error(`not served over ${family}`);
      held.push(group.id);
    }
  });
  afterAll(async () => {
    await proxy?.[Symbol.asyncDispose]();
    await lab?.close();
  });

  /** Our rules of both families in the order of their names: chains are printed in that of their making. */
  const ours = async (): Promise<string> => {
    const saved = await Promise.all(FAMILIES.map(async (family) => lab.node.run([program(family, '-save')])));
    const lines = saved.join('').split('\n');
    const own = lines.filter((line) => line.includes('USERSPACE-PROXY-')).toSorted();
    return withoutWrites(own.join('\n'));
  };
  const resyncs = async (reason: string): Promise<number> =>
    proxy.metric('userspace_proxy_iptables_resyncs_total', { reason });
  const expectHeldToWork = async (): Promise<void> => {
    const client = await lab.pod(2).agent();
    for (const id of held) expect(await client.heldUse({ id, timeoutMs: 10_000 })).toMatchObject({ ok: 1 });
  };
  const expectServed = async (): Promise<void> => {
    const client = await lab.pod(2).agent();
    for (const family of FAMILIES) {
      const answers = await client.tcpIdentify({ host: clusterIP(10, family), port: 80, count: 1 });
      expect(answers).toMatchObject([{ name: 'pod1' }]);
    }
  };
  /** Does the damage to both families; the connections of before are used while it lasts, too. */
  const mended = async (
    spoil: (family: Family) => Promise<unknown>,
    counted: ForeignChange,
  ): Promise<void> => {
    const before = await ours();
    const countBefore = await resyncs(counted);
    await Promise.all(FAMILIES.map(spoil));
    const meanwhile = expectHeldToWork();
    const isMended = async (): Promise<boolean> =>
      (await resyncs(counted)) >= countBefore + FAMILIES.length && (await ours()) === before;
    await waitFor(isMended, { timeoutMs: MENDED_MS, what: `the rules to be back, counted as ${counted}` });
    await expectServed();
    await meanwhile;
    await expectHeldToWork();
  };

  test('chooses it by the hint that Kubernetes leaves', async () => {
    expect(await ours()).toContain('USERSPACE-PROXY-SERVICES');
    await proxy.logged(
      (line) => line['msg'] === 'iptables chosen' && line['flavour'] === flavour,
      'which iptables was chosen',
    );
    await expectServed();
  });

  test.for(DAMAGES)('all is as before when $name', async ({ calls = [], restore, counted, undo = [] }) => {
    const run = async (family: Family, all: readonly (readonly string[])[]): Promise<void> => {
      for (const args of all) await lab.node.run([program(family), '-w', '5', ...args]);
    };
    const spoil = async (family: Family): Promise<void> => {
      await run(family, calls);
      if (restore !== undefined) await lab.node.run([program(family, '-restore')], { input: restore });
    };
    await mended(spoil, counted);
    for (const family of FAMILIES) await run(family, undo);
  });

  test.each(FLUSHED_BY_NFT[flavour])('all is as before when nft flushes %s', async (what) => {
    await mended(async (family) => family === 'IPv4' && lab.node.run(['nft', 'flush', ...what]), 'flush');
  });

  test('was told in the log, with what had been done', async () => {
    const told = proxy.log.filter((line) => String(line['msg']).startsWith('Rules were changed by another'));
    const changes = new Set(told.map((line) => `${String(line['family'])} ${String(line['change'])}`));
    for (const change of ['flush', 'jump', 'rules'])
      for (const family of FAMILIES) expect(changes).toContain(`${family} ${change}`);
  });
});
