/**
 * Every flag this proxy obeys: one table for the parser and for `--help`. Names and defaults are kube-proxy's
 * where it has them (cmd/kube-proxy/app/options.go). Pure data.
 */
import { parseIpAddress } from '../model/address.ts';
import { SCHEDULERS } from '../model/service-policy.ts';
import { CONNECTION_FLAGS } from './connection-flags.ts';
import { CONNTRACK_FLAGS } from './conntrack-flags.ts';
import {
  type BindAddress,
  bindAddress,
  boolean,
  durationFrom,
  integerBetween,
  labelValue,
  oneOf,
  portRange,
  serverUrls,
  text,
  texts,
} from './flag-types.ts';
import { type FlagTable, flagIn } from './flags.ts';
import {
  MAX_INTERFACE_NAME_LENGTH,
  cidrOfEachFamily,
  interfaceName,
  nodePortAddressItems,
} from './network-flag-types.ts';

/** Away from the usual ip_local_port_range (32768-60999) and the NodePort range (30000-32767). */
const DEFAULT_PROXY_PORT_RANGE = { first: 20_000, last: 29_999 } as const;
/** Values of `--engine`. */
const ENGINES = ['auto', 'native', 'node'] as const;
const HEALTHZ_PORT = 10_256;
const METRICS_PORT = 10_249;

function addressAt(ip: string, port: number): BindAddress | 'off' {
  const address = parseIpAddress(ip);
  return address === undefined ? 'off' : { address, port };
}

const sources = flagIn('Source');
const proxying = flagIn('Proxy');
const services = flagIn('Service');
const pods = flagIn('Pod detection');
const serving = flagIn('Health and metrics');
const logging = flagIn('Logs');
const commands = flagIn('Command');

export const FLAGS = {
  manifests: sources(
    texts,
    [],
    'File, or directory of *.yaml, *.yml and *.json files, with Services and EndpointSlices. Watched; an edit takes effect within a second. Repeatable.',
  ),
  kubeconfig: sources(
    text,
    '',
    'Kubeconfig file with the address of the API server and the credentials to use, which are read again before every request. Not given, nor --manifests: those of the pod.',
  ),
  master: sources(
    serverUrls,
    [],
    'Addresses of API servers, separated by commas: the next is used when one fails. Override that of the kubeconfig, and that of the pod, which is a clusterIP that this proxy itself provides.',
  ),
  'service-proxy-name': sources(
    labelValue,
    '',
    'Serve the Services whose label service.kubernetes.io/service-proxy-name has this value. Empty: those without the label.',
  ),
  'watch-stall-timeout': sources(
    durationFrom(1_000),
    180_000,
    'A watch of the API server that is silent for so long is taken to be dead. At least 1s. Where nothing happens, watches are renewed before that.',
  ),
  'hostname-override': sources(text, '', "The name of this node's Node object. Empty: the host name."),
  'proxy-mode': proxying(
    oneOf(['', 'userspace'], ': this proxy has one mode'),
    '',
    'Only "userspace" or empty: here for kube-proxy\'s command lines.',
  ),
  capture: proxying(
    oneOf(['redirect', 'link-local']),
    'redirect',
    'How traffic reaches the proxy. "redirect": REDIRECT in PREROUTING and OUTPUT. "link-local": listeners on a private address on lo, 169.254.77.1 and an IPv6 ULA, and DNAT to it: for pod networks whose interfaces have no address, such as Calico\'s.',
  ),
  engine: proxying(
    oneOf(ENGINES),
    'auto',
    'What carries the bytes: "native" (C++, epoll and splice), "node" (Node\'s own sockets; always there, slower, the same behaviour), or "auto": native where its addon was built and loads, else node.',
  ),
  'proxy-port-range': proxying(
    portRange(DEFAULT_PROXY_PORT_RANGE),
    DEFAULT_PROXY_PORT_RANGE,
    'Range of the ports that Services are redirected to (A-B, A+N, 1024 to 65535). Empty or 0-0: the default. Keep it out of ip_local_port_range and of the NodePort range.',
  ),
  'state-dir': proxying(
    text,
    '/run/kube-userspace-proxy',
    'Directory that remembers the proxy ports over a restart. Empty: remember nothing.',
  ),
  'iptables-sync-period': proxying(
    durationFrom(1),
    30_000,
    'How often the rules are looked at and repaired even though nothing changed. Greater than 0.',
  ),
  'iptables-min-sync-period': proxying(
    durationFrom(0),
    1_000,
    'The least time between two writes of rules. 0: at once. At most --iptables-sync-period.',
  ),
  'listener-grace-period': proxying(
    durationFrom(1_000),
    1_000,
    'How long a listener without rules still accepts, at least 1s: connections redirected a moment ago still arrive.',
  ),
  'drain-timeout': proxying(
    durationFrom(0),
    30_000,
    'How long the proxy goes on accepting after SIGTERM, while health says 503. 0: not at all.',
  ),
  scheduler: services(
    oneOf(SCHEDULERS),
    'rr',
    "How the next endpoint is chosen, with IPVS's meaning and equal weights, where the Service's annotation userspace-proxy.io/scheduler does not say: in turn (rr), at random, fewest connections (lc), by hash of the client's address (sh) or of the Service's (dh), shortest expected delay (sed), an idle one first (nq).",
  ),
  'nodeport-addresses': services(
    nodePortAddressItems,
    [],
    'CIDRs of the local addresses on which NodePorts are served; a family of which no CIDR is given is not limited. "primary" instead: the InternalIPs of the Node object. Empty: every local address. Repeatable.',
  ),
  'iptables-localhost-nodeports': services(
    boolean,
    true,
    'Serve NodePorts on loopback addresses too, of both families. route_localnet is not needed.',
  ),
  'disable-external-ips': services(
    boolean,
    false,
    'Serve no externalIPs of Services: whoever may write a Service could take over any address with them (CVE-2020-8554).',
  ),
  'external-clusterip': services(
    boolean,
    true,
    'Clients outside the cluster may use clusterIPs. false: what they send to clusterIPs is dropped, which needs a --detect-local-mode that can tell pods from others.',
  ),
  'detect-local-mode': pods(
    oneOf(
      ['ClusterCIDR', 'NodeCIDR', 'BridgeInterface', 'InterfaceNamePrefix', ''],
      ' (which is "ClusterCIDR")',
    ),
    'ClusterCIDR',
    'What tells the traffic of pods: a source address in --cluster-cidr (ClusterCIDR) or in the podCIDRs of the Node object (NodeCIDR), or coming in by --pod-bridge-interface (BridgeInterface) or by an interface of --pod-interface-name-prefix (InterfaceNamePrefix).',
  ),
  'cluster-cidr': pods(
    cidrOfEachFamily,
    [],
    'CIDR of the pods of the cluster, or one of each family, separated by a comma. Empty: no traffic is known to be that of pods.',
  ),
  'pod-bridge-interface': pods(
    interfaceName(MAX_INTERFACE_NAME_LENGTH),
    '',
    'Name of the bridge that pods are on, for BridgeInterface. At most 15 characters.',
  ),
  'pod-interface-name-prefix': pods(
    interfaceName(MAX_INTERFACE_NAME_LENGTH - 1),
    '',
    "What the names of pods' interfaces begin with, for InterfaceNamePrefix. At most 14 characters.",
  ),
  ...CONNECTION_FLAGS,
  ...CONNTRACK_FLAGS,
  'healthz-bind-address': serving(
    bindAddress(HEALTHZ_PORT),
    addressAt('0.0.0.0', HEALTHZ_PORT),
    'Where /healthz, /livez and /readyz are served. Empty: nowhere.',
  ),
  'metrics-bind-address': serving(
    bindAddress(METRICS_PORT),
    addressAt('127.0.0.1', METRICS_PORT),
    'Where /metrics, /proxyMode and /configz are served. Empty: nowhere.',
  ),
  'bind-address-hard-fail': serving(
    boolean,
    false,
    'Failing to bind one of these two addresses ends the proxy. Otherwise it tries again.',
  ),
  v: logging(integerBetween(0, 99), 0, 'Verbosity: 0 lifecycle, 2 what changed, 4 single connections.', 'v'),
  'logging-format': logging(
    oneOf(['json', 'text'], ' ("text" is accepted for kube-proxy\'s command lines; output is JSON)'),
    'json',
    'Always JSON, one object a line.',
  ),
  cleanup: commands(boolean, false, 'Remove every rule and file of this proxy, then exit.'),
  'print-rules': commands(
    boolean,
    false,
    'Write the iptables-restore input that would be loaded, then exit.',
  ),
  version: commands(boolean, false, 'Print the version, then exit.'),
  help: commands(boolean, false, 'Print this, then exit.', 'h'),
} as const satisfies FlagTable;
