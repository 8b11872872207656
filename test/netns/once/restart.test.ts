/**
 * A proxy that is killed at any moment and started again: the same ports, the rules that a fresh start would write,
 * nothing left over, and nobody refused but while there is no process.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { clusterIP, dualStackObjects } from '../../support/dual-stack.ts';
import { IptablesWrapper } from '../../support/iptables-wrapper.ts';
import { canMakeNamespaces, createLab, type Lab } from '../../support/netns-lab.ts';
import { manifestText } from '../../support/objects.ts';
import { ProxyProcess } from '../../support/proxy-process.ts';
import { Random, seeds } from '../../support/random.ts';
import { ownChains } from '../../support/rule-chains.ts';
import { waitFor } from '../../support/wait.ts';

const isLong = process.env['KUP_TEST_LONG'] === '1';
/** During starts, during storms of changes, and while a program of iptables is under way. */
const KILLS = isLong ? { start: 80, storm: 60, program: 20 } : { start: 6, storm: 4, program: 2 };
/** So many starts are killed, one after the other, before one is let through and looked at. */
const STARTS_IN_A_ROW = 3;
const SERVICES = 6;
const HTTP = { name: 'http', port: 80, targetPort: 8080 };
const DNS = { name: 'dns', port: 53, targetPort: 8053, protocol: 'UDP' } as const;
const MAIN = new URL('../../../src/main.ts', import.meta.url).pathname;
const DEADLINE_MS = 40_000;
/** A start takes about a second until it is ready, more where the machine is busy: no matter when it is killed. */
const START_MS = 1500;
const STORM_MS = 800;
/** Of the client between two questions. */
const PAUSE_MS = 5;
const [SEED = 1] = seeds(1);

/** Asks again and again, and knows when each question was put and answered. */
class Client {
  readonly #ask: () => Promise<string | undefined>;
  readonly answers: { readonly from: number; readonly to: number; readonly errno: string | undefined }[] = [];
  #isOver = false;
  #loop: Promise<void> | undefined;

  /** `ask`: undefined when it was answered, else why not. */
  constructor(ask: () => Promise<string | undefined>) {
    this.#ask = ask;
  }

  start(): void {
    this.#loop = (async () => {
      while (!this.#isOver) {
        const from = performance.now();
        const errno = await this.#ask();
        this.answers.push({ from, to: performance.now(), errno });
        // Without a rest it would take half of the processor from those that it watches.
        await delay(PAUSE_MS);
      }
    })();
  }

  async stop(): Promise<void> {
    this.#isOver = true;
    await this.#loop;
  }
}

describe.skipIf(canMakeNamespaces() !== undefined)('a proxy that is killed and started again', () => {
  let lab: Lab;
  let wrapper: IptablesWrapper;
  let proxy: ProxyProcess;
  let client: Client;
  let before: Awaited<ReturnType<typeof ownChains>>;
  /** From the signal until the next one is ready. */
  const outages: { readonly from: number; to: number }[] = [];
  const random = new Random(SEED);

  const base = (externalIPs: readonly string[] = []): string =>
    Array.from({ length: SERVICES }, (_, index) =>
      manifestText(
        ...dualStackObjects({
          name: `web${index}`,
          number: 10 + index,
          ports: [HTTP, DNS],
          backends: [lab.pod(1)],
          tweak: ({ spec }) => {
            if (externalIPs.length > 0) spec.externalIPs = [...externalIPs];
          },
        }),
      ),
    ).join('---\n');
  const extra = (number: number): string =>
    manifestText(
      ...dualStackObjects({
        name: `extra${number}`,
        number: 50 + number,
        ports: [HTTP],
        backends: [lab.pod(1)],
      }),
    );

  beforeAll(async () => {
    lab = await createLab({ podLinks: 'bridged' });
    wrapper = await IptablesWrapper.create();
    const server = await lab.pod(1).agent();
    await server.serveTcp({ port: HTTP.targetPort, mode: 'identify', name: 'pod1' });
    await server.serveUdp({ port: DNS.targetPort, mode: 'identify', name: 'pod1' });
    proxy = await ProxyProcess.start(lab.node, { manifests: { 'web.yaml': base() }, env: wrapper.env });
    await proxy.captured(`default/web${SERVICES - 1}:dns`, { family: 'IPv6', protocol: 'udp' });
    before = await ownChains(lab.node);
    const agent = await lab.pod(4).agent();
    const hosts = (['IPv4', 'IPv6'] as const).map((family) => clusterIP(10, family));
    client = new Client(async () => {
      const asked = { host: random.pick(hosts), port: HTTP.port, count: 1, timeoutMs: 3000 };
      const [answer] = await agent.tcpIdentify(asked);
      return answer?.ok === true ? undefined : (answer?.errno ?? 'nothing');
    });
    client.start();
  }, 60_000);
  afterAll(async () => {
    await client?.stop();
    await proxy?.[Symbol.asyncDispose]();
    await wrapper?.[Symbol.asyncDispose]();
    await lab?.close();
  });

  const kill = async (): Promise<void> => {
    const last = outages.at(-1);
    if (last === undefined || last.to < Number.POSITIVE_INFINITY) {
      outages.push({ from: performance.now(), to: Number.POSITIVE_INFINITY });
    }
    proxy.signal('SIGKILL');
    await proxy.exited;
  };
  const start = async (): Promise<void> => {
    const { directory } = proxy;
    proxy = await ProxyProcess.start(lab.node, { directory, env: wrapper.env, awaitReady: false });
  };
  /** Until the rules are, to the last port, what they were before the first kill. */
  const isAsBefore = async (story: string): Promise<void> => {
    await proxy.ready(DEADLINE_MS).catch((cause: unknown) => {
      throw new Error(`KUP_TEST_SEED=${SEED}: ${story}; ${JSON.stringify(proxy.log)}`, { cause });
    });
    const outage = outages.at(-1);
    if (outage !== undefined) outage.to = Math.min(outage.to, performance.now());
    let chains = await ownChains(lab.node);
    const text = JSON.stringify(before, Object.keys(before).toSorted());
    const isSame = async (): Promise<boolean> => {
      chains = await ownChains(lab.node);
      return JSON.stringify(chains, Object.keys(chains).toSorted()) === text;
    };
    await waitFor(isSame, { timeoutMs: DEADLINE_MS, what: 'the rules as before' }).catch(() =>
      expect(chains, `KUP_TEST_SEED=${SEED}: ${story}`).toEqual(before),
    );
  };
  const pause = async (ms: number): Promise<void> => {
    const from = performance.now();
    await waitFor(() => performance.now() - from >= ms, {
      timeoutMs: ms + 5000,
      what: 'a moment',
      intervalMs: 1,
    });
  };

  test(`during its start, ${KILLS.start} times at random moments`, {
    timeout: isLong ? 900_000 : 90_000,
  }, async () => {
    await kill();
    const moments: number[] = [];
    while (moments.length < KILLS.start) {
      await start();
      moments.push(random.below(START_MS));
      await pause(moments.at(-1) ?? 0);
      await kill();
      if (moments.length % STARTS_IN_A_ROW !== 0) continue;
      await start();
      await isAsBefore(`kills so many ms after the start: ${moments.join()}`);
      if (moments.length < KILLS.start) await kill();
    }
  });

  test(`during a storm of changes, ${KILLS.storm} times at random moments`, {
    timeout: isLong ? 900_000 : 90_000,
  }, async () => {
    for (let count = 1; count <= KILLS.storm; count += 1) {
      const over = performance.now() + random.below(STORM_MS);
      const extras = new Set<string>();
      while (performance.now() < over) {
        const name = `extra${random.below(8)}.yaml`;
        if (extras.delete(name)) await proxy.removeManifest(name);
        else await proxy.writeManifest(extras.add(name) && name, extra(Number(name.replaceAll(/\D/g, ''))));
        if (random.below(3) === 0)
          await proxy.writeManifest('web.yaml', base([`192.168.77.${100 + random.below(9)}`]));
      }
      await kill();
      for (const name of extras) await proxy.removeManifest(name);
      await proxy.writeManifest('web.yaml', base());
      await start();
      await isAsBefore(`kill ${count} of the storms`);
    }
  });

  test.for([
    { between: 'before the rules of the first family', programs: ['iptables-restore', 'ip6tables-restore'] },
    { between: 'between the rules of the two families', programs: ['ip6tables-restore'] },
    { between: 'between the rules of the two families, the other way round', programs: ['iptables-restore'] },
  ] as const)(
    '$between, which the program that was started writes all the same',
    { timeout: 60_000 },
    async ({ between, programs }) => {
      for (let count = 1; count <= KILLS.program; count += 1) {
        await wrapper.delay(programs, random.pick([0.2, 0.5, 1]));
        const calls = await wrapper.calls(...programs);
        await proxy.writeManifest('more.yaml', extra(count));
        const isUnderWay = async (): Promise<boolean> => (await wrapper.calls(...programs)) > calls;
        await waitFor(isUnderWay, {
          timeoutMs: DEADLINE_MS,
          what: 'the program to be under way',
          intervalMs: 2,
        });
        await kill();
        await wrapper.mend();
        await proxy.removeManifest('more.yaml');
        await start();
        await isAsBefore(`${between}, kill ${count}`);
      }
    },
  );

  test('has refused nobody but while there was no process', async () => {
    await client.stop();
    expect(client.answers.length).toBeGreaterThan(100);
    const unexplained = client.answers.filter(
      ({ from, to, errno }) =>
        errno !== undefined && !outages.some((outage) => from <= outage.to && to >= outage.from),
    );
    expect(unexplained).toEqual([]);
    // Whoever asks while the rules lead to a closed port hears so at once.
    expect(new Set(client.answers.map(({ errno }) => errno))).not.toContain('TIMEOUT');
  });

  test('has the rules that a fresh start writes', async () => {
    await proxy.stop();
    await lab.node.run([process.execPath, MAIN, '--cleanup', '--state-dir', '']);
    expect(await ownChains(lab.node)).toEqual({});
    await start();
    await isAsBefore('a fresh start');
  });
});
