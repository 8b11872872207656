import { describe, expect, it } from 'vitest';
import { configFromArgs } from '../../src/cli/config.ts';
import { kubeProxyConfigurationFromConfig } from '../../src/cli/configz.ts';
import { FLAGS } from '../../src/cli/flag-table.ts';
import type { FlagTable } from '../../src/cli/flags.ts';
import { renderHelp } from '../../src/cli/help.ts';
import { IGNORED_FLAGS, KUBE_PROXY_FLAGS, REFUSED_FLAGS } from '../../src/cli/kube-proxy-flags.ts';
import { ProxyError } from '../../src/errors.ts';

function run(...args: string[]) {
  return configFromArgs(['--manifests', '/etc/services', ...args]);
}

function faultOf(args: readonly string[]): ProxyError {
  try {
    configFromArgs(args);
  } catch (error: unknown) {
    if (error instanceof ProxyError) return error;
    throw error;
  }
  throw new Error(`nothing was wrong with ${args.join(' ')}`);
}

describe('the configuration', () => {
  it('has the documented defaults', () => {
    expect(run()).toEqual({
      command: 'run',
      warnings: [],
      config: {
        manifests: ['/etc/services'],
        hostnameOverride: '',
        capture: 'redirect',
        proxyPortRange: { first: 20_000, last: 29_999 },
        stateDir: '/run/kube-userspace-proxy',
        syncPeriodMs: 30_000,
        minSyncPeriodMs: 1_000,
        listenerGracePeriodMs: 1_000,
        drainTimeoutMs: 30_000,
        dialTimeoutsMs: [250, 500, 1_000, 2_000],
        halfCloseTimeoutMs: 3_600_000,
        udpRepliedTimeoutMs: 120_000,
        udpUnrepliedTimeoutMs: 30_000,
        maxUdpSessions: 4_096,
        affinityTableSize: 65_536,
        healthzBindAddress: { address: '0.0.0.0', port: 10_256 },
        metricsBindAddress: { address: '127.0.0.1', port: 10_249 },
        bindAddressHardFail: false,
        verbosity: 0,
      },
    });
  });

  it('cannot be changed', () => {
    const { config } = run();
    expect(Object.isFrozen(config)).toBe(true);
    for (const value of Object.values(config)) expect(Object.isFrozen(value)).toBe(true);
  });

  it.each([
    { args: ['--manifests', 'b,c'], key: 'manifests', value: ['/etc/services', 'b', 'c'] },
    { args: ['--hostname-override', ' Node-A '], key: 'hostnameOverride', value: 'node-a' },
    { args: ['--proxy-mode=userspace'], key: 'capture', value: 'redirect' },
    { args: ['--proxy-mode='], key: 'capture', value: 'redirect' },
    {
      args: ['--proxy-port-range', '1024-65535'],
      key: 'proxyPortRange',
      value: { first: 1_024, last: 65_535 },
    },
    {
      args: ['--proxy-port-range', '20000+100'],
      key: 'proxyPortRange',
      value: { first: 20_000, last: 20_100 },
    },
    { args: ['--proxy-port-range', '20000'], key: 'proxyPortRange', value: { first: 20_000, last: 20_000 } },
    { args: ['--proxy-port-range', '0-0'], key: 'proxyPortRange', value: { first: 20_000, last: 29_999 } },
    { args: ['--proxy-port-range='], key: 'proxyPortRange', value: { first: 20_000, last: 29_999 } },
    { args: ['--state-dir='], key: 'stateDir', value: undefined },
    { args: ['--iptables-min-sync-period', '0'], key: 'minSyncPeriodMs', value: 0 },
    { args: ['--iptables-min-sync-period=30s'], key: 'minSyncPeriodMs', value: 30_000 },
    { args: ['--tcp-half-close-timeout=0'], key: 'halfCloseTimeoutMs', value: 0 },
    { args: ['--udp-timeout=10s'], key: 'udpUnrepliedTimeoutMs', value: 10_000 },
    {
      args: ['--udp-timeout=10s', '--udp-unreplied-timeout=20s'],
      key: 'udpUnrepliedTimeoutMs',
      value: 20_000,
    },
    { args: ['--healthz-bind-address='], key: 'healthzBindAddress', value: undefined },
    {
      args: ['--healthz-bind-address=::'],
      key: 'healthzBindAddress',
      value: { address: '::', port: 10_256 },
    },
    {
      args: ['--healthz-bind-address=[::]'],
      key: 'healthzBindAddress',
      value: { address: '::', port: 10_256 },
    },
    {
      args: ['--metrics-bind-address', '[FD00:0:0::1]:9000'],
      key: 'metricsBindAddress',
      value: { address: 'fd00::1', port: 9_000 },
    },
    {
      args: ['--metrics-bind-address', '10.0.0.1'],
      key: 'metricsBindAddress',
      value: { address: '10.0.0.1', port: 10_249 },
    },
    {
      args: ['--metrics-bind-address', '127.0.0.1:0'],
      key: 'metricsBindAddress',
      value: { address: '127.0.0.1', port: 0 },
    },
    { args: ['-v=4'], key: 'verbosity', value: 4 },
  ] as const)('takes $args as $key = $value', ({ args, key, value }) => {
    expect(run(...args).config[key]).toEqual(value);
  });

  it.each([
    { args: ['--proxy-mode', 'iptables'], says: ['--proxy-mode', '"iptables"', '"userspace"'] },
    { args: ['--capture', 'link-local'], says: ['--capture', '"link-local"', 'later version'] },
    { args: ['--capture', 'tproxy'], says: ['--capture', '"tproxy"', '"redirect"'] },
    { args: ['--proxy-port-range', '80-90'], says: ['--proxy-port-range', '"80-90"', '1024 to 65535'] },
    { args: ['--proxy-port-range', '30000-20000'], says: ['--proxy-port-range', 'A <= B'] },
    { args: ['--proxy-port-range', '65000+1000'], says: ['--proxy-port-range', '65535'] },
    { args: ['--proxy-port-range', 'many'], says: ['--proxy-port-range', '"many"'] },
    { args: ['--iptables-sync-period', '0'], says: ['--iptables-sync-period', '"0"', '1ms'] },
    {
      args: ['--iptables-min-sync-period', '31s'],
      says: ['--iptables-min-sync-period', '"31s"', '--iptables-sync-period, 30s'],
    },
    { args: ['--iptables-sync-period', '500ms'], says: ['--iptables-min-sync-period', '"1s"', '500ms'] },
    { args: ['--listener-grace-period', '300ms'], says: ['--listener-grace-period', '"300ms"', 'from 1s'] },
    { args: ['--dial-timeouts', ''], says: ['--dial-timeouts', '""'] },
    { args: ['--dial-timeouts', '1s,0'], says: ['--dial-timeouts', '"1s,0"', '1ms'] },
    { args: ['--max-udp-sessions', '0'], says: ['--max-udp-sessions', '"0"', 'from 1'] },
    { args: ['--affinity-table-size', '-5'], says: ['--affinity-table-size', '"-5"', 'from 1'] },
    {
      args: ['--tcp-half-close-timeout', '1000h'],
      says: ['--tcp-half-close-timeout', '"1000h"', '576h0m0s'],
    },
    {
      args: ['--healthz-bind-address', 'localhost:1'],
      says: ['--healthz-bind-address', '"localhost:1"', 'IP:port'],
    },
    { args: ['--healthz-bind-address', ':10256'], says: ['--healthz-bind-address', '":10256"'] },
    { args: ['--metrics-bind-address', '1.2.3.4:65536'], says: ['--metrics-bind-address', '65536'] },
    { args: ['--metrics-bind-address', '010.0.0.1:80'], says: ['--metrics-bind-address', '"010.0.0.1:80"'] },
    { args: ['--logging-format', 'xml'], says: ['--logging-format', '"xml"', '"json"'] },
    { args: ['--cleanup', '--print-rules'], says: ['--print-rules', '--cleanup'] },
  ])('refuses $args and says why', ({ args, says }) => {
    const fault = faultOf(['--manifests', 'x', ...args]);
    expect(fault.code).toBe('ERR_FLAG_VALUE');
    for (const part of says) expect(fault.message).toContain(part);
  });
});

describe('the command', () => {
  it.each([
    { args: ['--manifests', 'x'], command: 'run' },
    { args: ['--manifests', 'x', '--print-rules'], command: 'print-rules' },
    { args: ['--cleanup'], command: 'cleanup' },
    { args: ['--cleanup=false', '--manifests', 'x'], command: 'run' },
    { args: ['--version'], command: 'version' },
    { args: ['--help', '--version', '--cleanup'], command: 'help' },
    { args: ['-h'], command: 'help' },
    { args: ['--config=x', '--iptables-min-sync-period=1h', '--help'], command: 'help' },
  ])('of $args is $command', ({ args, command }) => {
    expect(configFromArgs(args).command).toBe(command);
  });

  it.each([[[]], [['--print-rules']], [['--manifests', '']]])(
    'of %j is refused: there is nothing to read',
    (args) => {
      expect(faultOf(args)).toMatchObject({
        code: 'ERR_FLAG_VALUE',
        message:
          '--manifests is required: a file or directory of Services and EndpointSlices (the API server source comes in a later version)',
      });
    },
  );

  it('is refused when a flag is unknown, with the nearest name', () => {
    expect(faultOf(['--manifest', 'x'])).toMatchObject({
      code: 'ERR_FLAG_UNKNOWN',
      message: 'unknown flag "--manifest": did you mean --manifests?',
    });
  });
});

describe("kube-proxy's other flags", () => {
  it('start with a warning each on a stock command line', () => {
    const { command, warnings } = run(
      '--masquerade-all',
      '--iptables_masquerade_bit=14',
      '--cluster-cidr',
      '10.244.0.0/16',
      '--feature-gates=A=true,B=false',
      '--ipvs-strict-arp',
      '--conntrack-max-per-core=0',
      '--logging-format=text',
    );
    expect(command).toBe('run');
    expect(warnings).toHaveLength(7);
    expect(warnings).toContain('--logging-format "text" is ignored: output is JSON');
    expect(warnings).toContain('--ipvs-strict-arp is ignored: there is no ipvs mode here');
  });

  it.each([...IGNORED_FLAGS.keys()])('--%s is accepted and warned of', (name) => {
    const bare = KUBE_PROXY_FLAGS[name]?.type.bareValue !== undefined;
    const { warnings } = run(...(bare ? [`--${name}`] : [`--${name}`, 'x']));
    expect(warnings).toEqual([`--${name} is ignored: ${IGNORED_FLAGS.get(name)}`]);
  });

  it.each([...REFUSED_FLAGS.keys()])('--%s is refused, because ignoring it would break a promise', (name) => {
    const bare = KUBE_PROXY_FLAGS[name]?.type.bareValue !== undefined;
    const fault = faultOf(['--manifests', 'x', ...(bare ? [`--${name}`] : [`--${name}`, 'x'])]);
    expect(fault.code).toBe('ERR_FLAG_VALUE');
    expect(fault.message).toContain(`for --${name}: not supported: `);
    expect(run(bare ? `--${name}=false` : `--${name}=`).warnings).toEqual([]);
  });

  it('are never flags of ours', () => {
    expect(Object.keys(KUBE_PROXY_FLAGS).filter((name) => name in FLAGS)).toEqual([]);
  });
});

describe('--help', () => {
  const help = renderHelp();

  it('shows every flag with its default, and no line is too wide', () => {
    for (const name of Object.keys(FLAGS)) expect(help).toContain(`--${name}`);
    for (const name of Object.keys(KUBE_PROXY_FLAGS)) expect(help).toContain(`--${name}`);
    expect(help).toContain('(default 250ms,500ms,1s,2s)');
    expect(help).toContain('(default 20000-29999)');
    expect(help).toContain('  -v, --v int\n');
    expect(help).toMatch(/\n {6}--cleanup\n {16}Remove/);
    expect(help.split('\n').filter((line) => line.length > 100)).toEqual([]);
    expect(help.endsWith('\n')).toBe(true);
  });

  it('shows defaults that the parser takes back unchanged', () => {
    const table: FlagTable = FLAGS;
    for (const { type, default: fallback } of Object.values(table)) {
      const shown = type.render(fallback);
      if (shown === '' || shown.startsWith('"')) continue;
      expect(type.parse(shown)).toEqual(fallback);
    }
  });
});

describe('/configz', () => {
  it("gives the settings in KubeProxyConfiguration's names", () => {
    const { config } = run('--udp-timeout=2m', '--healthz-bind-address=', '--hostname-override=n1', '-v2');
    expect(kubeProxyConfigurationFromConfig(config)).toEqual({
      apiVersion: 'kubeproxy.config.k8s.io/v1alpha1',
      kind: 'KubeProxyConfiguration',
      bindAddressHardFail: false,
      healthzBindAddress: '',
      hostnameOverride: 'n1',
      iptables: { minSyncPeriod: '1s', syncPeriod: '30s' },
      logging: { format: 'json', verbosity: 2 },
      metricsBindAddress: '127.0.0.1:10249',
      mode: 'userspace',
      portRange: '20000-29999',
      udpIdleTimeout: '2m0s',
      userspaceProxy: {
        affinityTableSize: 65_536,
        capture: 'redirect',
        dialTimeouts: ['250ms', '500ms', '1s', '2s'],
        drainTimeout: '30s',
        listenerGracePeriod: '1s',
        manifests: ['/etc/services'],
        maxUDPSessions: 4_096,
        stateDir: '/run/kube-userspace-proxy',
        tcpHalfCloseTimeout: '1h0m0s',
        udpUnrepliedTimeout: '30s',
      },
    });
  });
});
