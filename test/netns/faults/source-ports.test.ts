/**
 * All source ports towards one backend are taken (a node has 28,232 of them unless told, for each backend address and
 * port): it shows in the metrics, the backend is not blamed, and it is over when connections end.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Agent } from '../../support/agent-client.ts';
import { FAMILIES, httpAt, httpOf, metricOf, sessionsGone, startProxy } from '../../support/fault-service.ts';
import { canMakeNamespaces, createLab, type Lab } from '../../support/netns-lab.ts';
import type { ProxyProcess } from '../../support/proxy-process.ts';

const PORTS = 100;
const COUNT = 150;
const ONE = { name: 'one', number: 30, ports: httpAt(8430) };
const TWO = { name: 'two', number: 31, ports: httpAt(8430) };

describe.skipIf(canMakeNamespaces() !== undefined)(
  'when all source ports towards a backend are taken',
  () => {
    let lab: Lab;
    let proxy: ProxyProcess;
    let client: Agent;

    beforeAll(async () => {
      lab = await createLab({ pods: 3 });
      for (const pod of [lab.pod(1), lab.pod(2)])
        await (await pod.agent()).serveTcp({ port: 8430, mode: 'identify-echo', name: pod.name });
      await lab.node.run(['sysctl', '-qw', `net.ipv4.ip_local_port_range=40000 ${40_000 + PORTS - 1}`]);
      client = await lab.pod(3).agent();
      proxy = await startProxy(lab.node, [
        { ...ONE, backends: [lab.pod(1)] },
        { ...TWO, backends: [lab.pod(1), lab.pod(2)] },
      ]);
    });
    afterAll(async () => {
      await proxy?.[Symbol.asyncDispose]();
      await lab?.close();
    });

    test.for(FAMILIES)(
      'it shows, nobody is ejected for it, and it is over when connections end, over %s',
      async (family) => {
        const labels = (service: string): Record<string, string> => ({ service, ip_family: family });
        const held = await client.tcpHold({ ...httpOf(ONE.number, family), count: COUNT, named: true });
        expect(held.open).toBeLessThanOrEqual(PORTS);
        expect(held.open).toBeGreaterThan(PORTS / 2);
        expect(held.failures.filter(({ errno }) => errno !== 'ECONNRESET')).toEqual([]);
        const noPort = { ...labels('one'), result: 'no_source_port' };
        expect(await metricOf(proxy, 'dials_total', noPort)).toBeGreaterThanOrEqual(COUNT - held.open);

        // A Service that has another backend too goes there.
        const answers = await client.tcpIdentify({ ...httpOf(TWO.number, family), count: 40 });
        expect(answers.filter(({ ok, name }) => !ok || name !== 'pod2')).toEqual([]);
        for (const service of ['one', 'two'])
          expect(await metricOf(proxy, 'endpoint_ejections_total', labels(service))).toBe(0);

        expect(await client.heldUse({ id: held.id })).toMatchObject({ ok: held.open });
        // By reset: a FIN would keep the ports for the minute of TIME_WAIT.
        await client.heldClose({ id: held.id, how: 'reset' });
        await sessionsGone(proxy, 'one');
        const after = await client.tcpIdentify({ ...httpOf(ONE.number, family), count: 20 });
        expect(after.filter(({ ok }) => !ok)).toEqual([]);
        const both = await client.tcpIdentify({ ...httpOf(TWO.number, family), count: 10 });
        expect(new Set(both.map(({ name }) => name))).toEqual(new Set(['pod1', 'pod2']));
      },
    );
  },
);
