/**
 * What stays the same object from one desired state to the next: everything behind it is skipped then. And that
 * what is used again is what would have been made anew.
 */
import { describe, expect, test } from 'vitest';
import {
  type DesiredState,
  DesiredStateBuilder,
  buildDesiredState,
} from '../../src/desired/desired-state.ts';
import type { NodeView } from '../../src/desired/node-view.ts';
import type { Endpoint } from '../../src/model/endpoint.ts';
import type { ServicePort } from '../../src/model/service-port.ts';
import type { ServicePortKey } from '../../src/model/service-port-name.ts';
import type { Snapshot } from '../../src/model/snapshot.ts';
import { Random, seeds } from '../support/random.ts';
import { cidrs, makeNodeInfo, makeNodeView } from '../support/rule-fixture.ts';
import {
  NOT_SERVING,
  type ServicePortTweak,
  TERMINATING,
  addresses,
  makeServicePort,
} from '../support/snapshots.ts';
import {
  HERE_AND_ELSEWHERE,
  ONLY_ELSEWHERE,
  elsewhere,
  here,
  makeWeb,
  randomEndpoints,
  randomServicePort,
} from './policy-fixture.ts';

const NODE = makeNodeView({ node: makeNodeInfo() });

/** States one after the other, of Services that stay and endpoints that change, as a source tells them. */
class Sequence {
  readonly #builder = new DesiredStateBuilder();
  #servicePorts: ReadonlyMap<ServicePortKey, ServicePort>;
  #endpoints: ReadonlyMap<ServicePortKey, readonly Endpoint[]> = new Map();
  node: NodeView = NODE;

  constructor(...servicePorts: readonly ServicePort[]) {
    this.#servicePorts = new Map(servicePorts.map((servicePort) => [servicePort.key, servicePort]));
  }

  get snapshot(): Snapshot {
    return { servicePorts: this.#servicePorts, endpoints: this.#endpoints, problems: [] };
  }

  /** Another list of the Services, as when one of them was told anew. */
  setServicePorts(...servicePorts: readonly ServicePort[]): void {
    this.#servicePorts = new Map(servicePorts.map((servicePort) => [servicePort.key, servicePort]));
  }

  setEndpoints(servicePort: ServicePort, endpoints: readonly Endpoint[]): void {
    this.#endpoints = new Map([...this.#endpoints, [servicePort.key, endpoints]]);
  }

  next(): DesiredState {
    return this.#builder.build(this.snapshot, this.node);
  }

  with(servicePort: ServicePort, endpoints: readonly Endpoint[]): DesiredState {
    this.setEndpoints(servicePort, endpoints);
    return this.next();
  }
}

const BOTH_LOCAL: ServicePortTweak = { internalTrafficPolicy: 'Local', externalTrafficPolicy: 'Local' };

describe('what rules are made of is the same object', () => {
  test.each<{
    name: string;
    tweak: ServicePortTweak;
    before: readonly Endpoint[];
    after: readonly Endpoint[];
  }>([
    { name: 'when nothing changed', tweak: {}, before: HERE_AND_ELSEWHERE, after: HERE_AND_ELSEWHERE },
    {
      name: 'when an endpoint comes',
      tweak: {},
      before: HERE_AND_ELSEWHERE,
      after: [...HERE_AND_ELSEWHERE, elsewhere('10.0.0.3')],
    },
    {
      name: 'when all endpoints are others',
      tweak: {},
      before: HERE_AND_ELSEWHERE,
      after: [elsewhere('10.0.0.8'), elsewhere('fd00:1::8')],
    },
    {
      name: 'when the last endpoint here goes, under policy Cluster',
      tweak: {},
      before: HERE_AND_ELSEWHERE,
      after: ONLY_ELSEWHERE,
    },
    {
      name: 'when endpoints here are others, under policy Local',
      tweak: BOTH_LOCAL,
      before: HERE_AND_ELSEWHERE,
      after: [here('10.0.0.5'), here('10.0.0.6'), here('fd00:1::5')],
    },
    {
      name: 'when the last endpoint here terminates and still serves, under policy Local',
      tweak: BOTH_LOCAL,
      before: HERE_AND_ELSEWHERE,
      after: [here('10.0.0.1', TERMINATING), here('fd00:1::1', TERMINATING), ...ONLY_ELSEWHERE],
    },
    {
      name: 'when only the count of its health check changes',
      tweak: { ...BOTH_LOCAL, healthCheckNodePort: 31_000 },
      before: HERE_AND_ELSEWHERE,
      after: [...HERE_AND_ELSEWHERE, here('10.0.0.9')],
    },
    {
      name: 'when it had none and has none',
      tweak: BOTH_LOCAL,
      before: [],
      after: [here('10.0.0.1', NOT_SERVING)],
    },
  ])('$name', ({ tweak, before, after }) => {
    const web = makeWeb(tweak);
    const sequence = new Sequence(web);
    const first = sequence.with(web, before);
    const second = sequence.with(web, after);
    expect(second.capture).toBe(first.capture);
    expect(second.capture).toEqual(buildDesiredState(sequence.snapshot, NODE).capture);
  });

  test.each<{
    name: string;
    tweak: ServicePortTweak;
    before: readonly Endpoint[];
    after: readonly Endpoint[];
  }>([
    { name: 'the last endpoint goes', tweak: {}, before: HERE_AND_ELSEWHERE, after: [] },
    { name: 'the first endpoint comes', tweak: {}, before: [], after: HERE_AND_ELSEWHERE },
    {
      name: 'the last endpoint of one family goes',
      tweak: {},
      before: HERE_AND_ELSEWHERE,
      after: [here('10.0.0.1')],
    },
    {
      name: 'the last endpoint here goes, under internal policy Local',
      tweak: { internalTrafficPolicy: 'Local' },
      before: HERE_AND_ELSEWHERE,
      after: ONLY_ELSEWHERE,
    },
    {
      name: 'the last endpoint here goes, under external policy Local',
      tweak: { externalTrafficPolicy: 'Local' },
      before: HERE_AND_ELSEWHERE,
      after: ONLY_ELSEWHERE,
    },
    {
      name: 'the last endpoint here stops serving, under external policy Local',
      tweak: { externalTrafficPolicy: 'Local' },
      before: HERE_AND_ELSEWHERE,
      after: [here('10.0.0.1', NOT_SERVING), here('fd00:1::1', NOT_SERVING), ...ONLY_ELSEWHERE],
    },
    {
      name: 'the first endpoint here comes, under external policy Local',
      tweak: { externalTrafficPolicy: 'Local' },
      before: ONLY_ELSEWHERE,
      after: HERE_AND_ELSEWHERE,
    },
  ])('but another when $name', ({ tweak, before, after }) => {
    const web = makeWeb(tweak);
    const sequence = new Sequence(web);
    const first = sequence.with(web, before);
    const second = sequence.with(web, after);
    expect(second.capture).not.toBe(first.capture);
    expect(second.capture).not.toEqual(first.capture);
    expect(second.capture).toEqual(buildDesiredState(sequence.snapshot, NODE).capture);
  });

  test('but another when the node is seen otherwise, though nothing of it is', () => {
    const web = makeWeb();
    const sequence = new Sequence(web);
    const first = sequence.with(web, HERE_AND_ELSEWHERE);
    sequence.node = makeNodeView({ node: makeNodeInfo() });
    expect(sequence.next().capture).not.toBe(first.capture);
    expect(sequence.next().capture).toEqual(first.capture);
  });

  test('but another when a Service was told anew', () => {
    const web = makeWeb();
    const sequence = new Sequence(web);
    const first = sequence.with(web, HERE_AND_ELSEWHERE);
    sequence.setServicePorts({ ...web, healthCheckNodePort: 31_000 });
    expect(sequence.next().capture).not.toBe(first.capture);
    expect(sequence.next().capture.healthCheckPorts).toHaveLength(2);
  });
});

describe('the node seen otherwise', () => {
  const web = makeWeb({ externalTrafficPolicy: 'Local' });

  test.each<{ name: string; node: NodeView; differs: (state: DesiredState) => unknown }>([
    {
      name: 'in another zone: other endpoints, and the rules are equal',
      node: makeNodeView({ node: makeNodeInfo({ labels: { 'topology.kubernetes.io/zone': 'zone-b' } }) }),
      differs: ({ listeners }) => [...listeners.values()].map(({ endpoints }) => endpoints),
    },
    {
      name: 'with pods that are told by ranges: other sources',
      node: makeNodeView({ settings: { localDetection: { kind: 'nodeCIDR' } }, node: makeNodeInfo() }),
      differs: ({ capture }) => capture.podSources,
    },
    {
      name: 'with NodePorts in ranges: other ranges',
      node: makeNodeView({ settings: { nodePortAddresses: cidrs('10.0.0.0/8') }, node: makeNodeInfo() }),
      differs: ({ capture }) => capture.nodePortRanges,
    },
    {
      name: 'without NodePorts on loopback: told in the rules',
      node: makeNodeView({ settings: { localhostNodePorts: false }, node: makeNodeInfo() }),
      differs: ({ capture }) => capture.localhostNodePorts,
    },
    {
      name: 'under another name: other local endpoints',
      node: makeNodeView({ settings: { nodeName: 'node2' }, node: makeNodeInfo() }),
      differs: ({ listeners }) => [...listeners.values()].map(({ endpoints }) => endpoints),
    },
  ])('$name', ({ node, differs }) => {
    const sequence = new Sequence(web);
    const endpoints = [
      here('10.0.0.1', { zoneHints: ['zone-a'] }),
      elsewhere('10.0.0.2', { zoneHints: ['zone-b'] }),
    ];
    const first = sequence.with(web, endpoints);
    sequence.node = node;
    const second = sequence.next();
    expect(differs(second)).not.toEqual(differs(first));
    expect(second).toEqual(buildDesiredState(sequence.snapshot, node));
  });
});

describe('a listener is the same object', () => {
  const api = makeServicePort({ name: 'api' }, { clusterIPs: addresses('10.96.0.11') });

  /** Keys of the listeners that are the same object in both. */
  const kept = (first: DesiredState, second: DesiredState): readonly string[] =>
    [...first.listeners].filter(([key, one]) => second.listeners.get(key) === one).map(([key]) => key);
  const OF_WEB = ['default/web/TCP/IPv4/cluster', 'default/web/TCP/IPv6/cluster'];
  const OF_API = ['default/api/TCP/IPv4/cluster'];

  test('while its own endpoints are, whatever becomes of other Services', () => {
    const web = makeWeb();
    const sequence = new Sequence(web, api);
    const first = sequence.with(web, HERE_AND_ELSEWHERE);
    const second = sequence.with(api, [elsewhere('10.0.0.9')]);
    const third = sequence.with(api, []);
    expect(kept(first, second)).toEqual(OF_WEB);
    expect(kept(second, third)).toEqual(OF_WEB);
  });

  test('and another when its own are others', () => {
    const web = makeWeb();
    const sequence = new Sequence(web, api);
    const first = sequence.with(web, HERE_AND_ELSEWHERE);
    expect(kept(first, sequence.with(web, ONLY_ELSEWHERE))).toEqual(OF_API);
  });
});

describe('after any sequence of changes', () => {
  test.each(seeds(5))('a state is what it would be from nothing (seed %i)', (seed) => {
    const random = new Random(seed);
    const nodes = [
      NODE,
      makeNodeView(),
      makeNodeView({ families: ['IPv6'], settings: { nodePortAddresses: 'primary' }, node: makeNodeInfo() }),
      makeNodeView({
        settings: { externalClusterIP: false, localDetection: { kind: 'interface', name: 'cali+' } },
      }),
    ];
    let servicePorts = Array.from({ length: 6 }, (_, index) => randomServicePort(random, index));
    const sequence = new Sequence(...servicePorts);
    for (let round = 0; round < 200; round += 1) {
      const chance = random.next();
      if (chance < 0.8) {
        sequence.setEndpoints(random.pick(servicePorts), randomEndpoints(random));
      } else if (chance < 0.95) {
        servicePorts = servicePorts.map((old, index) =>
          random.next() < 0.3 ? randomServicePort(random, index) : old,
        );
        sequence.setServicePorts(...servicePorts);
      } else {
        sequence.node = random.pick(nodes);
      }
      expect(sequence.next()).toEqual(buildDesiredState(sequence.snapshot, sequence.node));
    }
  });
});
