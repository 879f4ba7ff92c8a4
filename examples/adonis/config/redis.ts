import { defineConfig } from '@adonisjs/redis'
import type { InferConnections } from '@adonisjs/redis/types'
import env from '#start/env'

const redisConfig = defineConfig({
    connection: 'main',
    connections: { main: { host: env.get('REDIS_HOST'), port: env.get('REDIS_PORT') } },
})

export default redisConfig

declare module '@adonisjs/redis/types' {
    export interface RedisConnections extends InferConnections<typeof redisConfig> {}
}
