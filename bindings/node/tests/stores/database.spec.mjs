/* database.spec.mjs - DatabaseStore over adapters of an application, and our adapters in the original's DatabaseStore. */
import { test } from '@japa/runner'
import { DatabaseStore as OriginalDatabaseStore } from '@verrou/core/drivers/database'
import { KnexAdapter as OriginalKnexAdapter } from '@verrou/core/drivers/knex'
import { registerStoreTestSuite as registerOriginals } from '@verrou/core/test_suite'
import Database from 'better-sqlite3'
import knex from 'knex'
import { Kysely, SqliteDialect } from 'kysely'
import { LockFactory } from 'libverrou'
import { DatabaseStore } from 'libverrou/drivers/database'
import { KnexAdapter, knexStore } from 'libverrou/drivers/knex'
import { KyselyAdapter } from 'libverrou/drivers/kysely'
import { registerStoreTestSuite } from 'libverrou/test_suite'
import { join } from 'node:path'

import { key, registerFencing, registerInterop, registerSuites, within } from './checks.mjs'
import { folder } from './servers.mjs'

/* An adapter as an application would write it, over a Map. */
class MapAdapter {
    rows = new Map()
    calls = []
    table

    setTableName(name) {
        this.table = name
    }

    async createTableIfNotExists() {
        this.calls.push('create')
    }

    async insertLock({ key, owner, expiration }) {
        if (this.rows.has(key)) throw new Error('there is one')
        this.rows.set(key, { owner, expiration })
    }

    async acquireLock({ key, owner, expiration }) {
        const row = this.rows.get(key)

        if (!row || row.expiration === null || row.expiration > Date.now()) return 0
        this.rows.set(key, { owner, expiration })
        return 1
    }

    async deleteLock(key, owner) {
        if (owner === undefined || this.rows.get(key)?.owner === owner) this.rows.delete(key)
    }

    async extendLock(key, owner, duration) {
        const row = this.rows.get(key)

        if (row?.owner !== owner) return 0
        row.expiration = Date.now() + duration
        return 1
    }

    async getLock(key) {
        return this.rows.get(key)
    }
}

const shared = new MapAdapter()
const custom = {
    name: 'a custom adapter',
    ours: () => new DatabaseStore(shared, {}),
    theirs: () => new OriginalDatabaseStore(shared, {}),
    clean: () => shared.rows.clear(),
}

registerSuites(custom, registerStoreTestSuite)
registerInterop(custom)

test.group('a custom adapter', () => {
    registerFencing(custom)

    test('the table has its name; nothing is made with autoCreateTable: false', async ({ assert }) => {
        const adapter = new MapAdapter()

        assert.isTrue(await new DatabaseStore(adapter, { tableName: 'mine', autoCreateTable: false }).save('a', 'o', 1000))
        assert.equal(adapter.table, 'mine')
        assert.deepEqual(adapter.calls, [])
        await new DatabaseStore(adapter, {}).forceDelete('a')
        assert.equal(adapter.table, 'verrou')
        assert.deepEqual(adapter.calls, ['create'])
    })

    test('V9: a failure of insertLock without a row is the caller\'s to hear, as it is', async ({ assert }) => {
        const adapter = new MapAdapter()
        const boom = Object.assign(new Error('column "ownr" does not exist'), { code: '42704', severity: 'ERROR' })

        adapter.insertLock = async () => {
            throw boom
        }
        for (const call of ['acquire', 'acquireImmediately']) {
            const lock = new LockFactory(new DatabaseStore(adapter, {})).createLock('a')
            const { error } = await within(20_000, lock[call]())

            assert.strictEqual(error, boom)
        }
        assert.isFalse(await new OriginalDatabaseStore(adapter, {}).save('a', 'o', 1000), 'the original takes it for contention')
    })

    test('V9: so is a dead connection', async ({ assert }) => {
        const adapter = new MapAdapter()
        const dead = Object.assign(new Error('read ECONNRESET'), { code: 'ECONNRESET' })

        for (const call of ['insertLock', 'acquireLock', 'getLock', 'deleteLock'])
            adapter[call] = async () => {
                throw dead
            }
        const { error } = await within(20_000, new LockFactory(new DatabaseStore(adapter, {})).createLock('a').acquireImmediately())

        assert.equal(error.code, 'E_LOCK_UNKNOWN_OUTCOME')
        assert.strictEqual(error.cause, dead)
    })

    test('an insert whose answer was lost is settled', async ({ assert }) => {
        const adapter = new MapAdapter()
        const insert = adapter.insertLock
        let lose = 1

        adapter.insertLock = async function lossy(lock) {
            await insert.call(this, lock)
            if (lose-- > 0) throw Object.assign(new Error('read ECONNRESET'), { code: 'ECONNRESET' })
        }
        const lock = new LockFactory(new DatabaseStore(adapter, {})).createLock('a')

        assert.isTrue(await lock.acquireImmediately())
        assert.equal(adapter.rows.get('a').owner, lock.getOwner())
        assert.isAbove(lock.fence, 0)
        await lock.release()
    })

    test('a clock that is set back is not waited for, and tokens grow', async ({ assert }) => {
        const lock = new LockFactory(new DatabaseStore(new MapAdapter(), {})).createLock('a', '10m')
        const { now } = Date
        const tokens = []

        try {
            for (const back of [0, 30_000, 30_000, 0]) {
                Date.now = () => now() - back
                assert.isTrue(await lock.acquireImmediately())
                tokens.push(lock.fence)
                await lock.forceRelease()
            }
        } finally {
            Date.now = now
        }
        for (let i = 1; i < tokens.length; i++) assert.isAbove(tokens[i], tokens[i - 1])
    })

    test('V14: a creation that failed is tried again', async ({ assert }) => {
        for (const call of ['acquireImmediately', 'forceRelease', 'isLocked']) {
            const adapter = new MapAdapter()
            const lock = new LockFactory(new DatabaseStore(adapter, {})).createLock('a')
            const boom = new Error('not now')

            adapter.createTableIfNotExists = async () => {
                throw boom
            }
            assert.strictEqual((await within(20_000, lock[call]())).error, boom)
            delete adapter.createTableIfNotExists
            await lock[call]()
            assert.deepEqual(adapter.calls, ['create'])
        }
    })

    test('V11: a row that goes between look and delete is not ours, if the adapter counts', async ({ assert }) => {
        const adapter = new MapAdapter()

        adapter.deleteLock = async () => 0
        const store = new DatabaseStore(adapter, {})

        await store.save('a', 'o', 60_000)
        await assert.rejects(() => store.delete('a', 'o'), /not acquired by you/)
    })

    test('V24: an expired lease is not extended', async ({ assert }) => {
        const adapter = new MapAdapter()
        const store = new DatabaseStore(adapter, {})

        adapter.rows.set('a', { owner: 'o', expiration: Date.now() - 1 })
        await assert.rejects(() => store.extend('a', 'o', 1000), /not acquired by you/)
        await assert.rejects(() => store.delete('a', 'o'), /not acquired by you/)
        await new OriginalDatabaseStore(adapter, {}).extend('a', 'o', 1000)
    })

    test('a subclass that replaces one of the five calls is called by it', async ({ assert }) => {
        const calls = []
        class Mine extends DatabaseStore {
            async save(...args) {
                calls.push(args[0])
                return super.save(...args)
            }
        }

        assert.isTrue(await new LockFactory(new Mine(new MapAdapter(), {})).createLock('a').acquireImmediately())
        assert.deepEqual(calls, ['a'])
    })
})

/* ---- our adapters by their seven calls ---- */

const file = join(folder(), 'locks.db')
const overKnex = knex({ client: 'better-sqlite3', connection: { filename: file }, useNullAsDefault: true })
const overKysely = new Kysely({ dialect: new SqliteDialect({ database: new Database(file) }) })

for (const [name, make] of [
    ['KnexAdapter', (Base = KnexAdapter) => new Base(overKnex)],
    ['KyselyAdapter', (Base = KyselyAdapter) => new Base(overKysely)],
])
    test.group(`our ${name} in the original's DatabaseStore`, (group) => {
        group.each.setup(async () => {
            await new DatabaseStore(make(), {}).exists('foo')
            await overKnex('verrou').delete()
        })
        registerOriginals({ test, createStore: () => new OriginalDatabaseStore(make(), {}) })
    })

test.group('our adapters', (group) => {
    group.teardown(() => Promise.all([overKnex.destroy(), overKysely.destroy()]))

    test('a subclass that replaces one of the seven calls is called by it', async ({ assert }) => {
        const calls = []
        class Mine extends KnexAdapter {
            async insertLock(lock) {
                calls.push(lock.key)
                return super.insertLock(lock)
            }
        }
        const name = key()
        const lock = new LockFactory(new DatabaseStore(new Mine(overKnex), { tableName: 'mine' })).createLock(name)

        assert.isTrue(await lock.acquireImmediately())
        assert.deepEqual(calls, [name])
        assert.isFalse(await new LockFactory(new DatabaseStore(new OriginalKnexAdapter(overKnex), { tableName: 'mine' }))
            .createLock(name).acquireImmediately())
        await lock.release()
        assert.lengthOf(await overKnex('mine'), 0)
    })

    test('a mocked connection is asked', async ({ assert }) => {
        const asked = []
        const mock = Object.assign((table) => mock.table(table), {
            table: (table) => ({ insert: async (row) => asked.push([table, row.key]) }),
            schema: { hasTable: async () => true },
        })

        assert.isTrue(await new LockFactory(knexStore({ connection: mock }).factory()).createLock('a').acquireImmediately())
        assert.deepEqual(asked, [['verrou', 'a']])
    })
})
