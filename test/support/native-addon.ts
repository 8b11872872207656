/**
 * The addon of the native engine for tests, which are skipped where it was not built: scripts/prepare.sh says why.
 * KUP_TEST_ADDON names another one: scripts/native-sanitizers.sh has builds of its own.
 */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { type NativeAddon, loadAddon } from '../../src/engine/native/addon.ts';

const FILE =
  process.env['KUP_TEST_ADDON'] ?? join(import.meta.dirname, '../../native/build/Release/kup_engine.node');

/**
 * False on a machine that cannot build it. One that is there and does not load fails the tests, and so does one that is
 * missing although root could have had it built: nothing is skipped for root.
 */
export function isAddonBuilt(): boolean {
  return existsSync(FILE) || process.getuid?.() === 0;
}

/** The one that is tested. Throws when it does not load. */
export function addonUnderTest(): NativeAddon {
  return loadAddon(FILE);
}
