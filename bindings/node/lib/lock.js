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
    #on /* the addon's store that the handle is of */
    #made /* for stores that choose: how the handle was made */
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
        this.#makeFirst({ retry, owner: owner ?? undefined, expirationTime, options })
    }

    /* On a store that has not chosen yet, nothing is sent: a lease that is to be renewed is restored when it has. */
    #makeFirst(made) {
        const restored = made.owner !== undefined && made.expirationTime !== undefined && made.expirationTime !== null

        if (!this.#store.chooses) {
            this.#make(this.#store.native, made, restored)
            this.#resumed()
            return
        }
        const early = this.#store.connectionUsed === undefined
        const renewed = early && restored && this.#autoExtend

        this.#made = { ...made, restored, early, told: false }
        this.#make(this.#store.anyNative(this.#key), renewed ? { ...made, options: { ...made.options, autoExtend: false } } : made, restored)
        if (!renewed) this.#resumed()
        else this.#store.chosen().then(() => this.#tryToFollow() && this.#resumed(), () => {})
    }

    #make(native, { retry, owner, expirationTime, options, json }, restored) {
        const state = restored && (json ?? JSON.stringify({
            key: this.#key, owner, ttl: this.#ttl, expirationTime, ...(options?.fence && { fence: options.fence }),
        }))

        this.#handle = new addon.Lock(
            native,
            restored ? state : this.#key,
            restored,
            this.#ttl ?? NEVER,
            owner,
            options?.label,
            Boolean(options?.autoExtend),
            readDuration('maxHold', options?.maxHold) ?? NEVER,
            retry.attempts,
            retry.delay,
            retry.timeout ?? NEVER
        )
        this.#on = native
    }

    /* The owner of the lease, or the one that the next acquisition will have. */
    getOwner() {
        if (this.#made) this.#made.told = true
        return this.#handle.owner()
    }

    serialize() {
        if (this.#made) this.#made.told = true
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
        const signal = readSignal(options?.signal)

        signal?.throwIfAborted()
        const acquired = await this.#with((handle, spent) => this.#ask(handle, signal, retry, spent), {
            limit: (retry ?? this.#made?.retry)?.timeout, signal,
        })

        if (acquired) this.#begun()
        return acquired
    }

    async acquireImmediately() {
        const acquired = await this.#with((handle) => handle.acquireImmediately())

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
        await this.#with((handle) => handle.release())
    }

    async forceRelease() {
        await this.#with((handle) => handle.forceRelease())
    }

    async extend(ttl) {
        const length = readDuration('ttl', ttl) ?? this.#ttl

        if (length === null) throw new E_INVALID_ARGUMENTS(['Cannot extend a lock without TTL'])
        await this.#with((handle) => handle.extend(length))
        this.#resumed()
    }

    async isLocked() {
        return this.#with((handle) => handle.isLocked())
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

    /* ---- asking ---- */

    /*
     * Call the handle. On a store that chooses its connection it is made again where that has changed: before the first request, which waits for
     * the choice, or when the application has ended its connection, which closes our requests.
     */
    #with(call, wish) {
        return this.#made ? this.#following(call, wish) : call(this.#handle, 0)
    }

    async #following(call, { limit, signal } = {}) {
        const spent = await this.#store.chosen(limit, signal)
        const handle = this.#follow()

        try {
            return await call(handle, spent)
        } catch (error) {
            if (error?.code !== 'E_LOCK_STORE_CLOSED' || this.#follow() === handle) throw error
            return call(this.#handle, spent)
        }
    }

    /* The handle on the store as it is now. */
    #follow() {
        const native = this.#store.native
        const made = this.#made
        const { early } = made

        made.early = false
        if (native === this.#on && !(early && made.restored && this.#autoExtend)) return this.#handle
        if (early) this.#makeAgain(native)
        else this.#moveTo(native)
        if (this.#watching && this.#holds()) this.#watch()
        else if (this.#watching) this.#lost.abort(new E_LOCK_LOST([this.#key]))
        return this.#handle
    }

    /* Nothing was asked yet: as it was made. An owner that somebody was told stays the lock's, as one that was given. */
    #makeAgain(native) {
        const made = this.#made
        const owner = made.owner ?? (made.told ? this.#handle.owner() : undefined)

        this.#make(native, { ...made, owner }, made.restored)
    }

    /* With the lease that there is. */
    #moveTo(native) {
        const json = this.#handle.serialize()
        const leased = this.#handle.remaining() === Infinity || JSON.parse(json).expirationTime !== null

        if (leased) this.#make(native, { ...this.#made, json }, true)
        else this.#makeAgain(native)
    }

    #ask(handle, signal, retry, spent) {
        const all = retry ?? (spent > 0 ? this.#made.retry : undefined)
        const left = all && (all.timeout === undefined ? NEVER : Math.max(1, Math.ceil(all.timeout - spent)))

        return signal ? this.#askUnless(handle, signal, all, left) : handle.acquire(all?.attempts, all?.delay, left)
    }

    async #askUnless(handle, signal, retry, timeout) {
        signal.throwIfAborted()
        try {
            return await cancelledBy(signal, (cancel) => handle.acquire(retry?.attempts, retry?.delay, timeout, cancel))
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
        const lost = (this.#lost ??= new AbortController())

        this.#watching = true
        watch(this.#handle, this.#made ? this.#watcher(this.#handle, lost) : plainWatcher(lost, this.#key))
    }

    /* On a store that chooses, the lease may go on with another handle: #follow() watches that. */
    #watcher(handle, lost) {
        return (how, cause) => {
            if (!this.#watching || this.#lost !== lost || this.#handle !== handle) return
            if (cause && this.#tryToFollow() !== handle) return
            if (cause || how === 'lost') lost.abort(new E_LOCK_LOST([this.#key], cause && { cause }))
        }
    }

    #tryToFollow() {
        try {
            return this.#follow()
        } catch {
            return this.#handle
        }
    }
}

function readSignal(signal) {
    if (signal === undefined || signal === null) return undefined
    if (typeof signal.throwIfAborted !== 'function') throw new E_INVALID_ARGUMENTS(['signal: an AbortSignal'])
    return signal
}

function plainWatcher(lost, key) {
    return (how, cause) => {
        if (cause || how === 'lost') lost.abort(new E_LOCK_LOST([key], cause && { cause }))
    }
}

async function waitLost(handle) {
    return handle.waitLost()
}

function watch(handle, watcher) {
    waitLost(handle).then((how) => watcher(how), (cause) => watcher('closed', cause))
}
