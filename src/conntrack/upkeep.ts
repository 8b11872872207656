/** What the connection tracking table needs from time to time, beside the syncs. Cheap: two files are read. */
import type { Sysctls } from '../host/sysctl.ts';
import type { Logger } from '../log.ts';
import type { ConntrackReconciler } from './reconciler.ts';
import { type ConntrackSettings, ConntrackTuning } from './settings.ts';
import { TableAlarm, readTableUse } from './table-use.ts';

export interface UpkeepDeps {
  readonly sysctls: Sysctls;
  readonly logger: Logger;
  readonly reconciler: Pick<ConntrackReconciler, 'retry'>;
}

/** A function to be called at start and after every sync; it does not throw. */
export function conntrackUpkeep(
  { sysctls, logger, reconciler }: UpkeepDeps,
  options: { readonly settings: ConntrackSettings; readonly cores: number },
): () => void {
  const tuning = new ConntrackTuning({ sysctls, logger }, options);
  const alarm = new TableAlarm(logger);
  return () => {
    tuning.apply();
    alarm.check(readTableUse(sysctls));
    reconciler.retry();
  };
}
