/*
 * sqlite_store.h - what the files of the SQLite store share.
 *
 *   sqlite.c   the driver table and execute(): one transaction a batch
 *   connect.c  opening the file, waiting for its lock, saying what is wrong with it
 *   table.c    the table's shape and the statements that follow from it
 *   admin.c    list, check, schema
 *   watch.c    being told of commits (inotify)
 *   waiters.c  telling a releaser that somebody waits (byte locks on a side file)
 *
 * The state lives as long as the store, a lane as long as a connection. There is at most one lane; the watch is used by
 * another thread, and shares only what the state's mutex guards.
 */
#ifndef VERROU_SQLITE_STORE_H
#define VERROU_SQLITE_STORE_H

#include <limits.h>
#include <pthread.h>
#include <sqlite3.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/types.h>
#include <time.h>
#include <verrou/store.h>

#include "util/lock_table.h"

/* The keys for which this process waits, as locks on bytes of the side file; see waiters.c. */
typedef struct sqlite_waiters {
    pthread_mutex_t mutex;
    int fd;              /* -1: not open */
    char *path;          /* of the side file, once it is known */
    uint64_t generation; /* of the folder, when the file was last looked for by a releaser */
    bool absent;         /* it was not there then */
    struct sqlite_waited {
        uint32_t byte;
        uint32_t count;
    } * waited; /* sorted by byte */
    size_t count;
    size_t capacity;
} sqlite_waiters;

typedef struct sqlite_state {
    const verrou_host *host;
    void *log_context;
    char *path;              /* absolute */
    const char *synchronous; /* as in the pragma */
    lock_table_settings settings;
    atomic_uint caps;
    int64_t floor;       /* no token below this one is given. This and the next are used by the one lane only */
    uint64_t generation; /* changes whenever something in the folder may have changed */
    sqlite_waiters waiters;
} sqlite_state;

typedef enum sqlite_statement {
    STATEMENT_BEGIN,
    STATEMENT_BEGIN_READ,
    STATEMENT_COMMIT,
    STATEMENT_ROLLBACK,
    STATEMENT_ACQUIRE,
    STATEMENT_RELEASE,
    STATEMENT_EXTEND,
    STATEMENT_FORCE,
    STATEMENT_INSPECT,
    STATEMENT_PRUNE_END,
    STATEMENT_PRUNE,
    STATEMENT_COUNT
} sqlite_statement;

/* What the shape of the table demands. */
typedef struct sqlite_shape {
    bool exists;
    bool fenced;        /* has the column `fence` */
    bool folded;        /* its unique index takes different keys for equal: `collation` is not BINARY */
    char collation[32]; /* of that index */
} sqlite_shape;

/* A file, and which one it was when the connection was made. */
typedef struct sqlite_file_id {
    dev_t device;
    ino_t inode;
    bool known;
} sqlite_file_id;

enum { FILE_DATABASE, FILE_WAL, FILE_SHM, FILE_COUNT };

/* What changes with every file that is made, deleted or renamed in a folder. */
typedef struct sqlite_mark {
    dev_t device;
    ino_t inode;
    struct timespec changed;
    bool trusted;
} sqlite_mark;

typedef struct sqlite_lane {
    sqlite_state *state;
    sqlite3 *db; /* NULL until the file exists */
    sqlite3_stmt *statements[STATEMENT_COUNT];
    bool ready; /* the table was checked and the statements are prepared */
    bool wal;
    sqlite_shape shape;
    int64_t deadline_ms; /* of the call being served: the busy handler ends here */
    unsigned busy_tries;
    int64_t token; /* of the latest acquire */
    char *names[FILE_COUNT];
    sqlite_file_id files[FILE_COUNT];
    char *folder;      /* of the files; NULL if they are in two */
    sqlite_mark mark;  /* of the folder, when the files were last looked at */
    unsigned releases; /* since the last pruning */
    size_t cursor_len; /* pruning goes on behind this key */
    char cursor[VERROU_MAX_KEY + 1];
} sqlite_lane;

/* A failure, understood: for the error of a call or of each request of a batch. */
typedef struct sqlite_fault {
    int code;                /* SQLite's extended code; 0 if the finding is our own */
    verrou_op_result result; /* RETRY or FAILED */
    bool retriable;
    bool broken;      /* the connection should not be used again */
    const char *name; /* of the code; NULL if none */
    char text[448];
} sqlite_fault;

/* ---- connect.c ---- */
/* Open the file unless it is open. create: make it if it is missing. False: `fault` says why, and the lane is as before. */
bool verrou__sqlite_connect(sqlite_lane *lane, bool create, sqlite_fault *fault);
void verrou__sqlite_disconnect(sqlite_lane *lane);
/* Whether the files under the path are no longer those that were opened. */
bool verrou__sqlite_moved(sqlite_lane *lane);
/* Say what a code of SQLite means here. `detail` may be NULL. */
void verrou__sqlite_explain(const sqlite_lane *lane, sqlite3 *db, int code, sqlite_fault *fault);
void verrou__sqlite_fault_set(sqlite_fault *fault, verrou_op_result result, bool retriable, const char *format, ...)
    VERROU_PRINTF(4, 5);
void verrou__sqlite_fault_moved(const sqlite_lane *lane, sqlite_fault *fault);
/* Sleep a little before another try of something that was busy; false if the deadline is reached. */
bool verrou__sqlite_pause(sqlite_lane *lane);
/* Run SQL without result, trying again while it is busy. */
int verrou__sqlite_run(sqlite_lane *lane, const char *sql);
/* Step a prepared statement that has no result to its end and reset it, trying again while it is busy. */
int verrou__sqlite_step(sqlite_lane *lane, sqlite_statement which);
/* End a transaction without committing it. */
void verrou__sqlite_rollback(sqlite_lane *lane);

/* ---- table.c ---- */
/* Have the statements prepared, making the table if it is missing and autocreate is on. */
bool verrou__sqlite_ready(sqlite_lane *lane, sqlite_fault *fault);
/* Read and check the shape. False: wrong shape or failure. A missing table is no failure: shape->exists says so. */
bool verrou__sqlite_shape(sqlite_lane *lane, sqlite_shape *shape, sqlite_fault *fault);
void verrou__sqlite_forget(sqlite_lane *lane); /* finalise the statements: the shape is to be read again */
/* The statements that make the table, and that add the column to one made by the original. Free with sqlite3_free(). */
char *verrou__sqlite_create_sql(const sqlite_state *state);
char *verrou__sqlite_alter_sql(const sqlite_state *state);

/* ---- admin.c ---- */
verrou_status verrou__sqlite_list(void *state, void *lane, const char *prefix, size_t prefix_len, int64_t deadline_ms,
                                  verrou_sink *sink, verrou_error *err);
verrou_status verrou__sqlite_check(void *state, void *lane, int64_t deadline_ms, verrou_sink *sink, verrou_error *err);
verrou_status verrou__sqlite_schema(void *state, void *lane, int apply, int64_t deadline_ms, verrou_sink *sink,
                                    verrou_error *err);

/* ---- sqlite.c ---- */
int64_t verrou__sqlite_wall_us(void);
verrou_status verrou__sqlite_fail(const sqlite_state *state, const sqlite_fault *fault, verrou_error *err);

/* ---- watch.c ---- */
verrou_status verrou__sqlite_watch_open(void *state, int64_t deadline_ms, void **ret_watch, verrou_error *err);
void verrou__sqlite_watch_close(void *state, void *watch);
int verrou__sqlite_watch_fd(void *state, void *watch);
verrou_status verrou__sqlite_watch_add(void *state, void *watch, const char *key, size_t key_len, verrou_error *err);
verrou_status verrou__sqlite_watch_remove(void *state, void *watch, const char *key, size_t key_len, verrou_error *err);
verrou_status verrou__sqlite_watch_read(void *state, void *watch, verrou_watch_fn report, void *context,
                                        verrou_error *err);

/* ---- waiters.c ---- */
bool verrou__sqlite_waiters_init(sqlite_waiters *waiters);
void verrou__sqlite_waiters_done(sqlite_state *state);
/* Show, and no longer show, that this process waits for a key. Never fails loudly: it costs fairness only. */
void verrou__sqlite_waiters_add(sqlite_state *state, const char *key, size_t key_len);
void verrou__sqlite_waiters_remove(sqlite_state *state, const char *key, size_t key_len);
/*
 * 1 if another process waits for the key (or one with the same byte), 0 if not, -1 if that cannot be told. Called by the
 * lane only.
 */
int verrou__sqlite_waiters_ask(sqlite_state *state, const char *key, size_t key_len);
/* A new connection may lead to another place than the last: look for the file anew. */
void verrou__sqlite_waiters_move(sqlite_state *state);

/* The path of the database with symbolic links followed, as SQLite does before it names its companions. */
bool verrou__sqlite_real_path(const sqlite_state *state, char out[PATH_MAX]);

#endif
