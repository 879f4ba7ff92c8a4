/*
 * redis_servers.c - a single Redis server and the plain client; see redis_servers.h. Sentinels and clusters are made of these, in
 * redis_sentinels.c and redis_cluster.c.
 */
#include "redis_servers.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_ARGUMENTS 64
#define INFO_ATTEMPTS 10

/* The plain client's own user where an ACL file decides about all others. */
#define SUPPORT_USER "verrou-tests"
#define SUPPORT_PASSWORD "verrou-tests"

/* ---- configuration ---- */

static void write_acl(redis_server *server, const char *acl)
{
    char path[PROCESS_PATH + 8], text[8192];

    snprintf(path, sizeof path, "%s/users", server->folder);
    snprintf(text, sizeof text, "user " SUPPORT_USER " on >" SUPPORT_PASSWORD " ~* &* +@all\n%s", acl);
    process_write_file(path, text);
    strcpy(server->user, SUPPORT_USER);
    strcpy(server->password, SUPPORT_PASSWORD);
}

static void put_tls(FILE *out, const redis_options *options, redis_role role, int port)
{
    const char *from = server_certificates();

    fprintf(out, "tls-port %d\ntls-cert-file %s/%s.pem\ntls-key-file %s/%s.key\ntls-ca-cert-file %s/ca.pem\n", port,
            from, options->tls, from, options->tls, from);
    fprintf(out, "tls-auth-clients %s\n", options->tls_client_certificate ? "yes" : "no");
    if (role != REDIS_ALONE)
        fprintf(out, "tls-replication yes\n");
    if (role == REDIS_CLUSTER_NODE)
        fprintf(out, "tls-cluster yes\n");
}

static void put_passwords(FILE *out, const redis_server *server, const redis_options *options, redis_role role)
{
    const redis_server *master = options->replica_of;

    if (options->acl)
        fprintf(out, "aclfile %s/users\n", server->folder);
    else if (server->password[0])
        fprintf(out, "requirepass \"%s\"\n", server->password);
    if (master && master->user[0])
        fprintf(out, "masteruser %s\n", master->user);
    if (master && master->password[0])
        fprintf(out, "masterauth \"%s\"\n", master->password);
    else if (server->password[0] &&
             (role == REDIS_NODE || role == REDIS_CLUSTER_NODE)) /* any of them may become a replica */
        fprintf(out, "masterauth \"%s\"\n", server->password);
}

int redis__server_group_port(const redis_server *server)
{
    return server->tls_port ? server->tls_port : server->port;
}

static void write_configuration(redis_server *server, const redis_options *options, redis_role role, const char *config)
{
    char *text = NULL, path[PROCESS_PATH + 16];
    const redis_server *master = options->replica_of;
    size_t length;
    FILE *out = open_memstream(&text, &length);

    if (!out)
        process_fail("out of memory");
    fprintf(out, "bind 127.0.0.1\nport %d\ndir %s\ndaemonize no\nloglevel notice\n", server->port, server->folder);
    if (role != REDIS_SENTINEL)
        fprintf(out, "save \"\"\nappendonly no\nrepl-diskless-sync yes\nrepl-diskless-sync-delay 0\n");
    if (options->tls)
        put_tls(out, options, role, server->tls_port);
    put_passwords(out, server, options, role);
    if (server->socket[0])
        fprintf(out, "unixsocket %s\nunixsocketperm 700\n", server->socket);
    if (role == REDIS_CLUSTER_NODE)
        fprintf(out, "cluster-enabled yes\ncluster-config-file nodes.conf\ncluster-port %d\n", server->bus.number);
    if (master)
        fprintf(out, "replicaof 127.0.0.1 %d\n", role == REDIS_NODE ? redis__server_group_port(master) : master->port);
    fprintf(out, "%s%s", config ? config : "", options->config ? options->config : "");
    fclose(out);
    snprintf(path, sizeof path, "%s/redis.conf", server->folder);
    process_write_file(path, text);
    free(text);
}

/* ---- starting ---- */

/*
 * On Debian redis-server and redis-sentinel are other names for redis-check-rdb, a program that looks at the name it was started by.
 * The package redis-tools has it without the system service that comes with the package redis-server.
 */
static void run_server(void *run)
{
    redis_server *server = run;
    char config[PROCESS_PATH + 16], log[PROCESS_PATH + 8];
    const char *argv[] = {"redis-server", config, server->sentinel ? "--sentinel" : NULL, NULL};

    snprintf(config, sizeof config, "%s/redis.conf", server->folder);
    snprintf(log, sizeof log, "%s/log", server->folder);
    process_start(&server->process,
                  &(process_spec){.argv = argv, .stand_in = "redis-check-rdb", .package = "redis-tools", .log = log});
}

static bool answers(const void *server)
{
    redisReply *reply = redis__try(server, 1, (const char *[]){"PING"});
    bool pong = reply && reply->type == REDIS_REPLY_STATUS && strcmp(reply->str, "PONG") == 0;

    /* A server that waits for its master's data refuses a PING with LOADING or MASTERDOWN, and answers it later. */
    if (reply)
        freeReplyObject(reply);
    return pong;
}

static void free_ports(void *of)
{
    redis_server *server = of;

    process_port_free(&server->tls_reserved);
    process_port_free(&server->bus);
}

static void take_ports(redis_server *server, const redis_options *options, redis_role role)
{
    if (options->tls) {
        server->tls_reserved = process_port_new();
        server->tls_port = server->tls_reserved.number;
    }
    if (role == REDIS_CLUSTER_NODE)
        server->bus = process_port_new();
}

/* What a server is to be, and how. */
typedef struct redis_part {
    const redis_options *options;
    redis_role role;
    const char *config;
} redis_part;

static void configure(void *configured, int port, const void *given)
{
    const redis_part *part = given;
    redis_server *server = configured;

    server->port = port;
    take_ports(server, part->options, part->role);
    write_configuration(server, part->options, part->role, part->config);
}

/* A polite end would wait for replicas. */
static void end(void *ended)
{
    redis_server *server = ended;

    redis_server_kill(server);
    free(server->group);
}

static const server_kind kind = {
    .name = "redis-server",
    .size = sizeof(redis_server),
    .process_at = offsetof(redis_server, process),
    .stop_signal = SIGTERM,
    .configure = configure,
    .free_ports = free_ports,
    .run = run_server,
    .answers = answers,
    .end = end,
};

static void fill_in(redis_server *server, const redis_options *options, redis_role role)
{
    server->sentinel = role == REDIS_SENTINEL;
    process_make_folder(server->sentinel ? "sentinel" : "redis", server->folder);
    if (options->unix_socket) {
        snprintf(server->socket, sizeof server->socket, "%.200s/socket", server->folder);
        server_check_socket(server->socket);
    }
    if (options->password)
        snprintf(server->password, sizeof server->password, "%s", options->password);
    if (options->acl)
        write_acl(server, options->acl);
}

redis_server *redis__server_new(const redis_options *options, redis_role role, const char *config)
{
    redis_server *server = server_new(&kind);

    fill_in(server, options, role);
    server_start(server, &(redis_part){options, role, config});
    return server;
}

redis_server *redis_server_start(const redis_options *options)
{
    static const redis_options defaults;
    redis_server *server = redis__server_new(options ? options : &defaults, REDIS_ALONE, NULL);

    if (options && options->replica_of)
        redis_wait_info(server, "replication", "master_link_status", "up");
    return server;
}

/* ---- stopping ---- */

void redis_server_stop(redis_server *server)
{
    process_stop(&server->process, SIGTERM);
}

void redis_server_kill(redis_server *server)
{
    process_stop(&server->process, SIGKILL);
}

void redis_server_restart(redis_server *server)
{
    server_restart(server);
}

void redis_server_freeze(redis_server *server)
{
    process_signal(&server->process, SIGSTOP);
}

void redis_server_thaw(redis_server *server)
{
    process_signal(&server->process, SIGCONT);
}

void redis_server_free(redis_server *server)
{
    server_free(server);
}

void redis_free_all(void)
{
    server_free_all(&kind);
}

int redis_teardown(void **unused)
{
    (void)unused;
    redis_free_all();
    return 0;
}

/* ---- the plain client ---- */

/* NULL if the server cannot be reached or does not want us. */
static redisContext *try_to_connect(const redis_server *server)
{
    redisContext *c =
        redisConnectWithTimeout("127.0.0.1", server->port, (struct timeval){PROCESS_PATIENCE_MS / 1000, 0});
    redisReply *reply = NULL;
    bool in = c && !c->err && redisSetTimeout(c, (struct timeval){PROCESS_PATIENCE_MS / 1000, 0}) == REDIS_OK;

    if (in && server->user[0])
        reply = redisCommand(c, "AUTH %s %s", server->user, server->password);
    else if (in && server->password[0])
        reply = redisCommand(c, "AUTH %s", server->password);
    if (in && server->password[0])
        in = reply && reply->type != REDIS_REPLY_ERROR;
    if (reply)
        freeReplyObject(reply);
    if (!in && c) {
        redisFree(c);
        c = NULL;
    }
    return c;
}

redisContext *redis_server_connect(const redis_server *server)
{
    redisContext *c = try_to_connect(server);

    if (!c)
        process_fail("cannot connect to the Redis server on port %d", server->port);
    return c;
}

redisReply *redis__try(const redis_server *server, int argc, const char **argv)
{
    redisContext *c = try_to_connect(server);
    redisReply *reply = c ? redisCommandArgv(c, argc, argv, NULL) : NULL;

    if (c)
        redisFree(c);
    return reply;
}

static redisReply *command_list(const redis_server *server, va_list args)
{
    const char *argv[MAX_ARGUMENTS];
    int argc = 0;
    redisReply *reply;

    while (argc < MAX_ARGUMENTS && (argv[argc] = va_arg(args, const char *)))
        argc++;
    if (argc == 0 || argc == MAX_ARGUMENTS)
        process_fail("a command has 1 to %d words", MAX_ARGUMENTS - 1);
    reply = redis__try(server, argc, argv);
    if (!reply)
        process_fail("the Redis server on port %d does not answer %s", server->port, argv[0]);
    return reply;
}

redisReply *redis_command(const redis_server *server, ...)
{
    va_list args;
    redisReply *reply;

    va_start(args, server);
    reply = command_list(server, args);
    va_end(args);
    return reply;
}

static void put_reply(FILE *out, const redisReply *reply)
{
    switch (reply->type) {
    case REDIS_REPLY_INTEGER:
        fprintf(out, "%lld", reply->integer);
        break;
    case REDIS_REPLY_NIL:
        fputs("(nil)", out);
        break;
    case REDIS_REPLY_ARRAY:
        for (size_t i = 0; i < reply->elements; i++) {
            if (i)
                fputc('\n', out);
            put_reply(out, reply->element[i]);
        }
        break;
    default:
        fwrite(reply->str, 1, reply->len, out);
    }
}

/* Takes the reply. */
static const char *text_of(const redis_server *server, redisReply *reply)
{
    char error[256];
    char *text;
    FILE *out;

    if (reply->type == REDIS_REPLY_ERROR) {
        snprintf(error, sizeof error, "%s", reply->str);
        freeReplyObject(reply);
        process_fail("the Redis server on port %d answers: %s", server->port, error);
    }
    text = server_text();
    out = fmemopen(text, SERVER_TEXT_SIZE - 1, "w");
    if (out) {
        put_reply(out, reply);
        fclose(out);
    }
    freeReplyObject(reply);
    return text;
}

const char *redis_text(const redis_server *server, ...)
{
    va_list args;
    redisReply *reply;

    va_start(args, server);
    reply = command_list(server, args);
    va_end(args);
    return text_of(server, reply);
}

long long redis_integer(const redis_server *server, ...)
{
    va_list args;
    redisReply *reply;

    va_start(args, server);
    reply = command_list(server, args);
    va_end(args);
    return server_number(text_of(server, reply), "the Redis server");
}

/* ---- INFO ---- */

/* What follows `name` and `separator` at the start of a line, up to `end`; cuts it off there. NULL if there is no such line. */
static char *value_of(char *info, const char *name, const char *separator, const char *end)
{
    size_t length = strlen(name), more = strlen(separator);

    for (char *line = info; line; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (strncmp(line, name, length) == 0 && strncmp(line + length, separator, more) == 0) {
            line += length + more;
            line[strcspn(line, end)] = '\0';
            return line;
        }
    }
    return NULL;
}

/* A sentinel that makes a node a replica also closes all connections to it; so one that breaks is tried again. */
static char *info_text(const redis_server *server, const char *section)
{
    redisReply *reply = NULL;

    for (int attempt = 0; !reply && attempt < INFO_ATTEMPTS; attempt++) {
        if (attempt > 0)
            process_pause();
        reply = redis__try(server, 2, (const char *[]){"INFO", section});
    }
    if (!reply)
        process_fail("the Redis server on port %d does not answer INFO", server->port);
    return (char *)(uintptr_t)text_of(server, reply);
}

const char *redis_info(const redis_server *server, const char *section, const char *field)
{
    char *info = info_text(server, section);
    const char *value = value_of(info, field, ":", "\r\n");

    return value ? value : "";
}

long long redis_calls(const redis_server *server, const char *command)
{
    char *info = info_text(server, "commandstats");
    char name[64];
    const char *value;

    snprintf(name, sizeof name, "cmdstat_%s", command);
    value = value_of(info, name, ":calls=", ",\r\n");
    return value ? strtoll(value, NULL, 10) : 0;
}

void redis_wait_info(const redis_server *server, const char *section, const char *field, const char *value)
{
    int64_t deadline = process_clock_ms() + PROCESS_PATIENCE_MS;
    const char *now = redis_info(server, section, field);

    while (strcmp(now, value) != 0) {
        if (process_clock_ms() > deadline)
            process_fail("the Redis server on port %d still has %s:%s instead of %s", server->port, field, now, value);
        process_pause();
        now = redis_info(server, section, field);
    }
}
