/* fork_test.c - processes are told apart, however many forks lie between them. */
#include "../support/failing_alloc.h"
#include "core/core.h"

#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

static int wait_for(pid_t child)
{
    int wstatus = -1;

    assert_int_equal(waitpid(child, &wstatus, 0), child);
    return wstatus;
}

/* The count does not change by itself. */
static void test_stable(void **state)
{
    uint32_t first = verrou__fork_count();

    (void)state;
    assert_int_not_equal(first, 0);
    assert_int_equal(verrou__fork_count(), first);
}

/* A child has another count than its parent, a grandchild another than both, and the parent keeps its own. */
static void test_generations(void **state)
{
    uint32_t parent = verrou__fork_count();
    pid_t child = fork();

    (void)state;
    assert_true(child >= 0);
    if (child == 0) {
        uint32_t mine = verrou__fork_count();
        pid_t grandchild = fork();
        int wstatus = -1;

        if (grandchild == 0)
            _exit(verrou__fork_count() != mine && verrou__fork_count() != parent ? 0 : 1);
        if (grandchild < 0 || waitpid(grandchild, &wstatus, 0) != grandchild || wstatus != 0)
            _exit(2);
        _exit(mine != parent && verrou__fork_count() == mine ? 0 : 3);
    }
    assert_int_equal(wait_for(child), 0);
    assert_int_equal(verrou__fork_count(), parent);
}

/* A drawn owner says which process drew it, in a child as well. */
static void test_owner_pid(void **state)
{
    verrou__owner_id id;
    pid_t child;

    (void)state;
    assert_int_equal(verrou__owner_draw(&id, NULL), VERROU_OK);
    assert_int_equal(id.pid, getpid());
    child = fork();
    assert_true(child >= 0);
    if (child == 0)
        _exit(verrou__owner_draw(&id, NULL) == VERROU_OK && id.pid == getpid() ? 0 : 1);
    assert_int_equal(wait_for(child), 0);
}

static void *count_thread(void *ret)
{
    *(uint32_t *)ret = verrou__fork_count();
    return NULL;
}

/* All threads of a process get one answer, from the first call on. */
static void test_threads(void **state)
{
    uint32_t counts[8];
    pthread_t threads[8];

    (void)state;
    for (int i = 0; i < 8; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, count_thread, &counts[i]), 0);
    for (int i = 0; i < 8; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < 8; i++)
        assert_int_equal(counts[i], verrou__fork_count());
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_threads), /* first: it races for the registration */
        cmocka_unit_test(test_stable),
        cmocka_unit_test(test_generations),
        cmocka_unit_test(test_owner_pid),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
