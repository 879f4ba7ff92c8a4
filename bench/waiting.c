/*
 * waiting.c - what 1,000 waiters of one held key cost while nothing happens: requests to the server, and memory.
 */
#include "counting.h"
#include "subject.h"

#define WAITERS 1000
#define WAIT_MS 10000
#define SETTLE_MS 1000

static void holder_main(void *arg, int number)
{
    const struct subject *subject = arg;
    verrou_store *store = bench_open(subject->url);
    verrou_lock *lock = bench_lock(store, "held");

    (void)number;
    bench_acquire(lock);
    verrou_lock_free(lock); /* the lease stays */
    verrou_store_close(store);
}

static void count_answer(void *user, const verrou_result *result)
{
    (void)result;
    ++*(int *)user;
}

struct waiting {
    const struct subject *subject;
    int requests;
};

static void print_waiting(const struct waiting *waiting, long long requests, int64_t bytes)
{
    struct bench_figures figures = {0};
    char what[64], measured[BENCH_CELL], aim[BENCH_CELL];

    snprintf(what, sizeof(what), "%s in 10 s, 1,000 waiters of one key", waiting->subject->requests);
    bench_cell(measured, "%lld", requests);
    if (waiting->requests) {
        figures.ratio = (double)requests / waiting->requests;
        bench_verdict(what, bench_cell(aim, "<= %d", waiting->requests), measured, "", &figures, figures.ratio <= 1);
    } else {
        bench_line(what, "", measured, "", "");
    }
    figures.ratio = (double)bytes / WAITERS / 1024;
    bench_verdict("  bytes of a waiter and its handle", "<= 1024",
                  bench_cell(measured, "%.0f", (double)bytes / WAITERS), "", &figures, bytes <= WAITERS * 1024);
}

/* In a process of its own, so that the allocator can count. */
static void waiters_main(void *arg, int number)
{
    const struct waiting *waiting = arg;
    const struct subject *subject = waiting->subject;
    verrou_acquire_options options = VERROU_ACQUIRE_OPTIONS_INIT;
    verrou_lock **locks = bench_alloc(WAITERS, sizeof(verrou_lock *));
    verrou_queue *queue = NULL;
    verrou_store *store;
    int answered = 0;
    int64_t bytes;

    (void)number;
    counting_begin();
    store = bench_open(subject->url);
    bench_need(verrou_queue_new(&queue, NULL), NULL, "queue");
    bench_need(verrou_cancel_new(&options.cancel, NULL), NULL, "cancel token");
    bytes = bytes_in_use;
    for (int i = 0; i < WAITERS; i++) {
        locks[i] = bench_lock(store, "held");
        bench_need(verrou_lock_acquire_async(locks[i], &options, queue, count_answer, &answered, NULL), NULL,
                   "acquire");
    }
    bench_sleep_ms(SETTLE_MS);
    bytes = bytes_in_use - bytes;
    subject->count_begin(subject->server);
    bench_sleep_ms(WAIT_MS);
    print_waiting(waiting, subject->count_end(subject->server), bytes);

    verrou_cancel_fire(options.cancel);
    while (answered < WAITERS)
        verrou_dispatch(queue, 0);
    for (int i = 0; i < WAITERS; i++)
        verrou_lock_free(locks[i]);
    verrou_cancel_free(options.cancel);
    verrou_queue_free(queue);
    verrou_store_close(store);
    free(locks);
}

void subject_waiting(const struct subject *subject, int requests)
{
    struct waiting waiting = {subject, requests};

    bench_join(bench_fork(holder_main, (void *)subject, 0));
    bench_join(bench_fork(waiters_main, &waiting, 0));
}
