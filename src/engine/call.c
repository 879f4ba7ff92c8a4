/*
 * call.c - the life of a call: its states, its requests and time limits, and its end. What the answers mean is in answer.c.
 *
 * Every call is answered exactly once, by verrou__call_finish(). A request that is with a driver at that moment cannot be taken back: the
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

void verrou__call_set_state(verrou__call *call, enum call_state state)
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
void verrou__call_end(verrou__call *call)
{
    verrou__timer_clear(call->engine, &call->timer);
    verrou__call_set_state(call, CALL_DONE);
    call_unlink(call);
    call_unref_locked(call);
}

/* ---- time limits ---- */

int64_t verrou__call_limit(const verrou__call *call)
{
    int64_t limit_ms = call->deadline_ms;
    int64_t fail_by_ms = call->fail_by_ms;

    switch ((enum call_state)call->state) {
    case CALL_FLYING:
        /* The driver gives up by itself by then, and what it says is better than that nothing was heard of it. */
        fail_by_ms += fail_by_ms ? DRIVER_GRACE_MS : 0;
        /* fall through */
    case CALL_QUEUED:
    case CALL_PAUSED:
    case CALL_BACK:
        if (fail_by_ms && fail_by_ms < limit_ms)
            limit_ms = fail_by_ms;
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

/*
 * A sleeping caller watches its limits by itself; for all others, and for pauses, the keeper does. It also watches over those who may
 * sleep for long: its clock runs through suspend, and that of a condition variable does not.
 */
void verrou__call_arm(verrou__call *call)
{
    bool sleeps_long = call->state == CALL_ASLEEP || call->state == CALL_BEHIND;
    bool looks_itself = call->sleeper && !call->answered && !sleeps_long;
    int64_t when_ms = looks_itself ? VERROU_FOREVER : verrou__call_limit(call);

    if (call->state == CALL_PAUSED && call->pause_until_ms < when_ms)
        when_ms = call->pause_until_ms;
    verrou__timer_set(call->engine, &call->timer, when_ms);
}

static void call_timer_fired(verrou__engine *engine, verrou__timer *timer)
{
    verrou__call *call = (verrou__call *)((char *)timer - offsetof(verrou__call, timer));
    int64_t now_ms = engine_now(engine);

    if (now_ms >= verrou__call_limit(call))
        verrou__call_limit_reached(call);
    else if (call->state == CALL_PAUSED && now_ms >= call->pause_until_ms)
        verrou__call_request(call);
    else
        verrou__call_arm(call);
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
 * A permanent lease begins as a short one, so that a lost answer leaves no lock for ever. An inline store loses no answers, and one that
 * answers later is told what was asked for.
 */
static int64_t op_ttl(const verrou__call *call)
{
    const verrou__engine *engine = call->engine;

    if (call->kind == VERROU__ACQUIRE && !call->permanent && call->ttl_ms == VERROU_FOREVER && engine_has_lanes(engine))
        return PROVISIONAL_TTL_MS;
    return call->ttl_ms;
}

void verrou__call_request(verrou__call *call)
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
    op->owner_is_drawn = !call->owner_is_fixed;
    op->fence = op->kind == VERROU_OP_ACQUIRE ? 0 : call->want_fence;
    if (call->sink)
        verrou__sink_reset(call->sink);
    if (!call->fail_by_ms)
        call->fail_by_ms = engine_now(engine) + engine->options.limit_ms;
    verrou__call_set_state(call, CALL_QUEUED);
    op->deadline_ms = verrou__call_limit(call);
    verrou__engine_enqueue(engine, call);
    verrou__call_arm(call);
    if (call->kind == VERROU__RELEASE && !call->giving_up && engine_has_lanes(engine))
        verrou__waits_pass_on(engine, op->key, op->key_len);
}

/* Keep the text of a failure. What the caller was told stays as it is. */
void verrou__call_keep_error(verrou__call *call, const verrou_error *from)
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
void verrou__call_try_again(verrou__call *call)
{
    verrou__engine *engine = call->engine;

    verrou__call_keep_error(call, call->op.error);
    if (engine_now(engine) >= verrou__call_limit(call)) {
        verrou__call_set_state(call, CALL_PAUSED);
        verrou__call_limit_reached(call);
        return;
    }
    if (call->pause_ms == 0 && call->op.result != VERROU_OP_RETRY) {
        call->pause_ms = PAUSE_MIN_MS;
        verrou__call_request(call);
        return;
    }
    call->pause_ms = call->pause_ms * 2 > PAUSE_MAX_MS ? PAUSE_MAX_MS : call->pause_ms * 2;
    if (call->pause_ms < PAUSE_MIN_MS)
        call->pause_ms = PAUSE_MIN_MS;
    call->pause_until_ms = engine_now(engine) + call->pause_ms / 2 +
                           (int64_t)(engine->host->random() % (uint64_t)(call->pause_ms / 2 + 1));
    verrou__call_set_state(call, CALL_PAUSED);
    verrou__call_arm(call);
}

/* ---- series ---- */

static void call_go(verrou__call *call);

/* Let the next one of the series begin. */
void verrou__series_leave(verrou__call *call)
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
bool verrou__call_can_give_up(const verrou__call *call)
{
    if (call->kind != VERROU__RELEASE && call->kind != VERROU__ACQUIRE)
        return false;
    return !call->owner_is_fixed || (call->want_fence != 0 && engine_compares(call->engine));
}

/* Release in the background what this call may have left behind. Until the lease has run out by itself. */
void verrou__call_give_up(verrou__call *call)
{
    verrou__engine *engine = call->engine;
    int64_t lease_ms = call->kind == VERROU__ACQUIRE ? op_ttl(call) : 0;
    int64_t until_ms = engine_now(engine) + engine->options.limit_ms;

    if (lease_ms == VERROU_FOREVER)
        lease_ms = PROVISIONAL_TTL_MS;
    if (call->kind == VERROU__RELEASE && call->expires_ms > until_ms)
        until_ms = call->expires_ms;
    else if (engine_now(engine) + lease_ms > until_ms)
        until_ms = engine_now(engine) + lease_ms;
    if (engine->closing && until_ms > engine_now(engine) + engine->options.limit_ms)
        until_ms = engine_now(engine) + engine->options.limit_ms;
    call->giving_up = true;
    call->stray = false;
    call->deadline_ms = until_ms;
    call->fail_by_ms = until_ms;
    call->pause_ms = 0;
    verrou__event_locked(engine, VERROU_INFO, "lock.giving_up", call, NULL, 0);
    verrou__call_request(call);
}

/* ---- answering ---- */

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

void verrou__call_finish(verrou__call *call, verrou_status status)
{
    verrou__engine *engine = call->engine;

    if (call->state == CALL_QUEUED)
        verrou__engine_dequeue(engine, call);
    call->status = status;
    call->answered = true;
    if (status == VERROU_OK)
        call->stray = false;
    else if (call->unknown && verrou__call_can_give_up(call))
        call->stray = true;
    verrou__cancel_detach(call);
    verrou__timer_clear(engine, &call->timer);
    verrou__waits_leave(call);
    if (call->hook)
        call->hook(call);
    verrou__outcome_log(call);
    call_deliver(call);
    if (call->state == CALL_FLYING)
        return; /* call_stray_back() does the rest */
    verrou__series_leave(call);
    if (call->stray)
        verrou__call_give_up(call);
    else
        verrou__call_end(call);
}

void verrou__call_fail(verrou__call *call, verrou_status status, const char *format, ...)
{
    verrou_error error = VERROU_ERROR_INIT;
    va_list args;

    va_start(args, format);
    vsnprintf(error.message, sizeof(error.message), format, args);
    va_end(args);
    error.status = status;
    error.retriable = 1;
    verrou__call_keep_error(call, &error);
    verrou__call_finish(call, status);
}

/* ---- cancelling ---- */

void verrou__call_cancel(verrou__call *call)
{
    verrou__engine *engine = call->engine;

    verrou__engine_enter(engine);
    if (!call->answered)
        verrou__call_finish(call, VERROU_ECANCELED);
    call_unref_locked(call);
    verrou__engine_leave(engine);
}

/* ---- giving calls away ---- */

static void call_go(verrou__call *call)
{
    verrou_error error;

    verrou__error_clear(&error);
    call->begun = true;
    if (call->kind == VERROU__WAIT) {
        verrou__call_set_state(call, CALL_ASLEEP);
        verrou__call_arm(call);
    }
    if (call->started)
        call->started(call);
    if (call->answered || call->kind == VERROU__WAIT) {
        /* Nothing is to be sent. */
    } else if (call->kind != VERROU__ACQUIRE || call->immediate) {
        verrou__call_request(call);
    } else if (verrou__waits_join(call, &error) != VERROU_OK) {
        verrou__call_keep_error(call, &error);
        verrou__call_finish(call, error.status);
    }
}

void verrou__call_begin(verrou__call *call)
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
        verrou__call_finish(call, VERROU_ECLOSED);
        return;
    }
    if (call->preset != VERROU_OK) {
        verrou__call_finish(call, call->preset);
        return;
    }
    if (cancel && !verrou__cancel_attach(cancel, call)) {
        call->series = NULL;
        verrou__call_finish(call, VERROU_ECANCELED);
        return;
    }
    if (call->deadline_ms <= call->start_ms) {
        call->series = NULL;
        if (call->kind == VERROU__ACQUIRE)
            verrou__call_finish(call, VERROU_ENOTACQUIRED);
        else
            verrou__call_fail(call, VERROU_ESTORAGE, "the deadline had passed before anything was sent");
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
            verrou__call_set_state(call, CALL_PARKED);
            verrou__call_arm(call);
            return;
        }
    }
    call_go(call);
}

void verrou__call_start_locked(verrou__call *call)
{
    verrou__call_begin(call);
}

void verrou__call_answer_locked(verrou__call *call, verrou_status status)
{
    if (!call->answered)
        verrou__call_finish(call, status);
}

verrou_status verrou__call_submit(verrou__call *call, verrou_queue *queue, verrou_done_fn done, void *user,
                                  verrou_error *err)
{
    verrou__engine *engine = call->engine;
    verrou_status status = VERROU_OK;

    verrou__engine_enter(engine);
    if (!engine->closing)
        status = verrou__threads_need_keeper(engine);
    if (status == VERROU_OK) {
        verrou__queue_ref(queue);
        call->queue = queue;
        call->done = done;
        call->user = user;
        call->refs++;
        engine->holding_back = engine_has_lanes(engine) && verrou__queue_hold_back(call);
        verrou__call_begin(call);
    }
    if (engine->holding_back)
        verrou__engine_leave_later(engine);
    else
        verrou__engine_leave(engine);
    if (status != VERROU_OK) {
        verrou__call_free(call);
        return verrou__fail(err, status, "no thread for asynchronous calls");
    }
    return VERROU_OK;
}
