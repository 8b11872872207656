/** A ManifestsSource on a real temporary directory, with what it reported. */
import { mkdtemp, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { onTestFinished } from 'vitest';
import { systemClock } from '../../../src/clock.ts';
import type { Problem } from '../../../src/errors.ts';
import type { LogFields, Logger } from '../../../src/log.ts';
import type { NodeInfo } from '../../../src/model/node.ts';
import type { SourceObjects } from '../../../src/model/snapshot.ts';
import {
  ManifestsSource,
  type ManifestsSourceDeps,
  type ManifestsSourceOptions,
} from '../../../src/sources/manifests/manifests-source.ts';
import { waitFor } from '../../support/wait.ts';

export interface Change {
  readonly objects: SourceObjects;
  readonly problems: readonly Problem[];
  /** False while no path has ever been readable. */
  readonly isKnown: boolean;
}

export interface LogLine {
  readonly level: string;
  readonly fields: LogFields;
  readonly message: string;
}

export async function makeDirectory(): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'kup-manifests-'));
  onTestFinished(() => rm(directory, { recursive: true, force: true }));
  return directory;
}

/** As editors and kubectl-like tools do it. */
export async function replaceFile(path: string, text: string): Promise<void> {
  const fresh = `${path}.tmp`;
  await writeFile(fresh, text);
  await rename(fresh, path);
}

/** Stands for what is not known yet. */
const NOTHING: SourceObjects = { services: [], endpointSlices: [] };

/** The own Node is `n1` unless told. */
export type HarnessOptions = Omit<ManifestsSourceOptions, 'nodeName'> &
  Partial<Pick<ManifestsSourceOptions, 'nodeName'>>;

export class Harness {
  readonly changes: Change[] = [];
  /** What was told of the own Node, and after how many changes. */
  readonly nodes: { readonly node: NodeInfo | undefined; readonly changesBefore: number }[] = [];
  readonly log: LogLine[] = [];
  readonly source: ManifestsSource;

  constructor(options: HarnessOptions, deps: Partial<ManifestsSourceDeps> = {}) {
    this.source = new ManifestsSource(
      {
        clock: systemClock,
        logger: listLogger(this.log),
        onChange: (objects = NOTHING, problems) =>
          this.changes.push({ objects, problems, isKnown: objects !== NOTHING }),
        onNodeChange: (node) => this.nodes.push({ node, changesBefore: this.changes.length }),
        ...deps,
      },
      { nodeName: 'n1', ...options },
    );
    onTestFinished(() => this.source.close());
  }

  get last(): Change | undefined {
    return this.changes.at(-1);
  }

  /** `name=clusterIP` of every Service in force. */
  get services(): string[] {
    return (this.last?.objects.services ?? []).map(
      ({ metadata, spec }) => `${metadata?.name}=${spec?.clusterIP}`,
    );
  }

  get problems(): string[] {
    return (this.last?.problems ?? []).map(({ code, message }) => `${code} ${message}`);
  }

  /** The bound of every wait. An edit takes 0.1 s told by inotify, 0.6 s found by the poll. */
  boundMs = 3_000;

  /** Waits until the Services are these. */
  async toHaveServices(...expected: string[]): Promise<void> {
    await waitFor(() => JSON.stringify(this.services) === JSON.stringify(expected), {
      timeoutMs: this.boundMs,
      what: `the Services to be ${expected.join(' ')}`,
    });
  }

  async toHaveProblem(part: string): Promise<void> {
    await waitFor(() => this.problems.some((problem) => problem.includes(part)), {
      timeoutMs: this.boundMs,
      what: `a problem with ${part}`,
    });
  }

  async toHaveNoProblem(): Promise<void> {
    await waitFor(() => this.problems.length === 0, { timeoutMs: this.boundMs, what: 'the problems to go' });
  }
}

export async function started(
  options: HarnessOptions,
  deps?: Partial<ManifestsSourceDeps>,
): Promise<Harness> {
  const harness = new Harness(options, deps);
  await harness.source.start();
  return harness;
}

function listLogger(log: LogLine[]): Logger {
  const at =
    (level: string) =>
    (fields: LogFields, message: string): void => {
      log.push({ level, fields, message });
    };
  return {
    error: at('error'),
    warn: at('warn'),
    info: at('info'),
    debug: at('debug'),
    trace: at('trace'),
    isLevelEnabled: () => true,
  };
}
