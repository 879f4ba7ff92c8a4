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

static void refuse_by(verrou_status (*parser)(const char *, verrou_url **, verrou_error *), const char *text,
                      const char *because)
{
    verrou_error err = VERROU_ERROR_INIT;
    verrou_url *url = NULL;

    if (parser(text, &url, &err) != VERROU_ECONFIG)
        fail_msg("\"%s\" was accepted", text);
    assert_null(url);
    if (strstr(err.message, because) == NULL)
        fail_msg("\"%s\": \"%s\" does not say \"%s\"", text, err.message, because);
    if (strstr(err.message, "hunter2") != NULL)
        fail_msg("\"%s\": the message shows the password: %s", text, err.message);
}

static void refuse(const char *text, const char *because)
{
    refuse_by(verrou__url_parse, text, because);
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

/* ---- addresses of networks ---- */

static verrou_url *parse_network(const char *text)
{
    verrou_error err = VERROU_ERROR_INIT;
    verrou_url *url = NULL;

    if (verrou__url_parse_network(text, &url, &err) != VERROU_OK)
        fail_msg("\"%s\": %s", text, err.message);
    assert_string_equal(url->text, text);
    return url;
}

static void expect_text(const char *address, const char *got, const char *expected)
{
    if ((got == NULL) != (expected == NULL) || (got != NULL && strcmp(got, expected) != 0))
        fail_msg("\"%s\": %s instead of %s", address, got ? got : "NULL", expected ? expected : "NULL");
}

static void expect_user(const char *text, const char *user, const char *password, const char *path)
{
    verrou_url *url = parse_network(text);

    expect_text(text, url->user, user);
    expect_text(text, url->password, password);
    expect_text(text, url->path, path);
    verrou__free(url);
}

static void expect_endpoints(const char *text, const verrou_endpoint *expected, size_t count)
{
    verrou_url *url = parse_network(text);

    assert_int_equal(url->endpoint_count, count);
    for (size_t i = 0; i < count; i++) {
        assert_string_equal(url->endpoints[i].host, expected[i].host);
        assert_int_equal(url->endpoints[i].port, expected[i].port);
    }
    verrou__free(url);
}

static void refuse_network(const char *text, const char *because)
{
    refuse_by(verrou__url_parse_network, text, because);
}

/* User, password and path: NULL where they are not given, "" where they are given empty. */
static void test_user_and_path(void **state)
{
    (void)state;
    expect_user("redis://h", NULL, NULL, NULL);
    expect_user("redis://h/", NULL, NULL, "/");
    expect_user("redis://h:1/0", NULL, NULL, "/0");
    expect_user("redis://u@h/0/1", "u", NULL, "/0/1");
    expect_user("redis://u:p@h", "u", "p", NULL);
    expect_user("redis://u:@h", "u", "", NULL);
    expect_user("redis://:p@h?prefix=x/y@z:1", "", "p", NULL);
    expect_user("redis://@h", "", NULL, NULL);
    expect_user("redis+unix:///run/a:b@c.sock", NULL, NULL, "/run/a:b@c.sock");
    expect_user("redis+unix://:p@/run/r.sock", "", "p", "/run/r.sock");
    expect_user("redis://", NULL, NULL, NULL);
}

/* Each piece is decoded for itself: an escaped separator separates nothing. */
static void test_escaped_separators(void **state)
{
    static const verrou_endpoint hosts[] = {{"a,b:1", 0}, {"fe80::1%eth0", 6379}};

    (void)state;
    expect_user("redis://u%3Ax%40:p%2F%40%3a%2525@h/a%2Fb%3F", "u:x@", "p/@:%25", "/a/b?");
    expect_endpoints("redis://u%40x@a%2Cb%3A1,[fe80::1%25eth0]:63%37%39", hosts, 2);
}

/* The first ':' ends the user and the last '@' the password. */
static void test_separators_in_password(void **state)
{
    (void)state;
    expect_user("redis://u:a:b@h", "u", "a:b", NULL);
    expect_user("redis://u:a@b@h", "u", "a@b", NULL);
    expect_user("redis://u:a#b@h", "u", "a#b", NULL);
}

/* Hosts with and without ports, IPv6 without its brackets; none for a socket. */
static void test_endpoints(void **state)
{
    static const verrou_endpoint one[] = {{"h", 0}};
    static const verrou_endpoint list[] = {{"a", 1}, {"::1", 0}, {"10.0.0.1", 65535}, {"::", 26379}};

    (void)state;
    expect_endpoints("redis://h", one, 1);
    expect_endpoints("redis+sentinel://u:p@a:1,[::1],10.0.0.1:65535,[::]:026379/main?prefix=a,b", list, 4);
    expect_endpoints("redis+unix:///run/a,b:c.sock", NULL, 0);
    expect_endpoints("redis+unix://u:p@/run/redis.sock", NULL, 0);
}

/* As many hosts as there are. */
static void test_many_endpoints(void **state)
{
    char text[16 + 1000 * 4] = "redis://h";
    verrou_url *url;

    (void)state;
    for (int i = 1; i < 1000; i++)
        strcat(text, ",h:1");
    url = parse_network(text);
    assert_int_equal(url->endpoint_count, 1000);
    assert_string_equal(url->endpoints[999].host, "h");
    assert_int_equal(url->endpoints[999].port, 1);
    verrou__free(url);
}

/* What is wrong is named by its place: what stands there may be a password without its '@'. */
static void test_bad_network_addresses(void **state)
{
    (void)state;
    refuse_network("redis:", "\"//\" is missing");
    refuse_network("redis:/hunter2", "begins with \"redis://\"");
    refuse_network("redis:hunter2@h", "\"//\" is missing");
    refuse_network("redis://u:hunter2", "the port of host 1");
    refuse_network("redis://h:", "the port of host 1");
    refuse_network("redis://h:0", "from 1 to 65535");
    refuse_network("redis://a,h:65536", "the port of host 2");
    refuse_network("redis://h:4294967297", "the port of host 1");
    refuse_network("redis://h:+1", "the port of host 1");
    refuse_network("redis://h:1 ", "the port of host 1");
    refuse_network("redis://fe80::1", "[brackets]");
    refuse_network("redis://:6379", "host 1 is empty");
    refuse_network("redis://a,,b", "host 2 is empty");
    refuse_network("redis://a,", "host 2 is empty");
    refuse_network("redis://,/0", "host 1 is empty");
    refuse_network("redis://[]:1", "host 1 is empty");
    refuse_network("redis://u:hunter2@a,[::1", "host 2 has a '[' without a ']'");
    refuse_network("redis://[::1,b]", "host 1 has a '[' without a ']'");
    refuse_network("redis://[::1]hunter2", "behind the ']' of host 1");
    refuse_network("redis://[::1]:", "the port of host 1");
    refuse_network("redis://u:hunter2%4@h", "%25");
    refuse_network("redis://u:hunter2@h/%00", "%00");
    refuse_network("redis://u:hunter2@h?x", "NAME=VALUE");
}

/* Where the password ends must be certain: else a part of it would be taken for a host or a path, and be shown. */
static void test_doubtful_passwords(void **state)
{
    (void)state;
    refuse_network("redis://u:1/hunter2@h", "%2F");
    refuse_network("redis://u:hunter2/x@h/0", "%2F");
    refuse_network("redis+unix://u:hunter2@/run/x@y.sock", "%40");
    refuse_network("redis://u:hunter2?x@h", "%3F");
    expect_user("redis+unix://u:p@/run/x%40y.sock", "u", "p", "/run/x@y.sock");
}

/* Without the driver's wish there are no pieces, and no form is required. */
static void test_no_pieces(void **state)
{
    verrou_url *url = parse("redis://u:p@h:x,/0");

    (void)state;
    assert_int_equal(url->endpoint_count, 0);
    assert_null(url->user);
    assert_null(url->password);
    assert_null(url->path);
    assert_true(url->connect == NULL);
    verrou__free(url);
}

/* ---- redaction ---- */

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
    expect_redacted("redis://#u:hunter2@h", "redis://#u:***@h");
    expect_redacted("rediss+sentinel://u:hunter2@a:1,[::1]:2,b/main?prefix=x",
                    "rediss+sentinel://u:***@a:1,[::1]:2,b/main?prefix=x");
    expect_redacted("redis://u:hunter2@[::1]:6379/0", "redis://u:***@[::1]:6379/0");
    expect_redacted("redis+unix://:hunter2@/run/redis.sock", "redis+unix://:***@/run/redis.sock");
    expect_redacted("redis://u:%68unter2%40@h", "redis://u:***@h");
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
    expect_redacted("redis+sentinel://u:p@h/main?sentinel-password=hunter2&sentinel-user=me",
                    "redis+sentinel://u:***@h/main?sentinel-password=***&sentinel-user=me");
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

static verrou_status network_case(void *user, verrou_error *err)
{
    verrou_url *url = NULL;
    verrou_status status = verrou__url_parse_network("redis://u:p@h,[::1]:2/0?a=1", &url, err);

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
    assert_int_equal(failing_alloc_each(network_case, NULL), 1);
    assert_int_equal(failing_alloc_each(redact_case, NULL), 1);
    refuse("redis://h?a=1&b", "NAME=VALUE");
    refuse("redis://h%", "%25");
    refuse_network("redis://h,", "empty");
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
        cmocka_unit_test(test_user_and_path),
        cmocka_unit_test(test_escaped_separators),
        cmocka_unit_test(test_separators_in_password),
        cmocka_unit_test(test_endpoints),
        cmocka_unit_test(test_many_endpoints),
        cmocka_unit_test(test_bad_network_addresses),
        cmocka_unit_test(test_doubtful_passwords),
        cmocka_unit_test(test_no_pieces),
        cmocka_unit_test(test_redact_nothing),
        cmocka_unit_test(test_redact_userinfo),
        cmocka_unit_test(test_redact_settings),
        cmocka_unit_test(test_redact_odbc),
        cmocka_unit_test(test_out_of_memory),
    };

    failing_alloc_install();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
