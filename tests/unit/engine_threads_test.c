/*
 * engine_threads_test.c - the engine with its threads: a store that really blocks, many callers, short deadlines, cancels and closing
 * under load. What is counted must come out exactly; timing is not looked at. Meant to be run under ThreadSanitizer as well.
 */
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "core/host.h"

#define THREADS 64
#define KEYS 4

/* ---- a store that takes its time ---- */

struct slow_key {
    char owner[VERROU_MAX_OWNER + 1];
    int64_t expires_ms;
    uint64_t fence;
};

struct slow {
    pthread_mutex_t mutex;
    struct slow_key keys[KEYS];
    atomic_int lanes;
};

static void slow_op(struct slow *slow, verrou_op *op)
{
    struct slow_key *key = &slow->keys[op->key[0] - '0'];
    bool live = key->owner[0] && key->expires_ms > verrou_now_ms();
    bool own = live && op->owner && strcmp(key->owner, op->owner) == 0;

    op->result = VERROU_OP_APPLIED;
    if (op->kind == VERROU_OP_ACQUIRE && !live) {
        snprintf(key->owner, sizeof(key->owner), "%s", op->owner);
        key->expires_ms = verrou_now_ms() + op->ttl_ms;
        op->fence = ++key->fence;
    } else if (op->kind == VERROU_OP_RELEASE && own) {
        key->owner[0] = '\0';
    } else if (op->kind == VERROU_OP_EXTEND && own) {
        key->expires_ms = verrou_now_ms() + op->ttl_ms;
        op->fence = key->fence;
    } else {
        op->result = VERROU_OP_REFUSED;
        if (live)
            verrou__host.holder(op, key->owner, strlen(key->owner), key->expires_ms - verrou_now_ms(), key->fence);
    }
}

static verrou_status slow_execute(void *state, void *lane, verrou_op *const *ops, size_t n, int64_t deadline_ms,
                                  verrou_error *err)
{
    struct slow *slow = state;
    struct timespec while_ns = {0, 200000};

    (void)deadline_ms;
    (void)err;
    assert_int_equal(atomic_fetch_add((atomic_int *)lane, 1), 0); /* nobody else uses this lane */
    nanosleep(&while_ns, NULL);
    pthread_mutex_lock(&slow->mutex);
    for (size_t i = 0; i < n; i++)
        slow_op(slow, ops[i]);
    pthread_mutex_unlock(&slow->mutex);
    nanosleep(&while_ns, NULL);
    atomic_fetch_sub((atomic_int *)lane, 1);
    return VERROU_OK;
}

static verrou_status slow_open(void *state, int64_t deadline_ms, void **ret_lane, verrou_error *err)
{
    struct slow *slow = state;
    atomic_int *lane = verrou__calloc(sizeof(*lane));

    (void)deadline_ms;
    if (!lane)
        return verrou__nomem(err);
    atomic_fetch_add(&slow->lanes, 1);
    *ret_lane = lane;
    return VERROU_OK;
}

static void slow_close(void *state, void *lane)
{
    struct slow *slow = state;

    atomic_fetch_sub(&slow->lanes, 1);
    verrou__free(lane);
}

static uint32_t slow_caps(void *state)
{
    (void)state;
    return VERROU_CAP_FENCE;
}

static const char *const no_settings[] = {NULL};
static const verrou_driver slow_driver = {
    .version = VERROU_STORE_VERSION,
    .settings = no_settings,
    .default_lanes = 2,
    .max_lanes = 2,
    .caps = slow_caps,
    .open = slow_open,
    .close = slow_close,
    .execute = slow_execute,
};

/* ---- load ---- */

static struct load {
    struct slow slow;
    verrou_store *store;
    int rounds;
    int64_t timeout_ms;    /* of every second thread; 0: none */
    verrou_cancel *cancel; /* for every third thread */
    int counters[KEYS];    /* guarded by the locks alone */
    atomic_int held[KEYS];
    atomic_int entered;
    atomic_int bad;
} load;

static const char *const keys[KEYS] = {"0", "1", "2", "3"};

/* Inside the lock: alone, and counted. */
static void be_inside(int key)
{
    if (atomic_fetch_add(&load.held[key], 1) != 0)
        atomic_fetch_add(&load.bad, 1);
    load.counters[key]++;
    atomic_fetch_add(&load.entered, 1);
    atomic_fetch_sub(&load.held[key], 1);
}

static void *worker(void *arg)
{
    int number = (int)(intptr_t)arg;

    for (int i = 0; i < load.rounds; i++) {
        verrou_acquire_options options = VERROU_ACQUIRE_OPTIONS_INIT;
        int key = (number + i) % KEYS;
        verrou_lock *lock = NULL;
        verrou_status status;

        if (load.timeout_ms && number % 2)
            options.timeout_ms = load.timeout_ms;
        if (number % 3 == 0)
            options.cancel = load.cancel;
        if (verrou_lock_new(load.store, keys[key], NULL, &lock, NULL) != VERROU_OK) {
            atomic_fetch_add(&load.bad, 1);
            break;
        }
        status = verrou_lock_acquire(lock, &options, NULL, NULL);
        if (status == VERROU_OK) {
            be_inside(key);
            if (verrou_lock_release(lock, NULL, NULL) != VERROU_OK)
                atomic_fetch_add(&load.bad, 1);
        } else if (!(status == VERROU_ENOTACQUIRED && options.timeout_ms > 0) &&
                   !(status == VERROU_EUNKNOWN && options.timeout_ms > 0) &&
                   !(status == VERROU_ESTORAGE && options.timeout_ms > 0) &&
                   !(status == VERROU_ECANCELED && options.cancel)) {
            atomic_fetch_add(&load.bad, 1);
        }
        verrou_lock_free(lock);
    }
    return NULL;
}

static void open_load(const char *url, int rounds)
{
    memset(&load, 0, sizeof(load));
    pthread_mutex_init(&load.slow.mutex, NULL);
    load.rounds = rounds;
    if (url)
        assert_int_equal(verrou_store_open(url, NULL, &load.store, NULL), VERROU_OK);
    else
        assert_int_equal(
            verrou__store_open_driver(&slow_driver, "slow:?timeout=60s", NULL, &load.slow, &load.store, NULL),
            VERROU_OK);
}

static void start_load(pthread_t *threads)
{
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, worker, (void *)(intptr_t)i), 0);
}

static void join_load(pthread_t *threads)
{
    int sum = 0;

    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < KEYS; i++)
        sum += load.counters[i];
    assert_int_equal(atomic_load(&load.bad), 0);
    assert_int_equal(sum, atomic_load(&load.entered));
}

static void close_load(void)
{
    verrou_store_close(load.store);
    assert_int_equal(atomic_load(&load.slow.lanes), 0);
    pthread_mutex_destroy(&load.slow.mutex);
}

/* Many threads, few keys, no deadlines: all of them get in, one at a time. */
static void run_pairs(const char *url, int rounds)
{
    pthread_t threads[THREADS];

    open_load(url, rounds);
    start_load(threads);
    join_load(threads);
    assert_int_equal(atomic_load(&load.entered), THREADS * rounds);
    close_load();
}

static void test_memory(void **state)
{
    (void)state;
    run_pairs("memory:", 300);
}

static void test_blocking_store(void **state)
{
    (void)state;
    run_pairs(NULL, 6);
}

/* Half of the threads have no time to lead a batch and leave early: nobody else is stuck or shut out by what they leave behind. */
static void test_short_deadlines(void **state)
{
    pthread_t threads[THREADS];

    (void)state;
    open_load(NULL, 6);
    load.timeout_ms = 5;
    start_load(threads);
    join_load(threads);
    close_load();
}

/* Cancelling from another thread, at any moment, races with success: no lock is left behind. */
static void test_cancels(void **state)
{
    pthread_t threads[THREADS];
    struct timespec a_little = {0, 5000000};

    (void)state;
    open_load(NULL, 6);
    assert_int_equal(verrou_cancel_new(&load.cancel, NULL), VERROU_OK);
    start_load(threads);
    nanosleep(&a_little, NULL);
    verrou_cancel_fire(load.cancel);
    join_load(threads);
    verrou_cancel_free(load.cancel);
    close_load();
}

static void *waiter(void *arg)
{
    verrou_status status = verrou_lock_acquire(arg, NULL, NULL, NULL);

    if (status != VERROU_ECLOSED)
        atomic_fetch_add(&load.bad, 1);
    return NULL;
}

static void count_closed(void *user, const verrou_result *result)
{
    *(int *)user += result->status == VERROU_ECLOSED;
}

/* Closing ends those who sleep and those who poll, at whatever point they are. */
static void close_under_load(const char *url)
{
    pthread_t threads[THREADS];
    verrou_lock *locks[THREADS];
    verrou_lock *holder = NULL;
    verrou_queue *queue = NULL;
    int closed = 0;

    open_load(url, 0);
    assert_int_equal(verrou_queue_new(&queue, NULL), VERROU_OK);
    assert_int_equal(verrou_lock_new(load.store, "0", NULL, &holder, NULL), VERROU_OK);
    assert_int_equal(verrou_lock_acquire(holder, NULL, NULL, NULL), VERROU_OK);
    for (int i = 0; i < THREADS; i++) {
        assert_int_equal(verrou_lock_new(load.store, "0", NULL, &locks[i], NULL), VERROU_OK);
        assert_int_equal(verrou_lock_acquire_async(locks[i], NULL, queue, count_closed, &closed, NULL), VERROU_OK);
        if (!url)
            assert_int_equal(pthread_create(&threads[i], NULL, waiter, locks[i]), 0);
    }
    verrou_store_close(load.store);
    for (int i = 0; i < THREADS; i++) {
        if (!url)
            pthread_join(threads[i], NULL);
        verrou_lock_free(locks[i]);
    }
    verrou_dispatch(queue, 0);
    assert_int_equal(closed, THREADS);
    assert_int_equal(atomic_load(&load.bad), 0);
    verrou_lock_free(holder);
    verrou_queue_free(queue);
    pthread_mutex_destroy(&load.slow.mutex);
}

static void test_close_blocking_store(void **state)
{
    (void)state;
    for (int i = 0; i < 5; i++)
        close_under_load(NULL);
}

static void test_close_memory(void **state)
{
    (void)state;
    for (int i = 0; i < 5; i++)
        close_under_load("memory:");
}

static void *until_closed(void *lock)
{
    verrou_status status;

    do {
        status = verrou_lock_acquire_immediately(lock, NULL, NULL);
        if (status == VERROU_OK)
            status = verrou_lock_release(lock, NULL, NULL);
    } while (status == VERROU_OK);
    if (status != VERROU_ECLOSED)
        atomic_fetch_add(&load.bad, 1);
    return NULL;
}

/* A memory store is closed while handles of it are used: they are told so, and touch nothing that is gone. */
static void test_close_memory_in_use(void **state)
{
    pthread_t threads[KEYS];
    verrou_lock *locks[KEYS];

    (void)state;
    for (int round = 0; round < 50; round++) {
        open_load("memory:", 0);
        for (int i = 0; i < KEYS; i++) {
            assert_int_equal(verrou_lock_new(load.store, keys[i], NULL, &locks[i], NULL), VERROU_OK);
            assert_int_equal(pthread_create(&threads[i], NULL, until_closed, locks[i]), 0);
        }
        verrou_store_close(load.store);
        for (int i = 0; i < KEYS; i++) {
            pthread_join(threads[i], NULL);
            verrou_lock_free(locks[i]);
        }
        assert_int_equal(atomic_load(&load.bad), 0);
        pthread_mutex_destroy(&load.slow.mutex);
    }
}

/* ---- single moments ---- */

/* A driver whose execute(), list() and close() wait until they are told to go on. */
static struct gate {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    bool executing, listing, closing; /* it is there */
    bool go_on;
    bool destroyed;
    bool destroyed_while_closing;
    atomic_int closes;
    atomic_int calls;
    _Atomic int64_t deadline_ms; /* the latest that a call was given */
} gate;

static void gate_set(bool *flag)
{
    pthread_mutex_lock(&gate.mutex);
    *flag = true;
    pthread_cond_broadcast(&gate.changed);
    pthread_mutex_unlock(&gate.mutex);
}

/* False after `ms`; 0: no limit. */
static bool gate_wait(const bool *flag, int64_t ms)
{
    struct timespec until;
    bool set;

    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += (time_t)(ms / 1000);
    until.tv_nsec += (long)(ms % 1000) * 1000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_nsec -= 1000000000;
        until.tv_sec++;
    }
    pthread_mutex_lock(&gate.mutex);
    while (!*flag && (ms == 0 ? pthread_cond_wait(&gate.changed, &gate.mutex)
                              : pthread_cond_timedwait(&gate.changed, &gate.mutex, &until)) == 0)
        ;
    set = *flag;
    pthread_mutex_unlock(&gate.mutex);
    return set;
}

static void gate_note(int64_t deadline_ms)
{
    atomic_fetch_add(&gate.calls, 1);
    atomic_store(&gate.deadline_ms, deadline_ms);
}

static verrou_status gate_open(void *state, int64_t deadline_ms, void **ret_lane, verrou_error *err)
{
    gate_note(deadline_ms);
    (void)err;
    *ret_lane = state;
    return VERROU_OK;
}

static void gate_close(void *state, void *lane)
{
    (void)state;
    (void)lane;
    atomic_fetch_add(&gate.closes, 1);
    gate_set(&gate.closing);
    /* Whoever destroys the store while this goes on does so within the time. */
    if (gate_wait(&gate.destroyed, 200))
        gate.destroyed_while_closing = true;
}

static void gate_destroy(void *state)
{
    (void)state;
    gate_set(&gate.destroyed);
}

/* Key "w" comes through at once, and releases do; the others wait, and the connection breaks: "u" may have been done. */
static verrou_status gate_execute(void *state, void *lane, verrou_op *const *ops, size_t n, int64_t deadline_ms,
                                  verrou_error *err)
{
    (void)state;
    (void)lane;
    gate_note(deadline_ms);
    for (size_t i = 0; i < n; i++) {
        bool is_done = ops[i]->key[0] == 'w' || ops[i]->kind == VERROU_OP_RELEASE;

        ops[i]->result = is_done ? VERROU_OP_APPLIED : ops[i]->key[0] == 'u' ? VERROU_OP_UNKNOWN : VERROU_OP_REFUSED;
    }
    if (ops[0]->result == VERROU_OP_APPLIED)
        return VERROU_OK;
    gate_set(&gate.executing);
    gate_wait(&gate.go_on, 0);
    return verrou_error_set(err, VERROU_ESTORAGE, 1, NULL, "broken");
}

static const verrou_driver gate_driver = {
    .version = VERROU_STORE_VERSION,
    .settings = no_settings,
    .default_lanes = 1,
    .max_lanes = 2,
    .destroy = gate_destroy,
    .caps = slow_caps,
    .open = gate_open,
    .close = gate_close,
    .execute = gate_execute,
};

static void gate_begin(const char *settings, verrou_store **ret_store, verrou_lock **ret_warm)
{
    memset(&gate, 0, sizeof(gate));
    pthread_mutex_init(&gate.mutex, NULL);
    pthread_cond_init(&gate.changed, NULL);
    assert_int_equal(verrou__store_open_driver(&gate_driver, settings, NULL, &gate, ret_store, NULL), VERROU_OK);
    /* The first connection is a worker's: after it, callers lead. */
    assert_int_equal(verrou_lock_new(*ret_store, "w", NULL, ret_warm, NULL), VERROU_OK);
    assert_int_equal(verrou_lock_acquire(*ret_warm, NULL, NULL, NULL), VERROU_OK);
}

static void *closer(void *store)
{
    verrou_store_close(store);
    return NULL;
}

/* Closing waits for a caller who is closing the connection that broke under it. */
static void test_close_while_leader_closes_lane(void **state)
{
    verrou_store *store = NULL;
    verrou_lock *warm = NULL;
    verrou_lock *lock = NULL;
    pthread_t leading;
    pthread_t closing;

    (void)state;
    atomic_store(&load.bad, 0);
    gate_begin("gate:?timeout=60s&lanes=1", &store, &warm);
    assert_int_equal(verrou_lock_new(store, "k", NULL, &lock, NULL), VERROU_OK);
    assert_int_equal(pthread_create(&leading, NULL, waiter, lock), 0);
    gate_wait(&gate.executing, 0);
    assert_int_equal(pthread_create(&closing, NULL, closer, store), 0);
    while (verrou_lock_acquire_immediately(warm, NULL, NULL) != VERROU_ECLOSED)
        sched_yield();
    gate_set(&gate.go_on);
    pthread_join(closing, NULL);
    pthread_join(leading, NULL);
    assert_false(gate.destroyed_while_closing);
    assert_int_equal(atomic_load(&gate.closes), 1);
    verrou_lock_free(lock);
    verrou_lock_free(warm);
}

/*
 * A call that is in flight when the store is closed leaves something to release, over a connection that has to be made first. Neither gets
 * more time than closing has.
 */
static void test_close_has_a_limit(void **state)
{
    enum { LIMIT_MS = 60000 };
    verrou_store *store = NULL;
    verrou_lock *warm = NULL;
    verrou_lock *lock = NULL;
    pthread_t leading;
    pthread_t closing;
    int64_t closed_ms;
    int calls;

    (void)state;
    atomic_store(&load.bad, 0);
    gate_begin("gate:?timeout=60s&lanes=1", &store, &warm);
    assert_int_equal(verrou_lock_new(store, "u", NULL, &lock, NULL), VERROU_OK);
    assert_int_equal(pthread_create(&leading, NULL, waiter, lock), 0);
    gate_wait(&gate.executing, 0);
    assert_int_equal(pthread_create(&closing, NULL, closer, store), 0);
    while (verrou_lock_acquire_immediately(warm, NULL, NULL) != VERROU_ECLOSED)
        sched_yield();
    closed_ms = verrou_now_ms();
    while (verrou_now_ms() <= closed_ms) /* what begins from here on would have a later limit */
        sched_yield();
    calls = atomic_load(&gate.calls);
    gate_set(&gate.go_on);
    pthread_join(closing, NULL);
    pthread_join(leading, NULL);
    assert_int_equal(atomic_load(&gate.calls), calls + 2); /* one connection, one release */
    assert_true(atomic_load(&gate.deadline_ms) <= closed_ms + LIMIT_MS);
    verrou_lock_free(lock);
    verrou_lock_free(warm);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_memory),
        cmocka_unit_test(test_blocking_store),
        cmocka_unit_test(test_short_deadlines),
        cmocka_unit_test(test_cancels),
        cmocka_unit_test(test_close_blocking_store),
        cmocka_unit_test(test_close_memory),
        cmocka_unit_test(test_close_memory_in_use),
        cmocka_unit_test(test_close_while_leader_closes_lane),
        cmocka_unit_test(test_close_has_a_limit),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
