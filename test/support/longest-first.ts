/**
 * The order of test files where no earlier run has left its durations, as on a clean clone: vitest goes by size then,
 * and the shortest files can be the longest runs. One that begins last keeps a single worker busy while the others have
 * nothing left to do.
 */
import { BaseSequencer, type TestSpecification } from 'vitest/node';

/** Ten seconds and more of the unit tests, thirty of the others: of each project these begin first. */
const LONGEST =
  /\/(?:contract\/.*|intent|intent-updates|rules-agree|change-under-load|random-edits|ownership|restart)\.test\.ts$/;

export class LongestFirst extends BaseSequencer {
  /** As vitest orders them by groups and projects; within a project the longest ones first. */
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const byProject = Map.groupBy(await super.sort(files), ({ project }) => project.name);
    return [...byProject.values()].flatMap((all) => [
      ...all.filter(({ moduleId }) => LONGEST.test(moduleId)),
      ...all.filter(({ moduleId }) => !LONGEST.test(moduleId)),
    ]);
  }
}
