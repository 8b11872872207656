/**
 * What changed from one set of objects to the next, and when that began: kube-proxy's change trackers
 * (`pkg/proxy/servicechangetracker.go`, `endpointschangetracker.go`) without their state, which the sources keep.
 */
import type { Clock } from '../clock.ts';
import type { IpFamily } from '../model/address.ts';
import { triggerTimeOfSlice } from '../model/endpoint.ts';
import type { SourceObjects } from '../model/snapshot.ts';

/** Something happened in the cluster at `at` (milliseconds since the epoch) that changed endpoints of a family. */
export interface Trigger {
  readonly family: IpFamily;
  readonly at: number;
}

export interface Changes {
  /** Added, changed and deleted objects. */
  readonly services: number;
  readonly endpointSlices: number;
  readonly triggers: readonly Trigger[];
}

export class ChangeTracker {
  readonly #startedAt: number;
  #before: SourceObjects = { services: [], endpointSlices: [] };

  constructor(deps: { readonly clock: Pick<Clock, 'wallTime'> }) {
    this.#startedAt = deps.clock.wallTime();
  }

  update(objects: SourceObjects): Changes {
    const { services, endpointSlices } = this.#before;
    this.#before = objects;
    const slices = difference(endpointSlices, objects.endpointSlices);
    return {
      services: difference(services, objects.services).count,
      endpointSlices: slices.count,
      triggers: slices.present.flatMap((slice) => this.#triggerOf(slice)),
    };
  }

  /** What happened before we were there says nothing about us. */
  #triggerOf(slice: SourceObjects['endpointSlices'][number]): readonly Trigger[] {
    const at = triggerTimeOfSlice(slice);
    const { addressType } = slice;
    if (at === undefined || at <= this.#startedAt) return [];
    return addressType === 'IPv4' || addressType === 'IPv6' ? [{ family: addressType, at }] : [];
  }
}

interface NamedObject {
  readonly metadata?: { readonly namespace?: string; readonly name?: string };
}

/** An object that is there in two versions is one change. `present`: added or changed. */
function difference<T extends NamedObject>(
  before: readonly T[],
  after: readonly T[],
): { readonly count: number; readonly present: readonly T[] } {
  if (before === after) return { count: 0, present: [] };
  const present = [...new Set(after).difference(new Set(before))];
  const absent = [...new Set(before).difference(new Set(after))];
  const names = [...present, ...absent].map(({ metadata }) => `${metadata?.namespace}/${metadata?.name}`);
  return { count: new Set(names).size, present };
}
