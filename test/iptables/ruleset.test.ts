/** The rules of a small state, whole, and what must hold for every rule of any state. */
import { describe, expect, test } from 'vitest';
import { CHAIN_PREFIX, type Rule, countRules, renderRuleSpec } from '../../src/iptables/rule.ts';
import { buildRuleSet } from '../../src/iptables/ruleset.ts';
import { makeService, makeSlice } from '../support/objects.ts';
import { NetfilterTables } from '../support/netfilter-tables.ts';
import { desiredFrom, firstLoadOf, ruleSetOf } from '../support/rule-fixture.ts';

/** One of everything: both families, a NodePort, an externalIP, TCP and UDP, with endpoints and without. */
const services = [
  makeService('web', ({ spec }) => {
    spec.clusterIPs = ['10.96.0.10', 'fd00:96::a'];
    spec.externalIPs = ['192.0.2.7'];
    spec.ports = [{ name: 'http', port: 80, nodePort: 30_080 }];
  }),
  makeService('dns', ({ spec }) => {
    spec.clusterIPs = ['10.96.1.10', 'fd00:96::1:10'];
    spec.ports = [{ name: 'dns', port: 53, protocol: 'UDP', nodePort: 30_053 }];
  }),
];
const desired = desiredFrom(services, [
  makeSlice('web', ['10.244.1.1']),
  makeSlice('web', ['fd00:244:1::1']),
]);

test('the IPv4 rules of a small state', () => {
  expect(firstLoadOf(ruleSetOf(desired))).toBe(`*nat
-N USERSPACE-PROXY-CANARY
:USERSPACE-PROXY-SERVICES - [0:0]
:USERSPACE-PROXY-NODEPORTS - [0:0]
:USERSPACE-PROXY-10.96.0 - [0:0]
:USERSPACE-PROXY-192.0.2 - [0:0]
:USERSPACE-PROXY-NP-T30080 - [0:0]
-A USERSPACE-PROXY-SERVICES -d 10.96.0.0/24 -m comment --comment "addresses in 10.96.0.0/24" -j USERSPACE-PROXY-10.96.0
-A USERSPACE-PROXY-SERVICES -d 192.0.2.0/24 -m comment --comment "addresses in 192.0.2.0/24" -j USERSPACE-PROXY-192.0.2
-A USERSPACE-PROXY-SERVICES -m addrtype --dst-type LOCAL -m comment --comment "NodePorts: after the addresses" -j USERSPACE-PROXY-NODEPORTS
-A USERSPACE-PROXY-NODEPORTS -p tcp -m comment --comment "ports 30080 to 30143" -m tcp --dport 30080:30143 -j USERSPACE-PROXY-NP-T30080
-A USERSPACE-PROXY-10.96.0 -d 10.96.0.10/32 -p tcp -m comment --comment "default/web:http" -m tcp --dport 80 -j REDIRECT --to-ports 20003
-A USERSPACE-PROXY-192.0.2 -d 192.0.2.7/32 -p tcp -m comment --comment "default/web:http" -m tcp --dport 80 -j REDIRECT --to-ports 20003
-A USERSPACE-PROXY-NP-T30080 -p tcp -m comment --comment "default/web:http" -m tcp --dport 30080 -j REDIRECT --to-ports 20003
-I PREROUTING 1 -m comment --comment "Service portals" -j USERSPACE-PROXY-SERVICES
-I OUTPUT 1 -m comment --comment "Service portals" -j USERSPACE-PROXY-SERVICES
-A USERSPACE-PROXY-CANARY -m comment --comment "generation 1, write 1" -j RETURN
COMMIT
*filter
-N USERSPACE-PROXY-CANARY
:USERSPACE-PROXY-INPUT - [0:0]
:USERSPACE-PROXY-FORWARD - [0:0]
:USERSPACE-PROXY-REFUSE - [0:0]
:USERSPACE-PROXY-G-T19968 - [0:0]
:USERSPACE-PROXY-G-U19968 - [0:0]
:USERSPACE-PROXY-S-U19968 - [0:0]
:USERSPACE-PROXY-INVALID - [0:0]
:USERSPACE-PROXY-NODEPORTS - [0:0]
:USERSPACE-PROXY-10.96.0 - [0:0]
:USERSPACE-PROXY-10.96.1 - [0:0]
:USERSPACE-PROXY-192.0.2 - [0:0]
:USERSPACE-PROXY-NP-T30080 - [0:0]
:USERSPACE-PROXY-NP-U30016 - [0:0]
:USERSPACE-PROXY-NO-ENDPT - [0:0]
:USERSPACE-PROXY-R10.96.1 - [0:0]
:USERSPACE-PROXY-NO-ENDPT-X - [0:0]
:USERSPACE-PROXY-NO-ENDPT-XN - [0:0]
:USERSPACE-PROXY-XNP-U30016 - [0:0]
-A USERSPACE-PROXY-INPUT -m conntrack --ctstate INVALID -m comment --comment "would be answered with a reset" -j USERSPACE-PROXY-INVALID
-A USERSPACE-PROXY-INPUT -p tcp -m comment --comment "ports 19968 to 20031" -m tcp --dport 19968:20031 -j USERSPACE-PROXY-G-T19968
-A USERSPACE-PROXY-INPUT -p udp -m comment --comment "ports 19968 to 20031" -m udp --dport 19968:20031 -j USERSPACE-PROXY-G-U19968
-A USERSPACE-PROXY-INPUT -m comment --comment "external portals without endpoints" -j USERSPACE-PROXY-NO-ENDPT-X
-A USERSPACE-PROXY-FORWARD -m conntrack --ctstate INVALID -m comment --comment "would be answered with a reset" -j USERSPACE-PROXY-INVALID
-A USERSPACE-PROXY-FORWARD -p udp -m addrtype --src-type LOCAL -m comment --comment "ports 19968 to 20031" -m udp --sport 19968:20031 -j USERSPACE-PROXY-S-U19968
-A USERSPACE-PROXY-FORWARD -m comment --comment "clusterIPs without endpoints" -j USERSPACE-PROXY-NO-ENDPT
-A USERSPACE-PROXY-FORWARD -m comment --comment "external portals without endpoints" -j USERSPACE-PROXY-NO-ENDPT-X
-A USERSPACE-PROXY-REFUSE -p tcp -m comment --comment "proxy ports are private" -m tcp --tcp-flags FIN,SYN,RST,ACK SYN -j REJECT --reject-with tcp-reset
-A USERSPACE-PROXY-REFUSE -p udp -m comment --comment "proxy ports are private" -j REJECT --reject-with icmp-port-unreachable
-A USERSPACE-PROXY-REFUSE -m comment --comment "proxy ports are private" -j DROP
-A USERSPACE-PROXY-G-T19968 -p tcp -m conntrack --ctstate DNAT -m comment --comment "default/web:http" -m tcp --dport 20003 -j ACCEPT
-A USERSPACE-PROXY-G-T19968 -p tcp -m comment --comment "default/web:http" -m tcp --dport 20003 -j USERSPACE-PROXY-REFUSE
-A USERSPACE-PROXY-G-U19968 -p udp -m conntrack --ctstate DNAT -m comment --comment "default/dns:dns" -m udp --dport 20001 -j ACCEPT
-A USERSPACE-PROXY-G-U19968 -p udp -m comment --comment "default/dns:dns" -m udp --dport 20001 -j USERSPACE-PROXY-REFUSE
-A USERSPACE-PROXY-S-U19968 -p udp -m comment --comment "default/dns:dns" -m udp --sport 20001 -j DROP
-A USERSPACE-PROXY-INVALID -d 10.96.0.0/24 -m comment --comment "addresses in 10.96.0.0/24" -j USERSPACE-PROXY-10.96.0
-A USERSPACE-PROXY-INVALID -d 10.96.1.0/24 -m comment --comment "addresses in 10.96.1.0/24" -j USERSPACE-PROXY-10.96.1
-A USERSPACE-PROXY-INVALID -d 192.0.2.0/24 -m comment --comment "addresses in 192.0.2.0/24" -j USERSPACE-PROXY-192.0.2
-A USERSPACE-PROXY-INVALID -m addrtype --dst-type LOCAL -m comment --comment "NodePorts: after the addresses" -j USERSPACE-PROXY-NODEPORTS
-A USERSPACE-PROXY-NODEPORTS -p tcp -m comment --comment "ports 30080 to 30143" -m tcp --dport 30080:30143 -j USERSPACE-PROXY-NP-T30080
-A USERSPACE-PROXY-NODEPORTS -p udp -m comment --comment "ports 30016 to 30079" -m udp --dport 30016:30079 -j USERSPACE-PROXY-NP-U30016
-A USERSPACE-PROXY-10.96.0 -d 10.96.0.10/32 -p tcp -m comment --comment "default/web:http is not for stray packets" -m tcp --dport 80 -j DROP
-A USERSPACE-PROXY-10.96.1 -d 10.96.1.10/32 -p udp -m comment --comment "default/dns:dns is not for stray packets" -m udp --dport 53 -j DROP
-A USERSPACE-PROXY-192.0.2 -d 192.0.2.7/32 -p tcp -m comment --comment "default/web:http is not for stray packets" -m tcp --dport 80 -j DROP
-A USERSPACE-PROXY-NP-T30080 -p tcp -m comment --comment "default/web:http is not for stray packets" -m tcp --dport 30080 -j DROP
-A USERSPACE-PROXY-NP-U30016 -p udp -m comment --comment "default/dns:dns is not for stray packets" -m udp --dport 30053 -j DROP
-A USERSPACE-PROXY-NO-ENDPT -d 10.96.1.0/24 -m comment --comment "addresses in 10.96.1.0/24" -j USERSPACE-PROXY-R10.96.1
-A USERSPACE-PROXY-R10.96.1 -d 10.96.1.10/32 -p udp -m comment --comment "default/dns:dns has no endpoints" -m udp --dport 53 -j REJECT --reject-with icmp-port-unreachable
-A USERSPACE-PROXY-NO-ENDPT-X -m addrtype --dst-type LOCAL -m comment --comment "NodePorts: after the addresses" -j USERSPACE-PROXY-NO-ENDPT-XN
-A USERSPACE-PROXY-NO-ENDPT-XN -p udp -m comment --comment "ports 30016 to 30079" -m udp --dport 30016:30079 -j USERSPACE-PROXY-XNP-U30016
-A USERSPACE-PROXY-XNP-U30016 -p udp -m comment --comment "default/dns:dns has no endpoints" -m udp --dport 30053 -j REJECT --reject-with icmp-port-unreachable
-I INPUT 1 -m conntrack --ctstate INVALID,NEW -m comment --comment "Service portals and proxy ports" -j USERSPACE-PROXY-INPUT
-I FORWARD 1 -m conntrack --ctstate INVALID,NEW -m comment --comment "Service portals and proxy ports" -j USERSPACE-PROXY-FORWARD
-I OUTPUT 1 -m conntrack --ctstate INVALID,NEW -m comment --comment "Service portals and proxy ports" -j USERSPACE-PROXY-FORWARD
-A USERSPACE-PROXY-CANARY -m comment --comment "generation 1, write 1" -j RETURN
COMMIT
`);
});

test('the IPv6 rules of a small state', () => {
  expect(firstLoadOf(ruleSetOf(desired, 'IPv6'))).toBe(`*nat
-N USERSPACE-PROXY-CANARY
:USERSPACE-PROXY-SERVICES - [0:0]
:USERSPACE-PROXY-NODEPORTS - [0:0]
:USERSPACE-PROXY-9a76768b4a11 - [0:0]
:USERSPACE-PROXY-NP-T30080 - [0:0]
-A USERSPACE-PROXY-SERVICES -d fd00:96::/120 -m comment --comment "addresses in fd00:96::/120" -j USERSPACE-PROXY-9a76768b4a11
-A USERSPACE-PROXY-SERVICES -m addrtype --dst-type LOCAL -m comment --comment "NodePorts: after the addresses" -j USERSPACE-PROXY-NODEPORTS
-A USERSPACE-PROXY-NODEPORTS -p tcp -m comment --comment "ports 30080 to 30143" -m tcp --dport 30080:30143 -j USERSPACE-PROXY-NP-T30080
-A USERSPACE-PROXY-9a76768b4a11 -d fd00:96::a/128 -p tcp -m comment --comment "default/web:http" -m tcp --dport 80 -j REDIRECT --to-ports 20004
-A USERSPACE-PROXY-NP-T30080 -p tcp -m comment --comment "default/web:http" -m tcp --dport 30080 -j REDIRECT --to-ports 20004
-I PREROUTING 1 -m comment --comment "Service portals" -j USERSPACE-PROXY-SERVICES
-I OUTPUT 1 -m comment --comment "Service portals" -j USERSPACE-PROXY-SERVICES
-A USERSPACE-PROXY-CANARY -m comment --comment "generation 1, write 1" -j RETURN
COMMIT
*filter
-N USERSPACE-PROXY-CANARY
:USERSPACE-PROXY-INPUT - [0:0]
:USERSPACE-PROXY-FORWARD - [0:0]
:USERSPACE-PROXY-REFUSE - [0:0]
:USERSPACE-PROXY-G-T19968 - [0:0]
:USERSPACE-PROXY-G-U19968 - [0:0]
:USERSPACE-PROXY-S-U19968 - [0:0]
:USERSPACE-PROXY-INVALID - [0:0]
:USERSPACE-PROXY-NODEPORTS - [0:0]
:USERSPACE-PROXY-9a76768b4a11 - [0:0]
:USERSPACE-PROXY-a67753464574 - [0:0]
:USERSPACE-PROXY-NP-T30080 - [0:0]
:USERSPACE-PROXY-NP-U30016 - [0:0]
:USERSPACE-PROXY-NO-ENDPT - [0:0]
:USERSPACE-PROXY-Ra6775346457 - [0:0]
:USERSPACE-PROXY-NO-ENDPT-X - [0:0]
:USERSPACE-PROXY-NO-ENDPT-XN - [0:0]
:USERSPACE-PROXY-XNP-U30016 - [0:0]
-A USERSPACE-PROXY-INPUT -m conntrack --ctstate INVALID -m comment --comment "would be answered with a reset" -j USERSPACE-PROXY-INVALID
-A USERSPACE-PROXY-INPUT -p tcp -m comment --comment "ports 19968 to 20031" -m tcp --dport 19968:20031 -j USERSPACE-PROXY-G-T19968
-A USERSPACE-PROXY-INPUT -p udp -m comment --comment "ports 19968 to 20031" -m udp --dport 19968:20031 -j USERSPACE-PROXY-G-U19968
-A USERSPACE-PROXY-INPUT -m comment --comment "external portals without endpoints" -j USERSPACE-PROXY-NO-ENDPT-X
-A USERSPACE-PROXY-FORWARD -m conntrack --ctstate INVALID -m comment --comment "would be answered with a reset" -j USERSPACE-PROXY-INVALID
-A USERSPACE-PROXY-FORWARD -p udp -m addrtype --src-type LOCAL -m comment --comment "ports 19968 to 20031" -m udp --sport 19968:20031 -j USERSPACE-PROXY-S-U19968
-A USERSPACE-PROXY-FORWARD -m comment --comment "clusterIPs without endpoints" -j USERSPACE-PROXY-NO-ENDPT
-A USERSPACE-PROXY-FORWARD -m comment --comment "external portals without endpoints" -j USERSPACE-PROXY-NO-ENDPT-X
-A USERSPACE-PROXY-REFUSE -p tcp -m comment --comment "proxy ports are private" -m tcp --tcp-flags FIN,SYN,RST,ACK SYN -j REJECT --reject-with tcp-reset
-A USERSPACE-PROXY-REFUSE -p udp -m comment --comment "proxy ports are private" -j REJECT --reject-with icmp6-port-unreachable
-A USERSPACE-PROXY-REFUSE -m comment --comment "proxy ports are private" -j DROP
-A USERSPACE-PROXY-G-T19968 -p tcp -m conntrack --ctstate DNAT -m comment --comment "default/web:http" -m tcp --dport 20004 -j ACCEPT
-A USERSPACE-PROXY-G-T19968 -p tcp -m comment --comment "default/web:http" -m tcp --dport 20004 -j USERSPACE-PROXY-REFUSE
-A USERSPACE-PROXY-G-U19968 -p udp -m conntrack --ctstate DNAT -m comment --comment "default/dns:dns" -m udp --dport 20002 -j ACCEPT
-A USERSPACE-PROXY-G-U19968 -p udp -m comment --comment "default/dns:dns" -m udp --dport 20002 -j USERSPACE-PROXY-REFUSE
-A USERSPACE-PROXY-S-U19968 -p udp -m comment --comment "default/dns:dns" -m udp --sport 20002 -j DROP
-A USERSPACE-PROXY-INVALID -d fd00:96::/120 -m comment --comment "addresses in fd00:96::/120" -j USERSPACE-PROXY-9a76768b4a11
-A USERSPACE-PROXY-INVALID -d fd00:96::1:0/120 -m comment --comment "addresses in fd00:96::1:0/120" -j USERSPACE-PROXY-a67753464574
-A USERSPACE-PROXY-INVALID -m addrtype --dst-type LOCAL -m comment --comment "NodePorts: after the addresses" -j USERSPACE-PROXY-NODEPORTS
-A USERSPACE-PROXY-NODEPORTS -p tcp -m comment --comment "ports 30080 to 30143" -m tcp --dport 30080:30143 -j USERSPACE-PROXY-NP-T30080
-A USERSPACE-PROXY-NODEPORTS -p udp -m comment --comment "ports 30016 to 30079" -m udp --dport 30016:30079 -j USERSPACE-PROXY-NP-U30016
-A USERSPACE-PROXY-9a76768b4a11 -d fd00:96::a/128 -p tcp -m comment --comment "default/web:http is not for stray packets" -m tcp --dport 80 -j DROP
-A USERSPACE-PROXY-a67753464574 -d fd00:96::1:10/128 -p udp -m comment --comment "default/dns:dns is not for stray packets" -m udp --dport 53 -j DROP
-A USERSPACE-PROXY-NP-T30080 -p tcp -m comment --comment "default/web:http is not for stray packets" -m tcp --dport 30080 -j DROP
-A USERSPACE-PROXY-NP-U30016 -p udp -m comment --comment "default/dns:dns is not for stray packets" -m udp --dport 30053 -j DROP
-A USERSPACE-PROXY-NO-ENDPT -d fd00:96::1:0/120 -m comment --comment "addresses in fd00:96::1:0/120" -j USERSPACE-PROXY-Ra6775346457
-A USERSPACE-PROXY-Ra6775346457 -d fd00:96::1:10/128 -p udp -m comment --comment "default/dns:dns has no endpoints" -m udp --dport 53 -j REJECT --reject-with icmp6-port-unreachable
-A USERSPACE-PROXY-NO-ENDPT-X -m addrtype --dst-type LOCAL -m comment --comment "NodePorts: after the addresses" -j USERSPACE-PROXY-NO-ENDPT-XN
-A USERSPACE-PROXY-NO-ENDPT-XN -p udp -m comment --comment "ports 30016 to 30079" -m udp --dport 30016:30079 -j USERSPACE-PROXY-XNP-U30016
-A USERSPACE-PROXY-XNP-U30016 -p udp -m comment --comment "default/dns:dns has no endpoints" -m udp --dport 30053 -j REJECT --reject-with icmp6-port-unreachable
-I INPUT 1 -m conntrack --ctstate INVALID,NEW -m comment --comment "Service portals and proxy ports" -j USERSPACE-PROXY-INPUT
-I FORWARD 1 -m conntrack --ctstate INVALID,NEW -m comment --comment "Service portals and proxy ports" -j USERSPACE-PROXY-FORWARD
-I OUTPUT 1 -m conntrack --ctstate INVALID,NEW -m comment --comment "Service portals and proxy ports" -j USERSPACE-PROXY-FORWARD
-A USERSPACE-PROXY-CANARY -m comment --comment "generation 1, write 1" -j RETURN
COMMIT
`);
});

describe('in both families', () => {
  const cases = [
    { name: 'IPv4', family: 4 },
    { name: 'IPv6', family: 6 },
  ] as const;

  test.each(cases)(
    '$name: every rule has a comment, and none translates otherwise than by REDIRECT',
    ({ name, family }) => {
      const text = firstLoadOf(ruleSetOf(desired, name));
      const tables = new NetfilterTables(family);
      tables.load(text);
      for (const table of ['nat', 'filter']) {
        for (const { chain, rule } of tables.allRules(table)) {
          expect({ chain, spec: rule.spec, comment: rule.comment ?? '' }).not.toMatchObject({ comment: '' });
        }
      }
      expect(text).not.toMatch(/DNAT --to|SNAT|MASQUERADE|MARK|KUBE-/);
    },
  );

  test.each(cases)('$name: every chain has our prefix and at most 28 characters', ({ name, family }) => {
    const tables = new NetfilterTables(family);
    const builtIn = new Set(['nat', 'filter'].flatMap((table) => tables.chains(table)));
    tables.load(firstLoadOf(ruleSetOf(desired, name)));
    for (const table of ['nat', 'filter']) {
      const own = tables.chains(table).filter((chain) => !builtIn.has(chain));
      expect(own.length).toBeGreaterThan(0);
      expect(own.filter((chain) => !chain.startsWith(CHAIN_PREFIX) || chain.length > 28)).toEqual([]);
    }
  });

  test.each(cases)('$name: every rule of a portal or proxy port names its Service port', ({ name }) => {
    const rules = ruleSetOf(desired, name);
    const comments = [...rules.nat.chains.values(), ...rules.filter.chains.values()]
      .flat()
      .filter(({ target }) => target.kind === 'redirect' || target.kind === 'accept')
      .map(({ comment }) => comment);
    expect(new Set(comments)).toEqual(new Set(['default/web:http', 'default/dns:dns']));
  });
});

test('the longest chain names there can be fit', () => {
  const many = desiredFrom([
    makeService('a', ({ spec }) => {
      spec.clusterIPs = ['223.255.255.254', 'fd00:ffff:ffff:ffff:ffff:ffff:ffff:ffff'];
      spec.ports = [{ port: 65_535, nodePort: 65_535, protocol: 'UDP' }];
    }),
  ]);
  for (const family of ['IPv4', 'IPv6'] as const) {
    const { nat, filter } = ruleSetOf(many, family);
    const lengths = [...nat.chains.keys(), ...filter.chains.keys()].map((chain) => chain.length);
    expect(Math.max(...lengths)).toBeLessThanOrEqual(28);
  }
});

test('a portal whose listener has no proxy port is not redirected but rejected', () => {
  const rules = buildRuleSet('IPv4', {
    capture: desired.capture,
    proxyPorts: new Map(),
    guardedPorts: [],
    diversion: { kind: 'redirect' },
  });
  const targets = [...rules.nat.chains.values()].flat().map(({ target }) => target.kind);
  expect(targets.filter((kind) => kind !== 'jump')).toEqual([]);
  const rejected = [...rules.filter.chains.values()].flat().filter(({ target }) => target.kind === 'reject');
  expect(rejected.map(({ comment }) => comment)).toEqual(
    expect.arrayContaining(['default/web:http has no listener', 'default/dns:dns has no endpoints']),
  );
});

test('no Services at all leave the skeleton: chains and jumps, and no rule that decides anything', () => {
  const rules = ruleSetOf(desiredFrom([]));
  const targets = [...rules.nat.chains.values(), ...rules.filter.chains.values()].flat();
  const refusing = rules.filter.chains.get(`${CHAIN_PREFIX}REFUSE`)?.length ?? 0;
  expect(targets.filter(({ target }) => target.kind !== 'jump')).toHaveLength(refusing);
  expect(rules.nat.hooks).toHaveLength(2);
  expect(rules.filter.hooks).toHaveLength(3);
});

test('rules are counted with their hooks', () => {
  const { nat } = ruleSetOf(desired);
  expect(countRules(nat)).toBe(2 + [...nat.chains.values()].flat().length);
});

describe('the text of a rule', () => {
  const rule: Rule = { comment: 'default/web:http', target: { kind: 'accept' } };

  test.each<{ name: string; rule: Rule; text: string }>([
    { name: 'a comment alone', rule, text: '-m comment --comment "default/web:http" -j ACCEPT' },
    {
      name: 'a range of ports',
      rule: { ...rule, protocol: 'UDP', destinationPort: [64, 127] },
      text: '-p udp -m comment --comment "default/web:http" -m udp --dport 64:127 -j ACCEPT',
    },
    {
      name: 'a protocol without port',
      rule: { ...rule, protocol: 'TCP' },
      text: '-p tcp -m comment --comment "default/web:http" -j ACCEPT',
    },
    {
      name: 'quotes, backslashes and line breaks in a comment made harmless',
      rule: { ...rule, comment: 'a" -j DROP\\\n*nat\r' },
      text: '-m comment --comment "a_ -j DROP__*nat_" -j ACCEPT',
    },
    {
      name: 'a comment cut at 255 characters',
      rule: { ...rule, comment: 'x y'.repeat(100) },
      text: `-m comment --comment "${'x y'.repeat(85)}" -j ACCEPT`,
    },
  ])('has $name', ({ rule: one, text }) => {
    expect(renderRuleSpec(one, 'IPv4')).toBe(text);
  });

  test('rejects by the ICMP of its family', () => {
    const reject: Rule = { ...rule, target: { kind: 'reject', with: 'port-unreachable' } };
    expect(renderRuleSpec(reject, 'IPv4')).toContain('--reject-with icmp-port-unreachable');
    expect(renderRuleSpec(reject, 'IPv6')).toContain('--reject-with icmp6-port-unreachable');
  });
});
