/*
 * redis_test.c - the Redis store beside the original with ioredis: the suite, and what the server itself sees of both.
 */
#include "redis_servers.h"
#include "suite.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MINUTE_MS 60000

static redis_server *server;
static char address[64];

static int start(void **state)
{
    (void)state;
    server = redis_server_start(NULL);
    snprintf(address, sizeof(address), "redis://127.0.0.1:%d", server->port);
    return 0;
}

static const char *server_address(void)
{
    return address;
}

/* Our refused acquire asks how long the holder's lease lasts; the original never does. */
static long long refusals(void)
{
    return redis_calls(server, "pttl");
}

static const interop_store redis = {
    .name = "redis", .their_address = server_address, .our_address = server_address, .refusals = refusals};

/* Both sides write the same: a string with the owner, under the very key, that expires. */
static void both_write_the_same(void **state)
{
    verrou_lock *ours = our_lock_for("ours", MINUTE_MS);
    char *owner = NULL;
    char *their_owner;

    (void)state;
    assert_ok(verrou_lock_acquire_immediately(ours, NULL, NULL));
    assert_ok(verrou_lock_owner(ours, &owner, NULL));
    they_take("a", "theirs", MINUTE_MS);
    their_owner = peer_text(them, "owner", "a");
    assert_string_equal(redis_text(server, "TYPE", "ours", NULL), redis_text(server, "TYPE", "theirs", NULL));
    assert_string_equal(redis_text(server, "GET", "ours", NULL), owner);
    assert_string_equal(redis_text(server, "GET", "theirs", NULL), their_owner);
    assert_in_range(redis_integer(server, "PTTL", "ours", NULL), 1, MINUTE_MS);
    assert_in_range(redis_integer(server, "PTTL", "theirs", NULL), 1, MINUTE_MS);
    verrou_free(owner);
    free(their_owner);
}

/* A lease that never expires is a key without expiry, on both sides; also if it was made so by us. */
static void never_is_a_key_without_expiry(void **state)
{
    (void)state;
    assert_ok(verrou_lock_acquire_immediately(our_lock_for("our-never", VERROU_FOREVER), NULL, NULL));
    they_take("a", "their-never", VERROU_FOREVER);
    they_take("b", "made-never", MINUTE_MS);
    assert_ok(verrou_lock_extend(restored_by_us("b"), VERROU_FOREVER, NULL, NULL));
    assert_int_equal(redis_integer(server, "PTTL", "our-never", NULL), -1);
    assert_int_equal(redis_integer(server, "PTTL", "their-never", NULL), -1);
    assert_int_equal(redis_integer(server, "PTTL", "made-never", NULL), -1);
}

/* A release of ours is published, one of theirs is not: what we rely on when we wait for them by asking. */
static void only_our_releases_are_published(void **state)
{
    verrou_lock *ours = our_lock("published");
    long long before = redis_calls(server, "publish");

    (void)state;
    they_take("a", "published", MINUTE_MS);
    peer_do(them, "release", "a");
    peer_do(them, "forceRelease", "a");
    assert_int_equal(redis_calls(server, "publish"), before);
    assert_ok(verrou_lock_acquire_immediately(ours, NULL, NULL));
    assert_ok(verrou_lock_release(ours, NULL, NULL));
    assert_int_equal(redis_calls(server, "publish"), before + 1);
}

/* Where the server tells of changes to keys, a release of theirs is noticed long before we would ask again. */
static void keyspace_events_tell_of_their_release(void **state)
{
    verrou_lock *ours = our_lock("keyspace");
    waiting w;

    (void)state;
    redis_text(server, "CONFIG", "SET", "notify-keyspace-events", "Kg", NULL);
    they_take("a", "keyspace", VERROU_FOREVER);
    waiting_begin(&w, ours, 10 * MINUTE_MS, MINUTE_MS);
    assert_true(waiting_refused(&w));
    peer_do(them, "release", "a");
    assert_ok(waiting_end(&w));
    redis_text(server, "CONFIG", "SET", "notify-keyspace-events", "", NULL);
}

int main(void)
{
    static const struct CMUnitTest own[] = {
        INTEROP_TEST(both_write_the_same),
        INTEROP_TEST(never_is_a_key_without_expiry),
        INTEROP_TEST(only_our_releases_are_published),
        INTEROP_TEST(keyspace_events_tell_of_their_release),
    };

    return interop_run(&redis, own, sizeof(own) / sizeof(own[0]), start);
}
