/*
 * errors.js - the error classes. Their codes, and the constructors and texts of the first two, are those of @verrou/core.
 *
 * `instanceof` goes by the code: an E_LOCK_NOT_OWNED thrown by a store that was written for @verrou/core, with that package's class, is one.
 */
import { format } from 'node:util'

class Exception extends Error {
    constructor(message, options) {
        super(message, options)
        this.name = 'Exception'
        this.status = options?.status ?? this.constructor.status ?? 500
        const code = options?.code ?? this.constructor.code
        if (code !== undefined) this.code = code
        Error.captureStackTrace(this, this.constructor)
    }

    get [Symbol.toStringTag]() {
        return this.constructor.name
    }

    toString() {
        return this.code ? `${this.name} [${this.code}]: ${this.message}` : `${this.name}: ${this.message}`
    }
}

function createError(message, code, Base = Exception) {
    const Made = class extends Base {
        static message = message
        static code = code

        constructor(args, options) {
            super(Base === Exception ? undefined : args, options)
            this.message = format(message, ...(args ?? []))
        }

        static [Symbol.hasInstance](value) {
            return Function.prototype[Symbol.hasInstance].call(this, value) || (this === Made && value?.code === code)
        }
    }

    Object.defineProperty(Made, 'name', { value: code })
    return Made
}

/* Release or extend of a lock that this owner does not hold (any more). */
export const E_LOCK_NOT_OWNED = createError(
    'Looks like you are trying to update or release a lock that is not acquired by you',
    'E_LOCK_NOT_OWNED'
)

/* The store failed or could not be reached. `storeCode` is its own code, `retriable` whether trying again may help. */
export const E_LOCK_STORAGE_ERROR = createError('Lock storage error: %s', 'E_LOCK_STORAGE_ERROR')

/* The answer of the store was lost: the lock may or may not be held. An acquisition is being given up in the background. */
export const E_LOCK_UNKNOWN_OUTCOME = createError('%s', 'E_LOCK_UNKNOWN_OUTCOME', E_LOCK_STORAGE_ERROR)

/* The store was closed. */
export const E_LOCK_STORE_CLOSED = createError('%s', 'E_LOCK_STORE_CLOSED', E_LOCK_STORAGE_ERROR)

/* The reason of a `lost` signal: the lease has run out, or the store has given it to somebody else. */
export const E_LOCK_LOST = createError('The lock "%s" was lost', 'E_LOCK_LOST')

/* A store's address, a setting or the configuration of a Verrou is wrong. */
export const E_LOCK_CONFIG = createError('%s', 'E_LOCK_CONFIG')

/* The store cannot do this. */
export const E_LOCK_NOT_SUPPORTED = createError('%s', 'E_LOCK_NOT_SUPPORTED')

/* An argument is out of its range. The code is the one of @verrou/core for it. */
export const E_INVALID_ARGUMENTS = createError('%s', 'E_INVALID_ARGUMENTS_EXCEPTION')

/* A wait was cancelled; replaced by the reason of the AbortSignal before anybody sees it. */
const Canceled = createError('%s', 'E_LOCK_CANCELED')
const NoMemory = createError('%s', 'E_LOCK_NO_MEMORY')

const CLASSES = {
    VERROU_ENOTOWNED: E_LOCK_NOT_OWNED,
    VERROU_ELOST: E_LOCK_LOST,
    VERROU_ECANCELED: Canceled,
    VERROU_EUNKNOWN: E_LOCK_UNKNOWN_OUTCOME,
    VERROU_EINVAL: E_INVALID_ARGUMENTS,
    VERROU_ECONFIG: E_LOCK_CONFIG,
    VERROU_ENOTSUP: E_LOCK_NOT_SUPPORTED,
    VERROU_ENOMEM: NoMemory,
    VERROU_ECLOSED: E_LOCK_STORE_CLOSED,
}

/*
 * Errors that a store in JavaScript has thrown, on their way through the core to the caller, who gets them as they are. The core carries the
 * number. What nobody picks up (the failure of a release in the background) is dropped when many newer ones have come.
 */
const MAX_THROWN = 10000
const thrown = new Map()
let thrownCount = 0

export function keepThrown(error) {
    const code = `js#${++thrownCount}`

    if (thrown.size >= MAX_THROWN) thrown.delete(thrown.keys().next().value)
    thrown.set(code, error)
    return code
}

function takeThrown(code) {
    const error = thrown.get(code)

    thrown.delete(code)
    return error
}

/* That the outcome is unknown must not get lost behind the reason. */
function unknownBecause(cause) {
    if (cause instanceof E_LOCK_UNKNOWN_OUTCOME) return cause
    return new E_LOCK_UNKNOWN_OUTCOME([`the answer was lost: ${cause?.message ?? cause}`], { cause })
}

/* Makes the error for an outcome of the core: called by the addon. */
export function makeError(status, message, storeCode, retriable) {
    if (thrown.has(storeCode)) return status === 'VERROU_EUNKNOWN' ? unknownBecause(takeThrown(storeCode)) : takeThrown(storeCode)
    const Class = CLASSES[status] ?? E_LOCK_STORAGE_ERROR
    const error = new Class(Class.message.includes('%s') ? [message] : [])

    if (storeCode && !storeCode.startsWith('js#')) error.storeCode = storeCode
    if (error instanceof E_LOCK_STORAGE_ERROR) error.retriable = retriable
    return error
}
