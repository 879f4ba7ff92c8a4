/*
 * mariadb_servers.h - private MariaDB servers for tests.
 *
 * All listen on 127.0.0.1 only, on ports that nobody else gets, with their files in process_folder(). They are stopped when the test
 * program exits, at the latest. Every function returns when what it says has happened, and makes the running cmocka test fail if it
 * does not happen. MariaDB refuses to run as root; if the test is root, its servers run as "nobody".
 * Start, restart and freeze servers from a thread that stays (process.h).
 */
#ifndef VERROU_TESTS_MARIADB_SERVERS_H
#define VERROU_TESTS_MARIADB_SERVERS_H

#include "process.h"
#include "server_tools.h"

#include <mysql.h>
#include <stdbool.h>

/* ---- a server ---- */

/* A user who may do everything and is let in without a password, also over TCP; and a database, empty. */
#define MARIADB_USER "root"
#define MARIADB_DATABASE "verrou"
/* The user that a password or a certificate is for. It may do everything in the database, and nothing else. */
#define MARIADB_PASSWORD_USER "verrou"

typedef struct mariadb_server mariadb_server;

/* All may be zero: a server for utf8mb4, as distributions set it up, without password and TLS, whose data would not survive a failure of the machine, which no test causes. */
typedef struct mariadb_options {
    const char *config;          /* more lines of the section [mariadbd], each ended by \n */
    const char *password;        /* MARIADB_PASSWORD_USER exists and needs this password */
    const char *tls;             /* TLS on the same port, with this certificate: "server", "expired" or "other" */
    bool tls_only;               /* MARIADB_PASSWORD_USER is refused without TLS */
    bool tls_client_certificate; /* and without a certificate of server_certificates() */
    bool durable;                /* each commit waits for the disk, as in production */
} mariadb_options;

/* To be read only. */
struct mariadb_server {
    server_base base; /* private */
    int port;
    char folder[PROCESS_PATH]; /* "my.cnf", "log", "general.log", and the data in "data" */
    char socket[PROCESS_PATH]; /* path of the unix socket */
    process process;
    /* The rest is private. */
    char log[PROCESS_PATH + 16];
    char general_log[PROCESS_PATH + 16];
    long log_from;
    long general_log_from;
};

/* Start a server and wait until it answers. NULL stands for default options. */
mariadb_server *mariadb_server_start(const mariadb_options *options);
/* Stop it if it runs, and forget it. NULL is allowed. */
void mariadb_server_free(mariadb_server *server);
/* Stop and forget all servers; for a teardown, also after a failed test. */
void mariadb_free_all(void);

/* Ask it to shut down (SIGTERM), or kill it (SIGKILL). */
void mariadb_server_stop(mariadb_server *server);
void mariadb_server_kill(mariadb_server *server);
/* Stop it if it runs, start it again on the same port with the same data, and wait until it answers. */
void mariadb_server_restart(mariadb_server *server);
/* It stands still: connections are accepted, by the kernel, and nothing is answered. Then it goes on. */
void mariadb_server_freeze(mariadb_server *server);
void mariadb_server_thaw(mariadb_server *server);

/* ---- a plain client ---- */

/* A connection over the unix socket as MARIADB_USER, whose statements are not in the general log, with timeouts. mysql_close() it. */
MYSQL *mariadb_server_connect(const mariadb_server *server);
/*
 * Send a statement, made as printf() does, over such a connection of its own. The answer as text: a line for each row, without a
 * newline after the last, values separated by "|", "(null)" for NULL; "" without rows. Any error makes the test fail. Any thread may
 * call it; valid until the 16th call after this one.
 */
const char *mariadb_text(const mariadb_server *server, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* The same: a single integer. */
long long mariadb_integer(const mariadb_server *server, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* The same: only the number of the error, 0 if there was none. */
unsigned mariadb_error_number(const mariadb_server *server, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* A number from SHOW GLOBAL STATUS, such as "Com_commit" or "Connections". The plain client counts itself, not in Com_commit. */
long long mariadb_status(const mariadb_server *server, const char *name);

/* ---- the logs ---- */

/*
 * How many lines of the general log contain a text, since the server's start or mariadb_log_forget(). A statement is "Query\tSQL", a
 * login "Connect\tUSER@HOST on DATABASE using ..." (that of the plain client, "... using Socket", among them). They are logged before
 * they are carried out, so whoever has the answer finds the line.
 */
long mariadb_logged(const mariadb_server *server, const char *text);
/* The same of the log of errors and warnings: "[ERROR]", "[Warning]". */
long mariadb_errors_logged(const mariadb_server *server, const char *text);
void mariadb_log_forget(mariadb_server *server);

#endif
