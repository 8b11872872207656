/**
 * A lab in which a live proxy is edited, and what a proxy has made of its node: rules, sockets, health checks.
 *
 * Whatever is left alone is answered too: a host beyond the node has every address of the address plan and answers
 * `elsewhere` on all ports. Each probe is thus answered, refused or dropped, and none of these takes the place of
 * another.
 */
import { join } from 'node:path';
import { readFile } from 'node:fs/promises';
import type { ClusterState } from './random-cluster.ts';
import { EditsProbes, LATE_ANSWER_MS, elsewhere } from './random-edits-probes.ts';
import { HEALTH_CHECK_PORTS, NODE_PORTS, SERVICE_PORTS } from './random-service.ts';
import { TARGET_PORTS } from './random-service-slices.ts';
import { type Host, type Lab, createLab } from './netns-lab.ts';
import { manifestText } from './objects.ts';
import type { ProxyProcess } from './proxy-process.ts';
import { type NameOfPort, namedRules } from './rule-names.ts';

const MAIN = new URL('../../src/main.ts', import.meta.url).pathname;
const FAMILIES = ['IPv4', 'IPv6'] as const;
/** A kernel says only six times a second to one address that nobody is there: the rest would look like silence. */
const UNLIMITED_ICMP = `
  echo 0 >/proc/sys/net/ipv4/icmp_ratelimit
  echo 0 >/proc/sys/net/ipv6/icmp/ratelimit
  for limit in per_sec burst; do
    file=/proc/sys/net/ipv4/icmp_msgs_$limit
    [ ! -e $file ] || echo 1000000 >$file
  done`;

/** What can be read off a node. */
export interface NodeReport {
  readonly rules: Readonly<Record<(typeof FAMILIES)[number], readonly string[]>>;
  /** `udp 127.0.0.1 <name>` of every socket of the proxy that listens, sorted. */
  readonly sockets: readonly string[];
  /** Status and body by address and port; `closed` where nobody answers. */
  readonly healthChecks: readonly string[];
  readonly metrics: Readonly<Record<string, number>>;
}

export class EditsLab implements AsyncDisposable {
  readonly lab: Lab;
  readonly probes: EditsProbes;

  private constructor(lab: Lab) {
    this.lab = lab;
    this.probes = new EditsProbes(lab);
  }

  static async create(): Promise<EditsLab> {
    const lab = await createLab();
    try {
      const beyond = await lab.attach({
        name: 'beyond',
        nodeInterface: 'eth9',
        nodeAddresses: ['10.9.0.1/24', 'fd09::1/64'],
        hostAddresses: ['10.9.0.2/24', 'fd09::2/64'],
        hostRoutes: ['default via 10.9.0.1', 'default via fd09::1'],
        nodeRoutes: elsewhere().map(
          (address) => `${address} via ${address.includes(':') ? 'fd09::2' : '10.9.0.2'}`,
        ),
      });
      await lab.node.run(['sh', '-ec', UNLIMITED_ICMP]);
      await Promise.all([serveElsewhere(beyond), ...[...lab.pods, lab.node].map(serveEndpoint)]);
      return new EditsLab(lab);
    } catch (error: unknown) {
      await lab.close();
      throw error;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.lab.close();
  }

  /** Of a proxy with nothing left to do. */
  async report(proxy: ProxyProcess): Promise<NodeReport> {
    const name = await listenerNames(proxy);
    const [IPv4 = '', IPv6 = ''] = await Promise.all(
      ['iptables-save', 'ip6tables-save'].map(async (program) => this.lab.node.run([program])),
    );
    const metric = async (suffix: string): Promise<number> => proxy.metric(`userspace_proxy_${suffix}`);
    return {
      rules: {
        IPv4: namedRules({ family: 'IPv4', saved: IPv4 }, name),
        IPv6: namedRules({ family: 'IPv6', saved: IPv6 }, name),
      },
      sockets: await this.#sockets(proxy, name),
      healthChecks: await this.#healthChecks(),
      metrics: {
        listeners: await metric('listeners'),
        missing: await metric('listeners_missing'),
        draining: await metric('listeners_draining'),
        problems: await metric('invalid_objects'),
      },
    };
  }

  /**
   * A reply that is on its way while its flow is forgotten begins one in the other direction, and the client goes on by
   * that as before. It takes a server at the address that is not the Service's, and the very moment.
   */
  async forgetTurnedFlows(): Promise<void> {
    const turned = [
      ...elsewhere().map((address) => ['--orig-src', address]),
      ...[this.lab.node.ipv4, this.lab.node.ipv6].flatMap((address) =>
        TARGET_PORTS.map((port) => ['--orig-src', address, '--orig-port-src', `${port}`]),
      ),
    ];
    for (const flows of turned) {
      const family = flows[1]?.includes(':') ? 'ipv6' : 'ipv4';
      await this.lab.node.exec(['conntrack', '-D', '-f', family, '-p', 'udp', ...flows]);
    }
  }

  /** As an operator removes a proxy that has ended. */
  async cleanUp(): Promise<void> {
    await this.lab.node.run([process.execPath, MAIN, '--cleanup', '--state-dir', '']);
  }

  async #sockets({ pid }: ProxyProcess, name: NameOfPort): Promise<readonly string[]> {
    const listed = await this.lab.node.run(['ss', '-Hlntup']);
    return listed
      .split('\n')
      .filter((line) => line.includes(`pid=${pid},`))
      .map((line) => {
        const [protocol = '', , , , local = ''] = line.split(/\s+/);
        const [, address = '', port = ''] = /^(.*):(\d+)$/.exec(local) ?? [];
        const family = address.includes('[') ? 'IPv6' : 'IPv4';
        const known = name({ family, protocol: protocol === 'udp' ? 'udp' : 'tcp', port: Number(port) });
        return `${protocol} ${address} ${known ?? port}`;
      })
      .sort();
  }

  async #healthChecks(): Promise<readonly string[]> {
    const agent = await this.lab.ext.agent();
    const places = [this.lab.node.ipv4, this.lab.node.ipv6].flatMap((host) =>
      HEALTH_CHECK_PORTS.map((port) => ({ host, port })),
    );
    return Promise.all(
      places.map(async (place) => {
        const answer = await agent
          .httpGet({ ...place, path: '/', timeoutMs: LATE_ANSWER_MS })
          .then(({ status, body }) => `${status} ${body.replaceAll(/\s+/g, ' ')}`)
          .catch(() => 'closed');
        return `${place.host} ${place.port}: ${answer}`;
      }),
    );
  }
}

async function serveElsewhere(host: Host): Promise<void> {
  const name = 'elsewhere';
  for (const address of elsewhere())
    await host.addAddress(`${address}/${address.includes(':') ? 128 : 32}`, 'lo');
  const agent = await host.agent();
  const ports = [...new Set<number>([...SERVICE_PORTS, ...TARGET_PORTS, ...NODE_PORTS])];
  await Promise.all(ports.map(async (port) => agent.serveTcp({ port, mode: 'identify', name })));
  // Each on its address: the reply must come from there.
  for (const address of elsewhere())
    await Promise.all(ports.map(async (port) => agent.serveUdp({ port, mode: 'identify', name, address })));
}

/** A pod, or the node as one in the host's network. */
async function serveEndpoint(host: Host): Promise<void> {
  const agent = await host.agent();
  const { name } = host;
  for (const port of TARGET_PORTS) {
    await agent.serveTcp({ port, mode: 'identify', name });
    for (const address of [host.ipv4, host.ipv6])
      await agent.serveUdp({ port, mode: 'identify', name, address });
  }
}

/** By what the proxy remembers of its ports: those of its listeners. */
async function listenerNames({ directory }: ProxyProcess): Promise<NameOfPort> {
  const text = await readFile(join(directory, 'state', 'ports.json'), 'utf8');
  const { ports } = JSON.parse(text) as { readonly ports: Readonly<Record<string, number>> };
  const names = new Map(
    Object.entries(ports).map(([key, port]) => {
      // `default/web:http/TCP/IPv4/cluster`, and maybe an address.
      const [, protocol = '', family = ''] = /\/(TCP|UDP)\/(IPv[46])\//.exec(key) ?? [];
      return [`${family}/${protocol.toLowerCase()}/${port}`, key] as const;
    }),
  );
  return ({ family, protocol, port }) => names.get(`${family}/${protocol}/${port}`);
}

/** One file for each object, so that a broken one harms no other: text by file name. */
export function manifestFiles({ services, endpointSlices, node }: ClusterState): ReadonlyMap<string, string> {
  const objects = [...services, ...endpointSlices, ...(node === undefined ? [] : [node])];
  return new Map(
    objects.map((object) => {
      const { kind, metadata } = object;
      const name = [kind, metadata?.namespace, metadata?.name].join('-').toLowerCase();
      return [`${name}.yaml`, manifestText(object)] as const;
    }),
  );
}
