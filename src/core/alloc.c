/*
 * alloc.c - the one door to memory. Everything that the library allocates comes through here, so that
 * verrou_set_allocator() covers it all and tests can make any single allocation fail. The pointers are plain: they are
 * set before the first use, from the only thread.
 */
#include "core/core.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *(*use_malloc)(size_t) = malloc;
static void *(*use_realloc)(void *, size_t) = realloc;
static void (*use_free)(void *) = free;

verrou_status verrou_set_allocator(void *(*malloc_fn)(size_t), void *(*realloc_fn)(void *, size_t),
                                   void (*free_fn)(void *))
{
    if (malloc_fn == NULL || realloc_fn == NULL || free_fn == NULL)
        return VERROU_EINVAL;

    use_malloc = malloc_fn;
    use_realloc = realloc_fn;
    use_free = free_fn;
    return VERROU_OK;
}

/* malloc(0) may return NULL, which would read as "out of memory". */
void *verrou__malloc(size_t size)
{
    return use_malloc(size > 0 ? size : 1);
}

void *verrou__calloc(size_t size)
{
    void *block = verrou__malloc(size);

    if (block != NULL)
        memset(block, 0, size);
    return block;
}

void *verrou__realloc(void *block, size_t size)
{
    return use_realloc(block, size > 0 ? size : 1);
}

void verrou__free(void *block)
{
    if (block != NULL)
        use_free(block);
}

void verrou_free(void *text)
{
    verrou__free(text);
}

char *verrou__strdup(const char *text)
{
    size_t size = strlen(text) + 1;
    char *copy = verrou__malloc(size);

    if (copy != NULL)
        memcpy(copy, text, size);
    return copy;
}

char *verrou__format(const char *format, ...)
{
    char *text = NULL;
    va_list args;
    int len;

    va_start(args, format);
    len = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (len < 0)
        return NULL;

    text = verrou__malloc((size_t)len + 1);
    if (text == NULL)
        return NULL;
    va_start(args, format);
    vsnprintf(text, (size_t)len + 1, format, args);
    va_end(args);
    return text;
}
