/*
 * bench_handoff.c - from a release in one process to the acquisition by a waiter in another one.
 *
 * Two processes take turns on one key and hold it for a while each, so that the other one is surely asleep when the lock is given
 * back. The clock is CLOCK_MONOTONIC, which all processes share. "From the call" includes the commit of the release and that of the
 * acquisition, whose cost alone is shown as a bare pair; the reference of the table is a byte sent through a pipe to a sleeping process.
 */
#include "bare.h"
#include "handoff.h"

struct bench {
    struct bare bare;
    struct handoff *handoff;
    _Atomic int64_t *returned_ns; /* when the byte was there */
    int ping[2];
    int pong[2];
};

/* ---- the reference: a byte through a pipe ---- */

static void pipe_child(void *arg, int number)
{
    struct bench *bench = arg;
    char byte;

    (void)number;
    for (int i = 0; i < HANDOFF_TURNS; i++) {
        if (read(bench->ping[0], &byte, 1) != 1)
            bench_die("pipe", "closed");
        *bench->returned_ns = bench_now_ns();
        if (write(bench->pong[1], &byte, 1) != 1)
            bench_die("pipe", "closed");
    }
}

static double run_pipe(void *arg)
{
    struct bench *bench = arg;
    double times_us[HANDOFF_TURNS];
    pid_t pid = bench_fork(pipe_child, bench, 0);

    for (int i = 0; i < HANDOFF_TURNS; i++) {
        int64_t sent_ns;
        char byte = 0;

        bench_sleep_ms(HANDOFF_HOLD_MS); /* the other one is asleep again */
        sent_ns = bench_now_ns();
        if (write(bench->ping[1], &byte, 1) != 1 || read(bench->pong[0], &byte, 1) != 1)
            bench_die("pipe", "closed");
        times_us[i] = (double)(*bench->returned_ns - sent_ns) / 1000;
    }
    bench_join(pid);
    return bench_median(times_us, HANDOFF_TURNS);
}

/* ---- the subject ---- */

static double run_handoff(void *arg)
{
    return handoff_round(((struct bench *)arg)->handoff, &handoff_of_verrou);
}

/* Two commits after as long a pause: a disk and a processor that slept are slower than in a loop. */
static double run_bare(const struct bench *bench)
{
    double times_us[HANDOFF_TURNS];

    for (int i = 0; i < HANDOFF_TURNS; i++) {
        int64_t begun_ns;

        bench_sleep_ms(HANDOFF_HOLD_MS);
        begun_ns = bench_now_ns();
        bare_pair(&bench->bare);
        times_us[i] = (double)(bench_now_ns() - begun_ns) / 1000;
    }
    return bench_median(times_us, HANDOFF_TURNS);
}

static void bench_with(struct bench *bench, const char *folder, const char *synchronous)
{
    struct bench_figures figures;
    char text[64], measured[BENCH_CELL], reference[BENCH_CELL];
    double all_us[HANDOFF_MAX];
    double pair_us, median_us;
    int n;

    memset(bench->handoff, 0, sizeof(*bench->handoff));
    snprintf(bench->handoff->url, sizeof(bench->handoff->url), "sqlite:%s/store.db?synchronous=%s", folder,
             synchronous);
    figures = bench_rounds(HANDOFF_ROUNDS, run_handoff, run_pipe, bench);
    snprintf(text, sizeof(text), "release call to acquired, synchronous=%s", synchronous);
    bench_row(text, "< 1000 us", bench_cell(measured, "%.0f us", figures.subject),
              bench_cell(reference, "pipe %.0f us", figures.reference), figures.ratio);
    n = handoff_all(bench->handoff, all_us);
    median_us = bench_median(all_us, (size_t)n);
    pair_us = run_bare(bench);
    bench_row("  the same, beside the two commits in it", "", bench_cell(measured, "%.0f us", median_us),
              bench_cell(reference, "two bare commits %.0f us", pair_us), median_us / pair_us);
    bench_row("  of all turns, 95 of 100 within", "", bench_cell(measured, "%.0f us", all_us[n * 95 / 100]),
              bench_cell(reference, "two bare commits %.0f us", pair_us), all_us[n * 95 / 100] / pair_us);
    bench_row("  turns taken by the one who had just released", "", bench_cell(measured, "%d", bench->handoff->same),
              bench_cell(reference, "%d turns", n), (double)bench->handoff->same / n);
    bench_file_remove(folder, "store.db");
}

int main(void)
{
    struct bench *bench = bench_alloc(1, sizeof(*bench));
    char folder[256];

    bench->handoff = bench_share(sizeof(*bench->handoff));
    bench->returned_ns = bench_share(sizeof(*bench->returned_ns));
    if (pipe(bench->ping) != 0 || pipe(bench->pong) != 0)
        bench_die("pipe", "no descriptor");
    bench_folder_make(folder, sizeof(folder));
    bench_head("SQLite: hand-off between two processes");
    for (int i = 0; i < 2; i++) {
        bare_open(&bench->bare, folder, "bare.db", i == 0 ? "full" : "normal");
        bench_with(bench, folder, i == 0 ? "full" : "normal");
        bare_close(&bench->bare);
        bench_file_remove(folder, "bare.db");
    }
    rmdir(folder);
    free(bench);
    return 0;
}
