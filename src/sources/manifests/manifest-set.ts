/**
 * From the versions of files to the objects that are in force: which version of a file counts, which of two equal
 * names wins, and object identity that changes exactly when content does. No I/O; time is passed in.
 */
import { isDeepStrictEqual } from 'node:util';
import type { V1Node, V1Service } from '@kubernetes/client-node';
import { type Problem, problemKey } from '../../errors.ts';
import { compareText } from '../../model/endpoint.ts';
import { shortName } from '../../model/object.ts';
import { servicePortsFromService } from '../../model/service-port.ts';
import type { SourceObjects } from '../../model/snapshot.ts';
import type { DecodedManifest, DecodedObject } from './decode.ts';
import { orphanSlices } from './orphan-slices.ts';

/** What a file contributes. */
export interface FileVersion {
  readonly services: DecodedManifest['services'];
  readonly endpointSlices: DecodedManifest['endpointSlices'];
  readonly nodes: DecodedManifest['nodes'];
  /** Of the newest text of the file, whether or not its objects are the ones in use. */
  readonly problems: readonly Problem[];
  /** The objects are those of a text without problems. */
  readonly isGood: boolean;
}

/**
 * The version after a new text was read. A good one replaces everything; a broken one changes no object of a file
 * that was good before; a file that never was good contributes the objects in it that are. A Service whose ports
 * or addresses the model refuses breaks the file too: taken as it stands, the edit would take the Service away.
 * An endpoint that the model refuses does not: the others of its slice are worth having.
 */
export function nextFileVersion(before: FileVersion | undefined, decoded: DecodedManifest): FileVersion {
  const { services, endpointSlices, nodes, problems } = decoded;
  const faults = problems.length > 0 ? problems : services.flatMap(contentProblems);
  if (faults.length === 0) return { services, endpointSlices, nodes, problems, isGood: true };
  // The model reports the faults of content itself, of objects that reach it.
  if (before?.isGood !== true) return { services, endpointSlices, nodes, problems, isGood: false };
  const stays = '; the last good version of this file stays in use';
  return { ...before, problems: faults.map((fault) => ({ ...fault, message: fault.message + stays })) };
}

/** What the model would leave out of a Service, but for what it can never carry. */
function contentProblems({ object, where }: DecodedObject<V1Service>): Problem[] {
  return servicePortsFromService(object)
    .problems.filter(({ code }) => code !== 'ERR_SERVICE_UNSUPPORTED')
    .map((problem) => ({ ...problem, object: `${where} (${problem.object})` }));
}

export interface Composition {
  /** The very object of the last time when nothing in it changed. */
  readonly objects: SourceObjects;
  /** By name. */
  readonly nodes: ReadonlyMap<string, V1Node>;
  readonly problems: readonly Problem[];
  /** Objects or problems differ from the last time; true the first time. Says nothing of Nodes. */
  readonly isChanged: boolean;
}

interface Kept<T> {
  /** As it was decoded: what the next one is compared with. */
  readonly decoded: T;
  /** As it was handed out. */
  readonly emitted: T;
}

type KeptByKey<T> = ReadonlyMap<string, Kept<T>>;

/** Remembers what it composed last. */
export class ManifestSet {
  #services: KeptByKey<V1Service> = new Map();
  #endpointSlices: KeptByKey<SourceObjects['endpointSlices'][number]> = new Map();
  #last: { readonly objects: SourceObjects; readonly problemKeys: readonly string[] } | undefined;

  /**
   * Objects of all files, sorted by name. Of two with one name the first of `versions` wins; the other is
   * reported. `wallTimeMs` becomes the creation time of Services that are new and say none.
   */
  compose(
    versions: readonly FileVersion[],
    wallTimeMs: number,
    others: readonly Problem[] = [],
  ): Composition {
    const problems = [...others, ...versions.flatMap((version) => version.problems)];
    const services = firstOfEach(
      'Service',
      versions.flatMap((version) => version.services),
      problems,
    );
    const slices = firstOfEach(
      'EndpointSlice',
      versions.flatMap((version) => version.endpointSlices),
      problems,
    );
    const nodes = firstOfEach(
      'Node',
      versions.flatMap((version) => version.nodes),
      problems,
    );
    const stamp = new Date(wallTimeMs).toISOString();
    this.#services = keepIdentity(this.#services, services, (service, before) =>
      withCreationTime(service, before?.metadata?.creationTimestamp ?? stamp),
    );
    this.#endpointSlices = keepIdentity(this.#endpointSlices, slices, (slice) => slice);
    const objects = sameOrNew(this.#last?.objects, {
      services: emittedOf(this.#services),
      endpointSlices: emittedOf(this.#endpointSlices),
    });
    problems.push(...orphanSlices(objects));
    const problemKeys = problems.map(problemKey);
    const isChanged =
      objects !== this.#last?.objects || !isDeepStrictEqual(problemKeys, this.#last.problemKeys);
    this.#last = { objects, problemKeys };
    return { objects, nodes, problems, isChanged };
  }
}

function firstOfEach<T>(kind: string, all: readonly DecodedObject<T>[], problems: Problem[]): Map<string, T> {
  const firstByKey = new Map<string, DecodedObject<T>>();
  for (const decoded of all) {
    const first = firstByKey.get(decoded.key);
    if (first === undefined) firstByKey.set(decoded.key, decoded);
    else {
      problems.push({
        code: 'ERR_MANIFEST_DUPLICATE',
        object: `${decoded.where} (${kind} ${shortName(decoded.key)})`,
        field: 'metadata.name',
        message: `stands already in ${first.where}; that one is used`,
      });
    }
  }
  return new Map([...firstByKey].map(([key, { object }]) => [key, object]));
}

function keepIdentity<T>(
  before: KeptByKey<T>,
  now: ReadonlyMap<string, T>,
  finish: (decoded: T, emittedBefore: T | undefined) => T,
): KeptByKey<T> {
  const inOrder = [...now].sort(([a], [b]) => compareText(a, b));
  return new Map(
    inOrder.map(([key, decoded]) => {
      const kept = before.get(key);
      if (kept !== undefined && isDeepStrictEqual(kept.decoded, decoded)) return [key, kept];
      return [key, { decoded, emitted: finish(decoded, kept?.emitted) }];
    }),
  );
}

/** Text, as an API server sends it, where the client's type says Date. */
function withCreationTime(service: V1Service, created: unknown): V1Service {
  if (service.metadata?.creationTimestamp !== undefined) return service;
  const metadata = Object.assign({}, service.metadata, { creationTimestamp: created });
  return Object.assign({}, service, { metadata });
}

function emittedOf<T>(kept: KeptByKey<T>): T[] {
  return [...kept.values()].map(({ emitted }) => emitted);
}

function sameOrNew(before: SourceObjects | undefined, now: SourceObjects): SourceObjects {
  if (before === undefined) return now;
  const services = isSameList(before.services, now.services) ? before.services : now.services;
  const endpointSlices = isSameList(before.endpointSlices, now.endpointSlices)
    ? before.endpointSlices
    : now.endpointSlices;
  const isSame = services === before.services && endpointSlices === before.endpointSlices;
  return isSame ? before : { services, endpointSlices };
}

function isSameList<T>(a: readonly T[], b: readonly T[]): boolean {
  return a.length === b.length && a.every((element, index) => element === b[index]);
}
