/*
 * fixture.h - what the tests of the engine share: one world, a completion queue, and short ways to start calls.
 */
#ifndef VERROU_TESTS_FIXTURE_H
#define VERROU_TESTS_FIXTURE_H

#include "scripted.h"

#include <stdlib.h>
#include <string.h>

/* What the local end of a lease allows for clocks that count whole milliseconds. */
#define ROUNDING_MS 1

static struct world world;
static verrou_queue *queue;

static inline void dispatch(struct world *of)
{
    (void)of;
    verrou_dispatch(queue, 0);
}

static inline int setup(void **state)
{
    (void)state;
    world_init(&world);
    world.passing = dispatch;
    return verrou_queue_new(&queue, NULL) == VERROU_OK ? 0 : -1;
}

static inline int teardown(void **state)
{
    (void)state;
    world_done(&world);
    verrou_queue_free(queue);
    return 0;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

static inline verrou_lock *new_lock(struct process *process, const char *key, int64_t ttl_ms)
{
    verrou_lock_options options = VERROU_LOCK_OPTIONS_INIT;
    verrou_lock *lock = NULL;

    options.ttl_ms = ttl_ms;
    assert_int_equal(verrou_lock_new(process->store, key, &options, &lock, NULL), VERROU_OK);
    return lock;
}

static inline verrou_lock *new_kept_lock(struct process *process, const char *key, int64_t ttl_ms, int64_t max_hold_ms)
{
    verrou_lock_options options = VERROU_LOCK_OPTIONS_INIT;
    verrou_lock *lock = NULL;

    options.ttl_ms = ttl_ms;
    options.keep_alive = 1;
    options.max_hold_ms = max_hold_ms;
    assert_int_equal(verrou_lock_new(process->store, key, &options, &lock, NULL), VERROU_OK);
    return lock;
}

static inline verrou_lock *new_owned_lock(struct process *process, const char *key, int64_t ttl_ms, const char *owner)
{
    verrou_lock_options options = VERROU_LOCK_OPTIONS_INIT;
    verrou_lock *lock = NULL;

    options.ttl_ms = ttl_ms;
    options.owner = owner;
    assert_int_equal(verrou_lock_new(process->store, key, &options, &lock, NULL), VERROU_OK);
    return lock;
}

/* timeout_ms VERROU_FOREVER: none. */
static inline void start_acquire_with(struct outcome *outcome, verrou_lock *lock, int64_t timeout_ms, int64_t attempts,
                                      verrou_cancel *cancel)
{
    verrou_acquire_options options = VERROU_ACQUIRE_OPTIONS_INIT;

    memset(outcome, 0, sizeof(*outcome));
    outcome->world = &world;
    options.timeout_ms = timeout_ms;
    options.attempts = attempts;
    options.cancel = cancel;
    assert_int_equal(verrou_lock_acquire_async(lock, &options, queue, outcome_done, outcome, NULL), VERROU_OK);
}

static inline void start_acquire(struct outcome *outcome, verrou_lock *lock, int64_t timeout_ms)
{
    start_acquire_with(outcome, lock, timeout_ms, VERROU_FOREVER, NULL);
}

static inline verrou_call_options within(int64_t timeout_ms)
{
    verrou_call_options options = VERROU_CALL_OPTIONS_INIT;

    options.timeout_ms = timeout_ms;
    return options;
}

static inline void start_release(struct outcome *outcome, verrou_lock *lock, int64_t timeout_ms)
{
    verrou_call_options options = within(timeout_ms);

    memset(outcome, 0, sizeof(*outcome));
    outcome->world = &world;
    assert_int_equal(verrou_lock_release_async(lock, &options, queue, outcome_done, outcome, NULL), VERROU_OK);
}

static inline void start_extend(struct outcome *outcome, verrou_lock *lock, int64_t ttl_ms, int64_t timeout_ms)
{
    verrou_call_options options = within(timeout_ms);

    memset(outcome, 0, sizeof(*outcome));
    outcome->world = &world;
    assert_int_equal(verrou_lock_extend_async(lock, ttl_ms, &options, queue, outcome_done, outcome, NULL), VERROU_OK);
}

static inline void start_wait_lost(struct outcome *outcome, verrou_lock *lock, int64_t timeout_ms)
{
    verrou_call_options options = within(timeout_ms);

    memset(outcome, 0, sizeof(*outcome));
    outcome->world = &world;
    assert_int_equal(verrou_lock_wait_lost_async(lock, &options, queue, outcome_done, outcome, NULL), VERROU_OK);
}

static inline void assert_done(const struct outcome *outcome, verrou_status status)
{
    assert_int_equal(outcome->done, 1);
    if (outcome->status != status)
        print_error("%s instead of %s: %s\n", verrou_status_name(outcome->status), verrou_status_name(status),
                    outcome->error.message);
    assert_int_equal(outcome->status, status);
}

/* Acquire at once, with an honest store. */
static inline void hold(verrou_lock *lock)
{
    struct outcome outcome;

    start_acquire(&outcome, lock, VERROU_FOREVER);
    world_settle(&world);
    assert_done(&outcome, VERROU_OK);
}

#endif
