/*
 * release.c - giving a lock back, extending its lease, and waiting for its end. As with acquire.c, a release skips the engine where it can.
 */
#include "core/lock.h"

#include <string.h>

/* ---- releasing and extending ---- */

/* What is known of a release or extend without asking the store; VERROU_OK: nothing. */
static verrou_status known_answer(const verrou_lock *lock, const struct lease_view *view, uint64_t fence)
{
    if (view->state == LEASE_FOREIGN)
        return VERROU_EFORK;
    /* The owner drawn for the next acquisition belongs to that one, which may be on its way: nothing else may use it. */
    if (view->state == LEASE_NONE && !lock->owner_is_fixed)
        return VERROU_ENOTOWNED;
    if (fence != 0 && view->fence != 0 && fence != view->fence)
        return VERROU_ENOTOWNED; /* that acquisition is over */
    return VERROU_OK;
}

/* A call on the current lease, with this hook. */
static verrou_status lease_op(verrou_lock *lock, verrou__call_kind kind, const verrou_call_options *options,
                              verrou__call_hook hook, struct lease_view *view, verrou__call **ret_call,
                              verrou_error *err)
{
    verrou__engine *engine = NULL;
    verrou_call_options read = VERROU_CALL_OPTIONS_INIT;
    verrou__call *call = NULL;
    verrou_status status = verrou__call_options(lock->store, options, &read, err);

    if (status == VERROU_OK)
        status = verrou__store_engine(lock->store, &engine, err);
    if (status != VERROU_OK)
        return status;
    verrou__lease_look(lock, view);
    call = verrou__lease_call(lock, engine, kind, view);
    if (!call)
        return verrou__nomem(err);
    call->preset = known_answer(lock, view, read.fence);
    if (call->preset == VERROU_OK)
        call->hook = hook;
    else
        call->series = NULL;
    if (read.fence == 0)
        read.fence = view->fence;
    verrou__call_set_times(call, &read);
    *ret_call = call;
    return VERROU_OK;
}

/* As acquire_inline(). */
static bool release_inline(verrou_lock *lock, const verrou_call_options *options)
{
    char owner[VERROU_MAX_OWNER + 1];
    verrou__engine *engine = NULL;
    struct lease_view view;
    verrou_op op = {.kind = VERROU_OP_RELEASE, .remaining_ms = -1, .others = -1, .sent_ms = verrou_now_ms()};

    if (options || verrou__store_engine(lock->store, &engine, NULL) != VERROU_OK || !verrou__engine_is_inline(engine) ||
        atomic_load(&lock->keeping) || verrou__engine_logs(engine, VERROU_DEBUG))
        return false;
    verrou__lease_look_at(lock, op.sent_ms, &view);
    if (view.state != LEASE_HELD)
        return false;
    op.key = lock->key;
    op.key_len = lock->key_len;
    op.owner = owner;
    op.owner_len = (uint16_t)verrou__lock_owner_text(lock, &view.owner, owner);
    op.fence = view.fence;
    verrou__engine_execute_inline(engine, &op);
    verrou__op_done(&op);
    if (op.result != VERROU_OP_APPLIED)
        return false;
    verrou__lease_over_inline(lock, engine, view.lease);
    if (verrou__engine_may_wait(engine, lock->key, lock->key_len))
        verrou__engine_freed(engine, lock->key, lock->key_len);
    return true;
}

static verrou_status release_call(verrou_lock *lock, const verrou_call_options *options, verrou__call **ret_call,
                                  verrou_error *err)
{
    struct lease_view view;
    verrou__call *call = NULL;
    verrou_status status = lease_op(lock, VERROU__RELEASE, options, verrou__lease_release_hook, &view, &call, err);

    if (status != VERROU_OK)
        return status;
    call->unknown = view.noted == LEASE_RELEASING; /* it is a repetition */
    call->started = verrou__lease_release_started;
    *ret_call = call;
    return VERROU_OK;
}

verrou_status verrou_lock_release(verrou_lock *lock, const verrou_call_options *options, verrou_error *err)
{
    verrou__call *call = NULL;
    verrou_status status;

    if (!lock)
        return verrou__fail(err, VERROU_EINVAL, "lock is NULL");
    if (release_inline(lock, options))
        return VERROU_OK;
    status = release_call(lock, options, &call, err);
    return status == VERROU_OK ? verrou__call_run(call, NULL, err) : status;
}

verrou_status verrou_lock_release_async(verrou_lock *lock, const verrou_call_options *options, verrou_queue *queue,
                                        verrou_done_fn done, void *user, verrou_error *err)
{
    verrou__call *call = NULL;
    verrou_status status = verrou__lock_check_async(lock, queue, done, err);

    if (status == VERROU_OK)
        status = release_call(lock, options, &call, err);
    return status == VERROU_OK ? verrou__call_submit(call, queue, done, user, err) : status;
}

static verrou_status extend_call(verrou_lock *lock, int64_t ttl_ms, const verrou_call_options *options,
                                 verrou__call **ret_call, verrou_error *err)
{
    struct lease_view view;
    verrou__call *call = NULL;
    verrou_status status;

    if (ttl_ms == VERROU_DEFAULT)
        ttl_ms = lock->ttl_ms;
    status = verrou__lock_check_range("ttl_ms", ttl_ms, 1, true, err);
    if (status == VERROU_OK)
        status = lease_op(lock, VERROU__EXTEND, options, verrou__lease_extend_hook, &view, &call, err);
    if (status != VERROU_OK)
        return status;
    call->ttl_ms = ttl_ms;
    call->started = verrou__lease_extend_started;
    *ret_call = call;
    return VERROU_OK;
}

verrou_status verrou_lock_extend(verrou_lock *lock, int64_t ttl_ms, const verrou_call_options *options,
                                 verrou_error *err)
{
    verrou__call *call = NULL;
    verrou_status status;

    if (!lock)
        return verrou__fail(err, VERROU_EINVAL, "lock is NULL");
    status = extend_call(lock, ttl_ms, options, &call, err);
    return status == VERROU_OK ? verrou__call_run(call, NULL, err) : status;
}

verrou_status verrou_lock_extend_async(verrou_lock *lock, int64_t ttl_ms, const verrou_call_options *options,
                                       verrou_queue *queue, verrou_done_fn done, void *user, verrou_error *err)
{
    verrou__call *call = NULL;
    verrou_status status = verrou__lock_check_async(lock, queue, done, err);

    if (status == VERROU_OK)
        status = extend_call(lock, ttl_ms, options, &call, err);
    return status == VERROU_OK ? verrou__call_submit(call, queue, done, user, err) : status;
}

/* ---- waiting for the end ---- */

static verrou_status wait_call(verrou_lock *lock, const verrou_call_options *options, verrou__call **ret_call,
                               verrou_error *err)
{
    verrou_call_options read = VERROU_CALL_OPTIONS_INIT;
    struct lease_view view = {.state = LEASE_NONE};
    verrou__engine *engine = NULL;
    verrou__call *call;
    verrou_status status;

    if (!lock)
        return verrou__fail(err, VERROU_EINVAL, "lock is NULL");
    verrou__options_read(&read, sizeof(read), options);
    if (read.timeout_ms == VERROU_DEFAULT)
        read.timeout_ms = VERROU_FOREVER;
    status = verrou__call_options(lock->store, &read, &read, err);
    if (status == VERROU_OK)
        status = verrou__store_engine(lock->store, &engine, err);
    if (status != VERROU_OK)
        return status;
    verrou__fork_settle(&lock->process, verrou__lease_mend_after_fork, lock);
    status = verrou__lease_need_keeping(lock, err);
    if (status == VERROU_OK)
        status = verrou__engine_need_timers(engine, err);
    if (status != VERROU_OK)
        return status;
    call = verrou__lease_call(lock, engine, VERROU__WAIT, &view);
    if (!call)
        return verrou__nomem(err);
    call->series = NULL;
    call->started = verrou__lease_wait_started;
    call->hook = verrou__lease_wait_hook;
    verrou__call_set_times(call, &read);
    *ret_call = call;
    return VERROU_OK;
}

verrou_status verrou_lock_wait_lost(verrou_lock *lock, const verrou_call_options *options, verrou_error *err)
{
    verrou__call *call = NULL;
    verrou_status status = wait_call(lock, options, &call, err);

    return status == VERROU_OK ? verrou__call_run(call, NULL, err) : status;
}

verrou_status verrou_lock_wait_lost_async(verrou_lock *lock, const verrou_call_options *options, verrou_queue *queue,
                                          verrou_done_fn done, void *user, verrou_error *err)
{
    verrou__call *call = NULL;
    verrou_status status = verrou__lock_check_async(lock, queue, done, err);

    if (status == VERROU_OK)
        status = wait_call(lock, options, &call, err);
    return status == VERROU_OK ? verrou__call_submit(call, queue, done, user, err) : status;
}
