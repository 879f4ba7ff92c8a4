/*
 * clock.js - fencing tokens where a store has no clock and no place for the last token: microseconds of this machine's clock.
 *
 * JavaScript is told milliseconds. A token is the last microsecond of its millisecond, and whoever has drawn one keeps it back until that
 * millisecond is over: so whoever takes the key next, in whatever process of this machine, draws a larger one.
 */
import { setTimeout as sleep } from 'node:timers/promises'

/* The last token of this environment, for all stores: two of them may be the same table. */
let last = 0

/* To be called by who holds the lease. */
export async function drawToken() {
    const drawn = Date.now()

    last = Math.max(last + 1, drawn * 1000 + 999)
    const token = last

    while (Date.now() * 1000 <= token - 1000) await sleep(1)
    return token
}
