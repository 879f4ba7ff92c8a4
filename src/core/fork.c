/*
 * fork.c - which process is this? Whatever must not be used by a child (connections, leases, random numbers drawn
 * ahead) remembers the count that it was made under. The handler that counts is registered by the first who asks:
 * nobody before remembered anything.
 *
 * A process made by clone(2) or _Fork(3) runs no handlers and is not noticed.
 */
#include "core/core.h"

#include <pthread.h>
#include <sched.h>
#include <unistd.h>

static _Atomic uint32_t count; /* 0 until the handler is registered, then 1 + forks */
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void count_child(void)
{
    atomic_fetch_add_explicit(&count, 1, memory_order_relaxed);
}

static void register_handler(void)
{
    if (pthread_atfork(NULL, NULL, count_child) == 0)
        atomic_store_explicit(&count, 1, memory_order_relaxed);
}

uint32_t verrou__fork_count(void)
{
    uint32_t now = atomic_load_explicit(&count, memory_order_relaxed);

    if (now != 0)
        return now;
    pthread_once(&once, register_handler);
    now = atomic_load_explicit(&count, memory_order_relaxed);

    /* No memory for the handler. The process id differs between parent and child too; it only costs a system call. */
    return now != 0 ? now : (uint32_t)getpid();
}

/*
 * `owner` is twice the fork count of the process that the object was mended for, plus one while a thread of that process is at it; what
 * another process left half done is told apart by its count.
 */
void verrou__fork_owner(_Atomic uint64_t *owner)
{
    atomic_init(owner, (uint64_t)verrou__fork_count() * 2);
}

void verrou__fork_settle(_Atomic uint64_t *owner, void (*mend)(void *object), void *object)
{
    uint64_t ready = (uint64_t)verrou__fork_count() * 2;
    uint64_t seen = atomic_load_explicit(owner, memory_order_acquire);

    while (seen != ready) {
        if (seen == ready + 1) {
            sched_yield();
            seen = atomic_load_explicit(owner, memory_order_acquire);
            continue;
        }
        if (!atomic_compare_exchange_weak_explicit(owner, &seen, ready + 1, memory_order_acquire, memory_order_acquire))
            continue;
        mend(object);
        atomic_store_explicit(owner, ready, memory_order_release);
        return;
    }
}
