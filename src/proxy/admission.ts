/**
 * How many connections may be open, in all and of one Service port, so that neither a greedy Service nor a greedy
 * client takes the node from the others. Pure bookkeeping: it never waits and never closes anything.
 *
 * 1. In all there are as many as the flag says and the descriptors allow. The last sixteenth of them is kept for
 *    clients that hold little, and half of that for Services that do: whoever has taken the rest finds the door closed,
 *    everybody else does not, and the clients of a Service that one of them has filled do not either.
 * 2. A Service port (of one family) may have a limit of its own.
 */

/** The part of all connections that is kept for those who hold little. */
const RESERVED_PART = 16;
/** Who holds less than this part of what is reserved holds little. */
const SMALL_PART = 8;

/** Whose a session is. */
export interface Parties {
  /** A service port of one family, by identity. */
  readonly service: object;
  /** The client's address, without its port. */
  readonly client: string;
}

export interface AdmissionOptions {
  /** Of one service port and family; 0: no limit. */
  readonly maxPerService: number;
  /** In all; asked for each connection, because it moves with what else takes descriptors. */
  readonly capacity: () => number;
}

/** Connections by whose they are; nobody with none is kept. */
class Counts<Key> {
  readonly #byKey = new Map<Key, number>();

  of(key: Key): number {
    return this.#byKey.get(key) ?? 0;
  }

  add(key: Key, change: 1 | -1): void {
    const count = this.of(key) + change;
    if (count > 0) this.#byKey.set(key, count);
    else this.#byKey.delete(key);
  }
}

export class Admission {
  readonly #options: AdmissionOptions;
  readonly #services = new Counts<object>();
  readonly #clients = new Counts<string>();
  #open = 0;

  constructor(options: AdmissionOptions) {
    this.#options = options;
  }

  /** Connections that were let in and have not closed. */
  get open(): number {
    return this.#open;
  }

  /** Why one more would be too many, in an operator's words; undefined: it would not. */
  refusalOf({ service, client }: Parties): string | undefined {
    const { maxPerService } = this.#options;
    const ofService = this.#services.of(service);
    if (maxPerService > 0 && ofService >= maxPerService)
      return `the Service port has its ${maxPerService} connections`;
    const capacity = this.#options.capacity();
    if (this.#open >= capacity) return `all ${capacity} connections are in use`;
    const reserved = Math.floor(capacity / RESERVED_PART);
    if (this.#open < capacity - reserved) return undefined;
    const little = Math.max(1, Math.floor(reserved / SMALL_PART));
    if (this.#clients.of(client) >= little) {
      return `the last ${reserved} of ${capacity} connections are for other clients`;
    }
    const forServices = Math.floor(reserved / 2);
    if (this.#open < capacity - forServices || ofService < little) return undefined;
    return `the last ${forServices} of ${capacity} connections are for other Services`;
  }

  opened({ service, client }: Parties): void {
    this.#open += 1;
    this.#services.add(service, 1);
    this.#clients.add(client, 1);
  }

  /** Once for each `opened`. */
  closed({ service, client }: Parties): void {
    this.#open -= 1;
    this.#services.add(service, -1);
    this.#clients.add(client, -1);
  }
}
