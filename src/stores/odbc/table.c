/*
 * table.c - whether the table can hold locks, and making it.
 *
 * The one thing that a store of locks must not do is to let two in at once. All rests on the database refusing a second row for a key, so
 * a table is not used before that is known: from the catalogue where the dialect knows how to ask, else by trying. It is found out once for each
 * connection; the columns are looked at again whenever a statement has failed.
 */
#include "odbc_store.h"

#include <inttypes.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>

const char verrou__odbc_create_sql[] = "CREATE TABLE `if_not_exists``table` (\n"
                                       "    `key` `key_type` NOT NULL PRIMARY KEY,\n"
                                       "    `owner` `owner_type` NOT NULL,\n"
                                       "    `expiration` `number_type`,\n"
                                       "    `fence` `number_type` DEFAULT 0 NOT NULL\n"
                                       ")";

/* The message of verrou__odbc_fail(), for one that names the place itself. */
static const char *bare(const odbc_store *store, const verrou_error *failed)
{
    size_t prefix = strlen("odbc: ") + (store->place[0] ? strlen(store->place) + strlen(": ") : 0);

    return strlen(failed->message) > prefix ? failed->message + prefix : failed->message;
}

/* ---- one row for a key ---- */

static bool read_count(void *context, const odbc_value *values)
{
    *(int64_t *)context = verrou__odbc_number(&values[0]);
    return false;
}

/*
 * The first row of a probe went in: the second was not taken because it was the same key's, or for a reason that passes, of which nothing can be
 * concluded. Class 23, a duplicate, is one that passes for rows of locks.
 */
static bool is_duplicate(verrou_status status, const verrou_error *failed)
{
    return status == VERROU_ESTORAGE && (!failed->retriable || strncmp(failed->store_code, "23", 2) == 0);
}

/* Insert a row of a probe. Nothing but the key is the same in both, so that it is the key which is refused. */
static verrou_status insert_probe(odbc_store *store, const odbc_shape *shape, const char *key, int64_t which,
                                  verrou_error *err)
{
    const odbc_param params[] = {{.text = key},
                                 {.text = which == 1 ? "probe 1" : "probe 2"},
                                 {.number = which == 1 ? VERROU_FOREVER : which},
                                 {.number = which}};
    int64_t rows;

    return verrou__odbc_run(store,
                            shape->fenced
                                ? "INSERT INTO `table` (`key`, `owner`, `expiration`, `fence`) VALUES (?, ?, ?, ?)"
                                : "INSERT INTO `table` (`key`, `owner`, `expiration`) VALUES (?, ?, ?)",
                            params, shape->fenced ? 4 : 3, &rows, err);
}

/* Try it out with a key that nobody has. Without transactions the rows have to be deleted again. */
static verrou_status probe(odbc_store *store, odbc_shape *shape, verrou_error *err)
{
    char key[64];
    const odbc_param params[] = {{.text = key}};
    verrou_error failed = VERROU_ERROR_INIT, ignored = VERROU_ERROR_INIT;
    const bool undoable = verrou__odbc_begin(store);
    int64_t rows;
    verrou_status status;

    snprintf(key, sizeof key, "verrou probe %ld %" PRIx64, (long)getpid(), verrou__odbc_wall_us());
    status = insert_probe(store, shape, key, 1, &failed);
    if (status == VERROU_OK) {
        status = insert_probe(store, shape, key, 2, &failed);
        shape->unique = is_duplicate(status, &failed);
        if (shape->unique)
            status = VERROU_OK;
    }
    if (undoable)
        verrou__odbc_undo(store);
    else
        verrou__odbc_run(store, "DELETE FROM `table` WHERE `key` = ?", params, 1, &rows, &ignored);
    store->probed = status == VERROU_OK;
    if (status != VERROU_OK)
        return verrou__odbc_fail(store, err, VERROU_ESTORAGE, failed.retriable, failed.store_code,
                                 "whether \"%s\" holds one row for a key cannot be tried out: %s", store->names.table,
                                 bare(store, &failed));
    return VERROU_OK;
}

static verrou_status see_unique(odbc_store *store, odbc_shape *shape, verrou_error *err)
{
    verrou_error failed = VERROU_ERROR_INIT;
    int64_t uniques = 0;
    verrou_status status = VERROU_ENOTSUP;

    shape->unique = store->key_is_unique;
    if (shape->unique)
        return VERROU_OK;
    store->probed = false;
    if (store->dialect->uniques)
        status = verrou__odbc_query(store, store->dialect->uniques, NULL, 0, read_count, &uniques, &failed);
    shape->unique = status == VERROU_OK && uniques > 0;
    /* Lost, or busy: it may be told another time. Else the catalogue is not as we know it. */
    if (status == VERROU_ESTORAGE && failed.retriable)
        return store->host->fail(err, VERROU_ESTORAGE, 1, failed.store_code, "%s", failed.message);
    if (status != VERROU_OK)
        status = probe(store, shape, err);
    store->key_is_unique = shape->unique;
    return status;
}

/* ---- the shape ---- */

typedef struct columns_seen {
    odbc_shape *shape;
    bool seen[3];
} columns_seen;

static void see_column(void *context, const char *name)
{
    static const char *const names[] = {"key", "owner", "expiration"};
    columns_seen *columns = context;
    bool *seen = columns->seen;

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        seen[i] |= strcasecmp(name, names[i]) == 0;
    columns->shape->exists = true;
    columns->shape->fenced |= strcasecmp(name, "fence") == 0;
    strcpy(columns->shape->missing, !seen[0] ? names[0] : !seen[1] ? names[1] : !seen[2] ? names[2] : "");
}

verrou_status verrou__odbc_look(odbc_store *store, verrou_error *err)
{
    odbc_shape shape = {.known = true};
    columns_seen columns = {&shape, {false}};
    verrou_error failed = VERROU_ERROR_INIT;
    verrou_status status = verrou__odbc_connect(store, err);

    if (status != VERROU_OK || store->shape.known)
        return status;
    status = verrou__odbc_columns(store, "SELECT * FROM `table` WHERE 1 = 0", see_column, &columns, &failed);
    if (status != VERROU_OK && failed.retriable)
        return store->host->fail(err, VERROU_ESTORAGE, 1, failed.store_code, "%s", failed.message);
    if (status != VERROU_OK) { /* there is no such table, as far as we can see */
        shape.denied = store->denied;
        snprintf(shape.code, sizeof shape.code, "%.7s", failed.store_code);
        snprintf(shape.reason, sizeof shape.reason, "%.159s", bare(store, &failed));
    }
    status = VERROU_OK;
    if (shape.exists && !shape.missing[0])
        status = see_unique(store, &shape, err);
    if (status == VERROU_OK)
        store->shape = shape;
    return status;
}

/* A table that does not fit may be mended: the next one who asks looks again. */
static verrou_status unfit(odbc_store *store, const char *code, const char *what, const char *detail, verrou_error *err)
{
    store->shape.known = false;
    return verrou__odbc_fail(store, err, VERROU_ESTORAGE, false, code, "the table \"%s\" %s%s", store->names.table,
                             what, detail);
}

verrou_status verrou__odbc_fits(odbc_store *store, verrou_error *err)
{
    const odbc_shape *shape = &store->shape;
    char column[24];

    snprintf(column, sizeof column, "\"%s\"", shape->missing);
    if (shape->denied)
        return unfit(store, shape->code,
                     "may not be read: the rights SELECT, INSERT, UPDATE and DELETE on it are needed; ", shape->reason,
                     err);
    if (shape->missing[0])
        return unfit(store, NULL, "cannot hold locks: it has no column ", column, err);
    if (shape->exists && !shape->unique)
        return unfit(store, NULL,
                     "cannot hold locks: there must be a primary key or unique index on just the column \"key\"", "",
                     err);
    return VERROU_OK;
}

verrou_status verrou__odbc_ready(odbc_store *store, verrou_error *err)
{
    verrou_status status = verrou__odbc_look(store, err);

    if (status == VERROU_OK)
        status = verrou__odbc_fits(store, err);
    if (status == VERROU_OK && !store->shape.exists)
        return unfit(store, store->shape.code,
                     store->names.autocreate
                         ? "does not exist; "
                         : "does not exist, and autocreate is off: run `verrou schema apply`, or what `schema print` "
                           "shows; ",
                     store->shape.reason, err);
    return status;
}

/* ---- making it ---- */

/* Says the statement that somebody with more rights can run. */
static verrou_status creating_failed(const odbc_store *store, const verrou_error *why, verrou_error *err)
{
    char sql[ODBC_MAX_SQL], *to = sql;
    verrou_status status = verrou__odbc_write(store, verrou__odbc_create_sql, sql, err);

    if (status != VERROU_OK)
        return status;
    /* In one line. */
    for (const char *at = sql; *at; at++)
        if (*at != '\n' && (*at != ' ' || at[1] != ' '))
            *to++ = *at;
    *to = '\0';
    return store->host->fail(err, VERROU_ESTORAGE, why->retriable, why->store_code, "%.160s; to be run: %s",
                             why->message, sql);
}

/* The table is looked for first, because not every database knows IF NOT EXISTS; and again, because another process may be making it too. */
verrou_status verrou__odbc_make(void *user, verrou_error *err)
{
    odbc_store *store = user;
    verrou_error failed = VERROU_ERROR_INIT;
    int64_t rows;
    verrou_status status = verrou__odbc_look(store, err);

    if (status != VERROU_OK || store->shape.exists || store->shape.denied)
        return status == VERROU_OK ? verrou__odbc_fits(store, err) : status;
    status = verrou__odbc_run(store, verrou__odbc_create_sql, NULL, 0, &rows, &failed);
    store->shape.known = false;
    if (verrou__odbc_look(store, err) != VERROU_OK)
        return VERROU_ESTORAGE;
    if (status != VERROU_OK && !store->shape.exists && !store->shape.denied)
        return creating_failed(store, &failed, err);
    return verrou__odbc_ready(store, err);
}
