/*
 * slots.c - the slots of a cluster: which one a key is in, and a token counter's name in the same one.
 *
 * The slot of a key is CRC16 (the XMODEM variant: polynomial 0x1021, nothing reflected) modulo 16384 of what stands between its first '{' and
 * the next '}', or of the whole key if that is nothing (Redis Cluster specification, "Hash tags").
 */
#include "redis_store.h"

#include <stdio.h>
#include <string.h>

/* Some 170,000 numbers are enough to meet every slot; a prefix with a tag of its own meets one only. */
#define MAX_NUMBER 2000000

struct redis_counters {
    uint32_t next;                /* numbers below were tried */
    uint32_t number[REDIS_SLOTS]; /* plus one; 0: none yet */
};

static uint16_t crc16(const char *bytes, size_t len)
{
    uint16_t crc = 0;

    for (size_t i = 0; i < len; i++) {
        crc ^= (uint16_t)((unsigned char)bytes[i] << 8);
        for (int bit = 0; bit < 8; bit++)
            crc = crc & 0x8000 ? (uint16_t)(crc << 1 ^ 0x1021) : (uint16_t)(crc << 1);
    }
    return crc;
}

unsigned verrou__redis_slot(const char *key, size_t len)
{
    const char *open = memchr(key, '{', len);
    const char *close = open ? memchr(open, '}', (size_t)(key + len - open)) : NULL;

    if (close && close > open + 1) {
        key = open + 1;
        len = (size_t)(close - key);
    }
    return crc16(key, len) % REDIS_SLOTS;
}

static size_t counter_name(const redis_state *state, uint32_t number, char *name, size_t size)
{
    return (size_t)snprintf(name, size, "%s{%lu}", state->counter, (unsigned long)number);
}

/* With the mutex held. */
static bool find_number(redis_state *state, unsigned slot, char *name, size_t size)
{
    struct redis_counters *counters = state->counters;

    if (!counters) {
        counters = state->host->malloc(sizeof *counters);
        if (!counters)
            return false;
        memset(counters, 0, sizeof *counters);
        state->counters = counters;
    }
    while (!counters->number[slot] && counters->next < MAX_NUMBER) {
        size_t len = counter_name(state, counters->next, name, size);
        uint32_t *number = &counters->number[verrou__redis_slot(name, len)];

        counters->next++;
        if (!*number)
            *number = counters->next;
    }
    return counters->number[slot] != 0;
}

size_t verrou__redis_counter(redis_state *state, const char *key, size_t key_len, char *name, size_t size)
{
    unsigned slot;
    size_t len = 0;

    if (state->topology != REDIS_CLUSTER)
        return (size_t)snprintf(name, size, "%s", state->counter);
    slot = verrou__redis_slot(key, key_len);
    pthread_mutex_lock(&state->mutex);
    if (find_number(state, slot, name, size))
        len = counter_name(state, state->counters->number[slot] - 1, name, size);
    pthread_mutex_unlock(&state->mutex);
    return len;
}

void verrou__redis_counters_free(redis_state *state)
{
    state->host->free(state->counters);
    state->counters = NULL;
}
