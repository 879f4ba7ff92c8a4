/*
 * chosen_store.js - a store over a connection that an application gives, which uses one of our own to the same server instead where it is certain
 * that it is the same: the connection says where it leads (redis_address.js, knex_address.js), and a lock that was taken through it is seen,
 * and can be released, from ours.
 *
 * The first request has that found out; it and all others wait until it is. From then on the choice stays, but for one thing: when the
 * application ends its connection, requests go there again, to fail as the application expects, and our connections are closed.
 */
import { randomBytes } from 'node:crypto'

import { E_LOCK_CONFIG, E_LOCK_STORAGE_ERROR } from '../errors.js'
import { addon } from './addon.js'
import { AddressStore, BackendStore } from './store.js'

/* Finding out may take so long; the lock that it is found out with ends by itself, should nobody be able to release it. */
const PROOF_MS = 5000
const PROBE_TTL_MS = 10_000
/*
 * Stores over one connection that have connections of their own at a time. An application may make stores as it likes, which cost nothing with
 * @verrou/core; servers have a limit of connections.
 */
const MOST = 4
const taken = new WeakMap()

/* A place among them: what gives it back, or undefined. */
function place(connection) {
    const count = taken.get(connection) ?? 0

    if (count >= MOST) return undefined
    taken.set(connection, count + 1)
    let given = false
    return () => {
        if (!given) taken.set(connection, taken.get(connection) - 1)
        given = true
    }
}

const forgotten = new FinalizationRegistry((forget) => forget())

/* What `promise` comes to, unless the limit is over or the signal aborted before. */
async function unless(promise, limit, signal) {
    if (limit === undefined && !signal) return promise
    let stop
    const stopped = new Promise((resolve, reject) => {
        const late = () => reject(Object.assign(new E_LOCK_STORAGE_ERROR([`the store has not answered within ${limit} ms`]), { retriable: true }))
        const timer = limit === undefined ? undefined : setTimeout(late, limit)
        const abort = () => reject(signal.reason)

        signal?.addEventListener('abort', abort, { once: true })
        stop = () => {
            clearTimeout(timer)
            signal?.removeEventListener('abort', abort)
        }
    })

    try {
        return await Promise.race([promise, stopped])
    } finally {
        stop()
    }
}

/* Undefined if locks of the one are locks of the other; else the reason. */
async function proof(backend, under) {
    const key = `verrou:probe:${randomBytes(16).toString('hex')}`
    const owner = randomBytes(16).toString('hex')
    const context = { limit: PROOF_MS, fence: 0 }

    const { native } = under

    if ((await backend.acquire(key, owner, PROBE_TTL_MS, context)).applied !== true) return 'a probe could not be taken'
    try {
        const seen = await under.inspect(key)

        if (!seen.locked || seen.owner !== owner) return 'what it writes is not seen at the same address'
        await new addon.Lock(native, JSON.stringify({ key, owner, ttl: null, expirationTime: null }), true).release()
        const left = await backend.inspect(key, context)

        return (left.applied ?? left) ? 'what is written at the same address is not seen by it' : undefined
    } finally {
        await backend.forget(key, owner, context).catch(() => {})
    }
}

export class ChosenStore extends BackendStore {
    #backend
    #options
    #under
    #used
    #why
    #deciding
    #unwatch
    #over = false

    /*
     * `wanted`: true, false or undefined, as the application says. `address()`: { url } or { why }. `watch(left)` calls left(why) when the application
     * has ended the connection, and returns what stops it. `longKeys`: as of an AddressStore. The backend has forget(key, owner) besides.
     */
    constructor(backend, settings, { connection, wanted, address, watch, longKeys }) {
        super(backend, settings)
        this.#backend = backend
        this.#options = { connection, wanted, address, watch, longKeys }
        this.#why = wanted === false ? 'native: false' : address().why
        if (this.#why && wanted !== true) this.#used = 'given'
    }

    /* Which connection the requests go through: 'native', 'given', or undefined as long as nobody has asked anything. */
    get connectionUsed() {
        return this.#used
    }

    /* Why it is the given one. */
    get whyGiven() {
        return this.#why
    }

    get chooses() {
        return true
    }

    get native() {
        return this.#used === 'native' ? this.#under.native : super.native
    }

    /* The same for a lock that is being made: one that only the given connection could have is refused by its first request, not here. */
    anyNative(key) {
        return this.#used === 'native' && (this.#options.longKeys || Buffer.byteLength(String(key)) < 256) ? this.#under.native : super.native
    }

    attach(name, logger) {
        super.attach(name, logger)
        this.#under?.attach(name, logger)
    }

    /* ---- choosing ---- */

    /*
     * Wait until it is known, which is found out if nobody has asked for it before; `limit` ms at most, and unless the signal is aborted. How many
     * milliseconds it took.
     */
    async chosen(limit, signal) {
        if (this.#used) return 0
        const began = performance.now()

        this.#deciding ??= this.#decide().finally(() => (this.#deciding = undefined))
        this.#deciding.catch(() => {})
        await unless(this.#deciding, limit, signal)
        return performance.now() - began
    }

    /* A request that was closed with our connections is made again over the given one. */
    async through(call) {
        await this.chosen()
        const { native } = this

        try {
            return await call(native)
        } catch (error) {
            if (error?.code !== 'E_LOCK_STORE_CLOSED' || this.native === native) throw error
            return call(this.native)
        }
    }

    async #decide() {
        const { url, why } = this.#options.address()

        if (this.#over) return this.#give('the store was closed')
        if (why) return this.#giveUp(why)
        const leavePlace = place(this.#options.connection)

        if (!leavePlace) return this.#giveUp(`${MOST} stores over it have connections of our own already`)
        const under = new AddressStore(url, { longKeys: this.#options.longKeys })
        let left

        this.attachAllTo(under) /* before it is used: a store is made with its name */
        const unwatch = this.#watch((reason) => (left ??= reason))
        const failed = await unless(proof(this.#backend, under), PROOF_MS).catch((error) => error?.error?.message ?? error?.message ?? 'it failed')

        unwatch()
        if (!failed && !left && !this.#over) return this.#take(under, leavePlace)
        under.abandon()
        leavePlace()
        return left || this.#over ? this.#give(left ?? 'the store was closed') : this.#giveUp(failed)
    }

    #take(under, leavePlace) {
        const self = new WeakRef(this)
        const unwatch = this.#watch((why) => self.deref()?.#leave(why))

        this.attachAllTo(under) /* loggers that came meanwhile */
        this.#under = under
        this.#used = 'native'
        this.#why = undefined
        this.#unwatch = () => {
            unwatch()
            leavePlace()
        }
        forgotten.register(this, this.#unwatch, this)
        this.note('store.connection', `connections of our own to ${under.address}`)
    }

    #give(why) {
        this.#why = why
        this.#used = 'given'
        this.note('store.connection', `the given connection: ${why}`)
    }

    /* Who wants no other than a native one gets none; his next use tries again. */
    #giveUp(why) {
        if (!this.#options.wanted) return this.#give(why)
        this.#why = why
        throw new E_LOCK_CONFIG([`native: true, but the given connection would have to be used: ${why}`])
    }

    #watch(left) {
        return this.#options.watch?.(left) ?? (() => {})
    }

    #unwatchNow() {
        this.#unwatch?.()
        this.#unwatch = undefined
        forgotten.unregister(this)
    }

    #leave(why) {
        if (this.#used !== 'native') return
        this.#unwatchNow()
        this.#give(why)
        this.#under.abandon()
    }

    async close() {
        this.#over = true
        if (this.#used === undefined) this.#used = 'given'
        this.#unwatchNow()
        await Promise.all([super.close(), this.#used === 'native' ? this.#under.close() : undefined])
    }
}
