/*
 * support.c - what the claims share: keys, handles, threads and asynchronous answers, and the list of everything that
 * has to be taken down after a claim. The order of taking down matters: freeing the keys ends most waits, closing the
 * stores ends the rest, so that threads can be joined; only then nobody uses the handles any more.
 */
#include "conf.h"
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* A wait in vain says that the store is broken; the rest of the run need not be as patient. */
#define IMPATIENT_MS 1000

enum kind { KEY, STORE, THREAD, LOCK, CANCEL, TEXT, MEMORY };

struct conf_thing {
    struct conf_thing *next;
    enum kind kind;
    void *what;
    pthread_t thread;
};

struct thread_start {
    void (*run)(void *);
    void *arg;
};

/* ---- statuses ---- */

verrou_error *verrou__conf_error(struct conf *c)
{
    c->error = (verrou_error)VERROU_ERROR_INIT;
    return &c->error;
}

void verrou__conf_expect(struct conf *c, verrou_status expected, verrou_status got, const char *call, const char *file,
                         int line)
{
    if (expected == got)
        return;

    print_error("%s\n  expected %s, got %s", call, verrou_status_name(expected), verrou_status_name(got));
    print_error("%s%s\n", c->error.message[0] ? ": " : "", c->error.message);
    if (got == VERROU_ENOTACQUIRED)
        c->suite->patience_ms = IMPATIENT_MS;
    _fail(file, line);
}

void verrou__conf_require(bool truth, const char *what, const char *file, int line)
{
    if (truth)
        return;

    print_error("not so: %s\n", what);
    _fail(file, line);
}

/* ---- things ---- */

/* Remember something, newest first. Runs out of memory as a failed claim. */
static struct conf_thing *remember(struct conf *c, enum kind kind, void *what)
{
    struct conf_thing *thing = calloc(1, sizeof *thing);

    assert_non_null(thing);
    thing->kind = kind;
    thing->what = what;
    thing->next = c->things;
    c->things = thing;
    return thing;
}

/* Forget it, and say whether it was known. */
static bool forget(struct conf *c, enum kind kind, const void *what)
{
    for (struct conf_thing **at = &c->things; *at; at = &(*at)->next) {
        struct conf_thing *thing = *at;

        if (thing->kind == kind && thing->what == what) {
            *at = thing->next;
            free(thing);
            return true;
        }
    }
    return false;
}

static void *thing_find(struct conf *c, enum kind kind)
{
    for (struct conf_thing *thing = c->things; thing; thing = thing->next)
        if (thing->kind == kind)
            return thing->what;
    return NULL;
}

void *verrou__conf_alloc(struct conf *c, size_t size)
{
    void *block = calloc(1, size);

    assert_non_null(block);
    remember(c, MEMORY, block);
    return block;
}

static char *copy(struct conf *c, const char *text)
{
    size_t size = strlen(text) + 1;

    return memcpy(verrou__conf_alloc(c, size), text, size);
}

/* ---- begin and end ---- */

int verrou__conf_begin(void **state)
{
    struct conf *c = *state;
    const verrou_conformance *given = c->suite->given;

    c->things = NULL;
    c->queue = NULL;
    c->completions = 0;
    if (given->open(given->user, &c->store, verrou__conf_error(c)) != VERROU_OK) {
        print_error("the store cannot be opened: %s\n", c->error.message);
        return -1;
    }
    remember(c, STORE, c->store);
    return 0;
}

/* Whether the claim makes sense for this store. */
static bool applies(const struct conf *c)
{
    uint32_t flags = c->suite->given->flags, caps = c->suite->caps, needs = c->claim->needs;

    return !((flags & VERROU_CONFORMANCE_NO_LOCKS) && !(needs & CONF_ANY)) &&
           !((flags & VERROU_CONFORMANCE_NO_STORE_STATE) && (needs & CONF_REOPEN)) &&
           !((caps & VERROU_CAP_FENCE) && (needs & CONF_NO_FENCE)) &&
           !((caps & VERROU_CAP_LIST) && (needs & CONF_NO_LIST)) && (caps & c->claim->caps) == c->claim->caps;
}

void verrou__conf_check(void **state)
{
    struct conf *c = *state;

    if (!applies(c))
        skip();
    c->claim->run(c);
}

/* By a store handle of its own: while the others are open, a waiter that is left would take what is freed. */
static void keys_free(struct conf *c)
{
    const verrou_conformance *given = c->suite->given;
    verrou_call_options limit = VERROU_CALL_OPTIONS_INIT;
    verrou_store *store = NULL;

    if (!thing_find(c, KEY) || (given->flags & VERROU_CONFORMANCE_NO_STORE_STATE) ||
        given->open(given->user, &store, NULL) != VERROU_OK)
        return;
    limit.timeout_ms = 2000;
    for (struct conf_thing *thing = c->things; thing; thing = thing->next)
        if (thing->kind == KEY)
            verrou_store_force_release(store, thing->what, &limit, NULL);
    verrou_store_close(store);
}

static void threads_join(struct conf *c)
{
    struct conf_thing **at = &c->things;

    while (*at) {
        struct conf_thing *thing = *at;

        if (thing->kind != THREAD) {
            at = &thing->next;
            continue;
        }
        *at = thing->next;
        pthread_join(thing->thread, NULL);
        free(thing);
    }
}

static void thing_free(struct conf_thing *thing)
{
    switch (thing->kind) {
    case LOCK:
        verrou_lock_free(thing->what);
        break;
    case CANCEL:
        verrou_cancel_free(thing->what);
        break;
    case TEXT:
        verrou_free(thing->what);
        break;
    case MEMORY:
        free(thing->what);
        break;
    case KEY: /* its text is a MEMORY of its own */
    case STORE:
    case THREAD:
        break;
    }
    free(thing);
}

int verrou__conf_end(void **state)
{
    struct conf *c = *state;
    struct conf_thing *thing;
    verrou_store *store;

    while ((store = thing_find(c, STORE)))
        verrou__conf_close(c, store);
    threads_join(c);
    keys_free(c);

    /* The queue refers to answers: first what is left in it, then their memory. */
    verrou_queue_free(c->queue);
    c->queue = NULL;
    while ((thing = c->things)) {
        c->things = thing->next;
        thing_free(thing);
    }
    return 0;
}

/* ---- keys, stores, handles ---- */

const char *verrou__conf_key_exact(struct conf *c, const char *key)
{
    for (struct conf_thing *thing = c->things; thing; thing = thing->next)
        if (thing->kind == KEY && strcmp(thing->what, key) == 0)
            return thing->what;
    return remember(c, KEY, copy(c, key))->what;
}

const char *verrou__conf_key(struct conf *c, const char *name)
{
    char key[512];

    snprintf(key, sizeof key, "conformance:%08llx.%zu:%s", (unsigned long long)c->suite->run, c->number, name);
    return verrou__conf_key_exact(c, key);
}

verrou_store *verrou__conf_open(struct conf *c)
{
    const verrou_conformance *given = c->suite->given;
    verrou_store *store = NULL;

    EXPECT(VERROU_OK, given->open(given->user, &store, ERR));
    remember(c, STORE, store);
    return store;
}

void verrou__conf_close(struct conf *c, verrou_store *store)
{
    forget(c, STORE, store);
    if (store == c->store)
        c->store = NULL;
    verrou_store_close(store);
}

verrou_lock *verrou__conf_lock_with(struct conf *c, verrou_store *store, const char *key,
                                    const verrou_lock_options *options)
{
    verrou_lock *lock = NULL;

    EXPECT(VERROU_OK, verrou_lock_new(store, key, options, &lock, ERR));
    remember(c, LOCK, lock);
    return lock;
}

verrou_lock *verrou__conf_lock_on(struct conf *c, verrou_store *store, const char *key, int64_t ttl_ms)
{
    verrou_lock_options options = VERROU_LOCK_OPTIONS_INIT;

    options.ttl_ms = ttl_ms;
    return verrou__conf_lock_with(c, store, key, &options);
}

verrou_lock *verrou__conf_lock(struct conf *c, int64_t ttl_ms)
{
    return verrou__conf_lock_on(c, c->store, verrou__conf_key(c, "lock"), ttl_ms);
}

verrou_lock *verrou__conf_restore(struct conf *c, verrou_store *store, const char *json)
{
    verrou_lock *lock = NULL;

    EXPECT(VERROU_OK, verrou_lock_restore(store, json, NULL, &lock, ERR));
    remember(c, LOCK, lock);
    return lock;
}

void verrou__conf_free(struct conf *c, verrou_lock *lock)
{
    if (forget(c, LOCK, lock))
        verrou_lock_free(lock);
}

verrou_cancel *verrou__conf_cancel(struct conf *c)
{
    verrou_cancel *cancel = NULL;

    EXPECT(VERROU_OK, verrou_cancel_new(&cancel, ERR));
    remember(c, CANCEL, cancel);
    return cancel;
}

const char *verrou__conf_json(struct conf *c, verrou_lock *lock)
{
    char *json = NULL;

    EXPECT(VERROU_OK, verrou_lock_serialize(lock, &json, ERR));
    remember(c, TEXT, json);
    return json;
}

const char *verrou__conf_owner(struct conf *c, verrou_lock *lock)
{
    char *owner = NULL;

    EXPECT(VERROU_OK, verrou_lock_owner(lock, &owner, ERR));
    remember(c, TEXT, owner);
    return owner;
}

/* Write `text` as a JSON string. */
static size_t json_string(char *out, size_t size, const char *text)
{
    size_t used = 0;

    out[used++] = '"';
    for (; *text && used + 8 < size; text++) {
        if (*text == '"' || *text == '\\' || (unsigned char)*text < 0x20)
            used += (size_t)snprintf(out + used, size - used, "\\u%04x", (unsigned)(unsigned char)*text);
        else
            out[used++] = *text;
    }
    out[used++] = '"';
    out[used] = 0;
    return used;
}

verrou_lock *verrou__conf_believer(struct conf *c, verrou_store *store, const char *key, const char *owner)
{
    char key_text[2048], owner_text[2048], json[4608];
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    json_string(key_text, sizeof key_text, key);
    json_string(owner_text, sizeof owner_text, owner);
    snprintf(json, sizeof json, "{\"key\":%s,\"owner\":%s,\"ttl\":3600000,\"expirationTime\":%lld}", key_text,
             owner_text, (long long)now.tv_sec * 1000 + 3600000);
    return verrou__conf_restore(c, store, json);
}

/* ---- short cuts ---- */

void verrou__conf_hold(struct conf *c, verrou_lock *lock)
{
    EXPECT(VERROU_OK, verrou_lock_acquire_immediately(lock, NULL, ERR));
}

void verrou__conf_drop(struct conf *c, verrou_lock *lock)
{
    EXPECT(VERROU_OK, verrou_lock_release(lock, NULL, ERR));
}

verrou_info verrou__conf_inspect(struct conf *c, verrou_lock *lock)
{
    verrou_info info = VERROU_INFO_INIT;

    EXPECT(VERROU_OK, verrou_lock_inspect(lock, NULL, &info, ERR));
    return info;
}

void verrou__conf_expect_free(struct conf *c, verrou_lock *lock)
{
    verrou_info info = verrou__conf_inspect(c, lock);
    int locked = -1;

    assert_int_equal(info.locked, 0);
    EXPECT(VERROU_OK, verrou_lock_is_locked(lock, NULL, &locked, ERR));
    assert_int_equal(locked, 0);
}

void verrou__conf_expect_held_by(struct conf *c, verrou_lock *holder)
{
    verrou_info info = verrou__conf_inspect(c, holder);
    int locked = -1;

    assert_int_equal(info.locked, 1);
    if (info.owner[0])
        assert_string_equal(info.owner, verrou__conf_owner(c, holder));
    EXPECT(VERROU_OK, verrou_lock_is_locked(holder, NULL, &locked, ERR));
    assert_int_equal(locked, 1);
}

void verrou__conf_wait_until(int64_t at_ms)
{
    int64_t left;

    while ((left = at_ms - verrou_now_ms()) > 0) {
        struct timespec pause = {left / 1000, (left % 1000) * 1000000};

        nanosleep(&pause, NULL);
    }
}

static int64_t patience_end(const struct conf *c)
{
    return verrou_now_ms() + c->suite->patience_ms;
}

static void patience_lost(struct conf *c, const char *what)
{
    c->suite->patience_ms = IMPATIENT_MS;
    fail_msg("%s", what);
}

void verrou__conf_let_expire(struct conf *c, verrou_lock *lock)
{
    int64_t end_ms = patience_end(c);

    while (verrou__conf_inspect(c, lock).locked) {
        if (verrou_now_ms() > end_ms)
            patience_lost(c, "the lease does not run out");
        verrou__conf_wait_until(verrou_now_ms() + 5);
    }
}

verrou_acquire_options verrou__conf_waiting(struct conf *c, int64_t delay_ms)
{
    verrou_acquire_options options = VERROU_ACQUIRE_OPTIONS_INIT;

    options.timeout_ms = c->suite->patience_ms;
    options.delay_ms = delay_ms;
    return options;
}

int64_t verrou__conf_delay(bool told)
{
    return told ? NEVER_MS : 30;
}

/* ---- threads ---- */

static void *thread_main(void *arg)
{
    struct thread_start *start = arg;

    start->run(start->arg);
    return NULL;
}

void verrou__conf_thread(struct conf *c, void (*run)(void *), void *arg)
{
    struct thread_start *start = verrou__conf_alloc(c, sizeof *start);
    pthread_t thread;

    start->run = run;
    start->arg = arg;
    assert_int_equal(pthread_create(&thread, NULL, thread_main, start), 0);
    remember(c, THREAD, NULL)->thread = thread;
}

void verrou__conf_join(struct conf *c)
{
    threads_join(c);
}

static void waiter_run(void *arg)
{
    struct conf_waiter *waiter = arg;

    waiter->status = verrou_lock_acquire(waiter->lock, &waiter->options, &waiter->info, NULL);
}

struct conf_waiter *verrou__conf_acquire_thread(struct conf *c, verrou_lock *lock,
                                                const verrou_acquire_options *options)
{
    struct conf_waiter *waiter = verrou__conf_alloc(c, sizeof *waiter);

    waiter->lock = lock;
    waiter->options = *options;
    waiter->info = (verrou_info)VERROU_INFO_INIT;
    verrou__conf_thread(c, waiter_run, waiter);
    return waiter;
}

/* ---- asynchronous calls ---- */

struct verrou__conf_answer *verrou__conf_answer(struct conf *c)
{
    struct verrou__conf_answer *answer = verrou__conf_alloc(c, sizeof *answer);

    answer->c = c;
    return answer;
}

/* Runs on the claim's own thread, the only one that dispatches. */
void verrou__conf_done(void *user, const verrou_result *result)
{
    struct verrou__conf_answer *answer = user;

    answer->count++;
    answer->order = ++answer->c->completions;
    answer->status = result->status;
    answer->has_error = result->error != NULL;
    answer->has_info = result->info != NULL;
    if (result->info)
        answer->info = *result->info;
    answer->listed = result->count;
}

verrou_queue *verrou__conf_queue(struct conf *c)
{
    if (!c->queue)
        EXPECT(VERROU_OK, verrou_queue_new(&c->queue, ERR));
    return c->queue;
}

/* Wait on the descriptor at most that long, then dispatch what is there. */
static void dispatch(struct conf *c, int64_t wait_ms)
{
    struct pollfd ready = {verrou_queue_fd(verrou__conf_queue(c)), POLLIN, 0};

    poll(&ready, 1, wait_ms > 0 ? (int)wait_ms : 0);
    verrou_dispatch(c->queue, 0);
}

void verrou__conf_await(struct conf *c, struct verrou__conf_answer *answer)
{
    int64_t end_ms = patience_end(c), left;

    while (answer->count == 0 && (left = end_ms - verrou_now_ms()) > 0)
        dispatch(c, left);
    if (answer->count == 0)
        patience_lost(c, "an asynchronous call is not answered");
    assert_int_equal(answer->count, 1);
}

void verrou__conf_drain(struct conf *c, int64_t for_ms)
{
    int64_t end_ms = verrou_now_ms() + for_ms, left;

    do {
        left = end_ms - verrou_now_ms();
        dispatch(c, left);
    } while (left > 0);
}

struct verrou__conf_answer *verrou__conf_acquire_async(struct conf *c, verrou_lock *lock,
                                                       const verrou_acquire_options *options)
{
    struct verrou__conf_answer *answer = verrou__conf_answer(c);

    EXPECT(VERROU_OK, verrou_lock_acquire_async(lock, options, verrou__conf_queue(c), verrou__conf_done, answer, ERR));
    return answer;
}
