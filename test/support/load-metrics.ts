/** Sums of a proxy's metrics, for the reports of load runs. */
import type { ProxyProcess } from './proxy-process.ts';

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
