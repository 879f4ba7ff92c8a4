/*
 * postgres_servers.c - a single PostgreSQL server, a standby and the plain client; see postgres_servers.h.
 *
 * initdb takes most of the time of a start. It runs once in a test program; each server works on a copy of what it made. Configuration
 * lies beside the data, not in it, so that a copy never brings that of another server along.
 */
#include "postgres_servers.h"

#include <errno.h>
#include <glob.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/shm.h>
#include <unistd.h>

#define PACKAGE "postgresql"

/* ---- programs ---- */

static bool has_initdb(const char *folder)
{
    char path[PROCESS_PATH + 8];

    snprintf(path, sizeof path, "%s/initdb", folder);
    return access(path, X_OK) == 0;
}

/* What pg_config says is only where a server of its version would be. */
static bool folder_from_pg_config(char ret[PROCESS_PATH])
{
    FILE *pipe = popen("pg_config --bindir 2>/dev/null", "r");
    bool found = pipe && fgets(ret, PROCESS_PATH, pipe);

    if (pipe)
        pclose(pipe);
    if (found)
        ret[strcspn(ret, "\n")] = '\0';
    return found && has_initdb(ret);
}

static bool newest_folder(char ret[PROCESS_PATH])
{
    glob_t found = {0};
    double newest = 0;

    glob("/usr/lib/postgresql/*/bin", 0, NULL, &found);
    for (size_t i = 0; i < found.gl_pathc; i++) {
        double version = strtod(found.gl_pathv[i] + strlen("/usr/lib/postgresql/"), NULL);

        if (version > newest && has_initdb(found.gl_pathv[i])) {
            newest = version;
            snprintf(ret, PROCESS_PATH, "%s", found.gl_pathv[i]);
        }
    }
    globfree(&found);
    return newest > 0;
}

/* A program of the server: its path, or its name, for PATH to have it. */
static const char *program(const char *name, char ret[PROCESS_PATH + 32])
{
    static char folder[PROCESS_PATH];
    static bool looked;

    if (!looked && !folder_from_pg_config(folder) && !newest_folder(folder))
        folder[0] = '\0';
    looked = true;
    snprintf(ret, PROCESS_PATH + 32, "%s%s%s", folder, folder[0] ? "/" : "", name);
    return ret;
}

static void run_program(const char *const *argv, const char *log)
{
    process_run(&(process_spec){.argv = argv, .package = PACKAGE, .log = log, .unprivileged = true});
}

/* ---- data ---- */

/* The folder that initdb has filled, made at the first call. */
static const char *template_data(void)
{
    static char made[PROCESS_PATH + 8];
    char folder[PROCESS_PATH], data[PROCESS_PATH + 8], log[PROCESS_PATH + 8], initdb[PROCESS_PATH + 32];
    const char *argv[] = {
        program("initdb", initdb), "-D",        data, "-U", POSTGRES_USER, "-A", "trust", "-E", "UTF8", "--locale=C",
        "--wal-segsize=1",         "--no-sync", NULL};

    if (made[0])
        return made;
    server_make_folder("initdb", folder);
    snprintf(data, sizeof data, "%s/data", folder);
    snprintf(log, sizeof log, "%s/log", folder);
    run_program(argv, log);
    strcpy(made, data);
    return made;
}

static void copy_primary(const postgres_server *server, const char *data)
{
    char port[16], path[PROCESS_PATH + 32];
    const char *argv[] = {program("pg_basebackup", path),
                          "-h",
                          server->primary->folder,
                          "-p",
                          port,
                          "-U",
                          POSTGRES_USER,
                          "-D",
                          data,
                          "-c",
                          "fast",
                          "-X",
                          "stream",
                          "--no-sync",
                          "-R",
                          NULL};

    snprintf(port, sizeof port, "%d", server->primary->port);
    run_program(argv, server->log);
}

static void make_data(const postgres_server *server)
{
    char data[PROCESS_PATH + 8];

    snprintf(data, sizeof data, "%s/data", server->folder);
    if (server->primary)
        copy_primary(server, data);
    else
        server_copy_folder(template_data(), data, server->log);
}

/* ---- configuration ---- */

static void write_text(const postgres_server *server, const char *name, FILE *out, char **text)
{
    char path[PROCESS_PATH + 32];

    fclose(out);
    snprintf(path, sizeof path, "%s/%s", server->folder, name);
    server_write_file(path, *text);
    free(*text);
}

static FILE *new_text(char **text, size_t *length)
{
    FILE *out = open_memstream(text, length);

    if (!out)
        process_fail("out of memory");
    return out;
}

/* Whoever comes over the unix socket is the plain client. */
static void write_hba(const postgres_server *server, const postgres_options *options)
{
    const char *kind = options->tls_only || options->tls_client_certificate ? "hostssl" : "host";
    const char *more = options->tls_client_certificate ? " clientcert=verify-ca" : "";
    char *text = NULL;
    size_t length;
    FILE *out = new_text(&text, &length);

    fprintf(out, "%slocal all all trust\nlocal replication all trust\n", options->hba ? options->hba : "");
    if (options->password)
        fprintf(out, "%s all " POSTGRES_PASSWORD_USER " 127.0.0.1/32 scram-sha-256%s\n", kind, more);
    fprintf(out, "%s all all 127.0.0.1/32 trust%s\n", kind, more);
    write_text(server, "pg_hba.conf", out, &text);
}

static void put_tls(FILE *out, const postgres_server *server, const postgres_options *options)
{
    server_copy_certificate(options->tls, server->folder);
    fprintf(out, "ssl = on\nssl_cert_file = '%s/tls.pem'\nssl_key_file = '%s/tls.key'\n", server->folder,
            server->folder);
    if (options->tls_client_certificate)
        fprintf(out, "ssl_ca_file = '%s/ca.pem'\n", server->folder);
}

/*
 * dynamic_shared_memory_type: in files of the data folder, which a killed server does not leave behind.
 */
static void write_configuration(const postgres_server *server, const postgres_options *options)
{
    char *text = NULL;
    size_t length;
    FILE *out = new_text(&text, &length);

    fprintf(out, "listen_addresses = '127.0.0.1'\nport = %d\nunix_socket_directories = '%s'\n", server->port,
            server->folder);
    fprintf(out, "data_directory = '%s/data'\nhba_file = '%s/pg_hba.conf'\nident_file = '%s/data/pg_ident.conf'\n",
            server->folder, server->folder, server->folder);
    fprintf(out, "dynamic_shared_memory_type = mmap\nshared_buffers = 16MB\nmax_wal_size = 128MB\n");
    fprintf(out, "log_line_prefix = '%%m [%%p] '\nlog_statement = all\nlogging_collector = off\n");
    if (!options->durable)
        fprintf(out, "fsync = off\nfull_page_writes = off\n");
    if (options->tls)
        put_tls(out, server, options);
    fprintf(out, "%s", options->config ? options->config : "");
    write_text(server, "postgresql.conf", out, &text);
}

/* ---- starting ---- */

static void configure(void *configured, int port, const void *options)
{
    postgres_server *server = configured;

    server->port = port;
    write_configuration(server, options);
}

/* With SIGQUIT it also ends its other processes and gives its shared memory back. */
static void run_server(void *run)
{
    postgres_server *server = run;
    char path[PROCESS_PATH + 32], config[PROCESS_PATH + 64];
    const char *argv[] = {program("postgres", path), "-c", config, NULL};

    snprintf(config, sizeof config, "config_file=%s/postgresql.conf", server->folder);
    process_start(
        &server->process,
        &(process_spec){
            .argv = argv, .package = PACKAGE, .log = server->log, .unprivileged = true, .end_signal = SIGQUIT});
}

PGconn *postgres__connect(const char *host, int port, const char *options)
{
    const char *names[] = {
        "host", "port", "user", "dbname", "connect_timeout", "application_name", options ? "options" : NULL, NULL};
    char number[16];
    const char *values[] = {host, number, POSTGRES_USER, POSTGRES_DATABASE, "60", "verrou tests", options, NULL};
    PGconn *c;

    snprintf(number, sizeof number, "%d", port);
    c = PQconnectdbParams(names, values, 0);
    if (!c)
        process_fail("out of memory");
    return c;
}

static PGconn *try_to_connect(const postgres_server *server)
{
    PGconn *c = postgres__connect(server->folder, server->port, "-c log_statement=none -c client_min_messages=warning");

    if (PQstatus(c) == CONNECTION_OK)
        return c;
    PQfinish(c);
    return NULL;
}

static bool answers(const void *server)
{
    PGconn *c = try_to_connect(server);

    if (c)
        PQfinish(c);
    return c != NULL;
}

/* A killed server's segment would be there until the machine is started again. Its number is in line 7 of this file. */
static void free_shared_memory(const postgres_server *server)
{
    char path[PROCESS_PATH + 32], line[256];
    unsigned long key;
    int id;
    FILE *in;

    snprintf(path, sizeof path, "%s/data/postmaster.pid", server->folder);
    in = fopen(path, "re");
    for (int i = 1; in && fgets(line, sizeof line, in); i++) {
        if (i == 7 && sscanf(line, "%lu %d", &key, &id) == 2)
            shmctl(id, IPC_RMID, NULL);
    }
    if (in)
        fclose(in);
}

/* A polite end would wait for standbys. */
static void end(void *ended)
{
    postgres_server *server = ended;

    process_thaw(&server->process);
    process_stop(&server->process, SIGQUIT);
    free_shared_memory(server);
}

static const server_kind kind = {
    .name = "postgres",
    .size = sizeof(postgres_server),
    .process_at = offsetof(postgres_server, process),
    .stop_signal = SIGINT,
    .configure = configure,
    .run = run_server,
    .answers = answers,
    .end = end,
};

/* exit() after a test that failed: then nobody calls postgres_free_all(), and a killed process would not give its shared memory back. */
static pid_t owner;

static void clean_up(void)
{
    if (getpid() == owner) /* a forked child may leave through exit() as well */
        postgres_free_all();
}

static void clean_up_at_exit(void)
{
    static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

    process_folder(); /* so that its exit handler comes after ours */
    pthread_mutex_lock(&mutex);
    if (!owner)
        atexit(clean_up);
    owner = getpid();
    pthread_mutex_unlock(&mutex);
}

static void fill_in(postgres_server *server, const postgres_options *options)
{
    char socket[PROCESS_PATH + 32];

    server_make_folder("postgres", server->folder);
    snprintf(server->log, sizeof server->log, "%s/log", server->folder);
    snprintf(socket, sizeof socket, "%s/.s.PGSQL.65535.lock", server->folder);
    server_check_socket(socket);
    server->primary = options->standby_of;
    make_data(server);
}

static void add_password_user(const postgres_server *server, const char *password)
{
    PGconn *c = postgres_connect(server);
    char *literal = PQescapeLiteral(c, password, strlen(password));

    if (!literal)
        process_fail("not a password for PostgreSQL: %s", PQerrorMessage(c));
    postgres_text(server,
                  "CREATE USER " POSTGRES_PASSWORD_USER
                  " PASSWORD %s; GRANT CREATE ON SCHEMA public TO " POSTGRES_PASSWORD_USER,
                  literal);
    PQfreemem(literal);
    PQfinish(c);
}

static void settle(postgres_server *server, const postgres_options *options)
{
    if (server->primary)
        postgres_catch_up(server);
    else if (options->password)
        add_password_user(server, options->password);
    postgres_log_forget(server);
}

postgres_server *postgres_server_start(const postgres_options *options)
{
    static const postgres_options defaults;
    postgres_server *server = server_new(&kind);

    if (!options)
        options = &defaults;
    clean_up_at_exit();
    fill_in(server, options);
    write_hba(server, options);
    server_start(server, options);
    settle(server, options);
    return server;
}

/* ---- stopping ---- */

void postgres_server_stop(postgres_server *server)
{
    process_stop(&server->process, SIGINT);
}

void postgres_server_kill(postgres_server *server)
{
    process_kill_family(&server->process);
}

void postgres_server_restart(postgres_server *server)
{
    server_restart(server);
}

void postgres_server_freeze(postgres_server *server)
{
    process_freeze(&server->process);
}

void postgres_server_thaw(postgres_server *server)
{
    process_thaw(&server->process);
}

void postgres_server_free(postgres_server *server)
{
    server_free(server);
}

void postgres_free_all(void)
{
    server_free_all(&kind);
}

/* ---- standbys ---- */

void postgres_catch_up(postgres_server *standby)
{
    int64_t deadline = process_clock_ms() + PROCESS_PATIENCE_MS;
    const char *position = postgres_text(standby->primary, "SELECT pg_current_wal_flush_lsn()");

    while (strcmp(postgres_text(standby, "SELECT pg_last_wal_replay_lsn() >= '%s'", position), "t") != 0) {
        if (process_clock_ms() > deadline)
            process_fail("the standby on port %d does not get to %s", standby->port, position);
        process_pause();
    }
}

void postgres_promote(postgres_server *standby)
{
    if (strcmp(postgres_text(standby, "SELECT pg_promote(true, %d)", PROCESS_PATIENCE_MS / 1000), "t") != 0)
        process_fail("the standby on port %d is not promoted", standby->port);
    standby->primary = NULL;
}

/* ---- the plain client ---- */

PGconn *postgres_connect(const postgres_server *server)
{
    PGconn *c = try_to_connect(server);

    if (!c)
        process_fail("cannot connect to the PostgreSQL server on port %d", server->port);
    return c;
}

static void put_rows(FILE *out, const PGresult *result)
{
    for (int row = 0; row < PQntuples(result); row++) {
        for (int column = 0; column < PQnfields(result); column++) {
            fputs(column ? "|" : row ? "\n" : "", out);
            fputs(PQgetisnull(result, row, column) ? "(null)" : PQgetvalue(result, row, column), out);
        }
    }
}

static bool succeeded(const PGresult *result)
{
    ExecStatusType status = PQresultStatus(result);

    return status == PGRES_TUPLES_OK || status == PGRES_COMMAND_OK || status == PGRES_EMPTY_QUERY;
}

/* The rows as text, or NULL and an error as text. */
static const char *query(const postgres_server *server, const char *format, va_list args, const char **ret_error,
                         char ret_state[8])
{
    PGconn *c = postgres_connect(server);
    char *sql = server_format(format, args), *text = server_text();
    PGresult *result = PQexec(c, sql);
    const char *state = PQresultErrorField(result, PG_DIAG_SQLSTATE);
    bool good = succeeded(result);
    FILE *out = fmemopen(text, SERVER_TEXT_SIZE - 1, "w");

    if (!out)
        process_fail("out of memory");
    if (good)
        put_rows(out, result);
    else
        fprintf(out, "%s\n%s", sql, PQerrorMessage(c));
    fclose(out);
    snprintf(ret_state, 8, "%s", good ? "" : state ? state : "none");
    *ret_error = good ? NULL : text;
    PQclear(result);
    PQfinish(c);
    free(sql);
    return good ? text : NULL;
}

static const char *text_of(const postgres_server *server, const char *format, va_list args)
{
    const char *error;
    char state[8];
    const char *text = query(server, format, args, &error, state);

    if (!text)
        process_fail("the PostgreSQL server on port %d answers with %s to %s", server->port, state, error);
    return text;
}

const char *postgres_text(const postgres_server *server, const char *format, ...)
{
    va_list args;
    const char *text;

    va_start(args, format);
    text = text_of(server, format, args);
    va_end(args);
    return text;
}

long long postgres_integer(const postgres_server *server, const char *format, ...)
{
    va_list args;
    const char *text;

    va_start(args, format);
    text = text_of(server, format, args);
    va_end(args);
    return server_number(text, "the PostgreSQL server");
}

const char *postgres_sqlstate(const postgres_server *server, const char *format, ...)
{
    char *text = server_text(), state[8];
    va_list args;
    const char *error;

    va_start(args, format);
    query(server, format, args, &error, state);
    va_end(args);
    strcpy(text, state);
    return text;
}

/* ---- the log ---- */

long postgres_logged(const postgres_server *server, const char *text)
{
    return server_log_lines(server->log, server->log_from, text);
}

void postgres_log_forget(postgres_server *server)
{
    server->log_from = server_log_end(server->log);
}
