/*
 * lock.c - lock handles: making and restoring them, calls on their key, the local view, running a function under the lock. Acquiring is
 * in acquire.c, releasing, extending and waiting for the end in release.c.
 *
 * A call looks at the handle, makes an engine call, and lets the engine do the rest; what comes of it is noted by the hooks in lease.c.
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

int64_t verrou__lock_choose(int64_t first, int64_t second, int64_t third)
{
    if (first != VERROU_DEFAULT)
        return first;
    return second != VERROU_DEFAULT ? second : third;
}

verrou_status verrou__lock_check_range(const char *what, int64_t value, int64_t min, bool forever_ok, verrou_error *err)
{
    if (value == VERROU_FOREVER && forever_ok)
        return VERROU_OK;
    if (value >= min && value <= VERROU_MAX_MS)
        return VERROU_OK;
    return verrou__fail(err, VERROU_EINVAL, "%s: %lld is out of range", what, (long long)value);
}

/* Attempts, delay and time limit, from wherever they came. */
verrou_status verrou__lock_check_retry(int64_t attempts, int64_t delay_ms, int64_t timeout_ms, verrou_error *err)
{
    verrou_status status = VERROU_OK;

    if (attempts < 1)
        status = verrou__fail(err, VERROU_EINVAL, "attempts: %lld is out of range", (long long)attempts);
    if (status == VERROU_OK)
        status = verrou__lock_check_range("delay_ms", delay_ms, 1, false, err);
    if (status == VERROU_OK)
        status = verrou__lock_check_range("timeout_ms", timeout_ms, 0, true, err);
    return status;
}

static void apply_defaults(verrou_lock_options *options, const verrou_factory_options *defaults)
{
    static const verrou_factory_options none = VERROU_FACTORY_OPTIONS_INIT;

    if (!defaults)
        defaults = &none;
    options->ttl_ms = verrou__lock_choose(options->ttl_ms, defaults->ttl_ms, VERROU_DEFAULT_TTL_MS);
    options->attempts = verrou__lock_choose(options->attempts, defaults->attempts, VERROU_FOREVER);
    options->delay_ms = verrou__lock_choose(options->delay_ms, defaults->delay_ms, VERROU_DEFAULT_DELAY_MS);
    options->timeout_ms = verrou__lock_choose(options->timeout_ms, defaults->timeout_ms, VERROU_FOREVER);
    if (!options->label)
        options->label = defaults->label;
    if (options->label && !options->label[0])
        options->label = NULL;
}

static verrou_status check_options(const verrou_lock_options *options, verrou_error *err)
{
    verrou_status status = verrou__lock_check_range("ttl_ms", options->ttl_ms, 1, true, err);

    if (status == VERROU_OK && options->owner)
        status = verrou__check_text("owner", options->owner, VERROU_MAX_OWNER, err);
    if (status == VERROU_OK && options->label)
        status = verrou__check_text("label", options->label, VERROU__MAX_LABEL, err);
    if (status == VERROU_OK && options->keep_alive)
        status = verrou__lock_check_range("max_hold_ms", options->max_hold_ms, 1, true, err);
    if (status == VERROU_OK)
        status = verrou__lock_check_retry(options->attempts, options->delay_ms, options->timeout_ms, err);
    return status;
}

/* `options` are complete. */
static verrou_status make(verrou_store *store, const char *key, const verrou_lock_options *options,
                          verrou_lock **ret_lock, verrou_error *err)
{
    const char *text = options->owner ? options->owner : options->label;
    verrou_lock *lock = NULL;
    size_t prefix_len = 0;
    size_t len = 0;
    verrou_status status = verrou__store_check_key(store, key, &len, err);

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
    verrou__store_write_key(store, key, lock->key);
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
    status = verrou__serial_parse_key(json, verrou__store_max_key(store), &serial, err);
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

/* ---- what acquire.c and release.c need ---- */

/* See that the owner drawn ahead is this process's own. */
verrou_status verrou__lock_own_next_owner(verrou_lock *lock, verrou_error *err)
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

verrou_status verrou__lock_check_async(const verrou_lock *lock, const verrou_queue *queue, verrou_done_fn done,
                                       verrou_error *err)
{
    const char *missing = !lock ? "lock" : !queue ? "queue" : !done ? "done" : NULL;

    return missing ? verrou__fail(err, VERROU_EINVAL, "%s is NULL", missing) : VERROU_OK;
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
    verrou_status status = verrou__lock_check_async(lock, queue, done, err);

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
    verrou_status status = verrou__lock_check_async(lock, queue, done, err);

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
    if (verrou__lock_own_next_owner(lock, err) != VERROU_OK)
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
    if (verrou__lock_own_next_owner(lock, err) != VERROU_OK)
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
