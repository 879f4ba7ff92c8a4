/*
 * workers.test.mjs - worker threads: each has an environment of the addon's of its own, which ends while the others go on.
 */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { join } from 'node:path'
import { test } from 'node:test'
import { Worker } from 'node:worker_threads'
import { LockFactory, NativeStore } from 'libverrou'

import { folder, runModule, startRedis } from './support.mjs'

const redis = await startRedis()
const place = folder()
const urls = {
    sqlite: `sqlite:${join(place, 'workers.db')}`,
    redis: `${redis.url}?prefix=workers:`,
}

function worker(body, workerData) {
    return new Worker(
        new URL(`data:text/javascript,${encodeURIComponent(`
            import { createRequire } from 'node:module'
            import { parentPort, workerData } from 'node:worker_threads'
            const { LockFactory, NativeStore, E_LOCK_NOT_OWNED, MemoryStore, mapStore } = await import(workerData.module)
            ${body}
        `)}`),
        { workerData: { ...workerData, module: new URL('exports_for_workers.mjs', import.meta.url).href } }
    )
}

for (const [name, url] of Object.entries(urls)) {
    test(`${name}: workers and the main thread exclude each other`, async () => {
        const counter = new Int32Array(new SharedArrayBuffer(8))
        const body = `
            const factory = new LockFactory(new NativeStore(workerData.url))
            const counter = workerData.counter
            for (let i = 0; i < 25; i++) {
                await factory.createLock('count').run(async () => {
                    if (Atomics.add(counter, 1, 1) !== 0) throw new Error('two inside')
                    const before = counter[0]
                    await new Promise(setImmediate)
                    counter[0] = before + 1
                    Atomics.sub(counter, 1, 1)
                })
            }
        `
        const workers = Array.from({ length: 3 }, () => worker(body, { url, counter }))
        const exits = workers.map((each) => once(each, 'exit'))
        const store = new NativeStore(url)
        const factory = new LockFactory(store)

        for (let i = 0; i < 25; i++) {
            await factory.createLock('count').run(async () => {
                assert.equal(Atomics.add(counter, 1, 1), 0)
                const before = counter[0]

                await new Promise(setImmediate)
                counter[0] = before + 1
                Atomics.sub(counter, 1, 1)
            })
        }
        assert.deepEqual(await Promise.all(exits), [[0], [0], [0]])
        assert.equal(counter[0], 100)
        await store.close()
    })
}

const waiting = (store) => `
    const factory = new LockFactory(${store})
    await factory.createLock('held', null).forceRelease()
    await factory.createLock('held', null).acquire()
    const kept = factory.createLock('kept', 600, { autoExtend: true })
    await kept.forceRelease()
    await kept.acquire()
    kept.lost
    for (let i = 0; i < 20; i++) factory.createLock('held').acquire()
    parentPort.postMessage('waiting')
`

for (const [name, store] of Object.entries({
    memory: 'new MemoryStore()',
    sqlite: 'new NativeStore(workerData.url)',
    custom: 'mapStore(E_LOCK_NOT_OWNED)',
    'never answering': '{ save: async (key) => key === "held" || new Promise(() => {}), forceDelete() {} }',
})) {
    test(`a worker is terminated while it waits on a ${name} store`, async () => {
        const body = name === 'never answering'
            ? `
                const factory = new LockFactory(${store})
                for (let i = 0; i < 20; i++) factory.createLock('never').acquire()
                parentPort.postMessage('waiting')
            `
            : waiting(store)

        for (let round = 0; round < 5; round++) {
            const each = worker(body, { url: urls.sqlite })

            await once(each, 'message')
            await each.terminate()
        }
    })

    test(`a worker ends by process.exit() while it waits on a ${name} store`, async () => {
        const each = worker(`
            ${name === 'never answering' ? '' : waiting(store)}
            process.exit(3)
        `, { url: urls.sqlite })
        const [code] = await once(each, 'exit')

        assert.equal(code, 3)
    })
}

test('the addon goes on when the only worker that loaded it has ended', async () => {
    const { code, stderr, stdout } = await runModule(`
        import { Worker } from 'node:worker_threads'
        import { once } from 'node:events'
        for (let round = 0; round < 5; round++) {
            const worker = new Worker(\`
                import('libverrou').then(async ({ LockFactory, NativeStore }) => {
                    const factory = new LockFactory(new NativeStore(${JSON.stringify(urls.redis)}))
                    const lock = factory.createLock('only', '1s', { autoExtend: true })
                    await lock.acquire()
                    factory.createLock('only').acquire()
                    setTimeout(() => process.exit(0), 50)
                })
            \`, { eval: true })
            await once(worker, 'exit')
        }
        await new Promise((resolve) => setTimeout(resolve, 1500))
        console.log('alive')
    `)

    assert.deepEqual({ code, stderr, stdout }, { code: 0, stderr: '', stdout: 'alive\n' })
})
