/*
 * bench.mjs - the Node.js package beside @verrou/core, in the same run: bench.mjs [PART]. Servers of its own; each side is a process of its own, and
 * they are asked in turns, so that what disturbs the machine disturbs all. A ratio is the median of those of the turns.
 */
import { fork } from 'node:child_process'
import { once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'

import { startPostgres, startRedis } from './servers.mjs'

const TURNS = 7
const TURN_MS = 700
const wanted = process.argv[2]

function median(values) {
    const sorted = [...values].sort((a, b) => a - b)
    const middle = sorted.length >> 1

    return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2
}

/* ---- sides ---- */

async function side(what, store, address = 'memory:') {
    const child = fork(fileURLToPath(new URL('side.mjs', import.meta.url)), [what, store, address], { execArgv: ['--expose-gc'] })
    const pending = new Map()
    let last = 0

    child.on('exit', (code, signal) => {
        if (signal === 'SIGKILL') return
        console.error(`the side "${what}" of ${store} has ended`)
        process.exit(1)
    })
    await once(child, 'message')
    child.on('message', ({ id, value }) => {
        pending.get(id)(value)
        pending.delete(id)
    })
    return {
        ask: (call, args = {}) => new Promise((resolve) => {
            pending.set(++last, resolve)
            child.send({ id: last, what: call, ...args })
        }),
        stop: () => child.kill('SIGKILL'),
    }
}

/* { name: side } for a while. */
async function withSides(store, address, names, body) {
    const sides = {}

    for (const name of names) sides[name] = await side(name, store, address)
    await body(sides)
    for (const name of names) sides[name].stop()
}

/* ---- rows ---- */

const NAMES = { ours: 'libverrou', given: 'libverrou, native: false', native: 'libverrou, nativeStore()', theirs: '@verrou/core', mutex: 'async-mutex' }

function head(title, unit) {
    console.log(`\n${title}\n${''.padEnd(54)}${unit.padStart(12)}${'ratio'.padStart(10)}   aim`)
}

function row(what, name, value, digits, ratio, aim) {
    const shown = ratio === undefined ? '' : ratio.toFixed(2)

    console.log(`${`${what}, ${NAMES[name]}`.padEnd(54)}${value.toFixed(digits).padStart(12)}${shown.padStart(10)}   ${aim ?? ''}`)
}

/* Rates of all sides in turns, with ratios to theirs. */
async function rates(what, sides, tasks, aims) {
    const seen = Object.fromEntries(Object.keys(sides).map((name) => [name, []]))

    for (const name of Object.keys(sides)) await sides[name].ask('pairs', { tasks, ms: TURN_MS })
    for (let turn = 0; turn < TURNS; turn++)
        for (const name of Object.keys(sides)) seen[name].push(await sides[name].ask('pairs', { tasks, ms: TURN_MS }))
    const ratio = (name, of) => median(seen[name].map((one, turn) => of(one) / of(seen.theirs[turn])))

    for (const name of Object.keys(sides)) {
        const own = name === 'theirs' ? undefined : (of) => ratio(name, of)

        row(what, name, median(seen[name].map((one) => one.rate)), 0, own?.((one) => one.rate), own && aims.rate)
        row(`${what}: CPU us a pair`, name, median(seen[name].map((one) => one.cpu)), 1, own?.((one) => one.cpu), own && aims.cpu)
    }
}

/* ---- parts ---- */

const parts = {
    async memory() {
        head('Memory store: acquire and release', 'pairs/s')
        await withSides('memory', undefined, ['ours', 'theirs', 'mutex'], (sides) => rates('1 task', sides, 1, { rate: '>= 2' }))
    },

    async redis() {
        const { url } = await startRedis()

        head('Redis: acquire and release', 'pairs/s')
        await withSides('redis', url, ['ours', 'given', 'native', 'theirs'], async (sides) => {
            await rates('1 task', sides, 1, { rate: '>= 1' })
            await rates('64 tasks', sides, 64, { rate: '>= 1.1', cpu: '<= 0.6' })
        })
    },

    async postgres() {
        const { url } = await startPostgres()

        head('PostgreSQL: acquire and release', 'pairs/s')
        /* Each makes the table if it is the first: one after the other. */
        await withSides('postgres', url, ['theirs', 'ours', 'given', 'native'], async (sides) => {
            for (const one of Object.values(sides)) await one.ask('pairs', { tasks: 1, ms: 1 })
            await rates('64 tasks', sides, 64, { rate: '>= 5' })
        })
    },

    /* From the call of release() in one process to the end of acquire() in another. When the release comes does not follow the other's rhythm. */
    async handoff() {
        const { url } = await startRedis()
        const medians = {}

        head('Redis: from release() to acquire() in another process', 'us')
        for (const name of ['theirs', 'ours', 'native']) {
            const [one, other] = [await side(name, 'redis', url), await side(name, 'redis', url)]
            const times = []

            for (let turn = 0; turn < 15; turn++) {
                await one.ask('take', { key: 'key' })
                const taken = other.ask('take', { key: 'key' })

                await sleep(300 + turn * 17)
                const called = await one.ask('give', { key: 'key' })

                times.push((await taken) - called)
                await other.ask('give', { key: 'key' })
            }
            medians[name] = median(times)
            row('median of 15', name, medians[name], 0, name === 'theirs' ? undefined : medians.theirs / medians[name],
                name === 'theirs' ? '' : '>= 200')
            one.stop()
            other.stop()
        }
    },

    async waiting() {
        const { url } = await startRedis()
        const holder = await side('native', 'redis', url)

        await holder.ask('take', { key: 'held' })
        head('Redis: delay of the event loop, median and 99 of 100', 'us')
        for (const name of ['theirs', 'ours', 'native']) {
            const waiter = await side(name, 'redis', url)

            await waiter.ask('pairs', { tasks: 1, ms: 200 })
            const idle = await waiter.ask('delay', { ms: 3000 })

            await waiter.ask('wait', { key: 'held', count: 1000 })
            const busy = await waiter.ask('delay', { ms: 3000 })

            for (const [of, what] of [['median', 'median'], ['late', '99 of 100']]) {
                row(`idle, ${what}`, name, idle[of], 0)
                row(`1,000 wait, ${what}`, name, busy[of], 0, busy[of] / idle[of], '<= 1')
            }
            waiter.stop()
        }
        holder.stop()
    },

    async bytes() {
        const { url } = await startRedis()

        for (const [store, count] of [['memory', 20_000], ['redis', 5000]]) {
            let theirs

            head(`${store}: memory for a waiting acquire()`, 'bytes')
            for (const name of store === 'memory' ? ['theirs', 'ours'] : ['theirs', 'ours', 'native']) {
                const waiter = await side(name, store, url)

                await waiter.ask('pairs', { tasks: 1, ms: 300 })
                await waiter.ask('take', { key: `held:${name}` })
                await waiter.ask('wait', { key: `held:${name}`, count }) /* room that was there already is used up */
                const bytes = await waiter.ask('wait', { key: `held:${name}`, count })

                theirs ??= bytes
                row(`each of the second ${count}`, name, bytes, 0, name === 'theirs' ? undefined : bytes / theirs, '<= 0.5')
                waiter.stop()
            }
        }
    },
}

if (wanted !== undefined && !Object.hasOwn(parts, wanted)) {
    console.error(`there is no part "${wanted}"; there are: ${Object.keys(parts).join(', ')}`)
    process.exit(2)
}
for (const [name, part] of Object.entries(parts)) if (wanted === undefined || wanted === name) await part()
process.exit()
