/*
 * postgres_test.c - the conformance suite on PostgreSQL, once for each way to reach it. The way is the program's argument, so that ctest runs
 * them side by side: a run is mostly waiting. Servers are private ones, started here.
 */
#include <pgbouncer.h>
#include <postgres_servers.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <verrou/conformance.h>

#include <cmocka.h>

static char url[2048];

static verrou_status open_postgres(void *user, verrou_store **ret_store, verrou_error *err)
{
    (void)user;
    return verrou_store_open(url, NULL, ret_store, err);
}

/* ---- the ways ---- */

static void plain(void)
{
    snprintf(url, sizeof url, "postgres://postgres@127.0.0.1:%d/postgres", postgres_server_start(NULL)->port);
}

/* A pooler that is recognised: no prepared statements, no settings of a session, no listening. Two sessions for everybody. */
static void pooler(void)
{
    const pgbouncer *front = pgbouncer_start(postgres_server_start(NULL), 2);

    snprintf(url, sizeof url, "postgresql://postgres@127.0.0.1:%d/postgres?prefix=app:", front->port);
}

/* A Unix socket, a table in another schema, keys that mean something to SQL, to printf() and to LIKE. */
static void unix_socket(void)
{
    const postgres_server *server = postgres_server_start(NULL);

    postgres_text(server, "CREATE SCHEMA \"Odd\"");
    snprintf(url, sizeof url, "postgres:///postgres?host=%s&port=%d&user=postgres&table=Odd.Locks&prefix=%s",
             server->folder, server->port, "a%20b_%25%27%22%5C%24%241%7B%7D%C3%A9:");
}

static void tls(void)
{
    const postgres_server *server =
        postgres_server_start(&(postgres_options){.tls = "server", .tls_only = true, .password = "p@ss w/rd:?"});
    const char *from = server_certificates();

    snprintf(url, sizeof url, "postgres://verrou:p%%40ss%%20w%%2Frd%%3A%%3F@localhost:%d/postgres?ca=%s/ca.pem",
             server->port, from);
}

/* The table as the original makes it: without tokens, and with released rows deleted. */
static void original_table(void)
{
    const postgres_server *server = postgres_server_start(NULL);

    postgres_text(server, "CREATE TABLE verrou (key varchar(255) PRIMARY KEY NOT NULL, owner varchar(255) NOT NULL,"
                          " expiration bigint NULL)");
    snprintf(url, sizeof url, "postgres://postgres@127.0.0.1:%d/postgres", server->port);
}

static const struct way {
    const char *name;
    void (*start)(void);
} ways[] = {
    {"plain", plain}, {"pooler", pooler}, {"unix", unix_socket}, {"tls", tls}, {"original_table", original_table},
};

/* ---- the suite ---- */

static const struct way *way;

/* As a test, because the support library makes a test fail if a server does not start. */
static void servers_start(void **state)
{
    (void)state;
    way->start();
}

int main(int argc, char **argv)
{
    const struct CMUnitTest start[] = {cmocka_unit_test(servers_start)};
    char name[64];
    verrou_conformance suite = {sizeof suite, name, open_postgres, NULL, 0};

    for (size_t i = 0; argc == 2 && i < sizeof ways / sizeof ways[0]; i++)
        if (strcmp(argv[1], ways[i].name) == 0)
            way = &ways[i];
    if (!way) {
        fprintf(stderr, "usage: conformance_postgres WAY\n");
        return 2;
    }
    snprintf(name, sizeof name, "postgres %s", way->name);
    if (cmocka_run_group_tests_name("servers", start, NULL, NULL) != 0)
        return 1;
    return verrou_conformance_run(&suite) == 0 ? 0 : 1;
}
