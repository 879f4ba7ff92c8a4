/*
 * redis_servers.h - private Redis servers for tests: one alone, a master with sentinels, a cluster.
 *
 * All listen on 127.0.0.1 only, on ports that nobody else gets, with their files in process_folder(). They are stopped when the test
 * program exits, at the latest. Every function returns when what it says has happened, and makes the running cmocka test fail if it
 * does not happen; so nothing returns a status, and no test has to sleep. Start servers from a thread that stays (process.h).
 */
#ifndef VERROU_TESTS_REDIS_SERVERS_H
#define VERROU_TESTS_REDIS_SERVERS_H

#include "process.h"
#include "server_tools.h"

#include <hiredis/hiredis.h>
#include <stdbool.h>
#include <stddef.h>

/* ---- a server ---- */

typedef struct redis_server redis_server;

/* All may be zero: a server without password and TLS. */
typedef struct redis_options {
    const char *config;             /* more lines of configuration, each ended by \n */
    const char *password;           /* of the user "default" */
    const char *acl;                /* lines of an ACL file, "user ...\n" each. Not together with `password` */
    const char *tls;                /* listen for TLS as well, with this certificate: "server", "expired" or "other" */
    bool tls_client_certificate;    /* only for clients that show one of server_certificates() */
    bool unix_socket;               /* listen on a unix socket as well */
    const redis_server *replica_of; /* be a replica, with the master's password */
} redis_options;

/* To be read only. */
struct redis_server {
    server_base base; /* private */
    int port;
    int tls_port;              /* 0: no TLS */
    char socket[PROCESS_PATH]; /* path of the unix socket, "" if there is none */
    char folder[PROCESS_PATH]; /* "redis.conf", "log", and what the server writes */
    char password[128];        /* "" if there is none */
    process process;
    /* The rest is private. */
    char user[32];
    bool sentinel;
    process_port tls_reserved;
    process_port bus; /* of the cluster */
    void *group;      /* memory to free with this server */
};

/* Start a server and wait until it answers. NULL stands for default options. A replica has caught up with its master. */
redis_server *redis_server_start(const redis_options *options);
/* Stop it if it runs, and forget it. NULL is allowed. */
void redis_server_free(redis_server *server);
/* Stop and forget all that redis_*_start() made; for a teardown, also after a failed test. */
void redis_free_all(void);
/* The same as a teardown for cmocka; returns 0. */
int redis_teardown(void **unused);

/* Ask it to shut down (SIGTERM), or kill it (SIGKILL). */
void redis_server_stop(redis_server *server);
void redis_server_kill(redis_server *server);
/* Start it again, on the same ports with the same options, and wait until it answers. It has lost its data, unless it wrote it. */
void redis_server_restart(redis_server *server);
/* The process stands still: connections are accepted, by the kernel, and nothing is answered. Then it goes on. */
void redis_server_freeze(redis_server *server);
void redis_server_thaw(redis_server *server);

/* ---- a plain client ---- */

/* A connection on the plain port, logged in, with a timeout. redisFree() it. */
redisContext *redis_server_connect(const redis_server *server);

/*
 * Send one command over a connection of its own, arguments as strings, the last one NULL; freeReplyObject() the answer, which may be an
 * error. Any thread may call it.
 */
redisReply *redis_command(const redis_server *server, ...) __attribute__((sentinel));
/* The same: the answer as text, integers in decimal, "(nil)" for nothing, the elements of an array one a line. Any error makes the
 * test fail. Valid until the 16th call after this one. */
const char *redis_text(const redis_server *server, ...) __attribute__((sentinel));
/* The same: an integer, or a string that is one. */
long long redis_integer(const redis_server *server, ...) __attribute__((sentinel));
/* A field of INFO, such as redis_info(server, "stats", "total_connections_received"); "" if absent. Valid as above. */
const char *redis_info(const redis_server *server, const char *section, const char *field);
/* How often a command was carried out since the server started or CONFIG RESETSTAT, from `INFO commandstats`; "evalsha", "client|id". */
long long redis_calls(const redis_server *server, const char *command);

/* Wait until a field of INFO has a value. */
void redis_wait_info(const redis_server *server, const char *section, const char *field, const char *value);

/* ---- sentinels ---- */

/*
 * A master with two replicas, watched by three sentinels under the name "mymaster" with a quorum of two. They take a master for dead
 * after two seconds without an answer.
 */
#define REDIS_SENTINELS 3
typedef struct redis_sentinels {
    redis_server *node[3]; /* node[0] is the master at first */
    redis_server *sentinel[REDIS_SENTINELS];
} redis_sentinels;

/*
 * Of the options, `config`, `password` and `tls` hold for the nodes. With `tls`, sentinels tell the TLS ports of the nodes and have a
 * TLS port themselves. Returns when all sentinels know each other and both replicas, so that a failover is possible.
 */
redis_sentinels *redis_sentinels_start(const redis_options *options);
void redis_sentinels_free(redis_sentinels *group);

/* The master according to a majority of the sentinels; NULL while they disagree. */
redis_server *redis_sentinels_master(const redis_sentinels *group);
/* Let the sentinels make another node the master (SENTINEL FAILOVER), and wait until they agree on it, and it is one. */
redis_server *redis_sentinels_failover(redis_sentinels *group);
/* Wait until the sentinels agree on a master other than `old`, and it is one: after the test killed or froze `old`. */
redis_server *redis_sentinels_wait(redis_sentinels *group, const redis_server *old);
/* Wait until all nodes but the master are replicas of it, connected; a restarted old master among them. */
void redis_sentinels_settle(redis_sentinels *group);

/* ---- a cluster ---- */

#define REDIS_CLUSTER_MASTERS 3
#define REDIS_CLUSTER_SLOTS 16384
typedef struct redis_cluster {
    redis_server *node[2 * REDIS_CLUSTER_MASTERS]; /* node[0..2] are masters, node[i + 3] is the replica of node[i] */
    int count;                                     /* 3, or 6 with replicas */
    char id[2 * REDIS_CLUSTER_MASTERS][48];        /* what CLUSTER NODES calls them */
    int moved_to;                                  /* private */
} redis_cluster;

/* Three masters, node[0] with the lowest third of the slots, and so on. Of the options, `config`, `password` and `tls` hold for all
 * nodes. Returns when it has settled. */
redis_cluster *redis_cluster_start(bool replicas, const redis_options *options);
void redis_cluster_free(redis_cluster *cluster);

/* The slot of a key, and the number of the node that owns it according to node[0] (which must run); -1 if none does. */
int redis_cluster_slot(const redis_cluster *cluster, const char *key);
int redis_cluster_owner(const redis_cluster *cluster, int slot);

/* The steps of moving a slot, so that a test can stop between them: mark it on both sides, move its keys, tell all nodes. */
void redis_cluster_move_begin(redis_cluster *cluster, int slot, int from, int to);
void redis_cluster_move_keys(redis_cluster *cluster, int slot, int from, int to);
void redis_cluster_move_finish(redis_cluster *cluster, int slot, int to);

/* Make node[replica] a master in place of its own (CLUSTER FAILOVER), and wait until all running nodes know. */
void redis_cluster_failover(redis_cluster *cluster, int replica);
/* Wait until all running nodes say that all slots are served and no running node is suspected, and replicas are connected. */
void redis_cluster_settle(redis_cluster *cluster);
/* Wait until all running nodes say that node[i] is a master with slots, and the cluster has settled: after its master was killed. */
void redis_cluster_wait_master(redis_cluster *cluster, int i);

/* ---- shared by the files of this library ---- */

typedef enum redis_role { REDIS_ALONE, REDIS_NODE, REDIS_SENTINEL, REDIS_CLUSTER_NODE } redis_role;

/* What redis_server_start() does, with more lines of configuration. */
redis_server *redis__server_new(const redis_options *options, redis_role role, const char *config);
/* The port at which servers of a group know this one: with TLS if it has it. */
int redis__server_group_port(const redis_server *server);
/* The same as redis_command(), but NULL if there is no connection, because the server was killed, say. */
redisReply *redis__try(const redis_server *server, int argc, const char **argv);

#endif
