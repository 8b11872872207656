/** The text between what is installed and what is wanted, loaded into tables that refuse what a kernel refuses. */
import { describe, expect, test } from 'vitest';
import { buildDesiredState } from '../../src/desired/desired-state.ts';
import { KernelTable, parseKernelTable } from '../../src/iptables/kernel-table.ts';
import type { Diversion } from '../../src/iptables/portal-rules.ts';
import {
  type TableUpdate,
  type UpdateContext,
  renderFullUpdate,
  renderPartialUpdate,
  renderRemoval,
} from '../../src/iptables/render.ts';
import type { RuleSet, TableName } from '../../src/iptables/rule.ts';
import { type TableText, renderTableText } from '../../src/iptables/table-text.ts';
import type { IpFamily } from '../../src/model/address.ts';
import { randomEndpoints, randomServicePort } from '../desired/policy-fixture.ts';
import { makeService, makeSlice } from '../support/objects.ts';
import { NetfilterTables } from '../support/netfilter-tables.ts';
import { Random, seeds } from '../support/random.ts';
import {
  cidrs,
  desiredFrom,
  dnatTo,
  firstLoadOf,
  makeNodeInfo,
  makeNodeView,
  ruleSetOf,
} from '../support/rule-fixture.ts';
import { makeSnapshot } from '../support/snapshots.ts';

const TABLES: readonly TableName[] = ['nat', 'filter'];
const STAMP = { generation: 1, write: 1 } as const;

/** Rules for Services at these last numbers of 10.96.0.x; negative: one without endpoints. */
function rulesFor(...numbers: readonly number[]): RuleSet {
  const services = numbers.map((number) =>
    makeService(`s${Math.abs(number)}`, ({ spec }) => {
      spec.clusterIP = `10.96.${Math.abs(number) % 3}.${Math.abs(number)}`;
      spec.ports = [{ name: 'http', port: 80, nodePort: 30_000 + Math.abs(number) }];
    }),
  );
  const slices = numbers
    .filter((number) => number > 0)
    .map((number) => makeSlice(`s${number}`, ['10.244.1.1']));
  return ruleSetOf(desiredFrom(services, slices));
}

function at(table: TableName): UpdateContext {
  return { table, stamp: STAMP };
}

function textOf(rules: RuleSet, table: TableName): TableText {
  return renderTableText(rules[table], rules.family);
}

function withoutCanary(text: string): string {
  return text.replaceAll(/^-[ADN] USERSPACE-PROXY-CANARY.*\n/gm, '');
}

/** Both by the same write. */
function partialUpdate(table: TableName, wanted: RuleSet, installed: RuleSet): TableUpdate {
  const before = { text: textOf(installed, table), stamp: STAMP };
  return renderPartialUpdate(at(table), textOf(wanted, table), before);
}

function loadFull(tables: NetfilterTables, rules: RuleSet): Record<TableName, string> {
  const update = (table: TableName): string => {
    const kernel = parseKernelTable(tables.save(table));
    const { text } = renderFullUpdate(at(table), textOf(rules, table), kernel);
    tables.load(text);
    return text;
  };
  return { nat: update('nat'), filter: update('filter') };
}

function contents(tables: NetfilterTables): string {
  return TABLES.map((table) => tables.save(table)).join('');
}

function freshContents(rules: RuleSet): string {
  const tables = new NetfilterTables(4);
  tables.load(firstLoadOf(rules));
  return contents(tables);
}

describe('a full update', () => {
  test('from an empty kernel declares every chain before it is used', () => {
    const rules = rulesFor(1, -2);
    const { text, rulesWritten } = renderFullUpdate(at('nat'), textOf(rules, 'nat'), KernelTable.empty);
    const lines = text.split('\n');
    expect(lines[0]).toBe('*nat');
    expect(lines.slice(-2)).toEqual(['COMMIT', '']);
    expect(lines.findLastIndex((line) => line.startsWith(':'))).toBeLessThan(
      lines.findIndex((line) => line.startsWith('-A')),
    );
    expect(rulesWritten).toBe(lines.filter((line) => /^-[AI] (?!USERSPACE-PROXY-CANARY)/.test(line)).length);
    expect(text).not.toMatch(/^-[DXF]/m);
    expect(lines[1]).toBe('-N USERSPACE-PROXY-CANARY');
    expect(lines.at(-3)).toBe(
      '-A USERSPACE-PROXY-CANARY -m comment --comment "generation 1, write 1" -j RETURN',
    );
  });

  test('over itself leaves the kernel as it was, and puts in no second jump', () => {
    const tables = new NetfilterTables(4);
    loadFull(tables, rulesFor(1, -2));
    const before = contents(tables);
    const texts = loadFull(tables, rulesFor(1, -2));
    expect(contents(tables)).toBe(before);
    expect(withoutCanary(Object.values(texts).join(''))).not.toMatch(/^-[IDX]/m);
  });

  test('removes the chains that an earlier version left, and what they hold', () => {
    const tables = new NetfilterTables(4);
    tables.load(`*nat
:USERSPACE-PROXY-OLD - [0:0]
:USERSPACE-PROXY-OLDER - [0:0]
-A USERSPACE-PROXY-OLD -m comment --comment "a b" -j USERSPACE-PROXY-OLDER
-A USERSPACE-PROXY-OLDER -p tcp -m comment --comment "a b" -j REDIRECT --to-ports 1
-I PREROUTING 1 -m comment --comment "a b" -j USERSPACE-PROXY-OLD
COMMIT
`);
    loadFull(tables, rulesFor(1));
    expect(contents(tables)).toBe(freshContents(rulesFor(1)));
  });

  test('removes jumps to such chains from where we no longer have any, or the whole table would be refused', () => {
    const tables = new NetfilterTables(4);
    tables.load(`*nat
:USERSPACE-PROXY-POST - [0:0]
:MINE - [0:0]
-A POSTROUTING -m comment --comment "a b" -j USERSPACE-PROXY-POST
-A MINE -m comment --comment "of a stranger" -j USERSPACE-PROXY-POST
-A MINE -m comment --comment "of a stranger" -j RETURN
COMMIT
`);
    loadFull(tables, rulesFor(1));
    expect(tables.rules('nat', 'POSTROUTING')).toEqual([]);
    expect(tables.rules('nat', 'MINE').map(({ spec }) => spec)).toEqual([
      '-m comment --comment "of a stranger" -j RETURN',
    ]);
    expect(tables.chains('nat')).not.toContain('USERSPACE-PROXY-POST');
  });

  test.each([
    { name: 'doubled', before: ['-A PREROUTING JUMP', '-A PREROUTING JUMP'] },
    { name: 'behind kube-proxy’s', before: ['-A PREROUTING -j KUBE-SERVICES', '-A PREROUTING JUMP'] },
    {
      name: 'one before and one behind',
      before: ['-A PREROUTING JUMP', '-A PREROUTING -j KUBE-SERVICES', '-A PREROUTING JUMP'],
    },
    { name: 'missing', before: ['-A PREROUTING -j KUBE-SERVICES'] },
  ])('puts a jump that is $name first, once', ({ before }) => {
    const jump = '-m comment --comment "Service portals" -j USERSPACE-PROXY-SERVICES';
    const tables = new NetfilterTables(4);
    tables.load(
      ['*nat', ':KUBE-SERVICES - [0:0]', ':USERSPACE-PROXY-SERVICES - [0:0]', ...before, 'COMMIT', '']
        .join('\n')
        .replaceAll('JUMP', jump),
    );
    loadFull(tables, rulesFor(1));
    const kubeProxy = before.some((line) => line.includes('KUBE')) ? ['-j KUBE-SERVICES'] : [];
    expect(tables.rules('nat', 'PREROUTING').map(({ spec }) => spec)).toEqual([jump, ...kubeProxy]);
  });

  test('leaves a jump that stands behind those of other agents where it is', () => {
    const tables = new NetfilterTables(4);
    loadFull(tables, rulesFor(1));
    tables.load('*nat\n:cali-PREROUTING - [0:0]\n-I PREROUTING 1 -j cali-PREROUTING\nCOMMIT\n');
    const before = contents(tables);
    loadFull(tables, rulesFor(1));
    expect(contents(tables)).toBe(before);
  });
});

describe('a partial update', () => {
  test('of what is already there is nothing', () => {
    for (const table of TABLES) {
      const update = partialUpdate(table, rulesFor(1, -2), rulesFor(1, -2));
      expect(update).toEqual({ text: '', rulesWritten: 0 });
    }
  });

  test('writes only the chains that changed', () => {
    const { text } = partialUpdate('nat', rulesFor(1, 2, 4), rulesFor(1, 2));
    expect(text.split('\n').filter((line) => line.startsWith(':'))).toEqual([
      ':USERSPACE-PROXY-10.96.1 - [0:0]',
      ':USERSPACE-PROXY-NP-T29952 - [0:0]',
    ]);
    expect(text).not.toContain('10.96.2.2');
    expect(withoutCanary(text)).not.toMatch(/^-[IDX]/m);
  });

  test('removes a chain that nothing needs any more, after the jump to it', () => {
    const { text } = partialUpdate('nat', rulesFor(1), rulesFor(1, 2));
    expect(text).toContain(':USERSPACE-PROXY-10.96.2 - [0:0]\n');
    expect(withoutCanary(text).trimEnd().split('\n').slice(-2)).toEqual([
      '-X USERSPACE-PROXY-10.96.2',
      'COMMIT',
    ]);
  });

  test.each(seeds(4))('after any number of them the kernel is as after a full one (seed %i)', (seed) => {
    const random = new Random(seed);
    const tables = new NetfilterTables(4);
    let installed = rulesFor();
    loadFull(tables, installed);
    for (let round = 0; round < 40; round += 1) {
      const numbers = Array.from({ length: 200 }, (_, index) => index + 1).filter(() => random.next() < 0.05);
      const wanted = rulesFor(...numbers.map((number) => (random.next() < 0.3 ? -number : number)));
      for (const table of TABLES) {
        tables.load(partialUpdate(table, wanted, installed).text);
      }
      installed = wanted;
      expect(contents(tables)).toBe(freshContents(wanted));
    }
  });
});

/** Rules of Services that have everything by chance, on a node that is seen now so and now so. */
function randomRules(random: Random, family: IpFamily, diversion: Diversion): RuleSet {
  const entries = Array.from({ length: random.below(8) }, (_, index) => {
    const servicePort = randomServicePort(random, index);
    return [servicePort, randomEndpoints(random)] as const;
  });
  const podRange = cidrs('10.244.1.0/24', 'fd00:244:1::/64');
  const node = makeNodeView({
    settings: {
      localhostNodePorts: random.next() < 0.5,
      externalClusterIP: random.next() < 0.5,
      nodePortAddresses: random.pick([[], 'primary', cidrs('192.168.0.0/16', 'fd00:77::/64')] as const),
      localDetection: random.pick([
        { kind: 'none' },
        { kind: 'cidrs', cidrs: podRange },
        { kind: 'interface', name: 'cali+' },
      ] as const),
    },
    node: makeNodeInfo(),
  });
  return ruleSetOf(buildDesiredState(makeSnapshot(...entries), node), family, diversion);
}

describe('of whatever there is of Services and settings', () => {
  const worlds = (['IPv4', 'IPv6'] as const).flatMap((family) => [
    { name: `${family}, redirected`, family, diversion: { kind: 'redirect' } as const },
    { name: `${family}, translated`, family, diversion: dnatTo(family) },
  ]);
  const cases = worlds.flatMap((world) => seeds(2).map((seed) => ({ ...world, seed })));

  test.each(cases)(
    'partial updates end as full ones do: $name (seed $seed)',
    ({ family, diversion, seed }) => {
      const random = new Random(seed);
      const tables = new NetfilterTables(family === 'IPv4' ? 4 : 6);
      let installed = randomRules(random, family, diversion);
      tables.load(firstLoadOf(installed));
      for (let round = 0; round < 60; round += 1) {
        const wanted = randomRules(random, family, diversion);
        for (const table of TABLES) {
          tables.load(partialUpdate(table, wanted, installed).text);
        }
        installed = wanted;
        const fresh = new NetfilterTables(tables.family);
        fresh.load(firstLoadOf(wanted));
        expect(contents(tables)).toBe(contents(fresh));
      }
    },
  );

  test.each(cases)('full ones over anything end as on nothing: $name (seed $seed)', (one) => {
    const random = new Random(one.seed);
    const tables = new NetfilterTables(one.family === 'IPv4' ? 4 : 6);
    for (let round = 0; round < 20; round += 1) {
      const wanted = randomRules(random, one.family, one.diversion);
      loadFull(tables, wanted);
      const fresh = new NetfilterTables(tables.family);
      fresh.load(firstLoadOf(wanted));
      expect(contents(tables)).toBe(contents(fresh));
    }
  });
});

describe('removal', () => {
  const foreign = `*nat
:KUBE-SERVICES - [0:0]
:DOCKER-USER - [0:0]
-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER-USER
-A OUTPUT -m comment --comment "do not -j USERSPACE-PROXY-SERVICES" -j DOCKER-USER
COMMIT
*filter
-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT
COMMIT
`;

  test('takes out everything of ours and nothing of others', () => {
    const tables = new NetfilterTables(4);
    tables.load(foreign);
    const before = contents(tables);
    loadFull(tables, rulesFor(1, -2, 70));
    expect(contents(tables)).not.toBe(before);
    for (const table of TABLES) {
      tables.load(renderRemoval(table, parseKernelTable(tables.save(table))).text);
    }
    expect(contents(tables)).toBe(before);
  });

  test('removes jumps before chains, also those that stand in chains of others', () => {
    const kernel = parseKernelTable(`*nat
:MINE - [0:0]
:USERSPACE-PROXY-A - [0:0]
-A PREROUTING -j USERSPACE-PROXY-A
-A PREROUTING -j USERSPACE-PROXY-A
-A MINE -j USERSPACE-PROXY-A
COMMIT
`);
    expect(renderRemoval('nat', kernel)).toEqual({
      text: `*nat
:USERSPACE-PROXY-A - [0:0]
-D PREROUTING -j USERSPACE-PROXY-A
-D PREROUTING -j USERSPACE-PROXY-A
-D MINE -j USERSPACE-PROXY-A
-X USERSPACE-PROXY-A
COMMIT
`,
      rulesWritten: 0,
    });
  });

  test('of nothing is nothing', () => {
    const tables = new NetfilterTables(4);
    tables.load(foreign);
    for (const table of TABLES) {
      expect(renderRemoval(table, parseKernelTable(tables.save(table))).text).toBe('');
    }
  });
});
