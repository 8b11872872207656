/** Builders of manifest text for the tests of this directory. */

export function serviceYaml(name: string, clusterIP = '10.96.0.10', port: number | string = 80): string {
  return `apiVersion: v1
kind: Service
metadata:
  name: ${name}
spec:
  clusterIP: ${clusterIP}
  ports:
  - name: http
    port: ${port}
`;
}

export function sliceYaml(name: string, service: string, address = '10.0.0.1'): string {
  return `apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: ${name}
  labels: { kubernetes.io/service-name: ${service} }
addressType: IPv4
endpoints:
- addresses: [${address}]
  conditions: { ready: true }
ports:
- { name: http, port: 8080, protocol: TCP }
`;
}

export function nodeYaml(name: string, zone = 'z1'): string {
  return `apiVersion: v1
kind: Node
metadata:
  name: ${name}
  labels: { topology.kubernetes.io/zone: ${zone} }
spec:
  podCIDRs: [10.244.1.0/24]
status:
  addresses:
  - { type: InternalIP, address: 192.0.2.1 }
`;
}

export function documents(...texts: readonly string[]): string {
  return texts.join('---\n');
}
