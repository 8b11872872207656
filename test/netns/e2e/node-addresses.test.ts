/**
 * Where NodePorts and health check ports are: at every local address unless `--nodeport-addresses` says otherwise, and
 * where addresses come and go, there too.
 */
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { errnoOf } from '../../support/agent-socket.ts';
import { addressOf, type Family } from '../../support/dual-stack.ts';
import { canMakeNamespaces, type Lab } from '../../support/netns-lab.ts';
import {
  atClusterIP,
  atLocalhost,
  atNodePort,
  FAMILIES,
  healthCheckPortOf,
  nodeObject,
  nodePortOf,
  type Spot,
  twoNodeService,
} from '../../support/two-nodes-objects.ts';
import { type Row, TwoNodes } from '../../support/two-nodes.ts';
import { waitFor } from '../../support/wait.ts';

/** A second address of the first node on the segment, and one far from it. */
const SECOND = { IPv4: '192.168.77.102', IPv6: 'fd00:77::102' };
const FAR = { IPv4: '10.99.0.1', IPv6: 'fd00:99::1' };

const RANGES = '--nodeport-addresses=192.168.77.0/24,fd00:77::/64';

type Addresses = Readonly<Record<Family, string>>;

describe.skipIf(canMakeNamespaces() !== undefined)('NodePorts', () => {
  let nodes: TwoNodes;
  let lab: Lab;

  beforeAll(async () => {
    nodes = await TwoNodes.start();
    ({ lab } = nodes);
  });
  afterAll(async () => {
    await nodes?.[Symbol.asyncDispose]();
  });

  const at = (number: number, addresses: Addresses): Spot => ({
    text: `${addresses.IPv4}, ${addresses.IPv6}`,
    at: (family) => ({ host: addresses[family], port: nodePortOf(number) }),
  });

  const service = (number: number): readonly object[] =>
    twoNodeService({
      name: `np-${number}`,
      number,
      type: 'LoadBalancer',
      external: 'Local',
      endpoints: [lab.pod(1)],
    });

  /** On the first node, in whole prefixes. */
  const change = async (verb: 'add' | 'remove', addresses: Addresses): Promise<void> => {
    for (const family of FAMILIES) {
      const cidr = `${addresses[family]}/${family === 'IPv4' ? 32 : 128}`;
      await (verb === 'add' ? lab.node.addAddress(cidr) : lab.node.removeAddress(cidr));
    }
  };
  const addForThisTest = async (addresses: Addresses): Promise<void> => {
    await change('add', addresses);
    onTestFinished(async () => change('remove', addresses));
  };

  /** What the outside hears from the health check port there, over each family. */
  const healthBecomes = async (number: number, addresses: Addresses, expected: string): Promise<void> => {
    const client = await lab.ext.agent();
    const isSo = async (): Promise<boolean> => {
      const seen = await Promise.all(
        FAMILIES.map(async (family) =>
          client
            .httpGet({ host: addresses[family], port: healthCheckPortOf(number), path: '/', timeoutMs: 700 })
            .then(({ status }) => String(status), errnoOf),
        ),
      );
      return seen.every((one) => one === expected);
    };
    await waitFor(isSo, { timeoutMs: 5_000, what: `${expected} from ${addresses.IPv4}, ${addresses.IPv6}` });
  };

  const nodeAddresses = (): Addresses => ({
    IPv4: addressOf(lab.node, 'IPv4'),
    IPv6: addressOf(lab.node, 'IPv6'),
  });

  test('follow the node’s addresses as they come and go', async () => {
    await nodes.apply(...service(10));
    for (const addresses of [SECOND, FAR]) {
      await change('add', addresses);
      await nodes.eventually([
        [lab.ext, at(10, addresses), 'pod1'],
        [nodes.client, at(10, addresses), 'pod1'],
        [lab.node, at(10, addresses), 'pod1'],
      ]);
      await healthBecomes(10, addresses, '200');
      await change('remove', addresses);
      await nodes.expect([[lab.ext, at(10, addresses), 'silence']]);
    }
    await nodes.expect([[lab.ext, atNodePort(10, lab.node), 'pod1']]);
  });

  test('are served in the ranges of --nodeport-addresses only, health check ports too', async () => {
    await nodes.apply(...service(11));
    await nodes.restart('node1', [RANGES]);
    await addForThisTest(FAR);
    // The kernel may take a moment to see that an IPv6 address is local (addrconf_dad_work).
    await nodes.eventually([
      [lab.ext, atNodePort(11, lab.node), 'pod1'],
      [nodes.client, atNodePort(11, lab.node), 'pod1'],
      [lab.ext, at(11, FAR), 'refused'],
      [lab.node, at(11, FAR), 'refused'],
      [lab.node, atLocalhost(11), 'refused'],
      [lab.ext, atClusterIP(11), 'pod1'],
    ]);
    await healthBecomes(11, nodeAddresses(), '200');
    await healthBecomes(11, FAR, 'ECONNREFUSED');
    // An address that comes later and is in a range.
    await addForThisTest(SECOND);
    await nodes.eventually([[lab.ext, at(11, SECOND), 'pod1']]);
    await healthBecomes(11, SECOND, '200');
  });

  test('are limited in the families that --nodeport-addresses has ranges of', async () => {
    await nodes.apply(...service(12));
    await nodes.restart('node1', ['--nodeport-addresses=10.99.0.0/16']);
    await addForThisTest(FAR);
    await nodes.eventually([
      [lab.ext, at(12, FAR), 'pod1'],
      [lab.ext, atNodePort(12, lab.node), { IPv4: 'refused', IPv6: 'pod1' }],
      [lab.node, atLocalhost(12), { IPv4: 'refused', IPv6: 'pod1' }],
    ]);
  });

  test('are at the Node’s InternalIPs only with --nodeport-addresses primary, and follow them', async () => {
    const withInternalIPs = (internalIPs: Addresses): object => nodeObject(lab.node, { internalIPs });
    await addForThisTest(FAR);
    await nodes.apply(withInternalIPs(nodeAddresses()), ...service(13));
    await nodes.restart('node1', ['--nodeport-addresses=primary']);
    const served = (one: Addresses, not: Addresses): readonly Row[] => [
      [lab.ext, at(13, one), 'pod1'],
      [lab.ext, at(13, not), 'refused'],
      [lab.node, atLocalhost(13), 'refused'],
    ];
    await nodes.expect(served(nodeAddresses(), FAR));
    await healthBecomes(13, FAR, 'ECONNREFUSED');
    await nodes.write(withInternalIPs(FAR), ...service(13));
    await nodes.eventually(served(FAR, nodeAddresses()));
    await healthBecomes(13, FAR, '200');
    await healthBecomes(13, nodeAddresses(), 'ECONNREFUSED');
  });

  test('are nowhere with --nodeport-addresses primary while no Node is known, which is said', async () => {
    await nodes.apply(...service(14));
    await nodes.restart('node1', ['--nodeport-addresses=primary']);
    await nodes.expect([
      [lab.ext, atNodePort(14, lab.node), 'refused'],
      [nodes.client, atClusterIP(14), 'pod1'],
    ]);
    const proxy = nodes.proxy('node1');
    expect(await proxy.metric('userspace_proxy_invalid_objects', { code: 'ERR_NODE_ADDRESS' })).toBe(2);
    await nodes.write(nodeObject(lab.node), ...service(14));
    await nodes.eventually([[lab.ext, atNodePort(14, lab.node), 'pod1']]);
    expect(await proxy.metric('userspace_proxy_invalid_objects', { code: 'ERR_NODE_ADDRESS' })).toBe(0);
  });
});
