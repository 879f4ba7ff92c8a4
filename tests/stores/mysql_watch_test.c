/*
 * mysql_watch_test.c - how the MySQL store tells releasers of waiters elsewhere, on a real MariaDB.
 */
#include "driver_testing.h"
#include "mariadb_servers.h"

#include <verrou/mysql.h>

#define WATCHES 6 /* more than there are locks for a key */

static mariadb_server *server;
static test_store releaser;
static test_store waiters[WATCHES];
static test_watch watches[WATCHES];

static int start_server(void **state)
{
    (void)state;
    server = mariadb_server_start(NULL);
    return 0;
}

static int stop_server(void **state)
{
    (void)state;
    mariadb_free_all();
    return 0;
}

static const char *address(void)
{
    static char text[256];

    snprintf(text, sizeof text, "mysql://" MARIADB_USER "@127.0.0.1:%d/" MARIADB_DATABASE, server->port);
    return text;
}

static int open_stores(void **state)
{
    (void)state;
    mariadb_text(server, "DROP TABLE IF EXISTS " MARIADB_DATABASE ".verrou");
    releaser = test_open(verrou_mysql_driver(), address());
    for (int i = 0; i < WATCHES; i++) {
        waiters[i] = test_open(verrou_mysql_driver(), address());
        watches[i] = (test_watch){.store = &waiters[i]};
    }
    return 0;
}

static int close_stores(void **state)
{
    (void)state;
    for (int i = 0; i < WATCHES; i++) {
        test_watch_close(&watches[i]);
        test_close(&waiters[i]);
    }
    test_close(&releaser);
    return 0;
}

/* Let watches do what they have to. They report nothing. */
static void read_all(void)
{
    for (int i = 0; i < WATCHES; i++) {
        if (!watches[i].watch)
            continue;
        assert_int_equal(test_watch_read(&watches[i]), VERROU_OK);
        assert_int_equal(watches[i].active + watches[i].free + watches[i].released, 0);
    }
}

static void watch(int i, const char *key)
{
    if (!watches[i].watch)
        watches[i] = test_watch_open(&waiters[i]);
    assert_int_equal(test_watch_add(&watches[i], key), VERROU_OK);
}

/* Whether somebody waits, as a release of the key tells. */
static int others(test_store *store, const char *key)
{
    assert_int_equal(test_acquire(store, key, "me"), VERROU_OP_APPLIED);
    assert_int_equal(test_release(store, key, "me"), VERROU_OP_APPLIED);
    return test_last.others;
}

/* The server frees the locks of closed connections in its own time, so that one more key may be too early for a free one. */
static void until_free_lock(int i)
{
    int64_t limit_ms = verrou_now_ms() + PROCESS_PATIENCE_MS / 2;
    char key[32];

    for (int more = 0; others(&releaser, "k") != 1; more++) {
        if (verrou_now_ms() > limit_ms)
            fail_msg("k was not tried again");
        snprintf(key, sizeof key, "more%d", more);
        watch(i, key);
        process_pause();
        read_all();
    }
}

/* A key is registered, and forgotten, a moment later. */
static void until_others(test_store *store, const char *key, int wanted)
{
    int64_t limit_ms = verrou_now_ms() + PROCESS_PATIENCE_MS / 2;

    while (others(store, key) != wanted) {
        if (verrou_now_ms() > limit_ms)
            fail_msg("%s: others is not %d", key, wanted);
        read_all();
        process_pause();
    }
}

/* A release says whether another process waits for that key; this one does not count. */
static void release_tells_of_waiters(void **state)
{
    (void)state;
    assert_int_equal(others(&releaser, "k"), 0);
    watch(0, "k");
    until_others(&releaser, "k", 1);
    assert_int_equal(others(&releaser, "K"), 0);
    until_others(&waiters[0], "k", 0); /* once it has heard that it is registered */
    assert_int_equal(others(&waiters[1], "k"), 1);
    assert_int_equal(test_watch_remove(&watches[0], "k"), VERROU_OK);
    until_others(&releaser, "k", 0);
}

/* Forced releases and batches do too. */
static void every_release_tells(void **state)
{
    verrou_op ops[] = {test_op(VERROU_OP_ACQUIRE, "a", "me", 30000), test_op(VERROU_OP_ACQUIRE, "k", "me", 30000),
                       test_op(VERROU_OP_RELEASE, "a", "me", 0), test_op(VERROU_OP_RELEASE, "k", "me", 0)};

    (void)state;
    watch(0, "k");
    until_others(&releaser, "k", 1);
    assert_int_equal(test_acquire(&releaser, "k", "me"), VERROU_OP_APPLIED);
    assert_int_equal(test_force(&releaser, "k"), VERROU_OP_APPLIED);
    assert_int_equal(test_last.others, 1);
    assert_int_equal(test_execute(&releaser, ops, 4, TEST_LIMIT_MS, NULL), VERROU_OK);
    assert_int_equal(ops[2].others, 0);
    assert_int_equal(ops[3].others, 1);
    for (int i = 0; i < 4; i++)
        test_op_done(&ops[i]);
}

/* More processes wait for a key than there are locks for: that somebody does is told until the last of them has gone. */
static void very_many_processes(void **state)
{
    (void)state;
    for (int i = 0; i < WATCHES; i++) {
        watch(i, "k");
        assert_true(test_watch_readable(&watches[i], PROCESS_PATIENCE_MS / 2)); /* the first four get one each */
        read_all();
    }
    until_others(&releaser, "k", 1);
    assert_false(test_watch_readable(&watches[WATCHES - 1], 100)); /* who finds no lock does not ask for ever */
    for (int i = 0; i < WATCHES - 1; i++)
        test_watch_close(&watches[i]);
    until_others(&releaser, "k", 0);
    until_free_lock(WATCHES - 1);
    test_watch_close(&watches[WATCHES - 1]);
    until_others(&releaser, "k", 0);
}

/* Whoever is gone waits no more. */
static void who_is_gone_waits_no_more(void **state)
{
    (void)state;
    watch(0, "k");
    until_others(&releaser, "k", 1);
    test_watch_close(&watches[0]);
    until_others(&releaser, "k", 0);
}

/* More keys than are registered: those that are left ask by themselves, and nothing breaks when they go. */
static void very_many_keys(void **state)
{
    char key[16];

    (void)state;
    watch(0, "k");
    until_others(&releaser, "k", 1);
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < 1000; i++) {
            snprintf(key, sizeof key, "k%d", i);
            if (round == 0)
                watch(0, key);
            else
                assert_int_equal(test_watch_remove(&watches[0], key), VERROU_OK);
        }
        until_others(&releaser, "k100", round == 0);
    }
    assert_int_equal(others(&releaser, "k"), 1);
}

/* A connection that is lost is a watch that has failed; the next one knows nothing of its keys. */
static void lost_watch(void **state)
{
    int64_t limit_ms = verrou_now_ms() + PROCESS_PATIENCE_MS / 2;

    (void)state;
    watch(0, "k");
    until_others(&releaser, "k", 1);
    mariadb_text(server, "KILL USER " MARIADB_USER "@'%%'");
    while (test_watch_read(&watches[0]) == VERROU_OK) {
        assert_true(verrou_now_ms() < limit_ms);
        process_pause();
    }
    test_watch_close(&watches[0]);
    test_close(&releaser);
    releaser = test_open(verrou_mysql_driver(), address());
    assert_int_equal(others(&releaser, "k"), 0);
    watch(0, "k");
    until_others(&releaser, "k", 1);
}

/* On a table without tokens a release is a deletion, which cannot tell. */
static void original_cannot_tell(void **state)
{
    test_store store;

    (void)state;
    mariadb_text(server, "CREATE TABLE " MARIADB_DATABASE ".verrou (`key` varchar(255) not null primary key,"
                         " `owner` varchar(255) not null, `expiration` bigint unsigned null)");
    store = test_open(verrou_mysql_driver(), address());
    assert_int_equal(others(&store, "k"), -1);
    test_close(&store);
}

int main(void)
{
#define WITH_STORES(test) cmocka_unit_test_setup_teardown(test, open_stores, close_stores)
    const struct CMUnitTest tests[] = {
        WITH_STORES(release_tells_of_waiters), WITH_STORES(every_release_tells), WITH_STORES(very_many_processes),
        WITH_STORES(very_many_keys),           WITH_STORES(lost_watch),          WITH_STORES(who_is_gone_waits_no_more),
        WITH_STORES(original_cannot_tell),
    };

    return cmocka_run_group_tests_name("mysql watch", tests, start_server, stop_server);
}
