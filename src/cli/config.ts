/**
 * Config: everything the command line decides, checked and with its defaults, made once and frozen. No other
 * room knows a flag. Pure.
 */
import type { Cidr } from '../model/cidr.ts';
import type { LocalDetection } from '../model/local-detection.ts';
import type { SchedulerName } from '../model/service-policy.ts';
import { type ConnectionSettings, connectionSettingsFrom } from './connection-flags.ts';
import { type ConntrackConfig, conntrackConfigFrom } from './conntrack-flags.ts';
import { renderDuration } from './duration.ts';
import { FLAGS } from './flag-table.ts';
import type { BindAddress, PortRange } from './flag-types.ts';
import { type FlagValues, invalidFlag, parseFlags } from './flags.ts';
import { IGNORED_FLAGS, KUBE_PROXY_FLAGS, REFUSED_FLAGS } from './kube-proxy-flags.ts';
import {
  localDetectionFromValues,
  nodePortAddressesFromValues,
  unusedDetectionFlags,
} from './traffic-flags.ts';

/** What the process is asked to do; all but `run` end by themselves. */
export type Command = 'run' | 'cleanup' | 'print-rules' | 'help' | 'version';

/** How traffic reaches the proxy: REDIRECT, or DNAT to a private address on `lo` (decision 3). */
export type CaptureMode = 'redirect' | 'link-local';

/** What carries the bytes; `auto`: the native engine where it loads, else the one on Node's sockets. */
export type EngineChoice = 'auto' | 'native' | 'node';

/** All durations are whole or fractional milliseconds, at most 24 days. */
export interface Config extends ConnectionSettings {
  /** Files and directories to read, as given; none: an API server is the source. */
  readonly manifests: readonly string[];
  /** '' : none. */
  readonly kubeconfig: string;
  /** Origins of API servers, used instead of the one that the kubeconfig or the pod's environment names. */
  readonly masters: readonly URL[];
  /** Serve Services whose label service.kubernetes.io/service-proxy-name has this value; '' : those without it. */
  readonly serviceProxyName: string;
  /** Greater than 0. */
  readonly watchStallTimeoutMs: number;
  /** Lower case, as kube-proxy makes it. '' : use the host name. */
  readonly hostnameOverride: string;
  readonly capture: CaptureMode;
  readonly engine: EngineChoice;
  /** Within 1024 to 65535. */
  readonly proxyPortRange: PortRange;
  /** undefined: keep no state. */
  readonly stateDir: string | undefined;
  /** Greater than 0. */
  readonly syncPeriodMs: number;
  /** 0 to `syncPeriodMs`. */
  readonly minSyncPeriodMs: number;
  /** At least 1000 (decision 21). */
  readonly listenerGracePeriodMs: number;
  /** 0: stop accepting at once. */
  readonly drainTimeoutMs: number;
  /** For Services whose annotation does not name one. */
  readonly scheduler: SchedulerName;
  /**
   * Local addresses that serve NodePorts: those in the ranges, and every one of a family that has no range, or the
   * InternalIPs of the Node object.
   */
  readonly nodePortAddresses: 'primary' | readonly Cidr[];
  /** NodePorts on loopback addresses too, both families. */
  readonly localhostNodePorts: boolean;
  readonly disableExternalIPs: boolean;
  /** Clients outside the cluster may use clusterIPs. Always true when `localDetection` is `none`. */
  readonly externalClusterIP: boolean;
  readonly localDetection: LocalDetection;
  readonly conntrack: ConntrackConfig;
  /** undefined: do not serve. */
  readonly healthzBindAddress: BindAddress | undefined;
  /** undefined: do not serve. */
  readonly metricsBindAddress: BindAddress | undefined;
  readonly bindAddressHardFail: boolean;
  /** klog's -v, 0 to 99. */
  readonly verbosity: number;
}

export interface CommandLine {
  readonly command: Command;
  readonly config: Config;
  /** Sentences for the log: flags that were accepted but change nothing. */
  readonly warnings: readonly string[];
}

type Values = FlagValues<typeof FLAGS>;

/**
 * What `args` (the command line without node and script) ask for. Throws a ProxyError `ERR_FLAG_UNKNOWN` or
 * `ERR_FLAG_VALUE`; its message names the flag, quotes the value and says what is accepted.
 */
export function configFromArgs(args: readonly string[]): CommandLine {
  const { values, given } = parseFlags(args, FLAGS, KUBE_PROXY_FLAGS);
  const command = commandFrom(values);
  // Whoever asks for help has reason to: everything else may still be wrong.
  if (command === 'help' || command === 'version') {
    return { command, config: configFromValues(parseFlags([], FLAGS).values, new Map()), warnings: [] };
  }
  refuseUnsupported(given);
  refuseContradictions(values);
  return { command, config: configFromValues(values, given), warnings: warningsFrom(values, given) };
}

function refuseContradictions(values: Values): void {
  const apiFlag = (['kubeconfig', 'master'] as const).find((name) => values[name].length > 0);
  if (apiFlag !== undefined && values.manifests.length > 0) {
    throw invalidFlag(
      apiFlag,
      String(values[apiFlag]),
      'cannot be combined with --manifests: Services come from files or from an API server',
    );
  }
  if (values['iptables-min-sync-period'] > values['iptables-sync-period']) {
    throw invalidFlag(
      'iptables-min-sync-period',
      renderDuration(values['iptables-min-sync-period']),
      `must not be greater than --iptables-sync-period, ${renderDuration(values['iptables-sync-period'])}`,
    );
  }
  if (!values['external-clusterip'] && localDetectionFromValues(values).kind === 'none') {
    throw invalidFlag(
      'external-clusterip',
      'false',
      'needs --cluster-cidr or another --detect-local-mode, to tell pods from clients outside the cluster',
    );
  }
}

function refuseUnsupported(given: ReadonlyMap<string, unknown>): void {
  for (const [name, why] of REFUSED_FLAGS) {
    const value = given.get(name);
    if (value === undefined || value === '' || value === false) continue;
    throw invalidFlag(name, typeof value === 'string' ? value : 'true', `not supported: ${why}`);
  }
}

function commandFrom(values: Values): Command {
  if (values.help) return 'help';
  if (values.version) return 'version';
  if (values.cleanup && values['print-rules']) {
    throw invalidFlag('print-rules', 'true', 'cannot be combined with --cleanup');
  }
  if (values.cleanup) return 'cleanup';
  return values['print-rules'] ? 'print-rules' : 'run';
}

function configFromValues(values: Values, given: ReadonlyMap<string, unknown>): Config {
  return Object.freeze({
    manifests: Object.freeze([...values.manifests]),
    kubeconfig: values.kubeconfig,
    masters: Object.freeze([...values.master]),
    serviceProxyName: values['service-proxy-name'],
    watchStallTimeoutMs: values['watch-stall-timeout'],
    hostnameOverride: values['hostname-override'].trim().toLowerCase(),
    capture: values.capture,
    engine: values.engine,
    proxyPortRange: Object.freeze(values['proxy-port-range']),
    stateDir: values['state-dir'] === '' ? undefined : values['state-dir'],
    syncPeriodMs: values['iptables-sync-period'],
    minSyncPeriodMs: values['iptables-min-sync-period'],
    listenerGracePeriodMs: values['listener-grace-period'],
    drainTimeoutMs: values['drain-timeout'],
    ...serviceSettingsFrom(values),
    conntrack: conntrackConfigFrom(values),
    ...connectionSettingsFrom(values, given),
    healthzBindAddress: servedAt(values['healthz-bind-address']),
    metricsBindAddress: servedAt(values['metrics-bind-address']),
    bindAddressHardFail: values['bind-address-hard-fail'],
    verbosity: values.v,
  });
}

type ServiceSetting =
  | 'scheduler'
  | 'nodePortAddresses'
  | 'localhostNodePorts'
  | 'disableExternalIPs'
  | 'externalClusterIP'
  | 'localDetection';

function serviceSettingsFrom(values: Values): Pick<Config, ServiceSetting> {
  return {
    scheduler: values.scheduler,
    nodePortAddresses: nodePortAddressesFromValues(values),
    localhostNodePorts: values['iptables-localhost-nodeports'],
    disableExternalIPs: values['disable-external-ips'],
    externalClusterIP: values['external-clusterip'],
    localDetection: localDetectionFromValues(values),
  };
}

function servedAt(address: BindAddress | 'off'): BindAddress | undefined {
  return address === 'off' ? undefined : Object.freeze(address);
}

function warningsFrom(values: Values, given: ReadonlyMap<string, unknown>): string[] {
  const warnings = [...given.keys()].flatMap((name) => {
    const why = IGNORED_FLAGS.get(name);
    return why === undefined ? [] : [`--${name} is ignored: ${why}`];
  });
  if (values['logging-format'] === 'text')
    warnings.push('--logging-format "text" is ignored: output is JSON');
  return [...warnings, ...unusedDetectionFlags(values)];
}
