/*
 * store.h - for people who bring their own store. Applications need verrou.h only.
 *
 * There are three ways in, from the smallest to the fastest:
 *   1. verrou_lock_store   five calls (save, delete, force_delete, exists, extend), as LockStore of Verrou for Node.js;
 *   2. verrou_database     seven calls over a table, as its DatabaseAdapter;
 *   3. verrou_driver       what the stores of this library are made of: straight-line blocking code that answers a batch of requests
 *                          in one round trip. Waiting, retrying, timing, renewing and threads are the engine's business.
 * Whichever you choose, conformance.h checks it. src/stores/README.md walks through a new store.
 *
 * This header may change with a minor version; version fields say what a table was compiled against.
 */
#ifndef VERROU_STORE_H
#define VERROU_STORE_H

#include <verrou/verrou.h>

#ifdef __cplusplus
extern "C" {
#endif

#define VERROU_STORE_VERSION 1

/* ---- 1. five calls ------------------------------------------------------------------------------------------------ */

/*
 * Every call may block, is made by one thread at a time, and gets `user`. Keys and owners are NUL-terminated; keys include the prefix.
 * Return VERROU_OK, one of the answers named below, VERROU_ESTORAGE (nothing was changed) or VERROU_EUNKNOWN (it may have been), the
 * last two with a message put into `err` by verrou_error_set(). ttl_ms is VERROU_FOREVER for a lease that never expires.
 */
typedef struct verrou_lock_store {
    uint32_t version; /* VERROU_STORE_VERSION */

    /* Take the key unless somebody's lease is live, the same owner's included: VERROU_OK or VERROU_ENOTACQUIRED. */
    verrou_status (*save)(void *user, const char *key, const char *owner, int64_t ttl_ms, verrou_error *err);

    /* Free the key if this owner's lease is live: VERROU_OK or VERROU_ENOTOWNED. The original's name for it is `delete`. */
    verrou_status (*remove)(void *user, const char *key, const char *owner, verrou_error *err);

    /* Free the key. Also VERROU_OK if it was free. */
    verrou_status (*force_remove)(void *user, const char *key, verrou_error *err);

    /* Say whether somebody's lease is live. */
    verrou_status (*exists)(void *user, const char *key, int *ret_exists, verrou_error *err);

    /* Let the live lease of this owner end ttl_ms from now: VERROU_OK or VERROU_ENOTOWNED. An expired lease is not revived. */
    verrou_status (*extend)(void *user, const char *key, const char *owner, int64_t ttl_ms, verrou_error *err);

    /* The store is being closed; no other call follows. May be NULL. */
    void (*close)(void *user);
} verrou_lock_store;

/*
 * Make a store of the five calls. `table` must stay valid until the store is closed. `settings` may be NULL or hold the common settings as
 * in an address, "prefix=app:&timeout=2s". Capabilities: none, fencing tokens are 0.
 * Errors: EINVAL (a missing call), ECONFIG (settings), ENOMEM.
 */
VERROU_API VERROU_CHECK verrou_status verrou_store_from_lock_store(const verrou_lock_store *table, void *user,
                                                                   const char *settings,
                                                                   const verrou_store_options *options,
                                                                   verrou_store **ret_store, verrou_error *err);

/* ---- 2. seven calls over a table ---------------------------------------------------------------------------------- */

/* A row. expiration_ms is in epoch milliseconds, VERROU_FOREVER for NULL (never). */
typedef struct verrou_row {
    char owner[VERROU_MAX_OWNER + 1];
    int64_t expiration_ms;
    uint64_t fence;
} verrou_row;

/*
 * As verrou_lock_store: blocking, one thread at a time, VERROU_ESTORAGE or VERROU_EUNKNOWN with a message for failures. `now_ms` is the time
 * to compare with: the store's if `now` is given, else the client's wall clock.
 *
 * Differences from the original, which cannot tell: an insert tells a duplicate from a failure, and a delete says how many rows went.
 */
typedef struct verrou_database {
    uint32_t version; /* VERROU_STORE_VERSION */

    /* Use this table; called once, before all others. */
    verrou_status (*set_table_name)(void *user, const char *table, verrou_error *err);

    /* Create the table unless it exists. Not called with autocreate=false. Repeated later if it fails. */
    verrou_status (*create_table_if_not_exists)(void *user, verrou_error *err);

    /* Insert a row: VERROU_OK, or VERROU_ENOTACQUIRED if there is a row with this key. */
    verrou_status (*insert_lock)(void *user, const char *key, const char *owner, int64_t expiration_ms, uint64_t fence,
                                 verrou_error *err);

    /* Overwrite the row of this key if it has an expiration of at most now_ms: VERROU_OK and how many rows were changed. */
    verrou_status (*acquire_lock)(void *user, const char *key, const char *owner, int64_t expiration_ms, uint64_t fence,
                                  int64_t now_ms, int64_t *ret_rows, verrou_error *err);

    /* Delete the row of this key if its owner is `owner` and it is live; owner NULL: whoever has it, live or not. */
    verrou_status (*delete_lock)(void *user, const char *key, const char *owner, int64_t now_ms, int64_t *ret_rows,
                                 verrou_error *err);

    /* Set the expiration of the row of this key if its owner is `owner` and it is live. */
    verrou_status (*extend_lock)(void *user, const char *key, const char *owner, int64_t expiration_ms, int64_t now_ms,
                                 int64_t *ret_rows, verrou_error *err);

    /* Read the row of this key: VERROU_OK and *ret_found 0 or 1. */
    verrou_status (*get_lock)(void *user, const char *key, int *ret_found, verrou_row *ret_row, verrou_error *err);

    /*
     * Optional: the store's clock in epoch milliseconds. Without it, VERROU_CAP_SERVER_CLOCK is not claimed. `now` and `next_fence` may
     * answer VERROU_ENOTSUP, "this database has none", which may be known only once it is connected: from then on it is as if `now` were
     * NULL; `next_fence` is asked again for each token, because its column may be added.
     */
    verrou_status (*now)(void *user, int64_t *ret_now_ms, verrou_error *err);

    /*
     * Optional: draw a fencing token for this key, larger than all before. Without it, tokens are the clock's microseconds; with a
     * `now`, of which the milliseconds are known, an acquisition then takes until its millisecond is over, so that the next
     * one gets a larger token. It is called by the holder, once the row is taken: a token drawn earlier could be smaller than that
     * of somebody who came and went meanwhile. `fence` is therefore 0 in insert_lock and acquire_lock, and not read by get_lock.
     */
    verrou_status (*next_fence)(void *user, const char *key, uint64_t *ret_fence, verrou_error *err);

    /* Optional: the store is being closed. */
    void (*close)(void *user);
} verrou_database;

/* Make a store of the seven calls. Settings: the common ones, and `table` (default "verrou") and `autocreate` (default true). */
VERROU_API VERROU_CHECK verrou_status verrou_store_from_database(const verrou_database *table, void *user,
                                                                 const char *settings,
                                                                 const verrou_store_options *options,
                                                                 verrou_store **ret_store, verrou_error *err);

/*
 * Fill in an error and return `status`. `retriable` as in verrou_error; store_code may be NULL; err may be NULL. For use by store authors
 * that link with the library; drivers get it as host->fail.
 */
VERROU_API verrou_status verrou_error_set(verrou_error *err, verrou_status status, int retriable,
                                          const char *store_code, const char *format, ...) VERROU_PRINTF(5, 6);

/* ---- 3. drivers --------------------------------------------------------------------------------------------------- */

typedef enum verrou_op_kind {
    VERROU_OP_ACQUIRE = 1, /* take the key for `owner` unless a live lease is there, the same owner's included */
    VERROU_OP_RELEASE =
        2, /* free the key if the live lease is of `owner` (and of `fence`, if that is not 0 and the store keeps it) */
    VERROU_OP_EXTEND = 3,  /* let that lease end ttl_ms from now, under the same conditions */
    VERROU_OP_FORCE = 4,   /* free the key */
    VERROU_OP_INSPECT = 5, /* read the key: APPLIED with the holder filled in if a lease is live, else REFUSED */
} verrou_op_kind;

typedef enum verrou_op_result {
    VERROU_OP_UNSENT = 0,  /* not sent (the initial value): nothing changed, may be tried again */
    VERROU_OP_APPLIED = 1, /* done */
    VERROU_OP_REFUSED =
        2, /* not done: held by someone (acquire), not this owner's live lease (release, extend), free (inspect) */
    VERROU_OP_RETRY = 3,  /* not done for a passing reason; `error` says which. May be tried again until the deadline */
    VERROU_OP_FAILED = 4, /* not done, and trying again does not help; `error` says why */
    VERROU_OP_UNKNOWN = 5, /* sent, and the answer was lost or did not come by the deadline */
} verrou_op_result;

/* One request. The first group is set by the engine, the second by the driver. Nothing in it is shared with another thread. */
typedef struct verrou_op {
    verrou_op_kind kind;
    uint16_t key_len;
    uint16_t owner_len;
    const char *key;   /* prefix included; NUL-terminated, as owner is */
    const char *owner; /* NULL for force and inspect */
    int64_t ttl_ms;    /* VERROU_FOREVER: never expires */
    int64_t sent_ms;   /* host->now_ms() just before execute() */
    int64_t
        deadline_ms; /* when its caller gives up; may be earlier than that of execute(), which is for all. 0: not told */
    uint64_t fence;  /* in: see release; out: the token of the lease granted, or of the holder */
    int owner_is_drawn; /* acquire: this owner is of this acquisition alone, so that who finds it as the holder was granted the key */

    verrou_op_result result;
    int32_t
        others; /* release, force: how many other processes wait for this key, 1 for "some"; -1 (initially) if not known */
    int64_t remaining_ms; /* holder's lease, -1 (initially) if not known */
    int holder_is_owner;  /* the live lease is of `owner`; set by host->holder */
    char *holder;         /* set by host->holder; freed by the engine */
    verrou_error *error;  /* set by host->op_fail; freed by the engine */
} verrou_op;

/*
 * A parsed address: SCHEME:REST?NAME=VALUE&..., with %XX decoded in rest and values. `text` is the address as given: it may hold a password.
 *
 * For drivers with VERROU_DRIVER_NETWORK the rest is also there in pieces, each decoded for itself:
 * //[user[:password]@][host[:port][,host[:port]...]][/path]. What is not given is NULL (user, password, path) or 0 (port,
 * endpoint_count); in "//:password@host" the user is "". The path begins with its '/'. An IPv6 address stands in brackets in the
 * address and without them in `host`. An address that is not of this form was refused before create().
 */
typedef struct verrou_setting {
    const char *name;
    const char *value;
} verrou_setting;
typedef struct verrou_endpoint {
    const char *host;
    int port;
} verrou_endpoint;
typedef struct verrou_url {
    const char *text;
    const char *scheme;
    const char *rest;
    const verrou_setting *settings;
    size_t count;
    const char *user;
    const char *password;
    const verrou_endpoint *endpoints;
    size_t endpoint_count;
    const char *path;
    verrou_connect_fn connect; /* given by the application beside the address; NULL: connect yourself */
    void *connect_user;
} verrou_url;

/* Where list, check and schema put what they find. Opaque to the driver. */
typedef struct verrou_sink verrou_sink;

/* What the library offers to a driver. A driver imports no symbol of the library, so that it works with a static and a shared one. */
typedef struct verrou_host {
    uint32_t version;
    void *(*malloc)(size_t size);
    void *(*realloc)(void *block, size_t size);
    void (*free)(void *block);
    int64_t (*now_ms)(void);                                         /* verrou_now_ms() */
    uint64_t (*random)(void);                                        /* 64 random bits, for jitter */
    const char *(*setting)(const verrou_url *url, const char *name); /* value or NULL */
    verrou_status (*duration)(const char *text, int64_t *ret_ms, verrou_error *err);
    verrou_status (*fail)(verrou_error *err, verrou_status status, int retriable, const char *store_code,
                          const char *format, ...) VERROU_PRINTF(5, 6);

    /* Set result and error of one request. `error` stays NULL if there is no memory for it. */
    void (*op_fail)(verrou_op *op, verrou_op_result result, int retriable, const char *store_code, const char *format,
                    ...) VERROU_PRINTF(5, 6);

    /* Say who holds the key: for refused acquires and for inspect. Sets holder, holder_is_owner, remaining_ms and fence. */
    void (*holder)(verrou_op *op, const char *owner, size_t owner_len, int64_t remaining_ms, uint64_t fence);

    /* list: report a live lock. check: report a finding. schema: append text. 0, or -1 when out of memory. */
    int (*list_add)(verrou_sink *sink, const char *key, size_t key_len, const char *owner, size_t owner_len,
                    int64_t remaining_ms, uint64_t fence);
    int (*finding)(verrou_sink *sink, verrou_level level, const char *subject, const char *format, ...)
        VERROU_PRINTF(4, 5);
    int (*text_add)(verrou_sink *sink, const char *format, ...) VERROU_PRINTF(2, 3);

    /* Hand an event to the log hook: asynchronously, so that it may be called from anywhere in a driver. `event` has to stay valid, the
     * rest is copied; key may be NULL. */
    void (*log)(void *log_context, verrou_level level, const char *event, const char *key, const char *format, ...)
        VERROU_PRINTF(5, 6);

    /* Of drivers with VERROU_DRIVER_LATER: a request that execute() accepted has its result. Any thread, not within execute(). The
     * request is not the driver's any more. */
    void (*answered)(void *log_context, verrou_op *op);
} verrou_host;

/* What a watch reports to the engine. `key` NULL: any key may be free. */
typedef enum verrou_watch_event {
    VERROU_WATCH_ACTIVE =
        1, /* from now on releases of this key are reported: the engine tries once more, since one may have been missed */
    VERROU_WATCH_FREE = 2,     /* this key may be free */
    VERROU_WATCH_RELEASED = 3, /* another process, not this one, has released this key */
} verrou_watch_event;
typedef void (*verrou_watch_fn)(void *context, verrou_watch_event event, const char *key, size_t key_len);

#define VERROU_DRIVER_INLINE \
    0x1u /* execute() never blocks: the engine calls it on any thread, concurrently, with lane NULL */
#define VERROU_DRIVER_NETWORK 0x2u  /* its addresses begin with "//": they are checked and given in pieces */
#define VERROU_DRIVER_CONNECTS 0x4u /* makes its connections with url->connect if that is given */
#define VERROU_DRIVER_COMPARES \
    0x8u /* while it has VERROU_CAP_FENCE_STORED it keeps the token of a lease: release and extend compare it, a refusal tells it */
/*
 * execute() never blocks and only passes a request on: for stores behind an event loop. It gets one request a call, with lane NULL and a
 * mutex of the engine held. VERROU_OK: the request will be answered through host->answered(), once, by the deadline, also when the store
 * is being closed. Anything else: it was not accepted, and `err` says why. A lease that never expires is asked for as such, not for 30 s first.
 */
#define VERROU_DRIVER_LATER 0x10u

/*
 * A driver. Times are absolute, on host->now_ms(). A call that takes a deadline must return by it, give or take a scheduling delay.
 * Pointers marked optional may be NULL.
 */
typedef struct verrou_driver {
    uint32_t version;           /* VERROU_STORE_VERSION */
    const char *const *schemes; /* NULL-terminated, [a-z][a-z0-9+-]* */
    const char *const
        *settings;  /* NULL-terminated names of the settings that it knows beside the common prefix, timeout, lanes */
    uint32_t flags; /* VERROU_DRIVER_ */
    uint32_t default_lanes; /* connections at most, unless `lanes` is given */
    uint32_t max_lanes;     /* what `lanes` may be at most */

    /*
     * Check the address and make the store's state. No input or output yet; does not block. The host table and log_context stay valid
     * until destroy(); the url does not. destroy() is called after every lane and watch is closed, and not after a failed create().
     * In a child process after fork() neither close nor destroy is called for what the parent opened: a new state is created.
     */
    verrou_status (*create)(const verrou_host *host, void *log_context, const verrou_url *url, void **ret_state,
                            verrou_error *err);
    void (*destroy)(void *state);

    /* VERROU_CAP_ bits, as far as known. Any thread. */
    uint32_t (*caps)(void *state);

    /*
     * Open a lane: a connection that is used by one thread at a time, not always the same. Blocks until the deadline at most; called on
     * a thread of the store, possibly while other lanes are in use. A failure with err->retriable 0 fails the requests that wait for a
     * lane at once, else it is tried again until their time limit. On failure nothing is left to close.
     */
    verrou_status (*open)(void *state, int64_t deadline_ms, void **ret_lane, verrou_error *err);
    void (*close)(void *state, void *lane);

    /*
     * Answer n requests, if possible in one round trip. Never wait for a holder: REFUSED is a normal answer. Requests are independent:
     * one that fails does not fail its neighbours. They are carried out in order as far as they concern the same key. What was sent and
     * not answered by the deadline is UNKNOWN. Returns VERROU_OK if the lane can be used again; otherwise it is closed by the engine, and
     * the requests left UNSENT are tried on another one (their error text is err's, if they never get through).
     */
    verrou_status (*execute)(void *state, void *lane, verrou_op *const *ops, size_t n, int64_t deadline_ms,
                             verrou_error *err);

    /*
     * Optional. Report every live lock whose key starts with prefix (prefix included, any order; one that is reported twice is told once).
     * After a failure of list, check or schema with err->retriable set the lane is closed, and the request is tried on another one.
     */
    verrou_status (*list)(void *state, void *lane, const char *prefix, size_t prefix_len, int64_t deadline_ms,
                          verrou_sink *sink, verrou_error *err);

    /* Optional. Report findings about the store's fitness. */
    verrou_status (*check)(void *state, void *lane, int64_t deadline_ms, verrou_sink *sink, verrou_error *err);

    /* Optional. With apply 0 append the statements that `apply` would run to the sink; with 1 run them. */
    verrou_status (*schema)(void *state, void *lane, int apply, int64_t deadline_ms, verrou_sink *sink,
                            verrou_error *err);

    /*
     * Optional, all or none: being told of releases by other processes. watch_open() may block; it is called on a thread of the store.
     * The others are called on the keeper thread, never block, and never overlap. A failure of add, remove or read closes the watch:
     * the engine polls until it can be opened again, and then adds all keys anew.
     */
    verrou_status (*watch_open)(void *state, int64_t deadline_ms, void **ret_watch, verrou_error *err);
    void (*watch_close)(void *state, void *watch);
    int (*watch_fd)(void *state, void *watch); /* becomes readable when watch_read() has something to do */
    verrou_status (*watch_add)(void *state, void *watch, const char *key, size_t key_len, verrou_error *err);
    verrou_status (*watch_remove)(void *state, void *watch, const char *key, size_t key_len, verrou_error *err);
    verrou_status (*watch_read)(void *state, void *watch, verrou_watch_fn report, void *context, verrou_error *err);

    /*
     * Instead of open, close, execute and watch_, which are then NULL: the seven calls. create() makes their `user`, destroy() ends it (after
     * their `close`, if there is one). The library puts the adapter of verrou_store_from_database() around them, with one lane and the
     * settings `table` and `autocreate`. list, check and schema, if given, are called with state and lane being `user`, once the table has its
     * name, whether it is there or not; caps, if given, adds what the adapter cannot know, VERROU_CAP_SHARED. Of the flags _NETWORK and
     * _CONNECTS count.
     */
    const verrou_database *database;

    /*
     * Optional, all or none: answers that an event loop waits for, where a thread of ours would only wait to pass them on. begin() sends a
     * batch as far as that goes without waiting, and may refuse (0). The engine then waits until lane_fd() is readable and asks arrived():
     * 1, execute() would not block now; 0, not yet; -1, it might. In the end it calls execute() with the same requests on the same
     * lane, which goes on where begin() stopped, or begins if that refused. None of the three blocks; begin() and lane_fd() are called with a
     * mutex of the engine held: they do not log.
     */
    int (*begin)(void *state, void *lane, verrou_op *const *ops, size_t n, int64_t deadline_ms);
    int (*lane_fd)(void *state, void *lane);
    int (*arrived)(void *state, void *lane);

    /* The longest key that verrou_store_options.max_key may allow; 0: VERROU_MAX_KEY. list and watches see keys up to VERROU_MAX_KEY only. */
    uint32_t max_key;
} verrou_driver;

/*
 * Make a driver known under its schemes. Not needed for modules that are found at run time: for the scheme "sqlite" the library loads
 * libverrou-sqlite.so.0 (beside itself, or along the linker's search path) and calls its function verrou_sqlite_driver(), "+" and what
 * follows it left out, so that "redis+cluster:" is found in libverrou-redis. Three schemes are other names for a library's: "rediss" (also
 * before a '+') is found in libverrou-redis, "postgresql" in libverrou-postgres, "mariadb" in libverrou-mysql. A scheme registered twice
 * is VERROU_EINVAL. Any thread.
 */
VERROU_API verrou_status verrou_register_driver(const verrou_driver *driver, verrou_error *err);

#ifdef __cplusplus
}
#endif
#endif
