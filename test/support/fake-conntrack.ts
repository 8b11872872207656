/**
 * The `conntrack` program over a table in memory: dumps and deletions of UDP and unanswered TCP flows. Fails closed: what
 * nobody foresaw throws.
 */
import type { ExecEachLine } from '../../src/host/exec.ts';
import type { Flow } from '../../src/conntrack/flow.ts';
import { renderFlow } from './moved-portals.ts';

export interface ConntrackAnswer {
  readonly exitCode: number;
  readonly stderr?: string;
}

/** By the arguments that select a class of flows. */
type FlowsByClass = Record<string, Flow[]>;

const FIELD_BY_OPTION: Readonly<Record<string, keyof Flow>> = {
  '--orig-src': 'source',
  '--orig-port-src': 'sourcePort',
  '--orig-dst': 'destination',
  '--orig-port-dst': 'destinationPort',
  '--reply-src': 'replySource',
  '--reply-port-src': 'replySourcePort',
};

export const UDP4 = '-f ipv4 -p udp';
export const UDP6 = '-f ipv6 -p udp';
export const TCP4 = '-f ipv4 -p tcp --state SYN_SENT';

export class FakeConntrack {
  readonly flows: FlowsByClass = {};
  /** Every program that was started: `-L -f ipv4 -p udp`, and for those with an input its lines. */
  readonly calls: string[] = [];
  /** What the next programs do instead of their work, one each; undefined: they work. */
  readonly faults: (ConntrackAnswer | Error | undefined)[] = [];
  /** Awaited by every program; a test may hold one up here. */
  gate: () => Promise<void> = async () => {};
  hasLoadFile = true;
  /** False: every flow that is deleted is there again at once. */
  isForgetful = true;

  readonly exec: ExecEachLine = async (command, args, { onLine, input = '', signal }) => {
    if (command !== 'conntrack') throw new Error(`nobody expected \`${command}\``);
    const line = args.join(' ');
    this.calls.push(input === '' ? line : `${line} ${input.trimEnd().replaceAll('\n', '; ')}`);
    await this.gate();
    signal.throwIfAborted();
    const fault = this.faults.shift();
    if (fault instanceof Error) throw fault;
    if (fault !== undefined) return { stderr: '', ...fault };
    if (line === '--load-file -') return this.#load(input, onLine);
    return this.#do(line, onLine);
  };

  #load(input: string, onLine: (line: string) => void): Required<ConntrackAnswer> {
    if (!this.hasLoadFile) return { exitCode: 2, stderr: 'conntrack: unrecognized option' };
    for (const line of input.trimEnd().split('\n')) this.#do(line, onLine);
    return { exitCode: 0, stderr: '' };
  }

  #do(line: string, onLine: (line: string) => void): Required<ConntrackAnswer> {
    const [, verb, flowClass = '', selection = ''] =
      /^-([LD]) (-f ipv[46] -p (?:udp|tcp --state SYN_SENT))(.*)$/.exec(line) ?? [];
    if (verb === undefined) throw new Error(`nobody expected \`conntrack ${line}\``);
    const flows = (this.flows[flowClass] ??= []);
    const matches = matcherOf(selection);
    for (const flow of flows.filter(matches)) onLine(renderFlow(flow));
    if (verb === 'L') return { exitCode: 0, stderr: '' };
    const kept = flows.filter((flow) => !matches(flow));
    if (this.isForgetful) this.flows[flowClass] = kept;
    const count = flows.length - kept.length;
    return { exitCode: count === 0 ? 1 : 0, stderr: `${count} flow entries have been deleted.\n` };
  }
}

function matcherOf(selection: string): (flow: Flow) => boolean {
  const words = selection.trim() === '' ? [] : selection.trim().split(' ');
  const wanted = new Map<keyof Flow, string>();
  for (let at = 0; at < words.length; at += 2) {
    const field = FIELD_BY_OPTION[words[at] ?? ''];
    if (field === undefined) throw new Error(`nobody expected the option ${words[at]}`);
    wanted.set(field, words[at + 1] ?? '');
  }
  return (flow) => [...wanted].every(([field, value]) => String(flow[field]) === value);
}
