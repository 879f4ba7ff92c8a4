/*
 * redis_testing.h - what the tests of the Redis driver share: a store on the driver's own table, and requests in one line. The driver is
 * called directly, without the engine, and is handed the library's own table of functions.
 */
#ifndef REDIS_TESTING_H
#define REDIS_TESTING_H

#include "fault_proxy.h"
#include "redis_servers.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <verrou/redis.h>
#include <cmocka.h>

typedef struct test_store {
    const verrou_driver *driver;
    void *state;
    void *lane;
} test_store;

/* "redis://HOST:PORT" with what follows; valid until the fourth call after this one. */
const char *test_address(int port, const char *rest);

/* Make the state only. */
verrou_status test_create(test_store *store, const char *address, verrou_error *err);
/* With connections that the test makes. */
verrou_status test_create_connect(test_store *store, const char *address, verrou_connect_fn connect, verrou_error *err);
/* State and lane; they must succeed. */
test_store test_open(const char *address);
verrou_status test_open_lane(test_store *store, verrou_error *err);
void test_close(test_store *store);

/* A request, and the end of it. */
verrou_op test_op(verrou_op_kind kind, const char *key, const char *owner, int64_t ttl_ms);
void test_op_done(verrou_op *op);
/* Run requests with so much time. */
verrou_status test_execute(test_store *store, verrou_op *ops, size_t n, int64_t limit_ms, verrou_error *err);

/* What came of the last request that was run alone. */
typedef struct test_answer {
    verrou_status lane; /* VERROU_OK: the lane can be used again */
    verrou_op_result result;
    int retriable; /* -1: no error */
    char code[32];
    char text[448];
    char holder[VERROU_MAX_OWNER + 1];
    int holder_is_owner;
    int64_t remaining_ms;
    uint64_t fence;
    int others;
} test_answer;
extern test_answer test_last;
/* The last event logged, "" if none. */
extern char test_event[64];
verrou_op_result test_run(test_store *store, verrou_op_kind kind, const char *key, const char *owner, int64_t ttl_ms);
verrou_op_result test_acquire(test_store *store, const char *key, const char *owner);
verrou_op_result test_release(test_store *store, const char *key, const char *owner);

#endif
