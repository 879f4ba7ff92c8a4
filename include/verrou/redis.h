/*
 * redis.h - the Redis store, for applications that link libverrou-redis instead of letting libverrou find it at run time:
 *
 *     verrou_register_driver(verrou_redis_driver(), NULL);
 *     verrou_store_open("rediss://user:password@host/0", NULL, &store, NULL);
 */
#ifndef VERROU_REDIS_H
#define VERROU_REDIS_H

#include <verrou/store.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The driver of the schemes "redis", "rediss" and those with "+unix", "+sentinel" and "+cluster". Static; nothing to free. Any thread. */
VERROU_API const verrou_driver *verrou_redis_driver(void);

#ifdef __cplusplus
}
#endif
#endif
