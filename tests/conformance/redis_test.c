/*
 * redis_test.c - the conformance suite on Redis, once for each way to reach it. The way is the program's argument, so that ctest runs
 * them side by side: a run is mostly waiting. Servers are private ones, started here.
 */
#include <redis_servers.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <verrou/conformance.h>

#include <cmocka.h>

static char url[2048];

static verrou_status open_redis(void *user, verrou_store **ret_store, verrou_error *err)
{
    (void)user;
    return verrou_store_open(url, NULL, ret_store, err);
}

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

static const struct way {
    const char *name;
    void (*start)(void);
} ways[] = {
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

/* ---- the suite ---- */

static const struct way *way;

/* As a test, because the support library makes a test fail if a server does not start. */
static void servers_start(void **state)
{
    (void)state;
    way->start();
}

int main(int argc, char **argv)
{
    const struct CMUnitTest start[] = {cmocka_unit_test(servers_start)};
    char name[64];
    verrou_conformance suite = {sizeof suite, name, open_redis, NULL, 0};

    for (size_t i = 0; argc == 2 && i < sizeof ways / sizeof ways[0]; i++)
        if (strcmp(argv[1], ways[i].name) == 0)
            way = &ways[i];
    if (!way) {
        fprintf(stderr, "usage: conformance_redis WAY\n");
        return 2;
    }
    snprintf(name, sizeof name, "redis %s", way->name);
    if (cmocka_run_group_tests_name("servers", start, NULL, NULL) != 0)
        return 1;
    return verrou_conformance_run(&suite) == 0 ? 0 : 1;
}
