/*
 * duration.c - durations as npm's `@lukeed/ms` reads them for Verrou: digits with an optional fraction, spaces, a unit.
 * Done by hand, because strtod() and the case-insensitive comparisons of the C library depend on the locale.
 */
#include "core/core.h"

#include <string.h>

#define SECOND INT64_C(1000)
#define MINUTE (60 * SECOND)
#define HOUR (60 * MINUTE)
#define DAY (24 * HOUR)
#define WEEK (7 * DAY)
#define YEAR (365 * DAY + 6 * HOUR) /* 365.25 days */

static const struct {
    const char *name;
    int64_t ms;
} units[] = {
    {"", 1},
    {"ms", 1},
    {"msec", 1},
    {"msecs", 1},
    {"millisecond", 1},
    {"milliseconds", 1},
    {"s", SECOND},
    {"sec", SECOND},
    {"secs", SECOND},
    {"second", SECOND},
    {"seconds", SECOND},
    {"m", MINUTE},
    {"min", MINUTE},
    {"mins", MINUTE},
    {"minute", MINUTE},
    {"minutes", MINUTE},
    {"h", HOUR},
    {"hr", HOUR},
    {"hrs", HOUR},
    {"hour", HOUR},
    {"hours", HOUR},
    {"d", DAY},
    {"day", DAY},
    {"days", DAY},
    {"w", WEEK},
    {"wk", WEEK},
    {"wks", WEEK},
    {"week", WEEK},
    {"weeks", WEEK},
    {"y", YEAR},
    {"yr", YEAR},
    {"yrs", YEAR},
    {"year", YEAR},
    {"years", YEAR},
};

static size_t count_digits(const char *at)
{
    size_t n = 0;

    while (at[n] >= '0' && at[n] <= '9')
        n++;
    return n;
}

static bool same_word(const char *text, const char *word)
{
    for (; *text != '\0'; text++, word++) {
        char c = *text >= 'A' && *text <= 'Z' ? (char)(*text - 'A' + 'a') : *text;

        if (c != *word)
            return false;
    }
    return *word == '\0';
}

/* 0 if there is no such unit. */
static int64_t unit_ms(const char *text)
{
    for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++)
        if (same_word(text, units[i].name))
            return units[i].ms;
    return 0;
}

/* Anything above the limit comes out as just above the limit. */
static int64_t whole_part(const char *digits, size_t n, int64_t unit)
{
    int64_t value = 0;

    for (size_t i = 0; i < n && value <= VERROU_MAX_MS; i++)
        value = value * 10 + (digits[i] - '0');
    return value > VERROU_MAX_MS / unit ? VERROU_MAX_MS + 1 : value * unit;
}

/*
 * 0.d1d2d3... units, rounded half up to a millisecond. Horner's scheme from the last digit on: dividing by ten and
 * rounding down at every step is the same as doing it once at the end, so this is exact for any number of digits, and
 * nothing exceeds ten units.
 */
static int64_t fraction(const char *digits, size_t n, int64_t unit)
{
    int64_t sum = 0;

    while (n-- > 0)
        sum = (sum + (digits[n] - '0') * unit + (n == 0 ? 5 : 0)) / 10;
    return sum;
}

verrou_status verrou_duration_parse(const char *text, int64_t *ret_ms, verrou_error *err)
{
    bool negative;
    size_t whole, decimals = 0;
    const char *at = text;
    const char *point;
    int64_t unit, ms;

    if (text == NULL)
        return verrou__fail(err, VERROU_EINVAL, "duration: missing");
    if (ret_ms == NULL)
        return verrou__fail(err, VERROU_EINVAL, "duration: no place for the result");

    negative = *at == '-';
    if (negative)
        at++;
    whole = count_digits(at);
    point = at + whole;
    if (*point == '.')
        decimals = count_digits(point + 1);
    if (*point == '.' ? decimals == 0 : whole == 0)
        return verrou__fail(err, VERROU_EINVAL, "duration \"%.80s\": expected a number, as in \"1.5s\"", text);

    const char *rest = point + (*point == '.' ? 1 + decimals : 0);
    while (*rest == ' ')
        rest++;
    unit = unit_ms(rest);
    if (unit == 0)
        return verrou__fail(err, VERROU_EINVAL, "duration \"%.80s\": expected ms, s, m, h, d, w or y after the number",
                            text);

    ms = whole_part(at, whole, unit);
    if (ms <= VERROU_MAX_MS)
        ms += fraction(point + 1, decimals, unit);
    if (negative)
        return verrou__fail(err, VERROU_EINVAL, "duration \"%.80s\": negative", text);
    if (ms == 0)
        return verrou__fail(err, VERROU_EINVAL, "duration \"%.80s\": less than a millisecond", text);
    if (ms > VERROU_MAX_MS)
        return verrou__fail(err, VERROU_EINVAL, "duration \"%.80s\": longer than %lld ms", text,
                            (long long)VERROU_MAX_MS);
    *ret_ms = ms;
    return VERROU_OK;
}
