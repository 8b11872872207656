/**
 * The programs of a real control plane, wherever `scripts/cluster-assets.sh` finds them. Where there are none, or no
 * lab can be made, the cluster tests are skipped: `describe.skipIf(clusterAssets() === undefined)`.
 */
import { spawnSync } from 'node:child_process';
import { canMakeNamespaces } from './netns-lab.ts';

const SCRIPT = new URL('../../scripts/cluster-assets.sh', import.meta.url).pathname;

interface Answer {
  readonly directory?: string;
  readonly reason?: string;
}

let answer: Answer | undefined;

/** The directory of etcd, kube-apiserver and kube-controller-manager; undefined when no cluster can be run here. */
export function clusterAssets(): string | undefined {
  answer ??= findAssets();
  return answer.directory;
}

/** Why no cluster can be run here, in words for a skipped test's message; undefined when one can. */
export function whyNoCluster(): string | undefined {
  answer ??= findAssets();
  return answer.reason;
}

function findAssets(): Answer {
  const reason = canMakeNamespaces();
  if (reason !== undefined) return { reason };
  // Without `prepare` the script only looks; it never builds.
  const result = spawnSync('sh', [SCRIPT], { encoding: 'utf8', timeout: 10_000 });
  if (result.error !== undefined) return { reason: `${SCRIPT} cannot be run: ${result.error.message}` };
  if (result.status !== 0) return { reason: result.stderr.trim() };
  const openssl = spawnSync('openssl', ['version'], { encoding: 'utf8', timeout: 10_000 });
  if (openssl.status !== 0) return { reason: 'openssl cannot be run: the control plane needs certificates' };
  return { directory: result.stdout.trim() };
}
