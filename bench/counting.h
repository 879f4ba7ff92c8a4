/*
 * counting.h - an allocator that knows how many bytes are in use: malloc_usable_size() of each block and what glibc puts in front of it.
 */
#ifndef VERROU_BENCH_COUNTING_H
#define VERROU_BENCH_COUNTING_H

#include <malloc.h>

#include "bench.h"

#define BLOCK_OVERHEAD 8 /* glibc's, in front of each block; malloc_usable_size() leaves it out */

static _Atomic int64_t bytes_in_use;

static inline void *counting_malloc(size_t size)
{
    void *block = malloc(size);

    if (block)
        bytes_in_use += (int64_t)malloc_usable_size(block) + BLOCK_OVERHEAD;
    return block;
}

static inline void counting_free(void *block)
{
    if (block)
        bytes_in_use -= (int64_t)malloc_usable_size(block) + BLOCK_OVERHEAD;
    free(block);
}

static inline void *counting_realloc(void *block, size_t size)
{
    int64_t before = block ? (int64_t)malloc_usable_size(block) + BLOCK_OVERHEAD : 0;
    void *moved = realloc(block, size);

    if (moved)
        bytes_in_use += (int64_t)malloc_usable_size(moved) + BLOCK_OVERHEAD - before;
    return moved;
}

/* Before anything else is called of the library. */
static inline void counting_begin(void)
{
    bench_need(verrou_set_allocator(counting_malloc, counting_realloc, counting_free), NULL, "allocator");
}

#endif
