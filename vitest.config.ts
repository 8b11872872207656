/**
 * Which tests there are, and what they are run for.
 *
 * - `unit` needs nothing but Node: all of `test/` that is not below.
 * - `netns`, `netns-link-local` and `netns-unnumbered` build network namespaces and load real iptables rules, so they
 *   need root. They run the same tests for each way of capture (`--capture`) and each kind of pod links that goes with
 *   it, and some of their own:
 *
 *       project            capture      pod links     test/netns/*, e2e/   redirect/   link-local/   once/
 *       netns              redirect     bridged       yes                  yes                       yes
 *       netns-link-local   link-local   bridged       yes                              yes
 *       netns-unnumbered   link-local   unnumbered    yes                              yes
 *
 *   `redirect/` and `link-local/` are about one way of capture only. `once/` depends neither on capture nor on pod
 *   links, or takes care of both by itself.
 * - `cluster` needs a real control plane on top (scripts/cluster-assets.sh), and root.
 *
 * The groups run one after the other, so that none disturbs the deadlines of another (group 0 would not do: where one
 * worker is all there is, vitest moves its files to the end). `.ci/run` counts from the JSON report.
 */
import { defineConfig, type TestProjectInlineConfiguration } from 'vitest/config';
import type { Capture, PodLinks } from './test/support/capture-under-test.ts';

const isLong = process.env['KUP_TEST_LONG'] === '1';

interface NetnsProject {
  readonly name: string;
  /** Empty: what the proxy and the lab do without being told. */
  readonly capture: Capture | '';
  readonly podLinks: PodLinks | '';
  /** Folders in test/netns. */
  readonly own: readonly string[];
}

function netnsProject({ name, capture, podLinks, own }: NetnsProject): TestProjectInlineConfiguration {
  return {
    test: {
      name,
      include: ['*', 'e2e/**/*', ...own.map((folder) => `${folder}/**/*`)].map(
        (files) => `test/netns/${files}.test.ts`,
      ),
      env: { KUP_TEST_CAPTURE: capture, KUP_TEST_POD_LINKS: podLinks },
      fileParallelism: false,
      sequence: { groupOrder: 2 },
      testTimeout: isLong ? 900_000 : 30_000,
      hookTimeout: 60_000,
    },
  };
}

export default defineConfig({
  test: {
    reporters: ['default', ['json', { outputFile: '.cache/vitest.json' }]],
    projects: [
      {
        test: {
          name: 'unit',
          include: ['test/**/*.test.ts'],
          exclude: ['test/netns/**', 'test/cluster/**'],
          sequence: { groupOrder: 1 },
        },
      },
      netnsProject({ name: 'netns', capture: '', podLinks: '', own: ['redirect', 'once'] }),
      netnsProject({
        name: 'netns-link-local',
        capture: 'link-local',
        podLinks: 'bridged',
        own: ['link-local'],
      }),
      netnsProject({
        name: 'netns-unnumbered',
        capture: 'link-local',
        podLinks: 'unnumbered',
        own: ['link-local'],
      }),
      {
        test: {
          name: 'cluster',
          include: ['test/cluster/**/*.test.ts'],
          fileParallelism: false,
          sequence: { groupOrder: 3 },
          testTimeout: isLong ? 900_000 : 60_000,
          hookTimeout: 120_000,
        },
      },
    ],
  },
});
