/* random_test.c - random bytes: never the same twice, not by another thread and not by a child process. */
#include "../support/failing_alloc.h"
#include "core/core.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

typedef struct draw {
    uint8_t bytes[16];
} draw;

#define DRAWS 4000

static int compare(const void *a, const void *b)
{
    return memcmp(a, b, sizeof(draw));
}

static void expect_distinct(draw *draws, size_t count)
{
    qsort(draws, count, sizeof(draw), compare);
    for (size_t i = 1; i < count; i++)
        assert_memory_not_equal(&draws[i - 1], &draws[i], sizeof(draw));
}

static void fill(draw *draws, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (verrou__random_bytes(&draws[i], sizeof(draw), NULL) != VERROU_OK)
            abort();
}

static void *fill_thread(void *draws)
{
    fill(draws, DRAWS);
    return NULL;
}

/* Threads draw different bytes, over many refills of their blocks. */
static void test_threads(void **state)
{
    static draw draws[4 * DRAWS];
    pthread_t threads[4];

    (void)state;
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, fill_thread, draws + i * DRAWS), 0);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    expect_distinct(draws, 4 * DRAWS);
}

/* A child does not draw what its parent draws, though it has a copy of the parent's memory. */
static void test_fork(void **state)
{
    static draw draws[64];
    int pipe_fds[2];
    pid_t child;
    int wstatus;

    (void)state;
    fill(draws, 1); /* so that there is a block to copy */
    assert_int_equal(pipe(pipe_fds), 0);
    child = fork();
    assert_true(child >= 0);
    fill(draws, 32);
    if (child == 0)
        _exit(write(pipe_fds[1], draws, 32 * sizeof(draw)) == 32 * sizeof(draw) ? 0 : 1);
    assert_int_equal(read(pipe_fds[0], draws + 32, 32 * sizeof(draw)), 32 * sizeof(draw));
    assert_int_equal(waitpid(child, &wstatus, 0), child);
    assert_int_equal(wstatus, 0);
    close(pipe_fds[0]);
    close(pipe_fds[1]);
    expect_distinct(draws, 64);
}

/* Every size is filled to its last byte and no further, small or larger than a block. */
static void test_sizes(void **state)
{
    static uint8_t bytes[5000];

    (void)state;
    for (size_t size = 1; size < sizeof(bytes) - 1; size = size * 2 + 1) {
        int last_seen = 0;

        memset(bytes, 0, sizeof(bytes));
        for (int i = 0; i < 20; i++) {
            assert_int_equal(verrou__random_bytes(bytes, size, NULL), VERROU_OK);
            last_seen |= bytes[size - 1];
        }
        assert_int_not_equal(last_seen, 0);
        assert_int_equal(bytes[size], 0);
    }
}

/* Each bit of a draw is sometimes 0 and sometimes 1. */
static void test_all_bits(void **state)
{
    uint64_t ones = 0, zeros = 0;

    (void)state;
    for (int i = 0; i < 200; i++) {
        uint64_t value = verrou__random64();

        ones |= value;
        zeros |= ~value;
    }
    assert_true(ones == UINT64_MAX && zeros == UINT64_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_fork),
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_all_bits),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
