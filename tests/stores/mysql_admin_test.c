/*
 * mysql_admin_test.c - list, doctor and schema of the MySQL store on a real MariaDB.
 */
#include "driver_testing.h"
#include "mariadb_servers.h"

#include <verrou/mysql.h>

static mariadb_server *server;
static test_store store;

static int start_server(void **state)
{
    (void)state;
    server = mariadb_server_start(NULL);
    return 0;
}

static int stop_server(void **state)
{
    (void)state;
    mariadb_free_all();
    return 0;
}

static void open_with(const char *settings)
{
    char address[256];

    snprintf(address, sizeof address, "mysql://" MARIADB_USER "@127.0.0.1:%d/" MARIADB_DATABASE "%s", server->port,
             settings);
    store = test_open(verrou_mysql_driver(), address);
}

static int open_store(void **state)
{
    (void)state;
    mariadb_text(server, "DROP TABLE IF EXISTS " MARIADB_DATABASE ".verrou");
    open_with("");
    return 0;
}

static int close_store(void **state)
{
    (void)state;
    test_close(&store);
    return 0;
}

#define on_table(sql) mariadb_text(server, sql, MARIADB_DATABASE ".verrou")

/* A table as the original makes it, in a character set and collation. */
static void make_original(const char *charset, const char *collation)
{
    mariadb_text(server,
                 "CREATE TABLE " MARIADB_DATABASE ".verrou (`key` varchar(255) not null primary key,"
                 " `owner` varchar(255) not null, `expiration` bigint unsigned null)"
                 " DEFAULT CHARACTER SET %s COLLATE %s",
                 charset, collation);
}

static void must_contain(const char *text, const char *part)
{
    if (!strstr(text, part))
        fail_msg("'%s' is not in: %s", part, text);
}

static void must_not_contain(const char *text, const char *part)
{
    if (strstr(text, part))
        fail_msg("'%s' is in: %s", part, text);
}

/* ---- list ---- */

/* What begins with the prefix and is live, whatever the prefix means to SQL. */
static void list_is_exact(void **state)
{
    static const char *const keys[] = {"a%b:1", "a%b:2", "a_b:1", "A%b:1", "a%", "axb:1", "\377"};

    (void)state;
    for (size_t i = 0; i < 6; i++)
        assert_int_equal(test_acquire(&store, keys[i], "me"), VERROU_OP_APPLIED);
    assert_int_equal(test_release(&store, "a%b:2", "me"), VERROU_OP_APPLIED);
    assert_int_equal(test_run(&store, VERROU_OP_ACQUIRE, "a%b:3", "me", VERROU_FOREVER), VERROU_OP_APPLIED);
    assert_string_equal(test_list(&store, "a%b:"), "a%b:1 me live\na%b:3 me forever\n");
    assert_string_equal(test_list(&store, "a%b:1x"), "");
    assert_string_equal(test_list(&store, ""), "A%b:1 me live\na% me live\na%b:1 me live\na%b:3 me forever\n"
                                               "a_b:1 me live\naxb:1 me live\n");
    test_acquire(&store, "token", "me");
    test_list(&store, "token");
    assert_int_equal(test_listed_fence("token"), test_last.fence);
}

/* The same where the column folds case. */
static void list_of_the_original(void **state)
{
    (void)state;
    make_original("utf8mb4", "utf8mb4_general_ci");
    assert_int_equal(test_acquire(&store, "App:x", "me"), VERROU_OP_APPLIED);
    assert_int_equal(test_acquire(&store, "app:y", "me"), VERROU_OP_APPLIED);
    assert_string_equal(test_list(&store, "app:"), "app:y me live\n");
    assert_string_equal(test_list(&store, ""), "App:x me live\napp:y me live\n");
}

/* ---- check ---- */

/* A good place has nothing to be warned of. */
static void good_place(void **state)
{
    const char *found;

    (void)state;
    mariadb_text(server, "SET GLOBAL innodb_flush_log_at_trx_commit=1");
    assert_int_equal(test_acquire(&store, "k", "me"), VERROU_OP_APPLIED);
    assert_int_equal(test_release(&store, "k", "me"), VERROU_OP_APPLIED);
    found = test_check(&store);
    for (const char *line = found; line && *line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL)
        assert_int_equal(atoi(line), VERROU_INFO);
    must_contain(found, "server: MariaDB 1");
    must_contain(found, "STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION (of our sessions)");
    must_contain(found, "durability: innodb_flush_log_at_trx_commit=1\n");
    must_contain(found, "clock: the server's is ");
    must_contain(found, "table: `verrou`\n");
    must_contain(found, "collation: keys are compared byte by byte");
    must_contain(found, "engine: InnoDB\n");
    must_contain(found, "rows: 1, of which 1 released");
}

/* A server that may forget commits. */
static void server_that_forgets(void **state)
{
    char wanted[80];

    (void)state;
    mariadb_text(server, "SET GLOBAL innodb_flush_log_at_trx_commit=0");
    snprintf(wanted, sizeof wanted, "%d durability: innodb_flush_log_at_trx_commit=0:", (int)VERROU_WARN);
    must_contain(test_check(&store), wanted);
    mariadb_text(server, "SET GLOBAL innodb_flush_log_at_trx_commit=2");
    must_contain(test_check(&store), "=2: after a crash");
}

/* A server that refuses statements at our isolation. */
static void statement_binlog(void **state)
{
    mariadb_server *logging = mariadb_server_start(
        &(mariadb_options){.config = "log_bin\nserver_id=7\nbinlog_format=STATEMENT\nsync_binlog=0\n"});
    char address[200], wanted[80];
    test_store other;

    (void)state;
    snprintf(address, sizeof address, "mysql://" MARIADB_USER "@127.0.0.1:%d/" MARIADB_DATABASE, logging->port);
    other = test_open(verrou_mysql_driver(), address);
    snprintf(wanted, sizeof wanted, "%d binlog_format: STATEMENT", (int)VERROU_ERROR_LEVEL);
    must_contain(test_check(&other), wanted);
    must_contain(test_check(&other), "sync_binlog=0");
    assert_int_equal(test_acquire(&other, "k", "me"), VERROU_OP_FAILED);
    assert_string_equal(test_last.code, "1665");
    mariadb_text(logging, "SET GLOBAL binlog_format=ROW");
    test_close(&other);
    other = test_open(verrou_mysql_driver(), address);
    must_not_contain(test_check(&other), "binlog_format");
    assert_int_equal(test_acquire(&other, "k", "me"), VERROU_OP_APPLIED);
    test_close(&other);
    mariadb_server_free(logging);
}

/* A table that is not there, one of the original, one of another engine, and one of another shape. */
static void tables_to_be_warned_of(void **state)
{
    const char *found;

    (void)state;
    must_contain(test_check(&store), "does not exist yet");
    make_original("utf8mb4", "utf8mb4_general_ci");
    found = test_check(&store);
    must_contain(found, "has no column `fence`");
    must_contain(found, "keys are compared with utf8mb4_general_ci");
    must_contain(found, "compares owners with utf8mb4_general_ci");
    on_table("DROP TABLE %s");
    on_table("CREATE TABLE %s (`key` varbinary(255) primary key, owner varbinary(255), expiration bigint,"
             " fence bigint not null default 0) ENGINE=MyISAM");
    must_contain(test_check(&store), "engine: MyISAM has no transactions");
    on_table("DROP TABLE %s");
    on_table("CREATE TABLE %s (id int)");
    must_contain(test_check(&store), "cannot hold locks: it lacks the column `key`");
    on_table("DROP TABLE %s");
    test_close(&store);
    open_with("?autocreate=false");
    must_contain(test_check(&store), "autocreate is off: `verrou schema apply` makes it");
}

/* The clock of the server was set back behind a token. */
static void clock_behind_tokens(void **state)
{
    (void)state;
    assert_int_equal(test_acquire(&store, "k", "me"), VERROU_OP_APPLIED);
    on_table("UPDATE %s SET fence=fence+60000000");
    must_contain(test_check(&store), "ms ahead of the server's clock");
}

/* ---- schema ---- */

/* Carry out what was printed, as a person would. */
static void run_printed(const char *text)
{
    char *copy = strdup(text), *save = NULL;

    assert_non_null(copy);
    for (char *line = strtok_r(copy, "\n", &save), sql[4096] = ""; line; line = strtok_r(NULL, "\n", &save)) {
        size_t len = strlen(line);
        char *name;

        if (strncmp(line, "--", 2) == 0)
            continue;
        strncat(sql, line, sizeof sql - strlen(sql) - 2);
        strcat(sql, " ");
        if (len == 0 || line[len - 1] != ';')
            continue;
        sql[strlen(sql) - 2] = '\0';
        name = strstr(sql, "`verrou`");
        assert_non_null(name);
        *name = '\0';
        mariadb_text(server, "%s" MARIADB_DATABASE ".verrou%s", sql, name + strlen("`verrou`"));
        sql[0] = '\0';
    }
    free(copy);
}

static const char *shape(void)
{
    return on_table("SHOW CREATE TABLE %s");
}

/* What is printed makes the table that the store makes itself; run twice it does no harm. */
static void printed_is_made(void **state)
{
    char *printed = strdup(test_schema(&store)), *made;

    (void)state;
    must_contain(printed, "-- Verrou lock table");
    must_contain(printed, "CREATE TABLE IF NOT EXISTS `verrou` (\n    `key` varbinary(255) not null primary key,");
    assert_int_equal(mariadb_error_number(server, "SELECT * FROM " MARIADB_DATABASE ".verrou"), 1146);
    run_printed(printed);
    run_printed(printed);
    made = strdup(shape());
    on_table("DROP TABLE %s");
    assert_int_equal(test_acquire(&store, "k", "me"), VERROU_OP_APPLIED);
    assert_string_equal(shape(), made);
    assert_string_equal(test_schema(&store), printed);
    free(printed);
    free(made);
}

/* Applying makes it, also with autocreate=false, and again changes nothing. */
static void apply_makes_it(void **state)
{
    char *made;

    (void)state;
    test_close(&store);
    open_with("?autocreate=false");
    test_schema_apply(&store);
    made = strdup(shape());
    test_schema_apply(&store);
    assert_string_equal(shape(), made);
    assert_int_equal(test_acquire(&store, "k", "me"), VERROU_OP_APPLIED);
    free(made);
}

/* A table of the original becomes what ours is, whatever its character set, and who holds a lock keeps it. */
static void apply_alters_the_original(void **state)
{
    static const char *const charsets[][2] = {
        {"utf8mb4", "utf8mb4_general_ci"}, {"latin1", "latin1_swedish_ci"}, {"utf8mb4", "utf8mb4_bin"}};

    (void)state;
    for (int by_hand = 0; by_hand < 2; by_hand++) {
        for (size_t i = 0; i < sizeof charsets / sizeof charsets[0]; i++) {
            on_table("DROP TABLE IF EXISTS %s");
            make_original(charsets[i][0], charsets[i][1]);
            test_close(&store);
            open_with("");
            assert_int_equal(test_acquire(&store, "caf\303\251", "Me"), VERROU_OP_APPLIED);
            must_contain(test_schema(&store), "ALTER TABLE `verrou`");
            if (by_hand)
                run_printed(test_schema(&store));
            else
                test_schema_apply(&store);
            must_not_contain(test_schema(&store), "ALTER");
            test_close(&store);
            open_with("");
            assert_int_not_equal(store.driver->caps(store.state) & VERROU_CAP_FENCE_STORED, 0);
            assert_int_equal(test_acquire(&store, "Caf\303\251", "other"), VERROU_OP_APPLIED);
            assert_int_equal(test_acquire(&store, "caf\303\251 ", "other"), VERROU_OP_APPLIED);
            assert_int_equal(test_acquire(&store, "caf\303\251", "other"), VERROU_OP_REFUSED);
            assert_string_equal(test_last.holder, "Me");
            assert_int_equal(test_release(&store, "caf\303\251", "Me"), VERROU_OP_APPLIED);
        }
    }
}

/* What was printed for a table of the original fails the second time, before it has changed anything. */
static void printed_twice(void **state)
{
    static const char *const charsets[][2] = {{"utf8mb4", "utf8mb4_general_ci"}, {"latin1", "latin1_swedish_ci"}};

    (void)state;
    for (size_t i = 0; i < sizeof charsets / sizeof charsets[0]; i++) {
        char *printed, *made;
        MYSQL *client = mariadb_server_connect(server);
        int failed;

        on_table("DROP TABLE IF EXISTS %s");
        make_original(charsets[i][0], charsets[i][1]);
        printed = strdup(test_schema(&store));
        must_contain(printed, "a second run fails");
        run_printed(printed);
        made = strdup(shape());
        assert_int_equal(mysql_select_db(client, MARIADB_DATABASE), 0);
        assert_int_equal(mysql_set_server_option(client, MYSQL_OPTION_MULTI_STATEMENTS_ON), 0);
        failed = mysql_query(client, printed);
        while (!failed && mysql_more_results(client))
            failed = mysql_next_result(client) > 0;
        assert_int_equal(mysql_errno(client), 1060);
        assert_string_equal(shape(), made);
        mysql_close(client);
        free(printed);
        free(made);
    }
}

/* A table without transactions gets them. */
static void apply_changes_the_engine(void **state)
{
    (void)state;
    on_table("CREATE TABLE %s (`key` varbinary(255) not null primary key, owner varbinary(255) not null,"
             " expiration bigint, fence bigint not null default 0) ENGINE=MyISAM");
    test_schema_apply(&store);
    must_contain(shape(), "ENGINE=InnoDB");
}

/* Somebody's transaction keeps the table from being altered: that is an error, and afterwards locks are not waited for longer than before. */
static void apply_in_vain(void **state)
{
    MYSQL *stranger = mariadb_server_connect(server);
    verrou_error err = VERROU_ERROR_INIT;
    int64_t before_ms;

    (void)state;
    make_original("utf8mb4", "utf8mb4_general_ci");
    assert_int_equal(mysql_query(stranger, "BEGIN"), 0);
    assert_int_equal(mysql_query(stranger, "INSERT INTO " MARIADB_DATABASE ".verrou VALUES ('k','stranger',null)"), 0);
    assert_int_not_equal(test_find(&store, TEST_SCHEMA_APPLY, NULL, 2500, NULL, &err), VERROU_OK);
    assert_string_equal(err.store_code, "1205");
    must_contain(err.message, "somebody else is using table `verrou`");
    before_ms = verrou_now_ms();
    assert_int_equal(test_acquire(&store, "k", "me"), VERROU_OP_RETRY);
    assert_true(verrou_now_ms() - before_ms < 1000);
    mysql_close(stranger);
    test_schema_apply(&store);
    assert_int_equal(test_acquire(&store, "k", "me"), VERROU_OP_APPLIED);
}

int main(void)
{
#define WITH_STORE(test) cmocka_unit_test_setup_teardown(test, open_store, close_store)
    const struct CMUnitTest tests[] = {
        WITH_STORE(list_is_exact),
        WITH_STORE(list_of_the_original),
        WITH_STORE(good_place),
        WITH_STORE(server_that_forgets),
        cmocka_unit_test(statement_binlog),
        WITH_STORE(tables_to_be_warned_of),
        WITH_STORE(clock_behind_tokens),
        WITH_STORE(printed_is_made),
        WITH_STORE(apply_makes_it),
        WITH_STORE(apply_alters_the_original),
        WITH_STORE(printed_twice),
        WITH_STORE(apply_changes_the_engine),
        WITH_STORE(apply_in_vain),
    };

    return cmocka_run_group_tests_name("mysql admin", tests, start_server, stop_server);
}
