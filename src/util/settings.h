/*
 * settings.h - how drivers read the settings of an address. The first one that is wrong counts: it sets the status, and what is read after
 * it changes nothing but memory that the state frees anyway.
 */
#ifndef VERROU_UTIL_SETTINGS_H
#define VERROU_UTIL_SETTINGS_H

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <verrou/store.h>

typedef struct settings_reader {
    const verrou_host *host;
    const verrou_url *url;
    verrou_error *err;
    verrou_status status;
} settings_reader;

static inline const char *settings_value(const settings_reader *r, const char *name)
{
    return r->host->setting(r->url, name);
}

/* Say what is wrong, and what it must be. `value` NULL: it is left out, or could hold a password. */
static inline void settings_refuse(settings_reader *r, const char *what, const char *value, const char *allowed)
{
    if (r->status == VERROU_OK)
        r->status = r->host->fail(r->err, VERROU_ECONFIG, 0, NULL, "%s: %s%s%s: it must be %s", r->url->scheme, what,
                                  value ? "=" : "", value ? value : "", allowed);
}

/* A copy of a text; NULL for NULL, and when out of memory, which is then the status. */
static inline char *settings_copy(settings_reader *r, const char *text)
{
    char *copied;

    if (!text)
        return NULL;
    copied = r->host->malloc(strlen(text) + 1);
    if (!copied && r->status == VERROU_OK)
        r->status = r->host->fail(r->err, VERROU_ENOMEM, 0, NULL, "out of memory");
    return copied ? strcpy(copied, text) : NULL;
}

/* Why a file that a setting names cannot be read: an error of the system, 0 if it can. */
static inline int settings_file_error(const char *path)
{
    return faccessat(AT_FDCWD, path, R_OK, AT_EACCESS) == 0 ? 0 : errno;
}

static inline bool settings_parse_number(const char *text, int max, int *ret)
{
    char *end = NULL;
    long number = strtol(text, &end, 10);

    if (*text < '0' || *text > '9' || *end || number > max)
        return false;
    *ret = (int)number;
    return true;
}

/* Read a setting into *ret, which keeps its default if the setting is not there: a number from 0 to max. */
static inline void settings_number(settings_reader *r, const char *name, int max, int *ret)
{
    const char *value = settings_value(r, name);
    char allowed[48];

    if (!value || settings_parse_number(value, max, ret))
        return;
    snprintf(allowed, sizeof allowed, "a number from 0 to %d", max);
    settings_refuse(r, name, value, allowed);
}

/* The same: a duration of 1 ms or more. */
static inline void settings_duration(settings_reader *r, const char *name, int64_t *ret)
{
    const char *value = settings_value(r, name);

    if (!value || r->status != VERROU_OK)
        return;
    if (r->host->duration(value, ret, NULL) != VERROU_OK || *ret < 1 || *ret == VERROU_FOREVER)
        settings_refuse(r, name, value, "a duration of 1 ms or more");
}

#endif
