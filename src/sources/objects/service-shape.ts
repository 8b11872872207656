/** The shape of a v1.Service, as far as anything here reads it. Pure. */
import {
  type Check,
  boolean,
  fieldsOf,
  integer,
  integerOrText,
  listOf,
  mapOf,
  objectMeta,
  text,
} from './field-reader.ts';

const servicePort = fieldsOf(
  {
    name: text,
    protocol: text,
    appProtocol: text,
    port: integer,
    targetPort: integerOrText,
    nodePort: integer,
  },
  ['port'],
);

const serviceSpec = fieldsOf({
  type: text,
  clusterIP: text,
  clusterIPs: listOf(text),
  externalIPs: listOf(text),
  externalName: text,
  ports: listOf(servicePort),
  selector: mapOf(text),
  ipFamilies: listOf(text),
  ipFamilyPolicy: text,
  sessionAffinity: text,
  sessionAffinityConfig: fieldsOf({ clientIP: fieldsOf({ timeoutSeconds: integer }) }),
  externalTrafficPolicy: text,
  internalTrafficPolicy: text,
  trafficDistribution: text,
  healthCheckNodePort: integer,
  publishNotReadyAddresses: boolean,
  allocateLoadBalancerNodePorts: boolean,
  loadBalancerClass: text,
  loadBalancerIP: text,
  loadBalancerSourceRanges: listOf(text),
});

const serviceStatus = fieldsOf({
  loadBalancer: fieldsOf({ ingress: listOf(fieldsOf({ ip: text, hostname: text, ipMode: text })) }),
});

/** A value that passes is a V1Service whose fields have the types the API gives them. */
export const service: Check = fieldsOf({ metadata: objectMeta, spec: serviceSpec, status: serviceStatus }, [
  'metadata',
]);
