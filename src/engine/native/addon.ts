/**
 * The addon native/build/Release/kup_engine.node as TypeScript sees it. native/binding.cc believes its arguments, so
 * nobody but `NativeEngine` calls it. What goes wrong in the system comes back as a number of errno.h.
 */
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import type { EngineOptions, ListenerId, SessionId } from '../engine.ts';

/** Counted up, here and in binding.cc, with every change of what crosses the border. */
export const PROTOCOL = 1;

/** One running engine. Owned by who started it, until `release`. */
export type NativeHandle = object & { readonly __brand: 'NativeHandle' };

export interface NativeOptions extends EngineOptions {
  /** Connections that may be accepted before the policy has heard of them; the others wait in the kernel. */
  readonly maxUnreported: number;
  /** Pipes of the relay, two descriptors each. */
  readonly maxPipes: number;
}

export interface NativeAddon {
  /** As `PROTOCOL`, of the build. */
  readonly protocol: number;
  /** Milliseconds of CLOCK_MONOTONIC. */
  now(): number;
  /**
   * A thread of its own, which ends with the environment at the latest. `wake` is called, in the thread of the caller,
   * when there are events, and not again before `drain` has returned 0. Returns an errno when it cannot start.
   */
  start(options: NativeOptions, wake: () => void): NativeHandle | number;
  /** Is this process to live as long as the engine runs? At first not. */
  setKeepsAlive(handle: NativeHandle, keepsAlive: boolean): void;
  /** `addresses`: one literal or more, with commas. Returns 0 or the errno. */
  open(handle: NativeHandle, listener: ListenerId, protocol: 0 | 1, port: number, addresses: string): number;
  setAddresses(handle: NativeHandle, listener: ListenerId, port: number, addresses: string): number;
  /** False when there is none; else the event `listenerClosed` follows. */
  close(handle: NativeHandle, listener: ListenerId): boolean;
  /** As `Submit` of protocol.ts. Everything is copied before it returns. */
  submit(handle: NativeHandle, commands: ArrayBuffer, count: number, preambles: Uint8Array): void;
  /** Writes as many events as wait and fit; returns how many. */
  drain(handle: NativeHandle, events: ArrayBuffer): number;
  /** By `now`. */
  lastUsed(handle: NativeHandle, session: SessionId): number | undefined;
  /** For each session its id, bytesIn and bytesOut. */
  sessionBytes(handle: NativeHandle): Float64Array;
  /** In the order of `EngineTotals`. */
  totals(handle: NativeHandle): Float64Array;
  /** Ends the thread; the last events can be drained after. */
  stop(handle: NativeHandle): void;
  /** The handle must not be used any more. */
  release(handle: NativeHandle): void;
}

/** The same from `src/` and from `dist/`. */
const FILE = join(import.meta.dirname, '../../../native/build/Release/kup_engine.node');

/** Throws an Error that says why, and what to do, when the addon was not built, does not load here or is out of date. */
export function loadAddon(file = FILE): NativeAddon {
  if (!existsSync(file)) throw new Error(`${file} is not there: npm run build:native makes it`);
  const addon = createRequire(import.meta.url)(file) as NativeAddon;
  if (addon.protocol === PROTOCOL) return addon;
  throw new Error(`${file} is of another version, rebuild it: npm run build:native`);
}
