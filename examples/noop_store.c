/*
 * noop_store.c - the smallest store of one's own: five calls that say yes. It shows what the calls look like; it locks
 * nothing. file_store.c is one that does.
 */
#include "noop_store.h"

static verrou_status noop_save(void *user, const char *key, const char *owner, int64_t ttl_ms, verrou_error *err)
{
    (void)user, (void)key, (void)owner, (void)ttl_ms, (void)err;
    return VERROU_OK;
}

static verrou_status noop_remove(void *user, const char *key, const char *owner, verrou_error *err)
{
    (void)user, (void)key, (void)owner, (void)err;
    return VERROU_OK;
}

static verrou_status noop_force_remove(void *user, const char *key, verrou_error *err)
{
    (void)user, (void)key, (void)err;
    return VERROU_OK;
}

static verrou_status noop_exists(void *user, const char *key, int *ret_exists, verrou_error *err)
{
    (void)user, (void)key, (void)err;
    *ret_exists = 0;
    return VERROU_OK;
}

static verrou_status noop_extend(void *user, const char *key, const char *owner, int64_t ttl_ms, verrou_error *err)
{
    (void)user, (void)key, (void)owner, (void)ttl_ms, (void)err;
    return VERROU_OK;
}

static const verrou_lock_store noop_store = {
    .version = VERROU_STORE_VERSION,
    .save = noop_save,
    .remove = noop_remove,
    .force_remove = noop_force_remove,
    .exists = noop_exists,
    .extend = noop_extend,
};

verrou_status noop_store_open(verrou_store **ret_store, verrou_error *err)
{
    return verrou_store_from_lock_store(&noop_store, NULL, NULL, NULL, ret_store, err);
}
