/** The engine of Node's own sockets under the contract of every engine. */
import { NodeEngine } from '../../src/engine/node/node-engine.ts';
import { describeEngineContract } from './engine-contract.ts';

describeEngineContract('NodeEngine', (deps, options) => new NodeEngine(deps, options));
