/*
 * lease.c - what a handle knows of its lease: when it ends, whether it was lost; renewing it, and telling those who wait for its end.
 *
 * The local view never promises more than the store does: the end is counted from before the request was sent.
 */
#include <string.h>

#include "core/lock.h"

/* ---- the view ---- */

/* Leases to come are kept alive as before; timer, waiters and calls are the parent's. */
static void keeping_reset(struct keeping *keeping)
{
    keeping->timer = (verrou__timer){.fire = keeping->timer.fire};
    keeping->waiters = NULL;
    keeping->hold_until_ms = VERROU_FOREVER;
    keeping->retry_at_ms = 0;
    keeping->renewing = keeping->releasing = false;
}

void verrou__lease_mend_after_fork(void *object)
{
    verrou_lock *lock = object;
    struct keeping *keeping = atomic_load(&lock->keeping);

    pthread_mutex_init(&lock->mutex, NULL);
    if (lock->state != LEASE_NONE)
        lock->state = LEASE_FOREIGN;
    lock->next_is_parents = true;
    lock->series = (verrou__series){NULL, NULL};
    if (keeping)
        keeping_reset(keeping);
}

void verrou__lease_look_at(verrou_lock *lock, int64_t now_ms, struct lease_view *ret)
{
    verrou__fork_settle(&lock->process, verrou__lease_mend_after_fork, lock);
    pthread_mutex_lock(&lock->mutex);
    ret->noted = ret->state = (enum lease_state)lock->state;
    ret->lease = lock->lease;
    ret->fence = lock->fence;
    ret->expires_ms = lock->expires_ms;
    ret->ever = lock->lease > 0;
    ret->owner = ret->state == LEASE_NONE ? lock->next_owner : lock->lease_owner;
    if (ret->state == LEASE_HELD && ret->expires_ms <= now_ms)
        ret->state = LEASE_LOST;
    pthread_mutex_unlock(&lock->mutex);
}

void verrou__lease_look(verrou_lock *lock, struct lease_view *ret)
{
    verrou__lease_look_at(lock, verrou_now_ms(), ret);
}

/* ---- renewing ---- */

static void lease_set_timer(verrou_lock *lock, verrou__engine *engine);

/* A lease is renewed when two thirds of it are left; one that was extended for longer, not before. */
static int64_t renew_at_ms(const verrou_lock *lock, const struct keeping *keeping, const struct lease_view *view)
{
    int64_t at_ms = view->expires_ms - lock->ttl_ms + lock->ttl_ms / 3;

    if (!keeping->keep_alive || keeping->renewing || keeping->releasing || lock->ttl_ms == VERROU_FOREVER)
        return VERROU_FOREVER;
    if (at_ms < keeping->retry_at_ms)
        at_ms = keeping->retry_at_ms;
    return at_ms < keeping->hold_until_ms ? at_ms : VERROU_FOREVER;
}

/* Try again after a while. */
static void renewal_pause(const verrou_lock *lock, struct keeping *keeping)
{
    keeping->retry_at_ms = verrou_now_ms() + (lock->ttl_ms / 20 < 10 ? 10 : lock->ttl_ms / 20);
}

static void renewal_failed(verrou_lock *lock, verrou__engine *engine, const verrou__call *call, const char *why)
{
    renewal_pause(lock, atomic_load(&lock->keeping));
    verrou__event_locked(engine, VERROU_WARN, "lease.renewal_failed", call, why, 0);
}

static void renewal_hook(verrou__call *call)
{
    verrou_lock *lock = call->subject;
    struct keeping *keeping = atomic_load(&lock->keeping);

    keeping->renewing = false;
    verrou__lease_extend_hook(call);
    switch (call->status) {
    case VERROU_OK:
        verrou__event_locked(call->engine, VERROU_TRACE, "lease.renewed", call, NULL, lock->ttl_ms);
        break;
    case VERROU_ENOTOWNED:
    case VERROU_ECANCELED: /* it was not due any more */
        break;
    case VERROU_ECLOSED:
        renewal_pause(lock, keeping);
        break;
    default:
        renewal_failed(lock, call->engine, call, call->error ? call->error->message : verrou_status_text(call->status));
        break;
    }
    lease_set_timer(lock, call->engine);
}

/* Its turn came: the calls before it may have ended the lease, or moved its end so far that a renewal would shorten it. */
static void renewal_started(verrou__call *call)
{
    verrou_lock *lock = call->subject;
    struct keeping *keeping = atomic_load(&lock->keeping);
    struct lease_view view;

    verrou__lease_look(lock, &view);
    keeping->renewing = false;
    if (view.lease != call->lease || view.state != LEASE_HELD || renew_at_ms(lock, keeping, &view) > verrou_now_ms()) {
        verrou__call_answer_locked(call, VERROU_ECANCELED);
        return;
    }
    keeping->renewing = true;
    verrou__lease_extend_started(call);
}

static void renewal_start(verrou_lock *lock, verrou__engine *engine, struct keeping *keeping,
                          const struct lease_view *view)
{
    verrou__call *call = verrou__lease_call(lock, engine, VERROU__EXTEND, view);

    if (!call) {
        renewal_failed(lock, engine, NULL, verrou_status_text(VERROU_ENOMEM));
        return;
    }
    call->ttl_ms = lock->ttl_ms;
    call->deadline_ms = view->expires_ms;
    call->started = renewal_started;
    call->hook = renewal_hook;
    keeping->renewing = true;
    verrou__call_start_locked(call);
}

static void lease_timer_fired(verrou__engine *engine, verrou__timer *timer)
{
    struct keeping *keeping = (struct keeping *)timer; /* its first member */
    verrou_lock *lock = keeping->lock;
    struct lease_view view;

    verrou__lease_look(lock, &view);
    if (view.noted == LEASE_HELD && view.state == LEASE_LOST)
        verrou__lease_over(lock, engine, view.lease, LEASE_LOST);
    else if (view.state == LEASE_HELD && renew_at_ms(lock, keeping, &view) <= verrou_now_ms())
        renewal_start(lock, engine, keeping, &view);
    lease_set_timer(lock, engine);
}

static void lease_set_timer(verrou_lock *lock, verrou__engine *engine)
{
    struct keeping *keeping = atomic_load(&lock->keeping);
    struct lease_view view;
    int64_t when_ms;

    if (!keeping)
        return;
    verrou__lease_look(lock, &view);
    when_ms = view.noted == LEASE_HELD ? view.expires_ms : VERROU_FOREVER;
    if (view.state == LEASE_HELD && renew_at_ms(lock, keeping, &view) < when_ms)
        when_ms = renew_at_ms(lock, keeping, &view);
    verrou__timer_set(engine, &keeping->timer, when_ms);
}

/* ---- what happened ---- */

static void lease_tell_waiters(struct keeping *keeping, verrou_status status)
{
    while (keeping && keeping->waiters)
        verrou__call_answer_locked(keeping->waiters, status);
}

static void lease_install(verrou_lock *lock, const verrou__owner_id *owner, uint64_t fence, int64_t expires_ms)
{
    pthread_mutex_lock(&lock->mutex);
    lock->lease++;
    lock->lease_owner = *owner;
    lock->fence = fence;
    lock->expires_ms = expires_ms;
    lock->state = LEASE_HELD;
    pthread_mutex_unlock(&lock->mutex);
}

static void hold_from_now(struct keeping *keeping)
{
    keeping->hold_until_ms = VERROU_FOREVER;
    if (keeping->max_hold_ms != VERROU_FOREVER)
        keeping->hold_until_ms = verrou_now_ms() + keeping->max_hold_ms;
}

void verrou__lease_begun(verrou_lock *lock, verrou__engine *engine, const verrou__owner_id *owner, uint64_t fence,
                         int64_t expires_ms)
{
    struct keeping *keeping = atomic_load(&lock->keeping);

    lease_tell_waiters(keeping, VERROU_ELOST); /* of the lease before, which must have ended */
    lease_install(lock, owner, fence, expires_ms);
    if (!keeping)
        return;
    hold_from_now(keeping);
    keeping->retry_at_ms = 0;
    keeping->releasing = false;
    lease_set_timer(lock, engine);
}

/* Mark the lease ended, if it is still the one meant. */
static bool lease_mark(verrou_lock *lock, uint32_t lease, enum lease_state state)
{
    bool same;

    pthread_mutex_lock(&lock->mutex);
    same = lock->lease == lease && lock->state != LEASE_FOREIGN;
    if (same)
        lock->state = (uint8_t)state;
    pthread_mutex_unlock(&lock->mutex);
    return same;
}

void verrou__lease_over(verrou_lock *lock, verrou__engine *engine, uint32_t lease, enum lease_state state)
{
    struct keeping *keeping = atomic_load(&lock->keeping);
    struct lease_view view;
    bool was_held;

    verrou__lease_look(lock, &view);
    was_held = view.noted == LEASE_HELD && view.lease == lease;
    if (view.noted == LEASE_NONE && state == LEASE_LOST)
        return; /* what was released, or never acquired, cannot be lost */
    if (!lease_mark(lock, lease, state))
        return;
    if (was_held && state == LEASE_LOST) {
        verrou__call about = {.op = {.key = lock->key, .key_len = lock->key_len}};

        verrou__event_locked(engine, VERROU_WARN, "lease.lost", &about, NULL, (int64_t)view.fence);
    }
    if (!keeping)
        return;
    verrou__timer_clear(engine, &keeping->timer);
    if (state == LEASE_RELEASING)
        lease_tell_waiters(keeping, VERROU_EUNKNOWN);
    else
        lease_tell_waiters(keeping, state == LEASE_LOST ? VERROU_ELOST : VERROU_OK);
}

/* Those who wait for the end of a lease before this one: it is over. */
static void lease_tell_of_older(struct keeping *keeping, uint32_t lease)
{
    verrou__call *next;

    for (verrou__call *call = keeping->waiters; call; call = next) {
        next = call->wait_next;
        if (call->lease != lease)
            verrou__call_answer_locked(call, VERROU_ELOST);
    }
}

/* Somebody may have begun to wait for the end of the lease while it was being changed without the engine's mutex. */
static void lease_after_inline(verrou_lock *lock, verrou__engine *engine)
{
    struct keeping *keeping = atomic_load(&lock->keeping);
    struct lease_view view;

    if (!keeping)
        return;
    verrou__engine_enter(engine);
    verrou__lease_look(lock, &view);
    if (view.state == LEASE_NONE)
        lease_tell_waiters(keeping, VERROU_OK);
    else
        lease_tell_of_older(keeping, view.lease);
    lease_set_timer(lock, engine);
    verrou__engine_leave(engine);
}

void verrou__lease_begun_inline(verrou_lock *lock, verrou__engine *engine, const verrou__owner_id *owner,
                                uint64_t fence, int64_t expires_ms)
{
    lease_install(lock, owner, fence, expires_ms);
    lease_after_inline(lock, engine);
}

void verrou__lease_over_inline(verrou_lock *lock, verrou__engine *engine, uint32_t lease)
{
    lease_mark(lock, lease, LEASE_NONE);
    lease_after_inline(lock, engine);
}

/* ---- hooks ---- */

void verrou__lease_acquire_hook(verrou__call *call)
{
    if (call->status == VERROU_OK)
        verrou__lease_begun(call->subject, call->engine, &call->owner_id, call->fence, call->expires_ms);
}

/*
 * Which lease of the handle a call that changed the store has changed. A fixed owner without a token does not tell one lease from the next:
 * it may have been the one acquired since.
 */
static uint32_t lease_changed_by(verrou_lock *lock, const verrou__call *call)
{
    struct lease_view view;

    if (!lock->owner_is_fixed || call->want_fence != 0)
        return call->lease;
    verrou__lease_look(lock, &view);
    return view.lease;
}

/* Its turn came: no renewal behind it; and an extend before it may have moved the end. */
void verrou__lease_release_started(verrou__call *call)
{
    verrou_lock *lock = call->subject;
    struct keeping *keeping = atomic_load(&lock->keeping);

    if (keeping)
        keeping->releasing = true;
    pthread_mutex_lock(&lock->mutex);
    if (lock->lease == call->lease)
        call->expires_ms = lock->expires_ms;
    pthread_mutex_unlock(&lock->mutex);
}

void verrou__lease_release_hook(verrou__call *call)
{
    verrou_lock *lock = call->subject;
    struct keeping *keeping = atomic_load(&lock->keeping);

    switch (call->status) {
    case VERROU_OK:
        verrou__lease_over(lock, call->engine, lease_changed_by(lock, call), LEASE_NONE);
        break;
    case VERROU_ENOTOWNED:
        verrou__lease_over(lock, call->engine, call->lease, LEASE_LOST);
        break;
    case VERROU_EUNKNOWN:
        verrou__lease_over(lock, call->engine, lease_changed_by(lock, call), call->gone ? LEASE_LOST : LEASE_RELEASING);
        break;
    default: /* nothing was changed */
        if (keeping) {
            keeping->releasing = false;
            lease_set_timer(lock, call->engine);
        }
        break;
    }
}

/* From now on the store may have shortened the lease. call->expires_ms keeps the end before. */
void verrou__lease_extend_started(verrou__call *call)
{
    verrou_lock *lock = call->subject;
    int64_t expires_ms = verrou__lease_end_ms(call->engine, verrou_now_ms(), call->ttl_ms);

    pthread_mutex_lock(&lock->mutex);
    if (lock->lease == call->lease) {
        call->expires_ms = lock->expires_ms;
        call->may_revive = lock->state == LEASE_NONE;
        if (lock->state == LEASE_HELD && expires_ms < lock->expires_ms)
            lock->expires_ms = expires_ms;
    }
    pthread_mutex_unlock(&lock->mutex);
}

/* Nothing was changed: the end before is the end. */
static void lease_put_end_back(verrou_lock *lock, const verrou__call *call)
{
    pthread_mutex_lock(&lock->mutex);
    if (lock->lease == call->lease && lock->state == LEASE_HELD)
        lock->expires_ms = call->expires_ms;
    pthread_mutex_unlock(&lock->mutex);
}

/* Move the end of the lease. An extend whose answer was lost may have moved it to an earlier moment. */
static void lease_move_end(verrou_lock *lock, const verrou__call *call)
{
    uint32_t lease = lease_changed_by(lock, call);
    int64_t expires_ms = call->expires_ms;

    pthread_mutex_lock(&lock->mutex);
    if (call->status != VERROU_OK)
        expires_ms = verrou__lease_end_ms(call->engine, call->first_sent_ms, call->ttl_ms);
    if ((call->status != VERROU_OK || lease != call->lease) && expires_ms > lock->expires_ms)
        expires_ms = lock->expires_ms;
    if (lock->lease == lease && lock->state == LEASE_HELD)
        lock->expires_ms = expires_ms;
    pthread_mutex_unlock(&lock->mutex);
}

/*
 * A handle that was restored, or whose lease was thought lost, holds it after all. Not one that was released meanwhile: a release of an
 * inline store does not wait for its turn in the series.
 */
static void lease_revive(verrou_lock *lock, const verrou__call *call)
{
    pthread_mutex_lock(&lock->mutex);
    if (lock->lease == call->lease && (lock->state == LEASE_LOST || (lock->state == LEASE_NONE && call->may_revive)))
        lock->state = LEASE_HELD;
    if (lock->lease == call->lease && lock->fence == 0)
        lock->fence = call->fence;
    pthread_mutex_unlock(&lock->mutex);
}

void verrou__lease_extend_hook(verrou__call *call)
{
    verrou_lock *lock = call->subject;

    if (call->status == VERROU_OK)
        lease_revive(lock, call);
    if (call->status == VERROU_OK || (call->status == VERROU_EUNKNOWN && call->first_sent_ms))
        lease_move_end(lock, call);
    else if (call->status == VERROU_ENOTOWNED)
        verrou__lease_over(lock, call->engine, call->lease, LEASE_LOST);
    else if (call->begun && call->status != VERROU_ECLOSED && call->status != VERROU_ECANCELED)
        lease_put_end_back(lock, call);
    lease_set_timer(lock, call->engine);
}

/* The store has looked at the key while no other request of this lease was on its way. */
void verrou__lease_inspect_hook(verrou__call *call)
{
    char owner[VERROU_MAX_OWNER + 1];
    verrou_lock *lock = call->subject;
    struct lease_view view;

    verrou__lease_look(lock, &view);
    if (call->status != VERROU_OK || view.lease != call->lease || view.noted != LEASE_HELD)
        return;
    verrou__lock_owner_text(lock, &view.owner, owner);
    /* A fixed owner may hold the lock by another acquisition, which the token tells. */
    if (!call->locked || (call->holder && strcmp(call->holder, owner) != 0) ||
        (call->fence != 0 && view.fence != 0 && call->fence != view.fence)) {
        verrou__lease_over(lock, call->engine, call->lease, LEASE_LOST);
    } else if (call->holder && call->op.remaining_ms >= 0) {
        pthread_mutex_lock(&lock->mutex);
        if (lock->lease == call->lease) {
            lock->expires_ms = verrou__lease_end_ms(call->engine, call->op.sent_ms, call->op.remaining_ms);
            if (lock->fence == 0)
                lock->fence = call->fence;
        }
        pthread_mutex_unlock(&lock->mutex);
        lease_set_timer(lock, call->engine);
    }
}

void verrou__lease_wait_started(verrou__call *call)
{
    verrou_lock *lock = call->subject;
    struct keeping *keeping = atomic_load(&lock->keeping);
    struct lease_view view;

    verrou__lease_look(lock, &view);
    if (view.state == LEASE_LOST) {
        verrou__call_answer_locked(call, VERROU_ELOST);
    } else if (view.state != LEASE_HELD) {
        verrou__call_answer_locked(call, view.state == LEASE_FOREIGN ? VERROU_EFORK : VERROU_ENOTOWNED);
    } else {
        call->wait_next = keeping->waiters;
        if (keeping->waiters)
            keeping->waiters->wait_prev = call;
        keeping->waiters = call;
        call->lease = view.lease;
        lease_set_timer(lock, call->engine);
    }
}

void verrou__lease_wait_hook(verrou__call *call)
{
    verrou_lock *lock = call->subject;
    struct keeping *keeping = atomic_load(&lock->keeping);

    if (!keeping || (keeping->waiters != call && !call->wait_prev))
        return; /* it was never linked */
    if (call->wait_prev)
        call->wait_prev->wait_next = call->wait_next;
    else
        keeping->waiters = call->wait_next;
    if (call->wait_next)
        call->wait_next->wait_prev = call->wait_prev;
    call->wait_next = call->wait_prev = NULL;
}

/* ---- keeping ---- */

verrou_status verrou__lease_need_keeping(verrou_lock *lock, verrou_error *err)
{
    struct keeping *made;
    struct keeping *none = NULL;

    if (atomic_load(&lock->keeping))
        return VERROU_OK;
    made = verrou__calloc(sizeof(*made));
    if (!made)
        return verrou__nomem(err);
    made->timer.fire = lease_timer_fired;
    made->lock = lock;
    made->max_hold_ms = made->hold_until_ms = VERROU_FOREVER;
    if (!atomic_compare_exchange_strong(&lock->keeping, &none, made))
        verrou__free(made);
    return VERROU_OK;
}

void verrou__lease_start_keeping(verrou_lock *lock, verrou__engine *engine)
{
    verrou__engine_enter(engine);
    hold_from_now(atomic_load(&lock->keeping));
    lease_set_timer(lock, engine);
    verrou__engine_leave(engine);
}

void verrou__lease_stop_keeping(verrou_lock *lock)
{
    verrou__engine *engine = verrou__store_engine_here(lock->store);
    struct keeping *keeping;

    verrou__fork_settle(&lock->process, verrou__lease_mend_after_fork, lock);
    keeping = atomic_load(&lock->keeping);
    if (!keeping || !engine)
        return;
    verrou__engine_enter(engine);
    keeping->keep_alive = false;
    lease_set_timer(lock, engine);
    verrou__engine_leave(engine);
}

void verrou__lease_free_keeping(verrou_lock *lock)
{
    verrou__engine *engine = verrou__store_engine_here(lock->store);
    struct keeping *keeping;

    verrou__fork_settle(&lock->process, verrou__lease_mend_after_fork, lock);
    keeping = atomic_load(&lock->keeping);
    if (!keeping)
        return;
    if (engine) {
        verrou__engine_enter(engine);
        verrou__timer_clear(engine, &keeping->timer);
        verrou__engine_leave(engine);
    }
    verrou__free(keeping);
}

/* ---- calls on a lease ---- */

static void unref_subject_lock(verrou__call *call)
{
    verrou__lock_unref(call->subject);
}

verrou__call *verrou__lease_call(verrou_lock *lock, verrou__engine *engine, verrou__call_kind kind,
                                 const struct lease_view *view)
{
    char owner[VERROU_MAX_OWNER + 1];
    size_t len = verrou__lock_owner_text(lock, &view->owner, owner);
    verrou__call *call = verrou__call_new(engine, kind, len + 1);

    if (!call)
        return NULL;
    memcpy(call->text, owner, len + 1);
    call->op.key = lock->key;
    call->op.key_len = lock->key_len;
    call->op.owner = call->text;
    call->op.owner_len = (uint16_t)len;
    call->owner_is_fixed = lock->owner_is_fixed;
    call->want_fence = view->fence;
    call->lease = view->lease;
    call->expires_ms = view->expires_ms;
    call->series = &lock->series;
    call->subject = lock;
    call->done_with = unref_subject_lock;
    verrou__lock_ref(lock);
    return call;
}
