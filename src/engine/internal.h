/*
 * internal.h - the engine's inside, shared by its files.
 *
 *   engine.c   making, closing, entering and leaving an engine; lanes, batches, who runs them
 *   call.c     the life of a call: states, requests, time limits
 *   answer.c   what each answer of the store means for a call
 *   outcome.c  telling the outcome
 *   waits.c    who waits for which key, and when the first of them asks again
 *   timers.c   a heap of timers
 *   threads.c  the keeper and the workers
 *   watch.c    being told of releases by other processes
 *   queue.c    completion queues
 *   cancel.c   cancel tokens
 *   events.c   collecting log records under the mutex, handing them out without it
 *
 * Functions here expect the engine's mutex held unless they say otherwise. Order of locks: engine, then completion queue or cancel
 * token, then lock handle.
 */
#ifndef VERROU_ENGINE_INTERNAL_H
#define VERROU_ENGINE_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "engine/engine.h"
#include "util/bell.h"
#include "util/table.h"

#define MAX_BATCH 256
#define LOOP_PATIENCE_MS 5   /* an event loop that left something undone for as long may be busy: see sent.c */
#define SPLIT_FROM 16        /* as many requests are sent over several lanes by one thread: see sent.c */
#define DRIVER_GRACE_MS 100  /* how long a driver may take to return after its deadline */
#define SLOW_RECHECK_MS 5000 /* under a working push, in case a message got lost */
#define STEP_BACK_MS 2       /* after a release, while other processes wait for the key */
#define TURN_MS 2            /* how long a process may pass the key on among its own waiters meanwhile, at least */
#define MAX_TURN_MS 25       /* and at most */
#define TURN_BATCHES 8       /* or as long as so many batches take */
#define WATCH_LINGER_MS 1000 /* a key stays watched this long after its last waiter left */
#define PAUSE_MIN_MS 2       /* between tries of a request that failed for a passing reason: doubles up to ... */
#define PAUSE_MAX_MS 250
#define RECONNECT_MAX_MS 2000
#define MAX_ENDED_EARLY 3        /* leases that are over before the answer is here: then the acquire fails */
#define PROVISIONAL_TTL_MS 30000 /* a permanent lease starts as one of this length */

enum call_state {
    CALL_NEW,
    CALL_PARKED, /* behind another call of its series */
    CALL_BEHIND, /* behind another acquire of its key */
    CALL_ASLEEP, /* first in its key queue, refused; or a VERROU__WAIT call */
    CALL_PAUSED, /* the request failed for a passing reason */
    CALL_QUEUED, /* the request waits for a lane */
    CALL_FLYING, /* a driver has the request */
    CALL_BACK,   /* the answer is being looked at */
    CALL_DONE,
    CALL_STATES
};

/* One sleeping caller. Lives on its stack. */
struct verrou__sleeper {
    pthread_cond_t cond;
    bool leads_next; /* was woken to take a lane */
    bool may_lead;
};

/* The acquires of this process for one key. */
struct verrou__waits {
    struct table_node node; /* node.key is `key` */
    verrou__call *head;
    verrou__call *tail;
    verrou__timer timer;   /* when the first waiter asks again, or when the struct is dropped */
    int64_t not_before_ms; /* stepping back */
    int64_t turn_ms;       /* since when the key has gone from one waiter of this process to the next; 0: it did not */
    struct verrou__waits *dirty_next, *dirty_prev;
    bool again;   /* something happened while the first waiter's request was on its way */
    bool refused; /* the last answer was "held" */
    bool told;    /* the last release of this process told whether others wait */
    bool riding;  /* the first waiter's request went along with a release */
    bool failing; /* those who waited too long are being told of a failure */
    bool dirty;   /* in the list of keys to add to or take from the watch */
    bool watched; /* watch_add() was called */
    bool active;  /* the watch reported that it works for this key */
    char key[];
};

enum lane_state {
    LANE_CLOSED,
    LANE_OPENING,
    LANE_IDLE,
    LANE_BUSY, /* a thread is at it */
    LANE_SENT, /* a batch is out, and an event loop waits for the answers */
};

/* A batch that was sent for an event loop to wait for: see sent.c. */
struct sent {
    struct sent *next;   /* in the list of the queue, whose mutex guards this */
    uint64_t watched_in; /* the round of the queue whose descriptor tells of this one; 0: none does */
    int watched_fd;
    verrou_queue *queue; /* in whose list it is; NULL: in none */
    verrou__call *call;  /* one of the first batch since it was put there: keeps the engine */
    bool overdue;        /* a worker is to do the waiting */
    int64_t since_ms;
    int64_t deadline_ms;
    size_t n;
    verrou__call *calls[MAX_BATCH];
    verrou_op *ops[MAX_BATCH];
};

struct lane {
    enum lane_state state;
    void *lane;
    int64_t retry_at_ms;
    int64_t backoff_ms;
    struct sent *sent; /* NULL until it is needed first */
};

enum watch_state { WATCH_CLOSED, WATCH_WANTED, WATCH_OPENING, WATCH_OPEN };

#define MAX_LANES 64
#define MAX_EVENTS 32
#define MAX_MESSAGE 256 /* what is longer is cut */
#define WAIT_HINTS 256

struct event {
    verrou_level level;
    const char *event;
    int64_t value;
    char key[VERROU_MAX_KEY + 1];
    char owner[VERROU_MAX_OWNER + 1];
    char message[MAX_MESSAGE];
};

struct verrou__engine {
    pthread_mutex_t mutex;
    const verrou_driver *driver;
    const verrou_host *host;
    void *state; /* the driver's */
    verrou__engine_options options;
    uint64_t seed;
    bool is_inline;
    bool is_later;       /* VERROU_DRIVER_LATER */
    atomic_bool closing; /* new calls are refused; read without the mutex by inline calls */
    bool stopping;       /* threads end */
    bool holding_back;   /* what is enqueued now is submitted by a callback */
    bool held_back;      /* the requests wait for the end of verrou_dispatch() */
    bool loop_was_here;  /* since it was looked for what event loops left undone */

    struct lane lanes[MAX_LANES];
    verrou__call *queue_head, *queue_tail;
    size_t queue_len;
    verrou__call *appointed;  /* a sleeping caller that was woken to lead */
    verrou__call *calls;      /* all that were given away and not freed */
    verrou_error *open_error; /* why the last lane could not be opened, NULL if the last one could */
    verrou__timer reopen;     /* when a closed lane may be tried again */

    int64_t held_since_ms; /* held back */
    verrou__timer overdue; /* when it is looked for what event loops left undone */

    int64_t close_by_ms; /* VERROU_FOREVER until it is being closed: nothing takes longer than this */

    int64_t latency_us;           /* the running mean of what a batch took */
    int64_t latency_deviation_us; /* and of how far off it was */

    struct table waits;
    atomic_uint waited_keys;       /* these two are read without the mutex: how many keys are waited for, ... */
    atomic_uint hints[WAIT_HINTS]; /* ... and how many of a hash */
    atomic_int log_level;          /* read without the mutex by inline calls */
    verrou__timer *timers;

    enum watch_state watch_state;
    void *watch;
    int64_t watch_retry_at_ms;
    int64_t watch_backoff_ms;
    verrou__timer watch_timer;
    struct verrou__waits *dirty; /* keys to add to or take from the watch */

    /* threads.c */
    pthread_t keeper;
    bool keeper_started;
    bool keeper_failed;
    int64_t keeper_wakes_ms; /* when the keeper will look at the timers by itself; 0 while it is awake */
    struct bell bell;        /* wakes the keeper */
    int timer_fd; /* Linux: wakes the keeper on CLOCK_BOOTTIME, so that a suspended machine catches up at once; else -1 */
    pthread_cond_t work;
    pthread_t workers[MAX_LANES];
    uint32_t worker_count;
    uint32_t workers_idle;
    pthread_cond_t drained;

    /* events.c */
    struct event *events;
    size_t event_first, event_count, events_dropped;
    bool reporting;

    verrou__call *finished; /* answered asynchronous calls whose queue is to be told when the mutex is free */
    verrou__call *garbage;  /* calls to free when the mutex is free */
};

static inline int64_t engine_now(const verrou__engine *engine)
{
    return engine->host->now_ms();
}

/* Inline drivers, and those that answer later, are called by whoever has a request, without a lane. */
static inline bool engine_has_lanes(const verrou__engine *engine)
{
    return !engine->is_inline && !engine->is_later;
}

/* Does the store compare the token of a lease? A table may have no place for it. */
static inline bool engine_compares(const verrou__engine *engine)
{
    return (engine->driver->flags & VERROU_DRIVER_COMPARES) &&
           (engine->driver->caps(engine->state) & VERROU_CAP_FENCE_STORED);
}

/* engine.c */
void verrou__engine_settle(
    verrou__engine *engine); /* before the mutex is let go: answer inline requests, see that somebody leads */
void verrou__engine_leave_later(
    verrou__engine *engine); /* as verrou__engine_leave(), but nobody comes for the queue yet */
void verrou__engine_send_off(verrou__engine *engine); /* what is held back need not wait any longer */
bool verrou__engine_has_loose_ends(
    const verrou__engine *engine); /* work that verrou__engine_leave() does without the mutex */
void verrou__engine_enqueue(verrou__engine *engine, verrou__call *call);
void verrou__engine_dequeue(verrou__engine *engine, verrou__call *call);
bool verrou__engine_lead(verrou__engine *engine,
                         const verrou__call *leader); /* run one batch on this thread; false if there is none to run */
bool verrou__engine_work(verrou__engine *engine);     /* one piece of blocking work; false if there is none */
void verrou__engine_appoint(verrou__engine *engine);
bool verrou__engine_can_push(const verrou__engine *engine);
bool verrou__call_is_special(const verrou__call *call);     /* a driver's function of its own, no request of a batch */
int64_t verrou__engine_limit(const verrou__engine *engine); /* when what begins now has to be over */
struct lane *verrou__lane_in_state(verrou__engine *engine, enum lane_state state); /* NULL if there is none */
size_t verrou__engine_take_batch(verrou__engine *engine, verrou__call **calls, verrou_op **ops, size_t max);
/* Have a batch answered by a lane that is BUSY; gives up the mutex meanwhile. */
void verrou__engine_finish_batch(verrou__engine *engine, struct lane *lane, verrou__call *const *calls, verrou_op **ops,
                                 size_t n, int64_t deadline_ms);

/* call.c */
void verrou__call_begin(verrou__call *call);
void verrou__call_request(verrou__call *call);                      /* (re)send the request of a call */
void verrou__call_try_again(verrou__call *call);                    /* the same after a passing failure, with pauses */
void verrou__call_finish(verrou__call *call, verrou_status status); /* tell the caller */
void verrou__call_fail(verrou__call *call, verrou_status status, const char *format, ...) VERROU_PRINTF(3, 4);
void verrou__call_end(verrou__call *call); /* the engine has no more to do with it */
bool verrou__call_can_give_up(const verrou__call *call);
void verrou__call_give_up(verrou__call *call); /* release in the background what it may have left behind */
void verrou__call_cancel(verrou__call *call);  /* without the mutex; drops a reference */
int64_t verrou__call_limit(const verrou__call *call);
void verrou__call_arm(verrou__call *call);
void verrou__call_keep_error(verrou__call *call, const verrou_error *from);
void verrou__call_set_state(verrou__call *call, enum call_state state);
void verrou__series_leave(verrou__call *call);

/* answer.c */
void verrou__call_answered(verrou__call *call);      /* its request came back */
void verrou__call_limit_reached(verrou__call *call); /* its deadline or its request's limit is here */

/* outcome.c */
void verrou__outcome_log(verrou__call *call);

/* waits.c */
verrou_status verrou__waits_join(verrou__call *call,
                                 verrou_error *err);      /* enter the queue of its key; the first one asks at once */
void verrou__waits_leave(verrou__call *call);             /* it was answered: the next one is first */
void verrou__waits_refused(verrou__call *call);           /* a waiter was told no: sleep */
bool verrou__waits_know_holder(const verrou__call *call); /* somebody is known to hold the key */
void verrou__waits_pass_on(verrou__engine *engine, const char *key, size_t len); /* a release is being sent */
void verrou__waits_key_free(verrou__engine *engine, const char *key, size_t len, int32_t others);
void verrou__waits_key_extended(verrou__engine *engine, const char *key, size_t len, int64_t expires_ms);
void verrou__waits_wake_all(verrou__engine *engine);
void verrou__waits_watch_lost(verrou__engine *engine);
bool verrou__waits_next_dirty(verrou__engine *engine, char *key, size_t *ret_len,
                              bool *ret_add); /* next key to add or remove */
void verrou__waits_watch_opened(verrou__engine *engine);
void verrou__waits_watch_active(verrou__engine *engine, const char *key, size_t len);
void verrou__waits_watch_free(verrou__engine *engine, const char *key, size_t len, bool by_another);
void verrou__waits_drop_all(verrou__engine *engine);

/* timers.c */
verrou__timer *verrou__timers_due(verrou__engine *engine, int64_t now_ms); /* take out the earliest if it is due */

/* threads.c */
verrou_status verrou__threads_need_keeper(verrou__engine *engine); /* VERROU_ENOMEM if it cannot be started */
void verrou__threads_wake_keeper(verrou__engine *engine);
bool verrou__threads_wake_worker(verrou__engine *engine); /* false if there is none and none can be started */
void verrou__threads_stop(verrou__engine *engine);        /* without the mutex */

/* watch.c */
bool verrou__watch_step(verrou__engine *engine); /* keeper: what can be done without blocking; false if nothing was */
void verrou__watch_read(verrou__engine *engine); /* keeper: the descriptor is readable */
bool verrou__watch_open(verrou__engine *engine); /* worker: open it if it is wanted; false if not */
void verrou__watch_close(verrou__engine *engine, const verrou_error *why);
void verrou__watch_init(verrou__engine *engine);

/* sent.c */
void verrou__sent_init(verrou__engine *engine);
void verrou__sent_look_soon(verrou__engine *engine); /* whether an event loop has left something undone */
bool verrou__sent_begin(
    verrou__engine *engine); /* send what is in the queue, which is not empty; false: somebody else has to */
bool verrou__sent_work(verrou__engine *engine); /* worker: wait for an overdue answer; false if there is none */
/* A caller who blocks anyway waits for answers that an event loop has not fetched, and so has the lane; false if there are none. */
bool verrou__sent_take_over(verrou__engine *engine, int64_t deadline_ms);
void verrou__sent_hand_over(verrou__engine *engine); /* workers are to wait for all that are out */
void verrou__sent_fetch(struct sent *sent);   /* out of its list: take the answers that are there. Without mutexes */
void verrou__sent_abandon(struct sent *sent); /* the same, but the list is gone for good */

/* queue.c */
bool verrou__queue_can_wait(const verrou_queue *queue); /* for answers on descriptors of lanes */
/* Have verrou_dispatch() fetch it when the descriptor is readable. False: the queue is gone, or cannot watch. */
bool verrou__queue_wait_for(verrou_queue *queue, struct sent *sent, int fd, bool listed);
void verrou__queue_ref(verrou_queue *queue);
void verrou__queue_unref(verrou_queue *queue);
void verrou__queue_push(verrou_queue *queue, verrou__call *first, verrou__call *last);
bool verrou__queue_hold_back(
    verrou__call *call); /* is it submitted by a callback, and sent with those of the next ones? */

/* cancel.c */
bool verrou__cancel_attach(verrou_cancel *cancel, verrou__call *call); /* false if it was fired already */
void verrou__cancel_detach(verrou__call *call);

/* events.c */
void verrou__events_flush(verrou__engine *engine); /* may give up the mutex for the time of the hook */

#endif
