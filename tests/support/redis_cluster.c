/*
 * redis_cluster.c - a Redis cluster made by CLUSTER commands, without redis-cli; see redis_servers.h.
 */
#include "redis_servers.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static redis_server *first_running(const redis_cluster *cluster)
{
    int i = 0;

    while (i < cluster->count && cluster->node[i]->process.pid <= 0)
        i++;
    if (i == cluster->count)
        process_fail("no node of the cluster runs");
    return cluster->node[i];
}

/* A command that may be refused for a while. */
static void repeat_until_ok(const redis_server *node, int argc, const char **argv)
{
    int64_t deadline = process_clock_ms() + PROCESS_PATIENCE_MS;
    bool done = false;

    while (!done) {
        redisReply *reply = redis__try(node, argc, argv);

        done = reply && reply->type == REDIS_REPLY_STATUS;
        if (!done && process_clock_ms() > deadline)
            process_fail("%s %s: %s", argv[0], argv[1], reply ? reply->str : "no answer");
        if (reply)
            freeReplyObject(reply);
        if (!done)
            process_pause();
    }
}

/* ---- CLUSTER NODES ---- */

typedef struct node_line {
    char flags[64];
    char slots[4096]; /* "0-5460 5462 ", "" if it has none */
} node_line;

#define ID_LENGTH 40

/* A node's line according to another: id address flags master ping pong epoch link slot... */
static bool find_line(const redis_server *asked, const char *id, node_line *ret)
{
    const char *line = redis_text(asked, "CLUSTER", "NODES", NULL);
    size_t length;
    int slots = 0;

    while (strncmp(line, id, ID_LENGTH) != 0) {
        line = strchr(line, '\n');
        if (!line || !*++line)
            return false;
    }
    length = strcspn(line, "\n");
    if (sscanf(line, "%*s %*s %63s %*s %*s %*s %*s %*s%n", ret->flags, &slots) != 1 || length >= sizeof ret->slots)
        return false;
    snprintf(ret->slots, sizeof ret->slots, "%.*s ", (int)length - slots, line + slots);
    return true;
}

static bool has_slot(const node_line *line, int slot)
{
    const char *at = line->slots;
    char *end;

    for (;;) {
        long first, last;

        at += strspn(at, " ");
        if (!*at)
            return false;
        first = last =
            strtol(at, &end, 10); /* the marks of a slot on its way begin with a bracket, and give 0 without moving */
        if (end != at && *end == '-')
            last = strtol(end + 1, &end, 10);
        if (end != at && first <= slot && slot <= last)
            return true;
        at += strcspn(at, " ");
    }
}

/* A node as it should be: a master with slots or a replica, and not suspected of anything. */
static bool is_well(const node_line *line)
{
    bool useful = strstr(line->flags, "slave") || line->slots[strspn(line->slots, " ")];

    return useful && !strstr(line->flags, "fail") && !strstr(line->flags, "handshake") &&
           !strstr(line->flags, "noaddr");
}

static bool sees_master(const redis_cluster *cluster, const redis_server *asked, int i)
{
    node_line line;

    return find_line(asked, cluster->id[i], &line) && is_well(&line) && strstr(line.flags, "master");
}

/* One node's view: all slots are served, all nodes that run are well, and it follows its master if it has one. */
static bool sees_all(const redis_cluster *cluster, const redis_server *asked)
{
    const char *info = redis_text(asked, "CLUSTER", "INFO", NULL);
    node_line line;

    if (!strstr(info, "cluster_state:ok\r\n") || !strstr(info, "cluster_slots_ok:16384\r\n"))
        return false;
    for (int i = 0; i < cluster->count; i++) {
        if (cluster->node[i]->process.pid > 0 && (!find_line(asked, cluster->id[i], &line) || !is_well(&line)))
            return false;
    }
    return strcmp(redis_info(asked, "replication", "role"), "slave") != 0 ||
           strcmp(redis_info(asked, "replication", "master_link_status"), "up") == 0;
}

/* ---- waiting ---- */

/* Wait until a view holds for all running nodes; `i` is handed on to it. */
static void wait_all(const redis_cluster *cluster, int i, const char *what,
                     bool (*view)(const redis_cluster *cluster, const redis_server *asked, int i))
{
    int64_t deadline = process_clock_ms() + 2 * PROCESS_PATIENCE_MS;

    for (int n = 0; n < cluster->count; n++) {
        while (cluster->node[n]->process.pid > 0 && !view(cluster, cluster->node[n], i)) {
            if (process_clock_ms() > deadline) {
                fprintf(stderr, "%s\n", redis_text(cluster->node[n], "CLUSTER", "NODES", NULL));
                process_print_log(&cluster->node[n]->process);
                process_fail("the cluster's node %d does not see %s", n, what);
            }
            process_pause();
        }
    }
}

static bool settled_view(const redis_cluster *cluster, const redis_server *asked, int i)
{
    (void)i;
    return sees_all(cluster, asked);
}

static bool knows_view(const redis_cluster *cluster, const redis_server *asked, int i)
{
    node_line line;

    (void)i;
    for (int n = 0; n < cluster->count; n++) {
        if (!find_line(asked, cluster->id[n], &line) || strstr(line.flags, "handshake"))
            return false;
    }
    return true;
}

static bool owner_view(const redis_cluster *cluster, const redis_server *asked, int slot)
{
    node_line line;

    return find_line(asked, cluster->id[cluster->moved_to], &line) && has_slot(&line, slot);
}

void redis_cluster_settle(redis_cluster *cluster)
{
    wait_all(cluster, 0, "a cluster that is well", settled_view);
}

void redis_cluster_wait_master(redis_cluster *cluster, int i)
{
    wait_all(cluster, i, "the new master", sees_master);
    redis_cluster_settle(cluster);
}

/* ---- making one ---- */

static void give_slots(const redis_server *node, int i)
{
    char first[16], last[16];

    snprintf(first, sizeof first, "%d", i * REDIS_CLUSTER_SLOTS / REDIS_CLUSTER_MASTERS);
    snprintf(last, sizeof last, "%d", (i + 1) * REDIS_CLUSTER_SLOTS / REDIS_CLUSTER_MASTERS - 1);
    redis_text(node, "CLUSTER", "ADDSLOTSRANGE", first, last, NULL);
}

static void meet(const redis_server *node, const redis_server *other)
{
    char port[16], bus[16];

    snprintf(port, sizeof port, "%d", redis__server_group_port(other));
    snprintf(bus, sizeof bus, "%d", other->bus.number);
    redis_text(node, "CLUSTER", "MEET", "127.0.0.1", port, bus, NULL);
}

static void start_node(redis_cluster *cluster, int i, const redis_options *options)
{
    char epoch[16];
    redis_server *node = redis__server_new(options, REDIS_CLUSTER_NODE,
                                           "cluster-node-timeout 3000\ncluster-replica-validity-factor 0\n");

    cluster->node[i] = node;
    if (i == 0)
        node->group = cluster;
    snprintf(cluster->id[i], sizeof cluster->id[i], "%s", redis_text(node, "CLUSTER", "MYID", NULL));
    /* Masters with equal epochs have to find out first whose comes first, which takes a while. */
    snprintf(epoch, sizeof epoch, "%d", i + 1);
    redis_text(node, "CLUSTER", "SET-CONFIG-EPOCH", epoch, NULL);
    if (i < REDIS_CLUSTER_MASTERS)
        give_slots(node, i);
    for (int other = 0; other < i; other++) /* everybody meets everybody: gossip would find them, later */
        meet(node, cluster->node[other]);
}

redis_cluster *redis_cluster_start(bool replicas, const redis_options *options)
{
    redis_cluster *cluster = calloc(1, sizeof *cluster);
    redis_options node = options ? *options : (redis_options){0};

    if (!cluster)
        process_fail("out of memory");
    cluster->count = replicas ? 2 * REDIS_CLUSTER_MASTERS : REDIS_CLUSTER_MASTERS;
    for (int i = 0; i < cluster->count; i++)
        start_node(cluster, i, &node);
    wait_all(cluster, 0, "all nodes", knows_view);
    for (int i = REDIS_CLUSTER_MASTERS; i < cluster->count; i++)
        repeat_until_ok(cluster->node[i], 3,
                        (const char *[]){"CLUSTER", "REPLICATE", cluster->id[i - REDIS_CLUSTER_MASTERS]});
    redis_cluster_settle(cluster);
    return cluster;
}

void redis_cluster_free(redis_cluster *cluster)
{
    if (!cluster)
        return;
    for (int i = cluster->count - 1; i >= 0; i--) /* the cluster's memory goes with the first one */
        redis_server_free(cluster->node[i]);
}

/* ---- slots ---- */

int redis_cluster_slot(const redis_cluster *cluster, const char *key)
{
    return (int)redis_integer(first_running(cluster), "CLUSTER", "KEYSLOT", key, NULL);
}

int redis_cluster_owner(const redis_cluster *cluster, int slot)
{
    const redis_server *asked = first_running(cluster);
    node_line line;

    for (int i = 0; i < cluster->count; i++) {
        if (find_line(asked, cluster->id[i], &line) && has_slot(&line, slot))
            return i;
    }
    return -1;
}

void redis_cluster_move_begin(redis_cluster *cluster, int slot, int from, int to)
{
    char number[16];

    snprintf(number, sizeof number, "%d", slot);
    redis_text(cluster->node[to], "CLUSTER", "SETSLOT", number, "IMPORTING", cluster->id[from], NULL);
    redis_text(cluster->node[from], "CLUSTER", "SETSLOT", number, "MIGRATING", cluster->id[to], NULL);
}

static void move_key(const redis_server *from, const redis_server *to, const char *key)
{
    char port[16];

    snprintf(port, sizeof port, "%d", redis__server_group_port(to));
    if (to->user[0])
        redis_text(from, "MIGRATE", "127.0.0.1", port, key, "0", "30000", "AUTH2", to->user, to->password, NULL);
    else if (to->password[0])
        redis_text(from, "MIGRATE", "127.0.0.1", port, key, "0", "30000", "AUTH", to->password, NULL);
    else
        redis_text(from, "MIGRATE", "127.0.0.1", port, key, "0", "30000", NULL);
}

void redis_cluster_move_keys(redis_cluster *cluster, int slot, int from, int to)
{
    char number[16];
    size_t moved;

    snprintf(number, sizeof number, "%d", slot);
    do {
        redisReply *keys = redis_command(cluster->node[from], "CLUSTER", "GETKEYSINSLOT", number, "100", NULL);

        moved = keys->elements;
        for (size_t i = 0; i < moved; i++)
            move_key(cluster->node[from], cluster->node[to], keys->element[i]->str);
        freeReplyObject(keys);
    } while (moved > 0);
}

void redis_cluster_move_finish(redis_cluster *cluster, int slot, int to)
{
    char number[16];

    /* The new owner first: as long as only the old one knows, nobody would serve the slot. Replicas hear of it. */
    snprintf(number, sizeof number, "%d", slot);
    redis_text(cluster->node[to], "CLUSTER", "SETSLOT", number, "NODE", cluster->id[to], NULL);
    for (int i = 0; i < cluster->count; i++) {
        if (i != to && cluster->node[i]->process.pid > 0 && sees_master(cluster, cluster->node[i], i))
            redis_text(cluster->node[i], "CLUSTER", "SETSLOT", number, "NODE", cluster->id[to], NULL);
    }
    cluster->moved_to = to;
    wait_all(cluster, slot, "the slot at its new place", owner_view);
}

void redis_cluster_failover(redis_cluster *cluster, int replica)
{
    repeat_until_ok(cluster->node[replica], 2, (const char *[]){"CLUSTER", "FAILOVER"});
    redis_cluster_wait_master(cluster, replica);
}
