#!/usr/bin/env -S node --max-semi-space-size=2
/**
 * The program: reads the command line, runs one command, wires signals, owns the exit code. The only file that
 * reads `process.argv` and exits.
 *
 * The first line keeps the heap's young generation small: what a connection leaves behind is garbage within
 * milliseconds, and room for more of it is some 40 MB that are touched for nothing.
 */
import { readFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { type CommandLine, type Config, configFromArgs } from './cli/config.ts';
import { renderHelp } from './cli/help.ts';
import { systemClock } from './clock.ts';
import { cleanUp } from './cleanup.ts';
import { type UserspaceProxy, createProxy } from './composition.ts';
import { errorText } from './errors.ts';
import type { Logger } from './log.ts';
import { createLogger } from './observe/log.ts';
import { printRules } from './print-rules.ts';

const STOP_SIGNALS = ['SIGTERM', 'SIGINT'] as const;
/** After the drain, for a sync under way to end; then the process goes all the same. */
const CLOSE_TIMEOUT_MS = 8000;
/** What occupies a thread of libuv's pool, by its name in Node. */
const BLOCKING_REQUEST = /^(FSReq|GetAddrInfoReq|GetNameInfoReq)/;
/** npm forwards a Ctrl-C that the terminal has already delivered: two within this time are one. */
const SAME_SIGNAL_MS = 1000;

function version(): string {
  const { version: text } = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8')) as {
    version: string;
  };
  return text;
}

async function main(args: readonly string[]): Promise<number> {
  let commandLine: CommandLine;
  try {
    commandLine = configFromArgs(args);
  } catch (error) {
    process.stderr.write(`Error: ${errorText(error)}\nRun with --help to see every flag.\n`);
    return 1;
  }
  const { command, config, warnings } = commandLine;
  // Lines of commands that print something for others to read go to standard error.
  const destination = command === 'run' ? process.stdout : process.stderr;
  const logger = createLogger({ verbosity: config.verbosity, ...(command === 'run' ? {} : { destination }) });
  for (const warning of warnings) logger.warn({}, warning);
  // A broken invariant still ends the process, but not without a line in the log.
  process.on('uncaughtExceptionMonitor', (error) => logger.error({ error }, 'Crashing'));
  try {
    switch (command) {
      case 'help':
        process.stdout.write(renderHelp());
        return 0;
      case 'version':
        process.stdout.write(`kube-userspace-proxy ${version()}\n`);
        return 0;
      case 'cleanup':
        return await cleanUp(config, logger);
      case 'print-rules':
        process.stdout.write(
          await printRules(config, { logger, version: version(), environment: process.env }),
        );
        return 0;
      case 'run':
        // Lines of the log that nobody reads must not keep the process.
        process.exit(await run(config, logger));
    }
  } catch (error) {
    logger.error({ error }, 'Exiting');
    return 1;
  }
}

/** Runs until a signal, then drains. A second signal ends the drain; a third one, as any after it, kills. */
async function run(config: Config, logger: Logger): Promise<number> {
  const stop = new AbortController();
  const endDrain = new AbortController();
  const onSignal = signalHandler(logger, { stop, endDrain });
  for (const signal of STOP_SIGNALS) process.on(signal, onSignal);
  logger.info({ version: version(), node: process.version }, 'Starting');
  logger.info(
    {},
    'NetworkPolicy sees this node as the peer of everything a userspace proxy carries: ingress policies of the backends ' +
      'and egress policies of the clients do not apply as their authors meant',
  );
  const creating = createProxy(config, {
    clock: systemClock,
    logger,
    version: version(),
    environment: process.env,
  });
  // Asked to stop while the first call of iptables hangs: nothing is there to be closed.
  const proxy = await Promise.race([creating, once(stop.signal)]);
  if (proxy === undefined) return 0;
  try {
    await proxy.start();
    logger.info({ capture: config.capture }, 'Started');
    // A signal during the start: nobody relies on us yet, so there is nothing to drain.
    if (!stop.signal.aborted) {
      await once(stop.signal);
      proxy.announceStop();
      logger.info(
        { drainTimeoutMs: config.drainTimeoutMs },
        'Draining: health says 503, listeners still accept',
      );
      await delay(config.drainTimeoutMs, undefined, { signal: endDrain.signal }).catch(() => undefined);
    }
  } finally {
    for (const signal of STOP_SIGNALS) process.off(signal, onSignal);
    await closeInTime(proxy, logger);
  }
  logger.info({}, 'Stopped, rules stay for the successor');
  return 0;
}

/** A program we started may hang; that must not keep this process. */
async function closeInTime(proxy: UserspaceProxy, logger: Logger): Promise<void> {
  const cancel = new AbortController();
  const late = delay(CLOSE_TIMEOUT_MS, true, { signal: cancel.signal }).catch(() => false);
  const isLate = await Promise.race([late, proxy.close().then(() => false)]);
  cancel.abort();
  if (!isLate) return;
  logger.warn({ timeoutMs: CLOSE_TIMEOUT_MS }, 'Not everything could be closed in time');
  // To exit is to wait for every thread, and one that waits for a file system or a name server may never come back.
  if (process.getActiveResourcesInfo().some((name) => BLOCKING_REQUEST.test(name))) {
    process.kill(process.pid, 'SIGKILL');
  }
  process.exit(0);
}

async function once(signal: AbortSignal): Promise<undefined> {
  if (signal.aborted) return;
  const { promise, resolve } = Promise.withResolvers<void>();
  signal.addEventListener('abort', () => resolve(), { once: true });
  await promise;
}

function signalHandler(
  logger: Logger,
  { stop, endDrain }: { readonly stop: AbortController; readonly endDrain: AbortController },
): (signal: NodeJS.Signals) => void {
  let first: { readonly signal: NodeJS.Signals; readonly at: number } | undefined;
  return (signal) => {
    const now = systemClock.now();
    if (first === undefined) {
      first = { signal, at: now };
      logger.info({ signal }, 'Signal received');
      stop.abort();
    } else if (signal !== first.signal || now - first.at > SAME_SIGNAL_MS) {
      endDrain.abort();
    }
  };
}

process.exitCode = await main(process.argv.slice(2));
