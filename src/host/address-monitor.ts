/**
 * Follows the node's addresses: reads them once at start, again whenever `ip monitor` says that something
 * changed, and at every periodic `refresh`. Level-triggered: an event only says "look again".
 */
import { type Logger } from '../log.ts';
import { ProxyError } from '../errors.ts';
import type { Exec, ExecLines, LineStream } from './exec.ts';
import {
  type HostAddresses,
  hasSameAddresses,
  hostAddressesFromInterfaces,
  parseInterfaces,
} from './interfaces.ts';

const EXEC_TIMEOUT_MS = 10_000;

export interface AddressMonitorDeps {
  readonly exec: Exec;
  readonly execLines: ExecLines;
  readonly logger: Logger;
  /** Called after every change, never during `start`. */
  readonly onChange: () => void;
}

export class AddressMonitor {
  readonly #deps: AddressMonitorDeps;
  #current: HostAddresses = hostAddressesFromInterfaces([]);
  #stream: LineStream | undefined;
  #reading: Promise<void> | undefined;
  #isStale = false;
  #isStarted = false;
  #isClosed = false;

  constructor(deps: AddressMonitorDeps) {
    this.#deps = deps;
  }

  get current(): HostAddresses {
    return this.#current;
  }

  /** Rejects when the addresses cannot be read at all. */
  async start(): Promise<void> {
    this.#follow();
    // What changes while we read makes us read again: two reads at once could end in the wrong order.
    do {
      this.#isStale = false;
      this.#current = await readHostAddresses(this.#deps.exec);
    } while (this.#isStale && !this.#isClosed);
    this.#isStarted = true;
  }

  /** Looks again, and restarts `ip monitor` if it has died. Never rejects: the last known addresses stay. */
  async refresh(): Promise<void> {
    this.#isStale = true;
    if (!this.#isStarted || this.#isClosed) return;
    if (this.#stream === undefined) this.#follow();
    this.#reading ??= this.#readUntilFresh();
    await this.#reading;
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    await this.#stream?.close();
    await this.#reading;
  }

  #follow(): void {
    this.#stream = this.#deps.execLines('ip', ['-o', 'monitor', 'address', 'link'], {
      onLine: () => void this.refresh(),
      onEnd: (reason) => {
        this.#stream = undefined;
        this.#deps.logger.warn(
          { reason },
          'Following of node addresses interrupted, resumed at the next sync period',
        );
      },
    });
  }

  async #readUntilFresh(): Promise<void> {
    try {
      while (this.#isStale && !this.#isClosed) {
        this.#isStale = false;
        await this.#read();
      }
    } finally {
      this.#reading = undefined;
    }
  }

  async #read(): Promise<void> {
    try {
      const read = await readHostAddresses(this.#deps.exec);
      if (hasSameAddresses(read, this.#current) || this.#isClosed) return;
      this.#current = read;
    } catch (error) {
      this.#deps.logger.error({ error }, 'Cannot read node addresses, keeping the last known ones');
      return;
    }
    this.#deps.onChange();
  }
}

/** The node's addresses at this moment. Rejects with `ERR_ADDRESS`, or as `Exec` does. */
export async function readHostAddresses(exec: Exec): Promise<HostAddresses> {
  const { exitCode, stdout, stderr } = await exec('ip', ['-j', 'address', 'show'], {
    timeoutMs: EXEC_TIMEOUT_MS,
  });
  if (exitCode !== 0) throw new ProxyError('ERR_ADDRESS', `\`ip -j address show\` failed: ${stderr.trim()}`);
  return hostAddressesFromInterfaces(parseInterfaces(stdout));
}
