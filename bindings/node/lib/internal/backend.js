/*
 * backend.js - the way from the core to a store that is made in JavaScript. docs/internals/node.md describes what a backend is:
 *
 *     acquire(key, owner, ttl, context), release(key, owner, context), extend(key, owner, ttl, context), force(key, context),
 *     inspect(key, context)
 *
 * each of which answers true, false, or an object that says more, or throws.
 */
import { keepThrown } from '../errors.js'

/* verrou_op_kind and verrou_op_result */
const ACQUIRE = 1, RELEASE = 2, EXTEND = 3, FORCE = 4, INSPECT = 5
const APPLIED = 1, REFUSED = 2, RETRY = 3, FAILED = 4, UNKNOWN = 5

const OUTCOME = Symbol('outcome')

/* Throw what these return to say that nothing was changed and that trying again may help; or that it is not known what was changed. */
export function passing(error) {
    return { [OUTCOME]: RETRY, error }
}
export function unknown(error) {
    return { [OUTCOME]: UNKNOWN, error }
}
/* The caller is told "not owned", in the store's own words. */
export function refused(error) {
    return { [OUTCOME]: REFUSED, error }
}

function call(backend, kind, key, owner, ttl, context) {
    switch (kind) {
        case ACQUIRE: return backend.acquire(key, owner, ttl, context)
        case RELEASE: return backend.release(key, owner, context)
        case EXTEND: return backend.extend(key, owner, ttl, context)
        case FORCE: return backend.force(key, context)
        case INSPECT: return backend.inspect(key, context)
        default: throw new Error(`request of kind ${kind}`)
    }
}

function answerWith(store, number, answer) {
    const more = answer !== null && typeof answer === 'object' ? answer : { applied: Boolean(answer) }
    const remaining = more.remaining === null ? Infinity : more.remaining

    store.answer(number, more.applied ? APPLIED : REFUSED, more.owner, remaining, more.fence ?? 0)
}

/* A text for the core and its events. Whatever was thrown: an exception here would leave a request without an answer. */
function wordsOf(error) {
    try {
        return String(error?.message || error).replace(/^Lock storage error: /, '').replaceAll('\0', '\\0') || 'failed'
    } catch {
        return 'failed'
    }
}

function answerThrown(store, number, thrown) {
    const outcome = thrown?.[OUTCOME] ?? FAILED
    const error = thrown?.[OUTCOME] ? thrown.error : thrown

    store.answer(number, outcome, undefined, undefined, 0, outcome === RETRY, wordsOf(error), keepThrown(error))
}

/*
 * Hand a request to the backend. Whatever it does is answered once: a promise that is not settled by the limit leaves the outcome unknown,
 * and the addon ignores what comes later. The timer keeps no process alive: who waits does.
 */
async function serve(store, backend, number, kind, key, owner, ttl, fence, limit) {
    let timer

    try {
        const late = new Promise((resolve, reject) => {
            timer = setTimeout(() => reject(unknown(new Error(`the store did not answer within ${limit} ms`))), limit)
            timer.unref()
        })
        const context = { fence, limit }
        const answer = call(backend, kind, key, owner, ttl === Infinity ? null : ttl, context)

        answerWith(store, number, await Promise.race([answer, late]))
    } catch (thrown) {
        answerThrown(store, number, thrown)
    } finally {
        clearTimeout(timer)
    }
}

/* Connect the addon's store with a backend. */
export function attachBackend(store, backend) {
    store.onRequest = (...request) => {
        serve(store, backend, ...request)
    }
}

/* A LockStore of @verrou/core, which has five calls, as a backend. Whatever is true, a row or a document too, is "yes", as there. */
export function lockStoreBackend(lockStore) {
    const own = async (attempt) => {
        try {
            await attempt()
            return true
        } catch (error) {
            throw error?.code === 'E_LOCK_NOT_OWNED' ? refused(error) : error
        }
    }

    return {
        acquire: async (key, owner, ttl) => Boolean(await lockStore.save(key, owner, ttl)),
        release: (key, owner) => own(() => lockStore.delete(key, owner)),
        extend: (key, owner, ttl) => own(() => lockStore.extend(key, owner, ttl)),
        force: (key) => own(() => lockStore.forceDelete(key)),
        inspect: async (key) => Boolean(await lockStore.exists(key)),
    }
}
