/*
 * execute.c - a batch: one command for each request, all written before the first answer is read.
 *
 * Most batches are one round. A request has to be asked again when its script was not known, when the token counter may not be used, or
 * when its slot has moved to another node; none of these answers means that anything was carried out.
 */
#include "redis_store.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "util/utf8.h"

#define MAX_ROUNDS 8
#define SILENCE_MS 100      /* how long those that have answered wait for a node that has not */
#define ANSWER_MARGIN_MS 20 /* an answer is to be here before its caller gives up */
#define REST_MS 100         /* after a pause of this length it is looked whether the connection is still there */
#define RENEW_AFTER_MS 250  /* a lane without a node for a slot is opened anew, but not more often */

/* One request on its way. */
typedef struct attempt {
    verrou_op *op;
    redis_connection *connection; /* NULL: nothing is asked in this round */
    redis_connection *next;       /* where it was sent on to */
    size_t end;                   /* of its command in what is to be written */
    redisReply *reply;
    uint32_t number;           /* repeated by its answer; 0: none */
    bool asking, whole, alone; /* see ASK; the script's text instead of its name; without the counter */
    bool forbidden;            /* `alone`, for want of a right to the counter */
    bool again;
} attempt;

typedef struct batch {
    redis_state *state;
    redis_lane *lane;
    attempt *attempts;
    size_t n;
    int64_t deadline_ms;
    redis_connection *only; /* the connection that was asked last, ... */
    size_t asked;           /* ... if it was one */
} batch;

/* A batch whose first round was sent by begin(). */
struct redis_begun {
    batch batch;
    bool sent; /* as a whole */
    redis_fault fault;
    attempt attempts[];
};

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
    return verrou__redis_is_sharded(connection) ? "SPUBLISH" : "PUBLISH";
}

typedef struct words {
    const char *at[9];
    size_t len[9];
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
    char ttl[32], number[16];
    size_t counter_len = 0;
    size_t before = one->connection->out_len;
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
    if (op->kind <= VERROU_OP_EXTEND)
        add(&command, op->owner, op->owner_len);
    if (op->kind == VERROU_OP_ACQUIRE || op->kind == VERROU_OP_EXTEND) {
        int len = snprintf(ttl, sizeof ttl, "%lld", op->ttl_ms == VERROU_FOREVER ? 0 : (long long)op->ttl_ms);

        add(&command, ttl, (size_t)len);
    } else if (op->kind != VERROU_OP_INSPECT) {
        const char *publish = publish_command(one->connection);

        add(&command, publish, strlen(publish));
        add(&command, state->id, sizeof state->id - 1);
    }
    if (one->number) {
        int len = snprintf(number, sizeof number, "%lu", (unsigned long)one->number);

        add(&command, number, (size_t)len);
    }
    if (verrou__redis_append(one->connection, command.count, command.at, command.len))
        return true;
    one->connection->out_len = before; /* ASKING alone would be answered */
    return false;
}

/* The last request on each connection has a number: whoever reads it in its place has read all others in theirs. */
static void number_last(batch *b, attempt *one)
{
    redis_connection *connection = one->connection;

    for (const attempt *later = one + 1; later < b->attempts + b->n; later++)
        if (later->connection == connection)
            return;
    if (++connection->number == 0)
        connection->number = 1;
    one->number = connection->number;
}

/* What is needed before anything is asked on the connections of a lane. */
static void prepare(batch *b, redis_fault *lane_fault)
{
    for (size_t i = 0; i < b->lane->node_count; i++) {
        redis_connection *connection = b->lane->nodes[i];
        int64_t now_ms = b->n ? b->attempts[0].op->sent_ms : 0;

        if (!connection || connection->broken)
            continue;
        if (now_ms - connection->used_ms >= REST_MS && !verrou__redis_is_at_rest(connection, lane_fault))
            continue;
        connection->used_ms = now_ms;
        if (!verrou__redis_kill_lost(connection))
            verrou__redis_break(connection, lane_fault, NULL, "out of memory");
    }
}

static void append_all(batch *b, redis_fault *lane_fault)
{
    prepare(b, lane_fault);
    for (size_t i = 0; i < b->n; i++) {
        attempt *one = &b->attempts[i];
        redis_connection *connection = one->connection;

        one->number = 0;
        if (!connection)
            continue;
        if (!connection->broken) {
            number_last(b, one);
            if (append_request(b->state, one)) {
                one->end = connection->out_len;
                continue;
            }
            b->state->host->op_fail(one->op, VERROU_OP_RETRY, 1, NULL, "out of memory");
        }
        one->connection = NULL; /* stays UNSENT */
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

/* Whatever a server says: a token is exact in JavaScript. Its sign says where it is from. */
static uint64_t token_of(long long number)
{
    const long long exact = 9007199254740991; /* 2^53 - 1 */

    return number >= -exact && number <= exact ? (uint64_t)llabs(number) : 0;
}

/* A value that is no owner: the key is a string of somebody else's. */
static void answer_holder(batch *b, verrou_op *op, verrou_op_result result, const redisReply *reply)
{
    long long left_ms = reply->element[1]->integer;
    uint64_t fence = 0;

    if (reply->element[0]->len == 0 || reply->element[0]->len > VERROU_MAX_OWNER ||
        !utf8_text(reply->element[0]->str, reply->element[0]->len)) {
        b->state->host->op_fail(op, VERROU_OP_FAILED, 0, "WRONGTYPE",
                                "redis: the key is used by something else: its value is not a lock's");
        return;
    }
    if (reply->elements > 2 && reply->element[2]->type == REDIS_REPLY_INTEGER)
        fence = token_of(reply->element[2]->integer);
    op->result = result;
    b->state->host->holder(op, reply->element[0]->str, reply->element[0]->len,
                           left_ms < 0 ? VERROU_FOREVER : (int64_t)left_ms, fence);
}

/* The answer of a script that only has a number to tell. */
static bool tells_number(const redisReply *reply, long long *ret_number)
{
    if (reply->type == REDIS_REPLY_ARRAY && reply->elements == 2)
        reply = reply->element[0];
    *ret_number = reply->integer;
    return reply->type == REDIS_REPLY_INTEGER;
}

static void without_counter(redis_state *state)
{
    atomic_fetch_and(&state->caps, ~VERROU_CAP_FENCE_STORED);
    if (!atomic_exchange(&state->told_counter, true))
        state->host->log(state->log_context, VERROU_WARN, "store.no_token_counter", NULL,
                         "the key %s cannot be used: tokens are the server's clock", state->counter);
}

/* The one that was refused for want of a right has shown which: that to the counter. In a cluster that says nothing of other counters. */
static void note_forbidden(batch *b, const attempt *one)
{
    if (!one->forbidden)
        return;
    without_counter(b->state);
    if (b->state->topology != REDIS_CLUSTER)
        atomic_store(&b->state->counter_forbidden, true);
}

static void answer_granted(batch *b, const attempt *one, long long token)
{
    one->op->result = VERROU_OP_APPLIED;
    one->op->fence = token_of(token);
    if (token < 0)
        without_counter(b->state);
}

/* The number of listening connections, our own not counted. -2: the lock is free, but nobody could be told. */
static void answer_freed(batch *b, verrou_op *op, long long listeners)
{
    op->result = op->kind == VERROU_OP_RELEASE && listeners == -1 ? VERROU_OP_REFUSED : VERROU_OP_APPLIED;
    if (listeners >= 0) {
        listeners -= listeners > 0 && verrou__redis_is_watched(b->state, op->key, op->key_len);
        op->others = listeners < INT32_MAX ? (int32_t)listeners : INT32_MAX;
    } else if (listeners == -2 && !atomic_exchange(&b->state->told_publish, true)) {
        b->state->host->log(
            b->state->log_context, VERROU_WARN, "store.publish_refused", NULL,
            "no right to publish on the channels of the locks: waiters elsewhere are not woken by releases");
    }
}

static void answer(batch *b, attempt *one, const redisReply *reply)
{
    verrou_op *op = one->op;
    long long number = 0;
    bool simple = tells_number(reply, &number);

    note_forbidden(b, one);
    if (op->kind == VERROU_OP_ACQUIRE && simple)
        answer_granted(b, one, number);
    else if (op->kind == VERROU_OP_ACQUIRE && tells_holder(reply))
        answer_holder(b, op, VERROU_OP_REFUSED, reply);
    else if (op->kind == VERROU_OP_ACQUIRE && reply->type == REDIS_REPLY_ARRAY)
        /* it ran out between two commands of the script */
        b->state->host->op_fail(op, VERROU_OP_RETRY, 1, NULL, "redis: the lease ran out just now");
    else if ((op->kind == VERROU_OP_RELEASE || op->kind == VERROU_OP_FORCE) && simple)
        answer_freed(b, op, number);
    else if (op->kind == VERROU_OP_EXTEND && simple)
        op->result = number ? VERROU_OP_APPLIED : VERROU_OP_REFUSED;
    else if (op->kind == VERROU_OP_INSPECT && tells_holder(reply))
        answer_holder(b, op, VERROU_OP_APPLIED, reply);
    else if (op->kind == VERROU_OP_INSPECT && simple)
        op->result = VERROU_OP_REFUSED;
    else
        b->state->host->op_fail(op, VERROU_OP_UNKNOWN, 1, "PROTOCOL", "redis: an answer that no script of ours gives");
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
        return one->alone = one->forbidden = true;
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
            "%s is part of a cluster: the address has to begin with redis+cluster:", one->connection->address.name);
    if (fault.broken) {
        *lane_fault = fault;
        b->lane->stale = true;
    }
    op_fault(b, one->op, fault.result, &fault);
}

/* ---- replies that are those of the requests ---- */

static bool has_number(const redisReply *reply, uint32_t number)
{
    const redisReply *last =
        reply->type == REDIS_REPLY_ARRAY && reply->elements > 1 ? reply->element[reply->elements - 1] : NULL;

    return last && last->type == REDIS_REPLY_STRING && strtoul(last->str, NULL, 10) == number;
}

/* An error repeats no number; if no request of the batch was carried out, it does not matter which of them an error belongs to. */
static bool all_refused(const batch *b, const redis_connection *connection)
{
    for (size_t i = 0; i < b->n; i++)
        if (b->attempts[i].connection == connection && b->attempts[i].reply->type != REDIS_REPLY_ERROR)
            return false;
    return true;
}

/* The last attempt on a connection has been answered: are the answers believed? */
static void believe(batch *b, const attempt *last, redis_fault *lane_fault)
{
    redis_connection *connection = last->connection;
    bool refused = false;

    if (connection->broken)
        return;
    if (last->number && last->reply->type != REDIS_REPLY_ERROR) {
        if (!has_number(last->reply, last->number))
            verrou__redis_break(connection, lane_fault, "PROTOCOL", "a reply to something else than what was asked");
    } else if (verrou__redis_prove(connection, b->deadline_ms, &refused, lane_fault) && refused &&
               !all_refused(b, connection)) {
        verrou__redis_break(connection, lane_fault, "PROTOCOL", "it cannot be told which request was refused");
    }
    if (!connection->broken && !refused)
        verrou__redis_lost_killed(connection);
    connection->believed = true;
}

/* The first request from `at` on that this connection has to answer; b->n if there is none. A reply to ASKING comes before its own. */
static size_t awaited(const batch *b, redis_connection *connection, size_t at)
{
    while (at < b->n && b->attempts[at].connection != connection)
        at++;
    if (at < b->n && b->attempts[at].asking)
        connection->skip++;
    return at;
}

/* Read the replies of one connection: all of them by the deadline, or (0) those that are there. False: that is all there will be. */
static bool read_node(batch *b, redis_connection *connection, int64_t deadline_ms, redis_fault *lane_fault)
{
    while (connection->awaits < b->n && !connection->broken) {
        attempt *one = &b->attempts[connection->awaits];

        if (deadline_ms)
            one->reply = verrou__redis_reply(connection, deadline_ms, lane_fault);
        else if (verrou__redis_reply_now(connection, 0, &one->reply, lane_fault) && !one->reply)
            return true;
        connection->awaits = awaited(b, connection, connection->awaits + 1);
    }
    return false;
}

/* Read from several nodes as they answer. Those that have answered do not wait much longer for one that is silent. */
static void read_nodes(batch *b, redis_fault *lane_fault)
{
    int64_t limit_ms = b->deadline_ms;

    for (;;) {
        struct pollfd in[REDIS_MAX_NODES];
        nfds_t silent = 0;
        int64_t left_ms;
        bool answered = false;

        for (size_t i = 0; i < b->lane->node_count; i++) {
            redis_connection *connection = b->lane->nodes[i];

            if (!connection || connection->awaits >= b->n)
                continue;
            if (read_node(b, connection, 0, lane_fault))
                in[silent++] = (struct pollfd){connection->stream.fd, POLLIN, 0};
            else
                answered = true;
        }
        if (silent == 0)
            return;
        if (answered && limit_ms > b->state->host->now_ms() + SILENCE_MS)
            limit_ms = b->state->host->now_ms() + SILENCE_MS;
        left_ms = limit_ms - b->state->host->now_ms();
        if (left_ms <= 0)
            break;
        poll(in, silent, left_ms > 60000 ? 60000 : (int)left_ms);
    }
    for (size_t i = 0; i < b->lane->node_count; i++) {
        redis_connection *connection = b->lane->nodes[i];

        if (connection && connection->awaits < b->n && !connection->broken)
            verrou__redis_break(connection, lane_fault, "TIMEOUT", "no answer in time");
    }
}

/* All is sent: whose replies come. */
static void await_replies(batch *b)
{
    b->asked = 0;
    for (size_t i = 0; i < b->n; i++)
        b->attempts[i].again = false;
    for (size_t i = 0; i < b->lane->node_count; i++) {
        redis_connection *connection = b->lane->nodes[i];

        if (!connection)
            continue;
        connection->believed = false;
        connection->awaits = awaited(b, connection, 0);
        if (connection->awaits == b->n)
            continue;
        b->only = connection;
        b->asked++;
    }
}

static void read_replies(batch *b, redis_fault *lane_fault)
{
    if (b->asked == 1)
        read_node(b, b->only, b->deadline_ms, lane_fault);
    else if (b->asked > 1)
        read_nodes(b, lane_fault);
}

static void read_all(batch *b, redis_fault *lane_fault)
{
    read_replies(b, lane_fault);
    for (size_t i = b->n; i-- > 0;)
        if (b->attempts[i].connection && !b->attempts[i].connection->believed)
            believe(b, &b->attempts[i], lane_fault);
    for (size_t i = 0; i < b->n; i++) {
        attempt *one = &b->attempts[i];

        if (!one->connection)
            continue;
        if (one->connection->broken) {
            verrou__redis_lost_answer(one->connection);
            op_fault(b, one->op, VERROU_OP_UNKNOWN, &one->connection->fault);
        } else if (one->reply->type == REDIS_REPLY_ERROR) {
            answer_error(b, one, one->reply, lane_fault);
        } else {
            answer(b, one, one->reply);
        }
        freeReplyObject(one->reply);
        one->reply = NULL;
    }
}

/* ---- acknowledgement by replicas ---- */

/* An acquire that finds its own owner may be one repeated, of which the first answer was lost. */
static bool wants_replicas(const attempt *one)
{
    const verrou_op *op = one->op;

    if (op->kind == VERROU_OP_ACQUIRE && op->result == VERROU_OP_REFUSED)
        return op->holder_is_owner;
    return op->result == VERROU_OP_APPLIED && (op->kind == VERROU_OP_ACQUIRE || op->kind == VERROU_OP_EXTEND);
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
    for (size_t i = 0; i < b->n; i++) {
        const attempt *one = &b->attempts[i];
        int64_t needed_ms = one->op->deadline_ms - ANSWER_MARGIN_MS - b->state->host->now_ms();

        if (one->connection == connection && wants_replicas(one) && one->op->deadline_ms && needed_ms < left_ms)
            left_ms = needed_ms;
    }
    if (left_ms < 1)
        left_ms = 1;
    snprintf(count, sizeof count, "%d", b->state->wait_replicas);
    snprintf(limit, sizeof limit, "%lld", (long long)left_ms);
    reply = verrou__redis_ask(connection, b->deadline_ms, fault, "WAIT", count, limit);
    if (reply && reply->type == REDIS_REPLY_INTEGER)
        have = reply->integer;
    else if (reply)
        verrou__redis_break(connection, fault, "PROTOCOL", "WAIT was not answered by a number");
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

    number_last(&(batch){.attempts = &back, .n = 1}, &back);
    if (!connection->broken && append_request(b->state, &back) &&
        verrou__redis_flush(connection, b->deadline_ms, &lost))
        reply = verrou__redis_reply(connection, b->deadline_ms, &lost);
    if (reply && has_number(reply, back.number)) {
        op_fault(b, one->op, fault->result, fault);
    } else {
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
        /* An extension is done, and cannot be undone; it may have been to an earlier end. */
        if (one->op->kind == VERROU_OP_EXTEND)
            op_fault(b, one->op, VERROU_OP_UNKNOWN, &fault);
        else if (one->op->result == VERROU_OP_REFUSED)
            op_fault(b, one->op, fault.result, &fault);
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

static void ask(batch *b, redis_fault *lane_fault)
{
    append_all(b, lane_fault);
    flush_all(b, lane_fault);
    await_replies(b);
}

/* What was asked is answered, round by round. */
static void have_answered(batch *b, redis_fault *lane_fault)
{
    for (int round = 1;; round++) {
        read_all(b, lane_fault);
        if (b->state->wait_replicas)
            await_replicas(b, lane_fault);
        if (!next_round(b))
            return;
        if (round == MAX_ROUNDS)
            break;
        ask(b, lane_fault);
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

/* Broken by this batch, or before it: by a listing, say. */
static const redis_connection *broken_node(const redis_lane *lane)
{
    for (size_t i = 0; i < lane->node_count; i++)
        if (lane->nodes[i] && lane->nodes[i]->broken)
            return lane->nodes[i];
    return NULL;
}

/* Nothing may be left that would be taken for the reply to what is asked next. What has not arrived yet is found by its number. */
static void look_for_leftovers(const redis_lane *lane, redis_fault *lane_fault)
{
    for (size_t i = 0; i < lane->node_count; i++) {
        redis_connection *connection = lane->nodes[i];

        if (connection && !connection->broken && !connection->skip && connection->reader->pos < connection->reader->len)
            verrou__redis_break(connection, lane_fault, "PROTOCOL", "a reply to nothing that was asked");
    }
}

static void route_all(batch *b, verrou_op *const *ops)
{
    for (size_t i = 0; i < b->n; i++)
        b->attempts[i] =
            (attempt){.op = ops[i], .connection = route(b, ops[i]), .alone = atomic_load(&b->state->counter_forbidden)};
}

/* What of the lane has to be told with the answers: whether it can be used again. */
static verrou_status lane_status(const batch *b, redis_fault *fault, verrou_error *err)
{
    const redis_connection *broken;

    look_for_leftovers(b->lane, fault);
    broken = broken_node(b->lane);
    if (!b->lane->stale && !broken)
        return VERROU_OK;
    if (!fault->text[0] && broken)
        *fault = broken->fault;
    else if (!fault->text[0])
        verrou__redis_fault_set(fault, VERROU_OP_RETRY, true, NULL,
                                "the nodes of the cluster are not those that were known");
    return verrou__redis_fail(b->state, fault, err);
}

static verrou_status execute_begun(redis_lane *lane, int64_t deadline_ms, verrou_error *err)
{
    redis_begun *begun = lane->begun;
    batch *b = &begun->batch;
    verrou_status status;

    b->deadline_ms = deadline_ms;
    if (!begun->sent) {
        flush_all(b, &begun->fault);
        await_replies(b);
    }
    have_answered(b, &begun->fault);
    status = lane_status(b, &begun->fault, err);
    verrou__redis_drop_begun(lane);
    return status;
}

verrou_status verrou__redis_execute(void *context, void *opened, verrou_op *const *ops, size_t n, int64_t deadline_ms,
                                    verrou_error *err)
{
    redis_state *state = context;
    redis_lane *lane = opened;
    attempt few[16];
    batch b = {.state = state, .lane = lane, .attempts = few, .n = n, .deadline_ms = deadline_ms};
    redis_fault fault;

    if (lane->begun)
        return execute_begun(lane, deadline_ms, err);
    fault.text[0] = '\0';
    if (n > sizeof few / sizeof few[0]) {
        b.attempts = state->host->malloc(n * sizeof *b.attempts);
        if (!b.attempts) {
            for (size_t i = 0; i < n; i++)
                state->host->op_fail(ops[i], VERROU_OP_RETRY, 1, NULL, "out of memory");
            return VERROU_OK;
        }
    }
    route_all(&b, ops);
    ask(&b, &fault);
    have_answered(&b, &fault);
    if (b.attempts != few)
        state->host->free(b.attempts);
    return lane_status(&b, &fault, err);
}

/* ---- the same, for an event loop that waits ---- */

/* One connection, one round, nothing to be asked in between: anything else needs a thread that may block. */
int verrou__redis_begin(void *context, void *opened, verrou_op *const *ops, size_t n, int64_t deadline_ms)
{
    redis_state *state = context;
    redis_lane *lane = opened;
    redis_connection *connection = lane->nodes[0];
    redis_begun *begun;

    if (lane->node_count != 1 || !connection || connection->broken || state->wait_replicas)
        return 0;
    begun = state->host->malloc(sizeof *begun + n * sizeof begun->attempts[0]);
    if (!begun)
        return 0;
    begun->batch =
        (batch){.state = state, .lane = lane, .attempts = begun->attempts, .n = n, .deadline_ms = deadline_ms};
    begun->fault.text[0] = '\0';
    lane->begun = begun;
    route_all(&begun->batch, ops);
    append_all(&begun->batch, &begun->fault);
    begun->sent = verrou__redis_flush_some(connection, &begun->fault) && connection->out_len == 0;
    if (begun->sent)
        await_replies(&begun->batch);
    return begun->sent;
}

int verrou__redis_lane_fd(void *context, void *opened)
{
    const redis_lane *lane = opened;

    (void)context;
    return lane->nodes[0]->stream.fd;
}

/* Errors may have to be asked about. */
int verrou__redis_arrived(void *context, void *opened)
{
    redis_lane *lane = opened;
    redis_begun *begun = lane->begun;
    batch *b = &begun->batch;

    (void)context;
    if (b->asked != 1)
        return -1;
    if (read_node(b, b->only, 0, &begun->fault))
        return 0;
    for (size_t i = 0; i < b->n; i++)
        if (!b->attempts[i].reply || b->attempts[i].reply->type == REDIS_REPLY_ERROR)
            return -1;
    return 1;
}

void verrou__redis_drop_begun(redis_lane *lane)
{
    redis_begun *begun = lane->begun;

    if (!begun)
        return;
    for (size_t i = 0; i < begun->batch.n; i++)
        freeReplyObject(begun->attempts[i].reply);
    lane->state->host->free(begun);
    lane->begun = NULL;
}
