/** What a sync does about changes that others made to our rules, with the real installer on tables in memory. */
import { beforeEach, describe, expect, test } from 'vitest';
import { isProxyError } from '../../src/errors.ts';
import { RuleInstaller } from '../../src/iptables/installer.ts';
import { Iptables } from '../../src/iptables/iptables.ts';
import { KernelExec } from '../support/fake-exec.ts';
import { NetfilterTables } from '../support/netfilter-tables.ts';
import { addresses, makeEndpoints, makeServicePort, makeSnapshot } from '../support/snapshots.ts';
import { ProxierFixture } from './proxier-fixture.ts';

const dns = makeServicePort({ name: 'dns', protocol: 'UDP' });
const api = makeServicePort({ name: 'api' }, { clusterIPs: addresses('10.96.0.11') });
const BEFORE = makeSnapshot([dns, makeEndpoints(1)]);
const AFTER = makeSnapshot([dns, makeEndpoints(1)], [api, makeEndpoints(2)]);
const ALL_FLOWS = expect.arrayContaining([expect.stringContaining('forget flows to IPv4')]) as unknown;

let kernel: KernelExec;
let fixture: ProxierFixture<RuleInstaller>;

beforeEach(async () => {
  kernel = new KernelExec();
  fixture = new ProxierFixture([
    new RuleInstaller(new Iptables('IPv4', kernel.exec), { generation: () => 1 }),
  ]);
  await fixture.apply(BEFORE);
  fixture.news();
});

/** As if the node had just started. */
function flush(): void {
  const fresh = new NetfilterTables(4);
  for (const table of ['nat', 'filter']) {
    const lines = kernel.tables.IPv4.save(table).split('\n');
    const own = lines.filter((line) => line.startsWith(':USERSPACE-PROXY-'));
    const jumps = lines.filter((line) => /^-A (?!USERSPACE).* -j USERSPACE-PROXY-/.test(line));
    const removed = own.map((line) => `-X ${line.slice(1).replace(/ .*/, '')}`);
    const input = [
      `*${table}`,
      ...jumps.map((line) => line.replace('-A', '-D')),
      ...own,
      ...removed,
      'COMMIT',
      '',
    ];
    kernel.tables.IPv4.load(input.join('\n'));
    if (kernel.tables.IPv4.save(table) !== fresh.save(table)) throw new Error(`${table} is not empty`);
  }
}

describe('a flush', () => {
  test('that a change of ours meets before any look is mended by that change, told, and counted', async () => {
    flush();
    await fixture.apply(AFTER);
    expect(fixture.observer.resyncs).toEqual(['start', 'flush']);
    expect(fixture.logger.at('warn').map(({ fields }) => fields)).toEqual([
      { family: 'IPv4', change: 'flush' },
    ]);
    for (const text of ['10.96.0.10/32', '10.96.0.11/32'])
      expect(kernel.tables.IPv4.save('nat')).toContain(text);
    // Flows went past us while the rules were gone: also those of portals that are what they were.
    expect(fixture.news()).toEqual(ALL_FLOWS);
  });

  test('that a look finds is mended by the same pass', async () => {
    flush();
    await fixture.proxier.sync({ isPeriodic: true });
    expect(fixture.observer.resyncs).toEqual(['start', 'flush']);
    expect(fixture.logger.at('warn')).toHaveLength(1);
    expect(fixture.news()).toEqual(ALL_FLOWS);
  });

  test('after which the rules cannot be written keeps its reason until they are', async () => {
    flush();
    kernel.restoreFault = { exitCode: 4, stdout: '', stderr: 'Another app holds the xtables lock\n' };
    const failure = await fixture.failure(true);
    expect(isProxyError(failure, 'ERR_IPTABLES_LOCKED')).toBe(true);
    kernel.restoreFault = undefined;
    await fixture.proxier.sync({ isPeriodic: false });
    expect(fixture.observer.resyncs).toEqual(['start', 'flush']);
  });
});

test('rules of others before ours are told at every look', async () => {
  kernel.tables.IPv4.load('*filter\n-I FORWARD 1 -p udp -j ACCEPT\nCOMMIT\n');
  await fixture.proxier.sync({ isPeriodic: true });
  expect(fixture.observer.ahead.get('IPv4')).toContainEqual({
    table: 'filter',
    hook: 'FORWARD',
    count: 1,
    first: '-p udp -j ACCEPT',
  });
  expect(fixture.observer.resyncs).toEqual(['start']);
});
