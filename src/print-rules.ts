/** `--print-rules`: the `iptables-restore` input that a first start would load, without touching the kernel. */
import type { Config } from './cli/config.ts';
import { systemClock } from './clock.ts';

import { type SourceDeps, createSource } from './create-source.ts';
import { excludedPorts, rememberedPorts } from './data-path.ts';
import { buildDesiredState } from './desired/desired-state.ts';
import { buildNodeView } from './desired/node-view.ts';
import type { ListenerKey } from './desired/portal.ts';
import type { Problem } from './errors.ts';
import { exec } from './host/exec.ts';
import { readHostAddresses } from './host/address-monitor.ts';
import { PortMemory } from './host/port-memory.ts';
import { KernelTable } from './iptables/kernel-table.ts';
import { renderFullUpdate } from './iptables/render.ts';
import { renderTableText } from './iptables/table-text.ts';
import { type GuardedPort, buildRuleSet } from './iptables/ruleset.ts';
import { IP_FAMILIES } from './model/address.ts';
import type { NodeInfo } from './model/node.ts';
import { servicePortNameText } from './model/service-port-name.ts';
import { EMPTY_SNAPSHOT, type Snapshot, snapshotFromObjects } from './model/snapshot.ts';
import { diversionsFromConfig, nodeSettingsFromConfig } from './node-settings.ts';
import { ProxyPorts } from './proxy/proxy-ports.ts';
import { ApiStatistics } from './sources/kubernetes/api-statistics.ts';
import { ProblemLog } from './sync/problem-log.ts';

/** Of a proxy that finds nothing of ours on the node. */
const FIRST_WRITE = { generation: 1, write: 1 } as const;

export type PrintRulesDeps = Pick<SourceDeps, 'logger' | 'version' | 'environment'>;

/** Ports are those of the last run where it is known, else random ones as a start would choose. */
export async function printRules(config: Config, deps: PrintRulesDeps): Promise<string> {
  const { logger } = deps;
  const { snapshot, problems, node } = await readOnce(config, deps);
  const addresses = (await readHostAddresses(exec)).all;
  const view = buildNodeView(nodeSettingsFromConfig(config), { families: IP_FAMILIES, addresses, node });
  const desired = buildDesiredState(snapshot, view);
  new ProblemLog(logger).update([...problems, ...snapshot.problems, ...desired.problems]);
  const remembered = await rememberedPorts(new PortMemory(config.stateDir), logger);
  const ports = new ProxyPorts({
    range: config.proxyPortRange,
    excluded: excludedPorts(),
    random: Math.random,
    remembered,
  });
  const proxyPorts = new Map<ListenerKey, number>();
  const guardedPorts: GuardedPort[] = [];
  for (const [key, { family, servicePort }] of desired.listeners) {
    const { protocol } = servicePort.name;
    const port = ports.take(key, `${protocol}/${family}`, systemClock.now());
    proxyPorts.set(key, port);
    guardedPorts.push({ family, protocol, port, servicePortName: servicePortNameText(servicePort.name) });
  }
  const diversions = diversionsFromConfig(config);
  return IP_FAMILIES.map((family) => {
    const rules = buildRuleSet(family, {
      capture: desired.capture,
      proxyPorts,
      guardedPorts,
      diversion: diversions[family],
    });
    const tables = (['nat', 'filter'] as const).map(
      (table) =>
        renderFullUpdate(
          { table, stamp: FIRST_WRITE },
          renderTableText(rules[table], family),
          KernelTable.empty,
        ).text,
    );
    return `# ${family === 'IPv4' ? 'iptables-restore' : 'ip6tables-restore'} --noflush -w 5\n${tables.join('')}`;
  }).join('\n');
}

interface Reading {
  readonly snapshot: Snapshot;
  readonly problems: readonly Problem[];
  readonly node: NodeInfo | undefined;
}

/** What the source tells first; of the Node it tells before. An API server that is away is waited for. */
async function readOnce(config: Config, deps: PrintRulesDeps): Promise<Reading> {
  const { promise, resolve } = Promise.withResolvers<Reading>();
  let node: NodeInfo | undefined;
  const source = await createSource(config, {
    ...deps,
    clock: systemClock,
    statistics: new ApiStatistics(),
    onChange: (objects, problems) => {
      const snapshot = objects === undefined ? EMPTY_SNAPSHOT : snapshotFromObjects(objects);
      resolve({ snapshot, problems, node });
    },
    onNodeChange: (told) => {
      node = told;
    },
  });
  await source.start();
  const read = await promise;
  await source.close();
  return read;
}
