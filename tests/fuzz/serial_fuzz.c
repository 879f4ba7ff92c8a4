/* serial_fuzz.c - a serialised lock that is accepted keeps to the limits, and is the same after being written and read
 * again. */
#include "fuzz.h"

static bool same_text(const char *a, const char *b)
{
    return a == NULL || b == NULL ? a == b : strcmp(a, b) == 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    verrou_error err = VERROU_ERROR_INIT;
    char *text = fuzz_text(data, size);
    verrou__serial first;
    verrou_status status = verrou__serial_parse(text, &first, &err);

    if (status == VERROU_OK) {
        verrou__serial second;
        char *json = NULL;

        HOLDS(verrou__check_text("key", first.key, VERROU_MAX_KEY, NULL) == VERROU_OK);
        HOLDS(verrou__check_text("owner", first.owner, VERROU_MAX_OWNER, NULL) == VERROU_OK);
        HOLDS(first.ttl_ms == VERROU_FOREVER || (first.ttl_ms >= 1 && first.ttl_ms <= VERROU_MAX_MS));
        HOLDS(verrou__serial_format(&first, &json, &err) == VERROU_OK);
        HOLDS(verrou__serial_parse(json, &second, &err) == VERROU_OK);
        HOLDS(same_text(first.key, second.key) && same_text(first.owner, second.owner));
        HOLDS(same_text(first.store, second.store) && first.fence == second.fence);
        HOLDS(first.ttl_ms == second.ttl_ms && first.expiration_ms == second.expiration_ms);
        verrou__serial_done(&second);
        verrou__free(json);
        verrou__serial_done(&first);
    } else {
        fuzz_check_error(&err, status, VERROU_EINVAL);
    }
    free(text);
    return 0;
}
