/** Backends that answer, but not as they should: the client sees what it would see without a proxy, and nobody else. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Agent } from '../../support/agent-client.ts';
import type { TcpMode } from '../../support/agent-protocol.ts';
import type { ServiceOptions } from '../../support/dual-stack.ts';
import { openDescriptors, passTime } from '../../support/fault-process.ts';
import { FAMILIES, httpAt, httpOf, metricOf, sessionsGone, startProxy } from '../../support/fault-service.ts';
import { canMakeNamespaces, createLab, type Lab } from '../../support/netns-lab.ts';
import type { ProxyProcess } from '../../support/proxy-process.ts';
import { waitFor } from '../../support/wait.ts';

/** A backend that has not accepted by then is given up. Whoever was served before has not waited for that. */
const DIAL_TIMEOUT_MS = 2_000;

/** By the name of the Service: what its first endpoint does. The second one is in order. */
const FAULTS = {
  closing: { number: 10, at: 8310, mode: 'accept-fin' },
  resetting: { number: 11, at: 8311, mode: 'accept-reset' },
  silent: { number: 12, at: 8312, mode: 'hold' },
  slow: { number: 13, at: 8313, mode: 'trickle' },
  refusing: { number: 14, at: 8314, mode: undefined },
} as const satisfies Record<string, { number: number; at: number; mode: TcpMode | undefined }>;
type Fault = keyof typeof FAULTS;

describe.skipIf(canMakeNamespaces() !== undefined)('a Service of which one of two backends', () => {
  let lab: Lab;
  let proxy: ProxyProcess;
  let client: Agent;
  let idleDescriptors: number;

  beforeAll(async () => {
    lab = await createLab({ pods: 3 });
    client = await lab.pod(3).agent();
    const [bad, good] = await Promise.all([lab.pod(1).agent(), lab.pod(2).agent()]);
    const services: ServiceOptions[] = [];
    for (const [name, { number, at, mode }] of Object.entries(FAULTS)) {
      if (mode !== undefined) await bad.serveTcp({ port: at, mode, name: 'bad' });
      await good.serveTcp({ port: at, mode: 'identify-echo', name: 'good' });
      services.push({ name, number, ports: httpAt(at), backends: [lab.pod(1), lab.pod(2)] });
    }
    proxy = await startProxy(lab.node, services, {
      args: ['--dial-timeouts', `${DIAL_TIMEOUT_MS}ms`],
    });
    idleDescriptors = await openDescriptors(proxy.pid);
  });
  afterAll(async () => {
    await proxy?.[Symbol.asyncDispose]();
    await lab?.close();
  });

  const ejections = async (service: Fault): Promise<number> =>
    metricOf(proxy, 'endpoint_ejections_total', { service });

  test.for(FAMILIES)('refuses costs no client anything, over %s', async (family) => {
    const answers = await client.tcpIdentify({ ...httpOf(FAULTS.refusing.number, family), count: 60 });
    expect(
      answers.filter(({ ok, name, elapsedMs }) => !ok || name !== 'good' || elapsedMs > DIAL_TIMEOUT_MS),
    ).toEqual([]);
  });

  test.for(FAMILIES)(
    'accepts and closes shows that to every second client at once, and is not blamed for it, over %s',
    async (family) => {
      const answers = await client.tcpIdentify({ ...httpOf(FAULTS.closing.number, family), count: 20 });
      expect(answers.filter(({ ok }) => ok)).toHaveLength(10);
      expect(answers.filter(({ errno }) => errno === 'EOF')).toHaveLength(10);
      expect(Math.max(...answers.map(({ elapsedMs }) => elapsedMs))).toBeLessThan(DIAL_TIMEOUT_MS);
      expect(await ejections('closing')).toBe(0);
      await sessionsGone(proxy, 'closing');
    },
  );

  test.for(FAMILIES)(
    'accepts and resets gives its clients to the other or resets them, at once, over %s',
    async (family) => {
      const answers = await client.tcpIdentify({ ...httpOf(FAULTS.resetting.number, family), count: 40 });
      // A reset that comes before anything was sent is as good as a refusal.
      const isFine = ({ ok, name, errno }: (typeof answers)[number]): boolean =>
        ok ? name === 'good' : errno === 'ECONNRESET';
      expect(answers.filter((answer) => !isFine(answer))).toEqual([]);
      expect(answers.filter(({ ok }) => ok).length).toBeGreaterThanOrEqual(20);
      expect(Math.max(...answers.map(({ elapsedMs }) => elapsedMs))).toBeLessThan(DIAL_TIMEOUT_MS);
      await sessionsGone(proxy, 'resetting');
    },
  );

  test('accepts and says nothing keeps its connections long after the dial time-out, and is not blamed', async () => {
    const groups = await Promise.all(
      FAMILIES.map(async (family) => client.tcpHold({ ...httpOf(FAULTS.silent.number, family), count: 10 })),
    );
    await passTime(1.5 * DIAL_TIMEOUT_MS);
    for (const { id } of groups) {
      expect(await client.heldStatus({ id })).toMatchObject({ opened: 10, open: 10 });
      await client.heldClose({ id, how: 'fin' });
    }
    expect(await ejections('silent')).toBe(0);
    expect(await metricOf(proxy, 'dials_total', { service: 'silent', result: 'ok' })).toBe(20);
    await sessionsGone(proxy, 'silent');
  });

  test('sends one octet a second does not hold up the clients of the other', async () => {
    const target = httpOf(FAULTS.slow.number);
    // In turn: one of two goes to the slow one, whose octets its client waits for without an end.
    const slow = await client.tcpHold({ ...target, count: 20 });
    const trickled = async (): Promise<number> =>
      metricOf(proxy, 'connection_bytes_total', { service: 'slow', direction: 'from_backend' });
    const before = await trickled();
    const answers = await client.tcpIdentify({
      ...target,
      count: 30,
      concurrency: 10,
      timeoutMs: 1_000,
    });
    // The other half waited in vain for a name from the slow one: that is what the time-out is for.
    const named = answers.filter(({ name }) => name === 'good');
    expect(named).toHaveLength(15);
    expect(named.every(({ ok }) => ok)).toBe(true);
    // Ten connections, three octets each.
    await waitFor(async () => (await trickled()) >= before + 30, {
      timeoutMs: 15_000,
      what: '3 octets each',
    });
    expect(await client.heldStatus(slow)).toMatchObject({ open: 20 });
    expect(await ejections('slow')).toBe(0);
    await client.heldClose({ id: slow.id, how: 'reset' });
    await sessionsGone(proxy, 'slow');
  });

  test('misbehaves in any of these ways leaves no descriptor behind', async () => {
    await waitFor(async () => (await openDescriptors(proxy.pid)) <= idleDescriptors, {
      timeoutMs: 10_000,
      what: `no more than ${idleDescriptors} descriptors`,
    });
  });
});
