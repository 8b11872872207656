/**
 * Upstream's tests of publishNotReadyAddresses. The field is the endpoint slice controller's: it marks endpoints as
 * ready that are not, and the proxy takes `ready` as it stands. Here the test writes the slices as the controller does.
 */
import { afterAll, beforeAll, describe, test } from 'vitest';
import { canMakeNamespaces, type Host, type Lab } from '../../support/netns-lab.ts';
import { atClusterIP, atNodePort, type EndpointAt, twoNodeService } from '../../support/two-nodes-objects.ts';
import { TwoNodes } from '../../support/two-nodes.ts';

/** What the controller makes of a pod, by its life and by publishNotReadyAddresses (`pkg/endpointslice`, podToEndpoint). */
const CONDITIONS = {
  ready: { ready: true, serving: true, terminating: false },
  unready: { ready: false, serving: false, terminating: false },
  unreadyPublished: { ready: true, serving: false, terminating: false },
  terminatingUnready: { ready: false, serving: false, terminating: true },
  terminatingUnreadyPublished: { ready: true, serving: false, terminating: true },
} as const satisfies Record<string, EndpointAt['conditions']>;

describe.skipIf(canMakeNamespaces() !== undefined)('[sig-network] Services', () => {
  let nodes: TwoNodes;
  let lab: Lab;
  let podOn2: Host;

  beforeAll(async () => {
    nodes = await TwoNodes.start();
    ({ lab } = nodes);
    podOn2 = nodes.clientOn2;
  });
  afterAll(async () => {
    await nodes?.[Symbol.asyncDispose]();
  });

  const apply = async (
    service: { readonly name: string; readonly number: number; readonly type?: 'NodePort' },
    state: keyof typeof CONDITIONS,
    publishNotReadyAddresses: boolean,
  ): Promise<void> =>
    nodes.apply(
      ...twoNodeService({
        ...service,
        endpoints: [{ host: lab.pod(1), conditions: CONDITIONS[state] }],
        tweak: ({ spec }) => Object.assign(spec, { publishNotReadyAddresses }),
      }),
    );

  test('should create endpoints for unready pods', async () => {
    const service = { name: 'tolerate-unready', number: 10 };
    await apply(service, 'unreadyPublished', true);
    await nodes.expect([[podOn2, atClusterIP(10), 'pod1']]);
    // The pod is deleted, and the Service does not tolerate unready ones any more.
    await apply(service, 'terminatingUnready', false);
    await nodes.expect([[podOn2, atClusterIP(10), 'refused']]);
    await apply(service, 'terminatingUnreadyPublished', true);
    await nodes.expect([[podOn2, atClusterIP(10), 'pod1']]);
  });

  test('should be able to connect to terminating and unready endpoints if PublishNotReadyAddresses is true', async () => {
    const service = { name: 'svc-tolerate-unready', number: 11, type: 'NodePort' } as const;
    await apply(service, 'ready', true);
    await apply(service, 'terminatingUnreadyPublished', true);
    await nodes.expect([
      [podOn2, atClusterIP(11), 'pod1'],
      [podOn2, atNodePort(11, lab.node), 'pod1'],
      [podOn2, atNodePort(11, lab.node2), 'pod1'],
    ]);
  });

  test('should not be able to connect to terminating and unready endpoints if PublishNotReadyAddresses is false', async () => {
    const service = { name: 'svc-not-tolerate-unready', number: 12, type: 'NodePort' } as const;
    await apply(service, 'ready', false);
    await nodes.expect([[podOn2, atNodePort(12, lab.node), 'pod1']]);
    await apply(service, 'terminatingUnready', false);
    await nodes.expect([
      [podOn2, atClusterIP(12), 'refused'],
      [podOn2, atNodePort(12, lab.node), 'refused'],
      [podOn2, atNodePort(12, lab.node2), 'refused'],
    ]);
  });

  test('an endpoint that is not ready is used as soon as it is, and no sooner', async () => {
    const service = { name: 'getting-ready', number: 13, type: 'NodePort' } as const;
    await apply(service, 'unready', false);
    await nodes.expect([[podOn2, atClusterIP(13), 'refused']]);
    await apply(service, 'ready', false);
    await nodes.expect([
      [podOn2, atClusterIP(13), 'pod1'],
      [lab.ext, atNodePort(13, lab.node2), 'pod1'],
    ]);
  });
});
