/**
 * What the upstream e2e tests ask again and again: who answers there? A Service is up when everybody who should
 * answers and nobody fails, and down when nobody answers.
 */
import type { Host } from './netns-lab.ts';
import { waitFor } from './wait.ts';

export interface Target {
  readonly host: string;
  readonly port: number;
  readonly protocol: 'TCP' | 'UDP';
}

/** How long a proxy may take to follow a change, on a machine that is busy with other things. */
const FOLLOW_MS = 8_000;
/**
 * For one try. Shorter than the second after which a SYN that was lost is sent again: who tried a moment too early
 * tries anew instead.
 */
const TRY_MS = 400;

/** From fresh sockets, one after the other: the name of who answered, or the error's. */
export async function ask(
  from: Host,
  { host, port, protocol }: Target,
  { count = 1 } = {},
): Promise<readonly string[]> {
  const agent = await from.agent();
  const dial = { host, port, count, timeoutMs: TRY_MS };
  const answers =
    protocol === 'TCP'
      ? await agent.tcpIdentify(dial)
      : await agent.udpIdentify({ ...dial, sameSocket: false });
  return answers.map(({ ok, name, errno }) => (ok ? (name ?? '') : (errno ?? 'NO_ANSWER')));
}

/** What `ask` gives in the place of a host's name, which has no capitals. */
export function isFailure(answer = 'NO_ANSWER'): boolean {
  return /^[A-Z]/.test(answer);
}

/** Waits until all these hosts answer in turn, and no other, without a failure. */
export async function isUp(from: Host, target: Target, hosts: readonly Host[]): Promise<void> {
  const expected = hosts.map(({ name }) => name).toSorted();
  await becomes(from, target, {
    count: 3 * expected.length,
    isSo: (answers) => [...new Set(answers)].toSorted().join() === expected.join(),
    what: `is answered by ${expected.join()}`,
  });
}

/** Waits until nobody is there any more: refused, unreachable or silent. */
export async function isDown(from: Host, target: Target): Promise<void> {
  const isSo = ([answer = '']: readonly string[]): boolean =>
    /^(?:ECONNREFUSED|EHOSTUNREACH|ENETUNREACH|TIMEOUT)$/.test(answer);
  await becomes(from, target, { count: 1, isSo, what: 'is answered by nobody' });
}

/** Waits until connecting there is refused at once. */
export async function isRefused(from: Host, { host, port, protocol }: Target): Promise<void> {
  const agent = await from.agent();
  const dial = { host, port, timeoutMs: TRY_MS };
  let seen = '';
  const isSo = async (): Promise<boolean> => {
    if (protocol === 'TCP') {
      seen = (await agent.tcpProbe(dial)).outcome;
      return seen === 'refused';
    }
    // Only a connected socket hears of the ICMP error. On the node that rejects it, sending itself fails.
    const [answer] = await agent.udpIdentify({ ...dial, count: 1, sameSocket: true, connected: true });
    seen = answer?.errno ?? `an answer of ${answer?.name}`;
    return seen === 'ECONNREFUSED' || seen === 'EPERM';
  };
  await follows(isSo, {
    place: placeOf(from, { host, port, protocol }),
    what: 'is refused',
    seen: () => seen,
  });
}

/** Waits until one host answers so many requests in a row; its name. */
export async function isSticky(from: Host, target: Target, count: number): Promise<string> {
  let answers: readonly string[] = [];
  const isSo = async (): Promise<boolean> => {
    // Whoever fails once fails slowly `count` times.
    answers = await ask(from, target);
    if (isFailure(answers[0])) return false;
    answers = await ask(from, target, { count });
    return new Set(answers).size === 1 && !isFailure(answers[0]);
  };
  const what = `is answered by one host ${count} times in a row`;
  await follows(isSo, { place: placeOf(from, target), what, seen: () => answers.join() });
  return answers[0] ?? '';
}

/** Waits until so many octets come back as they were sent: as one datagram, or over one connection with half-close. */
export async function isEchoed(from: Host, target: Target, bytes: number): Promise<void> {
  const agent = await from.agent();
  const dial = { host: target.host, port: target.port, timeoutMs: TRY_MS };
  let seen = '';
  const isSo = async (): Promise<boolean> => {
    const { ok, received, errno } =
      target.protocol === 'TCP'
        ? await agent.tcpExchange({ ...dial, bytes, halfClose: true })
        : await agent.udpExchange({ ...dial, payloadBytes: bytes });
    seen = `${errno ?? 'an echo'} after ${received} octets`;
    return ok;
  };
  const what = `sends ${bytes} octets back`;
  await follows(isSo, { place: placeOf(from, target), what, seen: () => seen });
}

interface Expectation {
  readonly count: number;
  readonly isSo: (answers: readonly string[]) => boolean;
  readonly what: string;
}

async function becomes(from: Host, target: Target, { count, isSo, what }: Expectation): Promise<void> {
  let answers: readonly string[] = [];
  const isTrue = async (): Promise<boolean> => {
    answers = await ask(from, target, { count });
    return isSo(answers);
  };
  await follows(isTrue, { place: placeOf(from, target), what, seen: () => answers.join() });
}

async function follows(
  isSo: () => Promise<boolean>,
  { place, what, seen }: { readonly place: string; readonly what: string; readonly seen: () => string },
): Promise<void> {
  await waitFor(isSo, { timeoutMs: FOLLOW_MS, what: `that ${place} ${what}` }).catch((error: unknown) => {
    throw new Error(`${place}: waited until it ${what}, last saw ${seen()}`, { cause: error });
  });
}

function placeOf(from: Host, { host, port, protocol }: Target): string {
  return `${protocol} ${host} port ${port} from ${from.name}`;
}
