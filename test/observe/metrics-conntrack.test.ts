/** The connection tracking table as metrics. */
import { expect, test } from 'vitest';
import { sampleValue } from '../support/prometheus-text.ts';
import { MetricsFixture } from './metrics-fixture.ts';

const DELETED = 'kubeproxy_conntrack_reconciler_deleted_entries_total';
const DURATION = 'kubeproxy_conntrack_reconciler_sync_duration_seconds';
const V4 = { ip_family: 'IPv4' };
const V6 = { ip_family: 'IPv6' };

test('both families have series before anything was deleted: a rate over one that appears with 1 never sees that 1', async () => {
  const fixture = new MetricsFixture();
  for (const labels of [V4, V6]) {
    expect(sampleValue(await fixture.scrape(), DELETED, labels)).toBe(0);
    expect(sampleValue(await fixture.scrape(), `${DURATION}_count`, labels)).toBe(0);
  }
});

test('what was deleted is counted by family, and how long it took', async () => {
  const fixture = new MetricsFixture();
  fixture.metrics.flowsReconciled('IPv4', { durationSeconds: 0.003, deleted: 4 });
  fixture.metrics.flowsReconciled('IPv4', { durationSeconds: 2, deleted: 0 });
  expect(sampleValue(await fixture.scrape(), DELETED, V4)).toBe(4);
  expect(sampleValue(await fixture.scrape(), DELETED, V6)).toBe(0);
  expect(sampleValue(await fixture.scrape(), `${DURATION}_bucket`, { ...V4, le: '0.002' })).toBe(0);
  expect(sampleValue(await fixture.scrape(), `${DURATION}_bucket`, { ...V4, le: '0.004' })).toBe(1);
  expect(sampleValue(await fixture.scrape(), `${DURATION}_bucket`, { ...V4, le: '2.048' })).toBe(2);
  expect(sampleValue(await fixture.scrape(), `${DURATION}_count`, V4)).toBe(2);
});

test('how full the table is is asked at each scrape, and has no series where nobody knows', async () => {
  const fixture = new MetricsFixture();
  fixture.conntrackUse = { entries: 17, max: 262_144 };
  expect(sampleValue(await fixture.scrape(), 'userspace_proxy_conntrack_entries')).toBe(17);
  expect(sampleValue(await fixture.scrape(), 'userspace_proxy_conntrack_entries_max')).toBe(262_144);
  fixture.conntrackUse = undefined;
  expect(sampleValue(await fixture.scrape(), 'userspace_proxy_conntrack_entries')).toBeUndefined();
});
