/* text_test.c - which keys, owners and labels are let through to the stores. */
#include "../support/failing_alloc.h"
#include "core/core.h"

#include <stdio.h>
#include <string.h>

static void accept(const char *text)
{
    verrou_error err = VERROU_ERROR_INIT;

    if (verrou__check_text("key", text, 255, &err) != VERROU_OK)
        fail_msg("\"%s\": %s", text, err.message);
}

static void refuse(const char *text, const char *because)
{
    verrou_error err = VERROU_ERROR_INIT;

    if (verrou__check_text("key", text, 255, &err) != VERROU_EINVAL)
        fail_msg("\"%s\" was accepted", text != NULL ? text : "(null)");
    assert_string_equal(err.message, because);
}

/* Any bytes of ASCII but NUL, blanks and control characters included. */
static void test_ascii(void **state)
{
    char text[128];

    (void)state;
    for (int i = 1; i < 128; i++)
        text[i - 1] = (char)i;
    text[127] = '\0';
    accept(text);
    accept("a");
    accept("account:42");
}

/* 1 to max bytes; bytes, not characters. */
static void test_length(void **state)
{
    char text[300];

    (void)state;
    refuse(NULL, "key: missing");
    refuse("", "key: empty");
    memset(text, 'a', sizeof(text));
    text[255] = '\0';
    accept(text);
    text[255] = 'a';
    text[256] = '\0';
    refuse(text, "key: longer than 255 bytes");
    memcpy(text + 254, "\xc3\xa9", 3);
    refuse(text, "key: longer than 255 bytes");
    text[253] = '\0';
    memcpy(text + 253, "\xc3\xa9", 3);
    accept(text);
}

/* The first and the last character of every length, and the neighbours of the surrogates. */
static void test_valid_utf8(void **state)
{
    (void)state;
    accept("\xc2\x80");
    accept("\xdf\xbf");
    accept("\xe0\xa0\x80");
    accept("\xed\x9f\xbf");
    accept("\xee\x80\x80");
    accept("\xef\xbf\xbf");
    accept("\xf0\x90\x80\x80");
    accept("\xf4\x8f\xbf\xbf");
    accept("clé:été:\xe9\x94\x81:\xf0\x9f\x94\x92");
}

/* Overlong forms, surrogates, what is beyond U+10FFFF, stray and missing continuations. */
static void test_invalid_utf8(void **state)
{
    static const char *const texts[] = {
        "\x80",
        "\xbf",
        "\xc0\x80",
        "\xc1\xbf",
        "\xc2",
        "\xc2"
        "a",
        "\xe0\x80\x80",
        "\xe0\x9f\xbf",
        "\xed\xa0\x80",
        "\xed\xbf\xbf",
        "\xe1\x80",
        "\xe1\x80"
        "a",
        "\xf0\x80\x80\x80",
        "\xf0\x8f\xbf\xbf",
        "\xf4\x90\x80\x80",
        "\xf5\x80\x80\x80",
        "\xf1\x80\x80",
        "\xfe",
        "\xff",
        "\xc2\xc2\x80",
    };

    (void)state;
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
        refuse(texts[i], "key: not valid UTF-8 at byte 1");
}

/* Wherever the bad byte is, before, in or after a group of eight plain bytes, it is found and its place is told. */
static void test_every_place(void **state)
{
    (void)state;
    for (size_t len = 1; len < 40; len++)
        for (size_t at = 0; at < len; at++) {
            char text[64];
            char message[64];

            memset(text, 'a', len);
            text[len] = '\0';
            text[at] = '\xff';
            snprintf(message, sizeof(message), "key: not valid UTF-8 at byte %zu", at + 1);
            refuse(text, message);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ascii),        cmocka_unit_test(test_length),      cmocka_unit_test(test_valid_utf8),
        cmocka_unit_test(test_invalid_utf8), cmocka_unit_test(test_every_place),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
