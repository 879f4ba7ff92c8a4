/*
 * redis_slots.c - slots.c of the driver for tests, apart from them: names of redis_store.h and redis_servers.h collide.
 */
#include "redis_slots.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "stores/redis/redis_store.h"

static verrou_host host;
static redis_state state;

void slots_begin(const char *prefix)
{
    host.malloc = malloc;
    host.free = free;
    memset(&state, 0, sizeof state);
    state.host = &host;
    state.topology = REDIS_CLUSTER;
    pthread_mutex_init(&state.mutex, NULL);
    snprintf(state.counter, sizeof state.counter, "%sverrou:fence", prefix);
}

void slots_end(void)
{
    verrou__redis_counters_free(&state);
    pthread_mutex_destroy(&state.mutex);
}

unsigned slots_slot(const char *key, size_t len)
{
    return verrou__redis_slot(key, len);
}

size_t slots_counter(const char *key, size_t len, char *name, size_t size)
{
    return verrou__redis_counter(&state, key, len, name, size);
}
