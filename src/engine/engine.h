/*
 * engine.h - what the core may call of the engine. docs/internals/engine.md explains how it works inside.
 *
 * An engine answers calls. A call is made with verrou__call_new(), filled in, and given away by verrou__call_run() (this thread waits
 * for it) or verrou__call_submit() (a completion queue reports it). From then on the engine owns it; its hook tells the core about the
 * outcome before anybody else hears of it.
 */
#ifndef VERROU_ENGINE_H
#define VERROU_ENGINE_H

#include "core/core.h"

typedef struct verrou__engine verrou__engine;
typedef struct verrou__call verrou__call;

/* The calls of one lease that must not overlap. Embedded in whatever stands for the lease; zeroed at the start. */
typedef struct verrou__series {
    verrou__call *head;
    verrou__call *tail;
} verrou__series;

/* A time at which something happens on the keeper thread, with the engine's mutex held. Embedded; zeroed at the start. */
typedef struct verrou__timer verrou__timer;
struct verrou__timer {
    int64_t when_ms;
    void (*fire)(verrou__engine *engine, verrou__timer *timer);
    verrou__timer *child;
    verrou__timer *next;
    verrou__timer *prev; /* the parent, for a first child; the timer itself, for the root; NULL while it is not set */
};

typedef struct verrou__engine_options {
    const verrou_driver *driver;
    const verrou_host *host;
    const char *name; /* for log records */
    verrou_log_fn log;
    void *log_user;
    verrou_level log_level;
    int64_t limit_ms; /* the time limit of one request */
    uint32_t lanes;
    size_t prefix_len; /* of keys, left out in log records */
    bool manual;       /* no threads: verrou__engine_step() does their work (unit tests) */
} verrou__engine_options;

/* The engine is not usable before verrou__engine_start(): a driver's create() needs its log context first. */
verrou_status verrou__engine_new(const verrou__engine_options *options, verrou__engine **ret_engine, verrou_error *err);
void verrou__engine_start(verrou__engine *engine, void *driver_state);

/* Answer what waits with VERROU_ECLOSED, finish what is in flight, join the threads, close the lanes, destroy the driver's state. */
void verrou__engine_close(verrou__engine *engine);
void verrou__engine_free(verrou__engine *engine); /* after close, or instead of start */

/* Log from a driver: the host table's `log`, with the engine as context. */
void verrou__engine_log(void *engine, verrou_level level, const char *event, const char *key, const char *format, ...)
    VERROU_PRINTF(5, 6);

/* The host table's `answered`: a request of a driver that answers later has its result. */
void verrou__engine_answered(void *engine, verrou_op *op);

/* ---- calls ---- */

typedef enum verrou__call_kind {
    VERROU__ACQUIRE,
    VERROU__RELEASE,
    VERROU__EXTEND,
    VERROU__FORCE,
    VERROU__INSPECT,
    VERROU__LIST,
    VERROU__CHECK,
    VERROU__SCHEMA,
    VERROU__WAIT, /* asks the store nothing; completed by verrou__call_answer_locked() */
} verrou__call_kind;

/* Told of the outcome, with the engine's mutex held, before the caller is. May start other calls of the engine. */
typedef void (*verrou__call_hook)(verrou__call *call);

struct verrou_sink; /* sink.c of the core */

struct verrou__call {
    /* What to do: filled in by the core. */
    verrou_op op; /* kind, key, owner, ttl_ms, fence; key and owner must live as long as the call */
    verrou__call_kind kind;
    bool immediate;       /* acquire: one attempt, passing by the waiters of this process */
    bool owner_is_fixed;  /* finding this owner in the store proves nothing */
    bool unknown;         /* a request of this call was sent and not answered (preset for a repeated release) */
    bool apply;           /* schema */
    bool may_revive;      /* extend: the handle held nothing when it began */
    verrou_status preset; /* not VERROU_OK: the answer is known, the store is not asked */
    uint64_t want_fence;  /* release, extend: the token of the lease meant, 0 for any */
    int64_t ttl_ms;       /* acquire: as asked for; op.ttl_ms is what the request at hand asks for */
    int64_t start_ms;
    int64_t deadline_ms;     /* VERROU_FOREVER: none */
    int64_t attempts_end_ms; /* acquire: a last attempt is made then; VERROU_FOREVER: no such limit */
    int64_t delay_ms;        /* acquire: between attempts */
    int64_t
        expires_ms; /* release, extend: the local view's end of the lease; acquire, extend: the new one, once answered */
    verrou_cancel *cancel;
    verrou__series *series;    /* NULL if the call may overlap with others */
    struct verrou_sink *sink;  /* list, check, schema */
    verrou__call_hook started; /* called when it is its turn in its series, before anything is sent; may answer it */
    verrou__call_hook hook;
    verrou__call_hook done_with; /* called once when the call is freed, without the mutex: drop what `subject` holds */
    void *subject;               /* the lock */
    verrou__owner_id owner_id;   /* acquire: what the owner was made of */
    uint32_t lease;              /* release, extend: which of the handle's leases */

    /* The outcome. It stays as it is when a release in the background uses `op` after the answer. */
    verrou_status status;
    bool locked;               /* inspect */
    bool gone;                 /* release, EUNKNOWN: the lease is over, but it may have been before the release */
    verrou_error *error;       /* of faults; NULL if there was no memory for it */
    uint64_t fence;            /* of the lease granted, or of the holder's */
    int64_t holder_expires_ms; /* -1 if not known */
    char *holder;              /* NULL if not known */

    /* The engine's own. */
    verrou__engine *engine;
    uint8_t state;
    uint8_t ended_early;   /* acquire: how many leases were over when the answer came */
    bool answered;         /* the caller has its answer */
    bool stray;            /* a request may have been, or may yet be, applied without anybody wanting it */
    bool begun;            /* its turn in its series came */
    bool giving_up;        /* answered, and a release is being sent in the background */
    bool last_try;         /* the attempt at attempts_end_ms is under way */
    bool permanent;        /* the lease was granted and is being made permanent */
    bool settling;         /* the time limit of the request was prolonged once, to settle a lost answer */
    _Atomic uint32_t refs; /* one is the engine's, one the caller's or the completion queue's */
    int64_t first_sent_ms; /* sending time of the first request whose answer was lost */
    int64_t fail_by_ms;    /* when the request at hand has to be answered; 0 if none is */
    int64_t pause_ms;      /* length of the last pause, 0 if there was none */
    int64_t pause_until_ms;
    int64_t joined_ms; /* when it entered the key queue */
    verrou__timer timer;
    verrou__call *next; /* in the lane queue */
    verrou__call *prev;
    verrou__call *done_next; /* in the completion queue; or among those to be freed */
    verrou__call *wait_next; /* in the key queue */
    verrou__call *wait_prev;
    struct verrou__waits *waits;
    verrou__call *series_next;
    verrou__call *all_next; /* of the engine */
    verrou__call *all_prev;
    verrou__call *cancel_next;
    verrou__call *cancel_prev;
    struct verrou__sleeper *sleeper;
    verrou_queue *queue;
    verrou_done_fn done;
    void *user;
    char text[]; /* room for the owner, or the key */
};

/* A zeroed call with `text_size` bytes of text. NULL when out of memory. */
verrou__call *verrou__call_new(verrou__engine *engine, verrou__call_kind kind, size_t text_size);
void verrou__call_free(verrou__call *call); /* only if it was never given away */

/* Give the call away and sleep until it is answered. The outcome is copied to `info` and `err` (either may be NULL). */
verrou_status verrou__call_run(verrou__call *call, verrou_info *info, verrou_error *err);

/* As verrou__call_run(), and hand out the sink, which then belongs to the caller. */
verrou_status verrou__call_run_sink(verrou__call *call, struct verrou_sink **ret_sink, verrou_error *err);

/* Give the call away. `done` is called by verrou_dispatch(). On failure (no thread) the call is freed. */
verrou_status verrou__call_submit(verrou__call *call, verrou_queue *queue, verrou_done_fn done, void *user,
                                  verrou_error *err);

/* Start a call from a hook or a timer, with the mutex held. Nobody is told but its hook. */
void verrou__call_start_locked(verrou__call *call);

/* Answer a VERROU__WAIT call, or one that is just about to start. */
void verrou__call_answer_locked(verrou__call *call, verrou_status status);

/* The local end of a lease of this length (VERROU_FOREVER: never) whose request was sent at `from_ms`. */
int64_t verrou__lease_end_ms(const verrou__engine *engine, int64_t from_ms, int64_t length_ms);

/* ---- for the core's own bookkeeping under the engine's mutex ---- */
void verrou__engine_enter(verrou__engine *engine);
void verrou__engine_leave(verrou__engine *engine);
void verrou__timer_set(verrou__engine *engine, verrou__timer *timer, int64_t when_ms);
void verrou__timer_clear(verrou__engine *engine, verrou__timer *timer);
void verrou__event_locked(verrou__engine *engine, verrou_level level, const char *event, const verrou__call *call,
                          const char *message, int64_t value);
bool verrou__engine_logs(const verrou__engine *engine, verrou_level level);
void verrou__engine_set_log_level(verrou__engine *engine, verrou_level level); /* any thread */
/* See that timers work, without the mutex. VERROU_ENOMEM if the keeper cannot be started. */
verrou_status verrou__engine_need_timers(verrou__engine *engine, verrou_error *err);

/* ---- inline drivers ---- */
bool verrou__engine_is_inline(const verrou__engine *engine);
/* False if nobody in this process waits for this key: then nobody has to be woken, or waited behind. Any thread. */
bool verrou__engine_may_wait(verrou__engine *engine, const char *key, size_t len);
void verrou__engine_execute_inline(verrou__engine *engine, verrou_op *op);      /* op->sent_ms is set */
void verrou__engine_freed(verrou__engine *engine, const char *key, size_t len); /* wake the first waiter */

/* ---- others ---- */
uint32_t verrou__engine_caps(verrou__engine *engine);
void verrou__op_done(verrou_op *op);                              /* free what a driver put into a request */
void verrou__info_copy(verrou_info *to, const verrou_info *from); /* honours the size of `to`, which may be NULL */
/* What the caller is told: `info` in full size, and the error text. */
void verrou__call_info(const verrou__call *call, verrou_info *ret_info);
void verrou__call_error(const verrou__call *call, verrou_error *ret_err);

/* ---- manual engines (tests) ---- */
/* Do what is due now: timers, watch events, one batch a lane. Returns false if there was nothing to do. */
bool verrou__engine_step(verrou__engine *engine);
/* When the next timer is due; VERROU_FOREVER if none is set. */
int64_t verrou__engine_next_ms(verrou__engine *engine);

#endif
