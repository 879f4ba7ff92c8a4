/*
 * execute.c - a batch: one transaction in one text, from BEGIN to COMMIT, with the requests in the order of their keys.
 *
 * A request that fails in it, in most cases because somebody else has its row locked for a moment, undoes the transaction. It is put aside
 * and the others are run again without it. What was put aside is run afterwards, each request a transaction of its own, and what is locked
 * then is tried again for a few milliseconds. A table without transactions has every request run alone.
 *
 * An acquire that is refused has its row locked until the transaction ends, where it may be in the way of the release. So a key that was
 * refused lately is looked at first, by a plain read, which settles most tries of those who wait.
 */
#include "mysql_store.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#define FEW 16           /* requests for which no memory is asked */
#define MAX_EXCLUSIONS 8 /* then all that is left is run alone */
#define MAX_RESTARTS 3   /* how often the table may turn out to be another one */
#define MAX_TAKES 3      /* how often a row that refused and was found free is tried again */
#define LOCKED_MS 10     /* how long a locked row is tried */
#define PAUSE_US 300     /* between two tries, at first */
#define MAX_PRUNE_MS 1000
#define REFUSED_MS 50 /* how long a refusal is remembered */

typedef enum {
    REQUEST_LOOK,   /* an acquire that is likely to be refused */
    REQUEST_TODO,   /* for the common transaction */
    REQUEST_ASIDE,  /* to be run alone */
    REQUEST_LOCKED, /* the same, after a pause */
    REQUEST_DONE,
} request_state;

typedef struct batch {
    mysql_lane *lane;
    lock_table_item *items;
    unsigned char *states;
    size_t n;
    int64_t deadline_ms;
    unsigned restarts;
    mysql_fault fault;
} batch;

/* How a round ended. */
typedef enum {
    ROUND_DONE,   /* no request is left in the state that it was for */
    ROUND_AGAIN,  /* it was undone; to be run again for what is left */
    ROUND_STALE,  /* the table is not what it was */
    ROUND_BROKEN, /* the connection is; what is unsent may go over another one */
} round_end;

/* ---- answers ---- */

static void op_fault(const mysql_lane *lane, verrou_op *op, const mysql_fault *fault, verrou_op_result result)
{
    const char *hint = fault->code == ERROR_OUT_OF_RANGE && op->kind == VERROU_OP_ACQUIRE
                           ? "the fencing token in the row is too large: "
                           : "";

    lane->state->host->op_fail(op, result, result != VERROU_OP_FAILED, fault->name[0] ? fault->name : NULL,
                               "mysql: %s%s", hint, fault->text);
}

static verrou_op_result result_of(mysql_meaning meaning)
{
    switch (meaning) {
    case MEANS_FAILED:
    case MEANS_STALE:
        return VERROU_OP_FAILED;
    case MEANS_DOUBT:
        return VERROU_OP_UNKNOWN;
    default:
        return VERROU_OP_RETRY;
    }
}

static int64_t number(const char *text)
{
    return text ? strtoll(text, NULL, 10) : 0;
}

/* The row of a key, if there is one: whether it is live, and then whose. */
static bool read_row(const mysql_lane *lane, MYSQL_RES *rows, verrou_op *op)
{
    MYSQL_ROW row = rows ? mysql_fetch_row(rows) : NULL;
    const unsigned long *lengths = row ? mysql_fetch_lengths(rows) : NULL;
    int64_t remaining_ms = VERROU_FOREVER;

    if (!lengths || mysql_num_fields(rows) < 4)
        return false;
    if (row[1])
        remaining_ms = number(row[1]) - number(row[3]);
    if (remaining_ms <= 0)
        return false;
    lane->state->host->holder(op, row[0] ? row[0] : "", row[0] ? lengths[0] : 0, remaining_ms,
                              (uint64_t)number(row[2]));
    return true;
}

static void read_answer(batch *b, verrou_op *op, const mysql_reply *reply)
{
    mysql_lane *lane = b->lane;
    bool applied = reply->affected > 0;

    if (op->kind == VERROU_OP_INSPECT)
        applied = read_row(lane, reply->rows, op);
    else if (op->kind == VERROU_OP_EXTEND)
        applied = applied || reply->insert_id > 0; /* see EXTEND in table.c */
    else if (op->kind == VERROU_OP_FORCE)
        applied = true;
    else if (op->kind == VERROU_OP_ACQUIRE && applied)
        op->fence = reply->insert_id;
    if (lane->tells_waiters && (op->kind == VERROU_OP_RELEASE || op->kind == VERROU_OP_FORCE) && reply->affected > 0)
        op->others = reply->insert_id > 0; /* see RELEASE in table.c */
    op->result = applied ? VERROU_OP_APPLIED : VERROU_OP_REFUSED;
}

/*
 * On a table without `fence` an acquire is followed by the question for its token, and so is the look that finds it was granted by an earlier
 * request. If that is not answered it may have been carried out.
 */
static bool read_token(batch *b, verrou_op *op)
{
    mysql_reply reply;
    MYSQL_ROW row;

    if (!verrou__mysql_reply(b->lane, &reply, &b->fault)) {
        b->fault.meaning = MEANS_DOUBT;
        return false;
    }
    row = reply.rows ? mysql_fetch_row(reply.rows) : NULL;
    if (row && (op->result == VERROU_OP_APPLIED || op->holder_is_owner))
        op->fence = (uint64_t)number(row[0]);
    mysql_free_result(reply.rows);
    return true;
}

static bool has_token_question(const batch *b, const verrou_op *op)
{
    return op->kind == VERROU_OP_ACQUIRE && !b->lane->shape.fenced;
}

/* The next answer, to this request. Of an acquire that is granted, but not for certain, the token is 0. */
static bool read_request(batch *b, verrou_op *op)
{
    mysql_reply reply;
    bool good;

    if (!verrou__mysql_reply(b->lane, &reply, &b->fault))
        return false;
    read_answer(b, op, &reply);
    mysql_free_result(reply.rows);
    good = !has_token_question(b, op) || read_token(b, op);
    if (op->kind == VERROU_OP_ACQUIRE && reply.insert_id == 0)
        op->fence = 0;
    return good;
}

/* A row has changed, and the other number does not say that it was taken: it does not if the table has a trigger. The row itself will tell. */
static bool is_doubtful(const verrou_op *op)
{
    return op->kind == VERROU_OP_ACQUIRE && op->result == VERROU_OP_APPLIED && op->fence == 0;
}

/* ---- rounds ---- */

static mysql_statement statement_of(verrou_op_kind kind)
{
    switch (kind) {
    case VERROU_OP_ACQUIRE:
        return STATEMENT_ACQUIRE;
    case VERROU_OP_RELEASE:
        return STATEMENT_RELEASE;
    case VERROU_OP_EXTEND:
        return STATEMENT_EXTEND;
    case VERROU_OP_FORCE:
        return STATEMENT_FORCE;
    default:
        return STATEMENT_LOOK;
    }
}

static bool same_key(const batch *b, size_t i, size_t j)
{
    const verrou_op *left = b->items[i].op, *right = b->items[j].op;

    return left->key_len == right->key_len && memcmp(left->key, right->key, left->key_len) == 0;
}

/* Requests for one key are carried out in their order: those behind one that has to wait do so too. */
static void put_aside(batch *b, size_t i, request_state state)
{
    for (size_t j = i; j < b->n && same_key(b, i, j); j++)
        if (b->states[j] != REQUEST_DONE)
            b->states[j] = (unsigned char)state;
}

/* What was sent and is not answered. */
static void lose(batch *b, request_state state)
{
    for (size_t i = 0; i < b->n; i++) {
        if (b->states[i] != state)
            continue;
        op_fault(b->lane, b->items[i].op, &b->fault, VERROU_OP_UNKNOWN);
        b->states[i] = REQUEST_DONE;
    }
}

/* The connection was lost while the transaction was under way: answers from before its first change stay. */
static void lose_transaction(batch *b)
{
    const verrou_host *host = b->lane->state->host;
    bool wrote = false;

    for (size_t i = 0; i < b->n; i++) {
        verrou_op *op = b->items[i].op;

        if (b->states[i] != REQUEST_TODO || !lock_table_answered(op))
            continue;
        wrote = wrote || lock_table_wrote(op);
        if (wrote)
            op_fault(b->lane, op, &b->fault, lock_table_unconfirmed(host, op));
        b->states[i] = REQUEST_DONE;
    }
    lose(b, REQUEST_TODO);
}

static void take_back(batch *b)
{
    for (size_t i = 0; i < b->n; i++)
        if (b->states[i] == REQUEST_TODO)
            lock_table_reset(b->lane->state->host, b->items[i].op);
}

/* Take the transaction back, at the server as well. */
static round_end undo(batch *b, round_end end)
{
    mysql_fault fault;
    unsigned done;

    take_back(b);
    if (b->lane->broken)
        return ROUND_BROKEN;
    b->lane->text.len = 0;
    verrou__mysql_text_addf(&b->lane->text, "ROLLBACK");
    if (verrou__mysql_run(b->lane, 1, &done, &fault))
        return end;
    if (!b->lane->broken)
        verrou__mysql_break(b->lane, &fault, fault.name, fault.text);
    b->fault = fault;
    return ROUND_BROKEN;
}

/* A statement of the transaction failed, so that COMMIT was not reached. */
static round_end transaction_failed(batch *b, size_t i)
{
    if (!b->fault.refused) {
        lose_transaction(b);
        return ROUND_BROKEN;
    }
    if (b->fault.meaning == MEANS_STALE && b->restarts < MAX_RESTARTS)
        return undo(b, ROUND_STALE);
    if (i < b->n)
        put_aside(b, i, REQUEST_ASIDE);
    return undo(b, ROUND_AGAIN);
}

/* Nothing was committed if the server says that there was a conflict; nobody knows after anything else. */
static round_end commit_failed(batch *b)
{
    if (b->fault.meaning == MEANS_RETRY && !b->lane->broken) {
        take_back(b);
        for (size_t i = 0; i < b->n; i++)
            if (b->states[i] == REQUEST_TODO)
                b->states[i] = REQUEST_ASIDE;
        return undo(b, ROUND_AGAIN);
    }
    verrou__mysql_break(b->lane, &b->fault, b->fault.name, b->fault.text);
    lose_transaction(b);
    return ROUND_BROKEN;
}

static void write_requests(batch *b, request_state state, const char *first, const char *last)
{
    mysql_text *text = &b->lane->text;

    text->len = 0;
    verrou__mysql_text_addf(text, "%s", first);
    for (size_t i = 0; i < b->n; i++) {
        if (b->states[i] != state)
            continue;
        if (text->len)
            verrou__mysql_text_add(text, ";", 1);
        verrou__mysql_write(b->lane, statement_of(b->items[i].op->kind), b->items[i].op);
        if (has_token_question(b, b->items[i].op))
            verrou__mysql_text_addf(text, ";" MYSQL_NEXT_TOKEN);
    }
    verrou__mysql_text_addf(text, "%s", last);
}

/* Not sent: nothing happened. */
static round_end unsent(batch *b, request_state state)
{
    if (b->lane->broken)
        return ROUND_BROKEN;
    for (size_t i = 0; i < b->n; i++) {
        if (b->states[i] != state)
            continue;
        op_fault(b->lane, b->items[i].op, &b->fault, VERROU_OP_RETRY);
        b->states[i] = REQUEST_DONE;
    }
    return ROUND_DONE;
}

/* Run what is to be done in one transaction. */
static round_end transaction_run(batch *b)
{
    mysql_reply reply;

    write_requests(b, REQUEST_TODO, "BEGIN", ";COMMIT");
    if (!verrou__mysql_send(b->lane, &b->fault))
        return unsent(b, REQUEST_TODO);
    if (!verrou__mysql_reply(b->lane, &reply, &b->fault))
        return transaction_failed(b, b->n);
    for (size_t i = 0; i < b->n; i++) {
        if (b->states[i] != REQUEST_TODO)
            continue;
        if (!read_request(b, b->items[i].op))
            return transaction_failed(b, i);
    }
    if (!verrou__mysql_reply(b->lane, &reply, &b->fault))
        return commit_failed(b);
    for (size_t i = 0; i < b->n; i++)
        if (b->states[i] == REQUEST_TODO)
            b->states[i] = REQUEST_DONE;
    return verrou__mysql_end(b->lane, &b->fault) ? ROUND_DONE : ROUND_BROKEN;
}

/* One request that was run alone failed; the server left out those behind it. */
static round_end alone_failed(batch *b, size_t i)
{
    if (!b->fault.refused) {
        lose(b, REQUEST_ASIDE);
        return ROUND_BROKEN;
    }
    if (b->fault.meaning == MEANS_STALE && b->restarts < MAX_RESTARTS)
        return ROUND_STALE;
    if (b->fault.meaning == MEANS_LOCKED) {
        put_aside(b, i, REQUEST_LOCKED);
        return ROUND_AGAIN;
    }
    op_fault(b->lane, b->items[i].op, &b->fault, result_of(b->fault.meaning));
    b->states[i] = REQUEST_DONE;
    return b->lane->broken ? ROUND_BROKEN : ROUND_AGAIN;
}

/* Run what was put aside, each request for itself. */
static round_end alone_run(batch *b)
{
    write_requests(b, REQUEST_ASIDE, "", "");
    if (b->lane->text.len == 0 && !b->lane->text.failed)
        return ROUND_DONE;
    if (!verrou__mysql_send(b->lane, &b->fault))
        return unsent(b, REQUEST_ASIDE);
    for (size_t i = 0; i < b->n; i++) {
        if (b->states[i] != REQUEST_ASIDE)
            continue;
        if (!read_request(b, b->items[i].op))
            return alone_failed(b, i);
        b->states[i] = REQUEST_DONE;
    }
    return verrou__mysql_end(b->lane, &b->fault) ? ROUND_DONE : ROUND_BROKEN;
}

/* ---- who holds what was refused ---- */

/* Acquires that were refused, are in doubt, or whose row is still locked: the row says why, or that it is free meanwhile. */
static bool is_to_look_at(const batch *b, size_t i)
{
    const verrou_op *op = b->items[i].op;

    return op->kind == VERROU_OP_ACQUIRE && !op->holder &&
           (b->states[i] == REQUEST_LOCKED || is_doubtful(op) ||
            (b->states[i] == REQUEST_DONE && op->result == VERROU_OP_REFUSED));
}

static void in_doubt(const batch *b, verrou_op *op)
{
    b->lane->state->host->op_fail(op, VERROU_OP_UNKNOWN, 1, NULL,
                                  "mysql: %s: whether the row was taken is not certain: a trigger of the table changes "
                                  "what the server tells",
                                  b->lane->address.name);
}

static void looked_at(batch *b, size_t i, bool live, bool doubtful, bool last)
{
    verrou_op *op = b->items[i].op;

    if (live && doubtful && op->holder_is_owner) {
        if (!op->owner_is_drawn)
            in_doubt(b, op); /* or by an earlier acquisition of this owner */
        b->states[i] = REQUEST_DONE;
    } else if (live) {
        op->result = VERROU_OP_REFUSED;
        b->states[i] = REQUEST_DONE;
    } else if (b->states[i] == REQUEST_DONE && !last) {
        lock_table_reset(b->lane->state->host, op);
        b->states[i] = REQUEST_ASIDE;
    } else if (b->states[i] == REQUEST_DONE) {
        verrou__mysql_fault_set(&b->fault, MEANS_RETRY, 0, "%s: the row was refused and then found free",
                                b->lane->address.name);
        op_fault(b->lane, op, &b->fault, VERROU_OP_RETRY);
    }
}

static void write_look(batch *b, size_t i)
{
    mysql_text *text = &b->lane->text;

    if (text->len)
        verrou__mysql_text_add(text, ";", 1);
    verrou__mysql_write(b->lane, STATEMENT_LOOK, b->items[i].op);
    if (has_token_question(b, b->items[i].op))
        verrou__mysql_text_addf(text, ";" MYSQL_NEXT_TOKEN);
}

static bool read_look(batch *b, verrou_op *op, bool *ret_live)
{
    mysql_reply reply;

    if (!verrou__mysql_reply(b->lane, &reply, &b->fault))
        return false;
    *ret_live = read_row(b->lane, reply.rows, op);
    mysql_free_result(reply.rows);
    return !has_token_question(b, op) || read_token(b, op);
}

/* Plain reads: they wait for nobody. A failure leaves the holder unknown. */
static void look(batch *b, bool last)
{
    mysql_text *text = &b->lane->text;
    mysql_fault fault;

    text->len = 0;
    for (size_t i = 0; i < b->n; i++) {
        if (!is_to_look_at(b, i))
            continue;
        write_look(b, i);
    }
    if ((text->len == 0 && !text->failed) || !verrou__mysql_send(b->lane, &fault))
        return;
    for (size_t i = 0; i < b->n; i++) {
        bool doubtful = is_doubtful(b->items[i].op);
        bool live;

        if (!is_to_look_at(b, i))
            continue;
        if (!read_look(b, b->items[i].op, &live))
            return;
        looked_at(b, i, live, doubtful, last);
    }
    (void)verrou__mysql_end(b->lane, &fault);
}

/* ---- keys that were refused lately ---- */

static mysql_refused *refused_at(mysql_state *state, uint64_t hash)
{
    return &state->refused[hash % MYSQL_MAX_REFUSED];
}

static bool was_refused(mysql_state *state, uint64_t hash, int64_t now_ms)
{
    const mysql_refused *one = refused_at(state, hash);
    bool refused;

    pthread_mutex_lock(&state->mutex);
    refused = one->hash == hash && one->until_ms > now_ms;
    pthread_mutex_unlock(&state->mutex);
    return refused;
}

/* Remember how it ended. */
static void note_refusals(batch *b)
{
    mysql_state *state = b->lane->state;
    int64_t now_ms = state->host->now_ms();

    for (size_t i = 0; i < b->n; i++) {
        const verrou_op *op = b->items[i].op;
        uint64_t hash;

        if (op->kind != VERROU_OP_ACQUIRE || !lock_table_answered(op))
            continue;
        hash = verrou__mysql_watch_hash(state, op->key, op->key_len);
        pthread_mutex_lock(&state->mutex);
        *refused_at(state, hash) = (mysql_refused){hash, op->result == VERROU_OP_REFUSED ? now_ms + REFUSED_MS : 0};
        pthread_mutex_unlock(&state->mutex);
    }
}

/* Not one that follows another request for its key. */
static void choose(batch *b)
{
    mysql_state *state = b->lane->state;
    int64_t now_ms = state->host->now_ms();

    for (size_t i = 0; i < b->n; i++) {
        const verrou_op *op = b->items[i].op;
        bool first = i == 0 || !same_key(b, i - 1, i);

        b->states[i] = REQUEST_TODO;
        if (op->kind == VERROU_OP_ACQUIRE && first &&
            was_refused(state, verrou__mysql_watch_hash(state, op->key, op->key_len), now_ms))
            b->states[i] = REQUEST_LOOK;
    }
}

/* Those that are held by somebody are refused; the others, and all if the look fails, are to be run. */
static void look_first(batch *b)
{
    mysql_text *text = &b->lane->text;
    mysql_fault fault;

    text->len = 0;
    for (size_t i = 0; i < b->n; i++)
        if (b->states[i] == REQUEST_LOOK)
            write_look(b, i);
    if ((text->len == 0 && !text->failed) || !verrou__mysql_send(b->lane, &fault))
        return;
    for (size_t i = 0; i < b->n; i++) {
        bool live;

        if (b->states[i] != REQUEST_LOOK)
            continue;
        if (!read_look(b, b->items[i].op, &live))
            return;
        b->states[i] = live ? REQUEST_DONE : REQUEST_TODO;
        if (live)
            b->items[i].op->result = VERROU_OP_REFUSED;
    }
    (void)verrou__mysql_end(b->lane, &fault);
}

/* ---- execute ---- */

static bool any(const batch *b, request_state state)
{
    for (size_t i = 0; i < b->n; i++)
        if (b->states[i] == state)
            return true;
    return false;
}

static void change(batch *b, request_state from, request_state to)
{
    for (size_t i = 0; i < b->n; i++)
        if (b->states[i] == from)
            b->states[i] = (unsigned char)to;
}

/* A common transaction saves flushes to the disk; it takes two requests that write. */
static bool is_worth_a_transaction(const batch *b)
{
    size_t writes = 0;

    for (size_t i = 0; i < b->n; i++)
        writes += b->states[i] == REQUEST_TODO && b->items[i].op->kind != VERROU_OP_INSPECT;
    return writes > 1 && b->lane->shape.transactional;
}

/* Sleep a little, others at the same moment a little longer. */
static void rest(const batch *b, unsigned tries)
{
    int64_t us = (int64_t)PAUSE_US << (tries < 3 ? tries : 3);
    struct timespec pause = {0, 0};

    us += (int64_t)(b->lane->state->host->random() % (uint64_t)us);
    pause.tv_nsec = (long)(us * 1000);
    nanosleep(&pause, NULL);
}

/* What was put aside, and then again what was locked, for a few milliseconds. */
static round_end run_aside(batch *b)
{
    const verrou_host *host = b->lane->state->host;
    int64_t limit_ms = host->now_ms() + LOCKED_MS;
    round_end end;

    if (limit_ms > b->deadline_ms)
        limit_ms = b->deadline_ms;
    for (unsigned tries = 0;; tries++) {
        do
            end = alone_run(b);
        while (end == ROUND_AGAIN);
        if (end != ROUND_DONE || !any(b, REQUEST_LOCKED) || host->now_ms() >= limit_ms)
            return end;
        rest(b, tries);
        change(b, REQUEST_LOCKED, REQUEST_ASIDE);
    }
}

static round_end run_all(batch *b)
{
    round_end end = ROUND_AGAIN;

    for (unsigned i = 0; i < MAX_EXCLUSIONS && end == ROUND_AGAIN && is_worth_a_transaction(b); i++)
        end = transaction_run(b);
    if (end == ROUND_STALE || end == ROUND_BROKEN)
        return end;
    change(b, REQUEST_TODO, REQUEST_ASIDE);
    return run_aside(b);
}

static void fail_unsent(batch *b)
{
    for (size_t i = 0; i < b->n; i++) {
        if (b->items[i].op->result == VERROU_OP_UNSENT)
            op_fault(b->lane, b->items[i].op, &b->fault,
                     b->fault.meaning == MEANS_FAILED ? VERROU_OP_FAILED : VERROU_OP_RETRY);
        b->states[i] = REQUEST_DONE;
    }
}

/* The table's shape is needed to say anything; it is read anew when it turned out to be another one. */
static bool run(batch *b)
{
    round_end end;

    for (;;) {
        if (!verrou__mysql_ready(b->lane, true, &b->fault)) {
            if (!b->lane->broken)
                fail_unsent(b);
            return false;
        }
        look_first(b);
        change(b, REQUEST_LOOK, REQUEST_TODO);
        if (b->lane->broken)
            return false;
        end = run_all(b);
        if (end != ROUND_STALE)
            return end == ROUND_DONE;
        b->restarts++;
        verrou__mysql_forget(b->lane);
        change(b, REQUEST_ASIDE, REQUEST_TODO);
        change(b, REQUEST_LOCKED, REQUEST_TODO);
    }
}

/* Fill in the holders. A row that is free by now is tried again. */
static void settle(batch *b)
{
    for (unsigned takes = 1;; takes++) {
        look(b, takes == MAX_TAKES);
        if (b->lane->broken || !any(b, REQUEST_ASIDE) || !run(b))
            break;
    }
    if (b->lane->broken)
        return;
    for (size_t i = 0; i < b->n; i++) {
        if (b->states[i] != REQUEST_LOCKED)
            continue;
        verrou__mysql_fault_set(&b->fault, MEANS_LOCKED, ERROR_LOCKED, "%s: somebody else has the row locked",
                                b->lane->address.name);
        op_fault(b->lane, b->items[i].op, &b->fault, VERROU_OP_RETRY);
    }
}

/* ---- pruning ---- */

/*
 * Tombstones whose token is an hour old go, by their keys and in a transaction of their own: no row is locked but those that are deleted.
 * Returns how many statements the text has.
 */
static unsigned write_prune(mysql_lane *lane, MYSQL_RES *rows)
{
    unsigned count = 0;
    size_t seen = 0;
    MYSQL_ROW row;

    lane->cursor_len = 0;
    lane->text.len = 0;
    while ((row = mysql_fetch_row(rows))) {
        const unsigned long *lengths = mysql_fetch_lengths(rows);

        if (!row[0] || lengths[0] > VERROU_MAX_KEY)
            continue;                          /* too long to be a key of ours */
        if (++seen == LOCK_TABLE_PRUNE_ROWS) { /* there may be more */
            memcpy(lane->cursor, row[0], lengths[0]);
            lane->cursor_len = lengths[0];
        }
        if (!row[1] || row[1][0] != '1')
            continue;
        verrou__mysql_text_addf(&lane->text, "%sDELETE FROM %s WHERE ", count ? ";" : "BEGIN;", lane->state->name);
        verrou__mysql_write_exact(lane, row[0], lengths[0]);
        verrou__mysql_text_addf(&lane->text, " AND `owner`='' AND `expiration`=0 AND `fence`<" MYSQL_NOW_US "-%lld",
                                (long long)LOCK_TABLE_PRUNE_AGE_US);
        count++;
    }
    verrou__mysql_text_addf(&lane->text, ";COMMIT");
    return count;
}

/* If somebody else has one of the rows locked, they stay until the next time. */
static void prune(mysql_lane *lane)
{
    MYSQL_RES *rows;
    mysql_fault fault;
    unsigned count, done;

    lane->releases = 0;
    lane->text.len = 0;
    verrou__mysql_text_addf(&lane->text,
                            "SELECT `key`,`owner`='' AND `expiration`=0 AND `fence`<" MYSQL_NOW_US "-%lld FROM %s"
                            " WHERE `key`>%s",
                            (long long)LOCK_TABLE_PRUNE_AGE_US, lane->state->name,
                            lane->shape.key_text ? "_utf8mb4 " : "");
    verrou__mysql_text_hex(&lane->text, lane->cursor, lane->cursor_len);
    verrou__mysql_text_addf(&lane->text, " ORDER BY `key` LIMIT %d", LOCK_TABLE_PRUNE_ROWS);
    rows = verrou__mysql_query(lane, &fault);
    if (!rows)
        return;
    count = write_prune(lane, rows);
    mysql_free_result(rows);
    if (count == 0 || verrou__mysql_run(lane, count + 2, &done, &fault) || lane->broken)
        return;
    lane->text.len = 0;
    verrou__mysql_text_addf(&lane->text, "ROLLBACK");
    if (!verrou__mysql_run(lane, 1, &done, &fault))
        verrou__mysql_break(lane, &fault, fault.name, fault.text);
}

static void count_releases(batch *b)
{
    int64_t now_ms;

    for (size_t i = 0; i < b->n; i++) {
        const verrou_op *op = b->items[i].op;

        b->lane->releases +=
            op->result == VERROU_OP_APPLIED && (op->kind == VERROU_OP_RELEASE || op->kind == VERROU_OP_FORCE);
    }
    if (b->lane->broken || !b->lane->shape.fenced || b->lane->releases < LOCK_TABLE_PRUNE_RELEASES)
        return;
    now_ms = b->lane->state->host->now_ms();
    verrou__mysql_until(b->lane->state,
                        now_ms + MAX_PRUNE_MS < b->deadline_ms ? now_ms + MAX_PRUNE_MS : b->deadline_ms);
    prune(b->lane);
}

/* ---- the call ---- */

static void execute(batch *b, verrou_op *const *ops)
{
    lock_table_sort(ops, b->n, b->items);
    choose(b);
    if (!verrou__mysql_is_at_rest(b->lane, &b->fault) || !verrou__mysql_end_lost(b->lane, b->deadline_ms, &b->fault))
        return;
    (void)run(b);
    if (!b->lane->broken)
        settle(b);
    for (size_t i = 0; i < b->n; i++)
        if (is_doubtful(ops[i]))
            in_doubt(b, ops[i]); /* it could not be looked at */
    note_refusals(b);
    for (size_t i = 0; i < b->n; i++) {
        if (ops[i]->result == VERROU_OP_UNKNOWN) {
            verrou__mysql_lost_answer(b->lane);
            break;
        }
    }
    count_releases(b);
}

verrou_status verrou__mysql_execute(void *context, void *lane_context, verrou_op *const *ops, size_t n,
                                    int64_t deadline_ms, verrou_error *err)
{
    mysql_state *state = context;
    mysql_lane *lane = lane_context;
    const verrou_host *host = state->host;
    lock_table_item few_items[FEW];
    unsigned char few_states[FEW];
    batch b = {.lane = lane, .items = few_items, .states = few_states, .n = n, .deadline_ms = deadline_ms};

    verrou__mysql_until(state, deadline_ms);
    if (n > FEW)
        b.items = host->malloc(n * (sizeof *b.items + 1));
    if (b.items) {
        if (n > FEW)
            b.states = (unsigned char *)(b.items + n);
        execute(&b, ops);
    } else {
        for (size_t i = 0; i < n; i++)
            host->op_fail(ops[i], VERROU_OP_RETRY, 1, NULL, "out of memory");
    }
    if (b.items != few_items)
        host->free(b.items);
    return lane->broken ? verrou__mysql_fail(state, &lane->fault, err) : VERROU_OK;
}
