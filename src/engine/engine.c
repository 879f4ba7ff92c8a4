/*
 * engine.c - making and closing an engine, and reaching the store: lanes, the queue of requests, and who runs the next batch.
 *
 * A request is enqueued; then either a sleeping caller takes an idle lane and the whole queue with it (verrou__engine_lead), or a worker does. The
 * rule that nothing gets stuck: whenever the mutex is let go with requests in the queue and a lane to be had, somebody was woken
 * who will come for them (verrou__engine_appoint). Whoever was woken and cannot come after all appoints anew.
 */
#include "engine/internal.h"

/* ---- making ---- */

static void engine_init_cond(pthread_cond_t *cond)
{
    pthread_condattr_t attr;

    pthread_condattr_init(&attr);
#ifndef __APPLE__
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
#endif
    pthread_cond_init(cond, &attr);
    pthread_condattr_destroy(&attr);
}

static void engine_reopen(verrou__engine *engine, verrou__timer *timer)
{
    (void)timer;
    verrou__engine_appoint(engine);
}

verrou_status verrou__engine_new(const verrou__engine_options *options, verrou__engine **ret_engine, verrou_error *err)
{
    verrou__engine *engine = verrou__calloc(sizeof(*engine));

    if (!engine)
        return verrou__nomem(err);
    if (options->log) {
        engine->events = verrou__calloc(MAX_EVENTS * sizeof(*engine->events));
        if (!engine->events) {
            verrou__free(engine);
            return verrou__nomem(err);
        }
    }
    engine->options = *options;
    atomic_init(&engine->log_level, (int)options->log_level);
    engine->driver = options->driver;
    engine->host = options->host;
    engine->is_inline = (options->driver->flags & VERROU_DRIVER_INLINE) != 0;
    engine->is_later = (options->driver->flags & VERROU_DRIVER_LATER) != 0;
    engine->seed = options->host->random();
    engine->bell = (struct bell)BELL_CLOSED;
    engine->timer_fd = -1;
    engine->close_by_ms = VERROU_FOREVER;
    engine->reopen.fire = engine_reopen;
    pthread_mutex_init(&engine->mutex, NULL);
    engine_init_cond(&engine->work);
    engine_init_cond(&engine->drained);
    table_init(&engine->waits);
    verrou__watch_init(engine);
    verrou__sent_init(engine);
    *ret_engine = engine;
    return VERROU_OK;
}

void verrou__engine_start(verrou__engine *engine, void *driver_state)
{
    engine->state = driver_state;
}

static void engine_destroy_state(verrou__engine *engine)
{
    if (engine->state && engine->driver->destroy)
        engine->driver->destroy(engine->state);
    engine->state = NULL;
}

/* An inline store is used without the mutex by whoever holds a lock of it, so it lives until the last of these is gone. */
void verrou__engine_free(verrou__engine *engine)
{
    if (!engine)
        return;
    engine_destroy_state(engine);
    table_done(&engine->waits, verrou__free);
    for (uint32_t i = 0; i < engine->options.lanes; i++)
        verrou__free(engine->lanes[i].sent);
    pthread_cond_destroy(&engine->work);
    pthread_cond_destroy(&engine->drained);
    pthread_mutex_destroy(&engine->mutex);
    verrou__free(engine->open_error);
    verrou__free(engine->events);
    verrou__free(engine);
}

/* ---- requests that are no batch ---- */

bool verrou__call_is_special(const verrou__call *call)
{
    return call->kind == VERROU__LIST || call->kind == VERROU__CHECK || call->kind == VERROU__SCHEMA;
}

/* list, check, schema: a driver's function of their own. Returns VERROU_OK if the lane can be used again. */
static verrou_status engine_execute_special(verrou__engine *engine, void *lane, verrou__call *call, int64_t deadline_ms,
                                            verrou_error *err)
{
    const verrou_driver *driver = engine->driver;
    verrou_sink *sink = (verrou_sink *)call->sink;
    verrou_status status = VERROU_ENOTSUP;
    verrou_op *op = &call->op;

    if (call->kind == VERROU__LIST && driver->list)
        status = driver->list(engine->state, lane, op->key, op->key_len, deadline_ms, sink, err);
    else if (call->kind == VERROU__CHECK && driver->check)
        status = driver->check(engine->state, lane, deadline_ms, sink, err);
    else if (call->kind == VERROU__SCHEMA && driver->schema)
        status = driver->schema(engine->state, lane, call->apply, deadline_ms, sink, err);
    if (status == VERROU_OK) {
        op->result = VERROU_OP_APPLIED;
        return VERROU_OK;
    }
    if (err->status == VERROU_OK)
        verrou__fail(err, status, "%s", verrou_status_text(status));
    op->result = err->retriable ? VERROU_OP_RETRY : VERROU_OP_FAILED;
    engine->host->op_fail(op, op->result, err->retriable, err->store_code, "%s", err->message);
    if (op->error)
        op->error->status = status;
    return err->retriable ? status : VERROU_OK;
}

/* ---- entering and leaving ---- */

void verrou__engine_enter(verrou__engine *engine)
{
    pthread_mutex_lock(&engine->mutex);
}

/* As TCP estimates what an answer takes (RFC 6298): a mean, and how much it varies. */
static void engine_note_latency(verrou__engine *engine, int64_t took_ms)
{
    int64_t off_us = took_ms * 1000 - engine->latency_us;

    engine->latency_us += off_us / 8;
    engine->latency_deviation_us += ((off_us < 0 ? -off_us : off_us) - engine->latency_deviation_us) / 4;
}

/*
 * A driver that answers later may answer from another thread as soon as it has the request: whether it took it, its return value says, and
 * the request is not looked at.
 */
static void engine_pump_later(verrou__engine *engine)
{
    verrou__call *call;

    while (engine->is_later && (call = engine->queue_head)) {
        verrou_error error = VERROU_ERROR_INIT;
        verrou_op *op = &call->op;
        verrou_status status;

        verrou__engine_dequeue(engine, call);
        verrou__call_set_state(call, CALL_FLYING);
        op->sent_ms = engine_now(engine);
        if (verrou__call_is_special(call))
            status = VERROU_ENOTSUP;
        else
            status = engine->driver->execute(engine->state, NULL, &op, 1, verrou__engine_limit(engine), &error);
        if (status == VERROU_OK)
            continue;
        if (error.status == VERROU_OK)
            verrou__fail(&error, status, "%s", verrou_status_text(status));
        engine->host->op_fail(op, error.retriable ? VERROU_OP_RETRY : VERROU_OP_FAILED, error.retriable,
                              error.store_code, "%s", error.message);
        if (op->error)
            op->error->status = status;
        verrou__call_answered(call);
    }
}

static void engine_pump_inline(verrou__engine *engine)
{
    verrou__call *call;

    while (engine->is_inline && (call = engine->queue_head)) {
        verrou_error error = VERROU_ERROR_INIT;
        verrou_op *op = &call->op;

        verrou__engine_dequeue(engine, call);
        verrou__call_set_state(call, CALL_FLYING);
        op->sent_ms = engine_now(engine);
        if (verrou__call_is_special(call))
            engine_execute_special(engine, NULL, call, VERROU_FOREVER, &error);
        else
            engine->driver->execute(engine->state, NULL, &op, 1, VERROU_FOREVER, &error);
        verrou__call_answered(call);
    }
}

void verrou__engine_answered(void *context, verrou_op *op)
{
    verrou__engine *engine = context;
    verrou__call *call = (verrou__call *)((char *)op - offsetof(verrou__call, op));

    verrou__engine_enter(engine);
    engine_note_latency(engine, engine_now(engine) - op->sent_ms);
    verrou__call_answered(call);
    verrou__engine_leave(engine);
}

void verrou__engine_settle(verrou__engine *engine)
{
    engine_pump_inline(engine);
    engine_pump_later(engine);
    verrou__engine_appoint(engine);
}

bool verrou__engine_has_loose_ends(const verrou__engine *engine)
{
    return engine->finished || engine->garbage ||
           (!engine->reporting && (engine->event_count || engine->events_dropped));
}

static void engine_leave(verrou__engine *engine)
{
    verrou__call *finished;
    verrou__call *garbage;
    verrou__call *in_order = NULL;

    if (engine->events)
        verrou__events_flush(engine);
    finished = engine->finished;
    engine->finished = NULL;
    garbage = engine->garbage;
    engine->garbage = NULL;
    pthread_mutex_unlock(&engine->mutex);
    /* From here on the engine may be gone: a call that is freed may hold the last reference to its store. */
    while (finished) {
        verrou__call *next = finished->done_next;

        finished->done_next = in_order;
        in_order = finished;
        finished = next;
    }
    while (in_order) {
        verrou__call *last = in_order;
        verrou__call *next;

        while (last->done_next && last->done_next->queue == in_order->queue)
            last = last->done_next;
        next = last->done_next;
        verrou__queue_push(in_order->queue, in_order, last);
        in_order = next;
    }
    while (garbage) {
        verrou__call *next = garbage->done_next;

        verrou__call_free(garbage);
        garbage = next;
    }
}

void verrou__engine_leave(verrou__engine *engine)
{
    verrou__engine_settle(engine);
    engine_leave(engine);
}

void verrou__engine_leave_later(verrou__engine *engine)
{
    engine->holding_back = false;
    if (engine->queue_head && !engine->held_back) {
        engine->held_back = true;
        engine->held_since_ms = engine_now(engine);
        verrou__sent_look_soon(engine);
    }
    engine_leave(engine);
}

void verrou__engine_send_off(verrou__engine *engine)
{
    engine->held_back = false;
}

/* ---- the queue ---- */

void verrou__engine_enqueue(verrou__engine *engine, verrou__call *call)
{
    if (!engine->holding_back)
        verrou__engine_send_off(engine);
    call->next = NULL;
    call->prev = engine->queue_tail;
    if (engine->queue_tail)
        engine->queue_tail->next = call;
    else
        engine->queue_head = call;
    engine->queue_tail = call;
    engine->queue_len++;
}

void verrou__engine_dequeue(verrou__engine *engine, verrou__call *call)
{
    if (call->prev)
        call->prev->next = call->next;
    else
        engine->queue_head = call->next;
    if (call->next)
        call->next->prev = call->prev;
    else
        engine->queue_tail = call->prev;
    call->next = call->prev = NULL;
    engine->queue_len--;
}

/* Take requests off the queue: as many as fit, or one that is no plain request. */
size_t verrou__engine_take_batch(verrou__engine *engine, verrou__call **calls, verrou_op **ops, size_t max)
{
    int64_t now_ms = engine_now(engine);
    size_t n = 0;

    while (n < max && engine->queue_head && !(n > 0 && verrou__call_is_special(engine->queue_head))) {
        verrou__call *call = engine->queue_head;

        verrou__engine_dequeue(engine, call);
        verrou__call_set_state(call, CALL_FLYING);
        call->op.sent_ms = now_ms;
        calls[n] = call;
        ops[n++] = &call->op;
        if (verrou__call_is_special(call))
            break;
    }
    return n;
}

/* When a request, or an attempt to connect, that begins now has to be over. */
int64_t verrou__engine_limit(const verrou__engine *engine)
{
    int64_t limit_ms = engine_now(engine) + engine->options.limit_ms;

    return limit_ms < engine->close_by_ms ? limit_ms : engine->close_by_ms;
}

/* ---- lanes ---- */

struct lane *verrou__lane_in_state(verrou__engine *engine, enum lane_state state)
{
    for (uint32_t i = 0; i < engine->options.lanes; i++)
        if (engine->lanes[i].state == state)
            return &engine->lanes[i];
    return NULL;
}

static void engine_keep_open_error(verrou__engine *engine, const verrou_error *error)
{
    if (!error) {
        verrou__free(engine->open_error);
        engine->open_error = NULL;
        return;
    }
    if (!engine->open_error)
        engine->open_error = verrou__calloc(sizeof(*engine->open_error));
    if (engine->open_error)
        *engine->open_error = *error;
}

/* No lane can be had, and trying again does not help: tell everybody who waits for one. */
static void engine_fail_queue(verrou__engine *engine, const verrou_error *error)
{
    size_t n = 0;

    for (const verrou__call *call = engine->queue_head; call; call = call->next)
        n++;
    /* What failing calls enqueue in their turn is left for later. They may also take others off the queue. */
    while (n-- > 0 && engine->queue_head) {
        verrou__call *call = engine->queue_head;

        verrou__engine_dequeue(engine, call);
        verrou__call_set_state(call, CALL_FLYING);
        verrou__call_keep_error(call, error);
        /* What is released in the background goes on trying: nobody else would. */
        call->op.result = call->giving_up ? VERROU_OP_UNSENT : VERROU_OP_FAILED;
        verrou__call_answered(call);
    }
}

static void lane_open_failed(verrou__engine *engine, struct lane *lane, const verrou_error *error)
{
    lane->state = LANE_CLOSED;
    lane->backoff_ms = lane->backoff_ms ? lane->backoff_ms * 2 : 20;
    if (lane->backoff_ms > RECONNECT_MAX_MS)
        lane->backoff_ms = RECONNECT_MAX_MS;
    lane->retry_at_ms = engine_now(engine) + lane->backoff_ms / 2 +
                        (int64_t)(engine->host->random() % (uint64_t)(lane->backoff_ms / 2 + 1));
    engine_keep_open_error(engine, error);
    verrou__event_locked(engine, VERROU_WARN, "store.connection_failed", NULL, error->message, 0);
    if (!error->retriable && !verrou__lane_in_state(engine, LANE_IDLE) && !verrou__lane_in_state(engine, LANE_BUSY) &&
        !verrou__lane_in_state(engine, LANE_SENT)) {
        lane->retry_at_ms = 0; /* the next caller gets an answer of his own */
        engine_fail_queue(engine, error);
    }
}

static void lane_open(verrou__engine *engine, struct lane *lane)
{
    verrou_error error = VERROU_ERROR_INIT;
    verrou_status status;
    void *opened = NULL;
    int64_t deadline_ms = verrou__engine_limit(engine);

    lane->state = LANE_OPENING;
    pthread_mutex_unlock(&engine->mutex);
    status = engine->driver->open(engine->state, deadline_ms, &opened, &error);
    pthread_mutex_lock(&engine->mutex);
    pthread_cond_broadcast(&engine->drained);
    if (status != VERROU_OK) {
        if (error.status == VERROU_OK)
            verrou__fail(&error, status, "the store cannot be opened");
        lane_open_failed(engine, lane, &error);
        return;
    }
    lane->lane = opened;
    lane->state = LANE_IDLE;
    lane->backoff_ms = 0;
    engine_keep_open_error(engine, NULL);
    verrou__event_locked(engine, VERROU_DEBUG, "store.connected", NULL, NULL, 0);
}

static void lane_close(verrou__engine *engine, struct lane *lane)
{
    lane->state = LANE_OPENING; /* nobody else touches it meanwhile */
    pthread_mutex_unlock(&engine->mutex);
    engine->driver->close(engine->state, lane->lane);
    pthread_mutex_lock(&engine->mutex);
    lane->lane = NULL;
    lane->state = LANE_CLOSED;
    lane->retry_at_ms = 0;
    if (lane->sent)
        lane->sent->watched_in = 0; /* the next one may get the same descriptor */
    pthread_cond_broadcast(&engine->drained);
}

/* A closed lane that may be tried now. While one is being opened, others wait for how that goes. */
static struct lane *lane_to_open(verrou__engine *engine)
{
    struct lane *lane;
    int64_t now_ms = engine_now(engine);

    if (verrou__lane_in_state(engine, LANE_OPENING))
        return NULL;
    lane = verrou__lane_in_state(engine, LANE_CLOSED);
    if (lane && lane->retry_at_ms > now_ms) {
        if (!engine->reopen.prev)
            verrou__timer_set(engine, &engine->reopen, lane->retry_at_ms);
        return NULL;
    }
    return lane;
}

/* ---- batches ---- */

static verrou_status engine_execute(verrou__engine *engine, void *lane, verrou__call *const *calls, verrou_op **ops,
                                    size_t n, int64_t deadline_ms, verrou_error *err)
{
    if (!verrou__call_is_special(calls[0]))
        return engine->driver->execute(engine->state, lane, ops, n, deadline_ms, err);
    return engine_execute_special(engine, lane, calls[0], deadline_ms, err);
}

void verrou__engine_finish_batch(verrou__engine *engine, struct lane *lane, verrou__call *const *calls, verrou_op **ops,
                                 size_t n, int64_t deadline_ms)
{
    verrou_error error;
    verrou_status status;

    pthread_mutex_unlock(&engine->mutex);
    verrou__error_clear(&error);
    status = engine_execute(engine, lane->lane, calls, ops, n, deadline_ms, &error);
    pthread_mutex_lock(&engine->mutex);
    engine_note_latency(engine, engine_now(engine) - ops[0]->sent_ms);
    if (status != VERROU_OK)
        verrou__event_locked(engine, VERROU_WARN, "store.connection_lost", NULL, error.message, 0);
    for (size_t i = 0; i < n; i++) {
        if (ops[i]->result == VERROU_OP_UNSENT && status != VERROU_OK)
            verrou__call_keep_error(calls[i], &error);
        verrou__call_answered(calls[i]);
    }
    if (status == VERROU_OK)
        lane->state = LANE_IDLE;
    else
        lane_close(engine, lane);
}

bool verrou__engine_lead(verrou__engine *engine, const verrou__call *leader)
{
    struct lane *lane = verrou__lane_in_state(engine, LANE_IDLE);
    verrou__call *calls[MAX_BATCH];
    verrou_op *ops[MAX_BATCH];
    int64_t deadline_ms = verrou__engine_limit(engine);
    size_t n;

    if (!lane && leader)
        return verrou__sent_take_over(engine, leader->deadline_ms);
    if (!lane || !engine->queue_head)
        return false;
    if (leader && leader->deadline_ms < deadline_ms)
        deadline_ms = leader->deadline_ms;
    n = verrou__engine_take_batch(engine, calls, ops, MAX_BATCH);
    lane->state = LANE_BUSY;
    if (engine->queue_head)
        verrou__engine_appoint(engine);
    verrou__engine_finish_batch(engine, lane, calls, ops, n, deadline_ms);
    return true;
}

bool verrou__engine_work(verrou__engine *engine)
{
    struct lane *lane;

    if (verrou__sent_work(engine) || verrou__watch_open(engine))
        return true;
    if (!engine->queue_head || !engine_has_lanes(engine))
        return false;
    if (verrou__engine_lead(engine, NULL))
        return true;
    lane = lane_to_open(engine);
    if (!lane)
        return false;
    lane_open(engine, lane);
    return true;
}

/* A caller that sleeps although its request could be led by itself. It is looked for among the first few only. */
static verrou__call *engine_find_leader(verrou__engine *engine)
{
    int64_t now_ms = engine_now(engine);
    int depth = 0;

    for (verrou__call *call = engine->queue_head; call && depth < 16; call = call->next, depth++)
        if (call->sleeper && call->sleeper->may_lead && !call->answered &&
            call->deadline_ms - now_ms >= engine->options.limit_ms / 2)
            return call;
    return NULL;
}

/* Answers that an event loop waits for are in nobody's way: whoever leads may take them. */
static bool engine_can_be_led(verrou__engine *engine)
{
    return verrou__lane_in_state(engine, LANE_IDLE) || verrou__lane_in_state(engine, LANE_SENT);
}

static void engine_appoint_leader(verrou__engine *engine)
{
    if (engine->appointed || !engine_can_be_led(engine))
        return;
    engine->appointed = engine_find_leader(engine);
    if (engine->appointed)
        pthread_cond_signal(&engine->appointed->sleeper->cond);
}

void verrou__engine_appoint(verrou__engine *engine)
{
    if (!engine->queue_head || !engine_has_lanes(engine) || engine->stopping || engine->held_back)
        return;
    engine_appoint_leader(engine); /* before it is sent for an event loop, which may be busy */
    while (!engine->appointed && engine->queue_head && verrou__sent_begin(engine))
        ;
    if (!engine->queue_head)
        return;
    if (verrou__lane_in_state(engine, LANE_IDLE)) {
        if (engine->appointed)
            return;
    } else if (!lane_to_open(engine)) {
        return;
    }
    if (!verrou__threads_wake_worker(engine)) {
        verrou_error error = VERROU_ERROR_INIT;

        verrou__fail(&error, VERROU_ENOMEM, "no thread to connect to the store");
        engine_fail_queue(engine, &error);
    }
}

/* ---- synchronous calls ---- */

static void engine_wait(verrou__engine *engine, pthread_cond_t *cond, int64_t until_ms)
{
    struct timespec until;
    int64_t left_ms;

    if (until_ms == VERROU_FOREVER) {
        pthread_cond_wait(cond, &engine->mutex);
        return;
    }
    left_ms = until_ms - engine_now(engine);
    if (left_ms <= 0)
        return;
    if (left_ms > INT32_MAX)
        left_ms = INT32_MAX;
#ifdef __APPLE__
    until.tv_sec = (time_t)(left_ms / 1000);
    until.tv_nsec = (long)(left_ms % 1000) * 1000000;
    pthread_cond_timedwait_relative_np(cond, &engine->mutex, &until);
#else
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += (time_t)(left_ms / 1000);
    until.tv_nsec += (long)(left_ms % 1000) * 1000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_nsec -= 1000000000;
        until.tv_sec++;
    }
    pthread_cond_timedwait(cond, &engine->mutex, &until);
#endif
}

/* May this caller run a batch now? It needs time for it, or its own deadline would cut the others short. */
static bool may_lead_now(verrou__engine *engine, const verrou__call *call)
{
    return call->state == CALL_QUEUED && call->sleeper->may_lead && engine_can_be_led(engine) &&
           call->deadline_ms - engine_now(engine) >= engine->options.limit_ms / 2;
}

static void engine_no_longer_appointed(verrou__engine *engine, const verrou__call *call)
{
    if (engine->appointed == call)
        engine->appointed = NULL;
}

static void call_wait(verrou__call *call, struct verrou__sleeper *sleeper)
{
    verrou__engine *engine = call->engine;

    while (!call->answered) {
        if (may_lead_now(engine, call)) {
            engine_no_longer_appointed(engine, call);
            sleeper->may_lead = false; /* it is busy: its own request may still be in the queue behind the batch */
            verrou__engine_lead(engine, call);
            sleeper->may_lead = true;
            continue;
        }
        engine_no_longer_appointed(engine, call);
        verrou__engine_settle(engine);
        if (call->answered)
            break;
        if (engine_now(engine) >= verrou__call_limit(call)) {
            verrou__call_limit_reached(call);
            continue;
        }
        if (verrou__engine_has_loose_ends(engine)) {
            verrou__engine_leave(engine);
            verrou__engine_enter(engine);
            continue;
        }
        if (!may_lead_now(engine, call))
            engine_wait(engine, &sleeper->cond, verrou__call_limit(call));
    }
    engine_no_longer_appointed(engine, call);
}

/* Whoever runs a batch cannot leave before it is answered: not for a short deadline, nor when it may be cancelled. */
static bool call_may_lead(const verrou__call *call)
{
    return !call->cancel && call->deadline_ms - call->start_ms >= call->engine->options.limit_ms;
}

static verrou_status call_run(verrou__call *call, verrou_info *info, struct verrou_sink **ret_sink, verrou_error *err)
{
    verrou__engine *engine = call->engine;
    struct verrou__sleeper sleeper = {.may_lead = call_may_lead(call)};
    verrou_info told; /* these two are large, and mostly not needed */
    verrou_error error;
    verrou_status status;

    engine_init_cond(&sleeper.cond);
    verrou__engine_enter(engine);
    call->sleeper = &sleeper;
    call->refs++;
    verrou__call_begin(call);
    call_wait(call, &sleeper);
    call->sleeper = NULL;
    status = call->status;
    if (status != VERROU_OK)
        verrou__call_error(call, &error);
    if (info)
        verrou__call_info(call, &told);
    if (ret_sink && status == VERROU_OK) {
        *ret_sink = call->sink;
        call->sink = NULL;
    }
    verrou__engine_leave(engine);
    if (--call->refs == 0)
        verrou__call_free(call);
    pthread_cond_destroy(&sleeper.cond);
    if (status != VERROU_OK)
        verrou__error_copy(err, &error);
    if (status == VERROU_OK || status == VERROU_ENOTACQUIRED)
        verrou__info_copy(info, &told);
    return status;
}

verrou_status verrou__call_run(verrou__call *call, verrou_info *info, verrou_error *err)
{
    return call_run(call, info, NULL, err);
}

verrou_status verrou__call_run_sink(verrou__call *call, struct verrou_sink **ret_sink, verrou_error *err)
{
    return call_run(call, NULL, ret_sink, err);
}

/* ---- inline drivers ---- */

bool verrou__engine_is_inline(const verrou__engine *engine)
{
    return engine->is_inline && !engine->closing;
}

void verrou__engine_execute_inline(verrou__engine *engine, verrou_op *op)
{
    engine->driver->execute(engine->state, NULL, &op, 1, VERROU_FOREVER, NULL);
}

uint32_t verrou__engine_caps(verrou__engine *engine)
{
    return engine->driver->caps(engine->state);
}

/* ---- closing ---- */

static verrou__call *engine_unanswered(const verrou__engine *engine)
{
    verrou__call *call = engine->calls;

    while (call && call->answered)
        call = call->all_next;
    return call;
}

/* Forget what is still to be released in the background: those leases run out by themselves. */
static void engine_drop_calls(verrou__engine *engine)
{
    verrou__call *call = engine->calls;

    while (call) {
        verrou__call *next = call->all_next;

        if (call->state != CALL_FLYING)
            verrou__call_limit_reached(call);
        call = next;
    }
}

/* A caller who leads may be closing its lane though nobody waits for an answer any more. */
static bool engine_is_busy(verrou__engine *engine)
{
    return engine->calls || verrou__lane_in_state(engine, LANE_BUSY) || verrou__lane_in_state(engine, LANE_OPENING);
}

/* Let what was given up be released, and what is in flight come back. */
static void engine_drain(verrou__engine *engine)
{
    int64_t until_ms = engine->close_by_ms = engine_now(engine) + engine->options.limit_ms;

    while (engine_is_busy(engine) && !engine->options.manual) {
        bool late = engine_now(engine) >= until_ms;

        if (late) {
            engine_drop_calls(engine);
            until_ms = VERROU_FOREVER; /* drivers return by their deadline */
        }
        verrou__engine_settle(engine);
        if (verrou__engine_has_loose_ends(engine)) {
            verrou__engine_leave(engine);
            verrou__engine_enter(engine);
        } else if (engine_is_busy(engine)) {
            engine_wait(engine, &engine->drained, until_ms);
        }
    }
    engine_drop_calls(engine);
}

static void engine_close_lanes(verrou__engine *engine)
{
    const verrou_driver *driver = engine->driver;

    for (uint32_t i = 0; i < engine->options.lanes; i++) {
        if (engine->lanes[i].lane)
            driver->close(engine->state, engine->lanes[i].lane);
        engine->lanes[i].lane = NULL;
        engine->lanes[i].state = LANE_CLOSED;
    }
}

void verrou__engine_close(verrou__engine *engine)
{
    verrou__call *call;

    verrou__engine_enter(engine);
    engine->closing = true;
    while ((call = engine_unanswered(engine)))
        verrou__call_finish(call, VERROU_ECLOSED);
    verrou__engine_send_off(engine);
    verrou__sent_hand_over(engine);
    engine_drain(engine);
    verrou__engine_leave(engine);
    verrou__threads_stop(engine);
    verrou__engine_enter(engine);
    verrou__watch_close(engine, NULL);
    verrou__waits_drop_all(engine);
    engine_close_lanes(engine);
    if (!engine->is_inline)
        engine_destroy_state(engine);
    verrou__engine_leave(engine);
}
