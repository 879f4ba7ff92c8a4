// bench.mjs - the original at work: bench.mjs STORE ADDRESS TASKS. Each line of the input says what is to be done and for how many
// milliseconds; the answer is a rate, and how many errors the tasks have seen.
//
//     pairs MS      each task takes and gives back a lock of its own: pairs a second
//     changes MS    all tasks take and give back the same lock: changes of owner a second
import { createInterface } from 'node:readline'
import { LockFactory } from '@verrou/core'

const TTL = 600000
const [, , store, address, count] = process.argv

async function redis() {
    const { Redis } = await import('ioredis')
    const { redisStore } = await import('@verrou/core/drivers/redis')
    const connection = new Redis(address)

    return { store: redisStore({ connection }), close: () => connection.disconnect() }
}

async function sql(client) {
    const { default: knex } = await import('knex')
    const { knexStore } = await import('@verrou/core/drivers/knex')
    const connection = knex({ client, connection: address })

    return { store: knexStore({ connection, tableName: 'original' }), close: () => connection.destroy() }
}

const { store: chosen, close } = await { redis, postgres: () => sql('pg'), mysql: () => sql('mysql2') }[store]()
const factory = new LockFactory(chosen.factory())
const tasks = Array.from({ length: Number(count) }, (_, number) => number)
let errors = 0

async function pair(lock, between) {
    try {
        await lock.acquire()
        between()
        await lock.release()
    } catch {
        errors++
    }
}

async function pairs(ms) {
    const begun = performance.now()
    let done = 0

    await Promise.all(
        tasks.map(async (number) => {
            const lock = factory.createLock(`original:${number}`, TTL)

            while (performance.now() - begun < ms) await pair(lock, () => done++)
        }),
    )
    return (done * 1000) / (performance.now() - begun)
}

// What is done after the time is over does not count: the last waiters still want their turn.
async function changes(ms) {
    const begun = performance.now()
    let done = 0
    let last = -1

    await Promise.all(
        tasks.map(async (number) => {
            const lock = factory.createLock('original:one', TTL)

            while (performance.now() - begun < ms)
                await pair(lock, () => {
                    if (last !== number && performance.now() - begun < ms) done++
                    last = number
                })
        }),
    )
    return (done * 1000) / ms
}

for await (const line of createInterface({ input: process.stdin })) {
    const [what, ms] = line.split(' ')
    const rate = await { pairs, changes }[what](Number(ms))

    console.log(rate, errors)
    errors = 0
}
await close()
