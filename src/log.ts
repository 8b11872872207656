/**
 * What every room may ask of a log: constant messages, variables as keys. The pino implementation lives in
 * `observe/`; rooms see only this interface so that nothing imports `observe/` (tests read a list instead).
 *
 * Levels by audience: `error` and `warn` for the operator who must act, `info` for lifecycle (-v 0), `debug`
 * for what changed (-v 2), `trace` for single connections (-v 4).
 */

export type LogFields = Readonly<Record<string, unknown>>;

export interface Logger {
  error(fields: LogFields, message: string): void;
  warn(fields: LogFields, message: string): void;
  info(fields: LogFields, message: string): void;
  debug(fields: LogFields, message: string): void;
  trace(fields: LogFields, message: string): void;
  /** True when a line of that level would be written; guard the building of fields on hot paths with it. */
  isLevelEnabled(level: 'debug' | 'trace'): boolean;
}
