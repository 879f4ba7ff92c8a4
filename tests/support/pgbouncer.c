/*
 * pgbouncer.c - see pgbouncer.h. It speaks to its server over the unix socket, where the server asks nobody for a password.
 */
#include "pgbouncer.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#define START_ATTEMPTS 5

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pgbouncer *poolers;

static void write_configuration(const pgbouncer *pooler, int pool_size, const char *config)
{
    char path[PROCESS_PATH + 16], *text = NULL;
    size_t length;
    FILE *out = open_memstream(&text, &length);

    if (!out)
        process_fail("out of memory");
    fprintf(out, "[databases]\n* = host=%s port=%d\n", pooler->server->folder, pooler->server->port);
    fprintf(out, "[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = %d\nunix_socket_dir =\n", pooler->port);
    fprintf(out, "auth_type = trust\nauth_file = %s/users\npool_mode = transaction\n", pooler->folder);
    fprintf(out, "default_pool_size = %d\n%s", pool_size, config ? config : "");
    fclose(out);
    snprintf(path, sizeof path, "%s/pgbouncer.ini", pooler->folder);
    server_write_file(path, text);
    free(text);
    snprintf(path, sizeof path, "%s/users", pooler->folder);
    server_write_file(path, "\"" POSTGRES_USER "\" \"\"\n\"" POSTGRES_PASSWORD_USER "\" \"\"\n");
}

/* An ordinary user has no /usr/sbin in PATH. */
static void run_pooler(pgbouncer *pooler)
{
    char config[PROCESS_PATH + 16], log[PROCESS_PATH + 8];
    const char *argv[] = {"pgbouncer", config, NULL};

    snprintf(config, sizeof config, "%s/pgbouncer.ini", pooler->folder);
    snprintf(log, sizeof log, "%s/log", pooler->folder);
    process_start(
        &pooler->process,
        &(process_spec){
            .argv = argv, .stand_in = "/usr/sbin/pgbouncer", .package = "pgbouncer", .log = log, .unprivileged = true});
}

static PGconn *try_to_connect(const pgbouncer *pooler)
{
    PGconn *c = postgres__connect("127.0.0.1", pooler->port, NULL);

    if (PQstatus(c) == CONNECTION_OK)
        return c;
    PQfinish(c);
    return NULL;
}

/* False if it ended without ever answering. */
static bool wait_for_answer(pgbouncer *pooler)
{
    int64_t deadline = process_clock_ms() + PROCESS_PATIENCE_MS;
    PGconn *c;

    while (process_clock_ms() < deadline) {
        if ((c = try_to_connect(pooler))) {
            PQfinish(c);
            return true;
        }
        if (!process_running(&pooler->process))
            return false;
        process_pause();
    }
    process_print_log(&pooler->process);
    process_fail("pgbouncer on port %d runs but does not answer", pooler->port);
}

static pgbouncer *add_pooler(const postgres_server *server)
{
    pgbouncer *pooler = calloc(1, sizeof *pooler);

    if (!pooler)
        process_fail("out of memory");
    pooler->server = server;
    pthread_mutex_lock(&mutex);
    pooler->next = poolers;
    poolers = pooler;
    pthread_mutex_unlock(&mutex);
    return pooler;
}

pgbouncer *pgbouncer_start_with(const postgres_server *server, int pool_size, const char *config)
{
    pgbouncer *pooler = add_pooler(server);

    server_make_folder("pgbouncer", pooler->folder);
    for (int attempt = 0; attempt < START_ATTEMPTS; attempt++) {
        pooler->reserved = process_port_new();
        pooler->port = pooler->reserved.number;
        write_configuration(pooler, pool_size, config);
        run_pooler(pooler);
        if (wait_for_answer(pooler))
            return pooler;
        process_port_free(&pooler->reserved);
    }
    process_print_log(&pooler->process);
    process_fail("pgbouncer does not start; its log is above");
}

pgbouncer *pgbouncer_start(const postgres_server *server, int pool_size)
{
    return pgbouncer_start_with(server, pool_size, NULL);
}

void pgbouncer_free(pgbouncer *pooler)
{
    pgbouncer **link = &poolers;

    if (!pooler)
        return;
    pthread_mutex_lock(&mutex);
    while (*link && *link != pooler)
        link = &(*link)->next;
    if (*link)
        *link = pooler->next;
    pthread_mutex_unlock(&mutex);
    process_kill_family(&pooler->process);
    process_port_free(&pooler->reserved);
    free(pooler);
}

void pgbouncer_free_all(void)
{
    while (poolers)
        pgbouncer_free(poolers);
}

PGconn *pgbouncer_connect(const pgbouncer *pooler)
{
    PGconn *c = try_to_connect(pooler);

    if (!c)
        process_fail("cannot connect to the pooler on port %d", pooler->port);
    return c;
}
