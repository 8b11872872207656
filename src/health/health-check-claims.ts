/**
 * Which Service answers on which address and port. The API server gives every health check node port to one Service
 * only, manifests may not: then the first by namespace and name has it. Pure.
 */
import { hostPortText } from '../model/address.ts';
import type { HealthCheck } from '../model/health-check.ts';

/** One socket that is wanted: a family's wildcard and single addresses never meet under one key. */
export interface HealthCheckClaim {
  readonly address: string;
  readonly check: HealthCheck;
}

export interface RefusedClaim extends HealthCheckClaim {
  /** Who has the address and port. */
  readonly holder: HealthCheck;
}

export interface HealthCheckClaims {
  /** By `address:port`. */
  readonly claimByPlace: ReadonlyMap<string, HealthCheckClaim>;
  readonly refused: readonly RefusedClaim[];
}

/** Every address of every check, each given to one Service. The order of `checks` makes no difference. */
export function claimHealthCheckPorts(checks: readonly HealthCheck[]): HealthCheckClaims {
  const claimByPlace = new Map<string, HealthCheckClaim>();
  const refused: RefusedClaim[] = [];
  for (const check of checks.toSorted(byNamespaceAndName)) {
    for (const address of new Set(check.addresses)) {
      const place = hostPortText(address, check.port);
      const holder = claimByPlace.get(place)?.check;
      if (holder === undefined) claimByPlace.set(place, { address, check });
      else refused.push({ address, check, holder });
    }
  }
  return { claimByPlace, refused };
}

function byNamespaceAndName(a: HealthCheck, b: HealthCheck): number {
  return compareText(a.namespace, b.namespace) || compareText(a.name, b.name);
}

function compareText(a: string, b: string): number {
  if (a === b) return 0;
  return a < b ? -1 : 1;
}
