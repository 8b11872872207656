/** Tokens of a service account, wherever they come from, that are replaced and then revoked while the proxy runs. */
import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { afterAll, beforeAll, describe, type TestContext, test } from 'vitest';
import { canMakeNamespaces } from '../support/netns-lab.ts';
import { clusterAssets } from '../support/cluster-assets.ts';
import { Account, type BoundToken, PodFiles, ScratchFiles } from '../support/cluster-access.ts';
import type { AuditedRequest } from '../support/cluster-audit.ts';
import { ClusterUnderTest, NODE_NAME } from '../support/cluster-under-test.ts';
import { kubeconfigText } from '../support/kubeconfig.ts';
import { MovingService } from '../support/moving-service.ts';
import { ProxyProcess, type ProxyProcessOptions } from '../support/proxy-process.ts';
import { waitFor } from '../support/wait.ts';

const isLong = process.env['KUP_TEST_LONG'] === '1';
const ROTATIONS = isLong ? 5 : 1;
/** Watches of each resource that begin after the old token has ended. */
const WATCHES = isLong ? 10 : 1;
const RESOURCES = ['services', 'endpointslices.discovery.k8s.io', 'nodes'] as const;
const POD = '/var/run/secrets/kubernetes.io/serviceaccount';
/** Whether this machine is a pod itself. */
const IS_POD = existsSync(POD);
/** What the log says at start in a pod without flags. */
const IN_CLUSTER_WARNING = "using the pod's KUBERNETES_SERVICE_HOST";

/** A proxy that has a token, and how that is replaced. */
interface Holder {
  readonly options: Pick<ProxyProcessOptions, 'args' | 'env' | 'within'>;
  readonly replace: (token: string) => Promise<void>;
  /** How often it has asked for a token by running a program. */
  readonly asked?: () => Promise<number>;
}

interface Case {
  readonly name: string;
  readonly pod: number;
  readonly hold: (token: string, context: TestContext) => Promise<Holder>;
  readonly warns?: boolean;
  /** How many requests may be refused for each token that ends: none where it is read before every request. */
  readonly refused: number;
}

describe.skipIf(clusterAssets() === undefined || canMakeNamespaces() !== undefined)(
  'a token that is replaced, the old one revoked,',
  { concurrent: true },
  () => {
    let cluster: ClusterUnderTest;
    /** Its only rights are those of deploy/rbac.yaml. */
    let account: Account;

    beforeAll(async () => {
      // Two pods answer; the others stand in for nodes, each with a proxy of its own.
      cluster = await ClusterUnderTest.start({ pods: 7, controllers: false });
      account = await Account.create(cluster.plane);
    });
    afterAll(async () => {
      await cluster?.close();
    });

    const outsidePods = (): NodeJS.ProcessEnv =>
      Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('KUBERNETES_')));

    const holdInPod = async (
      token: string,
      { onTestFinished }: TestContext,
      options: Holder['options'],
    ): Promise<Holder> => {
      const ca = cluster.plane.serverCa.cert;
      const files = await PodFiles.create({ token, ca });
      onTestFinished(() => files[Symbol.asyncDispose]());
      return {
        options: { env: outsidePods(), ...options, within: files.within },
        replace: async (next) => files.write({ token: next, ca }),
      };
    };

    const holdByKubeadm = async (token: string, context: TestContext): Promise<Holder> => {
      const scratch = await ScratchFiles.create(context);
      // As kubeadm 1.20 has it in the ConfigMap kube-proxy.
      const path = await scratch.write(
        'kubeconfig.conf',
        `apiVersion: v1
kind: Config
clusters:
- cluster:
    certificate-authority: ${POD}/ca.crt
    server: ${cluster.plane.url}
  name: default
contexts:
- context:
    cluster: default
    namespace: default
    user: default
  name: default
current-context: default
users:
- name: default
  user:
    tokenFile: ${POD}/token
`,
      );
      return holdInPod(token, context, { args: ['--kubeconfig', path] });
    };

    const holdByPlugin = async (token: string, context: TestContext): Promise<Holder> => {
      const scratch = await ScratchFiles.create(context);
      await scratch.write('token', token);
      const apiVersion = 'client.authentication.k8s.io/v1beta1';
      await scratch.write(
        'plugin',
        `#!/bin/sh
printf '%s\\n' "$KUBERNETES_EXEC_INFO" >>"$(dirname "$0")/asked"
printf '{"apiVersion":"${apiVersion}","kind":"ExecCredential","status":{"token":"%s"}}' "$(cat "$1")"
`,
        0o700,
      );
      const path = await scratch.write(
        'kubeconfig',
        kubeconfigText({
          server: cluster.plane.url,
          cluster: { 'certificate-authority': cluster.plane.serverCaPath },
          user: { exec: { apiVersion, command: './plugin', args: [scratch.at('token')], env: null } },
        }),
      );
      return {
        options: { args: ['--kubeconfig', path], env: outsidePods() },
        replace: async (next) => void (await scratch.write('token', next)),
        asked: async () => (await readFile(scratch.at('asked'), 'utf8')).split('\n').length - 1,
      };
    };

    const cases: readonly Case[] = [
      {
        name: "the pod's service account",
        pod: 3,
        hold: async (token, context) =>
          holdInPod(token, context, {
            env: { ...process.env, KUBERNETES_SERVICE_HOST: '10.99.0.2', KUBERNETES_SERVICE_PORT: '6443' },
          }),
        warns: true,
        refused: 0,
      },
      {
        name: "the pod's service account with --master",
        pod: 4,
        hold: async (token, context) => holdInPod(token, context, { args: ['--master', cluster.plane.url] }),
        refused: 0,
      },
      { name: "the tokenFile of kubeadm's kubeconfig", pod: 5, hold: holdByKubeadm, refused: 0 },
      // One for each watch: the plugin is asked again when a token was refused.
      { name: 'an exec plugin', pod: 6, hold: holdByPlugin, refused: RESOURCES.length },
    ];

    const startProxy = async (
      pod: number,
      { options }: Holder,
      { onTestFinished }: TestContext,
    ): Promise<ProxyProcess> => {
      const args = ['--hostname-override', NODE_NAME, '--watch-stall-timeout', '2s', ...(options.args ?? [])];
      const proxy = await ProxyProcess.start(cluster.lab.pod(pod), { manifests: false, ...options, args });
      onTestFinished(() => proxy[Symbol.asyncDispose]());
      return proxy;
    };

    /** The proxy's requests from that pod that were received at that time or later. */
    const requestsOf = async (pod: number, since = 0): Promise<readonly AuditedRequest[]> => {
      const { ipv4 } = cluster.lab.pod(pod);
      return (await cluster.plane.auditedRequests()).filter(
        ({ from, at, userAgent }) =>
          from === ipv4 && Date.parse(at) >= since && userAgent.startsWith('kube-userspace-proxy/'),
      );
    };

    test.for(cases)(
      'of $name: changes are followed, nothing is refused beyond a bound',
      async (one, context) => {
        const { expect } = context;
        const { pod, refused } = one;
        const host = cluster.lab.pod(pod);
        const service = await MovingService.create(cluster, `of-pod${pod}`);
        let token: BoundToken = await account.issueToken();
        const holder = await one.hold(token.text, context);
        const proxy = await startProxy(pod, holder, context);
        await service.followed(host);
        const warnings = proxy.log.filter(
          ({ level, msg }) => level === 'warn' && typeof msg === 'string' && msg.includes(IN_CLUSTER_WARNING),
        );
        expect(warnings).toHaveLength(one.warns === true ? 1 : 0);
        if (one.warns === true) expect(warnings[0]).toMatchObject({ server: cluster.plane.url });
        expect((await requestsOf(pod)).filter(({ code }) => code === 401)).toEqual([]);
        // Only the proxy sees the files there.
        expect(existsSync(POD)).toBe(IS_POD);
        const askedBefore = (await holder.asked?.()) ?? 0;

        const agent = await host.agent();
        const load = await agent.startConnectLoad({
          host: service.clusterIP,
          port: 80,
          pauseMs: 10,
          maxDurationMs: 900_000,
        });
        for (let rotation = 0; rotation < ROTATIONS; rotation += 1) {
          const next = await account.issueToken();
          await holder.replace(next.text);
          await token.revoke();
          token = next;
          const revokedAt = Date.now();
          const renewed = async (): Promise<boolean> => {
            const watches = (await requestsOf(pod, revokedAt)).filter(
              ({ verb, code, user }) => verb === 'watch' && code === 200 && user === account.user,
            );
            return RESOURCES.every(
              (name) => watches.filter(({ resource }) => resource === name).length >= WATCHES,
            );
          };
          await waitFor(renewed, {
            timeoutMs: 25_000 * WATCHES,
            intervalMs: 100,
            what: 'watches to be renewed',
          });
          await service.move();
          await service.followed(host);
        }
        expect(await agent.stopLoad(load)).toMatchObject({ failed: 0, failures: [] });
        const answered401 = (await requestsOf(pod)).filter(({ code }) => code === 401);
        expect(answered401.length).toBeLessThanOrEqual(refused * ROTATIONS);
        expect(await proxy.metric('rest_client_requests_total', { code: '401' })).toBe(answered401.length);
        if (holder.asked !== undefined) {
          const askedAgain = (await holder.asked()) - askedBefore;
          expect(askedAgain).toBeGreaterThanOrEqual(ROTATIONS);
          expect(askedAgain).toBeLessThanOrEqual(refused * ROTATIONS);
          expect(askedBefore).toBe(1);
        }
      },
    );

    test('too late: until it is, what was known is served and the log says 401, then it goes on', async (context) => {
      const { expect } = context;
      const pod = 7;
      const host = cluster.lab.pod(pod);
      const service = await MovingService.create(cluster, 'too-late');
      const token = await account.issueToken();
      const holder = await holdInPod(token.text, context, { args: ['--master', cluster.plane.url] });
      const proxy = await startProxy(pod, holder, context);
      await service.followed(host);
      await token.revoke();
      const line = await proxy.logged(
        ({ error }) => JSON.stringify(error ?? '').includes('answered 401'),
        'that the token is refused',
        25_000,
      );
      expect(line).toMatchObject({
        level: 'warn',
        msg: 'The API server cannot be watched, serving what was known',
      });
      await service.followed(host);
      expect((await proxy.health('/readyz')).status).toBe(200);
      await service.move();
      await holder.replace((await account.issueToken()).text);
      await service.followed(host, 30_000);
    });
  },
);
