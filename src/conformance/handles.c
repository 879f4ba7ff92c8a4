/*
 * handles.c - claims about handles: what they say of themselves, being shared by threads, freed early, outliving their
 * store and being carried over a fork.
 */
#include "conf.h"
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static void getters_tell_what_was_given(struct conf *c)
{
    const char *key = verrou__conf_key(c, "a key");
    verrou_lock *lock = verrou__conf_lock_on(c, c->store, key, 12345),
                *forever = verrou__conf_lock_on(c, c->store, key, VERROU_FOREVER);
    verrou_lock *plain = verrou__conf_lock_with(c, c->store, key, NULL);

    assert_string_equal(verrou_lock_key(lock), key);
    assert_int_equal(verrou_lock_ttl_ms(lock), 12345);
    REQUIRE(verrou_lock_ttl_ms(forever) == VERROU_FOREVER);
    assert_int_equal(verrou_lock_ttl_ms(plain), VERROU_DEFAULT_TTL_MS);
}

static void fresh_handle_has_no_lease(struct conf *c)
{
    verrou_lock *lock = verrou__conf_lock(c, LONG_MS);

    assert_int_equal(verrou_lock_is_expired(lock), 0);
    assert_int_equal(verrou_lock_remaining_ms(lock), 0);
    EXPECT(VERROU_ENOTOWNED, verrou_lock_check(lock));
    assert_int_equal(verrou_lock_fence(lock), 0);
}

static void live_lease_is_seen(struct conf *c)
{
    verrou_lock *lock = verrou__conf_lock(c, LONG_MS);

    verrou__conf_hold(c, lock);
    assert_int_equal(verrou_lock_is_expired(lock), 0);
    assert_in_range(verrou_lock_remaining_ms(lock), 1, LONG_MS);
    EXPECT(VERROU_OK, verrou_lock_check(lock));
}

static void end_of_lease_is_seen(struct conf *c)
{
    verrou_lock *lock = verrou__conf_lock(c, SHORT_MS);

    verrou__conf_hold(c, lock);
    verrou__conf_let_expire(c, lock);
    assert_int_equal(verrou_lock_is_expired(lock), 1);
    assert_int_equal(verrou_lock_remaining_ms(lock), 0);
    EXPECT(VERROU_ELOST, verrou_lock_check(lock));
}

static void release_is_seen(struct conf *c)
{
    verrou_lock *lock = verrou__conf_lock(c, LONG_MS);

    verrou__conf_hold(c, lock);
    verrou__conf_drop(c, lock);
    assert_int_equal(verrou_lock_is_expired(lock), 0);
    assert_int_equal(verrou_lock_remaining_ms(lock), 0);
    EXPECT(VERROU_ENOTOWNED, verrou_lock_check(lock));
}

/* A handle learns of a theft by being refused. */
static void refused_extension_is_seen(struct conf *c)
{
    verrou_lock *lock = verrou__conf_lock(c, LONG_MS);

    verrou__conf_hold(c, lock);
    EXPECT(VERROU_OK, verrou_store_force_release(c->store, verrou__conf_key(c, "lock"), NULL, ERR));
    EXPECT(VERROU_ENOTOWNED, verrou_lock_extend(lock, LONG_MS, NULL, ERR));
    REQUIRE(verrou_lock_check(lock) != VERROU_OK);
    assert_int_equal(verrou_lock_remaining_ms(lock), 0);
}

/* The local view is asked after the store, when less is left; the allowance is for clocks that count whole
 * milliseconds. */
static void local_view_is_conservative(struct conf *c)
{
    verrou_lock *lock = verrou__conf_lock(c, 5000);

    verrou__conf_hold(c, lock);
    for (int round = 0; round < 20; round++) {
        verrou_info info = verrou__conf_inspect(c, lock);
        int64_t local_ms = verrou_lock_remaining_ms(lock);

        if (info.remaining_ms != -1)
            REQUIRE(local_ms <= info.remaining_ms + 2);
        if (round % 5 == 4)
            EXPECT(VERROU_OK, verrou_lock_extend(lock, 5000 + round, NULL, ERR));
    }
}

static void owner_is_known_before(struct conf *c)
{
    verrou_lock *lock = verrou__conf_lock(c, LONG_MS);
    const char *next = verrou__conf_owner(c, lock);

    verrou__conf_hold(c, lock);
    assert_string_equal(verrou__conf_owner(c, lock), next);
}

static void owner_is_known_between(struct conf *c)
{
    verrou_lock *lock = verrou__conf_lock(c, LONG_MS);
    const char *next;

    verrou__conf_hold(c, lock);
    verrou__conf_drop(c, lock);
    next = verrou__conf_owner(c, lock);
    verrou__conf_hold(c, lock);
    assert_string_equal(verrou__conf_owner(c, lock), next);
}

/* ---- freed and closed ---- */

static void nothing_is_freed(struct conf *c)
{
    (void)c;
    verrou_lock_free(NULL);
    verrou_store_close(NULL);
    verrou_queue_free(NULL);
    verrou_cancel_free(NULL);
    verrou_free(NULL);
}

static void freed_handle_keeps_lease(struct conf *c)
{
    verrou_lock *a = verrou__conf_lock(c, LONG_MS), *b = verrou__conf_lock(c, LONG_MS), *again;
    const char *json;

    verrou__conf_hold(c, a);
    json = verrou__conf_json(c, a);
    verrou__conf_free(c, a);
    EXPECT(VERROU_ENOTACQUIRED, verrou_lock_acquire_immediately(b, NULL, ERR));
    again = verrou__conf_restore(c, c->store, json);
    verrou__conf_drop(c, again);
    verrou__conf_hold(c, b);
}

static void closed_store_is_told(struct conf *c)
{
    verrou_store *store = verrou__conf_open(c);
    verrou_lock *held = verrou__conf_lock_on(c, store, verrou__conf_key(c, "lock"), LONG_MS);
    verrou_lock *fresh = verrou__conf_lock_on(c, store, verrou__conf_key(c, "fresh"), LONG_MS);

    verrou__conf_hold(c, held);
    verrou__conf_close(c, store);
    EXPECT(VERROU_ECLOSED, verrou_lock_acquire_immediately(fresh, NULL, ERR));
    EXPECT(VERROU_ECLOSED, verrou_lock_release(held, NULL, ERR));
    EXPECT(VERROU_ECLOSED, verrou_lock_extend(held, LONG_MS, NULL, ERR));
    assert_string_equal(verrou_lock_key(held), verrou__conf_key(c, "lock"));
    verrou__conf_free(c, held);
}

static void closed_store_keeps_lease(struct conf *c)
{
    verrou_store *store = verrou__conf_open(c);
    verrou_lock *a = verrou__conf_lock_on(c, store, verrou__conf_key(c, "lock"), LONG_MS),
                *b = verrou__conf_lock(c, LONG_MS);
    const char *json;

    verrou__conf_hold(c, a);
    json = verrou__conf_json(c, a);
    verrou__conf_close(c, store);
    EXPECT(VERROU_ENOTACQUIRED, verrou_lock_acquire_immediately(b, NULL, ERR));
    verrou__conf_drop(c, verrou__conf_restore(c, c->store, json));
    verrou__conf_hold(c, b);
}

static void closing_ends_waits(struct conf *c)
{
    enum { WAITS = 6 };
    verrou_store *store = verrou__conf_open(c);
    verrou_lock *holder = verrou__conf_lock_on(c, store, verrou__conf_key(c, "lock"), LONG_MS);
    verrou_acquire_options options = verrou__conf_waiting(c, NEVER_MS);
    struct verrou__conf_answer *answers[WAITS];
    struct conf_waiter *thread;

    verrou__conf_hold(c, holder);
    for (int at = 0; at < WAITS; at++)
        answers[at] = verrou__conf_acquire_async(
            c, verrou__conf_lock_on(c, store, verrou__conf_key(c, "lock"), LONG_MS), &options);
    thread =
        verrou__conf_acquire_thread(c, verrou__conf_lock_on(c, store, verrou__conf_key(c, "lock"), LONG_MS), &options);
    verrou__conf_close(c, store);
    verrou__conf_join(c);
    EXPECT(VERROU_ECLOSED, thread->status);
    for (int at = 0; at < WAITS; at++) {
        verrou__conf_await(c, answers[at]);
        EXPECT(VERROU_ECLOSED, answers[at]->status);
    }
    verrou__conf_drain(c, 20);
    assert_int_equal(c->completions, WAITS);
}

/* ---- shared by threads ---- */

struct shared {
    verrou_lock *lock;
    int rounds;
    int64_t deadline_ms;
    atomic_int inside;
    atomic_int overlaps;
    atomic_int faults;
    atomic_long count;
};

/* The body reads and writes in two steps: an increment is lost as soon as two threads are inside. */
static void shared_run(void *arg)
{
    struct shared *shared = arg;
    verrou_acquire_options waiting = VERROU_ACQUIRE_OPTIONS_INIT;

    waiting.deadline_ms = shared->deadline_ms;
    for (int round = 0; round < shared->rounds; round++) {
        verrou_call_options options = VERROU_CALL_OPTIONS_INIT;
        verrou_info info = VERROU_INFO_INIT;
        long seen;

        if (verrou_lock_acquire(shared->lock, &waiting, &info, NULL) != VERROU_OK) {
            atomic_fetch_add(&shared->faults, 1);
            return;
        }
        if (atomic_fetch_add(&shared->inside, 1) != 0)
            atomic_fetch_add(&shared->overlaps, 1);
        seen = atomic_load_explicit(&shared->count, memory_order_relaxed);
        sched_yield();
        atomic_store_explicit(&shared->count, seen + 1, memory_order_relaxed);
        atomic_fetch_sub(&shared->inside, 1);

        options.fence = info.fence;
        if (verrou_lock_release(shared->lock, &options, NULL) != VERROU_OK)
            atomic_fetch_add(&shared->faults, 1);
    }
}

static void threads_share_handle(struct conf *c)
{
    enum { THREADS = 8, ROUNDS = 20 };
    struct shared *shared = verrou__conf_alloc(c, sizeof *shared);

    shared->lock = verrou__conf_lock(c, LONG_MS);
    shared->rounds = ROUNDS;
    shared->deadline_ms = verrou_now_ms() + 4 * c->suite->patience_ms;
    for (int thread = 0; thread < THREADS; thread++)
        verrou__conf_thread(c, shared_run, shared);
    verrou__conf_join(c);
    assert_int_equal(atomic_load(&shared->faults), 0);
    assert_int_equal(atomic_load(&shared->overlaps), 0);
    assert_int_equal(atomic_load(&shared->count), THREADS * ROUNDS);
}

struct releasing {
    verrou_lock *lock;
    verrou_status status;
};

static void releasing_run(void *arg)
{
    struct releasing *releasing = arg;

    releasing->status = verrou_lock_release(releasing->lock, NULL, NULL);
}

/* The original read the row and then deleted it: each of these releases would have been told that it was the one. */
static void one_of_many_releases(struct conf *c)
{
    enum { THREADS = 6, ROUNDS = 10 };

    for (int round = 0; round < ROUNDS; round++) {
        struct releasing *releasing = verrou__conf_alloc(c, THREADS * sizeof *releasing);
        verrou_lock *lock = verrou__conf_lock(c, LONG_MS);
        int released = 0;

        verrou__conf_hold(c, lock);
        for (int thread = 0; thread < THREADS; thread++) {
            releasing[thread].lock = verrou__conf_restore(c, c->store, verrou__conf_json(c, lock));
            verrou__conf_thread(c, releasing_run, &releasing[thread]);
        }
        verrou__conf_join(c);
        for (int thread = 0; thread < THREADS; thread++) {
            REQUIRE(releasing[thread].status == VERROU_OK || releasing[thread].status == VERROU_ENOTOWNED);
            released += releasing[thread].status == VERROU_OK;
        }
        assert_int_equal(released, 1);
    }
}

/* ---- fork ---- */

/* What a child says by its exit code: 0, or the number of the step that went wrong. It never asserts, and leaves by
 * _exit. */
static int child_steps(struct conf *c, verrou_lock *lock, const char *json)
{
    bool same_locks = !(c->suite->given->flags & VERROU_CONFORMANCE_NO_STORE_STATE);
    verrou_lock *adopted = NULL, *own = NULL;
    verrou_info info = VERROU_INFO_INIT;

    if (verrou_lock_release(lock, NULL, NULL) != VERROU_EFORK)
        return 1;
    if (verrou_lock_extend(lock, LONG_MS, NULL, NULL) != VERROU_EFORK)
        return 2;
    if (verrou_lock_new(c->store, verrou__conf_key(c, "child"), NULL, &own, NULL) != VERROU_OK ||
        verrou_lock_acquire_immediately(own, NULL, NULL) != VERROU_OK)
        return 3;
    if (verrou_lock_release(own, NULL, NULL) != VERROU_OK)
        return 4;
    verrou_lock_free(own);
    if (!same_locks)
        return 0;

    if (verrou_lock_acquire_immediately(lock, &info, NULL) != VERROU_ENOTACQUIRED)
        return 5;
    if (verrou_lock_restore(c->store, json, NULL, &adopted, NULL) != VERROU_OK)
        return 6;
    if (verrou_lock_extend(adopted, LONG_MS, NULL, NULL) != VERROU_OK)
        return 7;
    if (verrou_lock_release(adopted, NULL, NULL) != VERROU_OK)
        return 8;
    if (verrou_lock_acquire_immediately(lock, NULL, NULL) != VERROU_OK)
        return 9;
    if (verrou_lock_release(lock, NULL, NULL) != VERROU_OK)
        return 10;
    verrou_lock_free(adopted);
    return 0;
}

static int child_wait(pid_t child)
{
    int status = 0;

    while (waitpid(child, &status, 0) < 0)
        continue;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

static void child_has_no_lease(struct conf *c)
{
    verrou_lock *lock = verrou__conf_lock(c, LONG_MS);
    const char *json;
    pid_t child;

    verrou__conf_key(c, "child");
    verrou__conf_hold(c, lock);
    json = verrou__conf_json(c, lock);
    fflush(NULL);
    child = fork();
    if (child == 0) {
        alarm(60);
        _exit(child_steps(c, lock, json));
    }
    REQUIRE(child > 0);
    assert_int_equal(child_wait(child), 0);
    if (c->suite->caps & VERROU_CAP_SHARED)
        EXPECT(VERROU_ENOTOWNED, verrou_lock_release(lock, NULL, ERR)); /* the child has released it */
    else if (c->suite->given->flags & VERROU_CONFORMANCE_NO_STORE_STATE)
        verrou__conf_drop(c, lock);
}

static void parent_goes_on_after_fork(struct conf *c)
{
    verrou_lock *lock = verrou__conf_lock(c, LONG_MS), *waiting = verrou__conf_lock(c, LONG_MS);
    verrou_acquire_options options = verrou__conf_waiting(c, NEVER_MS);
    struct verrou__conf_answer *answer;
    pid_t child;

    verrou__conf_hold(c, lock);
    answer = verrou__conf_acquire_async(c, waiting, &options);
    fflush(NULL);
    child = fork();
    if (child == 0)
        _exit(0); /* without a word to the store */
    REQUIRE(child > 0);
    assert_int_equal(child_wait(child), 0);
    EXPECT(VERROU_OK, verrou_lock_extend(lock, LONG_MS, NULL, ERR));
    verrou__conf_drop(c, lock);
    verrou__conf_await(c, answer);
    EXPECT(VERROU_OK, answer->status);
    verrou__conf_drop(c, waiting);
}

/* Owners drawn after a fork have to differ from the parent's. */
static void child_draws_other_owners(struct conf *c)
{
    char theirs[VERROU_MAX_OWNER + 1] = "";
    verrou_lock *lock;
    int ends[2];
    pid_t child;
    ssize_t got;

    REQUIRE(pipe(ends) == 0);
    fflush(NULL);
    child = fork();
    if (child == 0) {
        verrou_lock *own = NULL;
        char *owner = NULL;
        ssize_t put = -1;

        alarm(60);
        if (verrou_lock_new(c->store, verrou__conf_key(c, "lock"), NULL, &own, NULL) == VERROU_OK &&
            verrou_lock_owner(own, &owner, NULL) == VERROU_OK)
            put = write(ends[1], owner, strlen(owner));
        _exit(put > 0 ? 0 : 1);
    }
    close(ends[1]);
    got = read(ends[0], theirs, sizeof theirs - 1);
    close(ends[0]);
    REQUIRE(child > 0);
    assert_int_equal(child_wait(child), 0);
    REQUIRE(got > 32);
    lock = verrou__conf_lock(c, LONG_MS);
    assert_int_not_equal(strncmp(verrou__conf_owner(c, lock), theirs, 32), 0);
}

const struct conf_claim verrou__conf_handles_claims[] = {
    {"a handle tells its key and TTL", getters_tell_what_was_given, CONF_ANY, 0},
    {"a fresh handle has no lease", fresh_handle_has_no_lease, CONF_ANY, 0},
    {"a handle sees its live lease", live_lease_is_seen, CONF_ANY, 0},
    {"a handle sees the end of its lease", end_of_lease_is_seen, 0, 0},
    {"a handle sees its release", release_is_seen, CONF_ANY, 0},
    {"a handle sees that it was refused an extension", refused_extension_is_seen, 0, 0},
    {"a handle never promises more than the store", local_view_is_conservative, 0, 0},
    {"the first owner is known before the acquisition", owner_is_known_before, CONF_ANY, 0},
    {"the next owner is known after a release", owner_is_known_between, CONF_ANY, 0},
    {"freeing and closing nothing does nothing", nothing_is_freed, CONF_ANY, 0},
    {"freeing a handle does not release its lease", freed_handle_keeps_lease, 0, 0},
    {"calls on a closed store say so", closed_store_is_told, CONF_ANY, 0},
    {"closing a store does not release its leases", closed_store_keeps_lease, CONF_REOPEN, 0},
    {"closing a store ends each wait once", closing_ends_waits, 0, 0},
    {"threads that share a handle exclude each other", threads_share_handle, 0, 0},
    {"of many releases of one lease one succeeds", one_of_many_releases, 0, 0},
    {"a child does not hold its parent's lease, but can adopt it", child_has_no_lease, 0, 0},
    {"a parent goes on after a fork as if nothing had happened", parent_goes_on_after_fork, 0, 0},
    {"a child draws owners of its own", child_draws_other_owners, CONF_ANY, 0},
    {NULL, NULL, 0, 0},
};
