/*
 * redis_fixture.c - see redis_fixture.h.
 */
#include "redis_fixture.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_STORES 32
#define MAX_LOCKS 4096
#define MAX_EVENTS 4096

verrou_error fixture_err = VERROU_ERROR_INIT;

static verrou_store *stores[MAX_STORES];
static size_t store_count;
static verrou_lock *locks[MAX_LOCKS];
static size_t lock_count;
static verrou_connect_fn connect_fn;
static void *connect_user;

static struct {
    pthread_mutex_t mutex;
    size_t count;
    char event[MAX_EVENTS][48];
    char text[MAX_EVENTS][512];
} events = {.mutex = PTHREAD_MUTEX_INITIALIZER};

/* ---- events ---- */

static const char *text_or_nothing(const char *text)
{
    return text ? text : "";
}

static void on_event(void *user, const verrou_log_record *record)
{
    (void)user;
    pthread_mutex_lock(&events.mutex);
    if (events.count < MAX_EVENTS) {
        snprintf(events.event[events.count], sizeof events.event[0], "%s", record->event);
        snprintf(events.text[events.count], sizeof events.text[0], "%s %s %s", text_or_nothing(record->store),
                 text_or_nothing(record->key), text_or_nothing(record->message));
        events.count++;
    }
    pthread_mutex_unlock(&events.mutex);
}

int fixture_events(const char *event)
{
    int count = 0;

    pthread_mutex_lock(&events.mutex);
    for (size_t i = 0; i < events.count; i++)
        count += strcmp(events.event[i], event) == 0;
    pthread_mutex_unlock(&events.mutex);
    return count;
}

bool fixture_logged(const char *text)
{
    bool found = false;

    pthread_mutex_lock(&events.mutex);
    for (size_t i = 0; i < events.count; i++)
        found = found || strstr(events.text[i], text);
    pthread_mutex_unlock(&events.mutex);
    return found;
}

void fixture_wait_events(const char *event, int at_least)
{
    int64_t deadline = process_clock_ms() + PROCESS_PATIENCE_MS;

    while (fixture_events(event) < at_least) {
        if (process_clock_ms() > deadline)
            process_fail("%s was logged %d times, not %d", event, fixture_events(event), at_least);
        process_pause();
    }
}

/* ---- a test ---- */

void fixture_expect(verrou_status expected, verrou_status got, const char *call, const char *file, int line)
{
    if (got == expected)
        return;
    print_error("%s\n  expected %s, got %s: %s\n", call, verrou_status_name(expected), verrou_status_name(got),
                got == VERROU_OK ? "" : fixture_err.message);
    _fail(file, line);
}

int fixture_setup(void **state)
{
    (void)state;
    return verrou_register_driver(verrou_redis_driver(), NULL) == VERROU_OK ? 0 : -1;
}

int fixture_teardown(void **state)
{
    (void)state;
    for (size_t i = 0; i < store_count; i++)
        verrou_store_close(stores[i]);
    for (size_t i = 0; i < lock_count; i++)
        verrou_lock_free(locks[i]);
    store_count = lock_count = 0;
    connect_fn = NULL;
    pthread_mutex_lock(&events.mutex);
    events.count = 0;
    pthread_mutex_unlock(&events.mutex);
    fixture_err = (verrou_error)VERROU_ERROR_INIT;
    return 0;
}

void fixture_connect(verrou_connect_fn connect, void *user)
{
    connect_fn = connect;
    connect_user = user;
}

verrou_store *fixture_open(const char *format, ...)
{
    verrou_store_options options = VERROU_STORE_OPTIONS_INIT;
    char url[2048];
    va_list args;

    va_start(args, format);
    vsnprintf(url, sizeof url, format, args);
    va_end(args);
    options.log = on_event;
    options.log_level = VERROU_DEBUG;
    options.connect = connect_fn;
    options.connect_user = connect_user;
    if (store_count == MAX_STORES)
        process_fail("too many stores");
    EXPECT(VERROU_OK, verrou_store_open(url, &options, &stores[store_count], ERR));
    return stores[store_count++];
}

void fixture_close(verrou_store *store)
{
    size_t i = 0;

    while (stores[i] != store)
        i++;
    stores[i] = NULL;
    verrou_store_close(store);
}

verrou_lock *fixture_lock(verrou_store *store, const char *key, int64_t ttl_ms)
{
    verrou_lock_options options = VERROU_LOCK_OPTIONS_INIT;

    options.keep_alive = ttl_ms < 0;
    options.ttl_ms = ttl_ms < 0 ? -ttl_ms : ttl_ms;
    if (lock_count == MAX_LOCKS)
        process_fail("too many locks");
    EXPECT(VERROU_OK, verrou_lock_new(store, key, &options, &locks[lock_count], ERR));
    return locks[lock_count++];
}

uint64_t fixture_take(verrou_lock *lock)
{
    EXPECT(VERROU_OK, verrou_lock_acquire_immediately(lock, NULL, ERR));
    return verrou_lock_fence(lock);
}

static verrou_status wait_for_lock(verrou_lock *lock, verrou_error *err)
{
    verrou_acquire_options options = VERROU_ACQUIRE_OPTIONS_INIT;

    options.timeout_ms = PROCESS_PATIENCE_MS;
    return verrou_lock_acquire(lock, &options, NULL, err);
}

uint64_t fixture_wait(verrou_lock *lock)
{
    EXPECT(VERROU_OK, wait_for_lock(lock, ERR));
    return verrou_lock_fence(lock);
}

void fixture_drop(verrou_lock *lock)
{
    EXPECT(VERROU_OK, verrou_lock_release(lock, NULL, ERR));
}

/* ---- waiters ---- */

struct fixture_waiter {
    pthread_t thread;
    verrou_lock *lock;
    verrou_status status;
    int64_t at_ms;
};

static void *waiter_run(void *user)
{
    fixture_waiter *waiter = user;

    waiter->status = wait_for_lock(waiter->lock, NULL);
    waiter->at_ms = process_clock_ms();
    return NULL;
}

/* Those of one test, and of all tests: they are few. */
fixture_waiter *fixture_wait_on_thread(verrou_lock *lock)
{
    static fixture_waiter waiters[64];
    static size_t used;
    fixture_waiter *waiter = &waiters[used++ % 64];

    *waiter = (fixture_waiter){.lock = lock};
    if (pthread_create(&waiter->thread, NULL, waiter_run, waiter) != 0)
        process_fail("no thread");
    return waiter;
}

verrou_status fixture_joined(fixture_waiter *waiter)
{
    pthread_join(waiter->thread, NULL);
    return waiter->status;
}

int64_t fixture_joined_at(const fixture_waiter *waiter)
{
    return waiter->at_ms;
}

bool fixture_says(const char *text)
{
    if (strstr(fixture_err.message, text))
        return true;
    print_error("\"%s\" is not in: %s\n", text, fixture_err.message);
    return false;
}

void fixture_wait_subscribed(const redis_server *server, bool sharded, const char *channel, int count)
{
    int64_t deadline = process_clock_ms() + PROCESS_PATIENCE_MS;

    for (;;) {
        redisReply *reply = redis_command(server, "PUBSUB", sharded ? "SHARDNUMSUB" : "NUMSUB", channel, NULL);
        long long now = reply->type == REDIS_REPLY_ARRAY && reply->elements == 2 ? reply->element[1]->integer : -1;

        freeReplyObject(reply);
        if (now == count)
            return;
        if (process_clock_ms() > deadline)
            process_fail("%s has %lld subscribers, not %d", channel, now, count);
        process_pause();
    }
}
