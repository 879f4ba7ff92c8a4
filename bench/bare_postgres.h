/*
 * bare_postgres.h - the reference for PostgreSQL: libpq alone, with the store's own statements, prepared, on a blocking connection. One
 * statement after the other, or many at once with one commit.
 */
#ifndef VERROU_BENCH_BARE_POSTGRES_H
#define VERROU_BENCH_BARE_POSTGRES_H

#include <libpq-fe.h>

#include "subject.h"

/* The text of the store's statements for its own table, as they stand in the server's log. */
struct bare_postgres_statements {
    const char *acquire, *release;
};
extern struct bare_postgres_statements bare_postgres_statements;

/* To an address that libpq knows; the store's table is there. */
PGconn *bare_postgres_open(const char *url);
/* Free a result that has to have this status, with one row if it has any. */
void bare_postgres_expect(PGconn *connection, PGresult *result, ExecStatusType status);
/* Acquire and release a key, a call each. */
void bare_postgres_pair(PGconn *connection, const char *key);
/* Acquire several keys and commit, then release them and commit. */
void bare_postgres_pipeline(PGconn *connection, char keys[][SUBJECT_KEY], int n);

#endif
