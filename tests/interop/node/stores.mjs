// stores.mjs - the stores of the original that the tests drive it on: each is opened at an address and answers
// { driver, close }. Packages are imported when used, so that a test of one store does not load the clients of all.

async function redis(address) {
    const { Redis } = await import('ioredis')
    const { redisStore } = await import('@verrou/core/drivers/redis')
    const connection = new Redis(address)

    connection.on('error', (error) => console.error(`redis: ${error.message}`))
    return { driver: redisStore({ connection }), close: () => connection.disconnect() }
}

async function overKnex(client, address) {
    const { default: knex } = await import('knex')
    const { knexStore } = await import('@verrou/core/drivers/knex')
    const connection = knex({ client, connection: address, pool: { min: 0, max: 5 } })

    return { driver: knexStore({ connection }), close: () => connection.destroy() }
}

async function kysely(address) {
    const { default: pg } = await import('pg')
    const { Kysely, PostgresDialect } = await import('kysely')
    const { kyselyStore } = await import('@verrou/core/drivers/kysely')
    const pool = new pg.Pool({ connectionString: address, max: 5 })
    const connection = new Kysely({ dialect: new PostgresDialect({ pool }) })

    return { driver: kyselyStore({ connection }), close: () => connection.destroy() }
}

export const stores = {
    redis,
    kysely,
    postgres: (address) => overKnex('pg', address),
    mysql: (address) => overKnex('mysql2', address),
}
