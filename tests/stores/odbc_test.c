/*
 * odbc_test.c - the ODBC store through the drivers of SQLite, PostgreSQL and MariaDB. The seven calls are made directly, where it is a single
 * answer that matters, and through the library, where it is what a caller gets in the end.
 */
/* Before cmocka, whose macro fail() it would fall over. */
#include "stores/odbc/odbc_store.h"

#include "driver_testing.h"
#include "failing_alloc.h"
#include "fault_proxy.h"
#include "mariadb_servers.h"
#include "odbc_drivers.h"
#include "postgres_servers.h"

#include <dlfcn.h>
#include <pthread.h>
#include <verrou/odbc.h>

/* ---- a driver that does not count rows ---- */

static bool uncounted;

/* Stands before the driver manager's. */
SQLRETURN SQL_API SQLRowCount(SQLHSTMT statement, SQLLEN *ret_rows)
{
    SQLRETURN (*count)(SQLHSTMT, SQLLEN *);

    *(void **)&count = dlsym(RTLD_NEXT, "SQLRowCount");
    *ret_rows = -1;
    return uncounted ? SQL_SUCCESS : count(statement, ret_rows);
}

/* ---- a driver without transactions ---- */

static bool untransacted;

SQLRETURN SQL_API SQLSetConnectAttr(SQLHDBC connection, SQLINTEGER attribute, SQLPOINTER value, SQLINTEGER length)
{
    SQLRETURN (*set)(SQLHDBC, SQLINTEGER, SQLPOINTER, SQLINTEGER);

    *(void **)&set = dlsym(RTLD_NEXT, "SQLSetConnectAttr");
    if (untransacted && attribute == SQL_ATTR_AUTOCOMMIT && value == (SQLPOINTER)SQL_AUTOCOMMIT_OFF)
        return SQL_ERROR;
    return set(connection, attribute, value, length);
}

/* ---- ways to the databases ---- */

static postgres_server *postgres;
static mariadb_server *mariadb;

static char sqlite_string[512];
static char postgres_string[512];
static char mariadb_string[512];

/* The same tests run on all three. */
typedef struct database {
    const char *name;
    const char *string;
    char quote;
} database;
static const database databases[] = {
    {"SQLite", sqlite_string, '"'}, {"PostgreSQL", postgres_string, '"'}, {"MariaDB", mariadb_string, '`'}};
#define SQLITE (&databases[0])
#define POSTGRES (&databases[1])
#define MARIADB (&databases[2])
#define DATABASES_END (databases + 3)

static const char *postgres_at(int port)
{
    static char text[512];

    snprintf(text, sizeof text, "Driver=%s;Server=127.0.0.1;Port=%d;Database=%s;Uid=%s", ODBC_POSTGRES_DRIVER, port,
             POSTGRES_DATABASE, POSTGRES_USER);
    return text;
}

static const char *mariadb_at(int port)
{
    static char text[512];

    snprintf(text, sizeof text, "Driver=%s;Server=127.0.0.1;Port=%d;Database=%s;Uid=%s", ODBC_MARIADB_DRIVER, port,
             MARIADB_DATABASE, MARIADB_USER);
    return text;
}

static int start_servers(void **state)
{
    (void)state;
    failing_alloc_install();
    postgres = postgres_server_start(&(postgres_options){.password = "geheim"});
    mariadb = mariadb_server_start(&(mariadb_options){.password = "geheim"});
    snprintf(sqlite_string, sizeof sqlite_string, "Driver=%s;Database=%s/locks.db", ODBC_SQLITE_DRIVER,
             process_folder());
    snprintf(postgres_string, sizeof postgres_string, "%s", postgres_at(postgres->port));
    snprintf(mariadb_string, sizeof mariadb_string, "%s", mariadb_at(mariadb->port));
    return verrou_register_driver(verrou_odbc_driver(), NULL) == VERROU_OK ? 0 : -1;
}

static int stop_servers(void **state)
{
    (void)state;
    postgres_free_all();
    mariadb_free_all();
    return 0;
}

/* ---- the calls, directly ---- */

static test_store store;
static verrou_error err;
static const verrou_database *calls;

static const char *address(const char *string, const char *settings)
{
    static _Thread_local char text[1024];

    snprintf(text, sizeof text, "odbc:%s%s%s", string, settings ? "?" : "", settings ? settings : "");
    return text;
}

static odbc_store *user(void)
{
    return store.state;
}

/* Make the state; no connection yet. */
static void create(const char *string, const char *settings)
{
    calls = verrou_odbc_driver()->database;
    err = (verrou_error)VERROU_ERROR_INIT;
    if (test_create(&store, verrou_odbc_driver(), address(string, settings), &err) != VERROU_OK)
        fail_msg("%s", err.message);
}

/* And the table, if it is not there. */
static void begin(const char *string)
{
    create(string, NULL);
    if (calls->create_table_if_not_exists(user(), &err) != VERROU_OK)
        fail_msg("%s", err.message);
}

/* SQL with %s for the table, as another program would send it. */
#define send_sql(db, sql) odbc_text((db)->string, sql, "verrou")

static void drop_tables(void)
{
    for (const database *db = databases; db < DATABASES_END; db++)
        send_sql(db, "DROP TABLE IF EXISTS %s");
}

static int drop(void **state)
{
    (void)state;
    drop_tables();
    return 0;
}

static int end(void **state)
{
    (void)state;
    test_close(&store);
    return 0;
}

static verrou_status insert(const char *key, const char *owner, int64_t expiration_ms)
{
    err = (verrou_error)VERROU_ERROR_INIT;
    return calls->insert_lock(user(), key, owner, expiration_ms, 0, &err);
}

static int64_t extend(const char *key, const char *owner, int64_t expiration_ms, int64_t now_ms)
{
    int64_t rows = -1;

    if (calls->extend_lock(user(), key, owner, expiration_ms, now_ms, &rows, &err) != VERROU_OK)
        fail_msg("%s", err.message);
    return rows;
}

static int64_t delete (const char *key, const char *owner, int64_t now_ms)
{
    int64_t rows = -1;

    if (calls->delete_lock(user(), key, owner, now_ms, &rows, &err) != VERROU_OK)
        fail_msg("%s", err.message);
    return rows;
}

static uint64_t draw(const char *key)
{
    uint64_t fence = 0;

    if (calls->next_fence(user(), key, &fence, &err) != VERROU_OK)
        fail_msg("%s", err.message);
    return fence;
}

static int64_t clock_ms(void)
{
    int64_t now_ms = 0;

    if (calls->now(user(), &now_ms, &err) != VERROU_OK)
        fail_msg("%s", err.message);
    return now_ms;
}

#define assert_said(text)                                              \
    do {                                                               \
        if (strstr(err.message, text) == NULL)                         \
            fail_msg("\"%s\" does not say \"%s\"", err.message, text); \
    } while (0)

/* ---- the library ---- */

static verrou_store *opened;
static verrou_lock *lock;

static void open_store(const char *string, const char *settings)
{
    err = (verrou_error)VERROU_ERROR_INIT;
    if (verrou_store_open(address(string, settings), NULL, &opened, &err) != VERROU_OK ||
        verrou_lock_new(opened, "key", NULL, &lock, &err) != VERROU_OK)
        fail_msg("%s", err.message);
}

static int close_store(void **state)
{
    (void)state;
    verrou_lock_free(lock);
    verrou_store_close(opened);
    lock = NULL;
    opened = NULL;
    return 0;
}

#define assert_ok(call)                             \
    do {                                            \
        if ((call) != VERROU_OK)                    \
            fail_msg("%s: %s", #call, err.message); \
    } while (0)

/* ---- addresses and connecting ---- */

/* What is no connection string is refused when the store is opened, and so are names of tables that would need quoting. */
static void test_addresses(void **state)
{
    static const char *const bad[] = {"odbc:",
                                      "odbc:locks",
                                      "odbc:DSN=x?table=a%20b",
                                      "odbc:DSN=x?table=a.b.c",
                                      "odbc:DSN=x?timeout=never",
                                      "odbc:DSN=x;Pwd={a}}b",
                                      "odbc:Driver={x;Pwd=y",
                                      "odbc:DSN=x?lanes=2"};

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(verrou_store_open(bad[i], NULL, &opened, &err), VERROU_ECONFIG);
}

/* There is one connection, which the error for more of them says. */
static void test_lanes(void **state)
{
    (void)state;
    assert_int_equal(verrou_store_open("odbc:DSN=x?lanes=4", NULL, &opened, &err), VERROU_ECONFIG);
    assert_said("this store has one connection");
    assert_ok(verrou_store_open("odbc:DSN=x;Pwd={a}}b;c}?lanes=1", NULL, &opened, &err));
}

/* A driver that is not there is not waited for, and is named. */
static void test_no_such_driver(void **state)
{
    (void)state;
    create("Driver=Nonesuch;Database=x", NULL);
    assert_int_equal(calls->set_table_name(user(), "verrou", &err), VERROU_ESTORAGE);
    assert_int_equal(err.retriable, 0);
    assert_said("Nonesuch");
}

/* Where nobody listens somebody may listen later. */
static void test_nobody_listens(void **state)
{
    process_port port = process_port_new();

    (void)state;
    create(postgres_at(port.number), NULL);
    assert_int_equal(insert("k", "me", VERROU_FOREVER), VERROU_ESTORAGE);
    assert_int_equal(err.retriable, 1);
    assert_said("cannot connect");
    process_port_free(&port);
}

static fault_proxy *proxy_for(const database *db);

/* A wrong password is an error at the first attempt, without the password; so is a user or a database that is not there. */
static void test_refused_login(void **state)
{
    static const struct {
        const char *format; /* after driver and server */
        int database;
        const char *said;
    } logins[] = {
        {"Database=postgres;Uid=verrou;Pwd=hunter2", 1, "password authentication failed"},
        {"Database=postgres;Uid=verrou", 1, "no password supplied"},
        {"Database=postgres;Uid=hunter;Pwd=hunter2", 1, "role \"hunter\" does not exist"},
        {"Database=hunt;Uid=postgres;Pwd=hunter2", 1, "database \"hunt\" does not exist"},
        {"Database=postgres;Uid=postgres;Pwd=hunter2;pqopt={nonesuch=1}", 0, "invalid connection option"},
        {"Database=verrou;Uid=verrou;Pwd=hunter2", 2, "Access denied"},
        {"Database=hunt;Uid=root", 2, "Unknown database"},
    };
    char string[512];

    (void)state;
    for (size_t i = 0; i < sizeof logins / sizeof logins[0]; i++) {
        const database *db = logins[i].database == 2 ? MARIADB : POSTGRES;
        fault_proxy *proxy = proxy_for(db);

        snprintf(string, sizeof string, "Driver=%s;Server=127.0.0.1;Port=%d;%s",
                 db == MARIADB ? ODBC_MARIADB_DRIVER : ODBC_POSTGRES_DRIVER, proxy_port(proxy), logins[i].format);
        open_store(string, "timeout=60s");
        assert_int_equal(verrou_lock_acquire(lock, NULL, NULL, &err), VERROU_ESTORAGE);
        assert_said(logins[i].said);
        assert_said("odbc: 127.0.0.1: cannot connect: ");
        assert_int_equal(err.retriable, 0);
        assert_null(strstr(err.message, "hunter2"));
        assert_null(strstr(verrou_store_address(opened), "hunter2"));
        assert_int_equal(proxy_count(proxy, PROXY_ACCEPTED), logins[i].database ? 1 : 0);
        close_store(NULL);
        proxy_stop(proxy);
    }
}

/* Whatever a driver quotes in its messages, it is no password. */
static void test_quoted_password(void **state)
{
    static const char *const strings[] = {
        "Driver=/nowhere/hunter2.so;PWD=hunter2", "Driver=/nowhere/hunter2.so;Password = {hunter2};Database=x",
        "Driver=/hunter2/hunter2.so;Uid=me;sslpassword=hunter2", "Pass=x;PassWord=hunter2;Driver=/hunter2.so",
        "Driver={/hunter2;}}2.so};Uid=me;PWD={hunter2;}}2}"};

    (void)state;
    for (size_t i = 0; i < sizeof strings / sizeof strings[0]; i++) {
        create(strings[i], NULL);
        assert_int_equal(calls->set_table_name(user(), "verrou", &err), VERROU_ESTORAGE);
        assert_said("***.so");
        assert_null(strstr(err.message, "hunter2"));
        test_close(&store);
    }
}

/* A password of a few bytes is hidden where it stands alone; words that happen to contain it can be read. */
static void test_short_password(void **state)
{
    (void)state;
    create("Driver=/nowhere/a/lib a.so;PWD=a", NULL);
    assert_int_equal(calls->set_table_name(user(), "verrou", &err), VERROU_ESTORAGE);
    assert_said("cannot connect");
    assert_said("[Driver Manager]Can't open lib '/nowhere/*/lib *.so'");
}

/* ---- rows ---- */

/* A row that is there refuses, live or not; a row that has run out is taken over, and only that. */
static void test_rows(void **state)
{
    int64_t now_ms, rows;
    verrou_row row;
    int found;

    (void)state;
    for (const database *db = databases; db < DATABASES_END; db++) {
        begin(db->string);
        now_ms = clock_ms();
        assert_ok(insert("k", "me", now_ms + 1000));
        assert_int_equal(insert("k", "you", now_ms + 1000), VERROU_ENOTACQUIRED);
        assert_ok(calls->acquire_lock(user(), "k", "you", now_ms + 5000, 0, now_ms + 999, &rows, &err));
        assert_int_equal(rows, 0);
        assert_ok(calls->acquire_lock(user(), "k", "you", now_ms + 5000, 0, now_ms + 1000, &rows, &err));
        assert_int_equal(rows, 1);
        assert_ok(calls->get_lock(user(), "k", &found, &row, &err));
        assert_int_equal(found, 1);
        assert_string_equal(row.owner, "you");
        assert_true(row.expiration_ms == now_ms + 5000);
        assert_int_equal(delete ("k", "me", now_ms), 0);
        assert_int_equal(delete ("k", "you", now_ms + 5000), 0);
        assert_int_equal(delete ("k", "you", now_ms), 1);
        assert_int_equal(insert("k", "me", VERROU_FOREVER), VERROU_ENOTACQUIRED);
        assert_ok(calls->acquire_lock(user(), "k", "me", VERROU_FOREVER, 0, now_ms, &rows, &err));
        assert_int_equal(rows, 1);
        assert_ok(calls->acquire_lock(user(), "k", "you", 1, 0, now_ms + 99999999, &rows, &err));
        assert_int_equal(rows, 0);
        assert_int_equal(delete ("k", NULL, now_ms), 1);
        assert_ok(calls->get_lock(user(), "missing", &found, &row, &err));
        assert_int_equal(found, 0);
        test_close(&store);
    }
}

/* Extending to the end that the row has already is extending, also for a driver that counts changed rows only. */
static void test_extend_to_the_same_end(void **state)
{
    (void)state;
    for (const database *db = databases; db < DATABASES_END; db++) {
        begin(db->string);
        assert_ok(insert("k", "me", 5000));
        assert_int_equal(extend("k", "me", 7000, 4999), 1);
        assert_int_equal(extend("k", "me", 7000, 4999), 1);
        assert_int_equal(extend("k", "you", 7000, 4999), 0);
        assert_int_equal(extend("k", "me", 9000, 7000), 0);
        assert_int_equal(extend("k", "me", VERROU_FOREVER, 4999), 1);
        assert_int_equal(extend("k", "me", VERROU_FOREVER, 4999), 1);
        test_close(&store);
    }
}

/* Tokens grow through release and takeover, are at least the clock's, and exceed one that is ahead of it. */
static void test_tokens(void **state)
{
    uint64_t first, second;
    int64_t now_ms;

    (void)state;
    for (const database *db = databases; db < DATABASES_END; db++) {
        begin(db->string);
        now_ms = clock_ms();
        assert_ok(insert("k", "me", now_ms + 60000));
        first = draw("k");
        assert_true(first / 1000 >= (uint64_t)now_ms);
        assert_int_equal(delete ("k", "me", now_ms), 1);
        second = draw("k");
        assert_true(second > first);
        odbc_text(db->string, "UPDATE verrou SET fence = 8000000000000000");
        assert_true(draw("k") == 8000000000000001);
        odbc_text(db->string, "UPDATE verrou SET fence = 9007199254740991");
        assert_int_equal(calls->next_fence(user(), "k", &second, &err), VERROU_ESTORAGE);
        assert_int_equal(err.retriable, 0);
        test_close(&store);
    }
}

typedef struct drawer {
    const char *string;
    uint64_t tokens[50];
} drawer;

static void *draw_many(void *argument)
{
    drawer *d = argument;
    verrou_error error = VERROU_ERROR_INIT;
    test_store own;

    if (test_create(&own, verrou_odbc_driver(), address(d->string, NULL), &error) != VERROU_OK)
        return NULL;
    for (int i = 0; i < 50; i++)
        while (calls->next_fence(own.state, "k", &d->tokens[i], &error) != VERROU_OK)
            if (!error.retriable)
                process_fail("%s", error.message);
    test_close(&own);
    return NULL;
}

/* Two who draw tokens of one key at the same time never draw the same one. */
static void test_tokens_are_unique(void **state)
{
    drawer one = {.string = postgres_string}, two = {.string = postgres_string};
    pthread_t thread;

    (void)state;
    begin(postgres_string);
    assert_ok(insert("k", "me", VERROU_FOREVER));
    odbc_text(postgres_string,
              "UPDATE verrou SET fence = 8000000000000000"); /* ahead of the clock, which would tell them apart */
    assert_int_equal(pthread_create(&thread, NULL, draw_many, &one), 0);
    draw_many(&two);
    pthread_join(thread, NULL);
    for (int i = 0; i < 50; i++) {
        assert_true(i == 0 || one.tokens[i] > one.tokens[i - 1]);
        for (int j = 0; j < 50; j++)
            assert_true(one.tokens[i] != two.tokens[j] && one.tokens[i] != 0);
    }
}

/* The clock is the server's: this machine's, here. */
static void test_clock(void **state)
{
    (void)state;
    for (const database *db = databases; db < DATABASES_END; db++) {
        create(db->string, NULL);
        assert_in_range(clock_ms() + 60000 - verrou__odbc_wall_us() / 1000, 1, 120000);
        test_close(&store);
    }
}

/* A database that is not known gets standard SQL, has no clock, and says so once it is connected. */
static void test_unknown_database(void **state)
{
    int64_t now_ms;

    (void)state;
    assert_string_equal(verrou__odbc_dialect("Nonesuch 3")->product, "");
    assert_string_equal(verrou__odbc_dialect("MariaDB")->product, "MariaDB");
    create(sqlite_string, NULL);
    assert_ok(calls->set_table_name(user(), "verrou", &err));
    user()->dialect = verrou__odbc_dialect("Nonesuch");
    assert_int_equal(calls->now(user(), &now_ms, &err), VERROU_ENOTSUP);
    assert_ok(calls->create_table_if_not_exists(user(), &err));
    assert_ok(insert("k", "me", VERROU_FOREVER));
    assert_true(draw("k") > 1700000000000000);
    assert_int_equal(delete ("k", NULL, 0), 1);
    assert_non_null(strstr(test_check(&store), "40 clock: how this database tells the time is not known"));
}

/* ---- failures ---- */

/* A row that the table's rules refuse is a failure that says why: not a lock that somebody has. */
static void test_refused_row(void **state)
{
    (void)state;
    for (const database *db = databases; db < DATABASES_END; db++) {
        odbc_text(db->string,
                  "CREATE TABLE verrou (%ckey%c varchar(255) NOT NULL PRIMARY KEY, owner varchar(255) NOT NULL,"
                  " expiration bigint, fence bigint DEFAULT 0 NOT NULL, CHECK (owner <> 'bad'))",
                  db->quote, db->quote);
        begin(db->string);
        assert_int_equal(insert("k", "bad", VERROU_FOREVER), VERROU_ESTORAGE);
        assert_non_null(strcasestr(err.message, "constraint"));
        assert_int_equal(err.retriable, db == MARIADB); /* whose SQLSTATE could also be that of a duplicate */
        assert_ok(insert("k", "good", VERROU_FOREVER));
        test_close(&store);
    }
}

/* Of those who insert a row at the same time, one has inserted it, and the others are told that it is there. */
typedef struct inserter {
    const char *string;
    const char *owner;
    verrou_status status;
} inserter;

static void *insert_once(void *argument)
{
    inserter *i = argument;
    verrou_error error = VERROU_ERROR_INIT;
    test_store own;

    if (test_create(&own, verrou_odbc_driver(), address(i->string, NULL), &error) != VERROU_OK)
        return NULL;
    i->status = calls->insert_lock(own.state, "k", i->owner, VERROU_FOREVER, 0, &error);
    test_close(&own);
    return NULL;
}

/* An INSERT that finds a row of another's unfinished transaction waits, and answers that it is there once that is committed. */
static void test_late_duplicate(void **state)
{
    PGconn *other = postgres_connect(postgres);
    inserter late = {.string = postgres_string, .owner = "late"};
    pthread_t thread;

    (void)state;
    begin(postgres_string);
    PQclear(PQexec(other, "BEGIN; INSERT INTO verrou (key, owner, expiration) VALUES ('k', 'me', NULL)"));
    assert_int_equal(pthread_create(&thread, NULL, insert_once, &late), 0);
    while (postgres_integer(postgres, "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'transactionid'") == 0)
        process_pause();
    PQclear(PQexec(other, "COMMIT"));
    PQfinish(other);
    pthread_join(thread, NULL);
    assert_int_equal(late.status, VERROU_ENOTACQUIRED);
}

/* The same on MariaDB. */
static void test_late_duplicate_mariadb(void **state)
{
    MYSQL *other = mariadb_server_connect(mariadb);
    inserter late = {.string = mariadb_string, .owner = "late"};
    pthread_t thread;

    (void)state;
    begin(mariadb_string);
    assert_int_equal(mysql_query(other, "BEGIN"), 0);
    assert_int_equal(mysql_query(other, "INSERT INTO " MARIADB_DATABASE ".verrou (`key`, owner) VALUES ('k', 'me')"),
                     0);
    assert_int_equal(pthread_create(&thread, NULL, insert_once, &late), 0);
    while (mariadb_integer(mariadb, "SELECT count(*) FROM information_schema.processlist WHERE info LIKE 'INSERT%%'") ==
           0)
        process_pause();
    assert_int_equal(mysql_query(other, "COMMIT"), 0);
    mysql_close(other);
    pthread_join(thread, NULL);
    assert_int_equal(late.status, VERROU_ENOTACQUIRED);
}

/* A row that somebody keeps locked is waited for no longer than the time limit; that is a passing failure, and no holder. */
static void test_locked_row(void **state)
{
    PGconn *other = postgres_connect(postgres);
    MYSQL *another = mariadb_server_connect(mariadb);
    int64_t rows;

    (void)state;
    begin(postgres_string);
    assert_ok(insert("k", "me", 1));
    PQclear(PQexec(other, "BEGIN; UPDATE verrou SET owner = 'x'"));
    test_close(&store);
    create(postgres_string, "timeout=1s");
    assert_int_equal(calls->acquire_lock(user(), "k", "you", 5, 0, 2, &rows, &err), VERROU_ESTORAGE);
    assert_int_equal(err.retriable, 1);
    assert_string_equal(err.store_code, "57014");
    PQfinish(other);
    test_close(&store);

    begin(mariadb_string);
    assert_ok(insert("k", "me", 1));
    assert_int_equal(mysql_query(another, "BEGIN"), 0);
    assert_int_equal(mysql_query(another, "UPDATE " MARIADB_DATABASE ".verrou SET owner = 'x'"), 0);
    test_close(&store);
    create(mariadb_string, "timeout=1s");
    assert_int_equal(calls->acquire_lock(user(), "k", "you", 5, 0, 2, &rows, &err), VERROU_ESTORAGE);
    assert_int_equal(err.retriable, 1);
    mysql_close(another);
}

/* A serialisation failure may be tried again. */
static void test_serialisation_failure(void **state)
{
    (void)state;
    begin(postgres_string);
    postgres_text(postgres, "CREATE OR REPLACE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS"
                            " $$ BEGIN RAISE EXCEPTION 'try again' USING ERRCODE = '40001'; END $$");
    postgres_text(postgres, "CREATE TRIGGER fail BEFORE INSERT ON verrou FOR EACH ROW EXECUTE FUNCTION fail()");
    assert_int_equal(insert("k", "me", 1), VERROU_ESTORAGE);
    assert_int_equal(err.retriable, 1);
    assert_string_equal(err.store_code, "40001");
    assert_said("try again");
}

static proxy_protocol spoken_by(const database *db)
{
    return db == POSTGRES ? PROXY_POSTGRES : PROXY_MYSQL;
}

static fault_proxy *proxy_for(const database *db)
{
    return proxy_start_for(spoken_by(db), db == POSTGRES ? postgres->port : mariadb->port);
}

static const char *through(const database *db, const fault_proxy *proxy)
{
    return db == POSTGRES ? postgres_at(proxy_port(proxy)) : mariadb_at(proxy_port(proxy));
}

/* The answer to an INSERT is lost: it is not known whether the row is there. The next call connects anew and sees it. */
static void test_lost_answer(void **state)
{
    (void)state;
    for (const database *db = POSTGRES; db <= MARIADB; db++) {
        fault_proxy *proxy = proxy_for(db);

        begin(through(db, proxy));
        proxy_set(proxy, PROXY_DROP_REPLY, .match = "INSERT");
        assert_int_equal(insert("k", "me", VERROU_FOREVER), VERROU_EUNKNOWN);
        assert_int_equal(proxy_count(proxy, PROXY_FIRED), 1);
        assert_int_equal(insert("k", "me", VERROU_FOREVER), VERROU_ENOTACQUIRED);
        test_close(&store);
        proxy_stop(proxy);
    }
}

/* A query that is lost has changed nothing. */
static void test_lost_query(void **state)
{
    int64_t now_ms;

    (void)state;
    for (const database *db = POSTGRES; db <= MARIADB; db++) {
        fault_proxy *proxy = proxy_for(db);

        begin(through(db, proxy));
        proxy_set(proxy, PROXY_DROP_REPLY, .match = "now_us");
        assert_int_equal(calls->now(user(), &now_ms, &err), VERROU_ESTORAGE);
        assert_int_equal(err.retriable, 1);
        assert_true(clock_ms() > 0);
        test_close(&store);
        proxy_stop(proxy);
    }
}

/* Through the library the caller does not notice: the row is found to be his, and has a token. */
static void test_lost_answer_is_settled(void **state)
{
    (void)state;
    for (const database *db = POSTGRES; db <= MARIADB; db++) {
        fault_proxy *proxy = proxy_for(db);

        open_store(through(db, proxy), NULL);
        proxy_set(proxy, PROXY_DROP_REPLY, .match = "INSERT");
        assert_ok(verrou_lock_acquire(lock, NULL, NULL, &err));
        assert_int_equal(proxy_count(proxy, PROXY_FIRED), 1);
        assert_int_not_equal(verrou_lock_fence(lock), 0);
        proxy_set(proxy, PROXY_DROP_REPLY, .match = "UPDATE");
        assert_ok(verrou_lock_release(lock, NULL, &err));
        assert_int_equal(proxy_count(proxy, PROXY_FIRED), 2);
        close_store(NULL);
        proxy_stop(proxy);
    }
}

/* A server that is killed and started again, with the answer to a request under way: the lease is there, and goes on. */
static void test_server_killed(void **state)
{
    (void)state;
    for (const database *db = POSTGRES; db <= MARIADB; db++) {
        fault_proxy *proxy = proxy_for(db);

        open_store(through(db, proxy), "timeout=60s");
        assert_ok(verrou_lock_acquire(lock, NULL, NULL, &err));
        proxy_set(proxy, PROXY_DROP_REPLY, .match = "UPDATE");
        if (db == POSTGRES) {
            postgres_server_kill(postgres);
            postgres_server_restart(postgres);
        } else {
            mariadb_server_kill(mariadb);
            mariadb_server_restart(mariadb);
        }
        assert_ok(verrou_lock_extend(lock, 60000, NULL, &err));
        assert_ok(verrou_lock_release(lock, NULL, &err));
        assert_int_equal(proxy_count(proxy, PROXY_FIRED), 1);
        close_store(NULL);
        proxy_stop(proxy);
    }
}

/* MariaDB's driver does not wait for ever for a server that has gone silent: the answer is not known. */
static void test_silent_server(void **state)
{
    fault_proxy *proxy = proxy_for(MARIADB);

    (void)state;
    create(through(MARIADB, proxy), "timeout=1s");
    assert_ok(calls->create_table_if_not_exists(user(), &err));
    proxy_set(proxy, PROXY_HOLD_REPLY, .match = "INSERT");
    assert_int_equal(insert("k", "me", VERROU_FOREVER), VERROU_EUNKNOWN);
    proxy_stop(proxy);
}

static void freeze(const database *db)
{
    if (db == POSTGRES)
        postgres_server_freeze(postgres);
    else
        mariadb_server_freeze(mariadb);
}

static void thaw(const database *db)
{
    if (db == POSTGRES)
        postgres_server_thaw(postgres);
    else
        mariadb_server_thaw(mariadb);
}

/* Nor does connecting wait for ever, to a server that accepts the connection and says nothing. */
static void test_silent_login(void **state)
{
    verrou_status status;

    (void)state;
    for (const database *db = POSTGRES; db <= MARIADB; db++) {
        create(db->string, "timeout=1s");
        freeze(db);
        status = calls->create_table_if_not_exists(user(), &err);
        thaw(db);
        assert_int_equal(status, VERROU_ESTORAGE);
        assert_int_equal(err.retriable, 1);
        assert_said("cannot connect");
        assert_ok(calls->create_table_if_not_exists(user(), &err));
        test_close(&store);
    }
}

/* Of a change of which the driver does not say whether it was made, it is not known, unless a look tells. */
static void test_uncounted_rows(void **state)
{
    int64_t rows;

    (void)state;
    begin(sqlite_string);
    assert_ok(insert("k", "me", 5000));
    uncounted = true;
    assert_int_equal(extend("k", "me", 7000, 0), 1);
    assert_int_equal(calls->acquire_lock(user(), "k", "you", 9000, 0, 8000, &rows, &err), VERROU_EUNKNOWN);
    assert_int_equal(calls->delete_lock(user(), "k", "you", 0, &rows, &err), VERROU_EUNKNOWN);
    assert_ok(calls->delete_lock(user(), "k", NULL, 0, &rows, &err));
}

static int count_again(void **state)
{
    uncounted = false;
    return end(state);
}

/* MariaDB tells by numbers of its own that it takes no changes, so that another connection is needed, and that a statement was interrupted. */
static void test_mariadb_numbers(void **state)
{
    static const struct {
        int number;
        verrou_status status;
        bool lost;
    } cases[] = {{1290, VERROU_ESTORAGE, true},
                 {1792, VERROU_ESTORAGE, true},
                 {1836, VERROU_ESTORAGE, true},
                 {1317, VERROU_EUNKNOWN, false},
                 {1969, VERROU_EUNKNOWN, false}};

    (void)state;
    begin(mariadb_string);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        odbc_text(mariadb_string,
                  "CREATE OR REPLACE TRIGGER refuse BEFORE INSERT ON verrou FOR EACH ROW"
                  " SIGNAL SQLSTATE 'HY000' SET MYSQL_ERRNO = %d, MESSAGE_TEXT = 'refused'",
                  cases[i].number);
        user()->lost = false;
        assert_int_equal(calls->insert_lock(user(), "k", "me", 5000, 0, &err), cases[i].status);
        assert_int_equal(err.retriable, 1);
        if (cases[i].status == VERROU_EUNKNOWN)
            assert_false(user()->lost);
    }
}

/* ---- the table ---- */

/* A table that is dropped while it is used is made again, by the call that finds out. */
static void test_dropped_table(void **state)
{
    (void)state;
    for (const database *db = databases; db < DATABASES_END; db++) {
        open_store(db->string, NULL);
        assert_ok(verrou_lock_acquire_immediately(lock, NULL, &err));
        assert_ok(verrou_lock_release(lock, NULL, &err));
        send_sql(db, "DROP TABLE %s");
        assert_ok(verrou_lock_acquire_immediately(lock, NULL, &err));
        assert_string_equal(send_sql(db, "SELECT COUNT(*) FROM %s WHERE fence > 0"), "1");
        close_store(NULL);
    }
}

static int none_listed(void *context, const char *key, const verrou_info *info)
{
    (void)context, (void)key, (void)info;
    return 0;
}

/* Without autocreate a missing table is an error, at once, which says what to do; for a list as well. */
static void test_missing_table(void **state)
{
    (void)state;
    for (const database *db = databases; db < DATABASES_END; db++) {
        open_store(db->string, "autocreate=false&timeout=60s");
        assert_int_equal(verrou_lock_acquire(lock, NULL, NULL, &err), VERROU_ESTORAGE);
        assert_said("the table \"verrou\" does not exist, and autocreate is off: run `verrou schema apply`");
        assert_int_equal(verrou_store_list(opened, NULL, NULL, none_listed, NULL, &err), VERROU_ESTORAGE);
        assert_said("does not exist");
        close_store(NULL);
    }
}

/* Without the right to make it, the error says the statement to run. */
static void test_no_right_to_create(void **state)
{
    char string[512];

    (void)state;
    postgres_text(postgres, "CREATE SCHEMA closed");
    postgres_text(postgres, "GRANT USAGE ON SCHEMA closed TO " POSTGRES_PASSWORD_USER);
    snprintf(string, sizeof string, "Driver=%s;Server=127.0.0.1;Port=%d;Database=%s;Uid=%s;Pwd=geheim",
             ODBC_POSTGRES_DRIVER, postgres->port, POSTGRES_DATABASE, POSTGRES_PASSWORD_USER);
    open_store(string, "table=closed.locks&timeout=60s");
    assert_int_equal(verrou_lock_acquire(lock, NULL, NULL, &err), VERROU_ESTORAGE);
    assert_string_equal(err.store_code, "42501");
    assert_said("to be run: CREATE TABLE IF NOT EXISTS \"closed\".\"locks\" (");
    assert_said("\"fence\" bigint DEFAULT 0 NOT NULL)");
    assert_null(strstr(err.message, "geheim"));
    assert_int_equal(verrou_store_list(opened, NULL, NULL, none_listed, NULL, &err), VERROU_ESTORAGE);
    assert_said("to be run: CREATE TABLE");
    postgres_text(postgres, "CREATE TABLE closed.locks (key text primary key, owner text not null, expiration bigint)");
    postgres_text(postgres, "GRANT ALL ON closed.locks TO " POSTGRES_PASSWORD_USER);
    assert_ok(verrou_lock_acquire(lock, NULL, NULL, &err));
    postgres_text(postgres, "DROP SCHEMA closed CASCADE");
}

/* A table that is there and may not be read needs rights, which the error says; it does not say to make the table. */
static void test_no_right_to_read(void **state)
{
    char strings[2][512];

    (void)state;
    begin(postgres_string);
    test_close(&store);
    begin(mariadb_string);
    test_close(&store);
    mariadb_text(mariadb, "CREATE OR REPLACE USER poor IDENTIFIED BY 'geheim'");
    mariadb_text(mariadb, "GRANT INSERT ON " MARIADB_DATABASE ".verrou TO poor");
    snprintf(strings[0], sizeof strings[0], "Driver=%s;Server=127.0.0.1;Port=%d;Database=%s;Uid=%s;Pwd=geheim",
             ODBC_POSTGRES_DRIVER, postgres->port, POSTGRES_DATABASE, POSTGRES_PASSWORD_USER);
    snprintf(strings[1], sizeof strings[1], "Driver=%s;Server=127.0.0.1;Port=%d;Database=%s;Uid=poor;Pwd=geheim",
             ODBC_MARIADB_DRIVER, mariadb->port, MARIADB_DATABASE);
    for (int i = 0; i < 4; i++) {
        open_store(strings[i / 2], i % 2 ? "autocreate=false&timeout=60s" : "timeout=60s");
        assert_int_equal(verrou_lock_acquire(lock, NULL, NULL, &err), VERROU_ESTORAGE);
        assert_said("may not be read: the rights SELECT, INSERT, UPDATE and DELETE on it are needed");
        assert_null(strstr(err.message, "to be run"));
        close_store(NULL);
        create(strings[i / 2], i % 2 ? "autocreate=false" : NULL);
        assert_non_null(strstr(test_check(&store), "50 table: odbc: 127.0.0.1: the table \"verrou\" may not be read"));
        test_close(&store);
    }
}

/* Tables whose keys may have more than one row, with all that looks as if they had not. */
static const struct {
    const database *db;
    const char *create;
    const char *index; /* NULL: none */
} loose[] = {
    {SQLITE, "(\"key\" text, owner text, expiration bigint)", NULL},
    {SQLITE, "(\"key\" text, owner text, expiration bigint, UNIQUE (\"key\", owner))", NULL},
    {SQLITE, "(\"key\" text, owner text PRIMARY KEY, expiration bigint)", "CREATE INDEX i ON %s (\"key\")"},
    {SQLITE, "(\"key\" text, owner text, expiration bigint)",
     "CREATE UNIQUE INDEX i ON %s (\"key\") WHERE expiration > 1"},
    {SQLITE, "(\"key\" text, owner text, expiration bigint)", "CREATE UNIQUE INDEX i ON %s (\"key\" || owner)"},
    {POSTGRES, "(key text, owner text, expiration bigint)", NULL},
    {POSTGRES, "(key text, owner text, expiration bigint, UNIQUE (key, owner))", NULL},
    {POSTGRES, "(key text, owner text PRIMARY KEY, expiration bigint)", "CREATE INDEX i ON %s (key)"},
    {POSTGRES, "(key text, owner text, expiration bigint)", "CREATE UNIQUE INDEX i ON %s (key) WHERE expiration > 1"},
    {POSTGRES, "(key text, owner text, expiration bigint)", "CREATE UNIQUE INDEX i ON %s ((key || owner))"},
    {POSTGRES, "(key text UNIQUE DEFERRABLE INITIALLY DEFERRED, owner text, expiration bigint)", NULL},
    {MARIADB, "(`key` varchar(250), owner varchar(250), expiration bigint)", NULL},
    {MARIADB, "(`key` varchar(250), owner varchar(250), expiration bigint, UNIQUE (`key`, owner))", NULL},
    {MARIADB, "(`key` varchar(250), owner varchar(250) PRIMARY KEY, expiration bigint, KEY (`key`))", NULL},
    {MARIADB, "(`key` varchar(250), owner varchar(250), expiration bigint, UNIQUE (`key`(3)))", NULL},
};

/* Such a table is refused by whatever is asked first, also without autocreate, and by doctor and schema, and is left alone. */
static void test_loose_table(void **state)
{
    static const char *const settings[] = {NULL, "autocreate=false"};
    static const char reason[] = "there must be a primary key or unique index on just the column \"key\"";

    (void)state;
    for (size_t i = 0; i < sizeof loose / sizeof loose[0]; i++) {
        const database *db = loose[i].db;
        const char *found;

        odbc_text(db->string, "CREATE TABLE verrou %s", loose[i].create);
        if (loose[i].index)
            odbc_text(db->string, loose[i].index, "verrou");
        for (int j = 0; j < 2; j++) {
            open_store(db->string, settings[j]);
            assert_int_equal(verrou_lock_acquire_immediately(lock, NULL, &err), VERROU_ESTORAGE);
            assert_said(reason);
            assert_int_equal(err.retriable, 0);
            assert_int_equal(verrou_store_list(opened, NULL, NULL, none_listed, NULL, &err), VERROU_ESTORAGE);
            assert_said(reason);
            close_store(NULL);
            create(db->string, settings[j]);
            assert_non_null(strstr(test_check(&store), reason));
            assert_int_equal(test_find(&store, TEST_SCHEMA, NULL, TEST_LIMIT_MS, &found, &err), VERROU_ESTORAGE);
            assert_int_equal(test_find(&store, TEST_SCHEMA_APPLY, NULL, TEST_LIMIT_MS, &found, &err), VERROU_ESTORAGE);
            assert_said(reason);
            test_close(&store);
        }
        assert_string_equal(send_sql(db, "SELECT COUNT(*) FROM %s"), "0");
        send_sql(db, "DROP TABLE %s");
    }
}

/* Each way to have one row for a key will do, and a table that was refused can be used as soon as it has one. */
static void test_unique_table(void **state)
{
    (void)state;
    for (const database *db = databases; db < DATABASES_END; db++) {
        odbc_text(db->string, "CREATE TABLE verrou (%ckey%c varchar(250), owner varchar(250), expiration bigint)",
                  db->quote, db->quote);
        create(db->string, "autocreate=false");
        assert_int_equal(insert("k", "me", VERROU_FOREVER), VERROU_ESTORAGE);
        odbc_text(db->string, "CREATE UNIQUE INDEX verrou_own ON verrou (%ckey%c)%s", db->quote, db->quote,
                  db == POSTGRES ? " INCLUDE (owner)" : "");
        assert_ok(insert("k", "me", VERROU_FOREVER));
        assert_int_equal(insert("k", "you", VERROU_FOREVER), VERROU_ENOTACQUIRED);
        /* The next connection finds out for itself. */
        odbc_text(db->string, db == MARIADB ? "DROP INDEX verrou_own ON verrou" : "DROP INDEX verrou_own");
        user()->lost = true;
        assert_int_equal(insert("k2", "me", VERROU_FOREVER), VERROU_ESTORAGE);
        assert_said("there must be a primary key");
        test_close(&store);
    }
}

/* A table in a schema is that one, whatever there is of the same name. */
static void test_loose_table_in_a_schema(void **state)
{
    (void)state;
    begin(postgres_string);
    test_close(&store);
    postgres_text(postgres, "CREATE SCHEMA app");
    postgres_text(postgres, "CREATE TABLE app.verrou (key text, owner text, expiration bigint)");
    create(postgres_string, "table=app.verrou&autocreate=false");
    assert_int_equal(insert("k", "me", VERROU_FOREVER), VERROU_ESTORAGE);
    postgres_text(postgres, "DROP SCHEMA app CASCADE");
    test_close(&store);

    begin(mariadb_string);
    test_close(&store);
    mariadb_text(mariadb, "CREATE OR REPLACE DATABASE app");
    mariadb_text(mariadb, "CREATE TABLE app.verrou (`key` varchar(9), owner varchar(9), expiration bigint)");
    create(mariadb_string, "table=app.verrou&autocreate=false");
    assert_int_equal(insert("k", "me", VERROU_FOREVER), VERROU_ESTORAGE);
    mariadb_text(mariadb, "DROP DATABASE app");
    test_close(&store);

    begin(sqlite_string);
    test_close(&store);
    create(sqlite_string, "table=main.verrou&autocreate=false");
    assert_ok(insert("k", "me", VERROU_FOREVER));
}

/* Of a database whose catalogue is not known it is tried out, and nothing is left of that, with transactions or without. */
static void test_probed_table(void **state)
{
    (void)state;
    for (int i = 0; i < 6; i++) {
        const database *db = &databases[i / 2];

        untransacted = i % 2;
        odbc_text(db->string, "CREATE TABLE verrou (%ckey%c varchar(250), owner varchar(250), expiration bigint%s)",
                  db->quote, db->quote, db == SQLITE ? ", fence bigint" : "");
        create(db->string, "autocreate=false");
        assert_ok(calls->set_table_name(user(), "verrou", &err));
        user()->dialect = verrou__odbc_dialect("Nonesuch");
        assert_int_equal(insert("k", "me", VERROU_FOREVER), VERROU_ESTORAGE);
        assert_said("there must be a primary key or unique index on just the column \"key\"");
        assert_string_equal(send_sql(db, "SELECT COUNT(*) FROM %s"), "0");
        odbc_text(db->string, "CREATE UNIQUE INDEX verrou_own ON verrou (%ckey%c, owner)", db->quote, db->quote);
        assert_int_equal(insert("k", "me", VERROU_FOREVER), VERROU_ESTORAGE);
        odbc_text(db->string, "CREATE UNIQUE INDEX verrou_key ON verrou (%ckey%c)", db->quote, db->quote);
        assert_ok(insert("k", "me", VERROU_FOREVER));
        assert_string_equal(send_sql(db, "SELECT COUNT(*) FROM %s"), "1");
        assert_int_equal(insert("k", "you", VERROU_FOREVER), VERROU_ENOTACQUIRED);
        assert_non_null(strstr(test_check(&store), "30 unique: the catalogue of this database is not known"));
        test_close(&store);
        send_sql(db, "DROP TABLE %s");
    }
}

static int transact_again(void **state)
{
    untransacted = false;
    return end(state);
}

/* A probe that cannot be made is a failure that says so, and no answer. */
static void test_refused_probe(void **state)
{
    (void)state;
    send_sql(SQLITE, "CREATE TABLE %s (\"key\" text, owner text CHECK (owner NOT LIKE 'probe%%'), expiration bigint)");
    create(sqlite_string, "autocreate=false");
    assert_ok(calls->set_table_name(user(), "verrou", &err));
    user()->dialect = verrou__odbc_dialect("Nonesuch");
    assert_int_equal(insert("k", "me", VERROU_FOREVER), VERROU_ESTORAGE);
    assert_said("cannot be tried out: ");
}

/* A table that is another one's is refused with the column that it lacks, and is not altered. */
static void test_other_table(void **state)
{
    const char *text_found;

    (void)state;
    for (const database *db = databases; db < DATABASES_END; db++) {
        send_sql(db, "CREATE TABLE %s (owner varchar(9), expiration bigint)");
        open_store(db->string, NULL);
        assert_int_equal(verrou_lock_acquire_immediately(lock, NULL, &err), VERROU_ESTORAGE);
        assert_said("it has no column \"key\"");
        close_store(NULL);
        create(db->string, NULL);
        assert_int_equal(test_find(&store, TEST_SCHEMA, NULL, TEST_LIMIT_MS, &text_found, &err), VERROU_ESTORAGE);
        assert_said("it has no column \"key\"");
        assert_int_equal(test_find(&store, TEST_SCHEMA_APPLY, NULL, TEST_LIMIT_MS, &text_found, &err), VERROU_ESTORAGE);
        assert_said("it has no column \"key\"");
        assert_false(user()->shape.fenced);
        test_close(&store);
        send_sql(db, "DROP TABLE %s");
    }
}

/* A column of tokens that was added by hand may have NULL in it, which counts as 0. */
static void test_no_token_yet(void **state)
{
    (void)state;
    odbc_text(sqlite_string,
              "CREATE TABLE verrou (\"key\" text PRIMARY KEY, owner text, expiration bigint, fence bigint)");
    begin(sqlite_string);
    assert_ok(insert("k", "me", VERROU_FOREVER));
    assert_string_equal(test_list(&store, ""), "k me forever\n");
    assert_true(test_listed_fence("k") == 0);
    assert_true(draw("k") > 0);
}

static void make_original(const database *db)
{
    odbc_text(db->string,
              "CREATE TABLE verrou (%ckey%c varchar(255) NOT NULL PRIMARY KEY, owner varchar(255) NOT NULL,"
              " expiration bigint NULL)%s",
              db->quote, db->quote, db == MARIADB ? " CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci" : "");
}

/* A table of the original is used as it is: released rows go, and tokens come from the clock, which the capabilities say. */
static void test_original_table(void **state)
{
    uint64_t first;

    (void)state;
    for (const database *db = databases; db < DATABASES_END; db++) {
        make_original(db);
        open_store(db->string, NULL);
        assert_ok(verrou_lock_acquire_immediately(lock, NULL, &err));
        first = verrou_lock_fence(lock);
        assert_ok(verrou_lock_release(lock, NULL, &err));
        assert_string_equal(send_sql(db, "SELECT COUNT(*) FROM %s"), "0");
        assert_ok(verrou_lock_acquire_immediately(lock, NULL, &err));
        assert_true(verrou_lock_fence(lock) > first);
        assert_int_equal(verrou_store_caps(opened) & (VERROU_CAP_FENCE | VERROU_CAP_FENCE_STORED), VERROU_CAP_FENCE);
        close_store(NULL);
    }
}

/* Keys that a collation takes for equal exclude each other, which is an answer and no failure; owners are compared by their bytes. */
static void test_folded_keys(void **state)
{
    verrou_lock *other = NULL;
    int64_t rows;

    (void)state;
    make_original(MARIADB);
    open_store(mariadb_string, NULL);
    assert_ok(verrou_lock_new(opened, "KEY", NULL, &other, &err));
    assert_ok(verrou_lock_acquire_immediately(lock, NULL, &err));
    assert_int_equal(verrou_lock_acquire_immediately(other, NULL, &err), VERROU_ENOTACQUIRED);
    assert_ok(verrou_lock_release(lock, NULL, &err));
    assert_ok(verrou_lock_acquire_immediately(other, NULL, &err));
    assert_int_equal(verrou_lock_acquire_immediately(lock, NULL, &err), VERROU_ENOTACQUIRED);
    assert_ok(verrou_lock_release(other, NULL, &err));
    verrou_lock_free(other);
    close_store(NULL);

    begin(mariadb_string);
    assert_ok(insert("k", "Me", 5000));
    assert_int_equal(delete ("k", "me", 0), 0);
    assert_int_equal(extend("k", "ME", 9000, 0), 0);
    assert_ok(calls->acquire_lock(user(), "K", "you", 9000, 0, 5000, &rows, &err));
    assert_int_equal(rows, 1);
    assert_int_equal(delete ("K", "you", 0), 1);
}

/* A holder's key written in another way is held by him, and is not his: only the exact key extends and releases. A take-over decides how it is written. */
static void test_folded_keys_of_one_owner(void **state)
{
    verrou_row row;
    int64_t rows;
    int found;

    (void)state;
    make_original(MARIADB);
    begin(mariadb_string);
    assert_ok(insert("abc", "O", 5000));
    assert_int_equal(extend("ABC", "O", 9000, 0), 0);
    assert_int_equal(delete ("ABC", "O", 0), 0);
    assert_int_equal(insert("ABC", "O", 5000), VERROU_ENOTACQUIRED);
    assert_ok(calls->get_lock(user(), "ABC", &found, &row, &err));
    assert_int_equal(found, 1);
    assert_ok(calls->acquire_lock(user(), "ABC", "O", 9000, 0, 5000, &rows, &err));
    assert_int_equal(rows, 1);
    assert_int_equal(delete ("abc", "O", 0), 0);
    assert_int_equal(delete ("ABC", "O", 0), 1);
}

/* Rows of locks that were released long ago go, a few now and then. Live ones stay, and those whose token the clock has not overtaken by an hour. */
static void test_pruning(void **state)
{
    (void)state;
    for (const database *db = databases; db < DATABASES_END; db++) {
        begin(db->string);
        for (int i = 0; i < 4; i++)
            odbc_text(db->string, "INSERT INTO verrou VALUES ('old%d', '', 0, %d)", i, i);
        odbc_text(db->string, "INSERT INTO verrou VALUES ('live', 'me', NULL, 1)");
        odbc_text(db->string, "INSERT INTO verrou VALUES ('over', 'me', 1, 1)");
        odbc_text(db->string, "INSERT INTO verrou VALUES ('young', '', 0, 8000000000000000)");
        for (int i = 0; i < LOCK_TABLE_PRUNE_RELEASES; i++) {
            int64_t rows;

            if (insert("mine", "me", VERROU_FOREVER) != VERROU_OK)
                assert_ok(calls->acquire_lock(user(), "mine", "me", VERROU_FOREVER, 0, 1, &rows, &err));
            draw("mine");
            assert_int_equal(delete ("mine", "me", 1), 1);
        }
        assert_string_equal(send_sql(db, "SELECT COUNT(*) FROM %s"), "4");
        test_close(&store);
    }
}

/* ---- list, check and schema ---- */

/* Live locks only, by prefix, with their tokens. A table that may be made has none. */
static void test_listing(void **state)
{
    (void)state;
    for (const database *db = databases; db < DATABASES_END; db++) {
        create(db->string, NULL);
        assert_string_equal(test_list(&store, ""), "");
        assert_ok(calls->create_table_if_not_exists(user(), &err));
        assert_ok(insert("a%1", "me", VERROU_FOREVER));
        assert_ok(insert("a%2", "you", clock_ms() + 60000));
        assert_ok(insert("a%3", "over", 1));
        assert_ok(insert("ab", "me", VERROU_FOREVER));
        assert_string_equal(test_list(&store, "a%"), "a%1 me forever\na%2 you live\n");
        assert_true(test_listed_fence("a%2") == 0);
        draw("a%2");
        test_list(&store, "a");
        assert_true(test_listed_fence("a%2") > 0);
        test_close(&store);
    }
}

/* What doctor finds. */
static void test_findings(void **state)
{
    const char *found;

    (void)state;
    for (const database *db = databases; db < DATABASES_END; db++) {
        create(db->string, NULL);
        assert_non_null(strstr(test_check(&store), "30 table: \"verrou\" does not exist yet"));
        assert_ok(calls->create_table_if_not_exists(user(), &err));
        found = test_check(&store);
        assert_non_null(strstr(found, db->name));
        assert_non_null(strstr(found, "30 clock: the server's"));
        assert_non_null(strstr(found, "30 table: \"verrou\"\n"));
        assert_non_null(strstr(found, "30 collation: keys are compared byte by byte"));
        assert_non_null(strstr(found, "30 rows: 0\n"));
        test_close(&store);
        send_sql(db, "DROP TABLE %s");
        make_original(db);
        create(db->string, "autocreate=false");
        found = test_check(&store);
        assert_non_null(strstr(found, "40 table: \"verrou\" has no column \"fence\""));
        if (db == MARIADB)
            assert_non_null(strstr(found, "40 collation: keys are not compared byte by byte"));
        send_sql(db, "DROP TABLE %s");
        user()->shape.known = false;
        assert_non_null(strstr(test_check(&store), "50 table: \"verrou\" does not exist, and autocreate is off"));
        test_close(&store);
    }
}

/* What schema prints is what it does; doing it again does nothing; a table of the original gets its column. */
static void test_schema_of_each(void **state)
{
    (void)state;
    for (const database *db = databases; db < DATABASES_END; db++) {
        char expected[128];

        create(db->string, NULL);
        snprintf(expected, sizeof expected,
                 "-- Verrou lock table for %s, schema version 1. Can be run again.\nCREATE TABLE IF NOT EXISTS",
                 db->name);
        assert_non_null(strstr(test_schema(&store), expected));
        assert_null(strstr(test_schema(&store), "ALTER"));
        test_schema_apply(&store);
        test_schema_apply(&store);
        assert_ok(insert("k", "me", VERROU_FOREVER));
        test_close(&store);
        send_sql(db, "DROP TABLE %s");
        make_original(db);
        create(db->string, NULL);
        assert_non_null(strstr(test_schema(&store), "ALTER TABLE"));
        test_schema_apply(&store);
        assert_ok(insert("k", "me", VERROU_FOREVER));
        assert_true(draw("k") > 0);
        assert_null(strstr(test_schema(&store), "ALTER"));
        test_close(&store);
    }
}

/* ---- memory ---- */

static verrou_status create_once(void *argument, verrou_error *error)
{
    verrou_status status = test_create(&store, verrou_odbc_driver(), argument, error);

    test_close(&store);
    return status;
}

/* Every allocation may fail: that is said, and nothing is lost. */
static void test_out_of_memory(void **state)
{
    static char nowhere[] = "odbc:DSN=x";

    (void)state;
    assert_true(failing_alloc_each(create_once, nowhere) > 0);
}

#define CALL_TEST(name) cmocka_unit_test_setup_teardown(name, drop, end)
#define STORE_TEST(name) cmocka_unit_test_setup_teardown(name, drop, close_store)

int main(void)
{
    const struct CMUnitTest tests[] = {
        STORE_TEST(test_addresses),
        CALL_TEST(test_no_such_driver),
        CALL_TEST(test_nobody_listens),
        STORE_TEST(test_lanes),
        STORE_TEST(test_refused_login),
        CALL_TEST(test_quoted_password),
        CALL_TEST(test_short_password),
        CALL_TEST(test_rows),
        CALL_TEST(test_extend_to_the_same_end),
        CALL_TEST(test_tokens),
        CALL_TEST(test_tokens_are_unique),
        CALL_TEST(test_clock),
        CALL_TEST(test_unknown_database),
        CALL_TEST(test_refused_row),
        CALL_TEST(test_late_duplicate),
        CALL_TEST(test_late_duplicate_mariadb),
        CALL_TEST(test_locked_row),
        CALL_TEST(test_serialisation_failure),
        CALL_TEST(test_lost_answer),
        CALL_TEST(test_lost_query),
        STORE_TEST(test_lost_answer_is_settled),
        STORE_TEST(test_server_killed),
        CALL_TEST(test_silent_server),
        CALL_TEST(test_silent_login),
        STORE_TEST(test_dropped_table),
        STORE_TEST(test_missing_table),
        STORE_TEST(test_no_right_to_create),
        CALL_TEST(test_no_right_to_read),
        CALL_TEST(test_loose_table),
        CALL_TEST(test_unique_table),
        CALL_TEST(test_loose_table_in_a_schema),
        cmocka_unit_test_setup_teardown(test_probed_table, drop, transact_again),
        CALL_TEST(test_refused_probe),
        STORE_TEST(test_other_table),
        STORE_TEST(test_original_table),
        CALL_TEST(test_folded_keys),
        CALL_TEST(test_folded_keys_of_one_owner),
        CALL_TEST(test_no_token_yet),
        cmocka_unit_test_setup_teardown(test_uncounted_rows, drop, count_again),
        CALL_TEST(test_mariadb_numbers),
        CALL_TEST(test_pruning),
        CALL_TEST(test_listing),
        CALL_TEST(test_findings),
        CALL_TEST(test_schema_of_each),
        CALL_TEST(test_out_of_memory),
    };

    return cmocka_run_group_tests_name("odbc", tests, start_servers, stop_servers);
}
