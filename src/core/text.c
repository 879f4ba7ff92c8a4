/*
 * text.c - the one check that keys, owners, labels and names have to pass before any store sees them. Stores differ in
 * what they do to invalid UTF-8 (refuse, replace, cut off), so none of them gets any.
 */
#include "core/core.h"

#include <string.h>

#include "util/utf8.h"

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
        step = utf8_character((const unsigned char *)text + at);
        if (step == 0)
            return verrou__fail(err, VERROU_EINVAL, "%s: not valid UTF-8 at byte %zu", what, at + 1);
        at += step;
    }
    return VERROU_OK;
}
