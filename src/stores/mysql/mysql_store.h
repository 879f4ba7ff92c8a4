/*
 * mysql_store.h - what the files of the MySQL store share.
 *
 *   mysql.c       the driver table, the address and its settings, the state
 *   connection.c  connecting, asking with deadlines, what a failure means, requests whose answer was lost
 *   table.c       the table's shape and the statements that follow from it
 *   execute.c     a batch
 *   admin.c       list, check, schema
 *   watch.c       telling releasers that somebody waits elsewhere
 *
 * The state lives as long as the store, a lane as long as a connection. Lanes are used by several threads at once; what they share in the
 * state is atomic or guarded by its mutex.
 */
#ifndef VERROU_MYSQL_STORE_H
#define VERROU_MYSQL_STORE_H

#include <mysql.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <verrou/store.h>

#include "util/lock_table.h"

/* Server errors that are handled by number. Their names differ between the client libraries. */
enum {
    ERROR_UNKNOWN_DATABASE = 1049,
    ERROR_UNKNOWN_COLUMN = 1054,
    ERROR_DATABASE_RIGHT = 1044,
    ERROR_TABLE_RIGHT = 1142,
    ERROR_NO_SUCH_TABLE = 1146,
    ERROR_LOCKED = 1205,
    ERROR_UNKNOWN_STATEMENT = 1243,
    ERROR_READ_ONLY = 1290,
    ERROR_OUT_OF_RANGE = 1690,
};

/* What a failure means for what was asked. */
typedef enum mysql_meaning {
    MEANS_FAILED, /* not done, and trying again does not help */
    MEANS_RETRY,  /* not done, for a passing reason */
    MEANS_LOCKED, /* not done: somebody else has the row or the table locked */
    MEANS_STALE,  /* not done: the table is not what it was */
    MEANS_DOUBT,  /* interrupted: it may have been done */
} mysql_meaning;

/* A failure, understood: for the error of a call or of each request of a batch. */
typedef struct mysql_fault {
    mysql_meaning meaning;
    bool refused; /* it is the server's answer to a statement */
    bool broken;  /* the connection is not to be used again */
    unsigned code;
    char name[12]; /* the code as text, "" if there is none */
    char text[440];
} mysql_fault;

typedef struct mysql_address {
    char host[256]; /* or the path of a socket, with port 0 */
    int port;
    char name[272]; /* of both, for messages */
} mysql_address;

/* A connection that lost an answer; see connection.c. */
typedef struct mysql_lost {
    uint64_t serial; /* in the order in which they were lost */
    char marker[48];
    char server[128];
} mysql_lost;

#define MYSQL_MAX_LOST 64

/* Keys for which this process waits, by their hash; see watch.c. */
typedef struct mysql_waited {
    uint64_t hash;
    unsigned keys; /* how many keys with this hash */
    int slot;      /* which of the user locks is held, -1: none */
    bool tried;    /* all of them were taken */
} mysql_waited;

#define MYSQL_MAX_WAITED 256
#define MYSQL_SLOTS 4
#define MYSQL_WAIT_NAME "verrou-%016llx-%d" /* of a user lock: hash and slot */

/* A key that was refused lately; see execute.c. */
typedef struct mysql_refused {
    uint64_t hash;
    int64_t until_ms;
} mysql_refused;

#define MYSQL_MAX_REFUSED 256

typedef struct mysql_state {
    const verrou_host *host;
    void *log_context;
    lock_table_settings settings;
    char name[4 * LOCK_TABLE_MAX_NAME]; /* of the table, quoted, as in a statement */
    mysql_address *endpoints;
    size_t endpoint_count;
    char *user;     /* NULL: the client library's default */
    char *password; /* NULL: none */
    char *database; /* NULL: none, the table's name has one */
    int64_t connect_timeout_ms;
    bool tls;
    char *ca; /* NULL: the server's certificate is not verified */
    char *cert;
    char *key;
    atomic_uint caps;
    atomic_bool told_collation, told_engine; /* each event once */

    pthread_mutex_t mutex; /* guards what follows */
    mysql_lost lost[MYSQL_MAX_LOST];
    uint64_t lost_serial;
    atomic_size_t lost_count; /* written under the mutex only */
    mysql_waited waited[MYSQL_MAX_WAITED];
    size_t waited_count;
    mysql_refused refused[MYSQL_MAX_REFUSED]; /* by hash */
} mysql_state;

/* What the shape of the table demands. */
typedef struct mysql_shape {
    bool exists;
    bool fenced;        /* has the column `fence` */
    bool fence_odd;     /* it is unsigned or may be NULL */
    bool key_text;      /* `key` is of a text type */
    bool folded;        /* its unique index may take different keys for equal */
    bool owner_folded;  /* the same of the column `owner`, which matters to the original */
    bool transactional; /* a batch can be undone */
    char collation[65]; /* of `key`, "" if it has none */
    char owner_collation[65];
    char engine[65];
} mysql_shape;

typedef enum mysql_statement {
    STATEMENT_ACQUIRE,
    STATEMENT_RELEASE,
    STATEMENT_EXTEND,
    STATEMENT_FORCE,
    STATEMENT_LOOK,
    STATEMENT_COUNT
} mysql_statement;

/* Text that grows. After `failed` (out of memory) nothing more is added. */
typedef struct mysql_text {
    const verrou_host *host;
    char *at;
    size_t len, size;
    bool failed;
} mysql_text;

typedef struct mysql_lane {
    mysql_state *state;
    mysql_address address;
    MYSQL *mysql;
    bool mariadb;
    int version;        /* of the server: 101100 for 10.11.0 */
    char marker[48];    /* the name of a user lock that only this session holds; "" if it could not be had */
    char server[128];   /* which server that is */
    bool broken;        /* something failed: close it */
    mysql_fault fault;  /* what, if it is broken */
    int64_t used_ms;    /* when it was last asked something */
    mysql_text text;    /* what is to be asked */
    unsigned replies;   /* of the text that was asked last, so far */
    bool ready;         /* the table was looked at, and the statements fit it */
    bool prepared;      /* the server keeps the statements */
    bool tells_waiters; /* a release says whether somebody waits elsewhere */
    mysql_shape shape;
    char *statements[STATEMENT_COUNT]; /* see table.c */
    unsigned releases;                 /* since the last pruning */
    size_t cursor_len;                 /* pruning goes on behind this key */
    char cursor[VERROU_MAX_KEY + 1];
} mysql_lane;

/* ---- connection.c ---- */

/* False: the host is too long. */
bool verrou__mysql_address_set(mysql_address *address, const char *host, int port);
/* Whatever this thread asks of a server from now on has to be answered by then. */
void verrou__mysql_until(const mysql_state *state, int64_t deadline_ms);
/* A connection with a session of ours, not for locks yet. NULL: `fault` says why. */
mysql_lane *verrou__mysql_connect(mysql_state *state, int64_t deadline_ms, mysql_fault *fault);
verrou_status verrou__mysql_lane_open(void *state, int64_t deadline_ms, void **ret_lane, verrou_error *err);
void verrou__mysql_lane_close(void *state, void *lane);

void verrou__mysql_text_add(mysql_text *text, const char *bytes, size_t len);
void verrou__mysql_text_addf(mysql_text *text, const char *format, ...) VERROU_PRINTF(2, 3);
/* Append bytes as a hexadecimal literal: no byte of a key or an owner is ever taken for SQL. */
void verrou__mysql_text_hex(mysql_text *text, const void *bytes, size_t len);

/*
 * Send what is in lane->text. False: `fault` says why, the connection is broken, and nothing was carried out. Afterwards the answer to each
 * statement has to be fetched with verrou__mysql_reply() until one fails.
 */
bool verrou__mysql_send(mysql_lane *lane, mysql_fault *fault);

/* The answer to one statement. */
typedef struct mysql_reply {
    MYSQL_RES *rows; /* to be freed with mysql_free_result(); NULL if it has none */
    uint64_t affected;
    uint64_t insert_id;
} mysql_reply;

/*
 * The answer to the next statement. False: `fault` says why. If it is not broken, the server refused the statement and left out those behind
 * it, and something else can be asked.
 */
bool verrou__mysql_reply(mysql_lane *lane, mysql_reply *reply, mysql_fault *fault);
/* After the last answer: there must be no other. */
bool verrou__mysql_end(mysql_lane *lane, mysql_fault *fault);
/* Send a text of statements and pass over their answers; *ret_done counts them. */
bool verrou__mysql_run(mysql_lane *lane, unsigned count, unsigned *ret_done, mysql_fault *fault);
/* Send one statement and get its rows. NULL: `fault` says why. */
MYSQL_RES *verrou__mysql_query(mysql_lane *lane, mysql_fault *fault);
/* Whether the idle connection is still there. */
bool verrou__mysql_is_at_rest(mysql_lane *lane, mysql_fault *fault);
/* The connection is given up with requests that were not answered: they are ended before anything is asked again. */
void verrou__mysql_lost_answer(mysql_lane *lane);
/* End the sessions on this server that lost an answer. False: this one broke. */
bool verrou__mysql_end_lost(mysql_lane *lane, int64_t deadline_ms, mysql_fault *fault);
/* The connection cannot be used any more. The first cause counts. */
void verrou__mysql_break(mysql_lane *lane, mysql_fault *fault, const char *code, const char *what);
void verrou__mysql_fault_set(mysql_fault *fault, mysql_meaning meaning, unsigned code, const char *format, ...)
    VERROU_PRINTF(4, 5);
verrou_status verrou__mysql_fail(const mysql_state *state, const mysql_fault *fault, verrou_error *err);

/* ---- table.c ---- */

/* Epoch microseconds on the server's clock, and milliseconds. Not the UNIX_TIMESTAMP() of a local time, which is an hour off each autumn. */
#define MYSQL_NOW_US "TIMESTAMPDIFF(MICROSECOND,'1970-01-01',UTC_TIMESTAMP(6))"
#define MYSQL_NOW_MS "(" MYSQL_NOW_US " DIV 1000)"
/* What is to follow each acquire on a table without `fence`. */
#define MYSQL_NEXT_TOKEN "SELECT " MYSQL_NOW_US

/* Have the statements fit the table, making it if it is missing and autocreate is on. */
bool verrou__mysql_ready(mysql_lane *lane, bool create, mysql_fault *fault);
/* Read and check the shape. False: wrong shape or failure. A missing table is no failure: shape->exists says so. */
bool verrou__mysql_shape(mysql_lane *lane, mysql_shape *shape, mysql_fault *fault);
void verrou__mysql_forget(mysql_lane *lane); /* the shape is to be read again */
/* Append the statement that makes the table, and the one that makes a table of the original what ours is. `indent` and `outdent` go before its
 * columns and its end. */
void verrou__mysql_create_sql(const mysql_lane *lane, const char *indent, const char *outdent, mysql_text *text);
void verrou__mysql_alter_sql(const mysql_lane *lane, const mysql_shape *shape, mysql_text *text);
bool verrou__mysql_needs_alter(const mysql_shape *shape);
/* Append what carries out a request. */
void verrou__mysql_write(mysql_lane *lane, mysql_statement which, const verrou_op *op);
/* Append the condition that a row is that of exactly this key. */
void verrou__mysql_write_exact(mysql_lane *lane, const char *key, size_t key_len);

/* ---- execute.c ---- */

verrou_status verrou__mysql_execute(void *state, void *lane, verrou_op *const *ops, size_t n, int64_t deadline_ms,
                                    verrou_error *err);

/* ---- watch.c ---- */

uint64_t verrou__mysql_watch_hash(const mysql_state *state, const char *key, size_t key_len);
/* Which of the user locks for a key this process holds, -1: none. */
int verrou__mysql_watch_slot(mysql_state *state, uint64_t hash);
verrou_status verrou__mysql_watch_open(void *state, int64_t deadline_ms, void **ret_watch, verrou_error *err);
void verrou__mysql_watch_close(void *state, void *watch);
int verrou__mysql_watch_fd(void *state, void *watch);
verrou_status verrou__mysql_watch_add(void *state, void *watch, const char *key, size_t key_len, verrou_error *err);
verrou_status verrou__mysql_watch_remove(void *state, void *watch, const char *key, size_t key_len, verrou_error *err);
verrou_status verrou__mysql_watch_read(void *state, void *watch, verrou_watch_fn report, void *report_context,
                                       verrou_error *err);

/* ---- admin.c ---- */

verrou_status verrou__mysql_list(void *state, void *lane, const char *prefix, size_t prefix_len, int64_t deadline_ms,
                                 verrou_sink *sink, verrou_error *err);
verrou_status verrou__mysql_check(void *state, void *lane, int64_t deadline_ms, verrou_sink *sink, verrou_error *err);
verrou_status verrou__mysql_schema(void *state, void *lane, int apply, int64_t deadline_ms, verrou_sink *sink,
                                   verrou_error *err);

#endif
