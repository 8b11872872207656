/** The shape of a v1.Node, as far as anything here reads it. Pure. */
import { type Check, fieldsOf, listOf, mapOf, nonEmptyText, text } from './field-reader.ts';

const nodeMeta = fieldsOf({ name: nonEmptyText, labels: mapOf(text), deletionTimestamp: text }, ['name']);

/** A value that passes is a V1Node whose fields have the types the API gives them. */
export const node: Check = fieldsOf(
  {
    metadata: nodeMeta,
    spec: fieldsOf({
      podCIDR: text,
      podCIDRs: listOf(text),
      taints: listOf(fieldsOf({ key: text, value: text, effect: text }, ['key'])),
    }),
    status: fieldsOf({ addresses: listOf(fieldsOf({ type: text, address: text }, ['type', 'address'])) }),
  },
  ['metadata'],
);
