/*
 * redis_store.h - what the files of the Redis store share. docs/internals/redis.md explains the whole.
 *
 *   redis.c       the driver table, settings, state
 *   stream.c      bytes with deadlines: plain sockets, and transports that the application made
 *   tls.c         the same through OpenSSL
 *   connection.c  commands and replies on a stream; the first words of a connection
 *   scripts.c     the scripts, and what their errors mean
 *   execute.c     a batch: commands out, replies in, what they mean
 *   topology.c    which connections a lane has: a server, the master that Sentinel names, the masters of a cluster
 *   slots.c       the slots of a cluster: of keys, of counters, of nodes
 *   watch.c       the subscription
 *   list.c        the live locks of a server
 *   check.c       whether a server is fit for locks
 *
 * The state lives as long as the store and is shared by all threads; a lane is used by one thread at a time.
 */
#ifndef VERROU_REDIS_STORE_H
#define VERROU_REDIS_STORE_H

#include <hiredis/hiredis.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/types.h>
#include <verrou/store.h>

#include "util/table.h"

#define REDIS_SLOTS 16384
#define REDIS_SHARDED_PUBLISH 700 /* since Redis 7.0 */
#define REDIS_MAX_NODES 255       /* masters; a slot's node is one byte */

/* A failure, understood: for the error of a call or of each request of a batch. */
typedef struct redis_fault {
    verrou_op_result result; /* RETRY or FAILED */
    bool retriable;
    bool broken; /* the connection is not to be used again */
    char code[32];
    char text[400];
} redis_fault;

/* ---- stream.c, tls.c ---- */

typedef struct redis_tls redis_tls; /* an OpenSSL session */

typedef struct redis_stream {
    int fd; /* -1: not open */
    bool given;
    bool patient; /* recv() on fd gives up after PATIENCE_MS by itself */
    verrou_transport transport;
    redis_tls *tls;
} redis_stream;

typedef struct redis_address {
    char host[256]; /* or the path of a socket, with port 0 */
    int port;
    char name[272]; /* of both, for messages */
} redis_address;

typedef enum redis_topology { REDIS_SINGLE, REDIS_SENTINEL, REDIS_CLUSTER } redis_topology;

/* What a connection that lost an answer left behind; see connection.c. */
typedef struct redis_lost {
    uint64_t serial; /* in the order in which they were lost */
    long long client_id;
    char run_id[41];
} redis_lost;

#define REDIS_MAX_LOST 64

typedef struct redis_state {
    const verrou_host *host;
    void *log_context;
    redis_topology topology;
    redis_address *endpoints; /* servers, sentinels or nodes to begin with */
    size_t endpoint_count;
    char *user;     /* NULL: the default user */
    char *password; /* NULL: none */
    char *sentinel_user;
    char *sentinel_password;
    char *master; /* the name that the sentinels know it by */
    int db;
    int64_t connect_timeout_ms;
    int wait_replicas;
    int64_t wait_timeout_ms;
    void *tls; /* SSL_CTX, NULL without TLS */
    char *server_name;
    verrou_connect_fn connect;
    void *connect_user;
    char counter[VERROU_MAX_KEY + 32]; /* the name of the token counter outside of clusters: the prefix and more */
    size_t prefix_len;                 /* if not 0, all keys that have the prefix are ours */
    char id[17];                       /* sent along with each message, to know our own */
    atomic_uint caps;
    atomic_uint missing_nodes;              /* as told last */
    atomic_bool told_counter, told_publish; /* each event once */
    atomic_bool counter_forbidden;          /* not tried again: it would cost each acquisition two round trips more */

    pthread_mutex_t mutex; /* guards what follows */
    redis_lost lost[REDIS_MAX_LOST];
    size_t lost_count;
    uint64_t lost_serial;
    struct table channels; /* watch.c: the keys whose channels this process listens to */
    uint64_t seed;
    redis_address *known; /* the nodes of the cluster when it was last asked: any can be asked the next time */
    size_t known_count;
    bool watch_refused;              /* no right to subscribe */
    struct redis_counters *counters; /* slots.c: the numbers in the names of a cluster's counters */
} redis_state;

/* False: the host is too long. */
bool verrou__redis_address_set(redis_address *address, const char *host, int port);
/*
 * Connect by the deadline. False: `fault` says why and the stream is not open. Blocks, name resolution included; only the threads of the store
 * call it.
 */
bool verrou__redis_stream_open(redis_state *state, redis_stream *stream, const redis_address *address,
                               int64_t deadline_ms, redis_fault *fault);
void verrou__redis_stream_close(redis_stream *stream);
/* As send(2) without waiting: how many bytes went, or -1 and errno (EAGAIN: none now). Raises no SIGPIPE. */
ssize_t verrou__redis_stream_write(redis_stream *stream, const void *bytes, size_t size);
/* At least one byte by the deadline: how many came, 0 at the end, -1 and errno (EAGAIN: none by then). A deadline of 0 does not wait. */
ssize_t verrou__redis_stream_read(redis_state *state, redis_stream *stream, void *buffer, size_t size,
                                  int64_t deadline_ms);
/* Wait until it can be written to (or, with TLS, until writing makes sense again); false at the deadline. */
bool verrou__redis_stream_wait_write(redis_state *state, redis_stream *stream, int64_t deadline_ms);
/* Whether a write that did not succeed waits for something to read (TLS). */
bool verrou__redis_stream_wants_read(const redis_stream *stream);

/* Make an SSL_CTX of files; NULL means not given. */
verrou_status verrou__redis_tls_context(const verrou_host *host, const char *ca, const char *cert, const char *key,
                                        void **ret_context, verrou_error *err);
void verrou__redis_tls_context_free(void *context);
bool verrou__redis_tls_open(redis_state *state, redis_stream *stream, const char *name, int64_t deadline_ms,
                            redis_fault *fault);
void verrou__redis_tls_close(redis_tls *tls);
ssize_t verrou__redis_tls_write(redis_tls *tls, const void *bytes, size_t size);
ssize_t verrou__redis_tls_read(redis_tls *tls, void *buffer, size_t size);
/* Why reading or writing failed, NULL if TLS has nothing to say about it; and whether trying again is of no use. */
const char *verrou__redis_tls_failure(const redis_tls *tls, bool *ret_final);
bool verrou__redis_tls_wants_read(const redis_tls *tls);
bool verrou__redis_tls_wants_write(const redis_tls *tls);
/* The bytes below TLS: as send() and recv() that never block. */
ssize_t verrou__redis_stream_raw_write(redis_stream *stream, const void *bytes, size_t size);
ssize_t verrou__redis_stream_raw_read(redis_stream *stream, void *buffer, size_t size);

/* ---- connection.c ---- */

typedef struct redis_connection {
    redis_state *state;
    redis_address address;
    char alias[256]; /* in a cluster: another name of the host, "" if it has none */
    redis_stream stream;
    redisReader *reader;
    char *out; /* commands that are not written yet, from out_at on */
    size_t out_at, out_len, out_size;
    size_t skip;       /* this many replies come before those of the requests, and say nothing */
    uint64_t killing;  /* up to this serial, lost connections were told to be killed, and that is not confirmed yet */
    uint32_t number;   /* of the latest numbered request */
    int64_t used_ms;   /* when a batch last began */
    size_t awaits;     /* the request of the batch whose reply comes next */
    bool believed;     /* whether the replies of this round fit their requests was looked at */
    bool broken;       /* something failed: close it */
    unsigned reads;    /* how often bytes came */
    bool heard;        /* the server has said something */
    redis_fault fault; /* what, if it is broken */
    bool master;
    int version; /* of the server: 700 for 7.0; 0 if it did not say */
    long long client_id;
    char run_id[41];
} redis_connection;

/* What a connection is for. */
typedef enum redis_purpose { REDIS_FOR_LOCKS, REDIS_FOR_WATCH, REDIS_FOR_SENTINEL } redis_purpose;

redis_connection *verrou__redis_connect(redis_state *state, const redis_address *address, redis_purpose purpose,
                                        int64_t deadline_ms, redis_fault *fault);
void verrou__redis_disconnect(redis_connection *connection);
/* Append a command to what is to be written. False: out of memory, and nothing was appended. */
bool verrou__redis_append(redis_connection *connection, int argc, const char **argv, const size_t *lens);
/* Write what can be written without waiting; what is left is in `out`. */
bool verrou__redis_flush_some(redis_connection *connection, redis_fault *fault);
/* Write everything by the deadline. */
bool verrou__redis_flush(redis_connection *connection, int64_t deadline_ms, redis_fault *fault);
/* The next reply by the deadline, to be freed with freeReplyObject(); NULL: the connection is broken, `fault` says why. */
redisReply *verrou__redis_reply(redis_connection *connection, int64_t deadline_ms, redis_fault *fault);
/* The same, but none by the deadline (0: now) is no failure: *ret_reply is NULL then. */
bool verrou__redis_reply_now(redis_connection *connection, int64_t deadline_ms, redisReply **ret_reply,
                             redis_fault *fault);
/* One command of words, and its reply. An error reply becomes a fault. */
redisReply *verrou__redis_ask_words(redis_connection *connection, int64_t deadline_ms, redis_fault *fault,
                                    const char *const *words);
#define verrou__redis_ask(connection, deadline_ms, fault, ...) \
    verrou__redis_ask_words((connection), (deadline_ms), (fault), (const char *const[]){__VA_ARGS__, NULL})
/* Whether releases are published with SPUBLISH there: in a cluster since 7.0, which a server is taken for that does not say. */
bool verrou__redis_is_sharded(const redis_connection *connection);
/* A field of what INFO or CLUSTER INFO answered; "" if it is not there or too long. */
void verrou__redis_info_field(const char *info, const char *name, char *value, size_t size);
/* The connection is given up with requests that were not answered: kill it at the server before anything is asked again. */
void verrou__redis_lost_answer(redis_connection *connection);
/* Append what kills lost connections to this server. False: out of memory. */
bool verrou__redis_kill_lost(redis_connection *connection);
/* What was appended is known to have been carried out. */
void verrou__redis_lost_killed(redis_connection *connection);
/* What came by now, and nobody asked for, breaks the connection; and so does its end. */
bool verrou__redis_is_at_rest(redis_connection *connection, redis_fault *fault);
/*
 * Whether all replies so far belong to the requests that they were taken for: asks for one that is like no other. *ret_refused: the
 * server did not give it but an error, which proves a little less.
 */
bool verrou__redis_prove(redis_connection *connection, int64_t deadline_ms, bool *ret_refused, redis_fault *fault);
/* The reply was none to what was asked: the connection is broken. */
void verrou__redis_break(redis_connection *connection, redis_fault *fault, const char *code, const char *what);
void verrou__redis_fault_set(redis_fault *fault, verrou_op_result result, bool retriable, const char *code,
                             const char *format, ...) VERROU_PRINTF(5, 6);
verrou_status verrou__redis_fail(const redis_state *state, const redis_fault *fault, verrou_error *err);

/* ---- scripts.c ---- */

typedef enum redis_script {
    SCRIPT_ACQUIRE,
    SCRIPT_RELEASE,
    SCRIPT_EXTEND,
    SCRIPT_FORCE,
    SCRIPT_INSPECT,
    SCRIPT_COUNT
} redis_script;

const char *verrou__redis_script_text(redis_script script);
const char *verrou__redis_script_sha(redis_script script); /* 40 hexadecimal digits */
/* Say what an error reply means. */
void verrou__redis_explain(const redis_connection *connection, const redisReply *reply, redis_fault *fault);
/* Whether an error reply has this code, also if Redis before 7 wrapped it. */
bool verrou__redis_is_error(const redisReply *reply, const char *code);

/* ---- topology.c ---- */

typedef struct redis_begun redis_begun; /* execute.c */

typedef struct redis_lane {
    redis_state *state;
    redis_begun *begun;                       /* the batch that begin() sent */
    redis_connection *nodes[REDIS_MAX_NODES]; /* one, but in a cluster */
    size_t node_count;
    uint8_t *slots;     /* in a cluster: the node of each slot; NO_NODE if there is none */
    bool stale;         /* another one should be opened: it is not what it was */
    int64_t renewed_ms; /* when the nodes were looked for */
} redis_lane;

#define NO_NODE 255

verrou_status verrou__redis_lane_open(void *state, int64_t deadline_ms, void **ret_lane, verrou_error *err);
void verrou__redis_lane_close(void *state, void *lane);
/* The connection for a key; NULL if there is none. */
redis_connection *verrou__redis_route(redis_lane *lane, const char *key, size_t key_len);
/* Follow "MOVED slot host:port" or "ASK slot host:port": the connection to that node, NULL if there is none. */
redis_connection *verrou__redis_redirect(redis_lane *lane, const redis_connection *from, const char *text);
/* A connection to the master that the sentinels name, or to the only server. */
redis_connection *verrou__redis_connect_master(redis_state *state, redis_purpose purpose, int64_t deadline_ms,
                                               redis_fault *fault);
/* Connections to all masters of the cluster and the node of each slot. At least one, or false. */
bool verrou__redis_connect_cluster(redis_state *state, redis_purpose purpose, int64_t deadline_ms,
                                   redis_connection **nodes, size_t *ret_count, uint8_t *slots, redis_fault *fault);

/*
 * Whether all slots of the cluster are on nodes that the lane is connected to, as one of them tells now; their nodes are noted. False: `fault`
 * says why, and if it is the lane that is out of date, another one will be opened.
 */
bool verrou__redis_lane_is_whole(redis_lane *lane, int64_t deadline_ms, redis_fault *fault);

/* ---- slots.c ---- */

unsigned verrou__redis_slot(const char *key, size_t len);
/* The name of the token counter for a key. Returns its length, 0 when out of memory. */
size_t verrou__redis_counter(redis_state *state, const char *key, size_t key_len, char *name, size_t size);
void verrou__redis_counters_free(redis_state *state);

/* ---- execute.c ---- */

verrou_status verrou__redis_execute(void *state, void *lane, verrou_op *const *ops, size_t n, int64_t deadline_ms,
                                    verrou_error *err);

int verrou__redis_begin(void *state, void *lane, verrou_op *const *ops, size_t n, int64_t deadline_ms);
int verrou__redis_lane_fd(void *state, void *lane);
int verrou__redis_arrived(void *state, void *lane);
void verrou__redis_drop_begun(redis_lane *lane);

/* ---- watch.c ---- */

verrou_status verrou__redis_watch_open(void *state, int64_t deadline_ms, void **ret_watch, verrou_error *err);
void verrou__redis_watch_close(void *state, void *watch);
int verrou__redis_watch_fd(void *state, void *watch);
verrou_status verrou__redis_watch_add(void *state, void *watch, const char *key, size_t key_len, verrou_error *err);
verrou_status verrou__redis_watch_remove(void *state, void *watch, const char *key, size_t key_len, verrou_error *err);
verrou_status verrou__redis_watch_read(void *state, void *watch, verrou_watch_fn report, void *context,
                                       verrou_error *err);
/* Whether a server with these notify-keyspace-events sends an event for a key that is deleted, on the key's channel. */
bool verrou__redis_tells_of_releases(const char *flags);
/* Whether this process itself listens to the channel of a key. */
bool verrou__redis_is_watched(redis_state *state, const char *key, size_t key_len);

/* ---- list.c, check.c ---- */

verrou_status verrou__redis_list(void *state, void *lane, const char *prefix, size_t prefix_len, int64_t deadline_ms,
                                 verrou_sink *sink, verrou_error *err);
verrou_status verrou__redis_check(void *state, void *lane, int64_t deadline_ms, verrou_sink *sink, verrou_error *err);

#endif
