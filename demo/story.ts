/** The story, chapter by chapter: who asks what, what came back, and the promise that it keeps. */
import { setTimeout as delay } from 'node:timers/promises';
import { hostPortText } from '../src/model/address.ts';
import type { Host } from '../test/support/netns-lab.ts';
import { tellGuard, tellMetrics, tellRules } from './inside.ts';
import type { Narrator } from './narrator.ts';
import { tellPodKilled } from './pod-killed.ts';
import { ECHO, STICKY, WEB } from './portals.ts';
import type { Chapter, Stage } from './stage.ts';

const LARGEST_DATAGRAM_BYTES = 65_507;

/** `pauseMs`: between two chapters, for people who read along. Rejects with BrokenPromise. */
export async function tellStory(
  narrator: Narrator,
  stage: Stage,
  options: { readonly pauseMs: number },
): Promise<void> {
  const chapters: readonly Chapter[] = [
    tellStage,
    tellClusterIp,
    tellNodePort,
    tellUdp,
    tellAffinity,
    tellPodKilled,
    tellGuard,
    tellRules,
    tellMetrics,
  ];
  for (const tell of chapters) {
    await tell(narrator, stage);
    await delay(options.pauseMs);
  }
}

const tellStage: Chapter = async (narrator, stage) => {
  const { lab } = stage;
  narrator.title(
    'kube-userspace-proxy: the traffic of Kubernetes Services, carried to live pods in userspace',
  );
  narrator.say('A node, four pods and a client outside, each in a network namespace of its own:');
  for (const host of [lab.node, ...lab.pods, lab.ext]) narrator.show(host.name, `${host.ipv4}  ${host.ipv6}`);
  narrator.say('On the node runs the proxy, with a copy of demo/manifests and short delays:');
  narrator.quote(await stage.commandLine());
};

const tellClusterIp: Chapter = async (narrator, { lab }) => {
  narrator.chapter('A clusterIP, answered by the pods in turn');
  const answers: string[][] = [];
  for (const [client, address] of [
    [lab.pod(1), WEB.ipv4],
    [lab.node, WEB.ipv4],
    [lab.pod(1), WEB.ipv6],
    [lab.node, WEB.ipv6],
  ] as const) {
    const names = await askHttp(client, { host: address, port: WEB.port, count: 2 * lab.pods.length });
    narrator.show(`${client.name} → ${hostPortText(address, WEB.port)}`, names.join(' '));
    answers.push(names);
  }
  narrator.promise(
    `all ${lab.pods.length} pods, one after the other`,
    answers.every((names) => isInTurn(names, lab.pods.length)),
    answers,
  );
};

const tellNodePort: Chapter = async (narrator, { lab }) => {
  narrator.chapter('A NodePort, from outside the cluster');
  const answers: string[][] = [];
  for (const address of [lab.node.ipv4, lab.node.ipv6]) {
    const names = await askHttp(lab.ext, { host: address, port: WEB.nodePort, count: lab.pods.length });
    narrator.show(`ext → ${hostPortText(address, WEB.nodePort)}`, names.join(' '));
    answers.push(names);
  }
  narrator.promise(
    'every pod is reached through the node',
    answers.every((names) => isInTurn(names, lab.pods.length)),
    answers,
  );
  narrator.say('What userspace mode costs: a pod sees the node as its client, not who really asked.');
  const asked = { host: lab.node.ipv4, port: WEB.nodePort, count: 1, path: '/client' };
  const [seen = ''] = await askHttp(lab.ext, asked);
  narrator.show(`ext is ${lab.ext.ipv4}`, `the pod saw ${seen}`);
};

const tellUdp: Chapter = async (narrator, { lab }) => {
  narrator.chapter('UDP');
  const clients = [lab.pod(1), lab.node];
  const who = hostPortText(ECHO.ipv4, ECHO.whoPort);
  const answers: string[][] = [];
  for (const client of clients) {
    const asked = await (await client.agent()).udpIdentify({
      host: ECHO.ipv4,
      port: ECHO.whoPort,
      count: lab.pods.length,
      sameSocket: false,
    });
    const names = asked.map(({ ok, name = '', errno = 'failed' }) => (ok ? name.trim() : errno));
    narrator.show(`${client.name} → ${who}`, names.join(' '));
    answers.push(names);
  }
  narrator.promise(
    'for each new socket the next pod',
    answers.every((names) => isInTurn(names, lab.pods.length)),
    answers,
  );
  const echo = hostPortText(ECHO.ipv4, ECHO.echoPort);
  for (const client of clients) {
    const target = { host: ECHO.ipv4, port: ECHO.echoPort };
    const result = await (await client.agent()).udpExchange({
      ...target,
      payloadBytes: LARGEST_DATAGRAM_BYTES,
    });
    const from = result.from === undefined ? 'nobody' : hostPortText(result.from.address, result.from.port);
    narrator.show(`${client.name} → ${echo}`, `${result.received} bytes came back from ${from}`);
    narrator.promise(
      'the largest datagram there is, whole, from the address that was asked',
      result.ok && result.identical && result.received === LARGEST_DATAGRAM_BYTES && from === echo,
      result,
    );
  }
};

const tellAffinity: Chapter = async (narrator, { lab }) => {
  narrator.chapter('ClientIP affinity: a client stays with its pod');
  const clients = [lab.pod(1), lab.pod(2), lab.node];
  const answers: string[][] = [];
  for (const client of clients) {
    const names = await askHttp(client, { host: STICKY.ipv4, port: STICKY.port, count: 6 });
    narrator.show(`${client.name} → ${hostPortText(STICKY.ipv4, STICKY.port)}`, names.join(' '));
    answers.push(names);
  }
  narrator.promise(
    'the same pod for a client every time',
    answers.every((names) => new Set(names).size === 1),
    answers,
  );
  const chosen = new Set(answers.flat()).size;
  narrator.promise(`${clients.length} clients, ${chosen} pods`, chosen === clients.length, answers);
};

interface HttpQuestion {
  readonly host: string;
  readonly port: number;
  readonly count: number;
  readonly path?: string;
}

/** The bodies of that many requests, each over a connection of its own, one after the other. */
async function askHttp(client: Host, { count, path = '/', ...target }: HttpQuestion): Promise<string[]> {
  const agent = await client.agent();
  const bodies: string[] = [];
  for (let asked = 0; asked < count; asked += 1) {
    const { body } = await agent.httpGet({ ...target, path });
    bodies.push(body.trim());
  }
  return bodies;
}

/** Whether the first `size` are all different and from there on everything repeats. */
function isInTurn(names: readonly string[], size: number): boolean {
  return (
    new Set(names.slice(0, size)).size === size &&
    names.every((name, index) => index < size || name === names[index - size])
  );
}
