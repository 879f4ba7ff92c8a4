/*
 * timers.c - the engine's timers: an intrusive pairing heap (Fredman, Sedgewick, Sleator, Tarjan, 1986). Setting a timer allocates
 * nothing and costs O(1); taking one out costs O(log n) amortised.
 */
#include "engine/internal.h"

static verrou__timer *meld(verrou__timer *a, verrou__timer *b)
{
    if (!a)
        return b;
    if (!b)
        return a;
    if (b->when_ms < a->when_ms) {
        verrou__timer *earlier = b;

        b = a;
        a = earlier;
    }
    b->next = a->child;
    if (b->next)
        b->next->prev = b;
    b->prev = a;
    a->child = b;
    return a;
}

/* Meld a list of siblings: in pairs from the left, then the pairs from the right. */
static verrou__timer *meld_siblings(verrou__timer *first)
{
    verrou__timer *pairs = NULL;
    verrou__timer *root = NULL;

    while (first) {
        verrou__timer *second = first->next;
        verrou__timer *rest = second ? second->next : NULL;
        verrou__timer *pair;

        first->next = first->prev = NULL;
        if (second)
            second->next = second->prev = NULL;
        pair = meld(first, second);
        pair->next = pairs;
        pairs = pair;
        first = rest;
    }
    while (pairs) {
        verrou__timer *next = pairs->next;

        pairs->next = NULL;
        root = meld(root, pairs);
        pairs = next;
    }
    return root;
}

void verrou__timer_clear(verrou__engine *engine, verrou__timer *timer)
{
    verrou__timer *orphans;

    if (!timer->prev)
        return;
    orphans = meld_siblings(timer->child);
    timer->child = NULL;
    if (engine->timers == timer) {
        engine->timers = orphans;
    } else {
        if (timer->prev->child == timer)
            timer->prev->child = timer->next;
        else
            timer->prev->next = timer->next;
        if (timer->next)
            timer->next->prev = timer->prev;
        engine->timers = meld(engine->timers, orphans);
    }
    if (engine->timers)
        engine->timers->prev = engine->timers;
    timer->next = timer->prev = NULL;
}

void verrou__timer_set(verrou__engine *engine, verrou__timer *timer, int64_t when_ms)
{
    verrou__timer_clear(engine, timer);
    if (when_ms == VERROU_FOREVER)
        return;
    timer->when_ms = when_ms;
    engine->timers = meld(engine->timers, timer);
    engine->timers->next = NULL;
    engine->timers->prev = engine->timers;
    if (engine->timers == timer)
        verrou__threads_wake_keeper(engine);
}

verrou__timer *verrou__timers_due(verrou__engine *engine, int64_t now_ms)
{
    verrou__timer *timer = engine->timers;

    if (!timer || timer->when_ms > now_ms)
        return NULL;
    verrou__timer_clear(engine, timer);
    return timer;
}

int64_t verrou__engine_next_ms(verrou__engine *engine)
{
    return engine->timers ? engine->timers->when_ms : VERROU_FOREVER;
}
