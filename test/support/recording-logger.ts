/** A logger that keeps its lines as objects. */
import type { LogFields, Logger } from '../../src/log.ts';

export interface LoggedLine {
  readonly level: 'error' | 'warn' | 'info' | 'debug' | 'trace';
  readonly message: string;
  readonly fields: LogFields;
}

export class RecordingLogger implements Logger {
  readonly lines: LoggedLine[] = [];
  readonly error = this.#writer('error');
  readonly warn = this.#writer('warn');
  readonly info = this.#writer('info');
  readonly debug = this.#writer('debug');
  readonly trace = this.#writer('trace');

  isLevelEnabled(): boolean {
    return true;
  }

  at(level: LoggedLine['level']): readonly LoggedLine[] {
    return this.lines.filter((line) => line.level === level);
  }

  withMessage(message: string): readonly LoggedLine[] {
    return this.lines.filter((line) => line.message === message);
  }

  #writer(level: LoggedLine['level']): (fields: LogFields, message: string) => void {
    return (fields, message) => {
      this.lines.push({ level, message, fields });
    };
  }
}
