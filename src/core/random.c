/*
 * random.c - random bytes from the kernel, drawn a block at a time and per thread, so that an owner costs no system
 * call and no lock.
 *
 * Owners authorise a release, so no byte may be handed out twice: the block is thrown away in a child process, which
 * has a copy of its parent's, and what was handed out is wiped.
 */
#include "core/core.h"

#include <errno.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#if defined(__linux__) || defined(__APPLE__)
#include <sys/random.h>
#endif

#define BLOCK 1024

static _Thread_local struct {
    uint32_t fork_count;
    uint32_t left; /* unused bytes, at the end of the block */
    uint8_t bytes[BLOCK];
} pool;

/* Ask the kernel once. Answers how many bytes it gave, -1 for none. Everywhere but on Linux 256 at a time is all there
 * is. */
static ssize_t ask_kernel(uint8_t *out, size_t size)
{
#ifdef __linux__
    return getrandom(out, size, 0);
#else
    if (size > 256)
        size = 256;
    return getentropy(out, size) == 0 ? (ssize_t)size : -1;
#endif
}

static bool from_kernel(uint8_t *out, size_t size)
{
    while (size > 0) {
        ssize_t got = ask_kernel(out, size);

        if (got < 0 && errno != EINTR)
            return false;
        if (got > 0) {
            out += got;
            size -= (size_t)got;
        }
    }
    return true;
}

/* The barrier keeps the compiler from dropping a store that nobody reads. */
static void wipe(void *block, size_t size)
{
    memset(block, 0, size);
#if defined(__GNUC__)
    __asm__ __volatile__("" : : "r"(block) : "memory");
#endif
}

static bool draw(uint8_t *out, size_t size)
{
    uint32_t forks = verrou__fork_count();

    if (pool.fork_count != forks) {
        pool.left = 0;
        pool.fork_count = forks;
    }
    if (size > BLOCK / 4)
        return from_kernel(out, size);
    if (pool.left < size) {
        pool.left = 0;
        if (!from_kernel(pool.bytes, BLOCK))
            return false;
        pool.left = BLOCK;
    }

    uint8_t *next = pool.bytes + (BLOCK - pool.left);
    memcpy(out, next, size);
    wipe(next, size);
    pool.left -= (uint32_t)size;
    return true;
}

verrou_status verrou__random_bytes(void *out, size_t size, verrou_error *err)
{
    if (!draw(out, size))
        return verrou__fail(err, VERROU_ENOMEM, "the kernel gives no random bytes: %s", strerror(errno));
    return VERROU_OK;
}

/* Scrambles the clock (the finaliser of splitmix64): good enough to spread waiters, not for anything secret. */
static uint64_t from_clock(void)
{
    struct timespec at = {0, 0};
    uint64_t x;

    clock_gettime(CLOCK_MONOTONIC, &at);
    x = (uint64_t)at.tv_sec * 1000000000u + (uint64_t)at.tv_nsec + (uint64_t)(uintptr_t)&pool;
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

uint64_t verrou__random64(void)
{
    uint64_t value;

    if (!draw((uint8_t *)&value, sizeof(value)))
        return from_clock();
    return value;
}
