import { DynamoDBClient } from '@aws-sdk/client-dynamodb'
import { defineConfig, stores } from '@adonisjs/lock'
import type { InferLockStores } from '@adonisjs/lock/types'
import env from '#start/env'
import { noopStore } from '#locks/noop_store'

const lockConfig = defineConfig({
    default: env.get('LOCK_STORE'),
    stores: {
        redis: stores.redis({ connectionName: 'main' }),
        database: stores.database({ tableName: 'locks' }),
        dynamodb: stores.dynamodb({
            connection: new DynamoDBClient({
                region: 'local',
                endpoint: env.get('DYNAMODB_ENDPOINT'),
                credentials: { accessKeyId: 'none', secretAccessKey: 'none' },
            }),
            table: { name: 'locks' },
        }),
        memory: stores.memory(),
        noop: noopStore(),
    },
})

export default lockConfig

declare module '@adonisjs/lock/types' {
    export interface LockStoresList extends InferLockStores<typeof lockConfig> {}
}
