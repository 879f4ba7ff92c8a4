/*
 * bare_redis.c - see bare_redis.h. A file of its own, because what it sees of the driver has names in common with the tests' servers.
 */
#include "bare_redis.h"

#include "bench.h"
#include "stores/redis/redis_store.h"

#define OWNER "0123456789abcdef0123456789abcdef@localhost:12345" /* as long as one that is drawn */
#define MAX_WORDS 8

void bare_redis_expect(const struct bare_redis *bare, void *answer, int type)
{
    const redisReply *reply = answer;

    if (!reply)
        bench_die("hiredis", bare->connection->errstr);
    if (reply->type == REDIS_REPLY_ERROR)
        bench_die("hiredis", reply->str);
    if (reply->type != type)
        bench_die("hiredis", "a script did not do its work");
    freeReplyObject(answer);
}

void bare_redis_open(struct bare_redis *bare, int port)
{
    bare->connection = redisConnect("127.0.0.1", port);
    if (!bare->connection || bare->connection->err)
        bench_die("hiredis", bare->connection ? bare->connection->errstr : "out of memory");
    for (int i = 0; i < SCRIPT_COUNT; i++)
        bare_redis_expect(bare,
                          redisCommand(bare->connection, "SCRIPT LOAD %s", verrou__redis_script_text((redis_script)i)),
                          REDIS_REPLY_STRING);
}

void bare_redis_close(struct bare_redis *bare)
{
    redisFree(bare->connection);
}

/* The words of a request, with a number if it is the last of its batch, as the store does it. Returns how many. */
static int bare_words(enum bare_script script, const char *key, bool numbered, const char *words[MAX_WORDS])
{
    bool acquire = script == BARE_ACQUIRE;
    int n = 0;

    words[n++] = "EVALSHA";
    words[n++] = verrou__redis_script_sha(acquire ? SCRIPT_ACQUIRE : SCRIPT_RELEASE);
    words[n++] = acquire ? "2" : "1";
    words[n++] = key;
    if (acquire)
        words[n++] = "verrou:fence";
    words[n++] = OWNER;
    words[n++] = acquire ? "30000" : "PUBLISH";
    if (!acquire)
        words[n++] = "0123456789abcdef"; /* who publishes */
    if (numbered)
        words[n++] = "12345";
    return n;
}

static void bare_call(const struct bare_redis *bare, enum bare_script script, const char *key)
{
    const char *words[MAX_WORDS];
    int n = bare_words(script, key, true, words);

    bare_redis_expect(bare, redisCommandArgv(bare->connection, n, words, NULL), REDIS_REPLY_ARRAY);
}

void bare_redis_pair(const struct bare_redis *bare, const char *key)
{
    bare_call(bare, BARE_ACQUIRE, key);
    bare_call(bare, BARE_RELEASE, key);
}

void bare_redis_pipeline(const struct bare_redis *bare, enum bare_script script, char keys[][32], int n)
{
    for (int i = 0; i < n; i++) {
        const char *words[MAX_WORDS];
        int count = bare_words(script, keys[i], i == n - 1, words);

        redisAppendCommandArgv(bare->connection, count, words, NULL);
    }
    for (int i = 0; i < n; i++) {
        void *reply = NULL;

        redisGetReply(bare->connection, &reply);
        bare_redis_expect(bare, reply, i == n - 1 ? REDIS_REPLY_ARRAY : REDIS_REPLY_INTEGER);
    }
}
