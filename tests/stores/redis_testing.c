/*
 * redis_testing.c - see redis_testing.h.
 */
#include "redis_testing.h"

#include "core/core.h"
#include "core/host.h"

test_answer test_last;
char test_event[64];

static void log_event(void *context, verrou_level level, const char *event, const char *key, const char *message)
{
    (void)context, (void)level, (void)key, (void)message;
    snprintf(test_event, sizeof test_event, "%s", event);
}

const char *test_address(int port, const char *rest)
{
    static _Thread_local char texts[4][512];
    static _Thread_local unsigned next;
    char *text = texts[next++ % 4];

    snprintf(text, sizeof texts[0], "redis://127.0.0.1:%d%s", port, rest ? rest : "");
    return text;
}

verrou_status test_create(test_store *store, const char *address, verrou_error *err)
{
    return test_create_connect(store, address, NULL, err);
}

verrou_status test_create_connect(test_store *store, const char *address, verrou_connect_fn connect, verrou_error *err)
{
    static verrou_host host;
    verrou_url *url = NULL;
    verrou_status status = verrou__url_parse_network(address, &url, err);

    host = verrou__host;
    host.log = log_event;
    test_event[0] = '\0';
    *store = (test_store){.driver = verrou_redis_driver()};
    if (status != VERROU_OK)
        return status;
    url->connect = connect;
    status = store->driver->create(&host, NULL, url, &store->state, err);
    verrou__free(url);
    return status;
}

verrou_status test_open_lane(test_store *store, verrou_error *err)
{
    return store->driver->open(store->state, verrou_now_ms() + 5000, &store->lane, err);
}

test_store test_open(const char *address)
{
    test_store store;
    verrou_error err = VERROU_ERROR_INIT;

    if (test_create(&store, address, &err) != VERROU_OK || test_open_lane(&store, &err) != VERROU_OK)
        fail_msg("cannot open: %s", err.message);
    return store;
}

void test_close(test_store *store)
{
    if (store->lane)
        store->driver->close(store->state, store->lane);
    if (store->state)
        store->driver->destroy(store->state);
    store->lane = store->state = NULL;
}

verrou_op test_op(verrou_op_kind kind, const char *key, const char *owner, int64_t ttl_ms)
{
    return (verrou_op){
        .kind = kind,
        .key = key,
        .key_len = (uint16_t)strlen(key),
        .owner = owner,
        .owner_len = owner ? (uint16_t)strlen(owner) : 0,
        .ttl_ms = ttl_ms,
        .sent_ms = verrou_now_ms(),
        .others = -1,
        .remaining_ms = -1,
    };
}

void test_op_done(verrou_op *op)
{
    verrou__free(op->holder);
    verrou__free(op->error);
    op->holder = NULL;
    op->error = NULL;
}

verrou_status test_execute(test_store *store, verrou_op *ops, size_t n, int64_t limit_ms, verrou_error *err)
{
    verrou_op *list[1024];

    for (size_t i = 0; i < n; i++)
        list[i] = &ops[i];
    return store->driver->execute(store->state, store->lane, list, n, verrou_now_ms() + limit_ms, err);
}

verrou_op_result test_run(test_store *store, verrou_op_kind kind, const char *key, const char *owner, int64_t ttl_ms)
{
    verrou_op op = test_op(kind, key, owner, ttl_ms);

    test_last = (test_answer){.lane = test_execute(store, &op, 1, 5000, NULL), .retriable = -1};
    test_last.result = op.result;
    if (op.error) {
        test_last.retriable = op.error->retriable;
        snprintf(test_last.code, sizeof test_last.code, "%s", op.error->store_code);
        snprintf(test_last.text, sizeof test_last.text, "%s", op.error->message);
    }
    snprintf(test_last.holder, sizeof test_last.holder, "%s", op.holder ? op.holder : "");
    test_last.holder_is_owner = op.holder_is_owner;
    test_last.remaining_ms = op.remaining_ms;
    test_last.fence = op.fence;
    test_last.others = op.others;
    test_op_done(&op);
    return test_last.result;
}

verrou_op_result test_acquire(test_store *store, const char *key, const char *owner)
{
    return test_run(store, VERROU_OP_ACQUIRE, key, owner, 30000);
}

verrou_op_result test_release(test_store *store, const char *key, const char *owner)
{
    return test_run(store, VERROU_OP_RELEASE, key, owner, 0);
}
