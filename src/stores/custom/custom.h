/*
 * custom.h - what the adapters for stores of the caller's own share. They are drivers without create(): their state is
 * made before the store is opened, so they have no host table and use the core's toolbox in its place.
 */
#ifndef VERROU_CUSTOM_H
#define VERROU_CUSTOM_H

#include "core/host.h"
#include "core/registry.h"

/* One call of the caller's, for messages. */
#define VERROU__CUSTOM_CALL(table, call) \
    {                                    \
#call, (table)->call != NULL     \
    }
typedef struct verrou__custom_call {
    const char *name;
    bool given;
} verrou__custom_call;

/* Refuse a table of another version, or without one of its calls: VERROU_EINVAL names it. */
verrou_status verrou__custom_check(const char *what, uint32_t version, const verrou__custom_call *calls, size_t count,
                                   verrou_error *err);

/* The address that carries the settings (NULL: none). Free with verrou__free(). */
verrou_status verrou__custom_address(const char *settings, char **ret_url, verrou_error *err);

/*
 * Set the result of a request after `call` has failed with `status`: VERROU_ESTORAGE is RETRY or FAILED,
 * VERROU_EUNKNOWN is UNKNOWN, or RETRY if the call only reads. A status that the call may not return is FAILED and
 * named.
 */
void verrou__custom_failed(verrou_op *op, const char *call, bool reads, verrou_status status, const verrou_error *err);
#endif
