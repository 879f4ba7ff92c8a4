/*
 * store.c - stores: opening, closing, the calls on a key, and log records.
 *
 * The JavaScript wrapper holds the store. Closing may take as long as requests in flight do, so that it never happens on the thread of the
 * event loop: close() uses the thread pool, and a wrapper that is collected or an environment that ends leaves it to a thread of its own.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "addon.h"

/* ---- life ---- */

void store_ref(struct store *store)
{
    atomic_fetch_add(&store->refs, 1);
}

void store_unref(struct store *store)
{
    if (atomic_fetch_sub(&store->refs, 1) != 1)
        return;
    env_unref(store->env);
    free(store);
}

/* The wrapper stays while somebody waits for its store. */
void store_pin(struct store *store)
{
    if (store->pins++ == 0)
        napi_reference_ref(store->env->napi, store->wrapper, NULL);
}

void store_unpin(struct store *store)
{
    if (--store->pins == 0 && store->wrapper)
        napi_reference_unref(store->env->napi, store->wrapper, NULL);
}

napi_value store_wrapper(struct store *store)
{
    napi_value wrapper = NULL;

    if (!store->wrapper || napi_get_reference_value(store->env->napi, store->wrapper, &wrapper) != napi_ok)
        return NULL;
    return wrapper;
}

static void store_unlink(struct store *store)
{
    struct env *env = store->env;

    if (store->prev)
        store->prev->next = store->next;
    else
        env->stores = store->next;
    if (store->next)
        store->next->prev = store->prev;
    store->next = store->prev = NULL;
}

/* No more requests to JavaScript. True for the first who closes. */
static bool store_begin_close(struct store *store)
{
    if (atomic_exchange(&store->closed, true))
        return false;
    if (store->is_backend)
        backend_fail_all(store);
    return true;
}

/* Close the stores that are linked by `next` from here on. */
static void *close_list(void *arg)
{
    struct store *store = arg;

    while (store) {
        struct store *next = store->next;

        verrou_store_close(store->native);
        store_unref(store);
        store = next;
    }
    return NULL;
}

/* Without a thread for it, it is done here. */
static void close_apart(struct store *stores)
{
    pthread_t thread;

    if (stores->immediate && !stores->next)
        close_list(stores);
    else if (pthread_create(&thread, NULL, close_list, stores) == 0)
        pthread_detach(thread);
    else
        close_list(stores);
}

static void finalize_store(napi_env napi, void *data, void *hint)
{
    struct store *store = data;
    bool close = store_begin_close(store);

    (void)hint;
    napi_delete_reference(napi, store->wrapper);
    store->wrapper = NULL;
    if (close) {
        store_unlink(store);
        store_ref(store);
        close_apart(store);
    }
    store_unref(store);
}

void stores_close(struct env *env)
{
    struct store *closing = NULL;
    struct store *store;

    while ((store = env->stores)) {
        store_unlink(store);
        if (!store_begin_close(store))
            continue;
        store_ref(store);
        store->next = closing;
        closing = store;
    }
    if (closing)
        close_apart(closing);
}

/* ---- log records ---- */

struct log_message {
    struct message message;
    struct store *store;
    verrou_level level;
    int64_t value;
    char *texts[4]; /* event, key, owner, message; empty if there is none */
    char text[];
};

static void log_drop(struct message *message)
{
    struct log_message *log = (struct log_message *)message;

    store_unref(log->store);
    free(log);
}

static void log_call(struct env *env, const struct log_message *log, unsigned dropped)
{
    napi_value wrapper = store_wrapper(log->store), on_log = NULL, args[7], ignored = NULL;
    napi_valuetype type = napi_undefined;

    if (!wrapper || napi_get_named_property(env->napi, wrapper, "onLog", &on_log) != napi_ok ||
        napi_typeof(env->napi, on_log, &type) != napi_ok || type != napi_function)
        return;
    napi_create_int32(env->napi, (int32_t)log->level, &args[0]);
    for (size_t i = 0; i < COUNT(log->texts); i++)
        args[i + 1] = value_text(env->napi, log->texts[i]);
    napi_create_int64(env->napi, log->value, &args[5]);
    napi_create_uint32(env->napi, dropped, &args[6]);
    napi_call_function(env->napi, wrapper, on_log, COUNT(args), args, &ignored);
}

static void log_deliver(struct env *env, struct message *message)
{
    struct log_message *log = (struct log_message *)message;
    napi_value ignored = NULL;
    unsigned dropped;
    bool pending = false;

    pthread_mutex_lock(&env->mutex);
    env->logs--;
    dropped = env->logs_dropped;
    env->logs_dropped = 0;
    pthread_mutex_unlock(&env->mutex);
    log_call(env, log, dropped);
    /* A logger that throws must not break a lock. */
    napi_is_exception_pending(env->napi, &pending);
    if (pending)
        napi_get_and_clear_last_exception(env->napi, &ignored);
    log_drop(message);
}

/* verrou_log_fn: any thread. */
static void on_log(void *user, const verrou_log_record *record)
{
    const char *from[4] = {record->event, record->key, record->owner, record->message};
    struct store *store = user;
    struct env *env = store->env;
    struct log_message *log;
    size_t size = 0;
    char *at;

    for (size_t i = 0; i < COUNT(from); i++)
        size += (from[i] ? strlen(from[i]) : 0) + 1;
    pthread_mutex_lock(&env->mutex);
    log = env->logs < 1000 ? calloc(1, sizeof(*log) + size) : NULL;
    if (log)
        env->logs++;
    else
        env->logs_dropped++;
    pthread_mutex_unlock(&env->mutex);
    if (!log)
        return;
    at = log->text;
    for (size_t i = 0; i < COUNT(from); i++) {
        log->texts[i] = at;
        at += snprintf(at, size, "%s", from[i] ? from[i] : "") + 1;
    }
    log->message.deliver = log_deliver;
    log->message.drop = log_drop;
    log->store = store;
    log->level = record->level;
    log->value = record->value;
    store_ref(store);
    if (!loop_post(env, &log->message))
        log_drop(&log->message);
}

/* ---- opening ---- */

static verrou_status store_open(struct store *store, const char *url, verrou_store_options *options,
                                verrou_error *error)
{
    options->log = on_log;
    options->log_user = store;
    if (store->is_backend)
        return backend_open(store, url, options, error);
    return verrou_store_open(url, options, &store->native, error);
}

static struct store *store_make(napi_env napi, bool is_backend, uint32_t caps, const char *url,
                                verrou_store_options *options)
{
    struct env *env = env_of(napi);
    struct store *store = calloc(1, sizeof(*store));
    verrou_error error = VERROU_ERROR_INIT;
    verrou_status status = VERROU_ENOMEM;

    if (store) {
        store->env = env;
        store->is_backend = is_backend;
        store->caps = caps;
        atomic_init(&store->refs, 1);
        status = store_open(store, url, options, &error);
    }
    if (status != VERROU_OK) {
        free(store);
        throw_status(napi, status, &error);
        return NULL;
    }
    atomic_fetch_add(&env->refs, 1);
    store->immediate = (verrou_store_caps(store->native) & VERROU_CAP_IMMEDIATE) != 0;
    store->next = env->stores;
    if (env->stores)
        env->stores->prev = store;
    env->stores = store;
    return store;
}

/* new Store(isBackend, address or settings, name, log level, longest key, capabilities of a backend) */
static napi_value store_new(napi_env napi, napi_callback_info info)
{
    verrou_store_options options = VERROU_STORE_OPTIONS_INIT;
    napi_value self = NULL, args[6];
    size_t argc = COUNT(args);
    struct store *store = NULL;
    char *url = NULL, *name = NULL;
    int64_t level = 0, max_key = 0, caps = 0;
    bool is_backend = false;

    if (!napi_ok_or_throw(napi, napi_get_cb_info(napi, info, &argc, args, &self, NULL)) ||
        !arg_bool(napi, args[0], &is_backend) || !arg_text(napi, args[1], "address", &url) ||
        !arg_text(napi, args[2], "store name", &name) || !arg_ms(napi, args[3], &level) ||
        !arg_ms(napi, args[4], &max_key) || !arg_ms(napi, args[5], &caps))
        goto done;
    options.name = name;
    options.log_level = (verrou_level)level;
    options.max_key = max_key > 0 ? (size_t)max_key : 0;
    store = store_make(napi, is_backend, caps > 0 ? (uint32_t)caps : 0, url ? url : "", &options);
    if (!store)
        goto done;
    if (napi_wrap(napi, self, store, finalize_store, NULL, &store->wrapper) != napi_ok) {
        store_begin_close(store);
        store_unlink(store);
        close_apart(store);
        napi_ok_or_throw(napi, napi_generic_failure);
        self = NULL;
    }
done:
    free(url);
    free(name);
    return store ? self : NULL;
}

struct store *store_arg(napi_env napi, napi_value value)
{
    void *store = NULL;

    if (napi_unwrap(napi, value, &store) == napi_ok && store)
        return store;
    napi_throw_type_error(napi, NULL, "not a store");
    return NULL;
}

/* The store that a method was called on, and its first argument. */
static struct store *store_this(napi_env napi, napi_callback_info info, napi_value *ret_arg)
{
    napi_value self = NULL;
    size_t argc = 1;

    if (!napi_ok_or_throw(napi, napi_get_cb_info(napi, info, &argc, ret_arg, &self, NULL)))
        return NULL;
    return store_arg(napi, self);
}

static bool throw_if_closed(napi_env napi, struct store *store)
{
    if (!atomic_load(&store->closed))
        return false;
    throw_status(napi, VERROU_ECLOSED, NULL);
    return true;
}

/* ---- what is known of it ---- */

static napi_value store_caps(napi_env napi, napi_callback_info info)
{
    napi_value arg = NULL, value = NULL;
    struct store *store = store_this(napi, info, &arg);

    if (!store || throw_if_closed(napi, store))
        return NULL;
    napi_create_uint32(napi, verrou_store_caps(store->native), &value);
    return value;
}

static napi_value store_address(napi_env napi, napi_callback_info info)
{
    napi_value arg = NULL;
    struct store *store = store_this(napi, info, &arg);

    if (!store || throw_if_closed(napi, store))
        return NULL;
    return value_text(napi, verrou_store_address(store->native));
}

static napi_value store_set_log_level(napi_env napi, napi_callback_info info)
{
    napi_value arg = NULL;
    struct store *store = store_this(napi, info, &arg);
    int64_t level = 0;

    if (store && !atomic_load(&store->closed) && arg_ms(napi, arg, &level))
        verrou_store_set_log_level(store->native, (verrou_level)level);
    return NULL;
}

/* ---- calls ---- */

typedef verrou_status (*key_call_fn)(verrou_store *store, const char *key, const verrou_call_options *options,
                                     verrou_queue *queue, verrou_done_fn done, void *user, verrou_error *err);

static napi_value key_call(napi_env napi, napi_callback_info info, key_call_fn submit, call_result_fn finish)
{
    napi_value arg = NULL, promise = NULL;
    struct store *store = store_this(napi, info, &arg);
    verrou_error error = VERROU_ERROR_INIT;
    verrou_status status;
    struct call *call;
    char *key = NULL;

    if (!store || throw_if_closed(napi, store) || !arg_text(napi, arg, "key", &key))
        return NULL;
    call = call_new(store->env, store, finish, true, &promise);
    if (!call)
        goto done;
    loop_enter(store->env);
    status = submit(store->native, key, NULL, store->env->queue, call_done, call, &error);
    if (status != VERROU_OK) {
        call_refuse(call);
        throw_status(napi, status, &error);
        promise = NULL;
    }
    loop_leave(store->env);
done:
    free(key);
    return promise;
}

static napi_value finish_nothing(struct env *env, const verrou_result *result)
{
    return result->status == VERROU_OK ? value_undefined(env->napi) : NULL;
}

static napi_value finish_info(struct env *env, const verrou_result *result)
{
    return result->status == VERROU_OK ? value_info(env->napi, result->info) : NULL;
}

static napi_value finish_list(struct env *env, const verrou_result *result)
{
    napi_value list = NULL;

    if (result->status != VERROU_OK || napi_create_array_with_length(env->napi, result->count, &list) != napi_ok)
        return NULL;
    for (size_t i = 0; i < result->count; i++) {
        napi_value info = value_info(env->napi, &result->locks[i].info);

        if (!info || !set_property(env->napi, info, "key", value_text(env->napi, result->locks[i].key)) ||
            napi_set_element(env->napi, list, (uint32_t)i, info) != napi_ok)
            return NULL;
    }
    return list;
}

static napi_value store_inspect(napi_env napi, napi_callback_info info)
{
    return key_call(napi, info, verrou_store_inspect_async, finish_info);
}

static napi_value store_force_release(napi_env napi, napi_callback_info info)
{
    return key_call(napi, info, verrou_store_force_release_async, finish_nothing);
}

static napi_value store_list(napi_env napi, napi_callback_info info)
{
    return key_call(napi, info, verrou_store_list_async, finish_list);
}

/* ---- close() ---- */

struct closing {
    struct store *store;
    napi_deferred deferred;
    napi_async_work work;
};

static void closing_execute(napi_env napi, void *data)
{
    struct closing *closing = data;

    (void)napi;
    verrou_store_close(closing->store->native);
}

static void closing_complete(napi_env napi, napi_status status, void *data)
{
    struct closing *closing = data;
    napi_handle_scope scope = NULL;

    (void)status;
    napi_open_handle_scope(napi, &scope);
    napi_resolve_deferred(napi, closing->deferred, value_undefined(napi));
    napi_close_handle_scope(napi, scope);
    napi_delete_async_work(napi, closing->work);
    store_unpin(closing->store);
    store_unref(closing->store);
    free(closing);
}

static napi_value store_close(napi_env napi, napi_callback_info info)
{
    napi_value arg = NULL, promise = NULL;
    struct store *store = store_this(napi, info, &arg);
    struct closing *closing;

    if (!store || atomic_load(&store->closed))
        return NULL;
    closing = calloc(1, sizeof(*closing));
    if (!closing) {
        throw_status(napi, VERROU_ENOMEM, NULL);
        return NULL;
    }
    closing->store = store;
    if (!napi_ok_or_throw(napi, napi_create_promise(napi, &closing->deferred, &promise)) ||
        !napi_ok_or_throw(napi, napi_create_async_work(napi, NULL, value_text(napi, "verrou close"), closing_execute,
                                                       closing_complete, closing, &closing->work))) {
        free(closing);
        return NULL;
    }
    loop_enter(store->env);
    store_begin_close(store);
    loop_leave(store->env);
    store_unlink(store);
    store_ref(store);
    store_pin(store);
    napi_queue_async_work(napi, closing->work);
    return promise;
}

/* abandon(): close it on a thread of its own, for which nobody waits. */
static napi_value store_abandon(napi_env napi, napi_callback_info info)
{
    napi_value arg = NULL;
    struct store *store = store_this(napi, info, &arg);

    if (!store || atomic_load(&store->closed))
        return NULL;
    loop_enter(store->env);
    store_begin_close(store);
    loop_leave(store->env);
    store_unlink(store);
    store_ref(store);
    close_apart(store);
    return NULL;
}

/* ---- the class ---- */

napi_status store_define(napi_env napi, napi_value exports)
{
    const napi_property_descriptor methods[] = {
        {"caps", NULL, store_caps, NULL, NULL, NULL, napi_default_method, NULL},
        {"address", NULL, store_address, NULL, NULL, NULL, napi_default_method, NULL},
        {"setLogLevel", NULL, store_set_log_level, NULL, NULL, NULL, napi_default_method, NULL},
        {"inspect", NULL, store_inspect, NULL, NULL, NULL, napi_default_method, NULL},
        {"forceRelease", NULL, store_force_release, NULL, NULL, NULL, napi_default_method, NULL},
        {"list", NULL, store_list, NULL, NULL, NULL, napi_default_method, NULL},
        {"abandon", NULL, store_abandon, NULL, NULL, NULL, napi_default_method, NULL},
        {"close", NULL, store_close, NULL, NULL, NULL, napi_default_method, NULL},
        {"answer", NULL, backend_answer, NULL, NULL, NULL, napi_default_method, NULL},
    };
    napi_value constructor = NULL;
    napi_status status =
        napi_define_class(napi, "Store", NAPI_AUTO_LENGTH, store_new, NULL, COUNT(methods), methods, &constructor);

    return status == napi_ok ? napi_set_named_property(napi, exports, "Store", constructor) : status;
}
