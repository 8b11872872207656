/** The packet tracer itself: what it takes a rule to mean, how it walks, and what it refuses to read. */
import { BlockList } from 'node:net';
import { describe, expect, test } from 'vitest';
import { differenceBetween, fateFromTrace } from '../support/fate.ts';
import { NetfilterTables } from '../support/netfilter-tables.ts';
import {
  type Hook,
  type Packet,
  PacketTracer,
  type Trace,
  makePacket,
  tracerOf,
} from '../support/packet-tracer.ts';
import { Random, seeds } from '../support/random.ts';

type Family = 4 | 6;

const FAMILIES = [4, 6] as const;
const BITS = { 4: 32, 6: 128 } as const;

interface Around {
  readonly family?: Family;
  readonly hook?: Hook;
}

/** Does a rule with these matches take the packet? It stands in a chain that every hook of filter leads to. */
function isTaken(
  match: string,
  packet: Partial<Packet>,
  { family = 4, hook = 'prerouting' }: Around = {},
): boolean {
  const hooks = ['INPUT', 'FORWARD', 'OUTPUT'].map((chain) => `-A ${chain} -j ALL-1`).join('\n');
  const tracer = tracerOf(`*filter\n:ALL-1 - [0:0]\n${hooks}\n-A ALL-1 ${match} -j DROP\nCOMMIT\n`, family);
  const other = family === 4 ? {} : { src: 'fd00:244:1::11', dst: '2001:db8::1' };
  return tracer.trace(hook, makePacket({ ...other, ...packet })).verdict === 'drop';
}

/** What becomes of a packet where these rules are all that nat has. Every packet from anywhere enters by ALL-1. */
function natTrace(
  rules: string,
  packet: Partial<Packet>,
  { family = 4, hook = 'prerouting' }: Around = {},
): Trace {
  const text = `*nat\n:ALL-1 - [0:0]\n-A PREROUTING -j ALL-1\n-A OUTPUT -j ALL-1\n${rules}\nCOMMIT\n`;
  return tracerOf(text, family).trace(hook, makePacket(packet));
}

describe('a prefix', () => {
  test.each(seeds(10))('holds the addresses that Node says it holds, at any length, seed %i', (seed) => {
    const random = new Random(seed);
    for (const family of FAMILIES) {
      const bits = BITS[family];
      for (let round = 0; round < 40; round += 1) {
        const length = random.below(bits + 1);
        const inside = randomBits(random, bits);
        // One bit off is where a wrong length shows.
        const oneOff = inside ^ (1n << BigInt(random.below(bits)));
        const hostBits = BigInt(bits - length);
        const network = addressText((inside >> hostBits) << hostBits, family);
        const list = new BlockList();
        list.addSubnet(network, length, `ipv${family}`);
        for (const address of [inside, oneOff, randomBits(random, bits)].map((number) =>
          addressText(number, family),
        )) {
          const expected = list.check(address, `ipv${family}`);
          const prefix = `${network}/${length}`;
          const seen = {
            destination: isTaken(`-d ${prefix}`, { dst: address }, { family }),
            notDestination: isTaken(`! -d ${prefix}`, { dst: address }, { family }),
            source: isTaken(`-s ${prefix}`, { src: address }, { family }),
            notSource: isTaken(`! -s ${prefix}`, { src: address }, { family }),
          };
          expect(seen, `${address} in ${prefix}`).toEqual({
            destination: expected,
            notDestination: !expected,
            source: expected,
            notSource: !expected,
          });
        }
      }
    }
  });

  test.each([
    { prefix: '::ffff:1.2.3.4/128', address: '::ffff:102:304' },
    { prefix: '::ffff:102:304/128', address: '::ffff:1.2.3.4' },
    { prefix: '1:2:3:4:5:6:7:0/128', address: '1:2:3:4:5:6:7::' },
    { prefix: '::/127', address: '::1' },
    { prefix: '::/0', address: 'ff02::1' },
  ])('$prefix holds $address, however they are written', ({ prefix, address }) => {
    expect(isTaken(`-d ${prefix}`, { dst: address }, { family: 6 })).toBe(true);
  });
});

describe('an interface', () => {
  test.each<{ match: string; inInterface: string; expected: boolean }>([
    { match: '-i cni0', inInterface: 'cni0', expected: true },
    { match: '-i cni0', inInterface: 'cni01', expected: false },
    { match: '-i cni0', inInterface: 'cni', expected: false },
    { match: '-i cni+', inInterface: 'cni0', expected: true },
    { match: '-i cni+', inInterface: 'cni', expected: true },
    { match: '-i cni+', inInterface: 'xcni', expected: false },
    { match: '! -i cni0', inInterface: 'eth0', expected: true },
    { match: '! -i cni+', inInterface: 'cni0', expected: false },
  ])('$match, a packet by $inInterface: $expected', ({ match, inInterface, expected }) => {
    expect(isTaken(match, { inInterface })).toBe(expected);
  });

  test('is none in OUTPUT, and lo in the INPUT that follows, whatever the packet says', () => {
    const local = { dst: '192.168.77.2', isDstLocal: true, inInterface: 'cni0' };
    expect(isTaken('-i cni0', local, { hook: 'output' })).toBe(false);
    expect(isTaken('-i lo', local, { hook: 'output' })).toBe(true);
    expect(isTaken('-i lo', { ...local, isDstLocal: false }, { hook: 'output' })).toBe(false);
    expect(isTaken('! -i cni0', { ...local, isDstLocal: false }, { hook: 'output' })).toBe(true);
  });
});

describe('local addresses', () => {
  const both = '-m addrtype --src-type LOCAL --dst-type LOCAL';

  test('of source and destination may be asked for in one match', () => {
    expect(isTaken(both, { isSrcLocal: true, isDstLocal: true })).toBe(true);
    expect(isTaken(both, { isSrcLocal: true, isDstLocal: false })).toBe(false);
    expect(isTaken(both, { isSrcLocal: false, isDstLocal: true })).toBe(false);
  });

  test('are those of what the node sends, unless the packet says otherwise', () => {
    const match = '-m addrtype --src-type LOCAL';
    expect(isTaken(match, {}, { hook: 'output' })).toBe(true);
    expect(isTaken(match, { isSrcLocal: false }, { hook: 'output' })).toBe(false);
    expect(isTaken(match, {})).toBe(false);
    expect(isTaken(match, { isSrcLocal: true })).toBe(true);
  });
});

describe('the original destination', () => {
  const redirect = '-A PREROUTING -d 10.96.0.0/24 -p tcp -j REDIRECT --to-ports 20001';
  const input = (match: string): PacketTracer =>
    tracerOf(`*nat\n${redirect}\nCOMMIT\n*filter\n-A INPUT -m conntrack ${match} -j ACCEPT\nCOMMIT\n`);
  const isAccepted = (match: string, packet: Partial<Packet>): boolean =>
    input(match).trace('prerouting', makePacket(packet)).verdict === 'accept';

  test('is the one before the translation', () => {
    expect(isAccepted('--ctorigdst 10.96.0.10', { dst: '10.96.0.10' })).toBe(true);
    expect(isAccepted('--ctorigdst 10.96.0.10', { dst: '10.96.0.11' })).toBe(false);
    expect(isAccepted('--ctstate DNAT --ctorigdst 10.96.0.0/28', { dst: '10.96.0.10' })).toBe(true);
    expect(isAccepted('--ctstate DNAT --ctorigdst 10.96.0.0/28', { dst: '10.96.0.16' })).toBe(false);
    expect(isAccepted('--ctorigdst 192.0.2.8', { dst: '192.0.2.8', isDstLocal: true })).toBe(true);
  });

  test('can be told with a packet that was translated before', () => {
    const packet = { dst: '127.0.0.1', isDstLocal: true, isDnat: true, originalDst: '10.96.0.10' };
    expect(input('--ctorigdst 10.96.0.10').trace('input', makePacket(packet)).verdict).toBe('accept');
  });

  test('is not known of an INVALID packet, of which only the state is looked at', () => {
    const packet = { dst: '192.0.2.8', isDstLocal: true, ctstate: 'INVALID' } as const;
    expect(isAccepted('--ctorigdst 192.0.2.8', packet)).toBe(false);
    expect(isAccepted('--ctstate INVALID --ctorigdst 192.0.2.9', packet)).toBe(true);
    expect(isAccepted('--ctstate NEW,DNAT --ctorigdst 192.0.2.8', { ...packet, isDnat: true })).toBe(false);
  });
});

describe('a translation', () => {
  test.each<{ name: string; rule: string; hook: Hook; family?: Family; expected: Trace['deliveredTo'] }>([
    {
      name: 'REDIRECT of what comes in: to an address that depends on the interface',
      rule: '-p tcp -j REDIRECT --to-ports 20001',
      hook: 'prerouting',
      expected: { address: undefined, port: 20_001 },
    },
    {
      name: 'REDIRECT of what the node sends: to loopback',
      rule: '-p tcp -j REDIRECT --to-ports 20001',
      hook: 'output',
      expected: { address: '127.0.0.1', port: 20_001 },
    },
    {
      name: 'REDIRECT in IPv6',
      rule: '-p tcp -j REDIRECT --to-ports 20001',
      hook: 'output',
      family: 6,
      expected: { address: '::1', port: 20_001 },
    },
    {
      name: 'DNAT',
      rule: '-p tcp -j DNAT --to-destination 169.254.77.1:20001',
      hook: 'prerouting',
      expected: { address: '169.254.77.1', port: 20_001 },
    },
    {
      name: 'DNAT in IPv6',
      rule: '-p tcp -j DNAT --to-destination [fd00:77:1::1]:20001',
      hook: 'output',
      family: 6,
      expected: { address: 'fd00:77:1::1', port: 20_001 },
    },
    {
      name: 'DNAT that keeps the port',
      rule: '-j DNAT --to-destination 169.254.77.1',
      hook: 'prerouting',
      expected: { address: '169.254.77.1', port: 80 },
    },
    {
      name: 'DNAT that keeps the port, in IPv6',
      rule: '-j DNAT --to-destination fd00:77:1::1',
      hook: 'prerouting',
      family: 6,
      expected: { address: 'fd00:77:1::1', port: 80 },
    },
  ])('$name', ({ rule, hook, family = 4, expected }) => {
    const dst = family === 4 ? '10.96.0.10' : 'fd00:96::a';
    const trace = natTrace(`-A ALL-1 ${rule}`, { dst }, { hook, family });
    expect(trace).toMatchObject({ verdict: 'none', redirectedTo: expected?.port, deliveredTo: expected });
  });

  const text = (guard: string): string => `*nat
-A PREROUTING -d 10.96.0.10/32 -p tcp -j DNAT --to-destination 169.254.77.1:20001
-A OUTPUT -d 10.96.0.10/32 -p tcp -j REDIRECT --to-ports 20001
COMMIT
*filter
-A FORWARD -j DROP
${guard}
COMMIT
`;

  test.each<{ guard: string; hook: Hook; expected: Trace['verdict'] }>([
    { guard: '-A INPUT -m conntrack --ctstate DNAT -j ACCEPT', hook: 'prerouting', expected: 'accept' },
    { guard: '-A INPUT -p tcp -m tcp --dport 20001 -j ACCEPT', hook: 'prerouting', expected: 'accept' },
    { guard: '-A INPUT -p tcp -m tcp --dport 80 -j DROP', hook: 'prerouting', expected: 'none' },
    { guard: '-A INPUT -d 169.254.77.1/32 -j ACCEPT', hook: 'prerouting', expected: 'accept' },
    { guard: '-A INPUT -d 10.96.0.10/32 -j DROP', hook: 'prerouting', expected: 'none' },
    { guard: '-A INPUT -m addrtype --dst-type LOCAL -j ACCEPT', hook: 'prerouting', expected: 'accept' },
    {
      guard: '-A OUTPUT -d 127.0.0.1/32 -p tcp -m tcp --dport 20001 -j ACCEPT',
      hook: 'output',
      expected: 'accept',
    },
    { guard: '-A OUTPUT -d 10.96.0.10/32 -j DROP', hook: 'output', expected: 'none' },
    { guard: '-A INPUT -m conntrack --ctstate DNAT -j ACCEPT', hook: 'output', expected: 'accept' },
  ])('is what filter sees: $guard, at $hook', ({ guard, hook, expected }) => {
    const trace = tracerOf(text(guard)).trace(hook, makePacket({ dst: '10.96.0.10' }));
    expect(trace).toMatchObject({ verdict: expected, redirectedTo: 20_001, deliveredTo: { port: 20_001 } });
  });

  test('delivers nothing that filter then refuses', () => {
    const trace = tracerOf(text('-A INPUT -j DROP')).trace('prerouting', makePacket({ dst: '10.96.0.10' }));
    expect(trace).toMatchObject({ verdict: 'drop', redirectedTo: 20_001, deliveredTo: undefined });
  });

  test.each(['ESTABLISHED', 'RELATED', 'INVALID'] as const)('is not for a packet that is %s', (ctstate) => {
    const trace = natTrace('-A ALL-1 -p tcp -j REDIRECT --to-ports 20001', { ctstate });
    expect(trace).toMatchObject({ redirectedTo: undefined, rulesPassed: 0 });
  });

  test('to the address that REDIRECT takes is of no prefix that a rule could name', () => {
    const rules = '*nat\n-A PREROUTING -p tcp -j REDIRECT --to-ports 20001\nCOMMIT\n*filter\n';
    const trace = (match: string): string =>
      tracerOf(`${rules}-A INPUT ${match} -j DROP\nCOMMIT\n`).trace('prerouting', makePacket()).verdict;
    expect(trace('-d 127.0.0.1/32')).toBe('none');
    expect(trace('! -d 127.0.0.1/32')).toBe('drop');
  });
});

describe('a walk', () => {
  test('goes on behind the jump when the chain is left at its end, or by RETURN', () => {
    const rules = `:USER-1 - [0:0]
:USER-2 - [0:0]
-A ALL-1 -j USER-1
-A ALL-1 -p tcp -j REDIRECT --to-ports 1
-A USER-1 -j USER-2
-A USER-1 -m comment --comment "after the inner" -j RETURN
-A USER-1 -p tcp -j REDIRECT --to-ports 2
-A USER-2 -p udp -j RETURN
-A USER-2 -s 10.244.0.0/16 -j RETURN
-A USER-2 -p tcp -j REDIRECT --to-ports 3`;
    const trace = natTrace(rules, {});
    expect(trace.redirectedTo).toBe(1);
    expect(trace.path).toEqual([
      'nat -A PREROUTING -j ALL-1',
      'nat -A ALL-1 -j USER-1',
      'nat -A USER-1 -j USER-2',
      'nat -A USER-2 -s 10.244.0.0/16 -j RETURN',
      'nat -A USER-1 -m comment --comment "after the inner" -j RETURN',
      'nat -A ALL-1 -p tcp -j REDIRECT --to-ports 1',
    ]);
    expect(trace.matched).toEqual(['', '', '', '', 'after the inner', '']);
    expect(trace.rulesPassed).toBe(7);
    expect(natTrace(rules, { src: '10.0.0.1' }).redirectedTo).toBe(3);
  });

  test('leaves nat at ACCEPT, and a built-in chain at RETURN', () => {
    expect(
      natTrace('-A ALL-1 -j ACCEPT\n-A ALL-1 -p tcp -j REDIRECT --to-ports 1', {}).redirectedTo,
    ).toBeUndefined();
    const text = '*filter\n-A INPUT -j RETURN\n-A INPUT -j DROP\nCOMMIT\n';
    expect(tracerOf(text).trace('input', makePacket()).verdict).toBe('none');
  });

  test('ends with the policy of the built-in chain', () => {
    const tracer = tracerOf(
      '*filter\n-A INPUT -p udp -j RETURN\n-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT\nCOMMIT\n',
    );
    tracer.tables.setPolicy('INPUT', 'DROP');
    const verdict = (packet: Partial<Packet>): string => tracer.trace('input', makePacket(packet)).verdict;
    expect(verdict({ dport: 22 })).toBe('accept');
    expect(verdict({ dport: 80 })).toBe('drop');
    expect(verdict({ protocol: 'udp' })).toBe('drop');
    expect(tracer.trace('forward', makePacket()).verdict).toBe('none');
    expect(tracer.tables.save('filter')).toContain(':INPUT DROP [0:0]\n:FORWARD ACCEPT [0:0]');
    expect(() => tracer.tables.setPolicy('USER-1', 'DROP')).toThrow('USER-1');
  });

  test('of what the node sends to itself enters INPUT when OUTPUT lets it', () => {
    const local = makePacket({ dst: '192.168.77.2', isDstLocal: true });
    const verdict = (rules: string): string =>
      tracerOf(`*filter\n${rules}\nCOMMIT\n`).trace('output', local).verdict;
    expect(verdict('-A OUTPUT -j ACCEPT\n-A INPUT -j DROP')).toBe('drop');
    expect(verdict('-A OUTPUT -j ACCEPT')).toBe('accept');
    expect(verdict('-A OUTPUT -j DROP\n-A INPUT -j ACCEPT')).toBe('drop');
    expect(verdict('-A FORWARD -j DROP')).toBe('none');
  });

  test('is not for a packet of the other family', () => {
    expect(() => tracerOf('', 6).trace('input', makePacket())).toThrow('10.244.1.11 is no IPv6 address');
    expect(() => tracerOf('').trace('input', makePacket({ dst: 'fd00:96::a' }))).toThrow('no IPv4 address');
  });
});

describe('a rule is refused', () => {
  test.each([
    // What iptables has and we do not know.
    '-s 10.0.0.0/8 -o eth0 -j ACCEPT',
    '-m set --match-set a dst -j ACCEPT',
    '-m multiport --dports 80,81 -j ACCEPT',
    '-m conntrack --ctorigdstport 80 -j ACCEPT',
    '-m conntrack --ctdir ORIGINAL -j ACCEPT',
    '-m conntrack --ctstate UNTRACKED -j ACCEPT',
    '-m addrtype --dst-type BROADCAST -j ACCEPT',
    '-m addrtype --dst-type LOCAL --limit-iface-in -j ACCEPT',
    '-p tcp -m tcp --tcp-option 8 -j ACCEPT',
    '-p tcp -m tcp --tcp-flags ALL SYN -j ACCEPT',
    '-p sctp -j ACCEPT',
    '-j MASQUERADE',
    '-g ALL-1',
    '-p tcp -j REDIRECT --to-ports 80-90',
    '-p tcp -j REDIRECT --to-ports 80 --random',
    '-p tcp -j DNAT --to-destination 10.0.0.1-10.0.0.9:80',
    '-p tcp -j DNAT --to-destination 10.0.0.1:80-90',
    '-p tcp -j DNAT --to-destination 10.0.0.1:80 --persistent',
    '-p tcp -j DNAT --to-destination :80',
    // Inversions, but for those of -s, -d and -i.
    '-p tcp -m tcp ! --dport 80 -j ACCEPT',
    '! -p tcp -j ACCEPT',
    '-m addrtype ! --dst-type LOCAL -j ACCEPT',
    '-m conntrack ! --ctstate DNAT -j ACCEPT',
    // What iptables refuses too.
    '-p tcp --dport 80 -j ACCEPT',
    '-m tcp --dport 80 -j ACCEPT',
    '-p udp -m udp --dport 80:70 -j ACCEPT',
    '-p udp -m udp --dport 70000 -j ACCEPT',
    '-s 10.0.0.0/8 -s 11.0.0.0/8 -j ACCEPT',
    '-m addrtype -j ACCEPT',
    '-m conntrack -j ACCEPT',
    '-m comment -j ACCEPT',
    '-m addrtype --src-type LOCAL --src-type LOCAL -j ACCEPT',
    '-d 10.0.0.0/8 -i averyveryverylongname -j ACCEPT',
    '-i eth0 -j ACCEPT',
    '-j REDIRECT --to-ports 80',
    '-p tcp -j REDIRECT',
    '-p tcp -j REDIRECT --to-ports 0',
    '-j DNAT --to-destination 10.0.0.1:80',
    '-p tcp -j DNAT --to-destination fd00::1',
    '-p tcp -j DNAT --to-destination [fd00::1]:80',
    '-j DROP',
    '-j REJECT --reject-with icmp-port-unreachable',
    '-m comment --comment "a" ACCEPT',
    '-j ACCEPT --now',
    '-j',
    '',
  ])('in nat OUTPUT: %s', (spec) => {
    expect(() => tracerOf(`*nat\n:ALL-1 - [0:0]\n-A OUTPUT ${spec}\nCOMMIT\n`)).toThrow(/not understood/);
  });

  test.each([
    { spec: '-d 10.96.0.10 -j ACCEPT', why: 'not an IPv4 prefix' },
    { spec: '-s 10.96.0.10/33 -j ACCEPT', why: 'not an IPv4 prefix' },
    { spec: '-s 10.96.0.10/8 -j ACCEPT', why: 'host bits are set' },
    { spec: '-s fd00::/8 -j ACCEPT', why: 'not an IPv4 prefix' },
    { spec: '-d 10.0.0.0/255.0.0.0 -j ACCEPT', why: 'not an IPv4 prefix' },
    { spec: '-d 10.0.0.0/8,11.0.0.0/8 -j ACCEPT', why: 'not an IPv4 prefix' },
    { spec: '-m conntrack --ctorigdst 10.0.0.1/32 -j ACCEPT', why: 'printed without a length' },
    { spec: '-m comment --comment "a -j ACCEPT', why: 'stray' },
    { spec: '-j NOWHERE-TO-GO', why: 'not there' },
    { spec: '-j PREROUTING-1', why: 'not there' },
  ])('with its reason: $spec', ({ spec, why }) => {
    expect(() => tracerOf(`*nat\n-A PREROUTING ${spec}\nCOMMIT\n`)).toThrow(why);
  });

  test.each([
    { spec: '-s 10.0.0.0/8 -j ACCEPT', why: 'not an IPv6 prefix' },
    { spec: '-d fd00::/129 -j ACCEPT', why: 'not an IPv6 prefix' },
    { spec: '-d fd00::1 -j ACCEPT', why: 'not an IPv6 prefix' },
    { spec: '-d fd00::1/64 -j ACCEPT', why: 'host bits are set' },
    { spec: '-d fe80::1%eth0/128 -j ACCEPT', why: 'not an IPv6 prefix' },
    { spec: '-p tcp -j DNAT --to-destination fd00::1:80:443]', why: 'not understood' },
    { spec: '-p tcp -j DNAT --to-destination [10.0.0.1]:80', why: 'not understood' },
    { spec: '-p tcp -j DNAT --to-destination 10.0.0.1:80', why: 'not understood' },
    { spec: '-m conntrack --ctorigdst fd00::1/128 -j ACCEPT', why: 'printed without a length' },
  ])('in IPv6 with its reason: $spec', ({ spec, why }) => {
    expect(() => tracerOf(`*nat\n-A PREROUTING ${spec}\nCOMMIT\n`, 6)).toThrow(why);
  });

  test('outside the tables and hooks that its target is for', () => {
    const nat = (hook: string): string =>
      `*nat\n:ALL-1 - [0:0]\n-A ${hook} -j ALL-1\n-A ALL-1 -p tcp -j REDIRECT --to-ports 80\nCOMMIT\n`;
    expect(() => tracerOf(nat('OUTPUT'))).not.toThrow();
    expect(() => tracerOf(nat('INPUT'))).toThrow('INPUT leads to a translation');
    expect(() => tracerOf(nat('POSTROUTING'))).toThrow('POSTROUTING leads to a translation');
    expect(() => tracerOf('*filter\n-A INPUT -p tcp -j REDIRECT --to-ports 80\nCOMMIT\n')).toThrow(
      'REDIRECT outside nat',
    );
    expect(() => tracerOf('*filter\n-A INPUT -j DNAT --to-destination 10.0.0.1\nCOMMIT\n')).toThrow(
      'DNAT outside nat',
    );
  });
});

describe('a table is refused', () => {
  test.each([
    { name: 'of another kind', lines: ['*mangle', 'COMMIT'], why: 'unknown table mangle' },
    { name: 'without its end', lines: ['*nat'], why: 'no COMMIT' },
    { name: 'that stands in another', lines: ['*nat', '*filter', 'COMMIT'], why: 'a table inside nat' },
    { name: 'that has not begun', lines: ['-A OUTPUT -j ACCEPT'], why: 'outside any table' },
    { name: 'that declares a hook', lines: ['*nat', ':OUTPUT - [0:0]', 'COMMIT'], why: 'built-in' },
    { name: 'that sets a policy', lines: ['*filter', ':INPUT DROP [0:0]', 'COMMIT'], why: 'not understood' },
    { name: 'with a header cut short', lines: ['*nat', ':ALL-1 -', 'COMMIT'], why: 'not understood' },
    {
      name: 'with counters in a header',
      lines: ['*nat', ':ALL-1 - [1:60]', 'COMMIT'],
      why: 'not understood',
    },
    { name: 'with counters at a rule', lines: ['*nat', '[0:0] -A OUTPUT -j ACCEPT'], why: 'not understood' },
    { name: 'that is emptied by -F', lines: ['*nat', '-F OUTPUT', 'COMMIT'], why: 'not understood' },
    {
      name: 'that makes a chain twice',
      lines: ['*nat', '-N ALL-1', '-N ALL-1'],
      why: 'there is a chain ALL-1',
    },
    { name: 'with a rule in no chain', lines: ['*nat', '-A ALL-1 -j ACCEPT'], why: 'no chain ALL-1' },
    { name: 'that jumps to a hook', lines: ['*nat', '-A PREROUTING -j OUTPUT'], why: 'target OUTPUT' },
    { name: 'with too long a name', lines: ['*nat', `:${'A'.repeat(29)} - [0:0]`], why: 'too long' },
    {
      name: 'in which jumps go round',
      lines: ['*nat', ':A-1 - [0:0]', ':A-2 - [0:0]', '-A A-1 -j A-2', '-A A-2 -p tcp -j A-1', 'COMMIT'],
      why: 'jumps go round: A-1, A-2, A-1',
    },
  ])('$name', ({ lines, why }) => {
    expect(() => tracerOf(`${lines.join('\n')}\n`)).toThrow(why);
  });

  test('whole, so that nothing of it stands', () => {
    const tables = new NetfilterTables(4);
    expect(() => tables.load('*nat\n-A OUTPUT -j ACCEPT\n-A OUTPUT -j NOWHERE-TO-GO\nCOMMIT\n')).toThrow(
      'not there',
    );
    expect(new PacketTracer(tables).trace('output', makePacket()).rulesPassed).toBe(0);
  });
});

describe('the comparison with a kernel', () => {
  const text =
    '*nat\n-A PREROUTING -p tcp -j REDIRECT --to-ports 20001\nCOMMIT\n*filter\n-A FORWARD -j DROP\nCOMMIT\n';
  const fate = (packet: Partial<Packet> = {}): ReturnType<typeof fateFromTrace> =>
    fateFromTrace(tracerOf(text).trace('prerouting', makePacket(packet)));

  test('tells a trace in its words', () => {
    expect(fate().outcome).toBe('delivered to proxy port 20001');
    expect(fate({ protocol: 'udp' }).outcome).toBe('drop');
    expect(fate({ protocol: 'udp', isDstLocal: true })).toEqual({
      outcome: 'none',
      deliveredTo: undefined,
      path: [],
    });
  });

  test('takes any address for one that the tracer does not know', () => {
    const traced = fate();
    const kernel = { ...traced, deliveredTo: { address: '10.244.1.1', port: 20_001 } };
    expect(differenceBetween(traced, kernel)).toBeUndefined();
    expect(
      differenceBetween({ ...kernel, deliveredTo: { address: '10.244.1.2', port: 20_001 } }, kernel),
    ).toContain('at 10.244.1.2');
  });

  test('names another outcome, and another way to the same', () => {
    const traced = fate();
    expect(differenceBetween(traced, { ...traced, outcome: 'drop' })).toContain('the kernel says drop');
    expect(differenceBetween(traced, { ...traced, path: [] })).toBe(
      [
        'both say delivered to proxy port 20001, but as rule 1 of its path',
        'the tracer has nat -A PREROUTING -p tcp -j REDIRECT --to-ports 20001',
        'the kernel has none',
      ].join('\n'),
    );
    expect(differenceBetween(traced, { ...traced, path: [...traced.path, 'more'] })).toContain('as rule 2');
  });
});

function randomBits(random: Random, bits: number): bigint {
  let number = 0n;
  for (let filled = 0; filled < bits; filled += 16) number = (number << 16n) + BigInt(random.below(65_536));
  return number;
}

/** Without `::`. */
function addressText(number: bigint, family: Family): string {
  const part = (index: number, bits: bigint): bigint =>
    (number >> (BigInt(index) * bits)) & ((1n << bits) - 1n);
  if (family === 4) return [3, 2, 1, 0].map((index) => part(index, 8n)).join('.');
  return [7, 6, 5, 4, 3, 2, 1, 0].map((index) => part(index, 16n).toString(16)).join(':');
}
