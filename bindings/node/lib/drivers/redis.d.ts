import type { RedisStoreOptions } from '../types.js'
import { ChosenStore } from '../store.js'

/** Locks in Redis through an ioredis connection: a single server, Sentinel or a cluster. */
export declare class RedisStore extends ChosenStore {
    constructor(options: RedisStoreOptions)
}
export declare function redisStore(options: RedisStoreOptions): { factory: () => RedisStore }
