/** A store of Services, and Services to put into it. */
import type { V1Service } from '@kubernetes/client-node';
import { ObjectStore } from '../../../src/sources/kubernetes/object-store.ts';
import { serviceResource } from '../../../src/sources/kubernetes/resource.ts';
import { makeService } from '../../support/objects.ts';

export function services(): ObjectStore<V1Service> {
  return new ObjectStore(serviceResource(''));
}

export function service(name: string, clusterIP = '10.96.0.1'): V1Service {
  return makeService(name, ({ spec }) => {
    spec.clusterIP = clusterIP;
  });
}

/** Its ports are no list. */
export function broken(name: string): object {
  return { metadata: { namespace: 'default', name }, spec: { clusterIP: '10.96.0.1', ports: 'none' } };
}

export const named = (name: string): object => ({ metadata: { namespace: 'default', name } });
