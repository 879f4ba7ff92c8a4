/*
 * memory.c - locks inside one process. The reference that the other stores are compared with.
 *
 * The table is cut into shards, each with its own mutex. A key that nobody holds is not in the table: the fencing mark, which must
 * outlive it, is kept once a shard. It grows with each acquisition in the shard, hence with each acquisition of each key there.
 * The driver is inline: it never blocks, and the engine calls it on the caller's thread.
 */
#include <pthread.h>
#include <time.h>

#include "util/table.h"
#include <verrou/store.h>

#define SHARDS 64 /* two threads meet by chance in one of 64 cases */

struct entry {
    struct table_node node; /* node.key is `text` */
    int64_t expires_ms;
    uint64_t fence;
    uint32_t owner_len;
    char text[]; /* key, owner */
};

struct shard {
    pthread_mutex_t mutex;
    struct table table;
    uint64_t mark; /* the largest token given out in this shard */
};

struct memory {
    const verrou_host *host;
    uint64_t seed;
    int64_t epoch_offset_ms; /* wall clock minus verrou_now_ms() when the store was made */
    struct shard shards[SHARDS];
};

static verrou_status memory_create(const verrou_host *host, void *log_context, const verrou_url *url, void **ret_state,
                                   verrou_error *err)
{
    struct memory *memory;
    struct timespec wall;

    (void)log_context;
    if (url->rest[0] != '\0')
        return host->fail(err, VERROU_ECONFIG, 0, NULL, "memory: nothing may follow the \"memory:\" but settings");
    memory = host->malloc(sizeof(*memory));
    if (!memory)
        return host->fail(err, VERROU_ENOMEM, 1, NULL, "out of memory");
    memset(memory, 0, sizeof(*memory));
    memory->host = host;
    memory->seed = host->random();
    clock_gettime(CLOCK_REALTIME, &wall);
    memory->epoch_offset_ms = (int64_t)wall.tv_sec * 1000 + wall.tv_nsec / 1000000 - host->now_ms();
    for (size_t i = 0; i < SHARDS; i++) {
        pthread_mutex_init(&memory->shards[i].mutex, NULL);
        table_init(&memory->shards[i].table);
    }
    *ret_state = memory;
    return VERROU_OK;
}

static void memory_destroy(void *state)
{
    struct memory *memory = state;

    for (size_t i = 0; i < SHARDS; i++) {
        struct shard *shard = &memory->shards[i];

        TABLE_EACH(&shard->table, bucket, node, following)
        {
            table_remove(&shard->table, node);
            memory->host->free(node);
        }
        table_done(&shard->table, memory->host->free);
        pthread_mutex_destroy(&shard->mutex);
    }
    memory->host->free(memory);
}

static uint32_t memory_caps(void *state)
{
    (void)state;
    return VERROU_CAP_SERVER_CLOCK | VERROU_CAP_FENCE | VERROU_CAP_FENCE_STORED | VERROU_CAP_PUSH | VERROU_CAP_LIST |
           VERROU_CAP_IMMEDIATE;
}

static const char *entry_owner(const struct entry *entry)
{
    return entry->text + entry->node.key_len + 1;
}

static void entry_drop(struct memory *memory, struct shard *shard, struct entry *entry)
{
    table_remove(&shard->table, &entry->node);
    memory->host->free(entry);
}

/* The live lease on this key; an expired one is dropped on the way. */
static struct entry *memory_find(struct memory *memory, struct shard *shard, const verrou_op *op, uint32_t hash)
{
    struct table_node *node = table_find(&shard->table, op->key, op->key_len, hash);
    struct entry *entry = (struct entry *)node;

    if (entry && entry->expires_ms <= op->sent_ms) {
        entry_drop(memory, shard, entry);
        entry = NULL;
    }
    return entry;
}

static void memory_describe(const struct memory *memory, verrou_op *op, const struct entry *entry)
{
    int64_t remaining = entry->expires_ms == VERROU_FOREVER ? VERROU_FOREVER : entry->expires_ms - op->sent_ms;

    memory->host->holder(op, entry_owner(entry), entry->owner_len, remaining, entry->fence);
}

static void memory_acquire(struct memory *memory, struct shard *shard, verrou_op *op, uint32_t hash)
{
    struct entry *entry = memory_find(memory, shard, op, hash);
    uint64_t epoch_us = (uint64_t)(op->sent_ms + memory->epoch_offset_ms) * 1000;

    if (entry) {
        op->result = VERROU_OP_REFUSED;
        memory_describe(memory, op, entry);
        return;
    }
    entry = memory->host->malloc(sizeof(*entry) + op->key_len + 1u + op->owner_len + 1u);
    if (!entry) {
        memory->host->op_fail(op, VERROU_OP_FAILED, 1, NULL, "out of memory");
        return;
    }
    memcpy(entry->text, op->key, op->key_len + 1u);
    memcpy(entry->text + op->key_len + 1, op->owner, op->owner_len + 1u);
    entry->owner_len = op->owner_len;
    entry->node.key = entry->text;
    entry->node.key_len = op->key_len;
    entry->node.hash = hash;
    entry->expires_ms = op->ttl_ms == VERROU_FOREVER ? VERROU_FOREVER : op->sent_ms + op->ttl_ms;
    shard->mark = shard->mark + 1 > epoch_us ? shard->mark + 1 : epoch_us;
    entry->fence = shard->mark;
    table_add(&shard->table, &entry->node, memory->host->malloc, memory->host->free);
    op->fence = entry->fence;
    op->result = VERROU_OP_APPLIED;
}

static bool entry_is_of(const struct entry *entry, const verrou_op *op)
{
    return entry && entry->owner_len == op->owner_len && memcmp(entry_owner(entry), op->owner, op->owner_len) == 0 &&
           (op->fence == 0 || op->fence == entry->fence);
}

static void memory_answer(struct memory *memory, verrou_op *op)
{
    uint32_t hash = table_hash(op->key, op->key_len, memory->seed);
    struct shard *shard = &memory->shards[hash % SHARDS];
    struct entry *entry;

    /* The low bits choose the shard, so the table in it has to go by the others. */
    hash = hash / SHARDS;
    pthread_mutex_lock(&shard->mutex);
    switch (op->kind) {
    case VERROU_OP_ACQUIRE:
        memory_acquire(memory, shard, op, hash);
        break;
    case VERROU_OP_RELEASE:
        entry = memory_find(memory, shard, op, hash);
        op->result = entry_is_of(entry, op) ? VERROU_OP_APPLIED : VERROU_OP_REFUSED;
        if (op->result == VERROU_OP_APPLIED)
            entry_drop(memory, shard, entry);
        break;
    case VERROU_OP_EXTEND:
        entry = memory_find(memory, shard, op, hash);
        op->result = entry_is_of(entry, op) ? VERROU_OP_APPLIED : VERROU_OP_REFUSED;
        if (op->result == VERROU_OP_APPLIED) {
            entry->expires_ms = op->ttl_ms == VERROU_FOREVER ? VERROU_FOREVER : op->sent_ms + op->ttl_ms;
            op->fence = entry->fence;
        }
        break;
    case VERROU_OP_FORCE:
        entry = memory_find(memory, shard, op, hash);
        op->result = VERROU_OP_APPLIED;
        if (entry)
            entry_drop(memory, shard, entry);
        break;
    case VERROU_OP_INSPECT:
        entry = memory_find(memory, shard, op, hash);
        op->result = entry ? VERROU_OP_APPLIED : VERROU_OP_REFUSED;
        if (entry)
            memory_describe(memory, op, entry);
        break;
    }
    op->others = 0; /* nobody outside this process can wait */
    pthread_mutex_unlock(&shard->mutex);
}

static verrou_status memory_execute(void *state, void *lane, verrou_op *const *ops, size_t n, int64_t deadline_ms,
                                    verrou_error *err)
{
    (void)lane;
    (void)deadline_ms;
    (void)err;
    for (size_t i = 0; i < n; i++)
        memory_answer(state, ops[i]);
    return VERROU_OK;
}

static verrou_status memory_list(void *state, void *lane, const char *prefix, size_t prefix_len, int64_t deadline_ms,
                                 verrou_sink *sink, verrou_error *err)
{
    struct memory *memory = state;
    int64_t now_ms = memory->host->now_ms();
    int failed = 0;

    (void)lane;
    (void)deadline_ms;
    for (size_t i = 0; i < SHARDS && !failed; i++) {
        struct shard *shard = &memory->shards[i];

        pthread_mutex_lock(&shard->mutex);
        TABLE_EACH(&shard->table, bucket, node, following)
        {
            struct entry *entry = (struct entry *)node;
            int64_t remaining = entry->expires_ms == VERROU_FOREVER ? VERROU_FOREVER : entry->expires_ms - now_ms;

            if (remaining > 0 && node->key_len >= prefix_len && memcmp(node->key, prefix, prefix_len) == 0)
                failed |= memory->host->list_add(sink, node->key, node->key_len, entry_owner(entry), entry->owner_len,
                                                 remaining, entry->fence);
        }
        pthread_mutex_unlock(&shard->mutex);
    }
    return failed ? memory->host->fail(err, VERROU_ENOMEM, 1, NULL, "out of memory") : VERROU_OK;
}

static verrou_status memory_check(void *state, void *lane, int64_t deadline_ms, verrou_sink *sink, verrou_error *err)
{
    struct memory *memory = state;

    (void)lane;
    (void)deadline_ms;
    if (memory->host->finding(sink, VERROU_INFO, "scope", "locks are seen by this process only"))
        return memory->host->fail(err, VERROU_ENOMEM, 1, NULL, "out of memory");
    return VERROU_OK;
}

const verrou_driver *verrou__memory_driver(void);
const verrou_driver *verrou__memory_driver(void)
{
    static const char *const schemes[] = {"memory", NULL};
    static const char *const settings[] = {NULL};
    static const verrou_driver driver = {
        .version = VERROU_STORE_VERSION,
        .schemes = schemes,
        .settings = settings,
        .flags = VERROU_DRIVER_INLINE | VERROU_DRIVER_COMPARES,
        .create = memory_create,
        .destroy = memory_destroy,
        .caps = memory_caps,
        .execute = memory_execute,
        .list = memory_list,
        .check = memory_check,
        .max_key = 60000,
    };
    return &driver;
}
