// bench.mjs - the original at work: bench.mjs ADDRESS TASKS. For each line with a number of milliseconds, TASKS tasks at the same time
// take and give back a lock of their own for so long; the answer is the number of pairs a second.
import { createInterface } from 'node:readline'
import { LockFactory } from '@verrou/core'
import { redisStore } from '@verrou/core/drivers/redis'
import { Redis } from 'ioredis'

const [, , address, tasks] = process.argv
const connection = new Redis(address)
const factory = new LockFactory(redisStore({ connection }).factory())
const locks = Array.from({ length: Number(tasks) }, (_, i) => factory.createLock(`original:${i}`, 600000))

async function run(ms) {
    const begun = performance.now()
    let pairs = 0

    await Promise.all(
        locks.map(async (lock) => {
            while (performance.now() - begun < ms) {
                await lock.acquire()
                await lock.release()
                pairs++
            }
        }),
    )
    return (pairs * 1000) / (performance.now() - begun)
}

for await (const line of createInterface({ input: process.stdin })) console.log(await run(Number(line)))
connection.disconnect()
