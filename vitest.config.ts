/**
 * Which tests there are, and what they are run for.
 *
 * - `unit` needs nothing but Node: all of `test/` that is not below. `contract/` is in it, for both engines.
 * - `netns` and what begins so build network namespaces and load real iptables rules, so they need root. They run the
 *   tests of `test/netns/` for each way of capture (`--capture`), each kind of pod links that goes with it, and each
 *   engine (`--engine`). Some folders there are not for all of them:
 *
 *       project            capture      pod links     engine   redirect/   link-local/   once/   load/, faults/   all else
 *       netns              redirect     bridged       native   yes                       yes     yes              yes
 *       netns-node         redirect     bridged       node     long                      some    yes              long
 *       netns-link-local   link-local   bridged       native               yes                                    short
 *       netns-unnumbered   link-local   unnumbered    node                 yes                                    yes
 *
 *   So every test that carries traffic is run on both engines, and every one that depends on the way of capture for
 *   both. What `netns-node` has of `once/` is what connections must outlive. The long files and `e2e/`, which
 *   `netns-unnumbered` has, are left out of `netns-link-local` (short). With KUP_TEST_LONG=1 nothing is left out, and
 *   the two missing pairs of links and engine are there too: `netns-link-local-node` and `netns-unnumbered-native`.
 *   `redirect/` and `link-local/` are about one way of capture. `once/` depends neither on capture nor on pod links,
 *   or sees to both by itself. `load/` are load runs of some seconds; in `faults/` backends, clients, the network and
 *   the machine itself fail: what both are about is not the way of capture.
 * - `cluster` needs a real control plane on top (scripts/cluster-assets.sh), and root. Its proxies choose their engine.
 *
 * Groups run one after the other, so that none disturbs the deadlines of another (group 0 would not do: where one
 * worker is all there is, vitest moves its files to the end). `.ci/run` counts from the JSON report.
 */
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { defineConfig, type TestProjectInlineConfiguration } from 'vitest/config';
import type { Capture, PodLinks } from './test/support/capture-under-test.ts';
import type { EngineUnderTest } from './test/support/engine-under-test.ts';
import { LongestFirst } from './test/support/longest-first.ts';

/** What a Node process compiles, another one finds here: the tests start hundreds of agents and proxies. */
const COMPILE_CACHE = { NODE_COMPILE_CACHE: join(import.meta.dirname, '.cache/node') };

const isLong = process.env['KUP_TEST_LONG'] === '1';

/** One more than there are processors: some files wait for time-outs, and vitest would take one less. */
const UNIT_WORKERS = availableParallelism() + 1;

/** Files of the netns projects that run at the same time: while one waits another has the processor. */
const NETNS_WORKERS = 4;

/** Control planes at a time. */
const CLUSTER_WORKERS = 2;

/** In test/netns, not for every project. */
const FOLDERS = ['redirect', 'link-local', 'once', 'load', 'faults'] as const;

interface NetnsProject {
  readonly name: string;
  /** Empty: what the proxy and the lab do without being told. */
  readonly capture: Capture | '';
  readonly podLinks: PodLinks | '';
  readonly engine: EngineUnderTest;
  /** All that the short form has; absent: everything. */
  readonly shortOnly?: readonly string[];
  /** Left out of the short form: another project has them for the same capture. */
  readonly longOnly?: readonly string[];
  /** Of the folders that are not for all. */
  readonly folders: readonly (typeof FOLDERS)[number][];
}

function netnsProject({
  name,
  capture,
  podLinks,
  engine,
  folders,
  shortOnly,
  longOnly = [],
}: NetnsProject): TestProjectInlineConfiguration {
  return {
    test: {
      name,
      include: [...((isLong ? undefined : shortOnly) ?? ['test/netns/**/*.test.ts'])],
      exclude: [
        ...FOLDERS.filter((folder) => !folders.includes(folder)).map((folder) => `test/netns/${folder}/**`),
        ...(isLong ? [] : longOnly),
      ],
      env: {
        KUP_TEST_CAPTURE: capture,
        KUP_TEST_POD_LINKS: podLinks,
        KUP_TEST_ENGINE: engine,
        ...COMPILE_CACHE,
      },
      // Labs know nothing of each other.
      maxWorkers: NETNS_WORKERS,
      sequence: { groupOrder: 2 },
      testTimeout: isLong ? 900_000 : 30_000,
      hookTimeout: 60_000,
    },
  };
}

const NETNS_PROJECTS: readonly NetnsProject[] = [
  {
    name: 'netns',
    capture: '',
    podLinks: '',
    engine: 'native',
    folders: ['redirect', 'once', 'load', 'faults'],
  },
  {
    name: 'netns-node',
    capture: '',
    podLinks: '',
    engine: 'node',
    folders: ['redirect', 'once', 'load', 'faults'],
    shortOnly: [
      'test/netns/{load,faults}/**/*.test.ts',
      'test/netns/once/{affinity-restart,capture-switch,lifecycle,ownership,restart}.test.ts',
    ],
  },
  {
    name: 'netns-link-local',
    capture: 'link-local',
    podLinks: 'bridged',
    engine: 'native',
    folders: ['link-local'],
    longOnly: [
      'test/netns/e2e/**',
      'test/netns/edits/**',
      'test/netns/{affinity,change,change-under-load,ejection,hostile-client,retry,udp-session}.test.ts',
    ],
  },
  {
    name: 'netns-unnumbered',
    capture: 'link-local',
    podLinks: 'unnumbered',
    engine: 'node',
    folders: ['link-local'],
  },
];

const LONG_NETNS_PROJECTS: readonly NetnsProject[] = [
  {
    name: 'netns-link-local-node',
    capture: 'link-local',
    podLinks: 'bridged',
    engine: 'node',
    folders: ['link-local'],
  },
  {
    name: 'netns-unnumbered-native',
    capture: 'link-local',
    podLinks: 'unnumbered',
    engine: 'native',
    folders: ['link-local'],
  },
];

export default defineConfig({
  test: {
    reporters: ['default', ['json', { outputFile: '.cache/vitest.json' }]],
    sequence: { sequencer: LongestFirst },
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
      ...[...NETNS_PROJECTS, ...(isLong ? LONG_NETNS_PROJECTS : [])].map(netnsProject),
      {
        test: {
          name: 'cluster',
          include: ['test/cluster/**/*.test.ts'],
          env: COMPILE_CACHE,
          // More control planes than that are late on two processors.
          maxWorkers: CLUSTER_WORKERS,
          sequence: { groupOrder: 3 },
          testTimeout: isLong ? 900_000 : 60_000,
          hookTimeout: 120_000,
        },
      },
    ],
  },
});
