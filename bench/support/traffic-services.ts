/** The Services that bench/peers.ts sends its traffic to, as every contender gets to know them. Pure data. */
import { makeService, makeSlice, manifestText } from '../../test/support/objects.ts';

export interface TrafficService {
  readonly name: string;
  readonly clusterIp: string;
  readonly port: number;
  readonly protocol: 'TCP' | 'UDP';
  /** Where the backends listen. */
  readonly targetPort: number;
  /** By the numbers of the pods. */
  readonly backends: readonly number[];
}

export const SERVICES = {
  /** HTTP, answers of eleven octets. */
  http: tcp('http', 1, { port: 80, targetPort: 8_080 }),
  /** iperf3: all connections of a run have to reach the same server. */
  bulk: tcp('bulk', 2, { port: 5_201, targetPort: 5_201, backends: [1] }),
  /** Connections that do nothing. */
  idle: tcp('idle', 3, { port: 7_000, targetPort: 7_000 }),
  /** Datagrams of few clients, each of which sends many. */
  echo: udp('echo', 4),
  /** Datagrams of ever new clients, each of which sends one. */
  flows: udp('flows', 5),
} as const satisfies Readonly<Record<string, TrafficService>>;

export type ServiceName = keyof typeof SERVICES;

export const ALL_SERVICES: readonly TrafficService[] = Object.values(SERVICES);

/** All of them as a file of manifests; `ipOf` gives the address of a pod by its number. */
export function renderManifests(ipOf: (pod: number) => string): string {
  return manifestText(
    ...ALL_SERVICES.flatMap(({ name, clusterIp, port, protocol, targetPort, backends }) => [
      makeService(name, ({ spec }) => {
        spec.clusterIP = clusterIp;
        spec.ports = [{ name: 'main', port, protocol }];
      }),
      makeSlice(name, backends.map(ipOf), (slice) => {
        slice.ports = [{ name: 'main', port: targetPort, protocol }];
      }),
    ]),
  );
}

/** The Endpoints object of one of them, which kube-proxy 1.20's userspace mode goes by. */
export function buildEndpoints(service: TrafficService, ipOf: (pod: number) => string): object {
  const { name, targetPort, protocol, backends } = service;
  return {
    apiVersion: 'v1',
    kind: 'Endpoints',
    metadata: { name, namespace: 'default' },
    subsets: [
      {
        addresses: backends.map((pod) => ({ ip: ipOf(pod) })),
        ports: [{ name: 'main', port: targetPort, protocol }],
      },
    ],
  };
}

function tcp(
  name: string,
  number: number,
  rest: Pick<TrafficService, 'port' | 'targetPort'> & Partial<TrafficService>,
): TrafficService {
  return { name, clusterIp: clusterIpOf(number), protocol: 'TCP', backends: [1, 2], ...rest };
}

function udp(name: string, number: number): TrafficService {
  return {
    name,
    clusterIp: clusterIpOf(number),
    port: 9_000,
    protocol: 'UDP',
    targetPort: 9_000,
    backends: [1, 2],
  };
}

function clusterIpOf(number: number): string {
  return `10.96.16.${number}`;
}
