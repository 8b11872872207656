/** Everything is read back from the exported text, strictly parsed. */
import type { V1Service } from '@kubernetes/client-node';
import { expect, test } from 'vitest';
import { PROBLEM_CODES } from '../../src/errors.ts';
import { SnapshotBuilder } from '../../src/model/snapshot.ts';
import {
  EVENT_TYPES,
  LIST_REASONS,
  RESOURCE_NAMES,
  increment,
} from '../../src/sources/kubernetes/api-statistics.ts';
import { ProblemLog } from '../../src/sync/problem-log.ts';
import { makeService } from '../support/objects.ts';
import { sampleValue } from '../support/prometheus-text.ts';
import { RecordingLogger } from '../support/recording-logger.ts';
import { MetricsFixture } from './metrics-fixture.ts';

const WEB = { namespace: 'default', service: 'web', port: 'http', protocol: 'TCP', ip_family: 'IPv4' };

test('a registry in which nothing has happened is valid text and has no series of a service port', async () => {
  const fixture = new MetricsFixture();

  const families = await fixture.scrape();

  expect(families.get('userspace_proxy_connections_total')?.samples).toEqual([]);
  expect(fixture.metrics.contentType).toBe('text/plain; version=0.0.4; charset=utf-8');
});

test('a used service port shows everything that was counted for it', async () => {
  const fixture = new MetricsFixture();
  const web = fixture.addServicePort();
  web.sessionsTotal = 10;
  web.sessionsActive = 3;
  web.bytesToBackend = 1000;
  web.bytesFromBackend = 2000;
  web.dialRetries = 4;
  web.dials.ok = 9;
  web.dials.timeout = 5;
  web.failures.exhausted = 1;
  web.closes.clientReset = 2;
  web.affinityEntries = 6;
  web.affinityEvictions = 7;

  const families = await fixture.scrape();
  const value = (name: string, labels: Record<string, string> = {}): number | undefined =>
    sampleValue(families, `userspace_proxy_${name}`, { ...WEB, ...labels });

  expect(value('connections_total')).toBe(10);
  expect(value('connections_active')).toBe(3);
  expect(value('connection_bytes_total', { direction: 'to_backend' })).toBe(1000);
  expect(value('connection_bytes_total', { direction: 'from_backend' })).toBe(2000);
  expect(value('dial_retries_total')).toBe(4);
  expect(value('dials_total', { result: 'ok' })).toBe(9);
  expect(value('dials_total', { result: 'timeout' })).toBe(5);
  expect(value('dials_total', { result: 'refused' })).toBe(0);
  expect(value('connection_failures_total', { reason: 'exhausted' })).toBe(1);
  expect(value('connection_failures_total', { reason: 'no_endpoints' })).toBe(0);
  expect(value('connection_closes_total', { cause: 'client_reset' })).toBe(2);
  expect(value('connection_closes_total', { cause: 'clientReset' })).toBeUndefined();
  expect(value('affinity_entries')).toBe(6);
  expect(value('affinity_evictions_total')).toBe(7);
});

test('an unused service port shows its connections and failures at 0, and no more', async () => {
  const fixture = new MetricsFixture();
  fixture.addServicePort();

  const families = await fixture.scrape();

  expect(sampleValue(families, 'userspace_proxy_connections_total', WEB)).toBe(0);
  expect(sampleValue(families, 'userspace_proxy_connections_active', WEB)).toBe(0);
  expect(
    sampleValue(families, 'userspace_proxy_connection_failures_total', { ...WEB, reason: 'exhausted' }),
  ).toBe(0);
  expect(families.get('userspace_proxy_dials_total')?.samples).toEqual([]);
});

test('service ports are told apart by protocol and by family', async () => {
  const fixture = new MetricsFixture();
  fixture.addServicePort().sessionsTotal = 1;
  fixture.addServicePort((name) => (name.protocol = 'UDP')).sessionsTotal = 2;
  fixture.addServicePort(undefined, 'IPv6').sessionsTotal = 3;
  fixture.addServicePort((name) => (name.port = '')).sessionsTotal = 4;

  const families = await fixture.scrape();
  const of = (labels: object): number | undefined =>
    sampleValue(families, 'userspace_proxy_connections_total', { ...WEB, ...labels });

  expect(of({})).toBe(1);
  expect(of({ protocol: 'UDP' })).toBe(2);
  expect(of({ ip_family: 'IPv6' })).toBe(3);
  expect(of({ port: '' })).toBe(4);
});

test('the series of a service port vanish with it, and those of the others stay', async () => {
  const fixture = new MetricsFixture();
  fixture.addServicePort().sessionsTotal = 1;
  fixture.addServicePort((name) => (name.name = 'api')).sessionsTotal = 2;
  expect(await fixture.metrics.render()).toContain('service="web"');

  fixture.servicePorts.shift();

  const text = await fixture.metrics.render();
  expect(text).not.toContain('service="web"');
  expect(text).toContain('service="api"');
});

test('a label value with quotes, backslashes and newlines still gives valid text', async () => {
  const fixture = new MetricsFixture();
  fixture.addServicePort((name) => (name.namespace = 'a"b\\c\nd')).sessionsTotal = 1;

  const families = await fixture.scrape();

  const labels = { ...WEB, namespace: 'a"b\\c\nd' };
  expect(sampleValue(families, 'userspace_proxy_connections_total', labels)).toBe(1);
});

test('plain histogram counts come out as cumulative buckets with sum and count', async () => {
  const fixture = new MetricsFixture();
  for (const seconds of [0.0005, 0.001, 0.3, 100]) fixture.dialDuration.observe(seconds);
  fixture.sessionDuration.observe(30);

  const families = await fixture.scrape();
  const dial = (suffix: string, labels: Record<string, string> = {}): number | undefined =>
    sampleValue(families, `userspace_proxy_dial_duration_seconds_${suffix}`, labels);

  expect(families.get('userspace_proxy_dial_duration_seconds')?.type).toBe('histogram');
  expect(dial('bucket', { le: '0.001' })).toBe(2);
  expect(dial('bucket', { le: '0.25' })).toBe(2);
  expect(dial('bucket', { le: '0.5' })).toBe(3);
  expect(dial('bucket', { le: '5' })).toBe(3);
  expect(dial('bucket', { le: '+Inf' })).toBe(4);
  expect(dial('count')).toBe(4);
  expect(dial('sum')).toBeCloseTo(100.3015, 9);
  expect(sampleValue(families, 'userspace_proxy_connection_duration_seconds_bucket', { le: '86400' })).toBe(
    1,
  );
});

test('engine totals and the inventory are exported under their names', async () => {
  const fixture = new MetricsFixture();
  fixture.engine = {
    datagramsIn: 1,
    datagramsOut: 2,
    datagramsDropped: 3,
    flowControlPauses: 4,
    listenerErrors: 5,
  };
  fixture.inventory = {
    listeners: 5,
    proxyPorts: 6,
    draining: 7,
    isStopping: true,
    listenersMissing: 3,
    problemsByCode: { ERR_SERVICE_CONFLICT: 8 },
    manifestErrors: 9,
    unusableInterfaces: 10,
    healthCheckServers: { listening: 11, failed: 12 },
    ownership: { isOwner: true, generation: 13, changes: 14 },
  };

  const families = await fixture.scrape();
  const value = (name: string, labels: Record<string, string> = {}): number | undefined =>
    sampleValue(families, `userspace_proxy_${name}`, labels);

  expect(value('udp_datagrams_total', { direction: 'to_backend' })).toBe(1);
  expect(value('udp_datagrams_total', { direction: 'from_backend' })).toBe(2);
  expect(value('udp_dropped_total')).toBe(3);
  expect(value('flow_control_paused_total')).toBe(4);
  expect(value('listeners')).toBe(5);
  expect(value('proxy_ports_allocated')).toBe(6);
  expect(value('listeners_draining')).toBe(7);
  expect(value('stopping')).toBe(1);
  expect(value('listeners_missing')).toBe(3);
  expect(value('listener_errors_total')).toBe(5);
  expect(value('invalid_objects', { code: 'ERR_SERVICE_CONFLICT' })).toBe(8);
  expect(value('invalid_objects', { code: 'ERR_SERVICE_INVALID' })).toBe(0);
  expect(families.get('userspace_proxy_invalid_objects')?.samples).toHaveLength(PROBLEM_CODES.length);
  expect(value('manifest_errors')).toBe(9);
  expect(value('interfaces_without_address')).toBe(10);
  expect(value('health_check_servers', { state: 'listening' })).toBe(11);
  expect(value('health_check_servers', { state: 'failed' })).toBe(12);
  expect(value('owner')).toBe(1);
  expect(value('rules_generation')).toBe(13);
  expect(value('ownership_changes_total')).toBe(14);
});

test('a port that is skipped because it wants SCTP is counted under its code until it has gone', async () => {
  const fixture = new MetricsFixture();
  const problems = new ProblemLog(new RecordingLogger());
  const builder = new SnapshotBuilder();
  const counted = async (...services: V1Service[]): Promise<number | undefined> => {
    problems.update(builder.build({ services, endpointSlices: [] }).problems);
    fixture.inventory = { ...fixture.inventory, problemsByCode: problems.countByCode() };
    const labels = { code: 'ERR_SERVICE_UNSUPPORTED' };
    return sampleValue(await fixture.scrape(), 'userspace_proxy_invalid_objects', labels);
  };
  const skipped = makeService('web', ({ spec }) =>
    spec.ports?.push({ name: 'sctp', port: 7, protocol: 'SCTP' }),
  );

  expect(await counted(skipped)).toBe(1);
  expect(await counted(makeService('web'))).toBe(0);
});

test('what is known of each resource of the API server is exported', async () => {
  const fixture = new MetricsFixture();
  const services = fixture.api.of('services');
  services.isSynced = true;
  services.isWatching = true;
  services.lastContactAt = 1_800_000_000_500;
  services.watches = 3;
  increment(services.lists, 'initial');
  increment(services.lists, 'expired');
  increment(services.events, 'BOOKMARK');
  increment(services.failures, 'ERR_API_STALLED');
  fixture.api.of('nodes').downSince = 1_800_000_001_250;

  const families = await fixture.scrape();
  const value = (name: string, labels: Record<string, string>): number | undefined =>
    sampleValue(families, `userspace_proxy_api_${name}`, labels);
  const of = { resource: 'services' };

  expect(value('synced', of)).toBe(1);
  expect(value('watch_up', of)).toBe(1);
  expect(value('last_contact_timestamp_seconds', of)).toBe(1_800_000_000.5);
  expect(value('down_since_timestamp_seconds', of)).toBe(0);
  expect(value('down_since_timestamp_seconds', { resource: 'nodes' })).toBe(1_800_000_001.25);
  expect(value('watches_total', of)).toBe(3);
  expect(value('lists_total', { ...of, reason: 'initial' })).toBe(1);
  expect(value('lists_total', { ...of, reason: 'expired' })).toBe(1);
  expect(value('watch_events_total', { ...of, type: 'BOOKMARK' })).toBe(1);
  expect(value('failures_total', { ...of, code: 'ERR_API_STALLED' })).toBe(1);
  expect(value('synced', { resource: 'endpointslices' })).toBe(0);
});

test('before the API server has said anything, what alerts watch is there at 0 for every resource', async () => {
  const families = await new MetricsFixture().scrape();

  for (const resource of RESOURCE_NAMES) {
    const value = (name: string, labels: Record<string, string> = {}): number | undefined =>
      sampleValue(families, `userspace_proxy_api_${name}`, { resource, ...labels });
    for (const name of ['synced', 'watch_up', 'watches_total']) expect(value(name)).toBe(0);
    expect(value('last_contact_timestamp_seconds')).toBe(0);
    expect(value('down_since_timestamp_seconds')).toBe(0);
    for (const reason of LIST_REASONS) expect(value('lists_total', { reason })).toBe(0);
    for (const type of EVENT_TYPES) expect(value('watch_events_total', { type })).toBe(0);
  }
});

test("requests to API servers have client-go's name, and are told apart by server and by answer", async () => {
  const fixture = new MetricsFixture();
  for (const code of ['200', '200', '503', '<error>']) fixture.api.requestEnded('10.0.0.1:6443', code);
  fixture.api.requestEnded('10.0.0.2:6443', '200');

  const families = await fixture.scrape();
  const value = (host: string, code: string): number | undefined =>
    sampleValue(families, 'rest_client_requests_total', { host, code, method: 'GET' });

  expect(value('10.0.0.1:6443', '200')).toBe(2);
  expect(value('10.0.0.1:6443', '503')).toBe(1);
  expect(value('10.0.0.1:6443', '<error>')).toBe(1);
  expect(value('10.0.0.2:6443', '200')).toBe(1);
  expect(value('10.0.0.2:6443', '503')).toBeUndefined();
});

test('with manifests instead of an API server, its families exist and have no series', async () => {
  const fixture = new MetricsFixture({ hasApi: false });

  const families = await fixture.scrape();

  const own = [...families.values()].filter(({ name }) => /^userspace_proxy_api_|^rest_client_/.test(name));
  expect(own).toHaveLength(9);
  expect(own.flatMap(({ samples }) => samples)).toEqual([]);
});

test('build info, which names the engine, and the process metrics are there', async () => {
  const families = await new MetricsFixture().scrape();

  const labels = { version: '1.2.3', node: process.version, engine: 'native' };
  expect(sampleValue(families, 'userspace_proxy_build_info', labels)).toBe(1);
  expect(sampleValue(families, 'process_open_fds')).toBeGreaterThan(0);
  expect(sampleValue(families, 'process_max_fds')).toBeGreaterThan(0);
  expect(sampleValue(families, 'process_resident_memory_bytes')).toBeGreaterThan(0);
  expect(sampleValue(families, 'process_cpu_seconds_total')).toBeGreaterThan(0);
});

test('one scrape takes one reading, and the next scrape another', async () => {
  const fixture = new MetricsFixture();

  await fixture.scrape();
  expect(fixture.readings).toBe(1);

  await Promise.all([fixture.scrape(), fixture.scrape()]);
  expect(fixture.readings).toBe(3);
});

test('a dependency that throws fails that scrape only', async () => {
  const fixture = new MetricsFixture();
  fixture.addServicePort().sessionsTotal = 5;
  fixture.fault = new Error('broken');
  await expect(fixture.metrics.render()).rejects.toThrow('broken');

  fixture.fault = undefined;

  expect(sampleValue(await fixture.scrape(), 'userspace_proxy_connections_total', WEB)).toBe(5);
});

test('our own names carry their unit, and _total exactly when they are counters', async () => {
  const families = await new MetricsFixture().scrape();
  const own = [...families.values()].filter((family) => family.name.startsWith('userspace_proxy_'));

  const misnamed = own.filter(
    ({ name, type }) =>
      name.endsWith('_total') !== (type === 'counter') ||
      (type === 'histogram' && !name.endsWith('_seconds')),
  );
  expect(misnamed).toEqual([]);
  expect(own).toHaveLength(45);
});
