/*
 * table.c - the lock table: its shape, and the statements that follow from it.
 *
 * The table is the one that Verrou for Node.js makes: `key` (unique), `owner`, `expiration` in epoch milliseconds with NULL for
 * "never". Ours has one column more, `fence`, and compares keys byte by byte. A table that exists is used as it is, and never altered here.
 *
 * MariaDB keeps the statements for a session, by name (PREPARE): parsing one takes longer than carrying it out. MySQL cannot take values in
 * EXECUTE, so there they are written out each time.
 */
#include "mysql_store.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* ---- statements ---- */

/*
 * %T the table, %N the server's clock in microseconds, %M in milliseconds, %K the row that would collide with the key, %X the row of exactly
 * this key, %O the owner as bytes, %F the stored token, %R the row is renamed, %L the lease is live, %E it is over.
 * Values: %k key, %b its bytes, %o owner, %p its bytes, %t TTL or NULL, %f token, %0 to %3 the user locks of those who wait.
 * %W is '': what a released row has for an owner.
 *
 * ACQUIRE inserts a row, or takes over one that is free: then each assignment sees what those before it did, so that the expiration, on which
 * all of them depend, comes last. VALUES(fence) is the clock. LAST_INSERT_ID(x) makes x come back with the number of rows: 1 new, 2 taken
 * over, 0 refused. A trigger can change a row that was refused, which then counts; so x is 0 in that case, and only both numbers together mean taken.
 * A stored token that cannot be counted on makes the sum overflow, and the statement fail.
 *
 * EXTEND to the end that it already has changes no row, so LAST_INSERT_ID() says that there was one.
 *
 * RELEASE and FORCE look for somebody who waits, in the same way: the number that comes back is that of his session, 0 if there is none.
 *
 * On a table that folds keys the row taken over is renamed, so that afterwards only the exact key can release or extend.
 */
static const char *const fenced_sql[STATEMENT_COUNT] = {
    [STATEMENT_ACQUIRE] = ("INSERT INTO %T (`key`,`owner`,`expiration`,`fence`) VALUES (%k,%o,%M+%t,LAST_INSERT_ID(%N))"
                           " ON DUPLICATE KEY UPDATE %R`owner`=IF(%E,VALUES(`owner`),`owner`),"
                           "`fence`=IF(%E,LAST_INSERT_ID(GREATEST(IF(%F<" LOCK_TABLE_MAX_FENCE
                           ",%F+1,%F+9223372036854775807),VALUES(`fence`))),IF(LAST_INSERT_ID(0),0,`fence`)),"
                           "`expiration`=IF(%E,VALUES(`expiration`),`expiration`)"),
    [STATEMENT_RELEASE] =
        "UPDATE %T SET `owner`=%W,`expiration`=0 WHERE %X AND %O=%p AND %L AND (%f=0 OR %F IN (0,%f))",
    [STATEMENT_EXTEND] = ("UPDATE %T SET `expiration`=%M+%t,`owner`=IF(LAST_INSERT_ID(1)>0,`owner`,'')"
                          " WHERE %X AND %O=%p AND %L AND (%f=0 OR %F IN (0,%f))"),
    [STATEMENT_FORCE] = "UPDATE %T SET `owner`=%W,`expiration`=0 WHERE %X",
    [STATEMENT_LOOK] = "SELECT `owner`,`expiration`,%F,%M FROM %T WHERE %K",
};

/*
 * Without a token to keep there is no use for a tombstone: a released row goes, as in the original. The token is drawn by a statement of its own,
 * MYSQL_NEXT_TOKEN, once the row is taken: the clock of the statement that takes it stands at its begin, and since then somebody with a later
 * one may have come and gone.
 */
static const char *const plain_sql[STATEMENT_COUNT] = {
    [STATEMENT_ACQUIRE] = ("INSERT INTO %T (`key`,`owner`,`expiration`) VALUES (%k,IF(LAST_INSERT_ID(1),%o,''),%M+%t)"
                           " ON DUPLICATE KEY UPDATE %R`owner`=IF(%E,IF(LAST_INSERT_ID(1),VALUES(`owner`),''),"
                           "IF(LAST_INSERT_ID(0),'',`owner`)),"
                           "`expiration`=IF(%E,VALUES(`expiration`),`expiration`)"),
    [STATEMENT_RELEASE] = "DELETE FROM %T WHERE %X AND %O=%p AND %L",
    [STATEMENT_EXTEND] = ("UPDATE %T SET `expiration`=%M+%t,`owner`=IF(LAST_INSERT_ID(1)>0,`owner`,'')"
                          " WHERE %X AND %O=%p AND %L"),
    [STATEMENT_FORCE] = "DELETE FROM %T WHERE %X",
    [STATEMENT_LOOK] = "SELECT `owner`,`expiration`,0,%M FROM %T WHERE %K",
};

/* Letters of the values; in a statement that is ready to be filled in, a value is its place in here plus 1. */
static const char values[] = "kboptf0123";

static bool is_value(char byte)
{
    return byte >= 1 && byte < (char)sizeof values;
}

static void expand(const mysql_lane *lane, const char *from, mysql_text *out);

static void expand_name(const mysql_lane *lane, char name, mysql_text *out)
{
    const mysql_shape *shape = &lane->shape;
    const char *value = strchr(values, name);

    if (value) {
        char place = (char)(value - values + 1);

        verrou__mysql_text_add(out, &place, 1);
        return;
    }
    switch (name) {
    case 'T':
        expand(lane, lane->state->name, out);
        break;
    case 'N':
        expand(lane, MYSQL_NOW_US, out);
        break;
    case 'M':
        expand(lane, MYSQL_NOW_MS, out);
        break;
    case 'K':
        expand(lane, "`key`=%k", out);
        break;
    case 'X':
        expand(lane, shape->folded ? "%K AND CAST(CONVERT(`key` USING utf8mb4) AS BINARY)=%b" : "%K", out);
        break;
    case 'O':
        expand(lane, "CAST(CONVERT(`owner` USING utf8mb4) AS BINARY)", out);
        break;
    case 'F':
        expand(lane, shape->fence_odd ? "CAST(IFNULL(`fence`,0) AS SIGNED)" : "`fence`", out);
        break;
    case 'R':
        expand(lane, shape->folded ? "`key`=IF(%E,VALUES(`key`),`key`)," : "", out);
        break;
    case 'W':
        expand(lane,
               lane->tells_waiters ? "IF(LAST_INSERT_ID(IFNULL(COALESCE(IS_USED_LOCK(%0),IS_USED_LOCK(%1),"
                                     "IS_USED_LOCK(%2),IS_USED_LOCK(%3)),0))>=0,'','')"
                                   : "''",
               out);
        break;
    case 'L':
        expand(lane, "(`expiration` IS NULL OR `expiration`>%M)", out);
        break;
    case 'E':
        expand(lane, shape->fenced ? "`expiration`<=VALUES(`fence`) DIV 1000" : "`expiration`<=%M", out);
        break;
    default:
        break;
    }
}

static void expand(const mysql_lane *lane, const char *from, mysql_text *out)
{
    for (; *from; from++) {
        if (*from == '%')
            expand_name(lane, *++from, out);
        else
            verrou__mysql_text_add(out, from, 1);
    }
}

/* One of the locks by which waiters show themselves; our own is left out. */
static void write_waiter(const mysql_lane *lane, int slot, const verrou_op *op, mysql_text *out)
{
    uint64_t hash = verrou__mysql_watch_hash(lane->state, op->key, op->key_len);

    if (slot == verrou__mysql_watch_slot(lane->state, hash))
        verrou__mysql_text_addf(out, "'verrou-none'");
    else
        verrou__mysql_text_addf(out, "'" MYSQL_WAIT_NAME "'", (unsigned long long)hash, slot);
}

static void write_value(const mysql_lane *lane, char place, const verrou_op *op, mysql_text *out)
{
    char name = values[place - 1];

    if (name >= '0' && name <= '3') {
        write_waiter(lane, name - '0', op, out);
        return;
    }

    if (name == 'o' || (name == 'k' && lane->shape.key_text))
        verrou__mysql_text_add(out, "_utf8mb4 ", 9);
    if (name == 'k' || name == 'b')
        verrou__mysql_text_hex(out, op->key, op->key_len);
    else if (name == 'o' || name == 'p')
        verrou__mysql_text_hex(out, op->owner, op->owner_len);
    else if (name == 'f')
        verrou__mysql_text_addf(out, "%lld", (long long)op->fence);
    else if (op->ttl_ms == VERROU_FOREVER)
        verrou__mysql_text_add(out, "NULL", 4);
    else
        verrou__mysql_text_addf(out, "%lld", (long long)op->ttl_ms);
}

void verrou__mysql_write(mysql_lane *lane, mysql_statement which, const verrou_op *op)
{
    static const char places[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 0};
    const char *sql = lane->statements[which];
    const char *separator = " USING ";

    if (lane->prepared)
        verrou__mysql_text_addf(&lane->text, "EXECUTE v%d", (int)which);
    for (; *sql; sql++) {
        size_t len = strcspn(sql, places);

        if (!lane->prepared)
            verrou__mysql_text_add(&lane->text, sql, len);
        sql += len;
        if (!*sql)
            return;
        if (lane->prepared)
            verrou__mysql_text_add(&lane->text, separator, strlen(separator));
        write_value(lane, *sql, op, &lane->text);
        separator = ",";
    }
}

void verrou__mysql_write_exact(mysql_lane *lane, const char *key, size_t key_len)
{
    verrou__mysql_text_addf(&lane->text, "`key`=%s", lane->shape.key_text ? "_utf8mb4 " : "");
    verrou__mysql_text_hex(&lane->text, key, key_len);
    if (!lane->shape.folded)
        return;
    verrou__mysql_text_addf(&lane->text, " AND CAST(CONVERT(`key` USING utf8mb4) AS BINARY)=");
    verrou__mysql_text_hex(&lane->text, key, key_len);
}

/* PREPARE vN FROM '...' */
static void write_prepare(mysql_lane *lane, int which)
{
    verrou__mysql_text_addf(&lane->text, "%sPREPARE v%d FROM '", lane->text.len ? ";" : "", which);
    for (const char *sql = lane->statements[which]; *sql; sql++) {
        if (is_value(*sql))
            verrou__mysql_text_add(&lane->text, "?", 1);
        else
            verrou__mysql_text_add(&lane->text, *sql == '\'' ? "''" : sql, *sql == '\'' ? 2 : 1);
    }
    verrou__mysql_text_add(&lane->text, "'", 1);
}

/* Statements that cannot be prepared, perhaps because of a proxy in between, are written out. */
static bool statements_make(mysql_lane *lane, mysql_fault *fault)
{
    const char *const *by_shape = lane->shape.fenced ? fenced_sql : plain_sql;
    unsigned done;

    /* In a table that folds keys, those who wait for one of two that are taken for equal show themselves for that one only. */
    lane->tells_waiters = lane->shape.fenced && !lane->shape.folded && lane->marker[0];

    for (int i = 0; i < STATEMENT_COUNT; i++) {
        mysql_text out = {.host = lane->state->host};

        expand(lane, by_shape[i], &out);
        lane->statements[i] = out.at;
        if (out.failed) {
            verrou__mysql_fault_set(fault, MEANS_RETRY, 0, "out of memory");
            return false;
        }
    }
    if (!lane->mariadb)
        return true;
    lane->text.len = 0;
    for (int i = 0; i < STATEMENT_COUNT; i++)
        write_prepare(lane, i);
    lane->prepared = verrou__mysql_run(lane, STATEMENT_COUNT, &done, fault);
    return lane->prepared || (fault->meaning == MEANS_FAILED && !lane->broken);
}

/* ---- shape ---- */

VERROU_PRINTF(3, 4)
static bool wrong_shape(const mysql_lane *lane, mysql_fault *fault, const char *format, ...)
{
    char what[300];
    va_list args;

    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    verrou__mysql_fault_set(fault, MEANS_FAILED, 0, "%s: table %s cannot hold locks: %s", lane->address.name,
                            lane->state->name, what);
    return false;
}

/* Whether texts that differ in their bytes always differ in this collation. Those that end in _bin but pad take 'a' and 'a ' for equal. */
static bool is_exact(const char *collation)
{
    const char *end = strstr(collation, "_nopad_bin");

    return (end && !end[10]) || strcasecmp(collation, "utf8mb4_0900_bin") == 0 || strcasecmp(collation, "binary") == 0;
}

static bool begins(const char *text, const char *with)
{
    return strncasecmp(text, with, strlen(with)) == 0;
}

/* What we look for in the columns. */
typedef struct {
    bool key, owner, expiration, fence;
} columns_seen;

/* Of SHOW FULL COLUMNS */
enum { COLUMN_NAME, COLUMN_TYPE, COLUMN_COLLATION, COLUMN_NULL, COLUMN_KEY, COLUMN_DEFAULT, COLUMN_EXTRA };

/* One column; what is to be said of it if it is wrong, or NULL. CHAR and BINARY lose the blanks and zeros at the end of what they hold. */
static const char *column_check(MYSQL_ROW row, mysql_shape *shape, columns_seen *seen)
{
    static const char must_be_bigint[] = "must be BIGINT";
    const char *name = row[COLUMN_NAME];
    const char *type = row[COLUMN_TYPE] ? row[COLUMN_TYPE] : "";
    const char *collation = row[COLUMN_COLLATION] ? row[COLUMN_COLLATION] : "";
    const char *extra = row[COLUMN_EXTRA] ? row[COLUMN_EXTRA] : "";
    bool nullable = row[COLUMN_NULL] && begins(row[COLUMN_NULL], "YES");

    if (strcasestr(extra, "auto_increment"))
        return "is AUTO_INCREMENT: its numbers would be taken for tokens";
    if (strcasecmp(name, "key") == 0) {
        seen->key = true;
        shape->key_text = *collation != '\0';
        shape->folded = *collation && !is_exact(collation);
        snprintf(shape->collation, sizeof shape->collation, "%s", collation);
        return begins(type, "var") ? NULL : "must be VARBINARY(255) or VARCHAR(255)";
    }
    if (strcasecmp(name, "owner") == 0) {
        seen->owner = true;
        shape->owner_folded = *collation && !is_exact(collation);
        snprintf(shape->owner_collation, sizeof shape->owner_collation, "%s", collation);
        return begins(type, "var") || strcasestr(type, "text") ? NULL : "must be VARCHAR(255)";
    }
    if (strcasecmp(name, "expiration") == 0) {
        seen->expiration = true;
        return begins(type, "bigint") ? NULL : must_be_bigint;
    }
    if (strcasecmp(name, "fence") == 0) {
        seen->fence = true;
        shape->fence_odd = nullable || strcasestr(type, "unsigned");
        return begins(type, "bigint") ? NULL : must_be_bigint;
    }
    if (!nullable && !row[COLUMN_DEFAULT] && !strcasestr(extra, "generated") && !strcasestr(extra, "virtual") &&
        !strcasestr(extra, "stored"))
        return "has no default and may not be NULL";
    return NULL;
}

static bool columns_check(mysql_lane *lane, MYSQL_RES *rows, mysql_shape *shape, mysql_fault *fault)
{
    columns_seen seen = {.key = false};
    const char *first_wrong = NULL;
    char wrong_name[200] = "";
    MYSQL_ROW row;

    if (mysql_num_fields(rows) <= COLUMN_EXTRA)
        return wrong_shape(lane, fault, "the server describes its columns in an unknown way");
    while ((row = mysql_fetch_row(rows))) {
        const char *wrong = column_check(row, shape, &seen);

        if (wrong && !first_wrong) {
            first_wrong = wrong;
            snprintf(wrong_name, sizeof wrong_name, "%s", row[COLUMN_NAME]);
        }
    }
    if (!seen.key || !seen.owner || !seen.expiration)
        return wrong_shape(lane, fault, "it lacks the column `%s`",
                           !seen.key ? "key" : (!seen.owner ? "owner" : "expiration"));
    shape->fenced = seen.fence;
    return !first_wrong || wrong_shape(lane, fault, "its column `%s` %s", wrong_name, first_wrong);
}

/* Of SHOW INDEX */
enum { INDEX_NON_UNIQUE = 1, INDEX_NAME, INDEX_PLACE, INDEX_COLUMN, INDEX_SUB_PART = 7 };

/*
 * There must be a unique index on `key` alone, and no other one: ON DUPLICATE KEY UPDATE would take over the row that collides there, which
 * is that of another key.
 */
static bool indexes_check(mysql_lane *lane, MYSQL_RES *rows, mysql_fault *fault)
{
    bool found = false;
    char name[200] = "";
    MYSQL_ROW row;

    if (mysql_num_fields(rows) <= INDEX_SUB_PART)
        return wrong_shape(lane, fault, "the server describes its indexes in an unknown way");
    while ((row = mysql_fetch_row(rows))) {
        if (!row[INDEX_NON_UNIQUE] || strcmp(row[INDEX_NON_UNIQUE], "0") != 0 || !row[INDEX_NAME])
            continue;
        if (!row[INDEX_COLUMN] || strcasecmp(row[INDEX_COLUMN], "key") != 0 || row[INDEX_SUB_PART] ||
            strcmp(name, row[INDEX_NAME]) == 0)
            return wrong_shape(lane, fault, "its unique index `%s` is not on the whole column `key` and nothing else",
                               row[INDEX_NAME]);
        snprintf(name, sizeof name, "%s", row[INDEX_NAME]);
        found = true;
    }
    return found || wrong_shape(lane, fault, "it needs a primary key or unique index on just the column `key`");
}

/* False: it is no table. */
static bool engine_read(const mysql_lane *lane, MYSQL_RES *rows, mysql_shape *shape, mysql_fault *fault)
{
    MYSQL_ROW row = mysql_fetch_row(rows);

    snprintf(shape->engine, sizeof shape->engine, "%s", row && row[0] ? row[0] : "");
    shape->transactional = row && row[1] && strcasecmp(row[1], "YES") == 0;
    return !row || !row[2] || !strcasestr(row[2], "VIEW") || wrong_shape(lane, fault, "it is a view");
}

static void write_shape_questions(mysql_lane *lane)
{
    const lock_table_settings *names = &lane->state->settings;
    const char *quote = names->schema[0] ? "'" : "";

    lane->text.len = 0;
    verrou__mysql_text_addf(&lane->text,
                            "SHOW FULL COLUMNS FROM %s;SHOW INDEX FROM %s;"
                            "SELECT t.ENGINE,e.TRANSACTIONS,t.TABLE_TYPE FROM information_schema.TABLES AS t"
                            " LEFT JOIN information_schema.ENGINES AS e ON e.ENGINE=t.ENGINE"
                            " WHERE t.TABLE_SCHEMA=%s%s%s AND t.TABLE_NAME='%s'",
                            lane->state->name, lane->state->name, quote,
                            names->schema[0] ? names->schema : "DATABASE()", quote, names->table);
}

bool verrou__mysql_shape(mysql_lane *lane, mysql_shape *shape, mysql_fault *fault)
{
    MYSQL_RES *rows[3] = {NULL};
    bool good = true;

    *shape = (mysql_shape){.exists = false};
    write_shape_questions(lane);
    if (!verrou__mysql_send(lane, fault))
        return false;
    for (int i = 0; i < 3 && good; i++) {
        mysql_reply reply;

        good = verrou__mysql_reply(lane, &reply, fault);
        rows[i] = reply.rows;
    }
    if (good)
        good = verrou__mysql_end(lane, fault);
    if (good && rows[0] && rows[1] && rows[2]) {
        shape->exists = true;
        good = engine_read(lane, rows[2], shape, fault) && columns_check(lane, rows[0], shape, fault) &&
               indexes_check(lane, rows[1], fault);
    } else if (!good && fault->code == ERROR_NO_SUCH_TABLE && !rows[0]) {
        good = true;
    } else if (good) {
        verrou__mysql_break(lane, fault, "PROTOCOL", "an answer without rows");
        good = false;
    }
    for (int i = 0; i < 3; i++)
        mysql_free_result(rows[i]);
    return good;
}

/* ---- making and altering it ---- */

/* MySQL's owner column: the original compares it, and must not take two of them for equal. */
static const char *binary_collation(const mysql_lane *lane)
{
    if (lane->mariadb)
        return lane->version >= 100200 ? "utf8mb4_nopad_bin" : "utf8mb4_bin";
    return lane->version >= 80017 ? "utf8mb4_0900_bin" : "utf8mb4_bin";
}

void verrou__mysql_create_sql(const mysql_lane *lane, const char *indent, const char *outdent, mysql_text *text)
{
    verrou__mysql_text_addf(text,
                            "CREATE TABLE IF NOT EXISTS %s (%s"
                            "`key` varbinary(255) not null primary key,%s"
                            "`owner` varchar(255) character set utf8mb4 collate %s not null,%s"
                            "`expiration` bigint null,%s"
                            "`fence` bigint not null default 0%s) ENGINE=InnoDB",
                            lane->state->name, indent, indent, binary_collation(lane), indent, indent, outdent);
}

bool verrou__mysql_needs_alter(const mysql_shape *shape)
{
    return !shape->fenced || shape->folded || shape->owner_folded || !shape->transactional;
}

/*
 * A key in another character set goes through UTF-8 first: VARBINARY takes the bytes as they are. `fence` is added by the first statement, so that
 * one who runs them a second time fails before he has changed anything.
 */
void verrou__mysql_alter_sql(const mysql_lane *lane, const mysql_shape *shape, mysql_text *text)
{
    const char *name = lane->state->name;
    const char *fence = shape->fenced ? "" : "\n    ADD COLUMN `fence` bigint not null default 0";
    const char *comma = *fence ? "," : "";

    verrou__mysql_text_addf(text, "ALTER TABLE %s%s", name, fence);
    if (shape->folded && !begins(shape->collation, "utf8")) {
        verrou__mysql_text_addf(
            text, "%s\n    MODIFY COLUMN `key` varchar(255) character set utf8mb4 collate %s not null;\nALTER TABLE %s",
            comma, binary_collation(lane), name);
        comma = "";
    }
    if (shape->folded) {
        verrou__mysql_text_addf(text, "%s\n    MODIFY COLUMN `key` varbinary(255) not null", comma);
        comma = ",";
    }
    if (shape->owner_folded) {
        verrou__mysql_text_addf(text,
                                "%s\n    MODIFY COLUMN `owner` varchar(255) character set utf8mb4 collate %s not null",
                                comma, binary_collation(lane));
        comma = ",";
    }
    if (!shape->transactional)
        verrou__mysql_text_addf(text, "%s\n    ENGINE=InnoDB", comma);
}

/* ---- getting ready ---- */

void verrou__mysql_forget(mysql_lane *lane)
{
    for (int i = 0; i < STATEMENT_COUNT; i++) {
        lane->state->host->free(lane->statements[i]);
        lane->statements[i] = NULL;
    }
    lane->ready = lane->prepared = false;
}

static void add_create_hint(mysql_lane *lane, mysql_fault *fault)
{
    mysql_text sql = {.host = lane->state->host};
    size_t len = strlen(fault->text);

    verrou__mysql_create_sql(lane, " ", " ", &sql);
    if (!sql.failed)
        snprintf(fault->text + len, sizeof fault->text - len, "; somebody with the right has to run: %s", sql.at);
    lane->state->host->free(sql.at);
}

/* Somebody else may be faster; then theirs is used. */
static bool table_create(mysql_lane *lane, mysql_fault *fault)
{
    unsigned done;

    lane->text.len = 0;
    verrou__mysql_create_sql(lane, " ", " ", &lane->text);
    if (verrou__mysql_run(lane, 1, &done, fault))
        return true;
    if (fault->code == ERROR_TABLE_RIGHT || fault->code == ERROR_DATABASE_RIGHT)
        add_create_hint(lane, fault);
    return false;
}

static void tell_shape(mysql_lane *lane)
{
    mysql_state *state = lane->state;
    const mysql_shape *shape = &lane->shape;

    if (shape->fenced || !shape->exists)
        atomic_fetch_or(&state->caps, VERROU_CAP_FENCE_STORED);
    else
        atomic_fetch_and(&state->caps, ~VERROU_CAP_FENCE_STORED);
    if (shape->folded && !atomic_exchange(&state->told_collation, true))
        state->host->log(state->log_context, VERROU_WARN, "store.collation", NULL,
                         "table %s compares keys with %s: different keys may exclude each other", state->name,
                         shape->collation);
    if (shape->exists && !shape->transactional && !atomic_exchange(&state->told_engine, true))
        state->host->log(state->log_context, VERROU_WARN, "store.engine", NULL,
                         "table %s is kept by %s, which has no transactions: locks may not survive a crash",
                         state->name, shape->engine[0] ? shape->engine : "an unknown engine");
}

bool verrou__mysql_ready(mysql_lane *lane, bool create, mysql_fault *fault)
{
    mysql_state *state = lane->state;

    if (lane->ready)
        return true;
    verrou__mysql_forget(lane);
    if (!verrou__mysql_shape(lane, &lane->shape, fault))
        return false;
    if (!lane->shape.exists && create && !state->settings.autocreate) {
        verrou__mysql_fault_set(fault, MEANS_FAILED, ERROR_NO_SUCH_TABLE,
                                "%s: there is no table %s, and autocreate is off: `verrou schema apply` makes it",
                                lane->address.name, state->name);
        return false;
    }
    if (!lane->shape.exists && create &&
        (!table_create(lane, fault) || !verrou__mysql_shape(lane, &lane->shape, fault)))
        return false;
    tell_shape(lane);
    if (!lane->shape.exists)
        return !create;
    if (!statements_make(lane, fault)) {
        verrou__mysql_forget(lane);
        return false;
    }
    lane->ready = true;
    return true;
}
