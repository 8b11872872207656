/** When affinity is saved, when not, and what a store that fails costs. */
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { ProxyError } from '../../src/errors.ts';
import { AffinityKeeper, SAVE_INTERVAL_MS, SAVE_RETRY_MS } from '../../src/proxy/affinity-keeper.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { RecordingLogger } from '../support/recording-logger.ts';

beforeEach(() => {
  vi.useFakeTimers();
});
afterEach(() => {
  vi.useRealTimers();
});

const FAULT = new ProxyError('ERR_STATE_DIR', 'no room');

class KeeperFixture {
  readonly clock = new FakeClock();
  readonly logger = new RecordingLogger();
  readonly restored: string[][] = [];
  saves = 0;
  changes = 0;
  isOwner = true;
  fault: Error | undefined;
  saveTakesMs = 0;
  readonly keeper = new AffinityKeeper({
    clock: this.clock,
    logger: this.logger,
    isOwner: () => this.isOwner,
    store: {
      load: async () => {
        if (this.fault !== undefined) throw this.fault;
        return Promise.resolve(new Map([['web', []]]));
      },
      save: async () => {
        this.saves += 1;
        this.clock.advance(this.saveTakesMs);
        if (this.fault !== undefined) throw this.fault;
        return Promise.resolve();
      },
    },
    holder: this.#holder(),
  });

  async after(ms: number): Promise<number> {
    await vi.advanceTimersByTimeAsync(ms);
    return this.saves;
  }

  #holder() {
    const changes = (): number => this.changes;
    return {
      restoreAffinity: (ties: ReadonlyMap<string, unknown>) => void this.restored.push([...ties.keys()]),
      affinity: () => [],
      get affinityChanges() {
        return changes();
      },
    };
  }
}

describe('saving', () => {
  test('happens once in the interval when something changed, and not when nothing did', async () => {
    const fixture = new KeeperFixture();
    fixture.keeper.start();
    expect(await fixture.after(2 * SAVE_INTERVAL_MS)).toBe(0);
    fixture.changes = 5;
    expect(await fixture.after(SAVE_INTERVAL_MS)).toBe(1);
    expect(await fixture.after(10 * SAVE_INTERVAL_MS)).toBe(1);
    fixture.changes = 6;
    expect(await fixture.after(SAVE_INTERVAL_MS - 1)).toBe(1);
    expect(await fixture.after(1)).toBe(2);
    await fixture.keeper.close();
  });

  test('happens at the end, at once, and then never again', async () => {
    const fixture = new KeeperFixture();
    fixture.keeper.start();
    fixture.changes = 1;
    await fixture.keeper.close();
    await fixture.keeper.close();
    expect(fixture.saves).toBe(1);
    fixture.changes = 2;
    expect(await fixture.after(10 * SAVE_INTERVAL_MS)).toBe(1);
    expect(vi.getTimerCount()).toBe(0);
  });

  test('does not happen at the end when all is saved', async () => {
    const fixture = new KeeperFixture();
    fixture.changes = 1;
    fixture.keeper.start();
    await fixture.after(SAVE_INTERVAL_MS);
    await fixture.keeper.close();
    expect(fixture.saves).toBe(1);
  });

  test('is the owner’s alone, from the moment on when it is the owner', async () => {
    const fixture = new KeeperFixture();
    fixture.isOwner = false;
    fixture.changes = 1;
    fixture.keeper.start();
    expect(await fixture.after(3 * SAVE_INTERVAL_MS)).toBe(0);
    fixture.isOwner = true;
    expect(await fixture.after(SAVE_INTERVAL_MS)).toBe(1);
    fixture.isOwner = false;
    fixture.changes = 2;
    await fixture.keeper.close();
    expect(fixture.saves).toBe(1);
  });

  test('begins, where another instance was the owner meanwhile, with what that one has saved', async () => {
    const fixture = new KeeperFixture();
    fixture.isOwner = false;
    await fixture.keeper.restore();
    fixture.changes = 1;
    fixture.keeper.start();
    await fixture.after(2 * SAVE_INTERVAL_MS);
    expect(fixture.restored).toHaveLength(1);
    fixture.isOwner = true;
    expect(await fixture.after(SAVE_INTERVAL_MS)).toBe(1);
    expect(fixture.restored).toHaveLength(2);
    fixture.changes = 2;
    expect(await fixture.after(SAVE_INTERVAL_MS)).toBe(2);
    expect(fixture.restored).toHaveLength(2);
    await fixture.keeper.close();
  });

  test('takes a fiftieth of the time at most, however long one save takes', async () => {
    const fixture = new KeeperFixture();
    fixture.saveTakesMs = 400;
    fixture.changes = 1;
    fixture.keeper.start();
    await fixture.after(SAVE_INTERVAL_MS);
    fixture.changes = 2;
    expect(await fixture.after(400 * 50 - 1)).toBe(1);
    expect(await fixture.after(1)).toBe(2);
    await fixture.keeper.close();
  });
});

describe('a store that fails', () => {
  test('is told once, and asked again after a minute, until it works', async () => {
    const fixture = new KeeperFixture();
    await fixture.keeper.restore();
    fixture.fault = FAULT;
    fixture.changes = 1;
    fixture.keeper.start();
    expect(await fixture.after(SAVE_INTERVAL_MS)).toBe(1);
    expect(await fixture.after(SAVE_RETRY_MS - 1)).toBe(1);
    expect(await fixture.after(1)).toBe(2);
    expect(fixture.logger.lines).toEqual([
      { level: 'warn', message: 'Affinity will be lost with a restart', fields: { error: FAULT } },
    ]);
    fixture.fault = undefined;
    expect(await fixture.after(SAVE_RETRY_MS)).toBe(3);
    fixture.changes = 2;
    expect(await fixture.after(SAVE_INTERVAL_MS)).toBe(4);
    fixture.fault = FAULT;
    fixture.changes = 3;
    await fixture.keeper.close();
    expect(fixture.logger.lines).toHaveLength(2);
  });

  test('costs what was in it, with one warning, and nothing else', async () => {
    const fixture = new KeeperFixture();
    fixture.fault = FAULT;
    await fixture.keeper.restore();
    await fixture.keeper.restore();
    expect(fixture.restored).toEqual([]);
    expect(fixture.logger.lines).toEqual([
      {
        level: 'warn',
        message: 'Affinity of the last run is lost, clients are tied anew',
        fields: { error: FAULT },
      },
    ]);
  });
});

test('what is saved is brought in, as often as asked', async () => {
  const fixture = new KeeperFixture();
  await fixture.keeper.restore();
  await fixture.keeper.restore();
  expect(fixture.restored).toEqual([['web'], ['web']]);
});
