/** CategorizeEndpoints as a table: who may get new connections. */
import { describe, expect, test } from 'vitest';
import { usableEndpoints } from '../../src/desired/usable-endpoints.ts';
import type { Endpoint } from '../../src/model/endpoint.ts';

type State = 'ready' | 'notReady' | 'dying' | 'dead' | 'readyButNotServing';

const CONDITIONS: Readonly<Record<State, Pick<Endpoint, 'ready' | 'serving' | 'terminating'>>> = {
  ready: { ready: true, serving: true, terminating: false },
  notReady: { ready: false, serving: false, terminating: false },
  dying: { ready: false, serving: true, terminating: true },
  dead: { ready: false, serving: false, terminating: true },
  readyButNotServing: { ready: true, serving: false, terminating: false },
};

function endpoints(states: readonly State[]): Endpoint[] {
  return states.map((state, index) => ({
    ...CONDITIONS[state],
    key: `10.244.1.${index + 1}:80`,
    address: `10.244.1.${index + 1}` as Endpoint['address'],
    family: 'IPv4',
    port: 80,
    nodeName: '',
  }));
}

describe('usableEndpoints', () => {
  test.each<{ name: string; states: State[]; usable: number[] }>([
    { name: 'nothing of nothing', states: [], usable: [] },
    { name: 'all that are ready', states: ['ready', 'ready'], usable: [0, 1] },
    { name: 'none that is not ready', states: ['ready', 'notReady'], usable: [0] },
    { name: 'none that is dying while one is ready', states: ['dying', 'ready', 'dying'], usable: [1] },
    {
      name: 'those that are dying when none is ready',
      states: ['dying', 'notReady', 'dying'],
      usable: [0, 2],
    },
    { name: 'none that has stopped serving', states: ['dead', 'dying'], usable: [1] },
    { name: 'nothing when all are dead or not ready', states: ['dead', 'notReady'], usable: [] },
    { name: 'what is called ready without asking further', states: ['readyButNotServing'], usable: [0] },
  ])('gives $name', ({ states, usable }) => {
    const all = endpoints(states);
    expect(usableEndpoints(all)).toEqual(usable.map((index) => all[index]));
  });

  test('does not fall back to what serves, is not ready, and is not terminating', () => {
    const [one] = endpoints(['dying']);
    expect(usableEndpoints([{ ...(one as Endpoint), terminating: false }])).toEqual([]);
  });
});
