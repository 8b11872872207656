/** One greedy Service or client never takes the node from the others, and a cap is a cap. */
import { describe, expect, test } from 'vitest';
import { Admission, type AdmissionOptions, type Parties } from '../../src/proxy/admission.ts';

const WEB = { name: 'web' };
const DNS = { name: 'dns' };

function admission(tweak: Partial<AdmissionOptions> = {}): Admission {
  return new Admission({ maxPerService: 0, capacity: () => 160, ...tweak });
}

/** Lets in as many as may come; how many that were. */
function fill(subject: Admission, parties: (index: number) => Parties, most = 1000): number {
  for (let index = 0; index < most; index += 1) {
    const next = parties(index);
    if (subject.refusalOf(next) !== undefined) return index;
    subject.opened(next);
  }
  return most;
}

describe('a node with room for 160 connections', () => {
  test('gives one Service all but half of the last sixteenth, and that to others', () => {
    const subject = admission();
    expect(fill(subject, (index) => ({ service: WEB, client: `10.0.0.${index}` }))).toBe(155);
    expect(subject.refusalOf({ service: WEB, client: '10.9.9.9' })).toMatch(/for other Services/);
    expect(subject.refusalOf({ service: DNS, client: '10.9.9.9' })).toBeUndefined();
  });

  test('gives one client all but the last sixteenth, whichever Services it turns to', () => {
    const subject = admission();
    expect(fill(subject, () => ({ service: {}, client: '10.0.0.1' }))).toBe(150);
    expect(subject.refusalOf({ service: DNS, client: '10.0.0.1' })).toMatch(/for other clients/);
    expect(subject.refusalOf({ service: DNS, client: '10.0.0.2' })).toBeUndefined();
  });

  test('lets other clients into a Service that one client has filled', () => {
    const subject = admission();
    fill(subject, () => ({ service: WEB, client: '10.0.0.1' }));
    expect(fill(subject, (index) => ({ service: WEB, client: `10.0.1.${index}` }))).toBe(5);
    expect(subject.refusalOf({ service: DNS, client: '10.0.1.99' })).toBeUndefined();
  });

  test('gives all 160 to many small ones, and then no more', () => {
    const subject = admission();
    expect(fill(subject, (index) => ({ service: {}, client: `10.0.0.${index}` }))).toBe(160);
    expect(subject.refusalOf({ service: DNS, client: '10.9.9.9' })).toMatch(/all 160/);
  });

  test('has room again as soon as somebody leaves', () => {
    const subject = admission();
    const parties = (index: number): Parties => ({ service: WEB, client: `10.0.0.${index}` });
    fill(subject, parties);
    subject.closed(parties(0));
    expect(subject.refusalOf(parties(0))).toBeUndefined();
    expect(subject.open).toBe(154);
  });

  test('follows a capacity that shrinks: nobody is cut, nobody is let in', () => {
    let capacity = 160;
    const subject = admission({ capacity: () => capacity });
    fill(subject, (index) => ({ service: {}, client: `10.0.0.${index}` }), 100);
    capacity = 50;
    expect(subject.refusalOf({ service: DNS, client: '10.9.9.9' })).toMatch(/all 50/);
    expect(subject.open).toBe(100);
  });
});

test('a Service with a limit of its own has no more than that, however much room there is', () => {
  const subject = admission({ maxPerService: 3, capacity: () => Number.POSITIVE_INFINITY });
  expect(fill(subject, () => ({ service: WEB, client: '10.0.0.1' }))).toBe(3);
  expect(subject.refusalOf({ service: WEB, client: '10.0.0.2' })).toMatch(/its 3 connections/);
  expect(subject.refusalOf({ service: DNS, client: '10.0.0.1' })).toBeUndefined();
});

test('a tiny node still lets a second Service in', () => {
  const subject = admission({ capacity: () => 2 });
  expect(fill(subject, (index) => ({ service: {}, client: `10.0.0.${index}` }))).toBe(2);
});
