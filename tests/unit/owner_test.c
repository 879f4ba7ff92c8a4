/* owner_test.c - the form of drawn owners, and telling them from others. */
#include "../support/failing_alloc.h"
#include "core/core.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define HEX "0123456789abcdef0123456789abcdef"

static void format(const verrou__owner_id *id, const char *label, char out[VERROU_MAX_OWNER + 1])
{
    size_t len = verrou__owner_format(id, label, out);

    assert_int_equal(len, strlen(out));
    assert_true(len <= VERROU_MAX_OWNER);
}

/* The bits are written as 32 lower-case digits, first byte first, then "@host:pid". */
static void test_form(void **state)
{
    verrou__owner_id id = {
        {0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef, 0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef}, 4711};
    char owner[VERROU_MAX_OWNER + 1];

    (void)state;
    format(&id, NULL, owner);
    assert_memory_equal(owner, HEX "@", 33);
    assert_string_equal(strchr(owner, ':'), ":4711");
    assert_true(verrou__owner_is_ours(owner, strlen(owner)));
}

/* A label follows the process id; an empty one is none. */
static void test_label(void **state)
{
    verrou__owner_id id = {{0}, 1};
    char owner[VERROU_MAX_OWNER + 1];

    (void)state;
    format(&id, "payer: 7", owner);
    assert_string_equal(strchr(owner, ':'), ":1:payer: 7");
    assert_true(verrou__owner_is_ours(owner, strlen(owner)));
    format(&id, "", owner);
    assert_string_equal(strchr(owner, ':'), ":1");
}

/* With everything at its longest the owner fits and passes the check that stores rely on. */
static void test_longest(void **state)
{
    verrou__owner_id id = {{0}, INT32_MAX};
    char label[VERROU__MAX_LABEL + 1];
    char owner[VERROU_MAX_OWNER + 1];

    (void)state;
    memset(label, 'x', sizeof(label) - 1);
    label[sizeof(label) - 1] = '\0';
    format(&id, label, owner);
    assert_string_equal(strrchr(owner, ':') + 1, label);
    assert_int_equal(verrou__check_text("owner", owner, VERROU_MAX_OWNER, NULL), VERROU_OK);
    assert_true(verrou__owner_is_ours(owner, strlen(owner)));
}

/* The host part is this machine's name as far as that is printable ASCII without ':'. */
static void test_host(void **state)
{
    verrou__owner_id id = {{0}, 1};
    char owner[VERROU_MAX_OWNER + 1];
    char name[65] = "";

    (void)state;
    assert_int_equal(gethostname(name, sizeof(name) - 1), 0);
    for (char *at = name; *at != '\0'; at++)
        if (*at <= ' ' || *at > '~' || *at == ':')
            *at = '-';
    format(&id, NULL, owner);
    *strchr(owner, ':') = '\0';
    assert_string_equal(owner + 33, name);
}

/* Two draws differ, and carry this process. */
static void test_draw(void **state)
{
    verrou__owner_id a, b;

    (void)state;
    assert_int_equal(verrou__owner_draw(&a, NULL), VERROU_OK);
    assert_int_equal(verrou__owner_draw(&b, NULL), VERROU_OK);
    assert_memory_not_equal(a.bits, b.bits, sizeof(a.bits));
    assert_int_equal(a.pid, getpid());
}

/* Owners of the original and near misses are not taken for ours. */
static void test_not_ours(void **state)
{
    static const char *const owners[] = {
        "",
        "V1StGXR8_Z5jdHi6B-myT",
        HEX,
        HEX "@",
        HEX "@host",
        HEX "@host:",
        HEX "@:1",
        HEX "@host:x",
        HEX "@host:1x",
        HEX "@host:1:",
        HEX "@ho st:1",
        HEX "@h\xc3\xb6st:1",
        HEX "0@host:1",
        HEX ":host:1",
        "0123456789ABCDEF0123456789abcdef@host:1",
        "0123456789abcdef0123456789abcde@host:11",
        HEX "@host:12345678901",
    };

    (void)state;
    for (size_t i = 0; i < sizeof(owners) / sizeof(owners[0]); i++)
        if (verrou__owner_is_ours(owners[i], strlen(owners[i])))
            fail_msg("\"%s\" was taken for one of ours", owners[i]);
    assert_true(verrou__owner_is_ours(HEX "@h:1", strlen(HEX "@h:1")));
}

/* Only `len` bytes are looked at: owners in a store's answer have no NUL behind them. */
static void test_length_counts(void **state)
{
    static const char owner[] = HEX "@host:12:label";

    (void)state;
    assert_true(verrou__owner_is_ours(owner, 40));
    assert_false(verrou__owner_is_ours(owner, 38));
    assert_false(verrou__owner_is_ours(owner, 41));
    assert_true(verrou__owner_is_ours(owner, 42));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_form),          cmocka_unit_test(test_label), cmocka_unit_test(test_longest),
        cmocka_unit_test(test_host),          cmocka_unit_test(test_draw),  cmocka_unit_test(test_not_ours),
        cmocka_unit_test(test_length_counts),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
