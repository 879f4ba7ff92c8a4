/*
 * engine_memory_test.c - every allocation of the main paths fails once: calls answer "out of memory" or succeed all the same, nothing
 * leaks, and no lock stays behind that nobody was told of.
 */
#include "../support/failing_alloc.h"
#include "support/fixture.h"

typedef void (*path)(struct process *process);

/* Succeeded, or failed for want of memory. */
static bool got(const struct outcome *outcome)
{
    assert_int_equal(outcome->done, 1);
    assert_true(outcome->status == VERROU_OK || (failing_alloc.failed && outcome->status == VERROU_ENOMEM));
    return outcome->status == VERROU_OK;
}

static bool accepted(verrou_status status)
{
    assert_true(status == VERROU_OK || (failing_alloc.failed && status == VERROU_ENOMEM));
    return status == VERROU_OK;
}

static verrou_lock *make(struct process *process, int keep_alive)
{
    verrou_lock_options options = VERROU_LOCK_OPTIONS_INIT;
    verrou_lock *lock = NULL;

    options.ttl_ms = 3000;
    options.label = "label";
    options.keep_alive = keep_alive;
    return accepted(verrou_lock_new(process->store, "k", &options, &lock, NULL)) ? lock : NULL;
}

static bool acquire(verrou_lock *lock)
{
    struct outcome outcome = {.world = &world};

    if (!accepted(verrou_lock_acquire_async(lock, NULL, queue, outcome_done, &outcome, NULL)))
        return false;
    world_pass(&world, 1000);
    return got(&outcome);
}

static bool release(verrou_lock *lock)
{
    struct outcome outcome = {.world = &world};

    if (!accepted(verrou_lock_release_async(lock, NULL, queue, outcome_done, &outcome, NULL)))
        return false;
    world_pass(&world, 1000);
    return got(&outcome);
}

/* What the handle believes is what the store says. */
static void assert_agreed(verrou_lock *lock)
{
    assert_int_equal(verrou_lock_check(lock) == VERROU_OK, world_held(&world, "k"));
}

static void acquire_and_release(struct process *process)
{
    verrou_lock *lock = make(process, 0);

    if (!lock)
        return;
    if (acquire(lock)) {
        assert_agreed(lock);
        release(lock);
    }
    assert_agreed(lock);
    verrou_lock_free(lock);
}

static void extend(struct process *process)
{
    struct outcome outcome = {.world = &world};
    verrou_lock *lock = make(process, 0);

    if (!lock)
        return;
    if (acquire(lock) && accepted(verrou_lock_extend_async(lock, 9000, NULL, queue, outcome_done, &outcome, NULL))) {
        world_settle(&world);
        assert_int_equal(verrou_lock_remaining_ms(lock) > 3000, got(&outcome));
    }
    assert_agreed(lock);
    verrou_lock_free(lock);
}

/* A waiter behind a stranger, watched; the answers name the holder, which takes memory too. */
static void wait_for_stranger(struct process *process)
{
    verrou_lock *lock = make(process, 0);

    world_seize(&world, "k", "stranger", 500);
    if (!lock)
        return;
    acquire(lock);
    world_pass(&world, 500); /* the stranger's lease is over in any case */
    assert_agreed(lock);
    verrou_lock_free(lock);
}

static void lost_answers(struct process *process)
{
    verrou_lock *lock = make(process, 0);

    if (!lock)
        return;
    world_script(&world, (struct turn){.fate = LOSE_REPLY});
    if (acquire(lock)) {
        world_script(&world, (struct turn){.fate = LOSE_LANE});
        release(lock);
    }
    assert_agreed(lock);
    verrou_lock_free(lock);
}

static void keep_alive(struct process *process)
{
    static struct outcome outcome; /* the wait may last longer than this function */
    verrou_lock *lock = make(process, 1);

    memset(&outcome, 0, sizeof(outcome));
    outcome.world = &world;
    if (!lock)
        return;
    if (acquire(lock)) {
        bool waiting = accepted(verrou_lock_wait_lost_async(lock, NULL, queue, outcome_done, &outcome, NULL));

        world_pass(&world, 10000);
        assert_int_equal(verrou_lock_check(lock), VERROU_OK);
        release(lock);
        world_pass(&world, 10000);
        if (waiting)
            assert_int_equal(outcome.done, verrou_lock_check(lock) != VERROU_OK);
    }
    verrou_lock_free(lock);
}

static void list_done(void *user, const verrou_result *result)
{
    assert_true(result->status == VERROU_ENOMEM || (result->status == VERROU_OK && result->count == 2));
    ++*(int *)user;
}

static void list(struct process *process)
{
    int done = 0;

    world_seize(&world, "k", "stranger", VERROU_FOREVER);
    world_seize(&world, "l", "stranger", VERROU_FOREVER);
    if (!accepted(verrou_store_list_async(process->store, NULL, NULL, queue, list_done, &done, NULL)))
        return;
    world_settle(&world);
    assert_int_equal(done, 1);
}

static void count_trial(void *user, verrou_level level, const char *subject, const char *finding)
{
    (void)level;
    (void)finding;
    *(int *)user += strcmp(subject, "trial") == 0;
}

/* No finding is lost: a check either fails, or says how the trial went. The acquisition leaves a lane, by which the check can lead. */
static void check(struct process *process)
{
    verrou_lock *lock = make(process, 0);
    int trials = 0;

    if (!lock)
        return;
    if (acquire(lock) && accepted(verrou_store_check(process->store, NULL, count_trial, &trials, NULL)))
        assert_int_equal(trials, 1);
    verrou_lock_free(lock);
}

static void ignore_record(void *user, const verrou_log_record *record)
{
    (void)user;
    (void)record;
}

/* Make the n-th allocation fail, for all n. */
static void fail_each(path run)
{
    for (long n = 0;; n++) {
        struct world_options options = {.settings = "timeout=1s", .watch = true, .log = ignore_record};
        long before = failing_alloc.live;
        struct process *process;

        failing_alloc.until = -1;
        failing_alloc.failed = false;
        setup(NULL);
        process = world_open(&world, &options);
        assert_non_null(process);
        failing_alloc.until = n;
        run(process);
        failing_alloc.until = -1;
        world_pass(&world, 100000);
        world_pass(&world, 1);
        assert_int_equal(world_held(&world, "k"), run == list);
        teardown(NULL);
        assert_int_equal(failing_alloc.live, before);
        if (!failing_alloc.failed) {
            assert_true(n > 3);
            return;
        }
    }
}

static void test_acquire_and_release(void **state)
{
    (void)state;
    fail_each(acquire_and_release);
}

static void test_check(void **state)
{
    (void)state;
    fail_each(check);
}

static void test_extend(void **state)
{
    (void)state;
    fail_each(extend);
}

static void test_wait_for_stranger(void **state)
{
    (void)state;
    fail_each(wait_for_stranger);
}

static void test_lost_answers(void **state)
{
    (void)state;
    fail_each(lost_answers);
}

static void test_keep_alive(void **state)
{
    (void)state;
    fail_each(keep_alive);
}

static void test_list(void **state)
{
    (void)state;
    fail_each(list);
}

/* Opening a store. */
static void test_open(void **state)
{
    struct world_options options = {.settings = "timeout=1s&prefix=p:", .watch = true, .log = ignore_record};

    (void)state;
    for (long n = 0;; n++) {
        long before = failing_alloc.live;
        struct process *process;

        world_init(&world);
        failing_alloc.failed = false;
        failing_alloc.until = n;
        process = world_open(&world, &options);
        failing_alloc.until = -1;
        assert_int_equal(process == NULL, failing_alloc.failed);
        world_done(&world);
        assert_int_equal(failing_alloc.live, before);
        if (!failing_alloc.failed)
            return;
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_acquire_and_release),
        cmocka_unit_test(test_extend),
        cmocka_unit_test(test_check),
        cmocka_unit_test(test_wait_for_stranger),
        cmocka_unit_test(test_lost_answers),
        cmocka_unit_test(test_keep_alive),
        cmocka_unit_test(test_list),
        cmocka_unit_test(test_open),
    };

    failing_alloc_install();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
