/*
 * suite.h - the store beside the original: tests for any store that both have. A test program of a store starts its server, says here
 * how both sides reach it, and adds what only that store has.
 */
#ifndef VERROU_TESTS_INTEROP_SUITE_H
#define VERROU_TESTS_INTEROP_SUITE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <verrou/verrou.h>
#include <cmocka.h>

#include "peer.h"

typedef struct interop_store {
    const char *name; /* in stores.mjs */
    /* Where it is, for them and for us; ours has no settings. Valid until the end of the program. */
    const char *(*their_address)(void);
    const char *(*our_address)(void);
    /* A number that grows when the store has refused an acquisition of ours, and through nothing that they do. */
    long long (*refusals)(void);
    bool folds_case; /* keys that differ in letter case only exclude each other, on both sides */
} interop_store;

/* Both sides, opened anew for each test. */
extern peer *them;
extern verrou_store *us;
int interop_setup(void **state);
int interop_teardown(void **state);
#define INTEROP_TEST(name) cmocka_unit_test_setup_teardown(name, interop_setup, interop_teardown)

/* Run the suite and the store's own tests; `start` (may be NULL) is the group's setup. The program's exit code. */
int interop_run(const interop_store *store, const struct CMUnitTest *own, size_t count, CMFixtureFunction start);

/* ---- ways to say things shortly ---- */

#define assert_ok(call) assert_status(VERROU_OK, call)
#define assert_status(expected, call) assert_string_equal(verrou_status_name(expected), verrou_status_name(call))

/* Store address of ours with settings. */
verrou_store *our_store(const char *settings);
/* A lock of ours without and with a TTL; it is freed after the test. */
verrou_lock *our_lock(const char *key);
verrou_lock *our_lock_for(const char *key, int64_t ttl_ms);
/* Our handle for their lock `name`, and theirs, called `name`, for a lock of ours: both by the serialised form. */
verrou_lock *restored_by_us(const char *name);
void restored_by_them(const char *name, verrou_lock *lock);
/* Make a lock of theirs and take it; ttl_ms VERROU_DEFAULT: theirs; VERROU_FOREVER: null. */
void they_create(const char *name, const char *key, int64_t ttl_ms);
void they_take(const char *name, const char *key, int64_t ttl_ms);
/* What is left of whoever's lease, by the store. */
int64_t remaining_of(const char *key);

/* An acquire of ours that waits. `refused` returns when the store has refused it: true; or, false, when it is answered without that. */
typedef struct waiting {
    verrou_queue *queue;
    long long refused_before;
    int done;
    verrou_status status;
} waiting;
void waiting_begin(waiting *w, verrou_lock *lock, int64_t delay_ms, int64_t timeout_ms);
bool waiting_refused(waiting *w);
verrou_status waiting_end(waiting *w);

#endif
