/** What the benchmark against the peers makes of its rounds: ratios, verdicts, and a plot. */
import { describe, expect, test } from 'vitest';
import { renderRedirects, planPorts } from '../../bench/support/peer-configs.ts';
import type { ContenderKey } from '../../bench/support/peer-contenders.ts';
import type { Turn } from '../../bench/support/peer-figures.ts';
import { buildPlainResults, buildRatios, spreadOf } from '../../bench/support/peer-ratios.ts';
import { renderPeerPlot } from '../../bench/support/peer-plot.ts';
import { buildPeerReport, isReached, renderPeerReport } from '../../bench/support/peer-report.ts';

type Rounds = Readonly<Partial<Record<ContenderKey, readonly Turn[]>>>;

function turnsOf(rounds: Rounds): ReadonlyMap<ContenderKey, readonly Turn[]> {
  return new Map(Object.entries(rounds) as [ContenderKey, readonly Turn[]][]);
}

const cpu = (...values: readonly number[]): readonly Turn[] => values.map((requestCpu) => ({ requestCpu }));

const TARGET = { figure: 'requestCpu', of: 'native', against: 'kube-proxy', atMost: 0.5 } as const;

describe('ratios', () => {
  test('are the median of what each round has by itself, not the ratio of the medians', () => {
    const turns = turnsOf({ native: cpu(10, 40, 30), 'kube-proxy': cpu(40, 50, 100) });
    // Medians: 30 and 50, which would make 0.6.
    const [ratio] = buildRatios(turns, [TARGET]);
    expect(ratio?.spread).toEqual({ median: 0.3, least: 0.25, greatest: 0.8, values: [0.25, 0.8, 0.3] });
  });

  test('leave out a round in which one of the two has no figure, and pair the others as they were', () => {
    const turns = turnsOf({ native: [{}, ...cpu(20, 30)], 'kube-proxy': [...cpu(1, 40), {}] });
    expect(buildRatios(turns, [TARGET])[0]?.spread.values).toEqual([0.5]);
  });

  test.each([
    { name: 'at the bound', native: 50, bounds: { atMost: 0.5 }, verdict: 'reached' },
    { name: 'above it', native: 51, bounds: { atMost: 0.5 }, verdict: 'not reached' },
    { name: 'at least so much', native: 200, bounds: { atLeast: 2 }, verdict: 'reached' },
    { name: 'less than that', native: 199, bounds: { atLeast: 2 }, verdict: 'not reached' },
    { name: 'the stretch', native: 100, bounds: { atMost: 1.05, stretch: 1 }, verdict: 'beyond' },
    {
      name: 'the bound without the stretch',
      native: 104,
      bounds: { atMost: 1.05, stretch: 1 },
      verdict: 'reached',
    },
    { name: 'nothing asked', native: 900, bounds: {}, verdict: 'none' },
  ])('are judged: $name', ({ native, bounds, verdict }) => {
    const turns = turnsOf({ native: cpu(native), 'kube-proxy': cpu(100) });
    const target = { figure: 'requestCpu', of: 'native', against: 'kube-proxy', ...bounds } as const;
    expect(buildRatios(turns, [target])[0]?.verdict).toBe(verdict);
  });

  test('of what was not measured there are none', () => {
    expect(buildRatios(turnsOf({ native: cpu(1) }), [TARGET])).toEqual([]);
    expect(spreadOf(turnsOf({}), 'native', 'requestCpu')).toBeUndefined();
  });
});

test('one lost datagram in one of many rounds is seen', () => {
  const turns = turnsOf({ native: [{ flowLost: 0 }, { flowLost: 0 }, { flowLost: 1 }] });
  const target = { figure: 'flowLost', of: 'native', atMost: 0, takes: 'worst' } as const;
  expect(buildPlainResults(turns, [target])[0]?.verdict).toBe('not reached');
});

describe('the report', () => {
  const machine = {
    cpus: 2,
    cpuModel: 'A <fast> & quiet one',
    kernel: '6.1',
    node: 'v24',
    commit: 'abc',
    load: 0,
  };
  const build = (rounds: Rounds): ReturnType<typeof buildPeerReport> =>
    buildPeerReport(
      {
        turns: turnsOf(rounds),
        configurations: new Map([['haproxy', 'mode tcp']]),
        leftOut: ['nginx: gone'],
      },
      {
        machine,
        options: { rounds: 1, seconds: 1, connections: 9, measures: ['requests'] },
        took: 60,
        settings: [],
        notes: [],
      },
    );

  test('says plainly what was not reached, what was left out and what has no verdict', () => {
    const report = build({ native: cpu(60), 'kube-proxy': cpu(100), haproxy: cpu(50) });
    const text = renderPeerReport(report);
    expect(isReached(report)).toBe(false);
    expect(text).toMatch(/native against Go +0\.60 × .*≤ 0\.5 +NOT REACHED/);
    expect(text).toContain('left out: nginx: gone');
    expect(text).toMatch(/not measured.*node against kube-proxy/);
    expect(text).toContain('mode tcp');
  });

  test('has nothing to complain of when only those without a target were measured', () => {
    expect(isReached(build({ haproxy: cpu(50) }))).toBe(true);
  });

  test('is drawn for both colour schemes, with every text escaped', () => {
    const plot = renderPeerPlot(build({ native: cpu(60), haproxy: cpu(50) }));
    expect(plot).toContain('prefers-color-scheme: dark');
    expect(plot).toContain('A &lt;fast&gt; &amp; quiet one');
    expect(plot.match(/<g /g)).toHaveLength(1);
    expect(plot).not.toContain('NaN');
  });
});

test('peers get rules of the kind that ours has, for what comes in and for what the node sends', () => {
  const [http] = planPorts(['TCP']);
  expect(renderRedirects(http === undefined ? [] : [http])).toBe(
    [
      '*nat',
      '-A PREROUTING -d 10.96.16.1/32 -p tcp -m tcp --dport 80 -j REDIRECT --to-ports 18000',
      '-A OUTPUT -d 10.96.16.1/32 -p tcp -m tcp --dport 80 -j REDIRECT --to-ports 18000',
      'COMMIT',
      '',
    ].join('\n'),
  );
});
