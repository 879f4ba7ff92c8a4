import type { DatabaseAdapter, DatabaseOptions } from '../types.js'
import { Store } from '../store.js'

/**
 * Locks in a table of a database, which the adapter reaches. An adapter whose `deleteLock()` answers the number of rows that it deleted makes
 * release() certain where it would have to guess otherwise.
 */
export declare class DatabaseStore extends Store {
    constructor(adapter: DatabaseAdapter, config: DatabaseOptions)
}
