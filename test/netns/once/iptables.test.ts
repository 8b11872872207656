/** Our text and real iptables: what we render loads, is printed back word for word, and goes without a trace. */
import { existsSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { ProxyError } from '../../../src/errors.ts';
import type { Exec } from '../../../src/host/exec.ts';
import { removeRules } from '../../../src/iptables/cleanup.ts';
import { RuleInstaller } from '../../../src/iptables/installer.ts';
import { Iptables } from '../../../src/iptables/iptables.ts';
import type { Diversion } from '../../../src/iptables/portal-rules.ts';
import type { RuleSet, TableName } from '../../../src/iptables/rule.ts';
import type { IpFamily } from '../../../src/model/address.ts';
import { type Lab, canMakeNamespaces, createLab } from '../../support/netns-lab.ts';
import { makeService, makeSlice } from '../../support/objects.ts';
import {
  cidrs,
  desiredFrom,
  dnatTo,
  firstLoadOf,
  type NodeTweak,
  OWN_NODE,
  ruleSetOf,
  withoutWrites,
} from '../../support/rule-fixture.ts';

const reason = canMakeNamespaces();
if (reason !== undefined) process.stderr.write(`skipped, for lack of network namespaces: ${reason}\n`);

const hasLegacy = existsSync('/usr/sbin/iptables-legacy') && existsSync('/usr/sbin/iptables-legacy-restore');
const OWNER = { generation: () => 1 };
const TABLES: readonly TableName[] = ['nat', 'filter'];

/** One of everything, and the edges: the first and last block of ports, an address without any zeros. */
const services = [
  makeService('web', ({ spec }) => {
    spec.clusterIPs = ['10.96.0.10', 'fd00:96::a'];
    spec.externalIPs = ['192.0.2.7', '2001:db8:1:2:3:4:5:6789', '2001:db8:0:1:1:1:1:1'];
    spec.ports = [
      { name: 'http', port: 80, nodePort: 30_080 },
      { name: 'last', port: 65_535, nodePort: 65_535 },
      { name: 'first', port: 1, nodePort: 1, protocol: 'UDP' },
    ];
  }),
  makeService('empty', ({ spec }) => {
    spec.clusterIPs = ['10.97.255.20', 'fd00:96::1:0'];
    spec.externalIPs = ['192.0.2.20'];
    spec.ports = [
      { name: 'dns', port: 53, protocol: 'UDP', nodePort: 30_053 },
      { name: 'dns', port: 53, protocol: 'TCP', nodePort: 30_053 },
    ];
  }),
  ...['near', 'far'].map((name, index) => {
    const service = makeService(name, ({ spec }) => {
      spec.type = 'LoadBalancer';
      spec.clusterIPs = [`10.96.1.${index}`, `fd00:96::1${index}`];
      spec.ports = [{ name: 'http', port: 80, nodePort: 31_080 + index }];
      spec.externalTrafficPolicy = 'Local';
      spec.healthCheckNodePort = 31_000 + index;
      spec.loadBalancerSourceRanges = ['203.0.113.0/24', '2001:db8:2::/48'];
    });
    service.status = {
      loadBalancer: { ingress: [{ ip: `198.51.100.${index}` }, { ip: `2001:db8:9::${index}` }] },
    };
    return service;
  }),
];
const ports = ['http', 'last', 'first'].map((name) => ({
  name,
  port: 8080,
  protocol: name === 'first' ? 'UDP' : 'TCP',
}));
const slices = ['10.244.1.11', 'fd00:244:1::11'].flatMap((address) => [
  makeSlice('web', [address], (slice) => void (slice.ports = ports)),
  ...['near', 'far'].map((name) =>
    makeSlice(name, [address], (slice) => {
      for (const endpoint of slice.endpoints ?? [])
        endpoint.nodeName = name === 'near' ? OWN_NODE : 'another';
    }),
  ),
]);

interface Settings {
  readonly name: string;
  readonly diversionOf: (family: IpFamily) => Diversion;
  readonly settings: NonNullable<NodeTweak['settings']>;
}

/** Between them every kind of rule. */
const SETTINGS: readonly Settings[] = [
  { name: 'REDIRECT', diversionOf: () => ({ kind: 'redirect' }), settings: {} },
  { name: 'DNAT', diversionOf: dnatTo, settings: {} },
  {
    name: 'pods told by address, and much forbidden',
    diversionOf: dnatTo,
    settings: {
      localDetection: { kind: 'cidrs', cidrs: cidrs('10.244.1.0/24', 'fd00:244:1::/64') },
      nodePortAddresses: cidrs('192.168.77.0/24', 'fd00:77::/64'),
      localhostNodePorts: false,
      externalClusterIP: false,
    },
  },
  {
    name: 'pods told by interface',
    diversionOf: () => ({ kind: 'redirect' }),
    settings: { localDetection: { kind: 'interface', name: 'vp+' } },
  },
];

/** As kube-proxy, Docker and an administrator leave them. */
const FOREIGN = `*nat
:DOCKER - [0:0]
:KUBE-SERVICES - [0:0]
-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A OUTPUT -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A DOCKER -p tcp -m tcp --dport 8443 -m comment --comment "never -j USERSPACE-PROXY-SERVICES" -j RETURN
COMMIT
*filter
:DOCKER-USER - [0:0]
-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT
-A FORWARD -j DOCKER-USER
-A DOCKER-USER -j RETURN
COMMIT
`;

interface Variant {
  readonly name: string;
  readonly family: IpFamily;
  /** `iptables`, `ip6tables-legacy`. */
  readonly prefix: string;
}

const variants: readonly Variant[] = [
  { name: 'iptables', family: 'IPv4', prefix: 'iptables' },
  { name: 'ip6tables', family: 'IPv6', prefix: 'ip6tables' },
  ...(hasLegacy
    ? ([
        { name: 'iptables-legacy', family: 'IPv4', prefix: 'iptables-legacy' },
        { name: 'ip6tables-legacy', family: 'IPv6', prefix: 'ip6tables-legacy' },
      ] as const)
    : []),
];

describe.skipIf(reason !== undefined)('on a real kernel', () => {
  let lab: Lab;
  beforeAll(async () => {
    lab = await createLab({ pods: 0 });
  });
  afterAll(async () => {
    await lab.close();
  });

  /** The iptables of a variant in the node's namespace, with every program that was started. */
  function open({ family, prefix }: Variant): { iptables: Iptables; programs: string[] } {
    const programs: string[] = [];
    const exec: Exec = async (command, args, options) => {
      const [, plain, verb] = /^(ip6?tables)-(save|restore)$/.exec(command) ?? [];
      if (plain === undefined || !prefix.startsWith(plain))
        throw new ProxyError('ERR_EXEC_FAILED', `unforeseen: ${command}`);
      programs.push(verb ?? '');
      return lab.node.exec([`${prefix}-${verb}`, ...args], options);
    };
    return { iptables: new Iptables(family, exec), programs };
  }

  async function restore({ prefix }: Variant, input: string): Promise<void> {
    await lab.node.run([`${prefix}-restore`, '--noflush', '-w', '5'], { input });
  }

  /** What the kernel holds, without times, counters and numbers of writes, in the order of iptables-save. */
  async function saved({ prefix }: Variant): Promise<string> {
    let text = '';
    for (const table of TABLES) {
      const lines = (await lab.node.run([`${prefix}-save`, '-t', table])).split('\n');
      text += lines
        .filter((line) => line !== '' && !line.startsWith('#'))
        .map((line) => line.replace(/ \[\d+:\d+\]$/, ''))
        .join('\n')
        .concat('\n');
    }
    return withoutWrites(text);
  }

  async function flush({ prefix }: Variant): Promise<void> {
    for (const table of TABLES) {
      await lab.node.run([prefix, '-w', '5', '-t', table, '-F']);
      await lab.node.run([prefix, '-w', '5', '-t', table, '-X']);
    }
  }

  function rulesFor({ family }: Variant, withEndpoints = true): RuleSet {
    return ruleSetOf(desiredFrom(services, withEndpoints ? slices : []), family);
  }

  describe.each(variants)('$name', (variant) => {
    test.for(SETTINGS)(
      'prints back exactly the rules that we rendered, in their order: $name',
      async (one) => {
        onTestFinished(async () => flush(variant));
        const desired = desiredFrom(services, slices, { settings: one.settings });
        const text = firstLoadOf(ruleSetOf(desired, variant.family, one.diversionOf(variant.family)));
        await restore(variant, text);
        const printed = (await saved(variant)).split('\n');
        const rendered = withoutWrites(text)
          .split('\n')
          .filter((line) => line.startsWith('-A '));
        const chains = new Set(rendered.map((line) => line.split(' ')[1] ?? ''));
        for (const chain of chains) {
          const inChain = (line: string): boolean => line.startsWith(`-A ${chain} `);
          // A name can stand in both tables; there nat comes first in either text.
          expect(printed.filter(inChain)).toEqual(rendered.filter(inChain));
        }
        const jumps = text.split('\n').filter((line) => line.startsWith('-I '));
        for (const jump of jumps) expect(printed).toContain(jump.replace(/^-I (\S+) 1 /, '-A $1 '));
        expect(printed.filter((line) => line.startsWith('-A '))).toHaveLength(rendered.length + jumps.length);
      },
    );

    test('installed by two instances one after the other, holds every rule once', async () => {
      onTestFinished(async () => flush(variant));
      await restore(variant, FOREIGN);
      const first = new RuleInstaller(open(variant).iptables, OWNER);
      await first.install(rulesFor(variant));
      const before = await saved(variant);
      const second = new RuleInstaller(open(variant).iptables, OWNER);
      expect(await second.install(rulesFor(variant))).toMatchObject({ kind: 'full' });
      expect(await saved(variant)).toBe(before);
      expect(await first.verify()).toBeUndefined();
    });

    test('follows partial updates to exactly what a full one gives', async () => {
      onTestFinished(async () => flush(variant));
      const { iptables, programs } = open(variant);
      const installer = new RuleInstaller(iptables, OWNER);
      await installer.install(rulesFor(variant, false));
      const without = await saved(variant);
      await installer.install(rulesFor(variant));
      expect(await installer.verify()).toBeUndefined();
      const withEndpoints = await saved(variant);
      expect(withEndpoints).not.toBe(without);
      await installer.install(rulesFor(variant, false));
      // The chains of nft stand in the order of their making, which may differ: compare the lines.
      expect((await saved(variant)).split('\n').sort()).toEqual(without.split('\n').sort());
      expect(programs.filter((program) => program === 'restore')).toHaveLength(3);
    });

    test('notices what others change, and only in our rules', async () => {
      onTestFinished(async () => flush(variant));
      const installer = new RuleInstaller(open(variant).iptables, OWNER);
      await installer.install(rulesFor(variant));
      await restore(variant, FOREIGN);
      expect(await installer.verify()).toBeUndefined();
      await lab.node.run([variant.prefix, '-w', '5', '-t', 'nat', '-F', 'USERSPACE-PROXY-SERVICES']);
      expect(await installer.verify()).toBe('rules');
      await installer.install(rulesFor(variant));
      expect(await installer.verify()).toBeUndefined();
      await lab.node.run([
        variant.prefix,
        '-w',
        '5',
        '-t',
        'nat',
        '-I',
        'PREROUTING',
        '1',
        '-j',
        'KUBE-SERVICES',
      ]);
      expect(await installer.verify()).toBe('jump');
    });

    test('is as it was before, foreign rules and all, when ours are removed', async () => {
      onTestFinished(async () => flush(variant));
      await restore(variant, FOREIGN);
      const before = await saved(variant);
      const { iptables } = open(variant);
      await new RuleInstaller(iptables, OWNER).install(rulesFor(variant));
      expect(await saved(variant)).not.toBe(before);
      expect(await removeRules(iptables)).toBe(true);
      expect(await saved(variant)).toBe(before);
      expect(await removeRules(iptables)).toBe(false);
    });

    test('lets go of the chains of an earlier version, wherever they are jumped to', async () => {
      onTestFinished(async () => flush(variant));
      await restore(
        variant,
        `*nat
:USERSPACE-PROXY-OLD - [0:0]
:USERSPACE-PROXY-OLDER - [0:0]
-A POSTROUTING -j USERSPACE-PROXY-OLD
-A OUTPUT -j USERSPACE-PROXY-OLD
-A OUTPUT -j USERSPACE-PROXY-OLD
-A USERSPACE-PROXY-OLD -j USERSPACE-PROXY-OLDER
COMMIT
`,
      );
      await new RuleInstaller(open(variant).iptables, OWNER).install(rulesFor(variant));
      expect(await saved(variant)).not.toContain('OLD');
    });

    test('refuses a bad line, which we quote, and keeps what it had', async () => {
      onTestFinished(async () => flush(variant));
      const { iptables } = open(variant);
      await restore(variant, FOREIGN);
      const before = await saved(variant);
      const bad = '-A USERSPACE-PROXY-A -m comment --comment "a b" -j USERSPACE-PROXY-NOWHERE';
      await expect(iptables.restore(`*nat\n:USERSPACE-PROXY-A - [0:0]\n${bad}\nCOMMIT\n`)).rejects.toThrow(
        expect.objectContaining({
          code: 'ERR_IPTABLES_RESTORE',
          message: expect.stringContaining('(line ') as string,
        }) as Error,
      );
      expect(await saved(variant)).toBe(before);
    });
  });
});
