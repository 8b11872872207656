/** What the kernel says of itself. */
import { existsSync, readFileSync } from 'node:fs';
import { hostname } from 'node:os';

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

/** As kube-proxy makes a node name of it (`pkg/util/node` GetHostname): trimmed and in lower case. */
export function hostName(): string {
  return hostname().trim().toLowerCase();
}
