/** What the fake API server serves: its resources, their paths and kinds, selectors, and Status objects. */

export type FakeResource = 'services' | 'endpointslices' | 'nodes';

/** Any JSON object. */
export type JsonObject = Readonly<Record<string, unknown>>;

/** An object as it is kept; `json` is never changed, an update is another StoredObject. */
export interface StoredObject {
  /** `namespace/name`, or `name` for what has no namespace. */
  readonly key: string;
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly json: JsonObject;
}

export type Selection = (object: StoredObject) => boolean;

interface ResourceKind {
  readonly kind: string;
  readonly isNamespaced: boolean;
  /** What a Go server writes for the rest of an object that has nothing but its resource version. */
  readonly bookmarkRest: JsonObject;
}

export const KINDS: Readonly<Record<FakeResource, ResourceKind>> = {
  services: {
    kind: 'Service',
    isNamespaced: true,
    bookmarkRest: { spec: {}, status: { loadBalancer: {} } },
  },
  endpointslices: {
    kind: 'EndpointSlice',
    isNamespaced: true,
    bookmarkRest: { addressType: '', endpoints: null, ports: null },
  },
  nodes: { kind: 'Node', isNamespaced: false, bookmarkRest: { spec: {}, status: {} } },
};

export interface FakePath {
  readonly resource: FakeResource;
  readonly apiVersion: string;
  /** Set where the API version can be away. */
  readonly discovery?: 'v1' | 'v1beta1';
}

export const PATHS: Readonly<Record<string, FakePath>> = {
  '/api/v1/services': { resource: 'services', apiVersion: 'v1' },
  '/api/v1/nodes': { resource: 'nodes', apiVersion: 'v1' },
  '/apis/discovery.k8s.io/v1/endpointslices': {
    resource: 'endpointslices',
    apiVersion: 'discovery.k8s.io/v1',
    discovery: 'v1',
  },
  '/apis/discovery.k8s.io/v1beta1/endpointslices': {
    resource: 'endpointslices',
    apiVersion: 'discovery.k8s.io/v1beta1',
    discovery: 'v1beta1',
  },
};

function asObject(value: unknown): JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as JsonObject) : {};
}

/**
 * The object as JSON has it, at that resource version. Throws for one that has no name, and for one whose
 * namespace is missing or too much: a server would have refused it.
 */
export function storedFrom(resource: FakeResource, object: object, resourceVersion: number): StoredObject {
  const json = JSON.parse(JSON.stringify(object)) as JsonObject;
  const metadata = asObject(json['metadata']);
  const { name, namespace } = metadata;
  if (typeof name !== 'string' || name === '') throw new Error(`an object of ${resource} without a name`);
  if ((typeof namespace === 'string') !== KINDS[resource].isNamespaced) {
    throw new Error(`${resource} ${name}: namespace ${JSON.stringify(namespace)}`);
  }
  return {
    key: typeof namespace === 'string' ? `${namespace}/${name}` : name,
    name,
    labels: asObject(metadata['labels']) as Readonly<Record<string, string>>,
    json: { ...json, metadata: { ...metadata, resourceVersion: String(resourceVersion) } },
  };
}

/** The same content at another resource version. */
export function atVersion(object: StoredObject, resourceVersion: number): StoredObject {
  const metadata = { ...asObject(object.json['metadata']), resourceVersion: String(resourceVersion) };
  return { ...object, json: { ...object.json, metadata } };
}

export function versionOf(object: StoredObject): number {
  return Number(asObject(object.json['metadata'])['resourceVersion']);
}

/** As it stands in a watch event. Only `apiVersion` and `kind` follow the version asked for, not the content. */
export function watchedObject(path: FakePath, object: StoredObject): JsonObject {
  return { ...object.json, kind: KINDS[path.resource].kind, apiVersion: path.apiVersion };
}

/** As it stands in a list, where a real server leaves out the kind and the API version of every item. */
export function listedObject({ json }: StoredObject): JsonObject {
  const { kind: _kind, apiVersion: _apiVersion, ...rest } = json;
  return rest;
}

export function bookmarkObject(path: FakePath, resourceVersion: number): JsonObject {
  const { kind, bookmarkRest } = KINDS[path.resource];
  const metadata = { resourceVersion: String(resourceVersion), creationTimestamp: null };
  return { kind, apiVersion: path.apiVersion, metadata, ...bookmarkRest };
}

const LABEL_KEY = /^[\w./-]+$/;
const REQUIREMENT = /^([\w./-]+)==?([\w.-]*)$/;

/** `undefined` for what the fake does not understand: anything but `!key`, `key`, `key=value`, and commas. */
export function labelSelection(selector: string): Selection | undefined {
  const requirements: Selection[] = [];
  for (const part of selector.split(',')) {
    const [, key, value] = REQUIREMENT.exec(part) ?? [];
    const isAbsence = part.startsWith('!');
    const name = isAbsence ? part.slice(1) : part;
    if (key !== undefined) requirements.push(({ labels }) => labels[key] === value);
    else if (LABEL_KEY.test(name))
      requirements.push(({ labels }) => Object.hasOwn(labels, name) !== isAbsence);
    else return undefined;
  }
  return (object) => requirements.every((isMet) => isMet(object));
}

/** `undefined` for anything but `metadata.name=X`. */
export function nameSelection(selector: string): Selection | undefined {
  const wanted = /^metadata\.name=([\w.-]+)$/.exec(selector)?.[1];
  return wanted === undefined ? undefined : ({ name }) => name === wanted;
}

export interface StatusFields {
  readonly code: number;
  /** What belongs to the code, unless told. */
  readonly reason?: string;
  readonly message?: string;
  /** Also becomes the header Retry-After. */
  readonly retryAfterSeconds?: number;
  readonly causes?: readonly { readonly reason: string; readonly message: string }[];
  /** `metadata.continue`, which an answer to an expired token carries. */
  readonly continueToken?: string;
}

const REASONS: Readonly<Record<number, string>> = {
  400: 'BadRequest',
  401: 'Unauthorized',
  403: 'Forbidden',
  404: 'NotFound',
  405: 'MethodNotAllowed',
  406: 'NotAcceptable',
  410: 'Expired',
  429: 'TooManyRequests',
  500: 'InternalError',
  503: 'ServiceUnavailable',
  504: 'Timeout',
};

/** A `metav1.Status` that says Failure. */
export function statusObject(fields: StatusFields): JsonObject {
  const { code, retryAfterSeconds, causes, continueToken } = fields;
  const reason = fields.reason ?? REASONS[code] ?? 'Unknown';
  const hasDetails = retryAfterSeconds !== undefined || causes !== undefined;
  return {
    kind: 'Status',
    apiVersion: 'v1',
    metadata: continueToken === undefined ? {} : { continue: continueToken },
    status: 'Failure',
    message: fields.message ?? reason,
    reason,
    ...(hasDetails ? { details: { causes, retryAfterSeconds } } : {}),
    code,
  };
}
