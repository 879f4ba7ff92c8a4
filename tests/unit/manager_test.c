/*
 * manager_test.c - managers and factories over stores that this file makes up: it defines the four functions through
 * which they reach stores and locks, so that it can count what is opened, block an opening in the middle, and see which
 * defaults arrive.
 */
#include "../support/failing_alloc.h"
#include "core/core.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- the made-up stores and locks ---- */

struct verrou_store {
    char url[128];
    char name[VERROU__MAX_STORE_NAME + 1];
    verrou_log_fn log;
    void *log_user;
    verrou_level log_level;
    verrou_connect_fn connect;
    void *connect_user;
};

struct verrou_lock {
    verrou_store *store;
    char key[64];
    bool restored;
    int64_t ttl_ms;
    char label[VERROU__MAX_LABEL + 1];
};

static struct {
    atomic_int opened;
    atomic_int closed;
    bool fails;
    bool blocks; /* open waits until this is cleared; `inside` counts who waits */
    int inside;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
} fake = {.mutex = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

verrou_status verrou_store_open(const char *url, const verrou_store_options *options, verrou_store **ret_store,
                                verrou_error *err)
{
    verrou_store *store;

    pthread_mutex_lock(&fake.mutex);
    fake.inside++;
    pthread_cond_broadcast(&fake.changed);
    while (fake.blocks)
        pthread_cond_wait(&fake.changed, &fake.mutex);
    fake.inside--;
    pthread_mutex_unlock(&fake.mutex);
    if (fake.fails)
        return verrou__fail(err, VERROU_ECONFIG, "broken");

    store = verrou__calloc(sizeof(*store));
    if (store == NULL)
        return verrou__nomem(err);
    snprintf(store->url, sizeof(store->url), "%s", url);
    snprintf(store->name, sizeof(store->name), "%s", options->name);
    store->log = options->log;
    store->log_user = options->log_user;
    store->log_level = options->log_level;
    store->connect = options->connect;
    store->connect_user = options->connect_user;
    atomic_fetch_add(&fake.opened, 1);
    *ret_store = store;
    return VERROU_OK;
}

void verrou_store_close(verrou_store *store)
{
    atomic_fetch_add(&fake.closed, 1);
    verrou__free(store);
}

static verrou_status make_lock(verrou_store *store, const char *key, bool restored,
                               const verrou_factory_options *defaults, verrou_lock **ret_lock, verrou_error *err)
{
    verrou_lock *lock = verrou__calloc(sizeof(*lock));

    if (lock == NULL)
        return verrou__nomem(err);
    lock->store = store;
    lock->restored = restored;
    lock->ttl_ms = defaults->ttl_ms;
    snprintf(lock->key, sizeof(lock->key), "%s", key);
    snprintf(lock->label, sizeof(lock->label), "%s", defaults->label != NULL ? defaults->label : "");
    *ret_lock = lock;
    return VERROU_OK;
}

verrou_status verrou__lock_new(verrou_store *store, const char *key, const verrou_lock_options *options,
                               const verrou_factory_options *defaults, verrou_lock **ret_lock, verrou_error *err)
{
    (void)options;
    return make_lock(store, key, false, defaults, ret_lock, err);
}

verrou_status verrou__lock_restore(verrou_store *store, const char *json, const verrou_lock_options *options,
                                   const verrou_factory_options *defaults, verrou_lock **ret_lock, verrou_error *err)
{
    (void)options;
    (void)json;
    return make_lock(store, "restored", true, defaults, ret_lock, err);
}

static int reset(void **state)
{
    (void)state;
    atomic_store(&fake.opened, 0);
    atomic_store(&fake.closed, 0);
    fake.fails = fake.blocks = false;
    unsetenv("LOCK_STORE");
    return 0;
}

/* ---- helpers ---- */

static const verrou_named_store two[] = {{.name = "main", .url = "sqlite:a"},
                                         {.name = "fast", .url = "redis://u:hunter2@h"}};

static verrou_manager_options with(const char *default_store, const verrou_named_store *stores, size_t count)
{
    verrou_manager_options options = VERROU_MANAGER_OPTIONS_INIT;

    options.default_store = default_store;
    options.stores = stores;
    options.count = count;
    return options;
}

static verrou_manager *make(const char *default_store)
{
    verrou_manager_options options = with(default_store, two, 2);
    verrou_error err = VERROU_ERROR_INIT;
    verrou_manager *manager = NULL;

    if (verrou_manager_new(&options, &manager, &err) != VERROU_OK)
        fail_msg("%s", err.message);
    return manager;
}

static void refuse(const char *default_store, const verrou_named_store *stores, size_t count, const char *because)
{
    verrou_manager_options options = with(default_store, stores, count);
    verrou_error err = VERROU_ERROR_INIT;
    verrou_manager *manager = NULL;
    long live = failing_alloc.live;

    assert_int_equal(verrou_manager_new(&options, &manager, &err), VERROU_ECONFIG);
    assert_null(manager);
    assert_int_equal(failing_alloc.live, live);
    assert_int_equal(err.status, VERROU_ECONFIG);
    if (strstr(err.message, because) == NULL)
        fail_msg("\"%s\" does not say \"%s\"", err.message, because);
    assert_null(strstr(err.message, "hunter2"));
}

static verrou_store *use(verrou_manager *manager, const char *name)
{
    verrou_error err = VERROU_ERROR_INIT;
    verrou_factory *factory = NULL;

    if (verrou_manager_use(manager, name, &factory, &err) != VERROU_OK)
        fail_msg("%s", err.message);
    return verrou_factory_store(factory);
}

static const char *default_url(verrou_manager *manager)
{
    return use(manager, NULL)->url;
}

/* ---- making a manager ---- */

/* The message says what is missing or wrong, and never shows a password. */
static void test_refusals(void **state)
{
    static const verrou_named_store twice[] = {{.name = "a", .url = "memory:"}, {.name = "a", .url = "memory:"}};
    static const verrou_named_store neither[] = {{.name = "a"}};
    static const verrou_named_store bad_address[] = {{.name = "a", .url = "redis://u:hunter2%@h"}};
    static const verrou_named_store no_name[] = {{.url = "memory:"}};
    static const verrou_named_store empty_name[] = {{.name = "", .url = "memory:"}};
    verrou_store store = {0};
    verrou_named_store both[] = {{.name = "a", .url = "memory:", .store = &store}};
    char long_name[66];
    verrou_named_store too_long[] = {{.name = long_name, .url = "memory:"}};

    (void)state;
    memset(long_name, 'n', 65);
    long_name[65] = '\0';
    refuse("a", NULL, 0, "stores: missing");
    refuse("a", two, 0, "stores: missing");
    refuse(NULL, two, 2, "default: missing");
    refuse("", two, 2, "default: missing");
    refuse("other", two, 2, "there is no store \"other\"; there are: main, fast");
    refuse("a", twice, 2, "\"a\" is given twice");
    refuse("a", neither, 1, "\"a\" has neither");
    refuse("a", both, 1, "\"a\" has both");
    refuse("a", bad_address, 1, "store \"a\": store address redis: it has a '%'");
    refuse("a", no_name, 1, "the name of a store: missing");
    refuse("a", empty_name, 1, "the name of a store: empty");
    refuse("a", too_long, 1, "longer than 64 bytes");
    assert_int_equal(fake.opened, 0);
}

/* A great many long names do not make the message overflow. */
static void test_unknown_among_many(void **state)
{
    static char names[200][VERROU__MAX_STORE_NAME + 1];
    static verrou_named_store many[200];
    char unknown[2000];

    (void)state;
    for (int i = 0; i < 200; i++) {
        snprintf(names[i], sizeof(names[i]), "%064d", i);
        many[i] = (verrou_named_store){.name = names[i], .url = "memory:"};
    }
    memset(unknown, 'u', sizeof(unknown) - 1);
    unknown[sizeof(unknown) - 1] = '\0';
    refuse(unknown, many, 200, "there is no store \"uuuu");
}

/* Defaults of the locks are checked when the manager is made. */
static void test_bad_defaults(void **state)
{
    verrou_manager_options options = with("main", two, 2);
    verrou_factory_options factory = VERROU_FACTORY_OPTIONS_INIT;
    verrou_error err = VERROU_ERROR_INIT;
    verrou_manager *manager = NULL;

    (void)state;
    factory.ttl_ms = 0;
    options.factory = &factory;
    assert_int_equal(verrou_manager_new(&options, &manager, &err), VERROU_EINVAL);
    assert_string_equal(err.message, "defaults of the manager: ttl_ms: 0 is not between 1 and 4503599627370496");
}

/* Places for the result and texts that must be there. */
static void test_null_arguments(void **state)
{
    verrou_manager_options options = with("main", two, 2);
    verrou_manager *manager = NULL;
    verrou_factory *factory = NULL;

    (void)state;
    assert_int_equal(verrou_manager_new(&options, NULL, NULL), VERROU_EINVAL);
    assert_int_equal(verrou_manager_new(NULL, &manager, NULL), VERROU_ECONFIG);
    assert_int_equal(verrou_manager_load(NULL, NULL, &manager, NULL), VERROU_EINVAL);
    assert_int_equal(verrou_manager_open(NULL, NULL, &manager, NULL), VERROU_EINVAL);
    assert_int_equal(verrou_factory_new(NULL, NULL, &factory, NULL), VERROU_EINVAL);
    verrou_manager_free(NULL);
    verrou_factory_free(NULL);
}

/* ---- which store is the default ---- */

/* The code says it, or LOCK_STORE; an empty variable says nothing. */
static void test_default_of_new(void **state)
{
    verrou_manager *manager;

    (void)state;
    setenv("LOCK_STORE", "fast", 1);
    manager = make(NULL);
    assert_string_equal(default_url(manager), "redis://u:hunter2@h");
    verrou_manager_free(manager);
    manager = make("main");
    assert_string_equal(default_url(manager), "sqlite:a");
    verrou_manager_free(manager);
    setenv("LOCK_STORE", "", 1);
    refuse(NULL, two, 2, "default: missing");
    setenv("LOCK_STORE", "nowhere", 1);
    refuse(NULL, two, 2, "LOCK_STORE: there is no store \"nowhere\"");
}

static void write_file(char path[], const char *text)
{
    int fd;

    strcpy(path, "manager_test.XXXXXX");
    fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    close(fd);
}

/* A file's default gives way to LOCK_STORE, and both to the code. */
static void test_default_of_load(void **state)
{
    verrou_manager_options options = VERROU_MANAGER_OPTIONS_INIT;
    verrou_manager *manager = NULL;
    char path[32];

    (void)state;
    write_file(path, "default = a\n[stores]\na = x:a\nb = x:b\nc = x:c\n");
    assert_int_equal(verrou_manager_load(path, NULL, &manager, NULL), VERROU_OK);
    assert_string_equal(default_url(manager), "x:a");
    verrou_manager_free(manager);
    setenv("LOCK_STORE", "b", 1);
    assert_int_equal(verrou_manager_load(path, NULL, &manager, NULL), VERROU_OK);
    assert_string_equal(default_url(manager), "x:b");
    verrou_manager_free(manager);
    options.default_store = "c";
    assert_int_equal(verrou_manager_load(path, &options, &manager, NULL), VERROU_OK);
    assert_string_equal(default_url(manager), "x:c");
    verrou_manager_free(manager);
    unlink(path);
}

/* What is missing in a file is reported with its path. */
static void test_load_refusals(void **state)
{
    static const struct {
        const char *text;
        const char *because;
    } files[] = {
        {"", ": stores: missing"},
        {"default = a\n", ": stores: missing"},
        {"[stores]\na = x:\n", ": default: missing"},
        {"default = b\n[stores]\na = x:\n", ": default: there is no store \"b\"; there are: a"},
        {"default = a\n[stores]\na = x\n", ": store \"a\": store address: it does not start with a scheme"},
        {"default = a\nx\n", ":2: expected"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
        verrou_error err = VERROU_ERROR_INIT;
        verrou_manager *manager = NULL;
        char path[32];

        write_file(path, files[i].text);
        assert_int_equal(verrou_manager_load(path, NULL, &manager, &err), VERROU_ECONFIG);
        unlink(path);
        assert_memory_equal(err.message, path, strlen(path));
        if (strncmp(err.message + strlen(path), files[i].because, strlen(files[i].because)) != 0)
            fail_msg("\"%s\" instead of \"%s\"", err.message, files[i].because);
    }
}

/* One address is the store "default", whatever LOCK_STORE says. */
static void test_open(void **state)
{
    verrou_error err = VERROU_ERROR_INIT;
    verrou_manager *manager = NULL;

    (void)state;
    setenv("LOCK_STORE", "other", 1);
    assert_int_equal(verrou_manager_open("x:only", NULL, &manager, NULL), VERROU_OK);
    assert_string_equal(default_url(manager), "x:only");
    assert_string_equal(use(manager, "default")->name, "default");
    verrou_manager_free(manager);
    assert_int_equal(verrou_manager_open("nothing", NULL, &manager, &err), VERROU_ECONFIG);
    assert_non_null(strstr(err.message, "scheme"));
}

/* ---- using it ---- */

/* A store is opened when first used, once, and closed with the manager; the others never. */
static void test_opened_once(void **state)
{
    verrou_manager *manager = make("main");
    verrou_store *store;

    (void)state;
    assert_int_equal(fake.opened, 0);
    store = use(manager, NULL);
    assert_ptr_equal(use(manager, "main"), store);
    assert_ptr_equal(use(manager, NULL), store);
    assert_int_equal(fake.opened, 1);
    assert_int_equal(fake.closed, 0);
    verrou_manager_free(manager);
    assert_int_equal(fake.closed, 1);
}

/* Name and log hook reach the store. */
static void test_store_options(void **state)
{
    verrou_manager_options options = with("main", two, 2);
    verrou_manager *manager = NULL;
    int mine = 0;

    (void)state;
    options.log = (verrou_log_fn)(void (*)(void))abort;
    options.log_user = &mine;
    options.log_level = VERROU_WARN;
    assert_int_equal(verrou_manager_new(&options, &manager, NULL), VERROU_OK);
    assert_string_equal(use(manager, "fast")->name, "fast");
    assert_true(use(manager, "fast")->log == options.log);
    assert_ptr_equal(use(manager, "fast")->log_user, &mine);
    assert_int_equal(use(manager, "fast")->log_level, VERROU_WARN);
    verrou_manager_free(manager);
}

static verrou_status connect_nowhere(void *user, const char *host, int port, int64_t deadline_ms,
                                     verrou_transport *ret_transport, verrou_error *err)
{
    (void)user, (void)host, (void)port, (void)deadline_ms, (void)ret_transport;
    return verrou_error_set(err, VERROU_ESTORAGE, 0, NULL, "nowhere");
}

/* The function that makes connections reaches the store that it is given for, and no other. */
static void test_connect(void **state)
{
    int mine = 0;
    const verrou_named_store stores[] = {
        {.name = "tunnel", .url = "redis://h", .connect = connect_nowhere, .connect_user = &mine},
        {.name = "plain", .url = "redis://h"},
    };
    verrou_manager_options options = with("tunnel", stores, 2);
    verrou_manager *manager = NULL;

    (void)state;
    assert_int_equal(verrou_manager_new(&options, &manager, NULL), VERROU_OK);
    assert_true(use(manager, "tunnel")->connect == connect_nowhere);
    assert_ptr_equal(use(manager, "tunnel")->connect_user, &mine);
    assert_true(use(manager, "plain")->connect == NULL);
    verrou_manager_free(manager);
}

/* With a store that is open already such a function would never be called. */
static void test_connect_too_late(void **state)
{
    verrou_store mine = {0};
    const verrou_named_store stores[] = {{.name = "a", .store = &mine, .connect = connect_nowhere}};

    (void)state;
    refuse("a", stores, 1, "\"a\" is open already");
}

/* A program compiled when named stores had other sizes: what it does not know is not used, what we do not know is passed over. */
static void test_other_sizes_of_named_stores(void **state)
{
    struct longer {
        verrou_named_store named;
        void *new_member;
    } longer[2] = {{two[0], &longer}, {two[1], &longer}};
    struct shorter {
        const char *name;
        const char *url;
        verrou_store *store;
    } shorter[2] = {{"main", "sqlite:a", NULL}, {"fast", "redis://h", NULL}};
    verrou_manager_options options = with("fast", (const void *)longer, 2);
    verrou_manager *manager = NULL;

    (void)state;
    options.store_size = sizeof(longer[0]);
    assert_int_equal(verrou_manager_new(&options, &manager, NULL), VERROU_OK);
    assert_string_equal(default_url(manager), two[1].url);
    verrou_manager_free(manager);

    options.stores = (const void *)shorter;
    options.store_size = sizeof(shorter[0]);
    assert_int_equal(verrou_manager_new(&options, &manager, NULL), VERROU_OK);
    assert_string_equal(default_url(manager), "redis://h");
    assert_true(use(manager, NULL)->connect == NULL);
    verrou_manager_free(manager);
}

/* Without the size nothing can be read: options that did not start as the macro. */
static void test_no_size_of_named_stores(void **state)
{
    verrou_manager_options options = with("main", two, 2);
    verrou_error err = VERROU_ERROR_INIT;
    verrou_manager *manager = NULL;

    (void)state;
    options.store_size = 0;
    assert_int_equal(verrou_manager_new(&options, &manager, &err), VERROU_ECONFIG);
    assert_non_null(strstr(err.message, "store_size: 0"));
}

/* A store of the caller's is neither opened nor closed. */
static void test_callers_store(void **state)
{
    verrou_store mine = {0};
    verrou_named_store stores[] = {{.name = "mine", .store = &mine}};
    verrou_manager_options options = with("mine", stores, 1);
    verrou_manager *manager = NULL;

    (void)state;
    assert_int_equal(verrou_manager_new(&options, &manager, NULL), VERROU_OK);
    assert_ptr_equal(use(manager, NULL), &mine);
    verrou_manager_free(manager);
    assert_int_equal(fake.opened, 0);
    assert_int_equal(fake.closed, 0);
}

/* A name that is not there is an error that lists those that are. */
static void test_unknown_name(void **state)
{
    verrou_manager *manager = make("main");
    verrou_error err = VERROU_ERROR_INIT;
    verrou_factory *factory = NULL;

    (void)state;
    assert_int_equal(verrou_manager_use(manager, "slow", &factory, &err), VERROU_ECONFIG);
    assert_string_equal(err.message, "manager: there is no store \"slow\"; there are: main, fast");
    assert_null(factory);
    verrou_manager_free(manager);
}

/* A store that cannot be opened is tried again by the next call. */
static void test_failed_open(void **state)
{
    verrou_manager *manager = make("main");
    verrou_error err = VERROU_ERROR_INIT;
    verrou_factory *factory = NULL;

    (void)state;
    fake.fails = true;
    assert_int_equal(verrou_manager_use(manager, NULL, &factory, &err), VERROU_ECONFIG);
    assert_string_equal(err.message, "store \"main\": broken");
    assert_null(factory);
    fake.fails = false;
    assert_string_equal(default_url(manager), "sqlite:a");
    verrou_manager_free(manager);
}

static void *use_thread(void *manager)
{
    verrou_factory *factory = NULL;

    return verrou_manager_use(manager, NULL, &factory, NULL) == VERROU_OK ? factory : NULL;
}

static void wait_inside(int count)
{
    pthread_mutex_lock(&fake.mutex);
    while (fake.inside < count)
        pthread_cond_wait(&fake.changed, &fake.mutex);
    pthread_mutex_unlock(&fake.mutex);
}

static void set_blocks(bool blocks)
{
    pthread_mutex_lock(&fake.mutex);
    fake.blocks = blocks;
    pthread_cond_broadcast(&fake.changed);
    pthread_mutex_unlock(&fake.mutex);
}

/* Threads that come while a store is being opened wait for it and get the same; another store can be used meanwhile. */
static void test_threads(void **state)
{
    verrou_manager *manager = make("main");
    pthread_t threads[8];
    void *factories[8];
    verrou_factory *again = NULL;

    (void)state;
    use(manager, "fast");
    fake.blocks = true;
    for (int i = 0; i < 8; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, use_thread, manager), 0);
    wait_inside(1);
    use(manager, "fast");
    set_blocks(false);
    for (int i = 0; i < 8; i++)
        pthread_join(threads[i], &factories[i]);
    assert_int_equal(fake.opened, 2);
    assert_int_equal(verrou_manager_use(manager, NULL, &again, NULL), VERROU_OK);
    for (int i = 0; i < 8; i++)
        assert_ptr_equal(factories[i], again);
    verrou_manager_free(manager);
}

/* A child forked while a thread of its parent was opening a store opens it itself, and can free the manager. */
static void test_fork_while_opening(void **state)
{
    verrou_manager *manager = make("main");
    pthread_t opener, waiter;
    int wstatus = -1;
    pid_t child;

    (void)state;
    fake.blocks = true;
    assert_int_equal(pthread_create(&opener, NULL, use_thread, manager), 0);
    wait_inside(1);
    assert_int_equal(pthread_create(&waiter, NULL, use_thread, manager), 0);
    pthread_mutex_lock(&fake.mutex); /* so that the child gets it in a known state */
    child = fork();
    if (child == 0) {
        pthread_mutex_init(&fake.mutex, NULL);
        fake.blocks = false;
        alarm(60);
        if (use_thread(manager) == NULL || fake.opened != 1)
            _exit(1);
        verrou_manager_free(manager);
        _exit(fake.closed == 1 ? 0 : 2);
    }
    pthread_mutex_unlock(&fake.mutex);
    assert_true(child > 0);
    assert_int_equal(waitpid(child, &wstatus, 0), child);
    set_blocks(false);
    pthread_join(opener, NULL);
    pthread_join(waiter, NULL);
    assert_int_equal(wstatus, 0);
    assert_int_equal(fake.opened, 1);
    verrou_manager_free(manager);
}

/* ---- locks ---- */

/* Defaults reach the locks, of a copied label too. */
static void test_defaults_reach_locks(void **state)
{
    verrou_manager_options options = with("main", two, 2);
    verrou_factory_options factory = VERROU_FACTORY_OPTIONS_INIT;
    char label[] = "payer";
    verrou_manager *manager = NULL;
    verrou_lock *lock = NULL;

    (void)state;
    factory.ttl_ms = 1234;
    factory.label = label;
    options.factory = &factory;
    assert_int_equal(verrou_manager_new(&options, &manager, NULL), VERROU_OK);
    memset(label, 'x', 5);
    factory.ttl_ms = 1;
    assert_int_equal(verrou_manager_create_lock(manager, "k", NULL, &lock, NULL), VERROU_OK);
    assert_string_equal(lock->key, "k");
    assert_string_equal(lock->store->name, "main");
    assert_int_equal(lock->ttl_ms, 1234);
    assert_string_equal(lock->label, "payer");
    verrou__free(lock);
    verrou_manager_free(manager);
}

static void expect_restored(verrou_manager *manager, const char *json, const char *name)
{
    verrou_lock *lock = NULL;

    assert_int_equal(verrou_manager_restore_lock(manager, json, NULL, &lock, NULL), VERROU_OK);
    assert_true(lock->restored);
    assert_string_equal(lock->store->name, name);
    verrou__free(lock);
}

/* A lock is restored on the store that it names, else on the default; what is wrong with it is said. */
static void test_restore(void **state)
{
    verrou_manager *manager = make("main");
    verrou_error err = VERROU_ERROR_INIT;
    verrou_lock *lock = NULL;

    (void)state;
    expect_restored(manager, "{\"key\":\"k\",\"owner\":\"o\",\"ttl\":1,\"expirationTime\":1}", "main");
    expect_restored(manager, "{\"key\":\"k\",\"owner\":\"o\",\"ttl\":1,\"expirationTime\":1,\"store\":\"fast\"}",
                    "fast");
    assert_int_equal(verrou_manager_restore_lock(
                         manager, "{\"key\":\"k\",\"owner\":\"o\",\"ttl\":1,\"expirationTime\":1,\"store\":\"x\"}",
                         NULL, &lock, &err),
                     VERROU_ECONFIG);
    assert_non_null(strstr(err.message, "no store \"x\""));
    assert_int_equal(verrou_manager_restore_lock(manager, "{}", NULL, &lock, &err), VERROU_EINVAL);
    assert_null(lock);
    verrou_manager_free(manager);
}

/* Every number of a factory has its range, given in the message. */
static void test_factory_ranges(void **state)
{
    static const struct {
        size_t at;
        int64_t value;
        bool fine;
    } cases[] = {
#define AT(member) offsetof(verrou_factory_options, member)
        {AT(ttl_ms), 0, false},
        {AT(ttl_ms), 1, true},
        {AT(ttl_ms), VERROU_MAX_MS, true},
        {AT(ttl_ms), VERROU_MAX_MS + 1, false},
        {AT(ttl_ms), VERROU_FOREVER, true},
        {AT(ttl_ms), VERROU_DEFAULT, true},
        {AT(attempts), 0, false},
        {AT(attempts), -1, false},
        {AT(attempts), 1, true},
        {AT(attempts), VERROU_FOREVER, true},
        {AT(delay_ms), 0, false},
        {AT(delay_ms), 1, true},
        {AT(delay_ms), VERROU_FOREVER, false},
        {AT(timeout_ms), -1, false},
        {AT(timeout_ms), 0, true},
        {AT(timeout_ms), VERROU_FOREVER, true},
        {AT(timeout_ms), VERROU_MAX_MS + 1, false},
#undef AT
    };
    verrou_store store = {0};

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        verrou_factory_options options = VERROU_FACTORY_OPTIONS_INIT;
        verrou_factory *factory = NULL;
        verrou_status status;

        memcpy((char *)&options + cases[i].at, &cases[i].value, sizeof(int64_t));
        status = verrou_factory_new(&store, &options, &factory, NULL);
        if (status != (cases[i].fine ? VERROU_OK : VERROU_EINVAL))
            fail_msg("case %zu: %s", i, verrou_status_name(status));
        verrou_factory_free(factory);
    }
}

/* Labels are up to 64 bytes of UTF-8; an empty one is none. */
static void test_factory_label(void **state)
{
    verrou_factory_options options = VERROU_FACTORY_OPTIONS_INIT;
    char label[66];
    verrou_store store = {0};
    verrou_factory *factory = NULL;

    (void)state;
    memset(label, 'l', 65);
    label[65] = '\0';
    options.label = label;
    assert_int_equal(verrou_factory_new(&store, &options, &factory, NULL), VERROU_EINVAL);
    options.label = "\xff";
    assert_int_equal(verrou_factory_new(&store, &options, &factory, NULL), VERROU_EINVAL);
    options.label = label + 1;
    assert_int_equal(verrou_factory_new(&store, &options, &factory, NULL), VERROU_OK);
    verrou_factory_free(factory);
    options.label = "";
    assert_int_equal(verrou_factory_new(&store, &options, &factory, NULL), VERROU_OK);
    verrou_factory_free(factory);
}

/* A program compiled against an older, shorter options struct gets defaults for the rest. */
static void test_older_options(void **state)
{
    verrou_factory_options options = VERROU_FACTORY_OPTIONS_INIT;
    verrou_store store = {0};
    verrou_factory *factory = NULL;

    (void)state;
    options.size = offsetof(verrou_factory_options, attempts);
    options.ttl_ms = 77;
    options.attempts = -5; /* not there, as far as this program knows */
    options.label = (const char *)1;
    assert_int_equal(verrou_factory_new(&store, &options, &factory, NULL), VERROU_OK);
    verrou_factory_free(factory);
}

/* ---- out of memory ---- */

static verrou_status everything(void *path, verrou_error *err)
{
    verrou_manager_options options = VERROU_MANAGER_OPTIONS_INIT;
    verrou_factory_options factory = VERROU_FACTORY_OPTIONS_INIT;
    verrou_manager *manager = NULL;
    verrou_lock *lock = NULL;
    verrou_lock *restored = NULL;
    verrou_status status;

    factory.label = "label";
    options.factory = &factory;
    status = verrou_manager_load(path, &options, &manager, err);
    if (status == VERROU_OK)
        status = verrou_manager_create_lock(manager, "k", NULL, &lock, err);
    if (status == VERROU_OK)
        status = verrou_manager_restore_lock(
            manager, "{\"key\":\"k\",\"owner\":\"o\",\"ttl\":1,\"expirationTime\":1,\"store\":\"b\"}", NULL, &restored,
            err);
    verrou__free(lock);
    verrou__free(restored);
    verrou_manager_free(manager);
    return status;
}

/* Making, opening and using: every allocation may fail, and nothing is left behind, no store either. */
static void test_out_of_memory(void **state)
{
    char path[32];

    (void)state;
    write_file(path, "default = a\n[stores]\na = x:a\nb = x:b\n");
    assert_true(failing_alloc_each(everything, path) >= 20);
    unlink(path);
    assert_int_equal(fake.opened, fake.closed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_refusals, reset),
        cmocka_unit_test_setup(test_unknown_among_many, reset),
        cmocka_unit_test_setup(test_bad_defaults, reset),
        cmocka_unit_test_setup(test_null_arguments, reset),
        cmocka_unit_test_setup(test_default_of_new, reset),
        cmocka_unit_test_setup(test_default_of_load, reset),
        cmocka_unit_test_setup(test_load_refusals, reset),
        cmocka_unit_test_setup(test_open, reset),
        cmocka_unit_test_setup(test_opened_once, reset),
        cmocka_unit_test_setup(test_store_options, reset),
        cmocka_unit_test_setup(test_connect, reset),
        cmocka_unit_test_setup(test_connect_too_late, reset),
        cmocka_unit_test_setup(test_other_sizes_of_named_stores, reset),
        cmocka_unit_test_setup(test_no_size_of_named_stores, reset),
        cmocka_unit_test_setup(test_callers_store, reset),
        cmocka_unit_test_setup(test_unknown_name, reset),
        cmocka_unit_test_setup(test_failed_open, reset),
        cmocka_unit_test_setup(test_threads, reset),
        cmocka_unit_test_setup(test_fork_while_opening, reset),
        cmocka_unit_test_setup(test_defaults_reach_locks, reset),
        cmocka_unit_test_setup(test_restore, reset),
        cmocka_unit_test_setup(test_factory_ranges, reset),
        cmocka_unit_test_setup(test_factory_label, reset),
        cmocka_unit_test_setup(test_older_options, reset),
        cmocka_unit_test_setup(test_out_of_memory, reset),
    };

    failing_alloc_install();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
