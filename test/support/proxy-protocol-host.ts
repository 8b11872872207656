/** The test process's end of `proxy-protocol-agent.ts`: starts it on a host of the lab and asks it. */
import type { ChildProcess } from 'node:child_process';
import { join } from 'node:path';
import type { Host } from './netns-lab.ts';
import type {
  Answer,
  Method,
  Methods,
  Question,
  Reply,
  Request,
  ServeOptions,
} from './proxy-protocol-agent.ts';

export type { Answer, Question } from './proxy-protocol-agent.ts';

interface Call {
  readonly resolve: (result: unknown) => void;
  readonly reject: (error: Error) => void;
}

export class ProxyProtocolHost {
  readonly name: string;
  readonly #child: ChildProcess;
  readonly #calls = new Map<number, Call>();
  #lastId = 0;
  #end: Error | undefined;

  private constructor(name: string, child: ChildProcess) {
    this.name = name;
    this.#child = child;
    const fail = (error: Error): void => {
      this.#end ??= error;
      for (const { reject } of this.#calls.values()) reject(error);
      this.#calls.clear();
    };
    // Not `close`, which does not come after a disconnect.
    child.once('exit', (code, signal) =>
      fail(new Error(`the agent on ${name} has ended (${signal ?? code})`)),
    );
    child.once('error', fail);
    child.on('message', (message) => {
      const { id, result, error } = message as Reply;
      const call = this.#calls.get(id);
      this.#calls.delete(id);
      if (error === undefined) call?.resolve(result);
      else call?.reject(new Error(`agent on ${name}: ${error}`));
    });
  }

  /** Resolves when it can be asked. It ends with the lab. */
  static async open(host: Host): Promise<ProxyProtocolHost> {
    const { NODE_OPTIONS: _ignored, ...env } = process.env;
    const argv = [process.execPath, join(import.meta.dirname, 'proxy-protocol-agent.ts')];
    const child = host.spawn(argv, { stdio: ['ignore', 'inherit', 'inherit', 'ipc'], env });
    const opened = new ProxyProtocolHost(host.name, child);
    await opened.#expect(0);
    return opened;
  }

  /** One GET over a connection of its own. */
  async ask(question: Question): Promise<Answer> {
    return this.#call('ask', question);
  }

  /** Serves on the wildcard address of both families until the lab ends. */
  async serve(options: ServeOptions): Promise<void> {
    await this.#call('serve', options);
  }

  /** What the server of that port has seen of each connection, oldest first. */
  async seen(port: number): Promise<readonly string[]> {
    return this.#call('seen', { port });
  }

  async #call<M extends Method>(method: M, params: Methods[M]['params']): Promise<Methods[M]['result']> {
    if (this.#end !== undefined) throw this.#end;
    this.#lastId += 1;
    const result = this.#expect(this.#lastId);
    // A failure to send is followed by the end of the process, which rejects what is pending.
    this.#child.send({ id: this.#lastId, method, params } satisfies Request, () => undefined);
    return (await result) as Methods[M]['result'];
  }

  async #expect(id: number): Promise<unknown> {
    return new Promise((resolve, reject) => {
      this.#calls.set(id, { resolve, reject });
    });
  }
}
