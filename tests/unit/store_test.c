/*
 * store_test.c - what a driver is given when a store is opened: the address in pieces if it wants that, and the function that makes
 * connections if it can use one. The drivers here write down what they see.
 */
#include "core/core.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static struct {
    int created;
    char host[32];
    int port;
    size_t endpoint_count;
    char password[32];
    char path[32];
    verrou_connect_fn connect;
    void *connect_user;
} seen;

static verrou_status see(const verrou_host *host, void *log_context, const verrou_url *url, void **ret_state,
                         verrou_error *err)
{
    (void)host, (void)log_context, (void)err;
    seen.created++;
    seen.endpoint_count = url->endpoint_count;
    seen.port = url->endpoint_count > 0 ? url->endpoints[0].port : -1;
    snprintf(seen.host, sizeof(seen.host), "%s", url->endpoint_count > 0 ? url->endpoints[0].host : "");
    snprintf(seen.password, sizeof(seen.password), "%s", url->password ? url->password : "");
    snprintf(seen.path, sizeof(seen.path), "%s", url->path ? url->path : "");
    seen.connect = url->connect;
    seen.connect_user = url->connect_user;
    *ret_state = NULL;
    return VERROU_OK;
}

static void forget(void *state)
{
    (void)state;
}

static uint32_t no_caps(void *state)
{
    (void)state;
    return 0;
}

static verrou_status refuse_all(void *state, void *lane, verrou_op *const *ops, size_t n, int64_t deadline_ms,
                                verrou_error *err)
{
    (void)state, (void)lane, (void)deadline_ms, (void)err;
    for (size_t i = 0; i < n; i++)
        ops[i]->result = VERROU_OP_REFUSED;
    return VERROU_OK;
}

#define SEEING_DRIVER(name, scheme, more_flags)                                      \
    static const char *const name##_schemes[] = {scheme, NULL};                      \
    static const verrou_driver name = {.version = VERROU_STORE_VERSION,              \
                                       .schemes = name##_schemes,                    \
                                       .flags = VERROU_DRIVER_INLINE | (more_flags), \
                                       .create = see,                                \
                                       .destroy = forget,                            \
                                       .caps = no_caps,                              \
                                       .execute = refuse_all}
SEEING_DRIVER(plain, "plain", 0);
SEEING_DRIVER(network, "network", VERROU_DRIVER_NETWORK);
SEEING_DRIVER(connecting, "connecting", VERROU_DRIVER_NETWORK | VERROU_DRIVER_CONNECTS);

static verrou_status connect_nowhere(void *user, const char *host, int port, int64_t deadline_ms,
                                     verrou_transport *ret_transport, verrou_error *err)
{
    (void)user, (void)host, (void)port, (void)deadline_ms, (void)ret_transport;
    return verrou_error_set(err, VERROU_ESTORAGE, 0, NULL, "nowhere");
}

static int reset(void **state)
{
    (void)state;
    memset(&seen, 0, sizeof(seen));
    return 0;
}

static verrou_store_options connecting_options(void)
{
    verrou_store_options options = VERROU_STORE_OPTIONS_INIT;

    options.connect = connect_nowhere;
    options.connect_user = &seen;
    return options;
}

static verrou_store *open_store(const char *url, const verrou_store_options *options)
{
    verrou_error err = VERROU_ERROR_INIT;
    verrou_store *store = NULL;

    if (verrou_store_open(url, options, &store, &err) != VERROU_OK)
        fail_msg("%s", err.message);
    return store;
}

static void refuse(const char *url, const verrou_store_options *options, const char *because)
{
    verrou_error err = VERROU_ERROR_INIT;
    verrou_store *store = NULL;

    assert_int_equal(verrou_store_open(url, options, &store, &err), VERROU_ECONFIG);
    assert_null(store);
    assert_int_equal(seen.created, 0);
    if (strstr(err.message, because) == NULL)
        fail_msg("\"%s\" does not say \"%s\"", err.message, because);
    assert_null(strstr(err.message, "hunter2"));
}

/* A driver of a network gets the pieces, made of the address as it was given; the store shows it without the password. */
static void test_pieces(void **state)
{
    verrou_store *store = open_store("network://u:hunter2%40@h%2Cx:7,h2/a%2Fb", NULL);

    (void)state;
    assert_int_equal(seen.endpoint_count, 2);
    assert_string_equal(seen.host, "h,x");
    assert_int_equal(seen.port, 7);
    assert_string_equal(seen.password, "hunter2@");
    assert_string_equal(seen.path, "/a/b");
    assert_string_equal(verrou_store_address(store), "network://u:***@h%2Cx:7,h2/a%2Fb");
    verrou_store_close(store);
}

/* The form of a network address is checked before the driver sees it, and not for drivers that read theirs themselves. */
static void test_form(void **state)
{
    (void)state;
    refuse("network:h", NULL, "\"//\" is missing");
    refuse("network://u:hunter2", NULL, "the port of host 1");
    verrou_store_close(open_store("plain://u:x", NULL));
    assert_int_equal(seen.created, 1);
    assert_int_equal(seen.endpoint_count, 0);
}

/* The application's function reaches a driver that connects with it. */
static void test_connect(void **state)
{
    verrou_store_options options = connecting_options();
    verrou_store *store = open_store("connecting://h", &options);

    (void)state;
    assert_true(seen.connect == connect_nowhere);
    assert_ptr_equal(seen.connect_user, &seen);
    verrou_store_close(store);
    verrou_store_close(open_store("connecting://h", NULL));
    assert_true(seen.connect == NULL);
}

/* Where it would never be called it is refused: the application relies on its own tunnel or TLS. */
static void test_connect_of_no_use(void **state)
{
    verrou_store_options options = connecting_options();

    (void)state;
    refuse("network://u:hunter2@h", &options, "connect: a store of the scheme \"network\"");
    refuse("plain:", &options, "connect: a store of the scheme \"plain\"");
    refuse("memory:", &options, "connect: a store of the scheme \"memory\"");
}

/* A program compiled before there was `connect` gives none, whatever lies behind its options. */
static void test_older_options(void **state)
{
    verrou_store_options options = connecting_options();

    (void)state;
    options.size = offsetof(verrou_store_options, connect);
    verrou_store_close(open_store("memory:", &options));
    verrou_store_close(open_store("connecting://h", &options));
    assert_true(seen.connect == NULL);
}

/* In a child process the driver's new state is given the function and the pieces again. */
static void test_connect_after_fork(void **state)
{
    verrou_store_options options = connecting_options();
    verrou_store *store = open_store("connecting://h", &options);
    int wstatus = -1;
    pid_t child;

    (void)state;
    reset(NULL);
    child = fork();
    if (child == 0) {
        alarm(60);
        (void)verrou_store_caps(store);
        _exit(seen.created == 1 && seen.connect == connect_nowhere && strcmp(seen.host, "h") == 0 ? 0 : 1);
    }
    assert_true(child > 0);
    assert_int_equal(waitpid(child, &wstatus, 0), child);
    assert_int_equal(wstatus, 0);
    verrou_store_close(store);
}

static int register_drivers(void **state)
{
    (void)state;
    return verrou_register_driver(&plain, NULL) == VERROU_OK && verrou_register_driver(&network, NULL) == VERROU_OK &&
                   verrou_register_driver(&connecting, NULL) == VERROU_OK
               ? 0
               : -1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_pieces, reset),        cmocka_unit_test_setup(test_form, reset),
        cmocka_unit_test_setup(test_connect, reset),       cmocka_unit_test_setup(test_connect_of_no_use, reset),
        cmocka_unit_test_setup(test_older_options, reset), cmocka_unit_test_setup(test_connect_after_fork, reset),
    };

    return cmocka_run_group_tests(tests, register_drivers, NULL);
}
