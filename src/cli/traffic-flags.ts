/**
 * Settings that several flags, or one flag given several times, decide together: the local addresses of NodePorts,
 * and how pods are told from others. Pure.
 */
import type { Cidr } from '../model/cidr.ts';
import type { LocalDetection } from '../model/local-detection.ts';
import { FLAGS } from './flag-table.ts';
import { type FlagValues, invalidFlag } from './flags.ts';
import { PRIMARY } from './network-flag-types.ts';

type Values = FlagValues<typeof FLAGS>;

/** The mode of --detect-local-mode that reads a flag. Given in another mode, the flag changes nothing. */
const MODE_BY_FLAG = {
  'cluster-cidr': 'ClusterCIDR',
  'pod-bridge-interface': 'BridgeInterface',
  'pod-interface-name-prefix': 'InterfaceNamePrefix',
} as const;

/** Sentences for the log: flags with a value that the mode of --detect-local-mode does not read. */
export function unusedDetectionFlags(values: Values): string[] {
  const mode = detectLocalMode(values);
  return (Object.keys(MODE_BY_FLAG) as (keyof typeof MODE_BY_FLAG)[])
    .filter((name) => values[name].length > 0 && MODE_BY_FLAG[name] !== mode)
    .map((name) => `--${name} is ignored: --detect-local-mode is ${JSON.stringify(mode)}`);
}

/**
 * Where NodePorts are served: at the InternalIPs of the Node object, or in these ranges, each once; none: at every
 * local address. Frozen. Throws `ERR_FLAG_VALUE` when `primary` does not stand alone, as kube-proxy does
 * (`validateKubeProxyNodePortAddress`).
 */
export function nodePortAddressesFromValues(values: Values): typeof PRIMARY | readonly Cidr[] {
  const items = values['nodeport-addresses'];
  const cidrs = items.filter((item) => item !== PRIMARY);
  if (cidrs.length === items.length) {
    return Object.freeze([...new Map(cidrs.map((cidr) => [cidr.text, cidr])).values()]);
  }
  if (items.length === 1) return PRIMARY;
  throw invalidFlag(
    'nodeport-addresses',
    items.map((item) => (item === PRIMARY ? PRIMARY : item.text)).join(','),
    `must be CIDRs or the single word ${JSON.stringify(PRIMARY)} alone`,
  );
}

/** Frozen. Throws `ERR_FLAG_VALUE` when the mode lacks the name that it goes by. */
export function localDetectionFromValues(values: Values): LocalDetection {
  return Object.freeze(localDetectionOf(values));
}

function localDetectionOf(values: Values): LocalDetection {
  const mode = detectLocalMode(values);
  switch (mode) {
    case 'ClusterCIDR': {
      const cidrs = values['cluster-cidr'];
      return cidrs.length === 0 ? { kind: 'none' } : { kind: 'cidrs', cidrs: Object.freeze([...cidrs]) };
    }
    case 'NodeCIDR':
      return { kind: 'nodeCIDR' };
    case 'BridgeInterface':
      return { kind: 'interface', name: nameFor(mode, 'pod-bridge-interface', values) };
    case 'InterfaceNamePrefix':
      return { kind: 'interface', name: `${nameFor(mode, 'pod-interface-name-prefix', values)}+` };
  }
}

/** kube-proxy takes an empty mode as the default too. */
function detectLocalMode(values: Values): Exclude<Values['detect-local-mode'], ''> {
  return values['detect-local-mode'] === '' ? 'ClusterCIDR' : values['detect-local-mode'];
}

function nameFor(
  mode: string,
  flag: 'pod-bridge-interface' | 'pod-interface-name-prefix',
  values: Values,
): string {
  const name = values[flag];
  if (name === '')
    throw invalidFlag('detect-local-mode', mode, `needs --${flag}: ${FLAGS[flag].type.accepts}`);
  return name;
}
