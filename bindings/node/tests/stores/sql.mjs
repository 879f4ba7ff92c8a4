/*
 * sql.mjs - the tests of the stores over Knex and Kysely, on PostgreSQL, MariaDB and SQLite. `kits` makes what they need of either:
 * connect(dialect, settings) a connection, store(connection, config) ours, original(connection, config) the original's, query(connection,
 * sql) the rows of a statement, code(dialect, settings) the text of a module that defines `connection` and `store`.
 */
import { test } from '@japa/runner'
import { LockFactory, nativeStore } from 'libverrou'
import { registerStoreTestSuite } from 'libverrou/test_suite'
import { join } from 'node:path'

import { key, registerDeadServer, registerFencing, registerInterop, registerSuites, within } from './checks.mjs'
import { folder, freePort, runModule, startMariadb, startPostgres, startProxy } from './servers.mjs'

const ORIGINALS_TABLE = {
    postgres: 'CREATE TABLE {t} (key varchar(255) PRIMARY KEY, owner varchar(255) NOT NULL, expiration bigint)',
    mysql: 'CREATE TABLE {t} (`key` varchar(255) NOT NULL PRIMARY KEY, owner varchar(255) NOT NULL, expiration bigint unsigned)',
    sqlite: 'CREATE TABLE {t} (key varchar(255) NOT NULL PRIMARY KEY, owner varchar(255) NOT NULL, expiration bigint)',
}

let tables = 0

async function servers() {
    const place = folder()

    return {
        postgres: await startPostgres(),
        mysql: await startMariadb(),
        sqlite: { connection: { filename: join(place, 'locks.db') }, url: `sqlite:${join(place, 'locks.db')}` },
    }
}

/* ---- what is the same in all three ---- */

function registerTable(of, dialect, connection) {
    const options = (tableName, more) => ({ tableName, ...more })
    const table = () => `table_${dialect}_${++tables}`
    const sql = (text) => of.query(connection, text)

    test('V14: a table that could not be made is made by a later call', async ({ assert }) => {
        const name = table()
        const store = of.store(connection, options(name, { autoCreateTable: false }))
        const outcome = await within(20_000, new LockFactory(store).createLock('a').acquireImmediately())

        assert.match(outcome.error.message, /no table/)
        await sql(ORIGINALS_TABLE[dialect].replace('{t}', name))
        assert.isTrue(await new LockFactory(store).createLock('a').acquireImmediately())
    })

    test('a table that is dropped is made again', async ({ assert }) => {
        const name = table()
        const factory = new LockFactory(of.store(connection, options(name)))

        assert.isTrue(await factory.createLock('a').acquireImmediately())
        await sql(`DROP TABLE ${name}`)
        assert.isTrue(await factory.createLock('a').acquire({ retry: { timeout: 10_000 } }))
    })

    test('twenty stores that make the table at once', async ({ assert }) => {
        const name = table()
        const stores = Array.from({ length: 20 }, () => of.store(connection, options(name)))
        const taken = await Promise.all(stores.map((store) => new LockFactory(store).createLock('a').acquireImmediately()))

        assert.lengthOf(taken.filter(Boolean), 1)
    })

    test('V25: a key that is too long is refused at once', async ({ assert }) => {
        const lock = new LockFactory(of.store(connection, {})).createLock('k'.repeat(300))

        for (const call of [() => lock.acquireImmediately(), () => lock.acquire()]) {
            const { error } = await within(20_000, call())

            assert.match(error.message, /(more|longer) than 255 bytes/)
        }
    })

    test('V25 control: the original takes it for contention', async ({ assert }) => {
        if (dialect === 'sqlite') return assert.isTrue(true) /* which has no limit */
        const store = of.original(connection, { tableName: 'verrou', autoCreateTable: false })

        assert.isFalse(await store.save('k'.repeat(300), 'a', 1000))
    })

    test('V9: a table without the columns is an error, not contention', async ({ assert }) => {
        const name = table()

        await sql(`CREATE TABLE ${name} (a int)`)
        const { error } = await within(20_000, new LockFactory(of.store(connection, options(name))).createLock('a').acquire())

        assert.match(error.message, /lacks the column key/)
        assert.isFalse(await of.original(connection, options(name, { autoCreateTable: false })).save('a', 'b', 1000).catch(() => false))
    })

    test('V11: release goes by the row that it has changed', async ({ assert }) => {
        const store = of.store(connection, {})
        const name = key()

        await store.save(name, 'a', 60_000)
        const answers = await Promise.allSettled(Array.from({ length: 8 }, () => store.delete(name, 'a')))

        assert.lengthOf(answers.filter(({ status }) => status === 'fulfilled'), 1)
        for (const { reason } of answers) if (reason) assert.equal(reason.code, 'E_LOCK_NOT_OWNED')
    })

    test('a table of the original is used as it is: rows go, tokens grow', async ({ assert }) => {
        const name = table()

        await sql(ORIGINALS_TABLE[dialect].replace('{t}', name))
        const factory = new LockFactory(of.store(connection, options(name)))
        let last = 0

        for (let turn = 0; turn < 5; turn++) {
            const lock = factory.createLock('a', turn === 3 ? null : 60_000)

            assert.isTrue(await lock.acquireImmediately())
            assert.isAbove(lock.fence, last)
            last = lock.fence
            assert.isFalse(await factory.createLock('a').acquireImmediately())
            await lock.extend('2m')
            assert.equal((await lock.isLocked()) && (await sql(`SELECT * FROM ${name}`)).length, 1)
            await lock.release()
        }
        assert.lengthOf(await sql(`SELECT * FROM ${name}`), 0)
    })

    test('old tombstones are pruned, others stay', async ({ assert }) => {
        const name = table()
        const store = of.store(connection, options(name))
        const hour = 3600 * 1_000_000
        const now = Date.now() * 1000

        await store.save('a', 'o', 1000)
        const column = dialect === 'mysql' ? '`key`' : 'key'

        for (const [row, fence] of [['old', now - 2 * hour], ['new', now - hour / 2]])
            await sql(`INSERT INTO ${name} (${column}, owner, expiration, fence) VALUES ('${row}', '', 0, ${fence})`)
        await store.forceDelete('a')
        for (let turn = 0; turn < 64; turn++) {
            await store.save('a', 'o', 60_000)
            await store.delete('a', 'o')
        }
        for (let look = 0; look < 500; look++) {
            const rows = (await sql(`SELECT ${column} AS name FROM ${name} ORDER BY ${column}`)).map((row) => String(row.name))

            if (rows.length === 2) return assert.deepEqual(rows, ['a', 'new'])
            await new Promise((resolve) => setTimeout(resolve, 20))
        }
        assert.fail('nothing was pruned')
    })

    test('keys are compared byte by byte', async ({ assert }) => {
        const factory = new LockFactory(of.store(connection, {}))
        const name = key()
        const keys = [name, name.toUpperCase(), `${name} `, `${name}é`, `${name}e`, `${name}e\u0301`, `${name}\u{1f512}`, `${name}'"\\?%$1`]

        for (const one of keys) assert.isTrue(await factory.createLock(one).acquireImmediately(), one)
        for (const one of keys) assert.isFalse(await factory.createLock(one).acquireImmediately(), one)
        for (const one of keys) await factory.createLock(one).forceRelease()
        for (const one of keys) assert.isFalse(await factory.createLock(one).isLocked(), one)
    })

    test('thirty that want one key get it in turn', async ({ assert }) => {
        const name = key()
        let inside = 0
        const one = async () => {
            const lock = new LockFactory(of.store(connection, {})).createLock(name, 60_000)

            await lock.acquire({ retry: { delay: 10 } })
            assert.equal(++inside, 1)
            await new Promise(setImmediate)
            inside--
            await lock.release()
        }

        await Promise.all(Array.from({ length: 30 }, one))
    })

    test('the store of an instance that was destroyed fails', async ({ assert }) => {
        const another = await of.connect(dialect, of.settings[dialect])
        const store = of.store(another, {})

        assert.isTrue(await store.save(key(), 'a', 1000))
        await another.destroy()
        const { error } = await within(20_000, store.save(key(), 'a', 1000))

        assert.instanceOf(error, Error)
    })
}

function registerTransactions(of, dialect, connection) {
    test('statements go beside a transaction of the application, and inside one that is given', async ({ assert }) => {
        const name = key()
        const outside = new LockFactory(of.store(connection, {})).createLock(name, 60_000)
        const rolledBack = new Error('rolled back')

        const { error } = await within(20_000, of.transaction(connection, async (transaction) => {
            assert.isTrue(await new LockFactory(of.store(transaction, {})).createLock(name).acquireImmediately())
            throw rolledBack
        }))

        assert.equal(error, rolledBack)
        assert.isFalse(await outside.isLocked())
        await within(20_000, of.transaction(connection, async () => {
            assert.isTrue(await outside.acquireImmediately())
            throw rolledBack
        }))
        assert.isTrue(await outside.isLocked())
    })

    test('a refusal does not end the transaction of the application', async ({ assert }) => {
        const name = key()

        await new LockFactory(of.store(connection, {})).createLock(name).acquireImmediately()
        await of.transaction(connection, async (transaction) => {
            assert.isFalse(await new LockFactory(of.store(transaction, {})).createLock(name).acquireImmediately())
            assert.isFalse(await new LockFactory(of.store(transaction, {})).createLock(key()).isLocked())
        })
    })
}

function registerNative(of, dialect, connection) {
    test('a native store and ours share the table', async ({ assert }) => {
        const native = new LockFactory(nativeStore(of.urls[dialect]).factory())
        const ours = new LockFactory(of.store(connection, {}))
        let last = 0

        for (const [first, second] of [[native, ours], [ours, native]]) {
            const name = `shared é ${dialect}`
            const a = first.createLock(name, 60_000)
            const b = second.createLock(name, 60_000)

            assert.isTrue(await a.acquireImmediately())
            assert.isAbove(a.fence, last)
            assert.isFalse(await b.acquireImmediately())
            await assert.rejects(() => second.restoreLock({ ...a.serialize(), owner: 'other' }).release(), /not acquired by you/)
            await second.restoreLock(a.serialize()).extend('1m')
            await second.restoreLock(a.serialize()).release()
            assert.isTrue(await b.acquireImmediately())
            assert.isAbove(b.fence, a.fence)
            last = b.fence
            await b.release()
        }
    })
}

/* ---- servers ---- */

function registerServer(of, dialect, connection) {
    test('V23: a process whose clock is ahead does not take a held lock', async ({ assert }) => {
        const lock = new LockFactory(of.store(connection, {})).createLock(key(), 30_000)
        const { key: name } = lock.serialize()

        await lock.acquire()
        const { stdout, stderr } = await runModule(`
            import { LockFactory } from 'libverrou'
            ${of.code(dialect, of.settings[dialect])}
            const far = Date.now() - ${Date.now()}
            const lock = new LockFactory(store).createLock(${JSON.stringify(name)})
            console.log(far > 30000, await lock.acquireImmediately(), await lock.isLocked(), await original.save('${name}', 'thief', 1000))
            await connection.destroy()`, { ahead: 60 })

        assert.equal(stdout, 'true false true true\n', stderr) /* the original takes it */
    })

    test('a lost answer is settled: the lock is held, or given up', async ({ assert }) => {
        const proxy = await startProxy(of.ports[dialect])
        const wrapped = await of.connect(dialect, { ...of.settings[dialect], port: proxy.port })
        const factory = new LockFactory(of.store(wrapped, { native: false }))
        const lock = factory.createLock(key(), 60_000)

        await factory.createLock(key()).isLocked()
        proxy.loseNext('INSERT')
        assert.isTrue(await lock.acquireImmediately())
        assert.equal(proxy.lost.count, 1)
        assert.isTrue(await new LockFactory(of.store(connection, {})).restoreLock(lock.serialize()).isLocked())
        proxy.loseNext('UPDATE')
        await lock.release()
        assert.equal(proxy.lost.count, 2)
        assert.isFalse(await lock.isLocked())
        await wrapped.destroy()
        proxy.stop()
    })

    test('V21: a server that hangs is an error in time', async ({ assert }) => {
        const proxy = await startProxy(of.ports[dialect])
        const wrapped = await of.connect(dialect, { ...of.settings[dialect], port: proxy.port })
        const lock = new LockFactory(of.store(wrapped, {})).createLock(key(), 60_000)

        assert.isFalse(await lock.isLocked())
        proxy.hang()
        const { error } = await within(20_000, lock.acquire({ retry: { timeout: 1000 } }))

        assert.equal(error.code, 'E_LOCK_UNKNOWN_OUTCOME')
        proxy.go()
        await wrapped.destroy().catch(() => {}) /* its connections are gone */
        proxy.stop()
    }).timeout(60_000)

    registerDeadServer('V9, V21', async () => {
        const dead = await of.connect(dialect, { ...of.settings[dialect], port: await freePort() })

        return { store: of.store(dead, {}), close: () => dead.destroy() }
    })
}

function registerExit(of, dialect) {
    test('a store, and locks that are held, keep no process alive', async ({ assert }) => {
        const { status, signal, stderr } = await runModule(`
            import { LockFactory } from 'libverrou'
            ${of.code(dialect, of.settings[dialect])}
            if (!(await new LockFactory(store).createLock('exit-${of.name}', 60000).acquireImmediately())) process.exit(3)
            await connection.destroy()`, { limit: 30_000 })

        assert.deepEqual({ status, signal }, { status: 0, signal: null }, stderr)
    })
}

/* ---- all ---- */

export async function registerSql(of) {
    const started = await servers()

    of.settings = Object.fromEntries(Object.entries(started).map(([dialect, { connection }]) => [dialect, connection]))
    of.ports = { postgres: started.postgres.port, mysql: started.mysql.port }
    of.urls = Object.fromEntries(Object.entries(started).map(([dialect, { url }]) => [dialect, url]))
    for (const dialect of Object.keys(started)) {
        for (const mode of of.modes?.[dialect] ?? [{ runs: 'given', name: '' }])
            await registerMode({ ...of, store: storesOf(of, mode) }, dialect, mode)
    }
}

/* The stores of a connection. Those that go native are made once for each configuration: only so many may. */
function storesOf(of, { native, runs }) {
    const made = new WeakMap()

    if (runs === 'given') return (connection, config) => of.store(connection, native === undefined ? config : { ...config, native })
    return (connection, config) => {
        const key = JSON.stringify(config)

        if (!made.has(connection)) made.set(connection, new Map())
        const stores = made.get(connection)

        if (!stores.has(key)) stores.set(key, of.store(connection, config))
        return stores.get(key)
    }
}

async function registerMode(of, dialect, { name, runs }) {
    const connection = await of.connect(dialect, of.settings[dialect])
    /* The original's suite relies on it that what is called first comes first: no two connections, then. */
    const single = await of.connect(dialect, of.settings[dialect], 1)
    const kit = {
        name: `${of.name} on ${dialect}${name}`,
        ours: () => of.store(connection, {}),
        theirs: () => of.original(connection, {}),
        clean: async () => {
            await of.store(connection, {}).exists('foo')
            await of.query(connection, 'DELETE FROM verrou')
        },
    }

    await kit.clean()
    registerSuites({ ...kit, ours: () => of.store(single, {}) }, registerStoreTestSuite)
    registerInterop(kit)
    test.group(`${kit.name}`, (group) => {
        group.teardown(() => Promise.all([connection.destroy(), single.destroy()]))
        registerFencing(kit)
        test('which connection is used', async ({ assert }) => {
            const store = of.store(connection, {})

            await store.exists(key())
            assert.equal(store.connectionUsed, runs, store.whyGiven)
            assert.match(store.address, runs === 'native' ? /^postgres:/ : /^nodejs:/)
        })
        registerTable(of, dialect, connection)
        registerNative(of, dialect, connection)
        if (dialect !== 'sqlite') {
            registerTransactions(of, dialect, connection)
            registerServer(of, dialect, connection)
        }
        registerExit(of, dialect)
    })
}
