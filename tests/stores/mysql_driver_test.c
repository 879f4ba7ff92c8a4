/*
 * mysql_driver_test.c - the MySQL store's answers on a real MariaDB: single requests, batches, the table in all its shapes, and each
 * allocation failing once.
 */
#include "driver_testing.h"
#include "failing_alloc.h"
#include "mariadb_servers.h"

#include <pthread.h>
#include <verrou/mysql.h>

#define MANY 100

static mariadb_server *server;
static bool server_keeps_statements;
static test_store store;

static int start_server(void **state)
{
    (void)state;
    failing_alloc_install();
    server = mariadb_server_start(NULL);
    server_keeps_statements = true;
    return 0;
}

/* What MySQL gets, and MariaDB behind a proxy that keeps no statements: each one written out. */
static int start_server_without_statements(void **state)
{
    (void)state;
    server = mariadb_server_start(&(mariadb_options){.config = "max_prepared_stmt_count=0\n"});
    server_keeps_statements = false;
    return 0;
}

static int stop_server(void **state)
{
    (void)state;
    mariadb_free_all();
    return 0;
}

/* The address of the server, with a user and settings ("?x=y"). */
static const char *address_for(const char *user, const char *settings)
{
    static char text[512];

    snprintf(text, sizeof text, "mysql://%s@127.0.0.1:%d/" MARIADB_DATABASE "%s", user, server->port, settings);
    return text;
}

static int drop_table(void **state)
{
    (void)state;
    mariadb_text(server, "DROP TABLE IF EXISTS " MARIADB_DATABASE ".verrou");
    return 0;
}

static int open_store(void **state)
{
    drop_table(state);
    store = test_open(verrou_mysql_driver(), address_for(MARIADB_USER, ""));
    return 0;
}

static int close_store(void **state)
{
    (void)state;
    test_close(&store);
    return 0;
}

/* A statement on the table, which stands for %s. */
#define on_table(sql) mariadb_text(server, sql, MARIADB_DATABASE ".verrou")
#define count_on_table(sql) mariadb_integer(server, sql, MARIADB_DATABASE ".verrou")

#define ORIGINAL_COLUMNS \
    "`key` varchar(255) not null primary key, `owner` varchar(255) not null, `expiration` bigint unsigned null"

/* A table as the original makes it where the database folds case and trailing blanks. */
static void make_original(void)
{
    mariadb_text(server, "CREATE TABLE " MARIADB_DATABASE ".verrou (" ORIGINAL_COLUMNS
                         ") DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci");
}

static void open_on_original(void)
{
    make_original();
    store = test_open(verrou_mysql_driver(), address_for(MARIADB_USER, ""));
}

/* ---- keys ---- */

/* Keys that a collation would take for equal are different locks. */
static void test_keys_are_bytes(void **state)
{
    static const char *const keys[] = {"foo", "FOO", "Foo ", "foo ", " foo", "f\303\266o", "fo\314\210o", "foo\t"};

    (void)state;
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++)
        assert_int_equal(test_acquire(&store, keys[i], "me"), VERROU_OP_APPLIED);
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        assert_int_equal(test_acquire(&store, keys[i], "other"), VERROU_OP_REFUSED);
        assert_int_equal(test_release(&store, keys[i], "me"), VERROU_OP_APPLIED);
    }
}

/* Owners are compared by their bytes. */
static void test_owners_are_bytes(void **state)
{
    (void)state;
    assert_int_equal(test_acquire(&store, "k", "Abc"), VERROU_OP_APPLIED);
    assert_int_equal(test_release(&store, "k", "abc"), VERROU_OP_REFUSED);
    assert_int_equal(test_release(&store, "k", "Abc "), VERROU_OP_REFUSED);
    assert_int_equal(test_extend(&store, "k", "ABC", 1000), VERROU_OP_REFUSED);
    assert_int_equal(test_extend(&store, "k", "Abc", 60000), VERROU_OP_APPLIED);
    assert_int_equal(test_release(&store, "k", "Abc"), VERROU_OP_APPLIED);
}

/* A key that does not fit is refused; nothing is cut off, even if the server's own mode would. */
static void test_nothing_is_truncated(void **state)
{
    char key[301];

    (void)state;
    mariadb_text(server, "SET GLOBAL sql_mode=''");
    test_close(&store);
    store = test_open(verrou_mysql_driver(), address_for(MARIADB_USER, ""));
    memset(key, 'x', sizeof key - 1);
    key[256] = '\0';
    assert_int_equal(test_acquire(&store, key, "me"), VERROU_OP_FAILED);
    assert_string_equal(test_last.code, "1406");
    assert_int_equal(count_on_table("SELECT COUNT(*) FROM %s"), 0);
    key[255] = '\0';
    assert_int_equal(test_acquire(&store, key, "me"), VERROU_OP_APPLIED);
    mariadb_text(server, "SET GLOBAL sql_mode=DEFAULT");
}

/* What means something to SQL is a key and an owner like others. */
static void test_sql_in_names(void **state)
{
    const char *key = "'; DROP TABLE verrou; -- `\\\"%s%n?:1";

    (void)state;
    assert_int_equal(test_acquire(&store, key, key), VERROU_OP_APPLIED);
    assert_int_equal(test_acquire(&store, key, "other"), VERROU_OP_REFUSED);
    assert_string_equal(test_last.holder, key);
    assert_int_equal(test_release(&store, key, key), VERROU_OP_APPLIED);
}

/* ---- tokens ---- */

/* Each lease has a larger token, through release, expiry, force-release and a row that is gone. */
static void test_tokens_grow(void **state)
{
    uint64_t last = 0;

    (void)state;
    for (int i = 0; i < 4; i++) {
        assert_int_equal(test_acquire(&store, "k", "me"), VERROU_OP_APPLIED);
        assert_true(test_last.fence > last);
        last = test_last.fence;
        if (i == 0)
            assert_int_equal(test_release(&store, "k", "me"), VERROU_OP_APPLIED);
        else if (i == 1)
            on_table("UPDATE %s SET expiration=1");
        else if (i == 2)
            assert_int_equal(test_force(&store, "k"), VERROU_OP_APPLIED);
    }
    on_table("DELETE FROM %s");
    assert_int_equal(test_acquire(&store, "k", "me"), VERROU_OP_APPLIED);
    assert_true(test_last.fence > last);
}

/* A stored token that is ahead of the clock is counted on. */
static void test_token_ahead_of_the_clock(void **state)
{
    (void)state;
    assert_int_equal(test_acquire(&store, "k", "me"), VERROU_OP_APPLIED);
    on_table("UPDATE %s SET fence=9007199254740989, expiration=1");
    assert_int_equal(test_acquire(&store, "k", "me"), VERROU_OP_APPLIED);
    assert_int_equal(test_last.fence, INT64_C(9007199254740990));
}

/* At the limit of what is exact everywhere a lock fails rather than get a token that does not grow. */
static void test_token_at_the_limit(void **state)
{
    (void)state;
    assert_int_equal(test_acquire(&store, "k", "me"), VERROU_OP_APPLIED);
    on_table("UPDATE %s SET fence=9007199254740991, expiration=0, owner=''");
    assert_int_equal(test_acquire(&store, "k", "me"), VERROU_OP_FAILED);
    assert_non_null(strstr(test_last.text, "fencing token"));
    assert_string_equal(on_table("SELECT owner,expiration,fence FROM %s"), "|0|9007199254740991");
}

/* Release and extend compare the token if they are given one. */
static void test_tokens_are_compared(void **state)
{
    uint64_t fence;

    (void)state;
    assert_int_equal(test_acquire(&store, "k", "me"), VERROU_OP_APPLIED);
    fence = test_last.fence;
    assert_int_equal(test_run_fenced(&store, VERROU_OP_EXTEND, "k", "me", 1000, fence + 1), VERROU_OP_REFUSED);
    assert_int_equal(test_run_fenced(&store, VERROU_OP_RELEASE, "k", "me", 0, fence - 1), VERROU_OP_REFUSED);
    assert_int_equal(test_run_fenced(&store, VERROU_OP_EXTEND, "k", "me", 1000, fence), VERROU_OP_APPLIED);
    assert_int_equal(test_run_fenced(&store, VERROU_OP_RELEASE, "k", "me", 0, fence), VERROU_OP_APPLIED);
}

/* ---- leases ---- */

/* A refusal tells who has the key, for how long, and his token. */
static void test_refusal_tells_the_holder(void **state)
{
    uint64_t fence;

    (void)state;
    assert_int_equal(test_acquire(&store, "k", "holder"), VERROU_OP_APPLIED);
    fence = test_last.fence;
    assert_int_equal(test_acquire(&store, "k", "me"), VERROU_OP_REFUSED);
    assert_string_equal(test_last.holder, "holder");
    assert_int_equal(test_last.holder_is_owner, 0);
    assert_in_range(test_last.remaining_ms, 1, 30000);
    assert_int_equal(test_last.fence, fence);
    assert_int_equal(test_acquire(&store, "k", "holder"), VERROU_OP_REFUSED);
    assert_int_equal(test_last.holder_is_owner, 1);
}

/* A lease that never expires stays; extending it to what it is succeeds. */
static void test_forever(void **state)
{
    (void)state;
    assert_int_equal(test_run(&store, VERROU_OP_ACQUIRE, "k", "me", VERROU_FOREVER), VERROU_OP_APPLIED);
    assert_int_equal(test_extend(&store, "k", "me", VERROU_FOREVER), VERROU_OP_APPLIED);
    assert_int_equal(test_acquire(&store, "k", "other"), VERROU_OP_REFUSED);
    assert_true(test_last.remaining_ms == VERROU_FOREVER);
    assert_int_equal(test_extend(&store, "k", "me", 1000), VERROU_OP_APPLIED);
    assert_string_equal(on_table("SELECT expiration IS NULL FROM %s"), "0");
}

/* A lease that is over belongs to nobody, though its row is still there. */
static void test_expired(void **state)
{
    (void)state;
    assert_int_equal(test_acquire(&store, "k", "me"), VERROU_OP_APPLIED);
    on_table("UPDATE %s SET expiration=1");
    assert_int_equal(test_inspect(&store, "k"), VERROU_OP_REFUSED);
    assert_int_equal(test_extend(&store, "k", "me", 1000), VERROU_OP_REFUSED);
    assert_int_equal(test_release(&store, "k", "me"), VERROU_OP_REFUSED);
    assert_int_equal(test_acquire(&store, "k", "other"), VERROU_OP_APPLIED);
}

/* An acquisition is one round trip, and so is its release. */
static void test_round_trips(void **state)
{
    (void)state;
    assert_int_equal(test_acquire(&store, "k", "me"), VERROU_OP_APPLIED);
    assert_int_equal(test_release(&store, "k", "me"), VERROU_OP_APPLIED);
    mariadb_log_forget(server);
    assert_int_equal(test_acquire(&store, "k", "me"), VERROU_OP_APPLIED);
    assert_int_equal(test_release(&store, "k", "me"), VERROU_OP_APPLIED);
    assert_int_equal(mariadb_logged(server, "Query\t"), 2);
    assert_int_equal(mariadb_logged(server, "Query\tEXECUTE"), server_keeps_statements ? 2 : 0);
}

/* ---- batches ---- */

typedef struct {
    verrou_op ops[MANY];
    char keys[MANY][32];
} many;

static many *make_many(verrou_op_kind kind)
{
    static many all;

    for (int i = 0; i < MANY; i++) {
        /* Not in the order of the keys. */
        snprintf(all.keys[i], sizeof all.keys[i], "key%03d", i * 37 % MANY);
        all.ops[i] =
            test_op(kind, all.keys[i], kind == VERROU_OP_FORCE || kind == VERROU_OP_INSPECT ? NULL : "me", 30000);
    }
    return &all;
}

static void run_many(many *all, int expected)
{
    assert_int_equal(test_execute(&store, all->ops, MANY, TEST_LIMIT_MS, NULL), VERROU_OK);
    for (int i = 0; i < MANY; i++) {
        if (expected >= 0)
            assert_int_equal(all->ops[i].result, expected);
        test_op_done(&all->ops[i]);
    }
}

/* However many requests come together, one transaction carries them out. */
static void test_batch_is_one_commit(void **state)
{
    long long commits;

    (void)state;
    run_many(make_many(VERROU_OP_ACQUIRE), VERROU_OP_APPLIED);
    run_many(make_many(VERROU_OP_RELEASE), VERROU_OP_APPLIED);
    commits = mariadb_status(server, "Com_commit");
    run_many(make_many(VERROU_OP_ACQUIRE), VERROU_OP_APPLIED);
    assert_int_equal(mariadb_status(server, "Com_commit") - commits, 1);
}

/* Looks alone need none. */
static void test_looks_need_no_transaction(void **state)
{
    long long commits;

    (void)state;
    run_many(make_many(VERROU_OP_ACQUIRE), VERROU_OP_APPLIED);
    commits = mariadb_status(server, "Com_commit");
    run_many(make_many(VERROU_OP_INSPECT), VERROU_OP_APPLIED);
    assert_int_equal(mariadb_status(server, "Com_commit"), commits);
}

/* All that were refused are told who it was, with one look. */
static void test_batch_refused(void **state)
{
    many *all = make_many(VERROU_OP_ACQUIRE);

    (void)state;
    run_many(all, VERROU_OP_APPLIED);
    all = make_many(VERROU_OP_ACQUIRE);
    assert_int_equal(test_execute(&store, all->ops, MANY, TEST_LIMIT_MS, NULL), VERROU_OK);
    for (int i = 0; i < MANY; i++) {
        assert_int_equal(all->ops[i].result, VERROU_OP_REFUSED);
        assert_string_equal(all->ops[i].holder, "me");
        assert_true(all->ops[i].remaining_ms > 0);
        test_op_done(&all->ops[i]);
    }
}

/* Requests for one key are carried out in their order. */
static void test_order_in_a_batch(void **state)
{
    verrou_op ops[] = {
        test_op(VERROU_OP_ACQUIRE, "z", "a", 30000), test_op(VERROU_OP_ACQUIRE, "k", "a", 30000),
        test_op(VERROU_OP_RELEASE, "k", "a", 0),     test_op(VERROU_OP_ACQUIRE, "k", "b", 30000),
        test_op(VERROU_OP_INSPECT, "k", NULL, 0),    test_op(VERROU_OP_ACQUIRE, "k", "c", 30000),
        test_op(VERROU_OP_EXTEND, "z", "a", 1000),
    };

    (void)state;
    assert_int_equal(test_execute(&store, ops, 7, TEST_LIMIT_MS, NULL), VERROU_OK);
    for (int i = 0; i < 7; i++)
        assert_int_equal(ops[i].result, i == 5 ? VERROU_OP_REFUSED : VERROU_OP_APPLIED);
    assert_true(ops[3].fence > ops[1].fence);
    assert_string_equal(ops[4].holder, "b");
    assert_string_equal(ops[5].holder, "b");
    for (int i = 0; i < 7; i++)
        test_op_done(&ops[i]);
}

/* Acquire for an owner of this acquisition alone, as the engine draws them. */
static verrou_op_result acquire_drawn(const char *owner, uint64_t *ret_fence)
{
    verrou_op op = test_op(VERROU_OP_ACQUIRE, "k", owner, 30000);

    op.owner_is_drawn = 1;
    test_execute(&store, &op, 1, TEST_LIMIT_MS, NULL);
    *ret_fence = op.fence;
    test_op_done(&op);
    return op.result;
}

/*
 * A trigger makes the server count rows that an acquire did not take, and forget the number that says so. Nobody is let in beside the holder; the
 * row itself tells who has been granted the key, unless its owner may be of an earlier acquisition.
 */
static void has_one_holder_only(void)
{
    uint64_t first, second;

    assert_int_equal(acquire_drawn("a", &first), VERROU_OP_APPLIED);
    assert_true(first > 0);
    assert_int_equal(acquire_drawn("b", &second), VERROU_OP_REFUSED);
    assert_int_equal(test_acquire(&store, "k", "c"), VERROU_OP_REFUSED);
    assert_int_not_equal(test_acquire(&store, "k", "a"), VERROU_OP_APPLIED);
    if (test_last.lane != VERROU_OK) {
        test_close_lane(&store);
        assert_int_equal(test_open_lane(&store, NULL), VERROU_OK);
    }
    assert_int_equal(test_extend(&store, "k", "a", 60000), VERROU_OP_APPLIED);
    assert_int_equal(test_release(&store, "k", "a"), VERROU_OP_APPLIED);
    assert_int_equal(acquire_drawn("b", &second), VERROU_OP_APPLIED);
    assert_true(second > first);
}

static void test_trigger_that_changes_rows(void **state)
{
    (void)state;
    test_acquire(&store, "x", "me");
    on_table("ALTER TABLE %s ADD COLUMN touched datetime(6)");
    mariadb_text(server, "CREATE TRIGGER " MARIADB_DATABASE ".touch BEFORE UPDATE ON " MARIADB_DATABASE
                         ".verrou FOR EACH ROW SET NEW.touched=now(6)");
    has_one_holder_only();
    assert_non_null(strstr(test_check(&store), "triggers: the table has triggers, touch among them"));
}

static void test_trigger_that_counts(void **state)
{
    (void)state;
    test_acquire(&store, "x", "me");
    mariadb_text(server, "CREATE TABLE IF NOT EXISTS " MARIADB_DATABASE
                         ".audit (id int auto_increment primary key, what text)");
    mariadb_text(server, "CREATE TRIGGER " MARIADB_DATABASE ".inserted AFTER INSERT ON " MARIADB_DATABASE
                         ".verrou FOR EACH ROW INSERT INTO " MARIADB_DATABASE ".audit (what) VALUES ('i')");
    mariadb_text(server, "CREATE TRIGGER " MARIADB_DATABASE ".updated AFTER UPDATE ON " MARIADB_DATABASE
                         ".verrou FOR EACH ROW INSERT INTO " MARIADB_DATABASE ".audit (what) VALUES ('u')");
    has_one_holder_only();
}

/* The same in a table that keeps the history of its rows. */
static void test_versioned_table(void **state)
{
    (void)state;
    test_acquire(&store, "x", "me");
    on_table("ALTER TABLE %s ADD SYSTEM VERSIONING");
    has_one_holder_only();
}

/* A request that fails does not fail its neighbours. */
static void test_failing_request(void **state)
{
    verrou_op ops[] = {test_op(VERROU_OP_ACQUIRE, "a", "me", 30000), test_op(VERROU_OP_ACQUIRE, "bad", "me", 30000),
                       test_op(VERROU_OP_ACQUIRE, "c", "me", 30000)};

    (void)state;
    ops[0].owner_is_drawn = ops[1].owner_is_drawn = ops[2].owner_is_drawn = 1;
    assert_int_equal(test_acquire(&store, "x", "me"), VERROU_OP_APPLIED);
    mariadb_text(server, "CREATE TRIGGER " MARIADB_DATABASE ".no BEFORE INSERT ON " MARIADB_DATABASE
                         ".verrou FOR EACH ROW IF NEW.`key`='bad' THEN"
                         " SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT='not this one'; END IF");
    assert_int_equal(test_execute(&store, ops, 3, TEST_LIMIT_MS, NULL), VERROU_OK);
    assert_int_equal(ops[0].result, VERROU_OP_APPLIED);
    assert_int_equal(ops[1].result, VERROU_OP_FAILED);
    assert_non_null(strstr(ops[1].error->message, "not this one"));
    assert_int_equal(ops[2].result, VERROU_OP_APPLIED);
    assert_int_equal(count_on_table("SELECT COUNT(*) FROM %s"), 3);
    for (int i = 0; i < 3; i++)
        test_op_done(&ops[i]);
}

/* The same of an error that only newer servers know. */
static void test_constraint(void **state)
{
    (void)state;
    assert_int_equal(test_acquire(&store, "x", "me"), VERROU_OP_APPLIED);
    on_table("ALTER TABLE %s ADD CONSTRAINT not_bad CHECK (`key`<>'bad')");
    assert_int_equal(test_acquire(&store, "bad", "me"), VERROU_OP_FAILED);
    assert_string_equal(test_last.code, "4025");
    assert_int_equal(test_last.lane, VERROU_OK);
}

/* ---- rows that somebody else has locked ---- */

/* A transaction of somebody else's that holds a row. */
static MYSQL *lock_row(const char *key)
{
    MYSQL *stranger = mariadb_server_connect(server);
    char sql[200];

    snprintf(sql, sizeof sql, "SELECT * FROM " MARIADB_DATABASE ".verrou WHERE `key`='%s' FOR UPDATE", key);
    assert_int_equal(mysql_query(stranger, "BEGIN"), 0);
    assert_int_equal(mysql_query(stranger, sql), 0);
    mysql_free_result(mysql_store_result(stranger));
    return stranger;
}

/* A row that a stranger has locked holds up nobody else's request, and its own only for a moment. */
static void test_locked_row(void **state)
{
    verrou_op ops[] = {test_op(VERROU_OP_RELEASE, "a", "me", 0), test_op(VERROU_OP_RELEASE, "b", "me", 0),
                       test_op(VERROU_OP_ACQUIRE, "b", "me", 30000), test_op(VERROU_OP_RELEASE, "c", "me", 0),
                       test_op(VERROU_OP_ACQUIRE, "d", "me", 30000)};
    MYSQL *stranger;

    (void)state;
    for (int i = 0; i < 3; i++)
        assert_int_equal(test_acquire(&store, i == 0 ? "a" : i == 1 ? "b" : "c", "me"), VERROU_OP_APPLIED);
    stranger = lock_row("b");
    assert_int_equal(test_execute(&store, ops, 5, TEST_LIMIT_MS, NULL), VERROU_OK);
    mysql_close(stranger);
    assert_int_equal(ops[0].result, VERROU_OP_APPLIED);
    assert_int_equal(ops[1].result, VERROU_OP_RETRY);
    assert_string_equal(ops[1].error->store_code, "1205");
    assert_int_equal(ops[3].result, VERROU_OP_APPLIED);
    assert_int_equal(ops[4].result, VERROU_OP_APPLIED);
    /* The acquire behind the release was not carried out before it: it is told who has the key. */
    assert_int_equal(ops[2].result, VERROU_OP_REFUSED);
    assert_string_equal(ops[2].holder, "me");
    for (int i = 0; i < 5; i++)
        test_op_done(&ops[i]);
}

/* A locked row with a live lease is held; a locked row without one is not, but cannot be had now. */
static void test_locked_row_of_an_acquire(void **state)
{
    MYSQL *stranger;

    (void)state;
    assert_int_equal(test_acquire(&store, "k", "holder"), VERROU_OP_APPLIED);
    stranger = lock_row("k");
    assert_int_equal(test_acquire(&store, "k", "me"), VERROU_OP_REFUSED);
    assert_string_equal(test_last.holder, "holder");
    mysql_close(stranger);
    assert_int_equal(test_release(&store, "k", "holder"), VERROU_OP_APPLIED);
    stranger = lock_row("k");
    assert_int_equal(test_acquire(&store, "k", "me"), VERROU_OP_RETRY);
    assert_int_equal(test_last.retriable, 1);
    mysql_close(stranger);
    assert_int_equal(test_acquire(&store, "k", "me"), VERROU_OP_APPLIED);
}

static MYSQL *letting_go;

static void let_go(void)
{
    if (letting_go)
        mysql_close(letting_go);
    letting_go = NULL;
}

/* A row that is locked for a moment only is tried again, after a pause. (A server that is slow to let it go may take longer than is waited.) */
static void test_row_locked_for_a_moment(void **state)
{
    verrou_op_result result;

    (void)state;
    assert_int_equal(test_acquire(&store, "k", "me"), VERROU_OP_APPLIED);
    letting_go = lock_row("k");
    test_on_pause = let_go;
    result = test_release(&store, "k", "me");
    assert_null(letting_go);
    test_on_pause = NULL;
    while (result == VERROU_OP_RETRY)
        result = test_release(&store, "k", "me");
    assert_int_equal(result, VERROU_OP_APPLIED);
}

/* ---- the table of the original ---- */

/* Keys that its collation takes for equal exclude each other, and only the exact one releases. */
static void test_original_folds_keys(void **state)
{
    (void)state;
    open_on_original();
    assert_int_equal(test_events("store.collation"), 1);
    assert_int_equal(test_acquire(&store, "Job", "Abc"), VERROU_OP_APPLIED);
    assert_int_equal(test_acquire(&store, "job", "me"), VERROU_OP_REFUSED);
    assert_string_equal(test_last.holder, "Abc");
    assert_int_equal(test_release(&store, "job", "Abc"), VERROU_OP_REFUSED);
    assert_int_equal(test_extend(&store, "Job ", "Abc", 60000), VERROU_OP_REFUSED);
    assert_int_equal(test_force(&store, "job"), VERROU_OP_APPLIED);
    assert_int_equal(test_release(&store, "Job", "abc "), VERROU_OP_REFUSED);
    assert_int_equal(test_extend(&store, "Job", "Abc", 60000), VERROU_OP_APPLIED);
    assert_int_equal(test_release(&store, "Job", "Abc"), VERROU_OP_APPLIED);
    assert_int_equal(count_on_table("SELECT COUNT(*) FROM %s"), 0);
}

/* The row that is taken over gets the name of the key that took it. */
static void test_original_renames_rows(void **state)
{
    (void)state;
    open_on_original();
    on_table("INSERT INTO %s VALUES ('Job','old',1)");
    assert_int_equal(test_acquire(&store, "job", "me"), VERROU_OP_APPLIED);
    assert_string_equal(on_table("SELECT `key`,owner FROM %s"), "job|me");
    assert_int_equal(test_release(&store, "Job", "me"), VERROU_OP_REFUSED);
    assert_int_equal(test_release(&store, "job", "me"), VERROU_OP_APPLIED);
}

/* Without a column for tokens they come from the clock, and the capabilities say so. */
static void test_original_has_no_fence(void **state)
{
    uint64_t last = 0;

    (void)state;
    open_on_original();
    assert_int_equal(store.driver->caps(store.state) & VERROU_CAP_FENCE_STORED, 0);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(test_acquire(&store, "k", "me"), VERROU_OP_APPLIED);
        assert_true(test_last.fence > last);
        last = test_last.fence;
        assert_int_equal(test_run(&store, VERROU_OP_EXTEND, "k", "me", VERROU_FOREVER), VERROU_OP_APPLIED);
        assert_int_equal(test_extend(&store, "k", "me", VERROU_FOREVER), VERROU_OP_APPLIED);
        assert_int_equal(test_inspect(&store, "k"), VERROU_OP_APPLIED);
        assert_int_equal(test_release(&store, "k", "me"), VERROU_OP_APPLIED);
    }
}

/* A refusal by one's own lease, as after a lost answer, gives that lease a token too; by somebody else's it tells none. */
static void test_original_token_of_an_own_lease(void **state)
{
    uint64_t fence;

    (void)state;
    open_on_original();
    assert_int_equal(test_acquire(&store, "k", "me"), VERROU_OP_APPLIED);
    fence = test_last.fence;
    assert_int_equal(test_acquire(&store, "k", "me"), VERROU_OP_REFUSED);
    assert_true(test_last.holder_is_owner && test_last.fence > fence);
    assert_int_equal(test_acquire(&store, "k", "other"), VERROU_OP_REFUSED);
    assert_int_equal(test_last.fence, 0);
}

static void *acquire_late(void *user)
{
    verrou_op *op = user;
    test_store late = test_open(verrou_mysql_driver(), address_for(MARIADB_USER, ""));

    test_execute(&late, op, 1, 60000, NULL);
    test_close(&late);
    return NULL;
}

/* An acquire that the server begins early and carries out late, after somebody came and went: its token is the later one all the same. */
static void test_original_token_is_drawn_late(void **state)
{
    verrou_op op = test_op(VERROU_OP_ACQUIRE, "k", "late", 30000);
    verrou_op early = test_op(VERROU_OP_ACQUIRE, "k", "me", 30000);
    MYSQL *gate = mariadb_server_connect(server);
    pthread_t thread;
    uint64_t fence;

    (void)state;
    op.owner_is_drawn = early.owner_is_drawn = 1;
    open_on_original();
    mariadb_text(server, "CREATE TRIGGER " MARIADB_DATABASE ".late BEFORE INSERT ON " MARIADB_DATABASE
                         ".verrou FOR EACH ROW IF NEW.owner='late' THEN DO GET_LOCK('gate',60); END IF");
    assert_int_equal(mysql_query(gate, "DO GET_LOCK('gate',0)"), 0);
    assert_int_equal(pthread_create(&thread, NULL, acquire_late, &op), 0);
    while (mariadb_integer(server, "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE STATE='User lock'") == 0)
        process_pause();
    assert_int_equal(test_execute(&store, &early, 1, TEST_LIMIT_MS, NULL), VERROU_OK);
    assert_int_equal(early.result, VERROU_OP_APPLIED);
    fence = early.fence;
    test_op_done(&early);
    assert_int_equal(test_release(&store, "k", "me"), VERROU_OP_APPLIED);
    mysql_close(gate);
    pthread_join(thread, NULL);
    assert_int_equal(op.result, VERROU_OP_APPLIED);
    assert_true(op.fence > fence);
    test_op_done(&op);
}

/* With the added column its UNSIGNED expiration does no harm to a tombstone. */
static void test_original_with_fence(void **state)
{
    (void)state;
    make_original();
    on_table("ALTER TABLE %s ADD fence bigint unsigned null");
    store = test_open(verrou_mysql_driver(), address_for(MARIADB_USER, ""));
    assert_int_not_equal(store.driver->caps(store.state) & VERROU_CAP_FENCE_STORED, 0);
    on_table("INSERT INTO %s VALUES ('k','old',1,null)");
    for (int i = 0; i < 2; i++) {
        assert_int_equal(test_acquire(&store, "k", "me"), VERROU_OP_APPLIED);
        assert_int_equal(test_acquire(&store, "K", "me"), VERROU_OP_REFUSED);
        assert_int_equal(test_release(&store, "k", "me"), VERROU_OP_APPLIED);
        assert_int_equal(test_inspect(&store, "k"), VERROU_OP_REFUSED);
    }
    on_table("UPDATE %s SET fence=9007199254740991");
    assert_int_equal(test_acquire(&store, "k", "me"), VERROU_OP_FAILED);
}

/* A batch on it is right as well. */
static void test_original_batch(void **state)
{
    (void)state;
    open_on_original();
    run_many(make_many(VERROU_OP_ACQUIRE), VERROU_OP_APPLIED);
    run_many(make_many(VERROU_OP_ACQUIRE), VERROU_OP_REFUSED);
    run_many(make_many(VERROU_OP_EXTEND), VERROU_OP_APPLIED);
    run_many(make_many(VERROU_OP_RELEASE), VERROU_OP_APPLIED);
    assert_int_equal(count_on_table("SELECT COUNT(*) FROM %s"), 0);
}

/* A search by key goes by the index, whatever type the column has: it locks no other row. */
static void test_index_is_used(void **state)
{
    MYSQL *stranger;

    (void)state;
    open_on_original();
    run_many(make_many(VERROU_OP_ACQUIRE), VERROU_OP_APPLIED);
    stranger = lock_row("key050");
    assert_int_equal(test_extend(&store, "key049", "me", 1000), VERROU_OP_APPLIED);
    assert_int_equal(test_release(&store, "key051", "me"), VERROU_OP_APPLIED);
    mysql_close(stranger);
}

/* Without transactions requests are carried out all the same, and an event says so. */
static void test_without_transactions(void **state)
{
    (void)state;
    mariadb_text(server, "CREATE TABLE " MARIADB_DATABASE ".verrou (`key` varbinary(255) primary key,"
                         " owner varchar(255), expiration bigint, fence bigint default 0) ENGINE=MyISAM");
    store = test_open(verrou_mysql_driver(), address_for(MARIADB_USER, ""));
    assert_int_equal(test_events("store.engine"), 1);
    run_many(make_many(VERROU_OP_ACQUIRE), VERROU_OP_APPLIED);
    run_many(make_many(VERROU_OP_ACQUIRE), VERROU_OP_REFUSED);
    run_many(make_many(VERROU_OP_RELEASE), VERROU_OP_APPLIED);
}

/* ---- tables that cannot hold locks ---- */

/* A table of another shape is refused with the reason, and never altered. */
static void test_wrong_shapes(void **state)
{
    static const struct {
        const char *columns;
        const char *why;
    } shapes[] = {
        {"id int not null", "it lacks the column `key`"},
        {"`key` varchar(255) primary key, owner varchar(255)", "it lacks the column `expiration`"},
        {"`key` varchar(255), owner varchar(255), expiration bigint",
         "it needs a primary key or unique index on just the column `key`"},
        {"`key` varchar(255), owner varchar(255), expiration bigint, unique some (`key`(10))",
         "its unique index `some` is not on the whole column `key` and nothing else"},
        {"`key` varchar(255) primary key, owner varchar(255) unique, expiration bigint",
         "its unique index `owner` is not on the whole"},
        {"`key` varchar(255), owner varchar(255), expiration bigint, primary key (`key`,owner)",
         "its unique index `PRIMARY` is not on the whole"},
        {"`key` char(255) primary key, owner varchar(255), expiration bigint",
         "its column `key` must be VARBINARY(255) or VARCHAR(255)"},
        {"`key` varchar(255) primary key, owner varchar(255), expiration int",
         "its column `expiration` must be BIGINT"},
        {"`key` varchar(255) primary key, owner varchar(255), expiration bigint, fence int",
         "its column `fence` must be BIGINT"},
        {"`key` varchar(255) primary key, owner varchar(255), expiration bigint, more int not null",
         "its column `more` has no default and may not be NULL"},
        {"`key` varchar(255) primary key, owner varchar(255), expiration bigint, n int auto_increment, key (n)",
         "its column `n` is AUTO_INCREMENT"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        mariadb_text(server, "CREATE OR REPLACE TABLE " MARIADB_DATABASE ".verrou (%s)", shapes[i].columns);
        store = test_open(verrou_mysql_driver(), address_for(MARIADB_USER, ""));
        assert_int_equal(test_acquire(&store, "k", "me"), VERROU_OP_FAILED);
        if (!strstr(test_last.text, shapes[i].why))
            fail_msg("%s: %s", shapes[i].columns, test_last.text);
        assert_int_equal(test_last.lane, VERROU_OK);
        test_close(&store);
    }
}

/* A view is told to be one. */
static void test_view(void **state)
{
    (void)state;
    mariadb_text(server, "CREATE VIEW " MARIADB_DATABASE ".verrou AS SELECT 'x' AS `key`,'y' AS owner,1 AS expiration");
    store = test_open(verrou_mysql_driver(), address_for(MARIADB_USER, ""));
    assert_int_equal(test_acquire(&store, "k", "me"), VERROU_OP_FAILED);
    mariadb_text(server, "DROP VIEW " MARIADB_DATABASE ".verrou");
    if (!strstr(test_last.text, "cannot hold locks: it is a view"))
        fail_msg("%s", test_last.text);
}

/* ---- making the table ---- */

/* Nothing is made before the first request. */
static void test_made_by_the_first_request(void **state)
{
    (void)state;
    assert_int_not_equal(store.driver->caps(store.state) & VERROU_CAP_FENCE_STORED, 0);
    assert_int_equal(mariadb_error_number(server, "SELECT * FROM " MARIADB_DATABASE ".verrou"), 1146);
    assert_int_equal(test_inspect(&store, "k"), VERROU_OP_REFUSED);
    assert_int_equal(count_on_table("SELECT COUNT(*) FROM %s"), 0);
}

/* With autocreate=false a missing table is an error that says so, until somebody makes it. */
static void test_autocreate_off(void **state)
{
    (void)state;
    test_close(&store);
    store = test_open(verrou_mysql_driver(), address_for(MARIADB_USER, "?autocreate=false"));
    assert_int_equal(test_acquire(&store, "k", "me"), VERROU_OP_FAILED);
    assert_non_null(strstr(test_last.text, "autocreate is off: `verrou schema apply` makes it"));
    test_schema_apply(&store);
    assert_int_equal(test_acquire(&store, "k", "me"), VERROU_OP_APPLIED);
}

/* Without the right to make the table the error has the statement to run, and once that was done all is well. */
static void test_no_right_to_create(void **state)
{
    const char *sql;

    (void)state;
    test_close(&store);
    mariadb_text(server, "CREATE OR REPLACE USER 'few'@'%%'");
    mariadb_text(server, "GRANT SELECT,INSERT,UPDATE,DELETE ON " MARIADB_DATABASE ".* TO 'few'@'%%'");
    store = test_open(verrou_mysql_driver(), address_for("few", ""));
    assert_int_equal(test_acquire(&store, "k", "me"), VERROU_OP_FAILED);
    assert_string_equal(test_last.code, "1142");
    sql = strstr(test_last.text, "CREATE TABLE IF NOT EXISTS `verrou`");
    assert_non_null(sql);
    assert_null(strstr(test_last.text, "are needed"));
    mariadb_text(server, "USE " MARIADB_DATABASE);
    mariadb_text(server, "CREATE TABLE IF NOT EXISTS " MARIADB_DATABASE ".%s",
                 sql + strlen("CREATE TABLE IF NOT EXISTS "));
    assert_int_equal(test_acquire(&store, "k", "me"), VERROU_OP_APPLIED);
}

/* Without the rights that locks need the error says which, and on what. */
static void test_no_rights(void **state)
{
    (void)state;
    assert_int_equal(test_acquire(&store, "x", "me"), VERROU_OP_APPLIED);
    test_close(&store);
    mariadb_text(server, "CREATE OR REPLACE USER 'few'@'%%'");
    mariadb_text(server, "GRANT SELECT ON " MARIADB_DATABASE ".verrou TO 'few'@'%%'");
    store = test_open(verrou_mysql_driver(), address_for("few", ""));
    assert_int_equal(test_acquire(&store, "k", "me"), VERROU_OP_FAILED);
    assert_string_equal(test_last.code, "1142");
    if (!strstr(test_last.text, "SELECT, INSERT, UPDATE and DELETE on table `verrou` are needed"))
        fail_msg("%s", test_last.text);
}

/* A table in a database that there is not cannot be made: the error says so, and has no statement that would fail as well. */
static void test_no_database_for_the_table(void **state)
{
    (void)state;
    store = test_open(verrou_mysql_driver(), address_for(MARIADB_USER, "?table=nosuch.locks"));
    assert_int_equal(test_acquire(&store, "k", "me"), VERROU_OP_FAILED);
    assert_string_equal(test_last.code, "1049");
    assert_non_null(strstr(test_last.text, "Unknown database 'nosuch'"));
    assert_null(strstr(test_last.text, "CREATE TABLE"));
}

/* Somebody drops the table while it is in use: it is made again, and a whole batch is answered. */
static void test_dropped_table(void **state)
{
    (void)state;
    assert_int_equal(test_acquire(&store, "k", "me"), VERROU_OP_APPLIED);
    on_table("DROP TABLE %s");
    assert_int_equal(test_acquire(&store, "k", "other"), VERROU_OP_APPLIED);
    on_table("DROP TABLE %s");
    run_many(make_many(VERROU_OP_ACQUIRE), VERROU_OP_APPLIED);
    assert_int_equal(count_on_table("SELECT COUNT(*) FROM %s"), MANY);
}

/* The table changes while it is in use: the statements follow. */
static void test_changed_table(void **state)
{
    (void)state;
    assert_int_equal(test_acquire(&store, "k", "me"), VERROU_OP_APPLIED);
    on_table("ALTER TABLE %s DROP COLUMN fence");
    run_many(make_many(VERROU_OP_ACQUIRE), VERROU_OP_APPLIED);
    assert_int_equal(store.driver->caps(store.state) & VERROU_CAP_FENCE_STORED, 0);
    assert_int_equal(test_release(&store, "k", "me"), VERROU_OP_APPLIED);
}

/* ---- pruning ---- */

/* Make tombstones of 64 releases, so that the table is walked through once. */
static void release_64(void)
{
    char key[32];

    for (int i = 0; i < 64; i++) {
        snprintf(key, sizeof key, "x%d", i);
        assert_int_equal(test_acquire(&store, key, "me"), VERROU_OP_APPLIED);
        assert_int_equal(test_release(&store, key, "me"), VERROU_OP_APPLIED);
    }
}

/* Tombstones go an hour after their release, and nothing else does. */
static void test_pruning(void **state)
{
    (void)state;
    assert_int_equal(test_acquire(&store, "live", "me"), VERROU_OP_APPLIED);
    on_table("INSERT INTO %s VALUES ('a-old','',0,1),('b-old','',0,UNIX_TIMESTAMP()*1000000-3700000000),"
             "('c-young','',0,UNIX_TIMESTAMP()*1000000-3500000000),('d-expired','somebody',1,1),"
             "('e-forever','somebody',null,1)");
    release_64();
    assert_string_equal(on_table("SELECT GROUP_CONCAT(`key` ORDER BY `key` SEPARATOR ' ') FROM %s"
                                 " WHERE `key` NOT LIKE 'x%%'"),
                        "c-young d-expired e-forever live");
}

/* A table of any size is walked through in steps. */
static void test_pruning_in_steps(void **state)
{
    (void)state;
    assert_int_equal(test_acquire(&store, "a", "me"), VERROU_OP_APPLIED);
    on_table("INSERT INTO %s SELECT CONCAT('old',seq),'',0,1 FROM " MARIADB_DATABASE ".seq_1_to_200");
    release_64();
    assert_in_range(count_on_table("SELECT COUNT(*) FROM %s WHERE `key` LIKE 'old%%'"), 60, 80);
    release_64();
    assert_int_equal(count_on_table("SELECT COUNT(*) FROM %s WHERE `key` LIKE 'old%%'"), 0);
}

/* A tombstone that somebody has locked stays, and holds up nobody. */
static void test_pruning_of_a_locked_row(void **state)
{
    MYSQL *stranger;

    (void)state;
    assert_int_equal(test_acquire(&store, "live", "me"), VERROU_OP_APPLIED);
    on_table("INSERT INTO %s VALUES ('a-old','',0,1),('b-old','',0,1)");
    stranger = lock_row("b-old");
    release_64();
    assert_int_equal(count_on_table("SELECT COUNT(*) FROM %s WHERE `key` LIKE '%%-old'"), 2);
    mysql_close(stranger);
    release_64();
    assert_int_equal(count_on_table("SELECT COUNT(*) FROM %s WHERE `key` LIKE '%%-old'"), 0);
}

/* ---- no memory ---- */

static bool run_starved(void)
{
    verrou_op ops[MANY];
    verrou_error err = VERROU_ERROR_INIT;
    char keys[MANY][16];
    bool good = true;

    if (test_create(&store, verrou_mysql_driver(), address_for(MARIADB_USER, ""), &err) != VERROU_OK ||
        test_open_lane(&store, &err) != VERROU_OK) {
        test_close(&store);
        return false;
    }
    for (int i = 0; i < MANY; i++) {
        snprintf(keys[i], sizeof keys[i], "k%d", i % 20);
        ops[i] = test_op(VERROU_OP_ACQUIRE, keys[i], "me", 30000);
    }
    good = test_execute(&store, ops, MANY, TEST_LIMIT_MS, &err) == VERROU_OK;
    for (int i = 0; i < MANY; i++) {
        good = good && (ops[i].result == VERROU_OP_APPLIED) == (i < 20);
        if (ops[i].result == VERROU_OP_APPLIED) /* nothing is told twice */
            assert_true(i < 20);
        assert_int_not_equal(ops[i].result, VERROU_OP_UNKNOWN);
        test_op_done(&ops[i]);
    }
    test_close(&store);
    return good;
}

/* With any one allocation failing nothing leaks, and no answer is wrong. */
static void test_no_memory(void **state)
{
    bool worked = false;

    for (long n = 0; !worked; n++) {
        long before = failing_alloc.live;

        drop_table(state);
        failing_alloc.failed = false;
        failing_alloc.until = n;
        worked = run_starved() && !failing_alloc.failed;
        failing_alloc.until = -1;
        assert_int_equal(failing_alloc.live, before);
    }
}

/* ---- addresses ---- */

/* What an address cannot mean is refused when the store is made, without telling the password. */
static void test_bad_addresses(void **state)
{
    static const struct {
        const char *address;
        const char *why;
    } bad[] = {
        {"mysql://u:s3cret@h", "names no database"},
        {"mysql://u:s3cret@h/", "?table=DATABASE.TABLE"},
        {"mysql://u:s3cret@h/a/b", "the name of a database"},
        {"mysql://u:s3cret@h/d?table=no-table", "table"},
        {"mysql://u:s3cret@h/d?table=a.b.c", "table"},
        {"mysql://u:s3cret@h/d?autocreate=yes", "autocreate"},
        {"mysql://u:s3cret@h/d?connect-timeout=0", "connect-timeout"},
        {"mysql://u:s3cret@h/d?socket=/s", "socket"},
        {"mysql://u:s3cret@h/d?tls=maybe", "tls"},
        {"mysql://u:s3cret@h/d?tls=verify", "ca"},
        {"mysql://u:s3cret@h/d?tls=off&ca=/ca.pem", "tls"},
        {"mysql://u:s3cret@h/d?cert=/c.pem&key=/k.pem", "cert"},
        {"mysql://u:s3cret@h/d?ca=/ca.pem&cert=/c.pem", "cert"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        verrou_error err = VERROU_ERROR_INIT;

        if (test_create(&store, verrou_mysql_driver(), bad[i].address, &err) != VERROU_ECONFIG)
            fail_msg("%s is taken", bad[i].address);
        if (!strstr(err.message, bad[i].why))
            fail_msg("%s: %s", bad[i].address, err.message);
        assert_null(strstr(err.message, "s3cret"));
    }
}

/* A table in another database needs none in the address. */
static void test_qualified_table(void **state)
{
    char address[200];

    (void)state;
    snprintf(address, sizeof address, "mariadb://" MARIADB_USER "@127.0.0.1:%d?table=" MARIADB_DATABASE ".verrou",
             server->port);
    store = test_open(verrou_mysql_driver(), address);
    assert_int_equal(test_acquire(&store, "k", "me"), VERROU_OP_APPLIED);
    assert_int_equal(count_on_table("SELECT COUNT(*) FROM %s"), 1);
}

#define with_store(test) cmocka_unit_test_setup_teardown(test, open_store, close_store)
#define without_table(test) cmocka_unit_test_setup_teardown(test, drop_table, close_store)

int main(void)
{
    const struct CMUnitTest tests[] = {
        with_store(test_keys_are_bytes),
        with_store(test_owners_are_bytes),
        with_store(test_nothing_is_truncated),
        with_store(test_sql_in_names),
        with_store(test_tokens_grow),
        with_store(test_token_ahead_of_the_clock),
        with_store(test_token_at_the_limit),
        with_store(test_tokens_are_compared),
        with_store(test_refusal_tells_the_holder),
        with_store(test_forever),
        with_store(test_expired),
        with_store(test_round_trips),
        with_store(test_batch_is_one_commit),
        with_store(test_looks_need_no_transaction),
        with_store(test_batch_refused),
        with_store(test_order_in_a_batch),
        with_store(test_trigger_that_changes_rows),
        with_store(test_trigger_that_counts),
        with_store(test_versioned_table),
        with_store(test_failing_request),
        with_store(test_constraint),
        with_store(test_locked_row),
        with_store(test_locked_row_of_an_acquire),
        with_store(test_row_locked_for_a_moment),
        without_table(test_original_folds_keys),
        without_table(test_original_renames_rows),
        without_table(test_original_has_no_fence),
        without_table(test_original_token_of_an_own_lease),
        without_table(test_original_token_is_drawn_late),
        without_table(test_original_with_fence),
        without_table(test_original_batch),
        without_table(test_index_is_used),
        without_table(test_without_transactions),
        without_table(test_wrong_shapes),
        without_table(test_view),
        with_store(test_made_by_the_first_request),
        with_store(test_autocreate_off),
        with_store(test_no_right_to_create),
        with_store(test_no_rights),
        without_table(test_no_database_for_the_table),
        with_store(test_dropped_table),
        with_store(test_changed_table),
        with_store(test_pruning),
        with_store(test_pruning_in_steps),
        with_store(test_pruning_of_a_locked_row),
        without_table(test_no_memory),
        without_table(test_bad_addresses),
        without_table(test_qualified_table),
    };

    return cmocka_run_group_tests_name("mysql driver", tests, start_server, stop_server) +
           cmocka_run_group_tests_name("mysql driver, statements written out", tests, start_server_without_statements,
                                       stop_server);
}
