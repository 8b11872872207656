/** The rules of one Service with every kind of portal, whole: both ways of diverting, both families. */
import { describe, expect, test } from 'vitest';
import { CANARY } from '../../src/iptables/canary.ts';
import { renderFullUpdate } from '../../src/iptables/render.ts';
import { renderTableText } from '../../src/iptables/table-text.ts';
import { KernelTable } from '../../src/iptables/kernel-table.ts';
import type { Diversion } from '../../src/iptables/portal-rules.ts';
import type { TableName } from '../../src/iptables/rule.ts';
import type { IpFamily } from '../../src/model/address.ts';
import { makeService, makeSlice } from '../support/objects.ts';
import { NetfilterTables } from '../support/netfilter-tables.ts';
import { OWN_NODE, cidrs, desiredFrom, dnatTo, firstLoadOf, ruleSetOf } from '../support/rule-fixture.ts';

/**
 * A clusterIP, an externalIP, a load balancer address with source ranges, a NodePort and a health check, in both
 * families; external traffic is Local, and pods are told by their addresses.
 */
const web = makeService('web', ({ spec }) => {
  spec.type = 'LoadBalancer';
  spec.clusterIPs = ['10.96.0.10', 'fd00:96::a'];
  spec.externalIPs = ['192.0.2.7', '2001:db8::7'];
  spec.ports = [{ name: 'http', port: 80, nodePort: 30_080 }];
  spec.externalTrafficPolicy = 'Local';
  spec.healthCheckNodePort = 31_000;
  spec.loadBalancerSourceRanges = ['203.0.113.0/24', '2001:db8:2::/48'];
});
web.status = { loadBalancer: { ingress: [{ ip: '198.51.100.7' }, { ip: '2001:db8:1::7' }] } };

const slices = ['10.244.1.1', 'fd00:244:1::1'].map((address) =>
  makeSlice('web', [address], (slice) => {
    for (const endpoint of slice.endpoints ?? []) endpoint.nodeName = OWN_NODE;
  }),
);

const desired = desiredFrom([web], slices, {
  settings: { localDetection: { kind: 'cidrs', cidrs: cidrs('10.244.1.0/24', 'fd00:244:1::/64') } },
});

const REDIRECT: Diversion = { kind: 'redirect' };

/** What a first start would load for this table, but for the canary. */
function loadOf(table: TableName, family: IpFamily, diversion: Diversion): string {
  const rules = ruleSetOf(desired, family, diversion);
  const wanted = renderTableText(rules[table], family);
  const { text } = renderFullUpdate({ table, stamp: { generation: 1, write: 1 } }, wanted, KernelTable.empty);
  return text.replaceAll(/^-[AN] USERSPACE-PROXY-CANARY.*\n/gm, '');
}

test('nat of IPv4, redirected', () => {
  expect(loadOf('nat', 'IPv4', REDIRECT)).toBe(`*nat
:USERSPACE-PROXY-SERVICES - [0:0]
:USERSPACE-PROXY-NODEPORTS - [0:0]
:USERSPACE-PROXY-10.96.0 - [0:0]
:USERSPACE-PROXY-192.0.2 - [0:0]
:USERSPACE-PROXY-198.51.100 - [0:0]
:USERSPACE-PROXY-NP-T30080 - [0:0]
:USERSPACE-PROXY-Ec7685249cc1 - [0:0]
:USERSPACE-PROXY-F3f8650b3783 - [0:0]
-A USERSPACE-PROXY-SERVICES -d 10.96.0.0/24 -m comment --comment "addresses in 10.96.0.0/24" -j USERSPACE-PROXY-10.96.0
-A USERSPACE-PROXY-SERVICES -d 192.0.2.0/24 -m comment --comment "addresses in 192.0.2.0/24" -j USERSPACE-PROXY-192.0.2
-A USERSPACE-PROXY-SERVICES -d 198.51.100.0/24 -m comment --comment "addresses in 198.51.100.0/24" -j USERSPACE-PROXY-198.51.100
-A USERSPACE-PROXY-SERVICES -m addrtype --dst-type LOCAL -m comment --comment "NodePorts: after the addresses" -j USERSPACE-PROXY-NODEPORTS
-A USERSPACE-PROXY-NODEPORTS -p tcp -m comment --comment "ports 30080 to 30143" -m tcp --dport 30080:30143 -j USERSPACE-PROXY-NP-T30080
-A USERSPACE-PROXY-10.96.0 -d 10.96.0.10/32 -p tcp -m comment --comment "default/web:http" -m tcp --dport 80 -j REDIRECT --to-ports 20001
-A USERSPACE-PROXY-192.0.2 -d 192.0.2.7/32 -p tcp -m comment --comment "default/web:http" -m tcp --dport 80 -j USERSPACE-PROXY-Ec7685249cc1
-A USERSPACE-PROXY-198.51.100 -d 198.51.100.7/32 -p tcp -m comment --comment "default/web:http" -m tcp --dport 80 -j USERSPACE-PROXY-F3f8650b3783
-A USERSPACE-PROXY-NP-T30080 -p tcp -m comment --comment "default/web:http" -m tcp --dport 30080 -j USERSPACE-PROXY-Ec7685249cc1
-A USERSPACE-PROXY-Ec7685249cc1 -s 10.244.1.0/24 -p tcp -m comment --comment "default/web:http from pods" -j REDIRECT --to-ports 20001
-A USERSPACE-PROXY-Ec7685249cc1 -p tcp -m addrtype --src-type LOCAL -m comment --comment "default/web:http from this node" -j REDIRECT --to-ports 20001
-A USERSPACE-PROXY-Ec7685249cc1 -p tcp -m comment --comment "default/web:http from elsewhere" -j REDIRECT --to-ports 20002
-A USERSPACE-PROXY-F3f8650b3783 -s 203.0.113.0/24 -p tcp -m comment --comment "default/web:http loadBalancerSourceRanges" -j USERSPACE-PROXY-Ec7685249cc1
-I PREROUTING 1 -m comment --comment "Service portals" -j USERSPACE-PROXY-SERVICES
-I OUTPUT 1 -m comment --comment "Service portals" -j USERSPACE-PROXY-SERVICES
COMMIT
`);
});

test('nat of IPv4, translated to the private address', () => {
  expect(loadOf('nat', 'IPv4', dnatTo('IPv4'))).toBe(`*nat
:USERSPACE-PROXY-SERVICES - [0:0]
:USERSPACE-PROXY-NODEPORTS - [0:0]
:USERSPACE-PROXY-10.96.0 - [0:0]
:USERSPACE-PROXY-192.0.2 - [0:0]
:USERSPACE-PROXY-198.51.100 - [0:0]
:USERSPACE-PROXY-NP-T30080 - [0:0]
:USERSPACE-PROXY-Ec7685249cc1 - [0:0]
:USERSPACE-PROXY-F3f8650b3783 - [0:0]
-A USERSPACE-PROXY-SERVICES -d 10.96.0.0/24 -m comment --comment "addresses in 10.96.0.0/24" -j USERSPACE-PROXY-10.96.0
-A USERSPACE-PROXY-SERVICES -d 192.0.2.0/24 -m comment --comment "addresses in 192.0.2.0/24" -j USERSPACE-PROXY-192.0.2
-A USERSPACE-PROXY-SERVICES -d 198.51.100.0/24 -m comment --comment "addresses in 198.51.100.0/24" -j USERSPACE-PROXY-198.51.100
-A USERSPACE-PROXY-SERVICES -m addrtype --dst-type LOCAL -m comment --comment "NodePorts: after the addresses" -j USERSPACE-PROXY-NODEPORTS
-A USERSPACE-PROXY-NODEPORTS -p tcp -m comment --comment "ports 30080 to 30143" -m tcp --dport 30080:30143 -j USERSPACE-PROXY-NP-T30080
-A USERSPACE-PROXY-10.96.0 -d 10.96.0.10/32 -p tcp -m comment --comment "default/web:http" -m tcp --dport 80 -j DNAT --to-destination 169.254.77.1:20001
-A USERSPACE-PROXY-192.0.2 -d 192.0.2.7/32 -p tcp -m comment --comment "default/web:http" -m tcp --dport 80 -j USERSPACE-PROXY-Ec7685249cc1
-A USERSPACE-PROXY-198.51.100 -d 198.51.100.7/32 -p tcp -m comment --comment "default/web:http" -m tcp --dport 80 -j USERSPACE-PROXY-F3f8650b3783
-A USERSPACE-PROXY-NP-T30080 -p tcp -m comment --comment "default/web:http" -m tcp --dport 30080 -j USERSPACE-PROXY-Ec7685249cc1
-A USERSPACE-PROXY-Ec7685249cc1 -s 10.244.1.0/24 -p tcp -m comment --comment "default/web:http from pods" -j DNAT --to-destination 169.254.77.1:20001
-A USERSPACE-PROXY-Ec7685249cc1 -p tcp -m addrtype --src-type LOCAL -m comment --comment "default/web:http from this node" -j DNAT --to-destination 169.254.77.1:20001
-A USERSPACE-PROXY-Ec7685249cc1 -p tcp -m comment --comment "default/web:http from elsewhere" -j DNAT --to-destination 169.254.77.1:20002
-A USERSPACE-PROXY-F3f8650b3783 -s 203.0.113.0/24 -p tcp -m comment --comment "default/web:http loadBalancerSourceRanges" -j USERSPACE-PROXY-Ec7685249cc1
-I PREROUTING 1 -m comment --comment "Service portals" -j USERSPACE-PROXY-SERVICES
-I OUTPUT 1 -m comment --comment "Service portals" -j USERSPACE-PROXY-SERVICES
COMMIT
`);
});

test('filter of IPv4: translated, the guards of proxy ports name the private address, and nothing else differs', () => {
  expect(loadOf('filter', 'IPv4', REDIRECT)).toBe(`*filter
:USERSPACE-PROXY-INPUT - [0:0]
:USERSPACE-PROXY-FORWARD - [0:0]
:USERSPACE-PROXY-REFUSE - [0:0]
:USERSPACE-PROXY-G-T19968 - [0:0]
:USERSPACE-PROXY-H-T30976 - [0:0]
:USERSPACE-PROXY-INVALID - [0:0]
:USERSPACE-PROXY-NODEPORTS - [0:0]
:USERSPACE-PROXY-10.96.0 - [0:0]
:USERSPACE-PROXY-192.0.2 - [0:0]
:USERSPACE-PROXY-198.51.100 - [0:0]
:USERSPACE-PROXY-NP-T30080 - [0:0]
:USERSPACE-PROXY-NO-ENDPT - [0:0]
:USERSPACE-PROXY-NO-ENDPT-X - [0:0]
:USERSPACE-PROXY-NO-ENDPT-XN - [0:0]
:USERSPACE-PROXY-X198.51.100 - [0:0]
-A USERSPACE-PROXY-INPUT -m conntrack --ctstate INVALID -m comment --comment "would be answered with a reset" -j USERSPACE-PROXY-INVALID
-A USERSPACE-PROXY-INPUT -p tcp -m comment --comment "ports 19968 to 20031" -m tcp --dport 19968:20031 -j USERSPACE-PROXY-G-T19968
-A USERSPACE-PROXY-INPUT -p tcp -m comment --comment "ports 30976 to 31039" -m tcp --dport 30976:31039 -j USERSPACE-PROXY-H-T30976
-A USERSPACE-PROXY-INPUT -m comment --comment "external portals without endpoints" -j USERSPACE-PROXY-NO-ENDPT-X
-A USERSPACE-PROXY-FORWARD -m conntrack --ctstate INVALID -m comment --comment "would be answered with a reset" -j USERSPACE-PROXY-INVALID
-A USERSPACE-PROXY-FORWARD -m comment --comment "clusterIPs without endpoints" -j USERSPACE-PROXY-NO-ENDPT
-A USERSPACE-PROXY-FORWARD -m comment --comment "external portals without endpoints" -j USERSPACE-PROXY-NO-ENDPT-X
-A USERSPACE-PROXY-REFUSE -p tcp -m comment --comment "proxy ports are private" -m tcp --tcp-flags FIN,SYN,RST,ACK SYN -j REJECT --reject-with tcp-reset
-A USERSPACE-PROXY-REFUSE -p udp -m comment --comment "proxy ports are private" -j REJECT --reject-with icmp-port-unreachable
-A USERSPACE-PROXY-REFUSE -m comment --comment "proxy ports are private" -j DROP
-A USERSPACE-PROXY-G-T19968 -p tcp -m conntrack --ctstate DNAT -m comment --comment "default/web:http" -m tcp --dport 20001 -j ACCEPT
-A USERSPACE-PROXY-G-T19968 -p tcp -m comment --comment "default/web:http" -m tcp --dport 20001 -j USERSPACE-PROXY-REFUSE
-A USERSPACE-PROXY-G-T19968 -p tcp -m conntrack --ctstate DNAT -m comment --comment "default/web:http" -m tcp --dport 20002 -j ACCEPT
-A USERSPACE-PROXY-G-T19968 -p tcp -m comment --comment "default/web:http" -m tcp --dport 20002 -j USERSPACE-PROXY-REFUSE
-A USERSPACE-PROXY-H-T30976 -p tcp -m conntrack --ctstate NEW -m comment --comment "default/web health check" -m tcp --dport 31000 -j ACCEPT
-A USERSPACE-PROXY-INVALID -d 10.96.0.0/24 -m comment --comment "addresses in 10.96.0.0/24" -j USERSPACE-PROXY-10.96.0
-A USERSPACE-PROXY-INVALID -d 192.0.2.0/24 -m comment --comment "addresses in 192.0.2.0/24" -j USERSPACE-PROXY-192.0.2
-A USERSPACE-PROXY-INVALID -d 198.51.100.0/24 -m comment --comment "addresses in 198.51.100.0/24" -j USERSPACE-PROXY-198.51.100
-A USERSPACE-PROXY-INVALID -m addrtype --dst-type LOCAL -m comment --comment "NodePorts: after the addresses" -j USERSPACE-PROXY-NODEPORTS
-A USERSPACE-PROXY-NODEPORTS -p tcp -m comment --comment "ports 30080 to 30143" -m tcp --dport 30080:30143 -j USERSPACE-PROXY-NP-T30080
-A USERSPACE-PROXY-10.96.0 -d 10.96.0.10/32 -p tcp -m comment --comment "default/web:http is not for stray packets" -m tcp --dport 80 -j DROP
-A USERSPACE-PROXY-192.0.2 -d 192.0.2.7/32 -p tcp -m comment --comment "default/web:http is not for stray packets" -m tcp --dport 80 -j DROP
-A USERSPACE-PROXY-198.51.100 -d 198.51.100.7/32 -p tcp -m comment --comment "default/web:http is not for stray packets" -m tcp --dport 80 -j DROP
-A USERSPACE-PROXY-NP-T30080 -p tcp -m comment --comment "default/web:http is not for stray packets" -m tcp --dport 30080 -j DROP
-A USERSPACE-PROXY-NO-ENDPT-X -d 198.51.100.0/24 -m comment --comment "addresses in 198.51.100.0/24" -j USERSPACE-PROXY-X198.51.100
-A USERSPACE-PROXY-NO-ENDPT-X -m addrtype --dst-type LOCAL -m comment --comment "NodePorts: after the addresses" -j USERSPACE-PROXY-NO-ENDPT-XN
-A USERSPACE-PROXY-X198.51.100 -d 198.51.100.7/32 -p tcp -m comment --comment "default/web:http is only for its loadBalancerSourceRanges" -m tcp --dport 80 -j DROP
-I INPUT 1 -m conntrack --ctstate INVALID,NEW -m comment --comment "Service portals and proxy ports" -j USERSPACE-PROXY-INPUT
-I FORWARD 1 -m conntrack --ctstate INVALID,NEW -m comment --comment "Service portals and proxy ports" -j USERSPACE-PROXY-FORWARD
-I OUTPUT 1 -m conntrack --ctstate INVALID,NEW -m comment --comment "Service portals and proxy ports" -j USERSPACE-PROXY-FORWARD
COMMIT
`);
  const guarded = loadOf('filter', 'IPv4', REDIRECT).replaceAll(
    /^(-A USERSPACE-PROXY-G-\S+) /gm,
    '$1 -d 169.254.77.1/32 ',
  );
  expect(loadOf('filter', 'IPv4', dnatTo('IPv4'))).toBe(guarded);
});

test('nat of IPv6, redirected', () => {
  expect(loadOf('nat', 'IPv6', REDIRECT)).toBe(`*nat
:USERSPACE-PROXY-SERVICES - [0:0]
:USERSPACE-PROXY-NODEPORTS - [0:0]
:USERSPACE-PROXY-0055b7516f98 - [0:0]
:USERSPACE-PROXY-5ab1acde74c9 - [0:0]
:USERSPACE-PROXY-9a76768b4a11 - [0:0]
:USERSPACE-PROXY-NP-T30080 - [0:0]
:USERSPACE-PROXY-E5ff66e6037b - [0:0]
:USERSPACE-PROXY-F8e9a4928774 - [0:0]
-A USERSPACE-PROXY-SERVICES -d 2001:db8:1::/120 -m comment --comment "addresses in 2001:db8:1::/120" -j USERSPACE-PROXY-0055b7516f98
-A USERSPACE-PROXY-SERVICES -d 2001:db8::/120 -m comment --comment "addresses in 2001:db8::/120" -j USERSPACE-PROXY-5ab1acde74c9
-A USERSPACE-PROXY-SERVICES -d fd00:96::/120 -m comment --comment "addresses in fd00:96::/120" -j USERSPACE-PROXY-9a76768b4a11
-A USERSPACE-PROXY-SERVICES -m addrtype --dst-type LOCAL -m comment --comment "NodePorts: after the addresses" -j USERSPACE-PROXY-NODEPORTS
-A USERSPACE-PROXY-NODEPORTS -p tcp -m comment --comment "ports 30080 to 30143" -m tcp --dport 30080:30143 -j USERSPACE-PROXY-NP-T30080
-A USERSPACE-PROXY-0055b7516f98 -d 2001:db8:1::7/128 -p tcp -m comment --comment "default/web:http" -m tcp --dport 80 -j USERSPACE-PROXY-F8e9a4928774
-A USERSPACE-PROXY-5ab1acde74c9 -d 2001:db8::7/128 -p tcp -m comment --comment "default/web:http" -m tcp --dport 80 -j USERSPACE-PROXY-E5ff66e6037b
-A USERSPACE-PROXY-9a76768b4a11 -d fd00:96::a/128 -p tcp -m comment --comment "default/web:http" -m tcp --dport 80 -j REDIRECT --to-ports 20003
-A USERSPACE-PROXY-NP-T30080 -p tcp -m comment --comment "default/web:http" -m tcp --dport 30080 -j USERSPACE-PROXY-E5ff66e6037b
-A USERSPACE-PROXY-E5ff66e6037b -s fd00:244:1::/64 -p tcp -m comment --comment "default/web:http from pods" -j REDIRECT --to-ports 20003
-A USERSPACE-PROXY-E5ff66e6037b -p tcp -m addrtype --src-type LOCAL -m comment --comment "default/web:http from this node" -j REDIRECT --to-ports 20003
-A USERSPACE-PROXY-E5ff66e6037b -p tcp -m comment --comment "default/web:http from elsewhere" -j REDIRECT --to-ports 20004
-A USERSPACE-PROXY-F8e9a4928774 -s 2001:db8:2::/48 -p tcp -m comment --comment "default/web:http loadBalancerSourceRanges" -j USERSPACE-PROXY-E5ff66e6037b
-I PREROUTING 1 -m comment --comment "Service portals" -j USERSPACE-PROXY-SERVICES
-I OUTPUT 1 -m comment --comment "Service portals" -j USERSPACE-PROXY-SERVICES
COMMIT
`);
});

test('nat of IPv6, translated to the private address', () => {
  expect(loadOf('nat', 'IPv6', dnatTo('IPv6'))).toBe(`*nat
:USERSPACE-PROXY-SERVICES - [0:0]
:USERSPACE-PROXY-NODEPORTS - [0:0]
:USERSPACE-PROXY-0055b7516f98 - [0:0]
:USERSPACE-PROXY-5ab1acde74c9 - [0:0]
:USERSPACE-PROXY-9a76768b4a11 - [0:0]
:USERSPACE-PROXY-NP-T30080 - [0:0]
:USERSPACE-PROXY-E5ff66e6037b - [0:0]
:USERSPACE-PROXY-F8e9a4928774 - [0:0]
-A USERSPACE-PROXY-SERVICES -d 2001:db8:1::/120 -m comment --comment "addresses in 2001:db8:1::/120" -j USERSPACE-PROXY-0055b7516f98
-A USERSPACE-PROXY-SERVICES -d 2001:db8::/120 -m comment --comment "addresses in 2001:db8::/120" -j USERSPACE-PROXY-5ab1acde74c9
-A USERSPACE-PROXY-SERVICES -d fd00:96::/120 -m comment --comment "addresses in fd00:96::/120" -j USERSPACE-PROXY-9a76768b4a11
-A USERSPACE-PROXY-SERVICES -m addrtype --dst-type LOCAL -m comment --comment "NodePorts: after the addresses" -j USERSPACE-PROXY-NODEPORTS
-A USERSPACE-PROXY-NODEPORTS -p tcp -m comment --comment "ports 30080 to 30143" -m tcp --dport 30080:30143 -j USERSPACE-PROXY-NP-T30080
-A USERSPACE-PROXY-0055b7516f98 -d 2001:db8:1::7/128 -p tcp -m comment --comment "default/web:http" -m tcp --dport 80 -j USERSPACE-PROXY-F8e9a4928774
-A USERSPACE-PROXY-5ab1acde74c9 -d 2001:db8::7/128 -p tcp -m comment --comment "default/web:http" -m tcp --dport 80 -j USERSPACE-PROXY-E5ff66e6037b
-A USERSPACE-PROXY-9a76768b4a11 -d fd00:96::a/128 -p tcp -m comment --comment "default/web:http" -m tcp --dport 80 -j DNAT --to-destination [fd6b:7570:77::1]:20003
-A USERSPACE-PROXY-NP-T30080 -p tcp -m comment --comment "default/web:http" -m tcp --dport 30080 -j USERSPACE-PROXY-E5ff66e6037b
-A USERSPACE-PROXY-E5ff66e6037b -s fd00:244:1::/64 -p tcp -m comment --comment "default/web:http from pods" -j DNAT --to-destination [fd6b:7570:77::1]:20003
-A USERSPACE-PROXY-E5ff66e6037b -p tcp -m addrtype --src-type LOCAL -m comment --comment "default/web:http from this node" -j DNAT --to-destination [fd6b:7570:77::1]:20003
-A USERSPACE-PROXY-E5ff66e6037b -p tcp -m comment --comment "default/web:http from elsewhere" -j DNAT --to-destination [fd6b:7570:77::1]:20004
-A USERSPACE-PROXY-F8e9a4928774 -s 2001:db8:2::/48 -p tcp -m comment --comment "default/web:http loadBalancerSourceRanges" -j USERSPACE-PROXY-E5ff66e6037b
-I PREROUTING 1 -m comment --comment "Service portals" -j USERSPACE-PROXY-SERVICES
-I OUTPUT 1 -m comment --comment "Service portals" -j USERSPACE-PROXY-SERVICES
COMMIT
`);
});

test('filter of IPv6: translated, the guards of proxy ports name the private address, and nothing else differs', () => {
  expect(loadOf('filter', 'IPv6', REDIRECT)).toBe(`*filter
:USERSPACE-PROXY-INPUT - [0:0]
:USERSPACE-PROXY-FORWARD - [0:0]
:USERSPACE-PROXY-REFUSE - [0:0]
:USERSPACE-PROXY-G-T19968 - [0:0]
:USERSPACE-PROXY-H-T30976 - [0:0]
:USERSPACE-PROXY-INVALID - [0:0]
:USERSPACE-PROXY-NODEPORTS - [0:0]
:USERSPACE-PROXY-0055b7516f98 - [0:0]
:USERSPACE-PROXY-5ab1acde74c9 - [0:0]
:USERSPACE-PROXY-9a76768b4a11 - [0:0]
:USERSPACE-PROXY-NP-T30080 - [0:0]
:USERSPACE-PROXY-NO-ENDPT - [0:0]
:USERSPACE-PROXY-NO-ENDPT-X - [0:0]
:USERSPACE-PROXY-NO-ENDPT-XN - [0:0]
:USERSPACE-PROXY-X0055b7516f9 - [0:0]
-A USERSPACE-PROXY-INPUT -m conntrack --ctstate INVALID -m comment --comment "would be answered with a reset" -j USERSPACE-PROXY-INVALID
-A USERSPACE-PROXY-INPUT -p tcp -m comment --comment "ports 19968 to 20031" -m tcp --dport 19968:20031 -j USERSPACE-PROXY-G-T19968
-A USERSPACE-PROXY-INPUT -p tcp -m comment --comment "ports 30976 to 31039" -m tcp --dport 30976:31039 -j USERSPACE-PROXY-H-T30976
-A USERSPACE-PROXY-INPUT -m comment --comment "external portals without endpoints" -j USERSPACE-PROXY-NO-ENDPT-X
-A USERSPACE-PROXY-FORWARD -m conntrack --ctstate INVALID -m comment --comment "would be answered with a reset" -j USERSPACE-PROXY-INVALID
-A USERSPACE-PROXY-FORWARD -m comment --comment "clusterIPs without endpoints" -j USERSPACE-PROXY-NO-ENDPT
-A USERSPACE-PROXY-FORWARD -m comment --comment "external portals without endpoints" -j USERSPACE-PROXY-NO-ENDPT-X
-A USERSPACE-PROXY-REFUSE -p tcp -m comment --comment "proxy ports are private" -m tcp --tcp-flags FIN,SYN,RST,ACK SYN -j REJECT --reject-with tcp-reset
-A USERSPACE-PROXY-REFUSE -p udp -m comment --comment "proxy ports are private" -j REJECT --reject-with icmp6-port-unreachable
-A USERSPACE-PROXY-REFUSE -m comment --comment "proxy ports are private" -j DROP
-A USERSPACE-PROXY-G-T19968 -p tcp -m conntrack --ctstate DNAT -m comment --comment "default/web:http" -m tcp --dport 20003 -j ACCEPT
-A USERSPACE-PROXY-G-T19968 -p tcp -m comment --comment "default/web:http" -m tcp --dport 20003 -j USERSPACE-PROXY-REFUSE
-A USERSPACE-PROXY-G-T19968 -p tcp -m conntrack --ctstate DNAT -m comment --comment "default/web:http" -m tcp --dport 20004 -j ACCEPT
-A USERSPACE-PROXY-G-T19968 -p tcp -m comment --comment "default/web:http" -m tcp --dport 20004 -j USERSPACE-PROXY-REFUSE
-A USERSPACE-PROXY-H-T30976 -p tcp -m conntrack --ctstate NEW -m comment --comment "default/web health check" -m tcp --dport 31000 -j ACCEPT
-A USERSPACE-PROXY-INVALID -d 2001:db8:1::/120 -m comment --comment "addresses in 2001:db8:1::/120" -j USERSPACE-PROXY-0055b7516f98
-A USERSPACE-PROXY-INVALID -d 2001:db8::/120 -m comment --comment "addresses in 2001:db8::/120" -j USERSPACE-PROXY-5ab1acde74c9
-A USERSPACE-PROXY-INVALID -d fd00:96::/120 -m comment --comment "addresses in fd00:96::/120" -j USERSPACE-PROXY-9a76768b4a11
-A USERSPACE-PROXY-INVALID -m addrtype --dst-type LOCAL -m comment --comment "NodePorts: after the addresses" -j USERSPACE-PROXY-NODEPORTS
-A USERSPACE-PROXY-NODEPORTS -p tcp -m comment --comment "ports 30080 to 30143" -m tcp --dport 30080:30143 -j USERSPACE-PROXY-NP-T30080
-A USERSPACE-PROXY-0055b7516f98 -d 2001:db8:1::7/128 -p tcp -m comment --comment "default/web:http is not for stray packets" -m tcp --dport 80 -j DROP
-A USERSPACE-PROXY-5ab1acde74c9 -d 2001:db8::7/128 -p tcp -m comment --comment "default/web:http is not for stray packets" -m tcp --dport 80 -j DROP
-A USERSPACE-PROXY-9a76768b4a11 -d fd00:96::a/128 -p tcp -m comment --comment "default/web:http is not for stray packets" -m tcp --dport 80 -j DROP
-A USERSPACE-PROXY-NP-T30080 -p tcp -m comment --comment "default/web:http is not for stray packets" -m tcp --dport 30080 -j DROP
-A USERSPACE-PROXY-NO-ENDPT-X -d 2001:db8:1::/120 -m comment --comment "addresses in 2001:db8:1::/120" -j USERSPACE-PROXY-X0055b7516f9
-A USERSPACE-PROXY-NO-ENDPT-X -m addrtype --dst-type LOCAL -m comment --comment "NodePorts: after the addresses" -j USERSPACE-PROXY-NO-ENDPT-XN
-A USERSPACE-PROXY-X0055b7516f9 -d 2001:db8:1::7/128 -p tcp -m comment --comment "default/web:http is only for its loadBalancerSourceRanges" -m tcp --dport 80 -j DROP
-I INPUT 1 -m conntrack --ctstate INVALID,NEW -m comment --comment "Service portals and proxy ports" -j USERSPACE-PROXY-INPUT
-I FORWARD 1 -m conntrack --ctstate INVALID,NEW -m comment --comment "Service portals and proxy ports" -j USERSPACE-PROXY-FORWARD
-I OUTPUT 1 -m conntrack --ctstate INVALID,NEW -m comment --comment "Service portals and proxy ports" -j USERSPACE-PROXY-FORWARD
COMMIT
`);
  const guarded = loadOf('filter', 'IPv6', REDIRECT).replaceAll(
    /^(-A USERSPACE-PROXY-G-\S+) /gm,
    '$1 -d fd6b:7570:77::1/128 ',
  );
  expect(loadOf('filter', 'IPv6', dnatTo('IPv6'))).toBe(guarded);
});

describe('what must hold for every rule', () => {
  const cases = (['IPv4', 'IPv6'] as const).flatMap((family) => [
    { name: `${family}, redirected`, family, diversion: REDIRECT },
    { name: `${family}, translated`, family, diversion: dnatTo(family) },
  ]);

  test.each(cases)('$name: a kernel takes them, each has a comment, and no chain too long a name', (one) => {
    const tables = new NetfilterTables(one.family === 'IPv4' ? 4 : 6);
    tables.load(firstLoadOf(ruleSetOf(desired, one.family, one.diversion)));
    const rules = ['nat', 'filter'].flatMap((table) => tables.allRules(table));
    expect(rules.filter(({ rule }) => (rule.comment ?? '') === '')).toEqual([]);
    expect(rules.filter(({ chain }) => chain.length > 28)).toEqual([]);
  });

  test.each(cases)('$name: packets are diverted in this way only, and never to another node', (one) => {
    const tables = new NetfilterTables(one.family === 'IPv4' ? 4 : 6);
    tables.load(firstLoadOf(ruleSetOf(desired, one.family, one.diversion)));
    const traversed = tables.allRules('nat').filter(({ chain }) => chain !== CANARY);
    const verdicts = traversed.map(({ rule }) => rule.verdict);
    const kinds = new Set(verdicts.map(({ kind }) => kind));
    expect(kinds).toEqual(new Set(['jump', one.diversion.kind]));
    const places = verdicts.flatMap((verdict) => (verdict.kind === 'dnat' ? [verdict.address] : []));
    expect(new Set(places)).toEqual(new Set(one.diversion.kind === 'dnat' ? [one.diversion.address] : []));
  });
});
