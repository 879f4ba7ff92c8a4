/*
 * mysql.c - the MySQL and MariaDB store: the driver table, the address and its settings, the state.
 */
#include "mysql_store.h"

#include <stdio.h>
#include <string.h>
#include <verrou/mysql.h>

#define DEFAULT_PORT 3306
#define DEFAULT_CONNECT_TIMEOUT_MS 2000
#define MAX_NAME 64 /* of a database, in characters; its bytes are the server's business */

static const char *const schemes[] = {"mysql", "mariadb", NULL};
static const char *const settings[] = {"table", "autocreate", "connect-timeout", "socket", "tls", "ca", "cert",
                                       "key",   NULL};

/* ---- settings ---- */

typedef struct reader {
    mysql_state *state;
    const verrou_url *url;
    verrou_error *err;
    verrou_status status;
} reader;

static void refuse(reader *r, const char *what, const char *value, const char *allowed)
{
    if (r->status == VERROU_OK)
        r->status = r->state->host->fail(r->err, VERROU_ECONFIG, 0, NULL, "%s: %s%s%s: it must be %s", r->url->scheme,
                                         what, value ? "=" : "", value ? value : "", allowed);
}

static void no_memory(reader *r)
{
    if (r->status == VERROU_OK)
        r->status = r->state->host->fail(r->err, VERROU_ENOMEM, 0, NULL, "out of memory");
}

static void read_text(reader *r, const char *value, char **ret)
{
    if (!value)
        return;
    *ret = r->state->host->malloc(strlen(value) + 1);
    if (*ret)
        strcpy(*ret, value);
    else
        no_memory(r);
}

static void read_connect_timeout(reader *r)
{
    const char *value = r->state->host->setting(r->url, "connect-timeout");
    int64_t *ret = &r->state->connect_timeout_ms;

    if (!value || r->status != VERROU_OK)
        return;
    if (r->state->host->duration(value, ret, NULL) != VERROU_OK || *ret < 1 || *ret == VERROU_FOREVER)
        refuse(r, "connect-timeout", value, "a duration of 1 ms or more");
}

static void read_endpoints(reader *r)
{
    mysql_state *state = r->state;
    const verrou_url *url = r->url;
    const char *socket = state->host->setting(url, "socket");
    size_t count = url->endpoint_count && !socket ? url->endpoint_count : 1;

    if (socket &&
        (url->endpoint_count > 1 || (url->endpoint_count == 1 && strcmp(url->endpoints[0].host, "localhost") != 0))) {
        refuse(r, "socket", socket, "left out, or the host: mysql://USER:PASSWORD@/DATABASE?socket=PATH");
        return;
    }
    state->endpoints = state->host->malloc(count * sizeof *state->endpoints);
    if (!state->endpoints) {
        no_memory(r);
        return;
    }
    state->endpoint_count = count;
    for (size_t i = 0; i < count; i++) {
        bool given = i < url->endpoint_count;
        const char *host = socket ? socket : (given ? url->endpoints[i].host : "127.0.0.1");
        int port = socket ? 0 : (given && url->endpoints[i].port ? url->endpoints[i].port : DEFAULT_PORT);

        if (!*host || !verrou__mysql_address_set(&state->endpoints[i], host, port))
            refuse(r, socket ? "socket" : "host", host, "1 to 255 bytes");
    }
}

/* Not quoted in messages: a misplaced password may be in it. */
static void read_database(reader *r)
{
    const char *path = r->url->path;
    const char *name = path && *path == '/' ? path + 1 : "";

    if (!*name) {
        if (!r->state->settings.schema[0])
            refuse(r, "the address names no database", NULL,
                   "mysql://USER:PASSWORD@HOST/DATABASE, or have ?table=DATABASE.TABLE");
        return;
    }
    if (strchr(name, '/') || strlen(name) > (size_t)4 * MAX_NAME)
        refuse(r, "the path of the address", NULL, "the name of a database");
    read_text(r, name, &r->state->database);
}

static void read_tls(reader *r)
{
    const verrou_host *host = r->state->host;
    const char *tls = host->setting(r->url, "tls");
    const char *ca = host->setting(r->url, "ca");
    const char *cert = host->setting(r->url, "cert");
    const char *key = host->setting(r->url, "key");

    if (tls && strcmp(tls, "off") != 0 && strcmp(tls, "encrypt") != 0 && strcmp(tls, "verify") != 0)
        refuse(r, "tls", tls, "off, encrypt or verify");
    else if (tls && strcmp(tls, "off") == 0 && (ca || cert || key))
        refuse(r, "tls", tls, "left out: ca, cert and key ask for TLS");
    else if (tls && strcmp(tls, "verify") == 0 && !ca)
        refuse(r, "tls", tls, "given with ca, the file with the authorities to trust");
    else if (tls && strcmp(tls, "encrypt") == 0 && ca)
        refuse(r, "tls", tls, "verify, or left out, where ca is given");
    else if (!tls && !ca && (cert || key))
        refuse(r, cert ? "cert" : "key", NULL,
               "given with ca, the file with the authorities to trust, or tls=encrypt to trust whoever answers");
    else if (!cert != !key)
        refuse(r, cert ? "cert" : "key", NULL, "given together with the other one, cert or key");
    r->state->tls = ca || (tls && strcmp(tls, "off") != 0);
    read_text(r, ca, &r->state->ca);
    read_text(r, cert, &r->state->cert);
    read_text(r, key, &r->state->key);
}

static void read_settings(reader *r)
{
    mysql_state *state = r->state;
    const lock_table_settings *names = &state->settings;

    r->status = lock_table_settings_read(state->host, r->url, true, &state->settings, r->err);
    /* Letters, digits and _ only: nothing that would have to be escaped. */
    snprintf(state->name, sizeof state->name, names->schema[0] ? "`%s`.`%s`" : "%s`%s`", names->schema, names->table);
    read_endpoints(r);
    read_database(r);
    read_text(r, r->url->user, &state->user);
    read_text(r, r->url->password, &state->password);
    read_connect_timeout(r);
    read_tls(r);
}

/* ---- state ---- */

static void mysql_destroy(void *context)
{
    mysql_state *state = context;
    const verrou_host *host = state->host;

    pthread_mutex_destroy(&state->mutex);
    host->free(state->endpoints);
    host->free(state->user);
    host->free(state->password);
    host->free(state->database);
    host->free(state->ca);
    host->free(state->cert);
    host->free(state->key);
    host->free(state);
}

static verrou_status mysql_create(const verrou_host *host, void *log_context, const verrou_url *url, void **ret_state,
                                  verrou_error *err)
{
    mysql_state *state = host->malloc(sizeof *state);
    reader r = {state, url, err, VERROU_OK};

    if (!state)
        return host->fail(err, VERROU_ENOMEM, 0, NULL, "out of memory");
    memset(state, 0, sizeof *state);
    state->host = host;
    state->log_context = log_context;
    state->connect_timeout_ms = DEFAULT_CONNECT_TIMEOUT_MS;
    pthread_mutex_init(&state->mutex, NULL);
    atomic_init(&state->lost_count, 0);
    atomic_init(&state->told_collation, false);
    atomic_init(&state->told_engine, false);
    atomic_init(&state->caps, VERROU_CAP_SERVER_CLOCK | VERROU_CAP_FENCE | VERROU_CAP_LIST | VERROU_CAP_SHARED);
    read_settings(&r);
    if (r.status != VERROU_OK) {
        mysql_destroy(state);
        return r.status;
    }
    *ret_state = state;
    return VERROU_OK;
}

static uint32_t mysql_caps(void *context)
{
    mysql_state *state = context;

    return atomic_load(&state->caps);
}

/* ---- the table ---- */

static const verrou_driver mysql_driver = {
    .version = VERROU_STORE_VERSION,
    .schemes = schemes,
    .settings = settings,
    .flags = VERROU_DRIVER_NETWORK | VERROU_DRIVER_COMPARES,
    .default_lanes = 2,
    .max_lanes = 64,
    .create = mysql_create,
    .destroy = mysql_destroy,
    .caps = mysql_caps,
    .open = verrou__mysql_lane_open,
    .close = verrou__mysql_lane_close,
    .execute = verrou__mysql_execute,
    .list = verrou__mysql_list,
    .check = verrou__mysql_check,
    .schema = verrou__mysql_schema,
    .watch_open = verrou__mysql_watch_open,
    .watch_close = verrou__mysql_watch_close,
    .watch_fd = verrou__mysql_watch_fd,
    .watch_add = verrou__mysql_watch_add,
    .watch_remove = verrou__mysql_watch_remove,
    .watch_read = verrou__mysql_watch_read,
};

const verrou_driver *verrou_mysql_driver(void)
{
    return &mysql_driver;
}
