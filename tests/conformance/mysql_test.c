/*
 * mysql_test.c - the conformance suite on MariaDB, once for each way to reach it. The way is the program's argument, so that ctest runs
 * them side by side: a run is mostly waiting. Servers are private ones, started here.
 */
#include <mariadb_servers.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <verrou/conformance.h>

#include <cmocka.h>

static char url[2048];

static verrou_status open_mysql(void *user, verrou_store **ret_store, verrou_error *err)
{
    (void)user;
    return verrou_store_open(url, NULL, ret_store, err);
}

/* ---- the ways ---- */

static void plain(void)
{
    snprintf(url, sizeof url, "mysql://" MARIADB_USER "@127.0.0.1:%d/" MARIADB_DATABASE,
             mariadb_server_start(NULL)->port);
}

/* In front of every key: what means something to SQL, to printf() or to a URL, and not only ASCII. The table is another one. */
static void odd_prefix(void)
{
    snprintf(url, sizeof url,
             "mariadb://" MARIADB_USER "@127.0.0.1:%d/" MARIADB_DATABASE "?table=" MARIADB_DATABASE
             ".Locks_2&prefix=%s",
             mariadb_server_start(NULL)->port, "%27%22%60%5C%25s%5F--%23%2F%2A%3B%C3%A9%26%3D:");
}

static void tls(void)
{
    const mariadb_server *server = mariadb_server_start(
        &(mariadb_options){.tls = "server", .tls_only = true, .tls_client_certificate = true, .password = "s3cr3t"});
    const char *from = server_certificates();

    snprintf(url, sizeof url,
             "mysql://" MARIADB_PASSWORD_USER ":s3cr3t@localhost:%d/" MARIADB_DATABASE
             "?ca=%s/ca.pem&cert=%s/client.pem&key=%s/client.key",
             server->port, from, from, from);
}

static void unix_socket(void)
{
    const mariadb_server *server = mariadb_server_start(&(mariadb_options){.password = "p@ss w/rd:?'"});

    snprintf(url, sizeof url,
             "mysql://" MARIADB_PASSWORD_USER ":p%%40ss%%20w%%2Frd%%3A%%3F%%27@/" MARIADB_DATABASE "?socket=%s",
             server->socket);
}

/* A table as the original makes it, in a database whose collation tells all keys apart; for the others see mysql_driver_test.c. */
static void original(void)
{
    const mariadb_server *server = mariadb_server_start(NULL);

    mariadb_text(server,
                 "CREATE TABLE %s.verrou (`key` varchar(255) not null, `owner` varchar(255) not null,"
                 " `expiration` bigint unsigned null, primary key (`key`))"
                 " DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin",
                 MARIADB_DATABASE);
    snprintf(url, sizeof url, "mysql://" MARIADB_USER "@127.0.0.1:%d/" MARIADB_DATABASE, server->port);
}

/* Without transactions. */
static void myisam(void)
{
    const mariadb_server *server = mariadb_server_start(NULL);

    mariadb_text(server,
                 "CREATE TABLE %s.verrou (`key` varbinary(255) not null primary key,"
                 " `owner` varchar(255) character set utf8mb4 not null,"
                 " `expiration` bigint null, `fence` bigint not null default 0) ENGINE=MyISAM",
                 MARIADB_DATABASE);
    snprintf(url, sizeof url, "mysql://" MARIADB_USER "@127.0.0.1:%d/" MARIADB_DATABASE, server->port);
}

static const struct way {
    const char *name;
    void (*start)(void);
} ways[] = {
    {"plain", plain},      {"odd_prefix", odd_prefix}, {"tls", tls},
    {"unix", unix_socket}, {"original", original},     {"myisam", myisam},
};

/* ---- the suite ---- */

static const struct way *way;

/* As a test, because the support library makes a test fail if a server does not start. */
static void server_start(void **state)
{
    (void)state;
    way->start();
}

int main(int argc, char **argv)
{
    const struct CMUnitTest start[] = {cmocka_unit_test(server_start)};
    char name[64];
    verrou_conformance suite = {sizeof suite, name, open_mysql, NULL, 0};

    for (size_t i = 0; argc == 2 && i < sizeof ways / sizeof ways[0]; i++)
        if (strcmp(argv[1], ways[i].name) == 0)
            way = &ways[i];
    if (!way) {
        fprintf(stderr, "usage: conformance_mysql WAY\n");
        return 2;
    }
    snprintf(name, sizeof name, "mysql %s", way->name);
    if (cmocka_run_group_tests_name("servers", start, NULL, NULL) != 0)
        return 1;
    return verrou_conformance_run(&suite) == 0 ? 0 : 1;
}
