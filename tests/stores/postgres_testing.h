/*
 * postgres_testing.h - what the tests of the PostgreSQL driver share: one server for all tests of a program, and a table that each finds missing.
 */
#ifndef VERROU_TESTS_POSTGRES_TESTING_H
#define VERROU_TESTS_POSTGRES_TESTING_H

#include "driver_testing.h"
#include "fault_proxy.h"
#include "pgbouncer.h"
#include "postgres_servers.h"

#include <verrou/postgres.h>

static postgres_server *server;

/* "postgres://postgres@127.0.0.1:PORT/postgres" with settings, "table=x&...", or none; valid until the eighth call after this one. */
static inline const char *test_address(int port, const char *settings)
{
    static char texts[8][512];
    static int next;
    char *text = texts[next++ % 8];

    snprintf(text, sizeof texts[0], "postgres://postgres@127.0.0.1:%d/postgres%s%s", port, settings ? "?" : "",
             settings ? settings : "");
    return text;
}

static inline test_store test_table(const char *settings)
{
    return test_open(verrou_postgres_driver(), test_address(server->port, settings));
}

/* A setup: without the table of the test before, and without what a failed test left locked. */
static inline int test_begin(void **state)
{
    (void)state;
    postgres_text(server,
                  "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%%'");
    postgres_text(server, "DROP TABLE IF EXISTS verrou CASCADE");
    postgres_log_forget(server);
    return 0;
}

/* A teardown. An error in the server's log is somebody's alarm; but a slow machine holds a row for longer than the limit of a lock. */
static inline int test_end_without_errors(void **state)
{
    char line[512];
    FILE *log;

    (void)state;
    if (postgres_logged(server, "ERROR:") + postgres_logged(server, "FATAL:") ==
        postgres_logged(server, "ERROR:  canceling statement due to lock timeout"))
        return 0;
    snprintf(line, sizeof line, "%s/log", server->folder);
    log = fopen(line, "r");
    while (log && fgets(line, sizeof line, log))
        if (strstr(line, "ERROR:") || strstr(line, "FATAL:"))
            fprintf(stderr, "%s", line);
    if (log)
        fclose(log);
    return -1;
}

#define quiet_test(f) cmocka_unit_test_setup_teardown(f, test_begin, test_end_without_errors)
#define loud_test(f) cmocka_unit_test_setup(f, test_begin)

#endif
