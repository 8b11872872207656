/**
 * The body of /configz: the settings in force in KubeProxyConfiguration's own names
 * (kubeproxy.config.k8s.io/v1alpha1, pkg/proxy/apis/config), ours beside them. Only what is obeyed is shown. Pure.
 */
import { hostPortText } from '../model/address.ts';
import type { LocalDetection } from '../model/local-detection.ts';
import type { Config } from './config.ts';
import { renderDuration } from './duration.ts';
import { type BindAddress, portRangeText } from './flag-types.ts';

export interface KubeProxyConfiguration {
  readonly apiVersion: 'kubeproxy.config.k8s.io/v1alpha1';
  readonly kind: 'KubeProxyConfiguration';
  readonly bindAddressHardFail: boolean;
  readonly clientConnection: { readonly kubeconfig: string };
  /** One CIDR, or one of each family with a comma between; '' in other modes than ClusterCIDR. */
  readonly clusterCIDR: string;
  readonly conntrack: {
    readonly maxPerCore: number;
    readonly min: number;
    readonly tcpBeLiberal: boolean;
    readonly tcpCloseWaitTimeout: string;
    readonly tcpEstablishedTimeout: string;
    readonly udpStreamTimeout: string;
    readonly udpTimeout: string;
  };
  /** Each '' in other modes than its own. */
  readonly detectLocal: { readonly bridgeInterface: string; readonly interfaceNamePrefix: string };
  readonly detectLocalMode: 'ClusterCIDR' | 'NodeCIDR' | 'BridgeInterface' | 'InterfaceNamePrefix';
  /** '' when not served, as for `metricsBindAddress`. */
  readonly healthzBindAddress: string;
  readonly hostnameOverride: string;
  readonly iptables: {
    readonly localhostNodePorts: boolean;
    readonly minSyncPeriod: string;
    readonly syncPeriod: string;
  };
  readonly logging: { readonly format: 'json'; readonly verbosity: number };
  readonly metricsBindAddress: string;
  readonly mode: 'userspace';
  /** CIDRs, or `primary` alone; none: every local address. */
  readonly nodePortAddresses: readonly string[];
  readonly portRange: string;
  /** The idle time after a reply. */
  readonly udpIdleTimeout: string;
  readonly userspaceProxy: UserspaceProxyConfiguration;
}

/** What KubeProxyConfiguration has no field for. Durations in Go's text. */
export interface UserspaceProxyConfiguration {
  readonly affinityTableSize: number;
  readonly capture: string;
  readonly dialTimeouts: readonly string[];
  readonly disableExternalIPs: boolean;
  readonly drainTimeout: string;
  readonly ejectionTime: string;
  /** As asked for: `auto`, `native` or `node`. */
  readonly engine: string;
  readonly externalClusterIP: boolean;
  readonly listenerGracePeriod: string;
  readonly manifests: readonly string[];
  readonly masters: readonly string[];
  readonly maxConcurrentDials: number;
  readonly maxConnections: number;
  readonly maxConnectionsPerService: number;
  readonly maxUDPSessions: number;
  readonly maxUDPSessionsPerService: number;
  readonly scheduler: string;
  readonly serviceProxyName: string;
  /** '' : no state is kept. */
  readonly stateDir: string;
  readonly tcpHalfCloseTimeout: string;
  readonly tcpIdleTimeout: string;
  readonly udpUnrepliedTimeout: string;
  readonly watchStallTimeout: string;
}

export function kubeProxyConfigurationFromConfig(config: Config): KubeProxyConfiguration {
  return {
    apiVersion: 'kubeproxy.config.k8s.io/v1alpha1',
    kind: 'KubeProxyConfiguration',
    bindAddressHardFail: config.bindAddressHardFail,
    clientConnection: { kubeconfig: config.kubeconfig },
    conntrack: conntrackFields(config.conntrack),
    ...localDetectionFields(config.localDetection),
    healthzBindAddress: bindAddressText(config.healthzBindAddress),
    hostnameOverride: config.hostnameOverride,
    iptables: {
      localhostNodePorts: config.localhostNodePorts,
      minSyncPeriod: renderDuration(config.minSyncPeriodMs),
      syncPeriod: renderDuration(config.syncPeriodMs),
    },
    logging: { format: 'json', verbosity: config.verbosity },
    metricsBindAddress: bindAddressText(config.metricsBindAddress),
    mode: 'userspace',
    nodePortAddresses: nodePortAddressTexts(config.nodePortAddresses),
    portRange: portRangeText(config.proxyPortRange),
    udpIdleTimeout: renderDuration(config.udpRepliedTimeoutMs),
    userspaceProxy: {
      affinityTableSize: config.affinityTableSize,
      capture: config.capture,
      dialTimeouts: config.dialTimeoutsMs.map(renderDuration),
      disableExternalIPs: config.disableExternalIPs,
      drainTimeout: renderDuration(config.drainTimeoutMs),
      ejectionTime: renderDuration(config.ejectionTimeMs),
      engine: config.engine,
      externalClusterIP: config.externalClusterIP,
      listenerGracePeriod: renderDuration(config.listenerGracePeriodMs),
      manifests: config.manifests,
      masters: config.masters.map(({ origin }) => origin),
      maxConcurrentDials: config.maxConcurrentDials,
      maxConnections: config.maxConnections,
      maxConnectionsPerService: config.maxConnectionsPerService,
      maxUDPSessions: config.maxUdpSessions,
      maxUDPSessionsPerService: config.maxUdpSessionsPerService,
      scheduler: config.scheduler,
      serviceProxyName: config.serviceProxyName,
      stateDir: config.stateDir ?? '',
      tcpHalfCloseTimeout: renderDuration(config.halfCloseTimeoutMs),
      tcpIdleTimeout: renderDuration(config.tcpIdleTimeoutMs),
      udpUnrepliedTimeout: renderDuration(config.udpUnrepliedTimeoutMs),
      watchStallTimeout: renderDuration(config.watchStallTimeoutMs),
    },
  };
}

function conntrackFields(conntrack: Config['conntrack']): KubeProxyConfiguration['conntrack'] {
  return {
    maxPerCore: conntrack.maxPerCore,
    min: conntrack.min,
    tcpBeLiberal: conntrack.tcpBeLiberal,
    tcpCloseWaitTimeout: renderDuration(conntrack.tcpCloseWaitTimeoutMs),
    tcpEstablishedTimeout: renderDuration(conntrack.tcpEstablishedTimeoutMs),
    udpStreamTimeout: renderDuration(conntrack.udpStreamTimeoutMs),
    udpTimeout: renderDuration(conntrack.udpTimeoutMs),
  };
}

type LocalDetectionFields = Pick<KubeProxyConfiguration, 'clusterCIDR' | 'detectLocal' | 'detectLocalMode'>;

function localDetectionFields(detection: LocalDetection): LocalDetectionFields {
  const nothing = { clusterCIDR: '', detectLocal: { bridgeInterface: '', interfaceNamePrefix: '' } };
  switch (detection.kind) {
    case 'none':
      return { ...nothing, detectLocalMode: 'ClusterCIDR' };
    case 'cidrs':
      return {
        ...nothing,
        clusterCIDR: detection.cidrs.map(({ text }) => text).join(','),
        detectLocalMode: 'ClusterCIDR',
      };
    case 'nodeCIDR':
      return { ...nothing, detectLocalMode: 'NodeCIDR' };
    case 'interface':
      return { ...nothing, ...interfaceFields(detection.name) };
  }
}

/** A bridge cannot be called `…+` here (network-flag-types.ts), so that its end tells a prefix. */
function interfaceFields(name: string): Pick<LocalDetectionFields, 'detectLocal' | 'detectLocalMode'> {
  return name.endsWith('+')
    ? {
        detectLocal: { bridgeInterface: '', interfaceNamePrefix: name.slice(0, -1) },
        detectLocalMode: 'InterfaceNamePrefix',
      }
    : { detectLocal: { bridgeInterface: name, interfaceNamePrefix: '' }, detectLocalMode: 'BridgeInterface' };
}

function nodePortAddressTexts(addresses: Config['nodePortAddresses']): readonly string[] {
  return addresses === 'primary' ? [addresses] : addresses.map(({ text }) => text);
}

function bindAddressText(address: BindAddress | undefined): string {
  return address === undefined ? '' : hostPortText(address.address, address.port);
}
