/** A backend that comes and goes ten times a second: nobody fails on its account, and nothing is left of it after. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Agent } from '../../support/agent-client.ts';
import { dualStackObjects } from '../../support/dual-stack.ts';
import { openDescriptors, passTime } from '../../support/fault-process.ts';
import {
  FAMILIES,
  httpAt,
  httpOf,
  install,
  metricOf,
  sessionsGone,
  startProxy,
  withRule,
} from '../../support/fault-service.ts';
import { canMakeNamespaces, createLab, type Lab } from '../../support/netns-lab.ts';
import { manifestText } from '../../support/objects.ts';
import type { ProxyProcess } from '../../support/proxy-process.ts';
import { waitFor } from '../../support/wait.ts';

const ENDPOINT = { name: 'endpoint', number: 30, ports: httpAt(8330) };
const PORT = { name: 'port', number: 31, ports: httpAt(8331) };
const FLAPS = 24;
const FLAP_MS = 100;

describe.skipIf(canMakeNamespaces() !== undefined)('a backend that comes and goes ten times a second', () => {
  let lab: Lab;
  let proxy: ProxyProcess;
  let client: Agent;
  let idleDescriptors: number;

  beforeAll(async () => {
    lab = await createLab({ pods: 3 });
    client = await lab.pod(3).agent();
    const backends = [lab.pod(1), lab.pod(2)];
    for (const pod of backends)
      for (const port of [8330, 8331])
        await (await pod.agent()).serveTcp({ port, mode: 'identify-echo', name: pod.name });
    proxy = await startProxy(
      lab.node,
      [
        { ...ENDPOINT, backends },
        { ...PORT, backends },
      ],
      { args: ['--ejection-time', '100ms'] },
    );
    idleDescriptors = await openDescriptors(proxy.pid);
  });
  afterAll(async () => {
    await proxy?.[Symbol.asyncDispose]();
    await lab?.close();
  });

  /** Connections at full speed over both families while the fault goes on and off, and once more when it is over. */
  const expectNoFailure = async (number: number, flap: (turn: number) => Promise<void>): Promise<void> => {
    const held = await client.tcpHold({ ...httpOf(number), count: 20, named: true });
    expect(held.byName).toEqual({ pod1: 10, pod2: 10 });
    const loads = await Promise.all(
      FAMILIES.map(async (family) =>
        client.startConnectLoad({ ...httpOf(number, family), concurrency: 2, slowMs: 5_000 }),
      ),
    );
    for (let turn = 0; turn < FLAPS; turn += 1) {
      await flap(turn);
      await passTime(FLAP_MS);
    }
    for (const load of loads) {
      const names = async (): Promise<number> => Object.keys((await client.loadReport(load)).byName).length;
      await waitFor(async () => (await names()) === 2, { timeoutMs: 10_000, what: 'both to answer' });
      expect(await client.stopLoad(load)).toMatchObject({ failed: 0, failures: [], slow: [] });
    }
    // What was established before is none of the flapping's business.
    expect(await client.heldUse({ id: held.id })).toMatchObject({ ok: 20, failed: 0 });
    await client.heldClose({ id: held.id, how: 'fin' });
  };
  const bothAreUsed = async (number: number): Promise<void> => {
    const isUsed = async (): Promise<boolean> => {
      const answers = await client.tcpIdentify({ ...httpOf(number), count: 4 });
      return new Set(answers.map(({ name }) => name)).size === 2;
    };
    await waitFor(isUsed, { timeoutMs: 40_000, what: 'both backends to be used' });
  };

  test('as an endpoint fails no connection, old or new', async () => {
    await expectNoFailure(ENDPOINT.number, async (turn) => {
      const backends = turn % 2 === 0 ? [lab.pod(2)] : [lab.pod(1), lab.pod(2)];
      await proxy.writeManifest(
        'endpoint.yaml',
        manifestText(...dualStackObjects({ ...ENDPOINT, backends })),
      );
    });
    const changes = await proxy.metric('kubeproxy_sync_proxy_rules_endpoint_changes_total');
    // Changes of a file that come at once are taken at once: fewer than were written, and it did flap.
    expect(changes).toBeGreaterThanOrEqual(4);
    await install(proxy, { ...ENDPOINT, backends: [lab.pod(1), lab.pod(2)] });
    await bothAreUsed(ENDPOINT.number);
    await sessionsGone(proxy, 'endpoint');
  });

  test('as an open port fails no connection, old or new', async () => {
    const refuse = ['-p', 'tcp', '--dport', '8331', '--syn', '-j', 'REJECT', '--reject-with', 'tcp-reset'];
    let repair: (() => Promise<void>) | undefined;
    await expectNoFailure(PORT.number, async () => {
      if (repair === undefined) {
        repair = await withRule(lab.pod(1), 'INPUT', () => refuse);
      } else {
        await repair();
        repair = undefined;
      }
    });
    await repair?.();
    expect(await metricOf(proxy, 'endpoint_ejections_total', { service: 'port' })).toBeGreaterThan(0);
    await bothAreUsed(PORT.number);
    expect(await metricOf(proxy, 'endpoints_ejected', { service: 'port', ip_family: 'IPv4' })).toBe(0);
    await sessionsGone(proxy, 'port');
  });

  test('leaves no descriptor behind', async () => {
    await waitFor(async () => (await openDescriptors(proxy.pid)) <= idleDescriptors, {
      timeoutMs: 10_000,
      what: `no more than ${idleDescriptors} descriptors`,
    });
  });
});
