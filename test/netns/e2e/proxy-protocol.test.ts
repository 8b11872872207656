/**
 * Upstream's "should preserve source pod IP", which no userspace proxy can pass as it stands: the backend's connection
 * is the proxy's. In its place the PROXY protocol tells a real nginx and a real HAProxy who the client is, and where it
 * connected to, for every kind of address that a Service has.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { PROXY_PROTOCOL_VERSIONS } from '../../../src/model/service-policy.ts';
import { addressOf, clusterIP } from '../../support/dual-stack.ts';
import { canMakeNamespaces, createLab, type Lab } from '../../support/netns-lab.ts';
import { ProxyProcess } from '../../support/proxy-process.ts';
import { ProxyProtocolHost } from '../../support/proxy-protocol-host.ts';
import {
  annotatedManifest,
  apply,
  FAMILIES,
  nodePortOf,
  portalsOf,
  SERVICE_PORT,
  tellings,
} from '../../support/proxy-protocol-services.ts';
import { PEER_KINDS, type PeerKind, RealPeers } from '../../support/real-peers.ts';
import { waitFor } from '../../support/wait.ts';

const PEER_PORT = 8080;
const SERVICES = PEER_KINDS.flatMap((peer, peerIndex) =>
  PROXY_PROTOCOL_VERSIONS.map((version, index) => ({ peer, version, number: 10 + 2 * peerIndex + index })),
);
const CASES = SERVICES.flatMap((service) => FAMILIES.map((family) => ({ ...service, family })));

describe.skipIf(canMakeNamespaces() !== undefined)('with the PROXY protocol', () => {
  let lab: Lab;
  let peers: RealPeers;
  let proxy: ProxyProcess;
  /** A pod, the peers' own pods, the node, and the outside. */
  let clients: readonly ProxyProtocolHost[];

  const backendOf = (peer: PeerKind) => lab.pod(peer === 'nginx' ? 1 : 2);

  beforeAll(async () => {
    lab = await createLab();
    [peers, clients] = await Promise.all([
      RealPeers.start(PEER_KINDS.map((kind) => ({ kind, host: backendOf(kind), port: PEER_PORT }))),
      Promise.all(
        [lab.pod(4), lab.pod(1), lab.pod(2), lab.node, lab.ext].map(async (host) =>
          ProxyProtocolHost.open(host),
        ),
      ),
    ]);
    const services = SERVICES.map(({ peer, version, number }) => ({
      name: `${peer}-${version}`,
      number,
      targetPort: PEER_PORT,
      backends: [backendOf(peer)],
      proxyProtocol: version,
    }));
    proxy = await ProxyProcess.start(lab.node, {
      manifests: { 'peers.yaml': annotatedManifest(...services) },
    });
  });
  afterAll(async () => {
    await proxy?.[Symbol.asyncDispose]();
    await peers?.[Symbol.asyncDispose]();
    await lab?.close();
  });

  const client = (name: string): ProxyProtocolHost => {
    const found = clients.find((each) => each.name === name);
    if (found === undefined) throw new Error(`no client on ${name}`);
    return found;
  };

  test.for(CASES)(
    'should preserve source pod IP for traffic thru service cluster IP (by $version, as $peer has it, over $family)',
    async ({ number, family }) => {
      const portal = { host: clusterIP(number, family), port: SERVICE_PORT };
      const pod = client(lab.pod(4).name);
      const answer = await pod.ask(portal);
      const ends = new RegExp(`^${lab.pod(4)[family === 'IPv4' ? 'ipv4' : 'ipv6']} \\d+$`);
      expect(answer).toMatchObject({ ok: true, local: expect.stringMatching(ends) });
      expect(answer).toMatchObject({ body: answer.ok && `${answer.local} ${portal.host} ${portal.port}` });
      // And what stands in logs and access rules, once the address in the header is trusted.
      const remote = await pod.ask({ ...portal, path: '/remote' });
      expect(remote).toMatchObject({ body: remote.ok && remote.local });
    },
  );

  test.for(CASES)(
    '$peer learns by $version over $family both ends of what pods, itself too, the node and the outside connect, at every address',
    async ({ number, family }) => {
      for (const from of clients) {
        const { told, expected } = await tellings(from, portalsOf(lab, from, number, family));
        expect(told).toEqual(expected);
        expect(told.length).toBeGreaterThanOrEqual(from.name === lab.node.name ? 5 : 4);
      }
    },
  );

  test.for(FAMILIES)(
    'a NodePort at an address that the node gets later is told over %s as that address',
    async (family) => {
      const host = family === 'IPv4' ? '192.168.77.20' : 'fd00:77::20';
      await lab.node.addAddress(`${host}/${family === 'IPv4' ? 24 : 64}`);
      const from = client(lab.ext.name);
      const portals = SERVICES.map(({ number }) => ({ host, port: nodePortOf(number) }));
      const isServed = async (): Promise<boolean> => {
        const answers = await Promise.all(
          portals.map(async (portal) => from.ask({ ...portal, timeoutMs: 500 })),
        );
        return answers.every(({ ok }) => ok);
      };
      await waitFor(isServed, { timeoutMs: 10_000, what: 'every NodePort at the new address' });
      const { told, expected } = await tellings(from, portals);
      expect(told).toEqual(expected);
    },
  );

  test.for(PEER_KINDS)(
    'a real %s turns away whom no header comes for, so it is our header that it reads',
    async (peer) => {
      const service = {
        number: 30 + PEER_KINDS.indexOf(peer),
        targetPort: PEER_PORT,
        backends: [backendOf(peer)],
      };
      await apply(proxy, 'plain.yaml', annotatedManifest({ name: `${peer}-plain`, ...service }));
      for (const family of FAMILIES) {
        const { told } = await tellings(client(lab.ext.name), [
          { host: addressOf(lab.node, family), port: nodePortOf(service.number) },
        ]);
        expect(told).toEqual([expect.stringMatching(/^(ECONNRESET|HTTP 400)$/)]);
      }
    },
  );
});
