/*
 * check.c - whether a server is fit for locks, for `verrou doctor`.
 */
#include "redis_store.h"

verrou_status verrou__redis_check(void *state, void *lane, int64_t deadline_ms, verrou_sink *sink, verrou_error *err)
{
    (void)lane, (void)deadline_ms, (void)sink;
    return ((redis_state *)state)->host->fail(err, VERROU_ENOTSUP, 0, NULL, "not yet");
}
