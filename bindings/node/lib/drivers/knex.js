/*
 * knex.js - locks in a table that is reached through a Knex instance of the application's. On PostgreSQL, MySQL, MariaDB and SQLite the statements
 * are those of the native stores (internal/sql_backend.js); the adapter's seven calls serve the other databases, and who calls them.
 *
 * Statements run outside of transactions, on connections of the instance's pool, unless the instance is a transaction; or, on PostgreSQL,
 * where the instance leads to the server that its settings say, on connections of our own (internal/chosen_store.js).
 */
import { knexAddress } from '../internal/knex_address.js'
import { offersConnection } from '../internal/sql_connection.js'
import { DatabaseStore } from './database.js'

/* Knex's names of the databases that have statements of ours. */
const DIALECTS = { postgresql: 'postgres', mysql: 'mysql', sqlite3: 'sqlite' }

const result = {
    postgres: ({ rows, rowCount }) => ({ rows, count: rowCount ?? undefined }),
    mysql: ([rows]) => (Array.isArray(rows) ? { rows } : { rows: [], count: rows.affectedRows, insertId: Number(rows.insertId) }),
    sqlite: (rows) => ({ rows: Array.isArray(rows) ? rows : [] }),
}

function connectionOf(knex) {
    const dialect = DIALECTS[knex?.client?.dialect]

    if (!dialect || typeof knex.raw !== 'function') return undefined
    return {
        dialect,
        numbered: false,
        quote: (name) => knex.raw('??', [name]).toQuery(),
        run: async (sql, values) => result[dialect](await knex.raw(sql, values)),
        instance: knex,
        address: (config) => knexAddress(knex, config),
        watch: (left) => watch(knex.client.pool, left),
    }
}

/* `left(why)` when the application has destroyed the instance. While it does, requests there would wait for connections that never come. */
function watch(pool, left) {
    const destroyed = () => left('the connection was destroyed')

    pool?.on?.('poolDestroySuccess', destroyed)
    return () => pool?.removeListener?.('poolDestroySuccess', destroyed)
}

export class KnexAdapter {
    #connection
    #tableName = 'verrou'

    constructor(connection) {
        this.#connection = connection
    }

    static {
        offersConnection(this, (adapter) => connectionOf(adapter.#connection))
    }

    #table() {
        return this.#connection.table(this.#tableName)
    }

    setTableName(tableName) {
        this.#tableName = tableName
    }

    async createTableIfNotExists() {
        const { schema } = this.#connection

        if (await schema.hasTable(this.#tableName)) return
        try {
            await this.#connection.schema.createTable(this.#tableName, (table) => {
                table.string('key', 255).notNullable().primary()
                table.string('owner', 255).notNullable()
                table.bigInteger('expiration').nullable()
            })
        } catch (error) {
            if (!(await this.#connection.schema.hasTable(this.#tableName))) throw error
        }
    }

    async insertLock({ key, owner, expiration }) {
        await this.#table().insert({ key, owner, expiration })
    }

    async acquireLock({ key, owner, expiration }) {
        return this.#table().where('key', key).where('expiration', '<=', Date.now()).update({ owner, expiration })
    }

    async deleteLock(key, owner) {
        const rows = this.#table().where('key', key)

        return (owner === undefined ? rows : rows.where('owner', owner)).delete()
    }

    async extendLock(key, owner, duration) {
        return this.#table().where({ key, owner }).update({ expiration: Date.now() + duration })
    }

    async getLock(key) {
        return this.#table().where('key', key).first('owner', 'expiration')
    }
}

export function knexStore(config) {
    return { config, factory: () => new DatabaseStore(new KnexAdapter(config.connection), config) }
}
