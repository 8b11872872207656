/** The text of `--help`, made from the table that the parser uses. Pure. */
import { FLAGS } from './flag-table.ts';
import type { FlagSpec, FlagTable } from './flags.ts';
import { IGNORED_FLAGS, REFUSED_FLAGS } from './kube-proxy-flags.ts';

const WIDTH = 100;
const INDENT = ' '.repeat(16);

/** All of it, grouped, with defaults, in the style of kube-proxy's; ends with a newline. */
export function renderHelp(): string {
  const table: FlagTable = FLAGS;
  const byGroup = Map.groupBy(Object.entries(table), ([, spec]) => spec.group);
  const groups = [...byGroup].map(([group, flags]) => {
    const lines = flags.map(([name, spec]) => renderFlag(name, spec));
    return `${group} flags:\n\n${lines.join('\n')}`;
  });
  return [
    wrap(
      'kube-userspace-proxy carries the TCP and UDP traffic of Kubernetes Services to live pods in userspace.',
      '',
    ),
    'Usage:\n  kube-userspace-proxy [--kubeconfig FILE] [--master URLS] [flags]\n  kube-userspace-proxy --manifests PATH [flags]',
    ...groups,
    `kube-proxy flags accepted and ignored, with a warning:\n\n${renderNames(IGNORED_FLAGS)}`,
    `kube-proxy flags refused in this version:\n\n${renderNames(REFUSED_FLAGS)}`,
    '',
  ]
    .join('\n\n')
    .trimEnd()
    .concat('\n');
}

function renderFlag(name: string, { type, default: fallback, shorthand, help }: FlagSpec<unknown>): string {
  const dashes = shorthand === undefined ? `      --${name}` : `  -${shorthand}, --${name}`;
  const value = type.render(fallback);
  const suffix = value === '' || value === '""' ? '' : ` (default ${value})`;
  return `${dashes}${type.name === '' ? '' : ` ${type.name}`}\n${wrap(help + suffix, INDENT)}`;
}

function renderNames(flags: ReadonlyMap<string, string>): string {
  return wrap([...flags.keys()].map((name) => `--${name}`).join(' '), '      ');
}

/** Breaks at spaces so that no line is longer than WIDTH unless a single word is. */
function wrap(text: string, indent: string): string {
  const lines: string[] = [];
  for (const word of text.split(' ')) {
    const last = lines.at(-1);
    if (last !== undefined && last.length + 1 + word.length <= WIDTH)
      lines[lines.length - 1] = `${last} ${word}`;
    else lines.push(indent + word);
  }
  return lines.join('\n');
}
