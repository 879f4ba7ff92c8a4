/*
 * redis.js - locks in Redis, through an ioredis connection of the application's: a single server, Sentinel or a cluster. Its keyPrefix goes
 * before keys and channels. Storage is that of @verrou/core and of the native store, beside which it works.
 *
 * Where the connection is a plain one to a single server, and is seen to lead where its options say, connections of our own are used underneath
 * (internal/chosen_store.js): the server wakes their waiters. Over the given one they ask again when the holder's lease ends, and every
 * retry delay.
 */
import { randomBytes } from 'node:crypto'

import { E_LOCK_STORAGE_ERROR } from '../errors.js'
import { passing, unknown } from '../internal/backend.js'
import { ChosenStore } from '../internal/chosen_store.js'
import { redisAddress } from '../internal/redis_address.js'
import { linkOf } from '../internal/redis_link.js'
import { ACQUIRE, EXTEND, FORCE, INSPECT, RELEASE } from '../internal/redis_scripts.js'
import { Counters } from '../internal/redis_slots.js'

const COUNTER = 'verrou:fence'
/* To say that it is not connected needs time before the core gives up waiting for an answer. */
const MARGIN_MS = 200

/* Not carried out, and another try may be. Redis before 7 puts the error of a command in a script behind words of its own. */
const PASSING = /(^|[ :-])(LOADING|READONLY|MASTERDOWN|BUSY|OOM|MISCONF|NOREPLICAS|CLUSTERDOWN|TRYAGAIN|MOVED|ASK|UNKILLABLE) /
/* Not to be had together with the counter. */
const COUNTER_REFUSED = /(^|[ :-])(NOPERM|TRYAGAIN|CROSSSLOT) /
const NOT_SENT = /enableOfflineQueue/
const CANNOT_SEND = /subscriber mode/

class RedisBackend {
    caps = ['serverClock', 'fence', 'fenceStored', 'shared']
    #connection
    #link
    #publish
    #drops
    #id = randomBytes(8).toString('hex')
    #counters
    #counterForbidden = false

    constructor(connection) {
        const cluster = Boolean(connection.isCluster)

        this.#connection = connection
        this.#link = linkOf(connection)
        this.#drops = connection.options?.autoResendUnfulfilledCommands === false
        this.#publish = cluster ? 'SPUBLISH' : 'PUBLISH'
        this.#counters = cluster ? new Counters(connection.options?.keyPrefix ?? '', COUNTER) : undefined
    }

    /* ---- asking ---- */

    #send(script, keys, args) {
        const connection = this.#connection
        const whole = () => connection.eval(script.text, keys.length, ...keys, ...args)

        if (typeof connection.evalsha !== 'function') return whole()
        return connection.evalsha(script.sha, keys.length, ...keys, ...args).catch((error) => {
            if (/NOSCRIPT/.test(error?.message)) return whole()
            throw error
        })
    }

    /*
     * `doubtful(answer)`: whether it says nothing if the connection broke meanwhile, since the request may have been carried out before, by a
     * first sending.
     */
    async #ask(script, keys, args, context, doubtful) {
        if (!this.#link.isReady && !(await this.#link.ready(context.limit - MARGIN_MS)))
            throw passing(new E_LOCK_STORAGE_ERROR([`Redis is not connected (${this.#connection.status})`]))
        const { breaks } = this.#link
        const ended = this.#connection.status === 'end'

        try {
            const sent = this.#send(script, keys, args)
            const answer = await (this.#drops ? this.#link.unlessBroken(sent) : sent)

            if (doubtful?.(answer) && breaks !== this.#link.breaks)
                throw new E_LOCK_STORAGE_ERROR(['the connection was lost, and the request sent again'])
            return answer
        } catch (error) {
            throw this.#judged(error, ended)
        }
    }

    #judged(error, ended) {
        const message = String(error?.message)

        if (error?.name === 'ReplyError') return PASSING.test(message) ? passing(error) : error
        if (NOT_SENT.test(message)) return passing(error)
        return ended || CANNOT_SEND.test(message) ? error : unknown(error)
    }

    #counterFor(key) {
        if (this.#counterForbidden) return undefined
        return this.#counters ? this.#counters.for(key) : COUNTER
    }

    /* Without a right to the counter, or while its slot moves, the server's clock gives the token. */
    async #acquire(key, args, context) {
        const counter = this.#counterFor(key)
        const own = (answer) => Array.isArray(answer) && answer[0] === args[0]

        if (counter === undefined) return this.#ask(ACQUIRE, [key], args, context, own)
        try {
            return await this.#ask(ACQUIRE, [key, counter], args, context, own)
        } catch (thrown) {
            const { message } = thrown.error ?? thrown

            if (!COUNTER_REFUSED.test(message)) throw thrown
            const answer = await this.#ask(ACQUIRE, [key], args, context, own)

            this.#counterForbidden ||= !this.#counters && !/TRYAGAIN /.test(message)
            return answer
        }
    }

    /* ---- requests ---- */

    async acquire(key, owner, ttl, context) {
        const answer = await this.#acquire(key, [owner, ttl ?? 0], context)

        if (!Array.isArray(answer)) return { applied: true, fence: Math.abs(Number(answer)) }
        return held(answer, false)
    }

    async release(key, owner, context) {
        return (await this.#ask(RELEASE, [key], [owner, this.#publish, this.#id], context, refused)) > 0
    }

    async extend(key, owner, ttl, context) {
        return (await this.#ask(EXTEND, [key], [owner, ttl ?? 0], context, refused)) > 0
    }

    async force(key, context) {
        await this.#ask(FORCE, [key], [this.#publish, this.#id], context)
        return true
    }

    async inspect(key, context) {
        const answer = await this.#ask(INSPECT, [key], [], context)

        return Array.isArray(answer) ? held(answer, true) : false
    }

    async forget(key, owner, context) {
        await this.release(key, owner, context)
    }
}

const refused = (answer) => Number(answer) === 0

/* { owner, milliseconds or -1, token if it is one's own }. */
function held([owner, left, token], applied) {
    const remaining = Number(left)

    return { applied, owner: String(owner), remaining: remaining < 0 ? null : Math.max(1, remaining), fence: Math.abs(Number(token ?? 0)) }
}

/* The addon's store may outlive ours, and then the backend does. */
const forgotten = new FinalizationRegistry((link) => link.leave())

export class RedisStore extends ChosenStore {
    #leave

    constructor({ connection, native }) {
        const backend = new RedisBackend(connection)
        const link = linkOf(connection)

        super(backend, { caps: backend.caps }, {
            connection, wanted: native, address: () => redisAddress(connection), watch: (left) => link.onLeft(left), longKeys: true,
        })
        link.join()
        forgotten.register(backend, link, backend)
        this.#leave = () => {
            if (forgotten.unregister(backend)) link.leave()
        }
    }

    async close() {
        await super.close()
        this.#leave()
    }
}

export function redisStore(options) {
    return { factory: () => new RedisStore(options) }
}
