/** kube-proxy's metrics, read back from the exported text. */
import { expect, test } from 'vitest';
import type { FamilySync } from '../../src/sync/sync-observer.ts';
import { sampleValue } from '../support/prometheus-text.ts';
import { MetricsFixture } from './metrics-fixture.ts';

const SYNC = 'kubeproxy_sync_proxy_rules';
const V4 = { ip_family: 'IPv4' };
const V6 = { ip_family: 'IPv6' };

function makeFamilySync(tweak: Partial<FamilySync> = {}): FamilySync {
  return {
    family: 'IPv4',
    kind: 'full',
    durationSeconds: 0.003,
    rulesTotal: { nat: 40, filter: 10 },
    rulesWritten: { nat: 4, filter: 1 },
    noLocalEndpoints: { internal: 0, external: 0 },
    ...tweak,
  };
}

async function boundsOf(fixture: MetricsFixture, name: string, family: string): Promise<string[]> {
  const samples = (await fixture.scrape()).get(name)?.samples ?? [];
  return samples
    .filter((sample) => sample.name === `${name}_bucket` && sample.labels['ip_family'] === family)
    .map((sample) => sample.labels['le'] ?? '');
}

test.each(['IPv4', 'IPv6'])(
  "before the first sync %s has every histogram at 0 with kube-proxy's buckets",
  async (family) => {
    const fixture = new MetricsFixture();
    const sync =
      '0.001,0.002,0.004,0.008,0.016,0.032,0.064,0.128,0.256,0.512,1.024,2.048,4.096,8.192,16.384,+Inf';
    const seconds = Array.from({ length: 59 }, (_, index) => index + 1).join();
    const programming = `0.25,0.5,${seconds},60,65,70,75,80,85,90,95,100,105,110,115,120,150,180,210,240,270,300,+Inf`;

    for (const kind of ['', '_full', '_partial']) {
      const name = `kubeproxy_sync${kind}_proxy_rules_duration_seconds`;
      expect((await boundsOf(fixture, name, family)).join()).toBe(sync);
      expect(sampleValue(await fixture.scrape(), `${name}_count`, { ip_family: family })).toBe(0);
    }
    const name = 'kubeproxy_network_programming_duration_seconds';
    expect((await boundsOf(fixture, name, family)).join()).toBe(programming);
    expect(sampleValue(await fixture.scrape(), `${name}_count`, { ip_family: family })).toBe(0);
  },
);

test('counters that alerts watch exist at 0 before their first event', async () => {
  const families = await new MetricsFixture().scrape();

  for (const labels of [V4, V6]) {
    expect(sampleValue(families, `${SYNC}_iptables_restore_failures_total`, labels)).toBe(0);
    expect(sampleValue(families, `${SYNC}_iptables_partial_restore_failures_total`, labels)).toBe(0);
  }
  for (const code of ['200', '503']) {
    expect(sampleValue(families, 'kubeproxy_proxy_healthz_total', { code })).toBe(0);
    expect(sampleValue(families, 'kubeproxy_proxy_livez_total', { code })).toBe(0);
  }
  for (const reason of ['start', 'failure', 'flush', 'jump', 'rules']) {
    expect(sampleValue(families, 'userspace_proxy_iptables_resyncs_total', { reason })).toBe(0);
  }
});

test.each([
  { kind: 'full', full: 1, partial: 0 },
  { kind: 'partial', full: 0, partial: 1 },
  { kind: 'endpoints', full: 0, partial: 1 },
] as const)(
  'a sync of kind $kind counts $full full and $partial partial',
  async ({ kind, full, partial }) => {
    const fixture = new MetricsFixture();

    fixture.metrics.familySynced(makeFamilySync({ kind, durationSeconds: 0.5 }));

    const families = await fixture.scrape();
    expect(sampleValue(families, 'kubeproxy_sync_proxy_rules_duration_seconds_count', V4)).toBe(1);
    expect(sampleValue(families, 'kubeproxy_sync_proxy_rules_duration_seconds_sum', V4)).toBe(0.5);
    expect(sampleValue(families, 'kubeproxy_sync_full_proxy_rules_duration_seconds_count', V4)).toBe(full);
    expect(sampleValue(families, 'kubeproxy_sync_partial_proxy_rules_duration_seconds_count', V4)).toBe(
      partial,
    );
    expect(sampleValue(families, 'kubeproxy_sync_proxy_rules_duration_seconds_count', V6)).toBe(0);
  },
);

test('a sync tells its time and its rules per table, and only for its family', async () => {
  const fixture = new MetricsFixture();
  fixture.wallTime = 1_800_000_000_500;

  fixture.metrics.familySynced(makeFamilySync());

  const families = await fixture.scrape();
  expect(sampleValue(families, `${SYNC}_last_timestamp_seconds`, V4)).toBe(1_800_000_000.5);
  expect(sampleValue(families, `${SYNC}_last_timestamp_seconds`, V6)).toBeUndefined();
  expect(sampleValue(families, `${SYNC}_iptables_total`, { ...V4, table: 'nat' })).toBe(40);
  expect(sampleValue(families, `${SYNC}_iptables_total`, { ...V4, table: 'filter' })).toBe(10);
  expect(sampleValue(families, `${SYNC}_iptables_last`, { ...V4, table: 'nat' })).toBe(4);
  expect(sampleValue(families, `${SYNC}_iptables_last`, { ...V4, table: 'filter' })).toBe(1);
});

test('service ports without local endpoints are a gauge by family and policy, at 0 before the first sync', async () => {
  const fixture = new MetricsFixture();
  const counts = async (): Promise<Record<string, number | undefined>> => {
    const families = await fixture.scrape();
    const of = (labels: object, policy: string): number | undefined =>
      sampleValue(families, `${SYNC}_no_local_endpoints_total`, { ...labels, traffic_policy: policy });
    return {
      internal4: of(V4, 'internal'),
      external4: of(V4, 'external'),
      internal6: of(V6, 'internal'),
      external6: of(V6, 'external'),
    };
  };
  expect(await counts()).toEqual({ internal4: 0, external4: 0, internal6: 0, external6: 0 });
  expect((await fixture.scrape()).get(`${SYNC}_no_local_endpoints_total`)?.type).toBe('gauge');

  fixture.metrics.familySynced(makeFamilySync({ noLocalEndpoints: { internal: 2, external: 3 } }));
  expect(await counts()).toEqual({ internal4: 2, external4: 3, internal6: 0, external6: 0 });

  fixture.metrics.familySynced(makeFamilySync({ noLocalEndpoints: { internal: 0, external: 1 } }));
  expect(await counts()).toEqual({ internal4: 0, external4: 1, internal6: 0, external6: 0 });
});

test('a family that the node does not program has no count of service ports without local endpoints', async () => {
  const fixture = new MetricsFixture();

  fixture.metrics.setFamilies(['IPv4']);

  const samples = (await fixture.scrape()).get(`${SYNC}_no_local_endpoints_total`)?.samples ?? [];
  expect(samples.map(({ labels, value }) => ({ ...labels, value }))).toEqual([
    { ...V4, traffic_policy: 'internal', value: 0 },
    { ...V4, traffic_policy: 'external', value: 0 },
  ]);
});

test('a queued change tells its time for the families that the node programs, and no others', async () => {
  const fixture = new MetricsFixture();
  fixture.wallTime = 1_800_000_001_000;
  fixture.metrics.updateQueued();
  expect(sampleValue(await fixture.scrape(), `${SYNC}_last_queued_timestamp_seconds`, V6)).toBe(
    1_800_000_001,
  );

  fixture.metrics.setFamilies(['IPv4']);
  fixture.wallTime = 1_800_000_002_000;
  fixture.metrics.updateQueued();

  const families = await fixture.scrape();
  expect(sampleValue(families, `${SYNC}_last_queued_timestamp_seconds`, V4)).toBe(1_800_000_002);
  expect(sampleValue(families, `${SYNC}_last_queued_timestamp_seconds`, V6)).toBeUndefined();
});

test('changes are pending until a sync has succeeded, and counted for ever', async () => {
  const fixture = new MetricsFixture();
  fixture.metrics.servicesChanged(2);
  fixture.metrics.endpointSlicesChanged(3);
  const before = await fixture.scrape();

  fixture.metrics.syncStarted();
  fixture.metrics.syncSucceeded();
  fixture.metrics.servicesChanged(1);
  const after = await fixture.scrape();

  expect(sampleValue(before, `${SYNC}_service_changes_pending`)).toBe(2);
  expect(sampleValue(before, `${SYNC}_endpoint_changes_pending`)).toBe(3);
  expect(sampleValue(after, `${SYNC}_service_changes_pending`)).toBe(1);
  expect(sampleValue(after, `${SYNC}_service_changes_total`)).toBe(3);
  expect(sampleValue(after, `${SYNC}_endpoint_changes_pending`)).toBe(0);
  expect(sampleValue(after, `${SYNC}_endpoint_changes_total`)).toBe(3);
});

test('a change that came during a pass stays pending when that pass ends well', async () => {
  const fixture = new MetricsFixture();
  fixture.metrics.servicesChanged(2);
  fixture.metrics.endpointSlicesChanged(3);
  fixture.metrics.syncStarted();

  fixture.metrics.servicesChanged(5);
  fixture.metrics.endpointSlicesChanged(7);
  fixture.metrics.syncSucceeded();
  const after = await fixture.scrape();
  fixture.metrics.syncStarted();
  fixture.metrics.syncSucceeded();
  const next = await fixture.scrape();

  expect(sampleValue(after, `${SYNC}_service_changes_pending`)).toBe(5);
  expect(sampleValue(after, `${SYNC}_endpoint_changes_pending`)).toBe(7);
  expect(sampleValue(next, `${SYNC}_service_changes_pending`)).toBe(0);
  expect(sampleValue(next, `${SYNC}_endpoint_changes_pending`)).toBe(0);
  expect(sampleValue(next, `${SYNC}_service_changes_total`)).toBe(7);
});

test('a pass that fails serves nothing, and the next one serves what it had taken up', async () => {
  const fixture = new MetricsFixture();
  fixture.metrics.servicesChanged(2);
  fixture.metrics.syncStarted();
  fixture.metrics.servicesChanged(1);

  fixture.metrics.syncStarted();
  const during = await fixture.scrape();
  fixture.metrics.syncSucceeded();

  expect(sampleValue(during, `${SYNC}_service_changes_pending`)).toBe(3);
  expect(sampleValue(await fixture.scrape(), `${SYNC}_service_changes_pending`)).toBe(0);
});

test('a sync of one family alone leaves changes pending', async () => {
  const fixture = new MetricsFixture();
  fixture.metrics.servicesChanged(1);

  fixture.metrics.familySynced(makeFamilySync());

  expect(sampleValue(await fixture.scrape(), `${SYNC}_service_changes_pending`)).toBe(1);
});

test.each([
  { kind: 'full', partial: 0 },
  { kind: 'partial', partial: 1 },
] as const)(
  'a failed $kind restore counts as a failure, and $partial times as a partial one',
  async ({ kind, partial }) => {
    const fixture = new MetricsFixture();

    fixture.metrics.restoreFailed('IPv6', kind);

    const families = await fixture.scrape();
    expect(sampleValue(families, `${SYNC}_iptables_restore_failures_total`, V6)).toBe(1);
    expect(sampleValue(families, `${SYNC}_iptables_partial_restore_failures_total`, V6)).toBe(partial);
    expect(sampleValue(families, `${SYNC}_iptables_restore_failures_total`, V4)).toBe(0);
  },
);

test('rules of others before our jumps are shown for each built-in chain, until they are gone', async () => {
  const fixture = new MetricsFixture();
  const at = { table: 'filter', hook: 'INPUT' } as const;
  const name = 'userspace_proxy_iptables_rules_ahead';
  const labels = { ip_family: 'IPv4', table: 'filter', chain: 'INPUT' };

  fixture.metrics.rulesAhead('IPv4', [{ ...at, count: 3, first: '-j cali-INPUT' }]);
  expect(sampleValue(await fixture.scrape(), name, labels)).toBe(3);

  fixture.metrics.rulesAhead('IPv4', [{ ...at, count: 0, first: '' }]);
  expect(sampleValue(await fixture.scrape(), name, labels)).toBe(0);
});

test('resyncs count by their reason, network programming by its family', async () => {
  const fixture = new MetricsFixture();

  fixture.metrics.resynced('flush');
  fixture.metrics.networkProgrammed('IPv6', 0.4);

  const families = await fixture.scrape();
  const programming = 'kubeproxy_network_programming_duration_seconds';
  expect(sampleValue(families, 'userspace_proxy_iptables_resyncs_total', { reason: 'flush' })).toBe(1);
  expect(sampleValue(families, 'userspace_proxy_iptables_resyncs_total', { reason: 'start' })).toBe(0);
  expect(sampleValue(families, `${programming}_bucket`, { ...V6, le: '0.25' })).toBe(0);
  expect(sampleValue(families, `${programming}_bucket`, { ...V6, le: '0.5' })).toBe(1);
});
