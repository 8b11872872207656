/** How the native engine's events become calls of the policy, and its decisions commands: in batches, in order. */
import { describe, expect, test } from 'vitest';
import type { NativeEvent } from '../../support/native-records.ts';
import { waitFor } from '../../support/wait.ts';
import { NativeEngineFixture, dial, id } from './native-engine-fixture.ts';

const ECONNREFUSED = 111;
const ETIMEDOUT = 110;

describe('a batch', () => {
  test('is one call of the policy, and one batch of commands in the order of the events', () => {
    const fixture = new NativeEngineFixture();
    fixture.decide = ({ kind, session }) =>
      kind === 'opened' ? (session === 2 ? { kind: 'refuse' } : dial(`10.0.0.${session}`)) : undefined;

    fixture.addon.happen(
      { kind: 'opened', session: 1 },
      { kind: 'opened', session: 2 },
      { kind: 'opened', session: 3 },
    );

    expect(fixture.calls).toEqual([['opened 1', 'opened 2', 'opened 3']]);
    expect(fixture.addon.submitted).toEqual([
      [
        'dial 1 to 10.0.0.1:8080 within 250 ms, epoch 0',
        'refuse 2, epoch 0',
        'dial 3 to 10.0.0.3:8080 within 250 ms, epoch 0',
      ],
    ]);
  });

  test('tells events as the contract has them', () => {
    const fixture = new NativeEngineFixture();

    fixture.addon.happen(
      { kind: 'opened', session: 7, listener: -3, address: '2001:db8::1', port: 65_535 },
      { kind: 'dialFailed', session: 7, error: ECONNREFUSED },
      { kind: 'established', session: 7 },
      { kind: 'closed', session: 7, cause: 'backendReset', bytesIn: 2 ** 40 + 1, bytesOut: 3 },
    );

    expect(fixture.events).toEqual([
      { kind: 'opened', listener: -3, session: 7, client: { address: '2001:db8::1', port: 65_535 } },
      { kind: 'dialFailed', session: 7, failure: 'refused', errno: 'ECONNREFUSED' },
      { kind: 'established', session: 7 },
      { kind: 'closed', session: 7, cause: 'backendReset', bytesIn: 2 ** 40 + 1, bytesOut: 3 },
    ]);
  });

  test.each([
    'fin',
    'clientReset',
    'backendReset',
    'idle',
    'halfClose',
    'evicted',
    'refused',
    'backendRefused',
    'stopped',
  ] as const)('has %s by its name', (cause) => {
    const fixture = new NativeEngineFixture();

    fixture.addon.happen({ kind: 'opened', session: 1 }, { kind: 'closed', session: 1, cause });

    expect(fixture.events[1]).toMatchObject({ kind: 'closed', cause });
  });

  test('of which nothing is to be told is no call, and nothing is submitted', () => {
    const fixture = new NativeEngineFixture();

    fixture.addon.happen();

    expect(fixture.calls).toEqual([]);
    expect(fixture.addon.submitted).toEqual([]);
  });

  test('larger than the buffer is reported piece by piece, until nothing is left', async () => {
    const fixture = new NativeEngineFixture();
    const sessions = Array.from({ length: 10_000 }, (_, index) => index + 1);
    fixture.decide = () => ({ kind: 'refuse' });

    fixture.addon.happen(...sessions.map((session): NativeEvent => ({ kind: 'opened', session })));
    const withinTheTurn = fixture.events.length;
    await waitFor(() => fixture.commands.length === sessions.length, { timeoutMs: 5000, what: 'the rest' });

    expect(fixture.events.map(({ session }) => session)).toEqual(sessions);
    // The others in this process have their share.
    expect(withinTheTurn).toBeGreaterThan(1000);
    expect(withinTheTurn).toBeLessThan(sessions.length);
    expect(fixture.addon.queue).toEqual([]);
  });

  test('with an event that is none of ours is a fault', () => {
    const fixture = new NativeEngineFixture();

    expect(() => fixture.addon.happen({ kind: 'unknown' })).toThrow('kind 6');
  });
});

describe('what the policy asks for', () => {
  test('within its call goes in the same batch, before what the call returns', () => {
    const fixture = new NativeEngineFixture();
    fixture.addon.happen({ kind: 'opened', session: 1 }, { kind: 'opened', session: 2 });
    fixture.decide = () => {
      fixture.engine.reset([id(1)], 'evicted');
      fixture.engine.answer(id(2), { kind: 'refuse' });
      return dial();
    };

    fixture.addon.happen({ kind: 'opened', session: 3 });

    expect(fixture.addon.submitted).toEqual([
      ['evicted 1', 'refuse 2, epoch 1', 'dial 3 to 10.0.0.1:8080 within 250 ms, epoch 0'],
    ]);
  });

  test('at any other time goes at once', () => {
    const fixture = new NativeEngineFixture();
    fixture.addon.happen({ kind: 'opened', session: 1 }, { kind: 'opened', session: 2 });

    fixture.engine.answer(id(1), dial());
    fixture.engine.reset([id(1), id(2)]);
    fixture.engine.reset([]);

    expect(fixture.addon.submitted).toEqual([
      ['dial 1 to 10.0.0.1:8080 within 250 ms, epoch 1'],
      ['stopped 1', 'stopped 2'],
    ]);
  });

  test('for a session that it was told is established or closed, or that never was, is not even sent', () => {
    const fixture = new NativeEngineFixture();
    fixture.addon.happen(
      { kind: 'opened', session: 1 },
      { kind: 'established', session: 1 },
      { kind: 'opened', session: 2 },
      { kind: 'closed', session: 2 },
    );

    for (const session of [1, 2, 3]) fixture.engine.answer(id(session), dial());

    expect(fixture.addon.submitted).toEqual([]);
  });

  test('of a session that has closed in the same batch is not sent', () => {
    const fixture = new NativeEngineFixture();
    fixture.decide = ({ kind }) => (kind === 'opened' ? dial() : undefined);

    fixture.addon.happen(
      { kind: 'opened', session: 1 },
      { kind: 'closed', session: 1, cause: 'clientReset' },
    );

    expect(fixture.calls).toEqual([['opened 1', 'closed 1']]);
    expect(fixture.addon.submitted).toEqual([]);
  });

  test('more than fits into one batch goes in several, in order', () => {
    const fixture = new NativeEngineFixture();
    const sessions = Array.from({ length: 1500 }, (_, index) => id(index + 1));

    fixture.engine.reset(sessions);

    expect(fixture.commands).toEqual(sessions.map((session) => `stopped ${session}`));
    expect(fixture.addon.submitted.length).toBeLessThan(5);
  });

  test('with preambles keeps each with its dial, however large they are', () => {
    const fixture = new NativeEngineFixture();
    const texts = [
      'PROXY one',
      '',
      'x'.repeat(40_000),
      'y'.repeat(40_000),
      'z'.repeat(1_048_576),
      'PROXY six',
    ];
    fixture.decide = ({ session }) => dial('10.0.0.1', { preamble: Buffer.from(texts[session - 1] ?? '') });

    fixture.addon.happen(...texts.map((_, index): NativeEvent => ({ kind: 'opened', session: index + 1 })));

    expect(fixture.commands).toEqual(
      texts.map((text, index) => {
        const told = `dial ${index + 1} to 10.0.0.1:8080 within 250 ms, epoch 0`;
        return text === '' ? told : `${told}, after "${text}"`;
      }),
    );
  });

  test('is rounded and cut so that no dial ends early, and no text becomes an address by being cut', () => {
    const fixture = new NativeEngineFixture();
    const decisions = [
      dial('10.0.0.1', { timeoutMs: 0.2 }),
      dial('10.0.0.1', { timeoutMs: Number.POSITIVE_INFINITY }),
      dial(`::1${'0'.repeat(60)}`),
    ];
    fixture.decide = ({ session }) => decisions[session - 1];

    fixture.addon.happen(...[1, 2, 3].map((session): NativeEvent => ({ kind: 'opened', session })));

    expect(fixture.commands).toEqual([
      'dial 1 to 10.0.0.1:8080 within 1 ms, epoch 0',
      'dial 2 to 10.0.0.1:8080 within 4294967295 ms, epoch 0',
      // INET6_ADDRSTRLEN characters: no literal is so long.
      `dial 3 to ::1${'0'.repeat(43)}:8080 within 250 ms, epoch 0`,
    ]);
  });
});

describe('a dial that the policy has abandoned', () => {
  test.each(['dialFailed', 'established'] as const)('is heard of no more when it has %s since', (kind) => {
    const fixture = new NativeEngineFixture();
    fixture.decide = (event) => (event.kind === 'opened' ? dial() : undefined);
    fixture.addon.happen({ kind: 'opened', session: 1 });
    fixture.engine.answer(id(1), dial('10.0.0.2'));

    fixture.addon.happen({ kind, session: 1, error: ECONNREFUSED, epoch: 0 });
    expect(fixture.calls).toEqual([['opened 1']]);
    fixture.addon.happen({ kind, session: 1, error: ETIMEDOUT, epoch: 1 });

    expect(fixture.calls).toEqual([['opened 1'], [`${kind} 1`]]);
  });

  test('is not heard of even when its end is in the batch that made the policy abandon it', () => {
    const fixture = new NativeEngineFixture();
    fixture.decide = ({ kind }) => (kind === 'opened' ? dial() : undefined);
    fixture.addon.happen({ kind: 'opened', session: 1 }, { kind: 'opened', session: 2 });
    // The endpoint of the first is the second's too: it goes elsewhere.
    fixture.decide = ({ kind }) => {
      if (kind === 'dialFailed') fixture.engine.answer(id(2), dial('10.0.0.2'));
      return kind === 'dialFailed' ? { kind: 'refuse' } : undefined;
    };

    fixture.addon.happen(
      { kind: 'dialFailed', session: 1, error: ECONNREFUSED },
      { kind: 'dialFailed', session: 2, error: ECONNREFUSED },
    );

    expect(fixture.calls.slice(1)).toEqual([['dialFailed 1']]);
    expect(fixture.addon.submitted.slice(1)).toEqual([
      ['dial 2 to 10.0.0.2:8080 within 250 ms, epoch 1', 'refuse 1, epoch 0'],
    ]);
  });

  test('does not come back by a decision of the same batch', () => {
    const fixture = new NativeEngineFixture();
    fixture.addon.happen({ kind: 'opened', session: 1 });
    fixture.decide = ({ kind }) => {
      if (kind === 'dialFailed') fixture.engine.answer(id(2), dial('10.0.0.2'));
      return kind === 'opened' ? dial() : undefined;
    };

    fixture.addon.happen(
      { kind: 'opened', session: 2 },
      { kind: 'dialFailed', session: 1, error: ECONNREFUSED },
    );

    // The last one counts.
    expect(fixture.commands).toEqual([
      'dial 2 to 10.0.0.1:8080 within 250 ms, epoch 0',
      'dial 2 to 10.0.0.2:8080 within 250 ms, epoch 1',
    ]);
  });

  test('has later decisions for its session carry the count of its answers', () => {
    const fixture = new NativeEngineFixture();
    fixture.addon.happen({ kind: 'opened', session: 1 });
    fixture.engine.answer(id(1), dial());
    fixture.engine.answer(id(1), dial());
    fixture.decide = () => dial('10.0.0.3');

    fixture.addon.happen({ kind: 'dialFailed', session: 1, error: ECONNREFUSED, epoch: 2 });

    expect(fixture.commands.at(-1)).toBe('dial 1 to 10.0.0.3:8080 within 250 ms, epoch 2');
  });
});
