/*
 * check.c - whether a server is fit for locks, for `verrou doctor`.
 *
 * What a user may do is found out by doing it, with a lock that nobody else has. What the server may not tell is a finding, no failure; only a
 * lost connection is one. In a cluster everything is asked of every node: what is the same on all of them is said once, without a name.
 */
#include "redis_store.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define OLDEST 500 /* scripts that ask for the time and write afterwards */
#define MAX_SKEW_MS 1000
#define SLOW_US 100000
#define PINGS 9
#define KEY_TRIES 20000
#define TRIAL_TTL_MS 10000

typedef struct finding {
    verrou_level level;
    const char *subject;
    const redis_connection *node;
    bool told;
    char text[320];
} finding;

typedef struct check {
    redis_state *state;
    redis_lane *lane;
    int64_t deadline_ms;
    redis_connection *node; /* the one that is looked at */
    redis_fault fault;      /* of the last request */
    finding *findings;
    size_t count, room;
    bool out_of_memory;
    bool used_up; /* the connection to the node will not be used again, but nothing was lost */
} check;

/* ---- findings ---- */

static void tell(check *c, verrou_level level, const char *subject, const char *format, ...) VERROU_PRINTF(4, 5);
static void tell(check *c, verrou_level level, const char *subject, const char *format, ...)
{
    finding *found;
    va_list args;

    if (c->count == c->room) {
        size_t room = c->room ? 2 * c->room : 32;
        finding *grown = c->state->host->realloc(c->findings, room * sizeof *grown);

        if (!grown) {
            c->out_of_memory = true;
            return;
        }
        c->findings = grown;
        c->room = room;
    }
    found = &c->findings[c->count++];
    *found = (finding){.level = level, .subject = subject, .node = c->node};
    va_start(args, format);
    vsnprintf(found->text, sizeof found->text, format, args);
    va_end(args);
}

static bool is_same(const finding *a, const finding *b)
{
    return a->level == b->level && strcmp(a->subject, b->subject) == 0 && strcmp(a->text, b->text) == 0;
}

/* A finding, and with it the same ones about other nodes. */
static int report_alike(check *c, size_t at, verrou_sink *sink)
{
    const verrou_host *host = c->state->host;
    const finding *first = &c->findings[at];
    size_t alike = 0;
    int bad = 0;

    for (size_t i = at; i < c->count; i++)
        alike += is_same(first, &c->findings[i]);
    for (size_t i = at; i < c->count; i++) {
        finding *found = &c->findings[i];

        if (found->told || !is_same(first, found))
            continue;
        found->told = true;
        if (alike < c->lane->node_count && found->node)
            bad |= host->finding(sink, found->level, found->subject, "%s: %s", found->node->address.name, found->text);
        else if (found == first)
            bad |= host->finding(sink, found->level, found->subject, "%s", found->text);
    }
    return bad;
}

static int report_all(check *c, verrou_sink *sink)
{
    int bad = c->out_of_memory;

    for (size_t i = 0; i < c->count && !bad; i++)
        if (!c->findings[i].told)
            bad = report_alike(c, i, sink);
    return bad;
}

/* ---- asking ---- */

/* An answer of text, such as that of INFO; NULL if there is none. */
static redisReply *ask_text(check *c, const char *word, const char *other)
{
    redisReply *reply = verrou__redis_ask(c->node, c->deadline_ms, &c->fault, word, other);

    if (reply && reply->type == REDIS_REPLY_STRING)
        return reply;
    freeReplyObject(reply);
    return NULL;
}

/* A setting of the server; false if it may not be asked, or does not exist. */
static bool config_get(check *c, const char *name, char *value, size_t size)
{
    redisReply *reply = verrou__redis_ask(c->node, c->deadline_ms, &c->fault, "CONFIG", "GET", name);
    bool got = reply && reply->type == REDIS_REPLY_ARRAY && reply->elements == 2 &&
               reply->element[1]->type == REDIS_REPLY_STRING;

    if (got)
        snprintf(value, size, "%s", reply->element[1]->str);
    freeReplyObject(reply);
    return got;
}

static long long info_number(const char *info, const char *name)
{
    char value[32];

    verrou__redis_info_field(info, name, value, sizeof value);
    return strtoll(value, NULL, 10);
}

static bool info_says(const char *info, const char *name, const char *expected)
{
    char value[64];

    verrou__redis_info_field(info, name, value, sizeof value);
    return strcmp(value, expected) == 0;
}

/* ---- what INFO tells ---- */

static void check_version(check *c, const char *info)
{
    char version[32];

    verrou__redis_info_field(info, "redis_version", version, sizeof version);
    if (c->node->version < OLDEST)
        tell(c, VERROU_ERROR_LEVEL, "redis", "version %s: 5.0 is the oldest that works", version);
    else if (c->state->topology == REDIS_CLUSTER && c->node->version < REDIS_SHARDED_PUBLISH)
        tell(c, VERROU_INFO, "redis", "version %s: before 7.0 each release is told to all nodes of a cluster", version);
    else
        tell(c, VERROU_INFO, "redis", "version %s", version);
}

static void check_role(check *c, const char *info)
{
    const redis_state *state = c->state;

    if (info_says(info, "role", "slave"))
        tell(c, VERROU_ERROR_LEVEL, "role", "replica: only a master gives locks");
    else if (state->topology == REDIS_SINGLE && info_says(info, "redis_mode", "cluster"))
        tell(c, VERROU_ERROR_LEVEL, "role",
             "node of a cluster: the address has to begin with redis+cluster: or rediss+cluster:");
    else if (state->topology == REDIS_SINGLE)
        tell(c, VERROU_INFO, "role", "master, a single server");
    else if (state->topology == REDIS_SENTINEL)
        tell(c, VERROU_INFO, "role", "master, called %s by the sentinels", state->master);
    else
        tell(c, VERROU_INFO, "role", "master, one of %zu in a cluster", c->lane->node_count);
}

static void check_memory(check *c, const char *info)
{
    char policy[32];
    long long limit = info_number(info, "maxmemory");

    verrou__redis_info_field(info, "maxmemory_policy", policy, sizeof policy);
    if (!policy[0])
        tell(c, VERROU_WARN, "memory", "it is not known whether locks can be evicted: INFO tells nothing of maxmemory");
    else if (strcmp(policy, "noeviction") == 0 && limit > 0)
        tell(c, VERROU_INFO, "memory", "nothing is evicted; with more than %lld bytes in use no lock is given", limit);
    else if (strcmp(policy, "noeviction") == 0)
        tell(c, VERROU_INFO, "memory", "nothing is evicted");
    else if (limit > 0)
        tell(c, VERROU_ERROR_LEVEL, "memory",
             "locks are dropped when more than %lld bytes are in use: maxmemory-policy is %s, it has to be noeviction",
             limit, policy);
    else
        tell(c, VERROU_INFO, "memory", "no limit, so that nothing is evicted, although maxmemory-policy is %s", policy);
}

static void check_persistence(check *c, const char *info)
{
    char fsync[16], save[128];
    bool fsync_known = config_get(c, "appendfsync", fsync, sizeof fsync);
    bool snapshots = config_get(c, "save", save, sizeof save) && save[0];

    if (info_says(info, "aof_enabled", "1") && fsync_known && strcmp(fsync, "always") == 0)
        tell(c, VERROU_INFO, "persistence", "each write is on disk before it is answered: a restart forgets no lock");
    else if (info_says(info, "aof_enabled", "1"))
        tell(c, VERROU_INFO, "persistence",
             "append-only file, appendfsync %s: a crash of the machine may forget the locks of the last moments",
             fsync_known ? fsync : "not known");
    else if (snapshots)
        tell(c, VERROU_WARN, "persistence", "snapshots only: a crash forgets the locks taken since the last one");
    else
        tell(c, VERROU_WARN, "persistence", "no append-only file: a restart may forget locks that are held");
    if (info_says(info, "rdb_last_bgsave_status", "err") || info_says(info, "aof_last_write_status", "err"))
        tell(c, VERROU_ERROR_LEVEL, "persistence",
             "the last write to disk failed: the server may refuse to give locks");
}

static int online_replicas(const char *info)
{
    static const char online[] = "state=online";
    int count = 0;

    for (const char *at = strstr(info, online); at; at = strstr(at + 1, online))
        count++;
    return count;
}

static void check_replicas(check *c, const char *info)
{
    int wanted = c->state->wait_replicas;
    int online = online_replicas(info);
    char value[16];
    int needed = config_get(c, "min-replicas-to-write", value, sizeof value) ? atoi(value) : 0;

    if (online < wanted)
        tell(c, VERROU_ERROR_LEVEL, "replicas", "%d connected, but wait-replicas=%d: no lock can be acquired", online,
             wanted);
    else if (wanted)
        tell(c, VERROU_INFO, "replicas", "%d connected; %d acknowledge a lock before it counts as held", online,
             wanted);
    else if (online)
        tell(c, VERROU_INFO, "replicas",
             "%d connected, none is waited for: a failover may forget locks taken just before (wait-replicas)", online);
    else if (c->state->topology == REDIS_SINGLE)
        tell(c, VERROU_INFO, "replicas", "none");
    else
        tell(c, VERROU_WARN, "replicas", "none: nothing can take over");
    if (online < needed)
        tell(c, VERROU_ERROR_LEVEL, "replicas",
             "%d connected, but min-replicas-to-write is %d: no lock can be acquired", online, needed);
}

static void check_info(check *c)
{
    redisReply *info = ask_text(c, "INFO", NULL);

    if (info) {
        check_version(c, info->str);
        check_role(c, info->str);
        check_memory(c, info->str);
        check_persistence(c, info->str);
        check_replicas(c, info->str);
    } else if (!c->node->broken) {
        tell(c, VERROU_WARN, "redis",
             "INFO is refused: version, role, eviction, persistence and replicas are not known (%s)", c->fault.code);
    }
    freeReplyObject(info);
}

static void check_cluster(check *c)
{
    redisReply *info;
    long long assigned, well;

    if (c->state->topology != REDIS_CLUSTER)
        return;
    info = ask_text(c, "CLUSTER", "INFO");
    if (!info)
        return;
    assigned = info_number(info->str, "cluster_slots_assigned");
    well = info_number(info->str, "cluster_slots_ok");
    if (!info_says(info->str, "cluster_state", "ok"))
        tell(c, VERROU_ERROR_LEVEL, "cluster", "in the state fail: %lld of %d slots are served", well, REDIS_SLOTS);
    else if (well < REDIS_SLOTS)
        tell(c, VERROU_ERROR_LEVEL, "cluster", "%lld of %d slots are served, %lld belong to a node", well, REDIS_SLOTS,
             assigned);
    else
        tell(c, VERROU_INFO, "cluster", "all slots are served");
    freeReplyObject(info);
}

/* ---- time ---- */

static int64_t clock_us(clockid_t id)
{
    struct timespec now;

    clock_gettime(id, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static int by_value(const void *a, const void *b)
{
    int64_t left = *(const int64_t *)a, right = *(const int64_t *)b;

    return (left > right) - (left < right);
}

/* A refused PING has travelled as far as an answered one. */
static void check_latency(check *c)
{
    int64_t took_us[PINGS];
    bool refused = false;

    for (int i = 0; i < PINGS; i++) {
        int64_t from_us = clock_us(CLOCK_MONOTONIC);

        redisReply *reply = verrou__redis_ask(c->node, c->deadline_ms, &c->fault, "PING");

        refused = !reply;
        freeReplyObject(reply);
        if (c->node->broken)
            return;
        took_us[i] = clock_us(CLOCK_MONOTONIC) - from_us;
    }
    qsort(took_us, PINGS, sizeof took_us[0], by_value);
    tell(c, took_us[PINGS / 2] > SLOW_US ? VERROU_WARN : VERROU_INFO, "latency", "%" PRId64 ".%02d ms a round trip",
         took_us[PINGS / 2] / 1000, (int)(took_us[PINGS / 2] % 1000 / 10));
    if (refused)
        tell(c, VERROU_WARN, "errors", "no right to PING: an error leaves the requests sent with it unsettled (%s)",
             c->fault.code);
}

static void check_clock(check *c)
{
    int64_t before_us = clock_us(CLOCK_REALTIME);
    redisReply *reply = verrou__redis_ask(c->node, c->deadline_ms, &c->fault, "TIME");
    int64_t after_us = clock_us(CLOCK_REALTIME);
    int64_t ahead_ms = 0;

    if (reply && reply->type == REDIS_REPLY_ARRAY && reply->elements == 2 &&
        reply->element[0]->type == REDIS_REPLY_STRING && reply->element[1]->type == REDIS_REPLY_STRING) {
        int64_t server_us = strtoll(reply->element[0]->str, NULL, 10) * 1000000;

        server_us += strtoll(reply->element[1]->str, NULL, 10);
        if (server_us > after_us)
            ahead_ms = (server_us - after_us) / 1000;
        else if (server_us < before_us)
            ahead_ms = (server_us - before_us) / 1000;
        if (llabs(ahead_ms) > MAX_SKEW_MS)
            tell(c, VERROU_WARN, "clock",
                 "the server's is %lld s %s this machine's: leases are not affected, but tokens, which begin with the "
                 "server's clock, are not comparable with those of other stores",
                 llabs(ahead_ms) / 1000, ahead_ms > 0 ? "ahead of" : "behind");
        else
            tell(c, VERROU_INFO, "clock", "the server's agrees with this machine's to the second");
    }
    freeReplyObject(reply);
}

/* ---- rights ---- */

/* Whether a command may be used: it may fail for any other reason. */
static bool is_allowed(const check *c, const redisReply *reply)
{
    return reply || (strcmp(c->fault.code, "NOPERM") != 0 && strcmp(c->fault.code, "ERR") != 0);
}

static void check_scripts(check *c)
{
    static const char text[] = "return 1";
    static const char none[] = "0000000000000000000000000000000000000000";
    bool by_name, whole, load;
    redisReply *reply;

    reply = verrou__redis_ask(c->node, c->deadline_ms, &c->fault, "EVALSHA", none, "0");
    by_name = is_allowed(c, reply);
    freeReplyObject(reply);
    reply = verrou__redis_ask(c->node, c->deadline_ms, &c->fault, "EVAL", text, "0");
    whole = is_allowed(c, reply);
    freeReplyObject(reply);
    reply = verrou__redis_ask(c->node, c->deadline_ms, &c->fault, "SCRIPT", "LOAD", text);
    load = is_allowed(c, reply);
    freeReplyObject(reply);
    if (c->node->broken)
        return;
    if (!by_name || !whole)
        tell(c, VERROU_ERROR_LEVEL, "scripts", "no right to %s%s%s: every request is a script",
             by_name ? "" : "EVALSHA", by_name || whole ? "" : " and ", whole ? "" : "EVAL");
    else if (!load)
        tell(c, VERROU_INFO, "scripts",
             "allowed, but for SCRIPT LOAD: the first request of each kind carries its script");
    else
        tell(c, VERROU_INFO, "scripts", "allowed");
}

/* No connection has this id. */
static void check_kill(check *c)
{
    redisReply *reply =
        verrou__redis_ask(c->node, c->deadline_ms, &c->fault, "CLIENT", "KILL", "ID", "9223372036854775807");

    if (c->node->broken)
        return;
    if (reply && c->node->client_id && c->node->run_id[0])
        tell(c, VERROU_INFO, "late requests", "cut off");
    else
        tell(c, VERROU_WARN, "late requests",
             "not cut off, for lack of a right to %s: what was given up for want of an answer may still be carried out",
             !reply               ? "CLIENT KILL"
             : c->node->client_id ? "INFO"
                                  : "CLIENT ID");
    freeReplyObject(reply);
}

static void check_events(check *c)
{
    char flags[32];

    if (!config_get(c, "notify-keyspace-events", flags, sizeof flags)) {
        if (!c->node->broken)
            tell(c, VERROU_INFO, "keyspace events", "not used: CONFIG GET is refused");
    } else if (verrou__redis_tells_of_releases(flags)) {
        tell(c, VERROU_INFO, "keyspace events", "on: releases by programs that publish none wake waiters too");
    } else {
        tell(c, VERROU_INFO, "keyspace events",
             "off: waiters find out at intervals about releases by programs that publish none");
    }
}

/* ---- a lock ---- */

/* A key of this node that nobody uses. Returns its length, 0 if there is none. */
static size_t trial_key(const check *c, char *key, size_t size)
{
    const redis_state *state = c->state;

    for (int i = 0; i < KEY_TRIES; i++) {
        int len = snprintf(key, size, "%.*sverrou-doctor:%016" PRIx64, (int)state->prefix_len, state->counter,
                           state->host->random());

        if (len <= 0 || len > VERROU_MAX_KEY)
            return 0;
        if (verrou__redis_route(c->lane, key, (size_t)len) == c->node)
            return (size_t)len;
    }
    return 0;
}

/* Carry out one request; whether it was applied. The text of its error is in the fault. */
static bool try_out(check *c, verrou_op *op)
{
    verrou_op *batch = op;
    verrou_error err = VERROU_ERROR_INIT;
    verrou_status status;
    const verrou_error *why;

    op->result = VERROU_OP_UNSENT;
    status = verrou__redis_execute(c->state, c->lane, &batch, 1, c->deadline_ms, &err);
    why = op->error ? op->error : &err;
    if (op->result != VERROU_OP_APPLIED)
        verrou__redis_fault_set(&c->fault, VERROU_OP_FAILED, why->retriable, why->store_code, "%s",
                                op->error || status != VERROU_OK ? why->message : "it was gone at once");
    c->state->host->free(op->error);
    c->state->host->free(op->holder);
    op->error = NULL;
    op->holder = NULL;
    return op->result == VERROU_OP_APPLIED;
}

/* A connection that goes on listening is good for nothing else. */
static void check_unsubscribe(check *c, const char *command, const char *key)
{
    redisReply *reply = verrou__redis_ask(c->node, c->deadline_ms, &c->fault, command, key);

    if (reply) {
        tell(c, VERROU_INFO, "subscribing", "allowed");
    } else if (!c->node->broken) {
        tell(c, VERROU_WARN, "subscribing", "no right to %s: channels are listened to for longer than need be",
             command);
        c->used_up = c->node->broken = true;
    }
    freeReplyObject(reply);
}

static void check_subscribe(check *c, const char *key)
{
    bool sharded = c->state->topology == REDIS_CLUSTER && c->node->version >= REDIS_SHARDED_PUBLISH;
    redisReply *reply =
        verrou__redis_ask(c->node, c->deadline_ms, &c->fault, sharded ? "SSUBSCRIBE" : "SUBSCRIBE", key);

    if (reply)
        check_unsubscribe(c, sharded ? "SUNSUBSCRIBE" : "UNSUBSCRIBE", key);
    else if (!c->node->broken)
        tell(c, VERROU_WARN, "subscribing", "no right to it: waiters find out at intervals about releases (%s)",
             c->fault.code);
    freeReplyObject(reply);
}

/* Take a lock, look at it, extend it, release it: as good as asking for each right. */
static void check_lock(check *c)
{
    static const struct {
        verrou_op_kind kind;
        const char *done;
    } steps[] = {{VERROU_OP_ACQUIRE, "taken"},
                 {VERROU_OP_INSPECT, "looked at"},
                 {VERROU_OP_EXTEND, "extended"},
                 {VERROU_OP_RELEASE, "released"}};
    redis_state *state = c->state;
    char key[VERROU_MAX_KEY + 32], owner[64];
    int owner_len = snprintf(owner, sizeof owner, "%016" PRIx64 "%016" PRIx64 "@verrou-doctor:0", state->host->random(),
                             state->host->random());
    verrou_op op = {.key = key, .owner = owner, .ttl_ms = TRIAL_TTL_MS, .others = -1};

    op.key_len = (uint16_t)trial_key(c, key, sizeof key);
    op.owner_len = (uint16_t)owner_len;
    if (!op.key_len)
        return;
    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
        op.kind = steps[i].kind;
        if (try_out(c, &op))
            continue;
        if (!c->node->broken)
            tell(c, VERROU_ERROR_LEVEL, "trial", "a lock cannot be %s: %s", steps[i].done, c->fault.text);
        return;
    }
    tell(c, VERROU_INFO, "trial", "a lock was taken, extended and released");
    if (atomic_load(&state->caps) & VERROU_CAP_FENCE_STORED)
        tell(c, VERROU_INFO, "counter", "the last token is kept in %s%s", state->counter,
             state->topology == REDIS_CLUSTER ? "{N}" : "");
    else
        tell(c, VERROU_WARN, "counter",
             "no right to %s%s: tokens are the server's clock, and may repeat when it is set back", state->counter,
             state->topology == REDIS_CLUSTER ? "{N}" : "");
    if (op.others < 0)
        tell(c, VERROU_WARN, "publishing", "no right to it: waiters elsewhere find out at intervals about releases");
    else
        tell(c, VERROU_INFO, "publishing", "allowed");
    check_subscribe(c, key);
}

/* ---- the way there ---- */

static void check_encryption(check *c)
{
    const redis_state *state = c->state;
    const redis_address *address = &c->node->address;

    if (state->connect)
        tell(c, VERROU_INFO, "connections", "made by the application");
    else if (state->tls)
        tell(c, VERROU_INFO, "connections", "encrypted");
    else if (address->port == 0)
        tell(c, VERROU_INFO, "connections", "unix socket");
    else if (strncmp(address->host, "127.", 4) == 0 || strcmp(address->host, "::1") == 0 ||
             strcmp(address->host, "localhost") == 0)
        tell(c, VERROU_INFO, "connections", "not encrypted, within this machine");
    else
        tell(c, VERROU_WARN, "connections",
             "not encrypted: the password and the locks can be read on the way (rediss:)");
}

/* False: the connection was lost. */
static bool check_node(check *c)
{
    void (*const steps[])(check *) = {check_info,   check_cluster, check_encryption, check_latency, check_clock,
                                      check_events, check_scripts, check_kill,       check_lock};

    for (size_t i = 0; i < sizeof steps / sizeof steps[0] && !c->node->broken; i++)
        steps[i](c);
    return c->used_up || !c->node->broken;
}

verrou_status verrou__redis_check(void *context, void *opened, int64_t deadline_ms, verrou_sink *sink,
                                  verrou_error *err)
{
    redis_state *state = context;
    redis_lane *lane = opened;
    check c = {.state = state, .lane = lane, .deadline_ms = deadline_ms};
    verrou_status status = VERROU_OK;

    if (lane->slots && !verrou__redis_lane_is_whole(lane, deadline_ms, &c.fault))
        tell(&c, VERROU_ERROR_LEVEL, "nodes", "%s", c.fault.text);
    for (size_t i = 0; i < lane->node_count && status == VERROU_OK; i++) {
        c.node = lane->nodes[i];
        c.used_up = false;
        if (!check_node(&c))
            status = verrou__redis_fail(state, &c.fault, err);
    }
    if (status == VERROU_OK && report_all(&c, sink) != 0)
        status = state->host->fail(err, VERROU_ENOMEM, 1, NULL, "out of memory");
    state->host->free(c.findings);
    return status;
}
