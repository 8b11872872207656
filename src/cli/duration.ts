/**
 * Durations in Go's syntax (`time.ParseDuration`, `Duration.String`), because kube-proxy's flags and its
 * KubeProxyConfiguration are written in it. In memory a duration is a number of milliseconds. Pure.
 */

const NANOSECONDS_PER_UNIT: Readonly<Record<string, number>> = {
  ns: 1,
  us: 1e3,
  '\u00b5s': 1e3, // micro sign
  '\u03bcs': 1e3, // Greek mu: Go takes both
  ms: 1e6,
  s: 1e9,
  m: 60e9,
  h: 3600e9,
};

/**
 * Milliseconds of a Go duration (`250ms`, `1h2m3.5s`, `-1s`, `0`), or undefined when the text is none: a unit is
 * required on everything but 0. Exact to the nanosecond up to 104 days; more than 290 years (Go's int64) is none.
 */
export function parseDurationMs(text: string): number | undefined {
  const whole = /^([-+]?)((?:(?:\d+\.?\d*|\.\d+)(?:ns|us|\u00b5s|\u03bcs|ms|s|m|h))+|0)$/.exec(text);
  if (whole === null) return undefined;
  const [, sign = '', terms = ''] = whole;
  let nanoseconds = 0;
  for (const [, amount = '', unit = ''] of terms.matchAll(/([\d.]+)([a-z\u00b5\u03bc]+)/g)) {
    nanoseconds += Math.round(Number(amount) * (NANOSECONDS_PER_UNIT[unit] ?? 0));
  }
  if (nanoseconds >= 2 ** 63) return undefined;
  return nanoseconds === 0 ? 0 : (sign === '-' ? -nanoseconds : nanoseconds) / 1e6;
}

/** The text Go prints: `2m0s`, `1h0m0s`, `250ms`, `1.5s`, `0s`. Exact to the nanosecond up to 104 days. */
export function renderDuration(milliseconds: number): string {
  if (milliseconds < 0) return `-${renderDuration(-milliseconds)}`;
  const nanoseconds = Math.round(milliseconds * 1e6);
  if (nanoseconds === 0) return '0s';
  if (nanoseconds < 1e3) return `${nanoseconds}ns`;
  if (nanoseconds < 1e6) return `${decimalText(nanoseconds, 3)}\u00b5s`;
  if (nanoseconds < 1e9) return `${decimalText(nanoseconds, 6)}ms`;
  const hours = Math.floor(nanoseconds / 3600e9);
  const minutes = Math.floor((nanoseconds % 3600e9) / 60e9);
  const seconds = `${decimalText(nanoseconds % 60e9, 9)}s`;
  if (hours > 0) return `${hours}h${minutes}m${seconds}`;
  return minutes > 0 ? `${minutes}m${seconds}` : seconds;
}

/** `value / 10^places` without trailing zeros, by text: division would round. */
function decimalText(value: number, places: number): string {
  const digits = String(value).padStart(places + 1, '0');
  const fraction = digits.slice(-places).replace(/0+$/, '');
  const integer = digits.slice(0, -places);
  return fraction === '' ? integer : `${integer}.${fraction}`;
}
