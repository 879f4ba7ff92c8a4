/*
 * queue.c - completion queues: answered asynchronous calls, and a descriptor that is readable while there are any, or answers have
 * arrived that verrou_dispatch() is to fetch itself (sent.c).
 *
 * The bell rings from the first call that arrives to the last one that is taken. Where there is epoll(7), the descriptor is one that watches
 * the bell and the connections with such answers. A connection stays watched while it is read from here each time. One that tells of what
 * nobody reads here (its end while it is at rest, an answer that a worker takes) wakes the loop once: verrou_dispatch() finds nothing, and has all
 * that tell watched no longer (EPOLLONESHOT) until they are waited for again.
 */
#ifdef __linux__
#include <sys/epoll.h>
#endif

#include "core/sink.h"
#include "engine/internal.h"
#include "util/bell.h"

struct verrou_queue {
    pthread_mutex_t mutex;
    verrou__call *head;
    verrou__call *tail;
    struct sent *sent; /* what is to be fetched */
    uint64_t round;    /* of watching: another one since all that told was hushed. No two queues have the same */
    struct bell bell;
    bool rung;
    int poll_fd;              /* -1: only the bell can be polled */
    _Atomic uint64_t process; /* see verrou__fork_settle() */
    uint32_t refs;            /* the owner's, and one of each call that will report here */
    bool freed;               /* the owner is gone: calls end without being reported */
};

/* ---- the descriptor ---- */

#define MAX_READY 16

#ifdef __linux__
static bool poll_fd_add(int poll_fd, int operation, int fd, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.fd = fd};

    return epoll_ctl(poll_fd, operation, fd, &event) == 0;
}

static int poll_fd_open(int bell)
{
    int poll_fd = epoll_create1(EPOLL_CLOEXEC);

    if (poll_fd >= 0 && !poll_fd_add(poll_fd, EPOLL_CTL_ADD, bell, EPOLLIN)) {
        close(poll_fd);
        poll_fd = -1;
    }
    return poll_fd;
}

/* It may be there since an earlier time. */
static bool poll_fd_once(int poll_fd, int fd)
{
    return poll_fd_add(poll_fd, EPOLL_CTL_MOD, fd, EPOLLIN | EPOLLONESHOT) ||
           poll_fd_add(poll_fd, EPOLL_CTL_ADD, fd, EPOLLIN | EPOLLONESHOT);
}

/* What tells is watched no longer. */
static void poll_fd_hush(int poll_fd)
{
    struct epoll_event events[MAX_READY];

    if (poll_fd >= 0)
        epoll_wait(poll_fd, events, MAX_READY, 0);
}
#else
static int poll_fd_open(int bell)
{
    (void)bell;
    return -1;
}

static bool poll_fd_once(int poll_fd, int fd)
{
    (void)poll_fd, (void)fd;
    return false;
}

static void poll_fd_hush(int poll_fd)
{
    (void)poll_fd;
}
#endif

static _Atomic uint64_t last_round;

static int queue_open_fds(verrou_queue *queue)
{
    queue->rung = false;
    queue->poll_fd = -1;
    queue->round = atomic_fetch_add(&last_round, 1) + 1;
    if (bell_open(&queue->bell) < 0)
        return -1;
    queue->poll_fd = poll_fd_open(queue->bell.read_end);
    return 0;
}

static void queue_close_fds(verrou_queue *queue)
{
    bell_close(&queue->bell);
    if (queue->poll_fd >= 0)
        close(queue->poll_fd);
}

/*
 * In a child: what was answered is the parent's to hear of, and so is the bell, whose pipe both have. The references of calls that the
 * child will never see answered stay. Without a descriptor the queue works, but cannot be polled.
 */
static void queue_mend_after_fork(void *object)
{
    verrou_queue *queue = object;

    pthread_mutex_init(&queue->mutex, NULL);
    queue->head = queue->tail = NULL;
    queue->sent = NULL;
    queue_close_fds(queue);
    queue_open_fds(queue);
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
    if (queue_open_fds(queue) < 0) {
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
    queue_close_fds(queue);
    pthread_mutex_destroy(&queue->mutex);
    verrou__free(queue);
}

int verrou_queue_fd(const verrou_queue *queue)
{
    verrou_queue *own = (verrou_queue *)queue;

    if (!queue)
        return -1;
    verrou__fork_settle(&own->process, queue_mend_after_fork, own);
    return queue->poll_fd >= 0 ? queue->poll_fd : queue->bell.read_end;
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
            if (queue->rung)
                bell_hush(&queue->bell);
            queue->rung = false;
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

/* The queue for which this thread fetches answers: it need not be told of them. */
static _Thread_local const verrou_queue *fetching_for;

static void queue_ring(verrou_queue *queue)
{
    if (!queue->rung)
        bell_ring(&queue->bell);
    queue->rung = true;
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
        queue->tail = last;
        if (fetching_for != queue)
            queue_ring(queue);
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

/* ---- answers that are fetched ---- */

bool verrou__queue_can_wait(const verrou_queue *queue)
{
    return queue->poll_fd >= 0;
}

static bool queue_watch(verrou_queue *queue, struct sent *sent, int fd)
{
    if (sent->watched_in == queue->round && sent->watched_fd == fd)
        return true;
    if (!poll_fd_once(queue->poll_fd, fd))
        return false;
    sent->watched_in = queue->round;
    sent->watched_fd = fd;
    return true;
}

bool verrou__queue_wait_for(verrou_queue *queue, struct sent *sent, int fd, bool listed)
{
    bool waits;

    queue_lock(queue);
    waits = !queue->freed && queue_watch(queue, sent, fd);
    if (waits && !listed) {
        sent->next = queue->sent;
        queue->sent = sent;
    }
    pthread_mutex_unlock(&queue->mutex);
    return waits;
}

static void queue_each_sent(verrou_queue *queue, bool hush, void (*each)(struct sent *sent))
{
    struct sent *sent;

    queue_lock(queue);
    if (hush) {
        poll_fd_hush(queue->poll_fd); /* before it is looked: what arrives later tells anew */
        queue->round = atomic_fetch_add(&last_round, 1) + 1;
    }
    sent = queue->sent;
    queue->sent = NULL;
    pthread_mutex_unlock(&queue->mutex);
    while (sent) {
        struct sent *next = sent->next;

        each(sent);
        sent = next;
    }
}

static bool queue_has_some(verrou_queue *queue)
{
    bool some;

    queue_lock(queue);
    some = queue->head != NULL;
    /* Other threads are told only if there is something for them, too. */
    if (some && queue->head != queue->tail)
        queue_ring(queue);
    pthread_mutex_unlock(&queue->mutex);
    return some;
}

static void queue_fetch(verrou_queue *queue)
{
    fetching_for = queue;
    queue_each_sent(queue, false, verrou__sent_fetch);
    if (!queue_has_some(queue)) {
        queue_each_sent(queue, true, verrou__sent_fetch);
        queue_has_some(queue);
    }
    fetching_for = NULL;
}

size_t verrou_dispatch(verrou_queue *queue, size_t max)
{
    size_t done = 0;
    verrou__call *call;

    if (!queue)
        return 0;
    verrou__queue_ref(queue); /* a callback may free the queue */
    queue_fetch(queue);
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
    queue_each_sent(queue, false, verrou__sent_abandon);
    verrou__queue_unref(queue);
}
