import { Store } from '../store.js'

/** Locks inside one environment: the main thread's, or a worker's. */
export declare class MemoryStore extends Store {
    constructor()
}
export declare function memoryStore(): { factory: () => MemoryStore }
