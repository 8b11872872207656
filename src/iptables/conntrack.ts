/**
 * Forgets the UDP flows that conntrack would go on sending the old way. NAT is decided on the first packet of a
 * flow: a client that keeps its source port stays with the proxy port of that moment, or with none if it came
 * before the rule, for as long as it keeps sending.
 */
import { ProxyError, isProxyError } from '../errors.ts';
import type { Exec } from '../host/exec.ts';
import type { Logger } from '../log.ts';
import type { IpAddress, IpFamily } from '../model/address.ts';

const EXEC_TIMEOUT_MS = 30_000;
/** What `conntrack -D` answers when no flow matched. */
const EXIT_NONE_DELETED = 1;

/** A UDP portal that leads elsewhere than before, or nowhere any more. */
export interface MovedPortal {
  readonly family: IpFamily;
  /** Undefined: a NodePort, on whatever address. */
  readonly address: IpAddress | undefined;
  readonly port: number;
  /**
   * Where its flows may still lead and should not: the portal's own port for flows that were never diverted, and former
   * proxy ports. Undefined: whoever has a flow there must begin anew.
   */
  readonly stalePorts: readonly number[] | undefined;
}

export interface ConntrackDeps {
  readonly exec: Exec;
  readonly logger: Logger;
}

/** One program at a time, in the order asked, beside the syncs: a large table takes its time. */
export class Conntrack {
  readonly #deps: ConntrackDeps;
  #work: Promise<void> = Promise.resolve();
  /** What is asked for and not begun. */
  readonly #waiting = new Set<string>();
  #isOver = false;

  constructor(deps: ConntrackDeps) {
    this.#deps = deps;
  }

  /** Returns at once. A fault is logged; without the program nothing more is tried. */
  forget(portals: readonly MovedPortal[]): void {
    for (const portal of portals) {
      const key = JSON.stringify(portal);
      // It has not begun yet, so it will also see what there is now.
      if (this.#waiting.has(key)) continue;
      this.#waiting.add(key);
      this.#work = this.#work.then(async () => {
        this.#waiting.delete(key);
        await this.#delete(portal);
      });
    }
  }

  /** Resolves when everything asked so far has been done. */
  async settled(): Promise<void> {
    await this.#work;
  }

  /** Nothing further is started; resolves when the program under way has ended. Idempotent. */
  async close(): Promise<void> {
    this.#isOver = true;
    await this.#work;
  }

  async #delete(portal: MovedPortal): Promise<void> {
    if (portal.stalePorts === undefined) await this.#deleteFlows(portal, []);
    // Replies come from the port that a flow leads to.
    for (const stalePort of portal.stalePorts ?? []) {
      await this.#deleteFlows(portal, ['--reply-port-src', String(stalePort)]);
    }
  }

  async #deleteFlows({ family, address, port }: MovedPortal, which: readonly string[]): Promise<void> {
    if (this.#isOver) return;
    const to = address === undefined ? [] : ['--orig-dst', address];
    const of = [
      '-f',
      family === 'IPv4' ? 'ipv4' : 'ipv6',
      '-p',
      'udp',
      ...to,
      '--orig-port-dst',
      String(port),
      ...which,
    ];
    try {
      const { exitCode, stderr } = await this.#deps.exec('conntrack', ['-D', ...of], {
        timeoutMs: EXEC_TIMEOUT_MS,
      });
      if (exitCode === 0 || (exitCode === EXIT_NONE_DELETED && /\b0 flow entries/.test(stderr))) return;
      throw new ProxyError(
        'ERR_CONNTRACK_DELETE',
        `conntrack -D ${of.join(' ')} failed with ${exitCode}: ${stderr.trim()}`,
      );
    } catch (error) {
      this.#isOver ||= isProxyError(error, 'ERR_EXEC_NOT_FOUND');
      this.#deps.logger.warn(
        { error },
        'UDP clients that keep one source port may stay with an old proxy port',
      );
    }
  }
}
