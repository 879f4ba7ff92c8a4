import type { Kysely } from 'kysely'

import type { DatabaseAdapter, KyselyOptions } from '../types.js'
import { DatabaseStore } from './database.js'

export declare function kyselyStore(config: KyselyOptions): {
    config: KyselyOptions
    factory: () => DatabaseStore
}

/**
 * Reaches the table through Kysely. In a `DatabaseStore` of this package its seven calls are used for databases other than PostgreSQL, MySQL,
 * MariaDB and SQLite, and by subclasses that replace one of them.
 */
export declare class KyselyAdapter implements DatabaseAdapter {
    #private
    constructor(connection: Kysely<any>)
    setTableName(tableName: string): void
    createTableIfNotExists(): Promise<void>
    insertLock(lock: { key: string; owner: string; expiration: number | null }): Promise<void>
    acquireLock(lock: { key: string; owner: string; expiration: number | null }): Promise<number>
    deleteLock(key: string, owner?: string): Promise<number | void>
    extendLock(key: string, owner: string, duration: number): Promise<number>
    getLock(key: string): Promise<{ owner: string; expiration: number | null } | undefined>
}
