/**
 * How the process's descriptors are shared out (decision 27). At the kernel's own limit connections are lost without
 * a word, programs cannot be started and no file be written; so we stop before. Pure arithmetic.
 *
 *     limit = reserve │ listening sockets │ UDP sessions, 1 each │ TCP connections, 2 each
 */

/** UDP finds room for as many sessions even where TCP has taken all else. */
const UDP_FLOOR = 256;
/** At most this part of the traffic's descriptors is kept free for UDP. */
const UDP_FLOOR_PART = 8;
/** TCP finds room too: its connections cannot be displaced, so what UDP has taken would be gone for as long as it lasts. */
const TCP_PART = 4;
/** Listening sockets may take this part of what is not reserved; without any rest nothing could be carried. */
const LISTENER_PART = 0.75;

export interface DescriptorUse {
  readonly listeningSockets: number;
  readonly udpSessions: number;
  readonly tcpConnections: number;
}

export interface DescriptorOptions {
  /** RLIMIT_NOFILE. Infinity where there is none. */
  readonly limit: number;
  /** For everything that is not traffic. */
  readonly reserve: number;
  /** As the flags; 0: as many as there are descriptors for. */
  readonly maxConnections: number;
  readonly maxUdpSessions: number;
  /** What is in use at this moment. */
  readonly use: () => DescriptorUse;
}

export class Descriptors {
  readonly #options: DescriptorOptions;

  constructor(options: DescriptorOptions) {
    this.#options = options;
  }

  /** Is there room for so many more listening sockets? */
  hasRoomToListen(sockets: number): boolean {
    return (
      this.#options.use().listeningSockets + sockets <=
      (this.#options.limit - this.#options.reserve) * LISTENER_PART
    );
  }

  /** TCP connections that may be open in all, those that are included. */
  tcpCapacity(): number {
    const { udpSessions } = this.#options.use();
    const forTcp = Math.max(
      0,
      Math.floor((this.#forTraffic() - Math.max(udpSessions, this.#udpFloor())) / 2),
    );
    const { maxConnections } = this.#options;
    return maxConnections === 0 ? forTcp : Math.min(maxConnections, forTcp);
  }

  /** UDP sessions that may be open in all. */
  udpCapacity(): number {
    const { tcpConnections } = this.#options.use();
    const forTraffic = this.#forTraffic();
    const most = Math.ceil(forTraffic * (1 - 1 / TCP_PART));
    const forUdp = Math.max(this.#udpFloor(), Math.min(most, forTraffic - 2 * tcpConnections));
    return Math.max(1, Math.min(this.#options.maxUdpSessions, forUdp));
  }

  #forTraffic(): number {
    return Math.max(0, this.#options.limit - this.#options.reserve - this.#options.use().listeningSockets);
  }

  #udpFloor(): number {
    const part = Math.floor(this.#forTraffic() / UDP_FLOOR_PART);
    return Math.min(UDP_FLOOR, part, this.#options.maxUdpSessions);
  }
}
