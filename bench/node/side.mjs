/*
 * side.mjs - one side of a comparison, in a process of its own: side.mjs SIDE STORE ADDRESS. Its parent sends { id, what, ...arguments } and gets
 * { id, value }.
 *
 * SIDE is "ours" (our class over the client that applications give, in its default form, which goes native where it can), "given" (the same with the
 * client itself), "native" (our store by its address), "theirs" or "mutex" (async-mutex: what
 * exclusion costs in JavaScript alone).
 */
import { monitorEventLoopDelay } from 'node:perf_hooks'
import { setTimeout as sleep } from 'node:timers/promises'

const [, , side, store, address] = process.argv
const name = { ours: 'libverrou', given: 'libverrou', theirs: '@verrou/core' }[side]
const more = side === 'given' ? { native: false } : {}
const TTL = 600_000

async function mutexes() {
    const { Mutex } = await import('async-mutex')

    return () => {
        const mutex = new Mutex()

        return { acquire: () => mutex.acquire(), release: () => mutex.release() }
    }
}

async function client() {
    if (store === 'memory') return (await import(`${name}/drivers/memory`)).memoryStore()
    if (store === 'redis') {
        const { Redis } = await import('ioredis')

        return (await import(`${name}/drivers/redis`)).redisStore({ connection: new Redis(address), ...more })
    }
    const { default: knex } = await import('knex')

    const connection = knex({ client: 'pg', connection: address })

    return (await import(`${name}/drivers/knex`)).knexStore({ connection, tableName: 'locks', ...more })
}

async function locks() {
    if (side === 'mutex') return mutexes()
    const { LockFactory, nativeStore } = await import(name ?? 'libverrou')
    const made = (side === 'native' ? nativeStore(address) : await client()).factory()
    const factory = new LockFactory(made)

    return (key) => factory.createLock(key, TTL)
}

const createLock = await locks()
const held = new Map()
const now = () => Number(process.hrtime.bigint() / 1000n) /* of the machine: the same in all processes */

/* What is used of the heap, and all that is not heap. */
function memory() {
    for (let i = 0; i < 3; i++) globalThis.gc()
    const { rss, heapTotal, heapUsed } = process.memoryUsage()

    return rss - heapTotal + heapUsed
}

const can = {
    /* Each task takes and gives back a lock of its own for `ms`: pairs a second, and processor time a pair, of all threads, in microseconds. */
    async pairs({ tasks, ms }) {
        const cpu = process.cpuUsage()
        const begun = performance.now()
        let done = 0

        await Promise.all(Array.from({ length: tasks }, async (_, task) => {
            const lock = createLock(`${side}:${task}`)

            while (performance.now() - begun < ms) {
                await lock.acquire()
                await lock.release()
                done++
            }
        }))
        const { user, system } = process.cpuUsage(cpu)

        return { rate: (done * 1000) / (performance.now() - begun), cpu: (user + system) / done }
    },

    async take({ key }) {
        const lock = createLock(key)

        held.set(key, lock)
        await lock.acquire()
        return now()
    },

    async give({ key }) {
        const called = now()

        await held.get(key).release()
        return called
    },

    /* Delays of the event loop in microseconds. */
    async delay({ ms }) {
        const seen = monitorEventLoopDelay({ resolution: 1 })

        seen.enable()
        await sleep(ms)
        seen.disable()
        return { median: seen.percentile(50) / 1000, late: seen.percentile(99) / 1000 }
    },

    /* So many who wait for one lock that another process holds, or we; bytes for each. They go on waiting. */
    async wait({ key, count }) {
        const before = memory()

        for (let i = 0; i < count; i++) createLock(key).acquire()
        await sleep(1000)
        return (memory() - before) / count
    },
}

process.on('message', async ({ id, what, ...args }) => process.send({ id, value: await can[what](args) }))
process.send({ id: 0 })
