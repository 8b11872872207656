/** The one door to other programs, with real small programs behind it. */
import { describe, expect, onTestFinished, test } from 'vitest';
import { type LineStreamHandlers, exec, execLines } from '../../src/host/exec.ts';
import { waitFor } from '../support/wait.ts';

const LONG = { timeoutMs: 20_000 };

async function shell(
  script: string,
  options: Partial<Parameters<typeof exec>[2]> = {},
): ReturnType<typeof exec> {
  return exec('sh', ['-c', script], { ...LONG, ...options });
}

function coded(code: string, text: string): Error {
  return expect.objectContaining({ code, message: expect.stringContaining(text) as string }) as Error;
}

describe('exec', () => {
  test('gives the exit code with both outputs', async () => {
    expect(await shell('echo out; echo err >&2; exit 7')).toEqual({
      exitCode: 7,
      stdout: 'out\n',
      stderr: 'err\n',
    });
  });

  test('passes the input, and arguments exactly as they are', async () => {
    expect(await shell('cat', { input: 'a\u00e4\n' })).toMatchObject({ exitCode: 0, stdout: 'a\u00e4\n' });
    expect(await exec('printf', ['%s|', '$HOME', 'a b', '"'], LONG)).toMatchObject({
      stdout: '$HOME|a b|"|',
    });
  });

  test('closes the input of a program that is given none', async () => {
    expect(await shell('cat; echo end')).toMatchObject({ stdout: 'end\n' });
  });

  test('reads any amount of output', async () => {
    const { stdout } = await shell('yes 0123456789abcde | head -c 20000000');
    expect(stdout).toHaveLength(20_000_000);
  });

  test('feeds any amount of input', async () => {
    const input = 'x'.repeat(20_000_000);
    expect((await shell('wc -c', { input })).stdout.trim()).toBe('20000000');
  });

  test('tells the exit code of a program that never reads its large input', async () => {
    expect(await shell('exit 3', { input: 'x'.repeat(20_000_000) })).toMatchObject({ exitCode: 3 });
  });

  test('rejects when the program is not there, by a code of its own', async () => {
    await expect(exec('kup-no-such-program', [], LONG)).rejects.toThrow(
      coded('ERR_EXEC_NOT_FOUND', 'kup-no-such-program'),
    );
    await expect(exec('kup-no-such-program', [], { ...LONG, input: 'x'.repeat(1_000_000) })).rejects.toThrow(
      coded('ERR_EXEC_NOT_FOUND', 'kup-no-such-program'),
    );
  });

  test('rejects otherwise when the program is there and cannot be started', async () => {
    await expect(exec('/etc/passwd', [], LONG)).rejects.toThrow(coded('ERR_EXEC_FAILED', '/etc/passwd'));
  });

  test('rejects when the program dies of a signal, and quotes what it said', async () => {
    await expect(shell('echo help >&2; kill -TERM $$')).rejects.toThrow(
      coded('ERR_EXEC_FAILED', 'SIGTERM: help'),
    );
  });

  test('kills the program when its time is over, even one that ignores SIGTERM', async () => {
    await expect(shell('trap "" TERM; while :; do :; done', { timeoutMs: 100 })).rejects.toThrow(
      coded('ERR_EXEC_TIMEOUT', '100 ms'),
    );
  });

  test('neither waits for what the killed program had started, nor lets that keep this process alive', async () => {
    const module = new URL('../../src/host/exec.ts', import.meta.url).href;
    const script = `import { exec } from ${JSON.stringify(module)};
      await exec('sh', ['-c', 'sleep 60; true'], { timeoutMs: 100 }).catch(({ code }) => console.log(code));`;
    const ended = await exec(process.execPath, ['--input-type=module', '-e', script], LONG);
    expect(ended).toMatchObject({ exitCode: 0, stdout: 'ERR_EXEC_TIMEOUT\n' });
  }, 30_000);

  test('calls no program late that ended in time', async () => {
    expect(await shell('exit 0', { timeoutMs: 15_000 })).toMatchObject({ exitCode: 0 });
  });
});

describe('execLines', () => {
  function follow(
    command: string,
    args: readonly string[],
  ): { lines: string[]; ends: string[]; close: () => Promise<void> } {
    const lines: string[] = [];
    const ends: string[] = [];
    const handlers: LineStreamHandlers = {
      onLine: (line) => void lines.push(line),
      onEnd: (reason) => void ends.push(reason),
    };
    const stream = execLines(command, args, handlers);
    onTestFinished(async () => stream.close());
    return { lines, ends, close: async () => stream.close() };
  }

  test('gives whole lines, however they are cut into writes', async () => {
    const { lines, ends } = follow('sh', ['-c', 'printf a; printf "b\\nc\\n\\nd\\n"']);
    await waitFor(() => ends.length > 0, { timeoutMs: 10_000, what: 'the program to end' });
    expect(lines).toEqual(['ab', 'c', '', 'd']);
  });

  test.each([
    { name: 'by its exit code', script: 'exit 5', reason: 'sh ended with 5' },
    { name: 'by its signal', script: 'kill -KILL $$', reason: 'sh ended with SIGKILL' },
  ])('tells once that the program ended, and how: $name', async ({ script, reason }) => {
    const { ends } = follow('sh', ['-c', script]);
    await waitFor(() => ends.length > 0, { timeoutMs: 10_000, what: 'the program to end' });
    expect(ends).toEqual([reason]);
  });

  test('tells so, too, when the program is not there', async () => {
    const { ends, close } = follow('kup-no-such-program', []);
    await waitFor(() => ends.length > 0, { timeoutMs: 10_000, what: 'the failure' });
    await close();
    expect(ends).toEqual([expect.stringContaining('ENOENT')]);
  });

  test('close ends the program, resolves when it has ended, and is no end to be told', async () => {
    const { lines, ends, close } = follow('sh', ['-c', 'echo $$; exec sleep 60']);
    const pid = Number(await waitFor(() => lines[0], { timeoutMs: 10_000, what: 'the first line' }));
    await Promise.all([close(), close()]);
    await close();
    expect(() => process.kill(pid, 0)).toThrow('ESRCH');
    expect(ends).toEqual([]);
  });
});

/** Fills the descriptor table of a process of its own, then asks for both kinds of programs. */
const WITHOUT_DESCRIPTORS = `
  import { openSync, closeSync } from 'node:fs';
  import { exec, execLines } from ${JSON.stringify(new URL('../../src/host/exec.ts', import.meta.url).href)};
  const held = [];
  try { for (;;) held.push(openSync('/dev/null')); } catch {}
  const ended = Promise.withResolvers();
  execLines('sleep', ['1'], { onLine() {}, onEnd: ended.resolve });
  const error = await exec('true', [], { timeoutMs: 1000 }).catch((thrown) => thrown);
  const reason = await ended.promise;
  for (const one of held) closeSync(one);
  console.log(JSON.stringify({ code: error.code, cause: error.cause?.code, reason }));
`;

test('without a descriptor left both tell so, and the process lives on', async () => {
  const program = ['--input-type=module', '-e', WITHOUT_DESCRIPTORS];
  const { stdout, stderr } = await exec(
    'sh',
    ['-c', 'ulimit -n 64; exec "$0" "$@"', process.execPath, ...program],
    {
      timeoutMs: 10_000,
    },
  );

  expect(stderr).toBe('');
  expect(JSON.parse(stdout)).toEqual({
    code: 'ERR_EXEC_FAILED',
    cause: 'EMFILE',
    reason: expect.stringContaining('EMFILE') as string,
  });
});
