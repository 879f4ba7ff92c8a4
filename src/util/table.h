/*
 * table.h - an intrusive hash table of byte-string keys, used by the engine (keys waited for) and the memory store (keys held).
 * Nodes are embedded in the caller's structs; the table itself allocates only its bucket array, and goes on with the old one if
 * it cannot grow. No locking. A leaf: depends on nothing of ours.
 */
#ifndef VERROU_UTIL_TABLE_H
#define VERROU_UTIL_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct table_node {
    struct table_node *next;
    const char *key;
    uint32_t hash;
    uint32_t key_len;
};

#define TABLE_INITIAL_BUCKETS 16

struct table {
    struct table_node **buckets;
    struct table_node *initial[TABLE_INITIAL_BUCKETS]; /* a small table allocates nothing */
    size_t mask;
    size_t count;
};

/* The last 0 to 7 bytes of a key as a number. Copying a few bytes into a word and reading it whole would wait for the copy. */
static inline uint64_t table_tail(const char *key, size_t len)
{
    const unsigned char *bytes = (const unsigned char *)key;
    uint32_t first, last;

    if (len >= sizeof(first)) {
        memcpy(&first, key, sizeof(first));
        memcpy(&last, key + len - sizeof(last), sizeof(last));
        return (uint64_t)first << 32 | last;
    }
    return len == 0 ? 0 : (uint64_t)bytes[0] << 16 | (uint64_t)bytes[len / 2] << 8 | bytes[len - 1];
}

/* Multiply and fold eight bytes at a time; `seed` is drawn per process, so that nobody can choose keys that collide. */
static inline uint32_t table_hash(const char *key, size_t len, uint64_t seed)
{
    const uint64_t odd = UINT64_C(0x9E3779B97F4A7C15); /* 2^64 / golden ratio */
    uint64_t h = seed ^ (len * odd);
    uint64_t word;

    for (; len >= sizeof(word); key += sizeof(word), len -= sizeof(word)) {
        memcpy(&word, key, sizeof(word));
        h = (h ^ word) * odd;
        h ^= h >> 32;
    }
    h = (h ^ table_tail(key, len)) * odd;
    h ^= h >> 29;
    h *= odd;
    return (uint32_t)(h >> 32);
}

static inline void table_init(struct table *table)
{
    memset(table, 0, sizeof(*table));
    table->buckets = table->initial;
    table->mask = TABLE_INITIAL_BUCKETS - 1;
}

static inline void table_done(struct table *table, void (*free_fn)(void *))
{
    if (table->buckets != table->initial)
        free_fn(table->buckets);
    table_init(table);
}

static inline struct table_node *table_find(const struct table *table, const char *key, size_t len, uint32_t hash)
{
    struct table_node *node;

    for (node = table->buckets[hash & table->mask]; node; node = node->next)
        if (node->hash == hash && node->key_len == len && memcmp(node->key, key, len) == 0)
            return node;
    return NULL;
}

static inline void table_grow(struct table *table, void *(*malloc_fn)(size_t), void (*free_fn)(void *))
{
    size_t buckets = (table->mask + 1) * 4;
    struct table_node **wider = malloc_fn(buckets * sizeof(struct table_node *));

    if (!wider)
        return;
    memset(wider, 0, buckets * sizeof(struct table_node *));
    for (size_t i = 0; i <= table->mask; i++) {
        struct table_node *node = table->buckets[i];

        while (node) {
            struct table_node *next = node->next;

            node->next = wider[node->hash & (buckets - 1)];
            wider[node->hash & (buckets - 1)] = node;
            node = next;
        }
    }
    if (table->buckets != table->initial)
        free_fn(table->buckets);
    table->buckets = wider;
    table->mask = buckets - 1;
}

/* Add a node whose key, key_len and hash are set and whose key is not in the table. */
static inline void table_add(struct table *table, struct table_node *node, void *(*malloc_fn)(size_t),
                             void (*free_fn)(void *))
{
    if (table->count > table->mask)
        table_grow(table, malloc_fn, free_fn);
    node->next = table->buckets[node->hash & table->mask];
    table->buckets[node->hash & table->mask] = node;
    table->count++;
}

static inline void table_remove(struct table *table, struct table_node *node)
{
    struct table_node **at = &table->buckets[node->hash & table->mask];

    while (*at != node)
        at = &(*at)->next;
    *at = node->next;
    node->next = NULL;
    table->count--;
}

/* Walk all nodes; the node at hand may be removed. */
static inline struct table_node *table_next(const struct table *table, size_t *bucket, struct table_node *next)
{
    while (!next && *bucket <= table->mask)
        next = table->buckets[(*bucket)++];
    return next;
}
#define TABLE_EACH(table, bucket, node, following)                                          \
    for (size_t bucket = 0, table_once = 1; table_once; table_once = 0)                     \
        for (struct table_node *node = table_next(table, &bucket, NULL), *following = NULL; \
             node && (following = node->next, true); node = table_next(table, &bucket, following))

#endif
