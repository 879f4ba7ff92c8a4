/*
 * mariadb_servers.c - a single MariaDB server and the plain client; see mariadb_servers.h.
 *
 * mariadb-install-db takes most of the time of a start. It runs once in a test program; each server works on a copy of what it made.
 */
#include "mariadb_servers.h"

#include <errmsg.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PACKAGE "mariadb-server-core mariadb-client-core"

/* ---- data ---- */

/* The folder that mariadb-install-db has filled, made at the first call. It would wait for the disk a thousand times. */
static const char *template_data(void)
{
    static char made[PROCESS_PATH + 8];
    char folder[PROCESS_PATH], data[PROCESS_PATH + 16], tmpdir[PROCESS_PATH + 16], log[PROCESS_PATH + 8];
    const char *argv[] = {"mariadb-install-db",
                          "--no-defaults",
                          data,
                          tmpdir, /* files in a folder that others use may have the same names */
                          "--auth-root-authentication-method=normal",
                          "--skip-test-db",
                          "--skip-name-resolve",
                          "--innodb-log-file-size=8M",
                          "--innodb-flush-method=nosync",
                          "--debug-no-sync",
                          NULL};

    if (made[0])
        return made;
    server_make_folder("install", folder);
    snprintf(data, sizeof data, "--datadir=%s/data", folder);
    snprintf(tmpdir, sizeof tmpdir, "--tmpdir=%s", folder);
    snprintf(log, sizeof log, "%s/log", folder);
    process_run(&(process_spec){.argv = argv, .package = PACKAGE, .log = log, .unprivileged = true});
    snprintf(made, sizeof made, "%s/data", folder);
    return made;
}

static void make_data(const mariadb_server *server)
{
    char data[PROCESS_PATH + 8];

    snprintf(data, sizeof data, "%s/data", server->folder);
    server_copy_folder(template_data(), data, server->log);
}

/* ---- configuration ---- */

static void put_tls(FILE *out, const mariadb_server *server, const mariadb_options *options)
{
    server_copy_certificate(options->tls, server->folder);
    fprintf(out, "ssl_cert=%s/tls.pem\nssl_key=%s/tls.key\nssl_ca=%s/ca.pem\n", server->folder, server->folder,
            server->folder);
}

/* Without `durable` what is committed is given to the kernel, which has it also if the server is killed. */
static void write_configuration(const mariadb_server *server, const mariadb_options *options)
{
    char *text = NULL, path[PROCESS_PATH + 16];
    size_t length;
    FILE *out = open_memstream(&text, &length);

    if (!out)
        process_fail("out of memory");
    fprintf(out, "[mariadbd]\nbind_address=127.0.0.1\nport=%d\nsocket=%s\n", server->port, server->socket);
    fprintf(out, "datadir=%s/data\ntmpdir=%s\npid_file=%s/pid\n", server->folder, server->folder, server->folder);
    fprintf(out, "character_set_server=utf8mb4\nskip_name_resolve\ngeneral_log=1\ngeneral_log_file=%s\n",
            server->general_log);
    fprintf(out, "innodb_buffer_pool_size=16M\ninnodb_log_file_size=8M\ninnodb_use_native_aio=0\n");
    if (!options->durable)
        fprintf(out, "innodb_flush_log_at_trx_commit=2\ninnodb_flush_method=nosync\ndebug_no_sync\n");
    if (options->tls)
        put_tls(out, server, options);
    fprintf(out, "%s", options->config ? options->config : "");
    fclose(out);
    snprintf(path, sizeof path, "%s/my.cnf", server->folder);
    server_write_file(path, text);
    free(text);
}

/* ---- starting ---- */

static void configure(void *configured, int port, const void *options)
{
    mariadb_server *server = configured;

    server->port = port;
    write_configuration(server, options);
}

/* An ordinary user has no /usr/sbin in PATH. */
static void run_server(void *run)
{
    mariadb_server *server = run;
    char defaults[PROCESS_PATH + 32];
    const char *argv[] = {"mariadbd", defaults, NULL};

    snprintf(defaults, sizeof defaults, "--defaults-file=%s/my.cnf", server->folder);
    process_start(&server->process, &(process_spec){.argv = argv,
                                                    .stand_in = "/usr/sbin/mariadbd",
                                                    .package = PACKAGE,
                                                    .log = server->log,
                                                    .unprivileged = true});
}

static MYSQL *try_to_connect(const mariadb_server *server)
{
    unsigned timeout = PROCESS_PATIENCE_MS / 1000;
    MYSQL *c = mysql_init(NULL);

    if (!c)
        process_fail("out of memory");
    mysql_optionsv(c, MYSQL_OPT_CONNECT_TIMEOUT, &timeout);
    mysql_optionsv(c, MYSQL_OPT_READ_TIMEOUT, &timeout);
    mysql_optionsv(c, MYSQL_OPT_WRITE_TIMEOUT, &timeout);
    mysql_optionsv(c, MYSQL_SET_CHARSET_NAME, "utf8mb4");
    mysql_optionsv(c, MYSQL_INIT_COMMAND, "SET sql_log_off = 1");
    if (!mysql_real_connect(c, NULL, MARIADB_USER, "", NULL, 0, server->socket, 0)) {
        mysql_close(c);
        c = NULL;
    }
    return c;
}

static bool answers(const void *server)
{
    MYSQL *c = try_to_connect(server);

    if (c)
        mysql_close(c);
    return c != NULL;
}

/* A polite end would write everything to the disk. */
static void end(void *server)
{
    mariadb_server_kill(server);
}

static const server_kind kind = {
    .name = "mariadbd",
    .size = sizeof(mariadb_server),
    .process_at = offsetof(mariadb_server, process),
    .stop_signal = SIGTERM,
    .configure = configure,
    .run = run_server,
    .answers = answers,
    .end = end,
};

static void fill_in(mariadb_server *server)
{
    server_make_folder("mariadb", server->folder);
    snprintf(server->log, sizeof server->log, "%s/log", server->folder);
    snprintf(server->general_log, sizeof server->general_log, "%s/general.log", server->folder);
    snprintf(server->socket, sizeof server->socket, "%.200s/socket", server->folder);
    server_check_socket(server->socket);
    make_data(server);
}

static void add_password_user(const mariadb_server *server, const mariadb_options *options)
{
    const char *password = options->password ? options->password : "";
    char literal[512];
    MYSQL *c = mariadb_server_connect(server);

    if (strlen(password) > sizeof literal / 2 - 1)
        process_fail("a password of the tests has at most %d bytes", (int)sizeof literal / 2 - 1);
    mysql_real_escape_string(c, literal, password, strlen(password));
    mysql_close(c);
    mariadb_text(server, "CREATE USER " MARIADB_PASSWORD_USER "@'%%' IDENTIFIED BY '%s' REQUIRE %s", literal,
                 options->tls_client_certificate ? "X509"
                 : options->tls_only             ? "SSL"
                                                 : "NONE");
    mariadb_text(server, "GRANT ALL ON " MARIADB_DATABASE ".* TO " MARIADB_PASSWORD_USER "@'%%'");
}

static void settle(mariadb_server *server, const mariadb_options *options)
{
    mariadb_text(server, "CREATE DATABASE " MARIADB_DATABASE);
    if (options->password || options->tls_only || options->tls_client_certificate)
        add_password_user(server, options);
    mariadb_log_forget(server);
}

mariadb_server *mariadb_server_start(const mariadb_options *options)
{
    static const mariadb_options defaults;
    mariadb_server *server = server_new(&kind);

    if (!options)
        options = &defaults;
    fill_in(server);
    server_start(server, options);
    settle(server, options);
    return server;
}

/* ---- stopping ---- */

void mariadb_server_stop(mariadb_server *server)
{
    process_stop(&server->process, SIGTERM);
}

void mariadb_server_kill(mariadb_server *server)
{
    process_kill_family(&server->process);
}

void mariadb_server_restart(mariadb_server *server)
{
    server_restart(server);
}

void mariadb_server_freeze(mariadb_server *server)
{
    process_freeze(&server->process);
}

void mariadb_server_thaw(mariadb_server *server)
{
    process_thaw(&server->process);
}

void mariadb_server_free(mariadb_server *server)
{
    server_free(server);
}

void mariadb_free_all(void)
{
    server_free_all(&kind);
}

/* ---- the plain client ---- */

MYSQL *mariadb_server_connect(const mariadb_server *server)
{
    MYSQL *c = try_to_connect(server);

    if (!c)
        process_fail("cannot connect to the MariaDB server on port %d", server->port);
    if (mysql_select_db(c, MARIADB_DATABASE) != 0 && mysql_errno(c) != 1049) /* it may have to be created yet */
        process_fail("the MariaDB server on port %d has lost its database: %s", server->port, mysql_error(c));
    return c;
}

static void put_rows(FILE *out, MYSQL_RES *rows)
{
    unsigned columns = mysql_num_fields(rows);
    MYSQL_ROW row;

    for (bool first = true; (row = mysql_fetch_row(rows)); first = false) {
        const unsigned long *lengths = mysql_fetch_lengths(rows);

        for (unsigned i = 0; i < columns; i++) {
            fputs(i ? "|" : first ? "" : "\n", out);
            fwrite(row[i] ? row[i] : "(null)", 1, row[i] ? lengths[i] : strlen("(null)"), out);
        }
    }
}

/* The rows as text, or NULL and an error as text and number. */
static const char *query(const mariadb_server *server, const char *format, va_list args, const char **ret_error,
                         unsigned *ret_number)
{
    MYSQL *c = mariadb_server_connect(server);
    char *sql = server_format(format, args), *text = server_text();
    FILE *out = fmemopen(text, SERVER_TEXT_SIZE - 1, "w");
    MYSQL_RES *rows = NULL;
    bool good;

    if (!out)
        process_fail("out of memory");
    good = mysql_real_query(c, sql, strlen(sql)) == 0;
    if (good)
        rows = mysql_store_result(c);
    if (rows)
        put_rows(out, rows);
    good = mysql_errno(c) == 0;
    if (!good)
        fprintf(out, "%s\n%s", sql, mysql_error(c));
    fclose(out);
    *ret_number = mysql_errno(c);
    *ret_error = good ? NULL : text;
    if (rows)
        mysql_free_result(rows);
    mysql_close(c);
    free(sql);
    return good ? text : NULL;
}

static const char *text_of(const mariadb_server *server, const char *format, va_list args)
{
    const char *error;
    unsigned number;
    const char *text = query(server, format, args, &error, &number);

    if (!text)
        process_fail("the MariaDB server on port %d answers with error %u to %s", server->port, number, error);
    return text;
}

const char *mariadb_text(const mariadb_server *server, const char *format, ...)
{
    va_list args;
    const char *text;

    va_start(args, format);
    text = text_of(server, format, args);
    va_end(args);
    return text;
}

long long mariadb_integer(const mariadb_server *server, const char *format, ...)
{
    va_list args;
    const char *text;

    va_start(args, format);
    text = text_of(server, format, args);
    va_end(args);
    return server_number(text, "the MariaDB server");
}

unsigned mariadb_error_number(const mariadb_server *server, const char *format, ...)
{
    va_list args;
    const char *error;
    unsigned number;

    va_start(args, format);
    query(server, format, args, &error, &number);
    va_end(args);
    return number;
}

long long mariadb_status(const mariadb_server *server, const char *name)
{
    const char *line = mariadb_text(server, "SHOW GLOBAL STATUS LIKE '%s'", name);
    const char *value = strchr(line, '|');

    if (!value)
        process_fail("the MariaDB server has no status variable %s", name);
    return server_number(value + 1, name);
}

/* ---- the logs ---- */

long mariadb_logged(const mariadb_server *server, const char *text)
{
    return server_log_lines(server->general_log, server->general_log_from, text);
}

long mariadb_errors_logged(const mariadb_server *server, const char *text)
{
    return server_log_lines(server->log, server->log_from, text);
}

void mariadb_log_forget(mariadb_server *server)
{
    server->log_from = server_log_end(server->log);
    server->general_log_from = server_log_end(server->general_log);
}
