/*
 * checks.mjs - the tests that every store class has to pass, registered under Japa: the original's published suite with the original's LockFactory,
 * ours with ours, and both packages on one connection.
 *
 * A `kit` is { name, ours(), theirs() }: new stores over one connection; clean() frees all keys, since the original's suite uses "foo" again
 * and again.
 */
import { test } from '@japa/runner'
import * as original from '@verrou/core'
import { registerStoreTestSuite as registerOriginals } from '@verrou/core/test_suite'
import { LockFactory } from 'libverrou'
import { randomUUID } from 'node:crypto'

export const key = () => `key-${randomUUID()}`

/* What `promise` comes to, within `limit` ms; else it is "pending". */
export async function within(limit, promise) {
    let timer
    const late = new Promise((resolve) => (timer = setTimeout(resolve, limit, 'pending')))

    try {
        return await Promise.race([promise.then((value) => ({ value }), (error) => ({ error })), late])
    } finally {
        clearTimeout(timer)
    }
}

export function registerSuites(kit, register) {
    test.group(`${kit.name}: the original's suite, the original's factory`, (group) => {
        group.each.setup(() => kit.clean())
        registerOriginals({ test, createStore: kit.ours })
    })
    if (register) test.group(`${kit.name}: our suite`, () => register({ test, createStore: kit.ours }))
}

export function registerInterop(kit) {
    const sides = () => [new LockFactory(kit.ours()), new original.LockFactory(kit.theirs())]

    test.group(`${kit.name}: beside the original`, () => {
        test('each refuses what the other holds, and takes what it has released', async ({ assert }) => {
            const name = key()

            for (const [first, second] of [sides(), sides().reverse()]) {
                const a = first.createLock(name, 60_000)
                const b = second.createLock(name, 60_000)

                assert.isTrue(await a.acquireImmediately())
                assert.isFalse(await b.acquireImmediately())
                assert.isTrue(await b.isLocked())
                await assert.rejects(() => b.release())
                await assert.rejects(() => b.extend('2m'))
                await a.extend('2m')
                await a.release()
                assert.isFalse(await b.isLocked())
                assert.isTrue(await b.acquireImmediately())
                assert.isFalse(await a.acquireImmediately())
                await b.release()
            }
        })

        test('each takes over what the other let run out', async ({ assert }) => {
            for (const [first, second] of [sides(), sides().reverse()]) {
                const name = key()
                const a = first.createLock(name, 300)
                const b = second.createLock(name, 60_000)

                assert.isTrue(await a.acquireImmediately())
                assert.isTrue(await b.acquire({ retry: { delay: 20 } }))
                await assert.rejects(() => a.release())
                assert.isTrue(await b.isLocked())
                await b.release()
            }
        })

        test('each releases what the other has serialised, and waits for it', async ({ assert }) => {
            for (const [first, second] of [sides(), sides().reverse()]) {
                const name = key()
                const a = first.createLock(name, 60_000)
                const b = first.createLock(name, 60_000)

                await a.acquire()
                const waiting = b.acquire({ retry: { delay: 20 } })

                await second.restoreLock(JSON.parse(JSON.stringify(a.serialize()))).extend('1m')
                await a.extend('1m')
                await second.restoreLock(JSON.parse(JSON.stringify(a.serialize()))).release()
                assert.isTrue(await waiting)
                await second.restoreLock(JSON.parse(JSON.stringify(b.serialize()))).extend('1m')
                await b.release()
                assert.isTrue(await b.acquireImmediately())
                await second.createLock(name).forceRelease()
                assert.isFalse(await b.isLocked())
            }
        })

        test('a lease without end holds for the other', async ({ assert }) => {
            for (const [first, second] of [sides(), sides().reverse()]) {
                const name = key()

                await first.createLock(name, null).acquire()
                assert.isFalse(await second.createLock(name).acquireImmediately())
                assert.isTrue(await second.createLock(name).isLocked())
                await second.createLock(name).forceRelease()
            }
        })

        test('eight loops of both count without a mistake', async ({ assert }) => {
            const name = key()
            const [ours, theirs] = sides()
            let inside = 0
            let count = 0
            const loop = async (factory) => {
                for (let turn = 0; turn < 6; turn++) {
                    const lock = factory.createLock(name, 60_000)

                    await lock.acquire({ retry: { delay: 5 } })
                    assert.equal(++inside, 1)
                    await new Promise((resolve) => setTimeout(resolve, 2))
                    inside--
                    count++
                    await lock.release()
                }
            }

            await Promise.all([ours, theirs, ours, theirs, ours, theirs, ours, theirs].map(loop))
            assert.equal(count, 48)
        })
    })
}

/* Tokens of one key grow: through release, running out, force-release and another store object. */
export function registerFencing(kit) {
    test(`${kit.name}: tokens grow`, async ({ assert }) => {
        const name = key()
        let last = 0
        const take = async (ttl) => {
            const lock = new LockFactory(kit.ours()).createLock(name, ttl)

            assert.isTrue(await lock.acquire({ retry: { delay: 20 } }))
            assert.isAbove(lock.fence, last)
            assert.isTrue(Number.isSafeInteger(lock.fence))
            last = lock.fence
            return lock
        }

        for (let turn = 0; turn < 5; turn++) await (await take(60_000)).release()
        await take(200)
        await (await take(60_000)).forceRelease()
        await (await take(60_000)).release()
    })
}

/* With `connection` to a port where nobody listens, or to a server that hangs: an error in time, and never "somebody has it". */
export function registerDeadServer(name, makeStore) {
    test(`${name}: a dead server is an error, within the time limit of a request`, async ({ assert }) => {
        const { store, close } = await makeStore()
        const lock = new LockFactory(store).createLock(key())

        for (const call of [() => lock.acquire({ retry: { timeout: 1000 } }), () => lock.acquireImmediately(), () => lock.isLocked()]) {
            const outcome = await within(20_000, call())

            assert.instanceOf(outcome.error, Error, String(outcome.value ?? outcome))
        }
        await close()
    }).timeout(60_000)
}
