/*
 * api.ts - what the declarations have to say; compiled, never run. Lines under "@ts-expect-error" have to be errors.
 */
import {
    E_LOCK_NOT_OWNED, E_LOCK_STORAGE_ERROR, Lock, LockFactory, NativeStore, Verrou, nativeStore,
} from 'libverrou'
import { MemoryStore, memoryStore } from 'libverrou/drivers/memory'
import { registerStoreTestSuite } from 'libverrou/test_suite'
import type {
    DatabaseAdapter, Duration, LockAcquireOptions, LockFactoryOptions, LockStore, Logger, ResolvedLockConfig, RetryConfig,
    SerializedLock, StoreFactory,
} from 'libverrou/types'
import type * as original from '@verrou/core/types'
import { test } from '@japa/runner'

type Equal<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false
const is = <T extends true>(): T => true as T

/* The types of the original, in both directions where they are equal. */
is<Equal<Duration, original.Duration>>()
is<Equal<LockStore, original.LockStore>>()
is<original.DatabaseAdapter extends DatabaseAdapter ? true : false>() /* its deleteLock() tells less */
is<Equal<RetryConfig, original.RetryConfig>>()
is<SerializedLock extends original.SerializedLock ? true : false>()
is<original.SerializedLock extends SerializedLock ? true : false>()
is<original.LockAcquireOptions extends LockAcquireOptions ? true : false>()
is<original.LockFactoryOptions extends LockFactoryOptions ? true : false>()
is<original.ResolvedLockConfig extends ResolvedLockConfig ? true : false>()
is<MemoryStore extends original.LockStore ? true : false>()
is<NativeStore extends original.LockStore ? true : false>()

/* Store names are inferred. */
const verrou = new Verrou({
    default: 'memory',
    stores: { memory: { driver: memoryStore() }, native: { driver: nativeStore('sqlite:locks.db') } },
})
const factory: LockFactory = verrou.use('native')
// @ts-expect-error there is no such store
verrou.use('redis')
// @ts-expect-error nor is it a default
new Verrou({ default: 'redis', stores: { memory: { driver: memoryStore() } } })
// @ts-expect-error a store has a driver
new Verrou({ default: 'memory', stores: { memory: memoryStore() } })
// @ts-expect-error stores are needed
new Verrou({ default: 'memory' })

/* run() tells the two outcomes apart, and infers the result. */
async function outcomes(lock: Lock) {
    const outcome = await lock.run(async () => 5)

    is<Equal<typeof outcome, [true, number] | [false, null]>>()
    if (outcome[0]) {
        const result: number = outcome[1]

        result.toFixed()
    } else {
        const nothing: null = outcome[1]

        void nothing
    }
    const [executed, result] = await lock.runImmediately(() => Promise.resolve('text'))

    if (executed) result.toUpperCase()
    else is<Equal<typeof result, null>>()
    await lock.run((held) => (held.lost.aborted ? null : held.fence), { signal: AbortSignal.timeout(5) })
    // @ts-expect-error a callback is needed
    await lock.run()
}

async function calls(lock: Lock) {
    is<Equal<Awaited<ReturnType<Lock['acquire']>>, boolean>>()
    is<Equal<ReturnType<Lock['getRemainingTime']>, number | null>>()
    is<Equal<ReturnType<Lock['getOwner']>, string>>()
    await lock.acquire({ retry: { attempts: 3, delay: '10ms', timeout: null }, signal: new AbortController().signal })
    // @ts-expect-error no such option
    await lock.acquire({ timeout: 5 })
    // @ts-expect-error a duration is no boolean
    await lock.extend(true)
    await lock.extend()
    const fence: number | null = lock.fence
    // @ts-expect-error it is read-only
    lock.fence = 5
    await using disposed = lock

    return [fence, disposed]
}

factory.createLock('key')
factory.createLock('key', '10s', { autoExtend: true, maxHold: '1h', label: 'job' })
factory.createLock('key', null)
// @ts-expect-error a key is a text
factory.createLock(5)
const restored: Lock = factory.restoreLock({ key: 'key', owner: 'owner', ttl: null, expirationTime: null })
// @ts-expect-error the owner is missing
factory.restoreLock({ key: 'key', ttl: null, expirationTime: null })

declare const logger: Logger
declare const config: ResolvedLockConfig
new Lock('key', new MemoryStore(), config, 'owner', 5000)
new Lock('key', new MemoryStore(), { retry: { attempts: 1, delay: 250 }, logger }, undefined, null)

/* A store of an application's, and the suite for it. */
class MyStore implements LockStore {
    async save(_key: string, _owner: string, _ttl: number | null) {
        return true
    }
    async delete(_key: string, _owner: string) {}
    async forceDelete(_key: string) {}
    async exists(_key: string) {
        return false
    }
    async extend(_key: string, _owner: string, _duration: number) {}
}
const mine: StoreFactory = { driver: { factory: () => new MyStore() } }
new Verrou({ default: 'mine', stores: { mine } })
new LockFactory(new MyStore(), { retry: { attempts: Number.POSITIVE_INFINITY }, logger })
registerStoreTestSuite({ test, createStore: () => new MyStore() })

/* Errors. */
const error = new E_LOCK_NOT_OWNED()
const text: string = error.code + E_LOCK_NOT_OWNED.message
const storage = new E_LOCK_STORAGE_ERROR([{ message: 'text' }], { cause: error })
const retriable: boolean | undefined = storage.retriable

/* Stores. */
async function stores(store: NativeStore) {
    const info = await store.inspect('key')

    if (info.locked) is<Equal<typeof info.remaining, number | null | undefined>>()
    // @ts-expect-error nobody holds a free key
    else info.owner
    const keys: string[] = (await store.list()).map(({ key }) => key)
    const caps: boolean = store.capabilities.push

    await store.close()
    return [keys, caps]
}

export { calls, outcomes, restored, retriable, stores, text }
