/** What load balancers are told of a Service on this node, and on which addresses. */
import { describe, expect, test } from 'vitest';
import { type DesiredState, buildDesiredState } from '../../src/desired/desired-state.ts';
import type { NodeSettings } from '../../src/desired/node-view.ts';
import type { Endpoint } from '../../src/model/endpoint.ts';
import type { HealthCheck } from '../../src/model/health-check.ts';
import type { ServicePort } from '../../src/model/service-port.ts';
import { type NodeTweak, cidrs, makeNodeInfo, makeNodeView } from '../support/rule-fixture.ts';
import {
  NOT_SERVING,
  type ServicePortTweak,
  TERMINATING,
  addresses,
  makeServicePort,
  makeSnapshot,
} from '../support/snapshots.ts';
import { HERE_AND_ELSEWHERE, desiredOf, elsewhere, here } from './policy-fixture.ts';

const PORT = 31_000;
const LOCAL: ServicePortTweak = { externalTrafficPolicy: 'Local', healthCheckNodePort: PORT };

function makePort(portName: string, tweak: ServicePortTweak = {}): ServicePort {
  return makeServicePort({ name: 'web', portName }, { ...LOCAL, ...tweak });
}

const WEB = makePort('http');
const DUAL_STACK = makePort('http', { clusterIPs: addresses('10.96.0.10', 'fd00:96::a') });

function checkTexts({ healthChecks }: DesiredState): readonly string[] {
  return healthChecks.map(
    ({ namespace, name, family, port, localEndpoints }: HealthCheck) =>
      `${namespace}/${name} ${family} ${port}: ${localEndpoints}`,
  );
}

describe('the local endpoints of a Service are', () => {
  test.each<{ name: string; endpoints: readonly Endpoint[]; count: number }>([
    { name: 'none where there are none', endpoints: [], count: 0 },
    {
      name: 'those that are ready on this node',
      endpoints: [here('10.0.0.1'), here('10.0.0.2'), elsewhere('10.0.0.3')],
      count: 2,
    },
    {
      name: 'none that is not ready',
      endpoints: [here('10.0.0.1'), here('10.0.0.2', NOT_SERVING)],
      count: 1,
    },
    {
      name: 'none that only serves while it terminates, though it gets new connections',
      endpoints: [here('10.0.0.1', TERMINATING)],
      count: 0,
    },
    {
      name: 'one for each address, whatever its ports',
      endpoints: [here('10.0.0.1'), here('10.0.0.1', { key: '10.0.0.1:9090', port: 9090 })],
      count: 1,
    },
  ])('$name', ({ endpoints, count }) => {
    expect(checkTexts(desiredOf(WEB, endpoints))).toEqual([`default/web IPv4 ${PORT}: ${count}`]);
  });

  test('counted over all its ports, each address once', () => {
    const snapshot = makeSnapshot(
      [WEB, [here('10.0.0.1'), here('10.0.0.2')]],
      [makePort('https', { port: 443 }), [here('10.0.0.2'), here('10.0.0.3')]],
    );
    expect(checkTexts(buildDesiredState(snapshot, makeNodeView()))).toEqual([`default/web IPv4 ${PORT}: 3`]);
  });

  test('not those of another Service', () => {
    const other = makeServicePort({ name: 'other' }, { clusterIPs: addresses('10.96.0.11') });
    const snapshot = makeSnapshot([WEB, [here('10.0.0.1')]], [other, [here('10.0.0.2'), here('10.0.0.3')]]);
    expect(checkTexts(buildDesiredState(snapshot, makeNodeView()))).toEqual([`default/web IPv4 ${PORT}: 1`]);
  });

  test('counted in each family by itself', () => {
    const endpoints = [here('10.0.0.1'), here('10.0.0.2'), here('fd00:1::1'), elsewhere('fd00:1::2')];
    expect(checkTexts(desiredOf(DUAL_STACK, endpoints))).toEqual([
      `default/web IPv4 ${PORT}: 2`,
      `default/web IPv6 ${PORT}: 1`,
    ]);
  });
});

describe('a health check there is', () => {
  test.each<{ name: string; servicePort: ServicePort; node?: NodeTweak; families: readonly string[] }>([
    { name: 'in the families of the Service', servicePort: DUAL_STACK, families: ['IPv4', 'IPv6'] },
    { name: 'in no family that it is not of', servicePort: WEB, families: ['IPv4'] },
    {
      name: 'in no family that is not captured here',
      servicePort: DUAL_STACK,
      node: { families: ['IPv6'] },
      families: ['IPv6'],
    },
    {
      name: 'not for a Service without a port for it',
      servicePort: makePort('http', { healthCheckNodePort: 0 }),
      families: [],
    },
  ])('$name', ({ servicePort, node = {}, families }) => {
    const { healthChecks, capture } = desiredOf(servicePort, HERE_AND_ELSEWHERE, node);
    expect(healthChecks.map(({ family }) => family)).toEqual(families);
    expect(capture.healthCheckPorts).toEqual(
      families.map((family) => ({ family, port: PORT, serviceName: 'default/web' })),
    );
  });

  test('also while the Service has no endpoints at all, with its rule', () => {
    const desired = desiredOf(WEB, []);
    expect(checkTexts(desired)).toEqual([`default/web IPv4 ${PORT}: 0`]);
    expect(desired.capture.healthCheckPorts).toHaveLength(1);
  });

  test('once for all ports of the Service, in order of their names', () => {
    const first = makeServicePort(
      { name: 'a-web' },
      { ...LOCAL, clusterIPs: addresses('10.96.0.11'), healthCheckNodePort: 31_001 },
    );
    const snapshot = makeSnapshot([WEB, []], [makePort('https', { port: 443 }), []], [first, []]);
    expect(checkTexts(buildDesiredState(snapshot, makeNodeView()))).toEqual([
      'default/a-web IPv4 31001: 0',
      `default/web IPv4 ${PORT}: 0`,
    ]);
  });
});

describe('it is answered on', () => {
  test.each<{
    name: string;
    settings: Partial<NodeSettings>;
    IPv4: readonly string[];
    IPv6: readonly string[];
    node?: NodeTweak['node'];
  }>([
    { name: 'every address unless told', settings: {}, IPv4: ['0.0.0.0'], IPv6: ['::'] },
    {
      name: 'every address where loopback serves no NodePorts: that is about NodePorts',
      settings: { localhostNodePorts: false },
      IPv4: ['0.0.0.0'],
      IPv6: ['::'],
    },
    {
      name: 'the addresses of the node in the ranges, and everywhere in a family without',
      settings: { nodePortAddresses: cidrs('192.168.0.0/16', '10.0.0.0/8') },
      IPv4: ['192.168.77.2'],
      IPv6: ['::'],
    },
    {
      name: 'every address where one of several ranges is all of them',
      settings: { nodePortAddresses: cidrs('192.168.0.0/16', '0.0.0.0/0', 'fd00:77::/64') },
      IPv4: ['0.0.0.0'],
      IPv6: ['fd00:77::2'],
    },
    {
      name: 'the primary addresses',
      settings: { nodePortAddresses: 'primary' },
      node: makeNodeInfo(),
      IPv4: ['192.168.77.2'],
      IPv6: ['fd00:77::2'],
    },
    {
      name: 'nowhere while the primary address is not known',
      settings: { nodePortAddresses: 'primary' },
      IPv4: [],
      IPv6: [],
    },
  ])('$name', ({ settings, IPv4, IPv6, node }) => {
    const desired = desiredOf(DUAL_STACK, HERE_AND_ELSEWHERE, {
      settings,
      ...(node === undefined ? {} : { node }),
    });
    expect(Object.fromEntries(desired.healthChecks.map((check) => [check.family, check.addresses]))).toEqual({
      IPv4,
      IPv6,
    });
  });
});
