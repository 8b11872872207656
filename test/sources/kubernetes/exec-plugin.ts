/** An exec plugin: a small shell script next to a kubeconfig that names it, run by the real `exec`. */
import { readFile } from 'node:fs/promises';
import { exec } from '../../../src/host/exec.ts';
import { KubeconfigCredentials } from '../../../src/sources/kubernetes/credentials.ts';
import type { RunProgram } from '../../../src/sources/kubernetes/exec-credentials.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { TestDirectory } from '../../support/kubeconfig.ts';

export const API_VERSION = 'client.authentication.k8s.io/v1';
/** Notes how it was called, and prints `answer.json` of its directory. */
export const PLUGIN = `#!/bin/sh
cd "$(dirname "$0")" || exit 9
echo run >>runs
printf '%s' "$KUBERNETES_EXEC_INFO" >info
printf '%s|%s|%s' "$REGION" "$EMPTY" "$OURS" >env
for arg in "$@"; do printf '%s\\n' "$arg"; done >args
cat answer.json
`;

export const runReally: RunProgram = async (command, args, { timeoutMs, env }) =>
  exec(command, args, { timeoutMs, env: { PATH: process.env['PATH'] ?? '', OURS: 'yes', ...env } });

export interface Plugin {
  readonly directory: TestDirectory;
  readonly clock: FakeClock;
  readonly me: KubeconfigCredentials;
  /** What it prints from now on. */
  readonly prints: (status: object, tweak?: object) => Promise<void>;
  /** How often it was run. */
  readonly runs: () => Promise<number>;
  readonly token: () => Promise<string | undefined>;
}

export async function makePlugin({
  tweak = {},
  parts = {},
  script = PLUGIN,
  run = runReally,
}: {
  readonly tweak?: object;
  readonly parts?: { readonly server?: string; readonly cluster?: object };
  readonly script?: string;
  readonly run?: RunProgram;
} = {}): Promise<Plugin> {
  const directory = await TestDirectory.make();
  await directory.writeProgram('plugin', script);
  const clock = new FakeClock();
  const plugin = { apiVersion: API_VERSION, command: './plugin', ...tweak };
  const path = await directory.writeKubeconfig({ ...parts, user: { exec: plugin } });
  const me = new KubeconfigCredentials({ run, wallTime: () => clock.wallTime() }, { path });
  const prints = async (status: object, answer: object = {}): Promise<void> => {
    const text = JSON.stringify({ apiVersion: API_VERSION, kind: 'ExecCredential', status, ...answer });
    await directory.write('answer.json', text);
  };
  await prints({ token: 'first' });
  const runs = async (): Promise<number> =>
    (await readFile(directory.at('runs'), 'utf8').catch(() => '')).split('\n').length - 1;
  return {
    directory,
    clock,
    me,
    prints,
    runs,
    token: async () => (await me.current()).headers['authorization'],
  };
}
