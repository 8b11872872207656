/** The types of flags that name parts of the network: address ranges and interfaces. Pure. */
import { type Cidr, parseCidr } from '../model/cidr.ts';
import type { FlagType } from './flag-types.ts';

/** The word that stands for the InternalIPs of the Node object among `--nodeport-addresses`. */
export const PRIMARY = 'primary';

/** IFNAMSIZ less its final NUL (linux/if.h). The `+` of a prefix counts too (iptables, `xtables_parse_interface`). */
export const MAX_INTERFACE_NAME_LENGTH = 15;

/**
 * Ranges and `primary`, in the order given; an empty text gives none. That `primary` stands alone is for the
 * caller to check: a flag given twice adds up.
 */
export const nodePortAddressItems: FlagType<readonly (Cidr | typeof PRIMARY)[]> = {
  name: 'cidrs',
  accepts: `CIDRs such as 10.0.0.0/8 or fd00::/64, separated by commas, or the single word ${JSON.stringify(PRIMARY)}`,
  parse: (value) => parseList(value, (word) => (word === PRIMARY ? PRIMARY : parseCidr(word))),
  render: (items) => items.map((item) => (item === PRIMARY ? PRIMARY : item.text)).join(','),
  append: (before, more) => [...before, ...more],
};

/** Nothing, one range, or one of each family in either order (kube-proxy `validateDualStackCIDRStrings`). */
export const cidrOfEachFamily: FlagType<readonly Cidr[]> = {
  name: 'cidrs',
  accepts: 'a CIDR, or one of each family separated by a comma, such as 10.244.0.0/16,fd00:10:244::/56',
  parse: (value) => {
    const cidrs = parseList(value, parseCidr);
    const families = new Set(cidrs?.map(({ family }) => family));
    return families.size === cidrs?.length ? cidrs : undefined;
  },
  render: (cidrs) => cidrs.map(({ text }) => text).join(','),
};

/**
 * '' or what an interface of at most `maxLength` characters may be called. Stricter than the kernel
 * (`dev_valid_name`) where iptables reads more into a character than the name: a `+` at the end, quotes, a `-` at
 * the start.
 */
export function interfaceName(maxLength: number): FlagType<string> {
  const pattern = new RegExp(`^(?!\\.{1,2}$)(?!.*\\+$)[\\w.@][-\\w.@+]{0,${maxLength - 1}}$`);
  return {
    name: 'string',
    accepts:
      `at most ${maxLength} letters, digits, "_", "-", ".", "@" and "+", without "-" at the start ` +
      'and without "+" at the end',
    parse: (value) => (value === '' || pattern.test(value) ? value : undefined),
    render: (value) => JSON.stringify(value),
  };
}

/** Every item between commas, without the space around it; undefined when one is none. */
function parseList<T>(value: string, parse: (word: string) => T | undefined): readonly T[] | undefined {
  if (value.trim() === '') return [];
  const parsed = value.split(',').map((word) => parse(word.trim()));
  const items = parsed.filter((item) => item !== undefined);
  return items.length === parsed.length ? items : undefined;
}
