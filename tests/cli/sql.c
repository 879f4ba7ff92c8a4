/*
 * The command over an SQL server: what a user does with it from the first lock to the last, and what it says when the server is in his way. The
 * store is the program's argument.
 */
#include "harness.h"
#include "mariadb_servers.h"
#include "postgres_servers.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PASSWORD "s3cr3t"

/* ---- the stores ---- */

static postgres_server *postgres;
static mariadb_server *mariadb;
static char url[128], wrong_url[128];

static void postgres_begin(void)
{
    postgres = postgres_server_start(&(postgres_options){.password = PASSWORD});
    snprintf(url, sizeof url, "postgres://%s:%s@127.0.0.1:%d/%s", POSTGRES_PASSWORD_USER, PASSWORD, postgres->port,
             POSTGRES_DATABASE);
    snprintf(wrong_url, sizeof wrong_url, "postgres://%s:not-%s@127.0.0.1:%d/%s", POSTGRES_PASSWORD_USER, PASSWORD,
             postgres->port, POSTGRES_DATABASE);
}

static void postgres_do(const char *sql)
{
    postgres_text(postgres, "SET ROLE %s; %s", POSTGRES_PASSWORD_USER, sql);
}

static bool postgres_try(const char *sql)
{
    return !*postgres_sqlstate(postgres, "SET ROLE %s; %s", POSTGRES_PASSWORD_USER, sql);
}

static const char *postgres_shape(void)
{
    return postgres_text(postgres, "SELECT column_name, data_type, character_maximum_length, is_nullable"
                                   " FROM information_schema.columns WHERE table_name = 'verrou' ORDER BY 1");
}

static void postgres_end(void)
{
    postgres_server_stop(postgres);
}

static void postgres_again(void)
{
    postgres_server_restart(postgres);
}

static void mysql_begin(void)
{
    mariadb = mariadb_server_start(&(mariadb_options){.password = PASSWORD});
    snprintf(url, sizeof url, "mysql://%s:%s@127.0.0.1:%d/%s", MARIADB_PASSWORD_USER, PASSWORD, mariadb->port,
             MARIADB_DATABASE);
    snprintf(wrong_url, sizeof wrong_url, "mysql://%s:not-%s@127.0.0.1:%d/%s", MARIADB_PASSWORD_USER, PASSWORD,
             mariadb->port, MARIADB_DATABASE);
}

/* Several statements at once, as from a file, up to the first that fails. */
static bool mysql_try_and_say(const char *sql, char *out, size_t size)
{
    MYSQL *client = mariadb_server_connect(mariadb);
    int failed;

    assert_int_equal(mysql_select_db(client, MARIADB_DATABASE), 0);
    assert_int_equal(mysql_set_server_option(client, MYSQL_OPTION_MULTI_STATEMENTS_ON), 0);
    failed = mysql_query(client, sql);
    while (!failed && mysql_more_results(client))
        failed = mysql_next_result(client) > 0;
    snprintf(out, size, "%s", mysql_error(client));
    mysql_close(client);
    return !failed;
}

static void mysql_do(const char *sql)
{
    char error[256];

    if (!mysql_try_and_say(sql, error, sizeof error))
        fail_msg("%s: %s", sql, error);
}

static bool mysql_try(const char *sql)
{
    char error[256];

    return mysql_try_and_say(sql, error, sizeof error);
}

static const char *mysql_shape(void)
{
    return mariadb_text(mariadb, "SHOW CREATE TABLE " MARIADB_DATABASE ".verrou");
}

static void mysql_end(void)
{
    mariadb_server_stop(mariadb);
}

static void mysql_again(void)
{
    mariadb_server_restart(mariadb);
}

static const struct store {
    const char *name;
    void (*begin)(void);
    void (*run)(const char *sql);
    bool (*try)(const char *sql);
    const char *(*shape)(void);
    void (*end)(void);
    void (*again)(void);
    const char *original; /* the table as the original makes it over Knex */
    const char *drop;
    const char *schema; /* the file in schema/ */
    bool repeatable;    /* the one for a table of the original can be run again */
} stores[] = {
    {"postgres", postgres_begin, postgres_do, postgres_try, postgres_shape, postgres_end, postgres_again,
     "CREATE TABLE verrou (key varchar(255) NOT NULL PRIMARY KEY, owner varchar(255) NOT NULL, expiration bigint)",
     "DROP TABLE IF EXISTS verrou", "postgres", true},
    {"mysql", mysql_begin, mysql_do, mysql_try, mysql_shape, mysql_end, mysql_again,
     "CREATE TABLE verrou (`key` varchar(255) NOT NULL PRIMARY KEY, owner varchar(255) NOT NULL, expiration bigint "
     "unsigned)",
     "DROP TABLE IF EXISTS verrou", "mariadb", false},
};

static const struct store *store;

static int group_begin(void **state)
{
    (void)state;
    store->begin();
    return 0;
}

static int begin(void **state)
{
    int failed = setup(state);

    setenv("VERROU_STORE", url, 1);
    store->run(store->drop);
    return failed;
}

static void says(int expected, const char *text, const char *first, const char *second)
{
    job *j = ran(expected, NULL, first, second, NULL);

    assert_contains(j->out_text, text);
    job_free(j);
}

/* ---- tests ---- */

/* The first lock makes the table; a program runs under a lock that nobody else gets, and has its token. */
static void run_excludes(void **state)
{
    job *j;

    (void)state;
    j = ran(0, NULL, "run", "job", "--", "sh", "-c",
            "test \"$VERROU_FENCE\" -gt 1700000000000000 && ! \"$0\" acquire job --no-wait", VERROU_COMMAND, NULL);
    assert_contains(j->err_text, "job");
    job_free(j);
    assert_true(is_free("job"));
}

/* A lock goes from command to command in its serialised form. */
static void locks_are_handed_on(void **state)
{
    job *taken, *j;

    (void)state;
    taken = ran(0, NULL, "acquire", "k", "--ttl", "60s", NULL);
    assert_int_equal(code_of("acquire", "k", "--no-wait", NULL), 75);
    says(0, "k", "status", "k");
    says(0, "k\t", "list", NULL);
    job_free(ran(0, taken->out_text, "extend", "-", "2m", NULL));
    job_free(ran(0, taken->out_text, "release", "-", NULL));
    j = ran(77, taken->out_text, "release", "-", NULL);
    assert_contains(j->err_text, "k");
    job_free(j);
    job_free(taken);
    assert_true(is_free("k"));
}

/* Who may, frees a lock that is somebody else's. */
static void force_release_frees(void **state)
{
    (void)state;
    job_free(ran(0, NULL, "acquire", "k", "--ttl", "none", NULL));
    assert_false(is_free("k"));
    assert_int_equal(code_of("force-release", "k", NULL), 0);
    assert_true(is_free("k"));
}

/* What `schema print` says can be run, more than once, and then nothing is left to say but how a table is made. */
static void schema_can_be_printed_and_applied(void **state)
{
    job *printed, *again;

    (void)state;
    printed = ran(0, NULL, "schema", "print", NULL);
    assert_contains(printed->out_text, "CREATE TABLE IF NOT EXISTS");
    assert_contains(printed->out_text, "schema version 1");
    assert_lacks(printed->out_text, "ALTER");
    store->run(printed->out_text);
    store->run(printed->out_text);
    again = ran(0, NULL, "schema", "print", NULL);
    assert_string_equal(again->out_text, printed->out_text);
    assert_int_equal(code_of("schema", "apply", NULL), 0);
    assert_int_equal(code_of("schema", "apply", NULL), 0);
    says(0, "ok    table: ", "doctor", NULL);
    job_free(printed);
    job_free(again);
}

/* doctor takes a lock itself, and so finds out what the table does not let in. */
static void doctor_tries_a_lock(void **state)
{
    (void)state;
    says(0, "ok    trial: a lock was taken, extended and released\n", "doctor", NULL);
    store->run("ALTER TABLE verrou ADD CONSTRAINT finite CHECK (expiration IS NOT NULL)");
    says(0, "warn  permanent leases: a lock cannot be kept for ever: ", "doctor", NULL);
    store->run("ALTER TABLE verrou ADD CONSTRAINT short CHECK (length(owner) < 10)");
    says(69, "FAIL  trial: a lock cannot be taken: ", "doctor", NULL);
}

/* A table of the original is used as it is, and becomes one of ours only when that is asked for. */
static void originals_table_is_brought_up_to_date(void **state)
{
    job *j;

    (void)state;
    store->run(store->original);
    job_free(ran(0, NULL, "acquire", "k", NULL));
    says(0, "warn  table: ", "doctor", NULL);
    j = ran(0, NULL, "schema", "print", NULL);
    assert_contains(j->out_text, "ALTER TABLE");
    store->run(j->out_text);
    job_free(j);
    says(0, "ok    table: ", "doctor", NULL);
    assert_false(is_free("k"));
}

static void read_schema(const char *suffix, char *out, size_t size)
{
    char path[512];

    snprintf(path, sizeof path, VERROU_SOURCE "/schema/%s%s.sql", store->schema, suffix);
    read_file(path, out, size);
}

/*
 * The files for people who keep their schemas themselves say what `schema print` says, and make of a table of the original what it would. A second
 * run undoes nothing, whether it fails or not.
 */
static void schema_files_are_right(void **state)
{
    char file[4096];
    const char *shape;
    job *j;

    (void)state;
    read_schema("", file, sizeof file);
    j = ran(0, NULL, "schema", "print", NULL);
    assert_string_equal(j->out_text, file);
    job_free(j);
    store->run(store->original);
    read_schema("-from-original", file, sizeof file);
    store->run(file);
    j = ran(0, NULL, "schema", "print", NULL);
    assert_lacks(j->out_text, "ALTER");
    job_free(j);
    shape = store->shape();
    assert_int_equal(store->try(file), store->repeatable);
    assert_string_equal(store->shape(), shape);
}

/* Without the right to make the table: what somebody has to run who may. */
static void missing_table_is_explained(void **state)
{
    char address[192];
    job *j;

    (void)state;
    snprintf(address, sizeof address, "%s?autocreate=false", url);
    setenv("VERROU_STORE", address, 1);
    j = ran(69, NULL, "acquire", "k", "--no-wait", NULL);
    assert_contains(j->err_text, "autocreate is off: `verrou schema apply` makes it");
    job_free(j);
    assert_int_equal(code_of("init", NULL), 0);
    assert_int_equal(code_of("acquire", "k", "--no-wait", NULL), 0);
}

/* A password that is not accepted is shown to nobody, neither is one that is. */
static void passwords_are_not_shown(void **state)
{
    job *j;

    (void)state;
    setenv("VERROU_STORE", wrong_url, 1);
    j = ran(69, NULL, "acquire", "k", "--no-wait", NULL);
    assert_lacks(j->err_text, PASSWORD);
    assert_contains(j->err_text, "assword");
    job_free(j);
    setenv("VERROU_STORE", url, 1);
    j = ran(0, NULL, "doctor", NULL);
    assert_lacks(j->out_text, PASSWORD);
    job_free(j);
}

/* A server that is away is a store that is unavailable, and not somebody who holds the lock. */
static void dead_server_is_no_holder(void **state)
{
    (void)state;
    store->end();
    assert_int_equal(code_of("acquire", "k", "--wait", "1s", NULL), 69);
    assert_int_equal(code_of("status", "k", NULL), 69);
    store->again();
    assert_int_equal(code_of("acquire", "k", "--no-wait", NULL), 0);
}

static int group_end(void **state)
{
    (void)state;
    postgres_free_all();
    mariadb_free_all();
    return 0;
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(run_excludes, begin, teardown),
        cmocka_unit_test_setup_teardown(locks_are_handed_on, begin, teardown),
        cmocka_unit_test_setup_teardown(force_release_frees, begin, teardown),
        cmocka_unit_test_setup_teardown(schema_can_be_printed_and_applied, begin, teardown),
        cmocka_unit_test_setup_teardown(doctor_tries_a_lock, begin, teardown),
        cmocka_unit_test_setup_teardown(originals_table_is_brought_up_to_date, begin, teardown),
        cmocka_unit_test_setup_teardown(schema_files_are_right, begin, teardown),
        cmocka_unit_test_setup_teardown(missing_table_is_explained, begin, teardown),
        cmocka_unit_test_setup_teardown(passwords_are_not_shown, begin, teardown),
        cmocka_unit_test_setup_teardown(dead_server_is_no_holder, begin, teardown),
    };
    char name[32];

    for (size_t i = 0; argc == 2 && i < sizeof stores / sizeof stores[0]; i++)
        if (strcmp(argv[1], stores[i].name) == 0)
            store = &stores[i];
    if (!store) {
        fprintf(stderr, "usage: cli_sql STORE\n");
        return 2;
    }
    snprintf(name, sizeof name, "cli: %s", store->name);
    return cmocka_run_group_tests_name(name, tests, group_begin, group_end);
}
