/* serial_test.c - the serialised lock: what the original writes is read, what we write is what it reads, and the rest
 * is refused. */
#include "../support/failing_alloc.h"
#include "core/core.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

#define HEAD "{\"key\":\"k\",\"owner\":\"o-secret\","
#define TIMES "\"ttl\":1000,\"expirationTime\":1700000000000"

static verrou__serial parse(const char *json)
{
    verrou_error err = VERROU_ERROR_INIT;
    verrou__serial serial;

    if (verrou__serial_parse(json, &serial, &err) != VERROU_OK)
        fail_msg("%s: %s", json, err.message);
    return serial;
}

static void refuse(const char *json, const char *because)
{
    verrou_error err = VERROU_ERROR_INIT;
    verrou__serial serial = {NULL, NULL, NULL, -5, -5, 5};

    if (verrou__serial_parse(json, &serial, &err) != VERROU_EINVAL)
        fail_msg("%s: accepted", json != NULL ? json : "(null)");
    assert_null(serial.key);
    assert_int_equal(serial.ttl_ms, -5);
    if (strstr(err.message, because) == NULL)
        fail_msg("%s: \"%s\" does not say \"%s\"", json, err.message, because);
    if (strstr(err.message, "secret") != NULL)
        fail_msg("%s: the message shows the owner: %s", json, err.message);
}

/* The four members of the original. */
static void test_original(void **state)
{
    verrou__serial serial =
        parse("{\"key\":\"account:42\",\"owner\":\"V1St\",\"ttl\":10000,\"expirationTime\":1700000010000}");

    (void)state;
    assert_string_equal(serial.key, "account:42");
    assert_string_equal(serial.owner, "V1St");
    assert_null(serial.store);
    assert_int_equal(serial.ttl_ms, 10000);
    assert_int_equal(serial.expiration_ms, INT64_C(1700000010000));
    assert_int_equal(serial.fence, 0);
    verrou__serial_done(&serial);
}

/* null is "never". */
static void test_never(void **state)
{
    verrou__serial serial = parse(HEAD "\"ttl\":null,\"expirationTime\":null}");

    (void)state;
    assert_int_equal(serial.ttl_ms, VERROU_FOREVER);
    assert_int_equal(serial.expiration_ms, VERROU_FOREVER);
    verrou__serial_done(&serial);
}

/* Members in any order, with blanks, escapes and unknown ones between them. */
static void test_tolerance(void **state)
{
    verrou__serial serial =
        parse(" { \"version\" : [1,{\"key\":2}], \"fence\":9007199254740991,\n\"store\":\"main\",\"owner\":"
              "\"o\",\"expirationTime\":3e3,\"ttl\":1000.0,\"key\":\"cl\\u00e9\" } \n");

    (void)state;
    assert_string_equal(serial.key, "cl\xc3\xa9");
    assert_string_equal(serial.store, "main");
    assert_int_equal(serial.ttl_ms, 1000);
    assert_int_equal(serial.expiration_ms, 3000);
    assert_int_equal(serial.fence, UINT64_C(9007199254740991));
    verrou__serial_done(&serial);
}

/* A fencing token beyond 2^53 comes as decimal text. */
static void test_large_fence(void **state)
{
    verrou__serial serial = parse(HEAD TIMES ",\"fence\":\"18446744073709551615\"}");

    (void)state;
    assert_true(serial.fence == UINT64_MAX);
    verrou__serial_done(&serial);
}

/* Every member that must be there is named when it is not. */
static void test_missing_members(void **state)
{
    (void)state;
    refuse("{}", "\"key\" is missing");
    refuse("{\"owner\":\"o\"," TIMES "}", "\"key\" is missing");
    refuse("{\"key\":\"k\"," TIMES "}", "\"owner\" is missing");
    refuse(HEAD "\"expirationTime\":null}", "\"ttl\" is missing");
    refuse(HEAD "\"ttl\":null}", "\"expirationTime\" is missing");
}

/* Wrong types are refused by name. */
static void test_wrong_types(void **state)
{
    (void)state;
    refuse("{\"key\":1,\"owner\":\"o\"," TIMES "}", "\"key\" is not a string");
    refuse("{\"key\":\"k\",\"owner\":null," TIMES "}", "\"owner\" is not a string");
    refuse(HEAD "\"ttl\":\"1000\",\"expirationTime\":null}", "\"ttl\" is neither");
    refuse(HEAD "\"ttl\":true,\"expirationTime\":null}", "\"ttl\" is neither");
    refuse(HEAD "\"ttl\":1.5,\"expirationTime\":null}", "\"ttl\" is neither");
    refuse(HEAD "\"ttl\":1e300,\"expirationTime\":null}", "\"ttl\" is neither");
    refuse(HEAD "\"ttl\":1,\"expirationTime\":{}}", "\"expirationTime\" is neither");
    refuse(HEAD TIMES ",\"store\":1}", "\"store\" is not a string");
    refuse(HEAD TIMES ",\"fence\":true}", "\"fence\" is not a whole number");
}

/* The original's lock with a TTL of 0 never expires. */
static void test_zero_of_the_original(void **state)
{
    verrou__serial serial = parse(HEAD "\"ttl\":0,\"expirationTime\":null}");

    (void)state;
    assert_int_equal(serial.ttl_ms, VERROU_FOREVER);
    assert_int_equal(serial.expiration_ms, VERROU_FOREVER);
    verrou__serial_done(&serial);
}

/* Ranges: a lease of 1 ms to the longest, a time and a token that are exact in JavaScript. */
static void test_ranges(void **state)
{
    verrou__serial serial = parse(HEAD "\"ttl\":4503599627370496,\"expirationTime\":9007199254740991}");

    (void)state;
    assert_int_equal(serial.ttl_ms, VERROU_MAX_MS);
    verrou__serial_done(&serial);
    refuse(HEAD "\"ttl\":0,\"expirationTime\":1}", "\"ttl\" is not between");
    refuse(HEAD "\"ttl\":-1,\"expirationTime\":null}", "\"ttl\" is not between");
    refuse(HEAD "\"ttl\":4503599627370497,\"expirationTime\":null}", "\"ttl\" is not between");
    refuse(HEAD "\"ttl\":9223372036854775807,\"expirationTime\":null}", "\"ttl\" is not between");
    refuse(HEAD "\"ttl\":1,\"expirationTime\":9007199254740992}", "\"expirationTime\" is not between");
    refuse(HEAD "\"ttl\":1,\"expirationTime\":-1}", "\"expirationTime\" is not between");
    refuse(HEAD "\"ttl\":1e400,\"expirationTime\":null}", "too large");
    refuse(HEAD "\"ttl\":99999999999999999999,\"expirationTime\":null}", "too large");
    refuse(HEAD TIMES ",\"fence\":9007199254740992}", "\"fence\"");
    refuse(HEAD TIMES ",\"fence\":-1}", "\"fence\"");
    refuse(HEAD TIMES ",\"fence\":0.5}", "\"fence\"");
    refuse(HEAD TIMES ",\"fence\":\"18446744073709551616\"}", "\"fence\"");
    refuse(HEAD TIMES ",\"fence\":\"\"}", "\"fence\"");
    refuse(HEAD TIMES ",\"fence\":\"+1\"}", "\"fence\"");
    refuse(HEAD TIMES ",\"fence\":\"1 \"}", "\"fence\"");
}

/* Texts keep to the limits of keys, owners and names; NUL and broken UTF-8 do not get in. */
static void test_texts(void **state)
{
    char json[1000];
    char long_text[300];

    (void)state;
    memset(long_text, 'x', 256);
    long_text[256] = '\0';
    snprintf(json, sizeof(json), "{\"key\":\"%s\",\"owner\":\"o\"," TIMES "}", long_text);
    refuse(json, "\"key\": longer than 255");
    snprintf(json, sizeof(json), "{\"key\":\"k\",\"owner\":\"%s\"," TIMES "}", long_text);
    refuse(json, "\"owner\": longer than 255");
    snprintf(json, sizeof(json), HEAD TIMES ",\"store\":\"%.65s\"}", long_text);
    refuse(json, "\"store\": longer than 64");
    refuse("{\"key\":\"\",\"owner\":\"o\"," TIMES "}", "\"key\": empty");
    refuse("{\"key\":\"k\",\"owner\":\"\"," TIMES "}", "\"owner\": empty");
    refuse("{\"key\":\"a\\u0000b\",\"owner\":\"o\"," TIMES "}", "not valid JSON");
    refuse("{\"key\":\"a\\ud800b\",\"owner\":\"o\"," TIMES "}", "not valid JSON");
    refuse("{\"key\":\"a\xff\",\"owner\":\"o\"," TIMES "}", "not valid JSON");
}

/* A member given twice is named: which of both would count? */
static void test_duplicates(void **state)
{
    (void)state;
    refuse(HEAD TIMES ",\"owner\":\"secret\"}", "\"owner\" is given twice");
    refuse(HEAD TIMES ",\"expirationTime\":1}", "\"expirationTime\" is given twice");
    refuse(HEAD TIMES ",\"x\":1,\"x\":2}", "given twice");
}

/* What is no JSON object is refused with the place, not with its text. */
static void test_malformed(void **state)
{
    (void)state;
    refuse(NULL, "missing");
    refuse("", "not valid JSON");
    refuse("[]", "not a JSON object");
    refuse("\"secret\"", "not valid JSON");
    refuse("null", "not valid JSON");
    refuse("{\"owner\":secret}", "not valid JSON");
    refuse("{\"owner\" \"secret\"}", "not valid JSON");
    refuse("{\"owner\":\"secret\" \"secret\"}", "not valid JSON");
    refuse("{\"owner\":\"secret", "not valid JSON");
    refuse("{\"owner\":\"\\", "not valid JSON");
    refuse("{'owner':1}", "not valid JSON");
    refuse(HEAD TIMES ",}", "not valid JSON");
    refuse(HEAD TIMES, "not valid JSON");
    refuse(HEAD TIMES "} secret", "something follows");
    refuse(HEAD TIMES "}{}", "something follows");
}

static void expect_json(verrou__serial serial, const char *json)
{
    char *got = NULL;

    assert_int_equal(verrou__serial_format(&serial, &got, NULL), VERROU_OK);
    assert_string_equal(got, json);
    verrou__free(got);
}

/* The order is that of the original, the additions come last and only where there is something to say. */
static void test_format(void **state)
{
    char key[] = "cl\xc3\xa9/\"1\"\n";
    char owner[] = "o";
    char store[] = "main";

    (void)state;
    expect_json((verrou__serial){key, owner, NULL, 30000, INT64_C(1700000030000), 0},
                "{\"key\":\"cl\xc3\xa9/\\\"1\\\"\\n\",\"owner\":\"o\",\"ttl\":30000,\"expirationTime\":1700000030000}");
    expect_json((verrou__serial){owner, owner, store, VERROU_FOREVER, VERROU_FOREVER, 7},
                "{\"key\":\"o\",\"owner\":\"o\",\"ttl\":null,\"expirationTime\":null,\"store\":\"main\",\"fence\":7}");
    expect_json((verrou__serial){owner, owner, NULL, 1, 0, UINT64_C(9007199254740991)},
                "{\"key\":\"o\",\"owner\":\"o\",\"ttl\":1,\"expirationTime\":0,\"fence\":9007199254740991}");
    expect_json((verrou__serial){owner, owner, NULL, 1, 0, UINT64_C(9007199254740992)},
                "{\"key\":\"o\",\"owner\":\"o\",\"ttl\":1,\"expirationTime\":0,\"fence\":\"9007199254740992\"}");
}

static verrou_status round_trip(void *user, verrou_error *err)
{
    verrou__serial serial;
    char *json = NULL;
    verrou_status status = verrou__serial_parse(user, &serial, err);

    if (status != VERROU_OK)
        return status;
    status = verrou__serial_format(&serial, &json, err);
    if (status == VERROU_OK)
        assert_string_equal(json, user);
    verrou__serial_done(&serial);
    verrou__free(json);
    return status;
}

/*
 * jansson 2.14 ignores that the buffer of a token cannot grow, and then reads past its end. That buffer grows in powers
 * of two from 32 on: these sizes are spared.
 */
static void *jansson_malloc(size_t size)
{
    if (size < 32 || (size & (size - 1)) != 0)
        return failing_malloc(size);
    failing_alloc.live++;
    return malloc(size);
}

/* Reading and writing again give the same text; every failed allocation, jansson's included, is "out of memory" and
 * leaks nothing. */
static void test_out_of_memory(void **state)
{
    char json[] = HEAD TIMES ",\"store\":\"main\",\"fence\":\"18446744073709551615\"}";
    long ours = failing_alloc_each(round_trip, json);

    (void)state;
    assert_int_equal(ours, 4);
    json_set_alloc_funcs(jansson_malloc, failing_free);
    assert_true(failing_alloc_each(round_trip, json) > ours);
    json_set_alloc_funcs(malloc, free);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_original),
        cmocka_unit_test(test_never),
        cmocka_unit_test(test_tolerance),
        cmocka_unit_test(test_large_fence),
        cmocka_unit_test(test_missing_members),
        cmocka_unit_test(test_wrong_types),
        cmocka_unit_test(test_zero_of_the_original),
        cmocka_unit_test(test_ranges),
        cmocka_unit_test(test_texts),
        cmocka_unit_test(test_duplicates),
        cmocka_unit_test(test_malformed),
        cmocka_unit_test(test_format),
        cmocka_unit_test(test_out_of_memory),
    };

    failing_alloc_install();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
