/*
 * bench_waiters.c - many who want the same lock: what 10,000 waiters cost while nothing happens, and how fast a lock goes round when
 * everybody wants it, in one process and in four.
 *
 * Waiters that wait cost processor time and requests. Time is what getrusage() says of this process; requests are counted by SQLite's
 * own trace of each statement that the store begins.
 */
#include <dirent.h>
#include <sys/resource.h>

#include "bare.h"
#include "going.h"

#define WAITERS 10000
#define WAIT_MS 2000

/* ---- counting from outside ---- */

static atomic_long statements;

static int count_statement(unsigned what, void *context, void *statement, void *text)
{
    (void)what, (void)context, (void)statement, (void)text;
    statements++;
    return 0;
}

/* Called by SQLite for each connection that anybody in this process opens. */
static int trace_connection(sqlite3 *db, const char **ret_message, const void *api)
{
    (void)ret_message, (void)api;
    return sqlite3_trace_v2(db, SQLITE_TRACE_STMT, count_statement, NULL);
}

static int threads_running(void)
{
    DIR *tasks = opendir("/proc/self/task");
    int n = 0;

    if (!tasks)
        return 0;
    for (const struct dirent *entry; (entry = readdir(tasks));)
        n += entry->d_name[0] != '.';
    closedir(tasks);
    return n;
}

static double cpu_ms(void)
{
    struct rusage usage;

    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1e3 +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e3;
}

/* ---- waiting ---- */

struct waiting {
    const char *url;
    int keys;
    atomic_int held; /* by the holder's process */
    atomic_int over;
};

static void key_name(char *out, size_t size, int number)
{
    snprintf(out, size, "account:%d", number);
}

static void hold_keys(verrou_store *store, int keys)
{
    char key[32];

    for (int i = 0; i < keys; i++) {
        verrou_lock *lock;

        key_name(key, sizeof(key), i);
        lock = bench_lock(store, key);
        bench_acquire(lock);
        verrou_lock_free(lock); /* the lease stays */
    }
}

static void holder_main(void *arg, int number)
{
    struct waiting *waiting = arg;
    verrou_store *store = bench_open(waiting->url);

    (void)number;
    hold_keys(store, waiting->keys);
    waiting->held = 1;
    while (!waiting->over)
        bench_sleep_ms(10);
    verrou_store_close(store);
}

static void count_answer(void *user, const verrou_result *result)
{
    (void)result;
    ++*(int *)user;
}

/* Let all of them wait, and measure once they have settled down. */
static void measure_waiting(const struct waiting *waiting, verrou_store *store, bool traced)
{
    verrou_acquire_options options = VERROU_ACQUIRE_OPTIONS_INIT;
    verrou_lock **locks = bench_alloc(WAITERS, sizeof(verrou_lock *));
    verrou_queue *queue = NULL;
    char text[96], key[32], measured[BENCH_CELL], reference[BENCH_CELL];
    int threads = threads_running();
    int answered = 0;
    long before;
    double cpu;

    bench_need(verrou_queue_new(&queue, NULL), NULL, "queue");
    bench_need(verrou_cancel_new(&options.cancel, NULL), NULL, "cancel token");
    for (int i = 0; i < WAITERS; i++) {
        key_name(key, sizeof(key), i % waiting->keys);
        locks[i] = bench_lock(store, key);
        bench_need(verrou_lock_acquire_async(locks[i], &options, queue, count_answer, &answered, NULL), NULL,
                   "acquire");
    }
    bench_sleep_ms(1000);
    before = statements;
    cpu = cpu_ms();
    bench_sleep_ms(WAIT_MS);
    cpu = cpu_ms() - cpu;
    before = statements - before;
    threads = threads_running() - threads;

    snprintf(text, sizeof(text), "%.7s, %d key%s: processor time", waiting->url, waiting->keys,
             waiting->keys == 1 ? "" : "s");
    bench_row(text, "", bench_cell(measured, "%.2f ms", cpu), bench_cell(reference, "%d ms of waiting", WAIT_MS),
              cpu / WAIT_MS);
    if (traced)
        bench_row("  statements begun", "", bench_cell(measured, "%ld", before),
                  bench_cell(reference, "%d waiters", WAITERS), (double)before / WAITERS);
    bench_row("  threads started", "none a waiter", bench_cell(measured, "%d", threads),
              bench_cell(reference, "%d waiters", WAITERS), (double)threads / WAITERS);
    verrou_cancel_fire(options.cancel);
    while (answered < WAITERS)
        verrou_dispatch(queue, 0);
    for (int i = 0; i < WAITERS; i++)
        verrou_lock_free(locks[i]);
    free(locks);
    verrou_cancel_free(options.cancel);
    verrou_queue_free(queue);
}

static void bench_waiting_memory(int keys)
{
    struct waiting waiting = {.url = "memory:", .keys = keys};
    verrou_store *store = bench_open(waiting.url);

    hold_keys(store, keys);
    measure_waiting(&waiting, store, false);
    verrou_store_close(store);
}

static void bench_waiting_sqlite(const char *folder, int keys)
{
    struct waiting *waiting = bench_share(sizeof(*waiting));
    char url[512];
    verrou_store *store;
    pid_t pid;

    snprintf(url, sizeof(url), "sqlite:%s/wait.db", folder);
    waiting->url = url;
    waiting->keys = keys;
    pid = bench_fork(holder_main, waiting, 0);
    while (!waiting->held)
        bench_sleep_ms(1);
    store = bench_open(url);
    measure_waiting(waiting, store, true);
    verrou_store_close(store);
    waiting->over = 1;
    bench_join(pid);
    bench_file_remove(folder, "wait.db");
    munmap(waiting, sizeof(*waiting));
}

/* ---- going round ---- */

struct bench {
    struct going *going;
    struct bare bare;
};

static double run_going(void *arg)
{
    return going_round(((struct bench *)arg)->going, going_process);
}

static double run_bare(void *arg)
{
    const struct bench *bench = arg;

    return bare_rate(&bench->bare, GOING_MS / 2);
}

/* Two threads that hand a turn to each other with a mutex and a condition: what a change of owner costs without a lock service. */
struct turns {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    int turn;
    bool over;
    long changes;
};

struct turner {
    struct turns *turns;
    int number;
};

static void *turner_main(void *arg)
{
    const struct turner *turner = arg;
    struct turns *turns = turner->turns;

    pthread_mutex_lock(&turns->mutex);
    while (!turns->over) {
        if (turns->turn == turner->number) {
            turns->turn = !turns->turn;
            turns->changes++;
            pthread_cond_signal(&turns->changed);
        }
        while (turns->turn != turner->number && !turns->over)
            pthread_cond_wait(&turns->changed, &turns->mutex);
    }
    pthread_mutex_unlock(&turns->mutex);
    return NULL;
}

static double run_turns(void *arg)
{
    struct turns turns = {.mutex = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};
    struct turner turners[2] = {{&turns, 0}, {&turns, 1}};
    pthread_t threads[2];
    int64_t begun_ns = bench_now_ns();

    (void)arg;
    for (int i = 0; i < 2; i++)
        if (pthread_create(&threads[i], NULL, turner_main, &turners[i]) != 0)
            bench_die("pthread_create", "no thread");
    bench_sleep_ms(GOING_MS / 2);
    pthread_mutex_lock(&turns.mutex);
    turns.over = true;
    begun_ns = bench_now_ns() - begun_ns;
    pthread_cond_broadcast(&turns.changed);
    pthread_mutex_unlock(&turns.mutex);
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    return (double)turns.changes * 1e9 / (double)begun_ns;
}

static void bench_going_with(struct bench *bench, int processes, int waiters, double (*reference)(void *),
                             const char *reference_name)
{
    struct going *going = bench->going;
    struct bench_figures figures;
    char text[96], measured[BENCH_CELL], compared[BENCH_CELL];

    going_set(going, processes, waiters);
    figures = bench_rounds(GOING_ROUNDS, run_going, reference, bench);
    snprintf(text, sizeof(text), "%.7s %d waiters in %d process%s", going->url, waiters, going->processes,
             going->processes == 1 ? "" : "es");
    bench_row(text, "", bench_cell(measured, "%.0f/s", figures.subject),
              bench_cell(compared, "%s %.0f/s", reference_name, figures.reference), figures.ratio);
    going_print_served(going);
}

static void bench_going(const char *folder)
{
    static const int waiters[] = {2, 8, 32};
    struct bench bench = {.going = bench_share(sizeof(*bench.going))};

    bench_head("changes of owner, one key, held for no time");
    strcpy(bench.going->url, "memory:");
    for (size_t i = 0; i < sizeof(waiters) / sizeof(waiters[0]); i++)
        bench_going_with(&bench, 1, waiters[i], run_turns, "condition variable");
    bare_open(&bench.bare, folder, "bare.db", "full");
    snprintf(bench.going->url, sizeof(bench.going->url), "sqlite:%s/going.db", folder);
    for (int processes = 1; processes <= 4; processes += 3)
        for (size_t i = 0; i < sizeof(waiters) / sizeof(waiters[0]); i++)
            bench_going_with(&bench, processes, waiters[i], run_bare, "bare loop");
    bare_close(&bench.bare);
    bench_file_remove(folder, "bare.db");
    bench_file_remove(folder, "going.db");
    munmap(bench.going, sizeof(*bench.going));
}

int main(void)
{
    char folder[256];

    bench_folder_make(folder, sizeof(folder));
    /* The going round comes first: it forks, and there is no thread in this process yet. */
    bench_going(folder);
    sqlite3_auto_extension((void (*)(void))trace_connection);
    bench_head("10,000 asynchronous acquires that wait");
    bench_waiting_memory(1);
    bench_waiting_memory(100);
    bench_waiting_sqlite(folder, 1);
    bench_waiting_sqlite(folder, 100);
    rmdir(folder);
    return 0;
}
