/*
 * database.c - a store made of seven calls over a table. A key is taken by inserting its row, or by overwriting a row
 * that has run out; it is given back by deleting the row.
 *
 * The fencing token is drawn after the row was taken. One drawn before would be smaller than the token of somebody who
 * drew later, took the row earlier and gave it back meanwhile. Drawn by the holder, tokens come in the order of the
 * leases, as long as the lease is still live when the token is there; grant() makes sure of it. Rows are therefore
 * written with fence 0, and the holder's token cannot be told to others.
 */
#include "stores/custom/custom.h"
#include <stdatomic.h>
#include <string.h>
#include <time.h>

/* Rounds of insert, take over, look: each further one needs somebody else to have changed the row in between. */
#define MAX_ROUNDS 4

struct database {
    const verrou_database *table;
    void *user;
    char *name;
    bool named;   /* set_table_name() has been called */
    bool created; /* create_table_if_not_exists() has succeeded, or is not wanted */
};

/* The last token that this process drew from the clock, for all stores: two of them may be the same table. */
static _Atomic uint64_t last_token;

static uint32_t database_caps(void *state)
{
    const struct database *db = state;

    return VERROU_CAP_FENCE | (db->table->next_fence ? VERROU_CAP_FENCE_STORED : 0) |
           (db->table->now ? VERROU_CAP_SERVER_CLOCK : 0);
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

/* The table is prepared where a connection would be made: a failure is told to the requests that wait, and the next
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
    if (!db->created) {
        status = db->table->create_table_if_not_exists(db->user, err);
        if (status != VERROU_OK)
            return prepare_failed("create_table_if_not_exists", status, err);
        db->created = true;
    }
    *ret_lane = db;
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
    database_free(db);
}

/* ---- times and tokens ---- */

/* The time to compare with. False if it could not be had: the request is answered then. */
static bool now_read(struct database *db, verrou_op *op, int64_t *ret_now_ms)
{
    verrou_error err = VERROU_ERROR_INIT;
    verrou_status status;

    if (!db->table->now) {
        *ret_now_ms = verrou__wall_ms();
        return true;
    }
    status = db->table->now(db->user, ret_now_ms, &err);
    if (status != VERROU_OK)
        verrou__custom_failed(op, "now", true, status, &err);
    return status == VERROU_OK;
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

/* Epoch microseconds, or a thousand times the milliseconds of the store; larger than all that this process has drawn.
 */
static bool token_from_clock(struct database *db, verrou_op *op, uint64_t *ret_token)
{
    uint64_t last = atomic_load(&last_token), token, clock_us;
    struct timespec wall;
    int64_t now_ms = 0;

    if (db->table->now) {
        if (!now_read(db, op, &now_ms))
            return false;
        clock_us = now_ms > 0 ? (uint64_t)now_ms * 1000 : 0;
    } else {
        clock_gettime(CLOCK_REALTIME, &wall);
        clock_us = (uint64_t)wall.tv_sec * 1000000 + (uint64_t)wall.tv_nsec / 1000;
    }
    do
        token = clock_us > last ? clock_us : last + 1;
    while (!atomic_compare_exchange_weak(&last_token, &last, token));
    *ret_token = token;
    return true;
}

static bool token_draw(struct database *db, verrou_op *op, uint64_t *ret_token)
{
    verrou_error err = VERROU_ERROR_INIT;
    verrou_status status;

    if (!db->table->next_fence)
        return token_from_clock(db, op, ret_token);

    status = db->table->next_fence(db->user, op->key, ret_token, &err);
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
static void grant(struct database *db, verrou_op *op, int64_t now_ms)
{
    uint64_t token = 0;

    if (!token_draw(db, op, &token)) {
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
static void refuse(struct database *db, verrou_op *op, const verrou_row *row, int64_t now_ms)
{
    uint64_t token = 0;

    held(op, row, now_ms);
    op->result = VERROU_OP_REFUSED;
    if (!op->holder_is_owner || !verrou__owner_is_ours(op->owner, op->owner_len))
        return;
    if (!token_draw(db, op, &token))
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

static void acquire(struct database *db, verrou_op *op)
{
    for (int round = 0; round < MAX_ROUNDS; round++) {
        verrou_row row;
        int64_t now_ms;
        int taken, found;

        if (!now_read(db, op, &now_ms))
            return;
        taken = row_take(db, op, now_ms);
        if (taken > 0)
            grant(db, op, now_ms);
        if (taken != 0)
            return;

        if (!row_read(db, op, &found, &row))
            return;
        if (found && live(&row, now_ms)) {
            refuse(db, op, &row, now_ms);
            return;
        }
        /* The holder has gone in between. */
    }
    verrou__host.op_fail(op, VERROU_OP_RETRY, 1, NULL, "the row cannot be taken though it is free, %d times over",
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

static void answer(struct database *db, verrou_op *op)
{
    int64_t now_ms;

    if (op->kind == VERROU_OP_ACQUIRE) {
        acquire(db, op);
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

static verrou_status database_execute(void *state, void *lane, verrou_op *const *ops, size_t n, int64_t deadline_ms,
                                      verrou_error *err)
{
    (void)lane;
    (void)err;
    for (size_t at = 0; at < n; at++) {
        /* Past the deadline the rest stays unsent: better than blocking callers who have gone. */
        if (at > 0 && verrou_now_ms() >= deadline_ms)
            break;
        answer(state, ops[at]);
    }
    return VERROU_OK;
}

static const char *const no_schemes[] = {NULL};
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

static verrou_status settings_read(struct database *db, const char *address, verrou_error *err)
{
    const char *table, *autocreate;
    verrou_url *url = NULL;
    verrou_status status = verrou__url_parse(address, &url, err);

    if (status != VERROU_OK)
        goto done;

    table = verrou__url_setting(url, "table");
    autocreate = verrou__url_setting(url, "autocreate");
    if (table && table[0] == '\0') {
        status = verrou__fail(err, VERROU_ECONFIG, "setting table: it is empty");
        goto done;
    }
    if (autocreate && strcmp(autocreate, "true") != 0 && strcmp(autocreate, "false") != 0) {
        status = verrou__fail(err, VERROU_ECONFIG, "setting autocreate: \"%s\" is neither true nor false", autocreate);
        goto done;
    }

    db->created = autocreate && strcmp(autocreate, "false") == 0;
    db->name = verrou__strdup(table ? table : "verrou");
    if (!db->name)
        status = verrou__nomem(err);
done:
    verrou__free(url);
    return status;
}

verrou_status verrou_store_from_database(const verrou_database *table, void *user, const char *settings,
                                         const verrou_store_options *options, verrou_store **ret_store,
                                         verrou_error *err)
{
    struct database *db = NULL;
    char *url = NULL;
    verrou_status status;

    if (!table || !ret_store)
        return verrou__fail(err, VERROU_EINVAL, "database: no table, or nowhere to put the store");
    const verrou__custom_call calls[] = {
        VERROU__CUSTOM_CALL(table, set_table_name), VERROU__CUSTOM_CALL(table, create_table_if_not_exists),
        VERROU__CUSTOM_CALL(table, insert_lock),    VERROU__CUSTOM_CALL(table, acquire_lock),
        VERROU__CUSTOM_CALL(table, delete_lock),    VERROU__CUSTOM_CALL(table, extend_lock),
        VERROU__CUSTOM_CALL(table, get_lock),
    };
    status = verrou__custom_check("database", table->version, calls, sizeof calls / sizeof calls[0], err);
    if (status != VERROU_OK)
        return status;

    status = verrou__custom_address(settings, &url, err);
    if (status != VERROU_OK)
        goto done;

    db = verrou__calloc(sizeof *db);
    if (!db) {
        status = verrou__nomem(err);
        goto done;
    }
    db->table = table;
    db->user = user;
    status = settings_read(db, url, err);
    if (status != VERROU_OK)
        goto done;

    status = verrou__store_open_driver(&database_driver, url, options, db, ret_store, err);
    if (status == VERROU_OK)
        db = NULL; /* the store's now */
done:
    database_free(db);
    verrou__free(url);
    return status;
}
