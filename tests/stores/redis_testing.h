/*
 * redis_testing.h - what the tests of the Redis driver share beside driver_testing.h: addresses.
 */
#ifndef REDIS_TESTING_H
#define REDIS_TESTING_H

#include "driver_testing.h"
#include "fault_proxy.h"
#include "redis_servers.h"

#include <verrou/redis.h>

/* "redis://HOST:PORT" with what follows; valid until the fourth call after this one. */
const char *test_address(int port, const char *rest);

#endif
