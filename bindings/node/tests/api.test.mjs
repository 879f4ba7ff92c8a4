/*
 * api.test.mjs - the classes: what @verrou/core has, as it has it, and what is beyond.
 */
import * as original from '@verrou/core'
import * as ours from 'libverrou'
import { MemoryStore, memoryStore } from 'libverrou/drivers/memory'
import assert from 'node:assert/strict'
import { join } from 'node:path'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'

import { folder, mapStore, within } from './support.mjs'

const {
    E_INVALID_ARGUMENTS, E_LOCK_CONFIG, E_LOCK_LOST, E_LOCK_NOT_OWNED, E_LOCK_STORAGE_ERROR, E_LOCK_STORE_CLOSED,
    Lock, LockFactory, NativeStore, Verrou, nativeStore,
} = ours

const memory = (options) => new LockFactory(new MemoryStore(), options)
const place = folder()

/* ---- what the original has ---- */

test('all that the original exports is there, with all its methods', () => {
    for (const [name, value] of Object.entries(original)) {
        assert.equal(typeof ours[name], typeof value, name)
        for (const method of Object.getOwnPropertyNames(value.prototype ?? {}))
            if (!name.startsWith('E_')) assert.ok(method in ours[name].prototype, `${name}.${method}`)
    }
})

test('the errors have the codes, statuses, names and messages of the original', () => {
    for (const name of ['E_LOCK_NOT_OWNED', 'E_LOCK_STORAGE_ERROR']) {
        const [mine, theirs] = [ours, original].map((lib) => {
            const error = new lib[name]([{ message: 'text' }], { cause: 'cause' })

            return {
                message: error.message, code: error.code, status: error.status, name: error.name, text: String(error),
                cause: error.cause, onClass: [lib[name].message, lib[name].code],
            }
        })

        assert.deepEqual(mine, theirs)
    }
    assert.ok(new E_LOCK_NOT_OWNED() instanceof Error)
    assert.ok(new original.E_LOCK_NOT_OWNED() instanceof E_LOCK_NOT_OWNED)
    assert.ok(!(new original.E_LOCK_NOT_OWNED() instanceof E_LOCK_STORAGE_ERROR))
    assert.ok(new ours.E_LOCK_STORE_CLOSED(['text']) instanceof E_LOCK_STORAGE_ERROR)
    assert.ok(!(new E_LOCK_STORAGE_ERROR(['text']) instanceof ours.E_LOCK_STORE_CLOSED))
})

test('serialize() and restoreLock() go from one package to the other', async () => {
    const store = mapStore(E_LOCK_NOT_OWNED)
    const packages = [new LockFactory(store), new original.LockFactory(store)]

    for (const [from, to] of [packages, [...packages].reverse()]) {
        const lock = from.createLock('key', '10s')

        await lock.acquire()
        const restored = to.restoreLock(JSON.parse(JSON.stringify(lock.serialize())))

        assert.equal(restored.getOwner(), lock.getOwner())
        assert.ok(restored.getRemainingTime() > 9000)
        assert.equal(restored.isExpired(), false)
        await restored.extend('20s')
        await restored.release()
        assert.equal(store.locks.size, 0)
    }
})

test('a serialised lock of a store without tokens has the four members of the original, and no more', async () => {
    const lock = new LockFactory(mapStore(E_LOCK_NOT_OWNED)).createLock('key', 5000)

    assert.deepEqual(lock.serialize(), { key: 'key', owner: lock.getOwner(), ttl: 5000, expirationTime: null })
    await lock.acquire()
    const { expirationTime, ...others } = lock.serialize()

    assert.deepEqual(others, { key: 'key', owner: lock.getOwner(), ttl: 5000 })
    assert.ok(Math.abs(expirationTime - Date.now()) <= 5000)
})

test('new Lock(key, store, config, owner, ttl)', async () => {
    const store = new MemoryStore()
    const { logger } = console
    const config = { retry: { attempts: 1, delay: 250, timeout: undefined }, logger }
    const lock = new Lock('key', store, config, 'me', 60_000)

    assert.equal(lock.getOwner(), 'me')
    assert.equal(await lock.acquire(), true)
    assert.equal(await new Lock('key', store, config, 'you', 60_000).acquire(), false)
    assert.deepEqual((await store.inspect('key')).owner, 'me')
    await lock.release()

    const other = new Lock('key', store, config)

    assert.equal(await other.acquire(), true)
    assert.equal(other.getRemainingTime(), null, 'without a ttl it never expires')
    await new Lock('key', store, config, other.getOwner(), null).release()
    assert.equal(await other.isLocked(), false)
})

test('the logger of the config of a new Lock() hears of it', async () => {
    const texts = []
    const logger = { debug: (record, text) => texts.push(text) }
    const lock = new Lock('key', new MemoryStore(), { retry: { attempts: 1, delay: 250 }, logger }, 'me', 60_000)

    await lock.acquire()
    await lock.release()
    assert.deepEqual(texts, ['Lock acquired', 'Lock released'])
})

test('the owner that is told before acquire() is the one of the lease, also after a wait', async () => {
    for (const store of [new MemoryStore(), new NativeStore(`sqlite:${join(place, 'owner.db')}`), mapStore(E_LOCK_NOT_OWNED)]) {
        const factory = new LockFactory(store)
        const [held, lock] = [factory.createLock('key'), factory.createLock('key')]
        const owner = lock.getOwner()

        await held.acquire()
        const waiting = lock.acquire()

        await held.release()
        await waiting
        assert.equal(lock.getOwner(), owner)
    }
})

test('a lock restored with an owner only can be released, and by nobody else', async () => {
    const store = new MemoryStore()
    const factory = new LockFactory(store)

    await store.save('key', 'me', 60_000)
    const restore = (owner) => factory.restoreLock({ key: 'key', owner, ttl: 60_000, expirationTime: null })

    await assert.rejects(() => restore('you').release(), E_LOCK_NOT_OWNED)
    await restore('me').release()
})

test('a lock that @verrou/core has serialised: a ttl of 0, which is none there, and decimals', async () => {
    const store = new MemoryStore()
    const factory = new LockFactory(store)

    await store.save('never', 'me', null)
    await factory.restoreLock({ key: 'never', owner: 'me', ttl: 0, expirationTime: null }).release()
    assert.equal(await store.exists('never'), false)
    await store.save('key', 'me', 60_000)
    const lock = factory.restoreLock({ key: 'key', owner: 'me', ttl: 60_000.5, expirationTime: Date.now() + 60_000.5 })

    assert.ok(lock.getRemainingTime() > 50_000)
    await lock.release()
})

test('ttl: the default, a number, a text, null', async () => {
    const factory = memory()
    const ttlOf = (...ttl) => factory.createLock('key', ...ttl).serialize().ttl

    assert.equal(ttlOf(), 30_000)
    assert.equal(ttlOf(undefined), 30_000)
    assert.equal(ttlOf(1500), 1500)
    assert.equal(ttlOf('1.5s'), 1500)
    assert.equal(ttlOf('2 minutes'), 120_000)
    assert.equal(ttlOf(null), null)
    for (const wrong of [0, -1, NaN, Infinity, '', 'soon', '0s', {}, true, 2 ** 60])
        assert.throws(() => ttlOf(wrong), E_INVALID_ARGUMENTS, String(wrong))
})

test('what is refused: keys, attempts, delays, serialised locks', async () => {
    const factory = memory()

    for (const key of ['', 'a\0b', undefined, null, 5])
        assert.throws(() => factory.createLock(key), E_INVALID_ARGUMENTS, String(key))
    for (const attempts of [0, -1, 1.5, NaN, '3'])
        await assert.rejects(() => factory.createLock('key').acquire({ retry: { attempts } }), E_INVALID_ARGUMENTS)
    for (const delay of [-1, NaN, 'soon'])
        await assert.rejects(() => factory.createLock('key').acquire({ retry: { delay } }), E_INVALID_ARGUMENTS)
    for (const lock of [null, undefined, 'text', {}, { key: 'key' }, { key: 'key', owner: 'a', ttl: -1, expirationTime: 5 }])
        assert.throws(() => factory.restoreLock(lock), E_INVALID_ARGUMENTS, JSON.stringify(lock))
    assert.throws(() => new LockFactory(new MemoryStore(), { retry: { attempts: 0 } }), E_INVALID_ARGUMENTS)
    await assert.rejects(() => new MemoryStore().save('key', 'me', '1s'), /number/)
})

test('retry defaults of the factory, and null for none', async () => {
    const factory = memory({ retry: { attempts: 1, delay: '10ms', timeout: '1h' } })

    await factory.createLock('key', 100).acquire()
    assert.equal(await factory.createLock('key').acquire(), false)
    assert.equal(await factory.createLock('key').acquire({ retry: { attempts: Infinity, timeout: Infinity, delay: 0 } }), true)
})

test('retry.timeout: 0 is no time limit, as in @verrou/core', async () => {
    for (const timeout of [0, '0s']) {
        const factory = memory({ retry: { timeout: '1ms' } })

        await factory.createLock('key', 300).acquire()
        assert.equal(await factory.createLock('key').acquire(), false)
        assert.equal(await factory.createLock('key').acquire({ retry: { timeout } }), true)
    }
    assert.throws(() => memory({ retry: { timeout: '0 parsecs' } }), E_INVALID_ARGUMENTS)
    const unlimited = memory({ retry: { timeout: 0 } })

    await unlimited.createLock('key', 300).acquire()
    assert.equal(await unlimited.createLock('key').acquire(), true)
})

test('extend(): a text, nothing, and a lock without ttl', async () => {
    const factory = memory()
    const lock = factory.createLock('key', '10s')

    await lock.acquire()
    await lock.extend('1 minute')
    assert.ok(lock.getRemainingTime() > 50_000)
    await lock.extend()
    assert.ok(lock.getRemainingTime() <= 10_000)
    await assert.rejects(() => lock.extend(0), E_INVALID_ARGUMENTS)

    const never = factory.createLock('never', null)

    await never.acquire()
    assert.equal(never.getRemainingTime(), null)
    await assert.rejects(() => never.extend(), { code: 'E_INVALID_ARGUMENTS_EXCEPTION', message: 'Cannot extend a lock without TTL' })
    await never.extend('10s')
    assert.ok(never.getRemainingTime() > 5000)
})

test('the local view of a lease, before, while and after', async () => {
    const lock = memory().createLock('key', 60)

    assert.deepEqual([lock.isExpired(), lock.getRemainingTime()], [false, null])
    await lock.acquire()
    assert.equal(lock.isExpired(), false)
    while (!lock.isExpired()) await sleep(5)
    await sleep(5)
    assert.ok(lock.getRemainingTime() < 0)
})

test('keys longer than 255 bytes are accepted where the original accepts them', async () => {
    for (const store of [new MemoryStore(), mapStore(E_LOCK_NOT_OWNED)]) {
        const factory = new LockFactory(store)
        const [one, other] = ['1', '2'].map((end) => factory.createLock('é'.repeat(2000) + end))

        assert.equal(await one.acquire(), true)
        assert.equal(await other.acquireImmediately(), true)
        assert.equal(await factory.createLock(one.serialize().key).acquireImmediately(), false)
        const restored = factory.restoreLock(one.serialize())

        await restored.release()
        assert.equal(await one.isLocked(), false)
        await other.forceRelease()
        assert.equal(await store.exists(other.serialize().key), false)
    }
    assert.throws(() => new LockFactory(new NativeStore('memory:')).createLock('x'.repeat(256)), E_INVALID_ARGUMENTS)
})

/* ---- Verrou ---- */

test('Verrou: named stores, each made once, the default one', async () => {
    let made = 0
    const verrou = new Verrou({
        default: 'one',
        stores: {
            one: { driver: { factory: () => (made++, new MemoryStore()) } },
            two: { driver: memoryStore() },
        },
    })

    assert.equal(made, 0)
    const lock = verrou.createLock('key')

    await lock.acquire()
    assert.equal(await verrou.use('one').createLock('key').isLocked(), true)
    assert.equal(await verrou.use().createLock('key').isLocked(), true)
    assert.equal(await verrou.use('two').createLock('key').isLocked(), false)
    assert.equal(made, 1)
    await verrou.restoreLock(lock.serialize()).release()
    assert.equal(await lock.isLocked(), false)
})

test('Verrou: what is missing is named', () => {
    const stores = { one: { driver: memoryStore() } }

    assert.throws(() => new Verrou({ default: 'one' }), { code: 'E_LOCK_CONFIG', message: /"stores"/ })
    assert.throws(() => new Verrou({ stores }), { code: 'E_LOCK_CONFIG', message: /"default"/ })
    assert.throws(() => new Verrou({ default: 'two', stores }), { message: /"two".*one/ })
    assert.throws(() => new Verrou({ default: 'one', stores }).use('toString'), E_LOCK_CONFIG)
    for (const wrong of [null, {}, { driver: new MemoryStore() }, memoryStore()])
        assert.throws(() => new Verrou({ default: 'one', stores: { one: wrong } }).use(), { code: 'E_LOCK_CONFIG', message: /"one".*"driver"/ })
    for (const store of [undefined, null, 'redis', {}, Promise.resolve(new MemoryStore())])
        assert.throws(() => new LockFactory(store), { code: 'E_LOCK_CONFIG', message: /"save"/ })
})

/* ---- beyond ---- */

test('fencing tokens grow', async () => {
    const factory = memory()
    const [one, two] = [factory.createLock('key'), factory.createLock('key')]

    assert.equal(one.fence, null)
    await one.acquire()
    const first = one.fence

    assert.ok(Number.isSafeInteger(first) && first > 0)
    await one.release()
    await two.acquire()
    assert.ok(two.fence > first)
    assert.equal(new LockFactory(mapStore(E_LOCK_NOT_OWNED)).createLock('key').fence, null)
})

test('a signal ends the wait with its reason, and leaves nothing behind', async () => {
    for (const store of [new MemoryStore(), new NativeStore(`sqlite:${join(place, 'signal.db')}`), mapStore(E_LOCK_NOT_OWNED)]) {
        const factory = new LockFactory(store)
        const holder = factory.createLock('key')

        await holder.acquire()
        const controller = new AbortController()
        const waiting = factory.createLock('key').acquire({ signal: controller.signal })
        const reason = new Error('enough')

        controller.abort(reason)
        await assert.rejects(waiting, (error) => error === reason)
        await assert.rejects(() => factory.createLock('key').acquire({ signal: AbortSignal.abort() }), { name: 'AbortError' })
        await assert.rejects(
            () => factory.createLock('key').run(() => assert.fail('it was called'), { signal: AbortSignal.timeout(30) }),
            { name: 'TimeoutError' }
        )
        await holder.release()
        assert.equal(await factory.createLock('key').acquire({ signal: new AbortController().signal }), true)
        await factory.createLock('key').forceRelease()
    }
})

test('many waits may end with one signal', async () => {
    const factory = memory()
    const warnings = []
    const onWarning = (warning) => warnings.push(warning.message)
    const controller = new AbortController()

    process.on('warning', onWarning)
    await factory.createLock('key').acquire()
    const waits = Array.from({ length: 50 }, () => factory.createLock('key').acquire({ signal: controller.signal }))

    assert.equal(await factory.createLock('key').acquire({ signal: controller.signal, retry: { attempts: 1 } }), false)
    await new Promise(setImmediate)
    controller.abort()
    for (const { reason } of await Promise.allSettled(waits)) assert.equal(reason?.name, 'AbortError')
    process.off('warning', onWarning)
    assert.deepEqual(warnings, [])
})

test('autoExtend keeps the lease beyond its ttl, for as long as maxHold allows', async () => {
    for (const store of [new MemoryStore(), new NativeStore(`sqlite:${join(place, 'extend.db')}`), mapStore(E_LOCK_NOT_OWNED)]) {
        const factory = new LockFactory(store)
        const lock = factory.createLock('key', 600, { autoExtend: true })

        await lock.acquire()
        await sleep(1500)
        assert.equal(lock.isExpired(), false)
        assert.equal(await factory.createLock('key').acquireImmediately(), false)
        await lock.release()
        assert.equal(await lock.isLocked(), false)

        const bounded = factory.createLock('bounded', 400, { autoExtend: true, maxHold: '500ms' })

        await bounded.acquire()
        assert.equal(await factory.createLock('bounded').acquire({ retry: { timeout: 20_000, delay: 20 } }), true)
    }
})

test('the lost signal tells of an expiry, and not of a release', async () => {
    const lock = memory().createLock('key', 80)
    const before = lock.lost

    await lock.acquire()
    assert.equal(lock.lost, before, 'asked for before the acquisition, it is the one of the lease')
    const { value } = await within(10_000, new Promise((resolve) => before.addEventListener('abort', () => resolve(before.reason))))

    assert.ok(value instanceof E_LOCK_LOST)

    await lock.acquire()
    const second = lock.lost

    assert.notEqual(second, before)
    assert.equal(second.aborted, false)
    await lock.release()
    await sleep(120)
    assert.equal(second.aborted, false)
})

test('the lost signal tells when the store gave a renewed lock to somebody else', async () => {
    const store = mapStore(E_LOCK_NOT_OWNED)
    const lock = new LockFactory(store).createLock('key', 300, { autoExtend: true })

    await lock.acquire()
    store.locks.set('key', { owner: 'somebody', until: null })
    const lost = await within(10_000, new Promise((resolve) => lock.lost.addEventListener('abort', () => resolve(true))))

    assert.deepEqual(lost, { value: true })
    await assert.rejects(() => lock.release(), E_LOCK_NOT_OWNED)
})

test('the lost signal tells when the store is closed, since nobody renews the lock then', async () => {
    for (const store of [new MemoryStore(), new NativeStore(`sqlite:${join(place, 'closed.db')}`)]) {
        const lock = new LockFactory(store).createLock('key', '1h', { autoExtend: true })

        await lock.acquire()
        const { lost } = lock
        const told = new Promise((resolve) => lost.addEventListener('abort', () => resolve(lost.reason)))

        await store.close()
        const { value } = await within(10_000, told)

        assert.ok(value instanceof E_LOCK_LOST)
        assert.ok(value.cause instanceof E_LOCK_STORE_CLOSED)
        assert.equal(lock.lost, lost)
    }
})

test('the lost signal of a restored lock, once it is known to be held', async () => {
    const store = mapStore(E_LOCK_NOT_OWNED)

    await store.save('key', 'me', 60_000)
    const lock = new LockFactory(store).restoreLock({ key: 'key', owner: 'me', ttl: 60_000, expirationTime: null })
    const { lost } = lock

    await lock.extend(300)
    const { value } = await within(10_000, new Promise((resolve) => lost.addEventListener('abort', () => resolve(lost.reason))))

    assert.ok(value instanceof E_LOCK_LOST)
})

test('run() hands the lock to its callback', async () => {
    const lock = memory().createLock('key')

    assert.deepEqual(await lock.run((held) => [held === lock, typeof held.fence]), [true, [true, 'number']])
    assert.deepEqual(await lock.runImmediately(() => 5), [true, 5])
    await lock.acquire()
    assert.deepEqual(await lock.runImmediately(() => 5), [false, null])
})

test('asyncDispose releases what is held, and nothing else', async () => {
    const dispose = Symbol.asyncDispose ?? Symbol.for('Symbol.asyncDispose')
    const lock = memory().createLock('key')

    await lock[dispose]()
    await lock.acquire()
    await lock[dispose]()
    assert.equal(await lock.isLocked(), false)
})

test('a native store: what it can do, who holds what', async () => {
    const store = nativeStore(`sqlite:${join(place, 'native.db')}`).factory()
    const factory = new LockFactory(store)
    const lock = factory.createLock('a', null)

    await lock.acquire()
    assert.equal(store.capabilities.shared, true)
    assert.match(store.address, /^sqlite:/)
    assert.deepEqual(await store.inspect('a'), { locked: true, owner: lock.getOwner(), remaining: null, fence: lock.fence })
    assert.deepEqual(await store.inspect('b'), { locked: false })
    assert.deepEqual((await store.list('')).map(({ key }) => key), ['a'])
    await store.close()
    await store.close()
    await assert.rejects(() => lock.release(), E_LOCK_STORE_CLOSED)
    assert.throws(() => factory.createLock('a'), E_LOCK_STORAGE_ERROR)
})

test('a store that was closed before it was used', async () => {
    const store = new MemoryStore()

    await store.close()
    assert.throws(() => new LockFactory(store).createLock('key'), E_LOCK_STORE_CLOSED)
})

test('a native store: wrong addresses, and a server that is not there', async () => {
    for (const url of ['', 'nonsense', 'nosuchstore:x', 'memory:?nosuchsetting=1', 'nodejs:1'])
        assert.throws(() => new LockFactory(new NativeStore(url)).createLock('key'), E_LOCK_CONFIG, url)
    const store = new NativeStore(`redis+unix://${place}/nobody.sock?timeout=300ms`)
    const failure = await new LockFactory(store).createLock('key').acquire().catch((error) => error)

    assert.ok(failure instanceof E_LOCK_STORAGE_ERROR)
    assert.equal(failure.retriable, true)
    assert.match(failure.message, /^Lock storage error: acquire "key": /)
    await store.close()
})

test('waiters are served first come, first served, and while they wait the event loop turns', async () => {
    const factory = memory()
    const order = []
    const held = factory.createLock('key')

    await held.acquire()
    const waiters = Array.from({ length: 20 }, async (_, i) => {
        const lock = factory.createLock('key')

        await lock.acquire()
        order.push(i)
        await lock.release()
    })
    let turns = 0

    for (; turns < 50; turns++) await new Promise(setImmediate)
    await held.release()
    await Promise.all(waiters)
    assert.equal(turns, 50)
    assert.deepEqual(order, [...order].sort((a, b) => a - b))
})
