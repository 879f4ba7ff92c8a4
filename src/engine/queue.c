/*
 * queue.c - completion queues: answered asynchronous calls, and a descriptor that is readable while there are any.
 *
 * The bell rings from the first call that arrives to the last one that is taken.
 */
#include "core/sink.h"
#include "engine/internal.h"
#include "util/bell.h"

struct verrou_queue {
    pthread_mutex_t mutex;
    verrou__call *head;
    verrou__call *tail;
    struct bell bell;
    _Atomic uint64_t process; /* see verrou__fork_settle() */
    uint32_t refs;            /* the owner's, and one of each call that will report here */
    bool freed;               /* the owner is gone: calls end without being reported */
};

/*
 * In a child: what was answered is the parent's to hear of, and so is the bell, whose pipe both have. The references of calls that the
 * child will never see answered stay. Without a descriptor the queue works, but cannot be polled.
 */
static void queue_mend_after_fork(void *object)
{
    verrou_queue *queue = object;

    pthread_mutex_init(&queue->mutex, NULL);
    queue->head = queue->tail = NULL;
    bell_close(&queue->bell);
    bell_open(&queue->bell);
}

static void queue_lock(verrou_queue *queue)
{
    verrou__fork_settle(&queue->process, queue_mend_after_fork, queue);
    pthread_mutex_lock(&queue->mutex);
}

verrou_status verrou_queue_new(verrou_queue **ret_queue, verrou_error *err)
{
    verrou_queue *queue;

    if (!ret_queue)
        return verrou__fail(err, VERROU_EINVAL, "ret_queue is NULL");
    queue = verrou__calloc(sizeof(*queue));
    if (!queue)
        return verrou__nomem(err);
    if (bell_open(&queue->bell) < 0) {
        verrou__free(queue);
        return verrou__fail(err, VERROU_ENOMEM, "no descriptor for a completion queue");
    }
    verrou__fork_owner(&queue->process);
    pthread_mutex_init(&queue->mutex, NULL);
    queue->refs = 1;
    *ret_queue = queue;
    return VERROU_OK;
}

void verrou__queue_ref(verrou_queue *queue)
{
    queue_lock(queue);
    queue->refs++;
    pthread_mutex_unlock(&queue->mutex);
}

void verrou__queue_unref(verrou_queue *queue)
{
    bool last;

    queue_lock(queue);
    last = --queue->refs == 0;
    pthread_mutex_unlock(&queue->mutex);
    if (!last)
        return;
    bell_close(&queue->bell);
    pthread_mutex_destroy(&queue->mutex);
    verrou__free(queue);
}

int verrou_queue_fd(const verrou_queue *queue)
{
    verrou_queue *own = (verrou_queue *)queue;

    if (!queue)
        return -1;
    verrou__fork_settle(&own->process, queue_mend_after_fork, own);
    return queue->bell.read_end;
}

static verrou__call *queue_pop(verrou_queue *queue)
{
    verrou__call *call;

    queue_lock(queue);
    call = queue->head;
    if (call) {
        queue->head = call->done_next;
        if (!queue->head) {
            queue->tail = NULL;
            bell_hush(&queue->bell);
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

/* Calls of one queue, linked by done_next from first to last. Takes over the queue's reference on each. Without the engine's mutex. */
void verrou__queue_push(verrou_queue *queue, verrou__call *first, verrou__call *last)
{
    bool freed;

    last->done_next = NULL;
    queue_lock(queue);
    freed = queue->freed;
    if (!freed) {
        if (queue->tail)
            queue->tail->done_next = first;
        else
            queue->head = first;
        if (!queue->tail)
            bell_ring(&queue->bell);
        queue->tail = last;
    }
    pthread_mutex_unlock(&queue->mutex);
    while (freed && first) {
        verrou__call *next = first->done_next;

        call_unref(first);
        verrou__queue_unref(queue);
        first = next;
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

/*
 * While a thread reports, what its callbacks submit is held back, so that it goes to the store as one batch. The first such call stands for its
 * engine, and keeps it. Any other request for that engine sends them off with it, and so does the keeper a moment later, should a
 * callback take long.
 */
static _Thread_local struct {
    bool reporting;
    unsigned holds; /* of verrou_hold() */
    verrou__call *first;
    uint32_t process;
} held_back;

static void queue_send_off(void)
{
    verrou__call *first = held_back.first;

    held_back.first = NULL;
    if (!first || held_back.process != verrou__fork_count())
        return; /* a callback forked: the engine is the parent's */
    verrou__engine_enter(first->engine);
    verrou__engine_send_off(first->engine);
    verrou__engine_leave(first->engine);
    call_unref(first);
}

bool verrou__queue_hold_back(verrou__call *call)
{
    if (!held_back.reporting && held_back.holds == 0)
        return false;
    if (!held_back.first) {
        call->refs++;
        held_back.first = call;
        held_back.process = verrou__fork_count();
    }
    return held_back.first->engine == call->engine;
}

size_t verrou_dispatch(verrou_queue *queue, size_t max)
{
    size_t done = 0;
    verrou__call *call;

    if (!queue)
        return 0;
    verrou__queue_ref(queue); /* a callback may free the queue */
    while ((max == 0 || done < max) && (call = queue_pop(queue))) {
        held_back.reporting = true;
        queue_report(call);
        held_back.reporting = false;
        call_unref(call);
        verrou__queue_unref(queue);
        done++;
    }
    if (held_back.holds == 0)
        queue_send_off();
    verrou__queue_unref(queue);
    return done;
}

void verrou_hold(void)
{
    held_back.holds++;
}

void verrou_let_go(void)
{
    if (held_back.holds > 0 && --held_back.holds == 0)
        queue_send_off();
}

void verrou_queue_free(verrou_queue *queue)
{
    verrou__call *call;

    if (!queue)
        return;
    queue_lock(queue);
    queue->freed = true;
    pthread_mutex_unlock(&queue->mutex);
    while ((call = queue_pop(queue))) {
        call_unref(call);
        verrou__queue_unref(queue);
    }
    verrou__queue_unref(queue);
}
