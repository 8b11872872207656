/**
 * What becomes of a probe, in the same words whether the tracer says it or a real kernel, and where the two differ.
 */
import type { Trace } from './packet-tracer.ts';

/**
 * `sent on to` is the tracer's never, but a kernel's whose node does not have the address that a rule translates to.
 * `none`: left alone, whoever has its address.
 */
export type Outcome =
  | `delivered to proxy port ${number}`
  | `sent on to ${string}`
  | 'tcp-reset'
  | 'port-unreachable'
  | 'drop'
  | 'none';

export interface Fate {
  readonly outcome: Outcome;
  /** Where a rule took it; without an address, that is whichever the incoming interface has. */
  readonly deliveredTo: { readonly address: string | undefined; readonly port: number } | undefined;
  /** The rules of nat and filter that matched it, in order, as `nat -A CHAIN …`. */
  readonly path: readonly string[];
}

export function fateFromTrace({ verdict, deliveredTo, path }: Trace): Fate {
  return { outcome: outcomeFromTrace(verdict, deliveredTo), deliveredTo, path };
}

function outcomeFromTrace(verdict: Trace['verdict'], deliveredTo: Trace['deliveredTo']): Outcome {
  if (verdict !== 'none' && verdict !== 'accept') return verdict;
  return deliveredTo === undefined ? 'none' : `delivered to proxy port ${deliveredTo.port}`;
}

/** In words; undefined when the tracer says what the kernel does. */
export function differenceBetween(traced: Fate, kernel: Fate): string | undefined {
  if (traced.outcome !== kernel.outcome || !isSamePlace(traced.deliveredTo, kernel.deliveredTo)) {
    return `the tracer says ${describeFate(traced)}\nthe kernel says ${describeFate(kernel)}`;
  }
  const length = Math.max(traced.path.length, kernel.path.length);
  const at = Array.from({ length }, (_, index) => index).find(
    (index) => traced.path[index] !== kernel.path[index],
  );
  if (at === undefined) return undefined;
  return [
    `both say ${traced.outcome}, but as rule ${at + 1} of its path`,
    `the tracer has ${traced.path[at] ?? 'none'}`,
    `the kernel has ${kernel.path[at] ?? 'none'}`,
  ].join('\n');
}

/** What the tracer does not know is not compared. */
function isSamePlace(traced: Fate['deliveredTo'], kernel: Fate['deliveredTo']): boolean {
  return traced?.address === undefined || traced.address === kernel?.address;
}

function describeFate({ outcome, deliveredTo, path }: Fate): string {
  const where = deliveredTo?.address === undefined ? '' : ` at ${deliveredTo.address}`;
  return [`${outcome}${where}, by`, ...path.map((rule) => `  ${rule}`)].join('\n');
}
