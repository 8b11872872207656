/** What the proxy may ask of a cluster (exactly what deploy/rbac.yaml says; and with less), and what of it it serves. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, test } from 'vitest';
import { canMakeNamespaces, type Host } from '../support/netns-lab.ts';
import { Account, type Grant, readGrants } from '../support/cluster-access.ts';
import type { AuditedRequest } from '../support/cluster-audit.ts';
import { clusterAssets } from '../support/cluster-assets.ts';
import { pathOf } from '../support/cluster-paths.ts';
import { ClusterUnderTest, NODE_NAME } from '../support/cluster-under-test.ts';
import { TOKENS } from '../support/control-plane-files.ts';
import { MovingService } from '../support/moving-service.ts';
import { ProxyProcess } from '../support/proxy-process.ts';
import { waitFor } from '../support/wait.ts';

const MAIN = new URL('../../src/main.ts', import.meta.url).pathname;
const PROXY_NAME_LABEL = 'service.kubernetes.io/service-proxy-name';
const isLong = process.env['KUP_TEST_LONG'] === '1';
/** How often something is listed again. */
const RELISTS = isLong ? 20 : 1;
const GRANTS = await readGrants();
/** Two pods answer. The others stand in for nodes, each with a proxy of its own; the node itself has none. */
const FIRST_NODE = 3;
const PODS = 2 + GRANTS.length + 4;

describe.skipIf(clusterAssets() === undefined || canMakeNamespaces() !== undefined)(
  'with a real API server',
  { concurrent: true },
  () => {
    let cluster: ClusterUnderTest;
    let service: MovingService;
    /** The administrator's. */
    let kubeconfig: string;

    beforeAll(async () => {
      cluster = await ClusterUnderTest.start({ pods: PODS });
      service = await MovingService.create(cluster, 'steady');
      kubeconfig = await cluster.plane.writeKubeconfig({ credentials: TOKENS.admin });
      await cluster.createPods('web', [1, 2]);
    });
    afterAll(async () => {
      await cluster?.close();
    });

    const argsFor = async (account: Account, ...args: readonly string[]): Promise<readonly string[]> => {
      const { text: token } = await account.issueToken();
      const kubeconfig = await cluster.plane.writeKubeconfig({ credentials: { token } });
      return ['--kubeconfig', kubeconfig, '--hostname-override', NODE_NAME, ...args];
    };

    describe('the ClusterRole', () => {
      test('is enough to start, to serve, to follow and to list again, and all of it is used', async ({
        expect,
      }) => {
        const moving = await MovingService.create(cluster, 'moving');
        const account = await Account.create(cluster.plane);
        const node = cluster.lab.pod(FIRST_NODE + GRANTS.length);
        const args = await argsFor(account, '--watch-stall-timeout', '2s');
        await using proxy = await ProxyProcess.start(node, { manifests: false, args });
        await moving.followed(node);
        await moving.move();
        await moving.followed(node);
        // Of its Node nothing is heard while nothing happens to it, so that is what it does not rely on for long.
        const relists = async (): Promise<number> =>
          proxy.metric('userspace_proxy_api_lists_total', { reason: 'silent', resource: 'nodes' });
        await waitFor(async () => (await relists()) >= RELISTS, {
          timeoutMs: 35_000 * RELISTS,
          what: 'another list',
        });
        await moving.move();
        await moving.followed(node);
        expect(await proxy.metric('rest_client_requests_total', { code: '403' })).toBe(0);

        // kube-apiserver 1.20 writes a watch into its audit log when it ends.
        await proxy.stop();
        const requests = async (): Promise<readonly AuditedRequest[]> =>
          (await cluster.plane.auditedRequests({ user: account.user })).filter(({ userAgent }) =>
            userAgent.startsWith('kube-userspace-proxy/'),
          );
        const textOf = ({ verb, resource }: Grant): string => `${verb} ${resource}`;
        const used = async (): Promise<readonly string[]> =>
          [...new Set((await requests()).map(textOf))].sort();
        const isAllThere = async (): Promise<boolean> => (await used()).length >= GRANTS.length;
        // When they are not, the comparison tells which.
        await waitFor(isAllThere, { timeoutMs: 5_000, what: 'all its requests' }).catch(() => undefined);
        expect(await used()).toEqual(GRANTS.map(textOf).sort());
        // 404: the server has no discovery.k8s.io/v1.
        expect(new Set((await requests()).map(({ code }) => code))).toEqual(new Set([200, 404]));
      });

      test('lets its token neither read a Secret or a Pod nor write what it may read', async ({ expect }) => {
        const account = await Account.create(cluster.plane, { name: 'curious' });
        const { text: token } = await account.issueToken();
        const client = cluster.plane.client({ token });
        const path = '/api/v1/namespaces/default/services/steady';
        for (const resource of ['secrets', 'pods', 'configmaps']) {
          await expect(client.list(`/api/v1/${resource}`)).rejects.toMatchObject({ status: 403 });
        }
        await expect(client.patch(path, { metadata: { labels: { by: 'it' } } })).rejects.toMatchObject({
          status: 403,
        });
        await expect(client.delete(path)).rejects.toMatchObject({ status: 403 });
        await expect(client.list('/api/v1/services')).resolves.toMatchObject({ kind: 'ServiceList' });
      });

      describe('without one of its grants', () => {
        const cases = GRANTS.map((lacking, index) => ({ ...lacking, index }));
        const isRefusal = (resource: string) => (line: Readonly<Record<string, unknown>>) =>
          line['resource'] === resource.split('.')[0] &&
          JSON.stringify(line['error'] ?? '').includes('answered 403');

        test.for(cases.filter(({ verb }) => verb === 'list'))(
          'to $verb $resource, it never gets ready, says why, and is ready once that is granted',
          async ({ index, ...lacking }, { onTestFinished, expect }) => {
            const account = await Account.create(cluster.plane, { name: `lacking-${index}`, lacking });
            const host = cluster.lab.pod(FIRST_NODE + index);
            const args = await argsFor(account);
            const proxy = await ProxyProcess.start(host, { manifests: false, args, awaitReady: false });
            onTestFinished(() => proxy[Symbol.asyncDispose]());
            const line = await proxy.logged(
              isRefusal(lacking.resource),
              `403 for ${lacking.resource}`,
              20_000,
            );
            expect(line).toMatchObject({
              level: 'warn',
              operation: 'list',
              error: { code: 'ERR_API_STATUS', message: expect.stringContaining(account.user) as string },
              msg: 'The API server cannot be listed, waiting for it',
            });
            // Another attempt later it is still so, and nothing was programmed.
            const failures = async (): Promise<number> =>
              proxy.metric('userspace_proxy_api_failures_total', { code: 'ERR_API_STATUS' });
            await waitFor(async () => (await failures()) >= 2, {
              timeoutMs: 30_000,
              what: 'it to be refused twice',
            });
            expect((await proxy.health('/readyz')).status).toBe(503);
            expect(await proxy.rules()).toEqual([]);
            await account.grantAll();
            await proxy.ready(45_000);
            await service.followed(host);
          },
        );

        test.for(cases.filter(({ verb }) => verb === 'watch'))(
          'to $verb $resource, it serves what it listed, says what it cannot see, and sees it once that is granted',
          async ({ index, ...lacking }, { onTestFinished, expect }) => {
            const account = await Account.create(cluster.plane, { name: `lacking-${index}`, lacking });
            const missed = await MovingService.create(cluster, `missed-${index}`);
            const host = cluster.lab.pod(FIRST_NODE + index);
            const args = await argsFor(account);
            const proxy = await ProxyProcess.start(host, { manifests: false, args });
            onTestFinished(() => proxy[Symbol.asyncDispose]());
            const line = await proxy.logged(
              isRefusal(lacking.resource),
              `403 for ${lacking.resource}`,
              20_000,
            );
            expect(line).toMatchObject({
              level: 'warn',
              operation: 'watch',
              error: { code: 'ERR_API_STATUS', message: expect.stringContaining(account.user) as string },
              msg: 'The API server cannot be watched, serving what was known',
            });
            const resource = lacking.resource.split('.')[0] ?? '';
            const upOf = async (): Promise<number> =>
              proxy.metric('userspace_proxy_api_watch_up', { resource });
            expect(await upOf()).toBe(0);
            const downSince = 'userspace_proxy_api_down_since_timestamp_seconds';
            expect(await proxy.metric(downSince, { resource })).toBeGreaterThan(0);
            await missed.move();
            await account.grantAll();
            await waitFor(async () => (await upOf()) === 1, {
              timeoutMs: 45_000,
              what: `${resource} to be watched`,
            });
            expect(await proxy.metric(downSince, { resource })).toBe(0);
            await missed.followed(host);
          },
        );
      });
    });

    const createService = async (name: string, labels: Readonly<Record<string, string>>): Promise<string> => {
      const { spec } = await cluster.plane.objects.createService({ name, labels, selector: { app: 'web' } });
      return spec?.clusterIP ?? '';
    };

    test('--print-rules prints the rules of its Services, exits 0, and changes nothing', async ({
      expect,
      onTestFinished,
    }) => {
      const host = cluster.lab.pod(FIRST_NODE + GRANTS.length + 1);
      const web = await createService('web', {});
      await createService('left-out', { [PROXY_NAME_LABEL]: 'another' });
      const haveSlices = async (): Promise<boolean> =>
        (await cluster.plane.objects.slicesOf('web')).some(({ endpoints }) => endpoints.length === 2);
      await waitFor(haveSlices, { timeoutMs: 10_000, what: 'the slices of web' });
      const stateDir = await mkdtemp(join(tmpdir(), 'kup-print-'));
      onTestFinished(async () => rm(stateDir, { recursive: true, force: true }));
      const before = await host.run(['iptables-save']);
      const args = ['--print-rules', '--kubeconfig', kubeconfig, '--hostname-override', NODE_NAME];
      const printed = await host.exec([process.execPath, MAIN, ...args, '--state-dir', stateDir]);
      expect(printed).toMatchObject({ exitCode: 0 });
      const rules = printed.stdout.split('\n');
      const redirects = rules.filter((rule) => rule.includes('REDIRECT'));
      expect(redirects.filter((rule) => rule.includes('"default/web:http"'))).not.toEqual([]);
      expect(redirects.filter((rule) => rule.includes(`-d ${web}`))).not.toEqual([]);
      expect(redirects.filter((rule) => rule.includes('"default/kubernetes:https"'))).not.toEqual([]);
      expect(printed.stdout).not.toContain('left-out');
      expect(await host.run(['iptables-save'])).toBe(before);
    });

    test('--service-proxy-name serves the Services of that name, and no others, which the others serve', async ({
      expect,
      onTestFinished,
    }) => {
      const startProxy = async (host: Host, ...further: readonly string[]): Promise<ProxyProcess> => {
        const args = ['--kubeconfig', kubeconfig, '--hostname-override', NODE_NAME, ...further];
        const proxy = await ProxyProcess.start(host, { manifests: false, args });
        onTestFinished(() => proxy[Symbol.asyncDispose]());
        return proxy;
      };
      const answersAt = async (host: Host, ip: string): Promise<ReadonlySet<string>> => {
        const agent = await host.agent();
        const results = await agent.tcpIdentify({
          host: ip,
          port: 80,
          count: 4,
          concurrency: 4,
          timeoutMs: 500,
        });
        return new Set(results.map(({ ok, name }) => (ok ? (name ?? '') : 'nobody')));
      };
      const answeredAt = async (host: Host, ip: string, names: readonly string[]): Promise<void> => {
        const isSo = async (): Promise<boolean> =>
          [...(await answersAt(host, ip))].sort().join() === names.join();
        await waitFor(isSo, {
          timeoutMs: 10_000,
          what: `${ip} to be answered at ${host.name} by ${names.join()}`,
        });
      };
      const node = cluster.lab.pod(FIRST_NODE + GRANTS.length + 2);
      const other = cluster.lab.pod(FIRST_NODE + GRANTS.length + 3);
      const [plain, named] = await Promise.all([
        startProxy(node),
        startProxy(other, '--service-proxy-name', 'other'),
      ]);
      const ours = await createService('ours', {});
      const theirs = await createService('theirs', { [PROXY_NAME_LABEL]: 'other' });
      const third = await createService('third', { [PROXY_NAME_LABEL]: 'third' });
      await answeredAt(node, ours, ['pod1', 'pod2']);
      await answeredAt(other, theirs, ['pod1', 'pod2']);
      for (const [host, ip] of [
        [node, theirs],
        [node, third],
        [other, ours],
        [other, third],
      ] as const) {
        expect([...(await answersAt(host, ip))]).toEqual(['nobody']);
      }
      const countOf = (rules: readonly string[], name: string): number =>
        rules.filter((rule) => rule.includes(`"default/${name}:http"`)).length;
      expect(countOf(await plain.rules(), 'theirs')).toBe(0);
      expect(countOf(await named.rules(), 'ours')).toBe(0);

      // From one to the other, while both run.
      const path = pathOf('services', { namespace: 'default', name: 'ours' });
      await cluster.plane.api.patch(path, { metadata: { labels: { [PROXY_NAME_LABEL]: 'other' } } });
      await answeredAt(node, ours, ['nobody']);
      await answeredAt(other, ours, ['pod1', 'pod2']);
      await cluster.plane.api.patch(path, { metadata: { labels: { [PROXY_NAME_LABEL]: null } } });
      await answeredAt(node, ours, ['pod1', 'pod2']);
      await answeredAt(other, ours, ['nobody']);
    });
  },
);
