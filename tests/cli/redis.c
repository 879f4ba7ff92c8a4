/*
 * What the command says about a Redis store.
 */
#include "harness.h"
#include "redis_servers.h"

#include <stdio.h>
#include <stdlib.h>

static redis_server *server;

static int group_begin(void **state)
{
    (void)state;
    server = redis_server_start(NULL);
    return 0;
}

static int begin(void **state)
{
    char url[64];
    int failed = setup(state);

    snprintf(url, sizeof url, "redis://127.0.0.1:%d", server->port);
    setenv("VERROU_STORE", url, 1);
    redis_text(server, "FLUSHALL", NULL);
    return failed;
}

/* Redis does not tell the holder's token: people are shown none, programs find 0. What is no lock is not listed. */
static void locks_are_shown_without_a_token(void **state)
{
    job *j;

    (void)state;
    redis_text(server, "SET", "session", "{}", "PX", "60000", NULL);
    job_free(ran(0, NULL, "acquire", "k", "--ttl", "none", NULL));
    j = ran(0, NULL, "status", "k", NULL);
    assert_contains(j->out_text, ", never expires\n");
    job_free(j);
    j = ran(0, NULL, "list", NULL);
    assert_contains(j->out_text, "k\t");
    assert_contains(j->out_text, "\tnever expires\n");
    assert_lacks(j->out_text, "session");
    assert_lacks(j->out_text, "fence");
    job_free(j);
    j = ran(0, NULL, "--json", "list", NULL);
    assert_contains(j->out_text, "\"remaining_ms\":null,\"fence\":0}]");
    job_free(j);
}

/* doctor: 0 if a server is fit for locks, although something may be said of it; 69 if it is not. */
static void doctor_examines_the_server(void **state)
{
    job *j;

    (void)state;
    redis_text(server, "CONFIG", "SET", "maxmemory-policy", "allkeys-lru", NULL);
    j = ran(0, NULL, "doctor", NULL);
    assert_contains(j->out_text, "ok    redis: version ");
    assert_contains(j->out_text, "ok    trial: a lock was taken, extended and released\n");
    assert_contains(j->out_text, "warn  persistence: ");
    job_free(j);
    redis_text(server, "CONFIG", "SET", "maxmemory", "1000000000", NULL);
    j = ran(69, NULL, "doctor", NULL);
    assert_contains(j->out_text, "FAIL  memory: locks are dropped when more than 1000000000 bytes are in use");
    job_free(j);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(locks_are_shown_without_a_token, begin, teardown),
        cmocka_unit_test_setup_teardown(doctor_examines_the_server, begin, teardown),
    };

    return cmocka_run_group_tests_name("cli: redis", tests, group_begin, redis_teardown);
}
