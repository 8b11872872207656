/** The flags about connection tracking: kube-proxy's names, defaults and limits. */
import { describe, expect, it } from 'vitest';
import { configFromArgs } from '../../src/cli/config.ts';
import { kubeProxyConfigurationFromConfig } from '../../src/cli/configz.ts';

const run = (...args: readonly string[]) => configFromArgs(['--manifests=/etc/services', ...args]);

describe('the flags about connection tracking', () => {
  it('are obeyed, and shown in /configz', () => {
    const { config, warnings } = run(
      '--conntrack-max-per-core=65536',
      '--conntrack-min=0',
      '--conntrack-tcp-timeout-established=2h',
      '--conntrack-tcp-timeout-close-wait=90s',
      '--conntrack-tcp-be-liberal',
      '--conntrack-udp-timeout=40s',
      '--conntrack-udp-timeout-stream=3m',
    );
    expect(warnings).toEqual([]);
    expect(config.conntrack).toEqual({
      maxPerCore: 65_536,
      min: 0,
      tcpEstablishedTimeoutMs: 7_200_000,
      tcpCloseWaitTimeoutMs: 90_000,
      tcpBeLiberal: true,
      udpTimeoutMs: 40_000,
      udpStreamTimeoutMs: 180_000,
    });
    expect(kubeProxyConfigurationFromConfig(config).conntrack).toEqual({
      maxPerCore: 65_536,
      min: 0,
      tcpBeLiberal: true,
      tcpCloseWaitTimeout: '1m30s',
      tcpEstablishedTimeout: '2h0m0s',
      udpStreamTimeout: '3m0s',
      udpTimeout: '40s',
    });
  });

  it.each([
    '--conntrack-max-per-core=-1',
    '--conntrack-min=many',
    '--conntrack-tcp-timeout-established=-1s',
    '--conntrack-tcp-timeout-close-wait=60',
    '--conntrack-udp-timeout=soon',
  ])('refuse %s', (flag) => {
    expect(() => run(flag)).toThrow(/^invalid argument/);
  });

  it('has a word for the flag that kube-proxy has no more', () => {
    expect(run('--conntrack-max=1').warnings).toEqual([
      '--conntrack-max is ignored: use --conntrack-max-per-core and --conntrack-min',
    ]);
  });
});
