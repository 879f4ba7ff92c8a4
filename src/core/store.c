/*
 * store.c - an opened store: an address, a driver, and the engine that serves it; and the calls that concern a store rather than one of
 * its locks.
 *
 * After a fork the child finds the parent's engine: a mutex that may be locked for ever, threads that do not exist, connections that are not
 * its own. It is abandoned, never closed, and a new one is made by the first call that needs one.
 */
#include "core/store.h"

#include <pthread.h>
#include <string.h>

#include "core/host.h"
#include "core/registry.h"
#include "core/sink.h"

#define DEFAULT_LIMIT_MS 5000
#define MAX_LANES 64

struct verrou_store {
    atomic_uint refs;
    _Atomic uint64_t owner; /* see verrou__fork_settle() */
    pthread_mutex_t mutex;  /* making the engine anew */
    _Atomic(verrou__engine *) engine;
    atomic_bool closed;
    const verrou_driver *driver;
    const verrou_driver *inner; /* has seven calls, which `driver` adapts; or NULL */
    verrou_driver adapted;
    void *custom_state; /* of drivers without create() */
    verrou_url *url;
    verrou__engine_options options;
    char *name;
    char *address;
    const char *prefix;
    size_t prefix_len;
    size_t max_key;
};

static atomic_bool test_manual;

void verrou__set_test_manual(bool manual)
{
    atomic_store(&test_manual, manual);
}

static const char *const common_settings[] = {"prefix", "timeout", "lanes", NULL};
static const char *const table_settings[] = {"prefix", "timeout", "lanes", "table", "autocreate", NULL};

/* ---- opening ---- */

static verrou_status read_count(const char *text, uint32_t max, uint32_t *ret, verrou_error *err)
{
    uint32_t value = 0;

    for (const char *at = text; *at; at++) {
        if (*at < '0' || *at > '9' || value > max)
            value = max + 1;
        else
            value = value * 10 + (uint32_t)(*at - '0');
    }
    if (value < 1 || value > max)
        return verrou__fail(err, VERROU_ECONFIG, "setting \"lanes\": \"%s\" is no number from 1 to %u", text, max);
    *ret = value;
    return VERROU_OK;
}

static verrou_status read_common_settings(verrou_store *store, verrou_error *err)
{
    const char *prefix = verrou__url_setting(store->url, "prefix");
    const char *timeout = verrou__url_setting(store->url, "timeout");
    const char *lanes = verrou__url_setting(store->url, "lanes");
    verrou_error inner = VERROU_ERROR_INIT;

    store->prefix = prefix ? prefix : "";
    store->prefix_len = strlen(store->prefix);
    if (prefix && prefix[0] &&
        verrou__check_text("setting \"prefix\"", prefix, VERROU_MAX_KEY - 1, &inner) != VERROU_OK)
        return verrou__fail(err, VERROU_ECONFIG, "%s", inner.message);
    store->options.prefix_len = store->prefix_len;
    store->options.limit_ms = DEFAULT_LIMIT_MS;
    if (timeout && verrou_duration_parse(timeout, &store->options.limit_ms, &inner) != VERROU_OK)
        return verrou__fail(err, VERROU_ECONFIG, "setting \"timeout\": %s", inner.message);
    store->options.lanes = store->driver->default_lanes;
    if (lanes) {
        uint32_t max = store->driver->max_lanes < MAX_LANES ? store->driver->max_lanes : MAX_LANES;

        if (max == 0)
            return verrou__fail(err, VERROU_ECONFIG, "setting \"lanes\": this store has no connections");
        if (max == 1 && strcmp(lanes, "1") != 0)
            return verrou__fail(err, VERROU_ECONFIG, "setting \"lanes\": \"%s\": this store has one connection", lanes);
        return read_count(lanes, max, &store->options.lanes, err);
    }
    return VERROU_OK;
}

/* A new engine with a new driver state. */
static verrou_status make_engine(verrou_store *store, verrou__engine **ret_engine, verrou_error *err)
{
    verrou__engine *engine = NULL;
    void *state = store->custom_state;
    verrou_status status = verrou__engine_new(&store->options, &engine, err);

    if (status != VERROU_OK)
        return status;
    if (store->inner)
        status = verrou__database_create(store->inner, engine, store->url, &state, err);
    else if (store->driver->create)
        status = store->driver->create(&verrou__host, engine, store->url, &state, err);
    if (status != VERROU_OK) {
        verrou__engine_free(engine);
        return status;
    }
    verrou__engine_start(engine, state);
    *ret_engine = engine;
    return VERROU_OK;
}

static void store_free(verrou_store *store)
{
    if (!store)
        return;
    pthread_mutex_destroy(&store->mutex);
    verrou__free(store->url);
    verrou__free(store->name);
    verrou__free(store->address);
    verrou__free(store);
}

static verrou_status open_parsed(verrou_store *store, const verrou_store_options *options, verrou_error *err)
{
    verrou__engine *engine = NULL;
    verrou_status status = verrou__url_check_settings(store->url, store->inner ? table_settings : common_settings,
                                                      store->driver->settings, err);

    if (status != VERROU_OK)
        return status;
    if (options->connect && !(store->driver->flags & VERROU_DRIVER_CONNECTS))
        return verrou__fail(err, VERROU_ECONFIG, "connect: a store of the scheme \"%s\" has no use for it",
                            store->url->scheme);
    store->max_key = options->max_key ? options->max_key : VERROU_MAX_KEY;
    if (store->max_key > VERROU_MAX_KEY && store->max_key > store->driver->max_key)
        return verrou__fail(err, VERROU_ECONFIG, "max_key: a store of the scheme \"%s\" takes keys of at most %u bytes",
                            store->url->scheme,
                            (unsigned)(store->driver->max_key ? store->driver->max_key : VERROU_MAX_KEY));
    store->url->connect = options->connect;
    store->url->connect_user = options->connect_user;
    status = read_common_settings(store, err);
    if (status != VERROU_OK)
        return status;
    store->name = verrou__strdup(options->name ? options->name : "");
    if (!store->name)
        return verrou__nomem(err);
    store->options.driver = store->driver;
    store->options.host = &verrou__host;
    store->options.name = store->name[0] ? store->name : store->url->scheme;
    store->options.log = options->log;
    store->options.log_user = options->log_user;
    store->options.log_level = options->log_level ? options->log_level : VERROU_INFO;
    store->options.manual = atomic_load(&test_manual);
    status = make_engine(store, &engine, err);
    if (status == VERROU_OK)
        atomic_store(&store->engine, engine);
    return status;
}

verrou_status verrou__store_open_driver(const verrou_driver *driver, const char *url,
                                        const verrou_store_options *options, void *state, verrou_store **ret_store,
                                        verrou_error *err)
{
    verrou_store_options read = VERROU_STORE_OPTIONS_INIT;
    verrou_store *store = NULL;
    verrou_status status;

    verrou__options_read(&read, sizeof(read), options);
    store = verrou__calloc(sizeof(*store));
    if (!store)
        return verrou__nomem(err);
    atomic_init(&store->refs, 1);
    verrou__fork_owner(&store->owner);
    pthread_mutex_init(&store->mutex, NULL);
    store->driver = driver;
    if (driver->database) {
        store->inner = driver;
        verrou__database_adapt(driver, &store->adapted);
        store->driver = &store->adapted;
    }
    store->custom_state = state;
    if (driver->flags & VERROU_DRIVER_NETWORK)
        status = verrou__url_parse_network(url, &store->url, err);
    else
        status = verrou__url_parse(url, &store->url, err);
    if (status == VERROU_OK)
        status = verrou__url_redact(url, &store->address, err);
    if (status == VERROU_OK)
        status = open_parsed(store, &read, err);
    if (status != VERROU_OK) {
        store_free(store);
        return status;
    }
    *ret_store = store;
    return VERROU_OK;
}

verrou_status verrou_store_open(const char *url, const verrou_store_options *options, verrou_store **ret_store,
                                verrou_error *err)
{
    const verrou_driver *driver = NULL;
    verrou_url *parsed = NULL;
    verrou_status status;

    if (!ret_store)
        return verrou__fail(err, VERROU_EINVAL, "ret_store is NULL");
    status = verrou__url_parse(url, &parsed, err);
    if (status != VERROU_OK)
        return status;
    status = verrou__driver_find(parsed->scheme, &driver, err);
    verrou__free(parsed);
    if (status != VERROU_OK)
        return status;
    return verrou__store_open_driver(driver, url, options, NULL, ret_store, err);
}

/* ---- keeping and closing ---- */

void verrou__store_ref(verrou_store *store)
{
    atomic_fetch_add(&store->refs, 1);
}

void verrou__store_unref(verrou_store *store)
{
    if (atomic_fetch_sub(&store->refs, 1) != 1)
        return;
    verrou__engine_free(verrou__store_engine_here(store));
    store_free(store);
}

/* The parent's engine is left where it is. */
static void mend_after_fork(void *object)
{
    verrou_store *store = object;

    pthread_mutex_init(&store->mutex, NULL);
    atomic_store(&store->engine, NULL);
}

verrou__engine *verrou__store_engine_here(verrou_store *store)
{
    verrou__fork_settle(&store->owner, mend_after_fork, store);
    return atomic_load_explicit(&store->engine, memory_order_acquire);
}

verrou_status verrou__store_engine(verrou_store *store, verrou__engine **ret_engine, verrou_error *err)
{
    verrou__engine *engine = verrou__store_engine_here(store);
    verrou_status status = VERROU_OK;

    if (atomic_load_explicit(&store->closed, memory_order_relaxed))
        return verrou__fail(err, VERROU_ECLOSED, "%s", verrou_status_text(VERROU_ECLOSED));
    if (!engine) {
        pthread_mutex_lock(&store->mutex);
        engine = atomic_load(&store->engine);
        if (!engine) {
            status = make_engine(store, &engine, err);
            if (status == VERROU_OK)
                atomic_store(&store->engine, engine);
        }
        pthread_mutex_unlock(&store->mutex);
    }
    *ret_engine = engine;
    return status;
}

void verrou_store_close(verrou_store *store)
{
    verrou__engine *engine;

    if (!store)
        return;
    engine = verrou__store_engine_here(store);
    atomic_store(&store->closed, true);
    if (engine)
        verrou__engine_close(engine);
    verrou__store_unref(store);
}

uint32_t verrou_store_caps(verrou_store *store)
{
    verrou__engine *engine = NULL;

    if (!store || verrou__store_engine(store, &engine, NULL) != VERROU_OK)
        return 0;
    return verrou__engine_caps(engine);
}

void verrou_store_set_log_level(verrou_store *store, verrou_level level)
{
    verrou__engine *engine = NULL;

    if (!store || verrou__store_engine(store, &engine, NULL) != VERROU_OK)
        return;
    pthread_mutex_lock(&store->mutex);
    store->options.log_level = level; /* for an engine made anew after a fork */
    pthread_mutex_unlock(&store->mutex);
    verrou__engine_set_log_level(engine, level);
}

const char *verrou_store_name(const verrou_store *store)
{
    return store ? store->name : "";
}

const char *verrou_store_address(const verrou_store *store)
{
    return store ? store->address : "";
}

const char *verrou__store_prefix(const verrou_store *store, size_t *ret_len)
{
    *ret_len = store->prefix_len;
    return store->prefix;
}

int64_t verrou__store_limit_ms(const verrou_store *store)
{
    return store->options.limit_ms;
}

/* ---- calls about keys ---- */

/* The clock is never below 0: what is, is past, and may not overflow what is reckoned with it. */
int64_t verrou__deadline(int64_t deadline_ms)
{
    if (deadline_ms == VERROU_DEFAULT)
        return VERROU_FOREVER;
    return deadline_ms < 0 ? 0 : deadline_ms;
}

verrou_status verrou__call_options(verrou_store *store, const verrou_call_options *options, verrou_call_options *ret,
                                   verrou_error *err)
{
    verrou_call_options read = VERROU_CALL_OPTIONS_INIT;

    verrou__options_read(&read, sizeof(read), options);
    if (read.timeout_ms == VERROU_DEFAULT)
        read.timeout_ms = store->options.limit_ms;
    if (read.timeout_ms != VERROU_FOREVER && (read.timeout_ms < 1 || read.timeout_ms > VERROU_MAX_MS))
        return verrou__fail(err, VERROU_EINVAL, "timeout_ms: %lld is out of range", (long long)read.timeout_ms);
    read.deadline_ms = verrou__deadline(read.deadline_ms);
    *ret = read;
    return VERROU_OK;
}

void verrou__call_set_times(verrou__call *call, const verrou_call_options *options)
{
    call->deadline_ms = options->deadline_ms;
    if (options->timeout_ms != VERROU_FOREVER && call->start_ms + options->timeout_ms < call->deadline_ms)
        call->deadline_ms = call->start_ms + options->timeout_ms;
    if (call->kind == VERROU__RELEASE || call->kind == VERROU__EXTEND)
        call->want_fence = options->fence;
}

verrou_status verrou__store_check_key(const verrou_store *store, const char *key, size_t *ret_len, verrou_error *err)
{
    verrou_status status = verrou__check_text("key", key, store->max_key, err);
    size_t len;

    if (status != VERROU_OK)
        return status;
    len = strlen(key);
    if (store->prefix_len + len > store->max_key)
        return verrou__fail(err, VERROU_EINVAL, "key: with the prefix it has %zu bytes, and %zu are allowed",
                            store->prefix_len + len, store->max_key);
    *ret_len = store->prefix_len + len;
    return VERROU_OK;
}

size_t verrou__store_max_key(const verrou_store *store)
{
    return store->max_key;
}

void verrou__store_write_key(const verrou_store *store, const char *key, char *out)
{
    memcpy(out, store->prefix, store->prefix_len);
    memcpy(out + store->prefix_len, key, strlen(key) + 1);
}

static void unref_subject_store(verrou__call *call)
{
    verrou__store_unref(call->subject);
}

verrou_status verrou__store_key_call(verrou_store *store, verrou__call_kind kind, const char *full_key, size_t len,
                                     const verrou_call_options *options, verrou__call **ret_call, verrou_error *err)
{
    verrou__engine *engine = NULL;
    verrou_call_options read = VERROU_CALL_OPTIONS_INIT;
    verrou__call *call;
    verrou_status status = verrou__call_options(store, options, &read, err);

    if (status == VERROU_OK)
        status = verrou__store_engine(store, &engine, err);
    if (status != VERROU_OK)
        return status;
    call = verrou__call_new(engine, kind, len + 1);
    if (!call)
        return verrou__nomem(err);
    memcpy(call->text, full_key, len);
    call->text[len] = '\0';
    call->op.key = call->text;
    call->op.key_len = (uint16_t)len;
    verrou__call_set_times(call, &read);
    verrou__store_ref(store);
    call->subject = store;
    call->done_with = unref_subject_store;
    *ret_call = call;
    return VERROU_OK;
}

static verrou_status key_call(verrou_store *store, verrou__call_kind kind, const char *key,
                              const verrou_call_options *options, verrou__call **ret_call, verrou_error *err)
{
    char short_key[VERROU_MAX_KEY + 1];
    char *full_key = short_key;
    size_t len = 0;
    verrou_status status;

    if (!store)
        return verrou__fail(err, VERROU_EINVAL, "store is NULL");
    status = verrou__store_check_key(store, key, &len, err);
    if (status != VERROU_OK)
        return status;
    if (len > VERROU_MAX_KEY && !(full_key = verrou__malloc(len + 1)))
        return verrou__nomem(err);
    verrou__store_write_key(store, key, full_key);
    status = verrou__store_key_call(store, kind, full_key, len, options, ret_call, err);
    if (full_key != short_key)
        verrou__free(full_key);
    return status;
}

static verrou_status check_async(const verrou_queue *queue, verrou_done_fn done, verrou_error *err)
{
    if (!queue || !done)
        return verrou__fail(err, VERROU_EINVAL, "%s is NULL", queue ? "done" : "queue");
    return VERROU_OK;
}

verrou_status verrou_store_inspect(verrou_store *store, const char *key, const verrou_call_options *options,
                                   verrou_info *ret_info, verrou_error *err)
{
    verrou__call *call = NULL;
    verrou_status status = key_call(store, VERROU__INSPECT, key, options, &call, err);

    return status == VERROU_OK ? verrou__call_run(call, ret_info, err) : status;
}

verrou_status verrou_store_inspect_async(verrou_store *store, const char *key, const verrou_call_options *options,
                                         verrou_queue *queue, verrou_done_fn done, void *user, verrou_error *err)
{
    verrou__call *call = NULL;
    verrou_status status = check_async(queue, done, err);

    if (status == VERROU_OK)
        status = key_call(store, VERROU__INSPECT, key, options, &call, err);
    return status == VERROU_OK ? verrou__call_submit(call, queue, done, user, err) : status;
}

verrou_status verrou_store_force_release(verrou_store *store, const char *key, const verrou_call_options *options,
                                         verrou_error *err)
{
    verrou__call *call = NULL;
    verrou_status status = key_call(store, VERROU__FORCE, key, options, &call, err);

    return status == VERROU_OK ? verrou__call_run(call, NULL, err) : status;
}

verrou_status verrou_store_force_release_async(verrou_store *store, const char *key, const verrou_call_options *options,
                                               verrou_queue *queue, verrou_done_fn done, void *user, verrou_error *err)
{
    verrou__call *call = NULL;
    verrou_status status = check_async(queue, done, err);

    if (status == VERROU_OK)
        status = key_call(store, VERROU__FORCE, key, options, &call, err);
    return status == VERROU_OK ? verrou__call_submit(call, queue, done, user, err) : status;
}

/* ---- calls about the whole store ---- */

/* A call with a sink. `prefix` is put behind the store's. */
static verrou_status sink_call(verrou_store *store, verrou__call_kind kind, const char *prefix,
                               const verrou_call_options *options, verrou__call **ret_call, verrou_error *err)
{
    verrou__call *call = NULL;
    size_t len = prefix ? strlen(prefix) : 0;
    char *full;
    verrou_status status;

    if (!store)
        return verrou__fail(err, VERROU_EINVAL, "store is NULL");
    if (store->prefix_len + len > VERROU_MAX_KEY)
        return verrou__fail(err, VERROU_EINVAL, "prefix: no key is that long");
    full = verrou__format("%s%s", store->prefix, prefix ? prefix : "");
    if (!full)
        return verrou__nomem(err);
    status = verrou__store_key_call(store, kind, full, store->prefix_len + len, options, &call, err);
    verrou__free(full);
    if (status != VERROU_OK)
        return status;
    call->sink = verrou__sink_new(store->prefix_len);
    if (!call->sink) {
        verrou__call_free(call);
        return verrou__nomem(err);
    }
    *ret_call = call;
    return VERROU_OK;
}

static verrou_status list_call(verrou_store *store, const char *prefix, const verrou_call_options *options,
                               verrou__call **ret_call, verrou_error *err)
{
    if (store && !store->driver->list)
        return verrou__fail(err, VERROU_ENOTSUP, "list: %s", verrou_status_text(VERROU_ENOTSUP));
    return sink_call(store, VERROU__LIST, prefix, options, ret_call, err);
}

verrou_status verrou_store_list(verrou_store *store, const char *prefix, const verrou_call_options *options,
                                verrou_list_fn each, void *user, verrou_error *err)
{
    struct verrou_sink *sink = NULL;
    const verrou_listed *locks;
    verrou__call *call = NULL;
    verrou_status status;
    size_t count;

    if (!each)
        return verrou__fail(err, VERROU_EINVAL, "each is NULL");
    status = list_call(store, prefix, options, &call, err);
    if (status == VERROU_OK)
        status = verrou__call_run_sink(call, &sink, err);
    if (status != VERROU_OK)
        return status;
    locks = verrou__sink_locks(sink, &count);
    for (size_t i = 0; i < count; i++)
        if (each(user, locks[i].key, &locks[i].info) != 0)
            break;
    verrou__sink_free(sink);
    return VERROU_OK;
}

verrou_status verrou_store_list_async(verrou_store *store, const char *prefix, const verrou_call_options *options,
                                      verrou_queue *queue, verrou_done_fn done, void *user, verrou_error *err)
{
    verrou__call *call = NULL;
    verrou_status status = check_async(queue, done, err);

    if (status == VERROU_OK)
        status = list_call(store, prefix, options, &call, err);
    return status == VERROU_OK ? verrou__call_submit(call, queue, done, user, err) : status;
}

verrou_status verrou_store_check(verrou_store *store, const verrou_call_options *options, verrou_check_fn each,
                                 void *user, verrou_error *err)
{
    struct verrou_sink *sink = NULL;
    verrou__call *call = NULL;
    verrou_status status;

    if (!each)
        return verrou__fail(err, VERROU_EINVAL, "each is NULL");
    status = sink_call(store, VERROU__CHECK, NULL, options, &call, err);
    if (status == VERROU_OK)
        status = verrou__call_run_sink(call, &sink, err);
    if (status != VERROU_OK)
        return status;
    if (!verrou__sink_has_finding(sink, "trial")) /* some drivers do it themselves, to see more */
        status = verrou__trial(store, options, sink) ? VERROU_OK : verrou__nomem(err);
    if (status == VERROU_OK)
        verrou__sink_each_finding(sink, each, user);
    verrou__sink_free(sink);
    return status;
}

static verrou_status schema(verrou_store *store, const verrou_call_options *options, bool apply,
                            struct verrou_sink **ret_sink, verrou_error *err)
{
    verrou__call *call = NULL;
    verrou_status status;

    if (store && !store->driver->schema)
        return verrou__fail(err, VERROU_ENOTSUP, "schema: %s", verrou_status_text(VERROU_ENOTSUP));
    status = sink_call(store, VERROU__SCHEMA, NULL, options, &call, err);
    if (status != VERROU_OK)
        return status;
    call->apply = apply;
    return verrou__call_run_sink(call, ret_sink, err);
}

verrou_status verrou_store_schema(verrou_store *store, const verrou_call_options *options, char **ret_text,
                                  verrou_error *err)
{
    struct verrou_sink *sink = NULL;
    verrou_status status;
    char *text;

    if (!ret_text)
        return verrou__fail(err, VERROU_EINVAL, "ret_text is NULL");
    status = schema(store, options, false, &sink, err);
    if (status != VERROU_OK)
        return status;
    text = verrou__sink_take_text(sink);
    verrou__sink_free(sink);
    if (!text)
        return verrou__nomem(err);
    *ret_text = text;
    return VERROU_OK;
}

verrou_status verrou_store_schema_apply(verrou_store *store, const verrou_call_options *options, verrou_error *err)
{
    struct verrou_sink *sink = NULL;
    verrou_status status = schema(store, options, true, &sink, err);

    if (status == VERROU_OK)
        verrou__sink_free(sink);
    return status;
}
