/*
 * postgres_driver_test.c - what the PostgreSQL driver stores and answers while the server works: the table's format, tokens, batches, foreign
 * tables and rows, the watch. Those tests that must leave no error in the server's log are "quiet".
 */
#include "failing_alloc.h"
#include "postgres_testing.h"

#include <sys/wait.h>

#define ROW "select owner || '|' || coalesce(expiration::text, 'never') || '|' || fence from verrou where key = 'k'"

static int start(void **state)
{
    (void)state;
    failing_alloc_install();
    server = postgres_server_start(NULL);
    return 0;
}

#define BRIEF_MS 300 /* to wait for what does not come */

/* The end of a foreign transaction: when the answer is there it has ended, which closing does not tell. */
static void foreign_end(PGconn *foreign)
{
    PQclear(PQexec(foreign, "rollback"));
    PQfinish(foreign);
}

static verrou_status create(const char *address, verrou_error *err)
{
    test_store store;
    verrou_status status = test_create(&store, verrou_postgres_driver(), address, err);

    test_close(&store);
    return status;
}

/* ---- addresses ---- */

/* A bad address is refused as configuration, and the message names the culprit. */
static void bad_addresses_are_refused(void **unused)
{
    static const char *const bad[][2] = {
        {"postgres://h/d?table=", "table"},
        {"postgres://h/d?table=a-b", "a-b"},
        {"postgres://h/d?table=a.b.c", "a.b.c"},
        {"postgres://h/d?table=1a", "1a"},
        {"postgres://h/d?table=a%22b", "a\"b"},
        {"postgres://h/d?table=aaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeeeeeeeeffffffffffgggg", "63"},
        {"postgres://h/d?autocreate=yes", "autocreate=yes"},
        {"postgres://h/d?pooler=session", "pooler=session"},
        {"postgres://h/d?notify-trigger=1", "notify-trigger=1"},
        {"postgres://h/d?connect_timeout=2s", "connect_timeout=2s"},
        {"postgres://h/d?host=other", "host"},
        {"postgres://h/d?dbname=other", "dbname"},
        {"postgres://u@h/d?user=other", "user"},
        {"postgres:///d?host=a,b&port=1,2,3", "lists of one length"},
        {"postgres://h/d?ca=/x&sslrootcert=/y", "sslrootcert"},
        {"postgres://h/d/extra", "the path of the address"},
        {"postgres://h/d/", "the path of the address"},
        {"postgres://u:p@h/d#frag?table=x", "the path of the address"},
    };

    (void)unused;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        verrou_error err = VERROU_ERROR_INIT;

        assert_int_equal(create(bad[i][0], &err), VERROU_ECONFIG);
        assert_non_null(strstr(err.message, bad[i][1]));
    }
}

/* No message about a password that is given twice shows one of them. */
static void passwords_are_not_shown(void **unused)
{
    verrou_error err = VERROU_ERROR_INIT;

    (void)unused;
    assert_int_equal(create("postgres://u:s3cr3t@h/d?password=0th3r", &err), VERROU_ECONFIG);
    assert_null(strstr(err.message, "s3cr3t"));
    assert_null(strstr(err.message, "0th3r"));
}

/* Hosts, a socket folder and the keywords of libpq are taken wherever libpq's own addresses have them. */
static void ways_to_say_where(void **unused)
{
    char address[512];
    verrou_error err = VERROU_ERROR_INIT;
    const char *formats[] = {
        "postgres:///postgres?host=%2$s&port=%1$d&user=postgres",
        "postgresql://?host=%2$s&port=%1$d&user=postgres&dbname=postgres",
        "postgres:///?host=nowhere.invalid,%2$s&port=1,%1$d&user=postgres&dbname=postgres",
        "postgres://postgres@127.0.0.1:1,127.0.0.1:%1$d/postgres",
        "postgres://postgres@/postgres?hostaddr=127.0.0.1&port=%1$d&sslmode=disable&options=-c%%20search_path=public",
    };

    (void)unused;
    for (size_t i = 0; i < sizeof formats / sizeof formats[0]; i++) {
        test_store store;

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
        snprintf(address, sizeof address, formats[i], server->port, server->folder);
#pragma GCC diagnostic pop
        assert_int_equal(test_create(&store, verrou_postgres_driver(), address, &err), VERROU_OK);
        if (test_open_lane(&store, &err) != VERROU_OK)
            fail_msg("%s: %s", address, err.message);
        assert_int_equal(test_acquire(&store, "k", "a"), i ? VERROU_OP_REFUSED : VERROU_OP_APPLIED);
        test_close(&store);
    }
}

/* A '/' and a '#' of the database's name are written as such; there is no such database, and its name is told. */
static void odd_names_of_databases(void **unused)
{
    static const char *const addresses[] = {"postgres://postgres@127.0.0.1:%d/a%%2Fb%%23c",
                                            "postgres://postgres@127.0.0.1:%d/?dbname=a%%2Fb%%23c"};

    (void)unused;
    for (size_t i = 0; i < sizeof addresses / sizeof addresses[0]; i++) {
        verrou_error err = VERROU_ERROR_INIT;
        char address[128];
        test_store store;

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
        snprintf(address, sizeof address, addresses[i], server->port);
#pragma GCC diagnostic pop
        assert_int_equal(test_create(&store, verrou_postgres_driver(), address, &err), VERROU_OK);
        assert_int_not_equal(test_open_lane(&store, &err), VERROU_OK);
        assert_non_null(strstr(err.message, "database \"a/b#c\" does not exist"));
        assert_string_equal(err.store_code, "3D000");
        test_close(&store);
    }
}

/* ---- format ---- */

/* A held lock is a row as the original writes it; a released one is a tombstone that keeps the token. */
static void leases_are_rows(void **unused)
{
    test_store store = test_table(NULL);
    long long before = postgres_integer(server, "select (extract(epoch from clock_timestamp()) * 1000)::bigint");
    long long end;
    uint64_t fence;

    (void)unused;
    assert_int_equal(test_acquire(&store, "k", "a"), VERROU_OP_APPLIED);
    fence = test_last.fence;
    end = postgres_integer(server, "select expiration from verrou where key = 'k' and owner = 'a'");
    assert_true(end >= before + 30000);
    assert_true(end <=
                postgres_integer(server, "select (extract(epoch from clock_timestamp()) * 1000)::bigint") + 30001);
    assert_true((long long)fence > before * 1000);
    assert_int_equal(test_release(&store, "k", "a"), VERROU_OP_APPLIED);
    assert_int_equal(test_last.others, 0);
    assert_int_equal(postgres_integer(server, "select fence from verrou where owner = '' and expiration = 0"), fence);
    assert_int_equal(test_run(&store, VERROU_OP_ACQUIRE, "k", "b", VERROU_FOREVER), VERROU_OP_APPLIED);
    assert_true(test_last.fence > fence);
    assert_non_null(strstr(postgres_text(server, ROW), "b|never|"));
    test_close(&store);
}

/* What is held is refused and told, whoever asks, its own owner too; what has run out is free. */
static void holders_are_told(void **unused)
{
    test_store store = test_table(NULL);
    uint64_t fence;

    (void)unused;
    test_acquire(&store, "k", "a");
    fence = test_last.fence;
    assert_int_equal(test_acquire(&store, "k", "b"), VERROU_OP_REFUSED);
    assert_string_equal(test_last.holder, "a");
    assert_false(test_last.holder_is_owner);
    assert_int_equal(test_last.fence, fence);
    assert_in_range(test_last.remaining_ms, 1, 30000);
    assert_int_equal(test_acquire(&store, "k", "a"), VERROU_OP_REFUSED);
    assert_true(test_last.holder_is_owner);
    assert_int_equal(test_inspect(&store, "k"), VERROU_OP_APPLIED);
    assert_string_equal(test_last.holder, "a");
    postgres_text(server, "update verrou set expiration = 1");
    assert_int_equal(test_inspect(&store, "k"), VERROU_OP_REFUSED);
    assert_int_equal(test_release(&store, "k", "a"), VERROU_OP_REFUSED);
    assert_int_equal(test_extend(&store, "k", "a", 1000), VERROU_OP_REFUSED);
    assert_int_equal(test_acquire(&store, "k", "b"), VERROU_OP_APPLIED);
    assert_true(test_last.fence > fence);
    test_close(&store);
}

/* Releasing and extending compare owner and token; force frees whatever is there. */
static void owners_and_tokens_are_compared(void **unused)
{
    test_store store = test_table(NULL);
    uint64_t fence;

    (void)unused;
    test_acquire(&store, "k", "a");
    fence = test_last.fence;
    assert_int_equal(test_release(&store, "k", "b"), VERROU_OP_REFUSED);
    assert_int_equal(test_run_fenced(&store, VERROU_OP_RELEASE, "k", "a", 0, fence + 1), VERROU_OP_REFUSED);
    assert_int_equal(test_run_fenced(&store, VERROU_OP_EXTEND, "k", "a", 90000, fence + 1), VERROU_OP_REFUSED);
    assert_int_equal(test_run_fenced(&store, VERROU_OP_EXTEND, "k", "a", 90000, fence), VERROU_OP_APPLIED);
    test_inspect(&store, "k");
    assert_in_range(test_last.remaining_ms, 60000, 90000);
    assert_int_equal(test_extend(&store, "k", "a", VERROU_FOREVER), VERROU_OP_APPLIED);
    test_inspect(&store, "k");
    assert_true(test_last.remaining_ms == VERROU_FOREVER);
    assert_int_equal(test_run_fenced(&store, VERROU_OP_RELEASE, "k", "a", 0, fence), VERROU_OP_APPLIED);
    test_acquire(&store, "k", "c");
    assert_int_equal(test_force(&store, "k"), VERROU_OP_APPLIED);
    assert_int_equal(test_force(&store, "never"), VERROU_OP_APPLIED);
    assert_int_equal(test_inspect(&store, "k"), VERROU_OP_REFUSED);
    test_close(&store);
}

/* A token exceeds the one stored even if that is ahead of the clock; at the end of what is exact there is none any more. */
static void tokens_only_grow(void **unused)
{
    test_store store = test_table(NULL);

    (void)unused;
    test_acquire(&store, "k", "a");
    test_release(&store, "k", "a");
    postgres_text(server, "update verrou set fence = 9007199254740990");
    assert_int_equal(test_acquire(&store, "k", "a"), VERROU_OP_APPLIED);
    assert_true(test_last.fence == UINT64_C(9007199254740991));
    test_release(&store, "k", "a");
    assert_int_equal(test_acquire(&store, "k", "a"), VERROU_OP_RETRY);
    assert_non_null(strstr(test_last.text, "token is too large"));
    test_close(&store);
}

/* Asking for what is held neither locks the row nor writes anything: whoever releases it is not held up. */
static void refusals_touch_nothing(void **unused)
{
    test_store store = test_table(NULL);
    char before[128];

    (void)unused;
    test_acquire(&store, "k", "a");
    snprintf(before, sizeof before, "%s", postgres_text(server, "select ctid, xmin, xmax from verrou"));
    assert_int_equal(test_acquire(&store, "k", "b"), VERROU_OP_REFUSED);
    assert_int_equal(test_extend(&store, "k", "b", 1000), VERROU_OP_REFUSED);
    assert_int_equal(test_release(&store, "k", "b"), VERROU_OP_REFUSED);
    assert_string_equal(postgres_text(server, "select ctid, xmin, xmax from verrou"), before);
    test_close(&store);
}

/* ---- statements ---- */

/* One request is one prepared statement, without a transaction around it. */
static void a_request_is_one_statement(void **unused)
{
    test_store store = test_table(NULL);

    (void)unused;
    test_acquire(&store, "warm", "a");
    postgres_log_forget(server);
    test_acquire(&store, "k", "a");
    test_release(&store, "k", "a");
    assert_int_equal(postgres_logged(server, "LOG:"), 2);
    assert_int_equal(postgres_logged(server, "execute verrou_acquire"), 1);
    assert_int_equal(postgres_logged(server, "execute verrou_release"), 1);
    test_close(&store);
}

/*
 * Nothing is answered before it is safe with the disk and the standby, but the end of a lease that would be over soon, if it is alone in its
 * transaction. The server of this test waits for a standby that does not exist.
 */
static void commits_that_are_waited_for(void **unused)
{
    static const struct {
        verrou_op_kind kinds[2];
        const char *keys[2]; /* the second NULL: there is one request */
        verrou_op_result result;
    } batches[] = {
        {{VERROU_OP_RELEASE}, {"a"}, VERROU_OP_APPLIED},
        {{VERROU_OP_RELEASE}, {"long"}, VERROU_OP_UNKNOWN},
        {{VERROU_OP_RELEASE, VERROU_OP_RELEASE}, {"b", "longer"}, VERROU_OP_UNKNOWN},
        {{VERROU_OP_RELEASE, VERROU_OP_EXTEND}, {"c", "d"}, VERROU_OP_UNKNOWN},
        {{VERROU_OP_ACQUIRE}, {"new"}, VERROU_OP_UNKNOWN},
        {{VERROU_OP_FORCE}, {"e"}, VERROU_OP_UNKNOWN},
    };
    const postgres_options options = {.config = "synchronous_standby_names = 'absent'\n"};
    postgres_server *strict = postgres_server_start(&options);
    test_store store =
        test_open(verrou_postgres_driver(), test_address(strict->port, "options=-c%20synchronous_commit%3Dlocal"));
    verrou_op lasting[] = {test_op(VERROU_OP_ACQUIRE, "long", "o", 120000),
                           test_op(VERROU_OP_ACQUIRE, "longer", "o", VERROU_FOREVER)};

    (void)unused;
    for (const char *key = "abcde"; *key; key++)
        assert_int_equal(test_acquire(&store, (char[]){*key, '\0'}, "o"), VERROU_OP_APPLIED);
    assert_int_equal(test_execute(&store, lasting, 2, TEST_LIMIT_MS, NULL), VERROU_OK);
    test_op_done(&lasting[0]);
    test_op_done(&lasting[1]);
    test_close(&store);

    for (size_t i = 0; i < sizeof batches / sizeof batches[0]; i++) {
        size_t n = batches[i].keys[1] ? 2 : 1;
        verrou_op ops[2];

        store = test_open(verrou_postgres_driver(), test_address(strict->port, NULL));
        for (size_t at = 0; at < n; at++)
            ops[at] = test_op(batches[i].kinds[at], batches[i].keys[at], "o", 30000);
        test_execute(&store, ops, n, BRIEF_MS, NULL);
        for (size_t at = 0; at < n; at++) {
            assert_int_equal(ops[at].result, batches[i].result);
            test_op_done(&ops[at]);
        }
        test_close(&store);
    }
    postgres_server_free(strict);
}

#define MANY 100

/* A batch is one transaction: all its rows have been written by the same one. Requests for one key keep their order. */
static void a_batch_is_one_transaction(void **unused)
{
    test_store store = test_table(NULL);
    verrou_op ops[MANY + 3];
    char keys[MANY][8];
    verrou_error err = VERROU_ERROR_INIT;

    (void)unused;
    test_acquire(&store, "held", "x");
    for (int i = 0; i < MANY; i++) {
        snprintf(keys[i], sizeof keys[i], "%d", i * 7919 % 1000);
        ops[i] = test_op(VERROU_OP_ACQUIRE, keys[i], "a", 30000);
    }
    ops[MANY] = test_op(VERROU_OP_ACQUIRE, "held", "a", 30000);
    ops[MANY + 1] = test_op(VERROU_OP_RELEASE, "held", "x", 0);
    ops[MANY + 2] = test_op(VERROU_OP_ACQUIRE, "held", "b", 30000);
    assert_int_equal(test_execute(&store, ops, MANY + 3, TEST_LIMIT_MS, &err), VERROU_OK);
    for (int i = 0; i < MANY; i++)
        assert_int_equal(ops[i].result, VERROU_OP_APPLIED);
    assert_int_equal(ops[MANY].result, VERROU_OP_REFUSED);
    assert_string_equal(ops[MANY].holder, "x");
    assert_int_equal(ops[MANY + 1].result, VERROU_OP_APPLIED);
    assert_int_equal(ops[MANY + 2].result, VERROU_OP_APPLIED);
    assert_int_equal(postgres_integer(server, "select count(distinct xmin::text) from verrou"), 1);
    assert_int_equal(postgres_integer(server, "select count(*) from verrou where owner <> ''"), MANY + 1);
    for (int i = 0; i < MANY + 3; i++)
        test_op_done(&ops[i]);
    test_close(&store);
}

/* Every batch locks its rows in the order of their keys, so that two of them do not wait for each other. */
static void a_batch_goes_through_its_keys_in_order(void **unused)
{
    test_store store = test_table(NULL);
    verrou_op ops[] = {test_op(VERROU_OP_ACQUIRE, "m", "o", 30000), test_op(VERROU_OP_ACQUIRE, "z", "o", 30000),
                       test_op(VERROU_OP_ACQUIRE, "a", "o", 30000)};
    verrou_error err = VERROU_ERROR_INIT;

    (void)unused;
    assert_int_equal(test_execute(&store, ops, 3, TEST_LIMIT_MS, &err), VERROU_OK);
    assert_string_equal(postgres_text(server, "select string_agg(key, '' order by ctid) from verrou"), "amz");
    test_close(&store);
}

/* ---- one request that fails, and its neighbours ---- */

/* Run a batch of three acquires, "a", `key`, "z", of which the middle one fails; the others must not notice. */
static void middle_fails(test_store *store, const char *key, verrou_op_result result, const char *code)
{
    verrou_op ops[] = {test_op(VERROU_OP_ACQUIRE, "a", "o", 30000), test_op(VERROU_OP_ACQUIRE, key, "o", 30000),
                       test_op(VERROU_OP_ACQUIRE, "z", "o", 30000)};
    verrou_error err = VERROU_ERROR_INIT;

    assert_int_equal(test_execute(store, ops, 3, TEST_LIMIT_MS, &err), VERROU_OK);
    assert_int_equal(ops[0].result, VERROU_OP_APPLIED);
    assert_int_equal(ops[2].result, VERROU_OP_APPLIED);
    assert_int_equal(ops[1].result, result);
    assert_non_null(ops[1].error);
    assert_string_equal(ops[1].error->store_code, code);
    assert_int_equal(postgres_integer(server, "select count(*) from verrou where key in ('a', 'z') and owner = 'o'"),
                     2);
    for (int i = 0; i < 3; i++)
        test_op_done(&ops[i]);
}

/* A row that a foreign transaction holds is tried again later; it does not hold up the neighbours. */
static void a_locked_row_holds_up_nobody(void **unused)
{
    test_store store = test_table(NULL);
    PGconn *foreign = postgres_connect(server);

    (void)unused;
    test_acquire(&store, "k", "o");
    test_release(&store, "k", "o");
    PQclear(PQexec(foreign, "begin; select from verrou where key = 'k' for update"));
    middle_fails(&store, "k", VERROU_OP_RETRY, "55P03");
    assert_int_equal(test_acquire(&store, "k", "o"), VERROU_OP_RETRY);
    assert_string_equal(test_last.code, "55P03");
    assert_non_null(strstr(test_last.text, "somebody else has the row locked"));
    foreign_end(foreign);
    assert_int_equal(test_acquire(&store, "k", "o"), VERROU_OP_APPLIED);
    test_close(&store);
}

/* A trigger that refuses one row refuses that request only, ... */
static void a_trigger_that_raises(void **unused)
{
    test_store store = test_table(NULL);

    (void)unused;
    test_acquire(&store, "first", "o");
    postgres_text(server, "create or replace function raise() returns trigger language plpgsql as $$"
                          " begin if new.key = 'k' then raise exception 'not this one'; end if; return new; end $$");
    postgres_text(server, "create trigger raise before insert on verrou for each row execute function raise()");
    middle_fails(&store, "k", VERROU_OP_FAILED, "P0001");
    assert_int_equal(test_acquire(&store, "k", "o"), VERROU_OP_FAILED);
    assert_non_null(strstr(test_last.text, "not this one"));
    assert_int_equal(test_acquire(&store, "after", "o"), VERROU_OP_APPLIED);
    test_close(&store);
}

/* ... also if it does so only when the transaction is committed. */
static void a_trigger_that_raises_at_commit(void **unused)
{
    test_store store = test_table(NULL);

    (void)unused;
    test_acquire(&store, "first", "o");
    postgres_text(server, "create or replace function raise() returns trigger language plpgsql as $$"
                          " begin if new.key = 'k' then raise exception 'not this one'; end if; return new; end $$");
    postgres_text(server, "create constraint trigger raise after insert on verrou deferrable initially deferred"
                          " for each row execute function raise()");
    middle_fails(&store, "k", VERROU_OP_FAILED, "P0001");
    assert_int_equal(test_acquire(&store, "k", "o"), VERROU_OP_FAILED);
    assert_int_equal(test_acquire(&store, "after", "o"), VERROU_OP_APPLIED);
    assert_int_equal(postgres_integer(server, "select count(*) from verrou where key = 'k'"), 0);
    test_close(&store);
}

/* A key that is too long for the column is an error of that request, not a holder. */
static void a_key_that_does_not_fit(void **unused)
{
    test_store store;

    (void)unused;
    postgres_text(server, "create table verrou (key varchar(3) primary key, owner text not null, expiration bigint,"
                          " fence bigint not null default 0)");
    store = test_table(NULL);
    middle_fails(&store, "kkkk", VERROU_OP_FAILED, "22001");
    test_close(&store);
}

/* A trigger that keeps the row from being stored is told as such after some tries. */
static void a_row_that_is_never_stored(void **unused)
{
    test_store store = test_table(NULL);

    (void)unused;
    test_acquire(&store, "first", "o");
    postgres_text(server,
                  "create or replace function skip() returns trigger language plpgsql as 'begin return null; end'");
    postgres_text(server, "create trigger skip before insert on verrou for each row execute function skip()");
    assert_int_equal(test_acquire(&store, "k", "o"), VERROU_OP_RETRY);
    assert_non_null(strstr(test_last.text, "trigger"));
    test_close(&store);
}

/* Whatever is usual in the database, our transactions are READ COMMITTED: a row that changed meanwhile is no error. */
static void isolation_is_ours(void **unused)
{
    test_store store;

    (void)unused;
    postgres_text(server, "alter role postgres set default_transaction_isolation = 'serializable'");
    store = test_table(NULL);
    assert_int_equal(test_acquire(&store, "k", "o"), VERROU_OP_APPLIED);
    postgres_text(server, "alter role postgres reset default_transaction_isolation");
    postgres_text(server, "create or replace function level() returns trigger language plpgsql as $$ begin"
                          " new.owner := current_setting('transaction_isolation'); return new; end $$");
    postgres_text(server, "create trigger level before insert on verrou for each row execute function level()");
    test_acquire(&store, "level", "o");
    assert_string_equal(postgres_text(server, "select owner from verrou where key = 'level'"), "read committed");
    test_close(&store);
}

/* ---- tables ---- */

static void maker(int from_parent, int to_parent, const void *unused)
{
    test_store store;

    (void)unused;
    test_tell(to_parent);
    test_await(from_parent);
    store = test_table(NULL);
    if (test_acquire(&store, "k", "child") != VERROU_OP_APPLIED && test_last.result != VERROU_OP_REFUSED)
        _exit(1);
    _exit(0);
}

#define MAKERS 8

/* Several processes that make the table at once all succeed, and the server has nothing to complain about. */
static void the_table_is_made_by_several(void **unused)
{
    test_child children[MAKERS];

    (void)unused;
    for (int i = 0; i < MAKERS; i++)
        children[i] = test_fork(maker, NULL);
    for (int i = 0; i < MAKERS; i++)
        assert_true(test_await(children[i].from));
    for (int i = 0; i < MAKERS; i++)
        test_tell(children[i].to);
    for (int i = 0; i < MAKERS; i++)
        assert_int_equal(test_wait(&children[i]), 0);
    assert_int_equal(postgres_integer(server, "select count(*) from verrou"), 1);
}

/* Without autocreate a missing table is a failure that says so, until somebody makes it. */
static void autocreate_off(void **unused)
{
    test_store store = test_table("autocreate=false");
    test_store other;

    (void)unused;
    assert_int_equal(test_acquire(&store, "k", "o"), VERROU_OP_FAILED);
    assert_non_null(strstr(test_last.text, "autocreate is off: `verrou schema apply` makes it"));
    other = test_table(NULL);
    test_acquire(&other, "x", "o");
    assert_int_equal(test_acquire(&store, "k", "o"), VERROU_OP_APPLIED);
    test_close(&other);
    test_close(&store);
}

/* Without the right to make it, the statement to run is told; once somebody has, it works. */
static void no_right_to_make_the_table(void **unused)
{
    char address[256];
    test_store store;

    (void)unused;
    postgres_text(server, "drop role if exists guest; create role guest login");
    snprintf(address, sizeof address, "postgres://guest@127.0.0.1:%d/postgres", server->port);
    store = test_open(verrou_postgres_driver(), address);
    assert_int_equal(test_acquire(&store, "k", "o"), VERROU_OP_FAILED);
    assert_string_equal(test_last.code, "42501");
    assert_non_null(strstr(test_last.text, "CREATE TABLE IF NOT EXISTS \"verrou\""));
    assert_null(strstr(test_last.text, "are needed"));
    postgres_text(server, "%s", strstr(test_last.text, "CREATE TABLE"));
    assert_int_equal(test_acquire(&store, "k", "o"), VERROU_OP_FAILED);
    assert_string_equal(test_last.code, "42501");
    assert_non_null(strstr(test_last.text, "SELECT, INSERT, UPDATE and DELETE on table \"verrou\" are needed"));
    postgres_text(server, "grant select, insert, update on verrou to guest");
    assert_int_equal(test_acquire(&store, "k", "o"), VERROU_OP_APPLIED);
    assert_int_equal(test_release(&store, "k", "o"), VERROU_OP_APPLIED);
    test_close(&store);
    postgres_text(server, "drop owned by guest; drop role guest");
}

/* In a schema that there is not nobody can make the table: that is said, and no statement that would fail as well. */
static void no_schema_for_the_table(void **unused)
{
    test_store store = test_table("table=nosuch.locks");

    (void)unused;
    assert_int_equal(test_acquire(&store, "k", "o"), VERROU_OP_FAILED);
    assert_string_equal(test_last.code, "3F000");
    assert_non_null(strstr(test_last.text, "schema \"nosuch\" does not exist"));
    assert_null(strstr(test_last.text, "CREATE TABLE"));
    test_close(&store);
}

/* A table that a crash empties is used, and an event says what it is worth, once; so does one that is such a table in part. */
static void unlogged_tables_are_told(void **unused)
{
    static const char *const tables[] = {
        "create unlogged table verrou (key text primary key, owner text not null, expiration bigint,"
        " fence bigint not null default 0)",
        "create table verrou (key text primary key, owner text not null, expiration bigint,"
        " fence bigint not null default 0) partition by hash (key);"
        " create table verrou_0 partition of verrou for values with (modulus 2, remainder 0);"
        " create unlogged table verrou_1 partition of verrou for values with (modulus 2, remainder 1)"};

    (void)unused;
    for (size_t i = 0; i < sizeof tables / sizeof tables[0]; i++) {
        test_store store;

        postgres_text(server, "drop table if exists verrou; %s", tables[i]);
        store = test_table(NULL);
        assert_int_equal(test_acquire(&store, "k", "o"), VERROU_OP_APPLIED);
        test_close_lane(&store);
        assert_int_equal(test_open_lane(&store, NULL), VERROU_OK);
        assert_int_equal(test_release(&store, "k", "o"), VERROU_OP_APPLIED);
        assert_int_equal(test_events("store.durability"), 1);
        assert_non_null(strstr(test_event_text, "a crash of the server forgets all locks"));
        test_close(&store);
    }
}

/* A table that is dropped in use is made again; one that changes is looked at anew. */
static void the_table_changes_in_use(void **unused)
{
    test_store store = test_table(NULL);

    (void)unused;
    test_acquire(&store, "k", "o");
    postgres_text(server, "drop table verrou");
    assert_int_equal(test_acquire(&store, "k", "b"), VERROU_OP_APPLIED);
    assert_true(store.driver->caps(store.state) & VERROU_CAP_FENCE_STORED);
    postgres_text(server, "alter table verrou drop column fence");
    assert_int_equal(test_acquire(&store, "k", "c"), VERROU_OP_REFUSED);
    assert_string_equal(test_last.holder, "b");
    assert_false(store.driver->caps(store.state) & VERROU_CAP_FENCE_STORED);
    assert_int_equal(test_release(&store, "k", "b"), VERROU_OP_APPLIED);
    assert_int_equal(postgres_integer(server, "select count(*) from verrou"), 0);
    postgres_text(server, "alter table verrou alter owner type text");
    assert_int_equal(test_acquire(&store, "k", "d"), VERROU_OP_APPLIED);
    postgres_text(server, "alter table verrou rename column owner to holder");
    assert_int_equal(test_acquire(&store, "k", "e"), VERROU_OP_FAILED);
    assert_non_null(strstr(test_last.text, "cannot hold locks"));
    test_close(&store);
}

/* Another lane finds out as well: in a batch. */
static void the_table_is_dropped_before_a_batch(void **unused)
{
    test_store store = test_table(NULL);
    verrou_op ops[] = {test_op(VERROU_OP_ACQUIRE, "a", "o", 30000), test_op(VERROU_OP_ACQUIRE, "b", "o", 30000)};
    verrou_error err = VERROU_ERROR_INIT;

    (void)unused;
    test_acquire(&store, "k", "o");
    postgres_text(server, "drop table verrou");
    assert_int_equal(test_execute(&store, ops, 2, TEST_LIMIT_MS, &err), VERROU_OK);
    assert_int_equal(ops[0].result, VERROU_OP_APPLIED);
    assert_int_equal(ops[1].result, VERROU_OP_APPLIED);
    test_close(&store);
}

/* A table of the original works as it is: tokens from the clock, nothing left of a released lock. */
static void a_table_of_the_original(void **unused)
{
    test_store store;
    uint64_t fence = 0;

    (void)unused;
    postgres_text(server, "create table verrou (key varchar(255) primary key not null, owner varchar(255) not null,"
                          " expiration bigint null)");
    store = test_table(NULL);
    assert_false(store.driver->caps(store.state) & VERROU_CAP_FENCE_STORED);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(test_acquire(&store, "k", "o"), VERROU_OP_APPLIED);
        assert_true(test_last.fence > fence);
        fence = test_last.fence;
        assert_int_equal(test_acquire(&store, "k", "p"), VERROU_OP_REFUSED);
        assert_int_equal(test_last.fence, 0);
        assert_int_equal(test_acquire(&store, "k", "o"), VERROU_OP_REFUSED);
        assert_true(test_last.fence > fence); /* of a repeated acquire */
        fence = test_last.fence;
        assert_int_equal(test_extend(&store, "k", "o", 1000), VERROU_OP_APPLIED);
        if (i == 1)
            assert_int_equal(test_force(&store, "k"), VERROU_OP_APPLIED);
        else
            assert_int_equal(test_release(&store, "k", "o"), VERROU_OP_APPLIED);
        assert_int_equal(postgres_integer(server, "select count(*) from verrou"), 0);
    }
    assert_int_equal(postgres_integer(server, "select count(*) from information_schema.columns"
                                              " where table_name = 'verrou'"),
                     3);
    test_close(&store);
}

/* What cannot hold locks is refused with the reason. */
static void wrong_shapes_are_refused(void **unused)
{
    static const char *const bad[][2] = {
        {"create view verrou as select 'x'::text as key, 'x'::text as owner, 1::bigint as expiration", "it is a view"},
        {"create table verrou (key text primary key, owner text not null)", "expiration"},
        {"create table verrou (key int primary key, owner text not null, expiration bigint)", "\"key\""},
        {"create table verrou (key char(9) primary key, owner text not null, expiration bigint)", "\"key\""},
        {"create table verrou (key text primary key, owner text not null, expiration timestamp)", "\"expiration\""},
        {"create table verrou (key text, owner text not null, expiration bigint)", "primary key"},
        {"create table verrou (key text, owner text, expiration bigint, primary key (key, owner))", "primary key"},
        {"create table verrou (key text unique deferrable, owner text, expiration bigint)", "primary key"},
        {"create table verrou (key text primary key, owner text, expiration bigint, more int not null)",
         "its column \"more\" has no default and may not be NULL"},
        {"create table verrou (id int not null, name text)", "it lacks the column \"key\""},
        {"create table verrou (key text primary key, owner text unique, expiration bigint)",
         "\"verrou_owner_key\" must"},
        {"create table verrou (key text primary key, owner text, expiration bigint); create unique index odd on verrou"
         " (lower(key))",
         "\"odd\" must not be unique"},
        {"create table verrou (key text primary key, owner text, expiration bigint, exclude (owner with =))",
         "\"verrou_owner_excl\" must not be unique"},
    };

    (void)unused;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        test_store store;

        postgres_text(server, "%s", bad[i][0]);
        store = test_table(NULL);
        assert_int_equal(test_acquire(&store, "k", "o"), VERROU_OP_FAILED);
        if (!strstr(test_last.text, bad[i][1]))
            fail_msg("%s: %s", bad[i][0], test_last.text);
        test_close(&store);
        postgres_text(server, "drop %s verrou", i ? "table" : "view");
    }
}

/* An index that is unique because the key is does no harm. */
static void other_unique_indexes(void **unused)
{
    test_store store;

    (void)unused;
    postgres_text(server, "create table verrou (key text primary key, owner text not null, expiration bigint,"
                          " fence bigint not null default 0, unique (owner, key));"
                          " create unique index on verrou (key) where expiration > 0;"
                          " create index on verrou (owner)");
    store = test_table(NULL);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(test_acquire(&store, i ? "a" : "b", "o"), VERROU_OP_APPLIED);
        assert_int_equal(test_release(&store, i ? "a" : "b", "o"), VERROU_OP_APPLIED);
    }
    test_close(&store);
}

/* A collation that takes keys for equal: they exclude each other, only the very key releases, and an event says so. */
static void keys_that_are_taken_for_equal(void **unused)
{
    test_store store;
    verrou_error err = VERROU_ERROR_INIT;
    void *watch = NULL;

    (void)unused;
    postgres_text(server, "create collation if not exists fold (provider = icu, locale = 'und-u-ks-level2',"
                          " deterministic = false)");
    postgres_text(server, "create table verrou (key varchar(255) collate fold primary key, owner text not null,"
                          " expiration bigint, fence bigint not null default 0)");
    store = test_table(NULL);
    assert_int_equal(test_acquire(&store, "Key", "o"), VERROU_OP_APPLIED);
    assert_int_equal(test_events("store.collation"), 1);
    assert_int_equal(test_acquire(&store, "KEY", "p"), VERROU_OP_REFUSED);
    assert_string_equal(test_last.holder, "o");
    assert_int_equal(test_release(&store, "key", "o"), VERROU_OP_REFUSED);
    assert_int_equal(test_release(&store, "Key", "o"), VERROU_OP_APPLIED);
    assert_int_equal(test_acquire(&store, "KEY", "p"), VERROU_OP_APPLIED);
    assert_int_equal(test_release(&store, "Key", "p"), VERROU_OP_REFUSED);
    assert_int_equal(test_release(&store, "KEY", "p"), VERROU_OP_APPLIED);
    assert_int_equal(store.driver->watch_open(store.state, verrou_now_ms() + TEST_LIMIT_MS, &watch, &err),
                     VERROU_ENOTSUP);
    assert_false(store.driver->caps(store.state) & VERROU_CAP_PUSH);
    test_close(&store);
}

/* ---- pruning ---- */

/* Old tombstones go, some with every 64 releases; young ones, live rows and those of others stay. */
static void old_tombstones_go(void **unused)
{
    test_store store = test_table(NULL);

    (void)unused;
    test_acquire(&store, "x", "o");
    postgres_text(server, "insert into verrou select 'old' || i, '', 0, 1 from generate_series(1, 300) i");
    postgres_text(server, "insert into verrou values ('live', 'o', null, 1), ('young', '', 0,"
                          " (extract(epoch from now()) * 1000000)::bigint), ('foreign', 'o', 1, 1)");
    for (int i = 0; i < 64 * 4; i++) {
        assert_int_equal(test_acquire(&store, "k", "o"), VERROU_OP_APPLIED);
        assert_int_equal(test_release(&store, "k", "o"), VERROU_OP_APPLIED);
    }
    assert_string_equal(postgres_text(server, "select string_agg(key, ' ' order by key) from verrou"),
                        "foreign k live x young");
    test_close(&store);
}

/* Without the right to delete everything but that goes on, quietly. */
static void no_right_to_prune(void **unused)
{
    char address[256];
    test_store store = test_table(NULL);

    (void)unused;
    test_acquire(&store, "x", "o");
    test_close(&store);
    postgres_text(server, "drop role if exists guest; create role guest login;"
                          " grant select, insert, update on verrou to guest");
    snprintf(address, sizeof address, "postgres://guest@127.0.0.1:%d/postgres", server->port);
    store = test_open(verrou_postgres_driver(), address);
    for (int i = 0; i < 65; i++) {
        assert_int_equal(test_acquire(&store, "k", "o"), VERROU_OP_APPLIED);
        assert_int_equal(test_release(&store, "k", "o"), VERROU_OP_APPLIED);
    }
    test_close(&store);
    postgres_text(server, "drop owned by guest; drop role guest");
}

/* ---- the watch ---- */

/* How many have come to a plain client that listens. */
static int notifications(PGconn *conn)
{
    PGnotify *got;
    int count = 0;

    /* A statement's answer comes after what was notified before it. */
    PQclear(PQexec(conn, "select 1"));
    while ((got = PQnotifies(conn))) {
        count++;
        PQfreemem(got);
    }
    return count;
}

/* Nobody waits: nothing is notified. Somebody does: he is told which key, that it was another process, and the releaser that he waits. */
static void releases_are_told_to_those_who_wait(void **unused)
{
    test_store store = test_table(NULL);
    test_store other = test_table(NULL);
    PGconn *ear = postgres_connect(server);
    char text[2048];
    const char *channel;
    test_watch watch;

    (void)unused;
    test_acquire(&store, "k", "o");
    snprintf(text, sizeof text, "%s", test_check(&store));
    channel = strstr(text, "LISTEN ");
    assert_non_null(channel);
    snprintf(text, sizeof text, "%.*s", (int)strcspn(channel, "\n"), channel);
    PQclear(PQexec(ear, text));
    test_release(&store, "k", "o");
    assert_int_equal(test_last.others, 0);
    assert_int_equal(notifications(ear), 0);

    watch = test_watch_open(&other);
    assert_int_equal(test_watch_add(&watch, "k"), VERROU_OK);
    test_watch_wait(&watch);
    assert_int_equal(watch.active, 1);
    assert_string_equal(watch.key, "k");
    test_acquire(&store, "k", "o");
    test_release(&store, "k", "o");
    assert_int_equal(test_last.others, 1);
    assert_int_equal(notifications(ear), 1);
    test_watch_wait(&watch);
    assert_int_equal(watch.released, 1);
    assert_string_equal(watch.key, "k");

    assert_int_equal(test_watch_remove(&watch, "k"), VERROU_OK);
    while (postgres_integer(server, "select count(*) from pg_locks where locktype = 'advisory'") > 1)
        test_watch_read(&watch);
    test_acquire(&store, "k", "o");
    test_release(&store, "k", "o");
    assert_int_equal(test_last.others, 0);
    assert_int_equal(notifications(ear), 0);
    PQfinish(ear);
    test_watch_close(&watch);
    test_close(&other);
    test_close(&store);
}

/* What is taken again in the batch that released it is not told to those who would not find it free; that somebody waits is. */
static void what_is_taken_again_is_not_told(void **unused)
{
    test_store store = test_table(NULL);
    test_store other = test_table(NULL);
    verrou_op ops[] = {test_op(VERROU_OP_RELEASE, "k", "o", 0), test_op(VERROU_OP_ACQUIRE, "k", "p", 30000),
                       test_op(VERROU_OP_RELEASE, "l", "o", 0), test_op(VERROU_OP_ACQUIRE, "m", "o", 30000)};
    test_watch watch;

    (void)unused;
    test_acquire(&store, "k", "o");
    test_acquire(&store, "l", "o");
    watch = test_watch_open(&other);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(test_watch_add(&watch, i ? "l" : "k"), VERROU_OK);
        test_watch_wait(&watch);
    }
    assert_int_equal(test_execute(&store, ops, 4, TEST_LIMIT_MS, NULL), VERROU_OK);
    assert_int_equal(ops[0].others, 1);
    assert_int_equal(ops[1].result, VERROU_OP_APPLIED);
    test_watch_wait(&watch);
    assert_string_equal(watch.key, "l");
    assert_int_equal(watch.released, 1);
    test_release(&store, "k", "p");
    test_watch_wait(&watch);
    assert_string_equal(watch.key, "k");
    assert_int_equal(watch.released, 1);
    for (int i = 0; i < 4; i++)
        test_op_done(&ops[i]);
    test_watch_close(&watch);
    test_close(&other);
    test_close(&store);
}

/* A process that waits itself does not count, and is not told of its own releases; with another one, that one counts. */
static void own_waiters_are_no_others(void **unused)
{
    test_store store = test_table(NULL);
    test_store other = test_table(NULL);
    test_watch own, others;

    (void)unused;
    test_acquire(&store, "k", "o");
    own = test_watch_open(&store);
    test_watch_add(&own, "k");
    test_watch_wait(&own);
    test_release(&store, "k", "o");
    assert_int_equal(test_last.others, 0);
    others = test_watch_open(&other);
    test_watch_add(&others, "k");
    test_watch_wait(&others);
    test_acquire(&store, "k", "o");
    test_force(&store, "k");
    assert_int_equal(test_last.others, 1);
    test_watch_wait(&others);
    assert_int_equal(others.released, 1);
    /* Told, since both listen to one channel, but it says nothing. */
    assert_true(test_watch_readable(&own, TEST_LIMIT_MS));
    test_watch_read(&own);
    assert_int_equal(own.released + own.free + own.active, 0);
    test_watch_close(&own);
    test_watch_close(&others);
    test_close(&other);
    test_close(&store);
}

/* So many who listen that not all have a place of their own: those without one are others too, and count others, if in doubt themselves. */
static void more_listeners_than_places(void **unused)
{
    enum { LISTENERS = 18 };
    test_store stores[LISTENERS];
    test_watch watches[LISTENERS];

    (void)unused;
    for (int i = 0; i < LISTENERS; i++) {
        stores[i] = test_table(NULL);
        if (i == 0)
            test_acquire(&stores[0], "k", "o");
        watches[i] = test_watch_open(&stores[i]);
        test_watch_add(&watches[i], "k");
        test_watch_wait(&watches[i]);
    }
    test_release(&stores[0], "k", "o");
    assert_int_equal(test_last.others, 16); /* 15 with places, and the others in one */
    test_acquire(&stores[17], "k", "o");
    test_release(&stores[17], "k", "o");
    assert_int_equal(test_last.others, 1);
    for (int i = 1; i < LISTENERS; i++)
        test_watch_close(&watches[i]);
    while (postgres_integer(server, "select count(*) from pg_locks where locktype = 'advisory'") > 3)
        process_pause();
    test_acquire(&stores[0], "k", "o");
    test_release(&stores[0], "k", "o");
    assert_int_equal(test_last.others, 0);
    test_watch_close(&watches[0]);
    for (int i = 0; i < LISTENERS; i++)
        test_close(&stores[i]);
}

/*
 * A release that is not committed yet when somebody begins to wait has looked for waiters too early. Asking for a key that has just come to be watched
 * waits for it, where asking otherwise would be told of the old holder, and sleep.
 */
static void a_release_under_way_is_waited_for(void **unused)
{
    test_store store = test_table(NULL);
    PGconn *releaser = postgres_connect(server);
    test_watch watch;

    (void)unused;
    test_acquire(&store, "k", "o");
    PQclear(PQexec(releaser, "begin; update verrou set owner = '', expiration = 0 where key = 'k'"));
    assert_int_equal(test_acquire(&store, "k", "b"), VERROU_OP_REFUSED);
    watch = test_watch_open(&store);
    test_watch_add(&watch, "k");
    test_watch_wait(&watch);
    assert_int_equal(watch.active, 1);
    assert_int_equal(test_acquire(&store, "k", "b"), VERROU_OP_RETRY);
    assert_string_equal(test_last.code, "55P03");
    assert_int_equal(test_acquire(&store, "k", "b"), VERROU_OP_RETRY); /* as long as it has not been answered */
    PQclear(PQexec(releaser, "commit"));
    assert_int_equal(test_acquire(&store, "k", "b"), VERROU_OP_APPLIED);
    PQclear(PQexec(releaser, "begin; update verrou set owner = '', expiration = 0 where key = 'k'"));
    assert_int_equal(test_acquire(&store, "k", "c"), VERROU_OP_REFUSED); /* the next release sees who waits */
    PQclear(PQexec(releaser, "rollback; begin; update verrou set expiration = 1 where key = 'k'; commit;"
                             " begin; select from verrou where key = 'k' for update"));
    assert_int_equal(test_acquire(&store, "k", "c"),
                     VERROU_OP_RETRY); /* who waits leaves the row to somebody who is at it */
    assert_string_equal(test_last.code, "");
    foreign_end(releaser);
    test_watch_close(&watch);
    test_close(&store);
}

/* Many keys at once: more than fit into the buffers of a connection. Each becomes active. */
static void many_keys_are_watched(void **unused)
{
    test_store store = test_table(NULL);
    test_watch watch;
    char key[VERROU_MAX_KEY + 1];
    int active = 0;

    (void)unused;
    test_acquire(&store, "k", "o");
    watch = test_watch_open(&store);
    for (int i = 0; i < 20000; i++) {
        snprintf(key, sizeof key, "%0200d", i);
        assert_int_equal(test_watch_add(&watch, key), VERROU_OK);
    }
    while (active < 20000) {
        test_watch_wait(&watch);
        active += watch.active;
    }
    assert_int_equal(postgres_integer(server, "select count(*) from pg_locks where locktype = 'advisory'"),
                     64 + 64 + 1);
    test_watch_close(&watch);
    test_close(&store);
}

/* A watch whose session has ended says so. */
static void a_watch_ends_with_its_session(void **unused)
{
    test_store store = test_table(NULL);
    test_watch watch;

    (void)unused;
    test_acquire(&store, "k", "o");
    watch = test_watch_open(&store);
    test_watch_add(&watch, "k");
    test_watch_wait(&watch);
    postgres_text(server, "select pg_terminate_backend(pid) from pg_stat_activity where query like '%%verrou_show%%'"
                          " and pid <> pg_backend_pid()");
    assert_true(test_watch_readable(&watch, TEST_LIMIT_MS));
    while (test_watch_read(&watch) == VERROU_OK)
        assert_true(test_watch_readable(&watch, TEST_LIMIT_MS));
    test_watch_close(&watch);
    test_close(&store);
}

/* Without the right to advisory locks nothing is looked for and nothing is told; the locks work. */
static void no_right_to_advisory_locks(void **unused)
{
    char address[256];
    test_store store = test_table(NULL);
    verrou_error err = VERROU_ERROR_INIT;
    void *watch = NULL;

    (void)unused;
    test_acquire(&store, "x", "o");
    test_close(&store);
    postgres_text(server, "drop role if exists guest; create role guest login; grant all on verrou to guest;"
                          " revoke execute on function pg_try_advisory_lock(int, int) from public");
    snprintf(address, sizeof address, "postgres://guest@127.0.0.1:%d/postgres", server->port);
    store = test_open(verrou_postgres_driver(), address);
    assert_int_equal(test_acquire(&store, "k", "o"), VERROU_OP_APPLIED);
    assert_int_equal(test_release(&store, "k", "o"), VERROU_OP_APPLIED);
    assert_int_equal(test_last.others, -1);
    assert_int_equal(store.driver->watch_open(store.state, verrou_now_ms() + TEST_LIMIT_MS, &watch, &err),
                     VERROU_ENOTSUP);
    assert_int_equal(test_events("store.subscribe_refused"), 1);
    test_close(&store);
    postgres_text(server, "grant execute on function pg_try_advisory_lock(int, int) to public;"
                          " drop owned by guest; drop role guest");
}

/* ---- no memory ---- */

/* A store, a batch and a watch; whether all of it worked. */
static bool run_starved(void)
{
    verrou_op ops[MANY];
    verrou_error err = VERROU_ERROR_INIT;
    char keys[MANY][16];
    test_store store;
    void *watch = NULL;
    bool good;

    if (test_create(&store, verrou_postgres_driver(), test_address(server->port, NULL), &err) != VERROU_OK ||
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
        assert_true(ops[i].result != VERROU_OP_APPLIED || i < 20); /* nothing is granted twice */
        assert_int_not_equal(ops[i].result, VERROU_OP_UNKNOWN);
        test_op_done(&ops[i]);
    }
    if (store.driver->watch_open(store.state, verrou_now_ms() + TEST_LIMIT_MS, &watch, &err) == VERROU_OK) {
        good = good && store.driver->watch_add(store.state, watch, "k", 1, &err) == VERROU_OK;
        store.driver->watch_close(store.state, watch);
    } else {
        good = false;
    }
    test_close(&store);
    return good;
}

/* With any one allocation failing nothing leaks, and no answer is wrong. */
static void any_allocation_may_fail(void **state)
{
    bool worked = false;

    for (long n = 0; !worked; n++) {
        long before = failing_alloc.live;

        test_begin(state);
        failing_alloc.failed = false;
        failing_alloc.until = n;
        worked = run_starved() && !failing_alloc.failed;
        failing_alloc.until = -1;
        assert_int_equal(failing_alloc.live, before);
    }
}

/* ---- behind a pooler ---- */

/* A pooler is found out: nothing that lasts is set in its sessions, nothing is prepared, and there is no watch. */
static void a_pooler_is_recognised(void **unused)
{
    pgbouncer *front = pgbouncer_start(server, 1);
    test_store store = test_open(verrou_postgres_driver(), test_address(front->port, NULL));
    PGconn *other = pgbouncer_connect(front);
    verrou_op ops[] = {test_op(VERROU_OP_ACQUIRE, "a", "o", 30000), test_op(VERROU_OP_ACQUIRE, "b", "o", 30000)};
    verrou_error err = VERROU_ERROR_INIT;
    void *watch = NULL;
    PGresult *result;

    (void)unused;
    assert_int_equal(test_acquire(&store, "k", "o"), VERROU_OP_APPLIED);
    assert_int_equal(test_acquire(&store, "k", "p"), VERROU_OP_REFUSED);
    assert_int_equal(test_execute(&store, ops, 2, TEST_LIMIT_MS, &err), VERROU_OK);
    assert_int_equal(ops[0].result, VERROU_OP_APPLIED);
    assert_int_equal(ops[1].result, VERROU_OP_APPLIED);
    assert_false(store.driver->caps(store.state) & VERROU_CAP_PUSH);
    assert_int_equal(store.driver->watch_open(store.state, verrou_now_ms() + TEST_LIMIT_MS, &watch, &err),
                     VERROU_ENOTSUP);
    /* The same session of the server, since there is only one. */
    result = PQexec(other, "select current_setting('lock_timeout') || current_setting('enable_seqscan')"
                           " || (select count(*) from pg_prepared_statements)");
    assert_string_equal(PQgetvalue(result, 0, 0), "0on0");
    PQclear(result);
    PQfinish(other);
    test_close(&store);
    pgbouncer_free(front);
}

/* Behind a pooler too a row that is locked holds up nobody, and waiters elsewhere are told. */
static void behind_a_pooler(void **unused)
{
    pgbouncer *front = pgbouncer_start(server, 2);
    test_store store = test_open(verrou_postgres_driver(), test_address(front->port, "pooler=transaction"));
    test_store direct = test_table(NULL);
    PGconn *foreign = postgres_connect(server);
    test_watch watch;

    (void)unused;
    test_acquire(&store, "k", "o");
    PQclear(PQexec(foreign, "begin; select from verrou where key = 'k' for update"));
    test_force(&store, "k");
    assert_string_equal(test_last.code, "55P03");
    PQclear(PQexec(foreign, "commit"));
    test_force(&store, "k");
    PQclear(PQexec(foreign, "begin; select from verrou where key = 'k' for update"));
    middle_fails(&store, "k", VERROU_OP_RETRY, "55P03");
    foreign_end(foreign);
    watch = test_watch_open(&direct);
    test_watch_add(&watch, "a");
    test_watch_wait(&watch);
    assert_int_equal(test_release(&store, "a", "o"), VERROU_OP_APPLIED);
    assert_int_equal(test_last.others, 1);
    test_watch_wait(&watch);
    assert_int_equal(watch.released, 1);
    test_watch_close(&watch);
    test_close(&direct);
    test_close(&store);
    pgbouncer_free(front);
}

/*
 * What another user of the pooler has left in a session does not lead elsewhere: neither his search path nor his temporary table. And since nobody
 * behind a pooler listens, a release does not say that nobody waits.
 */
static void left_behind_in_a_pooled_session(void **unused)
{
    pgbouncer *front = pgbouncer_start(server, 1);
    PGconn *other = pgbouncer_connect(front);
    test_store store;

    (void)unused;
    PQclear(PQexec(other, "create schema elsewhere; set search_path to elsewhere"));
    store = test_open(verrou_postgres_driver(), test_address(front->port, NULL));
    assert_int_equal(test_acquire(&store, "k", "o"), VERROU_OP_APPLIED);
    assert_string_equal(postgres_text(server, "select schemaname from pg_tables where tablename = 'verrou'"), "public");
    assert_int_equal(test_release(&store, "k", "o"), VERROU_OP_APPLIED);
    assert_int_equal(test_last.others, -1);
    PQfinish(other);
    test_close(&store);
    pgbouncer_free(front);
    postgres_text(server, "drop schema elsewhere cascade");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_addresses_are_refused),
        cmocka_unit_test(passwords_are_not_shown),
        quiet_test(ways_to_say_where),
        loud_test(odd_names_of_databases),
        quiet_test(leases_are_rows),
        quiet_test(holders_are_told),
        quiet_test(owners_and_tokens_are_compared),
        quiet_test(tokens_only_grow),
        quiet_test(refusals_touch_nothing),
        quiet_test(a_request_is_one_statement),
        cmocka_unit_test(commits_that_are_waited_for),
        quiet_test(a_batch_is_one_transaction),
        quiet_test(a_batch_goes_through_its_keys_in_order),
        loud_test(a_locked_row_holds_up_nobody),
        loud_test(a_trigger_that_raises),
        loud_test(a_trigger_that_raises_at_commit),
        loud_test(a_key_that_does_not_fit),
        quiet_test(a_row_that_is_never_stored),
        quiet_test(isolation_is_ours),
        quiet_test(the_table_is_made_by_several),
        quiet_test(autocreate_off),
        loud_test(no_right_to_make_the_table),
        loud_test(no_schema_for_the_table),
        quiet_test(unlogged_tables_are_told),
        loud_test(the_table_changes_in_use),
        loud_test(the_table_is_dropped_before_a_batch),
        quiet_test(a_table_of_the_original),
        quiet_test(wrong_shapes_are_refused),
        quiet_test(other_unique_indexes),
        quiet_test(keys_that_are_taken_for_equal),
        quiet_test(old_tombstones_go),
        quiet_test(no_right_to_prune),
        quiet_test(releases_are_told_to_those_who_wait),
        quiet_test(what_is_taken_again_is_not_told),
        quiet_test(own_waiters_are_no_others),
        loud_test(more_listeners_than_places), /* the last notification may find some of them gone */
        loud_test(a_release_under_way_is_waited_for),
        quiet_test(many_keys_are_watched),
        loud_test(a_watch_ends_with_its_session),
        quiet_test(no_right_to_advisory_locks),
        loud_test(any_allocation_may_fail),
        quiet_test(a_pooler_is_recognised),
        loud_test(behind_a_pooler),
        quiet_test(left_behind_in_a_pooled_session),
    };

    return cmocka_run_group_tests_name("postgres_driver", tests, start, NULL);
}
