/*
 * verrou.h - named locks with owners, leases and fencing tokens over interchangeable stores.
 *
 *     verrou_store *store = NULL;
 *     verrou_lock *lock = NULL;
 *     if (verrou_store_open("sqlite:/var/lib/app/locks.db", NULL, &store, NULL) == VERROU_OK &&
 *         verrou_lock_new(store, "account:42", NULL, &lock, NULL) == VERROU_OK &&
 *         verrou_lock_acquire(lock, NULL, NULL, NULL) == VERROU_OK) {
 *         ... at most one process is here; pass verrou_lock_fence(lock) along with each write ...
 *         verrou_lock_release(lock, NULL, NULL);
 *     }
 *     verrou_lock_free(lock);
 *     verrou_store_close(store);
 *
 * Rules that hold for every function here:
 *
 *   Results   Every function that can fail returns a verrou_status, VERROU_OK being zero. Output parameters are written
 *             only on VERROU_OK unless stated. Details go into the verrou_error given last, which may be NULL.
 *   Threads   Any thread may use any handle at any time; only the *_free and *_close functions need the caller to be
 *             the last user of the handle.
 *   Blocking  A function blocks only if its comment says so, and never beyond the deadline that it was given.
 *             A signal does not interrupt it. No function may be called from a log hook.
 *   Memory    Input strings are copied. Text that a function returns is freed with verrou_free(). Freeing NULL does nothing.
 *   Time      Milliseconds in int64_t. Absolute times are on the clock of verrou_now_ms().
 *   Options   An options struct is initialised with its _INIT macro; NULL in its place means "all defaults".
 *             The macros record the size, so that programs compiled today work with later versions of the library.
 *   Process   The library prints nothing, never exits, sets no signal handler, raises no SIGPIPE and leaks no descriptor
 *             into exec. After fork() see verrou_lock_new().
 *
 * Copyright the Verrou contributors. MIT licence.
 */
#ifndef VERROU_VERROU_H
#define VERROU_VERROU_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define VERROU_VERSION_MAJOR 0
#define VERROU_VERSION_MINOR 1
#define VERROU_VERSION_PATCH 0
#define VERROU_VERSION "0.1.0"

#if defined(__GNUC__) || defined(__clang__)
#define VERROU_API __attribute__((visibility("default")))
#define VERROU_CHECK __attribute__((warn_unused_result))
#define VERROU_PRINTF(format_at, args_at) __attribute__((format(printf, format_at, args_at)))
#else
#define VERROU_API
#define VERROU_CHECK
#define VERROU_PRINTF(format_at, args_at)
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* ---- values ------------------------------------------------------------------------------------------------------ */

/* A time or a count without end: a lease that never expires, a wait without time limit, attempts without number. */
#define VERROU_FOREVER INT64_MAX

/* "Not set here": the value of the factory, or else the library's own, is used. */
#define VERROU_DEFAULT INT64_MIN

/* The library's own defaults, which are those of Verrou for Node.js. */
#define VERROU_DEFAULT_TTL_MS 30000
#define VERROU_DEFAULT_DELAY_MS 250

/* The longest finite lease or wait; anything longer is refused. Expiry times stay exact in a JavaScript number. */
#define VERROU_MAX_MS (INT64_C(1) << 52)

/* Keys (prefix included) and owners are 1 to 255 bytes of UTF-8 without NUL, compared byte by byte. */
#define VERROU_MAX_KEY 255
#define VERROU_MAX_OWNER 255

/* ---- statuses and errors ----------------------------------------------------------------------------------------- */

/*
 * NAME, text. The first five are answers that a correct program meets; the others are faults.
 *
 * NOTACQUIRED  Someone else still held the lock when the attempts or the time were used up.
 * NOTOWNED     Release or extend of a lock that this owner does not hold (any more). Nothing was changed.
 * LOST         The lease ended while it was being relied on: it ran out, or the store gave it to somebody else.
 * CANCELED     verrou_cancel_fire() came before the answer. If the lock is obtained after that, it is released again.
 * UNKNOWN      The answer of the store was lost and could not be read back in time. The lock may or may not be held; if
 *              this was an acquisition, it is being given up in the background. A new attempt is safe.
 * STORAGE      The store failed or could not be reached. Nothing was changed.
 * INVAL        An argument is outside its range. The message names it. Nothing was changed.
 * CONFIG       A store address or configuration is wrong. The message names the culprit.
 * NOTSUP       The store cannot do this.
 * NOMEM        Out of memory (or of threads or descriptors). Nothing was changed.
 * FORK         The lease was taken before fork() by the parent process.
 * CLOSED       The store was closed.
 */
#define VERROU_STATUS_LIST(X)                                                  \
    X(OK, 0, "success")                                                        \
    X(ENOTACQUIRED, 1, "the lock is held by someone else")                     \
    X(ENOTOWNED, 2, "the lock is not held by this owner")                      \
    X(ELOST, 3, "the lease was lost")                                          \
    X(ECANCELED, 4, "the call was cancelled")                                  \
    X(EUNKNOWN, 5, "the outcome is unknown: the answer of the store was lost") \
    X(ESTORAGE, 6, "the store failed")                                         \
    X(EINVAL, 7, "invalid argument")                                           \
    X(ECONFIG, 8, "invalid configuration")                                     \
    X(ENOTSUP, 9, "not supported by this store")                               \
    X(ENOMEM, 10, "out of memory")                                             \
    X(EFORK, 11, "the lease belongs to the parent process")                    \
    X(ECLOSED, 12, "the store was closed")

typedef enum verrou_status {
#define X(name, value, text) VERROU_##name = value,
    VERROU_STATUS_LIST(X)
#undef X
} verrou_status;

/* The name of a status ("VERROU_ENOTOWNED") and its text. Never NULL; a number out of range has a name too. */
VERROU_API const char *verrou_status_name(verrou_status status);
VERROU_API const char *verrou_status_text(verrou_status status);

/*
 * What went wrong, filled in by a function that does not return VERROU_OK, and left alone otherwise.
 *
 * retriable   1 if the same call may succeed later without anything being changed by hand.
 * store_code  The store's own code, "SQLITE_BUSY" for one; empty if it gave none.
 * message     One line that reads from the outside in. Never a password.
 */
typedef struct verrou_error {
    size_t size;
    verrou_status status;
    int retriable;
    char store_code[32];
    char message[448];
} verrou_error;
#define VERROU_ERROR_INIT                          \
    {                                              \
        sizeof(verrou_error), VERROU_OK, 0, "", "" \
    }

/* ---- the library ------------------------------------------------------------------------------------------------- */

/* The version that runs, "0.1.0"; VERROU_VERSION is the one compiled against. */
VERROU_API const char *verrou_version(void);

/*
 * The clock that leases and deadlines are counted on: milliseconds since some fixed moment, never set back, and running
 * while the machine is suspended (CLOCK_BOOTTIME) where there is such a clock.
 */
VERROU_API int64_t verrou_now_ms(void);

/*
 * Use these functions instead of malloc, realloc and free. Call it before anything else, from the only thread.
 * VERROU_EINVAL if one of them is NULL.
 */
VERROU_API verrou_status verrou_set_allocator(void *(*malloc_fn)(size_t), void *(*realloc_fn)(void *, size_t),
                                              void (*free_fn)(void *));

/* Free a text returned by the library. */
VERROU_API void verrou_free(void *text);

/*
 * Read a duration: "250", "250ms", "1s", "1.5h", "10 minutes", "2d", "1w", "1y", in any case, as npm's `ms` reads them
 * for Verrou. A number alone is milliseconds; fractions of a millisecond are rounded. VERROU_EINVAL for anything else, zero
 * and negative values included. "none", "never" and "forever" are left to the caller.
 */
VERROU_API verrou_status verrou_duration_parse(const char *text, int64_t *ret_ms, verrou_error *err);

/* ---- log --------------------------------------------------------------------------------------------------------- */

typedef enum verrou_level {
    VERROU_TRACE = 10,
    VERROU_DEBUG = 20,
    VERROU_INFO = 30,
    VERROU_WARN = 40,
    VERROU_ERROR_LEVEL = 50,
} verrou_level;

/*
 * Something that happened. `event` is a fixed word ("lock.acquired", "lease.lost", "store.connection_lost"; the guide has
 * the list); the other texts are NULL where they do not apply. Valid during the hook only. Never contains a password.
 */
typedef struct verrou_log_record {
    size_t size;
    verrou_level level;
    const char *event;
    const char *store; /* the store's name, or its scheme if it has none */
    const char *key;   /* without the prefix */
    const char *owner;
    const char *message; /* free text */
    int64_t value;       /* the number that belongs to the event: a TTL, a count, a fencing token; 0 if none */
} verrou_log_record;

/*
 * Called on whichever thread noticed the event, one call at a time for one store, with no lock of the library held.
 * It must return soon and must not call the library.
 */
typedef void (*verrou_log_fn)(void *user, const verrou_log_record *record);

/* ---- stores ------------------------------------------------------------------------------------------------------ */

typedef struct verrou_store verrou_store;

/* What a store can do, as far as is known: some of it only after the first connection. */
#define VERROU_CAP_SERVER_CLOCK 0x01u /* expiry is decided by the store's own clock */
#define VERROU_CAP_FENCE 0x02u        /* every acquisition has a fencing token */
#define VERROU_CAP_FENCE_STORED 0x04u /* tokens grow by a stored number as well, not by the clock alone */
#define VERROU_CAP_PUSH 0x08u         /* a release wakes waiters in other processes */
#define VERROU_CAP_LIST 0x10u         /* verrou_store_list() works */
#define VERROU_CAP_SHARED 0x20u       /* other processes can see the locks */
#define VERROU_CAP_IMMEDIATE 0x40u    /* answers at once: no call blocks but one that waits for a holder */

/*
 * A connected byte stream that the application made: through a tunnel, with its own TLS, from its own pool.
 *
 * fd           Becomes readable when read() has bytes to give. It is only waited for; everything else goes through the calls.
 * read, write  As read(2) and write(2) on a descriptor that does not block: -1 with errno set, EAGAIN if it would block. NULL, both of
 *              them: fd is a stream socket to be used directly; it is switched to non-blocking. They are also called with a mutex of
 *              the store held: they do not call this library.
 * close        Called once, when the store is done with it; NULL: fd is closed.
 * Used by one thread at a time, not always the same.
 */
typedef struct verrou_transport {
    void *user;
    int fd;
    ssize_t (*read)(void *user, void *buffer, size_t size);
    ssize_t (*write)(void *user, const void *bytes, size_t size);
    void (*close)(void *user);
} verrou_transport;

/*
 * Connect to host and port (as in the address, or as a Sentinel or a cluster said; for a socket in the file system its path and 0) by
 * deadline_ms, on the clock of verrou_now_ms(). Fill in *ret_transport, or return VERROU_ESTORAGE with a message put into `err`. Called
 * on threads of the store, possibly on several at once; may block until the deadline.
 */
typedef verrou_status (*verrou_connect_fn)(void *user, const char *host, int port, int64_t deadline_ms,
                                           verrou_transport *ret_transport, verrou_error *err);

/*
 * name       How the store is called in messages, logs and serialised locks; NULL for none.
 * log        Hook for events of at least log_level (0: VERROU_INFO); NULL for none.
 * connect    Makes the connections, for stores across a network (Redis); NULL: they are made as the address says. With another store it
 *            is VERROU_ECONFIG.
 * max_key    Accept keys of up to so many bytes, prefix included, at most 60000; 0: VERROU_MAX_KEY, the one limit that all stores share.
 *            VERROU_ECONFIG if the store cannot.
 */
typedef struct verrou_store_options {
    size_t size;
    const char *name;
    verrou_log_fn log;
    void *log_user;
    verrou_level log_level;
    verrou_connect_fn connect;
    void *connect_user;
    size_t max_key;
} verrou_store_options;
#define VERROU_STORE_OPTIONS_INIT                                                      \
    {                                                                                  \
        sizeof(verrou_store_options), NULL, NULL, NULL, (verrou_level)0, NULL, NULL, 0 \
    }

/*
 * Open the store at `url`: "memory:", "sqlite:PATH?table=locks&prefix=app:" and so on; verrou-stores(7) has the table of
 * addresses and settings. Nothing is contacted yet, and this does not block: a store that cannot be reached shows in the
 * first call that needs it.
 *
 * Errors: VERROU_ECONFIG for an address that cannot be read, an unknown scheme or an unknown setting; VERROU_ENOMEM.
 */
VERROU_API VERROU_CHECK verrou_status verrou_store_open(const char *url, const verrou_store_options *options,
                                                        verrou_store **ret_store, verrou_error *err);

/*
 * Close a store. Calls that still wait complete with VERROU_ECLOSED. Blocks until requests in flight are answered or have
 * reached their time limit (setting `timeout`, 5 s by default). Leases are not released. Lock handles may be freed later.
 */
VERROU_API void verrou_store_close(verrou_store *store);

/* VERROU_CAP_ bits. */
VERROU_API uint32_t verrou_store_caps(verrou_store *store);

/* Hand events of at least this level to the log hook from now on. Without a hook it does nothing. */
VERROU_API void verrou_store_set_log_level(verrou_store *store, verrou_level level);

/* The name it was opened with ("" if none), and its address with any password replaced by "***". Valid until it is closed. */
VERROU_API const char *verrou_store_name(const verrou_store *store);
VERROU_API const char *verrou_store_address(const verrou_store *store);

/*
 * Who holds a lock.
 *
 * locked        1 while somebody's lease is live.
 * owner         Its owner, "" if nobody or if the store cannot tell.
 * remaining_ms  What is left of the lease: VERROU_FOREVER if it never expires, -1 if the store cannot tell, 0 if nobody holds it.
 * fence         Its fencing token, 0 if there is none or the store cannot tell.
 */
typedef struct verrou_info {
    size_t size;
    int locked;
    int64_t remaining_ms;
    uint64_t fence;
    char owner[VERROU_MAX_OWNER + 1];
} verrou_info;
#define VERROU_INFO_INIT                 \
    {                                    \
        sizeof(verrou_info), 0, 0, 0, "" \
    }

/*
 * For calls other than acquire.
 *
 * timeout_ms   Time limit of the call, 1 or more; VERROU_DEFAULT: the store's `timeout` setting (5 s), for wait_lost none.
 * deadline_ms  Absolute limit instead, on the clock of verrou_now_ms(); VERROU_FOREVER: only timeout_ms counts.
 * fence        Release and extend: the token of the acquisition meant, 0 for the latest of the handle. With a handle shared by
 *              threads it keeps one thread from releasing what another acquired since: VERROU_ENOTOWNED then.
 */
typedef struct verrou_call_options {
    size_t size;
    int64_t timeout_ms;
    int64_t deadline_ms;
    uint64_t fence;
} verrou_call_options;
#define VERROU_CALL_OPTIONS_INIT                                       \
    {                                                                  \
        sizeof(verrou_call_options), VERROU_DEFAULT, VERROU_FOREVER, 0 \
    }

/* Look at a key. Blocks. Errors: ESTORAGE, EINVAL, ENOMEM, ECLOSED. A store without list support may not tell owner and time. */
VERROU_API verrou_status verrou_store_inspect(verrou_store *store, const char *key, const verrou_call_options *options,
                                              verrou_info *ret_info, verrou_error *err);

/*
 * Free a key whoever holds it. Its next acquisition still gets a larger fencing token. VERROU_OK also if it was free.
 * Blocks. Errors: ESTORAGE, EUNKNOWN, EINVAL, ENOMEM, ECLOSED.
 */
VERROU_API verrou_status verrou_store_force_release(verrou_store *store, const char *key,
                                                    const verrou_call_options *options, verrou_error *err);

/* Called for each live lock with its key (prefix removed). Return 0 to go on, anything else to stop the listing. */
typedef int (*verrou_list_fn)(void *user, const char *key, const verrou_info *info);

/*
 * List the live locks whose key starts with `prefix` (NULL: all), in byte order of the keys. The whole answer is read first,
 * then `each` is called on this thread. Blocks. Errors: ENOTSUP, ESTORAGE, ENOMEM, ECLOSED.
 */
VERROU_API verrou_status verrou_store_list(verrou_store *store, const char *prefix, const verrou_call_options *options,
                                           verrou_list_fn each, void *user, verrou_error *err);

/* One finding of verrou_store_check(): level VERROU_INFO (fine), VERROU_WARN or VERROU_ERROR_LEVEL. */
typedef void (*verrou_check_fn)(void *user, verrou_level level, const char *subject, const char *finding);

/*
 * Have the store look for what could make it an unsafe or slow place for locks, and take, extend and release a lock of a key that nobody uses.
 * Blocks. VERROU_OK if it could look, whatever it found.
 */
VERROU_API verrou_status verrou_store_check(verrou_store *store, const verrou_call_options *options,
                                            verrou_check_fn each, void *user, verrou_error *err);

/*
 * The statements that would make or update the store's table, as text to free with verrou_free(); and their execution, which
 * is idempotent and the only thing that ever alters an existing table. Both block. VERROU_ENOTSUP where there is no schema.
 */
VERROU_API verrou_status verrou_store_schema(verrou_store *store, const verrou_call_options *options, char **ret_text,
                                             verrou_error *err);
VERROU_API verrou_status verrou_store_schema_apply(verrou_store *store, const verrou_call_options *options,
                                                   verrou_error *err);

/* ---- cancelling -------------------------------------------------------------------------------------------------- */

typedef struct verrou_cancel verrou_cancel;

/*
 * A token that ends waits from another thread. It may be given to any number of acquire calls, before or after it is fired;
 * firing it completes those that are not answered yet with VERROU_ECANCELED, at once and for good. Safe to call from any
 * thread, not from a signal handler. It may be freed while calls still use it.
 */
VERROU_API VERROU_CHECK verrou_status verrou_cancel_new(verrou_cancel **ret_cancel, verrou_error *err);
VERROU_API void verrou_cancel_fire(verrou_cancel *cancel);
VERROU_API void verrou_cancel_free(verrou_cancel *cancel);

/* ---- locks ------------------------------------------------------------------------------------------------------- */

typedef struct verrou_lock verrou_lock;

/*
 * ttl_ms       Length of the lease: 1 to VERROU_MAX_MS, VERROU_FOREVER, or VERROU_DEFAULT (the factory's, else 30 s).
 * owner        A fixed owner; NULL (better) to have a new one drawn for every acquisition: "<128 random bits>@host:pid[:label]".
 *              With a fixed owner the outcome of an acquisition whose answer got lost stays VERROU_EUNKNOWN.
 * label        Added to drawn owners, for people who ask who holds a lock. At most 64 bytes.
 * keep_alive   1: once acquired, the lease is renewed every third of its TTL until it is released, freed or lost.
 * max_hold_ms  With keep_alive: stop renewing after this long; VERROU_FOREVER for no limit.
 * attempts, delay_ms, timeout_ms   Defaults for verrou_lock_acquire(); see verrou_acquire_options.
 */
typedef struct verrou_lock_options {
    size_t size;
    int64_t ttl_ms;
    const char *owner;
    const char *label;
    int keep_alive;
    int64_t max_hold_ms;
    int64_t attempts;
    int64_t delay_ms;
    int64_t timeout_ms;
} verrou_lock_options;
#define VERROU_LOCK_OPTIONS_INIT                                                                                    \
    {                                                                                                               \
        sizeof(verrou_lock_options), VERROU_DEFAULT, NULL, NULL, 0, VERROU_FOREVER, VERROU_DEFAULT, VERROU_DEFAULT, \
            VERROU_DEFAULT                                                                                          \
    }

/*
 * Make a handle for the lock `key`. Nothing is sent. Handles are cheap (less than 256 bytes); the lock itself lives in the store.
 * It is freed with verrou_lock_free(), which may be after the store was closed.
 *
 * After fork() the child may go on using stores and handles; connections are opened anew there. A lease that the parent holds is
 * not the child's: release and extend answer VERROU_EFORK until the child acquires anew or restores the lease from its
 * serialised form.
 *
 * Errors: VERROU_EINVAL (key, owner, label, a number out of range), VERROU_ENOMEM.
 */
VERROU_API VERROU_CHECK verrou_status verrou_lock_new(verrou_store *store, const char *key,
                                                      const verrou_lock_options *options, verrou_lock **ret_lock,
                                                      verrou_error *err);

/*
 * Make a handle from the JSON of verrou_lock_serialize() or of Verrou for Node.js: {"key","owner","ttl","expirationTime"} with
 * optional "store" and "fence"; other members are ignored. Its owner is fixed. Its remaining time is an estimate by the wall
 * clock until the first extend or inspect. Options: only keep_alive, max_hold_ms and the retry defaults count.
 * Nothing is sent. Errors: VERROU_EINVAL (what is malformed), VERROU_ENOMEM.
 */
VERROU_API VERROU_CHECK verrou_status verrou_lock_restore(verrou_store *store, const char *json,
                                                          const verrou_lock_options *options, verrou_lock **ret_lock,
                                                          verrou_error *err);

/*
 * Free a handle. The lease, if there is one, is not released: it runs out by itself, or is released by a restored handle. Calls
 * in progress on other threads must have returned; asynchronous calls may be pending and complete as usual.
 */
VERROU_API void verrou_lock_free(verrou_lock *lock);

/*
 * attempts     How often to ask: 1 or more; VERROU_FOREVER (the default): until the time is up. Asking earlier than the delay
 *              demands because a release was noticed is not counted. 1 asks once and never waits.
 * delay_ms     Longest pause between two attempts where the store cannot tell of a release (default 250); shortened at random by
 *              up to half. At least 1.
 * timeout_ms   Time limit for the whole call; default VERROU_FOREVER; 0 asks once and never waits.
 * deadline_ms  Absolute limit, on the clock of verrou_now_ms(). Both limits count. One that has passed: VERROU_ENOTACQUIRED, and nobody
 *              was asked.
 * cancel       Token to cancel the wait with, or NULL.
 */
typedef struct verrou_acquire_options {
    size_t size;
    int64_t attempts;
    int64_t delay_ms;
    int64_t timeout_ms;
    int64_t deadline_ms;
    verrou_cancel *cancel;
} verrou_acquire_options;
#define VERROU_ACQUIRE_OPTIONS_INIT                                                                          \
    {                                                                                                        \
        sizeof(verrou_acquire_options), VERROU_DEFAULT, VERROU_DEFAULT, VERROU_DEFAULT, VERROU_FOREVER, NULL \
    }

/*
 * Take the lock, waiting until it is free. Waiters of one process are served first come, first served. Not re-entrant: a handle
 * that holds the lock waits for itself.
 *
 * ret_info   May be NULL. On VERROU_OK: the own lease. On VERROU_ENOTACQUIRED: who holds the lock.
 *
 * VERROU_OK            held, and at least remaining_ms of the lease are left.
 * VERROU_ENOTACQUIRED  the limit was reached. The handle's previous state is as it was.
 * VERROU_ECANCELED     see verrou_cancel_fire().
 * VERROU_EUNKNOWN      the store stopped answering after the request was sent; a lease that arises late is given up.
 * VERROU_ESTORAGE      the store could not be reached or refused, for as long as its `timeout` setting allows.
 * Others               EINVAL, ENOMEM, ECLOSED.
 */
VERROU_API VERROU_CHECK verrou_status verrou_lock_acquire(verrou_lock *lock, const verrou_acquire_options *options,
                                                          verrou_info *ret_info, verrou_error *err);

/*
 * Ask once, without waiting for a holder or for other waiters. The same results as verrou_lock_acquire() with one attempt.
 * Blocks for one request at most.
 */
VERROU_API VERROU_CHECK verrou_status verrou_lock_acquire_immediately(verrou_lock *lock, verrou_info *ret_info,
                                                                      verrou_error *err);

/*
 * Take the lock if that needs neither a request nor a wait: the store answers at once (VERROU_CAP_IMMEDIATE), the lock is free, and nobody
 * in this process waits for it. It saves an event loop the way through the completion queue, and never blocks. Otherwise it is
 * VERROU_ENOTACQUIRED, whatever the reason: ask verrou_lock_acquire_async(). Other errors: EINVAL, ENOMEM, ECLOSED.
 */
VERROU_API VERROU_CHECK verrou_status verrou_lock_take(verrou_lock *lock, const verrou_acquire_options *options,
                                                       verrou_info *ret_info, verrou_error *err);

/*
 * Give the lock back. Blocks for one request; waits for a renewal that is in flight.
 *
 * VERROU_OK         released. After a lost answer that was repeated: it is gone, and it had not run out.
 * VERROU_ENOTOWNED  not held by this handle (any more): it ran out, was released, or was forced. Nothing was changed.
 * VERROU_EUNKNOWN   the answer was lost. The release is being repeated in the background until the lease has run out.
 * VERROU_ESTORAGE   the store could not be reached: the lease is still there. Try again, or let it run out.
 * VERROU_EFORK      the lease belongs to the parent process. Others: EINVAL, ENOMEM, ECLOSED.
 */
VERROU_API verrou_status verrou_lock_release(verrou_lock *lock, const verrou_call_options *options, verrou_error *err);

/* verrou_store_force_release() of this lock's key. */
VERROU_API verrou_status verrou_lock_force_release(verrou_lock *lock, const verrou_call_options *options,
                                                   verrou_error *err);

/*
 * Make the lease end `ttl_ms` from now (VERROU_DEFAULT: the lock's own TTL; VERROU_FOREVER: never). A lease that has run out
 * is not revived. Blocks for one request.
 *
 * VERROU_OK         extended. VERROU_ENOTOWNED: not held any more; nothing was changed.
 * VERROU_EUNKNOWN   the answer was lost: the local view keeps the earlier of both ends.
 * Others            ESTORAGE, EFORK, EINVAL, ENOMEM, ECLOSED.
 */
VERROU_API verrou_status verrou_lock_extend(verrou_lock *lock, int64_t ttl_ms, const verrou_call_options *options,
                                            verrou_error *err);

/* Ask the store whether anybody holds the lock. Blocks. Errors as verrou_store_inspect(). */
VERROU_API verrou_status verrou_lock_is_locked(verrou_lock *lock, const verrou_call_options *options, int *ret_locked,
                                               verrou_error *err);

/*
 * verrou_store_inspect() of this lock's key. What the store says also corrects the local view of a lease: how long it lasts, or that it
 * was lost.
 */
VERROU_API verrou_status verrou_lock_inspect(verrou_lock *lock, const verrou_call_options *options,
                                             verrou_info *ret_info, verrou_error *err);

/*
 * The local view of the lease; nothing is sent and nothing blocks. It never promises more than the store does.
 *
 * is_expired    1 if the lease has run out or was lost; 0 while it is live, and for a handle without a lease.
 * remaining_ms  What is left; 0 without a live lease; VERROU_FOREVER if it never expires.
 * check         VERROU_OK while the lease is live, VERROU_ELOST if it has run out or the store gave it away, VERROU_ENOTOWNED if
 *               there is none. Meant for hot loops.
 * fence         The fencing token of the latest acquisition; 0 if none was made or the store has none. Give it to whatever the lock
 *               guards: it refuses a token smaller than the largest seen.
 * owner         The owner of the lease, or the one that the next acquisition will use. Free with verrou_free().
 * key, ttl_ms   As given.
 */
VERROU_API int verrou_lock_is_expired(verrou_lock *lock);
VERROU_API int64_t verrou_lock_remaining_ms(verrou_lock *lock);
VERROU_API verrou_status verrou_lock_check(verrou_lock *lock);
VERROU_API uint64_t verrou_lock_fence(verrou_lock *lock);
VERROU_API verrou_status verrou_lock_owner(verrou_lock *lock, char **ret_owner, verrou_error *err);
VERROU_API const char *verrou_lock_key(const verrou_lock *lock);
VERROU_API int64_t verrou_lock_ttl_ms(const verrou_lock *lock);

/*
 * The lock as JSON that verrou_lock_restore() and Verrou for Node.js can read, to free with verrou_free(). The owner in it is what
 * authorises a release: treat it as a secret. Errors: VERROU_ENOMEM.
 */
VERROU_API verrou_status verrou_lock_serialize(verrou_lock *lock, char **ret_json, verrou_error *err);

/*
 * Acquire, call `body`, release. `body` gets the lock (to check or extend it) and returns a number of its own. It must not leave by
 * longjmp or a C++ exception.
 *
 * ret_executed  Always written: 1 if body was called.     ret_result  What it returned; written if it was called. Either may be NULL.
 *
 * VERROU_OK     executed and released.
 * VERROU_ELOST  executed, but the lease had ended before the release: somebody else may have been inside as well.
 * Others        with *ret_executed 0 those of verrou_lock_acquire(), with 1 those of verrou_lock_release().
 */
typedef int (*verrou_body_fn)(void *user, verrou_lock *lock);
VERROU_API verrou_status verrou_lock_run(verrou_lock *lock, const verrou_acquire_options *options, verrou_body_fn body,
                                         void *user, int *ret_executed, int *ret_result, verrou_error *err);
VERROU_API verrou_status verrou_lock_run_immediately(verrou_lock *lock, verrou_body_fn body, void *user,
                                                     int *ret_executed, int *ret_result, verrou_error *err);

/*
 * Block until the current lease ends or the time limit is reached; without one in `options`, as long as it takes.
 * VERROU_ELOST: it ran out or was lost. VERROU_OK: it was released. VERROU_ENOTOWNED: there is none.
 * VERROU_EUNKNOWN: a release was sent and its answer was lost. VERROU_ECANCELED: the limit came first.
 */
VERROU_API verrou_status verrou_lock_wait_lost(verrou_lock *lock, const verrou_call_options *options,
                                               verrou_error *err);

/* ---- asynchronous calls ------------------------------------------------------------------------------------------- */

typedef struct verrou_queue verrou_queue;

/*
 * A completion queue: the calls submitted to it are answered by verrou_dispatch(), on the thread that calls that. One queue may
 * serve many stores. Freeing it is for when no call is pending; calls that still are complete without being reported.
 */
VERROU_API VERROU_CHECK verrou_status verrou_queue_new(verrou_queue **ret_queue, verrou_error *err);
VERROU_API void verrou_queue_free(verrou_queue *queue);

/* A descriptor to poll(2): readable when verrou_dispatch() has something to do. Do not read or close it. A child asks for its own after fork(). */
VERROU_API int verrou_queue_fd(const verrou_queue *queue);

/*
 * Call the callbacks of at most `max` completed calls (0: all that are there) and return how many. Does not block. Any thread may
 * call it; a callback may call the library, this function included. What callbacks submit goes to the store when this function returns,
 * as one batch, or up to 10 ms later should a callback take longer.
 */
VERROU_API size_t verrou_dispatch(verrou_queue *queue, size_t max);

/*
 * What this thread submits between the two goes to the store as one batch too, or up to 10 ms after its first call: for event loops that run what
 * callbacks have made ready after verrou_dispatch() has returned. They may be nested.
 */
VERROU_API void verrou_hold(void);
VERROU_API void verrou_let_go(void);

/*
 * The outcome of an asynchronous call, valid during the callback. `info` as ret_info of the synchronous form; for is_locked and inspect
 * it is the answer. `locks` of a listing: `count` entries, sorted.
 */
typedef struct verrou_listed {
    const char *key;
    verrou_info info;
} verrou_listed;
typedef struct verrou_result {
    size_t size;
    verrou_status status;
    const verrou_error *error; /* NULL on VERROU_OK */
    const verrou_info *info;   /* NULL where the call has none */
    const verrou_listed *locks;
    size_t count;
} verrou_result;
typedef void (*verrou_done_fn)(void *user, const verrou_result *result);

/*
 * The asynchronous forms. They never block. VERROU_OK means that the call was accepted: `done` is then called exactly once, cancelled or
 * not. Otherwise it is never called. The handle may be freed while calls are pending. A call that waits needs no thread.
 */
VERROU_API VERROU_CHECK verrou_status verrou_lock_acquire_async(verrou_lock *lock,
                                                                const verrou_acquire_options *options,
                                                                verrou_queue *queue, verrou_done_fn done, void *user,
                                                                verrou_error *err);
VERROU_API VERROU_CHECK verrou_status verrou_lock_release_async(verrou_lock *lock, const verrou_call_options *options,
                                                                verrou_queue *queue, verrou_done_fn done, void *user,
                                                                verrou_error *err);
VERROU_API VERROU_CHECK verrou_status verrou_lock_extend_async(verrou_lock *lock, int64_t ttl_ms,
                                                               const verrou_call_options *options, verrou_queue *queue,
                                                               verrou_done_fn done, void *user, verrou_error *err);
VERROU_API VERROU_CHECK verrou_status verrou_lock_force_release_async(verrou_lock *lock,
                                                                      const verrou_call_options *options,
                                                                      verrou_queue *queue, verrou_done_fn done,
                                                                      void *user, verrou_error *err);
VERROU_API VERROU_CHECK verrou_status verrou_lock_inspect_async(verrou_lock *lock, const verrou_call_options *options,
                                                                verrou_queue *queue, verrou_done_fn done, void *user,
                                                                verrou_error *err);
VERROU_API VERROU_CHECK verrou_status verrou_lock_wait_lost_async(verrou_lock *lock, const verrou_call_options *options,
                                                                  verrou_queue *queue, verrou_done_fn done, void *user,
                                                                  verrou_error *err);
VERROU_API VERROU_CHECK verrou_status verrou_store_inspect_async(verrou_store *store, const char *key,
                                                                 const verrou_call_options *options,
                                                                 verrou_queue *queue, verrou_done_fn done, void *user,
                                                                 verrou_error *err);
VERROU_API VERROU_CHECK verrou_status verrou_store_force_release_async(verrou_store *store, const char *key,
                                                                       const verrou_call_options *options,
                                                                       verrou_queue *queue, verrou_done_fn done,
                                                                       void *user, verrou_error *err);
VERROU_API VERROU_CHECK verrou_status verrou_store_list_async(verrou_store *store, const char *prefix,
                                                              const verrou_call_options *options, verrou_queue *queue,
                                                              verrou_done_fn done, void *user, verrou_error *err);

/* ---- factories and managers --------------------------------------------------------------------------------------- */

typedef struct verrou_factory verrou_factory;
typedef struct verrou_manager verrou_manager;

/* Defaults that a factory gives to the locks it makes. */
typedef struct verrou_factory_options {
    size_t size;
    int64_t ttl_ms;
    int64_t attempts;
    int64_t delay_ms;
    int64_t timeout_ms;
    const char *label;
} verrou_factory_options;
#define VERROU_FACTORY_OPTIONS_INIT                                                                          \
    {                                                                                                        \
        sizeof(verrou_factory_options), VERROU_DEFAULT, VERROU_DEFAULT, VERROU_DEFAULT, VERROU_DEFAULT, NULL \
    }

/* A factory for locks on `store`, which must outlive it. Errors: EINVAL, ENOMEM. */
VERROU_API VERROU_CHECK verrou_status verrou_factory_new(verrou_store *store, const verrou_factory_options *options,
                                                         verrou_factory **ret_factory, verrou_error *err);
VERROU_API void verrou_factory_free(verrou_factory *factory);
VERROU_API verrou_store *verrou_factory_store(verrou_factory *factory);

/* verrou_lock_new() and verrou_lock_restore() with the factory's defaults for what the options leave open. */
VERROU_API VERROU_CHECK verrou_status verrou_factory_create_lock(verrou_factory *factory, const char *key,
                                                                 const verrou_lock_options *options,
                                                                 verrou_lock **ret_lock, verrou_error *err);
VERROU_API VERROU_CHECK verrou_status verrou_factory_restore_lock(verrou_factory *factory, const char *json,
                                                                  const verrou_lock_options *options,
                                                                  verrou_lock **ret_lock, verrou_error *err);

/*
 * A named store of a manager: an address, or a store of the caller's (not closed by the manager). connect and connect_user go with an
 * address and are as in verrou_store_options. What is left out of an initialiser is NULL and not used.
 */
typedef struct verrou_named_store {
    const char *name;
    const char *url;
    verrou_store *store;
    verrou_connect_fn connect;
    void *connect_user;
} verrou_named_store;

/*
 * default_store  The name to use where none is given; NULL: taken from the environment variable LOCK_STORE.
 * stores, count  At least one. Names are 1 to 64 bytes.       store_size  sizeof(verrou_named_store), as the macro sets it.
 * factory        Defaults for all locks; NULL for none.        log...  As in verrou_store_options, for all stores.
 */
typedef struct verrou_manager_options {
    size_t size;
    const char *default_store;
    const verrou_named_store *stores;
    size_t count;
    size_t store_size;
    const verrou_factory_options *factory;
    verrou_log_fn log;
    void *log_user;
    verrou_level log_level;
} verrou_manager_options;
#define VERROU_MANAGER_OPTIONS_INIT                                                                                  \
    {                                                                                                                \
        sizeof(verrou_manager_options), NULL, NULL, 0, sizeof(verrou_named_store), NULL, NULL, NULL, (verrou_level)0 \
    }

/*
 * A manager of named stores, built from code. Stores are opened when first used, once. VERROU_ECONFIG for missing stores, a missing
 * default, a default that names no store (the message says which), a name given twice or an address that cannot be read.
 */
VERROU_API VERROU_CHECK verrou_status verrou_manager_new(const verrou_manager_options *options,
                                                         verrou_manager **ret_manager, verrou_error *err);

/*
 * The same from a configuration file (verrou.conf(5)): "default = NAME", then a section [stores] with "NAME = ADDRESS" lines. The
 * environment variable LOCK_STORE overrides the default. `options` may add log and factory defaults; its stores are ignored.
 */
VERROU_API VERROU_CHECK verrou_status verrou_manager_load(const char *path, const verrou_manager_options *options,
                                                          verrou_manager **ret_manager, verrou_error *err);

/* The same from one address, which becomes the store "default". */
VERROU_API VERROU_CHECK verrou_status verrou_manager_open(const char *url, const verrou_manager_options *options,
                                                          verrou_manager **ret_manager, verrou_error *err);

/* Closes the stores that the manager opened; blocks as verrou_store_close() does. */
VERROU_API void verrou_manager_free(verrou_manager *manager);

/*
 * The factory of the store `name` (NULL: the default). It belongs to the manager and lives as long. VERROU_ECONFIG if there is no such
 * store, and what verrou_store_open() returns.
 */
VERROU_API VERROU_CHECK verrou_status verrou_manager_use(verrou_manager *manager, const char *name,
                                                         verrou_factory **ret_factory, verrou_error *err);

/* A lock on the default store; and a restored one on the store that it names, or else on the default. */
VERROU_API VERROU_CHECK verrou_status verrou_manager_create_lock(verrou_manager *manager, const char *key,
                                                                 const verrou_lock_options *options,
                                                                 verrou_lock **ret_lock, verrou_error *err);
VERROU_API VERROU_CHECK verrou_status verrou_manager_restore_lock(verrou_manager *manager, const char *json,
                                                                  const verrou_lock_options *options,
                                                                  verrou_lock **ret_lock, verrou_error *err);

#ifdef __cplusplus
}
#endif
#endif
