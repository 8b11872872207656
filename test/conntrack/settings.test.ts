/** Connection tracking settings of the node: raised where they are too low, never lowered, and told where they cannot be. */
import { describe, expect, test } from 'vitest';
import { type ConntrackSettings, ConntrackTuning, wantedSysctls } from '../../src/conntrack/settings.ts';
import { FakeSysctls } from '../support/fake-sysctls.ts';
import { RecordingLogger } from '../support/recording-logger.ts';

/** kube-proxy's defaults. */
const DEFAULTS: ConntrackSettings = {
  maxPerCore: 32_768,
  min: 131_072,
  tcpEstablishedTimeoutMs: 86_400_000,
  tcpCloseWaitTimeoutMs: 3_600_000,
  tcpBeLiberal: false,
  udpTimeoutMs: 0,
  udpStreamTimeoutMs: 0,
};
const NOTHING: ConntrackSettings = {
  ...DEFAULTS,
  maxPerCore: 0,
  min: 0,
  tcpEstablishedTimeoutMs: 0,
  tcpCloseWaitTimeoutMs: 0,
};
const NAME = 'net.netfilter.nf_conntrack_';
/** The kernel's on a machine with 4 GB. */
const KERNEL = {
  [`${NAME}max`]: 65_536,
  [`${NAME}buckets`]: 65_536,
  [`${NAME}tcp_timeout_established`]: 432_000,
  [`${NAME}tcp_timeout_close_wait`]: 60,
  [`${NAME}tcp_be_liberal`]: 0,
  [`${NAME}udp_timeout`]: 30,
  [`${NAME}udp_timeout_stream`]: 120,
};

describe('what is wanted', () => {
  const wanted = (tweak: Partial<ConntrackSettings>, cores = 2): Record<string, number> =>
    Object.fromEntries(
      wantedSysctls({ ...NOTHING, ...tweak }, cores).map(({ name, value }) => [
        name.replace(NAME, ''),
        value,
      ]),
    );

  test.each<{ name: string; tweak: Partial<ConntrackSettings>; cores?: number; expected: object }>([
    { name: 'zeros: nothing', tweak: {}, expected: {} },
    {
      name: 'few cores: the minimum',
      tweak: { maxPerCore: 32_768, min: 131_072 },
      expected: { max: 131_072, buckets: 32_768 },
    },
    {
      name: 'many cores: so many for each',
      tweak: { maxPerCore: 32_768, min: 131_072 },
      cores: 16,
      expected: { max: 524_288, buckets: 131_072 },
    },
    {
      name: 'nothing for each core: the size stays, whatever the minimum',
      tweak: { min: 131_072 },
      expected: {},
    },
    {
      name: 'times in whole seconds',
      tweak: {
        tcpEstablishedTimeoutMs: 86_400_000,
        tcpCloseWaitTimeoutMs: 3_600_500,
        udpTimeoutMs: 60_000,
        udpStreamTimeoutMs: 999,
      },
      expected: { tcp_timeout_established: 86_400, tcp_timeout_close_wait: 3_600, udp_timeout: 60 },
    },
    { name: 'liberal', tweak: { tcpBeLiberal: true }, expected: { tcp_be_liberal: 1 } },
  ])('$name', ({ tweak, cores, expected }) => {
    expect(wanted(tweak, cores)).toEqual(expected);
  });
});

describe('a node', () => {
  const apply = (
    sysctls: FakeSysctls,
    settings: ConntrackSettings = DEFAULTS,
  ): { logger: RecordingLogger; again: () => void } => {
    const logger = new RecordingLogger();
    const tuning = new ConntrackTuning({ sysctls, logger }, { settings, cores: 2 });
    tuning.apply();
    return { logger, again: () => tuning.apply() };
  };

  test('gets what is too low raised, and keeps what is higher', () => {
    const sysctls = new FakeSysctls(KERNEL);
    const { logger } = apply(sysctls);
    expect(sysctls.values).toEqual({
      ...KERNEL,
      [`${NAME}max`]: 131_072,
      [`${NAME}tcp_timeout_close_wait`]: 3_600,
    });
    expect(logger.lines.map(({ level }) => level)).toEqual(['info', 'info']);
  });

  test('is let alone by zeros', () => {
    const sysctls = new FakeSysctls(KERNEL);
    const { logger } = apply(sysctls, NOTHING);
    expect(sysctls.values).toEqual(KERNEL);
    expect(logger.lines).toEqual([]);
  });

  test('that does not let itself be set is told of, once for each value that does not do', () => {
    const sysctls = new FakeSysctls(KERNEL, { isReadOnly: true });
    const { logger, again } = apply(sysctls);
    again();
    expect(logger.lines).toMatchObject([
      {
        level: 'warn',
        fields: { sysctl: `${NAME}max`, found: 65_536, wanted: 131_072, error: { code: 'ERR_SYSCTL_WRITE' } },
      },
      { level: 'warn', fields: { sysctl: `${NAME}tcp_timeout_close_wait`, found: 60, wanted: 3_600 } },
    ]);
  });

  test('whose values do is not written to: no warning where it would not let us', () => {
    const enough = { ...KERNEL, [`${NAME}max`]: 262_144, [`${NAME}tcp_timeout_close_wait`]: 3_600 };
    expect(apply(new FakeSysctls(enough, { isReadOnly: true })).logger.lines).toEqual([]);
  });

  test('that has no connection tracking yet gets it when it has', () => {
    const sysctls = new FakeSysctls({});
    const { logger, again } = apply(sysctls);
    expect(logger.lines).toEqual([]);
    Object.assign(sysctls.values, KERNEL);
    again();
    expect(sysctls.values[`${NAME}tcp_timeout_close_wait`]).toBe(3_600);
  });

  test('keeps what somebody else sets later: each value is settled once', () => {
    const sysctls = new FakeSysctls(KERNEL);
    const { again } = apply(sysctls);
    sysctls.values[`${NAME}tcp_timeout_close_wait`] = 60;
    again();
    expect(sysctls.values[`${NAME}tcp_timeout_close_wait`]).toBe(60);
  });
});
