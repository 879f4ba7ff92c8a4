/*
 * lock.js - a lock. The core does the work; this file turns options and results into what @verrou/core has.
 */
import { E_INVALID_ARGUMENTS, E_LOCK_LOST } from './errors.js'
import { addon } from './internal/addon.js'
import { cancelledBy } from './internal/cancel.js'
import { readDuration, readRetry } from './internal/durations.js'
import { storeOf } from './internal/store.js'

const NEVER = Infinity

export class Lock {
    #key
    #ttl
    #store
    #handle
    #config
    #autoExtend
    #lost /* the AbortController of the lease at hand, if anybody asked for it */
    #watching = false

    constructor(key, lockStore, config, owner, ttl, expirationTime, options) {
        const retry = readRetry(config?.retry, { attempts: Infinity, delay: 250, timeout: undefined })

        this.#key = key
        this.#ttl = readDuration('ttl', ttl) ?? null
        this.#config = config
        this.#store = storeOf(lockStore)
        this.#store.attach(undefined, config?.logger)
        this.#autoExtend = Boolean(options?.autoExtend)
        this.#handle = this.#makeHandle(retry, owner ?? undefined, expirationTime, options)
        this.#resumed()
    }

    #makeHandle(retry, owner, expirationTime, options) {
        const restored = owner !== undefined && expirationTime !== undefined && expirationTime !== null
        const json = restored && JSON.stringify({
            key: this.#key, owner, ttl: this.#ttl, expirationTime, ...(options?.fence && { fence: options.fence }),
        })

        return new addon.Lock(
            this.#store.native,
            restored ? json : this.#key,
            restored,
            this.#ttl ?? NEVER,
            owner,
            options?.label,
            this.#autoExtend,
            readDuration('maxHold', options?.maxHold) ?? NEVER,
            retry.attempts,
            retry.delay,
            retry.timeout ?? NEVER
        )
    }

    /* The owner of the lease, or the one that the next acquisition will have. */
    getOwner() {
        return this.#handle.owner()
    }

    serialize() {
        return JSON.parse(this.#handle.serialize())
    }

    /* The fencing token of the latest acquisition; null if none was made, or the store has none. */
    get fence() {
        return this.#handle.fence() || null
    }

    /*
     * Aborted when the lease at hand (or else the next one) is lost, with an E_LOCK_LOST; and when the store is closed, since nobody renews the
     * lease then, or hears of its loss. A release does not abort it.
     */
    get lost() {
        this.#lost ??= new AbortController()
        if (!this.#watching && this.#holds()) this.#watch()
        return this.#lost.signal
    }

    async acquire(options) {
        const retry = options?.retry && readRetry(options.retry, this.#retryDefaults())
        const signal = options?.signal
        const acquired = signal
            ? await this.#acquireUnless(signal, retry)
            : await this.#handle.acquire(retry?.attempts, retry?.delay, retry && (retry.timeout ?? NEVER))

        if (acquired) this.#begun()
        return acquired
    }

    async acquireImmediately() {
        const acquired = await this.#handle.acquireImmediately()

        if (acquired) this.#begun()
        return acquired
    }

    async run(callback, options) {
        if (!(await this.acquire(options))) return [false, null]
        return [true, await this.#runHeld(callback)]
    }

    async runImmediately(callback) {
        if (!(await this.acquireImmediately())) return [false, null]
        return [true, await this.#runHeld(callback)]
    }

    async release() {
        this.#over()
        await this.#handle.release()
    }

    async forceRelease() {
        await this.#handle.forceRelease()
    }

    async extend(ttl) {
        const length = readDuration('ttl', ttl) ?? this.#ttl

        if (length === null) throw new E_INVALID_ARGUMENTS(['Cannot extend a lock without TTL'])
        await this.#handle.extend(length)
        this.#resumed()
    }

    async isLocked() {
        return this.#handle.isLocked()
    }

    isExpired() {
        return this.#handle.isExpired()
    }

    /* Milliseconds; null without a lease or for one that never expires; 0 or less when it is over. */
    getRemainingTime() {
        const remaining = this.#handle.remaining()

        if (remaining === undefined || remaining === NEVER) return null
        if (remaining > 0) return remaining
        return Math.min(0, (this.serialize().expirationTime ?? 0) - Date.now())
    }

    /* `await using`: give the lock back if it is held. */
    async [Symbol.asyncDispose ?? Symbol.for('Symbol.asyncDispose')]() {
        if (this.#holds()) await this.release()
    }

    #retryDefaults() {
        return readRetry(this.#config?.retry, { attempts: Infinity, delay: 250, timeout: undefined })
    }

    #holds() {
        return this.#handle.remaining() > 0
    }

    async #acquireUnless(signal, retry) {
        signal.throwIfAborted()
        try {
            return await cancelledBy(signal, (cancel) =>
                this.#handle.acquire(retry?.attempts, retry?.delay, retry && (retry.timeout ?? NEVER), cancel)
            )
        } catch (error) {
            throw error?.code === 'E_LOCK_CANCELED' ? signal.reason : error
        }
    }

    /* A result or an error of the callback is never replaced by what became of the lock; a lost lock shows in `lost` and in the log. */
    async #runHeld(callback) {
        let result

        try {
            result = await callback(this)
        } catch (error) {
            await this.release().catch(() => {})
            throw error
        }
        try {
            await this.release()
        } catch (error) {
            if (error?.code !== 'E_LOCK_NOT_OWNED') throw error
        }
        return result
    }

    /* ---- the end of a lease ---- */

    #begun() {
        if (this.#watching) this.#over()
        if (this.#lost || this.#autoExtend) this.#watch()
    }

    /* A restored lease may be live, and one that was not known to be is, once it was extended. */
    #resumed() {
        if (!this.#watching && (this.#lost || this.#autoExtend) && this.#holds()) this.#watch()
    }

    /* The lease ends because we say so: its signal stays as it is, and the next lease gets another one. */
    #over() {
        if (this.#watching) this.#lost = undefined
        this.#watching = false
    }

    /* While it waits, the addon keeps the handle, and so the renewals, even if nobody else does. */
    #watch() {
        const key = this.#key
        const lost = (this.#lost ??= new AbortController())

        this.#watching = true
        this.#waitLost().then(
            (how) => {
                if (how === 'lost') lost.abort(new E_LOCK_LOST([key]))
            },
            (cause) => lost.abort(new E_LOCK_LOST([key], { cause }))
        )
    }

    async #waitLost() {
        return this.#handle.waitLost()
    }
}
