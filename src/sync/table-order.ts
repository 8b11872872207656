/**
 * Which of the two tables is to be committed first, so that no packet of a portal falls between them: it is diverted
 * in nat, or it is refused in filter, and the one has to be there before the other goes. Pure.
 */
import type { Portal } from '../desired/portal.ts';
import type { TableName } from '../iptables/rule.ts';

/** What it gains must be diverted before its refusal goes: also the order for passes in which some gain and some lose. */
const NAT_FIRST: readonly TableName[] = ['nat', 'filter'];
/** What it loses must be refused before its diversion goes; refusing what is still diverted harms nobody. */
const FILTER_FIRST: readonly TableName[] = ['filter', 'nat'];

export function tableOrder(before: readonly Portal[], after: readonly Portal[]): readonly TableName[] {
  if (before === after) return NAT_FIRST;
  const wasDiverted = new Set(before.filter(isDiverted).map(placeOf));
  const hasGains = after.some((portal) => isDiverted(portal) && !wasDiverted.has(placeOf(portal)));
  const hasLosses = after.some((portal) => !isDiverted(portal) && wasDiverted.has(placeOf(portal)));
  return hasLosses && !hasGains ? FILTER_FIRST : NAT_FIRST;
}

function isDiverted({ target: { kind } }: Portal): boolean {
  return kind === 'listener' || kind === 'split';
}

function placeOf({ address, family, port, protocol }: Portal): string {
  return `${address ?? `node/${family}`}|${port}|${protocol}`;
}
