/*
 * servers.mjs - servers of our own for the tests: on loopback or a socket, in folders that go away, stopped by their id when the process ends.
 *
 * PostgreSQL and MariaDB refuse to run as root: then they run as "nobody", to whom their folder is given.
 */
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { chownSync, existsSync, mkdtempSync, openSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { connect, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'

const here = dirname(fileURLToPath(import.meta.url))
const PATIENCE_MS = 60_000
const ends = []

process.on('exit', () => {
    for (const end of ends.reverse()) end()
})
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => process.exit(1))

/* ---- programs ---- */

const root = process.getuid() === 0
const nobody = root ? { uid: idOf('-u'), gid: idOf('-g') } : {}

function idOf(which) {
    return Number(spawnSync('id', [which, 'nobody'], { encoding: 'utf8' }).stdout)
}

export function folder(given = false) {
    const made = mkdtempSync(join(tmpdir(), 'verrou-node-'))

    if (given && root) chownSync(made, nobody.uid, nobody.gid)
    ends.push(() => rmSync(made, { recursive: true, force: true }))
    return made
}

function program(name, folders, debian) {
    const found = [...folders, ...process.env.PATH.split(':')].map((at) => join(at, name)).find(existsSync)

    if (!found) throw new Error(`there is no program "${name}"; it is in the Debian package ${debian}`)
    return found
}

function run(path, args, options) {
    const { status, stderr, stdout, error } = spawnSync(path, args, { encoding: 'utf8', ...options })

    if (status !== 0) throw new Error(`${path} failed: ${error?.message ?? ''}${stderr}${stdout}`)
}

/* A program that ends with this process; { child, log }. */
function start(path, args, place, options = {}) {
    const log = join(place, 'log')
    const out = openSync(log, 'a', 0o666)
    const child = spawn(path, args, { stdio: ['ignore', out, out], cwd: place, ...options })
    const server = { child, log, ended: false }

    child.on('error', () => (server.ended = true))
    child.on('exit', () => (server.ended = true))
    child.unref()
    ends.push(() => {
        if (!server.ended) child.kill(options.endSignal ?? 'SIGKILL')
    })
    return server
}

export async function freePort() {
    const server = createServer().listen(0, '127.0.0.1')

    await once(server, 'listening')
    const { port } = server.address()

    server.close()
    await once(server, 'close')
    return port
}

/* Until `ask` does not fail any more. */
async function untilAnswers(server, ask) {
    const limit = Date.now() + PATIENCE_MS

    for (;;) {
        try {
            return await ask()
        } catch (error) {
            if (server.ended || Date.now() > limit) throw new Error(`no answer: ${error.message}\n${readFileSync(server.log, 'utf8')}`)
        }
        await sleep(20)
    }
}

export async function stop(server, signal = 'SIGKILL') {
    if (server.ended) return
    const gone = once(server.child, 'exit')

    server.child.ref()
    server.child.kill(signal)
    await gone
}

/* ---- Redis ---- */

async function ping(at) {
    const socket = connect(at)

    try {
        await once(socket, 'connect')
        socket.write('PING\r\n')
        const [data] = await once(socket, 'data')

        if (!String(data).startsWith('+PONG')) throw new Error(String(data))
    } finally {
        socket.destroy()
    }
}

/* On Debian the program is also called redis-check-rdb, which looks at its name. */
function redisPath() {
    for (const name of ['redis-server', 'redis-check-rdb']) {
        const found = process.env.PATH.split(':').map((at) => join(at, name)).find(existsSync)

        if (found) return found
    }
    throw new Error('there is no Redis server; it is in the Debian package redis-tools')
}

export async function startRedis({ port, args = [] } = {}) {
    const place = folder()
    const at = port ?? (await freePort())
    const server = start(redisPath(), ['--port', at, '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no', '--dir', place, ...args],
        place, { argv0: 'redis-server' })

    await untilAnswers(server, () => ping({ port: at, host: '127.0.0.1' }))
    return { server, port: at, url: `redis://127.0.0.1:${at}` }
}

/* A sentinel that watches a server by the name "main". */
export async function startSentinel(redis) {
    const place = folder()
    const port = await freePort()
    const config = join(place, 'sentinel.conf')

    writeFileSync(config, `port ${port}\nbind 127.0.0.1\ndir ${place}\nsentinel monitor main 127.0.0.1 ${redis.port} 1\n`)
    const server = start(redisPath(), [config, '--sentinel'], place, { argv0: 'redis-sentinel' })

    await untilAnswers(server, () => ping({ port, host: '127.0.0.1' }))
    return { server, port }
}

/* Three masters. */
export async function startCluster() {
    const { Redis } = await import('ioredis')
    const nodes = []

    for (let i = 0; i < 3; i++) {
        /* The port of the bus is that of the node and 10000: both have to be free, and below 65536. */
        const port = await freePort()
        const bus = await freePort()

        nodes.push(await startRedis({ port, args: ['--cluster-enabled', 'yes', '--cluster-port', bus, '--cluster-node-timeout', '5000'] }))
        nodes[i].client = new Redis(nodes[i].port, '127.0.0.1')
        nodes[i].bus = bus
    }
    for (const [i, { client }] of nodes.entries()) {
        await client.call('CLUSTER', 'ADDSLOTSRANGE', Math.ceil((i * 16384) / 3), Math.ceil(((i + 1) * 16384) / 3) - 1)
        await client.call('CLUSTER', 'SET-CONFIG-EPOCH', i + 1)
    }
    for (const { port, bus } of nodes.slice(1)) await nodes[0].client.call('CLUSTER', 'MEET', '127.0.0.1', port, bus)
    for (const { client, server } of nodes) {
        await untilAnswers(server, async () => {
            const info = await client.call('CLUSTER', 'INFO')

            if (!/cluster_state:ok/.test(info) || !/cluster_known_nodes:3/.test(info)) throw new Error(info)
        })
        client.disconnect()
    }
    return nodes.map(({ server, port }) => ({ server, port }))
}

/* ---- PostgreSQL ---- */

function postgresFolders() {
    const at = '/usr/lib/postgresql'

    return existsSync(at) ? readdirSync(at).sort((a, b) => b - a).map((version) => join(at, version, 'bin')) : []
}

export async function startPostgres() {
    const { default: pg } = await import('pg')
    const place = folder(true)
    const data = join(place, 'data')
    const port = await freePort()
    const tool = (name) => program(name, postgresFolders(), 'postgresql')

    run(tool('initdb'), ['-D', data, '-U', 'verrou', '-A', 'trust', '-E', 'UTF8', '--locale=C', '--no-sync'],
        { ...nobody, cwd: place })
    const server = start(tool('postgres'), ['-D', data, '-p', port, '-h', '127.0.0.1', '-k', place, '-F', '-c', 'max_connections=50'],
        place, { ...nobody, endSignal: 'SIGQUIT' })
    const connection = { host: '127.0.0.1', port, user: 'verrou', database: 'postgres' }

    await untilAnswers(server, async () => {
        const client = new pg.Client(connection)

        try {
            await client.connect()
        } finally {
            await client.end()
        }
    })
    return { server, connection, port, url: `postgres://verrou@127.0.0.1:${port}/postgres` }
}

/* ---- MariaDB ---- */

export async function startMariadb() {
    const { default: mysql } = await import('mysql2/promise')
    const place = folder(true)
    const data = join(place, 'data')
    const port = await freePort()
    const tool = (name) => program(name, ['/usr/bin', '/usr/sbin'], 'mariadb-server')

    run(tool('mariadb-install-db'), ['--no-defaults', `--datadir=${data}`, `--tmpdir=${place}`,
        '--auth-root-authentication-method=normal', '--skip-test-db', '--skip-name-resolve', '--innodb-log-file-size=8M'],
    { ...nobody, cwd: place })
    const server = start(tool('mariadbd'), ['--no-defaults', `--datadir=${data}`, `--tmpdir=${place}`, `--port=${port}`,
        '--bind-address=127.0.0.1', `--socket=${join(place, 'socket')}`, '--skip-name-resolve',
        '--innodb-flush-log-at-trx-commit=0', '--innodb-buffer-pool-size=16M', `--pid-file=${join(place, 'pid')}`],
    place, nobody)
    const connection = { host: '127.0.0.1', port, user: 'root', database: 'verrou' }

    await untilAnswers(server, async () => {
        const client = await mysql.createConnection({ ...connection, database: 'mysql' })

        await client.query('CREATE DATABASE IF NOT EXISTS verrou')
        await client.end()
    })
    return { server, connection, port, url: `mysql://root@127.0.0.1:${port}/verrou` }
}

/* ---- a way to a server that loses answers ---- */

/*
 * After loseNext(text) the next request that holds the text reaches the server, and its answer is lost with the connection. After hang()
 * nothing gets through, until go().
 */
export async function startProxy(port) {
    let lose = null
    let hanging = false
    const sockets = new Set()
    const lost = { count: 0 }
    const proxy = createServer((client) => {
        const server = connect(port, '127.0.0.1')
        let losing = false
        const end = () => {
            client.destroy()
            server.destroy()
            sockets.delete(client)
        }

        sockets.add(client)
        client.on('data', (data) => {
            if (hanging) return
            if (lose !== null && data.includes(lose)) {
                lose = null
                losing = true
            }
            server.write(data)
        })
        server.on('data', (data) => {
            if (hanging) return
            if (!losing) client.write(data)
            else {
                lost.count++
                end()
            }
        })
        for (const socket of [client, server]) socket.on('error', end).on('close', end)
    })

    proxy.listen(0, '127.0.0.1').unref()
    await once(proxy, 'listening')
    return {
        port: proxy.address().port,
        lost,
        loseNext: (text) => (lose = text),
        hang: () => (hanging = true),
        go: () => {
            hanging = false
            for (const socket of sockets) socket.destroy()
        },
        stop: () => {
            proxy.close()
            for (const socket of sockets) socket.destroy()
        },
    }
}

/* ---- programs of ours ---- */

/* Run a module in a Node.js of its own, with its clock ahead by `ahead` seconds if that is given. */
export async function runModule(code, { ahead, limit = PATIENCE_MS } = {}) {
    const node = [process.execPath, '--input-type=module', '-e', code]
    const [path, ...args] = ahead ? [program('faketime', [], 'faketime'), '-f', `+${ahead}s`, ...node] : node
    const child = spawn(path, args, {
        cwd: here, stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, FAKETIME_DONT_FAKE_MONOTONIC: '1' },
    })
    const output = { stdout: '', stderr: '' }
    const timer = setTimeout(() => child.kill('SIGKILL'), limit)

    child.stdout.on('data', (data) => (output.stdout += data))
    child.stderr.on('data', (data) => (output.stderr += data))
    const [status, signal] = await once(child, 'close')

    clearTimeout(timer)
    return { status, signal, ...output }
}
