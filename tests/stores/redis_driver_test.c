/*
 * redis_driver_test.c - the Redis driver through its table, against real servers: addresses, what is on the server, tokens, errors,
 * replicas, batches, and each allocation failing once.
 */
#include "redis_testing.h"

#include <poll.h>
#include <sys/stat.h>

#include "failing_alloc.h"

#define MAX_TOKEN ((INT64_C(1) << 53) - 1)

static redis_server *server;
static test_store store;

static int start_server(void **state)
{
    (void)state;
    server = redis_server_start(NULL);
    return verrou_register_driver(verrou_redis_driver(), NULL) == VERROU_OK ? 0 : -1;
}

static int open_store(void **state)
{
    (void)state;
    redis_text(server, "FLUSHALL", NULL);
    store = test_open(verrou_redis_driver(), test_address(server->port, NULL));
    return 0;
}

static int close_store(void **state)
{
    (void)state;
    test_close(&store);
    return 0;
}

/* ---- addresses and settings ---- */

/* Whatever is wrong with an address is refused, by a message that names it and shows no password. */
static void bad_addresses_are_refused(void **state)
{
    static const struct {
        const char *address, *named;
    } bad[] = {
        {"redis://:secret@h/x", "path"},
        {"redis://:secret@h/-1", "path"},
        {"redis://:secret@h/1/2", "path"},
        {"redis://:secret@h/0?db=0", "given once"},
        {"redis://:secret@h?db=", "db="},
        {"redis://:secret@h?db=1x", "db=1x"},
        {"redis://:secret@h?db=99999999999999999999", "db=9999"},
        {"redis://:secret@a,b", "several hosts"},
        {"redis://:secret@h?connect-timeout=0", "connect-timeout=0"},
        {"redis://:secret@h?connect-timeout=soon", "connect-timeout=soon"},
        {"redis://:secret@h?wait-replicas=-1", "wait-replicas=-1"},
        {"redis://:secret@h?wait-replicas=1001", "wait-replicas=1001"},
        {"redis://:secret@h?wait-timeout=x", "wait-timeout=x"},
        {"redis://:secret@h?ca=/x", "ca"},
        {"redis://:secret@h?cert=/x", "cert"},
        {"redis://:secret@h?server-name=x", "server-name"},
        {"redis://:secret@h?sentinel-password=secret", "sentinel-password"},
        {"rediss://:secret@h?cert=/x", "cert"},
        {"rediss://:secret@h?key=/x", "key"},
        {"rediss://:secret@h?ca=/nonexistent", "/nonexistent"},
        {"redis+unix://:secret@h/path", "redis+unix"},
        {"redis+unix://", "redis+unix"},
        {"redis+unix:///", "redis+unix"},
        {"redis+sentinel://:secret@h", "MASTER"},
        {"redis+sentinel://:secret@h/", "MASTER"},
        {"redis+sentinel://:secret@h/m/x", "path"},
        {"redis+cluster://:secret@h/1", "no other database"},
        {"redis+cluster://:secret@h?db=2", "db"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        verrou_error err = VERROU_ERROR_INIT;
        test_store refused;

        if (test_create(&refused, verrou_redis_driver(), bad[i].address, &err) != VERROU_ECONFIG)
            fail_msg("%s was not refused as it should be: %s", bad[i].address, err.message);
        if (!strstr(err.message, bad[i].named) || strstr(err.message, "secret"))
            fail_msg("%s: %s", bad[i].address, err.message);
    }
}

/* What is right is accepted. */
static void good_addresses_are_accepted(void **state)
{
    static const char *const good[] = {
        "redis://h",
        "redis://h/",
        "redis://h/15",
        "redis://h?db=3",
        "redis://[::1]:7000/0",
        "redis://u:p@h?wait-replicas=2",
        "redis+unix:///run/redis.sock?db=2",
        "redis+sentinel://a:1,b,c/mymaster/2?sentinel-password=x",
        "rediss://h",
        "redis+cluster://a,b:1/0",
        "rediss+cluster://a",
        "rediss+sentinel://a/m",
    };

    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        verrou_error err = VERROU_ERROR_INIT;
        test_store made;

        if (test_create(&made, verrou_redis_driver(), good[i], &err) != VERROU_OK)
            fail_msg("%s: %s", good[i], err.message);
        test_close(&made);
    }
}

/* A wrong password, a missing one and a missing user are told at once, for good, and without the password. */
static void refused_logins_are_final(void **state)
{
    redis_server *own =
        redis_server_start(&(redis_options){.acl = "user default off\nuser tester on >tester ~* &* +@all\nuser app on "
                                                   ">rightword ~* &* +@all\nuser open on nopass ~* &* +@all\n"});
    static const char *const logins[] = {"app:wrongword@", "nobody:wrongword@", ":wrongword@", "", "app@"};
    char address[128];

    (void)state;
    for (size_t i = 0; i < sizeof logins / sizeof logins[0]; i++) {
        verrou_error err = VERROU_ERROR_INIT;
        test_store refused;

        snprintf(address, sizeof address, "redis://%s127.0.0.1:%d", logins[i], own->port);
        assert_int_equal(test_create(&refused, verrou_redis_driver(), address, &err), VERROU_OK);
        assert_int_equal(test_open_lane(&refused, &err), VERROU_ESTORAGE);
        assert_int_equal(err.retriable, 0);
        assert_null(strstr(err.message, "word@"));
        assert_null(strstr(err.message, "wrongword"));
        refused.lane = NULL;
        test_close(&refused);
    }
    /* A user without a password is logged in by name. */
    snprintf(address, sizeof address, "redis://open@127.0.0.1:%d", own->port);
    store = test_open(verrou_redis_driver(), address);
    assert_int_equal(test_acquire(&store, "k", "o"), VERROU_OP_APPLIED);
    test_close(&store);
    redis_server_free(own);
}

/* The database of the address is the one that the locks are in. */
static void database_is_selected(void **state)
{
    (void)state;
    test_close(&store);
    store = test_open(verrou_redis_driver(), test_address(server->port, "/7"));
    assert_int_equal(test_acquire(&store, "k", "o"), VERROU_OP_APPLIED);
    assert_string_equal(redis_text(server, "GET", "k", NULL), "(nil)");
    test_close(&store);
    store = test_open(verrou_redis_driver(), test_address(server->port, "?db=7"));
    assert_int_equal(test_acquire(&store, "k", "p"), VERROU_OP_REFUSED);
    assert_string_equal(test_last.holder, "o");
}

/* ---- answers, and what is on the server ---- */

/* A lock is a string with the owner as its value and the lease as its expiry, as the original's; the counter is a hash beside it. */
static void lock_is_a_string(void **state)
{
    long long left;

    (void)state;
    assert_int_equal(test_acquire(&store, "k", "owner"), VERROU_OP_APPLIED);
    assert_string_equal(redis_text(server, "GET", "k", NULL), "owner");
    left = redis_integer(server, "PTTL", "k", NULL);
    assert_true(left > 0 && left <= 30000);
    assert_int_equal(redis_integer(server, "HGET", "verrou:fence", "f", NULL), test_last.fence);
    assert_int_equal(redis_integer(server, "DBSIZE", NULL), 2);
    assert_int_equal(test_release(&store, "k", "owner"), VERROU_OP_APPLIED);
    assert_string_equal(redis_text(server, "KEYS", "*", NULL), "verrou:fence");
}

/* Each request is answered as the table in store.h says: owner's, somebody else's and nobody's lock. */
static void requests_are_answered(void **state)
{
    (void)state;
    assert_int_equal(test_release(&store, "k", "a"), VERROU_OP_REFUSED);
    assert_int_equal(test_extend(&store, "k", "a", 1000), VERROU_OP_REFUSED);
    assert_int_equal(test_inspect(&store, "k"), VERROU_OP_REFUSED);
    assert_int_equal(test_force(&store, "k"), VERROU_OP_APPLIED);
    assert_int_equal(test_acquire(&store, "k", "a"), VERROU_OP_APPLIED);
    assert_int_equal(test_acquire(&store, "k", "b"), VERROU_OP_REFUSED);
    assert_string_equal(test_last.holder, "a");
    assert_false(test_last.holder_is_owner);
    assert_in_range(test_last.remaining_ms, 1, 30000);
    assert_int_equal(test_acquire(&store, "k", "a"), VERROU_OP_REFUSED);
    assert_true(test_last.holder_is_owner);
    assert_int_equal(test_release(&store, "k", "b"), VERROU_OP_REFUSED);
    assert_int_equal(test_extend(&store, "k", "b", 90000), VERROU_OP_REFUSED);
    assert_true(redis_integer(server, "PTTL", "k", NULL) <= 30000);
    assert_int_equal(test_extend(&store, "k", "a", 90000), VERROU_OP_APPLIED);
    assert_true(redis_integer(server, "PTTL", "k", NULL) > 30000);
    assert_int_equal(test_extend(&store, "k", "a", VERROU_FOREVER), VERROU_OP_APPLIED);
    assert_int_equal(redis_integer(server, "PTTL", "k", NULL), -1);
    assert_int_equal(test_inspect(&store, "k"), VERROU_OP_APPLIED);
    assert_string_equal(test_last.holder, "a");
    assert_true(test_last.remaining_ms == VERROU_FOREVER);
    assert_int_equal(test_force(&store, "k"), VERROU_OP_APPLIED);
    assert_int_equal(redis_integer(server, "EXISTS", "k", NULL), 0);
    assert_int_equal(test_run(&store, VERROU_OP_ACQUIRE, "k", "a", VERROU_FOREVER), VERROU_OP_APPLIED);
    assert_int_equal(redis_integer(server, "PTTL", "k", NULL), -1);
    assert_int_equal(test_last.lane, VERROU_OK);
}

/* A release is published under the name of the key, and says how many listen; the original's lock is released and waited for. */
static void release_is_published(void **state)
{
    redisContext *listener = redis_server_connect(server);
    redisReply *reply = redisCommand(listener, "SUBSCRIBE k");
    void *message = NULL;

    (void)state;
    freeReplyObject(reply);
    redis_text(server, "SET", "k", "original", "PX", "20000", "NX", NULL);
    assert_int_equal(test_acquire(&store, "k", "a"), VERROU_OP_REFUSED);
    assert_string_equal(test_last.holder, "original");
    assert_int_equal(test_release(&store, "k", "original"), VERROU_OP_APPLIED);
    assert_int_equal(test_last.others, 1);
    assert_int_equal(redisGetReply(listener, &message), REDIS_OK);
    reply = message;
    assert_string_equal(reply->element[1]->str, "k");
    freeReplyObject(reply);
    redisFree(listener);
    assert_int_equal(test_acquire(&store, "other", "a"), VERROU_OP_APPLIED);
    assert_int_equal(test_force(&store, "other"), VERROU_OP_APPLIED);
    assert_int_equal(test_last.others, 0);
}

/* Keys and owners with spaces, braces, line ends and 255 bytes are themselves and no others. */
static void any_text_is_a_key(void **state)
{
    static const char *const texts[] = {"a b", "{}", "{a}b", "a\r\nb", "\n", "*", "%s", "k\"'\\", "\xc3\xa9", " "};
    char longest[VERROU_MAX_KEY + 1];

    (void)state;
    memset(longest, 'x', VERROU_MAX_KEY);
    longest[VERROU_MAX_KEY] = '\0';
    for (size_t i = 0; i <= sizeof texts / sizeof texts[0]; i++) {
        const char *text = i < sizeof texts / sizeof texts[0] ? texts[i] : longest;

        assert_int_equal(test_acquire(&store, text, text), VERROU_OP_APPLIED);
        assert_string_equal(redis_text(server, "GET", text, NULL), text);
        assert_int_equal(test_acquire(&store, text, "b"), VERROU_OP_REFUSED);
        assert_string_equal(test_last.holder, text);
        assert_int_equal(test_extend(&store, text, text, 1000), VERROU_OP_APPLIED);
        assert_int_equal(test_force(&store, text), VERROU_OP_APPLIED);
        assert_int_equal(test_release(&store, text, text), VERROU_OP_REFUSED);
    }
}

#define LONG_KEY 60000

/* Beyond VERROU_MAX_KEY, where max_key allows it: keys that differ in the last byte only are different locks. */
static void long_keys_are_keys(void **state)
{
    static char key[LONG_KEY + 1], other[LONG_KEY + 1];
    test_watch watch = test_watch_open(&store);

    (void)state;
    memset(key, 'x', LONG_KEY);
    memcpy(other, key, LONG_KEY);
    other[LONG_KEY - 1] = 'y';
    assert_int_equal(test_acquire(&store, key, "a"), VERROU_OP_APPLIED);
    assert_string_equal(redis_text(server, "GET", key, NULL), "a");
    assert_int_equal(test_acquire(&store, other, "b"), VERROU_OP_APPLIED);
    assert_int_equal(test_acquire(&store, key, "b"), VERROU_OP_REFUSED);
    assert_string_equal(test_last.holder, "a");
    assert_int_equal(test_extend(&store, key, "a", 90000), VERROU_OP_APPLIED);
    assert_int_equal(test_inspect(&store, key), VERROU_OP_APPLIED);
    assert_int_equal(test_watch_add(&watch, key), VERROU_OK);
    assert_int_equal(test_watch_remove(&watch, key), VERROU_OK);
    assert_int_equal(test_release(&store, key, "a"), VERROU_OP_APPLIED);
    assert_int_equal(test_force(&store, other), VERROU_OP_APPLIED);
    assert_string_equal(redis_text(server, "KEYS", "*", NULL), "verrou:fence");
    test_watch_close(&watch);
}

static verrou_store *long_keyed_store(void)
{
    verrou_store_options options = VERROU_STORE_OPTIONS_INIT;
    verrou_store *opened = NULL;

    options.max_key = LONG_KEY;
    assert_int_equal(verrou_store_open(test_address(server->port, NULL), &options, &opened, NULL), VERROU_OK);
    return opened;
}

/* Waiters for such a key, which is not watched, ask again and again. */
static void long_keys_are_waited_for(void **state)
{
    static char key[LONG_KEY + 1];
    verrou_store *holders = long_keyed_store(), *waiters = long_keyed_store();
    verrou_acquire_options soon = VERROU_ACQUIRE_OPTIONS_INIT;
    verrou_lock *holder = NULL, *waiter = NULL;

    (void)state;
    memset(key, 'x', LONG_KEY);
    soon.delay_ms = 10;
    soon.timeout_ms = 300;
    assert_int_equal(verrou_lock_new(holders, key, NULL, &holder, NULL), VERROU_OK);
    assert_int_equal(verrou_lock_new(waiters, key, NULL, &waiter, NULL), VERROU_OK);
    assert_int_equal(verrou_lock_acquire(holder, NULL, NULL, NULL), VERROU_OK);
    assert_int_equal(verrou_lock_acquire(waiter, &soon, NULL, NULL), VERROU_ENOTACQUIRED);
    assert_int_equal(verrou_lock_extend(holder, 500, NULL, NULL), VERROU_OK);
    assert_int_equal(verrou_lock_acquire(waiter, NULL, NULL, NULL), VERROU_OK);
    assert_int_equal(verrou_lock_release(waiter, NULL, NULL), VERROU_OK);
    verrou_lock_free(holder);
    verrou_lock_free(waiter);
    verrou_store_close(holders);
    verrou_store_close(waiters);
}

/* ---- tokens ---- */

/* Tokens grow through release, expiry, force and a flushed server, and are the server's clock if nothing is larger. */
static void tokens_grow(void **state)
{
    uint64_t last = 0;

    (void)state;
    for (int i = 0; i < 40; i++) {
        assert_int_equal(test_acquire(&store, "k", "a"), VERROU_OP_APPLIED);
        assert_true(test_last.fence > last);
        last = test_last.fence;
        if (i % 4 == 0)
            test_release(&store, "k", "a");
        else if (i % 4 == 1)
            test_force(&store, "k");
        else if (i % 4 == 2)
            redis_text(server, "FLUSHALL", NULL);
        else
            redis_text(server, "DEL", "k", NULL);
    }
    assert_true(last > UINT64_C(1700000000000000) && last < (uint64_t)MAX_TOKEN);
}

/* A counter ahead of the clock is followed, one by one, up to the largest number that is exact everywhere. */
static void counter_in_the_future_is_followed(void **state)
{
    char text[32];

    (void)state;
    for (int i = 8; i > 0; i--) {
        snprintf(text, sizeof text, "%lld", (long long)(MAX_TOKEN - i));
        redis_integer(server, "HSET", "verrou:fence", "f", text, NULL);
        assert_int_equal(test_acquire(&store, "k", "a"), VERROU_OP_APPLIED);
        assert_true(test_last.fence == (uint64_t)(MAX_TOKEN - i + 1));
        assert_true(redis_integer(server, "HGET", "verrou:fence", "f", NULL) == MAX_TOKEN - i + 1);
        test_release(&store, "k", "a");
    }
}

/* Acquiring what is one's own already draws a new token, and says that it is held. */
static void repeated_acquire_draws_anew(void **state)
{
    uint64_t first;

    (void)state;
    test_acquire(&store, "k", "a");
    first = test_last.fence;
    assert_int_equal(test_acquire(&store, "k", "a"), VERROU_OP_REFUSED);
    assert_true(test_last.holder_is_owner && test_last.fence > first);
}

/* A counter of another type leaves the clock, and the store says that it stores no tokens. The lock is not broken by it. */
static void counter_of_wrong_type_is_done_without(void **state)
{
    uint64_t first;

    (void)state;
    redis_text(server, "SET", "verrou:fence", "x", NULL);
    assert_int_equal(test_acquire(&store, "k", "a"), VERROU_OP_APPLIED);
    first = test_last.fence;
    assert_true(first > UINT64_C(1700000000000000));
    assert_false(store.driver->caps(store.state) & VERROU_CAP_FENCE_STORED);
    assert_string_equal(test_event, "store.no_token_counter");
    test_release(&store, "k", "a");
    assert_int_equal(test_acquire(&store, "k", "a"), VERROU_OP_APPLIED);
    assert_true(test_last.fence > first);
    assert_string_equal(redis_text(server, "GET", "verrou:fence", NULL), "x");
}

/* A counter that has no exact number left leaves the clock as well, and is not written to. */
static void counter_at_its_end_is_done_without(void **state)
{
    static const char *const ends[] = {"9007199254740991", "9007199254740992", "9300000000000000000"};

    (void)state;
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++) {
        uint64_t first;

        close_store(NULL);
        open_store(NULL);
        redis_text(server, "HSET", "verrou:fence", "f", ends[i], NULL);
        assert_int_equal(test_acquire(&store, "k", "a"), VERROU_OP_APPLIED);
        first = test_last.fence;
        if (first <= UINT64_C(1700000000000000) || first >= MAX_TOKEN)
            fail_msg("after %s: the token %llu", ends[i], (unsigned long long)first);
        assert_false(store.driver->caps(store.state) & VERROU_CAP_FENCE_STORED);
        assert_string_equal(test_event, "store.no_token_counter");
        test_release(&store, "k", "a");
        assert_int_equal(test_acquire(&store, "k", "a"), VERROU_OP_APPLIED);
        assert_true(test_last.fence > first);
        assert_string_equal(redis_text(server, "HGET", "verrou:fence", "f", NULL), ends[i]);
    }
}

/* Without the right to the counter the clock is used; that is found out once. A key that may not be used says nothing of the counter. */
static void counter_without_right(void **state)
{
    redis_server *own =
        redis_server_start(&(redis_options){.acl = "user default on nopass ~* &* +@all\nuser app on >pw ~app:* &* "
                                                   "+@all\nuser bare on >pw ~app:* &* +@all -ping -info -client\n"});
    char address[96];

    (void)state;
    for (int bare = 0; bare < 2; bare++) {
        snprintf(address, sizeof address, "redis://%s:pw@127.0.0.1:%d", bare ? "bare" : "app", own->port);
        store = test_open(verrou_redis_driver(), address);
        assert_int_equal(test_acquire(&store, "other", "a"), VERROU_OP_FAILED);
        assert_string_equal(test_last.code, "NOPERM");
        assert_true(store.driver->caps(store.state) & VERROU_CAP_FENCE_STORED);
        assert_int_equal(test_acquire(&store, "app:k", "a"), VERROU_OP_APPLIED);
        assert_true(test_last.fence > UINT64_C(1700000000000000));
        assert_false(store.driver->caps(store.state) & VERROU_CAP_FENCE_STORED);
        assert_int_equal(test_release(&store, "app:k", "a"), VERROU_OP_APPLIED);
        redis_text(own, "CONFIG", "RESETSTAT", NULL);
        assert_int_equal(test_acquire(&store, "app:k", "a"), VERROU_OP_APPLIED);
        assert_int_equal(redis_calls(own, "evalsha"), 1);
        assert_int_equal(test_release(&store, "app:k", "a"), VERROU_OP_APPLIED);
        test_close(&store);
    }
    redis_server_free(own);
}

/* Without the right to publish a lock is released all the same. */
static void publish_without_right(void **state)
{
    redis_server *own = redis_server_start(
        &(redis_options){.acl = "user default on nopass ~* &* +@all\nuser app on >pw ~* resetchannels +@all\n"});
    char address[96];

    (void)state;
    snprintf(address, sizeof address, "redis://app:pw@127.0.0.1:%d", own->port);
    store = test_open(verrou_redis_driver(), address);
    assert_int_equal(test_acquire(&store, "k", "a"), VERROU_OP_APPLIED);
    assert_int_equal(test_release(&store, "k", "a"), VERROU_OP_APPLIED);
    assert_int_equal(test_last.others, -1);
    assert_string_equal(test_event, "store.publish_refused");
    assert_int_equal(redis_integer(own, "EXISTS", "k", NULL), 0);
    test_close(&store);
    redis_server_free(own);
}

/* ---- releases that are reported ---- */

static struct {
    int fd;
    int active, released;
} heard;

static void wait_readable(int fd)
{
    struct pollfd in = {fd, POLLIN, 0};

    assert_int_equal(poll(&in, 1, PROCESS_PATIENCE_MS), 1);
}

/* What the first report leads to: somebody else takes the lock and releases it, before the reading goes on. */
static void on_report(void *context, verrou_watch_event event, const char *key, size_t key_len)
{
    (void)context, (void)key, (void)key_len;
    if (event == VERROU_WATCH_ACTIVE) {
        heard.active++;
    } else if (++heard.released == 1) {
        redis_text(server, "PUBLISH", "k", "somebody", NULL);
        wait_readable(heard.fd);
    }
}

/* A release that arrives after an earlier one was reported is reported as well, though it is read in the same call. */
static void second_release_is_reported(void **state)
{
    test_watch watch = test_watch_open(&store);

    (void)state;
    memset(&heard, 0, sizeof heard);
    heard.fd = store.driver->watch_fd(store.state, watch.watch);
    assert_int_equal(test_watch_add(&watch, "k"), VERROU_OK);
    while (heard.active == 0) {
        wait_readable(heard.fd);
        assert_int_equal(store.driver->watch_read(store.state, watch.watch, on_report, NULL, NULL), VERROU_OK);
    }
    redis_text(server, "PUBLISH", "k", "somebody", NULL);
    while (heard.released == 0) {
        wait_readable(heard.fd);
        assert_int_equal(store.driver->watch_read(store.state, watch.watch, on_report, NULL, NULL), VERROU_OK);
    }
    assert_int_equal(heard.released, 2);
    test_watch_close(&watch);
}

/* ---- what is not a lock ---- */

/* A key of another type, or a string that can be no owner, is left alone by every request, with a message that says so. */
static void foreign_values_are_left_alone(void **state)
{
    static const verrou_op_kind kinds[] = {VERROU_OP_ACQUIRE, VERROU_OP_RELEASE, VERROU_OP_EXTEND, VERROU_OP_FORCE,
                                           VERROU_OP_INSPECT};
    char longer[VERROU_MAX_OWNER + 2];

    (void)state;
    memset(longer, 'x', sizeof longer - 1);
    longer[sizeof longer - 1] = '\0';
    redis_text(server, "RPUSH", "list", "x", NULL);
    redis_text(server, "SET", "empty", "", NULL);
    redis_text(server, "SET", "long", longer, NULL);
    redis_text(server, "SETRANGE", "zero", "3", "x", NULL);
    redis_text(server, "SET", "bytes", "\x01\xff", NULL);
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        bool owned = kinds[i] == VERROU_OP_RELEASE || kinds[i] == VERROU_OP_EXTEND;
        static const char *const keys[] = {"list", "empty", "long", "zero", "bytes"};

        for (size_t k = 0; k < sizeof keys / sizeof keys[0]; k++) {
            test_run(&store, kinds[i], keys[k], kinds[i] > VERROU_OP_EXTEND ? NULL : "a", 1000);
            if (owned && k > 0) {
                assert_int_equal(test_last.result, VERROU_OP_REFUSED);
                continue;
            }
            if (test_last.result != VERROU_OP_FAILED)
                fail_msg("request %d on %s: %d %s", (int)kinds[i], keys[k], (int)test_last.result, test_last.holder);
            assert_string_equal(test_last.code, "WRONGTYPE");
            assert_non_null(strstr(test_last.text, "used by something else"));
            assert_int_equal(test_last.lane, VERROU_OK);
        }
    }
    assert_int_equal(redis_integer(server, "EXISTS", "list", "empty", "long", "zero", "bytes", NULL), 5);
    assert_string_equal(redis_text(server, "GET", "bytes", NULL), "\x01\xff");
    assert_int_equal(redis_integer(server, "PTTL", "bytes", NULL), -1);
}

/* ---- scripts that the server has forgotten ---- */

static void scripts_are_sent_again(void **state)
{
    verrou_op ops[3] = {test_op(VERROU_OP_ACQUIRE, "k", "a", 30000), test_op(VERROU_OP_EXTEND, "k", "a", 60000),
                        test_op(VERROU_OP_RELEASE, "k", "a", 0)};

    (void)state;
    redis_text(server, "SCRIPT", "FLUSH", NULL);
    assert_int_equal(test_acquire(&store, "k", "a"), VERROU_OP_APPLIED);
    assert_int_equal(test_release(&store, "k", "a"), VERROU_OP_APPLIED);
    redis_text(server, "SCRIPT", "FLUSH", NULL);
    assert_int_equal(test_execute(&store, ops, 3, 5000, NULL), VERROU_OK);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(ops[i].result, VERROU_OP_APPLIED);
        test_op_done(&ops[i]);
    }
    redis_text(server, "CONFIG", "RESETSTAT", NULL);
    assert_int_equal(test_acquire(&store, "k", "a"), VERROU_OP_APPLIED);
    assert_int_equal(redis_calls(server, "eval"), 0);
    assert_int_equal(redis_calls(server, "evalsha"), 1);
}

/* A server that was restarted while nobody asked is noticed before anything is sent: nothing is unknown. */
static void restart_at_rest_is_noticed(void **state)
{
    redis_server *own = redis_server_start(NULL);
    verrou_error err = VERROU_ERROR_INIT;
    verrou_op op;

    (void)state;
    store = test_open(verrou_redis_driver(), test_address(own->port, NULL));
    assert_int_equal(test_acquire(&store, "k", "a"), VERROU_OP_APPLIED);
    redis_server_kill(own);
    redis_server_restart(own);
    op = test_op(VERROU_OP_ACQUIRE, "k", "b", 30000);
    op.sent_ms += 1000;
    assert_int_equal(test_execute(&store, &op, 1, 5000, &err), VERROU_ESTORAGE);
    assert_int_equal(op.result, VERROU_OP_UNSENT);
    assert_int_equal(err.retriable, 1);
    test_close_lane(&store);
    assert_int_equal(test_open_lane(&store, &err), VERROU_OK);
    assert_int_equal(test_acquire(&store, "k", "b"), VERROU_OP_APPLIED);
    test_op_done(&op);
    test_close(&store);
    redis_server_free(own);
}

/* ---- errors of the server ---- */

/* The last request was not carried out for a passing reason. */
static void expect_retry(const char *code)
{
    if (test_last.result != VERROU_OP_RETRY || strcmp(test_last.code, code) != 0 || test_last.retriable != 1)
        fail_msg("expected RETRY %s, got %d %s: %s", code, (int)test_last.result, test_last.code, test_last.text);
}

/* OOM, NOREPLICAS, MISCONF: not carried out, the connection stays, and when it is over the request gets through. */
static void passing_errors_are_retried(void **state)
{
    static const struct {
        const char *code, *name, *on, *off;
    } cases[] = {{"OOM", "maxmemory", "1", "0"}, {"NOREPLICAS", "min-replicas-to-write", "1", "0"}};

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        redis_text(server, "CONFIG", "SET", cases[i].name, cases[i].on, NULL);
        test_acquire(&store, "k", "a");
        redis_text(server, "CONFIG", "SET", cases[i].name, cases[i].off, NULL);
        expect_retry(cases[i].code);
        assert_int_equal(test_last.lane, VERROU_OK);
        assert_int_equal(redis_integer(server, "EXISTS", "k", NULL), 0);
        assert_int_equal(test_acquire(&store, "k", "a"), VERROU_OP_APPLIED);
        assert_int_equal(test_release(&store, "k", "a"), VERROU_OP_APPLIED);
    }
}

static void failed_snapshot_is_retried(void **state)
{
    redis_server *own = redis_server_start(
        &(redis_options){.config = "save 3600 1000000\ndbfilename snapshot\nrdb-save-incremental-fsync no\n"});
    char path[PROCESS_PATH + 16];

    (void)state;
    store = test_open(verrou_redis_driver(), test_address(own->port, NULL));
    /* A folder in the place of the file: the snapshot cannot be renamed to it. */
    snprintf(path, sizeof path, "%s/snapshot", own->folder);
    assert_int_equal(mkdir(path, 0700), 0);
    redis_text(own, "SET", "x", "y", NULL);
    redis_text(own, "BGSAVE", NULL);
    redis_wait_info(own, "persistence", "rdb_last_bgsave_status", "err");
    test_acquire(&store, "k", "a");
    expect_retry("MISCONF");
    assert_int_equal(test_last.lane, VERROU_OK);
    redis_text(own, "CONFIG", "SET", "stop-writes-on-bgsave-error", "no", NULL);
    assert_int_equal(test_acquire(&store, "k", "a"), VERROU_OP_APPLIED);
    test_close(&store);
    redis_server_free(own);
}

/* READONLY: the lane is closed as well, since another server may be the master. */
static void readonly_closes_the_lane(void **state)
{
    redis_server *own = redis_server_start(&(redis_options){.replica_of = server});

    (void)state;
    store = test_open(verrou_redis_driver(), test_address(own->port, NULL));
    test_acquire(&store, "k", "a");
    expect_retry("READONLY");
    assert_int_equal(test_last.lane, VERROU_ESTORAGE);
    test_close(&store);
    redis_server_free(own);
}

/* Let a server run a script without end, and return when it says that it is busy. redisFree() the connection after SCRIPT KILL. */
static redisContext *keep_busy(const redis_server *own)
{
    redisContext *busy = redis_server_connect(own);
    bool is_busy = false;
    int done = 0;

    redisAppendCommand(busy, "EVAL %s 0", "while true do end");
    while (!done)
        redisBufferWrite(busy, &done);
    while (!is_busy) {
        redisReply *reply = redis_command(own, "PING", NULL);

        is_busy = reply->type == REDIS_REPLY_ERROR;
        freeReplyObject(reply);
    }
    return busy;
}

/* BUSY: while somebody's script runs for too long. */
static void busy_server_is_retried(void **state)
{
    redis_server *own = redis_server_start(&(redis_options){.config = "busy-reply-threshold 1\n"});
    redisContext *busy;

    (void)state;
    store = test_open(verrou_redis_driver(), test_address(own->port, NULL));
    busy = keep_busy(own);
    test_acquire(&store, "k", "a");
    expect_retry("BUSY");
    assert_int_equal(test_last.lane, VERROU_OK);
    redis_text(own, "SCRIPT", "KILL", NULL);
    redisFree(busy);
    while (test_acquire(&store, "k", "a") == VERROU_OP_RETRY)
        assert_string_equal(test_last.code, "BUSY");
    assert_int_equal(test_last.result, VERROU_OP_APPLIED);
    test_close(&store);
    redis_server_free(own);
}

/* A busy server refuses to kill the connection of a lost request as well: it is asked again, and the late request changes nothing. */
static void refused_kill_is_repeated(void **state)
{
    redis_server *own = redis_server_start(&(redis_options){.config = "busy-reply-threshold 1\n"});
    fault_proxy *proxy = proxy_start(own->port);
    redisContext *busy;
    void *lost;
    verrou_op op;

    (void)state;
    store = test_open(verrou_redis_driver(), test_address(proxy_port(proxy), NULL));
    lost = store.lane;
    assert_int_equal(test_open_lane(&store, NULL), VERROU_OK);
    assert_int_equal(test_acquire(&store, "late", "me"), VERROU_OP_APPLIED);
    proxy_set(proxy, PROXY_HOLD_REQUEST, .match = "EVALSHA");
    op = test_op(VERROU_OP_EXTEND, "late", "me", 500);
    store.driver->execute(store.state, lost, (verrou_op *[]){&op}, 1, verrou_now_ms() + 300, NULL);
    assert_int_equal(op.result, VERROU_OP_UNKNOWN);
    test_op_done(&op);
    store.driver->close(store.state, lost);
    busy = keep_busy(own);
    test_extend(&store, "late", "me", 60000);
    expect_retry("BUSY");
    redis_text(own, "SCRIPT", "KILL", NULL);
    redisFree(busy);
    while (test_extend(&store, "late", "me", 60000) == VERROU_OP_RETRY)
        assert_string_equal(test_last.code, "BUSY");
    assert_int_equal(test_last.result, VERROU_OP_APPLIED);
    proxy_let_go(proxy);
    assert_true(redis_integer(own, "PTTL", "late", NULL) > 500);
    test_close(&store);
    proxy_stop(proxy);
    redis_server_free(own);
}

/* LOADING: a server that reads its data. */
static void loading_server_is_retried(void **state)
{
    redis_server *own = redis_server_start(&(redis_options){.config = "enable-debug-command yes\nkey-load-delay 0\n"});
    redisContext *loader = redis_server_connect(own);
    int done = 0;

    (void)state;
    store = test_open(verrou_redis_driver(), test_address(own->port, NULL));
    redis_text(own, "DEBUG", "POPULATE", "20000", NULL);
    redis_text(own, "CONFIG", "SET", "key-load-delay", "1000", "loading-process-events-interval-bytes", "1024", NULL);
    redisAppendCommand(loader, "DEBUG RELOAD");
    while (!done)
        redisBufferWrite(loader, &done);
    while (test_acquire(&store, "k", "a") == VERROU_OP_APPLIED)
        test_release(&store, "k", "a");
    expect_retry("LOADING");
    assert_int_equal(test_last.lane, VERROU_ESTORAGE);
    redisFree(loader);
    test_close(&store);
    redis_server_kill(own);
    redis_server_free(own);
}

/* ---- replicas ---- */

/* What no replica has acknowledged is given back; with a replica it is kept. A lease that is extended stays as the store has it. */
static void acknowledgement_by_replicas(void **state)
{
    redis_server *replica;
    long long left;

    (void)state;
    test_close(&store);
    store = test_open(verrou_redis_driver(), test_address(server->port, "?wait-replicas=1&wait-timeout=50ms"));
    test_acquire(&store, "k", "a");
    expect_retry("NOREPLICAS");
    assert_int_equal(test_last.lane, VERROU_OK);
    assert_int_equal(redis_integer(server, "EXISTS", "k", NULL), 0);
    redis_text(server, "SET", "k", "a", "PX", "20000", NULL);
    test_extend(&store, "k", "a", 60000);
    assert_int_equal(test_last.result, VERROU_OP_UNKNOWN); /* done, and perhaps to an earlier end */
    assert_string_equal(redis_text(server, "GET", "k", NULL), "a");
    /* The acquire repeated after a lost answer finds its own lock, which nobody has acknowledged either. */
    test_acquire(&store, "k", "a");
    expect_retry("NOREPLICAS");
    redis_text(server, "DEL", "k", NULL);

    replica = redis_server_start(&(redis_options){.replica_of = server});
    test_close(&store);
    store = test_open(verrou_redis_driver(), test_address(server->port, "?wait-replicas=1&wait-timeout=10s"));
    assert_int_equal(test_acquire(&store, "k", "a"), VERROU_OP_APPLIED);
    assert_string_equal(redis_text(replica, "GET", "k", NULL), "a");
    assert_int_equal(test_extend(&store, "k", "a", 60000), VERROU_OP_APPLIED);
    left = redis_integer(replica, "PTTL", "k", NULL);
    assert_true(left > 30000);
    assert_int_equal(test_acquire(&store, "k", "a"), VERROU_OP_REFUSED);
    assert_int_equal(test_release(&store, "k", "a"), VERROU_OP_APPLIED);
    redis_server_free(replica);
}

/* ---- batches ---- */

/* Each request is one command, and nothing else is sent. */
static void request_is_one_command(void **state)
{
    (void)state;
    test_acquire(&store, "k", "a");
    test_release(&store, "k", "a");
    redis_text(server, "CONFIG", "RESETSTAT", NULL);
    assert_int_equal(test_acquire(&store, "k", "a"), VERROU_OP_APPLIED);
    assert_int_equal(test_acquire(&store, "k", "b"), VERROU_OP_REFUSED);
    assert_int_equal(test_extend(&store, "k", "a", 1000), VERROU_OP_APPLIED);
    assert_int_equal(test_inspect(&store, "k"), VERROU_OP_APPLIED);
    assert_int_equal(test_release(&store, "k", "a"), VERROU_OP_APPLIED);
    assert_int_equal(redis_calls(server, "evalsha"), 5);
    assert_int_equal(redis_calls(server, "ping") + redis_calls(server, "eval") + redis_calls(server, "client|kill"), 0);
}

/* 256 requests are answered in order, and are few reads for the server. */
static void batch_is_written_at_once(void **state)
{
    static verrou_op ops[256];
    static char keys[256][16];
    long long reads;

    (void)state;
    for (int i = 0; i < 256; i++) {
        snprintf(keys[i], sizeof keys[i], "k%d", i / 2);
        ops[i] = test_op(VERROU_OP_ACQUIRE, keys[i], i % 2 ? "b" : "a", 30000);
    }
    reads = atoll(redis_info(server, "stats", "total_reads_processed"));
    assert_int_equal(test_execute(&store, ops, 256, 5000, NULL), VERROU_OK);
    reads = atoll(redis_info(server, "stats", "total_reads_processed")) - reads;
    assert_true(reads <= 8);
    for (int i = 0; i < 256; i++) {
        assert_int_equal(ops[i].result, i % 2 ? VERROU_OP_REFUSED : VERROU_OP_APPLIED);
        if (i % 2)
            assert_string_equal(ops[i].holder, "a");
        test_op_done(&ops[i]);
    }
}

/* A request that fails does not fail its neighbours, wherever it stands in the batch. */
static void failure_stays_alone(void **state)
{
    (void)state;
    redis_text(server, "RPUSH", "list", "x", NULL);
    for (int bad = 0; bad < 3; bad++) {
        verrou_op ops[3];

        for (int i = 0; i < 3; i++)
            ops[i] = test_op(VERROU_OP_ACQUIRE, i == bad ? "list" : i == 0 ? "a" : i == 1 ? "b" : "c", "o", 30000);
        assert_int_equal(test_execute(&store, ops, 3, 5000, NULL), VERROU_OK);
        for (int i = 0; i < 3; i++) {
            assert_int_equal(ops[i].result, i == bad ? VERROU_OP_FAILED : VERROU_OP_APPLIED);
            test_op_done(&ops[i]);
        }
        redis_text(server, "DEL", "a", "b", "c", NULL);
    }
}

/* ---- memory ---- */

/* Every allocation of the process can be made to fail, hiredis' among them, where no sanitizer has taken malloc's place. */
#if defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#if defined(__has_feature)
#if !__has_feature(address_sanitizer) && !__has_feature(thread_sanitizer)
#define OWN_MALLOC
#endif
#else
#define OWN_MALLOC
#endif
#endif

static bool in_driver;

#ifdef OWN_MALLOC
extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_realloc(void *block, size_t size);

void *malloc(size_t size)
{
    return in_driver && failing_alloc_now() ? NULL : __libc_malloc(size);
}

void *calloc(size_t count, size_t size)
{
    return in_driver && failing_alloc_now() ? NULL : __libc_calloc(count, size);
}

void *realloc(void *block, size_t size)
{
    return in_driver && failing_alloc_now() ? NULL : __libc_realloc(block, size);
}
#endif

#define LIFE_KEYS 20

/* Open, acquire twenty locks, close. What is applied is on the server, what is not is not, and what is unknown may be. */
static bool whole_life(const char *address)
{
    char keys[LIFE_KEYS][8];
    verrou_op ops[LIFE_KEYS];
    verrou_error err = VERROU_ERROR_INIT;
    test_store own = {NULL, NULL, NULL};
    bool worked;

    for (int i = 0; i < LIFE_KEYS; i++) {
        snprintf(keys[i], sizeof keys[i], "m%d", i);
        ops[i] = test_op(VERROU_OP_ACQUIRE, keys[i], "o", 30000);
    }
    in_driver = true;
    worked =
        test_create(&own, verrou_redis_driver(), address, &err) == VERROU_OK && test_open_lane(&own, &err) == VERROU_OK;
    if (worked)
        test_execute(&own, ops, LIFE_KEYS, 5000, &err);
    in_driver = false;
    failing_alloc.until = -1;
    for (int i = 0; i < LIFE_KEYS; i++) {
        bool there = redis_integer(server, "EXISTS", keys[i], NULL) != 0;

        worked = worked && ops[i].result == VERROU_OP_APPLIED;
        if (ops[i].result != VERROU_OP_UNKNOWN && there != (ops[i].result == VERROU_OP_APPLIED))
            fail_msg("request %d was answered %d, and the key is%s there", i, (int)ops[i].result, there ? "" : " not");
        test_op_done(&ops[i]);
    }
    test_close(&own);
    redis_text(server, "FLUSHALL", NULL);
    return worked;
}

/* With any one allocation failing nothing leaks, nothing crashes and no answer is wrong. */
static void memory_runs_out(void **state)
{
    const char *address = test_address(server->port, "?prefix=p&wait-replicas=0");
    long n = 0;

    (void)state;
    do {
        long before = failing_alloc.live;
        bool worked;

        failing_alloc.failed = false;
        failing_alloc.until = n++;
        worked = whole_life(address);
        assert_int_equal(failing_alloc.live, before);
        assert_true(worked || failing_alloc.failed);
    } while (failing_alloc.failed);
    assert_true(n > 5);
}

int main(void)
{
#define ON_STORE(test) cmocka_unit_test_setup_teardown(test, open_store, close_store)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_addresses_are_refused),
        cmocka_unit_test(good_addresses_are_accepted),
        cmocka_unit_test(refused_logins_are_final),
        ON_STORE(database_is_selected),
        ON_STORE(lock_is_a_string),
        ON_STORE(requests_are_answered),
        ON_STORE(release_is_published),
        ON_STORE(any_text_is_a_key),
        ON_STORE(long_keys_are_keys),
        ON_STORE(long_keys_are_waited_for),
        ON_STORE(tokens_grow),
        ON_STORE(counter_in_the_future_is_followed),
        ON_STORE(repeated_acquire_draws_anew),
        ON_STORE(counter_of_wrong_type_is_done_without),
        ON_STORE(counter_at_its_end_is_done_without),
        cmocka_unit_test(counter_without_right),
        cmocka_unit_test(publish_without_right),
        ON_STORE(second_release_is_reported),
        ON_STORE(foreign_values_are_left_alone),
        ON_STORE(scripts_are_sent_again),
        cmocka_unit_test(restart_at_rest_is_noticed),
        ON_STORE(passing_errors_are_retried),
        cmocka_unit_test(failed_snapshot_is_retried),
        cmocka_unit_test(readonly_closes_the_lane),
        cmocka_unit_test(busy_server_is_retried),
        cmocka_unit_test(refused_kill_is_repeated),
        cmocka_unit_test(loading_server_is_retried),
        ON_STORE(acknowledgement_by_replicas),
        ON_STORE(request_is_one_command),
        ON_STORE(batch_is_written_at_once),
        ON_STORE(failure_stays_alone),
        cmocka_unit_test(memory_runs_out),
    };

    failing_alloc_install();
    return cmocka_run_group_tests(tests, start_server, redis_teardown);
}
