/*
 * lease.c - claims about leases that are kept alive, and about being told of their end.
 */
#include "conf.h"

static verrou_lock *kept(struct conf *c, int64_t ttl_ms, int64_t max_hold_ms)
{
    verrou_lock_options options = VERROU_LOCK_OPTIONS_INIT;

    options.ttl_ms = ttl_ms;
    options.keep_alive = 1;
    options.max_hold_ms = max_hold_ms;
    return verrou__conf_lock_with(c, c->store, verrou__conf_key(c, "lock"), &options);
}

static verrou_call_options patiently(struct conf *c)
{
    verrou_call_options options = VERROU_CALL_OPTIONS_INIT;

    options.timeout_ms = c->suite->patience_ms;
    return options;
}

/* The TTL leaves a renewal two seconds to be late on a busy machine. */
static void kept_lease_lasts(struct conf *c)
{
    verrou_lock *a = kept(c, 3000, VERROU_FOREVER), *b = verrou__conf_lock(c, LONG_MS);
    int64_t end_ms;

    verrou__conf_hold(c, a);
    end_ms = verrou_now_ms() + 5000;
    while (verrou_now_ms() < end_ms) {
        EXPECT(VERROU_OK, verrou_lock_check(a));
        EXPECT(VERROU_ENOTACQUIRED, verrou_lock_acquire_immediately(b, NULL, ERR));
        verrou__conf_wait_until(verrou_now_ms() + 100);
    }
    verrou__conf_drop(c, a);
    verrou__conf_expect_free(c, a);
}

static void released_lease_is_not_kept(struct conf *c)
{
    verrou_lock *a = kept(c, 300, VERROU_FOREVER), *b = verrou__conf_lock(c, 2 * SHORT_MS);

    verrou__conf_hold(c, a);
    verrou__conf_drop(c, a);
    verrou__conf_hold(c, b);
    verrou__conf_let_expire(c, b);
    verrou__conf_wait_until(verrou_now_ms() + 300);
    verrou__conf_expect_free(c, a);
}

static void forced_lease_is_lost(struct conf *c)
{
    verrou_lock *a = kept(c, 900, VERROU_FOREVER), *b = verrou__conf_lock(c, LONG_MS);
    verrou_call_options options = patiently(c);

    verrou__conf_hold(c, a);
    EXPECT(VERROU_OK, verrou_lock_force_release(b, NULL, ERR));
    verrou__conf_hold(c, b);
    EXPECT(VERROU_ELOST, verrou_lock_wait_lost(a, &options, ERR));
    EXPECT(VERROU_ELOST, verrou_lock_check(a));
    assert_int_equal(verrou_lock_is_expired(a), 1);
    EXPECT(VERROU_ENOTOWNED, verrou_lock_release(a, NULL, ERR));
    verrou__conf_expect_held_by(c, b);
    verrou__conf_drop(c, b);
}

static void keeping_ends_after_max_hold(struct conf *c)
{
    verrou_lock *a = kept(c, 300, 500), *b = verrou__conf_lock(c, LONG_MS);
    verrou_call_options options = patiently(c);

    verrou__conf_hold(c, a);
    EXPECT(VERROU_ELOST, verrou_lock_wait_lost(a, &options, ERR));
    verrou__conf_let_expire(c, a);
    verrou__conf_hold(c, b);
}

static void freed_handle_is_not_kept(struct conf *c)
{
    verrou_lock *a = kept(c, 300, VERROU_FOREVER), *b = verrou__conf_lock(c, LONG_MS);

    verrou__conf_hold(c, a);
    verrou__conf_free(c, a);
    verrou__conf_let_expire(c, b);
    verrou__conf_hold(c, b);
}

static void closed_store_keeps_nothing(struct conf *c)
{
    verrou_store *store = verrou__conf_open(c);
    verrou_lock_options options = VERROU_LOCK_OPTIONS_INIT;
    verrou_lock *a, *b = verrou__conf_lock(c, LONG_MS);

    options.ttl_ms = 300;
    options.keep_alive = 1;
    a = verrou__conf_lock_with(c, store, verrou__conf_key(c, "lock"), &options);
    verrou__conf_hold(c, a);
    verrou__conf_close(c, store);
    verrou__conf_let_expire(c, b);
    verrou__conf_hold(c, b);
}

static void restored_lease_is_kept(struct conf *c)
{
    verrou_lock_options options = VERROU_LOCK_OPTIONS_INIT;
    verrou_lock *a = verrou__conf_lock(c, 3000), *again = NULL;
    verrou_status kept_status, released;

    verrou__conf_hold(c, a);
    options.keep_alive = 1;
    EXPECT(VERROU_OK, verrou_lock_restore(c->store, verrou__conf_json(c, a), &options, &again, ERR));
    verrou__conf_wait_until(verrou_now_ms() + 4500);
    kept_status = verrou_lock_check(again);
    released = verrou_lock_release(again, NULL, ERR);
    verrou_lock_free(again);
    EXPECT(VERROU_OK, kept_status);
    EXPECT(VERROU_OK, released);
}

static void extend_during_keeping(struct conf *c)
{
    verrou_lock *lock = kept(c, 600, VERROU_FOREVER);

    verrou__conf_hold(c, lock);
    for (int round = 0; round < 40; round++) {
        EXPECT(VERROU_OK, verrou_lock_extend(lock, LONG_MS, NULL, ERR));
        verrou__conf_wait_until(verrou_now_ms() + 10);
    }
    /* No renewal that was under way may have put the earlier end back. */
    assert_in_range(verrou_lock_remaining_ms(lock), 601, LONG_MS);
    verrou__conf_drop(c, lock);
}

/* ---- waiting for the end ---- */

static void nothing_to_wait_for(struct conf *c)
{
    verrou_lock *lock = verrou__conf_lock(c, LONG_MS);

    EXPECT(VERROU_ENOTOWNED, verrou_lock_wait_lost(lock, NULL, ERR));
    verrou__conf_hold(c, lock);
    verrou__conf_drop(c, lock);
    EXPECT(VERROU_ENOTOWNED, verrou_lock_wait_lost(lock, NULL, ERR));
}

static void wait_ends_with_lease(struct conf *c)
{
    verrou_lock *lock = verrou__conf_lock(c, SHORT_MS);
    verrou_call_options options = patiently(c);
    int64_t start_ms = verrou_now_ms();

    verrou__conf_hold(c, lock);
    EXPECT(VERROU_ELOST, verrou_lock_wait_lost(lock, &options, ERR));
    assert_int_equal(verrou_lock_is_expired(lock), 1);
    REQUIRE(verrou_now_ms() - start_ms >= SHORT_MS - 2);
}

static void wait_has_a_limit(struct conf *c)
{
    verrou_lock *lock = verrou__conf_lock(c, LONG_MS);
    verrou_call_options options = VERROU_CALL_OPTIONS_INIT;

    verrou__conf_hold(c, lock);
    options.timeout_ms = 40;
    EXPECT(VERROU_ECANCELED, verrou_lock_wait_lost(lock, &options, ERR));
    EXPECT(VERROU_OK, verrou_lock_check(lock));
    options.timeout_ms = NEVER_MS;
    options.deadline_ms = verrou_now_ms() + 40;
    EXPECT(VERROU_ECANCELED, verrou_lock_wait_lost(lock, &options, ERR));
    verrou__conf_drop(c, lock);
}

struct watching {
    verrou_lock *lock;
    verrou_call_options options;
    verrou_status status;
};

static void watching_run(void *arg)
{
    struct watching *watching = arg;

    watching->status = verrou_lock_wait_lost(watching->lock, &watching->options, NULL);
}

/* ENOTOWNED is what the thread sees if it starts so late that the lock is released already. */
static void wait_ends_with_release(struct conf *c)
{
    struct watching *watching = verrou__conf_alloc(c, sizeof *watching);

    watching->lock = verrou__conf_lock(c, LONG_MS);
    watching->options = patiently(c);
    verrou__conf_hold(c, watching->lock);
    verrou__conf_thread(c, watching_run, watching);
    verrou__conf_wait_until(verrou_now_ms() + 30);
    verrou__conf_drop(c, watching->lock);
    verrou__conf_join(c);
    REQUIRE(watching->status == VERROU_OK || watching->status == VERROU_ENOTOWNED);
}

static void extension_moves_end(struct conf *c)
{
    struct watching *watching = verrou__conf_alloc(c, sizeof *watching);

    watching->lock = verrou__conf_lock(c, 2000);
    watching->options = patiently(c);
    watching->options.timeout_ms = 2500;
    verrou__conf_hold(c, watching->lock);
    EXPECT(VERROU_OK, verrou_lock_extend(watching->lock, LONG_MS, NULL, ERR));
    verrou__conf_thread(c, watching_run, watching);
    verrou__conf_join(c);
    EXPECT(VERROU_ECANCELED, watching->status);
    EXPECT(VERROU_OK, verrou_lock_extend(watching->lock, 4 * SHORT_MS, NULL, ERR));
    watching->options = patiently(c);
    verrou__conf_thread(c, watching_run, watching);
    verrou__conf_join(c);
    EXPECT(VERROU_ELOST, watching->status);
}

const struct conf_claim verrou__conf_lease_claims[] = {
    {"a lease that is kept alive outlasts its TTL", kept_lease_lasts, 0, 0},
    {"a released lease is not kept alive", released_lease_is_not_kept, 0, 0},
    {"a kept lease that is forced is reported as lost", forced_lease_is_lost, 0, 0},
    {"a lease is kept alive no longer than asked", keeping_ends_after_max_hold, 0, 0},
    {"freeing the handle ends its renewals", freed_handle_is_not_kept, 0, 0},
    {"closing the store ends the renewals", closed_store_keeps_nothing, CONF_REOPEN, 0},
    {"a restored lease can be kept alive", restored_lease_is_kept, 0, 0},
    {"a renewal does not undo an extension", extend_during_keeping, 0, 0},
    {"without a lease there is no end to wait for", nothing_to_wait_for, CONF_ANY, 0},
    {"waiting for the end ends with the lease", wait_ends_with_lease, 0, 0},
    {"waiting for the end has a limit", wait_has_a_limit, 0, 0},
    {"waiting for the end ends with the release", wait_ends_with_release, 0, 0},
    {"an extension moves the end that is waited for", extension_moves_end, 0, 0},
    {NULL, NULL, 0, 0},
};
