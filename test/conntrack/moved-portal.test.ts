/** Which flows of a portal lead elsewhere than new ones would, and must be forgotten; and which go on. */
import { describe, expect, test } from 'vitest';
import type { Flow } from '../../src/conntrack/flow.ts';
import { type MovedPortal, isStaleFlow, mergeMoved } from '../../src/conntrack/moved-portal.ts';
import { cidrs } from '../support/rule-fixture.ts';
import {
  makeFlow,
  makeMovedPortal,
  makeSurroundings,
  makeUndivertedFlow,
  routeTo,
} from '../support/moved-portals.ts';

interface Case {
  readonly name: string;
  readonly portal?: Partial<MovedPortal>;
  readonly flow: Flow;
}

const NODE_PORT = { address: undefined, port: 30_053, route: routeTo(20_001) } as const;
const SPLIT = routeTo(20_001, { outsidePort: 20_002 });
const NOBODY_OUTSIDE = routeTo(20_001, { outsidePort: undefined });
const FENCED = routeTo(20_001, { allowedSources: cidrs('10.244.1.0/24') });
const PODS = makeSurroundings({ podRanges: cidrs('10.244.1.0/24') });
const toNodePort = (tweak: Partial<Flow> = {}): Flow =>
  makeFlow({ destination: '192.168.77.2', destinationPort: 30_053, ...tweak });
const undivertedToNodePort = (destination: string): Flow =>
  makeUndivertedFlow({ destination, destinationPort: 30_053 });

describe('a flow is stale', () => {
  test.each<Case>([
    { name: 'that came before the rule', flow: makeUndivertedFlow() },
    { name: 'that leads to another proxy port', flow: makeFlow({ replySourcePort: 20_009 }) },
    {
      name: 'that leads to the right port of an address that the node does not have',
      flow: makeFlow({ replySource: '192.168.99.9' }),
    },
    {
      name: 'that another proxy had led to a pod',
      flow: makeFlow({ replySource: '10.244.1.20', replySourcePort: 5353 }),
    },
    {
      name: 'that leads by REDIRECT where DNAT leads now',
      portal: { surroundings: makeSurroundings({ listenAddresses: new Set(['169.254.77.1']) }) },
      flow: makeFlow(),
    },
    {
      name: 'that leads by DNAT where REDIRECT leads now, though the node has that address still',
      portal: { surroundings: makeSurroundings({ localAddresses: new Set(['169.254.77.1']) }) },
      flow: makeFlow({ replySource: '169.254.77.1' }),
    },
    {
      name: 'to a portal that is gone',
      portal: { route: undefined, formerPorts: [20_001] },
      flow: makeFlow(),
    },
    {
      name: 'of a client that may not come any more',
      portal: { route: FENCED },
      flow: makeFlow({ source: '10.244.2.14' }),
    },
    {
      name: 'that came before the portal, of a client that may not come: it would be dropped',
      portal: { route: FENCED },
      flow: makeUndivertedFlow({ source: '10.244.2.14' }),
    },
    {
      name: 'of a pod that is led to another listener than clients outside',
      portal: { route: SPLIT, surroundings: PODS },
      flow: makeFlow({ replySourcePort: 20_002 }),
    },
    {
      name: 'of a client outside that is led to another listener than pods',
      portal: { route: SPLIT, surroundings: PODS },
      flow: makeFlow({ source: '198.51.100.1' }),
    },
    {
      name: 'of a client outside, who is not let in any more',
      portal: { route: NOBODY_OUTSIDE, surroundings: PODS },
      flow: makeFlow({ source: '198.51.100.1' }),
    },
    {
      name: 'where pods are told by their interface, which a flow does not show, and that may have been otherwise before',
      portal: { route: SPLIT, surroundings: makeSurroundings({ hasPodInterfaces: true }) },
      flow: makeFlow(),
    },
    {
      name: 'of somebody who may be a pod or not, and others than pods are not let in any more',
      portal: { route: NOBODY_OUTSIDE, surroundings: makeSurroundings({ hasPodInterfaces: true }) },
      flow: makeFlow(),
    },
    {
      name: 'that came to an address of the node before the NodePort',
      portal: NODE_PORT,
      flow: undivertedToNodePort('192.168.77.2'),
    },
    {
      name: 'that came to a loopback address before the NodePort',
      portal: NODE_PORT,
      flow: undivertedToNodePort('127.0.0.5'),
    },
    {
      name: 'to a NodePort at an address that the node has no more',
      portal: {
        ...NODE_PORT,
        surroundings: makeSurroundings({ goneAddresses: new Set(['192.168.78.2']) }),
      },
      flow: toNodePort({ destination: '192.168.78.2' }),
    },
    {
      name: 'to a NodePort at an address that is not in its ranges any more',
      portal: {
        ...NODE_PORT,
        surroundings: makeSurroundings({ nodePortRanges: cidrs('10.0.0.0/8') }),
      },
      flow: toNodePort(),
    },
    {
      name: 'to a former port of the NodePort at an address that nobody knows',
      portal: { ...NODE_PORT, formerPorts: [20_009] },
      flow: toNodePort({ destination: '192.0.2.1', replySourcePort: 20_009 }),
    },
    {
      name: 'to a NodePort on loopback, where none is',
      portal: { ...NODE_PORT, surroundings: makeSurroundings({ localhostNodePorts: false }) },
      flow: toNodePort({ destination: '127.0.0.1', replySource: '127.0.0.1' }),
    },
  ])('$name', ({ portal, flow }) => {
    expect(isStaleFlow(makeMovedPortal(portal), flow)).toBe(true);
  });
});

describe('a flow goes on', () => {
  test.each<Case>([
    { name: 'that leads where a new one would', flow: makeFlow() },
    {
      name: 'of the node itself, which REDIRECT leads to loopback',
      flow: makeFlow({ source: '192.168.77.2', replySource: '127.0.0.1' }),
    },
    {
      name: 'that leads by DNAT where a new one would',
      portal: { surroundings: makeSurroundings({ listenAddresses: new Set(['169.254.77.1']) }) },
      flow: makeFlow({ replySource: '169.254.77.1' }),
    },
    {
      name: 'of a client that may still come, though others may not',
      portal: { route: FENCED },
      flow: makeFlow(),
    },
    {
      name: 'of a pod that is led where pods are led',
      portal: { route: SPLIT, surroundings: PODS },
      flow: makeFlow(),
    },
    {
      name: 'of the node, which is led where pods are led',
      portal: { route: SPLIT, surroundings: PODS },
      flow: makeFlow({ source: '192.168.77.2' }),
    },
    {
      name: 'of a client outside that is led where those are led',
      portal: { route: SPLIT, surroundings: PODS },
      flow: makeFlow({ source: '198.51.100.1', replySourcePort: 20_002 }),
    },
    {
      name: 'where pods are told by their interface and nothing but ports is different',
      portal: {
        route: SPLIT,
        surroundings: makeSurroundings({ hasPodInterfaces: true }),
        isDoubtful: false,
      },
      flow: makeFlow(),
    },
    {
      name: 'that was never ours, of a portal that is gone',
      portal: { route: undefined, formerPorts: [20_001] },
      flow: makeUndivertedFlow(),
    },
    {
      name: 'that another proxy leads, of a portal that is gone',
      portal: { route: undefined, formerPorts: [20_001] },
      flow: makeFlow({ replySource: '10.244.1.20', replySourcePort: 5353 }),
    },
    {
      name: 'through this node to the NodePort’s number elsewhere',
      portal: NODE_PORT,
      flow: undivertedToNodePort('192.0.2.1'),
    },
    {
      name: 'to the NodePort at an address that only the kernel knows to be local',
      portal: NODE_PORT,
      flow: toNodePort({ destination: '192.0.2.1' }),
    },
  ])('$name', ({ portal, flow }) => {
    expect(isStaleFlow(makeMovedPortal(portal), flow)).toBe(false);
  });
});

describe('of two words about a portal that wait together', () => {
  test('the newer one counts, and the older one’s ports are stale', () => {
    const merged = mergeMoved(
      makeMovedPortal({ route: routeTo(20_002), formerPorts: [20_001], isDoubtful: true }),
      makeMovedPortal({ route: routeTo(20_003), formerPorts: [20_002], isDoubtful: false }),
    );
    expect(merged).toMatchObject({ route: { insidePort: 20_003 }, isDoubtful: true });
    expect(new Set(merged.formerPorts)).toEqual(new Set([20_001, 20_002]));
  });

  test('a portal that went remembers every port that it had', () => {
    const merged = mergeMoved(
      makeMovedPortal({ route: routeTo(20_002), formerPorts: [20_001] }),
      makeMovedPortal({ route: undefined, formerPorts: [20_002] }),
    );
    for (const replySourcePort of [20_001, 20_002])
      expect(isStaleFlow(merged, makeFlow({ replySourcePort }))).toBe(true);
    expect(isStaleFlow(merged, makeUndivertedFlow())).toBe(false);
  });

  test('an address that went and came back is not gone', () => {
    const gone = (...goneAddresses: string[]): Partial<MovedPortal> => ({
      ...NODE_PORT,
      surroundings: makeSurroundings({ goneAddresses: new Set(goneAddresses) }),
    });
    const merged = mergeMoved(makeMovedPortal(gone('192.168.78.2', '192.168.77.2')), makeMovedPortal(gone()));
    expect([...merged.surroundings.goneAddresses]).toEqual(['192.168.78.2']);
  });
});
