// stores.mjs - the stores of the original that the tests drive it on: each is opened at an address and answers
// { driver, close }. Packages are imported when used, so that a test of one store does not load the clients of all.

async function redis(address) {
    const { Redis } = await import('ioredis')
    const { redisStore } = await import('@verrou/core/drivers/redis')
    const connection = new Redis(address)

    connection.on('error', (error) => console.error(`redis: ${error.message}`))
    return { driver: redisStore({ connection }), close: () => connection.disconnect() }
}

export const stores = { redis }
