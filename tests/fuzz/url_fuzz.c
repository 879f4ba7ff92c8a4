/*
 * url_fuzz.c - an address that is accepted is the same after being put together again, as a whole and in the pieces of a network
 * address; any text can be redacted.
 */
#include "fuzz.h"

/* Escape all but letters and digits: the parser must not care. */
static char *put_escaped(char *out, const char *text)
{
    static const char hex[] = "0123456789abcdef";

    for (; *text != '\0'; text++) {
        unsigned char c = (unsigned char)*text;

        if ((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9')) {
            *out++ = (char)c;
        } else {
            *out++ = '%';
            *out++ = hex[c >> 4];
            *out++ = hex[c & 15];
        }
    }
    *out = '\0';
    return out;
}

static char *format(const verrou_url *url, size_t size)
{
    char *text = malloc(size * 4 + 16);
    char *at = text;

    HOLDS(text != NULL);
    at += sprintf(at, "%s:", url->scheme);
    at = put_escaped(at, url->rest);
    for (size_t i = 0; i < url->count; i++) {
        at += sprintf(at, "%c%s=", i == 0 ? '?' : '&', url->settings[i].name);
        at = put_escaped(at, url->settings[i].value);
    }
    return text;
}

static void compare(const verrou_url *a, const verrou_url *b)
{
    HOLDS(strcmp(a->scheme, b->scheme) == 0 && strcmp(a->rest, b->rest) == 0 && a->count == b->count);
    for (size_t i = 0; i < a->count; i++) {
        HOLDS(strcmp(a->settings[i].name, b->settings[i].name) == 0);
        HOLDS(strcmp(a->settings[i].value, b->settings[i].value) == 0);
    }
}

/* Whatever the password, it is hidden where passwords stand, and nothing else is. */
static void hide(const char *before, const char *password, const char *after)
{
    char *address = malloc(strlen(before) + 3 * strlen(password) + strlen(after) + 1);
    char *expected = verrou__format("%s***%s", before, after);
    char *redacted = NULL;

    HOLDS(address != NULL && expected != NULL);
    strcpy(put_escaped(stpcpy(address, before), password), after);
    HOLDS(verrou__url_redact(address, &redacted, NULL) == VERROU_OK);
    HOLDS(strcmp(redacted, expected) == 0);
    verrou__free(redacted);
    verrou__free(expected);
    free(address);
}

static void redact(const char *text)
{
    char *redacted = NULL;

    HOLDS(verrou__url_redact(text, &redacted, NULL) == VERROU_OK);
    verrou__free(redacted);
    if (text[0] == '\0')
        return;
    hide("redis://u:", text, "@h:1/0?prefix=a@b");
    hide("mysql://h/d?PassWord=", text, "&table=t");
    hide("odbc:DSN=x;Pwd=", text, ";UID=me?table=t");
}

static bool same_text(const char *a, const char *b)
{
    return a == NULL || b == NULL ? a == b : strcmp(a, b) == 0;
}

static char *format_pieces(const verrou_url *url, size_t size)
{
    char *text = malloc(size * 4 + 64 + url->endpoint_count * 16);
    char *at = text;

    HOLDS(text != NULL);
    at += sprintf(at, "%s://", url->scheme);
    if (url->user != NULL) {
        at = put_escaped(at, url->user);
        if (url->password != NULL)
            at = put_escaped(stpcpy(at, ":"), url->password);
        at = stpcpy(at, "@");
    }
    for (size_t i = 0; i < url->endpoint_count; i++) {
        at = put_escaped(stpcpy(at, i > 0 ? "," : ""), url->endpoints[i].host);
        if (url->endpoints[i].port != 0)
            at += sprintf(at, ":%d", url->endpoints[i].port);
    }
    if (url->path != NULL) {
        HOLDS(url->path[0] == '/');
        put_escaped(stpcpy(at, "/"), url->path + 1);
    }
    return text;
}

static void compare_pieces(const verrou_url *a, const verrou_url *b)
{
    HOLDS(same_text(a->user, b->user) && same_text(a->password, b->password) && same_text(a->path, b->path));
    HOLDS(a->endpoint_count == b->endpoint_count);
    for (size_t i = 0; i < a->endpoint_count; i++) {
        HOLDS(a->endpoints[i].host[0] != '\0' && strcmp(a->endpoints[i].host, b->endpoints[i].host) == 0);
        HOLDS(a->endpoints[i].port >= 0 && a->endpoints[i].port <= 65535);
        HOLDS(a->endpoints[i].port == b->endpoints[i].port);
    }
}

/* What is taken for the password is what redaction hides: with another one in its place it looks the same. */
static void compare_redacted(const char *text, const verrou_url *url)
{
    const char *start = strchr(strstr(text, "//") + 2, ':') + 1;
    const char *end = start;
    char *other;
    char *redacted[2] = {NULL, NULL};

    for (const char *at = start; *at != '\0' && *at != '/' && *at != '?'; at++)
        if (*at == '@')
            end = at;
    other = verrou__format("%.*s%s%s", (int)(start - text), text, url->password[0] == 'x' ? "y" : "x", end);
    HOLDS(other != NULL);
    HOLDS(verrou__url_redact(text, &redacted[0], NULL) == VERROU_OK);
    HOLDS(verrou__url_redact(other, &redacted[1], NULL) == VERROU_OK);
    HOLDS(strcmp(redacted[0], redacted[1]) == 0);
    verrou__free(redacted[0]);
    verrou__free(redacted[1]);
    verrou__free(other);
}

static void pieces(const char *text, size_t size)
{
    verrou_error err = VERROU_ERROR_INIT;
    verrou_url *url = NULL;
    verrou_url *whole = NULL;
    verrou_url *same = NULL;
    verrou_status status = verrou__url_parse_network(text, &url, &err);
    char *again;

    if (status != VERROU_OK) {
        fuzz_check_error(&err, status, VERROU_ECONFIG);
        HOLDS(url == NULL);
        return;
    }
    HOLDS(verrou__url_parse(text, &whole, &err) == VERROU_OK);
    compare(url, whole);
    again = format_pieces(url, size);
    HOLDS(verrou__url_parse_network(again, &same, &err) == VERROU_OK);
    compare_pieces(url, same);
    if (url->password != NULL)
        compare_redacted(text, url);
    free(again);
    verrou__free(same);
    verrou__free(whole);
    verrou__free(url);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    verrou_error err = VERROU_ERROR_INIT;
    char *text = fuzz_text(data, size);
    verrou_url *url = NULL;
    verrou_status status = verrou__url_parse(text, &url, &err);

    if (status == VERROU_OK) {
        char *again = format(url, size);
        verrou_url *same = NULL;

        HOLDS(strcmp(url->text, text) == 0);
        HOLDS(verrou__url_parse(again, &same, &err) == VERROU_OK);
        compare(url, same);
        verrou__free(same);
        free(again);
    } else {
        fuzz_check_error(&err, status, VERROU_ECONFIG);
        HOLDS(url == NULL);
    }
    pieces(text, size);
    redact(text);
    verrou__free(url);
    free(text);
    return 0;
}
