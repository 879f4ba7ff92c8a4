/*
 * utf8.h - what is a character in UTF-8. A leaf: depends on nothing of ours.
 */
#ifndef VERROU_UTIL_UTF8_H
#define VERROU_UTIL_UTF8_H

#include <stdbool.h>
#include <stddef.h>

/* Length in bytes of the character that starts at `at`, 0 if it is not valid. Reads no further than the NUL after the text. */
static inline size_t utf8_character(const unsigned char *at)
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

/* Whether len bytes are well-formed and hold no NUL. The byte behind them has to be readable, and no continuation. */
static inline bool utf8_text(const char *text, size_t len)
{
    const unsigned char *at = (const unsigned char *)text;
    const unsigned char *end = at + len;
    size_t step;

    for (; at < end; at += step) {
        step = *at ? utf8_character(at) : 0;
        if (step == 0)
            return false;
    }
    return at == end;
}

/* Length of the control character that starts at `at`, 0 if it is none: C0, DEL, and C1 in its UTF-8 form. */
static inline size_t utf8_control(const unsigned char *at)
{
    if (at[0] < 0x20 || at[0] == 0x7f)
        return 1;
    if (at[0] == 0xc2 && at[1] >= 0x80 && at[1] <= 0x9f)
        return 2;
    return 0;
}

#endif
