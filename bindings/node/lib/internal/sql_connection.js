/*
 * sql_connection.js - how an adapter of ours offers its connection to our statements, which ask the server's clock and need one round trip,
 * where the seven calls need up to three and go by the client's.
 */
const CONNECTION = Symbol('sql connection')
const SEVEN = [
    'setTableName', 'createTableIfNotExists', 'insertLock', 'acquireLock', 'deleteLock', 'extendLock', 'getLock',
]

/* To be called once for a class of adapters: `make(adapter)` gives its connection, or undefined for a database without statements of ours. */
export function offersConnection(Adapter, make) {
    Adapter.prototype[CONNECTION] = function connection() {
        /* Who has replaced one of the seven calls wants it called. */
        return SEVEN.every((call) => this[call] === Adapter.prototype[call]) ? make(this) : undefined
    }
}

export function sqlConnection(adapter) {
    return adapter[CONNECTION]?.()
}
