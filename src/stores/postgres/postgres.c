/*
 * postgres.c - the PostgreSQL store: the driver table, the address and its settings, the state.
 *
 * What is in the address goes to libpq keyword by keyword. Hosts are an exception: libpq is given one at a time, since only then each of them can
 * have a time limit of its own (PQconnectPoll() has none).
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <verrou/postgres.h>

#include "postgres_store.h"

#define DEFAULT_CONNECT_TIMEOUT_MS 2000

static const char *const schemes[] = {"postgres", "postgresql", NULL};

/* Every keyword that libpq 12 to 17 knows and that makes sense in an address; docs/guide/postgres.md lists them. */
#define LIBPQ_KEYWORDS                                                                                                 \
    "host", "hostaddr", "port", "connect_timeout", "dbname", "user", "password", "passfile", "service", "servicefile", \
        "options", "application_name", "fallback_application_name", "target_session_attrs", "keepalives",              \
        "keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout", "channel_binding",           \
        "require_auth", "requirepeer", "gssencmode", "gssdelegation", "gsslib", "krbsrvname", "sslmode",               \
        "sslnegotiation", "sslcompression", "sslcert", "sslkey", "sslpassword", "sslcertmode", "sslrootcert",          \
        "sslcrl", "sslcrldir", "sslsni", "ssl_min_protocol_version", "ssl_max_protocol_version"

static const char *const settings[] = {"table", "autocreate",   "pooler", "notify-trigger", "ca", "cert",
                                       "key",   LIBPQ_KEYWORDS, NULL};

/* Those of them that name files. A missing one libpq takes for one that was not given, or tells without its name. */
static const char *const files[] = {"ca", "cert", "key", "sslrootcert", "sslcert", "sslkey", "sslcrl", "sslcrldir"};

#define FIRST_OF_LIBPQ "host"
#define FIRST_PASSED_ON "dbname"

/* What libpq is told unless the address says otherwise. */
static const verrou_setting defaults[] = {
    {"fallback_application_name", "verrou"},
    {"target_session_attrs", "read-write"},
    {"keepalives_idle", "30"},
    {"keepalives_interval", "10"},
    {"keepalives_count", "3"},
    {"tcp_user_timeout", "30000"},
};

/* ---- settings ---- */

static char *copy_part(settings_reader *r, const char *text, size_t len)
{
    char *copied = r->host->malloc(len + 1);

    if (!copied) {
        if (r->status == VERROU_OK)
            r->status = r->host->fail(r->err, VERROU_ENOMEM, 0, NULL, "out of memory");
        return NULL;
    }
    memcpy(copied, text, len);
    copied[len] = '\0';
    return copied;
}

static bool has_option(const postgres_state *state, const char *name)
{
    for (size_t i = 0; i < state->option_count; i++)
        if (strcmp(state->options[i].name, name) == 0)
            return true;
    return false;
}

/* "system" are the authorities of the machine, and "ENGINE:NAME" a key that is kept elsewhere. */
static bool is_file(const char *setting, const char *name, const char *value)
{
    if (!*value || strcmp(value, "system") == 0 || (strcmp(name, "sslkey") == 0 && strchr(value, ':')))
        return false;
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++)
        if (strcmp(files[i], setting) == 0)
            return true;
    return false;
}

static void add_option(settings_reader *r, postgres_state *state, const char *name, const char *value)
{
    postgres_option *option = &state->options[state->option_count];

    if (!value)
        return;
    if (has_option(state, name)) {
        settings_refuse(r, name, NULL, "given once");
        return;
    }
    option->name = name;
    option->file = NULL;
    option->value = settings_copy(r, value);
    state->option_count++;
}

/* A setting that libpq knows by another name. */
static void add_setting(settings_reader *r, postgres_state *state, const char *name, const char *setting)
{
    const char *value = settings_value(r, setting);
    size_t before = state->option_count;

    add_option(r, state, name, value);
    if (state->option_count > before && is_file(setting, name, value))
        state->options[before].file = setting;
}

/* Keywords come and go with the versions of libpq. */
static bool is_known_to_libpq(const PQconninfoOption *known, const char *name)
{
    for (; known->keyword; known++)
        if (strcmp(known->keyword, name) == 0)
            return true;
    return false;
}

static size_t index_of(const char *name)
{
    size_t i = 0;

    while (strcmp(settings[i], name) != 0)
        i++;
    return i;
}

/* As it is written: decoded, a %2F of the name would look like the '/' of something that was meant to be more than a name. */
static void read_database(settings_reader *r, postgres_state *state)
{
    const char *path = r->url->path;
    const char *written = strstr(r->url->text, "//");
    const char *bad;

    if (!path || !path[1])
        return;
    add_option(r, state, "dbname", path + 1);
    if (!written)
        return;
    written += 2;
    written += strcspn(written, "/?");
    bad = *written == '/' ? strpbrk(written + 1, "/#?") : NULL;
    if (bad && *bad != '?')
        settings_refuse(r, "the path of the address", NULL,
                        "the name of a database, with %2F for a '/' and %23 for a '#' in it");
}

static void read_options(settings_reader *r, postgres_state *state)
{
    PQconninfoOption *known = PQconninfoParse("", NULL);

    if (!known) {
        r->status = r->host->fail(r->err, VERROU_ENOMEM, 0, NULL, "out of memory");
        return;
    }
    for (size_t i = index_of(FIRST_OF_LIBPQ); settings[i]; i++)
        if (settings_value(r, settings[i]) && !is_known_to_libpq(known, settings[i]))
            settings_refuse(r, settings[i], NULL, "left out: the libpq that is installed does not know it");
    add_option(r, state, "user", r->url->user && r->url->user[0] ? r->url->user : NULL);
    add_option(r, state, "password", r->url->password);
    read_database(r, state);
    add_setting(r, state, "sslrootcert", "ca");
    add_setting(r, state, "sslcert", "cert");
    add_setting(r, state, "sslkey", "key");
    for (size_t i = index_of(FIRST_PASSED_ON); settings[i]; i++)
        add_setting(r, state, settings[i], settings[i]);
    if (settings_value(r, "ca") && !has_option(state, "sslmode"))
        add_option(r, state, "sslmode", "verify-full");
    for (size_t i = 0; i < sizeof defaults / sizeof defaults[0]; i++)
        if (!has_option(state, defaults[i].name) && is_known_to_libpq(known, defaults[i].name))
            add_option(r, state, defaults[i].name, defaults[i].value);
    PQconninfoFree(known);
}

/* ---- hosts ---- */

static size_t count_items(const char *list)
{
    size_t count = 1;

    if (!list)
        return 0;
    for (; (list = strchr(list, ',')); list++)
        count++;
    return count;
}

/* The item of a list at `index`; of a list of one, that one. NULL if there is no list or the item is empty. */
static char *copy_item(settings_reader *r, const char *list, size_t index)
{
    size_t len;

    if (!list)
        return NULL;
    if (count_items(list) > 1)
        for (; index > 0; index--)
            list = strchr(list, ',') + 1;
    len = strcspn(list, ",");
    return len ? copy_part(r, list, len) : NULL;
}

static bool fits(const char *list, size_t count)
{
    return count_items(list) <= 1 || count_items(list) == count;
}

static void read_places(settings_reader *r, postgres_state *state)
{
    const verrou_url *url = r->url;
    const char *host = settings_value(r, "host");
    const char *hostaddr = settings_value(r, "hostaddr");
    const char *port = settings_value(r, "port");
    size_t count = url->endpoint_count;

    if (count && (host || port))
        settings_refuse(r, host ? "host" : "port", NULL, "given once, before the settings or as one");
    if (!count)
        count = count_items(host) > count_items(hostaddr) ? count_items(host) : count_items(hostaddr);
    if (!count)
        count = 1; /* libpq knows where, and it may be several */
    if (!fits(host, count) || !fits(hostaddr, count) || !fits(port, count))
        settings_refuse(r, "host, hostaddr, port", NULL, "lists of one length");
    if (r->status != VERROU_OK)
        return;
    state->places = state->host->malloc(count * sizeof *state->places);
    if (!state->places) {
        r->status = state->host->fail(r->err, VERROU_ENOMEM, 0, NULL, "out of memory");
        return;
    }
    for (size_t i = 0; i < count; i++) {
        postgres_place *place = &state->places[i];
        char number[16];

        *place = (postgres_place){NULL, NULL, NULL};
        state->place_count++;
        place->hostaddr = copy_item(r, hostaddr, i);
        if (i < url->endpoint_count) {
            snprintf(number, sizeof number, "%d", url->endpoints[i].port);
            place->host = settings_copy(r, url->endpoints[i].host);
            place->port = url->endpoints[i].port ? settings_copy(r, number) : NULL;
        } else {
            place->host = copy_item(r, host, i);
            place->port = copy_item(r, port, i);
        }
    }
}

/* As libpq has it: whole seconds, 0 for no limit. */
static void read_connect_timeout(settings_reader *r, postgres_state *state)
{
    int seconds = -1;

    settings_number(r, "connect_timeout", 86400, &seconds);
    if (seconds >= 0)
        state->connect_timeout_ms = seconds ? seconds * INT64_C(1000) : 86400000;
}

static void read_pooler(settings_reader *r, postgres_state *state)
{
    const char *value = settings_value(r, "pooler");

    if (!value || strcmp(value, "auto") == 0)
        state->pooler = POOLER_AUTO;
    else if (strcmp(value, "none") == 0)
        state->pooler = POOLER_NONE;
    else if (strcmp(value, "transaction") == 0)
        state->pooler = POOLER_TRANSACTION;
    else
        settings_refuse(r, "pooler", value, "auto, none or transaction");
}

static void read_trigger(settings_reader *r, postgres_state *state)
{
    const char *value = settings_value(r, "notify-trigger");

    if (value && strcmp(value, "true") != 0 && strcmp(value, "false") != 0)
        settings_refuse(r, "notify-trigger", value, "true or false");
    else
        state->notify_trigger = value && strcmp(value, "true") == 0;
}

static void read_settings(settings_reader *r, postgres_state *state)
{
    const lock_table_settings *table = &state->table;

    r->status = lock_table_settings_read(state->host, r->url, true, &state->table, r->err);
    /* The server would cut a longer name, silently. */
    if (strlen(table->table) > POSTGRES_MAX_NAME || strlen(table->schema) > POSTGRES_MAX_NAME)
        settings_refuse(r, "table", table->table, "of names of at most 63 bytes");
    snprintf(state->name, sizeof state->name, "%s%s%s\"%s\"", table->schema[0] ? "\"" : "", table->schema,
             table->schema[0] ? "\"." : "", table->table);
    read_connect_timeout(r, state);
    read_pooler(r, state);
    read_trigger(r, state);
    read_places(r, state);
    read_options(r, state);
}

/* ---- state ---- */

static void postgres_destroy(void *context)
{
    postgres_state *state = context;
    const verrou_host *host = state->host;

    for (size_t i = 0; i < state->option_count; i++)
        host->free(state->options[i].value);
    for (size_t i = 0; i < state->place_count; i++) {
        host->free(state->places[i].host);
        host->free(state->places[i].hostaddr);
        host->free(state->places[i].port);
    }
    host->free(state->places);
    verrou__postgres_watched_free(state);
    pthread_mutex_destroy(&state->mutex);
    host->free(state);
}

static verrou_status postgres_create(const verrou_host *host, void *log_context, const verrou_url *url,
                                     void **ret_state, verrou_error *err)
{
    postgres_state *state = host->malloc(sizeof *state);
    settings_reader r = {host, url, err, VERROU_OK};

    if (!state)
        return host->fail(err, VERROU_ENOMEM, 0, NULL, "out of memory");
    memset(state, 0, sizeof *state);
    state->host = host;
    state->log_context = log_context;
    state->connect_timeout_ms = DEFAULT_CONNECT_TIMEOUT_MS;
    state->seed = host->random();
    pthread_mutex_init(&state->mutex, NULL);
    table_init(&state->watched);
    atomic_init(&state->good_place, 0);
    atomic_init(&state->told_notify, false);
    atomic_init(&state->told_collation, false);
    atomic_init(&state->told_unlogged, false);
    atomic_init(&state->lost_count, 0);
    atomic_init(&state->watched_count, 0);
    atomic_init(&state->place, -1);
    atomic_init(&state->caps,
                VERROU_CAP_SERVER_CLOCK | VERROU_CAP_FENCE | VERROU_CAP_PUSH | VERROU_CAP_LIST | VERROU_CAP_SHARED);
    read_settings(&r, state);
    if (r.status != VERROU_OK) {
        postgres_destroy(state);
        return r.status;
    }
    *ret_state = state;
    return VERROU_OK;
}

static uint32_t postgres_caps(void *context)
{
    postgres_state *state = context;

    return atomic_load(&state->caps);
}

/* ---- lanes ---- */

/* Enter a server process of ours into the list by which notifications are told apart, or take it out. */
static void lane_note(postgres_state *state, int old_pid, int new_pid)
{
    pthread_mutex_lock(&state->mutex);
    for (size_t i = 0; i < POSTGRES_MAX_LANES; i++) {
        if (state->lanes[i] == old_pid) {
            state->lanes[i] = new_pid;
            break;
        }
    }
    pthread_mutex_unlock(&state->mutex);
}

verrou_status verrou__postgres_lane_open(void *context, int64_t deadline_ms, void **ret_lane, verrou_error *err)
{
    postgres_state *state = context;
    postgres_lane *lane = state->host->malloc(sizeof *lane);
    postgres_fault fault;

    if (!lane)
        return state->host->fail(err, VERROU_ENOMEM, 1, NULL, "out of memory");
    memset(lane, 0, sizeof *lane);
    if (!verrou__postgres_open(state, &lane->session, POSTGRES_FOR_LOCKS, deadline_ms, &fault)) {
        state->host->free(lane);
        return verrou__postgres_fail(state, &fault, err);
    }
    /* So that the capabilities are known soon; what is wrong with the table is reported by the calls. */
    lane->shape_is_new = verrou__postgres_shape(&lane->session, &lane->shape, deadline_ms, &fault);
    if (lane->shape_is_new && (!lane->shape.exists || lane->shape.fenced))
        atomic_fetch_or(&state->caps, VERROU_CAP_FENCE_STORED);
    lane->shape_is_new = lane->shape_is_new && lane->shape.exists; /* what is missing may come */
    if (lane->session.broken) {
        verrou__postgres_lane_close(state, lane);
        return verrou__postgres_fail(state, &fault, err);
    }
    if (lane->session.pooled)
        atomic_fetch_and(&state->caps, ~VERROU_CAP_PUSH);
    else
        lane_note(state, 0, lane->session.pid);
    *ret_lane = lane;
    return VERROU_OK;
}

void verrou__postgres_lane_close(void *context, void *opened)
{
    postgres_state *state = context;
    postgres_lane *lane = opened;

    if (lane->session.pid)
        lane_note(state, lane->session.pid, 0);
    verrou__postgres_forget(lane);
    verrou__postgres_close(&lane->session);
    state->host->free(lane->cursor);
    state->host->free(lane);
}

/* ---- the table ---- */

static const verrou_driver postgres_driver = {
    .version = VERROU_STORE_VERSION,
    .schemes = schemes,
    .settings = settings,
    .flags = VERROU_DRIVER_NETWORK | VERROU_DRIVER_COMPARES,
    .default_lanes = 2,
    .max_lanes = POSTGRES_MAX_LANES,
    .create = postgres_create,
    .destroy = postgres_destroy,
    .caps = postgres_caps,
    .open = verrou__postgres_lane_open,
    .close = verrou__postgres_lane_close,
    .execute = verrou__postgres_execute,
    .list = verrou__postgres_list,
    .check = verrou__postgres_check,
    .schema = verrou__postgres_schema,
    .watch_open = verrou__postgres_watch_open,
    .watch_close = verrou__postgres_watch_close,
    .watch_fd = verrou__postgres_watch_fd,
    .watch_add = verrou__postgres_watch_add,
    .watch_remove = verrou__postgres_watch_remove,
    .watch_read = verrou__postgres_watch_read,
};

const verrou_driver *verrou_postgres_driver(void)
{
    return &postgres_driver;
}
