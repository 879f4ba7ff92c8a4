/*
 * async.c - claims about the asynchronous forms: each accepted call is answered exactly once, on the thread that
 * dispatches, with what the synchronous form would have said.
 */
#include "conf.h"
#include <poll.h>
#include <pthread.h>
#include <string.h>

static void acquire_is_answered(struct conf *c)
{
    verrou_lock *lock = verrou__conf_lock(c, LONG_MS);
    struct verrou__conf_answer *answer = verrou__conf_acquire_async(c, lock, NULL);

    verrou__conf_await(c, answer);
    EXPECT(VERROU_OK, answer->status);
    assert_false(answer->has_error);
    assert_true(answer->has_info);
    assert_int_equal(answer->info.locked, 1);
    assert_string_equal(answer->info.owner, verrou__conf_owner(c, lock));
    assert_in_range(answer->info.remaining_ms, 1, LONG_MS);
    EXPECT(VERROU_OK, verrou_lock_check(lock));
    verrou__conf_drain(c, 20);
    assert_int_equal(answer->count, 1);
}

static void refusal_is_answered(struct conf *c)
{
    verrou_lock *holder = verrou__conf_lock(c, LONG_MS), *lock = verrou__conf_lock(c, LONG_MS);
    verrou_acquire_options options = VERROU_ACQUIRE_OPTIONS_INIT;
    struct verrou__conf_answer *once, *brief;

    verrou__conf_hold(c, holder);
    options.attempts = 1;
    once = verrou__conf_acquire_async(c, lock, &options);
    verrou__conf_await(c, once);
    EXPECT(VERROU_ENOTACQUIRED, once->status);
    assert_true(once->has_error);
    assert_true(once->has_info);
    assert_int_equal(once->info.locked, 1);

    options.attempts = VERROU_DEFAULT;
    options.timeout_ms = 40;
    options.delay_ms = NEVER_MS;
    brief = verrou__conf_acquire_async(c, lock, &options);
    verrou__conf_await(c, brief);
    EXPECT(VERROU_ENOTACQUIRED, brief->status);
}

static void release_is_answered(struct conf *c)
{
    verrou_lock *lock = verrou__conf_lock(c, LONG_MS);
    struct verrou__conf_answer *first = verrou__conf_answer(c), *second = verrou__conf_answer(c);

    verrou__conf_hold(c, lock);
    EXPECT(VERROU_OK, verrou_lock_release_async(lock, NULL, verrou__conf_queue(c), verrou__conf_done, first, ERR));
    verrou__conf_await(c, first);
    EXPECT(VERROU_OK, first->status);
    verrou__conf_expect_free(c, lock);
    EXPECT(VERROU_OK, verrou_lock_release_async(lock, NULL, verrou__conf_queue(c), verrou__conf_done, second, ERR));
    verrou__conf_await(c, second);
    EXPECT(VERROU_ENOTOWNED, second->status);
    assert_true(second->has_error);
}

static void extend_is_answered(struct conf *c)
{
    verrou_lock *lock = verrou__conf_lock(c, 4000);
    struct verrou__conf_answer *good = verrou__conf_answer(c), *bad = verrou__conf_answer(c);

    verrou__conf_hold(c, lock);
    EXPECT(VERROU_OK,
           verrou_lock_extend_async(lock, LONG_MS, NULL, verrou__conf_queue(c), verrou__conf_done, good, ERR));
    verrou__conf_await(c, good);
    EXPECT(VERROU_OK, good->status);
    assert_in_range(verrou_lock_remaining_ms(lock), 4001, LONG_MS);
    verrou__conf_drop(c, lock);
    EXPECT(VERROU_OK,
           verrou_lock_extend_async(lock, LONG_MS, NULL, verrou__conf_queue(c), verrou__conf_done, bad, ERR));
    verrou__conf_await(c, bad);
    EXPECT(VERROU_ENOTOWNED, bad->status);
}

static void force_release_is_answered(struct conf *c)
{
    verrou_lock *lock = verrou__conf_lock(c, LONG_MS);
    struct verrou__conf_answer *by_lock = verrou__conf_answer(c), *by_key = verrou__conf_answer(c);

    verrou__conf_hold(c, lock);
    EXPECT(VERROU_OK,
           verrou_lock_force_release_async(lock, NULL, verrou__conf_queue(c), verrou__conf_done, by_lock, ERR));
    verrou__conf_await(c, by_lock);
    EXPECT(VERROU_OK, by_lock->status);
    verrou__conf_expect_free(c, lock);
    verrou__conf_hold(c, lock);
    EXPECT(VERROU_OK, verrou_store_force_release_async(c->store, verrou__conf_key(c, "lock"), NULL,
                                                       verrou__conf_queue(c), verrou__conf_done, by_key, ERR));
    verrou__conf_await(c, by_key);
    EXPECT(VERROU_OK, by_key->status);
    verrou__conf_expect_free(c, lock);
}

static void inspect_is_answered(struct conf *c)
{
    verrou_lock *lock = verrou__conf_lock(c, LONG_MS);
    struct verrou__conf_answer *free_answer = verrou__conf_answer(c), *held = verrou__conf_answer(c);

    EXPECT(VERROU_OK,
           verrou_lock_inspect_async(lock, NULL, verrou__conf_queue(c), verrou__conf_done, free_answer, ERR));
    verrou__conf_await(c, free_answer);
    EXPECT(VERROU_OK, free_answer->status);
    assert_true(free_answer->has_info);
    assert_int_equal(free_answer->info.locked, 0);

    verrou__conf_hold(c, lock);
    EXPECT(VERROU_OK, verrou_store_inspect_async(c->store, verrou__conf_key(c, "lock"), NULL, verrou__conf_queue(c),
                                                 verrou__conf_done, held, ERR));
    verrou__conf_await(c, held);
    EXPECT(VERROU_OK, held->status);
    assert_int_equal(held->info.locked, 1);
    if (held->info.owner[0])
        assert_string_equal(held->info.owner, verrou__conf_owner(c, lock));
}

static void end_of_lease_is_answered(struct conf *c)
{
    verrou_lock *a = verrou__conf_lock(c, SHORT_MS),
                *b = verrou__conf_lock_on(c, c->store, verrou__conf_key(c, "b"), LONG_MS);
    verrou_call_options options = VERROU_CALL_OPTIONS_INIT;
    struct verrou__conf_answer *expired = verrou__conf_answer(c), *released = verrou__conf_answer(c),
                               *none = verrou__conf_answer(c), *limited = verrou__conf_answer(c);

    options.timeout_ms = c->suite->patience_ms;
    verrou__conf_hold(c, a);
    EXPECT(VERROU_OK, verrou_lock_wait_lost_async(a, &options, verrou__conf_queue(c), verrou__conf_done, expired, ERR));
    verrou__conf_hold(c, b);
    EXPECT(VERROU_OK,
           verrou_lock_wait_lost_async(b, &options, verrou__conf_queue(c), verrou__conf_done, released, ERR));
    options.timeout_ms = 30;
    EXPECT(VERROU_OK, verrou_lock_wait_lost_async(b, &options, verrou__conf_queue(c), verrou__conf_done, limited, ERR));
    verrou__conf_await(c, expired);
    EXPECT(VERROU_ELOST, expired->status);
    verrou__conf_await(c, limited);
    EXPECT(VERROU_ECANCELED, limited->status);
    assert_int_equal(released->count, 0);
    verrou__conf_drop(c, b);
    verrou__conf_await(c, released);
    EXPECT(VERROU_OK, released->status);

    EXPECT(VERROU_OK, verrou_lock_wait_lost_async(b, &options, verrou__conf_queue(c), verrou__conf_done, none, ERR));
    verrou__conf_await(c, none);
    EXPECT(VERROU_ENOTOWNED, none->status);
}

struct listing {
    struct verrou__conf_answer answer;
    bool sorted;
    bool live;
};

static void listing_done(void *user, const verrou_result *result)
{
    struct listing *listing = user;

    listing->sorted = listing->live = true;
    for (size_t at = 0; at < result->count; at++) {
        listing->live = listing->live && result->locks[at].info.locked;
        if (at > 0 && strcmp(result->locks[at - 1].key, result->locks[at].key) >= 0)
            listing->sorted = false;
    }
    verrou__conf_done(&listing->answer, result);
}

static void list_is_answered(struct conf *c)
{
    static const char *const names[] = {"list/c", "list/a", "list/b"};
    struct listing *listing = verrou__conf_alloc(c, sizeof *listing);

    listing->answer.c = c;
    for (int at = 0; at < 3; at++)
        verrou__conf_hold(c, verrou__conf_lock_on(c, c->store, verrou__conf_key(c, names[at]), LONG_MS));
    EXPECT(VERROU_OK, verrou_store_list_async(c->store, verrou__conf_key(c, "list/"), NULL, verrou__conf_queue(c),
                                              listing_done, listing, ERR));
    verrou__conf_await(c, &listing->answer);
    EXPECT(VERROU_OK, listing->answer.status);
    assert_int_equal(listing->answer.listed, 3);
    REQUIRE(listing->sorted);
    REQUIRE(listing->live);
}

static void rejected_call_is_never_answered(struct conf *c)
{
    verrou_lock *lock = verrou__conf_lock(c, LONG_MS);
    verrou_acquire_options options = VERROU_ACQUIRE_OPTIONS_INIT;
    struct verrou__conf_answer *answer = verrou__conf_answer(c);
    char long_key[VERROU_MAX_KEY + 2];

    memset(long_key, 'k', sizeof long_key - 1);
    long_key[sizeof long_key - 1] = 0;
    options.attempts = 0;
    EXPECT(VERROU_EINVAL,
           verrou_lock_acquire_async(lock, &options, verrou__conf_queue(c), verrou__conf_done, answer, ERR));
    EXPECT(VERROU_EINVAL,
           verrou_lock_extend_async(lock, 0, NULL, verrou__conf_queue(c), verrou__conf_done, answer, ERR));
    EXPECT(VERROU_EINVAL,
           verrou_store_inspect_async(c->store, long_key, NULL, verrou__conf_queue(c), verrou__conf_done, answer, ERR));
    EXPECT(VERROU_EINVAL,
           verrou_store_force_release_async(c->store, "", NULL, verrou__conf_queue(c), verrou__conf_done, answer, ERR));
    verrou__conf_drain(c, 30);
    assert_int_equal(answer->count, 0);
}

static void descriptor_tells_of_answers(struct conf *c)
{
    verrou_lock *lock = verrou__conf_lock(c, LONG_MS);
    struct pollfd ready = {verrou_queue_fd(verrou__conf_queue(c)), POLLIN, 0};
    struct verrou__conf_answer *answer;
    size_t done = 0;

    assert_int_equal(poll(&ready, 1, 0), 0);
    answer = verrou__conf_acquire_async(c, lock, NULL);
    while (done == 0) { /* it may tell of what then takes longer */
        assert_int_equal(answer->count, 0);
        assert_int_equal(poll(&ready, 1, (int)c->suite->patience_ms), 1);
        done = verrou_dispatch(c->queue, 0);
    }
    assert_int_equal(done, 1);
    assert_int_equal(answer->count, 1);
    assert_int_equal(poll(&ready, 1, 0), 0);
    assert_int_equal(verrou_dispatch(c->queue, 0), 0);
}

static void dispatch_has_a_limit(struct conf *c)
{
    enum { CALLS = 5 };
    struct verrou__conf_answer *answers[CALLS];
    char name[16] = "limit/0";
    size_t done = 0;
    int64_t end_ms;

    for (int at = 0; at < CALLS; at++) {
        name[6] = (char)('0' + at);
        answers[at] =
            verrou__conf_acquire_async(c, verrou__conf_lock_on(c, c->store, verrou__conf_key(c, name), LONG_MS), NULL);
    }
    end_ms = verrou_now_ms() + c->suite->patience_ms;
    while (done < CALLS && verrou_now_ms() < end_ms) {
        struct pollfd ready = {verrou_queue_fd(c->queue), POLLIN, 0};
        size_t now = 0;

        poll(&ready, 1, 1000);
        now = verrou_dispatch(c->queue, 1);
        REQUIRE(now <= 1);
        done += now;
        assert_int_equal(c->completions, done);
    }
    for (int at = 0; at < CALLS; at++)
        assert_int_equal(answers[at]->count, 1);
}

/* acquire, then extend, then release, each from the callback of the one before. */
struct chain {
    struct verrou__conf_answer last;
    verrou_lock *lock;
    verrou_queue *queue;
    int step;
    verrou_status failed;
};

static void chain_next(void *user, const verrou_result *result)
{
    struct chain *chain = user;
    verrou_status status = result->status;

    if (status == VERROU_OK && chain->step == 0)
        status = verrou_lock_extend_async(chain->lock, LONG_MS, NULL, chain->queue, chain_next, chain, NULL);
    else if (status == VERROU_OK && chain->step == 1)
        status = verrou_lock_release_async(chain->lock, NULL, chain->queue, verrou__conf_done, &chain->last, NULL);
    chain->step++;
    if (status != VERROU_OK)
        chain->failed = status;
}

static void callback_calls_library(struct conf *c)
{
    struct chain *chain = verrou__conf_alloc(c, sizeof *chain);

    chain->last.c = c;
    chain->lock = verrou__conf_lock(c, LONG_MS);
    chain->queue = verrou__conf_queue(c);
    EXPECT(VERROU_OK, verrou_lock_acquire_async(chain->lock, NULL, chain->queue, chain_next, chain, ERR));
    verrou__conf_await(c, &chain->last);
    EXPECT(VERROU_OK, chain->failed);
    EXPECT(VERROU_OK, chain->last.status);
    assert_int_equal(chain->step, 2);
}

struct caller {
    struct verrou__conf_answer answer;
    pthread_t thread;
};

static void caller_done(void *user, const verrou_result *result)
{
    struct caller *caller = user;

    caller->thread = pthread_self();
    verrou__conf_done(&caller->answer, result);
}

static void callback_runs_on_dispatching_thread(struct conf *c)
{
    struct caller *caller = verrou__conf_alloc(c, sizeof *caller);

    caller->answer.c = c;
    EXPECT(VERROU_OK, verrou_lock_acquire_async(verrou__conf_lock(c, LONG_MS), NULL, verrou__conf_queue(c), caller_done,
                                                caller, ERR));
    verrou__conf_await(c, &caller->answer);
    REQUIRE(pthread_equal(caller->thread, pthread_self()));
}

static void handle_freed_while_waiting(struct conf *c)
{
    verrou_lock *holder = verrou__conf_lock(c, LONG_MS), *lock = verrou__conf_lock(c, LONG_MS);
    verrou_acquire_options options = verrou__conf_waiting(c, NEVER_MS);
    struct verrou__conf_answer *answer;

    verrou__conf_hold(c, holder);
    answer = verrou__conf_acquire_async(c, lock, &options);
    verrou__conf_free(c, lock);
    verrou__conf_drop(c, holder);
    verrou__conf_await(c, answer);
    EXPECT(VERROU_OK, answer->status);
    verrou__conf_drain(c, 20);
    assert_int_equal(answer->count, 1);
}

static void handle_freed_at_once(struct conf *c)
{
    enum { CALLS = 20 };
    char name[32] = "freed/a";
    struct verrou__conf_answer *answers[CALLS];

    for (int at = 0; at < CALLS; at++) {
        verrou_lock *lock;

        name[6] = (char)('a' + at);
        lock = verrou__conf_lock_on(c, c->store, verrou__conf_key(c, name), LONG_MS);
        answers[at] = verrou__conf_acquire_async(c, lock, NULL);
        verrou__conf_free(c, lock);
    }
    for (int at = 0; at < CALLS; at++) {
        verrou__conf_await(c, answers[at]);
        EXPECT(VERROU_OK, answers[at]->status);
    }
}

static void handle_freed_while_releasing(struct conf *c)
{
    verrou_lock *lock = verrou__conf_lock(c, LONG_MS), *next = verrou__conf_lock(c, LONG_MS);
    struct verrou__conf_answer *answer = verrou__conf_answer(c);

    verrou__conf_hold(c, lock);
    EXPECT(VERROU_OK, verrou_lock_release_async(lock, NULL, verrou__conf_queue(c), verrou__conf_done, answer, ERR));
    verrou__conf_free(c, lock);
    verrou__conf_await(c, answer);
    EXPECT(VERROU_OK, answer->status);
    verrou__conf_hold(c, next);
}

static void queue_freed_while_waiting(struct conf *c)
{
    verrou_lock *holder = verrou__conf_lock(c, LONG_MS), *lock = verrou__conf_lock(c, LONG_MS);
    verrou_acquire_options options = verrou__conf_waiting(c, 50);
    verrou_queue *queue = NULL;
    struct verrou__conf_answer *answer = verrou__conf_answer(c);
    verrou_status accepted;

    verrou__conf_hold(c, holder);
    EXPECT(VERROU_OK, verrou_queue_new(&queue, ERR));
    accepted = verrou_lock_acquire_async(lock, &options, queue, verrou__conf_done, answer, ERR);
    verrou_queue_free(queue);
    EXPECT(VERROU_OK, accepted);
    verrou__conf_drop(c, holder);
    verrou__conf_drain(c, 30);
    assert_int_equal(answer->count, 0);
}

static void many_wait_at_once(struct conf *c)
{
    enum { WAITS = 200 };
    struct verrou__conf_answer *answers[WAITS];
    verrou_lock *holder = verrou__conf_lock(c, LONG_MS), *locks[WAITS];
    verrou_acquire_options options = verrou__conf_waiting(c, NEVER_MS);

    options.timeout_ms = VERROU_FOREVER;
    verrou__conf_hold(c, holder);
    for (int at = 0; at < WAITS; at++) {
        locks[at] = verrou__conf_lock(c, LONG_MS);
        answers[at] = verrou__conf_acquire_async(c, locks[at], &options);
    }
    verrou__conf_drop(c, holder);
    for (int at = 0; at < WAITS; at++) {
        verrou__conf_await(c, answers[at]);
        EXPECT(VERROU_OK, answers[at]->status);
        verrou__conf_drop(c, locks[at]);
    }
    assert_int_equal(c->completions, WAITS);
}

static void one_queue_serves_two_stores(struct conf *c)
{
    verrou_lock *a = verrou__conf_lock_on(c, c->store, verrou__conf_key(c, "a"), LONG_MS);
    verrou_lock *b = verrou__conf_lock_on(c, verrou__conf_open(c), verrou__conf_key(c, "b"), LONG_MS);
    struct verrou__conf_answer *for_a = verrou__conf_acquire_async(c, a, NULL),
                               *for_b = verrou__conf_acquire_async(c, b, NULL);

    verrou__conf_await(c, for_a);
    verrou__conf_await(c, for_b);
    EXPECT(VERROU_OK, for_a->status);
    EXPECT(VERROU_OK, for_b->status);
    assert_int_equal(c->completions, 2);
}

const struct conf_claim verrou__conf_async_claims[] = {
    {"an asynchronous acquire is answered once", acquire_is_answered, CONF_ANY, 0},
    {"an asynchronous acquire is refused in time", refusal_is_answered, 0, 0},
    {"an asynchronous release is answered once", release_is_answered, 0, 0},
    {"an asynchronous extension is answered once", extend_is_answered, 0, 0},
    {"an asynchronous force-release is answered once", force_release_is_answered, 0, 0},
    {"an asynchronous inspection is answered once", inspect_is_answered, 0, 0},
    {"an asynchronous wait for the end is answered once", end_of_lease_is_answered, 0, 0},
    {"an asynchronous listing is answered once", list_is_answered, 0, VERROU_CAP_LIST},
    {"a call that was not accepted is never answered", rejected_call_is_never_answered, CONF_ANY, 0},
    {"the descriptor is readable while answers are there", descriptor_tells_of_answers, CONF_ANY, 0},
    {"dispatching stops at its limit", dispatch_has_a_limit, CONF_ANY, 0},
    {"a callback may make calls", callback_calls_library, CONF_ANY, 0},
    {"callbacks run on the thread that dispatches", callback_runs_on_dispatching_thread, CONF_ANY, 0},
    {"a handle can be freed while its acquire waits", handle_freed_while_waiting, 0, 0},
    {"a handle can be freed right after an acquire", handle_freed_at_once, CONF_ANY, 0},
    {"a handle can be freed right after a release", handle_freed_while_releasing, CONF_ANY, 0},
    {"calls of a freed queue are not reported", queue_freed_while_waiting, 0, 0},
    {"many calls wait at once", many_wait_at_once, 0, 0},
    {"one queue serves two stores", one_queue_serves_two_stores, CONF_ANY, 0},
    {NULL, NULL, 0, 0},
};
