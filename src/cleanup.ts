/** `--cleanup`: takes what is ours out of both families and the state directory. Idempotent. */
import type { Config } from './cli/config.ts';
import { readHostAddresses } from './host/address-monitor.ts';
import { removeCaptureAddresses } from './host/capture-address.ts';
import { exec } from './host/exec.ts';
import { PortMemory } from './host/port-memory.ts';
import { removeRules } from './iptables/cleanup.ts';
import { Iptables } from './iptables/iptables.ts';
import type { Logger } from './log.ts';
import { kernelFamilies } from './node-settings.ts';

/** The exit code: 1 when anything of it failed; the rest is done all the same. */
export async function cleanUp(config: Config, logger: Logger): Promise<0 | 1> {
  let exitCode: 0 | 1 = 0;
  const step = async (what: object, action: () => Promise<unknown>): Promise<void> => {
    try {
      logger.info({ ...what, result: await action() }, 'Cleaned up');
    } catch (error) {
      exitCode = 1;
      logger.error({ ...what, error }, 'Clean-up failed');
    }
  };
  for (const family of kernelFamilies()) {
    await step({ family }, async () =>
      (await removeRules(new Iptables(family, exec))) ? 'rules removed' : 'there were no rules of ours',
    );
  }
  // After the rules: as long as they stand they lead there.
  await step({ interface: 'lo' }, async () => {
    const { all } = await readHostAddresses(exec);
    return (await removeCaptureAddresses(exec, all)) ? 'addresses removed' : 'there was no address of ours';
  });
  if (config.stateDir !== undefined) {
    await step({ stateDir: config.stateDir }, async () => {
      await new PortMemory(config.stateDir).remove();
      return 'no remembered ports';
    });
  }
  return exitCode;
}
