/* url_test.c - store addresses: how they are taken apart, what is refused, and that no password gets out. */
#include "../support/failing_alloc.h"
#include "core/core.h"

#include <string.h>

static verrou_url *parse(const char *text)
{
    verrou_error err = VERROU_ERROR_INIT;
    verrou_url *url = NULL;

    if (verrou__url_parse(text, &url, &err) != VERROU_OK)
        fail_msg("\"%s\": %s", text, err.message);
    assert_string_equal(url->text, text);
    return url;
}

static void expect_rest(const char *text, const char *scheme, const char *rest)
{
    verrou_url *url = parse(text);

    assert_string_equal(url->scheme, scheme);
    assert_string_equal(url->rest, rest);
    verrou__free(url);
}

static void refuse(const char *text, const char *because)
{
    verrou_error err = VERROU_ERROR_INIT;
    verrou_url *url = NULL;

    if (verrou__url_parse(text, &url, &err) != VERROU_ECONFIG)
        fail_msg("\"%s\" was accepted", text);
    assert_null(url);
    if (strstr(err.message, because) == NULL)
        fail_msg("\"%s\": \"%s\" does not say \"%s\"", text, err.message, because);
    if (strstr(err.message, "hunter2") != NULL)
        fail_msg("\"%s\": the message shows the password: %s", text, err.message);
}

/* Scheme and rest; the text is kept as it was given. */
static void test_parts(void **state)
{
    (void)state;
    expect_rest("memory:", "memory", "");
    expect_rest("memory:?", "memory", "");
    expect_rest("sqlite:/var/lib/a file.db", "sqlite", "/var/lib/a file.db");
    expect_rest("redis+cluster://u:p@h:6379,h2/0", "redis+cluster", "//u:p@h:6379,h2/0");
    expect_rest("odbc:Driver={SQLite3};Database=x", "odbc", "Driver={SQLite3};Database=x");
    expect_rest("x-9:y", "x-9", "y");
    expect_rest("sqlite:C:\\x", "sqlite", "C:\\x");
}

/* %XX is decoded in the rest and in values; '+' is no space. */
static void test_escapes(void **state)
{
    verrou_url *url = parse("sqlite:/a%20b+c%3Fd%25?prefix=x%26y%3dz+%C3%A9&empty=");

    (void)state;
    assert_string_equal(url->rest, "/a b+c?d%");
    assert_int_equal(url->count, 2);
    assert_string_equal(verrou__url_setting(url, "prefix"), "x&y=z+\xc3\xa9");
    assert_string_equal(verrou__url_setting(url, "empty"), "");
    assert_null(verrou__url_setting(url, "other"));
    verrou__free(url);
}

/* Only the first '?' and the first '=' of a setting count. */
static void test_separators_in_values(void **state)
{
    verrou_url *url = parse("postgres://h/db?options=-c a=b?c&endpoint=http://x:1/?y");

    (void)state;
    assert_int_equal(url->count, 2);
    assert_string_equal(verrou__url_setting(url, "options"), "-c a=b?c");
    assert_string_equal(verrou__url_setting(url, "endpoint"), "http://x:1/?y");
    verrou__free(url);
}

/* The scheme is [a-z][a-z0-9+-]* of at most 32 bytes. A text without one may be a password, so it is not quoted. */
static void test_schemes(void **state)
{
    (void)state;
    refuse(NULL, "missing");
    refuse("", "empty");
    refuse("hunter2", "scheme");
    refuse("Redis://u:hunter2@h", "scheme");
    refuse("1redis:", "scheme");
    refuse("+x:", "scheme");
    refuse(":x", "scheme");
    refuse("re/dis:x", "scheme");
    refuse("../../evil:x", "scheme");
    refuse("r\xc3\xa9"
           "dis:",
           "scheme");
    refuse("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa:", "longer than 32");
    expect_rest("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa:", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "");
}

/* Escapes that are none, and the one for NUL, are refused. */
static void test_bad_escapes(void **state)
{
    (void)state;
    refuse("sqlite:50%", "%25");
    refuse("sqlite:50%4", "%25");
    refuse("sqlite:50%zz", "%25");
    refuse("sqlite:a%00b", "%00");
    refuse("redis://u:hunter2%@h", "redis");
    refuse("redis://h?prefix=%0", "\"prefix\"");
    refuse("redis://h?password=hunter2%00", "\"password\"");
}

/* Settings are NAME=VALUE; the message never quotes what may be the tail of a password. */
static void test_bad_settings(void **state)
{
    (void)state;
    refuse("memory:?prefix", "NAME=VALUE");
    refuse("memory:?=x", "without a name");
    refuse("memory:?a=1&", "ends with");
    refuse("memory:?a=1&&b=2", "NAME=VALUE");
    refuse("memory:?pr%65fix=1", "NAME=VALUE");
    refuse("memory:?a b=1", "NAME=VALUE");
    refuse("redis://u:pass?hunter2@h", "'?' in the password");
    refuse("redis://u:pass?hunter2=1@h", "'?' in the password");
    refuse("memory:?aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa=1", "longer than 64");
}

/* A '@' in a value is no reason to see a password in "host:port,host:port". */
static void test_at_sign_in_value(void **state)
{
    (void)state;
    verrou__free(parse("redis://h:6379?prefix=a@b"));
    verrou__free(parse("redis+sentinel://a:1,b:2,c/main?prefix=a@b"));
    verrou__free(parse("redis://[::1]:6379?prefix=a@b"));
}

static verrou_status check(const char *text, verrou_error *err)
{
    static const char *const common[] = {"prefix", "timeout", NULL};
    static const char *const own[] = {"table", NULL};
    verrou_url *url = parse(text);
    verrou_status status = verrou__url_check_settings(url, common, own, err);

    verrou__free(url);
    return status;
}

/* Settings of either list pass; unknown and repeated ones are named. */
static void test_check_settings(void **state)
{
    verrou_error err = VERROU_ERROR_INIT;

    (void)state;
    assert_int_equal(check("sqlite:x?prefix=a&table=b&timeout=1s", &err), VERROU_OK);
    assert_int_equal(check("sqlite:x?tabel=b", &err), VERROU_ECONFIG);
    assert_non_null(strstr(err.message, "unknown setting \"tabel\""));
    assert_int_equal(check("sqlite:x?Table=b", &err), VERROU_ECONFIG);
    assert_int_equal(check("sqlite:x?table=b&prefix=c&table=b", &err), VERROU_ECONFIG);
    assert_non_null(strstr(err.message, "\"table\" is given twice"));
}

static void expect_redacted(const char *text, const char *redacted)
{
    char *got = NULL;

    assert_int_equal(verrou__url_redact(text, &got, NULL), VERROU_OK);
    assert_string_equal(got, redacted);
    verrou__free(got);
}

/* What has no password stays as it is. */
static void test_redact_nothing(void **state)
{
    static const char *const texts[] = {
        "",
        "memory:",
        "sqlite:/a/b@c:d?table=x",
        "redis://host:6379/0?prefix=a:b@c",
        "redis://user@host",
        "redis+unix:///run/x:y@z.sock",
        "mysql://h/db?ca=/etc/ca.pem&key=/etc/key.pem",
        "odbc:DSN=x;UID=me",
        "no scheme",
        "redis+sentinel://a:1,b:2/main?prefix=x@y",
        "redis://[::1]:6379?prefix=a@b",
    };

    (void)state;
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
        expect_redacted(texts[i], texts[i]);
}

/* user:password@, with the characters in it that people forget to escape. */
static void test_redact_userinfo(void **state)
{
    (void)state;
    expect_redacted("redis://u:hunter2@h:1/0?prefix=a", "redis://u:***@h:1/0?prefix=a");
    expect_redacted("redis://:hunter2@h", "redis://:***@h");
    expect_redacted("redis://u:@h", "redis://u:***@h");
    expect_redacted("redis://u:hun:ter2@h", "redis://u:***@h");
    expect_redacted("redis://u:hun@ter2@h", "redis://u:***@h");
    expect_redacted("redis://u:hun/ter2@h/0", "redis://u:***@h/0");
    expect_redacted("redis://u:hun#ter2@h/0", "redis://u:***@h/0");
    expect_redacted("redis://u:hun?ter2@h/0", "redis://u:***@h/0");
    expect_redacted("redis://u:hun?ter2=@h/0?prefix=b", "redis://u:***@h/0?prefix=b");
    expect_redacted("NOT A SCHEME://u:hunter2@h", "NOT A SCHEME://u:***@h");
}

/* Settings whose name speaks of a secret, in any case. */
static void test_redact_settings(void **state)
{
    (void)state;
    expect_redacted("postgres://h/d?password=hunter2&table=t", "postgres://h/d?password=***&table=t");
    expect_redacted("postgres://h/d?sslpassword=a=b;c?d", "postgres://h/d?sslpassword=***");
    expect_redacted("dynamodb://t?secret_access_key=x&session-token=y&region=z",
                    "dynamodb://t?secret_access_key=***&session-token=***&region=z");
    expect_redacted("mysql://u:p@h/d?PassWord=x&PWD=y", "mysql://u:***@h/d?PassWord=***&PWD=***");
    expect_redacted("x:?password=", "x:?password=");
    expect_redacted("x:?password=&secret=a", "x:?password=&secret=***");
}

/* Connection strings: up to the ';', in braces up to their end. */
static void test_redact_odbc(void **state)
{
    (void)state;
    expect_redacted("odbc:DSN=x;PWD=hunter2;UID=me", "odbc:DSN=x;PWD=***;UID=me");
    expect_redacted("odbc:DSN=x; Pwd = hunter2", "odbc:DSN=x; Pwd = ***");
    expect_redacted("odbc:pwd={hun;ter2}};x};UID=me?table=t", "odbc:pwd=***;UID=me?table=t");
    expect_redacted("odbc:pwd={hunter2", "odbc:pwd=***");
    expect_redacted("odbc:pwd={hun}ter2;UID=me", "odbc:pwd=***;UID=me");
    expect_redacted("odbc:pwd={a?b=hunter2};UID=me", "odbc:pwd=***;UID=me");
    expect_redacted("odbc:PWD=hunter2?table=t", "odbc:PWD=***?table=t");
    expect_redacted("odbc:PWD=hun?ter2;UID=me", "odbc:PWD=***;UID=me");
    expect_redacted("odbc:PWD=a&b;UID=me", "odbc:PWD=***;UID=me");
    expect_redacted("odbc:PWD=%7Ba%3Bb%7D;Password=c", "odbc:PWD=***;Password=***");
}

static verrou_status parse_case(void *user, verrou_error *err)
{
    verrou_url *url = NULL;
    verrou_status status = verrou__url_parse("redis://u:p@h?a=1&b=2", &url, err);

    (void)user;
    verrou__free(url);
    return status;
}

static verrou_status redact_case(void *user, verrou_error *err)
{
    char *text = NULL;
    verrou_status status = verrou__url_redact("redis://u:p@h?a=1&b=2", &text, err);

    (void)user;
    verrou__free(text);
    return status;
}

/* A parsed address is one block, and a redacted one is another; refusing an address leaves nothing behind. */
static void test_out_of_memory(void **state)
{
    long live = failing_alloc.live;

    (void)state;
    assert_int_equal(failing_alloc_each(parse_case, NULL), 1);
    assert_int_equal(failing_alloc_each(redact_case, NULL), 1);
    refuse("redis://h?a=1&b", "NAME=VALUE");
    refuse("redis://h%", "%25");
    assert_int_equal(failing_alloc.live, live);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parts),
        cmocka_unit_test(test_escapes),
        cmocka_unit_test(test_separators_in_values),
        cmocka_unit_test(test_schemes),
        cmocka_unit_test(test_bad_escapes),
        cmocka_unit_test(test_bad_settings),
        cmocka_unit_test(test_at_sign_in_value),
        cmocka_unit_test(test_check_settings),
        cmocka_unit_test(test_redact_nothing),
        cmocka_unit_test(test_redact_userinfo),
        cmocka_unit_test(test_redact_settings),
        cmocka_unit_test(test_redact_odbc),
        cmocka_unit_test(test_out_of_memory),
    };

    failing_alloc_install();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
