/** What a pass does, and leaves alone, while another instance owns the rules. */
import { describe, expect, test } from 'vitest';
import { ProxyError } from '../../src/errors.ts';
import { ListenersBesidePeers, ownedFlows, ownedRules } from '../../src/sync/rule-ownership.ts';
import { FakeFlows, FakeListeners, FakeRules } from '../support/fake-sync.ts';
import { addresses, makeEndpoints, makeServicePort, makeSnapshot } from '../support/snapshots.ts';
import { makeFixture, rulesOf } from './proxier-fixture.ts';

const WEB = 'default/web/TCP/IPv4/cluster';
const DNS = 'default/dns/UDP/IPv4/cluster';
const dns = makeServicePort({ name: 'dns', protocol: 'UDP' });
const web = makeServicePort({ name: 'web' });
const api = makeServicePort({ name: 'api' }, { clusterIPs: addresses('10.96.0.11') });
const ONLY_WEB = makeSnapshot([web, makeEndpoints(1)]);
const ONLY_DNS = makeSnapshot([dns, makeEndpoints(1)]);
const BOTH = makeSnapshot([web, makeEndpoints(1)], [api, makeEndpoints(3)]);
const lost = new ProxyError('ERR_OWNERSHIP_LOST', 'generation 8, this is 7');

describe('a pass', () => {
  test('of an instance that stands by follows endpoints and touches nothing else', async () => {
    const fixture = makeFixture();
    await fixture.apply(ONLY_WEB);
    fixture.ownership.isOwner = false;
    fixture.news();

    await fixture.apply(makeSnapshot([web, makeEndpoints(1, 2)], [api, makeEndpoints(3)]));
    expect(await fixture.proxier.sync({ isPeriodic: true })).toBe(false);

    expect(fixture.news()).toEqual([
      'backends of default/api/TCP/IPv4/cluster: 10.0.0.3:80',
      `backends of ${WEB}: 10.0.0.1:80,10.0.0.2:80`,
      'update queued',
    ]);
  });

  test('whose write the kernel refuses ends without a fault, and says so once', async () => {
    const fixture = makeFixture('IPv4', 'IPv6');
    await fixture.apply(ONLY_WEB);
    rulesOf(fixture).faults.push(lost);
    fixture.news();

    await fixture.apply(BOTH);

    expect(fixture.ownership.lostCount).toBe(1);
    const news = fixture.news();
    expect(news).not.toContain('sync succeeded');
    expect(news).not.toContain('save ports');
    expect(news.filter((line) => line.startsWith('retain backends'))).toEqual([]);
    expect(await fixture.proxier.sync({ isPeriodic: true })).toBe(false);
    expect(fixture.news()).toEqual([]);
  });

  test('that yields between the families writes nothing more', async () => {
    const fixture = makeFixture('IPv4', 'IPv6');
    await fixture.apply(ONLY_WEB);
    fixture.news();
    rulesOf(fixture).gate = async () => {
      fixture.ownership.isOwner = false;
      return Promise.resolve();
    };

    await fixture.apply(
      makeSnapshot([
        makeServicePort({ name: 'web' }, { externalIPs: addresses('192.0.2.1') }),
        makeEndpoints(1),
      ]),
    );

    const installs = fixture.news().filter((line) => line.startsWith('install'));
    expect(installs).toEqual(['install IPv4 nat+filter']);
    expect(fixture.ownership.lostCount).toBeLessThanOrEqual(1);
  });

  test('after the rules were another’s writes everything, remembers the ports and looks at all flows', async () => {
    const fixture = makeFixture();
    await fixture.apply(ONLY_DNS);
    fixture.ownership.isOwner = false;
    fixture.news();
    fixture.ownership.isOwner = true;
    rulesOf(fixture).change = 'rules';
    fixture.proxier.rulesRegained();

    expect(await fixture.proxier.sync({ isPeriodic: false })).toBe(true);

    expect(fixture.news()).toEqual([
      'sync started',
      'verify IPv4',
      'install IPv4 nat+filter',
      expect.stringMatching(/^forget flows to /),
      `retain backends ${DNS}`,
      'save ports',
      'sync succeeded',
    ]);
    expect(fixture.logger.at('warn')).toEqual([]);
    expect(fixture.ownership.syncedVersions).toHaveLength(2);
  });

  test('after another instance has ended looks at all flows, whatever else is as before', async () => {
    const fixture = makeFixture();
    await fixture.apply(ONLY_DNS);
    fixture.news();
    fixture.proxier.peerEnded();

    await fixture.proxier.sync({ isPeriodic: false });

    expect(fixture.news()).toContainEqual(expect.stringMatching(/^forget flows to /));
  });
});

describe('what is owned by another', () => {
  test('are the rules: they are neither read nor written', async () => {
    const rules = ownedRules(new FakeRules('IPv4', []), { isOwner: false });
    const ruleSet = {
      family: 'IPv4',
      nat: { hooks: [], chains: new Map() },
      filter: { hooks: [], chains: new Map() },
    } as const;
    await expect(rules.install(ruleSet)).rejects.toMatchObject({ code: 'ERR_OWNERSHIP_LOST' });
    await expect(rules.verify()).rejects.toMatchObject({ code: 'ERR_OWNERSHIP_LOST' });
  });

  test('are the flows: none is forgotten', () => {
    const journal: string[] = [];
    ownedFlows(new FakeFlows(journal), { isOwner: false }).forget([]);
    expect(journal).toEqual([]);
  });
});

describe('the ports of other instances', () => {
  const peer = { family: 'IPv4', protocol: 'TCP', port: 20_001, servicePortName: 'default/web' } as const;

  test('are guarded beside our own, and a change of them is a reason to sync', () => {
    const listeners = new ListenersBesidePeers(new FakeListeners([]));
    const { version } = listeners;
    expect(listeners.setPeerPorts([peer])).toBe(true);
    expect(listeners.guardedPorts()).toEqual([peer]);
    expect(listeners.peerPorts).toEqual([peer]);
    expect(listeners.version).toBeGreaterThan(version);
    expect(listeners.proxyPorts()).toEqual(new Map());
  });

  test('are no change when they are the same', () => {
    const listeners = new ListenersBesidePeers(new FakeListeners([]));
    listeners.setPeerPorts([peer]);
    const { version } = listeners;
    expect(listeners.setPeerPorts([{ ...peer }])).toBe(false);
    expect(listeners.version).toBe(version);
  });

  test('are guarded once where one of them is ours as well', async () => {
    const own = new FakeListeners([]);
    await own.ensureOpen(
      [{ key: WEB, family: 'IPv4', protocol: 'TCP', servicePortName: 'default/web', addresses: ['0.0.0.0'] }],
      async () => Promise.resolve(),
    );
    const listeners = new ListenersBesidePeers(own);
    const [ours] = own.guardedPorts();
    if (ours === undefined) throw new Error('nothing is open');
    listeners.setPeerPorts([ours, peer]);
    expect(listeners.guardedPorts()).toEqual([ours, peer]);
  });
});
