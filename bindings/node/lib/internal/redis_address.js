/*
 * redis_address.js - what an ioredis connection would be called by, if it were one of ours: { url }, or { why } it cannot be told.
 *
 * Everything that is not known to be harmless is a reason: two connections that differ in where they lead, or as whom, are two stores. ioredis is not
 * imported (an application may have another copy of it), so its class is known by its looks. What cannot be seen is left to the proof.
 */
import { isIP } from 'node:net'
import { types } from 'node:util'

/* Options that say where and as whom. */
const SAID = ['host', 'port', 'path', 'family', 'db', 'username', 'password', 'keyPrefix']

/* Options that change neither; those of Sentinel do nothing without `sentinels`. */
const HARMLESS = new Set([
    'connectTimeout', 'disconnectTimeout', 'socketTimeout', 'commandTimeout', 'blockingTimeout', 'blockingTimeoutGrace', 'retryStrategy',
    'reconnectOnError', 'keepAlive', 'noDelay', 'connectionName', 'disableClientInfo', 'clientInfoTag', 'name', 'role', 'preferredSlaves',
    'sentinelRetryStrategy', 'sentinelReconnectStrategy', 'sentinelCommandTimeout', 'sentinelUsername', 'sentinelPassword', 'sentinelMaxConnections',
    'enableTLSForSentinelMode', 'updateSentinels', 'failoverDetector', 'enableOfflineQueue', 'enableReadyCheck', 'autoResubscribe',
    'autoResendUnfulfilledCommands', 'lazyConnect', 'stringNumbers', 'maxRetriesPerRequest', 'maxLoadingRetryTime', 'enableAutoPipelining',
    'autoPipeliningIgnoredCommands', 'showFriendlyErrorStack', 'scripts',
])
/* Options that matter as soon as they are on. */
const OFF = ['sentinels', 'tls', 'natMap', 'Connector', 'readOnly', 'monitor']

/* What a request goes through. Commands are made by one function of ioredis, and look alike; the others are methods of its class. */
const COMMANDS = ['eval', 'evalsha', 'get', 'set', 'hset', 'lpush']
const METHODS = ['sendCommand', 'connect', 'disconnect']
const ALSO = ['on', 'emit', 'call', 'select', 'auth', 'quit']
const FIELDS = ['options', 'status', 'condition', 'connector']

const source = (value) => (typeof value === 'function' ? Function.prototype.toString.call(value) : '')
const has = (object, name) => Object.hasOwn(object, name)
const isComputed = (object, name) => Boolean(Object.getOwnPropertyDescriptor(object, name)?.get)

function whyNotPlain(connection) {
    if (connection === null || typeof connection !== 'object') return 'the connection is not of ioredis'
    if (types.isProxy(connection)) return 'the connection is behind a Proxy'
    if (connection.isCluster) return 'the connection is a cluster'
    const prototype = Object.getPrototypeOf(connection)
    const commander = prototype && Object.getPrototypeOf(prototype)

    /* The class itself is out of reach: its prototype's `constructor` is that of an EventEmitter. */
    if (!METHODS.every((name) => has(prototype ?? {}, name)) || !commander || !has(commander, 'defineCommand') ||
        Object.getPrototypeOf(Object.getPrototypeOf(commander) ?? {}) !== null)
        return 'the connection is not of the class Redis of ioredis itself'
    return whyReplaced(connection, prototype)
}

function whyReplaced(connection, prototype) {
    const replaced = [...COMMANDS, ...METHODS, ...ALSO].find((name) => has(connection, name)) ?? FIELDS.find((name) => isComputed(connection, name))

    if (replaced) return `the connection has a "${replaced}" of its own`
    const odd = METHODS.find((name) => !source(prototype[name]).startsWith(`${name}(`)) ??
        COMMANDS.find((name) => source(prototype[name]) !== source(prototype.zadd) || !source(prototype[name]).includes('sendCommand'))

    if (odd) return `"${odd}" of ioredis was replaced`
    if (connection.connector?.constructor?.name !== 'StandaloneConnector' && !connection.options?.sentinels)
        return 'the connection has a connector of its own'
    return undefined
}

const isSet = (value) => value !== undefined && value !== null

function whyOptions(options) {
    for (const name of OFF) if (options[name]) return `the option ${name} is set`
    for (const name in options)
        if (isSet(options[name]) && !SAID.includes(name) && !OFF.includes(name) && !HARMLESS.has(name)) return `the option ${name} is not known`
    for (const name of ['username', 'password', 'keyPrefix', 'host', 'path'])
        if (isSet(options[name]) && typeof options[name] !== 'string') return `the option ${name} is not a text`
    if (!Number.isInteger(options.db) || options.db < 0) return 'the option db is not the number of a database'
    if (options.username && !options.password) return 'there is a username and no password'
    return undefined
}

/* The state that the application has brought the connection into. */
function whyState({ status, condition, options }) {
    if (status === 'end') return 'the connection has ended'
    if (condition?.subscriber) return 'the connection is in subscriber mode'
    if (condition && isSet(condition.select) && condition.select !== options.db) return 'another database was selected'
    if (condition && String(condition.auth || '') !== String(options.username ? [options.username, options.password] : options.password || ''))
        return 'the connection has logged in otherwise than its options say'
    return undefined
}

/* "host:port", or why not. With a name `family` would choose among its addresses. */
function place({ host, port, family }) {
    const at = host || 'localhost'

    if (!Number.isInteger(port) || port < 1 || port > 65535) return { why: 'the option port is not a port' }
    if (isIP(at) === 6 && !at.includes('%')) return { at: `[${at}]:${port}` }
    if (isIP(at) === 4) return { at: `${at}:${port}` }
    if (!/^[A-Za-z0-9_][\w.-]*$/.test(at)) return { why: 'the option host is not a name' }
    return Number(family ?? 0) === 0 ? { at: `${at}:${port}` } : { why: 'the option family is set' }
}

function urlOf(options) {
    const { username, password, db, keyPrefix, path } = options
    const who = password ? `${encodeURIComponent(username || '')}:${encodeURIComponent(password)}@` : ''
    const settings = new URLSearchParams()
    const say = (name, value) => settings.append(name, value)

    if (keyPrefix) say('prefix', keyPrefix)
    if (path) {
        if (!path.startsWith('/')) return { why: 'the option path is not an absolute path' }
        say('db', String(db))
        return { url: `redis+unix://${who}${path.split('/').map(encodeURIComponent).join('/')}?${text(settings)}` }
    }
    const { at, why } = place(options)

    return why ? { why } : { url: `redis://${who}${at}/${db}${keyPrefix ? `?${text(settings)}` : ''}` }
}

/* A "+" is a plus to us. */
const text = (settings) => settings.toString().replaceAll('+', '%20')

export function redisAddress(connection) {
    try {
        const why = whyNotPlain(connection) ?? whyOptions(connection.options) ?? whyState(connection)

        return why ? { why } : urlOf(connection.options)
    } catch (error) {
        return { why: `the connection cannot be read: ${error?.message ?? error}` }
    }
}
