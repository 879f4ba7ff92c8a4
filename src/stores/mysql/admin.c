/*
 * admin.c - list, check (doctor) and schema. None of it is on the path of a lock.
 */
#include "mysql_store.h"
verrou_status verrou__mysql_list(void *state, void *lane, const char *prefix, size_t prefix_len, int64_t deadline_ms,
                                 verrou_sink *sink, verrou_error *err)
{
    (void)state, (void)lane, (void)prefix, (void)prefix_len, (void)deadline_ms, (void)sink, (void)err;
    return VERROU_OK;
}
verrou_status verrou__mysql_check(void *state, void *lane, int64_t deadline_ms, verrou_sink *sink, verrou_error *err)
{
    (void)state, (void)lane, (void)deadline_ms, (void)sink, (void)err;
    return VERROU_OK;
}
verrou_status verrou__mysql_schema(void *state, void *lane, int apply, int64_t deadline_ms, verrou_sink *sink,
                                   verrou_error *err)
{
    (void)state, (void)lane, (void)apply, (void)deadline_ms, (void)sink, (void)err;
    return VERROU_OK;
}
