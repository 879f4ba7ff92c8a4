/*
 * leaks.test.mjs - memory comes back: 200,000 locks on each kind of store, and stores themselves.
 *
 * The process's resident memory is looked at after each of several rounds. It grows now and then, by what the allocators like to take; what
 * leaks grows in every round. So the round with the least growth counts, and 30 bytes a lock would show.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'

import { runModule, startRedis } from './support.mjs'

const redis = await startRedis()

const program = (store, body, count) => `
    import { E_LOCK_NOT_OWNED, LockFactory, NativeStore } from 'libverrou'
    import { MemoryStore } from 'libverrou/drivers/memory'
    import { mapStore } from './support.mjs'
    const factory = new LockFactory(${store})
    const settle = async () => {
        for (let i = 0; i < 6; i++) {
            global.gc()
            await new Promise((resolve) => setTimeout(resolve, 20))
        }
        return process.memoryUsage().rss
    }
    const some = async (count) => {
        for (let at = 0; at < count; at += 100) {
            await Promise.all(Array.from({ length: 100 }, async (_, i) => { ${body} }))
            if (at % 5000 === 0) global.gc()
        }
    }
    const sizes = []
    for (let round = 0; round < 4; round++) {
        await some(${count})
        sizes.push(await settle())
    }
    console.log(JSON.stringify({ grown: Math.min(...sizes.slice(1).map((size, at) => size - sizes[at])) }))
    process.exit(0)
`

const bodies = {
    'acquired and released': `
        const lock = factory.createLock('key' + i)
        await lock.acquire()
        await lock.release()
    `,
    'never used': `factory.createLock('key' + i).getOwner()`,
    'waited for with a signal': `
        const lock = factory.createLock('signal' + i)
        await lock.acquire({ signal: new AbortController().signal })
        await lock.release()
    `,
    'renewed, with a lost signal': `
        const lock = factory.createLock('renewed' + i, '1 minute', { autoExtend: true })
        await lock.acquire()
        lock.lost
        await lock.release()
    `,
    'refused': `
        const lock = factory.createLock('refused' + i, '1 minute')
        await lock.acquireImmediately()
        await factory.createLock('refused' + i).acquire({ retry: { attempts: 1 } })
        await lock.release().catch(() => {})
        await lock.release().catch(() => {})
    `,
}

async function stays(store, body, count, allowed) {
    const { code, stdout, stderr } = await runModule(program(store, body, count), {
        args: ['--expose-gc'], limit: 300_000,
    })

    assert.equal(code, 0, stderr)
    const { grown } = JSON.parse(stdout)

    assert.ok(grown < count * allowed, `${grown} bytes more after ${count} more, in each round`)
}

for (const [what, body] of Object.entries(bodies))
    test(`200,000 locks that are ${what}`, () => stays('new MemoryStore()', body, 50_000, 30))

test('200,000 locks on a custom store', () =>
    stays('Object.assign(mapStore(E_LOCK_NOT_OWNED), { calls: { push() {} } })', bodies['acquired and released'], 50_000, 30))

test('200,000 failures of a custom store', () =>
    stays(
        `{ save: async () => { throw new Error('on purpose') } }`,
        `await factory.createLock('key').acquire().catch(() => {})`, 50_000, 30
    ))

test('200,000 locks on Redis', () =>
    stays(`new NativeStore('${redis.url}')`, bodies['acquired and released'], 50_000, 30))

test('200,000 calls that are refused since the store was closed', () =>
    stays(
        '(globalThis.store = new MemoryStore())', `
        globalThis.lock ??= factory.createLock('key')
        globalThis.closing ??= store.close()
        await closing
        await lock.acquire().catch(() => {})`, 50_000, 30
    ))

test('3,000 memory stores', () =>
    stays('new MemoryStore()', `
        const other = new LockFactory(new MemoryStore())
        await other.createLock('key').acquire()
    `, 3000, 100))

test('3,000 custom stores', () =>
    stays('new MemoryStore()', `
        const other = new LockFactory(mapStore(E_LOCK_NOT_OWNED))
        await other.createLock('key').acquire()
    `, 3000, 100))

test('a restored lock that is renewed stays so when nobody refers to it', async () => {
    const { code, stdout, stderr } = await runModule(`
        import { LockFactory } from 'libverrou'
        import { MemoryStore } from 'libverrou/drivers/memory'
        const factory = new LockFactory(new MemoryStore())
        const lock = factory.createLock('key', '2s')
        await lock.acquire()
        factory.restoreLock(lock.serialize(), { autoExtend: true })
        for (let i = 0; i < 10; i++) {
            global.gc()
            await new Promise((resolve) => setTimeout(resolve, 500))
        }
        console.log(await factory.createLock('key').isLocked())
    `, { args: ['--expose-gc'] })

    assert.deepEqual({ code, stdout, stderr }, { code: 0, stdout: 'true\n', stderr: '' })
})
