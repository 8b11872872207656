/**
 * A soak: traffic of every kind through Services that change all the time, and then the question whether the proxy holds
 * what it held before. For `bench/soak.ts`, and in short for the tests.
 *
 *     start ─► warm-up ─► rest ─► before ─► soak, with a sample now and then ─► rest ─► after
 *
 * What the warm-up leaves for good (compiled code, a larger heap) is no leak; so it comes first, with all that comes later.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { rejectionOf } from './load-process.ts';
import { startProxy } from './load-proxy.ts';
import {
  AFFINITY_SECONDS,
  BACKENDS,
  ID,
  passingService,
  serveSoak,
  SoakManifests,
  TIED_IP,
} from './load-soak-cluster.ts';
import { SoakTraffic, type TrafficCount } from './load-soak-traffic.ts';
import {
  type Comparison,
  compareVitals,
  isAtRest,
  readVitals,
  readVitalsWithoutGarbage,
  type Tolerance,
  type Vitals,
} from './load-vitals.ts';
import { createLab, type Lab } from './netns-lab.ts';
import type { ProxyProcess } from './proxy-process.ts';
import { waitFor } from './wait.ts';

/** So that what a UDP flow or a half-closed connection holds comes back within the run. */
const PROXY_ARGS = [
  '--udp-timeout=3s',
  '--udp-unreplied-timeout=2s',
  '--tcp-half-close-timeout=5s',
  '--max-udp-sessions=2048',
];
const CLIENTS = 3;
const AFFINITY_ENDS_MS = AFFINITY_SECONDS * 1_000 + 500;
/** Each turn changes the steady Services, and every passing Service lives for one. */
const FOLLOW_DEADLINE_MS = 20_000;

export interface SoakOptions {
  readonly seconds: number;
  readonly warmUpSeconds: number;
  readonly sampleEveryMs: number;
  /** From one turn of changes to the next, when these take less. */
  readonly changeEveryMs: number;
  /** How long vanished clients stay away; the proxy must have noticed them before. */
  readonly vanishedMs: number;
  /** How long after the load everything may take to come back. */
  readonly restMs: number;
  readonly tolerance: Tolerance;
  readonly proxyArgs?: readonly string[];
  readonly signal?: AbortSignal;
  readonly onSample?: (sample: SoakSample) => void;
}

export interface SoakSample extends Vitals {
  /** Since the beginning of the soak. */
  readonly atMs: number;
  readonly changes: number;
}

export interface SoakFigures {
  readonly before: Vitals;
  readonly after: Vitals;
  readonly comparisons: readonly Comparison[];
  readonly samples: readonly SoakSample[];
  readonly traffic: readonly TrafficCount[];
  readonly changes: number;
}

/** Whatever happens, nothing is left when it ends. */
export async function runSoak(options: SoakOptions): Promise<SoakFigures> {
  const { proxyArgs = [], signal, seconds, warmUpSeconds } = options;
  await using lab = await createLab({ pods: BACKENDS + CLIENTS });
  const manifests = new SoakManifests(lab);
  await serveSoak(manifests.pods);
  await using proxy = await startProxy(lab.node, {
    manifests: { 'steady.yaml': manifests.steady(), 'tied.yaml': manifests.tied() },
    args: [...PROXY_ARGS, ...proxyArgs],
  });
  const soak = new Soak({ lab, proxy, manifests }, options);
  const run = async (): Promise<SoakFigures> => {
    await soak.load(warmUpSeconds, () => undefined);
    const before = await soak.rest();
    const samples: SoakSample[] = [];
    const { traffic, changes } = await soak.load(seconds, (sample) => {
      samples.push(sample);
      options.onSample?.(sample);
    });
    const after = await soak.rest(before);
    const comparisons = compareVitals(before, after, options.tolerance);
    return { before, after, comparisons, samples, traffic, changes };
  };
  try {
    return await Promise.race([run(), rejectionOf(signal)]);
  } finally {
    await soak.halt();
  }
}

interface SoakParts {
  readonly lab: Lab;
  readonly proxy: ProxyProcess;
  readonly manifests: SoakManifests;
}

class Soak {
  readonly #parts: SoakParts;
  readonly #options: SoakOptions;
  /** Of all loads: a passing Service's name never comes again. */
  #turns = 0;
  #isHalted = false;
  #edit: Promise<void> = Promise.resolve();

  constructor(parts: SoakParts, options: SoakOptions) {
    this.#parts = parts;
    this.#options = options;
  }

  /** Traffic and changes for so long; resolves when all of it has ended and the manifests are at rest. */
  async load(
    seconds: number,
    onSample: (sample: SoakSample) => void,
  ): Promise<{ readonly traffic: readonly TrafficCount[]; readonly changes: number }> {
    const { lab } = this.#parts;
    const { vanishedMs, sampleEveryMs } = this.#options;
    const startMs = performance.now();
    const maxDurationMs = seconds * 1_000 + 120_000;
    const traffic = await SoakTraffic.start(lab.pods.slice(BACKENDS), { vanishedMs, maxDurationMs });
    const firstTurn = this.#turns;
    const over = new AbortController();
    const passing: Counter = { tried: 0, errors: [] };
    const changing = this.#change(passing, over.signal);
    changing.catch(() => over.abort());
    for (;;) {
      const leftMs = startMs + seconds * 1_000 - performance.now();
      if (leftMs <= 0 || over.signal.aborted) break;
      await delay(Math.min(leftMs, sampleEveryMs), undefined, { signal: over.signal }).catch(() => undefined);
      const vitals = await readVitals(this.#parts.proxy);
      onSample({ ...vitals, atMs: performance.now() - startMs, changes: this.#turns - firstTurn });
    }
    over.abort();
    await changing;
    const { tried, errors } = passing;
    const ofPassing = { kind: 'passing Services', tried, failed: errors.length, errors: errors.slice(0, 5) };
    const counts = [...(await traffic.stop()), { ...ofPassing, mayFail: false }];
    return { traffic: counts, changes: this.#turns - firstTurn };
  }

  /**
   * What the proxy holds when it has nothing to do, without garbage. Given what it held before, it waits until that is
   * so again, or `restMs` have passed.
   */
  async rest(before?: Vitals): Promise<Vitals> {
    const { lab, proxy } = this.#parts;
    const deadline = performance.now() + this.#options.restMs;
    for (;;) {
      // Ties that have run out are forgotten when somebody is tied: so one is, who is then the only one.
      await delay(AFFINITY_ENDS_MS);
      const agent = await (lab.pods[BACKENDS] ?? lab.ext).agent();
      await agent.tcpIdentify({ host: TIED_IP, port: ID.port, count: 1 });
      const vitals = await readVitalsWithoutGarbage(lab.node, proxy);
      const isBack =
        before === undefined
          ? isAtRest(vitals)
          : compareVitals(before, vitals, this.#options.tolerance).every((each) => each.isBack);
      if (isBack || performance.now() >= deadline) return vitals;
    }
  }

  /** Nothing is written to the proxy's directory when it resolves, nor later: the directory may go. */
  async halt(): Promise<void> {
    this.#isHalted = true;
    await this.#edit.catch(() => undefined);
  }

  /** Writes that manifest, or removes it. */
  async #write(file: string, text: string | undefined): Promise<void> {
    if (this.#isHalted) throw new Error('the soak was halted');
    const { proxy } = this.#parts;
    this.#edit = text === undefined ? proxy.removeManifest(file) : proxy.writeManifest(file, text);
    await this.#edit;
  }

  /** Changes turn by turn until the signal, and leaves things at rest. */
  async #change(passing: Counter, signal: AbortSignal): Promise<void> {
    const { manifests } = this.#parts;
    while (!signal.aborted) {
      const turn = this.#turns;
      this.#turns += 1;
      const next = delay(this.#options.changeEveryMs, undefined, { signal }).catch(() => undefined);
      await this.#write('steady.yaml', manifests.steady(turn));
      await this.#write('tied.yaml', manifests.tied(turn));
      await this.#pass(turn, passing);
      await next;
    }
    await this.#write('steady.yaml', manifests.steady());
    await this.#write('tied.yaml', manifests.tied());
  }

  /** A Service comes, is used, changes its ports, is used, and goes. */
  async #pass(turn: number, count: Counter): Promise<void> {
    const { lab, manifests } = this.#parts;
    const service = passingService(turn);
    const file = `${service.name}.yaml`;
    const agent = await (lab.pods[BACKENDS] ?? lab.ext).agent();
    for (const port of [1_000, 2_000]) {
      await this.#write(file, manifests.passing(service, port));
      const target = { host: service.host, port, timeoutMs: 1_000 };
      // A connection that comes before its rules do is refused or unanswered: only then does it count.
      const isThere = async (): Promise<boolean> =>
        (await agent.tcpIdentify({ ...target, count: 1 })).every(({ ok }) => ok);
      await waitFor(isThere, { timeoutMs: FOLLOW_DEADLINE_MS, what: `${service.name} at port ${port}` });
      const answers = await agent.tcpIdentify({ ...target, count: 10, concurrency: 5, timeoutMs: 10_000 });
      await agent.udpIdentify({ ...target, count: 3, sameSocket: false });
      count.tried += answers.length;
      count.errors.push(...answers.flatMap(({ ok, errno }) => (ok ? [] : [errno ?? 'UNKNOWN'])));
    }
    await this.#write(file, undefined);
  }
}

interface Counter {
  tried: number;
  readonly errors: string[];
}
