/*
 * odbc_store.h - what the files of the ODBC store share.
 *
 * odbc.c has the seven calls, one SQL statement each or little more. They send it by two functions of connection.c: one for statements that
 * change rows and one for queries. SQL is written once for all databases, with names in backquotes that are replaced when it is
 * sent; dialect.c has what cannot be written in one way.
 */
#ifndef VERROU_ODBC_STORE_H
#define VERROU_ODBC_STORE_H

#include <sql.h>
#include <sqlext.h>
#include <stdbool.h>

#include "util/lock_table.h"

/* ---- dialects ---- */

/* What is different from one database to another. NULL: there is none. */
typedef struct odbc_dialect {
    const char *product; /* how the driver's name for the database begins; the last dialect, of all others, has "" */
    const char *clock;   /* the server's clock in epoch microseconds, as it is when it is looked at */
    const char *dual;    /* what ends a query that reads no table; "" where that needs nothing */
    const char *session; /* is sent once on every connection */
    const char *if_not_exists; /* in CREATE TABLE; "" */
    const char *key;           /* types of the columns: keys and owners are to be compared byte by byte */
    const char *owner;
    const char *number;
    const char *limit;   /* ends a query of which the first 128 rows are wanted */
    const char *uniques; /* how many unique indexes hold each key to one row; NULL: it is tried out */
    const char *nobody;  /* the owner of a row that was released */
    int busy[4];         /* numbers of errors that pass by themselves, beside what SQLSTATE tells; ends with 0 */
    int read_only[4];    /* those of a server that takes no changes: another connection may lead to one that does */
    int denied[4];       /* those of a right that is missing, beside SQLSTATE 42501 */
    int interrupted[4];  /* those of a statement that was ended, of which it is not known what it did */
} odbc_dialect;

/* The dialect for SQL_DBMS_NAME. */
const odbc_dialect *verrou__odbc_dialect(const char *product);

/* ---- a store ---- */

/* What the table is like. */
typedef struct odbc_shape {
    bool known; /* it was looked at since the connection was made */
    bool exists;
    bool fenced;      /* it has our column; one of the original's has not */
    bool denied;      /* it may not be looked at: whether it exists is not known */
    bool unique;      /* there is one row for a key, and never a second */
    char missing[16]; /* a column that it must have and has not, or "" */
    char code[8];     /* why it could not be looked at */
    char reason[160];
} odbc_shape;

/* All that the store knows. The calls get it as `user`, and are made by one thread at a time. */
typedef struct odbc_store {
    const verrou_host *host;
    char *connection_string; /* may hold a password: for the driver manager only */
    lock_table_settings names;
    int64_t limit_s; /* time limit of a statement, and of connecting */
    SQLHENV environment;
    SQLHDBC connection; /* SQL_NULL_HDBC: none */
    bool lost;          /* it cannot be used any more */
    bool untimed;       /* the driver does not limit the time of statements */
    const odbc_dialect *dialect;
    char product[64];
    char version[64];
    char quote[8];  /* around names; "" if names are not quoted */
    char place[80]; /* the server or data source, for messages; "" if it is not known */
    bool denied;    /* the last statement that failed lacked a right */
    odbc_shape shape;
    bool
        key_is_unique; /* that was found on this connection, and no statement has failed since for a reason that stays */
    bool probed;       /* by trying it out */
    unsigned releases;                  /* since tombstones were pruned */
    char pruned_to[VERROU_MAX_KEY + 1]; /* the key at which the next pruning goes on */
} odbc_store;

/* ---- connection.c ---- */

/* A parameter of a statement: a text, or a number, in which VERROU_FOREVER is NULL. */
typedef struct odbc_param {
    const char *text; /* NULL: the number */
    int64_t number;
} odbc_param;

/* A value that was read. */
typedef struct odbc_value {
    bool null;
    size_t length;
    char text[512]; /* ends with a NUL; longer values are cut */
} odbc_value;

#define ODBC_MAX_VALUES 4

/* Called for each column of a query's answer. */
typedef void (*odbc_column_fn)(void *context, const char *name);

/* Called for each row of a query, with as many values as it has columns. False: no more rows are wanted. */
typedef bool (*odbc_row_fn)(void *context, const odbc_value *values);

/*
 * Send SQL with parameters for its question marks. In it `key`, `owner`, `expiration` and `fence` are columns, `table` is the table;
 * `clock`, `dual`, `if_not_exists`, `key_type`, `owner_type`, `number_type`, `limit` stand for what the dialect has for them, `seconds` is the
 * time limit, `table_text` and `schema_text` are names as SQL texts, NULL for none. Both connect first if there is no connection.
 *
 * Failures of run: VERROU_ESTORAGE if nothing was changed, VERROU_EUNKNOWN if the answer was lost. Failures of query: VERROU_ESTORAGE.
 */
verrou_status verrou__odbc_run(odbc_store *store, const char *sql, const odbc_param *params, size_t count,
                               int64_t *ret_rows, verrou_error *err);
verrou_status verrou__odbc_query(odbc_store *store, const char *sql, const odbc_param *params, size_t count,
                                 odbc_row_fn each, void *context, verrou_error *err);

/* The names of the columns that a query gives, even if it gives no rows. */
verrou_status verrou__odbc_columns(odbc_store *store, const char *sql, odbc_column_fn each, void *context,
                                   verrou_error *err);

/* Let the statements that follow be one transaction, if the driver can; and undo it. */
bool verrou__odbc_begin(odbc_store *store);
void verrou__odbc_undo(odbc_store *store);

/* host->fail(), with the name of the place before the message. */
verrou_status verrou__odbc_fail(const odbc_store *store, verrou_error *err, verrou_status status, bool retriable,
                                const char *code, const char *format, ...) __attribute__((format(printf, 6, 7)));
/* Find the place in the connection string. */
void verrou__odbc_name_place(odbc_store *store);
/* No value of the connection string begins with a { that is not closed. */
bool verrou__odbc_braces_close(const char *connection_string);

/* Write SQL as it would be sent. VERROU_ESTORAGE if it is too long. */
#define ODBC_MAX_SQL 2048
verrou_status verrou__odbc_write(const odbc_store *store, const char *sql, char out[ODBC_MAX_SQL], verrou_error *err);

/* Connect, unless there is a connection that is not lost. */
verrou_status verrou__odbc_connect(odbc_store *store, verrou_error *err);
/* Disconnect, and free what belongs to ODBC. */
void verrou__odbc_close(odbc_store *store);

/* This machine's clock, in place of that of a database which does not tell its own. */
int64_t verrou__odbc_wall_us(void);

/* ---- table.c ---- */

extern const char verrou__odbc_create_sql[];

/* Connect, and look at the table, unless that was done: store->shape is known then. That there is no table is no failure. */
verrou_status verrou__odbc_look(odbc_store *store, verrou_error *err);
/* The shape that was seen is that of a table for locks. That there is none is no failure. */
verrou_status verrou__odbc_fits(odbc_store *store, verrou_error *err);
/* Look, unless that was done: there is a table for locks. */
verrou_status verrou__odbc_ready(odbc_store *store, verrou_error *err);
/* Make the table if there is none. It is for locks, then. */
verrou_status verrou__odbc_make(void *user, verrou_error *err);

/* ---- odbc.c ---- */

verrou_status verrou__odbc_now(void *user, int64_t *ret_now_ms, verrou_error *err);
int64_t verrou__odbc_number(const odbc_value *value); /* NULL is VERROU_FOREVER */

/* ---- admin.c ---- */

verrou_status verrou__odbc_list(void *state, void *lane, const char *prefix, size_t prefix_len, int64_t deadline_ms,
                                verrou_sink *sink, verrou_error *err);
verrou_status verrou__odbc_check(void *state, void *lane, int64_t deadline_ms, verrou_sink *sink, verrou_error *err);
verrou_status verrou__odbc_schema(void *state, void *lane, int apply, int64_t deadline_ms, verrou_sink *sink,
                                  verrou_error *err);

#endif
