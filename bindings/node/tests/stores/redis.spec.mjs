/* redis.spec.mjs - the store over ioredis: a single server, behind a Sentinel, a cluster. */
import { test } from '@japa/runner'
import * as original from '@verrou/core'
import { RedisStore as OriginalRedisStore } from '@verrou/core/drivers/redis'
import { Cluster, Redis } from 'ioredis'
import { LockFactory, nativeStore } from 'libverrou'
import { RedisStore, redisStore } from 'libverrou/drivers/redis'
import { registerStoreTestSuite } from 'libverrou/test_suite'

import { key, registerDeadServer, registerFencing, registerInterop, registerSuites, within } from './checks.mjs'
import { freePort, runModule, startCluster, startProxy, startRedis, startSentinel, stop } from './servers.mjs'

const server = await startRedis()
const sentinel = await startSentinel(server)
const nodes = await startCluster()
const quiet = (connection) => connection.on('error', () => {})

const connections = {
    'a single server': quiet(new Redis(server.url)),
    'a server behind a sentinel': quiet(new Redis({ sentinels: [{ host: '127.0.0.1', port: sentinel.port }], name: 'main' })),
    'a connection with a prefix': quiet(new Redis(server.url, { keyPrefix: 'prefix:' })),
    'a connection that pipelines by itself, with numbers as texts': quiet(
        new Redis(server.url, { enableAutoPipelining: true, stringNumbers: true, lazyConnect: true })
    ),
    'a cluster': quiet(new Cluster(nodes.map(({ port }) => ({ host: '127.0.0.1', port })))),
    'a cluster with a prefix': quiet(new Cluster([{ host: '127.0.0.1', port: nodes[0].port }], { keyPrefix: 'pre{fix:' })),
}
const plain = connections['a single server']
const cluster = connections['a cluster']

/* What goes through the given connection is tested with it. */
const factoryOf = (connection, more = { native: false }) => new LockFactory(redisStore({ connection, ...more }).factory())

const isPlain = (connection) => !connection.isCluster && !connection.options.sentinels
/* Each connection as it is, and plain ones, which go native, as they were given, too. */
const kits = Object.entries(connections).flatMap(([name, connection]) => [
    { name, connection, runs: isPlain(connection) ? 'native' : 'given', store: new RedisStore({ connection }) },
    ...(isPlain(connection) ? [{ name: `${name}, as given`, connection, runs: 'given', store: new RedisStore({ connection, native: false }) }] : []),
])

for (const { name, connection, runs, store } of kits) {
    const kit = {
        name,
        ours: () => store,
        theirs: () => new OriginalRedisStore({ connection }),
        clean: () => connection.del('foo'),
    }

    if (/^a (single server|cluster)(, as given)?$/.test(name)) registerSuites(kit, registerStoreTestSuite)
    if (!connection.options.stringNumbers) registerInterop(kit)
    test.group(name, () => {
        registerFencing(kit)

        test('which connection is used', async ({ assert }) => {
            await store.exists(key())
            assert.equal(store.connectionUsed, runs, store.whyGiven)
            assert.match(store.address, runs === 'native' ? /^redis:\/\/127\.0\.0\.1:/ : /^nodejs:/)
        })

        test('a native store and ours use the same keys, counters and channels', async ({ assert }) => {
            const scheme = name.startsWith('a cluster')
                ? `redis+cluster://127.0.0.1:${nodes[0].port}`
                : server.url
            const prefix = connection.options.keyPrefix ?? ''
            const native = new LockFactory(nativeStore(`${scheme}?prefix=${encodeURIComponent(prefix)}`).factory())
            const ours = new LockFactory(kit.ours())

            for (let turn = 0; turn < 3; turn++)
                for (const [first, second] of [[native, ours], [ours, native]]) {
                    const shared = key()
                    const a = first.createLock(shared, 60_000)
                    const b = second.createLock(shared, 60_000)

                    assert.isTrue(await a.acquireImmediately())
                    assert.isFalse(await b.acquireImmediately())
                    await second.restoreLock(a.serialize()).extend('2m')
                    await second.restoreLock(a.serialize()).release()
                    assert.isTrue(await b.acquireImmediately())
                    assert.isAbove(b.fence, a.fence)
                    await b.release()
                }
        })

        /* The holder's lease and the recheck of a native waiter are far away: only the message can be the reason. */
        test('a release wakes those who wait in native stores', async ({ assert }) => {
            const scheme = name.startsWith('a cluster') ? `redis+cluster://127.0.0.1:${nodes[0].port}` : server.url
            const prefix = connection.options.keyPrefix ?? ''
            const shared = key()
            const holder = new LockFactory(kit.ours()).createLock(shared, 600_000)
            const { stdout, stderr } = await (async () => {
                await holder.acquire()
                const running = runModule(`
                    import { LockFactory, nativeStore } from 'libverrou'
                    const store = nativeStore(${JSON.stringify(`${scheme}?prefix=${encodeURIComponent(prefix)}`)}).factory()
                    const lock = new LockFactory(store, { retry: { delay: 300000 } }).createLock(${JSON.stringify(shared)})
                    console.log(await lock.acquire())
                    await lock.release()`)
                const channel = `${prefix}${shared}`

                for (let look = 0; look < 1000; look++) {
                    if (await listeners(name, channel)) break
                    await new Promise((resolve) => setTimeout(resolve, 20))
                }
                await holder.release()
                return running
            })()

            assert.equal(stdout, 'true\n', stderr)
        })
    })
}

/* How many connections listen to a channel, at any node. */
async function listeners(name, channel) {
    const clients = name.startsWith('a cluster') ? cluster.nodes('master') : [plain]
    let count = 0

    for (const client of clients)
        for (const command of ['NUMSUB', 'SHARDNUMSUB']) {
            if (command === 'SHARDNUMSUB' && clients.length === 1) continue
            count += Number((await client.call('PUBSUB', command, channel))[1])
        }
    return count
}

test.group('redis', (group) => {
    group.teardown(() => Object.values(connections).forEach((connection) => connection.disconnect()))

    test('a key of 300 characters, and of 50,000, is as good as any', async ({ assert }) => {
        for (const native of [true, false])
            for (const length of [300, 50_000]) {
                const factory = factoryOf(plain, { native })
                const lock = factory.createLock('k'.repeat(length), 60_000)
                const waiter = factory.createLock('k'.repeat(length), 60_000)

                assert.isTrue(await lock.acquireImmediately())
                assert.isFalse(await new OriginalRedisStore({ connection: plain }).save('k'.repeat(length), 'a', 1000))
                assert.isFalse(await waiter.acquire({ retry: { delay: 10, timeout: 100 } }))
                const waiting = waiter.acquire({ retry: { delay: 10 } })

                await lock.release()
                assert.isTrue(await waiting)
                await waiter.release()
            }
    })

    test('what is no lock is left alone, and told from one', async ({ assert }) => {
        const name = key()
        const lock = factoryOf(plain).createLock(name)

        await plain.hset(name, 'a', 'b')
        for (const call of [() => lock.acquireImmediately(), () => lock.isLocked(), () => lock.forceRelease()]) {
            const { error } = await within(20_000, call())

            assert.match(error.message, /WRONGTYPE/)
        }
        assert.equal(await plain.hget(name, 'a'), 'b')
    })

    test('without a right to the counter the clock gives the token', async ({ assert }) => {
        await plain.call('ACL', 'SETUSER', 'narrow', 'on', '>narrow', '~key-*', '&key-*', '+@all')
        const connection = quiet(new Redis(server.url, { username: 'narrow', password: 'narrow' }))
        const before = Date.now() * 1000
        const lock = factoryOf(connection).createLock(key(), 60_000)

        for (let turn = 0; turn < 3; turn++) {
            assert.isTrue(await lock.acquireImmediately())
            assert.isAbove(lock.fence, before)
            await lock.release()
        }
        connection.disconnect()
    })

    test('scripts that the server has forgotten are sent again', async ({ assert }) => {
        const lock = factoryOf(plain).createLock(key(), 60_000)

        for (let turn = 0; turn < 2; turn++) {
            await plain.script('FLUSH')
            assert.isTrue(await lock.acquireImmediately())
            await plain.script('FLUSH')
            await lock.extend('1m')
            await plain.script('FLUSH')
            await lock.release()
        }
    })

    test('a connection with only the calls that the original uses is enough', async ({ assert }) => {
        const connection = Object.fromEntries(['eval', 'set', 'setnx', 'get', 'del'].map((call) => [call, (...args) => plain[call](...args)]))
        const lock = factoryOf(connection).createLock(key(), 60_000)

        assert.isTrue(await lock.acquireImmediately())
        assert.isTrue(await lock.isLocked())
        await lock.release()
    })

    test('V20: the answer to a SET is lost: the lock is held', async ({ assert }) => {
        for (const settings of [{}, { autoResendUnfulfilledCommands: false }, { maxRetriesPerRequest: 0 }]) {
            const proxy = await startProxy(server.port)
            const connection = quiet(new Redis(proxy.port, '127.0.0.1', { ...settings, retryStrategy: () => 20 }))
            const lock = factoryOf(connection).createLock(key(), 60_000)

            assert.isFalse(await lock.isLocked())
            for (const call of ['acquireImmediately', 'acquire']) {
                proxy.loseNext('evalsha')
                assert.isTrue(await lock[call]())
                assert.isAbove(lock.fence, 0)
                assert.equal(await plain.get(lock.serialize().key), lock.getOwner())
                proxy.loseNext('evalsha')
                await lock.extend('2m')
                proxy.loseNext('evalsha')
                await lock.release()
                assert.isFalse(await lock.isLocked())
            }
            assert.equal(proxy.lost.count, 6)
            connection.disconnect()
            proxy.stop()
        }
    })

    test('V20 control: the original does not hold what it has set', async ({ assert }) => {
        const proxy = await startProxy(server.port)
        const connection = quiet(new Redis(proxy.port, '127.0.0.1', { retryStrategy: () => 20 }))
        const lock = new original.LockFactory(new OriginalRedisStore({ connection })).createLock(key(), 60_000)

        await lock.isLocked()
        proxy.loseNext('PX')
        assert.isFalse(await lock.acquireImmediately())
        assert.equal(await plain.get(lock.serialize().key), lock.getOwner())
        connection.disconnect()
        proxy.stop()
    })

    test('V21: a server that hangs is an error in time', async ({ assert }) => {
        const proxy = await startProxy(server.port)
        const connection = quiet(new Redis(proxy.port, '127.0.0.1'))
        const lock = factoryOf(connection).createLock(key(), 60_000)

        assert.isFalse(await lock.isLocked())
        proxy.hang()
        const { error } = await within(20_000, lock.acquire({ retry: { timeout: 1000 } }))

        assert.equal(error.code, 'E_LOCK_UNKNOWN_OUTCOME')
        connection.disconnect()
        proxy.stop()
    })

    registerDeadServer('V21, native or not', async () => {
        const connection = quiet(new Redis(await freePort(), '127.0.0.1'))

        return { store: new RedisStore({ connection }), close: () => connection.disconnect() }
    })

    registerDeadServer('V21', async () => {
        const connection = quiet(new Redis(await freePort(), '127.0.0.1'))

        return { store: new RedisStore({ connection, native: false }), close: () => connection.disconnect() }
    })

    test('nothing is sent later that nobody waits for any more', async ({ assert }) => {
        const port = await freePort()
        const connection = quiet(new Redis(port, '127.0.0.1', { maxRetriesPerRequest: null, retryStrategy: () => 50 }))
        const lock = factoryOf(connection).createLock(key(), 60_000)
        const { error } = await within(20_000, lock.acquireImmediately())

        assert.equal(error.code, 'E_LOCK_STORAGE_ERROR')
        const late = await startRedis({ port })

        await connection.ping() /* behind whatever ioredis may have kept */
        assert.isFalse(await lock.isLocked())
        connection.disconnect()
        await stop(late.server)
    }).timeout(60_000)

    test('V23: the clock of the server counts', async ({ assert }) => {
        const lock = factoryOf(plain).createLock(key(), 30_000)

        await lock.acquire()
        const { stdout, stderr } = await runModule(`
            import { Redis } from 'ioredis'
            import { LockFactory } from 'libverrou'
            import { redisStore } from 'libverrou/drivers/redis'
            const connection = new Redis('${server.url}')
            const lock = new LockFactory(redisStore({ connection }).factory()).createLock('${lock.serialize().key}')
            console.log(Date.now() - ${Date.now()} > 30000, await lock.acquireImmediately(), await lock.isLocked())
            connection.disconnect()`, { ahead: 60 })

        assert.equal(stdout, 'true false true\n', stderr)
    })

    test('a store, and locks that are held, keep no process alive', async ({ assert }) => {
        const { status, signal, stderr } = await runModule(`
            import { Redis } from 'ioredis'
            import { LockFactory } from 'libverrou'
            import { redisStore } from 'libverrou/drivers/redis'
            const connection = new Redis('${server.url}')
            const lock = new LockFactory(redisStore({ connection }).factory()).createLock('exit', 60000)
            if (!(await lock.acquireImmediately())) process.exit(3)
            connection.disconnect()`, { limit: 30_000 })

        assert.deepEqual({ status, signal }, { status: 0, signal: null }, stderr)
    })

    test('in a cluster each lock has a counter in its slot', async ({ assert }) => {
        const factory = factoryOf(cluster)
        const names = Array.from({ length: 30 }, key)
        const locks = names.map((name) => factory.createLock(name, 60_000))

        assert.notInclude(await Promise.all(locks.map((lock) => lock.acquireImmediately())), false)
        for (const node of cluster.nodes('master'))
            for (const counter of await node.keys('verrou:fence*')) assert.match(counter, /^verrou:fence\{\d+\}$/)
        await Promise.all(locks.map((lock) => lock.release()))
    })
})
