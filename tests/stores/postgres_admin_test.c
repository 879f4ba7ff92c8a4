/*
 * postgres_admin_test.c - list, doctor and schema on PostgreSQL, and the trigger that schema makes.
 */
#include "postgres_testing.h"

static int start(void **state)
{
    (void)state;
    server = postgres_server_start(NULL);
    return 0;
}

/* ---- list ---- */

/* Live locks under a prefix, whatever its characters mean elsewhere; no tombstones, nothing that has run out. */
static void live_locks_are_listed(void **unused)
{
    test_store store = test_table(NULL);

    (void)unused;
    test_acquire(&store, "a%b", "o");
    test_acquire(&store, "a_b", "o");
    test_acquire(&store, "aXb", "o");
    test_acquire(&store, "a\\b'\"", "o");
    test_run(&store, VERROU_OP_ACQUIRE, "a%bc", "p", VERROU_FOREVER);
    test_acquire(&store, "a%gone", "o");
    test_release(&store, "a%gone", "o");
    test_acquire(&store, "a%over", "o");
    postgres_text(server, "update verrou set expiration = 1 where key = 'a%%over'");
    assert_string_equal(test_list(&store, "a%"), "a%b o live\na%bc p forever\n");
    assert_true(test_listed_fence("a%b") > 0);
    assert_string_equal(test_list(&store, "a_"), "a_b o live\n");
    assert_string_equal(test_list(&store, "a\\"), "a\\b'\" o live\n");
    assert_string_equal(test_list(&store, "b"), "");
    assert_string_equal(test_list(&store, "A"), "");
    assert_non_null(strstr(test_list(&store, ""), "aXb o live\n"));
    test_close(&store);
}

/* A long list comes whole, and the lane goes on. */
static void long_lists(void **unused)
{
    test_store store = test_table(NULL);
    const char *text;
    int lines = 0;

    (void)unused;
    test_acquire(&store, "k", "o");
    postgres_text(server, "insert into verrou select 'n' || i, 'o', null, i from generate_series(1, 20000) i");
    for (text = test_list(&store, "n"); *text; text = strchr(text, '\n') + 1)
        lines++;
    assert_int_equal(lines, 20000);
    if (test_release(&store, "k", "o") != VERROU_OP_APPLIED)
        fail_msg("%s", test_last.text);
    test_close(&store);
}

/* ---- schema ---- */

/* What is printed, run by hand, makes a table in which nothing is missing; it can be run again. */
static void the_printed_schema_is_complete(void **unused)
{
    test_store store = test_table("autocreate=false&notify-trigger=true");
    char sql[4096];

    (void)unused;
    snprintf(sql, sizeof sql, "%s", test_schema(&store));
    assert_non_null(strstr(sql, "schema version 1"));
    postgres_text(server, "%s", sql);
    snprintf(sql, sizeof sql, "%s", test_schema(&store));
    assert_non_null(strstr(sql, "CREATE TRIGGER"));
    for (int i = 0; i < 2; i++)
        postgres_text(server, "%s", sql);
    assert_int_equal(test_acquire(&store, "k", "o"), VERROU_OP_APPLIED);
    assert_true(store.driver->caps(store.state) & VERROU_CAP_FENCE_STORED);
    assert_non_null(strstr(test_check(&store), "trigger: releases by the original wake waiters"));
    test_close(&store);
}

/* Applying makes the table, also with autocreate off, and adds to a table of the original what it lacks, once. */
static void applying_adds_what_is_missing(void **unused)
{
    test_store store = test_table("autocreate=false");

    (void)unused;
    for (int i = 0; i < 2; i++)
        test_schema_apply(&store);
    assert_int_equal(test_acquire(&store, "k", "o"), VERROU_OP_APPLIED);
    postgres_text(server, "drop table verrou; create table verrou (key varchar(255) primary key not null,"
                          " owner varchar(255) not null, expiration bigint null);"
                          " insert into verrou values ('theirs', 'x', null)");
    assert_non_null(strstr(test_schema(&store), "ADD COLUMN IF NOT EXISTS fence"));
    for (int i = 0; i < 2; i++)
        test_schema_apply(&store);
    assert_int_equal(test_acquire(&store, "k", "o"), VERROU_OP_APPLIED);
    assert_true(store.driver->caps(store.state) & VERROU_CAP_FENCE_STORED);
    assert_int_equal(test_acquire(&store, "theirs", "o"), VERROU_OP_REFUSED);
    assert_int_equal(postgres_integer(server, "select count(*) from pg_trigger where tgrelid = 'verrou'::regclass"), 0);
    test_close(&store);
}

/* Who reads the table for long keeps the column from being added, but the readers that come meanwhile are not kept waiting behind us. */
static void applying_waits_for_nobody(void **unused)
{
    test_store store = test_table(NULL);
    PGconn *reader = postgres_connect(server);
    verrou_error err = VERROU_ERROR_INIT;
    const char *text;

    (void)unused;
    postgres_text(server, "create table verrou (key text primary key, owner text not null, expiration bigint null)");
    PQclear(PQexec(reader, "begin; select * from verrou"));
    assert_int_not_equal(test_find(&store, TEST_SCHEMA_APPLY, NULL, 500, &text, &err), VERROU_OK);
    assert_true(err.retriable);
    assert_string_equal(err.store_code, "55P03");
    assert_non_null(strstr(err.message, "somebody else is using table \"verrou\""));
    assert_int_equal(postgres_integer(server, "select count(*) from verrou"), 0);
    PQclear(PQexec(reader, "commit"));
    PQfinish(reader);
    test_schema_apply(&store);
    assert_int_equal(postgres_integer(server, "select count(*) from information_schema.columns"
                                              " where table_name = 'verrou' and column_name = 'fence'"),
                     1);
    test_close(&store);
}

/* The original frees a lock by deleting its row: with the trigger that wakes who waits, and nobody is told when nobody waits. */
static void releases_of_the_original_are_told(void **unused)
{
    test_store store = test_table("notify-trigger=true");
    test_watch watch;

    (void)unused;
    test_schema_apply(&store);
    postgres_text(server, "insert into verrou values ('k', 'original', null)");
    watch = test_watch_open(&store);
    postgres_text(server, "delete from verrou where key = 'k'");
    assert_false(test_watch_readable(&watch, 0));
    postgres_text(server, "insert into verrou values ('k', 'original', null)");
    test_watch_add(&watch, "k");
    test_watch_wait(&watch);
    assert_int_equal(watch.active, 1);
    postgres_text(server, "delete from verrou where key = 'k'");
    test_watch_wait(&watch);
    assert_int_equal(watch.released, 1);
    assert_string_equal(watch.key, "k");
    test_watch_close(&watch);
    test_close(&store);
}

/* ---- doctor ---- */

static void finds(const char *found, const char *text)
{
    if (!strstr(found, text))
        fail_msg("\"%s\" is not in:\n%s", text, found);
}

static void finds_in(const char *settings, const char *text)
{
    test_store store = test_table(settings);

    finds(test_check(&store), text);
    test_close(&store);
}

static void finds_not(const char *settings, const char *text)
{
    test_store store = test_table(settings);

    assert_null(strstr(test_check(&store), text));
    test_close(&store);
}

/* What is as it should be is told as such; the levels are 3 for information, 2 for a warning, 1 for an error. */
static void a_good_server(void **unused)
{
    test_store store = test_table(NULL);
    const char *found;

    (void)unused;
    finds(test_check(&store), "does not exist yet");
    test_acquire(&store, "k", "o");
    test_release(&store, "k", "o");
    found = test_check(&store);
    finds(found, "server: PostgreSQL");
    finds(found, "pooler: none");
    finds(found, "table: public.verrou\n");
    finds(found, "byte by byte");
    finds(found, "rights: SELECT, INSERT, UPDATE, DELETE");
    finds(found, "waking: LISTEN verrou_");
    finds(found, "trigger: none");
    finds(found, "rows: 1, of which 1 released");
    finds(found, "clock: that of the server");
    test_close(&store);
}

/* What makes locks weaker, or impossible, is found. */
static void what_is_wrong_is_found(void **unused)
{
    postgres_server *standby;

    (void)unused;
    finds_in(NULL, "fsync is off");
    finds_in("autocreate=false",
             "50 table: \"verrou\" does not exist, and autocreate is off: `verrou schema apply` makes it");
    finds_in("table=nosuch.locks", "50 table: \"nosuch\".\"locks\" does not exist, and neither does the schema");
    postgres_text(server, "create schema odd");
    finds_in("table=odd.locks", "30 table: \"odd\".\"locks\" does not exist yet");
    postgres_text(server, "drop schema odd");
    finds_in("options=-c%20default_transaction_read_only%3Don&target_session_attrs=any", "the session is read-only");
    postgres_text(server, "create table verrou (key text primary key, owner text not null, expiration bigint null)");
    finds_in(NULL, "has no column \"fence\"");
    postgres_text(server, "drop table verrou; create unlogged table verrou (key text primary key,"
                          " owner text not null, expiration bigint null, fence bigint not null default 0)");
    finds_in(NULL, "50 durability: the table is UNLOGGED");
    postgres_text(server, "alter table verrou set logged");
    finds_not(NULL, "UNLOGGED");
    postgres_text(server, "drop table verrou; create table verrou (key int primary key)");
    finds_in(NULL, "cannot hold locks");
    postgres_text(server, "drop table verrou; create table verrou (key text primary key, owner text not null,"
                          " expiration bigint null, fence bigint not null default 0);"
                          " insert into verrou values ('k', 'o', null, 9000000000000000)");
    finds_in(NULL, "ahead of the server's clock");
    standby = postgres_server_start(&(postgres_options){.standby_of = server});
    finds_in(NULL, "standbys follow with a delay");
    {
        test_store store = test_open(verrou_postgres_driver(), test_address(standby->port, "target_session_attrs=any"));

        finds(test_check(&store), "this is a standby");
        test_close(&store);
    }
    postgres_server_free(standby);
}

/* A server whose commits do not wait for the disk. */
static void commits_that_do_not_wait(void **unused)
{
    postgres_server *durable = postgres_server_start(&(postgres_options){.durable = true});
    test_store store = test_open(verrou_postgres_driver(), test_address(durable->port, NULL));

    (void)unused;
    finds(test_check(&store), "commits wait for the disk");
    test_close(&store);
    store = test_open(verrou_postgres_driver(), test_address(durable->port, "options=-c%20synchronous_commit%3Doff"));
    finds(test_check(&store), "synchronous_commit is off");
    test_close(&store);
    postgres_server_free(durable);
}

/* A pooler is told, and what it costs. */
static void a_pooler(void **unused)
{
    pgbouncer *front = pgbouncer_start(server, 2);
    test_store store = test_open(verrou_postgres_driver(), test_address(front->port, NULL));
    const char *found;

    (void)unused;
    test_acquire(&store, "k", "o");
    found = test_check(&store);
    finds(found, "pooler: found");
    finds(found, "behind a pooler nobody can listen");
    assert_string_equal(test_list(&store, ""), "k o live\n");
    test_schema_apply(&store);
    test_close(&store);
    pgbouncer_free(front);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        quiet_test(live_locks_are_listed),
        quiet_test(long_lists),
        quiet_test(the_printed_schema_is_complete),
        quiet_test(applying_adds_what_is_missing),
        loud_test(applying_waits_for_nobody),
        quiet_test(releases_of_the_original_are_told),
        quiet_test(a_good_server),
        loud_test(what_is_wrong_is_found),
        quiet_test(commits_that_do_not_wait),
        quiet_test(a_pooler),
    };

    return cmocka_run_group_tests_name("postgres_admin", tests, start, NULL);
}
