/*
 * bare_postgres.c - see bare_postgres.h. A file of its own, because what it sees of the driver has names in common with the tests' servers.
 */
#include "bare_postgres.h"

#define OWNER "0123456789abcdef0123456789abcdef@localhost:12345" /* as long as one that is drawn */
#define MAX_PARAMETERS 4

/* Numbers of types in every PostgreSQL server. */
#define BOOL_TYPE 16
#define INT8_TYPE 20
#define TEXT_TYPE 25

enum script { ACQUIRE, RELEASE, SCRIPTS };

struct script_text {
    const char *name, *text;
    int parameters;
    Oid types[MAX_PARAMETERS];
};

/* As src/stores/postgres/ makes them for its own table: what a session is like, and the statements. */
#define SESSION                                                                                              \
    "SET lock_timeout = 10; SET default_transaction_isolation = 'read committed'; SET enable_seqscan = off;" \
    " SET enable_bitmapscan = off; SET plan_cache_mode = force_generic_plan"
#define NOW_US "(date_part('epoch', clock_timestamp()) * 1000000)::bigint"
#define NOW_MS "(" NOW_US " / 1000)"
#define END_MS "((" NOW_US " + 999) / 1000 + $3)"
#define LEFT_MS "expiration - (" NOW_US " + 999) / 1000"
#define LIVE "(expiration IS NULL OR expiration > " NOW_MS ")"
#define NUMBER "(hashtext($1 COLLATE \"C\") & 63)"

static const struct script_text scripts[SCRIPTS] = {
    [ACQUIRE] = {"bare_acquire",
                 "WITH seen AS (SELECT owner, expiration, fence FROM public.verrou WHERE key = $1 AND " LIVE
                 "), taken AS"
                 " (INSERT INTO public.verrou AS l (key, owner, expiration, fence)"
                 " SELECT $1, $2, " END_MS ", " NOW_US " WHERE $4 OR NOT EXISTS (SELECT FROM seen)"
                 " ON CONFLICT (key) DO UPDATE SET owner = excluded.owner, expiration = " END_MS ","
                 " fence = greatest(coalesce(l.fence, 0) + 1, " NOW_US ")"
                 " WHERE l.expiration <= " NOW_MS " AND coalesce(l.fence, 0) < 9007199254740991 RETURNING fence)"
                 " SELECT true, fence, NULL, NULL FROM taken UNION ALL"
                 " SELECT false, fence, owner, " LEFT_MS " FROM seen"
                 " WHERE NOT EXISTS (SELECT FROM taken)",
                 4,
                 {TEXT_TYPE, TEXT_TYPE, INT8_TYPE, BOOL_TYPE}},
    [RELEASE] = {"bare_release",
                 "UPDATE public.verrou SET owner = '', expiration = 0 WHERE key = $1 AND owner = $2 COLLATE \"C\""
                 " AND " LIVE " AND ($3 = 0 OR fence = $3)"
                 " RETURNING CASE WHEN pg_try_advisory_lock(42, " NUMBER ")"
                 " THEN CASE WHEN pg_advisory_unlock(42, " NUMBER ") THEN 0 ELSE 0 END ELSE 1 END",
                 3,
                 {TEXT_TYPE, TEXT_TYPE, INT8_TYPE}},
};

void bare_postgres_expect(PGconn *connection, PGresult *result, ExecStatusType status)
{
    if (PQresultStatus(result) != status)
        bench_die("libpq", PQerrorMessage(connection));
    if (status == PGRES_TUPLES_OK && PQntuples(result) != 1)
        bench_die("libpq", "a statement did not do its work");
    PQclear(result);
}

PGconn *bare_postgres_open(const char *url)
{
    PGconn *connection = PQconnectdb(url);

    if (PQstatus(connection) != CONNECTION_OK)
        bench_die("libpq", PQerrorMessage(connection));
    bare_postgres_expect(connection, PQexec(connection, SESSION), PGRES_COMMAND_OK);
    for (int i = 0; i < SCRIPTS; i++)
        bare_postgres_expect(
            connection,
            PQprepare(connection, scripts[i].name, scripts[i].text, scripts[i].parameters, scripts[i].types),
            PGRES_COMMAND_OK);
    return connection;
}

/* What a statement is executed with. */
struct values {
    const char *all[MAX_PARAMETERS];
};

static struct values values_of(enum script script, const char *key)
{
    return (struct values){{key, OWNER, script == ACQUIRE ? "600000" : "0", "f"}};
}

static void run(PGconn *connection, enum script script, const char *key)
{
    struct values values = values_of(script, key);

    bare_postgres_expect(
        connection,
        PQexecPrepared(connection, scripts[script].name, scripts[script].parameters, values.all, NULL, NULL, 0),
        PGRES_TUPLES_OK);
}

void bare_postgres_pair(PGconn *connection, const char *key)
{
    run(connection, ACQUIRE, key);
    run(connection, RELEASE, key);
}

static void need(PGconn *connection, int done)
{
    if (!done)
        bench_die("libpq", PQerrorMessage(connection));
}

/* Between two synchronisations lies one transaction. */
static void run_all(PGconn *connection, enum script script, char keys[][SUBJECT_KEY], int n)
{
    for (int i = 0; i < n; i++) {
        struct values values = values_of(script, keys[i]);

        need(connection, PQsendQueryPrepared(connection, scripts[script].name, scripts[script].parameters, values.all,
                                             NULL, NULL, 0));
    }
    need(connection, PQpipelineSync(connection));
    for (int i = 0; i < n; i++) {
        bare_postgres_expect(connection, PQgetResult(connection), PGRES_TUPLES_OK);
        PQclear(PQgetResult(connection)); /* the end of this statement */
    }
    bare_postgres_expect(connection, PQgetResult(connection), PGRES_PIPELINE_SYNC);
}

void bare_postgres_pipeline(PGconn *connection, char keys[][SUBJECT_KEY], int n)
{
    need(connection, PQenterPipelineMode(connection));
    run_all(connection, ACQUIRE, keys, n);
    run_all(connection, RELEASE, keys, n);
    need(connection, PQexitPipelineMode(connection));
}
