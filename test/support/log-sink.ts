/** A destination for the real logger that keeps its lines as objects, for tests that read the log. */
export type LogLine = Readonly<Record<string, unknown>>;

export class LogSink {
  readonly lines: LogLine[] = [];
  /** Exactly what was written. */
  text = '';

  write(line: string): void {
    this.text += line;
    this.lines.push(JSON.parse(line) as LogLine);
  }

  /** The lines with that message. */
  withMessage(message: string): readonly LogLine[] {
    return this.lines.filter((line) => line['msg'] === message);
  }
}
