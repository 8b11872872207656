/**
 * The other end of the native engine's records: a queue of events as the addon would write them, and the commands that
 * it was given, read back. Laid out after native/engine.h, not after what is tested.
 */
import type { CloseCause } from '../../src/engine/engine.ts';

const EVENT_BYTES = 104;
const COMMAND_BYTES = 80;
/** As `CloseCause` in native/engine.h. */
const CAUSES: readonly CloseCause[] = [
  'fin',
  'clientReset',
  'backendReset',
  'idle',
  'halfClose',
  'evicted',
  'refused',
  'backendRefused',
  'stopped',
];

export type NativeEvent =
  | {
      readonly kind: 'opened';
      readonly session: number;
      readonly listener?: number;
      readonly address?: string;
      readonly port?: number;
    }
  | { readonly kind: 'dialFailed'; readonly session: number; readonly error: number; readonly epoch?: number }
  | { readonly kind: 'established'; readonly session: number; readonly epoch?: number }
  | {
      readonly kind: 'closed';
      readonly session: number;
      readonly cause?: CloseCause;
      readonly bytesIn?: number;
      readonly bytesOut?: number;
    }
  | { readonly kind: 'listenerClosed'; readonly listener: number }
  /** What no build of this version sends. */
  | { readonly kind: 'unknown' };

const KINDS = { opened: 1, dialFailed: 2, established: 3, closed: 4, listenerClosed: 5, unknown: 6 } as const;

/** As `NativeAddon.drain`: moves what fits out of `queue` and into `buffer`. Fields that an event has not are garbage. */
export function drainInto(buffer: ArrayBuffer, queue: NativeEvent[]): number {
  const events = queue.splice(0, Math.floor(buffer.byteLength / EVENT_BYTES));
  for (const [at, event] of events.entries()) {
    const record = new DataView(buffer, at * EVENT_BYTES, EVENT_BYTES);
    new Uint8Array(buffer, at * EVENT_BYTES, EVENT_BYTES).fill(0xa5);
    writeEvent(record, event);
  }
  return events.length;
}

function writeEvent(record: DataView, event: NativeEvent): void {
  record.setUint32(24, KINDS[event.kind], true);
  if ('session' in event) record.setFloat64(0, event.session, true);
  if (event.kind === 'dialFailed' || event.kind === 'established') {
    record.setUint32(28, event.epoch ?? 0, true);
  }
  switch (event.kind) {
    case 'opened': {
      const { listener = -1, address = '192.0.2.1', port = 40_000 } = event;
      record.setInt32(32, listener, true);
      record.setUint32(44, port, true);
      record.setUint32(48, address.length, true);
      for (const [index, byte] of Buffer.from(address).entries()) record.setUint8(52 + index, byte);
      break;
    }
    case 'dialFailed':
      record.setInt32(36, event.error, true);
      break;
    case 'closed':
      record.setUint32(40, CAUSES.indexOf(event.cause ?? 'fin'), true);
      record.setFloat64(8, event.bytesIn ?? 0, true);
      record.setFloat64(16, event.bytesOut ?? 0, true);
      break;
    case 'listenerClosed':
      record.setInt32(32, event.listener, true);
      break;
    case 'established':
    case 'unknown':
      break;
  }
}

/** `dial 7 to 10.0.0.1:80 within 250 ms, epoch 0, after "PROXY"`, `refuse 7, epoch 0`, `stopped 7`, `evicted 7`. */
export function commandTexts(buffer: ArrayBuffer, count: number, preambles: Uint8Array): readonly string[] {
  let preambleAt = 0;
  return Array.from({ length: count }, (_, at) => {
    const record = new DataView(buffer, at * COMMAND_BYTES, COMMAND_BYTES);
    const length = record.getUint32(20, true);
    const preamble = preambles.subarray(preambleAt, preambleAt + length);
    if (preamble.length < length)
      throw new Error(`a preamble of ${length} bytes has only ${preamble.length}`);
    preambleAt += length;
    return commandText(record, Buffer.from(preamble).toString());
  });
}

function commandText(record: DataView, preamble: string): string {
  const kind = ['refuse', 'dial', 'stopped', 'evicted'][record.getUint32(8, true)];
  const session = record.getFloat64(0, true);
  const epoch = `epoch ${record.getUint32(12, true)}`;
  if (kind === 'stopped' || kind === 'evicted') return `${kind} ${session}`;
  if (kind === 'refuse') return `refuse ${session}, ${epoch}`;
  const length = record.getUint32(28, true);
  const address = Buffer.from(record.buffer, record.byteOffset + 32, length).toString();
  const dial = `dial ${session} to ${address}:${record.getUint32(24, true)} within ${record.getUint32(16, true)} ms`;
  return `${dial}, ${epoch}${preamble === '' ? '' : `, after "${preamble}"`}`;
}
