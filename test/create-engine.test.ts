/** Which engine `--engine` gives, and what is said about it. */
import { describe, expect, test } from 'vitest';
import { type EngineMakers, createEngine } from '../src/create-engine.ts';
import type { Engine } from '../src/engine/engine.ts';
import { ProxyError, errorText } from '../src/errors.ts';
import { RecordingLogger } from './support/recording-logger.ts';

const NATIVE = { is: 'native' } as unknown as Engine;
const NODE = { is: 'node' } as unknown as Engine;
const ADDON = { is: 'addon' };

/** Makers that count what they were asked for, and refuse what a test did not expect. */
function makers(tweak: Partial<EngineMakers<typeof ADDON>>): EngineMakers<typeof ADDON> {
  const refuse = (what: string) => (): never => {
    throw new Error(`${what} was not to be made`);
  };
  return {
    loadAddon: refuse('the addon'),
    native: refuse('the native engine'),
    node: refuse('the node engine'),
    ...tweak,
  };
}

const doesNotLoad = (): never => {
  throw new Error('/opt/kup/native/build/Release/kup_engine.node is not there');
};

function linesOf(logger: RecordingLogger): readonly object[] {
  return logger.lines.map(({ level, message, fields }) => ({ level, message, ...fields }));
}

describe('an addon that loads', () => {
  test.each(['auto', 'native'] as const)('%s makes the native engine, on that addon', (choice) => {
    const logger = new RecordingLogger();
    const given: unknown[] = [];
    const native = (addon: typeof ADDON): Engine => {
      given.push(addon);
      return NATIVE;
    };

    const chosen = createEngine(choice, makers({ loadAddon: () => ADDON, native }), logger);

    expect(chosen).toEqual({ engine: NATIVE, name: 'native' });
    expect(given).toEqual([ADDON]);
    expect(linesOf(logger)).toEqual([{ level: 'info', message: 'Engine chosen', engine: 'native' }]);
  });

  test('node does not even look for it', () => {
    const logger = new RecordingLogger();

    const chosen = createEngine('node', makers({ node: () => NODE }), logger);

    expect(chosen).toEqual({ engine: NODE, name: 'node' });
    expect(linesOf(logger)).toEqual([{ level: 'info', message: 'Engine chosen', engine: 'node' }]);
  });

  test.each(['auto', 'native'] as const)(
    '%s ends with the fault of an engine that cannot start on it, instead of taking another',
    (choice) => {
      const fault = new Error('EMFILE: epoll_create1');
      const native = (): never => {
        throw fault;
      };
      const logger = new RecordingLogger();
      expect(() => createEngine(choice, makers({ loadAddon: () => ADDON, native }), logger)).toThrow(fault);
      expect(logger.lines).toEqual([]);
    },
  );
});

describe('an addon that does not load', () => {
  test('auto takes the node engine, and the log says why', () => {
    const logger = new RecordingLogger();

    const chosen = createEngine('auto', makers({ loadAddon: doesNotLoad, node: () => NODE }), logger);

    expect(chosen).toEqual({ engine: NODE, name: 'node' });
    expect(linesOf(logger)).toEqual([
      {
        level: 'info',
        message: 'Engine chosen',
        engine: 'node',
        nativeUnavailable: '/opt/kup/native/build/Release/kup_engine.node is not there',
      },
    ]);
  });

  test('native fails with a code, the reason, and what to do', () => {
    const logger = new RecordingLogger();
    let thrown: unknown;
    try {
      createEngine('native', makers({ loadAddon: doesNotLoad }), logger);
    } catch (error) {
      thrown = error;
    }

    expect(thrown).toBeInstanceOf(ProxyError);
    expect(thrown).toMatchObject({ code: 'ERR_ENGINE_UNAVAILABLE' });
    expect(errorText(thrown)).toContain('npm run build:native');
    expect(errorText(thrown)).toContain('kup_engine.node is not there');
    expect(logger.lines).toEqual([]);
  });
});
