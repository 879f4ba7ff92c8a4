/*
 * kysely.js - locks in a table that is reached through a Kysely instance of the application's. On PostgreSQL, MySQL, MariaDB and SQLite the
 * statements are those of the native stores (internal/sql_backend.js); the adapter's seven calls serve the other databases, and who calls them.
 *
 * Statements run outside of transactions, on connections of the instance's driver, unless the instance is a transaction.
 */
import { CompiledQuery, MysqlAdapter, PostgresAdapter, sql, SqliteAdapter } from 'kysely'

import { offersConnection } from '../internal/sql_connection.js'
import { DatabaseStore } from './database.js'

const DIALECTS = [[PostgresAdapter, 'postgres'], [MysqlAdapter, 'mysql'], [SqliteAdapter, 'sqlite']]

/* The classes may be those of another copy of the package than ours: then their names tell. */
function dialectOf(adapter) {
    for (let at = adapter; at; at = Object.getPrototypeOf(at)) {
        const found = DIALECTS.find(([Class]) => at instanceof Class || at.constructor?.name === Class.name)

        if (found) return found[1]
    }
    return undefined
}

function connectionOf(kysely) {
    const dialect = dialectOf(kysely?.getExecutor?.().adapter)

    if (!dialect) return undefined
    return {
        dialect,
        numbered: dialect === 'postgres',
        quote: (name) => sql`${sql.table(name)}`.compile(kysely).sql,
        run: async (text, values) => {
            const { rows, numAffectedRows, insertId } = await kysely.executeQuery(CompiledQuery.raw(text, values))
            const counted = dialect !== 'sqlite' && numAffectedRows !== undefined

            return { rows, count: counted ? Number(numAffectedRows) : undefined, insertId: Number(insertId ?? 0) }
        },
    }
}

export class KyselyAdapter {
    #connection
    #tableName = 'verrou'

    constructor(connection) {
        this.#connection = connection
    }

    static {
        offersConnection(this, (adapter) => connectionOf(adapter.#connection))
    }

    setTableName(tableName) {
        this.#tableName = tableName
    }

    async createTableIfNotExists() {
        await this.#connection.schema
            .createTable(this.#tableName)
            .ifNotExists()
            .addColumn('key', 'varchar(255)', (column) => column.primaryKey().notNull())
            .addColumn('owner', 'varchar(255)', (column) => column.notNull())
            .addColumn('expiration', 'bigint')
            .execute()
    }

    async insertLock({ key, owner, expiration }) {
        await this.#connection.insertInto(this.#tableName).values({ key, owner, expiration }).execute()
    }

    async acquireLock({ key, owner, expiration }) {
        const { numUpdatedRows } = await this.#connection
            .updateTable(this.#tableName)
            .set({ owner, expiration })
            .where('key', '=', key)
            .where('expiration', '<=', Date.now())
            .executeTakeFirst()

        return Number(numUpdatedRows)
    }

    async deleteLock(key, owner) {
        const rows = this.#connection.deleteFrom(this.#tableName).where('key', '=', key)
        const { numDeletedRows } = await (owner === undefined ? rows : rows.where('owner', '=', owner)).executeTakeFirst()

        return Number(numDeletedRows)
    }

    async extendLock(key, owner, duration) {
        const { numUpdatedRows } = await this.#connection
            .updateTable(this.#tableName)
            .set({ expiration: Date.now() + duration })
            .where('key', '=', key)
            .where('owner', '=', owner)
            .executeTakeFirst()

        return Number(numUpdatedRows)
    }

    async getLock(key) {
        return this.#connection
            .selectFrom(this.#tableName)
            .select(['owner', 'expiration'])
            .where('key', '=', key)
            .executeTakeFirst()
    }
}

export function kyselyStore(config) {
    return { config, factory: () => new DatabaseStore(new KyselyAdapter(config.connection), config) }
}
