/** Kernel settings in memory. */
import { ProxyError } from '../../src/errors.ts';
import type { Sysctls } from '../../src/host/sysctl.ts';

export class FakeSysctls implements Sysctls {
  readonly values: Record<string, number>;
  readonly #isReadOnly: boolean;

  constructor(values: Readonly<Record<string, number>>, { isReadOnly = false } = {}) {
    this.values = { ...values };
    this.#isReadOnly = isReadOnly;
  }

  read(name: string): number | undefined {
    return this.values[name];
  }

  write(name: string, value: number): void {
    if (this.#isReadOnly || !(name in this.values))
      throw new ProxyError('ERR_SYSCTL_WRITE', `cannot set ${name} to ${value}`);
    this.values[name] = value;
  }
}
