/** The objects of a dual-stack Service of the e2e tests: the Service, and its slices as the controllers make them. */
import type { V1EndpointSlice } from '@kubernetes/client-node';
import { addressOf, dualStackObjects, type PortOptions } from './dual-stack.ts';
import type { Host } from './netns-lab.ts';
import { makeSlice, type ServiceTweak, type SliceTweak } from './objects.ts';

export interface E2ePort extends PortOptions {
  /** The hosts that have this port; those of the Service unless told. */
  readonly backends?: readonly Host[];
}

export interface E2eSpec {
  readonly ports: readonly E2ePort[];
  /** The hosts of its endpoints, on whatever node; none unless told: then there is a slice without endpoints. */
  readonly backends?: readonly Host[];
  /** False: there is no slice at all. */
  readonly hasSlices?: boolean;
  readonly tweak?: ServiceTweak;
  /** Of each slice. */
  readonly tweakSlice?: SliceTweak;
}

export interface E2eIdentity {
  readonly name: string;
  /** The last part of its addresses. */
  readonly number: number;
  /** Of the endpoint at that address. */
  readonly nodeNameOf: (address: string) => string | undefined;
}

/**
 * As the EndpointSlice controller does, ports that are at other pods than the Service's others are in slices of their
 * own.
 */
export function e2eObjects(spec: E2eSpec, identity: E2eIdentity): readonly object[] {
  const { name, number } = identity;
  const { ports, backends = [], hasSlices = true, tweak = () => undefined } = spec;
  const plain = ports.map(({ backends: _own, ...port }) => port);
  const [service] = dualStackObjects({ name, number, ports: plain, backends: [], tweak });
  if (service === undefined) throw new Error('no Service was built');
  if (!hasSlices) return [service];
  const shared = ports.filter((port) => port.backends === undefined);
  const groups = [
    ...(shared.length > 0 ? [{ ports: shared, hosts: backends }] : []),
    ...ports.flatMap((port) =>
      port.backends === undefined ? [] : [{ ports: [port], hosts: port.backends }],
    ),
  ];
  const slices = groups.flatMap((group, index) =>
    (['IPv4', 'IPv6'] as const).map((family) => {
      const addresses = group.hosts.map((host) => addressOf(host, family));
      const slice = makeSlice(name, addresses, (made) => {
        made.addressType = family;
        made.ports = group.ports.map(slicePort);
        if (made.metadata !== undefined) made.metadata.name = `${name}-${family.toLowerCase()}-${index}`;
        for (const endpoint of made.endpoints ?? []) {
          const nodeName = identity.nodeNameOf(endpoint.addresses[0] ?? '');
          if (nodeName !== undefined) endpoint.nodeName = nodeName;
        }
      });
      spec.tweakSlice?.(slice);
      return slice;
    }),
  );
  return [service, ...slices];
}

function slicePort({
  name,
  targetPort,
  protocol = 'TCP',
}: E2ePort): NonNullable<V1EndpointSlice['ports']>[number] {
  return { name, port: targetPort, protocol };
}
