/*
 * table.c - the lock table: its shape, and the statements that follow from it.
 *
 * The table is the one that Verrou for Node.js makes: `key` (unique), `owner`, `expiration` in epoch milliseconds with NULL for
 * "never". Ours has one column more, `fence`, with a default, so that the original's inserts still work. A table that exists is
 * never altered here; one without `fence` is used as it is, with tokens from the clock.
 *
 * Shape and statements are read and prepared in one transaction. If the schema changes later, SQLite prepares a statement again by
 * itself and counts that; execute() watches the counter and has the shape read anew.
 */
#include "sqlite_store.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

char *verrou__sqlite_create_sql(const sqlite_state *state)
{
    return sqlite3_mprintf("CREATE TABLE IF NOT EXISTS \"%w\" (\n"
                           "    `key` varchar(255) primary key not null,\n"
                           "    `owner` varchar(255) not null,\n"
                           "    `expiration` bigint null,\n"
                           "    `fence` bigint not null default 0\n"
                           ")",
                           state->settings.table);
}

char *verrou__sqlite_alter_sql(const sqlite_state *state)
{
    return sqlite3_mprintf("ALTER TABLE \"%w\" ADD COLUMN `fence` bigint not null default 0", state->settings.table);
}

/* ---- shape ---- */

typedef enum { AFFINITY_INTEGER, AFFINITY_TEXT, AFFINITY_NONE, AFFINITY_REAL, AFFINITY_NUMERIC } affinity;

/* SQLite's rules, section 3.1 of its page on data types, in their order. */
static affinity affinity_of(const char *type)
{
    if (strcasestr(type, "INT"))
        return AFFINITY_INTEGER;
    if (strcasestr(type, "CHAR") || strcasestr(type, "CLOB") || strcasestr(type, "TEXT"))
        return AFFINITY_TEXT;
    if (strcasestr(type, "BLOB") || !*type || strcasecmp(type, "ANY") == 0)
        return AFFINITY_NONE;
    if (strcasestr(type, "REAL") || strcasestr(type, "FLOA") || strcasestr(type, "DOUB"))
        return AFFINITY_REAL;
    return AFFINITY_NUMERIC;
}

static bool wrong_shape(const sqlite_lane *lane, sqlite_fault *fault, const char *what, const char *name)
{
    verrou__sqlite_fault_set(fault, VERROU_OP_FAILED, false, "database %s: table \"%s\" cannot hold locks: %s%s%s%s",
                             lane->state->path, lane->state->settings.table, what, name ? " \"" : "", name ? name : "",
                             name ? "\"" : "");
    return false;
}

static bool sql_fault(const sqlite_lane *lane, int rc, sqlite_fault *fault)
{
    verrou__sqlite_explain(lane, lane->db, rc, fault);
    return false;
}

static int query(sqlite_lane *lane, const char *sql, sqlite3_stmt **ret_stmt)
{
    int rc = sqlite3_prepare_v2(lane->db, sql, -1, ret_stmt, NULL);

    if (rc == SQLITE_OK)
        rc = sqlite3_bind_text(*ret_stmt, 1, lane->state->settings.table, -1, SQLITE_STATIC);
    return rc;
}

/* A table, and not a view or a virtual table, which has no transactions or no unique key that we could rely on. */
static bool kind_check(sqlite_lane *lane, sqlite_shape *shape, sqlite_fault *fault)
{
    sqlite3_stmt *stmt = NULL;
    bool plain = false;
    int rc = query(lane,
                   "SELECT type = 'table' AND coalesce(sql, '') NOT LIKE 'CREATE VIRTUAL%' FROM main.sqlite_master"
                   " WHERE name = ?1 COLLATE NOCASE AND type IN ('table', 'view')",
                   &stmt);

    if (rc == SQLITE_OK)
        rc = sqlite3_step(stmt);
    shape->exists = rc == SQLITE_ROW;
    if (shape->exists)
        plain = sqlite3_column_int(stmt, 0);
    sqlite3_finalize(stmt);
    if (rc != SQLITE_ROW && rc != SQLITE_DONE)
        return sql_fault(lane, rc, fault);
    if (shape->exists && !plain)
        return wrong_shape(lane, fault, "it is a view or a virtual table", NULL);
    return true;
}

/* What we look for in the columns. */
typedef struct {
    bool key, owner, expiration, fence;
} columns_seen;

/* One column; the text of what is wrong with it, or NULL. */
static const char *column_check(const char *name, const char *type, bool needed, columns_seen *seen)
{
    affinity kind = affinity_of(type);

    if (strcasecmp(name, "key") == 0) {
        seen->key = true;
        /* A numeric column would take '1' and '01' for the same key. */
        return kind == AFFINITY_TEXT || kind == AFFINITY_NONE ? NULL : "it must be of a text type, the column";
    }
    if (strcasecmp(name, "owner") == 0) {
        seen->owner = true;
        return kind == AFFINITY_TEXT || kind == AFFINITY_NONE ? NULL : "it must be of a text type, the column";
    }
    if (strcasecmp(name, "expiration") == 0) {
        seen->expiration = true;
        /* Text would be compared letter by letter. */
        return kind == AFFINITY_TEXT ? "it must be of a number type, the column" : NULL;
    }
    if (strcasecmp(name, "fence") == 0) {
        seen->fence = true;
        return kind == AFFINITY_TEXT ? "it must be of a number type, the column" : NULL;
    }
    return needed ? "it has no default and may not be NULL, the column" : NULL;
}

static bool columns_check(sqlite_lane *lane, sqlite_shape *shape, sqlite_fault *fault)
{
    sqlite3_stmt *stmt = NULL;
    columns_seen seen = {0};
    int rc = query(lane,
                   "SELECT name, type, \"notnull\" AND dflt_value IS NULL AND hidden = 0"
                   " FROM pragma_table_xinfo(?1, 'main')",
                   &stmt);
    bool ok = true;

    while (rc == SQLITE_OK && ok) {
        rc = sqlite3_step(stmt);
        if (rc == SQLITE_ROW) {
            const char *name = (const char *)sqlite3_column_text(stmt, 0);
            const char *type = (const char *)sqlite3_column_text(stmt, 1);
            const char *wrong = column_check(name ? name : "", type ? type : "", sqlite3_column_int(stmt, 2), &seen);

            rc = SQLITE_OK;
            if (wrong)
                ok = wrong_shape(lane, fault, wrong, name);
        }
    }
    sqlite3_finalize(stmt);
    if (!ok)
        return false;
    if (rc != SQLITE_DONE)
        return sql_fault(lane, rc, fault);
    if (!seen.key || !seen.owner || !seen.expiration)
        return wrong_shape(lane, fault, "it lacks the column",
                           !seen.key ? "key" : (!seen.owner ? "owner" : "expiration"));
    shape->fenced = seen.fence;
    return true;
}

/*
 * What makes two keys the same is the collation of the unique index on `key`, not that of the column. With NOCASE "job" and "JOB" share
 * one row, hence exclude each other; if there are several such indexes, the one that takes more keys for equal decides.
 */
static bool unique_check(sqlite_lane *lane, sqlite_shape *shape, sqlite_fault *fault)
{
    sqlite3_stmt *stmt = NULL;
    int rc = query(lane,
                   "SELECT x.coll FROM pragma_index_list(?1, 'main') AS l, pragma_index_xinfo(l.name, 'main') AS x"
                   " WHERE l.\"unique\" AND NOT l.partial AND x.\"key\" AND x.name = 'key' COLLATE NOCASE"
                   " AND 1 = (SELECT count(*) FROM pragma_index_xinfo(l.name, 'main') AS y WHERE y.\"key\")",
                   &stmt);
    bool found = false;

    while (rc == SQLITE_OK) {
        rc = sqlite3_step(stmt);
        if (rc == SQLITE_ROW) {
            const char *collation = (const char *)sqlite3_column_text(stmt, 0);

            rc = SQLITE_OK;
            if (!found || strcasecmp(shape->collation, "BINARY") == 0)
                snprintf(shape->collation, sizeof shape->collation, "%s", collation ? collation : "BINARY");
            found = true;
        }
    }
    sqlite3_finalize(stmt);
    if (rc != SQLITE_DONE)
        return sql_fault(lane, rc, fault);
    if (!found)
        return wrong_shape(lane, fault, "there must be a primary key or unique index on just the column", "key");
    shape->folded = strcasecmp(shape->collation, "BINARY") != 0;
    return true;
}

bool verrou__sqlite_shape(sqlite_lane *lane, sqlite_shape *shape, sqlite_fault *fault)
{
    *shape = (sqlite_shape){0};
    if (!kind_check(lane, shape, fault))
        return false;
    return !shape->exists || (columns_check(lane, shape, fault) && unique_check(lane, shape, fault));
}

/* ---- statements ---- */

/*
 * Parameters: ?1 key, ?2 owner, ?3 now, ?4 fence (a candidate for acquire, a condition elsewhere), ?5 the new expiration.
 * %T the table, %M the row that would collide with the key, %X the row of exactly this key.
 *
 * ACQUIRE is one statement: it inserts, or takes over a row that is free. Its token is handed out by the function verrou_token(), and
 * not by RETURNING, for which SQLite opens a temporary table each time: that doubled the time of an acquire. The stored token may be NULL in a table of somebody else's,
 * and must stay below 2^53: a row at the limit is refused rather than given a token that does not grow.
 *
 * On a table that folds keys the row taken over is renamed, so that afterwards only the exact key can release or extend.
 */
static const char *const fenced_sql[STATEMENT_COUNT] = {
    [STATEMENT_ACQUIRE] = "INSERT INTO %T (key, owner, expiration, fence) VALUES (?1, ?2, ?5, ?4)"
                          " ON CONFLICT (key) DO UPDATE SET %Rowner = excluded.owner, expiration = excluded.expiration,"
                          " fence = verrou_token(coalesce(fence, 0) + 1, excluded.fence)"
                          " WHERE expiration <= ?3 AND coalesce(fence, 0) < " LOCK_TABLE_MAX_FENCE,
    [STATEMENT_RELEASE] = "UPDATE %T SET owner = '', expiration = 0 WHERE %X AND owner = ?2 COLLATE BINARY"
                          " AND (expiration IS NULL OR expiration > ?3) AND (?4 = 0 OR fence IN (0, ?4))",
    [STATEMENT_EXTEND] = "UPDATE %T SET expiration = ?5 WHERE %X AND owner = ?2 COLLATE BINARY"
                         " AND (expiration IS NULL OR expiration > ?3) AND (?4 = 0 OR fence IN (0, ?4))",
    [STATEMENT_FORCE] = "UPDATE %T SET owner = '', expiration = 0 WHERE %X AND (expiration IS NULL OR expiration <> 0)",
    [STATEMENT_INSPECT] = "SELECT owner, expiration, (expiration IS NULL OR expiration > ?3), fence FROM %T WHERE %M",
    [STATEMENT_PRUNE_END] = "SELECT key FROM %T WHERE key > ?1 COLLATE %C ORDER BY key COLLATE %C LIMIT 1 OFFSET ?2",
    [STATEMENT_PRUNE] = "DELETE FROM %T WHERE key > ?1 COLLATE %C AND key <= ?2 COLLATE %C"
                        " AND owner = '' AND expiration = 0 AND fence < ?3",
};

/* Without a token to keep there is no use for a tombstone: a released row goes, as in the original. */
static const char *const plain_sql[STATEMENT_COUNT] = {
    [STATEMENT_ACQUIRE] = "INSERT INTO %T (key, owner, expiration) VALUES (?1, ?2, ?5)"
                          " ON CONFLICT (key) DO UPDATE SET %Rowner = excluded.owner, expiration = excluded.expiration"
                          " WHERE expiration <= ?3 AND ?4 IS NOT NULL",
    [STATEMENT_RELEASE] = "DELETE FROM %T WHERE %X AND owner = ?2 COLLATE BINARY"
                          " AND (expiration IS NULL OR expiration > ?3) AND ?4 IS NOT NULL",
    [STATEMENT_EXTEND] = "UPDATE %T SET expiration = ?5 WHERE %X AND owner = ?2 COLLATE BINARY"
                         " AND (expiration IS NULL OR expiration > ?3) AND ?4 IS NOT NULL",
    [STATEMENT_FORCE] = "DELETE FROM %T WHERE %X",
    [STATEMENT_INSPECT] = "SELECT owner, expiration, (expiration IS NULL OR expiration > ?3), 0 FROM %T WHERE %M",
};

static const char *const common_sql[STATEMENT_COUNT] = {
    [STATEMENT_BEGIN] = "BEGIN IMMEDIATE",
    [STATEMENT_BEGIN_READ] = "BEGIN",
    [STATEMENT_COMMIT] = "COMMIT",
    [STATEMENT_ROLLBACK] = "ROLLBACK",
};

/* verrou_token(a, b): the larger one, which is also noted in the lane. */
static void token_function(sqlite3_context *context, int count, sqlite3_value **values)
{
    sqlite_lane *lane = sqlite3_user_data(context);
    int64_t next = sqlite3_value_int64(values[0]);
    int64_t candidate = sqlite3_value_int64(values[1]);

    (void)count;
    lane->token = next > candidate ? next : candidate;
    sqlite3_result_int64(context, lane->token);
}

/* Put the names into a template. NULL when out of memory. */
static char *expand(const sqlite_lane *lane, const char *template)
{
    const sqlite_shape *shape = &lane->shape;
    sqlite3_str *out = sqlite3_str_new(lane->db);

    for (const char *p = template; *p; p++) {
        if (*p != '%') {
            sqlite3_str_appendchar(out, 1, *p);
            continue;
        }
        p++;
        if (*p == 'T')
            sqlite3_str_appendf(out, "main.\"%w\"", lane->state->settings.table);
        else if (*p == 'C')
            sqlite3_str_appendf(out, "\"%w\"", shape->collation);
        else if (*p == 'R' && shape->folded)
            sqlite3_str_appendall(out, "key = excluded.key, ");
        else if (*p == 'M' || *p == 'X')
            sqlite3_str_appendf(out, "key = ?1 COLLATE \"%w\"%s", shape->collation,
                                *p == 'X' && shape->folded ? " AND key = ?1 COLLATE BINARY" : "");
    }
    return sqlite3_str_finish(out);
}

static int statements_prepare(sqlite_lane *lane)
{
    const char *const *by_shape = lane->shape.fenced ? fenced_sql : plain_sql;
    int rc = sqlite3_create_function_v2(lane->db, "verrou_token", 2, SQLITE_UTF8 | SQLITE_DIRECTONLY, lane,
                                        token_function, NULL, NULL, NULL);

    for (int i = 0; i < STATEMENT_COUNT && rc == SQLITE_OK; i++) {
        const char *template = common_sql[i] ? common_sql[i] : by_shape[i];
        char *sql;

        if (!template)
            continue;
        sql = expand(lane, template);
        if (!sql)
            return SQLITE_NOMEM;
        rc = sqlite3_prepare_v3(lane->db, sql, -1, SQLITE_PREPARE_PERSISTENT, &lane->statements[i], NULL);
        sqlite3_free(sql);
    }
    return rc;
}

void verrou__sqlite_forget(sqlite_lane *lane)
{
    for (int i = 0; i < STATEMENT_COUNT; i++) {
        sqlite3_finalize(lane->statements[i]);
        lane->statements[i] = NULL;
    }
    lane->ready = false;
}

/* Make the table. Somebody else may have been faster; then theirs is used. */
static int table_create(sqlite_lane *lane)
{
    char *sql = verrou__sqlite_create_sql(lane->state);
    int rc = sql ? sqlite3_exec(lane->db, sql, NULL, NULL, NULL) : SQLITE_NOMEM;

    sqlite3_free(sql);
    return rc;
}

/* Within a transaction: read the shape, make the table if that is wanted, prepare the statements. */
static bool ready_in_transaction(sqlite_lane *lane, bool may_create, bool *ret_must_create, sqlite_fault *fault)
{
    int rc;

    *ret_must_create = false;
    if (!verrou__sqlite_shape(lane, &lane->shape, fault))
        return false;
    if (!lane->shape.exists && !may_create) {
        *ret_must_create = true;
        return true;
    }
    if (!lane->shape.exists) {
        rc = table_create(lane);
        if (rc != SQLITE_OK)
            return sql_fault(lane, rc, fault);
        if (!verrou__sqlite_shape(lane, &lane->shape, fault))
            return false;
    }
    rc = statements_prepare(lane);
    return rc == SQLITE_OK || sql_fault(lane, rc, fault);
}

static bool ready_try(sqlite_lane *lane, bool create, bool *ret_must_create, sqlite_fault *fault)
{
    int rc = verrou__sqlite_run(lane, create ? "BEGIN IMMEDIATE" : "BEGIN");

    if (rc != SQLITE_OK)
        return sql_fault(lane, rc, fault);
    if (ready_in_transaction(lane, create, ret_must_create, fault)) {
        rc = verrou__sqlite_run(lane, "COMMIT");
        if (rc == SQLITE_OK)
            return true;
        sql_fault(lane, rc, fault);
    }
    verrou__sqlite_rollback(lane);
    verrou__sqlite_forget(lane);
    return false;
}

bool verrou__sqlite_ready(sqlite_lane *lane, sqlite_fault *fault)
{
    sqlite_state *state = lane->state;
    bool must_create = false;

    if (lane->ready)
        return true;
    if (!verrou__sqlite_connect(lane, state->settings.autocreate, fault))
        return false;
    verrou__sqlite_forget(lane);
    if (!ready_try(lane, false, &must_create, fault))
        return false;
    if (must_create && !state->settings.autocreate) {
        verrou__sqlite_fault_set(fault, VERROU_OP_FAILED, false,
                                 "database %s: there is no table \"%s\", and autocreate is off", state->path,
                                 state->settings.table);
        return false;
    }
    if (must_create && !ready_try(lane, true, &must_create, fault))
        return false;

    lane->ready = true;
    if (lane->shape.fenced)
        atomic_fetch_or(&state->caps, VERROU_CAP_FENCE_STORED);
    else
        atomic_fetch_and(&state->caps, ~VERROU_CAP_FENCE_STORED);
    if (lane->shape.folded)
        state->host->log(state->log_context, VERROU_WARN, "store.collation", NULL,
                         "database %s: table \"%s\" compares keys with %s: different keys may exclude each other",
                         state->path, state->settings.table, lane->shape.collation);
    return true;
}
