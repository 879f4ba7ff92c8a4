/*
 * exit.test.mjs - when a process ends: a pending acquire keeps it alive, nothing else does, and an end in the middle of things is clean. Each
 * test is a process of its own.
 */
import assert from 'node:assert/strict'
import { join } from 'node:path'
import { test } from 'node:test'

import { folder, runModule, startRedis } from './support.mjs'

const redis = await startRedis()
const place = folder()
const stores = {
    memory: `new MemoryStore()`,
    sqlite: `new NativeStore(${JSON.stringify(`sqlite:${join(place, 'exit.db')}`)})`,
    redis: `new NativeStore(${JSON.stringify(`${redis.url}?prefix=exit:`)})`,
    custom: `mapStore(E_LOCK_NOT_OWNED)`,
}

const program = (store, body) => `
    import { E_LOCK_NOT_OWNED, LockFactory, NativeStore } from 'libverrou'
    import { MemoryStore } from 'libverrou/drivers/memory'
    import { mapStore } from './support.mjs'
    const store = ${store}
    const factory = new LockFactory(store)
    const free = async (key) => { await factory.createLock(key).forceRelease() }
    ${body}
`

async function ends(store, body, { code = 0, stdout = '' } = {}) {
    const result = await runModule(program(store, body), { limit: 30_000 })

    assert.deepEqual(
        { code: result.code, signal: result.signal, stdout: result.stdout, stderr: result.stderr },
        { code, signal: null, stdout, stderr: '' }
    )
}

for (const [name, store] of Object.entries(stores)) {
    test(`${name}: a held lock and an open store do not keep the process`, () =>
        ends(store, `
            await free('held')
            await factory.createLock('held', '1 hour').acquire()
        `))

    test(`${name}: a lock that is renewed does not keep the process, nor does listening for its loss`, () =>
        ends(store, `
            await free('renewed')
            const lock = factory.createLock('renewed', '1s', { autoExtend: true })
            await lock.acquire()
            lock.lost.addEventListener('abort', () => console.log('lost'))
        `))

    test(`${name}: a pending acquire keeps the process until it is answered`, () =>
        ends(store, `
            await free('waited')
            await factory.createLock('waited', 700).acquire()
            factory.createLock('waited').acquire().then(async (acquired) => {
                console.log('answered', acquired)
                await free('waited')
            })
        `, { stdout: 'answered true\n' }))

    test(`${name}: a pending acquire with a time limit keeps the process so long`, () =>
        ends(store, `
            await free('limited')
            await factory.createLock('limited').acquire()
            factory.createLock('limited').acquire({ retry: { timeout: 300 } }).then((acquired) => {
                console.log('answered', acquired)
            })
        `, { stdout: 'answered false\n' }))

    test(`${name}: process.exit() with pending waits`, () =>
        ends(store, `
            await free('exit')
            await factory.createLock('exit').acquire()
            for (let i = 0; i < 50; i++) factory.createLock('exit').acquire().then(() => console.log('never'))
            await new Promise((resolve) => setTimeout(resolve, 100))
            process.exit(7)
        `, { code: 7 }))

    test(`${name}: an uncaught error with pending waits`, async () => {
        const result = await runModule(program(store, `
            await free('throw')
            await factory.createLock('throw').acquire()
            for (let i = 0; i < 50; i++) factory.createLock('throw').acquire()
            setTimeout(() => { throw new Error('on purpose') }, 100)
        `), { limit: 30_000 })

        assert.equal(result.code, 1)
        assert.match(result.stderr, /on purpose/)
    })

    test(`${name}: close() ends pending waits`, () =>
        ends(store, `
            await free('close')
            await factory.createLock('close').acquire()
            const waiting = factory.createLock('close').acquire().catch((error) => console.log(error.code ?? error))
            ${name === 'custom' ? `await free('close')` : `await store.close()`}
            await waiting
        `, { stdout: name === 'custom' ? '' : 'E_LOCK_STORE_CLOSED\n' }))
}

test('a custom store that never answers does not keep the process for longer than its time limit', () =>
    ends('{ save: () => new Promise(() => {}) }', `
        factory.createLock('key').acquire().catch((error) => console.log(error.code))
    `, { stdout: 'E_LOCK_UNKNOWN_OUTCOME\n' }))
