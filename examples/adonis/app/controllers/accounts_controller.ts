/*
 * accounts_controller.ts - a balance that is read, raised and written. Without a lock around the three, two deposits at once are one.
 */
import type { HttpContext } from '@adonisjs/core/http'
import locks from '@adonisjs/lock/services/main'
import redis from '@adonisjs/redis/services/main'
import { setImmediate as elsewhere } from 'node:timers/promises'
import env from '#start/env'

/* The store that is asked for, or else that of LOCK_STORE. */
function lockFor(key: string, store: 'redis' | 'database' | 'dynamodb' | 'memory' | 'noop' = env.get('LOCK_STORE')) {
    return locks.use(store).createLock(key, '30s')
}

export default class AccountsController {
    async deposit({ params, request, response }: HttpContext) {
        const key = `balance:${params.id}` /* locks in Redis are keys as well: they need names of their own */
        const amount = Number(request.input('amount'))
        const [executed, balance] = await lockFor(`account:${params.id}`, request.input('store')).run(async () => {
            const before = Number(await redis.get(key))

            await elsewhere()
            await redis.set(key, String(before + amount))
            return before + amount
        })

        return executed ? { balance } : response.status(503).send({ error: 'busy' })
    }
}
