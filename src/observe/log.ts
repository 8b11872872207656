/**
 * The log of the process: pino behind the `Logger` interface of `src/log.ts`. One JSON object per line, written
 * before the call returns, so that the last line before a crash is never lost. No pid, host or component on the
 * lines: whoever collects them knows the container or unit they come from.
 */
import { fstatSync } from 'node:fs';
import { type DestinationStream, destination, pino } from 'pino';
import { type Clock, systemClock } from '../clock.ts';
import { errnoOf } from '../errors.ts';
import type { Logger } from '../log.ts';

/** Lines that could not be written (disk full) are kept up to this many bytes, then dropped. */
const MAX_UNWRITTEN_BYTES = 1_048_576;

/** A chain of causes longer than this is cut; it also ends a chain that bites its own tail. */
const MAX_CAUSE_DEPTH = 8;

export interface LoggerOptions {
  /** kube-proxy's `-v`: 0 and 1 give `info`, 2 and 3 `debug`, 4 and above `trace`. */
  readonly verbosity: number;
  /** Where the lines go, each ended by a newline; standard output unless given. */
  readonly destination?: DestinationStream;
  /** The source of the `time` field; the system's clock unless given. */
  readonly clock?: Pick<Clock, 'wallTime'>;
}

/**
 * A logger whose lines are `{"level":"info","time":"<RFC 3339>",...fields,"msg":"..."}`. A field `error` that holds
 * an Error becomes `{type, code, message, cause}`. Never throws: when standard output is closed or full, lines are
 * lost and the proxy lives on.
 */
export function createLogger(options: LoggerOptions): Logger {
  const clock = options.clock ?? systemClock;
  return pino(
    {
      level: levelFromVerbosity(options.verbosity),
      base: null,
      timestamp: () => `,"time":"${new Date(clock.wallTime()).toISOString()}"`,
      formatters: { level: (label) => ({ level: label }) },
      serializers: { error: serialisedError },
    },
    options.destination ?? standardOutput(),
  );
}

function levelFromVerbosity(verbosity: number): 'info' | 'debug' | 'trace' {
  if (verbosity >= 4) return 'trace';
  return verbosity >= 2 ? 'debug' : 'info';
}

/**
 * Files and terminals are written at once. A pipe or socket whose reader has stopped would block that write, and
 * with it every connection: there lines wait in memory up to the bound, and are dropped and counted above it.
 */
function standardOutput(): DestinationStream {
  const kind = fstatSync(1);
  if (kind.isFIFO() || kind.isSocket()) return boundedDestination(process.stdout);
  const stream = destination({ dest: 1, sync: true, maxLength: MAX_UNWRITTEN_BYTES });
  // Without a listener a full disk under the log (ENOSPC) would be an uncaught exception and end the proxy.
  stream.on('error', () => {});
  return stream;
}

/** Never blocks and never throws; says how many lines are missing once there is room again. */
export function boundedDestination(
  stream: NodeJS.WritableStream & { readonly writableLength: number },
): DestinationStream {
  let dropped = 0;
  stream.on('error', () => {});
  return {
    write(line) {
      if (stream.writableLength > MAX_UNWRITTEN_BYTES) {
        dropped += 1;
        return;
      }
      if (dropped > 0)
        stream.write(`${JSON.stringify({ level: 'warn', dropped, msg: 'Log lines dropped' })}\n`);
      dropped = 0;
      stream.write(line);
    },
  };
}

interface SerialisedError {
  readonly type: string;
  readonly code?: string;
  readonly message: string;
  readonly stack?: string;
  readonly cause?: unknown;
  readonly errors?: readonly unknown[];
}

/** Errors with a code are known faults and need no stack; one without is a defect, and its stack says where. */
function serialisedError(error: unknown, depth = 0): unknown {
  if (!(error instanceof Error)) return error;
  const code = errnoOf(error);
  const isCut = depth >= MAX_CAUSE_DEPTH;
  return {
    type: error.name,
    message: error.message,
    ...(code === undefined ? { ...(error.stack !== undefined && { stack: error.stack }) } : { code }),
    ...(error.cause !== undefined && !isCut && { cause: serialisedError(error.cause, depth + 1) }),
    ...(error instanceof AggregateError &&
      !isCut && { errors: error.errors.map((one: unknown) => serialisedError(one, depth + 1)) }),
  } satisfies SerialisedError;
}
