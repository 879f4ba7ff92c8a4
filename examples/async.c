/*
 * async.c - three locks and one poll(2) loop, no thread of ours: calls are submitted, and answered when the queue's
 * descriptor becomes readable. The second and the third lock have the same key, so that the third waits until the
 * second is released.
 *
 *     ./async [ADDRESS]
 */
#include <poll.h>
#include <stdio.h>
#include <verrou/verrou.h>

enum { LOCKS = 3 };

struct job {
    const char *name;
    const char *key;
    verrou_lock *lock;
    verrou_queue *queue;
    int *running;
    int *failed;
};

static void finish(struct job *job, const char *what, const verrou_result *result)
{
    if (result->status != VERROU_OK) {
        fprintf(stderr, "async: %s: %s: %s\n", job->name, what, result->error->message);
        ++*job->failed;
    }
    --*job->running;
}

static void released(void *user, const verrou_result *result)
{
    struct job *job = user;

    printf("%s is done\n", job->name);
    finish(job, "release", result);
}

/* A callback may make further calls. Here the work would be started; this one gives the lock back at once. */
static void acquired(void *user, const verrou_result *result)
{
    struct job *job = user;

    if (result->status != VERROU_OK) {
        finish(job, "acquire", result);
        return;
    }
    printf("%s holds \"%s\" with token %llu\n", job->name, job->key, (unsigned long long)result->info->fence);
    if (verrou_lock_release_async(job->lock, NULL, job->queue, released, job, NULL) != VERROU_OK) {
        ++*job->failed;
        --*job->running;
    }
}

static verrou_status start(verrou_store *store, struct job *job, verrou_error *err)
{
    verrou_acquire_options options = VERROU_ACQUIRE_OPTIONS_INIT;
    verrou_status status = verrou_lock_new(store, job->key, NULL, &job->lock, err);

    options.timeout_ms = 10000;
    if (status == VERROU_OK)
        status = verrou_lock_acquire_async(job->lock, &options, job->queue, acquired, job, err);
    if (status == VERROU_OK)
        ++*job->running;
    return status;
}

int main(int argc, char **argv)
{
    int running = 0, failed = 0;
    struct job jobs[LOCKS] = {
        {"the mailer", "mail", NULL, NULL, &running, &failed},
        {"the first report", "report", NULL, NULL, &running, &failed},
        {"the second report", "report", NULL, NULL, &running, &failed},
    };
    verrou_store *store = NULL;
    verrou_queue *queue = NULL;
    verrou_error err = VERROU_ERROR_INIT;
    verrou_status status;

    status = verrou_store_open(argc > 1 ? argv[1] : "memory:", NULL, &store, &err);
    if (status == VERROU_OK)
        status = verrou_queue_new(&queue, &err);
    for (int at = 0; at < LOCKS && status == VERROU_OK; at++) {
        jobs[at].queue = queue;
        status = start(store, &jobs[at], &err);
    }

    /* Any event loop will do: all it needs is the descriptor. */
    while (running > 0) {
        struct pollfd ready = {verrou_queue_fd(queue), POLLIN, 0};

        poll(&ready, 1, -1);
        verrou_dispatch(queue, 0);
    }

    if (status != VERROU_OK)
        fprintf(stderr, "async: %s: %s\n", verrou_status_name(status), err.message);
    for (int at = 0; at < LOCKS; at++)
        verrou_lock_free(jobs[at].lock);
    verrou_queue_free(queue);
    verrou_store_close(store);
    return status == VERROU_OK && failed == 0 ? 0 : 1;
}
