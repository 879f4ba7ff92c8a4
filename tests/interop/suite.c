/*
 * suite.c - see suite.h. Where an order matters it is made by what can be seen: a refusal that the peer tells, or that the store counts.
 * A lease that runs out is no event for a bystander; there, asking again is all there is.
 */
#include "suite.h"
#include "process.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#define MINUTE_MS 60000
#define HOUR_MS (60 * MINUTE_MS)

/* A lease that is meant to run out. */
#define SHORT_MS 200

/*
 * A retry delay that, jitter included, asks again only after half of it, and a limit well before that: who gets the lock within the
 * limit did not get it by asking again.
 */
#define NO_RETRY_MS (10 * MINUTE_MS)
#define LIMIT_MS MINUTE_MS

#define MAX_OWN 32

peer *them;
verrou_store *us;
static const interop_store *under_test;
static verrou_lock *locks[16];
static size_t lock_count;

/* ---- both sides ---- */

verrou_store *our_store(const char *settings)
{
    verrou_store *store = NULL;
    verrou_error err = VERROU_ERROR_INIT;
    char address[512];

    snprintf(address, sizeof(address), "%s%s", under_test->our_address(), settings);
    if (verrou_store_open(address, NULL, &store, &err) != VERROU_OK)
        process_fail("%s", err.message);
    return store;
}

int interop_setup(void **state)
{
    (void)state;
    them = peer_start(under_test->name, under_test->their_address());
    us = our_store("");
    return 0;
}

int interop_teardown(void **state)
{
    (void)state;
    while (lock_count > 0)
        verrou_lock_free(locks[--lock_count]);
    verrou_store_close(us);
    us = NULL;
    peer_stop_all();
    return 0;
}

static verrou_lock *keep(verrou_lock *lock)
{
    assert_true(lock_count < sizeof(locks) / sizeof(locks[0]));
    locks[lock_count++] = lock;
    return lock;
}

verrou_lock *our_lock_for(const char *key, int64_t ttl_ms)
{
    verrou_lock_options options = VERROU_LOCK_OPTIONS_INIT;
    verrou_lock *lock = NULL;

    options.ttl_ms = ttl_ms;
    assert_ok(verrou_lock_new(us, key, &options, &lock, NULL));
    return keep(lock);
}

verrou_lock *our_lock(const char *key)
{
    return our_lock_for(key, VERROU_DEFAULT);
}

static verrou_lock *we_take(const char *key, int64_t ttl_ms)
{
    verrou_lock *lock = our_lock_for(key, ttl_ms);

    assert_ok(verrou_lock_acquire_immediately(lock, NULL, NULL));
    return lock;
}

static verrou_lock *restored(const char *json)
{
    verrou_lock *lock = NULL;

    assert_ok(verrou_lock_restore(us, json, NULL, &lock, NULL));
    return keep(lock);
}

verrou_lock *restored_by_us(const char *name)
{
    char *json = peer_text(them, "serialize", name);
    verrou_lock *lock = restored(json);

    free(json);
    return lock;
}

void restored_by_them(const char *name, verrou_lock *lock)
{
    char *json = NULL;

    assert_ok(verrou_lock_serialize(lock, &json, NULL));
    json_decref(peer_ask(them, "restore", "{s:s,s:s}", "lock", name, "json", json));
    verrou_free(json);
}

void they_create(const char *name, const char *key, int64_t ttl_ms)
{
    if (ttl_ms == VERROU_DEFAULT)
        json_decref(peer_ask(them, "create", "{s:s,s:s}", "lock", name, "key", key));
    else if (ttl_ms == VERROU_FOREVER)
        json_decref(peer_ask(them, "create", "{s:s,s:s,s:n}", "lock", name, "key", key, "ttl"));
    else
        json_decref(peer_ask(them, "create", "{s:s,s:s,s:I}", "lock", name, "key", key, "ttl", (json_int_t)ttl_ms));
}

void they_take(const char *name, const char *key, int64_t ttl_ms)
{
    they_create(name, key, ttl_ms);
    assert_true(peer_true(them, "acquireImmediately", name));
}

static void they_extend(const char *name, int64_t ttl_ms)
{
    json_decref(peer_ask(them, "extend", "{s:s,s:I}", "lock", name, "ttl", (json_int_t)ttl_ms));
}

static int they_wait(const char *name, int64_t delay_ms)
{
    peer_forget_refusals(them);
    return peer_send(them, "acquire", "{s:s,s:{s:I}}", "lock", name, "retry", "delay", (json_int_t)delay_ms);
}

static bool was_true(int id)
{
    json_t *value = peer_answer(them, id);
    bool is_true = json_is_true(value);

    json_decref(value);
    return is_true;
}

static verrou_info look_at(const char *key)
{
    verrou_info info = VERROU_INFO_INIT;

    assert_ok(verrou_store_inspect(us, key, NULL, &info, NULL));
    return info;
}

int64_t remaining_of(const char *key)
{
    return look_at(key).remaining_ms;
}

static bool is_free(const char *key)
{
    return !look_at(key).locked;
}

static void wait_free(const char *key)
{
    int64_t deadline_ms = process_clock_ms() + PROCESS_PATIENCE_MS;

    while (!is_free(key)) {
        if (process_clock_ms() > deadline_ms)
            process_fail("the lock %s does not run out", key);
        process_pause();
    }
}

/* ---- waiting ---- */

static void answered(void *user, const verrou_result *result)
{
    waiting *w = user;

    w->status = result->status;
    w->done++;
}

static void wait_refusals(long long least)
{
    int64_t deadline_ms = process_clock_ms() + PROCESS_PATIENCE_MS;

    while (under_test->refusals() < least) {
        if (process_clock_ms() > deadline_ms)
            process_fail("our acquire is not refused");
        process_pause();
    }
}

void waiting_begin(waiting *w, verrou_lock *lock, int64_t delay_ms, int64_t timeout_ms)
{
    verrou_acquire_options options = VERROU_ACQUIRE_OPTIONS_INIT;

    memset(w, 0, sizeof(*w));
    options.delay_ms = delay_ms;
    options.timeout_ms = timeout_ms;
    w->refused_before = under_test->refusals();
    assert_ok(verrou_queue_new(&w->queue, NULL));
    assert_ok(verrou_lock_acquire_async(lock, &options, w->queue, answered, w, NULL));
}

bool waiting_refused(waiting *w)
{
    int64_t deadline_ms = process_clock_ms() + PROCESS_PATIENCE_MS;

    while (under_test->refusals() == w->refused_before && !w->done) {
        if (process_clock_ms() > deadline_ms)
            process_fail("our acquire is neither refused nor answered");
        process_pause();
        verrou_dispatch(w->queue, 0);
    }
    return under_test->refusals() > w->refused_before;
}

verrou_status waiting_end(waiting *w)
{
    struct pollfd readable = {verrou_queue_fd(w->queue), POLLIN, 0};

    while (!w->done) {
        if (poll(&readable, 1, 2 * PROCESS_PATIENCE_MS) == 0)
            process_fail("our acquire is not answered");
        verrou_dispatch(w->queue, 0);
    }
    verrou_queue_free(w->queue);
    return w->status;
}

/* ---- exclusion ---- */

/* A lock that they hold is refused to us, and we know who holds it and for how long. */
static void theirs_is_refused_to_us(void **state)
{
    verrou_info info = VERROU_INFO_INIT;
    char *owner;

    (void)state;
    they_take("a", "refused-to-us", MINUTE_MS);
    owner = peer_text(them, "owner", "a");
    assert_status(VERROU_ENOTACQUIRED, verrou_lock_acquire_immediately(our_lock("refused-to-us"), &info, NULL));
    assert_string_equal(info.owner, owner);
    assert_in_range(info.remaining_ms, 1, MINUTE_MS);
    free(owner);
}

/* A lock that we hold is refused to them, and locked in their eyes. */
static void ours_is_refused_to_them(void **state)
{
    (void)state;
    we_take("refused-to-them", MINUTE_MS);
    they_create("a", "refused-to-them", MINUTE_MS);
    assert_false(peer_true(them, "acquireImmediately", "a"));
    assert_true(peer_true(them, "isLocked", "a"));
}

/* What one side released, the other can take, and the first cannot release again. */
static void a_release_frees_for_the_other(void **state)
{
    verrou_lock *ours;

    (void)state;
    they_take("a", "released", MINUTE_MS);
    peer_do(them, "release", "a");
    ours = we_take("released", MINUTE_MS);
    assert_string_equal(peer_error(them, "release", "a"), "E_LOCK_NOT_OWNED");
    assert_ok(verrou_lock_release(ours, NULL, NULL));
    assert_true(peer_true(them, "acquireImmediately", "a"));
    assert_status(VERROU_ENOTOWNED, verrou_lock_release(ours, NULL, NULL));
    assert_true(peer_true(them, "isLocked", "a"));
}

/* Tokens of ours grow through acquisitions of theirs, which have none. */
static void tokens_grow_through_theirs(void **state)
{
    verrou_lock *first = we_take("tokens", MINUTE_MS);
    verrou_lock *second;

    (void)state;
    assert_ok(verrou_lock_release(first, NULL, NULL));
    they_take("a", "tokens", MINUTE_MS);
    peer_do(them, "release", "a");
    second = we_take("tokens", MINUTE_MS);
    assert_true(verrou_lock_fence(second) > verrou_lock_fence(first));
}

/* Keys are the same bytes on both sides, beyond ASCII too; the letter case matters, if it does for the store. */
static void keys_are_the_same_bytes(void **state)
{
    verrou_lock *capital = our_lock("Caf\xc3\xa9 \xf0\x9f\x94\x92 {x} \"y\"");

    (void)state;
    they_take("a", "caf\xc3\xa9 \xf0\x9f\x94\x92 {x} \"y\"", MINUTE_MS);
    assert_status(VERROU_ENOTACQUIRED,
                  verrou_lock_acquire_immediately(our_lock("caf\xc3\xa9 \xf0\x9f\x94\x92 {x} \"y\""), NULL, NULL));
    assert_status(under_test->folds_case ? VERROU_ENOTACQUIRED : VERROU_OK,
                  verrou_lock_acquire_immediately(capital, NULL, NULL));
}

/* The prefix of a store of ours is part of the key that they use. */
static void a_prefix_is_part_of_their_key(void **state)
{
    verrou_store *shop = our_store("?prefix=shop:");
    verrou_lock *lock = NULL;
    verrou_status status = verrou_lock_new(shop, "till", NULL, &lock, NULL);

    (void)state;
    if (status == VERROU_OK)
        status = verrou_lock_acquire_immediately(lock, NULL, NULL);
    they_create("with", "shop:till", MINUTE_MS);
    they_create("without", "till", MINUTE_MS);
    assert_status(VERROU_OK, status);
    assert_true(peer_true(them, "isLocked", "with"));
    assert_false(peer_true(them, "isLocked", "without"));
    verrou_lock_free(lock);
    verrou_store_close(shop);
}

/* ---- restored locks ---- */

/* We release a lock of theirs by its serialised form. */
static void we_release_theirs(void **state)
{
    (void)state;
    they_take("a", "we-release", MINUTE_MS);
    assert_ok(verrou_lock_release(restored_by_us("a"), NULL, NULL));
    assert_false(peer_true(them, "isLocked", "a"));
    assert_string_equal(peer_error(them, "release", "a"), "E_LOCK_NOT_OWNED");
}

/* They release a lock of ours by its serialised form. */
static void they_release_ours(void **state)
{
    verrou_lock *ours = we_take("they-release", MINUTE_MS);

    (void)state;
    restored_by_them("a", ours);
    peer_do(them, "release", "a");
    assert_true(is_free("they-release"));
    assert_status(VERROU_ENOTOWNED, verrou_lock_release(ours, NULL, NULL));
}

/* We make a lease of theirs longer, and shorter; it stays theirs. */
static void we_extend_theirs(void **state)
{
    verrou_lock *handle;

    (void)state;
    they_take("a", "we-extend", 10 * MINUTE_MS);
    handle = restored_by_us("a");
    assert_ok(verrou_lock_extend(handle, HOUR_MS, NULL, NULL));
    assert_true(remaining_of("we-extend") > 10 * MINUTE_MS);
    assert_ok(verrou_lock_extend(handle, 5 * MINUTE_MS, NULL, NULL));
    assert_in_range(remaining_of("we-extend"), 1, 5 * MINUTE_MS);
    peer_do(them, "release", "a");
}

/* They make a lease of ours longer, and shorter; it stays ours, and a look at the store tells us. */
static void they_extend_ours(void **state)
{
    verrou_lock *ours = we_take("they-extend", 10 * MINUTE_MS);
    verrou_info info = VERROU_INFO_INIT;

    (void)state;
    restored_by_them("a", ours);
    they_extend("a", HOUR_MS);
    assert_true(remaining_of("they-extend") > 10 * MINUTE_MS);
    they_extend("a", 5 * MINUTE_MS);
    assert_ok(verrou_lock_inspect(ours, NULL, &info, NULL));
    assert_in_range(info.remaining_ms, 1, 5 * MINUTE_MS);
    assert_in_range(verrou_lock_remaining_ms(ours), 1, 5 * MINUTE_MS);
    assert_ok(verrou_lock_release(ours, NULL, NULL));
}

/* A serialised lock with another owner authorises nothing on either side. */
static void another_owner_may_do_nothing(void **state)
{
    static const char forged[] =
        "{\"key\":\"stranger\",\"owner\":\"stranger\",\"ttl\":60000,\"expirationTime\":4102444800000}";
    verrou_lock *ours;

    (void)state;
    they_take("a", "stranger", MINUTE_MS);
    ours = restored(forged);
    assert_status(VERROU_ENOTOWNED, verrou_lock_release(ours, NULL, NULL));
    assert_status(VERROU_ENOTOWNED, verrou_lock_extend(restored(forged), HOUR_MS, NULL, NULL));
    peer_do(them, "release", "a");

    we_take("stranger", MINUTE_MS);
    json_decref(peer_ask(them, "restore", "{s:s,s:s}", "lock", "b", "json", forged));
    assert_string_equal(peer_error(them, "release", "b"), "E_LOCK_NOT_OWNED");
    assert_string_equal(peer_error(them, "extend", "b"), "E_LOCK_NOT_OWNED");
    assert_in_range(remaining_of("stranger"), 1, MINUTE_MS);
}

/* ---- expiry ---- */

/* A lease of theirs that ran out is free for us, and they cannot get it back by releasing or extending. */
static void theirs_runs_out(void **state)
{
    verrou_lock *handle;
    verrou_lock *ours;

    (void)state;
    they_take("a", "theirs-out", SHORT_MS);
    handle = restored_by_us("a");
    wait_free("theirs-out");
    assert_false(peer_true(them, "isLocked", "a"));
    assert_status(VERROU_ENOTOWNED, verrou_lock_extend(handle, HOUR_MS, NULL, NULL));
    ours = we_take("theirs-out", MINUTE_MS);
    assert_status(VERROU_ENOTOWNED, verrou_lock_release(handle, NULL, NULL));
    assert_string_equal(peer_error(them, "extend", "a"), "E_LOCK_NOT_OWNED");
    assert_string_equal(peer_error(them, "release", "a"), "E_LOCK_NOT_OWNED");
    assert_ok(verrou_lock_release(ours, NULL, NULL));
}

/* A lease of ours that ran out is free for them, and we cannot get it back by releasing or extending. */
static void ours_runs_out(void **state)
{
    verrou_lock *ours = we_take("ours-out", SHORT_MS);

    (void)state;
    wait_free("ours-out");
    they_take("a", "ours-out", MINUTE_MS);
    assert_status(VERROU_ENOTOWNED, verrou_lock_extend(ours, HOUR_MS, NULL, NULL));
    assert_status(VERROU_ENOTOWNED, verrou_lock_release(ours, NULL, NULL));
    assert_true(peer_true(them, "isLocked", "a"));
    peer_do(them, "release", "a");
}

/* ---- leases that never expire ---- */

/* A lock of theirs without TTL never expires in our eyes, and we can release it. */
static void theirs_never_expires(void **state)
{
    verrou_lock *handle;

    (void)state;
    they_take("a", "theirs-for-ever", VERROU_FOREVER);
    handle = restored_by_us("a");
    assert_int_equal(remaining_of("theirs-for-ever"), VERROU_FOREVER);
    assert_int_equal(verrou_lock_remaining_ms(handle), VERROU_FOREVER);
    assert_int_equal(verrou_lock_ttl_ms(handle), VERROU_FOREVER);
    assert_ok(verrou_lock_release(handle, NULL, NULL));
}

/* A lock of ours that never expires has neither TTL nor end in their eyes, and they can release it. */
static void ours_never_expires(void **state)
{
    json_t *remaining;

    (void)state;
    restored_by_them("a", we_take("ours-for-ever", VERROU_FOREVER));
    remaining = peer_ask(them, "remaining", "{s:s}", "lock", "a");
    assert_true(json_is_null(remaining));
    json_decref(remaining);
    assert_false(peer_true(them, "isExpired", "a"));
    assert_true(peer_true(them, "isLocked", "a"));
    assert_int_equal(remaining_of("ours-for-ever"), VERROU_FOREVER);
    peer_do(them, "release", "a");
    assert_true(is_free("ours-for-ever"));
}

/* We take the end from a lease of theirs; they give one to a lease of ours that had none. */
static void ends_come_and_go(void **state)
{
    verrou_lock *ours;

    (void)state;
    they_take("a", "end-goes", MINUTE_MS);
    assert_ok(verrou_lock_extend(restored_by_us("a"), VERROU_FOREVER, NULL, NULL));
    assert_int_equal(remaining_of("end-goes"), VERROU_FOREVER);
    peer_do(them, "release", "a");

    ours = we_take("end-comes", VERROU_FOREVER);
    restored_by_them("b", ours);
    they_extend("b", MINUTE_MS);
    assert_in_range(remaining_of("end-comes"), 1, MINUTE_MS);
    assert_ok(verrou_lock_release(ours, NULL, NULL));
}

/* ---- waiting ---- */

/* We notice their release, of which nobody tells us, by asking again after the retry delay. */
static void we_wait_for_their_release(void **state)
{
    verrou_lock *ours = our_lock("their-release");
    waiting w;

    (void)state;
    they_take("a", "their-release", VERROU_FOREVER);
    waiting_begin(&w, ours, 20, VERROU_DEFAULT);
    assert_true(waiting_refused(&w));
    peer_do(them, "release", "a");
    assert_ok(waiting_end(&w));
    assert_false(peer_true(them, "acquireImmediately", "a"));
}

/* They take the lock for a while, and we wait. On a machine that stood still meanwhile there is nothing to wait for: then for longer. */
static void we_wait_while_they_hold(waiting *w, verrou_lock *ours, int64_t *ttl_ms)
{
    for (;; *ttl_ms *= 2) {
        they_take("a", verrou_lock_key(ours), *ttl_ms);
        waiting_begin(w, ours, NO_RETRY_MS, LIMIT_MS);
        if (waiting_refused(w))
            return;
        assert_ok(waiting_end(w));
        assert_ok(verrou_lock_release(ours, NULL, NULL));
    }
}

/* We get their lock when its lease runs out, long before we would ask again. */
static void we_wait_for_their_expiry(void **state)
{
    verrou_lock *ours = our_lock("their-expiry");
    int64_t ttl_ms = 5 * SHORT_MS;
    waiting w;

    (void)state;
    we_wait_while_they_hold(&w, ours, &ttl_ms);
    assert_ok(waiting_end(&w));
    assert_string_equal(peer_error(them, "release", "a"), "E_LOCK_NOT_OWNED");
}

/* They extend while we wait: we learn the new end, at the old one at the latest, and get the lock at that. */
static void we_wait_for_their_extended_lease(void **state)
{
    verrou_lock *ours = our_lock("their-extension");
    int64_t ttl_ms = 5 * SHORT_MS;
    waiting w;

    (void)state;
    we_wait_while_they_hold(&w, ours, &ttl_ms);
    while (*peer_error(them, "extend", "a")) {
        assert_ok(waiting_end(&w));
        assert_ok(verrou_lock_release(ours, NULL, NULL));
        ttl_ms *= 2;
        we_wait_while_they_hold(&w, ours, &ttl_ms);
    }
    assert_ok(waiting_end(&w));
    assert_string_equal(peer_error(them, "release", "a"), "E_LOCK_NOT_OWNED");
}

/* A wait of ours ends at its limit, and they hold the lock still. */
static void our_wait_ends_at_its_limit(void **state)
{
    verrou_acquire_options options = VERROU_ACQUIRE_OPTIONS_INIT;

    (void)state;
    they_take("a", "our-limit", MINUTE_MS);
    assert_in_range(remaining_of("our-limit"), 1, MINUTE_MS); /* connected: the limit is for waiting alone */
    options.timeout_ms = 5 * SHORT_MS;
    assert_status(VERROU_ENOTACQUIRED, verrou_lock_acquire(our_lock("our-limit"), &options, NULL, NULL));
    peer_do(them, "release", "a");
}

/* They wait for our release and get the lock then, not before. */
static void they_wait_for_our_release(void **state)
{
    verrou_lock *ours = we_take("our-release", VERROU_FOREVER);
    int id;

    (void)state;
    they_create("a", "our-release", MINUTE_MS);
    id = they_wait("a", 10);
    peer_wait_refused(them);
    peer_wait_refused(them);
    assert_false(peer_answered(them, id));
    assert_ok(verrou_lock_release(ours, NULL, NULL));
    assert_true(was_true(id));
    assert_status(VERROU_ENOTACQUIRED, verrou_lock_acquire_immediately(ours, NULL, NULL));
}

/* They wait for our lease to run out. */
static void they_wait_for_our_expiry(void **state)
{
    verrou_lock *ours = we_take("our-expiry", VERROU_FOREVER);
    int id;

    (void)state;
    they_create("a", "our-expiry", MINUTE_MS);
    id = they_wait("a", 10);
    peer_wait_refused(them);
    assert_ok(verrou_lock_extend(ours, SHORT_MS, NULL, NULL));
    assert_true(was_true(id));
    assert_status(VERROU_ENOTOWNED, verrou_lock_release(ours, NULL, NULL));
}

/* ---- by force ---- */

/* We free a lock of theirs by force: they have lost it, and one of us that waited has it. */
static void we_free_theirs_by_force(void **state)
{
    verrou_lock *ours = our_lock("our-force");
    waiting w;

    (void)state;
    they_take("a", "our-force", VERROU_FOREVER);
    waiting_begin(&w, ours, NO_RETRY_MS, LIMIT_MS);
    assert_true(waiting_refused(&w));
    assert_ok(verrou_store_force_release(us, "our-force", NULL, NULL));
    assert_ok(waiting_end(&w));
    assert_string_equal(peer_error(them, "release", "a"), "E_LOCK_NOT_OWNED");
    assert_ok(verrou_lock_release(ours, NULL, NULL));
}

/* They free a lock of ours by force: we have lost it, and one of them that waited has it. */
static void they_free_ours_by_force(void **state)
{
    verrou_lock *ours = we_take("their-force", VERROU_FOREVER);
    int id;

    (void)state;
    they_create("a", "their-force", MINUTE_MS);
    they_create("b", "their-force", MINUTE_MS);
    id = they_wait("a", 10);
    peer_wait_refused(them);
    peer_do(them, "forceRelease", "b");
    assert_true(was_true(id));
    assert_status(VERROU_ENOTOWNED, verrou_lock_release(ours, NULL, NULL));
    peer_do(them, "release", "a");
}

/* ---- the serialised form ---- */

static json_t *parsed(const char *text)
{
    json_t *object = json_loads(text, 0, NULL);

    assert_non_null(object);
    return object;
}

/* Their form has the four members that ours has, and we read all of them. */
static void we_read_their_form(void **state)
{
    char *text;
    char *owner = NULL;
    json_t *form;
    verrou_lock *handle;

    (void)state;
    they_take("a", "their-form", MINUTE_MS);
    text = peer_text(them, "serialize", "a");
    form = parsed(text);
    handle = restored(text);
    assert_int_equal(json_object_size(form), 4);
    assert_string_equal(verrou_lock_key(handle), json_string_value(json_object_get(form, "key")));
    assert_ok(verrou_lock_owner(handle, &owner, NULL));
    assert_string_equal(owner, json_string_value(json_object_get(form, "owner")));
    assert_int_equal(verrou_lock_ttl_ms(handle), json_integer_value(json_object_get(form, "ttl")));
    assert_in_range(verrou_lock_remaining_ms(handle), 1, MINUTE_MS);
    verrou_free(owner);
    json_decref(form);
    free(text);
}

/* They read our form, and write the same four members again. */
static void they_read_our_form(void **state)
{
    static const char *const members[] = {"key", "owner", "ttl", "expirationTime"};
    verrou_lock *ours = we_take("our-form", MINUTE_MS);
    char *our_text = NULL;
    char *their_text;
    json_t *our_form;
    json_t *their_form;

    (void)state;
    assert_ok(verrou_lock_serialize(ours, &our_text, NULL));
    json_decref(peer_ask(them, "restore", "{s:s,s:s}", "lock", "a", "json", our_text));
    their_text = peer_text(them, "serialize", "a");
    our_form = parsed(our_text);
    their_form = parsed(their_text);
    for (size_t i = 0; i < sizeof(members) / sizeof(members[0]); i++)
        assert_true(json_equal(json_object_get(our_form, members[i]), json_object_get(their_form, members[i])));
    assert_in_range(peer_number(them, "remaining", "a"), 1, MINUTE_MS);
    assert_false(peer_true(them, "isExpired", "a"));
    json_decref(our_form);
    json_decref(their_form);
    free(their_text);
    verrou_free(our_text);
}

/* A second acquire that is refused makes them forget when their own lease ends. Restored from that form we promise no time, and release. */
static void we_restore_a_lease_whose_end_they_forgot(void **state)
{
    verrou_lock *handle;
    int id;

    (void)state;
    they_take("a", "forgotten-end", MINUTE_MS);
    id = peer_send(them, "acquire", "{s:s,s:{s:i}}", "lock", "a", "retry", "attempts", 1);
    assert_false(was_true(id));
    handle = restored_by_us("a");
    assert_int_equal(verrou_lock_remaining_ms(handle), 0);
    assert_ok(verrou_lock_extend(handle, HOUR_MS, NULL, NULL));
    assert_true(remaining_of("forgotten-end") > MINUTE_MS);
    assert_ok(verrou_lock_release(handle, NULL, NULL));
}

/* A lease of theirs comes back to them through us, and is released there. */
static void a_form_survives_the_way_through_us(void **state)
{
    (void)state;
    they_take("a", "round-trip", MINUTE_MS);
    restored_by_them("b", restored_by_us("a"));
    they_extend("b", HOUR_MS);
    peer_do(them, "release", "b");
    assert_true(is_free("round-trip"));
}

/* ---- many at once ---- */

#define OUR_PROCESSES 3
#define THEIR_PROCESSES 3
#define TIMES 100

/* The turn goes from one kind to the other some hundred times; less than this, and they have not been there together. */
#define FEW_TURNS 10

static pid_t start_adding(const char *file, int seed)
{
    extern char **environ;
    char times[16];
    char seed_text[16];
    const char *argv[] = {VERROU_INTEROP_ADDER, under_test->our_address(), "sum", file, times, seed_text, NULL};
    pid_t pid = 0;

    snprintf(times, sizeof(times), "%d", TIMES);
    snprintf(seed_text, sizeof(seed_text), "%d", seed);
    assert_int_equal(posix_spawn(&pid, argv[0], NULL, NULL, (char *const *)(uintptr_t)argv, environ), 0);
    return pid;
}

static int start_counting(peer *p, const char *file, int seed)
{
    return peer_send(p, "count", "{s:s,s:s,s:i,s:i}", "key", "sum", "file", file, "times", TIMES, "seed", seed);
}

/*
 * Processes of both kinds add to a sum in a file, in turns that chance decides: each addition is in it, and no two were ever inside
 * together. They begin together, since the test holds the lock until all have met it.
 */
static void the_sum_is_exact(void **state)
{
    verrou_lock *gate = we_take("sum", VERROU_FOREVER);
    long long before = under_test->refusals();
    char file[PROCESS_PATH];
    pid_t ours[OUR_PROCESSES];
    peer *theirs[THEIR_PROCESSES];
    int ids[THEIR_PROCESSES];
    int sum = 0;
    int turns = 0;
    FILE *read;

    (void)state;
    snprintf(file, sizeof(file), "%s/sum", process_folder());
    process_write_file(file, "0 0 ?");
    for (int i = 0; i < THEIR_PROCESSES; i++) {
        theirs[i] = peer_start(under_test->name, under_test->their_address());
        ids[i] = start_counting(theirs[i], file, 200 + i);
        peer_wait_refused(theirs[i]);
    }
    for (int i = 0; i < OUR_PROCESSES; i++)
        ours[i] = start_adding(file, 100 + i);
    wait_refusals(before + OUR_PROCESSES);
    assert_ok(verrou_lock_release(gate, NULL, NULL));
    for (int i = 0; i < THEIR_PROCESSES; i++) {
        json_decref(peer_answer(theirs[i], ids[i]));
        peer_stop(theirs[i]);
    }
    for (int i = 0; i < OUR_PROCESSES; i++) {
        int status = 0;
        assert_int_equal(waitpid(ours[i], &status, 0), ours[i]);
        assert_int_equal(status, 0);
    }
    read = fopen(file, "r");
    assert_non_null(read);
    assert_int_equal(fscanf(read, "%d %d", &sum, &turns), 2);
    fclose(read);
    assert_int_equal(sum, (OUR_PROCESSES + THEIR_PROCESSES) * TIMES);
    assert_true(turns > FEW_TURNS);
}

static const struct CMUnitTest suite[] = {
    INTEROP_TEST(theirs_is_refused_to_us),
    INTEROP_TEST(ours_is_refused_to_them),
    INTEROP_TEST(a_release_frees_for_the_other),
    INTEROP_TEST(tokens_grow_through_theirs),
    INTEROP_TEST(keys_are_the_same_bytes),
    INTEROP_TEST(a_prefix_is_part_of_their_key),
    INTEROP_TEST(we_release_theirs),
    INTEROP_TEST(they_release_ours),
    INTEROP_TEST(we_extend_theirs),
    INTEROP_TEST(they_extend_ours),
    INTEROP_TEST(another_owner_may_do_nothing),
    INTEROP_TEST(theirs_runs_out),
    INTEROP_TEST(ours_runs_out),
    INTEROP_TEST(theirs_never_expires),
    INTEROP_TEST(ours_never_expires),
    INTEROP_TEST(ends_come_and_go),
    INTEROP_TEST(we_wait_for_their_release),
    INTEROP_TEST(we_wait_for_their_expiry),
    INTEROP_TEST(we_wait_for_their_extended_lease),
    INTEROP_TEST(our_wait_ends_at_its_limit),
    INTEROP_TEST(they_wait_for_our_release),
    INTEROP_TEST(they_wait_for_our_expiry),
    INTEROP_TEST(we_free_theirs_by_force),
    INTEROP_TEST(they_free_ours_by_force),
    INTEROP_TEST(we_read_their_form),
    INTEROP_TEST(they_read_our_form),
    INTEROP_TEST(we_restore_a_lease_whose_end_they_forgot),
    INTEROP_TEST(a_form_survives_the_way_through_us),
    INTEROP_TEST(the_sum_is_exact),
};

int interop_run(const interop_store *store, const struct CMUnitTest *own, size_t count, CMFixtureFunction start)
{
    struct CMUnitTest all[sizeof(suite) / sizeof(suite[0]) + MAX_OWN];

    if (count > MAX_OWN)
        process_fail("more than %d tests of one store", MAX_OWN);
    under_test = store;
    memcpy(all, suite, sizeof(suite));
    memcpy(all + sizeof(suite) / sizeof(suite[0]), own, count * sizeof(*own));
    return _cmocka_run_group_tests(store->name, all, sizeof(suite) / sizeof(suite[0]) + count, start, NULL);
}
