/** A Service that does not answer is dialled for so many clients at a time (`--max-concurrent-dials`); the others wait. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Agent } from '../../support/agent-client.ts';
import type { Family } from '../../support/dual-stack.ts';
import { FAMILIES, httpAt, httpOf, metricOf, sessionsGone, startProxy } from '../../support/fault-service.ts';
import { canMakeNamespaces, createLab, type Lab } from '../../support/netns-lab.ts';
import type { ProxyProcess } from '../../support/proxy-process.ts';
import { waitFor } from '../../support/wait.ts';

const PORT = 8470;
const SILENT = { name: 'silent', number: 70, ports: httpAt(PORT) };
const SOUND = { name: 'sound', number: 71, ports: httpAt(PORT + 1) };
const MOST = 8;
const COUNT = 60;
/** /proc/net/tcp's number of the state. */
const SYN_SENT = '02';

describe.skipIf(canMakeNamespaces() !== undefined)(`of ${COUNT} clients of a silent Service`, () => {
  let lab: Lab;
  let proxy: ProxyProcess;
  let client: Agent;

  beforeAll(async () => {
    lab = await createLab({ pods: 2 });
    const server = await lab.pod(1).agent();
    for (const port of [PORT, PORT + 1]) await server.serveTcp({ port, mode: 'identify', name: 'pod1' });
    client = await lab.pod(2).agent();
    proxy = await startProxy(
      lab.node,
      [SILENT, SOUND].map((service) => ({ ...service, backends: [lab.pod(1)] })),
      { args: [`--max-concurrent-dials=${MOST}`, '--dial-timeouts=5s'] },
    );
  });
  afterAll(async () => {
    await proxy?.[Symbol.asyncDispose]();
    await lab?.close();
  });

  /** Connections that the node is opening to that port, as the kernel has them. */
  const dials = async (family: Family): Promise<number> => {
    const table = await lab.node.run(['cat', `/proc/net/${family === 'IPv4' ? 'tcp' : 'tcp6'}`]);
    const port = `:${PORT.toString(16).toUpperCase().padStart(4, '0')}`;
    return table
      .split('\n')
      .map((line) => line.trim().split(/\s+/))
      .filter(([, , remote = '', state]) => remote.endsWith(port) && state === SYN_SENT).length;
  };

  test.for(FAMILIES)(
    `${MOST} are dialled for at a time, other Services are served, and all are when it answers again, over %s`,
    async (family) => {
      const repair = await lab.dropTraffic(lab.pod(1), { port: PORT });
      const asking = client.tcpIdentify({
        ...httpOf(SILENT.number, family),
        count: COUNT,
        concurrency: COUNT,
        timeoutMs: 20_000,
      });
      const labels = { service: 'silent', ip_family: family };
      const haveCome = async (): Promise<boolean> =>
        (await metricOf(proxy, 'connections_active', labels)) === COUNT && (await dials(family)) >= MOST;
      await waitFor(haveCome, { timeoutMs: 4_000, what: `${COUNT} clients and ${MOST} dials` });
      expect(await dials(family)).toBe(MOST);
      const others = await client.tcpIdentify({ ...httpOf(SOUND.number, family), count: 20 });
      expect(others.filter(({ ok }) => !ok)).toEqual([]);
      await repair();
      expect((await asking).filter(({ ok }) => !ok)).toEqual([]);
      await sessionsGone(proxy, 'silent');
    },
  );
});
