/*
 * acquire.c - claims about taking a lock without waiting: the first two rows of the table of answers (free, mine,
 * somebody else's, mine but run out), what a refusal says, and what it leaves alone.
 */
#include "conf.h"
#include <string.h>

static verrou_acquire_options once(void)
{
    verrou_acquire_options options = VERROU_ACQUIRE_OPTIONS_INIT;

    options.attempts = 1;
    return options;
}

static void free_lock_is_acquired(struct conf *c)
{
    verrou_lock *lock = verrou__conf_lock(c, LONG_MS);
    verrou_info info = VERROU_INFO_INIT;

    EXPECT(VERROU_OK, verrou_lock_acquire(lock, NULL, &info, ERR));
    assert_int_equal(info.locked, 1);
    assert_string_equal(info.owner, verrou__conf_owner(c, lock));
    assert_in_range(info.remaining_ms, 1, LONG_MS);
    assert_int_equal(info.fence, verrou_lock_fence(lock));
}

static void free_lock_is_acquired_immediately(struct conf *c)
{
    verrou_lock *lock = verrou__conf_lock(c, LONG_MS);
    verrou_info info = VERROU_INFO_INIT;

    EXPECT(VERROU_OK, verrou_lock_acquire_immediately(lock, &info, ERR));
    assert_int_equal(info.locked, 1);
    assert_in_range(info.remaining_ms, 1, LONG_MS);
}

static void acquired_lock_is_locked(struct conf *c)
{
    verrou_lock *lock = verrou__conf_lock(c, LONG_MS);

    verrou__conf_expect_free(c, lock);
    verrou__conf_hold(c, lock);
    verrou__conf_expect_held_by(c, lock);
}

static void own_lease_is_not_reentered(struct conf *c)
{
    verrou_lock *lock = verrou__conf_lock(c, LONG_MS);
    verrou_acquire_options options = once();

    verrou__conf_hold(c, lock);
    EXPECT(VERROU_ENOTACQUIRED, verrou_lock_acquire(lock, &options, NULL, ERR));
    EXPECT(VERROU_ENOTACQUIRED, verrou_lock_acquire_immediately(lock, NULL, ERR));
    verrou__conf_drop(c, lock);
}

/* The store has to refuse the same owner as well: only with a fixed owner does it see the same one twice. */
static void fixed_owner_is_not_reentered(struct conf *c)
{
    verrou_lock_options options = VERROU_LOCK_OPTIONS_INIT;
    verrou_lock *first, *second;

    options.ttl_ms = LONG_MS;
    options.owner = "the same owner";
    first = verrou__conf_lock_with(c, c->store, verrou__conf_key(c, "lock"), &options);
    second = verrou__conf_lock_with(c, c->store, verrou__conf_key(c, "lock"), &options);

    verrou__conf_hold(c, first);
    EXPECT(VERROU_ENOTACQUIRED, verrou_lock_acquire_immediately(second, NULL, ERR));
    EXPECT(VERROU_ENOTACQUIRED, verrou_lock_acquire_immediately(first, NULL, ERR));
    verrou__conf_drop(c, first);
}

static void held_lock_is_refused(struct conf *c)
{
    verrou_lock *a = verrou__conf_lock(c, LONG_MS), *b = verrou__conf_lock(c, LONG_MS);
    verrou_acquire_options options = once();

    verrou__conf_hold(c, a);
    EXPECT(VERROU_ENOTACQUIRED, verrou_lock_acquire_immediately(b, NULL, ERR));
    EXPECT(VERROU_ENOTACQUIRED, verrou_lock_acquire(b, &options, NULL, ERR));
    verrou__conf_expect_held_by(c, a);
}

static void held_lock_is_refused_elsewhere(struct conf *c)
{
    verrou_lock *a = verrou__conf_lock(c, LONG_MS);
    verrou_lock *b = verrou__conf_lock_on(c, verrou__conf_open(c), verrou__conf_key(c, "lock"), LONG_MS);

    verrou__conf_hold(c, a);
    EXPECT(VERROU_ENOTACQUIRED, verrou_lock_acquire_immediately(b, NULL, ERR));
    verrou__conf_drop(c, a);
    verrou__conf_hold(c, b);
    EXPECT(VERROU_ENOTACQUIRED, verrou_lock_acquire_immediately(a, NULL, ERR));
    verrou__conf_drop(c, b);
}

static void refusal_names_holder(struct conf *c)
{
    verrou_lock *a = verrou__conf_lock(c, LONG_MS), *b = verrou__conf_lock(c, LONG_MS);
    verrou_info info = VERROU_INFO_INIT;

    verrou__conf_hold(c, a);
    EXPECT(VERROU_ENOTACQUIRED, verrou_lock_acquire_immediately(b, &info, ERR));
    assert_int_equal(info.locked, 1);
    if (info.owner[0])
        assert_string_equal(info.owner, verrou__conf_owner(c, a));
    if (info.remaining_ms != -1)
        assert_in_range(info.remaining_ms, 1, LONG_MS);
    if (info.fence)
        assert_int_equal(info.fence, verrou_lock_fence(a));
}

/* The original forgot the expiry of the lease that it held when it was refused a second one. */
static void refusal_keeps_own_view(struct conf *c)
{
    verrou_lock *lock = verrou__conf_lock(c, LONG_MS);
    uint64_t fence;
    const char *owner;

    verrou__conf_hold(c, lock);
    fence = verrou_lock_fence(lock);
    owner = verrou__conf_owner(c, lock);
    EXPECT(VERROU_ENOTACQUIRED, verrou_lock_acquire_immediately(lock, NULL, ERR));

    assert_in_range(verrou_lock_remaining_ms(lock), 1, LONG_MS);
    assert_int_equal(verrou_lock_is_expired(lock), 0);
    EXPECT(VERROU_OK, verrou_lock_check(lock));
    assert_int_equal(verrou_lock_fence(lock), fence);
    assert_string_equal(verrou__conf_owner(c, lock), owner);
    verrou__conf_drop(c, lock);
}

static void refusal_leaves_holder_alone(struct conf *c)
{
    verrou_lock *a = verrou__conf_lock(c, SHORT_MS), *b = verrou__conf_lock(c, VERROU_FOREVER);

    verrou__conf_hold(c, a);
    if (verrou_lock_acquire_immediately(b, NULL, ERR) == VERROU_ENOTACQUIRED)
        verrou__conf_let_expire(c, a); /* b's longer lease was not written over it */
}

static void own_expired_lease_is_acquired(struct conf *c)
{
    verrou_lock *lock = verrou__conf_lock(c, SHORT_MS);
    uint64_t fence;

    verrou__conf_hold(c, lock);
    fence = verrou_lock_fence(lock);
    verrou__conf_let_expire(c, lock);
    EXPECT(VERROU_OK, verrou_lock_acquire(lock, NULL, NULL, ERR));
    if (c->suite->caps & VERROU_CAP_FENCE)
        REQUIRE(verrou_lock_fence(lock) > fence);
}

static void expired_lease_is_taken_over(struct conf *c)
{
    verrou_lock *a = verrou__conf_lock(c, SHORT_MS), *b = verrou__conf_lock(c, LONG_MS);

    verrou__conf_hold(c, a);
    verrou__conf_let_expire(c, a);
    verrou__conf_hold(c, b);
    verrou__conf_expect_held_by(c, b);
}

/* In the original's memory store the entry kept the owner of the lease that had run out. */
static void taker_over_is_owner(struct conf *c)
{
    verrou_lock *a = verrou__conf_lock(c, SHORT_MS), *b = verrou__conf_lock(c, LONG_MS);

    verrou__conf_hold(c, a);
    verrou__conf_let_expire(c, a);
    verrou__conf_hold(c, b);
    EXPECT(VERROU_OK, verrou_lock_extend(b, LONG_MS, NULL, ERR));
    verrou__conf_drop(c, b);
    verrou__conf_expect_free(c, b);
}

static void taker_over_excludes(struct conf *c)
{
    verrou_lock *a = verrou__conf_lock(c, SHORT_MS), *b = verrou__conf_lock(c, LONG_MS);

    verrou__conf_hold(c, a);
    verrou__conf_let_expire(c, a);
    verrou__conf_hold(c, b);
    EXPECT(VERROU_ENOTACQUIRED, verrou_lock_acquire_immediately(a, NULL, ERR));
    verrou__conf_drop(c, b);
    verrou__conf_hold(c, a);
}

/* A lower bound holds on however slow a machine; the allowance is for clocks that count whole milliseconds. */
static void lease_lasts_its_time(struct conf *c)
{
    verrou_lock *a = verrou__conf_lock(c, 2 * SHORT_MS);
    verrou_acquire_options options = verrou__conf_waiting(c, 1);
    int64_t start_ms = verrou_now_ms();

    verrou__conf_hold(c, a);
    EXPECT(VERROU_OK, verrou_lock_acquire(a, &options, NULL, ERR));
    REQUIRE(verrou_now_ms() - start_ms >= 2 * SHORT_MS - 10);
}

static void keys_are_independent(struct conf *c)
{
    verrou_lock *a = verrou__conf_lock_on(c, c->store, verrou__conf_key(c, "a"), LONG_MS);
    verrou_lock *b = verrou__conf_lock_on(c, c->store, verrou__conf_key(c, "b"), LONG_MS);

    verrou__conf_hold(c, a);
    verrou__conf_expect_free(c, b);
    verrou__conf_hold(c, b);
    verrou__conf_drop(c, a);
    verrou__conf_expect_free(c, a);
    verrou__conf_expect_held_by(c, b);
}

static void permanent_lease(struct conf *c)
{
    verrou_lock *a = verrou__conf_lock(c, VERROU_FOREVER), *b = verrou__conf_lock(c, LONG_MS);
    verrou_info info = VERROU_INFO_INIT;

    EXPECT(VERROU_OK, verrou_lock_acquire(a, NULL, &info, ERR));
    REQUIRE(info.remaining_ms == VERROU_FOREVER);
    REQUIRE(verrou_lock_remaining_ms(a) == VERROU_FOREVER);
    assert_int_equal(verrou_lock_is_expired(a), 0);

    info = verrou__conf_inspect(c, a);
    assert_int_equal(info.locked, 1);
    REQUIRE(info.remaining_ms == VERROU_FOREVER || info.remaining_ms == -1);
    EXPECT(VERROU_ENOTACQUIRED, verrou_lock_acquire_immediately(b, NULL, ERR));
    verrou__conf_drop(c, a);
    verrou__conf_hold(c, b);
}

static void longest_lease(struct conf *c)
{
    verrou_lock *lock = verrou__conf_lock(c, VERROU_MAX_MS);
    verrou_info info;

    verrou__conf_hold(c, lock);
    info = verrou__conf_inspect(c, lock);
    assert_int_equal(info.locked, 1);
    REQUIRE(info.remaining_ms == -1 ||
            (info.remaining_ms > VERROU_MAX_MS - LONG_MS && info.remaining_ms <= VERROU_MAX_MS));
    verrou__conf_drop(c, lock);
}

/*
 * The smallest lease may be over before the answer is there: then the acquire fails, since nothing is held. What it may not do is last for ever
 * or stay.
 */
static void shortest_lease(struct conf *c)
{
    verrou_lock *lock = verrou__conf_lock(c, 1);
    verrou_acquire_options options = once();
    verrou_status status = verrou_lock_acquire(lock, &options, NULL, ERR);

    REQUIRE(status == VERROU_OK || status == VERROU_ESTORAGE || status == VERROU_EUNKNOWN);
    verrou__conf_let_expire(c, lock);
}

static void every_acquisition_has_its_owner(struct conf *c)
{
    enum { ROUNDS = 32 };
    const char *owners[ROUNDS];
    verrou_lock *lock = verrou__conf_lock(c, LONG_MS);

    for (int round = 0; round < ROUNDS; round++) {
        verrou__conf_hold(c, lock);
        owners[round] = verrou__conf_owner(c, lock);
        for (int earlier = 0; earlier < round; earlier++)
            assert_string_not_equal(owners[earlier], owners[round]);
        verrou__conf_drop(c, lock);
    }
}

static void label_is_in_owner(struct conf *c)
{
    verrou_lock_options options = VERROU_LOCK_OPTIONS_INIT;
    verrou_lock *lock;

    options.label = "nightly report";
    lock = verrou__conf_lock_with(c, c->store, verrou__conf_key(c, "lock"), &options);
    verrou__conf_hold(c, lock);
    assert_non_null(strstr(verrou__conf_owner(c, lock), "nightly report"));
    verrou__conf_expect_held_by(c, lock);
}

static void fixed_owner_is_used(struct conf *c)
{
    verrou_lock_options options = VERROU_LOCK_OPTIONS_INIT;
    verrou_lock *lock;
    verrou_info info;

    options.owner = "Zo\xc3\xab's \"job\" \\ 100%";
    lock = verrou__conf_lock_with(c, c->store, verrou__conf_key(c, "lock"), &options);
    verrou__conf_hold(c, lock);
    assert_string_equal(verrou__conf_owner(c, lock), options.owner);
    info = verrou__conf_inspect(c, lock);
    if (info.owner[0])
        assert_string_equal(info.owner, options.owner);
    verrou__conf_drop(c, lock);
}

static void attempts_run_out(struct conf *c)
{
    verrou_lock *a = verrou__conf_lock(c, LONG_MS), *b = verrou__conf_lock(c, LONG_MS);
    verrou_acquire_options options = VERROU_ACQUIRE_OPTIONS_INIT;

    options.attempts = 3;
    options.delay_ms = 1;
    verrou__conf_hold(c, a);
    EXPECT(VERROU_ENOTACQUIRED, verrou_lock_acquire(b, &options, NULL, ERR));
    verrou__conf_drop(c, a);
    EXPECT(VERROU_OK, verrou_lock_acquire(b, &options, NULL, ERR));
}

const struct conf_claim verrou__conf_acquire_claims[] = {
    {"a free lock is acquired", free_lock_is_acquired, CONF_ANY, 0},
    {"a free lock is acquired immediately", free_lock_is_acquired_immediately, CONF_ANY, 0},
    {"an acquired lock is locked, a free one is not", acquired_lock_is_locked, 0, 0},
    {"a handle that holds the lock does not get it again", own_lease_is_not_reentered, 0, 0},
    {"an owner that holds the lock does not get it again", fixed_owner_is_not_reentered, 0, 0},
    {"a lock held by someone else is not acquired", held_lock_is_refused, 0, 0},
    {"a lock held through another store handle is not acquired", held_lock_is_refused_elsewhere, CONF_REOPEN, 0},
    {"a refusal says who holds the lock and how long", refusal_names_holder, 0, 0},
    {"a refusal leaves the handle's own lease as it was", refusal_keeps_own_view, 0, 0},
    {"a refusal does not lengthen the holder's lease", refusal_leaves_holder_alone, 0, 0},
    {"one's own lease that ran out is acquired anew", own_expired_lease_is_acquired, 0, 0},
    {"a lease that ran out is taken over", expired_lease_is_taken_over, 0, 0},
    {"who takes over a lease is its owner", taker_over_is_owner, 0, 0},
    {"who takes over a lease keeps the former owner out", taker_over_excludes, 0, 0},
    {"a lease is not given away before its time", lease_lasts_its_time, 0, 0},
    {"two keys are two locks", keys_are_independent, 0, 0},
    {"a lease without end does not end", permanent_lease, 0, 0},
    {"the longest lease is kept exactly", longest_lease, 0, 0},
    {"the shortest lease ends", shortest_lease, 0, 0},
    {"every acquisition has an owner of its own", every_acquisition_has_its_owner, CONF_ANY, 0},
    {"a label is part of the owner", label_is_in_owner, 0, 0},
    {"a fixed owner is used as it is", fixed_owner_is_used, 0, 0},
    {"attempts that run out end in a refusal", attempts_run_out, 0, 0},
    {NULL, NULL, 0, 0},
};
