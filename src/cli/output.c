/*
 * output.c - everything that is printed: outcomes on stderr, answers on stdout, as text or as JSON.
 *
 * Keys and owners come from whoever wrote them. What people see is therefore escaped, messages included; JSON escapes
 * by itself.
 */
#include "cli.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FENCE_TEXT 32

/* Length of the control character that `at` starts with, 0 if it is none: C0, DEL, and C1 in its UTF-8 form. */
static size_t control_len(const unsigned char *at)
{
    if (at[0] < 0x20 || at[0] == 0x7f)
        return 1;
    if (at[0] == 0xc2 && at[1] >= 0x80 && at[1] <= 0x9f)
        return 2;
    return 0;
}

static void escape_into(char *out, size_t size, const char *text)
{
    const unsigned char *at = (const unsigned char *)text;
    size_t used = 0;

    while (*at && used + 9 < size) {
        size_t controls = control_len(at);
        if (!controls)
            out[used++] = (char)*at++;
        for (; controls; --controls)
            used += (size_t)snprintf(out + used, size - used, "\\x%02x", *at++);
    }
    out[used] = '\0';
}

char *escaped(const char *text)
{
    size_t size = strlen(text) * 4 + 10;
    char *out = malloc(size);

    if (out)
        escape_into(out, size, text);
    return out;
}

/* One write, so that lines of several processes do not mix. */
static void vsay(const char *label, const char *format, va_list args)
{
    char message[2048], clean[4096], line[4200];
    int len;

    vsnprintf(message, sizeof(message), format, args);
    escape_into(clean, sizeof(clean), message);
    len = snprintf(line, sizeof(line), "verrou: %s%s%s\n", label, *label ? ": " : "", clean);
    if (len > 0 && write(STDERR_FILENO, line, (size_t)len) < 0)
        return; /* nobody is left to tell */
}

void say(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsay("", format, args);
    va_end(args);
}

static const char *outcome(int code)
{
    switch (code) {
    case EXIT_USAGE:
        return "usage";
    case EXIT_UNAVAILABLE:
        return "store unavailable";
    case EXIT_INTERNAL:
        return "internal error";
    case EXIT_NOT_ACQUIRED:
        return "not acquired";
    case EXIT_LOST:
        return "lease lost";
    case EXIT_NOT_OWNED:
        return "not owned";
    case EXIT_CONFIG:
        return "configuration";
    case EXIT_NOT_EXECUTABLE:
        return "not executable";
    case EXIT_NOT_FOUND:
        return "not found";
    default:
        return "failed";
    }
}

int fail(int code, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsay(outcome(code), format, args);
    va_end(args);
    return code;
}

const char *error_text(verrou_status status, const verrou_error *err)
{
    return *err->message ? err->message : verrou_status_text(status);
}

int fail_status(verrou_status status, const verrou_error *err)
{
    const char *message = error_text(status, err);

    switch (status) {
    case VERROU_OK:
        return EXIT_OK;
    case VERROU_ENOTACQUIRED:
        return fail(EXIT_NOT_ACQUIRED, "%s", message);
    case VERROU_ENOTOWNED:
        return fail(EXIT_NOT_OWNED, "%s", message);
    case VERROU_ELOST:
        return fail(EXIT_LOST, "%s", message);
    case VERROU_EUNKNOWN:
        say("outcome unknown: %s", message);
        return EXIT_UNAVAILABLE;
    case VERROU_ENOTSUP:
        say("not supported by this store: %s", message);
        return EXIT_UNAVAILABLE;
    case VERROU_ESTORAGE:
        return fail(EXIT_UNAVAILABLE, "%s", message);
    case VERROU_EINVAL:
        return fail(EXIT_USAGE, "%s", message);
    case VERROU_ECONFIG:
        return fail(EXIT_CONFIG, "%s", message);
    default:
        return fail(EXIT_INTERNAL, "%s", message);
    }
}

/* ---- words for people ---- */

const char *lease_text(int64_t remaining_ms, char out[LEASE_TEXT])
{
    if (remaining_ms == VERROU_FOREVER)
        snprintf(out, LEASE_TEXT, "never expires");
    else if (remaining_ms < 0)
        snprintf(out, LEASE_TEXT, "time left unknown");
    else if (remaining_ms < 1000)
        snprintf(out, LEASE_TEXT, "%" PRId64 " ms left", remaining_ms);
    else
        snprintf(out, LEASE_TEXT, "%" PRId64 ".%" PRId64 " s left", remaining_ms / 1000, remaining_ms % 1000 / 100);
    return out;
}

/* Not every store can tell the holder's token. */
static const char *fence_text(const char *separator, uint64_t fence, char out[FENCE_TEXT])
{
    out[0] = '\0';
    if (fence)
        snprintf(out, FENCE_TEXT, "%sfence %" PRIu64, separator, fence);
    return out;
}

const char *holder_text(const char *owner)
{
    size_t hex = strspn(owner, "0123456789abcdef");

    if (!*owner)
        return "an unknown owner";
    return hex == 32 && owner[hex] == '@' ? owner + hex + 1 : owner;
}

int fail_held(int code, const char *key, const verrou_info *holder)
{
    char left[LEASE_TEXT];

    /* The code may have been chosen by the caller; the outcome is named all the same. */
    if (holder->locked)
        say("not acquired: \"%s\" is held by %s, %s", key, holder_text(holder->owner),
            lease_text(holder->remaining_ms, left));
    else
        say("not acquired: \"%s\" was held by someone else until the limit", key);
    return code;
}

/* ---- answers ---- */

/* Owners need not be UTF-8: another program may have written them. */
static json_t *json_text(const char *text)
{
    json_t *value = json_string(text);

    if (!value) {
        char *clean = malloc(strlen(text) * 4 + 1);
        char *to = clean;
        for (const char *at = text; clean && *at; ++at)
            to += (unsigned char)*at < 0x80 ? sprintf(to, "%c", *at) : sprintf(to, "\\x%02x", (unsigned char)*at);
        value = clean ? json_string(clean) : NULL;
        free(clean);
    }
    return value;
}

static json_t *json_info(const char *key, const verrou_info *info)
{
    json_t *remaining = info->remaining_ms == VERROU_FOREVER ? json_null() : json_integer(info->remaining_ms);
    json_t *owner = *info->owner ? json_text(info->owner) : json_null();

    return json_pack("{so, sb, so, so, sI}", "key", json_text(key), "locked", info->locked, "owner", owner,
                     "remaining_ms", remaining, "fence", (json_int_t)info->fence);
}

/* Print a value and drop it. NULL: it could not be made. */
static int json_out(json_t *value)
{
    int code = EXIT_OK;

    if (!value || json_dumpf(value, stdout, JSON_COMPACT | JSON_ENCODE_ANY) || putchar('\n') == EOF)
        code = EXIT_INTERNAL;
    if (!value)
        fail(EXIT_INTERNAL, "out of memory");
    json_decref(value);
    return output_end(code);
}

static int print_item(const char *key, const verrou_info *info)
{
    char left[LEASE_TEXT], fence[FENCE_TEXT];
    char *clean_key = escaped(key);
    char *clean_holder = escaped(holder_text(info->owner));
    int code = EXIT_OK;

    if (clean_key && clean_holder)
        printf("%s\t%s\t%s%s\n", clean_key, clean_holder, lease_text(info->remaining_ms, left),
               fence_text("\t", info->fence, fence));
    else
        code = fail(EXIT_INTERNAL, "out of memory");
    free(clean_key);
    free(clean_holder);
    return code;
}

int print_info(const char *key, const verrou_info *info, bool json)
{
    char *clean = NULL;
    char left[LEASE_TEXT], fence[FENCE_TEXT];
    int code = EXIT_OK;

    if (json)
        return json_out(json_info(key, info));
    if (!info->locked) {
        puts("free");
        return output_end(EXIT_OK);
    }
    clean = escaped(holder_text(info->owner));
    if (clean)
        printf("locked by %s, %s%s\n", clean, lease_text(info->remaining_ms, left),
               fence_text(", ", info->fence, fence));
    else
        code = fail(EXIT_INTERNAL, "out of memory");
    free(clean);
    return output_end(code);
}

int print_list_begin(bool json, void **ret_list)
{
    *ret_list = NULL;
    if (!json)
        return EXIT_OK;
    *ret_list = json_array();
    return *ret_list ? EXIT_OK : fail(EXIT_INTERNAL, "out of memory");
}

int print_list_item(void *list, const char *key, const verrou_info *info)
{
    if (!list)
        return print_item(key, info);
    return json_array_append_new(list, json_info(key, info)) ? fail(EXIT_INTERNAL, "out of memory") : EXIT_OK;
}

int print_finding(void *list, const char *level, const char *subject, const char *finding)
{
    char *clean = NULL;

    if (list)
        return json_array_append_new(list, json_pack("{ss, so, so}", "level", level, "subject", json_text(subject),
                                                     "finding", json_text(finding)))
                   ? fail(EXIT_INTERNAL, "out of memory")
                   : EXIT_OK;
    clean = escaped(finding);
    if (!clean)
        return fail(EXIT_INTERNAL, "out of memory");
    printf("%-4s  %s: %s\n", level, subject, clean);
    free(clean);
    return EXIT_OK;
}

int print_list_end(void *list)
{
    return list ? json_out(list) : output_end(EXIT_OK);
}

void print_list_drop(void *list)
{
    json_decref(list);
}

int print_done(const char *key, const char *member)
{
    return json_out(key ? json_pack("{so, sb}", "key", json_text(key), member, 1) : json_pack("{sb}", member, 1));
}

int print_text(const char *member, const char *text)
{
    return json_out(json_pack("{so}", member, json_text(text)));
}

int print_line(const char *text)
{
    int copy;
    int failed = printf("%s\n", text) < 0 || fflush(stdout);

    /* Some file systems report a full disk on close only. A copy is closed: descriptor 1 must not become somebody's
     * socket. */
    copy = dup(STDOUT_FILENO);
    if (copy < 0 || close(copy))
        failed = 1;
    return failed ? fail(EXIT_INTERNAL, "cannot write the output: %s", strerror(errno)) : EXIT_OK;
}

int output_end(int code)
{
    if ((fflush(stdout) || ferror(stdout)) && code <= EXIT_FREE)
        return fail(EXIT_INTERNAL, "cannot write the output: %s", strerror(errno));
    return code;
}
