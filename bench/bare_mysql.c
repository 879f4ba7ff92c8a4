/*
 * bare_mysql.c - see bare_mysql.h. A file of its own, because what it sees of the driver has names in common with the tests' servers.
 */
#include "bare_mysql.h"

#define OWNER "0123456789abcdef0123456789abcdef@localhost:12345" /* as long as one that is drawn */

/*
 * Of a release first the user locks by which waiters show themselves; then key and owner, then numbers: the length of the lease, or 0 for whatever
 * token.
 */
#define WAITERS 4
#define MAX_PARAMETERS 10
#define WAITER "verrou-0123456789abcdef-0"

enum { ACQUIRE, RELEASE };

/* What a session of the store is like. */
static const char *const session[] = {
    "SET NAMES utf8mb4",
    "SET SESSION autocommit=1,innodb_lock_wait_timeout=0,lock_wait_timeout=0",
    "SET SESSION sql_mode='STRICT_ALL_TABLES,NO_BACKSLASH_ESCAPES,NO_ENGINE_SUBSTITUTION'",
    "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED,READ WRITE",
};

const char *bare_mysql_statements[BARE_MYSQL_SCRIPTS];

_Noreturn static void die(const struct bare_mysql *bare)
{
    bench_die("libmariadb", mysql_error(bare->connection));
}

void bare_mysql_open(struct bare_mysql *bare, int port, const char *user, const char *database)
{
    bare->connection = mysql_init(NULL);
    if (!bare->connection)
        bench_die("libmariadb", "out of memory");
    if (!mysql_real_connect(bare->connection, "127.0.0.1", user, NULL, database, (unsigned)port, NULL, 0))
        die(bare);
    for (size_t i = 0; i < sizeof(session) / sizeof(session[0]); i++)
        if (mysql_query(bare->connection, session[i]) != 0)
            die(bare);
    for (int i = 0; i < BARE_MYSQL_SCRIPTS; i++) {
        bare->statements[i] = mysql_stmt_init(bare->connection);
        if (!bare->statements[i] ||
            mysql_stmt_prepare(bare->statements[i], bare_mysql_statements[i], strlen(bare_mysql_statements[i])) != 0)
            die(bare);
    }
}

void bare_mysql_close(struct bare_mysql *bare)
{
    for (int i = 0; i < BARE_MYSQL_SCRIPTS; i++)
        mysql_stmt_close(bare->statements[i]);
    mysql_close(bare->connection);
}

long long bare_mysql_integer(const struct bare_mysql *bare, const char *sql)
{
    MYSQL_RES *result = NULL;
    MYSQL_ROW row;
    long long value;

    if (mysql_query(bare->connection, sql) == 0)
        result = mysql_store_result(bare->connection);
    if (!result)
        die(bare);
    row = mysql_fetch_row(result);
    if (!row || !row[0])
        bench_die("libmariadb", "a statement did not do its work");
    value = strtoll(row[0], NULL, 10);
    mysql_free_result(result);
    return value;
}

static void run(const struct bare_mysql *bare, int script, const char *key)
{
    MYSQL_STMT *statement = bare->statements[script];
    long long number = script == ACQUIRE ? 30000 : 0;
    char owner[] = OWNER;
    char waiter[] = WAITER;
    unsigned long lengths[] = {strlen(key), strlen(owner), strlen(waiter)};
    MYSQL_BIND values[MAX_PARAMETERS];
    int count = 0;

    while (script == RELEASE && count < WAITERS)
        values[count++] = (MYSQL_BIND){.buffer_type = MYSQL_TYPE_STRING, .buffer = waiter, .length = &lengths[2]};
    values[count++] = (MYSQL_BIND){.buffer_type = MYSQL_TYPE_STRING, .buffer = (char *)key, .length = &lengths[0]};
    values[count++] = (MYSQL_BIND){.buffer_type = MYSQL_TYPE_STRING, .buffer = owner, .length = &lengths[1]};
    while (count < MAX_PARAMETERS)
        values[count++] = (MYSQL_BIND){.buffer_type = MYSQL_TYPE_LONGLONG, .buffer = &number};
    if (mysql_stmt_param_count(statement) > MAX_PARAMETERS)
        bench_die("libmariadb", "a statement has many parameters");
    if (mysql_stmt_bind_param(statement, values) || mysql_stmt_execute(statement) != 0)
        bench_die("libmariadb", mysql_stmt_error(statement));
    if (mysql_stmt_affected_rows(statement) == 0)
        bench_die("libmariadb", "a statement did not do its work");
}

void bare_mysql_pair(const struct bare_mysql *bare, const char *key)
{
    run(bare, ACQUIRE, key);
    run(bare, RELEASE, key);
}
