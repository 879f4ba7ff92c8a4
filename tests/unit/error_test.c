/* error_test.c - statuses, error slots of other versions, messages, and the reading of option structs. */
#include "../support/failing_alloc.h"
#include "core/core.h"

#include <string.h>

/* Each status has the name of its constant, its text and its number. */
static void test_status_list(void **state)
{
    (void)state;
#define X(name, value, text)                                                 \
    assert_int_equal(VERROU_##name, value);                                  \
    assert_string_equal(verrou_status_name(VERROU_##name), "VERROU_" #name); \
    assert_string_equal(verrou_status_text(VERROU_##name), text);
    VERROU_STATUS_LIST(X)
#undef X
}

/* A number out of range has a name and a text too. */
static void test_undefined_status(void **state)
{
    (void)state;
    assert_string_equal(verrou_status_name((verrou_status)99), "VERROU_EUNDEFINED");
    assert_string_equal(verrou_status_text((verrou_status)-1), "undefined status");
}

/* The version that runs is the one that the tests were compiled against. */
static void test_version(void **state)
{
    (void)state;
    assert_string_equal(verrou_version(), VERROU_VERSION);
}

/* Everything that is passed arrives, and the status is handed back. */
static void test_error_set(void **state)
{
    verrou_error err = VERROU_ERROR_INIT;

    (void)state;
    assert_int_equal(verrou_error_set(&err, VERROU_ESTORAGE, 7, "SQLITE_BUSY", "%s is %d", "x", 5), VERROU_ESTORAGE);
    assert_int_equal(err.size, sizeof(err));
    assert_int_equal(err.status, VERROU_ESTORAGE);
    assert_int_equal(err.retriable, 1);
    assert_string_equal(err.store_code, "SQLITE_BUSY");
    assert_string_equal(err.message, "x is 5");
    assert_int_equal(verrou_error_set(&err, VERROU_EINVAL, 0, NULL, "y"), VERROU_EINVAL);
    assert_string_equal(err.store_code, "");
    assert_int_equal(err.retriable, 0);
    assert_int_equal(verrou_error_set(NULL, VERROU_ESTORAGE, 0, NULL, "z"), VERROU_ESTORAGE);
}

/* Without being told, what passes by itself is retriable and the rest is not. */
static void test_fail_retriable(void **state)
{
    verrou_error err = VERROU_ERROR_INIT;

    (void)state;
    assert_int_equal(verrou__fail(&err, VERROU_ENOTACQUIRED, "held"), VERROU_ENOTACQUIRED);
    assert_int_equal(err.retriable, 1);
    assert_int_equal(verrou__nomem(&err), VERROU_ENOMEM);
    assert_int_equal(err.retriable, 1);
    assert_string_equal(err.message, "out of memory");
    verrou__fail(&err, VERROU_ECONFIG, "bad");
    assert_int_equal(err.retriable, 0);
}

/* The old message may be an argument of the new one. */
static void test_own_message_as_argument(void **state)
{
    verrou_error err = VERROU_ERROR_INIT;

    (void)state;
    verrou__fail(&err, VERROU_EINVAL, "inner");
    verrou__fail(&err, VERROU_ECONFIG, "outer: %s", err.message);
    assert_string_equal(err.message, "outer: inner");
}

/* A slot that is larger (a newer program's) keeps its tail; one that was never initialised is not touched. */
static void test_slots_of_other_sizes(void **state)
{
    struct {
        verrou_error err;
        char tail[16];
    } newer = {VERROU_ERROR_INIT, "untouched"};
    verrou_error blank;
    verrou_error zero;

    (void)state;
    newer.err.size = sizeof(newer);
    verrou__fail(&newer.err, VERROU_EINVAL, "x");
    assert_string_equal(newer.err.message, "x");
    assert_int_equal(newer.err.size, sizeof(newer));
    assert_string_equal(newer.tail, "untouched");

    memset(&blank, 0, sizeof(blank));
    memset(&zero, 0, sizeof(zero));
    verrou__fail(&blank, VERROU_EINVAL, "x");
    verrou__error_prefix(&blank, "y");
    assert_memory_equal(&blank, &zero, sizeof(blank));
}

/* A copy keeps the size of its destination; NULL on either side does nothing. */
static void test_copy(void **state)
{
    verrou_error from = VERROU_ERROR_INIT;
    struct {
        verrou_error err;
        char tail[8];
    } to = {VERROU_ERROR_INIT, "tail"};

    (void)state;
    to.err.size = sizeof(to);
    verrou_error_set(&from, VERROU_ESTORAGE, 1, "42", "text");
    verrou__error_copy(&to.err, &from);
    assert_int_equal(to.err.size, sizeof(to));
    assert_int_equal(to.err.status, VERROU_ESTORAGE);
    assert_int_equal(to.err.retriable, 1);
    assert_string_equal(to.err.store_code, "42");
    assert_string_equal(to.err.message, "text");
    assert_string_equal(to.tail, "tail");
    verrou__error_copy(NULL, &from);
    verrou__error_copy(&to.err, NULL);
    assert_string_equal(to.err.message, "text");
}

/* Messages read from the outside in. */
static void test_prefix(void **state)
{
    verrou_error err = VERROU_ERROR_INIT;

    (void)state;
    verrou__fail(&err, VERROU_ESTORAGE, "connection reset");
    verrou__error_prefix(&err, "redis %s:%d", "h", 1);
    verrou__error_prefix(&err, "acquire \"%s\"", "k");
    assert_string_equal(err.message, "acquire \"k\": redis h:1: connection reset");
    assert_int_equal(err.status, VERROU_ESTORAGE);
    verrou__error_prefix(NULL, "x");
}

/* What is too long is cut, never in the middle of a character, by every way a message gets longer. */
static void test_cut_between_characters(void **state)
{
    static const char *const characters[] = {"\xc3\xa9", "\xe9\x94\x81", "\xf0\x9f\x94\x92"};
    char text[600];

    (void)state;
    for (size_t c = 0; c < 3; c++)
        for (size_t shift = 0; shift < 4; shift++) {
            verrou_error err = VERROU_ERROR_INIT;
            size_t len = strlen(characters[c]);
            size_t at = shift;

            memset(text, 'a', shift);
            for (; at + len < sizeof(text); at += len)
                memcpy(text + at, characters[c], len);
            text[at] = '\0';
            verrou__fail(&err, VERROU_EINVAL, "%s", text);
            assert_int_equal(verrou__check_text("message", err.message, 447, NULL), VERROU_OK);
            assert_true(strlen(err.message) > 447 - 4);
            verrou__error_prefix(&err, "p");
            assert_int_equal(verrou__check_text("message", err.message, 447, NULL), VERROU_OK);
            assert_true(strlen(err.message) > 447 - 4);
        }
}

/* A prefix that fills the message leaves no room, and nothing is written beyond it. */
static void test_long_prefix(void **state)
{
    char text[600];

    (void)state;
    memset(text, 'p', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    for (size_t len = 440; len < 455; len++) {
        verrou_error err = VERROU_ERROR_INIT;

        verrou__fail(&err, VERROU_EINVAL, "inner");
        verrou__error_prefix(&err, "%.*s", (int)len, text);
        assert_memory_equal(err.message, text, 440);
        assert_true(strlen(err.message) <= 447);
    }
}

/* A message is one line, whatever was quoted in it. */
static void test_one_line(void **state)
{
    verrou_error err = VERROU_ERROR_INIT;

    (void)state;
    verrou_error_set(&err, VERROU_EINVAL, 0, "a\nb", "key \"%s\"", "a\r\nINFO: b\x1b[2J\x7f");
    assert_string_equal(err.message, "key \"a??INFO: b?[2J?\"");
    assert_string_equal(err.store_code, "a?b");
}

typedef struct ours {
    size_t size;
    int64_t first;
    int64_t second;
} ours;

/* Defaults stay where the caller's struct, older than ours, has nothing to say. */
static void test_older_options(void **state)
{
    struct {
        size_t size;
        int64_t first;
    } older = {sizeof(older), 10};
    ours read = {sizeof(read), 1, 2};

    (void)state;
    verrou__options_read(&read, sizeof(read), &older);
    assert_int_equal(read.size, sizeof(read));
    assert_int_equal(read.first, 10);
    assert_int_equal(read.second, 2);
}

/* Of a newer struct what we know is read, and nothing beyond. */
static void test_newer_options(void **state)
{
    struct {
        ours known;
        int64_t third;
    } newer = {{sizeof(newer), 10, 20}, 30};
    struct {
        ours read;
        int64_t guard;
    } to = {{sizeof(ours), 1, 2}, 77};

    (void)state;
    verrou__options_read(&to.read, sizeof(to.read), &newer);
    assert_int_equal(to.read.size, sizeof(ours));
    assert_int_equal(to.read.first, 10);
    assert_int_equal(to.read.second, 20);
    assert_int_equal(to.guard, 77);
}

/* NULL and a struct without size mean all defaults. */
static void test_no_options(void **state)
{
    ours read = {sizeof(read), 1, 2};
    ours unset = {0, 10, 20};

    (void)state;
    verrou__options_read(&read, sizeof(read), NULL);
    verrou__options_read(&read, sizeof(read), &unset);
    assert_int_equal(read.first, 1);
    assert_int_equal(read.second, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_status_list),
        cmocka_unit_test(test_undefined_status),
        cmocka_unit_test(test_version),
        cmocka_unit_test(test_error_set),
        cmocka_unit_test(test_fail_retriable),
        cmocka_unit_test(test_own_message_as_argument),
        cmocka_unit_test(test_slots_of_other_sizes),
        cmocka_unit_test(test_copy),
        cmocka_unit_test(test_prefix),
        cmocka_unit_test(test_cut_between_characters),
        cmocka_unit_test(test_long_prefix),
        cmocka_unit_test(test_one_line),
        cmocka_unit_test(test_older_options),
        cmocka_unit_test(test_newer_options),
        cmocka_unit_test(test_no_options),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
