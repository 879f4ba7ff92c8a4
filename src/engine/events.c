/*
 * events.c - log records. They arise under the engine's mutex, where no user code may run: they are copied into a ring and handed to the hook
 * by whoever leaves the engine next. One thread at a time does that, so a store's records come in order.
 */
#include <stdarg.h>
#include <stdio.h>

#include "engine/internal.h"

bool verrou__engine_logs(const verrou__engine *engine, verrou_level level)
{
    return engine->events && (int)level >= atomic_load_explicit(&engine->log_level, memory_order_relaxed);
}

void verrou__engine_set_log_level(verrou__engine *engine, verrou_level level)
{
    atomic_store(&engine->log_level, (int)level);
}

static struct event *event_add(verrou__engine *engine)
{
    if (engine->event_count == MAX_EVENTS) {
        engine->events_dropped++;
        return NULL;
    }
    return &engine->events[(engine->event_first + engine->event_count++) % MAX_EVENTS];
}

static void event_put(verrou__engine *engine, verrou_level level, const char *name, const char *key, const char *owner,
                      const char *message, int64_t value)
{
    struct event *event;

    if (!verrou__engine_logs(engine, level))
        return;
    event = event_add(engine);
    if (!event)
        return;
    event->level = level;
    event->event = name;
    event->value = value;
    snprintf(event->key, sizeof(event->key), "%s", key ? key : "");
    snprintf(event->owner, sizeof(event->owner), "%s", owner ? owner : "");
    snprintf(event->message, sizeof(event->message), "%s", message ? message : "");
}

void verrou__event_locked(verrou__engine *engine, verrou_level level, const char *event, const verrou__call *call,
                          const char *message, int64_t value)
{
    const char *key = NULL;
    const char *owner = NULL;

    if (call && call->op.key)
        key = call->op.key + engine->options.prefix_len;
    if (call && call->op.owner)
        owner = verrou__owner_public(call->op.owner);
    event_put(engine, level, event, key, owner, message, value);
}

void verrou__engine_log(void *context, verrou_level level, const char *event, const char *key, const char *format, ...)
{
    verrou__engine *engine = context;
    size_t prefix_len = engine->options.prefix_len;
    char message[MAX_MESSAGE];
    va_list args;

    /* An inline driver is called with the mutex held, and has nothing to say. */
    if (engine->is_inline || !verrou__engine_logs(engine, level))
        return;
    va_start(args, format);
    vsnprintf(message, sizeof(message), format, args);
    va_end(args);
    pthread_mutex_lock(&engine->mutex);
    if (key && strnlen(key, prefix_len) == prefix_len)
        key += prefix_len;
    event_put(engine, level, event, key, NULL, message, 0);
    pthread_mutex_unlock(&engine->mutex);
}

static void event_report(verrou__engine *engine, const struct event *event)
{
    verrou_log_record record = {
        .size = sizeof(record),
        .level = event->level,
        .event = event->event,
        .store = engine->options.name,
        .key = event->key[0] ? event->key : NULL,
        .owner = event->owner[0] ? event->owner : NULL,
        .message = event->message[0] ? event->message : NULL,
        .value = event->value,
    };

    engine->options.log(engine->options.log_user, &record);
}

void verrou__events_flush(verrou__engine *engine)
{
    if (engine->reporting)
        return;
    engine->reporting = true;
    while (engine->event_count > 0 || engine->events_dropped > 0) {
        struct event event = {.level = VERROU_WARN, .event = "log.dropped"};

        if (engine->event_count > 0) {
            event = engine->events[engine->event_first];
            engine->event_first = (engine->event_first + 1) % MAX_EVENTS;
            engine->event_count--;
        } else {
            event.value = (int64_t)engine->events_dropped;
            engine->events_dropped = 0;
        }
        pthread_mutex_unlock(&engine->mutex);
        event_report(engine, &event);
        pthread_mutex_lock(&engine->mutex);
    }
    engine->reporting = false;
}
