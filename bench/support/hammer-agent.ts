/**
 * The process in a pod that opens fresh connections at a steady pace and says when each was begun, when it was
 * answered and by whom. It resets them when they are answered: nothing then stays in TIME_WAIT on either side, and no
 * port runs out however long it goes on.
 */
import { connect } from 'node:net';
import { type Attempt, type HammerOrder, type HammerRun, monotonicMs } from './hammer-protocol.ts';

/** Reports are gathered: a message for every attempt would be work for the process that measures. */
const REPORT_MS = 5;

let timer: NodeJS.Timeout | undefined;
let run = 0;
let ended: Attempt[] = [];

function attempt(target: HammerRun): void {
  const startMs = monotonicMs();
  const socket = connect({ host: target.host, port: target.port, noDelay: true });
  let isOver = false;
  const finish = (outcome: { readonly name: string } | { readonly errno: string }): void => {
    if (isOver) return;
    isOver = true;
    clearTimeout(deadline);
    if ('name' in outcome) socket.resetAndDestroy();
    else socket.destroy();
    if (target.run === run) ended.push({ startMs, endMs: monotonicMs(), ...outcome });
  };
  const deadline = setTimeout(() => finish({ errno: 'TIMEOUT' }), target.timeoutMs);
  let text = '';
  socket.setEncoding('utf8');
  socket.on('data', (chunk: string) => {
    text += chunk;
    if (text.includes('\n')) finish({ name: text.slice(0, text.indexOf('\n')) });
  });
  socket.on('end', () => finish({ errno: 'EOF' }));
  socket.on('error', (error: NodeJS.ErrnoException) => finish({ errno: error.code ?? error.message }));
}

function obey({ start }: HammerOrder): void {
  clearInterval(timer);
  ended = [];
  run = start?.run ?? 0;
  if (start !== undefined) timer = setInterval(() => attempt(start), start.paceMs);
}

function report(): void {
  if (ended.length === 0) return;
  process.send?.({ run, attempts: ended });
  ended = [];
}

if (process.send === undefined) throw new Error('the hammer needs an IPC channel');
process.on('disconnect', () => process.exit(0));
process.on('message', (message) => obey(message as HammerOrder));
setInterval(report, REPORT_MS);
process.send({ run: 0, attempts: [] });
