/**
 * The plot of bench/peers.ts that the documentation shows: SVG with nothing from elsewhere, which follows the reader's
 * light or dark colours by itself. One panel for each figure, one bar for each contender, and a line from the least to
 * the greatest of the rounds. Pure.
 */
import { round } from './load-report.ts';
import type { ContenderKey } from './peer-contenders.ts';
import { FIGURES, type FigureKey } from './peer-figures.ts';
import type { Spread } from './peer-ratios.ts';
import type { PeerReport } from './peer-report.ts';

type Bars = Pick<PeerReport, 'contenders' | 'machine' | 'options'>;

const PANELS: readonly FigureKey[] = [
  'requestCpu',
  'connectionCpu',
  'bulk1Cpu',
  'requestP99',
  'bulk1Rate',
  'heldPerConnection',
  'datagramCpu',
  'flowCpu',
  'idleMemory',
];
const NAMES: readonly (readonly [ContenderKey, string])[] = [
  ['native', 'native'],
  ['node', 'node'],
  ['kube-proxy', 'kube-proxy'],
  ['haproxy', 'HAProxy'],
  ['haproxy-splice', 'HAProxy splice'],
  ['nginx', 'nginx'],
];

const COLUMNS = 3;
const PANEL = { width: 316, gap: 20, heading: 46, bar: 14, step: 21 } as const;
const LABEL_WIDTH = 102;
const VALUE_WIDTH = 52;
const MARGIN = 20;
const HEADER = 62;
const FOOTER = 30;

const STYLE = `
  .ground { fill: #ffffff } .text { fill: #1f2328 } .quiet { fill: #59636e } .rule { stroke: #d1d9e0 }
  .native { fill: #0969da } .node { fill: #80b8f0 } .peer { fill: #b1bac4 } .spread { stroke: #1f2328 }
  text { font: 12px system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif }
  .title { font-weight: 600; font-size: 16px } .heading { font-weight: 600; font-size: 13px } .small { font-size: 11px }
  @media (prefers-color-scheme: dark) {
    .ground { fill: #0d1117 } .text { fill: #e6edf3 } .quiet { fill: #9198a1 } .rule { stroke: #3d444d }
    .native { fill: #4493f8 } .node { fill: #1f5493 } .peer { fill: #656c76 } .spread { stroke: #e6edf3 }
  }`;

/** A document of its own. Figures that were not measured are left out, and so are panels without any. */
export function renderPeerPlot(report: Bars): string {
  const panels = PANELS.map((figure) => ({ figure, bars: barsOf(report, figure) })).filter(
    ({ bars }) => bars.length > 0,
  );
  const rows = Array.from({ length: Math.ceil(panels.length / COLUMNS) }, (_, row) =>
    panels.slice(row * COLUMNS, (row + 1) * COLUMNS),
  );
  let top = HEADER;
  const drawn = rows.map((row) => {
    const at = top;
    top += PANEL.heading + PANEL.step * Math.max(...row.map(({ bars }) => bars.length)) + PANEL.gap;
    return row
      .map(({ figure, bars }, column) =>
        renderPanel(figure, bars, { x: MARGIN + column * (PANEL.width + PANEL.gap), y: at }),
      )
      .join('\n');
  });
  const width = 2 * MARGIN + COLUMNS * PANEL.width + (COLUMNS - 1) * PANEL.gap;
  const height = top + FOOTER;
  const { machine, options } = report;
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" role="img" aria-labelledby="title">
<title id="title">What the proxy costs and carries beside kube-proxy’s userspace mode, HAProxy and nginx</title>
<style>${STYLE}
</style>
<rect class="ground" width="${width}" height="${height}" rx="6"/>
<text class="text title" x="${MARGIN}" y="30">This proxy’s two engines, native and node, beside their peers, through real REDIRECT rules</text>
<text class="quiet" x="${MARGIN}" y="48">Medians of ${options.rounds} interleaved rounds; the line goes from the least round to the greatest. CPU: user and system time of all threads.</text>
${drawn.join('\n')}
<line class="rule" x1="${MARGIN}" x2="${width - MARGIN}" y1="${height - FOOTER}" y2="${height - FOOTER}"/>
<text class="quiet small" x="${MARGIN}" y="${height - 11}">${escapeText(
    `${machine.cpus} CPUs (${machine.cpuModel}), Linux ${machine.kernel}, Node ${machine.node}, commit ${machine.commit}. npm run bench`,
  )}</text>
</svg>
`;
}

interface Bar {
  readonly key: ContenderKey;
  readonly name: string;
  readonly spread: Spread;
}

function barsOf({ contenders }: Bars, figure: FigureKey): readonly Bar[] {
  return NAMES.flatMap(([key, name]) => {
    const spread = contenders.find((each) => each.key === key)?.figures[figure];
    return spread === undefined ? [] : [{ key, name, spread }];
  });
}

function renderPanel(
  figure: FigureKey,
  bars: readonly Bar[],
  { x, y }: { readonly x: number; readonly y: number },
): string {
  const { title, unit, isBetter } = FIGURES[figure];
  const most = Math.max(...bars.map(({ spread }) => spread.greatest), Number.MIN_VALUE);
  const length = (value: number): number =>
    (Math.max(0, value) / most) * (PANEL.width - LABEL_WIDTH - VALUE_WIDTH);
  const rows = bars.map(({ key, name, spread }, index) => {
    const top = PANEL.heading + index * PANEL.step;
    const middle = top + PANEL.bar / 2;
    const from = LABEL_WIDTH + length(spread.least);
    const to = LABEL_WIDTH + length(spread.greatest);
    return (
      `<text class="text" x="${LABEL_WIDTH - 8}" y="${middle + 4}" text-anchor="end">${escapeText(name)}</text>` +
      `<rect class="${classOf(key)}" x="${LABEL_WIDTH}" y="${top}" width="${length(spread.median).toFixed(1)}" height="${PANEL.bar}" rx="2"/>` +
      `<line class="spread" x1="${from.toFixed(1)}" x2="${to.toFixed(1)}" y1="${middle}" y2="${middle}" stroke-width="1.5"/>` +
      `<text class="text" x="${(to + 6).toFixed(1)}" y="${middle + 4}">${round(spread.median)}</text>`
    );
  });
  return `<g transform="translate(${x} ${y})">
<text class="text heading" x="0" y="16">${escapeText(`${title}, ${unit}`)}</text>
<text class="quiet small" x="0" y="32">${isBetter} is better</text>
${rows.join('\n')}
</g>`;
}

function classOf(key: ContenderKey): string {
  return key === 'native' || key === 'node' ? key : 'peer';
}

function escapeText(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');
}
