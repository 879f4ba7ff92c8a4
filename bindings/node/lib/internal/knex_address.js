/*
 * knex_address.js - the address of ours for what a Knex instance over PostgreSQL reaches: { url }, or { why } it cannot be told. As in
 * redis_address.js everything that is not known to be harmless is a reason. Other databases than PostgreSQL are never reached natively: two
 * copies of SQLite in one process drop each other's file locks.
 */
import { isIP } from 'node:net'
import { types } from 'node:util'

const CLIENTS = ['pg', 'postgres', 'postgresql']

/* Of the configuration, the pool and the connection: what changes neither server nor user nor table. */
const CONFIG = new Set([
    'client', 'connection', 'pool', 'useNullAsDefault', 'acquireConnectionTimeout', 'debug', 'log', 'asyncStackTraces', 'compileSqlOnError',
    'migrations', 'seeds', 'version', 'userParams', 'fetchAsString',
])
const POOL = new Set([
    'min', 'max', 'acquireTimeoutMillis', 'createTimeoutMillis', 'destroyTimeoutMillis', 'idleTimeoutMillis', 'reapIntervalMillis',
    'createRetryIntervalMillis', 'propagateCreateError', 'maxConnectionLifetimeMillis', 'maxConnectionLifetimeJitterMillis',
])
const CONNECTION = new Set([
    'host', 'port', 'user', 'password', 'database', 'application_name', 'fallback_application_name', 'connectionTimeoutMillis', 'keepAlive',
    'keepAliveInitialDelayMillis', 'statement_timeout', 'query_timeout', 'lock_timeout', 'idle_in_transaction_session_timeout',
])
/*
 * Variables by which libpq would connect elsewhere, as somebody else, or with other settings of the session, and which pg does not read, or otherwise. What
 * the address says counts for more than PGHOST, PGUSER, PGDATABASE, PGSSLMODE and PGGSSENCMODE.
 */
const VARIABLES = /^PG(HOSTADDR|SERVICE|SERVICEFILE|SYSCONFDIR|OPTIONS|TARGETSESSIONATTRS|LOADBALANCEHOSTS|REQUIREAUTH|REQUIREPEER|REQUIRESSL|CHANNELBINDING|CLIENTENCODING|DATESTYLE|TZ|GEQO|KRBSRVNAME|SSLNEGOTIATION)$/

/* What a statement goes through. */
const METHODS = [
    'raw', 'runner', 'query', '_query', 'processResponse', 'acquireConnection', 'releaseConnection', 'acquireRawConnection', '_acquireOnlyConnection',
    'wrapIdentifier', 'wrapIdentifierImpl', 'positionBindings', 'prepBindings', 'postProcessResponse', 'setSchemaSearchPath', 'destroy',
]

const isSet = (value) => value !== undefined && value !== null && value !== false
const isMethod = (value, name) =>
    typeof value === 'function' && new RegExp(`^(async )?${name}\\(`).test(Function.prototype.toString.call(value))

function whyClient(knex) {
    if (types.isProxy(knex) || types.isProxy(knex?.client)) return 'the connection is behind a Proxy'
    if (typeof knex !== 'function' || typeof knex.client?.config !== 'object') return 'the connection is not of Knex'
    if (knex.isTransaction || knex.client.transacting) return 'the connection is a transaction'
    if (!isMethod(knex.context?.raw, 'raw') || !String(knex.raw).includes('this.context')) return '"raw" of the connection was replaced'
    const { client } = knex
    const prototype = Object.getPrototypeOf(client)

    if (client.dialect !== 'postgresql' || !CLIENTS.includes(client.config.client)) return `the client is not one of ${CLIENTS.join(', ')}`
    if (prototype.constructor?.name !== 'Client_PG') return 'the client is not that of Knex itself'
    const odd = METHODS.find((name) => Object.hasOwn(client, name) || !isMethod(client[name], name))

    if (odd) return `"${odd}" of the client was replaced`
    return whyDriver(client.driver)
}

/* pg has settings for the whole process. */
function whyDriver(driver) {
    const odd = ['connect', 'query'].find((name) => !isMethod(driver?.Client?.prototype?.[name], name))

    if (odd) return `"${odd}" of pg was replaced`
    const set = ['ssl', 'options', 'connectionString', 'password'].find((name) => driver.defaults?.[name])

    return set && `pg has a default for ${set}`
}

const unknownIn = (object, known) => Object.getOwnPropertyNames(object ?? {}).find((name) => isSet(object[name]) && !known.has(name))

function whyConfig({ config, pool, searchPath, connectionConfigProvider }) {
    if (connectionConfigProvider || typeof config.connection === 'function') return 'the connection is made by a function'
    const setting = unknownIn(config, CONFIG) ?? (searchPath ? 'searchPath' : undefined)

    if (setting) return `the setting ${setting} is not known to be harmless`
    const ofPool = unknownIn(config.pool, POOL)

    if (ofPool) return `the setting pool.${ofPool} is not known to be harmless`
    if (typeof pool?.on !== 'function') return 'there is no pool of Knex'
    return undefined
}

function whyConnection(connection) {
    if (Object.getPrototypeOf(connection ?? null) !== Object.prototype) return 'the connection is described by no plain object'
    const unknown = unknownIn(connection, CONNECTION)

    if (unknown) return `the setting connection.${unknown} is not known to be harmless`
    for (const name of ['host', 'user', 'database'])
        if (typeof connection[name] !== 'string' || !connection[name]) return `the connection does not say its ${name}`
    if (isSet(connection.password) && typeof connection.password !== 'string') return 'the password is not a text'
    const variable = Object.keys(process.env).find((name) => VARIABLES.test(name))

    return variable && `the environment variable ${variable} is set`
}

function portOf({ port }, driver) {
    if (!port && process.env.PGPORT) return undefined
    const number = Number(port || driver.defaults?.port || 5432)

    return Number.isInteger(number) && number > 0 && number < 65536 ? number : undefined
}

function urlOf({ connectionSettings: connection, driver }, { tableName, autoCreateTable }) {
    const { host, user, password, database } = connection
    const port = portOf(connection, driver)
    const who = `${encodeURIComponent(user)}${password ? `:${encodeURIComponent(password)}` : ''}@`
    /* pg without `ssl` never asks for TLS. */
    const settings = ['sslmode=disable', 'gssencmode=disable', `table=${encodeURIComponent(tableName || 'verrou')}`]

    if (!port) return { why: 'the port is not certain' }
    if (autoCreateTable === false) settings.push('autocreate=false')
    const address = (at) => ({ url: `postgres://${who}${at}/${encodeURIComponent(database)}?${settings.join('&')}` })

    if (host.startsWith('/')) {
        settings.push(`host=${encodeURIComponent(host)}`, `port=${port}`)
        return host.includes(',') ? { why: 'the host is not a name' } : address('')
    }
    if (isIP(host) === 6 && !host.includes('%')) return address(`[${host}]:${port}`)
    return /^[A-Za-z0-9_][\w.-]*$/.test(host) ? address(`${host}:${port}`) : { why: 'the host is not a name' }
}

export function knexAddress(knex, config = {}) {
    try {
        const why = whyClient(knex) ?? whyConfig(knex.client) ?? whyConnection(knex.client.connectionSettings)

        return why ? { why } : urlOf(knex.client, config)
    } catch (error) {
        return { why: `the connection cannot be read: ${error?.message ?? error}` }
    }
}
