/** A tenth of the packets between the node and one backend is lost: it is slow, and nothing worse. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Agent } from '../../support/agent-client.ts';
import type { ServerHandle, TcpExchangeResult } from '../../support/agent-protocol.ts';
import { addressOf, type Family } from '../../support/dual-stack.ts';
import {
  FAMILIES,
  httpAt,
  httpOf,
  metricOf,
  sessionsGone,
  startProxy,
  withRule,
} from '../../support/fault-service.ts';
import { canMakeNamespaces, createLab, type Lab } from '../../support/netns-lab.ts';
import type { ProxyProcess } from '../../support/proxy-process.ts';
import { waitFor } from '../../support/wait.ts';

const SERVICE = { name: 'lossy', number: 50, ports: httpAt(8350) };
const LOSS = ['-p', 'tcp', '-m', 'statistic', '--mode', 'random', '--probability', '0.1', '-j', 'DROP'];

describe.skipIf(canMakeNamespaces() !== undefined)(
  'while one of two backends loses a tenth of its packets',
  () => {
    let lab: Lab;
    let proxy: ProxyProcess;
    let client: Agent;
    let server: ServerHandle;
    let repairs: readonly (() => Promise<void>)[];

    beforeAll(async () => {
      lab = await createLab({ pods: 3 });
      client = await lab.pod(3).agent();
      const backends = [lab.pod(1), lab.pod(2)] as const;
      const [first] = await Promise.all(
        backends.map(async (pod) =>
          (await pod.agent()).serveTcp({ port: 8350, mode: 'echo', name: pod.name }),
        ),
      );
      if (first === undefined) throw new Error('no server');
      server = first;
      proxy = await startProxy(lab.node, [{ ...SERVICE, backends }]);
      // Where they arrive: a host is told of what it drops on its own way out, and gives up a SYN-ACK for it.
      repairs = [
        await withRule(lab.pod(1), 'INPUT', () => LOSS),
        await withRule(lab.node, 'INPUT', (family) => ['-s', addressOf(lab.pod(1), family), ...LOSS]),
      ];
    });
    afterAll(async () => {
      await proxy?.[Symbol.asyncDispose]();
      await lab?.close();
    });

    const exchanges = async (
      family: Family,
      count: number,
      bytes: number,
    ): Promise<readonly TcpExchangeResult[]> =>
      Promise.all(
        Array.from({ length: count }, async (_, index) =>
          client.tcpExchange({
            ...httpOf(SERVICE.number, family),
            bytes,
            halfClose: true,
            seed: index + 1,
            timeoutMs: 60_000,
          }),
        ),
      );
    const expectWhole = (results: readonly TcpExchangeResult[]): void =>
      expect(results.filter(({ ok, identical }) => !ok || !identical)).toEqual([]);
    const accepted = async (): Promise<number> =>
      (await (await lab.pod(1).agent()).serverReport({ id: server.id })).accepted;

    test.for(FAMILIES)('all bytes arrive as they were sent, over %s', async (family) => {
      expectWhole(await exchanges(family, 12, 100_000));
    });

    test.for(FAMILIES)('no connection fails, over %s', async (family) => {
      for (let round = 0; round < 5; round += 1) expectWhole(await exchanges(family, 20, 1_000));
    });

    test('the lossy one is left out now and then, but not for good, and when all is well again not at all', async () => {
      const before = await accepted();
      const isUsed = async (): Promise<boolean> => {
        for (const family of FAMILIES) expectWhole(await exchanges(family, 2, 100));
        return (await accepted()) > before;
      };
      await waitFor(isUsed, { timeoutMs: 60_000, what: 'the lossy one to be used' });
      for (const repair of repairs) await repair();
      const isWell = async (): Promise<boolean> => {
        const last = await accepted();
        for (const family of FAMILIES) expectWhole(await exchanges(family, 2, 100));
        return (await accepted()) === last + 2;
      };
      // Half of the connections of each family.
      await waitFor(isWell, { timeoutMs: 60_000, what: 'both to be used alike' });
      expect(await metricOf(proxy, 'endpoints_ejected', { service: 'lossy' })).toBe(0);
      expect(await metricOf(proxy, 'connection_failures_total', { service: 'lossy' })).toBe(0);
      await sessionsGone(proxy, 'lossy');
    });
  },
);
