/*
 * support.mjs - what the tests share: child processes, a folder that goes away, a Redis server of our own, a proxy that loses answers.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { connect, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'

export const here = dirname(fileURLToPath(import.meta.url))

const ends = []

/* Undo what was done, when the process ends: servers are stopped by their id, folders removed. */
function atEnd(action) {
    ends.push(action)
}
process.on('exit', () => {
    for (const action of ends.reverse()) action()
})
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => process.exit(1))

export function folder() {
    const made = mkdtempSync(join(tmpdir(), 'verrou-node-'))

    atEnd(() => rmSync(made, { recursive: true, force: true }))
    return made
}

/* Run a program of ours in a Node.js of its own; `code` is a module beside the tests. */
export async function runModule(code, { args = [], env = {}, limit = 60_000 } = {}) {
    const child = spawn(process.execPath, [...process.execArgv.filter((arg) => !arg.startsWith('--test')), ...args,
        '--input-type=module', '-e', code], { cwd: here, env: { ...process.env, NODE_TEST_CONTEXT: '', ...env } })
    const output = { stdout: '', stderr: '' }
    const timer = setTimeout(() => child.kill('SIGKILL'), limit)

    child.stdout.on('data', (data) => (output.stdout += data))
    child.stderr.on('data', (data) => (output.stderr += data))
    const [code_, signal] = await once(child, 'close')

    clearTimeout(timer)
    return { code: code_, signal, ...output }
}

/* What `promise` comes to, or "pending" if that takes longer than `limit`. */
export async function within(limit, promise) {
    const timer = new AbortController()

    try {
        return await Promise.race([
            promise.then((value) => ({ value }), (error) => ({ error })),
            sleep(limit, 'pending', { signal: timer.signal }),
        ])
    } finally {
        timer.abort()
    }
}

async function answers(path) {
    const socket = connect(path)

    try {
        await once(socket, 'connect')
        socket.write('PING\r\n')
        const [data] = await once(socket, 'data')

        return String(data).startsWith('+PONG')
    } catch {
        return false
    } finally {
        socket.destroy()
    }
}

/* A Redis server on a socket in a folder. On Debian the program is also called redis-check-rdb, which looks at its name. */
export async function startRedis() {
    const place = folder()
    const path = join(place, 'redis.sock')
    const args = ['--port', '0', '--unixsocket', path, '--save', '', '--appendonly', 'no', '--dir', place]

    for (const program of ['redis-server', 'redis-check-rdb']) {
        const server = spawn(program, args, { argv0: 'redis-server', stdio: 'ignore' })
        let failed = false

        server.on('error', () => (failed = true))
        server.on('exit', () => (failed = true))
        server.unref()
        atEnd(() => server.kill())
        for (let i = 0; i < 500 && !failed; i++) {
            if (await answers(path)) return { path, url: `redis+unix://${path}` }
            await sleep(20)
        }
    }
    throw new Error('no Redis server can be started; it is in the Debian package redis-tools')
}

/*
 * A way to a server that can lose answers: after loseNext(text) the next request that holds the text reaches the server, and its answer is lost
 * with the connection. After hang() nothing gets through.
 */
export async function startProxy(path) {
    let lose = null
    let hanging = false
    const sockets = new Set()
    const lost = { count: 0 }
    const proxy = createServer((client) => {
        const server = connect(path)
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
            if (losing) {
                lost.count++
                end()
            } else client.write(data)
        })
        for (const socket of [client, server]) socket.on('error', end).on('close', end)
    })

    proxy.listen(0, '127.0.0.1')
    await once(proxy, 'listening')
    return {
        port: proxy.address().port,
        url: `redis://127.0.0.1:${proxy.address().port}`,
        lost,
        loseNext: (text) => (lose = text),
        hang: () => (hanging = true),
        stop: () => {
            for (const socket of sockets) socket.destroy()
            proxy.close()
        },
    }
}

/* A LockStore as an application would write it, right in all points, with a count of its calls. */
export function mapStore(E_LOCK_NOT_OWNED) {
    const locks = new Map()
    const live = (key) => {
        const lock = locks.get(key)

        return lock && (lock.until === null || lock.until > Date.now()) ? lock : undefined
    }
    const owned = (key, owner) => {
        if (live(key)?.owner !== owner) throw new E_LOCK_NOT_OWNED()
        return live(key)
    }

    return {
        locks,
        calls: [],
        async save(key, owner, ttl) {
            this.calls.push(['save', key, owner, ttl])
            if (live(key)) return false
            locks.set(key, { owner, until: ttl === null ? null : Date.now() + ttl })
            return true
        },
        async delete(key, owner) {
            this.calls.push(['delete', key, owner])
            owned(key, owner)
            locks.delete(key)
        },
        async forceDelete(key) {
            this.calls.push(['forceDelete', key])
            locks.delete(key)
        },
        async exists(key) {
            this.calls.push(['exists', key])
            return Boolean(live(key))
        },
        async extend(key, owner, duration) {
            this.calls.push(['extend', key, owner, duration])
            owned(key, owner).until = Date.now() + duration
        },
    }
}
