/** Who has which health check port. */
import { expect, test } from 'vitest';
import { claimHealthCheckPorts } from '../../src/health/health-check-claims.ts';
import type { HealthCheck } from '../../src/model/health-check.ts';
import { makeHealthCheck } from './make-health-check.ts';

function holdersOf(checks: readonly HealthCheck[]): Record<string, string> {
  const { claimByPlace } = claimHealthCheckPorts(checks);
  const holders = [...claimByPlace].map(([place, { check }]) => [place, `${check.namespace}/${check.name}`]);
  return Object.fromEntries(holders) as Record<string, string>;
}

test('a check has its port on each of its addresses', () => {
  expect(holdersOf([makeHealthCheck({ addresses: ['192.0.2.1', '192.0.2.2'] })])).toEqual({
    '192.0.2.1:32000': 'default/web',
    '192.0.2.2:32000': 'default/web',
  });
});

test('the families of one Service do not meet on one port', () => {
  const checks = [makeHealthCheck(), makeHealthCheck({ family: 'IPv6', addresses: ['::'] })];

  expect(holdersOf(checks)).toEqual({ '0.0.0.0:32000': 'default/web', '[::]:32000': 'default/web' });
});

test('an address that stands twice is not claimed against itself', () => {
  const { refused } = claimHealthCheckPorts([makeHealthCheck({ addresses: ['0.0.0.0', '0.0.0.0'] })]);

  expect(refused).toEqual([]);
});

test.each([
  { name: 'the same namespace', first: ['a', 'api'], second: ['a', 'web'] },
  { name: 'another namespace', first: ['a', 'web'], second: ['b', 'api'] },
  { name: 'a namespace that begins as the other', first: ['a', 'web'], second: ['a-b', 'api'] },
])('of two Services of $name the first by namespace and name has the port', ({ first, second }) => {
  const [holder, other] = [first, second].map(([namespace = '', name = '']) =>
    makeHealthCheck({ namespace, name }),
  );
  if (holder === undefined || other === undefined) throw new Error('two are given');

  for (const checks of [
    [holder, other],
    [other, holder],
  ]) {
    const { claimByPlace, refused } = claimHealthCheckPorts(checks);
    expect([...claimByPlace.values()]).toEqual([{ address: '0.0.0.0', check: holder }]);
    expect(refused).toEqual([{ address: '0.0.0.0', check: other, holder }]);
  }
});

test('a Service loses only the addresses that another has', () => {
  const checks = [
    makeHealthCheck({ name: 'api', addresses: ['192.0.2.1'] }),
    makeHealthCheck({ addresses: ['192.0.2.1', '192.0.2.2'] }),
  ];

  expect(holdersOf(checks)).toEqual({ '192.0.2.1:32000': 'default/api', '192.0.2.2:32000': 'default/web' });
});
