/*
 * noop_store.ts - a store of our own: everybody gets every lock. For tests of what the locks guard, where nothing else runs.
 */
import { configProvider } from '@adonisjs/core'
import type { LockStore } from '@adonisjs/lock/types'

export class NoopStore implements LockStore {
    async save(_key: string, _owner: string, _ttl: number | null) {
        return true
    }

    async delete(_key: string, _owner: string) {}

    async forceDelete(_key: string) {}

    async exists(_key: string) {
        return false
    }

    async extend(_key: string, _owner: string, _duration: number) {}
}

export function noopStore() {
    return configProvider.create(async () => ({ driver: { factory: () => new NoopStore() } }))
}
