/**
 * ServicePort: what a Service says about one of its ports, checked and in canonical form, and the conversion
 * from a v1.Service. Pure; never throws on a malformed object: what is wrong comes back as problems.
 */
import type { V1Service, V1ServicePort } from '@kubernetes/client-node';
import type { Problem, ProblemCode } from '../errors.ts';
import { type IpAddress, type IpFamily, familyOf, parseIpAddress, specialRangeOf } from './address.ts';
import { type Checked, isDnsLabel, isPortNumber, objectText } from './object.ts';
import {
  type Protocol,
  type ServicePortKey,
  type ServicePortName,
  servicePortKey,
} from './service-port-name.ts';

/** How new clients are tied to endpoints (`spec.sessionAffinity`). */
export type SessionAffinity =
  | { readonly kind: 'None' }
  /** `timeoutMs` since the client's last new connection; core/v1 default 10800 s, range 1 s to 86400 s. */
  | { readonly kind: 'ClientIP'; readonly timeoutMs: number };

export interface ServicePort {
  readonly key: ServicePortKey;
  readonly name: ServicePortName;
  /** Canonical; at most one of each family. */
  readonly clusterIPs: readonly IpAddress[];
  readonly externalIPs: readonly IpAddress[];
  readonly port: number;
  /** 0: no NodePort. */
  readonly nodePort: number;
  /** The families the Service is of: where its NodePort and listeners exist. */
  readonly families: readonly IpFamily[];
  readonly sessionAffinity: SessionAffinity;
  /** Milliseconds since the epoch; decides who keeps a contested address and port. 0 when unknown. */
  readonly createdAt: number;
}

export const DEFAULT_AFFINITY_TIMEOUT_SECONDS = 10_800;
export const MAX_AFFINITY_TIMEOUT_SECONDS = 86_400;

/**
 * The carried ports of a Service. A Service that no proxy serves (ExternalName, headless) gives none and no
 * problem, and ExternalName is looked at before everything else (kube-proxy `util.ShouldSkipService`).
 * A bad port is left out and reported; the Service's other ports are kept.
 */
export function servicePortsFromService(service: V1Service): Checked<readonly ServicePort[]> {
  const namespace = service.metadata?.namespace ?? '';
  const name = service.metadata?.name ?? '';
  const problems: Problem[] = [];
  const report: Report = (field, message, code = 'ERR_SERVICE_INVALID') => {
    problems.push({ code, object: objectText('Service', namespace, name), field, message });
  };
  if (!isDnsLabel(namespace) || !isDnsLabel(name)) {
    report(
      'metadata.name',
      `namespace ${JSON.stringify(namespace)} and name ${JSON.stringify(name)} must be DNS labels`,
    );
    return { value: [], problems };
  }
  if (!isProxied(service)) return { value: [], problems };
  const clusterIPs = clusterIPsOf(service, report);
  if (clusterIPs.length === 0) return { value: [], problems };
  const families = clusterIPs.map(familyOf);
  const common = {
    clusterIPs,
    families,
    externalIPs: externalIPsOf(service, report).filter((address) => families.includes(familyOf(address))),
    sessionAffinity: sessionAffinityOf(service, report),
    createdAt: createdAtOf(service),
  };
  const value: ServicePort[] = [];
  for (const [index, port] of (service.spec?.ports ?? []).entries()) {
    const checked = checkedPort(port, `spec.ports[${index}]`, report);
    if (checked === undefined) continue;
    const portName: ServicePortName = { namespace, name, port: checked.portName, protocol: checked.protocol };
    const key = servicePortKey(portName);
    if (value.some((other) => other.key === key)) {
      report(
        `spec.ports[${index}].name`,
        `${JSON.stringify(checked.portName)} stands twice for ${checked.protocol}`,
      );
      continue;
    }
    value.push({ ...common, key, name: portName, port: checked.port, nodePort: checked.nodePort });
  }
  return { value, problems };
}

type Report = (field: string, message: string, code?: ProblemCode) => void;

function isProxied(service: V1Service): boolean {
  const spec = service.spec ?? {};
  if (spec.type === 'ExternalName') return false;
  const first = spec.clusterIP ?? spec.clusterIPs?.[0] ?? '';
  return first !== '' && first !== 'None';
}

function clusterIPsOf(service: V1Service, report: Report): IpAddress[] {
  const listed = service.spec?.clusterIPs ?? [];
  const texts = listed.length > 0 ? listed : [service.spec?.clusterIP ?? ''];
  const field = listed.length > 0 ? 'spec.clusterIPs' : 'spec.clusterIP';
  const addresses: IpAddress[] = [];
  for (const [index, text] of texts.entries()) {
    const path = field === 'spec.clusterIPs' ? `${field}[${index}]` : field;
    const address = checkedAddress(text, path, report);
    if (address === undefined) continue;
    if (addresses.some((other) => familyOf(other) === familyOf(address))) {
      report(path, `${JSON.stringify(text)} is a second ${familyOf(address)} address`);
      continue;
    }
    addresses.push(address);
  }
  return addresses;
}

function externalIPsOf(service: V1Service, report: Report): IpAddress[] {
  const addresses = (service.spec?.externalIPs ?? [])
    .map((text, index) => ({ text: text.trim(), path: `spec.externalIPs[${index}]` }))
    .filter(({ text }) => text !== '')
    .map(({ text, path }) => checkedAddress(text, path, report))
    .filter((address) => address !== undefined);
  return [...new Set(addresses)];
}

function checkedAddress(text: string, path: string, report: Report): IpAddress | undefined {
  const address = parseIpAddress(text);
  if (address === undefined) {
    report(path, `${JSON.stringify(text)} is no IP address`);
    return undefined;
  }
  const special = specialRangeOf(address);
  if (special === undefined) return address;
  report(path, `${JSON.stringify(text)} is ${special}: no Service may have it`);
  return undefined;
}

function sessionAffinityOf(service: V1Service, report: Report): SessionAffinity {
  const kind = service.spec?.sessionAffinity ?? 'None';
  if (kind === 'None' || kind === '') return { kind: 'None' };
  if (kind !== 'ClientIP') {
    report(
      'spec.sessionAffinity',
      `${JSON.stringify(kind)} is neither "None" nor "ClientIP"; taken as "None"`,
    );
    return { kind: 'None' };
  }
  const asked = service.spec?.sessionAffinityConfig?.clientIP?.timeoutSeconds ?? 0;
  const seconds = asked === 0 ? DEFAULT_AFFINITY_TIMEOUT_SECONDS : asked;
  if (Number.isInteger(seconds) && seconds >= 1 && seconds <= MAX_AFFINITY_TIMEOUT_SECONDS) {
    return { kind, timeoutMs: seconds * 1000 };
  }
  report(
    'spec.sessionAffinityConfig.clientIP.timeoutSeconds',
    `${seconds} is outside 1 to ${MAX_AFFINITY_TIMEOUT_SECONDS}; taken as ${DEFAULT_AFFINITY_TIMEOUT_SECONDS}`,
  );
  return { kind, timeoutMs: DEFAULT_AFFINITY_TIMEOUT_SECONDS * 1000 };
}

/** API servers send text, typed clients a Date. */
function createdAtOf(service: V1Service): number {
  const created: Date | string | undefined = service.metadata?.creationTimestamp;
  const milliseconds = created === undefined ? Number.NaN : new Date(created).getTime();
  return Number.isNaN(milliseconds) ? 0 : milliseconds;
}

interface CheckedPort {
  readonly portName: string;
  readonly protocol: Protocol;
  readonly port: number;
  readonly nodePort: number;
}

function checkedPort(port: V1ServicePort, path: string, report: Report): CheckedPort | undefined {
  const protocol = port.protocol ?? 'TCP';
  const portName = port.name ?? '';
  if (portName !== '' && !isDnsLabel(portName)) {
    report(`${path}.name`, `${JSON.stringify(portName)} is no DNS label`);
    return undefined;
  }
  if (protocol === 'SCTP') {
    report(`${path}.protocol`, 'SCTP is not carried by a userspace proxy', 'ERR_SERVICE_UNSUPPORTED');
    return undefined;
  }
  if (protocol !== 'TCP' && protocol !== 'UDP') {
    report(`${path}.protocol`, `${JSON.stringify(protocol)} is none of "TCP", "UDP", "SCTP"`);
    return undefined;
  }
  if (!isPortNumber(port.port)) {
    report(`${path}.port`, `${port.port} is outside 1 to 65535`);
    return undefined;
  }
  const nodePort = port.nodePort ?? 0;
  if (nodePort !== 0 && !isPortNumber(nodePort)) {
    report(`${path}.nodePort`, `${nodePort} is outside 1 to 65535; no NodePort`);
    return { portName, protocol, port: port.port, nodePort: 0 };
  }
  return { portName, protocol, port: port.port, nodePort };
}
