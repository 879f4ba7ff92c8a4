/*
 * admin.c - list, check (doctor) and schema. State and lane are both the store: see verrou_driver.database in store.h.
 */
#include "odbc_store.h"

#include <inttypes.h>
#include <stdio.h>

static verrou_status fail_nomem(const odbc_store *store, verrou_error *err)
{
    return verrou__odbc_fail(store, err, VERROU_ENOMEM, true, NULL, "out of memory");
}

/* The server's clock, or this machine's if it has none. */
static verrou_status now_read(odbc_store *store, int64_t *ret_now_ms, verrou_error *err)
{
    verrou_status status = verrou__odbc_now(store, ret_now_ms, err);

    if (status != VERROU_ENOTSUP)
        return status;
    *ret_now_ms = verrou__odbc_wall_us() / 1000;
    return VERROU_OK;
}

/* ---- list ---- */

typedef struct listing {
    const odbc_store *store;
    const char *prefix;
    size_t prefix_len;
    int64_t now_ms;
    int64_t deadline_ms;
    verrou_sink *sink;
    bool nomem;
    bool late;
} listing;

static bool list_row(void *context, const odbc_value *values)
{
    listing *list = context;
    const verrou_host *host = list->store->host;
    int64_t remaining_ms = verrou__odbc_number(&values[2]);

    list->late = host->now_ms() >= list->deadline_ms;
    if (values[0].length < list->prefix_len || memcmp(values[0].text, list->prefix, list->prefix_len) != 0)
        return !list->late;
    if (remaining_ms != VERROU_FOREVER)
        remaining_ms -= list->now_ms;
    list->nomem = host->list_add(list->sink, values[0].text, values[0].length, values[1].text, values[1].length,
                                 remaining_ms, (uint64_t)verrou__odbc_number(&values[3])) != 0;
    return !list->nomem && !list->late;
}

verrou_status verrou__odbc_list(void *state, void *lane, const char *prefix, size_t prefix_len, int64_t deadline_ms,
                                verrou_sink *sink, verrou_error *err)
{
    odbc_store *store = state;
    listing list = {store, prefix ? prefix : "", prefix_len, 0, deadline_ms, sink, false, false};
    odbc_param params[1] = {{0}};
    verrou_status status = store->names.autocreate ? verrou__odbc_make(store, err) : verrou__odbc_ready(store, err);

    (void)lane;
    if (status == VERROU_OK)
        status = now_read(store, &list.now_ms, err);
    if (status != VERROU_OK)
        return status;
    params[0].number = list.now_ms;
    status = verrou__odbc_query(store,
                                store->shape.fenced
                                    ? "SELECT `key`, `owner`, `expiration`, COALESCE(`fence`, 0) AS token FROM `table`"
                                      " WHERE `expiration` IS NULL OR `expiration` > ?"
                                    : "SELECT `key`, `owner`, `expiration`, 0 AS zero FROM `table`"
                                      " WHERE `expiration` IS NULL OR `expiration` > ?",
                                params, 1, list_row, &list, err);
    if (status == VERROU_OK && list.nomem)
        return fail_nomem(store, err);
    if (status == VERROU_OK && list.late)
        return verrou__odbc_fail(store, err, VERROU_ESTORAGE, true, NULL,
                                 "the table could not be listed within the time limit");
    return status;
}

/* ---- check ---- */

static bool read_number(void *context, const odbc_value *values)
{
    *(int64_t *)context = verrou__odbc_number(&values[0]);
    return false;
}

static int check_connection(odbc_store *store, verrou_sink *sink)
{
    const verrou_host *host = store->host;
    char driver[64] = "", version[64] = "";
    SQLSMALLINT length;
    int bad;

    SQLGetInfo(store->connection, SQL_DRIVER_NAME, driver, sizeof driver, &length);
    SQLGetInfo(store->connection, SQL_DRIVER_VER, version, sizeof version, &length);
    bad = host->finding(sink, VERROU_INFO, "database", "%s %s", store->product, store->version);
    bad |= host->finding(sink, VERROU_INFO, "driver", "%s %s", driver, version);
    if (store->untimed && !store->dialect->session)
        bad |= host->finding(sink, VERROU_WARN, "timeout", "the driver does not limit the time of a statement");
    else
        bad |= host->finding(sink, VERROU_INFO, "timeout", "%" PRId64 " s for a statement, by the server's count",
                             store->limit_s);
    return bad;
}

static verrou_status check_clock(odbc_store *store, verrou_sink *sink, int *bad, verrou_error *err)
{
    int64_t now_ms = 0;
    verrou_status status = now_read(store, &now_ms, err);

    if (status != VERROU_OK)
        return status;
    if (!store->dialect->clock)
        *bad |= store->host->finding(sink, VERROU_WARN, "clock",
                                     "how this database tells the time is not known: the clocks of the clients decide "
                                     "when a lease ends");
    else
        *bad |= store->host->finding(sink, VERROU_INFO, "clock",
                                     "the server's; it is %" PRId64 " ms ahead of this machine's",
                                     now_ms - verrou__odbc_wall_us() / 1000);
    return VERROU_OK;
}

/* The column's own collation is asked about two texts that are not in the table. */
static void check_collation(odbc_store *store, verrou_sink *sink, int *bad)
{
    verrou_error ignored = VERROU_ERROR_INIT;
    int64_t alike = 0;
    verrou_status status =
        verrou__odbc_query(store,
                           "SELECT COUNT(*) AS alike FROM (SELECT `key` FROM `table` WHERE 1 = 0 UNION ALL"
                           " SELECT 'verrou' AS `key``dual`) probe WHERE `key` = 'VERROU' OR `key` = 'verrou '",
                           NULL, 0, read_number, &alike, &ignored);

    if (status != VERROU_OK)
        *bad |= store->host->finding(sink, VERROU_INFO, "collation", "how keys are compared could not be found out");
    else if (alike > 0)
        *bad |= store->host->finding(sink, VERROU_WARN, "collation",
                                     "keys are not compared byte by byte: different keys may exclude each other");
    else
        *bad |= store->host->finding(sink, VERROU_INFO, "collation", "keys are compared byte by byte");
}

static verrou_status check_table(odbc_store *store, verrou_sink *sink, int *bad, verrou_error *err)
{
    const verrou_host *host = store->host;
    const char *name = store->names.table;
    verrou_error misfit = VERROU_ERROR_INIT;
    int64_t rows = 0;
    verrou_status status = verrou__odbc_look(store, err);

    if (status != VERROU_OK)
        return status;
    if (verrou__odbc_fits(store, &misfit) != VERROU_OK) {
        *bad |= host->finding(sink, VERROU_ERROR_LEVEL, "table", "%s", misfit.message);
        return VERROU_OK;
    }
    if (!store->shape.exists) {
        *bad |= host->finding(sink, store->names.autocreate ? VERROU_INFO : VERROU_ERROR_LEVEL, "table",
                              "\"%s\" does not exist%s", name,
                              store->names.autocreate ? " yet: the first lock makes it" : ", and autocreate is off");
        return VERROU_OK;
    }
    *bad |= host->finding(sink, store->shape.fenced ? VERROU_INFO : VERROU_WARN, "table", "\"%s\"%s", name,
                          store->shape.fenced ? ""
                                              : " has no column \"fence\": fencing tokens come from the clock alone; "
                                                "`schema apply` adds it");
    if (store->probed)
        *bad |= host->finding(sink, VERROU_INFO, "unique",
                              "the catalogue of this database is not known: that no key gets a second row was tried "
                              "out with a row that was taken back");
    check_collation(store, sink, bad);
    status = verrou__odbc_query(store, "SELECT COUNT(*) AS n FROM `table`", NULL, 0, read_number, &rows, err);
    if (status == VERROU_OK)
        *bad |= host->finding(sink, VERROU_INFO, "rows", "%" PRId64 "%s", rows,
                              store->dialect->limit ? "" : "; those of released locks are kept for good");
    return status;
}

verrou_status verrou__odbc_check(void *state, void *lane, int64_t deadline_ms, verrou_sink *sink, verrou_error *err)
{
    odbc_store *store = state;
    int bad = 0;
    verrou_status status = verrou__odbc_connect(store, err);

    (void)lane, (void)deadline_ms;
    if (status == VERROU_OK)
        status = check_clock(store, sink, &bad, err);
    if (status == VERROU_OK)
        bad |= check_connection(store, sink);
    if (status == VERROU_OK)
        status = check_table(store, sink, &bad, err);
    return status == VERROU_OK && bad ? fail_nomem(store, err) : status;
}

/* ---- schema ---- */

static const char add_fence_sql[] = "ALTER TABLE `table` ADD `fence` `number_type` DEFAULT 0 NOT NULL";

static verrou_status schema_apply(odbc_store *store, verrou_error *err)
{
    const char *sql = store->shape.exists ? add_fence_sql : verrou__odbc_create_sql;
    int64_t rows;

    if (store->shape.exists && store->shape.fenced)
        return VERROU_OK;
    store->shape.known = false;
    return verrou__odbc_run(store, sql, NULL, 0, &rows, err);
}

static verrou_status schema_print(const odbc_store *store, verrou_sink *sink, verrou_error *err)
{
    const bool again = store->dialect->if_not_exists != NULL;
    char sql[ODBC_MAX_SQL];
    int bad =
        store->host->text_add(sink, "-- Verrou lock table for %s, schema version 1.%s\n",
                              store->product[0] ? store->product : "this database", again ? " Can be run again." : "");
    verrou_status status = VERROU_OK;

    if (again || !store->shape.exists) {
        status = verrou__odbc_write(store, verrou__odbc_create_sql, sql, err);
        if (status == VERROU_OK)
            bad |= store->host->text_add(sink, "%s;\n", sql);
    }
    if (status == VERROU_OK && store->shape.exists && !store->shape.fenced) {
        status = verrou__odbc_write(store, add_fence_sql, sql, err);
        if (status == VERROU_OK)
            bad |= store->host->text_add(sink, "%s;\n", sql);
    }
    return status == VERROU_OK && bad ? fail_nomem(store, err) : status;
}

verrou_status verrou__odbc_schema(void *state, void *lane, int apply, int64_t deadline_ms, verrou_sink *sink,
                                  verrou_error *err)
{
    odbc_store *store = state;
    verrou_status status;

    (void)lane, (void)deadline_ms;
    store->shape.known = false; /* asked for by name: as it is now */
    status = verrou__odbc_look(store, err);
    if (status == VERROU_OK)
        status = verrou__odbc_fits(store, err);
    if (status != VERROU_OK)
        return status;
    return apply ? schema_apply(store, err) : schema_print(store, sink, err);
}
