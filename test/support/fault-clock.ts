/**
 * For `node --import`: a wall clock that a signal makes jump, and everything else as it is. SIGUSR2 once: a year ahead;
 * twice: a year back from the truth; and so on, to and fro.
 */
const YEAR_MS = 365 * 24 * 3_600_000;

const RealDate = Date;
let offsetMs = 0;

process.on('SIGUSR2', () => {
  offsetMs = offsetMs > 0 ? -YEAR_MS : YEAR_MS;
});

class JumpingDate extends RealDate {
  constructor(...given: readonly unknown[]) {
    if (given.length === 0) super(RealDate.now() + offsetMs);
    else super(...(given as [number]));
  }

  static override now(): number {
    return RealDate.now() + offsetMs;
  }
}

globalThis.Date = JumpingDate as DateConstructor;
