/*
 * logger.test.mjs - the core's events in a logger with the interface of the original.
 */
import { E_LOCK_NOT_OWNED, LockFactory, Verrou } from 'libverrou'
import { MemoryStore, memoryStore } from 'libverrou/drivers/memory'
import assert from 'node:assert/strict'
import { test } from 'node:test'

import { mapStore, within } from './support.mjs'

function recorder(levels = ['trace', 'debug', 'info', 'warn', 'error', 'fatal']) {
    const records = []
    const children = []
    const logger = { children, records, child: (context) => (children.push(context), logger) }

    for (const level of levels) logger[level] = (object, text) => records.push({ level, ...object, text })
    return logger
}

test('the four texts of the original, with the key, before the call is over', async () => {
    const logger = recorder()
    const verrou = new Verrou({ default: 'memory', stores: { memory: { driver: memoryStore() } }, logger })
    const lock = verrou.createLock('key')

    await lock.acquire()
    assert.deepEqual(logger.records.map(({ level, key, text }) => ({ level, key, text })), [
        { level: 'debug', key: 'key', text: 'Lock acquired' },
    ])
    await lock.extend('10s')
    await lock.release()
    assert.deepEqual(logger.records.map(({ text }) => text), ['Lock acquired', 'Lock extended', 'Lock released'])
    assert.deepEqual(logger.records[0].value, lock.fence)
    assert.deepEqual(logger.children[0], { pkg: 'verrou' })
})

test('events of the core: refused, lost, failed', async () => {
    const logger = recorder()
    const store = mapStore(E_LOCK_NOT_OWNED)
    const factory = new LockFactory(store, { logger })
    const lock = factory.createLock('key', 300, { autoExtend: true })

    await lock.acquire()
    await factory.createLock('key').acquireImmediately()
    const lost = new Promise((resolve) => lock.lost.addEventListener('abort', () => resolve(true)))

    store.locks.clear()
    assert.deepEqual(await within(10_000, lost), { value: true })
    store.save = async () => {
        throw new Error('the disk is full')
    }
    await factory.createLock('other').acquire().catch(() => {})
    const events = logger.records.map(({ event }) => event)

    for (const event of ['lock.acquired', 'lock.not_acquired', 'lease.lost', 'call.failed'])
        assert.ok(events.includes(event), `${event} in ${events}`)
    assert.ok(logger.records.some(({ level, text }) => level === 'warn' && text.includes('the disk is full')))
    for (const record of logger.records)
        assert.ok(!JSON.stringify(record).includes(lock.getOwner().slice(0, 32)), 'the secret part of an owner')
})

test('a logger that says which levels it wants gets no others', async () => {
    const logger = { ...recorder(), isLevelEnabled: (level) => ['warn', 'error', 'fatal'].includes(level) }

    logger.child = () => logger
    const lock = new LockFactory(new MemoryStore(), { logger }).createLock('key')

    await lock.acquire()
    await lock.release()
    assert.deepEqual(logger.records, [])
})

test('a logger that throws, and one without methods, do no harm', async () => {
    const throwing = new Proxy({ child: () => throwing }, {
        get: (target, name) => target[name] ?? (() => { throw new Error(`logger.${String(name)}`) }),
    })

    for (const logger of [throwing, { child: () => ({}) }]) {
        const lock = new LockFactory(new MemoryStore(), { logger }).createLock('key')

        await lock.acquire()
        await lock.release()
    }
})

test('each logger of a store hears once, whenever it came', async () => {
    const store = new MemoryStore()
    const [one, two] = [recorder(), recorder()]
    const quiet = new LockFactory(store).createLock('quiet')

    await quiet.acquire()
    const lock = new LockFactory(store, { logger: one }).createLock('key')

    new LockFactory(store, { logger: one })
    await lock.acquire()
    new LockFactory(store, { logger: two })
    await lock.release()
    assert.deepEqual(one.records.map(({ event }) => event), ['lock.acquired', 'lock.released'])
    assert.deepEqual(two.records.map(({ event }) => event), ['lock.released'])
})

test('a logger that is given with each of many factories hears of an event once', async () => {
    const texts = []
    const child = () => ({ debug: (record, text) => texts.push(text), child })
    const logger = { child }
    const store = new MemoryStore()
    const factories = Array.from({ length: 10 }, () => new LockFactory(store, { logger }))

    await factories[0].createLock('key').acquire()
    assert.deepEqual(texts, ['Lock acquired'])
})
