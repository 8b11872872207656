/** Instances that share one kernel, which remembers the highest generation, and one socket of a name of their own. */
import { connect, type Socket } from 'node:net';
import { onTestFinished } from 'vitest';
import { systemClock } from '../../src/clock.ts';
import { Ownership } from '../../src/host/ownership.ts';
import type { OwnershipOptions } from '../../src/host/ownership-deps.ts';
import type { OpenPort } from '../../src/host/ownership-protocol.ts';
import { RecordingLogger } from '../support/recording-logger.ts';

let count = 0;

export function portOf(port: number, tweak: Partial<OpenPort> = {}): OpenPort {
  return { family: 'IPv4', protocol: 'TCP', port, servicePortName: 'default/web:http', ...tweak };
}

/** What the instances of one test have in common. */
export class FakeNode {
  readonly socketName: string;
  highest = 0;
  /** Whose write came last. */
  writer: Instance | undefined;

  /** `suffix`: a name that is too long cannot be bound. */
  constructor(suffix = '') {
    this.socketName = `kup-test-${process.pid}-${++count}${suffix}`;
  }

  /** Milliseconds that fit a test, longer ones where the test wants that. */
  instance(options: Partial<OwnershipOptions> & { readonly ports?: readonly OpenPort[] } = {}): Instance {
    const instance = new Instance(this, options);
    onTestFinished(() => instance.ownership.close());
    return instance;
  }

  /** A connection of somebody who is no instance. */
  stranger(): Socket {
    const socket = connect({ path: `\0${this.socketName}` });
    socket.on('error', () => {});
    onTestFinished(() => void socket.destroy());
    return socket;
  }
}

export class Instance {
  readonly logger = new RecordingLogger();
  readonly ownership: Ownership;
  readonly ended: OpenPort[] = [];
  readonly #node: FakeNode;
  ports: readonly OpenPort[];
  /** What happened, in order. */
  readonly journal: string[] = [];
  /** Awaited by whoever waits for the write under way. */
  gate: Promise<void> = Promise.resolve();
  fault: Error | undefined;

  constructor(
    node: FakeNode,
    { ports = [], ...options }: Partial<OwnershipOptions> & { readonly ports?: readonly OpenPort[] },
  ) {
    this.#node = node;
    this.ports = ports;
    this.ownership = new Ownership(
      {
        clock: systemClock,
        logger: this.logger,
        random: () => 0.5,
        highestGeneration: async () => {
          if (this.fault !== undefined) throw this.fault;
          return node.highest;
        },
        quiesce: async () => {
          this.journal.push('quiesce');
          await this.gate;
        },
        openPorts: () => this.ports,
        rememberedPorts: () => [portOf(20_999)],
        retire: async () => void this.journal.push('retire'),
        onRegained: () => void this.journal.push('regained'),
        onPredecessorRetired: () => void this.journal.push('predecessor retired'),
        onPeerPorts: (ended) => void this.ended.push(...ended),
      },
      {
        answerTimeoutMs: 5000,
        patienceMs: 200,
        rebindMs: 20,
        ...options,
        socketName: node.socketName,
      },
    );
  }

  /** A pass: false where it may not write or the kernel refuses. */
  async sync(version = 1): Promise<boolean> {
    if (!(await this.ownership.ensure())) return false;
    if (this.#node.highest > this.ownership.generation) {
      this.ownership.lost();
      return false;
    }
    this.#node.highest = this.ownership.generation;
    this.#node.writer = this;
    this.ownership.synced(version);
    return true;
  }
}
