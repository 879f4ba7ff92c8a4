/* dynamodb.spec.mjs - the store over the AWS client, on dynalite. */
import {
    DeleteItemCommand, DeleteTableCommand, DynamoDBClient, GetItemCommand, PutItemCommand, ScanCommand, UpdateItemCommand,
} from '@aws-sdk/client-dynamodb'
import { test } from '@japa/runner'
import { DynamoDBStore as OriginalDynamoDBStore } from '@verrou/core/drivers/dynamodb'
import dynalite from 'dynalite'
import { LockFactory } from 'libverrou'
import { DynamoDBStore, dynamodbStore } from 'libverrou/drivers/dynamodb'
import { registerStoreTestSuite } from 'libverrou/test_suite'
import { once } from 'node:events'

import { key, registerDeadServer, registerFencing, registerInterop, registerSuites, within } from './checks.mjs'
import { freePort, runModule, startProxy } from './servers.mjs'

const server = dynalite({ createTableMs: 100, deleteTableMs: 0 })

server.listen(0, '127.0.0.1')
await once(server, 'listening')
const { port } = server.address()

const settings = (at = port) => ({
    region: 'local',
    endpoint: `http://127.0.0.1:${at}`,
    credentials: { accessKeyId: 'none', secretAccessKey: 'none' },
})
const clientAt = (at, more) => new DynamoDBClient({ ...settings(at), ...more })
const connection = clientAt()

const table = { name: 'locks' }
const ours = (of = connection, name = table.name) => new DynamoDBStore({ connection: of, table: { name } })
const item = async (name) =>
    (await connection.send(new GetItemCommand({ TableName: table.name, Key: { key: { S: name } }, ConsistentRead: true }))).Item

const kit = {
    name: 'dynamodb',
    ours: () => ours(),
    theirs: () => new OriginalDynamoDBStore({ connection, table }),
    clean: () => ours().forceDelete('foo'),
}

await kit.clean()
registerSuites(kit, registerStoreTestSuite)
registerInterop(kit)

test.group('dynamodb', (group) => {
    group.teardown(() => {
        connection.destroy()
        server.close()
    })
    registerFencing(kit)

    test('tokens grow although the clock of the next is behind', async ({ assert }) => {
        const name = key()
        await connection.send(new PutItemCommand({
            TableName: table.name, Item: { key: { S: name }, expires_at: { N: '0' }, fence: { N: '4000000000000000' } },
        }))
        const second = new LockFactory(ours()).createLock(name, 60_000)

        assert.isTrue(await second.acquireImmediately())
        assert.equal(second.fence, 4_000_000_000_000_001)
        await second.release()
        assert.isTrue(await second.acquireImmediately())
        assert.equal(second.fence, 4_000_000_000_000_002)
    })

    test('V12: other attributes of an item stay', async ({ assert }) => {
        const name = key()
        const lock = new LockFactory(ours()).createLock(name, 60_000)

        await connection.send(new PutItemCommand({
            TableName: table.name, Item: { key: { S: name }, owner: { S: 'x' }, expires_at: { N: '1' }, note: { S: 'mine' } },
        }))
        await lock.acquire()
        await lock.extend('2m')
        assert.equal((await item(name)).note.S, 'mine')
        await lock.release()
        assert.equal((await item(name)).note.S, 'mine')
    })

    test('V12: times are compared as numbers', async ({ assert }) => {
        const name = key()

        await connection.send(new PutItemCommand({
            TableName: table.name, Item: { key: { S: name }, owner: { S: 'x' }, expires_at: { N: '99999999999999' } },
        }))
        assert.isTrue(await ours().exists(name))
        await connection.send(new PutItemCommand({
            TableName: table.name, Item: { key: { S: name }, owner: { S: 'x' }, expires_at: { N: '999' } },
        }))
        assert.isFalse(await ours().exists(name))
        assert.isTrue(await kit.theirs().exists(name), 'the original compares texts')
    })

    test('V12: an error in release or extend is told, and is not "not owned"', async ({ assert }) => {
        const boom = Object.assign(new Error('slow down'), {
            name: 'AccessDeniedException', $metadata: { httpStatusCode: 400, attempts: 1 },
        })
        const failing = { send: async (command) => (command instanceof UpdateItemCommand ? Promise.reject(boom) : connection.send(command)) }
        const store = ours(failing)

        for (const call of [() => store.delete('a', 'o'), () => store.extend('a', 'o', 1000), () => store.save('a', 'o', 1000)])
            assert.strictEqual((await within(20_000, call())).error, boom)
        const deaf = { send: async (command) => (command instanceof DeleteItemCommand ? Promise.reject(boom) : connection.send(command)) }
        const { error } = await within(20_000, new OriginalDynamoDBStore({ connection: deaf, table }).delete('a', 'o'))

        assert.equal(error.code, 'E_LOCK_NOT_OWNED', 'the original says that')
    })

    test('V12: throttling is waited out', async ({ assert }) => {
        let refuse = 3
        const throttled = Object.assign(new Error('too fast'), {
            name: 'ProvisionedThroughputExceededException', $metadata: { httpStatusCode: 400 },
        })
        const busy = {
            send: async (command) => {
                if (command instanceof UpdateItemCommand && refuse-- > 0) throw throttled
                return connection.send(command)
            },
        }
        const lock = new LockFactory(ours(busy)).createLock(key(), 60_000)

        assert.isTrue(await lock.acquireImmediately())
        refuse = 3
        await lock.release()
    })

    test('V12: a table is waited for until it is active', async ({ assert }) => {
        assert.isTrue(await ours(connection, 'fresh').save('a', 'o', 1000))
    })

    test('V14: a table that could not be made, or was dropped, is made by a later call', async ({ assert }) => {
        let fail = true
        const boom = Object.assign(new Error('no'), { name: 'ValidationException', $metadata: { httpStatusCode: 400 } })
        const store = ours({ send: async (command) => (fail ? Promise.reject(boom) : connection.send(command)) }, 'later')

        assert.strictEqual((await within(20_000, store.save('a', 'o', 60_000))).error, boom)
        fail = false
        assert.isTrue(await store.save('a', 'o', 60_000))
        await connection.send(new DeleteTableCommand({ TableName: 'later' }))
        assert.isTrue(await store.save('a', 'o', 60_000))
    })

    test('V20: a request whose answer was lost is settled, also when the client sends it again by itself', async ({ assert }) => {
        for (const maxAttempts of [1, 3]) {
            const proxy = await startProxy(port)
            const wrapped = clientAt(proxy.port, { maxAttempts })
            const lock = new LockFactory(ours(wrapped)).createLock(key(), 60_000)

            assert.isFalse(await lock.isLocked())
            proxy.loseNext('UpdateExpression')
            assert.isTrue(await lock.acquireImmediately())
            assert.equal((await item(lock.serialize().key)).owner.S, lock.getOwner())
            proxy.loseNext('UpdateExpression')
            await lock.extend('2m')
            proxy.loseNext('UpdateExpression')
            await lock.release()
            assert.equal(proxy.lost.count, 3)
            assert.isFalse(await lock.isLocked())
            wrapped.destroy()
            proxy.stop()
        }
    })

    registerDeadServer('V21', async () => {
        const dead = clientAt(await freePort())

        return { store: ours(dead), close: () => dead.destroy() }
    })

    test('V21: a server that hangs is an error in time', async ({ assert }) => {
        const proxy = await startProxy(port)
        const wrapped = clientAt(proxy.port)
        const lock = new LockFactory(ours(wrapped)).createLock(key(), 60_000)

        assert.isFalse(await lock.isLocked())
        proxy.hang()
        const { error } = await within(20_000, lock.acquire({ retry: { timeout: 1000 } }))

        assert.equal(error.code, 'E_LOCK_UNKNOWN_OUTCOME')
        wrapped.destroy()
        proxy.stop()
    })

    test('a key of 1,000 characters is as good as any', async ({ assert }) => {
        const name = 'k'.repeat(1000)

        assert.isTrue(await ours().save(name, 'a', 60_000))
        assert.isFalse(await kit.theirs().save(name, 'b', 60_000))
        await ours().delete(name, 'a')
    })

    test('old released items are pruned, others stay', async ({ assert }) => {
        const now = Date.now() * 1000
        const name = 'pruned'
        const store = ours(connection, name)

        await store.save('a', 'o', 1000)
        for (const [row, fence] of [['old', now - 7200e6], ['new', now - 1800e6]])
            await connection.send(new PutItemCommand({
                TableName: name, Item: { key: { S: row }, expires_at: { N: '0' }, fence: { N: String(fence) } },
            }))
        await store.forceDelete('a')
        for (let turn = 0; turn < 64; turn++) {
            await store.save('a', 'o', 60_000)
            await store.delete('a', 'o')
        }
        for (let look = 0; look < 500; look++) {
            const { Items } = await connection.send(new ScanCommand({ TableName: name }))

            if (Items.length === 2) return assert.deepEqual(Items.map((one) => one.key.S).sort(), ['a', 'new'])
            await new Promise((resolve) => setTimeout(resolve, 20))
        }
        assert.fail('nothing was pruned')
    })

    test('a store, and locks that are held, keep no process alive', async ({ assert }) => {
        const { status, signal, stderr } = await runModule(`
            import { DynamoDBClient } from '@aws-sdk/client-dynamodb'
            import { LockFactory } from 'libverrou'
            import { dynamodbStore } from 'libverrou/drivers/dynamodb'
            const connection = new DynamoDBClient(${JSON.stringify(settings())})
            const lock = new LockFactory(dynamodbStore({ connection, table: { name: 'locks' } }).factory()).createLock('exit', 60000)
            if (!(await lock.acquireImmediately())) process.exit(3)
            connection.destroy()`, { limit: 30_000 })

        assert.deepEqual({ status, signal }, { status: 0, signal: null }, stderr)
    })

    test('the factory makes such stores', async ({ assert }) => {
        assert.instanceOf(dynamodbStore({ connection, table }).factory(), DynamoDBStore)
    })
})
