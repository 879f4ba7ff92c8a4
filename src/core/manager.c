/*
 * manager.c - named stores that are opened when first used, each of them once.
 *
 * Opening runs code of store authors, so it happens outside the mutex: the first caller marks the entry OPENING, the
 * others wait for its result. A fork in the middle of that leaves the child with a locked mutex and an entry that
 * nobody is opening any more; the first call there puts both right (see settle_fork()). Once an entry is open, using it
 * takes no mutex.
 */
#include "core/core.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

typedef struct entry {
    char *name;
    char *url; /* NULL: `store` is the caller's */
    verrou_store *store;
    verrou_connect_fn connect;
    void *connect_user;
    _Atomic(verrou_factory *) factory; /* set once, when the store is open */
    bool opening;
} entry;

struct verrou_manager {
    pthread_mutex_t mutex;
    pthread_cond_t opened;  /* some entry is not `opening` any more */
    _Atomic uint64_t owner; /* which process mutex and condition belong to: see settle_fork() */
    verrou_factory_options defaults;
    verrou_log_fn log;
    void *log_user;
    verrou_level log_level;
    entry *main; /* the default */
    char *label;
    size_t count;
    entry entries[];
};

static entry *find(verrou_manager *manager, const char *name)
{
    for (size_t i = 0; i < manager->count; i++)
        if (strcmp(manager->entries[i].name, name) == 0)
            return &manager->entries[i];
    return NULL;
}

/* "there is no store "x"; there are: a, b". Cut short by the size of a message if need be. */
static verrou_status fail_unknown(const verrou_manager *manager, const char *what, const char *name, verrou_error *err)
{
    char names[256];
    size_t len = 0;

    for (size_t i = 0; i < manager->count && len < sizeof(names) - VERROU__MAX_STORE_NAME - 3; i++) {
        size_t part = strlen(manager->entries[i].name);

        if (i > 0) {
            memcpy(names + len, ", ", 2);
            len += 2;
        }
        memcpy(names + len, manager->entries[i].name, part);
        len += part;
    }
    names[len] = '\0';
    return verrou__fail(err, VERROU_ECONFIG, "%s: there is no store \"%.64s\"; there are: %s", what, name, names);
}

/* After a fork: a new mutex and condition, and no openers, since they stayed behind in the parent. */
static void mend_after_fork(void *object)
{
    verrou_manager *manager = object;

    pthread_mutex_init(&manager->mutex, NULL);
    pthread_cond_init(&manager->opened, NULL);
    for (size_t i = 0; i < manager->count; i++)
        manager->entries[i].opening = false;
}

static void settle_fork(verrou_manager *manager)
{
    verrou__fork_settle(&manager->owner, mend_after_fork, manager);
}

/* ---- making ---- */

/* Check one named store and add it to the manager, which has room for it. */
static verrou_status add_entry(verrou_manager *manager, const verrou_named_store *named, verrou_error *err)
{
    entry *added = &manager->entries[manager->count];
    verrou_error inner = VERROU_ERROR_INIT;
    verrou_url *url = NULL;
    verrou_status status;

    if (verrou__check_text("the name of a store", named->name, VERROU__MAX_STORE_NAME, &inner) != VERROU_OK)
        return verrou__fail(err, VERROU_ECONFIG, "%s", inner.message);
    if (find(manager, named->name) != NULL)
        return verrou__fail(err, VERROU_ECONFIG, "the store \"%s\" is given twice", named->name);
    if (named->url == NULL && named->store == NULL)
        return verrou__fail(err, VERROU_ECONFIG, "the store \"%s\" has neither an address nor a store", named->name);
    if (named->url != NULL && named->store != NULL)
        return verrou__fail(err, VERROU_ECONFIG, "the store \"%s\" has both an address and a store", named->name);
    if (named->store != NULL && named->connect != NULL)
        return verrou__fail(err, VERROU_ECONFIG, "the store \"%s\" is open already: connect comes too late",
                            named->name);
    if (named->url != NULL) {
        status = verrou__url_parse(named->url, &url, err);
        if (status != VERROU_OK) {
            verrou__error_prefix(err, "store \"%s\"", named->name);
            return status;
        }
        verrou__free(url);
        added->url = verrou__strdup(named->url);
    }

    added->store = named->store;
    added->connect = named->connect;
    added->connect_user = named->connect_user;
    added->name = verrou__strdup(named->name);
    manager->count++; /* from now on verrou_manager_free() knows it */
    if (added->name == NULL || (named->url != NULL && added->url == NULL))
        return verrou__nomem(err);
    return VERROU_OK;
}

/* One of the stores given in code: as long as the caller's compiler made them, which need not be as long as ours. */
static verrou_named_store named_at(const verrou_manager_options *options, size_t i)
{
    verrou_named_store named = {0};

    memcpy(&named, (const char *)options->stores + i * options->store_size,
           options->store_size < sizeof(named) ? options->store_size : sizeof(named));
    return named;
}

static verrou_status set_options(verrou_manager *manager, const verrou_manager_options *options, verrou_error *err)
{
    verrou_status status = verrou__factory_options_read(options->factory, &manager->defaults, err);

    if (status != VERROU_OK) {
        verrou__error_prefix(err, "defaults of the manager");
        return status;
    }
    manager->log = options->log;
    manager->log_user = options->log_user;
    manager->log_level = options->log_level;
    if (manager->defaults.label == NULL)
        return VERROU_OK;
    manager->label = verrou__strdup(manager->defaults.label);
    manager->defaults.label = manager->label;
    return manager->label == NULL ? verrou__nomem(err) : VERROU_OK;
}

/* Memory for that many stores, with nothing in it that verrou_manager_free() could not free. */
static verrou_manager *allocate(size_t count)
{
    verrou_manager *manager = NULL;

    if (count <= (SIZE_MAX - sizeof(*manager)) / sizeof(manager->entries[0]))
        manager = verrou__calloc(sizeof(*manager) + count * sizeof(manager->entries[0]));
    if (manager == NULL)
        return NULL;
    if (pthread_mutex_init(&manager->mutex, NULL) != 0)
        goto no_mutex;
    if (pthread_cond_init(&manager->opened, NULL) != 0)
        goto no_condition;
    verrou__fork_owner(&manager->owner);
    return manager;

no_condition:
    pthread_mutex_destroy(&manager->mutex);
no_mutex:
    verrou__free(manager);
    return NULL;
}

/* `options` is one of ours: complete, with the stores and the default to use. */
static verrou_status make(const verrou_manager_options *options, verrou_manager **ret_manager, verrou_error *err)
{
    verrou_manager *manager = NULL;
    verrou_status status;

    if (options->stores == NULL || options->count == 0)
        return verrou__fail(err, VERROU_ECONFIG, "stores: missing; a manager needs at least one");
    if (options->store_size < offsetof(verrou_named_store, connect))
        return verrou__fail(err, VERROU_ECONFIG, "store_size: %zu; VERROU_MANAGER_OPTIONS_INIT sets it",
                            options->store_size);
    if (options->default_store == NULL || options->default_store[0] == '\0')
        return verrou__fail(err, VERROU_ECONFIG,
                            "default: missing; name a store there or in the environment variable LOCK_STORE");
    manager = allocate(options->count);
    if (manager == NULL)
        return verrou__nomem(err);

    status = set_options(manager, options, err);
    for (size_t i = 0; status == VERROU_OK && i < options->count; i++) {
        verrou_named_store named = named_at(options, i);

        status = add_entry(manager, &named, err);
    }
    if (status != VERROU_OK)
        goto done;
    manager->main = find(manager, options->default_store);
    if (manager->main == NULL) {
        /* The variable's own text, not that of the code or the file: then it is the variable that has to be changed. */
        status = fail_unknown(manager, options->default_store == getenv("LOCK_STORE") ? "LOCK_STORE" : "default",
                              options->default_store, err);
        goto done;
    }

    *ret_manager = manager;
    manager = NULL;
done:
    verrou_manager_free(manager);
    return status;
}

/* The default from the environment, unless the code names one. Set but empty means not set. */
static const char *choose_default(const char *from_code, const char *from_file)
{
    const char *from_environment = getenv("LOCK_STORE");

    if (from_code != NULL)
        return from_code;
    return from_environment != NULL && from_environment[0] != '\0' ? from_environment : from_file;
}

verrou_status verrou_manager_new(const verrou_manager_options *options, verrou_manager **ret_manager, verrou_error *err)
{
    verrou_manager_options complete = VERROU_MANAGER_OPTIONS_INIT;

    if (ret_manager == NULL)
        return verrou__fail(err, VERROU_EINVAL, "manager: ret_manager is NULL");
    verrou__options_read(&complete, sizeof(complete), options);
    complete.default_store = choose_default(complete.default_store, NULL);
    return make(&complete, ret_manager, err);
}

verrou_status verrou_manager_load(const char *path, const verrou_manager_options *options, verrou_manager **ret_manager,
                                  verrou_error *err)
{
    verrou_manager_options complete = VERROU_MANAGER_OPTIONS_INIT;
    verrou_named_store *stores = NULL;
    verrou__config config = {NULL, 0, NULL};
    verrou_status status;

    if (path == NULL || ret_manager == NULL)
        return verrou__fail(err, VERROU_EINVAL, "manager: %s is NULL", path == NULL ? "path" : "ret_manager");
    verrou__options_read(&complete, sizeof(complete), options);
    status = verrou__config_load(path, &config, err);
    if (status != VERROU_OK)
        return status;

    stores = verrou__calloc(config.count * sizeof(*stores));
    if (stores == NULL) {
        status = verrou__nomem(err);
        goto done;
    }
    for (size_t i = 0; i < config.count; i++) {
        stores[i].name = config.stores[i].name;
        stores[i].url = config.stores[i].url;
    }
    complete.stores = stores;
    complete.count = config.count;
    complete.store_size = sizeof(*stores);
    complete.default_store = choose_default(complete.default_store, config.default_store);
    status = make(&complete, ret_manager, err);
    if (status != VERROU_OK)
        verrou__error_prefix(err, "%s", path);
done:
    verrou__free(stores);
    verrou__config_done(&config);
    return status;
}

verrou_status verrou_manager_open(const char *url, const verrou_manager_options *options, verrou_manager **ret_manager,
                                  verrou_error *err)
{
    verrou_manager_options complete = VERROU_MANAGER_OPTIONS_INIT;
    verrou_named_store only = {.name = "default", .url = url};

    if (url == NULL || ret_manager == NULL)
        return verrou__fail(err, VERROU_EINVAL, "manager: %s is NULL", url == NULL ? "url" : "ret_manager");
    verrou__options_read(&complete, sizeof(complete), options);
    complete.stores = &only;
    complete.count = 1;
    complete.store_size = sizeof(only);
    complete.default_store = only.name;
    return make(&complete, ret_manager, err);
}

void verrou_manager_free(verrou_manager *manager)
{
    if (manager == NULL)
        return;
    settle_fork(manager); /* a condition that the parent's threads wait on could not be destroyed */
    for (size_t i = 0; i < manager->count; i++) {
        entry *e = &manager->entries[i];

        verrou_factory_free(atomic_load_explicit(&e->factory, memory_order_acquire));
        if (e->url != NULL && e->store != NULL)
            verrou_store_close(e->store);
        verrou__free(e->name);
        verrou__free(e->url);
    }
    pthread_cond_destroy(&manager->opened);
    pthread_mutex_destroy(&manager->mutex);
    verrou__free(manager->label);
    verrou__free(manager);
}

/* ---- using ---- */

/* Open the store if need be and make its factory. Called by one thread at a time for an entry, without the mutex. */
static verrou_status open_entry(const verrou_manager *manager, entry *e, verrou_store **ret_store,
                                verrou_factory **ret_factory, verrou_error *err)
{
    verrou_store_options options = VERROU_STORE_OPTIONS_INIT;
    verrou_store *store = e->store;
    verrou_status status = VERROU_OK;

    options.name = e->name;
    options.log = manager->log;
    options.log_user = manager->log_user;
    options.log_level = manager->log_level;
    options.connect = e->connect;
    options.connect_user = e->connect_user;
    if (e->url != NULL)
        status = verrou_store_open(e->url, &options, &store, err);
    if (status != VERROU_OK) {
        verrou__error_prefix(err, "store \"%s\"", e->name);
        return status;
    }
    status = verrou_factory_new(store, &manager->defaults, ret_factory, err);
    if (status != VERROU_OK && e->url != NULL)
        verrou_store_close(store);
    if (status == VERROU_OK)
        *ret_store = store;
    return status;
}

/* The slow way of verrou_manager_use(). */
static verrou_status use_entry(verrou_manager *manager, entry *e, verrou_factory **ret_factory, verrou_error *err)
{
    verrou_factory *factory;
    verrou_store *store = NULL;
    verrou_status status;

    settle_fork(manager);
    pthread_mutex_lock(&manager->mutex);
    while (e->opening)
        pthread_cond_wait(&manager->opened, &manager->mutex);
    factory = atomic_load_explicit(&e->factory, memory_order_relaxed);
    if (factory == NULL)
        e->opening = true;
    pthread_mutex_unlock(&manager->mutex);
    if (factory != NULL) {
        *ret_factory = factory;
        return VERROU_OK;
    }

    status = open_entry(manager, e, &store, &factory, err);

    pthread_mutex_lock(&manager->mutex);
    if (status == VERROU_OK) {
        e->store = store;
        atomic_store_explicit(&e->factory, factory, memory_order_release);
        *ret_factory = factory;
    }
    e->opening = false;
    pthread_cond_broadcast(&manager->opened);
    pthread_mutex_unlock(&manager->mutex);
    return status;
}

verrou_status verrou_manager_use(verrou_manager *manager, const char *name, verrou_factory **ret_factory,
                                 verrou_error *err)
{
    entry *e = name != NULL ? find(manager, name) : manager->main;
    verrou_factory *factory;

    if (e == NULL)
        return fail_unknown(manager, "manager", name, err);
    factory = atomic_load_explicit(&e->factory, memory_order_acquire);
    if (factory == NULL)
        return use_entry(manager, e, ret_factory, err);
    *ret_factory = factory;
    return VERROU_OK;
}

verrou_status verrou_manager_create_lock(verrou_manager *manager, const char *key, const verrou_lock_options *options,
                                         verrou_lock **ret_lock, verrou_error *err)
{
    verrou_factory *factory = NULL;
    verrou_status status = verrou_manager_use(manager, NULL, &factory, err);

    if (status == VERROU_OK)
        status = verrou_factory_create_lock(factory, key, options, ret_lock, err);
    return status;
}

verrou_status verrou_manager_restore_lock(verrou_manager *manager, const char *json, const verrou_lock_options *options,
                                          verrou_lock **ret_lock, verrou_error *err)
{
    verrou_factory *factory = NULL;
    verrou__serial serial;
    verrou_status status = verrou__serial_parse(json, &serial, err);

    if (status != VERROU_OK)
        return status;
    status = verrou_manager_use(manager, serial.store, &factory, err);
    verrou__serial_done(&serial);
    if (status == VERROU_OK)
        status = verrou_factory_restore_lock(factory, json, options, ret_lock, err);
    return status;
}
