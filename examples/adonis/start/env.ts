import { Env } from '@adonisjs/core/env'

export default await Env.create(new URL('../', import.meta.url), {
    APP_KEY: Env.schema.string(),
    HOST: Env.schema.string({ format: 'host' }),
    PORT: Env.schema.number(),
    LOG_LEVEL: Env.schema.string(),

    LOCK_STORE: Env.schema.enum(['redis', 'database', 'dynamodb', 'memory', 'noop'] as const),

    REDIS_HOST: Env.schema.string({ format: 'host' }),
    REDIS_PORT: Env.schema.number(),
    DB_HOST: Env.schema.string({ format: 'host' }),
    DB_PORT: Env.schema.number(),
    DB_USER: Env.schema.string(),
    DB_PASSWORD: Env.schema.string.optional(),
    DB_DATABASE: Env.schema.string(),
    DYNAMODB_ENDPOINT: Env.schema.string(),
})
