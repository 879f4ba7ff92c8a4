/*
 * redis_test.c - the conformance suite on Redis: see ways.h.
 */
#include <redis_servers.h>

#include "ways.h"

/* ---- the ways ---- */

static void single(void)
{
    snprintf(url, sizeof url, "redis://127.0.0.1:%d", redis_server_start(NULL)->port);
}

/* In front of every key: what means something to Redis, to printf(), to a glob or to a URL, and not only ASCII. */
static void odd_prefix(void)
{
    snprintf(url, sizeof url, "redis://127.0.0.1:%d/3?prefix=%s", redis_server_start(NULL)->port,
             "a%20b*%3F%5B%5Ed%5D%5C%25s%7B%7D%22%27%0D%0A%C3%A9%26%3D%23:");
}

/* The rights that the manual names. The second pattern is for the token counter. */
#define RIGHTS                                                                                                  \
    "+evalsha +eval +script|load +get +set +del +pttl +pexpire +persist +time +hget +hset +publish +subscribe " \
    "+unsubscribe +ping +scan +info +client|id +client|kill"

static void acl(void)
{
    const redis_server *server = redis_server_start(
        &(redis_options){.acl = "user default off\nuser locks on >s3cr3t resetchannels ~app:* &app:* " RIGHTS "\n"});

    snprintf(url, sizeof url, "redis://locks:s3cr3t@127.0.0.1:%d?prefix=app:", server->port);
}

/* The counter, "app:verrou:fence", is not among the keys. */
static void acl_no_counter(void)
{
    const redis_server *server = redis_server_start(&(redis_options){
        .acl = "user default off\n"
               "user locks on >s3cr3t resetchannels ~app:conformance:* &app:conformance:* " RIGHTS "\n"});

    snprintf(url, sizeof url, "redis://locks:s3cr3t@127.0.0.1:%d?prefix=app:", server->port);
}

static void tls(void)
{
    const redis_server *server = redis_server_start(&(redis_options){.tls = "server", .tls_client_certificate = true});
    const char *from = server_certificates();

    snprintf(url, sizeof url, "rediss://localhost:%d?ca=%s/ca.pem&cert=%s/client.pem&key=%s/client.key",
             server->tls_port, from, from, from);
}

static void unix_socket(void)
{
    const redis_server *server = redis_server_start(&(redis_options){.unix_socket = true, .password = "p@ss w/rd:?"});

    snprintf(url, sizeof url, "redis+unix://:p%%40ss%%20w%%2Frd%%3A%%3F@%s?db=1", server->socket);
}

static void sentinel(void)
{
    const redis_sentinels *group = redis_sentinels_start(&(redis_options){.password = "s3cr3t"});

    snprintf(url, sizeof url, "redis+sentinel://:s3cr3t@127.0.0.1:%d,127.0.0.1:%d,127.0.0.1:%d/mymaster/2",
             group->sentinel[0]->port, group->sentinel[1]->port, group->sentinel[2]->port);
}

static void cluster_with(const char *settings)
{
    const redis_cluster *group = redis_cluster_start(true, NULL);

    snprintf(url, sizeof url, "redis+cluster://127.0.0.1:%d,127.0.0.1:%d%s", group->node[0]->port, group->node[4]->port,
             settings);
}

static void cluster(void)
{
    cluster_with("?prefix=app:");
}

/* All keys are in one slot then, and so is the counter. */
static void cluster_tag(void)
{
    cluster_with("?prefix=%7Bapp%7D:");
}

static const way ways[] = {
    {"single", single},
    {"odd_prefix", odd_prefix},
    {"acl", acl},
    {"acl_no_counter", acl_no_counter},
    {"tls", tls},
    {"unix", unix_socket},
    {"sentinel", sentinel},
    {"cluster", cluster},
    {"cluster_tag", cluster_tag},
};

int main(int argc, char **argv)
{
    return ways_main("redis", ways, sizeof ways / sizeof ways[0], argc, argv);
}
