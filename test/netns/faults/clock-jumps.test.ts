/** The time of day jumps by a year, ahead and back: nothing that lasts a while lasts longer or shorter for it. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Agent } from '../../support/agent-client.ts';
import { dnsAt, dnsOf, httpAt, httpOf, metricOf, startProxy } from '../../support/fault-service.ts';
import { canMakeNamespaces, createLab, type Lab } from '../../support/netns-lab.ts';
import type { ProxyProcess } from '../../support/proxy-process.ts';
import { waitFor } from '../../support/wait.ts';

const JUMPING_CLOCK = new URL('../../support/fault-clock.ts', import.meta.url).href;
const HALF_A_YEAR_S = 182 * 24 * 3_600;
const DIAL_MS = 500;
const UDP_MS = 20_000;

const STICKY = { name: 'sticky', number: 50, ports: [...httpAt(8450), ...dnsAt(8450)] };
const SILENT = { name: 'silent', number: 51, ports: httpAt(8451) };

describe.skipIf(canMakeNamespaces() !== undefined)('when the time of day jumps by a year', () => {
  let lab: Lab;
  let proxy: ProxyProcess;
  let client: Agent;

  beforeAll(async () => {
    lab = await createLab({ pods: 3 });
    const backends = [lab.pod(1), lab.pod(2)];
    for (const pod of backends) {
      const agent = await pod.agent();
      await agent.serveTcp({ port: 8450, mode: 'identify-echo', name: pod.name });
      await agent.serveUdp({ port: 8450, mode: 'echo', name: pod.name });
    }
    await lab.dropTraffic(lab.pod(1), { port: 8451 });
    client = await lab.pod(3).agent();
    const sticky = {
      ...STICKY,
      backends,
      tweak: ({ spec }: { spec: { sessionAffinity?: string } }): void => {
        spec.sessionAffinity = 'ClientIP';
      },
    };
    proxy = await startProxy(lab.node, [sticky, { ...SILENT, backends: [lab.pod(1)] }], {
      args: [
        `--dial-timeouts=${DIAL_MS}ms`,
        `--udp-timeout=${UDP_MS}ms`,
        '--tcp-idle-timeout=1h',
        '--iptables-sync-period=500ms',
        '--ejection-time=30s',
      ],
      within: ['env', `NODE_OPTIONS=--import=${JUMPING_CLOCK}`],
    });
  });
  afterAll(async () => {
    await proxy?.[Symbol.asyncDispose]();
    await lab?.close();
  });

  /** Until the proxy itself says so: the metric is of the time of day. */
  const jump = async (): Promise<void> => {
    const lastSync = async (): Promise<number> =>
      proxy.metric('kubeproxy_sync_proxy_rules_last_timestamp_seconds', { ip_family: 'IPv4' });
    const before = await lastSync();
    proxy.signal('SIGUSR2');
    const hasJumped = async (): Promise<boolean> => Math.abs((await lastSync()) - before) > HALF_A_YEAR_S;
    await waitFor(hasJumped, { timeoutMs: 10_000, what: 'the time of day to jump' });
  };
  const names = async (): Promise<readonly string[]> => {
    const answers = await client.tcpIdentify({ ...httpOf(STICKY.number), count: 6 });
    return [...new Set(answers.map(({ name }) => name ?? ''))];
  };
  const flow = async (): Promise<unknown> =>
    client.udpSequence({ ...dnsOf(STICKY.number), count: 1, localPort: 43_000 });
  const flows = async (): Promise<number> =>
    metricOf(proxy, 'connections_total', { service: 'sticky', protocol: 'UDP' });

  test('ahead and then back, affinity, connections and sessions are as before, and time-outs as long', async () => {
    const held = await client.tcpHold({ ...httpOf(STICKY.number), count: 5, named: true });
    const tiedTo = await names();
    expect(tiedTo).toHaveLength(1);
    const startedAt = performance.now();
    expect(await flow()).toMatchObject({ received: 1 });
    for (let turn = 0; turn < 2; turn += 1) {
      await jump();
      expect(await names()).toEqual(tiedTo);
      expect(await flow()).toMatchObject({ received: 1 });
      // On a machine that stood still for so long it is a new session.
      const wasSlow = performance.now() - startedAt >= UDP_MS;
      expect(wasSlow ? 1 : await flows()).toBe(1);
      expect(await client.heldUse({ id: held.id })).toMatchObject({ ok: 5, failed: 0 });
      const end = await client.tcpEnd({ ...httpOf(SILENT.number), timeoutMs: 10_000 });
      expect(end.outcome).toBe('reset');
      expect(end.elapsedMs).toBeGreaterThan(DIAL_MS - 50);
      expect(end.elapsedMs).toBeLessThan(10 * DIAL_MS);
    }
  });
});
