/*
 * bench_memory.c - the memory store: an uncontended acquire and release, beside an uncontended pthread_mutex_lock() and unlock(), and
 * what a handle and a waiter weigh.
 *
 * Each thread has a key and a mutex of its own. The figure of several threads is the time that one pair takes in one of them, so on a
 * machine with fewer processors than threads it grows for the mutex, too.
 */
#include <pthread.h>
#include <stdatomic.h>

#include "counting.h"

/* Rounds of one thread are shorter than a time slice, so that most of them are not interrupted. */
#define ROUNDS_ALONE 201
#define PAIRS_ALONE 5000
#define ROUNDS 15
#define PAIRS 100000 /* of acquire and release, all threads together */
#define MUTEX_FACTOR 10
#define MAX_THREADS 8

struct worker {
    pthread_t thread;
    verrou_lock *lock;
    pthread_mutex_t mutex;
    int pairs;
    char apart[128]; /* mutexes of two threads share no cache line */
};

struct bench {
    int threads;
    struct worker workers[MAX_THREADS];
};

static void *lock_main(void *arg)
{
    struct worker *worker = arg;

    for (int i = 0; i < worker->pairs; i++) {
        bench_acquire(worker->lock);
        bench_release(worker->lock);
    }
    return NULL;
}

static void *mutex_main(void *arg)
{
    struct worker *worker = arg;

    for (int i = 0; i < worker->pairs * MUTEX_FACTOR; i++) {
        pthread_mutex_lock(&worker->mutex);
        pthread_mutex_unlock(&worker->mutex);
    }
    return NULL;
}

/* Nanoseconds that `threads` threads take for `pairs` pairs each, divided by `pairs`. */
static double bench_run(struct bench *bench, void *(*body)(void *), int factor)
{
    int pairs = bench->threads == 1 ? PAIRS_ALONE : PAIRS / bench->threads;
    int64_t begun_ns = bench_now_ns();

    for (int i = 0; i < bench->threads; i++) {
        bench->workers[i].pairs = pairs;
        if (bench->threads == 1)
            body(&bench->workers[i]);
        else if (pthread_create(&bench->workers[i].thread, NULL, body, &bench->workers[i]) != 0)
            bench_die("pthread_create", "no thread");
    }
    for (int i = 0; i < bench->threads && bench->threads > 1; i++)
        pthread_join(bench->workers[i].thread, NULL);
    return (double)(bench_now_ns() - begun_ns) / pairs / factor;
}

static double run_locks(void *arg)
{
    return bench_run(arg, lock_main, 1);
}

static double run_mutexes(void *arg)
{
    return bench_run(arg, mutex_main, MUTEX_FACTOR);
}

static void bench_pairs(void)
{
    static const int threads[] = {1, 2, 8};
    static const char *const names[] = {"acquire+release, 1 thread", "acquire+release, 2 threads, a key each",
                                        "acquire+release, 8 threads, a key each"};
    verrou_store *store = bench_open("memory:");
    struct bench *bench = bench_alloc(1, sizeof(*bench));

    for (int i = 0; i < MAX_THREADS; i++) {
        char key[32];

        snprintf(key, sizeof(key), "account:%d", i);
        bench->workers[i].lock = bench_lock(store, key);
        pthread_mutex_init(&bench->workers[i].mutex, NULL);
    }
    bench_head("memory: time of a pair");
    for (size_t i = 0; i < sizeof(threads) / sizeof(threads[0]); i++) {
        struct bench_figures figures;
        char measured[BENCH_CELL], reference[BENCH_CELL];

        bench->threads = threads[i];
        run_locks(bench);
        figures = bench_rounds(threads[i] == 1 ? ROUNDS_ALONE : ROUNDS, run_locks, run_mutexes, bench);
        bench_row(names[i], i == 0 ? "< 200 ns" : "", bench_cell(measured, "%.0f ns", figures.subject),
                  bench_cell(reference, "mutex pair %.1f ns", figures.reference), figures.ratio);
    }
    for (int i = 0; i < MAX_THREADS; i++) {
        verrou_lock_free(bench->workers[i].lock);
        pthread_mutex_destroy(&bench->workers[i].mutex);
    }
    free(bench);
    verrou_store_close(store);
}

/* ---- bytes ---- */

#define HANDLES 1000
static void count_canceled(void *user, const verrou_result *result)
{
    if (result->status == VERROU_ECANCELED)
        ++*(int *)user;
}

static double make_handles(verrou_store *store, verrou_lock **locks, const char *format)
{
    int64_t before = bytes_in_use;

    for (int i = 0; i < HANDLES; i++) {
        char key[32];

        snprintf(key, sizeof(key), format, i);
        locks[i] = bench_lock(store, key);
    }
    return (double)(bytes_in_use - before) / HANDLES;
}

/* The bytes of an acquire that waits. It is answered by a cancellation, so that everything is freed again. */
static double make_waiters(verrou_lock **locks, verrou_queue *queue)
{
    verrou_acquire_options options = VERROU_ACQUIRE_OPTIONS_INIT;
    int64_t before;
    double bytes;
    int canceled = 0;

    bench_need(verrou_cancel_new(&options.cancel, NULL), NULL, "cancel token");
    before = bytes_in_use;
    for (int i = 0; i < HANDLES; i++)
        bench_need(verrou_lock_acquire_async(locks[i], &options, queue, count_canceled, &canceled, NULL), NULL,
                   "asynchronous acquire");
    bytes = (double)(bytes_in_use - before) / HANDLES;
    verrou_cancel_fire(options.cancel);
    while (canceled < HANDLES)
        verrou_dispatch(queue, 0);
    verrou_cancel_free(options.cancel);
    return bytes;
}

static void bench_bytes_of(verrou_store *store, verrou_queue *queue, const char *format, const char *handle_name,
                           const char *waiter_name)
{
    verrou_lock *locks[HANDLES];
    verrou_lock *holders[HANDLES];
    char measured[BENCH_CELL];
    double handle = make_handles(store, locks, format);
    double waiter;
    bool one_key = !strchr(format, '%');

    make_handles(store, holders, format);
    for (int i = 0; i < (one_key ? 1 : HANDLES); i++)
        bench_acquire(holders[i]);
    waiter = handle + make_waiters(locks, queue);
    bench_row(handle_name, "< 256 bytes", bench_cell(measured, "%.0f bytes", handle), "256 bytes", handle / 256);
    bench_row(waiter_name, "< 1024 bytes", bench_cell(measured, "%.0f bytes", waiter), "1024 bytes", waiter / 1024);
    for (int i = 0; i < HANDLES; i++) {
        verrou_lock_free(locks[i]);
        verrou_lock_free(holders[i]);
    }
}

static void bench_bytes(void)
{
    verrou_store *store = bench_open("memory:");
    verrou_queue *queue = NULL;

    bench_need(verrou_queue_new(&queue, NULL), NULL, "queue");
    bench_head("memory: bytes, with the allocator's own");
    bench_bytes_of(store, queue, "account:%03d", "an idle handle, key of 11 bytes",
                   "a waiter and its handle, a key each");
    bench_bytes_of(store, queue, "account:42", "an idle handle, key of 10 bytes",
                   "a waiter and its handle, all for one key");
    verrou_queue_free(queue);
    verrou_store_close(store);
}

int main(void)
{
    counting_begin();
    bench_bytes();
    if (verrou_set_allocator(malloc, realloc, free) != VERROU_OK)
        return 1;
    bench_pairs();
    return 0;
}
