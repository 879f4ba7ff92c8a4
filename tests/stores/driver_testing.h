/*
 * driver_testing.h - what the tests of all drivers share: a store on the driver's own table, requests in one line, and what a driver tells
 * beside its answers: events, findings, reports of a watch.
 *
 * The driver is called directly, without the engine: an answer is the driver's own, nothing is repeated, and no thread is started but the
 * driver's. It is handed the library's own table of functions, with two of them replaced: `log`, to see events, and `random`, for
 * test_on_pause. Whatever has to succeed makes the running test fail if it does not. All of it is for one thread, but for
 * test_events(), test_op() and test_execute().
 */
#ifndef VERROU_TESTS_DRIVER_TESTING_H
#define VERROU_TESTS_DRIVER_TESTING_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>
#include <verrou/store.h>

#include <cmocka.h>

/* How long a call may take whose time does not matter. */
#define TEST_LIMIT_MS 5000

/* ---- stores ---- */

/* A store and one lane. */
typedef struct test_store {
    const verrou_driver *driver;
    void *state;
    void *lane; /* NULL: none is open */
} test_store;

/* Make the state only, from an address "SCHEME:REST?SETTINGS". Forgets the events of before. The names of settings are not checked: that
 * is done above drivers. */
verrou_status test_create(test_store *store, const verrou_driver *driver, const char *address, verrou_error *err);
/* With connections that the test makes. */
verrou_status test_create_connect(test_store *store, const verrou_driver *driver, const char *address,
                                  verrou_connect_fn connect, void *connect_user, verrou_error *err);
verrou_status test_open_lane(test_store *store, verrou_error *err);
void test_close_lane(test_store *store);
/* State and lane; they must succeed. */
test_store test_open(const verrou_driver *driver, const char *address);
/* Close what is open; more than once does no harm. */
void test_close(test_store *store);

/* ---- requests ---- */

/* A request, and the end of it. */
verrou_op test_op(verrou_op_kind kind, const char *key, const char *owner, int64_t ttl_ms);
void test_op_done(verrou_op *op);
/* Run up to 1,024 requests with so much time. */
/* Whether requests are to be made as an event loop makes them: VERROU_TEST_LOOP is set. For drivers that have begin(). */
bool test_by_loop(void);
verrou_status test_execute(test_store *store, verrou_op *ops, size_t n, int64_t limit_ms, verrou_error *err);

/* What came of the last request that was run alone. */
typedef struct test_answer {
    verrou_status lane; /* VERROU_OK: the lane can be used again */
    verrou_op_result result;
    int retriable; /* -1: no error */
    char code[32];
    char text[448]; /* "": no error */
    char holder[VERROU_MAX_OWNER + 1];
    int holder_is_owner;
    int64_t remaining_ms;
    uint64_t fence;
    int others;
} test_answer;
extern test_answer test_last;

/* One request alone; its result. The second form names a token for releasing and extending. */
verrou_op_result test_run(test_store *store, verrou_op_kind kind, const char *key, const char *owner, int64_t ttl_ms);
verrou_op_result test_run_fenced(test_store *store, verrou_op_kind kind, const char *key, const char *owner,
                                 int64_t ttl_ms, uint64_t fence);
/* The same, acquiring for 30 s. */
verrou_op_result test_acquire(test_store *store, const char *key, const char *owner);
verrou_op_result test_extend(test_store *store, const char *key, const char *owner, int64_t ttl_ms);
verrou_op_result test_release(test_store *store, const char *key, const char *owner);
verrou_op_result test_inspect(test_store *store, const char *key);
verrou_op_result test_force(test_store *store, const char *key);

/* Called, if set, when the driver draws a random number: it does so before each pause between two tries of its own. */
extern void (*test_on_pause)(void);

/* ---- events ---- */

/* Name and text of the last event logged, "" if there was none since test_create(). */
extern char test_event[64];
extern char test_event_text[448];
/* How often an event of this name was logged since; NULL: any event. Up to 256 are counted. Any thread. */
int test_events(const char *event);

/* ---- list, check and schema ---- */

typedef enum test_job { TEST_LIST, TEST_CHECK, TEST_SCHEMA, TEST_SCHEMA_APPLY } test_job;

/*
 * Run one of them. `prefix` is for lists. What was found comes as text that is valid until the next call: a lock is "KEY OWNER live\n",
 * with "forever" for one that never ends and "over" for one that has ended, sorted by key, each key once; a finding is
 * "LEVEL SUBJECT: TEXT\n", with the level as a number.
 */
verrou_status test_find(test_store *store, test_job job, const char *prefix, int64_t limit_ms, const char **ret_text,
                        verrou_error *err);
/* The same; it must succeed. */
const char *test_list(test_store *store, const char *prefix);
const char *test_check(test_store *store);
const char *test_schema(test_store *store);
void test_schema_apply(test_store *store);
/* The token that the latest list told for a key, 0 if the key was not in it. */
uint64_t test_listed_fence(const char *key);

/* ---- watches ---- */

typedef struct test_watch {
    test_store *store;
    void *watch; /* NULL: closed */
    /* What the latest test_watch_read() reported: how many of each, and the key of the last, "" for any key. */
    int active;
    int free;
    int released;
    char key[VERROU_MAX_KEY + 1];
} test_watch;

test_watch test_watch_open(test_store *store);
verrou_status test_watch_add(test_watch *watch, const char *key);
verrou_status test_watch_remove(test_watch *watch, const char *key);
/* Whether the descriptor is readable, at once or after at most so long. */
bool test_watch_readable(test_watch *watch, int timeout_ms);
verrou_status test_watch_read(test_watch *watch);
/* Read until something is reported, whatever it is. Fails the test if nothing comes for a minute. */
void test_watch_wait(test_watch *watch);
void test_watch_close(test_watch *watch);

/* ---- children ---- */

/* A function in a child process, connected by two pipes. It ends with status 0 if the function returns. */
typedef struct test_child {
    pid_t pid;
    int from; /* what the child writes */
    int to;   /* what it reads */
} test_child;
test_child test_fork(void (*body)(int from_parent, int to_parent, const void *argument), const void *argument);
void test_tell(int fd);           /* write one byte */
bool test_await(int fd);          /* read one byte; false at end of file */
int test_wait(test_child *child); /* close the pipes, wait, return the wait status */

#endif
