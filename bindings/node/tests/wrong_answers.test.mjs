/*
 * wrong_answers.test.mjs - what the original answers wrongly and we do not, each checked on both: a check that passes on the original
 * would check nothing. The names V1 ... are those of our notes on the original; V9 to V12, V14, V18, V19, V23 and V25 to V27 are about servers
 * and are tested with the adapters.
 */
import * as original from '@verrou/core'
import * as originalMemory from '@verrou/core/drivers/memory'
import * as originalRedis from '@verrou/core/drivers/redis'
import { Redis } from 'ioredis'
import * as ours from 'libverrou'
import * as ourMemory from 'libverrou/drivers/memory'
import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'

import { mapStore, startProxy, startRedis, within } from './support.mjs'

const redis = await startRedis()
const connections = []
const natives = []

after(() => {
    for (const connection of connections) connection.disconnect()
    return Promise.all(natives.map((store) => store.close()))
})

/* A factory on Redis by way of a proxy, as each of the two reaches it. */
const packages = {
    ours: {
        ...ours, ...ourMemory,
        onRedis(proxy) {
            const store = new ours.NativeStore(`${proxy.url}?timeout=2s`)

            natives.push(store)
            return new ours.LockFactory(store)
        },
    },
    original: {
        ...original, ...originalMemory,
        onRedis(proxy) {
            const connection = new Redis(proxy.port, '127.0.0.1')

            connection.on('error', () => {})
            connections.push(connection)
            return new original.LockFactory(new originalRedis.RedisStore({ connection }))
        },
    },
}

/* `check` passes with ours and fails with the original. */
function wrong(name, title, check) {
    test(`${name}: ${title}`, () => check(packages.ours))
    test(`${name} is wrong in the original: ${title}`, () => assert.rejects(() => check(packages.original)))
}

const onMemory = ({ LockFactory, MemoryStore }, options) => new LockFactory(new MemoryStore(), options)

wrong('V1', 'no attempts are no acquisition', async (lib) => {
    const factory = onMemory(lib)

    await factory.createLock('key').acquire()
    await assert.rejects(() => factory.createLock('key').acquire({ retry: { attempts: 0 } }))
})

wrong('V2', 'after an expiry the new owner can release, and the old one cannot', async (lib) => {
    const factory = onMemory(lib)
    const first = factory.createLock('key', 50)
    const second = factory.createLock('key')

    await first.acquire()
    while (await first.isLocked()) await sleep(10)
    await sleep(2)
    assert.equal(await second.acquireImmediately(), true)
    await assert.rejects(() => first.release(), { code: 'E_LOCK_NOT_OWNED' })
    assert.equal(await second.isLocked(), true)
    await second.release()
})

wrong('V3', 'after a forced release the new owner can release, and the old one cannot', async (lib) => {
    const factory = onMemory(lib)
    const first = factory.createLock('key')
    const second = factory.createLock('key')

    await first.acquire()
    await second.forceRelease()
    assert.equal(await second.acquireImmediately(), true)
    await assert.rejects(() => first.release(), { code: 'E_LOCK_NOT_OWNED' })
    await second.release()
})

wrong('V4', 'a ttl of 0 is refused', async (lib) => {
    await assert.rejects(async () => onMemory(lib).createLock('key', 0).acquire(), /ttl: 0/)
})

wrong('V5', 'a negative ttl is refused', async (lib) => {
    await assert.rejects(async () => onMemory(lib).createLock('key', -5).acquire(), /ttl: -5/)
})

wrong('V6', 'the time limit counts, not the delay', async (lib) => {
    const factory = onMemory(lib)

    await factory.createLock('key').acquire()
    const waiting = factory.createLock('key').acquire({ retry: { timeout: 100, delay: 2500 } })

    assert.deepEqual(await within(2000, waiting), { value: false })
})

wrong('V7', 'a failed acquisition leaves the lease as it is', async (lib) => {
    const factory = onMemory(lib, { retry: { attempts: 1 } })
    const lock = factory.createLock('key', 60_000)

    await lock.acquire()
    assert.equal(await lock.acquire(), false)
    assert.ok(lock.getRemainingTime() > 0)
})

wrong('V8', 'releasing what was never taken is not owned, also in memory', async (lib) => {
    await assert.rejects(() => onMemory(lib).createLock('key').release(), { code: 'E_LOCK_NOT_OWNED' })
})

wrong('V8', 'releasing an expired lock is not owned, also in memory', async (lib) => {
    const lock = onMemory(lib).createLock('key', 50)

    await lock.acquire()
    while (await lock.isLocked()) await sleep(10)
    await sleep(2)
    await assert.rejects(() => lock.release(), { code: 'E_LOCK_NOT_OWNED' })
})

wrong('V13', 'owners are not drawn from Math.random()', async (lib) => {
    const { random } = Math

    Math.random = () => 0.5
    try {
        const factory = onMemory(lib)

        assert.notEqual(factory.createLock('key').getOwner(), factory.createLock('key').getOwner())
    } finally {
        Math.random = random
    }
})

wrong('V15', 'a serialised lock knows its store', async (lib) => {
    const { Verrou, memoryStore } = lib
    const verrou = new Verrou({
        default: 'one',
        stores: { one: { driver: memoryStore() }, two: { driver: memoryStore() } },
    })
    const lock = verrou.use('two').createLock('key')

    await lock.acquire()
    const restored = verrou.restoreLock(JSON.parse(JSON.stringify(lock.serialize())))

    assert.equal(await restored.isLocked(), true)
    await restored.release()
    assert.equal(await lock.isLocked(), false)
})

wrong('V16', 'a lost lock does not replace the result of run()', async (lib) => {
    const factory = new lib.LockFactory(mapStore(lib.E_LOCK_NOT_OWNED))
    const lock = factory.createLock('key')

    assert.deepEqual(
        await lock.run(async () => {
            await lock.forceRelease()
            return 'result'
        }),
        [true, 'result']
    )
})

wrong('V16', 'a lost lock does not replace the error of the callback', async (lib) => {
    const factory = new lib.LockFactory(mapStore(lib.E_LOCK_NOT_OWNED))
    const lock = factory.createLock('key')

    await assert.rejects(
        () => lock.run(async () => {
            await lock.forceRelease()
            throw new Error('of the callback')
        }),
        /of the callback/
    )
})

wrong('V20', 'acquire() does not wait for its own lock when the answer was lost', async (lib) => {
    const proxy = await startProxy(redis.path)
    const factory = lib.onRedis(proxy)

    try {
        assert.equal(await factory.createLock('V20-warm-up').acquire(), true)
        proxy.loseNext('V20-key')
        const acquiring = factory.createLock('V20-key', 60_000).acquire({ retry: { timeout: 10_000 } })

        assert.deepEqual(await within(9000, acquiring), { value: true })
        assert.equal(proxy.lost.count, 1)
    } finally {
        await factory.createLock('V20-key').forceRelease()
        proxy.stop()
    }
})

wrong('V20', 'acquireImmediately() knows its own lock when the answer was lost', async (lib) => {
    const proxy = await startProxy(redis.path)
    const factory = lib.onRedis(proxy)

    try {
        assert.equal(await factory.createLock('V20-warm-up-2').acquire(), true)
        proxy.loseNext('V20-now')
        assert.equal(await factory.createLock('V20-now', 60_000).acquireImmediately(), true)
    } finally {
        await factory.createLock('V20-now').forceRelease()
        await factory.createLock('V20-warm-up-2').forceRelease()
        proxy.stop()
    }
})

wrong('V21', 'a server that hangs holds up nobody beyond his time limit', async (lib) => {
    const proxy = await startProxy(redis.path)
    const factory = lib.onRedis(proxy)

    try {
        assert.equal(await factory.createLock('V21').acquireImmediately(), true)
        proxy.hang()
        const { error } = await within(8000, factory.createLock('V21-b').acquire({ retry: { timeout: 500 } }))

        assert.ok(error instanceof lib.E_LOCK_STORAGE_ERROR)
    } finally {
        proxy.stop()
    }
})

wrong('V22', 'a save() that overlaps a release does not let two owners in', async ({ MemoryStore }) => {
    const store = new MemoryStore()

    await store.save('key', 'a', 30_000)
    const saving = store.save('key', 'b', 30_000)

    await store.delete('key', 'a')
    const taken = await saving
    const takenToo = await store.save('key', 'c', 30_000)

    assert.ok(!(taken && takenToo))
})

wrong('V24', 'an expired lease is not extended', async (lib) => {
    const lock = onMemory(lib).createLock('key', 50)

    await lock.acquire()
    while (await lock.isLocked()) await sleep(10)
    await sleep(2)
    await assert.rejects(() => lock.extend(30_000), { code: 'E_LOCK_NOT_OWNED' })
})
