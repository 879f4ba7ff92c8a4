/*
 * memory.js - locks inside one environment: the main thread's, or a worker's.
 */
import { AddressStore } from '../internal/store.js'

export class MemoryStore extends AddressStore {
    constructor() {
        super('memory:', { longKeys: true })
    }
}

export function memoryStore() {
    return { factory: () => new MemoryStore() }
}
