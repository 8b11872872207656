/** Programs whose output is taken line by line, as it comes. */
import { expect, test } from 'vitest';
import { execEachLine } from '../../src/host/exec.ts';

const SHELL = ['-c'] as const;

async function run(
  script: string,
  { input = '', timeoutMs = 10_000, signal = new AbortController().signal } = {},
): Promise<{ lines: string[]; exitCode: number; stderr: string }> {
  const lines: string[] = [];
  const onLine = (line: string): void => void lines.push(line);
  return { lines, ...(await execEachLine('sh', [...SHELL, script], { onLine, input, timeoutMs, signal })) };
}

test('every line arrives once and whole, the last one without an end too', async () => {
  expect(
    await run("printf 'one\\ntwo\\n'; sleep 0.05; printf 'thr'; sleep 0.05; printf 'ee\\n\\nlast'"),
  ).toEqual({
    lines: ['one', 'two', 'three', '', 'last'],
    exitCode: 0,
    stderr: '',
  });
});

test('the input is written and closed', async () => {
  expect((await run('cat', { input: 'a\nb\n' })).lines).toEqual(['a', 'b']);
});

test('a non-zero exit is a result, with what the program complained of', async () => {
  expect(await run('echo no >&2; exit 3')).toEqual({ lines: [], exitCode: 3, stderr: 'no\n' });
});

test('of complaints without end only the beginning is kept', async () => {
  const { stderr } = await run('seq 1 200000 >&2');
  expect(stderr.startsWith('1\n2\n')).toBe(true);
  expect(stderr.length).toBeLessThan(200_000);
});

test('a program that is not there is told by its code', async () => {
  const options = { onLine: () => {}, timeoutMs: 1_000, signal: new AbortController().signal };
  await expect(execEachLine('there-is-no-such-program', [], options)).rejects.toMatchObject({
    code: 'ERR_EXEC_NOT_FOUND',
  });
});

test('one that does not end in time is killed, and that is told by its code', async () => {
  await expect(run('exec sleep 60', { timeoutMs: 100 })).rejects.toMatchObject({ code: 'ERR_EXEC_TIMEOUT' });
});

test('one that somebody else kills is told by its code', async () => {
  await expect(run('kill -9 $$')).rejects.toMatchObject({ code: 'ERR_EXEC_FAILED' });
});

test('the signal ends it', async () => {
  const abort = new AbortController();
  const ended = run('exec sleep 60', { signal: abort.signal });
  abort.abort();
  await expect(ended).rejects.toMatchObject({ code: 'ERR_EXEC_FAILED' });
});

test('a program that prints no line end is ended, and what it had said before counts', async () => {
  const lines: string[] = [];
  const endless = execEachLine('sh', [...SHELL, 'echo one; exec cat /dev/zero'], {
    onLine: (line) => void lines.push(line),
    timeoutMs: 60_000,
    signal: new AbortController().signal,
  });
  await expect(endless).rejects.toMatchObject({
    code: 'ERR_EXEC_FAILED',
    message: expect.stringContaining('65536 characters') as string,
  });
  expect(lines).toEqual(['one']);
});
