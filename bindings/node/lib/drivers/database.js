/*
 * database.js - locks in a table of a database, which an adapter reaches. Ours for Knex and Kysely have statements of their own for the
 * databases they know; any other adapter is asked by its seven calls. Where Knex reaches PostgreSQL, connections of our own may be used underneath
 * (internal/chosen_store.js).
 */
import { AdapterBackend } from '../internal/adapter_backend.js'
import { ChosenStore } from '../internal/chosen_store.js'
import { SqlBackend } from '../internal/sql_backend.js'
import { sqlConnection } from '../internal/sql_connection.js'

export class DatabaseStore extends ChosenStore {
    constructor(adapter, config = {}) {
        const connection = sqlConnection(adapter)
        const backend = connection ? new SqlBackend(connection, config) : new AdapterBackend(adapter, config)
        const address = () => connection?.address?.(config) ?? { why: 'the adapter does not tell where its connection leads' }

        super(backend, { caps: backend.caps }, { connection: connection?.instance, wanted: config.native, address, watch: connection?.watch })
    }
}
