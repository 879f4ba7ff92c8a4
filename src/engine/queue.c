/*
 * queue.c - completion queues: answered asynchronous calls, and a descriptor that is readable while there are any.
 *
 * The descriptor is a pipe that holds one byte while the list is not empty: written when the first call arrives, read when the last
 * one is taken.
 */
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "core/sink.h"
#include "engine/internal.h"

struct verrou_queue {
    pthread_mutex_t mutex;
    verrou__call *head;
    verrou__call *tail;
    int pipe_read;
    int pipe_write;
    uint32_t refs; /* the owner's, and one of each call that will report here */
    bool freed;    /* the owner is gone: calls end without being reported */
};

static int queue_pipe(int ends[2])
{
    if (pipe(ends) < 0)
        return -1;
    for (int i = 0; i < 2; i++) {
        fcntl(ends[i], F_SETFD, FD_CLOEXEC);
        fcntl(ends[i], F_SETFL, O_NONBLOCK);
    }
    return 0;
}

verrou_status verrou_queue_new(verrou_queue **ret_queue, verrou_error *err)
{
    verrou_queue *queue;
    int ends[2];

    if (!ret_queue)
        return verrou__fail(err, VERROU_EINVAL, "ret_queue is NULL");
    queue = verrou__calloc(sizeof(*queue));
    if (!queue)
        return verrou__nomem(err);
#ifdef __linux__
    if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0) {
#else
    if (queue_pipe(ends) < 0) {
#endif
        verrou__free(queue);
        return verrou__fail(err, VERROU_ENOMEM, "no descriptor for a completion queue");
    }
    pthread_mutex_init(&queue->mutex, NULL);
    queue->pipe_read = ends[0];
    queue->pipe_write = ends[1];
    queue->refs = 1;
    *ret_queue = queue;
    return VERROU_OK;
}

void queue_ref(verrou_queue *queue)
{
    pthread_mutex_lock(&queue->mutex);
    queue->refs++;
    pthread_mutex_unlock(&queue->mutex);
}

void queue_unref(verrou_queue *queue)
{
    bool last;

    pthread_mutex_lock(&queue->mutex);
    last = --queue->refs == 0;
    pthread_mutex_unlock(&queue->mutex);
    if (!last)
        return;
    close(queue->pipe_read);
    close(queue->pipe_write);
    pthread_mutex_destroy(&queue->mutex);
    verrou__free(queue);
}

int verrou_queue_fd(const verrou_queue *queue)
{
    return queue ? queue->pipe_read : -1;
}

static void pipe_fill(verrou_queue *queue)
{
    while (write(queue->pipe_write, "", 1) < 0 && errno == EINTR)
        ;
}

static void pipe_drain(verrou_queue *queue)
{
    char byte;

    while (read(queue->pipe_read, &byte, 1) < 0 && errno == EINTR)
        ;
}

static verrou__call *queue_pop(verrou_queue *queue)
{
    verrou__call *call;

    pthread_mutex_lock(&queue->mutex);
    call = queue->head;
    if (call) {
        queue->head = call->done_next;
        if (!queue->head) {
            queue->tail = NULL;
            pipe_drain(queue);
        }
    }
    pthread_mutex_unlock(&queue->mutex);
    return call;
}

static void call_unref(verrou__call *call)
{
    if (--call->refs == 0)
        verrou__call_free(call);
}

/* Takes over the reference that the queue holds on the call. Without the engine's mutex. */
void queue_push(verrou_queue *queue, verrou__call *call)
{
    bool freed;

    call->done_next = NULL;
    pthread_mutex_lock(&queue->mutex);
    freed = queue->freed;
    if (!freed) {
        if (queue->tail)
            queue->tail->done_next = call;
        else
            queue->head = call;
        if (!queue->tail)
            pipe_fill(queue);
        queue->tail = call;
    }
    pthread_mutex_unlock(&queue->mutex);
    if (freed) {
        call_unref(call);
        queue_unref(queue);
    }
}

static void queue_report(verrou__call *call)
{
    verrou_error error = VERROU_ERROR_INIT;
    verrou_info info = VERROU_INFO_INIT;
    verrou_result result = {sizeof(result), call->status, NULL, NULL, NULL, 0};

    if (call->status != VERROU_OK) {
        verrou__call_error(call, &error);
        result.error = &error;
    }
    verrou__call_info(call, &info);
    result.info = &info;
    if (call->sink && call->kind == VERROU__LIST && call->status == VERROU_OK)
        result.locks = verrou__sink_locks(call->sink, &result.count);
    call->done(call->user, &result);
}

size_t verrou_dispatch(verrou_queue *queue, size_t max)
{
    size_t done = 0;
    verrou__call *call;

    if (!queue)
        return 0;
    queue_ref(queue); /* a callback may free the queue */
    while ((max == 0 || done < max) && (call = queue_pop(queue))) {
        queue_report(call);
        call_unref(call);
        queue_unref(queue);
        done++;
    }
    queue_unref(queue);
    return done;
}

void verrou_queue_free(verrou_queue *queue)
{
    verrou__call *call;

    if (!queue)
        return;
    pthread_mutex_lock(&queue->mutex);
    queue->freed = true;
    pthread_mutex_unlock(&queue->mutex);
    while ((call = queue_pop(queue))) {
        call_unref(call);
        queue_unref(queue);
    }
    queue_unref(queue);
}
