/**
 * `npm run demo`: builds a node, four pods and an outside client out of network namespaces, starts the real proxy,
 * and tells what it does with what it measures. Leaves nothing behind, however it ends.
 *
 * Exit code: 0 when every promise held, 1 when one did not or the stage could not be built, 2 for an unknown option,
 * 128 plus the signal's number when it was interrupted.
 */
import { constants } from 'node:os';
import { parseArgs } from 'node:util';
import { canMakeNamespaces } from '../test/support/netns-lab.ts';
import { explore } from './explore.ts';
import { BrokenPromise, Narrator } from './narrator.ts';
import { Stage } from './stage.ts';
import { tellStory } from './story.ts';

const USAGE = `npm run demo [-- --keep]

  --keep   leave everything up after the story, until Ctrl-C, and say how to look at it
  --help   this
`;

/** For people who read along; whoever pipes the output away does not wait. */
const PAUSE_MS = process.stdout.isTTY ? 700 : 0;
const LOG_LINES_SHOWN = 10;

const STOP_SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;
type StopSignal = (typeof STOP_SIGNALS)[number] | 'SIGPIPE';

const stop = new AbortController();
/** Falls silent when the demo is stopped: what the story still says is not worth reading. */
const narrator = new Narrator((text) => {
  if (!stop.signal.aborted) process.stdout.write(text);
});

async function main(): Promise<number> {
  const options = readOptions();
  if (typeof options === 'number') return options;
  const reason = canMakeNamespaces();
  if (reason !== undefined) {
    return fail(
      `cannot set the stage: ${reason}.\nRun it as root on Linux; in a container, with --privileged.`,
    );
  }
  const stopped = firstSignal();
  const resources = new AsyncDisposableStack();
  const opened = Stage.open(resources);
  try {
    const first = await Promise.race([tell(opened), stopped]);
    if (first === 'told') {
      if (options.isKept) await explore(narrator, await opened, stop.signal);
      return 0;
    }
    // What is still being opened can be closed only when it is open.
    await opened.catch(() => undefined);
    return 128 + constants.signals[first];
  } catch (error: unknown) {
    return stop.signal.aborted ? 128 + constants.signals[await stopped] : fail(messageOf(error));
  } finally {
    if (stop.signal.aborted) process.stdout.write('\nTaking everything down.\n');
    await resources.disposeAsync();
  }
}

function readOptions(): { readonly isKept: boolean } | number {
  try {
    const { values } = parseArgs({ options: { keep: { type: 'boolean' }, help: { type: 'boolean' } } });
    if (values.help !== true) return { isKept: values.keep === true };
    process.stdout.write(USAGE);
    return 0;
  } catch (error: unknown) {
    process.stderr.write(`${messageOf(error)}\n\n${USAGE}`);
    return 2;
  }
}

/** Resolves with the first signal to end; a reader that goes away (`| head`) counts as one. */
async function firstSignal(): Promise<StopSignal> {
  const { promise, resolve } = Promise.withResolvers<StopSignal>();
  const onSignal = (signal: StopSignal): void => {
    stop.abort();
    resolve(signal);
  };
  for (const signal of STOP_SIGNALS) process.on(signal, onSignal);
  process.stdout.on('error', () => onSignal('SIGPIPE'));
  return promise;
}

async function tell(opened: Promise<Stage>): Promise<'told'> {
  const start = performance.now();
  const stage = await opened;
  const readyAt = performance.now();
  try {
    await tellStory(narrator, stage, { pauseMs: PAUSE_MS });
  } catch (error: unknown) {
    const log = stage.proxy.log.slice(-LOG_LINES_SHOWN).map((line) => JSON.stringify(line));
    const what = error instanceof BrokenPromise ? 'a promise does not hold' : 'it cannot go on';
    throw new Error([`${what}: ${messageOf(error)}`, 'The log of the proxy ends with:', ...log].join('\n'), {
      cause: error,
    });
  }
  const [setUp, told] = [readyAt - start, performance.now() - readyAt].map(secondsText);
  narrator.end(`Every promise held. ${setUp} to set up, ${told} to tell.`);
  return 'told';
}

function secondsText(milliseconds: number): string {
  return `${(milliseconds / 1000).toFixed(1)} s`;
}

function fail(message: string): 1 {
  process.stderr.write(`\ndemo: ${message}\n`);
  return 1;
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

// What an interrupted story still waits for must not keep the process.
process.exit(await main());
