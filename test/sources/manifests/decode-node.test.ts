/** Nodes in manifests: where they may stand, and that they are in no namespace. */
import { describe, expect, it } from 'vitest';
import { type DecodedManifest, decodeManifest } from '../../../src/sources/manifests/decode.ts';
import { documents, nodeYaml, serviceYaml } from './manifest-text.ts';

function decoded(text: string): DecodedManifest {
  return decodeManifest(text, 'web.yaml');
}

function nodeItem(name: string, others: object = {}): object {
  return { metadata: { name }, ...others };
}

describe('a Node', () => {
  it('is read beside Services, and is in no namespace', () => {
    const { services, nodes, problems, ignoredKinds } = decoded(
      documents(serviceYaml('web'), nodeYaml('n1')),
    );
    expect(problems).toEqual([]);
    expect(ignoredKinds).toEqual([]);
    expect(services.map(({ key }) => key)).toEqual(['default/web']);
    expect(nodes).toEqual([
      {
        key: 'n1',
        where: 'web.yaml document 2',
        object: {
          apiVersion: 'v1',
          kind: 'Node',
          metadata: { name: 'n1', labels: { 'topology.kubernetes.io/zone': 'z1' } },
          spec: { podCIDRs: ['10.244.1.0/24'] },
          status: { addresses: [{ type: 'InternalIP', address: '192.0.2.1' }] },
        },
      },
    ]);
  });

  it.each([
    { name: 'default', namespace: 'default' },
    { name: 'empty', namespace: '""' },
    { name: 'null', namespace: 'null' },
    { name: 'a number', namespace: '7' },
  ])('has its name for a key whatever namespace it says: $name', ({ namespace }) => {
    const text = nodeYaml('n1').replace('  name: n1', `  name: n1\n  namespace: ${namespace}`);
    expect(decoded(text)).toMatchObject({ problems: [], nodes: [{ key: 'n1' }] });
  });

  it('may have nothing but its name', () => {
    const text = 'apiVersion: v1\nkind: Node\nmetadata: { name: n1 }\n';
    expect(decoded(text)).toMatchObject({ problems: [], nodes: [{ key: 'n1' }] });
  });

  it.each([
    { name: 'a List', list: { kind: 'List', items: [nodeItem('n1', { apiVersion: 'v1', kind: 'Node' })] } },
    { name: 'a NodeList', list: { kind: 'NodeList', items: [nodeItem('n1')] } },
    {
      name: 'a NodeList whose items say what they are',
      list: { kind: 'NodeList', items: [nodeItem('n1', { apiVersion: 'v1', kind: 'Node' })] },
    },
    {
      name: 'a NodeList in a List',
      list: { kind: 'List', items: [{ apiVersion: 'v1', kind: 'NodeList', items: [nodeItem('n1')] }] },
    },
  ])('may stand in $name', ({ list }) => {
    const { nodes, problems, ignoredKinds } = decoded(JSON.stringify({ apiVersion: 'v1', ...list }));
    expect(problems).toEqual([]);
    expect(ignoredKinds).toEqual([]);
    expect(nodes.map(({ key }) => key)).toEqual(['n1']);
  });

  it('of another API group is none', () => {
    const { nodes, ignoredKinds } = decoded(nodeYaml('n1').replace('apiVersion: v1', 'apiVersion: x.io/v1'));
    expect(nodes).toEqual([]);
    expect(ignoredKinds).toEqual(['x.io/v1 Node']);
  });

  it.each([
    {
      from: '{ topology.kubernetes.io/zone: z1 }',
      to: '{ a: 1 }',
      says: 'metadata.labels[a]: must be text, got 1',
    },
    { from: '[10.244.1.0/24]', to: '[10]', says: 'spec.podCIDRs[0]: must be text, got 10' },
    { from: 'podCIDRs: [10.244.1.0/24]', to: 'podCIDR: 10', says: 'spec.podCIDR: must be text, got 10' },
    { from: ', address: 192.0.2.1', to: '', says: 'status.addresses[0].address: is missing' },
  ])('with a wrong type is reported by name and field: $says', ({ from, to, says }) => {
    const { nodes, problems } = decoded(documents(serviceYaml('web'), nodeYaml('n1').replace(from, to)));
    expect(problems.map(({ object, field, message }) => `${object}: ${field}: ${message}`)).toEqual([
      `web.yaml document 2 (Node n1): ${says}`,
    ]);
    expect(nodes).toEqual([]);
  });

  it.each([
    { metadata: '', says: 'metadata: is missing' },
    { metadata: 'metadata: {}\n', says: 'metadata.name: is missing' },
    { metadata: 'metadata: { name: 5 }\n', says: 'metadata.name: must be non-empty text, got 5' },
  ])('without a name is reported by its place: $says', ({ metadata, says }) => {
    const { nodes, problems } = decoded(`apiVersion: v1\nkind: Node\n${metadata}`);
    expect(problems.map(({ object, field, message }) => `${object}: ${field}: ${message}`)).toEqual([
      `web.yaml document 1: ${says}`,
    ]);
    expect(nodes).toEqual([]);
  });
});
