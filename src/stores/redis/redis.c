/*
 * redis.c - the Redis store: the driver table, the address and its settings, the state.
 */
#include <stdio.h>
#include <string.h>
#include <verrou/redis.h>

#include "redis_store.h"
#include "util/settings.h"

#define DEFAULT_PORT 6379
#define DEFAULT_SENTINEL_PORT 26379
#define DEFAULT_CONNECT_TIMEOUT_MS 2000
#define DEFAULT_WAIT_TIMEOUT_MS 1000
#define MAX_DB 1000000
#define MAX_REPLICAS 1000

static const char *const schemes[] = {"redis",           "rediss",        "redis+unix",     "redis+sentinel",
                                      "rediss+sentinel", "redis+cluster", "rediss+cluster", NULL};

static const char *const settings[] = {"db",
                                       "connect-timeout",
                                       "ca",
                                       "cert",
                                       "key",
                                       "server-name",
                                       "sentinel-user",
                                       "sentinel-password",
                                       "wait-replicas",
                                       "wait-timeout",
                                       NULL};

/* ---- settings ---- */

static void read_endpoints(redis_state *state, settings_reader *r, int default_port)
{
    const verrou_url *url = r->url;
    size_t count = url->endpoint_count ? url->endpoint_count : 1;
    redis_address *endpoints;

    if (state->topology == REDIS_SINGLE && count > 1)
        settings_refuse(r, "the address names several hosts", NULL, "one, or redis+sentinel: or redis+cluster:");
    endpoints = state->host->malloc(count * sizeof *endpoints);
    if (!endpoints) {
        r->status = state->host->fail(r->err, VERROU_ENOMEM, 0, NULL, "out of memory");
        return;
    }
    state->endpoints = endpoints;
    state->endpoint_count = count;
    for (size_t i = 0; i < count; i++) {
        const char *host = i < url->endpoint_count ? url->endpoints[i].host : "127.0.0.1";
        int port = i < url->endpoint_count ? url->endpoints[i].port : 0;

        if (!verrou__redis_address_set(&endpoints[i], host, port ? port : default_port))
            settings_refuse(r, "host", host, "at most 255 bytes");
    }
}

static void read_socket_path(redis_state *state, settings_reader *r)
{
    const char *path = r->url->path;

    if (r->url->endpoint_count || !path || path[0] != '/' || !path[1]) {
        settings_refuse(r, "the address", NULL, "redis+unix:///PATH, an absolute path");
        return;
    }
    read_endpoints(state, r, 0);
    if (state->endpoint_count && !verrou__redis_address_set(state->endpoints, path, 0))
        settings_refuse(r, "path", path, "at most 255 bytes");
}

/* "/mymaster" or "/mymaster/DB". Returns where the database is named, NULL if it is not. */
static const char *read_master(redis_state *state, settings_reader *r)
{
    const char *name = r->url->path && r->url->path[0] == '/' ? r->url->path + 1 : "";
    size_t len = strcspn(name, "/");

    if (len == 0) {
        settings_refuse(r, "the address", NULL, "redis+sentinel://HOST:PORT,.../MASTER, with the name of the master");
        return NULL;
    }
    state->master = settings_copy(r, name);
    if (state->master)
        state->master[len] = '\0';
    return name[len] ? name + len + 1 : NULL;
}

static void read_place(redis_state *state, settings_reader *r)
{
    const char *scheme = r->url->scheme;
    const char *db = settings_value(r, "db");
    const char *path_db = NULL;

    if (strstr(scheme, "+sentinel")) {
        state->topology = REDIS_SENTINEL;
        path_db = read_master(state, r);
    } else if (strstr(scheme, "+cluster")) {
        state->topology = REDIS_CLUSTER;
    }
    if (strcmp(scheme, "redis+unix") == 0) {
        read_socket_path(state, r);
    } else {
        read_endpoints(state, r, state->topology == REDIS_SENTINEL ? DEFAULT_SENTINEL_PORT : DEFAULT_PORT);
        if (state->topology != REDIS_SENTINEL && r->url->path && r->url->path[1])
            path_db = r->url->path + 1;
    }
    settings_number(r, "db", MAX_DB, &state->db);
    if (path_db && db)
        settings_refuse(r, "db", db, "given once, in the path or as a setting");
    /* Not quoted: a misplaced password may be in it. */
    else if (path_db && !settings_parse_number(path_db, MAX_DB, &state->db))
        settings_refuse(r, "the path", NULL, "the number of a database");
    if (state->db != 0 && state->topology == REDIS_CLUSTER)
        settings_refuse(r, "db", db, "0: a cluster has no other database");
}

static void read_tls(redis_state *state, settings_reader *r)
{
    const char *ca = settings_value(r, "ca");
    const char *cert = settings_value(r, "cert");
    const char *key = settings_value(r, "key");
    const char *name = settings_value(r, "server-name");
    const char *given = ca ? "ca" : cert ? "cert" : key ? "key" : name ? "server-name" : NULL;
    bool tls = strncmp(r->url->scheme, "rediss", 6) == 0;

    if (r->status != VERROU_OK)
        return;
    if (!tls && given) {
        settings_refuse(r, given, NULL, "left out: only rediss: uses TLS");
        return;
    }
    if (!cert != !key) {
        settings_refuse(r, cert ? "cert" : "key", NULL, "given together with the other one, cert or key");
        return;
    }
    state->server_name = settings_copy(r, name);
    if (tls && r->status == VERROU_OK)
        r->status = verrou__redis_tls_context(r->host, ca, cert, key, &state->tls, r->err);
}

static void read_settings(redis_state *state, settings_reader *r)
{
    const char *prefix = settings_value(r, "prefix");

    read_place(state, r);
    state->user = settings_copy(r, r->url->user);
    state->password = settings_copy(r, r->url->password);
    state->sentinel_user = settings_copy(r, settings_value(r, "sentinel-user"));
    state->sentinel_password = settings_copy(r, settings_value(r, "sentinel-password"));
    if ((state->sentinel_user || state->sentinel_password) && state->topology != REDIS_SENTINEL)
        settings_refuse(r, "sentinel-user and sentinel-password", NULL,
                        "left out: there is no sentinel in this address");
    state->prefix_len = prefix ? strlen(prefix) : 0;
    snprintf(state->counter, sizeof state->counter, "%sverrou:fence", prefix ? prefix : "");
    settings_duration(r, "connect-timeout", &state->connect_timeout_ms);
    settings_duration(r, "wait-timeout", &state->wait_timeout_ms);
    settings_number(r, "wait-replicas", MAX_REPLICAS, &state->wait_replicas);
    read_tls(state, r);
}

/* ---- state ---- */

static void redis_destroy(void *context)
{
    redis_state *state = context;
    const verrou_host *host = state->host;

    verrou__redis_tls_context_free(state->tls);
    verrou__redis_counters_free(state);
    table_done(&state->channels, host->free);
    pthread_mutex_destroy(&state->mutex);
    host->free(state->endpoints);
    host->free(state->known);
    host->free(state->user);
    host->free(state->password);
    host->free(state->sentinel_user);
    host->free(state->sentinel_password);
    host->free(state->master);
    host->free(state->server_name);
    host->free(state);
}

static verrou_status redis_create(const verrou_host *host, void *log_context, const verrou_url *url, void **ret_state,
                                  verrou_error *err)
{
    redis_state *state = host->malloc(sizeof *state);
    settings_reader r = {host, url, err, VERROU_OK};

    if (!state)
        return host->fail(err, VERROU_ENOMEM, 0, NULL, "out of memory");
    memset(state, 0, sizeof *state);
    state->host = host;
    state->log_context = log_context;
    state->connect_timeout_ms = DEFAULT_CONNECT_TIMEOUT_MS;
    state->wait_timeout_ms = DEFAULT_WAIT_TIMEOUT_MS;
    state->connect = url->connect;
    state->connect_user = url->connect_user;
    state->seed = host->random();
    snprintf(state->id, sizeof state->id, "%016llx", (unsigned long long)host->random());
    pthread_mutex_init(&state->mutex, NULL);
    table_init(&state->channels);
    atomic_init(&state->missing_nodes, 0);
    atomic_init(&state->told_counter, false);
    atomic_init(&state->told_publish, false);
    atomic_init(&state->counter_forbidden, false);
    atomic_init(&state->caps, VERROU_CAP_SERVER_CLOCK | VERROU_CAP_FENCE | VERROU_CAP_FENCE_STORED | VERROU_CAP_PUSH |
                                  VERROU_CAP_LIST | VERROU_CAP_SHARED);
    read_settings(state, &r);
    if (r.status != VERROU_OK) {
        redis_destroy(state);
        return r.status;
    }
    *ret_state = state;
    return VERROU_OK;
}

static uint32_t redis_caps(void *context)
{
    redis_state *state = context;

    return atomic_load(&state->caps);
}

/* ---- the table ---- */

static const verrou_driver redis_driver = {
    .version = VERROU_STORE_VERSION,
    .schemes = schemes,
    .settings = settings,
    .flags = VERROU_DRIVER_NETWORK | VERROU_DRIVER_CONNECTS,
    .default_lanes = 2,
    .max_lanes = 64,
    .create = redis_create,
    .destroy = redis_destroy,
    .caps = redis_caps,
    .open = verrou__redis_lane_open,
    .close = verrou__redis_lane_close,
    .execute = verrou__redis_execute,
    .begin = verrou__redis_begin,
    .lane_fd = verrou__redis_lane_fd,
    .arrived = verrou__redis_arrived,
    .list = verrou__redis_list,
    .check = verrou__redis_check,
    .watch_open = verrou__redis_watch_open,
    .watch_close = verrou__redis_watch_close,
    .watch_fd = verrou__redis_watch_fd,
    .watch_add = verrou__redis_watch_add,
    .watch_remove = verrou__redis_watch_remove,
    .watch_read = verrou__redis_watch_read,
    .max_key = 60000,
};

const verrou_driver *verrou_redis_driver(void)
{
    return &redis_driver;
}
