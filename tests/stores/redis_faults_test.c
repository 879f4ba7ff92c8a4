/*
 * redis_faults_test.c - the Redis store through the library while something between it and the server goes wrong.
 *
 * A proxy loses, delays, repeats and cuts what passes through it. Each answer of the library is compared with what the server has: it is
 * right, or it is "unknown", and in the end nobody's lease is left behind.
 */
#include "redis_testing.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/wait.h>

#define KEY "account"
#define LEASE_MS 30000
#define LONGER_MS 60000

static redis_server *server;
static fault_proxy *proxy;

static int start_server(void **state)
{
    (void)state;
    server = redis_server_start(&(redis_options){.config = "appendonly yes\nappendfsync always\n"});
    return verrou_register_driver(verrou_redis_driver(), NULL) == VERROU_OK ? 0 : -1;
}

static int start_proxy(void **state)
{
    (void)state;
    redis_text(server, "FLUSHALL", NULL);
    proxy = proxy_start(server->port);
    return 0;
}

static int stop_proxy(void **state)
{
    (void)state;
    proxy_stop(proxy);
    proxy = NULL;
    return 0;
}

/* ---- stores and locks ---- */

static verrou_store *open_at(const char *address)
{
    verrou_store *store = NULL;
    verrou_error err = VERROU_ERROR_INIT;

    if (verrou_store_open(address, NULL, &store, &err) != VERROU_OK)
        fail_msg("%s: %s", address, err.message);
    return store;
}

static verrou_lock *new_lock(verrou_store *store, int64_t ttl_ms)
{
    verrou_lock_options options = VERROU_LOCK_OPTIONS_INIT;
    verrou_lock *lock = NULL;

    options.ttl_ms = ttl_ms;
    assert_int_equal(verrou_lock_new(store, KEY, &options, &lock, NULL), VERROU_OK);
    return lock;
}

/* For the beginning of a test, when nothing is wrong but that the machine may be slow for a short limit. */
static void must_acquire(verrou_lock *lock)
{
    verrou_acquire_options options = VERROU_ACQUIRE_OPTIONS_INIT;
    int64_t limit_ms = verrou_now_ms() + PROCESS_PATIENCE_MS / 2;

    options.timeout_ms = PROCESS_PATIENCE_MS / 2;
    while (verrou_lock_acquire(lock, &options, NULL, NULL) != VERROU_OK)
        assert_true(verrou_now_ms() < limit_ms);
}

static bool exists(void)
{
    return redis_integer(server, "EXISTS", KEY, NULL) != 0;
}

static void wait_until_free(const char *what)
{
    int64_t limit_ms = verrou_now_ms() + PROCESS_PATIENCE_MS / 4;

    while (exists()) {
        if (verrou_now_ms() > limit_ms)
            fail_msg("%s: the lease of %s is left behind", what, redis_text(server, "GET", KEY, NULL));
        process_pause();
    }
}

/* ---- one fault, one call ---- */

typedef enum call_kind { ACQUIRE, IMMEDIATELY, RELEASE, EXTEND, FORCE, INSPECT, CALLS } call_kind;
static const char *const call_names[CALLS] = {"acquire", "acquire_immediately", "release", "extend", "force",
                                              "inspect"};

typedef struct scene {
    verrou_store *store;
    verrou_lock *lock;
    call_kind call;
    verrou_info info;
    verrou_status status;
    verrou_error err;
    char what[96];
} scene;

/* A store behind the proxy with so much time for a request, and a lock that is held if the call is not to acquire it. */
static void scene_open(scene *s, call_kind call, int limit_ms, const char *what)
{
    char settings[48];

    *s = (scene){.call = call, .info = VERROU_INFO_INIT, .err = VERROU_ERROR_INIT};
    snprintf(s->what, sizeof s->what, "%s, %s", call_names[call], what);
    snprintf(settings, sizeof settings, "?timeout=%dms&lanes=1", limit_ms);
    s->store = open_at(test_address(proxy_port(proxy), settings));
    s->lock = new_lock(s->store, LEASE_MS);
    must_acquire(s->lock); /* connects, in any case */
    if (call < RELEASE)
        assert_int_equal(verrou_lock_release(s->lock, NULL, NULL), VERROU_OK);
}

/* Time for a request and its repetitions, where the limit of one request is much less. */
static const verrou_call_options patient = {sizeof patient, PROCESS_PATIENCE_MS / 2, VERROU_FOREVER, 0};

static void scene_call(scene *s, const verrou_call_options *options)
{
    switch (s->call) {
    case ACQUIRE:
        s->status = verrou_lock_acquire(s->lock, NULL, NULL, &s->err);
        break;
    case IMMEDIATELY:
        s->status = verrou_lock_acquire_immediately(s->lock, NULL, &s->err);
        break;
    case RELEASE:
        s->status = verrou_lock_release(s->lock, options, &s->err);
        break;
    case EXTEND:
        s->status = verrou_lock_extend(s->lock, LONGER_MS, options, &s->err);
        break;
    case FORCE:
        s->status = verrou_lock_force_release(s->lock, options, &s->err);
        break;
    default:
        s->status = verrou_lock_inspect(s->lock, options, &s->info, &s->err);
        break;
    }
}

static bool is_ours(const scene *s)
{
    char *owner = NULL;
    bool ours;

    assert_int_equal(verrou_lock_owner(s->lock, &owner, NULL), VERROU_OK);
    ours = strcmp(redis_text(server, "GET", KEY, NULL), owner) == 0;
    verrou_free(owner);
    return ours;
}

/* What was said is so. */
static void scene_compare(scene *s)
{
    bool there = exists();
    bool right = s->status == VERROU_EUNKNOWN && s->call != INSPECT;

    if (s->status == VERROU_OK && s->call <= IMMEDIATELY)
        right = there && is_ours(s) && verrou_lock_check(s->lock) == VERROU_OK;
    else if (s->status == VERROU_OK && (s->call == RELEASE || s->call == FORCE))
        right = !there;
    else if (s->status == VERROU_OK && s->call == EXTEND)
        right = there && redis_integer(server, "PTTL", KEY, NULL) > LEASE_MS;
    else if (s->status == VERROU_OK)
        right = there && s->info.locked && is_ours(s);
    else if (s->status == VERROU_ESTORAGE && s->call <= IMMEDIATELY)
        right = !there;
    else if (s->status == VERROU_ESTORAGE && s->call == EXTEND)
        right = there && redis_integer(server, "PTTL", KEY, NULL) <= LEASE_MS;
    else if (s->status == VERROU_ESTORAGE)
        right = there;
    if (!right)
        fail_msg("%s: %s (%s), and the key is%s there", s->what, verrou_status_name(s->status), s->err.message,
                 there ? "" : " not");
}

/* The fault is over: the store works again and nothing is left of the lease. */
static void scene_close(scene *s)
{
    if (s->call == EXTEND || s->call == INSPECT || (s->call <= IMMEDIATELY && s->status == VERROU_OK) ||
        ((s->call == RELEASE || s->call == FORCE) && s->status == VERROU_ESTORAGE) ||
        (s->call == FORCE && s->status == VERROU_EUNKNOWN)) {
        verrou_status status = verrou_lock_release(s->lock, NULL, &s->err);

        if (status != VERROU_OK && !(s->call == FORCE && status == VERROU_ENOTOWNED))
            fail_msg("%s: then release: %s", s->what, s->err.message);
    }
    wait_until_free(s->what);
    verrou_lock_free(s->lock);
    verrou_store_close(s->store);
}

static void must_be_ok(const scene *s)
{
    if (s->status != VERROU_OK)
        fail_msg("%s: %s", s->what, s->err.message);
}

/* A fault that happens once is got over: the request is repeated and the answer is right. */
static void single_faults_are_got_over(void **state)
{
    static const struct {
        fault_kind kind;
        const char *name;
    } faults[] = {{PROXY_DROP_REQUEST, "request lost"},
                  {PROXY_DROP_REPLY, "reply lost"},
                  {PROXY_DUPLICATE_REPLY, "reply twice"},
                  {PROXY_HOLD_REPLY, "reply too late"},
                  {PROXY_HOLD_REQUEST, "request too late"}};

    (void)state;
    for (size_t f = 0; f < sizeof faults / sizeof faults[0]; f++) {
        for (call_kind call = ACQUIRE; call < CALLS; call++) {
            scene s;

            scene_open(&s, call, 400, faults[f].name);
            proxy_set(proxy, faults[f].kind, .match = "EVALSHA");
            scene_call(&s, &patient);
            scene_compare(&s);
            if (call != IMMEDIATELY || f < 3) /* which has no time for more than one request */
                must_be_ok(&s);
            proxy_let_go(proxy);
            if (s.status == VERROU_OK)
                scene_compare(&s);
            scene_close(&s);
            proxy_clear(proxy);
        }
    }
}

/* A reply that is cut off anywhere is no reply. */
static void truncated_replies_are_none(void **state)
{
    char name[32];

    (void)state;
    for (size_t bytes = 0; bytes < 40; bytes += bytes < 10 ? 1 : 7) {
        for (call_kind call = ACQUIRE; call < CALLS; call++) {
            scene s;

            snprintf(name, sizeof name, "reply cut at %zu", bytes);
            scene_open(&s, call, 5000, name);
            proxy_set(proxy, PROXY_TRUNCATE_REPLY, .match = "EVALSHA", .bytes = bytes);
            scene_call(&s, &patient);
            scene_compare(&s);
            must_be_ok(&s);
            scene_close(&s);
            proxy_clear(proxy);
        }
    }
}

/* While every answer is lost nothing is claimed, and what was done in secret is undone when answers come again. */
static void lasting_loss_is_unknown(void **state)
{
    static const fault_kind kinds[] = {PROXY_DROP_REQUEST, PROXY_DROP_REPLY, PROXY_HOLD_REPLY};

    (void)state;
    for (size_t f = 0; f < sizeof kinds / sizeof kinds[0]; f++) {
        for (call_kind call = ACQUIRE; call < CALLS; call++) {
            scene s;

            scene_open(&s, call, 250, "all answers lost");
            proxy_set(proxy, kinds[f], .match = "EVALSHA", .times = PROXY_ALWAYS);
            scene_call(&s, NULL);
            assert_true(s.status == VERROU_EUNKNOWN || s.status == VERROU_ESTORAGE);
            scene_compare(&s);
            proxy_clear(proxy);
            proxy_let_go(proxy);
            scene_close(&s);
        }
    }
}

/* Connections that are closed or reset are made anew; a server that comes back with its data still knows the lock. */
static void broken_connections_are_renewed(void **state)
{
    (void)state;
    for (int how = 0; how < 3; how++) {
        for (call_kind call = ACQUIRE; call < CALLS; call++) {
            scene s;

            scene_open(&s, call, 5000,
                       how == 0   ? "connection closed"
                       : how == 1 ? "connection reset"
                                  : "server restarted");
            if (how == 0) {
                proxy_close_all(proxy);
            } else if (how == 1) {
                proxy_reset_all(proxy);
            } else {
                redis_server_kill(server);
                redis_server_restart(server);
            }
            scene_call(&s, &patient);
            scene_compare(&s);
            must_be_ok(&s);
            scene_close(&s);
        }
    }
}

/* A server that stands still, and a network that swallows everything: no answer by the time limit, and none is made up. */
static void silence_is_not_an_answer(void **state)
{
    (void)state;
    for (int how = 0; how < 2; how++) {
        for (call_kind call = ACQUIRE; call < CALLS; call++) {
            scene s;

            scene_open(&s, call, 600, how == 0 ? "server frozen" : "black hole");
            if (how == 0)
                redis_server_freeze(server);
            else
                proxy_black_hole(proxy, true);
            scene_call(&s, NULL);
            assert_true(s.status == VERROU_EUNKNOWN || s.status == VERROU_ESTORAGE);
            if (how == 0)
                redis_server_thaw(server);
            else
                proxy_black_hole(proxy, false);
            if (s.call != RELEASE && s.call > IMMEDIATELY) /* those go on in the background */
                scene_compare(&s);
            scene_close(&s);
        }
    }
}

/* ---- replies that belong to an earlier request ---- */

/* A transport that can give the bytes it read last once more, before those that come next. */
static struct {
    int fd;
    char last[4096], again[4096];
    size_t last_len, again_len;
    bool armed;
} echo;

static ssize_t echo_read(void *user, void *buffer, size_t size)
{
    size_t len = echo.again_len < size ? echo.again_len : size;
    ssize_t got;

    (void)user;
    if (len > 0) {
        memcpy(buffer, echo.again, len);
        memmove(echo.again, echo.again + len, echo.again_len -= len);
        return (ssize_t)len;
    }
    got = recv(echo.fd, buffer, size, MSG_DONTWAIT);
    if (got > 0 && (size_t)got <= sizeof echo.last)
        memcpy(echo.last, buffer, echo.last_len = (size_t)got);
    return got;
}

static ssize_t echo_write(void *user, const void *bytes, size_t size)
{
    (void)user;
    if (echo.armed) {
        memcpy(echo.again, echo.last, echo.again_len = echo.last_len);
        echo.armed = false;
    }
    return send(echo.fd, bytes, size, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static void echo_close(void *user)
{
    (void)user;
    close(echo.fd);
}

static verrou_status echo_connect(void *user, const char *host, int port, int64_t deadline_ms, verrou_transport *ret,
                                  verrou_error *err)
{
    redisContext *context = redisConnect(host, port);

    (void)user, (void)deadline_ms, (void)err;
    assert_int_equal(context->err, 0);
    memset(&echo, 0, sizeof echo);
    echo.fd = dup(context->fd);
    redisFree(context);
    *ret = (verrou_transport){NULL, echo.fd, echo_read, echo_write, echo_close};
    return VERROU_OK;
}

static verrou_op stale_op(int kind, const char *key)
{
    static const verrou_op_kind kinds[] = {VERROU_OP_ACQUIRE, VERROU_OP_RELEASE, VERROU_OP_EXTEND, VERROU_OP_FORCE,
                                           VERROU_OP_INSPECT};

    return test_op(kinds[kind % 5], key, kind % 5 > 2 ? NULL : "a", LEASE_MS);
}

/*
 * An answer that comes a second time after the next request was sent, whatever the two requests are, and whether they are granted, refused
 * or errors: the second one is unknown and the connection is given up. Alone and in front of a batch.
 */
static void stale_reply_is_nobodys(void **state)
{
    static const char *const keys[] = {"mine", "theirs", "free", "list"};

    (void)state;
    for (int pair = 0; pair < 20 * 20; pair++) {
        const char *first_key = keys[pair % 20 / 5], *second_key = keys[pair / 20 / 5];
        size_t n = pair % 3 ? 1 : 2;
        test_store store;
        verrou_op first, second[2];
        bool list = strcmp(first_key, "list") == 0 && strcmp(second_key, "list") == 0;

        redis_text(server, "FLUSHALL", NULL);
        redis_text(server, "SET", "mine", "a", NULL);
        redis_text(server, "SET", "theirs", "b", NULL);
        redis_text(server, "RPUSH", "list", "x", NULL);
        assert_int_equal(test_create_connect(&store, verrou_redis_driver(), test_address(server->port, NULL),
                                             echo_connect, NULL, NULL),
                         VERROU_OK);
        assert_int_equal(test_open_lane(&store, NULL), VERROU_OK);
        first = stale_op(pair % 20, first_key);
        assert_int_equal(test_execute(&store, &first, 1, 5000, NULL), VERROU_OK);
        echo.armed = true;
        second[0] = stale_op(pair / 20, second_key);
        second[1] = test_op(VERROU_OP_ACQUIRE, "theirs", "a", LEASE_MS);
        if (test_execute(&store, second, n, 5000, NULL) == VERROU_OK)
            fail_msg("pair %d: the connection is used on", pair);
        for (size_t i = 0; i < n; i++) {
            if (second[i].result != VERROU_OP_UNKNOWN && !(list && n == 1 && second[i].result == VERROU_OP_FAILED))
                fail_msg("pair %d: request %zu was answered %d", pair, i, (int)second[i].result);
            test_op_done(&second[i]);
        }
        test_op_done(&first);
        test_close(&store);
    }
}

/* ---- late requests ---- */

/* An extend that is repeated because its request is stuck: when that arrives at last, it does not shorten what was extended since. */
static void late_extend(const char *address, bool is_killed, bool *ret_shortened)
{
    verrou_store *store = open_at(address);
    verrou_lock *lock = new_lock(store, LEASE_MS);

    must_acquire(lock);
    proxy_set(proxy, PROXY_HOLD_REQUEST, .match = "EVALSHA");
    assert_int_equal(verrou_lock_extend(lock, 20000, &patient, NULL), VERROU_OK);
    proxy_wait(proxy, is_killed ? PROXY_CLOSED : PROXY_ORPHANED, 1);
    assert_int_equal(verrou_lock_extend(lock, LONGER_MS, &patient, NULL), VERROU_OK);
    proxy_let_go(proxy);
    *ret_shortened = redis_integer(server, "PTTL", KEY, NULL) <= 20000;
    assert_int_equal(verrou_lock_release(lock, NULL, NULL), VERROU_OK);
    verrou_lock_free(lock);
    verrou_store_close(store);
}

static void late_extend_changes_nothing(void **state)
{
    bool shortened = true;

    (void)state;
    late_extend(test_address(proxy_port(proxy), "?timeout=400ms"), true, &shortened);
    assert_false(shortened);
}

/* Where connections may not be killed, it does: the limit that the documentation names. */
static void late_extend_without_kill(void **state)
{
    bool shortened = false;
    char address[128];

    (void)state;
    redis_text(server, "ACL", "SETUSER", "meek", "on", ">pw", "~*", "&*", "+@all", "-client|kill", NULL);
    snprintf(address, sizeof address, "redis://meek:pw@127.0.0.1:%d?timeout=400ms", proxy_port(proxy));
    late_extend(address, false, &shortened);
    assert_true(shortened);
}

/* An acquire that arrives when the lock was acquired by its repetition and released, leaves no lease. */
static void late_acquire_changes_nothing(void **state)
{
    verrou_store *store = open_at(test_address(proxy_port(proxy), "?timeout=400ms"));
    verrou_lock *lock = new_lock(store, LEASE_MS);
    verrou_info info = VERROU_INFO_INIT;

    (void)state;
    while (verrou_lock_inspect(lock, NULL, &info, NULL) != VERROU_OK) /* connects */
        continue;
    proxy_set(proxy, PROXY_HOLD_REQUEST, .match = "EVALSHA");
    assert_int_equal(verrou_lock_acquire(lock, NULL, NULL, NULL), VERROU_OK);
    assert_int_equal(verrou_lock_release(lock, NULL, NULL), VERROU_OK);
    proxy_let_go(proxy);
    assert_false(exists());
    verrou_lock_free(lock);
    verrou_store_close(store);
}

/* A force-release that arrives when somebody else has the lock, does not take it from them. */
static void late_force_changes_nothing(void **state)
{
    verrou_store *store = open_at(test_address(proxy_port(proxy), "?timeout=400ms"));
    verrou_lock *lock = new_lock(store, LEASE_MS), *next = new_lock(store, LEASE_MS);

    (void)state;
    must_acquire(lock);
    proxy_set(proxy, PROXY_HOLD_REQUEST, .match = "EVALSHA");
    assert_int_equal(verrou_lock_force_release(lock, &patient, NULL), VERROU_OK);
    assert_int_equal(verrou_lock_acquire(next, NULL, NULL, NULL), VERROU_OK);
    proxy_let_go(proxy);
    assert_true(exists());
    assert_int_equal(verrou_lock_release(next, NULL, NULL), VERROU_OK);
    verrou_lock_free(lock);
    verrou_lock_free(next);
    verrou_store_close(store);
}

/* The connection that was to kill the lost one is lost as well, before the server reads from it: the next one kills both. */
static void killing_is_repeated(void **state)
{
    verrou_store *store = open_at(test_address(proxy_port(proxy), "?timeout=400ms&lanes=1"));
    verrou_lock *lock = new_lock(store, LEASE_MS);

    (void)state;
    must_acquire(lock);
    proxy_set(proxy, PROXY_HOLD_REQUEST, .match = "EVALSHA");
    proxy_set(proxy, PROXY_HOLD_REQUEST, .match = "KILL");
    while (verrou_lock_extend(lock, 20000, &patient, NULL) != VERROU_OK) /* one repetition has time, not two */
        continue;
    assert_int_equal(verrou_lock_extend(lock, LONGER_MS, &patient, NULL), VERROU_OK);
    proxy_let_go(proxy);
    assert_true(redis_integer(server, "PTTL", KEY, NULL) > 20000);
    assert_int_equal(verrou_lock_release(lock, NULL, NULL), VERROU_OK);
    verrou_lock_free(lock);
    verrou_store_close(store);
}

/* ---- what is told of leases ---- */

/* An extension to an earlier end that no replica acknowledged may have been done: whoever made it counts on the earlier end. */
static void unacknowledged_shortening_counts(void **state)
{
    redis_server *master = redis_server_start(NULL);
    redis_server *replica = redis_server_start(&(redis_options){.replica_of = master});
    verrou_store *strict = open_at(test_address(master->port, "?wait-replicas=1&wait-timeout=10s"));
    verrou_store *plain = open_at(test_address(master->port, NULL));
    verrou_lock *lock = new_lock(strict, LEASE_MS), *next = new_lock(plain, LEASE_MS);
    verrou_call_options options = VERROU_CALL_OPTIONS_INIT;
    verrou_status status;

    (void)state;
    must_acquire(lock);
    redis_server_kill(replica);
    options.timeout_ms = 500;
    status = verrou_lock_extend(lock, 300, &options, NULL);
    /* The second, where the repetition of the request still had time: it finds the lease run out. */
    assert_true(status == VERROU_EUNKNOWN || status == VERROU_ENOTOWNED);
    assert_true(verrou_lock_remaining_ms(lock) <= 300);
    must_acquire(next);
    assert_true(verrou_lock_is_expired(lock));
    assert_int_equal(verrou_lock_release(next, NULL, NULL), VERROU_OK);
    verrou_lock_free(lock);
    verrou_lock_free(next);
    verrou_store_close(strict);
    verrou_store_close(plain);
    redis_server_free(replica);
    redis_server_free(master);
}

/* The token of whom it refuses a lock for is told by a store that keeps it with the lease. Redis draws a new one even for the holder. */
static void token_of_a_refusal_is_the_holders(void **state)
{
    const char *const addresses[] = {test_address(server->port, NULL), "memory:"};

    (void)state;
    redis_text(server, "FLUSHALL", NULL);
    for (int i = 0; i < 2; i++) {
        verrou_store *store = open_at(addresses[i]);
        verrou_lock_options options = VERROU_LOCK_OPTIONS_INIT;
        verrou_lock *locks[2];
        verrou_info info = VERROU_INFO_INIT;

        options.owner = "fixed";
        options.ttl_ms = LEASE_MS;
        for (int k = 0; k < 2; k++)
            assert_int_equal(verrou_lock_new(store, KEY, &options, &locks[k], NULL), VERROU_OK);
        must_acquire(locks[0]);
        assert_int_equal(verrou_lock_acquire_immediately(locks[1], &info, NULL), VERROU_ENOTACQUIRED);
        assert_string_equal(info.owner, "fixed");
        assert_true(info.fence == (i == 0 ? 0 : verrou_lock_fence(locks[0])));
        assert_int_equal(verrou_lock_release(locks[0], NULL, NULL), VERROU_OK);
        for (int k = 0; k < 2; k++)
            verrou_lock_free(locks[k]);
        verrou_store_close(store);
    }
}

/* ---- at random ---- */

#define RANDOM_THREADS 4
#define RANDOM_MS 4000

/* What the lock guards. It has a mutex of its own, so that a wrong lock is noticed and not undefined. */
static struct {
    pthread_mutex_t mutex;
    uint64_t token;
    long visits, overtaken, overlaps;
} resource = {.mutex = PTHREAD_MUTEX_INITIALIZER};

static atomic_bool random_over;
static fault_proxy *random_proxy[RANDOM_THREADS];

static void visit(verrou_lock *lock)
{
    uint64_t token = verrou_lock_fence(lock);

    pthread_mutex_lock(&resource.mutex);
    if (verrou_lock_check(lock) == VERROU_OK && token <= resource.token)
        resource.overtaken++;
    if (token > resource.token)
        resource.token = token;
    resource.visits++;
    pthread_mutex_unlock(&resource.mutex);
    if (token % 4 == 0)
        (void)verrou_lock_extend(lock, 3000, NULL, NULL);
    sched_yield();
    pthread_mutex_lock(&resource.mutex);
    if (resource.token != token && verrou_lock_check(lock) == VERROU_OK)
        resource.overlaps++;
    pthread_mutex_unlock(&resource.mutex);
}

static void *visitor(void *user)
{
    fault_proxy *through = user;
    verrou_store *store = open_at(test_address(proxy_port(through), "?timeout=300ms"));
    verrou_lock *lock = new_lock(store, 3000);
    verrou_acquire_options options = VERROU_ACQUIRE_OPTIONS_INIT;

    options.timeout_ms = 1000;
    while (!atomic_load(&random_over)) {
        if (verrou_lock_acquire(lock, &options, NULL, NULL) != VERROU_OK)
            continue;
        visit(lock);
        (void)verrou_lock_release(lock, NULL, NULL);
    }
    verrou_lock_free(lock);
    verrou_store_close(store);
    return NULL;
}

/* Several users of one lock, each behind faults of its own: never are two inside, and tokens grow. */
static void random_faults_break_nothing(void **state)
{
    static const fault_kind kinds[] = {PROXY_DROP_REQUEST,    PROXY_DROP_REPLY,   PROXY_TRUNCATE_REPLY,
                                       PROXY_DUPLICATE_REPLY, PROXY_HOLD_REQUEST, PROXY_HOLD_REPLY,
                                       PROXY_DROP_MESSAGE};
    int64_t end_ms = verrou_now_ms() + RANDOM_MS;
    pthread_t threads[RANDOM_THREADS];
    unsigned seed = 7;

    (void)state;
    redis_text(server, "FLUSHALL", NULL);
    resource.token = 0;
    for (int i = 0; i < RANDOM_THREADS; i++) {
        random_proxy[i] = proxy_start(server->port);
    }
    for (int i = 0; i < RANDOM_THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, visitor, random_proxy[i]), 0);
    while (verrou_now_ms() < end_ms) {
        fault_proxy *one = random_proxy[(unsigned)rand_r(&seed) % RANDOM_THREADS];
        unsigned what = (unsigned)rand_r(&seed) % 10;

        if (what < 7)
            proxy_set(one, kinds[what], .skip = rand_r(&seed) % 6, .bytes = (size_t)(rand_r(&seed) % 30));
        else if (what == 7)
            proxy_let_go(one);
        else if (what == 8)
            proxy_close_all(one);
        else
            proxy_reset_all(one);
        poll(NULL, 0, 5);
    }
    for (int i = 0; i < RANDOM_THREADS; i++) {
        proxy_clear(random_proxy[i]);
        proxy_let_go(random_proxy[i]);
    }
    atomic_store(&random_over, true);
    for (int i = 0; i < RANDOM_THREADS; i++)
        pthread_join(threads[i], NULL);
    wait_until_free("random faults");
    for (int i = 0; i < RANDOM_THREADS; i++)
        proxy_stop(random_proxy[i]);
    assert_int_equal(resource.overtaken, 0);
    assert_int_equal(resource.overlaps, 0);
    assert_true(resource.visits > 20);
}

/* ---- waiting ---- */

typedef struct waiter {
    verrou_lock *lock;
    pthread_t thread;
    verrou_status status;
} waiter;

static void *waiter_main(void *user)
{
    waiter *w = user;
    verrou_acquire_options options = VERROU_ACQUIRE_OPTIONS_INIT;

    options.timeout_ms = PROCESS_PATIENCE_MS / 2;
    w->status = verrou_lock_acquire(w->lock, &options, NULL, NULL);
    return NULL;
}

static void waiter_start(waiter *w, verrou_store *store)
{
    w->lock = new_lock(store, LEASE_MS);
    assert_int_equal(pthread_create(&w->thread, NULL, waiter_main, w), 0);
}

static void waiter_end(waiter *w)
{
    pthread_join(w->thread, NULL);
    assert_int_equal(w->status, VERROU_OK);
    assert_int_equal(verrou_lock_release(w->lock, NULL, NULL), VERROU_OK);
    verrou_lock_free(w->lock);
}

static void wait_listeners(const char *channel, int count)
{
    char wanted[64];
    int64_t limit_ms = verrou_now_ms() + PROCESS_PATIENCE_MS / 2;

    snprintf(wanted, sizeof wanted, "%s\n%d", channel, count);
    while (strcmp(redis_text(server, "PUBSUB", "NUMSUB", channel, NULL), wanted) != 0) {
        if (verrou_now_ms() > limit_ms)
            fail_msg("%d do not listen to %s", count, channel);
        process_pause();
    }
}

/* A holder whose store goes to the server directly, and a waiter behind the proxy. */
static verrou_store *holder_store;
static verrou_lock *holder;

static void hold(void)
{
    holder_store = open_at(test_address(server->port, NULL));
    holder = new_lock(holder_store, LEASE_MS);
    assert_int_equal(verrou_lock_acquire(holder, NULL, NULL, NULL), VERROU_OK);
}

static void let_holder_go(void)
{
    verrou_lock_free(holder);
    verrou_store_close(holder_store);
}

/* A subscription that is lost comes back by itself, and a release wakes the waiter again. */
static void lost_subscription_comes_back(void **state)
{
    verrou_store *store = open_at(test_address(proxy_port(proxy), NULL));
    waiter w;

    (void)state;
    hold();
    waiter_start(&w, store);
    wait_listeners(KEY, 1);
    proxy_close_all(proxy);
    wait_listeners(KEY, 0);
    wait_listeners(KEY, 1);
    assert_int_equal(verrou_lock_release(holder, NULL, NULL), VERROU_OK);
    waiter_end(&w);
    verrou_store_close(store);
    let_holder_go();
}

/* A release while the subscription cannot be had is found by asking. */
static void without_subscription_the_waiter_asks(void **state)
{
    verrou_store *store = open_at(test_address(proxy_port(proxy), NULL));
    waiter w;

    (void)state;
    proxy_set(proxy, PROXY_DROP_REQUEST, .match = "SUBSCRIBE", .times = PROXY_ALWAYS);
    hold();
    waiter_start(&w, store);
    proxy_wait(proxy, PROXY_FIRED, 1);
    assert_int_equal(verrou_lock_release(holder, NULL, NULL), VERROU_OK);
    waiter_end(&w);
    verrou_store_close(store);
    let_holder_go();
}

/* A message that is lost costs time, not the lock. */
static void lost_message_is_made_up_for(void **state)
{
    verrou_store *store = open_at(test_address(proxy_port(proxy), NULL));
    waiter w;

    (void)state;
    proxy_set(proxy, PROXY_DROP_MESSAGE, .match = KEY);
    hold();
    waiter_start(&w, store);
    wait_listeners(KEY, 1);
    assert_int_equal(verrou_lock_release(holder, NULL, NULL), VERROU_OK);
    proxy_wait(proxy, PROXY_FIRED, 1);
    waiter_end(&w);
    verrou_store_close(store);
    let_holder_go();
}

/* The original publishes nothing: its release is found by asking, and where the server sends keyspace events, by them. */
static void plain_release_is_found(void **state)
{
    (void)state;
    for (int events = 0; events < 2; events++) {
        verrou_store *store;
        waiter w;

        redis_text(server, "CONFIG", "SET", "notify-keyspace-events", events ? "Kg" : "", NULL);
        store = open_at(test_address(proxy_port(proxy), NULL));
        redis_text(server, "SET", KEY, "original", "PX", "30000", NULL);
        waiter_start(&w, store);
        wait_listeners(KEY, 1);
        wait_listeners("__keyspace@0__:" KEY, events);
        redis_text(server, "DEL", KEY, NULL);
        waiter_end(&w);
        verrou_store_close(store);
    }
    redis_text(server, "CONFIG", "SET", "notify-keyspace-events", "", NULL);
}

#define MANY 1000
static verrou_lock *many_locks[MANY];
static int many_served;
static verrou_queue *many_queue;

static void many_released(void *user, const verrou_result *result)
{
    (void)user;
    assert_int_equal(result->status, VERROU_OK);
}

static void many_acquired(void *user, const verrou_result *result)
{
    verrou_lock **lock = user;

    assert_int_equal(result->status, VERROU_OK);
    assert_int_equal(lock - many_locks, many_served++); /* first come, first served */
    assert_int_equal(verrou_lock_release_async(*lock, NULL, many_queue, many_released, NULL, NULL), VERROU_OK);
}

/* A thousand waiters of a process ask no more often than one, and are served in their order. */
static void waiters_ask_like_one(void **state)
{
    verrou_store *store = open_at(test_address(proxy_port(proxy), NULL));
    int64_t limit_ms;

    (void)state;
    hold();
    many_served = 0;
    assert_int_equal(verrou_queue_new(&many_queue, NULL), VERROU_OK);
    for (int i = 0; i < MANY; i++) {
        many_locks[i] = new_lock(store, LEASE_MS);
        assert_int_equal(
            verrou_lock_acquire_async(many_locks[i], NULL, many_queue, many_acquired, &many_locks[i], NULL), VERROU_OK);
    }
    wait_listeners(KEY, 1);
    redis_text(server, "CONFIG", "RESETSTAT", NULL);
    poll(NULL, 0, 1000); /* what is measured: a second of waiting */
    assert_true(redis_calls(server, "evalsha") <= 3);
    assert_int_equal(verrou_lock_release(holder, NULL, NULL), VERROU_OK);
    limit_ms = verrou_now_ms() + PROCESS_PATIENCE_MS;
    while (many_served < MANY || exists()) {
        struct pollfd ready = {verrou_queue_fd(many_queue), POLLIN, 0};

        if (verrou_now_ms() > limit_ms)
            fail_msg("only %d were served", many_served);
        poll(&ready, 1, 10);
        verrou_dispatch(many_queue, 0);
    }
    while (verrou_dispatch(many_queue, 0) > 0)
        continue;
    for (int i = 0; i < MANY; i++)
        verrou_lock_free(many_locks[i]);
    verrou_store_close(store);
    verrou_queue_free(many_queue);
    let_holder_go();
}

/* ---- other processes ---- */

#define PROCESSES 3
#define TURNS 300

/* Acquires and releases until all have done so TURNS times together; its exit status is how often it was its turn, 255 at most. */
static int take_turns(const char *address)
{
    verrou_store *store = NULL;
    verrou_lock *lock = NULL;
    int mine = 0;

    if (verrou_store_open(address, NULL, &store, NULL) != VERROU_OK ||
        verrou_lock_new(store, KEY, NULL, &lock, NULL) != VERROU_OK)
        return 0;
    for (bool over = false; !over;) {
        if (verrou_lock_acquire(lock, NULL, NULL, NULL) != VERROU_OK)
            return 0;
        over = redis_integer(server, "INCR", "turns", NULL) >= TURNS;
        mine++;
        if (verrou_lock_release(lock, NULL, NULL) != VERROU_OK)
            return 0;
    }
    verrou_lock_free(lock);
    verrou_store_close(store);
    return mine > 255 ? 255 : mine;
}

/* Nobody starves: each of some processes that always want the lock gets it again and again. */
static void processes_take_turns(void **state)
{
    const char *address = test_address(server->port, NULL);
    pid_t children[PROCESSES];
    int sum = 0;

    (void)state;
    redis_text(server, "FLUSHALL", NULL);
    fflush(NULL);
    for (int i = 0; i < PROCESSES; i++) {
        children[i] = fork();
        assert_true(children[i] >= 0);
        if (children[i] == 0)
            _exit(take_turns(address));
    }
    for (int i = 0; i < PROCESSES; i++) {
        int status = 0;

        assert_int_equal(waitpid(children[i], &status, 0), children[i]);
        assert_true(WIFEXITED(status));
        if (WEXITSTATUS(status) < TURNS / 20)
            fail_msg("process %d had %d turns of %d", i, WEXITSTATUS(status), TURNS);
        sum += WEXITSTATUS(status);
    }
    assert_true(sum >= TURNS);
    assert_false(exists());
}

int main(void)
{
#define WITH_PROXY(test) cmocka_unit_test_setup_teardown(test, start_proxy, stop_proxy)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(processes_take_turns), /* first: before there are threads */
        WITH_PROXY(single_faults_are_got_over),
        WITH_PROXY(truncated_replies_are_none),
        WITH_PROXY(lasting_loss_is_unknown),
        WITH_PROXY(broken_connections_are_renewed),
        WITH_PROXY(silence_is_not_an_answer),
        cmocka_unit_test(stale_reply_is_nobodys),
        WITH_PROXY(late_extend_changes_nothing),
        WITH_PROXY(late_extend_without_kill),
        WITH_PROXY(late_acquire_changes_nothing),
        WITH_PROXY(late_force_changes_nothing),
        WITH_PROXY(killing_is_repeated),
        cmocka_unit_test(unacknowledged_shortening_counts),
        cmocka_unit_test(token_of_a_refusal_is_the_holders),
        cmocka_unit_test(random_faults_break_nothing),
        WITH_PROXY(lost_subscription_comes_back),
        WITH_PROXY(without_subscription_the_waiter_asks),
        WITH_PROXY(lost_message_is_made_up_for),
        WITH_PROXY(plain_release_is_found),
        WITH_PROXY(waiters_ask_like_one),
    };

    return cmocka_run_group_tests(tests, start_server, redis_teardown);
}
