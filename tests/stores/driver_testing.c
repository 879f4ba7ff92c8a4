/*
 * driver_testing.c - see driver_testing.h.
 */
#include "driver_testing.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sys/wait.h>

#include "core/core.h"
#include "core/host.h"
#include "core/sink.h"

/* How long a watch may take to report: only reached when something is broken. */
#define PATIENCE_MS 60000

test_answer test_last;
char test_event[64];
char test_event_text[448];
void (*test_on_pause)(void);

/* ---- the table that drivers are handed ---- */

static verrou_host host;
static pthread_once_t host_once = PTHREAD_ONCE_INIT;

/* Drivers log from threads of their own as well. */
static pthread_mutex_t events_lock = PTHREAD_MUTEX_INITIALIZER;
static char events[256][sizeof test_event];
static int event_count;

static void log_event(void *context, verrou_level level, const char *event, const char *key, const char *format, ...)
    VERROU_PRINTF(5, 6);

static void log_event(void *context, verrou_level level, const char *event, const char *key, const char *format, ...)
{
    va_list args;

    (void)context, (void)level, (void)key;
    pthread_mutex_lock(&events_lock);
    snprintf(test_event, sizeof test_event, "%s", event);
    va_start(args, format);
    vsnprintf(test_event_text, sizeof test_event_text, format, args);
    va_end(args);
    if (event_count < (int)(sizeof events / sizeof events[0]))
        memcpy(events[event_count++], test_event, sizeof test_event);
    pthread_mutex_unlock(&events_lock);
}

static void forget_events(void)
{
    pthread_mutex_lock(&events_lock);
    test_event[0] = test_event_text[0] = '\0';
    event_count = 0;
    pthread_mutex_unlock(&events_lock);
}

int test_events(const char *event)
{
    int count = 0;

    pthread_mutex_lock(&events_lock);
    for (int i = 0; i < event_count; i++)
        count += event == NULL || strcmp(events[i], event) == 0;
    pthread_mutex_unlock(&events_lock);
    return count;
}

static uint64_t draw(void)
{
    if (test_on_pause)
        test_on_pause();
    return verrou__random64();
}

static void make_host(void)
{
    host = verrou__host;
    host.log = log_event;
    host.random = draw;
}

/* ---- stores ---- */

verrou_status test_create(test_store *store, const verrou_driver *driver, const char *address, verrou_error *err)
{
    return test_create_connect(store, driver, address, NULL, NULL, err);
}

verrou_status test_create_connect(test_store *store, const verrou_driver *driver, const char *address,
                                  verrou_connect_fn connect, void *connect_user, verrou_error *err)
{
    verrou_url *url = NULL;
    verrou_status status;

    pthread_once(&host_once, make_host);
    forget_events();
    *store = (test_store){.driver = driver};
    if (driver->flags & VERROU_DRIVER_NETWORK)
        status = verrou__url_parse_network(address, &url, err);
    else
        status = verrou__url_parse(address, &url, err);
    if (status != VERROU_OK)
        return status;
    url->connect = connect;
    url->connect_user = connect_user;
    status = driver->create(&host, NULL, url, &store->state, err);
    verrou__free(url);
    return status;
}

verrou_status test_open_lane(test_store *store, verrou_error *err)
{
    return store->driver->open(store->state, verrou_now_ms() + TEST_LIMIT_MS, &store->lane, err);
}

void test_close_lane(test_store *store)
{
    if (store->lane)
        store->driver->close(store->state, store->lane);
    store->lane = NULL;
}

test_store test_open(const verrou_driver *driver, const char *address)
{
    test_store store;
    verrou_error err = VERROU_ERROR_INIT;

    if (test_create(&store, driver, address, &err) != VERROU_OK || test_open_lane(&store, &err) != VERROU_OK)
        fail_msg("cannot open: %s", err.message);
    return store;
}

void test_close(test_store *store)
{
    test_close_lane(store);
    if (store->state)
        store->driver->destroy(store->state);
    store->state = NULL;
}

/* ---- requests ---- */

verrou_op test_op(verrou_op_kind kind, const char *key, const char *owner, int64_t ttl_ms)
{
    return (verrou_op){
        .kind = kind,
        .key = key,
        .key_len = (uint16_t)strlen(key),
        .owner = owner,
        .owner_len = owner ? (uint16_t)strlen(owner) : 0,
        .ttl_ms = ttl_ms,
        .sent_ms = verrou_now_ms(),
        .others = -1,
        .remaining_ms = -1,
    };
}

void test_op_done(verrou_op *op)
{
    verrou__free(op->holder);
    verrou__free(op->error);
    op->holder = NULL;
    op->error = NULL;
}

bool test_by_loop(void)
{
    return getenv("VERROU_TEST_LOOP") != NULL;
}

/* As the engine does it for an event loop. */
static void begin(const test_store *store, verrou_op **list, size_t n, int64_t deadline_ms)
{
    const verrou_driver *driver = store->driver;

    if (!driver->begin(store->state, store->lane, list, n, deadline_ms))
        return;
    while (driver->arrived(store->state, store->lane) == 0 && verrou_now_ms() < deadline_ms) {
        struct pollfd in = {driver->lane_fd(store->state, store->lane), POLLIN, 0};

        poll(&in, 1, 10);
    }
}

verrou_status test_execute(test_store *store, verrou_op *ops, size_t n, int64_t limit_ms, verrou_error *err)
{
    int64_t deadline_ms = verrou_now_ms() + limit_ms;
    verrou_op *list[1024];

    assert_true(n <= sizeof list / sizeof list[0]);
    for (size_t i = 0; i < n; i++)
        list[i] = &ops[i];
    if (test_by_loop())
        begin(store, list, n, deadline_ms);
    return store->driver->execute(store->state, store->lane, list, n, deadline_ms, err);
}

verrou_op_result test_run(test_store *store, verrou_op_kind kind, const char *key, const char *owner, int64_t ttl_ms)
{
    return test_run_fenced(store, kind, key, owner, ttl_ms, 0);
}

verrou_op_result test_run_fenced(test_store *store, verrou_op_kind kind, const char *key, const char *owner,
                                 int64_t ttl_ms, uint64_t fence)
{
    verrou_op op = test_op(kind, key, owner, ttl_ms);

    op.fence = fence;
    test_last = (test_answer){.lane = test_execute(store, &op, 1, TEST_LIMIT_MS, NULL), .retriable = -1};
    test_last.result = op.result;
    if (op.error) {
        test_last.retriable = op.error->retriable;
        snprintf(test_last.code, sizeof test_last.code, "%s", op.error->store_code);
        snprintf(test_last.text, sizeof test_last.text, "%s", op.error->message);
    }
    snprintf(test_last.holder, sizeof test_last.holder, "%s", op.holder ? op.holder : "");
    test_last.holder_is_owner = op.holder_is_owner;
    test_last.remaining_ms = op.remaining_ms;
    test_last.fence = op.fence;
    test_last.others = op.others;
    test_op_done(&op);
    return test_last.result;
}

verrou_op_result test_acquire(test_store *store, const char *key, const char *owner)
{
    return test_run(store, VERROU_OP_ACQUIRE, key, owner, 30000);
}

verrou_op_result test_extend(test_store *store, const char *key, const char *owner, int64_t ttl_ms)
{
    return test_run(store, VERROU_OP_EXTEND, key, owner, ttl_ms);
}

verrou_op_result test_release(test_store *store, const char *key, const char *owner)
{
    return test_run(store, VERROU_OP_RELEASE, key, owner, 0);
}

verrou_op_result test_inspect(test_store *store, const char *key)
{
    return test_run(store, VERROU_OP_INSPECT, key, NULL, 0);
}

verrou_op_result test_force(test_store *store, const char *key)
{
    return test_run(store, VERROU_OP_FORCE, key, NULL, 0);
}

/* ---- list, check and schema ---- */

/* The text of the latest, and its locks. From malloc(), so that tests that count the library's blocks do not see it. */
static char *found;
static size_t found_len;
static struct {
    char *key;
    uint64_t fence;
} * listed;
static size_t listed_count;

static void forget_found(void)
{
    free(found);
    for (size_t i = 0; i < listed_count; i++)
        free(listed[i].key);
    free(listed);
    found = NULL;
    listed = NULL;
    listed_count = 0;
}

static void write_locks(struct verrou_sink *sink, FILE *out)
{
    const verrou_listed *locks = verrou__sink_locks(sink, &listed_count);

    listed = calloc(listed_count + 1, sizeof *listed);
    assert_non_null(listed);
    for (size_t i = 0; i < listed_count; i++) {
        const verrou_info *info = &locks[i].info;

        listed[i].key = strdup(locks[i].key);
        listed[i].fence = info->fence;
        fprintf(out, "%s %s %s\n", locks[i].key, info->owner,
                info->remaining_ms == VERROU_FOREVER ? "forever" : (info->remaining_ms > 0 ? "live" : "over"));
    }
}

static void write_finding(void *user, verrou_level level, const char *subject, const char *text)
{
    fprintf(user, "%d %s: %s\n", (int)level, subject, text);
}

static void write_found(struct verrou_sink *sink)
{
    FILE *out = open_memstream(&found, &found_len);
    char *text = verrou__sink_take_text(sink);

    assert_non_null(out);
    assert_non_null(text);
    write_locks(sink, out);
    verrou__sink_each_finding(sink, write_finding, out);
    fputs(text, out);
    verrou__free(text);
    assert_int_equal(fclose(out), 0);
}

verrou_status test_find(test_store *store, test_job job, const char *prefix, int64_t limit_ms, const char **ret_text,
                        verrou_error *err)
{
    const verrou_driver *driver = store->driver;
    int64_t deadline_ms = verrou_now_ms() + limit_ms;
    struct verrou_sink *sink = verrou__sink_new(0);
    verrou_status status;

    assert_non_null(sink);
    forget_found();
    if (job == TEST_LIST)
        status = driver->list(store->state, store->lane, prefix, strlen(prefix), deadline_ms, sink, err);
    else if (job == TEST_CHECK)
        status = driver->check(store->state, store->lane, deadline_ms, sink, err);
    else
        status = driver->schema(store->state, store->lane, job == TEST_SCHEMA_APPLY, deadline_ms, sink, err);
    write_found(sink);
    verrou__sink_free(sink);
    if (ret_text)
        *ret_text = found;
    return status;
}

static const char *must_find(test_store *store, test_job job, const char *prefix)
{
    verrou_error err = VERROU_ERROR_INIT;
    const char *text = NULL;

    if (test_find(store, job, prefix, TEST_LIMIT_MS, &text, &err) != VERROU_OK)
        fail_msg("%s", err.message);
    return text;
}

const char *test_list(test_store *store, const char *prefix)
{
    return must_find(store, TEST_LIST, prefix);
}

const char *test_check(test_store *store)
{
    return must_find(store, TEST_CHECK, NULL);
}

const char *test_schema(test_store *store)
{
    return must_find(store, TEST_SCHEMA, NULL);
}

void test_schema_apply(test_store *store)
{
    must_find(store, TEST_SCHEMA_APPLY, NULL);
}

uint64_t test_listed_fence(const char *key)
{
    for (size_t i = 0; i < listed_count; i++) {
        if (strcmp(listed[i].key, key) == 0)
            return listed[i].fence;
    }
    return 0;
}

/* ---- watches ---- */

test_watch test_watch_open(test_store *store)
{
    test_watch watch = {.store = store};
    verrou_error err = VERROU_ERROR_INIT;

    if (store->driver->watch_open(store->state, verrou_now_ms() + TEST_LIMIT_MS, &watch.watch, &err) != VERROU_OK)
        fail_msg("cannot watch: %s", err.message);
    return watch;
}

verrou_status test_watch_add(test_watch *watch, const char *key)
{
    return watch->store->driver->watch_add(watch->store->state, watch->watch, key, strlen(key), NULL);
}

verrou_status test_watch_remove(test_watch *watch, const char *key)
{
    return watch->store->driver->watch_remove(watch->store->state, watch->watch, key, strlen(key), NULL);
}

/* Not kept in test_watch: a reconnecting watch may have another one. */
bool test_watch_readable(test_watch *watch, int timeout_ms)
{
    struct pollfd entry = {.fd = watch->store->driver->watch_fd(watch->store->state, watch->watch), .events = POLLIN};

    return poll(&entry, 1, timeout_ms) == 1;
}

static void note_report(void *context, verrou_watch_event event, const char *key, size_t key_len)
{
    test_watch *watch = context;

    watch->active += event == VERROU_WATCH_ACTIVE;
    watch->free += event == VERROU_WATCH_FREE;
    watch->released += event == VERROU_WATCH_RELEASED;
    snprintf(watch->key, sizeof watch->key, "%.*s", (int)key_len, key ? key : "");
}

verrou_status test_watch_read(test_watch *watch)
{
    watch->active = watch->free = watch->released = 0;
    watch->key[0] = '\0';
    return watch->store->driver->watch_read(watch->store->state, watch->watch, note_report, watch, NULL);
}

void test_watch_wait(test_watch *watch)
{
    int64_t until_ms = verrou_now_ms() + PATIENCE_MS;

    do {
        int64_t left_ms = until_ms - verrou_now_ms();

        if (left_ms <= 0 || !test_watch_readable(watch, (int)left_ms))
            fail_msg("the watch reported nothing in time");
        if (test_watch_read(watch) != VERROU_OK)
            fail_msg("the watch broke");
    } while (watch->active + watch->free + watch->released == 0);
}

void test_watch_close(test_watch *watch)
{
    if (watch->watch)
        watch->store->driver->watch_close(watch->store->state, watch->watch);
    watch->watch = NULL;
}

/* ---- children ---- */

test_child test_fork(void (*body)(int from_parent, int to_parent, const void *argument), const void *argument)
{
    int down[2], up[2];
    test_child child;

    assert_int_equal(pipe(down), 0);
    assert_int_equal(pipe(up), 0);
    fflush(NULL);
    child.pid = fork();
    assert_true(child.pid >= 0);
    if (child.pid == 0) {
        close(down[1]);
        close(up[0]);
        setenv("CMOCKA_TEST_ABORT", "1", 1); /* a failed assertion must not go on with the other tests here */
        body(down[0], up[1], argument);
        _exit(0);
    }
    close(down[0]);
    close(up[1]);
    child.from = up[0];
    child.to = down[1];
    return child;
}

void test_tell(int fd)
{
    ssize_t put = write(fd, "x", 1);

    (void)put;
}

bool test_await(int fd)
{
    char byte;
    ssize_t got;

    do
        got = read(fd, &byte, 1);
    while (got < 0 && errno == EINTR);
    return got == 1;
}

int test_wait(test_child *child)
{
    int status = -1;

    close(child->to);
    close(child->from);
    while (waitpid(child->pid, &status, 0) < 0 && errno == EINTR)
        continue;
    return status;
}
