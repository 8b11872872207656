/** What the load runs have in common as commands: options, the ways to stop them, and an exit code that is a verdict. */
import { inspect, parseArgs } from 'node:util';
import { canMakeNamespaces } from '../../test/support/netns-lab.ts';
import { describeMachine, renderMachine } from './machine.ts';

/** What a run was to show, and whether it did. */
export interface Criterion {
  readonly text: string;
  readonly isMet: boolean;
}

export interface BenchOutcome {
  /** Everything, for `--json`. */
  readonly figures: object;
  readonly lines: readonly string[];
  readonly criteria: readonly Criterion[];
}

export interface BenchCommand<Name extends string> {
  readonly name: string;
  /** Options that are numbers from 0 up, with their defaults. */
  readonly numbers: Readonly<Record<Name, number>>;
  /** Leaves nothing, whatever happens. */
  readonly run: (context: BenchContext<Name>) => Promise<BenchOutcome>;
}

export interface BenchContext<Name extends string> {
  readonly options: Readonly<Record<Name, number>>;
  /** Of `--proxy-arg`, in their order. */
  readonly proxyArgs: readonly string[];
  /** Aborted when the run is to end at once. */
  readonly signal: AbortSignal;
  /** Progress, to standard error. */
  readonly say: (what: string) => void;
}

/** Runs it as the program's only task, and sets the exit code: 1 where a criterion is not met, 2 for a wrong option. */
export async function runBenchCommand<Name extends string>(command: BenchCommand<Name>): Promise<void> {
  const { name } = command;
  try {
    process.exitCode = await execute(command);
  } catch (error: unknown) {
    process.stderr.write(`${name}: ${inspect(error)}\n`);
    process.exitCode = 1;
  }
}

async function execute<Name extends string>({ name, numbers, run }: BenchCommand<Name>): Promise<number> {
  const read = readOptions(numbers);
  if (typeof read === 'string') {
    const known = Object.entries<number>(numbers).map(([option, value]) => ` [--${option} ${value}]`);
    process.stderr.write(
      `${name}: ${read}\nnode bench/${name}.ts [--json] [--proxy-arg FLAG]…${known.join('')}\n`,
    );
    return 2;
  }
  const obstacle = canMakeNamespaces();
  if (obstacle !== undefined) throw new Error(`cannot run here: ${obstacle}`);
  const stop = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.once(signal, () => stop.abort(new Error(`stopped by ${signal}`)));
  }
  const { options, proxyArgs, isJson } = read;
  const machine = describeMachine();
  const say = (what: string): void => void process.stderr.write(`${name}: ${what}\n`);
  const { figures, lines, criteria } = await run({ options, proxyArgs, signal: stop.signal, say });
  const verdicts = criteria.map(({ text, isMet }) => `  ${text}: ${isMet ? 'met' : 'MISSED'}`);
  const given = [
    ...Object.entries<number>(options).map(([option, value]) => `${option} ${value}`),
    ...proxyArgs,
  ];
  const text = [renderMachine(machine), given.join(', '), '', ...lines, 'criteria', ...verdicts, ''].join(
    '\n',
  );
  const json = { machine, options, proxyArgs, ...figures, criteria };
  process.stdout.write(isJson ? `${JSON.stringify(json, undefined, 2)}\n` : text);
  return criteria.every(({ isMet }) => isMet) ? 0 : 1;
}

/** What is wrong with the command line, when it is text. */
function readOptions<Name extends string>(
  numbers: Readonly<Record<Name, number>>,
):
  | {
      readonly options: Readonly<Record<Name, number>>;
      readonly proxyArgs: readonly string[];
      readonly isJson: boolean;
    }
  | string {
  try {
    const { values } = parseArgs({
      options: {
        json: { type: 'boolean', default: false },
        'proxy-arg': { type: 'string', multiple: true, default: [] },
        ...Object.fromEntries(Object.keys(numbers).map((name) => [name, { type: 'string' } as const])),
      },
    });
    const given = values as Readonly<Record<string, unknown>>;
    const options = Object.entries<number>(numbers).map(([name, value]): [string, number] => [
      name,
      Number(given[name] ?? value),
    ]);
    const wrong = options.find(([, value]) => !(value >= 0 && Number.isFinite(value)));
    if (wrong !== undefined) return `--${wrong[0]} is to be a number, 0 or more`;
    return {
      options: Object.fromEntries(options) as Record<Name, number>,
      proxyArgs: values['proxy-arg'],
      isJson: values.json,
    };
  } catch (error: unknown) {
    return error instanceof Error ? error.message : String(error);
  }
}
