/*
 * database.js - locks in a table of a database, which an adapter reaches. Ours for Knex and Kysely have statements of their own for the
 * databases they know; any other adapter is asked by its seven calls.
 */
import { AdapterBackend } from '../internal/adapter_backend.js'
import { SqlBackend } from '../internal/sql_backend.js'
import { sqlConnection } from '../internal/sql_connection.js'
import { BackendStore } from '../internal/store.js'

export class DatabaseStore extends BackendStore {
    constructor(adapter, config = {}) {
        const connection = sqlConnection(adapter)
        const backend = connection ? new SqlBackend(connection, config) : new AdapterBackend(adapter, config)

        super(backend, { caps: backend.caps })
    }
}
