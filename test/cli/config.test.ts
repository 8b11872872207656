import { describe, expect, it } from 'vitest';
import { configFromArgs } from '../../src/cli/config.ts';
import { kubeProxyConfigurationFromConfig } from '../../src/cli/configz.ts';
import { FLAGS } from '../../src/cli/flag-table.ts';
import type { FlagTable } from '../../src/cli/flags.ts';
import { renderHelp } from '../../src/cli/help.ts';
import { IGNORED_FLAGS, KUBE_PROXY_FLAGS, REFUSED_FLAGS } from '../../src/cli/kube-proxy-flags.ts';
import { ProxyError } from '../../src/errors.ts';
import { SCHEDULERS } from '../../src/model/service-policy.ts';

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
        kubeconfig: '',
        masters: [],
        serviceProxyName: '',
        watchStallTimeoutMs: 180_000,
        hostnameOverride: '',
        capture: 'redirect',
        engine: 'auto',
        proxyPortRange: { first: 20_000, last: 29_999 },
        stateDir: '/run/kube-userspace-proxy',
        syncPeriodMs: 30_000,
        minSyncPeriodMs: 1_000,
        listenerGracePeriodMs: 1_000,
        drainTimeoutMs: 30_000,
        scheduler: 'rr',
        nodePortAddresses: [],
        localhostNodePorts: true,
        disableExternalIPs: false,
        externalClusterIP: true,
        localDetection: { kind: 'none' },
        conntrack: {
          maxPerCore: 32_768,
          min: 131_072,
          tcpEstablishedTimeoutMs: 86_400_000,
          tcpCloseWaitTimeoutMs: 3_600_000,
          tcpBeLiberal: false,
          udpTimeoutMs: 0,
          udpStreamTimeoutMs: 0,
        },
        dialTimeoutsMs: [250, 500, 1_000, 2_000],
        ejectionTimeMs: 1_000,
        halfCloseTimeoutMs: 3_600_000,
        udpRepliedTimeoutMs: 120_000,
        udpUnrepliedTimeoutMs: 30_000,
        tcpIdleTimeoutMs: 0,
        maxConnections: 0,
        maxConnectionsPerService: 0,
        maxConcurrentDials: 256,
        maxUdpSessionsPerService: 0,
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
    { args: ['--watch-stall-timeout=1s'], key: 'watchStallTimeoutMs', value: 1_000 },
    { args: ['--watch-stall-timeout', '5m'], key: 'watchStallTimeoutMs', value: 300_000 },
    { args: ['--hostname-override', ' Node-A '], key: 'hostnameOverride', value: 'node-a' },
    { args: ['--proxy-mode=userspace'], key: 'capture', value: 'redirect' },
    { args: ['--proxy-mode='], key: 'capture', value: 'redirect' },
    { args: ['--capture=redirect'], key: 'capture', value: 'redirect' },
    { args: ['--capture', 'link-local'], key: 'capture', value: 'link-local' },
    { args: ['--engine=auto'], key: 'engine', value: 'auto' },
    { args: ['--engine', 'native'], key: 'engine', value: 'native' },
    { args: ['--engine=node'], key: 'engine', value: 'node' },
    { args: ['--iptables-localhost-nodeports'], key: 'localhostNodePorts', value: true },
    { args: ['--iptables-localhost-nodeports=false'], key: 'localhostNodePorts', value: false },
    { args: ['--disable-external-ips'], key: 'disableExternalIPs', value: true },
    { args: ['--disable-external-ips=false'], key: 'disableExternalIPs', value: false },
    { args: ['--external-clusterip'], key: 'externalClusterIP', value: true },
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
    { args: ['--capture', 'tproxy'], says: ['--capture', '"tproxy"', '"redirect" or "link-local"'] },
    { args: ['--engine', 'go'], says: ['--engine', '"go"', '"auto" or "native" or "node"'] },
    { args: ['--capture='], says: ['--capture', '""', '"redirect" or "link-local"'] },
    { args: ['--iptables-localhost-nodeports=maybe'], says: ['--iptables-localhost-nodeports', '"maybe"'] },
    { args: ['--disable-external-ips=maybe'], says: ['--disable-external-ips', '"maybe"', 'true or false'] },
    { args: ['--external-clusterip=maybe'], says: ['--external-clusterip', '"maybe"', 'true or false'] },
    { args: ['--scheduler='], says: ['--scheduler', '""', '"rr" or "random" or "lc"'] },
    { args: ['--scheduler', 'wrr'], says: ['--scheduler', '"wrr"', '"rr" or "random" or "lc"', '"nq"'] },
    { args: ['--scheduler', 'RR'], says: ['--scheduler', '"RR"', '"rr"'] },
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
    { args: ['--watch-stall-timeout', '999ms'], says: ['--watch-stall-timeout', '"999ms"', 'from 1s'] },
    { args: ['--watch-stall-timeout=0'], says: ['--watch-stall-timeout', '"0"', 'from 1s'] },
    { args: ['--logging-format', 'xml'], says: ['--logging-format', '"xml"', '"json"'] },
    { args: ['--cleanup', '--print-rules'], says: ['--print-rules', '--cleanup'] },
  ])('refuses $args and says why', ({ args, says }) => {
    const fault = faultOf(['--manifests', 'x', ...args]);
    expect(fault.code).toBe('ERR_FLAG_VALUE');
    for (const part of says) expect(fault.message).toContain(part);
  });
});

it.each([...SCHEDULERS])('the scheduler can be %s', (name) => {
  expect(run('--scheduler', name).config.scheduler).toBe(name);
});

describe('an API server as the source', () => {
  it.each([
    { name: 'no flag at all', args: [] },
    { name: '--print-rules alone', args: ['--print-rules'] },
    { name: '--manifests with nothing in it', args: ['--manifests', ''] },
  ])('is what $name asks for: that of the pod', ({ args }) => {
    expect(configFromArgs(args).config).toMatchObject({ manifests: [], kubeconfig: '', masters: [] });
  });

  it.each<{ args: readonly string[]; origins: readonly string[] }>([
    { args: ['--master', 'https://10.0.0.1:6443'], origins: ['https://10.0.0.1:6443'] },
    { args: ['--master=https://10.0.0.1:6443/'], origins: ['https://10.0.0.1:6443'] },
    { args: ['--master', 'http://127.0.0.1:8080'], origins: ['http://127.0.0.1:8080'] },
    { args: ['--master', '10.0.0.1:6443'], origins: ['https://10.0.0.1:6443'] },
    { args: ['--master', 'api.example.org'], origins: ['https://api.example.org'] },
    { args: ['--master', 'https://[FD00::1]:6443'], origins: ['https://[fd00::1]:6443'] },
    { args: ['--master', 'a:6443, b:6443'], origins: ['https://a:6443', 'https://b:6443'] },
    { args: ['--master', 'a:1,b:2', '--master=c:3'], origins: ['https://a:1', 'https://b:2', 'https://c:3'] },
  ])('has the addresses $origins for $args, in that order', ({ args, origins }) => {
    expect(configFromArgs(args).config.masters.map(({ origin }) => origin)).toEqual(origins);
  });

  it.each<{ name: string; value: string }>([
    { name: 'a path', value: 'https://10.0.0.1:6443/k8s/clusters/c1' },
    { name: 'a query', value: 'https://10.0.0.1:6443?a=b' },
    { name: 'a fragment', value: 'https://10.0.0.1:6443#a' },
    { name: 'a user with a password', value: 'https://admin:secret@10.0.0.1:6443' },
    { name: 'a user alone', value: 'https://admin@10.0.0.1:6443' },
    { name: 'another scheme', value: 'ftp://10.0.0.1' },
    { name: 'a port that is none', value: 'https://10.0.0.1:65536' },
    { name: 'a space in it', value: 'https://10.0.0.1 :6443' },
    { name: 'one bad address among good ones', value: 'https://10.0.0.1:6443,ftp://10.0.0.2' },
    { name: 'a comma at its end', value: 'https://10.0.0.1:6443,' },
  ])('cannot be at an address with $name', ({ value }) => {
    const fault = faultOf(['--master', value]);
    expect(fault.code).toBe('ERR_FLAG_VALUE');
    expect(fault.message).toBe(
      `invalid argument ${JSON.stringify(value)} for --master: must be addresses of API servers such as ` +
        'https://10.0.0.1:6443, separated by commas, without path or user',
    );
  });

  it('is reached with the kubeconfig, for the name, and at the addresses that are given', () => {
    const args = ['--kubeconfig=/etc/kube/config', '--service-proxy-name=edge', '--master=10.0.0.1:6443'];
    const { config, command } = configFromArgs(args);
    expect(command).toBe('run');
    expect(config).toMatchObject({ kubeconfig: '/etc/kube/config', serviceProxyName: 'edge' });
    expect(config.masters).toEqual([new URL('https://10.0.0.1:6443')]);
    expect(Object.isFrozen(config.masters)).toBe(true);
  });

  it.each([[''], ['a'], ['edge'], ['A.b-c_9'], ['x'.repeat(63)]])(
    'may be asked for the Services of proxy %j',
    (value) => {
      expect(configFromArgs(['--service-proxy-name', value]).config.serviceProxyName).toBe(value);
    },
  );

  it.each([['-edge'], ['edge-'], ['two words'], ['a/b'], ['a,b'], ['ä'], ['x'.repeat(64)], ['edge\n']])(
    'cannot be asked for the Services of proxy %j: that is no value of a label',
    (value) => {
      expect(faultOf(['--service-proxy-name', value])).toMatchObject({
        code: 'ERR_FLAG_VALUE',
        message: expect.stringContaining('for --service-proxy-name: must be a label value: at most 63'),
      });
    },
  );

  it.each([
    { flag: 'kubeconfig', value: '/etc/kube/config' },
    { flag: 'master', value: 'https://10.0.0.1:6443' },
  ])('is no second source beside --manifests: --$flag is refused with it', ({ flag, value }) => {
    const fault = faultOf(['--manifests', 'x', `--${flag}`, value]);
    expect(fault.code).toBe('ERR_FLAG_VALUE');
    expect(fault.message).toContain(`for --${flag}: cannot be combined with --manifests`);
  });

  it.each([['--kubeconfig='], ['--service-proxy-name='], ['--watch-stall-timeout=1m']])(
    'is not asked for by %s, so --manifests may stand beside it',
    (flag) => {
      expect(run(flag).config.manifests).toEqual(['/etc/services']);
    },
  );
});

describe('the command', () => {
  it.each([
    { args: ['--manifests', 'x'], command: 'run' },
    { args: [], command: 'run' },
    { args: ['--kubeconfig', 'x', '--print-rules'], command: 'print-rules' },
    { args: ['--manifests', 'x', '--print-rules'], command: 'print-rules' },
    { args: ['--cleanup'], command: 'cleanup' },
    { args: ['--cleanup=false', '--manifests', 'x'], command: 'run' },
    { args: ['--version'], command: 'version' },
    { args: ['--help', '--version', '--cleanup'], command: 'help' },
    { args: ['-h'], command: 'help' },
    { args: ['--config=x', '--iptables-min-sync-period=1h', '--help'], command: 'help' },
    { args: ['--external-clusterip=false', '--help'], command: 'help' },
    { args: ['--detect-local-mode=BridgeInterface', '--version'], command: 'version' },
    { args: ['--nodeport-addresses=primary,10.0.0.0/8', '-h'], command: 'help' },
  ])('of $args is $command', ({ args, command }) => {
    expect(configFromArgs(args).command).toBe(command);
  });

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
      '--kube-api-qps',
      '5',
      '--feature-gates=A=true,B=false',
      '--ipvs-strict-arp',
      '--conntrack-max=131072',
      '--logging-format=text',
    );
    expect(command).toBe('run');
    expect(warnings).toHaveLength(7);
    expect(warnings).toContain('--logging-format "text" is ignored: output is JSON');
    expect(warnings).toContain('--ipvs-strict-arp is ignored: there is no ipvs mode here');
  });

  it('say where to choose a scheduler instead', () => {
    expect(run('--ipvs-scheduler=lc')).toMatchObject({
      config: { scheduler: 'rr' },
      warnings: ['--ipvs-scheduler is ignored: there is no ipvs mode here; use --scheduler'],
    });
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
      clientConnection: { kubeconfig: '' },
      clusterCIDR: '',
      conntrack: {
        maxPerCore: 32_768,
        min: 131_072,
        tcpBeLiberal: false,
        tcpCloseWaitTimeout: '1h0m0s',
        tcpEstablishedTimeout: '24h0m0s',
        udpStreamTimeout: '0s',
        udpTimeout: '0s',
      },
      detectLocal: { bridgeInterface: '', interfaceNamePrefix: '' },
      detectLocalMode: 'ClusterCIDR',
      healthzBindAddress: '',
      hostnameOverride: 'n1',
      iptables: { localhostNodePorts: true, minSyncPeriod: '1s', syncPeriod: '30s' },
      logging: { format: 'json', verbosity: 2 },
      metricsBindAddress: '127.0.0.1:10249',
      mode: 'userspace',
      nodePortAddresses: [],
      portRange: '20000-29999',
      udpIdleTimeout: '2m0s',
      userspaceProxy: {
        affinityTableSize: 65_536,
        capture: 'redirect',
        dialTimeouts: ['250ms', '500ms', '1s', '2s'],
        disableExternalIPs: false,
        drainTimeout: '30s',
        ejectionTime: '1s',
        engine: 'auto',
        externalClusterIP: true,
        listenerGracePeriod: '1s',
        manifests: ['/etc/services'],
        masters: [],
        maxConcurrentDials: 256,
        maxConnections: 0,
        maxConnectionsPerService: 0,
        maxUDPSessions: 4_096,
        maxUDPSessionsPerService: 0,
        scheduler: 'rr',
        serviceProxyName: '',
        stateDir: '/run/kube-userspace-proxy',
        tcpHalfCloseTimeout: '1h0m0s',
        tcpIdleTimeout: '0s',
        udpUnrepliedTimeout: '30s',
        watchStallTimeout: '3m0s',
      },
    });
  });

  it('tells which API servers are asked, and how', () => {
    const { config } = configFromArgs([
      '--kubeconfig=/etc/kube/config',
      '--master=10.0.0.1:6443,http://[::1]:8080',
      '--service-proxy-name=edge',
      '--watch-stall-timeout=90s',
    ]);
    expect(kubeProxyConfigurationFromConfig(config)).toMatchObject({
      clientConnection: { kubeconfig: '/etc/kube/config' },
      userspaceProxy: {
        manifests: [],
        masters: ['https://10.0.0.1:6443', 'http://[::1]:8080'],
        serviceProxyName: 'edge',
        watchStallTimeout: '1m30s',
      },
    });
  });

  it('tells whose traffic is served, and where', () => {
    const { config } = run(
      '--capture=link-local',
      '--scheduler=lc',
      '--iptables-localhost-nodeports=false',
      '--disable-external-ips',
      '--external-clusterip=false',
      '--cluster-cidr=10.244.0.0/16,fd00:10:244::/56',
      '--nodeport-addresses=10.0.0.7/8',
      '--nodeport-addresses=FD00::/8',
    );
    expect(kubeProxyConfigurationFromConfig(config)).toMatchObject({
      clusterCIDR: '10.244.0.0/16,fd00:10:244::/56',
      iptables: { localhostNodePorts: false },
      nodePortAddresses: ['10.0.0.0/8', 'fd00::/8'],
      userspaceProxy: {
        capture: 'link-local',
        disableExternalIPs: true,
        externalClusterIP: false,
        scheduler: 'lc',
      },
    });
  });

  it('tells that NodePorts are served at the InternalIPs of the Node', () => {
    const { config } = run('--nodeport-addresses=primary');
    expect(kubeProxyConfigurationFromConfig(config).nodePortAddresses).toEqual(['primary']);
  });

  it.each([
    {
      args: ['--cluster-cidr=10.0.0.0/8'],
      mode: 'ClusterCIDR',
      clusterCIDR: '10.0.0.0/8',
      detectLocal: { bridgeInterface: '', interfaceNamePrefix: '' },
    },
    {
      args: ['--detect-local-mode=NodeCIDR', '--cluster-cidr=10.0.0.0/8'],
      mode: 'NodeCIDR',
      clusterCIDR: '',
      detectLocal: { bridgeInterface: '', interfaceNamePrefix: '' },
    },
    {
      args: ['--detect-local-mode=BridgeInterface', '--pod-bridge-interface=cni0'],
      mode: 'BridgeInterface',
      clusterCIDR: '',
      detectLocal: { bridgeInterface: 'cni0', interfaceNamePrefix: '' },
    },
    {
      args: ['--detect-local-mode=InterfaceNamePrefix', '--pod-interface-name-prefix=cali'],
      mode: 'InterfaceNamePrefix',
      clusterCIDR: '',
      detectLocal: { bridgeInterface: '', interfaceNamePrefix: 'cali' },
    },
  ])('tells how pods are known with $args', ({ args, mode, clusterCIDR, detectLocal }) => {
    expect(kubeProxyConfigurationFromConfig(run(...args).config)).toMatchObject({
      clusterCIDR,
      detectLocal,
      detectLocalMode: mode,
    });
  });
});
