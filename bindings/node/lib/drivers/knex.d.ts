import type { Knex } from 'knex'

import type { DatabaseAdapter, KnexStoreOptions } from '../types.js'
import { DatabaseStore } from './database.js'

export declare function knexStore(config: KnexStoreOptions): {
    config: KnexStoreOptions
    factory: () => DatabaseStore
}

/**
 * Reaches the table through Knex. In a `DatabaseStore` of this package its seven calls are used for databases other than PostgreSQL, MySQL,
 * MariaDB and SQLite, and by subclasses that replace one of them.
 */
export declare class KnexAdapter implements DatabaseAdapter {
    #private
    constructor(connection: Knex)
    setTableName(tableName: string): void
    createTableIfNotExists(): Promise<void>
    insertLock(lock: { key: string; owner: string; expiration: number | null }): Promise<void>
    acquireLock(lock: { key: string; owner: string; expiration: number | null }): Promise<number>
    deleteLock(key: string, owner?: string): Promise<number | void>
    extendLock(key: string, owner: string, duration: number): Promise<number>
    getLock(key: string): Promise<{ owner: string; expiration: number | null } | undefined>
}
