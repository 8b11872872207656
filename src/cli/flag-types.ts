/**
 * The types a flag can have: what text it takes, how it is named in `--help`, how a value is written back. Pure.
 */
import { type IpAddress, hostPortText, parseIpAddress } from '../model/address.ts';
import { parseDurationMs, renderDuration } from './duration.ts';

export interface FlagType<T> {
  /** Stands after the flag in `--help`; '' for a boolean. */
  readonly name: string;
  /** Completes "must be …" in an error: the range and the form. */
  readonly accepts: string;
  /** The value, or undefined when the text is not acceptable. */
  parse(text: string): T | undefined;
  /** As an operator would type it; '' when there is nothing to show. */
  render(value: T): string;
  /** pflag's NoOptDefVal: what the flag means without a value. A flag that has one never takes the next word. */
  readonly bareValue?: string;
  /** Present on slices: a flag given again adds to what the first gave. Without it the last one wins. */
  append?(before: T, more: T): T;
}

/** Where a server listens. Port 0 lets the kernel choose (for tests). */
export interface BindAddress {
  readonly address: IpAddress;
  readonly port: number;
}

/** Both ends belong to it. */
export interface PortRange {
  readonly first: number;
  readonly last: number;
}

/**
 * The longest duration a flag takes, 24 days: `setTimeout` holds 2^31-1 ms (24.8 days) and fires at once above.
 */
export const MAX_DURATION_MS = 24 * 24 * 3_600_000;

export const text: FlagType<string> = {
  name: 'string',
  accepts: 'text',
  parse: (value) => value,
  render: (value) => JSON.stringify(value),
};

export const texts: FlagType<readonly string[]> = {
  name: 'strings',
  accepts: 'a list of values, separated by commas',
  parse: (value) => value.split(',').filter((item) => item !== ''),
  render: (values) => (values.length === 0 ? '' : `[${values.join(',')}]`),
  append: (before, more) => [...before, ...more],
};

/** Origins such as `https://10.0.0.1:6443`, separated by commas; a bare host means https. */
export const serverUrls: FlagType<readonly URL[]> = {
  name: 'urls',
  accepts:
    'addresses of API servers such as https://10.0.0.1:6443, separated by commas, without path or user',
  parse: (value) => {
    if (value === '') return [];
    const parsed = value.split(',').map((word) => parseServerUrl(word.trim()));
    return parsed.includes(undefined) ? undefined : parsed.filter((url) => url !== undefined);
  },
  render: (urls) => (urls.length === 0 ? '' : `[${urls.map(({ origin }) => origin).join(',')}]`),
  append: (before, more) => [...before, ...more],
};

function parseServerUrl(word: string): URL | undefined {
  const url = URL.parse(word.includes('://') ? word : `https://${word}`);
  if (url === null || url.hostname === '' || !['http:', 'https:'].includes(url.protocol)) return undefined;
  const isOrigin = url.pathname === '/' && `${url.search}${url.hash}${url.username}${url.password}` === '';
  return isOrigin ? url : undefined;
}

/** apimachinery `validation.IsValidLabelValue`. */
export const labelValue: FlagType<string> = {
  name: 'string',
  accepts: 'a label value: at most 63 letters, digits, "-", "_" and ".", with a letter or digit at both ends',
  parse: (value) => (/^(?:[\dA-Za-z](?:[-.\w]{0,61}[\dA-Za-z])?)?$/.test(value) ? value : undefined),
  render: (value) => JSON.stringify(value),
};

/** The words of Go's strconv.ParseBool. */
const BOOLEAN_BY_WORD = new Map([
  ...['1', 't', 'T', 'true', 'TRUE', 'True'].map((word) => [word, true] as const),
  ...['0', 'f', 'F', 'false', 'FALSE', 'False'].map((word) => [word, false] as const),
]);

export const boolean: FlagType<boolean> = {
  name: '',
  accepts: 'true or false',
  bareValue: 'true',
  parse: (value) => BOOLEAN_BY_WORD.get(value),
  render: (value) => (value ? 'true' : ''),
};

export function integerBetween(min: number, max: number): FlagType<number> {
  return {
    name: 'int',
    accepts: `an integer from ${min} to ${max}`,
    parse: (value) => {
      const parsed = /^[-+]?\d+$/.test(value) ? Number(value) : Number.NaN;
      return parsed >= min && parsed <= max ? parsed : undefined;
    },
    render: String,
  };
}

/** A duration in milliseconds from `minMs` to 24 days. */
export function durationFrom(minMs: number): FlagType<number> {
  return {
    name: 'duration',
    accepts: `a duration from ${renderDuration(minMs)} to ${renderDuration(MAX_DURATION_MS)}, such as 250ms, 2s or 1h30m`,
    parse: (value) => {
      const parsed = parseDurationMs(value);
      return parsed !== undefined && parsed >= minMs && parsed <= MAX_DURATION_MS ? parsed : undefined;
    },
    render: renderDuration,
  };
}

/** One duration or more, each as `durationFrom(minMs)` takes it. */
export function durationsFrom(minMs: number): FlagType<readonly number[]> {
  const item = durationFrom(minMs);
  return {
    name: 'durations',
    accepts: `one or more, separated by commas, each ${item.accepts}`,
    parse: (value) => {
      const parsed = value.split(',').map((word) => item.parse(word));
      return parsed.includes(undefined) ? undefined : parsed.filter((ms) => ms !== undefined);
    },
    render: (values) => values.map(renderDuration).join(','),
    append: (before, more) => [...before, ...more],
  };
}

/** One of `words`; `remark` is added to the error. */
export function oneOf<const W extends string>(words: readonly W[], remark = ''): FlagType<W> {
  return {
    name: 'string',
    accepts: `${words.map((word) => JSON.stringify(word)).join(' or ')}${remark}`,
    parse: (value) => words.find((word) => word === value),
    render: (value) => JSON.stringify(value),
  };
}

/** `IP:port`, `[IPv6]:port`, or an IP alone, which gets `defaultPort`; '' gives 'off'. */
export function bindAddress(defaultPort: number): FlagType<BindAddress | 'off'> {
  return {
    name: 'ipport',
    accepts: `IP:port, [IPv6]:port, an IP alone (port ${defaultPort}), or "" for none`,
    parse: (value) => (value === '' ? 'off' : parseBindAddress(value, defaultPort)),
    render: (value) => (value === 'off' ? '""' : hostPortText(value.address, value.port)),
  };
}

function parseBindAddress(value: string, defaultPort: number): BindAddress | undefined {
  const alone = parseIpAddress(value.replace(/^\[(.*:.*)\]$/, '$1'));
  if (alone !== undefined) return { address: alone, port: defaultPort };
  const [, bracketed, plain = '', digits] = /^(?:\[(.*:.*)\]|([^:]*)):(\d{1,5})$/.exec(value) ?? [];
  const address = parseIpAddress(bracketed ?? plain);
  const port = Number(digits);
  return address === undefined || port > 65_535 ? undefined : { address, port };
}

/**
 * kube-proxy's forms (apimachinery `net.PortRange`): `A-B`, `A+N` (A to A+N) and a single port; '' and `0-0`
 * mean `whole`.
 */
export function portRange(whole: PortRange): FlagType<PortRange> {
  return {
    name: 'port-range',
    accepts: 'A-B, A+N or one port, from 1024 to 65535, with A <= B',
    parse: (value) => {
      const trimmed = value.trim();
      if (trimmed === '' || trimmed === '0-0') return whole;
      const [, low, sign, second] = /^(\d{1,5})(?:([-+])(\d{1,5}))?$/.exec(trimmed) ?? [];
      const first = Number(low);
      const last = sign === undefined ? first : Number(second) + (sign === '+' ? first : 0);
      return first >= 1024 && first <= last && last <= 65_535 ? { first, last } : undefined;
    },
    render: portRangeText,
  };
}

export function portRangeText({ first, last }: PortRange): string {
  return `${first}-${last}`;
}
