/**
 * One rule of iptables as a matcher: its text parsed, and a packet tried on it. It knows exactly the syntax that
 * our renderer writes, plus what the tests put there as other people's rules, and refuses everything else: a rule
 * that nobody here understands must fail a test, not match nothing. What iptables itself refuses is refused too.
 */
import { isIP } from 'node:net';
import {
  conntrackMatcher,
  conntrackStates,
  flagsMatcher,
  interfaceMatcher,
  type Matcher,
  type Packet,
  portMatcher,
  portNumber,
  prefixMatcher,
  type Refuse,
} from './netfilter-match.ts';

export type RuleVerdict =
  | { readonly kind: 'jump'; readonly chain: string }
  | { readonly kind: 'redirect'; readonly port: number }
  /** Without a port, that of the packet stays. */
  | { readonly kind: 'dnat'; readonly address: string; readonly port: number | undefined }
  | { readonly kind: 'accept' | 'drop' | 'return' | 'tcp-reset' | 'port-unreachable' };

export interface ParsedRule {
  /** Without `-A CHAIN`, as it was written: what `-D` must repeat. */
  readonly spec: string;
  readonly comment: string | undefined;
  readonly verdict: RuleVerdict;
  matches(packet: Packet): boolean;
}

export interface RulePlace {
  readonly table: string;
  readonly chain: string;
  readonly family: 4 | 6;
}

/** By module, its options; undefined where the module may stand alone. */
const MODULES: Readonly<Record<string, readonly string[] | undefined>> = {
  addrtype: ['--src-type', '--dst-type'],
  conntrack: ['--ctstate', '--ctorigdst'],
  comment: ['--comment'],
  tcp: undefined,
  udp: undefined,
};

/** What `!` may stand before. */
const INVERTIBLE = ['-s', '-d', '-i'];

/** These chains see no packet on its way in, and iptables refuses `-i` there (not in chains they jump to). */
const CHAINS_WITHOUT_INPUT = ['OUTPUT', 'POSTROUTING'];

/** Throws on anything it does not know. */
export function parseRule(spec: string, place: RulePlace): ParsedRule {
  return new RuleParser(spec, place).parse();
}

class RuleParser {
  readonly #spec: string;
  readonly #place: RulePlace;
  readonly #words: string[];
  readonly #matchers: Matcher[] = [];
  /** Modules and options so far. */
  readonly #seen = new Set<string>();
  readonly #refuse: Refuse;
  #protocol: string | undefined;
  #comment: string | undefined;
  #states: readonly string[] | undefined;
  #originalDst: ((address: string) => boolean) | undefined;

  constructor(spec: string, place: RulePlace) {
    this.#spec = spec;
    this.#place = place;
    this.#words = wordsOf(spec);
    this.#refuse = (what) => {
      throw new Error(`not understood: ${what}, in: ${spec}`);
    };
  }

  parse(): ParsedRule {
    for (;;) {
      const word = this.#take('a target');
      if (word === '-j') break;
      this.#parseMatch(word);
    }
    const verdict = this.#parseTarget(this.#take('a target'));
    if (this.#words.length > 0) this.#refuse(`"${this.#words.join(' ')}" after the target`);
    this.#checkModules();
    if (this.#seen.has('conntrack'))
      this.#matchers.push(conntrackMatcher({ states: this.#states, originalDst: this.#originalDst }));
    const matchers = this.#matchers;
    return {
      spec: this.#spec,
      comment: this.#comment,
      verdict,
      matches: (packet) => matchers.every((matcher) => matcher(packet)),
    };
  }

  #parseMatch(word: string): void {
    if (word === '-m') return this.#parseModule(this.#take('a module'));
    const isInverted = word === '!';
    const option = isInverted ? this.#take('an option') : word;
    if (isInverted && !INVERTIBLE.includes(option)) this.#refuse(`! before ${option}`);
    this.#once(option);
    const module = Object.keys(MODULES).find((name) => MODULES[name]?.includes(option));
    if (module !== undefined) this.#needs(module);
    const matcher = this.#parseOption(option);
    if (matcher !== undefined) this.#matchers.push(isInverted ? (packet) => !matcher(packet) : matcher);
  }

  /** Undefined for what is matched together with others, or matches everything. */
  #parseOption(option: string): Matcher | undefined {
    switch (option) {
      case '-s': {
        const isInside = prefixMatcher(this.#take('a prefix'), this.#place.family);
        return ({ src }) => isInside(src);
      }
      case '-d': {
        const isInside = prefixMatcher(this.#take('a prefix'), this.#place.family);
        return ({ dst }) => isInside(dst);
      }
      case '-i':
        if (CHAINS_WITHOUT_INPUT.includes(this.#place.chain)) this.#refuse(`-i in ${this.#place.chain}`);
        return interfaceMatcher(this.#take('an interface'), this.#refuse);
      case '-p':
        return this.#parseProtocol(this.#take('a protocol'));
      case '--src-type':
      case '--dst-type':
        if (this.#take('a type') !== 'LOCAL') this.#refuse(`only ${option} LOCAL is known`);
        return option === '--src-type'
          ? ({ isSrcLocal }) => isSrcLocal === true
          : (packet) => packet.isDstLocal;
      case '--ctstate':
        this.#states = conntrackStates(this.#take('states'), this.#refuse);
        return undefined;
      case '--ctorigdst':
        this.#originalDst = this.#parseOriginalDestination(this.#take('an address'));
        return undefined;
      case '--comment':
        this.#comment = this.#take('a comment');
        if (Buffer.byteLength(this.#comment) > 255) this.#refuse('the comment is longer than 255 bytes');
        return undefined;
      case '--sport':
      case '--dport':
        this.#needs(this.#protocol ?? 'tcp');
        return portMatcher(option, this.#take('a port'), this.#refuse);
      case '--tcp-flags':
        this.#needs('tcp');
        return flagsMatcher(this.#take('a mask'), this.#take('flags'), this.#refuse);
      default:
        return this.#refuse(`"${option}"`);
    }
  }

  #parseProtocol(protocol: string): Matcher {
    if (protocol !== 'tcp' && protocol !== 'udp') this.#refuse(`protocol ${protocol}`);
    this.#protocol = protocol;
    return (packet) => packet.protocol === protocol;
  }

  /** Here, and only here, iptables-save leaves the length of a whole address out. */
  #parseOriginalDestination(text: string): (address: string) => boolean {
    const wholeLength = this.#place.family === 4 ? 32 : 128;
    if (text.endsWith(`/${wholeLength}`))
      this.#refuse(`--ctorigdst ${text}, which is printed without a length`);
    return prefixMatcher(text.includes('/') ? text : `${text}/${wholeLength}`, this.#place.family);
  }

  #parseModule(name: string): void {
    if (!Object.hasOwn(MODULES, name)) this.#refuse(`-m ${name}`);
    if ((name === 'tcp' || name === 'udp') && this.#protocol !== name) this.#refuse(`-m ${name} without -p`);
    this.#once(name);
  }

  #checkModules(): void {
    for (const [name, options] of Object.entries(MODULES)) {
      if (this.#seen.has(name) && options?.every((option) => !this.#seen.has(option)))
        this.#refuse(`-m ${name} without an option`);
    }
  }

  #parseTarget(target: string): RuleVerdict {
    switch (target) {
      case 'ACCEPT':
        return { kind: 'accept' };
      case 'DROP':
        if (this.#place.table === 'nat') this.#refuse('DROP in nat');
        return { kind: 'drop' };
      case 'RETURN':
        return { kind: 'return' };
      case 'REDIRECT': {
        const port = this.#translatedPort(this.#option('REDIRECT', '--to-ports'));
        if (this.#place.table !== 'nat') this.#refuse('REDIRECT outside nat');
        return { kind: 'redirect', port };
      }
      case 'DNAT':
        return this.#parseDnat(this.#option('DNAT', '--to-destination'));
      case 'REJECT':
        return this.#parseReject(this.#option('REJECT', '--reject-with'));
      default:
        if (/^[A-Z]+$/.test(target)) this.#refuse(`target ${target}`);
        return { kind: 'jump', chain: target };
    }
  }

  /** `10.0.0.1`, `10.0.0.1:80`, `fd00::1`, `[fd00::1]:80`: one address, at most one port. */
  #parseDnat(destination: string): RuleVerdict {
    const { table, family } = this.#place;
    if (table !== 'nat') this.#refuse('DNAT outside nat');
    const withPort = (family === 4 ? /^([\d.]+):(\d+)$/ : /^\[([\da-f:.]+)\]:(\d+)$/).exec(destination);
    const [, address = destination, portText] = withPort ?? [];
    if (isIP(address) !== family || address.includes('%')) this.#refuse(`--to-destination ${destination}`);
    return {
      kind: 'dnat',
      address,
      port: portText === undefined ? undefined : this.#translatedPort(portText),
    };
  }

  #parseReject(how: string): RuleVerdict {
    if (this.#place.table !== 'filter') this.#refuse('REJECT outside filter');
    if (how === 'tcp-reset' && this.#protocol === 'tcp') return { kind: 'tcp-reset' };
    if (how === (this.#place.family === 4 ? 'icmp-port-unreachable' : 'icmp6-port-unreachable'))
      return { kind: 'port-unreachable' };
    return this.#refuse(`--reject-with ${how}`);
  }

  /** The value of the one option that a target has, and must have. */
  #option(target: string, name: string): string {
    if (this.#words.shift() !== name) this.#refuse(`${target} without ${name}`);
    return this.#take(`what follows ${name}`);
  }

  #translatedPort(text: string): number {
    const port = portNumber(text, this.#refuse);
    if (port === 0) this.#refuse('port 0');
    return this.#protocol === undefined ? this.#refuse('a port to translate to, without -p') : port;
  }

  #take(what: string): string {
    return this.#words.shift() ?? this.#refuse(`${what} is missing`);
  }

  #once(name: string): void {
    if (this.#seen.has(name)) this.#refuse(`${name} twice`);
    this.#seen.add(name);
  }

  #needs(module: string): void {
    if (!this.#seen.has(module)) this.#refuse(`an option of -m ${module} before it`);
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
