/** The own Node in manifests: when it is told, and when there is nothing to tell. */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import type { NodeInfo } from '../../../src/model/node.ts';
import { waitFor } from '../../support/wait.ts';
import { documents, nodeYaml, serviceYaml } from './manifest-text.ts';
import { type Harness, makeDirectory, replaceFile, started } from './source-harness.ts';

/** The zones of all Nodes that were told; `none` for no Node. */
function zonesTold({ nodes }: Harness): string[] {
  return nodes.map(({ node }) =>
    node === undefined ? 'none' : (node.labels['topology.kubernetes.io/zone'] ?? ''),
  );
}

async function toHaveTold(harness: Harness, ...zones: string[]): Promise<void> {
  await waitFor(() => zonesTold(harness).length >= zones.length, {
    timeoutMs: harness.boundMs,
    what: `${zones.length} tellings of the Node`,
  });
  expect(zonesTold(harness)).toEqual(zones);
}

const N1: NodeInfo = {
  name: 'n1',
  labels: { 'topology.kubernetes.io/zone': 'z1' },
  internalIPs: ['192.0.2.1'] as readonly string[] as NodeInfo['internalIPs'],
  podCIDRs: [
    {
      family: 'IPv4',
      address: '10.244.1.0' as NodeInfo['internalIPs'][number],
      prefixLength: 24,
      text: '10.244.1.0/24',
    },
  ],
  isEligible: true,
};

describe('the own Node', () => {
  it('is told at the start, before the first objects', async () => {
    const directory = await makeDirectory();
    await writeFile(join(directory, 'web.yaml'), documents(serviceYaml('web'), nodeYaml('n1')));
    const harness = await started({ paths: [directory] });
    expect(harness.nodes).toEqual([{ node: N1, changesBefore: 0 }]);
    expect(harness.services).toEqual(['web=10.96.0.10']);
    expect(harness.problems).toEqual([]);
    expect(harness.log.filter(({ level }) => level !== 'debug')).toEqual([]);
  });

  it('is the one of the own name; others are legal and for nothing', async () => {
    const directory = await makeDirectory();
    await writeFile(join(directory, 'nodes.yaml'), documents(nodeYaml('n0', 'z0'), nodeYaml('n2', 'z2')));
    await writeFile(join(directory, 'own.yaml'), nodeYaml('n2', 'late'));
    const own = await started({ paths: [directory], nodeName: 'n2' });
    const other = await started({ paths: [directory], nodeName: 'n9' });
    expect(zonesTold(own)).toEqual(['z2']);
    expect(zonesTold(other)).toEqual(['none']);
    expect(own.problems).toEqual([
      `ERR_MANIFEST_DUPLICATE stands already in ${join(directory, 'nodes.yaml')} document 2; that one is used`,
    ]);
    expect(other.problems).toEqual(own.problems);
  });

  it('that is in no file is told once, without a warning', async () => {
    const directory = await makeDirectory();
    await writeFile(join(directory, 'web.yaml'), serviceYaml('web'));
    const harness = await started({ paths: [directory] });
    expect(harness.nodes).toEqual([{ node: undefined, changesBefore: 0 }]);
    await replaceFile(join(directory, 'web.yaml'), documents(serviceYaml('api'), nodeYaml('n2')));
    await harness.toHaveServices('api=10.96.0.10');
    expect(harness.nodes).toHaveLength(1);
    expect(harness.log.filter(({ level }) => level !== 'debug')).toEqual([]);
  });

  it('is told again when it comes, changes and goes, and the objects are not', async () => {
    const directory = await makeDirectory();
    const file = join(directory, 'node.yaml');
    await writeFile(join(directory, 'web.yaml'), serviceYaml('web'));
    const harness = await started({ paths: [directory] });
    await writeFile(file, nodeYaml('n1', 'z1'));
    await toHaveTold(harness, 'none', 'z1');
    await replaceFile(file, nodeYaml('n1', 'z2'));
    await toHaveTold(harness, 'none', 'z1', 'z2');
    await replaceFile(file, nodeYaml('n2', 'z2'));
    await toHaveTold(harness, 'none', 'z1', 'z2', 'none');
    expect(harness.changes).toHaveLength(1);
  });

  it('is not told again for what nobody reads of it, nor for other objects', async () => {
    const directory = await makeDirectory();
    const file = join(directory, 'node.yaml');
    await writeFile(file, nodeYaml('n1'));
    const harness = await started({ paths: [directory] });
    const busy = nodeYaml('n1').replace('status:', 'status:\n  capacity: { cpu: "8" }');
    await replaceFile(file, documents(serviceYaml('web'), busy));
    await harness.toHaveServices('web=10.96.0.10');
    expect(zonesTold(harness)).toEqual(['z1']);
  });

  it('that is being deleted is told, and may take no new traffic', async () => {
    const directory = await makeDirectory();
    const text = nodeYaml('n1').replace(
      '  name: n1',
      '  name: n1\n  deletionTimestamp: 2026-11-21T09:00:00Z',
    );
    await writeFile(join(directory, 'node.yaml'), text);
    const harness = await started({ paths: [directory] });
    expect(harness.nodes).toMatchObject([{ node: { name: 'n1', isEligible: false } }]);
  });

  it('stays as it was while its file is broken', async () => {
    const directory = await makeDirectory();
    const file = join(directory, 'node.yaml');
    await writeFile(file, nodeYaml('n1'));
    const harness = await started({ paths: [directory] });
    await replaceFile(file, nodeYaml('n1', '5'));
    await harness.toHaveProblem('must be text, got 5; the last good version of this file stays in use');
    expect(zonesTold(harness)).toEqual(['z1']);
  });

  it('is not told while no path has ever been readable: nothing is known then', async () => {
    const directory = join(await makeDirectory(), 'later');
    const harness = await started({ paths: [directory] });
    expect(harness.last?.isKnown).toBe(false);
    expect(harness.nodes).toEqual([]);
    await writeFile(directory, nodeYaml('n1'));
    await toHaveTold(harness, 'z1');
    expect(harness.nodes[0]?.changesBefore).toBe(1);
    await waitFor(() => harness.last?.isKnown === true, { timeoutMs: harness.boundMs, what: 'the objects' });
  });
});
