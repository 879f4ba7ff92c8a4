/*
 * redis_faults_test.c - the Redis store through the library while something between it and the server goes wrong.
 *
 * What is claimed of all stores is in faults_testing.h. Here are, besides, replies that belong to earlier requests, lost connections that
 * may not be killed, faults at random, waiting with a lost subscription, and users in several processes.
 */
#include "faults_testing.h"
#include "redis_testing.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/wait.h>

static redis_server *server;

static bool exists(void)
{
    return redis_integer(server, "EXISTS", FAULTS_KEY, NULL) != 0;
}

static void empty(void)
{
    redis_text(server, "FLUSHALL", NULL);
}

static const char *holder_of_key(void)
{
    const char *owner = redis_text(server, "GET", FAULTS_KEY, NULL);

    return strcmp(owner, "(nil)") ? owner : "";
}

static long long left_ms(void)
{
    return redis_integer(server, "PTTL", FAULTS_KEY, NULL);
}

FAULTS_SERVER_FUNCTIONS(redis)

static const faulty_store redis_store = {
    .protocol = PROXY_REDIS,
    .match = {"EVALSHA", "EVALSHA", "EVALSHA", "EVALSHA", "EVALSHA", "EVALSHA"},
    .reply_bytes = 40,
    .address = test_address,
    FAULTS_SERVER,
    .empty = empty,
    .holder = holder_of_key,
    .left_ms = left_ms,
};

static int start_server(void **state)
{
    (void)state;
    server = redis_server_start(&(redis_options){.config = "appendonly yes\nappendfsync always\n"});
    faults_use(&redis_store);
    return verrou_register_driver(verrou_redis_driver(), NULL) == VERROU_OK ? 0 : -1;
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

    return test_op(kinds[kind % 5], key, kind % 5 > 2 ? NULL : "a", FAULTS_LEASE_MS);
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

        empty();
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
        second[1] = test_op(VERROU_OP_ACQUIRE, "theirs", "a", FAULTS_LEASE_MS);
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

/* ---- late requests ---- */

/* Where connections may not be killed, a late extend shortens the lease: the limit that the documentation names. */
static void late_extend_without_kill(void **state)
{
    char address[128];

    (void)state;
    redis_text(server, "ACL", "SETUSER", "meek", "on", ">pw", "~*", "&*", "+@all", "-client|kill", NULL);
    snprintf(address, sizeof address, "redis://meek:pw@127.0.0.1:%d?timeout=400ms", proxy_port(faults_proxy));
    assert_true(faults_late_extend(address, PROXY_ORPHANED));
}

/* The connection that was to kill the lost one is lost as well, before the server reads from it: the next one kills both. */
static void killing_is_repeated(void **state)
{
    verrou_store *store = faults_open_proxy("?timeout=400ms&lanes=1");
    verrou_lock *lock = faults_lock(store, FAULTS_KEY, FAULTS_LEASE_MS);

    (void)state;
    faults_acquire(lock);
    proxy_set(faults_proxy, PROXY_HOLD_REQUEST, .match = "EVALSHA");
    proxy_set(faults_proxy, PROXY_HOLD_REQUEST, .match = "KILL");
    while (verrou_lock_extend(lock, 20000, &faults_patient, NULL) != VERROU_OK) /* one repetition has time, not two */
        continue;
    assert_int_equal(verrou_lock_extend(lock, FAULTS_LONGER_MS, &faults_patient, NULL), VERROU_OK);
    proxy_let_go(faults_proxy);
    assert_true(left_ms() > 20000);
    assert_int_equal(verrou_lock_release(lock, NULL, NULL), VERROU_OK);
    faults_done(lock, store);
}

/* ---- what is told of leases ---- */

/* An extension to an earlier end that no replica acknowledged may have been done: whoever made it counts on the earlier end. */
static void unacknowledged_shortening_counts(void **state)
{
    redis_server *master = redis_server_start(NULL);
    redis_server *replica = redis_server_start(&(redis_options){.replica_of = master});
    verrou_store *strict = faults_open(test_address(master->port, "?wait-replicas=1&wait-timeout=10s"));
    verrou_store *plain = faults_open(test_address(master->port, NULL));
    verrou_lock *lock = faults_lock(strict, FAULTS_KEY, FAULTS_LEASE_MS),
                *next = faults_lock(plain, FAULTS_KEY, FAULTS_LEASE_MS);
    verrou_call_options options = VERROU_CALL_OPTIONS_INIT;
    verrou_status status;

    (void)state;
    faults_acquire(lock);
    redis_server_kill(replica);
    options.timeout_ms = 500;
    status = verrou_lock_extend(lock, 300, &options, NULL);
    /* The second, where the repetition of the request still had time: it finds the lease run out. */
    assert_true(status == VERROU_EUNKNOWN || status == VERROU_ENOTOWNED);
    assert_true(verrou_lock_remaining_ms(lock) <= 300);
    faults_acquire(next);
    assert_true(verrou_lock_is_expired(lock));
    assert_int_equal(verrou_lock_release(next, NULL, NULL), VERROU_OK);
    faults_done(lock, strict);
    faults_done(next, plain);
    redis_server_free(replica);
    redis_server_free(master);
}

/* The token of whom it refuses a lock for is told by a store that keeps it with the lease. Redis draws a new one even for the holder. */
static void token_of_a_refusal_is_the_holders(void **state)
{
    const char *const addresses[] = {test_address(server->port, NULL), "memory:"};

    (void)state;
    empty();
    for (int i = 0; i < 2; i++) {
        verrou_store *store = faults_open(addresses[i]);
        verrou_lock_options options = VERROU_LOCK_OPTIONS_INIT;
        verrou_lock *locks[2];
        verrou_info info = VERROU_INFO_INIT;

        options.owner = "fixed";
        options.ttl_ms = FAULTS_LEASE_MS;
        for (int k = 0; k < 2; k++)
            assert_int_equal(verrou_lock_new(store, FAULTS_KEY, &options, &locks[k], NULL), VERROU_OK);
        faults_acquire(locks[0]);
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
#define RANDOM_VISITS 20 /* and longer, until there were so many */

/* What the lock guards. It has a mutex of its own, so that a wrong lock is noticed and not undefined. */
static struct {
    pthread_mutex_t mutex;
    uint64_t token;
    long visits, overtaken, overlaps;
} resource = {.mutex = PTHREAD_MUTEX_INITIALIZER};

static long visits(void)
{
    long n;

    pthread_mutex_lock(&resource.mutex);
    n = resource.visits;
    pthread_mutex_unlock(&resource.mutex);
    return n;
}

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
    verrou_store *store = faults_open(test_address(proxy_port(through), "?timeout=300ms"));
    verrou_lock *lock = faults_lock(store, FAULTS_KEY, 3000);
    verrou_acquire_options options = VERROU_ACQUIRE_OPTIONS_INIT;

    options.timeout_ms = 1000;
    while (!atomic_load(&random_over)) {
        if (verrou_lock_acquire(lock, &options, NULL, NULL) != VERROU_OK)
            continue;
        visit(lock);
        (void)verrou_lock_release(lock, NULL, NULL);
    }
    faults_done(lock, store);
    return NULL;
}

/* Several users of one lock, each behind faults of its own: never are two inside, and tokens grow. */
static void random_faults_break_nothing(void **state)
{
    static const fault_kind kinds[] = {PROXY_DROP_REQUEST,    PROXY_DROP_REPLY,   PROXY_TRUNCATE_REPLY,
                                       PROXY_DUPLICATE_REPLY, PROXY_HOLD_REQUEST, PROXY_HOLD_REPLY,
                                       PROXY_DROP_MESSAGE};
    int64_t end_ms = verrou_now_ms() + RANDOM_MS;
    int64_t limit_ms = end_ms + PROCESS_PATIENCE_MS / 2;
    pthread_t threads[RANDOM_THREADS];
    unsigned seed = 7;

    (void)state;
    empty();
    resource.token = 0;
    for (int i = 0; i < RANDOM_THREADS; i++) {
        random_proxy[i] = proxy_start(server->port);
    }
    for (int i = 0; i < RANDOM_THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, visitor, random_proxy[i]), 0);
    while (verrou_now_ms() < end_ms || (visits() <= RANDOM_VISITS && verrou_now_ms() < limit_ms)) {
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
    faults_wait_until_free("random faults");
    for (int i = 0; i < RANDOM_THREADS; i++)
        proxy_stop(random_proxy[i]);
    assert_int_equal(resource.overtaken, 0);
    assert_int_equal(resource.overlaps, 0);
    assert_true(resource.visits > RANDOM_VISITS);
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
    w->lock = faults_lock(store, FAULTS_KEY, FAULTS_LEASE_MS);
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
    holder_store = faults_open(test_address(server->port, NULL));
    holder = faults_lock(holder_store, FAULTS_KEY, FAULTS_LEASE_MS);
    assert_int_equal(verrou_lock_acquire(holder, NULL, NULL, NULL), VERROU_OK);
}

static void let_holder_go(void)
{
    faults_done(holder, holder_store);
}

/* A subscription that is lost comes back by itself, and a release wakes the waiter again. */
static void lost_subscription_comes_back(void **state)
{
    verrou_store *store = faults_open_proxy("");
    waiter w;

    (void)state;
    hold();
    waiter_start(&w, store);
    wait_listeners(FAULTS_KEY, 1);
    proxy_close_all(faults_proxy);
    wait_listeners(FAULTS_KEY, 0);
    wait_listeners(FAULTS_KEY, 1);
    assert_int_equal(verrou_lock_release(holder, NULL, NULL), VERROU_OK);
    waiter_end(&w);
    verrou_store_close(store);
    let_holder_go();
}

/* A release while the subscription cannot be had is found by asking. */
static void without_subscription_the_waiter_asks(void **state)
{
    verrou_store *store = faults_open_proxy("");
    waiter w;

    (void)state;
    proxy_set(faults_proxy, PROXY_DROP_REQUEST, .match = "SUBSCRIBE", .times = PROXY_ALWAYS);
    hold();
    waiter_start(&w, store);
    proxy_wait(faults_proxy, PROXY_FIRED, 1);
    assert_int_equal(verrou_lock_release(holder, NULL, NULL), VERROU_OK);
    waiter_end(&w);
    verrou_store_close(store);
    let_holder_go();
}

/* A message that is lost costs time, not the lock. */
static void lost_message_is_made_up_for(void **state)
{
    verrou_store *store = faults_open_proxy("");
    waiter w;

    (void)state;
    proxy_set(faults_proxy, PROXY_DROP_MESSAGE, .match = FAULTS_KEY);
    hold();
    waiter_start(&w, store);
    wait_listeners(FAULTS_KEY, 1);
    assert_int_equal(verrou_lock_release(holder, NULL, NULL), VERROU_OK);
    proxy_wait(faults_proxy, PROXY_FIRED, 1);
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
        store = faults_open_proxy("");
        redis_text(server, "SET", FAULTS_KEY, "original", "PX", "30000", NULL);
        waiter_start(&w, store);
        wait_listeners(FAULTS_KEY, 1);
        wait_listeners("__keyspace@0__:" FAULTS_KEY, events);
        redis_text(server, "DEL", FAULTS_KEY, NULL);
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
    verrou_store *store = faults_open_proxy("");
    int64_t limit_ms;

    (void)state;
    hold();
    many_served = 0;
    assert_int_equal(verrou_queue_new(&many_queue, NULL), VERROU_OK);
    for (int i = 0; i < MANY; i++) {
        many_locks[i] = faults_lock(store, FAULTS_KEY, FAULTS_LEASE_MS);
        assert_int_equal(
            verrou_lock_acquire_async(many_locks[i], NULL, many_queue, many_acquired, &many_locks[i], NULL), VERROU_OK);
    }
    wait_listeners(FAULTS_KEY, 1);
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
        verrou_lock_new(store, FAULTS_KEY, NULL, &lock, NULL) != VERROU_OK)
        return 0;
    for (bool over = false; !over;) {
        if (verrou_lock_acquire(lock, NULL, NULL, NULL) != VERROU_OK)
            return 0;
        over = redis_integer(server, "INCR", "turns", NULL) >= TURNS;
        mine++;
        if (verrou_lock_release(lock, NULL, NULL) != VERROU_OK)
            return 0;
    }
    faults_done(lock, store);
    return mine > 255 ? 255 : mine;
}

/* Nobody starves: each of some processes that always want the lock gets it again and again. */
static void processes_take_turns(void **state)
{
    const char *address = test_address(server->port, NULL);
    pid_t children[PROCESSES];
    int sum = 0;

    (void)state;
    empty();
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
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(processes_take_turns), /* first: before there are threads */
        FAULTS_TESTS,
        cmocka_unit_test(stale_reply_is_nobodys),
        faults_test(late_extend_without_kill),
        faults_test(killing_is_repeated),
        cmocka_unit_test(unacknowledged_shortening_counts),
        cmocka_unit_test(token_of_a_refusal_is_the_holders),
        cmocka_unit_test(random_faults_break_nothing),
        faults_test(lost_subscription_comes_back),
        faults_test(without_subscription_the_waiter_asks),
        faults_test(lost_message_is_made_up_for),
        faults_test(plain_release_is_found),
        faults_test(waiters_ask_like_one),
    };

    return cmocka_run_group_tests(tests, start_server, redis_teardown);
}
