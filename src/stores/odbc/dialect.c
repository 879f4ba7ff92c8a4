/*
 * dialect.c - what SQL does not say in one way: above all the server's clock. Databases that are not here get plain standard SQL, the
 * client's clock, and keep their released rows for good.
 *
 * Unique indexes are looked up in the catalogue. SQLStatistics() would be the portable way, but the drivers of PostgreSQL and SQLite
 * tell no partial index from a whole one by it, and that of PostgreSQL no included column from one of the index.
 *
 * PostgreSQL, MariaDB and SQLite are what the tests run on; the others are untried.
 */
#include "odbc_store.h"

#include <strings.h>

/* An interval since 1970 in Oracle, which has no function for that. */
#define ORACLE_PART(part) "EXTRACT(" part " FROM (SYS_EXTRACT_UTC(SYSTIMESTAMP) - TIMESTAMP '1970-01-01 00:00:00'))"

/*
 * MySQL cuts keys that are too long, unless it is told to be strict; two of them would be one lock. The waits of its statements for rows
 * are limited here because few of its drivers do that. Statements get half a second more, so that a wait ends as a wait: of that it is known
 * that nothing was done.
 */
#define MYSQL_SESSION                                                          \
    "SET SESSION sql_mode = CONCAT(@@SESSION.sql_mode, ',STRICT_ALL_TABLES')," \
    " SESSION innodb_lock_wait_timeout = `seconds`"
#define MYSQL_CLOCK "TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6))"
#define MYSQL_UNIQUES                                                                                         \
    "SELECT COUNT(*) AS uniques, 0 AS zero FROM (SELECT index_name FROM information_schema.statistics"        \
    " WHERE table_schema = COALESCE(`schema_text`, DATABASE()) AND table_name = `table_text`"                 \
    " AND (@@lower_case_table_names > 0 OR (BINARY table_name = `table_text`"                                 \
    " AND BINARY table_schema = COALESCE(`schema_text`, DATABASE()))) AND non_unique = 0 GROUP BY index_name" \
    " HAVING COUNT(*) = 1 AND MAX(sub_part) IS NULL AND LOWER(MAX(column_name)) = 'key') AS fitting"
#define MYSQL_ERRORS                                                                                    \
    .busy = {1205 /* waited for a row */}, .denied = {1142 /* of the table */, 1143 /* of a column */}, \
    .uniques = MYSQL_UNIQUES,                                                                           \
    .read_only = {1290 /* read_only is on */, 1792 /* the transaction is */, 1836 /* the server is */}, \
    .interrupted = {1317 /* KILL QUERY */, 1969 /* max_statement_time */}

static const odbc_dialect dialects[] = {
    {
        .product = "PostgreSQL",
        .clock = "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000 AS bigint)",
        .if_not_exists = "IF NOT EXISTS ",
        .key = "text",
        .owner = "text",
        .limit = " LIMIT 128",
        .uniques =
            "SELECT COUNT(*) AS uniques, 0 AS zero FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid"
            " AND a.attnum = i.indkey[0] AND a.attname = 'key' WHERE i.indrelid = to_regclass('`table`')"
            " AND i.indisunique AND i.indimmediate AND i.indisvalid AND i.indpred IS NULL AND i.indnkeyatts = 1",
    },
    {
        .product = "MariaDB",
        .clock = MYSQL_CLOCK,
        .session = MYSQL_SESSION ", SESSION max_statement_time = `seconds`.5",
        .if_not_exists = "IF NOT EXISTS ",
        .key = "varbinary(255)",
        .owner = "varchar(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin",
        .limit = " LIMIT 128",
        MYSQL_ERRORS,
    },
    {
        .product = "MySQL",
        .clock = MYSQL_CLOCK,
        .session = MYSQL_SESSION,
        .if_not_exists = "IF NOT EXISTS ",
        .key = "varbinary(255)",
        .owner = "varchar(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
        .limit = " LIMIT 128",
        MYSQL_ERRORS,
    },
    {
        .product = "SQLite",
        .clock = "CAST(ROUND((julianday('now') - 2440587.5) * 86400000) AS INTEGER) * 1000",
        .session = "PRAGMA busy_timeout = `seconds`000",
        .if_not_exists = "IF NOT EXISTS ",
        .limit = " LIMIT 128",
        .uniques = "SELECT COUNT(*) AS uniques, 0 AS zero FROM pragma_index_list(`table_text`, `schema_text`) AS i"
                   " WHERE i.\"unique\" = 1 AND i.partial = 0"
                   " AND (SELECT COUNT(*) FROM pragma_index_info(i.name, `schema_text`)) = 1"
                   " AND (SELECT MAX(LOWER(name)) FROM pragma_index_info(i.name, `schema_text`)) = 'key'",
        .busy = {5 /* SQLITE_BUSY */, 6 /* SQLITE_LOCKED */, 17 /* SQLITE_SCHEMA: it has changed */},
    },
    {
        .product = "Microsoft SQL Server",
        .clock = "DATEDIFF_BIG(MICROSECOND, '1970-01-01', SYSUTCDATETIME())",
        .key = "varchar(255) COLLATE Latin1_General_100_BIN2_UTF8",
        .owner = "varchar(255) COLLATE Latin1_General_100_BIN2_UTF8",
        .limit = " OFFSET 0 ROWS FETCH NEXT 128 ROWS ONLY",
        .busy = {1205 /* deadlock */, 1222 /* lock timeout */},
        .denied = {229 /* of the table */, 230 /* of a column */},
    },
    {
        .product = "Oracle",
        .clock = "ROUND((" ORACLE_PART("DAY") " * 86400 + " ORACLE_PART("HOUR") " * 3600 + " ORACLE_PART(
            "MINUTE") " * 60 + " ORACLE_PART("SECOND") ") * 1000000)",
        .dual = " FROM dual",
        .key = "varchar2(255 BYTE)",
        .owner = "varchar2(255 BYTE)",
        .number = "number(19)",
        .nobody = "-", /* an empty text is NULL there */
        .denied = {1031},
        .busy = {54 /* busy, NOWAIT */, 60 /* deadlock */},
    },
    {.product = ""},
};

const odbc_dialect *verrou__odbc_dialect(const char *product)
{
    const odbc_dialect *dialect = dialects;

    while (strncasecmp(product, dialect->product, strlen(dialect->product)) != 0)
        dialect++;
    return dialect;
}
