/** Other programs' rules before ours: said once for each built-in chain. */
import { expect, test } from 'vitest';
import type { TableRulesAhead } from '../../src/iptables/installer.ts';
import { RulesAheadLog } from '../../src/sync/rules-ahead-log.ts';
import { RecordingLogger } from '../support/recording-logger.ts';

const at = (hook: TableRulesAhead['hook'], count: number): TableRulesAhead => ({
  table: 'filter',
  hook,
  count,
  first: count === 0 ? '' : '-j cali',
});

test('rules of others before ours are told once for each chain and family, and not where there are none', () => {
  const logger = new RecordingLogger();
  const log = new RulesAheadLog(logger);
  for (let look = 0; look < 2; look += 1) {
    log.update('IPv4', [at('INPUT', 2), at('FORWARD', 0)]);
    log.update('IPv6', [at('INPUT', 1)]);
  }
  log.update('IPv4', [at('INPUT', 0), at('FORWARD', 1)]);
  log.update('IPv4', [at('INPUT', 5), at('FORWARD', 1)]);
  expect(logger.lines.map(({ level, fields }) => [level, fields])).toEqual([
    ['warn', { family: 'IPv4', table: 'filter', chain: 'INPUT', rules: 2, first: '-j cali' }],
    ['warn', { family: 'IPv6', table: 'filter', chain: 'INPUT', rules: 1, first: '-j cali' }],
    ['warn', { family: 'IPv4', table: 'filter', chain: 'FORWARD', rules: 1, first: '-j cali' }],
  ]);
});
