/** Whatever happens in whatever order: when it is quiet again, what is told is what the server has. */
import { expect, test } from 'vitest';
import { trimEndpointSlice, trimService } from '../../../src/sources/kubernetes/trim.ts';
import { readerTurn } from '../../support/fake-api-body.ts';
import { type FakeApiServer, faults, statusObject } from '../../support/fake-api-server.ts';
import { makeService } from '../../support/objects.ts';
import { Random, seeds } from '../../support/random.ts';
import {
  type SourceUnderTest,
  annotated,
  servingSlice,
  startSeededServer,
  startSyncedSource,
  withMetadata,
} from '../../support/source-under-test.ts';

const STEPS = 300;
const NAMES = ['web', 'db', 'a', 'b', 'c', 'd', 'ü'];
const RESOURCES = ['services', 'endpointslices', 'nodes'] as const;

class Walk {
  readonly #server: FakeApiServer;
  readonly #source: SourceUnderTest;
  readonly #random: Random;
  /** Every object that the server ever had, as the source would tell it. */
  readonly #everPut = new Set<string>();

  constructor(server: FakeApiServer, source: SourceUnderTest, random: Random) {
    this.#server = server;
    this.#source = source;
    this.#random = random;
    this.#note();
  }

  async step(): Promise<void> {
    const take = this.#random.pick(Object.values(this.#steps));
    await take();
    this.#note();
    for (let turns = this.#random.below(4); turns > 0; turns -= 1) await readerTurn();
  }

  put(name: string): void {
    this.#server.put('services', makeService(name, annotated(String(this.#random.next()))));
    this.#note();
  }

  /** What was told and was never so. */
  invented(): string[] {
    const told = this.#source.tellings.flatMap(({ objects }) => [
      ...objects.services,
      ...objects.endpointSlices,
    ]);
    return [...new Set(told)].map(textOf).filter((text) => !this.#everPut.has(text));
  }

  readonly #steps: Readonly<Record<string, () => void | Promise<void>>> = {
    putService: () => this.#putService({}),
    // Every fault ends after a while: there is no state from which it does not get back.
    breathe: async () => {
      await this.#source.observed(() => this.#source.isWatching, 'all to be watched');
    },
    putServiceOfAnother: () => this.#putService({ 'service.kubernetes.io/service-proxy-name': 'x' }),
    putHeadless: () => this.#putService({ 'service.kubernetes.io/headless': '' }),
    putSlice: () => {
      const address = `10.1.0.${this.#random.below(250) + 1}`;
      this.#server.put('endpointslices', servingSlice(this.#random.pick(NAMES), [address]));
    },
    putNode: () => {
      this.#server.put('nodes', {
        metadata: { name: 'n1', labels: { zone: String(this.#random.below(3)) } },
      });
    },
    remove: () => {
      const resource = this.#random.pick(RESOURCES);
      const metadata = this.#server.objects(resource).map((object) => object['metadata']);
      if (metadata.length === 0) return;
      const { namespace, name } = this.#random.pick(metadata) as { namespace?: string; name: string };
      this.#server.remove(resource, namespace === undefined ? name : `${namespace}/${name}`);
    },
    advance: () => this.#server.advance(this.#random.below(20) + 1),
    bookmark: () => this.#server.bookmark(),
    compact: () => this.#server.compact(),
    second: () => this.#source.clock.advance(1000),
    reset: () => this.#someWatch()?.reset(),
    end: () => this.#someWatch()?.end(),
    closeConnection: () => this.#someWatch()?.closeConnection(),
    loseWhatIsOnItsWay: () => {
      const watch = this.#someWatch();
      watch?.stall();
      this.#putService({});
      watch?.reset();
    },
    expire: async () => {
      const watch = this.#someWatch();
      // It may be over by now, which is as good.
      void watch?.event('ERROR', statusObject({ code: 410 }));
      watch?.end();
    },
    error: async () => this.#someWatch()?.event('ERROR', statusObject({ code: 500 })),
    badLine: async () => this.#someWatch()?.sendSplit('{"type":"ADDED","object":{,}}\n', 9),
    halfLine: async () => {
      const watch = this.#someWatch();
      await watch?.halfLine();
      if (this.#random.below(2) === 0) watch?.reset();
      else watch?.end();
    },
    fault: () => {
      this.#server.failNext({
        resource: this.#random.pick(RESOURCES),
        times: this.#random.below(2) + 1,
        with: this.#random.pick([
          faults.status(500),
          faults.status(401),
          faults.status(404),
          faults.tooManyRequests(),
          faults.expired(),
          faults.reset(),
          faults.resetAfter(this.#random.below(400)),
          faults.closeAfter(this.#random.below(400)),
          faults.truncateAfter(this.#random.below(400)),
          faults.drip(23, 0),
          faults.empty(),
          faults.html(),
          faults.badJson(),
          faults.badWatchLine(),
          faults.wrongListKind(),
          faults.otherVersion('7'),
        ]),
      });
    },
    expireTokens: () => this.#server.expireContinueTokens(),
    goneAs: () => {
      this.#server.behaviour.goneAs = this.#random.pick(['event', 'status']);
    },
    bookmarks: () => {
      this.#server.behaviour.withholdBookmarks = this.#random.below(2) === 0;
    },
    restart: async () => {
      await this.#server.close(this.#random.pick(['close', 'reset']));
      this.#putService({});
      if (this.#random.below(2) === 0) this.#server.compact();
      for (let turns = this.#random.below(4); turns > 0; turns -= 1) await readerTurn();
      await this.#server.listen();
    },
  };

  #putService(labels: Record<string, string>): void {
    const annotations = { 'userspace-proxy.io/note': `🦀${this.#random.below(1000)}` };
    const service = makeService(this.#random.pick(NAMES), withMetadata({ labels, annotations }));
    this.#server.put('services', service);
    this.#note();
  }

  #someWatch(): ReturnType<FakeApiServer['watches']>[number] | undefined {
    const open = this.#server.watches();
    return open.length === 0 ? undefined : this.#random.pick(open);
  }

  #note(): void {
    for (const one of this.#server.objects('services')) this.#everPut.add(textOf(trimService(one)));
    for (const one of this.#server.objects('endpointslices')) {
      this.#everPut.add(textOf(trimEndpointSlice(one as unknown as Parameters<typeof trimEndpointSlice>[0])));
    }
  }
}

function textOf(object: unknown): string {
  return JSON.stringify(object);
}

test.each(seeds(10))(
  'after any walk through changes and faults the truth is told (seed %i)',
  { timeout: 30_000 },
  async (seed) => {
    await using server = await startSeededServer();
    await using source = await startSyncedSource(server, { backoff: { minMs: 1, maxMs: 10 } });
    const walk = new Walk(server, source, new Random(seed));
    for (let count = 0; count < STEPS; count += 1) await walk.step();

    server.clearFaults();
    server.resume();
    walk.put('last');
    await source.caughtUp();
    const node = server.objects('nodes')[0]?.['metadata'] as { labels: { zone: string } } | undefined;
    await source.observed(() => source.nodes.at(-1)?.labels['zone'] === node?.labels.zone, 'the Node');
    walk.put('last');
    await source.caughtUp();

    expect(walk.invented()).toEqual([]);
    expect(source.failures().length).toBeGreaterThan(0);
  },
);
