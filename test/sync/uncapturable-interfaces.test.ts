import { expect, test } from 'vitest';
import {
  type DesiredState,
  EMPTY_DESIRED_STATE,
  buildDesiredState,
} from '../../src/desired/desired-state.ts';
import { UncapturableInterfaces } from '../../src/sync/uncapturable-interfaces.ts';
import { RecordingLogger } from '../support/recording-logger.ts';
import { makeNodeView } from '../support/rule-fixture.ts';
import { addresses, makeEndpoints, makeServicePort, makeSnapshot } from '../support/snapshots.ts';

/** One Service with these clusterIPs. */
function desiredWith(...clusterIPs: readonly string[]): DesiredState {
  const servicePort = makeServicePort({ name: 'web' }, { clusterIPs: addresses(...clusterIPs) });
  return buildDesiredState(makeSnapshot([servicePort, makeEndpoints(1)]), makeNodeView());
}

const IPV4 = desiredWith('10.96.0.10');
const BOTH = desiredWith('10.96.0.10', 'fd00::10');
const NONE = EMPTY_DESIRED_STATE;

function makeInterfaces(): { readonly interfaces: UncapturableInterfaces; readonly logger: RecordingLogger } {
  const logger = new RecordingLogger();
  return { interfaces: new UncapturableInterfaces(logger), logger };
}

test('an interface without an address is warned of once, by name and family', () => {
  const { interfaces, logger } = makeInterfaces();

  for (let pass = 0; pass < 3; pass += 1) interfaces.update({ IPv4: ['veth1'], IPv6: [] }, IPV4);

  expect(logger.at('warn').map(({ fields }) => fields)).toEqual([{ interface: 'veth1', family: 'IPv4' }]);
  expect(logger.at('warn')[0]?.message).toContain('--capture link-local');
  expect(interfaces.count).toBe(1);
});

test('a family in which nothing is captured is no concern', () => {
  const { interfaces, logger } = makeInterfaces();

  interfaces.update({ IPv4: [], IPv6: ['veth1'] }, IPV4);
  interfaces.update({ IPv4: ['veth1'], IPv6: ['veth1'] }, NONE);

  expect(logger.lines).toEqual([]);
  expect(interfaces.count).toBe(0);
});

test('a family that comes to be captured is warned of then', () => {
  const { interfaces, logger } = makeInterfaces();
  const withoutAddress = { IPv4: ['veth1'], IPv6: ['veth1'] };
  interfaces.update(withoutAddress, IPV4);

  interfaces.update(withoutAddress, BOTH);

  expect(logger.at('warn').map(({ fields }) => fields['family'])).toEqual(['IPv4', 'IPv6']);
  expect(interfaces.count).toBe(2);
});

test('an interface that gets its address counts no more, and one that flaps is not warned of again', () => {
  const { interfaces, logger } = makeInterfaces();
  interfaces.update({ IPv4: ['veth1'], IPv6: [] }, IPV4);
  interfaces.update({ IPv4: [], IPv6: [] }, IPV4);
  expect(interfaces.count).toBe(0);

  interfaces.update({ IPv4: ['veth1'], IPv6: [] }, IPV4);

  expect(interfaces.count).toBe(1);
  expect(logger.at('warn')).toHaveLength(1);
});
