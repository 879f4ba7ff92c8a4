/*
 * odd.c - a store for answers that a healthy one does not give. `odd:KIND`, found at run time like any store:
 *   lost      the answer to every acquisition gets lost
 *   brittle   everything works but the release
 *   held      every lock is held by somebody who wrote control characters into the owner; nothing more is known
 *   sick      a check finds something wrong
 * It cannot list, and has no schema.
 */
#include <string.h>
#include <verrou/store.h>

typedef struct odd {
    const verrou_host *host;
    char kind[16];
} odd;

static int is(const odd *o, const char *kind)
{
    return !strcmp(o->kind, kind);
}

static verrou_status odd_create(const verrou_host *host, void *log_context, const verrou_url *url, void **ret_state,
                                verrou_error *err)
{
    odd *o = host->malloc(sizeof(*o));

    (void)log_context;
    if (!o)
        return host->fail(err, VERROU_ENOMEM, 0, NULL, "out of memory");
    memset(o, 0, sizeof(*o));
    o->host = host;
    strncpy(o->kind, url->rest, sizeof(o->kind) - 1);
    *ret_state = o;
    return VERROU_OK;
}

static void odd_destroy(void *state)
{
    odd *o = state;

    o->host->free(o);
}

static uint32_t odd_caps(void *state)
{
    (void)state;
    return VERROU_CAP_SHARED;
}

static verrou_status odd_open(void *state, int64_t deadline_ms, void **ret_lane, verrou_error *err)
{
    (void)deadline_ms;
    (void)err;
    *ret_lane = state;
    return VERROU_OK;
}

static void odd_close(void *state, void *lane)
{
    (void)state;
    (void)lane;
}

static void answer(const odd *o, verrou_op *op)
{
    op->result = VERROU_OP_APPLIED;
    if (is(o, "held") && (op->kind == VERROU_OP_ACQUIRE || op->kind == VERROU_OP_INSPECT)) {
        o->host->holder(op, "some\x1b[1mone", 11, -1, 0);
        op->result = op->kind == VERROU_OP_ACQUIRE ? VERROU_OP_REFUSED : VERROU_OP_APPLIED;
    } else if (is(o, "lost") && op->kind == VERROU_OP_ACQUIRE) {
        o->host->op_fail(op, VERROU_OP_UNKNOWN, 1, "ODD", "the answer is lost");
    } else if (is(o, "brittle") && op->kind == VERROU_OP_RELEASE) {
        o->host->op_fail(op, VERROU_OP_FAILED, 0, "ODD", "the release is refused");
    } else if (op->kind == VERROU_OP_INSPECT) {
        op->result = VERROU_OP_REFUSED;
    }
}

static verrou_status odd_execute(void *state, void *lane, verrou_op *const *ops, size_t n, int64_t deadline_ms,
                                 verrou_error *err)
{
    (void)lane;
    (void)deadline_ms;
    (void)err;
    for (size_t i = 0; i < n; ++i)
        answer(state, ops[i]);
    return VERROU_OK;
}

static verrou_status odd_check(void *state, void *lane, int64_t deadline_ms, verrou_sink *sink, verrou_error *err)
{
    const odd *o = state;

    (void)lane;
    (void)deadline_ms;
    if (is(o, "sick") && o->host->finding(sink, VERROU_ERROR_LEVEL, "health", "the store is sick"))
        return o->host->fail(err, VERROU_ENOMEM, 0, NULL, "out of memory");
    return VERROU_OK;
}

const verrou_driver *verrou_odd_driver(void);

__attribute__((visibility("default"))) const verrou_driver *verrou_odd_driver(void)
{
    static const char *const schemes[] = {"odd", NULL};
    static const char *const settings[] = {NULL};
    static const verrou_driver driver = {
        .version = VERROU_STORE_VERSION,
        .schemes = schemes,
        .settings = settings,
        .default_lanes = 1,
        .max_lanes = 1,
        .create = odd_create,
        .destroy = odd_destroy,
        .caps = odd_caps,
        .open = odd_open,
        .close = odd_close,
        .execute = odd_execute,
        .check = odd_check,
    };
    return &driver;
}
