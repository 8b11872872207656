/**
 * A whole node in one process: the real proxier, listeners, forwarder and Node engine on loopback, with only
 * iptables in memory. A packet is walked through the rules that were restored, and what REDIRECT says is where a
 * client connects to. Closed when the test has finished.
 */
import type { V1Service } from '@kubernetes/client-node';
import { onTestFinished } from 'vitest';
import { systemClock } from '../../src/clock.ts';
import type { EngineOptions, SocketAddress } from '../../src/engine/engine.ts';
import { NodeEngine } from '../../src/engine/node/node-engine.ts';
import { Iptables } from '../../src/iptables/iptables.ts';
import { RuleInstaller } from '../../src/iptables/installer.ts';
import type { Endpoint } from '../../src/model/endpoint.ts';
import { type Protocol, servicePortKey } from '../../src/model/service-port-name.ts';
import { snapshotFromObjects } from '../../src/model/snapshot.ts';
import { Forwarder } from '../../src/proxy/forwarder.ts';
import { ListenerSet } from '../../src/proxy/listener-set.ts';
import { ProxyPorts } from '../../src/proxy/proxy-ports.ts';
import { Proxier } from '../../src/sync/proxier.ts';
import { KernelExec } from '../support/fake-exec.ts';
import { FakeFlows, FakeObserver, FakeOwnership, FakePortStore, type Journal } from '../support/fake-sync.ts';
import { connectTcp, type TcpPeer } from '../support/loopback-tcp.ts';
import { openUdpPeer } from '../support/loopback-udp.ts';
import { PacketTracer, makePacket } from '../support/packet-tracer.ts';
import { RecordingLogger } from '../support/recording-logger.ts';
import { DEFAULT_SETTINGS } from '../support/rule-fixture.ts';
import { waitFor } from '../support/wait.ts';
import { makeForwarderOptions } from '../support/forwarder-options.ts';

const ADDRESSES = { all: ['127.0.0.1'], redirect: { IPv4: ['127.0.0.1'], IPv6: [] } };

export interface PortalAddress extends SocketAddress {
  readonly protocol: Protocol;
}

export class UserspaceNode {
  readonly kernel = new KernelExec();
  readonly logger = new RecordingLogger();
  readonly forwarder: Forwarder;
  readonly listeners: ListenerSet;
  readonly #engine: NodeEngine;
  readonly #proxier: Proxier;
  readonly #endpoints = new Map<ReturnType<typeof servicePortKey>, readonly Endpoint[]>();
  #services: readonly V1Service[] = [];
  #syncing: Promise<void> = Promise.resolve();

  constructor(options: Partial<EngineOptions> = {}) {
    const { logger } = this;
    const clock = systemClock;
    this.forwarder = new Forwarder(
      { clock, logger, listeningSockets: () => this.listeners.socketCount },
      makeForwarderOptions({ dialTimeoutsMs: [250, 500, 1000, 2000], balancer: { random: Math.random } }),
    );
    this.#engine = new NodeEngine(
      { clock, policy: this.forwarder },
      {
        tcpIdleTimeoutMs: 0,
        halfCloseTimeoutMs: 60_000,
        udpUnrepliedTimeoutMs: 30_000,
        udpRepliedTimeoutMs: 120_000,
        ...options,
      },
    );
    this.forwarder.attach(this.#engine);
    this.listeners = new ListenerSet(
      {
        engine: this.#engine,
        binding: this.forwarder,
        ports: new ProxyPorts({
          range: { first: 20_000, last: 29_999 },
          excluded: [],
          random: Math.random,
          remembered: new Map(),
        }),
        hasRoomToListen: () => true,
        clock,
        logger,
        onChange: () => void this.#sync(),
      },
      { gracePeriodMs: 50 },
    );
    const journal: Journal = [];
    this.#proxier = new Proxier({
      clock,
      logger,
      backends: this.forwarder,
      listeners: this.listeners,
      rules: [new RuleInstaller(new Iptables('IPv4', this.kernel.exec), { generation: () => 1 })],
      flows: new FakeFlows(journal),
      ownership: new FakeOwnership(),
      portStore: new FakePortStore(journal),
      observer: new FakeObserver(journal),
      healthChecks: { update: () => {}, programmed: () => {} },
      nodeAddresses: () => ADDRESSES,
      settings: DEFAULT_SETTINGS,
      diversions: { IPv4: { kind: 'redirect' }, IPv6: { kind: 'redirect' } },
      prepare: async () => Promise.resolve(),
    });
    onTestFinished(async () => {
      await this.#syncing;
      this.listeners.close();
      await this.#engine.shutdown();
    });
  }

  /** The endpoints of `default/<name>:<port>`, from the next update on. */
  setEndpoints(name: string, port: string, protocol: Protocol, endpoints: readonly Endpoint[]): void {
    this.#endpoints.set(servicePortKey({ namespace: 'default', name, port, protocol }), endpoints);
  }

  /** What the sources tell; no sync yet. */
  update(...services: readonly V1Service[]): void {
    this.#services = services;
    const { servicePorts, problems } = snapshotFromObjects({ services, endpointSlices: [] });
    this.#proxier.update({ servicePorts, problems, endpoints: new Map(this.#endpoints) }, []);
  }

  /** What the sources tell, and a sync. */
  async apply(...services: readonly V1Service[]): Promise<void> {
    this.update(...services);
    await this.#sync();
  }

  /** The same Services again, with the endpoints as they are now. */
  async applyAgain(): Promise<void> {
    await this.apply(...this.#services);
  }

  async sync(): Promise<void> {
    await this.#sync();
  }

  /** The proxy port a new flow from this node is sent to; 'rejected'; or undefined when nothing captures it. */
  leadsTo({ address, port, protocol }: PortalAddress): number | 'rejected' | undefined {
    const packet = makePacket({
      dst: address,
      isDstLocal: ADDRESSES.all.includes(address),
      dport: port,
      protocol: protocol === 'TCP' ? 'tcp' : 'udp',
    });
    const { verdict, redirectedTo } = new PacketTracer(this.kernel.tables.IPv4).trace('output', packet);
    return verdict === 'tcp-reset' || verdict === 'port-unreachable' ? 'rejected' : redirectedTo;
  }

  /** Throws when nothing captures it. */
  proxyAddress(portal: PortalAddress): SocketAddress {
    const port = this.leadsTo(portal);
    if (typeof port !== 'number') throw new Error(`${portal.address}:${portal.port} leads to ${port}`);
    return { address: '127.0.0.1', port };
  }

  async connect(portal: PortalAddress): Promise<TcpPeer> {
    return connectTcp(this.proxyAddress(portal));
  }

  /** Sends a text to a portal, and resolves with what comes back. */
  async ask(portal: PortalAddress, text: string): Promise<string> {
    if (portal.protocol === 'UDP') {
      const client = await openUdpPeer();
      await client.send(text, this.proxyAddress(portal));
      return (await client.datagram()).data.toString();
    }
    const client = await this.connect(portal);
    client.send(text);
    client.end();
    await client.ended();
    return client.received.toString();
  }

  /** Resolves when nobody listens on a proxy port any more. */
  async portClosed(protocol: Protocol, { port }: SocketAddress): Promise<void> {
    await waitFor(
      async () => {
        if (protocol === 'UDP') {
          (await openUdpPeer('127.0.0.1', port)).close();
          return true;
        }
        return connectTcp({ address: '127.0.0.1', port }).then(
          () => false,
          () => true,
        );
      },
      { timeoutMs: 5000, what: `${protocol} port ${port} to be closed` },
    );
  }

  /** Sessions that are open now, over all Services. */
  get sessionsActive(): number {
    return this.forwarder
      .statistics()
      .servicePorts.reduce((sum, { sessionsActive }) => sum + sessionsActive, 0);
  }

  async #sync(): Promise<void> {
    const previous = this.#syncing;
    this.#syncing = (async () => {
      await previous;
      await this.#proxier.sync({ isPeriodic: false });
    })();
    await this.#syncing;
  }
}
