/*
 * odbc.c - the ODBC store: the seven calls of `verrou_database` in portable SQL, for any database that has an ODBC driver.
 *
 * It is also the example for adapters of your own. Each call is one statement, atomic by itself, or a question before it or after it that
 * tells what its outcome means. The three things to get right are: a failure is never "somebody has it"; a statement whose
 * answer was lost is VERROU_EUNKNOWN; a token once given out is remembered, here in the row, which is kept when its lock is released.
 */
#include "odbc_store.h"

#include <inttypes.h>
#include <verrou/odbc.h>

/* Tokens stay below 2^53: above it a JavaScript number is not exact. */
#define MAX_FENCE INT64_C(9007199254740991)

/* Each further try needs somebody else to have drawn a token of the same key meanwhile. */
#define MAX_DRAWS 8

#define COUNT(params) (sizeof(params) / sizeof(params)[0])

static odbc_param text(const char *value)
{
    return (odbc_param){.text = value};
}

static odbc_param number(int64_t value)
{
    return (odbc_param){.number = value};
}

int64_t verrou__odbc_number(const odbc_value *value)
{
    return value->null ? VERROU_FOREVER : strtoll(value->text, NULL, 10);
}

/* ---- connecting ---- */

/* The adapter hands over the setting, which odbc_create() has read already. Connecting shows whether the address leads anywhere. */
static verrou_status odbc_set_table_name(void *user, const char *table, verrou_error *err)
{
    (void)table;
    return verrou__odbc_connect(user, err);
}

/* ---- rows ---- */

typedef struct found_row {
    const char *key;
    bool found;
    bool exact; /* it is this key's, and not that of one which the collation takes for equal */
    verrou_row row;
} found_row;

static bool read_row(void *context, const odbc_value *values)
{
    found_row *read = context;

    read->found = true;
    read->exact = strcmp(values[0].text, read->key) == 0;
    snprintf(read->row.owner, sizeof read->row.owner, "%.*s", VERROU_MAX_OWNER, values[1].text);
    read->row.expiration_ms = verrou__odbc_number(&values[2]);
    return false;
}

static verrou_status find_row(odbc_store *store, const char *key, found_row *ret_row, verrou_error *err)
{
    const odbc_param params[] = {text(key)};

    *ret_row = (found_row){.key = key};
    return verrou__odbc_query(store, "SELECT `key`, `owner`, `expiration` FROM `table` WHERE `key` = ?", params,
                              COUNT(params), read_row, ret_row, err);
}

static verrou_status row_get(odbc_store *store, const char *key, int *ret_found, verrou_row *ret_row, verrou_error *err)
{
    found_row read;
    verrou_status status = find_row(store, key, &read, err);

    *ret_found = read.found;
    *ret_row = read.row;
    return status;
}

static verrou_status odbc_get_lock(void *user, const char *key, int *ret_found, verrou_row *ret_row, verrou_error *err)
{
    verrou_status status = verrou__odbc_ready(user, err);

    return status == VERROU_OK ? row_get(user, key, ret_found, ret_row, err) : status;
}

/*
 * A row that is there, live or released, is seen before inserting: a failed INSERT costs more than a look, and some servers write each one
 * into their log. Who inserts at the same time is seen after it: SQLSTATE 23... may be a duplicate or another rule of the table, and some
 * drivers tell neither, but the row is there.
 */
static verrou_status odbc_insert_lock(void *user, const char *key, const char *owner, int64_t expiration_ms,
                                      uint64_t fence, verrou_error *err)
{
    const odbc_param params[] = {text(key), text(owner), number(expiration_ms)};
    verrou_error look_failed = VERROU_ERROR_INIT;
    verrou_row row;
    int found = 0;
    int64_t rows;
    verrou_status status;

    (void)fence; /* next_fence() draws it */
    status = verrou__odbc_ready(user, err);
    if (status == VERROU_OK)
        status = row_get(user, key, &found, &row, err);
    if (status != VERROU_OK || found)
        return found ? VERROU_ENOTACQUIRED : status;

    status = verrou__odbc_run(user, "INSERT INTO `table` (`key`, `owner`, `expiration`) VALUES (?, ?, ?)", params,
                              COUNT(params), &rows, err);
    if (status == VERROU_ESTORAGE && row_get(user, key, &found, &row, &look_failed) == VERROU_OK && found)
        return VERROU_ENOTACQUIRED;
    return status;
}

/* A driver may not know how many rows there were (-1): then it is not known whether there was one. */
static verrou_status counted(const odbc_store *store, verrou_status status, int64_t *rows, verrou_error *err)
{
    if (status != VERROU_OK || *rows >= 0)
        return status;
    *rows = 0;
    return verrou__odbc_fail(store, err, VERROU_EUNKNOWN, true, NULL,
                             "the driver does not say how many rows were changed");
}

/*
 * The token in the row stays as it is: next_fence() has to exceed it. The key may be written in another way than the one that has run out,
 * if the collation takes both for equal.
 */
static verrou_status odbc_acquire_lock(void *user, const char *key, const char *owner, int64_t expiration_ms,
                                       uint64_t fence, int64_t now_ms, int64_t *ret_rows, verrou_error *err)
{
    const odbc_param params[] = {text(key), text(owner), number(expiration_ms), text(key), number(now_ms)};
    verrou_status status = verrou__odbc_ready(user, err);

    (void)fence;
    *ret_rows = 0;
    if (status != VERROU_OK)
        return status;
    return counted(user,
                   verrou__odbc_run(user,
                                    "UPDATE `table` SET `key` = ?, `owner` = ?, `expiration` = ?"
                                    " WHERE `key` = ? AND `expiration` <= ?",
                                    params, COUNT(params), ret_rows, err),
                   ret_rows, err);
}

/* Keys and owners are compared here, byte by byte: the columns may have a collation that takes different ones for equal. */
static verrou_status is_of(odbc_store *store, const char *key, const char *owner, bool *ret_is, verrou_row *ret_row,
                           verrou_error *err)
{
    found_row read;
    verrou_status status = find_row(store, key, &read, err);

    *ret_is = status == VERROU_OK && read.found && read.exact && strcmp(read.row.owner, owner) == 0;
    *ret_row = read.row;
    return status;
}

/* The condition under which a row is released or extended. What was looked up before may have changed: it is checked again, by the statement. */
#define OF_OWNER " WHERE `key` = ? AND `owner` = ? AND (`expiration` IS NULL OR `expiration` > ?)"

static verrou_status odbc_extend_lock(void *user, const char *key, const char *owner, int64_t expiration_ms,
                                      int64_t now_ms, int64_t *ret_rows, verrou_error *err)
{
    const odbc_param params[] = {number(expiration_ms), text(key), text(owner), number(now_ms)};
    verrou_row row;
    bool is = false;
    verrou_status status = verrou__odbc_ready(user, err);

    *ret_rows = 0;
    if (status == VERROU_OK)
        status = is_of(user, key, owner, &is, &row, err);
    if (status != VERROU_OK || !is)
        return status;
    status =
        verrou__odbc_run(user, "UPDATE `table` SET `expiration` = ?" OF_OWNER, params, COUNT(params), ret_rows, err);
    if (status != VERROU_OK || *ret_rows > 0)
        return status;

    /* Some drivers count the rows that changed, and not those that were found: the end may have been this one already. Others do not count. */
    *ret_rows = 0;
    status = is_of(user, key, owner, &is, &row, err);
    *ret_rows = is && row.expiration_ms == expiration_ms;
    return status;
}

/* ---- release ---- */

static const char *nobody(const odbc_store *store)
{
    return store->dialect->nobody ? store->dialect->nobody : "";
}

static bool read_key(void *context, const odbc_value *values)
{
    char *last = context;

    last[0] = '\0'; /* a key that is longer than ours can be: start over */
    if (values[0].length <= VERROU_MAX_KEY)
        strcpy(last, values[0].text);
    return true;
}

/*
 * The rows of locks that were released long ago are deleted, a few now and then, in the order of their keys: the clock's microseconds have
 * overtaken their tokens. Nothing depends on it, so a failure is forgotten.
 */
static void prune(odbc_store *store)
{
    verrou_error ignored = VERROU_ERROR_INIT;
    char last[VERROU_MAX_KEY + 1] = "";
    int64_t now_ms = 0, rows;
    const odbc_param from[] = {text(store->pruned_to)};

    if (++store->releases % LOCK_TABLE_PRUNE_RELEASES != 0 || !store->dialect->limit ||
        verrou__odbc_now(store, &now_ms, &ignored) != VERROU_OK)
        return;
    if (verrou__odbc_query(store, "SELECT `key` FROM `table` WHERE `key` > ? ORDER BY `key``limit`", from, 1, read_key,
                           last, &ignored) != VERROU_OK)
        return;
    if (last[0]) {
        const odbc_param params[] = {text(store->pruned_to), text(last), text(nobody(store)),
                                     number(now_ms * 1000 - LOCK_TABLE_PRUNE_AGE_US)};

        verrou__odbc_run(store,
                         "DELETE FROM `table` WHERE `key` > ? AND `key` <= ? AND `owner` = ? AND `expiration` = 0"
                         " AND (`fence` IS NULL OR `fence` < ?)",
                         params, COUNT(params), &rows, &ignored);
    }
    memcpy(store->pruned_to, last, sizeof last);
}

/* The row of whoever has the key, if `owner` is NULL. */
static verrou_status row_delete(odbc_store *store, const char *key, const char *owner, int64_t now_ms,
                                int64_t *ret_rows, verrou_error *err)
{
    const odbc_param params[] = {text(key), text(owner), number(now_ms)};

    if (!owner)
        return verrou__odbc_run(store, "DELETE FROM `table` WHERE `key` = ?", params, 1, ret_rows, err);
    return counted(store, verrou__odbc_run(store, "DELETE FROM `table`" OF_OWNER, params, COUNT(params), ret_rows, err),
                   ret_rows, err);
}

/* The same, but the row stays, as one that has run out and is nobody's: so its token is not forgotten. */
static verrou_status row_release(odbc_store *store, const char *key, const char *owner, int64_t now_ms,
                                 int64_t *ret_rows, verrou_error *err)
{
    const odbc_param params[] = {text(nobody(store)), text(key), text(owner), number(now_ms)};

    if (!owner)
        return verrou__odbc_run(store, "UPDATE `table` SET `owner` = ?, `expiration` = 0 WHERE `key` = ?", params, 2,
                                ret_rows, err);
    return counted(store,
                   verrou__odbc_run(store, "UPDATE `table` SET `owner` = ?, `expiration` = 0" OF_OWNER, params,
                                    COUNT(params), ret_rows, err),
                   ret_rows, err);
}

static verrou_status odbc_delete_lock(void *user, const char *key, const char *owner, int64_t now_ms, int64_t *ret_rows,
                                      verrou_error *err)
{
    odbc_store *store = user;
    verrou_row row;
    bool is = true;
    verrou_status status = verrou__odbc_ready(store, err);

    *ret_rows = 0;
    if (status == VERROU_OK && owner)
        status = is_of(store, key, owner, &is, &row, err);
    if (status != VERROU_OK || !is)
        return status;
    if (!store->shape.fenced) {
        /* Somebody may add the column: look again now and then. */
        store->shape.known = ++store->releases % LOCK_TABLE_PRUNE_RELEASES != 0;
        return row_delete(store, key, owner, now_ms, ret_rows, err);
    }
    status = row_release(store, key, owner, now_ms, ret_rows, err);
    if (status == VERROU_OK && *ret_rows > 0)
        prune(store);
    return status;
}

/* ---- clock and tokens ---- */

static bool read_numbers(void *context, const odbc_value *values)
{
    int64_t *numbers = context;

    numbers[0] = verrou__odbc_number(&values[0]);
    numbers[1] = verrou__odbc_number(&values[1]);
    return false;
}

verrou_status verrou__odbc_now(void *user, int64_t *ret_now_ms, verrou_error *err)
{
    odbc_store *store = user;
    int64_t numbers[2] = {0, 0};
    verrou_status status = verrou__odbc_connect(store, err);

    if (status == VERROU_OK && !store->dialect->clock)
        return VERROU_ENOTSUP;
    if (status == VERROU_OK)
        status =
            verrou__odbc_query(store, "SELECT `clock` AS now_us, 0 AS zero`dual`", NULL, 0, read_numbers, numbers, err);
    *ret_now_ms = numbers[0] / 1000;
    return status;
}

/*
 * Read the last token, put a larger one in its place unless somebody else has done so meanwhile, and only who has done it has
 * drawn that token. It is at least the clock's microseconds, so that it exceeds those of a row that is gone.
 */
static verrou_status odbc_next_fence(void *user, const char *key, uint64_t *ret_fence, verrou_error *err)
{
    odbc_store *store = user;
    const odbc_param key_param[] = {text(key)};
    verrou_status status = verrou__odbc_ready(store, err);

    if (status == VERROU_OK && !store->shape.fenced)
        return VERROU_ENOTSUP;
    for (int draw = 0; status == VERROU_OK && draw < MAX_DRAWS; draw++) {
        int64_t numbers[2] = {-1, 0}, next, rows = 0;

        status = verrou__odbc_query(
            store, "SELECT COALESCE(`fence`, 0) AS last, `clock` AS now_us FROM `table` WHERE `key` = ?", key_param, 1,
            read_numbers, numbers, err);
        if (status != VERROU_OK)
            break;
        if (numbers[0] < 0 || numbers[0] >= MAX_FENCE)
            return verrou__odbc_fail(store, err, VERROU_ESTORAGE, numbers[0] < 0, NULL, "%s",
                                     numbers[0] < 0 ? "the row has gone" : "there is no larger token");
        next = store->dialect->clock ? numbers[1] : verrou__odbc_wall_us();
        if (next <= numbers[0])
            next = numbers[0] + 1;

        const odbc_param params[] = {number(next), text(key), number(numbers[0])};
        status = verrou__odbc_run(store,
                                  numbers[0] == 0 ? "UPDATE `table` SET `fence` = ? WHERE `key` = ?"
                                                    " AND (`fence` = ? OR `fence` IS NULL)"
                                                  : "UPDATE `table` SET `fence` = ? WHERE `key` = ? AND `fence` = ?",
                                  params, COUNT(params), &rows, err);
        if (counted(store, status, &rows, err) == VERROU_EUNKNOWN)
            return VERROU_EUNKNOWN;
        if (status == VERROU_OK && rows > 0) {
            *ret_fence = (uint64_t)next;
            return VERROU_OK;
        }
    }
    if (status == VERROU_OK)
        return verrou__odbc_fail(store, err, VERROU_ESTORAGE, true, NULL,
                                 "others draw tokens of the same key all the time");
    return status;
}

/* ---- the driver ---- */

/*
 * How long MariaDB's driver waits for a server that has gone silent, at login too, is only told in this way; others ignore what they do not
 * know. What is there already counts, being first. A second more than the server has for a statement, so that it can say what was wrong.
 */
static char *complete(settings_reader *settings, const char *connection_string, int64_t limit_s)
{
    static const char format[] = "%s;CONN_TIMEOUT=%" PRId64 ";READ_TIMEOUT=%" PRId64 ";WRITE_TIMEOUT=%" PRId64;
    static const char for_libpq[] =
        ";pqopt={tcp_user_timeout=%" PRId64 " keepalives_idle=%" PRId64 " keepalives_interval=1 keepalives_count=3}";
    size_t size = strlen(connection_string) + sizeof format + sizeof for_libpq + 120;
    char *completed = settings->host->malloc(size);

    if (!completed) {
        if (settings->status == VERROU_OK)
            settings->status = settings->host->fail(settings->err, VERROU_ENOMEM, 1, NULL, "out of memory");
        return NULL;
    }
    snprintf(completed, size, format, connection_string, limit_s, limit_s + 1, limit_s + 1);
    /* It would take the place of the one that a data source has. */
    if (!strcasestr(connection_string, "pqopt") && !strcasestr(connection_string, "DSN"))
        snprintf(completed + strlen(completed), size - strlen(completed), for_libpq, (limit_s + 1) * 1000, limit_s + 1);
    return completed;
}

/* No input or output here: the connection is made by the first call. After a fork the child has a store, and a connection, of its own. */
static verrou_status odbc_create(const verrou_host *host, void *log_context, const verrou_url *url, void **ret_state,
                                 verrou_error *err)
{
    settings_reader settings = {host, url, err, VERROU_OK};
    int64_t timeout_ms = 5000;
    odbc_store *store;

    (void)log_context;
    if (!strchr(url->rest, '='))
        return host->fail(err, VERROU_ECONFIG, 0, NULL,
                          "odbc: behind the ':' comes a connection string, NAME=VALUE;NAME=VALUE;...");
    if (!verrou__odbc_braces_close(url->rest))
        return host->fail(err, VERROU_ECONFIG, 0, NULL,
                          "odbc: a '{' of the connection string is not closed by a '}' (write %%3F for a '?' in it)");
    store = host->malloc(sizeof *store);
    if (!store)
        return host->fail(err, VERROU_ENOMEM, 1, NULL, "out of memory");
    memset(store, 0, sizeof *store);
    store->host = host;
    store->dialect = verrou__odbc_dialect("");
    settings.status = lock_table_settings_read(host, url, true, &store->names, err);
    settings_duration(&settings, "timeout", &timeout_ms);
    store->limit_s = (timeout_ms + 999) / 1000;
    store->connection_string = complete(&settings, url->rest, store->limit_s);
    if (settings.status == VERROU_OK) {
        verrou__odbc_name_place(store);
        *ret_state = store;
    } else {
        host->free(store->connection_string);
        host->free(store);
    }
    return settings.status;
}

static void odbc_destroy(void *state)
{
    odbc_store *store = state;

    verrou__odbc_close(store);
    store->host->free(store->connection_string);
    store->host->free(store);
}

static uint32_t odbc_caps(void *state)
{
    (void)state;
    return VERROU_CAP_SHARED;
}

static const char *const odbc_schemes[] = {"odbc", NULL};

static const verrou_database odbc_database = {
    .version = VERROU_STORE_VERSION,
    .set_table_name = odbc_set_table_name,
    .create_table_if_not_exists = verrou__odbc_make,
    .insert_lock = odbc_insert_lock,
    .acquire_lock = odbc_acquire_lock,
    .delete_lock = odbc_delete_lock,
    .extend_lock = odbc_extend_lock,
    .get_lock = odbc_get_lock,
    .now = verrou__odbc_now,
    .next_fence = odbc_next_fence,
};

static const verrou_driver odbc_driver = {
    .version = VERROU_STORE_VERSION,
    .schemes = odbc_schemes,
    .create = odbc_create,
    .destroy = odbc_destroy,
    .caps = odbc_caps,
    .list = verrou__odbc_list,
    .check = verrou__odbc_check,
    .schema = verrou__odbc_schema,
    .database = &odbc_database,
};

const verrou_driver *verrou_odbc_driver(void)
{
    return &odbc_driver;
}
