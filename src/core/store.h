/*
 * store.h (internal) - what lock.c needs of a store.
 */
#ifndef VERROU_CORE_STORE_H
#define VERROU_CORE_STORE_H

#include "core/core.h"
#include "engine/engine.h"

void verrou__store_ref(verrou_store *store);
void verrou__store_unref(verrou_store *store);

/* The engine, made anew after a fork. VERROU_ENOMEM, VERROU_ECLOSED. */
verrou_status verrou__store_engine(verrou_store *store, verrou__engine **ret_engine, verrou_error *err);
/* The engine if this process has one, NULL otherwise: for what only makes sense in the process that began it. */
verrou__engine *verrou__store_engine_here(verrou_store *store);

const char *verrou__store_prefix(const verrou_store *store, size_t *ret_len);
int64_t verrou__store_limit_ms(const verrou_store *store);

/* A deadline as the caller gave it, brought into the clock's range. */
int64_t verrou__deadline(int64_t deadline_ms);

/* Fill in start and deadline of a call from options that may be NULL. VERROU_EINVAL. */
verrou_status verrou__call_options(verrou_store *store, const verrou_call_options *options, verrou_call_options *ret,
                                   verrou_error *err);
void verrou__call_set_times(verrou__call *call, const verrou_call_options *options);

/* A call about a key that has been checked and includes the prefix; the key is copied. */
verrou_status verrou__store_key_call(verrou_store *store, verrou__call_kind kind, const char *full_key, size_t len,
                                     const verrou_call_options *options, verrou__call **ret_call, verrou_error *err);
/* Check `key` and tell its length with the prefix; then write both, and a NUL, to `out`. */
verrou_status verrou__store_check_key(const verrou_store *store, const char *key, size_t *ret_len, verrou_error *err);
size_t verrou__store_max_key(const verrou_store *store);
void verrou__store_write_key(const verrou_store *store, const char *key, char *out);

/* Take, extend and release a lock of a key that nobody uses, and put into the sink what came of it: trial.c. False when out of memory. */
bool verrou__trial(verrou_store *store, const verrou_call_options *options, struct verrou_sink *sink);

#endif
