/*
 * odbc_test.c - the conformance suite over ODBC, once for each driver. Which one is the program's argument, so that ctest runs them side by
 * side. Servers are private ones, started here; drivers are named by their files, so that the system's list of drivers does not matter.
 *
 * The SQLite driver shares the SQLite library with nobody in this program: two copies of it would drop each other's file locks.
 */
#include "odbc_drivers.h"

#include <mariadb_servers.h>
#include <postgres_servers.h>

#include "ways.h"

/* ---- the ways ---- */

static void sqlite(void)
{
    snprintf(url, sizeof url, "odbc:Driver=%s;Database=%s/locks.db", ODBC_SQLITE_DRIVER, process_folder());
}

/* With a table in a schema, a prefix, and the driver's name instead of its file. */
static void postgres(void)
{
    const postgres_server *server = postgres_server_start(&(postgres_options){.password = "p;w=d}x"});

    postgres_text(server, "CREATE SCHEMA app AUTHORIZATION " POSTGRES_PASSWORD_USER);
    odbc_name_driver("Locks", ODBC_POSTGRES_DRIVER);
    snprintf(url, sizeof url,
             "odbc:Driver={Locks};Server=127.0.0.1;Port=%d;Database=%s;Uid=%s;Pwd={p;w=d}}x}?table=app.locks&prefix=%%"
             "C3%%A9:",
             server->port, POSTGRES_DATABASE, POSTGRES_PASSWORD_USER);
}

static void mariadb(void)
{
    const mariadb_server *server = mariadb_server_start(NULL);

    snprintf(url, sizeof url, "odbc:Driver=%s;Server=127.0.0.1;Port=%d;Database=%s;Uid=%s", ODBC_MARIADB_DRIVER,
             server->port, MARIADB_DATABASE, MARIADB_USER);
}

/* A table of the original: no column for tokens. */
static void sqlite_original(void)
{
    sqlite();
    odbc_text(url + strlen("odbc:"),
              "CREATE TABLE original (`key` varchar(255) not null, `owner` varchar(255) not null,"
              " `expiration` bigint null, primary key (`key`))");
    strcat(url, "?table=original");
}

static const way ways[] = {
    {"sqlite", sqlite},
    {"sqlite_original", sqlite_original},
    {"postgres", postgres},
    {"mariadb", mariadb},
};

int main(int argc, char **argv)
{
    return ways_main("odbc", ways, sizeof ways / sizeof ways[0], argc, argv);
}
