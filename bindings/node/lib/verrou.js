/*
 * verrou.js - named stores, each opened when it is first used.
 */
import { E_LOCK_CONFIG } from './errors.js'
import { childLogger } from './internal/logger.js'
import { LockFactory } from './lock_factory.js'

export class Verrou {
    #default
    #stores
    #factories = new Map()
    #logger

    constructor(config) {
        if (!config?.stores || Object.keys(config.stores).length === 0)
            throw new E_LOCK_CONFIG(['no "stores" are configured'])
        if (!config.default) throw new E_LOCK_CONFIG(['no "default" store is configured'])
        this.#stores = config.stores
        this.#default = config.default
        this.#find(config.default)
        this.#logger = childLogger(config.logger)
    }

    #find(name) {
        if (Object.hasOwn(this.#stores, name)) return this.#stores[name]
        const known = Object.keys(this.#stores).join(', ')

        throw new E_LOCK_CONFIG([`there is no store "${String(name)}"; there are: ${known}`])
    }

    use(name = this.#default) {
        let factory = this.#factories.get(name)

        if (!factory) {
            const { driver } = this.#find(name) ?? {}

            if (typeof driver?.factory !== 'function')
                throw new E_LOCK_CONFIG([`store "${String(name)}": it has no "driver" with a "factory"`])
            factory = new LockFactory(driver.factory(), { logger: this.#logger, name })
            this.#factories.set(name, factory)
        }
        return factory
    }

    createLock(name, ttl, options) {
        return this.use().createLock(name, ttl, options)
    }

    /* On the store that the serialised lock names, or else on the default one. */
    restoreLock(lock, options) {
        const named = lock?.store !== undefined && Object.hasOwn(this.#stores, lock.store)

        return this.use(named ? lock.store : undefined).restoreLock(lock, options)
    }
}
