/**
 * All endpoints of a Service fail everybody: clients are told at once or in time, the endpoints are not stormed with
 * dials, and with the first answer all of them are in use again.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Agent } from '../../support/agent-client.ts';
import { clusterIP } from '../../support/dual-stack.ts';
import { httpAt, httpOf, metricOf } from '../../support/fault-service.ts';
import { canMakeNamespaces, createLab, type Lab } from '../../support/netns-lab.ts';
import { makeService, makeSlice, manifestText } from '../../support/objects.ts';
import { ProxyProcess } from '../../support/proxy-process.ts';
import { waitFor } from '../../support/wait.ts';

const PORT = 8340;
const COUNT = 16;
/** A connection tries no more endpoints than that while nobody answers. */
const MOST_DIALS = 8;
const REFUSED = { number: 40, port: PORT };
const SILENT = { number: 41, port: PORT + 1 };
const ADDRESSES = {
  IPv4: Array.from({ length: COUNT }, (_, index) => `10.244.1.${101 + index}`),
  IPv6: Array.from({ length: COUNT }, (_, index) => `fd00:244:1::1:${101 + index}`),
} as const;
type Family = keyof typeof ADDRESSES;

function objects(name: string, { number, port }: typeof REFUSED): readonly object[] {
  const service = makeService(name, ({ spec }) => {
    spec.clusterIP = clusterIP(number, 'IPv4');
    spec.clusterIPs = [clusterIP(number, 'IPv4'), clusterIP(number, 'IPv6')];
    spec.ports = [...httpAt(port)].map((each) => ({ ...each, protocol: 'TCP' }));
  });
  const slices = Object.values(ADDRESSES).map((addresses) =>
    makeSlice(name, addresses, (slice) => {
      slice.ports = [{ name: 'http', port, protocol: 'TCP' }];
    }),
  );
  return [service, ...slices];
}

describe.skipIf(canMakeNamespaces() !== undefined)('a Service of which all of 16 endpoints', () => {
  let lab: Lab;
  let proxy: ProxyProcess;
  let client: Agent;
  let backend: Agent;

  beforeAll(async () => {
    lab = await createLab({ pods: 2 });
    client = await lab.pod(2).agent();
    backend = await lab.pod(1).agent();
    // All endpoints live in one pod: what matters is how many there are.
    for (const address of ADDRESSES.IPv4) await lab.pod(1).addAddress(`${address}/24`);
    for (const address of ADDRESSES.IPv6) await lab.pod(1).addAddress(`${address}/64`);
    proxy = await ProxyProcess.start(lab.node, {
      manifests: {
        'refused.yaml': manifestText(...objects('refused', REFUSED)),
        'silent.yaml': manifestText(...objects('silent', SILENT)),
      },
      args: ['--dial-timeouts', '100ms,100ms'],
    });
    for (const name of ['refused', 'silent'])
      for (const family of ['IPv4', 'IPv6'] as const)
        await proxy.captured(`default/${name}:http`, { family });
  });
  afterAll(async () => {
    await proxy?.[Symbol.asyncDispose]();
    await lab?.close();
  });

  const dials = async (service: string, family: Family): Promise<number> =>
    metricOf(proxy, 'dials_total', { service, ip_family: family });
  const serve = async (family: Family, port: number): Promise<void> => {
    for (const address of ADDRESSES[family])
      await backend.serveTcp({ port, mode: 'identify', name: address, address });
  };
  /** One after the other: the next connections have each endpoint once. */
  const expectAllInUse = async (number: number, family: Family): Promise<void> => {
    const answers = await client.tcpIdentify({ ...httpOf(number, family), count: COUNT });
    expect(answers.filter(({ ok }) => !ok)).toEqual([]);
    expect(new Set(answers.map(({ name }) => name)).size).toBe(COUNT);
  };

  test.for(['IPv4', 'IPv6'] as const)(
    'refuse resets its clients at once after a few dials each, and has all back with the first answer, over %s',
    async (family) => {
      const target = httpOf(REFUSED.number, family);
      // The first one finds out, and may try them all for it.
      expect(await client.tcpEnd(target)).toMatchObject({ outcome: 'reset' });
      const before = await dials('refused', family);
      const ends = await Promise.all(Array.from({ length: 40 }, async () => client.tcpEnd(target)));
      expect(ends.filter(({ outcome }) => outcome !== 'reset')).toEqual([]);
      expect(Math.max(...ends.map(({ elapsedMs }) => elapsedMs))).toBeLessThan(4_000);
      expect((await dials('refused', family)) - before).toBeLessThanOrEqual(40 * MOST_DIALS);
      await serve(family, REFUSED.port);
      await expectAllInUse(REFUSED.number, family);
      const ejected = { service: 'refused', ip_family: family };
      expect(await metricOf(proxy, 'endpoints_ejected', ejected)).toBe(0);
    },
  );

  test.for(['IPv4', 'IPv6'] as const)(
    'are silent resets its clients in time after a few dials each, and has all back with the first answer, over %s',
    async (family) => {
      const target = httpOf(SILENT.number, family);
      await serve(family, SILENT.port);
      await expectAllInUse(SILENT.number, family);
      const repair = await lab.dropTraffic(lab.pod(1), { port: SILENT.port });
      const first = await client.tcpEnd(target);
      expect(first.outcome).toBe('reset');
      const before = await dials('silent', family);
      const ends = await Promise.all(Array.from({ length: 40 }, async () => client.tcpEnd(target)));
      expect(ends.filter(({ outcome }) => outcome !== 'reset')).toEqual([]);
      expect(Math.max(...ends.map(({ elapsedMs }) => elapsedMs))).toBeLessThan(4_000);
      expect((await dials('silent', family)) - before).toBeLessThanOrEqual(40 * MOST_DIALS);
      await repair();
      await waitFor(async () => (await client.tcpIdentify({ ...target, count: 1 }))[0]?.ok ?? false, {
        timeoutMs: 10_000,
        what: 'the first answer',
      });
      await expectAllInUse(SILENT.number, family);
    },
  );
});
