/**
 * Three projects. `unit` needs nothing but Node: files run side by side. `netns` builds network namespaces and
 * loads real iptables rules, so it needs root, runs one file at a time, and only after `unit` has ended, so that
 * neither disturbs the other's deadlines (group 0 would not do: where one worker is all there is, vitest moves its
 * files to the end). `cluster` needs a real control plane on top (scripts/cluster-assets.sh). `.ci/run` counts from
 * the JSON report.
 */
import { defineConfig } from 'vitest/config';

const isLong = process.env['KUP_TEST_LONG'] === '1';

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
      {
        test: {
          name: 'netns',
          include: ['test/netns/**/*.test.ts'],
          fileParallelism: false,
          sequence: { groupOrder: 2 },
          testTimeout: isLong ? 900_000 : 30_000,
          hookTimeout: 60_000,
        },
      },
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
