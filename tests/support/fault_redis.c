/*
 * fault_redis.c - Redis's protocol as the proxy needs it: a request is an array, or, as people type it, a line; answers come in the order of
 * the requests. A connection that speaks something else is passed through.
 */
#include "fault_protocol.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define NOT_REDIS ((size_t)-1)

/* The length of a line with its end, 0 if it is not complete. */
static size_t line_length(const char *data, size_t length)
{
    const char *end = memchr(data, '\n', length);

    return end ? (size_t)(end - data) + 1 : 0;
}

/* The length of the first value, with all that it contains; 0 if it is not complete, NOT_REDIS if it is none. */
static size_t value_length(const char *data, size_t length)
{
    size_t used = length ? line_length(data, length) : 0;
    long count, factor = 1;

    if (length && !memchr("+-:$*_,#!=(%~>|", data[0], 15))
        return NOT_REDIS;
    if (used == 0)
        return 0;
    count = strchr("$!=*%~>|", data[0]) ? strtol(data + 1, NULL, 10) : -1;
    if (count < 0) /* a line is all, or nil */
        return used;
    if (strchr("$!=", data[0]))
        return length - used < (size_t)count + 2 ? 0 : used + (size_t)count + 2;
    if (strchr("%|", data[0]))
        factor = 2;
    for (count *= factor; count > 0; count--) {
        size_t part = value_length(data + used, length - used);

        if (part == 0 || part == NOT_REDIS)
            return part;
        used += part;
    }
    return used;
}

/* The n-th word of an array of strings, or NULL. */
static const char *word_at(const char *data, size_t length, int n, size_t *ret_length)
{
    size_t at = line_length(data, length);

    if (length == 0 || !memchr("*>", data[0], 2) || strtol(data + 1, NULL, 10) <= n)
        return NULL;
    for (; n > 0; n--)
        at += value_length(data + at, length - at);
    if (data[at] != '$')
        return NULL;
    *ret_length = (size_t)strtol(data + at + 1, NULL, 10);
    return data + at + line_length(data + at, length - at);
}

static bool first_word_is(const char *data, size_t length, const char *const *words)
{
    size_t word_length;
    const char *word = word_at(data, length, 0, &word_length);

    for (; word && *words; words++) {
        if (strlen(*words) == word_length && strncasecmp(word, *words, word_length) == 0)
            return true;
    }
    return false;
}

/* Requests to subscribe are answered once for each channel. */
static int replies_to(const char *data, size_t length)
{
    static const char *const many[] = {"subscribe",    "psubscribe",   "ssubscribe", "unsubscribe",
                                       "punsubscribe", "sunsubscribe", NULL};
    long words = first_word_is(data, length, many) ? strtol(data + 1, NULL, 10) : 2;

    return words > 1 ? (int)words - 1 : 1;
}

static frame of_length(size_t length)
{
    frame_kind kind = length == NOT_REDIS ? FRAME_RAW : length == 0 ? FRAME_NONE : FRAME_UNIT;

    return (frame){.kind = kind, .length = length};
}

static frame request(session *s, const char *data, size_t length)
{
    frame f;

    (void)s;
    if (data[0] == '*')
        f = of_length(value_length(data, length));
    else
        f = of_length(data[0] < ' ' || data[0] > '~' ? NOT_REDIS : line_length(data, length));
    if (f.kind == FRAME_UNIT)
        f.replies = replies_to(data, f.length);
    return f;
}

static frame reply(session *s, int command, const char *data, size_t length)
{
    static const char *const messages[] = {"message", "pmessage", "smessage", NULL};
    frame f = of_length(value_length(data, length));

    (void)s;
    if (f.kind == FRAME_UNIT && (command < 0 || first_word_is(data, f.length, messages)))
        f.kind = FRAME_MESSAGE;
    return f;
}

const protocol fault__redis = {request, reply};
