/**
 * Cuts a stream of bytes into lines. A character of several bytes may come in two chunks: bytes become text only
 * when a line is whole. What is remembered between two chunks is bounded, however small they are: a buffer of at most
 * twice the line, never the chunks themselves. Pure.
 */
import { ApiError } from './api-error.ts';

/** Of etcd's largest object (1.5 MiB as protobuf) an event is a few MiB as JSON; beyond this it is no event. */
export const MAX_LINE_BYTES = 64 * 1024 * 1024;

const LINE_FEED = 0x0a;
/** Kept from line to line; a larger buffer is let go when its line is whole. */
const KEPT_BYTES = 64 * 1024;

export class LineSplitter {
  readonly #maxBytes: number;
  /** Its first `#size` bytes are those of a line whose end has not come yet. */
  #pending = Buffer.alloc(0);
  #size = 0;

  constructor(options: { readonly maxBytes: number } = { maxBytes: MAX_LINE_BYTES }) {
    this.#maxBytes = options.maxBytes;
  }

  /** Bytes of a line whose end has not come yet. */
  get pendingBytes(): number {
    return this.#size;
  }

  /** The lines that `chunk` completes, without their ends; empty lines are left out. Throws ERR_API_RESPONSE. */
  *push(chunk: Uint8Array): Generator<string> {
    let start = 0;
    for (let end = chunk.indexOf(LINE_FEED); end !== -1; end = chunk.indexOf(LINE_FEED, start)) {
      const line = this.#complete(chunk.subarray(start, end));
      start = end + 1;
      if (line.trim() !== '') yield line;
    }
    if (start < chunk.length) this.#keep(chunk.subarray(start));
  }

  #keep(part: Uint8Array): void {
    const size = this.#size + part.length;
    if (size > this.#maxBytes) {
      throw new ApiError('ERR_API_RESPONSE', `a line of a watch is longer than ${this.#maxBytes} bytes`);
    }
    if (size > this.#pending.length) {
      const larger = Buffer.allocUnsafe(Math.max(size, 2 * this.#pending.length));
      this.#pending.copy(larger, 0, 0, this.#size);
      this.#pending = larger;
    }
    this.#pending.set(part, this.#size);
    this.#size = size;
  }

  #complete(last: Uint8Array): string {
    if (this.#size === 0 && last.length <= this.#maxBytes) return textOf(last);
    this.#keep(last);
    const line = textOf(this.#pending.subarray(0, this.#size));
    if (this.#pending.length > KEPT_BYTES) this.#pending = Buffer.alloc(0);
    this.#size = 0;
    return line;
  }
}

function textOf(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('utf8');
}
