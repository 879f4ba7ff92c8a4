/*
 * backend.c - the driver whose requests are answered by JavaScript: `LockStore`s of applications, and the adapters of lib/ for connections
 * that an application gives.
 *
 * It answers later (VERROU_DRIVER_LATER): execute() leaves a message for the environment's thread and returns, so that no thread of the
 * engine ever waits for JavaScript, and nothing can deadlock when an environment ends. A request that JavaScript works on has a number; a
 * promise that is settled after its store was closed, or after its time was over, names a number that is not there any more.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "addon.h"

#define SCHEME "nodejs"
#define SLOT_BITS 20
#define MAX_SLOTS (1u << SLOT_BITS)

struct request {
    struct message message;
    struct store *store; /* has a reference */
    verrou_op *op;
    int64_t limit_ms;
    double number; /* what JavaScript knows it by */
};

/* ---- opening ---- */

/* Which store this thread is opening: an address has no place for it, and create() is called before verrou_store_open() returns. */
static _Thread_local struct store *opening;

verrou_status backend_open(struct store *store, const char *settings_text, const verrou_store_options *options,
                           verrou_error *err)
{
    char address[512];
    int len = snprintf(address, sizeof(address), SCHEME ":%s%s", settings_text[0] ? "?" : "", settings_text);
    verrou_status status;

    if (len < 0 || (size_t)len >= sizeof(address))
        return verrou_error_set(err, VERROU_ECONFIG, 0, NULL, "settings: they are too long");
    opening = store;
    status = verrou_store_open(address, options, &store->native, err);
    opening = NULL;
    return status;
}

static verrou_status backend_create(const verrou_host *host, void *log_context, const verrou_url *url, void **ret_state,
                                    verrou_error *err)
{
    (void)url;
    if (!opening)
        return host->fail(err, VERROU_ECONFIG, 0, NULL, "\"%s:\" is for stores made in JavaScript", SCHEME);
    opening->host = host;
    opening->host_context = log_context;
    *ret_state = opening;
    return VERROU_OK;
}

static void backend_destroy(void *state)
{
    (void)state; /* the wrapper's */
}

static uint32_t backend_caps(void *state)
{
    struct store *store = state;

    return store->caps;
}

/* ---- requests ---- */

static void request_free(struct request *request)
{
    store_unref(request->store);
    free(request);
}

/* Any thread. */
static void request_end(struct request *request, verrou_op_result result, const char *why)
{
    struct store *store = request->store;

    store->host->op_fail(request->op, result, 1, NULL, "%s", why);
    store->host->answered(store->host_context, request->op);
    request_free(request);
}

static void request_drop(struct message *message)
{
    request_end((struct request *)message, VERROU_OP_FAILED, "the JavaScript environment has ended");
}

/* A free slot, with the mutex held. */
static bool slot_take(struct env *env, struct request *request)
{
    uint32_t at;

    if (env->slots_used == env->slot_count) {
        uint32_t count = env->slot_count ? env->slot_count * 2 : 64;
        struct request **grown = count > MAX_SLOTS ? NULL : realloc(env->slots, count * sizeof(struct request *));

        if (!grown)
            return false;
        memset(grown + env->slot_count, 0, (count - env->slot_count) * sizeof(*grown));
        env->slots = grown;
        env->slot_count = count;
    }
    at = env->slot_next % env->slot_count;
    while (env->slots[at])
        at = (at + 1) % env->slot_count;
    env->slot_next = at + 1;
    env->slots[at] = request;
    env->slots_used++;
    request->number = (double)++env->generation * MAX_SLOTS + at;
    return true;
}

/* The request of this number, which is taken out; NULL if it is gone. */
static struct request *slot_leave(struct env *env, double number)
{
    struct request *request = NULL;
    uint32_t at = (uint32_t)((uint64_t)number & (MAX_SLOTS - 1));

    pthread_mutex_lock(&env->mutex);
    if (at < env->slot_count && env->slots[at] && env->slots[at]->number == number) {
        request = env->slots[at];
        env->slots[at] = NULL;
        env->slots_used--;
    }
    pthread_mutex_unlock(&env->mutex);
    return request;
}

static bool request_call(struct env *env, const struct request *request)
{
    napi_value wrapper = store_wrapper(request->store), on_request = NULL, args[7], ignored = NULL;
    const verrou_op *op = request->op;
    int64_t left_ms = request->limit_ms - verrou_now_ms();

    if (!wrapper || napi_get_named_property(env->napi, wrapper, "onRequest", &on_request) != napi_ok)
        return false;
    napi_create_double(env->napi, request->number, &args[0]);
    napi_create_int32(env->napi, (int32_t)op->kind, &args[1]);
    args[2] = value_text(env->napi, op->key);
    args[3] = op->owner ? value_text(env->napi, op->owner) : value_undefined(env->napi);
    args[4] = value_ms(env->napi, op->ttl_ms);
    napi_create_double(env->napi, (double)op->fence, &args[5]);
    args[6] = value_ms(env->napi, left_ms > 0 ? left_ms : 0);
    return args[2] && args[3] &&
           napi_call_function(env->napi, wrapper, on_request, COUNT(args), args, &ignored) == napi_ok;
}

static void request_deliver(struct env *env, struct message *message)
{
    struct request *request = (struct request *)message;
    napi_value ignored = NULL;
    bool pending = false;
    double number;
    bool taken;

    pthread_mutex_lock(&env->mutex);
    taken = !atomic_load(&request->store->closed) && slot_take(env, request);
    number = request->number;
    pthread_mutex_unlock(&env->mutex);
    if (!taken) {
        request_end(request, VERROU_OP_FAILED, "the store was closed, or has no memory for another request");
        return;
    }
    if (request_call(env, request))
        return;
    napi_is_exception_pending(env->napi, &pending);
    if (pending)
        napi_get_and_clear_last_exception(env->napi, &ignored);
    request = slot_leave(env, number);
    if (request)
        request_end(request, VERROU_OP_UNKNOWN, "the store's JavaScript cannot be called");
}

/* With the engine's mutex held, on any thread. */
static verrou_status backend_execute(void *state, void *lane, verrou_op *const *ops, size_t n, int64_t deadline_ms,
                                     verrou_error *err)
{
    struct store *store = state;
    struct request *request;

    (void)lane;
    (void)n;
    if (atomic_load(&store->closed))
        return store->host->fail(err, VERROU_ECLOSED, 0, NULL, "%s", verrou_status_text(VERROU_ECLOSED));
    request = calloc(1, sizeof(*request));
    if (!request)
        return store->host->fail(err, VERROU_ENOMEM, 1, NULL, "%s", verrou_status_text(VERROU_ENOMEM));
    store_ref(store);
    request->message.deliver = request_deliver;
    request->message.drop = request_drop;
    request->store = store;
    request->op = ops[0];
    request->limit_ms = deadline_ms;
    if (loop_post(store->env, &request->message))
        return VERROU_OK;
    request_free(request);
    return store->host->fail(err, VERROU_ECLOSED, 0, NULL, "the JavaScript environment has ended");
}

void backend_fail_all(struct store *store)
{
    struct env *env = store->env;

    for (uint32_t at = 0; at < env->slot_count; at++) {
        struct request *request = env->slots[at];

        if (!request || request->store != store)
            continue;
        request = slot_leave(env, request->number);
        if (request)
            request_end(request, VERROU_OP_UNKNOWN, "the store was closed before its answer was there");
    }
}

void backend_slots_free(struct env *env)
{
    free(env->slots);
}

/* ---- answers ---- */

/* What answer() is told. */
struct answer {
    double number;
    int32_t result; /* verrou_op_result */
    char *owner;    /* of the holder, NULL if it is not known */
    int64_t remaining_ms;
    double fence;
    bool retriable;
    char *message;
    char *code;
};

static void answer_fill(struct request *request, const struct answer *answer)
{
    const verrou_host *host = request->store->host;
    verrou_op *op = request->op;
    uint64_t fence = answer->fence > 0 && answer->fence <= 9007199254740992.0 ? (uint64_t)answer->fence : 0;

    if (answer->message) {
        host->op_fail(op, (verrou_op_result)answer->result, answer->retriable, answer->code, "%s", answer->message);
        return;
    }
    op->result = (verrou_op_result)answer->result;
    if (answer->owner)
        host->holder(op, answer->owner, strlen(answer->owner),
                     answer->remaining_ms == VERROU_DEFAULT ? -1 : answer->remaining_ms, fence);
    else if (op->kind == VERROU_OP_ACQUIRE)
        op->fence = fence;
}

static bool answer_read(napi_env napi, const napi_value *args, struct answer *answer)
{
    int64_t result = 0;

    if (!napi_ok_or_throw(napi, napi_get_value_double(napi, args[0], &answer->number)) ||
        !arg_ms(napi, args[1], &result) || !arg_text(napi, args[2], "owner", &answer->owner) ||
        !arg_ms(napi, args[3], &answer->remaining_ms) ||
        !napi_ok_or_throw(napi, napi_get_value_double(napi, args[4], &answer->fence)) ||
        !arg_bool(napi, args[5], &answer->retriable) || !arg_text(napi, args[6], "message", &answer->message) ||
        !arg_text(napi, args[7], "code", &answer->code))
        return false;
    answer->result = result >= VERROU_OP_APPLIED && result <= VERROU_OP_UNKNOWN ? (int32_t)result : VERROU_OP_FAILED;
    return true;
}

/* store.answer(number, result, owner, remaining, fence, retriable, message, code) */
napi_value backend_answer(napi_env napi, napi_callback_info info)
{
    struct answer answer = {.remaining_ms = VERROU_DEFAULT};
    napi_value self = NULL, args[8];
    size_t argc = COUNT(args);
    struct request *request;
    struct store *store;

    if (!napi_ok_or_throw(napi, napi_get_cb_info(napi, info, &argc, args, &self, NULL)) ||
        !(store = store_arg(napi, self)) || !answer_read(napi, args, &answer))
        goto done;
    request = slot_leave(store->env, answer.number);
    if (!request)
        goto done;
    answer_fill(request, &answer);
    loop_enter(store->env);
    store->host->answered(store->host_context, request->op);
    /* The caller's promise is settled now: by way of the descriptor it would take another turn of the loop. */
    loop_dispatch(store->env);
    loop_leave(store->env);
    request_free(request);
done:
    free(answer.owner);
    free(answer.message);
    free(answer.code);
    return NULL;
}

/* ---- the driver ---- */

static const char *const schemes[] = {SCHEME, NULL};
static const char *const settings[] = {NULL};

static const verrou_driver backend_driver = {
    .version = VERROU_STORE_VERSION,
    .schemes = schemes,
    .settings = settings,
    .flags = VERROU_DRIVER_LATER,
    .create = backend_create,
    .destroy = backend_destroy,
    .caps = backend_caps,
    .execute = backend_execute,
    .max_key = 60000,
};

verrou_status backend_register(verrou_error *err)
{
    return verrou_register_driver(&backend_driver, err);
}
