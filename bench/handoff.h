/*
 * handoff.h - two processes take turns on one key and hold it for a while each, so that the other one is surely asleep when the lock is
 * given back: the time from the call of release in one to the acquisition by the other. The clock is CLOCK_MONOTONIC, which all
 * processes share.
 */
#ifndef VERROU_BENCH_HANDOFF_H
#define VERROU_BENCH_HANDOFF_H

#include "bench.h"

#define HANDOFF_ROUNDS 15
#define HANDOFF_TURNS 30  /* a round */
#define HANDOFF_WARM_UP 8 /* turns before that, until all connections are there */
#define HANDOFF_HOLD_MS 5
#define HANDOFF_MAX (HANDOFF_ROUNDS * HANDOFF_TURNS)

/* In shared memory. */
struct handoff {
    char url[512];
    _Atomic int ready;         /* processes that have had the lock once, and so their connections */
    _Atomic int64_t called_ns; /* when the last release was called */
    _Atomic int last;          /* who released */
    _Atomic int turns;         /* of this round; below 0: of the warm-up */
    _Atomic int same;          /* acquisitions by the one who had released */
    double from_call_us[HANDOFF_MAX];
    _Atomic int samples;
};

/* What is handed to and fro: Verrou's lock, or that of a reference. `open` returns what one process has of it. */
struct handoff_lock {
    void *(*open)(const char *url);
    void (*acquire)(void *lock);
    void (*release)(void *lock);
    void (*close)(void *lock);
};

struct handoff_round {
    struct handoff *handoff;
    const struct handoff_lock *lock;
};

static inline void handoff_child(void *arg, int number)
{
    struct handoff *handoff = ((struct handoff_round *)arg)->handoff;
    const struct handoff_lock *calls = ((struct handoff_round *)arg)->lock;
    void *lock = calls->open(handoff->url);

    calls->acquire(lock);
    calls->release(lock);
    handoff->ready++;
    while (handoff->ready < 2)
        bench_sleep_ms(1);
    while (handoff->turns < HANDOFF_TURNS) {
        int64_t acquired_ns;
        int sample;

        calls->acquire(lock);
        acquired_ns = bench_now_ns();
        if (handoff->turns < 0)
            ; /* warming up */
        else if (handoff->last == number)
            handoff->same++;
        else if (handoff->called_ns > 0 && (sample = handoff->samples++) < HANDOFF_MAX)
            handoff->from_call_us[sample] = (double)(acquired_ns - handoff->called_ns) / 1000;
        handoff->turns++;
        bench_sleep_ms(HANDOFF_HOLD_MS);
        handoff->last = number;
        handoff->called_ns = bench_now_ns();
        calls->release(lock);
    }
    calls->close(lock);
}

/* One round: the median, in microseconds. */
static inline double handoff_round(struct handoff *handoff, const struct handoff_lock *lock)
{
    struct handoff_round round = {handoff, lock};
    int before = handoff->samples;
    double times_us[HANDOFF_MAX];
    pid_t pids[2];
    size_t n;

    handoff->ready = 0;
    handoff->turns = -HANDOFF_WARM_UP;
    handoff->called_ns = 0;
    for (int i = 0; i < 2; i++)
        pids[i] = bench_fork(handoff_child, &round, i + 1);
    for (int i = 0; i < 2; i++)
        bench_join(pids[i]);
    n = (size_t)((handoff->samples < HANDOFF_MAX ? handoff->samples : HANDOFF_MAX) - before);
    memcpy(times_us, handoff->from_call_us + before, n * sizeof(*times_us));
    return bench_median(times_us, n);
}

struct handoff_own {
    verrou_store *store;
    verrou_lock *lock;
};

static inline void *handoff_own_open(const char *url)
{
    struct handoff_own *own = bench_alloc(1, sizeof(*own));

    own->store = bench_open(url);
    own->lock = bench_lock(own->store, "account:42");
    return own;
}

static inline void handoff_own_acquire(void *own)
{
    bench_acquire(((struct handoff_own *)own)->lock);
}

static inline void handoff_own_release(void *own)
{
    bench_release(((struct handoff_own *)own)->lock);
}

static inline void handoff_own_close(void *lock)
{
    struct handoff_own *own = lock;

    verrou_lock_free(own->lock);
    verrou_store_close(own->store);
    free(own);
}

static const struct handoff_lock handoff_of_verrou = {handoff_own_open, handoff_own_acquire, handoff_own_release,
                                                      handoff_own_close};

/* All turns of all rounds, sorted. Returns how many. */
static inline int handoff_all(const struct handoff *handoff, double all_us[HANDOFF_MAX])
{
    int n = handoff->samples < HANDOFF_MAX ? handoff->samples : HANDOFF_MAX;

    memcpy(all_us, handoff->from_call_us, (size_t)n * sizeof(*all_us));
    bench_median(all_us, (size_t)n);
    return n;
}

#endif
