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
import type { Place } from '../../support/random-edits-probes.ts';
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
/** A proxy that does nothing more for so long has settled: longer than the grace period of a listener. */
const QUIET_MS = 1_200;
/** Of the Service whose port says up to which edit the rules have come. */
const MARKER_IP = '10.96.200.1';
const FIRST_MARK = 1_000;

/** A proxy with the files it reads. */
interface Run {
  readonly random: Random;
  readonly lab: EditsLab;
  readonly settings: RandomSettings;
  readonly proxy: ProxyProcess;
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

async function isMarked({ proxy }: Pick<Run, 'proxy'>, mark: number): Promise<boolean> {
  const rules = await proxy.rules('IPv4');
  return rules.some((rule) => rule.includes(` -d ${MARKER_IP}/32 `) && rule.includes(` --dport ${mark} `));
}

async function settle(run: Pick<Run, 'proxy'>, mark: number): Promise<void> {
  await waitFor(async () => isMarked(run, mark), { timeoutMs: 10_000, what: `rules with mark ${mark}` });
  const { proxy } = run;
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
async function disturb({ random, lab: { lab }, done }: Run): Promise<void> {
  const { node } = lab;
  const kind = random.below(12);
  if (kind === 0) {
    done.push('somebody flushes a chain');
    await node.run(['iptables', '-w', '5', '-t', 'nat', '-F', 'USERSPACE-PROXY-SERVICES']);
  } else if (kind === 1) {
    done.push('an address comes or goes');
    const [address, prefix] = random.pick([
      ['10.9.7.1', 32],
      ['fd09:7::1', 128],
    ] as const);
    const listed = await node.run(['ip', '-br', 'address', 'show', 'dev', 'eth9']);
    const cidr = `${address}/${prefix}`;
    if (listed.includes(cidr)) await node.removeAddress(cidr, 'eth9');
    else await node.addAddress(cidr, 'eth9');
  }
}

async function play(run: Run): Promise<void> {
  const { random, lab, done } = run;
  let edits = 0;
  while (edits < EDITS) {
    const burst = Math.min(random.pick(BURSTS), EDITS - edits);
    for (let count = 0; count < burst; count += 1) {
      const edit = randomEdit(random, run.state);
      done.push(edit.what);
      await write(run, edit.state);
    }
    edits += burst;
    await disturb(run);
    if (oneIn(random, 2)) await lab.probes.stir();
    if (oneIn(random, 2)) await waitForRead(run);
  }
}

/** The rules may still be on their way then, and the next edit meets them there. */
async function waitForRead(run: Run): Promise<void> {
  await waitFor(async () => isMarked(run, run.mark), {
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

  const start = async (
    state: ClusterState,
    flags: readonly string[],
    mark: number,
  ): Promise<ProxyProcess> => {
    const files = Object.fromEntries([...manifestFiles(state), ['marker.yaml', markerText(mark)]]);
    const args = [...flags, '--iptables-sync-period=1s'];
    return ProxyProcess.start(lab.lab.node, { manifests: files, nodeName: OWN_NODE, args });
  };

  test.for(SEEDS)(
    'ends as a fresh one would, through 200 edits (seed %i)',
    { timeout: TIMEOUT_MS },
    async (seed) => {
      const random = new Random(seed);
      const settings = randomSettings(random);
      const state = mended(randomClusterState(random));
      const done: string[] = [];
      try {
        await using live = await start(state, settings.flags, FIRST_MARK);
        const files = manifestFiles(state);
        const run: Run = { random, lab, settings, proxy: live, files, state, mark: FIRST_MARK, done };
        await play(run);
        await write(run, mended(run.state));
        await settle(run, run.mark);
        const reachability = await Reachability.of(lab.lab, settings.settings, run.state);
        const isPortal = (place: Place): boolean => reachability.isPortal(place);
        const ofLive = {
          ...(await lab.report(live)),
          reach: reachability.linesOf(await lab.probes.reach(isPortal)),
        };
        await live.stop();
        await lab.cleanUp();

        await using fresh = await start(run.state, settings.flags, run.mark);
        await settle({ proxy: fresh }, run.mark);
        const ofFresh = {
          ...(await lab.report(fresh)),
          reach: reachability.linesOf(await lab.probes.reach(isPortal)),
        };
        await fresh.stop();
        await lab.cleanUp();
        expect(ofLive).toEqual(ofFresh);
      } catch (error: unknown) {
        const story = done.slice(-12).join('\n  ');
        throw new Error(`KUP_TEST_SEED=${seed}, after ${done.length} edits, the last:\n  ${story}`, {
          cause: error,
        });
      }
    },
  );
});
