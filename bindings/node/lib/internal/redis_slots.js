/*
 * redis_slots.js - the slots of a Redis cluster: which one a key is in, and the name of a token counter in the same one.
 *
 * The slot of a key is CRC16 (XMODEM) modulo 16384 of what stands between its first '{' and the next '}', or of the whole key if that is
 * nothing. A counter is called NAME{N}, N being the smallest number with which the name falls into the slot, so that all processes find the
 * same; the native store does as well.
 */
const SLOTS = 16384
/* Some 170,000 numbers are enough to meet every slot; a prefix with a tag of its own meets one only. */
const MAX_NUMBER = 2_000_000
/* Numbers are looked through in passing, not for longer than the event loop can spare. */
const AT_ONCE = 200_000

const OPEN = 0x7b
const CLOSE = 0x7d

const table = Uint16Array.from({ length: 256 }, (_, byte) => {
    let crc = byte << 8

    for (let bit = 0; bit < 8; bit++) crc = crc & 0x8000 ? (crc << 1) ^ 0x1021 : crc << 1
    return crc
})

export function slotOf(key) {
    let bytes = Buffer.from(key)
    const open = bytes.indexOf(OPEN)
    const close = open < 0 ? -1 : bytes.indexOf(CLOSE, open)
    let crc = 0

    if (close > open + 1) bytes = bytes.subarray(open + 1, close)
    for (const byte of bytes) crc = ((crc << 8) & 0xffff) ^ table[(crc >> 8) ^ byte]
    return crc % SLOTS
}

/* The counters' names for one prefix; undefined for a slot that no number has met yet. */
export class Counters {
    #prefix
    #name
    #found = new Map()
    #next = 0

    constructor(prefix, name) {
        this.#prefix = prefix
        this.#name = name
    }

    for(key) {
        const slot = slotOf(this.#prefix + key)
        const end = Math.min(MAX_NUMBER, this.#next + AT_ONCE)

        while (!this.#found.has(slot) && this.#next < end) {
            const name = `${this.#name}{${this.#next++}}`
            const its = slotOf(this.#prefix + name)

            if (!this.#found.has(its)) this.#found.set(its, name)
        }
        return this.#found.get(slot)
    }
}
