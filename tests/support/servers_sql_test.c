/*
 * servers_sql_test.c - the SQL servers that other tests rely on do what their headers say; spoken to by plain libpq and libmariadb.
 */
#include "fault_proxy.h"
#include "mariadb_servers.h"
#include "pgbouncer.h"

#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

static postgres_server *pg;
static mariadb_server *maria;
static fault_proxy *proxy;

static int start(void **state)
{
    (void)state;
    pg = postgres_server_start(NULL);
    maria = mariadb_server_start(NULL);
    return 0;
}

static int stop(void **state)
{
    (void)state;
    pgbouncer_free_all();
    postgres_free_all();
    mariadb_free_all();
    return 0;
}

static int start_postgres_proxy(void **state)
{
    (void)state;
    postgres_text(pg, "DROP TABLE IF EXISTS p; CREATE TABLE p(a int)");
    proxy = proxy_start_for(PROXY_POSTGRES, pg->port);
    return 0;
}

static int start_mariadb_proxy(void **state)
{
    (void)state;
    mariadb_text(maria, "CREATE OR REPLACE TABLE p(a int)");
    proxy = proxy_start_for(PROXY_MYSQL, maria->port);
    return 0;
}

static int stop_proxy(void **state)
{
    (void)state;
    proxy_stop(proxy);
    proxy = NULL;
    return 0;
}

/* True if a process is there and is not only waited for. */
static bool process_exists(long pid)
{
    char path[64], state = 0;
    FILE *stat;

    snprintf(path, sizeof path, "/proc/%ld/stat", pid);
    stat = fopen(path, "r");
    if (!stat)
        return false;
    if (fscanf(stat, "%*d (%*[^)]) %c", &state) != 1)
        state = 0;
    fclose(stat);
    return state && state != 'Z';
}

static void wait_for_end(long pid)
{
    int64_t deadline = process_clock_ms() + PROCESS_PATIENCE_MS;

    while (process_exists(pid)) {
        assert_true(process_clock_ms() < deadline);
        process_pause();
    }
}

/* ---- PostgreSQL ---- */

/* A connection over TCP with parameters of its own; it may have failed. */
static PGconn *connect_with(int port, const char *parameters)
{
    char text[1024];

    snprintf(text, sizeof text, "host=127.0.0.1 port=%d dbname=%s connect_timeout=30 gssencmode=disable %s", port,
             POSTGRES_DATABASE, parameters);
    return PQconnectdb(text);
}

static void expect_connection(const postgres_server *server, bool succeeds, const char *parameters)
{
    PGconn *c = connect_with(server->port, parameters);

    if (succeeds != (PQstatus(c) == CONNECTION_OK))
        fail_msg("%s: %s", parameters, PQerrorMessage(c));
    PQfinish(c);
}

/* Send SQL and compare the first value of the answer; NULL: the connection breaks instead. */
static void expect(PGconn *c, const char *answer, const char *sql)
{
    PGresult *result = PQexec(c, sql);

    if (answer) {
        if (PQresultStatus(result) != PGRES_TUPLES_OK && PQresultStatus(result) != PGRES_COMMAND_OK)
            fail_msg("%s: %s", sql, PQerrorMessage(c));
        assert_string_equal(PQntuples(result) ? PQgetvalue(result, 0, 0) : "", answer);
    } else {
        assert_int_equal(PQresultStatus(result), PGRES_FATAL_ERROR);
        assert_int_equal(PQstatus(c), CONNECTION_BAD);
    }
    PQclear(result);
}

/* A started server carries SQL out, and its folder is private. */
static void postgres_answers(void **state)
{
    struct stat info;

    (void)state;
    postgres_text(pg, "CREATE TABLE t(a int, b text)");
    assert_string_equal(postgres_text(pg, "INSERT INTO t VALUES (1, 'x'), (2, NULL) RETURNING a, b"), "1|x\n2|(null)");
    assert_string_equal(postgres_text(pg, "SELECT a FROM t WHERE a > 2"), "");
    assert_int_equal(postgres_integer(pg, "SELECT count(*) FROM t WHERE a > %d", 1), 1);
    assert_string_equal(postgres_sqlstate(pg, "SELECT 1/0"), "22012");
    assert_string_equal(postgres_sqlstate(pg, "SELECT 1"), "");
    assert_int_equal(stat(pg->folder, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0700);
}

/* Statements and errors of others are counted in the log, those of the plain client are not. */
static void postgres_log_is_counted(void **state)
{
    PGconn *c = connect_with(pg->port, "user=postgres");

    (void)state;
    postgres_log_forget(pg);
    postgres_text(pg, "SELECT 'counted'");
    assert_int_equal(postgres_logged(pg, "counted"), 0);
    expect(c, "counted", "SELECT 'counted'");
    PQclear(PQexecParams(c, "SELECT 'counted'", 0, NULL, NULL, NULL, NULL, 0));
    assert_int_equal(postgres_logged(pg, "LOG:  statement: SELECT 'counted'"), 1);
    assert_int_equal(postgres_logged(pg, "LOG:  execute <unnamed>: SELECT 'counted'"), 1);
    assert_int_equal(postgres_logged(pg, "ERROR:"), 0);
    PQclear(PQexec(c, "SELECT 1/0"));
    assert_int_equal(postgres_logged(pg, "ERROR:  division by zero"), 1);
    postgres_log_forget(pg);
    assert_int_equal(postgres_logged(pg, "counted"), 0);
    PQfinish(c);
}

/* A killed server is gone with all its processes, also with one that is too busy to notice the end of the others. */
static void killed_postgres_is_gone(void **state)
{
    postgres_server *own = postgres_server_start(NULL);
    PGconn *c = postgres_connect(own);

    (void)state;
    expect(c, "", "SET statement_timeout = '5min'");
    assert_int_equal(PQsendQuery(c, "DO $$BEGIN LOOP END LOOP; END$$"), 1);
    assert_int_equal(PQflush(c), 0);
    while (postgres_integer(own,
                            "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'DO%%'") == 0)
        process_pause();
    postgres_server_kill(own);
    assert_false(process_exists(PQbackendPID(c)));
    PQfinish(c);
    postgres_server_free(own);
}

/* What was committed is there after a kill and after a polite end; the port stays the same, and sessions end with the server. */
static void postgres_keeps_what_was_committed(void **state)
{
    postgres_server *own = postgres_server_start(NULL);
    int port = own->port;
    PGconn *c = postgres_connect(own);

    (void)state;
    postgres_text(own, "CREATE TABLE t(a int); INSERT INTO t VALUES (1)");
    postgres_server_kill(own);
    expect(c, NULL, "SELECT 1");
    PQfinish(c);
    expect_connection(own, false, "user=postgres");
    postgres_server_restart(own);
    assert_int_equal(own->port, port);
    assert_int_equal(postgres_integer(own, "SELECT a FROM t"), 1);
    postgres_text(own, "INSERT INTO t VALUES (2)");
    postgres_server_stop(own);
    expect_connection(own, false, "user=postgres");
    postgres_server_restart(own);
    assert_int_equal(postgres_integer(own, "SELECT count(*) FROM t"), 2);
    postgres_server_free(own);
}

/* A frozen server answers neither in sessions that exist nor in new ones, and does both after it has thawed. */
static void frozen_postgres_is_silent(void **state)
{
    PGconn *c = connect_with(pg->port, "user=postgres"), *late;

    (void)state;
    expect(c, "1", "SELECT 1");
    postgres_server_freeze(pg);
    late = connect_with(pg->port, "user=postgres connect_timeout=2");
    assert_int_equal(PQstatus(late), CONNECTION_BAD);
    PQfinish(late);
    assert_int_equal(PQsendQuery(c, "SELECT 2"), 1);
    assert_int_equal(PQflush(c), 0);
    assert_int_equal(PQconsumeInput(c), 1);
    assert_int_equal(PQisBusy(c), 1);
    postgres_server_thaw(pg);
    for (PGresult *result; (result = PQgetResult(c)); PQclear(result))
        assert_string_equal(PQgetvalue(result, 0, 0), "2");
    PQfinish(c);
    assert_string_equal(postgres_text(pg, "SELECT 3"), "3");
}

/* A user with a password gets in over TCP with it only; his rights are to make tables. */
static void postgres_password_is_needed(void **state)
{
    postgres_server *own = postgres_server_start(&(postgres_options){.password = "it's \"a\" p%sword"});
    PGconn *c;

    (void)state;
    expect_connection(own, false, "user=verrou");
    expect_connection(own, false, "user=verrou password=wrong");
    expect_connection(own, true, "user=postgres");
    c = connect_with(own->port, "user=verrou password='it\\'s \"a\" p%sword'");
    assert_int_equal(PQstatus(c), CONNECTION_OK);
    expect(c, "", "CREATE TABLE mine(a int)");
    expect(c, "off", "SELECT current_setting('is_superuser')");
    PQfinish(c);
    postgres_server_free(own);
}

/* The certificate, the refusal of plain connections and the demand for a client's certificate are as asked for. */
static void postgres_tls_is_as_asked_for(void **state)
{
    postgres_server *own = postgres_server_start(&(postgres_options){.tls = "server", .tls_only = true});
    char parameters[1024];
    const char *from = server_certificates();

    (void)state;
    expect_connection(own, false, "user=postgres sslmode=disable");
    snprintf(parameters, sizeof parameters, "user=postgres sslmode=verify-full sslrootcert=%s/ca.pem", from);
    expect_connection(own, true, parameters);
    snprintf(parameters, sizeof parameters, "user=postgres sslmode=verify-full sslrootcert=%s/wrong-ca.pem", from);
    expect_connection(own, false, parameters);
    postgres_server_free(own);
    own = postgres_server_start(&(postgres_options){.tls = "server", .tls_client_certificate = true});
    expect_connection(own, false, "user=postgres sslmode=require sslcert=none");
    snprintf(parameters, sizeof parameters, "user=postgres sslmode=require sslcert=%s/client.pem sslkey=%s/client.key",
             from, from);
    expect_connection(own, true, parameters);
    postgres_server_free(own);
}

/* Lines of configuration hold, and those of pg_hba.conf come first. */
static void postgres_configuration_holds(void **state)
{
    postgres_server *own = postgres_server_start(&(postgres_options){
        .config = "max_connections = 17\n", .hba = "host all intruder 127.0.0.1/32 reject\n", .durable = true});

    (void)state;
    assert_string_equal(postgres_text(own, "SHOW max_connections"), "17");
    assert_string_equal(postgres_text(own, "SHOW fsync"), "on");
    assert_string_equal(postgres_text(pg, "SHOW fsync"), "off");
    postgres_text(own, "CREATE USER intruder; CREATE USER guest");
    expect_connection(own, false, "user=intruder");
    expect_connection(own, true, "user=guest");
    postgres_server_free(own);
}

/* A standby has its primary's data, follows it, and refuses to write until it is promoted. */
static void standby_follows_and_is_promoted(void **state)
{
    postgres_server *primary = postgres_server_start(&(postgres_options){.password = "secret"}), *standby;

    (void)state;
    postgres_text(primary, "CREATE TABLE t(a int); INSERT INTO t VALUES (1)");
    standby = postgres_server_start(&(postgres_options){.standby_of = primary});
    assert_int_equal(postgres_integer(standby, "SELECT count(*) FROM t"), 1);
    postgres_text(primary, "INSERT INTO t VALUES (2)");
    postgres_catch_up(standby);
    assert_int_equal(postgres_integer(standby, "SELECT count(*) FROM t"), 2);
    assert_string_equal(postgres_sqlstate(standby, "INSERT INTO t VALUES (3)"), "25006");
    postgres_server_kill(primary);
    postgres_promote(standby);
    postgres_text(standby, "INSERT INTO t VALUES (3)");
    assert_string_equal(postgres_text(standby, "SHOW transaction_read_only"), "off");
    postgres_server_free(standby);
    postgres_server_free(primary);
}

/* A pooler gives one session of the server to two clients in turn, each for a transaction. */
static void pooler_shares_a_session(void **state)
{
    pgbouncer *pooler = pgbouncer_start(pg, 1);
    PGconn *one = pgbouncer_connect(pooler), *two = pgbouncer_connect(pooler);
    PGresult *first = PQexec(one, "SELECT pg_backend_pid()"), *second = PQexec(two, "SELECT pg_backend_pid()");

    (void)state;
    assert_int_equal(PQresultStatus(first), PGRES_TUPLES_OK);
    assert_string_equal(PQgetvalue(first, 0, 0), PQgetvalue(second, 0, 0));
    assert_int_not_equal(PQbackendPID(one), atoi(PQgetvalue(first, 0, 0)));
    PQclear(first);
    PQclear(second);
    PQfinish(one);
    PQfinish(two);
    pgbouncer_free(pooler);
}

/* ---- MariaDB ---- */

/* A connection over TCP; it may have failed. Several statements in one text are allowed. */
static MYSQL *mariadb_connect_to(int port, const char *user, const char *password)
{
    MYSQL *c = mysql_init(NULL);
    unsigned timeout = 30;

    assert_non_null(c);
    mysql_optionsv(c, MYSQL_OPT_CONNECT_TIMEOUT, &timeout);
    mysql_optionsv(c, MYSQL_OPT_READ_TIMEOUT, &timeout);
    mysql_real_connect(c, "127.0.0.1", user, password, MARIADB_DATABASE, (unsigned)port, NULL, CLIENT_MULTI_STATEMENTS);
    return c;
}

static MYSQL *mariadb_connect_tls(int port, const char *authority, const char *certificate)
{
    MYSQL *c = mysql_init(NULL);
    char ca[PROCESS_PATH + 32], cert[PROCESS_PATH + 32], key[PROCESS_PATH + 32];
    my_bool verify = 1;

    assert_non_null(c);
    snprintf(ca, sizeof ca, "%s/%s.pem", server_certificates(), authority);
    snprintf(cert, sizeof cert, "%s/%s.pem", server_certificates(), certificate ? certificate : "");
    snprintf(key, sizeof key, "%s/%s.key", server_certificates(), certificate ? certificate : "");
    mysql_ssl_set(c, certificate ? key : NULL, certificate ? cert : NULL, ca, NULL, NULL);
    mysql_optionsv(c, MYSQL_OPT_SSL_VERIFY_SERVER_CERT, &verify);
    mysql_real_connect(c, "127.0.0.1", MARIADB_PASSWORD_USER, "secret", MARIADB_DATABASE, (unsigned)port, NULL, 0);
    return c;
}

/* Close a connection, which has the number of an error, or 0. */
static void expect_error(MYSQL *c, unsigned number)
{
    if (mysql_errno(c) != number)
        fail_msg("error %u instead of %u: %s", mysql_errno(c), number, mysql_error(c));
    mysql_close(c);
}

#define LOST 2013 /* the connection, while an answer is waited for */
#define GONE 2006 /* before something could be sent */
#define NO_SERVER 2002
#define TLS_ERROR 2026
#define ACCESS_DENIED 1045

/* Send SQL and compare the first values of all results, separated by a blank; NULL: the connection breaks instead. */
static void mariadb_expect(MYSQL *c, const char *answer, const char *sql)
{
    char got[1024] = "";
    size_t length = 0;
    int more = mysql_query(c, sql);

    while (more == 0) {
        MYSQL_RES *rows = mysql_store_result(c);
        MYSQL_ROW row = rows ? mysql_fetch_row(rows) : NULL;

        if (row)
            length += (size_t)snprintf(got + length, sizeof got - length, "%s%s", length ? " " : "", row[0]);
        if (rows)
            mysql_free_result(rows);
        more = mysql_next_result(c);
    }
    if (answer && more > 0)
        fail_msg("%s: %s", sql, mysql_error(c));
    if (answer)
        assert_string_equal(got, answer);
    else
        assert_true(mysql_errno(c) == LOST || mysql_errno(c) == GONE);
}

/* A started server carries SQL out, and its folder is private. */
static void mariadb_answers(void **state)
{
    struct stat info;

    (void)state;
    mariadb_text(maria, "CREATE TABLE t(a int, b text)");
    mariadb_text(maria, "INSERT INTO t VALUES (1, 'x'), (2, NULL)");
    assert_string_equal(mariadb_text(maria, "SELECT a, b FROM t ORDER BY a"), "1|x\n2|(null)");
    assert_string_equal(mariadb_text(maria, "SELECT a FROM t WHERE a > 2"), "");
    assert_int_equal(mariadb_integer(maria, "SELECT count(*) FROM t WHERE a > %d", 1), 1);
    assert_int_equal(mariadb_error_number(maria, "SELECT a FROM absent"), 1146);
    assert_int_equal(mariadb_error_number(maria, "SELECT 1"), 0);
    assert_int_equal(stat(maria->folder, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0700);
}

/* Statements of others are in the general log and in the status, those of the plain client are not in the log. */
static void mariadb_log_is_counted(void **state)
{
    MYSQL *c = mariadb_connect_to(maria->port, "root", "");
    long long commits;

    (void)state;
    mariadb_log_forget(maria);
    mariadb_text(maria, "SELECT 'counted'");
    assert_int_equal(mariadb_logged(maria, "counted"), 0);
    mariadb_expect(c, "counted", "SELECT 'counted'");
    assert_int_equal(mariadb_logged(maria, "Query\tSELECT 'counted'"), 1);
    commits = mariadb_status(maria, "Com_commit");
    mariadb_expect(c, "1", "START TRANSACTION; SELECT 1; COMMIT");
    assert_int_equal(mariadb_status(maria, "Com_commit"), commits + 1);
    assert_int_equal(mariadb_errors_logged(maria, "[ERROR]"), 0);
    mariadb_log_forget(maria);
    assert_int_equal(mariadb_logged(maria, "counted"), 0);
    mysql_close(c);
}

/* What was committed is there after a kill and after a polite end; the port stays the same. */
static void mariadb_keeps_what_was_committed(void **state)
{
    mariadb_server *own = mariadb_server_start(NULL);
    int port = own->port;

    (void)state;
    mariadb_text(own, "CREATE TABLE t(a int)");
    mariadb_text(own, "INSERT INTO t VALUES (1)");
    mariadb_server_kill(own);
    expect_error(mariadb_connect_to(port, "root", ""), NO_SERVER);
    mariadb_server_restart(own);
    assert_int_equal(own->port, port);
    assert_int_equal(mariadb_integer(own, "SELECT a FROM t"), 1);
    mariadb_text(own, "INSERT INTO t VALUES (2)");
    mariadb_server_stop(own);
    expect_error(mariadb_connect_to(port, "root", ""), NO_SERVER);
    mariadb_server_restart(own);
    assert_int_equal(mariadb_integer(own, "SELECT count(*) FROM t"), 2);
    mariadb_server_free(own);
}

/* A frozen server answers only after it has thawed. */
static void frozen_mariadb_is_silent(void **state)
{
    MYSQL *c = mariadb_connect_to(maria->port, "root", "");
    struct pollfd answer = {.events = POLLIN};

    (void)state;
    mariadb_server_freeze(maria);
    assert_int_equal(mysql_send_query(c, "SELECT 2", 8), 0);
    answer.fd = mysql_get_socket(c);
    assert_int_equal(poll(&answer, 1, 50), 0);
    mariadb_server_thaw(maria);
    assert_int_equal(mysql_read_query_result(c), 0);
    mysql_close(c);
    assert_string_equal(mariadb_text(maria, "SELECT 3"), "3");
}

/* A user with a password gets in with it only, and sees nothing but the database. */
static void mariadb_password_is_needed(void **state)
{
    mariadb_server *own = mariadb_server_start(&(mariadb_options){.password = "it's \\ a p%sword"});
    MYSQL *c;

    (void)state;
    expect_error(mariadb_connect_to(own->port, "verrou", ""), ACCESS_DENIED);
    expect_error(mariadb_connect_to(own->port, "verrou", "wrong"), ACCESS_DENIED);
    c = mariadb_connect_to(own->port, "verrou", "it's \\ a p%sword");
    mariadb_expect(c, "", "CREATE TABLE mine(a int)");
    assert_int_not_equal(mysql_query(c, "SELECT * FROM mysql.user"), 0);
    mysql_close(c);
    mariadb_server_free(own);
}

/* The certificate, the refusal of plain connections and the demand for a client's certificate are as asked for. */
static void mariadb_tls_is_as_asked_for(void **state)
{
    mariadb_server *own =
        mariadb_server_start(&(mariadb_options){.password = "secret", .tls = "server", .tls_only = true});

    (void)state;
    expect_error(mariadb_connect_to(own->port, "verrou", "secret"), ACCESS_DENIED);
    expect_error(mariadb_connect_tls(own->port, "ca", NULL), 0);
    expect_error(mariadb_connect_tls(own->port, "wrong-ca", NULL), TLS_ERROR);
    mariadb_server_free(own);
    own =
        mariadb_server_start(&(mariadb_options){.password = "secret", .tls = "server", .tls_client_certificate = true});
    expect_error(mariadb_connect_tls(own->port, "ca", NULL), ACCESS_DENIED);
    expect_error(mariadb_connect_tls(own->port, "ca", "client"), 0);
    mariadb_server_free(own);
}

/* Lines of configuration hold. */
static void mariadb_configuration_holds(void **state)
{
    mariadb_server *own = mariadb_server_start(&(mariadb_options){.config = "max_connections=17\n", .durable = true});

    (void)state;
    assert_string_equal(mariadb_text(own, "SELECT @@max_connections"), "17");
    assert_string_equal(mariadb_text(own, "SELECT @@innodb_flush_log_at_trx_commit"), "1");
    mariadb_server_free(own);
}

/* ---- the proxy before PostgreSQL ---- */

static PGconn *connect_to_proxy(void)
{
    PGconn *c = connect_with(proxy_port(proxy), "user=postgres");

    if (PQstatus(c) != CONNECTION_OK)
        fail_msg("%s", PQerrorMessage(c));
    return c;
}

/* Logging in is not counted; statements are, each with its answer, whether simple or extended, failing or not. */
static void postgres_requests_are_counted(void **state)
{
    PGconn *c = connect_to_proxy();

    (void)state;
    assert_int_equal(proxy_count(proxy, PROXY_REQUESTS), 0);
    proxy_count_matching(proxy, "INSERT");
    expect(c, "", "INSERT INTO p VALUES (1)");
    expect(c, "1", "BEGIN; INSERT INTO p VALUES (2); COMMIT; SELECT 1");
    PQclear(PQexec(c, "SELECT 1/0"));
    PQclear(
        PQexecParams(c, "INSERT INTO p SELECT generate_series(1, 10000) RETURNING a", 0, NULL, NULL, NULL, NULL, 0));
    PQclear(PQprepare(c, "named", "SELECT 1", 0, NULL));
    PQclear(PQexecPrepared(c, "named", 0, NULL, NULL, NULL, 0));
    assert_int_equal(proxy_count(proxy, PROXY_REQUESTS), 6);
    assert_int_equal(proxy_count(proxy, PROXY_REPLIES), 6);
    assert_int_equal(proxy_count(proxy, PROXY_MATCHING), 3);
    assert_int_equal(proxy_count(proxy, PROXY_MESSAGES), 0);
    PQfinish(c);
    proxy_wait(proxy, PROXY_CLOSED, 1);
}

/* A lost request is not carried out, and one whose answer is lost or cut is. */
static void postgres_requests_and_replies_get_lost(void **state)
{
    PGconn *c = connect_to_proxy();

    (void)state;
    proxy_set(proxy, PROXY_DROP_REQUEST, .match = "(1)");
    proxy_set(proxy, PROXY_DROP_REPLY, .match = "(2)");
    proxy_set(proxy, PROXY_TRUNCATE_REPLY, .match = "(3)", .bytes = 7);
    for (int i = 1; i <= 3; i++) {
        char sql[64];

        snprintf(sql, sizeof sql, "INSERT INTO p VALUES (%d)", i);
        expect(c, "0", "SELECT 0");
        expect(c, NULL, sql);
        PQfinish(c);
        c = connect_to_proxy();
    }
    assert_int_equal(proxy_count(proxy, PROXY_FIRED), 3);
    assert_string_equal(postgres_text(pg, "SELECT a FROM p ORDER BY a"), "2\n3");
    PQfinish(c);
}

/* A held request arrives later, although its client has gone; held answers are swallowed when the connection is cut. */
static void postgres_requests_and_replies_are_held(void **state)
{
    PGconn *c = connect_to_proxy();
    PGresult *result;

    (void)state;
    proxy_set(proxy, PROXY_HOLD_REQUEST, .match = "INSERT");
    assert_int_equal(PQsendQuery(c, "INSERT INTO p VALUES (1)"), 1);
    assert_int_equal(PQflush(c), 0);
    proxy_wait(proxy, PROXY_HELD, 1);
    assert_int_equal(postgres_integer(pg, "SELECT count(*) FROM p"), 0);
    PQfinish(c);
    proxy_wait(proxy, PROXY_ORPHANED, 1);
    proxy_let_go(proxy);
    assert_int_equal(postgres_integer(pg, "SELECT count(*) FROM p"), 1);

    c = connect_to_proxy();
    proxy_set(proxy, PROXY_HOLD_REPLY, .match = "INSERT");
    assert_int_equal(PQsendQuery(c, "INSERT INTO p VALUES (2)"), 1);
    assert_int_equal(PQflush(c), 0);
    proxy_wait(proxy, PROXY_HELD, 1);
    assert_int_equal(postgres_integer(pg, "SELECT count(*) FROM p"), 2);
    proxy_close_all(proxy);
    result = PQgetResult(c);
    assert_int_equal(PQresultStatus(result), PGRES_FATAL_ERROR);
    PQclear(result);
    assert_int_equal(PQstatus(c), CONNECTION_BAD);
    PQfinish(c);
}

/* A notification that comes on its own is a message, and can be swallowed. */
static void notifications_are_messages(void **state)
{
    PGconn *c = connect_to_proxy();
    PGnotify *got;

    (void)state;
    expect(c, "", "LISTEN channel");
    proxy_set(proxy, PROXY_DROP_MESSAGE, .match = "lost");
    postgres_text(pg, "NOTIFY channel, 'lost'");
    postgres_text(pg, "NOTIFY channel, 'seen'");
    proxy_wait(proxy, PROXY_MESSAGES, 2);
    expect(c, "1", "SELECT 1");
    got = PQnotifies(c);
    assert_non_null(got);
    assert_string_equal(got->extra, "seen");
    PQfreemem(got);
    assert_null(PQnotifies(c));
    PQfinish(c);
}

/* ---- the proxy before MariaDB ---- */

static MYSQL *mariadb_through_proxy(void)
{
    MYSQL *c = mariadb_connect_to(proxy_port(proxy), "root", "");

    if (mysql_errno(c) != 0)
        fail_msg("%s", mysql_error(c));
    return c;
}

/* Logging in is not counted; commands are, each with all of its results, also if one of several statements fails. */
static void mariadb_requests_are_counted(void **state)
{
    MYSQL *c = mariadb_through_proxy();

    (void)state;
    assert_int_equal(proxy_count(proxy, PROXY_REQUESTS), 0);
    proxy_count_matching(proxy, "INSERT");
    mariadb_expect(c, "", "INSERT INTO p VALUES (1)");
    mariadb_expect(c, "1 2", "BEGIN; SELECT 1, 'x'; INSERT INTO p VALUES (2); SELECT 2 UNION SELECT 3; COMMIT");
    assert_int_not_equal(mysql_query(c, "SELECT a FROM absent; SELECT 1"), 0);
    mariadb_expect(c, "1", "SELECT 1; SELECT a FROM p WHERE a > 100; DO 1");
    mariadb_expect(c, "1", "SELECT seq FROM seq_1_to_100000");
    assert_int_equal(mysql_ping(c), 0);
    assert_int_equal(proxy_count(proxy, PROXY_REQUESTS), 6);
    assert_int_equal(proxy_count(proxy, PROXY_REPLIES), 6);
    assert_int_equal(proxy_count(proxy, PROXY_MATCHING), 2);
    assert_int_equal(proxy_count(proxy, PROXY_MESSAGES), 0);
    mysql_close(c);
    proxy_wait(proxy, PROXY_CLOSED, 1);
}

/* Preparing and each execution of a statement is one request; closing it is none. */
static void mariadb_statements_are_counted(void **state)
{
    MYSQL *c = mariadb_through_proxy();
    MYSQL_STMT *statement = mysql_stmt_init(c);
    const char *sql = "SELECT a, ? FROM p WHERE a < ?";
    int limit = 100;
    MYSQL_BIND in[2] = {{.buffer_type = MYSQL_TYPE_LONG, .buffer = &limit},
                        {.buffer_type = MYSQL_TYPE_LONG, .buffer = &limit}};

    (void)state;
    mariadb_text(maria, "INSERT INTO p VALUES (1), (2)");
    assert_int_equal(mysql_stmt_prepare(statement, sql, strlen(sql)), 0);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(mysql_stmt_bind_param(statement, in), 0);
        assert_int_equal(mysql_stmt_execute(statement), 0);
        assert_int_equal(mysql_stmt_store_result(statement), 0);
        assert_int_equal(mysql_stmt_num_rows(statement), 2);
    }
    mysql_stmt_close(statement);
    mariadb_expect(c, "1", "SELECT 1");
    assert_int_equal(proxy_count(proxy, PROXY_REQUESTS), 5);
    assert_int_equal(proxy_count(proxy, PROXY_REPLIES), 5);
    mysql_close(c);
}

/* A lost request is not carried out, and one whose answer is lost or cut is. */
static void mariadb_requests_and_replies_get_lost(void **state)
{
    MYSQL *c = mariadb_through_proxy();

    (void)state;
    proxy_set(proxy, PROXY_DROP_REQUEST, .match = "(1)");
    proxy_set(proxy, PROXY_DROP_REPLY, .match = "(2)");
    proxy_set(proxy, PROXY_TRUNCATE_REPLY, .match = "(3)", .bytes = 7);
    for (int i = 1; i <= 3; i++) {
        char sql[64];

        snprintf(sql, sizeof sql, "INSERT INTO p VALUES (%d); SELECT 1", i);
        mariadb_expect(c, "0", "SELECT 0");
        mariadb_expect(c, NULL, sql);
        mysql_close(c);
        c = mariadb_through_proxy();
    }
    assert_int_equal(proxy_count(proxy, PROXY_FIRED), 3);
    assert_string_equal(mariadb_text(maria, "SELECT a FROM p ORDER BY a"), "2\n3");
    mysql_close(c);
}

/* A held request arrives later, although its client has gone; held answers are swallowed when the connection is cut. */
static void mariadb_requests_and_replies_are_held(void **state)
{
    static const char first[] = "INSERT INTO p VALUES (1)",
                      second[] = "INSERT INTO p VALUES (2); INSERT INTO p VALUES (3)";
    MYSQL *c = mariadb_through_proxy();

    (void)state;
    proxy_set(proxy, PROXY_HOLD_REQUEST, .match = "INSERT");
    assert_int_equal(mysql_send_query(c, first, strlen(first)), 0);
    proxy_wait(proxy, PROXY_HELD, 1);
    assert_int_equal(mariadb_integer(maria, "SELECT count(*) FROM p"), 0);
    mysql_close(c);
    proxy_wait(proxy, PROXY_ORPHANED, 1);
    proxy_let_go(proxy);
    assert_int_equal(mariadb_integer(maria, "SELECT count(*) FROM p"), 1);

    c = mariadb_through_proxy();
    proxy_set(proxy, PROXY_HOLD_REPLY, .match = "INSERT");
    assert_int_equal(mysql_send_query(c, second, strlen(second)), 0);
    proxy_wait(proxy, PROXY_HELD, 1);
    assert_int_equal(mariadb_integer(maria, "SELECT count(*) FROM p"), 3);
    proxy_close_all(proxy);
    assert_int_not_equal(mysql_read_query_result(c), 0);
    assert_int_equal(mysql_errno(c), LOST);
    mysql_close(c);
}

/* A connection with TLS passes through, and can be cut. */
static void tls_passes_through(void **state)
{
    postgres_server *own = postgres_server_start(&(postgres_options){.tls = "server", .tls_only = true});
    fault_proxy *before = proxy_start_for(PROXY_POSTGRES, own->port);
    PGconn *c = connect_with(proxy_port(before), "user=postgres sslmode=require");

    (void)state;
    expect(c, "1", "SELECT 1");
    assert_int_equal(proxy_count(before, PROXY_REQUESTS), 0);
    proxy_close_all(before);
    expect(c, NULL, "SELECT 1");
    PQfinish(c);
    proxy_stop(before);
    postgres_server_free(own);
}

/* ---- the end ---- */

/* Runs a test program's life in a child, which dies at once; gives the numbers of two processes of its server. */
static void die_with_servers(int report, bool frozen)
{
    postgres_server *own = postgres_server_start(NULL);
    mariadb_server *other = mariadb_server_start(NULL);
    PGconn *c = postgres_connect(own);
    long pids[3] = {own->process.pid, PQbackendPID(c), other->process.pid};

    if (frozen) {
        postgres_server_freeze(own);
        mariadb_server_freeze(other);
    }
    if (write(report, pids, sizeof pids) == sizeof pids)
        raise(SIGKILL);
    _exit(1);
}

static void expect_nothing_left(bool frozen)
{
    int report[2], status;
    long pids[3];
    pid_t child;

    assert_int_equal(pipe(report), 0);
    child = fork();
    if (child == 0)
        die_with_servers(report[1], frozen);
    close(report[1]);
    assert_int_equal(read(report[0], pids, sizeof pids), sizeof pids);
    close(report[0]);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status));
    for (int i = 0; i < 3; i++)
        wait_for_end(pids[i]);
}

/* A test program that crashes takes its servers with it, with all their processes, also if they stood still. */
static void crash_leaves_no_process(void **state)
{
    (void)state;
    expect_nothing_left(false);
    expect_nothing_left(true);
}

#define POSTGRES_PROXY_TEST(name) cmocka_unit_test_setup_teardown(name, start_postgres_proxy, stop_proxy)
#define MARIADB_PROXY_TEST(name) cmocka_unit_test_setup_teardown(name, start_mariadb_proxy, stop_proxy)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(postgres_answers),
        cmocka_unit_test(postgres_log_is_counted),
        cmocka_unit_test(killed_postgres_is_gone),
        cmocka_unit_test(postgres_keeps_what_was_committed),
        cmocka_unit_test(frozen_postgres_is_silent),
        cmocka_unit_test(postgres_password_is_needed),
        cmocka_unit_test(postgres_tls_is_as_asked_for),
        cmocka_unit_test(postgres_configuration_holds),
        cmocka_unit_test(standby_follows_and_is_promoted),
        cmocka_unit_test(pooler_shares_a_session),
        cmocka_unit_test(mariadb_answers),
        cmocka_unit_test(mariadb_log_is_counted),
        cmocka_unit_test(mariadb_keeps_what_was_committed),
        cmocka_unit_test(frozen_mariadb_is_silent),
        cmocka_unit_test(mariadb_password_is_needed),
        cmocka_unit_test(mariadb_tls_is_as_asked_for),
        cmocka_unit_test(mariadb_configuration_holds),
        POSTGRES_PROXY_TEST(postgres_requests_are_counted),
        POSTGRES_PROXY_TEST(postgres_requests_and_replies_get_lost),
        POSTGRES_PROXY_TEST(postgres_requests_and_replies_are_held),
        POSTGRES_PROXY_TEST(notifications_are_messages),
        MARIADB_PROXY_TEST(mariadb_requests_are_counted),
        MARIADB_PROXY_TEST(mariadb_statements_are_counted),
        MARIADB_PROXY_TEST(mariadb_requests_and_replies_get_lost),
        MARIADB_PROXY_TEST(mariadb_requests_and_replies_are_held),
        cmocka_unit_test(tls_passes_through),
        cmocka_unit_test(crash_leaves_no_process),
    };

    return cmocka_run_group_tests_name("support/servers_sql", tests, start, stop);
}
