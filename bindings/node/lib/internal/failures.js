/*
 * failures.js - what an error of a database's client says about the request: was it carried out?
 *
 *   "passing"  no, and trying again may help: nothing was sent, or the server has undone it for a passing reason
 *   "failed"   no
 *   "unknown"  the connection broke after the request was sent, or may have been
 *   undefined  it is no error that is known here
 *
 * A server's answer is recognised by its number: SQLSTATE in PostgreSQL's clients, errno and sqlState in MySQL's, SQLITE_ in SQLite's.
 */
const UNREACHABLE = new Set([
    'ECONNREFUSED', 'ENOTFOUND', 'EAI_AGAIN', 'EHOSTUNREACH', 'ENETUNREACH', 'ENETDOWN', 'EHOSTDOWN',
])
const BROKEN = new Set([
    'ECONNRESET', 'EPIPE', 'ETIMEDOUT', 'ECONNABORTED', 'PROTOCOL_CONNECTION_LOST', 'PROTOCOL_SEQUENCE_TIMEOUT',
    'PROTOCOL_ENQUEUE_AFTER_FATAL_ERROR', 'PROTOCOL_PACKETS_OUT_OF_ORDER',
])
/* Texts of clients that have no codes. */
const NOT_CONNECTED = /timeout exceeded when trying to connect|connection terminated due to connection timeout|timeout acquiring a connection/i
const POOL_CLOSED = /unable to acquire a connection|after calling end on the pool|already been destroyed|pool is closed|^aborted$/i
const LOST = /connection (terminated|ended|lost|closed)|server has gone away|socket (hang up|closed)|not queryable/i

/* https://www.postgresql.org/docs/current/errcodes-appendix.html */
function postgres(state) {
    if (state === '57P01' || state === '57P02' || state === '40003' || state.startsWith('08')) return 'unknown'
    if (/^(40|53|57P03|57014|55P03|25006)/.test(state)) return 'passing'
    return 'failed'
}

/* Too many connections, deadlock, lock wait, read-only, record changed, statement time out; then shutting down and killed. */
const MYSQL_PASSING = new Set([1040, 1203, 1205, 1213, 1290, 1836, 1020, 3024, 1969])
const MYSQL_UNKNOWN = new Set([1053, 1077, 1079, 1080, 1158, 1159, 1160, 1161, 1184, 1317, 1927, 4031])

function mysql(number) {
    if (MYSQL_UNKNOWN.has(number)) return 'unknown'
    return MYSQL_PASSING.has(number) ? 'passing' : 'failed'
}

function byText(message) {
    if (NOT_CONNECTED.test(message)) return 'passing'
    if (POOL_CLOSED.test(message)) return 'failed'
    return LOST.test(message) ? 'unknown' : undefined
}

export function judge(error) {
    const code = typeof error?.code === 'string' ? error.code : ''

    if (UNREACHABLE.has(code) || error?.syscall === 'connect' || error?.name === 'KnexTimeoutError') return 'passing'
    if (BROKEN.has(code)) return 'unknown'
    if (code.startsWith('SQLITE_')) return /^SQLITE_(BUSY|LOCKED)/.test(code) ? 'passing' : 'failed'
    if (Number.isInteger(error?.errno) && error.errno >= 1000) return mysql(error.errno)
    if (/^[0-9A-Z]{5}$/.test(code) && (error.severity || error.severity_local)) return postgres(code)
    return byText(String(error?.message ?? error))
}

/* Is there a row of this key already? */
export function isDuplicate(error) {
    return error?.code === '23505' || error?.errno === 1062 || error?.code === 'ER_DUP_ENTRY' ||
        /^SQLITE_CONSTRAINT/.test(error?.code ?? '')
}

/* Is there no such table or column, so that the table has to be looked at, or made, anew? */
export function isOtherShape(error) {
    return ['42P01', '42703'].includes(error?.code) || [1146, 1054].includes(error?.errno) ||
        (error?.code === 'SQLITE_ERROR' && /no such (table|column)|has no column/.test(error.message))
}
