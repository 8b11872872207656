/** The shape of a discovery.k8s.io/v1 EndpointSlice, as far as anything here reads it. Pure. */
import { type Check, boolean, fieldsOf, integer, listOf, objectMeta, text } from './field-reader.ts';

const endpoint = fieldsOf(
  {
    addresses: listOf(text),
    conditions: fieldsOf({ ready: boolean, serving: boolean, terminating: boolean }),
    hostname: text,
    nodeName: text,
    zone: text,
    hints: fieldsOf({
      forZones: listOf(fieldsOf({ name: text }, ['name'])),
      forNodes: listOf(fieldsOf({ name: text }, ['name'])),
    }),
  },
  ['addresses'],
);

const endpointPort = fieldsOf({ name: text, protocol: text, appProtocol: text, port: integer });

/** A value that passes is a V1EndpointSlice whose fields have the types the API gives them. */
export const endpointSlice: Check = fieldsOf(
  { metadata: objectMeta, addressType: text, endpoints: listOf(endpoint), ports: listOf(endpointPort) },
  ['metadata', 'addressType'],
);
