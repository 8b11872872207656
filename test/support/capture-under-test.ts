/**
 * What the netns tests are run for: the way of capture and the kind of pod links, from the environment, so that one
 * suite runs for every pair of them. Unset or empty means the default; anything unknown is refused, so that a slip
 * of the pen does not run the wrong suite and pass.
 */
const CAPTURES = ['redirect', 'link-local'] as const;
const POD_LINKS = ['bridged', 'unnumbered'] as const;

/** The values of the proxy's flag `--capture`. */
export type Capture = (typeof CAPTURES)[number];

/** How the pods of a lab are joined to their node: through a bridge with addresses, or by a veth each without. */
export type PodLinks = (typeof POD_LINKS)[number];

/**
 * What KUP_TEST_CAPTURE says, which every proxy that `ProxyProcess` starts is told: `redirect` unless set. A test
 * that gives `--capture` itself gets what it gives.
 */
export function captureUnderTest(): Capture {
  return readChoice('KUP_TEST_CAPTURE', CAPTURES);
}

/** What KUP_TEST_POD_LINKS says, which `createLab` follows unless told otherwise: `bridged` unless set. */
export function podLinksUnderTest(): PodLinks {
  return readChoice('KUP_TEST_POD_LINKS', POD_LINKS);
}

/** `--capture` for a proxy started with `args`: nothing when the environment or `args` leave nothing to add. */
export function captureFlags(args: readonly string[]): readonly string[] {
  const isSet = (process.env['KUP_TEST_CAPTURE'] ?? '') !== '';
  const isGiven = args.some((arg) => /^--capture(?:=|$)/.test(arg));
  return isSet && !isGiven ? ['--capture', captureUnderTest()] : [];
}

/** What `variable` of the environment says; the first choice is the default. Throws when it is none of them. */
export function readChoice<const T extends string>(variable: string, choices: readonly [T, ...T[]]): T {
  const asked = process.env[variable] ?? '';
  if (asked === '') return choices[0];
  const choice = choices.find((each) => each === asked);
  if (choice === undefined)
    throw new Error(`${variable} must be one of ${choices.join(', ')}, not ${JSON.stringify(asked)}`);
  return choice;
}
