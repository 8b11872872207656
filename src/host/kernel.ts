/** What the kernel says of itself. */
import { existsSync, readFileSync } from 'node:fs';
import { cpus, hostname } from 'node:os';

const DEFAULT_OPEN_FILES = 1024;

/** Does this kernel know IPv6 at all? */
export function hasIPv6(): boolean {
  return existsSync('/proc/net/if_inet6');
}

/** `net.ipv4.ip_local_port_range`, which holds for both families; the kernel's default when it cannot be read. */
export function localPortRange(): { readonly first: number; readonly last: number } {
  const fallback = { first: 32_768, last: 60_999 };
  try {
    const [first, last] = readFileSync('/proc/sys/net/ipv4/ip_local_port_range', 'utf8')
      .trim()
      .split(/\s+/)
      .map(Number);
    return first !== undefined && last !== undefined ? { first, last } : fallback;
  } catch {
    return fallback;
  }
}

/**
 * How many descriptors this process may have: its soft limit (Node has raised it to the hard one when it started).
 * Infinity where there is none; Linux' old default where it cannot be read.
 */
export function openFilesLimit(): number {
  try {
    const soft = /^Max open files\s+(\S+)/m.exec(readFileSync('/proc/self/limits', 'utf8'))?.[1];
    return soft === 'unlimited' ? Number.POSITIVE_INFINITY : Number(soft ?? DEFAULT_OPEN_FILES);
  } catch {
    return DEFAULT_OPEN_FILES;
  }
}

/** The tables that legacy iptables has loaded in this network namespace; none where it never ran. */
export function legacyTables(family: 'IPv4' | 'IPv6'): readonly string[] {
  const file = family === 'IPv4' ? 'ip_tables_names' : 'ip6_tables_names';
  try {
    return readFileSync(`/proc/net/${file}`, 'utf8').split('\n').filter(Boolean);
  } catch {
    return [];
  }
}

/** As kube-proxy makes a node name of it (`pkg/util/node` GetHostname): trimmed and in lower case. */
export function hostName(): string {
  return hostname().trim().toLowerCase();
}

/** CPU cores of the machine, whatever this process may use of them. At least 1. */
export function coreCount(): number {
  return Math.max(1, cpus().length);
}
