/*
 * mysql_test.c - the MySQL store beside the original over knex, on MariaDB: the suites, and what is peculiar to its collations.
 *
 *     test_interop_mysql [theirs]      on a table of ours, or on one of theirs
 */
#include "mariadb_servers.h"
#include "sql_suite.h"

#include <stdio.h>
#include <string.h>

#define MINUTE_MS 60000

static mariadb_server *server;
static char address[128];
static bool of_theirs;

static int start(void **state)
{
    (void)state;
    server = mariadb_server_start(NULL);
    snprintf(address, sizeof(address), "mysql://%s@127.0.0.1:%d/%s", MARIADB_USER, server->port, MARIADB_DATABASE);
    return 0;
}

static const char *server_address(void)
{
    return address;
}

/* Our refused acquire asks who has the lock, in our spelling; theirs does not. */
static long long refusals(void)
{
    return mariadb_logged(server, "SELECT `owner`,`expiration`,");
}

static const char *text(const char *sql)
{
    return mariadb_text(server, "%s", sql);
}

/* In a table of ours the letter case of a key matters. In one of theirs keys that differ in it exclude each other, on both sides. */
static void letter_case_is_that_of_the_table(void **state)
{
    verrou_status expected = of_theirs ? VERROU_ENOTACQUIRED : VERROU_OK;

    (void)state;
    they_take("a", "letter", MINUTE_MS);
    they_create("b", "LETTER", MINUTE_MS);
    assert_int_equal(peer_true(them, "acquireImmediately", "b"), !of_theirs);
    assert_status(expected, verrou_lock_acquire_immediately(our_lock("Letter"), NULL, NULL));
}

/* They recognise the owner of a row of ours, letter case included, and do not take another spelling for it. */
static void owners_are_compared_exactly(void **state)
{
    verrou_lock *ours = our_lock_for("owners", MINUTE_MS);
    char *owner = NULL;

    (void)state;
    assert_ok(verrou_lock_acquire_immediately(ours, NULL, NULL));
    assert_ok(verrou_lock_owner(ours, &owner, NULL));
    assert_string_equal(interop_sql("SELECT count(*) FROM verrou WHERE `key` = 'owners' AND owner = '%s'", owner), "1");
    restored_by_them("a", ours);
    peer_do(them, "release", "a");
    assert_status(VERROU_ENOTOWNED, verrou_lock_release(ours, NULL, NULL));
    verrou_free(owner);
}

int main(int argc, char **argv)
{
    static const struct CMUnitTest own[] = {
        INTEROP_TEST(letter_case_is_that_of_the_table),
        INTEROP_TEST(owners_are_compared_exactly),
    };

    of_theirs = argc > 1 && strcmp(argv[1], "theirs") == 0;
    {
        const interop_store store = {
            .name = "mysql",
            .their_address = server_address,
            .our_address = server_address,
            .refusals = refusals,
            .folds_case = of_theirs,
        };
        const interop_database database = {
            .key = "`key`",
            .now_ms = "(unix_timestamp(now(3)) * 1000)",
            .text = text,
            .of_theirs = of_theirs,
        };

        return interop_run_sql(&store, &database, own, sizeof(own) / sizeof(own[0]), start);
    }
}
