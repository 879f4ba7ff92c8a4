/*
 * handoff.h - two processes take turns on one key and hold it for a while each, so that the other one is surely asleep when the lock is
 * given back: the time from the call of release in one to the acquisition by the other. The clock is CLOCK_MONOTONIC, which all
 * processes share.
 */
#ifndef VERROU_BENCH_HANDOFF_H
#define VERROU_BENCH_HANDOFF_H

#include "bench.h"

#define HANDOFF_ROUNDS 15
#define HANDOFF_TURNS 30 /* a round */
#define HANDOFF_HOLD_MS 5
#define HANDOFF_MAX (HANDOFF_ROUNDS * HANDOFF_TURNS)

/* In shared memory. */
struct handoff {
    char url[512];
    _Atomic int64_t called_ns; /* when the last release was called */
    _Atomic int last;          /* who released */
    _Atomic int turns;         /* of this round */
    _Atomic int same;          /* acquisitions by the one who had released */
    double from_call_us[HANDOFF_MAX];
    _Atomic int samples;
};

static inline void handoff_child(void *arg, int number)
{
    struct handoff *handoff = arg;
    verrou_store *store = bench_open(handoff->url);
    verrou_lock *lock = bench_lock(store, "account:42");

    while (handoff->turns < HANDOFF_TURNS) {
        int64_t acquired_ns;
        int sample;

        bench_acquire(lock);
        acquired_ns = bench_now_ns();
        if (handoff->last == number)
            handoff->same++;
        else if (handoff->called_ns > 0 && (sample = handoff->samples++) < HANDOFF_MAX)
            handoff->from_call_us[sample] = (double)(acquired_ns - handoff->called_ns) / 1000;
        handoff->turns++;
        bench_sleep_ms(HANDOFF_HOLD_MS);
        handoff->last = number;
        handoff->called_ns = bench_now_ns();
        bench_release(lock);
    }
    verrou_lock_free(lock);
    verrou_store_close(store);
}

/* One round: the median, in microseconds. */
static inline double handoff_round(struct handoff *handoff)
{
    int before = handoff->samples;
    double times_us[HANDOFF_MAX];
    pid_t pids[2];
    size_t n;

    handoff->turns = 0;
    handoff->called_ns = 0;
    for (int i = 0; i < 2; i++)
        pids[i] = bench_fork(handoff_child, handoff, i + 1);
    for (int i = 0; i < 2; i++)
        bench_join(pids[i]);
    n = (size_t)((handoff->samples < HANDOFF_MAX ? handoff->samples : HANDOFF_MAX) - before);
    memcpy(times_us, handoff->from_call_us + before, n * sizeof(*times_us));
    return bench_median(times_us, n);
}

/* All turns of all rounds, sorted. Returns how many. */
static inline int handoff_all(const struct handoff *handoff, double all_us[HANDOFF_MAX])
{
    int n = handoff->samples < HANDOFF_MAX ? handoff->samples : HANDOFF_MAX;

    memcpy(all_us, handoff->from_call_us, (size_t)n * sizeof(*all_us));
    bench_median(all_us, (size_t)n);
    return n;
}

#endif
