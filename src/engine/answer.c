/*
 * answer.c - what each answer of the store means for the call it belongs to, and what it means that none has come.
 *
 * Three outcomes are kept apart to the end: applied, not applied, and unknown, when a request was sent and its answer was lost. An unknown
 * acquire is settled by asking again with the same owner: a refusal that names this owner as the holder says that the first request was
 * applied.
 */
#include "engine/internal.h"

/* ---- calls that were answered before their request came back ---- */

/* Did this call's request, or an earlier one whose answer was lost, leave something to be released? */
static bool call_left_something(const verrou__call *call)
{
    verrou_op_result result = call->op.result;

    if (call->kind == VERROU__RELEASE)
        return result == VERROU_OP_UNSENT || result == VERROU_OP_RETRY || result == VERROU_OP_UNKNOWN;
    if (call->kind != VERROU__ACQUIRE)
        return false;
    return result == VERROU_OP_APPLIED || result == VERROU_OP_UNKNOWN || call->stray;
}

/* The request of an answered call came back. */
static void call_stray_back(verrou__call *call)
{
    verrou_op_result result = call->op.result;

    verrou__series_leave(call);
    if (call->giving_up) {
        if (result == VERROU_OP_UNSENT || result == VERROU_OP_RETRY || result == VERROU_OP_UNKNOWN) {
            verrou__call_try_again(call);
            return;
        }
        if (result == VERROU_OP_FAILED)
            verrou__event_locked(call->engine, VERROU_WARN, "lock.not_given_up", call,
                                 call->op.error ? call->op.error->message : NULL, 0);
    } else if (call_left_something(call)) {
        /* A fixed owner's lease is ours for certain only if this very request was granted; then its token says so. */
        bool granted = call->kind == VERROU__ACQUIRE && result == VERROU_OP_APPLIED;

        if (granted && call->owner_is_fixed)
            call->want_fence = call->op.fence;
        if (granted || verrou__call_can_give_up(call)) {
            verrou__call_give_up(call);
            return;
        }
    }
    if (result == VERROU_OP_APPLIED &&
        (call->giving_up || call->kind == VERROU__RELEASE || call->kind == VERROU__FORCE))
        verrou__waits_key_free(call->engine, call->op.key, call->op.key_len, call->op.others);
    verrou__call_end(call);
}

/* ---- what the answers mean ---- */

/* Remember who the holder is, for the caller and for messages. */
static void call_keep_holder(verrou__call *call)
{
    verrou_op *op = &call->op;

    verrou__free(call->holder);
    call->holder = op->holder;
    op->holder = NULL;
    call->fence = engine_compares(call->engine) ? op->fence : 0;
    call->holder_expires_ms = op->remaining_ms;
    if (op->remaining_ms >= 0 && op->remaining_ms != VERROU_FOREVER)
        call->holder_expires_ms = engine_now(call->engine) + op->remaining_ms;
}

/* The request was refused or failed for good: what the store said, unless an earlier request may have been applied. */
static void call_failed(verrou__call *call)
{
    verrou__call_keep_error(call, call->op.error);
    if (call->unknown)
        verrou__call_finish(call, VERROU_EUNKNOWN);
    else
        verrou__call_finish(call,
                            call->error && call->error->status != VERROU_OK ? call->error->status : VERROU_ESTORAGE);
}

static bool call_changes_something(const verrou__call *call)
{
    return call->kind <= VERROU__FORCE || (call->kind == VERROU__SCHEMA && call->apply);
}

/* The answer was lost: ask again, with as much time again as a request has. */
static void call_lost(verrou__call *call)
{
    if (!call->unknown && call_changes_something(call)) {
        call->unknown = true;
        call->first_sent_ms = call->op.sent_ms;
    }
    if (!call->settling) {
        call->settling = true;
        call->fail_by_ms = engine_now(call->engine) + call->engine->options.limit_ms;
        verrou__event_locked(call->engine, VERROU_WARN, "call.answer_lost", call,
                             call->op.error ? call->op.error->message : NULL, 0);
    }
    verrou__call_try_again(call);
}

/* A definite answer: the failures before it are history. */
static void call_settled(verrou__call *call)
{
    verrou__free(call->error);
    call->error = NULL;
    call->fail_by_ms = 0;
    call->pause_ms = 0;
    call->settling = false;
}

/*
 * When a lease of this length ends that the store counts from `from_ms` on or later. A store that knows whole milliseconds only may end it
 * up to one of them earlier by ours: both clocks round down, but not at the same moment.
 */
int64_t verrou__lease_end_ms(const verrou__engine *engine, int64_t from_ms, int64_t length_ms)
{
    if (length_ms == VERROU_FOREVER)
        return VERROU_FOREVER;
    return from_ms + length_ms - (engine->is_inline ? 0 : 1);
}

static void acquire_granted(verrou__call *call, int64_t expires_ms)
{
    int64_t now_ms = engine_now(call->engine);

    call->expires_ms = expires_ms;
    call->fence = call->op.fence;
    if (expires_ms <= now_ms) {
        /* The answer took longer than the lease. Whoever has the lock now, we do not rely on it. */
        call->unknown = true;
        call->permanent = false;
        if (now_ms >= call->deadline_ms)
            verrou__call_finish(call, VERROU_EUNKNOWN);
        else if (++call->ended_early >= MAX_ENDED_EARLY)
            verrou__call_fail(call, VERROU_ESTORAGE, "a lease of %lld ms is over before the store's answer is here",
                              (long long)call->ttl_ms);
        else
            verrou__call_request(call);
        return;
    }
    if (call->ttl_ms == VERROU_FOREVER && expires_ms != VERROU_FOREVER) {
        call->permanent = true;
        call->want_fence = call->op.fence;
        call->stray = verrou__call_can_give_up(call); /* it is there, whatever comes of the next step */
        verrou__call_request(call);
        return;
    }
    verrou__call_finish(call, VERROU_OK);
}

static void acquire_refused(verrou__call *call)
{
    verrou_op *op = &call->op;

    if (call->permanent) {
        /* The lease ended before it was made permanent. */
        call->permanent = false;
        call->want_fence = 0;
        call->stray = call->stray && verrou__call_can_give_up(call);
        verrou__call_request(call);
        return;
    }
    if (op->holder_is_owner && (call->unknown || call->stray)) {
        if (call->owner_is_fixed)
            verrou__call_finish(call, VERROU_EUNKNOWN);
        else if (op->remaining_ms >= 0)
            acquire_granted(call, verrou__lease_end_ms(call->engine, op->sent_ms, op->remaining_ms));
        else
            acquire_granted(call, verrou__lease_end_ms(call->engine, call->first_sent_ms, op->ttl_ms));
        return;
    }
    if (call->unknown && !op->holder && op->remaining_ms < 0) {
        /* The store does not say who it is: it may be us, and we would wait for ourselves. */
        verrou__call_finish(call, VERROU_EUNKNOWN);
        return;
    }
    if (call->unknown) {
        call->stray = verrou__call_can_give_up(call); /* it may still arrive */
        call->unknown = false;
    }
    call_keep_holder(call);
    if (call->immediate)
        verrou__call_finish(call, VERROU_ENOTACQUIRED);
    else
        verrou__waits_refused(call);
}

static void acquire_answered(verrou__call *call)
{
    verrou_op *op = &call->op;

    if (op->result == VERROU_OP_REFUSED) {
        acquire_refused(call);
    } else if (op->kind == VERROU_OP_EXTEND) {
        op->fence = call->want_fence;
        acquire_granted(call, VERROU_FOREVER);
    } else {
        acquire_granted(call, verrou__lease_end_ms(call->engine, op->sent_ms, op->ttl_ms));
    }
}

static void release_answered(verrou__call *call)
{
    verrou_op *op = &call->op;
    bool gone = op->result == VERROU_OP_REFUSED;

    if (gone && !call->unknown) {
        verrou__call_keep_error(call, op->error); /* a store of the caller's may have words of its own for it */
        verrou__call_finish(call, VERROU_ENOTOWNED);
        return;
    }
    if (gone && engine_now(call->engine) >= call->expires_ms) {
        /* It is gone, but it may have run out: then somebody else may have had the lock before our release. */
        call->unknown = false;
        call->gone = true;
        verrou__call_finish(call, VERROU_EUNKNOWN);
        return;
    }
    verrou__waits_key_free(call->engine, op->key, op->key_len, op->others);
    verrou__call_finish(call, VERROU_OK);
}

static void extend_answered(verrou__call *call)
{
    verrou_op *op = &call->op;

    if (op->result == VERROU_OP_REFUSED) {
        verrou__call_keep_error(call, op->error);
        verrou__call_finish(call, VERROU_ENOTOWNED);
        return;
    }
    call->fence = op->fence;
    call->expires_ms = verrou__lease_end_ms(call->engine, op->sent_ms, op->ttl_ms);
    verrou__waits_key_extended(call->engine, op->key, op->key_len, call->expires_ms);
    if (call->expires_ms <= engine_now(call->engine))
        verrou__call_finish(call, VERROU_ENOTOWNED); /* it ran out again before the answer was here */
    else
        verrou__call_finish(call, VERROU_OK);
}

static void call_answer(verrou__call *call)
{
    call_settled(call);
    switch (call->kind) {
    case VERROU__ACQUIRE:
        acquire_answered(call);
        break;
    case VERROU__RELEASE:
        release_answered(call);
        break;
    case VERROU__EXTEND:
        extend_answered(call);
        break;
    case VERROU__FORCE:
        verrou__waits_key_free(call->engine, call->op.key, call->op.key_len, call->op.others);
        verrou__call_finish(call, VERROU_OK);
        break;
    case VERROU__INSPECT:
        call->locked = call->op.result == VERROU_OP_APPLIED;
        call_keep_holder(call);
        verrou__call_finish(call, VERROU_OK);
        break;
    default:
        verrou__call_finish(call, VERROU_OK);
        break;
    }
}

void verrou__call_answered(verrou__call *call)
{
    verrou__call_set_state(call, CALL_BACK);
    if (call->answered) {
        call_stray_back(call);
        return;
    }
    switch (call->op.result) {
    case VERROU_OP_APPLIED:
    case VERROU_OP_REFUSED:
        call_answer(call);
        break;
    case VERROU_OP_FAILED:
        call_failed(call);
        break;
    case VERROU_OP_UNKNOWN:
        call_lost(call);
        break;
    default:
        verrou__call_try_again(call);
        break;
    }
}

/* ---- time limits ---- */

/* No (further) answer in time, and no request is on its way. */
static void call_out_of_time(verrou__call *call)
{
    verrou__engine *engine = call->engine;

    if (call->unknown)
        verrou__call_finish(call, VERROU_EUNKNOWN);
    else if (call->kind == VERROU__ACQUIRE && !call->error && engine_now(engine) >= call->deadline_ms &&
             verrou__waits_know_holder(call))
        verrou__call_finish(call, VERROU_ENOTACQUIRED);
    else if (call->error)
        verrou__call_finish(call, VERROU_ESTORAGE);
    else if (engine->open_error) {
        verrou__call_keep_error(call, engine->open_error);
        verrou__call_finish(call, VERROU_ESTORAGE);
    } else
        verrou__call_fail(call, VERROU_ESTORAGE, "no answer from the store within %lld ms",
                          (long long)(engine_now(engine) - call->start_ms));
}

static void call_answered_out_of_time(verrou__call *call)
{
    if (call->state == CALL_FLYING)
        return; /* it comes back by the driver's deadline */
    if (call->state == CALL_QUEUED)
        verrou__engine_dequeue(call->engine, call);
    verrou__event_locked(
        call->engine, VERROU_WARN, "lock.not_given_up", call,
        call->ttl_ms == VERROU_FOREVER ? "a lease that never expires may be left" : "the lease runs out by itself", 0);
    verrou__call_end(call);
}

void verrou__call_limit_reached(verrou__call *call)
{
    verrou__engine *engine = call->engine;

    if (call->answered) {
        call_answered_out_of_time(call);
        return;
    }
    switch ((enum call_state)call->state) {
    case CALL_ASLEEP:
    case CALL_BEHIND:
        if (call->kind == VERROU__WAIT) {
            verrou__call_fail(call, VERROU_ECANCELED, "the lease has not ended within the limit");
        } else if (engine_now(engine) < call->deadline_ms) {
            call->attempts_end_ms = VERROU_FOREVER;
            call->last_try = true;
            verrou__call_request(call);
        } else {
            call_out_of_time(call);
        }
        break;
    case CALL_FLYING:
        if (!call->first_sent_ms)
            call->first_sent_ms = call->op.sent_ms;
        if (call_changes_something(call))
            verrou__call_fail(call, VERROU_EUNKNOWN, "no answer from the store within %lld ms",
                              (long long)(engine_now(engine) - call->start_ms));
        else
            call_out_of_time(call);
        break;
    default:
        call_out_of_time(call);
        break;
    }
}
