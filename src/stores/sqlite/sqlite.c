/*
 * sqlite.c - the SQLite store: the driver table, and execute().
 *
 * The one idea: a batch is one BEGIN IMMEDIATE transaction. It excludes every other writer, whichever program that is, so
 * that what is read and decided inside is true until COMMIT; the wall clock is read inside it for the same reason. A batch that
 * changes nothing (refused acquires) writes nothing: waiters are woken by writes, and would wake each other for ever.
 *
 * A released row stays as a tombstone (owner '', expiration 0), so that its token is remembered.
 */
#include "sqlite_store.h"

#include <string.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>
#include <verrou/sqlite.h>

/* See waiting_ends(). */
#define ANSWER_MARGIN_MS 20

/* How often a batch is begun anew because the schema changed under it. */
#define MAX_RESTARTS 3

int64_t verrou__sqlite_wall_us(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_REALTIME, &ts);
    return (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

/* ---- state ---- */

static const struct {
    const char *value;
    const char *pragma;
} synchronous_values[] = {{"full", "FULL"}, {"normal", "NORMAL"}, {"extra", "EXTRA"}, {"off", "OFF"}};

static verrou_status settings_read(sqlite_state *state, const verrou_url *url, verrou_error *err)
{
    const verrou_host *host = state->host;
    const char *value = host->setting(url, "synchronous");
    verrou_status status = lock_table_settings_read(host, url, false, &state->settings, err);

    if (status != VERROU_OK)
        return status;
    if (strncasecmp(state->settings.table, "sqlite_", 7) == 0)
        return lock_table_refuse(host, url, "table", state->settings.table, "a name that does not begin with sqlite_",
                                 err);
    for (size_t i = 0; i < sizeof synchronous_values / sizeof synchronous_values[0]; i++) {
        if (strcmp(value ? value : "full", synchronous_values[i].value) == 0)
            state->synchronous = synchronous_values[i].pragma;
    }
    if (!state->synchronous)
        return lock_table_refuse(host, url, "synchronous", value, "full, normal, extra or off", err);
    return VERROU_OK;
}

/*
 * The path is made absolute: it then survives a chdir(), and cannot be taken for one of SQLite's special names or for a URI, even
 * if the application allows URIs for the whole process.
 */
static verrou_status path_read(sqlite_state *state, const char *rest, verrou_error *err)
{
    const verrou_host *host = state->host;
    char folder[PATH_MAX] = "";
    size_t folder_len;

    if (!*rest)
        return host->fail(err, VERROU_ECONFIG, 0, NULL, "sqlite: the address has no path: sqlite:PATH");
    if (strcmp(rest, ":memory:") == 0)
        return host->fail(err, VERROU_ECONFIG, 0, NULL,
                          "sqlite: a database in memory cannot be shared: use the store memory: instead");
    if (rest[strlen(rest) - 1] == '/')
        return host->fail(err, VERROU_ECONFIG, 0, NULL, "sqlite: %s is a folder, not a file", rest);
    if (*rest != '/' && !getcwd(folder, sizeof folder - 1))
        return host->fail(err, VERROU_ECONFIG, 0, NULL,
                          "sqlite: the path %s is relative, and the working folder cannot be told", rest);
    folder_len = strlen(folder);
    if (folder_len)
        folder[folder_len++] = '/';
    state->path = host->malloc(folder_len + strlen(rest) + 1);
    if (!state->path)
        return host->fail(err, VERROU_ENOMEM, 0, NULL, "out of memory");
    memcpy(state->path, folder, folder_len);
    strcpy(state->path + folder_len, rest);
    return VERROU_OK;
}

static void sqlite_destroy(void *context)
{
    sqlite_state *state = context;
    const verrou_host *host = state->host;

    verrou__sqlite_waiters_done(state);
    host->free(state->path);
    host->free(state);
}

static verrou_status sqlite_create(const verrou_host *host, void *log_context, const verrou_url *url, void **ret_state,
                                   verrou_error *err)
{
    sqlite_state *state = host->malloc(sizeof *state);
    verrou_status status;

    if (!state)
        return host->fail(err, VERROU_ENOMEM, 0, NULL, "out of memory");
    *state = (sqlite_state){.host = host, .log_context = log_context};
    /* All users of the file share this host, and so its clock. */
    atomic_init(&state->caps, VERROU_CAP_SERVER_CLOCK | VERROU_CAP_FENCE | VERROU_CAP_LIST | VERROU_CAP_SHARED);
#ifdef __linux__
    atomic_fetch_or(&state->caps, VERROU_CAP_PUSH);
#endif
    if (!verrou__sqlite_waiters_init(&state->waiters)) {
        host->free(state);
        return host->fail(err, VERROU_ENOMEM, 0, NULL, "out of memory");
    }
    status = settings_read(state, url, err);
    if (status == VERROU_OK)
        status = path_read(state, url->rest, err);
    if (status != VERROU_OK) {
        sqlite_destroy(state);
        return status;
    }
    *ret_state = state;
    return VERROU_OK;
}

static uint32_t sqlite_caps(void *context)
{
    sqlite_state *state = context;

    return atomic_load(&state->caps);
}

/* ---- lanes ---- */

static void sqlite_close_lane(void *context, void *lane_context)
{
    sqlite_state *state = context;

    verrou__sqlite_disconnect(lane_context);
    state->host->free(lane_context);
}

/*
 * With autocreate off, a missing file is left to the calls: `schema apply` may make it, the others say that it is missing. The table is
 * looked at here so that the capabilities are known soon; what is wrong with it is reported by the calls as well.
 */
static verrou_status sqlite_open_lane(void *context, int64_t deadline_ms, void **ret_lane, verrou_error *err)
{
    sqlite_state *state = context;
    sqlite_lane *lane = state->host->malloc(sizeof *lane);
    sqlite_fault fault;

    if (!lane)
        return state->host->fail(err, VERROU_ENOMEM, 1, NULL, "out of memory");
    *lane = (sqlite_lane){.state = state, .deadline_ms = deadline_ms};
    if (verrou__sqlite_connect(lane, state->settings.autocreate, &fault)) {
        sqlite_shape shape;
        sqlite_fault ignored;

        if (verrou__sqlite_shape(lane, &shape, &ignored) && (!shape.exists || shape.fenced))
            atomic_fetch_or(&state->caps, VERROU_CAP_FENCE_STORED);
    } else if (state->settings.autocreate || access(state->path, F_OK) == 0) {
        sqlite_close_lane(state, lane);
        return verrou__sqlite_fail(state, &fault, err);
    }
    *ret_lane = lane;
    return VERROU_OK;
}

/* ---- one request ---- */

/* The state of one transaction. */
typedef struct {
    int64_t now_us;
    int64_t now_ms;
    size_t first_write; /* index of the first request that changed something; n if none did */
    bool schema_changed;
} transaction;

static void bind_key(sqlite3_stmt *stmt, const verrou_op *op)
{
    /* TEXT, as the original binds it: a BLOB of the same bytes would be another key. */
    sqlite3_bind_text(stmt, 1, op->key, op->key_len, SQLITE_STATIC);
}

static void bind_owner(sqlite3_stmt *stmt, const verrou_op *op)
{
    sqlite3_bind_text(stmt, 2, op->owner, op->owner_len, SQLITE_STATIC);
}

static void bind_expiration(sqlite3_stmt *stmt, const verrou_op *op, const transaction *tx)
{
    if (op->ttl_ms == VERROU_FOREVER)
        sqlite3_bind_null(stmt, 5);
    else
        sqlite3_bind_int64(stmt, 5, tx->now_ms + op->ttl_ms);
}

/* Reset a statement after its last step, noting whether SQLite had to prepare it again because the schema changed. */
static void statement_end(sqlite3_stmt *stmt, transaction *tx)
{
    sqlite3_reset(stmt);
    if (sqlite3_stmt_status(stmt, SQLITE_STMTSTATUS_REPREPARE, 1) > 0)
        tx->schema_changed = true;
}

/* Read the row of a key: hands over its holder and returns *ret_live. */
static int row_read(sqlite_lane *lane, transaction *tx, verrou_op *op, bool *ret_found, bool *ret_live)
{
    sqlite3_stmt *stmt = lane->statements[STATEMENT_INSPECT];
    int rc;

    *ret_live = false;
    bind_key(stmt, op);
    sqlite3_bind_int64(stmt, 3, tx->now_ms);
    rc = sqlite3_step(stmt);
    *ret_found = rc == SQLITE_ROW;
    if (rc == SQLITE_ROW) {
        const char *owner = (const char *)sqlite3_column_text(stmt, 0);
        int64_t remaining_ms = VERROU_FOREVER;

        rc = SQLITE_DONE;
        *ret_live = sqlite3_column_int(stmt, 2);
        if (sqlite3_column_type(stmt, 1) != SQLITE_NULL)
            remaining_ms = sqlite3_column_int64(stmt, 1) - tx->now_ms;
        if (*ret_live && !owner)
            rc = SQLITE_NOMEM;
        else if (*ret_live)
            lane->state->host->holder(op, owner, (size_t)sqlite3_column_bytes(stmt, 0), remaining_ms,
                                      (uint64_t)sqlite3_column_int64(stmt, 3));
    }
    statement_end(stmt, tx);
    return rc == SQLITE_DONE ? SQLITE_OK : rc;
}

static int op_inspect(sqlite_lane *lane, transaction *tx, verrou_op *op)
{
    bool found, live;
    int rc = row_read(lane, tx, op, &found, &live);

    if (rc == SQLITE_OK)
        op->result = live ? VERROU_OP_APPLIED : VERROU_OP_REFUSED;
    return rc;
}

/* A token by the clock. Where none is stored that the next one could be compared with, that one will be larger all the same. */
static int64_t clock_token(sqlite_lane *lane, const transaction *tx)
{
    sqlite_state *state = lane->state;
    int64_t token = tx->now_us > state->floor ? tx->now_us : state->floor;

    if (!lane->shape.fenced)
        state->floor = token + 1;
    return token;
}

/* An acquire that took nothing: normally because of a live lease. */
static int acquire_refused(sqlite_lane *lane, transaction *tx, verrou_op *op)
{
    bool found, live;
    int rc = row_read(lane, tx, op, &found, &live);

    if (rc != SQLITE_OK)
        return rc;
    /* Our own lease, of an acquire whose answer was lost. */
    if (live && !lane->shape.fenced && op->holder_is_owner)
        op->fence = (uint64_t)clock_token(lane, tx);
    if (live)
        op->result = VERROU_OP_REFUSED;
    else
        lane->state->host->op_fail(op, VERROU_OP_FAILED, 0, NULL, "database %s: table \"%s\": %s", lane->state->path,
                                   lane->state->settings.table,
                                   found ? "the fencing token in the row is too large or no number"
                                         : "a trigger keeps the row from being stored");
    return SQLITE_OK;
}

static int op_acquire(sqlite_lane *lane, transaction *tx, verrou_op *op)
{
    sqlite3_stmt *stmt = lane->statements[STATEMENT_ACQUIRE];
    int64_t token = clock_token(lane, tx);
    int rc;

    bind_key(stmt, op);
    bind_owner(stmt, op);
    sqlite3_bind_int64(stmt, 3, tx->now_ms);
    sqlite3_bind_int64(stmt, 4, token);
    bind_expiration(stmt, op, tx);
    lane->token = token; /* of a new row; verrou_token() overwrites it if there is one */
    rc = sqlite3_step(stmt);
    statement_end(stmt, tx);
    if (rc != SQLITE_DONE)
        return rc;
    if (sqlite3_changes(lane->db) == 0)
        return acquire_refused(lane, tx, op);

    op->result = VERROU_OP_APPLIED;
    op->fence = (uint64_t)lane->token;
    return SQLITE_OK;
}

/* Release, extend, force: one statement whose number of changed rows is the answer. Rows that triggers change do not count. */
static int op_update(sqlite_lane *lane, transaction *tx, verrou_op *op)
{
    sqlite_statement which = op->kind == VERROU_OP_RELEASE  ? STATEMENT_RELEASE
                             : op->kind == VERROU_OP_EXTEND ? STATEMENT_EXTEND
                                                            : STATEMENT_FORCE;
    sqlite3_stmt *stmt = lane->statements[which];
    int rc;

    bind_key(stmt, op);
    if (which != STATEMENT_FORCE) {
        bind_owner(stmt, op);
        sqlite3_bind_int64(stmt, 3, tx->now_ms);
        sqlite3_bind_int64(stmt, 4, (int64_t)op->fence);
    }
    if (which == STATEMENT_EXTEND)
        bind_expiration(stmt, op, tx);
    rc = sqlite3_step(stmt);
    statement_end(stmt, tx);
    if (rc != SQLITE_DONE)
        return rc;
    op->result = op->kind == VERROU_OP_FORCE || sqlite3_changes(lane->db) > 0 ? VERROU_OP_APPLIED : VERROU_OP_REFUSED;
    if (op->result == VERROU_OP_APPLIED && which != STATEMENT_EXTEND)
        lane->releases++;
    return SQLITE_OK;
}

static int op_run(sqlite_lane *lane, transaction *tx, verrou_op *op)
{
    switch (op->kind) {
    case VERROU_OP_ACQUIRE:
        return op_acquire(lane, tx, op);
    case VERROU_OP_RELEASE:
    case VERROU_OP_EXTEND:
    case VERROU_OP_FORCE:
        return op_update(lane, tx, op);
    case VERROU_OP_INSPECT:
        return op_inspect(lane, tx, op);
    }
    lane->state->host->op_fail(op, VERROU_OP_FAILED, 0, NULL, "sqlite: unknown kind of request %d", (int)op->kind);
    return SQLITE_OK;
}

/* ---- answers that a failed transaction takes back ---- */

static void ops_reset(const sqlite_lane *lane, verrou_op *const *ops, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (lock_table_answered(ops[i]))
            lock_table_reset(lane->state->host, ops[i]);
    }
}

static void op_fault(const sqlite_lane *lane, verrou_op *op, const sqlite_fault *fault, verrou_op_result result)
{
    lane->state->host->op_fail(op, result, fault->retriable, fault->name, "%s", fault->text);
}

/*
 * The transaction is undone, or nobody knows (`unknown`). What was answered before the first change was read under the write lock and
 * stays true; any later answer may rest on a change that did not happen.
 */
static void ops_undo(const sqlite_lane *lane, verrou_op *const *ops, size_t n, size_t first_write, bool unknown,
                     const sqlite_fault *fault)
{
    const verrou_host *host = lane->state->host;

    for (size_t i = 0; i < n; i++) {
        if (lock_table_answered(ops[i]) && i < first_write)
            continue;
        if (!lock_table_answered(ops[i]) && ops[i]->result != VERROU_OP_UNSENT)
            continue;
        if (unknown) {
            op_fault(lane, ops[i], fault, lock_table_unconfirmed(host, ops[i]));
            continue;
        }
        lock_table_reset(host, ops[i]);
        op_fault(lane, ops[i], fault, fault->result);
    }
}

/* ---- the transaction ---- */

typedef enum {
    BATCH_DONE,    /* answered */
    BATCH_AGAIN,   /* rolled back; to be run again for what is unsent */
    BATCH_STALE,   /* the same, after reading the table's shape anew */
    BATCH_MOVED,   /* rolled back: the file is not the one under the path any more */
    BATCH_FAILED,  /* undone: `fault` goes to all that is unsent */
    BATCH_UNKNOWN, /* the commit failed and may have reached the disk */
} batch_end;

/* Errors that concern one statement: SQLite has undone just that, and the transaction goes on. */
static bool concerns_one(int rc)
{
    switch (rc & 0xff) {
    case SQLITE_ERROR:
    case SQLITE_CONSTRAINT:
    case SQLITE_TOOBIG:
    case SQLITE_MISMATCH:
    case SQLITE_AUTH:
        return true;
    default:
        return false;
    }
}

static batch_end ops_run(sqlite_lane *lane, transaction *tx, verrou_op *const *ops, size_t n, bool last_try,
                         sqlite_fault *fault)
{
    for (size_t i = 0; i < n; i++) {
        int rc;

        if (ops[i]->result != VERROU_OP_UNSENT)
            continue;
        rc = op_run(lane, tx, ops[i]);
        if (!last_try && (tx->schema_changed || (rc & 0xff) == SQLITE_ERROR || (rc & 0xff) == SQLITE_SCHEMA))
            return BATCH_STALE;
        if (rc != SQLITE_OK) {
            verrou__sqlite_explain(lane, lane->db, rc, fault);
            if (!concerns_one(rc))
                return BATCH_FAILED;
            op_fault(lane, ops[i], fault, VERROU_OP_FAILED);
            /* A trigger with RAISE(ROLLBACK) has taken the neighbours along: they get another transaction without this one. */
            if (sqlite3_get_autocommit(lane->db))
                return BATCH_AGAIN;
            continue;
        }
        if (tx->first_write == n && lock_table_wrote(ops[i]))
            tx->first_write = i;
    }
    return BATCH_DONE;
}

/* One step of pruning; see LOCK_TABLE_PRUNE_ROWS. Only a failure that ends the transaction is one. */
static int prune(sqlite_lane *lane, const transaction *tx)
{
    sqlite3_stmt *end = lane->statements[STATEMENT_PRUNE_END];
    sqlite3_stmt *delete = lane->statements[STATEMENT_PRUNE];
    int64_t limit = tx->now_us - LOCK_TABLE_PRUNE_AGE_US;
    char last[VERROU_MAX_KEY + 1];
    int last_len = 0;
    int rc;

    sqlite3_bind_text(end, 1, lane->cursor, (int)lane->cursor_len, SQLITE_STATIC);
    sqlite3_bind_int(end, 2, LOCK_TABLE_PRUNE_ROWS - 1);
    rc = sqlite3_step(end);
    if (rc == SQLITE_ROW) {
        const void *key = sqlite3_column_text(end, 0);

        last_len = sqlite3_column_bytes(end, 0);
        if (!key || last_len > VERROU_MAX_KEY)
            last_len = 0; /* too long to be a key of ours: prune to the end, then start over */
        else
            memcpy(last, key, (size_t)last_len);
    }
    sqlite3_reset(end);
    if (rc != SQLITE_ROW && rc != SQLITE_DONE)
        return rc;

    sqlite3_bind_text(delete, 1, lane->cursor, (int)lane->cursor_len, SQLITE_STATIC);
    if (last_len)
        sqlite3_bind_text(delete, 2, last, last_len, SQLITE_STATIC);
    else
        sqlite3_bind_zeroblob(delete, 2, 0); /* sorts behind every text */
    sqlite3_bind_int64(delete, 3, limit);
    rc = sqlite3_step(delete);
    sqlite3_reset(delete);
    if (rc != SQLITE_DONE)
        return rc;
    if (lane->state->floor < limit)
        lane->state->floor = limit; /* should the clock be set back after this */
    memcpy(lane->cursor, last, (size_t)last_len);
    lane->cursor_len = (size_t)last_len;
    return SQLITE_OK;
}

/*
 * Whether a failed COMMIT surely left nothing behind. With the log, a commit is its last frame, written in one piece, then synced, then
 * entered in the index. If writing failed there is no such frame. If anything failed after that, the frame may be complete,
 * and comes to life should all programs die before it is overwritten. A device without "powersafe overwrite" gets filler frames behind
 * it, so there even a failed write may come after it.
 */
static bool commit_undone(sqlite_lane *lane, int rc)
{
    int powersafe = -1;

    switch (rc) {
    case SQLITE_FULL:
    case SQLITE_IOERR_WRITE:
        if (!lane->wal)
            return true;
        return sqlite3_file_control(lane->db, "main", SQLITE_FCNTL_POWERSAFE_OVERWRITE, &powersafe) == SQLITE_OK &&
               powersafe == 1;
    default:
        return (rc & 0xff) == SQLITE_BUSY || (rc & 0xff) == SQLITE_CONSTRAINT;
    }
}

static batch_end transaction_end(sqlite_lane *lane, const transaction *tx, size_t n, sqlite_fault *fault)
{
    int rc = SQLITE_OK;

    if (lane->shape.fenced && tx->first_write < n && lane->releases >= LOCK_TABLE_PRUNE_RELEASES) {
        lane->releases = 0;
        rc = prune(lane, tx);
        if (rc != SQLITE_OK && (!concerns_one(rc) || sqlite3_get_autocommit(lane->db))) {
            verrou__sqlite_explain(lane, lane->db, rc, fault);
            return BATCH_FAILED;
        }
    }
    /* Without changes this writes nothing. */
    rc = verrou__sqlite_step(lane, STATEMENT_COMMIT);
    if (rc == SQLITE_OK)
        return BATCH_DONE;
    verrou__sqlite_explain(lane, lane->db, rc, fault);
    if (tx->first_write == n)
        return BATCH_DONE; /* all answers were read; the failure shows in the next transaction */
    if (commit_undone(lane, rc))
        return BATCH_FAILED;
    fault->broken = true;
    return BATCH_UNKNOWN;
}

static bool read_only(verrou_op *const *ops, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (ops[i]->kind != VERROU_OP_INSPECT)
            return false;
    }
    return true;
}

/* BEGIN alone takes no lock for reading, so that the first read may find the file locked: it is begun again while there is time. */
static bool reading_was_busy(sqlite_lane *lane, verrou_op *const *ops, size_t n, const sqlite_fault *fault)
{
    return read_only(ops, n) && (fault->code & 0xff) == SQLITE_BUSY && verrou__sqlite_pause(lane);
}

static batch_end batch_run(sqlite_lane *lane, verrou_op *const *ops, size_t n, bool last_try, sqlite_fault *fault)
{
    transaction tx = {.first_write = n};
    batch_end end = BATCH_FAILED;
    int rc = verrou__sqlite_step(lane, read_only(ops, n) ? STATEMENT_BEGIN_READ : STATEMENT_BEGIN);

    /* Asked inside the transaction, since the wait for it may have been long; and first of all, as it explains other failures. */
    if (verrou__sqlite_moved(lane)) {
        verrou__sqlite_fault_moved(lane, fault);
        lane->state->host->log(lane->state->log_context, VERROU_WARN, "store.replaced", NULL, "%s", fault->text);
        end = BATCH_MOVED;
    } else if (rc != SQLITE_OK) {
        verrou__sqlite_explain(lane, lane->db, rc, fault);
    } else {
        tx.now_us = verrou__sqlite_wall_us();
        tx.now_ms = tx.now_us / 1000;
        end = ops_run(lane, &tx, ops, n, last_try, fault);
        if (end == BATCH_DONE)
            end = transaction_end(lane, &tx, n, fault);
    }

    if (end == BATCH_DONE && sqlite3_get_autocommit(lane->db))
        return end;
    verrou__sqlite_rollback(lane);
    if (end == BATCH_FAILED && reading_was_busy(lane, ops, n, fault))
        end = BATCH_AGAIN;
    if (end == BATCH_AGAIN || end == BATCH_STALE)
        ops_reset(lane, ops, n);
    else if (end == BATCH_FAILED || end == BATCH_UNKNOWN)
        ops_undo(lane, ops, n, tx.first_write, end == BATCH_UNKNOWN, fault);
    return end;
}

/* ---- execute ---- */

static void others_ask(sqlite_lane *lane, verrou_op *const *ops, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        verrou_op *op = ops[i];

        if (op->result == VERROU_OP_APPLIED && (op->kind == VERROU_OP_RELEASE || op->kind == VERROU_OP_FORCE))
            op->others = verrou__sqlite_waiters_ask(lane->state, op->key, op->key_len);
    }
}

/* Give every request that has no answer yet the same one. */
static void ops_fail(const sqlite_lane *lane, verrou_op *const *ops, size_t n, const sqlite_fault *fault)
{
    for (size_t i = 0; i < n; i++) {
        if (ops[i]->result == VERROU_OP_UNSENT)
            op_fault(lane, ops[i], fault, fault->result);
    }
}

/*
 * Until when to wait for the database's lock: a little less than the time that the most impatient caller has. Then it hears that the database
 * is locked and that nothing was changed, where the engine would have to say that the outcome is unknown. The others are tried again.
 */
static int64_t waiting_ends(verrou_op *const *ops, size_t n, int64_t deadline_ms)
{
    for (size_t i = 0; i < n; i++) {
        if (ops[i]->deadline_ms > 0 && ops[i]->deadline_ms < deadline_ms)
            deadline_ms = ops[i]->deadline_ms;
    }
    return deadline_ms == VERROU_FOREVER ? VERROU_FOREVER : deadline_ms - ANSWER_MARGIN_MS;
}

static verrou_status sqlite_execute(void *context, void *lane_context, verrou_op *const *ops, size_t n,
                                    int64_t deadline_ms, verrou_error *err)
{
    sqlite_state *state = context;
    sqlite_lane *lane = lane_context;
    sqlite_fault fault = {.code = 0};
    batch_end end = BATCH_DONE;
    size_t again = 0;

    lane->deadline_ms = waiting_ends(ops, n, deadline_ms);
    lane->busy_tries = 0;
    for (;;) {
        if (!lane->ready && !verrou__sqlite_ready(lane, &fault)) {
            ops_fail(lane, ops, n, &fault);
            break;
        }
        end = batch_run(lane, ops, n, again >= MAX_RESTARTS, &fault);
        if (end == BATCH_AGAIN)
            continue; /* with at least one request fewer, or after a pause */
        if (end == BATCH_STALE) {
            verrou__sqlite_forget(lane);
            again++;
            continue;
        }
        break;
    }
    others_ask(lane, ops, n);
    return fault.broken ? verrou__sqlite_fail(state, &fault, err) : VERROU_OK;
}

/* ---- the table ---- */

const verrou_driver *verrou_sqlite_driver(void)
{
    static const char *const schemes[] = {"sqlite", NULL};
    static const char *const settings[] = {"table", "synchronous", "autocreate", NULL};
    static const verrou_driver driver = {
        .version = VERROU_STORE_VERSION,
        .schemes = schemes,
        .settings = settings,
        .flags = VERROU_DRIVER_COMPARES,
        .default_lanes = 1,
        .max_lanes = 1,
        .create = sqlite_create,
        .destroy = sqlite_destroy,
        .caps = sqlite_caps,
        .open = sqlite_open_lane,
        .close = sqlite_close_lane,
        .execute = sqlite_execute,
        .list = verrou__sqlite_list,
        .check = verrou__sqlite_check,
        .schema = verrou__sqlite_schema,
#ifdef __linux__
        .watch_open = verrou__sqlite_watch_open,
        .watch_close = verrou__sqlite_watch_close,
        .watch_fd = verrou__sqlite_watch_fd,
        .watch_add = verrou__sqlite_watch_add,
        .watch_remove = verrou__sqlite_watch_remove,
        .watch_read = verrou__sqlite_watch_read,
#endif
    };

    return &driver;
}
