/**
 * The limit of open files is reached: by the proxy's own reckoning, and where something else has taken what it reckoned
 * with. New connections are reset, those that live go on, nothing spins, and it is over when descriptors come back.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Agent } from '../../support/agent-client.ts';
import { cpuShareOver, openDescriptors } from '../../support/fault-process.ts';
import { dualStackObjects } from '../../support/dual-stack.ts';
import {
  FAMILIES,
  httpAt,
  httpOf,
  install,
  metricOf,
  sessionsGone,
  startProxy,
} from '../../support/fault-service.ts';
import { canMakeNamespaces, createLab, type Lab } from '../../support/netns-lab.ts';
import { manifestText } from '../../support/objects.ts';
import type { ProxyProcess } from '../../support/proxy-process.ts';
import { waitFor } from '../../support/wait.ts';

const LIMIT = 256;
const SERVICE = { name: 'web', number: 90, ports: httpAt(8390) };
const LATER = { name: 'later', number: 91, ports: httpAt(8390) };
/** More than there are descriptors for. */
const COUNT = 300;

const CASES = [
  { name: 'that it has reckoned with', within: ['prlimit', `--nofile=${LIMIT}:${LIMIT}`], lowered: false },
  { name: 'that was lowered behind its back', within: [], lowered: true },
] as const;

describe.skipIf(canMakeNamespaces() !== undefined).for(CASES)('at a limit of open files $name', (at) => {
  let lab: Lab;
  let proxy: ProxyProcess;
  let client: Agent;
  let idleDescriptors: number;
  let early: number;
  let flood: number;

  beforeAll(async () => {
    lab = await createLab({ pods: 2 });
    client = await lab.pod(2).agent();
    await (await lab.pod(1).agent()).serveTcp({ port: 8390, mode: 'identify-echo', name: 'pod1' });
    proxy = await startProxy(lab.node, [{ ...SERVICE, backends: [lab.pod(1)] }], { within: at.within });
    if (at.lowered) await lab.node.run(['prlimit', '--pid', `${proxy.pid}`, `--nofile=${LIMIT}:${LIMIT}`]);
    idleDescriptors = await openDescriptors(proxy.pid);
    early = (await client.tcpHold({ ...httpOf(SERVICE.number), count: 10, named: true })).id;
  });
  afterAll(async () => {
    await proxy?.[Symbol.asyncDispose]();
    await lab?.close();
  });

  const openAt = async (): Promise<number> => metricOf(proxy, 'connections_active', { service: 'web' });

  test('new connections above it are reset or ended, none hangs', async () => {
    const held = await client.tcpHold({
      ...httpOf(SERVICE.number),
      count: COUNT,
      concurrency: COUNT,
      named: true,
      timeoutMs: 20_000,
    });
    flood = held.id;
    expect(held.failures.map(({ errno }) => errno)).not.toContain('TIMEOUT');
    expect(held.open).toBeGreaterThan(20);
    expect(held.open).toBeLessThan(LIMIT / 2);
    // Nothing was kept back: even the one who asks for the metrics may be turned away. The system closed some of them.
    if (at.lowered) return;
    // What was reckoned with is refused in good form: each by a reset, and counted.
    expect(held.endedByFin).toBe(0);
    const why = { service: 'web', reason: 'overflow' };
    expect(await metricOf(proxy, 'connection_failures_total', why)).toBe(COUNT - held.open);
  });

  test('those that live go on', async () => {
    expect(await client.heldUse({ id: early })).toMatchObject({ ok: 10, failed: 0 });
    const { open } = await client.heldStatus({ id: flood });
    expect(await client.heldUse({ id: flood })).toMatchObject({ ok: open });
  });

  test(`a Service that is added is served ${at.lowered ? 'once there are descriptors again' : 'all the same'}`, async () => {
    const later = { ...LATER, backends: [lab.pod(1)] };
    if (at.lowered) {
      // Nothing was kept back: not even the manifest can be read, nor iptables be started.
      await proxy.writeManifest('later.yaml', manifestText(...dualStackObjects(later)));
      await client.heldClose({ id: flood, how: 'fin' });
    }
    // Rules are written by processes that need descriptors of their own, which are kept back for them.
    await install(proxy, later, { timeoutMs: 30_000 });
    const answers = await client.tcpIdentify({ ...httpOf(LATER.number), count: 10 });
    expect(answers.filter(({ ok }) => at.lowered && !ok)).toEqual([]);
  });

  test('no CPU is burnt', async () => {
    // Somebody goes on knocking, as clients do.
    const { id } = await client.startConnectLoad({ ...httpOf(SERVICE.number), pauseMs: 200 });
    expect(await cpuShareOver(proxy.pid, 1_500)).toBeLessThan(0.5);
    await client.stopLoad({ id });
  });

  test('when descriptors come back everybody is served, and none is lost', async () => {
    await client.heldClose({ id: flood, how: 'fin' });
    await waitFor(async () => (await openAt()) === 10, { timeoutMs: 10_000, what: 'the flood to be gone' });
    for (const number of [SERVICE.number, LATER.number])
      for (const family of FAMILIES) {
        const answers = await client.tcpIdentify({ ...httpOf(number, family), count: 20, concurrency: 5 });
        expect(answers.filter(({ ok }) => !ok)).toEqual([]);
      }
    expect(await client.heldUse({ id: early })).toMatchObject({ ok: 10, failed: 0 });
    await client.heldClose({ id: early, how: 'fin' });
    await sessionsGone(proxy, 'web');
    // The listeners of the Service that was added are two more.
    await waitFor(async () => (await openDescriptors(proxy.pid)) <= idleDescriptors + FAMILIES.length, {
      timeoutMs: 10_000,
      what: `no more than ${idleDescriptors + FAMILIES.length} descriptors`,
    });
  });
});
