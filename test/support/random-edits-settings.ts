/** Random settings of a proxy, as the model has them and as flags: what an operator may decide about Services. */
import type { NodeSettings } from '../../src/desired/node-view.ts';
import { SCHEDULERS } from '../../src/model/service-policy.ts';
import type { Random } from './random.ts';
import { oneIn } from './random-service.ts';
import { DEFAULT_SETTINGS, cidrs } from './rule-fixture.ts';

export interface RandomSettings {
  readonly settings: NodeSettings;
  /** The same for the command line of a proxy in a lab. */
  readonly flags: readonly string[];
}

interface Choice {
  readonly settings: Partial<NodeSettings>;
  readonly flags: readonly string[];
}

const NOTHING: Choice = { settings: {}, flags: [] };

const NODE_PORT_ADDRESSES: readonly Choice[] = [
  NOTHING,
  { settings: { nodePortAddresses: 'primary' }, flags: ['--nodeport-addresses', 'primary'] },
  {
    settings: { nodePortAddresses: cidrs('192.168.77.0/24', '127.0.0.0/8') },
    flags: ['--nodeport-addresses', '192.168.77.0/24,127.0.0.0/8'],
  },
];

const LOCAL_DETECTION: readonly Choice[] = [
  NOTHING,
  {
    settings: { localDetection: { kind: 'cidrs', cidrs: cidrs('10.244.1.0/24', 'fd00:244:1::/64') } },
    flags: ['--cluster-cidr', '10.244.1.0/24,fd00:244:1::/64'],
  },
  { settings: { localDetection: { kind: 'nodeCIDR' } }, flags: ['--detect-local-mode', 'NodeCIDR'] },
  {
    settings: { localDetection: { kind: 'interface', name: 'cni0' } },
    flags: ['--detect-local-mode', 'BridgeInterface', '--pod-bridge-interface', 'cni0'],
  },
];

export function randomSettings(random: Random): RandomSettings {
  const scheduler = random.pick(SCHEDULERS);
  const detection = random.pick(LOCAL_DETECTION);
  const choices: readonly Choice[] = [
    random.pick(NODE_PORT_ADDRESSES),
    detection,
    oneIn(random, 4)
      ? { settings: { localhostNodePorts: false }, flags: ['--iptables-localhost-nodeports=false'] }
      : NOTHING,
    oneIn(random, 4)
      ? { settings: { disableExternalIPs: true }, flags: ['--disable-external-ips'] }
      : NOTHING,
    // Refused where nobody is known to be a pod.
    detection !== NOTHING && oneIn(random, 4)
      ? { settings: { externalClusterIP: false }, flags: ['--external-clusterip=false'] }
      : NOTHING,
    oneIn(random, 3) ? { settings: { scheduler }, flags: ['--scheduler', scheduler] } : NOTHING,
  ];
  return {
    settings: Object.assign({}, DEFAULT_SETTINGS, ...choices.map(({ settings }) => settings)) as NodeSettings,
    flags: choices.flatMap(({ flags }) => flags),
  };
}
