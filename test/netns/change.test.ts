/** Services that are edited, deleted and made again: what is captured is what the manifests say. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Agent } from '../support/agent-client.ts';
import { clusterIP } from '../support/dual-stack.ts';
import { canMakeNamespaces, createLab, type Lab } from '../support/netns-lab.ts';
import { makeService, makeSlice, manifestText, type ServiceTweak } from '../support/objects.ts';
import { ProxyProcess } from '../support/proxy-process.ts';
import { waitFor } from '../support/wait.ts';

/** Five times the second within which an edit takes effect. */
const EDIT_MS = 5_000;

/** As any object, whose parts a test may replace by others. */
const WEB: object = makeService('web');
const OLD = { host: clusterIP(10, 'IPv4'), port: 80 };

describe.skipIf(canMakeNamespaces() !== undefined)('an edit', () => {
  let lab: Lab;
  let proxy: ProxyProcess;
  let client: Agent;

  const edit = async (tweak?: ServiceTweak): Promise<void> =>
    proxy.writeManifest(
      'web.yaml',
      manifestText(makeService('web', tweak), makeSlice('web', [lab.pod(1).ipv4])),
    );
  const isAnswered = async (target: { host: string; port: number }): Promise<boolean> =>
    (await client.tcpIdentify({ ...target, count: 1, timeoutMs: 500 }))[0]?.name === 'pod1';
  const becomesAnswered = async (target: { host: string; port: number }): Promise<void> => {
    await waitFor(async () => isAnswered(target), {
      timeoutMs: EDIT_MS,
      what: `an answer of ${target.host}`,
    });
  };
  /** Nobody answers there, neither with a connection nor with a refusal: nothing captures it. */
  const becomesFree = async (target: { host: string; port: number }): Promise<void> => {
    const isFree = async (): Promise<boolean> =>
      (await client.tcpProbe({ ...target, timeoutMs: 150 })).outcome === 'timeout';
    await waitFor(isFree, { timeoutMs: EDIT_MS, what: `${target.host}:${target.port} to be left alone` });
    // Conntrack remembers each SYN for two minutes as not captured, and whoever comes by the same port meanwhile is lost.
    await lab.node.run(['conntrack', '-D', '-p', 'tcp', '-d', target.host, '--state', 'SYN_SENT']);
  };

  beforeAll(async () => {
    lab = await createLab();
    const server = await lab.pod(1).agent();
    await server.serveTcp({ port: 8080, mode: 'identify', name: 'pod1' });
    await server.serveTcp({ port: 8007, mode: 'identify-echo', name: 'pod1' });
    client = await lab.pod(4).agent();
    proxy = await ProxyProcess.start(lab.node);
    await edit();
    await becomesAnswered(OLD);
  });
  afterAll(async () => {
    await proxy?.[Symbol.asyncDispose]();
    await lab?.close();
  });

  test.for([
    { name: 'the clusterIP', target: { host: clusterIP(77, 'IPv4'), port: 80 } },
    { name: 'the port', target: { host: OLD.host, port: 8888 } },
  ])('of $name moves what is captured, and leaves the listener alone', async ({ target }) => {
    await edit();
    await becomesAnswered(OLD);
    const proxyPort = await proxy.captured('default/web:http');
    await edit((service) => {
      service.spec.clusterIP = target.host;
      service.spec.ports = [{ name: 'http', port: target.port, protocol: 'TCP' }];
    });
    await becomesAnswered(target);
    await becomesFree(OLD);
    expect(await proxy.proxyPort('default/web:http')).toBe(proxyPort);
  });

  test.for([
    {
      name: 'headless',
      tweak: ((service) => {
        service.spec.clusterIP = 'None';
      }) satisfies ServiceTweak,
    },
    {
      name: 'ExternalName',
      tweak: ((service) => {
        service.spec.type = 'ExternalName';
        service.spec.externalName = 'example.org';
      }) satisfies ServiceTweak,
    },
  ])('to $name lets the clusterIP go, and back captures it again', async ({ tweak }) => {
    await edit();
    await becomesAnswered(OLD);
    await edit(tweak);
    await becomesFree(OLD);
    const isForgotten = async (): Promise<boolean> =>
      !(await proxy.rules()).some((rule) => rule.includes('default/web'));
    await waitFor(isForgotten, { timeoutMs: EDIT_MS, what: 'its last rules to go, with the grace period' });
    await edit();
    await becomesAnswered(OLD);
    expect(proxy.log.filter((line) => line['code'] !== undefined)).toEqual([]);
  });

  test('that deletes a Service closes its proxy port after the grace period, and cuts no connection', async () => {
    const target = { host: clusterIP(20, 'IPv4'), port: 7 };
    const echo = manifestText(
      makeService('echo', ({ spec }) => {
        spec.clusterIP = target.host;
        spec.ports = [{ name: 'echo', port: 7, protocol: 'TCP' }];
      }),
      makeSlice('echo', [lab.pod(1).ipv4], (slice) => {
        slice.ports = [{ name: 'echo', port: 8007, protocol: 'TCP' }];
      }),
    );
    const sockets = async (port: number): Promise<string> =>
      lab.node.run(['ss', '-Hltn', `sport = :${port}`]);
    await proxy.writeManifest('echo.yaml', echo);
    await becomesAnswered(target);
    const port = await proxy.captured('default/echo:echo');
    expect(await sockets(port)).toContain(`:${port}`);
    const group = await client.tcpHold({ ...target, count: 5, named: true });

    await proxy.removeManifest('echo.yaml');
    await becomesFree(target);
    await waitFor(async () => (await sockets(port)) === '', {
      timeoutMs: EDIT_MS,
      what: 'the port to close',
    });
    const guarded = async (): Promise<boolean> =>
      (await proxy.rules()).some((rule) => rule.includes(`--dport ${port} `));
    await waitFor(async () => !(await guarded()), { timeoutMs: EDIT_MS, what: 'its guard to go' });
    expect(await client.heldUse(group)).toMatchObject({ ok: 5, failed: 0 });

    await proxy.writeManifest('echo.yaml', echo);
    await becomesAnswered(target);
    expect(await proxy.captured('default/echo:echo')).toBe(port);
    expect(await client.heldUse(group)).toMatchObject({ ok: 5, failed: 0 });
    await client.heldClose({ ...group, how: 'fin' });
  });

  test('that breaks a file keeps what was good in it, says what is wrong, and harms nothing', async () => {
    await edit();
    await becomesAnswered(OLD);
    const load = await client.startConnectLoad({ ...OLD, pauseMs: 5 });
    await proxy.writeManifest('web.yaml', 'apiVersion: v1\nkind: Service\nmetadata: {name: web\n');
    const syntax = await proxy.logged(({ code }) => code === 'ERR_MANIFEST_SYNTAX', 'a syntax error');
    expect(syntax['object']).toMatch(/web\.yaml document 1/);
    expect(syntax['problem']).toContain('the last good version of this file stays in use');

    await proxy.writeManifest('web.yaml', manifestText({ ...WEB, spec: { ports: 'http' } }));
    const wrong = await proxy.logged(({ code }) => code === 'ERR_MANIFEST_INVALID', 'a wrong field');
    expect(wrong).toMatchObject({
      object: expect.stringMatching(/web\.yaml document 1 \(Service default\/web\)/),
      field: 'spec.ports',
    });
    expect(await isAnswered(OLD)).toBe(true);
    expect(await proxy.metric('userspace_proxy_manifest_errors')).toBe(1);

    await edit();
    const isMended = async (): Promise<boolean> =>
      (await proxy.metric('userspace_proxy_manifest_errors')) === 0;
    await waitFor(isMended, { timeoutMs: EDIT_MS, what: 'the file to be mended' });
    expect(await client.stopLoad(load)).toMatchObject({ failed: 0, failures: [] });
  });

  test('takes effect within a second', async () => {
    const text = (number: number): string =>
      manifestText(
        makeService('quick', ({ spec }) => {
          spec.clusterIP = clusterIP(number, 'IPv4');
        }),
        makeSlice('quick', [lab.pod(1).ipv4]),
      );
    const waits: number[] = [];
    for (const number of [31, 32, 33, 34, 35]) {
      await proxy.writeManifest('quick.yaml', text(number));
      const written = performance.now();
      const target = { host: clusterIP(number, 'IPv4'), port: 80 };
      // A SYN that nobody answered is sent again after a second: ask anew instead.
      const answered = async (): Promise<boolean> =>
        (await client.tcpIdentify({ ...target, count: 1, timeoutMs: 100 }))[0]?.ok === true;
      await waitFor(answered, { timeoutMs: EDIT_MS, what: 'an answer' });
      waits.push(performance.now() - written);
    }
    // The median: one pause of the machine is no fault of the proxy.
    expect(waits.toSorted((a, b) => a - b)[2]).toBeLessThan(1_000);
  });
});
