/*
 * postgres_servers.h - private PostgreSQL servers for tests: one alone, a standby of another, a pooler in front of one.
 *
 * All listen on 127.0.0.1 only, on ports that nobody else gets, with their files in process_folder(). They are stopped when the test
 * program exits, at the latest. Every function returns when what it says has happened, and makes the running cmocka test fail if it
 * does not happen. PostgreSQL refuses to run as root; if the test is root, its servers run as "nobody".
 * Start, restart and freeze servers from a thread that stays (process.h).
 */
#ifndef VERROU_TESTS_POSTGRES_SERVERS_H
#define VERROU_TESTS_POSTGRES_SERVERS_H

#include "process.h"
#include "server_tools.h"

#include <libpq-fe.h>
#include <stdbool.h>

/* ---- a server ---- */

/* Its superuser, let in without a password, and its database. */
#define POSTGRES_USER "postgres"
#define POSTGRES_DATABASE "postgres"
/* The user that a password is for. It may make tables in the database, and is no superuser. */
#define POSTGRES_PASSWORD_USER "verrou"

typedef struct postgres_server postgres_server;

/* All may be zero: a server without password and TLS, whose data would not survive a failure of the machine, which no test causes. */
typedef struct postgres_options {
    const char *config;          /* more lines of postgresql.conf, each ended by \n */
    const char *hba;             /* lines of pg_hba.conf, each ended by \n, that go before all others */
    const char *password;        /* POSTGRES_PASSWORD_USER exists, and over TCP needs this password (SCRAM) */
    const char *tls;             /* TLS on the same port, with this certificate: "server", "expired" or "other" */
    bool tls_only;               /* over TCP, refuse whoever comes without TLS */
    bool tls_client_certificate; /* over TCP, only those that show a certificate of server_certificates() */
    bool durable;                /* fsync = on and what goes with it, as in production */
    postgres_server *standby_of; /* a read-only copy that follows this server */
} postgres_options;

/* To be read only. */
struct postgres_server {
    server_base base; /* private */
    int port;
    char folder[PROCESS_PATH]; /* the unix socket, "postgresql.conf", "pg_hba.conf", "log", and the data in "data" */
    process process;
    /* The rest is private. */
    char log[PROCESS_PATH + 8];
    long log_from;
    postgres_server *primary;
};

/* Start a server and wait until it answers. NULL stands for default options. A standby has caught up with its primary. */
postgres_server *postgres_server_start(const postgres_options *options);
/* Stop it if it runs, and forget it. NULL is allowed. */
void postgres_server_free(postgres_server *server);
/* Stop and forget all servers; for a teardown, also after a failed test. Happens at exit as well. */
void postgres_free_all(void);

/* Have it shut down, with its clients disconnected (SIGINT), or kill it, with all its processes (SIGKILL). */
void postgres_server_stop(postgres_server *server);
void postgres_server_kill(postgres_server *server);
/* Stop it if it runs, start it again on the same port with the same data, and wait until it answers. */
void postgres_server_restart(postgres_server *server);
/* All its processes stand still: connections are accepted, by the kernel, and nothing is answered. Then they go on. */
void postgres_server_freeze(postgres_server *server);
void postgres_server_thaw(postgres_server *server);

/* Wait until a standby has applied all that its primary has committed. */
void postgres_catch_up(postgres_server *standby);
/* Make a standby a server that may write, and wait until it is. Its primary is not told. */
void postgres_promote(postgres_server *standby);

/* ---- a plain client ---- */

/* A connection over the unix socket as the superuser, whose statements are not logged, with a timeout. PQfinish() it. */
PGconn *postgres_connect(const postgres_server *server);
/*
 * Send SQL, made as printf() does, over such a connection of its own. The answer as text: a line for each row, without a newline after
 * the last, values separated by "|", "(null)" for NULL; "" without rows. Any error makes the test fail. Any thread may call it; valid
 * until the 16th call after this one.
 */
const char *postgres_text(const postgres_server *server, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* The same: a single integer. */
long long postgres_integer(const postgres_server *server, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* The same: only the SQLSTATE of the error, "" if there was none, "none" if there was no server to give one. */
const char *postgres_sqlstate(const postgres_server *server, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* ---- the log ---- */

/*
 * How many lines of the server's log contain a text, since its start or postgres_log_forget(). Statements are logged before they are
 * carried out and errors before they are told, so whoever has the answer finds the line. A statement is "LOG:  statement: SQL", or
 * "LOG:  execute NAME: SQL" in the extended protocol; an error is "ERROR:  text", and a broken session "FATAL:  text".
 */
long postgres_logged(const postgres_server *server, const char *text);
void postgres_log_forget(postgres_server *server);

/* ---- shared by the files of this library ---- */

/* A connection as the superuser, or one that failed; with options of the session, or NULL. */
PGconn *postgres__connect(const char *host, int port, const char *options);

#endif
