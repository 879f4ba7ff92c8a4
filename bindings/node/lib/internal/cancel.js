/*
 * cancel.js - one cancel token of the core, and one listener, for all calls that an AbortSignal may end: Node.js warns of a leak when a signal
 * has more than ten listeners, and a thousand waits may well end with one.
 */
import { addon } from './addon.js'

const tokens = new WeakMap()

function tokenOf(signal) {
    let token = tokens.get(signal)

    if (!token) {
        const cancel = new addon.Cancel()

        token = { cancel, calls: 0, fire: () => cancel.fire() }
        tokens.set(signal, token)
    }
    return token
}

/* What `call(token)` comes to, which ends when the signal is aborted. */
export async function cancelledBy(signal, call) {
    const token = tokenOf(signal)

    if (token.calls++ === 0) signal.addEventListener('abort', token.fire)
    try {
        return await call(token.cancel)
    } finally {
        if (--token.calls === 0) signal.removeEventListener('abort', token.fire)
    }
}
