/*
 * conf.h - what the claims of the conformance suite are written with. Public headers, cmocka and pthread only: the
 * suite is given to store authors, and what it cannot reach through verrou.h, an application cannot reach either.
 *
 * A claim is a function that gets a `struct conf` with an open store. Whatever it makes through the functions below is
 * taken down after it, passed or failed: keys are freed, stores closed, threads joined, handles freed, in this order.
 * cmocka leaves a failed test by longjmp, so a helper thread never asserts: it stores what it saw, and the claim looks
 * at that after verrou__conf_join().
 */
#ifndef VERROU_CONF_H
#define VERROU_CONF_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <verrou/conformance.h>

/* Leases that are meant to run out, and leases that are meant to last whatever the machine is busy with. */
#define SHORT_MS 250
#define LONG_MS 600000

/* How long a waiter waits in vain: a store has to answer within this time on a machine that is busy. */
#define BRIEF_MS 500

/* A retry delay so long that a waiter which gets the lock was woken by something else. */
#define NEVER_MS 120000

struct conf;

/* What a claim needs to make sense. */
#define CONF_ANY 0x1u      /* holds for a store that grants everything, too */
#define CONF_REOPEN 0x2u   /* a second open() leads to the same locks */
#define CONF_NO_FENCE 0x4u /* the store has no tokens */
#define CONF_NO_LIST 0x8u  /* the store has no listing */

struct conf_claim {
    const char *name; /* the claim, as a sentence */
    void (*run)(struct conf *c);
    uint32_t needs; /* CONF_ */
    uint32_t caps;  /* VERROU_CAP_ bits without which it is skipped */
};

extern const struct conf_claim verrou__conf_acquire_claims[];
extern const struct conf_claim verrou__conf_async_claims[];
extern const struct conf_claim verrou__conf_extend_claims[];
extern const struct conf_claim verrou__conf_fencing_claims[];
extern const struct conf_claim verrou__conf_handles_claims[];
extern const struct conf_claim verrou__conf_lease_claims[];
extern const struct conf_claim verrou__conf_limits_claims[];
extern const struct conf_claim verrou__conf_listing_claims[];
extern const struct conf_claim verrou__conf_races_claims[];
extern const struct conf_claim verrou__conf_release_claims[];
extern const struct conf_claim verrou__conf_run_claims[];
extern const struct conf_claim verrou__conf_serial_claims[];
extern const struct conf_claim verrou__conf_waiting_claims[];

/* One run of the suite: what all claims share. */
struct conf_suite {
    const verrou_conformance *given;
    uint32_t caps;
    uint64_t run;        /* makes the keys of this run its own */
    int64_t patience_ms; /* how long to wait for what has to happen */
};

/* One claim being checked. */
struct conf {
    struct conf_suite *suite;
    const struct conf_claim *claim;
    size_t number;       /* of the claim, which makes its keys its own */
    verrou_store *store; /* open */
    verrou_queue *queue; /* made by the first asynchronous call */
    verrou_error error;
    int completions;           /* of asynchronous calls */
    struct conf_thing *things; /* to be taken down */
};

/* cmocka's setup, test and teardown functions; *state is a struct conf. */
int verrou__conf_begin(void **state);
void verrou__conf_check(void **state);
int verrou__conf_end(void **state);

/* ---- statuses ---- */

/* An empty error slot, and the check of a status that shows what the slot got. */
verrou_error *verrou__conf_error(struct conf *c);
void verrou__conf_expect(struct conf *c, verrou_status expected, verrou_status got, const char *call, const char *file,
                         int line);
void verrou__conf_require(bool truth, const char *what, const char *file, int line);
#define ERR verrou__conf_error(c)
#define EXPECT(expected, call) verrou__conf_expect(c, (expected), (call), #call, __FILE__, __LINE__)
#define REQUIRE(truth) verrou__conf_require((truth), #truth, __FILE__, __LINE__)

/* ---- keys, stores, handles ---- */

/* The key of this claim called `name`, the same text each time; freed in the store at the end. */
const char *verrou__conf_key(struct conf *c, const char *name);
/* Have a key that verrou__conf_key() did not make freed in the store at the end. Returns the remembered copy. */
const char *verrou__conf_key_exact(struct conf *c, const char *key);

verrou_store *verrou__conf_open(struct conf *c);
void verrou__conf_close(struct conf *c, verrou_store *store);

/* A handle for the key "lock" on the first store; for any key on any store; with options. */
verrou_lock *verrou__conf_lock(struct conf *c, int64_t ttl_ms);
verrou_lock *verrou__conf_lock_on(struct conf *c, verrou_store *store, const char *key, int64_t ttl_ms);
verrou_lock *verrou__conf_lock_with(struct conf *c, verrou_store *store, const char *key,
                                    const verrou_lock_options *options);
verrou_lock *verrou__conf_restore(struct conf *c, verrou_store *store, const char *json);
void verrou__conf_free(struct conf *c, verrou_lock *lock);
verrou_cancel *verrou__conf_cancel(struct conf *c);

/* The serialised lock and the owner of a handle, as text that lives as long as the claim. */
const char *verrou__conf_json(struct conf *c, verrou_lock *lock);
const char *verrou__conf_owner(struct conf *c, verrou_lock *lock);

/*
 * A handle of `owner` for `key` that believes in a lease of an hour. Its own view never stops it, so that it is the
 * store that has to refuse what it asks for.
 */
verrou_lock *verrou__conf_believer(struct conf *c, verrou_store *store, const char *key, const char *owner);

/* ---- short cuts that fail the claim when they do not work ---- */

void verrou__conf_hold(struct conf *c, verrou_lock *lock); /* take a lock that is free */
void verrou__conf_drop(struct conf *c, verrou_lock *lock); /* release it */
verrou_info verrou__conf_inspect(struct conf *c, verrou_lock *lock);
void verrou__conf_expect_free(struct conf *c, verrou_lock *lock);
void verrou__conf_expect_held_by(struct conf *c, verrou_lock *holder); /* also by name, if the store tells names */
void verrou__conf_let_expire(struct conf *c, verrou_lock *lock);       /* until the store calls it free */
void verrou__conf_wait_until(int64_t at_ms);                           /* on the clock of verrou_now_ms() */

/* Options of an acquire that waits as long as the suite has patience, asking every delay_ms. */
verrou_acquire_options verrou__conf_waiting(struct conf *c, int64_t delay_ms);
/* A retry delay for waiters that have to notice what only some stores can tell; else polling is all there is. */
int64_t verrou__conf_delay(bool told);

/* ---- threads ---- */

/* An acquire on a thread of its own. */
struct conf_waiter {
    verrou_lock *lock;
    verrou_acquire_options options;
    verrou_status status;
    verrou_info info;
};
struct conf_waiter *verrou__conf_acquire_thread(struct conf *c, verrou_lock *lock,
                                                const verrou_acquire_options *options);
/* Any function on a thread of its own. */
void verrou__conf_thread(struct conf *c, void (*run)(void *), void *arg);
/* Wait for all threads started so far. */
void verrou__conf_join(struct conf *c);

/* Memory that lives as long as the claim, zeroed. */
void *verrou__conf_alloc(struct conf *c, size_t size);

/* ---- asynchronous calls ---- */

/* What came of one: `order` counts the completions of the claim from 1. */
struct verrou__conf_answer {
    int count;
    int order;
    verrou_status status;
    bool has_info;
    bool has_error;
    verrou_info info;
    size_t listed;
    struct conf *c;
};
struct verrou__conf_answer *verrou__conf_answer(struct conf *c);
void verrou__conf_done(void *user, const verrou_result *result);
verrou_queue *verrou__conf_queue(struct conf *c);
/* Dispatch until it has come, and fail if it does not. */
void verrou__conf_await(struct conf *c, struct verrou__conf_answer *answer);
/* Dispatch for a little while, during which nothing may come that is not expected. */
void verrou__conf_drain(struct conf *c, int64_t for_ms);
/* An asynchronous acquire that waits; it stands in the queue of its key when this returns. */
struct verrou__conf_answer *verrou__conf_acquire_async(struct conf *c, verrou_lock *lock,
                                                       const verrou_acquire_options *options);

#endif
