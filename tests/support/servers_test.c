/*
 * servers_test.c - the servers and the proxy that other tests rely on do what their headers say; spoken to by plain hiredis.
 */
#include "fault_proxy.h"
#include "redis_servers.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

static redis_server *server;
static fault_proxy *proxy;

static int start(void **state)
{
    (void)state;
    server = redis_server_start(NULL);
    return 0;
}

static int start_proxy(void **state)
{
    (void)state;
    redis_text(server, "FLUSHALL", NULL);
    proxy = proxy_start(server->port);
    return 0;
}

static int stop_proxy(void **state)
{
    (void)state;
    proxy_stop(proxy);
    proxy = NULL;
    return 0;
}

static redisContext *connect_to_proxy(void)
{
    redisContext *c = redisConnectWithTimeout("127.0.0.1", proxy_port(proxy), (struct timeval){30, 0});

    assert_non_null(c);
    assert_int_equal(c->err, 0);
    redisSetTimeout(c, (struct timeval){30, 0});
    return c;
}

/* Send a command and compare its answer; NULL: the connection breaks instead. */
static void expect(redisContext *c, const char *answer, const char *command)
{
    redisReply *reply = redisCommand(c, command);

    if (!answer) {
        assert_null(reply);
        return;
    }
    assert_non_null(reply);
    if (reply->type == REDIS_REPLY_INTEGER)
        assert_int_equal(reply->integer, atoll(answer));
    else if (reply->type == REDIS_REPLY_NIL)
        assert_string_equal("(nil)", answer);
    else
        assert_string_equal(reply->str, answer);
    freeReplyObject(reply);
}

static void expect_next(redisContext *c, const char *answer)
{
    void *got = NULL;
    redisReply *reply;

    assert_int_equal(redisGetReply(c, &got), REDIS_OK);
    reply = got;
    assert_string_equal(reply->str, answer);
    freeReplyObject(reply);
}

/* Write what was appended, without waiting for answers. */
static void send_all(redisContext *c)
{
    int done = 0;

    while (!done)
        assert_int_equal(redisBufferWrite(c, &done), REDIS_OK);
}

/* ---- a server ---- */

/* A started server carries commands out, and its folder is private. */
static void server_answers(void **state)
{
    struct stat info;

    (void)state;
    assert_string_equal(redis_text(server, "SET", "k", "v", NULL), "OK");
    assert_string_equal(redis_text(server, "GET", "k", NULL), "v");
    assert_string_equal(redis_text(server, "GET", "absent", NULL), "(nil)");
    assert_string_equal(redis_text(server, "MGET", "k", "absent", NULL), "v\n(nil)");
    assert_int_equal(redis_integer(server, "STRLEN", "k", NULL), 1);
    assert_int_equal(stat(server->folder, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0700);
}

/* Commands are counted by name. */
static void calls_are_counted(void **state)
{
    (void)state;
    redis_text(server, "CONFIG", "RESETSTAT", NULL);
    assert_int_equal(redis_calls(server, "get"), 0);
    redis_text(server, "GET", "k", NULL);
    redis_text(server, "GET", "k", NULL);
    redis_integer(server, "CLIENT", "ID", NULL);
    assert_int_equal(redis_calls(server, "get"), 2);
    assert_int_equal(redis_calls(server, "client|id"), 1);
    assert_string_equal(redis_info(server, "server", "redis_mode"), "standalone");
    assert_string_equal(redis_info(server, "server", "redis"), "");
}

/* A killed server is gone, and comes back on its port, empty. */
static void killed_server_comes_back(void **state)
{
    redis_server *own = redis_server_start(NULL);
    redisContext *c;

    (void)state;
    redis_text(own, "SET", "k", "v", NULL);
    redis_server_kill(own);
    c = redisConnect("127.0.0.1", own->port);
    assert_int_not_equal(c->err, 0);
    redisFree(c);
    redis_server_restart(own);
    assert_string_equal(redis_text(own, "GET", "k", NULL), "(nil)");
    redis_server_free(own);
}

/* A server that writes what it does has it after a restart. */
static void written_data_survives(void **state)
{
    redis_server *own = redis_server_start(&(redis_options){.config = "appendonly yes\nappendfsync always\n"});

    (void)state;
    redis_text(own, "SET", "k", "v", NULL);
    redis_server_stop(own);
    redis_server_restart(own);
    assert_string_equal(redis_text(own, "GET", "k", NULL), "v");
    redis_server_free(own);
}

/* A frozen server accepts a connection and answers only after it has thawed. */
static void frozen_server_is_silent(void **state)
{
    redisContext *c;
    redisReply *reply;

    (void)state;
    redis_server_freeze(server);
    c = redisConnect("127.0.0.1", server->port);
    assert_int_equal(c->err, 0);
    redisSetTimeout(c, (struct timeval){0, 50000});
    reply = redisCommand(c, "PING");
    assert_null(reply);
    redisFree(c);
    redis_server_thaw(server);
    assert_string_equal(redis_text(server, "PING", NULL), "PONG");
}

/* A server with a password refuses whoever does not know it. */
static void password_is_needed(void **state)
{
    redis_server *own = redis_server_start(&(redis_options){.password = "a b#c"});
    redisContext *c = redisConnect("127.0.0.1", own->port);

    (void)state;
    expect(c, "NOAUTH Authentication required.", "GET k");
    redisFree(c);
    assert_string_equal(redis_text(own, "PING", NULL), "PONG");
    redis_server_free(own);
}

/* The lines of an ACL file hold, and the plain client still gets in. */
static void acl_holds(void **state)
{
    redis_server *own = redis_server_start(&(redis_options){.acl = "user default off\nuser reader on >pw ~r:* +get\n"});
    redisContext *c = redisConnect("127.0.0.1", own->port);

    (void)state;
    expect(c, "NOAUTH Authentication required.", "GET r:1");
    expect(c, "OK", "AUTH reader pw");
    expect(c, "(nil)", "GET r:1");
    expect(c, "NOPERM this user has no permissions to access one of the keys used as arguments", "GET k");
    redisFree(c);
    assert_string_equal(redis_text(own, "SET", "k", "v", NULL), "OK");
    redis_server_free(own);
}

/* A server listens on a unix socket as well. */
static void unix_socket_answers(void **state)
{
    redis_server *own = redis_server_start(&(redis_options){.unix_socket = true});
    redisContext *c = redisConnectUnix(own->socket);

    (void)state;
    expect(c, "PONG", "PING");
    redisFree(c);
    redis_server_free(own);
}

/* A replica has its master's data when it is started, and gets what comes later. */
static void replica_follows(void **state)
{
    redis_server *master = redis_server_start(&(redis_options){.password = "secret"});
    redis_server *replica;

    (void)state;
    redis_text(master, "SET", "k", "v", NULL);
    replica = redis_server_start(&(redis_options){.password = "secret", .replica_of = master});
    assert_string_equal(redis_text(replica, "GET", "k", NULL), "v");
    assert_string_equal(redis_info(master, "replication", "connected_slaves"), "1");
    redis_server_free(replica);
    redis_server_free(master);
}

/* Run openssl s_client against a server with a certificate; what it verifies to is in the text. */
static void verification(const char *certificate, const char *authority, const char *host, char *out, size_t size)
{
    redis_server *own = redis_server_start(&(redis_options){.tls = certificate});
    char command[1024];
    FILE *pipe;

    snprintf(command, sizeof command,
             "openssl s_client -connect 127.0.0.1:%d -CAfile %s/%s.pem -verify_hostname %s </dev/null 2>&1 |"
             " sed -n 's/^Verification[^:]*: //p'",
             own->tls_port, server_certificates(), authority, host);
    pipe = popen(command, "r");
    assert_non_null(pipe);
    out[fread(out, 1, size - 1, pipe)] = '\0';
    pclose(pipe);
    redis_server_free(own);
}

/* The certificates are what their names say. */
static void certificates_are_what_they_say(void **state)
{
    char text[256];

    (void)state;
    verification("server", "ca", "localhost", text, sizeof text);
    assert_string_equal(text, "OK\n");
    verification("server", "wrong-ca", "localhost", text, sizeof text);
    assert_string_not_equal(text, "OK\n");
    verification("expired", "ca", "localhost", text, sizeof text);
    assert_non_null(strstr(text, "expired"));
    verification("other", "ca", "localhost", text, sizeof text);
    assert_non_null(strstr(text, "ostname mismatch"));
}

/* With TLS the plain port answers as well. */
static void tls_keeps_the_plain_port(void **state)
{
    redis_server *own = redis_server_start(&(redis_options){.tls = "server", .tls_client_certificate = true});

    (void)state;
    assert_true(own->tls_port > 0);
    assert_string_equal(redis_text(own, "PING", NULL), "PONG");
    redis_server_free(own);
}

/* A port that is reserved is given to nobody else, also while its server is dead. */
static void reserved_port_stays_ours(void **state)
{
    process_port port = process_port_new(), others[200];
    bool taken = false;

    (void)state;
    for (int i = 0; i < 200; i++) {
        others[i] = process_port_new();
        taken |= others[i].number == port.number;
    }
    for (int i = 0; i < 200; i++)
        process_port_free(&others[i]);
    process_port_free(&port);
    assert_false(taken);
}

/* ---- sentinels ---- */

/* Sentinels agree on the first node; a failover makes another one the master, and the old one follows it. */
static void sentinels_fail_over(void **state)
{
    redis_sentinels *group = redis_sentinels_start(NULL);
    redis_server *master = redis_sentinels_master(group), *next;

    (void)state;
    assert_ptr_equal(master, group->node[0]);
    next = redis_sentinels_failover(group);
    assert_ptr_not_equal(next, master);
    redis_sentinels_settle(group);
    assert_string_equal(redis_info(master, "replication", "role"), "slave");
    assert_string_equal(redis_text(next, "SET", "k", "v", NULL), "OK");
    redis_sentinels_free(group);
}

/* When the master is killed another node takes over; the old one becomes its replica when it comes back. With passwords. */
static void killed_master_is_replaced(void **state)
{
    redis_sentinels *group = redis_sentinels_start(&(redis_options){.password = "secret"});
    redis_server *old = redis_sentinels_master(group), *next;

    (void)state;
    redis_server_kill(old);
    next = redis_sentinels_wait(group, old);
    assert_string_equal(redis_text(next, "SET", "k", "v", NULL), "OK");
    redis_server_restart(old);
    redis_sentinels_settle(group);
    assert_string_equal(redis_text(old, "GET", "k", NULL), "v");
    redis_sentinels_free(group);
}

/* With TLS sentinels tell the TLS port of the master. */
static void sentinels_with_tls_tell_tls_ports(void **state)
{
    redis_sentinels *group = redis_sentinels_start(&(redis_options){.tls = "server"});
    char port[16];

    (void)state;
    snprintf(port, sizeof port, "%d", group->node[0]->tls_port);
    assert_non_null(strstr(redis_text(group->sentinel[1], "SENTINEL", "MASTER", "mymaster", NULL), port));
    assert_true(group->sentinel[1]->tls_port > 0);
    redis_sentinels_free(group);
}

/* ---- a cluster ---- */

/* Each third of the slots is served by its master, and others name it. */
static void cluster_serves_all_slots(void **state)
{
    redis_cluster *cluster = redis_cluster_start(false, NULL);
    int slot = redis_cluster_slot(cluster, "k");
    int owner = redis_cluster_owner(cluster, slot);
    char moved[64];
    redisReply *reply;

    (void)state;
    assert_int_equal(slot, 7629);
    assert_int_equal(owner, 1);
    assert_int_equal(redis_cluster_owner(cluster, 0), 0);
    assert_int_equal(redis_cluster_owner(cluster, 16383), 2);
    assert_string_equal(redis_text(cluster->node[1], "SET", "k", "v", NULL), "OK");
    snprintf(moved, sizeof moved, "MOVED 7629 127.0.0.1:%d", cluster->node[1]->port);
    reply = redis_command(cluster->node[0], "GET", "k", NULL);
    assert_string_equal(reply->str, moved);
    freeReplyObject(reply);
    redis_cluster_free(cluster);
}

/* In the middle of a move the old owner serves what it still has and answers ASK for the rest; then MOVED. */
static void slot_moves_step_by_step(void **state)
{
    redis_cluster *cluster = redis_cluster_start(false, &(redis_options){.password = "secret"});
    char ask[64], moved[64];
    redisReply *reply;

    (void)state;
    snprintf(ask, sizeof ask, "ASK 7629 127.0.0.1:%d", cluster->node[2]->port);
    snprintf(moved, sizeof moved, "MOVED 7629 127.0.0.1:%d", cluster->node[2]->port);
    redis_text(cluster->node[1], "SET", "k", "v", NULL);
    redis_cluster_move_begin(cluster, 7629, 1, 2);
    assert_string_equal(redis_text(cluster->node[1], "GET", "k", NULL), "v");
    redis_cluster_move_keys(cluster, 7629, 1, 2);
    reply = redis_command(cluster->node[1], "GET", "k", NULL);
    assert_string_equal(reply->str, ask);
    freeReplyObject(reply);
    redis_cluster_move_finish(cluster, 7629, 2);
    reply = redis_command(cluster->node[1], "GET", "k", NULL);
    assert_string_equal(reply->str, moved);
    freeReplyObject(reply);
    assert_string_equal(redis_text(cluster->node[2], "GET", "k", NULL), "v");
    assert_int_equal(redis_cluster_owner(cluster, 7629), 2);
    redis_cluster_free(cluster);
}

/* A replica takes over when it is told to, and another one when its master is killed. */
static void replicas_take_over(void **state)
{
    redis_cluster *cluster = redis_cluster_start(true, NULL);

    (void)state;
    redis_cluster_failover(cluster, 3);
    assert_int_equal(redis_cluster_owner(cluster, 0), 3);
    redis_server_kill(cluster->node[1]);
    redis_cluster_wait_master(cluster, 4);
    assert_int_equal(redis_cluster_owner(cluster, 7629), 4);
    redis_server_restart(cluster->node[1]);
    redis_cluster_settle(cluster);
    assert_string_equal(redis_info(cluster->node[1], "replication", "role"), "slave");
    redis_cluster_free(cluster);
}

/* With TLS, nodes talk TLS to each other, and move keys with it. */
static void cluster_with_tls_moves_keys(void **state)
{
    redis_cluster *cluster = redis_cluster_start(false, &(redis_options){.tls = "server"});

    (void)state;
    redis_text(cluster->node[1], "SET", "k", "v", NULL);
    redis_cluster_move_begin(cluster, 7629, 1, 2);
    redis_cluster_move_keys(cluster, 7629, 1, 2);
    redis_cluster_move_finish(cluster, 7629, 2);
    assert_string_equal(redis_text(cluster->node[2], "GET", "k", NULL), "v");
    redis_cluster_free(cluster);
}

/* ---- the proxy ---- */

/* Without faults everything passes, and is counted. */
static void proxy_passes_everything(void **state)
{
    redisContext *c = connect_to_proxy();

    (void)state;
    proxy_count_matching(proxy, "GET");
    expect(c, "OK", "SET k v");
    expect(c, "v", "GET k");
    redisAppendCommand(c, "GET k");
    redisAppendCommand(c, "ECHO two");
    send_all(c);
    expect_next(c, "v");
    expect_next(c, "two");
    assert_int_equal(proxy_count(proxy, PROXY_ACCEPTED), 1);
    assert_int_equal(proxy_count(proxy, PROXY_REQUESTS), 4);
    assert_int_equal(proxy_count(proxy, PROXY_FORWARDED), 4);
    assert_int_equal(proxy_count(proxy, PROXY_MATCHING), 2);
    assert_int_equal(proxy_count(proxy, PROXY_REPLIES), 4);
    redisFree(c);
    proxy_wait(proxy, PROXY_CLOSED, 1);
}

/* Values larger than any buffer pass in both directions. */
static void proxy_passes_large_values(void **state)
{
    const size_t size = 8u << 20;
    char *value = malloc(size);
    redisContext *c = connect_to_proxy();
    redisReply *reply;

    (void)state;
    memset(value, 'x', size);
    reply = redisCommand(c, "SET k %b", value, size);
    assert_string_equal(reply->str, "OK");
    freeReplyObject(reply);
    reply = redisCommand(c, "GET k");
    assert_int_equal(reply->len, size);
    assert_memory_equal(reply->str, value, size);
    freeReplyObject(reply);
    redisFree(c);
    free(value);
}

/* A dropped request was not carried out, those before it were, and are answered. */
static void dropped_request_is_not_carried_out(void **state)
{
    redisContext *c = connect_to_proxy();
    void *reply;

    (void)state;
    proxy_set(proxy, PROXY_DROP_REQUEST, .match = "two");
    redisAppendCommand(c, "SET one 1");
    redisAppendCommand(c, "SET two 2");
    redisAppendCommand(c, "SET three 3");
    send_all(c);
    expect_next(c, "OK");
    assert_int_equal(redisGetReply(c, &reply), REDIS_ERR);
    redisFree(c);
    proxy_wait(proxy, PROXY_CLOSED, 1);
    assert_string_equal(redis_text(server, "MGET", "one", "two", "three", NULL), "1\n(nil)\n(nil)");
    assert_int_equal(proxy_count(proxy, PROXY_FIRED), 1);
}

/* A request whose reply is dropped was carried out. */
static void dropped_reply_means_carried_out(void **state)
{
    redisContext *c = connect_to_proxy();

    (void)state;
    proxy_set(proxy, PROXY_DROP_REPLY);
    expect(c, NULL, "INCR k");
    redisFree(c);
    assert_string_equal(redis_text(server, "GET", "k", NULL), "1");
}

/* Faults hit the request that they were set for: the third that matches, then the fourth, and no more. */
static void faults_are_counted(void **state)
{
    redisContext *c = connect_to_proxy();

    (void)state;
    proxy_set(proxy, PROXY_DUPLICATE_REPLY, .match = "ECHO", .skip = 2, .times = 2);
    expect(c, "1", "ECHO 1");
    expect(c, "PONG", "PING");
    expect(c, "2", "ECHO 2");
    expect(c, "3", "ECHO 3");
    expect(c, "3", "ECHO 4");
    expect_next(c, "4");
    expect_next(c, "4");
    expect(c, "5", "ECHO 5");
    redisFree(c);
    assert_int_equal(proxy_count(proxy, PROXY_FIRED), 2);
}

/* Faults that were cleared do not happen. */
static void cleared_faults_do_not_happen(void **state)
{
    redisContext *c = connect_to_proxy();

    (void)state;
    proxy_set(proxy, PROXY_DROP_REQUEST, .times = PROXY_ALWAYS);
    proxy_clear(proxy);
    expect(c, "PONG", "PING");
    redisFree(c);
}

/* A truncated reply is as long as was said, after which the connection ends; the other reply of the pipeline is whole. */
static void truncated_reply_ends_early(void **state)
{
    redisContext *c = connect_to_proxy();
    char got[64] = "";
    size_t length = 0;
    ssize_t n;

    (void)state;
    proxy_set(proxy, PROXY_TRUNCATE_REPLY, .match = "hello", .bytes = 6);
    redisAppendCommand(c, "ECHO whole");
    redisAppendCommand(c, "ECHO hello");
    send_all(c);
    while ((n = read(c->fd, got + length, sizeof got - 1 - length)) > 0)
        length += (size_t)n;
    assert_int_equal(n, 0);
    assert_string_equal(got, "$5\r\nwhole\r\n$5\r\nhe");
    redisFree(c);
}

/* Held replies arrive, in order, after they were let go; their requests were carried out before. */
static void held_replies_arrive_late(void **state)
{
    redisContext *c = connect_to_proxy(), *other = connect_to_proxy();

    (void)state;
    proxy_set(proxy, PROXY_HOLD_REPLY, .match = "k");
    redisAppendCommand(c, "SET k v");
    redisAppendCommand(c, "ECHO second");
    send_all(c);
    proxy_wait(proxy, PROXY_HELD, 2);
    expect(other, "v", "GET k");
    proxy_let_go(proxy);
    expect_next(c, "OK");
    expect_next(c, "second");
    assert_int_equal(proxy_count(proxy, PROXY_HELD), 0);
    redisFree(c);
    redisFree(other);
}

/* Held requests are carried out, in order, when they are let go, and their client gets the answers. */
static void held_requests_are_carried_out_later(void **state)
{
    redisContext *c = connect_to_proxy();

    (void)state;
    proxy_set(proxy, PROXY_HOLD_REQUEST, .match = "SET");
    redisAppendCommand(c, "ECHO before");
    redisAppendCommand(c, "SET k v");
    redisAppendCommand(c, "ECHO after");
    send_all(c);
    expect_next(c, "before");
    proxy_wait(proxy, PROXY_HELD, 2);
    assert_string_equal(redis_text(server, "GET", "k", NULL), "(nil)");
    proxy_let_go(proxy);
    assert_string_equal(redis_text(server, "GET", "k", NULL), "v");
    expect_next(c, "OK");
    expect_next(c, "after");
    redisFree(c);
}

/* A request whose client has gone arrives when it is let go. */
static void late_request_arrives_without_its_client(void **state)
{
    redisContext *c = connect_to_proxy();

    (void)state;
    proxy_set(proxy, PROXY_HOLD_REQUEST);
    redisAppendCommand(c, "SET k late");
    send_all(c);
    proxy_wait(proxy, PROXY_HELD, 1);
    redisFree(c);
    proxy_wait(proxy, PROXY_ORPHANED, 1);
    assert_string_equal(redis_text(server, "GET", "k", NULL), "(nil)");
    proxy_let_go(proxy);
    assert_string_equal(redis_text(server, "GET", "k", NULL), "late");
    proxy_wait(proxy, PROXY_CLOSED, 1);
}

/* CLIENT KILL of the connection of a late request keeps it from arriving. */
static void late_request_is_lost_if_its_connection_is_killed(void **state)
{
    redisContext *c = connect_to_proxy();
    redisReply *reply = redisCommand(c, "CLIENT ID");
    char id[32];

    (void)state;
    snprintf(id, sizeof id, "%lld", reply->integer);
    freeReplyObject(reply);
    proxy_set(proxy, PROXY_HOLD_REQUEST);
    redisAppendCommand(c, "SET k late");
    send_all(c);
    proxy_wait(proxy, PROXY_HELD, 1);
    redisFree(c);
    proxy_wait(proxy, PROXY_ORPHANED, 1);
    assert_int_equal(redis_integer(server, "CLIENT", "KILL", "ID", id, NULL), 1);
    proxy_wait(proxy, PROXY_CLOSED, 1);
    proxy_let_go(proxy);
    assert_string_equal(redis_text(server, "GET", "k", NULL), "(nil)");
}

/* In a black hole connections are accepted and nothing is answered or carried out; later ones work again. */
static void black_hole_swallows(void **state)
{
    redisContext *before = connect_to_proxy(), *within, *after;
    redisContext *both[2];

    (void)state;
    expect(before, "PONG", "PING");
    proxy_black_hole(proxy, true);
    within = connect_to_proxy();
    both[0] = before, both[1] = within;
    for (int i = 0; i < 2; i++) {
        redisSetTimeout(both[i], (struct timeval){0, 50000});
        expect(both[i], NULL, "SET k v");
    }
    proxy_black_hole(proxy, false);
    after = connect_to_proxy();
    expect(after, "(nil)", "GET k");
    assert_string_equal(redis_text(server, "GET", "k", NULL), "(nil)");
    redisFree(before);
    redisFree(within);
    redisFree(after);
}

/* A refusing proxy lets no new connection in, and listens on the same port afterwards. */
static void refused_connections_fail(void **state)
{
    redisContext *before = connect_to_proxy(), *c;

    (void)state;
    expect(before, "PONG", "PING");
    proxy_refuse(proxy, true);
    c = redisConnect("127.0.0.1", proxy_port(proxy));
    assert_int_not_equal(c->err, 0);
    redisFree(c);
    expect(before, "PONG", "PING");
    proxy_refuse(proxy, false);
    c = connect_to_proxy();
    expect(c, "PONG", "PING");
    redisFree(c);
    redisFree(before);
}

/* A reset is seen as one by the client, a close as the end of the stream. */
static void reset_and_close_differ(void **state)
{
    redisContext *c = connect_to_proxy();
    char byte;

    (void)state;
    expect(c, "PONG", "PING");
    proxy_reset_all(proxy);
    assert_int_equal(read(c->fd, &byte, 1), -1);
    redisFree(c);
    c = connect_to_proxy();
    expect(c, "PONG", "PING");
    proxy_close_all(proxy);
    assert_int_equal(read(c->fd, &byte, 1), 0);
    redisFree(c);
}

/* A proxy that is given another server connects to that one from then on. */
static void retargeted_proxy_goes_elsewhere(void **state)
{
    redis_server *other = redis_server_start(NULL);
    redisContext *c = connect_to_proxy(), *later;

    (void)state;
    expect(c, "OK", "SET k first");
    redis_text(other, "SET", "k", "second", NULL);
    proxy_retarget(proxy, other->port);
    later = connect_to_proxy();
    expect(later, "second", "GET k");
    expect(c, "first", "GET k");
    redisFree(c);
    redisFree(later);
    redis_server_free(other);
}

/* Published messages pass beside the replies, and are no replies; one can be swallowed. */
static void messages_are_no_replies(void **state)
{
    redisContext *c = connect_to_proxy();
    void *got = NULL;
    redisReply *reply;

    (void)state;
    proxy_set(proxy, PROXY_DROP_MESSAGE, .match = "a"); /* the request to subscribe contains it as well */
    redisAppendCommand(c, "SUBSCRIBE a b");
    for (int i = 0; i < 2; i++) {
        assert_int_equal(redisGetReply(c, &got), REDIS_OK);
        freeReplyObject(got);
    }
    assert_int_equal(redis_integer(server, "PUBLISH", "a", "lost", NULL), 1);
    assert_int_equal(redis_integer(server, "PUBLISH", "b", "seen", NULL), 1);
    assert_int_equal(redisGetReply(c, &got), REDIS_OK);
    reply = got;
    assert_string_equal(reply->element[2]->str, "seen");
    freeReplyObject(reply);
    assert_int_equal(proxy_count(proxy, PROXY_MESSAGES), 2);
    assert_int_equal(proxy_count(proxy, PROXY_REPLIES), 2);
    redisFree(c);
}

/* A server that dies while it answers is seen as the end of the connection. */
static void dead_server_ends_the_connection(void **state)
{
    redis_server *own = redis_server_start(NULL);
    redisContext *c;

    (void)state;
    proxy_retarget(proxy, own->port);
    c = connect_to_proxy();
    expect(c, "PONG", "PING");
    redis_server_kill(own);
    expect(c, NULL, "PING");
    redisFree(c);
    redis_server_restart(own);
    c = connect_to_proxy();
    expect(c, "PONG", "PING");
    redisFree(c);
    redis_server_free(own);
}

#define proxy_test(f) cmocka_unit_test_setup_teardown(f, start_proxy, stop_proxy)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(server_answers),
        cmocka_unit_test(calls_are_counted),
        cmocka_unit_test(killed_server_comes_back),
        cmocka_unit_test(written_data_survives),
        cmocka_unit_test(frozen_server_is_silent),
        cmocka_unit_test(password_is_needed),
        cmocka_unit_test(acl_holds),
        cmocka_unit_test(unix_socket_answers),
        cmocka_unit_test(replica_follows),
        cmocka_unit_test(certificates_are_what_they_say),
        cmocka_unit_test(tls_keeps_the_plain_port),
        cmocka_unit_test(reserved_port_stays_ours),
        cmocka_unit_test(sentinels_fail_over),
        cmocka_unit_test(killed_master_is_replaced),
        cmocka_unit_test(sentinels_with_tls_tell_tls_ports),
        cmocka_unit_test(cluster_serves_all_slots),
        cmocka_unit_test(slot_moves_step_by_step),
        cmocka_unit_test(replicas_take_over),
        cmocka_unit_test(cluster_with_tls_moves_keys),
        proxy_test(proxy_passes_everything),
        proxy_test(proxy_passes_large_values),
        proxy_test(dropped_request_is_not_carried_out),
        proxy_test(dropped_reply_means_carried_out),
        proxy_test(faults_are_counted),
        proxy_test(cleared_faults_do_not_happen),
        proxy_test(truncated_reply_ends_early),
        proxy_test(held_replies_arrive_late),
        proxy_test(held_requests_are_carried_out_later),
        proxy_test(late_request_arrives_without_its_client),
        proxy_test(late_request_is_lost_if_its_connection_is_killed),
        proxy_test(black_hole_swallows),
        proxy_test(refused_connections_fail),
        proxy_test(reset_and_close_differ),
        proxy_test(retargeted_proxy_goes_elsewhere),
        proxy_test(messages_are_no_replies),
        proxy_test(dead_server_ends_the_connection),
    };

    return cmocka_run_group_tests_name("servers", tests, start, redis_teardown);
}
