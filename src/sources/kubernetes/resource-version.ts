/** What can be told of resource versions by themselves. Pure. */

/** Of two versions that are numbers (KEP-5504); others cannot be compared and are taken as they come. */
export function isOlder(version: string, than: string | undefined): boolean {
  if (than === undefined || !/^\d+$/.test(version) || !/^\d+$/.test(than)) return false;
  return BigInt(version) < BigInt(than);
}
