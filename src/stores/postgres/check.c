/*
 * check.c - whether the server and the table are fit for locks (verrou doctor). None of it is on the path of a lock.
 */
#include "postgres_store.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SKEW_MS 1000 /* of the clocks, from which on it is worth a warning */

typedef struct examination {
    postgres_session *session;
    const verrou_host *host;
    verrou_sink *sink;
    int64_t deadline_ms;
    postgres_fault fault;
    bool full; /* out of memory */
} examination;

#define FIND(e, level, ...) ((e)->full = (e)->host->finding((e)->sink, (level), __VA_ARGS__) != 0 || (e)->full)

static int64_t number(const PGresult *result, int column)
{
    return strtoll(PQgetvalue(result, 0, column), NULL, 10);
}

static bool is(const PGresult *result, int column, const char *value)
{
    return strcmp(PQgetvalue(result, 0, column), value) == 0;
}

/* ---- the server ---- */

static void check_durability(examination *e, const PGresult *result)
{
    if (is(result, 3, "off"))
        FIND(e, VERROU_WARN, "durability", "fsync is off: after a failure of the machine locks may be forgotten");
    else if (is(result, 4, "off"))
        FIND(e, VERROU_WARN, "durability",
             "synchronous_commit is off: after a failure of the server the last locks may be forgotten");
    else
        FIND(e, VERROU_INFO, "durability", "commits wait for the disk (synchronous_commit=%s)",
             PQgetvalue(result, 0, 4));
    if (number(result, 6) > 0 && is(result, 5, ""))
        FIND(
            e, VERROU_WARN, "replication",
            "standbys follow with a delay: after a failover the last locks may be forgotten (synchronous_standby_names "
            "is empty)");
    else if (number(result, 6) > 0)
        FIND(e, VERROU_INFO, "replication", "synchronous");
}

static void check_session(examination *e, const PGresult *result)
{
    const postgres_state *state = e->session->state;

    if (e->session->pooled)
        FIND(e, VERROU_INFO, "pooler", "%s: nothing is kept in the session, and waiters ask again and again%s",
             state->pooler == POOLER_TRANSACTION ? "as the address says" : "found",
             state->pooler == POOLER_TRANSACTION ? "" : " (pooler=none: it keeps a session for each client)");
    else
        FIND(e, VERROU_INFO, "pooler", "none");
    if (e->session->pooled && !is(result, 7, "read committed"))
        FIND(e, VERROU_WARN, "isolation",
             "transactions are \"%s\" by default: competing requests fail and are tried again",
             PQgetvalue(result, 0, 7));
}

static bool check_server(examination *e)
{
    static const char sql[] =
        "SELECT current_setting('server_version'), pg_is_in_recovery(), current_setting('transaction_read_only'),"
        " current_setting('fsync'), current_setting('synchronous_commit'), "
        "current_setting('synchronous_standby_names'),"
        " (SELECT count(*) FROM pg_stat_replication), current_setting('default_transaction_isolation'),"
        " (date_part('epoch', clock_timestamp()) * 1000)::bigint";
    struct timespec before, after;
    PGresult *result;
    int64_t skew_ms;

    clock_gettime(CLOCK_REALTIME, &before);
    result = verrou__postgres_ask(e->session, e->deadline_ms, &e->fault, sql, 0, NULL);
    clock_gettime(CLOCK_REALTIME, &after);
    if (!result)
        return false;
    FIND(e, VERROU_INFO, "server", "PostgreSQL %s at %s", PQgetvalue(result, 0, 0), e->session->name);
    if (is(result, 1, "t") || is(result, 2, "on"))
        FIND(e, VERROU_ERROR_LEVEL, "writing",
             is(result, 1, "t") ? "this is a standby: no lock can be taken" : "the session is read-only");
    check_session(e, result);
    check_durability(e, result);
    skew_ms =
        number(result, 8) - (int64_t)(before.tv_sec + after.tv_sec) * 500 - (before.tv_nsec + after.tv_nsec) / 2000000;
    if (skew_ms > SKEW_MS || skew_ms < -SKEW_MS)
        FIND(e, VERROU_WARN, "clock",
             "the server's is %" PRId64
             " ms %s ours: it alone counts, but the original beside us uses that of its machine",
             skew_ms > 0 ? skew_ms : -skew_ms, skew_ms > 0 ? "ahead of" : "behind");
    else
        FIND(e, VERROU_INFO, "clock", "that of the server, %" PRId64 " ms from ours", skew_ms);
    PQclear(result);
    return true;
}

/* ---- the table ---- */

static bool check_rights(examination *e)
{
    static const char sql[] = "SELECT r FROM unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS r"
                              " WHERE NOT has_table_privilege(to_regclass($1), r)";
    const char *values[] = {e->session->state->name};
    PGresult *result = verrou__postgres_ask(e->session, e->deadline_ms, &e->fault, sql, 1, values);

    if (!result)
        return false;
    for (int row = 0; row < PQntuples(result); row++) {
        const char *right = PQgetvalue(result, row, 0);
        bool delete = strcmp(right, "DELETE") == 0;

        FIND(e, delete ? VERROU_WARN : VERROU_ERROR_LEVEL, "rights", "%s on %s is missing%s", right,
             e->session->state->name, delete ? ": released rows are never removed" : "");
    }
    if (PQntuples(result) == 0)
        FIND(e, VERROU_INFO, "rights", "SELECT, INSERT, UPDATE, DELETE");
    PQclear(result);
    return true;
}

static bool check_counts(examination *e, const postgres_shape *shape)
{
    char sql[768];
    PGresult *result;
    int64_t ahead_us;

    snprintf(sql, sizeof sql,
             "SELECT count(*), count(*) FILTER (WHERE owner = '' AND expiration = 0),"
             " coalesce(max(%s), 0)::bigint - " POSTGRES_NOW_US " FROM %s.%s",
             shape->fenced ? "fence" : "0", shape->schema, shape->table);
    result = verrou__postgres_ask(e->session, e->deadline_ms, &e->fault, sql, 0, NULL);
    if (!result)
        return false;
    FIND(e, VERROU_INFO, "rows", "%s, of which %s released (kept for their tokens)", PQgetvalue(result, 0, 0),
         PQgetvalue(result, 0, 1));
    ahead_us = number(result, 2);
    if (ahead_us > 0)
        FIND(e, VERROU_WARN, "tokens",
             "the newest is %" PRId64 " ms ahead of the server's clock: it was set back, or another server's",
             ahead_us / 1000);
    PQclear(result);
    return true;
}

static bool check_waking(examination *e, const postgres_shape *shape)
{
    bool trigger = false;

    if (!verrou__postgres_has_trigger(e->session, shape, &trigger, e->deadline_ms, &e->fault))
        return false;
    if (e->session->pooled || shape->folded || !shape->may_look)
        FIND(e, VERROU_WARN, "waking", "waiters ask again and again: %s",
             e->session->pooled ? "behind a pooler nobody can listen"
             : shape->folded    ? "keys are taken for equal that are not"
                                : "the right to pg_try_advisory_lock(int, int) is missing");
    else
        FIND(e, VERROU_INFO, "waking", "LISTEN %s", shape->channel);
    FIND(e, VERROU_INFO, "trigger",
         trigger
             ? "releases by the original wake waiters"
             : "none: waiters learn of releases by the original by asking (notify-trigger=true and `schema apply`)");
    return true;
}

/* It can be made only where there is a schema for it. */
static bool check_missing(examination *e)
{
    static const char sql[] = "SELECT to_regnamespace($1) IS NULL";
    const postgres_state *state = e->session->state;
    char schema[sizeof state->table.schema + 2];
    const char *values[] = {schema};
    bool nowhere = false;

    if (state->table.schema[0]) {
        PGresult *result;

        snprintf(schema, sizeof schema, "\"%s\"", state->table.schema);
        result = verrou__postgres_ask(e->session, e->deadline_ms, &e->fault, sql, 1, values);
        if (!result)
            return false;
        nowhere = is(result, 0, "t");
        PQclear(result);
    }
    if (nowhere)
        FIND(e, VERROU_ERROR_LEVEL, "table", "%s does not exist, and neither does the schema", state->name);
    else if (state->table.autocreate)
        FIND(e, VERROU_INFO, "table", "%s does not exist yet: the first lock makes it", state->name);
    else
        FIND(e, VERROU_ERROR_LEVEL, "table", "%s does not exist, and autocreate is off: `verrou schema apply` makes it",
             state->name);
    return true;
}

static bool check_table(examination *e)
{
    const postgres_state *state = e->session->state;
    postgres_shape shape;

    if (!verrou__postgres_shape(e->session, &shape, e->deadline_ms, &e->fault)) {
        if (e->fault.code[0] || e->session->broken)
            return false;
        FIND(e, VERROU_ERROR_LEVEL, "table", "%s", e->fault.text);
        return true;
    }
    if (!shape.exists)
        return check_missing(e);
    FIND(e, shape.fenced ? VERROU_INFO : VERROU_WARN, "table", "%s.%s%s", shape.schema, shape.table,
         shape.fenced ? ""
                      : " has no column \"fence\": fencing tokens come from the clock alone; `schema apply` adds it");
    if (shape.unlogged)
        FIND(e, VERROU_ERROR_LEVEL, "durability",
             "the table is UNLOGGED: a crash of the server forgets all locks and tokens; ALTER TABLE %s SET LOGGED",
             state->name);
    FIND(e, shape.folded ? VERROU_WARN : VERROU_INFO, "collation", "keys are compared %s",
         shape.folded ? "with a collation or type that takes different keys for equal: they exclude each other"
                      : "byte by byte");
    return check_rights(e) && check_waking(e, &shape) && check_counts(e, &shape);
}

verrou_status verrou__postgres_check(void *context, void *opened, int64_t deadline_ms, verrou_sink *sink,
                                     verrou_error *err)
{
    const postgres_state *state = context;
    postgres_lane *lane = opened;
    examination e = {.session = &lane->session, .host = state->host, .sink = sink, .deadline_ms = deadline_ms};

    if (verrou__postgres_has_ended(&lane->session, &e.fault) || !check_server(&e) || !check_table(&e))
        return verrou__postgres_fail(state, &e.fault, err);
    return e.full ? state->host->fail(err, VERROU_ENOMEM, 1, NULL, "out of memory") : VERROU_OK;
}
