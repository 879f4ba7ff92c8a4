/* config_test.c - verrou.conf: what is read, and that everything doubtful is refused with its line. */
#include "../support/failing_alloc.h"
#include "core/core.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static verrou__config parse(const char *text)
{
    verrou_error err = VERROU_ERROR_INIT;
    verrou__config config;

    if (verrou__config_parse("v.conf", text, &config, &err) != VERROU_OK)
        fail_msg("%s: %s", text, err.message);
    return config;
}

static void refuse(const char *text, const char *because)
{
    verrou_error err = VERROU_ERROR_INIT;
    verrou__config config = {NULL, 77, NULL};
    long live = failing_alloc.live;

    if (verrou__config_parse("v.conf", text, &config, &err) != VERROU_ECONFIG)
        fail_msg("%s: accepted", text);
    assert_int_equal(err.status, VERROU_ECONFIG);
    assert_int_equal(config.count, 77);
    assert_int_equal(failing_alloc.live, live);
    if (strstr(err.message, because) == NULL)
        fail_msg("%s: \"%s\" does not say \"%s\"", text, err.message, because);
}

static void expect_store(const verrou__config *config, size_t i, const char *name, const char *url)
{
    assert_true(i < config->count);
    assert_string_equal(config->stores[i].name, name);
    assert_string_equal(config->stores[i].url, url);
}

/* A default and stores, in the order of the file. */
static void test_plain(void **state)
{
    verrou__config config =
        parse("default = main\n\n[stores]\nmain = sqlite:/var/lib/x.db?table=t\nfast=redis://h:1/0\n");

    (void)state;
    assert_string_equal(config.default_store, "main");
    assert_int_equal(config.count, 2);
    expect_store(&config, 0, "main", "sqlite:/var/lib/x.db?table=t");
    expect_store(&config, 1, "fast", "redis://h:1/0");
    verrou__config_done(&config);
}

/* Comments, blanks, indentation, a byte order mark, CRLF and a missing last newline do no harm. */
static void test_layout(void **state)
{
    verrou__config config = parse("\xef\xbb\xbf# head\r\n  default\t=  a b  \r\n; more\r\n[stores]\r\n\r\n"
                                  "\ta b = memory: ; inline\r\n\tc = memory:\r\n   # end\r\n\td = memory:");

    (void)state;
    assert_string_equal(config.default_store, "a b");
    assert_int_equal(config.count, 3);
    expect_store(&config, 0, "a b", "memory:");
    expect_store(&config, 1, "c", "memory:");
    expect_store(&config, 2, "d", "memory:");
    verrou__config_done(&config);
}

/* An empty file is a configuration without anything. */
static void test_empty(void **state)
{
    verrou__config config = parse("");

    (void)state;
    assert_null(config.default_store);
    assert_int_equal(config.count, 0);
    verrou__config_done(&config);
}

/* An address may hold '=', ':', '#' and ';', the last one without a blank before it. */
static void test_special_characters(void **state)
{
    verrou__config config = parse("[stores]\na = odbc:DSN=x;UID=y;PWD={a=b};#c\nb = odbc:DSN=x ;UID=y\nc =;x\n");

    (void)state;
    expect_store(&config, 0, "a", "odbc:DSN=x;UID=y;PWD={a=b};#c");
    expect_store(&config, 1, "b", "odbc:DSN=x");
    expect_store(&config, 2, "c", ";x");
    verrou__config_done(&config);
}

/*
 * Addresses of any length are read as a whole, by the same rules as short ones. The lengths around inih's own limit of
 * 200 bytes matter most: a byte lost there would be another address.
 */
static void test_long_lines(void **state)
{
    (void)state;
    for (size_t len = 150; len < 3000; len += len < 250 ? 1 : 499) {
        char url[3100] = "sqlite:";
        char text[3300];
        verrou__config config;

        memset(url + 7, 'x', len - 7);
        url[len / 2] = ';';
        url[len / 3] = '=';
        url[len / 4] = ' ';
        url[len] = '\0';
        snprintf(text, sizeof(text), "default = a\n[stores]\n \t a\t=  %s \t; tail = x\r\nb = memory:\n", url);
        config = parse(text);
        assert_int_equal(config.count, 2);
        expect_store(&config, 0, "a", url);
        expect_store(&config, 1, "b", "memory:");
        verrou__config_done(&config);
    }
}

/* A long comment is a comment; a long line without a value in reach is refused. */
static void test_long_other_lines(void **state)
{
    char text[1000];
    verrou__config config;

    (void)state;
    memset(text, 'x', sizeof(text));
    text[0] = '#';
    memcpy(text + 900, "\n[stores]\na = memory:\n", 23);
    config = parse(text);
    assert_int_equal(config.count, 1);
    verrou__config_done(&config);
    text[0] = 'x';
    memcpy(text + 300, " = memory:\n", 12);
    refuse(text, "v.conf:1: ");
}

/* Sections and names that are not known are refused, with their line. */
static void test_unknown(void **state)
{
    (void)state;
    refuse("[store]\na = memory:\n", "v.conf:2: unknown section [store]");
    refuse("\n\nstores = x\n", "v.conf:3: unknown name \"stores\"");
    refuse("a = memory:\n", "v.conf:1: unknown name \"a\"");
    refuse("Default = x\n", "v.conf:1: unknown name \"Default\"");
    refuse("[stores]\na = memory:\n[other]\nb = c\n", "v.conf:4: unknown section [other]");
}

/* Which of two would count? */
static void test_duplicates(void **state)
{
    (void)state;
    refuse("default = a\ndefault = a\n", "v.conf:2: \"default\" is given twice");
    refuse("[stores]\na = memory:\nb = memory:\na = sqlite:x\n", "v.conf:4: the store \"a\" is given twice");
}

/* Nothing is no name and no address. */
static void test_empty_values(void **state)
{
    (void)state;
    refuse("default =\n", "v.conf:1: default: empty");
    refuse("default = ; a comment\n", "v.conf:1: default: empty");
    refuse("[stores]\na =\n", "v.conf:2: the store \"a\" has no address");
    refuse("[stores]\n = memory:\n", "v.conf:2: the name of a store: empty");
}

/* Names are 1 to 64 bytes of UTF-8. */
static void test_names(void **state)
{
    char name[66];
    char text[100];

    (void)state;
    memset(name, 'n', sizeof(name));
    name[65] = '\0';
    snprintf(text, sizeof(text), "[stores]\n%s = memory:\n", name);
    refuse(text, "v.conf:2: the name of a store: longer than 64");
    snprintf(text, sizeof(text), "[stores]\n%s = memory:\n", name + 1);
    verrou__config config = parse(text);
    expect_store(&config, 0, name + 1, "memory:");
    verrou__config_done(&config);
    refuse("[stores]\n\xff = memory:\n", "UTF-8");
}

/* Lines that are neither; the first bad one is reported, and nothing of an address is quoted. */
static void test_malformed(void **state)
{
    (void)state;
    refuse("nonsense\n", "v.conf:1: expected NAME = VALUE");
    refuse("[stores\na = memory:\n", "v.conf:1: expected NAME = VALUE");
    refuse("[stores]\na = memory:\nredis\n", "v.conf:3: expected NAME = VALUE");
    refuse("[stores]\nnonsense\n[x]\nb = c\n", "v.conf:2: expected NAME = VALUE");
    refuse("[stores]\na = memory:\na = x\nnonsense\n", "v.conf:3: the store \"a\"");
}

static char *temporary_file(const char *text, size_t len)
{
    static char path[] = "config_test.XXXXXX";
    int fd;

    memcpy(path + sizeof(path) - 7, "XXXXXX", 6);
    fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, len), len);
    close(fd);
    return path;
}

/* A file is read as a whole, also where it does not fit into the first buffer. */
static void test_load(void **state)
{
    static char text[20000];
    verrou__config config;
    char *path;

    (void)state;
    memset(text, '#', sizeof(text));
    memcpy(text + 19000, "\ndefault = a\n[stores]\na = memory:\n", 34);
    path = temporary_file(text, 19034);
    assert_int_equal(verrou__config_load(path, &config, NULL), VERROU_OK);
    assert_string_equal(config.default_store, "a");
    expect_store(&config, 0, "a", "memory:");
    verrou__config_done(&config);
    unlink(path);
}

/* What cannot be read is refused by its path: missing, a directory, binary, huge. */
static void test_unreadable(void **state)
{
    static char large[1024 * 1024 + 10];
    verrou_error err = VERROU_ERROR_INIT;
    verrou__config config;
    char *path;

    (void)state;
    assert_int_equal(verrou__config_load("no/such/file", &config, &err), VERROU_ECONFIG);
    assert_string_equal(err.message, "no/such/file: No such file or directory");
    assert_int_equal(verrou__config_load("/", &config, &err), VERROU_ECONFIG);
    assert_string_equal(err.message, "/: Is a directory");

    path = temporary_file("default = a\0b\n", 14);
    assert_int_equal(verrou__config_load(path, &config, &err), VERROU_ECONFIG);
    assert_non_null(strstr(err.message, "not a text file"));
    unlink(path);

    memset(large, '\n', sizeof(large));
    path = temporary_file(large, sizeof(large));
    assert_int_equal(verrou__config_load(path, &config, &err), VERROU_ECONFIG);
    assert_non_null(strstr(err.message, "larger than"));
    unlink(path);
}

static verrou_status load_case(void *path, verrou_error *err)
{
    verrou__config config;
    verrou_status status = verrou__config_load(path, &config, err);

    if (status == VERROU_OK)
        verrou__config_done(&config);
    return status;
}

/* Every allocation may fail, and nothing is left behind. */
static void test_out_of_memory(void **state)
{
    char text[6000];
    char *path;

    (void)state;
    memset(text, 'x', sizeof(text));
    memcpy(text, "default = a\n[stores]\nb = memory:\na = sqlite:", 44);
    path = temporary_file(text, sizeof(text));
    assert_true(failing_alloc_each(load_case, path) >= 9);
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plain),        cmocka_unit_test(test_layout),
        cmocka_unit_test(test_empty),        cmocka_unit_test(test_special_characters),
        cmocka_unit_test(test_long_lines),   cmocka_unit_test(test_long_other_lines),
        cmocka_unit_test(test_unknown),      cmocka_unit_test(test_duplicates),
        cmocka_unit_test(test_empty_values), cmocka_unit_test(test_names),
        cmocka_unit_test(test_malformed),    cmocka_unit_test(test_load),
        cmocka_unit_test(test_unreadable),   cmocka_unit_test(test_out_of_memory),
    };

    failing_alloc_install();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
