/** A native engine on a fake addon, and a policy that keeps every call. */
import { NativeEngine, type NativeEngineOptions } from '../../../src/engine/native/native-engine.ts';
import type {
  Decision,
  EngineEvent,
  ListenerId,
  ListenerSpec,
  Policy,
  SessionId,
} from '../../../src/engine/engine.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { FakeNativeAddon } from '../../support/fake-native-addon.ts';

export const OPTIONS = {
  tcpIdleTimeoutMs: 1,
  halfCloseTimeoutMs: 2,
  udpUnrepliedTimeoutMs: 3,
  udpRepliedTimeoutMs: 4,
} as const;

export const TCP: ListenerSpec = { protocol: 'TCP', family: 'IPv4', port: 80, addresses: ['0.0.0.0'] };
export const UDP: ListenerSpec = {
  protocol: 'UDP',
  family: 'IPv4',
  port: 53,
  addresses: ['127.0.0.1', '10.0.0.1'],
};

export function id(session: number): SessionId {
  return session as SessionId;
}

export function listenerId(listener: number): ListenerId {
  return listener as ListenerId;
}

export function dial(
  address = '10.0.0.1',
  more: { timeoutMs?: number; preamble?: Uint8Array } = {},
): Decision {
  return { kind: 'dial', to: { address, port: 8080 }, timeoutMs: 250, ...more };
}

export class NativeEngineFixture implements Policy {
  readonly clock = new FakeClock();
  readonly addon = new FakeNativeAddon();
  readonly engine: NativeEngine;
  /** What each call of the policy was given: `opened 1`, `closed 2`. */
  readonly calls: (readonly string[])[] = [];
  /** All events, in order. */
  readonly events: EngineEvent[] = [];
  /** What the policy says to an event; to most nothing. */
  decide: (event: EngineEvent) => Decision | undefined = () => undefined;
  #isHandling = false;

  constructor(options: NativeEngineOptions = OPTIONS) {
    this.engine = new NativeEngine({ clock: this.clock, policy: this }, options, this.addon);
  }

  /** All commands, in order, whatever batch they went in. */
  get commands(): readonly string[] {
    return this.addon.submitted.flat();
  }

  handle(events: readonly EngineEvent[]): readonly (Decision | undefined)[] {
    if (this.#isHandling) throw new Error('the policy is called within its own call');
    this.#isHandling = true;
    this.calls.push(events.map(({ kind, session }) => `${kind} ${session}`));
    this.events.push(...events);
    const decisions = events.map((event) => this.decide(event));
    this.#isHandling = false;
    return decisions;
  }
}
