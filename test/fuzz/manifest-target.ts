/**
 * The manifest reader: any bytes at all, from the file to the desired state. It promises that nothing throws, that every
 * fault is a coded problem short enough for a log, and that what it lets through can be used by everybody behind it.
 */
import type { Random } from '../support/random.ts';
import { buildDesiredState } from '../../src/desired/desired-state.ts';
import type { Problem } from '../../src/errors.ts';
import { nodeInfoFromNode } from '../../src/model/node.ts';
import { snapshotFromObjects } from '../../src/model/snapshot.ts';
import { MAX_PROBLEMS, decodeManifest } from '../../src/sources/manifests/decode.ts';
import { ManifestSet, nextFileVersion } from '../../src/sources/manifests/manifest-set.ts';
import { makeNodeView } from '../support/rule-fixture.ts';
import { OBJECTS, YAML_TEXTS } from './corpus.ts';
import type { FuzzTarget } from './fuzz-target.ts';
import { hugeText, randomBytes, spoiledBytes, spoiledValue } from './mutations.ts';

const FILE = 'fuzz.yaml';
/** A problem is one line of a log: of what an object says it quotes the beginning. */
const MAX_PROBLEM_LENGTH = 2000;
const NODE = makeNodeView();
const CODES: ReadonlySet<string> = new Set(['ERR_MANIFEST_SYNTAX', 'ERR_MANIFEST_INVALID']);

type Generator = (random: Random) => Buffer;

function objectsText(random: Random, objects: readonly unknown[]): string {
  const isList = random.below(4) === 0;
  if (isList) return JSON.stringify({ apiVersion: 'v1', kind: 'List', items: objects });
  return objects.map((object) => JSON.stringify(object, undefined, random.below(3))).join('\n---\n');
}

function someObjects(random: Random): readonly unknown[] {
  return Array.from({ length: random.pick([1, 1, 1, 1, 2, 4]) }, () => random.pick(OBJECTS));
}

const spoiledYaml: Generator = (random) => spoiledBytes(Buffer.from(random.pick(YAML_TEXTS)), random);

const spoiledText: Generator = (random) =>
  spoiledBytes(Buffer.from(objectsText(random, someObjects(random))), random);

const spoiledObjects: Generator = (random) => {
  const objects = someObjects(random).map((object) => spoiledValue(object, random));
  return Buffer.from(objectsText(random, objects));
};

/** Brackets, indents or aliases inside aliases, up to some thousand. */
function deepText(random: Random): string {
  const depth = random.below(random.pick([20, 20, 150, 150, 3000]));
  switch (random.below(4)) {
    case 0:
      return random.pick(['[', '{a: ', '- ', '? ', '{"a":[', '!!x [']).repeat(depth);
    case 1:
      return `${'['.repeat(depth)}${']'.repeat(depth)}`;
    case 2:
      return Array.from({ length: Math.min(depth, 300) }, (_, level) => `${' '.repeat(level)}a:`).join('\n');
    default:
      return Array.from({ length: depth }, (_, level) => `a${level}: &a${level} [*a${level - 1}]`)
        .join('\n')
        .replace('[*a-1]', '[x]');
  }
}

/** Each anchor refers to the one before several times: few bytes stand for endless nodes. */
function aliasBomb(random: Random): string {
  const width = 2 + random.below(10);
  const levels = 2 + random.below(40);
  const isMerge = random.below(3) === 0;
  const lines = ['a0: &a0 {x: lol}'];
  for (let level = 1; level < levels; level += 1) {
    const aliases = Array.from({ length: width }, () => `*a${random.below(level + 1)}`).join(', ');
    lines.push(`a${level}: &a${level} ${isMerge ? `{<<: [${aliases}], y${level}: 1}` : `[${aliases}]`}`);
  }
  const object = `{apiVersion: v1, kind: Service, metadata: {name: web, labels: *a${levels - 1}}, spec: *a1}`;
  return `${lines.join('\n')}\nz: *a${levels - 1}\n---\n${random.below(2) === 0 ? object : ''}`;
}

/** A scalar of up to 50 kB where an object has a short one. */
function hugeScalar(random: Random): string {
  const text = JSON.stringify(random.pick(OBJECTS), undefined, random.below(2));
  const scalars = [...text.matchAll(/"[^"]*"|\d+/g)];
  const { index, 0: scalar } = random.pick(scalars);
  const huge = hugeText(random, random.pick([300, 300, 300, 50_000]));
  const put = random.below(3) === 0 ? huge : JSON.stringify(huge);
  return `${text.slice(0, index)}${put}${text.slice(index + scalar.length)}`;
}

/** Each as often as it stands here: what is quick and finds most comes most. */
const GENERATORS: readonly Generator[] = [
  ...Array.from({ length: 6 }, () => spoiledYaml),
  ...Array.from({ length: 4 }, () => spoiledText),
  ...Array.from({ length: 6 }, () => spoiledObjects),
  (random) => Buffer.from(deepText(random)),
  (random) => Buffer.from(aliasBomb(random)),
  (random) => Buffer.from(hugeScalar(random)),
  (random) => randomBytes(random, 200),
];

function inputOf(random: Random): Buffer {
  return random.pick(GENERATORS)(random);
}

function checkProblems(problems: readonly Problem[]): void {
  if (problems.length > MAX_PROBLEMS + 1) throw new Error(`${problems.length} problems`);
  for (const problem of problems) {
    const { code, object, field, message } = problem;
    if (!CODES.has(code)) throw new Error(`a problem has the code ${code}`);
    if (!object.startsWith(FILE) || message === '')
      throw new Error(`a problem says ${JSON.stringify(problem)}`);
    checkLength(problem);
    if (`${object}${field}${message}`.includes('undefined')) throw new Error(JSON.stringify(problem));
  }
}

function checkLength({ object, field, message }: Problem): void {
  const length = object.length + field.length + message.length;
  if (length > MAX_PROBLEM_LENGTH)
    throw new Error(`a problem of ${length} characters: ${message.slice(0, 100)}`);
}

function checkManifest(bytes: Buffer): void {
  const decoded = decodeManifest(bytes.toString('utf8'), FILE);
  checkProblems(decoded.problems);
  const version = nextFileVersion(undefined, decoded);
  const { objects, nodes, problems } = new ManifestSet().compose([version], 0);
  problems.forEach(checkLength);
  if (objects.services.length + objects.endpointSlices.length + nodes.size === 0) return;
  const snapshot = snapshotFromObjects(objects);
  snapshot.problems.forEach(checkLength);
  for (const [, node] of nodes) nodeInfoFromNode(node);
  buildDesiredState(snapshot, NODE).problems.forEach(checkLength);
}

export const manifestTarget: FuzzTarget = {
  name: 'manifest',
  run: (random) => checkManifest(inputOf(random)),
  describe: (random) => JSON.stringify(inputOf(random).toString('latin1')),
};
