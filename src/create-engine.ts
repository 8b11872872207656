/**
 * Chooses the engine that moves the bytes: the native one where its addon loads, the one on Node's own sockets
 * where it does not or when it is asked for. Both keep the same promises (decision 25).
 */
import type { EngineChoice } from './cli/config.ts';
import type { Engine } from './engine/engine.ts';
import { ProxyError, errorText } from './errors.ts';
import type { Logger } from './log.ts';

/** The engines there are; the values of the label `engine` of `userspace_proxy_build_info`. */
export type EngineName = Exclude<EngineChoice, 'auto'>;

/** How each engine is made. `Addon` is what the native one is built upon. */
export interface EngineMakers<Addon> {
  /** Throws when the addon is not there or does not load here; the message says why. */
  readonly loadAddon: () => Addon;
  readonly native: (addon: Addon) => Engine;
  readonly node: () => Engine;
}

export interface ChosenEngine {
  readonly engine: Engine;
  readonly name: EngineName;
}

/**
 * The engine that `choice` asks for, which one line of the log names. `auto` falls back to the node engine, and the
 * line says why. Throws a ProxyError `ERR_ENGINE_UNAVAILABLE` when `native` is asked for and its addon does not load.
 * A native engine that loads and then cannot start is a fault, never a reason to fall back: it is thrown as it is.
 */
export function createEngine<Addon>(
  choice: EngineChoice,
  makers: EngineMakers<Addon>,
  logger: Logger,
): ChosenEngine {
  if (choice === 'node') {
    logger.info({ engine: choice }, 'Engine chosen');
    return { engine: makers.node(), name: choice };
  }
  let addon: Addon;
  try {
    addon = makers.loadAddon();
  } catch (error) {
    if (choice === 'native') throw unavailable(error);
    logger.info({ engine: 'node', nativeUnavailable: errorText(error) }, 'Engine chosen');
    return { engine: makers.node(), name: 'node' };
  }
  const engine = makers.native(addon);
  logger.info({ engine: 'native' }, 'Engine chosen');
  return { engine, name: 'native' };
}

function unavailable(cause: unknown): ProxyError {
  return new ProxyError(
    'ERR_ENGINE_UNAVAILABLE',
    '--engine native: its addon does not load. Build it on this machine with `npm run build:native`, or take --engine auto',
    { cause },
  );
}
