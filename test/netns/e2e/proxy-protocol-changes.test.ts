/**
 * Who gets a header of the PROXY protocol and who does not: nobody whose Service does not ask for it in words that are
 * understood, and while a live Service begins, changes and stops asking, no client notices.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { PROXY_PROTOCOL_ANNOTATION } from '../../../src/model/service-policy.ts';
import type { ServerHandle } from '../../support/agent-protocol.ts';
import { addressOf, clusterIP } from '../../support/dual-stack.ts';
import { canMakeNamespaces, createLab, type Lab } from '../../support/netns-lab.ts';
import { ProxyProcess } from '../../support/proxy-process.ts';
import { ProxyProtocolHost } from '../../support/proxy-protocol-host.ts';
import {
  annotatedManifest,
  type AnnotatedService,
  apply,
  FAMILIES,
  nodePortOf,
  portalsOf,
  SERVICE_PORT,
  tellings,
} from '../../support/proxy-protocol-services.ts';
import { waitFor } from '../../support/wait.ts';

const MEBIBYTE = 1_048_576;

/** Servers of the pods 1 and 2: with and without a header, HTTP and echo; and such as know nothing of headers. */
const TAKES_BOTH = 8080;
const ECHOES_BOTH = 8081;
const ECHOES_ALL = 8082;
const HOLDS = 8083;

const LIVE = { name: 'live', number: 10 };
const ECHO = { name: 'echo', port: 81, targetPort: ECHOES_BOTH };

describe.skipIf(canMakeNamespaces() !== undefined)('the PROXY protocol', () => {
  let lab: Lab;
  let proxy: ProxyProcess;
  let inPod: ProxyProtocolHost;
  /** Of pods 1 and 2, those that take both. */
  let takers: readonly ProxyProtocolHost[];
  /** Of pod1's `ECHOES_ALL` and `HOLDS`, and of what answers UDP. */
  let plain: Readonly<Record<'echo' | 'hold' | 'udp', ServerHandle>>;

  const manifest = (
    service: Omit<AnnotatedService, 'backends' | 'targetPort'> & Partial<AnnotatedService>,
  ): string => annotatedManifest({ targetPort: TAKES_BOTH, backends: [lab.pod(1), lab.pod(2)], ...service });
  const live = (proxyProtocol: string | undefined): string =>
    manifest({ ...LIVE, ports: [ECHO], proxyProtocol });

  beforeAll(async () => {
    lab = await createLab();
    [inPod, ...takers] = (await Promise.all(
      [lab.pod(4), lab.pod(1), lab.pod(2)].map(async (pod) => ProxyProtocolHost.open(pod)),
    )) as [ProxyProtocolHost, ...ProxyProtocolHost[]];
    for (const taker of takers) {
      await taker.serve({ port: TAKES_BOTH, mode: 'http' });
      await taker.serve({ port: ECHOES_BOTH, mode: 'echo' });
    }
    const pod1 = await lab.pod(1).agent();
    plain = {
      echo: await pod1.serveTcp({ port: ECHOES_ALL, mode: 'echo', name: 'pod1' }),
      hold: await pod1.serveTcp({ port: HOLDS, mode: 'hold', name: 'pod1' }),
      udp: await pod1.serveUdp({ port: ECHOES_ALL, mode: 'echo', name: 'pod1' }),
    };
    proxy = await ProxyProcess.start(lab.node, { manifests: { 'live.yaml': live(undefined) } });
  });
  afterAll(async () => {
    await proxy?.[Symbol.asyncDispose]();
    await lab?.close();
  });

  /** What every address tells a backend now, of 3 connections each over both families, from a pod. */
  const forms = async (number: number): Promise<readonly string[]> => {
    const portals = FAMILIES.flatMap((family) => portalsOf(lab, inPod, number, family));
    const answers = await Promise.all(
      [...portals, ...portals, ...portals].map(async (portal) => inPod.ask({ ...portal, path: '/form' })),
    );
    return [...new Set(answers.map((answer) => (answer.ok ? answer.body : answer.fault)))];
  };

  test('is asked for, changed and taken away on a live Service, and no request fails', async () => {
    const clients = [
      { host: lab.pod(4), target: { host: clusterIP(LIVE.number, 'IPv4'), port: SERVICE_PORT } },
      { host: lab.pod(3), target: { host: clusterIP(LIVE.number, 'IPv6'), port: SERVICE_PORT } },
      { host: lab.node, target: { host: '127.0.0.1', port: nodePortOf(LIVE.number) } },
      { host: lab.ext, target: { host: lab.node.ipv6, port: nodePortOf(LIVE.number) } },
    ];
    const loads = await Promise.all(
      clients.map(async ({ host, target }) => {
        const agent = await host.agent();
        const params = { ...target, path: '/form', keepAlive: false, concurrency: 2, pauseMs: 5 };
        return { agent, load: await agent.startHttpLoad(params) };
      }),
    );
    const holder = await lab.pod(4).agent();
    const echo = { host: clusterIP(LIVE.number, 'IPv4'), port: ECHO.port };
    const held: { readonly id: number }[] = [await holder.tcpHold({ ...echo, count: 2 })];
    for (const asked of ['v1', 'v2', 'v1', undefined, 'v2', undefined]) {
      await apply(proxy, 'live.yaml', live(asked));
      expect({ asked, forms: await forms(LIVE.number) }).toEqual({ asked, forms: [asked ?? 'none'] });
      held.push(await holder.tcpHold({ ...echo, count: 2 }));
    }
    for (const { agent, load } of loads) {
      const report = await agent.stopLoad(load);
      expect(report).toMatchObject({ failed: 0, failures: [] });
      expect(Object.keys(report.byName).toSorted()).toEqual(['none', 'v1', 'v2']);
    }
    // Who was connected goes on as before: what was said at its beginning stays said, and nothing is said later.
    for (const { id } of held) expect(await holder.heldUse({ id })).toMatchObject({ ok: 2, failed: 0 });
    await Promise.all(held.map(async ({ id }) => holder.heldClose({ id, how: 'fin' })));
  });

  test('is never spoken where nobody asks: the client’s first octet comes first, beside a Service that asks too', async () => {
    const pod1 = await lab.pod(1).agent();
    const client = await lab.pod(4).agent();
    const ports = [{ name: 'hold', port: 81, targetPort: HOLDS }];
    const toPod1 = { targetPort: ECHOES_ALL, backends: [lab.pod(1)], ports };
    await apply(
      proxy,
      'beside.yaml',
      annotatedManifest(
        { ...toPod1, name: 'asks', number: 20, proxyProtocol: 'v2' },
        { ...toPod1, name: 'beside', number: 21 },
        { ...toPod1, name: 'empty', number: 22, proxyProtocol: '' },
      ),
    );
    for (const number of [21, 22]) {
      for (const portal of FAMILIES.flatMap((family) => portalsOf(lab, inPod, number, family))) {
        const exchange = await client.tcpExchange({ ...portal, bytes: 1_000, halfClose: true });
        expect({ portal, ...exchange }).toMatchObject({ portal, ok: true, received: 1_000, identical: true });
      }
    }
    const { bytesReceived, accepted } = await pod1.serverReport(plain.echo);
    expect(bytesReceived).toBe(1_000 * accepted);
    // Nor to a backend whose client says nothing at all. The one that asks has its header then.
    for (const [number, header] of [
      [21, 0],
      [20, 28],
    ] as const) {
      const { id } = await client.tcpHold({ host: clusterIP(number, 'IPv4'), port: 81, count: 1 });
      const latest = async () => (await pod1.serverReport(plain.hold)).connections.at(-1);
      await waitFor(async () => (await latest())?.end === 'open', {
        timeoutMs: 3_000,
        what: 'the connection',
      });
      if (header > 0)
        await waitFor(async () => (await latest())?.bytesReceived === header, {
          timeoutMs: 3_000,
          what: `${header} octets`,
        });
      await client.heldClose({ id, how: 'fin' });
      await waitFor(async () => (await latest())?.end === 'fin', { timeoutMs: 3_000, what: 'its end' });
      expect((await latest())?.bytesReceived).toBe(header);
    }
  });

  test('is for TCP: datagrams of a Service that asks arrive as they are', async () => {
    const udp = { name: 'dns', port: 53, targetPort: ECHOES_ALL, protocol: 'UDP', nodePort: 30_953 } as const;
    const service = { name: 'mixed', number: 23, backends: [lab.pod(1)], ports: [udp], proxyProtocol: 'v1' };
    await apply(proxy, 'mixed.yaml', manifest(service));
    expect(await forms(23)).toEqual(['v1']);
    const client = await lab.pod(4).agent();
    const pod1 = await lab.pod(1).agent();
    const before = await pod1.serverReport(plain.udp);
    for (const family of FAMILIES) {
      for (const at of [
        { host: clusterIP(23, family), port: 53 },
        { host: addressOf(lab.node, family), port: udp.nodePort },
      ])
        expect(await client.udpExchange({ ...at, payloadBytes: 500 })).toMatchObject({
          ok: true,
          identical: true,
        });
    }
    const { bytesReceived, datagrams } = await pod1.serverReport(plain.udp);
    expect([datagrams - before.datagrams, bytesReceived - before.bytesReceived]).toEqual([4, 2_000]);
  });

  test.for([
    { value: 'V1', number: 30 },
    { value: 'true', number: 31 },
    { value: 'v1,v2', number: 33 },
  ])(
    'asked for as "$value" is told of once, and nothing is said until it is mended',
    async ({ value, number }) => {
      // A name of its own: of a file that was good the last good version would stay in use.
      const name = `odd-${number}`;
      const told = (msg: string): readonly unknown[] =>
        proxy.log
          .filter((line) => line['object'] === `Service default/${name}` && line['msg'] === msg)
          .map(({ code, field, problem }) => ({ code, field, problem }));
      await apply(proxy, `${name}.yaml`, manifest({ name, number, proxyProtocol: value }));
      // Another object changes, and all are judged again.
      await apply(proxy, 'other.yaml', manifest({ name: 'other', number: number + 10, proxyProtocol: 'v1' }));
      expect(await forms(number + 10)).toEqual(['v1']);
      const code = 'ERR_SERVICE_INVALID';
      const field = `metadata.annotations[${PROXY_PROTOCOL_ANNOTATION}]`;
      const problem = expect.stringContaining(JSON.stringify(value)) as unknown;
      expect(told('Invalid object')).toEqual([{ code, field, problem }]);
      expect(await forms(number)).toEqual(['none']);
      await apply(proxy, `${name}.yaml`, manifest({ name, number, proxyProtocol: ' v2 ' }));
      expect(await forms(number)).toEqual(['v2']);
      expect(told('Invalid object mended or gone')).toHaveLength(1);
      expect(told('Invalid object')).toHaveLength(1);
    },
  );

  test.for(['v1', 'v2'])(
    '%s stands before megabytes that are sent at once, and these come back whole',
    async (version) => {
      const large = { name: 'large', number: 26, targetPort: ECHOES_BOTH, backends: [lab.pod(1)] };
      await apply(proxy, 'large.yaml', manifest({ ...large, proxyProtocol: version }));
      const heard = async (): Promise<readonly string[]> => (await takers[0]?.seen(ECHOES_BOTH)) ?? [];
      for (const host of [lab.pod(4), lab.node, lab.ext]) {
        const client = await host.agent();
        for (const family of FAMILIES) {
          // The NodePort; the clusterIP.
          const portal = portalsOf(lab, host, 26, family).at(host === lab.ext ? -1 : 0);
          if (portal === undefined) throw new Error('no portal');
          const before = await heard();
          const exchanges = await Promise.all(
            [1, 65_536, 4 * MEBIBYTE].map(async (bytes) =>
              client.tcpExchange({ ...portal, bytes, halfClose: true, timeoutMs: 20_000 }),
            ),
          );
          for (const exchange of exchanges) expect(exchange).toMatchObject({ ok: true, identical: true });
          const header = new RegExp(
            `^${version} ${addressOf(host, family)} \\d+ ${portal.host} ${portal.port}$`,
          );
          const fresh = (await heard()).slice(before.length);
          expect(fresh).toEqual(exchanges.map(() => expect.stringMatching(header) as unknown));
        }
      }
    },
  );

  test('says both ends of its own connection to each of many that come at once', async () => {
    await apply(proxy, 'live.yaml', live('v2'));
    const portals = FAMILIES.flatMap((family) => portalsOf(lab, inPod, LIVE.number, family));
    const many = Array.from({ length: 30 }, () => portals).flat();
    const { told, expected } = await tellings(inPod, many);
    expect(told).toEqual(expected.map((ends) => `v2 ${ends}`));
  });
});
