/*
 * server_tools.h - what the servers of this folder share: starting and stopping, answers as text, counted log lines, certificates, copies of folders.
 */
#ifndef VERROU_TESTS_SERVER_TOOLS_H
#define VERROU_TESTS_SERVER_TOOLS_H

#include "process.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

/* ---- a server of any kind ---- */

/* What the servers of a kind are; `server` is the struct of that kind, which begins with a server_base. */
typedef struct server_kind {
    const char *name;        /* of the program, for messages */
    size_t size, process_at; /* of the struct, and where its `process` is in it */
    int stop_signal;         /* has it shut down */
    void (*configure)(void *server, int port, const void *options);
    void (*run)(void *server); /* process_start() */
    bool (*answers)(const void *server);
    void (*end)(void *server); /* at once, running or not, with what there is of it besides its ports and its struct */
    void (*free_ports)(void *server); /* those that configure() took besides; NULL: none */
} server_kind;

typedef struct server_base {
    const server_kind *kind;
    process_port reserved;
    struct server_base *next;
} server_base;

/* A struct of that kind, zero but for its base. It is in the list of all servers from now on. */
void *server_new(const server_kind *kind);
/* Configure it, run it, and wait until it answers; on other ports if it ends before that. */
void server_start(void *server, const void *options);
/* Stop it if it runs, run it again on the same ports, and wait until it answers. */
void server_restart(void *server);
/* End it, and forget it. NULL is allowed. */
void server_free(void *server);
void server_free_all(const server_kind *kind);

/* ---- tools ---- */

/* The folder with the files that certificates.sh lists, made at the first call. */
const char *server_certificates(void);

/* Room for an answer as text, SERVER_TEXT_SIZE bytes that are zero. Used again by the 16th call after this one, of any thread. */
#define SERVER_TEXT_SIZE 32768
char *server_text(void);
/* The number that a text is; anything else makes the test fail. `from` says in the message where it comes from. */
long long server_number(const char *text, const char *from);

/* Memory for the caller to free, made as printf() does. */
char *server_format(const char *format, va_list args) __attribute__((format(printf, 1, 0)));

/* How many lines of a log, from an offset on, contain a text; 0 if there is no such file. And where it ends. */
long server_log_lines(const char *path, long from, const char *text);
long server_log_end(const char *path);

/* A folder as unprivileged programs see it: theirs, and empty; a copy of a folder of theirs; and a file with a text, of theirs. */
void server_make_folder(const char *name, char ret_path[PROCESS_PATH]);
void server_copy_folder(const char *from, const char *to, const char *log);
void server_write_file(const char *path, const char *text);
/* Whether the path of a unix socket is short enough. */
void server_check_socket(const char *path);
/* Copies of a certificate and its key, "tls.pem" and "tls.key" in a folder of an unprivileged program. */
void server_copy_certificate(const char *name, const char *folder);

#endif
