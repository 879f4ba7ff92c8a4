/*
 * threads.c - the two kinds of thread of a store, started when first needed.
 *
 * The keeper sleeps until the earliest timer, a watch event, or a nudge through its pipe; it never does blocking work. Workers do it:
 * they connect, and run the batches that no caller runs by itself. All signals are blocked in them, so that an application's
 * handlers run where the application expects them.
 */
#include <poll.h>
#include <signal.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/timerfd.h>
#endif

#include "engine/internal.h"

static int start_thread(pthread_t *thread, void *(*main_fn)(void *), void *arg)
{
    sigset_t all;
    sigset_t before;
    int failed;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    failed = pthread_create(thread, NULL, main_fn, arg);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return failed;
}

/* ---- the keeper ---- */

static int keeper_open_fds(verrou__engine *engine)
{
    if (bell_open(&engine->bell) < 0)
        return -1;
#ifdef __linux__
    engine->timer_fd = timerfd_create(CLOCK_BOOTTIME, TFD_CLOEXEC | TFD_NONBLOCK);
#endif
    return 0;
}

static void keeper_close_fds(verrou__engine *engine)
{
    bell_close(&engine->bell);
    if (engine->timer_fd >= 0)
        close(engine->timer_fd);
    engine->timer_fd = -1;
}

/* Set the alarm. Returns the timeout for poll(). */
static int keeper_alarm(const verrou__engine *engine, int64_t when_ms)
{
    int64_t left_ms;

#ifdef __linux__
    if (engine->timer_fd >= 0) {
        struct itimerspec alarm = {{0, 0}, {0, 0}};

        if (when_ms != VERROU_FOREVER) {
            alarm.it_value.tv_sec = (time_t)(when_ms / 1000);
            alarm.it_value.tv_nsec = (long)(when_ms % 1000) * 1000000 + 1;
        }
        if (timerfd_settime(engine->timer_fd, TFD_TIMER_ABSTIME, &alarm, NULL) == 0)
            return -1;
    }
#endif
    if (when_ms == VERROU_FOREVER)
        return -1;
    left_ms = when_ms - engine_now(engine);
    if (left_ms < 0)
        return 0;
    return left_ms > 60000 ? 60000 : (int)left_ms;
}

/* Sleep, without the mutex, until there is something to do. */
static void keeper_sleep(verrou__engine *engine)
{
    struct pollfd fds[3] = {{engine->bell.read_end, POLLIN, 0}, {engine->timer_fd, POLLIN, 0}, {-1, POLLIN, 0}};
    bool watching = engine->watch_state == WATCH_OPEN;
    int timeout_ms = keeper_alarm(engine, verrou__engine_next_ms(engine));

    if (watching)
        fds[2].fd = engine->driver->watch_fd(engine->state, engine->watch);
    engine->keeper_wakes_ms = verrou__engine_next_ms(engine);
    verrou__engine_leave(engine);
    poll(fds, 3, timeout_ms);
    verrou__engine_enter(engine);
    engine->keeper_wakes_ms = 0;
    if (fds[0].revents)
        bell_hush(&engine->bell);
    if (watching && fds[2].revents)
        verrou__watch_read(engine);
}

static bool keeper_tick(verrou__engine *engine)
{
    int64_t now_ms = engine_now(engine);
    verrou__timer *timer;
    bool any = false;

    while ((timer = verrou__timers_due(engine, now_ms))) {
        timer->fire(engine, timer);
        any = true;
    }
    return any;
}

static void *keeper_main(void *arg)
{
    verrou__engine *engine = arg;

    verrou__engine_enter(engine);
    while (!engine->stopping) {
        bool any = keeper_tick(engine);

        any |= verrou__watch_step(engine);
        verrou__engine_settle(engine);
        /* Settling may have set a timer that is due. */
        if (!any && !engine->stopping)
            keeper_sleep(engine);
    }
    verrou__engine_leave(engine);
    return NULL;
}

verrou_status verrou__threads_need_keeper(verrou__engine *engine)
{
    if (engine->keeper_started || engine->options.manual)
        return VERROU_OK;
    if (engine->stopping || keeper_open_fds(engine) < 0)
        return VERROU_ENOMEM;
    if (start_thread(&engine->keeper, keeper_main, engine) != 0) {
        keeper_close_fds(engine);
        return VERROU_ENOMEM;
    }
    engine->keeper_started = true;
    return VERROU_OK;
}

verrou_status verrou__engine_need_timers(verrou__engine *engine, verrou_error *err)
{
    verrou_status status;

    verrou__engine_enter(engine);
    status = verrou__threads_need_keeper(engine);
    verrou__engine_leave(engine);
    return status == VERROU_OK ? VERROU_OK : verrou__fail(err, status, "no thread or descriptor for timers");
}

/* It looks at timers and watch before it sleeps: a nudge is needed only if it sleeps, and longer than it should. */
void verrou__threads_wake_keeper(verrou__engine *engine)
{
    if (engine->options.manual || verrou__threads_need_keeper(engine) != VERROU_OK || engine->keeper_wakes_ms == 0)
        return;
    if (verrou__engine_next_ms(engine) >= engine->keeper_wakes_ms && !engine->dirty)
        return;
    engine->keeper_wakes_ms = 0;
    bell_ring(&engine->bell);
}

/* ---- workers ---- */

static void *worker_main(void *arg)
{
    verrou__engine *engine = arg;

    verrou__engine_enter(engine);
    while (!engine->stopping) {
        bool any = verrou__engine_work(engine);

        verrou__engine_settle(engine);
        if (verrou__engine_has_loose_ends(engine)) {
            verrou__engine_leave(engine);
            verrou__engine_enter(engine);
            continue;
        }
        if (any || engine->stopping)
            continue;
        engine->workers_idle++;
        pthread_cond_wait(&engine->work, &engine->mutex);
        engine->workers_idle--;
    }
    verrou__engine_leave(engine);
    return NULL;
}

bool verrou__threads_wake_worker(verrou__engine *engine)
{
    if (engine->options.manual)
        return true;
    if (engine->workers_idle > 0) {
        pthread_cond_signal(&engine->work);
        return true;
    }
    /* One more than lanes, so that opening a watch holds nobody up. All busy: they look again before they sleep. */
    if (engine->worker_count <= engine->options.lanes && !engine->stopping &&
        start_thread(&engine->workers[engine->worker_count], worker_main, engine) == 0)
        engine->worker_count++;
    return engine->worker_count > 0;
}

void verrou__threads_stop(verrou__engine *engine)
{
    uint32_t workers;
    bool keeper;

    pthread_mutex_lock(&engine->mutex);
    engine->stopping = true;
    workers = engine->worker_count;
    keeper = engine->keeper_started;
    pthread_cond_broadcast(&engine->work);
    if (keeper)
        bell_ring(&engine->bell);
    pthread_mutex_unlock(&engine->mutex);
    for (uint32_t i = 0; i < workers; i++)
        pthread_join(engine->workers[i], NULL);
    if (keeper)
        pthread_join(engine->keeper, NULL);
    keeper_close_fds(engine);
    engine->keeper_started = false;
    engine->worker_count = 0;
}

/* ---- manual engines ---- */

bool verrou__engine_step(verrou__engine *engine)
{
    bool any;

    verrou__engine_enter(engine);
    any = keeper_tick(engine);
    any |= verrou__watch_step(engine);
    if (engine->watch_state == WATCH_OPEN)
        verrou__watch_read(engine);
    verrou__engine_settle(engine);
    any |= verrou__engine_work(engine);
    verrou__engine_leave(engine);
    return any;
}
