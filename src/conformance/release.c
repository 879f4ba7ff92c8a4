/*
 * release.c - claims about giving a lock back, by its owner, by somebody else, and by force. A handle often knows by
 * itself that it has nothing to release; the claims that matter use handles which believe in their lease
 * (verrou__conf_believer), so that the store has to know.
 */
#include "conf.h"

static void own_lease_is_released(struct conf *c)
{
    verrou_lock *lock = verrou__conf_lock(c, LONG_MS);

    verrou__conf_hold(c, lock);
    verrou__conf_drop(c, lock);
    verrou__conf_expect_free(c, lock);
}

static void released_lock_is_acquired(struct conf *c)
{
    verrou_lock *a = verrou__conf_lock(c, LONG_MS), *b = verrou__conf_lock(c, LONG_MS);

    verrou__conf_hold(c, a);
    verrou__conf_drop(c, a);
    verrou__conf_hold(c, b);
    verrou__conf_expect_held_by(c, b);
}

static void never_acquired(struct conf *c)
{
    verrou_lock *lock = verrou__conf_lock(c, LONG_MS);
    verrou_lock *believer = verrou__conf_believer(c, c->store, verrou__conf_key(c, "lock"), "nobody");

    EXPECT(VERROU_ENOTOWNED, verrou_lock_release(lock, NULL, ERR));
    EXPECT(VERROU_ENOTOWNED, verrou_lock_release(believer, NULL, ERR));
    verrou__conf_expect_free(c, lock);
}

static void released_twice(struct conf *c)
{
    verrou_lock *lock = verrou__conf_lock(c, LONG_MS), *believer;

    verrou__conf_hold(c, lock);
    believer = verrou__conf_believer(c, c->store, verrou__conf_key(c, "lock"), verrou__conf_owner(c, lock));
    verrou__conf_drop(c, lock);
    EXPECT(VERROU_ENOTOWNED, verrou_lock_release(lock, NULL, ERR));
    EXPECT(VERROU_ENOTOWNED, verrou_lock_release(believer, NULL, ERR));
}

static void other_owner_cannot_release(struct conf *c)
{
    verrou_lock *a = verrou__conf_lock(c, LONG_MS), *b = verrou__conf_lock(c, LONG_MS);
    verrou_lock *believer = verrou__conf_believer(c, c->store, verrou__conf_key(c, "lock"), "somebody else");

    verrou__conf_hold(c, a);
    EXPECT(VERROU_ENOTOWNED, verrou_lock_release(b, NULL, ERR));
    EXPECT(VERROU_ENOTOWNED, verrou_lock_release(believer, NULL, ERR));
    verrou__conf_expect_held_by(c, a);
    verrou__conf_drop(c, a);
}

/* Owners are compared byte by byte, as keys are. */
static void similar_owner_cannot_release(struct conf *c)
{
    static const char *const similar[] = {"owner",        "OWNER", "Owner ", " Owner", "Owner\t",
                                          "Own\xc3\xa9r", "Owne",  "Owner%", "O_ner",  "%"};
    verrou_lock_options options = VERROU_LOCK_OPTIONS_INIT;
    verrou_lock *lock;

    options.owner = "Owner";
    options.ttl_ms = LONG_MS;
    lock = verrou__conf_lock_with(c, c->store, verrou__conf_key(c, "lock"), &options);
    verrou__conf_hold(c, lock);
    for (size_t at = 0; at < sizeof similar / sizeof similar[0]; at++) {
        verrou_lock *believer = verrou__conf_believer(c, c->store, verrou__conf_key(c, "lock"), similar[at]);

        EXPECT(VERROU_ENOTOWNED, verrou_lock_release(believer, NULL, ERR));
        EXPECT(VERROU_ENOTOWNED, verrou_lock_extend(believer, LONG_MS, NULL, ERR));
    }
    verrou__conf_expect_held_by(c, lock);
    verrou__conf_drop(c, lock);
}

static void expired_lease_is_not_released(struct conf *c)
{
    verrou_lock *lock = verrou__conf_lock(c, SHORT_MS), *believer;

    verrou__conf_hold(c, lock);
    believer = verrou__conf_believer(c, c->store, verrou__conf_key(c, "lock"), verrou__conf_owner(c, lock));
    verrou__conf_let_expire(c, lock);
    EXPECT(VERROU_ENOTOWNED, verrou_lock_release(lock, NULL, ERR));
    EXPECT(VERROU_ENOTOWNED, verrou_lock_release(believer, NULL, ERR));
}

static void stale_owner_cannot_release(struct conf *c)
{
    verrou_lock *a = verrou__conf_lock(c, SHORT_MS), *b = verrou__conf_lock(c, LONG_MS), *believer;

    verrou__conf_hold(c, a);
    believer = verrou__conf_believer(c, c->store, verrou__conf_key(c, "lock"), verrou__conf_owner(c, a));
    verrou__conf_let_expire(c, a);
    verrou__conf_hold(c, b);
    EXPECT(VERROU_ENOTOWNED, verrou_lock_release(a, NULL, ERR));
    EXPECT(VERROU_ENOTOWNED, verrou_lock_release(believer, NULL, ERR));
    verrou__conf_expect_held_by(c, b);
    verrou__conf_drop(c, b);
}

static void stale_owner_cannot_release_after_force(struct conf *c)
{
    verrou_lock *a = verrou__conf_lock(c, LONG_MS), *b = verrou__conf_lock(c, LONG_MS), *believer;

    verrou__conf_hold(c, a);
    believer = verrou__conf_believer(c, c->store, verrou__conf_key(c, "lock"), verrou__conf_owner(c, a));
    EXPECT(VERROU_OK, verrou_lock_force_release(b, NULL, ERR));
    verrou__conf_hold(c, b);
    EXPECT(VERROU_ENOTOWNED, verrou_lock_release(a, NULL, ERR));
    EXPECT(VERROU_ENOTOWNED, verrou_lock_release(believer, NULL, ERR));
    verrou__conf_expect_held_by(c, b);
    verrou__conf_drop(c, b);
}

/* A release that arrives late, of a lease that the same handle took before this one. */
static void late_release_frees_nothing(struct conf *c)
{
    verrou_lock *lock = verrou__conf_lock(c, LONG_MS), *late;

    verrou__conf_hold(c, lock);
    late = verrou__conf_believer(c, c->store, verrou__conf_key(c, "lock"), verrou__conf_owner(c, lock));
    verrou__conf_drop(c, lock);
    verrou__conf_hold(c, lock);
    EXPECT(VERROU_ENOTOWNED, verrou_lock_release(late, NULL, ERR));
    verrou__conf_expect_held_by(c, lock);
    verrou__conf_drop(c, lock);
}

static void forced_free(struct conf *c)
{
    verrou_lock *lock = verrou__conf_lock(c, LONG_MS);

    EXPECT(VERROU_OK, verrou_lock_force_release(lock, NULL, ERR));
    EXPECT(VERROU_OK, verrou_store_force_release(c->store, verrou__conf_key(c, "lock"), NULL, ERR));
}

static void forced_own(struct conf *c)
{
    verrou_lock *lock = verrou__conf_lock(c, LONG_MS);

    verrou__conf_hold(c, lock);
    EXPECT(VERROU_OK, verrou_lock_force_release(lock, NULL, ERR));
    verrou__conf_expect_free(c, lock);
    EXPECT(VERROU_ENOTOWNED, verrou_lock_release(lock, NULL, ERR));
}

static void forced_other(struct conf *c)
{
    verrou_lock *a = verrou__conf_lock(c, LONG_MS), *b = verrou__conf_lock(c, LONG_MS);

    verrou__conf_hold(c, a);
    EXPECT(VERROU_OK, verrou_lock_force_release(b, NULL, ERR));
    verrou__conf_expect_free(c, b);
    verrou__conf_hold(c, b);
    EXPECT(VERROU_OK, verrou_store_force_release(c->store, verrou__conf_key(c, "lock"), NULL, ERR));
    verrou__conf_expect_free(c, a);
}

static void forced_expired(struct conf *c)
{
    verrou_lock *lock = verrou__conf_lock(c, SHORT_MS);

    verrou__conf_hold(c, lock);
    verrou__conf_let_expire(c, lock);
    EXPECT(VERROU_OK, verrou_lock_force_release(lock, NULL, ERR));
    verrou__conf_expect_free(c, lock);
}

static void forced_permanent(struct conf *c)
{
    verrou_lock *a = verrou__conf_lock(c, VERROU_FOREVER), *b = verrou__conf_lock(c, LONG_MS);

    verrou__conf_hold(c, a);
    EXPECT(VERROU_OK, verrou_lock_force_release(b, NULL, ERR));
    verrou__conf_hold(c, b);
}

static void forcing_leaves_other_keys(struct conf *c)
{
    verrou_lock *a = verrou__conf_lock_on(c, c->store, verrou__conf_key(c, "a"), LONG_MS);
    verrou_lock *ab = verrou__conf_lock_on(c, c->store, verrou__conf_key(c, "ab"), LONG_MS);

    verrou__conf_hold(c, a);
    verrou__conf_hold(c, ab);
    EXPECT(VERROU_OK, verrou_store_force_release(c->store, verrou__conf_key(c, "a"), NULL, ERR));
    verrou__conf_expect_held_by(c, ab);
    verrou__conf_drop(c, ab);
}

static void wrong_fence_cannot_release(struct conf *c)
{
    verrou_lock *lock = verrou__conf_lock(c, LONG_MS);
    verrou_call_options options = VERROU_CALL_OPTIONS_INIT;
    uint64_t earlier;

    verrou__conf_hold(c, lock);
    earlier = verrou_lock_fence(lock);
    verrou__conf_drop(c, lock);
    verrou__conf_hold(c, lock);

    options.fence = earlier;
    EXPECT(VERROU_ENOTOWNED, verrou_lock_release(lock, &options, ERR));
    options.fence = verrou_lock_fence(lock) + 1;
    EXPECT(VERROU_ENOTOWNED, verrou_lock_release(lock, &options, ERR));
    EXPECT(VERROU_OK, verrou_lock_check(lock));
    verrou__conf_expect_held_by(c, lock);

    options.fence = verrou_lock_fence(lock);
    EXPECT(VERROU_OK, verrou_lock_release(lock, &options, ERR));
    verrou__conf_expect_free(c, lock);
}

const struct conf_claim verrou__conf_release_claims[] = {
    {"a released lock is free", own_lease_is_released, 0, 0},
    {"a released lock is acquired by the next one", released_lock_is_acquired, 0, 0},
    {"a lock that was never acquired is not owned", never_acquired, 0, 0},
    {"a lock released twice is not owned the second time", released_twice, 0, 0},
    {"another owner cannot release a lease", other_owner_cannot_release, 0, 0},
    {"a similar owner cannot release or extend a lease", similar_owner_cannot_release, 0, 0},
    {"a lease that ran out cannot be released", expired_lease_is_not_released, 0, 0},
    {"a former owner cannot release a lease taken over", stale_owner_cannot_release, 0, 0},
    {"a former owner cannot release a lease taken after force", stale_owner_cannot_release_after_force, 0, 0},
    {"a late release of an earlier lease frees nothing", late_release_frees_nothing, 0, 0},
    {"a free lock can be force-released", forced_free, CONF_ANY, 0},
    {"one's own lease can be force-released, and is gone then", forced_own, 0, 0},
    {"anybody's lease can be force-released", forced_other, 0, 0},
    {"a lease that ran out can be force-released", forced_expired, 0, 0},
    {"a lease without end can be force-released", forced_permanent, 0, 0},
    {"a force-release frees its key and no other", forcing_leaves_other_keys, 0, 0},
    {"a release for another acquisition's token is refused", wrong_fence_cannot_release, 0, VERROU_CAP_FENCE},
    {NULL, NULL, 0, 0},
};
