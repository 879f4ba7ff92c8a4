/*
 * waits.c - who in this process waits for which key. First come, first served; only the first waiter of a key asks the store, and this file
 * decides when it asks again.
 *
 * A key queue exists while there are waiters, and for a while after that if this process steps back from the key, or to keep a watch
 * from being taken away and added again with every wait.
 */
#include "engine/internal.h"

static uint32_t waits_hash(const verrou__engine *engine, const char *key, size_t len)
{
    return table_hash(key, len, engine->seed);
}

bool verrou__engine_may_wait(verrou__engine *engine, const char *key, size_t len)
{
    return atomic_load(&engine->waited_keys) > 0 &&
           atomic_load(&engine->hints[waits_hash(engine, key, len) % WAIT_HINTS]) > 0;
}

static struct verrou__waits *waits_find(verrou__engine *engine, const char *key, size_t len)
{
    return (struct verrou__waits *)table_find(&engine->waits, key, len, waits_hash(engine, key, len));
}

static void waits_fired(verrou__engine *engine, verrou__timer *timer);

static struct verrou__waits *waits_get(verrou__engine *engine, const char *key, size_t len)
{
    struct verrou__waits *waits = waits_find(engine, key, len);

    if (waits)
        return waits;
    waits = verrou__calloc(sizeof(*waits) + len + 1);
    if (!waits)
        return NULL;
    memcpy(waits->key, key, len);
    waits->node.key = waits->key;
    waits->node.key_len = (uint32_t)len;
    waits->node.hash = waits_hash(engine, key, len);
    waits->timer.fire = waits_fired;
    table_add(&engine->waits, &waits->node, verrou__malloc, verrou__free);
    atomic_fetch_add(&engine->hints[waits->node.hash % WAIT_HINTS], 1);
    atomic_fetch_add(&engine->waited_keys, 1);
    return waits;
}

/* Have the keeper add the key to the watch, or take it off. Keys that only some stores take are not watched: they are asked for again and again. */
static void waits_mark_dirty(verrou__engine *engine, struct verrou__waits *waits)
{
    if (waits->dirty || waits->node.key_len > VERROU_MAX_KEY)
        return;
    waits->dirty = true;
    waits->dirty_prev = NULL;
    waits->dirty_next = engine->dirty;
    if (engine->dirty)
        engine->dirty->dirty_prev = waits;
    engine->dirty = waits;
    verrou__threads_wake_keeper(engine);
}

static void waits_clear_dirty(verrou__engine *engine, struct verrou__waits *waits)
{
    if (!waits->dirty)
        return;
    waits->dirty = false;
    if (waits->dirty_prev)
        waits->dirty_prev->dirty_next = waits->dirty_next;
    else
        engine->dirty = waits->dirty_next;
    if (waits->dirty_next)
        waits->dirty_next->dirty_prev = waits->dirty_prev;
}

static void waits_drop(verrou__engine *engine, struct verrou__waits *waits)
{
    waits_clear_dirty(engine, waits);
    verrou__timer_clear(engine, &waits->timer);
    table_remove(&engine->waits, &waits->node);
    atomic_fetch_sub(&engine->hints[waits->node.hash % WAIT_HINTS], 1);
    atomic_fetch_sub(&engine->waited_keys, 1);
    verrou__free(waits);
}

/* Nobody waits any more: keep the struct only while it is of use. */
static void waits_idle(verrou__engine *engine, struct verrou__waits *waits)
{
    int64_t now_ms = engine_now(engine);
    int64_t until_ms = waits->not_before_ms;

    if (waits->watched && !engine->closing && until_ms < now_ms + WATCH_LINGER_MS)
        until_ms = now_ms + WATCH_LINGER_MS;
    if (until_ms > now_ms)
        verrou__timer_set(engine, &waits->timer, until_ms);
    else
        waits_drop(engine, waits);
}

/* ---- asking again ---- */

/*
 * Would the answer come after the first waiter's deadline? Then asking could only turn "not acquired" into "unknown". A quarter of
 * the wait at most is given away like that.
 */
static bool waits_too_late(const verrou__engine *engine, const struct verrou__waits *waits)
{
    const verrou__call *head = waits->head;
    int64_t needed_ms = 1 + (engine->latency_us + 4 * engine->latency_deviation_us) / 1000;

    if (!waits->refused || engine->is_inline || head->deadline_ms == VERROU_FOREVER)
        return false;
    if (needed_ms > (head->deadline_ms - head->start_ms) / 4)
        needed_ms = (head->deadline_ms - head->start_ms) / 4;
    return head->deadline_ms - engine_now(engine) < needed_ms;
}

static void waits_ask(verrou__engine *engine, struct verrou__waits *waits)
{
    verrou__call *head = waits->head;

    if (!head || head->state != CALL_ASLEEP)
        return;
    if (waits_too_late(engine, waits)) {
        /* By then the next one is first. */
        int64_t now_ms = engine_now(engine);

        verrou__timer_set(engine, &waits->timer, head->deadline_ms > now_ms ? head->deadline_ms : now_ms + 1);
        return;
    }
    if (waits->not_before_ms > engine_now(engine)) {
        verrou__timer_set(engine, &waits->timer, waits->not_before_ms);
        return;
    }
    verrou__timer_clear(engine, &waits->timer);
    waits->again = false;
    verrou__call_request(head);
}

static void waits_fired(verrou__engine *engine, verrou__timer *timer)
{
    struct verrou__waits *waits = (struct verrou__waits *)((char *)timer - offsetof(struct verrou__waits, timer));

    if (waits->head) {
        waits_ask(engine, waits);
    } else if (waits->watched) {
        waits_mark_dirty(engine, waits); /* the keeper takes it off the watch, and drops it */
    } else {
        waits_drop(engine, waits);
    }
}

/* When to ask again if nothing is heard before: see docs/internals/engine.md. */
static int64_t waits_next_ms(verrou__engine *engine, const struct verrou__waits *waits, const verrou__call *call)
{
    int64_t now_ms = engine_now(engine);
    int64_t next_ms = VERROU_FOREVER;

    if (!engine->is_inline) {
        bool ours = call->holder && verrou__owner_is_ours(call->holder, strlen(call->holder));
        int64_t delay_ms = call->delay_ms;

        if (waits->active && ours)
            next_ms = now_ms + SLOW_RECHECK_MS;
        else
            next_ms = now_ms + delay_ms - (int64_t)(engine->host->random() % (uint64_t)(delay_ms / 2 + 1));
    }
    if (call->holder_expires_ms >= 0 && call->holder_expires_ms < next_ms)
        next_ms = call->holder_expires_ms;
    if (next_ms <= now_ms)
        next_ms = now_ms + 1;
    if (next_ms < waits->not_before_ms)
        next_ms = waits->not_before_ms;
    return next_ms;
}

static void waits_sleep(verrou__engine *engine, struct verrou__waits *waits)
{
    verrou__call *head = waits->head;

    verrou__call_set_state(head, CALL_ASLEEP);
    verrou__call_arm(head);
    if (waits->again) {
        waits_ask(engine, waits);
        return;
    }
    verrou__timer_set(engine, &waits->timer, waits_next_ms(engine, waits, head));
    if (!waits->watched && verrou__engine_can_push(engine))
        waits_mark_dirty(engine, waits);
}

void verrou__waits_refused(verrou__call *call)
{
    verrou__engine *engine = call->engine;
    struct verrou__waits *waits = call->waits;

    waits->refused = true;
    waits->turn_ms = 0;
    if (call->last_try || engine_now(engine) >= call->attempts_end_ms || engine_now(engine) >= call->deadline_ms)
        verrou__call_finish(call, VERROU_ENOTACQUIRED);
    else if (verrou__threads_need_keeper(engine) != VERROU_OK)
        verrou__call_finish(call, VERROU_ENOMEM);
    else
        waits_sleep(engine, waits);
}

bool verrou__waits_know_holder(const verrou__call *call)
{
    return call->waits && call->waits->refused;
}

/* ---- entering and leaving ---- */

verrou_status verrou__waits_join(verrou__call *call, verrou_error *err)
{
    verrou__engine *engine = call->engine;
    struct verrou__waits *waits = waits_get(engine, call->op.key, call->op.key_len);

    if (!waits)
        return verrou__nomem(err);
    call->waits = waits;
    call->joined_ms = engine_now(engine);
    call->wait_next = NULL;
    call->wait_prev = waits->tail;
    if (waits->tail)
        waits->tail->wait_next = call;
    else
        waits->head = call;
    waits->tail = call;
    if (waits->head != call) {
        verrou__call_set_state(call, CALL_BEHIND);
        verrou__call_arm(call);
        return VERROU_OK;
    }
    waits->refused = false; /* whoever it was that held the key last */
    if (waits->not_before_ms > engine_now(engine) && call->deadline_ms > waits->not_before_ms) {
        if (verrou__threads_need_keeper(engine) != VERROU_OK)
            return verrou__nomem(err);
        verrou__call_set_state(call, CALL_ASLEEP);
        verrou__call_arm(call);
        verrou__timer_set(engine, &waits->timer, waits->not_before_ms);
        return VERROU_OK;
    }
    verrou__timer_clear(engine, &waits->timer);
    verrou__call_request(call);
    return VERROU_OK;
}

static void waits_unlink(struct verrou__waits *waits, verrou__call *call)
{
    if (call->wait_prev)
        call->wait_prev->wait_next = call->wait_next;
    else
        waits->head = call->wait_next;
    if (call->wait_next)
        call->wait_next->wait_prev = call->wait_prev;
    else
        waits->tail = call->wait_prev;
    call->waits = NULL;
}

static void waits_tell(verrou__call *call, const char *holder, int64_t expires_ms, uint64_t fence)
{
    verrou__free(call->holder);
    call->holder = holder ? verrou__strdup(holder) : NULL;
    call->holder_expires_ms = expires_ms;
    call->fence = fence;
}

/* The next waiter need not ask: the one before it has just got the lock, or was just told who has it. */
static void waits_tell_next(verrou__call *next, const verrou__call *before)
{
    if (before->status == VERROU_OK)
        waits_tell(next, before->op.owner, before->expires_ms, before->fence);
    else
        waits_tell(next, before->holder, before->holder_expires_ms, before->fence);
}

/* The store did not answer the first one within its time: whoever waits as long already need not try as long again. */
static void waits_fail_others(verrou__engine *engine, struct verrou__waits *waits, const verrou__call *failed)
{
    int64_t since_ms = engine_now(engine) - engine->options.limit_ms;

    if (waits->failing)
        return;
    waits->failing = true;
    while (waits->head && waits->head->state == CALL_BEHIND && waits->head->joined_ms <= since_ms) {
        verrou__call *next = waits->head;

        verrou__call_keep_error(next, failed->error);
        verrou__call_finish(next, VERROU_ESTORAGE);
    }
    waits->failing = false;
}

void verrou__waits_leave(verrou__call *call)
{
    verrou__engine *engine = call->engine;
    struct verrou__waits *waits = call->waits;
    verrou__call *next;
    bool was_first;
    bool asking;

    if (!waits)
        return;
    was_first = waits->head == call;
    asking = call->state != CALL_ASLEEP;
    waits_unlink(waits, call);
    if (call->status == VERROU_OK) {
        waits->refused = true;
        waits->again = false;
        if (!waits->turn_ms)
            waits->turn_ms = engine_now(engine);
    } else if (call->status == VERROU_ENOTACQUIRED && !call->holder && waits->head && waits->head->holder) {
        /* Never asked: what the first one was told is what it would have been told. */
        waits_tell(call, waits->head->holder, waits->head->holder_expires_ms, waits->head->fence);
    }
    if (waits->failing)
        return;
    if (was_first && (call->status == VERROU_ESTORAGE || call->status == VERROU_EUNKNOWN)) {
        waits->refused = false;
        if (call->fail_by_ms && engine_now(engine) >= call->fail_by_ms)
            waits_fail_others(engine, waits, call);
    }
    next = waits->head;
    if (!next) {
        waits_idle(engine, waits);
        return;
    }
    if (next->state != CALL_BEHIND)
        return;
    if (call->status == VERROU_OK || (call->status == VERROU_ENOTACQUIRED && call->state == CALL_BACK)) {
        waits_tell_next(next, call);
        if (verrou__threads_need_keeper(engine) != VERROU_OK)
            verrou__call_finish(next, VERROU_ENOMEM);
        else
            waits_sleep(engine, waits);
    } else if (was_first && asking) {
        verrou__call_set_state(next, CALL_ASLEEP);
        waits_ask(engine, waits);
        verrou__call_arm(next);
    } else {
        /* The timer goes on: it was set for the same holder. */
        if (call->holder)
            waits_tell(next, call->holder, call->holder_expires_ms, call->fence);
        verrou__call_set_state(next, CALL_ASLEEP);
        verrou__call_arm(next);
    }
}

/* ---- news ---- */

/* With a store that takes its time a turn is as long as eight batches, within limits. */
static bool waits_have_turn(const verrou__engine *engine, const struct verrou__waits *waits)
{
    int64_t length_ms = engine->latency_us * TURN_BATCHES / 1000;

    if (length_ms < TURN_MS)
        length_ms = TURN_MS;
    if (length_ms > MAX_TURN_MS)
        length_ms = MAX_TURN_MS;
    return waits->turn_ms && engine_now(engine) - waits->turn_ms < length_ms;
}

/*
 * Others wait as well: leave it to them. But whoever was woken first needs a while to come for it; so the key first goes round among the
 * waiters of this process, for a turn.
 */
static bool waits_step_back(verrou__engine *engine, struct verrou__waits *waits)
{
    int64_t now_ms = engine_now(engine);

    if (waits->head && waits_have_turn(engine, waits))
        return false;
    waits->turn_ms = 0;
    waits->not_before_ms = now_ms + STEP_BACK_MS;
    return true;
}

/*
 * During a turn the next waiter's request goes along with the release, behind it in the same batch: one round trip for both, and with a
 * database one commit. After it the key is free for a moment, also if nobody is known to wait: whoever asks now and then has to find it free some day.
 */
void verrou__waits_pass_on(verrou__engine *engine, const char *key, size_t len)
{
    struct verrou__waits *waits = waits_find(engine, key, len);

    if (!waits)
        return;
    waits->riding = waits->told && waits_have_turn(engine, waits) && waits->head && waits->head->state == CALL_ASLEEP;
    if (waits->riding)
        waits_ask(engine, waits);
}

void verrou__waits_key_free(verrou__engine *engine, const char *key, size_t len, int32_t others)
{
    struct verrou__waits *waits = others > 0 ? waits_get(engine, key, len) : waits_find(engine, key, len);
    bool taken;
    bool step_back;

    if (!waits)
        return;
    /* By the request that went along; if the turn ended meanwhile, the next release leaves the key to others. */
    taken = waits->riding && waits->head && waits->head->state != CALL_ASLEEP;
    waits->riding = false;
    waits->told = others >= 0;
    if (!taken && others <= 0 && !waits_have_turn(engine, waits))
        waits->turn_ms = 0; /* another begins */
    step_back = !taken && others > 0 && waits_step_back(engine, waits);
    if (!waits->head) {
        /* On a slow machine the step back may be over already, and the struct gone with it. */
        if (step_back)
            waits_idle(engine, waits);
        return;
    }
    if (waits->head->state == CALL_ASLEEP)
        waits_ask(engine, waits);
    else
        waits->again = true;
}

/* The holder's lease ends at another time than its waiters know. */
void verrou__waits_key_extended(verrou__engine *engine, const char *key, size_t len, int64_t expires_ms)
{
    struct verrou__waits *waits = waits_find(engine, key, len);
    verrou__call *head = waits ? waits->head : NULL;

    if (!head)
        return;
    if (head->state != CALL_ASLEEP) {
        waits->again = true;
        return;
    }
    head->holder_expires_ms = expires_ms;
    verrou__timer_set(engine, &waits->timer, waits_next_ms(engine, waits, head));
}

void verrou__engine_freed(verrou__engine *engine, const char *key, size_t len)
{
    verrou__engine_enter(engine);
    verrou__waits_key_free(engine, key, len, 0);
    verrou__engine_leave(engine);
}

static void waits_wake(verrou__engine *engine, struct verrou__waits *waits)
{
    if (!waits->head)
        return;
    if (waits->head->state == CALL_ASLEEP)
        waits_ask(engine, waits);
    else
        waits->again = true;
}

void verrou__waits_wake_all(verrou__engine *engine)
{
    TABLE_EACH(&engine->waits, bucket, node, following)
    waits_wake(engine, (struct verrou__waits *)node);
}

void verrou__waits_drop_all(verrou__engine *engine)
{
    TABLE_EACH(&engine->waits, bucket, node, following)
    waits_drop(engine, (struct verrou__waits *)node);
}

/* ---- the watch ---- */

/* A new watch knows no keys. */
void verrou__waits_watch_opened(verrou__engine *engine)
{
    TABLE_EACH(&engine->waits, bucket, node, following)
    {
        struct verrou__waits *waits = (struct verrou__waits *)node;

        if (waits->head)
            waits_mark_dirty(engine, waits);
    }
}

void verrou__waits_watch_lost(verrou__engine *engine)
{
    TABLE_EACH(&engine->waits, bucket, node, following)
    {
        struct verrou__waits *waits = (struct verrou__waits *)node;

        waits->watched = waits->active = false;
        if (waits->head && waits->head->state == CALL_ASLEEP)
            verrou__timer_set(engine, &waits->timer, waits_next_ms(engine, waits, waits->head));
        else if (!waits->head)
            waits_idle(engine, waits);
    }
}

bool verrou__waits_next_dirty(verrou__engine *engine, char *key, size_t *ret_len, bool *ret_add)
{
    struct verrou__waits *waits;

    while ((waits = engine->dirty)) {
        bool add = waits->head && !waits->watched;
        bool remove = !waits->head && waits->watched;

        waits_clear_dirty(engine, waits);
        if (!add && !remove)
            continue;
        memcpy(key, waits->key, waits->node.key_len + 1);
        *ret_len = waits->node.key_len;
        *ret_add = add;
        if (add)
            waits->watched = true;
        else
            waits_drop(engine, waits);
        return true;
    }
    return false;
}

void verrou__waits_watch_active(verrou__engine *engine, const char *key, size_t len)
{
    struct verrou__waits *waits = waits_find(engine, key, len);

    if (!waits || !waits->watched)
        return;
    waits->active = true;
    waits_wake(engine, waits);
}

/* Somebody else has had it since we stepped back: that is enough. */
void verrou__waits_watch_free(verrou__engine *engine, const char *key, size_t len, bool by_another)
{
    struct verrou__waits *waits = waits_find(engine, key, len);

    if (!waits)
        return;
    if (by_another)
        waits->not_before_ms = 0;
    waits_wake(engine, waits);
}
