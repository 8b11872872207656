/**
 * The body of /configz: the settings in force in KubeProxyConfiguration's own names
 * (kubeproxy.config.k8s.io/v1alpha1, pkg/proxy/apis/config), ours beside them. Only what is obeyed is shown. Pure.
 */
import { hostPortText } from '../model/address.ts';
import type { Config } from './config.ts';
import { renderDuration } from './duration.ts';
import { type BindAddress, portRangeText } from './flag-types.ts';

export interface KubeProxyConfiguration {
  readonly apiVersion: 'kubeproxy.config.k8s.io/v1alpha1';
  readonly kind: 'KubeProxyConfiguration';
  readonly bindAddressHardFail: boolean;
  readonly clientConnection: { readonly kubeconfig: string };
  /** '' when not served, as for `metricsBindAddress`. */
  readonly healthzBindAddress: string;
  readonly hostnameOverride: string;
  readonly iptables: { readonly minSyncPeriod: string; readonly syncPeriod: string };
  readonly logging: { readonly format: 'json'; readonly verbosity: number };
  readonly metricsBindAddress: string;
  readonly mode: 'userspace';
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
  readonly drainTimeout: string;
  readonly listenerGracePeriod: string;
  readonly manifests: readonly string[];
  readonly masters: readonly string[];
  readonly maxUDPSessions: number;
  readonly serviceProxyName: string;
  /** '' : no state is kept. */
  readonly stateDir: string;
  readonly tcpHalfCloseTimeout: string;
  readonly udpUnrepliedTimeout: string;
  readonly watchStallTimeout: string;
}

export function kubeProxyConfigurationFromConfig(config: Config): KubeProxyConfiguration {
  return {
    apiVersion: 'kubeproxy.config.k8s.io/v1alpha1',
    kind: 'KubeProxyConfiguration',
    bindAddressHardFail: config.bindAddressHardFail,
    clientConnection: { kubeconfig: config.kubeconfig },
    healthzBindAddress: bindAddressText(config.healthzBindAddress),
    hostnameOverride: config.hostnameOverride,
    iptables: {
      minSyncPeriod: renderDuration(config.minSyncPeriodMs),
      syncPeriod: renderDuration(config.syncPeriodMs),
    },
    logging: { format: 'json', verbosity: config.verbosity },
    metricsBindAddress: bindAddressText(config.metricsBindAddress),
    mode: 'userspace',
    portRange: portRangeText(config.proxyPortRange),
    udpIdleTimeout: renderDuration(config.udpRepliedTimeoutMs),
    userspaceProxy: {
      affinityTableSize: config.affinityTableSize,
      capture: config.capture,
      dialTimeouts: config.dialTimeoutsMs.map(renderDuration),
      drainTimeout: renderDuration(config.drainTimeoutMs),
      listenerGracePeriod: renderDuration(config.listenerGracePeriodMs),
      manifests: config.manifests,
      masters: config.masters.map(({ origin }) => origin),
      maxUDPSessions: config.maxUdpSessions,
      serviceProxyName: config.serviceProxyName,
      stateDir: config.stateDir ?? '',
      tcpHalfCloseTimeout: renderDuration(config.halfCloseTimeoutMs),
      udpUnrepliedTimeout: renderDuration(config.udpUnrepliedTimeoutMs),
      watchStallTimeout: renderDuration(config.watchStallTimeoutMs),
    },
  };
}

function bindAddressText(address: BindAddress | undefined): string {
  return address === undefined ? '' : hostPortText(address.address, address.port);
}
