/** The engine in C++ under the contract of every engine, and what only one that reports in batches promises. */
import { describe, expect, test } from 'vitest';
import type { EngineEvent } from '../../src/engine/engine.ts';
import { NativeEngine } from '../../src/engine/native/native-engine.ts';
import { connectTcp, echo, openTcpBackend } from '../support/loopback-tcp.ts';
import { addonUnderTest, isAddonBuilt } from '../support/native-addon.ts';
import { dialTo } from '../support/recording-policy.ts';
import { describeEngineContract } from './engine-contract.ts';
import { type CreateEngine, EngineFixture } from './engine-fixture.ts';

const BURST = 64;

describe.skipIf(!isAddonBuilt())('built', () => {
  describeEngineContract('NativeEngine', (deps, options) => new NativeEngine(deps, options, addonUnderTest()));

  test.each([16, 64])(
    'connections that come while the policy is busy are decided in one call, at most %i of them',
    async (maxUnreported) => {
      const calls: (readonly EngineEvent['kind'][])[] = [];
      const createEngine: CreateEngine = ({ clock, policy }, options) => {
        const handle: typeof policy.handle = (events, now) => {
          calls.push(events.map(({ kind }) => kind));
          return policy.handle(events, now);
        };
        return new NativeEngine({ clock, policy: { handle } }, { ...options, maxUnreported }, addonUnderTest());
      };
      const fixture = new EngineFixture(createEngine);
      const backend = await openTcpBackend('127.0.0.1', echo);
      fixture.policy.decide = () => dialTo(backend);
      const listener = await fixture.listen('TCP');

      const connecting = Array.from({ length: BURST }, async () => connectTcp(listener));
      // Node connects at the next tick. From then on its loop stands still until the engine has accepted them.
      await new Promise<void>((resolve) => process.nextTick(resolve));
      const deadline = performance.now() + 10_000;
      while ([...fixture.engine.sessionBytes()].length < maxUnreported && performance.now() < deadline);
      const accepted = [...fixture.engine.sessionBytes()].length;
      const clients = await Promise.all(connecting);
      for (const [index, client] of clients.entries()) client.send(`client ${index}`);
      await Promise.all(clients.map(async (client, index) => client.text(`client ${index}`)));

      expect(accepted).toBe(maxUnreported);
      expect(calls[0]).toEqual(Array(maxUnreported).fill('opened'));
    },
  );
});
