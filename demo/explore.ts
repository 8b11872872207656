/** `--keep`: everything stays up, and these are the commands to look at it with. */
import { spawnSync } from 'node:child_process';
import { setTimeout as delay } from 'node:timers/promises';
import type { Host } from '../test/support/netns-lab.ts';
import type { Narrator } from './narrator.ts';
import { ECHO, STICKY, WEB } from './portals.ts';
import type { Stage } from './stage.ts';

const LOG_INTERVAL_MS = 200;

/** Prints the commands, then the proxy's log as it grows, until the signal; rejects when the proxy ends before. */
export async function explore(narrator: Narrator, stage: Stage, signal: AbortSignal): Promise<void> {
  const { lab, proxy } = stage;
  const on = (host: Host, command: string): void =>
    narrator.command(`ip netns exec ${host.netns} ${command}`);
  narrator.chapter('Yours: everything stays up until Ctrl-C. In another terminal, as root:');
  narrator.say('A clusterIP from a pod, from the node, and one with affinity; the NodePort from outside:');
  on(lab.pod(1), httpCommand(WEB.ipv4, WEB.port));
  on(lab.node, httpCommand(WEB.ipv4, WEB.port));
  on(lab.pod(2), httpCommand(STICKY.ipv4, STICKY.port));
  on(lab.ext, httpCommand(lab.node.ipv4, WEB.nodePort));
  narrator.say('UDP:');
  on(
    lab.pod(1),
    bashCommand('udp', { host: ECHO.ipv4, port: ECHO.whoPort }, { write: 'echo', read: 'head -n 1' }),
  );
  narrator.say('The rules, with the packets that each has seen:');
  on(lab.node, 'iptables-save -c | grep USERSPACE-PROXY');
  narrator.say('The health, the metrics:');
  on(lab.node, httpCommand('127.0.0.1', 10_256, '/healthz'));
  on(lab.node, `${httpCommand('127.0.0.1', 10_249, '/metrics')} | grep ^userspace_proxy`);
  narrator.say('Who is connected to whom:');
  on(lab.node, 'conntrack -L -p tcp');
  narrator.say('The manifests: edit them, and read below what the proxy makes of it.');
  narrator.command(`\${EDITOR:-vi} ${proxy.directory}/manifests/web.yaml`);
  narrator.say('The log of the proxy from here on:');
  await followLog(narrator, stage, signal);
}

async function followLog(narrator: Narrator, { proxy }: Stage, signal: AbortSignal): Promise<void> {
  let shown = proxy.log.length;
  while (!signal.aborted) {
    for (const line of proxy.log.slice(shown)) narrator.command(JSON.stringify(line));
    shown = proxy.log.length;
    if (!proxy.isRunning && !signal.aborted) throw new Error(`the proxy has ended: ${proxy.errors}`);
    await delay(LOG_INTERVAL_MS, undefined, { signal }).catch(() => undefined);
  }
}

function httpCommand(host: string, port: number, path = '/'): string {
  if (hasCurl()) return `curl -s http://${host}:${port}${path}`;
  return bashCommand(
    'tcp',
    { host, port },
    { write: `printf "GET ${path} HTTP/1.0\\r\\n\\r\\n"`, read: 'cat' },
  );
}

/** bash is on every Debian machine; it opens sockets under names that look like files. */
function bashCommand(
  protocol: 'tcp' | 'udp',
  { host, port }: { readonly host: string; readonly port: number },
  { write, read }: { readonly write: string; readonly read: string },
): string {
  return `bash -c \\\n  'exec 3<>/dev/${protocol}/${host}/${port}; ${write} >&3; ${read} <&3'`;
}

let curlAnswer: boolean | undefined;
function hasCurl(): boolean {
  curlAnswer ??= spawnSync('curl', ['--version'], { stdio: 'ignore' }).status === 0;
  return curlAnswer;
}
