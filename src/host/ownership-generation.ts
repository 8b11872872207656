/**
 * The generation of this instance. The kernel's rules carry that of whoever wrote them last, and it takes writes of a
 * higher one only: so it is what decides who owns the rules, whatever instances say to each other.
 */

/** Of whoever takes the rules without the socket: two of them hardly choose the same. */
const SPREAD = 1000;
/** Nobody who told the truth was ever that far. */
const MAX_TOLD = 2 ** 40;

export interface GenerationDeps {
  readonly random: () => number;
  /** The highest that the rules in the kernel carry; 0: none. */
  readonly highestGeneration: () => Promise<number>;
}

export class OwnGeneration {
  readonly #deps: GenerationDeps;
  #current = 0;
  #floor = 0;

  constructor(deps: GenerationDeps) {
    this.#deps = deps;
  }

  /** 0: never was the owner. */
  get current(): number {
    return this.#current;
  }

  /** A predecessor says that it had this one, which the kernel may have lost by a flush. */
  told(generation: number): void {
    if (generation < MAX_TOLD) this.#floor = Math.max(this.#floor, generation);
  }

  /** Above all that anybody can have had. `hasSocket`: nobody else chooses one now. Rejects as `highestGeneration`. */
  async rise(hasSocket: boolean, isVoid: () => boolean): Promise<void> {
    const highest = await this.#deps.highestGeneration();
    if (isVoid()) return;
    const step = hasSocket ? 1 : 1 + Math.floor(this.#deps.random() * SPREAD);
    this.#current = Math.max(highest, this.#floor, this.#current) + step;
  }

  /** Whatever somebody was about to write who began now is of a lower generation than our next one. */
  overtake(): void {
    this.#floor = this.#current + SPREAD;
  }

  /** Whether the rules in the kernel are of a newer one; undefined: it cannot be asked. */
  async isSucceeded(): Promise<boolean | undefined> {
    return this.#deps.highestGeneration().then(
      (highest) => highest > this.#current,
      () => undefined,
    );
  }
}
