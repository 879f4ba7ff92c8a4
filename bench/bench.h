/*
 * bench.h - what the benchmarks share: time, medians, the table, a folder for databases, and processes.
 *
 * One idea: a machine that others use too gives no absolute figures. So a subject and its reference run in turns, in short rounds; each
 * round gives one ratio, and the median of the rounds is what is printed. A missed aim is printed like any other figure.
 */
#ifndef VERROU_BENCH_H
#define VERROU_BENCH_H

#include <poll.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <verrou/verrou.h>

#define BENCH_MAX_ROUNDS 256
#define BENCH_CELL 40

static inline int64_t bench_now_ns(void)
{
    struct timespec at;

    clock_gettime(CLOCK_MONOTONIC, &at);
    return (int64_t)at.tv_sec * 1000000000 + at.tv_nsec;
}

static inline void bench_sleep_ms(int64_t ms)
{
    struct timespec span = {(time_t)(ms / 1000), (long)(ms % 1000) * 1000000};

    nanosleep(&span, NULL);
}

/* For loops of a certain time: may another one begin, and how many a second were they? */
static inline bool bench_goes_on(int64_t begun_ns, int64_t ms)
{
    return bench_now_ns() - begun_ns < ms * 1000000;
}

static inline double bench_rate_since(long pairs, int64_t begun_ns)
{
    return (double)pairs * 1e9 / (double)(bench_now_ns() - begun_ns);
}

_Noreturn static inline void bench_die(const char *what, const char *why)
{
    fprintf(stderr, "benchmark: %s: %s\n", what, why);
    exit(1);
}

static inline void bench_need(verrou_status status, const verrou_error *err, const char *what)
{
    if (status != VERROU_OK)
        bench_die(what, err && err->message[0] ? err->message : verrou_status_text(status));
}

static inline void *bench_alloc(size_t count, size_t size)
{
    void *block = calloc(count, size);

    if (!block)
        bench_die("calloc", "out of memory");
    return block;
}

/* ---- medians ---- */

static inline int bench_compare(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;

    return (x > y) - (x < y);
}

/* Sorts the values. */
static inline double bench_median(double *values, size_t n)
{
    if (n == 0)
        return 0;
    qsort(values, n, sizeof(*values), bench_compare);
    return n % 2 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

struct bench_figures {
    double subject;
    double reference;
    double ratio;     /* median of the rounds' ratios, not ratio of the medians */
    double low, high; /* their quartiles: how much the machine was disturbed */
};

/* Run both in turns. Each returns its figure: a time, or a rate. */
static inline struct bench_figures bench_rounds(size_t rounds, double (*subject)(void *), double (*reference)(void *),
                                                void *arg)
{
    double subjects[BENCH_MAX_ROUNDS];
    double references[BENCH_MAX_ROUNDS];
    double ratios[BENCH_MAX_ROUNDS];

    for (size_t i = 0; i < rounds; i++) {
        references[i] = reference(arg);
        subjects[i] = subject(arg);
        ratios[i] = subjects[i] / references[i];
    }
    return (struct bench_figures){.subject = bench_median(subjects, rounds),
                                  .reference = bench_median(references, rounds),
                                  .ratio = bench_median(ratios, rounds),
                                  .low = ratios[rounds / 4],
                                  .high = ratios[rounds - 1 - rounds / 4]};
}

/* ---- the table ---- */

static inline const char *bench_cell(char cell[BENCH_CELL], const char *format, ...) VERROU_PRINTF(2, 3);
static inline const char *bench_cell(char cell[BENCH_CELL], const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(cell, BENCH_CELL, format, args);
    va_end(args);
    return cell;
}

static inline void bench_line(const char *what, const char *aim, const char *measured, const char *reference,
                              const char *ratio)
{
    printf("%-50s  %-14s  %-20s  %-28s  %s\n", what, aim, measured, reference, ratio);
    fflush(stdout);
}

static inline void bench_head(const char *title)
{
    printf("\n");
    bench_line(title, "aim", "measured", "reference", "ratio");
}

static inline void bench_row(const char *what, const char *aim, const char *measured, const char *reference,
                             double ratio)
{
    char cell[BENCH_CELL];

    bench_line(what, aim, measured, reference, bench_cell(cell, ratio < 0.995 ? "%.3f" : "%.2f", ratio));
}

/* A ratio with its quartiles (none if they are 0), and whether the aim is met, if there is one. */
static inline void bench_verdict(const char *what, const char *aim, const char *measured, const char *reference,
                                 const struct bench_figures *figures, bool met)
{
    char cell[BENCH_CELL];
    int used = snprintf(cell, sizeof(cell), "%.2f", figures->ratio);

    if (figures->high > 0)
        used += snprintf(cell + used, sizeof(cell) - (size_t)used, " (%.2f to %.2f)", figures->low, figures->high);
    if (aim[0])
        snprintf(cell + used, sizeof(cell) - (size_t)used, "%s", met ? "  met" : "  NOT MET");
    bench_line(what, aim, measured, reference, cell);
}

/* ---- databases ---- */

/* A folder of our own in TMPDIR or /tmp, whose name goes into `out`. */
static inline void bench_folder_make(char *out, size_t size)
{
    const char *parent = getenv("TMPDIR");

    snprintf(out, size, "%s/verrou-bench-XXXXXX", parent && parent[0] ? parent : "/tmp");
    if (!mkdtemp(out))
        bench_die(out, "cannot be made");
}

static inline void bench_file_remove(const char *folder, const char *name)
{
    static const char *const suffixes[] = {"", "-wal", "-shm", "-waiters"};
    char path[512];

    for (size_t i = 0; i < sizeof(suffixes) / sizeof(suffixes[0]); i++) {
        snprintf(path, sizeof(path), "%s/%s%s", folder, name, suffixes[i]);
        unlink(path);
    }
}

/* What follows `mark` in the first line of a log that has it. Freed by nobody. */
static inline char *bench_logged(const char *path, const char *mark)
{
    FILE *log = fopen(path, "r");
    char *line = NULL;
    size_t size = 0;

    while (log && getline(&line, &size, log) > 0) {
        char *found = strstr(line, mark);

        if (found) {
            fclose(log);
            found += strlen(mark);
            found[strcspn(found, "\n")] = '\0';
            return found;
        }
    }
    bench_die(path, mark);
}

static inline verrou_store *bench_open(const char *url)
{
    verrou_error err = VERROU_ERROR_INIT;
    verrou_store *store = NULL;

    bench_need(verrou_store_open(url, NULL, &store, &err), &err, url);
    return store;
}

static inline verrou_lock *bench_lock(verrou_store *store, const char *key)
{
    verrou_lock_options options = VERROU_LOCK_OPTIONS_INIT;
    verrou_error err = VERROU_ERROR_INIT;
    verrou_lock *lock = NULL;

    options.ttl_ms = 30000; /* the default of the original and the command */
    bench_need(verrou_lock_new(store, key, &options, &lock, &err), &err, key);
    return lock;
}

/* Without an error slot: zeroing its half kilobyte would be measured as well. */
static inline void bench_acquire(verrou_lock *lock)
{
    bench_need(verrou_lock_acquire(lock, NULL, NULL, NULL), NULL, "acquire");
}

static inline void bench_release(verrou_lock *lock)
{
    bench_need(verrou_lock_release(lock, NULL, NULL), NULL, "release");
}

/* Wait until a call has ended, and run its callback. */
static inline void bench_dispatch(verrou_queue *queue)
{
    struct pollfd ready = {verrou_queue_fd(queue), POLLIN, 0};

    poll(&ready, 1, -1);
    verrou_dispatch(queue, 0);
}

/* ---- processes ---- */

/* Zeroed memory that processes forked later have in common with this one. */
static inline void *bench_share(size_t size)
{
    void *shared = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    if (shared == MAP_FAILED)
        bench_die("mmap", "out of memory");
    return shared;
}

/* Run `body` in a process of its own. */
static inline pid_t bench_fork(void (*body)(void *arg, int number), void *arg, int number)
{
    pid_t pid;

    fflush(stdout);
    pid = fork();
    if (pid < 0)
        bench_die("fork", "no process");
    if (pid == 0) {
        body(arg, number);
        _exit(0);
    }
    return pid;
}

static inline void bench_join(pid_t pid)
{
    int status = 0;

    if (waitpid(pid, &status, 0) != pid || status != 0)
        bench_die("a process of the benchmark", "failed");
}

#endif
