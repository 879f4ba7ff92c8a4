/*
 * races.c - claims that need many at once. The work under the lock is a counter that is read and written in two steps,
 * with the processor offered to others in between: without the lock it loses increments within a few rounds. Its
 * accesses are atomic one by one, so that a broken lock shows as a wrong sum and not as undefined behaviour.
 */
#include "conf.h"
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

struct ground {
    atomic_long count;
    atomic_int inside;
    atomic_int overlaps;
    atomic_int faults;
    atomic_ullong fence; /* the largest token seen */
    atomic_int fence_faults;
};

struct worker {
    struct ground *ground;
    verrou_lock *lock;
    int rounds;
    bool fenced;
    int64_t delay_ms;
    int64_t deadline_ms; /* a broken store must not keep the suite for ever */
};

static void visit(struct ground *ground, uint64_t fence, bool fenced)
{
    long seen;

    if (atomic_fetch_add(&ground->inside, 1) != 0)
        atomic_fetch_add(&ground->overlaps, 1);
    if (fenced && fence <= atomic_exchange(&ground->fence, fence))
        atomic_fetch_add(&ground->fence_faults, 1);
    seen = atomic_load_explicit(&ground->count, memory_order_relaxed);
    sched_yield();
    atomic_store_explicit(&ground->count, seen + 1, memory_order_relaxed);
    atomic_fetch_sub(&ground->inside, 1);
}

static void work(void *arg)
{
    struct worker *worker = arg;
    verrou_acquire_options options = VERROU_ACQUIRE_OPTIONS_INIT;

    options.delay_ms = worker->delay_ms;
    options.deadline_ms = worker->deadline_ms;
    for (int round = 0; round < worker->rounds; round++) {
        if (verrou_lock_acquire(worker->lock, &options, NULL, NULL) != VERROU_OK) {
            atomic_fetch_add(&worker->ground->faults, 1);
            return;
        }
        visit(worker->ground, verrou_lock_fence(worker->lock), worker->fenced);
        if (verrou_lock_release(worker->lock, NULL, NULL) != VERROU_OK)
            atomic_fetch_add(&worker->ground->faults, 1);
    }
}

static struct worker *worker_new(struct conf *c, struct ground *ground, verrou_lock *lock, int rounds, int64_t delay_ms)
{
    struct worker *worker = verrou__conf_alloc(c, sizeof *worker);

    worker->ground = ground;
    worker->lock = lock;
    worker->rounds = rounds;
    worker->delay_ms = delay_ms;
    worker->deadline_ms = verrou_now_ms() + 4 * c->suite->patience_ms;
    worker->fenced = (c->suite->caps & VERROU_CAP_FENCE) != 0;
    return worker;
}

static void check(struct ground *ground, long expected)
{
    assert_int_equal(atomic_load(&ground->faults), 0);
    assert_int_equal(atomic_load(&ground->overlaps), 0);
    assert_int_equal(atomic_load(&ground->fence_faults), 0);
    assert_int_equal(atomic_load(&ground->count), expected);
}

static void threads_exclude_each_other(struct conf *c)
{
    enum { THREADS = 8, ROUNDS = 40 };
    struct ground *ground = verrou__conf_alloc(c, sizeof *ground);

    for (int at = 0; at < THREADS; at++)
        verrou__conf_thread(c, work, worker_new(c, ground, verrou__conf_lock(c, LONG_MS), ROUNDS, NEVER_MS));
    verrou__conf_join(c);
    check(ground, (long)THREADS * ROUNDS);
}

static void store_handles_exclude_each_other(struct conf *c)
{
    enum { THREADS = 6, ROUNDS = 20 };
    struct ground *ground = verrou__conf_alloc(c, sizeof *ground);
    verrou_store *stores[3] = {c->store, verrou__conf_open(c), verrou__conf_open(c)};

    for (int at = 0; at < THREADS; at++)
        verrou__conf_thread(c, work,
                            worker_new(c, ground,
                                       verrou__conf_lock_on(c, stores[at % 3], verrou__conf_key(c, "lock"), LONG_MS),
                                       ROUNDS, 5));
    verrou__conf_join(c);
    check(ground, (long)THREADS * ROUNDS);
}

/* Children open the store themselves; the counter lies in memory that they share. */
static int child_work(struct conf *c, struct ground *ground, int rounds)
{
    const verrou_conformance *given = c->suite->given;
    struct worker worker = {ground, NULL, rounds, (c->suite->caps & VERROU_CAP_FENCE) != 0, 5, 0};
    verrou_store *store = NULL;
    int failed = 1;

    alarm(120);
    worker.deadline_ms = verrou_now_ms() + 4 * c->suite->patience_ms;
    if (given->open(given->user, &store, NULL) == VERROU_OK &&
        verrou_lock_new(store, verrou__conf_key(c, "lock"), NULL, &worker.lock, NULL) == VERROU_OK) {
        work(&worker);
        failed = 0;
    }
    verrou_lock_free(worker.lock);
    verrou_store_close(store);
    return failed;
}

static void processes_exclude_each_other(struct conf *c)
{
    enum { CHILDREN = 4, ROUNDS = 20 };
    struct ground *ground = mmap(NULL, sizeof *ground, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pid_t children[CHILDREN];
    struct ground result;
    int failed = 0;

    REQUIRE(ground != MAP_FAILED);
    verrou__conf_key(c, "lock");
    fflush(NULL);
    for (int at = 0; at < CHILDREN; at++) {
        children[at] = fork();
        if (children[at] == 0)
            _exit(child_work(c, ground, ROUNDS));
    }
    for (int at = 0; at < CHILDREN; at++) {
        int status = -1;

        failed += children[at] < 0 || waitpid(children[at], &status, 0) != children[at] || status != 0;
    }
    result = *ground;
    munmap(ground, sizeof *ground);
    assert_int_equal(failed, 0);
    check(&result, (long)CHILDREN * ROUNDS);
}

/* ---- answers that cross ---- */

struct stale {
    verrou_lock *lock;
    atomic_int stop;
    atomic_int harm;
};

static void stale_run(void *arg)
{
    struct stale *stale = arg;

    while (!atomic_load(&stale->stop)) {
        if (verrou_lock_release(stale->lock, NULL, NULL) == VERROU_OK)
            atomic_fetch_add(&stale->harm, 1);
        if (verrou_lock_extend(stale->lock, LONG_MS, NULL, NULL) == VERROU_OK)
            atomic_fetch_add(&stale->harm, 1);
    }
}

/* A former owner that hammers the store with releases and extensions never touches what others do. */
static void stale_owner_does_no_harm(struct conf *c)
{
    struct stale *stale = verrou__conf_alloc(c, sizeof *stale);
    verrou_lock *former = verrou__conf_lock(c, SHORT_MS), *lock = verrou__conf_lock(c, LONG_MS);
    int faults = 0;

    verrou__conf_hold(c, former);
    stale->lock = verrou__conf_believer(c, c->store, verrou__conf_key(c, "lock"), verrou__conf_owner(c, former));
    verrou__conf_let_expire(c, former);
    verrou__conf_thread(c, stale_run, stale);
    for (int round = 0; round < 60; round++) {
        faults += verrou_lock_acquire_immediately(lock, NULL, NULL) != VERROU_OK;
        faults += verrou_lock_extend(lock, LONG_MS, NULL, NULL) != VERROU_OK;
        faults += verrou_lock_release(lock, NULL, NULL) != VERROU_OK;
    }
    atomic_store(&stale->stop, 1);
    verrou__conf_join(c);
    assert_int_equal(faults, 0);
    assert_int_equal(atomic_load(&stale->harm), 0);
}

static void cancel_run(void *arg)
{
    verrou_cancel_fire(arg);
}

/* Cancelling while the lock is handed over ends in one of two ways, and both are clean. */
static void cancel_crosses_grant(struct conf *c)
{
    for (int round = 0; round < 40; round++) {
        verrou_lock *a = verrou__conf_lock(c, LONG_MS), *b = verrou__conf_lock(c, LONG_MS);
        verrou_acquire_options options = verrou__conf_waiting(c, NEVER_MS), after = verrou__conf_waiting(c, 20);
        struct verrou__conf_answer *answer;

        EXPECT(VERROU_OK, verrou_lock_acquire(a, &after, NULL, ERR));
        options.cancel = verrou__conf_cancel(c);
        answer = verrou__conf_acquire_async(c, b, &options);
        verrou__conf_thread(c, cancel_run, options.cancel);
        verrou__conf_drop(c, a);
        verrou__conf_join(c);
        verrou__conf_await(c, answer);
        REQUIRE(answer->status == VERROU_OK || answer->status == VERROU_ECANCELED);
        if (answer->status == VERROU_OK)
            verrou__conf_drop(c, b);
        else
            EXPECT(VERROU_ENOTOWNED, verrou_lock_check(b));
    }
}

/*
 * A wait that ends by its time limit while the lock is released: acquired or not, but never both. The limit may also come before the
 * store has said anything: a storage error if nothing was sent, unknown if something was, and what was granted is given back.
 */
static void timeout_crosses_release(struct conf *c)
{
    for (int round = 0; round < 40; round++) {
        verrou_lock *a = verrou__conf_lock(c, LONG_MS), *b = verrou__conf_lock(c, LONG_MS);
        verrou_acquire_options options = VERROU_ACQUIRE_OPTIONS_INIT, after = verrou__conf_waiting(c, 20);
        struct verrou__conf_answer *answer;

        EXPECT(VERROU_OK, verrou_lock_acquire(a, &after, NULL, ERR));
        options.timeout_ms = 1 + round % 3;
        options.delay_ms = NEVER_MS;
        answer = verrou__conf_acquire_async(c, b, &options);
        verrou__conf_wait_until(verrou_now_ms() + 1 + round % 3);
        verrou__conf_drop(c, a);
        verrou__conf_await(c, answer);
        if (answer->status != VERROU_OK && answer->status != VERROU_EUNKNOWN && answer->status != VERROU_ESTORAGE)
            EXPECT(VERROU_ENOTACQUIRED, answer->status);
        if (answer->status == VERROU_OK)
            verrou__conf_drop(c, b);
    }
}

/* Many take over the same lease that ran out: one gets it. */
static void one_takes_over(struct conf *c)
{
    enum { THREADS = 8 };

    for (int round = 0; round < 5; round++) {
        struct conf_waiter *waiters[THREADS];
        verrou_lock *former = verrou__conf_lock(c, 60);
        verrou_acquire_options options = VERROU_ACQUIRE_OPTIONS_INIT;
        int got = 0;

        options.attempts = 1;
        EXPECT(VERROU_OK, verrou_store_force_release(c->store, verrou__conf_key(c, "lock"), NULL, ERR));
        verrou__conf_hold(c, former);
        verrou__conf_let_expire(c, former);
        for (int at = 0; at < THREADS; at++)
            waiters[at] = verrou__conf_acquire_thread(c, verrou__conf_lock(c, LONG_MS), &options);
        verrou__conf_join(c);
        for (int at = 0; at < THREADS; at++) {
            REQUIRE(waiters[at]->status == VERROU_OK || waiters[at]->status == VERROU_ENOTACQUIRED);
            got += waiters[at]->status == VERROU_OK;
        }
        assert_int_equal(got, 1);
    }
}

const struct conf_claim verrou__conf_races_claims[] = {
    {"threads exclude each other", threads_exclude_each_other, 0, 0},
    {"store handles exclude each other", store_handles_exclude_each_other, CONF_REOPEN, 0},
    {"processes exclude each other", processes_exclude_each_other, CONF_REOPEN, VERROU_CAP_SHARED},
    {"a former owner does no harm however often it tries", stale_owner_does_no_harm, 0, 0},
    {"cancelling that crosses a grant leaves no lease", cancel_crosses_grant, 0, 0},
    {"a time limit that crosses a release leaves no lease", timeout_crosses_release, 0, 0},
    {"of many that take over a lease one gets it", one_takes_over, 0, 0},
    {NULL, NULL, 0, 0},
};
