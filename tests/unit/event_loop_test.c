/*
 * event_loop_test.c - what bindings for event loops use: taking a lock without a wait, a log level that changes, keys beyond the common limit.
 */
#include "core/core.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static verrou_store *open_store(const char *url, const verrou_store_options *options)
{
    verrou_store *store = NULL;

    assert_int_equal(verrou_store_open(url, options, &store, NULL), VERROU_OK);
    return store;
}

static verrou_lock *make_lock(verrou_store *store, const char *key)
{
    verrou_lock *lock = NULL;

    assert_int_equal(verrou_lock_new(store, key, NULL, &lock, NULL), VERROU_OK);
    return lock;
}

static void done(void *user, const verrou_result *result)
{
    *(verrou_status *)user = result->status;
}

static void take(void **state)
{
    verrou_acquire_options wrong = VERROU_ACQUIRE_OPTIONS_INIT;
    verrou_store *store = open_store("memory:", NULL);
    verrou_lock *first = make_lock(store, "key"), *second = make_lock(store, "key"), *third = make_lock(store, "key");
    verrou_info info = VERROU_INFO_INIT;
    verrou_queue *queue = NULL;
    verrou_status answer = VERROU_EINVAL;
    char *told = NULL, *had = NULL;

    (void)state;
    wrong.attempts = 0;
    assert_true(verrou_store_caps(store) & VERROU_CAP_IMMEDIATE);
    assert_int_equal(verrou_lock_take(first, &wrong, NULL, NULL), VERROU_EINVAL);
    assert_int_equal(verrou_lock_take(first, NULL, &info, NULL), VERROU_OK);
    assert_true(info.locked && info.fence == verrou_lock_fence(first));
    assert_int_equal(verrou_lock_owner(second, &told, NULL), VERROU_OK);
    assert_int_equal(verrou_lock_take(second, NULL, NULL, NULL), VERROU_ENOTACQUIRED);
    assert_int_equal(verrou_lock_check(second), VERROU_ENOTOWNED);

    /* Nobody is passed by: a released key goes to who waits for it. */
    assert_int_equal(verrou_queue_new(&queue, NULL), VERROU_OK);
    assert_int_equal(verrou_lock_acquire_async(second, NULL, queue, done, &answer, NULL), VERROU_OK);
    assert_int_equal(verrou_lock_release(first, NULL, NULL), VERROU_OK);
    assert_int_equal(verrou_lock_take(third, NULL, NULL, NULL), VERROU_ENOTACQUIRED);
    assert_int_equal(verrou_dispatch(queue, 0), 1);
    assert_int_equal(answer, VERROU_OK);
    assert_int_equal(verrou_lock_check(second), VERROU_OK);
    assert_int_equal(verrou_lock_owner(second, &had, NULL), VERROU_OK);
    assert_string_equal(had, told); /* what was not taken has used up no owner */

    verrou_free(told);
    verrou_free(had);
    verrou_queue_free(queue);
    verrou_lock_free(first);
    verrou_lock_free(second);
    verrou_lock_free(third);
    verrou_store_close(store);
}

static void count(void *user, const verrou_log_record *record)
{
    (void)record;
    ++*(int *)user;
}

static void log_level(void **state)
{
    verrou_store_options options = VERROU_STORE_OPTIONS_INIT;
    int records = 0;
    verrou_store *store;
    verrou_lock *lock;

    (void)state;
    options.log = count;
    options.log_user = &records;
    options.log_level = VERROU_WARN;
    store = open_store("memory:", &options);
    lock = make_lock(store, "key");
    assert_int_equal(verrou_lock_acquire(lock, NULL, NULL, NULL), VERROU_OK);
    assert_int_equal(records, 0);
    verrou_store_set_log_level(store, VERROU_DEBUG);
    assert_int_equal(verrou_lock_release(lock, NULL, NULL), VERROU_OK);
    assert_int_equal(records, 1);
    verrou_store_set_log_level(store, VERROU_WARN);
    assert_int_equal(verrou_lock_acquire(lock, NULL, NULL, NULL), VERROU_OK);
    assert_int_equal(records, 1);
    verrou_lock_free(lock);
    verrou_store_close(store);
    verrou_store_set_log_level(NULL, VERROU_WARN);
}

static void long_keys(void **state)
{
    verrou_store_options options = VERROU_STORE_OPTIONS_INIT;
    verrou_store *store = NULL;
    verrou_lock *lock = NULL, *restored = NULL;
    verrou_info info = VERROU_INFO_INIT;
    char key[302], *json = NULL;

    (void)state;
    memset(key, 'x', sizeof(key));
    key[297] = '\0';
    options.max_key = 300;
    store = open_store("memory:?prefix=abc", &options);
    lock = make_lock(store, key);
    assert_int_equal(verrou_lock_acquire(lock, NULL, NULL, NULL), VERROU_OK);
    assert_int_equal(verrou_store_inspect(store, key, NULL, &info, NULL), VERROU_OK);
    assert_int_equal(info.locked, 1);
    assert_int_equal(verrou_lock_serialize(lock, &json, NULL), VERROU_OK);
    assert_int_equal(verrou_lock_restore(store, json, NULL, &restored, NULL), VERROU_OK);
    assert_int_equal(verrou_lock_release(restored, NULL, NULL), VERROU_OK);
    assert_int_equal(verrou_store_inspect(store, key, NULL, &info, NULL), VERROU_OK);
    assert_int_equal(info.locked, 0);
    verrou_lock_free(restored);

    key[297] = 'x';
    key[298] = '\0';
    assert_int_equal(verrou_lock_new(store, key, NULL, &restored, NULL), VERROU_EINVAL);
    assert_int_equal(verrou_store_force_release(store, key, NULL, NULL), VERROU_EINVAL);
    verrou_free(json);
    verrou_lock_free(lock);
    verrou_store_close(store);

    options.max_key = 60001;
    assert_int_equal(verrou_store_open("memory:", &options, &store, NULL), VERROU_ECONFIG);
    key[256] = '\0';
    store = open_store("memory:", NULL);
    assert_int_equal(verrou_lock_new(store, key, NULL, &lock, NULL), VERROU_EINVAL);
    verrou_store_close(store);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(take),
        cmocka_unit_test(log_level),
        cmocka_unit_test(long_keys),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
