/**
 * The rules of a proxy with the names of its listeners in the place of their ports, so that two proxies that took other
 * ports can be compared. Order is kept, but for what is in the order of the ports themselves:
 *
 * - the chains `G-…` and `S-…`, which guard the ports in blocks, become one chain `GUARD` in the order of the names, and
 *   the jumps to them one jump;
 * - a chain `E…`, whose name is made of two ports, is named by what it says;
 * - the canary says nothing of who wrote it, and when.
 */
import type { IpFamily } from '../../src/model/address.ts';
import { compareText } from '../../src/model/endpoint.ts';
import { CHAIN_PREFIX } from '../../src/iptables/rule.ts';

/** The name of a listener by its port; undefined where nobody listens. */
export type NameOfPort = (place: {
  readonly family: IpFamily;
  readonly protocol: 'tcp' | 'udp';
  readonly port: number;
}) => string | undefined;

export interface SavedTable {
  readonly family: IpFamily;
  /** As `iptables-save` prints one table or several. */
  readonly saved: string;
}

/** Ports in a guard chain. */
const BLOCK = 64;
const GUARD = new RegExp(` -A ${CHAIN_PREFIX}[GS]-`);
const GUARD_DECLARED = new RegExp(` :${CHAIN_PREFIX}[GS]-`);
const TO_GUARD = new RegExp(` -j ${CHAIN_PREFIX}([GS])-`);

/** Our chains in the order of their names, each with its rules, and the jumps into them: one line each. */
export function namedRules({ family, saved }: SavedTable, nameOfPort: NameOfPort): readonly string[] {
  const lines: string[] = [];
  let table = '';
  for (const line of saved.split('\n')) {
    if (line.startsWith('*')) table = line;
    else if (line.includes(CHAIN_PREFIX)) lines.push(`${table} ${line.replace(/ \[\d+:\d+\]$/, '')}`);
  }
  const named = lines.map((line) => withNames(line, family, nameOfPort));
  return withoutBlocks(withEntryChains(named));
}

function withNames(line: string, family: IpFamily, nameOfPort: NameOfPort): string {
  const protocol = / -p (tcp|udp) /.exec(line)?.[1] === 'udp' ? 'udp' : 'tcp';
  const name = (port: string): string => {
    const found = nameOfPort({ family, protocol, port: Number(port) });
    return found === undefined ? `<nobody on ${port}>` : `<${found}>`;
  };
  const diverted = line
    .replace(/"generation \d+, write \d+"/, '"generation, write"')
    .replace(/(--to-ports )(\d+)$/, (_, option: string, port: string) => `${option}${name(port)}`)
    .replace(/(--to-destination \S+:)(\d+)$/, (_, option: string, port: string) => `${option}${name(port)}`);
  if (!GUARD.test(line)) return diverted;
  checkBlock(line);
  return diverted.replace(
    /(--[ds]port )(\d+)/,
    (_, option: string, port: string) => `${option}${name(port)}`,
  );
}

/** A guard in the wrong chain guards nothing. */
function checkBlock(line: string): void {
  const [, first, port] = / -A \S+-[GS]-[TU](\d+) .*--[ds]port (\d+) /.exec(line) ?? [];
  const place = Number(port) - Number(first);
  if (!(place >= 0 && place < BLOCK)) throw new Error(`in the chain of other ports: ${line}`);
}

function withEntryChains(lines: readonly string[]): readonly string[] {
  const entry = new RegExp(`^(\\S+) -A (${CHAIN_PREFIX}E[0-9a-f]{11}) (.*)$`);
  const contents = new Map<string, string[]>();
  for (const line of lines) {
    const [, , chain = '', rule = ''] = entry.exec(line) ?? [];
    if (chain !== '') contents.set(chain, [...(contents.get(chain) ?? []), rule]);
  }
  const nameOf = (chain: string): string => `${CHAIN_PREFIX}E{${(contents.get(chain) ?? []).join('; ')}}`;
  const renamed = lines.map((line) =>
    line.replaceAll(new RegExp(`${CHAIN_PREFIX}E[0-9a-f]{11}`, 'g'), (chain) => nameOf(chain)),
  );
  const isOfEntry = (line: string): boolean => / (?:-A |:)USERSPACE-PROXY-E\{/.test(line);
  // A chain's rules stand together and in order; the order of the chains was that of their former names.
  return [...renamed.filter((line) => !isOfEntry(line)), ...renamed.filter(isOfEntry).toSorted()];
}

function withoutBlocks(lines: readonly string[]): readonly string[] {
  const guards: string[] = [];
  const rest: string[] = [];
  for (const line of lines) {
    if (GUARD_DECLARED.test(line)) continue;
    const [, guard] = TO_GUARD.exec(line) ?? [];
    if (GUARD.test(line)) guards.push(line.replace(/([GS])-[TU]\d+/, '$1-GUARD'));
    else if (guard !== undefined) rest.push(`a jump to ${guard}-GUARD`);
    else rest.push(line);
  }
  const isRepeated = (line: string, index: number): boolean =>
    line.startsWith('a jump to ') && rest[index - 1] === line;
  return [
    ...rest.filter((line, index) => !isRepeated(line, index)),
    ...guards.toSorted((a, b) => compareText(guarded(a), guarded(b))),
  ];
}

/** What a guard is for: the rules of one port stay in their order. */
function guarded(rule: string): string {
  return /-p (?:tcp|udp) /.exec(rule)?.[0] + (/--[ds]port <[^>]*>/.exec(rule)?.[0] ?? '');
}
