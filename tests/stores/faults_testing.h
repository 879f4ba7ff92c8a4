/*
 * faults_testing.h - a store behind the fault proxy, through the library: what is claimed of every store of which a server keeps the locks.
 *
 * A test loses, delays or cuts one answer, or takes the server or the connections away, makes each of the library's calls, and compares
 * what the library says with what the server has: it is right, or it is "unknown", and in the end nobody's lease is left behind. A store
 * says in a table where it is and how to look at its server; the tests are here. They begin with an empty server and a proxy of their own.
 */
#ifndef VERROU_TESTS_FAULTS_TESTING_H
#define VERROU_TESTS_FAULTS_TESTING_H

#include "driver_testing.h"
#include "fault_proxy.h"

#include <verrou/verrou.h>

/* The lock of these tests: its key, how long it is held, and a longer time to extend it to. */
#define FAULTS_KEY "account"
#define FAULTS_LEASE_MS 30000
#define FAULTS_LONGER_MS 60000

typedef enum fault_call {
    CALL_ACQUIRE,
    CALL_IMMEDIATELY,
    CALL_RELEASE,
    CALL_EXTEND,
    CALL_FORCE,
    CALL_INSPECT,
    CALLS
} fault_call;

/* What a store and its server are to these tests. All functions make the test fail if they do not succeed. */
typedef struct faulty_store {
    proxy_protocol protocol;
    const char *match[CALLS]; /* what the request of a call contains */
    size_t reply_bytes;       /* answers are cut at many places up to here */
    /* The address of a store that connects to this port of 127.0.0.1, with settings "?NAME=VALUE..." or "". */
    const char *(*address)(int port, const char *settings);

    /* The server. */
    int (*port)(void);
    void (*kill)(void);    /* with SIGKILL */
    void (*restart)(void); /* with what it had confirmed */
    void (*freeze)(void);
    void (*thaw)(void);
    void (*end_sessions)(void); /* NULL: that would be the same as closing the connections */
    void (*settle)(void); /* so that also what need not survive a kill does: the end of a short lease. NULL: all does */

    /* Its locks. */
    void (*empty)(void);         /* there is none, and no table */
    const char *(*holder)(void); /* who has FAULTS_KEY; "" if nobody has */
    long long (*left_ms)(void);  /* how long it is still held; somebody has it */
} faulty_store;

/* The five functions about the server that FAULTS_SERVER() names in a table, for a variable `server` and FAMILY_server_kill() and so on. */
#define FAULTS_SERVER_FUNCTIONS(family)     \
    static int faults_server_port(void)     \
    {                                       \
        return server->port;                \
    }                                       \
    static void faults_server_kill(void)    \
    {                                       \
        family##_server_kill(server);       \
    }                                       \
    static void faults_server_restart(void) \
    {                                       \
        family##_server_restart(server);    \
    }                                       \
    static void faults_server_freeze(void)  \
    {                                       \
        family##_server_freeze(server);     \
    }                                       \
    static void faults_server_thaw(void)    \
    {                                       \
        family##_server_thaw(server);       \
    }
#define FAULTS_SERVER                                                                         \
    .port = faults_server_port, .kill = faults_server_kill, .restart = faults_server_restart, \
    .freeze = faults_server_freeze, .thaw = faults_server_thaw

/* The proxy in front of the server, from the setup of a test to its teardown. */
extern fault_proxy *faults_proxy;

/* For the setup of the group: the table, whose server runs from now on. */
void faults_use(const faulty_store *store);
/* Setup and teardown of a test. */
int faults_begin(void **unused);
int faults_end(void **unused);
#define faults_test(f) cmocka_unit_test_setup_teardown(f, faults_begin, faults_end)

/* ---- stores and locks; each of these has to succeed ---- */

verrou_store *faults_open(const char *address);
/* A store behind the proxy. */
verrou_store *faults_open_proxy(const char *settings);
verrou_lock *faults_lock(verrou_store *store, const char *key, int64_t ttl_ms);
/* For the beginning of a test, when nothing is wrong but that the machine may be slow for a short limit. */
void faults_acquire(verrou_lock *lock);
void faults_release(verrou_lock *lock);
void faults_done(verrou_lock *lock, verrou_store *store);
/* The lease on FAULTS_KEY ends soon, by a release that is under way. */
void faults_wait_until_free(const char *what);

/* Time for a request and its repetitions, where the limit of one request is much less. */
extern const verrou_call_options faults_patient;

/* ---- the tests ---- */

void single_faults_are_got_over(void **unused);
void truncated_replies_are_none(void **unused);
void lasting_loss_is_unknown(void **unused);
void broken_connections_are_renewed(void **unused);
void server_killed_before_the_answer(void **unused);
void silence_is_not_an_answer(void **unused);
void late_extend_changes_nothing(void **unused);
void late_acquire_changes_nothing(void **unused);
void late_force_changes_nothing(void **unused);

/* All of them, as elements of a table of tests. */
#define FAULTS_TESTS                                                                         \
    faults_test(single_faults_are_got_over), faults_test(truncated_replies_are_none),        \
        faults_test(lasting_loss_is_unknown), faults_test(broken_connections_are_renewed),   \
        faults_test(server_killed_before_the_answer), faults_test(silence_is_not_an_answer), \
        faults_test(late_extend_changes_nothing), faults_test(late_acquire_changes_nothing), \
        faults_test(late_force_changes_nothing)

/*
 * For a store at this address behind the proxy: an extend whose request is stuck is repeated, its successor asks for longer, and then it
 * arrives. True if that shortened the lease. The proxy counts one more of `fate` when the library has dealt with the stuck request.
 */
bool faults_late_extend(const char *address, proxy_counter fate);

#endif
