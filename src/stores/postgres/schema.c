/*
 * schema.c - what the table should be, as text or carried out: the table, the column `fence` in one that the original made, and, if the address
 * asks for it, a trigger that tells our waiters of locks that the original frees.
 *
 * Whatever locks the table gives up soon and tries again: who waits for such a lock behind a long reader makes everybody else wait as well.
 */
#include "postgres_store.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#define LOCK_WAIT "100" /* milliseconds */
#define LOCK_WAIT_MS 100
#define PAUSE_MS 50
#define MAX_SQL 2048

static const char header[] = "-- Verrou lock table for PostgreSQL, schema version 1. Can be run again.";

/* ---- the statements ---- */

static void alter_sql(const postgres_state *state, char *sql, size_t size)
{
    snprintf(sql, size, "ALTER TABLE %s ADD COLUMN IF NOT EXISTS fence bigint NOT NULL DEFAULT 0", state->name);
}

/*
 * The original frees a lock by deleting its row. Ours stay as tombstones, and those that are pruned have no owner. As in our own statements,
 * nothing is notified unless somebody waits. Class and channel come from the trigger: one function serves all tables of a schema.
 */
static void function_sql(const postgres_shape *shape, char *sql, size_t size)
{
    static const char key[] = "OLD.key::text";

    snprintf(sql, size,
             "CREATE OR REPLACE FUNCTION %s." POSTGRES_TRIGGER "() RETURNS trigger LANGUAGE plpgsql AS $verrou$\n"
             "BEGIN\n"
             "    IF OLD.owner = '' OR octet_length(OLD.key) > 255 THEN\n"
             "        RETURN NULL;\n"
             "    ELSIF pg_try_advisory_lock(TG_ARGV[0]::int, " POSTGRES_NUMBER ") THEN\n"
             "        PERFORM pg_advisory_unlock(TG_ARGV[0]::int, " POSTGRES_NUMBER ");\n"
             "    ELSE\n"
             "        PERFORM pg_notify(TG_ARGV[1], OLD.key);\n"
             "    END IF;\n"
             "    RETURN NULL;\n"
             "END $verrou$",
             shape->schema, key, key);
}

static void trigger_sql(const postgres_shape *shape, char *sql, size_t size)
{
    snprintf(sql, size,
             "DROP TRIGGER IF EXISTS " POSTGRES_TRIGGER " ON %s.%s;\n"
             "CREATE TRIGGER " POSTGRES_TRIGGER " AFTER DELETE ON %s.%s FOR EACH ROW EXECUTE FUNCTION"
             " %s." POSTGRES_TRIGGER "('%d', '%s')",
             shape->schema, shape->table, shape->schema, shape->table, shape->schema, shape->lock_class,
             shape->channel);
}

/* ---- apply ---- */

/* Run statements, again and again while somebody else has locked the table. */
static bool run_patiently(postgres_session *session, const char *statements, int64_t deadline_ms, postgres_fault *fault)
{
    const verrou_host *host = session->state->host;
    const struct timespec pause = {0, PAUSE_MS * 1000000L};
    char sql[2 * MAX_SQL + 128];

    snprintf(sql, sizeof sql, "SELECT set_config('lock_timeout', '" LOCK_WAIT "', true); %s", statements);
    for (;;) {
        if (verrou__postgres_run(session, deadline_ms, fault, sql))
            return true;
        if (session->broken || strcmp(fault->code, "55P03") != 0 ||
            host->now_ms() + PAUSE_MS + LOCK_WAIT_MS >= deadline_ms)
            break;
        nanosleep(&pause, NULL);
    }
    if (!session->broken && strcmp(fault->code, "55P03") == 0)
        verrou__postgres_fault_set(fault, VERROU_OP_RETRY, true, "55P03", "%s: somebody else is using table %s",
                                   session->name, session->state->name);
    return false;
}

bool verrou__postgres_has_trigger(postgres_session *session, const postgres_shape *shape, bool *ret_has,
                                  int64_t deadline_ms, postgres_fault *fault)
{
    static const char sql[] = "SELECT FROM pg_trigger WHERE tgrelid = to_regclass($1) AND tgname = '" POSTGRES_TRIGGER
                              "' AND tgenabled <> 'D' AND position($2 IN encode(tgargs, 'escape')) > 0";
    const char *values[] = {session->state->name, shape->channel};
    PGresult *result = verrou__postgres_ask(session, deadline_ms, fault, sql, 2, values);

    if (!result)
        return false;
    *ret_has = PQntuples(result) > 0;
    PQclear(result);
    return true;
}

static bool apply_trigger(postgres_session *session, const postgres_shape *shape, int64_t deadline_ms,
                          postgres_fault *fault)
{
    char function[MAX_SQL], trigger[MAX_SQL], sql[2 * MAX_SQL + 8];
    bool has = false;

    if (!verrou__postgres_has_trigger(session, shape, &has, deadline_ms, fault))
        return false;
    function_sql(shape, function, sizeof function);
    trigger_sql(shape, trigger, sizeof trigger);
    snprintf(sql, sizeof sql, "%s; %s", function, has ? "" : trigger);
    return run_patiently(session, sql, deadline_ms, fault);
}

static bool apply(postgres_session *session, int64_t deadline_ms, postgres_fault *fault)
{
    postgres_shape shape;
    char sql[512];

    if (!verrou__postgres_shape(session, &shape, deadline_ms, fault))
        return false;
    if (!shape.exists && (!verrou__postgres_create_table(session, deadline_ms, fault) ||
                          !verrou__postgres_shape(session, &shape, deadline_ms, fault)))
        return false;
    if (!shape.fenced) {
        alter_sql(session->state, sql, sizeof sql);
        if (!run_patiently(session, sql, deadline_ms, fault))
            return false;
    }
    return !session->state->notify_trigger || apply_trigger(session, &shape, deadline_ms, fault);
}

/* ---- print ---- */

static bool print_trigger(const postgres_shape *shape, const verrou_host *host, verrou_sink *sink)
{
    char function[MAX_SQL], trigger[MAX_SQL];

    function_sql(shape, function, sizeof function);
    trigger_sql(shape, trigger, sizeof trigger);
    return host->text_add(sink, "%s;\n%s;\n", function, trigger) == 0;
}

static verrou_status print(postgres_session *session, int64_t deadline_ms, verrou_sink *sink, verrou_error *err)
{
    const postgres_state *state = session->state;
    const verrou_host *host = state->host;
    postgres_shape shape;
    postgres_fault fault;
    char create[768], alter[512];
    bool good;

    if (!verrou__postgres_shape(session, &shape, deadline_ms, &fault))
        return verrou__postgres_fail(state, &fault, err);
    verrou__postgres_create_sql(state, true, create, sizeof create);
    alter_sql(state, alter, sizeof alter);
    good = host->text_add(sink, "%s\n%s;\n", header, create) == 0;
    if (good && shape.exists && !shape.fenced)
        good = host->text_add(sink, "%s;\n", alter) == 0;
    if (good && state->notify_trigger && shape.exists)
        good = print_trigger(&shape, host, sink);
    else if (good && state->notify_trigger)
        good = host->text_add(sink, "-- The trigger can be told once the table is there.\n") == 0;
    return good ? VERROU_OK : host->fail(err, VERROU_ENOMEM, 1, NULL, "out of memory");
}

verrou_status verrou__postgres_schema(void *context, void *opened, int do_apply, int64_t deadline_ms, verrou_sink *sink,
                                      verrou_error *err)
{
    const postgres_state *state = context;
    postgres_lane *lane = opened;
    postgres_fault fault;

    if (verrou__postgres_has_ended(&lane->session, &fault))
        return verrou__postgres_fail(state, &fault, err);
    verrou__postgres_forget(lane);
    if (!do_apply)
        return print(&lane->session, deadline_ms, sink, err);
    return apply(&lane->session, deadline_ms, &fault) ? VERROU_OK : verrou__postgres_fail(state, &fault, err);
}
