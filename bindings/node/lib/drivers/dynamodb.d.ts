import type { DynamoDbOptions } from '../types.js'
import { Store } from '../store.js'

/** Locks in a DynamoDB table. Expiry goes by the clocks of those who ask. */
export declare class DynamoDBStore extends Store {
    constructor(config: DynamoDbOptions)
}
export declare function dynamodbStore(config: DynamoDbOptions): { factory: () => DynamoDBStore }
