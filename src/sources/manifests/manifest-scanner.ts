/**
 * What the given paths contain now, file by file, and what of it may be used. Reads only what changed.
 */
import { resolve } from 'node:path';
import type { Clock, MonotonicMs } from '../../clock.ts';
import type { Problem } from '../../errors.ts';
import { compareText } from '../../model/endpoint.ts';
import { decodeManifest } from './decode.ts';
import { type Listing, listPath, readManifestFile, signatureOfPath } from './manifest-files.ts';
import { type FileVersion, nextFileVersion } from './manifest-set.ts';

/**
 * For so long after a change a file is read again although it looks the same: a second write in the same tick of
 * the file system's clock (10 ms on a local disk, up to 2 s on FAT and some network mounts) changes no time stamp.
 */
export const YOUNG_FILE_MS = 2_000;

export interface Scan {
  /** Of every file that has been read, sorted by path. */
  readonly versions: readonly FileVersion[];
  /** Paths and files that cannot be read. */
  readonly problems: readonly Problem[];
  readonly ignoredKinds: readonly string[];
  /** A file changed while it was read: scan again soon. */
  readonly isUnsettled: boolean;
  /** No path has ever been readable: nothing is known, which is not the same as that there is nothing. */
  readonly isBlind: boolean;
}

/** A directory that never holds still is taken as it is after this many looks. */
const MAX_LOOKS = 5;

interface TrackedFile {
  readonly signature: string;
  readonly digest: string;
  readonly youngUntil: MonotonicMs;
  readonly version: FileVersion | undefined;
  readonly ignoredKinds: readonly string[];
  /** Why the newest content could not be read; '' when it could. */
  readonly fault: string;
}

interface Root {
  readonly path: string;
  readonly listing: Listing;
  /** The last listing that could be read stands in for one that cannot. */
  readonly files: readonly string[];
}

const UNREAD: TrackedFile = {
  signature: '',
  digest: '',
  youngUntil: 0,
  version: undefined,
  ignoredKinds: [],
  fault: '',
};

/** Calls must not overlap. No method rejects. */
export class ManifestScanner {
  readonly #clock: Clock;
  #roots: readonly Root[];
  /** By file path as given, so that problems name files as the operator did. */
  #files: ReadonlyMap<string, TrackedFile> = new Map();

  constructor(deps: { readonly clock: Clock }, options: { readonly paths: readonly string[] }) {
    this.#clock = deps.clock;
    this.#roots = options.paths.map((path) => ({
      path,
      listing: { kind: 'directory', files: [] },
      files: [],
    }));
  }

  /** True when a scan may find something new: a cheap look at names and time stamps. */
  async looksChanged(): Promise<boolean> {
    const now = this.#clock.now();
    const isYoung = [...this.#files.values()].some(({ youngUntil }) => youngUntil > now);
    return isYoung || this.#hasMoved();
  }

  /** What the paths held at one moment: a Service that moves from file to file is never seen in neither. */
  async scan(): Promise<Scan> {
    let scan = await this.#scanOnce();
    for (let looks = 1; looks < MAX_LOOKS && (await this.#hasMoved()); looks += 1)
      scan = await this.#scanOnce();
    return scan;
  }

  async #scanOnce(): Promise<Scan> {
    this.#roots = await Promise.all(this.#roots.map(listedRoot));
    const unlisted = new Set(
      this.#roots.flatMap(({ listing, files }) => (listing.kind === 'unreadable' ? files : [])),
    );
    const files = new Map<string, TrackedFile>();
    let isUnsettled = false;
    for (const path of uniquePaths(this.#roots.flatMap((root) => root.files))) {
      const before = this.#files.get(path) ?? UNREAD;
      const now = unlisted.has(path) ? { ...before, fault: '' } : await this.#look(path, before);
      files.set(path, now ?? before);
      isUnsettled ||= now === undefined;
    }
    this.#files = files;
    const tracked = [...files.values()];
    return {
      versions: tracked.map(({ version }) => version).filter((version) => version !== undefined),
      problems: [...this.#roots.flatMap(rootProblems), ...[...files].flatMap(fileProblems)],
      ignoredKinds: [...new Set(tracked.flatMap(({ ignoredKinds }) => ignoredKinds))].sort(compareText),
      isUnsettled,
      isBlind: this.#roots.every(({ listing, files }) => listing.kind === 'unreadable' && files.length === 0),
    };
  }

  /** Does anything look different from when it was listed and read? */
  async #hasMoved(): Promise<boolean> {
    for (const root of this.#roots) {
      if (!isSameListing(root.listing, await listPath(root.path))) return true;
    }
    for (const [path, { signature }] of this.#files) {
      if (signature !== (await signatureOfPath(path))) return true;
    }
    return false;
  }

  /** The file as it is now, or undefined when it changes under our eyes. */
  async #look(path: string, before: TrackedFile): Promise<TrackedFile | undefined> {
    const now = this.#clock.now();
    const seen = await signatureOfPath(path);
    if (seen === before.signature && now >= before.youngUntil) return before;
    const read = await readManifestFile(path);
    if (read.kind === 'changing') return undefined;
    if (read.kind === 'unreadable')
      return { ...before, signature: seen, youngUntil: now, fault: read.reason };
    const { signature, digest } = read;
    const youngUntil = signature === before.signature ? before.youngUntil : now + YOUNG_FILE_MS;
    const looked = { ...before, signature, digest, youngUntil, fault: '' };
    if (digest === before.digest) return looked;
    const decoded = decodeManifest(read.text, path);
    return {
      ...looked,
      // Content that changed without its signature may do so again.
      youngUntil: now + YOUNG_FILE_MS,
      version: nextFileVersion(before.version, decoded),
      ignoredKinds: decoded.ignoredKinds,
    };
  }
}

async function listedRoot({ path, files }: Root): Promise<Root> {
  const listing = await listPath(path);
  if (listing.kind === 'unreadable') return { path, listing, files };
  return { path, listing, files: listing.kind === 'file' ? [path] : listing.files };
}

function isSameListing(a: Listing, b: Listing): boolean {
  return JSON.stringify(a) === JSON.stringify(b);
}

/** Sorted; a file that two paths lead to counts once, by the first. */
function uniquePaths(paths: readonly string[]): string[] {
  const pathByPlace = new Map<string, string>();
  for (const path of [...paths].sort(compareText)) {
    if (!pathByPlace.has(resolve(path))) pathByPlace.set(resolve(path), path);
  }
  return [...pathByPlace.values()];
}

function rootProblems({ path, listing, files }: Root): Problem[] {
  return listing.kind === 'unreadable' ? [unreadable(path, listing.reason, files.length > 0)] : [];
}

function fileProblems([path, { fault, version }]: [string, TrackedFile]): Problem[] {
  return fault === '' ? [] : [unreadable(path, fault, version !== undefined)];
}

function unreadable(path: string, reason: string, hasObjects: boolean): Problem {
  const message = hasObjects ? `${reason}; what was read last stays in use` : reason;
  return { code: 'ERR_MANIFEST_UNREADABLE', object: path, field: '', message };
}
