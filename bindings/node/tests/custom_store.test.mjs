/*
 * custom_store.test.mjs - stores that an application wrote in JavaScript, behind our Lock.
 */
import { E_LOCK_NOT_OWNED, E_LOCK_UNKNOWN_OUTCOME, LockFactory, Verrou } from 'libverrou'
import { MemoryStore } from 'libverrou/drivers/memory'
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'

import { mapStore, within } from './support.mjs'

test('the five calls get what they get from the original', async () => {
    const store = mapStore(E_LOCK_NOT_OWNED)
    const lock = new LockFactory(store).createLock('key', '1 minute')
    const owner = lock.getOwner()

    await lock.acquire()
    await lock.isLocked()
    await lock.extend(5000)
    await lock.release()
    await lock.forceRelease()
    assert.deepEqual(store.calls, [
        ['save', 'key', owner, 60_000], ['exists', 'key'], ['extend', 'key', owner, 5000], ['delete', 'key', owner],
        ['forceDelete', 'key'],
    ])
})

test('save() gets null for a lease that never expires, and once', async () => {
    const store = mapStore(E_LOCK_NOT_OWNED)
    const lock = new LockFactory(store).createLock('key', null)

    await lock.acquire()
    assert.deepEqual(store.calls, [['save', 'key', lock.getOwner(), null]])
    assert.equal(lock.getRemainingTime(), null)
    assert.equal(lock.isExpired(), false)
})

test('an error of the store reaches the caller as it is', async () => {
    const thrown = Object.assign(new Error('the disk is full'), { code: 'EDISK' })
    const fail = async () => {
        throw thrown
    }
    const same = (error) => error === thrown

    for (const call of ['save', 'delete', 'extend', 'exists', 'forceDelete']) {
        const store = mapStore(E_LOCK_NOT_OWNED)
        const lock = new LockFactory(store).createLock('key')

        if (call !== 'save') await lock.acquire()
        store[call] = fail
        const calls = {
            save: () => lock.acquire(), delete: () => lock.release(), extend: () => lock.extend(5000),
            exists: () => lock.isLocked(), forceDelete: () => lock.forceRelease(),
        }

        await assert.rejects(calls[call], same, call)
        if (call === 'save') await assert.rejects(() => lock.acquireImmediately(), same)
        if (call === 'delete') {
            store.save = async () => true
            await assert.rejects(() => lock.run(() => 5), same, 'a store that fails is told, if the callback did not fail')
        }
    }
})

test('so does its own E_LOCK_NOT_OWNED, and what is no Error', async () => {
    const mine = Object.assign(new Error('not yours'), { code: 'E_LOCK_NOT_OWNED' })
    const store = { ...mapStore(E_LOCK_NOT_OWNED), delete: async () => { throw mine } }
    const lock = new LockFactory(store).createLock('key')

    await lock.acquire()
    await assert.rejects(() => lock.release(), (error) => error === mine && error instanceof E_LOCK_NOT_OWNED)

    const odd = new LockFactory({ ...mapStore(E_LOCK_NOT_OWNED), save: () => { throw 'a text' } })

    assert.equal(await odd.createLock('key').acquire().catch((error) => error), 'a text')
})

test('calls that return no promise will do', async () => {
    let held = null
    const store = {
        save: (key, owner) => (held === null ? ((held = owner), true) : false),
        delete: () => (held = null),
        forceDelete: () => (held = null),
        exists: () => held !== null,
        extend: () => {},
    }
    const factory = new LockFactory(store)
    const lock = factory.createLock('key')

    assert.equal(await lock.acquire(), true)
    assert.equal(await factory.createLock('key').acquireImmediately(), false)
    await lock.extend(5000)
    assert.equal(await lock.isLocked(), true)
    await lock.release()
    assert.equal(held, null)
})

test('what is true is "yes", as it is for the original', async () => {
    const store = { save: async () => ({ _id: 1 }), exists: async () => [], delete: async () => ({ deleted: 1 }) }
    const lock = new LockFactory(store).createLock('key')

    assert.equal(await lock.acquire({ retry: { attempts: 1 } }), true)
    assert.equal(await lock.isLocked(), true)
    await lock.release()
})

test('whatever is thrown reaches the caller, and breaks nothing', async () => {
    const thrown = [null, undefined, Object.create(null), new Error('with a \0 inside'), Symbol('s'), { get message() { throw new Error('no') } }]

    for (const each of thrown) {
        const fail = async () => {
            throw each
        }
        const failing = new LockFactory({ save: fail })
        const { signal } = new AbortController()
        const seen = (promise) => promise.then(() => assert.fail('it was acquired'), (error) => [error])

        assert.deepEqual((await seen(failing.createLock('key').acquire()))[0], each)
        assert.deepEqual((await seen(failing.createLock('key').acquire({ signal })))[0], each)
        const held = new LockFactory({ save: async () => true, delete: fail })

        assert.deepEqual((await seen(held.createLock('key').run(() => 5)))[0], each)
    }
})

test('a store that does nothing, as one has in tests of an application', async () => {
    class NoopStore {
        async save() { return true }
        async delete() {}
        async forceDelete() {}
        async exists() { return false }
        async extend() {}
    }
    const verrou = new Verrou({ default: 'noop', stores: { noop: { driver: { factory: () => new NoopStore() } } } })
    const [one, two] = [verrou.createLock('key'), verrou.createLock('key')]

    assert.equal(await one.acquire(), true)
    assert.equal(await two.acquire(), true)
    assert.deepEqual(await verrou.createLock('key').run(async () => 'done'), [true, 'done'])
    await one.release()
    await two.release()
})

test('a call that takes long holds up no other', async () => {
    const base = mapStore(E_LOCK_NOT_OWNED)
    let release
    const store = { ...base, save: (key, ...args) => (key === 'slow' ? new Promise((resolve) => (release = resolve)) : base.save(key, ...args)) }
    const factory = new LockFactory(store)
    const slow = factory.createLock('slow').acquire()

    for (let i = 0; i < 20; i++) assert.equal(await factory.createLock(`quick-${i}`).acquire(), true)
    release(true)
    assert.equal(await slow, true)
})

test('a wait ends when the store says that the key is free, by polling', async () => {
    const store = mapStore(E_LOCK_NOT_OWNED)

    store.locks.set('key', { owner: 'another process', until: null })
    const waiting = new LockFactory(store).createLock('key').acquire({ retry: { delay: 20 } })

    assert.equal(await within(100, waiting), 'pending')
    store.locks.delete('key')
    assert.deepEqual(await within(10_000, waiting), { value: true })
})

test('a wait that ends at its limit is false, not unknown, though a request may be on its way', async () => {
    const store = mapStore(E_LOCK_NOT_OWNED)
    const { save } = store

    store.save = async function (...args) {
        await sleep(15)
        return save.apply(this, args)
    }
    const factory = new LockFactory(store, { retry: { delay: 10 } })

    await factory.createLock('key').acquire()
    for (let i = 0; i < 5; i++)
        assert.equal(await factory.createLock('key').acquire({ retry: { timeout: 200 } }), false)
})

test('a save() that answers after its caller has gone is taken back', async () => {
    const store = mapStore(E_LOCK_NOT_OWNED)
    const { save } = store
    let go

    store.save = async function (...args) {
        await new Promise((resolve) => (go = resolve))
        return save.apply(this, args)
    }
    const controller = new AbortController()
    const waiting = new LockFactory(store).createLock('key').acquire({ signal: controller.signal })

    await new Promise(setImmediate)
    controller.abort()
    await assert.rejects(waiting, { name: 'AbortError' })
    go()
    for (let i = 0; i < 1000 && !store.calls.some(([call]) => call === 'delete'); i++) await sleep(5)
    assert.deepEqual(store.calls.map(([call]) => call), ['save', 'delete'])
    assert.equal(store.locks.size, 0)
})

test('a store that never answers', async () => {
    const store = { ...mapStore(E_LOCK_NOT_OWNED), save: () => new Promise(() => {}) }

    await assert.rejects(
        () => new LockFactory(store).createLock('key').acquire({ retry: { timeout: 300 } }), E_LOCK_UNKNOWN_OUTCOME
    )
})

test('a store of ours with a call of its own is a store of the application', async () => {
    class Counting extends MemoryStore {
        saved = 0
        async save(...args) {
            this.saved++
            return super.save(...args)
        }
    }
    const store = new Counting()
    const lock = new LockFactory(store).createLock('key')

    assert.equal(await lock.acquire(), true)
    assert.equal(store.saved, 1)
    await lock.release()

    const patched = new MemoryStore()
    let deleted = 0

    patched.delete = async () => void deleted++
    const other = new LockFactory(patched).createLock('key')

    await other.acquire()
    await other.release()
    assert.equal(deleted, 1)
})

test('two factories on one object share its store, so that waiters queue up', async () => {
    const store = mapStore(E_LOCK_NOT_OWNED)
    const [one, two] = [new LockFactory(store), new LockFactory(store)]
    const held = one.createLock('key')

    await held.acquire()
    const waiting = two.createLock('key').acquire({ retry: { delay: '1h' } })

    await held.release()
    assert.deepEqual(await within(10_000, waiting), { value: true })
})
