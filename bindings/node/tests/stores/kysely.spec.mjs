/* kysely.spec.mjs - the store over Kysely. */
import { DatabaseStore as OriginalDatabaseStore } from '@verrou/core/drivers/database'
import { KyselyAdapter as OriginalKyselyAdapter } from '@verrou/core/drivers/kysely'
import Database from 'better-sqlite3'
import { CompiledQuery, Kysely, MysqlDialect, PostgresDialect, SqliteDialect } from 'kysely'
import { kyselyStore } from 'libverrou/drivers/kysely'
import mysql from 'mysql2'
import pg from 'pg'

import { registerSql } from './sql.mjs'

const dialects = {
    postgres: (connection, max) => {
        const pool = new pg.Pool({ ...connection, max })

        /* Of connections that were lost on purpose: a Pool leaves it to its user to hear of those that are in use. */
        pool.on('error', () => {})
        pool.on('connect', (client) => client.on('error', () => {}))
        return new PostgresDialect({ pool })
    },
    mysql: (connection, connectionLimit) => new MysqlDialect({ pool: mysql.createPool({ ...connection, connectionLimit }) }),
    sqlite: ({ filename }) => new SqliteDialect({ database: new Database(filename) }),
}

const CODE = {
    postgres: (settings) => `
        import pg from 'pg'
        import { Kysely, PostgresDialect as Dialect } from 'kysely'
        const dialect = new Dialect({ pool: new pg.Pool(${settings}) })`,
    mysql: (settings) => `
        import mysql from 'mysql2'
        import { Kysely, MysqlDialect as Dialect } from 'kysely'
        const dialect = new Dialect({ pool: mysql.createPool(${settings}) })`,
    sqlite: (settings) => `
        import Database from 'better-sqlite3'
        import { Kysely, SqliteDialect as Dialect } from 'kysely'
        const dialect = new Dialect({ database: new Database(${settings}.filename) })`,
}

await registerSql({
    name: 'kysely',
    connect: (dialect, connection, max = 10) => new Kysely({ dialect: dialects[dialect](connection, max) }),
    store: (connection, config) => kyselyStore({ connection, ...config }).factory(),
    original: (connection, config) => new OriginalDatabaseStore(new OriginalKyselyAdapter(connection), config),
    transaction: (connection, callback) => connection.transaction().execute(callback),
    query: async (connection, sql) => (await connection.executeQuery(CompiledQuery.raw(sql))).rows,
    code: (dialect, connection) => `${CODE[dialect](JSON.stringify(connection))}
        import { kyselyStore } from 'libverrou/drivers/kysely'
        const connection = new Kysely({ dialect })
        const store = kyselyStore({ connection }).factory()
        import { DatabaseStore } from '@verrou/core/drivers/database'
        import { KyselyAdapter } from '@verrou/core/drivers/kysely'
        const original = new DatabaseStore(new KyselyAdapter(connection), { autoCreateTable: false })`,
})
