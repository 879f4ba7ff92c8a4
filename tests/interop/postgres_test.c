/*
 * postgres_test.c - the PostgreSQL store beside the original: the suites, and what the server's log says of both.
 *
 *     test_interop_postgres [STORE]      postgres: the original over knex, on a table of ours; kysely: over Kysely, on a table of theirs
 */
#include "postgres_servers.h"
#include "sql_suite.h"

#include <stdio.h>
#include <string.h>

#define MINUTE_MS 60000

static postgres_server *server;
static char address[128];

/* The plan of each statement is logged, with what became of it, before it is answered. */
static int start(void **state)
{
    static const char config[] = "session_preload_libraries = auto_explain\nauto_explain.log_min_duration = 0\n"
                                 "auto_explain.log_analyze = on\nauto_explain.log_timing = off\n";

    (void)state;
    server = postgres_server_start(&(postgres_options){.config = config});
    snprintf(address, sizeof(address), "postgres://%s@127.0.0.1:%d/%s", POSTGRES_USER, server->port, POSTGRES_DATABASE);
    return 0;
}

static const char *server_address(void)
{
    return address;
}

/*
 * Our acquire is an INSERT ... ON CONFLICT; theirs is not. If it is refused, it found the lock held and inserted nothing, or it met a row and
 * passed over it. Having met a row without that, it took it over, which is no refusal.
 */
static long long refusals(void)
{
    return postgres_logged(server, "Tuples Inserted: 0") - postgres_logged(server, "Conflicting Tuples: 1") +
           postgres_logged(server, "Rows Removed by Conflict Filter: 1");
}

static const char *text(const char *sql)
{
    return postgres_text(server, "%s", sql);
}

/* Whatever we do to a lock, held by whomever, is no error for the server; their acquire of a held lock is one. */
static void only_they_cause_errors(void **state)
{
    verrou_lock *ours = our_lock_for("quiet", MINUTE_MS);
    verrou_lock *second = our_lock_for("quiet", MINUTE_MS);

    (void)state;
    they_take("a", "noisy", MINUTE_MS); /* by now they have tried to make the table, which is an error as well */
    postgres_log_forget(server);
    assert_ok(verrou_lock_acquire_immediately(ours, NULL, NULL));
    assert_status(VERROU_ENOTACQUIRED, verrou_lock_acquire_immediately(second, NULL, NULL));
    assert_ok(verrou_lock_extend(ours, MINUTE_MS, NULL, NULL));
    assert_ok(verrou_lock_release(ours, NULL, NULL));
    assert_status(VERROU_ENOTACQUIRED, verrou_lock_acquire_immediately(our_lock("noisy"), NULL, NULL));
    assert_ok(verrou_lock_release(restored_by_us("a"), NULL, NULL));
    assert_status(VERROU_ENOTOWNED, verrou_lock_release(ours, NULL, NULL));
    assert_int_equal(postgres_logged(server, "ERROR:"), 0);
    assert_ok(verrou_lock_acquire_immediately(ours, NULL, NULL));
    they_create("b", "quiet", MINUTE_MS);
    assert_false(peer_true(them, "acquireImmediately", "b"));
    assert_int_equal(postgres_logged(server, "ERROR:  duplicate key"), 1);
}

int main(int argc, char **argv)
{
    static const struct CMUnitTest own[] = {
        INTEROP_TEST(only_they_cause_errors),
    };
    const interop_store store = {
        .name = argc > 1 ? argv[1] : "postgres",
        .their_address = server_address,
        .our_address = server_address,
        .refusals = refusals,
    };
    const interop_database database = {
        .key = "key",
        .now_ms = "(extract(epoch FROM clock_timestamp()) * 1000)",
        .text = text,
        .of_theirs = strcmp(store.name, "kysely") == 0,
    };

    return interop_run_sql(&store, &database, own, sizeof(own) / sizeof(own[0]), start);
}
