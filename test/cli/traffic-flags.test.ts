import { describe, expect, it } from 'vitest';
import { type Config, configFromArgs } from '../../src/cli/config.ts';
import { ProxyError } from '../../src/errors.ts';

function run(...args: string[]) {
  return configFromArgs(['--manifests', '/etc/services', ...args]);
}

function messageOf(...args: string[]): string {
  try {
    run(...args);
  } catch (error: unknown) {
    if (error instanceof ProxyError && error.code === 'ERR_FLAG_VALUE') return error.message;
    throw error;
  }
  throw new Error(`nothing was wrong with ${args.join(' ')}`);
}

function textsOf(addresses: Config['nodePortAddresses']): unknown {
  return addresses === 'primary' ? addresses : addresses.map(({ text }) => text);
}

describe('--nodeport-addresses', () => {
  it.each<{ name: string; args: string[]; addresses: unknown }>([
    { name: 'nothing', args: [], addresses: [] },
    { name: 'an empty value', args: ['--nodeport-addresses='], addresses: [] },
    { name: 'one range', args: ['--nodeport-addresses', '10.0.0.0/8'], addresses: ['10.0.0.0/8'] },
    {
      name: 'an address with its host bits',
      args: ['--nodeport-addresses=10.1.2.3/8'],
      addresses: ['10.0.0.0/8'],
    },
    { name: 'one address', args: ['--nodeport-addresses=::1/128'], addresses: ['::1/128'] },
    { name: 'loopback', args: ['--nodeport-addresses=127.0.0.0/8'], addresses: ['127.0.0.0/8'] },
    { name: 'all of a family', args: ['--nodeport-addresses=0.0.0.0/0'], addresses: ['0.0.0.0/0'] },
    {
      name: 'both families, with spaces',
      args: ['--nodeport-addresses', '10.0.0.0/8, FD00::/8'],
      addresses: ['10.0.0.0/8', 'fd00::/8'],
    },
    {
      name: 'commas and repetition of the flag',
      args: ['--nodeport-addresses=10.0.0.0/8,192.168.0.0/16', '--nodeport_addresses=fd00::/8'],
      addresses: ['10.0.0.0/8', '192.168.0.0/16', 'fd00::/8'],
    },
    {
      name: 'the same range in two spellings',
      args: ['--nodeport-addresses=10.0.0.0/8,fd00::/8,10.9.9.9/8', '--nodeport-addresses=fd00:0::/8'],
      addresses: ['10.0.0.0/8', 'fd00::/8'],
    },
    { name: 'the word', args: ['--nodeport-addresses', 'primary'], addresses: 'primary' },
    {
      name: 'the word beside nothing',
      args: ['--nodeport-addresses=', '--nodeport-addresses=primary'],
      addresses: 'primary',
    },
  ])('with $name is $addresses', ({ args, addresses }) => {
    const { config, warnings } = run(...args);
    expect(textsOf(config.nodePortAddresses)).toEqual(addresses);
    expect(Object.isFrozen(config.nodePortAddresses)).toBe(true);
    expect(warnings).toEqual([]);
  });

  it.each([
    ['10.0.0.1'],
    ['10.0.0.0/33'],
    ['fd00::/129'],
    ['10.0.0.0/8,'],
    [',10.0.0.0/8'],
    ['10.0.0.0/8,,fd00::/8'],
    ['10.0.0.0/8 fd00::/8'],
    ['10.0.0.0/8,eth0'],
    ['10.0.0.0/255.0.0.0'],
    ['fe80::%eth0/64'],
    ['Primary'],
    ['primary,'],
    [','],
  ])('refuses %j and says what it takes', (value) => {
    expect(messageOf('--nodeport-addresses', value)).toBe(
      `invalid argument ${JSON.stringify(value)} for --nodeport-addresses: must be CIDRs such as 10.0.0.0/8 or ` +
        'fd00::/64, separated by commas, or the single word "primary"',
    );
  });

  it.each([
    { args: ['--nodeport-addresses=primary,10.0.0.0/8'], value: 'primary,10.0.0.0/8' },
    { args: ['--nodeport-addresses=10.0.0.0/8,primary'], value: '10.0.0.0/8,primary' },
    { args: ['--nodeport-addresses=fd00::/8', '--nodeport-addresses=primary'], value: 'fd00::/8,primary' },
    { args: ['--nodeport-addresses=primary', '--nodeport-addresses=fd00::/8'], value: 'primary,fd00::/8' },
    { args: ['--nodeport-addresses=primary,primary'], value: 'primary,primary' },
  ])('refuses the word beside anything else: $args', ({ args, value }) => {
    expect(messageOf(...args)).toBe(
      `invalid argument ${JSON.stringify(value)} for --nodeport-addresses: must be CIDRs or the single word ` +
        '"primary" alone',
    );
  });
});

describe('how pods are told from others', () => {
  it.each<{ name: string; args: string[]; cidrs: string[] }>([
    { name: 'an IPv4 range', args: ['--cluster-cidr', '10.244.0.0/16'], cidrs: ['10.244.0.0/16'] },
    { name: 'an IPv6 range', args: ['--cluster-cidr=FD00:10:244::/56'], cidrs: ['fd00:10:244::/56'] },
    {
      name: 'one of each family',
      args: ['--cluster-cidr=10.244.0.0/16,fd00:10:244::/56'],
      cidrs: ['10.244.0.0/16', 'fd00:10:244::/56'],
    },
    {
      name: 'one of each family, IPv6 first and a space between',
      args: ['--cluster-cidr', 'fd00:10:244::/56, 10.244.7.7/16'],
      cidrs: ['fd00:10:244::/56', '10.244.0.0/16'],
    },
    {
      name: 'the mode by its name',
      args: ['--detect-local-mode=ClusterCIDR', '--cluster-cidr=10.0.0.0/8'],
      cidrs: ['10.0.0.0/8'],
    },
    {
      name: 'an empty mode, which is the default',
      args: ['--detect-local-mode=', '--cluster-cidr=10.0.0.0/8'],
      cidrs: ['10.0.0.0/8'],
    },
    {
      name: 'the last of two --cluster-cidr, which is no list',
      args: ['--cluster-cidr=10.0.0.0/8', '--cluster-cidr=192.168.0.0/16'],
      cidrs: ['192.168.0.0/16'],
    },
  ])('by source address: $name', ({ args, cidrs }) => {
    const { config, warnings } = run(...args);
    const { localDetection } = config;
    if (localDetection.kind !== 'cidrs') throw new Error(`it is ${localDetection.kind}`);
    expect(localDetection.cidrs.map(({ text }) => text)).toEqual(cidrs);
    expect([localDetection, localDetection.cidrs].every(Object.isFrozen)).toBe(true);
    expect(warnings).toEqual([]);
  });

  it.each<{ args: string[]; detection: Config['localDetection'] }>([
    { args: [], detection: { kind: 'none' } },
    { args: ['--cluster-cidr='], detection: { kind: 'none' } },
    { args: ['--cluster-cidr', ' '], detection: { kind: 'none' } },
    { args: ['--detect-local-mode', 'ClusterCIDR'], detection: { kind: 'none' } },
    { args: ['--detect-local-mode', 'NodeCIDR'], detection: { kind: 'nodeCIDR' } },
    {
      args: ['--detect-local-mode=BridgeInterface', '--pod-bridge-interface=cni0'],
      detection: { kind: 'interface', name: 'cni0' },
    },
    {
      args: ['--detect-local-mode=BridgeInterface', '--pod-bridge-interface', 'br-1a2b3c.d4@ef'],
      detection: { kind: 'interface', name: 'br-1a2b3c.d4@ef' },
    },
    {
      args: ['--detect-local-mode=InterfaceNamePrefix', '--pod-interface-name-prefix=cali'],
      detection: { kind: 'interface', name: 'cali+' },
    },
    {
      args: ['--detect-local-mode=InterfaceNamePrefix', '--pod-interface-name-prefix=a+b_4567890.-@'],
      detection: { kind: 'interface', name: 'a+b_4567890.-@+' },
    },
  ])('$args is $detection', ({ args, detection }) => {
    const { config, warnings } = run(...args);
    expect(config.localDetection).toEqual(detection);
    expect(Object.isFrozen(config.localDetection)).toBe(true);
    expect(warnings).toEqual([]);
  });

  it.each([
    ['10.244.0.0'],
    ['10.244.0.0/33'],
    ['10.244.0.0/16,10.245.0.0/16'],
    ['fd00::/56,fd01::/56'],
    ['10.244.0.0/16,10.244.0.0/16'],
    ['10.244.0.0/16,fd00::/56,fd01::/56'],
    ['10.244.0.0/16,'],
    ['10.244.0.0/16 fd00::/56'],
    ['primary'],
  ])('not by the ranges %j', (value) => {
    expect(messageOf('--cluster-cidr', value)).toBe(
      `invalid argument ${JSON.stringify(value)} for --cluster-cidr: must be a CIDR, or one of each family ` +
        'separated by a comma, such as 10.244.0.0/16,fd00:10:244::/56',
    );
  });

  it.each([['clustercidr'], ['None'], ['Cluster'], ['NodeCIDR ']])('not in a mode %j', (value) => {
    expect(messageOf('--detect-local-mode', value)).toBe(
      `invalid argument ${JSON.stringify(value)} for --detect-local-mode: must be "ClusterCIDR" or "NodeCIDR" or ` +
        '"BridgeInterface" or "InterfaceNamePrefix" or "" (which is "ClusterCIDR")',
    );
  });

  it.each([
    { name: 'sixteen characters', value: 'b'.repeat(16) },
    { name: 'a wildcard', value: 'cni+' },
    { name: 'nothing but a wildcard', value: '+' },
    { name: 'a slash', value: 'br/0' },
    { name: 'an alias', value: 'br0:1' },
    { name: 'a space', value: 'br 0' },
    { name: 'a line break', value: 'br0\n' },
    { name: 'two names', value: 'br0,br1' },
    { name: 'a negation', value: '!br0' },
    { name: 'an option', value: '-j' },
    { name: 'a quote', value: 'br"0' },
    { name: 'another alphabet', value: 'brücke' },
    { name: 'a directory', value: '..' },
  ])('not by an interface with $name', ({ value }) => {
    for (const [flag, length] of [
      ['pod-bridge-interface', 15],
      ['pod-interface-name-prefix', 14],
    ] as const) {
      expect(messageOf(`--${flag}`, value)).toBe(
        `invalid argument ${JSON.stringify(value)} for --${flag}: must be at most ${length} letters, digits, "_", ` +
          '"-", ".", "@" and "+", without "-" at the start and without "+" at the end',
      );
    }
  });

  it('by names as long as the kernel has them, and by prefixes that leave room for the "+"', () => {
    const [name, prefix] = ['n'.repeat(15), 'p'.repeat(14)];
    expect(run('--pod-bridge-interface', name, '--detect-local-mode=BridgeInterface').config).toMatchObject({
      localDetection: { name },
    });
    expect(
      run('--pod-interface-name-prefix', prefix, '--detect-local-mode=InterfaceNamePrefix').config,
    ).toMatchObject({ localDetection: { name: `${prefix}+` } });
    expect(messageOf('--pod-interface-name-prefix', name)).toContain('at most 14');
  });

  it.each([
    { mode: 'BridgeInterface', flag: 'pod-bridge-interface', other: '--pod-interface-name-prefix=cali' },
    { mode: 'InterfaceNamePrefix', flag: 'pod-interface-name-prefix', other: '--pod-bridge-interface=cni0' },
  ])('not in mode $mode without --$flag', ({ mode, flag, other }) => {
    const length = flag === 'pod-bridge-interface' ? 15 : 14;
    const message =
      `invalid argument "${mode}" for --detect-local-mode: needs --${flag}: at most ${length} letters, digits, "_", ` +
      '"-", ".", "@" and "+", without "-" at the start and without "+" at the end';
    expect(messageOf(`--detect-local-mode=${mode}`)).toBe(message);
    expect(messageOf(`--detect-local-mode=${mode}`, `--${flag}=`)).toBe(message);
    expect(messageOf(`--detect-local-mode=${mode}`, '--cluster-cidr=10.0.0.0/8', other)).toBe(message);
  });

  it.each([
    { args: ['--pod-bridge-interface=cni0'], flags: ['pod-bridge-interface'], mode: 'ClusterCIDR' },
    { args: ['--pod-interface-name-prefix=cali'], flags: ['pod-interface-name-prefix'], mode: 'ClusterCIDR' },
    {
      args: ['--detect-local-mode=NodeCIDR', '--cluster-cidr=10.0.0.0/8', '--pod-bridge-interface=cni0'],
      flags: ['cluster-cidr', 'pod-bridge-interface'],
      mode: 'NodeCIDR',
    },
    {
      args: [
        '--detect-local-mode=BridgeInterface',
        '--cluster-cidr=10.0.0.0/8',
        '--pod-bridge-interface=cni0',
      ],
      flags: ['cluster-cidr'],
      mode: 'BridgeInterface',
    },
    {
      args: ['--detect-local-mode=NodeCIDR', '--cluster-cidr=', '--pod-bridge-interface='],
      flags: [],
      mode: 'NodeCIDR',
    },
  ])('and a flag that the mode does not read is warned of: $args', ({ args, flags, mode }) => {
    expect(run(...args).warnings).toEqual(
      flags.map((flag) => `--${flag} is ignored: --detect-local-mode is "${mode}"`),
    );
  });
});

describe('--external-clusterip=false', () => {
  it.each([
    { args: ['--cluster-cidr=10.244.0.0/16'] },
    { args: ['--detect-local-mode=NodeCIDR'] },
    { args: ['--detect-local-mode=BridgeInterface', '--pod-bridge-interface=cni0'] },
    { args: ['--detect-local-mode=InterfaceNamePrefix', '--pod-interface-name-prefix=veth'] },
  ])('is taken where pods can be told from others: $args', ({ args }) => {
    expect(run('--external-clusterip=false', ...args).config.externalClusterIP).toBe(false);
  });

  it.each([
    { args: [] },
    { args: ['--detect-local-mode=ClusterCIDR', '--cluster-cidr='] },
    { args: ['--pod-bridge-interface=cni0'] },
    { args: ['--print-rules'] },
  ])('is refused where they cannot: $args', ({ args }) => {
    expect(messageOf('--external-clusterip=false', ...args)).toBe(
      'invalid argument "false" for --external-clusterip: needs --cluster-cidr or another --detect-local-mode, ' +
        'to tell pods from clients outside the cluster',
    );
  });

  it('has a twin that needs nothing', () => {
    expect(run('--external-clusterip=true').config).toMatchObject({
      externalClusterIP: true,
      localDetection: { kind: 'none' },
    });
  });
});
