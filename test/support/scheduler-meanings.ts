/**
 * What each scheduler means (IPVS's names and meaning), as clients of a Service see it: one check for each name, which
 * a test applies to a live Service, over one family at a time.
 */
import { expect } from 'vitest';
import { SCHEDULER_ANNOTATION, type SchedulerName } from '../../src/model/service-policy.ts';
import { addressOf, clusterIP, dualStackObjects, type Family } from './dual-stack.ts';
import type { Host, Lab } from './netns-lab.ts';
import { manifestText } from './objects.ts';
import type { ProxyProcess } from './proxy-process.ts';
import { apply, FAMILIES } from './proxy-protocol-services.ts';
import { waitFor } from './wait.ts';

const PORT = 80;
const TARGET_PORT = 8080;
/** Enough for three pods to have about as many each. */
const EXTERNAL_COUNT = 24;
const CLIENT_COUNT = 40;

export interface ScheduledService {
  /** The last part of its clusterIPs, from 1 to 99. */
  readonly number: number;
  /** The value of the annotation; none unless told. */
  readonly scheduler?: string | undefined;
  /** Numbers of the pods behind it, out of 1 to 3, which are all unless told. */
  readonly pods?: readonly number[];
}

interface Place {
  readonly host: string;
  readonly port: number;
}

export function serviceName({ number }: ScheduledService): string {
  return `service-${number}`;
}

export function fileOf(service: ScheduledService): string {
  return `${serviceName(service)}.yaml`;
}

/** The pods 1 to 3 answer with their names, and the outside gets the addresses of many clients. */
export async function prepareLab(lab: Lab): Promise<void> {
  for (const pod of [lab.pod(1), lab.pod(2), lab.pod(3)])
    await (await pod.agent()).serveTcp({ port: TARGET_PORT, mode: 'identify-echo', name: pod.name });
  const additions = FAMILIES.flatMap((family) =>
    clientAddresses(family).map(
      (address) => `address add ${address}/${family === 'IPv4' ? '24 dev eth0' : '64 dev eth0 nodad'}\n`,
    ),
  );
  await lab.ext.run(['ip', '-batch', '-'], { input: additions.join('') });
}

/** Of the outside, in the subnets of its link to the node. */
export function clientAddresses(family: Family): readonly string[] {
  return Array.from({ length: CLIENT_COUNT }, (_, index) =>
    family === 'IPv4' ? `192.168.77.${100 + index}` : `fd00:77::1:${100 + index}`,
  );
}

/** With a NodePort and, for `dh` to spread, many externalIPs; whoever has another scheduler must not look at them. */
export function scheduledManifest(lab: Lab, service: ScheduledService): string {
  const { number, scheduler, pods = [1, 2, 3] } = service;
  const objects = dualStackObjects({
    name: serviceName(service),
    number,
    ports: [{ name: 'name', port: PORT, targetPort: TARGET_PORT, nodePort: 30_000 + number }],
    backends: pods.map((pod) => lab.pod(pod)),
    tweak: ({ metadata, spec }) => {
      if (scheduler !== undefined)
        Object.assign(metadata ?? {}, { annotations: { [SCHEDULER_ANNOTATION]: scheduler } });
      spec.externalIPs = FAMILIES.flatMap((family) =>
        externalPlaces(service, family).map(({ host }) => host),
      );
    },
  });
  return manifestText(...objects);
}

export function clusterPlace({ number }: ScheduledService, family: Family): Place {
  return { host: clusterIP(number, family), port: PORT };
}

function nodePlace({ lab, service, family }: Omit<Subject, 'proxy'>): Place {
  return { host: addressOf(lab.node, family), port: 30_000 + service.number };
}

function externalPlaces({ number }: ScheduledService, family: Family): readonly Place[] {
  return Array.from({ length: EXTERNAL_COUNT }, (_, index) => ({
    host: family === 'IPv4' ? `198.51.${number}.${1 + index}` : `2001:db8:51:${number}::${1 + index}`,
    port: PORT,
  }));
}

/** A Service, where it is, and the family over which it is looked at. */
export interface Subject {
  readonly lab: Lab;
  readonly proxy: ProxyProcess;
  readonly service: ScheduledService;
  readonly family: Family;
}

/** Fails unless the Service behaves as that name says. It is left as it was, without connections. */
export async function expectScheduler(name: SchedulerName, subject: Subject): Promise<void> {
  switch (name) {
    case 'rr':
      return expectTurns(subject);
    case 'random':
      return expectChance(subject);
    case 'lc':
    case 'sed':
    case 'nq':
      return expectTheIdlest(subject);
    case 'sh':
      return expectByClient(subject);
    case 'dh':
      return expectByDestination(subject);
  }
}

/** Who answers each of the outside's addresses, at the NodePort. */
export async function answersToClients(subject: Omit<Subject, 'proxy'>): Promise<readonly string[]> {
  const { lab, family } = subject;
  const place = nodePlace(subject);
  const answers = clientAddresses(family).map(async (address) =>
    askFrom(lab.ext, place, { localAddress: address }),
  );
  return (await Promise.all(answers)).flat();
}

/** Waits until that many connections of the Service are open, over both families: others have ended by now. */
export async function settled(proxy: ProxyProcess, service: ScheduledService, count: number): Promise<void> {
  const labels = { service: serviceName(service) };
  const isSo = async (): Promise<boolean> =>
    (await proxy.metric('userspace_proxy_connections_active', labels)) === count;
  await waitFor(isSo, { timeoutMs: 5_000, what: `${count} connections to be left` });
}

/** One connection after the other gets the next pod, whoever comes, and to whatever address. */
async function expectTurns({ lab, service, family }: Subject): Promise<void> {
  const pod = lab.pod(4);
  expectInTurn(await askFrom(pod, clusterPlace(service, family), { count: 12 }));
  const mixed: string[] = [];
  for (const [index, place] of externalPlaces(service, family).slice(0, 9).entries())
    mixed.push(...(await askFrom(index % 2 === 0 ? pod : lab.ext, place)));
  expectInTurn(mixed);
}

/** Nobody is left out, and nothing tells who is next. */
async function expectChance({ lab, service, family }: Subject): Promise<void> {
  const names = await askFrom(lab.pod(4), clusterPlace(service, family), { count: 90 });
  expectEven(names);
  expect(names.filter((name, index) => name === names[index + 1]).length).toBeGreaterThanOrEqual(5);
}

/** Who has the fewest connections gets the next one, be they from before the others were there. */
async function expectTheIdlest({ lab, proxy, service, family }: Subject): Promise<void> {
  const client = await lab.pod(4).agent();
  const place = clusterPlace(service, family);
  const hold = async (count: number) => client.tcpHold({ ...place, count, named: true });
  const write = async (own: ScheduledService): Promise<void> =>
    apply(proxy, fileOf(service), scheduledManifest(lab, own));
  await settled(proxy, service, 0);
  await write({ ...service, pods: [1] });
  const early = await hold(4);
  expect(early.byName).toEqual({ pod1: 4 });
  await write(service);
  expect(tally(await askFrom(lab.pod(4), place, { count: 10 }))).toEqual({ pod2: 5, pod3: 5 });
  // Of connections that are over nothing is left.
  await settled(proxy, service, 4);
  const late = await hold(8);
  expect(late.byName).toEqual({ pod2: 4, pod3: 4 });
  const more = await hold(3);
  expect(more.byName).toEqual({ pod1: 1, pod2: 1, pod3: 1 });
  await client.heldClose({ id: early.id, how: 'fin' });
  await settled(proxy, service, 11);
  const last = await hold(4);
  expect(last.byName).toEqual({ pod1: 4 });
  for (const { id } of [late, more, last]) await client.heldClose({ id, how: 'fin' });
  await settled(proxy, service, 0);
}

/** A client's address has its pod, at every address of the Service, and others have others. */
async function expectByClient(subject: Subject): Promise<void> {
  const { lab, service, family } = subject;
  const away = [clusterPlace(service, family), ...externalPlaces(service, family)];
  const sets = [
    { host: lab.pod(4), places: [...away, nodePlace(subject)] },
    // To itself the node comes from the address that it asks.
    { host: lab.node, places: away },
  ];
  for (const { host, places } of sets) {
    const names = await Promise.all(places.map(async (place) => askFrom(host, place, { count: 2 })));
    expectOne(names.flat());
  }
  const first = await answersToClients(subject);
  expectEven(first);
  expect(await answersToClients(subject)).toEqual(first);
}

/** An address of the Service has its pod, whoever asks there, and others have others. */
async function expectByDestination(subject: Subject): Promise<void> {
  const { lab, service, family } = subject;
  const hosts = [lab.pod(4), lab.node, lab.ext];
  const askAll = async (host: Host): Promise<readonly string[]> => {
    const answers = externalPlaces(service, family).map(async (place) => askFrom(host, place));
    return (await Promise.all(answers)).flat();
  };
  const first = await askAll(lab.pod(3));
  expectEven(first);
  for (const host of hosts) expect(await askAll(host)).toEqual(first);
  for (const place of [clusterPlace(service, family), nodePlace(subject)]) {
    const names = await Promise.all(hosts.map(async (host) => askFrom(host, place, { count: 3 })));
    expectOne(names.flat());
  }
}

/** Who answers so many connections, 1 unless told, one after the other. */
async function askFrom(
  host: Host,
  place: Place,
  options: { readonly count?: number; readonly localAddress?: string } = {},
): Promise<readonly string[]> {
  const answers = await (await host.agent()).tcpIdentify({ count: 1, ...place, ...options });
  return answers.map(({ ok, name, errno }) => (ok ? (name ?? '') : (errno ?? '')));
}

function tally(names: readonly string[]): Readonly<Record<string, number>> {
  const groups = Map.groupBy(names.toSorted(), (name) => name);
  return Object.fromEntries([...groups].map(([name, all]) => [name, all.length]));
}

/** One pod, all the time. */
function expectOne(names: readonly string[]): void {
  expect(Object.keys(tally(names))).toEqual([expect.stringMatching(/^pod[123]$/)]);
}

/** The three pods, again and again in the same order. */
function expectInTurn(names: readonly string[]): void {
  expect(names.slice(0, 3).toSorted()).toEqual(['pod1', 'pod2', 'pod3']);
  expect(names).toEqual(names.map((_, index) => names[index % 3]));
}

/** The three pods, and none of them far less often than the others. */
function expectEven(names: readonly string[]): void {
  const counts = tally(names);
  expect(Object.keys(counts)).toEqual(['pod1', 'pod2', 'pod3']);
  for (const count of Object.values(counts)) expect(count).toBeGreaterThanOrEqual(names.length / 10);
}
