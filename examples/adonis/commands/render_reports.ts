/*
 * render_reports.ts - the worker process: takes orders from a list in Redis, with the locks that the controller has taken for them.
 */
import { BaseCommand } from '@adonisjs/core/ace'
import type { CommandOptions } from '@adonisjs/core/types/ace'
import { errors } from '@adonisjs/lock'
import locks from '@adonisjs/lock/services/main'
import redis from '@adonisjs/redis/services/main'

export default class RenderReports extends BaseCommand {
    static commandName = 'reports:render'
    static description = 'Render the reports that were ordered'
    static options: CommandOptions = { startApp: true }

    async run() {
        for (;;) {
            const order = await redis.rpop('orders')

            if (order === null) return
            await this.render(JSON.parse(order))
        }
    }

    async render(order: { id: string; lock: any }) {
        const lock = locks.use('redis').restoreLock(order.lock)

        try {
            await lock.extend('5m')
            await redis.set(`text:${order.id}`, `report ${order.id}, by ${process.pid} for ${lock.getOwner()}`)
            await lock.release()
        } catch (error) {
            if (!(error instanceof errors.E_LOCK_NOT_OWNED)) throw error
            this.logger.warning(`report ${order.id}: the order is too old`)
        }
    }
}
