/** What the proxier makes of its node: of the Node object, of the way packets are diverted, and of local endpoints. */
import { describe, expect, test } from 'vitest';
import { ProxyError } from '../../src/errors.ts';
import { CAPTURE_ADDRESSES } from '../../src/host/capture-address.ts';
import type { PerFamily } from '../../src/model/address.ts';
import type { Diversion } from '../../src/iptables/portal-rules.ts';
import type { Snapshot } from '../../src/model/snapshot.ts';
import { cidrs, dnatTo, makeNodeInfo } from '../support/rule-fixture.ts';
import { type ServicePortTweak, addresses, makeServicePort, makeSnapshot } from '../support/snapshots.ts';
import { elsewhere, here } from '../desired/policy-fixture.ts';
import {
  type ProxierFixture,
  makeFixture,
  makeTweakedFixture,
  nodeWith,
  rulesOf,
} from './proxier-fixture.ts';

const CLUSTER = 'default/web/TCP/IPv4/cluster';
const LOCAL = 'default/web/TCP/IPv4/local';

function makeWeb(tweak: ServicePortTweak = {}): Snapshot['servicePorts'] {
  return makeSnapshot([makeServicePort({ name: 'web' }, tweak), []]).servicePorts;
}

/** As a source tells it whose Services stay the same. */
function withEndpoints(
  servicePorts: Snapshot['servicePorts'],
  endpoints: readonly ReturnType<typeof here>[],
): Snapshot {
  const keys = [...servicePorts.keys()];
  return { servicePorts, endpoints: new Map(keys.map((key) => [key, endpoints])), problems: [] };
}

/** What of the last rules in nat goes by who sends. */
function sourcesOf(fixture: ProxierFixture): readonly string[] {
  return [...(rulesOf(fixture).installed.at(-1)?.nat.chains.values() ?? [])]
    .flat()
    .flatMap(({ source, inInterface }) => source ?? inInterface ?? []);
}

function entriesOf(fixture: ProxierFixture, pattern: RegExp): readonly string[] {
  return fixture.news().filter((entry) => pattern.test(entry));
}

describe('the Node object', () => {
  const inZones = [
    elsewhere('10.0.0.1', { zoneHints: ['zone-a'] }),
    elsewhere('10.0.0.2', { zoneHints: ['zone-b'] }),
  ];

  test('that comes or changes is followed at once by the balancers, before any sync', async () => {
    const fixture = makeFixture();
    await fixture.apply(withEndpoints(makeWeb(), inZones));
    fixture.news();

    fixture.proxier.nodeObjectChanged(makeNodeInfo());
    expect(entriesOf(fixture, /^backends/)).toEqual([`backends of ${CLUSTER}: 10.0.0.1:8080`]);
    fixture.proxier.nodeObjectChanged(makeNodeInfo({ labels: { 'topology.kubernetes.io/zone': 'zone-b' } }));
    expect(entriesOf(fixture, /^backends/)).toEqual([`backends of ${CLUSTER}: 10.0.0.2:8080`]);
    fixture.proxier.nodeObjectChanged(undefined);
    expect(entriesOf(fixture, /^backends/)).toEqual([`backends of ${CLUSTER}: 10.0.0.1:8080,10.0.0.2:8080`]);
  });

  test('that was told before the first snapshot is known with it', () => {
    const fixture = makeFixture();
    fixture.proxier.nodeObjectChanged(makeNodeInfo());
    expect(fixture.news()).toEqual([]);

    fixture.proxier.update(withEndpoints(makeWeb(), inZones), []);

    expect(entriesOf(fixture, /^backends/)).toEqual([`backends of ${CLUSTER}: 10.0.0.1:8080`]);
  });

  test('whose pod ranges change leads to other rules with the next sync', async () => {
    const fixture = makeTweakedFixture({ settings: { localDetection: { kind: 'nodeCIDR' } } });
    const servicePorts = makeWeb({ externalTrafficPolicy: 'Local', nodePort: 30_080 });
    await fixture.apply(withEndpoints(servicePorts, [here('10.0.0.1')]));
    expect(sourcesOf(fixture)).toEqual([]);

    fixture.proxier.nodeObjectChanged(makeNodeInfo());
    await fixture.proxier.sync({ isPeriodic: false });
    expect(sourcesOf(fixture)).toEqual(['10.244.1.0/24']);
    fixture.proxier.nodeObjectChanged(makeNodeInfo({ podCIDRs: cidrs('10.244.2.0/24') }));
    await fixture.proxier.sync({ isPeriodic: false });

    expect(sourcesOf(fixture)).toEqual(['10.244.2.0/24']);
  });

  test('that comes with the primary address brings the NodePorts, and ends the complaint', async () => {
    const fixture = makeTweakedFixture({ settings: { nodePortAddresses: 'primary' } });
    await fixture.apply(withEndpoints(makeWeb({ nodePort: 30_080 }), [here('10.0.0.1')]));
    expect(rulesOf(fixture).redirects).toHaveLength(1);
    expect(fixture.proxier.desired.problems).toMatchObject([{ code: 'ERR_NODE_ADDRESS' }]);

    fixture.proxier.nodeObjectChanged(makeNodeInfo());
    await fixture.proxier.sync({ isPeriodic: false });

    expect(rulesOf(fixture).redirects).toHaveLength(2);
    expect(fixture.proxier.desired.problems).toEqual([]);
  });
});

describe("the node's addresses", () => {
  test('that come and go bring and take the portals of a NodePort that is told by address', async () => {
    const fixture = makeFixture();
    const servicePorts = makeWeb({ nodePort: 30_080, proxyProtocol: 'v2' });
    await fixture.apply(withEndpoints(servicePorts, [here('10.0.0.1')]));
    const places = (): readonly string[] =>
      [...fixture.listeners.proxyPorts().keys()].filter((key) => key.endsWith(':30080'));
    expect(places()).toEqual([`${CLUSTER}/127.0.0.1:30080`, `${CLUSTER}/192.168.77.2:30080`]);

    fixture.addresses = nodeWith('192.168.78.2');
    fixture.proxier.nodeChanged();
    await fixture.proxier.sync({ isPeriodic: false });

    expect(places()).toEqual([`${CLUSTER}/127.0.0.1:30080`, `${CLUSTER}/192.168.78.2:30080`]);
  });
});

describe('the listeners are', () => {
  const DNAT: PerFamily<Diversion> = { IPv4: dnatTo('IPv4'), IPv6: dnatTo('IPv6') };
  const dualStack = { clusterIPs: addresses('10.96.0.10', 'fd00:96::a') };
  const both = makeSnapshot(
    [makeServicePort({ name: 'web' }, dualStack), [here('10.0.0.1'), here('fd00:1::1')]],
    [makeServicePort({ name: 'web', protocol: 'UDP' }, dualStack), [here('10.0.0.1'), here('fd00:1::1')]],
  );

  test('on the one address that packets are translated to, TCP and UDP, each family on its own', async () => {
    const fixture = makeTweakedFixture({ diversions: DNAT }, 'IPv4', 'IPv6');
    for (const [index, family] of (['IPv4', 'IPv6'] as const).entries()) {
      await fixture.apply(both);
      const wanted = fixture.listeners.wantedByFamily.get(family) ?? [];
      expect(wanted.map(({ protocol, addresses: on }) => `${protocol} ${on.join()}`)).toEqual([
        `TCP ${CAPTURE_ADDRESSES[family]}`,
        `UDP ${CAPTURE_ADDRESSES[family]}`,
      ]);
      expect(rulesOf(fixture, index).redirects).toEqual([]);
      expect(rulesOf(fixture, index).translations).toEqual(
        wanted.map(
          ({ key, servicePortName }) =>
            `${servicePortName} → ${CAPTURE_ADDRESSES[family]} ${fixture.listeners.proxyPorts().get(key)}`,
        ),
      );
    }
  });

  test('where packets are redirected: TCP everywhere, UDP on the addresses that REDIRECT can choose', async () => {
    const fixture = makeFixture('IPv4', 'IPv6');
    fixture.addresses = {
      all: ['127.0.0.1', '192.168.77.2', '192.168.77.3', '::1'],
      redirect: { IPv4: ['127.0.0.1', '192.168.77.2'], IPv6: ['::1'] },
    };
    await fixture.apply(both);
    expect(
      (['IPv4', 'IPv6'] as const).map((family) =>
        (fixture.listeners.wantedByFamily.get(family) ?? []).map(
          ({ protocol, addresses: on }) => `${protocol} ${on.join()}`,
        ),
      ),
    ).toEqual([
      ['TCP 0.0.0.0', 'UDP 127.0.0.1,192.168.77.2'],
      ['TCP ::', 'UDP ::1'],
    ]);
    expect(rulesOf(fixture).translations).toEqual([]);
  });
});

describe('what must be so before listeners of a family can be opened', () => {
  const both = makeSnapshot([
    makeServicePort({ name: 'web' }, { clusterIPs: addresses('10.96.0.10', 'fd00:96::a') }),
    [here('10.0.0.1'), here('fd00:1::1')],
  ]);
  const OPENED = /^(?:install|open)/;

  test('is brought about before any of them, and not again while nothing changes', async () => {
    const calls: string[] = [];
    const fixture = makeTweakedFixture(
      {
        prepare: async (family) => {
          calls.push(`${family} after ${fixture.journal.filter((entry) => OPENED.test(entry)).length}`);
          return Promise.resolve();
        },
      },
      'IPv4',
      'IPv6',
    );
    fixture.proxier.update(both, []);
    await fixture.proxier.sync({ isPeriodic: false });
    expect(calls).toEqual(['IPv4 after 0', 'IPv6 after 3']);
    // Once more: by then the other family has opened listeners too.
    await fixture.proxier.sync({ isPeriodic: false });
    const settled = calls.length;

    await fixture.proxier.sync({ isPeriodic: true });

    expect(calls).toHaveLength(settled);
  });

  test('is brought about again when the addresses of the node change: one of ours may be gone', async () => {
    const calls: string[] = [];
    const fixture = makeTweakedFixture({
      prepare: async (family) => Promise.resolve(calls.push(family)),
    });
    await fixture.apply(both);
    fixture.addresses = nodeWith('192.168.77.2');
    fixture.proxier.nodeChanged();

    await fixture.proxier.sync({ isPeriodic: false });

    expect(calls).toEqual(['IPv4', 'IPv4']);
  });

  test('and cannot be in one family: that one is left as it is, the other is served, and it is tried again', async () => {
    const fault = new ProxyError('ERR_ADDRESS', 'IPv6 is disabled on this device');
    let isBroken = true;
    const fixture = makeTweakedFixture(
      {
        prepare: async (family) => {
          if (isBroken && family === 'IPv6') throw fault;
          return Promise.resolve();
        },
      },
      'IPv4',
      'IPv6',
    );
    fixture.proxier.update(both, []);

    expect(await fixture.failure()).toBe(fault);
    expect(entriesOf(fixture, OPENED)).toEqual([
      'install IPv4 filter',
      `open ${CLUSTER}`,
      'install IPv4 nat+filter',
    ]);
    expect(fixture.observer.restoreFailures).toEqual([]);
    isBroken = false;
    await fixture.proxier.sync({ isPeriodic: false });

    expect(rulesOf(fixture, 1).redirects).toEqual(['default/web → 1001']);
  });
});

describe('the UDP flows of a NodePort', () => {
  const dns = makeSnapshot([
    makeServicePort({ name: 'dns', protocol: 'UDP' }, { nodePort: 30_053 }),
    [here('10.0.0.1')],
  ]);

  test('are looked through when the node gets an address: those that came there before the NodePort are forgotten', async () => {
    const fixture = makeFixture();
    await fixture.apply(dns);
    fixture.news();

    fixture.addresses = nodeWith('192.168.77.2', '192.168.78.2');
    fixture.proxier.nodeChanged();
    await fixture.proxier.sync({ isPeriodic: false });

    expect(entriesOf(fixture, /^forget/)).toEqual(['forget flows to IPv4 node port 30053']);
  });
});

describe('under policy Local', () => {
  const bothLocal = makeWeb({
    internalTrafficPolicy: 'Local',
    externalTrafficPolicy: 'Local',
    nodePort: 30_080,
  });

  test('both sets have listeners, and each has its endpoints', async () => {
    const fixture = makeFixture();
    await fixture.apply(withEndpoints(bothLocal, [here('10.0.0.1'), elsewhere('10.0.0.2')]));
    expect(
      [...fixture.backends.byKey].map(([key, { endpoints }]) => [key, endpoints.map(({ key: one }) => one)]),
    ).toEqual([
      [LOCAL, ['10.0.0.1:8080']],
      [CLUSTER, ['10.0.0.1:8080', '10.0.0.2:8080']],
    ]);
    expect(rulesOf(fixture).redirects).toEqual([
      'default/web → 1000',
      'default/web from this node → 1001',
      'default/web from elsewhere → 1000',
    ]);
  });

  test('an endpoint change here writes no rule, and the last one here that goes does', async () => {
    const fixture = makeFixture();
    await fixture.apply(withEndpoints(bothLocal, [here('10.0.0.1'), elsewhere('10.0.0.2')]));
    fixture.news();

    await fixture.apply(withEndpoints(bothLocal, [here('10.0.0.3'), elsewhere('10.0.0.2')]));
    expect(entriesOf(fixture, /^install/)).toEqual([]);
    await fixture.apply(withEndpoints(bothLocal, [elsewhere('10.0.0.2')]));
    expect(entriesOf(fixture, /^(?:install|open|drain)/)).toEqual(['install IPv4 filter+nat']);

    expect(rulesOf(fixture).redirects).toEqual(['default/web from this node → 1001']);
  });

  test('the observer hears how many are without an endpoint here, in each family', async () => {
    const fixture = makeFixture('IPv4', 'IPv6');
    const dual = makeWeb({
      clusterIPs: addresses('10.96.0.10', 'fd00:96::a'),
      internalTrafficPolicy: 'Local',
      externalTrafficPolicy: 'Local',
      nodePort: 30_080,
    });
    await fixture.apply(withEndpoints(dual, [here('10.0.0.1'), elsewhere('fd00:1::2')]));
    await fixture.apply(withEndpoints(dual, [elsewhere('10.0.0.2'), here('fd00:1::1')]));
    const NONE = { internal: 0, external: 0 };
    const ONE = { internal: 1, external: 1 };
    expect(
      fixture.observer.families.map(({ family, noLocalEndpoints }) => [family, noLocalEndpoints]),
    ).toEqual([
      ['IPv4', NONE],
      ['IPv6', ONE],
      ['IPv4', ONE],
      ['IPv6', NONE],
    ]);
  });

  test('that is told also by a sync that writes no rule', async () => {
    const fixture = makeFixture();
    await fixture.apply(withEndpoints(bothLocal, [elsewhere('10.0.0.2')]));
    await fixture.apply(withEndpoints(bothLocal, [elsewhere('10.0.0.3')]));
    expect(fixture.observer.families).toMatchObject([
      { kind: 'full', noLocalEndpoints: { internal: 1, external: 1 } },
      { kind: 'endpoints', noLocalEndpoints: { internal: 1, external: 1 } },
    ]);
  });

  test('traffic follows the last endpoint here that goes with the sync: that is a rule', async () => {
    const fixture = makeFixture();
    await fixture.apply(withEndpoints(bothLocal, [here('10.0.0.1'), elsewhere('10.0.0.2')]));
    const at = fixture.clock.wallTime();
    fixture.clock.advance(1000);

    fixture.proxier.update(withEndpoints(bothLocal, [elsewhere('10.0.0.2')]), [], [{ family: 'IPv4', at }]);
    expect(fixture.observer.programmed).toEqual([]);
    fixture.clock.advance(500);
    await fixture.proxier.sync({ isPeriodic: false });

    expect(fixture.observer.programmed).toEqual([{ family: 'IPv4', seconds: 1.5 }]);
  });
});

describe('health checks', () => {
  const checked = makeWeb({ externalTrafficPolicy: 'Local', healthCheckNodePort: 31_000 });
  const HEALTH = /^(?:health checks|install|sync succeeded)/;

  test('are told at once what is desired, and what is programmed only after the rules', async () => {
    const fixture = makeFixture();

    fixture.proxier.update(withEndpoints(checked, [here('10.0.0.1')]), []);
    expect(entriesOf(fixture, HEALTH)).toEqual(['health checks desired: web IPv4 1']);
    await fixture.proxier.sync({ isPeriodic: false });

    expect(entriesOf(fixture, HEALTH)).toEqual([
      'install IPv4 filter',
      'install IPv4 nat+filter',
      'sync succeeded',
      'health checks programmed: web IPv4 1',
      'health checks desired: web IPv4 1',
    ]);
  });

  test('are told of an endpoint change at once too', async () => {
    const fixture = makeFixture();
    await fixture.apply(withEndpoints(checked, [here('10.0.0.1')]));
    fixture.news();

    fixture.proxier.update(withEndpoints(checked, []), []);

    expect(entriesOf(fixture, HEALTH)).toEqual(['health checks desired: web IPv4 0']);
  });

  test('are not told that anything is programmed when rules could not be written', async () => {
    const fixture = makeFixture();
    fixture.proxier.update(withEndpoints(checked, [here('10.0.0.1')]), []);
    rulesOf(fixture).faults.push(undefined, new ProxyError('ERR_IPTABLES_RESTORE', 'refused'));
    fixture.news();
    await fixture.failure();
    expect(entriesOf(fixture, /^health checks/)).toEqual([]);

    await fixture.proxier.sync({ isPeriodic: false });

    expect(entriesOf(fixture, /^health checks programmed/)).toEqual(['health checks programmed: web IPv4 1']);
  });

  test('are told that nobody is there when a listener of the Service could not be opened', async () => {
    const fixture = makeFixture();
    fixture.listeners.faults.set(CLUSTER, new ProxyError('ERR_LISTENER_OPEN', 'cannot listen'));
    fixture.proxier.update(withEndpoints(checked, [here('10.0.0.1')]), []);
    fixture.news();

    await fixture.failure();

    expect(entriesOf(fixture, /^health checks programmed/)).toEqual(['health checks programmed: web IPv4 0']);
  });

  test('are told of what a sync programmed, and then of what came during it', async () => {
    const fixture = makeFixture();
    fixture.proxier.update(withEndpoints(checked, [here('10.0.0.1')]), []);
    const gate = Promise.withResolvers<void>();
    rulesOf(fixture).gate = async () => gate.promise;
    const syncing = fixture.proxier.sync({ isPeriodic: false });
    fixture.proxier.update(withEndpoints(checked, [here('10.0.0.1'), here('10.0.0.2')]), []);
    gate.resolve();
    fixture.news();

    await syncing;

    expect(entriesOf(fixture, /^health checks/)).toEqual([
      'health checks programmed: web IPv4 1',
      'health checks desired: web IPv4 2',
    ]);
  });

  test('have a rule each that lets load balancers in, in the first rules that there are', async () => {
    const fixture = makeFixture();
    await fixture.apply(withEndpoints(checked, []));
    const comments = [...(rulesOf(fixture).installed.at(-1)?.filter.chains.values() ?? [])]
      .flat()
      .filter(({ target }) => target.kind === 'accept')
      .map(({ comment, destinationPort }) => `${comment} ${String(destinationPort)}`);
    expect(comments).toEqual(['default/web 1000', 'default/web health check 31000']);
  });
});
