/*
 * servers_sql_test.c - the SQL servers that other tests rely on do what their headers say; spoken to by plain libpq and libmariadb.
 */
#include "fault_proxy.h"
#include "mariadb_servers.h"
#include "pgbouncer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

static postgres_server *pg;
static mariadb_server *maria;

static int start(void **state)
{
    (void)state;
    pg = postgres_server_start(NULL);
    maria = mariadb_server_start(NULL);
    return 0;
}

static int stop(void **state)
{
    (void)state;
    pgbouncer_free_all();
    postgres_free_all();
    mariadb_free_all();
    return 0;
}

/* A started PostgreSQL carries SQL out, and its folder is private. */
static void postgres_answers(void **state)
{
    struct stat info;

    (void)state;
    postgres_text(pg, "CREATE TABLE t(a int, b text)");
    assert_string_equal(postgres_text(pg, "INSERT INTO t VALUES (1, 'x'), (2, NULL) RETURNING a, b"), "1|x\n2|(null)");
    assert_int_equal(postgres_integer(pg, "SELECT count(*) FROM t WHERE a > %d", 1), 1);
    assert_string_equal(postgres_sqlstate(pg, "SELECT 1/0"), "22012");
    assert_string_equal(postgres_sqlstate(pg, "SELECT 1"), "");
    assert_int_equal(stat(pg->folder, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0700);
}

/* A started MariaDB carries SQL out, and its folder is private. */
static void mariadb_answers(void **state)
{
    struct stat info;

    (void)state;
    mariadb_text(maria, "CREATE TABLE t(a int, b text)");
    mariadb_text(maria, "INSERT INTO t VALUES (1, 'x'), (2, NULL)");
    assert_string_equal(mariadb_text(maria, "SELECT a, b FROM t ORDER BY a"), "1|x\n2|(null)");
    assert_int_equal(mariadb_integer(maria, "SELECT count(*) FROM t WHERE a > %d", 1), 1);
    assert_int_equal(mariadb_error_number(maria, "SELECT a FROM absent"), 1146);
    assert_int_equal(mariadb_error_number(maria, "SELECT 1"), 0);
    assert_int_equal(stat(maria->folder, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0700);
}

/* A pooler gives one session of the server to two clients in turn, each for a transaction. */
static void pooler_shares_a_session(void **state)
{
    pgbouncer *pooler = pgbouncer_start(pg, 1);
    PGconn *one = pgbouncer_connect(pooler), *two = pgbouncer_connect(pooler);
    PGresult *first = PQexec(one, "SELECT pg_backend_pid()"), *second = PQexec(two, "SELECT pg_backend_pid()");

    (void)state;
    assert_int_equal(PQresultStatus(first), PGRES_TUPLES_OK);
    assert_string_equal(PQgetvalue(first, 0, 0), PQgetvalue(second, 0, 0));
    assert_int_not_equal(PQbackendPID(one), PQbackendPID(two));
    PQclear(first);
    PQclear(second);
    PQfinish(one);
    PQfinish(two);
    pgbouncer_free(pooler);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(postgres_answers),
        cmocka_unit_test(mariadb_answers),
        cmocka_unit_test(pooler_shares_a_session),
    };

    return cmocka_run_group_tests_name("support/servers_sql", tests, start, stop);
}
