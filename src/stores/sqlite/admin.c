/*
 * admin.c - list, check (doctor) and schema. None of it is on the path of a lock.
 */
#include "sqlite_store.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#ifdef __linux__
#include <sys/vfs.h>
#endif

/* ---- list ---- */

/* How many rows are read between two looks at the clock. */
#define ROWS_PER_LOOK 1024

static verrou_status fail_code(const sqlite_lane *lane, int rc, verrou_error *err)
{
    sqlite_fault fault;

    verrou__sqlite_explain(lane, lane->db, rc, &fault);
    return verrou__sqlite_fail(lane->state, &fault, err);
}

static verrou_status fail_nomem(const sqlite_state *state, verrou_error *err)
{
    return state->host->fail(err, VERROU_ENOMEM, 1, NULL, "out of memory");
}

/* Keys with one prefix lie together in byte order, so that the first one without it is the end. */
static int list_prepare(sqlite_lane *lane, sqlite3_stmt **ret_stmt)
{
    char *sql = sqlite3_mprintf("SELECT key, owner, expiration, %s FROM main.\"%w\""
                                " WHERE key >= ?1 COLLATE BINARY AND (expiration IS NULL OR expiration > ?2)"
                                " ORDER BY key COLLATE BINARY",
                                lane->shape.fenced ? "fence" : "0", lane->state->settings.table);
    int rc = sql ? sqlite3_prepare_v2(lane->db, sql, -1, ret_stmt, NULL) : SQLITE_NOMEM;

    sqlite3_free(sql);
    return rc;
}

static int list_row(sqlite_lane *lane, sqlite3_stmt *stmt, const char *prefix, size_t prefix_len, int64_t now_ms,
                    verrou_sink *sink)
{
    const char *key = (const char *)sqlite3_column_text(stmt, 0);
    size_t key_len = (size_t)sqlite3_column_bytes(stmt, 0);
    const char *owner = (const char *)sqlite3_column_text(stmt, 1);
    size_t owner_len = (size_t)sqlite3_column_bytes(stmt, 1);
    int64_t remaining_ms = VERROU_FOREVER;

    if (!key || !owner)
        return SQLITE_NOMEM;
    if (key_len < prefix_len || memcmp(key, prefix, prefix_len) != 0)
        return SQLITE_DONE;
    if (sqlite3_column_type(stmt, 2) != SQLITE_NULL)
        remaining_ms = sqlite3_column_int64(stmt, 2) - now_ms;
    if (lane->state->host->list_add(sink, key, key_len, owner, owner_len, remaining_ms,
                                    (uint64_t)sqlite3_column_int64(stmt, 3)) != 0)
        return SQLITE_NOMEM;
    return SQLITE_OK;
}

verrou_status verrou__sqlite_list(void *context, void *lane_context, const char *prefix, size_t prefix_len,
                                  int64_t deadline_ms, verrou_sink *sink, verrou_error *err)
{
    sqlite_state *state = context;
    sqlite_lane *lane = lane_context;
    int64_t now_ms = verrou__sqlite_wall_us() / 1000;
    sqlite3_stmt *stmt = NULL;
    sqlite_fault fault;
    verrou_status status = VERROU_OK;
    size_t rows = 0;
    int rc;

    lane->deadline_ms = deadline_ms;
    if (!verrou__sqlite_ready(lane, &fault))
        return verrou__sqlite_fail(state, &fault, err);
    if (verrou__sqlite_moved(lane)) {
        verrou__sqlite_fault_moved(lane, &fault);
        return verrou__sqlite_fail(state, &fault, err);
    }

    rc = list_prepare(lane, &stmt);
    if (rc == SQLITE_OK)
        rc = sqlite3_bind_text(stmt, 1, prefix ? prefix : "", (int)prefix_len, SQLITE_STATIC);
    if (rc == SQLITE_OK)
        rc = sqlite3_bind_int64(stmt, 2, now_ms);
    while (rc == SQLITE_OK) {
        rc = sqlite3_step(stmt);
        if (rc == SQLITE_ROW)
            rc = list_row(lane, stmt, prefix ? prefix : "", prefix_len, now_ms, sink);
        if (++rows % ROWS_PER_LOOK == 0 && state->host->now_ms() >= deadline_ms) {
            status = state->host->fail(err, VERROU_ESTORAGE, 1, NULL,
                                       "database %s: the table could not be listed within the time limit", state->path);
            break;
        }
    }
    if (status == VERROU_OK && rc != SQLITE_DONE)
        status = rc == SQLITE_NOMEM ? fail_nomem(state, err) : fail_code(lane, rc, err);
    sqlite3_finalize(stmt);
    return status;
}

/* ---- check ---- */

/* One value of a query as text, "" if there is none. */
static int ask(sqlite_lane *lane, const char *sql, char *out, size_t size)
{
    sqlite3_stmt *stmt = NULL;
    int rc = sqlite3_prepare_v2(lane->db, sql, -1, &stmt, NULL);

    *out = '\0';
    if (rc == SQLITE_OK)
        rc = sqlite3_step(stmt);
    if (rc == SQLITE_ROW) {
        const char *text = (const char *)sqlite3_column_text(stmt, 0);

        snprintf(out, size, "%s", text ? text : "");
    }
    sqlite3_finalize(stmt);
    return rc == SQLITE_ROW || rc == SQLITE_DONE ? SQLITE_OK : rc;
}

#ifdef __linux__
/* Filesystems on which file locks or shared memory are known not to work between all users of a file. */
static const char *doubtful_filesystem(const char *path)
{
    static const struct {
        uint32_t magic;
        const char *name;
    } doubtful[] = {
        {0x6969, "NFS"},
        {0xff534d42, "SMB"},
        {0xfe534d42, "SMB2"},
        {0x517b, "SMB"},
        {0x01021997, "9p"},
        {0x65735546, "FUSE"},
        {0x794c7630, "overlay"},
        {0x5346414f, "AFS"},
        {0x00c36400, "Ceph"},
        {0x01161970, "GFS2"},
        {0x786f4256, "VirtualBox shared folder"},
    };
    struct statfs fs;

    if (statfs(path, &fs) != 0)
        return NULL;
    for (size_t i = 0; i < sizeof doubtful / sizeof doubtful[0]; i++) {
        if ((uint32_t)fs.f_type == doubtful[i].magic)
            return doubtful[i].name;
    }
    return NULL;
}
#else
static const char *doubtful_filesystem(const char *path)
{
    (void)path;
    return NULL;
}
#endif

static int check_connection(sqlite_lane *lane, verrou_sink *sink)
{
    static const char *const levels[] = {"off", "normal", "full", "extra"};
    const verrou_host *host = lane->state->host;
    const char *filesystem = doubtful_filesystem(lane->state->path);
    char value[32];
    unsigned level = 0;
    int bad = 0;
    int rc = ask(lane, "PRAGMA main.synchronous", value, sizeof value);

    if (rc != SQLITE_OK)
        return rc;
    if (sscanf(value, "%u", &level) != 1 || level > 3)
        level = 0;
    bad |= host->finding(sink, VERROU_INFO, "sqlite", "version %s", sqlite3_libversion());
    bad |= host->finding(sink, VERROU_INFO, "path", "%s", lane->state->path);
    if (lane->wal)
        bad |= host->finding(sink, VERROU_INFO, "journal", "write-ahead log");
    else
        bad |= host->finding(sink, VERROU_WARN, "journal",
                             "the write-ahead log could not be switched on: slower, and readers delay writers");
    bad |= host->finding(sink, level >= 2 ? VERROU_INFO : VERROU_WARN, "synchronous", "%s%s", levels[level],
                         level >= 2 ? "" : ": after a loss of power the last locks may be forgotten");
    if (filesystem)
        bad |= host->finding(sink, VERROU_WARN, "filesystem",
                             "%s: file locks are not reliable there; use the database from one host only, or "
                             "put it on a local disk",
                             filesystem);
    else
        bad |= host->finding(sink, VERROU_INFO, "filesystem", "local");
    return bad ? SQLITE_NOMEM : SQLITE_OK;
}

static int check_counts(sqlite_lane *lane, verrou_sink *sink)
{
    const sqlite_state *state = lane->state;
    const verrou_host *host = state->host;
    char *sql = sqlite3_mprintf("SELECT count(*), coalesce(sum(owner = '' AND expiration = 0), 0), coalesce(max(%s), 0)"
                                " FROM main.\"%w\"",
                                lane->shape.fenced ? "fence" : "0", state->settings.table);
    sqlite3_stmt *stmt = NULL;
    int64_t rows = 0, tombstones = 0, newest_us = 0, ahead_us;
    int rc = sql ? sqlite3_prepare_v2(lane->db, sql, -1, &stmt, NULL) : SQLITE_NOMEM;
    int bad;

    sqlite3_free(sql);
    if (rc == SQLITE_OK)
        rc = sqlite3_step(stmt);
    if (rc == SQLITE_ROW) {
        rows = sqlite3_column_int64(stmt, 0);
        tombstones = sqlite3_column_int64(stmt, 1);
        newest_us = sqlite3_column_int64(stmt, 2);
    }
    sqlite3_finalize(stmt);
    if (rc != SQLITE_ROW)
        return rc;

    bad = host->finding(sink, VERROU_INFO, "rows", "%" PRId64 ", of which %" PRId64 " released (kept for their tokens)",
                        rows, tombstones);
    ahead_us = newest_us - verrou__sqlite_wall_us();
    if (ahead_us > 0)
        bad |= host->finding(sink, VERROU_WARN, "clock",
                             "the newest fencing token is %" PRId64 " ms ahead of the clock: the clock was set back",
                             ahead_us / 1000);
    else
        bad |= host->finding(sink, VERROU_INFO, "clock", "not behind the newest fencing token");
    return bad ? SQLITE_NOMEM : SQLITE_OK;
}

static int check_table(sqlite_lane *lane, verrou_sink *sink)
{
    const sqlite_state *state = lane->state;
    const verrou_host *host = state->host;
    sqlite_shape shape;
    sqlite_fault fault;
    int bad;

    if (!verrou__sqlite_shape(lane, &shape, &fault)) {
        if (fault.code)
            return fault.code;
        return host->finding(sink, VERROU_ERROR_LEVEL, "table", "%s", fault.text) ? SQLITE_NOMEM : SQLITE_OK;
    }
    if (!shape.exists) {
        bad = host->finding(sink, state->settings.autocreate ? VERROU_INFO : VERROU_ERROR_LEVEL, "table",
                            "\"%s\" does not exist%s", state->settings.table,
                            state->settings.autocreate ? " yet: the first lock makes it" : ", and autocreate is off");
        return bad ? SQLITE_NOMEM : SQLITE_OK;
    }
    lane->shape = shape;
    bad = host->finding(sink, shape.fenced ? VERROU_INFO : VERROU_WARN, "table", "\"%s\"%s", state->settings.table,
                        shape.fenced ? ""
                                     : " has no column \"fence\": fencing tokens come from the clock alone; "
                                       "`schema apply` adds it");
    if (shape.folded)
        bad |= host->finding(sink, VERROU_WARN, "collation",
                             "keys are compared with %s: different keys may exclude each other", shape.collation);
    else
        bad |= host->finding(sink, VERROU_INFO, "collation", "keys are compared byte by byte");
    return bad ? SQLITE_NOMEM : check_counts(lane, sink);
}

static int check_integrity(sqlite_lane *lane, verrou_sink *sink)
{
    const verrou_host *host = lane->state->host;
    char answer[200];
    int rc = ask(lane, "PRAGMA main.quick_check(1)", answer, sizeof answer);
    bool good = strcasecmp(answer, "ok") == 0;

    if (rc != SQLITE_OK)
        return rc;
    return host->finding(sink, good ? VERROU_INFO : VERROU_ERROR_LEVEL, "integrity", "%s", answer) ? SQLITE_NOMEM
                                                                                                   : SQLITE_OK;
}

verrou_status verrou__sqlite_check(void *context, void *lane_context, int64_t deadline_ms, verrou_sink *sink,
                                   verrou_error *err)
{
    sqlite_state *state = context;
    sqlite_lane *lane = lane_context;
    sqlite_fault fault;
    int rc;

    lane->deadline_ms = deadline_ms;
    if (!verrou__sqlite_connect(lane, state->settings.autocreate, &fault))
        return verrou__sqlite_fail(state, &fault, err);
    rc = check_connection(lane, sink);
    if (rc == SQLITE_OK)
        rc = check_integrity(lane, sink);
    if (rc == SQLITE_OK)
        rc = check_table(lane, sink);
    verrou__sqlite_forget(lane); /* the shape was replaced without its statements */
    if (rc == SQLITE_NOMEM)
        return fail_nomem(state, err);
    return rc == SQLITE_OK ? VERROU_OK : fail_code(lane, rc, err);
}

/* ---- schema ---- */

static const char schema_header[] = "-- Verrou lock table for SQLite, schema version 1. Can be run again.";

/* Within a transaction: make what is missing. */
static bool schema_run(sqlite_lane *lane, sqlite_fault *fault)
{
    sqlite_shape shape;
    char *sql = NULL;
    int rc = SQLITE_OK;

    if (!verrou__sqlite_shape(lane, &shape, fault))
        return false;
    if (!shape.exists || !shape.fenced) {
        sql = shape.exists ? verrou__sqlite_alter_sql(lane->state) : verrou__sqlite_create_sql(lane->state);
        rc = sql ? sqlite3_exec(lane->db, sql, NULL, NULL, NULL) : SQLITE_NOMEM;
        sqlite3_free(sql);
    }
    if (rc == SQLITE_OK)
        return true;
    verrou__sqlite_explain(lane, lane->db, rc, fault);
    return false;
}

static verrou_status schema_apply(sqlite_lane *lane, verrou_error *err)
{
    sqlite_fault fault;
    int rc;

    /* Asked for by name: so the file is made as well, whatever autocreate says. */
    if (!verrou__sqlite_connect(lane, true, &fault))
        return verrou__sqlite_fail(lane->state, &fault, err);
    verrou__sqlite_forget(lane);
    rc = verrou__sqlite_run(lane, "BEGIN IMMEDIATE");
    if (rc != SQLITE_OK)
        return fail_code(lane, rc, err);
    if (!schema_run(lane, &fault)) {
        verrou__sqlite_rollback(lane);
        return verrou__sqlite_fail(lane->state, &fault, err);
    }
    rc = verrou__sqlite_run(lane, "COMMIT");
    if (rc != SQLITE_OK) {
        verrou_status status = fail_code(lane, rc, err);

        verrou__sqlite_rollback(lane);
        return status;
    }
    return VERROU_OK;
}

static verrou_status schema_print(sqlite_lane *lane, verrou_sink *sink, verrou_error *err)
{
    const sqlite_state *state = lane->state;
    sqlite_shape shape = {0};
    sqlite_fault fault;
    char *create = NULL;
    char *alter = NULL;
    int bad;

    /* Without a file there is just the table to make. */
    if (lane->db && !verrou__sqlite_shape(lane, &shape, &fault))
        return verrou__sqlite_fail(state, &fault, err);
    create = verrou__sqlite_create_sql(state);
    alter = verrou__sqlite_alter_sql(state);
    bad = !create || !alter || state->host->text_add(sink, "%s\n%s;\n", schema_header, create) != 0;
    if (!bad && shape.exists && !shape.fenced)
        bad = state->host->text_add(sink, "%s;\n", alter);
    sqlite3_free(create);
    sqlite3_free(alter);
    return bad ? fail_nomem(state, err) : VERROU_OK;
}

verrou_status verrou__sqlite_schema(void *context, void *lane_context, int apply, int64_t deadline_ms,
                                    verrou_sink *sink, verrou_error *err)
{
    sqlite_lane *lane = lane_context;

    (void)context;
    lane->deadline_ms = deadline_ms;
    return apply ? schema_apply(lane, err) : schema_print(lane, sink, err);
}
