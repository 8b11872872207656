/**
 * What every engine must do, with real sockets on loopback: each numbered guarantee of `src/engine/engine.ts` and
 * every cause of `CloseCause`. An engine that passes may stand in for any other.
 */
import { describe } from 'vitest';
import type { CreateEngine } from './engine-fixture.ts';
import { describeListenerContract } from './listener-contract.ts';
import { describeTcpContract } from './tcp-contract.ts';
import { describeTcpFlowContract } from './tcp-flow-contract.ts';
import { describeTcpIdleContract } from './tcp-idle-contract.ts';
import { describeTcpPreambleContract } from './tcp-preamble-contract.ts';
import { describeUdpContract } from './udp-contract.ts';

export function describeEngineContract(name: string, createEngine: CreateEngine): void {
  // Longer than any wait in it, so that a test that fails says for what it waited.
  describe(`${name} as an engine`, { timeout: 60_000 }, () => {
    describeListenerContract(createEngine);
    describeTcpContract(createEngine);
    describeTcpFlowContract(createEngine);
    describeTcpIdleContract(createEngine);
    describeTcpPreambleContract(createEngine);
    describeUdpContract(createEngine);
  });
}
