/** Which programs the reconciler runs for portals that have moved: one at a time, few, and none that is not needed. */
import { expect, test } from 'vitest';
import { ConntrackReconciler, type ReconcilerObserver } from '../../src/conntrack/reconciler.ts';
import { ProxyError } from '../../src/errors.ts';
import type { IpAddress } from '../../src/model/address.ts';
import { FakeConntrack, TCP4, UDP4, UDP6 } from '../support/fake-conntrack.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { makeFlow, makeMovedPortal, makeUndivertedFlow, routeTo } from '../support/moved-portals.ts';
import { RecordingLogger } from '../support/recording-logger.ts';

class Fixture {
  readonly conntrack = new FakeConntrack();
  readonly logger = new RecordingLogger();
  readonly clock = new FakeClock();
  readonly reconciled: unknown[] = [];
  readonly reconciler: ConntrackReconciler;

  constructor() {
    const observer: ReconcilerObserver = {
      flowsReconciled: (family, result) => void this.reconciled.push([family, result]),
    };
    const { clock, logger } = this;
    this.reconciler = new ConntrackReconciler({ clock, exec: this.conntrack.exec, logger, observer });
  }
}

const at = (address: string): { address: IpAddress } => ({ address: address as IpAddress });
const DNS = makeMovedPortal();
const TCP = makeMovedPortal({ protocol: 'TCP' });
const DNS6 = makeMovedPortal({ ...at('fd00:96::a'), family: 'IPv6' });
const DELETE_UNDIVERTED =
  '--orig-dst 10.96.0.10 --orig-port-dst 53 --reply-src 10.96.0.10 --reply-port-src 53';

test('however many portals have moved, each family and protocol is dumped once and nothing is deleted in vain', async () => {
  const { conntrack, reconciler } = new Fixture();
  const portals = Array.from({ length: 1000 }, (_, index) =>
    makeMovedPortal(at(`10.96.${index >> 8}.${index & 255}`)),
  );
  conntrack.flows[UDP4] = [makeFlow(), makeFlow({ destination: '10.96.0.11' })];

  reconciler.forget([...portals, TCP, DNS6]);
  await reconciler.settled();

  expect(conntrack.calls).toEqual([`-L ${UDP4}`, `-L ${TCP4}`, `-L ${UDP6}`]);
});

test('what is stale is deleted by one program, and counted', async () => {
  const { conntrack, reconciler, reconciled, logger } = new Fixture();
  const other = makeUndivertedFlow({ destination: '10.96.0.11' });
  const good = makeFlow();
  conntrack.flows[UDP4] = [makeUndivertedFlow(), makeUndivertedFlow({ sourcePort: 2 }), other, good];
  conntrack.flows[TCP4] = [makeUndivertedFlow()];

  reconciler.forget([DNS, makeMovedPortal(at('10.96.0.11')), TCP]);
  await reconciler.settled();

  expect(conntrack.calls).toEqual([
    `-L ${UDP4}`,
    `--load-file - -D ${UDP4} ${DELETE_UNDIVERTED}; -D ${UDP4} ${DELETE_UNDIVERTED.replaceAll('.0.10', '.0.11')}`,
    `-L ${TCP4}`,
    `--load-file - -D ${TCP4} ${DELETE_UNDIVERTED}`,
  ]);
  expect(conntrack.flows).toEqual({ [UDP4]: [good], [TCP4]: [] });
  expect(reconciled).toEqual([['IPv4', { durationSeconds: 0, deleted: 4 }]]);
  expect(logger.lines).toEqual([]);
});

test('a conntrack that cannot read deletions from a file is started for each of them', async () => {
  const { conntrack, reconciler, reconciled, logger } = new Fixture();
  conntrack.hasLoadFile = false;
  conntrack.flows[UDP4] = [makeUndivertedFlow()];

  reconciler.forget([DNS]);
  await reconciler.settled();
  conntrack.flows[UDP4] = [makeUndivertedFlow()];
  reconciler.forget([DNS]);
  await reconciler.settled();

  expect(conntrack.calls.slice(2)).toEqual([
    `-D ${UDP4} ${DELETE_UNDIVERTED}`,
    `-L ${UDP4}`,
    `-D ${UDP4} ${DELETE_UNDIVERTED}`,
  ]);
  expect(reconciled).toMatchObject([
    ['IPv4', { deleted: 1 }],
    ['IPv4', { deleted: 1 }],
  ]);
  expect(logger.lines).toEqual([]);
});

test('what is asked for while one is under way is done together afterwards, by the newest word', async () => {
  const { conntrack, reconciler } = new Fixture();
  const { promise, resolve } = Promise.withResolvers<void>();
  conntrack.gate = async () => promise;
  conntrack.flows[UDP4] = [makeFlow(), makeFlow({ replySourcePort: 20_002 })];

  reconciler.forget([DNS6]);
  reconciler.forget([makeMovedPortal({ route: routeTo(20_001) })]);
  reconciler.forget([makeMovedPortal({ route: routeTo(20_002), formerPorts: [20_001] })]);
  reconciler.forget([DNS6]);
  resolve();
  await reconciler.settled();

  expect(conntrack.calls.filter((call) => call.startsWith('-L'))).toEqual([
    `-L ${UDP6}`,
    `-L ${UDP4}`,
    `-L ${UDP6}`,
  ]);
  expect(conntrack.flows[UDP4]).toEqual([makeFlow({ replySourcePort: 20_002 })]);
});

test.each<{ name: string; faults: FakeConntrack['faults']; code: string }>([
  { name: 'dump', faults: [{ exitCode: 1, stderr: 'Operation failed' }], code: 'ERR_CONNTRACK_LIST' },
  {
    name: 'deletion',
    faults: [undefined, { exitCode: 1, stderr: 'Operation failed' }],
    code: 'ERR_CONNTRACK_DELETE',
  },
])(
  'a $name that fails is told by its code, and made up for at the next occasion',
  async ({ faults, code }) => {
    const { conntrack, reconciler, logger } = new Fixture();
    conntrack.faults.push(...faults);
    conntrack.flows[UDP4] = [makeUndivertedFlow()];

    reconciler.forget([DNS, TCP]);
    await reconciler.settled();
    expect(logger.lines).toMatchObject([{ level: 'warn', fields: { error: { code } } }]);
    expect(conntrack.flows[UDP4]).toHaveLength(1);
    reconciler.retry();
    await reconciler.settled();

    expect(conntrack.flows[UDP4]).toEqual([]);
    expect(logger.lines).toHaveLength(1);
    const calls = conntrack.calls.length;
    reconciler.retry();
    await reconciler.settled();
    expect(conntrack.calls).toHaveLength(calls);
  },
);

test('a family whose dump fails does not keep the other from being looked through', async () => {
  const { conntrack, reconciler } = new Fixture();
  conntrack.faults.push({ exitCode: 1, stderr: 'Operation failed' });
  conntrack.flows[UDP6] = [makeUndivertedFlow({ destination: 'fd00:96::a' })];

  reconciler.forget([DNS, DNS6]);
  await reconciler.settled();

  expect(conntrack.flows[UDP6]).toEqual([]);
});

test('without the program it is told once, and nothing more is tried', async () => {
  const { conntrack, reconciler, logger } = new Fixture();
  conntrack.faults.push(new ProxyError('ERR_EXEC_NOT_FOUND', 'conntrack is not installed or not on PATH'));

  reconciler.forget([DNS, TCP, DNS6]);
  await reconciler.settled();
  reconciler.forget([DNS]);
  reconciler.retry();
  await reconciler.settled();

  expect(conntrack.calls).toHaveLength(1);
  expect(logger.lines).toHaveLength(1);
});

test('close ends the program under way without a word, and starts no other', async () => {
  const { conntrack, reconciler, logger } = new Fixture();
  const { promise, resolve } = Promise.withResolvers<void>();
  conntrack.gate = async () => promise;
  reconciler.forget([DNS, TCP, DNS6]);

  const closed = reconciler.close();
  resolve();
  await closed;
  reconciler.forget([DNS]);
  await reconciler.settled();

  expect(conntrack.calls).toEqual([`-L ${UDP4}`]);
  expect(logger.lines).toEqual([]);
});

test('so many stale places are deleted in rounds, each after another look, and what is asked for meanwhile comes first', async () => {
  const { conntrack, reconciler } = new Fixture();
  const addresses = Array.from({ length: 150 }, (_, index) => `10.96.1.${index}`);
  conntrack.flows[UDP4] = addresses.map((destination) => makeUndivertedFlow({ destination }));
  conntrack.flows[UDP4].push(makeUndivertedFlow());

  reconciler.forget(addresses.map((address) => makeMovedPortal(at(address))));
  reconciler.forget([DNS]);
  await reconciler.settled();

  const perRound: number[] = [];
  for (const call of conntrack.calls) {
    if (call.startsWith('-L')) perRound.push(0);
    perRound.push((perRound.pop() ?? 0) + call.split('-D ').length - 1);
  }
  expect(perRound).toEqual([64, 64, 23]);
  expect(conntrack.flows[UDP4]).toEqual([]);
  // The first call of `forget` was under way already.
  const ofDns = conntrack.calls.findIndex((call) => call.includes(DELETE_UNDIVERTED));
  expect(conntrack.calls.slice(0, ofDns).filter((call) => call.startsWith('-L'))).toHaveLength(2);
});

test('a place that is stale again after every deletion does not keep it busy for ever', async () => {
  const { conntrack, reconciler } = new Fixture();
  conntrack.isForgetful = false;
  conntrack.flows[UDP4] = Array.from({ length: 100 }, (_, index) =>
    makeFlow({ replySourcePort: 31_000 + index }),
  );

  reconciler.forget([DNS]);
  await reconciler.settled();

  expect(conntrack.calls.filter((call) => call.startsWith('-L'))).toHaveLength(64);
});
