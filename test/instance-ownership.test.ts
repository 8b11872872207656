/** What a state directory says of the ports of an instance that does not answer. */
import { expect, test } from 'vitest';
import { openPortsFromKeys } from '../src/instance-ownership.ts';

test('a listener’s key says where its port is; what is no such key is left out', () => {
  const remembered = new Map([
    ['default/web:http/TCP/IPv4/cluster', 20_001],
    ['default/web/UDP/IPv6/local', 20_002],
    ['default/web:http/TCP/IPv4/cluster/10.96.0.10:80', 20_003],
    ['nonsense', 20_004],
  ]);
  expect(openPortsFromKeys(remembered)).toEqual([
    { family: 'IPv4', protocol: 'TCP', port: 20_001, servicePortName: 'default/web:http' },
    { family: 'IPv6', protocol: 'UDP', port: 20_002, servicePortName: 'default/web' },
    { family: 'IPv4', protocol: 'TCP', port: 20_003, servicePortName: 'default/web:http' },
  ]);
});
