/**
 * The way of capture changes by a restart with another flag. What the last run has left behind, in the rules and in
 * conntrack, is no obstacle, to and fro.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { IP_FAMILIES } from '../../../src/model/address.ts';
import type { Capture } from '../../support/capture-under-test.ts';
import { clusterIP, dualStackObjects, openVantage, VANTAGES } from '../../support/dual-stack.ts';
import { canMakeNamespaces, createLab, type Lab } from '../../support/netns-lab.ts';
import { manifestText } from '../../support/objects.ts';
import { ProxyProcess } from '../../support/proxy-process.ts';
import { waitFor } from '../../support/wait.ts';

const HTTP = { name: 'http', port: 80, targetPort: 8080, nodePort: 30_080 };
const DNS = { name: 'dns', port: 53, targetPort: 8053, nodePort: 30_053, protocol: 'UDP' } as const;
const WEB = { name: 'web', number: 10, ports: [HTTP, DNS] };
/** By which target rules divert. */
const TARGETS: Readonly<Record<Capture, string>> = { redirect: 'REDIRECT', 'link-local': 'DNAT' };
/** The UDP clients keep it over every restart, so that they are one flow to conntrack. */
const LOCAL_PORT = 41_000;

describe.skipIf(canMakeNamespaces() !== undefined)('a proxy that is restarted', () => {
  let lab: Lab;
  let proxy: ProxyProcess;

  beforeAll(async () => {
    lab = await createLab({ podLinks: 'bridged' });
    const server = await lab.pod(1).agent();
    await server.serveTcp({ port: HTTP.targetPort, mode: 'identify', name: 'pod1' });
    await server.serveUdp({ port: DNS.targetPort, mode: 'identify', name: 'pod1' });
    const objects = dualStackObjects({ ...WEB, backends: [lab.pod(1)] });
    proxy = await ProxyProcess.start(lab.node, {
      manifests: { 'web.yaml': manifestText(...objects) },
      args: ['--capture', 'redirect'],
    });
    await isCapturedBy('redirect');
    await everybodyIsAnswered();
  });
  afterAll(async () => {
    await proxy?.[Symbol.asyncDispose]();
    await lab?.close();
  });

  const ports = async (): Promise<readonly number[]> =>
    Promise.all(
      IP_FAMILIES.flatMap((family) => [
        proxy.captured('default/web:http', { family }),
        proxy.captured('default/web:dns', { family, protocol: 'udp' }),
      ]),
    );

  /** All rules that divert are of this kind. */
  const isCapturedBy = async (capture: Capture): Promise<void> => {
    await ports();
    const rules = (await Promise.all(IP_FAMILIES.map(async (family) => proxy.rules(family)))).flat();
    const targets = rules.flatMap((rule) => / -j (REDIRECT|DNAT) /.exec(rule)?.[1] ?? []);
    // Two ports, each by the clusterIP and by the NodePort, in both families.
    expect(targets).toEqual(Array.from({ length: 8 }, () => TARGETS[capture]));
  };

  const everybodyIsAnswered = async (): Promise<void> => {
    for (const vantage of VANTAGES) {
      const tcp = await openVantage(lab, vantage, { ...WEB, ...HTTP });
      const answers = await tcp.client.tcpIdentify({ host: tcp.host, port: tcp.port, count: 3 });
      expect(answers.map(({ name }) => name)).toEqual(['pod1', 'pod1', 'pod1']);
      const { client, host, port } = await openVantage(lab, vantage, { ...WEB, ...DNS });
      const dial = { host, port, localPort: LOCAL_PORT, count: 1, sameSocket: true, timeoutMs: 400 };
      // Conntrack is told after the rules are in.
      const isAnswered = async (): Promise<boolean> => (await client.udpIdentify(dial))[0]?.ok === true;
      await waitFor(isAnswered, {
        timeoutMs: 5_000,
        what: `a datagram from ${vantage.from} over ${vantage.family} on the old source port`,
      });
    }
  };

  test.for([
    { capture: 'link-local', how: 'stopped' },
    { capture: 'redirect', how: 'stopped' },
    { capture: 'link-local', how: 'killed' },
    { capture: 'redirect', how: 'killed' },
  ] as const)(
    'with --capture $capture after it was $how leaves no rule of the other kind, and serves everybody on the ports it had',
    async ({ capture, how }) => {
      const before = await ports();
      const client = await lab.pod(4).agent();
      const target = { host: clusterIP(WEB.number, 'IPv4'), port: HTTP.port };
      if (how === 'stopped') await proxy.stop();
      else {
        proxy.signal('SIGKILL');
        await proxy.exited;
      }
      expect((await client.tcpProbe(target)).outcome).toBe('refused');
      proxy = await ProxyProcess.start(lab.node, {
        directory: proxy.directory,
        args: ['--capture', capture],
      });
      await isCapturedBy(capture);
      await everybodyIsAnswered();
      expect(await ports()).toEqual(before);
    },
  );
});
