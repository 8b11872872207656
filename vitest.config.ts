/**
 * Which tests there are, and what they are run for.
 *
 * - `unit` needs nothing but Node: all of `test/` that is not below.
 * - `netns`, `netns-link-local` and `netns-unnumbered` build network namespaces and load real iptables rules, so they
 *   need root. They run the tests of `test/netns/` for each way of capture (`--capture`) and each kind of pod links
 *   that goes with it. Some folders there are not for all of them:
 *
 *       project            capture      pod links     redirect/   link-local/   once/   all else
 *       netns              redirect     bridged       yes                       yes     yes
 *       netns-link-local   link-local   bridged                   yes                   yes
 *       netns-unnumbered   link-local   unnumbered                yes                   yes
 *
 *   The long files and `e2e/`, which `netns-unnumbered` has, are left out of `netns-link-local`, unless KUP_TEST_LONG is 1.
 *   `redirect/` and `link-local/` are about one way of capture. `once/` depends neither on capture nor on pod links,
 *   or sees to both by itself.
 *   `load/` are load runs of some seconds, in the project `netns` only: what they are about is not the way of capture.
 *   So are the tests of `faults/`, where backends, clients, the network and the machine itself fail.
 * - `cluster` needs a real control plane on top (scripts/cluster-assets.sh), and root.
 *
 * Groups run one after the other, so that none disturbs the deadlines of another (group 0 would not do: where one
 * worker is all there is, vitest moves its files to the end). `.ci/run` counts from the JSON report.
 */
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { defineConfig, type TestProjectInlineConfiguration } from 'vitest/config';
import type { Capture, PodLinks } from './test/support/capture-under-test.ts';

/** What a Node process compiles, another one finds here: the tests start hundreds of agents and proxies. */
const COMPILE_CACHE = { NODE_COMPILE_CACHE: join(import.meta.dirname, '.cache/node') };

const isLong = process.env['KUP_TEST_LONG'] === '1';

/** Not one less than there are processors, as vitest would have it: on two that is one. */
const UNIT_WORKERS = Math.max(2, availableParallelism());

/** Files of the three netns projects that run at the same time: they mostly wait. */
const NETNS_WORKERS = 4;

/** In test/netns, not for every project. */
const FOLDERS = ['redirect', 'link-local', 'once', 'load', 'faults'] as const;

interface NetnsProject {
  readonly name: string;
  /** Empty: what the proxy and the lab do without being told. */
  readonly capture: Capture | '';
  readonly podLinks: PodLinks | '';
  /** Left out of the short form: another project has them for the same capture. */
  readonly longOnly?: readonly string[];
  /** Of the folders that are not for all. */
  readonly folders: readonly (typeof FOLDERS)[number][];
}

function netnsProject({
  name,
  capture,
  podLinks,
  folders,
  longOnly = [],
}: NetnsProject): TestProjectInlineConfiguration {
  return {
    test: {
      name,
      include: ['test/netns/**/*.test.ts'],
      exclude: [
        ...FOLDERS.filter((folder) => !folders.includes(folder)).map((folder) => `test/netns/${folder}/**`),
        ...(isLong ? [] : longOnly),
      ],
      env: { KUP_TEST_CAPTURE: capture, KUP_TEST_POD_LINKS: podLinks, ...COMPILE_CACHE },
      // Labs know nothing of each other, and their tests mostly wait: for a deadline, a kernel, a process.
      maxWorkers: NETNS_WORKERS,
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
          maxWorkers: UNIT_WORKERS,
          sequence: { groupOrder: 1 },
        },
      },
      netnsProject({
        name: 'netns',
        capture: '',
        podLinks: '',
        folders: ['redirect', 'once', 'load', 'faults'],
      }),
      netnsProject({
        name: 'netns-link-local',
        capture: 'link-local',
        podLinks: 'bridged',
        folders: ['link-local'],
        longOnly: [
          'test/netns/e2e/**',
          'test/netns/edits/**',
          'test/netns/{affinity,change,change-under-load,ejection,hostile-client,retry,udp-session}.test.ts',
        ],
      }),
      netnsProject({
        name: 'netns-unnumbered',
        capture: 'link-local',
        podLinks: 'unnumbered',
        folders: ['link-local'],
      }),
      {
        test: {
          name: 'cluster',
          include: ['test/cluster/**/*.test.ts'],
          env: COMPILE_CACHE,
          // A control plane needs the machine for itself to be there in time.
          fileParallelism: false,
          sequence: { groupOrder: 3 },
          testTimeout: isLong ? 900_000 : 60_000,
          hookTimeout: 120_000,
        },
      },
    ],
  },
});
