/*
 * call.c - the life of a call: what is sent for it, and what each answer, failure, deadline or cancellation means.
 *
 * Every call is answered exactly once, by call_finish(). A request that is with a driver at that moment cannot be taken back: the
 * call becomes a stray, and if the request turns out to have taken the lock, the same call object is used to release it. See
 * docs/internals/engine.md for the states.
 */
#include <stdarg.h>
#include <stdio.h>

#include "core/sink.h"
#include "engine/internal.h"

/* ---- states ---- */

#define MOVE(to) (1u << (to))
#define MOVE_ANYWHERE_BUT(state) (((1u << CALL_STATES) - 1) & ~MOVE(state))
static const unsigned allowed_moves[CALL_STATES] = {
    [CALL_NEW] = MOVE_ANYWHERE_BUT(CALL_FLYING),
    [CALL_PARKED] = MOVE(CALL_ASLEEP) | MOVE(CALL_QUEUED) | MOVE(CALL_DONE),
    [CALL_BEHIND] = MOVE(CALL_ASLEEP) | MOVE(CALL_QUEUED) | MOVE(CALL_DONE),
    [CALL_ASLEEP] = MOVE(CALL_QUEUED) | MOVE(CALL_DONE),
    [CALL_PAUSED] = MOVE(CALL_QUEUED) | MOVE(CALL_DONE),
    [CALL_QUEUED] = MOVE(CALL_QUEUED) | MOVE(CALL_FLYING) | MOVE(CALL_DONE),
    [CALL_FLYING] = MOVE(CALL_BACK),
    [CALL_BACK] = MOVE(CALL_QUEUED) | MOVE(CALL_PAUSED) | MOVE(CALL_ASLEEP) | MOVE(CALL_DONE),
    [CALL_DONE] = 0,
};

void call_set_state(verrou__call *call, enum call_state state)
{
    if (!(allowed_moves[call->state] & MOVE(state))) {
        /* Our own bug. Builds with VERROU_CHECK_STATES stop here; others go on, since the invariants below do not depend on the table. */
#ifdef VERROU_CHECK_STATES
        __builtin_trap();
#endif
    }
    call->state = (uint8_t)state;
}

/* ---- making and freeing ---- */

static void call_timer_fired(verrou__engine *engine, verrou__timer *timer);

verrou__call *verrou__call_new(verrou__engine *engine, verrou__call_kind kind, size_t text_size)
{
    verrou__call *call = verrou__calloc(sizeof(*call) + text_size);

    if (!call)
        return NULL;
    call->engine = engine;
    call->kind = kind;
    call->state = CALL_NEW;
    call->refs = 1;
    call->start_ms = engine_now(engine);
    call->deadline_ms = VERROU_FOREVER;
    call->attempts_end_ms = VERROU_FOREVER;
    call->holder_expires_ms = -1;
    call->timer.fire = call_timer_fired;
    return call;
}

void verrou__op_done(verrou_op *op)
{
    verrou__free(op->holder);
    verrou__free(op->error);
    op->holder = NULL;
    op->error = NULL;
}

void verrou__call_free(verrou__call *call)
{
    if (!call)
        return;
    if (call->done_with)
        call->done_with(call);
    verrou__op_done(&call->op);
    verrou__free(call->holder);
    verrou__free(call->error);
    verrou__sink_free(call->sink);
    verrou__free(call);
}

/* Drop the engine's reference. Freeing may run foreign code (the lock's, the store's): that waits until the mutex is free. */
static void call_unref_locked(verrou__call *call)
{
    if (--call->refs > 0)
        return;
    call->done_next = call->engine->garbage;
    call->engine->garbage = call;
}

static void call_unlink(verrou__call *call)
{
    verrou__engine *engine = call->engine;

    if (call->all_prev)
        call->all_prev->all_next = call->all_next;
    else
        engine->calls = call->all_next;
    if (call->all_next)
        call->all_next->all_prev = call->all_prev;
    if (!engine->calls && engine->closing)
        pthread_cond_broadcast(&engine->drained);
}

/* The engine has no more to do with it. */
static void call_end(verrou__call *call)
{
    verrou__timer_clear(call->engine, &call->timer);
    call_set_state(call, CALL_DONE);
    call_unlink(call);
    call_unref_locked(call);
}

/* ---- time limits ---- */

int64_t call_limit(const verrou__call *call)
{
    int64_t limit_ms = call->deadline_ms;

    switch ((enum call_state)call->state) {
    case CALL_QUEUED:
    case CALL_FLYING:
    case CALL_PAUSED:
        if (call->fail_by_ms && call->fail_by_ms < limit_ms)
            limit_ms = call->fail_by_ms;
        break;
    case CALL_ASLEEP:
    case CALL_BEHIND:
        if (call->attempts_end_ms < limit_ms)
            limit_ms = call->attempts_end_ms;
        break;
    default:
        break;
    }
    return limit_ms;
}

/* A sleeping caller watches its limits by itself; for all others, and for pauses, the keeper does. */
void call_arm(verrou__call *call)
{
    int64_t when_ms = call->sleeper && !call->answered ? VERROU_FOREVER : call_limit(call);

    if (call->state == CALL_PAUSED && call->pause_until_ms < when_ms)
        when_ms = call->pause_until_ms;
    verrou__timer_set(call->engine, &call->timer, when_ms);
}

static void call_timer_fired(verrou__engine *engine, verrou__timer *timer)
{
    verrou__call *call = (verrou__call *)((char *)timer - offsetof(verrou__call, timer));
    int64_t now_ms = engine_now(engine);

    if (now_ms >= call_limit(call))
        call_limit_reached(call);
    else if (call->state == CALL_PAUSED && now_ms >= call->pause_until_ms)
        call_request(call);
    else
        call_arm(call);
}

/* ---- requests ---- */

static verrou_op_kind op_kind(const verrou__call *call)
{
    if (call->giving_up)
        return VERROU_OP_RELEASE;
    switch (call->kind) {
    case VERROU__ACQUIRE:
        return call->permanent ? VERROU_OP_EXTEND : VERROU_OP_ACQUIRE;
    case VERROU__RELEASE:
        return VERROU_OP_RELEASE;
    case VERROU__EXTEND:
        return VERROU_OP_EXTEND;
    case VERROU__FORCE:
        return VERROU_OP_FORCE;
    default:
        return VERROU_OP_INSPECT;
    }
}

/*
 * A permanent lease begins as a short one, so that a lost answer leaves no lock for ever. An inline store loses no answers.
 */
static int64_t op_ttl(const verrou__call *call)
{
    if (call->kind == VERROU__ACQUIRE && !call->permanent && call->ttl_ms == VERROU_FOREVER && !call->engine->is_inline)
        return PROVISIONAL_TTL_MS;
    return call->ttl_ms;
}

void call_request(verrou__call *call)
{
    verrou__engine *engine = call->engine;
    verrou_op *op = &call->op;

    verrou__op_done(op);
    op->kind = op_kind(call);
    op->ttl_ms = op_ttl(call);
    op->result = VERROU_OP_UNSENT;
    op->others = -1;
    op->remaining_ms = -1;
    op->holder_is_owner = 0;
    op->fence = op->kind == VERROU_OP_ACQUIRE ? 0 : call->want_fence;
    if (call->sink)
        verrou__sink_reset(call->sink);
    if (!call->fail_by_ms)
        call->fail_by_ms = engine_now(engine) + engine->options.limit_ms;
    call_set_state(call, CALL_QUEUED);
    engine_enqueue(engine, call);
    call_arm(call);
}

/* Keep the text of a failure. What the caller was told stays as it is. */
void call_keep_error(verrou__call *call, const verrou_error *from)
{
    if (!from || call->answered)
        return;
    if (!call->error)
        call->error = verrou__calloc(sizeof(*call->error));
    if (!call->error)
        return;
    *call->error = *from;
    call->error->size = sizeof(*call->error);
}

/* The request failed for a passing reason: at once the first time, then after growing pauses. */
static void call_try_again(verrou__call *call)
{
    verrou__engine *engine = call->engine;

    call_keep_error(call, call->op.error);
    if (engine_now(engine) >= call_limit(call)) {
        call_set_state(call, CALL_PAUSED);
        call_limit_reached(call);
        return;
    }
    if (call->pause_ms == 0 && call->op.result != VERROU_OP_RETRY) {
        call->pause_ms = PAUSE_MIN_MS;
        call_request(call);
        return;
    }
    call->pause_ms = call->pause_ms * 2 > PAUSE_MAX_MS ? PAUSE_MAX_MS : call->pause_ms * 2;
    if (call->pause_ms < PAUSE_MIN_MS)
        call->pause_ms = PAUSE_MIN_MS;
    call->pause_until_ms =
        engine_now(engine) + call->pause_ms / 2 + (int64_t)(engine->host->random() % (uint64_t)(call->pause_ms / 2 + 1));
    call_set_state(call, CALL_PAUSED);
    call_arm(call);
}

/* ---- series ---- */

static void call_go(verrou__call *call);

/* Let the next one of the series begin. */
static void series_leave(verrou__call *call)
{
    verrou__series *series = call->series;
    verrou__call *before = NULL;
    bool first;

    if (!series)
        return;
    call->series = NULL;
    first = series->head == call;
    for (verrou__call *at = series->head; at != call; at = at->series_next)
        before = at;
    if (before)
        before->series_next = call->series_next;
    else
        series->head = call->series_next;
    if (series->tail == call)
        series->tail = before;
    if (first && series->head)
        call_go(series->head);
}

/* ---- giving up ---- */

/* Can a release of this call's owner free no other lease than the one meant? */
static bool call_can_give_up(const verrou__call *call)
{
    if (call->kind != VERROU__RELEASE && call->kind != VERROU__ACQUIRE)
        return false;
    return !call->owner_is_fixed || call->want_fence != 0;
}

/* Release in the background what this call may have left behind. Until the lease has run out by itself. */
static void call_give_up(verrou__call *call)
{
    verrou__engine *engine = call->engine;
    int64_t lease_ms = call->kind == VERROU__ACQUIRE ? op_ttl(call) : 0;
    int64_t until_ms = engine_now(engine) + engine->options.limit_ms;

    if (call->kind == VERROU__RELEASE && call->expires_ms > until_ms)
        until_ms = call->expires_ms;
    else if (lease_ms == VERROU_FOREVER || lease_ms > PROVISIONAL_TTL_MS)
        until_ms = engine_now(engine) + (lease_ms == VERROU_FOREVER ? PROVISIONAL_TTL_MS : lease_ms);
    if (engine->closing && until_ms > engine_now(engine) + engine->options.limit_ms)
        until_ms = engine_now(engine) + engine->options.limit_ms;
    call->giving_up = true;
    call->stray = false;
    call->deadline_ms = until_ms;
    call->fail_by_ms = until_ms;
    call->pause_ms = 0;
    verrou__event_locked(engine, VERROU_INFO, "lock.giving_up", call, NULL, 0);
    call_request(call);
}

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

    series_leave(call);
    if (call->giving_up) {
        if (result == VERROU_OP_UNSENT || result == VERROU_OP_RETRY || result == VERROU_OP_UNKNOWN) {
            call_try_again(call);
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
        if (granted || call_can_give_up(call)) {
            call_give_up(call);
            return;
        }
    }
    if (result == VERROU_OP_APPLIED && (call->giving_up || call->kind == VERROU__RELEASE || call->kind == VERROU__FORCE))
        waits_key_free(call->engine, call->op.key, call->op.key_len, call->op.others);
    call_end(call);
}

/* ---- answering ---- */

static const char *call_verb(const verrou__call *call)
{
    static const char *const verbs[] = {
        [VERROU__ACQUIRE] = "acquire",   [VERROU__RELEASE] = "release", [VERROU__EXTEND] = "extend",
        [VERROU__FORCE] = "force-release", [VERROU__INSPECT] = "inspect", [VERROU__LIST] = "list",
        [VERROU__CHECK] = "check",       [VERROU__SCHEMA] = "schema",   [VERROU__WAIT] = "wait",
    };
    return verbs[call->kind];
}

static void call_log(verrou__call *call)
{
    static const char *const done[] = {
        [VERROU__ACQUIRE] = "lock.acquired", [VERROU__RELEASE] = "lock.released", [VERROU__EXTEND] = "lock.extended",
        [VERROU__FORCE] = "lock.force_released", [VERROU__WAIT] = NULL};
    verrou__engine *engine = call->engine;
    verrou_error error = VERROU_ERROR_INIT;
    verrou_level level = VERROU_DEBUG;

    if (!engine->events || call->kind == VERROU__WAIT)
        return;
    if (call->status == VERROU_OK) {
        if (call->kind <= VERROU__FORCE)
            verrou__event_locked(engine, level, done[call->kind], call, NULL,
                                 call->kind == VERROU__ACQUIRE ? (int64_t)call->fence : 0);
        return;
    }
    verrou__call_error(call, &error);
    if (call->status == VERROU_EUNKNOWN || call->status == VERROU_ESTORAGE || call->status == VERROU_ENOMEM)
        level = VERROU_WARN;
    verrou__event_locked(engine, level, call->status == VERROU_ENOTACQUIRED ? "lock.not_acquired" : "call.failed", call,
                         error.message, call->status);
}

/* Remember who the holder is, for the caller and for messages. */
static void call_keep_holder(verrou__call *call)
{
    verrou_op *op = &call->op;

    verrou__free(call->holder);
    call->holder = op->holder;
    op->holder = NULL;
    call->fence = op->fence;
    call->holder_expires_ms = op->remaining_ms;
    if (op->remaining_ms >= 0 && op->remaining_ms != VERROU_FOREVER)
        call->holder_expires_ms = engine_now(call->engine) + op->remaining_ms;
}

/* Hand the outcome to the caller. */
static void call_deliver(verrou__call *call)
{
    verrou__engine *engine = call->engine;

    if (call->sleeper) {
        pthread_cond_signal(&call->sleeper->cond);
    } else if (call->queue) {
        call->done_next = engine->finished;
        engine->finished = call;
    }
}

void call_finish(verrou__call *call, verrou_status status)
{
    verrou__engine *engine = call->engine;

    if (call->state == CALL_QUEUED)
        engine_dequeue(engine, call);
    call->status = status;
    call->answered = true;
    if (status == VERROU_OK)
        call->stray = false;
    else if (call->unknown && call_can_give_up(call))
        call->stray = true;
    cancel_detach(call);
    verrou__timer_clear(engine, &call->timer);
    waits_leave(call);
    if (call->hook)
        call->hook(call);
    call_log(call);
    call_deliver(call);
    if (call->state == CALL_FLYING)
        return; /* call_stray_back() does the rest */
    series_leave(call);
    if (call->stray)
        call_give_up(call);
    else
        call_end(call);
}

static void call_fail(verrou__call *call, verrou_status status, const char *format, ...) VERROU_PRINTF(3, 4);
static void call_fail(verrou__call *call, verrou_status status, const char *format, ...)
{
    verrou_error error = VERROU_ERROR_INIT;
    va_list args;

    va_start(args, format);
    vsnprintf(error.message, sizeof(error.message), format, args);
    va_end(args);
    error.status = status;
    error.retriable = 1;
    call_keep_error(call, &error);
    call_finish(call, status);
}

/* ---- what the answers mean ---- */

/* The request was refused or failed for good: what the store said, unless an earlier request may have been applied. */
static void call_failed(verrou__call *call)
{
    call_keep_error(call, call->op.error);
    if (call->unknown)
        call_finish(call, VERROU_EUNKNOWN);
    else
        call_finish(call, call->error && call->error->status != VERROU_OK ? call->error->status : VERROU_ESTORAGE);
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
    call_try_again(call);
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
            call_finish(call, VERROU_EUNKNOWN);
        else if (++call->ended_early >= MAX_ENDED_EARLY)
            call_fail(call, VERROU_ESTORAGE, "a lease of %lld ms is over before the store's answer is here",
                      (long long)call->ttl_ms);
        else
            call_request(call);
        return;
    }
    if (call->ttl_ms == VERROU_FOREVER && expires_ms != VERROU_FOREVER) {
        call->permanent = true;
        call->want_fence = call->op.fence;
        call->stray = call_can_give_up(call); /* it is there, whatever comes of the next step */
        call_request(call);
        return;
    }
    call_finish(call, VERROU_OK);
}

static void acquire_refused(verrou__call *call)
{
    verrou_op *op = &call->op;

    if (call->permanent) {
        /* The lease ended before it was made permanent. */
        call->permanent = false;
        call->want_fence = 0;
        call->stray = call->stray && call_can_give_up(call);
        call_request(call);
        return;
    }
    if (op->holder_is_owner && (call->unknown || call->stray)) {
        if (call->owner_is_fixed)
            call_finish(call, VERROU_EUNKNOWN);
        else if (op->remaining_ms >= 0)
            acquire_granted(call, verrou__lease_end_ms(call->engine, op->sent_ms, op->remaining_ms));
        else
            acquire_granted(call, verrou__lease_end_ms(call->engine, call->first_sent_ms, op->ttl_ms));
        return;
    }
    if (call->unknown && !op->holder && op->remaining_ms < 0) {
        /* The store does not say who it is: it may be us, and we would wait for ourselves. */
        call_finish(call, VERROU_EUNKNOWN);
        return;
    }
    if (call->unknown) {
        call->stray = call_can_give_up(call); /* it may still arrive */
        call->unknown = false;
    }
    call_keep_holder(call);
    if (call->immediate)
        call_finish(call, VERROU_ENOTACQUIRED);
    else
        waits_refused(call);
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
        call_finish(call, VERROU_ENOTOWNED);
        return;
    }
    if (gone && engine_now(call->engine) >= call->expires_ms) {
        /* It is gone, but it may have run out: then somebody else may have had the lock before our release. */
        call->unknown = false;
        call->gone = true;
        call_finish(call, VERROU_EUNKNOWN);
        return;
    }
    waits_key_free(call->engine, op->key, op->key_len, op->others);
    call_finish(call, VERROU_OK);
}

static void extend_answered(verrou__call *call)
{
    verrou_op *op = &call->op;

    if (op->result == VERROU_OP_REFUSED) {
        call_finish(call, VERROU_ENOTOWNED);
        return;
    }
    call->fence = op->fence;
    call->expires_ms = verrou__lease_end_ms(call->engine, op->sent_ms, op->ttl_ms);
    waits_key_extended(call->engine, op->key, op->key_len, call->expires_ms);
    if (call->expires_ms <= engine_now(call->engine))
        call_finish(call, VERROU_ENOTOWNED); /* it ran out again before the answer was here */
    else
        call_finish(call, VERROU_OK);
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
        waits_key_free(call->engine, call->op.key, call->op.key_len, call->op.others);
        call_finish(call, VERROU_OK);
        break;
    case VERROU__INSPECT:
        call->locked = call->op.result == VERROU_OP_APPLIED;
        call_keep_holder(call);
        call_finish(call, VERROU_OK);
        break;
    default:
        call_finish(call, VERROU_OK);
        break;
    }
}

void call_answered(verrou__call *call)
{
    call_set_state(call, CALL_BACK);
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
        call_try_again(call);
        break;
    }
}

/* ---- limits and cancelling ---- */

/* No (further) answer in time, and no request is on its way. */
static void call_out_of_time(verrou__call *call)
{
    verrou__engine *engine = call->engine;

    if (call->unknown)
        call_finish(call, VERROU_EUNKNOWN);
    else if (call->kind == VERROU__ACQUIRE && !call->error && engine_now(engine) >= call->deadline_ms &&
             waits_know_holder(call))
        call_finish(call, VERROU_ENOTACQUIRED);
    else if (call->error)
        call_finish(call, VERROU_ESTORAGE);
    else if (engine->open_error) {
        call_keep_error(call, engine->open_error);
        call_finish(call, VERROU_ESTORAGE);
    } else
        call_fail(call, VERROU_ESTORAGE, "no answer from the store within %lld ms",
                  (long long)(engine_now(engine) - call->start_ms));
}

static void call_answered_out_of_time(verrou__call *call)
{
    if (call->state == CALL_FLYING)
        return; /* it comes back by the driver's deadline */
    if (call->state == CALL_QUEUED)
        engine_dequeue(call->engine, call);
    verrou__event_locked(call->engine, VERROU_WARN, "lock.not_given_up", call,
                         "the lease runs out by itself", 0);
    call_end(call);
}

void call_limit_reached(verrou__call *call)
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
            call_fail(call, VERROU_ECANCELED, "the lease has not ended within the limit");
        } else if (engine_now(engine) < call->deadline_ms) {
            call->attempts_end_ms = VERROU_FOREVER;
            call->last_try = true;
            call_request(call);
        } else {
            call_out_of_time(call);
        }
        break;
    case CALL_FLYING:
        if (!call->first_sent_ms)
            call->first_sent_ms = call->op.sent_ms;
        if (call_changes_something(call))
            call_fail(call, VERROU_EUNKNOWN, "no answer from the store within %lld ms",
                      (long long)(engine_now(engine) - call->start_ms));
        else
            call_out_of_time(call);
        break;
    default:
        call_out_of_time(call);
        break;
    }
}

void call_cancel(verrou__call *call)
{
    verrou__engine *engine = call->engine;

    verrou__engine_enter(engine);
    if (!call->answered)
        call_finish(call, VERROU_ECANCELED);
    call_unref_locked(call);
    verrou__engine_leave(engine);
}

/* ---- giving calls away ---- */

static void call_go(verrou__call *call)
{
    verrou_error error = VERROU_ERROR_INIT;

    call->begun = true;
    if (call->kind == VERROU__WAIT) {
        call_set_state(call, CALL_ASLEEP);
        call_arm(call);
    }
    if (call->started)
        call->started(call);
    if (call->answered || call->kind == VERROU__WAIT) {
        /* Nothing is to be sent. */
    } else if (call->kind != VERROU__ACQUIRE || call->immediate) {
        call_request(call);
    } else if (waits_join(call, &error) != VERROU_OK) {
        call_keep_error(call, &error);
        call_finish(call, error.status);
    }
}

void call_begin(verrou__call *call)
{
    verrou__engine *engine = call->engine;
    verrou_cancel *cancel = call->cancel;

    call->cancel = NULL;
    call->all_next = engine->calls;
    if (engine->calls)
        engine->calls->all_prev = call;
    engine->calls = call;
    if (engine->closing) {
        call->series = NULL;
        call_finish(call, VERROU_ECLOSED);
        return;
    }
    if (call->preset != VERROU_OK) {
        call_finish(call, call->preset);
        return;
    }
    if (cancel && !cancel_attach(cancel, call)) {
        call->series = NULL;
        call_finish(call, VERROU_ECANCELED);
        return;
    }
    if (call->series) {
        verrou__series *series = call->series;
        bool parked = series->head != NULL;

        if (parked)
            series->tail->series_next = call;
        else
            series->head = call;
        series->tail = call;
        if (parked) {
            call_set_state(call, CALL_PARKED);
            call_arm(call);
            return;
        }
    }
    call_go(call);
}

void verrou__call_start_locked(verrou__call *call)
{
    call_begin(call);
}

void verrou__call_answer_locked(verrou__call *call, verrou_status status)
{
    if (!call->answered)
        call_finish(call, status);
}

verrou_status verrou__call_submit(verrou__call *call, verrou_queue *queue, verrou_done_fn done, void *user,
                                  verrou_error *err)
{
    verrou__engine *engine = call->engine;
    verrou_status status = VERROU_OK;

    verrou__engine_enter(engine);
    if (!engine->closing)
        status = threads_need_keeper(engine);
    if (status == VERROU_OK) {
        queue_ref(queue);
        call->queue = queue;
        call->done = done;
        call->user = user;
        call->refs++;
        call_begin(call);
    }
    verrou__engine_leave(engine);
    if (status != VERROU_OK) {
        verrou__call_free(call);
        return verrou__fail(err, status, "no thread for asynchronous calls");
    }
    return VERROU_OK;
}

/* ---- telling the outcome ---- */

void verrou__info_copy(verrou_info *to, const verrou_info *from)
{
    size_t size;

    if (!to || to->size < sizeof(size_t))
        return;
    size = to->size < sizeof(*from) ? to->size : sizeof(*from);
    memcpy((char *)to + sizeof(size_t), (const char *)from + sizeof(size_t), size - sizeof(size_t));
}

void verrou__call_info(const verrou__call *call, verrou_info *ret_info)
{
    const char *owner = call->holder;
    int64_t expires_ms = call->holder_expires_ms;

    *ret_info = (verrou_info)VERROU_INFO_INIT;
    if (call->kind == VERROU__INSPECT && !call->locked)
        return;
    if (call->status == VERROU_OK && (call->kind == VERROU__ACQUIRE || call->kind == VERROU__EXTEND)) {
        owner = call->op.owner;
        expires_ms = call->expires_ms;
    } else if (call->kind != VERROU__INSPECT && call->status != VERROU_ENOTACQUIRED) {
        return;
    }
    ret_info->locked = 1;
    ret_info->fence = call->fence;
    ret_info->remaining_ms = expires_ms;
    if (expires_ms >= 0 && expires_ms != VERROU_FOREVER) {
        ret_info->remaining_ms = expires_ms - engine_now(call->engine);
        if (ret_info->remaining_ms < 0)
            ret_info->remaining_ms = 0;
    }
    if (owner)
        snprintf(ret_info->owner, sizeof(ret_info->owner), "%s", owner);
}

/* "held by host:pid for another 1234 ms", as far as it is known. */
static void holder_text(const verrou__call *call, char *text, size_t size)
{
    const char *owner = call->holder ? verrou__owner_public(call->holder) : NULL;
    int64_t left_ms = call->holder_expires_ms;
    size_t used;

    snprintf(text, size, "held by %s", owner ? owner : "another owner");
    used = strlen(text);
    if (left_ms == VERROU_FOREVER) {
        snprintf(text + used, size - used, ", with a lease that never expires");
    } else if (left_ms >= 0) {
        left_ms -= engine_now(call->engine);
        snprintf(text + used, size - used, ", whose lease has %lld ms left", (long long)(left_ms < 0 ? 0 : left_ms));
    }
}

void verrou__call_error(const verrou__call *call, verrou_error *ret_err)
{
    const char *key = call->op.key && call->op.key_len >= call->engine->options.prefix_len
                          ? call->op.key + call->engine->options.prefix_len
                          : "";
    char holder[VERROU_MAX_OWNER + 80];

    *ret_err = (verrou_error)VERROU_ERROR_INIT;
    ret_err->status = call->status;
    ret_err->retriable = call->status == VERROU_ENOTACQUIRED || call->status == VERROU_EUNKNOWN;
    if (call->error) {
        memcpy(ret_err->store_code, call->error->store_code, sizeof(ret_err->store_code));
        ret_err->retriable = call->error->retriable;
        memcpy(ret_err->message, call->error->message, sizeof(ret_err->message));
    } else if (call->status == VERROU_ENOTACQUIRED) {
        holder_text(call, holder, sizeof(holder));
        snprintf(ret_err->message, sizeof(ret_err->message), "%s", holder);
    } else {
        snprintf(ret_err->message, sizeof(ret_err->message), "%s", verrou_status_text(call->status));
    }
    if (call->error && call->status == VERROU_EUNKNOWN)
        verrou__error_prefix(ret_err, "the outcome is unknown");
    if (call->kind <= VERROU__INSPECT)
        verrou__error_prefix(ret_err, "%s \"%s\"", call_verb(call), key);
    else
        verrou__error_prefix(ret_err, "%s", call_verb(call));
}
