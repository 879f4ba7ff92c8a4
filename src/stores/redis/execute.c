/*
 * execute.c - a batch: one command for each request, all written before the first answer is read.
 *
 * Most batches are one round. A request has to be asked again when its script was not known, when the token counter may not be used, or
 * when its slot has moved to another node; none of these answers means that anything was carried out.
 */
#include "redis_store.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_ROUNDS 8
#define RENEW_AFTER_MS 250  /* a lane without a node for a slot is opened anew, but not more often */
#define SHARDED_PUBLISH 700 /* since Redis 7.0 */

/* One request on its way. */
typedef struct attempt {
    verrou_op *op;
    redis_connection *connection; /* NULL: nothing is asked in this round */
    redis_connection *next;       /* where it was sent on to */
    size_t end;                   /* of its command in what is to be written */
    bool asking, whole, alone;    /* see ASK; the script's text instead of its name; without the counter */
    bool no_counter;              /* alone because the counter may not be used, unless it was the lock's key */
    bool again;
} attempt;

typedef struct batch {
    redis_state *state;
    redis_lane *lane;
    attempt *attempts;
    size_t n;
    int64_t deadline_ms;
} batch;

/* ---- asking ---- */

static redis_script script_of(verrou_op_kind kind)
{
    switch (kind) {
    case VERROU_OP_ACQUIRE:
        return SCRIPT_ACQUIRE;
    case VERROU_OP_RELEASE:
        return SCRIPT_RELEASE;
    case VERROU_OP_EXTEND:
        return SCRIPT_EXTEND;
    case VERROU_OP_FORCE:
        return SCRIPT_FORCE;
    default:
        return SCRIPT_INSPECT;
    }
}

static const char *publish_command(const redis_connection *connection)
{
    bool sharded = connection->state->topology == REDIS_CLUSTER && connection->version >= SHARDED_PUBLISH;

    return sharded ? "SPUBLISH" : "PUBLISH";
}

typedef struct words {
    const char *at[8];
    size_t len[8];
    int count;
} words;

static void add(words *command, const char *word, size_t len)
{
    command->at[command->count] = word;
    command->len[command->count++] = len;
}

/* Append the command of a request. */
static bool append_request(redis_state *state, const attempt *one)
{
    static const char asking[] = "ASKING";
    const char *asking_word = asking;
    const size_t asking_len = sizeof asking - 1;
    const verrou_op *op = one->op;
    redis_script script = script_of(op->kind);
    char counter[VERROU_MAX_KEY + 48];
    char ttl[32];
    size_t counter_len = 0;
    words command = {.count = 0};

    if (one->asking && !verrou__redis_append(one->connection, 1, &asking_word, &asking_len))
        return false;
    if (op->kind == VERROU_OP_ACQUIRE && !one->alone)
        counter_len = verrou__redis_counter(state, op->key, op->key_len, counter, sizeof counter);
    if (one->whole)
        add(&command, "EVAL", 4);
    else
        add(&command, "EVALSHA", 7);
    if (one->whole)
        add(&command, verrou__redis_script_text(script), strlen(verrou__redis_script_text(script)));
    else
        add(&command, verrou__redis_script_sha(script), 40);
    add(&command, counter_len ? "2" : "1", 1);
    add(&command, op->key, op->key_len);
    if (counter_len)
        add(&command, counter, counter_len);
    if (op->owner)
        add(&command, op->owner, op->owner_len);
    if (op->kind == VERROU_OP_ACQUIRE || op->kind == VERROU_OP_EXTEND) {
        int len = snprintf(ttl, sizeof ttl, "%lld", op->ttl_ms == VERROU_FOREVER ? 0 : (long long)op->ttl_ms);

        add(&command, ttl, (size_t)len);
    } else if (op->kind != VERROU_OP_INSPECT) {
        const char *publish = publish_command(one->connection);

        add(&command, publish, strlen(publish));
        add(&command, state->id, sizeof state->id - 1);
    }
    return verrou__redis_append(one->connection, command.count, command.at, command.len);
}

static void append_all(batch *b)
{
    for (size_t i = 0; i < b->lane->node_count; i++)
        if (b->lane->nodes[i])
            verrou__redis_kill_lost(b->lane->nodes[i]);
    for (size_t i = 0; i < b->n; i++) {
        attempt *one = &b->attempts[i];
        redis_connection *connection = one->connection;

        if (!connection)
            continue;
        if (connection->broken || !append_request(b->state, one)) {
            one->connection = NULL; /* stays UNSENT */
            if (!connection->broken)
                b->state->host->op_fail(one->op, VERROU_OP_RETRY, 1, NULL, "out of memory");
            continue;
        }
        one->end = connection->out_len;
    }
}

static void op_fault(batch *b, verrou_op *op, verrou_op_result result, const redis_fault *fault)
{
    b->state->host->op_fail(op, result, fault->retriable, fault->code[0] ? fault->code : NULL, "redis: %s",
                            fault->text);
}

/* What was not written as a whole was not carried out: the server waits for the end of a command. */
static void flush_all(batch *b, redis_fault *lane_fault)
{
    for (size_t node = 0; node < b->lane->node_count; node++) {
        redis_connection *connection = b->lane->nodes[node];
        redis_fault fault;

        if (!connection || connection->out_len == 0 || verrou__redis_flush(connection, b->deadline_ms, &fault))
            continue;
        *lane_fault = fault;
        for (size_t i = 0; i < b->n; i++) {
            attempt *one = &b->attempts[i];

            if (one->connection != connection)
                continue;
            one->connection = NULL;
            if (one->end > connection->out_at)
                continue;
            verrou__redis_lost_answer(connection);
            op_fault(b, one->op, VERROU_OP_UNKNOWN, &fault);
        }
    }
}

/* ---- answers ---- */

static bool tells_holder(const redisReply *reply)
{
    return reply->type == REDIS_REPLY_ARRAY && reply->elements >= 2 && reply->element[0]->type == REDIS_REPLY_STRING &&
           reply->element[1]->type == REDIS_REPLY_INTEGER;
}

/* A value that is no owner: the key is a string of somebody else's. */
static void answer_holder(batch *b, verrou_op *op, verrou_op_result result, const redisReply *reply)
{
    long long left_ms = reply->element[1]->integer;
    uint64_t fence = 0;

    if (reply->element[0]->len == 0 || reply->element[0]->len > VERROU_MAX_OWNER) {
        b->state->host->op_fail(op, VERROU_OP_FAILED, 0, "WRONGTYPE",
                                "redis: the key is used by something else: its value is not a lock's");
        return;
    }
    if (reply->elements > 2 && reply->element[2]->type == REDIS_REPLY_INTEGER)
        fence = (uint64_t)llabs(reply->element[2]->integer);
    op->result = result;
    b->state->host->holder(op, reply->element[0]->str, reply->element[0]->len,
                           left_ms < 0 ? VERROU_FOREVER : (int64_t)left_ms, fence);
}

static void without_counter(redis_state *state)
{
    atomic_fetch_and(&state->caps, ~VERROU_CAP_FENCE_STORED);
    if (!atomic_exchange(&state->told_counter, true))
        verrou__redis_log(state, VERROU_WARN, "store.no_token_counter",
                          "the key %s cannot be used: tokens are the server's clock", state->counter);
}

static void answer_acquire(batch *b, const attempt *one, const redisReply *reply)
{
    verrou_op *op = one->op;

    if (one->no_counter)
        without_counter(b->state);
    if (reply->type == REDIS_REPLY_INTEGER) {
        op->result = VERROU_OP_APPLIED;
        op->fence = (uint64_t)llabs(reply->integer);
        if (reply->integer < 0)
            without_counter(b->state);
    } else if (tells_holder(reply)) {
        answer_holder(b, op, VERROU_OP_REFUSED, reply);
    } else { /* it ran out between two commands of the script */
        b->state->host->op_fail(op, VERROU_OP_RETRY, 1, NULL, "redis: the lease ran out just now");
    }
}

/* The number of listening connections, our own not counted. -2: the lock is free, but nobody could be told. */
static void answer_freed(batch *b, verrou_op *op, const redisReply *reply)
{
    long long listeners = reply->integer;

    op->result = op->kind == VERROU_OP_RELEASE && listeners == -1 ? VERROU_OP_REFUSED : VERROU_OP_APPLIED;
    if (listeners >= 0) {
        listeners -= listeners > 0 && verrou__redis_is_watched(b->state, op->key, op->key_len);
        op->others = (int32_t)listeners;
    } else if (listeners == -2 && !atomic_exchange(&b->state->told_publish, true)) {
        verrou__redis_log(
            b->state, VERROU_WARN, "store.publish_refused",
            "no right to publish on the channels of the locks: waiters elsewhere are not woken by releases");
    }
}

static void answer(batch *b, const attempt *one, const redisReply *reply)
{
    verrou_op *op = one->op;
    bool number = reply->type == REDIS_REPLY_INTEGER;

    if (op->kind == VERROU_OP_ACQUIRE)
        answer_acquire(b, one, reply);
    else if ((op->kind == VERROU_OP_RELEASE || op->kind == VERROU_OP_FORCE) && number)
        answer_freed(b, op, reply);
    else if (op->kind == VERROU_OP_EXTEND && number)
        op->result = reply->integer ? VERROU_OP_APPLIED : VERROU_OP_REFUSED;
    else if (op->kind == VERROU_OP_INSPECT && tells_holder(reply))
        answer_holder(b, op, VERROU_OP_APPLIED, reply);
    else if (op->kind == VERROU_OP_INSPECT && reply->type == REDIS_REPLY_NIL)
        op->result = VERROU_OP_REFUSED;
    else
        b->state->host->op_fail(op, VERROU_OP_FAILED, 0, "PROTOCOL", "redis: an answer that no script of ours gives");
}

/* Errors after which the request is asked again at once, in another way. */
static bool try_otherwise(batch *b, attempt *one, const redisReply *reply)
{
    bool counted = one->op->kind == VERROU_OP_ACQUIRE && !one->alone;

    if (verrou__redis_is_error(reply, "NOSCRIPT") && !one->whole)
        return one->whole = true;
    if (counted && verrou__redis_is_error(reply, "TRYAGAIN"))
        return one->alone = true;
    if (counted && verrou__redis_is_error(reply, "NOPERM"))
        return one->no_counter = one->alone = true;
    if (b->state->topology != REDIS_CLUSTER)
        return false;
    if (verrou__redis_is_error(reply, "MOVED") || verrou__redis_is_error(reply, "ASK")) {
        one->asking = reply->str[0] == 'A';
        one->next = verrou__redis_redirect(b->lane, one->connection, reply->str);
        return one->next != NULL;
    }
    return false;
}

static void answer_error(batch *b, attempt *one, const redisReply *reply, redis_fault *lane_fault)
{
    redis_fault fault;

    one->next = one->connection;
    one->again = try_otherwise(b, one, reply);
    if (one->again)
        return;
    verrou__redis_explain(one->connection, reply, &fault);
    if (b->state->topology != REDIS_CLUSTER &&
        (verrou__redis_is_error(reply, "MOVED") || verrou__redis_is_error(reply, "CROSSSLOT")))
        verrou__redis_fault_set(
            &fault, VERROU_OP_FAILED, false, verrou__redis_is_error(reply, "MOVED") ? "MOVED" : "CROSSSLOT",
            "%s:%d is part of a cluster: the address has to begin with redis+cluster:", one->connection->address.host,
            one->connection->address.port);
    if (fault.broken) {
        *lane_fault = fault;
        b->lane->stale = true;
    }
    op_fault(b, one->op, fault.result, &fault);
}

static void read_all(batch *b, redis_fault *lane_fault)
{
    for (size_t i = 0; i < b->n; i++) {
        attempt *one = &b->attempts[i];
        redis_fault fault;
        redisReply *reply;

        one->again = false;
        if (!one->connection)
            continue;
        if (one->asking)
            one->connection->skip++;
        reply = verrou__redis_reply(one->connection, b->deadline_ms, &fault);
        if (!reply) {
            *lane_fault = fault;
            verrou__redis_lost_answer(one->connection);
            op_fault(b, one->op, VERROU_OP_UNKNOWN, &fault);
        } else if (reply->type == REDIS_REPLY_ERROR) {
            answer_error(b, one, reply, lane_fault);
        } else {
            answer(b, one, reply);
        }
        freeReplyObject(reply);
    }
}

/* ---- acknowledgement by replicas ---- */

static bool wants_replicas(const attempt *one)
{
    return one->op->result == VERROU_OP_APPLIED &&
           (one->op->kind == VERROU_OP_ACQUIRE || one->op->kind == VERROU_OP_EXTEND);
}

/* How many replicas have what this connection wrote; -1 and a fault if that cannot be learnt. */
static long long replicas_of(batch *b, redis_connection *connection, redis_fault *fault)
{
    char count[16], limit[32];
    int64_t left_ms = b->deadline_ms - b->state->host->now_ms() - 1;
    redisReply *reply;
    long long have = -1;

    if (left_ms > b->state->wait_timeout_ms)
        left_ms = b->state->wait_timeout_ms;
    if (left_ms < 1)
        left_ms = 1;
    snprintf(count, sizeof count, "%d", b->state->wait_replicas);
    snprintf(limit, sizeof limit, "%lld", (long long)left_ms);
    reply = verrou__redis_ask(connection, b->deadline_ms, fault, "WAIT", count, limit, NULL);
    if (reply && reply->type == REDIS_REPLY_INTEGER)
        have = reply->integer;
    freeReplyObject(reply);
    return have;
}

/* Too few replicas have it: give it back. What comes of that is what came of the acquisition. */
static void give_back(batch *b, attempt *one, redis_connection *connection, const redis_fault *fault)
{
    verrou_op release = {.kind = VERROU_OP_RELEASE,
                         .key_len = one->op->key_len,
                         .owner_len = one->op->owner_len,
                         .key = one->op->key,
                         .owner = one->op->owner};
    attempt back = {.op = &release, .connection = connection, .whole = true};
    redisReply *reply = NULL;
    redis_fault lost;

    if (append_request(b->state, &back) && verrou__redis_flush(connection, b->deadline_ms, &lost))
        reply = verrou__redis_reply(connection, b->deadline_ms, &lost);
    if (reply && reply->type == REDIS_REPLY_INTEGER) {
        op_fault(b, one->op, VERROU_OP_RETRY, fault);
    } else {
        if (!reply)
            verrou__redis_lost_answer(connection);
        op_fault(b, one->op, VERROU_OP_UNKNOWN, fault);
    }
    freeReplyObject(reply);
}

static void await_replicas_of(batch *b, redis_connection *connection, redis_fault *lane_fault)
{
    redis_fault fault;
    long long have = replicas_of(b, connection, &fault);

    if (have >= b->state->wait_replicas)
        return;
    if (connection->broken)
        *lane_fault = fault;
    if (have >= 0)
        verrou__redis_fault_set(&fault, VERROU_OP_RETRY, true, "NOREPLICAS",
                                "%lld of %d replicas acknowledged the lease in time", have, b->state->wait_replicas);
    for (size_t i = 0; i < b->n; i++) {
        attempt *one = &b->attempts[i];

        if (one->connection != connection || !wants_replicas(one))
            continue;
        if (one->op->kind == VERROU_OP_EXTEND)
            op_fault(b, one->op, VERROU_OP_RETRY, &fault);
        else
            give_back(b, one, connection, &fault);
    }
}

static void await_replicas(batch *b, redis_fault *lane_fault)
{
    for (size_t node = 0; node < b->lane->node_count; node++) {
        redis_connection *connection = b->lane->nodes[node];
        bool wanted = false;

        for (size_t i = 0; i < b->n && !wanted; i++)
            wanted = b->attempts[i].connection == connection && wants_replicas(&b->attempts[i]);
        if (wanted)
            await_replicas_of(b, connection, lane_fault);
    }
}

/* ---- execute ---- */

/* Who is asked in the next round, and where; false if nobody is. */
static bool next_round(batch *b)
{
    bool any = false;

    for (size_t i = 0; i < b->n; i++) {
        attempt *one = &b->attempts[i];

        one->connection = one->again ? one->next : NULL;
        any = any || one->connection;
    }
    return any;
}

static void send_batch(batch *b, redis_fault *lane_fault)
{
    for (int round = 0; round < MAX_ROUNDS; round++) {
        append_all(b);
        flush_all(b, lane_fault);
        read_all(b, lane_fault);
        if (b->state->wait_replicas)
            await_replicas(b, lane_fault);
        if (!next_round(b))
            return;
    }
    for (size_t i = 0; i < b->n; i++)
        if (b->attempts[i].again)
            b->state->host->op_fail(b->attempts[i].op, VERROU_OP_RETRY, 1, NULL,
                                    "redis: sent from node to node too often");
}

static redis_connection *route(batch *b, verrou_op *op)
{
    redis_connection *connection = verrou__redis_route(b->lane, op->key, op->key_len);

    if (!connection) {
        b->state->host->op_fail(op, VERROU_OP_RETRY, 1, "CLUSTERDOWN",
                                "redis: no node that can be reached serves slot %u",
                                verrou__redis_slot(op->key, op->key_len));
        if (b->state->host->now_ms() - b->lane->renewed_ms > RENEW_AFTER_MS)
            b->lane->stale = true;
    }
    return connection;
}

static bool lane_is_usable(const redis_lane *lane)
{
    for (size_t i = 0; i < lane->node_count; i++)
        if (lane->nodes[i] && lane->nodes[i]->broken)
            return false;
    return !lane->stale;
}

verrou_status verrou__redis_execute(void *context, void *opened, verrou_op *const *ops, size_t n, int64_t deadline_ms,
                                    verrou_error *err)
{
    redis_state *state = context;
    redis_lane *lane = opened;
    attempt few[16];
    batch b = {state, lane, few, n, deadline_ms};
    redis_fault fault;

    verrou__redis_fault_set(&fault, VERROU_OP_RETRY, true, NULL,
                            "the nodes of the cluster are not those that were known");
    if (n > sizeof few / sizeof few[0]) {
        b.attempts = state->host->malloc(n * sizeof *b.attempts);
        if (!b.attempts) {
            for (size_t i = 0; i < n; i++)
                state->host->op_fail(ops[i], VERROU_OP_RETRY, 1, NULL, "out of memory");
            return VERROU_OK;
        }
    }
    for (size_t i = 0; i < n; i++)
        b.attempts[i] = (attempt){.op = ops[i], .connection = route(&b, ops[i])};
    send_batch(&b, &fault);
    if (b.attempts != few)
        state->host->free(b.attempts);
    return lane_is_usable(lane) ? VERROU_OK : verrou__redis_fail(state, &fault, err);
}
