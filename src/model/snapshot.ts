/**
 * Snapshot: everything the sources know at one moment, converted and checked. The one thing that crosses from
 * the sources into the rest of the pipeline. Pure.
 */
import type { V1EndpointSlice, V1Service } from '@kubernetes/client-node';
import type { Problem } from '../errors.ts';
import { type EndpointsByServicePort, endpointsFromSlices, serviceOfSlice } from './endpoint.ts';
import { namespacedNameText, objectText } from './object.ts';
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
  const servicePorts = new Map<ServicePortKey, ServicePort>();
  const problems: Problem[] = [];
  const services = new Set<string>();
  for (const service of objects.services) {
    services.add(
      namespacedNameText({
        namespace: service.metadata?.namespace ?? '',
        name: service.metadata?.name ?? '',
      }),
    );
    const checked = servicePortsFromService(service);
    problems.push(...checked.problems);
    for (const servicePort of checked.value) servicePorts.set(servicePort.key, servicePort);
  }
  const endpoints = endpointsFromSlices(objects.endpointSlices);
  problems.push(...endpoints.problems, ...orphanSlices(objects.endpointSlices, services));
  return { servicePorts, endpoints: endpoints.value, problems };
}

/** Slices whose Service does not exist: harmless, kept for when it appears, and worth a word. */
function orphanSlices(slices: readonly V1EndpointSlice[], services: ReadonlySet<string>): Problem[] {
  return slices.flatMap((slice) => {
    const service = serviceOfSlice(slice);
    if (service === undefined || services.has(service)) return [];
    return [
      {
        code: 'ERR_ENDPOINTSLICE_ORPHAN' as const,
        object: objectText('EndpointSlice', slice.metadata?.namespace ?? '', slice.metadata?.name ?? ''),
        field: 'metadata.labels[kubernetes.io/service-name]',
        message: `there is no Service ${service}`,
      },
    ];
  });
}
