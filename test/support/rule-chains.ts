/**
 * Rules of ours as they are compared: those of each chain in their order, whatever order the kernel lists chains in, and
 * without what says which instance wrote them.
 */
import type { Host } from './netns-lab.ts';

/** By `family table CHAIN`; the built-in chains with our jumps only. */
export async function ownChains(host: Host): Promise<Readonly<Record<string, readonly string[]>>> {
  const chains: Record<string, string[]> = {};
  for (const [family, program] of [
    ['IPv4', 'iptables-save'],
    ['IPv6', 'ip6tables-save'],
  ] as const) {
    let table = '';
    for (const line of (await host.run([program])).split('\n')) {
      if (line.startsWith('*')) table = line.slice(1);
      const [, declared] = /^:(USERSPACE-PROXY-\S+) /.exec(line) ?? [];
      if (declared !== undefined) chains[`${family} ${table} ${declared}`] ??= [];
      const [, chain, rule = ''] = /^-A (\S+) (.*)$/.exec(line) ?? [];
      if (chain === undefined || !line.includes('USERSPACE-PROXY-')) continue;
      (chains[`${family} ${table} ${chain}`] ??= []).push(rule.replace(/"generation .*"/, '"generation"'));
    }
  }
  return chains;
}
