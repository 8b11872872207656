/**
 * How many sessions each endpoint of one balancer has. An endpoint is remembered as long as it has any, in the
 * set or not: it may come back while old sessions to it are still open.
 */
export class SessionCounts {
  readonly #countByKey = new Map<string, number>();

  /** Endpoints that have sessions. */
  get size(): number {
    return this.#countByKey.size;
  }

  of(endpointKey: string): number {
    return this.#countByKey.get(endpointKey) ?? 0;
  }

  began(endpointKey: string): void {
    this.#countByKey.set(endpointKey, this.of(endpointKey) + 1);
  }

  /** Throws when the endpoint has no session: a session was ended twice or never begun. */
  ended(endpointKey: string): void {
    const count = this.of(endpointKey);
    if (count === 0) throw new Error(`a session of ${endpointKey} ended, but it has none`);
    if (count === 1) this.#countByKey.delete(endpointKey);
    else this.#countByKey.set(endpointKey, count - 1);
  }
}
