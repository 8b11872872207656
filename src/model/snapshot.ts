/**
 * Snapshot: everything the sources know at one moment, converted and checked. The one thing that crosses from
 * the sources into the rest of the pipeline. Pure.
 */
import type { V1EndpointSlice, V1Service } from '@kubernetes/client-node';
import type { Problem } from '../errors.ts';
import { type EndpointsByServicePort, endpointsFromSlices, serviceOfSlice } from './endpoint.ts';
import type { Checked } from './object.ts';
import { type ServicePort, servicePortsFromService } from './service-port.ts';
import type { ServicePortKey } from './service-port-name.ts';

/** The objects a source holds; identity of the objects changes exactly when their content does. */
export interface SourceObjects {
  readonly services: readonly V1Service[];
  readonly endpointSlices: readonly V1EndpointSlice[];
}

export interface Snapshot {
  readonly servicePorts: ReadonlyMap<ServicePortKey, ServicePort>;
  readonly endpoints: EndpointsByServicePort;
  readonly problems: readonly Problem[];
}

export const EMPTY_SNAPSHOT: Snapshot = { servicePorts: new Map(), endpoints: new Map(), problems: [] };

/** Converts whatever the sources hold; never throws on a malformed object. */
export function snapshotFromObjects(objects: SourceObjects): Snapshot {
  return new SnapshotBuilder().build(objects);
}

/**
 * As `snapshotFromObjects`, for a source that changes a little at a time: what was made of objects that are still
 * the same is used again, and is the same. `servicePorts` is the same map while the list of Services is the same;
 * the endpoints of a service port are the same list while its Service's slices are the same.
 */
export class SnapshotBuilder {
  #services: ConvertedServices | undefined;
  #checkedByService = new WeakMap<V1Service, Checked<readonly ServicePort[]>>();
  #slicesByService: ReadonlyMap<string, ConvertedSlices> = new Map();

  build({ services, endpointSlices }: SourceObjects): Snapshot {
    if (this.#services?.list !== services) this.#services = this.#convertServices(services);
    const { servicePorts, problems } = this.#services;
    const converted = this.#convertSlices(endpointSlices);
    return {
      servicePorts,
      endpoints: new Map(converted.flatMap((group) => [...group.value])),
      problems: [...problems, ...converted.flatMap((group) => group.problems)],
    };
  }

  #convertServices(list: readonly V1Service[]): ConvertedServices {
    const servicePorts = new Map<ServicePortKey, ServicePort>();
    const problems: Problem[] = [];
    for (const service of list) {
      const checked = this.#checkedByService.get(service) ?? servicePortsFromService(service);
      this.#checkedByService.set(service, checked);
      problems.push(...checked.problems);
      for (const servicePort of checked.value) servicePorts.set(servicePort.key, servicePort);
    }
    return { list, servicePorts, problems };
  }

  #convertSlices(slices: readonly V1EndpointSlice[]): readonly Checked<EndpointsByServicePort>[] {
    const before = this.#slicesByService;
    const now = new Map<string, ConvertedSlices>();
    for (const [service, own] of Map.groupBy(slices, (slice) => serviceOfSlice(slice) ?? '')) {
      const kept = before.get(service);
      const isSame =
        kept?.slices.length === own.length && own.every((slice, index) => slice === kept.slices[index]);
      now.set(
        service,
        kept !== undefined && isSame ? kept : { slices: own, checked: endpointsFromSlices(own) },
      );
    }
    this.#slicesByService = now;
    return [...now.values()].map(({ checked }) => checked);
  }
}

interface ConvertedServices {
  readonly list: readonly V1Service[];
  readonly servicePorts: ReadonlyMap<ServicePortKey, ServicePort>;
  readonly problems: readonly Problem[];
}

interface ConvertedSlices {
  readonly slices: readonly V1EndpointSlice[];
  readonly checked: Checked<EndpointsByServicePort>;
}
