/*
 * redis_fixture.h - stores on Redis for tests: opened by a printf() format, their events recorded, everything closed after each test.
 *
 * The driver is linked in and registered, so that its internals can be called as well. All of it is for the main thread, except
 * fixture_acquire_on_thread()'s own.
 */
#ifndef VERROU_TESTS_REDIS_FIXTURE_H
#define VERROU_TESTS_REDIS_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <verrou/redis.h>
#include <verrou/verrou.h>

#include <cmocka.h>

#include "redis_servers.h"

/* The error of the latest call that was given it. */
extern verrou_error fixture_err;
#define ERR (&fixture_err)

/* The status of a call, with the error's text where it is another one. */
#define EXPECT(status, call) fixture_expect((status), (call), #call, __FILE__, __LINE__)
void fixture_expect(verrou_status expected, verrou_status got, const char *call, const char *file, int line);

/* Register the driver; a group setup. */
int fixture_setup(void **state);
/* Close what a test has opened, free its locks, and forget the events. */
int fixture_teardown(void **state);

/* Settings for stores that are opened from now on in this test: a connect function. */
void fixture_connect(verrou_connect_fn connect, void *user);
verrou_store *fixture_open(const char *format, ...) __attribute__((format(printf, 1, 2)));
void fixture_close(verrou_store *store);
/* A handle; ttl_ms below 0: kept alive, with that TTL. */
verrou_lock *fixture_lock(verrou_store *store, const char *key, int64_t ttl_ms);

/* Take it, wait for it, give it back: each has to succeed. The first two return the token. */
uint64_t fixture_take(verrou_lock *lock);
uint64_t fixture_wait(verrou_lock *lock);
void fixture_drop(verrou_lock *lock);

/* One acquisition that waits on a thread of its own, until fixture_joined() returns how it ended. */
typedef struct fixture_waiter fixture_waiter;
fixture_waiter *fixture_wait_on_thread(verrou_lock *lock);
verrou_status fixture_joined(fixture_waiter *waiter);
/* When it had its answer, on process_clock_ms(). */
int64_t fixture_joined_at(const fixture_waiter *waiter);

/* Whether fixture_err has this text; prints it if not. */
bool fixture_says(const char *text);

/* How many events of this name were logged in this test, and whether any text of any event contains `text`. */
int fixture_events(const char *event);
bool fixture_logged(const char *text);
/* Wait until there are at least so many. */
void fixture_wait_events(const char *event, int at_least);

/* Wait until a server has so many subscribers to a channel. */
void fixture_wait_subscribed(const redis_server *server, bool sharded, const char *channel, int count);

#endif
