/*
 * bare_redis.h - the reference for Redis: hiredis alone, with the store's own scripts, on a blocking connection. One command after the
 * other, or many at once.
 */
#ifndef VERROU_BENCH_BARE_REDIS_H
#define VERROU_BENCH_BARE_REDIS_H

#include <hiredis/hiredis.h>

struct bare_redis {
    redisContext *connection;
};

enum bare_script { BARE_ACQUIRE, BARE_RELEASE };

/* To a server on the loopback interface; the scripts are loaded. */
void bare_redis_open(struct bare_redis *bare, int port);
void bare_redis_close(struct bare_redis *bare);
/* Free a reply that has to be of this type. */
void bare_redis_expect(const struct bare_redis *bare, void *reply, int type);
/* Acquire and release a key, a call each. */
void bare_redis_pair(const struct bare_redis *bare, const char *key);
/* Acquire or release several keys: all commands are written before the first answer is read. */
void bare_redis_pipeline(const struct bare_redis *bare, enum bare_script script, char keys[][32], int n);

#endif
