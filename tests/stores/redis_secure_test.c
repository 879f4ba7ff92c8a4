/*
 * redis_secure_test.c - who may talk to a server, and how: TLS and its certificates, users and their rights, connections that the
 * application makes, descriptors, signals, forks, names.
 *
 * What is refused for good is refused by the first answer, not at the end of the time limit: the limit of these stores is long enough
 * that a test which waits for it would be noticed (PROMPTLY_MS).
 */
#include "redis_fixture.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define LONG_MS 600000
#define PROMPTLY_MS 30000

/* ---- names that resolve as a test wants ---- */

int __real_getaddrinfo(const char *host, const char *service, const struct addrinfo *hints, struct addrinfo **ret);
int __wrap_getaddrinfo(const char *host, const char *service, const struct addrinfo *hints, struct addrinfo **ret);

/* "several.test": an address where nobody listens, then the server's. */
int __wrap_getaddrinfo(const char *host, const char *service, const struct addrinfo *hints, struct addrinfo **ret)
{
    struct addrinfo *second = NULL;
    int error;

    if (strcmp(host, "several.test") != 0)
        return __real_getaddrinfo(host, service, hints, ret);
    error = __real_getaddrinfo("127.0.0.77", service, hints, ret);
    if (!error)
        error = __real_getaddrinfo("127.0.0.1", service, hints, &second);
    if (!error)
        (*ret)->ai_next = second;
    return error;
}

/* ---- helpers ---- */

static verrou_status try_once(verrou_store *store)
{
    return verrou_lock_acquire_immediately(fixture_lock(store, "app:key", LONG_MS), NULL, ERR);
}

/* The store refuses at once, for good, and says why. */
static void expect_refused(verrou_store *store, const char *why)
{
    EXPECT(VERROU_ESTORAGE, try_once(store));
    assert_true(fixture_says(why));
    assert_int_equal(fixture_err.retriable, 0);
}

static void expect_works(verrou_store *store)
{
    verrou_lock *lock = fixture_lock(store, "app:key", LONG_MS);

    fixture_take(lock);
    fixture_drop(lock);
}

/* After a failure attempts to connect are made at intervals. */
static void expect_works_again(verrou_store *store)
{
    verrou_lock *lock = fixture_lock(store, "app:key", LONG_MS);
    int64_t deadline = process_clock_ms() + PROMPTLY_MS;

    while (verrou_lock_acquire_immediately(lock, NULL, ERR) != VERROU_OK)
        assert_true(process_clock_ms() < deadline);
    fixture_drop(lock);
}

#define PATIENT "timeout=60s&connect-timeout=60s"

/* ---- TLS ---- */

static verrou_store *open_tls(const redis_server *server, const char *host, const char *ca, const char *more)
{
    return fixture_open("rediss://%s:%d?ca=%s/%s.pem&" PATIENT "%s", host, server->tls_port, server_certificates(), ca,
                        more);
}

static redis_server *tls_server(const char *certificate, bool wants_client)
{
    return redis_server_start(&(redis_options){.tls = certificate, .tls_client_certificate = wants_client});
}

/* A certificate of the authority, for the name or address that was connected to, is accepted; the watch comes over TLS too. */
static void right_certificate_is_accepted(void **state)
{
    redis_server *server = tls_server("server", false);
    verrou_store *store = open_tls(server, "localhost", "ca", ""), *other = open_tls(server, "127.0.0.1", "ca", "");
    verrou_lock *holder = fixture_lock(store, "key", LONG_MS);
    fixture_waiter *waiter;

    (void)state;
    fixture_take(holder);
    waiter = fixture_wait_on_thread(fixture_lock(other, "key", LONG_MS));
    fixture_wait_subscribed(server, false, "key", 1);
    fixture_drop(holder);
    assert_int_equal(fixture_joined(waiter), VERROU_OK);
}

/* A certificate that another authority has signed is refused. */
static void unknown_authority_is_refused(void **state)
{
    (void)state;
    expect_refused(open_tls(tls_server("server", false), "localhost", "wrong-ca", ""), "certificate: ");
}

/* Without the setting `ca` the system's authorities count, which do not know ours. */
static void system_authorities_count(void **state)
{
    redis_server *server = tls_server("server", false);

    (void)state;
    expect_refused(fixture_open("rediss://localhost:%d?" PATIENT, server->tls_port), "certificate: ");
}

/* A certificate that is no longer valid is refused. */
static void expired_certificate_is_refused(void **state)
{
    (void)state;
    expect_refused(open_tls(tls_server("expired", false), "localhost", "ca", ""), "expired");
}

/* A certificate for another name is refused, unless the setting server-name says that this name is meant. */
static void wrong_name_is_refused(void **state)
{
    redis_server *server = tls_server("other", false);

    (void)state;
    expect_refused(open_tls(server, "localhost", "ca", ""), "ostname mismatch");
    expect_refused(open_tls(server, "127.0.0.1", "ca", ""), "IP address mismatch");
    expect_works(open_tls(server, "localhost", "ca", "&server-name=other.example"));
}

/* The name of the setting counts alone: the right name of the host does not help. */
static void server_name_counts_alone(void **state)
{
    (void)state;
    expect_refused(open_tls(tls_server("server", false), "localhost", "ca", "&server-name=other.example"),
                   "ostname mismatch");
}

/* A server that wants a certificate refuses a client without one, also with TLS 1.3, where it says so after the handshake. */
static void missing_client_certificate_is_told(void **state)
{
    redis_server *modern = tls_server("server", true);
    redis_server *old = redis_server_start(
        &(redis_options){.tls = "server", .tls_client_certificate = true, .config = "tls-protocols \"TLSv1.2\"\n"});
    char certificate[2 * PROCESS_PATH + 32];

    (void)state;
    expect_refused(open_tls(modern, "localhost", "ca", ""), "TLS");
    assert_true(fixture_says("certificate required"));
    expect_refused(open_tls(old, "localhost", "ca", ""), "handshake failure");
    snprintf(certificate, sizeof certificate, "&cert=%s/client.pem&key=%s/client.key", server_certificates(),
             server_certificates());
    expect_works(open_tls(modern, "localhost", "ca", certificate));
    expect_works(open_tls(old, "localhost", "ca", certificate));
}

/* Redis without TLS never answers a handshake: it waits for the end of a line. The message says what that may mean. */
static void plain_server_behind_rediss_is_told(void **state)
{
    redis_server *server = redis_server_start(NULL);

    (void)state;
    EXPECT(VERROU_ESTORAGE,
           try_once(fixture_open("rediss://127.0.0.1:%d?timeout=600ms&connect-timeout=200ms&ca=%s/ca.pem", server->port,
                                 server_certificates())));
    assert_true(fixture_says("does the server speak TLS?"));
}

/* A server that speaks TLS closes a plain connection without a word. The message says what that may mean. */
static void tls_server_behind_redis_is_told(void **state)
{
    redis_server *server = tls_server("server", false);

    (void)state;
    EXPECT(VERROU_ESTORAGE, try_once(fixture_open("redis://127.0.0.1:%d?timeout=600ms", server->tls_port)));
    assert_true(fixture_says("rediss"));
}

/* ---- users and rights ---- */

#define RIGHTS                                                                                                  \
    "+evalsha +eval +script|load +get +set +del +pttl +pexpire +persist +time +hget +hset +publish +subscribe " \
    "+unsubscribe +ping +info +client|id +client|kill"
#define USER(rights) \
    (&(redis_options){.acl = "user default off\nuser locks on >s3cr3t+w0rd resetkeys resetchannels " rights "\n"})

static verrou_store *open_user(const redis_server *server)
{
    return fixture_open("redis://locks:s3cr3t%%2Bw0rd@127.0.0.1:%d?" PATIENT, server->port);
}

/* A wrong password, an unknown user and a missing password are refused at once, and no password is in an error or an event. */
static void wrong_password_is_refused(void **state)
{
    redis_server *server = redis_server_start(USER("~app:* &app:* " RIGHTS)),
                 *simple = redis_server_start(&(redis_options){.password = "right"});

    (void)state;
    expect_refused(fixture_open("redis://locks:n0t-s3cr3t@127.0.0.1:%d?" PATIENT, server->port), "WRONGPASS");
    assert_null(strstr(fixture_err.message, "n0t-s3cr3t"));
    expect_refused(fixture_open("redis://nobody:s3cr3t%%2Bw0rd@127.0.0.1:%d?" PATIENT, server->port), "WRONGPASS");
    assert_null(strstr(fixture_err.message, "w0rd"));
    expect_refused(fixture_open("redis://127.0.0.1:%d?" PATIENT, server->port), "NOAUTH");
    expect_refused(fixture_open("redis://:n0t-s3cr3t@127.0.0.1:%d?" PATIENT, simple->port), "WRONGPASS");
    assert_null(strstr(fixture_err.message, "n0t-s3cr3t"));
    assert_false(fixture_logged("s3cr3t"));
}

/* A password that nobody asked for is an error too: it may be meant for another server. */
static void needless_password_is_told(void **state)
{
    (void)state;
    expect_refused(fixture_open("redis://:n0t-s3cr3t@127.0.0.1:%d?" PATIENT, redis_server_start(NULL)->port),
                   "has no password, and refuses one");
    expect_refused(fixture_open("redis://locks:n0t-s3cr3t@127.0.0.1:%d?" PATIENT, redis_server_start(NULL)->port),
                   "WRONGPASS");
    assert_false(fixture_logged("n0t-s3cr3t"));
}

/* A key without rights is refused with the server's reason, and does not pass for a missing counter. */
static void forbidden_key_is_refused(void **state)
{
    redis_server *server = redis_server_start(USER("~other:* ~verrou:fence &* " RIGHTS));

    (void)state;
    expect_refused(open_user(server), "NOPERM");
    assert_int_equal(fixture_events("store.no_token_counter"), 0);
    assert_null(strstr(fixture_err.message, "s3cr3t"));
}

/* Without the right to the counter tokens are the clock's: they grow, and an event says so, once. */
static void forbidden_counter_is_done_without(void **state)
{
    redis_server *server = redis_server_start(USER("~app:* &app:* " RIGHTS));
    verrou_store *store = open_user(server);
    verrou_lock *lock = fixture_lock(store, "app:key", LONG_MS);
    uint64_t first = fixture_take(lock);

    (void)state;
    fixture_drop(lock);
    assert_true(fixture_take(lock) > first);
    fixture_drop(lock);
    fixture_wait_events("store.no_token_counter", 1);
    assert_int_equal(fixture_events("store.no_token_counter"), 1);
    assert_int_equal(verrou_store_caps(store) & VERROU_CAP_FENCE_STORED, 0);
    assert_int_equal(redis_integer(server, "EXISTS", "verrou:fence", NULL), 0);
}

/* Without the right to publish locks are released all the same, and an event says so, once. */
static void forbidden_publish_is_done_without(void **state)
{
    redis_server *server = redis_server_start(USER("~* " RIGHTS));
    verrou_store *store = open_user(server);

    (void)state;
    expect_works(store);
    assert_string_equal(redis_text(server, "EXISTS", "app:key", NULL), "0");
    expect_works(store);
    fixture_wait_events("store.publish_refused", 1);
    assert_int_equal(fixture_events("store.publish_refused"), 1);
}

/* Without the right to subscribe a waiter asks again and again, and an event says so. */
static void forbidden_subscription_is_done_without(void **state)
{
    redis_server *server = redis_server_start(USER("~* " RIGHTS));
    verrou_store *store = open_user(server), *other = open_user(server);
    verrou_lock *holder = fixture_lock(store, "app:key", LONG_MS);
    fixture_waiter *waiter;

    (void)state;
    fixture_take(holder);
    waiter = fixture_wait_on_thread(fixture_lock(other, "app:key", LONG_MS));
    fixture_wait_events("store.subscribe_refused", 1);
    fixture_drop(holder);
    assert_int_equal(fixture_joined(waiter), VERROU_OK);
    assert_int_equal(verrou_store_caps(other) & VERROU_CAP_PUSH, 0);
    assert_int_equal(fixture_events("store.subscribe_refused"), 1);
}

/* A user who may not use scripts is told so; the owner, which authorises a release, is not repeated in the error. */
static void forbidden_scripts_are_told(void **state)
{
    redis_server *server = redis_server_start(USER("~* &* +@all -evalsha -eval"));
    redis_server *renamed = redis_server_start(&(redis_options){.config = "rename-command EVALSHA \"\"\n"});
    char *owner = NULL;
    verrou_lock *lock;

    (void)state;
    expect_refused(open_user(server), "evalsha");
    lock = fixture_lock(fixture_open("redis://127.0.0.1:%d?" PATIENT, renamed->port), "key", LONG_MS);
    EXPECT(VERROU_OK, verrou_lock_owner(lock, &owner, ERR));
    EXPECT(VERROU_ESTORAGE, verrou_lock_acquire_immediately(lock, NULL, ERR));
    assert_true(fixture_says("EVALSHA"));
    assert_null(strstr(fixture_err.message, owner));
    verrou_free(owner);
}

/* ---- connections that the application makes ---- */

typedef struct factory {
    int port;
    atomic_int made, closed;
    bool calls; /* read and write calls instead of a plain descriptor */
    bool fails;
    size_t most; /* bytes a call */
} factory;

/* Stores are closed after the test's function has returned. */
static factory *factory_new(factory made)
{
    static factory only;

    only.port = made.port;
    only.calls = made.calls;
    only.fails = made.fails;
    only.most = made.most;
    only.made = only.closed = 0;
    return &only;
}

typedef struct pipe_end {
    factory *from;
    int fd;
    unsigned reads, writes; /* every other one would block */
} pipe_end;

static int plain_connection(int port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) != 0)
        return -1;
    return fd;
}

static ssize_t stingy_read(void *user, void *buffer, size_t size)
{
    pipe_end *end = user;

    if (end->reads++ % 2) {
        errno = EAGAIN;
        return -1;
    }
    return recv(end->fd, buffer, size < end->from->most ? size : end->from->most, MSG_DONTWAIT);
}

static ssize_t stingy_write(void *user, const void *bytes, size_t size)
{
    pipe_end *end = user;

    if (end->writes++ % 2) {
        errno = EAGAIN;
        return -1;
    }
    return send(end->fd, bytes, size < end->from->most ? size : end->from->most, MSG_DONTWAIT | MSG_NOSIGNAL);
}

static void stingy_close(void *user)
{
    pipe_end *end = user;

    end->from->closed++;
    close(end->fd);
    free(end);
}

static verrou_status make(void *user, const char *host, int port, int64_t deadline_ms, verrou_transport *ret,
                          verrou_error *err)
{
    factory *from = user;
    pipe_end *end;

    if (from->fails)
        return verrou_error_set(err, VERROU_ESTORAGE, 1, "TUNNEL", "the tunnel to %s:%d is closed", host, port);
    if (deadline_ms <= verrou_now_ms())
        return verrou_error_set(err, VERROU_ESTORAGE, 1, NULL, "no time is left");
    from->made++;
    *ret = (verrou_transport){.fd = plain_connection(from->port ? from->port : port)};
    if (ret->fd < 0)
        return verrou_error_set(err, VERROU_ESTORAGE, 1, NULL, "%s", strerror(errno));
    if (!from->calls)
        return VERROU_OK;
    end = calloc(1, sizeof *end);
    *end = (pipe_end){from, ret->fd, 0, 0};
    *ret = (verrou_transport){end, end->fd, stingy_read, stingy_write, stingy_close};
    return VERROU_OK;
}

/* A holder, and a waiter that is woken by its release, in two stores. */
static void expect_handover(const redis_server *server, verrou_store *store, verrou_store *other)
{
    verrou_lock *holder = fixture_lock(store, "key", LONG_MS);
    fixture_waiter *waiter;

    fixture_take(holder);
    waiter = fixture_wait_on_thread(fixture_lock(other, "key", LONG_MS));
    fixture_wait_subscribed(server, false, "key", 1);
    fixture_drop(holder);
    assert_int_equal(fixture_joined(waiter), VERROU_OK);
}

/* Plain descriptors are used for everything; host and port of the address need not exist. */
static void given_descriptors_are_used(void **state)
{
    redis_server *server = redis_server_start(NULL);
    factory *from = factory_new((factory){.port = server->port});

    (void)state;
    fixture_connect(make, from);
    expect_handover(server, fixture_open("redis://nowhere.invalid:1"), fixture_open("redis://nowhere.invalid:1"));
    assert_true(from->made >= 3);
    assert_int_equal(redis_integer(server, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes", NULL) >= 2, 1);
}

/* A transport whose calls give few bytes, or none, at a time works as any other, and is closed exactly once. */
static void stingy_transport_works(void **state)
{
    redis_server *server = redis_server_start(NULL);
    factory *from = factory_new((factory){.calls = true, .most = 3});
    verrou_store *store, *other;

    (void)state;
    fixture_connect(make, from);
    store = fixture_open("redis://127.0.0.1:%d", server->port);
    other = fixture_open("redis://127.0.0.1:%d", server->port);
    expect_handover(server, store, other);
    fixture_close(store);
    fixture_close(other);
    assert_true(from->made >= 3);
    assert_int_equal(from->closed, from->made);
}

/* TLS of the store goes through such a transport as well. */
static void tls_goes_through_transport(void **state)
{
    redis_server *server = tls_server("server", false);
    factory *from = factory_new((factory){.calls = true, .most = 100});

    (void)state;
    fixture_connect(make, from);
    expect_handover(server, open_tls(server, "localhost", "ca", ""), open_tls(server, "localhost", "ca", ""));
    assert_true(from->made >= 3);
    expect_refused(open_tls(server, "127.0.0.2", "ca", ""), "IP address mismatch");
}

/* What the application's function says is in the error; it is asked again while there is time. */
static void failing_factory_is_told(void **state)
{
    factory *from = factory_new((factory){.fails = true});

    (void)state;
    fixture_connect(make, from);
    EXPECT(VERROU_ESTORAGE, try_once(fixture_open("redis://db.example:7000?timeout=300ms")));
    assert_true(fixture_says("the tunnel to db.example:7000 is closed"));
    assert_string_equal(fixture_err.store_code, "TUNNEL");
}

/* ---- the process ---- */

/* A connection whose server is gone raises no SIGPIPE, which would end this program: it is not ignored here. */
static void broken_connection_raises_no_signal(void **state)
{
    redis_server *server = tls_server("server", false);
    verrou_store *plain = fixture_open("redis://127.0.0.1:%d?timeout=1s", server->port);
    verrou_store *secure =
        fixture_open("rediss://127.0.0.1:%d?ca=%s/ca.pem&timeout=1s", server->tls_port, server_certificates());

    (void)state;
    assert_true(signal(SIGPIPE, SIG_DFL) == SIG_DFL);
    expect_works(plain);
    expect_works(secure);
    redis_server_kill(server);
    for (int i = 0; i < 3; i++) { /* the first request may be lost in the old connection */
        assert_int_not_equal(try_once(plain), VERROU_OK);
        assert_int_not_equal(try_once(secure), VERROU_OK);
    }
    redis_server_restart(server);
    expect_works_again(plain);
    expect_works_again(secure);
}

static int open_descriptors(bool inherited_only)
{
    DIR *folder = opendir("/proc/self/fd");
    struct dirent *entry;
    int count = 0;

    assert_non_null(folder);
    while ((entry = readdir(folder))) {
        int fd = atoi(entry->d_name);

        if (entry->d_name[0] != '.' && fd > 2 && fd != dirfd(folder))
            count += !inherited_only || !(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    }
    closedir(folder);
    return count;
}

/* No descriptor of a store is inherited by a program that is run, and none is left when it is closed. */
static void descriptors_are_kept_private(void **state)
{
    redis_server *server = tls_server("server", false);
    int before = open_descriptors(false), inherited = open_descriptors(true);
    verrou_store *store = fixture_open("redis://127.0.0.1:%d", server->port);
    verrou_store *other = open_tls(server, "localhost", "ca", "");

    (void)state;
    expect_handover(server, store, other);
    assert_true(open_descriptors(false) > before);
    assert_int_equal(open_descriptors(true), inherited);
    fixture_close(store);
    fixture_close(other);
    assert_int_equal(open_descriptors(false), before);
}

/* A child after fork() makes connections of its own; those of its parent, plain and TLS, go on as if nothing had happened. */
static void child_leaves_connections_alone(void **state)
{
    redis_server *server = tls_server("server", false);
    verrou_store *stores[] = {fixture_open("redis://127.0.0.1:%d?lanes=1", server->port),
                              open_tls(server, "localhost", "ca", "&lanes=1")};

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        verrou_lock *lock = fixture_lock(stores[i], "parent", LONG_MS);
        verrou_lock *in_child = fixture_lock(stores[i], "child", LONG_MS);
        long long connections;
        int wstatus = -1;
        pid_t child;

        fixture_take(lock);
        connections = atoll(redis_info(server, "stats", "total_connections_received"));
        child = fork();
        assert_true(child >= 0);
        if (child == 0)
            _exit(verrou_lock_acquire_immediately(in_child, NULL, NULL) == VERROU_OK &&
                          verrou_lock_acquire_immediately(lock, NULL, NULL) == VERROU_ENOTACQUIRED &&
                          verrou_lock_release(lock, NULL, NULL) == VERROU_EFORK &&
                          verrou_lock_release(in_child, NULL, NULL) == VERROU_OK
                      ? 0
                      : 1);
        assert_int_equal(waitpid(child, &wstatus, 0), child);
        assert_int_equal(wstatus, 0);
        EXPECT(VERROU_OK, verrou_lock_extend(lock, LONG_MS, NULL, ERR));
        fixture_drop(lock);
        /* The child's one, and that of each look at INFO. The parent has made none. */
        assert_int_equal(atoll(redis_info(server, "stats", "total_connections_received")) - connections, 2);
    }
}

/* ---- names ---- */

/* An address in brackets is one of IPv6, with and without TLS. */
static void ipv6_works(void **state)
{
    redis_server *server = redis_server_start(&(redis_options){.tls = "server", .config = "bind 127.0.0.1 ::1\n"});

    (void)state;
    expect_works(fixture_open("redis://[::1]:%d", server->port));
    expect_works(open_tls(server, "[::1]", "ca", ""));
}

/* All addresses of a name are tried. */
static void every_address_is_tried(void **state)
{
    (void)state;
    expect_works(fixture_open("redis://several.test:%d", redis_server_start(NULL)->port));
}

/* A name that nobody knows is named in the error. */
static void unknown_name_is_told(void **state)
{
    (void)state;
    EXPECT(VERROU_ESTORAGE, try_once(fixture_open("redis://nobody.invalid?timeout=500ms")));
    assert_true(fixture_says("cannot resolve nobody.invalid"));
}

/* A port where nobody listens is named in the error, as is a socket that is not there. */
static void refused_connection_is_told(void **state)
{
    process_port port = process_port_new();
    char text[64];

    (void)state;
    EXPECT(VERROU_ESTORAGE, try_once(fixture_open("redis://127.0.0.1:%d?timeout=300ms", port.number)));
    snprintf(text, sizeof text, "cannot connect to 127.0.0.1:%d: Connection refused", port.number);
    process_port_free(&port);
    assert_true(fixture_says(text));
    EXPECT(VERROU_ESTORAGE, try_once(fixture_open("redis+unix://%s/none?timeout=300ms", process_folder())));
    assert_true(fixture_says("/none: No such file"));
}

/* ---- main ---- */

static int64_t began_ms;

static int begin(void **state)
{
    (void)state;
    began_ms = process_clock_ms();
    return 0;
}

/* No test here waits for a limit of a minute. */
static int end(void **state)
{
    bool prompt = process_clock_ms() - began_ms < PROMPTLY_MS;

    fixture_teardown(state);
    redis_free_all();
    if (!prompt)
        print_error("the time limit was waited for\n");
    return prompt ? 0 : -1;
}

#define secure_test(f) cmocka_unit_test_setup_teardown(f, begin, end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        secure_test(right_certificate_is_accepted),
        secure_test(unknown_authority_is_refused),
        secure_test(system_authorities_count),
        secure_test(expired_certificate_is_refused),
        secure_test(wrong_name_is_refused),
        secure_test(server_name_counts_alone),
        secure_test(missing_client_certificate_is_told),
        secure_test(plain_server_behind_rediss_is_told),
        secure_test(tls_server_behind_redis_is_told),
        secure_test(wrong_password_is_refused),
        secure_test(needless_password_is_told),
        secure_test(forbidden_key_is_refused),
        secure_test(forbidden_counter_is_done_without),
        secure_test(forbidden_publish_is_done_without),
        secure_test(forbidden_subscription_is_done_without),
        secure_test(forbidden_scripts_are_told),
        secure_test(given_descriptors_are_used),
        secure_test(stingy_transport_works),
        secure_test(tls_goes_through_transport),
        secure_test(failing_factory_is_told),
        secure_test(broken_connection_raises_no_signal),
        secure_test(descriptors_are_kept_private),
        secure_test(child_leaves_connections_alone),
        secure_test(ipv6_works),
        secure_test(every_address_is_tried),
        secure_test(unknown_name_is_told),
        secure_test(refused_connection_is_told),
    };

    return cmocka_run_group_tests_name("secure", tests, fixture_setup, NULL);
}
