/*
 * durations.js - durations as @verrou/core takes them: milliseconds, a text such as "10s", or null for none. Zero, negative numbers and
 * what is no duration are refused; the core decides what a text means.
 */
import { E_INVALID_ARGUMENTS } from '../errors.js'
import { addon } from './addon.js'

const ZERO = /^\s*0+(?=\s*[a-z]+\s*$)/i

/* The core has no durations of nothing: in their case it is asked whether it knows the unit. */
function readText(value, zero) {
    if (!zero || !ZERO.test(value)) return addon.parseDuration(value)
    addon.parseDuration(value.replace(ZERO, '1'))
    return 0
}

/* Milliseconds, null for none, undefined for "not given". `zero`: whether 0 is allowed. */
export function readDuration(what, value, zero = false) {
    if (value === undefined || value === null) return value
    if (typeof value === 'string') return readText(value, zero)
    if (Number.isFinite(value) && (value > 0 || (zero && value === 0))) return Math.max(Math.round(value), zero ? 0 : 1)
    throw new E_INVALID_ARGUMENTS([`${what}: ${String(value)} is no duration`])
}

/* How often, how long between, how long in all (0, as in @verrou/core: no limit), in the form of a Lock's config; what is not given comes from `defaults`. */
export function readRetry(retry, defaults) {
    const attempts = retry?.attempts ?? defaults.attempts
    const timeout = readDuration('retry.timeout', retry?.timeout === Infinity ? null : retry?.timeout, true)

    if (attempts !== Infinity && !(Number.isInteger(attempts) && attempts >= 1))
        throw new E_INVALID_ARGUMENTS([`retry.attempts: ${String(attempts)} is no number of attempts`])
    return {
        attempts,
        delay: Math.max(1, readDuration('retry.delay', retry?.delay, true) ?? defaults.delay),
        timeout: timeout === undefined ? defaults.timeout : timeout || undefined,
    }
}
