/* engine_calls_test.c - cancelling and closing in every state, completions, lanes, batches, and stores that cannot be opened. */
#include "support/fixture.h"

#include <poll.h>
#include <stdio.h>

static struct process *process;
static verrou_cancel *cancel;

static int setup_process(void **state)
{
    struct world_options options = {.settings = "timeout=1s"};

    if (setup(state) < 0 || verrou_cancel_new(&cancel, NULL) != VERROU_OK)
        return -1;
    process = world_open(&world, &options);
    return process ? 0 : -1;
}

static int teardown_process(void **state)
{
    verrou_cancel_free(cancel);
    return teardown(state);
}

#undef TEST
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup_process, teardown_process)

/* ---- cancelling ---- */

static void assert_cancels(struct outcome *outcome)
{
    verrou_cancel_fire(cancel);
    verrou_dispatch(queue, 0);
    assert_done(outcome, VERROU_ECANCELED);
    world_pass(&world, 5000);
    assert_int_equal(outcome->done, 1);
}

/* A token fired before the call ends it at once; nothing is asked. */
static void test_cancel_before(void **state)
{
    verrou_lock *lock = new_lock(process, "k", 30000);
    struct outcome outcome;

    (void)state;
    verrou_cancel_fire(cancel);
    start_acquire_with(&outcome, lock, VERROU_FOREVER, VERROU_FOREVER, cancel);
    world_settle(&world);
    assert_done(&outcome, VERROU_ECANCELED);
    assert_int_equal(world.request_count, 0);
    verrou_lock_free(lock);
}

/* Cancelled while its request waits for a lane: nothing is asked. */
static void test_cancel_queued(void **state)
{
    verrou_lock *lock = new_lock(process, "k", 30000);
    struct outcome outcome;

    (void)state;
    start_acquire_with(&outcome, lock, VERROU_FOREVER, VERROU_FOREVER, cancel);
    assert_cancels(&outcome);
    assert_int_equal(world.request_count, 0);
    verrou_lock_free(lock);
}

/* Cancelled while asleep: the next waiter takes over and is served. */
static void test_cancel_asleep(void **state)
{
    verrou_lock *lock = new_lock(process, "k", 30000);
    verrou_lock *next = new_lock(process, "k", 30000);
    struct outcome outcome;
    struct outcome after;

    (void)state;
    world_seize(&world, "k", "stranger", 1000);
    start_acquire_with(&outcome, lock, VERROU_FOREVER, VERROU_FOREVER, cancel);
    start_acquire(&after, next, VERROU_FOREVER);
    world_settle(&world);
    assert_cancels(&outcome);
    assert_done(&after, VERROU_OK);
    verrou_lock_free(lock);
    verrou_lock_free(next);
}

/* Cancelled behind another: the first one does not notice. */
static void test_cancel_behind(void **state)
{
    verrou_lock *first = new_lock(process, "k", 30000);
    verrou_lock *lock = new_lock(process, "k", 30000);
    struct outcome before;
    struct outcome outcome;

    (void)state;
    world_seize(&world, "k", "stranger", 1000);
    start_acquire(&before, first, VERROU_FOREVER);
    start_acquire_with(&outcome, lock, VERROU_FOREVER, VERROU_FOREVER, cancel);
    world_settle(&world);
    assert_cancels(&outcome);
    assert_done(&before, VERROU_OK);
    verrou_lock_free(first);
    verrou_lock_free(lock);
}

/* Cancelled in a pause after a passing failure. */
static void test_cancel_paused(void **state)
{
    verrou_lock *lock = new_lock(process, "k", 30000);
    struct outcome outcome;

    (void)state;
    world_script(&world, (struct turn){.fate = SAY_RETRY});
    start_acquire_with(&outcome, lock, VERROU_FOREVER, VERROU_FOREVER, cancel);
    world_settle(&world);
    assert_cancels(&outcome);
    assert_int_equal(world.request_count, 1);
    verrou_lock_free(lock);
}

static int64_t fire_at_ms;

static void fire_in_flight(struct world *of)
{
    verrou_dispatch(queue, 0);
    if (of->now_ms == fire_at_ms)
        verrou_cancel_fire(cancel);
}

/* Cancelled while its request is on its way: answered at once; the lock that it gets all the same is given back. */
static void test_cancel_flying(void **state)
{
    verrou_lock *lock = new_lock(process, "k", 30000);
    struct outcome outcome;
    int64_t began_ms = world.now_ms;

    (void)state;
    fire_at_ms = began_ms + 100;
    world.passing = fire_in_flight;
    world_script(&world, (struct turn){.before_ms = 100, .after_ms = 100});
    start_acquire_with(&outcome, lock, VERROU_FOREVER, VERROU_FOREVER, cancel);
    world_pass(&world, 300);
    assert_done(&outcome, VERROU_ECANCELED);
    assert_int_equal(outcome.at_ms, began_ms + 100);
    assert_int_equal(world_truth(&world, "k")->fence, 1); /* it was granted */
    assert_false(world_held(&world, "k"));
    assert_int_equal(verrou_lock_check(lock), VERROU_ENOTOWNED);
    verrou_lock_free(lock);
}

/* Fired after the answer: the call stays acquired. */
static void test_cancel_too_late(void **state)
{
    verrou_lock *lock = new_lock(process, "k", 30000);
    struct outcome outcome;

    (void)state;
    start_acquire_with(&outcome, lock, VERROU_FOREVER, VERROU_FOREVER, cancel);
    world_settle(&world);
    verrou_cancel_fire(cancel);
    world_settle(&world);
    assert_done(&outcome, VERROU_OK);
    assert_true(world_held(&world, "k"));
    verrou_lock_free(lock);
}

/* One token, many calls, freed while they use it. */
static void test_cancel_many_and_free(void **state)
{
    verrou_lock *locks[10];
    struct outcome outcomes[10];
    verrou_cancel *own = NULL;

    (void)state;
    assert_int_equal(verrou_cancel_new(&own, NULL), VERROU_OK);
    world_seize(&world, "k", "stranger", VERROU_FOREVER);
    for (int i = 0; i < 10; i++) {
        locks[i] = new_lock(process, "k", 30000);
        start_acquire_with(&outcomes[i], locks[i], 500, VERROU_FOREVER, i < 5 ? cancel : own);
    }
    world_settle(&world);
    verrou_cancel_free(own);
    verrou_cancel_fire(cancel);
    verrou_dispatch(queue, 0);
    for (int i = 0; i < 5; i++)
        assert_done(&outcomes[i], VERROU_ECANCELED);
    world_pass(&world, 500);
    for (int i = 0; i < 10; i++) {
        assert_done(&outcomes[i], i < 5 ? VERROU_ECANCELED : VERROU_ENOTACQUIRED);
        verrou_lock_free(locks[i]);
    }
}

/* ---- closing and freeing ---- */

/* Closing answers what is asleep, behind, in a pause, or waits for the end of a lease; once. Later calls are refused. */
static void test_close(void **state)
{
    verrou_lock *locks[4];
    struct outcome outcomes[4];
    verrou_error err = VERROU_ERROR_INIT;

    (void)state;
    for (int i = 0; i < 4; i++)
        locks[i] = new_lock(process, i == 2 ? "paused" : i == 3 ? "held" : "k", 30000);
    hold(locks[3]);
    world_seize(&world, "k", "stranger", VERROU_FOREVER);
    start_acquire(&outcomes[0], locks[0], VERROU_FOREVER);
    start_acquire(&outcomes[1], locks[1], VERROU_FOREVER);
    world_settle(&world);
    world_script(&world, (struct turn){.fate = SAY_RETRY});
    start_acquire(&outcomes[2], locks[2], VERROU_FOREVER);
    start_wait_lost(&outcomes[3], locks[3], VERROU_FOREVER);
    world_settle(&world);
    world_close(process);
    verrou_dispatch(queue, 0);
    for (int i = 0; i < 4; i++)
        assert_done(&outcomes[i], VERROU_ECLOSED);
    assert_int_equal(verrou_lock_acquire(locks[0], NULL, NULL, &err), VERROU_ECLOSED);
    assert_int_equal(verrou_lock_check(locks[3]), VERROU_OK); /* leases are not released */
    for (int i = 0; i < 4; i++)
        verrou_lock_free(locks[i]);
}

/* A kept lease of a closed store falls due for renewal: nothing goes round in circles. */
static void test_renewal_after_close(void **state)
{
    verrou_lock *lock = new_kept_lock(process, "k", 3000, VERROU_FOREVER);

    (void)state;
    hold(lock);
    process->engine->closing = true;
    world_pass(&world, 4000);
    assert_int_equal(verrou_lock_check(lock), VERROU_ELOST);
    process->engine->closing = false;
    verrou_lock_free(lock);
}

/* The handle may be freed while its calls are pending; they complete as usual. */
static void test_free_handle_with_pending_call(void **state)
{
    verrou_lock *lock = new_lock(process, "k", 30000);
    struct outcome outcome;

    (void)state;
    world_seize(&world, "k", "stranger", 100);
    start_acquire(&outcome, lock, VERROU_FOREVER);
    verrou_lock_free(lock);
    world_pass(&world, 100);
    assert_done(&outcome, VERROU_OK);
}

/* Calls of a freed queue complete without being reported. */
static void test_free_queue_with_pending_call(void **state)
{
    verrou_lock *lock = new_lock(process, "k", 30000);
    struct outcome outcome;

    (void)state;
    start_acquire(&outcome, lock, VERROU_FOREVER);
    verrou_queue_free(queue);
    queue = NULL;
    world_settle(&world);
    assert_int_equal(outcome.done, 0);
    assert_int_equal(verrou_lock_check(lock), VERROU_OK);
    verrou_lock_free(lock);
}

/* The descriptor of a queue is readable exactly while completions wait; dispatching may be limited. */
static void test_queue_descriptor(void **state)
{
    verrou_lock *locks[3];
    struct outcome outcomes[3];
    struct pollfd fd = {verrou_queue_fd(queue), POLLIN, 0};

    (void)state;
    world.passing = NULL;
    for (int i = 0; i < 3; i++) {
        static const char *const keys[] = {"a", "b", "c"};

        locks[i] = new_lock(process, keys[i], 30000);
        start_acquire(&outcomes[i], locks[i], VERROU_FOREVER);
    }
    world_settle(&world);
    assert_int_equal(verrou_dispatch(queue, 2), 2);
    assert_int_equal(outcomes[2].done, 0);
    assert_int_equal(poll(&fd, 1, 0), 1);
    assert_int_equal(verrou_dispatch(queue, 0), 1);
    assert_done(&outcomes[2], VERROU_OK);
    assert_int_equal(poll(&fd, 1, 0), 0);
    assert_int_equal(verrou_dispatch(queue, 0), 0);
    for (int i = 0; i < 3; i++)
        verrou_lock_free(locks[i]);
}

/* ---- lanes and batches ---- */

static void start_many(verrou_lock **locks, struct outcome *outcomes, int count)
{
    for (int i = 0; i < count; i++) {
        char key[16];

        snprintf(key, sizeof(key), "key-%d", i);
        locks[i] = new_lock(process, key, 30000);
        start_acquire(&outcomes[i], locks[i], VERROU_FOREVER);
    }
}

/* What waits goes in one batch. */
static void test_batch(void **state)
{
    verrou_lock *locks[60];
    struct outcome outcomes[60];

    (void)state;
    start_many(locks, outcomes, 60);
    world_settle(&world);
    assert_int_equal(world.request_count, 60);
    assert_int_equal(world.requests[0].batch, 60);
    for (int i = 0; i < 60; i++) {
        assert_done(&outcomes[i], VERROU_OK);
        verrou_lock_free(locks[i]);
    }
}

/* The connection breaks in the middle of a batch: those before it keep their answers, those behind it are asked again. */
static void test_lane_dies_in_batch(void **state)
{
    verrou_lock *locks[9];
    struct outcome outcomes[9];

    (void)state;
    for (int i = 0; i < 4; i++)
        world_script(&world, (struct turn){.fate = HONEST});
    world_script(&world, (struct turn){.fate = LOSE_LANE});
    start_many(locks, outcomes, 9);
    world_settle(&world);
    for (int i = 0; i < 9; i++) {
        char key[16];

        snprintf(key, sizeof(key), "key-%d", i);
        assert_done(&outcomes[i], VERROU_OK);
        assert_int_equal(world_requests(&world, VERROU_OP_ACQUIRE, key), i == 4 ? 2 : 1);
        verrou_lock_free(locks[i]);
    }
    assert_int_equal(world.opens, 2);
    assert_int_equal(world.closes, 1);
}

/* A failing neighbour fails alone. */
static void test_neighbours_are_independent(void **state)
{
    verrou_lock *locks[3];
    struct outcome outcomes[3];

    (void)state;
    world_script(&world, (struct turn){.fate = HONEST});
    world_script(&world, (struct turn){.fate = SAY_FAILED});
    start_many(locks, outcomes, 3);
    world_settle(&world);
    assert_done(&outcomes[0], VERROU_OK);
    assert_done(&outcomes[1], VERROU_ESTORAGE);
    assert_done(&outcomes[2], VERROU_OK);
    for (int i = 0; i < 3; i++)
        verrou_lock_free(locks[i]);
}

static void count_locks(void *user, const verrou_result *result)
{
    size_t *count = user;

    assert_int_equal(result->status, VERROU_OK);
    *count = result->count;
    for (size_t i = 1; i < result->count; i++)
        assert_true(strcmp(result->locks[i - 1].key, result->locks[i].key) < 0);
}

/* A listing travels alone between two batches, and is sorted. */
static void test_list_travels_alone(void **state)
{
    verrou_lock *locks[20];
    struct outcome outcomes[20];
    size_t count = 0;

    (void)state;
    start_many(locks, outcomes, 10);
    assert_int_equal(verrou_store_list_async(process->store, "key-", NULL, queue, count_locks, &count, NULL),
                     VERROU_OK);
    world_settle(&world);
    assert_int_equal(world.requests[0].batch, 10);
    assert_int_equal(world.lists, 1);
    assert_int_equal(count, 10);
    for (int i = 0; i < 10; i++)
        verrou_lock_free(locks[i]);
}

/* A synchronous call that finds an idle lane runs by itself, without any thread. */
static void test_caller_leads(void **state)
{
    verrou_lock *lock = new_lock(process, "k", 30000);
    verrou_lock *other = new_lock(process, "other", 30000);
    verrou_info info = VERROU_INFO_INIT;

    (void)state;
    hold(other);
    assert_int_equal(verrou_lock_acquire(lock, NULL, &info, NULL), VERROU_OK);
    assert_int_equal(info.remaining_ms, 30000 - ROUNDING_MS);
    assert_int_equal(info.fence, 1);
    assert_int_equal(verrou_lock_release(lock, NULL, NULL), VERROU_OK);
    assert_int_equal(verrou_lock_release(other, NULL, NULL), VERROU_OK);
    verrou_lock_free(lock);
    verrou_lock_free(other);
}

/* Check and schema go through a lane as well. */
static void ignore_finding(void *user, verrou_level level, const char *subject, const char *finding)
{
    (void)level;
    (void)subject;
    (void)finding;
    ++*(int *)user;
}

static void test_check_and_schema(void **state)
{
    verrou_lock *lock = new_lock(process, "k", 30000);
    char *text = NULL;
    int findings = 0;

    (void)state;
    hold(lock);
    assert_int_equal(verrou_store_check(process->store, NULL, ignore_finding, &findings, NULL), VERROU_OK);
    assert_int_equal(findings, 2); /* the driver's, and the trial's */
    assert_int_equal(verrou_store_schema(process->store, NULL, &text, NULL), VERROU_OK);
    assert_string_equal(text, "CREATE TABLE locks;");
    verrou_free(text);
    verrou_lock_free(lock);
}

/* ---- stores that cannot be opened ---- */

/* Trying again helps: it is tried until the limit of the request, and the error says why. */
static void test_open_fails_retriably(void **state)
{
    verrou_lock *lock = new_lock(process, "k", 30000);
    struct outcome outcome;
    int64_t began_ms = world.now_ms;

    (void)state;
    world.fail_opens = INT32_MAX;
    start_acquire(&outcome, lock, VERROU_FOREVER);
    world_pass(&world, 1000);
    assert_done(&outcome, VERROU_ESTORAGE);
    assert_int_equal(outcome.at_ms, began_ms + 1000);
    assert_string_equal(outcome.error.message, "acquire \"k\": cannot connect to 10.0.0.7");
    assert_string_equal(outcome.error.store_code, "ECONNREFUSED");
    assert_true(world.opens > 3 && world.opens < 40);
    world.fail_opens = 0;
    start_acquire(&outcome, lock, VERROU_FOREVER);
    world_pass(&world, 1000);
    assert_done(&outcome, VERROU_OK);
    verrou_lock_free(lock);
}

/* Trying again does not help: all who wait are told at once, and the next call tries anew. */
static void test_open_fails_for_good(void **state)
{
    verrou_lock *locks[3];
    struct outcome outcomes[3];

    (void)state;
    world.fail_opens = 1;
    world.fail_opens_for_good = true;
    start_many(locks, outcomes, 3);
    world_settle(&world);
    for (int i = 0; i < 3; i++)
        assert_done(&outcomes[i], VERROU_ESTORAGE);
    assert_int_equal(outcomes[0].error.retriable, 0);
    assert_int_equal(world.opens, 1);
    start_acquire(&outcomes[0], locks[0], VERROU_FOREVER);
    world_settle(&world);
    assert_done(&outcomes[0], VERROU_OK);
    for (int i = 0; i < 3; i++)
        verrou_lock_free(locks[i]);
}

/* A queue that is failed while one of its calls ends another: nothing is answered twice. */
static void test_open_fails_while_last_try_waits(void **state)
{
    verrou_lock *locks[2];
    struct outcome outcomes[2];

    (void)state;
    for (int i = 0; i < 2; i++)
        locks[i] = new_lock(process, "k", 30000);
    world.fail_opens = INT32_MAX;
    start_acquire(&outcomes[0], locks[0], VERROU_FOREVER);
    start_acquire_with(&outcomes[1], locks[1], VERROU_FOREVER, 5, NULL);
    world_pass(&world, 999);
    world.fail_opens_for_good = true;
    world_pass(&world, 2000);
    assert_done(&outcomes[0], VERROU_ESTORAGE);
    assert_done(&outcomes[1], VERROU_ESTORAGE);
    for (int i = 0; i < 2; i++)
        verrou_lock_free(locks[i]);
}

/* ---- what callbacks submit ---- */

struct pass_on {
    verrou_lock *locks[2]; /* released by the callback */
    struct outcome outcomes[2];
    bool asks; /* it also asks by itself, and waits for the answer */
    int held_back;
    int done;
};

static void pass_on(void *user, const verrou_result *result)
{
    struct pass_on *pass = user;

    assert_int_equal(result->status, VERROU_OK);
    for (int i = 0; i < 2; i++)
        start_release(&pass->outcomes[i], pass->locks[i], 1000);
    if (pass->asks) {
        verrou_info info = VERROU_INFO_INIT;

        assert_int_equal(verrou_store_inspect(process->store, "a", NULL, &info, NULL), VERROU_OK);
    }
    pass->held_back = process->engine->held_back;
    pass->done++;
}

static void start_passing_on(struct pass_on *pass)
{
    verrou_acquire_options options = VERROU_ACQUIRE_OPTIONS_INIT;
    verrou_lock *lock = new_lock(process, "c", 30000);

    pass->locks[0] = new_lock(process, "a", 30000);
    pass->locks[1] = new_lock(process, "b", 30000);
    hold(pass->locks[0]);
    hold(pass->locks[1]);
    world.passing = NULL;
    world.request_count = 0;
    assert_int_equal(verrou_lock_acquire_async(lock, &options, queue, pass_on, pass, NULL), VERROU_OK);
    world_settle(&world);
    verrou_dispatch(queue, 0);
    assert_int_equal(pass->done, 1);
    assert_false(process->engine->held_back);
    world_settle(&world);
    verrou_dispatch(queue, 0);
    for (int i = 0; i < 2; i++) {
        assert_done(&pass->outcomes[i], VERROU_OK);
        verrou_lock_free(pass->locks[i]);
    }
    verrou_lock_free(lock);
}

/* What a callback submits waits for the end of the dispatch, and is then sent as one batch. */
static void test_callbacks_submit_one_batch(void **state)
{
    struct pass_on pass = {.asks = false};

    (void)state;
    start_passing_on(&pass);
    assert_int_equal(pass.held_back, 1);
    assert_int_equal(world.requests[world.request_count - 1].batch, 2);
}

/* A callback that waits for an answer itself sends off what is held back. */
static void test_callback_that_waits_sends_off(void **state)
{
    struct pass_on pass = {.asks = true};

    (void)state;
    start_passing_on(&pass);
    assert_int_equal(pass.held_back, 0);
    assert_int_equal(world.requests[world.request_count - 1].batch, 3);
}

static void slow(void *user, const verrou_result *result)
{
    struct pass_on *pass = user;

    pass_on(user, result);
    for (int i = 0; i < LOOP_PATIENCE_MS; i++)
        world_pass(&world, 1); /* the keeper goes on meanwhile */
    assert_false(world_held(&world, "a"));
    pass->done++;
}

/* A callback that takes long does not hold up what it submitted. */
static void test_slow_callback_holds_nothing_up(void **state)
{
    verrou_acquire_options options = VERROU_ACQUIRE_OPTIONS_INIT;
    struct pass_on pass = {.asks = false};
    verrou_lock *lock = new_lock(process, "c", 30000);

    (void)state;
    pass.locks[0] = new_lock(process, "a", 30000);
    pass.locks[1] = new_lock(process, "b", 30000);
    hold(pass.locks[0]);
    hold(pass.locks[1]);
    world.passing = NULL;
    assert_int_equal(verrou_lock_acquire_async(lock, &options, queue, slow, &pass, NULL), VERROU_OK);
    world_settle(&world);
    verrou_dispatch(queue, 0);
    assert_int_equal(pass.done, 2);
    for (int i = 0; i < 2; i++) {
        assert_done(&pass.outcomes[i], VERROU_OK);
        verrou_lock_free(pass.locks[i]);
    }
    verrou_lock_free(lock);
}

static void free_meanwhile(void *user, const verrou_result *result)
{
    struct pass_on *pass = user;

    pass_on(user, result);
    assert_int_equal(pass->held_back, 1);
    world_free_key(&world, "k");
    world_settle(&world);
    pass->held_back = process->engine->held_back;
    assert_false(world_held(&world, "a"));
    assert_false(world_held(&world, "b"));
}

/* A request that no callback submitted, such as one for a waiter who is woken, sends off what is held back. */
static void test_woken_waiter_sends_off(void **state)
{
    struct world_options watching = {.settings = "timeout=1s", .watch = true};
    verrou_acquire_options options = VERROU_ACQUIRE_OPTIONS_INIT;
    struct pass_on pass = {.asks = false};
    struct outcome woken;
    verrou_lock *lock, *waiting;

    (void)state;
    process = world_open(&world, &watching);
    assert_non_null(process);
    lock = new_lock(process, "c", 30000);
    waiting = new_lock(process, "k", 30000);
    pass.locks[0] = new_lock(process, "a", 30000);
    pass.locks[1] = new_lock(process, "b", 30000);
    hold(pass.locks[0]);
    hold(pass.locks[1]);
    world_seize(&world, "k", "stranger", VERROU_FOREVER);
    start_acquire(&woken, waiting, VERROU_FOREVER);
    world_settle(&world);
    world.passing = NULL;
    assert_int_equal(verrou_lock_acquire_async(lock, &options, queue, free_meanwhile, &pass, NULL), VERROU_OK);
    world_settle(&world);
    verrou_dispatch(queue, 0);
    assert_int_equal(pass.done, 1);
    assert_int_equal(pass.held_back, 0);
    assert_done(&woken, VERROU_OK);
    for (int i = 0; i < 2; i++) {
        assert_done(&pass.outcomes[i], VERROU_OK);
        verrou_lock_free(pass.locks[i]);
    }
    verrou_lock_free(lock);
    verrou_lock_free(waiting);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_callbacks_submit_one_batch),
        TEST(test_callback_that_waits_sends_off),
        TEST(test_slow_callback_holds_nothing_up),
        TEST(test_woken_waiter_sends_off),
        TEST(test_cancel_before),
        TEST(test_cancel_queued),
        TEST(test_cancel_asleep),
        TEST(test_cancel_behind),
        TEST(test_cancel_paused),
        TEST(test_cancel_flying),
        TEST(test_cancel_too_late),
        TEST(test_cancel_many_and_free),
        TEST(test_close),
        TEST(test_renewal_after_close),
        TEST(test_free_handle_with_pending_call),
        TEST(test_free_queue_with_pending_call),
        TEST(test_queue_descriptor),
        TEST(test_batch),
        TEST(test_lane_dies_in_batch),
        TEST(test_neighbours_are_independent),
        TEST(test_list_travels_alone),
        TEST(test_caller_leads),
        TEST(test_check_and_schema),
        TEST(test_open_fails_retriably),
        TEST(test_open_fails_for_good),
        TEST(test_open_fails_while_last_try_waits),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
