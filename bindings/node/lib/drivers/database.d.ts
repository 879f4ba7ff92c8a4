import type { DatabaseAdapter, DatabaseOptions, NativeOption } from '../types.js'
import { ChosenStore } from '../store.js'

/**
 * Locks in a table of a database, which the adapter reaches. An adapter whose `deleteLock()` answers the number of rows that it deleted makes
 * release() certain where it would have to guess otherwise.
 */
export declare class DatabaseStore extends ChosenStore {
    constructor(adapter: DatabaseAdapter, config: DatabaseOptions & NativeOption)
}
