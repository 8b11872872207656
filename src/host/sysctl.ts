/** Kernel settings of this network namespace, as files below /proc/sys. Whole numbers only. */
import { readFileSync, writeFileSync } from 'node:fs';
import { ProxyError } from '../errors.ts';

export interface Sysctls {
  /** Undefined: there is none of that name (its module is not loaded), or it is no number. `net.ipv4.ip_forward`. */
  read(name: string): number | undefined;
  /** Throws `ERR_SYSCTL_WRITE` when the kernel or the file system does not let us. */
  write(name: string, value: number): void;
}

export const sysctls: Sysctls = {
  read(name) {
    try {
      const text = readFileSync(pathOf(name), 'utf8').trim();
      return /^-?\d+$/.test(text) ? Number(text) : undefined;
    } catch {
      return undefined;
    }
  },
  write(name, value) {
    try {
      // Not to create what is not there.
      writeFileSync(pathOf(name), `${value}\n`, { flag: 'r+' });
    } catch (error) {
      throw new ProxyError('ERR_SYSCTL_WRITE', `cannot set ${name} to ${value}`, { cause: error });
    }
  },
};

function pathOf(name: string): string {
  return `/proc/sys/${name.replaceAll('.', '/')}`;
}
