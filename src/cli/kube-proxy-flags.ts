/**
 * kube-proxy's flags that this proxy does not obey, so that a stock command line starts or fails clearly: the
 * harmless ones are accepted with a warning, those that promise something are refused. Pure data.
 */
import { type FlagType, boolean, text } from './flag-types.ts';
import type { FlagSpec, FlagTable } from './flags.ts';

const IPVS = 'there is no ipvs mode here';
const RULES = 'the rules of a userspace proxy have no use for it';
const WINDOWS = 'it is for Windows';
const LOGS = 'logs are JSON on standard output';
const API = 'three watches need neither a limit of their rate nor a repetition of what is known';
const OTHER = 'it has no effect in this version';

/** Name, whether it is a boolean (takes no next word), why it changes nothing. */
const IGNORED: readonly (readonly [string, 'boolean' | 'value', string])[] = [
  ['masquerade-all', 'boolean', RULES],
  ['iptables-masquerade-bit', 'value', RULES],
  ['bind-address', 'value', 'listeners are on the wildcard address and guarded by rules'],
  ['ipvs-scheduler', 'value', `${IPVS}; use --scheduler`],
  ['ipvs-strict-arp', 'boolean', IPVS],
  ['ipvs-exclude-cidrs', 'value', IPVS],
  ['ipvs-sync-period', 'value', IPVS],
  ['ipvs-min-sync-period', 'value', IPVS],
  ['ipvs-tcp-timeout', 'value', IPVS],
  ['ipvs-tcpfin-timeout', 'value', IPVS],
  ['ipvs-udp-timeout', 'value', IPVS],
  ['cleanup-ipvs', 'boolean', IPVS],
  ['conntrack-max', 'value', 'use --conntrack-max-per-core and --conntrack-min'],
  ['config-sync-period', 'value', API],
  ['kube-api-burst', 'value', API],
  ['kube-api-content-type', 'value', 'the API server is asked for JSON'],
  ['kube-api-qps', 'value', API],
  ['feature-gates', 'value', OTHER],
  ['oom-score-adj', 'value', OTHER],
  ['profiling', 'boolean', OTHER],
  ['show-hidden-metrics-for-version', 'value', OTHER],
  ['healthz-port', 'value', 'use --healthz-bind-address'],
  ['metrics-port', 'value', 'use --metrics-bind-address'],
  ['add-dir-header', 'boolean', LOGS],
  ['alsologtostderr', 'boolean', LOGS],
  ['log-backtrace-at', 'value', LOGS],
  ['log-dir', 'value', LOGS],
  ['log-file', 'value', LOGS],
  ['log-file-max-size', 'value', LOGS],
  ['log-flush-frequency', 'value', LOGS],
  ['log-json-info-buffer-size', 'value', LOGS],
  ['log-json-split-stream', 'boolean', LOGS],
  ['log-text-info-buffer-size', 'value', LOGS],
  ['log-text-split-stream', 'boolean', LOGS],
  ['logtostderr', 'boolean', LOGS],
  ['one-output', 'boolean', LOGS],
  ['skip-headers', 'boolean', LOGS],
  ['skip-log-headers', 'boolean', LOGS],
  ['stderrthreshold', 'value', LOGS],
  ['vmodule', 'value', LOGS],
  ['enable-dsr', 'boolean', WINDOWS],
  ['forward-healthcheck-vip', 'boolean', WINDOWS],
  ['network-name', 'value', WINDOWS],
  ['root-hnsendpoint-name', 'value', WINDOWS],
  ['source-vip', 'value', WINDOWS],
  ['windows-service', 'boolean', WINDOWS],
];

/** A value that is empty (or false) asks for nothing and passes. */
const REFUSED: readonly (readonly [string, 'boolean' | 'value', string])[] = [
  ['config', 'value', 'the KubeProxyConfiguration file comes in a later version; give the settings as flags'],
  ['write-config-to', 'value', 'the KubeProxyConfiguration file comes in a later version'],
  [
    'init-only',
    'boolean',
    'comes in a later version; without it the proxy would run on where an exit is expected',
  ],
];

export const IGNORED_FLAGS: ReadonlyMap<string, string> = new Map(
  IGNORED.map(([name, , why]) => [name, why]),
);
export const REFUSED_FLAGS: ReadonlyMap<string, string> = new Map(
  REFUSED.map(([name, , why]) => [name, why]),
);

/** All of the above for the parser. */
export const KUBE_PROXY_FLAGS: FlagTable = Object.fromEntries(
  [...IGNORED, ...REFUSED].map(([name, kind, why]) => [name, foreignFlag(kind, why)]),
);

function foreignFlag(kind: 'boolean' | 'value', why: string): FlagSpec<unknown> {
  const type: FlagType<unknown> = kind === 'boolean' ? boolean : text;
  return { type, default: kind === 'boolean' ? false : '', help: why, group: '' };
}
