/**
 * The flags about the node's connection tracking table: kube-proxy's names and defaults (cmd/kube-proxy/app/options.go).
 * Pure data, and their settings.
 */
import { boolean, durationFrom, integerBetween } from './flag-types.ts';
import { type FlagTable, type FlagValues, flagIn } from './flags.ts';

/** What an int32 of kube-proxy's holds. */
const MAX_ENTRIES = 2_147_483_647;
const DAY_MS = 86_400_000;
const HOUR_MS = 3_600_000;

const conntrack = flagIn('Connection tracking');

export const CONNTRACK_FLAGS = {
  'conntrack-max-per-core': conntrack(
    integerBetween(0, MAX_ENTRIES),
    32_768,
    'Entries of the connection tracking table for each CPU core: nf_conntrack_max is raised to them, never lowered. This proxy needs two for each connection. 0: left as it is, whatever --conntrack-min says.',
  ),
  'conntrack-min': conntrack(
    integerBetween(0, MAX_ENTRIES),
    131_072,
    'The least number of entries, where --conntrack-max-per-core comes to fewer.',
  ),
  'conntrack-tcp-timeout-established': conntrack(
    durationFrom(0),
    DAY_MS,
    'How long connection tracking is to keep an idle TCP connection at least. A longer time is left as it is. 0: as is any.',
  ),
  'conntrack-tcp-timeout-close-wait': conntrack(
    durationFrom(0),
    HOUR_MS,
    "How long it is to keep a half-closed one at least; the kernel's 60s cuts off whoever answers later. 0: left as it is.",
  ),
  'conntrack-tcp-be-liberal': conntrack(
    boolean,
    false,
    'Let TCP segments outside the window pass for valid (nf_conntrack_tcp_be_liberal). false: left as it is.',
  ),
  'conntrack-udp-timeout': conntrack(
    durationFrom(0),
    0,
    'How long it is to keep UDP flows without a reply at least. 0: left as it is.',
  ),
  'conntrack-udp-timeout-stream': conntrack(
    durationFrom(0),
    0,
    'How long it is to keep UDP flows with replies at least. 0: left as it is.',
  ),
} as const satisfies FlagTable;

/** All durations in milliseconds, of which whole seconds count; 0: left as it is. A value of the node's is never lowered. */
export interface ConntrackConfig {
  /** 0: the size is left as it is. */
  readonly maxPerCore: number;
  readonly min: number;
  readonly tcpEstablishedTimeoutMs: number;
  readonly tcpCloseWaitTimeoutMs: number;
  /** False: left as it is. */
  readonly tcpBeLiberal: boolean;
  readonly udpTimeoutMs: number;
  readonly udpStreamTimeoutMs: number;
}

export function conntrackConfigFrom(values: FlagValues<typeof CONNTRACK_FLAGS>): ConntrackConfig {
  return Object.freeze({
    maxPerCore: values['conntrack-max-per-core'],
    min: values['conntrack-min'],
    tcpEstablishedTimeoutMs: values['conntrack-tcp-timeout-established'],
    tcpCloseWaitTimeoutMs: values['conntrack-tcp-timeout-close-wait'],
    tcpBeLiberal: values['conntrack-tcp-be-liberal'],
    udpTimeoutMs: values['conntrack-udp-timeout'],
    udpStreamTimeoutMs: values['conntrack-udp-timeout-stream'],
  });
}
