/**
 * How the demo speaks: chapters, prose, what was measured, and promises, which end the demo when they do not hold.
 * Plain text of at most 100 columns; colour only where `styleText` finds that the terminal wants it.
 */
import { styleText } from 'node:util';

type Format = Parameters<typeof styleText>[0];

const COLUMNS = 100;
const LABEL_COLUMNS = 28;

/** A promise of the proxy that what was measured does not keep. */
export class BrokenPromise extends Error {
  override readonly name = 'BrokenPromise';
}

export class Narrator {
  readonly #write: (text: string) => void;
  #chapters = 0;

  constructor(write: (text: string) => void) {
    this.#write = write;
  }

  title(text: string): void {
    this.#lines([text], 'bold');
  }

  chapter(text: string): void {
    this.#chapters += 1;
    this.#lines(['', `${this.#chapters}. ${text}`], 'bold');
  }

  end(text: string): void {
    this.#lines(['', text], 'bold');
  }

  /** Prose. */
  say(text: string): void {
    this.#lines(wrapped(text, { first: '   ', rest: '   ' }));
  }

  /** One thing that was measured. */
  show(label: string, measured: string): void {
    const first = `     ${label.padEnd(LABEL_COLUMNS)} `;
    this.#lines(wrapped(measured, { first, rest: ' '.repeat(first.length) }), 'cyan');
  }

  /** Something as the machine printed it; only broken where a line would be too long. */
  quote(text: string): void {
    this.#lines(wrapped(text, { first: '     ', rest: '         ' }), 'cyan');
  }

  /** A command to copy; never broken. */
  command(text: string): void {
    this.#lines(
      text.split('\n').map((line) => `     ${line}`),
      'cyan',
    );
  }

  /** Says that it holds, or throws BrokenPromise with what was measured. */
  promise(text: string, holds: boolean, measured: unknown): void {
    if (!holds) throw new BrokenPromise(`${text}: no, measured ${JSON.stringify(measured)}`);
    this.#lines(wrapped(text, { first: '  ok ', rest: '     ' }), 'green');
  }

  #lines(lines: readonly string[], format?: Format): void {
    for (const line of lines) {
      this.#write(`${format === undefined || line === '' ? line : styleText(format, line)}\n`);
    }
  }
}

/** Breaks after spaces and commas; a word that is longer than a line stays whole. */
function wrapped(text: string, indent: { readonly first: string; readonly rest: string }): string[] {
  const lines: string[] = [];
  let line = indent.first;
  for (const piece of text.split(/(?<=[ ,])/)) {
    if (line.trimStart() !== '' && (line + piece).trimEnd().length > COLUMNS) {
      lines.push(line.trimEnd());
      line = indent.rest;
    }
    line += piece;
  }
  return [...lines, line.trimEnd()];
}
