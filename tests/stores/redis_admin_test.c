/*
 * redis_admin_test.c - listing and doctor of the Redis store, on servers of the test's own: what is a lock and what is not, what is left of a
 * lane after a listing broke off, and what is found out about a server.
 */
#include "redis_testing.h"

#define OURS "0123456789abcdef0123456789abcdef@host:17"
#define LONG_MS "600000"

static redis_server *server;
static verrou_store *store;
static char address[512];

/* ---- servers and stores ---- */

static int group_begin(void **state)
{
    verrou_error err = VERROU_ERROR_INIT;

    (void)state;
    server = redis_server_start(NULL);
    return verrou_register_driver(verrou_redis_driver(), &err);
}

static int begin(void **state)
{
    (void)state;
    redis_text(server, "FLUSHALL", NULL);
    return 0;
}

static int end(void **state)
{
    (void)state;
    verrou_store_close(store);
    store = NULL;
    return 0;
}

static void open_at(const char *url)
{
    verrou_error err = VERROU_ERROR_INIT;

    verrou_store_close(store);
    store = NULL;
    if (verrou_store_open(url, NULL, &store, &err) != VERROU_OK)
        fail_msg("%s", err.message);
}

static void open_server(const redis_server *at, const char *user, const char *settings)
{
    snprintf(address, sizeof address, "redis://%s127.0.0.1:%d%s", user, at->port, settings);
    open_at(address);
}

/* ---- listings as text ---- */

static char listed[65536];
static size_t listed_count;

static int write_down(void *user, const char *key, const verrou_info *info)
{
    (void)user, (void)info;
    listed_count++;
    if (strlen(listed) + strlen(key) + 2 < sizeof listed) {
        strcat(listed, key);
        strcat(listed, " ");
    }
    return 0;
}

static verrou_status list_try(const char *prefix, verrou_error *err)
{
    listed[0] = '\0';
    listed_count = 0;
    return verrou_store_list(store, prefix, NULL, write_down, NULL, err);
}

/* The keys, a space after each. */
static const char *list(const char *prefix)
{
    verrou_error err = VERROU_ERROR_INIT;

    if (list_try(prefix, &err) != VERROU_OK)
        fail_msg("%s", err.message);
    return listed;
}

/* ---- what is a lock ---- */

/* Without a prefix an owner is known by its looks: as we draw them, with an expiry or without; as the original does, with one. */
static void owners_are_known_by_their_looks(void **state)
{
    (void)state;
    open_server(server, "", "");
    redis_text(server, "SET", "ours", OURS, "PX", LONG_MS, NULL);
    redis_text(server, "SET", "ours for ever", OURS ":with a label", NULL);
    redis_text(server, "SET", "theirs", "k3j9x0w2qd1", "PX", LONG_MS, NULL);
    redis_text(server, "SET", "theirs, short", "k3j9x0w2", "PX", LONG_MS, NULL);
    assert_string_equal(list(NULL), "ours ours for ever theirs theirs, short ");
}

/* What other programs keep beside the locks is not listed: whoever reads the list may free what is in it. */
static void other_values_are_no_locks(void **state)
{
    static const char *const values[] = {
        "{\"user\":17}",
        "12345678901",
        "Capitals123",
        "pending",
        "seventeen17letters",
        "a word",
        "0123456789abcdef0123456789abcde@host:17",
        "0123456789abcdef0123456789abcdef@:17",
        "0123456789abcdef0123456789abcdef@host",
        "0123456789abcdef0123456789abcdef@host:",
        "0123456789abcdef0123456789abcdef@host:x",
        "0123456789abcdef0123456789abcdef@host:17x",
        "0123456789abcdef0123456789abcdef",
    };

    (void)state;
    open_server(server, "", "");
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        char key[32];

        snprintf(key, sizeof key, "value %zu", i);
        redis_text(server, "SET", key, values[i], "PX", LONG_MS, NULL);
    }
    redis_text(server, "SET", "for ever", "k3j9x0w2qd1", NULL);
    assert_string_equal(list(NULL), "");
}

/* With the setting `prefix` whatever could be an owner is one: all keys with the prefix are ours. */
static void under_a_prefix_any_owner_counts(void **state)
{
    (void)state;
    open_server(server, "", "?prefix=app:");
    redis_text(server, "SET", "app:a", "a worker", NULL);
    redis_text(server, "SET", "app:b", "Zo\xc3\xab", "PX", LONG_MS, NULL);
    redis_text(server, "SET", "other:c", OURS, NULL);
    assert_string_equal(list(NULL), "a b ");
}

/* Set a key to bytes that no command line of strings can carry. */
static void set_bytes(const char *key, size_t key_len, const char *value, size_t value_len)
{
    redisContext *c = redis_server_connect(server);
    redisReply *reply = redisCommand(c, "SET %b %b PX 600000", key, key_len, value, value_len);

    assert_non_null(reply);
    assert_int_equal(reply->type, REDIS_REPLY_STATUS);
    freeReplyObject(reply);
    redisFree(c);
}

/* What cannot be a lock is none under a prefix either: other types, the token counter, and impossible keys and owners. */
static void what_cannot_be_a_lock_is_not_listed(void **state)
{
    static char longer[VERROU_MAX_OWNER + 2];

    (void)state;
    open_server(server, "", "?prefix=p:");
    memset(longer, 'x', VERROU_MAX_OWNER + 1);
    memcpy(longer, "p:", 2);
    redis_text(server, "SET", "p:good", "owner", NULL);
    redis_text(server, "SET", "p:empty", "", NULL);
    redis_text(server, "SET", "p:long", longer, NULL);
    redis_text(server, "SET", "p:line", "two\nlines", NULL);
    redis_text(server, "SET", "p:c1", "next\xc2\x85line", NULL);
    redis_text(server, "SET", "p:utf-8", "Zo\xeb", NULL);
    redis_text(server, "SET", longer, "owner", NULL);
    redis_text(server, "SET", "p:\xff", "owner", NULL);
    set_bytes("p:nul", 5, "own\0er", 6);
    set_bytes("p:k\0y", 5, "owner", 5);
    redis_text(server, "HSET", "p:verrou:fence", "f", "17", NULL);
    redis_text(server, "RPUSH", "p:list", "owner", NULL);
    redis_text(server, "XADD", "p:stream", "*", "f", "v", NULL);
    assert_string_equal(list(NULL), "good ");
}

/* However many pages the server needs, and whatever is between them: every lock, once, in order. */
static void all_pages_are_listed(void **state)
{
    (void)state;
    open_server(server, "", "");
    redis_text(server, "EVAL",
               "for i = 1, 7000 do\n"
               " redis.call('SET', string.format('lock %05d', i), ARGV[1])\n"
               " redis.call('SET', 'page:' .. i, 'cached')\n"
               " redis.call('HSET', 'hash:' .. i, 'f', i)\n"
               "end",
               "0", OURS, NULL);
    assert_non_null(strstr(list("lock "), "lock 00001 lock 00002 lock 00003 "));
    assert_int_equal(listed_count, 7000);
    list(NULL);
    assert_int_equal(listed_count, 7000);
}

/* A user who may read some keys only sees their locks; the others are passed by. */
static void keys_out_of_reach_are_passed_by(void **state)
{
    redis_options options = {.acl = "user default on nopass ~* &* +@all\n"
                                    "user worker on >secret ~app:* &app:* +@all\n"};
    redis_server *guarded = redis_server_start(&options);

    (void)state;
    open_server(guarded, "worker:secret@", "");
    redis_text(guarded, "SET", "app:mine", OURS, NULL);
    redis_text(guarded, "SET", "other", OURS, NULL);
    assert_string_equal(list(NULL), "app:mine ");
    redis_server_free(guarded);
}

/* Without the right to list, or to ask about keys, there is an error that says so, and no empty list. */
static void listing_needs_its_rights(void **state)
{
    redis_options options = {.acl = "user default on nopass ~* &* +@all\n"
                                    "user a on >secret ~* &* +@all -scan\n"
                                    "user b on >secret ~* &* +@all -eval -evalsha\n"};
    redis_server *guarded = redis_server_start(&options);

    (void)state;
    redis_text(guarded, "SET", "lock", OURS, NULL);
    for (size_t i = 0; i < 2; i++) {
        verrou_error err = VERROU_ERROR_INIT;

        open_server(guarded, i == 0 ? "a:secret@" : "b:secret@", "");
        assert_int_equal(list_try(NULL, &err), VERROU_ESTORAGE);
        assert_int_equal(err.retriable, 0);
        assert_string_equal(err.store_code, "NOPERM");
    }
    redis_server_free(guarded);
}

/* ---- a listing that breaks off ---- */

/* The answer to the first SCAN, or to an inspection in the middle of a page, is lost: the same call goes on over a new connection. */
static void listing_is_repeated_on_a_new_connection(void **state)
{
    fault_proxy *proxy = proxy_start(server->port);

    (void)state;
    redis_text(server, "SET", "one", OURS, NULL);
    redis_text(server, "SET", "two", OURS, NULL);
    snprintf(address, sizeof address, "redis://127.0.0.1:%d?lanes=1", proxy_port(proxy));
    open_at(address);
    proxy_set(proxy, PROXY_DROP_REPLY, .match = "SCAN");
    assert_string_equal(list(NULL), "one two ");
    proxy_set(proxy, PROXY_DROP_REPLY, .match = "EVALSHA", .skip = 1);
    assert_string_equal(list(NULL), "one two ");
    assert_int_equal(proxy_count(proxy, PROXY_FIRED), 2);
    end(NULL);
    proxy_stop(proxy);
}

/* An answer to a listing that comes after its time limit is nobody's: neither the next listing nor a lock takes it for its own. */
static void late_answers_are_nobodys(void **state)
{
    fault_proxy *proxy = proxy_start(server->port);
    verrou_error err = VERROU_ERROR_INIT;
    verrou_info info = VERROU_INFO_INIT;

    (void)state;
    redis_text(server, "SET", "one", OURS, NULL);
    snprintf(address, sizeof address, "redis://127.0.0.1:%d?lanes=1&timeout=200ms", proxy_port(proxy));
    open_at(address);
    proxy_set(proxy, PROXY_HOLD_REPLY, .match = "SCAN");
    assert_int_equal(list_try(NULL, &err), VERROU_ESTORAGE);
    proxy_let_go(proxy);
    assert_int_equal(verrou_store_inspect(store, "one", NULL, &info, &err), VERROU_OK);
    assert_string_equal(info.owner, OURS);
    assert_string_equal(list(NULL), "one ");
    end(NULL);
    proxy_stop(proxy);
}

/* A lane whose connection a listing broke is used for nothing more: requests stay unsent, and the engine hears it. */
static void broken_lane_sends_nothing(void **state)
{
    fault_proxy *proxy = proxy_start(server->port);
    test_store broken = test_open(verrou_redis_driver(), test_address(proxy_port(proxy), NULL));
    verrou_op op = test_op(VERROU_OP_ACQUIRE, "k", "o", 1000);
    verrou_error err = VERROU_ERROR_INIT;
    long requests;

    (void)state;
    proxy_set(proxy, PROXY_DROP_REPLY, .match = "SCAN");
    assert_int_equal(test_find(&broken, TEST_LIST, "", PROCESS_PATIENCE_MS, NULL, &err), VERROU_ESTORAGE);
    assert_int_equal(err.retriable, 1);
    requests = proxy_count(proxy, PROXY_REQUESTS);
    assert_int_not_equal(test_execute(&broken, &op, 1, PROCESS_PATIENCE_MS, &err), VERROU_OK);
    assert_int_equal(op.result, VERROU_OP_UNSENT);
    assert_non_null(strstr(err.message, "closed the connection"));
    assert_int_equal(proxy_count(proxy, PROXY_REQUESTS), requests);
    test_close(&broken);
    proxy_stop(proxy);
}

/* ---- clusters ---- */

static redis_cluster *cluster;

static int cluster_begin(void **state)
{
    (void)state;
    cluster = redis_cluster_start(true, NULL);
    return 0;
}

static int cluster_end(void **state)
{
    end(state);
    redis_cluster_free(cluster);
    return 0;
}

static void open_cluster(void)
{
    snprintf(address, sizeof address, "redis+cluster://127.0.0.1:%d", cluster->node[0]->port);
    open_at(address);
}

/* Put a lock on the node of its key. Returns that node. */
static int cluster_set(const char *key)
{
    int node = redis_cluster_owner(cluster, redis_cluster_slot(cluster, key));

    redis_text(cluster->node[node], "SET", key, OURS, NULL);
    return node;
}

/*
 * The locks of all nodes are listed; also those of a slot that is on its way from one to another, that has moved, and those of a node
 * that another one has replaced since the connections were made.
 */
static void all_nodes_are_listed(void **state)
{
    const char *all = "a b c d e f ";
    int slot = redis_cluster_slot(cluster, "a");
    int from, to;

    (void)state;
    open_cluster();
    from = cluster_set("a");
    to = (from + 1) % REDIS_CLUSTER_MASTERS;
    for (const char *const *key = (const char *const[]){"b", "c", "d", "e", "f", NULL}; *key; key++)
        cluster_set(*key);
    assert_string_equal(list(NULL), all);
    redis_cluster_move_begin(cluster, slot, from, to);
    assert_string_equal(list(NULL), all);
    redis_cluster_move_keys(cluster, slot, from, to);
    assert_string_equal(list(NULL), all);
    redis_cluster_move_finish(cluster, slot, to);
    assert_string_equal(list(NULL), all);
    redis_cluster_failover(cluster, 3);
    assert_string_equal(list(NULL), all);
}

/* ---- doctor ---- */

static char found[16384];

static void note(void *user, verrou_level level, const char *subject, const char *text)
{
    const char *word = level >= VERROU_ERROR_LEVEL ? "FAIL" : level >= VERROU_WARN ? "warn" : "ok";
    size_t len = strlen(found);

    (void)user;
    snprintf(found + len, sizeof found - len, "%s %s: %s\n", word, subject, text);
}

static const char *doctor(void)
{
    verrou_error err = VERROU_ERROR_INIT;

    found[0] = '\0';
    if (verrou_store_check(store, NULL, note, NULL, &err) != VERROU_OK)
        fail_msg("%s", err.message);
    return found;
}

static void assert_found(const char *text)
{
    if (!strstr(found, text))
        fail_msg("\"%s\" is not in:\n%s", text, found);
}

static void assert_not_found(const char *text)
{
    if (strstr(found, text))
        fail_msg("\"%s\" is in:\n%s", text, found);
}

/* Nothing is wrong with a server that is set up for locks, and nothing is left on it but the counter. */
static void good_server_has_no_faults(void **state)
{
    redis_options options = {.config = "appendonly yes\nappendfsync always\nnotify-keyspace-events Kg\n",
                             .password = "secret"};
    redis_server *good = redis_server_start(&options);

    (void)state;
    open_server(good, ":secret@", "?prefix=app:");
    doctor();
    assert_not_found("FAIL");
    assert_not_found("warn");
    assert_not_found("secret");
    assert_found("ok redis: version ");
    assert_found("ok role: master, a single server\n");
    assert_found("ok memory: nothing is evicted\n");
    assert_found("ok persistence: each write is on disk");
    assert_found("ok replicas: none\n");
    assert_found("ok connections: not encrypted, within this machine\n");
    assert_found("ok latency: ");
    assert_found("ok clock: ");
    assert_found("ok keyspace events: on");
    assert_found("ok scripts: allowed\n");
    assert_found("ok late requests: cut off\n");
    assert_found("ok trial: ");
    assert_found("ok counter: the last token is kept in app:verrou:fence\n");
    assert_found("ok publishing: allowed\n");
    assert_found("ok subscribing: allowed\n");
    assert_int_equal(redis_integer(good, "DBSIZE", NULL), 1);
    assert_int_equal(redis_integer(good, "EXISTS", "app:verrou:fence", NULL), 1);
    end(NULL);
    redis_server_free(good);
}

/* Locks expire, so that every policy but one may drop them; without a limit none does. */
static void eviction_is_a_fault(void **state)
{
    (void)state;
    open_server(server, "", "");
    redis_text(server, "CONFIG", "SET", "maxmemory-policy", "volatile-lru", NULL);
    doctor();
    assert_found("ok memory: no limit, so that nothing is evicted, although maxmemory-policy is volatile-lru\n");
    redis_text(server, "CONFIG", "SET", "maxmemory", "1000000000", NULL);
    doctor();
    assert_found("FAIL memory: locks are dropped when more than 1000000000 bytes are in use");
    redis_text(server, "CONFIG", "SET", "maxmemory-policy", "noeviction", NULL);
    doctor();
    assert_found("ok memory: nothing is evicted; with more than 1000000000 bytes in use no lock is given\n");
    redis_text(server, "CONFIG", "SET", "maxmemory", "0", NULL);
}

/* What a restart forgets depends on what is written when. */
static void persistence_is_told(void **state)
{
    (void)state;
    open_server(server, "", "");
    redis_text(server, "CONFIG", "SET", "save", "", NULL);
    doctor();
    assert_found("warn persistence: no append-only file");
    redis_text(server, "CONFIG", "SET", "save", "3600 1", NULL);
    doctor();
    assert_found("warn persistence: snapshots only");
    redis_text(server, "CONFIG", "SET", "save", "", NULL);
    redis_text(server, "CONFIG", "SET", "appendonly", "yes", NULL);
    doctor();
    assert_found("ok persistence: append-only file, appendfsync everysec");
    redis_text(server, "CONFIG", "SET", "appendonly", "no", NULL);
}

/* With wait-replicas there have to be as many; without it a failover may forget. */
static void replicas_are_counted(void **state)
{
    redis_options options = {.replica_of = server};
    redis_server *replica = redis_server_start(&options);

    (void)state;
    /* A master takes a replica for connected when it has heard of it. */
    redis_text(server, "SET", "written", "before", NULL);
    assert_int_equal(redis_integer(server, "WAIT", "1", "0", NULL), 1);
    open_server(server, "", "");
    doctor();
    assert_found("ok replicas: 1 connected, none is waited for");
    open_server(server, "", "?wait-replicas=1");
    doctor();
    assert_found("ok replicas: 1 connected; 1 acknowledge a lock");
    assert_found("ok trial: ");
    open_server(server, "", "?wait-replicas=2&wait-timeout=1ms");
    doctor();
    assert_found("FAIL replicas: 1 connected, but wait-replicas=2: no lock can be acquired\n");
    assert_found("FAIL trial: a lock cannot be taken: ");
    open_server(replica, "", "");
    doctor();
    assert_found("FAIL role: replica");
    assert_found("FAIL trial: a lock cannot be taken: ");
    end(NULL);
    redis_server_free(replica);
}

/* Rights that are missing are found one by one, and none of them ends the examination. */
static void missing_rights_are_found(void **state)
{
    redis_options options = {.acl = "user default on nopass ~* &* +@all\n"
                                    "user info on >secret ~* &* +@all -info\n"
                                    "user eval on >secret ~* &* +@all -eval\n"
                                    "user load on >secret ~* &* +@all -script|load\n"
                                    "user kill on >secret ~* &* +@all -client|kill\n"
                                    "user hear on >secret ~* &* +@all -subscribe\n"
                                    "user tell on >secret ~* &x +@all\n"
                                    "user count on >secret ~verrou-doctor:* &* +@all\n"
                                    "user config on >secret ~* &* +@all -config\n"
                                    "user leave on >secret ~* &* +@all -unsubscribe\n"
                                    "user left on >secret ~* &* +@all -pttl\n"
                                    "user ping on >secret ~* &* +@all -ping\n"
                                    "user write on >secret ~* &* +@all -set\n"};
    static const char *const expected[][2] = {
        {"info",
         "warn redis: INFO is refused: version, role, eviction, persistence and replicas are not known (NOPERM)"},
        {"eval", "FAIL scripts: no right to EVAL: "},
        {"load", "ok scripts: allowed, but for SCRIPT LOAD"},
        {"kill", "warn late requests: not cut off, for lack of a right to CLIENT KILL"},
        {"hear", "warn subscribing: no right to it: waiters find out at intervals about releases (NOPERM)"},
        {"tell", "warn publishing: no right to it"},
        {"count", "warn counter: no right to verrou:fence: tokens are the server's clock"},
        {"config", "ok keyspace events: not used: CONFIG GET is refused"},
        {"leave", "warn subscribing: no right to UNSUBSCRIBE"},
        {"left", "FAIL trial: a lock cannot be looked at: "},
        {"ping", "warn errors: no right to PING"},
        {"write", "FAIL trial: a lock cannot be taken: "},
    };
    redis_server *guarded = redis_server_start(&options);
    verrou_info info = VERROU_INFO_INIT;

    (void)state;
    for (size_t i = 0; i < sizeof expected / sizeof expected[0]; i++) {
        char user[64];

        snprintf(user, sizeof user, "%s:secret@", expected[i][0]);
        open_server(guarded, user, "");
        doctor();
        assert_found(expected[i][1]);
        assert_found(" latency: ");
        assert_found(" trial: ");
        assert_not_found("secret");
        /* The connection is as good as before, or another one takes its place. */
        assert_int_equal(verrou_store_inspect(store, "verrou-doctor:free", NULL, &info, NULL), VERROU_OK);
    }
    end(NULL);
    redis_server_free(guarded);
}

/* Make the user of the guide's access list on a server, with these rights beside it. */
static void make_documented_user(const redis_server *at, const char *more)
{
    FILE *guide = fopen(VERROU_SOURCE "/docs/guide/redis.md", "r");
    redisContext *c = redis_server_connect(at);
    redisReply *reply;
    char line[1024] = "";

    assert_non_null(guide);
    while (fgets(line, sizeof line, guide) && strncmp(line, "ACL SETUSER ", 12) != 0)
        ;
    fclose(guide);
    line[strcspn(line, "\n")] = '\0';
    assert_true(strlen(line) + strlen(more) < sizeof line);
    strcat(line, more);
    reply = redisCommand(c, line); /* has no % */
    assert_non_null(reply);
    if (reply->type != REDIS_REPLY_STATUS)
        fail_msg("%s: %s", line, reply->str);
    freeReplyObject(reply);
    redisFree(c);
}

static void assert_nothing_refused(void)
{
    doctor();
    assert_not_found("FAIL");
    assert_not_found("no right");
    assert_not_found("lack of a right");
    assert_not_found("refused");
    assert_found("ok trial: ");
}

/* The access list that the guide gives, and its words for lists and doctor, are enough for all that the driver does. */
static void documented_rights_suffice(void **state)
{
    (void)state;
    make_documented_user(server, " +scan +config|get");
    open_server(server, "app:secret@", "?prefix=app:");
    assert_nothing_refused();
    redis_text(server, "SET", "app:lock", OURS, NULL);
    assert_string_equal(list(NULL), "lock ");
    redis_text(server, "ACL", "DELUSER", "app", NULL);
}

/* So are those for a cluster there. */
static void documented_rights_suffice_in_a_cluster(void **state)
{
    (void)state;
    for (int i = 0; i < cluster->count; i++)
        make_documented_user(cluster->node[i], " +scan +config|get +cluster|nodes +cluster|info +asking +spublish "
                                               "+ssubscribe +sunsubscribe");
    snprintf(address, sizeof address, "redis+cluster://app:secret@127.0.0.1:%d?prefix=app:", cluster->node[0]->port);
    open_at(address);
    assert_nothing_refused();
    assert_string_equal(list(NULL), "");
}

/* A lost connection is a failure, not a finding; the next examination has another one. */
static void lost_connection_ends_the_examination(void **state)
{
    fault_proxy *proxy = proxy_start(server->port);

    (void)state;
    snprintf(address, sizeof address, "redis://127.0.0.1:%d?lanes=1", proxy_port(proxy));
    open_at(address);
    proxy_set(proxy, PROXY_DROP_REPLY, .match = "PING", .skip = 3);
    doctor();
    assert_int_equal(proxy_count(proxy, PROXY_FIRED), 1);
    assert_int_equal(proxy_count(proxy, PROXY_ACCEPTED), 2);
    assert_found(" latency: ");
    end(NULL);
    proxy_stop(proxy);
}

static int occurrences(const char *part)
{
    int count = 0;

    for (const char *at = strstr(found, part); at; at = strstr(at + 1, part))
        count++;
    return count;
}

/* What holds for all nodes is said once, what holds for one is said with its name. */
static void nodes_are_examined(void **state)
{
    char node[64];

    (void)state;
    open_cluster();
    redis_text(cluster->node[1], "CONFIG", "SET", "maxmemory-policy", "allkeys-lru", NULL);
    redis_text(cluster->node[1], "CONFIG", "SET", "maxmemory", "1000000000", NULL);
    doctor();
    assert_int_equal(occurrences(" cluster: "), 1);
    assert_found("ok cluster: all slots are served\n");
    assert_found("ok role: master, one of 3 in a cluster\n");
    assert_int_equal(occurrences(" trial: "), 1);
    assert_found("ok trial: a lock was taken");
    assert_found("ok publishing: allowed\n");
    assert_found("ok subscribing: allowed\n");
    snprintf(node, sizeof node, "FAIL memory: 127.0.0.1:%d: locks are dropped", cluster->node[1]->port);
    assert_found(node);
    snprintf(node, sizeof node, "ok memory: 127.0.0.1:%d: nothing is evicted\n", cluster->node[0]->port);
    assert_found(node);
    redis_text(cluster->node[1], "CONFIG", "SET", "maxmemory", "0", NULL);
    redis_text(cluster->node[1], "CONFIG", "SET", "maxmemory-policy", "noeviction", NULL);
}

/* A node of a cluster that is taken for a server of its own is no place for locks. */
static void address_of_a_node_is_a_fault(void **state)
{
    (void)state;
    open_server(cluster->node[0], "", "");
    doctor();
    assert_found("FAIL role: node of a cluster: the address has to begin with redis+cluster:");
}

/* A master that is gone is named, or the store cannot be reached. */
static void missing_node_is_found(void **state)
{
    verrou_error err = VERROU_ERROR_INIT;
    char node[64];

    (void)state;
    open_cluster();
    doctor();
    for (int i = 0; i < cluster->count; i++)
        redis_text(cluster->node[i], "CONFIG", "SET", "cluster-node-timeout", "600000", NULL);
    redis_server_kill(cluster->node[2]);
    end(NULL);
    open_cluster();
    doctor();
    snprintf(node, sizeof node, "FAIL nodes: there is no connection to the node 127.0.0.1:%d", cluster->node[2]->port);
    assert_found(node);
    assert_int_equal(list_try(NULL, &err), VERROU_ESTORAGE);
    assert_string_equal(err.store_code, "CLUSTERDOWN");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(owners_are_known_by_their_looks),
        TEST(other_values_are_no_locks),
        TEST(under_a_prefix_any_owner_counts),
        TEST(what_cannot_be_a_lock_is_not_listed),
        TEST(all_pages_are_listed),
        TEST(keys_out_of_reach_are_passed_by),
        TEST(listing_needs_its_rights),
        TEST(listing_is_repeated_on_a_new_connection),
        TEST(late_answers_are_nobodys),
        TEST(broken_lane_sends_nothing),
        TEST(good_server_has_no_faults),
        TEST(eviction_is_a_fault),
        TEST(persistence_is_told),
        TEST(replicas_are_counted),
        TEST(missing_rights_are_found),
        TEST(documented_rights_suffice),
        TEST(lost_connection_ends_the_examination),
    };
    const struct CMUnitTest cluster_tests[] = {
        cmocka_unit_test_teardown(nodes_are_examined, end),
        cmocka_unit_test_teardown(address_of_a_node_is_a_fault, end),
        cmocka_unit_test_teardown(documented_rights_suffice_in_a_cluster, end),
        cmocka_unit_test_teardown(all_nodes_are_listed, end),
        cmocka_unit_test_teardown(missing_node_is_found, end),
    };
    int failed = cmocka_run_group_tests_name("redis", tests, group_begin, redis_teardown);

    return failed + cmocka_run_group_tests_name("cluster", cluster_tests, cluster_begin, cluster_end);
}
