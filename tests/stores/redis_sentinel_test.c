/*
 * redis_sentinel_test.c - the store behind Sentinel: which server it believes to be the master, and what happens to holders and waiters
 * when that changes.
 *
 * A failover may forget writes. That is Redis's nature and not tested; what is: nobody hangs, nobody goes on believing in a lease that
 * is gone beyond its end, waiters get the lock, and tokens grow.
 */
#include "redis_fixture.h"

#include <stdio.h>
#include <string.h>

#define LONG_MS 600000
#define PORTS "127.0.0.1:%d,127.0.0.1:%d,127.0.0.1:%d"

static redis_sentinels *group;

static int start(void **state)
{
    (void)state;
    group = redis_sentinels_start(&(redis_options){.password = "s3cr3t"});
    return 0;
}

static int stop(void **state)
{
    fixture_teardown(state);
    redis_free_all();
    return 0;
}

static verrou_store *open_group(const char *settings)
{
    return fixture_open("redis+sentinel://:s3cr3t@" PORTS "/mymaster%s", group->sentinel[0]->port,
                        group->sentinel[1]->port, group->sentinel[2]->port, settings);
}

static verrou_status try_once(verrou_store *store)
{
    return verrou_lock_acquire_immediately(fixture_lock(store, "tried", LONG_MS), NULL, ERR);
}

/* ---- looking the master up ---- */

/* The master is found, and the database of the path is used. */
static void master_is_found(void **state)
{
    verrou_lock *lock = fixture_lock(open_group("/3"), "key", LONG_MS);
    const redis_server *master = redis_sentinels_master(group);
    redisContext *c = redis_server_connect(master);
    redisReply *reply;

    (void)state;
    fixture_take(lock);
    freeReplyObject(redisCommand(c, "SELECT 3"));
    reply = redisCommand(c, "EXISTS key");
    assert_int_equal(reply->integer, 1);
    freeReplyObject(reply);
    redisFree(c);
    fixture_drop(lock);
}

/* Sentinels that are down, silent or know nothing are passed over. */
static void other_sentinels_are_asked(void **state)
{
    redis_server *ignorant = redis__server_new(&(redis_options){0}, REDIS_SENTINEL, NULL);
    process_port nobody = process_port_new();

    (void)state;
    for (int i = 0; i < 4; i++) { /* the first one is drawn */
        verrou_store *store = fixture_open("redis+sentinel://:s3cr3t@127.0.0.1:%d,127.0.0.1:%d,127.0.0.1:%d/mymaster",
                                           nobody.number, ignorant->port, group->sentinel[1]->port);
        verrou_lock *lock = fixture_lock(store, "key", LONG_MS);

        fixture_wait(lock);
        fixture_drop(lock);
    }
    process_port_free(&nobody);
    redis_server_free(ignorant);
}

static int thaw(void **state)
{
    redis_server_thaw(group->sentinel[0]);
    redis_sentinels_settle(group);
    return fixture_teardown(state);
}

/* A frozen sentinel costs the connect timeout and no more. */
static void silent_sentinel_is_passed_over(void **state)
{
    (void)state;
    redis_server_freeze(group->sentinel[0]);
    for (int i = 0; i < 6;
         i++) { /* the first one is drawn; without a time limit of its own it would use up the call's */
        verrou_lock *lock = fixture_lock(open_group("?connect-timeout=500ms&timeout=60s"), "key", LONG_MS);

        fixture_wait(lock);
        fixture_drop(lock);
    }
}

/* A name that no sentinel knows is named in the error. */
static void wrong_name_is_told(void **state)
{
    (void)state;
    EXPECT(VERROU_ESTORAGE,
           try_once(fixture_open("redis+sentinel://:s3cr3t@127.0.0.1:%d/nosuch?timeout=1s", group->sentinel[0]->port)));
    assert_true(fixture_says("knows no master called nosuch"));
}

/* Sentinels have a password of their own; a wrong one is told at once, without the password. */
static void sentinel_password_counts(void **state)
{
    redis_server *server = redis_server_start(NULL);
    char config[256];
    redis_server *guarded;

    (void)state;
    snprintf(config, sizeof config, "sentinel monitor mymaster 127.0.0.1 %d 1\n", server->port);
    guarded = redis__server_new(&(redis_options){.password = "guard"}, REDIS_SENTINEL, config);
    EXPECT(VERROU_ESTORAGE,
           try_once(fixture_open("redis+sentinel://127.0.0.1:%d/mymaster?timeout=60s&sentinel-password=wr0ng",
                                 guarded->port)));
    assert_true(fixture_says("WRONGPASS"));
    assert_null(strstr(fixture_err.message, "wr0ng"));
    EXPECT(VERROU_ESTORAGE,
           try_once(fixture_open("redis+sentinel://127.0.0.1:%d/mymaster?timeout=60s", guarded->port)));
    assert_true(fixture_says("NOAUTH"));
    EXPECT(VERROU_OK,
           try_once(fixture_open("redis+sentinel://127.0.0.1:%d/mymaster?sentinel-password=guard", guarded->port)));
    assert_false(fixture_logged("wr0ng"));
}

/* The master's password is not the sentinels': a wrong one is told at once. */
static void master_password_counts(void **state)
{
    (void)state;
    EXPECT(VERROU_ESTORAGE,
           try_once(fixture_open("redis+sentinel://:wr0ng@" PORTS "/mymaster?timeout=60s", group->sentinel[0]->port,
                                 group->sentinel[1]->port, group->sentinel[2]->port)));
    assert_true(fixture_says("WRONGPASS"));
    assert_null(strstr(fixture_err.message, "wr0ng"));
}

/* A server that a sentinel takes for the master but that says it is a replica is not believed. */
static void demoted_master_is_not_used(void **state)
{
    redis_server *master = redis_server_start(NULL);
    redis_server *demoted = redis_server_start(NULL);
    char config[256], port[16];
    redis_server *behind;

    (void)state;
    /* It would find out by itself, after looking for as long as this. */
    snprintf(config, sizeof config,
             "sentinel monitor mymaster 127.0.0.1 %d 9\nsentinel down-after-milliseconds mymaster 600000\n",
             demoted->port);
    behind = redis__server_new(&(redis_options){0}, REDIS_SENTINEL, config);
    snprintf(port, sizeof port, "%d", master->port);
    redis_text(demoted, "REPLICAOF", "127.0.0.1", port, NULL);
    redis_wait_info(demoted, "replication", "master_link_status", "up");
    EXPECT(VERROU_ESTORAGE, try_once(fixture_open("redis+sentinel://127.0.0.1:%d/mymaster?timeout=1s", behind->port)));
    assert_true(fixture_says("is not, or no longer, the master"));
    redis_text(demoted, "REPLICAOF", "NO", "ONE", NULL);
    EXPECT(VERROU_OK, try_once(fixture_open("redis+sentinel://127.0.0.1:%d/mymaster", behind->port)));
}

/* ---- failover ---- */

static void expect_tokens_grow(uint64_t *last, uint64_t next)
{
    assert_true(next > *last);
    *last = next;
}

/*
 * Over a failover that was ordered: a lease that is kept alive stays, or its holder is told; a waiter gets the lock once it is free,
 * from the new master's subscription; tokens grow.
 */
static void ordered_failover(void **state)
{
    verrou_store *store = open_group("?timeout=60s"), *other = open_group("?timeout=60s");
    verrou_lock *kept = fixture_lock(store, "kept", -3000), *holder = fixture_lock(store, "waited-for", LONG_MS);
    uint64_t token = fixture_take(kept), waited = fixture_take(holder);
    verrou_lock *waiting = fixture_lock(other, "waited-for", LONG_MS);
    fixture_waiter *waiter = fixture_wait_on_thread(waiting);
    verrou_call_options a_moment = VERROU_CALL_OPTIONS_INIT;
    redis_server *master;
    verrou_status lost;

    (void)state;
    fixture_wait_subscribed(redis_sentinels_master(group), false, "waited-for", 1);
    for (int i = 0; i < 3; i++) /* so that the leases are there afterwards */
        if (group->node[i] == redis_sentinels_master(group))
            assert_true(redis_integer(group->node[i], "WAIT", "2", "0", NULL) >= 0);
    redis_sentinels_settle(group);
    master = redis_sentinels_failover(group);
    a_moment.timeout_ms = 4000; /* longer than the lease: it was renewed at the new master since, or lost */
    lost = verrou_lock_wait_lost(kept, &a_moment, ERR);
    if (lost == VERROU_ECANCELED) {
        assert_int_equal(redis_integer(master, "EXISTS", "kept", NULL), 1);
        fixture_drop(kept);
    } else {
        EXPECT(VERROU_ELOST, lost);
    }
    expect_tokens_grow(&token, fixture_wait(kept));
    fixture_drop(kept);
    fixture_wait_subscribed(master, false, "waited-for", 1);
    if (verrou_lock_release(holder, NULL, ERR) != VERROU_OK)
        EXPECT(VERROU_ENOTOWNED, fixture_err.status);
    assert_int_equal(fixture_joined(waiter), VERROU_OK);
    expect_tokens_grow(&waited, verrou_lock_fence(waiting));
    fixture_drop(waiting);
    redis_sentinels_settle(group);
}

/* The same after the master was killed; the leases that its replicas had are there afterwards. */
static void killed_master(void **state)
{
    verrou_store *store = open_group("?wait-replicas=2&wait-timeout=20s&timeout=60s"),
                 *other = open_group("?timeout=60s");
    verrou_lock *kept = fixture_lock(store, "kept", -60000), *holder = fixture_lock(store, "waited-for", LONG_MS);
    redis_server *old = redis_sentinels_master(group), *master;
    uint64_t token, waited;
    verrou_lock *waiting = fixture_lock(other, "waited-for", LONG_MS),
                *late = fixture_lock(open_group("?timeout=60s"), "late", 1000);
    fixture_waiter *waiter;

    (void)state;
    token = fixture_wait(kept);
    waited = fixture_wait(holder);
    waiter = fixture_wait_on_thread(waiting);
    fixture_wait_subscribed(old, false, "waited-for", 1);
    redis_server_kill(old);
    master = redis_sentinels_wait(group, old);
    assert_int_equal(redis_integer(master, "EXISTS", "kept", "waited-for", NULL), 2);
    fixture_wait(late); /* a store that was not connected yet */
    EXPECT(VERROU_OK, verrou_lock_check(kept));
    assert_int_equal(fixture_events("lease.lost"), 0);
    fixture_wait_subscribed(master, false, "waited-for", 1);
    redis_server_restart(old);
    redis_sentinels_settle(group);
    fixture_drop(holder);
    assert_int_equal(fixture_joined(waiter), VERROU_OK);
    expect_tokens_grow(&waited, verrou_lock_fence(waiting));
    fixture_drop(waiting);
    fixture_drop(kept);
    expect_tokens_grow(&token, fixture_take(kept));
    fixture_drop(kept);
}

#define sentinel_test(f) cmocka_unit_test_setup_teardown(f, NULL, fixture_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        sentinel_test(master_is_found),
        sentinel_test(other_sentinels_are_asked),
        cmocka_unit_test_setup_teardown(silent_sentinel_is_passed_over, NULL, thaw),
        sentinel_test(wrong_name_is_told),
        sentinel_test(sentinel_password_counts),
        sentinel_test(master_password_counts),
        sentinel_test(demoted_master_is_not_used),
        sentinel_test(killed_master),
        sentinel_test(ordered_failover),
    };

    return fixture_setup(NULL) || cmocka_run_group_tests_name("sentinel", tests, start, stop);
}
