/*
 * later_test.c - the conformance suite on a driver that answers later (VERROU_DRIVER_LATER), as a store behind an event loop does: execute() only
 * passes requests on, and a thread answers them, one after the other, in batches from the last to the first now and then.
 */
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <verrou/conformance.h>

#define ENTRIES 4096

struct request {
    verrou_op *op;
    struct request *next;
};

struct entry {
    char key[VERROU_MAX_KEY + 1];
    char owner[VERROU_MAX_OWNER + 1];
    int64_t expires_ms; /* 0: free */
    uint64_t fence;
};

struct later {
    const verrou_host *host;
    void *context;
    pthread_mutex_t mutex;
    pthread_cond_t work;
    pthread_t thread;
    struct request *requests; /* the newest first */
    bool stopping;
    uint64_t token;
    struct entry entries[ENTRIES];
};

/* ---- the store: the thread's alone ---- */

static struct entry *find(struct later *later, const char *key)
{
    size_t at = 0;

    while (at < ENTRIES - 1 && later->entries[at].key[0] && strcmp(later->entries[at].key, key) != 0)
        at++;
    strcpy(later->entries[at].key, key);
    return &later->entries[at];
}

static uint64_t next_token(struct later *later)
{
    struct timespec wall;
    uint64_t now_us;

    clock_gettime(CLOCK_REALTIME, &wall);
    now_us = (uint64_t)wall.tv_sec * 1000000 + (uint64_t)wall.tv_nsec / 1000;
    later->token = now_us > later->token ? now_us : later->token + 1;
    return later->token;
}

static int64_t ends(int64_t now_ms, int64_t ttl_ms)
{
    return ttl_ms == VERROU_FOREVER ? VERROU_FOREVER : now_ms + ttl_ms;
}

static void tell_holder(struct later *later, verrou_op *op, const struct entry *entry, int64_t now_ms)
{
    int64_t left_ms = entry->expires_ms == VERROU_FOREVER ? VERROU_FOREVER : entry->expires_ms - now_ms;

    later->host->holder(op, entry->owner, strlen(entry->owner), left_ms, entry->fence);
}

static void acquire(struct later *later, verrou_op *op, struct entry *entry, int64_t now_ms)
{
    if (entry->expires_ms > now_ms) {
        tell_holder(later, op, entry, now_ms);
        op->result = VERROU_OP_REFUSED;
        return;
    }
    strcpy(entry->owner, op->owner);
    entry->expires_ms = ends(now_ms, op->ttl_ms);
    entry->fence = op->fence = next_token(later);
    op->result = VERROU_OP_APPLIED;
}

static void answer(struct later *later, verrou_op *op)
{
    struct entry *entry = find(later, op->key);
    int64_t now_ms = later->host->now_ms();
    bool live = entry->expires_ms > now_ms;
    bool own = live && op->owner && strcmp(entry->owner, op->owner) == 0;

    op->result = VERROU_OP_REFUSED;
    switch (op->kind) {
    case VERROU_OP_ACQUIRE:
        acquire(later, op, entry, now_ms);
        break;
    case VERROU_OP_RELEASE:
        if (own) {
            entry->expires_ms = 0;
            op->result = VERROU_OP_APPLIED;
        }
        break;
    case VERROU_OP_EXTEND:
        if (own) {
            entry->expires_ms = ends(now_ms, op->ttl_ms);
            op->result = VERROU_OP_APPLIED;
        }
        break;
    case VERROU_OP_FORCE:
        entry->expires_ms = 0;
        op->result = VERROU_OP_APPLIED;
        break;
    case VERROU_OP_INSPECT:
        if (live) {
            tell_holder(later, op, entry, now_ms);
            op->result = VERROU_OP_APPLIED;
        }
        break;
    }
}

static void *answer_all(void *user)
{
    struct later *later = user;

    pthread_mutex_lock(&later->mutex);
    while (!later->stopping || later->requests) {
        struct request *requests = later->requests;

        later->requests = NULL;
        if (!requests) {
            pthread_cond_wait(&later->work, &later->mutex);
            continue;
        }
        pthread_mutex_unlock(&later->mutex);
        while (requests) {
            struct request *next = requests->next;

            answer(later, requests->op);
            later->host->answered(later->context, requests->op);
            free(requests);
            requests = next;
        }
        pthread_mutex_lock(&later->mutex);
    }
    pthread_mutex_unlock(&later->mutex);
    return NULL;
}

/* ---- the driver ---- */

static verrou_status later_create(const verrou_host *host, void *log_context, const verrou_url *url, void **ret_state,
                                  verrou_error *err)
{
    struct later *later = calloc(1, sizeof(*later));

    (void)url;
    if (!later)
        return host->fail(err, VERROU_ENOMEM, 1, NULL, "out of memory");
    later->host = host;
    later->context = log_context;
    pthread_mutex_init(&later->mutex, NULL);
    pthread_cond_init(&later->work, NULL);
    if (pthread_create(&later->thread, NULL, answer_all, later) != 0) {
        free(later);
        return host->fail(err, VERROU_ENOMEM, 1, NULL, "no thread");
    }
    *ret_state = later;
    return VERROU_OK;
}

static void later_destroy(void *state)
{
    struct later *later = state;

    pthread_mutex_lock(&later->mutex);
    later->stopping = true;
    pthread_cond_signal(&later->work);
    pthread_mutex_unlock(&later->mutex);
    pthread_join(later->thread, NULL);
    pthread_cond_destroy(&later->work);
    pthread_mutex_destroy(&later->mutex);
    free(later);
}

static uint32_t later_caps(void *state)
{
    (void)state;
    return VERROU_CAP_FENCE;
}

static verrou_status later_execute(void *state, void *lane, verrou_op *const *ops, size_t n, int64_t deadline_ms,
                                   verrou_error *err)
{
    struct later *later = state;
    struct request *request = malloc(sizeof(*request));

    (void)lane, (void)n, (void)deadline_ms;
    if (!request)
        return later->host->fail(err, VERROU_ENOMEM, 1, NULL, "out of memory");
    request->op = ops[0];
    pthread_mutex_lock(&later->mutex);
    request->next = later->requests;
    later->requests = request;
    pthread_cond_signal(&later->work);
    pthread_mutex_unlock(&later->mutex);
    return VERROU_OK;
}

static const char *const schemes[] = {"later", NULL};
static const char *const settings[] = {NULL};
static const verrou_driver driver = {
    .version = VERROU_STORE_VERSION,
    .schemes = schemes,
    .settings = settings,
    .flags = VERROU_DRIVER_LATER,
    .create = later_create,
    .destroy = later_destroy,
    .caps = later_caps,
    .execute = later_execute,
};

static verrou_status open_later(void *user, verrou_store **ret_store, verrou_error *err)
{
    (void)user;
    return verrou_store_open("later:", NULL, ret_store, err);
}

int main(void)
{
    verrou_conformance suite = {sizeof suite, "answers later", open_later, NULL, VERROU_CONFORMANCE_NO_STORE_STATE};

    if (verrou_register_driver(&driver, NULL) != VERROU_OK)
        return 1;
    return verrou_conformance_run(&suite) == 0 ? 0 : 1;
}
