/*
 * logger.js - the core's events in a logger with the interface of @verrou/core (pino's). Its four texts are kept for what it logged, too.
 *
 * Events belong to a store: each logger that somebody gave with a store gets all of them.
 */
const LEVELS = { 10: 'trace', 20: 'debug', 30: 'info', 40: 'warn', 50: 'error' }
const TEXTS = {
    'lock.acquired': 'Lock acquired',
    'lock.released': 'Lock released',
    'lock.extended': 'Lock extended',
    'lock.force_released': 'Lock force released',
    'lock.not_acquired': 'Lock not acquired',
}

export const NO_LOGGING = 100

const nothing = () => {}
const noop = Object.freeze({
    trace: nothing, debug: nothing, info: nothing, warn: nothing, error: nothing, fatal: nothing, child: () => noop,
})

const children = new WeakMap()

/*
 * The logger of a factory. As in @verrou/core it is a child with the name of the package. Always the same one: a store tells each logger that it was
 * given, and an application may make a factory for each request.
 */
export function childLogger(logger) {
    if (!logger || logger === noop) return noop
    if (typeof logger.child !== 'function') return logger
    if (!children.has(logger)) children.set(logger, logger.child({ pkg: 'verrou' }))
    return children.get(logger)
}

export function isNoop(logger) {
    return !logger || logger === noop
}

/* The level from which on a logger wants events; one that does not say gets those for debugging, too. */
export function wantedLevel(logger) {
    if (isNoop(logger)) return NO_LOGGING
    try {
        const wants = (name) => logger.isLevelEnabled?.(name) ?? name !== 'trace'

        return Number(Object.keys(LEVELS).find((level) => wants(LEVELS[level])) ?? NO_LOGGING)
    } catch {
        return 20
    }
}

export function report(loggers, level, event, key, owner, message, value, dropped) {
    const record = { event }

    if (key) record.key = key
    if (owner) record.owner = owner
    if (value) record.value = value
    if (dropped) record.dropped = dropped
    for (const logger of loggers) {
        try {
            logger[LEVELS[level] ?? 'info']?.({ ...record }, TEXTS[event] ?? (message || event))
        } catch {
            /* A logger that throws is no reason to lose a lock, or to keep the others from hearing. */
        }
    }
}
