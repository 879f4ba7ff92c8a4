/*
 * bench_redis.c - the Redis store, beside hiredis with the same scripts and beside the original with ioredis, on a server of its own.
 *
 * "Pair" is an acquire and a release. The reference of a hand-off is the wake-up of a BLPOP by an LPUSH. Commands are counted by the
 * server: those that clients send (EVALSHA, EVAL, SUBSCRIBE), not those that scripts run.
 */
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/resource.h>

#include "bare_redis.h"
#include "counting.h"
#include "going.h"
#include "handoff.h"
#include "redis_servers.h"

#define FLIGHTS 64
#define THREADS 64
#define ALONE_ROUNDS 31
#define ALONE_MS 60
#define ROUNDS 21
#define ROUND_MS 150

struct bench {
    redis_server *server;
    char url[96];
    struct bare_redis bare;
};

static const char *url_with(struct bench *bench, const char *settings)
{
    snprintf(bench->url, sizeof(bench->url), "redis://127.0.0.1:%d%s", bench->server->port, settings);
    return bench->url;
}

static bool goes_on(int64_t begun_ns, int64_t ms)
{
    return bench_now_ns() - begun_ns < ms * 1000000;
}

static double rate_since(long pairs, int64_t begun_ns)
{
    return (double)pairs * 1e9 / (double)(bench_now_ns() - begun_ns);
}

/* What clients have sent so far: requests and subscriptions. */
static long long commands_sent(const struct bench *bench)
{
    static const char *const commands[] = {"evalsha", "eval", "subscribe", "unsubscribe"};
    long long sum = 0;

    for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
        sum += redis_calls(bench->server, commands[i]);
    return sum;
}

/*
 * What a pair costs, which tells more than its rate on a machine that is busy with other things: processor time here and at the server, and
 * how often the server reads.
 */
struct cost {
    double pairs;
    double here_us, server_us, reads;
};

struct costing {
    struct bench *bench;
    double (*subject)(void *);
    double (*reference)(void *);
    void *arg;
    struct cost of_subject, of_reference;
};

static double cpu_us(void)
{
    struct rusage usage;

    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1e6 +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

static struct cost cost_now(const struct bench *bench)
{
    const char *user = redis_info(bench->server, "cpu", "used_cpu_user");
    const char *kernel = redis_info(bench->server, "cpu", "used_cpu_sys");
    const char *reads = redis_info(bench->server, "stats", "total_reads_processed");

    return (struct cost){0, cpu_us(), (strtod(user, NULL) + strtod(kernel, NULL)) * 1e6, strtod(reads, NULL)};
}

/* Run one round, whose figure is pairs a second. */
static double run_costed(const struct bench *bench, struct cost *sum, double (*run)(void *), void *arg)
{
    struct cost before = cost_now(bench), after;
    int64_t begun_ns = bench_now_ns();
    double rate = run(arg);

    sum->pairs += rate * (double)(bench_now_ns() - begun_ns) / 1e9;
    after = cost_now(bench);
    sum->here_us += after.here_us - before.here_us;
    sum->server_us += after.server_us - before.server_us;
    sum->reads += after.reads - before.reads;
    return rate;
}

static double run_subject(void *arg)
{
    struct costing *costing = arg;

    return run_costed(costing->bench, &costing->of_subject, costing->subject, costing->arg);
}

static double run_reference(void *arg)
{
    struct costing *costing = arg;

    return run_costed(costing->bench, &costing->of_reference, costing->reference, costing->arg);
}

static void row_cost(const struct cost *subject, const struct cost *reference)
{
    char measured[BENCH_CELL], compared[BENCH_CELL];

    bench_row(
        "  processor time of a pair: here + server", "",
        bench_cell(measured, "%.1f + %.1f us", subject->here_us / subject->pairs, subject->server_us / subject->pairs),
        bench_cell(compared, "%.1f + %.1f us", reference->here_us / reference->pairs,
                   reference->server_us / reference->pairs),
        (subject->here_us + subject->server_us) / subject->pairs /
            ((reference->here_us + reference->server_us) / reference->pairs));
    bench_row("  reads by the server for a pair", "", bench_cell(measured, "%.2f", subject->reads / subject->pairs),
              bench_cell(compared, "%.2f", reference->reads / reference->pairs),
              subject->reads / subject->pairs / (reference->reads / reference->pairs));
}

static double run_original(void *arg);

/* Pairs a second, and what they cost. */
static void bench_pairs(struct bench *bench, size_t rounds, const char *what, double aim, const char *reference_name,
                        double (*subject)(void *), double (*reference)(void *), void *arg)
{
    struct costing costing = {.bench = bench, .subject = subject, .reference = reference, .arg = arg};
    struct bench_figures figures;
    char least[BENCH_CELL], measured[BENCH_CELL], compared[BENCH_CELL];

    subject(arg);
    figures = bench_rounds(rounds, run_subject, run_reference, &costing);
    bench_verdict(what, bench_cell(least, ">= %.2f", aim), bench_cell(measured, "%.0f pairs/s", figures.subject),
                  bench_cell(compared, "%s %.0f/s", reference_name, figures.reference), &figures, figures.ratio >= aim);
    if (reference != run_original) /* which spends its time in another process */
        row_cost(&costing.of_subject, &costing.of_reference);
}

/* ---- one caller ---- */

struct alone {
    struct bare_redis *bare;
    verrou_lock *lock;
};

static double run_alone(void *arg)
{
    const struct alone *alone = arg;
    int64_t begun_ns = bench_now_ns();
    long pairs = 0;

    for (; goes_on(begun_ns, ALONE_MS); pairs++) {
        bench_acquire(alone->lock);
        bench_release(alone->lock);
    }
    return rate_since(pairs, begun_ns);
}

static double run_alone_bare(void *arg)
{
    const struct alone *alone = arg;
    int64_t begun_ns = bench_now_ns();
    long pairs = 0;

    for (; goes_on(begun_ns, ALONE_MS); pairs++)
        bare_redis_pair(alone->bare, "bare:0");
    return rate_since(pairs, begun_ns);
}

static void bench_alone(struct bench *bench)
{
    verrou_store *store = bench_open(url_with(bench, ""));
    struct alone alone = {&bench->bare, bench_lock(store, "verrou:0")};

    bench_pairs(bench, ALONE_ROUNDS, "1 thread, one pair after the other", 0.95, "hiredis", run_alone, run_alone_bare,
                &alone);
    verrou_lock_free(alone.lock);
    verrou_store_close(store);
}

/* ---- many calls from one thread ---- */

struct flight {
    struct flights *flights;
    verrou_lock *lock;
};

struct flights {
    struct bare_redis *bare;
    verrou_queue *queue;
    struct flight all[FLIGHTS];
    char keys[FLIGHTS][32];
    int64_t begun_ns;
    long pairs;
    int landed;
    FILE *to_original, *from_original;
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
    if (goes_on(flights->begun_ns, ROUND_MS))
        flight_start(flight);
    else
        flights->landed++;
}

static void dispatch_when_ready(verrou_queue *queue)
{
    struct pollfd ready = {verrou_queue_fd(queue), POLLIN, 0};

    poll(&ready, 1, -1);
    verrou_dispatch(queue, 0);
}

static double run_flights(void *arg)
{
    struct flights *flights = arg;

    flights->pairs = 0;
    flights->landed = 0;
    flights->begun_ns = bench_now_ns();
    for (int i = 0; i < FLIGHTS; i++)
        flight_start(&flights->all[i]);
    while (flights->landed < FLIGHTS)
        dispatch_when_ready(flights->queue);
    return rate_since(flights->pairs, flights->begun_ns);
}

static double run_pipeline(void *arg)
{
    struct flights *flights = arg;
    int64_t begun_ns = bench_now_ns();
    long pairs = 0;

    for (; goes_on(begun_ns, ROUND_MS); pairs += FLIGHTS) {
        bare_redis_pipeline(flights->bare, BARE_ACQUIRE, flights->keys, FLIGHTS);
        bare_redis_pipeline(flights->bare, BARE_RELEASE, flights->keys, FLIGHTS);
    }
    return rate_since(pairs, begun_ns);
}

static double original_for(struct flights *flights, int ms)
{
    char line[64] = "";

    fprintf(flights->to_original, "%d\n", ms);
    fflush(flights->to_original);
    if (!fgets(line, sizeof(line), flights->from_original))
        bench_die("the original", "does not answer");
    return strtod(line, NULL);
}

static double run_original(void *arg)
{
    return original_for(arg, ROUND_MS);
}

/* Install the original, if it is not there yet, and start it. False: it cannot be had, and it was said why. */
static bool original_start(struct flights *flights, const struct bench *bench)
{
    char command[1024];
    int to[2], from[2];
    pid_t pid;

    if (system("sh " BENCH_ORIGINAL_INSTALL " " BENCH_ORIGINAL_FOLDER " " BENCH_NODE_FOLDER) != 0)
        return false;
    snprintf(command, sizeof(command),
             "cp " BENCH_ORIGINAL_PROGRAM " " BENCH_ORIGINAL_FOLDER "/bench.mjs && "
             "exec \"$(sh " BENCH_NODE_FINDER " " BENCH_NODE_FOLDER ")\" " BENCH_ORIGINAL_FOLDER "/bench.mjs "
             "redis://127.0.0.1:%d %d",
             bench->server->port, FLIGHTS);
    if (pipe2(to, O_CLOEXEC) != 0 || pipe2(from, O_CLOEXEC) != 0)
        bench_die("pipe", "no descriptor");
    pid = fork();
    if (pid < 0)
        bench_die("fork", "no process");
    if (pid == 0) {
        dup2(to[0], STDIN_FILENO);
        dup2(from[1], STDOUT_FILENO);
        execl("/bin/sh", "sh", "-c", command, (char *)NULL);
        _exit(127);
    }
    close(to[0]);
    close(from[1]);
    flights->to_original = fdopen(to[1], "w");
    flights->from_original = fdopen(from[0], "r");
    return true;
}

/* It ends with its input. */
static void original_stop(struct flights *flights)
{
    fclose(flights->to_original);
    fclose(flights->from_original);
    wait(NULL);
}

static void bench_beside_original(struct bench *bench, struct flights *flights)
{
    if (!original_start(flights, bench)) {
        bench_line("  the same, beside the original", ">= 1.30", "", "the original cannot be had", "NOT MEASURED");
        return;
    }
    original_for(flights, 2000); /* until it is compiled */
    bench_pairs(bench, ROUNDS, "  the same, beside the original", 1.3, "original", run_flights, run_original, flights);
    original_stop(flights);
}

static void bench_flights(struct bench *bench, const char *settings)
{
    verrou_store *store = bench_open(url_with(bench, settings));
    struct flights flights = {.bare = &bench->bare};
    char what[64];

    bench_need(verrou_queue_new(&flights.queue, NULL), NULL, "queue");
    for (int i = 0; i < FLIGHTS; i++) {
        char key[32];

        snprintf(key, sizeof(key), "verrou:%d", i);
        snprintf(flights.keys[i], sizeof(flights.keys[i]), "bare:%d", i);
        flights.all[i] = (struct flight){&flights, bench_lock(store, key)};
    }
    snprintf(what, sizeof(what), "%d in flight from 1 thread%s%s", FLIGHTS, settings[0] ? ", " : "",
             settings[0] ? settings + 1 : "");
    bench_pairs(bench, ROUNDS, what, 0.8, "pipeline", run_flights, run_pipeline, &flights);
    if (!settings[0])
        bench_beside_original(bench, &flights);
    for (int i = 0; i < FLIGHTS; i++)
        verrou_lock_free(flights.all[i].lock);
    verrou_queue_free(flights.queue);
    verrou_store_close(store);
}

/* ---- many threads ---- */

struct caller {
    pthread_t thread;
    verrou_lock *lock;
    struct bare_redis bare;
    char key[32];
    int64_t begun_ns;
    long pairs;
};

static void *caller_main(void *arg)
{
    struct caller *caller = arg;

    for (; goes_on(caller->begun_ns, ROUND_MS); caller->pairs++) {
        bench_acquire(caller->lock);
        bench_release(caller->lock);
    }
    return NULL;
}

static void *bare_caller_main(void *arg)
{
    struct caller *caller = arg;

    for (; goes_on(caller->begun_ns, ROUND_MS); caller->pairs++)
        bare_redis_pair(&caller->bare, caller->key);
    return NULL;
}

static double run_threads(struct caller *callers, void *(*body)(void *))
{
    int64_t begun_ns = bench_now_ns();
    long pairs = 0;

    for (int i = 0; i < THREADS; i++) {
        callers[i].begun_ns = begun_ns;
        callers[i].pairs = 0;
        if (pthread_create(&callers[i].thread, NULL, body, &callers[i]) != 0)
            bench_die("pthread_create", "no thread");
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(callers[i].thread, NULL);
        pairs += callers[i].pairs;
    }
    return rate_since(pairs, begun_ns);
}

static double run_callers(void *arg)
{
    return run_threads(arg, caller_main);
}

static double run_bare_callers(void *arg)
{
    return run_threads(arg, bare_caller_main);
}

static void bench_threads(struct bench *bench, const char *settings)
{
    verrou_store *store = bench_open(url_with(bench, settings));
    struct caller *callers = bench_alloc(THREADS, sizeof(*callers));
    char what[64];

    for (int i = 0; i < THREADS; i++) {
        snprintf(callers[i].key, sizeof(callers[i].key), "account:%d", i);
        callers[i].lock = bench_lock(store, callers[i].key);
        bare_redis_open(&callers[i].bare, bench->server->port);
    }
    snprintf(what, sizeof(what), "%d threads, a key each%s%s", THREADS, settings[0] ? ", " : "",
             settings[0] ? settings + 1 : "");
    bench_pairs(bench, ROUNDS, what, 1, "64 connections", run_callers, run_bare_callers, callers);
    for (int i = 0; i < THREADS; i++) {
        verrou_lock_free(callers[i].lock);
        bare_redis_close(&callers[i].bare);
    }
    free(callers);
    verrou_store_close(store);
}

/* ---- from process to process ---- */

struct handing {
    struct handoff *handoff;
    _Atomic int64_t *woken_ns;
    int port;
};

static double run_handoff(void *arg)
{
    return handoff_round(((struct handing *)arg)->handoff);
}

static void sleeper_main(void *arg, int number)
{
    const struct handing *handing = arg;
    struct bare_redis bare;

    (void)number;
    bare_redis_open(&bare, handing->port);
    for (int i = 0; i < HANDOFF_TURNS; i++) {
        bare_redis_expect(&bare, redisCommand(bare.connection, "BLPOP wake-up 0"), REDIS_REPLY_ARRAY);
        *handing->woken_ns = bench_now_ns();
    }
    bare_redis_close(&bare);
}

/* From the call of LPUSH in this process to the return of BLPOP in the other one. */
static double run_blpop(void *arg)
{
    const struct handing *handing = arg;
    double times_us[HANDOFF_TURNS];
    struct bare_redis bare;
    pid_t pid = bench_fork(sleeper_main, arg, 0);

    bare_redis_open(&bare, handing->port);
    bench_sleep_ms(10 * HANDOFF_HOLD_MS); /* until the other one is there */
    for (int i = 0; i < HANDOFF_TURNS; i++) {
        int64_t called_ns;

        bench_sleep_ms(HANDOFF_HOLD_MS);
        *handing->woken_ns = 0;
        called_ns = bench_now_ns();
        bare_redis_expect(&bare, redisCommand(bare.connection, "LPUSH wake-up x"), REDIS_REPLY_INTEGER);
        while (*handing->woken_ns == 0)
            bench_sleep_ms(1);
        times_us[i] = (double)(*handing->woken_ns - called_ns) / 1000;
    }
    bench_join(pid);
    bare_redis_close(&bare);
    return bench_median(times_us, HANDOFF_TURNS);
}

static void bench_handoff(struct bench *bench)
{
    struct handing handing = {bench_share(sizeof(*handing.handoff)), bench_share(sizeof(*handing.woken_ns)),
                              bench->server->port};
    struct bench_figures figures;
    char measured[BENCH_CELL], reference[BENCH_CELL];
    double all_us[HANDOFF_MAX];
    int n;

    strcpy(handing.handoff->url, url_with(bench, ""));
    figures = bench_rounds(HANDOFF_ROUNDS, run_handoff, run_blpop, &handing);
    bench_verdict("hand-off between two processes, held for 5 ms", "<= 4",
                  bench_cell(measured, "%.0f us", figures.subject),
                  bench_cell(reference, "BLPOP %.0f us", figures.reference), &figures, figures.ratio <= 4);
    n = handoff_all(handing.handoff, all_us);
    bench_row("  of all turns, 95 of 100 within", "", bench_cell(measured, "%.0f us", all_us[n * 95 / 100]),
              bench_cell(reference, "BLPOP %.0f us", figures.reference), all_us[n * 95 / 100] / figures.reference);
    bench_row("  turns taken by the one who had just released", "", bench_cell(measured, "%d", handing.handoff->same),
              bench_cell(reference, "%d turns", n), (double)handing.handoff->same / n);
    munmap(handing.handoff, sizeof(*handing.handoff));
    munmap((void *)handing.woken_ns, sizeof(*handing.woken_ns));
}

/* ---- going round ---- */

/*
 * The waiters of a process as asynchronous calls: the order in which they came is known then, and in that order they have to be
 * served.
 */
struct line {
    struct going *going;
    verrou_queue *queue;
    long came, served;
    int left;
};

struct in_line {
    struct line *line;
    verrou_lock *lock;
    int number;
    long ticket;
};

static void line_released(void *user, const verrou_result *result);

static void line_acquired(void *user, const verrou_result *result)
{
    struct in_line *one = user;

    bench_need(result->status, result->error, "acquire");
    if (one->ticket != one->line->served++)
        bench_die("a waiter", "was served before one of its process that came earlier");
    going_served(one->line->going, one->number);
    bench_need(verrou_lock_release_async(one->lock, NULL, one->line->queue, line_released, one, NULL), NULL, "release");
}

static void line_enter(struct in_line *one)
{
    one->ticket = one->line->came++;
    bench_need(verrou_lock_acquire_async(one->lock, NULL, one->line->queue, line_acquired, one, NULL), NULL, "acquire");
}

static void line_released(void *user, const verrou_result *result)
{
    struct in_line *one = user;

    bench_need(result->status, result->error, "release");
    if (one->line->going->over)
        one->line->left++;
    else
        line_enter(one);
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
        dispatch_when_ready(line.queue);
    for (int i = 0; i < going->threads; i++)
        verrou_lock_free(waiters[i].lock);
    verrou_queue_free(line.queue);
    verrou_store_close(store);
}

struct round {
    struct bench *bench;
    struct going *going;
    void (*process)(void *, int);
    long long commands;
};

static double run_going(void *arg)
{
    struct round *round = arg;
    long long before = commands_sent(round->bench);
    double rate = going_round(round->going, round->process);

    round->commands += commands_sent(round->bench) - before;
    return rate;
}

static double run_pairs(void *arg)
{
    const struct round *round = arg;
    int64_t begun_ns = bench_now_ns();
    long pairs = 0;

    for (; goes_on(begun_ns, GOING_MS / 2); pairs++)
        bare_redis_pair(&round->bench->bare, "bare:0");
    return rate_since(pairs, begun_ns);
}

static void bench_going_with(struct bench *bench, struct going *going, int waiters, bool asynchronous)
{
    struct round round = {bench, going, asynchronous ? line_process : going_process, 0};
    struct bench_figures figures;
    struct bench_figures commands = {0};
    char text[96], aim[BENCH_CELL], measured[BENCH_CELL], compared[BENCH_CELL];

    going_set(going, 4, waiters);
    figures = bench_rounds(GOING_ROUNDS, run_going, run_pairs, &round);
    snprintf(text, sizeof(text), "%d %s in %d processes", waiters, asynchronous ? "calls, served in order," : "threads",
             going->processes);
    bench_verdict(text, ">= 3000/s", bench_cell(measured, "%.0f/s", figures.subject),
                  bench_cell(compared, "hiredis %.0f pairs/s", figures.reference), &figures, figures.subject >= 3000);
    going_print_served(going);
    commands.subject = (double)round.commands / (double)going->all_changes;
    commands.ratio = commands.subject / (3 + going->processes - 1);
    bench_verdict("  commands a change of owner", bench_cell(aim, "<= 3 + %d", going->processes - 1),
                  bench_cell(measured, "%.2f", commands.subject), "", &commands, commands.ratio <= 1);
}

static void bench_going(struct bench *bench)
{
    static const int waiters[] = {2, 8, 32, 128};
    struct going *going = bench_share(sizeof(*going));

    strcpy(going->url, url_with(bench, ""));
    for (int asynchronous = 0; asynchronous < 2; asynchronous++)
        for (size_t i = 0; i < sizeof(waiters) / sizeof(waiters[0]); i++)
            bench_going_with(bench, going, waiters[i], asynchronous != 0);
    munmap(going, sizeof(*going));
}

/* ---- waiting ---- */

#define WAITERS 1000
#define WAIT_MS 10000
#define WAIT_READS (WAIT_MS / 5000)

static void holder_main(void *arg, int number)
{
    struct bench *bench = arg;
    verrou_store *store = bench_open(url_with(bench, ""));
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

/* In a process of its own, so that the allocator can count. */
static void waiters_main(void *arg, int number)
{
    struct bench *bench = arg;
    verrou_acquire_options options = VERROU_ACQUIRE_OPTIONS_INIT;
    struct bench_figures figures = {0};
    char measured[BENCH_CELL], aim[BENCH_CELL];
    verrou_lock **locks = bench_alloc(WAITERS, sizeof(verrou_lock *));
    verrou_queue *queue = NULL;
    verrou_store *store;
    int answered = 0;
    int64_t bytes;
    long long commands;

    (void)number;
    counting_begin();
    store = bench_open(url_with(bench, ""));
    bench_need(verrou_queue_new(&queue, NULL), NULL, "queue");
    bench_need(verrou_cancel_new(&options.cancel, NULL), NULL, "cancel token");
    bytes = bytes_in_use;
    for (int i = 0; i < WAITERS; i++) {
        locks[i] = bench_lock(store, "held");
        bench_need(verrou_lock_acquire_async(locks[i], &options, queue, count_answer, &answered, NULL), NULL,
                   "acquire");
    }
    bench_sleep_ms(1000);
    bytes = bytes_in_use - bytes;
    commands = commands_sent(bench);
    bench_sleep_ms(WAIT_MS);
    commands = commands_sent(bench) - commands;

    figures.ratio = (double)commands / WAIT_READS;
    bench_verdict("commands in 10 s, 1,000 waiters of one key", bench_cell(aim, "<= %d", WAIT_READS),
                  bench_cell(measured, "%lld", commands), "", &figures, commands <= WAIT_READS);
    figures.ratio = (double)bytes / WAITERS / 1024;
    bench_verdict("  bytes of a waiter and its handle", "<= 1024",
                  bench_cell(measured, "%.0f", (double)bytes / WAITERS), "", &figures, bytes <= WAITERS * 1024);
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

/* ---- all ---- */

/* One part alone, for profiling: its name is the argument. */
static bool wanted(int argc, char **argv, const char *part)
{
    return argc < 2 || strcmp(argv[1], part) == 0;
}

int main(int argc, char **argv)
{
    struct bench bench = {.server = redis_server_start(NULL)};
    char title[64];

    signal(SIGPIPE, SIG_IGN);
    bare_redis_open(&bench.bare, bench.server->port);
    snprintf(title, sizeof(title), "Redis %s: time of a pair", redis_info(bench.server, "server", "redis_version"));
    bench_head(title);
    if (wanted(argc, argv, "alone"))
        bench_alone(&bench);
    if (wanted(argc, argv, "flights")) {
        bench_flights(&bench, "");
        bench_flights(&bench, "?lanes=1");
    }
    if (wanted(argc, argv, "threads")) {
        bench_threads(&bench, "");
        bench_threads(&bench, "?lanes=4");
    }
    bench_head("Redis: from one to the next");
    if (wanted(argc, argv, "handoff"))
        bench_handoff(&bench);
    if (wanted(argc, argv, "going"))
        bench_going(&bench);
    bench_head("Redis: waiting");
    if (wanted(argc, argv, "waiting")) {
        bench_join(bench_fork(holder_main, &bench, 0));
        bench_join(bench_fork(waiters_main, &bench, 0));
    }
    bare_redis_close(&bench.bare);
    redis_server_free(bench.server);
    return 0;
}
