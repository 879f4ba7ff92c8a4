/*
 * sqlite_driver_test.c - what the SQLite driver stores and answers while nothing fails: the table's format, keys, tokens, batches,
 * foreign tables. Failures are in sqlite_failure_test.c, other processes in sqlite_process_test.c.
 */
#include "sqlite_testing.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "core/core.h"

/* ---- addresses ---- */

/* A bad address is refused as configuration, and the message names the culprit. */
static void bad_addresses_are_refused(void **unused)
{
    static const char *const bad[][3] = {
        {"", NULL, "no path"},
        {":memory:", NULL, "memory:"},
        {"/tmp/", NULL, "folder"},
        {"x.db", "table=", "table="},
        {"x.db", "table=a-b", "a-b"},
        {"x.db", "table=1a", "1a"},
        {"x.db", "table=a;drop", "a;drop"},
        {"x.db", "table=sqlite_x", "sqlite_x"},
        {"x.db", "table=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "table="},
        {"x.db", "autocreate=yes", "autocreate=yes"},
        {"x.db", "synchronous=FULL", "synchronous=FULL"},
    };

    (void)unused;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        verrou_error err = VERROU_ERROR_INIT;
        test_store store;

        assert_int_equal(test_create_file(&store, bad[i][0], bad[i][1], &err), VERROU_ECONFIG);
        assert_non_null(strstr(err.message, bad[i][2]));
    }
}

/* A path that looks like an SQLite URI is a plain file name, even if the process allows URIs; it survives a chdir(). */
static void a_path_is_never_a_uri(void **unused)
{
    verrou_error err = VERROU_ERROR_INIT;
    char before[PATH_MAX], path[PATH_MAX];
    test_store store;
    struct stat st;

    (void)unused;
    assert_non_null(getcwd(before, sizeof before));
    assert_int_equal(chdir(test_folder), 0);
    assert_int_equal(test_create_file(&store, "file:odd.db?mode=memory", NULL, &err), VERROU_OK);
    assert_int_equal(chdir(before), 0);
    assert_int_equal(test_open_lane(&store, &err), VERROU_OK);
    assert_int_equal(test_acquire(&store, "k", "a"), VERROU_OP_APPLIED);
    snprintf(path, sizeof path, "%s/file:odd.db?mode=memory", test_folder);
    assert_int_equal(stat(path, &st), 0);
    test_close(&store);
}

/* ---- format ---- */

/* A held lock is a row as the original writes it: key and owner as text, the end in epoch milliseconds. */
static void a_lease_is_a_row_of_the_original(void **unused)
{
    test_store store = test_database(NULL);
    int64_t before = verrou__wall_ms(), end;

    (void)unused;
    assert_int_equal(test_acquire(&store, "k", "a"), VERROU_OP_APPLIED);
    assert_string_equal(test_ask("select typeof(key)||typeof(owner)||typeof(expiration)||typeof(fence) from verrou"),
                        "texttextintegerinteger");
    assert_string_equal(test_ask("select owner from verrou where key = 'k'"), "a");
    end = atoll(test_ask("select expiration from verrou where key = 'k'"));
    assert_true(end >= before + 30000 && end <= verrou__wall_ms() + 30000);
    test_close(&store);
}

/* The insert that the original sends, which knows nothing of our column, works on a table that we made. */
static void the_original_can_insert(void **unused)
{
    test_store store = test_database(NULL);

    (void)unused;
    assert_int_equal(test_inspect(&store, "k"), VERROU_OP_REFUSED);
    test_sql("insert into verrou (key, owner, expiration) values ('k', 'theirs', %lld)",
             (long long)verrou__wall_ms() + 30000);
    assert_int_equal(test_acquire(&store, "k", "a"), VERROU_OP_REFUSED);
    assert_string_equal(test_last.holder, "theirs");
    assert_true(test_last.remaining_ms > 0 && test_last.remaining_ms <= 30000);
    test_close(&store);
}

/* The original binds numbers as floating point; such a row is read right. */
static void floating_point_ends_are_read(void **unused)
{
    test_store store = test_database(NULL);

    (void)unused;
    assert_int_equal(test_inspect(&store, "k"), VERROU_OP_REFUSED);
    test_sql("insert into verrou (key, owner, expiration) values ('k', 'o', %lld.5), ('free', 'o', 1000.5)",
             (long long)verrou__wall_ms() + 30000);
    assert_int_equal(test_acquire(&store, "k", "a"), VERROU_OP_REFUSED);
    assert_int_equal(test_acquire(&store, "free", "a"), VERROU_OP_APPLIED);
    test_close(&store);
}

/* A released row stays with owner '' and expiration 0, which the original takes for free, and keeps its token. */
static void a_release_leaves_a_tombstone(void **unused)
{
    test_store store = test_database(NULL);
    uint64_t token;

    (void)unused;
    test_acquire(&store, "k", "a");
    token = test_last.fence;
    assert_int_equal(test_release(&store, "k", "a"), VERROU_OP_APPLIED);
    assert_string_equal(test_ask("select owner || '|' || expiration from verrou where key = 'k'"), "|0");
    assert_true((uint64_t)atoll(test_ask("select fence from verrou where key = 'k'")) == token);
    test_close(&store);
}

/* ---- keys ---- */

/* Keys are compared byte by byte: letter case, trailing blanks and Unicode forms make different locks. */
static void keys_are_bytes(void **unused)
{
    static const char *const keys[] = {"job", "JOB", "job ", " job", "j\xc3\xb6", "jo\xcc\x88", "1", "01", "1.0", "'"};
    test_store store = test_database(NULL);

    (void)unused;
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++)
        assert_int_equal(test_acquire(&store, keys[i], "a"), VERROU_OP_APPLIED);
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++)
        assert_int_equal(test_acquire(&store, keys[i], "b"), VERROU_OP_REFUSED);
    test_close(&store);
}

/* Owners are compared byte by byte too. */
static void owners_are_bytes(void **unused)
{
    test_store store = test_database(NULL);

    (void)unused;
    test_acquire(&store, "k", "abc");
    assert_int_equal(test_release(&store, "k", "ABC"), VERROU_OP_REFUSED);
    assert_int_equal(test_release(&store, "k", "abc "), VERROU_OP_REFUSED);
    assert_int_equal(test_release(&store, "k", "abc"), VERROU_OP_APPLIED);
    test_close(&store);
}

/* ---- leases ---- */

static void expire(const char *key)
{
    test_sql("update verrou set expiration = %lld where key = '%s'", (long long)verrou__wall_ms() - 1, key);
}

/* The answers of P7's table on a live and on an expired lease. */
static void expired_leases_are_free(void **unused)
{
    test_store store = test_database(NULL);
    uint64_t first;

    (void)unused;
    assert_int_equal(test_acquire(&store, "k", "a"), VERROU_OP_APPLIED);
    first = test_last.fence;
    assert_int_equal(test_acquire(&store, "k", "a"), VERROU_OP_REFUSED); /* not re-entrant */
    assert_int_equal(test_inspect(&store, "k"), VERROU_OP_APPLIED);
    assert_true(test_last.fence == first);
    expire("k");
    assert_int_equal(test_release(&store, "k", "a"), VERROU_OP_REFUSED);
    assert_int_equal(test_extend(&store, "k", "a", 1000), VERROU_OP_REFUSED);
    assert_int_equal(test_inspect(&store, "k"), VERROU_OP_REFUSED);
    assert_int_equal(test_acquire(&store, "k", "b"), VERROU_OP_APPLIED);
    assert_true(test_last.fence > first);
    test_close(&store);
}

/* A lease without end is NULL; it can be made finite and endless again, and only its owner can do it. */
static void permanent_leases(void **unused)
{
    test_store store = test_database(NULL);

    (void)unused;
    assert_int_equal(test_run(&store, VERROU_OP_ACQUIRE, "k", "a", VERROU_FOREVER), VERROU_OP_APPLIED);
    assert_string_equal(test_ask("select expiration from verrou"), "NULL");
    assert_int_equal(test_acquire(&store, "k", "b"), VERROU_OP_REFUSED);
    assert_true(test_last.remaining_ms == VERROU_FOREVER);
    assert_int_equal(test_extend(&store, "k", "b", 1000), VERROU_OP_REFUSED);
    assert_int_equal(test_extend(&store, "k", "a", 1000), VERROU_OP_APPLIED);
    assert_string_equal(test_ask("select typeof(expiration) from verrou"), "integer");
    assert_int_equal(test_extend(&store, "k", "a", VERROU_FOREVER), VERROU_OP_APPLIED);
    assert_string_equal(test_ask("select expiration from verrou"), "NULL");
    assert_int_equal(test_release(&store, "k", "a"), VERROU_OP_APPLIED);
    test_close(&store);
}

/* Release and extend with a token concern that acquisition only. */
static void a_token_names_the_acquisition(void **unused)
{
    test_store store = test_database(NULL);
    uint64_t token;

    (void)unused;
    test_acquire(&store, "k", "a");
    token = test_last.fence;
    assert_int_equal(test_run_fenced(&store, VERROU_OP_RELEASE, "k", "a", 0, token - 1), VERROU_OP_REFUSED);
    assert_int_equal(test_run_fenced(&store, VERROU_OP_EXTEND, "k", "a", 1000, token + 1), VERROU_OP_REFUSED);
    assert_int_equal(test_run_fenced(&store, VERROU_OP_EXTEND, "k", "a", 1000, token), VERROU_OP_APPLIED);
    assert_int_equal(test_run_fenced(&store, VERROU_OP_RELEASE, "k", "a", 0, token), VERROU_OP_APPLIED);
    test_close(&store);
}

/* Force frees whoever holds the key, is fine with a free one, and keeps the token. */
static void force_frees(void **unused)
{
    test_store store = test_database(NULL);
    uint64_t token;

    (void)unused;
    assert_int_equal(test_force(&store, "k"), VERROU_OP_APPLIED);
    test_run(&store, VERROU_OP_ACQUIRE, "k", "a", VERROU_FOREVER);
    token = test_last.fence;
    assert_int_equal(test_force(&store, "k"), VERROU_OP_APPLIED);
    assert_int_equal(test_acquire(&store, "k", "b"), VERROU_OP_APPLIED);
    assert_true(test_last.fence > token);
    test_close(&store);
}

/* ---- tokens ---- */

/* Tokens grow through release, expiry, a deleted row and a new connection, and are about the clock's microseconds. */
static void tokens_grow(void **unused)
{
    test_store store = test_database(NULL);
    uint64_t last = 0;

    (void)unused;
    for (int i = 0; i < 8; i++) {
        assert_int_equal(test_acquire(&store, "k", "a"), VERROU_OP_APPLIED);
        assert_true(test_last.fence > last);
        last = test_last.fence;
        if (i % 4 == 0)
            test_release(&store, "k", "a");
        else if (i % 4 == 1)
            expire("k");
        else if (i % 4 == 2)
            test_sql("delete from verrou"); /* as the original releases */
        else
            test_release(&store, "k", "a"), test_close(&store), store = test_database(NULL);
    }
    assert_true(last / 1000000 + 60 > (uint64_t)verrou__wall_ms() / 1000);
    assert_true(last < UINT64_C(1) << 53);
    test_close(&store);
}

/* With the clock behind the last token, as after it was set back, the next token is one more. */
static void tokens_grow_when_the_clock_is_set_back(void **unused)
{
    test_store store = test_database(NULL);
    long long future = (verrou__wall_ms() + 3600000) * 1000;

    (void)unused;
    test_acquire(&store, "k", "a");
    test_sql("update verrou set fence = %lld", future);
    test_release(&store, "k", "a");
    assert_int_equal(test_acquire(&store, "k", "a"), VERROU_OP_APPLIED);
    assert_true(test_last.fence == (uint64_t)future + 1);
    test_close(&store);
}

/* A stored token that cannot grow is a failure with a reason, neither "held" nor a token that repeats. */
static void a_token_at_its_limit_is_an_error(void **unused)
{
    test_store store = test_database(NULL);

    (void)unused;
    test_acquire(&store, "k", "a");
    test_release(&store, "k", "a");
    test_sql("update verrou set fence = 9007199254740991");
    assert_int_equal(test_acquire(&store, "k", "a"), VERROU_OP_FAILED);
    assert_non_null(strstr(test_last.text, "token"));
    test_sql("update verrou set fence = 'text'");
    assert_int_equal(test_acquire(&store, "k", "a"), VERROU_OP_FAILED);
    test_close(&store);
}

/* Old tombstones go, in the course of releases; young ones, live rows and expired ones stay, and tokens still grow. */
static void old_tombstones_are_pruned(void **unused)
{
    test_store store = test_database(NULL);
    long long old = (verrou__wall_ms() - 7200000) * 1000;

    (void)unused;
    test_inspect(&store, "k");
    test_sql("with recursive n(i) as (select 1 union all select i + 1 from n where i < 500)"
             " insert into verrou select 'old' || i, '', 0, %lld from n",
             old);
    test_sql(
        "insert into verrou values ('a-young', '', 0, %lld), ('z-live', 'o', NULL, %lld), ('z-gone', 'o', 5, %lld)",
        old + 7000000000LL, old, old);
    for (int i = 0; i < 64 * 6; i++) {
        test_acquire(&store, "k", "a");
        assert_int_equal(test_release(&store, "k", "a"), VERROU_OP_APPLIED);
    }
    assert_string_equal(test_ask("select group_concat(key) from (select key from verrou order by key)"),
                        "a-young,k,z-gone,z-live");
    assert_int_equal(test_acquire(&store, "old7", "a"), VERROU_OP_APPLIED);
    assert_true(test_last.fence > (uint64_t)old);
    test_close(&store);
}

/* ---- batches ---- */

/* A batch is answered in order, in one transaction: the row shows the last state, and the tokens grow within it. */
static void a_batch_is_carried_out_in_order(void **unused)
{
    test_store store = test_database(NULL);
    verrou_op ops[] = {
        test_op(VERROU_OP_INSPECT, "k", NULL, 0),       test_op(VERROU_OP_ACQUIRE, "k", "a", 1000),
        test_op(VERROU_OP_ACQUIRE, "k", "b", 1000),     test_op(VERROU_OP_RELEASE, "k", "a", 0),
        test_op(VERROU_OP_ACQUIRE, "k", "b", 1000),     test_op(VERROU_OP_EXTEND, "k", "a", 1000),
        test_op(VERROU_OP_ACQUIRE, "other", "a", 1000),
    };
    static const verrou_op_result expected[] = {
        VERROU_OP_REFUSED, VERROU_OP_APPLIED, VERROU_OP_REFUSED, VERROU_OP_APPLIED,
        VERROU_OP_APPLIED, VERROU_OP_REFUSED, VERROU_OP_APPLIED,
    };

    (void)unused;
    assert_int_equal(test_execute(&store, ops, 7, TEST_LIMIT_MS, NULL), VERROU_OK);
    for (int i = 0; i < 7; i++)
        assert_int_equal(ops[i].result, expected[i]);
    assert_true(ops[4].fence > ops[1].fence);
    assert_string_equal(ops[2].holder, "a");
    assert_string_equal(test_ask("select owner from verrou where key = 'k'"), "b");
    for (int i = 0; i < 7; i++)
        test_op_done(&ops[i]);
    test_close(&store);
}

/* A request that the table refuses fails alone; with a trigger that rolls everything back, its neighbours still get through. */
static void a_failing_request_spares_its_neighbours(void **unused)
{
    static const char *const actions[] = {"ABORT", "FAIL", "ROLLBACK"};

    for (int i = 0; i < 3; i++) {
        test_store store = test_database(NULL);
        verrou_op ops[] = {
            test_op(VERROU_OP_ACQUIRE, "one", "a", 1000),
            test_op(VERROU_OP_ACQUIRE, "bad", "a", 1000),
            test_op(VERROU_OP_ACQUIRE, "one", "b", 1000),
            test_op(VERROU_OP_ACQUIRE, "two", "a", 1000),
        };

        test_inspect(&store, "k");
        test_sql(
            "create trigger no before insert on verrou when new.key = 'bad' begin select raise(%s, 'not this'); end",
            actions[i]);
        assert_int_equal(test_execute(&store, ops, 4, TEST_LIMIT_MS, NULL), VERROU_OK);
        assert_int_equal(ops[0].result, VERROU_OP_APPLIED);
        assert_int_equal(ops[1].result, VERROU_OP_FAILED);
        assert_non_null(strstr(ops[1].error->message, "not this"));
        assert_int_equal(ops[1].error->retriable, 0);
        assert_int_equal(ops[2].result, VERROU_OP_REFUSED);
        assert_int_equal(ops[3].result, VERROU_OP_APPLIED);
        assert_string_equal(test_ask("select group_concat(key) from (select key from verrou order by key)"), "one,two");
        for (int j = 0; j < 4; j++)
            test_op_done(&ops[j]);
        test_close(&store);
        test_teardown(unused);
        test_setup(unused);
    }
}

/* A trigger that drops rows silently is reported: not as held, and not as taken. */
static void a_swallowed_row_is_an_error(void **unused)
{
    test_store store = test_database(NULL);

    (void)unused;
    test_inspect(&store, "k");
    test_sql("create trigger no before insert on verrou begin select raise(ignore); end");
    assert_int_equal(test_acquire(&store, "k", "a"), VERROU_OP_FAILED);
    test_close(&store);
}

/* What a trigger changes does not count as our change: a release that frees nothing stays refused. */
static void changes_of_triggers_do_not_count(void **unused)
{
    test_store store = test_database(NULL);

    (void)unused;
    test_acquire(&store, "k", "a");
    test_sql("create table journal (n); create trigger noted after update on verrou begin"
             " insert into journal values (1); insert into journal values (2); end");
    assert_int_equal(test_release(&store, "k", "b"), VERROU_OP_REFUSED);
    assert_int_equal(test_release(&store, "k", "a"), VERROU_OP_APPLIED);
    assert_int_equal(test_release(&store, "k", "a"), VERROU_OP_REFUSED);
    test_close(&store);
}

static struct stat file_state(const char *suffix)
{
    struct stat st;

    assert_int_equal(stat(test_file(suffix), &st), 0);
    return st;
}

static bool same_state(const struct stat *a, const struct stat *b)
{
    return a->st_size == b->st_size && a->st_mtim.tv_sec == b->st_mtim.tv_sec &&
           a->st_mtim.tv_nsec == b->st_mtim.tv_nsec;
}

/* Answers that change nothing write nothing: else waiters, who are woken by writes, would wake each other for ever. */
static void refusals_write_nothing(void **unused)
{
    test_store store = test_database(NULL);
    struct stat wal, db, later;

    (void)unused;
    test_acquire(&store, "k", "a");
    wal = file_state("-wal");
    db = file_state("");
    assert_int_equal(test_acquire(&store, "k", "b"), VERROU_OP_REFUSED);
    assert_int_equal(test_release(&store, "k", "b"), VERROU_OP_REFUSED);
    assert_int_equal(test_release(&store, "free", "b"), VERROU_OP_REFUSED);
    assert_int_equal(test_extend(&store, "k", "b", 1000), VERROU_OP_REFUSED);
    assert_int_equal(test_force(&store, "free"), VERROU_OP_APPLIED);
    assert_int_equal(test_inspect(&store, "k"), VERROU_OP_APPLIED);
    later = file_state("-wal");
    assert_true(same_state(&wal, &later));
    later = file_state("");
    assert_true(same_state(&db, &later));
    test_close(&store);
}

/* Looking needs no write lock: it works while another program writes. */
static void inspecting_does_not_wait_for_a_writer(void **unused)
{
    test_store store = test_database(NULL);
    sqlite3 *writer = NULL;

    (void)unused;
    test_acquire(&store, "k", "a");
    assert_int_equal(sqlite3_open(test_path, &writer), SQLITE_OK);
    assert_int_equal(sqlite3_exec(writer, "BEGIN IMMEDIATE; update verrou set owner = 'b'", NULL, NULL, NULL),
                     SQLITE_OK);
    assert_int_equal(test_inspect(&store, "k"), VERROU_OP_APPLIED);
    assert_string_equal(test_last.holder, "a");
    sqlite3_close(writer);
    test_close(&store);
}

/* ---- tables that others made ---- */

/* The original's table is used unaltered; tokens come from the clock and grow; the row goes on release, as the original does it. */
static void a_table_of_the_original_works(void **unused)
{
    test_store store;
    uint64_t last = 0;

    (void)unused;
    test_sql(ORIGINAL_TABLE);
    store = test_database(NULL);
    for (int i = 0; i < 100; i++) {
        assert_int_equal(test_acquire(&store, "k", "a"), VERROU_OP_APPLIED);
        assert_true(test_last.fence > last);
        last = test_last.fence;
        assert_int_equal(test_acquire(&store, "k", "b"), VERROU_OP_REFUSED);
        assert_int_equal(test_run_fenced(&store, VERROU_OP_EXTEND, "k", "a", 1000, last), VERROU_OP_APPLIED);
        assert_int_equal(test_run_fenced(&store, VERROU_OP_RELEASE, "k", "a", 0, last), VERROU_OP_APPLIED);
    }
    assert_int_equal(store.driver->caps(store.state) & VERROU_CAP_FENCE_STORED, 0);
    assert_int_equal(store.driver->caps(store.state) & VERROU_CAP_FENCE, VERROU_CAP_FENCE);
    assert_string_equal(test_ask("select count(*) from verrou"), "0");
    assert_string_equal(test_ask("select count(*) from pragma_table_info('verrou')"), "3");
    test_close(&store);
}

/* Tokens of such a table grow within a batch, where the clock stands still. */
static void clock_tokens_grow_within_a_batch(void **unused)
{
    test_store store;
    verrou_op ops[3];

    (void)unused;
    test_sql(ORIGINAL_TABLE);
    store = test_database(NULL);
    ops[0] = test_op(VERROU_OP_ACQUIRE, "k", "a", 1000);
    ops[1] = test_op(VERROU_OP_RELEASE, "k", "a", 0);
    ops[2] = test_op(VERROU_OP_ACQUIRE, "k", "a", 1000);
    assert_int_equal(test_execute(&store, ops, 3, TEST_LIMIT_MS, NULL), VERROU_OK);
    assert_int_equal(ops[2].result, VERROU_OP_APPLIED);
    assert_true(ops[2].fence > ops[0].fence);
    test_close(&store);
}

/* Nor does it keep the token of the lease, which an acquire that is repeated has to be told: it gets another, larger one. */
static void repeated_acquire_has_a_clock_token(void **unused)
{
    test_store store;
    uint64_t first;

    (void)unused;
    test_sql(ORIGINAL_TABLE);
    store = test_database(NULL);
    assert_int_equal(test_acquire(&store, "k", "a"), VERROU_OP_APPLIED);
    first = test_last.fence;
    assert_int_equal(test_acquire(&store, "k", "a"), VERROU_OP_REFUSED);
    assert_true(test_last.holder_is_owner);
    assert_true(test_last.fence > first);
    assert_int_equal(test_acquire(&store, "k", "b"), VERROU_OP_REFUSED);
    assert_int_equal(test_last.fence, 0);
    test_close(&store);
}

/* `schema apply` adds the column, can be repeated, and a store that is open goes on with stored tokens. */
static void schema_apply_adds_the_column(void **unused)
{
    test_store store, admin;
    const char *text;

    (void)unused;
    test_sql(ORIGINAL_TABLE);
    store = test_database(NULL);
    assert_int_equal(test_acquire(&store, "k", "a"), VERROU_OP_APPLIED);
    admin = test_database(NULL);
    text = test_schema(&admin);
    assert_non_null(strstr(text, "schema version 1"));
    assert_non_null(strstr(text, "ALTER TABLE \"verrou\" ADD COLUMN `fence`"));
    for (int i = 0; i < 2; i++)
        test_schema_apply(&admin);
    test_close(&admin);
    assert_string_equal(test_ask("select count(*) from pragma_table_info('verrou')"), "4");
    assert_int_equal(test_release(&store, "k", "a"), VERROU_OP_APPLIED);
    assert_string_equal(test_ask("select owner || expiration from verrou"), "0");
    assert_int_equal(store.driver->caps(store.state) & VERROU_CAP_FENCE_STORED, VERROU_CAP_FENCE_STORED);
    test_close(&store);
}

/* What `schema print` prints for a missing table makes one that the driver accepts. */
static void schema_print_makes_the_table(void **unused)
{
    test_store store = test_database("autocreate=false&table=locks");
    const char *statements;

    (void)unused;
    statements = test_schema(&store);
    assert_int_equal(access(test_path, F_OK), -1);
    test_sql("%s", statements);
    assert_int_equal(test_acquire(&store, "k", "a"), VERROU_OP_APPLIED);
    test_close(&store);
}

/* With autocreate off nothing is made, and the answer says what is missing: first the file, then the table. */
static void without_autocreate_nothing_is_made(void **unused)
{
    test_store store = test_database("autocreate=false");

    (void)unused;
    assert_int_equal(test_acquire(&store, "k", "a"), VERROU_OP_FAILED);
    assert_non_null(strstr(test_last.text, "does not exist"));
    assert_int_equal(access(test_path, F_OK), -1);
    test_sql("create table other (n)");
    assert_int_equal(test_acquire(&store, "k", "a"), VERROU_OP_FAILED);
    assert_non_null(strstr(test_last.text, "no table \"verrou\""));
    test_schema_apply(&store);
    assert_int_equal(test_acquire(&store, "k", "a"), VERROU_OP_APPLIED);
    test_close(&store);
}

/* A table that vanishes or changes its shape under an open store is read anew, not guessed at. */
static void a_changed_table_is_read_anew(void **unused)
{
    test_store store = test_database(NULL);

    (void)unused;
    test_acquire(&store, "k", "a");
    test_sql("drop table verrou");
    assert_int_equal(test_acquire(&store, "k", "a"), VERROU_OP_APPLIED);
    test_sql("drop table verrou; create table verrou (key text, owner text, expiration bigint, fence bigint)");
    assert_int_equal(test_acquire(&store, "k", "a"), VERROU_OP_FAILED);
    assert_non_null(strstr(test_last.text, "unique index"));
    test_sql(
        "drop table verrou; create table verrou (key text collate nocase primary key, owner text, expiration bigint)");
    assert_int_equal(test_acquire(&store, "k", "a"), VERROU_OP_APPLIED);
    assert_string_equal(test_event, "store.collation");
    assert_int_equal(test_acquire(&store, "K", "b"), VERROU_OP_REFUSED);
    test_close(&store);
}

/*
 * On a table that folds keys, colliding keys exclude each other, an event says so, and only the exact key can release or
 * extend; force of one key does not free the other.
 */
static void colliding_keys_exclude_each_other(void **unused)
{
    static const char *const tables[] = {
        "create table verrou (key varchar(255) collate nocase primary key not null, owner varchar(255) not null,"
        " expiration bigint, fence bigint not null default 0)",
        "create table verrou (key varchar(255) not null, owner varchar(255) not null, expiration bigint);"
        "create unique index u on verrou (key collate nocase)",
        "create table verrou (key varchar(255) collate nocase primary key not null, owner varchar(255) not null,"
        " expiration bigint, fence bigint not null default 0) without rowid",
    };

    for (int i = 0; i < 3; i++) {
        test_store store;
        uint64_t token;

        test_sql("%s", tables[i]);
        test_event[0] = '\0';
        store = test_database(NULL);
        assert_int_equal(test_acquire(&store, "job", "a"), VERROU_OP_APPLIED);
        token = test_last.fence;
        assert_string_equal(test_event, "store.collation");
        assert_int_equal(test_acquire(&store, "JOB", "b"), VERROU_OP_REFUSED);
        assert_string_equal(test_last.holder, "a");
        assert_int_equal(test_release(&store, "JOB", "a"), VERROU_OP_REFUSED);
        assert_int_equal(test_extend(&store, "JOB", "a", 1000), VERROU_OP_REFUSED);
        test_force(&store, "JOB");
        assert_int_equal(test_inspect(&store, "JOB"), VERROU_OP_APPLIED);
        assert_int_equal(test_release(&store, "job", "a"), VERROU_OP_APPLIED);
        assert_int_equal(test_acquire(&store, "JOB", "b"), VERROU_OP_APPLIED);
        assert_true(test_last.fence > token);
        assert_int_equal(test_release(&store, "job", "b"), VERROU_OP_REFUSED);
        assert_int_equal(test_release(&store, "JOB", "b"), VERROU_OP_APPLIED);
        test_close(&store);
        test_teardown(unused);
        test_setup(unused);
    }
}

/* A column that folds with an index that does not: keys are bytes, as the index has it. */
static void the_index_decides_on_folding(void **unused)
{
    test_store store;

    (void)unused;
    test_sql("create table verrou (key varchar(255) collate nocase, owner text, expiration bigint);"
             "create unique index u on verrou (key collate binary)");
    store = test_database(NULL);
    assert_int_equal(test_acquire(&store, "job", "a"), VERROU_OP_APPLIED);
    assert_int_equal(test_acquire(&store, "JOB", "b"), VERROU_OP_APPLIED);
    assert_int_equal(test_acquire(&store, "job", "b"), VERROU_OP_REFUSED);
    assert_string_equal(test_last.holder, "a");
    assert_int_equal(test_release(&store, "job", "b"), VERROU_OP_REFUSED);
    assert_int_equal(test_release(&store, "job", "a"), VERROU_OP_APPLIED);
    test_close(&store);
}

/* A table of the wrong shape is an error that says what is wrong; nothing is reported as held or free. */
static void wrong_shapes_are_named(void **unused)
{
    static const char *const tables[][2] = {
        {"create table verrou (owner text, expiration bigint)", "\"key\""},
        {"create table verrou (key text primary key, expiration bigint)", "\"owner\""},
        {"create table verrou (key text primary key, owner text)", "\"expiration\""},
        {"create table verrou (key text, owner text, expiration bigint)", "unique index"},
        {"create table verrou (key text, n int, owner text, expiration bigint, primary key (key, n))", "unique index"},
        {"create table verrou (key text, owner text, expiration bigint);"
         "create unique index u on verrou (key) where owner <> ''",
         "unique index"},
        {"create table verrou (key int primary key, owner text, expiration bigint)", "text type"},
        {"create table verrou (key text primary key, owner numeric, expiration bigint)", "\"owner\""},
        {"create table verrou (key text primary key, owner text, expiration text)", "number type"},
        {"create table verrou (key text primary key, owner text, expiration bigint, more text not null)", "\"more\""},
        {"create table t (key text, owner text, expiration bigint); create view verrou as select * from t", "view"},
    };

    for (size_t i = 0; i < sizeof tables / sizeof tables[0]; i++) {
        test_store store;

        test_sql("%s", tables[i][0]);
        store = test_database(NULL);
        assert_int_equal(test_acquire(&store, "k", "a"), VERROU_OP_FAILED);
        assert_int_equal(test_last.retriable, 0);
        if (!strstr(test_last.text, tables[i][1]))
            fail_msg("%s: %s", tables[i][0], test_last.text);
        test_close(&store);
        test_teardown(unused);
        test_setup(unused);
    }
}

/* The name of a table is case-insensitive in SQLite, and may be an SQL word. */
static void table_names(void **unused)
{
    test_store store = test_database("table=Select"), other = test_database("table=SELECT");

    (void)unused;
    assert_int_equal(test_acquire(&store, "k", "a"), VERROU_OP_APPLIED);
    assert_int_equal(test_acquire(&other, "k", "b"), VERROU_OP_REFUSED);
    test_close(&store);
    test_close(&other);
}

/* ---- list, check, settings ---- */

/* The listing has the live locks under a prefix, in byte order, and no others. */
static void list_has_live_locks(void **unused)
{
    test_store store = test_database(NULL);

    (void)unused;
    test_acquire(&store, "app:b", "o1");
    test_run(&store, VERROU_OP_ACQUIRE, "app:a", "o2", VERROU_FOREVER);
    test_acquire(&store, "app:gone", "o3");
    test_release(&store, "app:gone", "o3");
    test_acquire(&store, "APP:c", "o4");
    test_acquire(&store, "apq", "o5");
    assert_string_equal(test_list(&store, "app:"), "app:a o2 forever\napp:b o1 live\n");
    assert_string_equal(test_list(&store, ""), "APP:c o4 live\napp:a o2 forever\napp:b o1 live\napq o5 live\n");
    test_close(&store);
}

/* The doctor warns of what makes locks less safe: lax syncing, a table without tokens, a clock set back. */
static void check_warns(void **unused)
{
    const char *findings;
    test_store store;

    (void)unused;
    test_sql(ORIGINAL_TABLE);
    store = test_database("synchronous=off");
    findings = test_check(&store);
    assert_non_null(strstr(findings, "40 synchronous: off"));
    assert_non_null(strstr(findings, "40 table: \"verrou\" has no column \"fence\""));
    assert_non_null(strstr(findings, "30 integrity: ok"));
    test_close(&store);

    store = test_database(NULL);
    test_schema_apply(&store);
    test_acquire(&store, "k", "a");
    test_sql("update verrou set fence = fence + 5000000000");
    findings = test_check(&store);
    assert_non_null(strstr(findings, "30 synchronous: full"));
    assert_non_null(strstr(findings, "40 clock:"));
    assert_non_null(strstr(findings, "30 journal: write-ahead log"));
    assert_int_equal(test_inspect(&store, "k"), VERROU_OP_APPLIED); /* the lane is still good */
    test_close(&store);
}

/* A database is in WAL mode, and no descriptor of it or its companions is inherited by programs that are started. */
static void descriptors_close_on_exec(void **unused)
{
    test_store store = test_database(NULL);
    int found = 0;

    (void)unused;
    test_acquire(&store, "k", "a");
    assert_string_equal(test_ask("pragma journal_mode"), "wal");
    for (int fd = 3; fd < 256; fd++) {
        char link[64], target[PATH_MAX];
        ssize_t len;

        snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        len = readlink(link, target, sizeof target - 1);
        if (len <= 0)
            continue;
        target[len] = '\0';
        if (strncmp(target, test_folder, strlen(test_folder)) == 0) {
            assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
            found++;
        }
    }
    assert_true(found >= 2);
    test_close(&store);
}

/* The file's mode follows the umask. */
static void the_umask_decides_on_the_mode(void **unused)
{
    mode_t before = umask(0027);
    test_store store = test_database(NULL);
    struct stat st;

    (void)unused;
    test_acquire(&store, "k", "a");
    umask(before);
    assert_int_equal(stat(test_path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0640); /* SQLite starts from 0644 */
    test_close(&store);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, test_setup, test_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(bad_addresses_are_refused),
        TEST(a_path_is_never_a_uri),
        TEST(a_lease_is_a_row_of_the_original),
        TEST(the_original_can_insert),
        TEST(floating_point_ends_are_read),
        TEST(a_release_leaves_a_tombstone),
        TEST(keys_are_bytes),
        TEST(owners_are_bytes),
        TEST(expired_leases_are_free),
        TEST(permanent_leases),
        TEST(a_token_names_the_acquisition),
        TEST(force_frees),
        TEST(tokens_grow),
        TEST(tokens_grow_when_the_clock_is_set_back),
        TEST(a_token_at_its_limit_is_an_error),
        TEST(old_tombstones_are_pruned),
        TEST(a_batch_is_carried_out_in_order),
        TEST(a_failing_request_spares_its_neighbours),
        TEST(a_swallowed_row_is_an_error),
        TEST(changes_of_triggers_do_not_count),
        TEST(refusals_write_nothing),
        TEST(inspecting_does_not_wait_for_a_writer),
        TEST(a_table_of_the_original_works),
        TEST(clock_tokens_grow_within_a_batch),
        TEST(repeated_acquire_has_a_clock_token),
        TEST(schema_apply_adds_the_column),
        TEST(schema_print_makes_the_table),
        TEST(without_autocreate_nothing_is_made),
        TEST(a_changed_table_is_read_anew),
        TEST(colliding_keys_exclude_each_other),
        TEST(the_index_decides_on_folding),
        TEST(wrong_shapes_are_named),
        TEST(table_names),
        TEST(list_has_live_locks),
        TEST(check_warns),
        TEST(descriptors_close_on_exec),
        TEST(the_umask_decides_on_the_mode),
    };

    sqlite3_config(SQLITE_CONFIG_URI, 1);
    return cmocka_run_group_tests_name("sqlite driver", tests, NULL, NULL);
}
