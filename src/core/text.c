/*
 * text.c - the one check that keys, owners, labels and names have to pass before any store sees them. Stores differ in
 * what they do to invalid UTF-8 (refuse, replace, cut off), so none of them gets any.
 */
#include "core/core.h"

#include <string.h>

/* Length in bytes of the character that starts at `at`, 0 if it is not valid. Reads no further than the NUL after the
 * text. */
static size_t character(const unsigned char *at)
{
    unsigned char low = 0x80;
    unsigned char high = 0xBF;
    size_t len;

    if (at[0] < 0x80)
        return 1;
    if (at[0] >= 0xC2 && at[0] <= 0xDF) {
        len = 2;
    } else if ((at[0] & 0xF0) == 0xE0) {
        len = 3;
        if (at[0] == 0xE0)
            low = 0xA0; /* below: an overlong form */
        if (at[0] == 0xED)
            high = 0x9F; /* above: a surrogate */
    } else if (at[0] >= 0xF0 && at[0] <= 0xF4) {
        len = 4;
        if (at[0] == 0xF0)
            low = 0x90;
        if (at[0] == 0xF4)
            high = 0x8F; /* above: beyond U+10FFFF */
    } else {
        return 0;
    }

    if (at[1] < low || at[1] > high)
        return 0;
    for (size_t i = 2; i < len; i++)
        if ((at[i] & 0xC0) != 0x80)
            return 0;
    return len;
}

verrou_status verrou__check_text(const char *what, const char *text, size_t max, verrou_error *err)
{
    size_t len;
    size_t at = 0;

    if (text == NULL)
        return verrou__fail(err, VERROU_EINVAL, "%s: missing", what);
    len = strnlen(text, max + 1);
    if (len == 0)
        return verrou__fail(err, VERROU_EINVAL, "%s: empty", what);
    if (len > max)
        return verrou__fail(err, VERROU_EINVAL, "%s: longer than %zu bytes", what, max);

    while (at < len) {
        uint64_t eight;
        size_t step;

        /* Almost every key is plain ASCII: eight bytes at a time. */
        if (len - at >= sizeof(eight)) {
            memcpy(&eight, text + at, sizeof(eight));
            if ((eight & UINT64_C(0x8080808080808080)) == 0) {
                at += sizeof(eight);
                continue;
            }
        }
        step = character((const unsigned char *)text + at);
        if (step == 0)
            return verrou__fail(err, VERROU_EINVAL, "%s: not valid UTF-8 at byte %zu", what, at + 1);
        at += step;
    }
    return VERROU_OK;
}
