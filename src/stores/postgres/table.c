/*
 * table.c - the lock table: its shape, and making it.
 *
 * The table is the one that Verrou for Node.js makes, with one column more, `fence`. A table that exists is never altered here; one without
 * `fence` is used as it is, with tokens from the clock. If the table changes later, a statement fails with a code that says so,
 * and the shape is read anew; that a table has got its `fence` fails nothing, and is looked for every few seconds.
 */
#include "postgres_store.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define LOOK_AGAIN_MS 10000
#define NO_SUCH_SCHEMA "3F000"

/* Of the advisory lock under which the table is made. The other locks have the class of the table. */
#define CREATE_LOCK "1986359922, 0"
#define CREATE_WAIT "3000"

/* ---- shape ---- */

/*
 * Where a table without a schema is: as for a new session of this user. Behind a pooler a session may have been left with another path by somebody
 * else; two processes would then use two tables.
 */
static const char own_path_sql[] =
    "SELECT set_config('search_path', (SELECT reset_val FROM pg_settings WHERE name = 'search_path'), true);";

#define USABLE_INDEX "i.indisunique AND i.indimmediate AND i.indisvalid AND i.indpred IS NULL AND i.indnkeyatts = 1"

/*
 * One row for each column of the table. An index decides what a key is only if ON CONFLICT can use it. Another one that refuses rows may do so only for
 * a key that is the same, as one over the key and something else. Everything is found by index: our sessions plan a sequential scan as so costly that
 * the server would compile the statement first, for seconds.
 */
static const char shape_sql[] =
    "%s"
    "SELECT quote_ident(n.nspname), quote_ident(c.relname),"
    " CASE WHEN c.relkind = 'v' THEN 'a view' WHEN c.relkind = 'm' THEN 'a materialized view'"
    "  WHEN c.relkind = 'f' THEN 'a foreign table' WHEN c.relkind NOT IN ('r', 'p') THEN 'no table'"
    "  WHEN c.relpersistence = 't' THEN 'a temporary table, which nobody else sees' END,"
    " c.relpersistence = 'u' OR c.relkind = 'p' AND EXISTS (SELECT FROM pg_partition_tree(c.oid) AS d"
    "  WHERE (SELECT p.relpersistence FROM pg_class p WHERE p.oid = d.relid) = 'u'), "
    "a.attname, t.typname, "
    "t.typcategory,"
    " format_type(a.atttypid, -1),"
    " a.attnotnull AND NOT a.atthasdef AND a.attidentity = '' AND a.attgenerated = '',"
    " t.typname = 'citext' OR NOT coalesce(k.collisdeterministic, true),"
    " u.count, u.folded, o.name, v.look, has_table_privilege(c.oid, 'DELETE')"
    " FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
    " JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped"
    " JOIN pg_type t ON t.oid = a.atttypid LEFT JOIN pg_collation k ON k.oid = a.attcollation"
    " CROSS JOIN (SELECT count(*) AS count, coalesce(bool_or(NOT coalesce(l.collisdeterministic, true)), false) AS "
    "folded"
    "  FROM pg_index i JOIN pg_attribute b ON b.attrelid = i.indrelid AND b.attnum = i.indkey[0] AND b.attname = 'key'"
    "  LEFT JOIN pg_collation l ON l.oid = i.indcollation[0]"
    "  WHERE i.indrelid = to_regclass('%s') AND " USABLE_INDEX ") AS u"
    " CROSS JOIN (SELECT min(x.relname) AS name FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid"
    "  WHERE i.indrelid = to_regclass('%s') AND (i.indisexclusion OR i.indisunique AND NOT EXISTS"
    "   (SELECT FROM generate_series(0, i.indnkeyatts - 1) AS g"
    "    JOIN pg_attribute b ON b.attrelid = i.indrelid AND b.attnum = i.indkey[g] AND b.attname = 'key'"
    "    LEFT JOIN pg_collation l ON l.oid = i.indcollation[g]"
    "    WHERE coalesce(l.collisdeterministic, true) OR " USABLE_INDEX "))) AS o"
    " CROSS JOIN (SELECT has_function_privilege('pg_try_advisory_lock(int,int)', 'EXECUTE')"
    "  AND has_function_privilege('pg_advisory_unlock(int,int)', 'EXECUTE') AS look) AS v"
    " WHERE c.oid = to_regclass('%s')";

enum {
    COLUMN_SCHEMA,
    COLUMN_TABLE,
    COLUMN_OTHER_KIND,
    COLUMN_UNLOGGED,
    COLUMN_NAME,
    COLUMN_TYPE,
    COLUMN_CATEGORY,
    COLUMN_FULL_TYPE,
    COLUMN_NEEDED,
    COLUMN_FOLDED,
    COLUMN_UNIQUES,
    COLUMN_UNIQUE_FOLDED,
    COLUMN_REFUSING_INDEX,
    COLUMN_LOOK,
    COLUMN_DELETE,
};

static bool is_true(const PGresult *result, int row, int column)
{
    return PQgetvalue(result, row, column)[0] == 't';
}

VERROU_PRINTF(3, 4)
static bool wrong_shape(const postgres_session *session, postgres_fault *fault, const char *format, ...)
{
    char what[200];
    va_list args;

    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    verrou__postgres_fault_set(fault, VERROU_OP_FAILED, false, NULL, "%s: table %s cannot hold locks: %s",
                               session->name, session->state->name, what);
    return false;
}

static bool is_text(const PGresult *result, int row)
{
    const char *type = PQgetvalue(result, row, COLUMN_TYPE);

    /* character(n) takes no notice of blanks at the end. */
    return PQgetvalue(result, row, COLUMN_CATEGORY)[0] == 'S' && strcmp(type, "bpchar") != 0 &&
           strcmp(type, "name") != 0 && strcmp(type, "char") != 0;
}

static bool is_number(const PGresult *result, int row)
{
    const char *type = PQgetvalue(result, row, COLUMN_TYPE);

    return strcmp(type, "int8") == 0 || strcmp(type, "numeric") == 0;
}

typedef struct columns_seen {
    bool key, owner, expiration;
} columns_seen;

/* One column; what is to be said of it if it is wrong, or NULL. */
static const char *column_check(const PGresult *result, int row, columns_seen *seen, postgres_shape *shape)
{
    static const char not_text[] = "must be of a text type of variable length";
    static const char not_number[] = "must be of the type bigint";
    const char *name = PQgetvalue(result, row, COLUMN_NAME);
    const char *type = PQgetvalue(result, row, COLUMN_TYPE);

    if (strcmp(name, "key") == 0) {
        seen->key = true;
        shape->folded = shape->folded || is_true(result, row, COLUMN_FOLDED);
        if (strcmp(type, "text") != 0 && strcmp(type, "varchar") != 0)
            snprintf(shape->cast, sizeof shape->cast, "::%s", PQgetvalue(result, row, COLUMN_FULL_TYPE));
        return is_text(result, row) ? NULL : not_text;
    }
    if (strcmp(name, "owner") == 0) {
        seen->owner = true;
        return is_text(result, row) ? NULL : not_text;
    }
    if (strcmp(name, "expiration") == 0) {
        seen->expiration = true;
        return is_number(result, row) ? NULL : not_number;
    }
    if (strcmp(name, "fence") == 0) {
        shape->fenced = true;
        return is_number(result, row) ? NULL : not_number;
    }
    return is_true(result, row, COLUMN_NEEDED) ? "has no default and may not be NULL" : NULL;
}

static bool columns_check(const postgres_session *session, const PGresult *result, postgres_shape *shape,
                          postgres_fault *fault)
{
    columns_seen seen = {0};
    const char *first_wrong = NULL;
    int wrong_row = 0;

    for (int row = 0; row < PQntuples(result); row++) {
        const char *wrong = column_check(result, row, &seen, shape);

        if (wrong && !first_wrong) {
            first_wrong = wrong;
            wrong_row = row;
        }
    }
    if (!seen.key || !seen.owner || !seen.expiration)
        return wrong_shape(session, fault, "it lacks the column \"%s\"",
                           !seen.key     ? "key"
                           : !seen.owner ? "owner"
                                         : "expiration");
    return !first_wrong ||
           wrong_shape(session, fault, "its column \"%s\" %s", PQgetvalue(result, wrong_row, COLUMN_NAME), first_wrong);
}

/*
 * FNV-1a of the table's place. All who use the table have to find the same, whatever the version of this library. A number of the table itself would
 * be another one after it was dropped and made again.
 */
static void name_channel(postgres_shape *shape)
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325);

    for (const char *at = shape->schema; *at; at++)
        hash = (hash ^ (unsigned char)*at) * UINT64_C(0x100000001b3);
    hash = (hash ^ '.') * UINT64_C(0x100000001b3);
    for (const char *at = shape->table; *at; at++)
        hash = (hash ^ (unsigned char)*at) * UINT64_C(0x100000001b3);
    snprintf(shape->channel, sizeof shape->channel, "verrou_%016" PRIx64, hash);
    shape->lock_class = (int)((hash ^ hash >> 32) & 0x7fffffff);
}

static bool shape_read(const postgres_session *session, const PGresult *result, postgres_shape *shape,
                       postgres_fault *fault)
{
    shape->exists = PQntuples(result) > 0;
    if (!shape->exists)
        return true;
    snprintf(shape->schema, sizeof shape->schema, "%s", PQgetvalue(result, 0, COLUMN_SCHEMA));
    snprintf(shape->table, sizeof shape->table, "%s", PQgetvalue(result, 0, COLUMN_TABLE));
    name_channel(shape);
    shape->folded = is_true(result, 0, COLUMN_UNIQUE_FOLDED);
    shape->may_look = is_true(result, 0, COLUMN_LOOK);
    shape->may_prune = is_true(result, 0, COLUMN_DELETE);
    shape->unlogged = is_true(result, 0, COLUMN_UNLOGGED);
    if (!PQgetisnull(result, 0, COLUMN_OTHER_KIND))
        return wrong_shape(session, fault, "it is %s", PQgetvalue(result, 0, COLUMN_OTHER_KIND));
    if (!columns_check(session, result, shape, fault))
        return false;
    if (strcmp(PQgetvalue(result, 0, COLUMN_UNIQUES), "0") == 0)
        return wrong_shape(session, fault, "it needs a primary key or unique index on just the column \"key\"");
    if (!PQgetisnull(result, 0, COLUMN_REFUSING_INDEX))
        return wrong_shape(session, fault,
                           "its index \"%s\" must not be unique: released rows differ in the column \"key\" only",
                           PQgetvalue(result, 0, COLUMN_REFUSING_INDEX));
    return true;
}

bool verrou__postgres_shape(postgres_session *session, postgres_shape *shape, int64_t deadline_ms,
                            postgres_fault *fault)
{
    const char *name = session->state->name; /* letters and digits in double quotes */
    char sql[sizeof shape_sql + sizeof own_path_sql + 3 * sizeof session->state->name];
    PGresult *result;
    bool fits;

    snprintf(sql, sizeof sql, shape_sql, session->pooled ? own_path_sql : "", name, name, name);
    result = verrou__postgres_ask_plain(session, deadline_ms, fault, sql);
    *shape = (postgres_shape){0};
    if (!result)
        return false;
    fits = shape_read(session, result, shape, fault);
    PQclear(result);
    return fits;
}

/* ---- making it ---- */

/*
 * The order of the keys is that of their bytes: the other orders change with the C library of the server's machine, and an index that was
 * made in the old one lets in a key twice.
 */
bool verrou__postgres_create_sql(const postgres_state *state, bool laid_out, char *sql, size_t size)
{
    const char *sep = laid_out ? "\n    " : " ";
    int len = snprintf(sql, size,
                       "CREATE TABLE IF NOT EXISTS %s (%skey varchar(255) COLLATE \"C\" PRIMARY KEY,"
                       "%sowner varchar(255) NOT NULL,%sexpiration bigint NULL,%sfence bigint NOT NULL DEFAULT 0%s)"
                       " WITH (fillfactor = 50)",
                       state->name, sep, sep, sep, sep, laid_out ? "\n" : " ");

    return len > 0 && (size_t)len < size;
}

bool verrou__postgres_create_table(postgres_session *session, int64_t deadline_ms, postgres_fault *fault)
{
    char create[512];
    char sql[1024];

    verrou__postgres_create_sql(session->state, false, create, sizeof create);
    /* Without the lock, of several that make it at once all but one would fail, and the server log it. */
    snprintf(sql, sizeof sql,
             "%s"
             "SELECT set_config('lock_timeout', '" CREATE_WAIT "', true);"
             "SELECT pg_advisory_xact_lock(" CREATE_LOCK "); %s",
             session->pooled ? own_path_sql : "", create);
    return verrou__postgres_run(session, deadline_ms, fault, sql);
}

/* Somebody else may have been faster; then theirs is used. */
static bool table_make(postgres_lane *lane, int64_t deadline_ms, postgres_fault *fault)
{
    postgres_session *session = &lane->session;
    bool made = verrou__postgres_create_table(session, deadline_ms, fault);
    postgres_fault ignored;
    char text[160];
    char create[512];

    if (session->broken || !verrou__postgres_shape(session, &lane->shape, deadline_ms, made ? fault : &ignored))
        return false;
    if (lane->shape.exists)
        return true;
    if (made)
        return wrong_shape(session, fault, "it was made, and is not there");
    if (strcmp(fault->code, NO_SUCH_SCHEMA) == 0)
        return false; /* the server says which, and the table could not be made by anybody */
    verrou__postgres_create_sql(session->state, false, create, sizeof create);
    snprintf(text, sizeof text, "%.*s", (int)sizeof text - 1, fault->text);
    snprintf(fault->text, sizeof fault->text, "%s; somebody who may has to run: %.*s", text,
             (int)(sizeof fault->text - sizeof text - 40), create);
    return false;
}

/* ---- ready ---- */

static void tell_shape(postgres_state *state, const postgres_shape *shape)
{
    if (shape->fenced)
        atomic_fetch_or(&state->caps, VERROU_CAP_FENCE_STORED);
    else
        atomic_fetch_and(&state->caps, ~VERROU_CAP_FENCE_STORED);
    if (shape->folded && !atomic_exchange(&state->told_collation, true))
        state->host->log(state->log_context, VERROU_WARN, "store.collation", NULL,
                         "table %s: the collation or type of the column \"key\" takes different keys for equal",
                         state->name);
    if (shape->unlogged && !atomic_exchange(&state->told_unlogged, true))
        state->host->log(state->log_context, VERROU_WARN, "store.durability", NULL,
                         "table %s is UNLOGGED: a crash of the server forgets all locks", state->name);
}

static bool shape_or_table(postgres_lane *lane, int64_t deadline_ms, postgres_fault *fault)
{
    postgres_session *session = &lane->session;

    if (!lane->shape_is_new && !verrou__postgres_shape(session, &lane->shape, deadline_ms, fault))
        return false;
    lane->shape_is_new = false;
    if (lane->shape.exists)
        return true;
    if (session->state->table.autocreate)
        return table_make(lane, deadline_ms, fault);
    verrou__postgres_fault_set(fault, VERROU_OP_FAILED, false, NULL,
                               "%s: there is no table %s, and autocreate is off: "
                               "`verrou schema apply` makes it",
                               session->name, session->state->name);
    return false;
}

bool verrou__postgres_ready(postgres_lane *lane, int64_t deadline_ms, postgres_fault *fault)
{
    postgres_state *state = lane->session.state;
    int64_t now_ms;

    if (lane->ready && (lane->shape.fenced || state->host->now_ms() < lane->ready_ms + LOOK_AGAIN_MS))
        return true;
    now_ms = state->host->now_ms();
    verrou__postgres_forget(lane);
    if (!shape_or_table(lane, deadline_ms, fault) || !verrou__postgres_statements(lane, deadline_ms, fault))
        return false;
    tell_shape(state, &lane->shape);
    lane->ready = true;
    lane->ready_ms = now_ms;
    return true;
}
