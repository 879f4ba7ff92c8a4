/*
 * extend.c - claims about moving the end of a lease. The one that has cost users most is that a lease which ran out is
 * not revived; it is checked with handles that believe in their lease, so that the store itself has to say no.
 */
#include "conf.h"

static void lease_is_extended(struct conf *c)
{
    verrou_lock *lock = verrou__conf_lock(c, 2000);
    verrou_info info;

    verrou__conf_hold(c, lock);
    EXPECT(VERROU_OK, verrou_lock_extend(lock, LONG_MS, NULL, ERR));
    assert_in_range(verrou_lock_remaining_ms(lock), 2001, LONG_MS);
    info = verrou__conf_inspect(c, lock);
    assert_int_equal(info.locked, 1);
    if (info.remaining_ms != -1)
        assert_in_range(info.remaining_ms, 2001, LONG_MS);
}

static void extended_lease_outlives_its_ttl(struct conf *c)
{
    verrou_lock *a = verrou__conf_lock(c, 1000), *b = verrou__conf_lock(c, LONG_MS);

    verrou__conf_hold(c, a);
    EXPECT(VERROU_OK, verrou_lock_extend(a, LONG_MS, NULL, ERR));
    verrou__conf_wait_until(verrou_now_ms() + 1100);
    verrou__conf_expect_held_by(c, a);
    EXPECT(VERROU_ENOTACQUIRED, verrou_lock_acquire_immediately(b, NULL, ERR));
    EXPECT(VERROU_OK, verrou_lock_check(a));
    verrou__conf_drop(c, a);
}

static void lease_is_shortened(struct conf *c)
{
    verrou_lock *a = verrou__conf_lock(c, LONG_MS), *b = verrou__conf_lock(c, LONG_MS);

    verrou__conf_hold(c, a);
    EXPECT(VERROU_OK, verrou_lock_extend(a, SHORT_MS, NULL, ERR));
    verrou__conf_let_expire(c, a);
    assert_int_equal(verrou_lock_is_expired(a), 1);
    verrou__conf_hold(c, b);
}

static void default_is_the_locks_ttl(struct conf *c)
{
    verrou_lock *lock = verrou__conf_lock(c, LONG_MS);

    verrou__conf_hold(c, lock);
    EXPECT(VERROU_OK, verrou_lock_extend(lock, 5000, NULL, ERR));
    assert_in_range(verrou_lock_remaining_ms(lock), 0, 5000);
    EXPECT(VERROU_OK, verrou_lock_extend(lock, VERROU_DEFAULT, NULL, ERR));
    assert_in_range(verrou_lock_remaining_ms(lock), 5001, LONG_MS);
}

static void free_lock_is_not_extended(struct conf *c)
{
    verrou_lock *lock = verrou__conf_lock(c, LONG_MS), *b = verrou__conf_lock(c, LONG_MS);
    verrou_lock *believer = verrou__conf_believer(c, c->store, verrou__conf_key(c, "lock"), "nobody");

    EXPECT(VERROU_ENOTOWNED, verrou_lock_extend(lock, LONG_MS, NULL, ERR));
    EXPECT(VERROU_ENOTOWNED, verrou_lock_extend(believer, LONG_MS, NULL, ERR));
    verrou__conf_expect_free(c, lock);
    verrou__conf_hold(c, b);
}

static void released_lease_is_not_extended(struct conf *c)
{
    verrou_lock *lock = verrou__conf_lock(c, LONG_MS), *believer;

    verrou__conf_hold(c, lock);
    believer = verrou__conf_believer(c, c->store, verrou__conf_key(c, "lock"), verrou__conf_owner(c, lock));
    verrou__conf_drop(c, lock);
    EXPECT(VERROU_ENOTOWNED, verrou_lock_extend(lock, LONG_MS, NULL, ERR));
    EXPECT(VERROU_ENOTOWNED, verrou_lock_extend(believer, LONG_MS, NULL, ERR));
    verrou__conf_expect_free(c, lock);
}

static void other_owner_cannot_extend(struct conf *c)
{
    verrou_lock *a = verrou__conf_lock(c, 4000), *b = verrou__conf_lock(c, LONG_MS);
    verrou_lock *believer = verrou__conf_believer(c, c->store, verrou__conf_key(c, "lock"), "somebody else");
    verrou_info info;

    verrou__conf_hold(c, a);
    EXPECT(VERROU_ENOTOWNED, verrou_lock_extend(b, LONG_MS, NULL, ERR));
    EXPECT(VERROU_ENOTOWNED, verrou_lock_extend(believer, LONG_MS, NULL, ERR));
    info = verrou__conf_inspect(c, a);
    if (info.remaining_ms != -1)
        assert_in_range(info.remaining_ms, 0, 4000);
}

static void expired_lease_is_not_revived(struct conf *c)
{
    verrou_lock *lock = verrou__conf_lock(c, SHORT_MS), *believer;

    verrou__conf_hold(c, lock);
    believer = verrou__conf_believer(c, c->store, verrou__conf_key(c, "lock"), verrou__conf_owner(c, lock));
    verrou__conf_let_expire(c, lock);
    EXPECT(VERROU_ENOTOWNED, verrou_lock_extend(lock, LONG_MS, NULL, ERR));
    verrou__conf_expect_free(c, lock);
    EXPECT(VERROU_ENOTOWNED, verrou_lock_extend(believer, LONG_MS, NULL, ERR));
    verrou__conf_expect_free(c, lock);
    EXPECT(VERROU_ENOTOWNED, verrou_lock_extend(believer, VERROU_FOREVER, NULL, ERR));
    verrou__conf_expect_free(c, lock);
}

static void stale_owner_cannot_extend(struct conf *c)
{
    verrou_lock *a = verrou__conf_lock(c, SHORT_MS), *b = verrou__conf_lock(c, 4000), *believer;
    verrou_info info;

    verrou__conf_hold(c, a);
    believer = verrou__conf_believer(c, c->store, verrou__conf_key(c, "lock"), verrou__conf_owner(c, a));
    verrou__conf_let_expire(c, a);
    verrou__conf_hold(c, b);
    EXPECT(VERROU_ENOTOWNED, verrou_lock_extend(a, LONG_MS, NULL, ERR));
    EXPECT(VERROU_ENOTOWNED, verrou_lock_extend(believer, LONG_MS, NULL, ERR));
    verrou__conf_expect_held_by(c, b);
    info = verrou__conf_inspect(c, b);
    if (info.remaining_ms != -1)
        assert_in_range(info.remaining_ms, 0, 4000);
    verrou__conf_drop(c, b);
}

static void stale_owner_cannot_extend_after_force(struct conf *c)
{
    verrou_lock *a = verrou__conf_lock(c, LONG_MS), *b = verrou__conf_lock(c, LONG_MS), *believer;

    verrou__conf_hold(c, a);
    believer = verrou__conf_believer(c, c->store, verrou__conf_key(c, "lock"), verrou__conf_owner(c, a));
    EXPECT(VERROU_OK, verrou_lock_force_release(b, NULL, ERR));
    EXPECT(VERROU_ENOTOWNED, verrou_lock_extend(believer, LONG_MS, NULL, ERR));
    verrou__conf_expect_free(c, a);
    EXPECT(VERROU_ENOTOWNED, verrou_lock_extend(a, LONG_MS, NULL, ERR));
    verrou__conf_expect_free(c, a);

    verrou__conf_hold(c, b);
    EXPECT(VERROU_ENOTOWNED, verrou_lock_extend(believer, LONG_MS, NULL, ERR));
    EXPECT(VERROU_ENOTOWNED, verrou_lock_extend(a, LONG_MS, NULL, ERR));
    verrou__conf_expect_held_by(c, b);
    verrou__conf_drop(c, b);
}

static void lease_is_made_permanent(struct conf *c)
{
    verrou_lock *lock = verrou__conf_lock(c, 1000);
    verrou_info info;

    verrou__conf_hold(c, lock);
    EXPECT(VERROU_OK, verrou_lock_extend(lock, VERROU_FOREVER, NULL, ERR));
    REQUIRE(verrou_lock_remaining_ms(lock) == VERROU_FOREVER);
    verrou__conf_wait_until(verrou_now_ms() + 1100);
    info = verrou__conf_inspect(c, lock);
    assert_int_equal(info.locked, 1);
    REQUIRE(info.remaining_ms == VERROU_FOREVER || info.remaining_ms == -1);
    assert_int_equal(verrou_lock_is_expired(lock), 0);
    verrou__conf_drop(c, lock);
}

static void permanent_lease_is_made_finite(struct conf *c)
{
    verrou_lock *a = verrou__conf_lock(c, VERROU_FOREVER), *b = verrou__conf_lock(c, LONG_MS);

    verrou__conf_hold(c, a);
    EXPECT(VERROU_OK, verrou_lock_extend(a, SHORT_MS, NULL, ERR));
    assert_in_range(verrou_lock_remaining_ms(a), 0, SHORT_MS);
    verrou__conf_let_expire(c, a);
    assert_int_equal(verrou_lock_is_expired(a), 1);
    verrou__conf_hold(c, b);
}

static void extending_keeps_owner_and_fence(struct conf *c)
{
    verrou_lock *lock = verrou__conf_lock(c, LONG_MS);
    uint64_t fence;
    const char *owner;
    verrou_info info;

    verrou__conf_hold(c, lock);
    fence = verrou_lock_fence(lock);
    owner = verrou__conf_owner(c, lock);
    EXPECT(VERROU_OK, verrou_lock_extend(lock, LONG_MS, NULL, ERR));
    assert_int_equal(verrou_lock_fence(lock), fence);
    assert_string_equal(verrou__conf_owner(c, lock), owner);
    verrou__conf_expect_held_by(c, lock);
    info = verrou__conf_inspect(c, lock);
    if (info.fence)
        assert_int_equal(info.fence, fence);
}

static void bad_ttl_changes_nothing(struct conf *c)
{
    static const int64_t bad[] = {0, -1, -30000, VERROU_MAX_MS + 1, VERROU_FOREVER - 1, VERROU_DEFAULT + 1};
    verrou_lock *lock = verrou__conf_lock(c, LONG_MS);

    verrou__conf_hold(c, lock);
    for (size_t at = 0; at < sizeof bad / sizeof bad[0]; at++)
        EXPECT(VERROU_EINVAL, verrou_lock_extend(lock, bad[at], NULL, ERR));
    EXPECT(VERROU_OK, verrou_lock_check(lock));
    verrou__conf_expect_held_by(c, lock);
    REQUIRE(verrou_lock_remaining_ms(lock) != VERROU_FOREVER);
    verrou__conf_drop(c, lock);
}

static void wrong_fence_cannot_extend(struct conf *c)
{
    verrou_lock *lock = verrou__conf_lock(c, 4000);
    verrou_call_options options = VERROU_CALL_OPTIONS_INIT;

    verrou__conf_hold(c, lock);
    options.fence = verrou_lock_fence(lock) + 1;
    EXPECT(VERROU_ENOTOWNED, verrou_lock_extend(lock, LONG_MS, &options, ERR));
    assert_in_range(verrou_lock_remaining_ms(lock), 1, 4000);
    options.fence = verrou_lock_fence(lock);
    EXPECT(VERROU_OK, verrou_lock_extend(lock, LONG_MS, &options, ERR));
}

const struct conf_claim verrou__conf_extend_claims[] = {
    {"a lease is extended", lease_is_extended, 0, 0},
    {"an extended lease outlives its first end", extended_lease_outlives_its_ttl, 0, 0},
    {"a lease can be shortened", lease_is_shortened, 0, 0},
    {"extending by default gives the lock's own TTL", default_is_the_locks_ttl, CONF_ANY, 0},
    {"a free lock is not extended, and stays free", free_lock_is_not_extended, 0, 0},
    {"a released lease is not extended", released_lease_is_not_extended, 0, 0},
    {"another owner cannot extend a lease", other_owner_cannot_extend, 0, 0},
    {"a lease that ran out is not revived", expired_lease_is_not_revived, 0, 0},
    {"a former owner cannot extend a lease taken over", stale_owner_cannot_extend, 0, 0},
    {"a former owner cannot extend after a force-release", stale_owner_cannot_extend_after_force, 0, 0},
    {"a lease can be made permanent", lease_is_made_permanent, 0, 0},
    {"a permanent lease can be made finite", permanent_lease_is_made_finite, 0, 0},
    {"extending changes neither owner nor token", extending_keeps_owner_and_fence, 0, 0},
    {"an invalid TTL is refused and changes nothing", bad_ttl_changes_nothing, 0, 0},
    {"extending for another acquisition's token is refused", wrong_fence_cannot_extend, 0, VERROU_CAP_FENCE},
    {NULL, NULL, 0, 0},
};
