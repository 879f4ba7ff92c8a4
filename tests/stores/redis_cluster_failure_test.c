/*
 * redis_cluster_failure_test.c - the store on a cluster whose nodes die: what is locked on the others goes on undisturbed, what was on the
 * dead one comes back with its replica.
 */
#include "redis_fixture.h"

#include <stdio.h>
#include <string.h>

#define LONG_MS 600000

static redis_cluster *cluster;

static int start(void **state)
{
    (void)state;
    cluster = redis_cluster_start(true, NULL);
    return 0;
}

/* A key in a slot of a node. */
static const char *key_on(int node, const char *name)
{
    static char keys[16][64];
    static int used;
    char *key = keys[used++ % 16];
    int i = 0;

    do {
        snprintf(key, sizeof keys[0], "%s:%d", name, i++);
    } while (redis_cluster_owner(cluster, redis_cluster_slot(cluster, key)) != node);
    return key;
}

/*
 * The node that is the only seed, holds locks and has subscribers is killed. Locks on other nodes are taken, renewed, handed over by a
 * message, at once, while it is dead; a waiter on the dead node gets the lock after the promotion, over the replica's subscription.
 */
static void killed_node_disturbs_nobody(void **state)
{
    const char *alive_key = key_on(1, "alive"), *dead_key = key_on(0, "dead"), *busy_key = key_on(2, "busy");
    verrou_store *store = fixture_open("redis+cluster://127.0.0.1:%d?wait-replicas=1&wait-timeout=20s&timeout=60s",
                                       cluster->node[0]->port);
    verrou_store *other = fixture_open("redis+cluster://127.0.0.1:%d?timeout=60s", cluster->node[0]->port);
    verrou_lock *kept = fixture_lock(store, alive_key, -3000), *dead = fixture_lock(store, dead_key, LONG_MS);
    verrou_lock *waiting = fixture_lock(other, dead_key, LONG_MS), *busy = fixture_lock(other, busy_key, LONG_MS);
    verrou_lock *handed = fixture_lock(store, busy_key, LONG_MS);
    fixture_waiter *waiter;
    uint64_t token;

    (void)state;
    fixture_wait(kept);
    fixture_wait(dead);
    token = verrou_lock_fence(dead);
    waiter = fixture_wait_on_thread(waiting);
    fixture_wait_subscribed(cluster->node[0], true, dead_key, 1);
    redis_server_kill(cluster->node[0]);
    for (int i = 0; i < 5; i++) {
        fixture_waiter *second;

        fixture_wait(busy);
        second = fixture_wait_on_thread(handed);
        fixture_wait_subscribed(cluster->node[2], true, busy_key, 1);
        fixture_drop(busy);
        assert_int_equal(fixture_joined(second), VERROU_OK);
        fixture_drop(handed);
    }
    redis_cluster_wait_master(cluster, 3);
    assert_int_equal(redis_integer(cluster->node[3], "EXISTS", dead_key, NULL), 1);
    fixture_wait_subscribed(cluster->node[3], true, dead_key, 1);
    EXPECT(VERROU_OK, verrou_lock_check(kept));
    assert_int_equal(fixture_events("lease.lost"), 0);
    redis_server_restart(cluster->node[0]);
    redis_cluster_settle(cluster);
    fixture_drop(dead);
    assert_int_equal(fixture_joined(waiter), VERROU_OK);
    assert_true(verrou_lock_fence(waiting) > token);
    fixture_drop(waiting);
    fixture_drop(kept);
}

/* While a node is dead, one who waits for a key on it does not make the store subscribe anew without end. An event says why it is missing. */
static void dead_node_makes_no_busy_loop(void **state)
{
    const char *dead_key = key_on(1, "lonely"), *alive_key = key_on(2, "lively");
    verrou_store *store = fixture_open("redis+cluster://127.0.0.1:%d?timeout=60s", cluster->node[2]->port);
    verrou_lock *waiting = fixture_lock(store, dead_key, LONG_MS);
    verrou_lock *holder =
        fixture_lock(fixture_open("redis+cluster://127.0.0.1:%d?wait-replicas=1&wait-timeout=20s&timeout=60s",
                                  cluster->node[2]->port),
                     dead_key, LONG_MS);
    fixture_waiter *waiter;
    int64_t from_ms;

    (void)state;
    fixture_wait(holder);
    waiter = fixture_wait_on_thread(waiting);
    fixture_wait_subscribed(cluster->node[1], true, dead_key, 1);
    redis_server_kill(cluster->node[1]);
    from_ms = process_clock_ms();
    for (int i = 0; i < 3; i++) { /* and others work meanwhile */
        verrou_lock *lock = fixture_lock(store, alive_key, LONG_MS);

        fixture_wait(lock);
        fixture_drop(lock);
    }
    fixture_wait_events("store.node_unreachable", 1);
    assert_true(fixture_logged("1 of the cluster's masters: ")); /* refused, or closed if it was killed in between */
    redis_cluster_wait_master(cluster, 4);
    redis_server_restart(cluster->node[1]); /* which is a replica then, and acknowledges */
    redis_cluster_settle(cluster);
    fixture_drop(holder);
    assert_int_equal(fixture_joined(waiter), VERROU_OK);
    assert_true(fixture_events("watch.lost") < 10 + (process_clock_ms() - from_ms) / 250);
}

/* A planned failover is followed; the lease is there afterwards. */
static void planned_failover_is_followed(void **state)
{
    const char *key = key_on(2, "planned");
    verrou_store *store = fixture_open("redis+cluster://127.0.0.1:%d?wait-replicas=1&wait-timeout=20s&timeout=60s",
                                       cluster->node[1]->port);
    verrou_lock *lock = fixture_lock(store, key, LONG_MS);
    uint64_t token;

    (void)state;
    token = fixture_wait(lock);
    redis_cluster_failover(cluster, 5);
    EXPECT(VERROU_OK, verrou_lock_extend(lock, LONG_MS, NULL, ERR));
    fixture_drop(lock);
    assert_true(fixture_wait(lock) > token);
    fixture_drop(lock);
}

#define failure_test(f) cmocka_unit_test_setup_teardown(f, NULL, fixture_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        failure_test(killed_node_disturbs_nobody),
        failure_test(dead_node_makes_no_busy_loop),
        failure_test(planned_failover_is_followed),
    };

    return fixture_setup(NULL) || cmocka_run_group_tests_name("cluster failure", tests, start, redis_teardown);
}
