/** The addresses of a control plane and the command lines of its programs. */
import type { ControlPlaneFiles } from './control-plane-files.ts';

/**
 * The control plane's link to the node. Its host has an address for each of two API servers, as masters are two
 * machines, so that both can have the same port and both are endpoints of the Service `kubernetes`.
 */
export const NETWORK = {
  node: '10.99.0.1/29',
  servers: ['10.99.0.2', '10.99.0.3'],
  prefixLength: 29,
  gateway: '10.99.0.1',
} as const;

export const API_PORT = 6443;
export const ETCD_PORT = 2379;
const SERVICE_RANGES = { IPv4: '10.96.0.0/16', IPv6: 'fd00:96::/108' } as const;
/** The cluster IP of the Service `kubernetes`: the first of the range. */
export const KUBERNETES_CLUSTER_IP = '10.96.0.1';
const ISSUER = 'https://kubernetes.default.svc';
const DUAL_STACK = '--feature-gates=IPv6DualStack=true';

/** Controllers that need no kubelet and take nothing away for the lack of one. Slices go by the garbage collector. */
const CONTROLLERS = [
  'endpoint',
  'endpointslice',
  'endpointslicemirroring',
  'garbagecollector',
  'namespace',
  'serviceaccount',
];

type Argv = readonly [string, ...string[]];

export function renderEtcdArgv(files: ControlPlaneFiles): Argv {
  const client = `http://127.0.0.1:${ETCD_PORT}`;
  const peer = 'http://127.0.0.1:2380';
  return [
    files.program('etcd'),
    `--data-dir=${files.in('etcd')}`,
    `--listen-client-urls=${client}`,
    `--advertise-client-urls=${client}`,
    `--listen-peer-urls=${peer}`,
    `--initial-advertise-peer-urls=${peer}`,
    `--initial-cluster=default=${peer}`,
    // A single member elects itself when an election timeout has passed.
    '--heartbeat-interval=20',
    '--election-timeout=100',
    // What survives here is a crash of the program, never one of the machine.
    '--unsafe-no-fsync',
  ];
}

export interface ApiServerFlags {
  readonly address: string;
  readonly auditLog: string;
  readonly isDualStack: boolean;
  /** Later ones win. */
  readonly further: readonly string[];
}

export function renderApiServerArgv(files: ControlPlaneFiles, flags: ApiServerFlags): Argv {
  const { address, auditLog, isDualStack, further } = flags;
  return [
    files.program('kube-apiserver'),
    `--etcd-servers=http://127.0.0.1:${ETCD_PORT}`,
    `--bind-address=${address}`,
    `--advertise-address=${address}`,
    `--secure-port=${API_PORT}`,
    `--tls-cert-file=${files.serverCert}`,
    `--tls-private-key-file=${files.serverKey}`,
    `--client-ca-file=${files.clientCaBundle}`,
    `--token-auth-file=${files.tokens}`,
    '--anonymous-auth=false',
    '--authorization-mode=RBAC',
    '--allow-privileged=true',
    `--service-cluster-ip-range=${isDualStack ? Object.values(SERVICE_RANGES).join(',') : SERVICE_RANGES.IPv4}`,
    ...(isDualStack ? [DUAL_STACK] : []),
    // It would refuse pods until each namespace has its service account, which is of no use here.
    '--disable-admission-plugins=ServiceAccount',
    `--service-account-issuer=${ISSUER}`,
    `--api-audiences=${ISSUER}`,
    `--service-account-key-file=${files.tokenPublicKey}`,
    `--service-account-signing-key-file=${files.tokenPrivateKey}`,
    `--audit-policy-file=${files.auditPolicy}`,
    `--audit-log-path=${auditLog}`,
    ...further,
  ];
}

export interface ControllerManagerFlags {
  readonly kubeconfig: string;
  readonly isDualStack: boolean;
  readonly further: readonly string[];
}

export function renderControllerManagerArgv(files: ControlPlaneFiles, flags: ControllerManagerFlags): Argv {
  return [
    files.program('kube-controller-manager'),
    `--kubeconfig=${flags.kubeconfig}`,
    '--leader-elect=false',
    `--controllers=${CONTROLLERS.join(',')}`,
    ...(flags.isDualStack ? [DUAL_STACK] : []),
    // Its default of 20 requests per second would be what a test with many pods measures.
    '--kube-api-qps=500',
    '--kube-api-burst=1000',
    ...flags.further,
  ];
}
