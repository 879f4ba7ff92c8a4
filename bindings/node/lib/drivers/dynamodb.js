/*
 * dynamodb.js - locks in a DynamoDB table, through the AWS client of the application's. An item is what @verrou/core writes: `key`, `owner`,
 * `expires_at` in epoch milliseconds (none: never), and `fence` beside it.
 *
 * DynamoDB has no clock that a condition could ask: expiry goes by the clocks of those who ask, so exclusion holds up to their differences.
 * Tokens do not depend on clocks alone: a released item stays, without an owner and run out (which the original takes for free), to keep its
 * token; those that are an hour old are pruned.
 */
import {
    CreateTableCommand, DeleteItemCommand, DescribeTableCommand, GetItemCommand, ScanCommand, UpdateItemCommand,
} from '@aws-sdk/client-dynamodb'
import { setTimeout as sleep } from 'node:timers/promises'

import { E_LOCK_STORAGE_ERROR } from '../errors.js'
import { passing, unknown } from '../internal/backend.js'
import { BackendStore } from '../internal/store.js'

const MAX_FENCE = Number.MAX_SAFE_INTEGER
/* Each further one needs somebody else to have changed the item in between. */
const MAX_ROUNDS = 4
const ACTIVE_POLL_MS = 200
const PRUNE_RELEASES = 64
const PRUNE_ITEMS = 128
const PRUNE_AGE_US = 3600 * 1_000_000

const NAMES = { '#key': 'key', '#owner': 'owner', '#until': 'expires_at', '#fence': 'fence' }

const text = (value) => ({ S: value })
const number = (value) => ({ N: String(value) })

/* The names and values that an expression mentions: others are an error. */
function mentioned(all, expressions) {
    const used = Object.entries(all).filter(([name]) => new RegExp(`${name}\\b`).test(expressions))

    return used.length > 0 ? Object.fromEntries(used) : undefined
}

/* ---- errors ---- */

/* The server refused to: nothing was changed. */
const PASSING = new Set([
    'ProvisionedThroughputExceededException', 'ThrottlingException', 'RequestLimitExceeded', 'LimitExceededException',
    'TransactionConflictException', 'TransactionInProgressException', 'ReplicatedWriteConflictException',
])
const UNREACHABLE = new Set(['ECONNREFUSED', 'ENOTFOUND', 'EAI_AGAIN', 'EHOSTUNREACH', 'ENETUNREACH'])

/* The client tries again by itself: then the answer is that to the last try, and an earlier one may have been carried out. */
function isFirstTry(error) {
    return (error.$metadata?.attempts ?? 1) <= 1
}

function judged(error) {
    const status = error?.$metadata?.httpStatusCode

    if (PASSING.has(error?.name) || (error?.name === 'CredentialsProviderError' && error.tryNextLink)) return passing(error)
    if (UNREACHABLE.has(error?.code) || UNREACHABLE.has(error?.cause?.code)) return passing(error)
    if (status >= 400 && status < 500) return error
    return status === undefined && error?.name === 'CredentialsProviderError' ? error : unknown(error)
}

function isRefusal(error) {
    return error?.name === 'ConditionalCheckFailedException'
}

/* ---- items ---- */

/* What is left of a lease, in ms: null for ever, undefined if there is none. */
function left(item, now) {
    if (item?.owner?.S === undefined) return undefined
    if (item.expires_at?.N === undefined) return null
    const remaining = Number(item.expires_at.N) - now

    return remaining > 0 ? remaining : undefined
}

function held(item, remaining, applied) {
    return { applied, owner: item.owner.S, remaining, fence: fenceOf(item) }
}

function fenceOf(item) {
    return Number(item?.fence?.N ?? 0)
}

class DynamoDBBackend {
    caps = ['fence', 'fenceStored', 'shared']
    #connection
    #table
    #created
    #releases = 0
    #pruneFrom

    constructor({ connection, table }) {
        this.#connection = connection
        this.#table = table.name
    }

    /* ---- the table ---- */

    async #isActive() {
        const { Table } = await this.#connection.send(new DescribeTableCommand({ TableName: this.#table }))

        return Table.TableStatus === 'ACTIVE' || Table.TableStatus === 'UPDATING'
    }

    async #describe() {
        try {
            return await this.#isActive()
        } catch (error) {
            if (error?.name === 'ResourceNotFoundException') return undefined
            /* Without the right to look it is taken to be there: a request will tell. */
            if (error?.name === 'AccessDeniedException') return true
            throw error
        }
    }

    async #create() {
        let active = await this.#describe()

        if (active === undefined) {
            await this.#connection.send(new CreateTableCommand({
                TableName: this.#table,
                KeySchema: [{ AttributeName: 'key', KeyType: 'HASH' }],
                AttributeDefinitions: [{ AttributeName: 'key', AttributeType: 'S' }],
                ProvisionedThroughput: { ReadCapacityUnits: 4, WriteCapacityUnits: 4 },
            })).catch((error) => {
                if (error?.name !== 'ResourceInUseException') throw error
            })
            active = await this.#describe()
        }
        while (!active) {
            await sleep(ACTIVE_POLL_MS, undefined, { ref: false })
            active = await this.#describe()
        }
    }

    /* A failure is not kept: the next request tries again. */
    async #ready() {
        const creating = (this.#created ??= this.#create())

        try {
            await creating
        } catch (error) {
            if (this.#created === creating) this.#created = undefined
            const thrown = judged(error)

            throw thrown === error ? error : passing(error)
        }
    }

    /* ---- asking ---- */

    async #send(command) {
        try {
            return await this.#connection.send(command)
        } catch (error) {
            if (isRefusal(error)) throw error
            if (error?.name === 'ResourceNotFoundException') {
                this.#created = undefined
                throw passing(error)
            }
            throw judged(error)
        }
    }

    /*
     * Undefined if it was done, else { item, certain }: what is there instead, and whether it was so at the first try. A client tries again by
     * itself what was perhaps done.
     */
    async #update(Command, key, expressions, values) {
        const all = Object.values(expressions).join(' ')
        const command = new Command({
            TableName: this.#table,
            Key: { key: text(key) },
            ...expressions,
            ExpressionAttributeNames: mentioned(NAMES, all),
            ExpressionAttributeValues: mentioned(values, all),
            ReturnValuesOnConditionCheckFailure: 'ALL_OLD',
        })

        try {
            await this.#send(command)
            return undefined
        } catch (error) {
            if (!isRefusal(error)) throw error
            return { item: error.Item ?? (await this.#item(key)), certain: isFirstTry(error), error }
        }
    }

    async #item(key) {
        await this.#ready()
        const command = new GetItemCommand({ TableName: this.#table, Key: { key: text(key) }, ConsistentRead: true })

        return (await this.#send(command)).Item
    }

    /* ---- requests ---- */

    /* `fence`: the token to set; it has to exceed the one that is stored, which nobody but the next holder changes. */
    #take(key, owner, ttl, now, fence) {
        const until = ttl === null ? ' REMOVE #until' : ', #until = :until'

        return this.#update(UpdateItemCommand, key, {
            UpdateExpression: `SET #owner = :owner, #fence = :fence${until}`,
            ConditionExpression:
                '(attribute_not_exists(#key) OR attribute_not_exists(#owner) OR #until <= :now)' +
                ' AND (attribute_not_exists(#fence) OR #fence < :fence)',
        }, {
            ':owner': text(owner), ':now': number(now), ':fence': number(fence),
            ...(ttl !== null && { ':until': number(now + ttl) }),
        })
    }

    async acquire(key, owner, ttl) {
        let stored = 0

        await this.#ready()
        for (let round = 0; round < MAX_ROUNDS; round++) {
            const now = Date.now()
            const fence = Math.max(stored + 1, now * 1000)

            if (fence > MAX_FENCE) throw new E_LOCK_STORAGE_ERROR(['the stored token is at its limit'])
            const refusal = await this.#take(key, owner, ttl, now, fence)

            if (!refusal) return { applied: true, fence }
            const remaining = left(refusal.item, now)

            if (remaining !== undefined) {
                if (refusal.item.owner.S === owner && !refusal.certain) throw unknown(refusal.error)
                return held(refusal.item, remaining, false)
            }
            stored = fenceOf(refusal.item)
        }
        throw passing(new E_LOCK_STORAGE_ERROR([`the item could not be taken though it is free, ${MAX_ROUNDS} times over`]))
    }

    /* Only the owner's live lease is changed; the original's extend drops the token. What was refused at a later try of the client's may have been done by the first. */
    async #owned(key, owner, update, context, values = {}) {
        await this.#ready()
        const fence = context.fence ? ' AND (attribute_not_exists(#fence) OR #fence = :fence)' : ''
        const refusal = await this.#update(UpdateItemCommand, key, {
            UpdateExpression: update,
            ConditionExpression: `#owner = :owner AND (attribute_not_exists(#until) OR #until > :now)${fence}`,
        }, { ':owner': text(owner), ':now': number(Date.now()), ':fence': number(context.fence), ...values })

        if (refusal && !refusal.certain) throw unknown(refusal.error)
        return !refusal
    }

    async release(key, owner, context) {
        const released = await this.#owned(key, owner, 'SET #until = :zero REMOVE #owner', context, { ':zero': number(0) })

        if (released && ++this.#releases % PRUNE_RELEASES === 0) this.#prune().catch(() => {})
        return released
    }

    extend(key, owner, ttl, context) {
        if (ttl === null) return this.#owned(key, owner, 'REMOVE #until', context)
        return this.#owned(key, owner, 'SET #until = :until', context, { ':until': number(Date.now() + ttl) })
    }

    async force(key) {
        await this.#ready()
        await this.#update(UpdateItemCommand, key, {
            UpdateExpression: 'SET #until = :zero REMOVE #owner',
            ConditionExpression: 'attribute_exists(#key)',
        }, { ':zero': number(0) })
        return true
    }

    async inspect(key) {
        const item = await this.#item(key)
        const remaining = left(item, Date.now())

        return remaining === undefined ? false : held(item, remaining, true)
    }

    /* ---- pruning ---- */

    /* Released items that are an hour old: clocks that differ by less give larger tokens than theirs. A page each time, one item a request. */
    async #prune() {
        const before = Date.now() * 1000 - PRUNE_AGE_US
        const { Items = [], LastEvaluatedKey } = await this.#connection.send(
            new ScanCommand({ TableName: this.#table, Limit: PRUNE_ITEMS, ExclusiveStartKey: this.#pruneFrom })
        )

        this.#pruneFrom = LastEvaluatedKey
        for (const item of Items)
            if (item.owner === undefined && item.expires_at?.N === '0' && item.fence && fenceOf(item) < before)
                await this.#update(DeleteItemCommand, item.key.S, {
                    ConditionExpression: 'attribute_not_exists(#owner) AND #fence = :fence',
                }, { ':fence': item.fence })
    }
}

export class DynamoDBStore extends BackendStore {
    constructor(config) {
        const backend = new DynamoDBBackend(config)

        super(backend, { caps: backend.caps })
    }
}

export function dynamodbStore(config) {
    return { factory: () => new DynamoDBStore(config) }
}
