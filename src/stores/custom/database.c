/*
 * database.c - a store made of seven calls over a table. A key is taken by inserting its row, or by overwriting a row
 * that has run out; it is given back by deleting the row.
 *
 * The fencing token is drawn after the row was taken. One drawn before would be smaller than the token of somebody who
 * drew later, took the row earlier and gave it back meanwhile. Drawn by the holder, tokens come in the order of the
 * leases, as long as the lease is still live when the token is there; grant() makes sure of it. Rows are therefore
 * written with fence 0, and the holder's token cannot be told to others.
 *
 * The calls come from verrou_store_from_database(), or from a driver that has them in place of open ... execute: `inner`.
 */
#include "stores/custom/custom.h"
#include <stdatomic.h>
#include <string.h>
#include <time.h>

/* Rounds of insert, take over, look: each further one needs somebody else to have changed the row in between. */
#define MAX_ROUNDS 4

/* How long the store's clock is looked at until it has gone on, for one of whole seconds; with pauses that grow from the first to the longest. */
#define LONGEST_LOOK_MS 2000
#define FIRST_PAUSE_NS 100000
#define LONGEST_PAUSE_NS 12800000

struct database {
    const verrou_database *table;
    void *user;
    const verrou_driver *inner; /* NULL: the calls are an application's */
    char *name;
    bool autocreate;
    bool named;            /* set_table_name() has been called */
    bool created;          /* create_table_if_not_exists() has succeeded, or is not wanted */
    atomic_bool clockless; /* there is no `now`, or it said that this database has none */
    atomic_bool
        fenceless; /* there is no `next_fence`, or it said so when it was last asked: the table may get a column for it */
};

/* The last token that this process drew from the clock, for all stores: two of them may be the same table. */
static _Atomic uint64_t last_token;

static uint32_t database_caps(void *state)
{
    struct database *db = state;
    const verrou_driver *inner = db->inner;

    return VERROU_CAP_FENCE | (atomic_load(&db->fenceless) ? 0 : VERROU_CAP_FENCE_STORED) |
           (atomic_load(&db->clockless) ? 0 : VERROU_CAP_SERVER_CLOCK) | (inner && inner->list ? VERROU_CAP_LIST : 0) |
           (inner && inner->caps ? inner->caps(db->user) : 0);
}

static verrou_status prepare_failed(const char *call, verrou_status status, verrou_error *err)
{
    if (status != VERROU_ESTORAGE && status != VERROU_EUNKNOWN)
        return verrou_error_set(err, VERROU_ESTORAGE, 0, NULL, "%s returned %s, which it may not", call,
                                verrou_status_name(status));
    if (err) {
        /* Whether the table is there by now does not matter: creating it is repeated. */
        if (status == VERROU_EUNKNOWN)
            err->retriable = 1;
        err->status = VERROU_ESTORAGE;
        verrou__error_prefix(err, "%s", call);
    }
    return VERROU_ESTORAGE;
}

/* The table gets its name where a connection would be made: a failure is told to the requests that wait, and the next
 * ones try again. */
static verrou_status database_open(void *state, int64_t deadline_ms, void **ret_lane, verrou_error *err)
{
    struct database *db = state;
    verrou_status status;

    (void)deadline_ms;
    if (!db->named) {
        status = db->table->set_table_name(db->user, db->name, err);
        if (status != VERROU_OK)
            return prepare_failed("set_table_name", status, err);
        db->named = true;
    }
    *ret_lane = db;
    return VERROU_OK;
}

/* It is made by the first batch of requests: who only asks for the schema may have no right to. */
static verrou_status table_create(struct database *db, verrou_error *err)
{
    verrou_status status = db->table->create_table_if_not_exists(db->user, err);

    if (status != VERROU_OK)
        return prepare_failed("create_table_if_not_exists", status, err);
    db->created = true;
    return VERROU_OK;
}

static void database_close(void *state, void *lane)
{
    (void)state;
    (void)lane;
}

static void database_free(struct database *db)
{
    if (!db)
        return;
    verrou__free(db->name);
    verrou__free(db);
}

static void database_destroy(void *state)
{
    struct database *db = state;

    if (db->table->close)
        db->table->close(db->user);
    if (db->inner)
        db->inner->destroy(db->user);
    database_free(db);
}

/* ---- times and tokens ---- */

/* The time to compare with. False if it could not be had: the request is answered then. */
static bool now_read(struct database *db, verrou_op *op, int64_t *ret_now_ms)
{
    verrou_error err = VERROU_ERROR_INIT;
    verrou_status status;

    if (!atomic_load(&db->clockless)) {
        status = db->table->now(db->user, ret_now_ms, &err);
        if (status == VERROU_OK)
            return true;
        if (status != VERROU_ENOTSUP) {
            verrou__custom_failed(op, "now", true, status, &err);
            return false;
        }
        atomic_store(&db->clockless, true);
    }
    *ret_now_ms = verrou__wall_ms();
    return true;
}

static int64_t expiration(int64_t now_ms, int64_t ttl_ms)
{
    return ttl_ms == VERROU_FOREVER ? VERROU_FOREVER : now_ms + ttl_ms;
}

static int64_t left(const verrou_row *row, int64_t now_ms)
{
    int64_t left_ms = row->expiration_ms - now_ms;

    if (row->expiration_ms == VERROU_FOREVER)
        return VERROU_FOREVER;
    return left_ms > 1 ? left_ms : 1;
}

static bool live(const verrou_row *row, int64_t now_ms)
{
    return row->expiration_ms > now_ms;
}

/*
 * A store that tells milliseconds tells the same one to several processes: who has drawn a token keeps it back until that millisecond is
 * over, so that whoever takes the key next draws a larger one. A clock that stands still would give the same token twice: no lease then.
 */
static bool millisecond_pass(struct database *db, verrou_op *op, int64_t drawn_ms, int64_t deadline_ms)
{
    struct timespec pause = {0, FIRST_PAUSE_NS};
    int64_t begun_ms = verrou_now_ms();
    int64_t most_ms = (deadline_ms - begun_ms) / 4 * 3; /* the rest is for giving the lease back */
    int64_t now_ms = drawn_ms;

    if (most_ms > LONGEST_LOOK_MS)
        most_ms = LONGEST_LOOK_MS;
    do {
        nanosleep(&pause, NULL);
        if (!now_read(db, op, &now_ms))
            return false;
        if (now_ms > drawn_ms)
            return true;
        if (pause.tv_nsec < LONGEST_PAUSE_NS)
            pause.tv_nsec *= 2;
    } while (verrou_now_ms() - begun_ms < most_ms);
    verrou__host.op_fail(op, VERROU_OP_RETRY, 1, NULL, "the store's clock stands still: it gives no token");
    return false;
}

/*
 * Epoch microseconds, or the last one of the store's millisecond, so that it is not smaller than a token that another process drew
 * within this millisecond from a clock of microseconds; larger than all that this process has drawn.
 */
static bool token_from_clock(struct database *db, verrou_op *op, int64_t deadline_ms, uint64_t *ret_token)
{
    uint64_t last = atomic_load(&last_token), token, clock_us;
    struct timespec wall;
    int64_t now_ms = 0;

    if (!now_read(db, op, &now_ms))
        return false;
    clock_us = now_ms > 0 ? (uint64_t)now_ms * 1000 + 999 : 0;
    if (atomic_load(&db->clockless)) {
        clock_gettime(CLOCK_REALTIME, &wall);
        clock_us = (uint64_t)wall.tv_sec * 1000000 + (uint64_t)wall.tv_nsec / 1000;
    }
    do
        token = clock_us > last ? clock_us : last + 1;
    while (!atomic_compare_exchange_weak(&last_token, &last, token));
    *ret_token = token;
    return atomic_load(&db->clockless) || millisecond_pass(db, op, now_ms, deadline_ms);
}

static bool token_draw(struct database *db, verrou_op *op, int64_t deadline_ms, uint64_t *ret_token)
{
    verrou_error err = VERROU_ERROR_INIT;
    verrou_status status;

    if (!db->table->next_fence)
        return token_from_clock(db, op, deadline_ms, ret_token);

    status = db->table->next_fence(db->user, op->key, ret_token, &err);
    atomic_store(&db->fenceless, status == VERROU_ENOTSUP);
    if (status == VERROU_ENOTSUP)
        return token_from_clock(db, op, deadline_ms, ret_token);
    if (status != VERROU_OK)
        verrou__custom_failed(op, "next_fence", true, status, &err);
    else if (*ret_token == 0)
        verrou__host.op_fail(op, VERROU_OP_FAILED, 0, NULL, "next_fence gave 0, which is no token");
    else
        return true;
    return false;
}

/* ---- acquire ---- */

/* Undo an acquisition that has no token. `op` says why already; if the row cannot be deleted, the lease may still be
 * there. */
static void give_back(struct database *db, verrou_op *op, int64_t now_ms)
{
    verrou_error err = VERROU_ERROR_INIT;
    int64_t rows = 0;

    if (db->table->delete_lock(db->user, op->key, op->owner, now_ms, &rows, &err) != VERROU_OK)
        op->result = VERROU_OP_UNKNOWN;
}

/* The row is ours: draw its token, and make sure that it was drawn within the lease. */
static void grant(struct database *db, verrou_op *op, int64_t now_ms, int64_t deadline_ms)
{
    uint64_t token = 0;

    if (!token_draw(db, op, deadline_ms, &token)) {
        give_back(db, op, now_ms);
        return;
    }
    if (op->ttl_ms != VERROU_FOREVER && verrou_now_ms() - op->sent_ms >= op->ttl_ms) {
        verrou__host.op_fail(op, VERROU_OP_RETRY, 1, NULL, "the lease ran out before its token was drawn");
        give_back(db, op, now_ms);
        return;
    }
    op->fence = token;
    op->result = VERROU_OP_APPLIED;
}

static void held(verrou_op *op, const verrou_row *row, int64_t now_ms)
{
    verrou__host.holder(op, row->owner, strlen(row->owner), left(row, now_ms), 0);
}

/*
 * Somebody has the row. If it is who asks, then by an earlier request of this acquisition whose answer was lost (drawn owners are never
 * used twice), and its token is still to be drawn.
 */
static void refuse(struct database *db, verrou_op *op, const verrou_row *row, int64_t now_ms, int64_t deadline_ms)
{
    uint64_t token = 0;

    held(op, row, now_ms);
    op->result = VERROU_OP_REFUSED;
    if (!op->holder_is_owner || !verrou__owner_is_ours(op->owner, op->owner_len))
        return;
    if (!token_draw(db, op, deadline_ms, &token))
        return;
    if (op->remaining_ms != VERROU_FOREVER && verrou_now_ms() - op->sent_ms >= op->remaining_ms)
        verrou__host.op_fail(op, VERROU_OP_RETRY, 1, NULL, "the lease ran out before its token was drawn");
    op->fence = token;
}

/* Read the row. False if that failed: the request is answered then. */
static bool row_read(struct database *db, verrou_op *op, int *ret_found, verrou_row *ret_row)
{
    verrou_error err = VERROU_ERROR_INIT;
    verrou_status status;

    memset(ret_row, 0, sizeof *ret_row);
    *ret_found = 0;
    status = db->table->get_lock(db->user, op->key, ret_found, ret_row, &err);
    ret_row->owner[sizeof ret_row->owner - 1] = '\0';
    if (status != VERROU_OK)
        verrou__custom_failed(op, "get_lock", true, status, &err);
    return status == VERROU_OK;
}

/* Insert the row, or overwrite one that has run out. 1: ours, 0: somebody has it, -1: failed, the request is answered.
 */
static int row_take(struct database *db, verrou_op *op, int64_t now_ms)
{
    int64_t until_ms = expiration(now_ms, op->ttl_ms), rows = 0;
    verrou_error err = VERROU_ERROR_INIT;
    verrou_status status;

    status = db->table->insert_lock(db->user, op->key, op->owner, until_ms, 0, &err);
    if (status == VERROU_OK)
        return 1;
    if (status != VERROU_ENOTACQUIRED) {
        verrou__custom_failed(op, "insert_lock", false, status, &err);
        return -1;
    }

    err = (verrou_error)VERROU_ERROR_INIT;
    status = db->table->acquire_lock(db->user, op->key, op->owner, until_ms, 0, now_ms, &rows, &err);
    if (status == VERROU_OK)
        return rows > 0;
    verrou__custom_failed(op, "acquire_lock", false, status, &err);
    return -1;
}

static void acquire(struct database *db, verrou_op *op, int64_t deadline_ms)
{
    int found = 0;

    for (int round = 0; round < MAX_ROUNDS; round++) {
        verrou_row row;
        int64_t now_ms;
        int taken;

        if (!now_read(db, op, &now_ms))
            return;
        taken = row_take(db, op, now_ms);
        if (taken > 0)
            grant(db, op, now_ms, deadline_ms);
        if (taken != 0)
            return;

        if (!row_read(db, op, &found, &row))
            return;
        if (found && live(&row, now_ms)) {
            refuse(db, op, &row, now_ms, deadline_ms);
            return;
        }
        /* The holder has gone in between. */
    }
    verrou__host.op_fail(op, VERROU_OP_RETRY, 1, NULL, "%s, %d times over",
                         found ? "the row cannot be taken though it is free"
                               : "insert_lock says that there is a row, and get_lock that there is none",
                         MAX_ROUNDS);
}

/* ---- the others ---- */

static void rows_settle(verrou_op *op, const char *call, verrou_status status, int64_t rows, const verrou_error *err)
{
    if (status != VERROU_OK)
        verrou__custom_failed(op, call, false, status, err);
    else
        op->result = rows > 0 ? VERROU_OP_APPLIED : VERROU_OP_REFUSED;
}

static void release(struct database *db, verrou_op *op, int64_t now_ms)
{
    verrou_error err = VERROU_ERROR_INIT;
    int64_t rows = 0;
    verrou_status status = db->table->delete_lock(db->user, op->key, op->owner, now_ms, &rows, &err);

    rows_settle(op, "delete_lock", status, rows, &err);
}

static void extend(struct database *db, verrou_op *op, int64_t now_ms)
{
    verrou_error err = VERROU_ERROR_INIT;
    int64_t rows = 0, until_ms = expiration(now_ms, op->ttl_ms);
    verrou_status status = db->table->extend_lock(db->user, op->key, op->owner, until_ms, now_ms, &rows, &err);

    rows_settle(op, "extend_lock", status, rows, &err);
}

static void force(struct database *db, verrou_op *op, int64_t now_ms)
{
    verrou_error err = VERROU_ERROR_INIT;
    int64_t rows = 0;
    verrou_status status = db->table->delete_lock(db->user, op->key, NULL, now_ms, &rows, &err);

    rows_settle(op, "delete_lock", status, 1, &err); /* a key that was free is free as well */
}

static void inspect(struct database *db, verrou_op *op, int64_t now_ms)
{
    verrou_row row;
    int found;

    if (!row_read(db, op, &found, &row))
        return;
    op->result = VERROU_OP_REFUSED;
    if (found && live(&row, now_ms)) {
        held(op, &row, now_ms);
        op->result = VERROU_OP_APPLIED;
    }
}

static void answer(struct database *db, verrou_op *op, int64_t deadline_ms)
{
    int64_t now_ms;

    if (op->kind == VERROU_OP_ACQUIRE) {
        acquire(db, op, deadline_ms);
        return;
    }
    if (!now_read(db, op, &now_ms))
        return;
    if (op->kind == VERROU_OP_RELEASE)
        release(db, op, now_ms);
    else if (op->kind == VERROU_OP_EXTEND)
        extend(db, op, now_ms);
    else if (op->kind == VERROU_OP_FORCE)
        force(db, op, now_ms);
    else
        inspect(db, op, now_ms);
}

/*
 * A request failed, and not for a passing reason: that may be a table which somebody dropped. Nothing was changed, so the request may be
 * made once more. If the table cannot be made, the failure stays, and the next batch says why.
 */
static void answer_again(struct database *db, verrou_op *op, int64_t deadline_ms)
{
    verrou_error err = VERROU_ERROR_INIT;

    db->created = false;
    if (table_create(db, &err) != VERROU_OK)
        return;
    verrou__free(op->error);
    op->error = NULL;
    op->result = VERROU_OP_UNSENT;
    answer(db, op, deadline_ms);
}

static verrou_status database_execute(void *state, void *lane, verrou_op *const *ops, size_t n, int64_t deadline_ms,
                                      verrou_error *err)
{
    struct database *db = state;
    bool mended = !db->autocreate || !db->created; /* made in this batch: once is enough */

    (void)lane;
    if (!db->created && table_create(db, err) != VERROU_OK) {
        for (size_t at = 0; at < n; at++)
            verrou__host.op_fail(ops[at], err->retriable ? VERROU_OP_RETRY : VERROU_OP_FAILED, err->retriable,
                                 err->store_code, "%s", err->message);
        return VERROU_OK;
    }
    for (size_t at = 0; at < n; at++) {
        /* Past the deadline the rest stays unsent: better than blocking callers who have gone. */
        if (at > 0 && verrou_now_ms() >= deadline_ms)
            break;
        answer(db, ops[at], deadline_ms);
        if (ops[at]->result == VERROU_OP_FAILED && !mended) {
            answer_again(db, ops[at], deadline_ms);
            mended = true;
        }
    }
    return VERROU_OK;
}

/* ---- the driver's own list, check and schema ---- */

static verrou_status database_list(void *state, void *lane, const char *prefix, size_t prefix_len, int64_t deadline_ms,
                                   verrou_sink *sink, verrou_error *err)
{
    const struct database *db = state;

    (void)lane;
    return db->inner->list(db->user, db->user, prefix, prefix_len, deadline_ms, sink, err);
}

static verrou_status database_look(void *state, void *lane, int64_t deadline_ms, verrou_sink *sink, verrou_error *err)
{
    const struct database *db = state;

    (void)lane;
    return db->inner->check(db->user, db->user, deadline_ms, sink, err);
}

static verrou_status database_schema(void *state, void *lane, int apply, int64_t deadline_ms, verrou_sink *sink,
                                     verrou_error *err)
{
    const struct database *db = state;

    (void)lane;
    return db->inner->schema(db->user, db->user, apply, deadline_ms, sink, err);
}

static const char *const no_schemes[] = {NULL};
/* The names are those of `table_settings` in core/store.c, which speaks for drivers. */
static const char *const settings_known[] = {"table", "autocreate", NULL};

static const verrou_driver database_driver = {
    .version = VERROU_STORE_VERSION,
    .schemes = no_schemes,
    .settings = settings_known,
    .default_lanes = 1,
    .max_lanes = 1,
    .destroy = database_destroy,
    .caps = database_caps,
    .open = database_open,
    .close = database_close,
    .execute = database_execute,
};

/* ---- opening ---- */

verrou_status verrou__database_check(const verrou_database *table, verrou_error *err)
{
    const verrou__custom_call calls[] = {
        VERROU__CUSTOM_CALL(table, set_table_name), VERROU__CUSTOM_CALL(table, create_table_if_not_exists),
        VERROU__CUSTOM_CALL(table, insert_lock),    VERROU__CUSTOM_CALL(table, acquire_lock),
        VERROU__CUSTOM_CALL(table, delete_lock),    VERROU__CUSTOM_CALL(table, extend_lock),
        VERROU__CUSTOM_CALL(table, get_lock),
    };

    return verrou__custom_check("database", table->version, calls, sizeof calls / sizeof calls[0], err);
}

static verrou_status settings_read(struct database *db, const verrou_url *url, verrou_error *err)
{
    const char *table = verrou__url_setting(url, "table");
    const char *autocreate = verrou__url_setting(url, "autocreate");

    if (table && table[0] == '\0')
        return verrou__fail(err, VERROU_ECONFIG, "setting table: it is empty");
    if (autocreate && strcmp(autocreate, "true") != 0 && strcmp(autocreate, "false") != 0)
        return verrou__fail(err, VERROU_ECONFIG, "setting autocreate: \"%s\" is neither true nor false", autocreate);

    db->autocreate = !autocreate || strcmp(autocreate, "true") == 0;
    db->created = !db->autocreate;
    db->name = verrou__strdup(table ? table : "verrou");
    return db->name ? VERROU_OK : verrou__nomem(err);
}

/* A state without its `user`. */
static verrou_status database_new(const verrou_database *table, const verrou_url *url, struct database **ret_db,
                                  verrou_error *err)
{
    struct database *db = verrou__calloc(sizeof *db);
    verrou_status status;

    if (!db)
        return verrou__nomem(err);
    db->table = table;
    atomic_init(&db->clockless, table->now == NULL);
    atomic_init(&db->fenceless, table->next_fence == NULL);
    status = settings_read(db, url, err);
    if (status == VERROU_OK)
        *ret_db = db;
    else
        database_free(db);
    return status;
}

verrou_status verrou_store_from_database(const verrou_database *table, void *user, const char *settings,
                                         const verrou_store_options *options, verrou_store **ret_store,
                                         verrou_error *err)
{
    struct database *db = NULL;
    verrou_url *url = NULL;
    char *address = NULL;
    verrou_status status;

    if (!table || !ret_store)
        return verrou__fail(err, VERROU_EINVAL, "database: no table, or nowhere to put the store");
    status = verrou__database_check(table, err);
    if (status != VERROU_OK)
        return status;

    status = verrou__custom_address(settings, &address, err);
    if (status == VERROU_OK)
        status = verrou__url_parse(address, &url, err);
    if (status == VERROU_OK)
        status = database_new(table, url, &db, err);
    if (status != VERROU_OK)
        goto done;

    db->user = user;
    status = verrou__store_open_driver(&database_driver, address, options, db, ret_store, err);
    if (status == VERROU_OK)
        db = NULL; /* the store's now */
done:
    database_free(db);
    verrou__free(url);
    verrou__free(address);
    return status;
}

/* ---- drivers with the seven calls ---- */

void verrou__database_adapt(const verrou_driver *inner, verrou_driver *ret_adapted)
{
    *ret_adapted = database_driver;
    ret_adapted->schemes = inner->schemes;
    ret_adapted->settings = inner->settings;
    ret_adapted->flags = inner->flags & (VERROU_DRIVER_NETWORK | VERROU_DRIVER_CONNECTS);
    if (inner->list)
        ret_adapted->list = database_list;
    if (inner->check)
        ret_adapted->check = database_look;
    if (inner->schema)
        ret_adapted->schema = database_schema;
}

verrou_status verrou__database_create(const verrou_driver *inner, void *log_context, const verrou_url *url,
                                      void **ret_state, verrou_error *err)
{
    struct database *db = NULL;
    verrou_status status = database_new(inner->database, url, &db, err);

    if (status != VERROU_OK)
        return status;
    status = inner->create(&verrou__host, log_context, url, &db->user, err);
    if (status != VERROU_OK) {
        database_free(db);
        return status;
    }
    db->inner = inner;
    *ret_state = db;
    return VERROU_OK;
}
