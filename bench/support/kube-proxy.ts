/** kube-proxy 1.20.2, the last Go proxy with a userspace mode worth the name, as the benchmarks run it. */
import { accessSync, constants } from 'node:fs';
import { join } from 'node:path';
import { clusterAssets } from '../../test/support/cluster-assets.ts';
import type { Host } from '../../test/support/netns-lab.ts';
import { NODE_NAME } from './bench-cluster.ts';
import { compileProgram } from './compile.ts';

export type KubeProxyMode = 'iptables' | 'userspace';

/** kube-proxy's userspace mode ends where it may not have that many files open. */
export const USERSPACE_OPEN_FILES = 64_000;
/** The program for which raising the limit of open files succeeds. */
export const LENIENT_LIMIT = 'lenient-limit';

/** In a namespace of the lab these cannot be set, and 0 leaves them alone. */
const CONNTRACK_FLAGS = [
  '--conntrack-max-per-core=0',
  '--conntrack-min=0',
  '--conntrack-tcp-timeout-established=0',
  '--conntrack-tcp-timeout-close-wait=0',
];

/** What KUP_BENCH_KUBE_PROXY names, else what scripts/cluster-assets.sh has built. */
export function kubeProxyPath(): string {
  return process.env['KUP_BENCH_KUBE_PROXY'] ?? join(clusterAssets() ?? '', 'kube-proxy');
}

/** Why it cannot be run here; undefined: it can. */
export function whyNoKubeProxy(): string | undefined {
  const path = kubeProxyPath();
  try {
    accessSync(path, constants.X_OK);
    return undefined;
  } catch {
    return `there is no ${path} (sh scripts/cluster-assets.sh prepare builds it; KUP_BENCH_KUBE_PROXY names another)`;
  }
}

/**
 * Its command line. Where userspace mode may not have the files it insists on, a program stands before it for which
 * setrlimit succeeds without effect: unmodified, it then runs under the limit that all have.
 */
export async function kubeProxyArgv(
  mode: KubeProxyMode,
  { node, kubeconfig }: { readonly node: Host; readonly kubeconfig: string },
): Promise<[string, ...string[]]> {
  const command: [string, ...string[]] = [
    kubeProxyPath(),
    `--kubeconfig=${kubeconfig}`,
    `--hostname-override=${NODE_NAME}`,
    `--proxy-mode=${mode}`,
    ...(mode === 'userspace' ? ['--feature-gates=EndpointSliceProxying=false'] : []),
    ...CONNTRACK_FLAGS,
  ];
  if (mode === 'iptables') return command;
  const { exitCode } = await node.exec(['sh', '-c', `ulimit -H -n ${USERSPACE_OPEN_FILES}`]);
  return exitCode === 0 ? command : [await compileProgram(`${LENIENT_LIMIT}.c`), ...command];
}
