/* native.spec.mjs - which connection a store over a given one uses: what decides it, its proof, and what happens when the application ends it. */
import { test } from '@japa/runner'
import * as original from '@verrou/core'
import { RedisStore as OriginalRedisStore } from '@verrou/core/drivers/redis'
import { EventEmitter } from 'node:events'
import { createServer } from 'node:net'
import { Cluster, Redis } from 'ioredis'
import knex from 'knex'
import PgClient from 'knex/lib/dialects/postgres/index.js'
import { LockFactory, Verrou } from 'libverrou'
import { memoryStore } from 'libverrou/drivers/memory'
import { DatabaseStore } from 'libverrou/drivers/database'
import { KnexAdapter, knexStore } from 'libverrou/drivers/knex'
import { kyselyStore } from 'libverrou/drivers/kysely'
import { RedisStore, redisStore } from 'libverrou/drivers/redis'
import { Kysely, PostgresDialect } from 'kysely'
import pg from 'pg'

import { key, within } from './checks.mjs'
import { freePort, runModule, startPostgres, startRedis } from './servers.mjs'

const server = await startRedis()
const other = await startRedis()
const postgres = await startPostgres()
const otherPostgres = await startPostgres()
const quiet = (connection) => connection.on('error', () => {})
const lazy = (options) => quiet(new Redis({ lazyConnect: true, ...options }))
const opened = []
const kept = (connection) => {
    opened.push(connection)
    return connection
}
const redisTo = (options) => kept(quiet(new Redis(server.port, '127.0.0.1', options)))
const pgTo = (more, connection) => kept(knex({ client: 'pg', connection: { ...postgres.connection, ...connection }, log: { warn() {} }, ...more }))

class Mine extends Redis {}

/* ---- what the connection says ---- */

const replacing = (object, name, value) => Object.assign(object, { [name]: value })

const REDIS_REASONS = {
    'no connection of ioredis': [() => ({ eval() {}, set() {} }), /not of the class Redis/],
    'an emitter with the same calls': [() => Object.assign(new EventEmitter(), { options: {}, status: 'ready', eval() {}, evalsha() {} }), /not of the class Redis/],
    'a Proxy': [() => new Proxy(lazy(), {}), /Proxy/],
    'a cluster': [() => quiet(new Cluster([{ host: '127.0.0.1', port: 1 }], { lazyConnect: true })), /cluster/],
    'a subclass': [() => quiet(new Mine({ lazyConnect: true })), /not of the class Redis/],
    'Sentinel': [() => lazy({ sentinels: [{ host: '127.0.0.1', port: 1 }], name: 'main' }), /sentinels/],
    'TLS': [() => lazy({ tls: {} }), /tls/],
    'rediss:': [() => quiet(new Redis('rediss://127.0.0.1', { lazyConnect: true })), /tls/],
    'natMap': [() => lazy({ natMap: {} }), /natMap/],
    'readOnly': [() => lazy({ readOnly: true }), /readOnly/],
    'Connector': [() => lazy({ Connector: class { connect() {} disconnect() {} } }), /onnector/],
    'an unknown option': [() => lazy({ somethingNew: 1 }), /somethingNew/],
    'an unknown setting of the address': [() => quiet(new Redis('redis://127.0.0.1/1?colour=red', { lazyConnect: true })), /colour/],
    'a family for a name': [() => lazy({ host: 'localhost', family: 4 }), /family/],
    'no port': [() => lazy({ port: 0 }), /port/],
    'a host that is no name': [() => lazy({ host: 'a,b' }), /host/],
    'a relative path': [() => lazy({ path: 'redis.sock' }), /path/],
    'a username without a password': [() => lazy({ username: 'me' }), /password/],
    'a password that is no text': [() => lazy({ password: 17 }), /password/],
    'a prefix of bytes': [() => lazy({ keyPrefix: Buffer.from('a') }), /keyPrefix/],
    'no database': [() => lazy({ db: 'x' }), /db/],
    'evalsha of its own': [() => replacing(lazy(), 'evalsha', () => {}), /evalsha/],
    'sendCommand of its own': [() => replacing(lazy(), 'sendCommand', () => {}), /sendCommand/],
    'a command that was defined as eval': [() => lazy({ scripts: { eval: { lua: 'return 1', numberOfKeys: 0 } } }), /eval/],
    'status that is computed': [() => Object.defineProperty(lazy(), 'status', { get: () => 'ready' }), /status/],
    'a connector of its own': [() => replacing(lazy(), 'connector', {}), /connector/],
    'native: false': [() => lazy(), /native: false/, { native: false }],
}

const PG_REASONS = {
    'SQLite': [() => knex({ client: 'better-sqlite3', connection: { filename: ':memory:' }, useNullAsDefault: true }), /client/],
    'MySQL': [() => knex({ client: 'mysql2', connection: { host: '127.0.0.1', port: 1 } }), /client/],
    'a client of its own': [() => pgTo({ client: class extends PgClient {} }), /client/],
    'a function': [() => pgTo({ connection: () => postgres.connection }), /function/],
    'a transaction': [() => pgTo().transaction(), /transaction/],
    'a Proxy': [() => new Proxy(pgTo(), {}), /Proxy/],
    'ssl': [() => pgTo({}, { ssl: true }), /ssl/],
    'ssl in the address': [() => knex({ client: 'pg', connection: `${postgres.url}?sslmode=require` }), /ssl/],
    'searchPath': [() => pgTo({ searchPath: ['a'] }), /searchPath/],
    'wrapIdentifier': [() => pgTo({ wrapIdentifier: (name, quote) => quote(name) }), /wrapIdentifier/],
    'postProcessResponse': [() => pgTo({ postProcessResponse: (rows) => rows }), /postProcessResponse/],
    'afterCreate': [() => pgTo({ pool: { min: 0, max: 1, afterCreate: (connection, done) => done() } }), /afterCreate/],
    'a pool of pg': [() => knex({ client: 'pg', connectionPool: new pg.Pool(postgres.connection) }), /connectionPool/],
    'options': [() => pgTo({}, { options: '-c search_path=a' }), /options/],
    'a stream': [() => pgTo({}, { stream: () => {} }), /stream/],
    'a connection string': [() => pgTo({ connection: { connectionString: postgres.url } }), /connectionString/],
    'no host': [() => pgTo({}, { host: undefined }), /host/],
    'no user': [() => pgTo({}, { user: undefined }), /user/],
    'no database': [() => pgTo({}, { database: undefined }), /database/],
    'several hosts': [() => pgTo({}, { host: 'a,b' }), /host/],
    'a password that is made': [() => pgTo({}, { password: () => 'secret' }), /password/],
    'a query of its own': [() => {
        const made = pgTo()

        made.client.query = () => {}
        return made
    }, /query/],
    'a raw of its own': [() => {
        const made = pgTo()

        made.context.raw = () => {}
        return made
    }, /raw/],
    'native: false': [() => pgTo(), /native: false/, { native: false }],
}

test.group('the given connection is used', () => {
    for (const [name, [make, why, more]] of Object.entries(REDIS_REASONS))
        test(`Redis: ${name}`, ({ assert }) => {
            const connection = make()
            const store = new RedisStore({ connection, ...more })

            assert.equal(store.connectionUsed, 'given')
            assert.match(store.whyGiven, why)
            assert.match(store.address, /^nodejs:/)
            connection.disconnect?.()
        })

    for (const [name, [make, why, more]] of Object.entries(PG_REASONS))
        test(`Knex: ${name}`, async ({ assert }) => {
            const connection = await make()
            const store = knexStore({ connection, ...more }).factory()

            assert.equal(store.connectionUsed, 'given')
            assert.match(store.whyGiven, why)
            await (connection.isTransaction ? connection.rollback() : connection.destroy())
        })

    test('Redis: a state that options do not tell', async ({ assert }) => {
        const cases = {
            'another database': [(connection) => connection.select(3), /database/],
            'subscriber mode': [(connection) => connection.subscribe('a'), /subscriber/],
            'the end': [(connection) => connection.quit(), /ended/],
        }

        for (const [turn, why] of Object.values(cases)) {
            const connection = redisTo()

            await connection.ping()
            await turn(connection)
            if (why.source === 'ended') await new Promise((resolve) => connection.once('end', resolve))
            const store = new RedisStore({ connection })

            assert.equal(store.connectionUsed, 'given')
            assert.match(store.whyGiven, why)
            connection.disconnect()
        }
    })

    test('Redis: a method of the class was replaced, as instruments do', ({ assert }) => {
        const connection = lazy()
        const prototype = Object.getPrototypeOf(connection)
        const { sendCommand } = prototype

        prototype.sendCommand = function wrapped(...args) {
            return sendCommand.apply(this, args)
        }
        try {
            assert.match(new RedisStore({ connection }).whyGiven, /sendCommand/)
        } finally {
            prototype.sendCommand = sendCommand
        }
        assert.isUndefined(new RedisStore({ connection }).connectionUsed)
    })

    test('Knex: what pg has for the whole process', async ({ assert }) => {
        const connection = pgTo()
        const why = () => knexStore({ connection }).factory().whyGiven

        pg.defaults.ssl = true
        assert.match(why(), /ssl/)
        pg.defaults.ssl = false
        process.env.PGOPTIONS = '-c search_path=a'
        assert.match(why(), /PGOPTIONS/)
        delete process.env.PGOPTIONS
        process.env.PGPOOL_MAX = '5' /* somebody's own */
        assert.isUndefined(why())
        delete process.env.PGPOOL_MAX
        assert.isUndefined(why())
        await connection.destroy()
    })

    test('Kysely, and adapters of applications', async ({ assert }) => {
        const kysely = new Kysely({ dialect: new PostgresDialect({ pool: new pg.Pool(postgres.connection) }) })
        const connection = pgTo()
        class Own extends KnexAdapter {
            async getLock(name) {
                return super.getLock(name)
            }
        }

        for (const store of [kyselyStore({ connection: kysely }).factory(), new DatabaseStore(new Own(connection), {})])
            assert.equal(store.connectionUsed, 'given')
        await Promise.all([kysely.destroy(), connection.destroy()])
    })
})

test.group('a connection of our own is used', () => {
    const PLAIN = {
        'a port': () => redisTo(),
        'an address': () => kept(quiet(new Redis(server.url))),
        'a database and a prefix': () => redisTo({ db: 3, keyPrefix: 'a+ é%:' }),
        'much that does not matter': () => redisTo({
            connectTimeout: 100, retryStrategy: () => 10, connectionName: 'me', enableAutoPipelining: true, family: 4, commandTimeout: 9000,
            scripts: { mine: { lua: 'return 1', numberOfKeys: 0 } }, lazyConnect: true, role: 'master',
        }),
    }

    for (const [name, make] of Object.entries(PLAIN))
        test(`Redis: ${name}`, async ({ assert }) => {
            const connection = make()
            const store = new RedisStore({ connection, native: true })
            const shared = key()

            assert.isUndefined(store.connectionUsed)
            assert.isTrue(await store.save(shared, 'me', 60_000))
            assert.equal(store.connectionUsed, 'native')
            assert.isUndefined(store.whyGiven)
            assert.match(store.address, /^redis:/)
            assert.equal(await connection.get(shared), 'me')
            assert.deepEqual(await connection.keys('*probe*'), [])
            assert.isFalse(await new RedisStore({ connection, native: false }).save(shared, 'b', 1000))
            assert.isFalse(await new OriginalRedisStore({ connection }).save(shared, 'c', 1000))
            await store.close()
            connection.disconnect()
        })

    test('Redis: with a password, which the address does not show', async ({ assert }) => {
        const secret = 'se:c/r@e t%'

        await redisTo().call('ACL', 'SETUSER', 'app', 'on', `>${secret}`, '~*', '&*', '+@all')
        const connection = redisTo({ username: 'app', password: secret })
        const store = new RedisStore({ connection, native: true })

        assert.isFalse(await store.exists(key()))
        assert.notInclude(store.address, 'se%3Ac')
        assert.match(store.address, /\*\*\*/)
        await store.close()
        connection.disconnect()
    })

    test('Knex: a row that others see, and no probe', async ({ assert }) => {
        for (const connection of [pgTo(), knex({ client: 'postgres', connection: postgres.url })]) {
            const store = knexStore({ connection, native: true, tableName: 'public.locks' }).factory()
            const given = knexStore({ connection, native: false, tableName: 'public.locks' }).factory()
            const shared = key()

            assert.isTrue(await store.save(shared, 'me', 60_000))
            assert.equal(store.connectionUsed, 'native')
            assert.isFalse(await given.save(shared, 'b', 1000))
            assert.deepEqual(await connection('locks').where('key', 'like', 'verrou:probe%'), [])
            await store.close()
            await connection.destroy()
        }
    })

    test('serialised locks tell the store\'s name, and are restored there', async ({ assert }) => {
        const connection = redisTo()
        const verrou = new Verrou({ default: 'memory', stores: { memory: { driver: memoryStore() }, shared: { driver: redisStore({ connection }) } } })
        const lock = verrou.use('shared').createLock(key())

        assert.isTrue(await lock.acquire())
        assert.equal(await connection.exists(lock.serialize().key), 1)
        for (const made of [lock, verrou.use('shared').createLock(key())]) assert.equal(made.serialize().store, 'shared')
        await verrou.restoreLock(lock.serialize()).release()
        assert.equal(await connection.exists(lock.serialize().key), 0)
        connection.disconnect()
    })

    test('locks that were made before follow, with the owner that they said', async ({ assert }) => {
        const connection = redisTo()
        const factory = new LockFactory(redisStore({ connection, native: true }).factory())
        const locks = [factory.createLock(key(), '1m'), factory.createLock(key(), '1m', { autoExtend: true }), factory.createLock(key(), null)]
        const owners = locks.map((lock) => lock.getOwner())
        const restored = factory.restoreLock({ key: key(), owner: 'somebody', ttl: 60_000, expirationTime: Date.now() + 60_000 })

        assert.deepEqual(await Promise.all(locks.map((lock) => lock.acquire())), [true, true, true])
        for (const [at, lock] of locks.entries()) {
            assert.equal(lock.getOwner(), owners[at])
            assert.equal(await connection.get(lock.serialize().key), owners[at])
            assert.isAbove(lock.fence, 0)
            await lock.release()
        }
        assert.isTrue(await locks[0].acquire())
        assert.equal(locks[0].getOwner(), owners[0])
        assert.equal(await connection.get(locks[0].serialize().key), owners[0])
        await locks[0].release()
        await assert.rejects(() => restored.release(), /not acquired by you/)
        connection.disconnect()
    })

    test('only so many stores over one connection', async ({ assert }) => {
        const connection = redisTo()
        const stores = Array.from({ length: 8 }, () => new RedisStore({ connection }))

        await Promise.all(stores.map((store) => store.exists(key())))
        assert.lengthOf(stores.filter((store) => store.connectionUsed === 'native'), 4)
        assert.match(stores.find((store) => store.connectionUsed === 'given').whyGiven, /already/)
        await Promise.all(stores.map((store) => store.close()))
        const later = new RedisStore({ connection, native: true })

        assert.isFalse(await later.exists(key()))
        await later.close()
        connection.disconnect()
    })

    test('what was decided is in the log', async ({ assert }) => {
        const records = []
        const logger = { debug: (...record) => records.push(record), trace() {}, info() {}, warn() {}, error() {}, child: () => logger }

        for (const native of [undefined, false]) {
            const connection = redisTo()
            const factory = new LockFactory(new RedisStore({ connection, native }), { logger })

            await factory.createLock(key()).isLocked()
            connection.disconnect()
        }
        const texts = records.filter(([{ event }]) => event === 'store.connection').map(([, text]) => text)

        assert.match(texts[0], /^connections of our own to redis:/)
    })
})

test.group('the proof', () => {
    /* A name that leads elsewhere for the application: its lookup is its own, which the options do not tell. */
    test('Redis: the connection leads elsewhere', async ({ assert }) => {
        const connection = redisTo()

        await connection.ping()
        connection.options.port = other.port
        const store = new RedisStore({ connection })
        const shared = key()

        assert.isTrue(await store.save(shared, 'me', 60_000))
        assert.equal(store.connectionUsed, 'given')
        assert.match(store.whyGiven, /not seen/)
        assert.equal(await connection.get(shared), 'me')
        assert.deepEqual(await connection.keys('verrou:probe*'), [])
        const strict = new RedisStore({ connection, native: true })
        const { error } = await within(20_000, strict.save(key(), 'me', 1000))

        assert.equal(error.code, 'E_LOCK_CONFIG')
        assert.match(error.message, /native: true.*not seen/)
        connection.options.port = server.port
        assert.isTrue(await strict.save(key(), 'me', 1000)) /* it tries again */
        connection.disconnect()
    })

    test('Knex: the connection leads elsewhere', async ({ assert }) => {
        const connection = pgTo({ pool: { min: 1, max: 1 } })

        await connection.raw('SELECT 1')
        connection.client.connectionSettings.port = otherPostgres.port
        await knexStore({ connection: pgTo({}, { port: otherPostgres.port }), native: false }).factory().exists('a')
        const store = knexStore({ connection }).factory()

        assert.isTrue(await store.save(key(), 'me', 60_000))
        assert.equal(store.connectionUsed, 'given')
        assert.match(store.whyGiven, /not seen/)
        assert.deepEqual(await connection('verrou').where('key', 'like', 'verrou:probe%'), [])
        await connection.destroy()
    })

    test('Redis: an access list that refuses it', async ({ assert }) => {
        await redisTo().call('ACL', 'SETUSER', 'narrow', 'on', '>narrow', '~key-*', '&key-*', '+@all')
        const connection = redisTo({ username: 'narrow', password: 'narrow' })
        const store = new RedisStore({ connection })

        assert.isTrue(await store.save(key(), 'me', 1000))
        assert.equal(store.connectionUsed, 'given')
        assert.match(store.whyGiven, /NOPERM/)
        connection.disconnect()
    })

    test('native: true says why not, with every request', async ({ assert }) => {
        const store = new RedisStore({ connection: { eval: async () => 1 }, native: true })

        assert.isUndefined(store.connectionUsed)
        for (let turn = 0; turn < 2; turn++) {
            const { error } = await within(20_000, new LockFactory(store).createLock('a').acquire())

            assert.equal(error.code, 'E_LOCK_CONFIG')
            assert.match(error.message, /native: true.*class Redis/)
        }
    })

    test('a server that says nothing: time limits and signals hold', async ({ assert }) => {
        const silent = createServer(() => {}).listen(0, '127.0.0.1')

        await new Promise((resolve) => silent.once('listening', resolve))
        const connection = quiet(new Redis(silent.address().port, '127.0.0.1', { enableReadyCheck: false }))
        const factory = new LockFactory(new RedisStore({ connection }))
        const late = await within(20_000, factory.createLock('a').acquire({ retry: { timeout: 100 } }))
        const aborted = await within(20_000, factory.createLock('a').acquire({ signal: AbortSignal.timeout(100) }))

        assert.equal(late.error.code, 'E_LOCK_STORAGE_ERROR')
        assert.equal(aborted.error.name, 'TimeoutError')
        connection.disconnect()
        silent.close()
    })
})

test.group('the application ends its connection', () => {
    const ends = {
        'quit()': { make: () => redisTo(), store: (connection) => new RedisStore({ connection, native: true }), end: (connection) => connection.quit(), says: /Connection is closed/ },
        'disconnect()': { make: () => redisTo(), store: (connection) => new RedisStore({ connection, native: true }), end: (connection) => connection.disconnect(), says: /Connection is closed/ },
        'destroy()': { make: () => pgTo(), store: (connection) => knexStore({ connection, native: true }).factory(), end: (connection) => connection.destroy(), says: /Unable to acquire a connection/ },
    }

    for (const [name, { make, store: open, end, says }] of Object.entries(ends))
        test(`${name}: who waits and who holds fails as over the given one`, async ({ assert }) => {
            const connection = make()
            const store = open(connection)
            const factory = new LockFactory(store)
            const held = factory.createLock(key(), '1m')
            const renewed = factory.createLock(key(), 600, { autoExtend: true })

            await held.acquire()
            await renewed.acquire()
            const lost = new Promise((resolve) => renewed.lost.addEventListener('abort', resolve))
            const owner = held.getOwner()
            const waiting = within(20_000, factory.createLock(held.serialize().key).acquire())

            assert.equal(store.connectionUsed, 'native')
            await end(connection)
            assert.match((await waiting).error.message, says)
            assert.equal(store.connectionUsed, 'given')
            assert.match(store.whyGiven, /ended|destroyed/)
            for (const call of ['release', 'extend', 'isLocked', 'forceRelease'])
                assert.match((await within(20_000, held[call]())).error.message, says)
            assert.equal(held.getOwner(), owner)
            assert.match((await within(20_000, store.exists('a'))).error.message, says)
            await lost /* it could not be renewed */
            await store.close()
        })

    test('our connections are closed then, and with the store', async ({ assert }) => {
        const alone = await startRedis()
        const admin = kept(quiet(new Redis(alone.url, { connectionName: 'admin' })))
        const ours = async () => (await admin.client('LIST')).split('\n').filter((line) => line && !/name=admin/.test(line)).length
        const none = async () => {
            for (let look = 0; look < 500; look++) {
                if ((await ours()) === 0) return true
                await new Promise((resolve) => setTimeout(resolve, 20))
            }
            return false
        }

        for (const finish of [(connection) => connection.quit(), async (connection, store) => {
            await store.close()
            connection.disconnect()
        }]) {
            const connection = quiet(new Redis(alone.url))
            const store = new RedisStore({ connection, native: true })

            await store.save(key(), 'me', 1000)
            assert.isAbove(await ours(), 1)
            await finish(connection, store)
            assert.isTrue(await none())
        }
        admin.disconnect()
    })

    test('another database is selected: the given connection is where it is', async ({ assert }) => {
        const connection = redisTo()
        const store = new RedisStore({ connection, native: true })
        const shared = key()

        await store.save(shared, 'me', 60_000)
        await connection.select(5)
        assert.isTrue(await store.save(shared, 'me', 60_000))
        assert.equal(store.connectionUsed, 'given')
        assert.equal(await connection.get(shared), 'me')
        connection.disconnect()
    })

    test('listeners are taken off again', async ({ assert }) => {
        const connection = redisTo()
        const pool = pgTo()
        const events = ['close', 'end', 'ready', 'select', 'reconnecting']
        const count = () => events.map((event) => connection.listenerCount(event)).join()

        await connection.ping()
        const before = count()

        for (let turn = 0; turn < 20; turn++) {
            const stores = [new RedisStore({ connection, native: true }), new RedisStore({ connection, native: false })]

            await Promise.all(stores.map((store) => store.exists(key())))
            await Promise.all(stores.map((store) => store.close()))
        }
        assert.equal(count(), before)
        const store = knexStore({ connection: pool, native: true }).factory()

        await store.exists(key())
        assert.equal(pool.client.pool.emitter.listenerCount('poolDestroySuccess'), 1)
        await store.close()
        assert.equal(pool.client.pool.emitter.listenerCount('poolDestroySuccess'), 0)
        connection.disconnect()
        await pool.destroy()
    })
})

test.group('the process', () => {
    const program = (body) => `
        import { Redis } from 'ioredis'
        import knex from 'knex'
        import { LockFactory } from 'libverrou'
        import { RedisStore } from 'libverrou/drivers/redis'
        import { knexStore } from 'libverrou/drivers/knex'
        process.on('unhandledRejection', (error) => { console.log('unhandled', error); process.exit(9) })
        ${body}`
    const ends = async (assert, body) => {
        const { status, signal, stdout, stderr } = await runModule(program(body), { limit: 30_000 })

        assert.deepEqual({ status, signal, stdout, stderr }, { status: 0, signal: null, stdout: 'native\n', stderr: '' })
    }

    test('Redis: ends with locks that are held, renewed and waited for by nobody', ({ assert }) => ends(assert, `
        const connection = new Redis('${server.url}')
        const store = new RedisStore({ connection })
        const lock = new LockFactory(store).createLock('exit-redis', 60000, { autoExtend: true })
        await lock.acquire()
        lock.lost
        console.log(store.connectionUsed)
        await lock.forceRelease()
        connection.disconnect()`))

    test('Knex: ends', ({ assert }) => ends(assert, `
        const connection = knex({ client: 'pg', connection: '${postgres.url}' })
        const store = knexStore({ connection }).factory()
        const lock = new LockFactory(store).createLock('exit-knex', 60000)
        await lock.acquire()
        console.log(store.connectionUsed)
        await connection.destroy()`))

    test('ends while nothing answers, when nobody waits any more', async ({ assert }) => {
        const { status, stdout, stderr } = await runModule(program(`
            const connection = new Redis(${await freePort()}, '127.0.0.1', { retryStrategy: null })
            connection.on('error', () => {})
            const store = new RedisStore({ connection })
            const error = await new LockFactory(store).createLock('a').acquireImmediately().catch((error) => error)
            console.log(error instanceof Error, store.connectionUsed)`), { limit: 30_000 })

        assert.deepEqual({ status, stdout, stderr }, { status: 0, stdout: 'true given\n', stderr: '' })
    })

    test('stores that are collected give their listeners and connections back', async ({ assert }) => {
        const { status, stdout, stderr } = await runModule(program(`
            import { setFlagsFromString } from 'node:v8'
            import { runInNewContext } from 'node:vm'
            setFlagsFromString('--expose-gc')
            const gc = runInNewContext('gc')
            const connection = new Redis('${server.url}')
            await connection.ping()
            const before = connection.listenerCount('end')
            for (let turn = 0; turn < 3; turn++) await new RedisStore({ connection }).exists('a')
            let look = 0
            while (connection.listenerCount('end') > before && look++ < 500) {
                gc()
                await new Promise((resolve) => setTimeout(resolve, 10))
            }
            const store = new RedisStore({ connection, native: true })
            await store.exists('a')
            console.log(connection.listenerCount('end') - before, store.connectionUsed)
            connection.disconnect()`), { limit: 30_000 })

        assert.deepEqual({ status, stdout, stderr }, { status: 0, stdout: '2 native\n', stderr: '' })
    })
})

test.group('together', (group) => {
    group.teardown(async () => {
        for (const connection of opened) await (connection.disconnect ? connection.disconnect() : connection.destroy())
    })

    test('one store goes native, another over the same connection does not, beside the original: one at a time', async ({ assert }) => {
        const connection = redisTo()
        const name = key()
        const factories = [
            new LockFactory(new RedisStore({ connection, native: true })), new LockFactory(new RedisStore({ connection, native: false })),
            new original.LockFactory(new OriginalRedisStore({ connection })),
        ]
        let inside = 0
        const loop = async (factory) => {
            for (let turn = 0; turn < 6; turn++) {
                const lock = factory.createLock(name, 60_000)

                await lock.acquire({ retry: { delay: 5 } })
                assert.equal(++inside, 1)
                await new Promise(setImmediate)
                inside--
                await lock.release()
            }
        }

        await Promise.all([...factories, ...factories].map(loop))
        connection.disconnect()
    })
})
