/** What is spoiled: objects of random clusters, and manifests as people write them. */
import { Random } from '../support/random.ts';
import { randomClusterState } from '../support/random-cluster.ts';

const CLUSTERS = 60;

export interface CorpusObject {
  readonly metadata: Readonly<Record<string, unknown>>;
}

const clusters = Array.from({ length: CLUSTERS }, (_, index) => randomClusterState(new Random(index + 1)));

/** As JSON has them: no Date, nothing undefined. */
export const OBJECTS: readonly CorpusObject[] = clusters
  .flatMap(({ services, endpointSlices, node }) => [...services, ...endpointSlices, ...(node ? [node] : [])])
  .map((object) => JSON.parse(JSON.stringify(object)) as CorpusObject);

/** YAML with what JSON has not: anchors, merges, block scalars, comments, several documents, lists of objects. */
export const YAML_TEXTS: readonly string[] = [
  `apiVersion: v1
kind: Service
metadata: {name: web, namespace: default, labels: &labels {app: web, tier: "1"}}
spec:
  clusterIP: 10.96.0.10
  selector: *labels
  ports:
  - &port {name: http, port: 80, targetPort: 8080, protocol: TCP}
  - <<: *port
    name: alt
    port: 81
`,
  `# A slice
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: web-1
  labels:
    kubernetes.io/service-name: web
  annotations:
    note: |
      several
      lines
    folded: >-
      one
      line
addressType: IPv4
ports: [{name: http, port: 8080, protocol: TCP}, {name: alt, port: 8081}]
endpoints:
- addresses: ["10.244.1.11"]
  conditions: {ready: true}
- addresses: [10.244.1.12]
  conditions: {ready: false, serving: true, terminating: true}
  nodeName: node1
...
---
`,
  `%YAML 1.2
---
kind: List
apiVersion: v1
items:
- {apiVersion: v1, kind: Node, metadata: {name: node1}, status: {addresses: [{type: InternalIP, address: 192.168.77.2}]}}
- apiVersion: v1
  kind: ServiceList
  items:
  - metadata: {name: dns}
    spec: {clusterIPs: [10.96.0.53, "fd00:96::53"], clusterIP: 10.96.0.53, ports: [{port: 53, protocol: UDP}]}
- apiVersion: apps/v1
  kind: Deployment
  metadata: null
`,
];
