/*
 * sqlite_testing.h - what the tests of the SQLite driver share beside driver_testing.h: a database in a folder of its own, and SQL as
 * another program would run it.
 */
#ifndef SQLITE_TESTING_H
#define SQLITE_TESTING_H

#include "driver_testing.h"

#include <limits.h>
#include <sqlite3.h>
#include <verrou/sqlite.h>

/* The folder of the current test, and the database in it. Made and removed by test_setup() and test_teardown(). */
extern char test_folder[64];
extern char test_path[128];
int test_setup(void **unused);
int test_teardown(void **unused);
const char *test_file(const char *suffix); /* the database's path with a suffix; valid until the next call */

/* Make the state only. `settings` as in an address, or NULL. */
verrou_status test_create_file(test_store *store, const char *path, const char *settings, verrou_error *err);
/* State and lane on test_path; they must succeed. */
test_store test_database(const char *settings);

/* Plain SQL on test_path through a connection of the test's own, as another program would. It must succeed. */
void test_sql(const char *format, ...) VERROU_PRINTF(1, 2);
/* The first value of a query as text, "NULL" for NULL and "none" without rows; valid until the next call. */
const char *test_ask(const char *format, ...) VERROU_PRINTF(1, 2);

/* The table as the original makes it. */
#define ORIGINAL_TABLE                                                                                              \
    "create table `verrou` (`key` varchar(255) not null, `owner` varchar(255) not null, `expiration` bigint null, " \
    "primary key (`key`))"

#endif
