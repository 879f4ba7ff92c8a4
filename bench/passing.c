/*
 * passing.c - from one to the next: the hand-off between two processes, and one key that everybody wants.
 */
#include "going.h"
#include "handoff.h"
#include "original.h"
#include "subject.h"

#define WARM_UP_MS 500
#define ORIGINAL_MS 2000 /* of a round: it looks again only every 250 ms */

/* ---- from process to process ---- */

struct handing {
    struct handoff *handoff;
    double (*reference)(void *);
    void *arg;
};

static double run_handoff(void *arg)
{
    return handoff_round(((struct handing *)arg)->handoff, &handoff_of_verrou);
}

static double run_reference(void *arg)
{
    const struct handing *handing = arg;

    return handing->reference(handing->arg);
}

/* The requests that a hand-off is made of, after as long a pause: a disk and a processor that slept are slower than in a loop. */
static double bare_pair_us(const struct subject *subject)
{
    double times_us[HANDOFF_TURNS];
    void *bare = subject->bare_open(subject->server);

    for (int i = 0; i < HANDOFF_TURNS; i++) {
        int64_t begun_ns;

        bench_sleep_ms(HANDOFF_HOLD_MS);
        begun_ns = bench_now_ns();
        subject->bare_pair(bare, "bare:0");
        times_us[i] = (double)(bench_now_ns() - begun_ns) / 1000;
    }
    subject->bare_close(bare);
    return bench_median(times_us, HANDOFF_TURNS);
}

void subject_handoff(const struct subject *subject, const char *name, double (*reference)(void *), void *arg,
                     double aim)
{
    struct handing handing = {bench_share(sizeof(*handing.handoff)), reference, arg};
    struct bench_figures figures;
    char most[BENCH_CELL] = "", measured[BENCH_CELL], compared[BENCH_CELL], pair[BENCH_CELL];
    double all_us[HANDOFF_MAX];
    double pair_us;
    int n;

    if (aim > 0)
        bench_cell(most, "<= %g", aim);
    subject_url(subject, "", handing.handoff->url);
    figures = bench_rounds(HANDOFF_ROUNDS, run_handoff, run_reference, &handing);
    bench_cell(compared, "%s %.0f us", name, figures.reference);
    bench_verdict("hand-off between two processes, held for 5 ms", most,
                  bench_cell(measured, "%.0f us", figures.subject), compared, &figures, figures.ratio <= aim);
    pair_us = bare_pair_us(subject);
    bench_row("  beside a pair after the same pause", "", bench_cell(measured, "%.0f us", figures.subject),
              bench_cell(pair, "%s %.0f us", subject->bare, pair_us), figures.subject / pair_us);
    n = handoff_all(handing.handoff, all_us);
    bench_row("  of all turns, 95 of 100 within", "", bench_cell(measured, "%.0f us", all_us[n * 95 / 100]), compared,
              all_us[n * 95 / 100] / figures.reference);
    bench_row("  turns taken by the one who had just released", "", bench_cell(measured, "%d", handing.handoff->same),
              bench_cell(compared, "%d turns", n), (double)handing.handoff->same / n);
    munmap(handing.handoff, sizeof(*handing.handoff));
}

/* ---- going round ---- */

/*
 * The waiters of a process as asynchronous calls: the order in which they came is known then, and in that order they have to be
 * served.
 */
struct line {
    struct going *going;
    verrou_queue *queue;
    long came, served, failed;
    int left;
};

struct in_line {
    struct line *line;
    verrou_lock *lock;
    int number;
    long ticket;
};

static void line_enter(struct in_line *one);

/* The end of a turn, or of an attempt at one. */
static void line_leave(struct in_line *one, const verrou_result *result)
{
    struct line *line = one->line;

    if (result->status != VERROU_OK) {
        line->failed++;
        going_failed(line->going, result->status, result->error);
    }
    if (line->going->over)
        line->left++;
    else
        line_enter(one);
}

static void line_released(void *user, const verrou_result *result)
{
    line_leave(user, result);
}

static void line_acquired(void *user, const verrou_result *result)
{
    struct in_line *one = user;
    struct line *line = one->line;

    if (result->status != VERROU_OK) {
        line_leave(one, result);
        return;
    }
    if (line->failed == 0 && one->ticket != line->served++)
        bench_die("a waiter", "was served before one of its process that came earlier");
    going_served(line->going, one->number);
    bench_need(verrou_lock_release_async(one->lock, NULL, line->queue, line_released, one, NULL), NULL, "release");
}

static void line_enter(struct in_line *one)
{
    one->ticket = one->line->came++;
    bench_need(verrou_lock_acquire_async(one->lock, NULL, one->line->queue, line_acquired, one, NULL), NULL, "acquire");
}

static void line_process(void *arg, int number)
{
    struct going *going = arg;
    struct in_line waiters[GOING_MAX_WAITERS];
    struct line line = {.going = going};
    verrou_store *store = bench_open(going->url);

    bench_need(verrou_queue_new(&line.queue, NULL), NULL, "queue");
    for (int i = 0; i < going->threads; i++)
        waiters[i] = (struct in_line){&line, bench_lock(store, "account:42"), number * going->threads + i, 0};
    going_wait_begin(going, going->threads);
    for (int i = 0; i < going->threads; i++)
        line_enter(&waiters[i]);
    while (line.left < going->threads)
        bench_dispatch(line.queue);
    for (int i = 0; i < going->threads; i++)
        verrou_lock_free(waiters[i].lock);
    verrou_queue_free(line.queue);
    verrou_store_close(store);
}

struct round {
    const struct subject *subject;
    struct going *going;
    void (*process)(void *, int);
    struct original original;
    void *bare;
};

static double run_going(void *arg)
{
    struct round *round = arg;

    return going_round(round->going, round->process);
}

static double run_pairs(void *arg)
{
    const struct round *round = arg;
    int64_t begun_ns = bench_now_ns();
    long pairs = 0;

    for (; bench_goes_on(begun_ns, GOING_MS / 2); pairs++)
        round->subject->bare_pair(round->bare, "bare:0");
    return bench_rate_since(pairs, begun_ns);
}

static double run_changes(void *arg)
{
    return original_rate(&((struct round *)arg)->original, "changes", ORIGINAL_MS);
}

/* In a round of its own, because counting may disturb. */
static void print_requests(struct round *round, const struct subject_going *aim)
{
    int most = aim->requests + round->going->processes - 1;
    struct bench_figures figures = {0};
    char what[64], text[BENCH_CELL], measured[BENCH_CELL];

    round->going->all_changes = 0;
    round->subject->count_begin(round->subject->server);
    run_going(round);
    figures.subject = (double)round->subject->count_end(round->subject->server) / (double)round->going->all_changes;
    bench_cell(measured, "%.2f", figures.subject);
    snprintf(what, sizeof(what), "  %s a change of owner", round->subject->requests);
    if (!aim->requests) {
        bench_line(what, "", measured, "", "");
        return;
    }
    figures.ratio = figures.subject / most;
    bench_cell(text, "<= %d + %d", aim->requests, round->going->processes - 1);
    bench_verdict(what, text, measured, "", &figures, figures.ratio <= 1);
}

/* What is done by somebody who is alone, with two commits where a database makes them: a floor of its own for each machine and moment. */
static void print_pairs(struct round *round, double changes)
{
    double rates[GOING_ROUNDS];
    double pairs;
    char measured[BENCH_CELL], compared[BENCH_CELL];

    for (int i = 0; i < GOING_ROUNDS; i++)
        rates[i] = run_pairs(round);
    pairs = bench_median(rates, GOING_ROUNDS);
    bench_row("  beside one caller, one pair after the other", "", bench_cell(measured, "%.0f/s", changes),
              bench_cell(compared, "%s %.0f pairs/s", round->subject->bare, pairs), changes / pairs);
}

static void print_going(struct round *round, const struct subject_going *aim, const char *what)
{
    bool original = aim->of_original > 0;
    struct bench_figures figures = bench_rounds(GOING_ROUNDS, run_going, original ? run_changes : run_pairs, round);
    char text[BENCH_CELL], measured[BENCH_CELL], compared[BENCH_CELL];

    if (original) {
        bench_cell(text, ">= %g", aim->of_original);
        bench_cell(compared, "original %.0f/s", figures.reference);
    } else {
        bench_cell(text, ">= %.0f/s", aim->least_rate);
        bench_cell(compared, "%s %.0f pairs/s", round->subject->bare, figures.reference);
    }
    bench_verdict(what, text, bench_cell(measured, "%.0f/s", figures.subject), compared, &figures,
                  original ? figures.ratio >= aim->of_original : figures.subject >= aim->least_rate);
    if (original)
        print_pairs(round, figures.subject);
    going_print_served(round->going);
    if (original && round->going->errors == 0)
        bench_line("  errors seen by waiters", "0", "0", bench_cell(compared, "original %ld", round->original.errors),
                   "met");
}

void subject_going(const struct subject *subject, const struct subject_going *aim)
{
    struct round round = {
        .subject = subject,
        .going = bench_share(sizeof(*round.going)),
        .process = aim->asynchronous ? line_process : going_process,
    };
    char what[96];

    subject_url(subject, "", round.going->url);
    going_set(round.going, aim->processes, aim->waiters);
    snprintf(what, sizeof(what), "%d %s in %d process%s", aim->waiters,
             aim->asynchronous ? "calls, served in order," : "threads", round.going->processes,
             round.going->processes == 1 ? "" : "es");
    if (aim->of_original > 0 &&
        !original_start(&round.original, subject->original, subject->original_url, aim->waiters)) {
        bench_line(what, "", "", "the original cannot be had", "NOT MEASURED");
        goto out;
    }
    round.bare = subject->bare_open(subject->server);
    if (aim->of_original > 0)
        original_rate(&round.original, "changes", WARM_UP_MS);
    print_going(&round, aim, what);
    print_requests(&round, aim);
    if (aim->of_original > 0)
        original_stop(&round.original);
    subject->bare_close(round.bare);

out:
    munmap(round.going, sizeof(*round.going));
}
