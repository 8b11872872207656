/** kube-proxy's TestHealthzServer and TestLivezServer (`pkg/proxy/healthcheck/healthcheck_test.go`), as they apply. */
import { describe, expect, test } from 'vitest';
import { NodeHealth, type NodeHealthReport } from '../../src/health/node-health.ts';
import type { IpFamily } from '../../src/model/address.ts';

const TIMEOUT_MS = 10_000;
const START = Date.UTC(2026, 10, 21);

/** A pass that ends well. */
function sync(health: NodeHealth): void {
  health.syncStarted();
  health.syncSucceeded();
}

class Fixture {
  #elapsed = 0;
  /** How far the time of day stands from the monotonic clock. */
  wallOffset = START;
  readonly health: NodeHealth;

  /** Without a Node object unless told. */
  constructor({ hasNodeObject = false } = {}) {
    const clock = { now: () => this.#elapsed, wallTime: () => this.wallOffset + this.#elapsed };
    this.health = new NodeHealth({ clock }, { timeoutMs: TIMEOUT_MS, hasNodeObject });
  }

  step(seconds: number): void {
    this.#elapsed += seconds * 1000;
  }

  get wallTime(): number {
    return this.wallOffset + this.#elapsed;
  }

  get verdict(): Pick<NodeHealthReport, 'healthy' | 'alive'> & { ready: boolean } {
    const { healthy, alive } = this.health.report();
    return { healthy, alive, ready: this.health.isReady() };
  }
}

type Step = (fixture: Fixture) => void;
const queued: Step = ({ health }) => health.updateQueued();
const passBegun: Step = ({ health }) => health.syncStarted();
const passEnded: Step = ({ health }) => health.syncSucceeded();
const synced: Step = ({ health }) => sync(health);
const stop: Step = ({ health }) => health.stop();
const eligible: Step = ({ health }) => health.setNodeEligible(true);
const ineligible: Step = ({ health }) => health.setNodeEligible(false);
const after =
  (seconds: number): Step =>
  (fixture) =>
    fixture.step(seconds);

const HEALTHY = { healthy: true, alive: true };
const LATE = { healthy: false, alive: false };

test.each<{ name: string; steps: Step[]; verdict: { healthy: boolean; alive: boolean; ready: boolean } }>([
  { name: 'at the start it is healthy but not ready', steps: [], verdict: { ...HEALTHY, ready: false } },
  {
    name: 'with its first change just queued it is healthy but not ready',
    steps: [queued],
    verdict: { ...HEALTHY, ready: false },
  },
  {
    name: 'without a first sync within the time-out it is unhealthy',
    steps: [queued, after(25)],
    verdict: { ...LATE, ready: false },
  },
  {
    name: 'after the first sync it is healthy and ready',
    steps: [synced],
    verdict: { ...HEALTHY, ready: true },
  },
  {
    name: 'it stays healthy for as long as no change is queued',
    steps: [synced, after(25)],
    verdict: { ...HEALTHY, ready: true },
  },
  {
    name: 'a change that waits just short of the time-out leaves it healthy',
    steps: [synced, queued, after(9.999)],
    verdict: { ...HEALTHY, ready: true },
  },
  {
    name: 'a change that waits for the time-out makes it unhealthy',
    steps: [synced, queued, after(10)],
    verdict: { ...LATE, ready: false },
  },
  {
    name: 'the oldest waiting change counts, not the newest',
    steps: [synced, queued, after(9), queued, after(1)],
    verdict: { ...LATE, ready: false },
  },
  {
    name: 'a late sync makes it healthy again',
    steps: [synced, queued, after(25), synced, after(5)],
    verdict: { ...HEALTHY, ready: true },
  },
  {
    name: 'a change queued after a sync waits for itself alone',
    steps: [synced, queued, after(9), synced, queued, after(9)],
    verdict: { ...HEALTHY, ready: true },
  },
  {
    name: 'a change queued during a pass keeps its age when that pass ends well',
    steps: [synced, passBegun, after(1), queued, after(8), passEnded, after(2)],
    verdict: { ...LATE, ready: false },
  },
  {
    name: 'a change queued during a pass is served by the next one',
    steps: [synced, passBegun, queued, after(9), passEnded, synced, after(9)],
    verdict: { ...HEALTHY, ready: true },
  },
  {
    name: 'a change that a failed pass took up keeps its age',
    steps: [synced, queued, after(6), passBegun, after(2), passBegun, after(2)],
    verdict: { ...LATE, ready: false },
  },
  {
    name: 'a newer change than the one a failed pass took up does not make it younger',
    steps: [synced, queued, passBegun, after(6), queued, passBegun, after(4)],
    verdict: { ...LATE, ready: false },
  },
  {
    name: 'a pass that ends well serves what the failed passes before it had taken up',
    steps: [synced, queued, after(6), passBegun, after(2), passBegun, passEnded, after(9)],
    verdict: { ...HEALTHY, ready: true },
  },
  {
    name: 'a pass that lasts longer than the time-out makes it unhealthy until it ends',
    steps: [synced, queued, passBegun, after(25)],
    verdict: { ...LATE, ready: false },
  },
  {
    name: 'it falls ill a second time',
    steps: [synced, queued, after(25), synced, queued, after(25)],
    verdict: { ...LATE, ready: false },
  },
  {
    name: 'once stopped it is unhealthy and not ready, but alive',
    steps: [synced, stop],
    verdict: { healthy: false, alive: true, ready: false },
  },
  {
    name: 'a sync after the stop does not make it healthy',
    steps: [synced, stop, queued, synced],
    verdict: { healthy: false, alive: true, ready: false },
  },
  {
    name: 'stopped with a late change it is not alive either',
    steps: [synced, stop, queued, after(25)],
    verdict: { ...LATE, ready: false },
  },
])('$name', ({ steps, verdict }) => {
  const fixture = new Fixture();

  for (const step of steps) step(fixture);

  expect(fixture.verdict).toEqual(verdict);
});

test.each<{ name: string; steps: Step[]; isProxyHealthy: boolean }>([
  { name: 'well before the first sync', steps: [], isProxyHealthy: true },
  { name: 'well on a node that is not eligible', steps: [ineligible, synced], isProxyHealthy: true },
  {
    name: 'ill when a change waits too long',
    steps: [eligible, synced, queued, after(25)],
    isProxyHealthy: false,
  },
  {
    name: 'well again after a late sync',
    steps: [eligible, queued, after(25), synced],
    isProxyHealthy: true,
  },
  { name: 'ill once stopped', steps: [eligible, synced, stop], isProxyHealthy: false },
  {
    name: 'ill once stopped, whatever is synced',
    steps: [eligible, stop, queued, synced],
    isProxyHealthy: false,
  },
])('health check node ports call the proxy $name', ({ steps, isProxyHealthy }) => {
  const fixture = new Fixture({ hasNodeObject: true });

  for (const step of steps) step(fixture);

  expect(fixture.health.isProxyHealthy()).toBe(isProxyHealthy);
});

test('the node is eligible until the stop', () => {
  const { health } = new Fixture();
  expect(health.report().nodeEligible).toBe(true);

  health.stop();

  expect(health.report().nodeEligible).toBe(false);
});

const UNWANTED = { healthy: false, alive: true };

describe('with a Node object', () => {
  test.each<{ name: string; steps: Step[]; verdict: { healthy: boolean; alive: boolean; ready: boolean } }>([
    {
      name: 'that nobody has told of yet it is alive, and load balancers are kept away',
      steps: [],
      verdict: { ...UNWANTED, ready: false },
    },
    {
      name: 'that may take traffic it is healthy',
      steps: [eligible, synced],
      verdict: { ...HEALTHY, ready: true },
    },
    {
      name: 'that may not, it is alive and ready all the same',
      steps: [ineligible, synced],
      verdict: { ...UNWANTED, ready: true },
    },
    {
      name: 'that may no longer, it is alive and ready all the same',
      steps: [eligible, synced, ineligible],
      verdict: { ...UNWANTED, ready: true },
    },
    {
      name: 'that may again it is healthy again',
      steps: [eligible, synced, ineligible, eligible],
      verdict: { ...HEALTHY, ready: true },
    },
    {
      name: 'that may take traffic it is still unhealthy when a change waits too long',
      steps: [eligible, synced, queued, after(25)],
      verdict: { ...LATE, ready: false },
    },
    {
      name: 'that may take traffic it is still unhealthy once stopped',
      steps: [eligible, synced, stop, eligible],
      verdict: { ...UNWANTED, ready: false },
    },
  ])('$name', ({ steps, verdict }) => {
    const fixture = new Fixture({ hasNodeObject: true });

    for (const step of steps) step(fixture);

    expect(fixture.verdict).toEqual(verdict);
  });

  test('the report tells an ineligible node from a proxy that is late', () => {
    const fixture = new Fixture({ hasNodeObject: true });
    sync(fixture.health);

    fixture.health.setNodeEligible(false);
    fixture.step(3600);

    const report = fixture.health.report();
    expect(report).toMatchObject({ healthy: false, alive: true, nodeEligible: false });
    expect(report.lastUpdated).toBe(fixture.wallTime);
    expect(report.status).toMatchObject({ IPv4: { healthy: true }, IPv6: { healthy: true } });
  });
});

test('while healthy the last update is now, also long after the last sync', () => {
  const fixture = new Fixture();
  sync(fixture.health);
  fixture.step(3600);

  const report = fixture.health.report();

  expect(report.lastUpdated).toBe(fixture.wallTime);
  expect(report.currentTime).toBe(fixture.wallTime);
});

test('while unhealthy the last update is that of the last sync', () => {
  const fixture = new Fixture();
  fixture.step(5);
  sync(fixture.health);
  const syncedAt = fixture.wallTime;
  fixture.step(60);
  fixture.health.updateQueued();
  fixture.step(25);

  const report = fixture.health.report();

  expect(report.lastUpdated).toBe(syncedAt);
  expect(report.currentTime).toBe(fixture.wallTime);
  expect(report.status.IPv4).toEqual({ healthy: false, lastUpdated: syncedAt });
});

test('unhealthy without any sync, the last update is 0', () => {
  const fixture = new Fixture();
  fixture.health.updateQueued();
  fixture.step(25);

  expect(fixture.health.report().lastUpdated).toBe(0);
});

test('a time of day that jumps changes no verdict', () => {
  const fixture = new Fixture();
  sync(fixture.health);
  fixture.health.updateQueued();

  fixture.wallOffset += 86_400_000;
  expect(fixture.verdict).toEqual({ ...HEALTHY, ready: true });

  fixture.wallOffset -= 2 * 86_400_000;
  fixture.step(25);
  expect(fixture.verdict).toEqual({ ...LATE, ready: false });
});

test.each<{ families: readonly IpFamily[]; names: string[] }>([
  { families: ['IPv4'], names: ['IPv4'] },
  { families: ['IPv6'], names: ['IPv6'] },
  { families: ['IPv4', 'IPv6'], names: ['IPv4', 'IPv6'] },
])('a node that programs $families reports these and no others', ({ families, names }) => {
  const { health } = new Fixture();

  health.setFamilies(families);

  expect(Object.keys(health.report().status)).toEqual(names);
});

test('a family that the node no longer programs cannot make it unhealthy', () => {
  const fixture = new Fixture();
  fixture.health.updateQueued();
  fixture.health.setFamilies(['IPv4']);
  sync(fixture.health);
  fixture.step(25);

  expect(fixture.verdict).toEqual({ ...HEALTHY, ready: true });
});

test('a family that the node still programs can', () => {
  const fixture = new Fixture();
  fixture.health.setFamilies(['IPv4']);
  sync(fixture.health);
  fixture.health.updateQueued();
  fixture.step(25);

  expect(fixture.verdict).toEqual({ ...LATE, ready: false });
});
