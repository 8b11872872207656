/** Every scheduler by `--scheduler`, and another one in its place for the Service whose annotation says so. */
import { afterAll, beforeAll, describe, test } from 'vitest';
import { SCHEDULERS } from '../../../src/model/service-policy.ts';
import { canMakeNamespaces, createLab, type Lab } from '../../support/netns-lab.ts';
import { ProxyProcess } from '../../support/proxy-process.ts';
import { FAMILIES } from '../../support/proxy-protocol-services.ts';
import { expectScheduler, fileOf, prepareLab, scheduledManifest } from '../../support/scheduler-meanings.ts';

describe.skipIf(canMakeNamespaces() !== undefined)('the scheduler', () => {
  let lab: Lab;

  beforeAll(async () => {
    lab = await createLab();
    await prepareLab(lab);
  });
  afterAll(async () => lab?.close());

  test.for(SCHEDULERS)(
    '%s by --scheduler does what its name says over both families, and another where the annotation says so',
    async (name) => {
      const plain = { number: 10 };
      const other = name === 'rr' ? 'sh' : 'rr';
      const annotated = { number: 11, scheduler: other } as const;
      await using proxy = await ProxyProcess.start(lab.node, {
        args: ['--scheduler', name],
        manifests: Object.fromEntries(
          [plain, annotated].map((service) => [fileOf(service), scheduledManifest(lab, service)]),
        ),
      });
      for (const family of FAMILIES) {
        await expectScheduler(name, { lab, proxy, service: plain, family });
        await expectScheduler(other, { lab, proxy, service: annotated, family });
      }
    },
  );
});
