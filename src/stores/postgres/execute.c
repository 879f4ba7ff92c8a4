/*
 * execute.c - a batch, in one round trip of libpq's pipeline mode.
 *
 * What stands between two sync points is one transaction of the server, begun and committed by itself: the batch is everything up to one
 * sync point, ordered by key. If anything in it fails, the server undoes all of it and skips the rest; then each request is run once more with a sync
 * point of its own, where it fails alone. The result of a sync point is the confirmation of the commit, and until then no answer counts.
 */
#include "postgres_store.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MAX_RESTARTS 3 /* because the table changed */
#define MAX_NOTHING 4  /* results that are none, in a row */
/* An acquire that found neither a free row nor a holder: how often it is asked again, and the first pause before that. */
#define MAX_ROUNDS 3
#define PAUSE_NS 300000

typedef struct request {
    lock_table_item item; /* first: requests are sorted by it */
    uint64_t since;       /* when its key came to be watched, if it is fresh */
    postgres_asking how;
    bool again;      /* neither taken nor refused */
    bool waited_for; /* somebody waits for what was released */
} request;

typedef struct batch {
    postgres_state *state;
    postgres_lane *lane;
    request *requests;
    size_t n;
    request **todo; /* those that are run */
    size_t count;
    int64_t deadline_ms;
} batch;

/* How a transaction ended. */
typedef enum {
    END_COMMITTED,
    END_UNDONE, /* `fault` says why; the requests are as they were before */
    END_BROKEN, /* the session ended; all requests have answers */
} end;

static void op_fault(const batch *b, verrou_op *op, verrou_op_result result, const postgres_fault *fault)
{
    b->state->host->op_fail(op, result, fault->retriable, fault->code[0] ? fault->code : NULL, "postgres: %s",
                            fault->text);
}

/* ---- sending ---- */

/* `alone`: nothing else is in its transaction. */
static bool send_one(const batch *b, const request *one, bool alone, postgres_fault *fault)
{
    static const postgres_statement statements[] = {
        [VERROU_OP_ACQUIRE] = STATEMENT_ACQUIRE, [VERROU_OP_RELEASE] = STATEMENT_RELEASE,
        [VERROU_OP_EXTEND] = STATEMENT_EXTEND,   [VERROU_OP_FORCE] = STATEMENT_FORCE,
        [VERROU_OP_INSPECT] = STATEMENT_INSPECT,
    };
    static const char *const how[] = {[ASK_FIRST] = "0", [ASK_FRESH] = "1", [ASK_AGAIN] = "2"};
    const verrou_op *op = one->item.op;
    char ttl[32], fence[32], place[16];
    const char *values[POSTGRES_MAX_VALUES] = {op->key, op->owner, fence, ttl};

    snprintf(place, sizeof place, "%d", atomic_load(&b->state->place));
    snprintf(ttl, sizeof ttl, "%" PRId64, op->ttl_ms);
    snprintf(fence, sizeof fence, "%" PRIu64, op->fence);
    if (op->ttl_ms == VERROU_FOREVER)
        values[3] = NULL;
    if (op->kind == VERROU_OP_ACQUIRE) {
        values[2] = values[3];
        values[3] = how[one->how];
    } else if (op->kind == VERROU_OP_RELEASE) {
        values[3] = place;
        values[4] = alone ? "1" : "0";
    } else if (op->kind == VERROU_OP_FORCE) {
        values[1] = place;
    }
    return verrou__postgres_send(b->lane, statements[op->kind], values, fault);
}

/* Requests as one transaction, with what has to be set for it. */
static bool send_group(const batch *b, size_t from, size_t count, postgres_fault *fault)
{
    if (b->lane->session.pooled && !verrou__postgres_send(b->lane, STATEMENT_PREAMBLE, NULL, fault))
        return false;
    for (size_t i = from; i < from + count; i++)
        if (!send_one(b, b->todo[i], count == 1, fault))
            return false;
    return verrou__postgres_sync(&b->lane->session, fault);
}

/* ---- answers ---- */

static uint64_t to_number(const PGresult *result, int row, int column)
{
    return strtoull(PQgetvalue(result, row, column), NULL, 10);
}

static void tell_holder(const batch *b, verrou_op *op, const PGresult *result, int owner, int remaining, int fence)
{
    int64_t remaining_ms = VERROU_FOREVER;

    if (!PQgetisnull(result, 0, remaining))
        remaining_ms = strtoll(PQgetvalue(result, 0, remaining), NULL, 10);
    if (remaining_ms < 0) /* it ran out after it was seen; less than 0 would say that nobody knows the end */
        remaining_ms = 0;
    b->state->host->holder(op, PQgetvalue(result, 0, owner), (size_t)PQgetlength(result, 0, owner), remaining_ms,
                           to_number(result, 0, fence));
}

static void answer_acquire(const batch *b, request *one, const PGresult *result)
{
    verrou_op *op = one->item.op;

    one->again = PQntuples(result) == 0;
    if (one->again)
        return;
    if (PQgetvalue(result, 0, 0)[0] == 't') {
        op->fence = to_number(result, 0, 1);
        op->result = VERROU_OP_APPLIED;
    } else {
        tell_holder(b, op, result, 2, 3, 1);
        op->result = VERROU_OP_REFUSED;
    }
}

/*
 * How many others wait for a row that was freed. NULL: that may not be asked. Those behind a pooler, and those of a table that folds keys, do not
 * listen, and are not counted: where this process is one of them, that there are none is not said.
 */
static void answer_freed(const batch *b, request *one, const PGresult *result)
{
    verrou_op *op = one->item.op;
    bool all_listen = !b->lane->session.pooled && !b->lane->shape.folded;

    op->result = op->kind == VERROU_OP_FORCE || PQntuples(result) > 0 ? VERROU_OP_APPLIED : VERROU_OP_REFUSED;
    if (PQntuples(result) > 0 && !PQgetisnull(result, 0, 0))
        op->others = (int32_t)to_number(result, 0, 0);
    one->waited_for = op->others > 0;
    if (op->others == 0 && !all_listen)
        op->others = -1;
}

static void answer(const batch *b, request *one, PGresult *result)
{
    verrou_op *op = one->item.op;

    switch (op->kind) {
    case VERROU_OP_ACQUIRE:
        answer_acquire(b, one, result);
        break;
    case VERROU_OP_RELEASE:
    case VERROU_OP_FORCE:
        answer_freed(b, one, result);
        break;
    case VERROU_OP_EXTEND:
        op->result = PQcmdTuples(result)[0] == '0' ? VERROU_OP_REFUSED : VERROU_OP_APPLIED;
        break;
    case VERROU_OP_INSPECT:
        if (PQntuples(result) > 0)
            tell_holder(b, op, result, 0, 1, 2);
        op->result = PQntuples(result) > 0 ? VERROU_OP_APPLIED : VERROU_OP_REFUSED;
        break;
    }
}

/* ---- reading ---- */

typedef struct reading {
    size_t answered; /* requests whose result was read */
    bool failed;
    bool confirmed;
    postgres_fault fault; /* if it failed */
} reading;

static void read_error(const batch *b, const PGresult *result, reading *r)
{
    if (!r->failed)
        verrou__postgres_explain(&b->lane->session, result, &r->fault);
    r->failed = true;
}

/* One result and the NULL behind it. False: the session is broken. */
static bool read_one(const batch *b, request *one, reading *r, postgres_fault *fault)
{
    postgres_session *session = &b->lane->session;
    PGresult *result = verrou__postgres_result(session, b->deadline_ms, fault);

    switch (PQresultStatus(result)) {
    case PGRES_TUPLES_OK:
    case PGRES_COMMAND_OK:
        if (one && !r->failed)
            answer(b, one, result);
        break;
    case PGRES_PIPELINE_ABORTED:
        break;
    default: /* also NULL */
        if (result)
            read_error(b, result, r);
    }
    if (result)
        PQclear(verrou__postgres_result(session, b->deadline_ms, fault));
    else if (!session->broken)
        verrou__postgres_unsent(session, fault);
    PQclear(result);
    return !session->broken;
}

/* The sync point. The commit may have failed, which is an error before it; not every libpq then comes to the sync point. */
static bool read_sync(const batch *b, reading *r, postgres_fault *fault)
{
    postgres_session *session = &b->lane->session;

    for (int nothing = 0; !r->confirmed && nothing < MAX_NOTHING;) {
        PGresult *result = verrou__postgres_result(session, b->deadline_ms, fault);

        if (session->broken)
            return false;
        r->confirmed = PQresultStatus(result) == PGRES_PIPELINE_SYNC;
        if (result && PQresultStatus(result) == PGRES_FATAL_ERROR)
            read_error(b, result, r);
        nothing += result == NULL;
        PQclear(result);
    }
    if (!r->confirmed)
        verrou__postgres_unsent(session, fault);
    return r->confirmed;
}

static void undo(const batch *b, size_t from, size_t count)
{
    for (size_t i = from; i < from + count; i++) {
        lock_table_reset(b->state->host, b->todo[i]->item.op);
        b->todo[i]->again = b->todo[i]->waited_for = false;
    }
}

/*
 * The session has ended before the commit was confirmed. If the server itself said, before it came to committing, that something failed,
 * nothing has happened. Else what was read before the first change stays true, and the rest is not known.
 */
static void give_up(const batch *b, size_t from, size_t count, const reading *r, const postgres_fault *fault)
{
    bool undone = r->failed && !r->fault.doubt && (r->answered < count || !r->fault.fatal);
    bool wrote = false;

    for (size_t i = from; i < from + count; i++) {
        verrou_op *op = b->todo[i]->item.op;
        bool answered = lock_table_answered(op);

        wrote = wrote || (answered && lock_table_wrote(op));
        if (answered && !wrote)
            continue;
        if (undone) {
            lock_table_reset(b->state->host, op);
            op_fault(b, op, r->fault.result, &r->fault);
        } else {
            op_fault(b, op, answered ? lock_table_unconfirmed(b->state->host, op) : VERROU_OP_UNKNOWN, fault);
        }
    }
}

static end read_group(const batch *b, size_t from, size_t count, postgres_fault *fault)
{
    reading r = {.answered = 0};
    bool good = !b->lane->session.pooled || read_one(b, NULL, &r, fault);

    for (size_t i = from; good && i < from + count; i++) {
        good = read_one(b, b->todo[i], &r, fault);
        r.answered += good && !r.failed;
    }
    good = good && read_sync(b, &r, fault);
    if (good && r.failed && r.fault.doubt) {
        verrou__postgres_break(&b->lane->session, fault, &r.fault);
        good = false;
    }
    if (!good) {
        give_up(b, from, count, &r, fault);
        return END_BROKEN;
    }
    if (!r.failed)
        return END_COMMITTED;
    undo(b, from, count);
    *fault = r.fault;
    return END_UNDONE;
}

/* ---- running ---- */

/* Find those that have no answer yet. */
static void find_todo(batch *b)
{
    b->count = 0;
    for (size_t i = 0; i < b->n; i++)
        if (b->requests[i].item.op->result == VERROU_OP_UNSENT)
            b->todo[b->count++] = &b->requests[i];
}

/* Nothing of it has got to the server as a whole, but nobody knows how much of it did. */
static end not_sent(const batch *b, const postgres_fault *fault)
{
    for (size_t i = 0; i < b->count; i++)
        op_fault(b, b->todo[i]->item.op, VERROU_OP_UNKNOWN, fault);
    return END_BROKEN;
}

static end run_together(const batch *b, postgres_fault *fault)
{
    postgres_session *session = &b->lane->session;
    end how;

    if (!verrou__postgres_begin(session, fault))
        return END_BROKEN;
    if (!send_group(b, 0, b->count, fault))
        return not_sent(b, fault);
    how = read_group(b, 0, b->count, fault);
    verrou__postgres_end(session);
    return how;
}

/* Each by itself, still in one round trip. *ret_stale: some found that the table has changed, and are to be run again. */
static end run_each(const batch *b, bool *ret_stale, postgres_fault *fault)
{
    postgres_session *session = &b->lane->session;
    end how = END_COMMITTED;

    *ret_stale = false;
    if (!verrou__postgres_begin(session, fault))
        return END_BROKEN;
    for (size_t i = 0; i < b->count; i++)
        if (!send_group(b, i, 1, fault))
            return not_sent(b, fault);
    for (size_t i = 0; i < b->count; i++) {
        how = read_group(b, i, 1, fault);
        if (how == END_UNDONE && fault->stale)
            *ret_stale = true;
        else if (how == END_UNDONE)
            op_fault(b, b->todo[i]->item.op, fault->result, fault);
    }
    verrou__postgres_end(session);
    return session->broken ? END_BROKEN : END_COMMITTED;
}

static void fail_all(const batch *b, const postgres_fault *fault)
{
    for (size_t i = 0; i < b->n; i++)
        if (b->requests[i].item.op->result == VERROU_OP_UNSENT)
            op_fault(b, b->requests[i].item.op, fault->result, fault);
}

/* Run what has no answer. False: the session is broken, or of no use any more. */
static bool run(batch *b, postgres_fault *fault)
{
    for (int restarts = 0;; restarts++) {
        bool stale = false;
        end how;

        find_todo(b);
        if (b->count == 0)
            return true;
        if (!verrou__postgres_ready(b->lane, b->deadline_ms, fault)) {
            /* It has changed between being looked at and being used. */
            if (!b->lane->session.broken && fault->stale && restarts < MAX_RESTARTS)
                continue;
            if (!b->lane->session.broken)
                fail_all(b, fault);
            return !b->lane->session.broken && !fault->moved;
        }
        how = run_together(b, fault);
        if (how == END_UNDONE && !fault->stale && b->count > 1)
            how = run_each(b, &stale, fault);
        else if (how == END_UNDONE && !fault->stale)
            op_fault(b, b->todo[0]->item.op, fault->result, fault);
        else if (how == END_UNDONE)
            stale = true;
        if (how == END_BROKEN || fault->moved)
            return false;
        if (!stale)
            return true;
        verrou__postgres_forget(b->lane);
        if (restarts == MAX_RESTARTS) {
            fail_all(b, fault);
            return true;
        }
    }
}

/* ---- acquires that found nothing ---- */

static void explain_again(const batch *b, verrou_op *op)
{
    b->state->host->op_fail(
        op, VERROU_OP_RETRY, 1, NULL,
        "postgres: %s: table %s: the row was neither free nor held: it changes too fast, its fencing "
        "token is too large, or a trigger keeps it from being stored",
        b->lane->session.name, b->state->name);
}

/* Somebody has been faster, or is about to be, and the look was too early to see him. The next one comes a commit later. */
static bool run_rounds(batch *b, postgres_fault *fault)
{
    struct timespec pause = {0, PAUSE_NS};

    for (int round = 0; run(b, fault); round++) {
        bool any = false;

        for (size_t i = 0; i < b->n; i++) {
            request *one = &b->requests[i];

            if (!one->again)
                continue;
            one->again = false;
            if (round < MAX_ROUNDS)
                any = any || one->item.op->result == VERROU_OP_UNSENT;
            else if (one->item.op->result == VERROU_OP_UNSENT)
                explain_again(b, one->item.op);
        }
        if (!any)
            return true;
        nanosleep(&pause, NULL);
        pause.tv_nsec *= 2;
    }
    return false;
}

/* ---- afterwards ---- */

/* The results of one statement, whose failure does not matter, and of a sync point. */
static void read_extra(const batch *b, bool prune)
{
    postgres_session *session = &b->lane->session;
    postgres_fault fault;
    bool synced = false;

    for (int nothing = 0; !synced && !session->broken && nothing < MAX_NOTHING;) {
        PGresult *result = verrou__postgres_result(session, b->deadline_ms, &fault);

        synced = PQresultStatus(result) == PGRES_PIPELINE_SYNC;
        if (prune && PQresultStatus(result) == PGRES_TUPLES_OK && PQntuples(result) == 1) {
            b->state->host->free(b->lane->cursor);
            b->lane->cursor = NULL;
            if (!PQgetisnull(result, 0, 0))
                b->lane->cursor = b->state->host->malloc((size_t)PQgetlength(result, 0, 0) + 1);
            if (b->lane->cursor)
                strcpy(b->lane->cursor, PQgetvalue(result, 0, 0));
        } else if (result && PQresultStatus(result) == PGRES_FATAL_ERROR && !prune) {
            verrou__postgres_explain(session, result, &fault);
            if (!atomic_exchange(&b->state->told_notify, true))
                b->state->host->log(b->state->log_context, VERROU_WARN, "store.publish_refused", NULL,
                                    "waiters cannot be told of releases: %s", fault.text);
        }
        nothing += result == NULL;
        PQclear(result);
    }
    if (!synced)
        verrou__postgres_unsent(session, &fault);
}

static bool wants_pruning(const batch *b)
{
    return b->lane->shape.fenced && b->lane->shape.may_prune && b->lane->releases >= LOCK_TABLE_PRUNE_RELEASES;
}

/* What the next request has taken again, in the same batch, nobody would find free. */
static void keep_quiet(const batch *b)
{
    for (size_t i = 0; i + 1 < b->n; i++) {
        const verrou_op *op = b->requests[i].item.op;
        const verrou_op *next = b->requests[i + 1].item.op;

        if (next->kind == VERROU_OP_ACQUIRE && next->result == VERROU_OP_APPLIED && op->key_len == next->key_len &&
            memcmp(op->key, next->key, op->key_len) == 0)
            b->requests[i].waited_for = false;
    }
}

/*
 * What follows the commit: telling those who wait, and pruning. A notification is not part of the release, since whoever notifies keeps
 * others who do from committing, and a commit waits for the disk.
 */
static void run_extras(const batch *b)
{
    postgres_session *session = &b->lane->session;
    bool prune = wants_pruning(b);
    bool any = prune;
    const char *cursor[] = {b->lane->cursor ? b->lane->cursor : ""};
    postgres_fault fault;
    bool good;

    keep_quiet(b);
    for (size_t i = 0; i < b->n; i++)
        any = any || b->requests[i].waited_for;
    if (!any || session->broken || !verrou__postgres_begin(session, &fault))
        return;
    good = true;
    for (size_t i = 0; i < b->n && good; i++) {
        const char *values[] = {b->requests[i].item.op->key};

        if (b->requests[i].waited_for)
            good = verrou__postgres_send(b->lane, STATEMENT_NOTIFY, values, &fault) &&
                   verrou__postgres_sync(session, &fault);
    }
    if (good && prune)
        good =
            verrou__postgres_send(b->lane, STATEMENT_PRUNE, cursor, &fault) && verrou__postgres_sync(session, &fault);
    for (size_t i = 0; i < b->n && good; i++)
        if (b->requests[i].waited_for)
            read_extra(b, false);
    if (good && prune) {
        b->lane->releases = 0;
        read_extra(b, true);
    }
    verrou__postgres_end(session);
}

static void note_answers(const batch *b)
{
    for (size_t i = 0; i < b->n; i++) {
        const request *one = &b->requests[i];
        const verrou_op *op = one->item.op;

        if (op->kind == VERROU_OP_ACQUIRE && one->how == ASK_FRESH && lock_table_answered(op))
            verrou__postgres_was_asked(b->state, op->key, op->key_len, one->since);
        if ((op->kind == VERROU_OP_RELEASE || op->kind == VERROU_OP_FORCE) && op->result == VERROU_OP_APPLIED)
            b->lane->releases++;
    }
}

/* ---- execute ---- */

static void prepare(const batch *b, verrou_op *const *ops)
{
    bool watching = atomic_load(&b->state->watched_count) > 0;

    for (size_t i = 0; i < b->n; i++) {
        request *one = &b->requests[i];

        *one = (request){.item = {ops[i], i}};
        if (watching && ops[i]->kind == VERROU_OP_ACQUIRE)
            one->how = verrou__postgres_how_to_ask(b->state, ops[i]->key, ops[i]->key_len, &one->since);
    }
    if (b->n > 1)
        qsort(b->requests, b->n, sizeof *b->requests, lock_table_compare);
}

static bool run_batch(batch *b, postgres_fault *fault)
{
    postgres_session *session = &b->lane->session;
    bool good;

    if (verrou__postgres_has_ended(session, fault))
        return false;
    if (atomic_load(&b->state->lost_count) > 0)
        verrou__postgres_kill_lost(session, b->deadline_ms);
    good = run_rounds(b, fault);
    note_answers(b);
    if (good)
        run_extras(b);
    for (size_t i = 0; i < b->n && session->broken; i++)
        if (b->requests[i].item.op->result == VERROU_OP_UNKNOWN)
            verrou__postgres_lost_answer(session);
    if (session->broken)
        *fault = session->fault;
    return good && !session->broken;
}

verrou_status verrou__postgres_execute(void *context, void *opened, verrou_op *const *ops, size_t n,
                                       int64_t deadline_ms, verrou_error *err)
{
    postgres_state *state = context;
    request few[16];
    request *few_todo[16];
    batch b = {state, opened, few, n, few_todo, 0, deadline_ms};
    void *block = NULL;
    postgres_fault fault = {.code = ""};
    bool good;

    if (n > sizeof few / sizeof few[0]) {
        block = state->host->malloc(n * (sizeof *b.requests + sizeof *b.todo));
        if (!block) {
            for (size_t i = 0; i < n; i++)
                state->host->op_fail(ops[i], VERROU_OP_RETRY, 1, NULL, "out of memory");
            return VERROU_OK;
        }
        b.requests = block;
        b.todo = (request **)(b.requests + n);
    }
    prepare(&b, ops);
    good = run_batch(&b, &fault);
    state->host->free(block);
    return good ? VERROU_OK : verrou__postgres_fail(state, &fault, err);
}
