/** A curve in one line of text. */
const LEVELS = '▁▂▃▄▅▆▇█';
const MAX_COLUMNS = 80;

/** Between its least and its greatest value, which stand after it; of more than 80 values some are left out. */
export function renderSparkline(values: readonly number[]): string {
  if (values.length === 0) return '';
  const least = Math.min(...values);
  const greatest = Math.max(...values);
  const step = Math.ceil(values.length / MAX_COLUMNS);
  const bars = values
    .filter((_, index) => index % step === 0)
    .map((value) => {
      const part = greatest === least ? 0 : (value - least) / (greatest - least);
      return LEVELS[Math.round(part * (LEVELS.length - 1))];
    });
  return `${bars.join('')}  ${shorten(least)} to ${shorten(greatest)}`;
}

function shorten(value: number): string {
  return Number.isInteger(value) ? String(value) : value.toFixed(1);
}
