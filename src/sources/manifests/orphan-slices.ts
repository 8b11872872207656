/**
 * Slices whose Service does not exist. In files that is mostly a typing error; from an API server it would be the
 * moment between two writes of a controller. Pure.
 */
import type { Problem } from '../../errors.ts';
import { SERVICE_NAME_LABEL, serviceOfSlice } from '../../model/endpoint.ts';
import { namespacedNameText, objectText, shortName } from '../../model/object.ts';
import type { SourceObjects } from '../../model/snapshot.ts';

/** Harmless, and kept for when the Service appears; worth a word. */
export function orphanSlices({ services, endpointSlices }: SourceObjects): readonly Problem[] {
  const names = new Set(
    services.map(({ metadata }) =>
      namespacedNameText({ namespace: metadata?.namespace ?? '', name: metadata?.name ?? '' }),
    ),
  );
  return endpointSlices.flatMap((slice) => {
    const service = serviceOfSlice(slice);
    if (service === undefined || names.has(service)) return [];
    return [
      {
        code: 'ERR_ENDPOINTSLICE_ORPHAN' as const,
        object: objectText('EndpointSlice', slice.metadata?.namespace ?? '', slice.metadata?.name ?? ''),
        field: `metadata.labels[${SERVICE_NAME_LABEL}]`,
        message: `there is no Service ${shortName(service)}`,
      },
    ];
  });
}
