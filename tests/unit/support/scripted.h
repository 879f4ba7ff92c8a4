/*
 * scripted.h - a store for tests: locks in a table of the test's, a clock that only the test moves, and a driver that
 * fails on command.
 *
 * A `world` is the truth: who holds which key until when, and the time. Any number of stores ("processes") are opened on
 * it; their engines have no threads, world_run() does the work and moves the clock from timer to timer. What
 * becomes of a request is told by a script (first in, first used) or by a function, else it is answered honestly. Time that
 * passes while a request is on its way passes for everybody: timers fire and other lanes work meanwhile.
 *
 * The driver checks its own contract: no lane is used twice at a time, deadlines lie ahead, requests come in reset.
 */
#ifndef VERROU_TESTS_SCRIPTED_H
#define VERROU_TESTS_SCRIPTED_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/lock.h"
#include "engine/internal.h"

enum fate {
    HONEST,       /* do it and answer */
    LOSE_REPLY,   /* do it; the answer is lost */
    LOSE_REQUEST, /* it never arrives; the answer is waited for in vain */
    LATE,         /* as LOSE_REQUEST, but it arrives `late_ms` later */
    SAY_RETRY,    /* not done, for a passing reason */
    SAY_FAILED,   /* not done, for good */
    SAY_NOTHING,  /* the result stays UNSENT */
    KILL_LANE,    /* the connection breaks before this request: it and those behind it are UNSENT */
    LOSE_LANE, /* the connection breaks after this request was done: its answer is lost, those behind it are UNSENT */
};

struct turn {
    enum fate fate;
    int64_t before_ms; /* before it reaches the store */
    int64_t after_ms;  /* and on its way back */
    int64_t late_ms;
};

#define OTHERS_UNKNOWN (-2)

#define MAX_TRUTHS 64
#define MAX_PROCESSES 8
#define MAX_SCRIPT 64
#define MAX_LATE 64
#define MAX_WATCHED 32

struct truth {
    char key[VERROU_MAX_KEY + 1];
    char owner[VERROU_MAX_OWNER + 1]; /* empty: free */
    int64_t expires_ms;
    uint64_t fence;        /* the largest given out */
    uint64_t forced_fence; /* leases with at most this token were forced */
};

struct late {
    verrou_op_kind kind;
    char key[VERROU_MAX_KEY + 1];
    char owner[VERROU_MAX_OWNER + 1];
    int64_t ttl_ms;
    uint64_t fence;
    int64_t at_ms;
};

/* A request as the driver got it. */
struct request {
    int process;
    verrou_op_kind kind;
    char key[32];
    char owner[64];
    int64_t at_ms;
    int64_t ttl_ms;
    uint64_t fence;
    size_t batch;
    enum fate fate;
    verrou_op_result result;
};

struct process {
    struct world *world;
    int index;
    verrou_store *store;
    verrou__engine *engine;
    verrou_host host; /* the library's, but for its random numbers */
    bool destroyed;
    bool lane_open[MAX_LANES];
    bool lane_busy[MAX_LANES];
    bool watch_open;
    struct {
        char key[VERROU_MAX_KEY + 1];
        bool told_active;
        bool freed;
    } watched[MAX_WATCHED];
    size_t watched_count;
    bool wake_all; /* the next watch_read() reports a release of an unknown key */
};

struct world {
    int64_t now_ms;
    uint64_t random; /* state of the generator: same seed, same run */
    struct truth truths[MAX_TRUTHS];
    size_t truth_count;
    struct process processes[MAX_PROCESSES];
    int process_count;

    struct turn script[MAX_SCRIPT];
    size_t script_at, script_end;
    struct turn (*decide)(struct world *world, const verrou_op *op); /* instead of the script */
    void (*passing)(struct world *world); /* called while a request is on its way, after each millisecond step */

    struct late late[MAX_LATE];
    size_t late_count;

    struct request *requests;
    size_t request_count, request_room;

    /* How the store is. */
    int fail_opens; /* so many opens fail */
    bool fail_opens_for_good;
    int64_t open_ms; /* what opening takes */
    int fail_watch_opens;
    int fail_watch_reads;
    int fail_watch_adds;
    bool deaf;          /* releases are not reported to watches */
    bool by_another;    /* what is reported is said to be the doing of another process */
    int64_t stutter_ms; /* this much time passes with every look at the clock */
    int32_t others;     /* what releases say about other waiters; -1: they count the watches; or OTHERS_UNKNOWN */
    bool no_holder;     /* refusals do not tell who holds the key */
    bool no_fence;      /* no tokens */
    int lists, checks, schemas, opens, closes, watch_opens, watch_closes;
};

/* Begin: sets the clock to 1,000,000 and makes stores of scripted_driver() manual. */
void world_init(struct world *world);
void world_done(struct world *world); /* closes what is still open */

struct world_options {
    const char *settings; /* "timeout=1s&prefix=p:" or NULL */
    bool watch;
    bool is_inline;
    verrou_log_fn log;
    void *log_user;
    verrou_level log_level;
};
struct process *world_open(struct world *world, const struct world_options *options);
void world_close(struct process *process);

uint64_t world_random(struct world *world);

/* Let everything happen that can without time passing. */
void world_settle(struct world *world);
/* Let time pass, timer by timer. */
void world_pass(struct world *world, int64_t ms);
void world_until(struct world *world, int64_t until_ms);

void world_script(struct world *world, struct turn turn);
struct truth *world_truth(struct world *world, const char *key);
bool world_held(struct world *world, const char *key); /* a live lease is there */
/* Put a lease there as a stranger would. */
void world_seize(struct world *world, const char *key, const char *owner, int64_t ttl_ms);
void world_free_key(struct world *world, const char *key); /* and tell the watches */

/* How many requests of that kind there were; key NULL: any. kind 0: any. */
size_t world_requests(const struct world *world, verrou_op_kind kind, const char *key);

/* An asynchronous call of a test: counts its completions and keeps the outcome. */
struct outcome {
    struct world *world;
    int done;
    verrou_status status;
    int64_t at_ms;
    verrou_info info;
    verrou_error error;
};
void outcome_done(void *outcome, const verrou_result *result);

#endif
