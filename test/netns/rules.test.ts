/** The rules in the kernel: written when they must be, only then, and again when somebody else spoilt them. */
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { clusterIP, dualStackObjects } from '../support/dual-stack.ts';
import { IptablesWrapper } from '../support/iptables-wrapper.ts';
import { canMakeNamespaces, createLab, type Lab } from '../support/netns-lab.ts';
import { manifestText } from '../support/objects.ts';
import { ProxyProcess } from '../support/proxy-process.ts';
import { withoutWrites } from '../support/rule-fixture.ts';
import { waitFor } from '../support/wait.ts';

const SYNC_PERIOD_MS = 1_000;
const NODE_PORT = 30_080;
const PORTS = [{ name: 'http', port: 80, targetPort: 8080, nodePort: NODE_PORT }];

describe.skipIf(canMakeNamespaces() !== undefined)('rules', () => {
  let lab: Lab;
  let wrapper: IptablesWrapper;
  let proxy: ProxyProcess;

  /** `number` is the clusterIP's, `pods` are the endpoints. */
  const manifest = ({
    number = 10,
    pods = [1],
  }: {
    number?: number;
    pods?: readonly number[];
  } = {}): string =>
    manifestText(
      ...dualStackObjects({
        name: 'web',
        number,
        ports: PORTS,
        backends: pods.map((pod) => lab.pod(pod)),
      }),
    );

  beforeAll(async () => {
    lab = await createLab();
    wrapper = await IptablesWrapper.create();
    for (const pod of [lab.pod(1), lab.pod(2)])
      await (await pod.agent()).serveTcp({ port: 8080, mode: 'identify', name: pod.name });
    proxy = await ProxyProcess.start(lab.node, {
      manifests: { 'web.yaml': manifest() },
      env: wrapper.env,
      args: [`--iptables-sync-period=${SYNC_PERIOD_MS}ms`],
    });
    await answeredBy('pod1');
  });
  afterAll(async () => {
    await proxy?.[Symbol.asyncDispose]();
    await wrapper?.[Symbol.asyncDispose]();
    await lab?.close();
  });

  /** Over both families, from a pod and from outside. */
  const answeredBy = async (name: string, number = 10): Promise<void> => {
    const [pod, outside] = await Promise.all([lab.pod(4).agent(), lab.ext.agent()]);
    const isSo = async (): Promise<boolean> => {
      const answers = await Promise.all([
        pod.tcpIdentify({ host: clusterIP(number, 'IPv4'), port: 80, count: 1, timeoutMs: 300 }),
        pod.tcpIdentify({ host: clusterIP(number, 'IPv6'), port: 80, count: 1, timeoutMs: 300 }),
        outside.tcpIdentify({ host: lab.node.ipv4, port: NODE_PORT, count: 1, timeoutMs: 300 }),
        outside.tcpIdentify({ host: lab.node.ipv6, port: NODE_PORT, count: 1, timeoutMs: 300 }),
      ]);
      return answers.flat().every((answer) => answer.name === name);
    };
    await waitFor(isSo, { timeoutMs: 5 * SYNC_PERIOD_MS, what: `answers of ${name}` });
  };
  const synced = async (): Promise<void> => {
    const nothingPends = async (): Promise<boolean> =>
      (await proxy.metric('kubeproxy_sync_proxy_rules_endpoint_changes_pending')) === 0 &&
      (await proxy.metric('kubeproxy_sync_proxy_rules_service_changes_pending')) === 0;
    await waitFor(nothingPends, { timeoutMs: 5_000, what: 'nothing to be pending' });
  };
  const written = async (): Promise<{ IPv4: number; IPv6: number }> => ({
    IPv4: await wrapper.calls('iptables-restore'),
    IPv6: await wrapper.calls('ip6tables-restore'),
  });

  test('are not touched by a change of endpoints', async () => {
    const before = await written();
    for (const pods of [[2], [1, 2], [1]]) {
      await proxy.writeManifest('web.yaml', manifest({ pods }));
      if (pods.length === 1) await answeredBy(`pod${pods[0]}`);
    }
    await synced();
    expect(await written()).toEqual(before);
  });

  test('are written once for each family when an address changes, or the last endpoint goes', async () => {
    await synced();
    const before = await written();
    await proxy.writeManifest('web.yaml', manifest({ number: 11 }));
    await answeredBy('pod1', 11);
    await synced();
    expect(await written()).toEqual({ IPv4: before.IPv4 + 1, IPv6: before.IPv6 + 1 });
    await proxy.writeManifest('web.yaml', manifest({ number: 11, pods: [] }));
    const client = await lab.pod(4).agent();
    const isRefused = async (): Promise<boolean> =>
      (await client.tcpProbe({ host: clusterIP(11, 'IPv6'), port: 80 })).outcome === 'refused';
    await waitFor(isRefused, { timeoutMs: 5_000, what: 'a refusal' });
    await synced();
    expect(await written()).toEqual({ IPv4: before.IPv4 + 2, IPv6: before.IPv6 + 2 });
    await proxy.writeManifest('web.yaml', manifest());
    await answeredBy('pod1');
  });

  test('are not written again while nothing changes', async () => {
    await synced();
    const before = await written();
    const looks = await wrapper.calls('iptables-save');
    const hasLookedTwice = async (): Promise<boolean> => (await wrapper.calls('iptables-save')) >= looks + 4;
    await waitFor(hasLookedTwice, { timeoutMs: 10 * SYNC_PERIOD_MS, what: 'two periodic looks' });
    expect(await written()).toEqual(before);
  });

  test.for([
    { name: 'nat is flushed', spoil: [['-t', 'nat', '-F']] },
    { name: 'filter is flushed', spoil: [['-F']] },
    {
      name: 'all our chains are deleted',
      spoil: [['-t', 'nat', '-F'], ['-t', 'nat', '-X'], ['-F'], ['-X']],
    },
    { name: 'one chain loses its rules', spoil: [['-t', 'nat', '-F', 'USERSPACE-PROXY-SERVICES']] },
    { name: 'a jump is deleted', spoil: [['-t', 'nat', '-D', 'PREROUTING', '1']] },
    { name: 'a jump stands twice', spoil: [['-A', 'INPUT', '-j', 'USERSPACE-PROXY-INPUT']] },
  ])('come back by themselves when $name', async ({ spoil }) => {
    const comparable = async (family: 'IPv4' | 'IPv6'): Promise<readonly string[]> =>
      withoutWrites((await proxy.rules(family)).toSorted().join('\n')).split('\n');
    const before = { IPv4: await comparable('IPv4'), IPv6: await comparable('IPv6') };
    for (const iptables of ['iptables', 'ip6tables']) {
      // Refused when the rules are already on their way back between two commands: then once more from the first.
      const isSpoilt = async (): Promise<boolean> => {
        for (const args of spoil) await lab.node.run([iptables, '-w', '5', ...args]);
        return true;
      };
      await waitFor(isSpoilt, { timeoutMs: 5 * SYNC_PERIOD_MS, what: `${iptables} to spoil them` });
    }
    for (const family of ['IPv4', 'IPv6'] as const) {
      await waitFor(async () => (await comparable(family)).join('\n') === before[family].join('\n'), {
        timeoutMs: 5 * SYNC_PERIOD_MS,
        what: `the ${family} rules to be whole`,
        intervalMs: 100,
      });
    }
    await answeredBy('pod1');
    const told = (): (string | undefined)[] =>
      proxy.log
        .filter((line) => String(line['msg']).startsWith('Rules were changed by another'))
        .map((line) => line['family'] as string | undefined);
    expect(told()).toEqual(expect.arrayContaining(['IPv4', 'IPv6']));
    // Told when it is seen, counted when it is mended.
    const areCounted = async (): Promise<boolean> => {
      const counts = ['flush', 'jump', 'rules'].map(async (reason) =>
        proxy.metric('userspace_proxy_iptables_resyncs_total', { reason }),
      );
      return (await Promise.all(counts)).reduce((sum, count) => sum + count, 0) === told().length;
    };
    await waitFor(areCounted, { timeoutMs: 5 * SYNC_PERIOD_MS, what: 'each to be counted once' });
  });

  test('stand before those of kube-proxy in nat, whoever came first', async () => {
    for (const args of [
      ['-N', 'KUBE-SERVICES'],
      ['-I', 'PREROUTING', '1', '-j', 'KUBE-SERVICES'],
    ])
      await lab.node.run(['iptables', '-w', '5', '-t', 'nat', ...args]);
    onTestFinished(async () => {
      await lab.node.run(['iptables', '-w', '5', '-t', 'nat', '-D', 'PREROUTING', '-j', 'KUBE-SERVICES']);
      await lab.node.run(['iptables', '-w', '5', '-t', 'nat', '-X', 'KUBE-SERVICES']);
    });
    const isBefore = async (): Promise<boolean> => {
      const listed = await lab.node.run(['iptables', '-t', 'nat', '-S', 'PREROUTING']);
      return listed.indexOf('-j USERSPACE-PROXY-SERVICES') < listed.indexOf('-j KUBE-SERVICES');
    };
    await waitFor(isBefore, {
      timeoutMs: 5 * SYNC_PERIOD_MS,
      what: 'our jump to be the first',
      intervalMs: 100,
    });
  });

  test('of others are left as they are, through every change of ours', async () => {
    const foreign = ['-p', 'tcp', '--dport', '9999', '-m', 'comment', '--comment', 'foreign'];
    const add = async (...args: readonly string[]): Promise<string> =>
      lab.node.run(['iptables', '-w', '5', ...args]);
    await add('-t', 'nat', '-A', 'PREROUTING', ...foreign, '-j', 'RETURN');
    await add('-I', 'INPUT', '1', ...foreign, '-j', 'ACCEPT');
    await add('-N', 'FOREIGN');
    await add('-A', 'FOREIGN', ...foreign, '-j', 'DROP');
    const others = async (): Promise<readonly string[]> =>
      (await lab.node.run(['iptables-save']))
        .split('\n')
        .filter((line) => /^[-:]/.test(line) && !line.includes('USERSPACE-PROXY-'))
        .map((line) => line.replace(/\[\d+:\d+\]/, ''));
    const before = await others();
    expect(before.join('\n')).toContain('-A FOREIGN');
    await proxy.writeManifest('web.yaml', manifest({ number: 12 }));
    await answeredBy('pod1', 12);
    await lab.node.run(['iptables', '-w', '5', '-t', 'nat', '-F', 'USERSPACE-PROXY-SERVICES']);
    await answeredBy('pod1', 12);
    expect(await others()).toEqual(before);
  });
});
