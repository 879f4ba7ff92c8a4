/*
 * serial.c - claims about locks carried as JSON: from one handle, store handle or process to another, from and to
 * Verrou for Node.js.
 */
#include "conf.h"
#include <stdio.h>
#include <string.h>
#include <time.h>

static int64_t epoch_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void json_has_the_originals_members(struct conf *c)
{
    verrou_lock *lock = verrou__conf_lock(c, LONG_MS);
    const char *json;

    verrou__conf_hold(c, lock);
    json = verrou__conf_json(c, lock);
    assert_non_null(strstr(json, "\"key\""));
    assert_non_null(strstr(json, "\"owner\""));
    assert_non_null(strstr(json, "\"ttl\""));
    assert_non_null(strstr(json, "\"expirationTime\""));
    assert_non_null(strstr(json, verrou__conf_key(c, "lock")));
    assert_non_null(strstr(json, verrou__conf_owner(c, lock)));
}

static void restored_lease_is_seen(struct conf *c)
{
    verrou_lock *lock = verrou__conf_lock(c, LONG_MS), *again;

    verrou__conf_hold(c, lock);
    again = verrou__conf_restore(c, c->store, verrou__conf_json(c, lock));
    assert_string_equal(verrou_lock_key(again), verrou_lock_key(lock));
    assert_string_equal(verrou__conf_owner(c, again), verrou__conf_owner(c, lock));
    assert_int_equal(verrou_lock_ttl_ms(again), LONG_MS);
    assert_int_equal(verrou_lock_fence(again), verrou_lock_fence(lock));
    assert_int_equal(verrou_lock_is_expired(again), 0);
    assert_in_range(verrou_lock_remaining_ms(again), 1, LONG_MS);
    EXPECT(VERROU_OK, verrou_lock_check(again));
}

static void restored_lease_is_released(struct conf *c)
{
    verrou_lock *lock = verrou__conf_lock(c, LONG_MS), *again;

    verrou__conf_hold(c, lock);
    again = verrou__conf_restore(c, c->store, verrou__conf_json(c, lock));
    verrou__conf_drop(c, again);
    verrou__conf_expect_free(c, lock);
    EXPECT(VERROU_ENOTOWNED, verrou_lock_release(lock, NULL, ERR));
}

static void restored_elsewhere(struct conf *c)
{
    verrou_lock *lock = verrou__conf_lock(c, 4000), *again, *b = verrou__conf_lock(c, LONG_MS);

    verrou__conf_hold(c, lock);
    again = verrou__conf_restore(c, verrou__conf_open(c), verrou__conf_json(c, lock));
    EXPECT(VERROU_OK, verrou_lock_extend(again, LONG_MS, NULL, ERR));
    assert_in_range(verrou_lock_remaining_ms(again), 4001, LONG_MS);
    EXPECT(VERROU_ENOTACQUIRED, verrou_lock_acquire_immediately(b, NULL, ERR));
    verrou__conf_drop(c, again);
    verrou__conf_hold(c, b);
}

static void wrong_owner_restored(struct conf *c)
{
    verrou_lock *lock = verrou__conf_lock(c, LONG_MS), *wrong;

    verrou__conf_hold(c, lock);
    wrong =
        verrou__conf_believer(c, c->store, verrou__conf_key(c, "lock"), "0123456789abcdef0123456789abcdef@elsewhere:1");
    EXPECT(VERROU_ENOTOWNED, verrou_lock_extend(wrong, LONG_MS, NULL, ERR));
    EXPECT(VERROU_ENOTOWNED, verrou_lock_release(wrong, NULL, ERR));
    verrou__conf_expect_held_by(c, lock);
    verrou__conf_drop(c, lock);
}

static void restored_does_not_reenter(struct conf *c)
{
    verrou_lock *lock = verrou__conf_lock(c, LONG_MS), *again;

    verrou__conf_hold(c, lock);
    again = verrou__conf_restore(c, c->store, verrou__conf_json(c, lock));
    EXPECT(VERROU_ENOTACQUIRED, verrou_lock_acquire_immediately(again, NULL, ERR));
    EXPECT(VERROU_OK, verrou_lock_check(again));
    verrou__conf_expect_held_by(c, lock);
    verrou__conf_drop(c, again);
}

static void restored_acquires_anew(struct conf *c)
{
    verrou_lock *lock = verrou__conf_lock(c, LONG_MS), *again;

    verrou__conf_hold(c, lock);
    again = verrou__conf_restore(c, c->store, verrou__conf_json(c, lock));
    verrou__conf_drop(c, lock);
    verrou__conf_hold(c, again);
    assert_string_equal(verrou__conf_owner(c, again), verrou__conf_inspect(c, again).owner[0]
                                                          ? verrou__conf_inspect(c, again).owner
                                                          : verrou__conf_owner(c, again));
    if (c->suite->caps & VERROU_CAP_FENCE)
        REQUIRE(verrou_lock_fence(again) > verrou_lock_fence(lock));
    verrou__conf_drop(c, again);
}

static void ended_lease_is_restored_as_ended(struct conf *c)
{
    verrou_lock *lock = verrou__conf_lock(c, SHORT_MS), *again;
    const char *json;

    verrou__conf_hold(c, lock);
    json = verrou__conf_json(c, lock);
    verrou__conf_let_expire(c, lock);
    again = verrou__conf_restore(c, c->store, json);
    assert_int_equal(verrou_lock_is_expired(again), 1);
    assert_int_equal(verrou_lock_remaining_ms(again), 0);
    EXPECT(VERROU_ENOTOWNED, verrou_lock_extend(again, LONG_MS, NULL, ERR));
    EXPECT(VERROU_ENOTOWNED, verrou_lock_release(again, NULL, ERR));
    verrou__conf_expect_free(c, lock);
}

static void permanent_lease_is_restored(struct conf *c)
{
    verrou_lock *lock = verrou__conf_lock(c, VERROU_FOREVER), *again;

    verrou__conf_hold(c, lock);
    again = verrou__conf_restore(c, c->store, verrou__conf_json(c, lock));
    REQUIRE(verrou_lock_ttl_ms(again) == VERROU_FOREVER);
    REQUIRE(verrou_lock_remaining_ms(again) == VERROU_FOREVER);
    assert_int_equal(verrou_lock_is_expired(again), 0);
    verrou__conf_drop(c, again);
    verrou__conf_expect_free(c, lock);
}

static void json_of_the_original_is_read(struct conf *c)
{
    verrou_lock_options options = VERROU_LOCK_OPTIONS_INIT;
    verrou_lock *lock, *again;
    char json[1024];

    options.owner = "k3j9x0w2";
    options.ttl_ms = LONG_MS;
    lock = verrou__conf_lock_with(c, c->store, verrou__conf_key(c, "lock"), &options);
    verrou__conf_hold(c, lock);
    snprintf(
        json, sizeof json,
        "{\"key\":\"%s\",\"owner\":\"k3j9x0w2\",\"ttl\":%d,\"expirationTime\":%lld,\"later\":{\"member\":[1,null]}}",
        verrou__conf_key(c, "lock"), LONG_MS, (long long)epoch_ms() + LONG_MS);
    again = verrou__conf_restore(c, c->store, json);
    EXPECT(VERROU_OK, verrou_lock_extend(again, LONG_MS, NULL, ERR));
    verrou__conf_drop(c, again);
}

static void malformed_json_is_refused(struct conf *c)
{
    static const char *const bad[] = {
        "",
        "lock",
        "{",
        "[]",
        "null",
        "{}",
        "{\"key\":\"k\"}",
        "{\"key\":\"\",\"owner\":\"o\",\"ttl\":1000,\"expirationTime\":1}",
        "{\"key\":\"k\",\"owner\":\"\",\"ttl\":1000,\"expirationTime\":1}",
        "{\"key\":1,\"owner\":\"o\",\"ttl\":1000,\"expirationTime\":1}",
        "{\"key\":\"k\",\"owner\":null,\"ttl\":1000,\"expirationTime\":1}",
        "{\"key\":\"k\",\"owner\":\"o\",\"ttl\":\"soon\",\"expirationTime\":1}",
        "{\"key\":\"k\",\"owner\":\"o\",\"ttl\":-1,\"expirationTime\":1}",
        "{\"key\":\"k\",\"owner\":\"o\",\"ttl\":0,\"expirationTime\":1}",
        "{\"key\":\"k\",\"owner\":\"o\",\"ttl\":1000,\"expirationTime\":\"later\"}",
        "{\"key\":\"k\",\"owner\":\"o\",\"ttl\":1000,\"expirationTime\":1} and more",
        "{\"key\":\"k\\u0000k\",\"owner\":\"o\",\"ttl\":1000,\"expirationTime\":1}",
        "{\"key\":\"k\xff\",\"owner\":\"o\",\"ttl\":1000,\"expirationTime\":1}",
    };
    verrou_lock *lock = NULL;

    for (size_t at = 0; at < sizeof bad / sizeof bad[0]; at++) {
        verrou_status status = verrou_lock_restore(c->store, bad[at], NULL, &lock, ERR);

        if (status == VERROU_OK)
            verrou_lock_free(lock);
        if (status != VERROU_EINVAL)
            print_error("restoring %s\n", bad[at]);
        EXPECT(VERROU_EINVAL, status);
        REQUIRE(c->error.message[0] != 0);
    }
}

static void odd_texts_survive(struct conf *c)
{
    verrou_lock_options options = VERROU_LOCK_OPTIONS_INIT;
    verrou_lock *lock, *again;

    options.owner = "o\"w\\n\ter \xe2\x82\xac \xf0\x9f\x94\x92 </script>";
    options.ttl_ms = LONG_MS;
    lock = verrou__conf_lock_with(c, c->store, verrou__conf_key(c, "k\"e\\y\t\xc3\xa9\x01\x7f/{}[]:,"), &options);
    verrou__conf_hold(c, lock);
    again = verrou__conf_restore(c, c->store, verrou__conf_json(c, lock));
    assert_string_equal(verrou_lock_key(again), verrou_lock_key(lock));
    assert_string_equal(verrou__conf_owner(c, again), options.owner);
    verrou__conf_drop(c, again);
    verrou__conf_expect_free(c, lock);
}

/* The original left it out and restored everything on its default store. */
static void json_names_the_store(struct conf *c)
{
    const char *name = verrou_store_name(c->store);
    verrou_lock *lock = verrou__conf_lock(c, LONG_MS);
    const char *json;

    verrou__conf_hold(c, lock);
    json = verrou__conf_json(c, lock);
    if (name[0]) {
        assert_non_null(strstr(json, "\"store\""));
        assert_non_null(strstr(json, name));
    }
    verrou__conf_drop(c, verrou__conf_restore(c, c->store, json));
}

const struct conf_claim verrou__conf_serial_claims[] = {
    {"a serialised lock has the members that the original reads", json_has_the_originals_members, CONF_ANY, 0},
    {"a restored handle sees the lease", restored_lease_is_seen, CONF_ANY, 0},
    {"a restored handle releases the lease", restored_lease_is_released, 0, 0},
    {"a lease is extended and released through another store handle", restored_elsewhere, CONF_REOPEN, 0},
    {"a restored handle with a wrong owner can do nothing", wrong_owner_restored, 0, 0},
    {"a restored handle does not get a lock that it holds", restored_does_not_reenter, 0, 0},
    {"a restored handle can acquire anew", restored_acquires_anew, 0, 0},
    {"a lease that ran out is restored as such", ended_lease_is_restored_as_ended, 0, 0},
    {"a lease without end is restored as such", permanent_lease_is_restored, 0, 0},
    {"what the original serialised is understood", json_of_the_original_is_read, 0, 0},
    {"malformed texts are refused with a message", malformed_json_is_refused, CONF_ANY, 0},
    {"odd keys and owners survive serialising", odd_texts_survive, 0, 0},
    {"a serialised lock names its store", json_names_the_store, CONF_ANY, 0},
    {NULL, NULL, 0, 0},
};
