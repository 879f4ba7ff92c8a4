/*
 * run.c - claims about verrou_lock_run(): the body is called under the lock or not at all, and what it returned reaches
 * the caller, also when the lease did not last.
 */
#include "conf.h"

enum body { PLAIN, LOOK, FORCE, OVERSTAY, PROLONG };

struct work {
    struct conf *c;
    enum body what;
    int calls;
    int result;
    verrou_lock *given;
    verrou_status checked; /* of the lock that was given */
    verrou_status refused; /* of somebody else's acquisition meanwhile */
    verrou_lock *other;
};

/* Until the store calls it free: while only the handle thinks that the lease is over, releasing it may still succeed. */
static void overstay(struct conf *c, verrou_lock *lock)
{
    int64_t end_ms = verrou_now_ms() + c->suite->patience_ms;
    int locked = 1;

    while (verrou_now_ms() < end_ms && verrou_lock_is_locked(lock, NULL, &locked, NULL) == VERROU_OK && locked)
        verrou__conf_wait_until(verrou_now_ms() + 5);
}

static int body(void *user, verrou_lock *lock)
{
    struct work *work = user;
    struct conf *c = work->c;

    work->calls++;
    work->given = lock;
    work->checked = verrou_lock_check(lock);
    if (work->what == LOOK)
        work->refused = verrou_lock_acquire_immediately(work->other, NULL, NULL);
    if (work->what == FORCE)
        verrou_store_force_release(c->store, verrou__conf_key(c, "lock"), NULL, NULL);
    if (work->what == PROLONG)
        work->checked = verrou_lock_extend(lock, LONG_MS, NULL, NULL);
    if (work->what == OVERSTAY)
        overstay(c, lock);
    return work->result;
}

static struct work *work_new(struct conf *c, enum body what, int result)
{
    struct work *work = verrou__conf_alloc(c, sizeof *work);

    work->c = c;
    work->what = what;
    work->result = result;
    work->other = verrou__conf_lock(c, LONG_MS);
    return work;
}

static void body_is_run(struct conf *c)
{
    verrou_lock *lock = verrou__conf_lock(c, LONG_MS);
    struct work *work = work_new(c, PLAIN, -42);
    int executed = -1, result = 0;

    EXPECT(VERROU_OK, verrou_lock_run(lock, NULL, body, work, &executed, &result, ERR));
    assert_int_equal(executed, 1);
    assert_int_equal(result, -42);
    assert_int_equal(work->calls, 1);
    assert_ptr_equal(work->given, lock);
    EXPECT(VERROU_OK, work->checked);
    EXPECT(VERROU_ENOTOWNED, verrou_lock_check(lock));
}

static void body_is_run_immediately(struct conf *c)
{
    verrou_lock *lock = verrou__conf_lock(c, LONG_MS);
    struct work *work = work_new(c, PLAIN, 7);
    int executed = -1, result = 0;

    EXPECT(VERROU_OK, verrou_lock_run_immediately(lock, body, work, &executed, &result, ERR));
    assert_int_equal(executed, 1);
    assert_int_equal(result, 7);
    EXPECT(VERROU_OK, verrou_lock_run_immediately(lock, body, work, NULL, NULL, NULL));
    assert_int_equal(work->calls, 2);
}

static void body_is_alone(struct conf *c)
{
    verrou_lock *lock = verrou__conf_lock(c, LONG_MS);
    struct work *work = work_new(c, LOOK, 0);

    EXPECT(VERROU_OK, verrou_lock_run(lock, NULL, body, work, NULL, NULL, ERR));
    EXPECT(VERROU_ENOTACQUIRED, work->refused);
    verrou__conf_expect_free(c, lock);
    verrou__conf_hold(c, work->other);
}

static void held_lock_runs_nothing(struct conf *c)
{
    verrou_lock *holder = verrou__conf_lock(c, LONG_MS), *lock = verrou__conf_lock(c, LONG_MS);
    verrou_acquire_options options = VERROU_ACQUIRE_OPTIONS_INIT;
    struct work *work = work_new(c, PLAIN, 1);
    int executed = -1, result = 99;

    verrou__conf_hold(c, holder);
    EXPECT(VERROU_ENOTACQUIRED, verrou_lock_run_immediately(lock, body, work, &executed, &result, ERR));
    assert_int_equal(executed, 0);
    executed = -1;
    options.timeout_ms = 30;
    EXPECT(VERROU_ENOTACQUIRED, verrou_lock_run(lock, &options, body, work, &executed, &result, ERR));
    assert_int_equal(executed, 0);
    assert_int_equal(result, 99);
    assert_int_equal(work->calls, 0);
    verrou__conf_expect_held_by(c, holder);
}

static void bad_options_run_nothing(struct conf *c)
{
    verrou_lock *lock = verrou__conf_lock(c, LONG_MS);
    verrou_acquire_options options = VERROU_ACQUIRE_OPTIONS_INIT;
    struct work *work = work_new(c, PLAIN, 1);
    int executed = -1;

    options.attempts = 0;
    EXPECT(VERROU_EINVAL, verrou_lock_run(lock, &options, body, work, &executed, NULL, ERR));
    assert_int_equal(executed, 0);
    assert_int_equal(work->calls, 0);
}

/* In the original the failing release took the place of what the callback had returned. */
static void forced_lease_keeps_result(struct conf *c)
{
    verrou_lock *lock = verrou__conf_lock(c, LONG_MS);
    struct work *work = work_new(c, FORCE, 17);
    int executed = -1, result = 0;

    EXPECT(VERROU_ELOST, verrou_lock_run(lock, NULL, body, work, &executed, &result, ERR));
    assert_int_equal(executed, 1);
    assert_int_equal(result, 17);
}

static void overstayed_lease_keeps_result(struct conf *c)
{
    verrou_lock *lock = verrou__conf_lock(c, SHORT_MS);
    struct work *work = work_new(c, OVERSTAY, 18);
    int executed = -1, result = 0;

    EXPECT(VERROU_ELOST, verrou_lock_run(lock, NULL, body, work, &executed, &result, ERR));
    assert_int_equal(executed, 1);
    assert_int_equal(result, 18);
}

static void body_can_extend(struct conf *c)
{
    verrou_lock *lock = verrou__conf_lock(c, 4000);
    struct work *work = work_new(c, PROLONG, 0);

    EXPECT(VERROU_OK, verrou_lock_run(lock, NULL, body, work, NULL, NULL, ERR));
    EXPECT(VERROU_OK, work->checked);
    verrou__conf_expect_free(c, lock);
}

static void fired_token_runs_nothing(struct conf *c)
{
    verrou_lock *lock = verrou__conf_lock(c, LONG_MS);
    verrou_acquire_options options = VERROU_ACQUIRE_OPTIONS_INIT;
    struct work *work = work_new(c, PLAIN, 1);
    int executed = -1;

    options.cancel = verrou__conf_cancel(c);
    verrou_cancel_fire(options.cancel);
    EXPECT(VERROU_ECANCELED, verrou_lock_run(lock, &options, body, work, &executed, NULL, ERR));
    assert_int_equal(executed, 0);
    assert_int_equal(work->calls, 0);
}

const struct conf_claim verrou__conf_run_claims[] = {
    {"run calls the body under the lock and gives its result", body_is_run, CONF_ANY, 0},
    {"run immediately calls the body of a free lock", body_is_run_immediately, CONF_ANY, 0},
    {"nobody else gets the lock while the body runs", body_is_alone, 0, 0},
    {"run does not call the body without the lock", held_lock_runs_nothing, 0, 0},
    {"run with invalid options does not call the body", bad_options_run_nothing, CONF_ANY, 0},
    {"a forced lease does not hide the body's result", forced_lease_keeps_result, 0, 0},
    {"a lease that ran out does not hide the body's result", overstayed_lease_keeps_result, 0, 0},
    {"the body can extend the lease", body_can_extend, 0, 0},
    {"a fired token keeps the body from being called", fired_token_runs_nothing, CONF_ANY, 0},
    {NULL, NULL, 0, 0},
};
