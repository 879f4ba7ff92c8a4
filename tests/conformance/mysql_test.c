/*
 * mysql_test.c - the conformance suite on MariaDB: see ways.h.
 */
#include <mariadb_servers.h>

#include "ways.h"

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

static const way ways[] = {
    {"plain", plain},      {"odd_prefix", odd_prefix}, {"tls", tls},
    {"unix", unix_socket}, {"original", original},     {"myisam", myisam},
};

int main(int argc, char **argv)
{
    return ways_main("mysql", ways, sizeof ways / sizeof ways[0], argc, argv);
}
