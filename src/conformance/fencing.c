/*
 * fencing.c - claims about tokens: each acquisition's is larger than all earlier ones of its key, whatever happened in
 * between, and the token belongs to the acquisition rather than to the owner or the handle.
 */
#include "conf.h"
#include <stdio.h>

/* Acquire, check that the token grew, and remember it. */
static void grow(struct conf *c, verrou_lock *lock, uint64_t *last)
{
    verrou_info info = VERROU_INFO_INIT;

    EXPECT(VERROU_OK, verrou_lock_acquire_immediately(lock, &info, ERR));
    assert_int_equal(info.fence, verrou_lock_fence(lock));
    REQUIRE(info.fence > *last);
    REQUIRE(info.fence < UINT64_C(1) << 53);
    *last = info.fence;
}

static void grows_through_release(struct conf *c)
{
    verrou_lock *a = verrou__conf_lock(c, LONG_MS), *b = verrou__conf_lock(c, LONG_MS);
    uint64_t last = 0;

    for (int round = 0; round < 50; round++) {
        verrou_lock *lock = round % 3 ? a : b;

        grow(c, lock, &last);
        verrou__conf_drop(c, lock);
    }
}

static void grows_through_expiry(struct conf *c)
{
    verrou_lock *a = verrou__conf_lock(c, 40), *b = verrou__conf_lock(c, 40);
    uint64_t last = 0;

    for (int round = 0; round < 4; round++) {
        verrou_acquire_options options = verrou__conf_waiting(c, 10);
        verrou_lock *lock = round % 2 ? a : b;
        verrou_info info = VERROU_INFO_INIT;

        EXPECT(VERROU_OK, verrou_lock_acquire(lock, &options, &info, ERR));
        REQUIRE(info.fence > last);
        last = info.fence;
    }
}

static void grows_through_force(struct conf *c)
{
    verrou_lock *a = verrou__conf_lock(c, LONG_MS), *b = verrou__conf_lock(c, LONG_MS);
    uint64_t last = 0;

    for (int round = 0; round < 10; round++) {
        grow(c, round % 2 ? a : b, &last);
        EXPECT(VERROU_OK, verrou_store_force_release(c->store, verrou__conf_key(c, "lock"), NULL, ERR));
        if (round % 3 == 0) /* also of a key that is free already */
            EXPECT(VERROU_OK, verrou_store_force_release(c->store, verrou__conf_key(c, "lock"), NULL, ERR));
    }
}

static void grows_through_extending(struct conf *c)
{
    verrou_lock *lock = verrou__conf_lock(c, LONG_MS);
    uint64_t last = 0;

    for (int round = 0; round < 5; round++) {
        grow(c, lock, &last);
        EXPECT(VERROU_OK, verrou_lock_extend(lock, round % 2 ? LONG_MS : VERROU_FOREVER, NULL, ERR));
        assert_int_equal(verrou_lock_fence(lock), last);
        verrou__conf_drop(c, lock);
    }
}

static void grows_for_every_key(struct conf *c)
{
    enum { KEYS = 40 };
    verrou_lock *locks[KEYS];
    uint64_t last[KEYS] = {0};
    char name[32];

    for (int at = 0; at < KEYS; at++) {
        snprintf(name, sizeof name, "many/%d", at);
        locks[at] = verrou__conf_lock_on(c, c->store, verrou__conf_key(c, name), LONG_MS);
    }
    for (int round = 0; round < 4; round++)
        for (int at = 0; at < KEYS; at++) {
            int which = round % 2 ? KEYS - 1 - at : at;

            grow(c, locks[which], &last[which]);
            verrou__conf_drop(c, locks[which]);
        }
}

static void grows_across_store_handles(struct conf *c)
{
    verrou_lock *a = verrou__conf_lock(c, LONG_MS),
                *b = verrou__conf_lock_on(c, verrou__conf_open(c), verrou__conf_key(c, "lock"), LONG_MS);
    uint64_t last = 0;

    for (int round = 0; round < 40; round++) {
        verrou_lock *lock = round / 2 % 2 ? a : b;

        grow(c, lock, &last);
        verrou__conf_drop(c, lock);
    }
}

static void grows_through_reopening(struct conf *c)
{
    uint64_t last = 0;

    for (int round = 0; round < 5; round++) {
        verrou_store *store = verrou__conf_open(c);
        verrou_lock *lock = verrou__conf_lock_on(c, store, verrou__conf_key(c, "lock"), LONG_MS);

        grow(c, lock, &last);
        if (round % 2)
            verrou__conf_drop(c, lock);
        else
            EXPECT(VERROU_OK, verrou_lock_force_release(lock, NULL, ERR));
        verrou__conf_close(c, store);
    }
}

static void inspection_tells_token(struct conf *c)
{
    verrou_lock *a = verrou__conf_lock(c, LONG_MS), *b = verrou__conf_lock(c, LONG_MS);
    verrou_info info, refused = VERROU_INFO_INIT;

    verrou__conf_hold(c, a);
    info = verrou__conf_inspect(c, b);
    REQUIRE(info.fence == 0 || info.fence == verrou_lock_fence(a));
    EXPECT(VERROU_ENOTACQUIRED, verrou_lock_acquire_immediately(b, &refused, ERR));
    REQUIRE(refused.fence == 0 || refused.fence == verrou_lock_fence(a));
    assert_int_equal(verrou_lock_fence(b), 0);
}

static void handle_tells_latest(struct conf *c)
{
    verrou_lock *lock = verrou__conf_lock(c, LONG_MS);
    uint64_t fence;

    assert_int_equal(verrou_lock_fence(lock), 0);
    verrou__conf_hold(c, lock);
    fence = verrou_lock_fence(lock);
    REQUIRE(fence > 0);
    verrou__conf_drop(c, lock);
    assert_int_equal(verrou_lock_fence(lock), fence);
}

static void failed_acquire_keeps_token(struct conf *c)
{
    verrou_lock *a = verrou__conf_lock(c, LONG_MS), *b = verrou__conf_lock(c, LONG_MS);
    uint64_t fence;

    verrou__conf_hold(c, a);
    fence = verrou_lock_fence(a);
    verrou__conf_drop(c, a);
    verrou__conf_hold(c, b);
    EXPECT(VERROU_ENOTACQUIRED, verrou_lock_acquire_immediately(a, NULL, ERR));
    assert_int_equal(verrou_lock_fence(a), fence);
    REQUIRE(verrou_lock_fence(b) > fence);
}

static void store_without_tokens_says_so(struct conf *c)
{
    verrou_lock *lock = verrou__conf_lock(c, LONG_MS);
    verrou_info info = VERROU_INFO_INIT;

    EXPECT(VERROU_OK, verrou_lock_acquire_immediately(lock, &info, ERR));
    assert_int_equal(info.fence, 0);
    assert_int_equal(verrou_lock_fence(lock), 0);
    assert_int_equal(verrou_store_caps(c->store) & VERROU_CAP_FENCE_STORED, 0);
}

const struct conf_claim verrou__conf_fencing_claims[] = {
    {"tokens grow through release", grows_through_release, 0, VERROU_CAP_FENCE},
    {"tokens grow through expiry", grows_through_expiry, 0, VERROU_CAP_FENCE},
    {"tokens grow through force-release", grows_through_force, 0, VERROU_CAP_FENCE},
    {"tokens grow through extending, which keeps them", grows_through_extending, 0, VERROU_CAP_FENCE},
    {"tokens grow for each of many keys", grows_for_every_key, 0, VERROU_CAP_FENCE},
    {"tokens grow across store handles", grows_across_store_handles, CONF_REOPEN, VERROU_CAP_FENCE},
    {"tokens grow through reopening of the store", grows_through_reopening, CONF_REOPEN, VERROU_CAP_FENCE},
    {"inspection and refusal tell the holder's token or none", inspection_tells_token, 0, VERROU_CAP_FENCE},
    {"a handle tells its latest token, after release too", handle_tells_latest, 0, VERROU_CAP_FENCE},
    {"a failed acquisition does not change the handle's token", failed_acquire_keeps_token, 0, VERROU_CAP_FENCE},
    {"a store without tokens gives 0", store_without_tokens_says_so, CONF_ANY | CONF_NO_FENCE, 0},
    {NULL, NULL, 0, 0},
};
