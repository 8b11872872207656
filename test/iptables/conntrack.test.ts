/** Which `conntrack` calls are made, one at a time, and what becomes of their faults. */
import { expect, test } from 'vitest';
import { ProxyError } from '../../src/errors.ts';
import { Conntrack, type MovedPortal } from '../../src/iptables/conntrack.ts';
import type { IpAddress } from '../../src/model/address.ts';
import { ScriptedExec } from '../support/fake-exec.ts';
import { RecordingLogger } from '../support/recording-logger.ts';

const ALL = { stalePorts: undefined };
const DNS: MovedPortal = { family: 'IPv4', address: '10.96.0.10' as IpAddress, port: 53, ...ALL };
const DNS6: MovedPortal = { family: 'IPv6', address: 'fd00:96::a' as IpAddress, port: 53, ...ALL };
const NODE_PORT: MovedPortal = { family: 'IPv4', address: undefined, port: 30_053, ...ALL };
const DELETE_DNS = 'conntrack -D -f ipv4 -p udp --orig-dst 10.96.0.10 --orig-port-dst 53';
const NONE = {
  exitCode: 1,
  stderr: 'conntrack v1.4.7 (conntrack-tools): 0 flow entries have been deleted.\n',
};

function make(script: ScriptedExec): { conntrack: Conntrack; logger: RecordingLogger } {
  const logger = new RecordingLogger();
  return { conntrack: new Conntrack({ exec: script.exec, logger }), logger };
}

test('the flows to each portal are deleted in turn, a NodePort on whatever address', async () => {
  const script = new ScriptedExec()
    .expect(DELETE_DNS)
    .expect('conntrack -D -f ipv6 -p udp --orig-dst fd00:96::a --orig-port-dst 53')
    .expect('conntrack -D -f ipv4 -p udp --orig-port-dst 30053');
  const { conntrack, logger } = make(script);

  conntrack.forget([DNS, DNS6]);
  conntrack.forget([NODE_PORT]);
  await conntrack.settled();

  expect(script.remaining).toBe(0);
  expect(logger.lines).toEqual([]);
});

test('only the flows that lead to stale ports are deleted where these are known', async () => {
  const script = new ScriptedExec()
    .expect(`${DELETE_DNS} --reply-port-src 53`, NONE)
    .expect(`${DELETE_DNS} --reply-port-src 20001`);
  const { conntrack, logger } = make(script);

  conntrack.forget([{ ...DNS, stalePorts: [53, 20_001] }]);
  await conntrack.settled();

  expect(script.remaining).toBe(0);
  expect(logger.lines).toEqual([]);
});

test('what waits already is not asked for twice', async () => {
  const script = new ScriptedExec().expect(DELETE_DNS);
  const { conntrack } = make(script);

  conntrack.forget([DNS, DNS]);
  conntrack.forget([DNS]);
  await conntrack.settled();

  expect(script.remaining).toBe(0);
});

test('that there is no such flow is no fault', async () => {
  const { conntrack, logger } = make(new ScriptedExec().expect(DELETE_DNS, NONE));

  conntrack.forget([DNS]);
  await conntrack.settled();

  expect(logger.lines).toEqual([]);
});

test('a refusal is told by its code, and the next portal is tried all the same', async () => {
  const refusal = { exitCode: 1, stderr: 'Operation failed: sorry, you must be root' };
  const script = new ScriptedExec()
    .expect(DELETE_DNS, refusal)
    .expect('conntrack -D -f ipv6 -p udp --orig-dst fd00:96::a --orig-port-dst 53');
  const { conntrack, logger } = make(script);

  conntrack.forget([DNS, DNS6]);
  await conntrack.settled();

  expect(script.remaining).toBe(0);
  expect(logger.lines).toMatchObject([
    { level: 'warn', fields: { error: { code: 'ERR_CONNTRACK_DELETE' } } },
  ]);
});

test('without the program it is told once, and nothing more is tried', async () => {
  const missing = new ProxyError('ERR_EXEC_NOT_FOUND', 'conntrack is not installed or not on PATH');
  const { conntrack, logger } = make(new ScriptedExec().expect(DELETE_DNS, missing));

  conntrack.forget([DNS, DNS6, NODE_PORT]);
  await conntrack.settled();

  expect(logger.lines).toHaveLength(1);
});

test('close waits for the call under way, and starts no other', async () => {
  const { promise, resolve } = Promise.withResolvers<object>();
  const script = new ScriptedExec().expect(DELETE_DNS, promise);
  const { conntrack } = make(script);
  conntrack.forget([DNS, DNS6]);
  await Promise.resolve();

  const closed = conntrack.close();
  resolve({});
  await closed;

  expect(script.calls).toHaveLength(1);
});
