/*
 * bench_sqlite.c - the SQLite store: acquire and release a second, beside the bare loop of bare.h on the same database, in turns. (Two
 * databases do not do: how long a disk takes to sync a file may differ by half from one file to the next.)
 *
 * One caller shows what the library adds to SQLite. Many callers, a key each, show group commit: whoever commits takes along what the
 * others want, so that the disk is asked once for all of them.
 */
#include <pthread.h>
#include <stdatomic.h>

#include "bare.h"

#define ROUNDS 41
#define ROUND_MS 50
#define MAX_CALLERS 64

struct bench {
    struct bare bare;
    verrou_lock *locks[MAX_CALLERS];
    int callers;
    atomic_int pairs;
    atomic_bool over;
};

struct caller {
    pthread_t thread;
    struct bench *bench;
    verrou_lock *lock;
};

static double run_bare(void *arg)
{
    struct bench *bench = arg;

    return bare_rate(&bench->bare, ROUND_MS);
}

static void *caller_main(void *arg)
{
    struct caller *caller = arg;

    while (!caller->bench->over) {
        bench_acquire(caller->lock);
        bench_release(caller->lock);
        caller->bench->pairs++;
    }
    return NULL;
}

static double run_one(struct bench *bench)
{
    int64_t begun_ns = bench_now_ns();
    int pairs = 0;

    do {
        bench_acquire(bench->locks[0]);
        bench_release(bench->locks[0]);
        pairs++;
    } while (bench_now_ns() - begun_ns < (int64_t)ROUND_MS * 1000000);
    return pairs * 1e9 / (double)(bench_now_ns() - begun_ns);
}

static double run_store(void *arg)
{
    struct bench *bench = arg;
    struct caller callers[MAX_CALLERS];
    int64_t begun_ns;
    int pairs;

    if (bench->callers == 1)
        return run_one(bench);
    bench->over = false;
    for (int i = 0; i < bench->callers; i++) {
        callers[i] = (struct caller){.bench = bench, .lock = bench->locks[i]};
        if (pthread_create(&callers[i].thread, NULL, caller_main, &callers[i]) != 0)
            bench_die("pthread_create", "no thread");
    }
    bench_sleep_ms(5); /* until all run */
    bench->pairs = 0;
    begun_ns = bench_now_ns();
    bench_sleep_ms(ROUND_MS);
    pairs = bench->pairs;
    begun_ns = bench_now_ns() - begun_ns;
    bench->over = true;
    for (int i = 0; i < bench->callers; i++)
        pthread_join(callers[i].thread, NULL);
    return pairs * 1e9 / (double)begun_ns;
}

static void bench_with(const char *folder, const char *synchronous, const char *const *aims)
{
    static const int callers[] = {1, 8, 64};
    struct bench bench = {.callers = 0};
    char text[512];
    verrou_store *store;

    bare_open(&bench.bare, folder, "store.db", synchronous);
    snprintf(text, sizeof(text), "sqlite:%s/store.db?synchronous=%s", folder, synchronous);
    store = bench_open(text);
    for (int i = 0; i < MAX_CALLERS; i++) {
        snprintf(text, sizeof(text), "account:%d", i);
        bench.locks[i] = bench_lock(store, text);
        bench_acquire(bench.locks[i]);
        bench_release(bench.locks[i]);
    }
    snprintf(text, sizeof(text), "SQLite %s, synchronous=%s", sqlite3_libversion(), synchronous);
    bench_head(text);
    for (size_t i = 0; i < sizeof(callers) / sizeof(callers[0]); i++) {
        struct bench_figures figures;
        char measured[BENCH_CELL], reference[BENCH_CELL];

        bench.callers = callers[i];
        run_store(&bench);
        figures = bench_rounds(ROUNDS, run_store, run_bare, &bench);
        snprintf(text, sizeof(text), "acquire+release, %d caller%s", callers[i],
                 callers[i] == 1 ? "" : "s, a key each");
        bench_row(text, aims[i], bench_cell(measured, "%.0f pairs/s", figures.subject),
                  bench_cell(reference, "bare loop %.0f pairs/s", figures.reference), figures.ratio);
    }
    for (int i = 0; i < MAX_CALLERS; i++)
        verrou_lock_free(bench.locks[i]);
    verrou_store_close(store);
    bare_close(&bench.bare);
    bench_file_remove(folder, "store.db");
}

int main(void)
{
    static const char *const aims[] = {"> 0.9", "", "> 2"};
    static const char *const none[] = {"", "", ""};
    char folder[256];

    bench_folder_make(folder, sizeof(folder));
    bench_with(folder, "full", aims);
    bench_with(folder, "normal", none);
    rmdir(folder);
    return 0;
}
