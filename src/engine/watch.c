/*
 * watch.c - being told of releases by other processes. Opening the watch may block and is a worker's job; everything else is done by
 * the keeper, which polls the watch's descriptor. A watch that fails is closed: waiters poll until it is open again.
 */
#include "engine/internal.h"

bool verrou__engine_can_push(const verrou__engine *engine)
{
    return engine->driver->watch_open != NULL;
}

/* The keeper looks at the watch after every timer. */
static void watch_retry(verrou__engine *engine, verrou__timer *timer)
{
    (void)engine;
    (void)timer;
}

void verrou__watch_init(verrou__engine *engine)
{
    engine->watch_timer.fire = watch_retry;
}

/* Called without the mutex. */
static void watch_report(void *context, verrou_watch_event event, const char *key, size_t key_len)
{
    verrou__engine *engine = context;

    verrou__engine_enter(engine);
    if (event == VERROU_WATCH_ACTIVE && key)
        verrou__waits_watch_active(engine, key, key_len);
    else if (key)
        verrou__waits_watch_free(engine, key, key_len, event == VERROU_WATCH_RELEASED);
    else
        verrou__waits_wake_all(engine);
    verrou__engine_leave(engine);
}

void verrou__watch_close(verrou__engine *engine, const verrou_error *why)
{
    void *watch = engine->watch;

    if (engine->watch_state != WATCH_OPEN)
        return;
    engine->watch_state = WATCH_OPENING; /* nobody else touches it meanwhile */
    engine->watch = NULL;
    pthread_mutex_unlock(&engine->mutex);
    engine->driver->watch_close(engine->state, watch);
    pthread_mutex_lock(&engine->mutex);
    engine->watch_state = WATCH_CLOSED;
    if (why)
        verrou__event_locked(engine, VERROU_WARN, "watch.lost", NULL, why->message, 0);
    verrou__waits_watch_lost(engine);
}

void verrou__watch_read(verrou__engine *engine)
{
    verrou_error error = VERROU_ERROR_INIT;
    verrou_status status;

    if (engine->watch_state != WATCH_OPEN)
        return;
    pthread_mutex_unlock(&engine->mutex);
    status = engine->driver->watch_read(engine->state, engine->watch, watch_report, engine, &error);
    pthread_mutex_lock(&engine->mutex);
    if (status != VERROU_OK)
        verrou__watch_close(engine, &error);
}

/* Add waiting keys, take off deserted ones. */
static bool watch_keys(verrou__engine *engine)
{
    verrou_error error = VERROU_ERROR_INIT;
    verrou_status status = VERROU_OK;
    char key[VERROU_MAX_KEY + 1];
    size_t len;
    bool add;
    bool any = false;

    while (status == VERROU_OK && engine->watch_state == WATCH_OPEN &&
           verrou__waits_next_dirty(engine, key, &len, &add)) {
        any = true;
        pthread_mutex_unlock(&engine->mutex);
        if (add)
            status = engine->driver->watch_add(engine->state, engine->watch, key, len, &error);
        else
            status = engine->driver->watch_remove(engine->state, engine->watch, key, len, &error);
        pthread_mutex_lock(&engine->mutex);
    }
    if (status != VERROU_OK)
        verrou__watch_close(engine, &error);
    return any;
}

bool verrou__watch_step(verrou__engine *engine)
{
    if (!verrou__engine_can_push(engine) || !engine->dirty || engine->closing)
        return false;
    if (engine->watch_state == WATCH_OPEN)
        return watch_keys(engine);
    if (engine->watch_state != WATCH_CLOSED)
        return false;
    if (engine->watch_retry_at_ms > engine_now(engine)) {
        verrou__timer_set(engine, &engine->watch_timer, engine->watch_retry_at_ms);
        return false;
    }
    engine->watch_state = WATCH_WANTED;
    verrou__threads_wake_worker(engine);
    return true;
}

bool verrou__watch_open(verrou__engine *engine)
{
    verrou_error error = VERROU_ERROR_INIT;
    verrou_status status;
    void *watch = NULL;

    if (engine->watch_state != WATCH_WANTED || engine->closing)
        return false;
    engine->watch_state = WATCH_OPENING;
    verrou__engine_appoint(engine); /* this thread may have been woken for requests as well, and the server may hang */
    pthread_mutex_unlock(&engine->mutex);
    status = engine->driver->watch_open(engine->state, engine_now(engine) + engine->options.limit_ms, &watch, &error);
    pthread_mutex_lock(&engine->mutex);
    if (status == VERROU_OK) {
        engine->watch = watch;
        engine->watch_state = WATCH_OPEN;
        engine->watch_backoff_ms = 0;
        verrou__waits_watch_opened(engine);
    } else {
        engine->watch_state = WATCH_CLOSED;
        engine->watch_backoff_ms = engine->watch_backoff_ms ? engine->watch_backoff_ms * 2 : 50;
        if (engine->watch_backoff_ms > RECONNECT_MAX_MS)
            engine->watch_backoff_ms = RECONNECT_MAX_MS;
        engine->watch_retry_at_ms = engine_now(engine) + engine->watch_backoff_ms;
        if (status == VERROU_ENOTSUP)
            engine->watch_retry_at_ms = VERROU_FOREVER;
        else
            verrou__event_locked(engine, VERROU_WARN, "watch.failed", NULL, error.message, 0);
    }
    verrou__threads_wake_keeper(engine);
    return true;
}
