/*
 * waiting.c - claims about waiting: who is woken by what, in which order, and what ends a wait. Waiters that must be
 * woken get a retry delay far beyond the suite's patience, so that polling cannot pass for a wake-up. Where the order
 * of arrival matters the waiters are asynchronous calls: those stand in line when the submitting call returns, which
 * nobody can know of a thread.
 */
#include "conf.h"

static void one_attempt_does_not_wait(struct conf *c)
{
    verrou_lock *a = verrou__conf_lock(c, LONG_MS), *b = verrou__conf_lock(c, LONG_MS);
    verrou_acquire_options options = VERROU_ACQUIRE_OPTIONS_INIT;
    int64_t start_ms = verrou_now_ms();

    verrou__conf_hold(c, a);
    options.attempts = 1;
    options.delay_ms = NEVER_MS;
    EXPECT(VERROU_ENOTACQUIRED, verrou_lock_acquire(b, &options, NULL, ERR));
    REQUIRE(verrou_now_ms() - start_ms < NEVER_MS / 2);
}

static void no_time_does_not_wait(struct conf *c)
{
    verrou_lock *a = verrou__conf_lock(c, LONG_MS), *b = verrou__conf_lock(c, LONG_MS);
    verrou_acquire_options options = VERROU_ACQUIRE_OPTIONS_INIT;

    options.timeout_ms = 0;
    EXPECT(VERROU_OK, verrou_lock_acquire(a, &options, NULL, ERR));
    EXPECT(VERROU_ENOTACQUIRED, verrou_lock_acquire(b, &options, NULL, ERR));
}

/* The original slept its whole delay, whatever was left of the time limit. */
static void timeout_cuts_delay(struct conf *c)
{
    verrou_lock *a = verrou__conf_lock(c, LONG_MS), *b = verrou__conf_lock(c, LONG_MS);
    verrou_acquire_options options = VERROU_ACQUIRE_OPTIONS_INIT;
    int64_t start_ms, took_ms;

    verrou__conf_hold(c, a);
    options.timeout_ms = 100;
    options.delay_ms = NEVER_MS;
    start_ms = verrou_now_ms();
    EXPECT(VERROU_ENOTACQUIRED, verrou_lock_acquire(b, &options, NULL, ERR));
    took_ms = verrou_now_ms() - start_ms;
    REQUIRE(took_ms >= 100 && took_ms < NEVER_MS / 4);
}

static void deadline_ends_wait(struct conf *c)
{
    verrou_lock *a = verrou__conf_lock(c, LONG_MS), *b = verrou__conf_lock(c, LONG_MS);
    verrou_acquire_options options = VERROU_ACQUIRE_OPTIONS_INIT;
    int64_t start_ms = verrou_now_ms();

    verrou__conf_hold(c, a);
    options.deadline_ms = verrou_now_ms() + 100;
    options.timeout_ms = NEVER_MS;
    options.delay_ms = NEVER_MS;
    EXPECT(VERROU_ENOTACQUIRED, verrou_lock_acquire(b, &options, NULL, ERR));
    REQUIRE(verrou_now_ms() >= options.deadline_ms);
    REQUIRE(verrou_now_ms() - start_ms < NEVER_MS / 4);

    options.deadline_ms = verrou_now_ms() + NEVER_MS;
    options.timeout_ms = BRIEF_MS;
    EXPECT(VERROU_ENOTACQUIRED, verrou_lock_acquire(b, &options, NULL, ERR));
    REQUIRE(verrou_now_ms() - start_ms < NEVER_MS / 2);
}

static void refusal_after_wait_names_holder(struct conf *c)
{
    verrou_lock *a = verrou__conf_lock(c, LONG_MS), *b = verrou__conf_lock(c, LONG_MS);
    verrou_acquire_options options = VERROU_ACQUIRE_OPTIONS_INIT;
    verrou_info info = VERROU_INFO_INIT;

    verrou__conf_hold(c, a);
    options.timeout_ms = BRIEF_MS;
    options.delay_ms = 10;
    EXPECT(VERROU_ENOTACQUIRED, verrou_lock_acquire(b, &options, &info, ERR));
    assert_int_equal(info.locked, 1);
    if (info.owner[0])
        assert_string_equal(info.owner, verrou__conf_owner(c, a));
    if (info.remaining_ms != -1)
        assert_in_range(info.remaining_ms, 1, LONG_MS);
}

static void release_wakes_waiter(struct conf *c)
{
    verrou_lock *a = verrou__conf_lock(c, LONG_MS), *b = verrou__conf_lock(c, LONG_MS);
    verrou_acquire_options options = verrou__conf_waiting(c, NEVER_MS);
    struct verrou__conf_answer *answer;

    verrou__conf_hold(c, a);
    answer = verrou__conf_acquire_async(c, b, &options);
    verrou__conf_drain(c, 30);
    assert_int_equal(answer->count, 0);
    verrou__conf_drop(c, a);
    verrou__conf_await(c, answer);
    EXPECT(VERROU_OK, answer->status);
    verrou__conf_expect_held_by(c, b);
    verrou__conf_drop(c, b);
}

static void release_wakes_thread(struct conf *c)
{
    verrou_lock *a = verrou__conf_lock(c, LONG_MS), *b = verrou__conf_lock(c, LONG_MS);
    verrou_acquire_options options = verrou__conf_waiting(c, NEVER_MS);
    struct conf_waiter *waiter;

    verrou__conf_hold(c, a);
    waiter = verrou__conf_acquire_thread(c, b, &options);
    verrou__conf_wait_until(verrou_now_ms() + 20); /* the claim holds whether or not it waits by now */
    verrou__conf_drop(c, a);
    verrou__conf_join(c);
    EXPECT(VERROU_OK, waiter->status);
    verrou__conf_expect_held_by(c, b);
}

static void force_release_wakes_waiter(struct conf *c)
{
    verrou_lock *a = verrou__conf_lock(c, LONG_MS), *b = verrou__conf_lock(c, LONG_MS);
    verrou_acquire_options options = verrou__conf_waiting(c, NEVER_MS);
    struct verrou__conf_answer *answer;

    verrou__conf_hold(c, a);
    answer = verrou__conf_acquire_async(c, b, &options);
    EXPECT(VERROU_OK, verrou_store_force_release(c->store, verrou__conf_key(c, "lock"), NULL, ERR));
    verrou__conf_await(c, answer);
    EXPECT(VERROU_OK, answer->status);
    EXPECT(VERROU_ENOTOWNED, verrou_lock_release(a, NULL, ERR));
    verrou__conf_expect_held_by(c, b);
}

/* Who can tell what is left of the holder's lease has its waiters woken by the clock. */
static void expiry_wakes_waiter(struct conf *c)
{
    verrou_lock *a = verrou__conf_lock(c, 3 * SHORT_MS), *b = verrou__conf_lock(c, LONG_MS);
    verrou_acquire_options options;
    struct verrou__conf_answer *answer;

    verrou__conf_hold(c, a);
    options = verrou__conf_waiting(c, verrou__conf_delay(verrou__conf_inspect(c, a).remaining_ms != -1));
    answer = verrou__conf_acquire_async(c, b, &options);
    verrou__conf_await(c, answer);
    EXPECT(VERROU_OK, answer->status);
    assert_int_equal(verrou_lock_is_expired(a), 1);
    EXPECT(VERROU_ENOTOWNED, verrou_lock_release(a, NULL, ERR));
    verrou__conf_expect_held_by(c, b);
}

static void shortened_lease_wakes_waiter(struct conf *c)
{
    verrou_lock *a = verrou__conf_lock(c, LONG_MS), *b = verrou__conf_lock(c, LONG_MS);
    verrou_acquire_options options = verrou__conf_waiting(c, BRIEF_MS);
    struct verrou__conf_answer *answer;

    verrou__conf_hold(c, a);
    answer = verrou__conf_acquire_async(c, b, &options);
    EXPECT(VERROU_OK, verrou_lock_extend(a, 4 * SHORT_MS, NULL, ERR));
    verrou__conf_await(c, answer);
    EXPECT(VERROU_OK, answer->status);
}

static void extended_lease_keeps_waiter_waiting(struct conf *c)
{
    verrou_lock *a = verrou__conf_lock(c, 1000), *b = verrou__conf_lock(c, LONG_MS);
    verrou_acquire_options options = verrou__conf_waiting(c, BRIEF_MS);
    struct verrou__conf_answer *answer;

    options.timeout_ms = NEVER_MS;
    verrou__conf_hold(c, a);
    answer = verrou__conf_acquire_async(c, b, &options);
    EXPECT(VERROU_OK, verrou_lock_extend(a, LONG_MS, NULL, ERR));
    verrou__conf_drain(c, 1200);
    assert_int_equal(answer->count, 0);
    verrou__conf_drop(c, a);
    verrou__conf_await(c, answer);
    EXPECT(VERROU_OK, answer->status);
}

static void other_store_handle_releases(struct conf *c)
{
    verrou_lock *a = verrou__conf_lock_on(c, verrou__conf_open(c), verrou__conf_key(c, "lock"), LONG_MS),
                *b = verrou__conf_lock(c, LONG_MS);
    verrou_acquire_options options = verrou__conf_waiting(c, BRIEF_MS);
    struct verrou__conf_answer *answer;

    verrou__conf_hold(c, a);
    answer = verrou__conf_acquire_async(c, b, &options);
    verrou__conf_drain(c, 30);
    assert_int_equal(answer->count, 0);
    verrou__conf_drop(c, a);
    verrou__conf_await(c, answer);
    EXPECT(VERROU_OK, answer->status);
    verrou__conf_expect_held_by(c, b);
}

/* Waiters that poll every two minutes: a store that pushes has to have told of the release. */
static void push_wakes_waiter(struct conf *c)
{
    verrou_lock *a = verrou__conf_lock_on(c, verrou__conf_open(c), verrou__conf_key(c, "lock"), LONG_MS),
                *b = verrou__conf_lock(c, LONG_MS);
    verrou_acquire_options options = verrou__conf_waiting(c, NEVER_MS);
    struct verrou__conf_answer *answer;

    verrou__conf_hold(c, a);
    answer = verrou__conf_acquire_async(c, b, &options);
    verrou__conf_drain(c, 100);
    assert_int_equal(answer->count, 0);
    verrou__conf_drop(c, a);
    verrou__conf_await(c, answer);
    EXPECT(VERROU_OK, answer->status);
}

enum { LINE = 8 };

static void first_come_first_served(struct conf *c)
{
    verrou_lock *holder = verrou__conf_lock(c, LONG_MS), *locks[LINE];
    struct verrou__conf_answer *answers[LINE];
    verrou_acquire_options options = verrou__conf_waiting(c, NEVER_MS);

    options.timeout_ms = VERROU_FOREVER;
    verrou__conf_hold(c, holder);
    for (int at = 0; at < LINE; at++) {
        locks[at] = verrou__conf_lock(c, LONG_MS);
        answers[at] = verrou__conf_acquire_async(c, locks[at], &options);
    }
    verrou__conf_drop(c, holder);
    for (int at = 0; at < LINE; at++) {
        verrou__conf_await(c, answers[at]);
        EXPECT(VERROU_OK, answers[at]->status);
        assert_int_equal(answers[at]->order, at + 1);
        for (int later = at + 1; later < LINE; later++)
            assert_int_equal(answers[later]->count, 0);
        verrou__conf_expect_held_by(c, locks[at]);
        verrou__conf_drop(c, locks[at]);
    }
}

static void newcomer_stands_behind(struct conf *c)
{
    verrou_lock *holder = verrou__conf_lock(c, LONG_MS), *first = verrou__conf_lock(c, LONG_MS),
                *second = verrou__conf_lock(c, LONG_MS);
    verrou_acquire_options options = verrou__conf_waiting(c, NEVER_MS);
    struct verrou__conf_answer *answer;
    struct conf_waiter *newcomer;

    verrou__conf_hold(c, holder);
    answer = verrou__conf_acquire_async(c, first, &options);
    newcomer = verrou__conf_acquire_thread(c, second, &options);
    verrou__conf_drop(c, holder);
    verrou__conf_await(c, answer);
    EXPECT(VERROU_OK, answer->status);
    verrou__conf_drop(c, first);
    verrou__conf_join(c);
    EXPECT(VERROU_OK, newcomer->status);
}

static void tired_waiter_leaves_the_line(struct conf *c)
{
    verrou_lock *holder = verrou__conf_lock(c, LONG_MS), *first = verrou__conf_lock(c, LONG_MS),
                *second = verrou__conf_lock(c, LONG_MS);
    verrou_acquire_options brief = VERROU_ACQUIRE_OPTIONS_INIT, options = verrou__conf_waiting(c, NEVER_MS);
    struct verrou__conf_answer *tired, *patient;

    verrou__conf_hold(c, holder);
    brief.timeout_ms = BRIEF_MS;
    brief.delay_ms = NEVER_MS;
    tired = verrou__conf_acquire_async(c, first, &brief);
    patient = verrou__conf_acquire_async(c, second, &options);
    verrou__conf_await(c, tired);
    EXPECT(VERROU_ENOTACQUIRED, tired->status);
    assert_int_equal(patient->count, 0);
    verrou__conf_drop(c, holder);
    verrou__conf_await(c, patient);
    EXPECT(VERROU_OK, patient->status);
    verrou__conf_expect_held_by(c, second);
}

static void waiter_in_the_middle_gives_up(struct conf *c)
{
    verrou_lock *holder = verrou__conf_lock(c, LONG_MS), *first = verrou__conf_lock(c, LONG_MS),
                *second = verrou__conf_lock(c, LONG_MS);
    verrou_lock *third = verrou__conf_lock(c, LONG_MS);
    verrou_acquire_options brief = VERROU_ACQUIRE_OPTIONS_INIT, options = verrou__conf_waiting(c, NEVER_MS);
    struct verrou__conf_answer *one, *two, *three;

    verrou__conf_hold(c, holder);
    brief.timeout_ms = BRIEF_MS;
    brief.delay_ms = NEVER_MS;
    one = verrou__conf_acquire_async(c, first, &options);
    two = verrou__conf_acquire_async(c, second, &brief);
    three = verrou__conf_acquire_async(c, third, &options);
    verrou__conf_await(c, two);
    EXPECT(VERROU_ENOTACQUIRED, two->status);
    verrou__conf_drop(c, holder);
    verrou__conf_await(c, one);
    EXPECT(VERROU_OK, one->status);
    verrou__conf_drop(c, first);
    verrou__conf_await(c, three);
    EXPECT(VERROU_OK, three->status);
}

static void immediate_does_not_stand_in_line(struct conf *c)
{
    verrou_lock *holder = verrou__conf_lock(c, LONG_MS), *waiting = verrou__conf_lock(c, LONG_MS),
                *other = verrou__conf_lock(c, LONG_MS);
    verrou_acquire_options options = verrou__conf_waiting(c, NEVER_MS);

    verrou__conf_hold(c, holder);
    verrou__conf_acquire_async(c, waiting, &options);
    EXPECT(VERROU_ENOTACQUIRED, verrou_lock_acquire_immediately(other, NULL, ERR));
}

static void waits_for_two_keys_are_apart(struct conf *c)
{
    verrou_lock *a = verrou__conf_lock_on(c, c->store, verrou__conf_key(c, "a"), LONG_MS);
    verrou_lock *b = verrou__conf_lock_on(c, c->store, verrou__conf_key(c, "b"), LONG_MS);
    verrou_lock *wait_a = verrou__conf_lock_on(c, c->store, verrou__conf_key(c, "a"), LONG_MS);
    verrou_lock *wait_b = verrou__conf_lock_on(c, c->store, verrou__conf_key(c, "b"), LONG_MS);
    verrou_acquire_options options = verrou__conf_waiting(c, NEVER_MS);
    struct verrou__conf_answer *for_a, *for_b;

    verrou__conf_hold(c, a);
    verrou__conf_hold(c, b);
    for_a = verrou__conf_acquire_async(c, wait_a, &options);
    for_b = verrou__conf_acquire_async(c, wait_b, &options);
    verrou__conf_drop(c, b);
    verrou__conf_await(c, for_b);
    EXPECT(VERROU_OK, for_b->status);
    assert_int_equal(for_a->count, 0);
    verrou__conf_drop(c, a);
    verrou__conf_await(c, for_a);
    EXPECT(VERROU_OK, for_a->status);
}

/* ---- cancelling ---- */

static void cancelled_wait_ends(struct conf *c)
{
    verrou_lock *a = verrou__conf_lock(c, LONG_MS), *b = verrou__conf_lock(c, LONG_MS);
    verrou_acquire_options options = verrou__conf_waiting(c, NEVER_MS);
    struct verrou__conf_answer *answer;

    verrou__conf_hold(c, a);
    options.cancel = verrou__conf_cancel(c);
    answer = verrou__conf_acquire_async(c, b, &options);
    verrou_cancel_fire(options.cancel);
    verrou__conf_await(c, answer);
    EXPECT(VERROU_ECANCELED, answer->status);
    EXPECT(VERROU_ENOTOWNED, verrou_lock_check(b));
    verrou__conf_expect_held_by(c, a);
}

static void cancelled_thread_returns(struct conf *c)
{
    verrou_lock *a = verrou__conf_lock(c, LONG_MS), *b = verrou__conf_lock(c, LONG_MS);
    verrou_acquire_options options = verrou__conf_waiting(c, NEVER_MS);
    struct conf_waiter *waiter;

    verrou__conf_hold(c, a);
    options.cancel = verrou__conf_cancel(c);
    waiter = verrou__conf_acquire_thread(c, b, &options);
    verrou__conf_wait_until(verrou_now_ms() + 20); /* the claim holds whether or not it waits by now */
    verrou_cancel_fire(options.cancel);
    verrou__conf_join(c);
    EXPECT(VERROU_ECANCELED, waiter->status);
}

static void cancelled_before_use(struct conf *c)
{
    verrou_lock *a = verrou__conf_lock(c, LONG_MS), *b = verrou__conf_lock(c, LONG_MS);
    verrou_acquire_options options = verrou__conf_waiting(c, BRIEF_MS);
    struct verrou__conf_answer *answer;

    options.cancel = verrou__conf_cancel(c);
    verrou_cancel_fire(options.cancel);
    EXPECT(VERROU_ECANCELED, verrou_lock_acquire(a, &options, NULL, ERR));
    answer = verrou__conf_acquire_async(c, a, &options);
    verrou__conf_await(c, answer);
    EXPECT(VERROU_ECANCELED, answer->status);
    EXPECT(VERROU_ENOTOWNED, verrou_lock_check(a));
    verrou__conf_expect_free(c, a);
    verrou__conf_hold(c, b);
}

static void cancelled_wait_leaves_no_lease(struct conf *c)
{
    verrou_lock *a = verrou__conf_lock(c, LONG_MS), *b = verrou__conf_lock(c, LONG_MS),
                *d = verrou__conf_lock(c, LONG_MS);
    verrou_acquire_options options = verrou__conf_waiting(c, NEVER_MS);
    struct verrou__conf_answer *answer;

    verrou__conf_hold(c, a);
    options.cancel = verrou__conf_cancel(c);
    answer = verrou__conf_acquire_async(c, b, &options);
    verrou_cancel_fire(options.cancel);
    verrou__conf_drop(c, a);
    verrou__conf_await(c, answer);
    EXPECT(VERROU_ECANCELED, answer->status);

    options = verrou__conf_waiting(c, 20); /* a grant that crossed the cancelling is given back in the background */
    EXPECT(VERROU_OK, verrou_lock_acquire(d, &options, NULL, ERR));
    verrou__conf_expect_held_by(c, d);
}

static void cancelled_first_makes_way(struct conf *c)
{
    verrou_lock *holder = verrou__conf_lock(c, LONG_MS), *first = verrou__conf_lock(c, LONG_MS),
                *second = verrou__conf_lock(c, LONG_MS);
    verrou_acquire_options options = verrou__conf_waiting(c, NEVER_MS), cancellable = verrou__conf_waiting(c, NEVER_MS);
    struct verrou__conf_answer *one, *two;

    verrou__conf_hold(c, holder);
    cancellable.cancel = verrou__conf_cancel(c);
    one = verrou__conf_acquire_async(c, first, &cancellable);
    two = verrou__conf_acquire_async(c, second, &options);
    verrou_cancel_fire(cancellable.cancel);
    verrou__conf_await(c, one);
    EXPECT(VERROU_ECANCELED, one->status);
    verrou__conf_drop(c, holder);
    verrou__conf_await(c, two);
    EXPECT(VERROU_OK, two->status);
}

static void one_token_cancels_many(struct conf *c)
{
    verrou_lock *holder = verrou__conf_lock(c, LONG_MS);
    verrou_acquire_options options = verrou__conf_waiting(c, NEVER_MS);
    struct verrou__conf_answer *answers[LINE];

    verrou__conf_hold(c, holder);
    options.cancel = verrou__conf_cancel(c);
    for (int at = 0; at < LINE; at++)
        answers[at] = verrou__conf_acquire_async(c, verrou__conf_lock(c, LONG_MS), &options);
    verrou_cancel_fire(options.cancel);
    verrou_cancel_fire(options.cancel);
    for (int at = 0; at < LINE; at++) {
        verrou__conf_await(c, answers[at]);
        EXPECT(VERROU_ECANCELED, answers[at]->status);
    }
    verrou__conf_drain(c, 20);
    assert_int_equal(c->completions, LINE);
}

static void freed_token_leaves_wait(struct conf *c)
{
    verrou_lock *a = verrou__conf_lock(c, LONG_MS), *b = verrou__conf_lock(c, LONG_MS);
    verrou_acquire_options options = verrou__conf_waiting(c, NEVER_MS);
    struct verrou__conf_answer *answer;

    verrou__conf_hold(c, a);
    EXPECT(VERROU_OK, verrou_cancel_new(&options.cancel, ERR));
    answer = verrou__conf_acquire_async(c, b, &options);
    verrou_cancel_free(options.cancel);
    verrou__conf_drop(c, a);
    verrou__conf_await(c, answer);
    EXPECT(VERROU_OK, answer->status);
}

static void late_cancel_changes_nothing(struct conf *c)
{
    verrou_lock *lock = verrou__conf_lock(c, LONG_MS);
    verrou_acquire_options options = verrou__conf_waiting(c, BRIEF_MS);

    options.cancel = verrou__conf_cancel(c);
    EXPECT(VERROU_OK, verrou_lock_acquire(lock, &options, NULL, ERR));
    verrou_cancel_fire(options.cancel);
    EXPECT(VERROU_OK, verrou_lock_check(lock));
    verrou__conf_expect_held_by(c, lock);
    verrou__conf_drop(c, lock);
}

const struct conf_claim verrou__conf_waiting_claims[] = {
    {"one attempt does not wait", one_attempt_does_not_wait, 0, 0},
    {"a time limit of 0 asks once", no_time_does_not_wait, 0, 0},
    {"a time limit cuts the delay short", timeout_cuts_delay, 0, 0},
    {"a deadline ends the wait, and so does the time limit", deadline_ends_wait, 0, 0},
    {"a refusal after a wait says who holds the lock", refusal_after_wait_names_holder, 0, 0},
    {"a release wakes a waiter of this process", release_wakes_waiter, 0, 0},
    {"a release wakes a waiting thread", release_wakes_thread, 0, 0},
    {"a force-release wakes a waiter of this process", force_release_wakes_waiter, 0, 0},
    {"the end of the holder's lease wakes a waiter", expiry_wakes_waiter, 0, 0},
    {"a shortened lease lets its waiter in", shortened_lease_wakes_waiter, 0, 0},
    {"an extended lease keeps its waiter waiting", extended_lease_keeps_waiter_waiting, 0, 0},
    {"a release through another store handle lets a waiter in", other_store_handle_releases, CONF_REOPEN, 0},
    {"a release elsewhere is pushed to a waiter", push_wakes_waiter, CONF_REOPEN, VERROU_CAP_PUSH},
    {"waiters are served first come, first served", first_come_first_served, 0, 0},
    {"a newcomer stands behind who waits already", newcomer_stands_behind, 0, 0},
    {"a waiter whose time is up makes way", tired_waiter_leaves_the_line, 0, 0},
    {"a waiter in the middle of the line can give up", waiter_in_the_middle_gives_up, 0, 0},
    {"asking immediately does not stand in line", immediate_does_not_stand_in_line, 0, 0},
    {"waits for two keys do not disturb each other", waits_for_two_keys_are_apart, 0, 0},
    {"a cancelled wait ends", cancelled_wait_ends, 0, 0},
    {"a cancelled wait of a thread ends", cancelled_thread_returns, 0, 0},
    {"a token fired before use cancels, and nothing is acquired", cancelled_before_use, 0, 0},
    {"a cancelled wait leaves no lease", cancelled_wait_leaves_no_lease, 0, 0},
    {"the first waiter makes way when it is cancelled", cancelled_first_makes_way, 0, 0},
    {"one token cancels many waits, each once", one_token_cancels_many, 0, 0},
    {"freeing a token does not end the waits that use it", freed_token_leaves_wait, 0, 0},
    {"firing a token after the answer changes nothing", late_cancel_changes_nothing, 0, 0},
    {NULL, NULL, 0, 0},
};
