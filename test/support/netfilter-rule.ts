/**
 * One rule of iptables as a matcher: its text parsed, and a packet tried on it. It knows exactly the syntax that
 * our renderer writes, plus what the tests put there as other people's rules, and refuses everything else: a rule
 * that nobody here understands must fail a test, not match nothing.
 */
import { isIP } from 'node:net';

export type PacketProtocol = 'tcp' | 'udp' | 'icmp';
export type FlowState = 'NEW' | 'ESTABLISHED' | 'RELATED' | 'INVALID';

/** A packet as the rules of one hook see it. */
export interface Packet {
  readonly src: string;
  readonly dst: string;
  /** Is `dst` an address of this node? */
  readonly isDstLocal: boolean;
  readonly protocol: PacketProtocol;
  readonly dport: number;
  readonly ctstate: FlowState;
  /** Has conntrack rewritten the destination of this flow? */
  readonly isDnat: boolean;
  readonly tcpFlags: readonly string[];
}

export type RuleVerdict =
  | { readonly kind: 'jump'; readonly chain: string }
  | { readonly kind: 'redirect'; readonly port: number }
  | { readonly kind: 'accept' | 'drop' | 'return' | 'tcp-reset' | 'port-unreachable' };

export interface ParsedRule {
  /** Without `-A CHAIN`, as it was written: what `-D` must repeat. */
  readonly spec: string;
  readonly comment: string | undefined;
  readonly verdict: RuleVerdict;
  matches(packet: Packet): boolean;
}

type Matcher = (packet: Packet) => boolean;

/** Throws on anything it does not know. */
export function parseRule(
  spec: string,
  where: { readonly table: string; readonly family: 4 | 6 },
): ParsedRule {
  return new RuleParser(spec, where).parse();
}

class RuleParser {
  readonly #spec: string;
  readonly #where: { readonly table: string; readonly family: 4 | 6 };
  readonly #words: string[];
  readonly #matchers: Matcher[] = [];
  readonly #modules = new Set<string>();
  #protocol: string | undefined;
  #comment: string | undefined;

  constructor(spec: string, where: { readonly table: string; readonly family: 4 | 6 }) {
    this.#spec = spec;
    this.#where = where;
    this.#words = wordsOf(spec);
  }

  parse(): ParsedRule {
    for (;;) {
      const word = this.#take('a target');
      if (word === '-j') break;
      this.#parseMatch(word);
    }
    const verdict = this.#parseTarget(this.#take('a target'));
    if (this.#words.length > 0) this.#refuse(`"${this.#words.join(' ')}" after the target`);
    const matchers = this.#matchers;
    return {
      spec: this.#spec,
      comment: this.#comment,
      verdict,
      matches: (packet) => matchers.every((matcher) => matcher(packet)),
    };
  }

  #parseMatch(word: string): void {
    switch (word) {
      case '-d':
        this.#matchers.push(destinationMatcher(this.#take('an address'), this.#where.family));
        return;
      case '-p': {
        const protocol = this.#take('a protocol');
        if (protocol !== 'tcp' && protocol !== 'udp') this.#refuse(`protocol ${protocol}`);
        this.#protocol = protocol;
        this.#matchers.push((packet) => packet.protocol === protocol);
        return;
      }
      case '-m':
        this.#parseModule(this.#take('a module'));
        return;
      case '--dst-type':
        this.#needs('addrtype');
        if (this.#take('a type') !== 'LOCAL') this.#refuse('only --dst-type LOCAL is known');
        this.#matchers.push((packet) => packet.isDstLocal);
        return;
      case '--ctstate':
        this.#needs('conntrack');
        this.#matchers.push(stateMatcher(this.#take('states'), (what) => this.#refuse(what)));
        return;
      case '--comment':
        this.#needs('comment');
        this.#comment = this.#take('a comment');
        if (Buffer.byteLength(this.#comment) > 255) this.#refuse('the comment is longer than 255 bytes');
        return;
      case '--dport':
        this.#needs(this.#protocol ?? 'tcp');
        this.#matchers.push(portMatcher(this.#take('a port'), (what) => this.#refuse(what)));
        return;
      case '--tcp-flags':
        this.#needs('tcp');
        this.#matchers.push(flagsMatcher(this.#take('a mask').split(','), this.#take('flags').split(',')));
        return;
      default:
        this.#refuse(`"${word}"`);
    }
  }

  #parseModule(name: string): void {
    if (!['addrtype', 'conntrack', 'comment', 'tcp', 'udp'].includes(name)) this.#refuse(`-m ${name}`);
    if ((name === 'tcp' || name === 'udp') && this.#protocol !== name) this.#refuse(`-m ${name} without -p`);
    this.#modules.add(name);
  }

  #parseTarget(target: string): RuleVerdict {
    const { table, family } = this.#where;
    switch (target) {
      case 'ACCEPT':
        return { kind: 'accept' };
      case 'DROP':
        if (table === 'nat') this.#refuse('DROP in nat');
        return { kind: 'drop' };
      case 'RETURN':
        return { kind: 'return' };
      case 'REDIRECT': {
        if (table !== 'nat' || this.#protocol === undefined)
          this.#refuse('REDIRECT outside nat or without -p');
        if (this.#take('--to-ports') !== '--to-ports') this.#refuse('REDIRECT without --to-ports');
        return { kind: 'redirect', port: portNumber(this.#take('a port'), (what) => this.#refuse(what)) };
      }
      case 'REJECT': {
        if (table !== 'filter') this.#refuse('REJECT outside filter');
        if (this.#take('--reject-with') !== '--reject-with') this.#refuse('REJECT without --reject-with');
        const how = this.#take('how');
        if (how === 'tcp-reset' && this.#protocol === 'tcp') return { kind: 'tcp-reset' };
        if (how === (family === 4 ? 'icmp-port-unreachable' : 'icmp6-port-unreachable'))
          return { kind: 'port-unreachable' };
        return this.#refuse(`--reject-with ${how}`);
      }
      default:
        if (/^[A-Z]+$/.test(target)) this.#refuse(`target ${target}`);
        return { kind: 'jump', chain: target };
    }
  }

  #take(what: string): string {
    return this.#words.shift() ?? this.#refuse(`${what} is missing`);
  }

  #needs(module: string): void {
    if (!this.#modules.has(module)) this.#refuse(`an option of -m ${module} before it`);
  }

  #refuse(what: string): never {
    throw new Error(`not understood: ${what}, in: ${this.#spec}`);
  }
}

/** Words as iptables-restore has them: separated by blanks, double quotes keep together, backslash escapes. */
function wordsOf(spec: string): string[] {
  const words: string[] = [];
  for (const [text, quoted, plain] of spec.matchAll(/"((?:[^"\\]|\\.)*)"|([^\s"]+)|\S/g)) {
    if (quoted === undefined && plain === undefined) throw new Error(`stray ${text} in: ${spec}`);
    words.push(plain ?? (quoted ?? '').replaceAll(/\\(.)/g, '$1'));
  }
  return words;
}

function destinationMatcher(text: string, family: 4 | 6): Matcher {
  const [address = '', lengthText = ''] = text.split('/');
  if (isIP(address) !== family || !/^\d+$/.test(lengthText))
    throw new Error(`not an IPv${family} prefix: ${text}`);
  const bits = family === 4 ? 32 : 128;
  const hostBits = BigInt(bits - Number(lengthText));
  const network = addressNumber(address) >> hostBits;
  if (network << hostBits !== addressNumber(address)) throw new Error(`host bits are set in ${text}`);
  return (packet) => isIP(packet.dst) === family && addressNumber(packet.dst) >> hostBits === network;
}

const numberByAddress = new Map<string, bigint>();

function addressNumber(address: string): bigint {
  const known = numberByAddress.get(address);
  if (known !== undefined) return known;
  const [head = '', tail] = address.split('::');
  const groups = (text: string): string[] => (text === '' ? [] : text.split(':'));
  const front = groups(head);
  const back = groups(tail ?? '');
  const missing = tail === undefined ? 0 : 8 - front.length - back.length;
  const number =
    isIP(address) === 4
      ? address.split('.').reduce((sum, part) => sum * 256n + BigInt(part), 0n)
      : [...front, ...Array<string>(missing).fill('0'), ...back].reduce(
          (sum, part) => sum * 65_536n + BigInt(`0x${part}`),
          0n,
        );
  numberByAddress.set(address, number);
  return number;
}

function stateMatcher(text: string, refuse: (what: string) => never): Matcher {
  const states = text.split(',');
  for (const state of states) {
    if (!['NEW', 'INVALID', 'ESTABLISHED', 'RELATED', 'DNAT'].includes(state)) refuse(`--ctstate ${state}`);
  }
  return (packet) => states.includes(packet.ctstate) || (packet.isDnat && states.includes('DNAT'));
}

function portMatcher(text: string, refuse: (what: string) => never): Matcher {
  const [first, last = first] = text.split(':').map((part) => portNumber(part, refuse));
  if (first === undefined || last === undefined || last < first) return refuse(`--dport ${text}`);
  return (packet) => packet.dport >= first && packet.dport <= last;
}

function portNumber(text: string, refuse: (what: string) => never): number {
  const port = Number(text);
  return /^\d+$/.test(text) && port <= 65_535 ? port : refuse(`port ${text}`);
}

function flagsMatcher(mask: readonly string[], wanted: readonly string[]): Matcher {
  return (packet) => mask.every((flag) => packet.tcpFlags.includes(flag) === wanted.includes(flag));
}
