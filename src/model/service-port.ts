/**
 * ServicePort: what a Service says about one of its ports, checked and in canonical form, and the conversion
 * from a v1.Service. Pure; never throws on a malformed object: what is wrong comes back as problems.
 */
import type { V1Service, V1ServicePort } from '@kubernetes/client-node';
import type { Problem } from '../errors.ts';
import { type Checked, type Report, isDnsLabel, isPortNumber, objectText, quoted } from './object.ts';
import { type ServiceAddresses, serviceAddressesOf } from './service-addresses.ts';
import { PROXY_PROTOCOL_ANNOTATION, type ServicePolicy, servicePolicyOf } from './service-policy.ts';
import {
  type Protocol,
  type ServicePortKey,
  type ServicePortName,
  servicePortKey,
} from './service-port-name.ts';

export interface ServicePort extends ServiceAddresses, ServicePolicy {
  readonly key: ServicePortKey;
  readonly name: ServicePortName;
  readonly port: number;
  /** 0: no NodePort. */
  readonly nodePort: number;
  /** Milliseconds since the epoch; decides who keeps a contested address and port. 0 when unknown. */
  readonly createdAt: number;
}

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
    report('metadata.name', `namespace ${quoted(namespace)} and name ${quoted(name)} must be DNS labels`);
    return { value: [], problems };
  }
  if (!isProxied(service)) return { value: [], problems };
  const addresses = serviceAddressesOf(service, report);
  if (addresses.clusterIPs.length === 0) return { value: [], problems };
  const common = { ...addresses, ...servicePolicyOf(service, report), createdAt: createdAtOf(service) };
  const value: ServicePort[] = [];
  for (const [index, port] of (service.spec?.ports ?? []).entries()) {
    const checked = checkedPort(port, `spec.ports[${index}]`, report);
    if (checked === undefined) continue;
    const portName: ServicePortName = { namespace, name, port: checked.portName, protocol: checked.protocol };
    const key = servicePortKey(portName);
    if (value.some((other) => other.key === key)) {
      report(`spec.ports[${index}].name`, `${quoted(checked.portName)} stands twice for ${checked.protocol}`);
      continue;
    }
    value.push({ ...common, key, name: portName, port: checked.port, nodePort: checked.nodePort });
  }
  if (common.proxyProtocol !== undefined && value.length > 0 && value.every(isUdp)) {
    report(
      `metadata.annotations[${PROXY_PROTOCOL_ANNOTATION}]`,
      `${quoted(common.proxyProtocol)} is for TCP ports, and this Service has none; ignored`,
      'ERR_SERVICE_UNSUPPORTED',
    );
  }
  return { value, problems };
}

function isUdp({ name: { protocol } }: ServicePort): boolean {
  return protocol === 'UDP';
}

function isProxied(service: V1Service): boolean {
  const spec = service.spec ?? {};
  if (spec.type === 'ExternalName') return false;
  const first = spec.clusterIP ?? spec.clusterIPs?.[0] ?? '';
  return first !== '' && first !== 'None';
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
    report(`${path}.name`, `${quoted(portName)} is no DNS label`);
    return undefined;
  }
  if (protocol === 'SCTP') {
    report(`${path}.protocol`, 'SCTP is not carried by a userspace proxy', 'ERR_SERVICE_UNSUPPORTED');
    return undefined;
  }
  if (protocol !== 'TCP' && protocol !== 'UDP') {
    report(`${path}.protocol`, `${quoted(protocol)} is none of "TCP", "UDP", "SCTP"`);
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
