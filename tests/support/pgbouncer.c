/*
 * pgbouncer.c - see pgbouncer.h. It speaks to its server over the unix socket, where the server asks nobody for a password.
 */
#include "pgbouncer.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

typedef struct pgbouncer_options {
    int pool_size;
    const char *config;
} pgbouncer_options;

static void write_configuration(const pgbouncer *pooler, const pgbouncer_options *options)
{
    char path[PROCESS_PATH + 16], *text = NULL;
    size_t length;
    FILE *out = open_memstream(&text, &length);

    if (!out)
        process_fail("out of memory");
    fprintf(out, "[databases]\n* = host=%s port=%d\n", pooler->server->folder, pooler->server->port);
    fprintf(out, "[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = %d\nunix_socket_dir =\n", pooler->port);
    fprintf(out, "auth_type = trust\nauth_file = %s/users\npool_mode = transaction\n", pooler->folder);
    fprintf(out, "default_pool_size = %d\n%s", options->pool_size, options->config ? options->config : "");
    fclose(out);
    snprintf(path, sizeof path, "%s/pgbouncer.ini", pooler->folder);
    server_write_file(path, text);
    free(text);
    snprintf(path, sizeof path, "%s/users", pooler->folder);
    server_write_file(path, "\"" POSTGRES_USER "\" \"\"\n\"" POSTGRES_PASSWORD_USER "\" \"\"\n");
}

static void configure(void *configured, int port, const void *options)
{
    pgbouncer *pooler = configured;

    pooler->port = port;
    write_configuration(pooler, options);
}

/* An ordinary user has no /usr/sbin in PATH. */
static void run_server(void *run)
{
    pgbouncer *pooler = run;
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

static bool answers(const void *pooler)
{
    PGconn *c = try_to_connect(pooler);

    if (c)
        PQfinish(c);
    return c != NULL;
}

static void end(void *pooler)
{
    process_kill_family(&((pgbouncer *)pooler)->process);
}

static const server_kind kind = {
    .name = "pgbouncer",
    .size = sizeof(pgbouncer),
    .process_at = offsetof(pgbouncer, process),
    .stop_signal = SIGINT,
    .configure = configure,
    .run = run_server,
    .answers = answers,
    .end = end,
};

pgbouncer *pgbouncer_start_with(const postgres_server *server, int pool_size, const char *config)
{
    pgbouncer *pooler = server_new(&kind);

    pooler->server = server;
    server_make_folder("pgbouncer", pooler->folder);
    server_start(pooler, &(pgbouncer_options){pool_size, config});
    return pooler;
}

pgbouncer *pgbouncer_start(const postgres_server *server, int pool_size)
{
    return pgbouncer_start_with(server, pool_size, NULL);
}

void pgbouncer_free(pgbouncer *pooler)
{
    server_free(pooler);
}

void pgbouncer_free_all(void)
{
    server_free_all(&kind);
}

PGconn *pgbouncer_connect(const pgbouncer *pooler)
{
    PGconn *c = try_to_connect(pooler);

    if (!c)
        process_fail("cannot connect to the pooler on port %d", pooler->port);
    return c;
}
