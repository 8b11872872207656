/**
 * Which engine the netns tests are run for, from the environment, so that one suite runs on both. Unset or empty: what
 * the proxy takes by itself, which is the native one where it was built.
 */
import { readChoice } from './capture-under-test.ts';

const ENGINES = ['auto', 'native', 'node'] as const;

/** The values of the proxy's flag `--engine`. */
export type EngineUnderTest = (typeof ENGINES)[number];

/** What KUP_TEST_ENGINE says, which every proxy that `ProxyProcess` starts is told: `auto` unless set. */
export function engineUnderTest(): EngineUnderTest {
  return readChoice('KUP_TEST_ENGINE', ENGINES);
}

/** `--engine` for a proxy started with `args`: nothing when the environment or `args` leave nothing to add. */
export function engineFlags(args: readonly string[]): readonly string[] {
  const isSet = (process.env['KUP_TEST_ENGINE'] ?? '') !== '';
  const isGiven = args.some((arg) => /^--engine(?:=|$)/.test(arg));
  return isSet && !isGiven ? ['--engine', engineUnderTest()] : [];
}
