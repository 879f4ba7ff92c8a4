/*
 * What all of it is for: processes that read, add and write do not overwrite each other's sums.
 */
#include "harness.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#define PROCESSES 16
#define ROUNDS 200

static int add_rounds(const char *script)
{
    for (int round = 0; round < ROUNDS; ++round) {
        pid_t pid = fork();
        int status = 0;
        if (!pid) {
            execl(VERROU_COMMAND, "verrou", "run", "counter", "--retry-delay", "20ms", "--", "sh", "-c", script,
                  (char *)NULL);
            _exit(99);
        }
        if (pid < 0 || waitpid(pid, &status, 0) != pid || status)
            return 1;
    }
    return 0;
}

/* 16 processes add one 200 times each to a number in a file: it is 3200 in the end, not one less. */
static void sum_is_exact(void **state)
{
    char script[512], text[32];
    pid_t pids[PROCESSES];

    (void)state;
    write_file(path_of("sum"), "0\n");
    snprintf(script, sizeof(script), "read n < %s; echo $((n + 1)) > %s", path_of("sum"), path_of("sum"));
    for (int i = 0; i < PROCESSES; ++i) {
        pids[i] = fork();
        assert_true(pids[i] >= 0);
        if (!pids[i])
            _exit(add_rounds(script));
    }
    for (int i = 0; i < PROCESSES; ++i) {
        int status = 0;
        assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
        assert_int_equal(status, 0);
    }
    read_file(path_of("sum"), text, sizeof(text));
    assert_string_equal(text, "3200\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(sum_is_exact, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
