/*
 * pgbouncer.h - a pooler in front of a PostgreSQL server, on a port of its own, that gives a client a session for one transaction only.
 *
 * What postgres_servers.h says of servers holds for it too; it refuses to run as root as well.
 */
#ifndef VERROU_TESTS_PGBOUNCER_H
#define VERROU_TESTS_PGBOUNCER_H

#include "postgres_servers.h"

typedef struct pgbouncer {
    server_base base;          /* private */
    int port;                  /* to be read only, like all of this */
    char folder[PROCESS_PATH]; /* "pgbouncer.ini", "users" and "log" */
    process process;
    /* The rest is private. */
    const postgres_server *server;
} pgbouncer;

/*
 * Start a pooler with at most `pool_size` sessions of each user on the server, and wait until it answers. It lets POSTGRES_USER and
 * POSTGRES_PASSWORD_USER in without a password.
 */
pgbouncer *pgbouncer_start(const postgres_server *server, int pool_size);
/* The same, with more lines for the section [pgbouncer] of its configuration, each ended by \n. They outdo those before. */
pgbouncer *pgbouncer_start_with(const postgres_server *server, int pool_size, const char *config);
/* Stop it if it runs, and forget it. NULL is allowed. */
void pgbouncer_free(pgbouncer *pooler);
/* Stop and forget all poolers. */
void pgbouncer_free_all(void);

/* A connection through it, as POSTGRES_USER, with a timeout. PQfinish() it. */
PGconn *pgbouncer_connect(const pgbouncer *pooler);

#endif
