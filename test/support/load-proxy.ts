/** The proxy of a load run: its start, and sums of its metrics for the reports. */
import type { Host } from './netns-host.ts';
import { ProxyProcess, type ProxyProcessOptions } from './proxy-process.ts';

/** Load runs stand beside others, and what they start they start at the same time. */
const READY_DEADLINE_MS = 60_000;

/** Resolves when it is ready; the caller disposes of it. */
export async function startProxy(host: Host, options: ProxyProcessOptions): Promise<ProxyProcess> {
  const proxy = await ProxyProcess.start(host, { ...options, awaitReady: false });
  try {
    await proxy.ready(READY_DEADLINE_MS);
    return proxy;
  } catch (error: unknown) {
    await proxy[Symbol.asyncDispose]();
    throw error;
  }
}

/** The samples of a family, added up by the values of one label; those that are 0 are left out. */
export async function countsBy(
  proxy: ProxyProcess,
  name: string,
  label: string,
): Promise<Readonly<Record<string, number>>> {
  const counts: Record<string, number> = {};
  for (const { labels, value } of (await proxy.metrics()).get(name)?.samples ?? []) {
    const key = labels[label] ?? '';
    if (value > 0) counts[key] = (counts[key] ?? 0) + value;
  }
  return counts;
}
