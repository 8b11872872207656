/**
 * The flags that decide about single connections and UDP sessions: how long they may take, how many there may be.
 * Pure data, and their settings.
 */
import { durationFrom, durationsFrom, integerBetween } from './flag-types.ts';
import { type FlagTable, type FlagValues, flagIn } from './flags.ts';

const MAX_TABLE_SIZE = 16_777_216;

const connections = flagIn('Connection');

export const CONNECTION_FLAGS = {
  'dial-timeouts': connections(
    durationsFrom(1),
    [250, 500, 1_000, 2_000],
    'Time-outs of successive passes over the endpoints of a Service when one does not answer.',
  ),
  'ejection-time': connections(
    durationFrom(0),
    1_000,
    'How long an endpoint that did not answer is left out at first; twice as long each time it fails again, up to 30s. The last one that answers never is. 0: nobody is left out.',
  ),
  'tcp-idle-timeout': connections(
    durationFrom(0),
    0,
    'How long a TCP connection may be silent in both directions before it is reset. 0: for ever, as without a proxy.',
  ),
  'tcp-half-close-timeout': connections(
    durationFrom(0),
    3_600_000,
    'How long one direction of a TCP connection may stay silent after the other has ended. 0: for ever.',
  ),
  'udp-timeout': connections(
    durationFrom(1),
    120_000,
    "How long a UDP session is kept without traffic once its backend has replied. (kube-proxy's userspace mode: 250ms, replied or not.)",
  ),
  'udp-unreplied-timeout': connections(
    durationFrom(1),
    30_000,
    'How long a UDP session is kept without traffic before its backend has replied. Not given: never more than --udp-timeout.',
  ),
  'max-connections': connections(
    integerBetween(0, MAX_TABLE_SIZE),
    0,
    'TCP connections in all; those above are reset, and the last sixteenth is kept for Services and clients that hold few. 0: as many as the limit of open files allows, two files each, which caps any other number too.',
  ),
  'max-connections-per-service': connections(
    integerBetween(0, MAX_TABLE_SIZE),
    0,
    'TCP connections of a Service port and IP family; those above are reset. 0: no limit of its own.',
  ),
  'max-concurrent-dials': connections(
    integerBetween(1, MAX_TABLE_SIZE),
    256,
    'TCP connections of a Service port and IP family that may be dialled to endpoints at the same time; the others wait for their turn, at most the sum of --dial-timeouts.',
  ),
  'max-udp-sessions': connections(
    integerBetween(1, MAX_TABLE_SIZE),
    4_096,
    'UDP sessions in all; the longest idle one makes room for a new one, of the client or the Service with the most if they hold more than a fourth.',
  ),
  'max-udp-sessions-per-service': connections(
    integerBetween(0, MAX_TABLE_SIZE),
    0,
    'UDP sessions of a Service port and IP family; its longest idle one makes room for a new one. 0: no limit of its own.',
  ),
  'affinity-table-size': connections(
    integerBetween(1, MAX_TABLE_SIZE),
    65_536,
    'Clients remembered for sessionAffinity ClientIP, by each Service port and family; the longest unseen makes room.',
  ),
} as const satisfies FlagTable;

/** All durations in milliseconds. */
export interface ConnectionSettings {
  /** One or more, each greater than 0. */
  readonly dialTimeoutsMs: readonly number[];
  /** 0: nobody is left out. */
  readonly ejectionTimeMs: number;
  /** 0: never. */
  readonly tcpIdleTimeoutMs: number;
  /** 0: never. */
  readonly halfCloseTimeoutMs: number;
  readonly udpRepliedTimeoutMs: number;
  readonly udpUnrepliedTimeoutMs: number;
  /** 0: as many as there are descriptors for. */
  readonly maxConnections: number;
  /** Of one service port and family; 0: no limit of its own. */
  readonly maxConnectionsPerService: number;
  /** Of one service port and family. At least 1. */
  readonly maxConcurrentDials: number;
  /** At least 1. */
  readonly maxUdpSessions: number;
  /** Of one service port and family; 0: no limit of its own. */
  readonly maxUdpSessionsPerService: number;
  /** At least 1. */
  readonly affinityTableSize: number;
}

/** `given`: the flags that the command line names. */
export function connectionSettingsFrom(
  values: FlagValues<typeof CONNECTION_FLAGS>,
  given: ReadonlyMap<string, unknown>,
): ConnectionSettings {
  const udpRepliedTimeoutMs = values['udp-timeout'];
  const udpUnrepliedTimeoutMs = values['udp-unreplied-timeout'];
  return {
    dialTimeoutsMs: Object.freeze([...values['dial-timeouts']]),
    ejectionTimeMs: values['ejection-time'],
    tcpIdleTimeoutMs: values['tcp-idle-timeout'],
    halfCloseTimeoutMs: values['tcp-half-close-timeout'],
    udpRepliedTimeoutMs,
    // Unless somebody asks for it, an answered session never dies before an unanswered one.
    udpUnrepliedTimeoutMs: given.has('udp-unreplied-timeout')
      ? udpUnrepliedTimeoutMs
      : Math.min(udpUnrepliedTimeoutMs, udpRepliedTimeoutMs),
    maxConnections: values['max-connections'],
    maxConnectionsPerService: values['max-connections-per-service'],
    maxConcurrentDials: values['max-concurrent-dials'],
    maxUdpSessions: values['max-udp-sessions'],
    maxUdpSessionsPerService: values['max-udp-sessions-per-service'],
    affinityTableSize: values['affinity-table-size'],
  };
}
