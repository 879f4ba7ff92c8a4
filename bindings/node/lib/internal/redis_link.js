/*
 * redis_link.js - an ioredis connection as we see it: whether it is there, and whether it broke meanwhile.
 *
 * While it is not connected, ioredis keeps commands and sends them later, perhaps long after whoever asked has given up; and it sends those
 * again that were under way when it broke. So nothing is given to it before it is ready, and an answer that came after a break may be the
 * second one.
 */
const WAITING = new Set(['wait', 'connecting', 'connect', 'reconnecting', 'close'])
const BREAKS = ['close', 'reconnecting', 'end', 'node error', '-node']

const links = new WeakMap()

class Link {
    #connection
    #waiters = new Set()
    #watchers = new Set()
    #leavers = new Set()
    #users = 0
    #listeners
    breaks = 0

    constructor(connection) {
        this.#connection = connection
        const broke = () => {
            this.breaks++
            for (const broken of [...this.#watchers, ...this.#waiters]) broken()
        }

        this.#listeners = [
            ...BREAKS.map((event) => [event, broke]),
            ['ready', () => this.#waiters.forEach((done) => done())],
            ['end', () => this.#leavers.forEach((left) => left('the connection has ended'))],
            ['select', (db) => {
                if (Number(db) !== connection.options?.db) this.#leavers.forEach((left) => left('another database was selected'))
            }],
        ]
    }

    /* Stores over the connection: its events are listened to for as long as there is one. */
    join() {
        if (this.#users++ === 0) for (const [event, listener] of this.#listeners) this.#connection.on?.(event, listener)
    }

    leave() {
        if (--this.#users > 0) return
        for (const [event, listener] of this.#listeners)
            (this.#connection.off ?? this.#connection.removeListener)?.call(this.#connection, event, listener)
    }

    /* `left(why)` when the application has ended the connection, or turned it elsewhere. Returns what takes it back. */
    onLeft(left) {
        this.#leavers.add(left)
        return () => this.#leavers.delete(left)
    }

    /* Connections that say nothing of it, as mocked ones, are always ready; one that has ended says so itself. */
    get isReady() {
        return !WAITING.has(this.#connection.status)
    }

    /* What `sent` comes to, or a rejection when the connection breaks before: for those that drop what was under way, and never answer it. */
    async unlessBroken(sent) {
        let broken
        const breaking = new Promise((resolve, reject) => {
            broken = () => reject(new Error('the connection was lost'))
        })

        this.#watchers.add(broken)
        try {
            return await Promise.race([sent, breaking])
        } finally {
            this.#watchers.delete(broken)
        }
    }

    /*
     * Is it ready? A first connection is waited for, `limit` ms at most. One that broke is not: the core asks again soon, and knows better than
     * we do how long its caller wants to wait.
     */
    async ready(limit) {
        if (this.isReady || this.breaks > 0) return this.isReady
        if (this.#connection.status === 'wait') this.#connection.connect().catch(() => {})
        await new Promise((resolve) => {
            const timer = setTimeout(done, limit)
            const waiters = this.#waiters

            function done() {
                clearTimeout(timer)
                waiters.delete(done)
                resolve()
            }
            waiters.add(done)
        })
        return this.isReady
    }
}

export function linkOf(connection) {
    let link = links.get(connection)

    if (!link) {
        link = new Link(connection)
        links.set(connection, link)
    }
    return link
}
