/* knex.spec.mjs - the store over Knex. */
import { DatabaseStore as OriginalDatabaseStore } from '@verrou/core/drivers/database'
import { KnexAdapter as OriginalKnexAdapter } from '@verrou/core/drivers/knex'
import knex from 'knex'
import { knexStore } from 'libverrou/drivers/knex'

import { registerSql } from './sql.mjs'

const CLIENTS = { postgres: 'pg', mysql: 'mysql2', sqlite: 'better-sqlite3' }

const settings = (dialect, connection, max = 10) => ({
    client: CLIENTS[dialect],
    connection,
    useNullAsDefault: true,
    pool: { min: 0, max: dialect === 'sqlite' ? 1 : max },
    acquireConnectionTimeout: 10_000,
    log: { warn() {} }, /* of servers that are dead on purpose */
})

await registerSql({
    name: 'knex',
    modes: { postgres: [{ name: ', as given', native: false, runs: 'given' }, { name: '', runs: 'native' }] },
    connect: (...wanted) => knex(settings(...wanted)),
    store: (connection, config) => knexStore({ connection, ...config }).factory(),
    original: (connection, config) => new OriginalDatabaseStore(new OriginalKnexAdapter(connection), config),
    transaction: (connection, callback) => connection.transaction(callback),
    query: async (connection, sql) => {
        const result = await connection.raw(sql)

        return connection.client.dialect === 'mysql' ? result[0] : (result.rows ?? result)
    },
    code: (dialect, connection) => `
        import knex from 'knex'
        import { knexStore } from 'libverrou/drivers/knex'
        const connection = knex(${JSON.stringify(settings(dialect, connection))})
        const store = knexStore({ connection }).factory()
        import { DatabaseStore } from '@verrou/core/drivers/database'
        import { KnexAdapter } from '@verrou/core/drivers/knex'
        const original = new DatabaseStore(new KnexAdapter(connection), { autoCreateTable: false })`,
})
