/*
 * topology.c - which connections a lane has: one to the server, one to the master that Sentinel names, or one to each master of a cluster.
 *
 * All connecting is done here, on threads of the store. What a lane knows is never mended while it is open, except that a slot's new
 * node is noted: a lane that no longer fits is closed, and another one is opened.
 */
#include "redis_store.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- one server ---- */

static redis_connection *connect_any(redis_state *state, const redis_address *addresses, size_t count,
                                     redis_purpose purpose, int64_t deadline_ms, redis_fault *fault)
{
    verrou__redis_fault_set(fault, VERROU_OP_RETRY, true, NULL, "no server to connect to");
    for (size_t i = 0; i < count; i++) {
        /* One that is silent does not use up the time of the others. */
        int64_t now_ms = state->host->now_ms();
        int64_t share_ms = now_ms + (deadline_ms - now_ms) / (int64_t)(count - i);
        redis_connection *connection = verrou__redis_connect(state, &addresses[i], purpose, share_ms, fault);

        if (connection)
            return connection;
        if (!fault->retriable)
            return NULL;
    }
    return NULL;
}

/* ---- Sentinel ---- */

static bool ask_sentinel(redis_state *state, const redis_address *sentinel, int64_t deadline_ms, redis_address *master,
                         redis_fault *fault)
{
    int64_t limit_ms = state->host->now_ms() + state->connect_timeout_ms;
    redis_connection *connection;
    redisReply *reply;
    bool known = false;

    /* Nothing is said while connecting, so that a silent one is noticed only here; the others need time too. */
    if (limit_ms < deadline_ms)
        deadline_ms = limit_ms;
    connection = verrou__redis_connect(state, sentinel, REDIS_FOR_SENTINEL, deadline_ms, fault);
    if (!connection)
        return false;
    reply = verrou__redis_ask(connection, deadline_ms, fault, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", state->master);
    if (reply && reply->type == REDIS_REPLY_ARRAY && reply->elements == 2 &&
        reply->element[0]->type == REDIS_REPLY_STRING && reply->element[1]->type == REDIS_REPLY_STRING) {
        int port = atoi(reply->element[1]->str);

        known = port > 0 && verrou__redis_address_set(master, reply->element[0]->str, port);
    }
    if (reply && !known) {
        verrou__redis_fault_set(fault, VERROU_OP_RETRY, true, NULL, "the sentinel %s knows no master called %s",
                                sentinel->name, state->master);
    }
    freeReplyObject(reply);
    verrou__redis_disconnect(connection);
    return known;
}

/* What one sentinel says may be out of date, and only the server itself knows whether it is the master. */
static redis_connection *connect_named(redis_state *state, redis_purpose purpose, int64_t deadline_ms,
                                       redis_fault *fault)
{
    size_t first = (size_t)(state->host->random() % state->endpoint_count);

    for (size_t i = 0; i < state->endpoint_count; i++) {
        const redis_address *sentinel = &state->endpoints[(first + i) % state->endpoint_count];
        redis_connection *connection;
        redis_address master;

        if (!ask_sentinel(state, sentinel, deadline_ms, &master, fault))
            continue;
        connection = verrou__redis_connect(state, &master, purpose, deadline_ms, fault);
        if (connection && connection->master)
            return connection;
        if (connection) {
            verrou__redis_disconnect(connection);
            verrou__redis_fault_set(fault, VERROU_OP_RETRY, true, NULL, "%s is not, or no longer, the master %s",
                                    master.name, state->master);
        } else if (!fault->retriable) {
            return NULL;
        }
    }
    return NULL;
}

redis_connection *verrou__redis_connect_master(redis_state *state, redis_purpose purpose, int64_t deadline_ms,
                                               redis_fault *fault)
{
    if (state->topology == REDIS_SENTINEL)
        return connect_named(state, purpose, deadline_ms, fault);
    return connect_any(state, state->endpoints, state->endpoint_count, purpose, deadline_ms, fault);
}

/* ---- cluster: reading CLUSTER NODES ---- */

/*
 * A line: id, ip:port@bus-port[,hostname], flags, master, ping, pong, epoch, link, slots... A slot is a number, a range, or, on its way to
 * or from another node, in brackets (Redis documentation, CLUSTER NODES).
 */
typedef struct node_line {
    redis_address address;
    char alias[256];
    bool usable; /* a master that is not known to have failed */
    char *slots;
} node_line;

/* The next word of a line, ended with NUL; NULL at the end. */
static char *next_word(char **at)
{
    char *word = *at + strspn(*at, " ");
    char *end = word + strcspn(word, " ");

    *at = *end ? end + 1 : end;
    *end = '\0';
    return *word ? word : NULL;
}

static bool parse_endpoint(char *text, const redis_state *state, const redis_connection *seed, node_line *line)
{
    char *name = strchr(text, ',');
    char *bus, *port;
    const char *host, *alias;

    if (name)
        *name++ = '\0';
    bus = strchr(text, '@');
    if (bus)
        *bus = '\0';
    port = strrchr(text, ':');
    if (!port)
        return false;
    *port++ = '\0';
    /* A node that has met no other does not know its own address: it is the one that was asked. */
    host = *text ? text : seed->address.host;
    alias = name && *name && *name != '?' ? name : "";
    if (*alias && state->tls) { /* certificates are for names */
        alias = host;
        host = name;
    }
    snprintf(line->alias, sizeof line->alias, "%s", alias);
    return atoi(port) > 0 && verrou__redis_address_set(&line->address, host, atoi(port));
}

static bool parse_line(char *text, const redis_state *state, const redis_connection *seed, node_line *line)
{
    char *words[8];

    for (int i = 0; i < 8; i++) {
        words[i] = next_word(&text);
        if (!words[i])
            return false;
    }
    line->slots = text;
    line->usable = strstr(words[2], "master") && !strstr(words[2], "fail") && !strstr(words[2], "handshake") &&
                   !strstr(words[2], "noaddr");
    return parse_endpoint(words[1], state, seed, line);
}

static void note_slots(char *text, uint8_t *slots, uint8_t node)
{
    const char *word;

    while ((word = next_word(&text))) {
        char *end;
        unsigned long first = strtoul(word, &end, 10);
        unsigned long last = *end == '-' ? strtoul(end + 1, NULL, 10) : first;

        if (*word == '[')
            continue;
        for (unsigned long slot = first; slot <= last && slot < REDIS_SLOTS; slot++)
            slots[slot] = node;
    }
}

static bool same_address(const redis_connection *connection, const redis_address *address)
{
    return connection->address.port == address->port &&
           (strcmp(connection->address.host, address->host) == 0 || strcmp(connection->alias, address->host) == 0);
}

/* ---- cluster: connecting ---- */

/*
 * Any node knows all others. Those of the address come first: what was learnt may be out of date, but the nodes of the address may all
 * be dead while the cluster is well. Nobody who is silent may use up the time of all.
 */
static redis_connection *connect_seed(redis_state *state, int64_t deadline_ms, redis_fault *fault)
{
    const verrou_host *host = state->host;
    redis_address *known = NULL;
    redis_connection *seed;
    size_t count;

    pthread_mutex_lock(&state->mutex);
    count = state->known_count;
    known = count ? host->malloc(count * sizeof *known) : NULL;
    if (known)
        memcpy(known, state->known, count * sizeof *known);
    pthread_mutex_unlock(&state->mutex);

    if (!known)
        return connect_any(state, state->endpoints, state->endpoint_count, REDIS_FOR_WATCH, deadline_ms, fault);
    seed = connect_any(state, state->endpoints, state->endpoint_count, REDIS_FOR_WATCH,
                       host->now_ms() + (deadline_ms - host->now_ms()) / 3, fault);
    if (!seed && fault->retriable)
        seed = connect_any(state, known, count, REDIS_FOR_WATCH, host->now_ms() + (deadline_ms - host->now_ms()) / 2,
                           fault);
    host->free(known);
    return seed;
}

/* Takes over `known`. */
static void know_nodes(redis_state *state, redis_address *known, size_t count)
{
    redis_address *old;

    pthread_mutex_lock(&state->mutex);
    old = state->known;
    state->known = known;
    state->known_count = count;
    pthread_mutex_unlock(&state->mutex);
    state->host->free(old);
}

typedef struct cluster {
    redis_state *state;
    redis_purpose purpose;
    int64_t deadline_ms;
    redis_connection **nodes;
    size_t count;
    uint8_t *slots;
    unsigned missing; /* masters that could not be connected to, ... */
    redis_fault why;  /* ... and why the last of them could not */
} cluster;

static void connect_node(cluster *c, node_line *line)
{
    /* Half of what time is left, so that one that is silent leaves some for the others. */
    int64_t now_ms = c->state->host->now_ms();
    redis_fault fault;
    redis_connection *node =
        verrou__redis_connect(c->state, &line->address, c->purpose, now_ms + (c->deadline_ms - now_ms) / 2, &fault);

    if (!node) {
        c->missing++;
        c->why = fault;
        return;
    }
    memcpy(node->alias, line->alias, sizeof node->alias);
    note_slots(line->slots, c->slots, (uint8_t)c->count);
    c->nodes[c->count++] = node;
}

/* Every lane and the subscription find out, again and again: it is told when it changes. */
static void tell_missing(const cluster *c)
{
    if (atomic_exchange(&c->state->missing_nodes, c->missing) != c->missing && c->missing > 0)
        c->state->host->log(c->state->log_context, VERROU_WARN, "store.node_unreachable", NULL,
                            "%u of the cluster's masters: %s", c->missing, c->why.text);
}

static void connect_nodes(cluster *c, const redis_connection *seed, char *text)
{
    redis_address *known; /* without memory what was known stays known */
    size_t count = 0, lines = 1;
    char *rest = text;
    char *row;

    for (const char *at = text; *at; at++)
        lines += *at == '\n';
    known = c->state->host->malloc(lines * sizeof *known);
    while ((row = strtok_r(rest, "\n", &rest))) {
        node_line line;

        if (!parse_line(row, c->state, seed, &line))
            continue;
        if (known)
            known[count++] = line.address;
        if (line.usable && c->count < REDIS_MAX_NODES)
            connect_node(c, &line);
    }
    if (known)
        know_nodes(c->state, known, count);
    tell_missing(c);
}

bool verrou__redis_connect_cluster(redis_state *state, redis_purpose purpose, int64_t deadline_ms,
                                   redis_connection **nodes, size_t *ret_count, uint8_t *slots, redis_fault *fault)
{
    cluster c = {.state = state, .purpose = purpose, .deadline_ms = deadline_ms, .nodes = nodes, .slots = slots};
    redis_connection *seed = connect_seed(state, deadline_ms, fault);
    redisReply *reply = seed ? verrou__redis_ask(seed, deadline_ms, fault, "CLUSTER", "NODES") : NULL;

    memset(slots, NO_NODE, REDIS_SLOTS);
    if (reply && reply->type == REDIS_REPLY_STRING)
        connect_nodes(&c, seed, reply->str);
    if (reply && c.missing)
        *fault = c.why;
    else if (reply)
        verrou__redis_fault_set(fault, VERROU_OP_RETRY, true, "CLUSTERDOWN", "%s knows no master of its cluster",
                                seed->address.name);
    freeReplyObject(reply);
    verrou__redis_disconnect(seed);
    *ret_count = c.count;
    return c.count > 0;
}

/* ---- lanes ---- */

verrou_status verrou__redis_lane_open(void *context, int64_t deadline_ms, void **ret_lane, verrou_error *err)
{
    redis_state *state = context;
    const verrou_host *host = state->host;
    bool clustered = state->topology == REDIS_CLUSTER;
    redis_lane *lane = host->malloc(sizeof *lane + (clustered ? REDIS_SLOTS : 0));
    redis_fault fault;
    bool opened;

    if (!lane)
        return host->fail(err, VERROU_ENOMEM, 1, NULL, "out of memory");
    memset(lane, 0, sizeof *lane);
    lane->state = state;
    lane->renewed_ms = host->now_ms();
    if (clustered) {
        lane->slots = (uint8_t *)(lane + 1);
        opened = verrou__redis_connect_cluster(state, REDIS_FOR_LOCKS, deadline_ms, lane->nodes, &lane->node_count,
                                               lane->slots, &fault);
    } else {
        lane->nodes[0] = verrou__redis_connect_master(state, REDIS_FOR_LOCKS, deadline_ms, &fault);
        lane->node_count = 1;
        opened = lane->nodes[0] != NULL;
    }
    if (!opened) {
        host->free(lane);
        return verrou__redis_fail(state, &fault, err);
    }
    *ret_lane = lane;
    return VERROU_OK;
}

void verrou__redis_lane_close(void *context, void *opened)
{
    redis_state *state = context;
    redis_lane *lane = opened;

    verrou__redis_drop_begun(lane);
    for (size_t i = 0; i < lane->node_count; i++)
        verrou__redis_disconnect(lane->nodes[i]);
    state->host->free(lane);
}

redis_connection *verrou__redis_route(redis_lane *lane, const char *key, size_t key_len)
{
    uint8_t node = 0;

    if (lane->slots)
        node = lane->slots[verrou__redis_slot(key, key_len)];
    return node < lane->node_count ? lane->nodes[node] : NULL;
}

/* "MOVED 3999 127.0.0.1:6381", "ASK 3999 127.0.0.1:6381"; without a host it is the one that was asked. */
redis_connection *verrou__redis_redirect(redis_lane *lane, const redis_connection *from, const char *text)
{
    redis_address address = from->address;
    const char *slot_at = strchr(text, ' ');
    const char *host = slot_at ? strchr(slot_at + 1, ' ') : NULL;
    const char *port = host ? strrchr(host, ':') : NULL;
    unsigned long slot;

    if (!port)
        return NULL;
    host++;
    slot = strtoul(slot_at + 1, NULL, 10);
    address.port = atoi(port + 1);
    if (port > host)
        snprintf(address.host, sizeof address.host, "%.*s", (int)(port - host), host);
    for (size_t i = 0; i < lane->node_count; i++) {
        if (!same_address(lane->nodes[i], &address))
            continue;
        if (text[0] == 'M' && slot < REDIS_SLOTS)
            lane->slots[slot] = (uint8_t)i;
        return lane->nodes[i];
    }
    return NULL;
}

/* The node of the lane that a line is about, NO_NODE if it is not connected to it. */
static uint8_t node_of(const redis_lane *lane, const node_line *line)
{
    for (size_t i = 0; i < lane->node_count; i++)
        if (line->usable && same_address(lane->nodes[i], &line->address))
            return (uint8_t)i;
    return NO_NODE;
}

/* A slot that no line names belongs to nobody and is no fault of the lane. */
bool verrou__redis_lane_is_whole(redis_lane *lane, int64_t deadline_ms, redis_fault *fault)
{
    const redis_connection *asked = lane->nodes[0];
    redisReply *reply = verrou__redis_ask(lane->nodes[0], deadline_ms, fault, "CLUSTER", "NODES");
    char *rest = reply && reply->type == REDIS_REPLY_STRING ? reply->str : NULL;
    bool whole = rest != NULL;
    char *row;

    if (rest)
        memset(lane->slots, NO_NODE, REDIS_SLOTS);
    else if (reply)
        verrou__redis_fault_set(fault, VERROU_OP_FAILED, false, "PROTOCOL",
                                "an answer that CLUSTER NODES does not give");
    while (rest && (row = strtok_r(rest, "\n", &rest))) {
        node_line line;
        uint8_t node;

        if (!parse_line(row, lane->state, asked, &line) || line.slots[strspn(line.slots, " ")] == '\0')
            continue;
        node = node_of(lane, &line);
        note_slots(line.slots, lane->slots, node);
        if (node != NO_NODE)
            continue;
        verrou__redis_fault_set(fault, VERROU_OP_RETRY, true, "CLUSTERDOWN", "there is no connection to the node %s",
                                line.address.name);
        whole = false;
        lane->stale = true;
    }
    freeReplyObject(reply);
    return whole;
}
