/*
 * lock.c - lock handles: making them, and the calls on them.
 *
 * A call looks at the handle, makes an engine call, and lets the engine do the rest; what comes of it is noted by the hooks in lease.c. Stores
 * that answer at once (memory) skip the engine as long as nobody waits for the key.
 */
#include "core/lock.h"

#include <string.h>

/* ---- making ---- */

void verrou__lock_ref(verrou_lock *lock)
{
    atomic_fetch_add(&lock->refs, 1);
}

void verrou__lock_unref(verrou_lock *lock)
{
    verrou_store *store = lock->store;

    if (atomic_fetch_sub(&lock->refs, 1) != 1)
        return;
    verrou__lease_free_keeping(lock);
    pthread_mutex_destroy(&lock->mutex);
    verrou__free(lock->text);
    verrou__free(lock);
    verrou__store_unref(store);
}

size_t verrou__lock_owner_text(const verrou_lock *lock, const verrou__owner_id *id, char out[VERROU_MAX_OWNER + 1])
{
    size_t len;

    if (!lock->owner_is_fixed)
        return verrou__owner_format(id, lock->text, out);
    len = strlen(lock->text);
    memcpy(out, lock->text, len + 1);
    return len;
}

static int64_t choose(int64_t first, int64_t second, int64_t third)
{
    if (first != VERROU_DEFAULT)
        return first;
    return second != VERROU_DEFAULT ? second : third;
}

static verrou_status check_range(const char *what, int64_t value, int64_t min, bool forever_ok, verrou_error *err)
{
    if (value == VERROU_FOREVER && forever_ok)
        return VERROU_OK;
    if (value >= min && value <= VERROU_MAX_MS)
        return VERROU_OK;
    return verrou__fail(err, VERROU_EINVAL, "%s: %lld is out of range", what, (long long)value);
}

/* Attempts, delay and time limit, from wherever they came. */
static verrou_status check_retry(int64_t attempts, int64_t delay_ms, int64_t timeout_ms, verrou_error *err)
{
    verrou_status status = VERROU_OK;

    if (attempts < 1)
        status = verrou__fail(err, VERROU_EINVAL, "attempts: %lld is out of range", (long long)attempts);
    if (status == VERROU_OK)
        status = check_range("delay_ms", delay_ms, 1, false, err);
    if (status == VERROU_OK)
        status = check_range("timeout_ms", timeout_ms, 0, true, err);
    return status;
}

static void apply_defaults(verrou_lock_options *options, const verrou_factory_options *defaults)
{
    static const verrou_factory_options none = VERROU_FACTORY_OPTIONS_INIT;

    if (!defaults)
        defaults = &none;
    options->ttl_ms = choose(options->ttl_ms, defaults->ttl_ms, VERROU_DEFAULT_TTL_MS);
    options->attempts = choose(options->attempts, defaults->attempts, VERROU_FOREVER);
    options->delay_ms = choose(options->delay_ms, defaults->delay_ms, VERROU_DEFAULT_DELAY_MS);
    options->timeout_ms = choose(options->timeout_ms, defaults->timeout_ms, VERROU_FOREVER);
    if (!options->label)
        options->label = defaults->label;
    if (options->label && !options->label[0])
        options->label = NULL;
}

static verrou_status check_options(const verrou_lock_options *options, verrou_error *err)
{
    verrou_status status = check_range("ttl_ms", options->ttl_ms, 1, true, err);

    if (status == VERROU_OK && options->owner)
        status = verrou__check_text("owner", options->owner, VERROU_MAX_OWNER, err);
    if (status == VERROU_OK && options->label)
        status = verrou__check_text("label", options->label, VERROU__MAX_LABEL, err);
    if (status == VERROU_OK && options->keep_alive)
        status = check_range("max_hold_ms", options->max_hold_ms, 1, true, err);
    if (status == VERROU_OK)
        status = check_retry(options->attempts, options->delay_ms, options->timeout_ms, err);
    return status;
}

/* `options` are complete. */
static verrou_status make(verrou_store *store, const char *key, const verrou_lock_options *options,
                          verrou_lock **ret_lock, verrou_error *err)
{
    char full_key[VERROU_MAX_KEY + 1];
    const char *text = options->owner ? options->owner : options->label;
    verrou_lock *lock = NULL;
    size_t prefix_len = 0;
    size_t len = 0;
    verrou_status status = verrou__store_full_key(store, key, full_key, &len, err);

    if (status == VERROU_OK)
        status = check_options(options, err);
    if (status != VERROU_OK)
        return status;
    lock = verrou__calloc(sizeof(*lock) + len + 1);
    if (!lock)
        return verrou__nomem(err);
    if (!options->owner)
        status = verrou__owner_draw(&lock->next_owner, err);
    if (status == VERROU_OK && text && !(lock->text = verrou__strdup(text)))
        status = verrou__nomem(err);
    if (status == VERROU_OK && options->keep_alive)
        status = verrou__lease_need_keeping(lock, err);
    if (status != VERROU_OK) {
        verrou__free(lock->text);
        verrou__free(lock);
        return status;
    }
    if (options->keep_alive) {
        struct keeping *keeping = atomic_load(&lock->keeping);

        keeping->keep_alive = true;
        keeping->max_hold_ms = options->max_hold_ms;
    }
    memcpy(lock->key, full_key, len + 1);
    lock->key_len = (uint16_t)len;
    verrou__store_prefix(store, &prefix_len);
    lock->prefix_len = (uint16_t)prefix_len;
    atomic_init(&lock->refs, 1);
    verrou__fork_owner(&lock->process);
    pthread_mutex_init(&lock->mutex, NULL);
    lock->owner_is_fixed = options->owner != NULL;
    lock->ttl_ms = options->ttl_ms;
    lock->attempts = options->attempts;
    lock->delay_ms = options->delay_ms;
    lock->timeout_ms = options->timeout_ms;
    lock->store = store;
    verrou__store_ref(store);
    *ret_lock = lock;
    return VERROU_OK;
}

verrou_status verrou__lock_new(verrou_store *store, const char *key, const verrou_lock_options *options,
                               const verrou_factory_options *defaults, verrou_lock **ret_lock, verrou_error *err)
{
    verrou_lock_options read = VERROU_LOCK_OPTIONS_INIT;

    if (!store || !ret_lock)
        return verrou__fail(err, VERROU_EINVAL, "%s is NULL", store ? "ret_lock" : "store");
    verrou__options_read(&read, sizeof(read), options);
    apply_defaults(&read, defaults);
    return make(store, key, &read, ret_lock, err);
}

verrou_status verrou_lock_new(verrou_store *store, const char *key, const verrou_lock_options *options,
                              verrou_lock **ret_lock, verrou_error *err)
{
    return verrou__lock_new(store, key, options, NULL, ret_lock, err);
}

/* Two clocks were rounded to milliseconds when the lock was serialised, and two are when it is restored. */
#define ROUNDED_MS 2

/* The lease that a serialised lock speaks of, by the wall clock. */
static void restore_lease(verrou_lock *lock, const verrou__serial *serial)
{
    int64_t left_ms;

    lock->fence = serial->fence;
    if (serial->expiration_ms == VERROU_FOREVER) {
        if (serial->ttl_ms != VERROU_FOREVER)
            return; /* it was never acquired */
        lock->expires_ms = VERROU_FOREVER;
    } else {
        left_ms = serial->expiration_ms - verrou__wall_ms() - ROUNDED_MS;
        lock->expires_ms = verrou_now_ms() + left_ms;
    }
    lock->lease = 1;
    lock->state = LEASE_HELD;
}

verrou_status verrou__lock_restore(verrou_store *store, const char *json, const verrou_lock_options *options,
                                   const verrou_factory_options *defaults, verrou_lock **ret_lock, verrou_error *err)
{
    verrou_lock_options read = VERROU_LOCK_OPTIONS_INIT;
    verrou__engine *engine = NULL;
    verrou__serial serial;
    verrou_lock *lock = NULL;
    verrou_status status;

    if (!store || !ret_lock)
        return verrou__fail(err, VERROU_EINVAL, "%s is NULL", store ? "ret_lock" : "store");
    status = verrou__serial_parse(json, &serial, err);
    if (status != VERROU_OK)
        return status;
    verrou__options_read(&read, sizeof(read), options);
    read.ttl_ms = serial.ttl_ms;
    read.owner = serial.owner;
    read.label = NULL;
    apply_defaults(&read, defaults);
    read.label = NULL;
    status = make(store, serial.key, &read, &lock, err);
    if (status != VERROU_OK)
        goto done;
    restore_lease(lock, &serial);
    if (read.keep_alive) {
        status = verrou__store_engine(store, &engine, err);
        if (status == VERROU_OK)
            status = verrou__engine_need_timers(engine, err);
        if (status == VERROU_OK)
            verrou__lease_start_keeping(lock, engine);
    }
    if (status == VERROU_OK)
        *ret_lock = lock;
    else
        verrou_lock_free(lock);
done:
    verrou__serial_done(&serial);
    return status;
}

verrou_status verrou_lock_restore(verrou_store *store, const char *json, const verrou_lock_options *options,
                                  verrou_lock **ret_lock, verrou_error *err)
{
    return verrou__lock_restore(store, json, options, NULL, ret_lock, err);
}

void verrou_lock_free(verrou_lock *lock)
{
    if (!lock)
        return;
    verrou__lease_stop_keeping(lock);
    verrou__lock_unref(lock);
}

/* ---- acquiring ---- */

/* See that the owner drawn ahead is this process's own. */
static verrou_status own_next_owner(verrou_lock *lock, verrou_error *err)
{
    verrou__owner_id fresh;
    verrou_status status;

    if (lock->owner_is_fixed || !atomic_load(&lock->next_is_parents))
        return VERROU_OK;
    status = verrou__owner_draw(&fresh, err);
    if (status != VERROU_OK)
        return status;
    pthread_mutex_lock(&lock->mutex);
    if (lock->next_is_parents)
        lock->next_owner = fresh;
    lock->next_is_parents = false;
    pthread_mutex_unlock(&lock->mutex);
    return VERROU_OK;
}

/* The owner of this acquisition is the one drawn ahead; another one is drawn for the next. */
static verrou_status take_owner(verrou_lock *lock, verrou__owner_id *ret_owner, verrou_error *err)
{
    verrou__owner_id fresh;
    verrou_status status;

    if (lock->owner_is_fixed) {
        *ret_owner = lock->next_owner;
        return VERROU_OK;
    }
    status = own_next_owner(lock, err);
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
    ret->attempts = choose(read.attempts, VERROU_DEFAULT, lock->attempts);
    ret->delay_ms = choose(read.delay_ms, VERROU_DEFAULT, lock->delay_ms);
    ret->timeout_ms = choose(read.timeout_ms, VERROU_DEFAULT, lock->timeout_ms);
    ret->deadline_ms = verrou__deadline(read.deadline_ms);
    ret->cancel = read.cancel;
    status = check_retry(ret->attempts, ret->delay_ms, ret->timeout_ms, err);
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

static verrou_status acquire(verrou_lock *lock, const struct plan *plan, verrou_info *ret_info, verrou_error *err)
{
    verrou__engine *engine = NULL;
    verrou__call *call = NULL;
    verrou__owner_id owner;
    verrou_status status = verrou__store_engine(lock->store, &engine, err);

    if (status != VERROU_OK)
        return status;
    verrou__fork_settle(&lock->process, verrou__lease_mend_after_fork, lock);
    status = take_owner(lock, &owner, err);
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

static verrou_status check_async(const verrou_lock *lock, const verrou_queue *queue, verrou_done_fn done,
                                 verrou_error *err)
{
    const char *missing = !lock ? "lock" : !queue ? "queue" : !done ? "done" : NULL;

    return missing ? verrou__fail(err, VERROU_EINVAL, "%s is NULL", missing) : VERROU_OK;
}

verrou_status verrou_lock_acquire_async(verrou_lock *lock, const verrou_acquire_options *options, verrou_queue *queue,
                                        verrou_done_fn done, void *user, verrou_error *err)
{
    verrou__engine *engine = NULL;
    verrou__call *call = NULL;
    verrou__owner_id owner;
    struct plan plan;
    verrou_status status = check_async(lock, queue, done, err);

    if (status == VERROU_OK)
        status = plan_acquire(lock, options, &plan, err);
    if (status == VERROU_OK)
        status = verrou__store_engine(lock->store, &engine, err);
    if (status != VERROU_OK)
        return status;
    verrou__fork_settle(&lock->process, verrou__lease_mend_after_fork, lock);
    status = take_owner(lock, &owner, err);
    if (status == VERROU_OK)
        status = acquire_call(lock, engine, &plan, &owner, &call, err);
    return status == VERROU_OK ? verrou__call_submit(call, queue, done, user, err) : status;
}

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
    verrou_status status = check_async(lock, queue, done, err);

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
    status = check_range("ttl_ms", ttl_ms, 1, true, err);
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
    verrou_status status = check_async(lock, queue, done, err);

    if (status == VERROU_OK)
        status = extend_call(lock, ttl_ms, options, &call, err);
    return status == VERROU_OK ? verrou__call_submit(call, queue, done, user, err) : status;
}

/* ---- calls on the key ---- */

static verrou_status force_call(verrou_lock *lock, const verrou_call_options *options, verrou__call **ret_call,
                                verrou_error *err)
{
    if (!lock)
        return verrou__fail(err, VERROU_EINVAL, "lock is NULL");
    return verrou__store_key_call(lock->store, VERROU__FORCE, lock->key, lock->key_len, options, ret_call, err);
}

verrou_status verrou_lock_force_release(verrou_lock *lock, const verrou_call_options *options, verrou_error *err)
{
    verrou__call *call = NULL;
    verrou_status status = force_call(lock, options, &call, err);

    return status == VERROU_OK ? verrou__call_run(call, NULL, err) : status;
}

verrou_status verrou_lock_force_release_async(verrou_lock *lock, const verrou_call_options *options,
                                              verrou_queue *queue, verrou_done_fn done, void *user, verrou_error *err)
{
    verrou__call *call = NULL;
    verrou_status status = check_async(lock, queue, done, err);

    if (status == VERROU_OK)
        status = force_call(lock, options, &call, err);
    return status == VERROU_OK ? verrou__call_submit(call, queue, done, user, err) : status;
}

/* What the store says of the key is also news about the own lease. */
static verrou_status inspect_call(verrou_lock *lock, const verrou_call_options *options, verrou__call **ret_call,
                                  verrou_error *err)
{
    verrou_call_options read = VERROU_CALL_OPTIONS_INIT;
    verrou__engine *engine = NULL;
    struct lease_view view;
    verrou__call *call;
    verrou_status status;

    if (!lock)
        return verrou__fail(err, VERROU_EINVAL, "lock is NULL");
    status = verrou__call_options(lock->store, options, &read, err);
    if (status == VERROU_OK)
        status = verrou__store_engine(lock->store, &engine, err);
    if (status != VERROU_OK)
        return status;
    verrou__lease_look(lock, &view);
    call = verrou__lease_call(lock, engine, VERROU__INSPECT, &view);
    if (!call)
        return verrou__nomem(err);
    verrou__call_set_times(call, &read);
    call->op.owner = NULL;
    call->op.owner_len = 0;
    call->want_fence = 0;
    if (view.noted == LEASE_HELD)
        call->hook = verrou__lease_inspect_hook;
    else
        call->series = NULL;
    *ret_call = call;
    return VERROU_OK;
}

verrou_status verrou_lock_inspect(verrou_lock *lock, const verrou_call_options *options, verrou_info *ret_info,
                                  verrou_error *err)
{
    verrou__call *call = NULL;
    verrou_status status = inspect_call(lock, options, &call, err);

    return status == VERROU_OK ? verrou__call_run(call, ret_info, err) : status;
}

verrou_status verrou_lock_inspect_async(verrou_lock *lock, const verrou_call_options *options, verrou_queue *queue,
                                        verrou_done_fn done, void *user, verrou_error *err)
{
    verrou__call *call = NULL;
    verrou_status status = check_async(lock, queue, done, err);

    if (status == VERROU_OK)
        status = inspect_call(lock, options, &call, err);
    return status == VERROU_OK ? verrou__call_submit(call, queue, done, user, err) : status;
}

verrou_status verrou_lock_is_locked(verrou_lock *lock, const verrou_call_options *options, int *ret_locked,
                                    verrou_error *err)
{
    verrou_info info = VERROU_INFO_INIT;
    verrou_status status;

    if (!ret_locked)
        return verrou__fail(err, VERROU_EINVAL, "ret_locked is NULL");
    status = verrou_lock_inspect(lock, options, &info, err);
    if (status == VERROU_OK)
        *ret_locked = info.locked;
    return status;
}

/* ---- the local view ---- */

int verrou_lock_is_expired(verrou_lock *lock)
{
    struct lease_view view;

    verrou__lease_look(lock, &view);
    return view.state == LEASE_LOST || view.state == LEASE_FOREIGN;
}

int64_t verrou_lock_remaining_ms(verrou_lock *lock)
{
    struct lease_view view;
    int64_t left_ms;

    verrou__lease_look(lock, &view);
    if (view.state != LEASE_HELD)
        return 0;
    if (view.expires_ms == VERROU_FOREVER)
        return VERROU_FOREVER;
    left_ms = view.expires_ms - verrou_now_ms();
    return left_ms > 0 ? left_ms : 0;
}

verrou_status verrou_lock_check(verrou_lock *lock)
{
    struct lease_view view;

    verrou__lease_look(lock, &view);
    switch (view.state) {
    case LEASE_HELD:
        return VERROU_OK;
    case LEASE_LOST:
        return VERROU_ELOST;
    case LEASE_FOREIGN:
        return VERROU_EFORK;
    default:
        return VERROU_ENOTOWNED;
    }
}

uint64_t verrou_lock_fence(verrou_lock *lock)
{
    struct lease_view view;

    verrou__lease_look(lock, &view);
    return view.fence;
}

verrou_status verrou_lock_owner(verrou_lock *lock, char **ret_owner, verrou_error *err)
{
    char owner[VERROU_MAX_OWNER + 1];
    struct lease_view view;
    char *copy;

    if (!lock || !ret_owner)
        return verrou__fail(err, VERROU_EINVAL, "%s is NULL", lock ? "ret_owner" : "lock");
    verrou__lease_look(lock, &view);
    if (own_next_owner(lock, err) != VERROU_OK)
        return VERROU_ENOMEM;
    verrou__lease_look(lock, &view);
    verrou__lock_owner_text(lock, &view.owner, owner);
    copy = verrou__strdup(owner);
    if (!copy)
        return verrou__nomem(err);
    *ret_owner = copy;
    return VERROU_OK;
}

const char *verrou_lock_key(const verrou_lock *lock)
{
    return lock->key + lock->prefix_len;
}

int64_t verrou_lock_ttl_ms(const verrou_lock *lock)
{
    return lock->ttl_ms;
}

verrou_status verrou_lock_serialize(verrou_lock *lock, char **ret_json, verrou_error *err)
{
    char owner[VERROU_MAX_OWNER + 1];
    struct lease_view view;
    verrou__serial serial;
    const char *store_name;
    bool leased;

    if (!lock || !ret_json)
        return verrou__fail(err, VERROU_EINVAL, "%s is NULL", lock ? "ret_json" : "lock");
    verrou__lease_look(lock, &view);
    if (own_next_owner(lock, err) != VERROU_OK)
        return VERROU_ENOMEM;
    verrou__lease_look(lock, &view);
    leased = view.state != LEASE_NONE;
    verrou__lock_owner_text(lock, &view.owner, owner);
    store_name = verrou_store_name(lock->store);
    serial.key = lock->key + lock->prefix_len;
    serial.owner = owner;
    serial.store = store_name[0] ? (char *)store_name : NULL;
    serial.ttl_ms = lock->ttl_ms;
    serial.fence = leased ? view.fence : 0;
    serial.expiration_ms = VERROU_FOREVER;
    if (leased && view.expires_ms != VERROU_FOREVER)
        serial.expiration_ms = verrou__wall_ms() + view.expires_ms - verrou_now_ms();
    return verrou__serial_format(&serial, ret_json, err);
}

/* ---- running ---- */

static verrou_status run(verrou_lock *lock, const verrou_acquire_options *options, bool immediately,
                         verrou_body_fn body, void *user, int *ret_executed, int *ret_result, verrou_error *err)
{
    verrou_call_options release = VERROU_CALL_OPTIONS_INIT;
    verrou_info info = VERROU_INFO_INIT;
    verrou_status status;
    int result;

    if (ret_executed)
        *ret_executed = 0;
    if (!body)
        return verrou__fail(err, VERROU_EINVAL, "body is NULL");
    if (immediately)
        status = verrou_lock_acquire_immediately(lock, &info, err);
    else
        status = verrou_lock_acquire(lock, options, &info, err);
    if (status != VERROU_OK)
        return status;
    result = body(user, lock);
    if (ret_executed)
        *ret_executed = 1;
    if (ret_result)
        *ret_result = result;
    release.fence = info.fence;
    status = verrou_lock_release(lock, &release, err);
    if (status == VERROU_ENOTOWNED)
        status = verrou__fail(err, VERROU_ELOST, "\"%s\": %s", verrou_lock_key(lock), verrou_status_text(VERROU_ELOST));
    return status;
}

verrou_status verrou_lock_run(verrou_lock *lock, const verrou_acquire_options *options, verrou_body_fn body, void *user,
                              int *ret_executed, int *ret_result, verrou_error *err)
{
    return run(lock, options, false, body, user, ret_executed, ret_result, err);
}

verrou_status verrou_lock_run_immediately(verrou_lock *lock, verrou_body_fn body, void *user, int *ret_executed,
                                          int *ret_result, verrou_error *err)
{
    return run(lock, NULL, true, body, user, ret_executed, ret_result, err);
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
    verrou_status status = check_async(lock, queue, done, err);

    if (status == VERROU_OK)
        status = wait_call(lock, options, &call, err);
    return status == VERROU_OK ? verrou__call_submit(call, queue, done, user, err) : status;
}
