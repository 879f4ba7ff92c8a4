/*
 * server_tools.c - see server_tools.h.
 */
#include "server_tools.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

#define TEXTS 17
#define START_ATTEMPTS 5

/* ---- a server of any kind ---- */

static pthread_mutex_t servers_mutex = PTHREAD_MUTEX_INITIALIZER;
static server_base *servers;

static process *process_of(server_base *server)
{
    return (process *)((char *)server + server->kind->process_at);
}

void *server_new(const server_kind *kind)
{
    server_base *server = calloc(1, kind->size);

    if (!server)
        process_fail("out of memory");
    server->kind = kind;
    pthread_mutex_lock(&servers_mutex);
    server->next = servers;
    servers = server;
    pthread_mutex_unlock(&servers_mutex);
    return server;
}

/* False if it ended without ever answering. */
static bool wait_for_answer(server_base *server)
{
    int64_t deadline = process_clock_ms() + PROCESS_PATIENCE_MS;

    while (process_clock_ms() < deadline) {
        if (server->kind->answers(server))
            return true;
        if (!process_running(process_of(server)))
            return false;
        process_pause();
    }
    process_print_log(process_of(server));
    process_fail("%s runs but does not answer; its log is above", server->kind->name);
}

static void free_ports(server_base *server)
{
    process_port_free(&server->reserved);
    if (server->kind->free_ports)
        server->kind->free_ports(server);
}

void server_start(void *started, const void *options)
{
    server_base *server = started;

    for (int attempt = 0; attempt < START_ATTEMPTS; attempt++) {
        server->reserved = process_port_new();
        server->kind->configure(server, server->reserved.number, options);
        server->kind->run(server);
        if (wait_for_answer(server))
            return;
        free_ports(server);
    }
    process_print_log(process_of(server));
    process_fail("%s does not start; its log is above", server->kind->name);
}

void server_restart(void *restarted)
{
    server_base *server = restarted;

    process_stop(process_of(server), server->kind->stop_signal);
    server->kind->run(server);
    if (wait_for_answer(server))
        return;
    process_print_log(process_of(server));
    process_fail("%s does not start again; its log is above", server->kind->name);
}

void server_free(void *freed)
{
    server_base *server = freed, **link = &servers;

    if (!server)
        return;
    pthread_mutex_lock(&servers_mutex);
    while (*link && *link != server)
        link = &(*link)->next;
    if (*link)
        *link = server->next;
    pthread_mutex_unlock(&servers_mutex);
    server->kind->end(server);
    free_ports(server);
    free(server);
}

void server_free_all(const server_kind *kind)
{
    server_base *server;

    do {
        pthread_mutex_lock(&servers_mutex);
        for (server = servers; server && server->kind != kind;)
            server = server->next;
        pthread_mutex_unlock(&servers_mutex);
        server_free(server);
    } while (server);
}

/* ---- certificates ---- */

const char *server_certificates(void)
{
    static char made[PROCESS_PATH];
    char folder[PROCESS_PATH], log[PROCESS_PATH + 8];
    const char *script[] = {"sh", VERROU_TEST_SUPPORT_DIR "/certificates.sh", folder, NULL};
    const char *version[] = {"openssl", "version", NULL}; /* its absence is better told by its own name */

    if (made[0])
        return made;
    process_make_folder("certificates", folder);
    snprintf(log, sizeof log, "%s/log", folder);
    process_run(&(process_spec){.argv = version, .package = "openssl", .log = log});
    process_run(&(process_spec){.argv = script, .package = "dash", .log = log});
    strcpy(made, folder);
    return made;
}

/* ---- texts ---- */

char *server_text(void)
{
    static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
    static char texts[TEXTS][SERVER_TEXT_SIZE];
    static int next;
    char *text;

    pthread_mutex_lock(&mutex);
    text = texts[next++ % TEXTS];
    pthread_mutex_unlock(&mutex);
    memset(text, 0, SERVER_TEXT_SIZE);
    return text;
}

long long server_number(const char *text, const char *from)
{
    char *end;
    long long value = strtoll(text, &end, 10);

    if (end == text || *end)
        process_fail("%s answers no number: %s", from, text);
    return value;
}

char *server_format(const char *format, va_list args)
{
    char *text = NULL;

    if (vasprintf(&text, format, args) < 0)
        process_fail("out of memory");
    return text;
}

/* ---- logs ---- */

long server_log_lines(const char *path, long from, const char *text)
{
    FILE *log = fopen(path, "re");
    size_t room = 0;
    char *line = NULL;
    long count = 0;

    if (!log)
        return 0;
    fseek(log, from, SEEK_SET);
    while (getline(&line, &room, log) >= 0)
        count += strstr(line, text) != NULL;
    free(line);
    fclose(log);
    return count;
}

long server_log_end(const char *path)
{
    FILE *log = fopen(path, "re");
    long end = 0;

    if (log) {
        fseek(log, 0, SEEK_END);
        end = ftell(log);
        fclose(log);
    }
    return end;
}

/* ---- folders and files ---- */

void server_make_folder(const char *name, char ret_path[PROCESS_PATH])
{
    process_make_folder(name, ret_path);
    process_give_away(ret_path);
}

void server_copy_folder(const char *from, const char *to, const char *log)
{
    const char *argv[] = {"cp", "-Rp", from, to, NULL};

    process_run(&(process_spec){.argv = argv, .package = "coreutils", .log = log, .unprivileged = true});
}

void server_write_file(const char *path, const char *text)
{
    process_write_file(path, text);
    process_give_away(path);
}

void server_check_socket(const char *path)
{
    if (strlen(path) >= sizeof((struct sockaddr_un *)0)->sun_path)
        process_fail("TMPDIR is too long for a unix socket: %s", path);
}

static void copy_file(const char *from, const char *to)
{
    char text[8192] = "";
    FILE *in = fopen(from, "re");

    if (!in || fread(text, 1, sizeof text - 1, in) == 0)
        process_fail("cannot read %s: %s", from, strerror(errno));
    fclose(in);
    server_write_file(to, text);
}

void server_copy_certificate(const char *name, const char *folder)
{
    static const char *const suffixes[] = {"pem", "key"};
    char from[2 * PROCESS_PATH], to[2 * PROCESS_PATH];

    for (int i = 0; i < 2; i++) {
        snprintf(from, sizeof from, "%s/%s.%s", server_certificates(), name, suffixes[i]);
        snprintf(to, sizeof to, "%s/tls.%s", folder, suffixes[i]);
        copy_file(from, to);
    }
    snprintf(from, sizeof from, "%s/ca.pem", server_certificates());
    snprintf(to, sizeof to, "%s/ca.pem", folder);
    copy_file(from, to);
}
