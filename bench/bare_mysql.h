/*
 * bare_mysql.h - the reference for MySQL and MariaDB: libmariadb alone, with the store's own statements, prepared, one after the other.
 */
#ifndef VERROU_BENCH_BARE_MYSQL_H
#define VERROU_BENCH_BARE_MYSQL_H

#include <mysql.h>

#include "subject.h"

#define BARE_MYSQL_SCRIPTS 2

/* The text of the store's statements for its own table, as they stand in the server's log: acquire and release. */
extern const char *bare_mysql_statements[BARE_MYSQL_SCRIPTS];

struct bare_mysql {
    MYSQL *connection;
    MYSQL_STMT *statements[BARE_MYSQL_SCRIPTS];
};

/* To a server on the loopback interface; the store's table is in the database. */
void bare_mysql_open(struct bare_mysql *bare, int port, const char *user, const char *database);
void bare_mysql_close(struct bare_mysql *bare);
/* Run a statement that answers with one integer. */
long long bare_mysql_integer(const struct bare_mysql *bare, const char *sql);
/* Acquire and release a key, a call each. */
void bare_mysql_pair(const struct bare_mysql *bare, const char *key);

#endif
