/** API servers that show who they are, or others; several of them; and client certificates that are replaced. */
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { canMakeNamespaces, type Host } from '../support/netns-lab.ts';
import { ScratchFiles } from '../support/cluster-access.ts';
import type { ApiServer } from '../support/cluster-api-server.ts';
import { clusterAssets } from '../support/cluster-assets.ts';
import type { CertificateAuthority, KeyPair } from '../support/cluster-certificates.ts';
import { ClusterObjects } from '../support/cluster-objects.ts';
import { ClusterUnderTest, NODE_NAME } from '../support/cluster-under-test.ts';
import { TOKENS } from '../support/control-plane-files.ts';
import { kubeconfigText } from '../support/kubeconfig.ts';
import { MovingService } from '../support/moving-service.ts';
import { ProxyProcess } from '../support/proxy-process.ts';
import { waitFor } from '../support/wait.ts';

const isLong = process.env['KUP_TEST_LONG'] === '1';
const FAILOVERS = isLong ? 5 : 1;
const PROXY_AGENT = 'kube-userspace-proxy/';

describe.skipIf(clusterAssets() === undefined || canMakeNamespaces() !== undefined)('API servers', () => {
  let cluster: ClusterUnderTest;
  let service: MovingService;

  beforeAll(async () => {
    // Two pods answer; the third stands in for another node.
    cluster = await ClusterUnderTest.start({ pods: 3, controllers: false });
    service = await MovingService.create(cluster, 'web');
  });
  afterAll(async () => {
    await cluster?.close();
  });

  const startProxy = async (
    host: Host,
    args: readonly string[],
    { awaitReady = true } = {},
  ): Promise<ProxyProcess> => {
    const all = ['--hostname-override', NODE_NAME, ...args];
    const proxy = await ProxyProcess.start(host, { manifests: false, args: all, awaitReady });
    onTestFinished(() => proxy[Symbol.asyncDispose]());
    return proxy;
  };

  /** Fresh connections from there until the result is called, which expects that none failed. */
  const loadFrom = async (host: Host): Promise<() => Promise<void>> => {
    const agent = await host.agent();
    const load = await agent.startConnectLoad({
      host: service.clusterIP,
      port: 80,
      concurrency: 2,
      pauseMs: 5,
      maxDurationMs: 900_000,
    });
    return async () => {
      const report = await agent.stopLoad(load);
      expect(report).toMatchObject({ failed: 0, failures: [] });
      expect(report.requests).toBeGreaterThan(50);
    };
  };

  test('whose certificate is of another authority are told nothing, until the right one is on disk', async () => {
    const host = cluster.lab.pod(3);
    const scratch = await ScratchFiles.create({ onTestFinished });
    const stranger = await cluster.plane.createClientCa('stranger');
    const ca = await scratch.write('ca.crt', stranger.cert);
    const kubeconfig = await scratch.write(
      'kubeconfig',
      kubeconfigText({
        server: cluster.plane.url,
        cluster: { 'certificate-authority': ca },
        user: { token: TOKENS.admin.token },
      }),
    );
    const proxy = await startProxy(host, ['--kubeconfig', kubeconfig], { awaitReady: false });
    for (const resource of ['services', 'endpointslices', 'nodes']) {
      const line = await proxy.logged((one) => one['resource'] === resource, `${resource} to fail`, 15_000);
      expect(line).toMatchObject({
        level: 'warn',
        msg: 'The API server cannot be listed, waiting for it',
        error: {
          code: 'ERR_API_CONNECTION',
          cause: { message: expect.stringMatching(/certificate/) as string },
        },
      });
    }
    const failures = async (): Promise<number> =>
      proxy.metric('userspace_proxy_api_failures_total', { code: 'ERR_API_CONNECTION' });
    await waitFor(async () => (await failures()) >= 6, { timeoutMs: 25_000, what: 'further attempts' });
    expect((await proxy.health('/readyz')).status).toBe(503);
    expect((await proxy.health('/livez')).status).toBe(200);
    const heard = async (): Promise<number> =>
      (await cluster.plane.auditedRequests()).filter(({ userAgent }) => userAgent.startsWith(PROXY_AGENT))
        .length;
    expect(await heard()).toBe(0);
    expect(JSON.stringify(proxy.log)).not.toContain(TOKENS.admin.token);

    await scratch.write('ca.crt', cluster.plane.serverCa.cert);
    await proxy.ready(30_000);
    await service.followed(host);
    // What showed that nothing was heard would have shown it.
    expect(await heard()).toBeGreaterThan(0);
  });

  test('give way to each other: one is killed, what changes by the other is seen at once, both ways round', async () => {
    const { plane, lab } = cluster;
    const second = await plane.addApiServer();
    const kubeconfig = await plane.writeKubeconfig({ credentials: TOKENS.admin });
    const masters = `${plane.url},${second.url}`;
    const proxy = await startProxy(lab.node, ['--kubeconfig', kubeconfig, '--master', masters]);
    await service.followed(lab.node);
    const endLoad = await loadFrom(lab.node);
    const others = new Map<ApiServer, ApiServer>([
      [plane.apiServer, second],
      [second, plane.apiServer],
    ]);
    const requestsTo = async ({ address }: ApiServer): Promise<number> =>
      proxy.metric('rest_client_requests_total', { host: `${address}:6443` });
    for (let round = 0; round < 2 * FAILOVERS; round += 1) {
      const killed = round % 2 === 0 ? plane.apiServer : second;
      const left = others.get(killed) ?? second;
      const objects = new ClusterObjects(left.api);
      const logged = proxy.log.length;
      await killed.kill();
      await service.move(objects);
      await service.followed(lab.node, 5_000);
      // The other one was asked without any pause.
      const failures = proxy.log.slice(logged).filter(({ level }) => level === 'warn');
      expect(failures.map(({ retryMs }) => retryMs)).toEqual(failures.map(() => 0));
      expect(failures).not.toEqual([]);
      if (round === 2 * FAILOVERS - 1) break;
      const asked = await requestsTo(killed);
      await killed.start();
      await service.move(objects);
      await service.followed(lab.node, 5_000);
      // It stays where it is: the one that came back is left alone.
      expect(await requestsTo(killed)).toBe(asked);
    }
    await endLoad();
    for (const server of others.keys()) expect(await requestsTo(server)).toBeGreaterThan(0);
  });

  test('trust another authority of client certificates: new ones are on disk and used, nothing fails', async () => {
    const { plane, lab } = cluster;
    const scratch = await ScratchFiles.create({ onTestFinished });
    const write = async ({ cert, key }: Partial<KeyPair>): Promise<void> => {
      if (cert !== undefined) await scratch.write('client.crt', cert);
      if (key !== undefined) await scratch.write('client.key', key);
    };
    const issue = async (user: string, ca: CertificateAuthority): Promise<KeyPair> => {
      await plane.objects.bindClusterRole('system:node-proxier', user);
      return plane.issueClientCert({ user, ca });
    };
    await write(await issue('proxy-first', plane.clientCa));
    const kubeconfig = await scratch.write(
      'kubeconfig',
      kubeconfigText({
        server: plane.url,
        cluster: { 'certificate-authority': plane.serverCaPath },
        user: { 'client-certificate': 'client.crt', 'client-key': 'client.key' },
      }),
    );
    const proxy = await startProxy(lab.node, ['--kubeconfig', kubeconfig, '--watch-stall-timeout', '2s']);
    await service.followed(lab.node);
    const endLoad = await loadFrom(lab.node);
    const watchesOf = async (user: string): Promise<ReadonlySet<string>> => {
      const watches = await plane.auditedRequests({ user, verb: 'watch' });
      return new Set(watches.filter(({ code }) => code === 200).map(({ resource }) => resource));
    };
    const isUsed = async (user: string, resources = 3): Promise<void> => {
      const isSo = async (): Promise<boolean> => (await watchesOf(user)).size >= resources;
      await waitFor(isSo, { timeoutMs: 25_000, what: `${resources} resources to be watched as ${user}` });
    };
    await isUsed('proxy-first');
    const followsOn = async (): Promise<void> => {
      await service.move();
      await service.followed(lab.node, 15_000);
    };

    const ca = await plane.createClientCa('second-ca');
    const next = await issue('proxy-second', ca);
    if (isLong) {
      // Both are good for a while, as an operator would do it.
      await plane.trustClientCAs([plane.clientCa, ca]);
      await write(next);
      await isUsed('proxy-second');
      await plane.trustClientCAs([ca]);
    } else {
      await plane.killApiServer();
      await write(next);
      await plane.trustClientCAs([ca]);
      await plane.startApiServer({ until: 'accepting' });
    }
    await isUsed('proxy-second');
    await followsOn();
    const refused = (await plane.auditedRequests()).filter(
      ({ code, userAgent }) => code === 401 && userAgent.startsWith(PROXY_AGENT),
    );
    expect(refused).toEqual([]);

    // A certificate whose key is not there yet.
    const last = await issue('proxy-third', ca);
    await write({ cert: last.cert });
    const before = proxy.log.length;
    await waitFor(
      () =>
        proxy.log.slice(before).some(({ error }) => /key values mismatch/.test(JSON.stringify(error ?? ''))),
      {
        timeoutMs: 25_000,
        what: 'the log to say that the key does not fit',
      },
    );
    await write({ key: last.key });
    await isUsed('proxy-third', 1);
    await followsOn();
    await endLoad();
  });
});
