/*
 * lock.c - lock handles and the calls on them.
 *
 * A call on a store that answers at once (memory) is made synchronously and returns its result; JavaScript's async functions make a promise
 * of it. All others return a promise, which the completion queue settles. An acquire that has to wait is always of the second kind.
 */
#include <stdlib.h>
#include <string.h>

#include "addon.h"

struct handle {
    verrou_lock *lock;
    struct store *store;
    unsigned refs; /* one is the wrapper's, one of each pending call: a lease is kept while its loss is waited for */
};

/* ---- handles ---- */

static void handle_unref(void *data)
{
    struct handle *handle = data;

    if (--handle->refs > 0)
        return;
    verrou_lock_free(handle->lock);
    store_unref(handle->store);
    free(handle);
}

static void finalize_handle(napi_env napi, void *data, void *hint)
{
    (void)napi;
    (void)hint;
    handle_unref(data);
}

static struct handle *handle_this(napi_env napi, napi_callback_info info, size_t argc, napi_value *args)
{
    napi_value self = NULL;
    void *handle = NULL;

    if (!napi_ok_or_throw(napi, napi_get_cb_info(napi, info, &argc, args, &self, NULL)))
        return NULL;
    if (napi_unwrap(napi, self, &handle) == napi_ok && handle)
        return handle;
    napi_throw_type_error(napi, NULL, "not a lock");
    return NULL;
}

/* Wrap a new lock in `self`. Takes the lock over. */
static napi_value handle_wrap(napi_env napi, napi_value self, struct store *store, verrou_lock *lock)
{
    struct handle *handle = calloc(1, sizeof(*handle));

    if (!handle) {
        verrou_lock_free(lock);
        throw_status(napi, VERROU_ENOMEM, NULL);
        return NULL;
    }
    handle->lock = lock;
    handle->store = store;
    handle->refs = 1;
    store_ref(store);
    if (napi_ok_or_throw(napi, napi_wrap(napi, self, handle, finalize_handle, NULL, NULL)))
        return self;
    handle_unref(handle);
    return NULL;
}

/* What `new Lock()` is told: (store, key or JSON, isJson, ttl, owner, label, autoExtend, maxHold, attempts, delay, timeout) */
enum {
    ARG_STORE,
    ARG_KEY,
    ARG_IS_JSON,
    ARG_TTL,
    ARG_OWNER,
    ARG_LABEL,
    ARG_AUTO,
    ARG_HOLD,
    ARG_ATTEMPTS,
    ARG_DELAY,
    ARG_TIMEOUT,
    ARGS
};

struct wish {
    char *key;
    char *owner;
    char *label;
    bool is_json;
    verrou_lock_options options;
};

static bool wish_read(napi_env napi, const napi_value *args, struct wish *wish)
{
    verrou_lock_options *options = &wish->options;
    bool keep_alive = false;

    if (!arg_text(napi, args[ARG_KEY], "key", &wish->key) || !arg_bool(napi, args[ARG_IS_JSON], &wish->is_json) ||
        !arg_ms(napi, args[ARG_TTL], &options->ttl_ms) || !arg_text(napi, args[ARG_OWNER], "owner", &wish->owner) ||
        !arg_text(napi, args[ARG_LABEL], "label", &wish->label) || !arg_bool(napi, args[ARG_AUTO], &keep_alive) ||
        !arg_ms(napi, args[ARG_HOLD], &options->max_hold_ms) || !arg_ms(napi, args[ARG_ATTEMPTS], &options->attempts) ||
        !arg_ms(napi, args[ARG_DELAY], &options->delay_ms) || !arg_ms(napi, args[ARG_TIMEOUT], &options->timeout_ms))
        return false;
    options->owner = wish->owner;
    options->label = wish->label;
    options->keep_alive = keep_alive;
    if (options->max_hold_ms == VERROU_DEFAULT)
        options->max_hold_ms = VERROU_FOREVER;
    return true;
}

static verrou_status wish_grant(const struct wish *wish, struct store *store, verrou_lock **ret_lock, verrou_error *err)
{
    if (atomic_load(&store->closed))
        return VERROU_ECLOSED;
    if (wish->is_json)
        return verrou_lock_restore(store->native, wish->key, &wish->options, ret_lock, err);
    return verrou_lock_new(store->native, wish->key, &wish->options, ret_lock, err);
}

static napi_value lock_new(napi_env napi, napi_callback_info info)
{
    struct wish wish = {.options = VERROU_LOCK_OPTIONS_INIT};
    verrou_error error = VERROU_ERROR_INIT;
    napi_value self = NULL, made = NULL, args[ARGS];
    struct store *store;
    verrou_lock *lock = NULL;
    size_t argc = ARGS;
    verrou_status status;

    if (!napi_ok_or_throw(napi, napi_get_cb_info(napi, info, &argc, args, &self, NULL)) ||
        !(store = store_arg(napi, args[ARG_STORE])) || !wish_read(napi, args, &wish))
        goto done;
    status = wish_grant(&wish, store, &lock, &error);
    if (status == VERROU_OK)
        made = handle_wrap(napi, self, store, lock);
    else
        throw_status(napi, status, &error);
done:
    free(wish.key);
    free(wish.owner);
    free(wish.label);
    return made;
}

/* ---- results ---- */

static napi_value value_bool(napi_env napi, bool is)
{
    napi_value value = NULL;

    napi_get_boolean(napi, is, &value);
    return value;
}

static napi_value finish_acquire(struct env *env, const verrou_result *result)
{
    if (result->status != VERROU_OK && result->status != VERROU_ENOTACQUIRED)
        return NULL;
    return value_bool(env->napi, result->status == VERROU_OK);
}

static napi_value finish_nothing(struct env *env, const verrou_result *result)
{
    return result->status == VERROU_OK ? value_undefined(env->napi) : NULL;
}

static napi_value finish_locked(struct env *env, const verrou_result *result)
{
    return result->status == VERROU_OK ? value_bool(env->napi, result->info->locked) : NULL;
}

static napi_value finish_info(struct env *env, const verrou_result *result)
{
    return result->status == VERROU_OK ? value_info(env->napi, result->info) : NULL;
}

/* "lost", or "released" if it was, or there was none. Rejected when nobody will know any more. */
static napi_value finish_wait(struct env *env, const verrou_result *result)
{
    if (result->status == VERROU_ECLOSED || result->status == VERROU_ENOMEM)
        return NULL;
    return value_text(env->napi, result->status == VERROU_ELOST ? "lost" : "released");
}

/* ---- calls ---- */

static struct call *begin(struct handle *handle, call_result_fn finish, bool keeps_alive, napi_value *ret_promise)
{
    struct call *call = call_new(handle->store->env, handle->store, finish, keeps_alive, ret_promise);

    if (!call)
        return NULL;
    call->subject = handle;
    call->done_with = handle_unref;
    handle->refs++;
    loop_enter(handle->store->env);
    return call;
}

/* The call was submitted, or not: its promise, or NULL with an exception pending. */
static napi_value submitted(struct env *env, struct call *call, verrou_status status, const verrou_error *error,
                            napi_value promise)
{
    if (status != VERROU_OK) {
        call_refuse(call);
        throw_status(env->napi, status, error);
        promise = NULL;
    }
    loop_leave(env);
    return promise;
}

/* A call that was made on this thread. */
static napi_value answered(struct env *env, verrou_status status, const verrou_error *error, napi_value value)
{
    if (status != VERROU_OK && status != VERROU_ENOTACQUIRED) {
        throw_status(env->napi, status, error);
        value = NULL;
    }
    if (atomic_load(&env->messages))
        loop_leave(env); /* log records */
    return value;
}

static bool read_acquire(napi_env napi, const napi_value *args, verrou_acquire_options *options)
{
    napi_valuetype type = napi_undefined;
    void *cancel = NULL;

    if (!arg_ms(napi, args[0], &options->attempts) || !arg_ms(napi, args[1], &options->delay_ms) ||
        !arg_ms(napi, args[2], &options->timeout_ms) || napi_typeof(napi, args[3], &type) != napi_ok)
        return false;
    if (type != napi_undefined && !napi_ok_or_throw(napi, napi_unwrap(napi, args[3], &cancel)))
        return false;
    options->cancel = cancel;
    return true;
}

/* acquire(attempts, delay, timeout, cancel): true, or a promise of true or false */
static napi_value lock_acquire(napi_env napi, napi_callback_info info)
{
    verrou_acquire_options options = VERROU_ACQUIRE_OPTIONS_INIT;
    verrou_error error = VERROU_ERROR_INIT;
    napi_value args[4], promise = NULL;
    struct handle *handle = handle_this(napi, info, COUNT(args), args);
    struct env *env;
    struct call *call;
    verrou_status status;

    if (!handle || !read_acquire(napi, args, &options))
        return NULL;
    env = handle->store->env;
    if (handle->store->immediate && !options.cancel &&
        verrou_lock_take(handle->lock, &options, NULL, &error) == VERROU_OK)
        return answered(env, VERROU_OK, NULL, value_bool(napi, true));
    call = begin(handle, finish_acquire, true, &promise);
    if (!call)
        return NULL;
    status = verrou_lock_acquire_async(handle->lock, &options, env->queue, call_done, call, &error);
    return submitted(env, call, status, &error, promise);
}

/* acquireImmediately(): true or false, or a promise of it */
static napi_value lock_acquire_immediately(napi_env napi, napi_callback_info info)
{
    verrou_acquire_options options = VERROU_ACQUIRE_OPTIONS_INIT;
    verrou_error error = VERROU_ERROR_INIT;
    napi_value promise = NULL;
    struct handle *handle = handle_this(napi, info, 0, NULL);
    struct env *env;
    struct call *call;
    verrou_status status;

    if (!handle)
        return NULL;
    env = handle->store->env;
    if (handle->store->immediate) {
        status = verrou_lock_acquire_immediately(handle->lock, NULL, &error);
        return answered(env, status, &error, value_bool(napi, status == VERROU_OK));
    }
    options.attempts = 1;
    options.timeout_ms = VERROU_FOREVER;
    call = begin(handle, finish_acquire, true, &promise);
    if (!call)
        return NULL;
    status = verrou_lock_acquire_async(handle->lock, &options, env->queue, call_done, call, &error);
    return submitted(env, call, status, &error, promise);
}

static napi_value lock_release(napi_env napi, napi_callback_info info)
{
    verrou_error error = VERROU_ERROR_INIT;
    napi_value promise = NULL;
    struct handle *handle = handle_this(napi, info, 0, NULL);
    struct env *env;
    struct call *call;
    verrou_status status;

    if (!handle)
        return NULL;
    env = handle->store->env;
    if (handle->store->immediate) {
        status = verrou_lock_release(handle->lock, NULL, &error);
        return answered(env, status, &error, value_undefined(napi));
    }
    call = begin(handle, finish_nothing, true, &promise);
    if (!call)
        return NULL;
    status = verrou_lock_release_async(handle->lock, NULL, env->queue, call_done, call, &error);
    return submitted(env, call, status, &error, promise);
}

/* extend(ttl) */
static napi_value lock_extend(napi_env napi, napi_callback_info info)
{
    verrou_error error = VERROU_ERROR_INIT;
    napi_value arg = NULL, promise = NULL;
    struct handle *handle = handle_this(napi, info, 1, &arg);
    int64_t ttl_ms = 0;
    struct env *env;
    struct call *call;
    verrou_status status;

    if (!handle || !arg_ms(napi, arg, &ttl_ms))
        return NULL;
    env = handle->store->env;
    if (handle->store->immediate) {
        status = verrou_lock_extend(handle->lock, ttl_ms, NULL, &error);
        return answered(env, status, &error, value_undefined(napi));
    }
    call = begin(handle, finish_nothing, true, &promise);
    if (!call)
        return NULL;
    status = verrou_lock_extend_async(handle->lock, ttl_ms, NULL, env->queue, call_done, call, &error);
    return submitted(env, call, status, &error, promise);
}

typedef verrou_status (*plain_call_fn)(verrou_lock *lock, const verrou_call_options *options, verrou_queue *queue,
                                       verrou_done_fn done, void *user, verrou_error *err);

/* A call without arguments, always through the queue. */
static napi_value plain_call(napi_env napi, napi_callback_info info, plain_call_fn submit, call_result_fn finish,
                             bool keeps_alive)
{
    verrou_error error = VERROU_ERROR_INIT;
    napi_value promise = NULL;
    struct handle *handle = handle_this(napi, info, 0, NULL);
    struct env *env;
    struct call *call;
    verrou_status status;

    if (!handle)
        return NULL;
    env = handle->store->env;
    call = begin(handle, finish, keeps_alive, &promise);
    if (!call)
        return NULL;
    status = submit(handle->lock, NULL, env->queue, call_done, call, &error);
    return submitted(env, call, status, &error, promise);
}

static napi_value lock_force_release(napi_env napi, napi_callback_info info)
{
    return plain_call(napi, info, verrou_lock_force_release_async, finish_nothing, true);
}

static napi_value lock_is_locked(napi_env napi, napi_callback_info info)
{
    return plain_call(napi, info, verrou_lock_inspect_async, finish_locked, true);
}

static napi_value lock_inspect(napi_env napi, napi_callback_info info)
{
    return plain_call(napi, info, verrou_lock_inspect_async, finish_info, true);
}

/* waitLost(): a promise of how the lease ended. While it waits, the handle lives, and its lease is renewed. */
static napi_value lock_wait_lost(napi_env napi, napi_callback_info info)
{
    return plain_call(napi, info, verrou_lock_wait_lost_async, finish_wait, false);
}

/* ---- the local view ---- */

static napi_value lock_owner(napi_env napi, napi_callback_info info)
{
    verrou_error error = VERROU_ERROR_INIT;
    struct handle *handle = handle_this(napi, info, 0, NULL);
    napi_value value;
    char *owner = NULL;
    verrou_status status;

    if (!handle)
        return NULL;
    status = verrou_lock_owner(handle->lock, &owner, &error);
    if (status != VERROU_OK) {
        throw_status(napi, status, &error);
        return NULL;
    }
    value = value_text(napi, owner);
    verrou_free(owner);
    return value;
}

static napi_value lock_serialize(napi_env napi, napi_callback_info info)
{
    verrou_error error = VERROU_ERROR_INIT;
    struct handle *handle = handle_this(napi, info, 0, NULL);
    napi_value value;
    char *json = NULL;
    verrou_status status;

    if (!handle)
        return NULL;
    status = verrou_lock_serialize(handle->lock, &json, &error);
    if (status != VERROU_OK) {
        throw_status(napi, status, &error);
        return NULL;
    }
    value = value_text(napi, json);
    verrou_free(json);
    return value;
}

static napi_value lock_is_expired(napi_env napi, napi_callback_info info)
{
    struct handle *handle = handle_this(napi, info, 0, NULL);

    return handle ? value_bool(napi, verrou_lock_is_expired(handle->lock)) : NULL;
}

/* Milliseconds, Infinity for a lease without end; undefined if there is no lease, 0 if it has ended. */
static napi_value lock_remaining(napi_env napi, napi_callback_info info)
{
    struct handle *handle = handle_this(napi, info, 0, NULL);
    verrou_status status;

    if (!handle)
        return NULL;
    status = verrou_lock_check(handle->lock);
    if (status != VERROU_OK && status != VERROU_ELOST)
        return value_undefined(napi);
    return value_ms(napi, verrou_lock_remaining_ms(handle->lock));
}

static napi_value lock_fence(napi_env napi, napi_callback_info info)
{
    struct handle *handle = handle_this(napi, info, 0, NULL);
    napi_value value = NULL;

    if (handle)
        napi_create_double(napi, (double)verrou_lock_fence(handle->lock), &value);
    return value;
}

/* ---- cancelling ---- */

static void finalize_cancel(napi_env napi, void *data, void *hint)
{
    (void)napi;
    (void)hint;
    verrou_cancel_free(data);
}

static napi_value cancel_new(napi_env napi, napi_callback_info info)
{
    verrou_error error = VERROU_ERROR_INIT;
    verrou_cancel *cancel = NULL;
    napi_value self = NULL;
    verrou_status status;

    if (!napi_ok_or_throw(napi, napi_get_cb_info(napi, info, NULL, NULL, &self, NULL)))
        return NULL;
    status = verrou_cancel_new(&cancel, &error);
    if (status != VERROU_OK) {
        throw_status(napi, status, &error);
        return NULL;
    }
    if (napi_ok_or_throw(napi, napi_wrap(napi, self, cancel, finalize_cancel, NULL, NULL)))
        return self;
    verrou_cancel_free(cancel);
    return NULL;
}

static napi_value cancel_fire(napi_env napi, napi_callback_info info)
{
    struct env *env = env_of(napi);
    napi_value self = NULL;
    void *cancel = NULL;

    if (!napi_ok_or_throw(napi, napi_get_cb_info(napi, info, NULL, NULL, &self, NULL)) ||
        !napi_ok_or_throw(napi, napi_unwrap(napi, self, &cancel)))
        return NULL;
    loop_enter(env);
    verrou_cancel_fire(cancel);
    loop_leave(env);
    return NULL;
}

/* ---- the classes ---- */

#define METHOD(name, function)                                            \
    {                                                                     \
        name, NULL, function, NULL, NULL, NULL, napi_default_method, NULL \
    }

napi_status lock_define(napi_env napi, napi_value exports)
{
    const napi_property_descriptor methods[] = {
        METHOD("acquire", lock_acquire),
        METHOD("acquireImmediately", lock_acquire_immediately),
        METHOD("release", lock_release),
        METHOD("extend", lock_extend),
        METHOD("forceRelease", lock_force_release),
        METHOD("isLocked", lock_is_locked),
        METHOD("inspect", lock_inspect),
        METHOD("waitLost", lock_wait_lost),
        METHOD("owner", lock_owner),
        METHOD("serialize", lock_serialize),
        METHOD("isExpired", lock_is_expired),
        METHOD("remaining", lock_remaining),
        METHOD("fence", lock_fence),
    };
    const napi_property_descriptor cancel_methods[] = {METHOD("fire", cancel_fire)};
    napi_value constructor = NULL;
    napi_status status =
        napi_define_class(napi, "Lock", NAPI_AUTO_LENGTH, lock_new, NULL, COUNT(methods), methods, &constructor);

    if (status == napi_ok)
        status = napi_set_named_property(napi, exports, "Lock", constructor);
    if (status == napi_ok)
        status = napi_define_class(napi, "Cancel", NAPI_AUTO_LENGTH, cancel_new, NULL, COUNT(cancel_methods),
                                   cancel_methods, &constructor);
    return status == napi_ok ? napi_set_named_property(napi, exports, "Cancel", constructor) : status;
}
