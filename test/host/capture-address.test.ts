/** The private address on `lo`: put there where it is missing, taken away where it is. */
import { describe, expect, test } from 'vitest';
import { ProxyError, isProxyError } from '../../src/errors.ts';
import {
  CAPTURE_ADDRESSES,
  ensureCaptureAddress,
  removeCaptureAddresses,
} from '../../src/host/capture-address.ts';
import type { HostFamily } from '../../src/host/interfaces.ts';
import { parseIpAddress, specialRangeOf } from '../../src/model/address.ts';
import { ScriptedExec } from '../support/fake-exec.ts';

const BOTH: readonly HostFamily[] = ['IPv4', 'IPv6'];
const OTHERS: readonly string[] = ['127.0.0.1', '192.168.77.2', '::1', 'fd00:77::2'];
const PRIVATE: readonly string[] = Object.values(CAPTURE_ADDRESSES);

const ADD: Readonly<Record<HostFamily, string>> = {
  IPv4: 'ip address replace 169.254.77.1/32 dev lo scope host',
  IPv6: 'ip address replace fd6b:7570:77::1/128 dev lo preferred_lft 0',
};
/** Without a length `ip` deletes an IPv4 address for the sake of old scripts only, and warns that it soon will not. */
const DELETE: Readonly<Record<HostFamily, string>> = {
  IPv4: 'ip address delete 169.254.77.1/32 dev lo',
  IPv6: 'ip address delete fd6b:7570:77::1/128 dev lo',
};

describe('the addresses', () => {
  test('are in canonical form, or nobody would find them among those of the node', () => {
    for (const address of PRIVATE) expect(parseIpAddress(address)).toBe(address);
  });

  test('mean the same without an interface: link-local in IPv4, and not in IPv6', () => {
    const rangeOf = (family: HostFamily): string | undefined => {
      const address = parseIpAddress(CAPTURE_ADDRESSES[family]);
      return address && specialRangeOf(address);
    };
    expect(rangeOf('IPv4')).toBe('link-local');
    expect(rangeOf('IPv6')).toBeUndefined();
    expect(CAPTURE_ADDRESSES.IPv6).toMatch(/^fd/);
  });
});

describe('ensureCaptureAddress', () => {
  test.each<{
    name: string;
    families: readonly HostFamily[];
    present: readonly string[];
    calls: readonly string[];
  }>([
    { name: 'adds those that are missing', families: BOTH, present: OTHERS, calls: [ADD.IPv4, ADD.IPv6] },
    {
      name: 'adds the one that is missing',
      families: BOTH,
      present: [...OTHERS, CAPTURE_ADDRESSES.IPv4],
      calls: [ADD.IPv6],
    },
    {
      name: 'adds none of a family that is not captured',
      families: ['IPv4'],
      present: OTHERS,
      calls: [ADD.IPv4],
    },
    { name: 'adds nothing where all are there', families: BOTH, present: [...OTHERS, ...PRIVATE], calls: [] },
    {
      name: 'is not misled by an address that only begins so',
      families: ['IPv4'],
      present: ['169.254.77.10', '169.254.77.1/32'],
      calls: [ADD.IPv4],
    },
  ])('$name', async ({ families, present, calls }) => {
    const script = new ScriptedExec();
    for (const call of calls) script.expect(call);

    const added: boolean[] = [];
    for (const family of families) added.push(await ensureCaptureAddress(script.exec, family, present));

    expect(added.filter(Boolean)).toHaveLength(calls.length);
    expect(script.remaining).toBe(0);
  });

  test('says why an address cannot be added', async () => {
    const script = new ScriptedExec().expect(ADD.IPv4, {
      exitCode: 2,
      stderr: 'RTNETLINK answers: Operation not permitted\n',
    });

    const failure = ensureCaptureAddress(script.exec, 'IPv4', OTHERS);

    await expect(failure).rejects.toMatchObject({
      code: 'ERR_ADDRESS',
      message: `\`${ADD.IPv4}\` failed with 2: RTNETLINK answers: Operation not permitted`,
    });
  });

  test('rejects as a program that is not there does', async () => {
    const missing = new ProxyError('ERR_EXEC_NOT_FOUND', 'ip is not installed or not on PATH');
    const script = new ScriptedExec().expect(ADD.IPv4, missing);
    await expect(ensureCaptureAddress(script.exec, 'IPv4', [])).rejects.toBe(missing);
  });

  test('waits for no program for ever', async () => {
    const script = new ScriptedExec().expect(ADD.IPv4);
    await ensureCaptureAddress(script.exec, 'IPv4', []);
    expect(script.calls.map(({ options }) => options.timeoutMs)).toEqual([10_000]);
  });
});

describe('removeCaptureAddresses', () => {
  test.each<{ name: string; present: readonly string[]; calls: readonly string[] }>([
    { name: 'removes both', present: [...OTHERS, ...PRIVATE], calls: [DELETE.IPv4, DELETE.IPv6] },
    { name: 'removes the one that is there', present: [CAPTURE_ADDRESSES.IPv6], calls: [DELETE.IPv6] },
    { name: 'removes nothing of others', present: OTHERS, calls: [] },
  ])('$name', async ({ present, calls }) => {
    const script = new ScriptedExec();
    for (const call of calls) script.expect(call);

    const hasRemoved = await removeCaptureAddresses(script.exec, present);

    expect(hasRemoved).toBe(calls.length > 0);
    expect(script.remaining).toBe(0);
  });

  test('says why an address cannot be removed', async () => {
    const script = new ScriptedExec().expect(DELETE.IPv6, { exitCode: 2, stderr: 'Cannot assign\n' });
    const error: unknown = await removeCaptureAddresses(script.exec, [CAPTURE_ADDRESSES.IPv6]).catch(
      (caught: unknown) => caught,
    );
    expect(isProxyError(error, 'ERR_ADDRESS')).toBe(true);
  });
});
