/* url_fuzz.c - an address that is accepted is the same after being put together again; any text can be redacted. */
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
    redact(text);
    verrou__free(url);
    free(text);
    return 0;
}
