/*
 * registry_test.c - in which library a scheme is looked for. The libraries are made for this test and lie beside it, in a folder of their
 * own, so that no other test finds them in place of the real ones.
 */
#include "core/registry.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const verrou_driver *find(const char *scheme)
{
    const verrou_driver *driver = NULL;
    verrou_error err = VERROU_ERROR_INIT;

    if (verrou__driver_find(scheme, &driver, &err) != VERROU_OK)
        fail_msg("%s: %s", scheme, err.message);
    return driver;
}

static void expect_none(const char *scheme, const char *because)
{
    const verrou_driver *driver = NULL;
    verrou_error err = VERROU_ERROR_INIT;

    assert_int_equal(verrou__driver_find(scheme, &driver, &err), VERROU_ECONFIG);
    assert_null(driver);
    if (strstr(err.message, because) == NULL)
        fail_msg("%s: \"%s\" does not say \"%s\"", scheme, err.message, because);
}

/* The first scheme to be used may be another name for what is in the library of the other. */
static void test_alias_first(void **state)
{
    (void)state;
    assert_string_equal(find("rediss")->schemes[0], "redis");
    assert_string_equal(find("postgresql")->schemes[0], "postgres");
    assert_string_equal(find("mariadb")->schemes[0], "mysql");
}

/* A '+' and what follows it name no library, behind another name neither. */
static void test_plus(void **state)
{
    const verrou_driver *redis = find("rediss+sentinel");

    (void)state;
    assert_ptr_equal(find("redis+cluster"), redis);
    assert_ptr_equal(find("redis"), redis);
    assert_ptr_equal(find("rediss"), redis);
}

/* The library is there, but does not serve this scheme. */
static void test_not_served(void **state)
{
    (void)state;
    expect_none("rediss+nothing", "no store for the scheme \"rediss+nothing\"");
}

/* Only whole schemes are other names: what begins like one is looked for in a library of its own. */
static void test_no_alias(void **state)
{
    (void)state;
    expect_none("redisss", "libverrou-redisss.so");
    expect_none("redi", "libverrou-redi.so");
    expect_none("maria", "libverrou-maria.so");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_alias_first),
        cmocka_unit_test(test_plus),
        cmocka_unit_test(test_not_served),
        cmocka_unit_test(test_no_alias),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
