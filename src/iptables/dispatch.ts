/**
 * Two-level dispatch: one chain jumps by address prefix, or by block of ports, into small chains, so that a
 * packet passes a handful of rules however many Services there are. Pure.
 */
import { createHash } from 'node:crypto';
import { type IpAddress, familyOf, groupsOfIPv6, parseIpAddress } from '../model/address.ts';
import { compareText } from '../model/endpoint.ts';
import type { Protocol } from '../model/service-port-name.ts';
import { CHAIN_PREFIX, type ChainName, type Rule } from './rule.ts';

/** 256 addresses of either family share a second-level chain. */
const IPV4_PREFIX_LENGTH = 24;
const IPV6_PREFIX_LENGTH = 120;
/** Ports in a second-level chain; a power of two. */
const PORT_BLOCK = 64;

/** iptables allows 28 characters, our prefix takes 16. */
const MAX_NAME_LENGTH = 12;

/** A chain of its own for something whose name is too long: `E` and eleven digits of the hash of `key`. */
export function chainNamedBy(letter: 'E' | 'F', key: string): ChainName {
  return `${CHAIN_PREFIX}${`${letter}${hashOf(key)}`.slice(0, MAX_NAME_LENGTH)}`;
}

function hashOf(text: string): string {
  return createHash('sha256').update(text).digest('hex');
}

/**
 * Distinguishes the second-level chains of dispatches in one table: none for what the table is about, `R` for
 * internal and `X` for external portals that are rejected.
 */
export type ChainSet = '' | 'R' | 'X';

/** The jumps, and the chains they lead to. */
export interface Dispatch {
  readonly jumps: readonly Rule[];
  readonly chains: ReadonlyMap<ChainName, readonly Rule[]>;
}

export interface AddressedRule {
  readonly address: IpAddress;
  readonly rule: Rule;
}

/** Second-level chains are named by prefix: `USERSPACE-PROXY-10.96.0`, for IPv6 by its hash. */
export function dispatchByPrefix(set: ChainSet, rules: readonly AddressedRule[]): Dispatch {
  const groups = new Map<string, Rule[]>();
  for (const { address, rule } of rules) append(groups, prefixOf(address), rule);
  return buildDispatch(groups, (prefix) => ({
    chain: `${CHAIN_PREFIX}${`${set}${prefixName(prefix)}`.slice(0, MAX_NAME_LENGTH)}`,
    jump: { destination: prefix, comment: `addresses in ${prefix}` },
  }));
}

function prefixOf(address: IpAddress): string {
  if (familyOf(address) === 'IPv4') {
    return `${address.slice(0, address.lastIndexOf('.'))}.0/${IPV4_PREFIX_LENGTH}`;
  }
  const groups = groupsOfIPv6(address);
  const masked = [...groups.slice(0, 7), (groups[7] ?? 0) & 0xff00];
  const text = masked.map((group) => group.toString(16)).join(':');
  return `${parseIpAddress(text) ?? text}/${IPV6_PREFIX_LENGTH}`;
}

function prefixName(prefix: string): string {
  if (!prefix.includes(':')) return prefix.slice(0, prefix.lastIndexOf('.'));
  return hashOf(prefix).slice(0, MAX_NAME_LENGTH);
}

export interface PortRule {
  readonly protocol: Protocol;
  readonly port: number;
  readonly rules: readonly Rule[];
}

/** `G` guards proxy ports, `S` what leaves from them, `H` lets health checks in, `NP` are NodePorts. */
export type PortPurpose = `${ChainSet}NP` | 'G' | 'S' | 'H';

/** Second-level chains are named by purpose, protocol and first port: `USERSPACE-PROXY-NP-T30016`. */
export function dispatchByPort(purpose: PortPurpose, rules: readonly PortRule[]): Dispatch {
  const groups = new Map<string, Rule[]>();
  for (const { protocol, port, rules: own } of rules) {
    const first = port - (port % PORT_BLOCK);
    for (const rule of own) append(groups, `${protocol}/${first}`, rule);
  }
  return buildDispatch(groups, (block) => {
    const [protocol, firstText] = block.split('/') as [Protocol, string];
    const first = Number(firstText);
    const last = first + PORT_BLOCK - 1;
    const range = [first, last] as const;
    // What leaves is not to be confused with what others send by the same port through this node.
    const match =
      purpose === 'S' ? { isFromLocalAddress: true as const, sourcePort: range } : { destinationPort: range };
    return {
      chain: `${CHAIN_PREFIX}${purpose}-${protocol.slice(0, 1)}${first}`,
      jump: { protocol, ...match, comment: `ports ${first} to ${last}` },
    };
  });
}

function append(groups: Map<string, Rule[]>, key: string, rule: Rule): void {
  const group = groups.get(key);
  if (group === undefined) groups.set(key, [rule]);
  else group.push(rule);
}

function buildDispatch(
  groups: ReadonlyMap<string, readonly Rule[]>,
  describe: (key: string) => { readonly chain: ChainName; readonly jump: Omit<Rule, 'target'> },
): Dispatch {
  const jumps: Rule[] = [];
  const chains = new Map<ChainName, readonly Rule[]>();
  for (const [key, rules] of [...groups].sort(([a], [b]) => compareText(a, b))) {
    const { chain, jump } = describe(key);
    jumps.push({ ...jump, target: { kind: 'jump', chain } });
    chains.set(chain, [...(chains.get(chain) ?? []), ...rules]);
  }
  return { jumps, chains };
}
