/*
 * sink_test.c - what becomes of the locks that a driver reports while it lists.
 */
#include "core/sink.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static void add(struct verrou_sink *sink, const char *key)
{
    assert_int_equal(verrou__sink_list_add(sink, key, strlen(key), "owner", 5, 1000, 0), 0);
}

/* A server may tell a key twice while its table grows: each lock is listed once, in order, whatever the order it was told in. */
static void repeated_locks_are_listed_once(void **state)
{
    static const char *const told[] = {"b", "a", "c", "a", "b", "a"};
    static const char *const expected[] = {"a", "b", "c"};
    struct verrou_sink *sink = verrou__sink_new(0);
    const verrou_listed *locks;
    size_t count;

    (void)state;
    assert_non_null(sink);
    for (size_t i = 0; i < sizeof(told) / sizeof(told[0]); i++)
        add(sink, told[i]);
    locks = verrou__sink_locks(sink, &count);
    assert_int_equal(count, 3);
    for (size_t i = 0; i < count; i++)
        assert_string_equal(locks[i].key, expected[i]);
    verrou__sink_free(sink);
}

/* Nothing told is nothing listed. */
static void empty_sink_lists_nothing(void **state)
{
    struct verrou_sink *sink = verrou__sink_new(0);
    size_t count = 17;

    (void)state;
    assert_non_null(sink);
    verrou__sink_locks(sink, &count);
    assert_int_equal(count, 0);
    verrou__sink_free(sink);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(repeated_locks_are_listed_once),
        cmocka_unit_test(empty_sink_lists_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
