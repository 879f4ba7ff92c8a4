/*
 * lock_factory.js - makes locks on one store.
 */
import { E_INVALID_ARGUMENTS } from './errors.js'
import { readDuration, readRetry } from './internal/durations.js'
import { childLogger } from './internal/logger.js'
import { storeOf } from './internal/store.js'
import { Lock } from './lock.js'

const DEFAULT_TTL = 30_000
const RETRY = { attempts: Infinity, delay: 250, timeout: undefined }

export class LockFactory {
    #store
    #config

    constructor(store, options = {}) {
        this.#store = store
        this.#config = { retry: readRetry(options.retry, RETRY), logger: childLogger(options.logger) }
        storeOf(store).attach(options.name, this.#config.logger)
    }

    /* `options`: autoExtend, maxHold, label. */
    createLock(name, ttl = DEFAULT_TTL, options = undefined) {
        return new Lock(name, this.#store, this.#config, undefined, readDuration('ttl', ttl), undefined, options)
    }

    /* A lock from what serialize() gave, in whatever process. */
    restoreLock(lock, options = undefined) {
        if (lock === null || typeof lock !== 'object')
            throw new E_INVALID_ARGUMENTS(['serialised lock: not an object'])
        const { key, owner, ttl, expirationTime, fence } = lock

        if (typeof owner !== 'string') throw new E_INVALID_ARGUMENTS(['serialised lock: no "owner"'])
        /* In @verrou/core a ttl may be 0, which is none there, and have decimals, and so the end of its lease. */
        const until = typeof expirationTime === 'number' ? Math.floor(expirationTime) : expirationTime

        return new Lock(key, this.#store, this.#config, owner, ttl === 0 ? null : ttl, until, { ...options, fence })
    }
}
