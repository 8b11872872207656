/** The strict parser is itself checked: a parser that lets everything pass would prove nothing about our metrics. */
import { expect, test } from 'vitest';
import { parsePrometheusText, sampleValue } from '../support/prometheus-text.ts';

test('a well-formed text gives families, escaped labels and values', () => {
  const text = String.raw`# HELP a_total what
# TYPE a_total counter
a_total{x="q\"b\\n\n",y=""} 1.5e-7

# HELP h what
# TYPE h histogram
h_bucket{le="0.5"} 1
h_bucket{le="+Inf"} 3
h_sum 9
h_count 3
`;
  const families = parsePrometheusText(text);

  expect(sampleValue(families, 'a_total', { y: '', x: 'q"b\\n\n' })).toBe(1.5e-7);
  expect(sampleValue(families, 'h_bucket', { le: '+Inf' })).toBe(3);
  expect(sampleValue(families, 'h_count')).toBe(3);
  expect(sampleValue(families, 'h_count', { le: '1' })).toBeUndefined();
});

const HEAD = '# HELP a what\n# TYPE a gauge\n';
const HISTOGRAM = '# HELP h what\n# TYPE h histogram\n';

test.each([
  { name: 'no newline at the end', text: `${HEAD}a 1` },
  { name: 'a sample without TYPE', text: 'a 1\n' },
  { name: 'a sample of another family', text: `${HEAD}b 1\n` },
  { name: 'TYPE without HELP', text: '# TYPE a gauge\n' },
  { name: 'a family twice', text: `${HEAD}${HEAD}` },
  { name: 'a series twice', text: `${HEAD}a{x="1",y="2"} 1\na{y="2",x="1"} 1\n` },
  { name: 'an unknown type', text: '# HELP a what\n# TYPE a summary\n' },
  { name: 'a value that is no number', text: `${HEAD}a one\n` },
  { name: "prom-client's Nan", text: `${HEAD}a Nan\n` },
  { name: 'a label without quotes', text: `${HEAD}a{x=1} 1\n` },
  { name: 'an unknown escape', text: `${HEAD}a{x="\\t"} 1\n` },
  { name: 'empty braces', text: `${HEAD}a{} 1\n` },
  { name: 'a comma after the last label', text: `${HEAD}a{x="1",} 1\n` },
  { name: 'a counter without _total', text: '# HELP a what\n# TYPE a counter\na 1\n' },
  { name: 'a negative counter', text: '# HELP a_total what\n# TYPE a_total counter\na_total -1\n' },
  { name: 'a histogram without +Inf', text: `${HISTOGRAM}h_bucket{le="1"} 1\nh_sum 1\nh_count 1\n` },
  {
    name: 'buckets that are not cumulative',
    text: `${HISTOGRAM}h_bucket{le="1"} 2\nh_bucket{le="+Inf"} 1\nh_sum 1\nh_count 1\n`,
  },
  { name: 'a histogram without sum', text: `${HISTOGRAM}h_bucket{le="+Inf"} 1\nh_count 1\n` },
  {
    name: 'a count that is not the last bucket',
    text: `${HISTOGRAM}h_bucket{le="+Inf"} 1\nh_sum 1\nh_count 2\n`,
  },
])('$name is refused', ({ text }) => {
  expect(() => parsePrometheusText(text)).toThrow(Error);
});
