/*
 * lock_store.c - a store made of five calls. They block and are made by one thread at a time: one lane, whose batch is
 * a loop. The five calls cannot tell who holds a key, how long, or with which token; waiters poll.
 */
#include "stores/custom/custom.h"

struct lock_store {
    const verrou_lock_store *table;
    void *user;
};

static uint32_t lock_store_caps(void *state)
{
    (void)state;
    return 0;
}

static verrou_status lock_store_open(void *state, int64_t deadline_ms, void **ret_lane, verrou_error *err)
{
    (void)deadline_ms;
    (void)err;
    *ret_lane = state;
    return VERROU_OK;
}

static void lock_store_close(void *state, void *lane)
{
    (void)state;
    (void)lane;
}

static void lock_store_destroy(void *state)
{
    struct lock_store *store = state;

    if (store->table->close)
        store->table->close(store->user);
    verrou__free(store);
}

/* What a call that changes something says: VERROU_OK, `refusal`, or a failure. */
static void settle(verrou_op *op, const char *call, verrou_status status, verrou_status refusal,
                   const verrou_error *err)
{
    if (status == VERROU_OK)
        op->result = VERROU_OP_APPLIED;
    else if (status == refusal)
        op->result = VERROU_OP_REFUSED;
    else
        verrou__custom_failed(op, call, false, status, err);
}

static void acquire(const struct lock_store *store, verrou_op *op, verrou_error *err)
{
    verrou_status status = store->table->save(store->user, op->key, op->owner, op->ttl_ms, err);

    op->fence = 0;
    settle(op, "save", status, VERROU_ENOTACQUIRED, err);
}

static void inspect(const struct lock_store *store, verrou_op *op, verrou_error *err)
{
    int exists = 0;
    verrou_status status = store->table->exists(store->user, op->key, &exists, err);

    if (status == VERROU_OK)
        op->result = exists ? VERROU_OP_APPLIED : VERROU_OP_REFUSED;
    else
        verrou__custom_failed(op, "exists", true, status, err);
}

static void answer(const struct lock_store *store, verrou_op *op)
{
    const verrou_lock_store *table = store->table;
    verrou_error err = VERROU_ERROR_INIT;

    switch (op->kind) {
    case VERROU_OP_ACQUIRE:
        acquire(store, op, &err);
        break;
    case VERROU_OP_RELEASE:
        settle(op, "remove", table->remove(store->user, op->key, op->owner, &err), VERROU_ENOTOWNED, &err);
        break;
    case VERROU_OP_EXTEND:
        settle(op, "extend", table->extend(store->user, op->key, op->owner, op->ttl_ms, &err), VERROU_ENOTOWNED, &err);
        break;
    case VERROU_OP_FORCE:
        settle(op, "force_remove", table->force_remove(store->user, op->key, &err), VERROU_OK, &err);
        break;
    case VERROU_OP_INSPECT:
        inspect(store, op, &err);
        break;
    }
}

static verrou_status lock_store_execute(void *state, void *lane, verrou_op *const *ops, size_t n, int64_t deadline_ms,
                                        verrou_error *err)
{
    (void)lane;
    (void)err;
    for (size_t at = 0; at < n; at++) {
        /* Past the deadline the rest stays unsent: better than blocking callers who have gone. */
        if (at > 0 && verrou_now_ms() >= deadline_ms)
            break;
        answer(state, ops[at]);
    }
    return VERROU_OK;
}

static const char *const no_names[] = {NULL};

static const verrou_driver lock_store_driver = {
    .version = VERROU_STORE_VERSION,
    .schemes = no_names,
    .settings = no_names,
    .default_lanes = 1,
    .max_lanes = 1,
    .destroy = lock_store_destroy,
    .caps = lock_store_caps,
    .open = lock_store_open,
    .close = lock_store_close,
    .execute = lock_store_execute,
};

verrou_status verrou_store_from_lock_store(const verrou_lock_store *table, void *user, const char *settings,
                                           const verrou_store_options *options, verrou_store **ret_store,
                                           verrou_error *err)
{
    struct lock_store *state = NULL;
    char *url = NULL;
    verrou_status status;

    if (!table || !ret_store)
        return verrou__fail(err, VERROU_EINVAL, "lock store: no table, or nowhere to put the store");
    const verrou__custom_call calls[] = {
        VERROU__CUSTOM_CALL(table, save),         VERROU__CUSTOM_CALL(table, remove),
        VERROU__CUSTOM_CALL(table, force_remove), VERROU__CUSTOM_CALL(table, exists),
        VERROU__CUSTOM_CALL(table, extend),
    };
    status = verrou__custom_check("lock store", table->version, calls, sizeof calls / sizeof calls[0], err);
    if (status != VERROU_OK)
        return status;

    status = verrou__custom_address(settings, &url, err);
    if (status != VERROU_OK)
        goto done;

    state = verrou__calloc(sizeof *state);
    if (!state) {
        status = verrou__nomem(err);
        goto done;
    }
    state->table = table;
    state->user = user;

    status = verrou__store_open_driver(&lock_store_driver, url, options, state, ret_store, err);
    if (status == VERROU_OK)
        state = NULL; /* the store's now */
done:
    verrou__free(state);
    verrou__free(url);
    return status;
}
