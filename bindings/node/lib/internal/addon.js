/*
 * addon.js - loads the addon, once an environment, and tells it who makes errors.
 */
import { createRequire } from 'node:module'

import { makeError } from '../errors.js'

function load() {
    try {
        return createRequire(import.meta.url)('../../build/lib/verrou.node')
    } catch (error) {
        if (error.code !== 'MODULE_NOT_FOUND') throw error
        throw new Error(
            'libverrou: the addon was not built, which is done by the install script of the package. Allow that (pnpm: `pnpm approve-builds`), and run ' +
                '`npm rebuild libverrou` or `pnpm rebuild libverrou`',
            { cause: error }
        )
    }
}

export const addon = load()
addon.setFail(makeError)

/* VERROU_CAP_ bits. */
export const CAPS = { serverClock: 1, fence: 2, fenceStored: 4, push: 8, list: 16, shared: 32, immediate: 64 }
