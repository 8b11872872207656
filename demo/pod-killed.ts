/**
 * The chapter in which a pod dies while it is asked without pause, and nobody notices.
 *
 * A request that is inside a process when that is killed dies with it, whatever stands before it. So the pod goes as
 * pods are meant to go: it refuses what is new, finishes what it has, and is killed then.
 */
import { setTimeout as delay } from 'node:timers/promises';
import type { Agent } from '../test/support/agent-client.ts';
import type { LoadReport } from '../test/support/agent-protocol.ts';
import type { Host } from '../test/support/netns-lab.ts';
import { type ParsedSample, sampleValue } from '../test/support/prometheus-text.ts';
import { waitFor } from '../test/support/wait.ts';
import type { Narrator } from './narrator.ts';
import { WEB } from './portals.ts';
import { type Chapter, count, type Metrics, type ServicePortAt, type Stage } from './stage.ts';

const MANIFEST = 'web.yaml';
const WEB_HTTP: ServicePortAt = { service: 'web', port: 'http' };
const CONCURRENCY = 8;
/** Of each client, between two requests. */
const PAUSE_MS = 4;
const TIMEOUT_MS = 10_000;

/** The requests that go on all the while, and how far they are. */
class Load {
  readonly #agent: Agent;
  readonly #id: number;

  private constructor(agent: Agent, id: number) {
    this.#agent = agent;
    this.#id = id;
  }

  static async start(client: Host): Promise<Load> {
    const agent = await client.agent();
    const pace = { concurrency: CONCURRENCY, pauseMs: PAUSE_MS };
    const target = { host: WEB.ipv4, port: WEB.port, keepAlive: false };
    return new Load(agent, (await agent.startHttpLoad({ ...target, ...pace })).id);
  }

  async report(): Promise<LoadReport> {
    return this.#agent.loadReport({ id: this.#id });
  }

  async stop(): Promise<LoadReport> {
    return this.#agent.stopLoad({ id: this.#id });
  }

  /** Resolves when that many more have ended. */
  async more(requests: number): Promise<LoadReport> {
    const until = (await this.report()).requests + requests;
    await waitFor(async () => (await this.report()).requests >= until, {
      timeoutMs: TIMEOUT_MS,
      what: `${requests} more requests`,
    });
    return this.report();
  }
}

export const tellPodKilled: Chapter = async (narrator, stage) => {
  narrator.chapter('A pod is killed in the middle of continuous requests');
  const client = stage.lab.pod(1);
  const victim = stage.lab.pod(3);
  const load = await Load.start(client);
  const calm = await load.more(400);
  narrator.say(
    `${CONCURRENCY} clients on ${client.name} send request after request, each over a new connection.`,
  );
  narrator.show('requests so far', answersText(calm));

  await kill(narrator, stage, { victim, load });
  await removeEndpoint(narrator, stage, { victim, load });
  await bringBack(narrator, stage, { victim, load });

  const all = await load.stop();
  narrator.show('requests in all', answersText(all));
  narrator.show('time of an answer', `median ${ms(all.latencyMs.p50)}, slowest ${ms(all.latencyMs.max)}`);
  narrator.promise(`${all.requests} requests, ${all.failed} failed`, all.failed === 0, all.failures);
};

interface Scene {
  readonly victim: Host;
  readonly load: Load;
}

/** While the EndpointSlice still lists the pod: its share is refused, and dialled again elsewhere. */
async function kill(narrator: Narrator, stage: Stage, { victim, load }: Scene): Promise<void> {
  const before = await stage.proxy.metrics();
  const reject = ['INPUT', '-p', 'tcp', '--syn', '-j', 'REJECT', '--reject-with', 'tcp-reset'];
  await victim.run(['iptables', '-A', ...reject]);
  await waitFor(async () => (await openConnections(victim)) === 0, {
    timeoutMs: TIMEOUT_MS,
    what: `${victim.name} to finish what it has`,
  });
  const pid = await stage.killPod(victim);
  // With the process gone the kernel refuses by itself.
  await victim.run(['iptables', '-D', ...reject]);
  narrator.say(
    `${victim.name} refuses what is new, finishes what it has, and is killed (kill -9 ${pid}). ` +
      'It is still listed as ready:',
  );
  const report = await load.more(800);
  const after = await stage.proxy.metrics();
  const refused = increase(before, after, 'dials_total', { result: 'refused' });
  const retries = increase(before, after, 'dial_retries_total');
  narrator.show('dials it refused', String(refused));
  narrator.show('dialled again elsewhere', String(retries));
  narrator.promise(`no client noticed: ${report.failed} failed`, report.failed === 0, report.failures);
  narrator.promise('each refused dial went to another pod', refused > 0 && retries >= refused, {
    refused,
    retries,
  });
}

/** The endpoint goes from the manifest: memory changes, and nothing else. */
async function removeEndpoint(narrator: Narrator, stage: Stage, { victim, load }: Scene): Promise<void> {
  const lines = stage.manifest(MANIFEST).split('\n');
  const isOfVictim = (line: string): boolean => line.includes(victim.ipv4) || line.includes(victim.ipv6);
  narrator.say(`Now its endpoints are taken out of ${MANIFEST}, and the file is saved:`);
  for (const line of lines.filter(isOfVictim)) narrator.quote(`-${line}`);
  const pageFaults = await stage.pageFaultsOfPrograms();
  const rules = await bothRules(stage);
  const start = await stage.proxy.metrics();
  const tookMs = await save(stage, lines.filter((line) => !isOfVictim(line)).join('\n'));
  const before = await stage.proxy.metrics();
  await load.more(400);
  const after = await stage.proxy.metrics();
  const refused = increase(before, after, 'dials_total', { result: 'refused' });
  const established = increase(before, after, 'dials_total', { result: 'ok' });
  const written = rulesWritten(after);
  narrator.show('in force', `${ms(tookMs)} after the save, the wait for a slow editor included`);
  narrator.show('the sync that followed', `${ms(syncTimeMs(start, after))}, ${written} rules written`);
  narrator.show('dials since then', `${established} answered, ${refused} refused`);
  narrator.promise('no dial goes to it any more', refused === 0 && established > 0, { refused, established });
  const [pageFaultsAfter, rulesAfter] = [await stage.pageFaultsOfPrograms(), await bothRules(stage)];
  narrator.promise(
    'the proxy started no program for that, iptables included',
    pageFaults > 0 && pageFaultsAfter === pageFaults,
    { pageFaults, pageFaultsAfter },
  );
  narrator.promise('not one rule is different', written === 0 && rulesAfter === rules, { rules, rulesAfter });
}

async function bringBack(narrator: Narrator, stage: Stage, { victim, load }: Scene): Promise<void> {
  await stage.startPod(victim);
  const before = (await load.report()).byName[victim.name] ?? 0;
  await save(stage, stage.manifest(MANIFEST));
  const answered = async (): Promise<number> => ((await load.report()).byName[victim.name] ?? 0) - before;
  await waitFor(async () => (await answered()) >= 100, {
    timeoutMs: TIMEOUT_MS,
    what: `answers of ${victim.name}`,
  });
  narrator.say(`${victim.name} starts again, is listed again, and answers again:`);
  narrator.show(`new answers of ${victim.name}`, String(await answered()));
}

/** Saves as editors do; resolves with the time until the proxy used what stands there. */
async function save(stage: Stage, text: string): Promise<number> {
  const changes = async (): Promise<number> =>
    sampleValue(await stage.proxy.metrics(), 'kubeproxy_sync_proxy_rules_endpoint_changes_total') ?? 0;
  const before = await changes();
  const start = performance.now();
  await stage.proxy.writeManifest(MANIFEST, text);
  await waitFor(async () => (await changes()) > before, {
    timeoutMs: TIMEOUT_MS,
    intervalMs: 1,
    what: 'the change to be in force',
  });
  return performance.now() - start;
}

/** What the syncs between two readings took, both families together. */
function syncTimeMs(before: Metrics, after: Metrics): number {
  const sum = (metrics: Metrics): number =>
    sumOf(metrics, 'kubeproxy_sync_proxy_rules_duration_seconds', ({ name }) => name.endsWith('_sum'));
  return 1000 * (sum(after) - sum(before));
}

/** By the last sync, in all tables of both families. */
function rulesWritten(metrics: Metrics): number {
  return sumOf(metrics, 'kubeproxy_sync_proxy_rules_iptables_last', () => true);
}

function sumOf(metrics: Metrics, family: string, isMeant: (sample: ParsedSample) => boolean): number {
  const samples = metrics.get(family)?.samples.filter(isMeant) ?? [];
  return samples.reduce((sum, { value }) => sum + value, 0);
}

async function openConnections(pod: Host): Promise<number> {
  const established = await pod.run(['ss', '-Htn', 'state', 'established', 'sport', '=', ':8080']);
  // One look may fall between the handshake of a last connection and its place in the list.
  await delay(20);
  return established.split('\n').filter(Boolean).length;
}

async function bothRules({ proxy }: Stage): Promise<string> {
  return [...(await proxy.rules('IPv4')), ...(await proxy.rules('IPv6'))].join('\n');
}

function increase(
  before: Metrics,
  after: Metrics,
  name: string,
  labels: Readonly<Record<string, string>> = {},
): number {
  return count(after, name, WEB_HTTP, labels) - count(before, name, WEB_HTTP, labels);
}

function answersText({ requests, failed, byName }: LoadReport): string {
  const names = Object.entries(byName).toSorted(([a], [b]) => (a < b ? -1 : 1));
  return `${requests} (${names.map(([name, answers]) => `${name} ${answers}`).join(', ')}; failed ${failed})`;
}

function ms(milliseconds: number): string {
  return `${milliseconds.toFixed(milliseconds < 10 ? 1 : 0)} ms`;
}
