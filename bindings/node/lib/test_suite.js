/*
 * test_suite.js - what a LockStore has to do, as tests for whoever writes one. They need the `test` function of Japa, or another one that takes
 * a title and an async function; each uses keys of its own, so that stores may share a server and need no cleaning.
 *
 *     registerStoreTestSuite({ test, createStore: () => new MyStore() })
 *
 * Beside the promises of @verrou/core's suite it checks what a lock is relied on for: that nobody but the owner of the live lease can end or
 * prolong it, and that of many who try at once one gets it.
 */
import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'

import { E_LOCK_NOT_OWNED } from './errors.js'
import { LockFactory } from './lock_factory.js'

/* Long enough for a slow store, short enough to wait for. */
const SHORT_TTL = 1000
const OVER = SHORT_TTL + 300

function tests(createStore) {
    const key = () => `suite-${randomUUID()}`
    const notOwned = (attempt) => assert.rejects(attempt, E_LOCK_NOT_OWNED)
    const make = (options) => {
        const store = createStore()

        return { store, factory: new LockFactory(store, options) }
    }

    return {
        'a new lock is not locked': async () => {
            const { store, factory } = make()
            const lock = factory.createLock(key())

            assert.equal(await lock.isLocked(), false)
            assert.equal(await store.exists(key()), false)
        },

        'save() takes a free key and says so': async () => {
            const { store } = make()
            const name = key()

            assert.equal(await store.save(name, 'a', 30_000), true)
            assert.equal(await store.exists(name), true)
        },

        'save() refuses a key that is held, to its owner as well': async () => {
            const { store } = make()
            const name = key()

            await store.save(name, 'a', 30_000)
            assert.equal(await store.save(name, 'b', 30_000), false)
            assert.equal(await store.save(name, 'a', 30_000), false)
        },

        'of many who call save() at once one is told true': async () => {
            const { store } = make()

            for (let round = 0; round < 5; round++) {
                const name = key()
                const answers = await Promise.all(
                    Array.from({ length: 20 }, (_, i) => store.save(name, `owner-${i}`, 30_000))
                )

                assert.equal(answers.filter(Boolean).length, 1)
            }
        },

        'exclusion holds while many acquire, release and acquire again': async () => {
            const { factory } = make({ retry: { delay: 5 } })
            const name = key()
            let inside = 0
            let entered = 0
            const worker = async () => {
                const lock = factory.createLock(name)

                for (let i = 0; i < 5; i++) {
                    await lock.acquire()
                    assert.equal(++inside, 1)
                    entered++
                    await new Promise(setImmediate)
                    inside--
                    await lock.release()
                }
            }

            await Promise.all([worker(), worker(), worker(), worker()])
            assert.equal(entered, 20)
        },

        'a save() that overlaps a delete() never lets two owners in': async () => {
            const { store } = make()
            const name = key()
            let holder = 0

            await store.save(name, 'owner-0', 30_000)
            for (let i = 1; i <= 20; i++) {
                const releasesFirst = i % 2 === 0 && store.delete(name, `owner-${holder}`)
                const saved = store.save(name, `owner-${i}`, 30_000)
                const [, taken] = await Promise.all([
                    releasesFirst || store.delete(name, `owner-${holder}`),
                    saved,
                ])

                if (!taken) assert.equal(await store.save(name, `owner-${i}`, 30_000), true)
                assert.equal(await store.save(name, 'intruder', 30_000), false)
                holder = i
            }
            await store.delete(name, `owner-${holder}`)
        },

        'delete() frees the key': async () => {
            const { store } = make()
            const name = key()

            await store.save(name, 'a', 30_000)
            await store.delete(name, 'a')
            assert.equal(await store.exists(name), false)
            assert.equal(await store.save(name, 'b', 30_000), true)
        },

        'delete() of another owner throws E_LOCK_NOT_OWNED and changes nothing': async () => {
            const { store } = make()
            const name = key()

            await store.save(name, 'a', 30_000)
            await notOwned(() => store.delete(name, 'b'))
            assert.equal(await store.exists(name), true)
            await store.delete(name, 'a')
        },

        'delete() of a free key throws E_LOCK_NOT_OWNED': async () => {
            const { store } = make()

            await notOwned(() => store.delete(key(), 'a'))
        },

        'a second delete() throws E_LOCK_NOT_OWNED': async () => {
            const { store } = make()
            const name = key()

            await store.save(name, 'a', 30_000)
            await store.delete(name, 'a')
            await notOwned(() => store.delete(name, 'a'))
        },

        'a lease ends by itself': async () => {
            const { store } = make()
            const name = key()

            await store.save(name, 'a', SHORT_TTL)
            assert.equal(await store.exists(name), true)
            await sleep(OVER)
            assert.equal(await store.exists(name), false)
            assert.equal(await store.save(name, 'b', 30_000), true)
            assert.equal(await store.save(name, 'c', 30_000), false)
        },

        'the owner of an expired lease cannot delete it': async () => {
            const { store } = make()
            const name = key()

            await store.save(name, 'a', SHORT_TTL)
            await sleep(OVER)
            await notOwned(() => store.delete(name, 'a'))
        },

        'the owner of an expired lease cannot delete the next owner\'s, who can': async () => {
            const { store } = make()
            const name = key()

            await store.save(name, 'a', SHORT_TTL)
            await sleep(OVER)
            assert.equal(await store.save(name, 'b', 30_000), true)
            await notOwned(() => store.delete(name, 'a'))
            assert.equal(await store.exists(name), true)
            await store.delete(name, 'b')
        },

        'a ttl of null never expires': async () => {
            const { store } = make()
            const name = key()

            await store.save(name, 'a', null)
            await sleep(OVER)
            assert.equal(await store.exists(name), true)
            await store.delete(name, 'a')
        },

        'extend() prolongs the lease from now': async () => {
            const { store } = make()
            const name = key()

            await store.save(name, 'a', SHORT_TTL)
            await store.extend(name, 'a', 30_000)
            await sleep(OVER)
            assert.equal(await store.exists(name), true)
            await store.delete(name, 'a')
        },

        'extend() can shorten the lease': async () => {
            const { store } = make()
            const name = key()

            await store.save(name, 'a', 30_000)
            await store.extend(name, 'a', SHORT_TTL)
            await sleep(OVER)
            assert.equal(await store.exists(name), false)
        },

        'extend() of another owner, or of a free key, throws E_LOCK_NOT_OWNED': async () => {
            const { store } = make()
            const name = key()

            await notOwned(() => store.extend(name, 'a', 30_000))
            await store.save(name, 'a', 30_000)
            await notOwned(() => store.extend(name, 'b', 30_000))
            await store.delete(name, 'a')
        },

        'extend() does not revive an expired lease': async () => {
            const { store } = make()
            const name = key()

            await store.save(name, 'a', SHORT_TTL)
            await sleep(OVER)
            await notOwned(() => store.extend(name, 'a', 30_000))
            assert.equal(await store.exists(name), false)
        },

        'forceDelete() frees the key, whoever has it': async () => {
            const { store } = make()
            const name = key()

            await store.save(name, 'a', 30_000)
            await store.forceDelete(name)
            assert.equal(await store.exists(name), false)
            assert.equal(await store.save(name, 'b', 30_000), true)
            await notOwned(() => store.delete(name, 'a'))
            await store.delete(name, 'b')
        },

        'forceDelete() of a free key is no error': async () => {
            const { store } = make()

            await store.forceDelete(key())
        },

        'keys do not touch each other': async () => {
            const { store } = make()
            const name = key()
            const others = [`${name} `, name.toUpperCase(), `${name}:`, `${name}%`, `${name}_é`]

            await store.save(name, 'a', 30_000)
            for (const other of others) assert.equal(await store.save(other, 'b', 30_000), true, other)
            await store.delete(name, 'a')
            for (const other of others) assert.equal(await store.exists(other), true, other)
            for (const other of others) await store.delete(other, 'b')
        },

        'a lock waits until it is released': async () => {
            const { factory } = make({ retry: { delay: 20 } })
            const name = key()
            const first = factory.createLock(name)
            const second = factory.createLock(name)
            const order = []

            await first.acquire()
            const waiting = second.acquire().then((acquired) => order.push(acquired))

            await sleep(100)
            order.push('released')
            await first.release()
            await waiting
            assert.deepEqual(order, ['released', true])
            await second.release()
        },

        'acquire() returns false when the time is up': async () => {
            const { factory } = make({ retry: { delay: 20, timeout: 150 } })
            const name = key()
            const first = factory.createLock(name)

            await first.acquire()
            assert.equal(await factory.createLock(name).acquire(), false)
            await first.release()
        },

        'run() returns the result, and releases': async () => {
            const { factory } = make()
            const lock = factory.createLock(key())

            assert.deepEqual(await lock.run(async () => 'result'), [true, 'result'])
            assert.equal(await lock.isLocked(), false)
        },

        'run() rejects with what the callback throws, and releases': async () => {
            const { factory } = make()
            const lock = factory.createLock(key())

            await assert.rejects(
                () => lock.run(async () => {
                    throw new Error('from the callback')
                }),
                /^Error: from the callback$/
            )
            assert.equal(await lock.isLocked(), false)
        },

        'a restored lock can be released by whoever restores it': async () => {
            const { store, factory } = make()
            const lock = factory.createLock(key())

            await lock.acquire()
            const restored = new LockFactory(store).restoreLock(JSON.parse(JSON.stringify(lock.serialize())))

            assert.equal(await restored.isLocked(), true)
            await restored.release()
            assert.equal(await lock.isLocked(), false)
        },
    }
}

export function registerStoreTestSuite({ test, createStore }) {
    for (const [title, body] of Object.entries(tests(createStore))) {
        const registered = test(title, body)

        /* Japa gives two seconds, which is little for a busy machine and leases that have to end. */
        if (typeof registered?.timeout === 'function') registered.timeout(20_000)
    }
}
