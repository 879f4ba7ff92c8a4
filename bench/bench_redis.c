/*
 * bench_redis.c - the Redis store, beside hiredis with the same scripts and beside the original with ioredis, on a server of its own.
 *
 * The reference of a hand-off is the wake-up of a BLPOP by an LPUSH. Commands are counted by the server: those that clients send
 * (EVALSHA, EVAL, SUBSCRIBE), not those that scripts run.
 */
#include <signal.h>

#include "bare_redis.h"
#include "handoff.h"
#include "redis_servers.h"
#include "subject.h"

struct bench {
    redis_server *server;
    long long commands; /* when counting began */
};

/* What clients have sent so far: requests and subscriptions. */
static long long commands_sent(const struct bench *bench)
{
    static const char *const commands[] = {"evalsha", "eval", "subscribe", "unsubscribe"};
    long long sum = 0;

    for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
        sum += redis_calls(bench->server, commands[i]);
    return sum;
}

static void count_begin(void *arg)
{
    struct bench *bench = arg;

    bench->commands = commands_sent(bench);
}

static long long count_end(void *arg)
{
    struct bench *bench = arg;

    return commands_sent(bench) - bench->commands;
}

static double server_us(void *arg)
{
    const struct bench *bench = arg;
    const char *user = redis_info(bench->server, "cpu", "used_cpu_user");
    const char *kernel = redis_info(bench->server, "cpu", "used_cpu_sys");

    return (strtod(user, NULL) + strtod(kernel, NULL)) * 1e6;
}

static double server_reads(void *arg)
{
    return strtod(redis_info(((struct bench *)arg)->server, "stats", "total_reads_processed"), NULL);
}

/* ---- the reference ---- */

static void *bare_open(void *arg)
{
    struct bare_redis *bare = bench_alloc(1, sizeof(*bare));

    bare_redis_open(bare, ((struct bench *)arg)->server->port);
    return bare;
}

static void bare_close(void *bare)
{
    bare_redis_close(bare);
    free(bare);
}

static void bare_pair(void *bare, const char *key)
{
    bare_redis_pair(bare, key);
}

static void bare_pipeline(void *bare, char keys[][SUBJECT_KEY], int n)
{
    bare_redis_pipeline(bare, BARE_ACQUIRE, keys, n);
    bare_redis_pipeline(bare, BARE_RELEASE, keys, n);
}

struct waking {
    _Atomic int64_t *woken_ns;
    int port;
};

static void sleeper_main(void *arg, int number)
{
    const struct waking *waking = arg;
    struct bare_redis bare;

    (void)number;
    bare_redis_open(&bare, waking->port);
    for (int i = 0; i < HANDOFF_TURNS; i++) {
        bare_redis_expect(&bare, redisCommand(bare.connection, "BLPOP wake-up 0"), REDIS_REPLY_ARRAY);
        *waking->woken_ns = bench_now_ns();
    }
    bare_redis_close(&bare);
}

/* From the call of LPUSH in this process to the return of BLPOP in the other one. */
static double run_blpop(void *arg)
{
    const struct waking *waking = arg;
    double times_us[HANDOFF_TURNS];
    struct bare_redis bare;
    pid_t pid = bench_fork(sleeper_main, arg, 0);

    bare_redis_open(&bare, waking->port);
    bench_sleep_ms(10 * HANDOFF_HOLD_MS); /* until the other one is there */
    for (int i = 0; i < HANDOFF_TURNS; i++) {
        int64_t called_ns;

        bench_sleep_ms(HANDOFF_HOLD_MS);
        *waking->woken_ns = 0;
        called_ns = bench_now_ns();
        bare_redis_expect(&bare, redisCommand(bare.connection, "LPUSH wake-up x"), REDIS_REPLY_INTEGER);
        while (*waking->woken_ns == 0)
            bench_sleep_ms(1);
        times_us[i] = (double)(*waking->woken_ns - called_ns) / 1000;
    }
    bench_join(pid);
    bare_redis_close(&bare);
    return bench_median(times_us, HANDOFF_TURNS);
}

/* ---- all ---- */

static void bench_handoff(const struct subject *subject, const struct bench *bench)
{
    struct waking waking = {bench_share(sizeof(*waking.woken_ns)), bench->server->port};

    subject_handoff(subject, "BLPOP", run_blpop, &waking, 4);
    munmap((void *)waking.woken_ns, sizeof(*waking.woken_ns));
}

static void bench_going(const struct subject *subject)
{
    static const int waiters[] = {2, 8, 32, 128};

    for (int asynchronous = 0; asynchronous < 2; asynchronous++)
        for (size_t i = 0; i < sizeof(waiters) / sizeof(waiters[0]); i++)
            subject_going(subject, &(struct subject_going){.processes = 4,
                                                           .waiters = waiters[i],
                                                           .asynchronous = asynchronous != 0,
                                                           .least_rate = 3000,
                                                           .requests = 3});
}

int main(int argc, char **argv)
{
    struct bench bench = {.server = redis_server_start(NULL)};
    char title[64], url[64];
    struct subject subject = {
        .name = "Redis",
        .url = url,
        .bare = "hiredis",
        .requests = "commands",
        .work = "reads by the server",
        .original = "redis",
        .original_url = url,
        .server = &bench,
        .bare_open = bare_open,
        .bare_close = bare_close,
        .bare_pair = bare_pair,
        .bare_pipeline = bare_pipeline,
        .server_us = server_us,
        .server_work = server_reads,
        .count_begin = count_begin,
        .count_end = count_end,
    };

    signal(SIGPIPE, SIG_IGN);
    snprintf(url, sizeof(url), "redis://127.0.0.1:%d", bench.server->port);
    snprintf(title, sizeof(title), "Redis %s: time of a pair", redis_info(bench.server, "server", "redis_version"));
    bench_head(title);
    if (subject_wanted(argc, argv, "alone"))
        subject_alone(&subject, 0.95);
    if (subject_wanted(argc, argv, "flights")) {
        subject_flights(&subject, "", (struct subject_aims){.pipeline = 0.8, .original = 1.3, .connections = -1});
        subject_flights(&subject, "?lanes=1",
                        (struct subject_aims){.pipeline = 0.8, .original = -1, .connections = -1});
    }
    if (subject_wanted(argc, argv, "threads")) {
        subject_threads(&subject, "", (struct subject_aims){.pipeline = -1, .original = -1, .connections = 1});
        subject_threads(&subject, "?lanes=4", (struct subject_aims){.pipeline = -1, .original = -1, .connections = 1});
    }
    bench_head("Redis: from one to the next");
    if (subject_wanted(argc, argv, "handoff"))
        bench_handoff(&subject, &bench);
    if (subject_wanted(argc, argv, "going"))
        bench_going(&subject);
    bench_head("Redis: waiting");
    if (subject_wanted(argc, argv, "waiting"))
        subject_waiting(&subject, 2);
    redis_server_free(bench.server);
    return 0;
}
