/* duration_test.c - the grammar of durations, its limits, and exactness. */
#include "../support/failing_alloc.h"
#include "core/core.h"

#include <locale.h>
#include <stdio.h>
#include <string.h>

typedef struct sample {
    const char *text;
    int64_t ms;
} sample;

static void expect(const char *text, int64_t ms)
{
    verrou_error err = VERROU_ERROR_INIT;
    int64_t got = -1;

    if (verrou_duration_parse(text, &got, &err) != VERROU_OK)
        fail_msg("\"%s\": %s", text, err.message);
    if (got != ms)
        fail_msg("\"%s\": %lld instead of %lld", text, (long long)got, (long long)ms);
}

static void refuse(const char *text, const char *because)
{
    verrou_error err = VERROU_ERROR_INIT;
    int64_t got = -1;

    if (verrou_duration_parse(text, &got, &err) != VERROU_EINVAL)
        fail_msg("\"%s\" was accepted as %lld", text, (long long)got);
    assert_int_equal(err.status, VERROU_EINVAL);
    assert_int_equal(got, -1);
    if (strstr(err.message, because) == NULL)
        fail_msg("\"%s\": \"%s\" does not say \"%s\"", text, err.message, because);
}

/* A number alone is milliseconds. */
static void test_bare_number(void **state)
{
    (void)state;
    expect("250", 250);
    expect("1", 1);
    expect("007", 7);
    expect("5 ", 5); /* as the original: any spaces, then no unit */
}

/* Every unit in every spelling, with any number of spaces before it. */
static void test_units(void **state)
{
    static const sample words[] = {
        {"ms", 1},
        {"msec", 1},
        {"msecs", 1},
        {"millisecond", 1},
        {"milliseconds", 1},
        {"s", 1000},
        {"sec", 1000},
        {"secs", 1000},
        {"second", 1000},
        {"seconds", 1000},
        {"m", 60000},
        {"min", 60000},
        {"mins", 60000},
        {"minute", 60000},
        {"minutes", 60000},
        {"h", 3600000},
        {"hr", 3600000},
        {"hrs", 3600000},
        {"hour", 3600000},
        {"hours", 3600000},
        {"d", 86400000},
        {"day", 86400000},
        {"days", 86400000},
        {"w", 604800000},
        {"wk", 604800000},
        {"wks", 604800000},
        {"week", 604800000},
        {"weeks", 604800000},
        {"y", 31557600000},
        {"yr", 31557600000},
        {"yrs", 31557600000},
        {"year", 31557600000},
        {"years", 31557600000},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        char text[64];

        snprintf(text, sizeof(text), "2%s", words[i].text);
        expect(text, 2 * words[i].ms);
        snprintf(text, sizeof(text), "2   %s", words[i].text);
        expect(text, 2 * words[i].ms);
    }
}

/* Case does not count. */
static void test_case(void **state)
{
    (void)state;
    expect("1S", 1000);
    expect("10 MINUTES", 600000);
    expect("1Min", 60000);
    expect("5mSeC", 5);
}

/* Fractions with and without a digit before the point, rounded half up to a millisecond. */
static void test_fractions(void **state)
{
    (void)state;
    expect("1.5h", 5400000);
    expect(".5s", 500);
    expect("0.25m", 15000);
    expect("1.4", 1);
    expect("1.5", 2);
    expect("0.5", 1);
    expect("0.0014999999999999999999999999s", 1);
    expect("0.0015s", 2);
    expect("0.333333333333333333333333333333333333h", 1200000);
    expect("1.00000000000000000000000000000001y", 31557600000);
}

/* Integers are exact up to the limit, which doubles would not be for every unit; one more is refused. */
static void test_limit(void **state)
{
    (void)state;
    expect("4503599627370496", VERROU_MAX_MS);
    expect("4503599627370495", VERROU_MAX_MS - 1);
    expect("4503599627370495.5", VERROU_MAX_MS);
    expect("4503599627370.496s", VERROU_MAX_MS);
    refuse("4503599627370497", "longer than");
    refuse("4503599627370496.5", "longer than");
    refuse("4503599627371s", "longer than");
    refuse("142711y", "longer than");
    expect("142710y", INT64_C(142710) * 31557600000);
    refuse("99999999999999999999999999999999999999999999", "longer than");
    refuse("99999999999999999999999999999999999999999999y", "longer than");
}

/* Nothing is no duration, nor is what rounds to nothing, nor anything negative. */
static void test_zero_and_negative(void **state)
{
    (void)state;
    refuse("0", "less than a millisecond");
    refuse("0s", "less than a millisecond");
    refuse("0.4", "less than a millisecond");
    refuse("0.0004s", "less than a millisecond");
    refuse("-1s", "negative");
    refuse("-5", "negative");
    refuse("-0", "negative");
}

/* Everything else is refused with the text in the message. */
static void test_malformed(void **state)
{
    static const char *const texts[] = {
        "",      " ",    "s",     "-",       ".",     "1.",         "1.s",        "..5",       "1..5",
        "1.5.5", "+5",   "--5",   "- 5",     " 5",    "5s ",        "5\ts",       "5\n",       "1e3",
        "0x10",  "1,5s", "5 s m", "1sm",     "1h30m", "5 foo",      "5 seconds!", "5secondss", "infinity",
        "nan",   "none", "never", "forever", "five",  "5\xc2\xa0s", "\xd9\xa5",   "1_000",
    };

    (void)state;
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
        refuse(texts[i], "duration \"");
    refuse("5 parsecs", "\"5 parsecs\"");
    refuse(NULL, "missing");
}

/* A text of any length is quoted in part only. */
static void test_long_text(void **state)
{
    char text[5000];

    (void)state;
    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    refuse(text, "expected a number");
}

/* A locale with a decimal comma changes nothing. Any of the names will do; without them the claim is checked in "C"
 * only. */
static void test_locale(void **state)
{
    static const char *const names[] = {"de_DE.UTF-8", "fr_FR.UTF-8", "tr_TR.UTF-8"};

    (void)state;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        setlocale(LC_ALL, names[i]);
        expect("1.5S", 1500);
        expect("1 MIN", 60000);
        refuse("1,5s", "expected");
    }
    setlocale(LC_ALL, "C");
}

/* A missing place for the result is an error, not a crash; a missing error slot is fine. */
static void test_null_arguments(void **state)
{
    (void)state;
    assert_int_equal(verrou_duration_parse("1s", NULL, NULL), VERROU_EINVAL);
    assert_int_equal(verrou_duration_parse("x", NULL, NULL), VERROU_EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bare_number), cmocka_unit_test(test_units),
        cmocka_unit_test(test_case),        cmocka_unit_test(test_fractions),
        cmocka_unit_test(test_limit),       cmocka_unit_test(test_zero_and_negative),
        cmocka_unit_test(test_malformed),   cmocka_unit_test(test_long_text),
        cmocka_unit_test(test_locale),      cmocka_unit_test(test_null_arguments),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
