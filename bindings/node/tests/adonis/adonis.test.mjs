/*
 * adonis.test.mjs - the example application at work, in processes of its own, on servers of ours. Beside them a lock of the library itself, over
 * addresses, shows that the application's locks are those that everybody else sees.
 */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { after, test } from 'node:test'
import dynalite from 'dynalite'
import { NativeStore, LockFactory } from '@verrou/core'

import { freePort, startPostgres, startRedis } from './servers.mjs'

const PATIENCE_MS = 60_000
const redis = await startRedis()
const postgres = await startPostgres()
const dynamo = dynalite({ createTableMs: 0 })

dynamo.listen(0, '127.0.0.1')
await once(dynamo, 'listening')

const env = {
    ...process.env,
    NODE_ENV: 'production', NODE_TEST_CONTEXT: '', APP_KEY: 'sixteen-characters-and-more-of-them', HOST: '127.0.0.1', PORT: '0', LOG_LEVEL: 'warn',
    LOCK_STORE: 'redis', REDIS_HOST: '127.0.0.1', REDIS_PORT: redis.port,
    DB_HOST: '127.0.0.1', DB_PORT: postgres.port, DB_USER: 'verrou', DB_DATABASE: 'postgres',
    DYNAMODB_ENDPOINT: `http://127.0.0.1:${dynamo.address().port}`,
}

/* ---- processes of the application ---- */

const running = new Set()

function start(args, more = {}) {
    const child = spawn(process.execPath, args, { cwd: new URL('build/', import.meta.url), env: { ...env, ...more } })
    const process_ = { child, output: '', ended: false }

    for (const stream of [child.stdout, child.stderr]) stream.on('data', (data) => (process_.output += data))
    running.add(process_)
    process_.end = once(child, 'close').then(([code, signal]) => {
        process_.ended = true
        running.delete(process_)
        return { code, signal, output: process_.output }
    })
    return process_
}

async function console_(...args) {
    const { end, child } = start(['bin/console.js', ...args])
    const timer = setTimeout(() => child.kill('SIGKILL'), PATIENCE_MS)
    const { code, signal, output } = await end

    clearTimeout(timer)
    assert.deepEqual({ code, signal }, { code: 0, signal: null }, output)
    return output
}

/* A server of the application: ask(method, path, body) */
async function serve(more) {
    const PORT = await freePort()
    const server = start(['bin/server.js'], { PORT, ...more })
    const ask = async (method, path, body) => {
        const response = await fetch(`http://127.0.0.1:${PORT}${path}`, {
            method, body: body && JSON.stringify(body), headers: { 'content-type': 'application/json' },
            signal: AbortSignal.timeout(PATIENCE_MS),
        })

        return { status: response.status, ...(await response.json().catch(() => ({}))) }
    }
    const limit = Date.now() + PATIENCE_MS

    for (;;) {
        const answer = await ask('GET', '/reports/none').catch((error) => error)

        if (answer.status === 200) return { ask, ...server, child: server.child }
        if (server.ended || Date.now() > limit) assert.fail(`the server does not answer: ${answer.message ?? answer.status}\n${server.output}`)
        await sleep(20)
    }
}

const shared = new LockFactory(new NativeStore(`redis://127.0.0.1:${redis.port}`))

after(() => {
    for (const { child } of running) child.kill('SIGKILL')
    dynamo.close()
})

/* ---- tests ---- */

test('what @adonisjs/lock asks for as @verrou/core is this package, once', () => {
    const at = new URL('node_modules/@verrou/core/package.json', import.meta.url)

    assert.equal(JSON.parse(readFileSync(at, 'utf8')).name, 'libverrou')
    assert.equal(existsSync(new URL('node_modules/@adonisjs/lock/node_modules', import.meta.url)), false)
})

test('the table comes from the migration that AdonisJS writes', async () => {
    assert.match(await console_('migration:run', '--force'), /create_locks_table/)
})

let servers

test('LOCK_STORE chooses the default store, whose name is checked', async () => {
    servers = [await serve(), await serve()]
    const { output, code } = await start(['bin/server.js'], { LOCK_STORE: 'nowhere' }).end

    assert.notEqual(code, 0)
    assert.match(output, /LOCK_STORE/)
})

for (const store of [undefined, 'redis', 'database', 'dynamodb'])
    test(`deposits through two servers: ${store ?? 'the default store'}`, async () => {
        const account = `/accounts/${store ?? 'default'}/deposits`
        const deposits = Array.from({ length: 30 }, (_, i) => servers[i % 2].ask('POST', account, { store, amount: 1 }))
        const balances = (await Promise.all(deposits)).map(({ status, balance }) => (assert.equal(status, 200), balance))

        assert.deepEqual(balances.sort((a, b) => a - b), Array.from({ length: 30 }, (_, i) => i + 1))
    })

test('deposits through one server: memory', async () => {
    const deposits = Array.from({ length: 30 }, () => servers[0].ask('POST', '/accounts/memory/deposits', { store: 'memory', amount: 1 }))
    const balances = (await Promise.all(deposits)).map(({ balance }) => balance)

    assert.deepEqual(balances.sort((a, b) => a - b), Array.from({ length: 30 }, (_, i) => i + 1))
})

test('a default store of our own, and memory, chosen by LOCK_STORE', async () => {
    for (const LOCK_STORE of ['noop', 'memory']) {
        const held = shared.createLock(`account:own-${LOCK_STORE}`, '1m')
        const server = await serve({ LOCK_STORE })

        await held.acquire() /* nobody asks Redis for it */
        assert.equal((await server.ask('POST', `/accounts/own-${LOCK_STORE}/deposits`, { amount: 7 })).balance, 7)
        await held.release()
        server.child.kill('SIGTERM')
        assert.deepEqual({ code: (await server.end).code, signal: (await server.end).signal }, { code: 0, signal: null })
    }
})

test('a lock that somebody else holds, in another program, is waited for', async () => {
    const held = shared.createLock('account:waited', '1m')

    await held.acquire()
    let answered = false
    const deposit = servers[0].ask('POST', '/accounts/waited/deposits', { amount: 3 }).then((answer) => {
        answered = true
        return answer
    })

    /* A later request is answered first. */
    assert.equal((await servers[0].ask('POST', '/accounts/other/deposits', { amount: 1 })).balance, 1)
    assert.equal(answered, false)
    await held.release()
    assert.equal((await deposit).balance, 3)
})

/*
 * Only stores with connections of our own listen for releases, and go on for a while after the last wait. AdonisJS 7 puts a function of its own in the
 * place of the connection's sendCommand(), for tracing: then the given connection is used.
 */
test('the store over AdonisJS\'s connection to Redis goes native, unless commands are traced', async () => {
    const { Redis } = await import('ioredis')
    const { version } = JSON.parse(readFileSync(new URL('node_modules/@adonisjs/core/package.json', import.meta.url)))
    const client = new Redis(redis.port, '127.0.0.1')
    const held = shared.createLock('account:listened', '1m')
    const listeners = async () => Number((await client.pubsub('NUMSUB', 'account:listened'))[1])

    try {
        await held.acquire()
        const deposit = servers[0].ask('POST', '/accounts/listened/deposits', { store: 'redis', amount: 3 })
        const limit = Date.now() + PATIENCE_MS

        while (version.startsWith('6.') && (await listeners()) === 0) {
            assert.ok(Date.now() < limit, 'nobody listens')
            await sleep(20)
        }
        await held.release()
        assert.equal((await deposit).balance, 3)
        assert.equal(await listeners(), version.startsWith('6.') ? 1 : 0)
    } finally {
        client.disconnect()
    }
})

test('a lock of a controller is extended and released in a worker process', async () => {
    const order = await servers[0].ask('POST', '/reports/1')

    assert.equal(order.status, 202)
    assert.equal((await servers[1].ask('POST', '/reports/1')).status, 409, 'it is taken, for the other server too')
    assert.deepEqual(await servers[1].ask('GET', '/reports/1'), { status: 200, rendering: true, text: null })
    const info = await shared.createLock('report:1').isLocked()

    assert.equal(info, true, 'it is a lock that everybody sees')
    await console_('reports:render')
    const report = await servers[1].ask('GET', '/reports/1')

    assert.equal(report.rendering, false)
    assert.match(report.text, new RegExp(`^report 1, by \\d+ for ${order.owner}$`))
    assert.equal((await servers[1].ask('POST', '/reports/1')).status, 202)
})

test('a worker cannot use a lock that has got another owner meanwhile', async () => {
    await servers[0].ask('POST', '/reports/2')
    await shared.createLock('report:2').forceRelease()
    const taken = shared.createLock('report:2', '1m')

    await taken.acquire()
    assert.match(await console_('reports:render'), /report 2: the order is too old/)
    assert.equal(await taken.isLocked(), true)
    await taken.release()
    assert.equal((await servers[0].ask('GET', '/reports/2')).text, null)
})

test('the servers end when they are told to', async () => {
    for (const { child, end } of servers) {
        child.kill('SIGTERM')
        const { code, signal, output } = await end

        assert.deepEqual({ code, signal }, { code: 0, signal: null }, output)
    }
})
