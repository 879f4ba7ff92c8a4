/*
 * postgres_test.c - the conformance suite on PostgreSQL: see ways.h.
 */
#include <pgbouncer.h>
#include <postgres_servers.h>

#include "ways.h"

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

static const way ways[] = {
    {"plain", plain}, {"pooler", pooler}, {"unix", unix_socket}, {"tls", tls}, {"original_table", original_table},
};

int main(int argc, char **argv)
{
    return ways_main("postgres", ways, sizeof ways / sizeof ways[0], argc, argv);
}
