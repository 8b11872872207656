/** Tells each problem once when it appears and once when it has gone, however often the state is recomputed. */
import { PROBLEM_CODES, type Problem, type ProblemCode, problemKey } from '../errors.ts';
import type { Logger } from '../log.ts';

export class ProblemLog {
  readonly #logger: Logger;
  #current: ReadonlyMap<string, Problem> = new Map();

  constructor(logger: Logger) {
    this.#logger = logger;
  }

  /** All problems there are now. */
  update(problems: readonly Problem[]): void {
    const next = new Map(problems.map((problem) => [problemKey(problem), problem]));
    for (const [key, problem] of next) {
      if (this.#current.has(key)) continue;
      const { code, object, field, message } = problem;
      this.#logger.warn({ code, object, field, problem: message }, 'Invalid object');
    }
    for (const [key, { code, object, field }] of this.#current) {
      if (!next.has(key)) this.#logger.info({ code, object, field }, 'Invalid object mended or gone');
    }
    this.#current = next;
  }

  countByCode(): Readonly<Record<ProblemCode, number>> {
    const counts = Object.fromEntries(PROBLEM_CODES.map((code) => [code, 0])) as Record<ProblemCode, number>;
    for (const { code } of this.#current.values()) counts[code] += 1;
    return counts;
  }
}
