/*
 * sqlite_testing.h - what the tests of the SQLite driver share: a host table, a database in a folder of its own, and requests in
 * one line. The driver is called directly, without the engine.
 */
#ifndef SQLITE_TESTING_H
#define SQLITE_TESTING_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <limits.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>
#include <verrou/sqlite.h>
#include <cmocka.h>

/* The folder of the current test, and the database in it. Made and removed by test_setup() and test_teardown(). */
extern char test_folder[64];
extern char test_path[128];
int test_setup(void **unused);
int test_teardown(void **unused);
const char *test_file(const char *suffix); /* the database's path with a suffix; valid until the next call */

/* The last event logged, "" if none. */
extern char test_event[64];

/* A store and its lane. */
typedef struct test_store {
    const verrou_driver *driver;
    void *state;
    void *lane;
} test_store;

extern const verrou_host test_host;

/* Called when the driver draws a random number, which it does before each pause in waiting for the database's lock. */
extern void (*test_on_pause)(void);

int64_t test_now_ms(void);
int64_t test_wall_ms(void);

/* Make the state only. `settings` as in an address, or NULL. */
verrou_status test_create(test_store *store, const char *path, const char *settings, verrou_error *err);
/* State and lane on test_path; they must succeed. */
test_store test_open(const char *settings);
verrou_status test_open_lane(test_store *store, verrou_error *err);
void test_close(test_store *store);

/* A request and room for its texts. */
verrou_op test_op(verrou_op_kind kind, const char *key, const char *owner, int64_t ttl_ms, uint64_t fence);
void test_op_done(verrou_op *op);
/* Run requests with five seconds' time. */
verrou_status test_execute(test_store *store, verrou_op *ops, size_t n, verrou_error *err);

/* One request; its result. The text of an error goes to test_error, holder and token to the other two. */
extern char test_error[448];
extern char test_error_code[32];
extern int test_error_retriable;
extern char test_holder[VERROU_MAX_OWNER + 1];
extern uint64_t test_fence;
extern int64_t test_remaining;
extern int test_others;
verrou_op_result test_run(test_store *store, verrou_op_kind kind, const char *key, const char *owner, int64_t ttl_ms,
                          uint64_t fence);
verrou_op_result test_acquire(test_store *store, const char *key, const char *owner);
verrou_op_result test_release(test_store *store, const char *key, const char *owner);
verrou_op_result test_inspect(test_store *store, const char *key);

/* Plain SQL on test_path through a connection of the test's own, as another program would. It must succeed. */
void test_sql(const char *format, ...) VERROU_PRINTF(1, 2);
/* The first value of a query as text, "NULL" for NULL and "none" without rows; valid until the next call. */
const char *test_ask(const char *format, ...) VERROU_PRINTF(1, 2);

/* Run a function in a child process, connected by two pipes. */
typedef struct test_child {
    pid_t pid;
    int from; /* what the child writes */
    int to;   /* what it reads */
} test_child;
test_child test_fork(void (*body)(int from_parent, int to_parent, const void *argument), const void *argument);
void test_tell(int fd);           /* write one byte */
bool test_await(int fd);          /* read one byte; false at end of file */
int test_wait(test_child *child); /* close the pipes, wait, return the wait status */

/* What a sink collects, one line an entry. */
extern char test_sink[8192];

/* The table as the original makes it. */
#define ORIGINAL_TABLE                                                                                              \
    "create table `verrou` (`key` varchar(255) not null, `owner` varchar(255) not null, `expiration` bigint null, " \
    "primary key (`key`))"

#endif
