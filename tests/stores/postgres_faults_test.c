/*
 * postgres_faults_test.c - the PostgreSQL store while something goes wrong: lost answers, servers that die, stand still or may not write, a
 * failover, wrong passwords, clocks that are wrong.
 *
 * The first half asks the driver itself, the second the library above it, beginning with what is claimed of all stores (faults_testing.h).
 * Where it matters, what is answered is compared with what the server has.
 */
#include "faults_testing.h"
#include "postgres_testing.h"

#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/wait.h>
#include <time.h>

static const char *address_with(int port, const char *settings)
{
    return test_address(port, *settings ? settings + 1 : NULL);
}

static test_store open_through_proxy(void)
{
    return test_open(verrou_postgres_driver(), test_address(proxy_port(faults_proxy), NULL));
}

static void reopen(test_store *store)
{
    verrou_error err = VERROU_ERROR_INIT;

    test_close_lane(store);
    if (test_open_lane(store, &err) != VERROU_OK)
        fail_msg("%s", err.message);
}

static const char *owner_of(const char *key)
{
    return postgres_text(server, "select owner from verrou where key = '%s'", key);
}

static void empty(void)
{
    test_begin(NULL);
}

#define LIVE "key = '" FAULTS_KEY "' and expiration > extract(epoch from clock_timestamp()) * 1000"

static const char *holder_of_key(void)
{
    return postgres_text(server, "select coalesce(max(owner), '') from verrou where " LIVE);
}

static long long left_ms(void)
{
    return postgres_integer(server, "select floor(max(expiration) - extract(epoch from clock_timestamp()) * 1000)"
                                    " from verrou where " LIVE);
}

/* The server warns of one that ended by itself just then. */
static void end_sessions(void)
{
    postgres_text(server, "set client_min_messages = error;"
                          " select pg_terminate_backend(pid) from pg_stat_activity"
                          " where backend_type = 'client backend' and pid <> pg_backend_pid()");
}

/* A commit that waits for the disk takes along those before it that did not. */
static void settle(void)
{
    postgres_text(server, "create temporary table settled ()");
}

FAULTS_SERVER_FUNCTIONS(postgres)

static const faulty_store postgres_store = {
    .protocol = PROXY_POSTGRES,
    .match = {"verrou_acquire", "verrou_acquire", "verrou_release", "verrou_extend", "verrou_force", "verrou_inspect"},
    .reply_bytes = 120,
    .address = address_with,
    FAULTS_SERVER,
    .end_sessions = end_sessions,
    .settle = settle,
    .empty = empty,
    .holder = holder_of_key,
    .left_ms = left_ms,
};

static int start(void **state)
{
    (void)state;
    server = postgres_server_start(NULL);
    faults_use(&postgres_store);
    return verrou_register_driver(verrou_postgres_driver(), NULL) == VERROU_OK ? 0 : -1;
}

/* ---- lost answers ---- */

/* An answer that is lost is unknown, and the lane is not used again. What was carried out is found by asking with the same owner. */
static void a_lost_answer_is_unknown(void **unused)
{
    test_store store = open_through_proxy();

    (void)unused;
    test_acquire(&store, "warm", "o");
    proxy_set(faults_proxy, PROXY_DROP_REPLY, .match = "verrou_acquire");
    assert_int_equal(test_acquire(&store, "k", "o"), VERROU_OP_UNKNOWN);
    assert_int_not_equal(test_last.lane, VERROU_OK);
    reopen(&store);
    assert_int_equal(test_acquire(&store, "k", "o"), VERROU_OP_REFUSED);
    assert_true(test_last.holder_is_owner);
    proxy_set(faults_proxy, PROXY_DROP_REQUEST, .match = "verrou_release");
    assert_int_equal(test_release(&store, "k", "o"), VERROU_OP_UNKNOWN);
    reopen(&store);
    assert_int_equal(test_release(&store, "k", "o"), VERROU_OP_APPLIED);
    test_close(&store);
}

/*
 * The results of a batch have come, the confirmation of its commit has not: what it wrote is unknown, and so is what was read after that. What was read
 * before stays true.
 */
static void an_unconfirmed_batch(void **unused)
{
    test_store store = open_through_proxy();
    verrou_op ops[] = {test_op(VERROU_OP_ACQUIRE, "a", "p", 30000), test_op(VERROU_OP_ACQUIRE, "b", "o", 30000),
                       test_op(VERROU_OP_ACQUIRE, "c", "p", 30000), test_op(VERROU_OP_INSPECT, "d", NULL, 0)};
    verrou_error err = VERROU_ERROR_INIT;

    (void)unused;
    test_acquire(&store, "a", "o");
    test_acquire(&store, "c", "o");
    proxy_set(faults_proxy, PROXY_TRUNCATE_REPLY, .match = "verrou_acquire", .bytes = 500);
    assert_int_not_equal(test_execute(&store, ops, 4, TEST_LIMIT_MS, &err), VERROU_OK);
    assert_int_equal(ops[0].result, VERROU_OP_REFUSED);
    assert_string_equal(ops[0].holder, "o");
    assert_int_equal(ops[1].result, VERROU_OP_UNKNOWN);
    assert_true(ops[2].result == VERROU_OP_RETRY || ops[2].result == VERROU_OP_UNKNOWN);
    assert_true(ops[3].result == VERROU_OP_RETRY || ops[3].result == VERROU_OP_UNKNOWN);
    assert_string_equal(owner_of("b"), "o");
    for (size_t i = 0; i < 4; i++)
        test_op_done(&ops[i]);
    test_close(&store);
}

/*
 * A request that is still on its way when its connection is given up does nothing any more once something else has been asked: its process
 * at the server was ended first.
 */
static void a_late_request_comes_to_nothing(void **unused)
{
    test_store store = open_through_proxy();
    verrou_op op = test_op(VERROU_OP_EXTEND, "k", "o", 1000);
    verrou_error err = VERROU_ERROR_INIT;

    (void)unused;
    test_acquire(&store, "k", "o");
    proxy_set(faults_proxy, PROXY_HOLD_REQUEST, .match = "verrou_extend");
    assert_int_not_equal(test_execute(&store, &op, 1, 200, &err), VERROU_OK);
    assert_int_equal(op.result, VERROU_OP_UNKNOWN);
    reopen(&store);
    assert_int_equal(test_extend(&store, "k", "o", 600000), VERROU_OP_APPLIED);
    proxy_let_go(faults_proxy);
    test_inspect(&store, "k");
    assert_true(test_last.remaining_ms > 500000);
    test_op_done(&op);
    test_close(&store);
}

/* A server that has restarted while nothing was asked: the request was never sent, so it is not unknown. */
static void a_lane_that_ended_at_rest(void **unused)
{
    test_store store = test_table(NULL);

    (void)unused;
    test_acquire(&store, "k", "o");
    postgres_server_restart(server);
    assert_int_equal(test_release(&store, "k", "o"), VERROU_OP_UNSENT);
    assert_int_not_equal(test_last.lane, VERROU_OK);
    reopen(&store);
    assert_int_equal(test_release(&store, "k", "o"), VERROU_OP_APPLIED);
    test_close(&store);
}

/* ---- servers that do not answer, or must not be used ---- */

/* A server that stands still costs the time that there was, not more: in a request, in connecting. */
static void a_frozen_server_meets_deadlines(void **unused)
{
    test_store store = test_table(NULL);
    test_store fresh;
    verrou_error err = VERROU_ERROR_INIT;
    int64_t begun_ms;

    (void)unused;
    test_acquire(&store, "k", "o");
    assert_int_equal(test_create(&fresh, verrou_postgres_driver(), test_address(server->port, NULL), &err), VERROU_OK);
    postgres_server_freeze(server);
    begun_ms = process_clock_ms();
    verrou_op op = test_op(VERROU_OP_RELEASE, "k", "o", 0);
    assert_int_not_equal(test_execute(&store, &op, 1, 300, &err), VERROU_OK);
    assert_int_equal(op.result, VERROU_OP_UNKNOWN);
    assert_string_equal(op.error->store_code, "TIMEOUT");
    assert_int_not_equal(fresh.driver->open(fresh.state, verrou_now_ms() + 300, &fresh.lane, &err), VERROU_OK);
    assert_true(err.retriable);
    /* Neither took the limit of a connection, let alone more. */
    assert_in_range(process_clock_ms() - begun_ms, 600, PROCESS_PATIENCE_MS / 4);
    postgres_server_thaw(server);
    test_op_done(&op);
    test_close(&fresh);
    test_close(&store);
}

/* A host that takes connections and says nothing does not keep the next one from being tried. */
static void the_next_host_is_tried(void **unused)
{
    fault_proxy *hole = proxy_start_for(PROXY_POSTGRES, server->port);
    char address[256];
    test_store store;

    (void)unused;
    proxy_black_hole(hole, true);
    snprintf(address, sizeof address, "postgres://postgres@127.0.0.1:%d,127.0.0.1:%d/postgres?connect_timeout=1",
             proxy_port(hole), server->port);
    store = test_open(verrou_postgres_driver(), address);
    assert_int_equal(test_acquire(&store, "k", "o"), VERROU_OP_APPLIED);
    test_close(&store);
    proxy_stop(hole);
}

/* The same when the time is shorter than the limit of one connection: each host gets a share of it. */
static void a_silent_host_leaves_time_for_the_next(void **unused)
{
    fault_proxy *hole = proxy_start_for(PROXY_POSTGRES, server->port);
    verrou_error err = VERROU_ERROR_INIT;
    char address[256];
    test_store store;

    (void)unused;
    proxy_black_hole(hole, true);
    snprintf(address, sizeof address, "postgres://postgres@127.0.0.1:%d,127.0.0.1:%d/postgres?connect_timeout=60",
             proxy_port(hole), server->port);
    assert_int_equal(test_create(&store, verrou_postgres_driver(), address, &err), VERROU_OK);
    assert_int_equal(store.driver->open(store.state, verrou_now_ms() + 2000, &store.lane, &err), VERROU_OK);
    test_close(&store);
    proxy_stop(hole);
}

/* A pooler that loses its server says so in words of its own, as a server would; but the commit may have been made: unknown, and not undone. */
static void a_pooler_does_not_know_either(void **unused)
{
    postgres_server behind = *server;
    pgbouncer *front;
    test_store store;

    (void)unused;
    snprintf(behind.folder, sizeof behind.folder, "127.0.0.1"); /* where the pooler finds the server */
    behind.port = proxy_port(faults_proxy);
    front = pgbouncer_start_with(&behind, 1, "server_login_retry = 0\n");
    store = test_open(verrou_postgres_driver(), test_address(front->port, NULL));
    assert_int_equal(test_acquire(&store, "k", "o"), VERROU_OP_APPLIED);
    proxy_set(faults_proxy, PROXY_DROP_REPLY, .match = "UPDATE");
    assert_int_equal(test_release(&store, "k", "o"), VERROU_OP_UNKNOWN);
    assert_string_equal(owner_of("k"), "");
    test_close(&store);
    pgbouncer_free(front);
}

/* A standby is no place for locks, and another host is looked for; when it becomes the primary it is one. */
static void standbys_and_failover(void **unused)
{
    postgres_server *primary = postgres_server_start(NULL);
    postgres_server *standby = postgres_server_start(&(postgres_options){.standby_of = primary});
    verrou_error err = VERROU_ERROR_INIT;
    char address[256];
    test_store store;

    (void)unused;
    assert_int_equal(test_create(&store, verrou_postgres_driver(), test_address(standby->port, NULL), &err), VERROU_OK);
    assert_int_not_equal(test_open_lane(&store, &err), VERROU_OK);
    assert_true(err.retriable);
    test_close(&store);

    snprintf(address, sizeof address, "postgres://postgres@127.0.0.1:%d,127.0.0.1:%d/postgres", standby->port,
             primary->port);
    store = test_open(verrou_postgres_driver(), address);
    assert_int_equal(test_acquire(&store, "k", "o"), VERROU_OP_APPLIED);
    postgres_catch_up(standby);
    postgres_server_kill(primary);
    assert_int_equal(test_inspect(&store, "k"), VERROU_OP_UNSENT);
    postgres_promote(standby);
    reopen(&store);
    assert_int_equal(test_acquire(&store, "k", "p"), VERROU_OP_REFUSED);
    assert_string_equal(test_last.holder, "o");
    assert_int_equal(test_release(&store, "k", "o"), VERROU_OP_APPLIED);
    test_close(&store);
    postgres_server_free(standby);
    postgres_server_free(primary);
}

/* A server that may not write any more: nothing is done, the lane is closed, another one is looked for. */
static void a_session_that_becomes_read_only(void **unused)
{
    test_store store = test_table(NULL);

    (void)unused;
    test_acquire(&store, "k", "o");
    /* As a demoted primary answers. */
    postgres_text(server, "create or replace function demoted() returns trigger language plpgsql as $$ begin"
                          " raise exception 'cannot execute UPDATE in a read-only transaction' using errcode = '25006';"
                          " end $$");
    postgres_text(server, "create trigger demoted before update on verrou for each row execute function demoted()");
    assert_int_equal(test_release(&store, "k", "o"), VERROU_OP_RETRY);
    assert_int_not_equal(test_last.lane, VERROU_OK);
    test_close(&store);
}

/* A wrong password is no use to repeat, and is not shown; nor is a database that there is not. */
static void wrong_passwords(void **unused)
{
    postgres_server *strict = postgres_server_start(&(postgres_options){.password = "right"});
    verrou_error err = VERROU_ERROR_INIT;
    char address[256];
    test_store store;

    (void)unused;
    snprintf(address, sizeof address, "postgres://verrou:s3cr3t@127.0.0.1:%d/postgres", strict->port);
    assert_int_equal(test_create(&store, verrou_postgres_driver(), address, &err), VERROU_OK);
    assert_int_not_equal(test_open_lane(&store, &err), VERROU_OK);
    assert_false(err.retriable);
    assert_string_equal(err.store_code, "28P01");
    assert_non_null(strstr(err.message, "password authentication failed"));
    assert_null(strstr(err.message, "s3cr3t"));
    test_close(&store);

    snprintf(address, sizeof address, "postgres://verrou:right@127.0.0.1:%d/nowhere", strict->port);
    assert_int_equal(test_create(&store, verrou_postgres_driver(), address, &err), VERROU_OK);
    assert_int_not_equal(test_open_lane(&store, &err), VERROU_OK);
    assert_false(err.retriable);
    assert_string_equal(err.store_code, "3D000");
    test_close(&store);

    snprintf(address, sizeof address, "postgres://verrou@127.0.0.1:%d/postgres?passfile=/nowhere", strict->port);
    assert_int_equal(test_create(&store, verrou_postgres_driver(), address, &err), VERROU_OK);
    assert_int_not_equal(test_open_lane(&store, &err), VERROU_OK);
    assert_false(err.retriable);
    test_close(&store);
    postgres_server_free(strict);
}

/* A certificate that is not for the host, or of nobody known, is no use to repeat either. */
static void wrong_certificates(void **unused)
{
    static const char *const bad[] = {"expired", "other"};

    (void)unused;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        postgres_server *secure = postgres_server_start(&(postgres_options){.tls = bad[i], .tls_only = true});
        verrou_error err = VERROU_ERROR_INIT;
        char address[512];
        test_store store;

        snprintf(address, sizeof address, "postgres://postgres@localhost:%d/postgres?ca=%s/ca.pem", secure->port,
                 server_certificates());
        assert_int_equal(test_create(&store, verrou_postgres_driver(), address, &err), VERROU_OK);
        assert_int_not_equal(test_open_lane(&store, &err), VERROU_OK);
        assert_false(err.retriable);
        test_close(&store);
        postgres_server_free(secure);
    }
}

static void open_in_vain(const char *address, verrou_error *err)
{
    test_store store;

    *err = (verrou_error)VERROU_ERROR_INIT;
    assert_int_equal(test_create(&store, verrou_postgres_driver(), address, err), VERROU_OK);
    assert_int_not_equal(test_open_lane(&store, err), VERROU_OK);
    test_close(&store);
}

/* A file that an address names and that is not there is an error for good that names both, also where no TLS is needed; unless TLS is off. */
static void missing_files_are_named(void **unused)
{
    static const char *const missing[][2] = {
        {"ca=/nonexistent/ca", "ca=/nonexistent/ca: No such file or directory"},
        {"cert=/nonexistent/c&key=/nonexistent/k", "cert=/nonexistent/c: No such file or directory"},
        {"key=/nonexistent/k", "key=/nonexistent/k: No such file or directory"},
        {"sslmode=require&sslcrl=/nonexistent/crl", "sslcrl=/nonexistent/crl: No such file or directory"},
    };
    test_store store;

    (void)unused;
    for (size_t i = 0; i < sizeof missing / sizeof missing[0]; i++) {
        verrou_error err;

        open_in_vain(test_address(server->port, missing[i][0]), &err);
        assert_false(err.retriable);
        if (!strstr(err.message, missing[i][1]))
            fail_msg("%s: %s", missing[i][0], err.message);
    }
    store = test_table("sslmode=disable&sslrootcert=/nonexistent/ca");
    test_close(&store);
}

/* Of what libpq tells in several lines all is kept, from the first one, which names the server and what was wrong; once, though it was tried twice. */
static void errors_of_several_lines(void **unused)
{
    postgres_server *secure = postgres_server_start(&(postgres_options){.tls = "server", .password = "right"});
    verrou_error err;
    char address[256];

    (void)unused;
    snprintf(address, sizeof address, "postgres://verrou:right@localhost:%d/postgres?sslmode=verify-full",
             secure->port);
    open_in_vain(address, &err);
    assert_false(err.retriable);
    assert_non_null(strstr(err.message, "postgres: connection to server at \"localhost\""));
    assert_non_null(strstr(err.message, "; Either provide the file"));
    snprintf(address, sizeof address, "postgres://verrou:wrong@127.0.0.1:%d/postgres", secure->port);
    open_in_vain(address, &err);
    assert_string_equal(err.store_code, "28P01");
    assert_null(strstr(err.message, "28P01"));
    assert_null(strstr(err.message, "; "));
    postgres_server_free(secure);
}

/* ---- the library above it ---- */

/* A lost answer is settled by the library: the lock is held, and its own lease is not waited for. */
static void lost_answers_are_settled(void **unused)
{
    verrou_store *store = faults_open_proxy("");
    verrou_lock *lock = faults_lock(store, "k", FAULTS_LEASE_MS);

    (void)unused;
    for (int i = 0; i < 5; i++) {
        proxy_set(faults_proxy, PROXY_DROP_REPLY, .match = "verrou_acquire");
        proxy_set(faults_proxy, PROXY_DROP_REPLY, .match = "verrou_release");
        assert_int_equal(verrou_lock_acquire(lock, NULL, NULL, NULL), VERROU_OK);
        assert_int_equal(verrou_lock_release(lock, NULL, NULL), VERROU_OK);
        assert_string_equal(owner_of("k"), "");
    }
    faults_done(lock, store);
}

typedef struct worker {
    pthread_t thread;
    verrou_store *store;
    atomic_bool *over;
    atomic_int *inside;
    atomic_int *taken;
    int bad;
} worker;

/* Takes the lock again and again; failures of the store are none of the test's business, two at once are. */
static void *work(void *argument)
{
    worker *w = argument;
    verrou_lock *lock = NULL;

    if (verrou_lock_new(w->store, "k", NULL, &lock, NULL) != VERROU_OK)
        return NULL;
    while (!atomic_load(w->over)) {
        verrou_acquire_options options = VERROU_ACQUIRE_OPTIONS_INIT;

        options.timeout_ms = 2000;
        if (verrou_lock_acquire(lock, &options, NULL, NULL) != VERROU_OK)
            continue;
        w->bad += atomic_fetch_add(w->inside, 1) != 0;
        atomic_fetch_sub(w->inside, 1);
        atomic_fetch_add(w->taken, 1);
        if (verrou_lock_release(lock, NULL, NULL) != VERROU_OK)
            continue;
    }
    verrou_lock_free(lock);
    return NULL;
}

static void wait_taken(atomic_int *taken, int more)
{
    int goal = atomic_load(taken) + more;
    int64_t limit_ms = process_clock_ms() + PROCESS_PATIENCE_MS;

    while (atomic_load(taken) < goal) {
        assert_true(process_clock_ms() < limit_ms);
        process_pause();
    }
}

/* The server is killed and started again in the middle of the work, several times: nobody is inside with somebody else, and it goes on. */
static void a_server_that_is_killed_and_started_again(void **unused)
{
    verrou_store *stores[] = {faults_open(test_address(server->port, NULL)),
                              faults_open(test_address(server->port, NULL))};
    atomic_bool over = false;
    atomic_int inside = 0, taken = 0;
    worker workers[6];
    int bad = 0;

    (void)unused;
    for (int i = 0; i < 6; i++) {
        workers[i] = (worker){.store = stores[i % 2], .over = &over, .inside = &inside, .taken = &taken};
        assert_int_equal(pthread_create(&workers[i].thread, NULL, work, &workers[i]), 0);
    }
    for (int round = 0; round < 3; round++) {
        wait_taken(&taken, 50);
        postgres_server_kill(server);
        postgres_server_restart(server);
    }
    /* A lease whose release was lost with a kill runs out by itself, at the latest. */
    wait_taken(&taken, 50);
    atomic_store(&over, true);
    for (int i = 0; i < 6; i++) {
        pthread_join(workers[i].thread, NULL);
        bad += workers[i].bad;
    }
    assert_int_equal(bad, 0);
    for (int i = 0; i < 2; i++)
        verrou_store_close(stores[i]);
}

#define CONTENDERS 4
#define TURNS 100

static void contend(int from_parent, int to_parent, const void *unused)
{
    verrou_store *store = faults_open(test_address(server->port, NULL));
    verrou_lock *locks[3] = {faults_lock(store, "one", FAULTS_LEASE_MS), faults_lock(store, "two", FAULTS_LEASE_MS),
                             faults_lock(store, "three", FAULTS_LEASE_MS)};

    (void)unused;
    test_tell(to_parent);
    test_await(from_parent);
    for (int i = 0; i < TURNS; i++) {
        if (verrou_lock_acquire(locks[i % 3], NULL, NULL, NULL) != VERROU_OK ||
            verrou_lock_release(locks[i % 3], NULL, NULL) != VERROU_OK)
            _exit(1);
    }
    for (int i = 0; i < 3; i++)
        verrou_lock_free(locks[i]);
    verrou_store_close(store);
}

/* Processes that want the same locks leave no errors in the server's log, but rows that were locked for too long. */
static void contention_leaves_no_errors(void **unused)
{
    test_child children[CONTENDERS];

    (void)unused;
    for (int i = 0; i < CONTENDERS; i++)
        children[i] = test_fork(contend, NULL);
    for (int i = 0; i < CONTENDERS; i++)
        assert_true(test_await(children[i].from));
    for (int i = 0; i < CONTENDERS; i++)
        test_tell(children[i].to);
    for (int i = 0; i < CONTENDERS; i++)
        assert_int_equal(test_wait(&children[i]), 0);
    assert_int_equal(postgres_logged(server, "ERROR:"),
                     postgres_logged(server, "ERROR:  canceling statement due to lock timeout"));
}

#define WAITERS 1000

static int served;

/* Give it back at once, for the next one. */
static void on_acquired(void *user, const verrou_result *result)
{
    assert_int_equal(result->status, VERROU_OK);
    served++;
    assert_int_equal(verrou_lock_release(user, NULL, NULL), VERROU_OK);
}

static void dispatch_for(verrou_queue *queue, int64_t until_ms)
{
    struct pollfd fd = {verrou_queue_fd(queue), POLLIN, 0};
    int64_t left_ms;

    while ((left_ms = until_ms - process_clock_ms()) > 0 && served < WAITERS)
        if (poll(&fd, 1, (int)left_ms) > 0)
            verrou_dispatch(queue, 100);
}

/* A thousand who wait for one key ask for nothing while nothing happens; all of them are served then. */
static void many_waiters_cost_nothing(void **unused)
{
    static verrou_lock *locks[WAITERS];
    verrou_store *holder_store = faults_open(test_address(server->port, NULL)),
                 *store = faults_open(test_address(server->port, NULL));
    verrou_lock *holder = faults_lock(holder_store, "k", FAULTS_LEASE_MS);
    verrou_queue *queue = NULL;

    (void)unused;
    served = 0;
    assert_int_equal(verrou_queue_new(&queue, NULL), VERROU_OK);
    assert_int_equal(verrou_lock_acquire(holder, NULL, NULL, NULL), VERROU_OK);
    for (int i = 0; i < WAITERS; i++) {
        locks[i] = faults_lock(store, "k", FAULTS_LEASE_MS);
        assert_int_equal(verrou_lock_acquire_async(locks[i], NULL, queue, on_acquired, locks[i], NULL), VERROU_OK);
    }
    while (postgres_logged(server, "execute verrou_show") == 0)
        process_pause();
    /* The first one asks once more when the key is watched; from then on it does so every five seconds. */
    dispatch_for(queue, process_clock_ms() + 500);
    postgres_log_forget(server);
    dispatch_for(queue, process_clock_ms() + 3000);
    assert_in_range(postgres_logged(server, "LOG:"), 0, 1);
    assert_int_equal(served, 0);
    assert_int_equal(verrou_lock_release(holder, NULL, NULL), VERROU_OK);
    dispatch_for(queue, process_clock_ms() + PROCESS_PATIENCE_MS);
    assert_int_equal(served, WAITERS);
    for (int i = 0; i < WAITERS; i++)
        verrou_lock_free(locks[i]);
    verrou_lock_free(holder);
    verrou_queue_free(queue);
    verrou_store_close(store);
    verrou_store_close(holder_store);
}

/* ---- clocks ---- */

#define SKEW_S 60

/* In a process whose clock is wrong: what is held is not taken, what is taken is held as long as it should be. The exit status says. */
static int with_wrong_clock(const char *address, long long right_s)
{
    long long skew_s = (long long)time(NULL) - right_s;
    verrou_info info = VERROU_INFO_INIT;
    verrou_store *store = NULL;
    verrou_lock *lock = NULL;

    if (skew_s > -SKEW_S / 2 && skew_s < SKEW_S / 2)
        return 3;
    if (verrou_store_open(address, NULL, &store, NULL) != VERROU_OK ||
        verrou_lock_new(store, "held", NULL, &lock, NULL) != VERROU_OK)
        return 4;
    if (verrou_lock_acquire_immediately(lock, &info, NULL) != VERROU_ENOTACQUIRED || info.remaining_ms > 30000 ||
        info.remaining_ms < 1000)
        return 5;
    verrou_lock_free(lock);
    if (verrou_lock_new(store, "theirs", NULL, &lock, NULL) != VERROU_OK ||
        verrou_lock_acquire(lock, NULL, NULL, NULL) != VERROU_OK)
        return 6;
    return 0;
}

#ifndef SANITIZED /* libfaketime and the runtime of the sanitizers cannot both stand in for clock_gettime() */
/* A process whose clock is a minute ahead or behind excludes and is excluded all the same: the server's clock counts. */
static void wrong_clocks_do_no_harm(void **unused)
{
    verrou_store *store = faults_open(test_address(server->port, NULL));
    verrou_lock *held = faults_lock(store, "held", FAULTS_LEASE_MS),
                *theirs = faults_lock(store, "theirs", FAULTS_LEASE_MS);
    int status;

    (void)unused;
    for (int sign = -1; sign <= 1; sign += 2) {
        verrou_info info = VERROU_INFO_INIT;
        char skew[16], now[32];
        pid_t pid;

        assert_int_equal(verrou_lock_acquire(held, NULL, NULL, NULL), VERROU_OK);
        snprintf(skew, sizeof skew, "%+ds", sign * SKEW_S);
        snprintf(now, sizeof now, "%lld", (long long)time(NULL));
        pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
            setenv("LD_PRELOAD", "/usr/$LIB/faketime/libfaketime.so.1", 1);
            setenv("FAKETIME", skew, 1);
            setenv("FAKETIME_DONT_FAKE_MONOTONIC", "1", 1);
            execl("/proc/self/exe", "test_postgres_faults", "clock", test_address(server->port, NULL), now,
                  (char *)NULL);
            _exit(2);
        }
        assert_int_equal(waitpid(pid, &status, 0), pid);
        if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
            fail_msg("a clock %s: status %d (3: the clock was right; is the package libfaketime installed?)", skew,
                     WEXITSTATUS(status));
        assert_int_equal(verrou_lock_acquire_immediately(theirs, &info, NULL), VERROU_ENOTACQUIRED);
        assert_in_range(info.remaining_ms, 1000, 30000);
        assert_int_equal(verrou_store_force_release(store, "theirs", NULL, NULL), VERROU_OK);
        assert_int_equal(verrou_lock_release(held, NULL, NULL), VERROU_OK);
    }
    verrou_lock_free(held);
    faults_done(theirs, store);
}

#endif

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        faults_test(a_lost_answer_is_unknown),
        faults_test(an_unconfirmed_batch),
        faults_test(a_late_request_comes_to_nothing),
        loud_test(a_lane_that_ended_at_rest),
        loud_test(a_frozen_server_meets_deadlines),
        loud_test(the_next_host_is_tried),
        faults_test(a_pooler_does_not_know_either),
        loud_test(a_silent_host_leaves_time_for_the_next),
        loud_test(standbys_and_failover),
        loud_test(a_session_that_becomes_read_only),
        loud_test(wrong_passwords),
        loud_test(wrong_certificates),
        loud_test(missing_files_are_named),
        loud_test(errors_of_several_lines),
        FAULTS_TESTS,
        faults_test(lost_answers_are_settled),
        loud_test(a_server_that_is_killed_and_started_again),
        loud_test(contention_leaves_no_errors),
        quiet_test(many_waiters_cost_nothing),
#ifndef SANITIZED
        quiet_test(wrong_clocks_do_no_harm),
#endif
    };

    if (argc == 2)
        cmocka_set_test_filter(argv[1]);
    if (argc == 4 && strcmp(argv[1], "clock") == 0) {
        if (verrou_register_driver(verrou_postgres_driver(), NULL) != VERROU_OK)
            return 1;
        return with_wrong_clock(argv[2], atoll(argv[3]));
    }
    return cmocka_run_group_tests_name("postgres_faults", tests, start, NULL);
}
