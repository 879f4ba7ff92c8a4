export {
    E_INVALID_ARGUMENTS,
    E_LOCK_CONFIG,
    E_LOCK_LOST,
    E_LOCK_NOT_OWNED,
    E_LOCK_NOT_SUPPORTED,
    E_LOCK_STORAGE_ERROR,
    E_LOCK_STORE_CLOSED,
    E_LOCK_UNKNOWN_OUTCOME,
} from './errors.js'
export { Lock } from './lock.js'
export { LockFactory } from './lock_factory.js'
export { NativeStore, nativeStore } from './native_store.js'
export { Verrou } from './verrou.js'
