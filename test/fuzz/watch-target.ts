/**
 * The watch decoder: any bytes at all in pieces of any size, from the socket to the snapshot. It promises to end in peace
 * or with a coded error, that a bad object costs nobody but itself, and that how the bytes were cut changes nothing.
 */
import type { V1EndpointSlice, V1Service } from '@kubernetes/client-node';
import { systemClock } from '../../src/clock.ts';
import { ApiError } from '../../src/sources/kubernetes/api-error.ts';
import type { ApiBody } from '../../src/sources/kubernetes/api-client.ts';
import { ObjectStore } from '../../src/sources/kubernetes/object-store.ts';
import { endpointSliceResource, objectKey, serviceResource } from '../../src/sources/kubernetes/resource.ts';
import { watchObjects } from '../../src/sources/kubernetes/watch.ts';
import { snapshotFromObjects } from '../../src/model/snapshot.ts';
import type { Random } from '../support/random.ts';
import { OBJECTS } from './corpus.ts';
import type { FuzzTarget } from './fuzz-target.ts';
import { hugeText, randomBytes, spoiledBytes, spoiledValue } from './mutations.ts';

const MAX_TEXT_LENGTH = 2000;
const SERVICES = serviceResource('');
const SLICES = endpointSliceResource('');
const TYPES = ['ADDED', 'ADDED', 'MODIFIED', 'MODIFIED', 'DELETED', 'BOOKMARK'] as const;

/** What a server says about one object; the versions go up, as they do. */
function eventText(random: Random, object: unknown): string {
  return JSON.stringify({ type: random.pick(TYPES), object });
}

function versioned(random: Random): object {
  const { metadata, ...object } = random.pick(OBJECTS);
  const resourceVersion = String(random.below(1000));
  // Characters of two, three and four bytes, which a cut goes through, also near the end of the line.
  const name = random.below(3) === 0 ? { name: 'wéb-€-🦄' } : {};
  return { ...object, metadata: { ...metadata, resourceVersion, ...name } };
}

/** Where the API server would take off what it does not know: unknown fields, as deep as a stack. */
function deepObject(random: Random): string {
  const depth = random.below(random.pick([50, 50, 3000, 20_000]));
  const deep =
    random.below(2) === 0
      ? `${'['.repeat(depth)}${']'.repeat(depth)}`
      : `${'{"a":'.repeat(depth)}1${'}'.repeat(depth)}`;
  const object = JSON.stringify(versioned(random));
  const places = [...object.matchAll(/[{,]"/g)].map(({ index }) => index);
  const at = random.pick(places) + 1;
  const isBroken = random.below(4) === 0;
  const whole = `${object.slice(0, at)}"deep":${deep},${object.slice(at)}`;
  return `{"type":"ADDED","object":${isBroken ? whole.slice(0, -1) : whole}}`;
}

type Generator = (random: Random) => string | Uint8Array;

const LINES: readonly Generator[] = [
  (random) => eventText(random, versioned(random)),
  (random) => eventText(random, versioned(random)),
  (random) => eventText(random, versioned(random)),
  (random) => eventText(random, spoiledValue(versioned(random), random)),
  (random) => eventText(random, spoiledValue(versioned(random), random)),
  (random) => JSON.stringify(spoiledValue({ type: 'ADDED', object: versioned(random) }, random)),
  (random) => spoiledBytes(Buffer.from(eventText(random, versioned(random))), random),
  (random) =>
    JSON.stringify({
      type: 'ERROR',
      object: spoiledValue(
        { kind: 'Status', code: 410, reason: 'Expired', message: 'too old', details: { causes: [{}] } },
        random,
      ),
    }),
  (random) => (random.below(4) === 0 ? deepObject(random) : ''),
  (random) => (random.below(4) === 0 ? hugeText(random, random.pick([300, 300, 300, 100_000])) : '\r'),
  (random) => randomBytes(random, 100),
];

/** Mostly good at first, so that there is something that may be spoiled. */
function inputOf(random: Random): Buffer {
  const parts: Uint8Array[] = [];
  for (let left = random.below(5); left > 0; left -= 1) {
    const index = random.below(random.below(3) === 0 ? LINES.length : 5);
    parts.push(Buffer.from(LINES[index]?.(random) ?? ''), Buffer.from('\n'));
  }
  if (random.below(6) === 0) parts.pop();
  return Buffer.concat(parts);
}

/** In pieces of up to `longest` bytes, empty ones among them. */
function cut(whole: Buffer, random: Random, longest: number): Uint8Array[] {
  const pieces: Uint8Array[] = [];
  for (let start = 0; start < whole.length; ) {
    const length = random.below(longest + 1);
    pieces.push(whole.subarray(start, start + length));
    start += length;
  }
  return pieces;
}

async function* bodyOf(pieces: readonly Uint8Array[]): ApiBody {
  yield* pieces;
}

interface Taken {
  readonly received: string[];
  readonly outcome: string;
  readonly services: readonly V1Service[];
  readonly endpointSlices: readonly V1EndpointSlice[];
  readonly problems: readonly string[];
}

/** As the reflector does it, into two stores: each meets the objects of the other resource, too. */
async function takenFrom(pieces: readonly Uint8Array[]): Promise<Taken> {
  const services = new ObjectStore(SERVICES);
  const slices = new ObjectStore(SLICES);
  const received: string[] = [];
  const request = {
    endpoint: SERVICES.endpoints[0],
    query: {},
    resourceVersion: '1',
    // A millisecond: a timer of five minutes for each of a million inputs would be a leak of the test's own.
    timeoutSeconds: -29.999,
    silenceTimeoutMs: 1000,
    signal: new AbortController().signal,
  };
  const outcome = await watchObjects(
    { client: { get: async () => Promise.resolve(bodyOf(pieces)) }, clock: systemClock },
    request,
    {
      established: () => received.push('established'),
      received: (type) => received.push(type),
      event: ({ type, object, resourceVersion }) => {
        received.push(`${type} ${objectKey(object)} ${resourceVersion}`);
        if (type === 'BOOKMARK') return;
        if (objectKey(object) === undefined) throw new ApiError('ERR_API_RESPONSE', 'no name');
        for (const store of [services, slices]) {
          if (type === 'DELETED') store.remove(object);
          else store.set(object);
          // As if somebody looked after every event: what is compared then must bear it.
          store.take();
        }
      },
    },
  ).then(() => 'ended', faultText);
  const problems = [...services.problems, ...slices.problems].map(({ code, object, field, message }) => {
    if (code !== 'ERR_API_OBJECT_INVALID') throw new Error(`a problem has the code ${code}`);
    return `${object} ${field} ${message}`;
  });
  return { received, outcome, services: services.take(), endpointSlices: slices.take(), problems };
}

function faultText(error: unknown): string {
  if (!(error instanceof ApiError)) throw new Error('an error without a code', { cause: error });
  return `${error.code} ${error.status} ${error.retryAfterMs} ${error.message}`;
}

async function checkWatch(bytes: Buffer, random: Random): Promise<void> {
  const whole = await takenFrom([bytes]);
  const { services, endpointSlices, problems, outcome } = whole;
  for (const text of [outcome, ...problems]) {
    if (text.length > MAX_TEXT_LENGTH) throw new Error(`${text.length} characters: ${text.slice(0, 100)}`);
  }
  for (const { message } of snapshotFromObjects({ services, endpointSlices }).problems) {
    if (message.length > MAX_TEXT_LENGTH) throw new Error(`a problem of ${message.length} characters`);
  }
  const longest = bytes.length < 1000 ? random.pick([1, 3, 200]) : random.pick([100, 5000]);
  const inPieces = await takenFrom(cut(bytes, random, longest));
  const [one, other] = [JSON.stringify(whole), JSON.stringify(inPieces)];
  if (one !== other) throw new Error(`in one piece ${one}\nin pieces of up to ${longest} bytes ${other}`);
}

export const watchTarget: FuzzTarget = {
  name: 'watch',
  run: async (random) => checkWatch(inputOf(random), random),
  describe: (random) => JSON.stringify(inputOf(random).toString('latin1')),
};
