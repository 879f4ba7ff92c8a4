/*
 * mysql_faults_test.c - the MySQL store through the library while something between it and the server goes wrong.
 *
 * What is claimed of all stores is in faults_testing.h. Here are, besides, what this store alone does with lost sessions, TLS, passwords and
 * read-only servers, that it leaves the process alone, and crowds of users.
 */
#include "faults_testing.h"
#include "mariadb_servers.h"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <verrou/mysql.h>

static mariadb_server *server;

static const char *address_at(int port, const char *settings)
{
    static char text[512];

    snprintf(text, sizeof text, "mysql://" MARIADB_USER "@127.0.0.1:%d/" MARIADB_DATABASE "%s", port, settings);
    return text;
}

#define NOW_MS "(UNIX_TIMESTAMP(NOW(6))*1000)"

/* Who holds the key, as the table says; "" if nobody does. */
static const char *holder(void)
{
    return mariadb_text(server, "SELECT IFNULL(MAX(owner),'') FROM " MARIADB_DATABASE ".verrou WHERE `key`='" FAULTS_KEY
                                "' AND expiration>" NOW_MS);
}

static long long left_ms(void)
{
    return mariadb_integer(server, "SELECT FLOOR(MAX(expiration)-" NOW_MS ") FROM " MARIADB_DATABASE ".verrou");
}

static void empty(void)
{
    mariadb_text(server, "DROP TABLE IF EXISTS " MARIADB_DATABASE ".verrou");
}

static void end_sessions(void)
{
    mariadb_text(server, "KILL USER " MARIADB_USER "@localhost");
    mariadb_text(server, "KILL USER " MARIADB_USER "@'%%'");
}

FAULTS_SERVER_FUNCTIONS(mariadb)

static const faulty_store mysql_store = {
    .protocol = PROXY_MYSQL,
    .match = {"EXECUTE", "EXECUTE", "EXECUTE", "EXECUTE", "EXECUTE", "EXECUTE"},
    .reply_bytes = 60,
    .address = address_at,
    FAULTS_SERVER,
    .end_sessions = end_sessions,
    .empty = empty,
    .holder = holder,
    .left_ms = left_ms,
};

static int start_server(void **state)
{
    (void)state;
    server = mariadb_server_start(NULL);
    faults_use(&mysql_store);
    return verrou_register_driver(verrou_mysql_driver(), NULL) == VERROU_OK ? 0 : -1;
}

static int stop_server(void **state)
{
    (void)state;
    mariadb_free_all();
    return 0;
}

/* ---- lost answers ---- */

/* The session of a lost request is ended before anything else is asked, and no other session is. */
static void only_the_lost_session_is_ended(void **state)
{
    test_store other = test_open(verrou_mysql_driver(), address_at(server->port, ""));
    test_store store = test_open(verrou_mysql_driver(), address_at(proxy_port(faults_proxy), ""));
    verrou_op op = test_op(VERROU_OP_FORCE, FAULTS_KEY, NULL, 0);
    long long sessions;

    (void)state;
    assert_int_equal(test_acquire(&other, FAULTS_KEY, "other"), VERROU_OP_APPLIED);
    assert_int_equal(test_inspect(&store, FAULTS_KEY), VERROU_OP_APPLIED);
    sessions = mariadb_integer(server, "SELECT COUNT(*) FROM information_schema.PROCESSLIST");
    proxy_set(faults_proxy, PROXY_HOLD_REQUEST, .match = "EXECUTE");
    assert_int_not_equal(test_execute(&store, &op, 1, 100, NULL), VERROU_OK);
    assert_int_equal(op.result, VERROU_OP_UNKNOWN);
    test_op_done(&op);
    test_close_lane(&store);
    assert_int_equal(test_open_lane(&store, NULL), VERROU_OK);
    assert_int_equal(mariadb_integer(server, "SELECT COUNT(*) FROM information_schema.PROCESSLIST"), sessions);
    proxy_let_go(faults_proxy);
    assert_int_equal(test_inspect(&store, FAULTS_KEY), VERROU_OP_APPLIED);
    assert_int_equal(test_release(&other, FAULTS_KEY, "other"), VERROU_OP_APPLIED);
    assert_int_equal(test_last.lane, VERROU_OK);
    test_close(&store);
    test_close(&other);
}

/* An answer to a batch that was lost: what changed something is unknown, what was told before the first change stays. */
static void lost_answer_to_a_batch(void **state)
{
    test_store store = test_open(verrou_mysql_driver(), address_at(proxy_port(faults_proxy), ""));
    verrou_op ops[] = {test_op(VERROU_OP_ACQUIRE, "a", "me", FAULTS_LEASE_MS),
                       test_op(VERROU_OP_ACQUIRE, "b", "me", FAULTS_LEASE_MS),
                       test_op(VERROU_OP_INSPECT, "c", NULL, 0)};

    (void)state;
    assert_int_equal(test_inspect(&store, FAULTS_KEY), VERROU_OP_REFUSED);
    proxy_set(faults_proxy, PROXY_DROP_REPLY, .match = "BEGIN");
    assert_int_not_equal(test_execute(&store, ops, 3, TEST_LIMIT_MS, NULL), VERROU_OK);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(ops[i].result, VERROU_OP_UNKNOWN);
        test_op_done(&ops[i]);
    }
    assert_int_equal(mariadb_integer(server, "SELECT COUNT(*) FROM " MARIADB_DATABASE ".verrou"), 2);
    test_close(&store);
}

/* A connection that was closed while nobody used it: the request was not sent, and goes over another one. */
static void idle_connection_is_looked_at(void **state)
{
    test_store store = test_open(verrou_mysql_driver(), address_at(proxy_port(faults_proxy), ""));
    int64_t idle_from_ms;

    (void)state;
    assert_int_equal(test_acquire(&store, FAULTS_KEY, "me"), VERROU_OP_APPLIED);
    idle_from_ms = verrou_now_ms();
    proxy_close_all(faults_proxy);
    while (verrou_now_ms() - idle_from_ms < 150)
        process_pause();
    assert_int_equal(test_release(&store, FAULTS_KEY, "me"), VERROU_OP_UNSENT);
    assert_int_not_equal(test_last.lane, VERROU_OK);
    test_close(&store);
}

/* A killed statement may have been carried out: it is unknown, not refused. */
static void killed_transaction(void **state)
{
    test_store store = test_open(verrou_mysql_driver(), address_at(proxy_port(faults_proxy), ""));

    (void)state;
    assert_int_equal(test_acquire(&store, FAULTS_KEY, "me"), VERROU_OP_APPLIED);
    mariadb_text(server, "CREATE TRIGGER " MARIADB_DATABASE ".kills BEFORE UPDATE ON " MARIADB_DATABASE
                         ".verrou FOR EACH ROW KILL CONNECTION_ID()");
    assert_int_equal(test_release(&store, FAULTS_KEY, "me"), VERROU_OP_UNKNOWN);
    assert_int_not_equal(test_last.lane, VERROU_OK);
    test_close(&store);
}

/* ---- servers that are not to be had, or may not write ---- */

/* Opening and asking end by their deadline although nothing is heard. */
static void deadlines_are_met(void **state)
{
    test_store store;
    verrou_error err = VERROU_ERROR_INIT;
    verrou_op op = test_op(VERROU_OP_INSPECT, FAULTS_KEY, NULL, 0);
    int64_t before_ms;

    (void)state;
    store = test_open(verrou_mysql_driver(), address_at(proxy_port(faults_proxy), "?connect-timeout=150ms"));
    assert_int_equal(test_inspect(&store, FAULTS_KEY), VERROU_OP_REFUSED);
    proxy_black_hole(faults_proxy, true);
    before_ms = verrou_now_ms();
    assert_int_not_equal(test_execute(&store, &op, 1, 150, &err), VERROU_OK);
    assert_int_equal(op.result, VERROU_OP_UNKNOWN);
    test_op_done(&op);
    test_close_lane(&store);
    assert_int_not_equal(test_open_lane(&store, &err), VERROU_OK);
    assert_int_equal(err.retriable, 1);
    /* Far below a second or more for each, which is all that the client library knows; far above what is needed. */
    assert_true(verrou_now_ms() - before_ms < 2000);
    test_close(&store);
}

/* A wrong password is refused at once and for good, without being told. */
static void wrong_password(void **state)
{
    mariadb_server *guarded = mariadb_server_start(&(mariadb_options){.password = "right"});
    char address[200];
    verrou_store *store;
    verrou_lock *lock;
    verrou_error err = VERROU_ERROR_INIT;

    (void)state;
    snprintf(address, sizeof address, "mysql://" MARIADB_PASSWORD_USER ":s3cret@127.0.0.1:%d/" MARIADB_DATABASE,
             guarded->port);
    store = faults_open(address);
    lock = faults_lock(store, FAULTS_KEY, FAULTS_LEASE_MS);
    assert_int_equal(verrou_lock_acquire(lock, NULL, NULL, &err), VERROU_ESTORAGE);
    assert_string_equal(err.store_code, "1045");
    assert_int_equal(err.retriable, 0);
    assert_null(strstr(err.message, "s3cret"));
    faults_done(lock, store);
    mariadb_server_free(guarded);
}

/* A database that is not there is an error that names it. */
static void unknown_database(void **state)
{
    verrou_store *store;
    verrou_lock *lock;
    verrou_error err = VERROU_ERROR_INIT;
    char address[200];

    (void)state;
    snprintf(address, sizeof address, "mysql://" MARIADB_USER "@127.0.0.1:%d/nowhere", server->port);
    store = faults_open(address);
    lock = faults_lock(store, FAULTS_KEY, FAULTS_LEASE_MS);
    assert_int_equal(verrou_lock_acquire(lock, NULL, NULL, &err), VERROU_ESTORAGE);
    assert_string_equal(err.store_code, "1049");
    assert_non_null(strstr(err.message, "nowhere"));
    faults_done(lock, store);
}

/* A host whose name nobody knows is an error for good: trying again does not make it known. */
static void unknown_host(void **state)
{
    test_store store;
    verrou_error err = VERROU_ERROR_INIT;

    (void)state;
    assert_int_equal(test_create(&store, verrou_mysql_driver(), "mysql://u:s3cret@nohost.invalid/d", &err), VERROU_OK);
    assert_int_not_equal(test_open_lane(&store, &err), VERROU_OK);
    assert_string_equal(err.store_code, "2005");
    assert_non_null(strstr(err.message, "nohost.invalid"));
    /* Without anybody to ask, the name may be known all the same. */
    assert_int_equal(err.retriable, strstr(err.message, "(-3)") != NULL);
    test_close(&store);
}

/* A server that became read-only is left for one that may write; if there is none, that is the error, until there is one again. */
static void read_only_server_is_left(void **state)
{
    mariadb_server *first = mariadb_server_start(&(mariadb_options){.password = "pw"});
    mariadb_server *second = mariadb_server_start(&(mariadb_options){.password = "pw"});
    verrou_store *store;
    verrou_lock *lock;
    verrou_error err = VERROU_ERROR_INIT;
    char address[200];

    (void)state;
    snprintf(address, sizeof address,
             "mysql://" MARIADB_PASSWORD_USER ":pw@127.0.0.1:%d,127.0.0.1:%d/" MARIADB_DATABASE "?timeout=2s",
             first->port, second->port);
    store = faults_open(address);
    lock = faults_lock(store, FAULTS_KEY, FAULTS_LEASE_MS);
    faults_acquire(lock);
    assert_int_equal(mariadb_integer(first, "SELECT COUNT(*) FROM " MARIADB_DATABASE ".verrou"), 1);
    faults_release(lock);
    mariadb_text(first, "SET GLOBAL read_only=1");
    faults_acquire(lock);
    assert_int_equal(mariadb_integer(second, "SELECT COUNT(*) FROM " MARIADB_DATABASE ".verrou"), 1);
    faults_release(lock);
    mariadb_text(second, "SET GLOBAL read_only=1");
    assert_int_equal(verrou_lock_acquire_immediately(lock, NULL, &err), VERROU_ESTORAGE);
    assert_string_equal(err.store_code, "1290");
    mariadb_text(first, "SET GLOBAL read_only=0");
    faults_acquire(lock);
    faults_release(lock);
    faults_done(lock, store);
    mariadb_server_free(first);
    mariadb_server_free(second);
}

/* ---- the process is left alone ---- */

static atomic_int pipes;

static void on_pipe(int signo)
{
    (void)signo;
    atomic_fetch_add(&pipes, 1);
}

/* With TLS too, a connection that breaks raises no signal, nobody's handler is replaced, and nothing is left to programs that are started. */
static void process_is_left_alone(void **state)
{
    mariadb_server *secure =
        mariadb_server_start(&(mariadb_options){.tls = "server", .password = "pw", .tls_only = true});
    struct sigaction mine = {.sa_handler = on_pipe}, before, after;
    char address[600], path[64];
    test_store store;
    DIR *folder;

    (void)state;
    snprintf(address, sizeof address,
             "mysql://" MARIADB_PASSWORD_USER ":pw@localhost:%d/" MARIADB_DATABASE "?ca=%s/ca.pem", secure->port,
             server_certificates());
    assert_int_equal(sigaction(SIGPIPE, &mine, &before), 0);
    store = test_open(verrou_mysql_driver(), address);
    assert_int_equal(test_acquire(&store, FAULTS_KEY, "me"), VERROU_OP_APPLIED);
    folder = opendir("/proc/self/fd");
    assert_non_null(folder);
    for (struct dirent *entry; (entry = readdir(folder));) {
        int fd = atoi(entry->d_name);
        struct stat what;
        struct sockaddr_storage peer;
        socklen_t size = sizeof peer;

        if (entry->d_name[0] == '.' || fstat(fd, &what) != 0 || !S_ISSOCK(what.st_mode) ||
            getpeername(fd, (struct sockaddr *)&peer, &size) != 0 || peer.ss_family == AF_UNIX)
            continue;
        snprintf(path, sizeof path, "descriptor %d", fd);
        if (!(fcntl(fd, F_GETFD) & FD_CLOEXEC))
            fail_msg("%s would be inherited", path);
    }
    closedir(folder);
    mariadb_server_kill(secure);
    for (int i = 0; i < 3; i++)
        assert_int_not_equal(test_release(&store, FAULTS_KEY, "me"), VERROU_OP_APPLIED);
    test_close(&store);
    assert_int_equal(sigaction(SIGPIPE, &before, &after), 0);
    assert_true(after.sa_handler == on_pipe);
    assert_int_equal(atomic_load(&pipes), 0);
    mariadb_server_free(secure);
}

/* ---- TLS ---- */

static verrou_status open_secure(const mariadb_server *secure, const char *host, const char *settings,
                                 verrou_error *err)
{
    char address[700];
    test_store store;
    verrou_status status;

    snprintf(address, sizeof address, "mysql://" MARIADB_PASSWORD_USER ":pw@%s:%d/" MARIADB_DATABASE "%s", host,
             secure->port, settings);
    assert_int_equal(test_create(&store, verrou_mysql_driver(), address, NULL), VERROU_OK);
    *err = (verrou_error)VERROU_ERROR_INIT;
    status = test_open_lane(&store, err);
    test_close(&store);
    return status;
}

/* With ca= the server's certificate has to be signed by it, valid, and for that host; otherwise the connection is refused for good. */
static void certificates_are_verified(void **state)
{
    static const char *const wrong[] = {"expired", "other"};
    mariadb_server *good =
        mariadb_server_start(&(mariadb_options){.tls = "server", .password = "pw", .tls_only = true});
    mariadb_server *none = mariadb_server_start(&(mariadb_options){.password = "pw"});
    char with_ca[400];
    verrou_error err;

    (void)state;
    snprintf(with_ca, sizeof with_ca, "?ca=%s/ca.pem", server_certificates());
    assert_int_equal(open_secure(good, "localhost", with_ca, &err), VERROU_OK);
    assert_int_equal(open_secure(good, "localhost", "?tls=encrypt", &err), VERROU_OK);
    assert_int_not_equal(open_secure(good, "localhost", "", &err), VERROU_OK); /* the user has to use TLS */
    for (int i = 0; i < 2; i++) {
        mariadb_server *bad = mariadb_server_start(&(mariadb_options){.tls = wrong[i], .password = "pw"});

        if (open_secure(bad, "localhost", with_ca, &err) == VERROU_OK)
            fail_msg("the certificate %s is taken", wrong[i]);
        if (err.retriable)
            fail_msg("%s: %s", wrong[i], err.message);
        mariadb_server_free(bad);
    }
    assert_int_not_equal(open_secure(none, "localhost", with_ca, &err), VERROU_OK);
    assert_int_equal(err.retriable, 0);
    mariadb_server_free(good);
    mariadb_server_free(none);
}

/* A file that an address names and that is not there is an error for good that names both. */
static void missing_files_are_named(void **state)
{
    static const char *const missing[][2] = {
        {"?ca=/nonexistent/ca", "ca=/nonexistent/ca: No such file or directory"},
        {"?tls=encrypt&cert=/nonexistent/c&key=/nonexistent/k", "cert=/nonexistent/c: No such file or directory"},
        {"?tls=encrypt&cert=/dev/null&key=/nonexistent/k", "key=/nonexistent/k: No such file or directory"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof missing / sizeof missing[0]; i++) {
        verrou_error err;

        assert_int_not_equal(open_secure(server, "127.0.0.1", missing[i][0], &err), VERROU_OK);
        assert_int_equal(err.retriable, 0);
        if (!strstr(err.message, missing[i][1]))
            fail_msg("%s: %s", missing[i][0], err.message);
    }
}

/* A server with TLS that falls silent is not waited for longer than was asked. */
static void deadlines_are_met_with_tls(void **state)
{
    mariadb_server *secure = mariadb_server_start(&(mariadb_options){.tls = "server", .password = "pw"});
    verrou_op op = test_op(VERROU_OP_INSPECT, FAULTS_KEY, NULL, 0);
    char address[600];
    test_store store;
    int64_t before_ms;

    (void)state;
    snprintf(address, sizeof address,
             "mysql://" MARIADB_PASSWORD_USER ":pw@localhost:%d/" MARIADB_DATABASE
             "?connect-timeout=150ms&ca=%s/ca.pem",
             secure->port, server_certificates());
    store = test_open(verrou_mysql_driver(), address);
    assert_int_equal(test_inspect(&store, FAULTS_KEY), VERROU_OP_REFUSED);
    mariadb_server_freeze(secure);
    before_ms = verrou_now_ms();
    assert_int_not_equal(test_execute(&store, &op, 1, 150, NULL), VERROU_OK);
    assert_int_equal(op.result, VERROU_OP_UNKNOWN);
    test_op_done(&op);
    test_close_lane(&store);
    assert_int_not_equal(test_open_lane(&store, NULL), VERROU_OK);
    assert_true(verrou_now_ms() - before_ms < 2000);
    mariadb_server_thaw(secure);
    test_close(&store);
    mariadb_server_free(secure);
}

/* ---- many at once ---- */

#define THREADS 64
#define KEYS 8

static struct {
    atomic_long left;
    atomic_int inside[KEYS];
    atomic_long overlaps, errors;
    _Atomic uint64_t token[KEYS];
    verrou_store *stores[THREADS];
    char text[448];
} crowd;

static void note_error(const char *text)
{
    if (atomic_fetch_add(&crowd.errors, 1) == 0)
        snprintf(crowd.text, sizeof crowd.text, "%s", text);
}

static void hold_one_of_them(verrou_store *store, int which)
{
    verrou_acquire_options options = VERROU_ACQUIRE_OPTIONS_INIT;
    verrou_lock *lock = NULL;
    verrou_error err = VERROU_ERROR_INIT;
    uint64_t before;
    char key[16];

    options.delay_ms = 1;
    snprintf(key, sizeof key, "crowd%d", which);
    if (verrou_lock_new(store, key, NULL, &lock, &err) != VERROU_OK ||
        verrou_lock_acquire(lock, &options, NULL, &err) != VERROU_OK) {
        note_error(err.message);
        verrou_lock_free(lock);
        return;
    }
    before = atomic_exchange(&crowd.token[which], verrou_lock_fence(lock));
    if (atomic_fetch_add(&crowd.inside[which], 1) != 0 || before >= verrou_lock_fence(lock))
        atomic_fetch_add(&crowd.overlaps, 1);
    sched_yield();
    atomic_fetch_sub(&crowd.inside[which], 1);
    if (verrou_lock_release(lock, NULL, &err) != VERROU_OK)
        note_error(err.message);
    verrou_lock_free(lock);
}

static void *one_of_many(void *user)
{
    verrou_store **store = user;
    unsigned seed = (unsigned)(store - crowd.stores) + 1;

    while (atomic_fetch_sub(&crowd.left, 1) > 0)
        hold_one_of_them(*store, (int)((unsigned)rand_r(&seed) % KEYS));
    return NULL;
}

static void crowd_run(int stores, long turns)
{
    pthread_t threads[THREADS];

    empty();
    for (int i = 0; i < THREADS; i++)
        crowd.stores[i] = i < stores ? faults_open(address_at(server->port, "")) : crowd.stores[i % stores];
    atomic_store(&crowd.left, turns);
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, one_of_many, &crowd.stores[i]), 0);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < stores; i++)
        verrou_store_close(crowd.stores[i]);
    if (atomic_load(&crowd.errors))
        fail_msg("%ld errors: %s", atomic_load(&crowd.errors), crowd.text);
    assert_int_equal(atomic_load(&crowd.overlaps), 0);
}

/* 64 threads want 8 keys, 50,000 times: two are never inside, tokens grow, and nobody hears of a deadlock or any other error. */
static void crowd_on_one_store(void **state)
{
    (void)state;
    crowd_run(1, CROWD_TURNS);
}

/* The same with 16 stores, which know nothing of each other: their connections meet on the rows. */
static void crowd_on_many_stores(void **state)
{
    (void)state;
    crowd_run(16, CROWD_TURNS / 10);
}

/* ---- other programs ---- */

/* What a program of its own does: "refused" if the key is held for a while, "taken" if it can be had. Its exit status. */
static int play_client(const char *part, const char *address)
{
    struct sigaction mine = {.sa_handler = on_pipe}, after;
    verrou_store *store = NULL;
    verrou_lock *lock = NULL;
    verrou_info info = VERROU_INFO_INIT;
    verrou_lock_options options = VERROU_LOCK_OPTIONS_INIT;
    verrou_error err = VERROU_ERROR_INIT;
    verrou_status status;
    bool good;

    options.ttl_ms = FAULTS_LEASE_MS;
    if (sigaction(SIGPIPE, &mine, NULL) != 0 || verrou_register_driver(verrou_mysql_driver(), NULL) != VERROU_OK ||
        verrou_store_open(address, NULL, &store, &err) != VERROU_OK ||
        verrou_lock_new(store, FAULTS_KEY, &options, &lock, &err) != VERROU_OK)
        return 2;
    status = verrou_lock_acquire_immediately(lock, &info, &err);
    if (strcmp(part, "refused") == 0)
        good = status == VERROU_ENOTACQUIRED && info.remaining_ms > 0 && info.remaining_ms <= FAULTS_LEASE_MS;
    else
        good = status == VERROU_OK;
    if (!good)
        fprintf(stderr, "%s: %s %s, %lld ms\n", part, verrou_status_name(status), err.message,
                (long long)info.remaining_ms);
    if (sigaction(SIGPIPE, NULL, &after) != 0 || after.sa_handler != on_pipe) {
        fprintf(stderr, "the handler of SIGPIPE was replaced\n");
        good = false;
    }
    faults_done(lock, store);
    return good ? 0 : 1;
}

/* With another idea of the time, if there is an offset. */
static void run_client(const char *offset, const char *part, const char *address)
{
    char self[PROCESS_PATH], log[PROCESS_PATH + 16];
    const char *argv[] = {"faketime", "-f", offset, self, part, address, NULL};
    ssize_t len = readlink("/proc/self/exe", self, sizeof self - 1);

    assert_true(len > 0);
    self[len] = '\0';
    snprintf(log, sizeof log, "%s/client.log", process_folder());
    process_run(&(process_spec){.argv = offset ? argv : argv + 3, .package = "faketime", .log = log});
}

/* The client library is told to leave the process's signals alone, which it does not by itself when it is first used. */
static void signals_are_left_alone(void **state)
{
    empty();
    (void)state;
    run_client(NULL, "taken", address_at(server->port, ""));
}

#ifndef SANITIZED /* a sanitizer's library has to be the first to be loaded, as faketime's has */
/* A client whose clock is a minute ahead or behind takes no lease that is live, and makes none that is longer or shorter. */
static void clients_clocks_do_not_count(void **state)
{
    static const char *const offsets[] = {"+60s", "-60s"};
    const char *address = address_at(server->port, "");

    (void)state;
    for (int i = 0; i < 2; i++) {
        verrou_store *store = faults_open(address);
        verrou_lock *lock = faults_lock(store, FAULTS_KEY, FAULTS_LEASE_MS);

        empty();
        faults_acquire(lock);
        run_client(offsets[i], "refused", address);
        assert_int_equal(verrou_lock_release(lock, NULL, NULL), VERROU_OK);
        run_client(offsets[i], "taken", address);
        assert_in_range(left_ms(), FAULTS_LEASE_MS / 2, FAULTS_LEASE_MS);
        assert_int_equal(verrou_lock_acquire_immediately(lock, NULL, NULL), VERROU_ENOTACQUIRED);
        faults_done(lock, store);
    }
}
#endif

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        FAULTS_TESTS,
        faults_test(only_the_lost_session_is_ended),
        faults_test(lost_answer_to_a_batch),
        faults_test(idle_connection_is_looked_at),
        faults_test(killed_transaction),
        faults_test(deadlines_are_met),
        cmocka_unit_test(wrong_password),
        cmocka_unit_test(unknown_database),
        cmocka_unit_test(unknown_host),
        cmocka_unit_test(read_only_server_is_left),
        cmocka_unit_test(process_is_left_alone),
        cmocka_unit_test(certificates_are_verified),
        cmocka_unit_test(missing_files_are_named),
        cmocka_unit_test(deadlines_are_met_with_tls),
        cmocka_unit_test(crowd_on_one_store),
        cmocka_unit_test(crowd_on_many_stores),
        cmocka_unit_test(signals_are_left_alone),
#ifndef SANITIZED
        cmocka_unit_test(clients_clocks_do_not_count),
#endif
    };

    if (argc == 2)
        cmocka_set_test_filter(argv[1]);
    if (argc == 3)
        return play_client(argv[1], argv[2]);
    return cmocka_run_group_tests_name("mysql faults", tests, start_server, stop_server);
}
