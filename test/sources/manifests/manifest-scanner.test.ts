import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { ManifestScanner, YOUNG_FILE_MS } from '../../../src/sources/manifests/manifest-scanner.ts';
import { replaceFile, makeDirectory } from './source-harness.ts';
import { serviceYaml } from './manifest-text.ts';

async function scannerOf(text: string) {
  const file = join(await makeDirectory(), 'web.yaml');
  await writeFile(file, text);
  const clock = { time: 1_000, now: () => clock.time, wallTime: () => 0 };
  return { file, clock, scanner: new ManifestScanner({ clock }, { paths: [file] }) };
}

describe('a scanner', () => {
  it('asks for another look at a young file, whose second write may have left no trace, and not at an old one', async () => {
    const { clock, scanner } = await scannerOf(serviceYaml('web'));
    expect(await scanner.looksChanged()).toBe(true);
    await scanner.scan();
    expect(await scanner.looksChanged()).toBe(true);
    clock.time += YOUNG_FILE_MS - 1;
    await scanner.scan();
    expect(await scanner.looksChanged()).toBe(true);
    clock.time += 1;
    await scanner.scan();
    expect(await scanner.looksChanged()).toBe(false);
  });

  it('finds a file young again once it has changed', async () => {
    const { file, clock, scanner } = await scannerOf(serviceYaml('web'));
    await scanner.scan();
    clock.time += YOUNG_FILE_MS;
    expect(await scanner.looksChanged()).toBe(false);
    await replaceFile(file, serviceYaml('web', '10.96.0.2'));
    expect(await scanner.looksChanged()).toBe(true);
    const scan = await scanner.scan();
    expect(scan.versions[0]?.services[0]?.object.spec?.clusterIP).toBe('10.96.0.2');
    expect(await scanner.looksChanged()).toBe(true);
  });

  it('decodes a file again only when its content differs', async () => {
    const { file, scanner } = await scannerOf(serviceYaml('web'));
    const first = await scanner.scan();
    await replaceFile(file, serviceYaml('web'));
    const second = await scanner.scan();
    expect(second.versions[0]).toBe(first.versions[0]);
    await replaceFile(file, `${serviceYaml('web')}# more\n`);
    expect((await scanner.scan()).versions[0]).not.toBe(first.versions[0]);
  });
});
