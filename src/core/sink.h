/*
 * sink.h - where drivers put what they find: live locks (list), findings (check) and text (schema). Filled by one thread, read after
 * the call was answered.
 */
#ifndef VERROU_SINK_H
#define VERROU_SINK_H

#include "core/core.h"

struct verrou_sink *
verrou__sink_new(size_t prefix_len); /* NULL when out of memory; prefix_len bytes are cut from keys */
void verrou__sink_free(struct verrou_sink *sink);
void verrou__sink_reset(struct verrou_sink *sink); /* before a request is repeated */

/* The three functions of the host table. */
int verrou__sink_list_add(struct verrou_sink *sink, const char *key, size_t key_len, const char *owner,
                          size_t owner_len, int64_t remaining_ms, uint64_t fence);
int verrou__sink_finding(struct verrou_sink *sink, verrou_level level, const char *subject, const char *format, ...)
    VERROU_PRINTF(4, 5);
int verrou__sink_text_add(struct verrou_sink *sink, const char *format, ...) VERROU_PRINTF(2, 3);

/* What was found. The locks are sorted by key, each of them once: a server may tell a key twice while it is being listed. */
const verrou_listed *verrou__sink_locks(struct verrou_sink *sink, size_t *ret_count);
bool verrou__sink_has_finding(const struct verrou_sink *sink, const char *subject);
void verrou__sink_each_finding(struct verrou_sink *sink, verrou_check_fn each, void *user);
char *verrou__sink_take_text(struct verrou_sink *sink); /* "" if there is none; NULL when out of memory */

#endif
