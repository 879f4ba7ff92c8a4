/*
 * lock_table.h - what stores over an SQL table share, whichever the database: their settings, the order of a batch, answers that are
 * taken back, and the pace at which tombstones go. docs/internals/sql.md tells the whole.
 */
#ifndef VERROU_LOCK_TABLE_H
#define VERROU_LOCK_TABLE_H

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <verrou/store.h>

#include "util/settings.h"

#define LOCK_TABLE_MAX_NAME 64

/* The largest token that may be stored: above it a JavaScript number is not exact. */
#define LOCK_TABLE_MAX_FENCE "9007199254740991"

/*
 * Tombstones. A token is at least the clock's microseconds, so it exceeds every token made before now: a tombstone whose token
 * lies an hour in the past can go without breaking the order, unless the clock is set back by more than an hour. Pruning walks
 * through the table by key, in small steps. Two rows are looked at for each release, so that with ever new keys the table is
 * at most about twice an hour's worth of releases, and no index is needed beside that of the keys.
 */
#define LOCK_TABLE_PRUNE_RELEASES 64
#define LOCK_TABLE_PRUNE_ROWS 128
#define LOCK_TABLE_PRUNE_AGE_US (INT64_C(3600) * 1000 * 1000)

/* ---- settings ---- */

typedef struct lock_table_settings {
    char schema[LOCK_TABLE_MAX_NAME + 1]; /* what stands before the dot, "" if there is none */
    char table[LOCK_TABLE_MAX_NAME + 1];
    bool autocreate;
} lock_table_settings;

static inline verrou_status lock_table_refuse(const verrou_host *host, const verrou_url *url, const char *name,
                                              const char *value, const char *allowed, verrou_error *err)
{
    settings_reader r = {host, url, err, VERROU_OK};

    settings_refuse(&r, name, value, allowed);
    return r.status;
}

/* The length of the name at the begin of a text, 0 if it is none: letters, digits and _, not beginning with a digit. */
static inline size_t lock_table_name_length(const char *text)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_0123456789";
    size_t length = strspn(text, letters);

    return length > LOCK_TABLE_MAX_NAME || (*text >= '0' && *text <= '9') ? 0 : length;
}

/* Read `table` and `autocreate`. With `qualified` the table may be "schema.table". */
static inline verrou_status lock_table_settings_read(const verrou_host *host, const verrou_url *url, bool qualified,
                                                     lock_table_settings *ret, verrou_error *err)
{
    const char *value = host->setting(url, "table");
    const char *table = value ? value : "verrou";
    size_t length = lock_table_name_length(table);

    *ret = (lock_table_settings){.autocreate = true};
    if (qualified && length && table[length] == '.') {
        memcpy(ret->schema, table, length);
        table += length + 1;
        length = lock_table_name_length(table);
    }
    if (length == 0 || table[length])
        return lock_table_refuse(host, url, "table", value, "1 to 64 letters, digits and _, not beginning with a digit",
                                 err);
    memcpy(ret->table, table, length);

    value = host->setting(url, "autocreate");
    if (value && strcmp(value, "true") != 0 && strcmp(value, "false") != 0)
        return lock_table_refuse(host, url, "autocreate", value, "true or false", err);
    ret->autocreate = !value || strcmp(value, "true") == 0;
    return VERROU_OK;
}

/* ---- a batch ---- */

typedef struct lock_table_item {
    verrou_op *op;
    size_t place; /* in the batch */
} lock_table_item;

static inline int lock_table_compare(const void *a, const void *b)
{
    const lock_table_item *left = a, *right = b;
    int by_key = strcmp(left->op->key, right->op->key);

    return by_key ? by_key : (left->place > right->place) - (left->place < right->place);
}

/* Put a batch into the order in which every batch locks its rows: by key. The requests for one key keep their order. */
static inline void lock_table_sort(verrou_op *const *ops, size_t n, lock_table_item *ret_items)
{
    for (size_t i = 0; i < n; i++)
        ret_items[i] = (lock_table_item){ops[i], i};
    if (n > 1)
        qsort(ret_items, n, sizeof *ret_items, lock_table_compare);
}

static inline bool lock_table_answered(const verrou_op *op)
{
    return op->result == VERROU_OP_APPLIED || op->result == VERROU_OP_REFUSED;
}

/* Has the request changed something, if its transaction is committed? */
static inline bool lock_table_wrote(const verrou_op *op)
{
    return op->result == VERROU_OP_APPLIED && op->kind != VERROU_OP_INSPECT;
}

/* Make a request as it was before it was tried. */
static inline void lock_table_reset(const verrou_host *host, verrou_op *op)
{
    host->free(op->holder);
    op->holder = NULL;
    op->holder_is_owner = 0;
    op->remaining_ms = -1;
    op->others = -1;
    if (op->kind == VERROU_OP_ACQUIRE || op->kind == VERROU_OP_INSPECT)
        op->fence = 0;
    op->result = VERROU_OP_UNSENT;
}

/*
 * The confirmation of a transaction is lost: take an answer back and return what is to be said instead. What changed something may have
 * happened; what only read may rest on a change that did not.
 */
static inline verrou_op_result lock_table_unconfirmed(const verrou_host *host, verrou_op *op)
{
    bool wrote = lock_table_wrote(op);

    lock_table_reset(host, op);
    return wrote ? VERROU_OP_UNKNOWN : VERROU_OP_RETRY;
}

#endif
