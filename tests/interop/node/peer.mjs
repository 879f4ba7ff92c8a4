// peer.mjs - the original, driven from a test: peer.mjs STORE ADDRESS, then one JSON object a line on both sides.
//
//   in   {"id":1,"call":"acquire","lock":"a",...}      "lock" is a name that create or restore gave to a lock
//   out  {"id":1,"value":true}                         what the call answered, null for nothing
//        {"id":1,"error":"E_LOCK_NOT_OWNED","message":"..."}
//        {"event":"refused","key":"k"}                 the store refused an acquisition: sent before the call goes on
//
// Calls run at the same time, as promises do; an acquire that waits holds up no other line. The process ends with its input.
import { readFileSync, unlinkSync, writeFileSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { setTimeout as pause } from 'node:timers/promises'
import { LockFactory } from '@verrou/core'
import { stores } from './stores.mjs'

const [, , name, address] = process.argv
if (!stores[name]) throw new Error(`no store is called "${name}"`)
const { driver, close } = await stores[name](address)
const factory = new LockFactory(telling(driver.factory()))
const locks = new Map()

function say(line) {
    process.stdout.write(`${JSON.stringify(line)}\n`)
}

// MySQL undoes one of the statements that want the same row, and says so; the original hands that on, also where there are none but
// processes of its own. As any user of MySQL has to, we do it again.
async function settled(call) {
    for (;;) {
        try {
            return await call()
        } catch (error) {
            if (error.code !== 'ER_LOCK_DEADLOCK') throw error
        }
    }
}

// The store as it is, but each refusal is told: a test that needs a waiter to wait sees it here.
function telling(store) {
    return {
        save: async (key, ...rest) => {
            const saved = await settled(() => store.save(key, ...rest))
            if (!saved) say({ event: 'refused', key })
            return saved
        },
        delete: (...args) => settled(() => store.delete(...args)),
        forceDelete: (...args) => settled(() => store.forceDelete(...args)),
        exists: (...args) => store.exists(...args),
        extend: (...args) => settled(() => store.extend(...args)),
    }
}

// Numbers from 0 to 1, the same for the same seed (a linear congruence, the upper bits of it).
function sequence(seed) {
    let state = BigInt(seed)

    return () => {
        state = (state * 6364136223846793005n + 1442695040888963407n) & 0xffffffffffffffffn
        return Number(state >> 33n) / 2 ** 31
    }
}

// What a lock guards: a sum in a file, read, thought about and written; and a mark that must not be there yet. See adder.c.
async function add(file, random) {
    writeFileSync(`${file}.inside`, '', { flag: 'wx' })
    const [sum, turns, last] = readFileSync(file, 'utf8').split(' ')
    await pause(random() * 3)
    writeFileSync(file, `${Number(sum) + 1} ${Number(turns) + (last === 'J' ? 0 : 1)} J`)
    unlinkSync(`${file}.inside`)
}

async function take(lock, random) {
    if (random() < 0.5) return lock.acquire({ retry: { delay: 1 + Math.floor(random() * 4) } })
    while (!(await lock.acquireImmediately())) await pause(1 + random() * 4)
    return true
}

// Add `times` to the sum, each time under the lock, which is taken and given back in all the ways there are.
async function count({ key, file, times, seed }) {
    const random = sequence(seed)

    for (let done = 0; done < times; done++) {
        if (random() < 0.1) await take(factory.createLock(key, 10), random) // and left to run out
        const lock = factory.createLock(key, random() < 0.3 ? null : 120000)
        await take(lock, random)
        if (random() < 0.2) await lock.extend(120000)
        await add(file, random)
        if (random() < 0.3) await factory.restoreLock(JSON.parse(JSON.stringify(lock.serialize()))).release()
        else await lock.release()
    }
    return times
}

const calls = {
    nothing: () => {},
    create: ({ lock, key, ttl }) => void locks.set(lock, factory.createLock(key, ttl)),
    restore: ({ lock, json }) => void locks.set(lock, factory.restoreLock(JSON.parse(json))),
    acquire: ({ lock, retry }) => locks.get(lock).acquire({ retry }),
    acquireImmediately: ({ lock }) => locks.get(lock).acquireImmediately(),
    release: ({ lock }) => locks.get(lock).release(),
    forceRelease: ({ lock }) => locks.get(lock).forceRelease(),
    extend: ({ lock, ttl }) => locks.get(lock).extend(ttl),
    isLocked: ({ lock }) => locks.get(lock).isLocked(),
    isExpired: ({ lock }) => locks.get(lock).isExpired(),
    remaining: ({ lock }) => locks.get(lock).getRemainingTime(),
    serialize: ({ lock }) => JSON.stringify(locks.get(lock).serialize()),
    owner: ({ lock }) => locks.get(lock).getOwner(),
    count,
}

async function answer(line) {
    const { id, call, ...rest } = JSON.parse(line)

    try {
        say({ id, value: (await calls[call](rest)) ?? null })
    } catch (error) {
        say({ id, error: error.code ?? error.name, message: error.message })
    }
}

for await (const line of createInterface({ input: process.stdin })) answer(line)
close()
process.exit(0)
