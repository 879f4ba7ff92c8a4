/*
 * clock.c - the two clocks. Leases and deadlines are counted on one that is never set back and runs through suspend;
 * the wall clock is only for what is written into a serialised lock or read by people.
 */
#include "core/core.h"

#include <stdatomic.h>
#include <time.h>

typedef int64_t (*clock_fn)(void);

static _Atomic(clock_fn) test_clock;

static int64_t to_ms(const struct timespec *at)
{
    return (int64_t)at->tv_sec * 1000 + at->tv_nsec / 1000000;
}

int64_t verrou_now_ms(void)
{
    clock_fn hook = atomic_load_explicit(&test_clock, memory_order_relaxed);
    struct timespec at = {0, 0};

    if (hook != NULL)
        return hook();
#ifdef CLOCK_BOOTTIME
    /* A kernel either has this clock or has not: the answers of one process never mix the two. */
    if (clock_gettime(CLOCK_BOOTTIME, &at) == 0)
        return to_ms(&at);
#endif
    clock_gettime(CLOCK_MONOTONIC, &at);
    return to_ms(&at);
}

int64_t verrou__wall_ms(void)
{
    struct timespec at = {0, 0};

    clock_gettime(CLOCK_REALTIME, &at);
    return to_ms(&at);
}

void verrou__set_test_clock(int64_t (*now_ms)(void))
{
    atomic_store_explicit(&test_clock, now_ms, memory_order_relaxed);
}
