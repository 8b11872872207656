/**
 * What the fault tests have in common: a proxy in front of dual-stack Services, the metrics of one of them, and faults
 * of a host that can be taken back.
 */
import { clusterIP, dualStackObjects, type Family, type ServiceOptions } from './dual-stack.ts';
import type { Host } from './netns-lab.ts';
import { manifestText } from './objects.ts';
import { ProxyProcess, type ProxyProcessOptions } from './proxy-process.ts';
import { waitFor } from './wait.ts';

export const FAMILIES = ['IPv4', 'IPv6'] as const satisfies readonly Family[];

const CAPTURE_MS = 10_000;

/** Port 80/TCP named `http` of a Service, at a backend's port. */
export function httpAt(targetPort: number): ServiceOptions['ports'] {
  return [{ name: 'http', port: 80, targetPort }];
}

/** Port 53/UDP named `dns` of a Service, at a backend's port. */
export function dnsAt(targetPort: number): ServiceOptions['ports'] {
  return [{ name: 'dns', port: 53, targetPort, protocol: 'UDP' }];
}

/** Where a client finds `httpAt` of the Service of that number. */
export function httpOf(number: number, family: Family = 'IPv4'): { host: string; port: number } {
  return { host: clusterIP(number, family), port: 80 };
}

/** Where a client finds `dnsAt` of the Service of that number. */
export function dnsOf(number: number, family: Family = 'IPv4'): { host: string; port: number } {
  return { host: clusterIP(number, family), port: 53 };
}

/** Writes a Service's manifest, and waits until all its ports are captured in both families, if it has endpoints. */
export async function install(
  proxy: ProxyProcess,
  service: ServiceOptions,
  { timeoutMs = CAPTURE_MS }: { readonly timeoutMs?: number } = {},
): Promise<void> {
  await proxy.writeManifest(`${service.name}.yaml`, manifestText(...dualStackObjects(service)));
  if (service.backends.length === 0) return;
  await captured(proxy, service, timeoutMs);
}

/** A proxy with these Services, when all of them are captured. */
export async function startProxy(
  node: Host,
  services: readonly ServiceOptions[],
  options: Omit<ProxyProcessOptions, 'manifests'> = {},
): Promise<ProxyProcess> {
  const manifests = Object.fromEntries(
    services.map((service) => [`${service.name}.yaml`, manifestText(...dualStackObjects(service))]),
  );
  const proxy = await ProxyProcess.start(node, { ...options, manifests });
  try {
    for (const service of services) await captured(proxy, service, CAPTURE_MS);
  } catch (error) {
    await proxy[Symbol.asyncDispose]();
    throw error;
  }
  return proxy;
}

async function captured(
  proxy: ProxyProcess,
  { name, ports }: ServiceOptions,
  timeoutMs: number,
): Promise<void> {
  for (const port of ports) {
    const protocol = port.protocol === 'UDP' ? 'udp' : 'tcp';
    for (const family of FAMILIES) {
      const what = `${family} rules for default/${name}:${port.name}`;
      const isCaptured = async (): Promise<number> =>
        proxy.proxyPort(`default/${name}:${port.name}`, { family, protocol });
      await waitFor(isCaptured, { timeoutMs, what });
    }
  }
}

/** One of our metrics, summed over the series with these labels. */
export async function metricOf(
  proxy: ProxyProcess,
  name: string,
  labels: Readonly<Record<string, string>> = {},
): Promise<number> {
  return proxy.metric(`userspace_proxy_${name}`, labels);
}

/** Waits until a service port has no connection any more. */
export async function sessionsGone(proxy: ProxyProcess, service: string, timeoutMs = 10_000): Promise<void> {
  await waitFor(async () => (await metricOf(proxy, 'connections_active', { service })) === 0, {
    timeoutMs,
    what: `the sessions of ${service} to be gone`,
  });
}

/**
 * Inserts a rule into a chain of the host's filter table in both families, until the result is called; `rule` gives what
 * follows the chain.
 */
export async function withRule(
  host: Host,
  chain: 'INPUT' | 'OUTPUT',
  rule: (family: Family) => readonly string[],
): Promise<() => Promise<void>> {
  const change = async (operation: '-I' | '-D'): Promise<void> => {
    for (const family of FAMILIES) {
      const command = family === 'IPv4' ? 'iptables' : 'ip6tables';
      await host.run([command, '-w', '5', operation, chain, ...rule(family)]);
    }
  };
  await change('-I');
  return async () => change('-D');
}
