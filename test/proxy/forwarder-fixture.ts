/** A forwarder with a clock, an engine without sockets, and a log in the test's hand. */
import type { ListenerId, SocketAddress } from '../../src/engine/engine.ts';
import type { Endpoint } from '../../src/model/endpoint.ts';
import type { ServicePort } from '../../src/model/service-port.ts';
import { Forwarder } from '../../src/proxy/forwarder.ts';
import type { ServicePortStatistics } from '../../src/proxy/statistics.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { FakeSessions } from '../support/fake-sessions.ts';
import { makeForwarderOptions } from '../support/forwarder-options.ts';
import { RecordingLogger } from '../support/recording-logger.ts';
import { makeEndpoints, makeServicePort } from '../support/snapshots.ts';

export const WEB = 'web';
export const LISTENER = 1;
export const WEB_PORT = makeServicePort({ name: 'web' });

export class ForwarderFixture {
  readonly clock = new FakeClock();
  readonly logger = new RecordingLogger();
  readonly sessions = new FakeSessions(this.clock);
  readonly forwarder: Forwarder;

  constructor(options: Parameters<typeof makeForwarderOptions>[0] = {}) {
    this.forwarder = new Forwarder(
      { clock: this.clock, logger: this.logger, listeningSockets: () => 0 },
      makeForwarderOptions(options),
    );
    this.forwarder.attach(this.sessions);
    this.sessions.policy = this.forwarder;
  }

  /** The listener `web` with these endpoints, all serving. */
  static serving(
    lasts: readonly number[],
    servicePort: ServicePort = WEB_PORT,
    options: Parameters<typeof makeForwarderOptions>[0] = {},
  ): ForwarderFixture {
    const fixture = new ForwarderFixture(options);
    fixture.set(makeEndpoints(...lasts), { servicePort });
    fixture.bind();
    return fixture;
  }

  set(
    endpoints: readonly Endpoint[],
    {
      servicePort = WEB_PORT,
      serving = endpoints,
      key = WEB,
      pool = key,
      destination,
    }: {
      servicePort?: ServicePort;
      /** Endpoints that still serve, when these are others than the usable ones. */
      serving?: readonly Endpoint[];
      key?: string;
      /** One of its own, unless told. */
      pool?: string;
      destination?: SocketAddress;
    } = {},
  ): void {
    this.forwarder.setBackends(key, {
      pool,
      servicePort,
      family: 'IPv4',
      endpoints,
      servingKeys: new Set(serving.map((endpoint) => endpoint.key)),
      destination,
    });
  }

  bind(listener = LISTENER, key = WEB): void {
    this.forwarder.bindListener(listener as ListenerId, key);
  }

  unbind(listener = LISTENER): void {
    this.forwarder.unbindListener(listener as ListenerId);
  }

  get statistics(): ServicePortStatistics {
    const [only, ...others] = this.forwarder.statistics().servicePorts;
    if (only === undefined || others.length > 0) throw new Error(`${others.length + 1} service ports`);
    return only;
  }
}
