/**
 * Upstream's tests of KEP-6032: a NodePort on 127.0.0.1 and on ::1, for the node itself, without route_localnet; and
 * what takes it away.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { canMakeNamespaces, type Lab } from '../../support/netns-lab.ts';
import { atLocalhost, atNodePort, FAMILIES, twoNodeService } from '../../support/two-nodes-objects.ts';
import { TwoNodes } from '../../support/two-nodes.ts';

/** What a registry serves, and what an image weighs. */
const REGISTRY_PORT = 5_000;
const IMAGE_BYTES = 5_000_000;

describe.skipIf(canMakeNamespaces() !== undefined)('[sig-network] LocalhostNodePorts', () => {
  let nodes: TwoNodes;
  let lab: Lab;

  beforeAll(async () => {
    nodes = await TwoNodes.start({ pods: 3 });
    ({ lab } = nodes);
  });
  afterAll(async () => {
    await nodes?.[Symbol.asyncDispose]();
  });

  test('should proxy localhost NodePort traffic to backends across nodes', async () => {
    await nodes.apply(
      ...twoNodeService({
        name: 'agnhost-localhost-nodeport',
        number: 10,
        type: 'NodePort',
        endpoints: [lab.pod(1), lab.podOn2(1)],
      }),
    );
    await nodes.expect([
      [lab.node, atLocalhost(10), 'node2-pod1+pod1'],
      [lab.node2, atLocalhost(10), 'node2-pod1+pod1'],
    ]);
    const settings = await lab.node.run(['sysctl', '-n', 'net.ipv4.conf.all.route_localnet']);
    expect(settings.trim()).toBe('0');
  });

  test('should honor sessionAffinity=ClientIP for localhost NodePort', async () => {
    await nodes.apply(
      ...twoNodeService({
        name: 'agnhost-sticky-localhost',
        number: 11,
        type: 'NodePort',
        endpoints: [lab.pod(1), lab.pod(2), lab.pod(3)],
        tweak: ({ spec }) => Object.assign(spec, { sessionAffinity: 'ClientIP' }),
      }),
    );
    const client = await lab.node.agent();
    for (const family of FAMILIES) {
      const answers = await client.tcpIdentify({ ...atLocalhost(11).at(family), count: 15 });
      expect(answers.every(({ ok }) => ok)).toBe(true);
      expect(new Set(answers.map(({ name }) => name)).size).toBe(1);
    }
  });

  test('should let a node pull an image from a registry exposed via localhost NodePort', async () => {
    const registry = await lab.podOn2(1).agent();
    await registry.serveTcp({ port: REGISTRY_PORT, mode: 'echo', name: 'registry' });
    await nodes.apply(
      ...twoNodeService({
        name: 'localhost-nodeport-registry',
        number: 12,
        type: 'NodePort',
        targetPort: REGISTRY_PORT,
        endpoints: [lab.podOn2(1)],
      }),
    );
    const client = await lab.node.agent();
    for (const family of FAMILIES) {
      const target = atLocalhost(12).at(family);
      const pulled = await client.tcpExchange({
        ...target,
        bytes: IMAGE_BYTES,
        halfClose: true,
        timeoutMs: 15_000,
      });
      expect(pulled).toMatchObject({ ok: true, identical: true, received: IMAGE_BYTES });
    }
  });

  test('localhost is the node itself to policy Local, and UDP as well as TCP', async () => {
    await nodes.apply(
      ...twoNodeService({
        name: 'local',
        number: 13,
        type: 'NodePort',
        external: 'Local',
        endpoints: [lab.podOn2(1)],
      }),
      ...twoNodeService({
        name: 'udp',
        number: 14,
        type: 'NodePort',
        protocol: 'UDP',
        endpoints: [lab.pod(1), lab.podOn2(1)],
      }),
    );
    await nodes.expect([
      [lab.node, atLocalhost(13), 'node2-pod1'],
      [lab.ext, atNodePort(13, lab.node), 'silence'],
    ]);
    await nodes.eventually([[lab.node, atLocalhost(14), 'node2-pod1+pod1']], { protocol: 'UDP' });
  });

  test('a Service without endpoints refuses on localhost too', async () => {
    await nodes.apply(...twoNodeService({ name: 'nobody', number: 15, type: 'NodePort', endpoints: [] }));
    await nodes.expect([[lab.node, atLocalhost(15), 'refused']]);
  });

  test.for([
    {
      what: '--iptables-localhost-nodeports=false',
      number: 16,
      value: '--iptables-localhost-nodeports=false',
    },
    {
      what: '--nodeport-addresses without loopback',
      number: 18,
      value: '--nodeport-addresses=192.168.77.0/24,fd00:77::/64',
    },
  ])('$what leaves localhost to others', async ({ number, value }) => {
    await nodes.apply(
      ...twoNodeService({
        name: `off-${number}`,
        number,
        type: 'NodePort',
        endpoints: [lab.pod(1)],
      }),
    );
    await nodes.restart('node1', [value]);
    await nodes.expect([
      [lab.node2, atLocalhost(number), 'pod1'],
      [lab.node, atLocalhost(number), 'refused'],
      [lab.node, atNodePort(number, lab.node), 'pod1'],
      [lab.ext, atNodePort(number, lab.node), 'pod1'],
    ]);
  });

  test('--nodeport-addresses with loopback ranges serves localhost, and only that', async () => {
    await nodes.apply(
      ...twoNodeService({ name: 'only', number: 17, type: 'NodePort', endpoints: [lab.pod(1)] }),
    );
    await nodes.restart('node1', ['--nodeport-addresses=127.0.0.0/8,::1/128']);
    await nodes.expect([
      [lab.node, atLocalhost(17), 'pod1'],
      [lab.ext, atNodePort(17, lab.node), 'refused'],
      [lab.ext, atNodePort(17, lab.node2), 'pod1'],
    ]);
  });
});
