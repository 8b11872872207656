/** The algorithm, make-before-break: the order of its steps, and what a fault of one leaves of the others. */
import { describe, expect, test } from 'vitest';
import { ProxyError, isProxyError } from '../../src/errors.ts';
import { Iptables } from '../../src/iptables/iptables.ts';
import { RuleInstaller } from '../../src/iptables/installer.ts';
import type { Snapshot } from '../../src/model/snapshot.ts';
import { KernelExec } from '../support/fake-exec.ts';
import {
  addresses,
  makeEndpoint,
  makeEndpoints,
  makeServicePort,
  makeSnapshot,
} from '../support/snapshots.ts';
import { OWN_NODE } from '../support/rule-fixture.ts';
import { ProxierFixture, makeFixture, nodeWith, rulesOf } from './proxier-fixture.ts';

const WEB = 'default/web/TCP/IPv4/cluster';
const API = 'default/api/TCP/IPv4/cluster';
const WEB6 = 'default/web/TCP/IPv6/cluster';

const web = makeServicePort({ name: 'web' });
const api = makeServicePort({ name: 'api' }, { clusterIPs: addresses('10.96.0.11') });
const dualWeb = makeServicePort({ name: 'web' }, { clusterIPs: addresses('10.96.0.10', 'fd00::10') });
const NOTHING = makeSnapshot();
const ONLY_WEB = makeSnapshot([web, makeEndpoints(1, 2)]);
const ONLY_API = makeSnapshot([api, makeEndpoints(3)]);
const BOTH = makeSnapshot([web, makeEndpoints(1, 2)], [api, makeEndpoints(3)]);
const DUAL = makeSnapshot([dualWeb, [...makeEndpoints(1), makeEndpoint('fd00:1::1', 80)]]);

const restoreFault = new ProxyError('ERR_IPTABLES_RESTORE', 'iptables-restore: line 7 failed');

describe('before the sources have told everything', () => {
  test('a sync does nothing at all', async () => {
    const fixture = makeFixture();

    await fixture.proxier.sync({ isPeriodic: true });
    fixture.proxier.nodeChanged();

    expect(fixture.news()).toEqual([]);
  });
});

describe('the order of its steps', () => {
  test('endpoints reach the balancers with the update, before any sync', () => {
    const fixture = makeFixture();

    fixture.proxier.update(ONLY_WEB, []);

    expect(fixture.news()).toEqual([`backends of ${WEB}: 10.0.0.1:80,10.0.0.2:80`, 'update queued']);
  });

  test('guard, open, rules, and only then the old listeners, the old backends and the ports', async () => {
    const fixture = makeFixture();
    await fixture.apply(ONLY_WEB);
    fixture.news();

    await fixture.apply(ONLY_API);

    expect(fixture.news()).toEqual([
      `backends of ${API}: 10.0.0.3:80`,
      'update queued',
      'sync started',
      'install IPv4 filter',
      `open ${API}`,
      'install IPv4 nat+filter',
      `drain ${WEB}`,
      `retain backends ${API}`,
      'save ports',
      'sync succeeded',
    ]);
    expect(fixture.portStore.saved).toEqual(new Map([[API, 1001]]));
  });

  test('the guard knows the new port and changes no rule that is in use', async () => {
    const fixture = makeFixture();
    await fixture.apply(ONLY_WEB);
    await fixture.apply(ONLY_API);

    const [first, , guard, last] = rulesOf(fixture).installed;
    const guardText = JSON.stringify([...(guard?.filter.chains ?? [])]);
    expect(guardText).toContain('"destinationPort":1001');
    expect(guardText).toContain('"destinationPort":1000');
    // What a guard says of portals is what was installed before it.
    expect(guardText).toContain('10.96.0.10/32');
    expect(guardText).not.toContain('10.96.0.11/32');
    expect(JSON.stringify([...(first?.filter.chains ?? [])])).toContain('"destinationPort":1000');
    expect(JSON.stringify([...(last?.filter.chains ?? [])])).toContain('10.96.0.11/32');
    expect(rulesOf(fixture).redirects).toEqual(['default/api → 1001']);
  });

  test('what is already open needs no guard', async () => {
    const fixture = makeFixture();
    await fixture.apply(ONLY_WEB);
    fixture.news();

    await fixture.apply(makeSnapshot([makeServicePort({ name: 'web' }, { port: 81 }), makeEndpoints(1, 2)]));

    expect(fixture.news().slice(2)).toEqual([
      'sync started',
      'install IPv4 nat+filter',
      `retain backends ${WEB}`,
      'sync succeeded',
    ]);
  });

  test('a sync with nothing new touches neither listeners nor rules nor the port store', async () => {
    const fixture = makeFixture();
    await fixture.apply(ONLY_WEB);
    fixture.news();

    await fixture.proxier.sync({ isPeriodic: false });

    expect(fixture.news()).toEqual(['sync started', `retain backends ${WEB}`, 'sync succeeded']);
    expect(fixture.observer.families.map(({ kind }) => kind)).toEqual(['full', 'endpoints']);
  });

  test('each family is a pass of its own', async () => {
    const fixture = makeFixture('IPv4', 'IPv6');

    await fixture.apply(DUAL);

    expect(fixture.news().filter((line) => /open|install/.test(line))).toEqual([
      'install IPv4 filter',
      `open ${WEB}`,
      'install IPv4 nat+filter',
      'install IPv6 filter',
      `open ${WEB6}`,
      'install IPv6 nat+filter',
    ]);
    expect(fixture.observer.families.map(({ family }) => family)).toEqual(['IPv4', 'IPv6']);
  });

  test('rules are looked at by periodic syncs only, and a foreign change is told and counted', async () => {
    const fixture = makeFixture();
    await fixture.apply(ONLY_WEB);
    expect(fixture.news().filter((line) => line.startsWith('verify'))).toEqual([]);
    rulesOf(fixture).change = 'jump';

    await fixture.proxier.sync({ isPeriodic: true });

    expect(fixture.news().slice(0, 3)).toEqual(['sync started', 'verify IPv4', 'install IPv4 nat+filter']);
    expect(fixture.observer.resyncs).toEqual(['start', 'jump']);
    expect(fixture.logger.at('warn').map(({ fields }) => fields)).toEqual([
      { family: 'IPv4', change: 'jump' },
    ]);
  });
});

describe('an endpoint change', () => {
  /** The real installer on tables in memory. */
  function makeKernelFixture(): {
    readonly fixture: ProxierFixture<RuleInstaller>;
    readonly kernel: KernelExec;
  } {
    const kernel = new KernelExec();
    return {
      fixture: new ProxierFixture([
        new RuleInstaller(new Iptables('IPv4', kernel.exec), { generation: () => 1 }),
      ]),
      kernel,
    };
  }

  test('runs no program and writes no rule, and tells so', async () => {
    const { fixture, kernel } = makeKernelFixture();
    await fixture.apply(ONLY_WEB);
    const calls = kernel.calls.length;

    await fixture.apply(makeSnapshot([web, makeEndpoints(2, 3, 4)]));

    expect(kernel.calls.length).toBe(calls);
    expect(fixture.observer.families.at(-1)).toMatchObject({
      kind: 'endpoints',
      rulesWritten: { nat: 0, filter: 0 },
    });
  });

  test.each([
    { name: 'that empties a set', before: [1, 2], after: [] },
    { name: 'that fills an empty set', before: [], after: [1] },
  ])('$name does write rules', async ({ before, after }) => {
    const { fixture, kernel } = makeKernelFixture();
    await fixture.apply(makeSnapshot([web, makeEndpoints(...before)]));
    const restores = kernel.restores.length;

    await fixture.apply(makeSnapshot([web, makeEndpoints(...after)]));

    expect(kernel.restores.length).toBe(restores + 1);
    expect(fixture.observer.families.at(-1)?.kind).toBe('partial');
  });

  test('the first sync writes everything, a second one without a change nothing', async () => {
    const { fixture, kernel } = makeKernelFixture();
    await fixture.apply(ONLY_WEB);
    expect(fixture.observer.families.map(({ kind }) => kind)).toEqual(['full']);
    const restores = kernel.restores.length;

    await fixture.apply(ONLY_WEB);

    expect(kernel.restores.length).toBe(restores);
    expect(fixture.observer.families.map(({ kind }) => kind)).toEqual(['full', 'endpoints']);
  });

  test('a restore that fails is made good in full by the next sync', async () => {
    const { fixture, kernel } = makeKernelFixture();
    await fixture.apply(ONLY_WEB);
    kernel.restoreFault = { exitCode: 1, stdout: '', stderr: 'iptables-restore: line 3 failed' };
    fixture.proxier.update(BOTH, []);
    expect(isProxyError(await fixture.failure(), 'ERR_IPTABLES_RESTORE')).toBe(true);
    kernel.restoreFault = undefined;

    await fixture.proxier.sync({ isPeriodic: false });

    expect(kernel.tables.IPv4.save('nat')).toContain('10.96.0.11/32');
    expect(fixture.observer.families.at(-1)?.kind).toBe('full');
  });
});

describe('faults', () => {
  test('a guard that fails opens nothing and lets nothing go; the next sync completes', async () => {
    const fixture = makeFixture();
    await fixture.apply(ONLY_WEB);
    rulesOf(fixture).faults.push(restoreFault);
    fixture.proxier.update(ONLY_API, []);
    fixture.news();

    expect(await fixture.failure()).toBe(restoreFault);
    expect(fixture.listeners.proxyPorts()).toEqual(new Map([[WEB, 1000]]));
    expect(fixture.news()).not.toContain('sync succeeded');
    await fixture.proxier.sync({ isPeriodic: false });

    expect([...fixture.listeners.proxyPorts().keys()]).toEqual([API]);
    expect(fixture.news().at(-1)).toBe('sync succeeded');
  });

  test('rules that fail leave the old listeners where they are; the next sync completes', async () => {
    const fixture = makeFixture();
    await fixture.apply(ONLY_WEB);
    rulesOf(fixture).faults.push(undefined, restoreFault);
    fixture.proxier.update(ONLY_API, []);

    await fixture.failure();
    expect([...fixture.listeners.proxyPorts().keys()]).toEqual([WEB, API]);
    expect(rulesOf(fixture).redirects).not.toContain('default/api → 1001');
    await fixture.proxier.sync({ isPeriodic: false });

    expect([...fixture.listeners.proxyPorts().keys()]).toEqual([API]);
    expect(rulesOf(fixture).redirects).toEqual(['default/api → 1001']);
  });

  test.each([
    { failing: 'IPv4', index: 0, other: WEB6 },
    { failing: 'IPv6', index: 1, other: WEB },
  ])('a fault of $failing does not hold up the other family', async ({ index, other }) => {
    const fixture = makeFixture('IPv4', 'IPv6');
    rulesOf(fixture, index).faults.push(restoreFault);
    fixture.proxier.update(DUAL, []);

    expect(await fixture.failure()).toBe(restoreFault);

    expect([...fixture.listeners.proxyPorts().keys()]).toEqual([other]);
    expect(rulesOf(fixture, 1 - index).redirects).toHaveLength(1);
    expect(fixture.observer.families).toHaveLength(1);
  });

  test('rules that cannot be read fail their family, and only that', async () => {
    const fixture = makeFixture('IPv4', 'IPv6');
    await fixture.apply(DUAL);
    rulesOf(fixture).verifyFault = new ProxyError('ERR_IPTABLES_UNAVAILABLE', 'iptables-save: exit code 1');
    fixture.news();

    expect(isProxyError(await fixture.failure(true), 'ERR_IPTABLES_UNAVAILABLE')).toBe(true);

    expect(fixture.news().filter((line) => line.startsWith('verify'))).toEqual([
      'verify IPv4',
      'verify IPv6',
    ]);
    expect(fixture.observer.families.slice(2).map(({ family }) => family)).toEqual(['IPv6']);
  });

  test('several faults become one, with the first as its cause', async () => {
    const fixture = makeFixture('IPv4', 'IPv6');
    for (const index of [0, 1]) rulesOf(fixture, index).faults.push(restoreFault);
    fixture.proxier.update(DUAL, []);

    expect(await fixture.failure()).toMatchObject({ code: 'ERR_SYNC_FAILED', cause: restoreFault });
  });

  test('a listener that cannot open fails the sync after everything else was programmed', async () => {
    const fixture = makeFixture();
    const fault = new ProxyError('ERR_LISTENER_OPEN', 'cannot listen on TCP port 1000');
    fixture.listeners.faults.set(WEB, fault);
    fixture.proxier.update(BOTH, []);

    expect(await fixture.failure()).toBe(fault);

    expect(rulesOf(fixture).redirects).toEqual(['default/api → 1000']);
    expect(fixture.observer.families).toHaveLength(1);
    expect(fixture.portStore.saved).toEqual(new Map([[API, 1000]]));
    // Its own Service is harmed, the node is not.
    expect(fixture.journal.at(-1)).toBe('sync succeeded');
    fixture.listeners.faults.clear();
    await fixture.proxier.sync({ isPeriodic: false });
    expect(rulesOf(fixture).redirects).toHaveLength(2);
  });

  test.each([
    {
      name: 'a failed restore',
      fault: restoreFault,
      first: ['IPv4 full'],
      later: ['IPv4 full', 'IPv4 partial'],
    },
    {
      name: 'a lock that was held',
      fault: new ProxyError('ERR_IPTABLES_LOCKED', 'another app is holding the xtables lock'),
      first: ['IPv4 full'],
      later: ['IPv4 full', 'IPv4 partial'],
    },
    { name: 'any other fault', fault: new Error('surprise'), first: [], later: [] },
  ])('$name is told to the observer as what it is', async ({ fault, first, later }) => {
    const fixture = makeFixture();
    fixture.proxier.update(ONLY_WEB, []);
    rulesOf(fixture).faults.push(fault);
    await fixture.failure();
    expect(fixture.observer.restoreFailures).toEqual(first);

    await fixture.proxier.sync({ isPeriodic: false });
    rulesOf(fixture).faults.push(fault);
    fixture.proxier.update(BOTH, []);
    await fixture.failure();

    expect(fixture.observer.restoreFailures).toEqual(later);
  });
});

describe('an update during a sync', () => {
  test('is not lost: neither what it adds nor what it removes is touched before its own sync', async () => {
    const fixture = makeFixture();
    await fixture.apply(ONLY_WEB);
    const gate = Promise.withResolvers<void>();
    rulesOf(fixture).gate = async () => gate.promise;
    const syncing = fixture.proxier.sync({ isPeriodic: false });

    fixture.proxier.update(ONLY_API, []);
    gate.resolve();
    await syncing;

    expect([...fixture.backends.byKey.keys()]).toEqual([WEB, API]);
    expect([...fixture.listeners.proxyPorts().keys()]).toEqual([WEB]);
    expect(rulesOf(fixture).redirects).toEqual(['default/web → 1000']);
    await fixture.proxier.sync({ isPeriodic: false });
    expect([...fixture.listeners.proxyPorts().keys()]).toEqual([API]);
    expect([...fixture.backends.byKey.keys()]).toEqual([API]);
    expect(rulesOf(fixture).redirects).toEqual(['default/api → 1001']);
  });

  test('that brings back what the sync is about to drop keeps it', async () => {
    const fixture = makeFixture();
    await fixture.apply(ONLY_WEB);
    fixture.proxier.update(NOTHING, []);
    const gate = Promise.withResolvers<void>();
    rulesOf(fixture).gate = async () => gate.promise;
    const syncing = fixture.proxier.sync({ isPeriodic: false });

    fixture.proxier.update(ONLY_WEB, []);
    gate.resolve();
    await syncing;

    expect([...fixture.listeners.proxyPorts().keys()]).toEqual([WEB]);
    expect([...fixture.backends.byKey.keys()]).toEqual([WEB]);
  });
});

describe("the node's addresses", () => {
  const dns = makeServicePort({ name: 'dns', protocol: 'UDP' });
  const ONLY_DNS = makeSnapshot([dns, makeEndpoints(1)]);
  const both = ['192.168.77.2', '192.168.78.2'];

  test('are followed by the next sync, though no rule is different', async () => {
    const fixture = makeFixture();
    await fixture.apply(ONLY_DNS);

    fixture.addresses = nodeWith(...both);
    fixture.proxier.nodeChanged();
    await fixture.proxier.sync({ isPeriodic: false });

    expect(fixture.listeners.wanted.map(({ addresses }) => addresses)).toEqual([both]);
  });

  test('that change during a sync are followed by the next one', async () => {
    const fixture = makeFixture();
    fixture.proxier.update(ONLY_DNS, []);
    const gate = Promise.withResolvers<void>();
    rulesOf(fixture).gate = async () => gate.promise;
    const syncing = fixture.proxier.sync({ isPeriodic: false });
    fixture.addresses = nodeWith(...both);
    fixture.proxier.nodeChanged();
    gate.resolve();
    await syncing;

    await fixture.proxier.sync({ isPeriodic: false });

    expect(fixture.listeners.wanted.map(({ addresses }) => addresses)).toEqual([both]);
  });
});

describe('the time until traffic follows a change', () => {
  /** With rules that stand; the clock is then 10 s further than `began`. */
  async function makeProgrammed(): Promise<{ readonly fixture: ProxierFixture; readonly began: number }> {
    const fixture = makeFixture();
    await fixture.apply(ONLY_WEB);
    const began = fixture.clock.wallTime();
    fixture.clock.advance(10_000);
    return { fixture, began };
  }
  /** The Services are the same: only then is it known that no rule has to follow. */
  function onlyWebWith(...lasts: readonly number[]): Snapshot {
    return { ...ONLY_WEB, endpoints: makeSnapshot([web, makeEndpoints(...lasts)]).endpoints };
  }
  const GROWN = onlyWebWith(1, 2, 3);

  test('ends with the update when only endpoints changed', async () => {
    const { fixture, began } = await makeProgrammed();

    fixture.proxier.update(GROWN, [], [{ family: 'IPv4', at: began }]);

    expect(fixture.observer.programmed).toEqual([{ family: 'IPv4', seconds: 10 }]);
    fixture.clock.advance(1_000);
    await fixture.proxier.sync({ isPeriodic: false });
    expect(fixture.observer.programmed).toHaveLength(1);
  });

  test('ends with the sync when the last endpoint went: that is a rule', async () => {
    const { fixture, began } = await makeProgrammed();

    fixture.proxier.update(onlyWebWith(), [], [{ family: 'IPv4', at: began }]);
    expect(fixture.observer.programmed).toEqual([]);
    await fixture.proxier.sync({ isPeriodic: false });

    expect(fixture.observer.programmed).toEqual([{ family: 'IPv4', seconds: 10 }]);
  });

  test('ends with the sync when rules have to follow', async () => {
    const { fixture, began } = await makeProgrammed();

    fixture.proxier.update(BOTH, [], [{ family: 'IPv4', at: began }]);
    expect(fixture.observer.programmed).toEqual([]);
    fixture.clock.advance(2_000);
    await fixture.proxier.sync({ isPeriodic: false });

    expect(fixture.observer.programmed).toEqual([{ family: 'IPv4', seconds: 12 }]);
    await fixture.proxier.sync({ isPeriodic: false });
    expect(fixture.observer.programmed).toHaveLength(1);
  });

  test('ends with the first sync for what was known before it', async () => {
    const fixture = makeFixture();
    const at = fixture.clock.wallTime();

    fixture.proxier.update(ONLY_WEB, [], [{ family: 'IPv4', at }]);
    expect(fixture.observer.programmed).toEqual([]);
    fixture.clock.advance(500);
    await fixture.proxier.sync({ isPeriodic: false });

    expect(fixture.observer.programmed).toEqual([{ family: 'IPv4', seconds: 0.5 }]);
  });

  test('goes on over a sync that fails, until one succeeds', async () => {
    const { fixture, began } = await makeProgrammed();
    rulesOf(fixture).faults.push(restoreFault);

    fixture.proxier.update(BOTH, [], [{ family: 'IPv4', at: began }]);
    await fixture.failure();
    expect(fixture.observer.programmed).toEqual([]);
    fixture.clock.advance(5_000);
    await fixture.proxier.sync({ isPeriodic: false });

    expect(fixture.observer.programmed).toEqual([{ family: 'IPv4', seconds: 15 }]);
  });

  test('waits with the rules also for changes that came after them', async () => {
    const { fixture, began } = await makeProgrammed();
    fixture.proxier.update(BOTH, [], [{ family: 'IPv4', at: began }]);

    const more = makeSnapshot([web, makeEndpoints(1, 2, 3)], [api, makeEndpoints(3)]);
    fixture.proxier.update(
      more,
      [],
      [
        { family: 'IPv4', at: began + 4_000 },
        { family: 'IPv6', at: began }, // not programmed on this node
      ],
    );
    expect(fixture.observer.programmed).toEqual([]);
    await fixture.proxier.sync({ isPeriodic: false });

    expect(fixture.observer.programmed).toEqual([
      { family: 'IPv4', seconds: 10 },
      { family: 'IPv4', seconds: 6 },
    ]);
  });

  test('of a change during a sync whose rules it is not in ends with the next sync', async () => {
    const { fixture, began } = await makeProgrammed();
    fixture.proxier.update(ONLY_API, []);
    const gate = Promise.withResolvers<void>();
    rulesOf(fixture).gate = async () => gate.promise;
    const syncing = fixture.proxier.sync({ isPeriodic: false });

    fixture.proxier.update(BOTH, [], [{ family: 'IPv4', at: began }]);
    gate.resolve();
    await syncing;
    expect(fixture.observer.programmed).toEqual([]);
    await fixture.proxier.sync({ isPeriodic: false });

    expect(fixture.observer.programmed).toEqual([{ family: 'IPv4', seconds: 10 }]);
  });

  test('is never less than 0, also when the clocks of the cluster differ', async () => {
    const { fixture, began } = await makeProgrammed();

    fixture.proxier.update(GROWN, [], [{ family: 'IPv4', at: began + 60_000 }]);

    expect(fixture.observer.programmed).toEqual([{ family: 'IPv4', seconds: 0 }]);
  });

  test('is not told for a change that does not say when it began', async () => {
    const { fixture } = await makeProgrammed();

    fixture.proxier.update(GROWN, []);
    await fixture.proxier.sync({ isPeriodic: false });

    expect(fixture.observer.programmed).toEqual([]);
  });
});

describe('what it says', () => {
  test('a port store that fails is told once, and again only after it had worked', async () => {
    const fixture = makeFixture();
    fixture.portStore.fault = new Error('read-only file system');
    await fixture.apply(ONLY_WEB);
    await fixture.apply(ONLY_WEB);
    expect(fixture.logger.at('warn').map(({ fields }) => fields)).toEqual([
      { error: fixture.portStore.fault },
    ]);

    fixture.portStore.fault = undefined;
    await fixture.apply(ONLY_WEB);
    expect(fixture.portStore.saved).toEqual(new Map([[WEB, 1000]]));
    fixture.portStore.fault = new Error('no space left');
    await fixture.apply(BOTH);

    expect(fixture.logger.at('warn')).toHaveLength(2);
    expect(fixture.journal.at(-1)).toBe('sync succeeded');
  });

  test('problems of files, objects and the whole are told once each, and the rest is served', async () => {
    const fixture = makeFixture();
    const conflicting = makeServicePort({ name: 'web2' }, { createdAt: 1 });
    const snapshot: Snapshot = {
      ...makeSnapshot([web, makeEndpoints(1)], [conflicting, makeEndpoints(2)]),
      problems: [
        { code: 'ERR_SERVICE_INVALID', object: 'Service default/bad', field: 'spec', message: 'is wrong' },
      ],
    };
    const ofFile = {
      code: 'ERR_MANIFEST_SYNTAX',
      object: 'a.yaml',
      field: '',
      message: 'is no YAML',
    } as const;

    fixture.proxier.update(snapshot, [ofFile]);
    fixture.proxier.nodeChanged();
    await fixture.proxier.sync({ isPeriodic: false });

    expect(fixture.logger.withMessage('Invalid object').map(({ fields }) => fields['code'])).toEqual([
      'ERR_MANIFEST_SYNTAX',
      'ERR_SERVICE_INVALID',
      'ERR_SERVICE_CONFLICT',
    ]);
    expect(fixture.proxier.sourceProblemCount).toBe(1);
    expect(rulesOf(fixture).redirects).toEqual(['default/web → 1000']);
  });
});

describe('the UDP flows of a portal', () => {
  const dns = makeServicePort({ name: 'dns', protocol: 'UDP' });
  const forgotten = (fixture: ProxierFixture): readonly string[] =>
    fixture.news().filter((entry) => /^(?:install|forget)/.test(entry));
  const forgets = (fixture: ProxierFixture): readonly string[] =>
    forgotten(fixture).filter((entry) => entry.startsWith('forget'));

  test('are forgotten once its rule stands, because some came before it', async () => {
    const fixture = makeFixture();
    await fixture.apply(makeSnapshot([dns, makeEndpoints(1)]));
    expect(forgotten(fixture).slice(-2)).toEqual([
      'install IPv4 nat+filter',
      'forget flows to IPv4 10.96.0.10 port 80',
    ]);
  });

  test('are forgotten when it loses its endpoints and when it has some again, and not while nothing moves', async () => {
    const fixture = makeFixture();
    await fixture.apply(makeSnapshot([dns, makeEndpoints(1)]));
    fixture.news();
    await fixture.apply(makeSnapshot([dns, makeEndpoints(1, 2)]));
    expect(forgets(fixture)).toEqual([]);
    await fixture.apply(makeSnapshot([dns, []]));
    expect(forgets(fixture)).toEqual(['forget flows to IPv4 10.96.0.10 port 80']);
    await fixture.apply(makeSnapshot([dns, []]));
    expect(forgets(fixture)).toEqual([]);
    await fixture.apply(makeSnapshot([dns, makeEndpoints(1)]));
    expect(forgets(fixture)).toEqual(['forget flows to IPv4 10.96.0.10 port 80']);
  });

  test('are forgotten when it is deleted', async () => {
    const fixture = makeFixture();
    await fixture.apply(makeSnapshot([dns, makeEndpoints(1)]));
    fixture.news();
    await fixture.apply(NOTHING);
    expect(forgotten(fixture)).toEqual([
      'install IPv4 nat+filter',
      'forget flows to IPv4 10.96.0.10 port 80',
    ]);
  });

  test('are forgotten again when another program had taken the rules away', async () => {
    const fixture = makeFixture();
    await fixture.apply(makeSnapshot([dns, makeEndpoints(1)]));
    fixture.news();
    rulesOf(fixture).change = 'jump';
    await fixture.proxier.sync({ isPeriodic: true });
    expect(forgets(fixture)).toEqual(['forget flows to IPv4 10.96.0.10 port 80']);
  });

  test('are left alone when the rules could not be written', async () => {
    const fixture = makeFixture();
    fixture.rules[0]?.faults.push(new ProxyError('ERR_IPTABLES_RESTORE', 'refused'));
    fixture.proxier.update(makeSnapshot([dns, makeEndpoints(1)]), []);
    await fixture.failure();
    expect(forgets(fixture)).toEqual([]);
  });

  test('are forgotten when policy Local sends some of them elsewhere, and when its local endpoints go', async () => {
    const ports = { externalIPs: addresses('192.0.2.7'), nodePort: 30_053 };
    const shared = makeServicePort({ name: 'dns', protocol: 'UDP' }, ports);
    const split = makeServicePort(
      { name: 'dns', protocol: 'UDP' },
      { ...ports, externalTrafficPolicy: 'Local' },
    );
    const local = [makeEndpoint('10.0.0.1', 53, { nodeName: OWN_NODE }), ...makeEndpoints(2)];
    const ofExternal = ['forget flows to IPv4 192.0.2.7 port 80', 'forget flows to IPv4 node port 30053'];
    const fixture = makeFixture();
    await fixture.apply(makeSnapshot([shared, local]));
    fixture.news();

    await fixture.apply(makeSnapshot([split, local]));
    expect(forgets(fixture)).toEqual(ofExternal);
    await fixture.apply(makeSnapshot([split, [...local, ...makeEndpoints(3)]]));
    expect(forgets(fixture)).toEqual([]);
    await fixture.apply(makeSnapshot([split, makeEndpoints(2)]));
    expect(forgets(fixture)).toEqual(ofExternal);
    await fixture.apply(makeSnapshot([shared, makeEndpoints(2)]));
    expect(forgets(fixture)).toEqual(ofExternal);
  });

  test('are none when it is a TCP portal', async () => {
    const fixture = makeFixture();
    await fixture.apply(makeSnapshot([makeServicePort({ name: 'web' }), makeEndpoints(1)]));
    expect(forgets(fixture)).toEqual([]);
  });
});
