/** `--cleanup`: takes what is ours out of both families and the state directory. Idempotent. */
import type { Config } from './cli/config.ts';
import { systemClock } from './clock.ts';
import { ProxyError } from './errors.ts';
import { AffinityMemory } from './host/affinity-memory.ts';
import { readHostAddresses } from './host/address-monitor.ts';
import { removeCaptureAddresses } from './host/capture-address.ts';
import { exec } from './host/exec.ts';
import { PortMemory } from './host/port-memory.ts';
import { isOwned } from './host/ownership-socket.ts';
import { legacyTables } from './host/kernel.ts';
import { removeRulesOfAll } from './iptables/cleanup.ts';
import { iptablesWithOurs } from './iptables/flavour.ts';
import type { Logger } from './log.ts';
import { kernelFamilies } from './node-settings.ts';

/**
 * The exit code: 1 when anything of it failed; the rest is done all the same. Nothing is done while an instance owns the
 * rules: they would be back within seconds, and connections would have failed for nothing.
 */
export async function cleanUp(config: Config, logger: Logger): Promise<0 | 1> {
  if (await isOwned()) {
    const error = new ProxyError(
      'ERR_INSTANCE_RUNNING',
      'an instance on this node would write the rules again',
    );
    logger.error({ error }, 'Nothing was cleaned up');
    return 1;
  }
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
      (await removeRulesOfAll(await iptablesWithOurs(family, { exec, logger, legacyTables })))
        ? 'rules removed'
        : 'there were no rules of ours',
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
      await new AffinityMemory({ clock: systemClock }, config.stateDir).remove();
      return 'no remembered ports, no remembered affinity';
    });
  }
  return exitCode;
}
