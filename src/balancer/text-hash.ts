/**
 * A 32-bit hash of short ASCII text: MurmurHash3 (x86, 32 bits; Austin Appleby, public domain). It knows
 * nothing of the process, so all nodes agree, before and after a restart; and it must stay as it is, because
 * nodes of two versions have to agree too. Not for secrets: it can be inverted.
 */

/** The finalizer of MurmurHash3: each bit of `value` turns about half of the 32 bits that come back (unsigned). */
export function mix32(value: number): number {
  let mixed = value ^ (value >>> 16);
  mixed = Math.imul(mixed, 0x85eb_ca6b);
  mixed ^= mixed >>> 13;
  mixed = Math.imul(mixed, 0xc2b2_ae35);
  return (mixed ^ (mixed >>> 16)) >>> 0;
}

/** Unsigned. `text`: ASCII, of other characters only the lowest 8 bits count. Each `seed` makes another hash. */
export function hashText(text: string, seed: number): number {
  let hash = seed;
  let block = 0;
  for (let index = 0; index < text.length; index += 1) {
    const shift = (index % 4) * 8;
    block |= (text.charCodeAt(index) & 0xff) << shift;
    if (shift < 24) continue;
    hash = Math.imul(rotateLeft(hash ^ scrambled(block), 13), 5) + 0xe654_6b64;
    block = 0;
  }
  // What is left of the last block; 0 when nothing is, and then this changes nothing.
  return mix32(hash ^ scrambled(block) ^ text.length);
}

function scrambled(block: number): number {
  return Math.imul(rotateLeft(Math.imul(block, 0xcc9e_2d51), 15), 0x1b87_3593);
}

function rotateLeft(value: number, bits: number): number {
  return (value << bits) | (value >>> (32 - bits));
}
