/*
 * acquire.c - taking a lock. Stores that answer at once (memory) skip the engine as long as nobody waits for the key.
 */
#include "core/lock.h"

#include <string.h>

/* The owner of this acquisition is the one drawn ahead; another one is drawn for the next. */
static verrou_status take_owner(verrou_lock *lock, verrou__owner_id *ret_owner, verrou_error *err)
{
    verrou__owner_id fresh;
    verrou_status status;

    if (lock->owner_is_fixed) {
        *ret_owner = lock->next_owner;
        return VERROU_OK;
    }
    status = verrou__lock_own_next_owner(lock, err);
    if (status == VERROU_OK)
        status = verrou__owner_draw(&fresh, err);
    if (status != VERROU_OK)
        return status;
    pthread_mutex_lock(&lock->mutex);
    *ret_owner = lock->next_owner;
    lock->next_owner = fresh;
    pthread_mutex_unlock(&lock->mutex);
    return VERROU_OK;
}

/* An acquisition that was not begun: its owner is the next one again, as verrou_lock_owner() has told. */
static void put_owner_back(verrou_lock *lock, const verrou__owner_id *owner)
{
    if (lock->owner_is_fixed)
        return;
    pthread_mutex_lock(&lock->mutex);
    lock->next_owner = *owner;
    pthread_mutex_unlock(&lock->mutex);
}

struct plan {
    bool immediate;
    int64_t attempts;
    int64_t delay_ms;
    int64_t timeout_ms;
    int64_t deadline_ms;
    verrou_cancel *cancel;
};

static verrou_status plan_acquire(const verrou_lock *lock, const verrou_acquire_options *options, struct plan *ret,
                                  verrou_error *err)
{
    verrou_acquire_options read = VERROU_ACQUIRE_OPTIONS_INIT;
    verrou_status status;

    verrou__options_read(&read, sizeof(read), options);
    ret->attempts = verrou__lock_choose(read.attempts, VERROU_DEFAULT, lock->attempts);
    ret->delay_ms = verrou__lock_choose(read.delay_ms, VERROU_DEFAULT, lock->delay_ms);
    ret->timeout_ms = verrou__lock_choose(read.timeout_ms, VERROU_DEFAULT, lock->timeout_ms);
    ret->deadline_ms = verrou__deadline(read.deadline_ms);
    ret->cancel = read.cancel;
    status = verrou__lock_check_retry(ret->attempts, ret->delay_ms, ret->timeout_ms, err);
    ret->immediate = ret->attempts == 1 || ret->timeout_ms == 0;
    return status;
}

static void fill_acquire(const verrou_lock *lock, verrou__call *call, const struct plan *plan)
{
    int64_t limit_ms = verrou__store_limit_ms(lock->store);
    int64_t timeout_ms = plan->timeout_ms;

    call->immediate = plan->immediate;
    call->ttl_ms = lock->ttl_ms;
    call->delay_ms = plan->delay_ms;
    call->cancel = plan->cancel;
    if (plan->timeout_ms == 0 || (plan->immediate && timeout_ms > limit_ms))
        timeout_ms = limit_ms; /* one request is always given its time */
    call->deadline_ms = plan->deadline_ms;
    if (timeout_ms != VERROU_FOREVER && call->start_ms + timeout_ms < call->deadline_ms)
        call->deadline_ms = call->start_ms + timeout_ms;
    if (plan->attempts != VERROU_FOREVER && !plan->immediate && plan->attempts - 1 <= VERROU_MAX_MS / plan->delay_ms)
        call->attempts_end_ms = call->start_ms + (plan->attempts - 1) * plan->delay_ms;
    call->hook = verrou__lease_acquire_hook;
}

static verrou_status acquire_call(verrou_lock *lock, verrou__engine *engine, const struct plan *plan,
                                  const verrou__owner_id *owner, verrou__call **ret_call, verrou_error *err)
{
    struct lease_view view = {.state = LEASE_NONE, .owner = *owner};
    verrou__call *call;

    if (atomic_load(&lock->keeping) && verrou__engine_need_timers(engine, err) != VERROU_OK)
        return VERROU_ENOMEM;
    call = verrou__lease_call(lock, engine, VERROU__ACQUIRE, &view);
    if (!call)
        return verrou__nomem(err);
    call->owner_id = *owner;
    call->want_fence = 0;
    call->expires_ms = 0;
    call->series = NULL;
    fill_acquire(lock, call, plan);
    *ret_call = call;
    return VERROU_OK;
}

/* Tell the caller about a lease got without the engine. */
static void tell_granted(const verrou_op *op, int64_t remaining_ms, verrou_info *ret_info)
{
    verrou_info info = VERROU_INFO_INIT;

    info.locked = 1;
    info.fence = op->fence;
    info.remaining_ms = remaining_ms;
    memcpy(info.owner, op->owner, op->owner_len + 1u);
    verrou__info_copy(ret_info, &info);
}

/*
 * Ask a store that answers at once, without an engine call. Not if somebody in this process waits for the key: then it is his turn
 * first. Returns false if the engine has to do it.
 */
static bool acquire_inline(verrou_lock *lock, verrou__engine *engine, const struct plan *plan,
                           const verrou__owner_id *id, verrou_info *ret_info)
{
    char owner[VERROU_MAX_OWNER + 1];
    verrou_op op = {.kind = VERROU_OP_ACQUIRE, .remaining_ms = -1, .others = -1};
    int64_t expires_ms;

    if (!verrou__engine_is_inline(engine) || atomic_load(&lock->keeping) || plan->cancel ||
        verrou__engine_logs(engine, VERROU_DEBUG))
        return false;
    if (!plan->immediate && verrou__engine_may_wait(engine, lock->key, lock->key_len))
        return false;
    op.key = lock->key;
    op.key_len = lock->key_len;
    op.owner = owner;
    op.owner_len = (uint16_t)verrou__lock_owner_text(lock, id, owner);
    op.ttl_ms = lock->ttl_ms;
    op.sent_ms = verrou_now_ms();
    verrou__engine_execute_inline(engine, &op);
    verrou__op_done(&op);
    if (op.result != VERROU_OP_APPLIED)
        return false; /* asked again by the engine, which can wait, and describe the holder */
    expires_ms = lock->ttl_ms == VERROU_FOREVER ? VERROU_FOREVER : op.sent_ms + lock->ttl_ms;
    verrou__lease_begun_inline(lock, engine, id, op.fence, expires_ms);
    if (ret_info)
        tell_granted(&op, lock->ttl_ms, ret_info);
    return true;
}

/* The engine, and the owner of this acquisition. */
static verrou_status prepare(verrou_lock *lock, verrou__engine **ret_engine, verrou__owner_id *ret_owner,
                             verrou_error *err)
{
    verrou_status status = verrou__store_engine(lock->store, ret_engine, err);

    if (status != VERROU_OK)
        return status;
    verrou__fork_settle(&lock->process, verrou__lease_mend_after_fork, lock);
    return take_owner(lock, ret_owner, err);
}

static verrou_status acquire(verrou_lock *lock, const struct plan *plan, verrou_info *ret_info, verrou_error *err)
{
    verrou__engine *engine = NULL;
    verrou__call *call = NULL;
    verrou__owner_id owner;
    verrou_status status = prepare(lock, &engine, &owner, err);

    if (status != VERROU_OK)
        return status;
    if (acquire_inline(lock, engine, plan, &owner, ret_info))
        return VERROU_OK;
    status = acquire_call(lock, engine, plan, &owner, &call, err);
    return status == VERROU_OK ? verrou__call_run(call, ret_info, err) : status;
}

verrou_status verrou_lock_acquire(verrou_lock *lock, const verrou_acquire_options *options, verrou_info *ret_info,
                                  verrou_error *err)
{
    struct plan plan;
    verrou_status status;

    if (!lock)
        return verrou__fail(err, VERROU_EINVAL, "lock is NULL");
    status = plan_acquire(lock, options, &plan, err);
    return status == VERROU_OK ? acquire(lock, &plan, ret_info, err) : status;
}

verrou_status verrou_lock_acquire_immediately(verrou_lock *lock, verrou_info *ret_info, verrou_error *err)
{
    verrou_acquire_options options = VERROU_ACQUIRE_OPTIONS_INIT;

    options.attempts = 1;
    options.timeout_ms = VERROU_FOREVER;
    return verrou_lock_acquire(lock, &options, ret_info, err);
}

verrou_status verrou_lock_take(verrou_lock *lock, const verrou_acquire_options *options, verrou_info *ret_info,
                               verrou_error *err)
{
    verrou__engine *engine = NULL;
    verrou__owner_id owner;
    struct plan plan;
    verrou_status status;

    if (!lock)
        return verrou__fail(err, VERROU_EINVAL, "lock is NULL");
    status = plan_acquire(lock, options, &plan, err);
    if (status == VERROU_OK)
        status = prepare(lock, &engine, &owner, err);
    if (status != VERROU_OK)
        return status;
    plan.immediate = false; /* nobody is passed by */
    if (plan.deadline_ms > verrou_now_ms() && acquire_inline(lock, engine, &plan, &owner, ret_info))
        return VERROU_OK;
    put_owner_back(lock, &owner);
    return verrou__fail(err, VERROU_ENOTACQUIRED, "the lock cannot be taken without asking or waiting");
}

verrou_status verrou_lock_acquire_async(verrou_lock *lock, const verrou_acquire_options *options, verrou_queue *queue,
                                        verrou_done_fn done, void *user, verrou_error *err)
{
    verrou__engine *engine = NULL;
    verrou__call *call = NULL;
    verrou__owner_id owner;
    struct plan plan;
    verrou_status status = verrou__lock_check_async(lock, queue, done, err);

    if (status == VERROU_OK)
        status = plan_acquire(lock, options, &plan, err);
    if (status == VERROU_OK)
        status = prepare(lock, &engine, &owner, err);
    if (status == VERROU_OK)
        status = acquire_call(lock, engine, &plan, &owner, &call, err);
    return status == VERROU_OK ? verrou__call_submit(call, queue, done, user, err) : status;
}
