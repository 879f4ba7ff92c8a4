import type { LockInfo, LockStore, StoreCapabilities } from './types.js'

/** What all store classes of this package can do beside the five calls of a LockStore. Not in @verrou/core. */
export declare abstract class Store implements LockStore {
    #private
    save(key: string, owner: string, ttl: number | null): Promise<boolean>
    delete(key: string, owner: string): Promise<void>
    forceDelete(key: string): Promise<void>
    exists(key: string): Promise<boolean>
    extend(key: string, owner: string, duration: number): Promise<void>

    /** Who holds a key. */
    inspect(key: string): Promise<LockInfo>

    /** The live locks whose keys begin with `prefix`. */
    list(prefix?: string): Promise<({ key: string } & Extract<LockInfo, { locked: true }>)[]>

    /** Some of it is known only after the first connection. */
    get capabilities(): StoreCapabilities

    /** The address that is used, without passwords. */
    get address(): string

    /** Pending calls end with E_LOCK_STORE_CLOSED; locks are not released, and their `lost` signals are aborted. */
    close(): Promise<void>
    [Symbol.asyncDispose](): Promise<void>
}

/**
 * A store over a connection of the application's, which may use connections of the library's own to the same server instead. The first request
 * finds out. Not in @verrou/core.
 */
export declare abstract class ChosenStore extends Store {
    /** Which one the requests go through; undefined until a request has found out. */
    get connectionUsed(): 'native' | 'given' | undefined

    /** Why it is the given one; undefined if it is not. */
    get whyGiven(): string | undefined
}
