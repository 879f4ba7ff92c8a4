/*
 * sql_backend.js - a backend over a lock table in PostgreSQL, MySQL, MariaDB or SQLite, reached through a connection of the application's.
 * Each request is one statement, in no transaction but the one that the connection given may be.
 *
 * A connection is { dialect, numbered, quote(name), run(sql, values) }: one of `dialects`; whether placeholders are $1, $2 or all ?; a quoted name;
 * and a statement's { rows, count, insertId }.
 */
import { E_INVALID_ARGUMENTS, E_LOCK_STORAGE_ERROR } from '../errors.js'
import { passing, unknown } from './backend.js'
import { drawToken } from './clock.js'
import { dialects } from './sql_dialects.js'
import { isDuplicate, isOtherShape, judge } from './failures.js'

const MAX_KEY = 255
/* Each further one needs somebody else to have changed the row in between. */
const MAX_ROUNDS = 4
/* A table without `fence` may get it: how long it is used as it was. */
const LOOK_AGAIN_MS = 10_000
const PRUNE_RELEASES = 64
const PRUNE_AGE_US = 3600 * 1_000_000

/* The text for the client, and the names of its values in order. */
function compile(template, table, numbered) {
    const names = []
    const text = template.replace(/\{(\w+)\}/g, (whole, name) => {
        if (name === 'table') return table
        names.push(name)
        return numbered ? `$${names.length}` : '?'
    })

    return { text, names }
}

function compileAll(templates, table, numbered) {
    return Object.fromEntries(
        Object.entries(templates).map(([name, template]) => [name, compile(template, table, numbered)])
    )
}

export class SqlBackend {
    #connection
    #dialect
    #name
    #table
    #autoCreate
    #shape /* a promise of { fenced, statements, until } */
    #releases = 0
    #prunedTo = ''

    constructor(connection, { tableName, autoCreateTable } = {}) {
        this.#connection = connection
        this.#dialect = dialects[connection.dialect]
        this.#name = tableName || 'verrou'
        this.#autoCreate = autoCreateTable !== false
    }

    get caps() {
        return ['fence', 'shared', ...(this.#dialect.serverClock ? ['serverClock'] : [])]
    }

    /* ---- asking ---- */

    /* Errors are thrown as what they say of the request. One that says nothing may have come after it was carried out. */
    async #ask({ text, names }, values) {
        try {
            return await this.#connection.run(text, names.map((name) => values[name]))
        } catch (error) {
            if (isOtherShape(error)) {
                this.#shape = undefined
                throw passing(error)
            }
            const judged = judge(error)

            if (judged === 'failed') throw error
            throw judged === 'passing' ? passing(error) : unknown(error)
        }
    }

    #values(key, owner, ttl, fence) {
        const bytes = (text) => (this.#dialect.bytes && typeof text === 'string' ? Buffer.from(text) : text)
        const now = Date.now()

        return { key: bytes(key), owner: bytes(owner), ttl, fence, now, until: ttl === null ? null : now + ttl }
    }

    /* ---- the table ---- */

    async #columns() {
        try {
            const { rows } = await this.#connection.run(...this.#simple(this.#dialect.columns))

            return rows.map((row) => String(row.name ?? row.Field))
        } catch (error) {
            if (error?.errno === 1146) return []
            throw error
        }
    }

    #valued(template, values) {
        const { text, names } = compile(template, this.#table, this.#connection.numbered)

        return [text, names.map((name) => values[name])]
    }

    #simple(template) {
        const { text, names } = compile(template, this.#table, this.#connection.numbered)
        const name = this.#dialect.name === 'sqlite' ? this.#name.split('.').at(-1) : this.#table

        return [text, names.map(() => name)]
    }

    /* Somebody else may be faster: then theirs is used. */
    async #create() {
        const version = this.#dialect.version && (await this.#connection.run(this.#dialect.version, [])).rows[0].version

        try {
            await this.#connection.run(compile(this.#dialect.create(version), this.#table).text, [])
        } catch (error) {
            if (!isDuplicate(error) && error?.code !== '42P07') throw error
        }
    }

    async #look() {
        this.#table ??= this.#connection.quote(this.#name)
        let columns = await this.#columns()

        if (columns.length === 0 && this.#autoCreate) {
            await this.#create()
            columns = await this.#columns()
        }
        if (columns.length === 0)
            throw new E_LOCK_STORAGE_ERROR([`there is no table ${this.#table}, and autoCreateTable is off`])
        const missing = ['key', 'owner', 'expiration'].find((column) => !columns.includes(column))

        if (missing) throw new E_LOCK_STORAGE_ERROR([`table ${this.#table} cannot hold locks: it lacks the column ${missing}`])
        const fenced = columns.includes('fence')
        const templates = this.#dialect[fenced ? 'fenced' : 'plain']

        return {
            fenced,
            statements: compileAll(templates, this.#table, this.#connection.numbered),
            until: fenced ? Infinity : Date.now() + LOOK_AGAIN_MS,
        }
    }

    /* A failure is not kept: the next request tries again. Nothing was changed that matters, so a lost answer is a passing reason. */
    async #ready() {
        const looking = (this.#shape ??= this.#look())

        try {
            const shape = await looking

            if (Date.now() < shape.until) return shape
        } catch (error) {
            if (this.#shape === looking) this.#shape = undefined
            throw ['passing', 'unknown'].includes(judge(error)) ? passing(error) : error
        }
        if (this.#shape === looking) this.#shape = undefined
        return this.#ready()
    }

    /* ---- requests ---- */

    async #shapeFor(key) {
        if (Buffer.byteLength(key) > MAX_KEY) throw new E_INVALID_ARGUMENTS([`key: it has more than ${MAX_KEY} bytes`])
        return this.#ready()
    }

    /* The token of the lease, if it was granted; or the lease that is in the way; or nothing, if somebody was faster. */
    async #take(shape, values) {
        const sent = performance.now()
        const { rows = [], count, insertId } = await this.#ask(shape.statements.take, values)
        const taken = this.#dialect.bytes ? insertId > 0 && count > 0 : rows.length > 0 && Number(rows[0].taken) === 1

        if (!taken) return rows.length > 0 ? this.#refusal(shape, rows[0], values) : undefined
        if (shape.fenced) return { applied: true, fence: this.#dialect.bytes ? insertId : Number(rows[0].fence) }
        const fence = await this.#draw(shape)

        if (values.ttl !== null && performance.now() - sent >= values.ttl)
            throw unknown(new E_LOCK_STORAGE_ERROR(['the lease ran out before its token was drawn']))
        return { applied: true, fence }
    }

    /*
     * The token where none is kept, drawn by who has the row. If that fails, the outcome is unknown: the core asks again, or gives the lease up.
     */
    async #draw({ statements }) {
        if (!statements.token) return drawToken()
        try {
            return Number((await this.#ask(statements.token, {})).rows[0].token)
        } catch (error) {
            throw unknown(error?.error ?? error)
        }
    }

    /* If it is who asks, then perhaps by an earlier request whose answer was lost, and without its token. The core knows. */
    async #refusal(shape, row, values) {
        const answer = held(row, false)

        if (!shape.fenced && answer.owner === String(values.owner)) answer.fence = await this.#draw(shape)
        return answer
    }

    async #live(statements, values) {
        const { rows } = await this.#ask(statements.look, values)

        return rows[0]
    }

    async acquire(key, owner, ttl) {
        const shape = await this.#shapeFor(key)

        for (let round = 0; round < MAX_ROUNDS; round++) {
            const values = this.#values(key, owner, ttl, 0)
            const answer = await this.#take(shape, values)

            if (answer) return answer
            const row = await this.#live(shape.statements, values)

            if (row) return this.#refusal(shape, row, values)
        }
        throw passing(new E_LOCK_STORAGE_ERROR([`the row could not be taken though it is free, ${MAX_ROUNDS} times over`]))
    }

    async release(key, owner, context) {
        const { statements } = await this.#shapeFor(key)
        const { rows, count } = await this.#ask(statements.release, this.#values(key, owner, null, context.fence))
        const released = (count ?? rows.length) > 0

        if (released && ++this.#releases % PRUNE_RELEASES === 0) this.#prune(statements).catch(() => {})
        return released
    }

    async extend(key, owner, ttl, context) {
        const { statements } = await this.#shapeFor(key)
        const { rows, count, insertId } = await this.#ask(
            statements.extend, this.#values(key, owner, ttl, context.fence)
        )

        return insertId === 1 || (count ?? rows.length) > 0
    }

    async force(key) {
        const { statements } = await this.#shapeFor(key)

        await this.#ask(statements.force, this.#values(key))
        return true
    }

    async inspect(key) {
        const { statements } = await this.#shapeFor(key)
        const row = await this.#live(statements, this.#values(key))

        return row ? held(row, true) : false
    }

    /* The row of a key that nobody uses. On PostgreSQL only. */
    async forget(key) {
        await this.#connection.run(...this.#valued('DELETE FROM {table} WHERE key = CAST({key} AS text)', { key }))
    }

    /* ---- pruning ---- */

    /* Tombstones that are an hour old: every token from now on exceeds theirs. A page each time, one row a statement. */
    async #prune(statements) {
        if (!statements.page) return
        const { rows } = await this.#ask(statements.page, this.#values(this.#prunedTo))

        this.#prunedTo = rows.length > 0 ? String(rows.at(-1).key) : ''
        for (const { key, owner, expiration, fence, now } of rows)
            if (String(owner) === '' && Number(expiration) === 0 && expiration !== null && Number(fence) < Number(now) - PRUNE_AGE_US)
                await this.#ask(statements.prune, this.#values(String(key), undefined, null, Number(fence)))
    }
}

/* A row as an answer. */
function held({ owner, remaining, fence }, applied) {
    return {
        applied,
        owner: String(owner),
        remaining: remaining === null ? null : Math.max(1, Number(remaining)),
        fence: Number(fence),
    }
}
