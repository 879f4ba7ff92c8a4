/*
 * redis_cluster_test.c - the store on a cluster that is well: slots, hash tags, batches over nodes, slots that move while locks in them
 * are used. redis_cluster_failure_test.c has nodes that die.
 */
#include "redis_fixture.h"
#include "redis_slots.h"
#include "redis_testing.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LONG_MS 600000

static redis_cluster *cluster;

static int start(void **state)
{
    (void)state;
    cluster = redis_cluster_start(false, NULL);
    return 0;
}

static verrou_store *open_cluster(const char *settings)
{
    return fixture_open("redis+cluster://127.0.0.1:%d,127.0.0.1:%d%s", cluster->node[0]->port, cluster->node[1]->port,
                        settings);
}

static bool says(const char *text)
{
    if (strstr(fixture_err.message, text))
        return true;
    print_error("\"%s\" is not in: %s\n", text, fixture_err.message);
    return false;
}

/* ---- slots ---- */

/* Bytes that matter to hash tags come often. */
static size_t random_key(char *key, size_t most)
{
    static const char often[] = "{}{}ab";
    size_t len = 1 + (size_t)rand() % most;

    for (size_t i = 0; i < len; i++)
        key[i] = (char)(rand() % 2 ? often[rand() % 6] : 1 + rand() % 255);
    return len;
}

static unsigned slot_of(redisContext *c, const char *key, size_t len)
{
    redisReply *reply = redisCommand(c, "CLUSTER KEYSLOT %b", key, len);
    unsigned slot = (unsigned)reply->integer;

    freeReplyObject(reply);
    return slot;
}

/* Any key is in the slot that the server says, and the name of its counter is in the same one, under the prefix. */
static void slots_are_the_servers(void **state)
{
    static const char *const fixed[] = {"{}",   "{a}",   "a{b}c",      "}{", "a{",
                                        "{{}}", "{}{a}", "a}b{c}d{e}", "{a", "123456789"};
    static const char *const prefixes[] = {"", "app:", "{app}:", "app{x:", "app}{", "{}", "a{}{"};
    redisContext *c = redis_server_connect(cluster->node[0]);
    char key[256], counter[512];

    (void)state;
    srand(7);
    for (size_t p = 0; p < sizeof prefixes / sizeof prefixes[0]; p++) {
        slots_begin(prefixes[p]);
        for (int i = 0; i < 300; i++) {
            size_t len = strlen(prefixes[p]), counter_len;

            memcpy(key, prefixes[p], len);
            if (i < (int)(sizeof fixed / sizeof fixed[0]))
                len += (size_t)snprintf(key + len, 100, "%s", fixed[i]);
            else
                len += random_key(key + len, 40);
            assert_int_equal(slots_slot(key, len), slot_of(c, key, len));
            counter_len = slots_counter(key, len, counter, sizeof counter);
            if (counter_len == 0)
                fail_msg("no counter for \"%.*s\" with prefix \"%s\"", (int)len, key, prefixes[p]);
            assert_int_equal(slot_of(c, counter, counter_len), slot_of(c, key, len));
            assert_memory_equal(counter, prefixes[p], strlen(prefixes[p]));
        }
        slots_end();
    }
    redisFree(c);
}

/* Odd keys and prefixes are locked like all others, with tokens from a stored counter. */
static void odd_names_are_locked(void **state)
{
    static const char *const keys[] = {"{}", "{a}", "a{b}c", "}{", "a{", "{{}}", "{}{a}"};
    static const char *const prefixes[] = {"", "app:", "%7Bapp%7D:", "app%7Bx:", "app%7D%7B", "%7B%7D"};

    (void)state;
    for (size_t p = 0; p < sizeof prefixes / sizeof prefixes[0]; p++) {
        char settings[64];
        verrou_store *store;

        snprintf(settings, sizeof settings, "?prefix=%s", prefixes[p]);
        store = open_cluster(settings);
        for (size_t k = 0; k < sizeof keys / sizeof keys[0]; k++) {
            verrou_lock *lock = fixture_lock(store, keys[k], LONG_MS);
            uint64_t first = fixture_take(lock);

            EXPECT(VERROU_ENOTACQUIRED,
                   verrou_lock_acquire_immediately(fixture_lock(store, keys[k], LONG_MS), NULL, ERR));
            fixture_drop(lock);
            assert_true(fixture_take(lock) > first);
            fixture_drop(lock);
        }
    }
    assert_int_equal(fixture_events("store.no_token_counter"), 0);
    assert_int_equal(fixture_events("store.publish_refused"), 0);
}

/* A counter that is ahead of the clock decides about the tokens of its slot. */
static void counter_is_used(void **state)
{
    verrou_lock *lock = fixture_lock(open_cluster(""), "{counted}key", LONG_MS);
    const char *ahead = "4000000000000000";
    char counter[512];
    size_t len;
    int owner = redis_cluster_owner(cluster, redis_cluster_slot(cluster, "counted"));

    (void)state;
    slots_begin("");
    len = slots_counter("{counted}key", 12, counter, sizeof counter);
    counter[len] = '\0';
    redis_text(cluster->node[owner], "HSET", counter, "f", ahead, NULL);
    assert_true(fixture_take(lock) > (uint64_t)strtoull(ahead, NULL, 10));
    fixture_drop(lock);
    slots_end();
}

/* ---- batches ---- */

static void on_done(void *user, const verrou_result *result)
{
    int *good = user;

    *good += result->status == VERROU_OK;
}

/* Locks in slots of all nodes, asked for at once: each node is written to, and only for its own ones. */
static void batch_goes_to_all_nodes(void **state)
{
    enum { LOCKS = 300 };
    verrou_store *store = open_cluster("?lanes=1");
    verrou_lock *locks[LOCKS];
    verrou_queue *queue = NULL;
    int good = 0;

    (void)state;
    EXPECT(VERROU_OK, verrou_queue_new(&queue, ERR));
    fixture_drop((fixture_take(locks[0] = fixture_lock(store, "first", LONG_MS)), locks[0])); /* connected */
    for (int n = 0; n < 3; n++)
        redis_text(cluster->node[n], "CONFIG", "RESETSTAT", NULL);
    for (int i = 0; i < LOCKS; i++) {
        char key[32];

        snprintf(key, sizeof key, "batch:%d", i);
        locks[i] = fixture_lock(store, key, LONG_MS);
        EXPECT(VERROU_OK, verrou_lock_acquire_async(locks[i], NULL, queue, on_done, &good, ERR));
    }
    for (int64_t deadline = process_clock_ms() + PROCESS_PATIENCE_MS; good < LOCKS;) {
        assert_true(process_clock_ms() < deadline);
        verrou_dispatch(queue, 0);
        process_pause();
    }
    for (int n = 0; n < 3; n++) {
        assert_true(redis_calls(cluster->node[n], "evalsha") >= LOCKS / 6);
        assert_int_equal(redis_calls(cluster->node[n], "eval"), 0);
    }
    assert_int_equal(redis_calls(cluster->node[0], "evalsha") + redis_calls(cluster->node[1], "evalsha") +
                         redis_calls(cluster->node[2], "evalsha"),
                     LOCKS);
    verrou_queue_free(queue);
}

/* ---- slots that move ---- */

/* Two keys of a slot, its number, and where it is and goes. */
typedef struct moving {
    char held[32], free[32];
    int slot, from, to;
} moving;

static void moving_choose(moving *m, const char *tag, int step)
{
    snprintf(m->held, sizeof m->held, "{%s}held", tag);
    snprintf(m->free, sizeof m->free, "{%s}free", tag);
    m->slot = redis_cluster_slot(cluster, m->held);
    m->from = redis_cluster_owner(cluster, m->slot);
    m->to = (m->from + step) % 3;
}

/* A lane that knows the old place is sent to the new one, in the same call; holders and tokens go on. */
static void finished_move_is_followed(void **state)
{
    verrou_store *store = open_cluster("?lanes=1");
    verrou_lock *held, *lock;
    uint64_t token;
    moving m;

    (void)state;
    moving_choose(&m, "moved", 1);
    held = fixture_lock(store, m.held, LONG_MS);
    lock = fixture_lock(store, m.free, LONG_MS);
    fixture_take(held);
    token = fixture_take(lock);
    fixture_drop(lock);
    redis_cluster_move_begin(cluster, m.slot, m.from, m.to);
    redis_cluster_move_keys(cluster, m.slot, m.from, m.to);
    redis_cluster_move_finish(cluster, m.slot, m.to);
    EXPECT(VERROU_OK, verrou_lock_extend(held, LONG_MS, NULL, ERR));
    EXPECT(VERROU_ENOTACQUIRED, verrou_lock_acquire_immediately(fixture_lock(store, m.held, LONG_MS), NULL, ERR));
    assert_true(fixture_take(lock) > token);
    fixture_drop(lock);
    fixture_drop(held);
    assert_int_equal(fixture_events("store.publish_refused"), 0);
}

/*
 * In the middle of a move, with the counter still at the old node, then gone before its locks, then all gone: locks are taken, refused,
 * extended and released, nobody gets a lock that is held, and tokens grow from step to step.
 */
static void unfinished_move_is_lived_with(void **state)
{
    verrou_store *store = open_cluster("?lanes=1");
    verrou_lock *held, *lock, *other;
    uint64_t token = 0;
    moving m;

    (void)state;
    moving_choose(&m, "moving", 1);
    held = fixture_lock(store, m.held, LONG_MS);
    lock = fixture_lock(store, m.free, LONG_MS);
    other = fixture_lock(store, m.held, LONG_MS);
    fixture_take(held);
    for (int step = 0; step < 4; step++) {
        uint64_t next;

        if (step == 1)
            redis_cluster_move_begin(cluster, m.slot, m.from, m.to);
        if (step == 2)
            redis_cluster_move_keys(cluster, m.slot, m.from, m.to);
        if (step == 3)
            redis_cluster_move_finish(cluster, m.slot, m.to);
        for (int i = 0; i < 3; i++) {
            next = fixture_take(lock);
            assert_true(next > token);
            token = next;
            EXPECT(VERROU_OK, verrou_lock_extend(lock, LONG_MS, NULL, ERR));
            EXPECT(VERROU_ENOTACQUIRED,
                   verrou_lock_acquire_immediately(fixture_lock(store, m.free, LONG_MS), NULL, ERR));
            fixture_drop(lock);
        }
        EXPECT(VERROU_ENOTACQUIRED, verrou_lock_acquire_immediately(other, NULL, ERR));
        EXPECT(VERROU_OK, verrou_lock_extend(held, LONG_MS, NULL, ERR));
    }
    fixture_drop(held);
    fixture_take(other);
    fixture_drop(other);
    assert_int_equal(fixture_events("store.no_token_counter"), 0);
    assert_int_equal(fixture_events("store.publish_refused"), 0);
}

/* A waiter whose slot moves away gets the lock; its subscription is at the new node afterwards. */
static void subscription_follows_the_slot(void **state)
{
    verrou_store *store = open_cluster(""), *other = open_cluster("");
    verrou_lock *holder, *waiting;
    fixture_waiter *waiter;
    moving m;

    (void)state;
    moving_choose(&m, "watched", 2);
    holder = fixture_lock(store, m.held, LONG_MS);
    waiting = fixture_lock(other, m.held, LONG_MS);
    fixture_take(holder);
    waiter = fixture_wait_on_thread(waiting);
    fixture_wait_subscribed(cluster->node[m.from], true, m.held, 1);
    redis_cluster_move_begin(cluster, m.slot, m.from, m.to);
    redis_cluster_move_keys(cluster, m.slot, m.from, m.to);
    redis_cluster_move_finish(cluster, m.slot, m.to);
    fixture_wait_subscribed(cluster->node[m.to], true, m.held, 1);
    fixture_drop(holder);
    assert_int_equal(fixture_joined(waiter), VERROU_OK);
    assert_true(verrou_lock_fence(waiting) > 0);
}

/* A node that had no slots when the store connected is used once it gets some. */
static void new_node_is_used(void **state)
{
    verrou_store *store = open_cluster("");
    redis_server *node = redis__server_new(&(redis_options){0}, REDIS_CLUSTER_NODE, "cluster-node-timeout 3000\n");
    verrou_lock *lock;
    char port[16], bus[16], number[16], id[64];
    uint64_t token;
    moving m;

    (void)state;
    moving_choose(&m, "new", 1);
    lock = fixture_lock(store, m.free, LONG_MS);
    token = fixture_take(lock); /* the store knows three nodes */
    snprintf(port, sizeof port, "%d", node->port);
    snprintf(bus, sizeof bus, "%d", node->bus.number);
    snprintf(id, sizeof id, "%s", redis_text(node, "CLUSTER", "MYID", NULL));
    snprintf(number, sizeof number, "%d", m.slot);
    for (int n = 0; n < 3; n++)
        redis_text(cluster->node[n], "CLUSTER", "MEET", "127.0.0.1", port, bus, NULL);
    for (int64_t deadline = process_clock_ms() + PROCESS_PATIENCE_MS;;) {
        int known = 0;

        for (int n = 0; n < 3; n++)
            known += strstr(redis_text(cluster->node[n], "CLUSTER", "NODES", NULL), id) != NULL;
        for (int n = 0; n < 3; n++)
            known += strstr(redis_text(node, "CLUSTER", "NODES", NULL), cluster->id[n]) != NULL;
        if (known == 6 && strstr(redis_text(node, "CLUSTER", "INFO", NULL), "cluster_slots_ok:16384"))
            break;
        assert_true(process_clock_ms() < deadline);
        process_pause();
    }
    redis_text(node, "CLUSTER", "SETSLOT", number, "IMPORTING", cluster->id[m.from], NULL);
    redis_text(cluster->node[m.from], "CLUSTER", "SETSLOT", number, "MIGRATING", id, NULL);
    fixture_drop(lock);
    fixture_wait(lock); /* ASK */
    fixture_drop(lock);
    redis_text(node, "CLUSTER", "SETSLOT", number, "NODE", id, NULL);
    for (int n = 0; n < 3; n++)
        redis_text(cluster->node[n], "CLUSTER", "SETSLOT", number, "NODE", id, NULL);
    assert_true(fixture_wait(lock) > token); /* MOVED */
    assert_int_equal(redis_integer(node, "EXISTS", m.free, NULL), 1);
    fixture_drop(lock);
}

/* ---- addresses ---- */

/* A seed that nobody listens at is passed over. */
static void dead_seed_is_passed_over(void **state)
{
    process_port nobody = process_port_new();
    verrou_lock *lock =
        fixture_lock(fixture_open("redis+cluster://127.0.0.1:%d,127.0.0.1:%d", nobody.number, cluster->node[2]->port),
                     "key", LONG_MS);

    (void)state;
    fixture_take(lock);
    fixture_drop(lock);
    process_port_free(&nobody);
}

/* A seed that accepts connections and says nothing leaves time for the next one, in the limit of one request. */
static void silent_seed_is_passed_over(void **state)
{
    fault_proxy *silent = proxy_start(cluster->node[1]->port);
    verrou_store *store = fixture_open("redis+cluster://127.0.0.1:%d,127.0.0.1:%d?timeout=1500ms", proxy_port(silent),
                                       cluster->node[2]->port);
    verrou_lock *lock = fixture_lock(store, "silent", LONG_MS);
    int left = 5; /* the machine may be slow for one */

    (void)state;
    proxy_black_hole(silent, true);
    while (verrou_lock_acquire_immediately(lock, NULL, ERR) != VERROU_OK)
        if (--left == 0)
            fail_msg("%s", fixture_err.message);
    fixture_drop(lock);
    fixture_close(store);
    proxy_stop(silent);
}

/* A node that stands still does not keep the others' answers back: their leases run while it is waited for. */
static void silent_node_keeps_no_answer_back(void **state)
{
    enum { SILENT, HEALTHY, KEYS, LEASE_MS = 3000, LIMIT_MS = 5000 };
    char keys[KEYS][32];
    char address[64];
    verrou_op ops[KEYS];
    redisReply *left;
    test_store store;

    (void)state;
    snprintf(address, sizeof address, "redis+cluster://127.0.0.1:%d", cluster->node[0]->port);
    store = test_open(verrou_redis_driver(), address);
    for (int node = 0; node < KEYS; node++) {
        int i = 0;

        do {
            snprintf(keys[node], sizeof keys[node], "still:%d", i++);
        } while (redis_cluster_owner(cluster, redis_cluster_slot(cluster, keys[node])) != node);
        assert_int_equal(test_acquire(&store, keys[node], "x"), VERROU_OP_APPLIED);
        assert_int_equal(test_release(&store, keys[node], "x"), VERROU_OP_APPLIED);
        ops[node] = test_op(VERROU_OP_ACQUIRE, keys[node], "me", LEASE_MS);
    }
    redis_server_freeze(cluster->node[SILENT]);
    test_execute(&store, ops, KEYS, LIMIT_MS, NULL);
    left = redis_command(cluster->node[HEALTHY], "PTTL", keys[HEALTHY], NULL);
    redis_server_thaw(cluster->node[SILENT]);
    redis_cluster_settle(cluster);
    assert_int_equal(ops[HEALTHY].result, VERROU_OP_APPLIED);
    assert_int_equal(ops[SILENT].result, VERROU_OP_UNKNOWN);
    assert_true(left->type == REDIS_REPLY_INTEGER && left->integer > 0);
    freeReplyObject(left);
    for (int node = 0; node < KEYS; node++)
        test_op_done(&ops[node]);
    test_close(&store);
}

/* The address of a single server that leads to a cluster is refused with the right scheme in the error, and the other way round. */
static void wrong_scheme_is_told(void **state)
{
    redis_server *alone = redis_server_start(NULL);

    (void)state;
    for (int i = 0; i < 6; i++) { /* in slots of all nodes */
        char key[16];
        verrou_store *store = fixture_open("redis://127.0.0.1:%d?timeout=60s", cluster->node[0]->port);

        snprintf(key, sizeof key, "key:%d", i);
        EXPECT(VERROU_ESTORAGE, verrou_lock_acquire_immediately(fixture_lock(store, key, LONG_MS), NULL, ERR));
        assert_true(says("redis+cluster:"));
        assert_int_equal(fixture_err.retriable, 0);
    }
    EXPECT(VERROU_ESTORAGE,
           verrou_lock_acquire_immediately(
               fixture_lock(fixture_open("redis+cluster://127.0.0.1:%d?timeout=60s", alone->port), "key", LONG_MS),
               NULL, ERR));
    assert_true(says("cluster support disabled"));
    redis_server_free(alone);
}

#define cluster_test(f) cmocka_unit_test_setup_teardown(f, NULL, fixture_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cluster_test(slots_are_the_servers),
        cluster_test(odd_names_are_locked),
        cluster_test(counter_is_used),
        cluster_test(batch_goes_to_all_nodes),
        cluster_test(finished_move_is_followed),
        cluster_test(unfinished_move_is_lived_with),
        cluster_test(subscription_follows_the_slot),
        cluster_test(dead_seed_is_passed_over),
        cluster_test(silent_seed_is_passed_over),
        cluster_test(silent_node_keeps_no_answer_back),
        cluster_test(wrong_scheme_is_told),
        cluster_test(new_node_is_used),
    };

    return fixture_setup(NULL) || cmocka_run_group_tests_name("cluster", tests, start, redis_teardown);
}
