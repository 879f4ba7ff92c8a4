/*
 * sql_suite.h - what holds for every SQL store beside the original: who made the table `verrou`, and what both leave in its rows.
 *
 * The original makes the table without the column `fence`; a program of tests runs either on a table of ours or on one of theirs.
 */
#ifndef VERROU_TESTS_INTEROP_SQL_SUITE_H
#define VERROU_TESTS_INTEROP_SQL_SUITE_H

#include "suite.h"

typedef struct interop_database {
    const char *key;                      /* the column `key` as SQL has to name it here */
    const char *now_ms;                   /* an expression for the server's clock in epoch milliseconds */
    const char *(*text)(const char *sql); /* the answer, values separated by "|", rows by newlines */
    bool of_theirs;                       /* the original makes the table */
} interop_database;

/* What interop_run() does, with a table made by whoever is to make it, and with the tests of this file. */
int interop_run_sql(const interop_store *store, const interop_database *database, const struct CMUnitTest *own,
                    size_t count, CMFixtureFunction start);

/* SQL with the arguments of printf(), answered by the server itself. */
const char *interop_sql(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
