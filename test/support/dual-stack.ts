/**
 * Dual-stack Services for the netns tests, and the places their clients stand: a pod and the node, which use the
 * clusterIP, and the outside, which uses a NodePort.
 */
import type { Agent } from './agent-client.ts';
import type { Host, Lab } from './netns-lab.ts';
import { makeService, makeSlice, type ServiceTweak } from './objects.ts';

export type Family = 'IPv4' | 'IPv6';

export interface PortOptions {
  readonly name: string;
  readonly port: number;
  readonly targetPort: number;
  /** TCP unless told. */
  readonly protocol?: 'TCP' | 'UDP';
  /** None unless told. */
  readonly nodePort?: number;
}

export interface ServiceOptions {
  readonly name: string;
  /** The last part of its clusterIPs, from 1 to 99. */
  readonly number: number;
  readonly ports: readonly PortOptions[];
  /** The hosts of its endpoints. */
  readonly backends: readonly Host[];
  readonly tweak?: ServiceTweak;
}

/** `10.96.0.<number>` or `fd00:96::<number>`. */
export function clusterIP(number: number, family: Family): string {
  return family === 'IPv4' ? `10.96.0.${number}` : `fd00:96::${number}`;
}

/** A dual-stack Service `default/<name>` and its two slices. */
export function dualStackObjects({
  name,
  number,
  ports,
  backends,
  tweak,
}: ServiceOptions): readonly object[] {
  const service = makeService(name, (made) => {
    made.spec.clusterIP = clusterIP(number, 'IPv4');
    made.spec.clusterIPs = [clusterIP(number, 'IPv4'), clusterIP(number, 'IPv6')];
    made.spec.ports = ports.map((port) => ({ protocol: 'TCP', ...port }));
    if (ports.some((port) => port.nodePort !== undefined)) made.spec.type = 'NodePort';
    tweak?.(made);
  });
  const slices = (['IPv4', 'IPv6'] as const).map((family) =>
    makeSlice(
      name,
      backends.map((host) => addressOf(host, family)),
      (slice) => {
        slice.addressType = family;
        if (slice.metadata !== undefined) slice.metadata.name = `${name}-${family.toLowerCase()}`;
        slice.ports = ports.map((port) => ({
          name: port.name,
          port: port.targetPort,
          protocol: port.protocol ?? 'TCP',
        }));
      },
    ),
  );
  return [service, ...slices];
}

export function addressOf(host: Host, family: Family): string {
  return family === 'IPv4' ? host.ipv4 : host.ipv6;
}

/**
 * The addresses that the first node has on the links of its lab: where everybody finds its NodePorts. The node IP first,
 * and where pods are bridged that of the bridge.
 */
export function nodeAddressesOf(lab: Lab, family: Family): readonly [string, ...string[]] {
  const nodeIP = addressOf(lab.node, family);
  if (lab.podLinks === 'unnumbered') return [nodeIP];
  return [nodeIP, family === 'IPv4' ? lab.bridge.ipv4 : lab.bridge.ipv6];
}

/** From where, over which family, and by which kind of address a Service is used. */
export interface Vantage {
  readonly from: 'a pod' | 'the node' | 'outside';
  readonly by: 'clusterIP' | 'NodePort';
  readonly family: Family;
}

const PLACES = [
  { from: 'a pod', by: 'clusterIP' },
  { from: 'the node', by: 'clusterIP' },
  { from: 'outside', by: 'NodePort' },
] as const;

/** The three places in both families. */
export const VANTAGES: readonly Vantage[] = PLACES.flatMap((place) =>
  (['IPv4', 'IPv6'] as const).map((family) => ({ ...place, family })),
);

/** The client at a vantage, and where it finds a port of a Service. The pod is the lab's last one. */
export async function openVantage(
  lab: Lab,
  { from, by, family }: Vantage,
  service: { readonly number: number; readonly port: number; readonly nodePort: number },
): Promise<{ readonly client: Agent; readonly host: string; readonly port: number }> {
  const host = { 'a pod': lab.pod(lab.pods.length), 'the node': lab.node, outside: lab.ext }[from];
  const client = await host.agent();
  return by === 'clusterIP'
    ? { client, host: clusterIP(service.number, family), port: service.port }
    : { client, host: addressOf(lab.node, family), port: service.nodePort };
}
