/** What exit codes and messages of the iptables programs mean. */
import { describe, expect, test } from 'vitest';
import { ProxyError } from '../../src/errors.ts';
import { removeRules } from '../../src/iptables/cleanup.ts';
import { Iptables } from '../../src/iptables/iptables.ts';
import { KernelExec, ScriptedExec } from '../support/fake-exec.ts';
import { makeService } from '../support/objects.ts';
import { desiredFrom, firstLoadOf, ruleSetOf } from '../support/rule-fixture.ts';

const SAVE = 'iptables-save -t nat';
const RESTORE = 'iptables-restore --noflush -w 5';
const INPUT = '*nat\n:USERSPACE-PROXY-A - [0:0]\n-A USERSPACE-PROXY-A -j NOWHERE\nCOMMIT\n';

function setUp(family: 'IPv4' | 'IPv6' = 'IPv4'): { script: ScriptedExec; iptables: Iptables } {
  const script = new ScriptedExec();
  return { script, iptables: new Iptables(family, script.exec) };
}

function coded(code: string, ...parts: readonly string[]): Error {
  const text = expect.stringMatching(
    new RegExp(parts.map((part) => part.replaceAll(/[.*+?^${}()|[\]\\]/g, String.raw`\$&`)).join('[^]*')),
  ) as string;
  return expect.objectContaining({ code, message: text }) as Error;
}

describe('read', () => {
  test('asks for one table and parses it', async () => {
    const { script, iptables } = setUp();
    script.expect(SAVE, { stdout: '*nat\n:USERSPACE-PROXY-A - [0:0]\nCOMMIT\n' });
    expect([...(await iptables.read('nat')).chains]).toEqual([['USERSPACE-PROXY-A', []]]);
    expect(script.remaining).toBe(0);
  });

  test('asks the programs of its family', async () => {
    const { script, iptables } = setUp('IPv6');
    script.expect('ip6tables-save -t filter');
    expect((await iptables.read('filter')).chains.size).toBe(0);
  });

  test('is unavailable when the program is not there, and tells why', async () => {
    const { script, iptables } = setUp();
    const cause = new ProxyError('ERR_EXEC_NOT_FOUND', 'iptables-save is not installed or not on PATH');
    script.expect(SAVE, cause);
    await expect(iptables.read('nat')).rejects.toThrow(
      expect.objectContaining({ code: 'ERR_IPTABLES_UNAVAILABLE', cause }) as Error,
    );
  });

  test('is unavailable when the program fails, and quotes it', async () => {
    const { script, iptables } = setUp();
    script.expect(SAVE, { exitCode: 3, stderr: 'Perhaps iptables or your kernel\n needs to be upgraded.\n' });
    await expect(iptables.read('nat')).rejects.toThrow(
      coded(
        'ERR_IPTABLES_UNAVAILABLE',
        SAVE,
        'exit code 3: Perhaps iptables or your kernel; needs to be upgraded.',
      ),
    );
  });

  test('does not take junk for an empty table', async () => {
    const { script, iptables } = setUp();
    script.expect(SAVE, { stdout: 'Permission denied\n' });
    await expect(iptables.read('nat')).rejects.toThrow(coded('ERR_IPTABLES_PARSE', 'Permission denied'));
  });

  test('passes a time-out on as it is', async () => {
    const { script, iptables } = setUp();
    script.expect(SAVE, new ProxyError('ERR_EXEC_TIMEOUT', 'iptables-save did not end within 30000 ms'));
    await expect(iptables.read('nat')).rejects.toThrow(coded('ERR_EXEC_TIMEOUT'));
  });
});

describe('restore', () => {
  test('feeds the text to one program that waits for the lock and flushes nothing', async () => {
    const { script, iptables } = setUp();
    script.expect(RESTORE);
    await iptables.restore(INPUT);
    expect(script.calls).toMatchObject([{ command: 'iptables-restore', options: { input: INPUT } }]);
  });

  test('quotes the line at fault', async () => {
    const { script, iptables } = setUp();
    script.expect(RESTORE, {
      exitCode: 2,
      stderr:
        "iptables-restore v1.8.9 (nf_tables): Couldn't load target `NOWHERE'\nError occurred at line: 3\n",
    });
    await expect(iptables.restore(INPUT)).rejects.toThrow(
      coded('ERR_IPTABLES_RESTORE', 'NOWHERE', '(line 3 is: -A USERSPACE-PROXY-A -j NOWHERE)'),
    );
  });

  test('quotes the line at fault of the older program too', async () => {
    const { script, iptables } = setUp();
    script.expect(RESTORE, { exitCode: 1, stderr: 'iptables-restore: line 4 failed\n' });
    await expect(iptables.restore(INPUT)).rejects.toThrow(
      coded('ERR_IPTABLES_RESTORE', '(line 4 is: COMMIT)'),
    );
  });

  test.each([
    { name: 'names no line', stderr: 'something else\n' },
    { name: 'names a line that is not there', stderr: 'line 400 failed\n' },
    { name: 'says nothing', stderr: '' },
  ])('quotes no line when the program $name', async ({ stderr }) => {
    const { script, iptables } = setUp();
    script.expect(RESTORE, { exitCode: 1, stderr });
    const failure = iptables.restore(INPUT);
    await expect(failure).rejects.toThrow(coded('ERR_IPTABLES_RESTORE', 'exit code 1'));
    await expect(failure).rejects.not.toThrow('is:');
  });

  test('tells a lock that another program held', async () => {
    const { script, iptables } = setUp();
    script.expect(RESTORE, {
      exitCode: 4,
      stderr: 'Another app is currently holding the xtables lock. Stopped waiting after 5s.\n',
    });
    await expect(iptables.restore(INPUT)).rejects.toThrow(coded('ERR_IPTABLES_LOCKED', 'xtables lock'));
  });

  test.each([
    {
      name: 'exit code 4 about something else',
      answer: { exitCode: 4, stderr: 'Resource temporarily unavailable\n' },
    },
    { name: 'another exit code with the word', answer: { exitCode: 1, stderr: 'cannot open lock file\n' } },
  ])('does not take $name for a held lock', async ({ answer }) => {
    const { script, iptables } = setUp();
    script.expect(RESTORE, answer);
    await expect(iptables.restore(INPUT)).rejects.toThrow(coded('ERR_IPTABLES_RESTORE'));
  });

  test('is unavailable when the program is not there', async () => {
    const { script, iptables } = setUp();
    script.expect(RESTORE, new ProxyError('ERR_EXEC_NOT_FOUND', 'iptables-restore is not installed'));
    await expect(iptables.restore(INPUT)).rejects.toThrow(
      coded('ERR_IPTABLES_UNAVAILABLE', 'iptables-restore'),
    );
  });
});

describe('removeRules', () => {
  test('empties both tables in one restore, and says that there was something', async () => {
    const kernel = new KernelExec();
    const before = kernel.tables.IPv4.save('nat') + kernel.tables.IPv4.save('filter');
    kernel.tables.IPv4.load(firstLoadOf(ruleSetOf(desiredFrom([makeService('web')]))));
    expect(await removeRules(new Iptables('IPv4', kernel.exec))).toBe(true);
    expect(kernel.restores).toHaveLength(1);
    expect(kernel.tables.IPv4.save('nat') + kernel.tables.IPv4.save('filter')).toBe(before);
  });

  test('does nothing, and says so, when there is nothing of ours', async () => {
    const kernel = new KernelExec();
    expect(await removeRules(new Iptables('IPv6', kernel.exec))).toBe(false);
    expect(kernel.restores).toEqual([]);
  });
});
