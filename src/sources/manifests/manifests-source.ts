/**
 * Services, EndpointSlices and the own Node from YAML files, watched. Level-triggered: an event, or the poll, only says "look";
 * a look compares everything with what was there before.
 *
 * ```text
 * inotify event ─► debounce ─┐
 * poll: time stamps differ ──┴─► scan (read what changed) ─► decode ─► compose ─► onChange, if anything differs
 * ```
 */
import { isDeepStrictEqual } from 'node:util';
import type { V1EndpointSlice, V1Node, V1Service } from '@kubernetes/client-node';
import type { Clock, MonotonicMs } from '../../clock.ts';
import type { Problem } from '../../errors.ts';
import type { Logger } from '../../log.ts';
import { type NodeInfo, nodeInfoFromNode } from '../../model/node.ts';
import type { SourceObjects } from '../../model/snapshot.ts';
import { isOwnService } from '../objects/service-labels.ts';
import { DirectoryWatches, type WatchDirectory, watchDirectory } from './directory-watches.ts';
import { ManifestScanner } from './manifest-scanner.ts';
import { ManifestSet } from './manifest-set.ts';

/** Long enough for an editor's truncate-and-write to be over, short beside the second that an edit may take. */
const DEBOUNCE_MS = 75;
/** Files that are written to without pause are read after this all the same. */
const MAX_DEBOUNCE_MS = 300;

export interface ManifestsSourceDeps {
  readonly clock: Clock;
  readonly logger: Logger;
  /**
   * Called when objects or problems differ from the last call, and once for the first read. Objects that did not
   * change are the same objects, lists that did not change the same lists; undefined while no path has ever been
   * readable: then nothing is known. Must not throw.
   */
  readonly onChange: (objects: SourceObjects | undefined, problems: readonly Problem[]) => void;
  /**
   * The own Node, or undefined while no file has one of that name, which is nothing unusual. Called when it differs from
   * the last call, and once before the first `onChange` that knows anything. Must not throw.
   */
  readonly onNodeChange: (node: NodeInfo | undefined) => void;
  /** Default: fs.watch. */
  readonly watch?: WatchDirectory;
}

export interface ManifestsSourceOptions {
  /** Files and directories; none needs to exist yet. */
  readonly paths: readonly string[];
  /** Of the own Node object; those of other names are for nothing. */
  readonly nodeName: string;
  /** Value of the label service.kubernetes.io/service-proxy-name to serve. Default '': Services without that label. */
  readonly serviceProxyName?: string;
  /** How often to look without having been told to. Default 500. */
  readonly pollIntervalMs?: number;
}

/** Start once, close once or more. */
export class ManifestsSource {
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #onChange: ManifestsSourceDeps['onChange'];
  readonly #onNodeChange: ManifestsSourceDeps['onNodeChange'];
  readonly #nodeName: string;
  readonly #serviceProxyName: string;
  readonly #scanner: ManifestScanner;
  readonly #watches: DirectoryWatches;
  readonly #pollIntervalMs: number;
  readonly #set = new ManifestSet();
  /** Looks never overlap: each waits for the one before. */
  #work: Promise<void> = Promise.resolve();
  #isClosed = false;
  #debounceTimer: NodeJS.Timeout | undefined;
  #pollTimer: NodeJS.Timeout | undefined;
  #dirtySince: MonotonicMs | undefined;
  #ignoredKinds = '';
  #wasBlind = false;
  /** What the files hold, and what of it is ours. */
  #told: { readonly all: SourceObjects; readonly own: SourceObjects } | undefined;
  #toldNode: { readonly node: NodeInfo | undefined } | undefined;

  constructor(deps: ManifestsSourceDeps, options: ManifestsSourceOptions) {
    this.#clock = deps.clock;
    this.#logger = deps.logger;
    this.#onChange = deps.onChange;
    this.#onNodeChange = deps.onNodeChange;
    this.#nodeName = options.nodeName;
    this.#serviceProxyName = options.serviceProxyName ?? '';
    this.#pollIntervalMs = options.pollIntervalMs ?? 500;
    this.#scanner = new ManifestScanner({ clock: deps.clock }, { paths: options.paths });
    this.#watches = new DirectoryWatches(
      { watch: deps.watch ?? watchDirectory, logger: deps.logger, onEvent: () => this.#markDirty() },
      { paths: options.paths },
    );
  }

  /** Resolves when everything was read once and `onChange` told of it. Missing paths are problems, not failures. */
  async start(): Promise<void> {
    // Watching first: what changes during the first read is then seen by the next.
    await this.#inTurn(() => this.#watches.ensure());
    await this.#inTurn(() => this.#scan());
    this.#armPoll();
  }

  /** No `onChange` once it has been called; resolves when the last look has ended. */
  async close(): Promise<void> {
    this.#isClosed = true;
    clearTimeout(this.#debounceTimer);
    clearTimeout(this.#pollTimer);
    this.#watches.close();
    await this.#work;
  }

  #inTurn(task: () => Promise<void>): Promise<void> {
    this.#work = this.#work.then(() => (this.#isClosed ? undefined : task()));
    return this.#work;
  }

  #markDirty(): void {
    if (this.#isClosed) return;
    const now = this.#clock.now();
    this.#dirtySince ??= now;
    clearTimeout(this.#debounceTimer);
    const delayMs = Math.max(0, Math.min(DEBOUNCE_MS, this.#dirtySince + MAX_DEBOUNCE_MS - now));
    this.#debounceTimer = setTimeout(() => {
      this.#dirtySince = undefined;
      void this.#inTurn(() => this.#scan());
    }, delayMs);
  }

  #armPoll(): void {
    if (this.#isClosed) return;
    this.#pollTimer = setTimeout(() => {
      void this.#inTurn(() => this.#poll()).then(() => this.#armPoll());
    }, this.#pollIntervalMs);
  }

  /** Only marks dirty: what the poll sees changing may be half written, and the debounce gives it time. */
  async #poll(): Promise<void> {
    await this.#watches.ensure();
    if (this.#dirtySince === undefined && (await this.#scanner.looksChanged())) this.#markDirty();
  }

  async #scan(): Promise<void> {
    const scan = await this.#scanner.scan();
    if (this.#isClosed) return;
    this.#logIgnoredKinds(scan.ignoredKinds);
    if (scan.isUnsettled) this.#markDirty();
    const { objects, nodes, problems, isChanged } = this.#set.compose(
      scan.versions,
      this.#clock.wallTime(),
      scan.problems,
    );
    if (!scan.isBlind) this.#tellNode(nodes.get(this.#nodeName));
    if (!isChanged && scan.isBlind === this.#wasBlind) return;
    this.#wasBlind = scan.isBlind;
    const counts = { services: objects.services.length, endpointSlices: objects.endpointSlices.length };
    this.#logger.debug({ ...counts, problems: problems.length }, 'Manifests changed');
    this.#onChange(scan.isBlind ? undefined : this.#own(objects), problems);
  }

  /** Those that an API server's selector would give us; the same lists as long as they are made of the same. */
  #own(all: SourceObjects): SourceObjects {
    const isOwn = ({ metadata }: V1Service | V1EndpointSlice): boolean =>
      isOwnService(metadata, this.#serviceProxyName);
    const before = this.#told;
    const services = before?.all.services === all.services ? before.own.services : all.services.filter(isOwn);
    const endpointSlices =
      before?.all.endpointSlices === all.endpointSlices
        ? before.own.endpointSlices
        : all.endpointSlices.filter(isOwn);
    const isSame = before?.own.services === services && before.own.endpointSlices === endpointSlices;
    const own = isSame ? before.own : { services, endpointSlices };
    this.#told = { all, own };
    return own;
  }

  /** Only what the model makes of it: a heartbeat in the status is no change. */
  #tellNode(object: V1Node | undefined): void {
    const node = object === undefined ? undefined : nodeInfoFromNode(object);
    if (this.#toldNode !== undefined && isDeepStrictEqual(this.#toldNode.node, node)) return;
    this.#toldNode = { node };
    this.#onNodeChange(node);
  }

  /** Once per set of kinds: an operator who gives a v1 Endpoints wonders otherwise why nothing happens. */
  #logIgnoredKinds(kinds: readonly string[]): void {
    const ignoredKinds = kinds.join(', ');
    if (ignoredKinds !== this.#ignoredKinds && ignoredKinds !== '') {
      this.#logger.info(
        { ignoredKinds },
        'Manifests contain objects that are no Services, EndpointSlices or Nodes',
      );
    }
    this.#ignoredKinds = ignoredKinds;
  }
}
