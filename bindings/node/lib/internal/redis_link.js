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
    breaks = 0

    constructor(connection) {
        this.#connection = connection
        if (typeof connection.on !== 'function') return
        for (const event of BREAKS)
            connection.on(event, () => {
                this.breaks++
                for (const broken of [...this.#watchers, ...this.#waiters]) broken()
            })
        connection.on('ready', () => {
            for (const done of this.#waiters) done()
        })
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
