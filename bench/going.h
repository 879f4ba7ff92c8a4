/*
 * going.h - one key that everybody wants and holds for no time, in one process or in several: changes of owner a second.
 *
 * Waiters are threads. Who takes the lock again right after his own release does not count as a change.
 */
#ifndef VERROU_BENCH_GOING_H
#define VERROU_BENCH_GOING_H

#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>

#include "bench.h"

#define GOING_ROUNDS 5
#define GOING_MS 500
#define GOING_MAX_WAITERS 128
#define GOING_MAX_PROCESSES 8

/* In shared memory. */
struct going {
    char url[512];
    int processes;
    int threads; /* of a process */
    atomic_int ready;
    atomic_int begun;
    atomic_int over;
    atomic_int last; /* who had the lock */
    atomic_long changes;
    atomic_long all_changes; /* of all rounds, those before and after the measured time included */
    atomic_long served[GOING_MAX_WAITERS];
    atomic_long errors; /* that waiters saw, and one of them */
    char error[256];
};

struct going_waiter {
    pthread_t thread;
    struct going *going;
    verrou_store *store;
    int number;
};

static inline void going_served(struct going *going, int number)
{
    if (!going->over) /* afterwards those come who never could before */
        going->served[number]++;
    if (going->last != number) {
        going->changes++;
        going->all_changes++;
    }
    going->last = number;
}

/* Note an error of a waiter, who goes on. */
static inline void going_failed(struct going *going, verrou_status status, const verrou_error *err)
{
    if (going->errors++ == 0)
        snprintf(going->error, sizeof(going->error), "%.255s",
                 err && err->message[0] ? err->message : verrou_status_text(status));
    bench_sleep_ms(1);
}

static inline void going_wait_begin(struct going *going, int waiters)
{
    going->ready += waiters;
    while (!going->begun)
        bench_sleep_ms(1);
}

static inline void *going_waiter_main(void *arg)
{
    struct going_waiter *waiter = arg;
    struct going *going = waiter->going;
    verrou_lock *lock = bench_lock(waiter->store, "account:42");
    verrou_error err = VERROU_ERROR_INIT;

    going_wait_begin(going, 1);
    while (!going->over) {
        verrou_status status = verrou_lock_acquire(lock, NULL, NULL, &err);

        if (status == VERROU_OK) {
            going_served(going, waiter->number);
            status = verrou_lock_release(lock, NULL, &err);
        }
        if (status != VERROU_OK)
            going_failed(going, status, &err);
    }
    verrou_lock_free(lock);
    return NULL;
}

static inline void going_process(void *arg, int number)
{
    struct going *going = arg;
    struct going_waiter waiters[GOING_MAX_WAITERS];
    verrou_store *store = bench_open(going->url);

    for (int i = 0; i < going->threads; i++) {
        waiters[i] = (struct going_waiter){.going = going, .store = store, .number = number * going->threads + i};
        if (pthread_create(&waiters[i].thread, NULL, going_waiter_main, &waiters[i]) != 0)
            bench_die("pthread_create", "no thread");
    }
    for (int i = 0; i < going->threads; i++)
        pthread_join(waiters[i].thread, NULL);
    verrou_store_close(store);
}

/* One round: changes of owner a second. `process` runs going->threads waiters. */
static inline double going_round(struct going *going, void (*process)(void *, int))
{
    pid_t pids[GOING_MAX_PROCESSES];
    int64_t begun_ns;
    long changes;

    going->ready = going->begun = going->over = 0;
    for (int i = 0; i < going->processes; i++)
        pids[i] = bench_fork(process, going, i);
    while (going->ready < going->processes * going->threads)
        bench_sleep_ms(1);
    going->changes = 0;
    begun_ns = bench_now_ns();
    going->begun = 1;
    bench_sleep_ms(GOING_MS);
    changes = going->changes;
    begun_ns = bench_now_ns() - begun_ns;
    going->over = 1;
    for (int i = 0; i < going->processes; i++)
        bench_join(pids[i]);
    return (double)changes * 1e9 / (double)begun_ns;
}

/* Set the number of waiters, in that many processes or, if they are fewer, in one each. */
static inline void going_set(struct going *going, int processes, int waiters)
{
    going->processes = waiters < processes ? waiters : processes;
    going->threads = waiters / going->processes;
    going->all_changes = 0;
    going->errors = 0;
    memset(going->served, 0, sizeof(going->served));
}

/* The least and the most of some sums over as many waiters each, one after the other. */
static inline void going_print_share(const struct going *going, const char *what, int waiters)
{
    long least = LONG_MAX, most = 0;
    char measured[BENCH_CELL], compared[BENCH_CELL], ratio[BENCH_CELL];

    for (int i = 0; i < going->processes * going->threads; i += waiters) {
        long sum = 0;

        for (int j = i; j < i + waiters; j++)
            sum += going->served[j];
        least = sum < least ? sum : least;
        most = sum > most ? sum : most;
    }
    bench_line(
        what, "least > 0", bench_cell(measured, "%ld", least), bench_cell(compared, "%ld", most),
        bench_cell(ratio, "%.3f  %s", most > 0 ? (double)least / (double)most : 0, least > 0 ? "met" : "NOT MET"));
}

/* How often who came least, and who came most, was served in all rounds; and whether a waiter saw an error. */
static inline void going_print_served(const struct going *going)
{
    char measured[BENCH_CELL];

    going_print_share(going, "  served: least and most of one waiter", 1);
    if (going->processes > 1)
        going_print_share(going, "  served: least and most of one process", going->threads);
    if (going->errors > 0)
        bench_line("  errors seen by waiters", "0", bench_cell(measured, "%ld", going->errors), going->error,
                   "NOT MET");
}

#endif
