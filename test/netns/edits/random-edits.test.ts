/**
 * A real proxy on a real kernel through a random sequence of 200 edits of its manifests, in bursts and one by one, with
 * clients that keep sending from one source port. In the end everything that can be seen of it, rules, sockets, health
 * checks, who answers at which place, is as with a proxy that was started from the final state.
 *
 * KUP_TEST_SEED repeats one sequence; KUP_TEST_LONG=1 runs more of them.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { canMakeNamespaces } from '../../support/netns-lab.ts';
import { makeService, manifestText } from '../../support/objects.ts';
import { ProxyProcess } from '../../support/proxy-process.ts';
import { type ClusterState, randomClusterState } from '../../support/random-cluster.ts';
import { EditsLab, manifestFiles } from '../../support/random-edits-lab.ts';
import { Reachability } from '../../support/random-edits-reach.ts';
import { type RandomSettings, randomSettings } from '../../support/random-edits-settings.ts';
import { randomEdit } from '../../support/random-edits.ts';
import { oneIn, withoutInvalid } from '../../support/random-service.ts';
import { Random, seeds } from '../../support/random.ts';
import { OWN_NODE } from '../../support/rule-fixture.ts';
import { waitFor } from '../../support/wait.ts';

const EDITS = 200;
const BURSTS = [1, 1, 2, 4, 8, 16] as const;
const SEEDS = seeds(process.env['KUP_TEST_LONG'] === '1' ? 10 : 2);
/** Several times what a sequence and two measurements take. */
const TIMEOUT_MS = 120_000;
/** The last ones come one by one: what one leaves behind is not covered up by many more. */
const SINGLE_AT_END = 10;
/** A proxy that does nothing more for so long has settled: longer than the grace period of a listener. */
const QUIET_MS = 1_200;
/** Of the Service whose port says up to which edit the rules have come. */
const MARKER_IP = '10.96.200.1';
const FIRST_MARK = 1_000;

/** The node has them for some time. */
const PASSING_ADDRESSES = ['10.9.7.1/32', 'fd09:7::1/128'] as const;

/** What a proxy is started with. */
interface Started {
  readonly state: ClusterState;
  readonly settings: RandomSettings;
  readonly mark: number;
}

/** A live proxy with the files it reads. */
interface Run extends Started {
  readonly random: Random;
  readonly lab: EditsLab;
  readonly proxy: ProxyProcess;
  /** Does anybody else change its rules? */
  readonly hasForeignChanges: boolean;
  files: ReadonlyMap<string, string>;
  state: ClusterState;
  mark: number;
  readonly done: string[];
}

function markerText(mark: number): string {
  const marker = makeService('marker', ({ spec }) => {
    spec.clusterIP = MARKER_IP;
    spec.ports = [{ name: 'mark', port: mark, protocol: 'TCP' }];
  });
  return manifestText(marker);
}

/** Writes and removes what is different; the marker last. */
async function write(run: Run, state: ClusterState): Promise<void> {
  const before = run.files;
  run.state = state;
  run.files = manifestFiles(state);
  for (const [name, text] of run.files)
    if (before.get(name) !== text) await run.proxy.writeManifest(name, text);
  for (const name of before.keys()) if (!run.files.has(name)) await run.proxy.removeManifest(name);
  run.mark += 1;
  await run.proxy.writeManifest('marker.yaml', markerText(run.mark));
}

async function isMarked(proxy: ProxyProcess, mark: number): Promise<boolean> {
  const rules = await proxy.rules('IPv4');
  return rules.some((rule) => rule.includes(` -d ${MARKER_IP}/32 `) && rule.includes(` --dport ${mark} `));
}

async function settle(proxy: ProxyProcess, mark: number): Promise<void> {
  await waitFor(async () => isMarked(proxy, mark), { timeoutMs: 10_000, what: `rules with mark ${mark}` });
  let seen = '';
  let seenAt = performance.now();
  const isQuiet = async (): Promise<boolean> => {
    const rules = [...(await proxy.rules('IPv4')), ...(await proxy.rules('IPv6'))].join('\n');
    const busy =
      (await proxy.metric('userspace_proxy_listeners_draining')) +
      (await proxy.metric('kubeproxy_sync_proxy_rules_service_changes_pending')) +
      (await proxy.metric('kubeproxy_sync_proxy_rules_endpoint_changes_pending'));
    if (rules !== seen || busy > 0) {
      seen = rules;
      seenAt = performance.now();
    }
    return performance.now() - seenAt >= QUIET_MS;
  };
  await waitFor(isQuiet, { timeoutMs: 20_000, what: 'the proxy to settle', intervalMs: 100 });
}

function mended(state: ClusterState): ClusterState {
  return { ...state, services: state.services.map(withoutInvalid) };
}

/** What happens to a node beside edits: somebody flushes rules, an address comes and goes. */
async function disturb({ random, lab: { lab }, hasForeignChanges, done }: Run): Promise<void> {
  const { node } = lab;
  const kind = random.below(12);
  if (kind === 0 && hasForeignChanges) {
    // No chain of ours: an edit that writes it anew before the proxy has looked would hide it.
    done.push('somebody flushes PREROUTING');
    await node.run([random.pick(['iptables', 'ip6tables']), '-w', '5', '-t', 'nat', '-F', 'PREROUTING']);
  } else if (kind === 1) {
    done.push('an address comes or goes');
    const cidr = random.pick(PASSING_ADDRESSES);
    const listed = await node.run(['ip', '-br', 'address', 'show', 'dev', 'eth9']);
    if (listed.includes(cidr)) await node.removeAddress(cidr, 'eth9');
    else await node.addAddress(cidr, 'eth9');
  }
}

/** Nothing is left of an earlier sequence. */
async function renew({ lab: { node } }: EditsLab): Promise<void> {
  for (const cidr of PASSING_ADDRESSES) await node.exec(['ip', 'address', 'del', cidr, 'dev', 'eth9']);
  await node.run(['conntrack', '-F']);
}

async function play(run: Run): Promise<void> {
  const { random, lab, done } = run;
  let edits = 0;
  while (edits < EDITS) {
    const isNearEnd = edits >= EDITS - SINGLE_AT_END;
    const burst = isNearEnd ? 1 : Math.min(random.pick(BURSTS), EDITS - edits);
    for (let count = 0; count < burst; count += 1) {
      const edit = randomEdit(random, run.state);
      done.push(edit.what);
      await write(run, edit.state);
    }
    edits += burst;
    await disturb(run);
    if (isNearEnd || oneIn(random, 2)) await lab.probes.stir();
    if (oneIn(random, 2)) await waitForRead(run);
  }
}

/** The rules may still be on their way then, and the next edit meets them there. */
async function waitForRead(run: Run): Promise<void> {
  await waitFor(async () => isMarked(run.proxy, run.mark), {
    timeoutMs: 10_000,
    what: 'the edits to be in the rules',
  });
}

describe.skipIf(canMakeNamespaces() !== undefined)('a live proxy', () => {
  let lab: EditsLab;

  beforeAll(async () => {
    lab = await EditsLab.create();
  });
  afterAll(async () => {
    await lab?.[Symbol.asyncDispose]();
  });

  const start = async ({ state, settings, mark }: Started): Promise<ProxyProcess> => {
    const files = Object.fromEntries([...manifestFiles(state), ['marker.yaml', markerText(mark)]]);
    return ProxyProcess.start(lab.lab.node, { manifests: files, nodeName: OWN_NODE, args: settings.flags });
  };
  /** Everything that can be seen of a proxy that has settled. */
  const measure = async (proxy: ProxyProcess, { state, settings }: Started): Promise<object> => {
    const reachability = await Reachability.of(lab.lab, settings.settings, state);
    await lab.forgetTurnedFlows();
    const reached = await lab.probes.reach((place) => reachability.isPortal(place));
    return { ...(await lab.report(proxy)), reach: reachability.linesOf(reached) };
  };

  test.for(SEEDS)(
    'ends as a fresh one would, through 200 edits (seed %i)',
    { timeout: TIMEOUT_MS },
    async (seed) => {
      await renew(lab);
      const random = new Random(seed);
      const own = randomSettings(random);
      // Who looks every second at the rules hides what does not follow an edit; who does not, mends no foreign change.
      const hasForeignChanges = oneIn(random, 2);
      const flags = hasForeignChanges ? ['--iptables-sync-period=1s'] : [];
      const settings = { ...own, flags: [...own.flags, ...flags] };
      const state = mended(randomClusterState(random));
      const done: string[] = [];
      try {
        await using live = await start({ state, settings, mark: FIRST_MARK });
        const files = manifestFiles(state);
        const at = { state, settings, mark: FIRST_MARK };
        const run: Run = { ...at, random, lab, proxy: live, files, hasForeignChanges, done };
        await play(run);
        await write(run, mended(run.state));
        await settle(live, run.mark);
        const ofLive = await measure(live, run);
        await live.stop();
        await lab.cleanUp();
        await lab.lab.node.run(['conntrack', '-F']);

        await using fresh = await start(run);
        await settle(fresh, run.mark);
        const ofFresh = await measure(fresh, run);
        await fresh.stop();
        await lab.cleanUp();
        expect(ofLive).toEqual(ofFresh);
      } catch (error: unknown) {
        const story = done.slice(-12).join('\n  ');
        throw new Error(`KUP_TEST_SEED=${seed}, after ${done.length} steps, the last:\n  ${story}`, {
          cause: error,
        });
      }
    },
  );
});
