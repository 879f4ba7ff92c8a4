/*
 * error.c - statuses, error texts and the reading of option structs.
 *
 * An error slot belongs to the caller and may have been compiled with another version of verrou.h. Structs grow at
 * their end only, so what this version knows is written if the slot has room for all of it; a smaller one was never
 * initialised and is left alone.
 */
#include "core/core.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* The size that verrou_error had in its first release. Never changes; later members are written only if `size` says
 * they are there. */
#define FIRST_SIZE (offsetof(verrou_error, message) + 448)

const char *verrou_version(void)
{
    return VERROU_VERSION;
}

const char *verrou_status_name(verrou_status status)
{
    switch ((int)status) {
#define X(name, value, text) \
    case value:              \
        return "VERROU_" #name;
        VERROU_STATUS_LIST(X)
#undef X
    }
    return "VERROU_EUNDEFINED";
}

const char *verrou_status_text(verrou_status status)
{
    switch ((int)status) {
#define X(name, value, text) \
    case value:              \
        return text;
        VERROU_STATUS_LIST(X)
#undef X
    }
    return "undefined status";
}

static bool usable(const verrou_error *err)
{
    return err != NULL && err->size >= FIRST_SIZE;
}

/*
 * Keep a message on one line whatever was quoted in it, and keep it UTF-8 where it was cut: a message that fills the
 * buffer may end inside a character.
 */
static void tidy(char *text, size_t size)
{
    size_t len = strlen(text);

    for (char *at = text; *at != '\0'; at++)
        if ((unsigned char)*at < 0x20 || *at == 0x7f)
            *at = '?';
    if (len + 1 < size)
        return;

    size_t start = len;
    while (start > 0 && len - start < 3 && ((unsigned char)text[start - 1] & 0xC0) == 0x80)
        start--;
    if (start == 0)
        return;
    unsigned char lead = (unsigned char)text[start - 1];
    size_t want = lead >= 0xF0 ? 3 : lead >= 0xE0 ? 2 : lead >= 0xC0 ? 1 : 0;
    if (len - start < want)
        text[start - 1] = '\0';
}

/* Whether the same call may succeed later when nobody has said so: somebody may release, and memory may come back. */
static int usually_retriable(verrou_status status)
{
    return status == VERROU_ENOTACQUIRED || status == VERROU_EUNKNOWN || status == VERROU_ENOMEM;
}

static void fill(verrou_error *err, verrou_status status, int retriable, const char *store_code, const char *format,
                 va_list args) VERROU_PRINTF(5, 0);

/* The message is made aside, since the arguments may point into *err. */
static void fill(verrou_error *err, verrou_status status, int retriable, const char *store_code, const char *format,
                 va_list args)
{
    verrou_error made = VERROU_ERROR_INIT;

    if (!usable(err))
        return;
    made.status = status;
    made.retriable = retriable != 0;
    if (store_code != NULL) {
        snprintf(made.store_code, sizeof(made.store_code), "%s", store_code);
        tidy(made.store_code, sizeof(made.store_code));
    }
    if (vsnprintf(made.message, sizeof(made.message), format, args) < 0)
        snprintf(made.message, sizeof(made.message), "%s", verrou_status_text(status));
    tidy(made.message, sizeof(made.message));
    verrou__error_copy(err, &made);
}

verrou_status verrou_error_set(verrou_error *err, verrou_status status, int retriable, const char *store_code,
                               const char *format, ...)
{
    va_list args;

    va_start(args, format);
    fill(err, status, retriable, store_code, format, args);
    va_end(args);
    return status;
}

verrou_status verrou__fail(verrou_error *err, verrou_status status, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    fill(err, status, usually_retriable(status), NULL, format, args);
    va_end(args);
    return status;
}

verrou_status verrou__nomem(verrou_error *err)
{
    return verrou__fail(err, VERROU_ENOMEM, "%s", verrou_status_text(VERROU_ENOMEM));
}

void verrou__error_copy(verrou_error *to, const verrou_error *from)
{
    if (!usable(to) || !usable(from) || to == from)
        return;
    to->status = from->status;
    to->retriable = from->retriable;
    memcpy(to->store_code, from->store_code, strlen(from->store_code) + 1);
    memcpy(to->message, from->message, strlen(from->message) + 1);
}

void verrou__error_prefix(verrou_error *err, const char *format, ...)
{
    char message[sizeof(err->message)];
    va_list args;
    int len;

    if (!usable(err))
        return;
    va_start(args, format);
    len = vsnprintf(message, sizeof(message), format, args);
    va_end(args);
    if (len < 0)
        return;

    size_t at = (size_t)len < sizeof(message) ? (size_t)len : sizeof(message) - 1;
    size_t part = sizeof(message) - 1 - at;
    memcpy(message + at, ": ", part < 2 ? part : 2);
    at += part < 2 ? part : 2;
    part = strnlen(err->message, sizeof(message) - 1 - at);
    memcpy(message + at, err->message, part);
    message[at + part] = '\0';
    tidy(message, sizeof(message));
    memcpy(err->message, message, strlen(message) + 1);
}

void verrou__options_read(void *to, size_t size, const void *from)
{
    size_t from_size;

    if (from == NULL)
        return;
    memcpy(&from_size, from, sizeof(from_size));
    if (from_size > size)
        from_size = size;
    if (from_size > sizeof(from_size))
        memcpy((char *)to + sizeof(from_size), (const char *)from + sizeof(from_size), from_size - sizeof(from_size));
}
