/*
 * reports_controller.ts - a report is ordered here and rendered by another process (commands/render_reports.ts), one at a time for each id. The
 * lock is taken here, and travels with the order.
 */
import type { HttpContext } from '@adonisjs/core/http'
import locks from '@adonisjs/lock/services/main'
import redis from '@adonisjs/redis/services/main'

export default class ReportsController {
    async order({ params, response }: HttpContext) {
        const lock = locks.use('redis').createLock(`report:${params.id}`, '1m')

        if (!(await lock.acquireImmediately())) return response.status(409).send({ error: 'it is being rendered' })
        await redis.lpush('orders', JSON.stringify({ id: params.id, lock: lock.serialize() }))
        return response.status(202).send({ owner: lock.getOwner() })
    }

    async show({ params }: HttpContext) {
        return {
            rendering: await locks.use('redis').createLock(`report:${params.id}`).isLocked(),
            text: await redis.get(`text:${params.id}`),
        }
    }
}
