/** Which iptables is chosen: by hints, by what an earlier run left, by what is installed. */
import { describe, expect, test } from 'vitest';
import { ProxyError } from '../../src/errors.ts';
import type { Exec } from '../../src/host/exec.ts';
import { type FlavourDeps, chooseIptables, iptablesWithOurs } from '../../src/iptables/flavour.ts';
import type { Flavour, Iptables } from '../../src/iptables/iptables.ts';
import type { IpFamily } from '../../src/model/address.ts';
import { RecordingLogger } from '../support/recording-logger.ts';

const HINT = ':KUBE-IPTABLES-HINT - [0:0]';
const OLD_HINT = ':KUBE-KUBELET-CANARY - [0:0]';
const OURS = ':USERSPACE-PROXY-SERVICES - [0:0]';
const CANARY = ':USERSPACE-PROXY-CANARY - [0:0]';

interface NodeWorld {
  /** What `iptables` without a flavour is; undefined: an old one that does not say. */
  readonly plain?: Flavour;
  readonly installed?: readonly Flavour[];
  /** By `nft IPv4 mangle` the lines in that table. */
  readonly tables?: Readonly<Record<string, string>>;
}

class FlavourNode implements FlavourDeps {
  readonly logger = new RecordingLogger();
  readonly commands: string[] = [];
  readonly #world: Required<Pick<NodeWorld, 'installed' | 'tables'>> & NodeWorld;

  constructor(world: NodeWorld) {
    this.#world = { installed: ['nft', 'legacy'], tables: {}, ...world };
  }

  readonly legacyTables = (family: IpFamily): readonly string[] =>
    Object.keys(this.#world.tables).flatMap((key) => {
      const [flavour, of, table = ''] = key.split(' ');
      return flavour === 'legacy' && of === family ? [table] : [];
    });

  readonly exec: Exec = async (command, args) => {
    this.commands.push(command);
    const [, name, named] = /^(ip6?tables)-(?:(nft|legacy)-)?(?:save|restore)$/.exec(command) ?? [];
    const { plain, installed, tables } = this.#world;
    if (named !== undefined && !installed.includes(named as Flavour))
      throw new ProxyError('ERR_EXEC_NOT_FOUND', `${command} is not installed`);
    const done = (stdout: string): { exitCode: number; stdout: string; stderr: string } => ({
      exitCode: 0,
      stdout,
      stderr: '',
    });
    if (args.join(' ') === '--version') {
      const text = { nft: ' (nf_tables)', legacy: ' (legacy)' };
      return done(`${command} v1.8.9${plain === undefined ? '' : text[plain]}\n`);
    }
    const family = name === 'iptables' ? 'IPv4' : 'IPv6';
    const table = args[1] ?? '';
    const lines = tables[`${named ?? plain ?? 'nft'} ${family} ${table}`];
    return done(lines === undefined ? '' : `*${table}\n${lines}\nCOMMIT\n`);
  };

  /** What reads a table of that family, once chosen. */
  async programOf(iptables: Iptables | undefined): Promise<string | undefined> {
    if (iptables === undefined) return undefined;
    this.commands.length = 0;
    await iptables.save('nat');
    return this.commands[0];
  }
}

describe('the iptables of this node', () => {
  test.each([
    { name: 'without a hint', world: {}, program: 'iptables-save' },
    { name: 'without a hint, and legacy installed', world: { plain: 'legacy' }, program: 'iptables-save' },
    {
      name: 'with the kubelet’s hint',
      world: { tables: { 'legacy IPv4 mangle': HINT } },
      program: 'iptables-legacy-save',
    },
    {
      name: 'with an older kubelet’s hint, in the other family',
      world: { tables: { 'legacy IPv6 mangle': OLD_HINT } },
      program: 'iptables-legacy-save',
    },
    {
      name: 'with hints in both, of which nft counts',
      world: { plain: 'legacy', tables: { 'legacy IPv4 mangle': HINT, 'nft IPv6 mangle': HINT } },
      program: 'iptables-nft-save',
    },
    {
      name: 'with our rules of an earlier run',
      world: { tables: { 'legacy IPv4 nat': OURS } },
      program: 'iptables-legacy-save',
    },
    {
      name: 'with our rules in one and the kubelet’s hint in the other, which counts',
      world: { tables: { 'legacy IPv4 nat': OURS, 'nft IPv4 mangle': HINT } },
      program: 'iptables-save',
    },
    {
      name: 'with a canary that was left in one, and rules in the other',
      world: { plain: 'legacy', tables: { 'legacy IPv4 nat': CANARY, 'nft IPv4 nat': `${CANARY}\n${OURS}` } },
      program: 'iptables-nft-save',
    },
    {
      name: 'with other chains in mangle',
      world: {
        tables: { 'legacy IPv4 mangle': ':KUBE-IPTABLES-HINTS - [0:0]\n:MY-KUBE-IPTABLES-HINT - [0:0]' },
      },
      program: 'iptables-save',
    },
  ] as const)('$name is that of $program', async ({ world, program }) => {
    const node = new FlavourNode({ plain: 'nft', ...world });
    const open = await chooseIptables(node);
    expect(await node.programOf(open('IPv4'))).toBe(program);
    expect(await node.programOf(open('IPv6'))).toBe(program.replace('ip', 'ip6'));
    expect(node.logger.at('warn')).toEqual([]);
  });

  test('is told, with the reason', async () => {
    const node = new FlavourNode({ plain: 'nft', tables: { 'legacy IPv6 mangle': HINT } });
    await chooseIptables(node);
    expect(node.logger.withMessage('iptables chosen').map(({ fields }) => fields)).toEqual([
      {
        flavour: 'legacy',
        programs: 'iptables-legacy-restore',
        reason: 'KUBE-IPTABLES-HINT in IPv6 mangle',
      },
    ]);
  });

  test('cannot be legacy where that is not installed: one warning', async () => {
    const node = new FlavourNode({
      plain: 'nft',
      installed: ['nft'],
      tables: { 'legacy IPv4 mangle': HINT },
    });
    const open = await chooseIptables(node);
    expect(await node.programOf(open('IPv4'))).toBe('iptables-save');
    expect(node.logger.at('warn').map(({ fields }) => fields)).toEqual([
      { family: 'IPv4', tables: ['mangle'], instead: 'nft' },
    ]);
  });

  test('no legacy program is run where none has been before', async () => {
    const node = new FlavourNode({ plain: 'nft', tables: { 'nft IPv4 nat': OURS } });
    await chooseIptables(node);
    await iptablesWithOurs('IPv4', node);
    expect(node.commands.filter((command) => command.includes('legacy'))).toEqual([]);
  });
});

describe('what an earlier run left in the other flavour', () => {
  test.each([
    { name: 'rules', left: OURS, former: 'iptables-legacy-save' },
    { name: 'a canary', left: CANARY, former: 'iptables-legacy-save' },
    { name: 'nothing of ours', left: ':DOCKER - [0:0]', former: undefined },
  ])('is known: $name', async ({ left, former }) => {
    const tables = { 'nft IPv6 mangle': HINT, 'legacy IPv4 nat': left };
    const node = new FlavourNode({ plain: 'nft', tables });
    const open = await chooseIptables(node);
    expect(await node.programOf(open('IPv4').former)).toBe(former);
    expect(open('IPv6').former).toBeUndefined();
  });

  test('is cleaned up beside the one in use', async () => {
    const node = new FlavourNode({ plain: 'nft', tables: { 'legacy IPv4 filter': CANARY } });
    const found = await iptablesWithOurs('IPv4', node);
    const programs = [];
    for (const one of found) programs.push(await node.programOf(one));
    expect(programs).toEqual(['iptables-save', 'iptables-legacy-save']);
    expect(await iptablesWithOurs('IPv6', node)).toHaveLength(1);
  });
});
