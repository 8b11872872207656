/** The scheduler of a Service that lives: changed by its annotation, misspelt, restarted with the proxy. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { SCHEDULER_ANNOTATION, type SchedulerName } from '../../../src/model/service-policy.ts';
import { canMakeNamespaces, createLab, type Lab } from '../../support/netns-lab.ts';
import { ProxyProcess } from '../../support/proxy-process.ts';
import { apply, FAMILIES } from '../../support/proxy-protocol-services.ts';
import {
  answersToClients,
  clusterPlace,
  expectScheduler,
  fileOf,
  prepareLab,
  type ScheduledService,
  scheduledManifest,
  serviceName,
  settled,
} from '../../support/scheduler-meanings.ts';

/** Of Services whose annotation says nothing that is understood. */
const FLAG = 'sh';
const ARGS = ['--scheduler', FLAG];

describe.skipIf(canMakeNamespaces() !== undefined)('the scheduler of a live Service', () => {
  let lab: Lab;
  let proxy: ProxyProcess;

  beforeAll(async () => {
    lab = await createLab();
    await prepareLab(lab);
    proxy = await ProxyProcess.start(lab.node, { args: ARGS });
  });
  afterAll(async () => {
    await proxy?.[Symbol.asyncDispose]();
    await lab?.close();
  });

  const write = async (service: ScheduledService): Promise<void> =>
    apply(proxy, fileOf(service), scheduledManifest(lab, service));
  const shows = async (name: SchedulerName, service: ScheduledService): Promise<void> =>
    expectScheduler(name, { lab, proxy, service, family: 'IPv4' });
  const answers = async (service: ScheduledService): Promise<readonly string[]> =>
    answersToClients({ lab, service, family: 'IPv4' });

  test('is changed by its annotation from each to the next, and no connection notices', async () => {
    const service = { number: 10 };
    await write(service);
    // Over the other family, which has turns and counts of its own: whoever answers, somebody does.
    const client = await lab.pod(3).agent();
    const target = clusterPlace(service, 'IPv6');
    const held = await client.tcpHold({ ...target, count: 3, named: true });
    for (const scheduler of ['random', 'dh', 'rr', undefined, 'dh', undefined] as const) {
      const { id } = await client.startConnectLoad({ ...target, concurrency: 2, pauseMs: 5 });
      await write({ ...service, scheduler });
      await shows(scheduler ?? FLAG, { ...service, scheduler });
      expect(await client.stopLoad({ id })).toMatchObject({ failed: 0, failures: [] });
    }
    expect(await client.heldUse(held)).toMatchObject({ ok: 3, failed: 0 });
    await client.heldClose({ id: held.id, how: 'fin' });
  });

  test.for([
    { name: 'lc', number: 20 },
    { name: 'sed', number: 21 },
    { name: 'nq', number: 22 },
  ] as const)('$name, chosen while connections are open, counts them', async ({ name, number }) => {
    await write({ number, pods: [1], scheduler: 'rr' });
    const client = await lab.pod(4).agent();
    for (const family of FAMILIES) {
      const place = clusterPlace({ number }, family);
      await write({ number, pods: [1], scheduler: family === 'IPv4' ? 'random' : 'rr' });
      const early = await client.tcpHold({ ...place, count: 2, named: true });
      await write({ number, scheduler: name });
      const late = await client.tcpHold({ ...place, count: 4, named: true });
      expect([early.byName, late.byName]).toEqual([{ pod1: 2 }, { pod2: 2, pod3: 2 }]);
      for (const { id } of [early, late]) await client.heldClose({ id, how: 'fin' });
      await settled(proxy, { number }, 0);
    }
  });

  test('gives every client its pod again after a restart, by sh, and moves only those of a pod that goes', async () => {
    const service = { number: 30, scheduler: 'sh' };
    await write(service);
    const first = await answers(service);
    await proxy.stop();
    proxy = await ProxyProcess.start(lab.node, { args: ARGS, directory: proxy.directory });
    expect(await answers(service)).toEqual(first);
    await write({ ...service, pods: [1, 2] });
    for (const [index, name] of (await answers(service)).entries())
      expect(name).toMatch(first[index] === 'pod3' ? /^pod[12]$/ : new RegExp(`^${first[index]}$`));
  });

  test.for([
    { value: 'wrr', number: 40 },
    { value: 'RR', number: 41 },
  ])('asked for as "$value" is told of once, and is that of --scheduler', async ({ value, number }) => {
    const service = { number, scheduler: value };
    await write(service);
    // Another object changes, and all are judged again.
    await write({ number: number + 10, scheduler: ' rr ' });
    await shows('rr', { number: number + 10 });
    const told = proxy.log.filter((line) => line['object'] === `Service default/${serviceName(service)}`);
    expect(told).toMatchObject([
      {
        msg: 'Invalid object',
        code: 'ERR_SERVICE_INVALID',
        field: `metadata.annotations[${SCHEDULER_ANNOTATION}]`,
        problem: expect.stringContaining(`${JSON.stringify(value)} is none of rr, random, lc,`) as unknown,
      },
    ]);
    await shows(FLAG, service);
  });
});
