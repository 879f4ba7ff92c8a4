/*
 * sent.c - batches whose answers an event loop waits for.
 *
 * A request that was submitted with a completion queue is sent at once by whoever finds an idle lane, and its answer is read by
 * verrou_dispatch(): the lane's descriptor is polled along with the queue's own. So a call switches no thread. A loop that is busy must not hold
 * up a lane, nor may an answer that takes a second round: what has not been fetched LOOP_PATIENCE_MS later (or up to twice that), or cannot be
 * read without blocking, is waited for by a worker, as any other batch is. What a callback held back, and never let go, is sent by then, too.
 */
#include "engine/internal.h"

static struct lane *lane_of(verrou__engine *engine, const struct sent *sent)
{
    struct lane *lane = engine->lanes;

    while (lane->sent != sent)
        lane++;
    return lane;
}

/* A worker is to wait for the answers. False: there is none. */
static bool hand_over(verrou__engine *engine, struct sent *sent)
{
    sent->overdue = true;
    return verrou__threads_wake_worker(engine);
}

/* Once in a while as long as there is something to look for: setting the timer for each would wake the keeper each time. */
static void look_for_overdue(verrou__engine *engine, verrou__timer *timer)
{
    int64_t since_ms = engine_now(engine) - LOOP_PATIENCE_MS;
    bool again = engine->loop_was_here || engine->held_back;

    engine->loop_was_here = false;
    if (engine->held_back && engine->held_since_ms <= since_ms)
        verrou__engine_send_off(engine); /* the keeper appoints somebody before it sleeps */
    for (uint32_t i = 0; i < engine->options.lanes; i++) {
        struct lane *lane = &engine->lanes[i];

        if (lane->state != LANE_SENT)
            continue;
        again = true;
        if (lane->sent->overdue || lane->sent->since_ms <= since_ms)
            hand_over(engine, lane->sent);
    }
    if (again)
        verrou__timer_set(engine, timer, since_ms + 2 * (int64_t)LOOP_PATIENCE_MS);
}

void verrou__sent_init(verrou__engine *engine)
{
    engine->overdue.fire = look_for_overdue;
}

void verrou__sent_look_soon(verrou__engine *engine)
{
    engine->loop_was_here = true;
    if (!engine->overdue.prev)
        verrou__timer_set(engine, &engine->overdue, engine_now(engine) + LOOP_PATIENCE_MS);
}

/* Have the queue's descriptor tell of the answers, and verrou_dispatch() come for them. */
static bool wait_in_queue(verrou__engine *engine, struct lane *lane, verrou_queue *queue)
{
    struct sent *sent = lane->sent;
    bool listed = sent->queue != NULL;

    if (!listed) {
        sent->queue = queue;
        sent->call = sent->calls[0];
        sent->call->refs++;
    }
    if (!verrou__queue_wait_for(queue, sent, engine->driver->lane_fd(engine->state, lane->lane), listed)) {
        if (!listed) {
            sent->queue = NULL;
            sent->call->refs--; /* the engine has one */
        }
        return false;
    }
    verrou__sent_look_soon(engine);
    return true;
}

/*
 * How many requests go over one lane. A thread that sends all it has over one lane and waits for the answers works in turns with its server; over
 * two, both work at the same time. A lane that is not open yet is opened for what is left.
 */
static size_t share(const verrou__engine *engine, const struct lane *lane)
{
    size_t most = engine->queue_len / (SPLIT_FROM / 2);
    size_t lanes = 1;
    size_t n;

    for (uint32_t i = 0; i < engine->options.lanes && lanes < most; i++)
        lanes +=
            &engine->lanes[i] != lane && (engine->lanes[i].state == LANE_IDLE || engine->lanes[i].state == LANE_CLOSED);
    n = (engine->queue_len + lanes - 1) / lanes;
    return n < MAX_BATCH ? n : MAX_BATCH;
}

bool verrou__sent_begin(verrou__engine *engine)
{
    const verrou_driver *driver = engine->driver;
    const verrou__call *first = engine->queue_head;
    struct lane *lane = verrou__lane_in_state(engine, LANE_IDLE);
    verrou_queue *queue = first->queue;
    struct sent *sent;

    /* Who was answered may have no queue any more. */
    if (!driver->begin || engine->closing || !lane || !queue || first->answered || verrou__call_is_special(first) ||
        !verrou__queue_can_wait(queue))
        return false;
    if (!lane->sent)
        lane->sent = verrou__calloc(sizeof(*lane->sent));
    sent = lane->sent;
    if (!sent || (sent->queue && sent->queue != queue))
        return false;
    sent->overdue = false;
    sent->since_ms = engine_now(engine);
    sent->deadline_ms = verrou__engine_limit(engine);
    sent->n = verrou__engine_take_batch(engine, sent->calls, sent->ops, share(engine, lane));
    lane->state = LANE_SENT;
    if (!driver->begin(engine->state, lane->lane, sent->ops, sent->n, sent->deadline_ms) ||
        !wait_in_queue(engine, lane, queue))
        hand_over(engine, sent);
    return true;
}

static void finish(verrou__engine *engine, struct lane *lane)
{
    struct sent *sent = lane->sent;

    lane->state = LANE_BUSY;
    verrou__engine_finish_batch(engine, lane, sent->calls, sent->ops, sent->n, sent->deadline_ms);
}

static struct lane *overdue_lane(verrou__engine *engine)
{
    for (uint32_t i = 0; i < engine->options.lanes; i++)
        if (engine->lanes[i].state == LANE_SENT && engine->lanes[i].sent->overdue)
            return &engine->lanes[i];
    return NULL;
}

/* For a thread that may block, and may have been woken for something else as well, which now is another's. */
static void finish_blocking(verrou__engine *engine, struct lane *lane)
{
    lane->state = LANE_BUSY;
    if (overdue_lane(engine))
        verrou__threads_wake_worker(engine);
    verrou__engine_appoint(engine);
    finish(engine, lane);
}

bool verrou__sent_work(verrou__engine *engine)
{
    struct lane *lane = overdue_lane(engine);

    if (!lane)
        return false;
    finish_blocking(engine, lane);
    return true;
}

bool verrou__sent_take_over(verrou__engine *engine, int64_t deadline_ms)
{
    struct lane *lane = verrou__lane_in_state(engine, LANE_SENT);

    if (!lane)
        return false;
    if (deadline_ms < lane->sent->deadline_ms)
        lane->sent->deadline_ms = deadline_ms;
    finish_blocking(engine, lane);
    return true;
}

/* Take the answers if they are there. True: they are not, and go on waiting. */
static bool fetch(verrou__engine *engine, struct lane *lane)
{
    struct sent *sent = lane->sent;
    int arrived;

    if (lane->state != LANE_SENT || sent->overdue)
        return false;
    lane->state = LANE_BUSY;
    pthread_mutex_unlock(&engine->mutex);
    arrived = engine->driver->arrived(engine->state, lane->lane);
    pthread_mutex_lock(&engine->mutex);
    lane->state = LANE_SENT;
    if (arrived == 0 && !engine->closing)
        return true;
    if (arrived == 1 || !hand_over(engine, sent))
        finish(engine, lane);
    return false;
}

/* It is in no list any more. Returns what kept the engine, to be dropped without the mutex. */
static verrou__call *unlist(struct sent *sent)
{
    verrou__call *call = sent->call;

    sent->queue = NULL;
    sent->call = NULL;
    return call;
}

static void leave_and_unref(verrou__engine *engine, verrou__call *call)
{
    verrou__engine_leave(engine);
    if (--call->refs == 0)
        verrou__call_free(call);
}

void verrou__sent_fetch(struct sent *sent)
{
    verrou__engine *engine = sent->call->engine;
    verrou_queue *queue = sent->queue;
    verrou__call *call;
    struct lane *lane;

    verrou__engine_enter(engine);
    lane = lane_of(engine, sent);
    call = unlist(sent);
    if (fetch(engine, lane) && !wait_in_queue(engine, lane, queue))
        hand_over(engine, sent);
    leave_and_unref(engine, call);
}

void verrou__sent_abandon(struct sent *sent)
{
    verrou__engine *engine = sent->call->engine;
    verrou__call *call;

    verrou__engine_enter(engine);
    call = unlist(sent);
    if (lane_of(engine, sent)->state == LANE_SENT)
        hand_over(engine, sent);
    leave_and_unref(engine, call);
}

void verrou__sent_hand_over(verrou__engine *engine)
{
    for (uint32_t i = 0; i < engine->options.lanes; i++)
        if (engine->lanes[i].state == LANE_SENT)
            hand_over(engine, engine->lanes[i].sent);
}
