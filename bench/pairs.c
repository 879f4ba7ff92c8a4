/*
 * pairs.c - acquire and release without contention: from one caller, as many calls from one thread, and from many threads.
 *
 * Beside the rate stands what a pair costs, which tells more on a machine that is busy with other things: processor time here and at the
 * server, and how much work the server does for it.
 */
#include <pthread.h>
#include <sys/resource.h>

#include "original.h"
#include "subject.h"

#define ALONE_ROUNDS 101 /* many and short: the disk of a busy machine changes its pace all the time */
#define ALONE_MS 20
#define ROUNDS 21
#define ROUND_MS 150
#define WARM_UP_MS 2000 /* until Node.js has compiled the original, and it has its connections */

const char *subject_url(const struct subject *subject, const char *settings, char url[SUBJECT_URL])
{
    snprintf(url, SUBJECT_URL, "%s%s", subject->url, settings);
    return url;
}

void subject_make_table(const struct subject *subject)
{
    verrou_error err = VERROU_ERROR_INIT;
    verrou_store *store = bench_open(subject->url);
    verrou_lock *lock = bench_lock(store, "verrou:0");

    bench_need(verrou_lock_acquire(lock, NULL, NULL, &err), &err, subject->url);
    bench_release(lock);
    verrou_lock_free(lock);
    verrou_store_close(store);
}

/* ---- costs ---- */

struct cost {
    double pairs;
    double here_us, server_us, work;
};

/* A row: two things that run in turns, each of which returns its pairs a second, and what they have cost. */
struct row {
    const struct subject *subject;
    const char *what, *reference_name;
    double aim;
    double (*run)(void *);
    double (*reference)(void *);
    void *arg;
    size_t rounds;
    struct cost cost, reference_cost;
};

static double cpu_us(void)
{
    struct rusage usage;

    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1e6 +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

static struct cost cost_now(const struct subject *subject)
{
    return (struct cost){0, cpu_us(), subject->server_us(subject->server),
                         subject->server_work ? subject->server_work(subject->server) : 0};
}

static double run_costed(const struct subject *subject, struct cost *sum, double (*run)(void *), void *arg)
{
    struct cost before = cost_now(subject), after;
    int64_t begun_ns = bench_now_ns();
    double rate = run(arg);

    sum->pairs += rate * (double)(bench_now_ns() - begun_ns) / 1e9;
    after = cost_now(subject);
    sum->here_us += after.here_us - before.here_us;
    sum->server_us += after.server_us - before.server_us;
    sum->work += after.work - before.work;
    return rate;
}

static double run_row(void *arg)
{
    struct row *row = arg;

    return run_costed(row->subject, &row->cost, row->run, row->arg);
}

static double run_row_reference(void *arg)
{
    struct row *row = arg;

    return run_costed(row->subject, &row->reference_cost, row->reference, row->arg);
}

static void print_costs(const struct row *row)
{
    const struct cost *cost = &row->cost, *other = &row->reference_cost;
    char what[64], measured[BENCH_CELL], compared[BENCH_CELL];

    bench_row("  processor time of a pair: here + server", "",
              bench_cell(measured, "%.1f + %.1f us", cost->here_us / cost->pairs, cost->server_us / cost->pairs),
              bench_cell(compared, "%.1f + %.1f us", other->here_us / other->pairs, other->server_us / other->pairs),
              (cost->here_us + cost->server_us) / cost->pairs / ((other->here_us + other->server_us) / other->pairs));
    if (!row->subject->server_work)
        return;
    snprintf(what, sizeof(what), "  %s for a pair", row->subject->work);
    bench_row(what, "", bench_cell(measured, "%.2f", cost->work / cost->pairs),
              bench_cell(compared, "%.2f", other->work / other->pairs),
              cost->work / cost->pairs / (other->work / other->pairs));
}

/* Without costs if the reference spends its time in a process that is not counted. */
static void print_row(struct row *row, bool costs)
{
    struct bench_figures figures;
    char least[BENCH_CELL] = "", measured[BENCH_CELL], compared[BENCH_CELL];

    if (row->aim > 0)
        bench_cell(least, ">= %.2f", row->aim);
    row->run(row->arg);
    figures = bench_rounds(row->rounds, run_row, run_row_reference, row);
    bench_verdict(row->what, least, bench_cell(measured, "%.0f pairs/s", figures.subject),
                  bench_cell(compared, "%s %.0f/s", row->reference_name, figures.reference), &figures,
                  figures.ratio >= row->aim);
    if (costs)
        print_costs(row);
}

/* ---- one caller ---- */

struct alone {
    const struct subject *subject;
    verrou_lock *lock;
    void *bare;
};

static double run_alone(void *arg)
{
    const struct alone *alone = arg;
    int64_t begun_ns = bench_now_ns();
    long pairs = 0;

    for (; bench_goes_on(begun_ns, ALONE_MS); pairs++) {
        bench_acquire(alone->lock);
        bench_release(alone->lock);
    }
    return bench_rate_since(pairs, begun_ns);
}

static double run_alone_bare(void *arg)
{
    const struct alone *alone = arg;
    int64_t begun_ns = bench_now_ns();
    long pairs = 0;

    for (; bench_goes_on(begun_ns, ALONE_MS); pairs++)
        alone->subject->bare_pair(alone->bare, "bare:0");
    return bench_rate_since(pairs, begun_ns);
}

void subject_alone(const struct subject *subject, double aim)
{
    verrou_store *store = bench_open(subject->url);
    struct alone alone = {subject, bench_lock(store, "verrou:0"), subject->bare_open(subject->server)};
    struct row row = {.subject = subject,
                      .what = "1 thread, one pair after the other",
                      .aim = aim,
                      .reference_name = subject->bare,
                      .run = run_alone,
                      .reference = run_alone_bare,
                      .arg = &alone,
                      .rounds = ALONE_ROUNDS};

    print_row(&row, true);
    subject->bare_close(alone.bare);
    verrou_lock_free(alone.lock);
    verrou_store_close(store);
}

/* ---- many callers: what they are compared with ---- */

/* The first member of whatever calls. */
struct many {
    const struct subject *subject;
    struct original original;
    void *bare;
    char keys[SUBJECT_CALLERS][SUBJECT_KEY]; /* of the bare client */
};

static void many_begin(struct many *many, const struct subject *subject)
{
    many->subject = subject;
    many->bare = subject->bare_open(subject->server);
    for (int i = 0; i < SUBJECT_CALLERS; i++)
        snprintf(many->keys[i], sizeof(many->keys[i]), "bare:%d", i);
}

static double run_pipeline(void *arg)
{
    struct many *many = arg;
    int64_t begun_ns = bench_now_ns();
    long pairs = 0;

    for (; bench_goes_on(begun_ns, ROUND_MS); pairs += SUBJECT_CALLERS)
        many->subject->bare_pipeline(many->bare, many->keys, SUBJECT_CALLERS);
    return bench_rate_since(pairs, begun_ns);
}

static double run_original(void *arg)
{
    return original_rate(&((struct many *)arg)->original, "pairs", ROUND_MS);
}

static void beside_original(struct many *many, struct row row)
{
    char least[BENCH_CELL];

    row.reference_name = "original";
    row.reference = run_original;
    if (!original_start(&many->original, many->subject->original, many->subject->original_url, SUBJECT_CALLERS)) {
        bench_line(row.what, bench_cell(least, ">= %.2f", row.aim), "", "the original cannot be had", "NOT MEASURED");
        return;
    }
    original_rate(&many->original, "pairs", WARM_UP_MS);
    print_row(&row, false);
    original_stop(&many->original);
}

static void many_print(struct many *many, struct row row, const struct subject_aims *aims)
{
    bool first = true;

    row.subject = many->subject;
    row.arg = many;
    row.rounds = ROUNDS;
    if (aims->connections >= 0) {
        row.aim = aims->connections;
        print_row(&row, true);
        first = false;
    }
    if (aims->pipeline >= 0 && many->subject->bare_pipeline) {
        if (!first)
            row.what = "  the same, beside a pipeline";
        first = false;
        row.aim = aims->pipeline;
        row.reference_name = "pipeline";
        row.reference = run_pipeline;
        row.cost = row.reference_cost = (struct cost){0};
        print_row(&row, true);
    }
    if (aims->original >= 0) {
        if (!first)
            row.what = "  the same, beside the original";
        row.aim = aims->original;
        beside_original(many, row);
    }
    many->subject->bare_close(many->bare);
}

/* "64 threads, lanes=4" */
static const char *what_with(char what[64], const char *callers, const char *settings)
{
    snprintf(what, 64, "%d %s%s%s", SUBJECT_CALLERS, callers, settings[0] ? ", " : "", settings[0] ? settings + 1 : "");
    return what;
}

/* ---- many calls from one thread ---- */

struct flight {
    struct flights *flights;
    verrou_lock *lock;
};

struct flights {
    struct many many;
    verrou_queue *queue;
    struct flight all[SUBJECT_CALLERS];
    int64_t begun_ns;
    long pairs;
    int landed;
};

static void flight_released(void *user, const verrou_result *result);

static void flight_acquired(void *user, const verrou_result *result)
{
    struct flight *flight = user;

    bench_need(result->status, result->error, "acquire");
    bench_need(verrou_lock_release_async(flight->lock, NULL, flight->flights->queue, flight_released, flight, NULL),
               NULL, "release");
}

static void flight_start(struct flight *flight)
{
    bench_need(verrou_lock_acquire_async(flight->lock, NULL, flight->flights->queue, flight_acquired, flight, NULL),
               NULL, "acquire");
}

static void flight_released(void *user, const verrou_result *result)
{
    struct flight *flight = user;
    struct flights *flights = flight->flights;

    bench_need(result->status, result->error, "release");
    flights->pairs++;
    if (bench_goes_on(flights->begun_ns, ROUND_MS))
        flight_start(flight);
    else
        flights->landed++;
}

static double run_flights(void *arg)
{
    struct flights *flights = arg;

    flights->pairs = 0;
    flights->landed = 0;
    flights->begun_ns = bench_now_ns();
    for (int i = 0; i < SUBJECT_CALLERS; i++)
        flight_start(&flights->all[i]);
    while (flights->landed < SUBJECT_CALLERS)
        bench_dispatch(flights->queue);
    return bench_rate_since(flights->pairs, flights->begun_ns);
}

void subject_flights(const struct subject *subject, const char *settings, struct subject_aims aims)
{
    char url[SUBJECT_URL], what[64];
    verrou_store *store = bench_open(subject_url(subject, settings, url));
    struct flights *flights = bench_alloc(1, sizeof(*flights));

    many_begin(&flights->many, subject);
    bench_need(verrou_queue_new(&flights->queue, NULL), NULL, "queue");
    for (int i = 0; i < SUBJECT_CALLERS; i++) {
        char key[SUBJECT_KEY];

        snprintf(key, sizeof(key), "verrou:%d", i);
        flights->all[i] = (struct flight){flights, bench_lock(store, key)};
    }
    many_print(&flights->many,
               (struct row){.what = what_with(what, "in flight from 1 thread", settings), .run = run_flights}, &aims);
    for (int i = 0; i < SUBJECT_CALLERS; i++)
        verrou_lock_free(flights->all[i].lock);
    verrou_queue_free(flights->queue);
    verrou_store_close(store);
    free(flights);
}

/* ---- many threads ---- */

struct caller {
    struct callers *callers;
    pthread_t thread;
    verrou_lock *lock;
    void *bare;
    char key[SUBJECT_KEY];
    long pairs;
};

struct callers {
    struct many many;
    struct caller all[SUBJECT_CALLERS];
    int64_t begun_ns;
};

static void *caller_main(void *arg)
{
    struct caller *caller = arg;

    for (; bench_goes_on(caller->callers->begun_ns, ROUND_MS); caller->pairs++) {
        bench_acquire(caller->lock);
        bench_release(caller->lock);
    }
    return NULL;
}

static void *bare_caller_main(void *arg)
{
    struct caller *caller = arg;

    for (; bench_goes_on(caller->callers->begun_ns, ROUND_MS); caller->pairs++)
        caller->callers->many.subject->bare_pair(caller->bare, caller->key);
    return NULL;
}

static double run_threads(struct callers *callers, void *(*body)(void *))
{
    long pairs = 0;

    callers->begun_ns = bench_now_ns();
    for (int i = 0; i < SUBJECT_CALLERS; i++) {
        struct caller *caller = &callers->all[i];

        caller->pairs = 0;
        if (pthread_create(&caller->thread, NULL, body, caller) != 0)
            bench_die("pthread_create", "no thread");
    }
    for (int i = 0; i < SUBJECT_CALLERS; i++) {
        pthread_join(callers->all[i].thread, NULL);
        pairs += callers->all[i].pairs;
    }
    return bench_rate_since(pairs, callers->begun_ns);
}

static double run_callers(void *arg)
{
    return run_threads(arg, caller_main);
}

static double run_bare_callers(void *arg)
{
    return run_threads(arg, bare_caller_main);
}

void subject_threads(const struct subject *subject, const char *settings, struct subject_aims aims)
{
    char url[SUBJECT_URL], what[64], connections[BENCH_CELL];
    verrou_store *store = bench_open(subject_url(subject, settings, url));
    struct callers *callers = bench_alloc(1, sizeof(*callers));

    many_begin(&callers->many, subject);
    for (int i = 0; i < SUBJECT_CALLERS; i++) {
        struct caller *caller = &callers->all[i];

        caller->callers = callers;
        snprintf(caller->key, sizeof(caller->key), "account:%d", i);
        caller->lock = bench_lock(store, caller->key);
        caller->bare = subject->bare_open(subject->server);
    }
    many_print(&callers->many,
               (struct row){.what = what_with(what, "threads, a key each", settings),
                            .reference_name = bench_cell(connections, "%d connections", SUBJECT_CALLERS),
                            .run = run_callers,
                            .reference = run_bare_callers},
               &aims);
    for (int i = 0; i < SUBJECT_CALLERS; i++) {
        verrou_lock_free(callers->all[i].lock);
        subject->bare_close(callers->all[i].bare);
    }
    verrou_store_close(store);
    free(callers);
}
