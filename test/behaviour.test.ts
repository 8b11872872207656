/** docs/behaviour.md names, for each thing that the proxy does, the test that proves it; here the page is checked. */
import { existsSync, readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';

/** What a Service proxy has to settle, one way or another. A row may be added, none may go. */
const ROWS: Readonly<Record<string, readonly string[]>> = {
  'Service model': [
    'Service key',
    'ClusterIP',
    'Clients outside at a clusterIP',
    'Headless',
    'ExternalName',
    'NodePort',
    'NodePort on loopback',
    'allocateLoadBalancerNodePorts: false',
    'LoadBalancer ingress IPs',
    'externalIPs',
    'service-proxy-name label',
    'headless label',
    'Multi-port',
    'Named targetPort',
    'TCP / UDP',
    'SCTP',
    'IPv4, IPv6, dual-stack',
    'Malformed user data',
  ],
  Endpoints: [
    'API',
    'Service link',
    'Several slices per Service',
    'Duplicates',
    'addressType',
    'addresses[]',
    'Conditions',
    'Fallback',
    'publishNotReadyAddresses',
    'Local',
    'Ordering',
    'Memory',
    'Endpoint removed with live connections',
  ],
  'Choosing a backend': [
    'Retry next backend on dial failure',
    'Passive ejection',
    'All attempts fail',
    'No usable endpoint anywhere',
    'Endpoints exist, none local, policy Local',
    'sessionAffinity ClientIP',
    'Timeout range',
    'Affinity switched on and off',
    'Affine endpoint disappears',
    'Affine endpoint fails to dial',
    'Affinity table size',
    'Hairpin',
    'Client source IP',
    'Schedulers',
  ],
  'Traffic policy': [
    'internalTrafficPolicy Local',
    'externalTrafficPolicy Local',
    'Short circuit for Local',
    'healthCheckNodePort',
    'Topology hints, trafficDistribution',
    'Node label change',
    'loadBalancerSourceRanges',
  ],
};

interface Row {
  readonly section: string;
  readonly behaviour: string;
  readonly here: string;
  readonly proofs: readonly string[];
}

const root = new URL('..', import.meta.url).pathname;
const rows = parseRows(readFileSync(`${root}docs/behaviour.md`, 'utf8'));

function parseRows(page: string): readonly Row[] {
  return page.split(/^## /m).flatMap((text) => {
    const [section = '', ...lines] = text.split('\n');
    return lines
      .filter((line) => line.startsWith('| ') && !line.startsWith('| Behaviour '))
      .map((line): Row => {
        const [, behaviour = '', here = '', proofs = ''] = line
          .split(' | ')
          .map(stripped)
          .reduce(asCells, ['']);
        return { section, behaviour, here, proofs: proofs === '' ? [] : proofs.split('<br>') };
      });
  });
}

function stripped(cell: string): string {
  return cell.replace(/^\| /, '').replace(/ \|$/, '').trim();
}

function asCells(cells: string[], cell: string): string[] {
  return [...cells, cell];
}

/** The text of a test file, and the title in it. */
function parseProof(proof: string): { readonly path: string; readonly title: string } {
  const [, file, title] = /^`([^`]+)`: (.+)$/.exec(proof) ?? [];
  if (file === undefined || title === undefined) throw new Error(`no proof: ${proof}`);
  return { path: `${root}test/${file}.test.ts`, title };
}

/** As a string in quotes, the first argument of a test, or of what the table of a test is given to. */
function hasTest(source: string, title: string): boolean {
  return ["'", '`', '"'].some((quote) => {
    const at = source.indexOf(`${quote}${title}${quote},`);
    return at !== -1 && /(?:\b(?:test|it)(?:\.\w+)*|\]|\))\(\s*$/.test(source.slice(0, at));
  });
}

describe('docs/behaviour.md', () => {
  test.for(Object.keys(ROWS))('has every row of %s, in order, and no other', (section) => {
    const found = rows.filter((row) => row.section === section).map(({ behaviour }) => behaviour);
    expect(found).toEqual(ROWS[section]);
  });

  test('has no row elsewhere', () => {
    expect(rows.filter(({ section }) => ROWS[section] === undefined)).toEqual([]);
  });

  test.for(rows)('says what happens about $behaviour, and where that is shown', ({ here, proofs }) => {
    expect(here).not.toBe('');
    expect(proofs).not.toEqual([]);
    for (const proof of proofs) {
      const { path, title } = parseProof(proof);
      const isThere = existsSync(path) && hasTest(readFileSync(path, 'utf8'), title);
      expect({ proof, isThere }).toEqual({ proof, isThere: true });
    }
  });

  test('would notice a proof that is not there', () => {
    expect(hasTest("test('a thing holds', () => {});", 'a thing holds')).toBe(true);
    expect(hasTest("test('a thing holds', () => {});", 'another thing holds')).toBe(false);
    expect(hasTest("// 'a thing holds', as they say", 'a thing holds')).toBe(false);
  });
});
