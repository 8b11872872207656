/**
 * The private address on `lo` of `--capture link-local`: all listeners are bound to it, and DNAT leads to it, so that no
 * interface needs an address of its own. Nobody routes it: IPv4 link-local with `scope host`, and a unique local IPv6
 * address (RFC 4193) that is never chosen as a source (`preferred_lft 0`); IPv6 link-local would not do, because it
 * means something only together with an interface.
 */
import { ProxyError } from '../errors.ts';
import type { Exec } from './exec.ts';
import type { HostFamily } from './interfaces.ts';

export const CAPTURE_ADDRESSES: Readonly<Record<HostFamily, string>> = {
  IPv4: '169.254.77.1',
  IPv6: 'fd6b:7570:77::1',
};

const EXEC_TIMEOUT_MS = 10_000;

/** What `ip address add` is told. */
const SPECIFICATIONS: Readonly<Record<HostFamily, readonly string[]>> = {
  IPv4: [`${CAPTURE_ADDRESSES.IPv4}/32`, 'dev', 'lo', 'scope', 'host'],
  IPv6: [`${CAPTURE_ADDRESSES.IPv6}/128`, 'dev', 'lo', 'preferred_lft', '0'],
};

/**
 * Puts the address of the family where it is missing from `present`, all addresses of the node. True when it was.
 * Rejects with `ERR_ADDRESS`, or as `Exec` does.
 */
export async function ensureCaptureAddress(
  exec: Exec,
  family: HostFamily,
  present: readonly string[],
): Promise<boolean> {
  if (present.includes(CAPTURE_ADDRESSES[family])) return false;
  await runIp(exec, ['address', 'replace', ...SPECIFICATIONS[family]]);
  return true;
}

/** True when there was one to remove. Rejects like `ensureCaptureAddress`. */
export async function removeCaptureAddresses(exec: Exec, present: readonly string[]): Promise<boolean> {
  const families = ['IPv4', 'IPv6'] as const;
  const ours = families.filter((family) => present.includes(CAPTURE_ADDRESSES[family]));
  for (const family of ours) {
    const [address = ''] = SPECIFICATIONS[family];
    await runIp(exec, ['address', 'delete', address, 'dev', 'lo']);
  }
  return ours.length > 0;
}

async function runIp(exec: Exec, args: readonly string[]): Promise<void> {
  const { exitCode, stderr } = await exec('ip', args, { timeoutMs: EXEC_TIMEOUT_MS });
  if (exitCode === 0) return;
  throw new ProxyError('ERR_ADDRESS', `\`ip ${args.join(' ')}\` failed with ${exitCode}: ${stderr.trim()}`);
}
