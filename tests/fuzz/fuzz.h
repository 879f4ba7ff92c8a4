/* fuzz.h - what the fuzz targets share. A broken property ends the program, as a memory error found by a sanitizer
 * does. */
#ifndef VERROU_TESTS_FUZZ_H
#define VERROU_TESTS_FUZZ_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/core.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define HOLDS(property)                                                                   \
    do {                                                                                  \
        if (!(property)) {                                                                \
            fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #property); \
            abort();                                                                      \
        }                                                                                 \
    } while (0)

/* The input as text, to free(). A NUL in it ends it. */
static inline char *fuzz_text(const uint8_t *data, size_t size)
{
    char *text = malloc(size + 1);

    HOLDS(text != NULL);
    if (size > 0)
        memcpy(text, data, size);
    text[size] = '\0';
    return text;
}

/* What every refusal has to look like: one line of valid UTF-8 unless the input itself was not, and a status that fits.
 */
static inline void fuzz_check_error(const verrou_error *err, verrou_status returned, verrou_status expected)
{
    HOLDS(returned == expected && err->status == expected);
    HOLDS(err->message[0] != '\0' && strlen(err->message) < sizeof(err->message));
    HOLDS(strchr(err->message, '\n') == NULL);
}

#endif
