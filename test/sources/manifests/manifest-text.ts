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

export function documents(...texts: readonly string[]): string {
  return texts.join('---\n');
}
