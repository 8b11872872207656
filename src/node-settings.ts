/** What the command line says about this node and about capturing, in the words of the rooms that act on it. */
import type { Config } from './cli/config.ts';
import type { NodeSettings } from './desired/node-view.ts';
import { CAPTURE_ADDRESSES } from './host/capture-address.ts';
import { hasIPv6, hostName } from './host/kernel.ts';
import type { Diversion } from './iptables/portal-rules.ts';
import { IP_FAMILIES, type IpFamily, type PerFamily } from './model/address.ts';

/** The families that the kernel knows. */
export function kernelFamilies(): readonly IpFamily[] {
  return IP_FAMILIES.filter((family) => family === 'IPv4' || hasIPv6());
}

/** The name of the own Node object, as EndpointSlices have it. */
export function nodeNameFromConfig({ hostnameOverride }: Config): string {
  return hostnameOverride === '' ? hostName() : hostnameOverride;
}

export function nodeSettingsFromConfig(config: Config): NodeSettings {
  return {
    nodeName: nodeNameFromConfig(config),
    nodePortAddresses: config.nodePortAddresses,
    localhostNodePorts: config.localhostNodePorts,
    disableExternalIPs: config.disableExternalIPs,
    externalClusterIP: config.externalClusterIP,
    localDetection: config.localDetection,
    scheduler: config.scheduler,
    privateAddresses: Object.values(CAPTURE_ADDRESSES),
  };
}

export function diversionsFromConfig({ capture }: Config): PerFamily<Diversion> {
  const diversion = (family: IpFamily): Diversion =>
    capture === 'redirect' ? { kind: 'redirect' } : { kind: 'dnat', address: CAPTURE_ADDRESSES[family] };
  return { IPv4: diversion('IPv4'), IPv6: diversion('IPv6') };
}
