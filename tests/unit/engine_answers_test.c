/* engine_answers_test.c - answers that are lost, late, too late or bad, and what callers are told then. */
#include "support/fixture.h"

static const struct turn lose_reply = {.fate = LOSE_REPLY};
static const struct turn lose_request = {.fate = LOSE_REQUEST};
static const struct turn honest = {.fate = HONEST};

static struct process *process;

static int setup_process(void **state)
{
    struct world_options options = {.settings = "timeout=1s"};

    if (setup(state) < 0)
        return -1;
    process = world_open(&world, &options);
    return process ? 0 : -1;
}

#undef TEST
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup_process, teardown)

/* An acquisition that was applied, and its answer lost, is found in the store: acquired, with its token. */
static void test_acquire_lost_reply(void **state)
{
    verrou_lock *lock = new_lock(process, "k", 30000);
    struct outcome outcome;

    (void)state;
    world_script(&world, lose_reply);
    start_acquire(&outcome, lock, VERROU_FOREVER);
    world_settle(&world);
    assert_done(&outcome, VERROU_OK);
    assert_int_equal(verrou_lock_fence(lock), world_truth(&world, "k")->fence);
    assert_int_equal(world_truth(&world, "k")->fence, 1);
    assert_int_equal(world.request_count, 2);
    verrou_lock_free(lock);
}

/* An acquisition that never arrived is made by its repetition. */
static void test_acquire_lost_request(void **state)
{
    verrou_lock *lock = new_lock(process, "k", 30000);
    struct outcome outcome;

    (void)state;
    world_script(&world, lose_request);
    start_acquire(&outcome, lock, VERROU_FOREVER);
    world_settle(&world);
    assert_done(&outcome, VERROU_OK);
    assert_true(world_held(&world, "k"));
    verrou_lock_free(lock);
}

/* The local end counts from before the request that was applied, however often it was lost. */
static void test_lost_reply_counts_from_the_first(void **state)
{
    verrou_lock *lock = new_lock(process, "k", 10000);
    struct outcome outcome;

    (void)state;
    world_script(&world, (struct turn){.fate = LOSE_REPLY, .after_ms = 300});
    start_acquire(&outcome, lock, VERROU_FOREVER);
    world_pass(&world, 500);
    assert_done(&outcome, VERROU_OK);
    assert_true(verrou_lock_remaining_ms(lock) <= world_truth(&world, "k")->expires_ms - world.now_ms);
    verrou_lock_free(lock);
}

/* With a fixed owner, finding that owner proves nothing: the outcome stays unknown. */
static void test_acquire_lost_fixed_owner(void **state)
{
    verrou_lock *lock = new_owned_lock(process, "k", 30000, "me");
    struct outcome outcome;

    (void)state;
    world_script(&world, lose_reply);
    start_acquire(&outcome, lock, VERROU_FOREVER);
    world_settle(&world);
    assert_done(&outcome, VERROU_EUNKNOWN);
    assert_int_equal(verrou_lock_check(lock), VERROU_ENOTOWNED);
    verrou_lock_free(lock);
}

/* A store that does not tell who holds the lock cannot settle a lost answer: unknown, and given up; it never waits for itself. */
static void test_acquire_lost_without_holder(void **state)
{
    verrou_lock *lock = new_lock(process, "k", 30000);
    struct outcome outcome;

    (void)state;
    world.no_holder = true;
    world_script(&world, lose_reply);
    start_acquire(&outcome, lock, VERROU_FOREVER);
    world_settle(&world);
    assert_done(&outcome, VERROU_EUNKNOWN);
    assert_false(world_held(&world, "k"));
    verrou_lock_free(lock);
}

/* All answers lost until the limit: unknown, and given up in the background as soon as the store answers. */
static void test_acquire_never_answered(void **state)
{
    verrou_lock *lock = new_lock(process, "k", 30000);
    struct outcome outcome;

    (void)state;
    for (int i = 0; i < 40; i++)
        world_script(&world, lose_reply);
    start_acquire(&outcome, lock, VERROU_FOREVER);
    world_pass(&world, 1000);
    assert_done(&outcome, VERROU_EUNKNOWN);
    world.script_at = world.script_end;
    world_pass(&world, 300);
    assert_false(world_held(&world, "k"));
    verrou_lock_free(lock);
}

/* A request that arrives late, after its call ended without the lock: the waiter behind it finds the lock again taken, and nobody believes in it. */
static void test_late_arrival(void **state)
{
    verrou_lock *lock = new_lock(process, "k", 500);
    struct outcome outcome;

    (void)state;
    world_seize(&world, "k", "stranger", 100);
    world_script(&world, (struct turn){.fate = LATE, .late_ms = 150});
    start_acquire(&outcome, lock, 90);
    world_pass(&world, 90);
    assert_done(&outcome, VERROU_ENOTACQUIRED);
    world_pass(&world, 70);
    assert_true(world_held(&world, "k")); /* it runs out by itself */
    assert_int_equal(verrou_lock_check(lock), VERROU_ENOTOWNED);
    world_pass(&world, 500);
    assert_false(world_held(&world, "k"));
    verrou_lock_free(lock);
}

/* A late arrival of an earlier request of the same call counts as acquired. */
static void test_late_arrival_is_ours(void **state)
{
    verrou_lock *lock = new_lock(process, "k", 30000);
    struct outcome outcome;

    (void)state;
    world_seize(&world, "k", "stranger", VERROU_FOREVER);
    world_script(&world, (struct turn){.fate = LATE, .late_ms = 60});
    start_acquire(&outcome, lock, VERROU_FOREVER);
    world_pass(&world, 50);
    world_free_key(&world, "k");
    world_pass(&world, 400);
    assert_done(&outcome, VERROU_OK);
    assert_string_equal(outcome.info.owner, world_truth(&world, "k")->owner);
    verrou_lock_free(lock);
}

/* An answer that takes longer than the lease is no lease: it asks again. */
static void test_answer_slower_than_lease(void **state)
{
    verrou_lock *lock = new_lock(process, "k", 50);
    struct outcome outcome;

    (void)state;
    world_script(&world, (struct turn){.after_ms = 60});
    start_acquire(&outcome, lock, VERROU_FOREVER);
    world_pass(&world, 100);
    assert_done(&outcome, VERROU_OK);
    assert_int_equal(outcome.info.remaining_ms, 50 - ROUNDING_MS);
    assert_int_equal(verrou_lock_fence(lock), 2);
    verrou_lock_free(lock);
}

/* A lease without end is taken for 30 seconds and made permanent then. */
static void test_permanent(void **state)
{
    verrou_lock *lock = new_lock(process, "k", VERROU_FOREVER);

    (void)state;
    hold(lock);
    assert_int_equal(world.requests[0].ttl_ms, PROVISIONAL_TTL_MS);
    assert_int_equal(world.requests[1].kind, VERROU_OP_EXTEND);
    assert_int_equal(world_truth(&world, "k")->expires_ms, VERROU_FOREVER);
    assert_int_equal(verrou_lock_remaining_ms(lock), VERROU_FOREVER);
    verrou_lock_free(lock);
}

/* Making it permanent is refused for good: the call fails, and the lease of 30 seconds is given back. */
static void test_permanent_step_fails(void **state)
{
    verrou_lock *lock = new_lock(process, "k", VERROU_FOREVER);
    struct outcome outcome;

    (void)state;
    world_script(&world, honest);
    world_script(&world, (struct turn){.fate = SAY_FAILED});
    start_acquire(&outcome, lock, VERROU_FOREVER);
    world_settle(&world);
    assert_done(&outcome, VERROU_ESTORAGE);
    assert_false(world_held(&world, "k"));
    verrou_lock_free(lock);
}

/* A lost answer of the second step leaves no lock for ever, with a fixed owner neither. */
static void test_permanent_step_lost(void **state)
{
    verrou_lock *lock = new_owned_lock(process, "k", VERROU_FOREVER, "me");
    struct outcome outcome;

    (void)state;
    world_script(&world, honest);
    for (int i = 0; i < 40; i++)
        world_script(&world, lose_reply);
    start_acquire(&outcome, lock, VERROU_FOREVER);
    world_pass(&world, 1500);
    assert_done(&outcome, VERROU_EUNKNOWN);
    world.script_at = world.script_end;
    world_pass(&world, 300);
    assert_false(world_held(&world, "k"));
    verrou_lock_free(lock);
}

/*
 * A lost release of a fixed owner goes on in the background only where its token keeps it from freeing a later lease of the same owner; a store whose
 * table has no place for tokens does not compare them.
 */
static void lost_release_of_fixed_owner(bool no_fence)
{
    verrou_lock *lock = new_owned_lock(process, "k", 30000, "me");
    struct outcome outcome;

    world.no_fence = no_fence;
    hold(lock);
    for (int i = 0; i < 40; i++)
        world_script(&world, (struct turn){.fate = LOSE_REQUEST, .after_ms = 100});
    start_release(&outcome, lock, 1000);
    world_pass(&world, 1500);
    assert_done(&outcome, VERROU_EUNKNOWN);
    world.script_at = world.script_end;
    world_pass(&world, 1000);
    assert_int_equal(world_held(&world, "k"), no_fence);
    verrou_lock_free(lock);
}

static void test_lost_release_with_token(void **state)
{
    (void)state;
    lost_release_of_fixed_owner(false);
}

static void test_lost_release_without_token(void **state)
{
    (void)state;
    lost_release_of_fixed_owner(true);
}

/* Cancelled between the two steps: given back. */
static void test_permanent_step_cancelled(void **state)
{
    verrou_lock *lock = new_lock(process, "k", VERROU_FOREVER);
    verrou_cancel *cancel = NULL;
    struct outcome outcome;

    (void)state;
    assert_int_equal(verrou_cancel_new(&cancel, NULL), VERROU_OK);
    world_script(&world, honest);
    for (int i = 0; i < 40; i++)
        world_script(&world, (struct turn){.fate = SAY_RETRY});
    start_acquire_with(&outcome, lock, VERROU_FOREVER, VERROU_FOREVER, cancel);
    world_pass(&world, 300);
    world.script_at = world.script_end;
    verrou_cancel_fire(cancel);
    world_settle(&world);
    assert_done(&outcome, VERROU_ECANCELED);
    assert_false(world_held(&world, "k"));
    verrou_cancel_free(cancel);
    verrou_lock_free(lock);
}

/* A release whose answer was lost, applied or not, is repeated and counts as done. */
static void test_release_lost(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        verrou_lock *lock = new_lock(process, "k", 30000);
        struct outcome outcome;

        hold(lock);
        world_script(&world, i == 0 ? lose_reply : lose_request);
        start_release(&outcome, lock, 1000);
        world_settle(&world);
        assert_done(&outcome, VERROU_OK);
        assert_false(world_held(&world, "k"));
        assert_int_equal(verrou_lock_check(lock), VERROU_ENOTOWNED);
        verrou_lock_free(lock);
    }
}

/* If the lease may have run out between the two, nobody knows whether it was released in time. */
static void test_release_lost_and_run_out(void **state)
{
    verrou_lock *lock = new_lock(process, "k", 200);
    struct outcome outcome;

    (void)state;
    hold(lock);
    world_script(&world, (struct turn){.fate = LOSE_REQUEST, .after_ms = 300});
    start_release(&outcome, lock, 1000);
    world_pass(&world, 400);
    assert_done(&outcome, VERROU_EUNKNOWN);
    assert_int_equal(verrou_lock_check(lock), VERROU_ELOST);
    start_release(&outcome, lock, 1000);
    world_settle(&world);
    assert_done(&outcome, VERROU_ENOTOWNED);
    verrou_lock_free(lock);
}

/* A release without any answer is unknown, goes on in the background, and may be repeated by the caller. */
static void test_release_unknown_and_repeated(void **state)
{
    verrou_lock *lock = new_lock(process, "k", 30000);
    struct outcome outcome;

    (void)state;
    hold(lock);
    for (int i = 0; i < 60; i++)
        world_script(&world, lose_request);
    start_release(&outcome, lock, 100);
    world_pass(&world, 100);
    assert_done(&outcome, VERROU_EUNKNOWN);
    assert_int_equal(verrou_lock_check(lock), VERROU_ENOTOWNED);
    assert_true(world_held(&world, "k"));
    world.script_at = world.script_end;
    world_pass(&world, 300);
    assert_false(world_held(&world, "k"));
    start_release(&outcome, lock, 1000);
    world_settle(&world);
    assert_done(&outcome, VERROU_OK);
    verrou_lock_free(lock);
}

/* Giving up in the background ends when the lease has. */
static void test_background_release_is_bounded(void **state)
{
    verrou_lock *lock = new_lock(process, "k", 3000);
    struct outcome outcome;
    size_t sent;

    (void)state;
    hold(lock);
    world.fail_opens = 0;
    world.decide = NULL;
    for (int i = 0; i < 60; i++)
        world_script(&world, (struct turn){.fate = LOSE_REQUEST});
    start_release(&outcome, lock, 50);
    world_pass(&world, 3000);
    assert_done(&outcome, VERROU_EUNKNOWN);
    sent = world.request_count;
    world_pass(&world, 60000);
    assert_int_equal(world.request_count, sent);
    verrou_lock_free(lock);
}

/* An extend whose answer was lost is repeated; applied twice or once makes no difference. */
static void test_extend_lost(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        verrou_lock *lock = new_lock(process, i ? "k" : "l", 1000);
        struct outcome outcome;

        hold(lock);
        world_script(&world, i == 0 ? lose_reply : lose_request);
        start_extend(&outcome, lock, 5000, 1000);
        world_settle(&world);
        assert_done(&outcome, VERROU_OK);
        assert_int_equal(verrou_lock_remaining_ms(lock), 5000 - ROUNDING_MS);
        verrou_lock_free(lock);
    }
}

/* An extend without any answer leaves the local view at the earlier of both ends. */
static void test_extend_unknown_keeps_earlier_end(void **state)
{
    verrou_lock *lock = new_lock(process, "k", 10000);
    struct outcome outcome;

    (void)state;
    hold(lock);
    for (int i = 0; i < 40; i++)
        world_script(&world, lose_reply);
    start_extend(&outcome, lock, 60000, 100);
    world_pass(&world, 100);
    assert_done(&outcome, VERROU_EUNKNOWN);
    assert_int_equal(verrou_lock_remaining_ms(lock), 9900 - ROUNDING_MS);
    start_extend(&outcome, lock, 2000, 100);
    world_pass(&world, 100);
    assert_done(&outcome, VERROU_EUNKNOWN);
    assert_int_equal(verrou_lock_remaining_ms(lock), 1900 - ROUNDING_MS);
    verrou_lock_free(lock);
}

/* While an extend that shortens the lease is on its way, the earlier end is believed; nothing changed puts the later one back. */
static void test_shortening_extend_is_believed_at_once(void **state)
{
    verrou_lock *lock = new_lock(process, "k", 10000);
    struct outcome outcome;

    (void)state;
    hold(lock);
    for (int i = 0; i < 40; i++)
        world_script(&world, (struct turn){.fate = SAY_RETRY});
    start_extend(&outcome, lock, 500, 100);
    world_settle(&world);
    assert_int_equal(outcome.done, 0);
    assert_int_equal(verrou_lock_remaining_ms(lock), 500 - ROUNDING_MS);
    world_pass(&world, 100);
    assert_done(&outcome, VERROU_ESTORAGE);
    assert_int_equal(verrou_lock_remaining_ms(lock), 9900 - ROUNDING_MS);
    verrou_lock_free(lock);
}

/* A forced release may be repeated without harm. */
static void test_force_lost(void **state)
{
    struct outcome outcome = {.world = &world};

    (void)state;
    world_seize(&world, "k", "stranger", VERROU_FOREVER);
    world_script(&world, lose_reply);
    assert_int_equal(verrou_store_force_release_async(process->store, "k", NULL, queue, outcome_done, &outcome, NULL),
                     VERROU_OK);
    world_settle(&world);
    assert_done(&outcome, VERROU_OK);
    assert_int_equal(world_requests(&world, VERROU_OP_FORCE, "k"), 2);
}

/* A read that gets no answer failed; there is nothing unknown about it. */
static void test_inspect_lost(void **state)
{
    verrou_call_options options = within(100);
    struct outcome outcome = {.world = &world};

    (void)state;
    for (int i = 0; i < 40; i++)
        world_script(&world, lose_reply);
    assert_int_equal(verrou_store_inspect_async(process->store, "k", &options, queue, outcome_done, &outcome, NULL),
                     VERROU_OK);
    world_pass(&world, 100);
    assert_done(&outcome, VERROU_ESTORAGE);
}

/* Calls on a handle that was never acquired ask nobody: they must not touch the lease that its first acquisition is getting. */
static void test_never_acquired(void **state)
{
    verrou_lock *lock = new_lock(process, "k", 30000);
    verrou_error err = VERROU_ERROR_INIT;

    (void)state;
    assert_int_equal(verrou_lock_release(lock, NULL, &err), VERROU_ENOTOWNED);
    assert_int_equal(verrou_lock_extend(lock, 1000, NULL, &err), VERROU_ENOTOWNED);
    assert_int_equal(world.request_count, 0);
    assert_int_equal(verrou_lock_check(lock), VERROU_ENOTOWNED);
    assert_int_equal(verrou_lock_is_expired(lock), 0);
    verrou_lock_free(lock);
}

/* A second release is NOTOWNED, and the handle is still one without a lease, not one that lost it. */
static void test_second_release(void **state)
{
    verrou_lock *lock = new_lock(process, "k", 30000);
    struct outcome outcome;

    (void)state;
    hold(lock);
    start_release(&outcome, lock, 1000);
    world_settle(&world);
    start_release(&outcome, lock, 1000);
    world_settle(&world);
    assert_done(&outcome, VERROU_ENOTOWNED);
    assert_int_equal(verrou_lock_check(lock), VERROU_ENOTOWNED);
    assert_int_equal(verrou_lock_is_expired(lock), 0);
    verrou_lock_free(lock);
}

/* Deadlines hold in every state: in the queue (no lane yet), on the way, in a pause. */
static void test_deadlines(void **state)
{
    verrou_lock *lock = new_lock(process, "k", 30000);
    struct outcome outcome;
    int64_t began_ms = world.now_ms;

    (void)state;
    world.fail_opens = 1000;
    start_acquire(&outcome, lock, 77);
    world_pass(&world, 200);
    assert_done(&outcome, VERROU_ESTORAGE);
    assert_int_equal(outcome.at_ms, began_ms + 77);

    world.fail_opens = 0;
    world_pass(&world, 3000);
    began_ms = world.now_ms;
    world_script(&world, (struct turn){.after_ms = 500});
    start_acquire(&outcome, lock, 78);
    world_pass(&world, 1000);
    assert_done(&outcome, VERROU_EUNKNOWN);
    assert_int_equal(outcome.at_ms, began_ms + 78);
    assert_false(world_held(&world, "k")); /* given up when it came back */

    began_ms = world.now_ms;
    for (int i = 0; i < 40; i++)
        world_script(&world, (struct turn){.fate = SAY_RETRY});
    start_acquire(&outcome, lock, 79);
    world_pass(&world, 200);
    assert_done(&outcome, VERROU_ESTORAGE);
    assert_int_equal(outcome.at_ms, began_ms + 79);
    assert_string_equal(outcome.error.store_code, "BUSY");
    verrou_lock_free(lock);
}

/* A failure for good is told at once, with the store's words. */
static void test_failed(void **state)
{
    verrou_lock *lock = new_lock(process, "k", 30000);
    struct outcome outcome;

    (void)state;
    world_script(&world, (struct turn){.fate = SAY_FAILED});
    start_acquire(&outcome, lock, VERROU_FOREVER);
    world_settle(&world);
    assert_done(&outcome, VERROU_ESTORAGE);
    assert_string_equal(outcome.error.store_code, "DENIED");
    assert_string_equal(outcome.error.message, "acquire \"k\": no right to do that");
    assert_int_equal(outcome.error.retriable, 0);
    verrou_lock_free(lock);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_acquire_lost_reply),
        TEST(test_acquire_lost_request),
        TEST(test_lost_reply_counts_from_the_first),
        TEST(test_acquire_lost_fixed_owner),
        TEST(test_lost_release_with_token),
        TEST(test_lost_release_without_token),
        TEST(test_acquire_lost_without_holder),
        TEST(test_acquire_never_answered),
        TEST(test_late_arrival),
        TEST(test_late_arrival_is_ours),
        TEST(test_answer_slower_than_lease),
        TEST(test_permanent),
        TEST(test_permanent_step_fails),
        TEST(test_permanent_step_lost),
        TEST(test_permanent_step_cancelled),
        TEST(test_release_lost),
        TEST(test_release_lost_and_run_out),
        TEST(test_release_unknown_and_repeated),
        TEST(test_background_release_is_bounded),
        TEST(test_extend_lost),
        TEST(test_extend_unknown_keeps_earlier_end),
        TEST(test_shortening_extend_is_believed_at_once),
        TEST(test_force_lost),
        TEST(test_inspect_lost),
        TEST(test_never_acquired),
        TEST(test_second_release),
        TEST(test_deadlines),
        TEST(test_failed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
