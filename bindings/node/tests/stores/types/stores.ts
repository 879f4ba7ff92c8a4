/* stores.ts - what an application that was written for @verrou/core says about its stores. */
import { DynamoDBClient } from '@aws-sdk/client-dynamodb'
import { Cluster, Redis } from 'ioredis'
import knex from 'knex'
import { Kysely } from 'kysely'
import { Verrou } from 'libverrou'
import { DatabaseStore } from 'libverrou/drivers/database'
import { DynamoDBStore, dynamodbStore } from 'libverrou/drivers/dynamodb'
import { KnexAdapter, knexStore } from 'libverrou/drivers/knex'
import { KyselyAdapter, kyselyStore } from 'libverrou/drivers/kysely'
import { RedisStore, redisStore } from 'libverrou/drivers/redis'
import type { DatabaseAdapter, LockStore, RedisStoreOptions, KnexStoreOptions } from 'libverrou/types'
import type {
    KnexStoreOptions as OriginalKnexStoreOptions, RedisStoreOptions as OriginalRedisStoreOptions,
} from '@verrou/core/types'

declare const kysely: Kysely<{ verrou: { key: string } }>
const redis = new Redis()
const overKnex = knex({ client: 'pg' })

const verrou = new Verrou({
    default: 'redis',
    stores: {
        redis: { driver: redisStore({ connection: redis }) },
        cluster: { driver: redisStore({ connection: new Cluster([]) }) },
        knex: { driver: knexStore({ connection: overKnex, tableName: 'locks', autoCreateTable: false }) },
        kysely: { driver: kyselyStore({ connection: kysely }) },
        dynamodb: { driver: dynamodbStore({ connection: new DynamoDBClient({}), table: { name: 'locks' } }) },
    },
})

verrou.use('kysely').createLock('a')
// @ts-expect-error: there is no such store
verrou.use('mysql')

const stores: LockStore[] = [
    new RedisStore({ connection: redis }),
    new DynamoDBStore({ connection: new DynamoDBClient({}), table: { name: 'locks' } }),
    new DatabaseStore(new KnexAdapter(overKnex), {}),
    new DatabaseStore(new KyselyAdapter(kysely), { tableName: 'locks' }),
]
const adapters: DatabaseAdapter[] = [new KnexAdapter(overKnex), new KyselyAdapter(kysely)]
const options: [RedisStoreOptions, KnexStoreOptions] = [{ connection: redis }, { connection: overKnex }]

class Mine extends KnexAdapter {
    async insertLock(lock: { key: string; owner: string; expiration: number | null }) {
        await super.insertLock(lock)
    }
}

export { adapters, Mine, options, stores }
// @ts-expect-error: it needs a connection
redisStore({})
// @ts-expect-error: it needs a table
dynamodbStore({ connection: new DynamoDBClient({}) })
const made: DatabaseStore = knexStore({ connection: overKnex }).factory()
const config: KnexStoreOptions = knexStore({ connection: overKnex }).config
const natively: [RedisStoreOptions, KnexStoreOptions] = [{ connection: redis, native: true }, { connection: overKnex, native: false }]
const used: 'native' | 'given' | undefined = new RedisStore(natively[0]).connectionUsed
const why: string | undefined = made.whyGiven
new DatabaseStore(new KnexAdapter(overKnex), { native: true })
// @ts-expect-error: it is a yes, a no, or nothing
redisStore({ connection: redis, native: 'always' })
// @ts-expect-error: it cannot be told
made.connectionUsed = 'native'

/* What was declared for the options of the original is good for ours; and ours over Knex, with its extra, for it. */
declare const theirs: OriginalRedisStoreOptions
const ours: RedisStoreOptions = theirs
const theirsOverKnex: OriginalKnexStoreOptions = natively[1]
const oursOverKnex: KnexStoreOptions = theirsOverKnex

export { config, made, ours, oursOverKnex, used, why }
