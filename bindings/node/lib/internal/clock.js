/*
 * clock.js - fencing tokens where a store has no clock and no place for the last token: microseconds of this machine's clock.
 *
 * JavaScript is told milliseconds. A token is the last microsecond of its millisecond, and whoever has drawn one keeps it back until that
 * millisecond is over: so whoever takes the key next, in whatever process of this machine, draws a larger one.
 */
import { setTimeout as sleep } from 'node:timers/promises'

/* A clock that was set back by more is not waited for: then tokens grow in this environment only, until it has caught up. */
const STEP_US = 1_000_000

/* The last token of this environment, for all stores: two of them may be the same table. */
let last = 0

/* To be called by who holds the lease. */
export async function drawToken() {
    const drawn = Date.now()

    last = Math.max(last + 1, drawn * 1000 + 999)
    const token = last

    for (;;) {
        const early = token - 1000 - Date.now() * 1000

        if (early < 0 || early > STEP_US) return token
        await sleep(1)
    }
}
