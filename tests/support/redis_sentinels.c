/*
 * redis_sentinels.c - a master, two replicas and three sentinels; see redis_servers.h.
 */
#include "redis_servers.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NODES 3
#define QUORUM 2

/* Sentinels look at the nodes and tell each other what they see every few seconds; for a test that is long. Redis 7 lets it be changed,
 * older servers answer an error, and are merely slower. */
static void hurry(const redis_server *sentinel)
{
    freeReplyObject(redis_command(sentinel, "SENTINEL", "DEBUG", "info-period", "500", "publish-period", "200", NULL));
}

static redis_server *start_sentinel(const redis_server *master, const redis_options *options)
{
    redis_options own = {.tls = options->tls, .tls_client_certificate = options->tls_client_certificate};
    char config[1024];
    int used = snprintf(config, sizeof config,
                        "sentinel monitor mymaster 127.0.0.1 %d %d\n"
                        "sentinel down-after-milliseconds mymaster 2000\n"
                        "sentinel failover-timeout mymaster 5000\n"
                        "sentinel parallel-syncs mymaster 2\n",
                        redis__server_group_port(master), QUORUM);
    redis_server *sentinel;

    if (options->password)
        snprintf(config + used, sizeof config - (size_t)used, "sentinel auth-pass mymaster \"%s\"\n",
                 options->password);
    sentinel = redis__server_new(&own, REDIS_SENTINEL, config);
    hurry(sentinel);
    return sentinel;
}

/* ---- what nodes and sentinels say ---- */

/* Whether a line with the name of a field is followed by one with its value. */
static bool has(const char *lines, const char *field, const char *value)
{
    char wanted[96];

    snprintf(wanted, sizeof wanted, "\n%s\n%s\n", field, value);
    return strstr(lines, wanted) != NULL;
}

static int occurrences(const char *lines, const char *wanted)
{
    int count = 0;

    for (const char *at = lines; (at = strstr(at, wanted)); at++)
        count++;
    return count;
}

static bool is_master(const redis_server *node)
{
    redisReply *reply = redis__try(node, 1, (const char *[]){"ROLE"});
    bool master = reply && reply->type == REDIS_REPLY_ARRAY && strcmp(reply->element[0]->str, "master") == 0;

    if (reply)
        freeReplyObject(reply);
    return master;
}

static int running_nodes(const redis_sentinels *group)
{
    int count = 0;

    for (int i = 0; i < NODES; i++)
        count += group->node[i]->process.pid > 0;
    return count;
}

static int running_sentinels(const redis_sentinels *group)
{
    int count = 0;

    for (int i = 0; i < REDIS_SENTINELS; i++)
        count += group->sentinel[i]->process.pid > 0;
    return count;
}

/* The port that a sentinel tells clients, 0 if it does not run or knows none. */
static int told_port(const redis_server *sentinel)
{
    const char *argv[] = {"SENTINEL", "GET-MASTER-ADDR-BY-NAME", "mymaster"};
    redisReply *reply = sentinel->process.pid > 0 ? redis__try(sentinel, 3, argv) : NULL;
    int port = reply && reply->type == REDIS_REPLY_ARRAY ? atoi(reply->element[1]->str) : 0;

    if (reply)
        freeReplyObject(reply);
    return port;
}

redis_server *redis_sentinels_master(const redis_sentinels *group)
{
    int told[REDIS_SENTINELS];

    for (int i = 0; i < REDIS_SENTINELS; i++)
        told[i] = told_port(group->sentinel[i]);
    for (int i = 0; i < NODES; i++) {
        int votes = 0;

        for (int j = 0; j < REDIS_SENTINELS; j++)
            votes += told[j] == redis__server_group_port(group->node[i]);
        if (votes >= QUORUM)
            return group->node[i];
    }
    return NULL;
}

/* A sentinel sees the master well, its fellows, and as many usable replicas as there are. */
static bool sees_all(const redis_sentinels *group, const redis_server *sentinel, const redis_server *master)
{
    const char *state = redis_text(sentinel, "SENTINEL", "MASTER", "mymaster", NULL);
    const char *replicas = redis_text(sentinel, "SENTINEL", "REPLICAS", "mymaster", NULL);
    int expected = running_nodes(group) - 1;
    char number[32];

    snprintf(number, sizeof number, "%d", redis__server_group_port(master));
    if (!has(state, "port", number) || !has(state, "flags", "master"))
        return false;
    snprintf(number, sizeof number, "%d", REDIS_SENTINELS - 1);
    if (!has(state, "num-other-sentinels", number))
        return false;
    /* A sentinel that still takes a node for a master, or for a replica of another, is about to change that. */
    snprintf(number, sizeof number, "\nmaster-port\n%d\n", redis__server_group_port(master));
    return occurrences(replicas, "\nflags\nslave\n") == expected &&
           occurrences(replicas, "\nrole-reported\nslave\n") >= expected && occurrences(replicas, number) >= expected;
}

static bool follows(const redis_server *node, const redis_server *master)
{
    char port[16];

    snprintf(port, sizeof port, "%d", redis__server_group_port(master));
    return strcmp(redis_info(node, "replication", "master_port"), port) == 0 &&
           strcmp(redis_info(node, "replication", "master_link_status"), "up") == 0;
}

static bool settled(const redis_sentinels *group)
{
    const redis_server *master = redis_sentinels_master(group);
    bool good = master && is_master(master);

    for (int i = 0; good && i < NODES; i++) {
        if (group->node[i] != master && group->node[i]->process.pid > 0)
            good = follows(group->node[i], master);
    }
    for (int i = 0; good && i < REDIS_SENTINELS; i++) {
        if (group->sentinel[i]->process.pid > 0)
            good = sees_all(group, group->sentinel[i], master);
    }
    return good;
}

/* ---- calls ---- */

void redis_sentinels_settle(redis_sentinels *group)
{
    int64_t deadline = process_clock_ms() + 2 * PROCESS_PATIENCE_MS;

    while (!settled(group)) {
        if (process_clock_ms() > deadline) {
            process_print_log(&group->sentinel[0]->process);
            process_fail("the sentinels do not agree on %d nodes", running_nodes(group));
        }
        process_pause();
    }
}

redis_sentinels *redis_sentinels_start(const redis_options *options)
{
    redis_sentinels *group = calloc(1, sizeof *group);
    redis_options node = options ? *options : (redis_options){0};

    if (!group)
        process_fail("out of memory");
    for (int i = 0; i < NODES; i++) {
        node.replica_of = group->node[0];
        group->node[i] = redis__server_new(&node, REDIS_NODE, NULL);
        if (i == 0)
            group->node[0]->group = group;
    }
    for (int i = 0; i < REDIS_SENTINELS; i++)
        group->sentinel[i] = start_sentinel(group->node[0], &node);
    redis_sentinels_settle(group);
    return group;
}

void redis_sentinels_free(redis_sentinels *group)
{
    if (!group)
        return;
    for (int i = 0; i < REDIS_SENTINELS; i++)
        redis_server_free(group->sentinel[i]);
    for (int i = NODES - 1; i >= 0; i--) /* the group's memory goes with the first one */
        redis_server_free(group->node[i]);
}

redis_server *redis_sentinels_wait(redis_sentinels *group, const redis_server *old)
{
    int64_t deadline = process_clock_ms() + 2 * PROCESS_PATIENCE_MS;
    redis_server *master = redis_sentinels_master(group);

    while (!master || master == old || !is_master(master)) {
        if (process_clock_ms() > deadline) {
            process_print_log(&group->sentinel[0]->process);
            process_fail("%d sentinels do not choose another master", running_sentinels(group));
        }
        process_pause();
        master = redis_sentinels_master(group);
    }
    return master;
}

redis_server *redis_sentinels_failover(redis_sentinels *group)
{
    const char *argv[] = {"SENTINEL", "FAILOVER", "mymaster"};
    const redis_server *old = redis_sentinels_wait(group, NULL);
    int64_t deadline = process_clock_ms() + PROCESS_PATIENCE_MS;
    bool begun = false;

    /* It refuses while another failover goes on, or before it has heard of replicas again. */
    for (int i = 0; !begun; i = (i + 1) % REDIS_SENTINELS) {
        redisReply *reply = group->sentinel[i]->process.pid > 0 ? redis__try(group->sentinel[i], 3, argv) : NULL;

        begun = reply && reply->type == REDIS_REPLY_STATUS;
        if (reply)
            freeReplyObject(reply);
        if (process_clock_ms() > deadline)
            process_fail("no sentinel begins a failover");
        if (!begun)
            process_pause();
    }
    return redis_sentinels_wait(group, old);
}
