/**
 * Services that ask for the PROXY protocol, with every kind of address that a Service has, the places at which clients
 * find them, and what a peer must then be told.
 */
import { PROXY_PROTOCOL_ANNOTATION } from '../../src/model/service-policy.ts';
import { addressOf, clusterIP, dualStackObjects, type Family, type PortOptions } from './dual-stack.ts';
import type { Host, Lab } from './netns-lab.ts';
import { manifestText, type ServiceTweak } from './objects.ts';
import type { ProxyProcess } from './proxy-process.ts';
import type { ProxyProtocolHost } from './proxy-protocol-host.ts';
import { waitFor } from './wait.ts';

export const FAMILIES: readonly Family[] = ['IPv4', 'IPv6'];

export interface AnnotatedService {
  readonly name: string;
  /** The last part of all its addresses, from 1 to 99; the NodePort is 30000 more. */
  readonly number: number;
  readonly targetPort: number;
  readonly backends: readonly Host[];
  /** The value of the annotation; none unless told. */
  readonly proxyProtocol?: string | undefined;
  /** Further ports beside the TCP port 80. */
  readonly ports?: readonly PortOptions[];
  readonly tweak?: ServiceTweak;
}

export const SERVICE_PORT = 80;

export function nodePortOf(number: number): number {
  return 30_000 + number;
}

/** On no interface of the lab. */
export function externalIP(number: number, family: Family): string {
  return family === 'IPv4' ? `198.51.100.${number}` : `2001:db8:51::${number}`;
}

/** On no interface of the lab. */
export function loadBalancerIP(number: number, family: Family): string {
  return family === 'IPv4' ? `203.0.113.${number}` : `2001:db8:113::${number}`;
}

/** A LoadBalancer Service `default/<name>` with the port `http` 80/TCP, and its slices. */
export function annotatedObjects(service: AnnotatedService): readonly object[] {
  const { name, number, targetPort, backends, proxyProtocol, ports = [], tweak } = service;
  const main = { name: 'http', port: SERVICE_PORT, targetPort, nodePort: nodePortOf(number) };
  return dualStackObjects({
    name,
    number,
    ports: [main, ...ports],
    backends,
    tweak: (made) => {
      if (proxyProtocol !== undefined && made.metadata !== undefined)
        made.metadata.annotations = { [PROXY_PROTOCOL_ANNOTATION]: proxyProtocol };
      made.spec.type = 'LoadBalancer';
      made.spec.externalIPs = FAMILIES.map((family) => externalIP(number, family));
      made.status = {
        loadBalancer: { ingress: FAMILIES.map((family) => ({ ip: loadBalancerIP(number, family) })) },
      };
      tweak?.(made);
    },
  });
}

export function annotatedManifest(...services: readonly AnnotatedService[]): string {
  return manifestText(...services.flatMap(annotatedObjects));
}

export interface Portal {
  readonly host: string;
  readonly port: number;
}

/** Where a client on that host finds the Service: NodePorts on every address of the node that the host can reach. */
export function portalsOf(
  lab: Lab,
  client: { readonly name: string },
  number: number,
  family: Family,
): readonly Portal[] {
  const local = [addressOf(lab.node, family)];
  if (lab.podLinks === 'bridged') local.push(family === 'IPv4' ? lab.bridge.ipv4 : lab.bridge.ipv6);
  if (client.name === lab.node.name) local.push(family === 'IPv4' ? '127.0.0.1' : '::1');
  return [
    ...[clusterIP(number, family), externalIP(number, family), loadBalancerIP(number, family)].map(
      (host) => ({
        host,
        port: SERVICE_PORT,
      }),
    ),
    ...local.map((host) => ({ host, port: nodePortOf(number) })),
  ];
}

/** One line for each portal: what the peer said; `expected`, what it must say: both ends as the client knows them. */
export async function tellings(
  client: ProxyProtocolHost,
  portals: readonly Portal[],
): Promise<{ readonly told: readonly string[]; readonly expected: readonly string[] }> {
  const answers = await Promise.all(
    portals.map(async (portal) => ({ portal, answer: await client.ask(portal) })),
  );
  return {
    told: answers.map(({ answer }) => (answer.ok ? answer.body : answer.fault)),
    expected: answers.map(
      ({ portal, answer }) => `${answer.ok ? answer.local : '?'} ${portal.host} ${portal.port}`,
    ),
  };
}

/** Writes the manifest and waits until what it changed is in force. Some Service or slice must be different. */
export async function apply(proxy: ProxyProcess, file: string, text: string): Promise<void> {
  const before = await changesOf(proxy);
  await proxy.writeManifest(file, text);
  const isInForce = async (): Promise<boolean> => {
    const { seen, pending } = await changesOf(proxy);
    return seen > before.seen && pending === 0;
  };
  await waitFor(isInForce, { timeoutMs: 10_000, what: `${file} to be in force` });
}

async function changesOf(proxy: ProxyProcess): Promise<{ readonly seen: number; readonly pending: number }> {
  const families = await proxy.metrics();
  const sum = (state: string): number =>
    ['service', 'endpoint']
      .map(
        (kind) => families.get(`kubeproxy_sync_proxy_rules_${kind}_changes_${state}`)?.samples[0]?.value ?? 0,
      )
      .reduce((total, value) => total + value, 0);
  return { seen: sum('total'), pending: sum('pending') };
}
