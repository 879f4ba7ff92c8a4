/*
 * bench_postgres.c - the PostgreSQL store, beside libpq with the same statements and beside the original with knex and pg, on a server of
 * its own that waits for the disk with each commit.
 *
 * The reference of a hand-off is that of a session's advisory lock: from the call of pg_advisory_unlock() in one process to the return
 * of pg_advisory_lock() in the other. Statements are counted in the server's log.
 */
#include <signal.h>

#include "bare_postgres.h"
#include "handoff.h"
#include "postgres_servers.h"
#include "server_use.h"
#include "subject.h"

/* The tests want little servers that log everything; these are the defaults of the server. */
#define CONFIG "log_statement = none\nshared_buffers = 128MB\nmax_wal_size = 1GB\n"

struct bench {
    postgres_server *server;
    char url[128];
};

static void *bare_open(void *arg)
{
    return bare_postgres_open(((struct bench *)arg)->url);
}

static void bare_close(void *bare)
{
    PQfinish(bare);
}

static void bare_pair(void *bare, const char *key)
{
    bare_postgres_pair(bare, key);
}

static void bare_pipeline(void *bare, char keys[][SUBJECT_KEY], int n)
{
    bare_postgres_pipeline(bare, keys, n);
}

static double server_us(void *arg)
{
    return server_use_now(((struct bench *)arg)->server->process.pid).cpu_us;
}

static double server_writes(void *arg)
{
    return server_use_now(((struct bench *)arg)->server->process.pid).writes;
}

/* ---- counting ---- */

/* Returns when all sessions will do so with their next statement. */
static void log_statements(const struct bench *bench, const char *which)
{
    const char *before = postgres_text(bench->server, "SELECT clock_timestamp()");

    postgres_text(bench->server, "ALTER SYSTEM SET log_statement = '%s'", which);
    postgres_text(bench->server, "SELECT pg_reload_conf()");
    while (strcmp(postgres_text(bench->server, "SELECT pg_conf_load_time() > '%s'", before), "t") != 0)
        bench_sleep_ms(1);
}

static void count_begin(void *arg)
{
    struct bench *bench = arg;

    log_statements(bench, "all");
    postgres_log_forget(bench->server);
}

static long long count_end(void *arg)
{
    struct bench *bench = arg;
    long long sent =
        postgres_logged(bench->server, "LOG:  execute ") + postgres_logged(bench->server, "LOG:  statement: ");

    log_statements(bench, "none");
    return sent;
}

/* Have the table made, and see in the log what the store says. */
static void learn_statements(const struct subject *subject, struct bench *bench)
{
    char log[PROCESS_PATH + 8];

    snprintf(log, sizeof(log), "%s/log", bench->server->folder);
    log_statements(bench, "all");
    subject_make_table(subject);
    bare_postgres_statements.acquire = bench_logged(log, "LOG:  execute verrou_acquire: ");
    bare_postgres_statements.release = bench_logged(log, "LOG:  execute verrou_release: ");
    log_statements(bench, "none");
}

/* ---- the reference of a hand-off ---- */

static void *advisory_open(const char *url)
{
    PGconn *connection = bare_postgres_open(url);

    bare_postgres_expect(connection, PQexec(connection, "SET lock_timeout = 0"), PGRES_COMMAND_OK);
    return connection;
}

static void advisory_run(PGconn *connection, const char *sql)
{
    bare_postgres_expect(connection, PQexecParams(connection, sql, 0, NULL, NULL, NULL, NULL, 0), PGRES_TUPLES_OK);
}

static void advisory_acquire(void *connection)
{
    advisory_run(connection, "SELECT pg_advisory_lock(42)");
}

static void advisory_release(void *connection)
{
    advisory_run(connection, "SELECT pg_advisory_unlock(42)");
}

static double run_advisory(void *arg)
{
    static const struct handoff_lock advisory = {advisory_open, advisory_acquire, advisory_release, bare_close};
    struct handoff *handoff = bench_share(sizeof(*handoff));
    double median;

    strcpy(handoff->url, ((struct bench *)arg)->url);
    median = handoff_round(handoff, &advisory);
    munmap(handoff, sizeof(*handoff));
    return median;
}

/* ---- all ---- */

int main(int argc, char **argv)
{
    struct bench bench = {.server = postgres_server_start(&(postgres_options){.durable = true, .config = CONFIG})};
    struct subject subject = {
        .name = "PostgreSQL",
        .url = bench.url,
        .bare = "libpq",
        .requests = "statements",
        .work = "writes by the server",
        .original = "postgres",
        .original_url = bench.url,
        .server = &bench,
        .bare_open = bare_open,
        .bare_close = bare_close,
        .bare_pair = bare_pair,
        .bare_pipeline = bare_pipeline,
        .server_us = server_us,
        .server_work = server_writes,
        .count_begin = count_begin,
        .count_end = count_end,
    };
    const struct subject_database aims = {
        .alone = 0.9,
        .flights = {.pipeline = 0.5, .original = 5, .connections = -1},
        .threads = {.pipeline = 0.5, .original = 5, .connections = 0},
        .handoff_name = "pg_advisory_lock",
        .handoff_reference = run_advisory,
        .handoff = 5,
        .going = 20,
        .requests = 2,
    };

    snprintf(bench.url, sizeof(bench.url), "postgres://" POSTGRES_USER "@127.0.0.1:%d/" POSTGRES_DATABASE,
             bench.server->port);
    learn_statements(&subject, &bench);
    subject_database(&subject,
                     postgres_text(bench.server, "SELECT split_part(current_setting('server_version'), ' ', 1)"), &aims,
                     argc, argv);
    postgres_server_free(bench.server);
    return 0;
}
