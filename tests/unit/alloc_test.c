/* alloc_test.c - the allocator of the application, and what the helpers over it answer when it has nothing to give. */
#include "../support/failing_alloc.h"
#include "core/core.h"

#include <string.h>

static verrou_status use_all(void *user, verrou_error *err)
{
    char *copy = verrou__strdup("text");
    char *made = copy == NULL ? NULL : verrou__format("%d and %s", 12, "more");
    char *grown = made == NULL ? NULL : verrou__realloc(made, 100);
    char *zeros = grown == NULL ? NULL : verrou__calloc(16);
    verrou_status status = zeros == NULL ? verrou__nomem(err) : VERROU_OK;

    (void)user;
    if (zeros != NULL) {
        assert_string_equal(copy, "text");
        assert_string_equal(grown, "12 and more");
        for (int i = 0; i < 16; i++)
            assert_int_equal(zeros[i], 0);
    }
    verrou__free(copy);
    verrou__free(grown != NULL ? grown : made);
    verrou__free(zeros);
    return status;
}

/* Every helper goes through the application's functions, and answers NULL when they do. */
static void test_every_allocation(void **state)
{
    (void)state;
    assert_int_equal(failing_alloc_each(use_all, NULL), 4);
}

/* A missing function is refused, and what was set before stays. */
static void test_missing_function(void **state)
{
    long live = failing_alloc.live;
    char *text;

    (void)state;
    assert_int_equal(verrou_set_allocator(NULL, realloc, free), VERROU_EINVAL);
    assert_int_equal(verrou_set_allocator(malloc, NULL, free), VERROU_EINVAL);
    assert_int_equal(verrou_set_allocator(malloc, realloc, NULL), VERROU_EINVAL);
    text = verrou__strdup("x");
    assert_int_equal(failing_alloc.live, live + 1);
    verrou_free(text);
    assert_int_equal(failing_alloc.live, live);
}

/* Nothing is a block too: asking for 0 bytes is not "out of memory". */
static void test_zero_bytes(void **state)
{
    void *block = verrou__malloc(0);

    (void)state;
    assert_non_null(block);
    block = verrou__realloc(block, 0);
    assert_non_null(block);
    verrou__free(block);
}

/* Freeing NULL does nothing, and does not reach the application's function. */
static void test_free_null(void **state)
{
    (void)state;
    verrou_free(NULL);
    verrou__free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_allocation),
        cmocka_unit_test(test_missing_function),
        cmocka_unit_test(test_zero_bytes),
        cmocka_unit_test(test_free_null),
    };

    failing_alloc_install();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
