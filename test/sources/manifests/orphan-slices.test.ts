/** Slices whose Service is not there. */
import { describe, expect, test } from 'vitest';
import { orphanSlices } from '../../../src/sources/manifests/orphan-slices.ts';
import { makeService, makeSlice } from '../../support/objects.ts';

describe('a slice for a Service that does not exist', () => {
  test('is reported, and no other is', () => {
    const problems = orphanSlices({
      services: [makeService('web')],
      endpointSlices: [makeSlice('gone', ['10.244.1.9']), makeSlice('web', ['10.244.1.1'])],
    });
    expect(problems).toEqual([
      {
        code: 'ERR_ENDPOINTSLICE_ORPHAN',
        object: 'EndpointSlice default/gone-ipv4',
        field: 'metadata.labels[kubernetes.io/service-name]',
        message: 'there is no Service default/gone',
      },
    ]);
  });

  test.each([
    { name: 'headless', clusterIP: 'None' },
    { name: 'not to be served for a fault of its own', clusterIP: 'junk' },
  ])('is not meant where the Service is there but $name', ({ clusterIP }) => {
    const problems = orphanSlices({
      services: [makeService('web', ({ spec }) => void (spec.clusterIP = clusterIP))],
      endpointSlices: [makeSlice('web', ['10.244.1.1'])],
    });
    expect(problems).toEqual([]);
  });

  test('is not a Service of that name in another namespace', () => {
    const problems = orphanSlices({
      services: [
        makeService('web', ({ metadata }) => void Object.assign(metadata ?? {}, { namespace: 'other' })),
      ],
      endpointSlices: [makeSlice('web', ['10.244.1.1'])],
    });
    expect(problems).toMatchObject([{ code: 'ERR_ENDPOINTSLICE_ORPHAN' }]);
  });
});
