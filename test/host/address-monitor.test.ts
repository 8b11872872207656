/** Following the node's addresses: when it looks again, what it keeps, and how it ends. */
import { beforeEach, describe, expect, test } from 'vitest';
import { ProxyError } from '../../src/errors.ts';
import { AddressMonitor } from '../../src/host/address-monitor.ts';
import type { ExecLines, LineStreamHandlers } from '../../src/host/exec.ts';
import { type ExecAnswer, ScriptedExec } from '../support/fake-exec.ts';
import { RecordingLogger } from '../support/recording-logger.ts';
import { waitFor } from '../support/wait.ts';

const SHOW = 'ip -j address show';
const CHANGE = { timeoutMs: 5000, what: 'the change to be told' };

function answer(...addresses: readonly string[]): ExecAnswer {
  const addr_info = addresses.map((local) => ({ family: 'inet', local, scope: 'global' }));
  return { stdout: JSON.stringify([{ ifname: 'eth0', flags: ['UP'], addr_info }]) };
}

/** `ip monitor` in the hand of the test. Whatever else is started throws. */
class FakeMonitor {
  starts = 0;
  closes = 0;
  #handlers: LineStreamHandlers | undefined;

  readonly execLines: ExecLines = (command, args, handlers) => {
    const line = [command, ...args].join(' ');
    if (line !== 'ip -o monitor address link') throw new Error(`nobody expected \`${line}\``);
    this.starts += 1;
    this.#handlers = handlers;
    return {
      close: async () => {
        this.closes += 1;
      },
    };
  };

  /** Something changed. */
  event(): void {
    if (this.#handlers === undefined) throw new Error('ip monitor does not run');
    this.#handlers.onLine('4: eth0    inet 10.0.0.2/24 scope global eth0');
  }

  die(): void {
    if (this.#handlers === undefined) throw new Error('ip monitor does not run');
    const { onEnd } = this.#handlers;
    this.#handlers = undefined;
    onEnd('ip ended with SIGKILL');
  }
}

let script: ScriptedExec;
let ipMonitor: FakeMonitor;
let logger: RecordingLogger;
let changes: (readonly string[])[];
let monitor: AddressMonitor;

beforeEach(() => {
  script = new ScriptedExec();
  ipMonitor = new FakeMonitor();
  logger = new RecordingLogger();
  changes = [];
  monitor = new AddressMonitor({
    exec: script.exec,
    execLines: ipMonitor.execLines,
    logger,
    onChange: () => void changes.push(monitor.current.all),
  });
});

/** A read that ends when the test says so. */
function slowly(): { answer: Promise<ExecAnswer>; end: (answer: ExecAnswer) => void } {
  const { promise, resolve } = Promise.withResolvers<ExecAnswer>();
  return { answer: promise, end: resolve };
}

async function startWith(...addresses: readonly string[]): Promise<void> {
  script.expect(SHOW, answer(...addresses));
  await monitor.start();
}

describe('start', () => {
  test('reads the addresses once, follows them, and calls that no change', async () => {
    await startWith('10.0.0.1');
    expect(monitor.current.all).toEqual(['10.0.0.1']);
    expect(ipMonitor.starts).toBe(1);
    expect(changes).toEqual([]);
  });

  test.each<{ name: string; failure: ExecAnswer; code: string }>([
    { name: 'fails', failure: { exitCode: 255, stderr: 'Cannot send dump request\n' }, code: 'ERR_ADDRESS' },
    { name: 'prints junk', failure: { stdout: 'junk' }, code: 'ERR_ADDRESS' },
    {
      name: 'is not there',
      failure: new ProxyError('ERR_EXEC_NOT_FOUND', 'no ip'),
      code: 'ERR_EXEC_NOT_FOUND',
    },
  ])('rejects when ip $name', async ({ failure, code }) => {
    script.expect(SHOW, failure);
    await expect(monitor.start()).rejects.toThrow(expect.objectContaining({ code }) as Error);
  });

  test('quotes what ip said', async () => {
    script.expect(SHOW, { exitCode: 255, stderr: 'Cannot send dump request\n' });
    await expect(monitor.start()).rejects.toThrow('Cannot send dump request');
  });

  test('reads again, in order, when something changes meanwhile', async () => {
    const first = slowly();
    script.expect(SHOW, first.answer).expect(SHOW, answer('10.0.0.2'));
    const started = monitor.start();
    ipMonitor.event();
    first.end(answer('10.0.0.1'));
    await started;
    expect(monitor.current.all).toEqual(['10.0.0.2']);
    expect(changes).toEqual([]);
  });
});

describe('an event', () => {
  test('leads to one read, and a change is told after it can be seen', async () => {
    await startWith('10.0.0.1');
    script.expect(SHOW, answer('10.0.0.1', '10.0.0.2'));
    ipMonitor.event();
    await waitFor(() => changes.length > 0, CHANGE);
    expect(changes).toEqual([['10.0.0.1', '10.0.0.2']]);
    expect(script.remaining).toBe(0);
  });

  test('that changed nothing is not told', async () => {
    await startWith('10.0.0.1');
    script.expect(SHOW, answer('10.0.0.1')).expect(SHOW, answer('10.0.0.1'));
    ipMonitor.event();
    await monitor.refresh();
    expect(changes).toEqual([]);
  });

  test('after another leads to one more read at most, however many there are', async () => {
    await startWith('10.0.0.1');
    const first = slowly();
    script.expect(SHOW, first.answer).expect(SHOW, answer('10.0.0.9'));
    for (let count = 0; count < 100; count += 1) ipMonitor.event();
    const refreshed = monitor.refresh();
    first.end(answer('10.0.0.2'));
    await refreshed;
    expect(changes).toEqual([['10.0.0.2'], ['10.0.0.9']]);
    expect(script.remaining).toBe(0);
  });
});

describe('a read that fails', () => {
  test.each<{ name: string; failure: ExecAnswer }>([
    { name: 'by exit code', failure: { exitCode: 1, stderr: 'no\n' } },
    { name: 'by junk', failure: { stdout: '{' } },
    { name: 'by time-out', failure: new ProxyError('ERR_EXEC_TIMEOUT', 'late') },
  ])('$name keeps the last addresses, is logged, and the next one works', async ({ failure }) => {
    await startWith('10.0.0.1');
    script.expect(SHOW, failure);
    await monitor.refresh();
    expect(monitor.current.all).toEqual(['10.0.0.1']);
    expect(changes).toEqual([]);
    expect(logger.withMessage('Cannot read node addresses, keeping the last known ones')).toHaveLength(1);

    script.expect(SHOW, answer('10.0.0.2'));
    await monitor.refresh();
    expect(changes).toEqual([['10.0.0.2']]);
  });

  test('does not lose the event that came while it ran', async () => {
    await startWith('10.0.0.1');
    const first = slowly();
    script.expect(SHOW, first.answer).expect(SHOW, answer('10.0.0.2'));
    const refreshed = monitor.refresh();
    ipMonitor.event();
    first.end({ exitCode: 1 });
    await refreshed;
    expect(changes).toEqual([['10.0.0.2']]);
  });
});

describe('when ip monitor dies', () => {
  beforeEach(async () => {
    await startWith('10.0.0.1');
    ipMonitor.die();
  });

  test('that is said once, and it is not started again at once', () => {
    expect(logger.at('warn')).toMatchObject([{ fields: { reason: 'ip ended with SIGKILL' } }]);
    expect(ipMonitor.starts).toBe(1);
  });

  test('the next refresh starts it again, and events count again', async () => {
    script.expect(SHOW, answer('10.0.0.1'));
    await monitor.refresh();
    expect(ipMonitor.starts).toBe(2);
    script.expect(SHOW, answer('10.0.0.2'));
    ipMonitor.event();
    await waitFor(() => changes.length > 0, CHANGE);
    expect(changes).toEqual([['10.0.0.2']]);
  });

  test('but a refresh while it lives starts no second one', async () => {
    script.expect(SHOW, answer('10.0.0.1')).expect(SHOW, answer('10.0.0.1'));
    await monitor.refresh();
    await monitor.refresh();
    expect(ipMonitor.starts).toBe(2);
  });
});

describe('close', () => {
  test('ends ip monitor, may be called twice, and nothing is read afterwards', async () => {
    await startWith('10.0.0.1');
    await monitor.close();
    await monitor.close();
    expect(ipMonitor.closes).toBeGreaterThan(0);
    ipMonitor.event();
    await monitor.refresh();
    expect(script.calls).toHaveLength(1);
  });

  test('waits for the read that runs, and tells nothing of it', async () => {
    await startWith('10.0.0.1');
    const last = slowly();
    script.expect(SHOW, last.answer);
    const refreshed = monitor.refresh();
    let isClosed = false;
    const closed = monitor.close().then(() => {
      isClosed = true;
    });
    await Promise.resolve();
    expect(isClosed).toBe(false);
    last.end(answer('10.0.0.2'));
    await Promise.all([refreshed, closed]);
    expect(changes).toEqual([]);
  });

  test('before start is fine', async () => {
    await monitor.close();
    expect(ipMonitor.starts).toBe(0);
  });
});
