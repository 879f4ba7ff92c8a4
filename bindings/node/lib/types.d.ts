/**
 * The types of the package. Those without a remark are the ones of @verrou/core.
 */
import type { DynamoDBClient } from '@aws-sdk/client-dynamodb'
import type { Cluster, Redis } from 'ioredis'
import type { Knex } from 'knex'
import type { Kysely } from 'kysely'

/** Milliseconds, a text such as `"10s"` or `"2 minutes"`, or null for no expiration. */
export type Duration = number | string | null

/** The interface of a logger: pino's, as far as it is needed. */
export interface Logger {
    trace(msg: string): void
    trace(obj: unknown, msg?: string): void
    debug(msg: string): void
    debug(obj: unknown, msg?: string): void
    info(msg: string): void
    info(obj: unknown, msg?: string): void
    warn(msg: string): void
    warn(obj: unknown, msg?: string): void
    error(msg: string): void
    error(obj: unknown, msg?: string): void
    fatal(msg: string): void
    fatal(obj: unknown, msg?: string): void
    child(childObj: Record<string, unknown>): Logger
}

export type StoreFactory = {
    driver: {
        factory: () => LockStore
    }
}

/** What `Lock.serialize()` gives and `restoreLock()` takes. */
export interface SerializedLock {
    key: string
    owner: string
    ttl: number | null
    expirationTime: number | null
    /** The name of the store, if the lock is of a `Verrou`. Not in @verrou/core. */
    store?: string
    /** The fencing token of the lease. Not in @verrou/core. */
    fence?: number
}

export interface RetryConfig {
    /**
     * How often to ask: 1 or more.
     *
     * @default Number.POSITIVE_INFINITY
     */
    attempts?: number

    /**
     * The longest pause between two attempts, where the store cannot tell of a release.
     *
     * @default 250ms
     */
    delay?: Duration

    /**
     * The time limit of the whole call; 0 for none.
     *
     * @default undefined (none)
     */
    timeout?: Duration
}

export interface LockAcquireOptions {
    retry?: RetryConfig
    /** Cancels the wait: the call rejects with the signal's reason. Not in @verrou/core. */
    signal?: AbortSignal
}

export interface LockFactoryOptions {
    retry?: RetryConfig
    logger?: Logger
    /** How the store is called in serialised locks and events. Not in @verrou/core. */
    name?: string
}

/** What a single lock may be told beyond its ttl. Not in @verrou/core. */
export interface LockOptions {
    /** Once acquired, renew the lease every third of its ttl until it is released or lost. */
    autoExtend?: boolean
    /** With autoExtend: stop renewing after this long. */
    maxHold?: Duration
    /** Added to the owners that are drawn, for people who ask who holds a lock. */
    label?: string
}

export interface ResolvedLockConfig {
    retry: {
        attempts: number
        delay: number
        timeout?: number
    }
    logger: Logger
}

/** A store of an application's. */
export interface LockStore {
    /**
     * Take the key, unless somebody's lease is live.
     *
     * @param ttl milliseconds; null for a lease that never expires
     * @returns whether it was taken
     */
    save(key: string, owner: string, ttl: number | null): Promise<boolean>

    /** Free the key if this owner's lease is live; else throw an E_LOCK_NOT_OWNED. */
    delete(key: string, owner: string): Promise<void>

    /** Free the key, whoever holds it. */
    forceDelete(key: string): Promise<void>

    /** Is somebody's lease live? */
    exists(key: string): Promise<boolean>

    /** Let the live lease of this owner end `duration` milliseconds from now; else throw an E_LOCK_NOT_OWNED. */
    extend(key: string, owner: string, duration: number): Promise<void>
}

/** Who holds a lock. Not in @verrou/core. */
export type LockInfo =
    | { locked: false }
    | {
          locked: true
          /** Undefined if the store cannot tell. */
          owner: string | undefined
          /** Milliseconds; null for a lease that never expires; undefined if the store cannot tell. */
          remaining: number | null | undefined
          fence: number | null
      }

/** What a store can do, as far as it is known. Not in @verrou/core. */
export interface StoreCapabilities {
    serverClock: boolean
    fence: boolean
    fenceStored: boolean
    push: boolean
    list: boolean
    shared: boolean
    immediate: boolean
}

export interface DatabaseOptions {
    /** @default 'verrou' */
    tableName?: string

    /**
     * Create the table if it is not there.
     *
     * @default true
     */
    autoCreateTable?: boolean
}

/** Not in @verrou/core. */
export interface NativeOption {
    /**
     * Whether connections of the library's own are used underneath, to the server that the given connection leads to: `false` never, `true` always (where that
     * is not possible, requests fail and say why).
     *
     * @default undefined (where it is certain to be the same server)
     */
    native?: boolean
}

export interface KnexStoreOptions extends DatabaseOptions, NativeOption {
    connection: Knex
}

export interface KyselyOptions extends DatabaseOptions {
    connection: Kysely<any>
}

export type RedisStoreOptions = NativeOption & {
    connection: Redis | Cluster
}

export type DynamoDbOptions = {
    table: {
        name: string
    }
    connection: DynamoDBClient
}

/** How a DatabaseStore reaches its table. */
export interface DatabaseAdapter {
    setTableName(tableName: string): void
    createTableIfNotExists(): Promise<void>
    insertLock(lock: { key: string; owner: string; expiration: number | null }): Promise<void>

    /** Overwrite the row if it has expired. Returns the number of rows changed. */
    acquireLock(lock: { key: string; owner: string; expiration: number | null }): Promise<number>

    /**
     * Delete the row; with an owner, only if it is the row's. The number of rows deleted is wanted, since release() is certain with it; in
     * @verrou/core it is not asked for.
     */
    deleteLock(key: string, owner?: string): Promise<number | void>

    /** Let the row of this owner expire `duration` milliseconds from now. Returns the number of rows changed. */
    extendLock(key: string, owner: string, duration: number): Promise<number>
    getLock(key: string): Promise<{ owner: string; expiration: number | null } | undefined>
}
