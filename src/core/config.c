/*
 * config.c - verrou.conf: "default = NAME", then a section [stores] with "NAME = ADDRESS" lines. inih does the parsing;
 * what this file adds is strictness, line numbers, and addresses of any length.
 *
 * inih reads lines into a buffer of 200 bytes unless a process-wide variable is changed, which is not ours to change:
 * it would carry on with the tail of a longer line as if that were a line of its own. The reader below hands it the
 * head only, and the value is then taken from the whole line. An inline comment starts with a ';' behind a blank, so an
 * address may hold "a;b" but not "a ;b" (write %20 for the blank).
 */
#include "core/core.h"

#include <errno.h>
#include <fcntl.h>
#include <ini.h>
#include <string.h>
#include <unistd.h>

#define MAX_FILE (1024 * 1024)

typedef struct parser {
    const char *path;
    const char *next; /* what inih has not been given yet */
    const char *line; /* what it was given last, and its length */
    size_t line_len;
    bool cut; /* the line did not fit into its buffer */
    int line_number;
    verrou__config config;
    verrou_status status;
    verrou_error *err;
} parser;

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\v' || c == '\f';
}

static int out_of_memory(parser *p)
{
    p->status = verrou__nomem(p->err);
    return 0;
}

/* An ini_reader: one line without leading blanks, which inih would take for the continuation of the line before. */
static char *read_line(char *buffer, int size, void *stream)
{
    parser *p = stream;
    size_t room = (size_t)size - 1;

    if (p->status != VERROU_OK || *p->next == '\0')
        return NULL;
    p->line = p->next;
    p->line_len = strcspn(p->line, "\n");
    p->next += p->line_len + (p->line[p->line_len] == '\n');
    p->line_number++;
    while (p->line_len > 0 && is_blank(*p->line)) {
        p->line++;
        p->line_len--;
    }
    p->cut = p->line_len > room;
    if (!p->cut)
        room = p->line_len;
    memcpy(buffer, p->line, room);
    buffer[room] = '\0';
    return buffer;
}

/* A new copy of the value: what inih found, or, of a line that it saw only the head of, what it would have found. NULL:
 * no memory. */
static char *copy_value(const parser *p, const char *value)
{
    size_t start, end;
    char *copy;

    if (!p->cut)
        return verrou__strdup(value);

    start = 0;
    while (p->line[start] != '=' && p->line[start] != ':')
        start++;
    for (end = start + 1; end < p->line_len; end++)
        if (p->line[end] == ';' && is_blank(p->line[end - 1]))
            break;
    for (start++; start < end && is_blank(p->line[start]);)
        start++;
    while (end > start && is_blank(p->line[end - 1]))
        end--;

    copy = verrou__malloc(end - start + 1);
    if (copy != NULL) {
        memcpy(copy, p->line + start, end - start);
        copy[end - start] = '\0';
    }
    return copy;
}

/* The value is taken over. */
static int set_default(parser *p, char *value)
{
    p->status = verrou__check_text("default", value, VERROU__MAX_STORE_NAME, p->err);
    if (p->status == VERROU_OK && p->config.default_store != NULL)
        p->status = verrou__fail(p->err, VERROU_ECONFIG, "\"default\" is given twice");
    if (p->status != VERROU_OK) {
        verrou__free(value);
        return 0;
    }
    p->config.default_store = value;
    return 1;
}

/* The address is taken over. */
static int add_store(parser *p, const char *name, char *url)
{
    void *grown;
    char *copy;

    p->status = verrou__check_text("the name of a store", name, VERROU__MAX_STORE_NAME, p->err);
    if (p->status == VERROU_OK && url[0] == '\0')
        p->status = verrou__fail(p->err, VERROU_ECONFIG, "the store \"%s\" has no address", name);
    for (size_t i = 0; p->status == VERROU_OK && i < p->config.count; i++)
        if (strcmp(p->config.stores[i].name, name) == 0)
            p->status = verrou__fail(p->err, VERROU_ECONFIG, "the store \"%s\" is given twice", name);
    if (p->status != VERROU_OK) {
        verrou__free(url);
        return 0;
    }

    copy = verrou__strdup(name);
    grown = copy == NULL ? NULL : verrou__realloc(p->config.stores, (p->config.count + 1) * sizeof(*p->config.stores));
    if (grown == NULL) {
        verrou__free(copy);
        verrou__free(url);
        return out_of_memory(p);
    }
    p->config.stores = grown;
    p->config.stores[p->config.count].name = copy;
    p->config.stores[p->config.count].url = url;
    p->config.count++;
    return 1;
}

/* An ini_handler. 0 makes inih note an error; read_line() then ends the file. */
static int handle(void *user, const char *section, const char *name, const char *value)
{
    parser *p = user;
    bool in_stores = strcmp(section, "stores") == 0;
    char *copy;

    if (p->status != VERROU_OK)
        return 0;
    if (!in_stores && section[0] != '\0') {
        p->status = verrou__fail(p->err, VERROU_ECONFIG, "unknown section [%s]; there is only [stores]", section);
        return 0;
    }
    if (!in_stores && strcmp(name, "default") != 0) {
        p->status = verrou__fail(p->err, VERROU_ECONFIG,
                                 "unknown name \"%s\"; before the section [stores] there is only \"default\"", name);
        return 0;
    }
    copy = copy_value(p, value != NULL ? value : "");
    if (copy == NULL)
        return out_of_memory(p);
    return in_stores ? add_store(p, name, copy) : set_default(p, copy);
}

verrou_status verrou__config_parse(const char *path, const char *text, verrou__config *ret, verrou_error *err)
{
    verrou_error inner = VERROU_ERROR_INIT;
    parser p = {.path = path, .next = text, .err = &inner};
    int bad_line = ini_parse_stream(read_line, &p, handle, &p);

    if (bad_line < 0)
        p.status = verrou__nomem(&inner);
    /* inih goes by its own rules (names need a '=', a section its ']') and carries on: the earlier of both errors is
     * the one to report. */
    if (bad_line > 0 && (p.status == VERROU_OK || bad_line < p.line_number)) {
        p.line_number = bad_line;
        p.status = verrou__fail(&inner, VERROU_ECONFIG, "expected NAME = VALUE or [SECTION]");
    }
    if (p.status == VERROU_OK) {
        *ret = p.config;
        return VERROU_OK;
    }

    verrou__config_done(&p.config);
    if (p.status == VERROU_ENOMEM)
        return verrou__nomem(err);
    return verrou__fail(err, VERROU_ECONFIG, "%s:%d: %s", path, p.line_number, inner.message);
}

/* The whole file and a NUL after it. It may be a pipe, whose size nobody knows. */
static verrou_status read_all(int fd, const char *path, char **ret_text, verrou_error *err)
{
    size_t len = 0;
    size_t size = 4096;
    char *text = verrou__malloc(size);

    for (;;) {
        char *grown;
        ssize_t got;

        if (text == NULL)
            return verrou__nomem(err);
        got = read(fd, text + len, size - len - 1);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0) {
            verrou__fail(err, VERROU_ECONFIG, "%s: %s", path, strerror(errno));
            break;
        }
        if (got == 0) {
            text[len] = '\0';
            *ret_text = text;
            return VERROU_OK;
        }
        len += (size_t)got;
        if (memchr(text + len - (size_t)got, '\0', (size_t)got) != NULL) {
            verrou__fail(err, VERROU_ECONFIG, "%s: not a text file", path);
            break;
        }
        if (len < size - 1)
            continue;
        if (size >= MAX_FILE) {
            verrou__fail(err, VERROU_ECONFIG, "%s: larger than a mebibyte", path);
            break;
        }
        size *= 2;
        grown = verrou__realloc(text, size);
        if (grown == NULL)
            verrou__free(text);
        text = grown;
    }
    verrou__free(text);
    return VERROU_ECONFIG;
}

verrou_status verrou__config_load(const char *path, verrou__config *ret, verrou_error *err)
{
    char *text = NULL;
    verrou_status status;
    int fd;

    do
        fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    while (fd < 0 && errno == EINTR);
    if (fd < 0)
        return verrou__fail(err, VERROU_ECONFIG, "%s: %s", path, strerror(errno));

    status = read_all(fd, path, &text, err);
    close(fd);
    if (status == VERROU_OK)
        status = verrou__config_parse(path, text, ret, err);
    verrou__free(text);
    return status;
}

void verrou__config_done(verrou__config *config)
{
    for (size_t i = 0; i < config->count; i++) {
        verrou__free(config->stores[i].name);
        verrou__free(config->stores[i].url);
    }
    verrou__free(config->stores);
    verrou__free(config->default_store);
    memset(config, 0, sizeof(*config));
}
