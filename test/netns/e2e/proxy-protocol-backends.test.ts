/**
 * A Service that asks for the PROXY protocol has a listener for each of its addresses; it is still one Service: retries,
 * affinity, turns and traffic policies are what they are without, and every backend gets one header, the right one.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { PROXY_PROTOCOL_ANNOTATION, PROXY_PROTOCOL_VERSIONS } from '../../../src/model/service-policy.ts';
import { addressOf, clusterIP, dualStackObjects, type Family } from '../../support/dual-stack.ts';
import { canMakeNamespaces, createLab, type Host, type Lab } from '../../support/netns-lab.ts';
import { manifestText } from '../../support/objects.ts';
import { ProxyProcess } from '../../support/proxy-process.ts';
import { ProxyProtocolHost } from '../../support/proxy-protocol-host.ts';
import {
  annotatedManifest,
  annotatedObjects,
  type AnnotatedService,
  apply,
  externalIP,
  FAMILIES,
  loadBalancerIP,
  nodePortOf,
  portalsOf,
  SERVICE_PORT,
  tellings,
} from '../../support/proxy-protocol-services.ts';

/** HTTP with and without a header, in the pods 1 to 3. */
const HTTP = 8080;
/** Says its name and takes no notice of what it gets, in the pods 1 to 3. */
const NAME = 8081;
/** HTTP in pod2 alone: the others refuse. */
const HTTP_OF_POD2 = 8082;
/** HTTP in pods 1 and 2. */
const HTTP_OF_TWO = 8083;
const NODE_NAME = 'node1';
/** For every test a Service of its own. */
const VERSIONS = PROXY_PROTOCOL_VERSIONS.map((version, index) => ({ version, index }));

describe.skipIf(canMakeNamespaces() !== undefined)('behind the PROXY protocol', () => {
  let lab: Lab;
  let proxy: ProxyProcess;
  let servers: readonly ProxyProtocolHost[];
  const asking = new Map<Host, ProxyProtocolHost>();

  beforeAll(async () => {
    lab = await createLab();
    const backends = [lab.pod(1), lab.pod(2), lab.pod(3)];
    const [opened] = await Promise.all([
      Promise.all(backends.map(async (pod) => ProxyProtocolHost.open(pod))),
      ...backends.map(async (pod) =>
        (await pod.agent()).serveTcp({ port: NAME, mode: 'identify', name: pod.name }),
      ),
      ...[lab.pod(4), lab.node, lab.ext].map(async (host) =>
        asking.set(host, await ProxyProtocolHost.open(host)),
      ),
    ]);
    servers = opened;
    for (const [index, server] of servers.entries()) {
      await server.serve({ port: HTTP, mode: 'http' });
      if (index === 1) await server.serve({ port: HTTP_OF_POD2, mode: 'http' });
      if (index < 2) await server.serve({ port: HTTP_OF_TWO, mode: 'http' });
    }
    // Only with the ranges of the pods can it be told who is one; the node's name makes endpoints local.
    const args = ['--cluster-cidr=10.244.0.0/16,fd00:244::/32'];
    proxy = await ProxyProcess.start(lab.node, { nodeName: NODE_NAME, args });
  });
  afterAll(async () => {
    await proxy?.[Symbol.asyncDispose]();
    await lab?.close();
  });

  const client = (host: Host): ProxyProtocolHost => {
    const found = asking.get(host);
    if (found === undefined) throw new Error(`nobody asks from ${host.name}`);
    return found;
  };
  const install = async (service: AnnotatedService): Promise<void> =>
    apply(proxy, `${service.name}.yaml`, annotatedManifest(service));

  test.for(
    [
      { how: 'refuses', firstPort: HTTP_OF_POD2 },
      { how: 'is silent', firstPort: HTTP_OF_TWO },
    ].flatMap((way) => VERSIONS.map((version) => ({ ...way, ...version }))),
  )(
    'a connection whose first backend $how brings the second one header of $version',
    async ({ how, firstPort, version, index }) => {
      const number = (how === 'refuses' ? 10 : 12) + index;
      const backends = [lab.pod(1), lab.pod(2)];
      const name = `retry-${number}`;
      const undo = how === 'refuses' ? undefined : await lab.dropTraffic(lab.pod(1), { port: firstPort });
      await install({ name, number, targetPort: firstPort, backends, proxyProtocol: version });
      for (const family of FAMILIES) {
        // All at once: after the first failure the endpoint is left out for a while.
        const portals = portalsOf(lab, lab.pod(4), number, family);
        const { told, expected } = await tellings(client(lab.pod(4)), portals);
        expect(told).toEqual(expected.map((ends) => `${version} ${ends}`));
        const retries = { service: name, ip_family: family };
        expect(await proxy.metric('userspace_proxy_dial_retries_total', retries)).toBeGreaterThan(0);
      }
      await undo?.();
      // One connection each, and no other: what was abandoned was never spoken over.
      const heard = (await servers[1]?.seen(firstPort)) ?? [];
      const own = heard.filter((line) => line.includes(` ${clusterIP(number, 'IPv4')} `));
      expect(own).toHaveLength(1);
    },
  );

  test.for(VERSIONS)(
    'ClientIP affinity holds over all addresses of a Service, with $version',
    async ({ version, index }) => {
      const number = 20 + index;
      const backends = [lab.pod(1), lab.pod(2), lab.pod(3)];
      const affine = (proxyProtocol: string | undefined): AnnotatedService => ({
        name: `sticky-${number}`,
        number,
        targetPort: NAME,
        backends,
        proxyProtocol,
        tweak: ({ spec }) => Object.assign(spec, { sessionAffinity: 'ClientIP' }),
      });
      await install(affine(undefined));
      const names = async (host: Host, family: Family): Promise<readonly string[]> => {
        const agent = await host.agent();
        const answers = await Promise.all(
          portalsOf(lab, host, number, family).map(async (portal) =>
            agent.tcpIdentify({ ...portal, count: 3 }),
          ),
        );
        return [...new Set(answers.flat().map(({ ok, name, errno }) => (ok ? (name ?? '') : (errno ?? ''))))];
      };
      const each = async (host: Host): Promise<readonly (readonly string[])[]> =>
        Promise.all(FAMILIES.map(async (family) => names(host, family)));
      const one = [expect.stringMatching(/^pod[123]$/) as unknown];
      const before = await each(lab.pod(4));
      expect(before).toEqual([one, one]);
      await install(affine(version));
      // Also for those who were tied before there were as many listeners as addresses.
      expect(await each(lab.pod(4))).toEqual(before);
      expect(await each(lab.ext)).toEqual([one, one]);
      await install(affine(undefined));
      expect(await each(lab.pod(4))).toEqual(before);
    },
  );

  test('backends have their turns over all addresses of a Service together', async () => {
    const backends = [lab.pod(1), lab.pod(2), lab.pod(3)];
    await install({ name: 'turns', number: 22, targetPort: NAME, backends, proxyProtocol: 'v1' });
    const agent = await lab.pod(4).agent();
    for (const family of FAMILIES) {
      const names: string[] = [];
      const portals = portalsOf(lab, lab.pod(4), 22, family);
      for (const portal of [...portals, ...portals, ...portals]) {
        const [answer] = await agent.tcpIdentify({ ...portal, count: 1 });
        names.push(answer?.name ?? answer?.errno ?? '');
      }
      const period = names.slice(0, 3);
      expect(period.toSorted()).toEqual(['pod1', 'pod2', 'pod3']);
      expect(names).toEqual(names.map((_, index) => period[index % 3]));
    }
  });

  test.for(VERSIONS)(
    'policy Local chooses the backends and $version says the same to all of them',
    async ({ version, index }) => {
      const number = 30 + index;
      const isLocal = (address: string | undefined): boolean =>
        [lab.pod(1).ipv4, lab.pod(1).ipv6].includes(address ?? '');
      const [service, ...slices] = annotatedObjects({
        name: `local-${number}`,
        number,
        targetPort: HTTP,
        backends: [lab.pod(1), lab.pod(2)],
        proxyProtocol: version,
        tweak: ({ spec }) =>
          Object.assign(spec, { externalTrafficPolicy: 'Local', internalTrafficPolicy: 'Local' }),
      });
      for (const { endpoints } of slices as { endpoints: { addresses: string[]; nodeName?: string }[] }[])
        for (const endpoint of endpoints)
          endpoint.nodeName = isLocal(endpoint.addresses[0]) ? NODE_NAME : 'node2';
      await apply(proxy, `local-${number}.yaml`, manifestText(service ?? {}, ...slices));
      /** Who took 4 connections to each of these addresses. */
      const takers = async (
        host: Host,
        portals: readonly { host: string; port: number }[],
      ): Promise<readonly string[]> => {
        const four = [...portals, ...portals, ...portals, ...portals];
        const { told, expected } = await tellings(client(host), four);
        expect(told).toEqual(expected.map((ends) => `${version} ${ends}`));
        const seen = await Promise.all(
          servers.map(async (server) => ({ server, lines: await server.seen(HTTP) })),
        );
        const names = told.map(
          (line) => seen.find(({ lines }) => lines.includes(line))?.server.name ?? 'nobody',
        );
        return [...new Set(names)].toSorted();
      };
      for (const family of FAMILIES) {
        const internal = [{ host: clusterIP(number, family), port: SERVICE_PORT }];
        const external = [
          { host: addressOf(lab.node, family), port: nodePortOf(number) },
          { host: externalIP(number, family), port: SERVICE_PORT },
          { host: loadBalancerIP(number, family), port: SERVICE_PORT },
        ];
        for (const host of [lab.pod(4), lab.node]) expect(await takers(host, internal)).toEqual(['pod1']);
        // As if it came from a load balancer, which may send it to any node.
        for (const host of [lab.pod(4), lab.node])
          expect(await takers(host, external)).toEqual(['pod1', 'pod2']);
        expect(await takers(lab.ext, external)).toEqual(['pod1']);
      }
    },
  );

  test('a Service of UDP ports alone is served as it is, and told of', async () => {
    await (await lab.pod(1).agent()).serveUdp({ port: HTTP, mode: 'echo', name: 'pod1' });
    const service = dualStackObjects({
      name: 'udp-only',
      number: 40,
      ports: [{ name: 'dns', port: 53, targetPort: HTTP, protocol: 'UDP' }],
      backends: [lab.pod(1)],
      tweak: ({ metadata }) =>
        Object.assign(metadata ?? {}, { annotations: { [PROXY_PROTOCOL_ANNOTATION]: 'v2' } }),
    });
    await apply(proxy, 'udp-only.yaml', manifestText(...service));
    const agent = await lab.pod(4).agent();
    for (const family of FAMILIES) {
      const target = { host: clusterIP(40, family), port: 53, payloadBytes: 100 };
      expect(await agent.udpExchange(target)).toMatchObject({ ok: true, received: 100, identical: true });
    }
    const told = proxy.log.filter((line) => line['object'] === 'Service default/udp-only');
    expect(told).toMatchObject([
      {
        msg: 'Invalid object',
        code: 'ERR_SERVICE_UNSUPPORTED',
        field: `metadata.annotations[${PROXY_PROTOCOL_ANNOTATION}]`,
      },
    ]);
  });
});
