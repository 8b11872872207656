/** The file system as the manifests source sees it: listings, signatures and contents; faults are values. */
import { hash } from 'node:crypto';
import type { BigIntStats } from 'node:fs';
import { open, readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { errnoOf, errorText } from '../../errors.ts';
import { compareText } from '../../model/endpoint.ts';

/** Manifests are written by hand or by a tool, in kilobytes; a larger file is a mistake that would stall the proxy. */
export const MAX_FILE_BYTES = 16 * 1024 * 1024;

export type Listing =
  | { readonly kind: 'file' }
  /** Full paths, sorted. */
  | { readonly kind: 'directory'; readonly files: readonly string[] }
  | { readonly kind: 'unreadable'; readonly reason: string };

export type FileRead =
  | { readonly kind: 'read'; readonly signature: string; readonly digest: string; readonly text: string }
  /** It changed while it was read: look again. */
  | { readonly kind: 'changing' }
  | { readonly kind: 'unreadable'; readonly reason: string };

/** Names read in a directory. Hidden ones are editors' and ConfigMaps' own business. */
export function isManifestName(name: string): boolean {
  return !name.startsWith('.') && /\.(?:yaml|yml|json)$/.test(name);
}

export async function listPath(path: string): Promise<Listing> {
  try {
    const stats = await stat(path);
    if (stats.isFile()) return { kind: 'file' };
    if (!stats.isDirectory()) return { kind: 'unreadable', reason: 'neither a file nor a directory' };
    const names = (await readdir(path)).filter(isManifestName).sort(compareText);
    return { kind: 'directory', files: names.map((name) => join(path, name)) };
  } catch (error: unknown) {
    return { kind: 'unreadable', reason: reasonText(error) };
  }
}

/** Changes when the file does, up to the granularity of the file system's clock. Never rejects. */
export async function signatureOfPath(path: string): Promise<string> {
  try {
    return signatureText(await stat(path, { bigint: true }));
  } catch (error: unknown) {
    return reasonText(error);
  }
}

function signatureText({ dev, ino, size, mtimeNs, ctimeNs }: BigIntStats): string {
  return [dev, ino, size, mtimeNs, ctimeNs].join(':');
}

/** The content of a regular file of at most MAX_FILE_BYTES. Never rejects. */
export async function readManifestFile(path: string): Promise<FileRead> {
  try {
    // Before opening: opening a FIFO would wait for its writer.
    if (!(await stat(path)).isFile()) return { kind: 'unreadable', reason: 'not a regular file' };
    await using file = await open(path, 'r');
    const before = await file.stat({ bigint: true });
    if (before.size > MAX_FILE_BYTES) {
      return {
        kind: 'unreadable',
        reason: `${before.size} bytes are more than the limit of ${MAX_FILE_BYTES}`,
      };
    }
    const content = await file.readFile();
    const signature = signatureText(before);
    if (signatureText(await file.stat({ bigint: true })) !== signature) return { kind: 'changing' };
    return { kind: 'read', signature, digest: hash('sha256', content), text: content.toString('utf8') };
  } catch (error: unknown) {
    return { kind: 'unreadable', reason: reasonText(error) };
  }
}

/** `ENOENT`, and in words what the two usual ones mean. */
function reasonText(error: unknown): string {
  const errno = errnoOf(error);
  switch (errno) {
    case 'ENOENT':
      return 'there is no such file or directory (ENOENT)';
    case 'EACCES':
      return 'permission denied (EACCES)';
    case undefined:
      return errorText(error);
    default:
      return `it cannot be read (${errno})`;
  }
}
