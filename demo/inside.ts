/** The chapters that look inside: the guard of the proxy ports, the rules, the metrics. */
import { sampleValue } from '../test/support/prometheus-text.ts';
import { WEB } from './portals.ts';
import { type Chapter, count, type ServicePortAt } from './stage.ts';

const WEB_HTTP = 'default/web:http';

export const tellGuard: Chapter = async (narrator, { lab, proxy }) => {
  narrator.chapter('The port behind it all is private');
  const port = await proxy.proxyPort(WEB_HTTP);
  narrator.say(
    `Traffic for ${WEB.ipv4}:${WEB.port} is redirected to port ${port} of the node. Asked directly, that port is`,
  );
  const outcomes: string[] = [];
  for (const client of [lab.ext, lab.pod(1), lab.node]) {
    const { outcome } = await (await client.agent()).tcpProbe({ host: lab.node.ipv4, port });
    narrator.show(`${client.name} → ${lab.node.ipv4}:${port}`, outcome);
    outcomes.push(outcome);
  }
  const isPrivate = outcomes.every((outcome) => outcome === 'refused');
  narrator.promise('nobody reaches it past the rules', isPrivate, outcomes);
};

export const tellRules: Chapter = async (narrator, { proxy }) => {
  narrator.chapter('The rules: iptables-save | grep USERSPACE-PROXY');
  // The canary leads nowhere, says only who wrote the table, and is not counted.
  const isRule = (line: string): boolean => line.startsWith('-A ') && !line.includes('-CANARY ');
  const rules = (await proxy.rules()).filter(isRule);
  const port = await proxy.proxyPort(WEB_HTTP);
  let quoted = 0;
  const quote = (why: string, isMeant: (rule: string) => boolean): void => {
    narrator.say(why);
    for (const rule of rules.filter(isMeant)) {
      narrator.quote(rule);
      quoted += 1;
    }
  };
  quote(
    'A new connection, from a pod or outside (PREROUTING) or the node itself (OUTPUT), meets our chain,',
    (rule) => /^-A (PREROUTING|OUTPUT) .*-j USERSPACE-PROXY-SERVICES$/.test(rule),
  );
  quote(
    'which sends it on by its address, so that the way is short however many Services there are,',
    (rule) => rule.startsWith('-A USERSPACE-PROXY-SERVICES '),
  );
  quote('to the portal, which turns it to the proxy port. The comment is the Service port.', (rule) =>
    rule.endsWith(`--to-ports ${port}`),
  );
  quote(
    'In filter the proxy port is open to what was redirected, and to nothing else:',
    (rule) => rule.startsWith('-A USERSPACE-PROXY-G-') && rule.includes(` --dport ${port} `),
  );
  const metrics = await proxy.metrics();
  const name = 'kubeproxy_sync_proxy_rules_iptables_total';
  const counted = ['nat', 'filter'].map(
    (table) => sampleValue(metrics, name, { ip_family: 'IPv4', table }) ?? 0,
  );
  const inAll = counted.reduce((sum, value) => sum + value, 0);
  narrator.promise(
    `these are ${quoted} of ${rules.length} IPv4 rules, and ${name} says ${inAll}`,
    quoted > 0 && inAll === rules.length,
    { counted, rules },
  );
};

/** Heading, metric without `userspace_proxy_`, further labels. */
const COLUMNS = [
  ['connections', 'connections_total', {}],
  ['dials ok', 'dials_total', { result: 'ok' }],
  ['refused', 'dials_total', { result: 'refused' }],
  ['timed out', 'dials_total', { result: 'timeout' }],
  ['retries', 'dial_retries_total', {}],
  ['gave up', 'connection_failures_total', { reason: 'exhausted' }],
] as const;

const SERVICE_PORTS: readonly ServicePortAt[] = [
  { service: 'web', port: 'http' },
  { service: 'web', port: 'http', family: 'IPv6' },
  { service: 'echo', port: 'echo', protocol: 'UDP' },
  { service: 'echo', port: 'who', protocol: 'UDP' },
  { service: 'sticky', port: 'http' },
];

export const tellMetrics: Chapter = async (narrator, { proxy }) => {
  narrator.chapter('The metrics that show it all: http://127.0.0.1:10249/metrics on the node');
  const metrics = await proxy.metrics();
  const row = (name: string, cells: readonly string[]): void =>
    narrator.quote(name.padEnd(18) + cells.map((cell) => cell.padStart(12)).join(''));
  row(
    '',
    COLUMNS.map(([heading]) => heading),
  );
  let gaveUp = 0;
  for (const at of SERVICE_PORTS) {
    const values = COLUMNS.map(([, name, labels]) => count(metrics, name, at, labels));
    row(`${at.service}:${at.port} ${at.family ?? 'IPv4'}`, values.map(String));
    gaveUp += values.at(-1) ?? 0;
  }
  narrator.say('The same as Prometheus reads it, for example:');
  const lines = (await proxy.page('/metrics')).body.split('\n');
  for (const line of lines.filter(isExample)) narrator.quote(line);
  narrator.promise('no connection was given up', gaveUp === 0, gaveUp);
};

function isExample(line: string): boolean {
  const meant = ['userspace_proxy_dials_total{', 'service="web"', 'ip_family="IPv4"', 'result="refused"'];
  return meant.every((part) => line.includes(part));
}
