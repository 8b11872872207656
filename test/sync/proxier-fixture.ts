/** The proxier among stand-ins for everything that it drives. */
import type { NodeSettings } from '../../src/desired/node-view.ts';
import type { Diversion } from '../../src/iptables/portal-rules.ts';
import type { IpFamily, PerFamily } from '../../src/model/address.ts';
import type { Snapshot } from '../../src/model/snapshot.ts';
import type { FamilyRules, NodeAddresses } from '../../src/sync/family-sync.ts';
import { Proxier } from '../../src/sync/proxier.ts';
import { FakeClock } from '../support/fake-clock.ts';
import {
  FakeBackends,
  FakeFlows,
  FakeHealthChecks,
  FakeListeners,
  FakeObserver,
  FakeOwnership,
  FakePortStore,
  FakeRules,
  type Journal,
} from '../support/fake-sync.ts';
import { RecordingLogger } from '../support/recording-logger.ts';
import { DEFAULT_SETTINGS } from '../support/rule-fixture.ts';

/** A node with loopback and these IPv4 addresses, all of which REDIRECT can choose. */
export function nodeWith(...redirect: readonly string[]): NodeAddresses {
  return { all: ['127.0.0.1', ...redirect], redirect: { IPv4: redirect, IPv6: [] } };
}

export const REDIRECT: PerFamily<Diversion> = { IPv4: { kind: 'redirect' }, IPv6: { kind: 'redirect' } };

export interface ProxierTweak {
  readonly settings?: Partial<NodeSettings>;
  readonly diversions?: PerFamily<Diversion>;
  /** Does nothing unless told. */
  readonly prepare?: (family: IpFamily) => Promise<unknown>;
}

export class ProxierFixture<Rules extends FamilyRules = FakeRules> {
  readonly journal: Journal;
  readonly clock = new FakeClock();
  readonly logger = new RecordingLogger();
  readonly backends: FakeBackends;
  readonly listeners: FakeListeners;
  readonly portStore: FakePortStore;
  readonly observer: FakeObserver;
  readonly healthChecks: FakeHealthChecks;
  readonly ownership = new FakeOwnership();
  readonly rules: readonly Rules[];
  readonly proxier: Proxier;
  addresses: NodeAddresses = nodeWith('192.168.77.2');

  constructor(
    rules: readonly Rules[],
    { settings = {}, diversions = REDIRECT, prepare = async () => Promise.resolve() }: ProxierTweak = {},
    journal: Journal = [],
  ) {
    this.journal = journal;
    this.rules = rules;
    this.backends = new FakeBackends(journal);
    this.listeners = new FakeListeners(journal);
    this.portStore = new FakePortStore(journal);
    this.observer = new FakeObserver(journal);
    this.healthChecks = new FakeHealthChecks(journal);
    this.proxier = new Proxier({
      clock: this.clock,
      logger: this.logger,
      backends: this.backends,
      listeners: this.listeners,
      rules,
      flows: new FakeFlows(journal),
      ownership: this.ownership,
      portStore: this.portStore,
      observer: this.observer,
      healthChecks: this.healthChecks,
      nodeAddresses: () => this.addresses,
      settings: { ...DEFAULT_SETTINGS, ...settings },
      diversions,
      prepare,
    });
  }

  /** The journal entries since the last call. */
  news(): readonly string[] {
    return this.journal.splice(0);
  }

  async apply(snapshot: Snapshot): Promise<void> {
    this.proxier.update(snapshot, []);
    await this.proxier.sync({ isPeriodic: false });
  }

  async failure(isPeriodic = false): Promise<unknown> {
    try {
      await this.proxier.sync({ isPeriodic });
    } catch (error) {
      return error;
    }
    throw new Error('the sync did not fail');
  }
}

/** Of these families, of IPv4 unless told, with REDIRECT and no flag given. */
export function makeFixture(...families: readonly IpFamily[]): ProxierFixture {
  return makeTweakedFixture({}, ...families);
}

export function makeTweakedFixture(tweak: ProxierTweak, ...families: readonly IpFamily[]): ProxierFixture {
  const journal: Journal = [];
  const served = families.length === 0 ? (['IPv4'] as const) : families;
  return new ProxierFixture(
    served.map((family) => new FakeRules(family, journal)),
    tweak,
    journal,
  );
}

export function rulesOf(fixture: ProxierFixture, index = 0): FakeRules {
  const rules = fixture.rules[index];
  if (rules === undefined) throw new Error(`no rules ${index}`);
  return rules;
}
