/*
 * admin.c - listing the locks of a server, and saying whether the server is fit for locks.
 */
#include "redis_store.h"

verrou_status verrou__redis_list(void *state, void *lane, const char *prefix, size_t prefix_len, int64_t deadline_ms,
                                 verrou_sink *sink, verrou_error *err)
{
    (void)lane, (void)prefix, (void)prefix_len, (void)deadline_ms, (void)sink;
    return ((redis_state *)state)->host->fail(err, VERROU_ENOTSUP, 0, NULL, "not yet");
}

verrou_status verrou__redis_check(void *state, void *lane, int64_t deadline_ms, verrou_sink *sink, verrou_error *err)
{
    (void)lane, (void)deadline_ms, (void)sink;
    return ((redis_state *)state)->host->fail(err, VERROU_ENOTSUP, 0, NULL, "not yet");
}
