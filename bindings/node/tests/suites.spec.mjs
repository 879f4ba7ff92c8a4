/*
 * suites.spec.mjs - the original's published suite over our stores with the original's LockFactory, and ours over ours and the original's.
 *
 * The original's memory store fails parts of ours; those are its wrong answers, and named here: should it pass them, our suite sees less
 * than it should.
 */
import { test } from '@japa/runner'
import * as original from '@verrou/core'
import { MemoryStore as OriginalMemoryStore } from '@verrou/core/drivers/memory'
import { RedisStore as OriginalRedisStore } from '@verrou/core/drivers/redis'
import { registerStoreTestSuite as registerOriginals } from '@verrou/core/test_suite'
import { Redis } from 'ioredis'
import { E_LOCK_NOT_OWNED, NativeStore } from 'libverrou'
import { MemoryStore } from 'libverrou/drivers/memory'
import { registerStoreTestSuite } from 'libverrou/test_suite'
import { randomUUID } from 'node:crypto'
import { join } from 'node:path'

import { folder, mapStore, startRedis } from './support.mjs'

const redis = await startRedis()
const connection = new Redis(redis.path)
const place = folder()

/* The original's suite uses the key "foo" again and again: each store has a prefix of its own. */
const ours = {
    memory: () => new MemoryStore(),
    'native redis': () => new NativeStore(`${redis.url}?prefix=${randomUUID()}:`),
    'native sqlite': () => new NativeStore(`sqlite:${join(place, 'locks.db')}?prefix=${randomUUID()}:`),
}

for (const [name, createStore] of Object.entries(ours)) {
    test.group(`the original's suite over our ${name} store`, () => registerOriginals({ test, createStore }))
    test.group(`our suite over our ${name} store`, () => registerStoreTestSuite({ test, createStore }))
}

test.group('our suite over a custom store', () => {
    registerStoreTestSuite({ test, createStore: () => mapStore(E_LOCK_NOT_OWNED) })
})

test.group('our suite over a custom store that throws the errors of the original', () => {
    registerStoreTestSuite({ test, createStore: () => mapStore(original.E_LOCK_NOT_OWNED) })
})

test.group('our suite over the redis store of the original', (group) => {
    group.teardown(() => connection.disconnect())
    registerStoreTestSuite({ test, createStore: () => new OriginalRedisStore({ connection }) })
})

/* Our suite, run outside of Japa: which tests fail? */
async function failuresOf(createStore) {
    const registered = new Map()
    const failed = []

    registerStoreTestSuite({ test: (title, body) => registered.set(title, body), createStore })
    await Promise.all([...registered].map(([title, body]) => body().catch(() => failed.push(title))))
    return { failed: failed.sort(), count: registered.size }
}

test('our suite finds the wrong answers of the memory store of the original', async ({ assert }) => {
    const { failed } = await failuresOf(() => new OriginalMemoryStore())

    assert.deepEqual(failed, [
        'a save() that overlaps a delete() never lets two owners in',
        'a second delete() throws E_LOCK_NOT_OWNED',
        'delete() of a free key throws E_LOCK_NOT_OWNED',
        'extend() does not revive an expired lease',
        'forceDelete() frees the key, whoever has it',
        'the owner of an expired lease cannot delete it',
        'the owner of an expired lease cannot delete the next owner\'s, who can',
    ])
}).timeout(30_000)
