/**
 * The connection tracking settings of the node, as kube-proxy makes them at start (`cmd/kube-proxy/app/conntrack.go`): a
 * value is raised, never lowered, so that whoever asked for more keeps it.
 */
import type { Sysctls } from '../host/sysctl.ts';
import type { Logger } from '../log.ts';

export interface ConntrackSettings {
  /** Entries for each core; 0: the size is left as it is, whatever `min` says. */
  readonly maxPerCore: number;
  /** The least number of entries. */
  readonly min: number;
  /** 0 in each of the next: left as it is. Whole seconds count. */
  readonly tcpEstablishedTimeoutMs: number;
  readonly tcpCloseWaitTimeoutMs: number;
  readonly udpTimeoutMs: number;
  readonly udpStreamTimeoutMs: number;
  /** Take segments outside the window for valid. False: left as it is. */
  readonly tcpBeLiberal: boolean;
}

interface WantedSysctl {
  readonly name: string;
  readonly value: number;
}

/** Entries for each bucket of the hash table; more make every lookup slow. */
const ENTRIES_PER_BUCKET = 4;

/** What the settings ask of the kernel; a value that is there and at least as high will do. Pure. */
export function wantedSysctls(settings: ConntrackSettings, cores: number): readonly WantedSysctl[] {
  const { maxPerCore, min, tcpBeLiberal } = settings;
  const max = maxPerCore === 0 ? 0 : Math.max(maxPerCore * cores, min);
  const seconds = (ms: number): number => Math.floor(ms / 1000);
  return [
    { name: 'max', value: max },
    { name: 'buckets', value: Math.floor(max / ENTRIES_PER_BUCKET) },
    { name: 'tcp_timeout_established', value: seconds(settings.tcpEstablishedTimeoutMs) },
    { name: 'tcp_timeout_close_wait', value: seconds(settings.tcpCloseWaitTimeoutMs) },
    { name: 'tcp_be_liberal', value: tcpBeLiberal ? 1 : 0 },
    { name: 'udp_timeout', value: seconds(settings.udpTimeoutMs) },
    { name: 'udp_timeout_stream', value: seconds(settings.udpStreamTimeoutMs) },
  ]
    .filter(({ value }) => value > 0)
    .map(({ name, value }) => ({ name: `net.netfilter.nf_conntrack_${name}`, value }));
}

export class ConntrackTuning {
  readonly #deps: { readonly sysctls: Sysctls; readonly logger: Logger };
  #todo: readonly WantedSysctl[];

  constructor(
    deps: { readonly sysctls: Sysctls; readonly logger: Logger },
    options: { readonly settings: ConntrackSettings; readonly cores: number },
  ) {
    this.#deps = deps;
    this.#todo = wantedSysctls(options.settings, options.cores);
  }

  /**
   * Raises what is too low, once: to be called until the rules have made the kernel load connection tracking. What cannot
   * be raised gets one warning; the proxy works without, as far as the value found goes.
   */
  apply(): void {
    this.#todo = this.#todo.filter((wanted) => !this.#isSettled(wanted));
  }

  #isSettled({ name, value }: WantedSysctl): boolean {
    const { sysctls, logger } = this.#deps;
    const found = sysctls.read(name);
    if (found === undefined) return false;
    if (found >= value) return true;
    try {
      sysctls.write(name, value);
      logger.info({ sysctl: name, found, value }, 'Set a connection tracking limit of the node');
    } catch (error) {
      logger.warn(
        { sysctl: name, found, wanted: value, error },
        'A connection tracking limit of the node is lower than wanted and cannot be set from here',
      );
    }
    return true;
  }
}
