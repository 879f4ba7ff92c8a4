/*
 * bare_postgres.c - see bare_postgres.h. A file of its own, because what it sees of the driver has names in common with the tests' servers.
 */
#include "bare_postgres.h"

#define OWNER "0123456789abcdef0123456789abcdef@localhost:12345" /* as long as one that is drawn */
#define PARAMETERS 5

/* Numbers of types in every PostgreSQL server. */
#define INT8_TYPE 20
#define INT4_TYPE 23
#define TEXT_TYPE 25

enum which { ACQUIRE, RELEASE, SCRIPTS };

/* What a session of the store is like; but this one does not try again when a row or the end of the table is locked for 10 ms. */
#define SESSION                                                                                                \
    "SET lock_timeout = 1000; SET default_transaction_isolation = 'read committed'; SET enable_seqscan = off;" \
    " SET enable_bitmapscan = off; SET plan_cache_mode = force_generic_plan"

struct bare_postgres_statements bare_postgres_statements;

/*
 * Parameters: key, owner, the length of the lease or 0 for whatever token, how to ask or where we listen (nowhere), and that nothing else is
 * in the transaction.
 */
static const Oid types[PARAMETERS] = {TEXT_TYPE, TEXT_TYPE, INT8_TYPE, INT4_TYPE, INT4_TYPE};

static const struct script {
    const char *name;
    int count;
    const char *values[PARAMETERS];
} scripts[SCRIPTS] = {
    [ACQUIRE] = {"bare_acquire", 4, {NULL, OWNER, "30000", "0"}},
    [RELEASE] = {"bare_release", 5, {NULL, OWNER, "0", "-1", "1"}},
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
    for (int i = 0; i < SCRIPTS; i++) {
        const char *text = i == ACQUIRE ? bare_postgres_statements.acquire : bare_postgres_statements.release;

        bare_postgres_expect(connection, PQprepare(connection, scripts[i].name, text, scripts[i].count, types),
                             PGRES_COMMAND_OK);
    }
    return connection;
}

static void run(PGconn *connection, enum which which, const char *key)
{
    struct script script = scripts[which];

    script.values[0] = key;
    bare_postgres_expect(connection,
                         PQexecPrepared(connection, script.name, script.count, script.values, NULL, NULL, 0),
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
static void run_all(PGconn *connection, enum which which, char keys[][SUBJECT_KEY], int n)
{
    struct script script = scripts[which];

    for (int i = 0; i < n; i++) {
        script.values[0] = keys[i];
        script.values[PARAMETERS - 1] = "0";
        need(connection, PQsendQueryPrepared(connection, script.name, script.count, script.values, NULL, NULL, 0));
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
