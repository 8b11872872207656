/**
 * HAProxy and nginx as proxies of the Services in question, each set up for speed by its own documentation. Pure text.
 *
 * They know nothing of Services: rules of the same kind as ours (REDIRECT, in PREROUTING and OUTPUT) lead each
 * clusterIP to a port of theirs.
 */
import { ALL_SERVICES, type TrafficService } from './traffic-services.ts';

/** Where a peer listens for a Service. */
export interface PeerPort {
  readonly service: TrafficService;
  readonly port: number;
}

export interface PeerConfig {
  readonly ports: readonly PeerPort[];
  /** `10.244.1.11`, by the number of the pod. */
  readonly ipOf: (pod: number) => string;
  /** How many connections it is to be able to hold. */
  readonly connections: number;
}

const FIRST_PORT = 18_000;
const BACKLOG = 4_096;
/** Descriptors and connections beyond those of the traffic: listeners, pipes, epoll. */
const SPARE = 400;

/** Of connections at the same time, and so many pipes; the default, a fourth of all, would not fit the limit of files. */
const SPLICED = 100;

/** A port for each Service of these protocols. */
export function planPorts(protocols: readonly TrafficService['protocol'][]): readonly PeerPort[] {
  return ALL_SERVICES.filter(({ protocol }) => protocols.includes(protocol)).map((service, index) => ({
    service,
    port: FIRST_PORT + index,
  }));
}

/** iptables-restore input for the table nat. */
export function renderRedirects(ports: readonly PeerPort[]): string {
  const rules = ports.flatMap(({ service: { clusterIp, port, protocol }, port: to }) =>
    ['PREROUTING', 'OUTPUT'].map(
      (chain) =>
        `-A ${chain} -d ${clusterIp}/32 -p ${protocol.toLowerCase()} -m ${protocol.toLowerCase()} ` +
        `--dport ${port} -j REDIRECT --to-ports ${to}`,
    ),
  );
  return ['*nat', ...rules, 'COMMIT', ''].join('\n');
}

/** `forced` makes HAProxy splice whatever it can; `auto` leaves it to heuristics, which rarely find it worth while. */
export type Splicing = 'auto' | 'forced';

/**
 * One thread, as there is one of ours. No logs, no health checks, no statistics. The pipes are as large as the kernel
 * grants, which the documentation advises where splices are many. `tcp-smart-accept` and `tcp-smart-connect` spare the
 * ACKs that the data makes superfluous.
 */
export function renderHaproxyConfig({ ports, ipOf, connections }: PeerConfig, splicing: Splicing): string {
  const options = { auto: ['splice-auto'], forced: ['splice-request', 'splice-response'] }[splicing];
  return `global
  nbthread 1
  maxconn ${connections + SPARE}
  maxpipes ${SPLICED}
  tune.pipesize 1048576
defaults
  mode tcp
  balance roundrobin
${options.map((option) => `  option ${option}\n`).join('')}  option tcp-smart-accept
  option tcp-smart-connect
  timeout connect 5s
  timeout client 1h
  timeout server 1h
${ports.map(({ service, port }) => renderHaproxyListener(service, { port, ipOf })).join('')}`;
}

function renderHaproxyListener(
  { name, backends, targetPort }: TrafficService,
  { port, ipOf }: { readonly port: number } & Pick<PeerConfig, 'ipOf'>,
): string {
  return `listen ${name}
  bind 0.0.0.0:${port} backlog ${BACKLOG}
${backends.map((pod) => `  server pod${pod} ${ipOf(pod)}:${targetPort}\n`).join('')}`;
}

export interface NginxFiles {
  /** ngx_stream_module.so, where it is not built in. */
  readonly streamModule: string;
  readonly pid: string;
}

/**
 * One worker, as there is one thread of ours. No logs. Each connection takes two of worker_connections. Bulk gets
 * larger buffers, because nginx does not splice. UDP sessions end with the first answer where clients send one datagram
 * each, as the documentation has it for DNS (`proxy_responses`), and otherwise after a second of silence.
 */
export function renderNginxConfig({ ports, ipOf, connections }: PeerConfig, files: NginxFiles): string {
  return `load_module ${files.streamModule};
daemon off;
user root;
pid ${files.pid};
error_log stderr error;
worker_processes 1;
worker_rlimit_nofile ${2 * (connections + SPARE)};
events {
  use epoll;
  multi_accept on;
  worker_connections ${2 * (connections + SPARE)};
}
stream {
  access_log off;
  tcp_nodelay on;
  proxy_connect_timeout 5s;
  proxy_timeout 1h;
${ports.map(({ service, port }) => renderNginxServer(service, { port, ipOf })).join('')}}
`;
}

function renderNginxServer(
  { name, protocol, backends, targetPort }: TrafficService,
  { port, ipOf }: { readonly port: number } & Pick<PeerConfig, 'ipOf'>,
): string {
  const listen = protocol === 'UDP' ? `${port} udp reuseport` : `${port} reuseport backlog=${BACKLOG}`;
  const further = {
    http: '',
    idle: '',
    bulk: '    proxy_buffer_size 64k;\n',
    echo: '    proxy_timeout 1s;\n',
    flows: '    proxy_timeout 1s;\n    proxy_responses 1;\n',
  }[name];
  return `  upstream ${name} {
${backends.map((pod) => `    server ${ipOf(pod)}:${targetPort} max_fails=0;\n`).join('')}  }
  server {
    listen ${listen};
    proxy_pass ${name};
${further ?? ''}  }
`;
}

/** The backends: nginx, in one process each, that answers eleven octets and never ends a connection by itself. */
export function renderBackendConfig(listen: string, directory: string): string {
  return `daemon off;
master_process off;
pid ${directory}/pid;
error_log stderr error;
worker_rlimit_nofile 16384;
events { worker_connections 16384; multi_accept on; }
http {
  access_log off;
  keepalive_requests 1000000000;
  keepalive_timeout 1h;
  client_body_temp_path ${directory}/body;
  proxy_temp_path ${directory}/proxy;
  fastcgi_temp_path ${directory}/fastcgi;
  uwsgi_temp_path ${directory}/uwsgi;
  scgi_temp_path ${directory}/scgi;
  server {
    listen ${listen} reuseport backlog=${BACKLOG};
    location / { default_type text/plain; return 200 "hello world"; }
  }
}
`;
}
