/*
 * adapter_backend.js - a backend over a DatabaseAdapter: the seven calls of @verrou/core over a table of whatever database. A key is taken by
 * inserting its row, or by overwriting a row that has run out; it is given back by deleting the row.
 *
 * insertLock() only says that it failed, not why. So we look: a live row means that somebody holds the key; if there is none, the failure is
 * the caller's to hear. Times are this machine's, as they are in @verrou/core.
 */
import { E_LOCK_NOT_SUPPORTED } from '../errors.js'
import { passing, unknown } from './backend.js'
import { drawToken } from './clock.js'
import { isDuplicate, judge } from './failures.js'

/* Each further one needs somebody else to have changed the row in between. */
const MAX_ROUNDS = 4

/* An adapter's error as what it says of the request. What is not known as the error of a lost connection is taken at its word. */
function thrown(error) {
    const judged = judge(error)

    if (judged === 'passing') return passing(error)
    return judged === 'unknown' ? unknown(error) : error
}

async function asking(call) {
    try {
        return await call()
    } catch (error) {
        throw thrown(error)
    }
}

/* What is left of a lease, in ms: null for ever, undefined if there is none. */
function left(row) {
    if (!row) return undefined
    if (row.expiration === null || row.expiration === undefined) return null
    const remaining = Number(row.expiration) - Date.now()

    return remaining > 0 ? remaining : undefined
}

export class AdapterBackend {
    caps = ['fence', 'shared']
    #adapter
    #created
    #autoCreate

    constructor(adapter, { tableName, autoCreateTable } = {}) {
        this.#adapter = adapter
        this.#autoCreate = autoCreateTable !== false
        adapter.setTableName(tableName || 'verrou')
    }

    /* A failure is not kept: the next request tries again. */
    async #ready() {
        if (!this.#autoCreate) return
        const creating = (this.#created ??= Promise.resolve(this.#adapter.createTableIfNotExists()))

        try {
            await creating
        } catch (error) {
            if (this.#created === creating) this.#created = undefined
            throw ['passing', 'unknown'].includes(judge(error)) ? passing(error) : error
        }
    }

    async #row(key) {
        return asking(() => this.#adapter.getLock(key))
    }

    /* Undefined, or why not. */
    async #insert(lock) {
        try {
            await this.#adapter.insertLock(lock)
            return undefined
        } catch (error) {
            return { error }
        }
    }

    /* Whether the row that has run out was overwritten. If that fails too, what insertLock() said is the nearer reason. */
    async #overwrite(lock, failure) {
        try {
            return Number(await this.#adapter.acquireLock(lock)) > 0
        } catch (error) {
            throw isDuplicate(failure.error) ? thrown(error) : thrown(failure.error)
        }
    }

    async #grant(ttl, sent) {
        const fence = await drawToken()

        if (ttl !== null && performance.now() - sent >= ttl)
            throw unknown(new Error('the lease ran out before its token was drawn'))
        return { applied: true, fence }
    }

    /* Without a live row the insert failed for another reason; with one of who asks, it may have been carried out nevertheless. */
    async #refusal(row, owner, failure) {
        const remaining = left(row)

        if (remaining === undefined) return undefined
        if (row.owner !== owner) return { applied: false, owner: String(row.owner), remaining }
        if (judge(failure.error) === 'unknown') throw unknown(failure.error)
        return { applied: false, owner: String(row.owner), remaining, fence: await drawToken() }
    }

    async acquire(key, owner, ttl) {
        let failure

        await this.#ready()
        for (let round = 0; round < MAX_ROUNDS; round++) {
            const sent = performance.now()
            const lock = { key, owner, expiration: ttl === null ? null : Date.now() + ttl }

            failure = await this.#insert(lock)
            if (!failure || (await this.#overwrite(lock, failure))) return this.#grant(ttl, sent)
            const refusal = await this.#refusal(await this.#row(key), owner, failure)

            if (refusal) return refusal
        }
        if (isDuplicate(failure.error)) throw passing(failure.error)
        this.#created = undefined /* somebody may have dropped the table */
        throw thrown(failure.error)
    }

    /* What is left of this owner's live lease; undefined if there is none. */
    async #own(key, owner) {
        const row = await this.#row(key)

        return row && String(row.owner) === owner ? left(row) : undefined
    }

    /*
     * An adapter that counts the rows it deletes says whether it was ours. For another one, the row read before was: unless it could have run out
     * meanwhile, and been somebody else's.
     */
    async release(key, owner) {
        await this.#ready()
        const begun = performance.now()
        const remaining = await this.#own(key, owner)

        if (remaining === undefined) return false
        const deleted = await asking(() => this.#adapter.deleteLock(key, owner))

        if (typeof deleted === 'number' || typeof deleted === 'bigint') return deleted > 0
        if (remaining !== null && performance.now() - begun >= remaining)
            throw unknown(new Error('the lease ran out while it was released'))
        return true
    }

    async extend(key, owner, ttl) {
        if (ttl === null) throw new E_LOCK_NOT_SUPPORTED(['a DatabaseAdapter cannot extend a lease for ever'])
        await this.#ready()
        if ((await this.#own(key, owner)) === undefined) return false
        return Number(await asking(() => this.#adapter.extendLock(key, owner, ttl))) > 0
    }

    async force(key) {
        await this.#ready()
        await asking(() => this.#adapter.deleteLock(key))
        return true
    }

    async inspect(key) {
        await this.#ready()
        const row = await this.#row(key)
        const remaining = left(row)

        return remaining === undefined ? false : { applied: true, owner: String(row.owner), remaining }
    }
}
