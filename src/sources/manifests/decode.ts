/**
 * Text of one manifest file → the Services, EndpointSlices and Nodes in it, every field that the model reads of the type
 * it should have, and one problem with document and field for everything that is not. Pure; never throws.
 */
import type { V1EndpointSlice, V1Node, V1Service } from '@kubernetes/client-node';
import type { Problem } from '../../errors.ts';
import { objectText } from '../../model/object.ts';
import { endpointSlice } from '../objects/endpoint-slice-shape.ts';
import { type Check, type JsonMap, isJsonMap, valueText } from '../objects/field-reader.ts';
import { node } from '../objects/node-shape.ts';
import { service } from '../objects/service-shape.ts';
import { withoutNulls } from '../objects/without-nulls.ts';
import { parseDocuments } from './parse-documents.ts';

export interface DecodedObject<T> {
  readonly object: T;
  /** `namespace/name`; of a Node the name. */
  readonly key: string;
  /** For problems: `web.yaml document 2`. */
  readonly where: string;
}

export interface DecodedManifest {
  /** In the order of the file. The same object may stand twice. */
  readonly services: readonly DecodedObject<V1Service>[];
  readonly endpointSlices: readonly DecodedObject<V1EndpointSlice>[];
  /** Of any name. */
  readonly nodes: readonly DecodedObject<V1Node>[];
  /** Empty exactly when the file is good. At most MAX_PROBLEMS. */
  readonly problems: readonly Problem[];
  /** Such as `apps/v1 Deployment`, sorted: legal objects that a Service proxy has no use for. */
  readonly ignoredKinds: readonly string[];
}

/** A file that is no manifest at all would otherwise fill the log. */
export const MAX_PROBLEMS = 100;

const DISCOVERY_V1 = 'discovery.k8s.io/v1';
const DISCOVERY_V1BETA1 = 'discovery.k8s.io/v1beta1';

/** `file` names the text in problems. */
export function decodeManifest(text: string, file: string): DecodedManifest {
  const decoding: Decoding = {
    services: [],
    endpointSlices: [],
    nodes: [],
    problems: [],
    ignoredKinds: new Set(),
  };
  for (const document of parseDocuments(text)) {
    const where = `${file} document ${document.number}`;
    if (document.kind === 'fault') {
      decoding.problems.push({
        code: 'ERR_MANIFEST_SYNTAX',
        object: where,
        field: '',
        message: document.message,
      });
    } else if (document.value !== undefined && document.value !== null) {
      decodeObject(document.value, { where, prefix: '', decoding });
    }
  }
  const hidden = decoding.problems.length - MAX_PROBLEMS;
  const problems = decoding.problems.slice(0, MAX_PROBLEMS);
  if (hidden > 0) {
    problems.push({
      code: 'ERR_MANIFEST_INVALID',
      object: file,
      field: '',
      message: `and ${hidden} more problems`,
    });
  }
  return { ...decoding, problems, ignoredKinds: [...decoding.ignoredKinds].sort() };
}

interface Decoding {
  readonly services: DecodedObject<V1Service>[];
  readonly endpointSlices: DecodedObject<V1EndpointSlice>[];
  readonly nodes: DecodedObject<V1Node>[];
  readonly problems: Problem[];
  readonly ignoredKinds: Set<string>;
}

/** Where the decoder stands, and where its findings go. */
interface Place {
  readonly where: string;
  /** Path of the object inside its document: '' or `items[3].`. */
  readonly prefix: string;
  readonly decoding: Decoding;
}

function report({ where, prefix, decoding }: Place, field: string, message: string): void {
  const path = `${prefix}${field}`.replace(/\.$/, '');
  decoding.problems.push({ code: 'ERR_MANIFEST_INVALID', object: where, field: path, message });
}

function decodeObject(value: unknown, place: Place): void {
  if (!isJsonMap(value)) return report(place, '', `must be a map, got ${valueText(value)}`);
  const kind = typeField(value, 'kind', place);
  const apiVersion = typeField(value, 'apiVersion', place);
  if (kind === undefined || apiVersion === undefined) return;
  switch (`${apiVersion} ${kind}`) {
    case 'v1 Service':
      return takeObject(value, { kind, check: service, place, into: place.decoding.services });
    case `${DISCOVERY_V1} EndpointSlice`:
      return takeObject(value, { kind, check: endpointSlice, place, into: place.decoding.endpointSlices });
    case 'v1 Node':
      return takeObject(value, { kind, check: node, place, into: place.decoding.nodes, isOfCluster: true });
    case 'v1 List':
      return decodeItems(value, {}, place);
    case 'v1 ServiceList':
      return decodeItems(value, { apiVersion, kind: 'Service' }, place);
    case `${DISCOVERY_V1} EndpointSliceList`:
      return decodeItems(value, { apiVersion, kind: 'EndpointSlice' }, place);
    case 'v1 NodeList':
      return decodeItems(value, { apiVersion, kind: 'Node' }, place);
    case `${DISCOVERY_V1BETA1} EndpointSlice`:
    case `${DISCOVERY_V1BETA1} EndpointSliceList`:
      return report(place, 'apiVersion', `${DISCOVERY_V1BETA1} is not read from files; use ${DISCOVERY_V1}`);
    default:
      place.decoding.ignoredKinds.add(`${apiVersion} ${kind}`);
  }
}

function typeField(value: JsonMap, field: 'kind' | 'apiVersion', place: Place): string | undefined {
  const found = value[field];
  if (typeof found === 'string' && found !== '') return found;
  const isMissing = found === undefined || found === null;
  report(place, field, isMissing ? 'is missing' : `must be non-empty text, got ${valueText(found)}`);
  return undefined;
}

/** Items of a typed list may leave out what the list says (`defaults`). */
function decodeItems(list: JsonMap, defaults: JsonMap, place: Place): void {
  const items = list['items'] ?? [];
  if (!Array.isArray(items)) return report(place, 'items', `must be a list, got ${valueText(items)}`);
  for (const [index, item] of (items as unknown[]).entries()) {
    const inside: Place = { ...place, prefix: `${place.prefix}items[${index}].` };
    decodeObject(isJsonMap(item) ? { ...defaults, ...item } : item, inside);
  }
}

interface Expected<T> {
  readonly kind: string;
  /** What passes it is a `T`. */
  readonly check: Check;
  readonly place: Place;
  readonly into: DecodedObject<T>[];
  /** It has no namespace, and one that it says all the same counts for nothing. */
  readonly isOfCluster?: boolean;
}

function takeObject<T>(value: JsonMap, { kind, check, place, into, isOfCluster = false }: Expected<T>): void {
  const given = withoutNulls(value) as JsonMap;
  const object = isOfCluster ? given : withDefaultNamespace(given);
  const metadata = isJsonMap(object['metadata']) ? object['metadata'] : {};
  const { name } = metadata;
  const namespace = isOfCluster ? '' : metadata['namespace'];
  const isNamed = typeof name === 'string' && typeof namespace === 'string';
  const named = isNamed
    ? { ...place, where: `${place.where} (${objectText(kind, namespace, name)})` }
    : place;
  const before = place.decoding.problems.length;
  check(object, '', (field, message) => report(named, field, message));
  if (place.decoding.problems.length > before || !isNamed) return;
  into.push({
    object: object as T,
    key: isOfCluster ? name : `${namespace}/${name}`,
    where: `${place.where} ${place.prefix}`.replace(/\.? ?$/, ''),
  });
}

function withDefaultNamespace(object: JsonMap): JsonMap {
  const metadata = object['metadata'];
  if (!isJsonMap(metadata)) return object;
  return { ...object, metadata: { ...metadata, namespace: metadata['namespace'] ?? 'default' } };
}
