/** The engine of Node's own sockets under the contract of every engine, and what only one with a socket on each address promises. */
import { expect, test } from 'vitest';
import { NodeEngine } from '../../src/engine/node/node-engine.ts';
import { exchange, openUdpEcho, openUdpPeer } from '../support/loopback-udp.ts';
import { dialTo } from '../support/recording-policy.ts';
import { describeEngineContract } from './engine-contract.ts';
import { type CreateEngine, EngineFixture } from './engine-fixture.ts';

const createEngine: CreateEngine = (deps, options) => new NodeEngine(deps, options);

describeEngineContract('NodeEngine', createEngine);

test('a UDP listener has a socket on each address and leaves its port on all others to others', async () => {
  const fixture = new EngineFixture(createEngine);
  const addresses = ['127.0.0.1', '127.0.0.2'];

  const { id, port } = await fixture.listen('UDP', 'IPv4', addresses);

  await openUdpPeer('127.0.0.3', port);
  await fixture.engine.setAddresses(id, ['127.0.0.2']);
  await openUdpPeer('127.0.0.1', port);
  expect([
    fixture.engine.socketsFor({ protocol: 'UDP', addresses }),
    fixture.engine.socketsFor({ protocol: 'UDP', addresses: [] }),
    fixture.engine.socketsFor({ protocol: 'TCP', addresses: ['0.0.0.0'] }),
  ]).toEqual([2, 0, 1]);
});

test('when one new address of UDP is taken, the others are served all the same', async () => {
  const fixture = new EngineFixture(createEngine);
  const backend = await openUdpEcho();
  fixture.policy.decide = () => dialTo(backend);
  const { id, port } = await fixture.listen('UDP');
  await openUdpPeer('127.0.0.2', port);

  const changing = fixture.engine.setAddresses(id, ['127.0.0.1', '127.0.0.2', '127.0.0.3']);

  await expect(changing).rejects.toMatchObject({ cause: { code: 'EADDRINUSE' } });
  await exchange(await openUdpPeer(), { address: '127.0.0.3', port }, 1);
});
