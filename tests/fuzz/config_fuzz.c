/* config_fuzz.c - a configuration that is accepted is the same after being written and read again. */
#include "fuzz.h"

/* No blank after the '=': a value may start with a ';', which after a blank would be a comment. */
static char *format(const verrou__config *config, size_t size)
{
    char *text = malloc(size * 2 + 64);
    char *at = text;

    HOLDS(text != NULL);
    if (config->default_store != NULL)
        at += sprintf(at, "default=%s\n", config->default_store);
    at += sprintf(at, "[stores]\n");
    for (size_t i = 0; i < config->count; i++)
        at += sprintf(at, "%s=%s\n", config->stores[i].name, config->stores[i].url);
    return text;
}

static void compare(const verrou__config *a, const verrou__config *b)
{
    HOLDS((a->default_store == NULL) == (b->default_store == NULL));
    HOLDS(a->default_store == NULL || strcmp(a->default_store, b->default_store) == 0);
    HOLDS(a->count == b->count);
    for (size_t i = 0; i < a->count; i++) {
        HOLDS(strcmp(a->stores[i].name, b->stores[i].name) == 0);
        HOLDS(strcmp(a->stores[i].url, b->stores[i].url) == 0);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    verrou_error err = VERROU_ERROR_INIT;
    char *text = fuzz_text(data, size);
    verrou__config first;
    verrou_status status = verrou__config_parse("fuzz", text, &first, &err);

    if (status == VERROU_OK) {
        char *again = format(&first, size);
        verrou__config second;

        HOLDS(verrou__config_parse("fuzz", again, &second, &err) == VERROU_OK);
        compare(&first, &second);
        verrou__config_done(&second);
        verrou__config_done(&first);
        free(again);
    } else {
        fuzz_check_error(&err, status, VERROU_ECONFIG);
    }
    free(text);
    return 0;
}
