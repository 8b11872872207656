/**
 * An engine that only opens and closes listeners. It fails closed: closing or changing what is not open throws,
 * and no port is open twice.
 */
import type { Engine, ListenerId, ListenerSpec } from '../../src/engine/engine.ts';
import { ProxyError } from '../../src/errors.ts';

export class FakeListenerEngine implements Pick<Engine, 'open' | 'close' | 'setAddresses' | 'socketsFor'> {
  readonly listeners = new Map<ListenerId, ListenerSpec>();
  /** What was done, in order: `open 1000`, `close 1000`, `addresses 1000 …`. */
  readonly calls: string[] = [];
  /** `address:port` held by other programs; a bare `:port` on every address. */
  readonly held = new Set<string>();
  /** errno by port, for faults that are no clash. */
  readonly faults = new Map<number, string>();
  /** Before anything is done; a test may hold a call up here. */
  gate: () => Promise<void> = async () => {};
  /** Has UDP a socket on each address, or one for all? */
  hasSocketPerAddress = true;
  #lastId = 0;

  get ports(): readonly number[] {
    return [...this.listeners.values()].map(({ port }) => port).toSorted((a, b) => a - b);
  }

  idOf(port: number): ListenerId {
    const found = [...this.listeners].find(([, spec]) => spec.port === port);
    if (found === undefined) throw new Error(`port ${port} is not open`);
    return found[0];
  }

  async open(spec: ListenerSpec): Promise<ListenerId> {
    await this.gate();
    this.calls.push(`open ${spec.port}`);
    this.#check(spec, spec.addresses);
    this.#lastId += 1;
    const id = this.#lastId as ListenerId;
    this.listeners.set(id, spec);
    return id;
  }

  async setAddresses(id: ListenerId, addresses: readonly string[]): Promise<void> {
    await this.gate();
    const spec = this.#of(id);
    if (spec.protocol !== 'UDP') throw new Error(`addresses of a ${spec.protocol} listener`);
    this.calls.push(`addresses ${spec.port} ${addresses.join()}`);
    this.#check(
      spec,
      addresses.filter((address) => !spec.addresses.includes(address)),
    );
    this.listeners.set(id, { ...spec, addresses });
  }

  socketsFor({ protocol, addresses }: Pick<ListenerSpec, 'protocol' | 'addresses'>): number {
    return protocol === 'UDP' && this.hasSocketPerAddress ? addresses.length : 1;
  }

  async close(id: ListenerId): Promise<void> {
    await this.gate();
    this.calls.push(`close ${this.#of(id).port}`);
    this.listeners.delete(id);
  }

  #of(id: ListenerId): ListenerSpec {
    const spec = this.listeners.get(id);
    if (spec === undefined) throw new Error(`listener ${id} is not open`);
    return spec;
  }

  #check({ port, protocol, family }: ListenerSpec, addresses: readonly string[]): void {
    const errno = this.faults.get(port);
    if (errno !== undefined) throw openFault(port, errno);
    const isOurs = [...this.listeners.values()].some(
      (other) =>
        other.port === port &&
        other.protocol === protocol &&
        other.family === family &&
        other.addresses.some((address) => addresses.includes(address)),
    );
    const isHeld =
      this.held.has(`:${port}`) || addresses.some((address) => this.held.has(`${address}:${port}`));
    if (isOurs || isHeld) throw openFault(port, 'EADDRINUSE');
  }
}

function openFault(port: number, errno: string): ProxyError {
  const cause = Object.assign(new Error(`bind ${errno}`), { code: errno });
  return new ProxyError('ERR_LISTENER_OPEN', `cannot listen on port ${port}`, { cause });
}
