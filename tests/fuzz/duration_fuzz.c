/* duration_fuzz.c - a duration that is accepted is in range, and means the same when written in milliseconds. */
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    verrou_error err = VERROU_ERROR_INIT;
    char *text = fuzz_text(data, size);
    int64_t ms = -1;
    verrou_status status = verrou_duration_parse(text, &ms, &err);

    if (status == VERROU_OK) {
        char again[64];
        int64_t same = -1;

        HOLDS(ms >= 1 && ms <= VERROU_MAX_MS);
        snprintf(again, sizeof(again), "%lld MSecs", (long long)ms);
        HOLDS(verrou_duration_parse(again, &same, &err) == VERROU_OK && same == ms);
    } else {
        fuzz_check_error(&err, status, VERROU_EINVAL);
        HOLDS(ms == -1);
    }
    free(text);
    return 0;
}
