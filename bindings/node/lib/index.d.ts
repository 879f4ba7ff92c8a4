import type {
    Duration,
    LockAcquireOptions,
    LockFactoryOptions,
    LockOptions,
    LockStore,
    Logger,
    ResolvedLockConfig,
    SerializedLock,
    StoreFactory,
} from './types.js'
import { Store } from './store.js'

/** What all error classes here are. */
interface LockException extends Error {
    code: string
    status: number
}
type ErrorClass<Made = LockException> = {
    new (args?: any, options?: ErrorOptions): Made
    readonly code: string
    readonly message: string
}
interface StorageException extends LockException {
    /** The store's own code, if it gave one. */
    storeCode?: string
    /** Whether trying again may help. */
    retriable?: boolean
}

/** Release or extend of a lock that this owner does not hold (any more). */
export declare const E_LOCK_NOT_OWNED: ErrorClass
/** The store failed or could not be reached. */
export declare const E_LOCK_STORAGE_ERROR: ErrorClass<StorageException>
/** The answer of the store was lost: the lock may or may not be held. Also an E_LOCK_STORAGE_ERROR. Not in @verrou/core. */
export declare const E_LOCK_UNKNOWN_OUTCOME: ErrorClass<StorageException>
/** The store was closed. Also an E_LOCK_STORAGE_ERROR. Not in @verrou/core. */
export declare const E_LOCK_STORE_CLOSED: ErrorClass<StorageException>
/** The reason of a `lost` signal. Not in @verrou/core. */
export declare const E_LOCK_LOST: ErrorClass
/** An address or a configuration is wrong. Not in @verrou/core. */
export declare const E_LOCK_CONFIG: ErrorClass
/** The store cannot do this. Not in @verrou/core. */
export declare const E_LOCK_NOT_SUPPORTED: ErrorClass
/** An argument is out of its range. Not in @verrou/core, which has the code. */
export declare const E_INVALID_ARGUMENTS: ErrorClass

export declare class Lock {
    #private
    constructor(
        key: string,
        lockStore: LockStore,
        config: ResolvedLockConfig,
        owner?: string,
        ttl?: number | null,
        expirationTime?: number | null,
        options?: LockOptions & { fence?: number }
    )

    /** The owner of the lease, or the one that the next acquisition will have. */
    getOwner(): string

    serialize(): SerializedLock

    /** The fencing token of the latest acquisition; null if none was made or the store has none. Not in @verrou/core. */
    get fence(): number | null

    /** Aborted when the lease at hand (or else the next one) is lost, or the store is closed. A release does not abort it. Not in @verrou/core. */
    get lost(): AbortSignal

    /** Take the lock, waiting for it. False when the attempts or the time are used up. */
    acquire(options?: LockAcquireOptions): Promise<boolean>

    /** Ask once. */
    acquireImmediately(): Promise<boolean>

    /** Acquire, call, release. The callback gets the lock, to look at its `fence` and `lost`. */
    run<T>(callback: (lock: Lock) => Promise<T> | T, options?: LockAcquireOptions): Promise<[true, T] | [false, null]>

    /** The same, asking once. */
    runImmediately<T>(callback: (lock: Lock) => Promise<T> | T): Promise<[true, T] | [false, null]>

    /** Free the key, whoever holds it. */
    forceRelease(): Promise<void>

    release(): Promise<void>

    /** Has the lease run out, or was it lost? */
    isExpired(): boolean

    /** Milliseconds; null without a lease or for one that never expires; 0 or less when it is over. */
    getRemainingTime(): number | null

    /** Let the lease end that long from now; without an argument, the lock's ttl. */
    extend(ttl?: Duration): Promise<void>

    /** Does anybody hold the key? */
    isLocked(): Promise<boolean>

    /** Releases if the lock is held. */
    [Symbol.asyncDispose](): Promise<void>
}

export declare class LockFactory {
    #private
    constructor(store: LockStore, options?: LockFactoryOptions)
    createLock(name: string, ttl?: Duration, options?: LockOptions): Lock
    restoreLock(lock: SerializedLock, options?: LockOptions): Lock
}

export declare class Verrou<KnownStores extends Record<string, StoreFactory>> {
    #private
    constructor(config: { default: keyof KnownStores; stores: KnownStores; logger?: Logger })

    /** The factory of a store; without a name, of the default one. */
    use<T extends keyof KnownStores>(store?: T): LockFactory

    createLock(name: string, ttl?: Duration, options?: LockOptions): Lock

    /** On the store that the serialised lock names, or else on the default one. */
    restoreLock(lock: SerializedLock, options?: LockOptions): Lock
}

/** A store by its address: `redis://...`, `sqlite:PATH`, `postgres://...`, `mysql://...`, `odbc:...`, `memory:`. Not in @verrou/core. */
export declare class NativeStore extends Store {
    constructor(url: string)
}
export declare function nativeStore(url: string): { factory: () => NativeStore }
