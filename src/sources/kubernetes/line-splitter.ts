/**
 * Cuts a stream of bytes into lines. A character of several bytes may come in two chunks: bytes become text only
 * when a line is whole. What is remembered between two chunks is bounded. Pure.
 */
import { ApiError } from './api-error.ts';

/** Of etcd's largest object (1.5 MiB as protobuf) an event is a few MiB as JSON; beyond this it is no event. */
export const MAX_LINE_BYTES = 64 * 1024 * 1024;

const LINE_FEED = 0x0a;

export class LineSplitter {
  readonly #maxBytes: number;
  #parts: Uint8Array[] = [];
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
    this.#size += part.length;
    if (this.#size > this.#maxBytes) {
      throw new ApiError('ERR_API_RESPONSE', `a line of a watch is longer than ${this.#maxBytes} bytes`);
    }
    this.#parts.push(part);
  }

  #complete(last: Uint8Array): string {
    if (this.#size === 0) return textOf(last);
    this.#keep(last);
    const line = Buffer.concat(this.#parts, this.#size);
    this.#parts = [];
    this.#size = 0;
    return textOf(line);
  }
}

function textOf(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('utf8');
}
