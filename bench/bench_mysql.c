/*
 * bench_mysql.c - the MySQL and MariaDB store, beside libmariadb with the same statements and beside the original with knex and mysql2, on a
 * MariaDB server of its own that waits for the disk with each commit.
 *
 * The hand-off stands beside that of a lock of the session: from the call of RELEASE_LOCK() in one process to the return of GET_LOCK() in
 * the other. The server pushes nothing, so there is no aim. Statements are counted by the server.
 */
#include <signal.h>

#include "bare_mysql.h"
#include "handoff.h"
#include "mariadb_servers.h"
#include "server_use.h"
#include "subject.h"

/* The tests want little servers that log everything; these are the defaults of the server. */
#define CONFIG "general_log=0\ninnodb_buffer_pool_size=128M\ninnodb_log_file_size=96M\n"

struct bench {
    mariadb_server *server;
    char url[128];
    long long questions; /* when counting began */
};

static void *bare_open(void *arg)
{
    struct bare_mysql *bare = bench_alloc(1, sizeof(*bare));

    bare_mysql_open(bare, ((struct bench *)arg)->server->port, MARIADB_USER, MARIADB_DATABASE);
    return bare;
}

static void bare_close(void *bare)
{
    bare_mysql_close(bare);
    free(bare);
}

static void bare_pair(void *bare, const char *key)
{
    bare_mysql_pair(bare, key);
}

static double server_us(void *arg)
{
    return server_use_now(((struct bench *)arg)->server->process.pid).cpu_us;
}

static double server_writes(void *arg)
{
    return server_use_now(((struct bench *)arg)->server->process.pid).writes;
}

static void count_begin(void *arg)
{
    struct bench *bench = arg;

    bench->questions = mariadb_status(bench->server, "Questions");
}

/* Asking is counted as well: ask twice. */
static long long count_end(void *arg)
{
    const struct bench *bench = arg;
    long long once = mariadb_status(bench->server, "Questions");
    long long twice = mariadb_status(bench->server, "Questions");

    return once - bench->questions - (twice - once);
}

/* Have the table made, and see in the log what the store says. */
static void learn_statements(const struct subject *subject, const struct bench *bench)
{
    char log[PROCESS_PATH + 16];

    snprintf(log, sizeof(log), "%s/general.log", bench->server->folder);
    mariadb_text(bench->server, "SET GLOBAL general_log = 1");
    subject_make_table(subject);
    bare_mysql_statements[0] = bench_logged(log, "Prepare\tINSERT ") - strlen("INSERT ");
    bare_mysql_statements[1] = bench_logged(log, "Prepare\tUPDATE ") - strlen("UPDATE ");
    mariadb_text(bench->server, "SET GLOBAL general_log = 0");
}

/* ---- the reference of a hand-off ---- */

/* `url` is the port. */
static void *named_open(const char *url)
{
    struct bare_mysql *bare = bench_alloc(1, sizeof(*bare));

    bare_mysql_open(bare, (int)strtol(url, NULL, 10), MARIADB_USER, MARIADB_DATABASE);
    return bare;
}

static void named_acquire(void *bare)
{
    if (bare_mysql_integer(bare, "SELECT GET_LOCK('account:42', 60)") != 1)
        bench_die("GET_LOCK", "did not get it");
}

static void named_release(void *bare)
{
    if (bare_mysql_integer(bare, "SELECT RELEASE_LOCK('account:42')") != 1)
        bench_die("RELEASE_LOCK", "did not have it");
}

static double run_named(void *arg)
{
    static const struct handoff_lock named = {named_open, named_acquire, named_release, bare_close};
    struct handoff *handoff = bench_share(sizeof(*handoff));
    double median;

    snprintf(handoff->url, sizeof(handoff->url), "%d", ((struct bench *)arg)->server->port);
    median = handoff_round(handoff, &named);
    munmap(handoff, sizeof(*handoff));
    return median;
}

/* ---- all ---- */

int main(int argc, char **argv)
{
    struct bench bench = {.server = mariadb_server_start(&(mariadb_options){.durable = true, .config = CONFIG})};
    struct subject subject = {
        .name = "MariaDB",
        .url = bench.url,
        .bare = "libmariadb",
        .requests = "statements",
        .work = "writes by the server",
        .original = "mysql",
        .original_url = bench.url,
        .server = &bench,
        .bare_open = bare_open,
        .bare_close = bare_close,
        .bare_pair = bare_pair,
        .server_us = server_us,
        .server_work = server_writes,
        .count_begin = count_begin,
        .count_end = count_end,
    };
    const struct subject_database aims = {
        .alone = 0.9,
        .flights = {.pipeline = -1, .original = 2, .connections = -1},
        .threads = {.pipeline = -1, .original = 2, .connections = 0},
        .handoff_name = "GET_LOCK",
        .handoff_reference = run_named,
        .going = 20,
    };

    snprintf(bench.url, sizeof(bench.url), "mysql://" MARIADB_USER "@127.0.0.1:%d/" MARIADB_DATABASE,
             bench.server->port);
    learn_statements(&subject, &bench);
    subject_database(&subject, mariadb_text(bench.server, "SELECT SUBSTRING_INDEX(VERSION(), '-', 1)"), &aims, argc,
                     argv);
    mariadb_server_free(bench.server);
    return 0;
}
