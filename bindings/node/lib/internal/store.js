/*
 * store.js - what every store class of this package is: a holder of the addon's store, with the five calls of a LockStore beside it, for
 * those who call them. Our Lock does not, it uses the addon's store directly.
 *
 * Anything else that has the five calls is a store of the application's: storeOf() makes a backend of it.
 */
import { E_LOCK_CONFIG, E_LOCK_NOT_OWNED, E_LOCK_STORE_CLOSED } from '../errors.js'
import { addon, CAPS } from './addon.js'
import { attachBackend, lockStoreBackend } from './backend.js'
import { isNoop, NO_LOGGING, report, wantedLevel } from './logger.js'

const LONGEST_KEY = 60000
const DEBUG = 20
const FIVE = ['save', 'delete', 'forceDelete', 'exists', 'extend']

/* The class of @verrou/core, if that is installed as well: those who call `delete` on a store of ours are its locks, and their users. */
let originals
async function notOwned(error) {
    if (error?.code !== 'E_LOCK_NOT_OWNED') return error
    originals ??= import('@verrou/core').then((core) => core.E_LOCK_NOT_OWNED, () => E_LOCK_NOT_OWNED)
    return new ((await originals) ?? E_LOCK_NOT_OWNED)()
}

export class Store {
    #open
    #native
    #closing
    #loggers = new Set()
    #level = NO_LOGGING
    #name

    /* `open(name, level)` makes the addon's store, when it is needed first. */
    constructor(open) {
        this.#open = open
    }

    /* A name and a logger, given with the store by a factory. The name that came first stays. */
    attach(name, logger) {
        this.#name ??= name
        if (isNoop(logger) || this.#loggers.has(logger)) return
        this.#loggers.add(logger)
        this.#level = Math.min(this.#level, wantedLevel(logger))
        this.#native?.setLogLevel(this.#level)
    }

    /* The same for another store. */
    attachAllTo(store) {
        store.attach(this.#name)
        for (const logger of this.#loggers) store.attach(undefined, logger)
    }

    get native() {
        if (this.#native) return this.#native
        const loggers = this.#loggers

        this.#native = this.#open(this.#name, this.#level)
        this.#native.onLog = (...record) => report(loggers, ...record)
        return this.#native
    }

    /* What the store can do. Some of it is known only after the first connection. */
    get capabilities() {
        const caps = this.native.caps()

        return Object.fromEntries(Object.entries(CAPS).map(([name, bit]) => [name, (caps & bit) !== 0]))
    }

    get address() {
        return this.native.address()
    }

    /* Do something with the addon's store. Stores that choose theirs (chosen_store.js) do that first. */
    through(call) {
        return call(this.native)
    }

    /* Whether the addon's store may be another one from one moment to the next. */
    get chooses() {
        return false
    }

    async inspect(key) {
        return infoOf(await this.through((native) => native.inspect(key)))
    }

    async list(prefix = '') {
        return (await this.through((native) => native.list(prefix))).map((entry) => ({ key: entry.key, ...infoOf(entry) }))
    }

    /* Close the store. Pending calls end with E_LOCK_STORE_CLOSED; locks are not released. */
    close() {
        this.#closing ??= Promise.resolve(this.#native?.close())
        this.#open = () => {
            throw new E_LOCK_STORE_CLOSED(['the store was closed'])
        }
        return this.#closing
    }

    /* The same without anybody who waits for it, which keeps no process alive. */
    abandon() {
        this.#native?.abandon()
        this.#closing ??= Promise.resolve()
        this.#open = () => new addon.Store(false, 'closed:')
    }

    /* A record of our own in the logs. */
    note(event, message) {
        if (this.#level <= DEBUG) report(this.#loggers, DEBUG, event, undefined, undefined, message)
    }

    [Symbol.asyncDispose ?? Symbol.for('Symbol.asyncDispose')]() {
        return this.close()
    }

    /* ---- the five calls ---- */

    async save(key, owner, ttl) {
        return this.through((native) => new addon.Lock(native, key, false, ttl ?? Infinity, owner).acquireImmediately())
    }

    async delete(key, owner) {
        try {
            await this.through((native) => restored(native, key, owner).release())
        } catch (error) {
            throw await notOwned(error)
        }
    }

    async forceDelete(key) {
        await this.through((native) => native.forceRelease(key))
    }

    async exists(key) {
        return (await this.through((native) => native.inspect(key))).locked
    }

    async extend(key, owner, duration) {
        try {
            await this.through((native) => restored(native, key, owner).extend(duration ?? Infinity))
        } catch (error) {
            throw await notOwned(error)
        }
    }
}

/* A lease of which only the owner is known: the store knows whether it is live. */
function restored(native, key, owner) {
    return new addon.Lock(native, JSON.stringify({ key, owner, ttl: null, expirationTime: null }), true)
}

function infoOf({ locked, owner, remaining, fence }) {
    if (!locked) return { locked }
    return {
        locked,
        owner: owner || undefined,
        remaining: remaining === Infinity ? null : remaining,
        fence: fence || null,
    }
}

/* A store at an address. `longKeys`: keys that the original takes and the library at large does not. */
export class AddressStore extends Store {
    constructor(url, { longKeys = false } = {}) {
        super((name, level) => new addon.Store(false, url, name, level, longKeys ? LONGEST_KEY : undefined))
    }
}

/* A store behind a backend. Settings: "timeout=10s&prefix=app:". `caps`: names of CAPS that the backend has. */
export class BackendStore extends Store {
    constructor(backend, { settings = '', caps = [] } = {}) {
        super((name, level) => {
            const bits = caps.reduce((sum, cap) => sum | CAPS[cap], 0)
            const native = new addon.Store(true, settings, name, level, LONGEST_KEY, bits)

            attachBackend(native, backend)
            return native
        })
    }
}

/* Has somebody put a function of his own in the place of one of the five? Then he wants it called. */
function isUnchanged(store) {
    return FIVE.every((call) => store[call] === Store.prototype[call])
}

const adapted = new WeakMap()

/* The Store of whatever is given as a store. */
export function storeOf(store) {
    if (store instanceof Store && isUnchanged(store)) return store
    if (typeof store?.save !== 'function') throw new E_LOCK_CONFIG(['a store has a function "save", and this has none'])
    let made = adapted.get(store)

    if (!made) {
        made = new BackendStore(lockStoreBackend(store))
        adapted.set(store, made)
    }
    return made
}
