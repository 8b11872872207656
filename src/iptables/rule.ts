/**
 * The rules of one address family as data, and their text in the form `iptables-save` prints, which is also
 * what `iptables-restore` reads. Pure.
 */
import { type IpFamily, hostPortText } from '../model/address.ts';
import type { Protocol } from '../model/service-port-name.ts';

export type TableName = 'nat' | 'filter';

/** Every table that has rules of ours, in the order in which they are looked at. */
export const TABLES: readonly TableName[] = ['nat', 'filter'];

/** Every chain of ours begins so; nothing else is ever touched. */
export const CHAIN_PREFIX = 'USERSPACE-PROXY-';

export type ChainName = `${typeof CHAIN_PREFIX}${string}`;

export type RuleTarget =
  | { readonly kind: 'jump'; readonly chain: ChainName }
  | { readonly kind: 'return' }
  | { readonly kind: 'redirect'; readonly port: number }
  | { readonly kind: 'dnat'; readonly address: string; readonly port: number }
  | { readonly kind: 'reject'; readonly with: 'tcp-reset' | 'port-unreachable' }
  | { readonly kind: 'accept' }
  | { readonly kind: 'drop' };

export interface Rule {
  /** Address and prefix length. */
  readonly source?: string;
  /** Address and prefix length, `10.96.0.10/32`. */
  readonly destination?: string;
  /** The interface it came in by; `name+` is a prefix. Matches nothing that the node itself sends. */
  readonly inInterface?: string;
  readonly protocol?: Protocol;
  /** One port, or the first and last of a range. Needs `protocol`, as the next. */
  readonly sourcePort?: number | readonly [first: number, last: number];
  readonly destinationPort?: number | readonly [first: number, last: number];
  /** Only segments that open a connection. Needs protocol TCP. */
  readonly isSyn?: true;
  /** Only packets from, or to, an address of this node. */
  readonly isFromLocalAddress?: true;
  readonly isToLocalAddress?: true;
  /** In the order iptables-save prints them. */
  readonly conntrackStates?: readonly ('INVALID' | 'NEW' | 'DNAT')[];
  readonly comment: string;
  readonly target: RuleTarget;
}

/** A jump from a built-in chain into ours; stands first there. */
export interface HookJump {
  readonly hook: 'PREROUTING' | 'INPUT' | 'FORWARD' | 'OUTPUT';
  readonly rule: Rule;
}

export interface TableRules {
  readonly hooks: readonly HookJump[];
  readonly chains: ReadonlyMap<ChainName, readonly Rule[]>;
}

/** Everything we want in the kernel for one family. */
export interface RuleSet {
  readonly family: IpFamily;
  readonly nat: TableRules;
  readonly filter: TableRules;
}

/** The specification of a rule without its chain, in the order iptables-save prints the parts. */
export function renderRuleSpec(rule: Rule, family: IpFamily): string {
  const parts: string[] = [];
  if (rule.source !== undefined) parts.push(`-s ${rule.source}`);
  if (rule.destination !== undefined) parts.push(`-d ${rule.destination}`);
  if (rule.inInterface !== undefined) parts.push(`-i ${rule.inInterface}`);
  if (rule.protocol !== undefined) parts.push(`-p ${rule.protocol.toLowerCase()}`);
  if (rule.isFromLocalAddress) parts.push('-m addrtype --src-type LOCAL');
  if (rule.isToLocalAddress) parts.push('-m addrtype --dst-type LOCAL');
  if (rule.conntrackStates !== undefined)
    parts.push(`-m conntrack --ctstate ${rule.conntrackStates.join(',')}`);
  parts.push(`-m comment --comment ${quoteComment(rule.comment)}`);
  parts.push(...renderTransport(rule), renderTarget(rule.target, family));
  return parts.join(' ');
}

function renderTransport({ protocol, sourcePort, destinationPort, isSyn }: Rule): string[] {
  const parts = [
    ...renderPorts('--sport', sourcePort),
    ...renderPorts('--dport', destinationPort),
    ...(isSyn ? ['--tcp-flags FIN,SYN,RST,ACK SYN'] : []),
  ];
  if (protocol === undefined || parts.length === 0) return [];
  return [`-m ${protocol.toLowerCase()}`, ...parts];
}

function renderPorts(option: string, ports: Rule['destinationPort']): string[] {
  if (ports === undefined) return [];
  return [`${option} ${typeof ports === 'object' ? ports.join(':') : ports}`];
}

function renderTarget(target: RuleTarget, family: IpFamily): string {
  switch (target.kind) {
    case 'jump':
      return `-j ${target.chain}`;
    case 'redirect':
      return `-j REDIRECT --to-ports ${target.port}`;
    case 'dnat':
      return `-j DNAT --to-destination ${hostPortText(target.address, target.port)}`;
    case 'return':
      return '-j RETURN';
    case 'accept':
      return '-j ACCEPT';
    case 'drop':
      return '-j DROP';
    case 'reject':
      if (target.with === 'tcp-reset') return '-j REJECT --reject-with tcp-reset';
      return `-j REJECT --reject-with ${family === 'IPv4' ? 'icmp-port-unreachable' : 'icmp6-port-unreachable'}`;
  }
}

/**
 * iptables-restore knows only double quotes and backslashes, ends a line at a line feed and all it reads at a zero; longer
 * comments than 255 bytes are refused. What is not printable ASCII is none of ours, and is not let through.
 */
function quoteComment(comment: string): string {
  return `"${comment.slice(0, 255).replaceAll(/[^ -~]|["\\]/g, '_')}"`;
}

/** The rules of a table, hooks included. */
export function countRules(table: TableRules): number {
  return table.hooks.length + [...table.chains.values()].reduce((sum, rules) => sum + rules.length, 0);
}
