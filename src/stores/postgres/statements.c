/*
 * statements.c - the statements that follow from the shape of the table.
 *
 * They are templates: what stands behind a '%' is put in by put_name(). In a session that lasts they are prepared, behind a pooler they are sent
 * as they are.
 */
#include "postgres_store.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define MAX_SQL 4096
#define SOON_MS 60000

/*
 * %T the table; %M the row that would collide with the key, %X the row of exactly this key; %K the cast of a key to its type; %R what
 * renames a row that is taken over. On a table that folds keys that is done, so that afterwards only the exact key can release or extend.
 * %U the clock in microseconds, %N in milliseconds, %3 and %4 the end of a lease whose length is that parameter, %F what is left of a
 * lease, %V that it is live. An end is rounded up and the time that it is compared with down, so that no lease is shorter than was asked for; what
 * is left is rounded down.
 * %L and %l how many other processes wait; a parameter is our own place among those who listen.
 * %S true; but where $5 is 1, and the lease ends soon, the commit then does not wait for the disk. (It is the commit of the whole transaction.)
 *
 * ACQUIRE looks first. What is held is refused without a lock: so those who ask do not hold up the one who releases, and nothing is
 * written. Else an upsert takes the row, unless somebody has been faster; its times are those after the row was locked. Then it returns
 * nothing, and has to be asked again. A token must stay below 2^53. $4 is a postgres_asking.
 */
static const char *const fenced_sql[STATEMENT_COUNT] = {
    [STATEMENT_ACQUIRE] =
        "WITH seen AS (SELECT owner, expiration, fence FROM %T WHERE %M AND %V),"
        " claim AS (SELECT FROM %T WHERE %M FOR NO KEY UPDATE SKIP LOCKED),"
        " taken AS (INSERT INTO %T AS l (key, owner, expiration, fence) SELECT $1%K, $2, %3, %U"
        " WHERE CASE $4 WHEN 0 THEN NOT EXISTS (SELECT FROM seen) WHEN 1 THEN true ELSE NOT EXISTS (SELECT FROM seen)"
        " AND (EXISTS (SELECT FROM claim) OR NOT EXISTS (SELECT FROM %T WHERE %M)) END ON CONFLICT (key) DO UPDATE"
        " SET %Rowner = excluded.owner, expiration = %3, fence = greatest(coalesce(l.fence, 0) + 1, %U)"
        " WHERE l.expiration <= %N AND coalesce(l.fence, 0) < " LOCK_TABLE_MAX_FENCE " RETURNING fence)"
        " SELECT true, fence, NULL, NULL FROM taken UNION ALL"
        " SELECT false, fence, owner, %F FROM seen WHERE NOT EXISTS (SELECT FROM taken)",
    [STATEMENT_RELEASE] = "UPDATE %T SET owner = '', expiration = 0 WHERE %X AND owner = $2 COLLATE \"C\" AND %V"
                          " AND ($3 = 0 OR fence IN (0, $3)) AND %S RETURNING %L",
    [STATEMENT_EXTEND] = "UPDATE %T SET expiration = %4 WHERE %X AND owner = $2 COLLATE \"C\" AND %V"
                         " AND ($3 = 0 OR fence IN (0, $3))",
    [STATEMENT_FORCE] = "UPDATE %T SET owner = '', expiration = 0 WHERE %X AND (expiration IS NULL OR expiration <> 0)"
                        " RETURNING %l",
    [STATEMENT_INSPECT] = "SELECT owner, %F, fence FROM %T WHERE %M AND %V",
    [STATEMENT_PRUNE] = "WITH page AS (SELECT key, owner, expiration, fence FROM %T WHERE key > $1%K ORDER BY key"
                        " LIMIT %P), old AS (SELECT t.key FROM %T AS t WHERE t.key IN (SELECT key FROM page"
                        " WHERE owner = '' AND expiration = 0 AND fence < %U - %A) AND t.owner = ''"
                        " AND t.expiration = 0 AND t.fence < %U - %A FOR UPDATE SKIP LOCKED),"
                        " gone AS (DELETE FROM %T AS t USING old WHERE t.key = old.key)"
                        " SELECT CASE WHEN count(*) = %P THEN max(key) END FROM page",
};

/* Without a token to keep there is no use for a tombstone: a released row goes, as in the original. */
static const char *const plain_sql[STATEMENT_COUNT] = {
    [STATEMENT_ACQUIRE] =
        "WITH seen AS (SELECT owner, expiration FROM %T WHERE %M AND %V),"
        " taken AS (INSERT INTO %T AS l (key, owner, expiration) SELECT $1%K, $2, %3"
        " WHERE $4 = 1 OR NOT EXISTS (SELECT FROM seen) ON CONFLICT (key) DO UPDATE"
        " SET %Rowner = excluded.owner, expiration = %3 WHERE l.expiration <= %N RETURNING %U AS fence)"
        " SELECT true, fence, NULL, NULL FROM taken UNION ALL"
        " SELECT false, CASE WHEN owner = $2 COLLATE \"C\" THEN %U ELSE 0 END, owner, %F FROM seen"
        " WHERE NOT EXISTS (SELECT FROM taken)",
    [STATEMENT_RELEASE] = "DELETE FROM %T WHERE %X AND owner = $2 COLLATE \"C\" AND %V AND $3 IS NOT NULL"
                          " AND %S RETURNING %L",
    [STATEMENT_EXTEND] = "UPDATE %T SET expiration = %4 WHERE %X AND owner = $2 COLLATE \"C\" AND %V"
                         " AND $3 IS NOT NULL",
    [STATEMENT_FORCE] = "DELETE FROM %T WHERE %X RETURNING %l",
    [STATEMENT_INSPECT] = "SELECT owner, %F, 0 FROM %T WHERE %M AND %V",
};

static const char preamble_sql[] =
    "SELECT set_config('lock_timeout', '" POSTGRES_LOCK_TIMEOUT_MS "', true),"
    " set_config('enable_seqscan', 'off', true), set_config('enable_bitmapscan', 'off', true)";

static const char *const common_sql[STATEMENT_COUNT] = {
    [STATEMENT_PREAMBLE] = preamble_sql,
    [STATEMENT_NOTIFY] = "SELECT pg_notify('%C', $1)",
};

#define INT8_TYPE 20
#define INT4_TYPE 23
#define TEXT_TYPE 25

static const struct {
    const char *name;
    int count;
    Oid types[POSTGRES_MAX_VALUES];
} parameters[STATEMENT_COUNT] = {
    [STATEMENT_PREAMBLE] = {"verrou_preamble", 0, {0}},
    [STATEMENT_ACQUIRE] = {"verrou_acquire", 4, {TEXT_TYPE, TEXT_TYPE, INT8_TYPE, INT4_TYPE}},
    [STATEMENT_RELEASE] = {"verrou_release", 5, {TEXT_TYPE, TEXT_TYPE, INT8_TYPE, INT4_TYPE, INT4_TYPE}},
    [STATEMENT_EXTEND] = {"verrou_extend", 4, {TEXT_TYPE, TEXT_TYPE, INT8_TYPE, INT8_TYPE}},
    [STATEMENT_FORCE] = {"verrou_force", 2, {TEXT_TYPE, INT4_TYPE}},
    [STATEMENT_INSPECT] = {"verrou_inspect", 1, {TEXT_TYPE}},
    [STATEMENT_NOTIFY] = {"verrou_notify", 1, {TEXT_TYPE}},
    [STATEMENT_PRUNE] = {"verrou_prune", 1, {TEXT_TYPE}},
};

/* ---- filling in ---- */

typedef struct text {
    char sql[MAX_SQL];
    size_t len; /* of a text that does not fit: more than that */
} text;

static void put(text *out, const char *format, ...) VERROU_PRINTF(2, 3);
static void put(text *out, const char *format, ...)
{
    va_list args;

    if (out->len >= sizeof out->sql)
        return;
    va_start(args, format);
    out->len += (size_t)vsnprintf(out->sql + out->len, sizeof out->sql - out->len, format, args);
    va_end(args);
}

/*
 * If the number of the key can be locked, nobody waits. Else, if we do not listen, whoever waits is another; if we do, it may be only
 * ourselves, so the places of the others are looked at one by one. (See watch.c for what is locked there.)
 */
static void put_look(text *out, const postgres_shape *shape, const char *own)
{
    const int class = shape->lock_class;

    if (!shape->may_look) {
        put(out, "NULL::bigint");
        return;
    }
    put(out,
        "CASE WHEN pg_try_advisory_lock(%d, " POSTGRES_NUMBER ") THEN"
        " CASE WHEN pg_advisory_unlock(%d, " POSTGRES_NUMBER ") THEN 0 ELSE 0 END"
        " WHEN %s NOT BETWEEN 0 AND %d THEN 1 ELSE",
        class, "$1", class, "$1", own, POSTGRES_PLACES - 1);
    put(out,
        " (SELECT count(*) FROM generate_series(0, %d) AS place WHERE place <> %s AND"
        " CASE WHEN pg_try_advisory_lock(%d, " POSTGRES_PLACE_NUMBER " + place) THEN"
        " NOT pg_advisory_unlock(%d, " POSTGRES_PLACE_NUMBER " + place) ELSE true END) END",
        POSTGRES_PLACES, own, class, "$1", class, "$1");
}

static void put_name(text *out, const postgres_shape *shape, char name)
{
    switch (name) {
    case 'T':
        put(out, "%s.%s", shape->schema, shape->table);
        break;
    case 'K':
        put(out, "%s", shape->cast);
        break;
    case 'M':
        put(out, "key = $1%s", shape->cast);
        break;
    case 'X':
        put(out, "key = $1%s%s", shape->cast, shape->folded ? " AND key::text = $1 COLLATE \"C\"" : "");
        break;
    case 'R':
        put(out, "%s", shape->folded ? "key = excluded.key, " : "");
        break;
    case 'U':
        put(out, "%s", POSTGRES_NOW_US);
        break;
    case 'N':
        put(out, "%s", POSTGRES_NOW_MS);
        break;
    case '3':
    case '4':
        put(out, "((" POSTGRES_NOW_US " + 999) / 1000 + $%c)", name);
        break;
    case 'F':
        put(out, "%s", POSTGRES_LEFT_MS);
        break;
    case 'V':
        put(out, "%s", POSTGRES_LIVE);
        break;
    case 'L':
        put_look(out, shape, "$4");
        break;
    case 'l':
        put_look(out, shape, "$2");
        break;
    case 'S':
        put(out,
            "($5 = 0 OR expiration IS NULL OR expiration > " POSTGRES_NOW_MS
            " + %d OR set_config('synchronous_commit', 'off', true) IS NOT NULL)",
            SOON_MS);
        break;
    case 'C':
        put(out, "%s", shape->channel);
        break;
    case 'P':
        put(out, "%d", LOCK_TABLE_PRUNE_ROWS);
        break;
    case 'A':
        put(out, "%" PRId64, LOCK_TABLE_PRUNE_AGE_US);
        break;
    default:
        put(out, "%c", name);
    }
}

/* NULL when out of memory. */
static char *expand(const postgres_lane *lane, const char *template)
{
    text out = {"", 0};
    char *sql;

    for (const char *at = template; *at; at++) {
        size_t len = strcspn(at, "%");

        put(&out, "%.*s", (int)len, at);
        at += len;
        if (!*at)
            break;
        put_name(&out, &lane->shape, *++at);
    }
    if (out.len >= sizeof out.sql)
        return NULL;
    sql = lane->session.state->host->malloc(out.len + 1);
    return sql ? memcpy(sql, out.sql, out.len + 1) : NULL;
}

static bool make_all(postgres_lane *lane, postgres_fault *fault)
{
    const char *const *by_shape = lane->shape.fenced ? fenced_sql : plain_sql;

    for (int i = 0; i < STATEMENT_COUNT; i++) {
        const char *template = common_sql[i] ? common_sql[i] : by_shape[i];

        if (!template)
            continue;
        lane->sql[i] = expand(lane, template);
        if (!lane->sql[i]) {
            verrou__postgres_fault_set(fault, VERROU_OP_RETRY, true, NULL, "out of memory");
            return false;
        }
    }
    return true;
}

/* ---- preparing ---- */

/* Those of an earlier shape are taken away first. */
static bool send_all(postgres_lane *lane, postgres_fault *fault)
{
    PGconn *conn = lane->session.conn;
    bool sent = !lane->prepared || PQsendQueryParams(conn, "DEALLOCATE ALL", 0, NULL, NULL, NULL, NULL, 0);

    for (int i = 0; i < STATEMENT_COUNT && sent; i++)
        if (lane->sql[i])
            sent = PQsendPrepare(conn, parameters[i].name, lane->sql[i], parameters[i].count, parameters[i].types);
    if (!sent)
        verrou__postgres_unsent(&lane->session, fault);
    return sent && verrou__postgres_sync(&lane->session, fault);
}

/* In one round trip. */
static bool prepare_all(postgres_lane *lane, int64_t deadline_ms, postgres_fault *fault)
{
    postgres_session *session = &lane->session;
    bool good = true;
    bool synced = false;

    if (session->pooled)
        return true;
    if (!verrou__postgres_begin(session, fault) || !send_all(lane, fault))
        return false;
    lane->prepared = true;
    while (!synced) {
        PGresult *result = verrou__postgres_result(session, deadline_ms, fault);

        if (session->broken)
            return false;
        synced = PQresultStatus(result) == PGRES_PIPELINE_SYNC;
        if (result && good && PQresultStatus(result) == PGRES_FATAL_ERROR) {
            verrou__postgres_explain(session, result, fault);
            good = false;
        }
        PQclear(result);
    }
    verrou__postgres_end(session);
    return good;
}

bool verrou__postgres_statements(postgres_lane *lane, int64_t deadline_ms, postgres_fault *fault)
{
    if (make_all(lane, fault) && prepare_all(lane, deadline_ms, fault))
        return true;
    verrou__postgres_forget(lane);
    return false;
}

void verrou__postgres_forget(postgres_lane *lane)
{
    for (int i = 0; i < STATEMENT_COUNT; i++) {
        lane->session.state->host->free(lane->sql[i]);
        lane->sql[i] = NULL;
    }
    lane->ready = false;
}

/* ---- sending ---- */

bool verrou__postgres_send(postgres_lane *lane, postgres_statement which, const char *const *values,
                           postgres_fault *fault)
{
    PGconn *conn = lane->session.conn;
    int count = parameters[which].count;
    int sent;

    if (lane->session.pooled)
        sent = PQsendQueryParams(conn, lane->sql[which], count, parameters[which].types, values, NULL, NULL, 0);
    else
        sent = PQsendQueryPrepared(conn, parameters[which].name, count, values, NULL, NULL, 0);
    if (!sent)
        verrou__postgres_unsent(&lane->session, fault);
    return sent;
}
