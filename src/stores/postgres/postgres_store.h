/*
 * postgres_store.h - what the files of the PostgreSQL store share. docs/internals/postgres.md explains the whole.
 *
 *   postgres.c    the driver table, address and settings, state
 *   connection.c  sessions: connecting, results with deadlines, what errors mean, requests that were lost
 *   table.c       the table's shape, and making it
 *   statements.c  the statements that follow from the shape
 *   execute.c     a batch
 *   watch.c       being told of releases
 *   list.c, check.c, schema.c
 *
 * The state lives as long as the store and is shared by all threads; a lane is used by one thread at a time, the watch by the keeper only.
 */
#ifndef VERROU_POSTGRES_STORE_H
#define VERROU_POSTGRES_STORE_H

#include <libpq-fe.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/types.h>
#include <verrou/store.h>

#include "util/lock_table.h"
#include "util/table.h"

#define POSTGRES_MAX_LANES 64
#define POSTGRES_MAX_LOST 64
#define POSTGRES_MAX_OPTIONS 64
#define POSTGRES_MAX_NAME 63   /* bytes of a name at the server */
#define POSTGRES_OLDEST 120000 /* nondeterministic collations are known, and so are the functions that we use */

/* How long a request waits for a row that somebody else has locked. It holds up its neighbours by as much. */
#define POSTGRES_LOCK_TIMEOUT_MS "10"

/* A failure, understood: for the error of a call or of each request of a batch. */
typedef struct postgres_fault {
    verrou_op_result result; /* RETRY or FAILED */
    bool retriable;
    bool fatal; /* the server ends the session with it */
    bool doubt; /* it does not tell whether a commit was reached */
    bool stale; /* the table is not what it was: read its shape again */
    bool moved; /* another server is to be looked for: this one may not write */
    char code[8];
    char text[440];
} postgres_fault;

typedef enum postgres_pooler { POOLER_AUTO, POOLER_NONE, POOLER_TRANSACTION } postgres_pooler;

/* A keyword of libpq. */
typedef struct postgres_option {
    const char *name;
    const char *file; /* the setting that it comes from, if the value is the name of a file that has to be there */
    char *value;
} postgres_option;

/* One of the hosts. What is NULL is left to libpq: its environment variables, its service file, its defaults. */
typedef struct postgres_place {
    char *host;
    char *hostaddr;
    char *port;
} postgres_place;

/* What a session that lost an answer left behind. */
typedef struct postgres_lost {
    int pid;
    char started[40];
} postgres_lost;

typedef struct postgres_state {
    const verrou_host *host;
    void *log_context;
    postgres_option options[POSTGRES_MAX_OPTIONS];
    size_t option_count;
    postgres_place *places;
    size_t place_count;
    atomic_size_t good_place; /* the one that was connected to last */
    int64_t connect_timeout_ms;
    postgres_pooler pooler;
    bool notify_trigger; /* is to be made by `schema apply` */
    lock_table_settings table;
    char name[2 * LOCK_TABLE_MAX_NAME + 8]; /* of the table, quoted */
    atomic_uint caps;
    atomic_bool told_notify, told_collation, told_unlogged; /* each event once */
    uint64_t seed;
    atomic_size_t lost_count;    /* written with the mutex held */
    atomic_size_t watched_count; /* likewise: keys that this process waits for */
    atomic_int place;            /* of our watch among those who listen, -1: there is none */

    pthread_mutex_t mutex; /* guards what follows */
    postgres_lost lost[POSTGRES_MAX_LOST];
    int lanes[POSTGRES_MAX_LANES]; /* process ids of their servers, to know our own notifications; 0: none */
    struct table watched;          /* watch.c */
    uint64_t fresh_count;
    int watch_pid; /* 0: there is no watch */
    bool watch_refused;
} postgres_state;

/* ---- connection.c ---- */

typedef struct postgres_session {
    postgres_state *state;
    PGconn *conn;
    char name[300]; /* of the server, for messages */
    int pid;        /* of the server's process; 0 behind a pooler */
    char started[40];
    bool pooled;          /* nothing that is set for the session lasts */
    bool stray;           /* an answer came that was not asked for */
    bool broken;          /* close it */
    postgres_fault fault; /* why */
} postgres_session;

typedef enum postgres_purpose { POSTGRES_FOR_LOCKS, POSTGRES_FOR_WATCH } postgres_purpose;

/* Connect to a server that may write. False: `fault` says why, and there is nothing to close. */
bool verrou__postgres_open(postgres_state *state, postgres_session *session, postgres_purpose purpose,
                           int64_t deadline_ms, postgres_fault *fault);
void verrou__postgres_close(postgres_session *session);
/* Whether the session has ended while it was not used, or is of no use because answers and requests do not go together. */
bool verrou__postgres_has_ended(postgres_session *session, postgres_fault *fault);
/*
 * The next result as PQgetResult() gives it, by the deadline. NULL: there is none (PQgetResult() said so), or the session is broken, and
 * `fault` says why.
 */
PGresult *verrou__postgres_result(postgres_session *session, int64_t deadline_ms, postgres_fault *fault);
/* One statement outside of a pipeline. NULL: it failed, and `fault` says how. */
PGresult *verrou__postgres_ask(postgres_session *session, int64_t deadline_ms, postgres_fault *fault, const char *sql,
                               int count, const char *const *values);
/* Several statements without values, in one transaction; the result of the last, and whether they were carried out. */
PGresult *verrou__postgres_ask_plain(postgres_session *session, int64_t deadline_ms, postgres_fault *fault,
                                     const char *sql);
bool verrou__postgres_run(postgres_session *session, int64_t deadline_ms, postgres_fault *fault, const char *sql);
/* Begin a pipeline, end one that was read to its end, and put a sync point. False: out of memory or a broken session. */
bool verrou__postgres_begin(postgres_session *session, postgres_fault *fault);
bool verrou__postgres_sync(postgres_session *session, postgres_fault *fault);
void verrou__postgres_end(postgres_session *session);
/* The session is not to be used again. The first cause counts. */
void verrou__postgres_break(postgres_session *session, postgres_fault *fault, const postgres_fault *why);
/* A function of libpq that sends something has failed. */
void verrou__postgres_unsent(postgres_session *session, postgres_fault *fault);
/* Say what a result that is an error means, to one who asked for locks. */
void verrou__postgres_explain(const postgres_session *session, const PGresult *result, postgres_fault *fault);
void verrou__postgres_fault_set(postgres_fault *fault, verrou_op_result result, bool retriable, const char *code,
                                const char *format, ...) VERROU_PRINTF(5, 6);
verrou_status verrou__postgres_fail(const postgres_state *state, const postgres_fault *fault, verrou_error *err);
/* The session is given up with requests that were not answered: have its process ended before anything else is asked. */
void verrou__postgres_lost_answer(postgres_session *session);
/* End what lost sessions left behind at this server. */
void verrou__postgres_kill_lost(postgres_session *session, int64_t deadline_ms);

/* ---- table.c ---- */

/* What the shape of the table demands. */
typedef struct postgres_shape {
    bool exists;
    bool fenced;      /* has the column `fence` */
    bool folded;      /* takes different keys for equal */
    bool may_look;    /* has the right to advisory locks */
    bool may_prune;   /* has the right to delete */
    bool unlogged;    /* a crash of the server empties it */
    char cast[280];   /* for keys: "" or "::type" */
    char schema[200]; /* where the table is: names that need it are quoted */
    char table[200];
    char channel[32]; /* of notifications */
    int lock_class;   /* of advisory locks */
} postgres_shape;

typedef enum postgres_statement {
    STATEMENT_PREAMBLE, /* behind a pooler: what every transaction sets for itself */
    STATEMENT_ACQUIRE,
    STATEMENT_RELEASE,
    STATEMENT_EXTEND,
    STATEMENT_FORCE,
    STATEMENT_INSPECT,
    STATEMENT_NOTIFY,
    STATEMENT_PRUNE,
    STATEMENT_COUNT
} postgres_statement;

typedef struct postgres_lane {
    postgres_session session;
    bool ready; /* the shape was read, the statements are there */
    int64_t ready_ms;
    postgres_shape shape;
    bool shape_is_new; /* read a moment ago */
    bool prepared;     /* the server has statements of ours */
    char *sql[STATEMENT_COUNT];
    unsigned releases; /* since the last pruning */
    char *cursor;      /* pruning goes on behind this key; NULL: from the begin */
} postgres_lane;

/* The server's clock, as it is when the expression is evaluated, and what follows from it for a row. */
#define POSTGRES_NOW_US "(date_part('epoch', clock_timestamp()) * 1000000)::bigint"
#define POSTGRES_NOW_MS "(" POSTGRES_NOW_US " / 1000)"
#define POSTGRES_LIVE "(expiration IS NULL OR expiration > " POSTGRES_NOW_MS ")"
#define POSTGRES_LEFT_MS "expiration - (" POSTGRES_NOW_US " + 999) / 1000"

/*
 * Numbers of advisory locks in the class of the table: a key has one, and one for each place of those who listen; each place has one. %s
 * is the key. Of those who listen the first 16 have a place of their own; the others share one more.
 */
#define POSTGRES_PLACES 16
#define POSTGRES_NUMBER "(hashtext(%s COLLATE \"C\") & 63)"
#define POSTGRES_PLACE_NUMBER "(64 + " POSTGRES_NUMBER " * 32)"
#define POSTGRES_FIRST_PLACE 4096

/* Have the statements ready, making the table if it is missing and autocreate is on. */
bool verrou__postgres_ready(postgres_lane *lane, int64_t deadline_ms, postgres_fault *fault);
/* Read and check the shape. False: wrong shape or failure. A missing table is no failure: shape->exists says so. */
bool verrou__postgres_shape(postgres_session *session, postgres_shape *shape, int64_t deadline_ms,
                            postgres_fault *fault);
/* The statement that makes the table; on one line, or laid out. False: it does not fit. */
bool verrou__postgres_create_sql(const postgres_state *state, bool laid_out, char *sql, size_t size);
/* Make the table if it is missing. */
bool verrou__postgres_create_table(postgres_session *session, int64_t deadline_ms, postgres_fault *fault);

/* ---- statements.c ---- */

/* Make the statements for the lane's shape, and prepare them. False: none is there. */
bool verrou__postgres_statements(postgres_lane *lane, int64_t deadline_ms, postgres_fault *fault);
/* The shape is to be read again. */
void verrou__postgres_forget(postgres_lane *lane);
#define POSTGRES_MAX_VALUES 5
/* Send a statement within a pipeline. False: out of memory or a broken session. */
bool verrou__postgres_send(postgres_lane *lane, postgres_statement which, const char *const *values,
                           postgres_fault *fault);

/* ---- postgres.c ---- */

verrou_status verrou__postgres_lane_open(void *state, int64_t deadline_ms, void **ret_lane, verrou_error *err);
void verrou__postgres_lane_close(void *state, void *lane);

/* ---- execute.c ---- */

verrou_status verrou__postgres_execute(void *state, void *lane, verrou_op *const *ops, size_t n, int64_t deadline_ms,
                                       verrou_error *err);

/* ---- watch.c ---- */

verrou_status verrou__postgres_watch_open(void *state, int64_t deadline_ms, void **ret_watch, verrou_error *err);
void verrou__postgres_watch_close(void *state, void *watch);
int verrou__postgres_watch_fd(void *state, void *watch);
verrou_status verrou__postgres_watch_add(void *state, void *watch, const char *key, size_t key_len, verrou_error *err);
verrou_status verrou__postgres_watch_remove(void *state, void *watch, const char *key, size_t key_len,
                                            verrou_error *err);
verrou_status verrou__postgres_watch_read(void *store, void *watch, verrou_watch_fn report, void *context,
                                          verrou_error *err);

/* How an acquire is asked: the numbers are known to the statement. */
typedef enum postgres_asking {
    ASK_FIRST = 0, /* nobody here waits for the key: refused if the look sees a holder, else the row is taken */
    ASK_FRESH =
        1, /* it has come to be watched since it was last asked for: wait for a release that is under way, which may have looked for
                      waiters before this one, and which the look does not see */
    ASK_AGAIN = 2, /* it is being watched: a row that somebody is about to take is left to him, without locking it */
} postgres_asking;

/* *ret_since is for verrou__postgres_was_asked(), when what was asked for with ASK_FRESH was answered. */
postgres_asking verrou__postgres_how_to_ask(postgres_state *state, const char *key, size_t key_len,
                                            uint64_t *ret_since);
void verrou__postgres_was_asked(postgres_state *state, const char *key, size_t key_len, uint64_t since);
void verrou__postgres_watched_free(postgres_state *state);

/* ---- list.c, check.c, schema.c ---- */

#define POSTGRES_TRIGGER "verrou_tell_of_release" /* the trigger, and its function */

/* Whether the table has the trigger that tells of releases by others. */
bool verrou__postgres_has_trigger(postgres_session *session, const postgres_shape *shape, bool *ret_has,
                                  int64_t deadline_ms, postgres_fault *fault);

verrou_status verrou__postgres_list(void *state, void *lane, const char *prefix, size_t prefix_len, int64_t deadline_ms,
                                    verrou_sink *sink, verrou_error *err);
verrou_status verrou__postgres_check(void *state, void *lane, int64_t deadline_ms, verrou_sink *sink,
                                     verrou_error *err);
verrou_status verrou__postgres_schema(void *state, void *lane, int apply, int64_t deadline_ms, verrou_sink *sink,
                                      verrou_error *err);

#endif
