/** The rules and the remembered flows of a node on which a proxy was measured. */
import type { Host } from '../../test/support/netns-lab.ts';

const TABLES = ['nat', 'filter', 'mangle', 'raw'];

/** Takes every rule and chain away, and the connections that the kernel remembers. Throws when a chain is left. */
export async function flushRules(node: Host): Promise<void> {
  for (const command of ['iptables', 'ip6tables']) {
    const lines = TABLES.flatMap((table) => [
      `${command} -w 5 -t ${table} -F`,
      `${command} -w 5 -t ${table} -X`,
    ]);
    await node.run(['sh', '-ec', lines.join('\n')]);
    const saved = await node.run([`${command}-save`]);
    const left = saved.split('\n').find((line) => line.startsWith('-A') || /^:\S+ - /.test(line));
    if (left !== undefined) throw new Error(`the node is not clean: ${left}`);
  }
  await forgetFlows(node);
}

/** Makes the kernel forget the connections it tracks: a full table would be measured, and nobody meant to. */
export async function forgetFlows(node: Host): Promise<void> {
  await node.run(['conntrack', '-F']);
}
